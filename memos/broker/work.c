#include "memos/broker/work.h"

#include "memos/broker/state.h"
#include "proto/log.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

enum {
    PING_BUSY_US = 150000,  /* to a worker that has jobs */
    PING_IDLE_US = 1000000, /* to others */
    TICK_BUSY_US = 150000,
    TICK_IDLE_US = 1000000,
    CANCEL_US_MAX = 2000000, /* a worker ends a cancelled job in this time, or the broker does */
    LATE_US_MAX = 500000,    /* a worker ends a job past its deadline in this time */
    COST_UNIT = 256,
};

static int64_t now_us(const struct broker_work *work)
{
    return work->broker->clock.mono_us(work->broker->clock.self);
}

/* Look at everything at the end of this turn. */
static void look_soon(struct broker_work *work)
{
    work->next_us = 0;
}

enum memos_status broker_work_create(
    struct broker *broker, struct broker_work **out_work, struct memos_error *err)
{
    struct broker_work *work = calloc(1, sizeof *work);
    if (!work) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for the table of workers");
    }
    work->broker = broker;
    *out_work = work;
    return MEMOS_OK;
}

/* ---- clients' shares ---- */

static struct broker_share *share_of(struct broker_work *work, uint64_t connection)
{
    struct broker_share *share = work->shares;
    while (share && share->connection != connection) {
        share = share->next;
    }
    if (!share && (share = calloc(1, sizeof *share)) != NULL) {
        share->connection = connection;
        share->given = work->given;
        share->next = work->shares;
        work->shares = share;
    }
    return share;
}

static void share_leave(struct broker_work *work, struct broker_share *share)
{
    struct broker_share **at = &work->shares;
    if (--share->tasks > 0) {
        return;
    }
    while (*at != share) {
        at = &(*at)->next;
    }
    *at = share->next;
    free(share);
}

static void waiting_add(struct broker_work *work, struct broker_task *task)
{
    struct broker_task **at = &task->share->waiting;
    while (*at && ((*at)->priority > task->priority ||
                      ((*at)->priority == task->priority && (*at)->number < task->number))) {
        at = &(*at)->waiting_next;
    }
    task->waiting_next = *at;
    *at = task;
    work->waiting++;
}

static void waiting_remove(struct broker_work *work, struct broker_task *task)
{
    struct broker_task **at = &task->share->waiting;
    while (*at != task) {
        at = &(*at)->waiting_next;
    }
    *at = task->waiting_next;
    work->waiting--;
}

/* ---- tickets ---- */

static struct broker_task **bucket_of(struct broker_work *work, const uint8_t *ticket)
{
    unsigned low = ticket[0] | (unsigned)ticket[1] << 8;
    return &work->tickets[low % BROKER_TICKET_BUCKETS];
}

struct broker_task *broker_task_of(const struct broker_work *work, ProtobufCBinaryData ticket)
{
    if (ticket.len != BROKER_TICKET_BYTES) {
        return NULL;
    }
    struct broker_task *task = *bucket_of((struct broker_work *)work, ticket.data);
    while (task && sodium_memcmp(task->ticket, ticket.data, BROKER_TICKET_BYTES) != 0) {
        task = task->bucket_next;
    }
    return task;
}

static void ticket_make(struct broker_work *work, struct broker_task *task)
{
    randombytes_buf(task->ticket, sizeof task->ticket);
    struct broker_task **bucket = bucket_of(work, task->ticket);
    task->bucket_next = *bucket;
    *bucket = task;
}

static void ticket_drop(struct broker_work *work, struct broker_task *task)
{
    struct broker_task **at = bucket_of(work, task->ticket);
    while (*at != task) {
        at = &(*at)->bucket_next;
    }
    *at = task->bucket_next;
    sodium_memzero(task->ticket, sizeof task->ticket);
}

/* ---- a task's life ---- */

