/* The workers that there are: who has announced itself, with which models, and whether it is still
 * there.
 *
 * A worker is a client with the right admin on `_workers`. Its announcement is a request that stays
 * in the broker as long as the worker is known: what is said to it are further replies to it.
 *
 * Threads: the front thread's. Lifetimes: a worker's announcement and its last heartbeat are kept
 * as they came, and read where they lie. */
#ifndef MEMOS_BROKER_WORKERS_H
#define MEMOS_BROKER_WORKERS_H

#include "memos/broker/request.h"

#define BROKER_WORKERS "_workers" /* the space whose administrators may be workers */

enum { BROKER_SERVED_MAX = 64, BROKER_FINGERPRINT_BYTES = 32 };

struct broker_worker {
    struct broker_worker *next;
    uint64_t connection;
    struct broker_request *announcement;
    struct broker_request *heartbeat; /* the last; NULL: none yet */
    size_t running;                   /* jobs that it has, up to their JobOver */
    uint64_t done, failed;
    int64_t since_us;          /* wall */
    int64_t heard_us, ping_us; /* mono: when it was last heard, when it is to be pinged next */
    bool draining, stopped;    /* gets nothing new; was told to end */
    bool gone;                 /* could not be sent to: the next tick gives it up */
    bool full;                 /* its queue in ZeroMQ is: nothing new until the next tick */
    uint64_t served[BROKER_SERVED_MAX]; /* spaces that it worked for lately, hashed */
    size_t served_next;
};

struct broker_workers {
    struct broker_worker *first;
    size_t count;
};

/* Which model a job wants: by name, or by fingerprint. */
struct broker_model_wanted {
    bool by_name;
    char name[MEMCUBE_NAME_BYTES_MAX + 1];
    uint8_t fingerprint[BROKER_FINGERPRINT_BYTES];
};

/* NULL: there is none. */
struct broker_worker *broker_workers_at(const struct broker_workers *workers, uint64_t connection);
struct broker_worker *broker_workers_called(
    const struct broker_workers *workers, struct memos_bytes instance);

/* Take an announcement in; the worker has it from then on. NO_MEMORY. */
MEMOS_MUST_USE enum memos_status broker_workers_add(struct broker_workers *workers,
    struct broker_request *announcement, struct broker_worker **out_worker,
    struct memos_error *err);

/* Take it out and free it; its announcement is answered with `status` and `why`. */
void broker_workers_remove(struct broker_workers *workers, struct broker_worker *worker,
    enum memos_status status, const struct memos_error *why);

/* What the client's `model` means now. INVALID (it names several), NOT_FOUND (it names none),
 * UNAVAILABLE (there is no worker, or none that takes anything new). */
MEMOS_MUST_USE enum memos_status broker_workers_resolve(const struct broker_workers *workers,
    const char *model, struct broker_model_wanted *out, struct memos_error *err);

/* Does a worker that takes jobs have it, free or not? */
bool broker_workers_have(
    const struct broker_workers *workers, const struct broker_model_wanted *wanted);

/* The worker to give a job to: it has the model and room; one that holds the space's memory, else
 * one that worked for the space lately, else any; of these the least loaded. NULL: none now. */
struct broker_worker *broker_workers_choose(const struct broker_workers *workers,
    const struct broker_model_wanted *wanted, const char *space);

/* How this worker calls the model; NULL: it has no such. */
const Memos__WorkerModel *broker_worker_model(
    const struct broker_worker *worker, const struct broker_model_wanted *wanted);

void broker_worker_served(struct broker_worker *worker, const char *space);
const char *broker_worker_name(const struct broker_worker *worker);

/* Say something to a worker at once, with all payload frames of `payloads` (NULL: none), which are
 * shared. Sets reply's id and more. NOT_FOUND: it is gone, BUSY: it is full; both are noted in it.
 */
MEMOS_MUST_USE enum memos_status broker_worker_tell(struct broker_worker *worker,
    Memos__Reply *reply, const struct memos_frames *payloads, struct memos_error *err);
void broker_worker_ping(struct broker_worker *worker);

/* The reply to Workers. */
MEMOS_MUST_USE enum memos_status broker_workers_make(const struct broker_workers *workers,
    struct broker_request *rq, Memos__WorkerInfos *out, struct memos_error *err);

#endif
