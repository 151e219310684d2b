/* Workers and their clients, played by a test in one thread: everything is sent and received
 * without waiting for its answer.
 *
 * What cannot be done, or does not come within five seconds, fails the test. */
#ifndef TESTS_BROKER_FAKE_WORKER_H
#define TESTS_BROKER_FAKE_WORKER_H

#include "tests/broker/fixture.h"

struct fake_model {
    const char *name;
    uint8_t fingerprint; /* its first byte; the others are 0x11 */
};

struct fake_worker {
    struct memos_client *client;
    uint8_t instance[16];
    uint64_t announced; /* id of the announcement */
};

/* A job that a worker got. */
struct fake_job {
    struct memos_message *message; /* NULL: it has been let go */
    const Memos__Job *job;
};

/* Another connection of the owner. */
struct memos_client *another(struct fixture *fixture);

/* The next message to this client. */
struct memos_message *next_message(struct memos_client *client);

/* Nothing comes within some time. */
void expect_silence(struct memos_client *client, int64_t ms);

/* Whatever this connection has said so far, the broker has dealt with. */
void settle(struct memos_client *client);

/* Fill in an announcement of these models; views them and body's own room. */
struct fake_announcement {
    Memos__WorkerAnnounce body;
    Memos__WorkerModel models[4], *pointers[4];
    uint8_t fingerprints[4][32];
};
void announcement_fill(struct fake_announcement *out, const struct fake_worker *worker,
    const struct fake_model *models, size_t count, uint32_t jobs_max);

/* Announce, over a client of its own (opened when there is none), and wait until it was taken. */
void worker_begin(struct fixture *fixture, struct fake_worker *worker,
    const struct fake_model *models, size_t count, uint32_t jobs_max);
void worker_end(struct fake_worker *worker); /* hangs up */

/* The same with one model "m". */
void worker_plain(struct fixture *fixture, struct fake_worker *worker, uint32_t jobs_max);

void worker_heartbeat(struct fake_worker *worker, const char *warm);

/* The next job; pings are passed over. */
struct fake_job job_take(struct fake_worker *worker);
void job_free(struct fake_job *job);
/* The next message that is no ping. */
struct memos_message *worker_next(struct fake_worker *worker);
void worker_has_nothing(struct fake_worker *worker, int64_t ms);

void job_update(struct fake_worker *worker, const Memos__Job *job, Memos__Reply *reply,
    struct memos_bytes frame);
void job_token(struct fake_worker *worker, const Memos__Job *job, const char *text);
void job_finish(
    struct fake_worker *worker, const Memos__Job *job, enum memos_status status, const char *text);
void job_over(struct fake_worker *worker, const Memos__Job *job);

/* Ask for a generation; its id. */
struct wish {
    const char *space, *model, *prompt;
    uint32_t priority, deadline_ms;
};
uint64_t generate(struct memos_client *client, const struct wish *wish);

/* The next reply to this client, which must be to `id` (0: any) and of this status. */
struct answer expect(struct memos_client *client, uint64_t id, enum memos_status status);

#endif