static struct broker_task *task_make(struct broker_work *work, struct broker_request *rq)
{
    struct broker_task *task = calloc(1, sizeof *task);
    struct broker_share *share = task ? share_of(work, rq->connection) : NULL;
    if (!share) {
        free(task);
        return NULL;
    }
    share->tasks++;
    task->share = share;
    task->rq = rq;
    task->peer = rq->peer;
    task->number = work->next_number++;
    task->priority = rq->call.work.priority;
    (void)snprintf(task->space, sizeof task->space, "%.*s", (int)rq->call.space.size,
        rq->call.space.size ? (const char *)rq->call.space.data : "");
    task->next = work->tasks;
    if (work->tasks) {
        work->tasks->previous = task;
    }
    work->tasks = task;
    rq->task = task;
    return task;
}

/* The worker has it no longer. */
static void leave_worker(struct broker_work *work, struct broker_task *task)
{
    if (task->worker) {
        ticket_drop(work, task);
        task->worker->running--;
        task->worker = NULL;
    }
}

void broker_task_free(struct broker_work *work, struct broker_task *task)
{
    if (task->worker) {
        leave_worker(work, task);
    } else {
        waiting_remove(work, task);
    }
    if (task->previous) {
        task->previous->next = task->next;
    } else {
        work->tasks = task->next;
    }
    if (task->next) {
        task->next->previous = task->previous;
    }
    if (task->rq) {
        task->rq->task = NULL;
    }
    share_leave(work, task->share);
    free(task);
}

void broker_task_answer(struct broker_work *work, struct broker_task *task,
    enum memos_status status, const struct memos_error *why)
{
    struct broker_request *rq = task->rq;
    task->rq = NULL;
    task->ended_here = true;
    task->over_by_us = now_us(work) + BROKER_LINGER_US_MAX;
    rq->task = NULL;
    work->stats.failed += status != MEMOS_OK && status != MEMOS_CANCELLED;
    work->stats.cancelled += status == MEMOS_CANCELLED;
    broker_request_begin(rq);
    broker_request_pack(rq, status, why);
    broker_reply_send(work->broker, &rq->answer);
}

/* Answer a task that no worker has, and free it. */
static void task_fail(struct broker_work *work, struct broker_task *task, enum memos_status status,
    const struct memos_error *why)
{
    broker_task_answer(work, task, status, why);
    broker_task_free(work, task);
}

void broker_task_cancel(struct broker_work *work, struct broker_task *task)
{
    Memos__JobCancel cancel = MEMOS__JOB_CANCEL__INIT;
    Memos__Reply reply = MEMOS__REPLY__INIT;
    if (!task->worker || task->cancelled_us) {
        return;
    }
    cancel.ticket = (ProtobufCBinaryData){.len = sizeof task->ticket, .data = task->ticket};
    reply.body_case = MEMOS__REPLY__BODY_JOB_CANCEL;
    reply.job_cancel = &cancel;
    task->cancelled_us = now_us(work);
    /* One that does not hear of it is gone, or has CANCEL_US_MAX. */
    if (broker_worker_tell(task->worker, &reply, NULL, NULL) == MEMOS_NOT_FOUND) {
        look_soon(work);
    }
}

/* ---- coming in ---- */

enum memos_status broker_work_ask(struct broker_request *rq, struct memos_error *err)
{
    struct broker_work *work = rq->broker->work;
    struct broker_model_wanted wanted;
    if (work->waiting >= rq->broker->config.worker_queue_max) {
        return memos_fail(
            err, MEMOS_BUSY, "%zu jobs are waiting for a worker already", work->waiting);
    }
    enum memos_status status =
        broker_workers_resolve(&work->workers, rq->call.work.model, &wanted, err);
    if (status != MEMOS_OK) {
        return status;
    }
    struct broker_task *task = task_make(work, rq);
    if (!task) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a job");
    }
    task->wanted = wanted;
    waiting_add(work, task);
    if (rq->deadline_us > 0 && rq->deadline_us < work->next_us) {
        work->next_us = rq->deadline_us;
    }
    if (work->next_us > rq->arrived_us + TICK_BUSY_US) {
        work->next_us = rq->arrived_us + TICK_BUSY_US;
    }
    broker_work_match(work);
    return MEMOS_OK;
}

/* ---- handing out ---- */

