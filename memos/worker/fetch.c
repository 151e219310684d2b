/* The threads that talk with the broker for jobs: memory before the answer, what is kept after it.
 */
#include "memos/worker/reply.h"
#include "memos/worker/score.h"

#include "proto/log.h"

#include <stdlib.h>

static struct worker_fetch fetch_of(struct worker_fetcher *fetcher, const struct worker_job *job)
{
    return (struct worker_fetch){
        .client = fetcher->client,
        .ticket = memos_bytes_make(job->asked->ticket.data, job->asked->ticket.len),
        .same_host = fetcher->worker->same_host,
        .deadline_us = job->deadline_us,
        .cancelled = &job->cancelled,
        .principal = job->asked->principal,
        .worker = fetcher->worker->name,
    };
}

/* On to the model's thread. */
static void hand_over(struct worker_job *job, enum worker_stage stage)
{
    job->stage = stage;
    job->handed_us = worker_now_us(job->worker);
    worker_queue_put(&job->model->queue, job, false);
}

/* ---- before the answer ---------------------------------------------------------------------- */

static enum memos_status prepare_generate(
    struct worker_fetcher *fetcher, struct worker_job *job, struct memos_error *err)
{
    const struct worker_host *host = job->model->host;
    const struct worker_fetch fetch = fetch_of(fetcher, job);
    enum memos_status status = worker_asked_request(
        job->asked->generate, host->info.config, &job->arena, &job->request, err);
    if (status == MEMOS_OK) {
        status = worker_memory_prepare(fetcher->worker->memory, host, &fetch, job->asked->generate,
            job->frames.frames, job->frames.count, &job->prompt, err);
    }
    return status;
}

/* The prompt of a Score is that of a Generate that asks for the same memory; without one, memory
 * stands alone before the texts, and the first of them is what it is searched for with. */
static enum memos_status prepare_score(
    struct worker_fetcher *fetcher, struct worker_job *job, struct memos_error *err)
{
    const Memos__Score *score = job->asked->score;
    const struct worker_fetch fetch = fetch_of(fetcher, job);
    struct worker_frames *frames = &job->frames;
    Memos__Generate like = MEMOS__GENERATE__INIT;
    if (!worker_asked_memory(score->memory)) {
        return worker_score_prepare(job, err);
    }
    Memos__Memory memory = *score->memory;
    like.space = score->space;
    like.model = score->model;
    like.prompt_frame = score->prompt_frame;
    like.memory = &memory;
    if (like.prompt_frame == 0 && frames->count == MEMOS_FRAMES_MAX) {
        return memos_fail(err, MEMOS_TOO_LARGE, "%zu texts, and memory before each", frames->count);
    } else if (like.prompt_frame == 0) {
        struct memos_bytes first = worker_frame(frames, score->frames[0]);
        frames->frames[frames->count++] = memos_bytes_of("");
        like.prompt_frame = (uint32_t)frames->count;
        memory.query = memory.query[0] ? memory.query : memos_arena_copy(&job->arena, first);
    }
    enum memos_status status =
        memory.query ? worker_memory_prepare(fetcher->worker->memory, job->model->host, &fetch,
                           &like, frames->frames, frames->count, &job->prompt, err)
                     : memos_fail(err, MEMOS_NO_MEMORY, "no memory for a query");
    return status == MEMOS_OK ? worker_score_prepare(job, err) : status;
}

static enum memos_status prepare_capture(
    struct worker_fetcher *fetcher, struct worker_job *job, struct memos_error *err)
{
    const struct worker_fetch fetch = fetch_of(fetcher, job);
    return worker_capture_plan(fetcher->worker->memory, job->model->host, &fetch,
        job->asked->capture, job->frames.frames, job->frames.count, &job->captures,
        &job->captures_count, &job->existing, &job->existing_count, &job->arena, err);
}

