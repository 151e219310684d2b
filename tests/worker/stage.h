/* A real broker and a real worker, both inside the test's process, and a client between whom and
 * the model everything goes over sockets.
 *
 * For cmocka tests: what cannot be done fails the test. */
#ifndef TESTS_WORKER_STAGE_H
#define TESTS_WORKER_STAGE_H

#include "memos/worker/worker.h"
#include "tests/broker/fixture.h"
#include "tests/worker/tiny_host.h"

#define STAGE_STOP_ID 2 /* of the tiny model */

struct stage {
    struct fixture broker;
    struct tiny_host tiny, same; /* the worker's, and one like it to ask directly */
    struct worker_host *host;
    struct worker *worker;
    pthread_t thread;
    struct memos_error err; /* of worker_run */
};

void stage_begin(struct stage *stage, const struct tiny_host_options *options);
void stage_end(struct stage *stage);

/* The worker alone, and what worker_run gave. */
void stage_worker_start(struct stage *stage);
enum memos_status stage_worker_end(struct stage *stage);
/* Wait until the broker knows so many workers. */
void stage_await_workers(struct stage *stage, size_t count);

/* A Generate of a bare text, greedy, in which the model's own stop is never taken, so that its
 * length is known. Change what it has, then send it. */
struct stage_generate {
    Memos__Request request;
    Memos__Generate generate;
    Memos__Sampling sampling;
    Memos__TokenBias bias, *biases[1];
    struct memos_bytes frames[4];
    size_t frames_count;
};
void stage_generate_make(struct stage_generate *out, const char *text, uint32_t tokens);
uint64_t stage_send(struct memos_client *client, struct stage_generate *generate);

/* What a client hears of one request. */
struct stage_heard {
    uint32_t *ids;
    float *logprobs;
    size_t count, updates, top_count;
    struct memos_buffer text; /* streamed */
    struct memos_message *last;
    const Memos__Reply *reply; /* the last; NULL: not yet */
};
/* Add a reply to it; takes the message. */
void stage_hear(struct stage_heard *heard, struct memos_message *message);
/* Send, and hear all of it. */
void stage_ask(
    struct memos_client *client, struct stage_generate *generate, struct stage_heard *out);
/* The rest of what was sent. */
void stage_await(struct memos_client *client, uint64_t id, struct stage_heard *heard);
/* Cancel it, and hear what there is until its end, however much has come meanwhile. */
void stage_cancel(struct memos_client *client, uint64_t id, struct stage_heard *heard);
void stage_heard_free(struct stage_heard *heard);

/* What the engine says of the same text when it is asked directly. */
struct stage_direct {
    uint32_t *ids;
    float *logprobs;
    size_t count;
};
void stage_direct(struct stage *stage, const char *text, size_t tokens, struct stage_direct *out);
void stage_direct_free(struct stage_direct *direct);

void stage_assert_same(const struct stage_heard *heard, const struct stage_direct *direct);

#endif