static void job_fill(const struct broker_task *task, int64_t now, char *model, Memos__Job *job)
{
    struct broker_request *rq = task->rq;
    int64_t left_ms = (rq->deadline_us - now) / 1000;
    job->ticket.data = (uint8_t *)(uintptr_t)task->ticket;
    job->ticket.len = sizeof task->ticket;
    job->deadline_ms = rq->deadline_us == 0   ? 0
                       : left_ms < 1          ? 1
                       : left_ms < UINT32_MAX ? (uint32_t)left_ms
                                              : UINT32_MAX;
    job->queued_us = now > rq->arrived_us ? (uint64_t)(now - rq->arrived_us) : 0;
    job->attempt = task->attempt;
    /* The worker must not have to find out anew which model was meant. */
    switch (rq->envelope->body_case) {
    case MEMOS__REQUEST__BODY_GENERATE:
        job->body_case = MEMOS__JOB__BODY_GENERATE;
        job->generate = rq->envelope->generate;
        job->generate->model = model;
        break;
    case MEMOS__REQUEST__BODY_SCORE:
        job->body_case = MEMOS__JOB__BODY_SCORE;
        job->score = rq->envelope->score;
        job->score->model = model;
        break;
    default:
        job->body_case = MEMOS__JOB__BODY_CAPTURE;
        job->capture = rq->envelope->capture;
        job->capture->model = model;
    }
}

/* Give a waiting task to a worker. False: it could not be, and waits still (the worker is noted as
 * gone or full), or could never be, and is answered. */
static bool give(struct broker_work *work, struct broker_task *task, struct broker_worker *worker)
{
    struct memos_error err = {0};
    struct broker_request *rq = task->rq;
    char principal[BROKER_PRINCIPAL_BYTES_MAX + 1];
    Memos__Job job = MEMOS__JOB__INIT;
    Memos__Reply reply = MEMOS__REPLY__INIT;

    waiting_remove(work, task);
    task->worker = worker;
    task->attempt++;
    worker->running++;
    ticket_make(work, task);
    (void)snprintf(principal, sizeof principal, "%.*s", (int)rq->principal.size,
        rq->principal.size ? (const char *)rq->principal.data : "");
    job.principal = principal;
    job_fill(task, now_us(work), broker_worker_model(worker, &task->wanted)->name, &job);
    reply.body_case = MEMOS__REPLY__BODY_JOB;
    reply.job = &job;
    enum memos_status status = broker_worker_tell(worker, &reply, &rq->message, &err);
    if (status == MEMOS_OK) {
        broker_worker_served(worker, task->space);
        return true;
    }
    leave_worker(work, task);
    task->attempt--;
    waiting_add(work, task);
    if (worker->gone) { /* one that is full has until the next tick */
        look_soon(work);
    }
    if (status != MEMOS_NOT_FOUND && status != MEMOS_BUSY) {
        task_fail(work, task, status, &err);
    }
    return false;
}

static bool has_room(const struct broker_work *work)
{
    for (const struct broker_worker *worker = work->workers.first; worker; worker = worker->next) {
        if (!worker->gone && !worker->draining && !worker->full &&
            worker->running < worker->announcement->envelope->worker_announce->jobs_max) {
            return true;
        }
    }
    return false;
}

/* The next task in order that somebody has room for, and who; NULL: none. */
static struct broker_task *next_task(
    const struct broker_work *work, struct broker_worker **out_worker)
{
    struct broker_task *best = NULL;
    for (struct broker_share *share = work->shares; share; share = share->next) {
        if (best && share->given >= best->share->given) {
            continue;
        }
        for (struct broker_task *task = share->waiting; task; task = task->waiting_next) {
            struct broker_worker *worker =
                broker_workers_choose(&work->workers, &task->wanted, task->space);
            if (worker) {
                best = task;
                *out_worker = worker;
                break;
            }
        }
    }
    return best;
}

