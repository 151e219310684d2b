/* What workers say, and what is asked about them. On the front thread. */
#include "memos/broker/state.h"
#include "memos/broker/work.h"
#include "proto/log.h"

#include <string.h>

/* ---- announcing ---- */

static enum memos_status may_announce(
    const struct broker_request *rq, const struct broker_worker *same, struct memos_error *err)
{
    const struct broker_work *work = rq->broker->work;
    if (!same && work->workers.count >= rq->broker->config.workers_max) {
        return memos_fail(
            err, MEMOS_BUSY, "%zu workers have announced themselves already", work->workers.count);
    }
    if (same && !memos_bytes_equal(same->announcement->principal, rq->principal)) {
        return memos_fail(err, MEMOS_DENIED, "another principal's worker is this instance");
    }
    return MEMOS_OK;
}

/* Who announces itself begins anew, on whatever connection: it has dropped the jobs that it had. */
enum memos_status broker_worker_announce(struct broker_request *rq, struct memos_error *err)
{
    struct broker_work *work = rq->broker->work;
    const Memos__WorkerAnnounce *body = rq->envelope->worker_announce;
    struct broker_worker *same = broker_workers_called(
        &work->workers, memos_bytes_make(body->instance.data, body->instance.len));
    struct broker_worker *here = broker_workers_at(&work->workers, rq->connection);
    struct broker_worker *worker;

