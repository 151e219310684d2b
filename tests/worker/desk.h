/* The broker's end of a worker's link, played by the test itself: it takes what the worker says one
 * by one and answers as it wants, also what no broker would.
 *
 * For cmocka tests: what cannot be done, or does not come within a minute, fails the test. */
#ifndef TESTS_WORKER_DESK_H
#define TESTS_WORKER_DESK_H

#include "memos/worker/worker.h"
#include "proto/envelope.h"
#include "tests/worker/tiny_host.h"

#include <pthread.h>

#define DESK_ADDRESS_BYTES (FOLDER_PATH_BYTES + 16)

struct desk {
    void *context, *router;
    char address[DESK_ADDRESS_BYTES];
    uint64_t announce_id;
    struct memos_frames frames; /* of the request that came last */
    struct memos_arena arena;
    Memos__Request *request;
    zmq_msg_t identity; /* the worker's */
    bool has_identity;
};

/* Bound to ipc in the folder. */
void desk_open(struct desk *desk, const char *folder);
void desk_close(struct desk *desk);

/* The next that is no heartbeat (but where one is asked for); it must be this. Views until the
 * next.
 */
const Memos__Request *desk_take(struct desk *desk, Memos__Request__BodyCase body);
/* The next, whatever it is. */
const Memos__Request *desk_any(struct desk *desk);
/* A payload frame of it. */
struct memos_bytes desk_frame(const struct desk *desk, uint32_t number);

/* Take the announcement, and answer it. */
void desk_welcome(struct desk *desk);
void desk_welcome_taken(struct desk *desk); /* the announcement is what came last */

/* A reply to the announcement, with `more`; frames: its payload frames. */
void desk_say(
    struct desk *desk, Memos__Reply *reply, const struct memos_bytes *frames, size_t frames_count);
/* A last reply to the request of that id. */
void desk_say_last(struct desk *desk, Memos__Reply *reply, uint64_t id);
void desk_give(
    struct desk *desk, Memos__Job *job, const struct memos_bytes *frames, size_t frames_count);
void desk_cancel(struct desk *desk, uint8_t ticket[16]);
void desk_ping(struct desk *desk, bool announce_again);
void desk_stop(struct desk *desk);

/* The last reply for a job; streamed tokens before it are appended to ids and text (or dropped,
 * when NULL). Then JobOver. Views until the next desk_take. */
struct desk_heard {
    uint32_t ids[TINY_HOST_ANSWER_MAX];
    float logprobs[TINY_HOST_ANSWER_MAX];
    size_t count, updates;
    struct memos_buffer text;
};
const Memos__Reply *desk_last(
    struct desk *desk, const uint8_t ticket[16], struct desk_heard *heard);
void desk_over(struct desk *desk, const uint8_t ticket[16]);

/* A worker in a thread of its own. */
struct running {
    struct worker *worker;
    pthread_t thread;
    struct memos_error err;
};
void running_start(struct running *running, const struct worker_options *options);
/* What worker_run gave; the worker is gone. */
enum memos_status running_end(struct running *running);

#endif