void broker_work_match(struct broker_work *work)
{
    struct broker_worker *worker = NULL;
    struct broker_task *task;
    while (work->waiting > 0 && has_room(work) && (task = next_task(work, &worker)) != NULL) {
        struct broker_share *share = task->share;
        uint64_t cost = (uint64_t)BROKER_PRIORITY_NORMAL * COST_UNIT / task->priority;
        if (give(work, task, worker)) {
            work->given = share->given > work->given ? share->given : work->given;
            share->given += cost;
        }
    }
}

/* ---- losing ---- */

/* Its worker is lost: another one takes it on, or the client hears of it. */
static void task_lost(struct broker_work *work, struct broker_task *task, const char *name)
{
    struct memos_error err;
    leave_worker(work, task);
    waiting_add(work, task); /* where a task without a worker belongs */
    if (!task->rq) {
        broker_task_free(work, task);
        return;
    }
    work->stats.lost_tasks++;
    bool cancelled = atomic_load_explicit(&task->rq->cancelled, memory_order_relaxed);
    if (cancelled || task->cancelled_us) {
        task_fail(work, task, memos_fail(&err, MEMOS_CANCELLED, "cancelled by its sender"), &err);
    } else if (task->parts > 0) {
        task_fail(work, task,
            memos_fail(&err, MEMOS_UNAVAILABLE, "the worker %.80s was lost after %llu tokens", name,
                (unsigned long long)task->tokens),
            &err);
    } else if (task->attempt >= BROKER_ATTEMPTS_MAX) {
        task_fail(work, task,
            memos_fail(&err, MEMOS_UNAVAILABLE,
                "%u workers were lost with this job, the last was %.80s", task->attempt, name),
            &err);
    } else if (!broker_workers_have(&work->workers, &task->wanted)) {
        task_fail(work, task,
            memos_fail(&err, MEMOS_UNAVAILABLE,
                "the worker %.80s was lost before its first token, and no other has the model "
                "%.60s",
                name, task->wanted.name),
            &err);
    } else {
        work->stats.retried++;
    }
}

void broker_work_orphans(struct broker_work *work)
{
    struct broker_task *next;
    struct memos_error err;
    for (struct broker_task *task = work->tasks; task; task = next) {
        next = task->next;
        if (!task->worker && !broker_workers_have(&work->workers, &task->wanted)) {
            task_fail(work, task,
                memos_fail(&err, MEMOS_UNAVAILABLE,
                    "the last worker that takes jobs for the model %.60s has gone",
                    task->wanted.name),
                &err);
        }
    }
}

static void tell_cancelled(struct broker_worker *heir, const uint8_t *ticket)
{
    Memos__JobCancel cancel = MEMOS__JOB_CANCEL__INIT;
    Memos__Reply reply = MEMOS__REPLY__INIT;
    cancel.ticket =
        (ProtobufCBinaryData){.len = BROKER_TICKET_BYTES, .data = (uint8_t *)(uintptr_t)ticket};
    reply.body_case = MEMOS__REPLY__BODY_JOB_CANCEL;
    reply.job_cancel = &cancel;
    (void)(broker_worker_tell(heir, &reply, NULL, NULL) == MEMOS_OK);
}

void broker_work_lose(struct broker_work *work, struct broker_worker *worker,
    struct broker_worker *heir, const char *why)
{
    struct memos_error err;
    struct broker_task *next;
    char name[MEMCUBE_NAME_BYTES_MAX + 1];
    bool calm = (worker->stopped || heir) && worker->running == 0;

    (void)snprintf(name, sizeof name, "%s", broker_worker_name(worker));
    memos_log(calm ? MEMOS_LOG_INFO : MEMOS_LOG_WARNING,
        memos_log_event(calm ? "worker over" : "worker lost"), memos_log_text("worker", name),
        memos_log_text("why", why), memos_log_uint("jobs", worker->running));
    work->stats.lost_workers += !calm;
    worker->gone = true; /* gets none of its tasks back */
    for (struct broker_task *task = work->tasks; task; task = next) {
        next = task->next;
        if (task->worker == worker) {
            if (heir) {
                tell_cancelled(heir, task->ticket);
            }
            task_lost(work, task, name);
        }
    }
    enum memos_status status = memos_fail(&err, MEMOS_UNAVAILABLE, "%s: announce again", why);
    broker_workers_remove(&work->workers, worker, status, &err);
    broker_work_orphans(work);
}