static void prepare(struct worker_fetcher *fetcher, struct worker_job *job)
{
    struct memos_error err;
    enum worker_stage next = WORKER_RUN;
    enum memos_status status = worker_job_wanted(job, worker_now_us(fetcher->worker), &err);
    if (status == MEMOS_OK && job->asked->body_case == MEMOS__JOB__BODY_GENERATE) {
        status = prepare_generate(fetcher, job, &err);
    } else if (status == MEMOS_OK && job->asked->body_case == MEMOS__JOB__BODY_SCORE) {
        status = prepare_score(fetcher, job, &err);
    } else if (status == MEMOS_OK) {
        next = WORKER_READ;
        status = prepare_capture(fetcher, job, &err);
    }
    if (status != MEMOS_OK) {
        worker_job_fail(job, &err);
    } else if (next == WORKER_READ && job->captures_count == 0) {
        worker_reply_captured(job);
        worker_reply_over(job);
    } else {
        hand_over(job, next);
    }
}

/* ---- after it ------------------------------------------------------------------------------- */

/* What would have been of use to the answer is of use to the next one. */
static void bring_later(struct worker_fetcher *fetcher, struct worker_job *job)
{
    const struct worker_fetch fetch = fetch_of(fetcher, job);
    if (job->prompt) {
        worker_memory_bring_later(fetcher->worker->memory, job->model->host, &fetch, job->prompt);
    }
    worker_reply_over(job);
}

/* The answer is there; without a receipt that was wanted it goes out all the same, with a word. */
static void keep_receipt(struct worker_fetcher *fetcher, struct worker_job *job)
{
    struct memos_error err;
    const struct worker_fetch fetch = fetch_of(fetcher, job);
    bool has_one = job->prompt && job->prompt->receipt;
    enum memos_status status =
        has_one ? worker_receipt_put(&fetch, job->prompt, &job->receipt_put, &err)
                : memos_fail(&err, MEMOS_INTERNAL, "there is no receipt to keep");
    worker_reply_generated(job, status == MEMOS_OK ? NULL : &err);
    if (job->captures_count > 0) {
        hand_over(job, WORKER_READ);
    } else {
        bring_later(fetcher, job);
    }
}

static enum memos_status put_captures(
    struct worker_fetcher *fetcher, struct worker_job *job, struct memos_error *err)
{
    const struct worker_fetch fetch = fetch_of(fetcher, job);
    job->made = memos_arena_take(&job->arena, job->captures_count, sizeof *job->made);
    if (!job->made) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu captures", job->captures_count);
    }
    for (size_t i = 0; i < job->captures_count; i++) {
        memos__capture_made__init(&job->made[i]);
        enum memos_status status = worker_job_wanted(job, worker_now_us(job->worker), err);
        if (status == MEMOS_OK) {
            status = worker_capture_put(fetcher->worker->memory, job->model->host, &fetch,
                job->captures[i], &job->arena, &job->made[i], err);
        }
        if (status != MEMOS_OK) {
            return status;
        }
    }
    return MEMOS_OK;
}

static void keep_captures(struct worker_fetcher *fetcher, struct worker_job *job)
{
    struct memos_error err;
    enum memos_status status = put_captures(fetcher, job, &err);
    if (!worker_job_generates(job)) {
        if (status == MEMOS_OK) {
            worker_reply_captured(job);
        } else {
            worker_reply_failed(job, &err);
        }
    } else if (status != MEMOS_OK) { /* the answer has been given; it will be captured next time */
        memos_log(MEMOS_LOG_DEBUG, memos_log_event("no capture was kept"), memos_log_error(&err));
    }
    bring_later(fetcher, job);
}

void *worker_fetch_main(void *self)
{
    struct worker_fetcher *fetcher = self;
    struct worker_queue *queue = &fetcher->worker->fetch_queue;
    for (struct worker_job *job; (job = worker_queue_take(queue, true)) != NULL;) {
        int64_t now_us = worker_now_us(fetcher->worker);
        job->waited_us += (uint64_t)(now_us - job->handed_us);
        if (job->stage == WORKER_PREPARE) {
            prepare(fetcher, job);
        } else if (job->stage == WORKER_RECEIPT) {
            keep_receipt(fetcher, job);
        } else if (job->stage == WORKER_LATER) {
            bring_later(fetcher, job);
        } else {
            keep_captures(fetcher, job);
        }
    }
    return NULL;
}