    enum memos_status status = may_announce(rq, same, err);
    if (status == MEMOS_OK) {
        status = broker_workers_add(&work->workers, rq, &worker, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    broker_worker_ping(worker); /* says that it was taken in */
    if (same) {
        broker_work_lose(work, same, worker, "it has announced itself again");
    }
    if (here && here != same) {
        broker_work_lose(work, here, NULL, "another one has announced itself on its connection");
    }
    memos_log(MEMOS_LOG_INFO, memos_log_event("worker announced"),
        memos_log_text("worker", body->name), memos_log_text("model", body->models[0]->name),
        memos_log_uint("models", body->n_models), memos_log_uint("jobs", body->jobs_max));
    broker_work_orphans(work);
    broker_work_match(work);
    return MEMOS_OK;
}

/* The worker that says this, on the connection on which it announced itself; NULL. */
static struct broker_worker *heard(struct broker_request *rq)
{
    struct broker_worker *worker = broker_workers_at(&rq->broker->work->workers, rq->connection);
    if (worker) {
        worker->heard_us = rq->arrived_us;
    }
    return worker;
}

static void one_way_over(struct broker_request *rq)
{
    struct broker *broker = rq->broker;
    broker_metrics_count(&broker->metrics, rq->type, MEMOS_OK,
        broker->clock.mono_us(broker->clock.self) - rq->arrived_us);
    broker_request_release(rq);
}

enum memos_status broker_worker_heartbeat(struct broker_request *rq, struct memos_error *err)
{
    const Memos__WorkerHeartbeat *body = rq->envelope->worker_heartbeat;
    struct broker_worker *worker = heard(rq);
    const Memos__WorkerAnnounce *said =
        worker ? worker->announcement->envelope->worker_announce : NULL;
    (void)err;
    if (!said || !memos_bytes_equal(memos_bytes_make(said->instance.data, said->instance.len),
                     memos_bytes_make(body->instance.data, body->instance.len))) {
        Memos__WorkerPing ping = MEMOS__WORKER_PING__INIT;
        ping.announce_again = 1;
        rq->reply.body_case = MEMOS__REPLY__BODY_WORKER_PING;
        rq->reply.worker_ping = &ping;
        broker_request_pack(rq, MEMOS_OK, NULL);
        broker_reply_send(rq->broker, &rq->answer);
        return MEMOS_OK;
    }
    struct broker_request *before = worker->heartbeat;
    broker_metrics_count(&rq->broker->metrics, rq->type, MEMOS_OK, 0);
    worker->heartbeat = rq;
    if (before) {
        broker_request_release(before);
    }
    return MEMOS_OK;
}

/* ---- what becomes of jobs ---- */

/* Is this something that a job's client can be told? */
static enum memos_status reply_check(
    const struct broker_request *rq, const Memos__Reply *reply, struct memos_error *err)
{
    size_t frames = memos_frames_payload_count(&rq->message);
    bool good = reply->status == MEMOS_OK || !reply->more;
    switch (reply->body_case) {
    case MEMOS__REPLY__BODY_TOKENS:
    case MEMOS__REPLY__BODY_PROGRESS:
        good = good && reply->more;
        break;
    case MEMOS__REPLY__BODY_GENERATED:
        good = good && !reply->more && reply->generated->frame <= frames;
        break;
    case MEMOS__REPLY__BODY_SCORED:
    case MEMOS__REPLY__BODY_CAPTURED:
        good = good && !reply->more;
        break;
    case MEMOS__REPLY__BODY__NOT_SET:
        good = good && reply->status != MEMOS_OK;
        break;
    default:
        good = false;
    }
    if (reply->status >= BROKER_STATUSES) {
        good = false;
    }
    return good ? MEMOS_OK
                : memos_fail(err, MEMOS_INVALID,
                      "a job's client cannot be told this: status %u, body %d, more %d",
                      reply->status, (int)reply->body_case, reply->more);
}

static enum memos_status frames_make(struct broker_request *to, struct broker_request *from,
    Memos__Reply *reply, struct memos_frames *out, struct memos_error *err)
{
    size_t count = memos_frames_payload_count(&from->message);
    reply->id = to->envelope->id;
    enum memos_status status =
        memos_envelope_begin(out, memos_frames_identity(&to->message), &reply->base, err);
    for (uint32_t i = 1; i <= count && status == MEMOS_OK; i++) {
        status = memos_frames_add_shared(out, &from->message, i, err);
    }
    if (status != MEMOS_OK) {
        memos_frames_free(out);
    }
    return status;
}

/* A part goes out at once or not at all: a client that lets a thousand of them lie unread, and as
 * many bytes as the kernel holds, is not waiting for them, and they must not fill memory. */
static enum memos_status part_send(
    struct broker_task *task, struct broker_request *rq, struct memos_error *err)
{
    struct broker_work *work = rq->broker->work;
    struct broker_request *client = task->rq;
    Memos__Reply *reply = rq->envelope->job_update->reply;
    struct memos_frames frames;
    if (atomic_load_explicit(&client->cancelled, memory_order_relaxed)) {
        return MEMOS_OK; /* its end is on the way */
    }
    enum memos_status status = frames_make(client, rq, reply, &frames, err);
    if (status != MEMOS_OK) {
        return status;
    }
    if (reply->body_case == MEMOS__REPLY__BODY_TOKENS) {
        task->parts++;
        task->tokens += reply->tokens->n_tokens;
        work->stats.tokens += reply->tokens->n_tokens;
    }
    if (!broker_part_send(client, &frames)) {
        atomic_store_explicit(&client->cancelled, true, memory_order_relaxed);
        broker_task_cancel(work, task);
    }
    return MEMOS_OK;
}

static enum memos_status last_send(
    struct broker_task *task, struct broker_request *rq, struct memos_error *err)
{
    struct broker_work *work = rq->broker->work;
    struct broker_request *client = task->rq;
    Memos__Reply *reply = rq->envelope->job_update->reply;
    enum memos_status status = frames_make(client, rq, reply, &client->answer.frames, err);
    if (status != MEMOS_OK) {
        return status;
    }
    client->answer.request = client;
    client->answer.last = true;
    client->answer.status = (enum memos_status)reply->status;
    task->rq = NULL;
    client->task = NULL;
    task->over_by_us = rq->arrived_us + BROKER_LINGER_US_MAX;
    bool cancelled = reply->status == MEMOS_CANCELLED;
    task->worker->done += reply->status == MEMOS_OK;
    task->worker->failed += reply->status != MEMOS_OK && !cancelled;
    work->stats.done += reply->status == MEMOS_OK;
    work->stats.failed += reply->status != MEMOS_OK && !cancelled;
    work->stats.cancelled += cancelled;
    broker_reply_send(rq->broker, &client->answer);
    return MEMOS_OK;
}

/* The task that a worker names, if it is its own. */
static enum memos_status own_task(struct broker_request *rq, ProtobufCBinaryData ticket,
    struct broker_task **out, struct memos_error *err)
{
    struct broker_work *work = rq->broker->work;
    const struct broker_worker *worker = heard(rq);
    struct broker_task *task = worker ? broker_task_of(work, ticket) : NULL;
    if (!worker) {
        work->stats.updates_refused++;
        return memos_fail(
            err, MEMOS_UNAVAILABLE, "this worker is not known here (any more): announce it again");
    }
    if (!task || task->worker != worker) {
        work->stats.updates_refused++;
        return memos_fail(err, MEMOS_DENIED, "this worker has no job of that ticket");
    }
    *out = task;
    return MEMOS_OK;
}

enum memos_status broker_job_update(struct broker_request *rq, struct memos_error *err)
{
    const Memos__JobUpdate *body = rq->envelope->job_update;
    struct broker_work *work = rq->broker->work;
    struct broker_task *task = NULL;
    enum memos_status status = own_task(rq, body->ticket, &task, err);
    if (status != MEMOS_OK) {
        return status;
    }
    if (!task->rq && task->ended_here) {
        status = MEMOS_OK; /* the worker has not heard of it yet */
    } else if (!task->rq) {
        status = memos_fail(err, MEMOS_CONFLICT, "the job has had its last reply");
    } else {
        status = reply_check(rq, body->reply, err);
        if (status == MEMOS_OK) {
            status = body->reply->more ? part_send(task, rq, err) : last_send(task, rq, err);
        }
    }
    if (status == MEMOS_OK) {
        one_way_over(rq);
    } else {
        work->stats.updates_refused++;
    }
    return status;
}

enum memos_status broker_job_over(struct broker_request *rq, struct memos_error *err)
{
    struct broker_work *work = rq->broker->work;
    struct broker_task *task = NULL;
    struct memos_error why;
    enum memos_status status = own_task(rq, rq->envelope->job_over->ticket, &task, err);
    if (status != MEMOS_OK) {
        return status;
    }
    struct broker_worker *worker = task->worker;
    if (task->rq) {
        worker->failed++;
        broker_task_answer(work, task,
            memos_fail(&why, MEMOS_INTERNAL, "the worker %.80s ended the job without an answer",
                broker_worker_name(worker)),
            &why);
    }
    broker_task_free(work, task);
    broker_work_drained(work, worker);
    broker_work_match(work);
    one_way_over(rq);
    return MEMOS_OK;
}

/* ---- asking about them ---- */

enum memos_status broker_workers_ask(struct broker_request *rq, struct memos_error *err)
{
    const struct broker_work *work = rq->broker->work;
    Memos__WorkerInfos *out = memos_arena_take(&rq->work, 1, sizeof *out);
    if (!out) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a reply");
    }
    enum memos_status status = broker_workers_make(&work->workers, rq, out, err);
    if (status == MEMOS_OK) {
        out->jobs_waiting = work->waiting;
        rq->reply.body_case = MEMOS__REPLY__BODY_WORKER_INFOS;
        rq->reply.worker_infos = out;
    }
    return status;
}

/* The one worker whose id begins so. */
static enum memos_status worker_of(const struct broker_work *work, ProtobufCBinaryData id,
    struct broker_worker **out, struct memos_error *err)
{
    *out = NULL;
    for (struct broker_worker *worker = work->workers.first; worker; worker = worker->next) {
        const ProtobufCBinaryData *own = &worker->announcement->envelope->worker_announce->instance;
        if (id.len > own->len || memcmp(own->data, id.data, id.len) != 0) {
            continue;
        }
        if (*out) {
            return memos_fail(err, MEMOS_INVALID, "several workers' ids begin so");
        }
        *out = worker;
    }
    return *out ? MEMOS_OK : memos_fail(err, MEMOS_NOT_FOUND, "no worker has that id");
}

enum memos_status broker_worker_drain(struct broker_request *rq, struct memos_error *err)
{
    struct broker_work *work = rq->broker->work;
    struct broker_worker *worker;
    Memos__Outcome *out = memos_arena_take(&rq->work, 1, sizeof *out);
    if (!out) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a reply");
    }
    enum memos_status status = worker_of(work, rq->envelope->worker_drain->id, &worker, err);
    if (status != MEMOS_OK) {
        return status;
    }
    memos__outcome__init(out);
    rq->reply.body_case = MEMOS__REPLY__BODY_OUTCOME;
    rq->reply.outcome = out;
    if (!worker->draining) {
        memos_log(MEMOS_LOG_INFO, memos_log_event("worker is drained"),
            memos_log_text("worker", broker_worker_name(worker)),
            memos_log_uint("jobs", worker->running));
    }
    worker->draining = true;
    broker_work_drained(work, worker);
    broker_work_orphans(work);
    return MEMOS_OK;
}