void broker_work_drained(struct broker_work *work, struct broker_worker *worker)
{
    Memos__WorkerStop stop = MEMOS__WORKER_STOP__INIT;
    Memos__Reply reply = MEMOS__REPLY__INIT;
    if (!worker->draining || worker->stopped || worker->running > 0) {
        return;
    }
    reply.body_case = MEMOS__REPLY__BODY_WORKER_STOP;
    reply.worker_stop = &stop;
    worker->stopped = broker_worker_tell(worker, &reply, NULL, NULL) == MEMOS_OK;
    if (worker->gone) {
        look_soon(work);
    }
}

void broker_work_forgot(struct broker_work *work, struct memos_bytes space)
{
    char name[MEMCUBE_SPACE_BYTES_MAX + 1];
    Memos__WorkerForget forget = MEMOS__WORKER_FORGET__INIT;
    (void)snprintf(name, sizeof name, "%.*s", (int)space.size, (const char *)space.data);
    forget.space = name;
    for (struct broker_worker *worker = work->workers.first; worker; worker = worker->next) {
        Memos__Reply reply = MEMOS__REPLY__INIT;
        reply.body_case = MEMOS__REPLY__BODY_WORKER_FORGET;
        reply.worker_forget = &forget;
        /* Who cannot be told is given up, and keeps nothing when it announces itself again. */
        if (broker_worker_tell(worker, &reply, NULL, NULL) != MEMOS_OK) {
            worker->gone = true;
            look_soon(work);
        }
    }
}

void broker_work_review(struct broker_work *work)
{
    struct broker_worker *next;
    const struct broker_access *access = work->broker->access;
    for (struct broker_worker *worker = work->workers.first; worker; worker = next) {
        next = worker->next;
        struct memos_bytes principal = broker_peer_principal(&worker->announcement->peer, access);
        if (broker_access_right(access, principal, memos_bytes_of(BROKER_WORKERS)) <
            BROKER_RIGHT_ADMIN) {
            broker_work_lose(work, worker, NULL, "it may not be a worker any more");
        }
    }
    look_soon(work);
}

/* ---- cancelling ---- */

void broker_work_cancel(struct broker_request *rq)
{
    struct broker_work *work = rq->broker->work;
    struct broker_worker *worker = broker_workers_at(&work->workers, rq->connection);
    struct memos_error err;
    atomic_store_explicit(&rq->cancelled, true, memory_order_relaxed);
    if (rq->task && !rq->task->worker) {
        task_fail(
            work, rq->task, memos_fail(&err, MEMOS_CANCELLED, "cancelled by its sender"), &err);
    } else if (rq->task) {
        broker_task_cancel(work, rq->task);
    } else if (worker && worker->announcement == rq) {
        worker->stopped = true; /* it says so itself: no loss, unless it leaves jobs behind */
        broker_work_lose(work, worker, NULL, "it has left");
        broker_work_match(work);
    }
}

void broker_work_unheard(struct broker_request *rq)
{
    look_soon(rq->broker->work);
}

/* ---- time ---- */

static void tick_workers(struct broker_work *work, int64_t now)
{
    struct broker_worker *next;
    int64_t silent_us = work->broker->config.worker_timeout_ms * 1000;
    for (struct broker_worker *worker = work->workers.first; worker; worker = next) {
        next = worker->next;
        worker->full = false;
        if (!worker->gone && now >= worker->ping_us) {
            worker->ping_us = now + (worker->running > 0 ? PING_BUSY_US : PING_IDLE_US);
            broker_worker_ping(worker);
        }
        if (worker->gone) {
            broker_work_lose(work, worker, NULL, "its connection is gone");
        } else if (now - worker->heard_us > silent_us) {
            broker_work_lose(work, worker, NULL, "nothing was heard of it");
        } else {
            broker_work_drained(work, worker);
        }
    }
}

