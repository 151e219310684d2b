/* Jobs for workers: the queue that they wait in, who gets them, and what becomes of them.
 *
 * What a client asks of a model (generate, score, capture) becomes a task. It waits; it is given to
 * a worker under a ticket; the worker's replies go to the client as they come; after the last one
 * the ticket still holds, until the worker says that the job is over. (A "job" is what the protocol
 * calls it; in this folder that word is also used for long requests, so that it is a task here.)
 *
 *     waiting --give--> running --last reply--> lingering --JobOver--> freed
 *        ^                 |  its worker is lost: before the client was told anything, and while
 *        +-----------------+  another worker has the model; otherwise the client is told
 *
 * Order: clients take turns. Each has a sum of what it was given, 128/priority for each task; the
 * client with the smallest sum comes next, and one that comes anew starts where the others are. So
 * a client with a thousand tasks holds up another one for a single task. Among its own tasks the
 * higher priority comes first, then the older one. (Start-time fair queueing: Goyal, Vin, Cheng,
 * SIGCOMM 1996.) A task whose model's workers have no room lets others pass.
 *
 * Threads: the front thread's. Nothing here waits. */
#ifndef MEMOS_BROKER_WORK_H
#define MEMOS_BROKER_WORK_H

#include "memos/broker/workers.h"

enum {
    BROKER_TICKET_BYTES = 16,
    BROKER_ATTEMPTS_MAX = 3,
    BROKER_LINGER_US_MAX = 60000000, /* from the last reply to JobOver */
    BROKER_TICKET_BUCKETS = 1024,
    BROKER_PRIORITY_NORMAL = 128,
};

/* A client of whom there are tasks. */
struct broker_share {
    struct broker_share *next;
    uint64_t connection;
    struct broker_task *waiting; /* in order, through waiting_next */
    size_t tasks;                /* waiting or with a worker */
    uint64_t given;              /* the sum above, in 1/256 */
};

struct broker_task {
    struct broker_task *next, *previous; /* all of them */
    struct broker_task *waiting_next;    /* while it waits */
    struct broker_task *bucket_next;     /* while it has a ticket */
    struct broker_share *share;
    struct broker_request *rq;    /* the client's; NULL: answered */
    struct broker_worker *worker; /* NULL: waiting */
    uint8_t ticket[BROKER_TICKET_BYTES];
    struct broker_peer peer; /* whose rights the ticket gives */
    char space[MEMCUBE_SPACE_BYTES_MAX + 1];
    struct broker_model_wanted wanted;
    uint64_t number; /* counted up: the older one is the smaller */
    unsigned priority, attempt;
    uint64_t tokens, parts; /* that the client was told */
    int64_t cancelled_us;   /* the worker was told that nobody wants it */
    int64_t over_by_us;     /* the ticket's end, once answered */
    bool ended_here;        /* answered by the broker, not by its worker */
};

struct broker_work_stats {
    size_t workers, waiting, running, lingering;
    uint64_t done, failed, lost_workers, lost_tasks, retried, cancelled, tokens;
    uint64_t updates_refused, tickets_refused;
};

struct broker_work {
    struct broker *broker;
    struct broker_workers workers;
    struct broker_task *tasks;
    struct broker_share *shares;
    struct broker_task *tickets[BROKER_TICKET_BUCKETS];
    size_t waiting;
    uint64_t next_number;
    uint64_t given; /* where the client stood that was served last */
    int64_t next_us;
    struct broker_work_stats stats; /* its counters */
};

MEMOS_MUST_USE enum memos_status broker_work_create(
    struct broker *broker, struct broker_work **out_work, struct memos_error *err);
/* Takes NULL. Clients and workers are not told; see broker_work_stop. */
void broker_work_destroy(struct broker_work **work);

/* What time brings: pings, deadlines, workers that are gone or silent. Call it when next_us has
 * come. */
void broker_work_tick(struct broker_work *work);
int64_t broker_work_next_us(const struct broker_work *work);

/* End everything, because the broker goes down: clients and workers are answered UNAVAILABLE. */
void broker_work_stop(struct broker_work *work);

/* Something of the space was destroyed: workers hear of it before anybody else does. */
void broker_work_forgot(struct broker_work *work, struct memos_bytes space);

/* Grants have changed: who may not be a worker any more is none. */
void broker_work_review(struct broker_work *work);

/* A request that this keeps has been cancelled by its client. */
void broker_work_cancel(struct broker_request *rq);

/* A part of its reply could not be sent: look at it soon. */
void broker_work_unheard(struct broker_request *rq);

void broker_work_stats(const struct broker_work *work, struct broker_work_stats *out);

/* ---- between the files of this part (work.c, worker_asks.c) ---------------------------------- */

/* The running or lingering task that has this ticket; NULL. */
struct broker_task *broker_task_of(const struct broker_work *work, ProtobufCBinaryData ticket);

/* Give the client its last reply; the ticket lingers. */
void broker_task_answer(struct broker_work *work, struct broker_task *task,
    enum memos_status status, const struct memos_error *why);

/* Let go of it, whatever it is at; an unanswered client is not answered any more. */
void broker_task_free(struct broker_work *work, struct broker_task *task);

/* Tell the worker that nobody wants it. */
void broker_task_cancel(struct broker_work *work, struct broker_task *task);

/* Give what waits to who has room. */
void broker_work_match(struct broker_work *work);

/* A worker is given up. `heir`: the same worker, announced anew, which is told to drop the jobs. */
void broker_work_lose(struct broker_work *work, struct broker_worker *worker,
    struct broker_worker *heir, const char *why);

/* Answer what waits for a model that no worker takes jobs for any more: it would wait for ever. */
void broker_work_orphans(struct broker_work *work);

/* A draining worker that has nothing left is told to end. */
void broker_work_drained(struct broker_work *work, struct broker_worker *worker);

/* ---- tickets (tickets.c) --------------------------------------------------------------------- */

/* Let a worker's request be its job's: sets rq->principal and rq->ticket_space. Called when
 * rq->type, access and principal are known. DENIED. */
MEMOS_MUST_USE enum memos_status broker_ticket_take(
    struct broker_request *rq, struct memos_error *err);

#endif