static void tick_running(struct broker_work *work, struct broker_task *task, int64_t now)
{
    struct memos_error err;
    const struct broker_request *rq = task->rq;
    bool unheard = atomic_load_explicit(&rq->cancelled, memory_order_relaxed);
    bool late = rq->deadline_us > 0 && now > rq->deadline_us + LATE_US_MAX;
    if (unheard) {
        broker_task_cancel(work, task);
    }
    if (late) {
        broker_task_cancel(work, task);
        broker_task_answer(work, task,
            memos_fail(&err, MEMOS_DEADLINE, "the deadline passed while a worker had the job"),
            &err);
    } else if (task->cancelled_us > 0 && now > task->cancelled_us + CANCEL_US_MAX) {
        broker_task_answer(
            work, task, memos_fail(&err, MEMOS_CANCELLED, "cancelled by its sender"), &err);
    }
}

static void tick_tasks(struct broker_work *work, int64_t now)
{
    struct memos_error err;
    struct broker_task *next;
    for (struct broker_task *task = work->tasks; task; task = next) {
        next = task->next;
        if (!task->worker) {
            enum memos_status status = broker_request_check(task->rq, &err);
            if (status != MEMOS_OK) {
                task_fail(work, task, status, &err);
            }
        } else if (task->rq) {
            tick_running(work, task, now);
        } else if (now > task->over_by_us) {
            broker_task_free(work, task);
        }
    }
}

/* Deadlines of what waits are kept to the millisecond; everything else has time. */
static int64_t next_look(const struct broker_work *work, int64_t now)
{
    int64_t next = now + (work->tasks ? TICK_BUSY_US : TICK_IDLE_US);
    for (const struct broker_task *task = work->tasks; task; task = task->next) {
        if (!task->worker && task->rq->deadline_us > 0 && task->rq->deadline_us < next) {
            next = task->rq->deadline_us + 1;
        }
    }
    return next;
}

void broker_work_tick(struct broker_work *work)
{
    int64_t now = now_us(work);
    if (!work->workers.first && !work->tasks) {
        work->next_us = now + TICK_IDLE_US;
        return;
    }
    work->next_us = INT64_MAX;
    tick_tasks(work, now);
    tick_workers(work, now);
    broker_work_match(work);
    int64_t next = next_look(work, now);
    work->next_us = next < work->next_us ? next : work->next_us;
}

int64_t broker_work_next_us(const struct broker_work *work)
{
    return work->next_us;
}

/* ---- ending ---- */

void broker_work_stop(struct broker_work *work)
{
    struct memos_error err;
    enum memos_status status = memos_fail(&err, MEMOS_UNAVAILABLE, "the broker is going down");
    struct broker_task *next;
    for (struct broker_task *task = work->tasks; task; task = next) {
        next = task->next;
        broker_task_cancel(work, task);
        if (task->rq) {
            broker_task_answer(work, task, status, &err);
        }
        broker_task_free(work, task);
    }
    while (work->workers.first) {
        broker_workers_remove(&work->workers, work->workers.first, status, &err);
    }
}

void broker_work_destroy(struct broker_work **work)
{
    struct broker_work *it = *work;
    *work = NULL;
    if (!it) {
        return;
    }
    struct broker_task *next;
    for (struct broker_task *task = it->tasks; task; task = next) {
        next = task->next;
        struct broker_request *rq = task->rq;
        broker_task_free(it, task);
        if (rq) {
            broker_request_release(rq);
        }
    }
    while (it->workers.first) {
        struct broker_worker *worker = it->workers.first;
        it->workers.first = worker->next;
        if (worker->heartbeat) {
            broker_request_release(worker->heartbeat);
        }
        broker_request_release(worker->announcement);
        free(worker);
    }
    free(it);
}

void broker_work_stats(const struct broker_work *work, struct broker_work_stats *out)
{
    *out = work->stats;
    out->workers = work->workers.count;
    out->waiting = work->waiting;
    for (const struct broker_task *task = work->tasks; task; task = task->next) {
        out->running += task->worker && task->rq;
        out->lingering += task->worker && !task->rq;
    }
}
