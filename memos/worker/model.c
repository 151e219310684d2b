/* The thread that a model's engine belongs to: what generates shares its steps; scores and captures
 * go between two steps, a piece at a time, so that no stream waits for more than one of them. */
#include "memos/worker/reply.h"
#include "memos/worker/score.h"

#include "proto/log.h"

#include <stdlib.h>
#include <string.h>

/* ---- what the engine tells ------------------------------------------------------------------ */

static bool heard_put(struct worker_heard *heard, uint32_t id, float logprob)
{
    if (heard->count == heard->capacity) {
        size_t capacity = heard->capacity > 0 ? 2 * heard->capacity : 32;
        void *larger = realloc(heard->tokens, capacity * sizeof *heard->tokens);
        if (!larger) {
            return false;
        }
        heard->tokens = larger;
        heard->capacity = capacity;
    }
    heard->tokens[heard->count++] = (struct worker_heard_token){id, logprob};
    return true;
}

static void on_token(void *self, const struct paramem_token *token)
{
    struct worker_job *job = self;
    struct worker_heard *heard = &job->heard;
    bool is_kept = heard_put(heard, token->id, token->logprob);
    memos_assert(token->top_count == job->request.top);
    for (size_t i = 0; i < token->top_count && is_kept; i++) {
        is_kept = heard_put(heard, token->top_ids[i], token->top_logprobs[i]);
    }
    memos_buffer_bytes(&heard->text, token->text.data, token->text.size);
    memos_buffer_bytes(&job->answer, token->text.data, token->text.size);
    memos_buffer_bytes(&job->answer_ids, &token->id, sizeof token->id);
    if (!is_kept || heard->text.failed || job->answer.failed || job->answer_ids.failed) {
        (void)memos_fail(&job->failed, MEMOS_NO_MEMORY, "no memory for the answer");
        heard->count = 0; /* a token without all of its alternatives is not told */
    }
}

static void on_done(void *self, const struct paramem_result *result)
{
    struct worker_job *job = self;
    job->result = *result;
    job->is_done = true;
    if (result->err) {
        job->result_err = *result->err;
        job->result.err = &job->result_err;
    }
    if (result->stop_string) {
        (void)snprintf(job->stop_string, sizeof job->stop_string, "%s", result->stop_string);
        job->result.stop_string = job->stop_string;
    }
}

/* ---- the end of an answer ------------------------------------------------------------------- */

static enum memos_status status_of(const struct worker_job *job, struct memos_error *err)
{
    const struct paramem_result *result = &job->result;
    if (job->failed.status != MEMOS_OK) {
        *err = job->failed;
        return err->status;
    }
    switch (result->finish) {
    case PARAMEM_FINISH_FAILED:
        *err = job->result_err;
        return err->status;
    case PARAMEM_FINISH_CANCELLED:
        return memos_fail(err, MEMOS_CANCELLED, "cancelled after %zu tokens", result->tokens);
    case PARAMEM_FINISH_DEADLINE:
        return memos_fail(
            err, MEMOS_DEADLINE, "the deadline passed after %zu tokens", result->tokens);
    default:
        return MEMOS_OK;
    }
}

static void piece_add(struct worker_model *model, struct worker_job *job)
{
    job->next = NULL;
    *model->pieces_tail = job;
    model->pieces_tail = &job->next;
}

static void hand_to_fetch(struct worker_job *job, enum worker_stage stage)
{
    job->stage = stage;
    job->handed_us = worker_now_us(job->worker);
    worker_queue_put(&job->worker->fetch_queue, job, true);
}

/* The capture that the answer leaves behind. It is not the answer: without one all is well. */
static void leave_capture(struct worker_model *model, struct worker_job *job)
{
    struct memos_error err;
    struct worker_capture *capture = NULL;
    enum memos_status status =
        worker_memory_wanted(model->worker->memory, model->host, job->prompt, &capture, &err);
    if (status != MEMOS_OK) {
        memos_log(MEMOS_LOG_DEBUG, memos_log_event("no capture is planned"), memos_log_error(&err));
    }
    if (capture) {
        job->captures = calloc(1, sizeof *job->captures);
        if (job->captures) {
            job->captures[0] = capture;
            job->captures_count = 1;
        } else {
            worker_capture_free(&capture);
        }
    }
}

static void generate_end(struct worker_model *model, struct worker_job *job)
{
    struct memos_error err;
    struct memos_bytes ids = memos_buffer_view(&job->answer_ids);
    enum memos_status status = status_of(job, &err);
    if (status == MEMOS_OK) {
        status = worker_memory_stands(job->prompt, &err);
    }
    if (job->result.finish != PARAMEM_FINISH_FAILED) {
        worker_memory_told(model->worker->memory, model->host, job->prompt, &job->result, ids.data,
            ids.size / sizeof(uint32_t));
    }
    if (status == MEMOS_OK) {
        leave_capture(model, job);
    }
    if (status == MEMOS_OK && job->asked->generate->keep_receipt) {
        hand_to_fetch(job, WORKER_RECEIPT);
        return;
    }
    worker_reply_generated(job, status == MEMOS_OK ? NULL : &err);
    if (job->captures_count > 0) {
        job->stage = WORKER_READ;
        piece_add(model, job);
    } else if (worker_memory_has_later(job->prompt)) {
        hand_to_fetch(job, WORKER_LATER);
    } else {
        worker_reply_over(job);
    }
}

/* What it was asked with was read before something of its space was destroyed, and what the engine
 * made of that may have been kept afterwards. */
static void drop_late(const struct worker_model *model, const struct worker_job *job)
{
    if (atomic_load_explicit(&job->forgotten, memory_order_relaxed)) {
        paramem_engine_drop(model->host->engine, worker_owner_of(worker_job_space(job)));
    }
}

/* ---- its beginning -------------------------------------------------------------------------- */

static enum memos_status submit(
    struct worker_model *model, struct worker_job *job, struct memos_error *err)
{
    struct paramem_request *request = &job->request;
    size_t context = paramem_engine_context(model->host->engine);
    worker_memory_fuse(model->worker->memory, model->host, job->prompt);
    request->prompt = job->prompt->ids.ids;
    request->prompt_count = job->prompt->ids.count;
    request->placed = job->prompt->placed;
    request->placed_count = job->prompt->placed_count;
    request->owner = worker_owner_of(worker_job_space(job));
    request->deadline_us = (uint64_t)job->deadline_us;
    request->on_token = on_token;
    request->on_done = on_done;
    request->self = job;
    if (job->asked->generate->fit_tokens && request->prompt_count < context &&
        request->max_tokens > context - request->prompt_count) {
        request->max_tokens = context - request->prompt_count;
    }
    job->submitted_us = worker_now_us(model->worker);
    const enum memos_status status =
        paramem_engine_submit(model->host->engine, request, &job->engine_id, err);
    if (status != MEMOS_OK && worker_memory_stands(job->prompt, err) != MEMOS_OK) {
        return err->status; /* which is why */
    }
    return status;
}

/* A score reads all that it is given, but for what stands in for texts. */
static void score_begin(struct worker_model *model, struct worker_job *job)
{
    if (job->prompt && job->asked->score->memory->independent == 1) {
        worker_memory_fuse(model->worker->memory, model->host, job->prompt);
    }
}

static void score_end(struct worker_model *model, struct worker_job *job)
{
    if (job->prompt) {
        struct paramem_result result = {
            .finish = PARAMEM_FINISH_LENGTH, .prompt_tokens = job->prompt->ids.count};
        for (size_t i = 0; i < job->prompt->placed_count; i++) {
            const struct paramem_placed *placed = &job->prompt->placed[i];
            result.placed_tokens += placed->tokens - placed->recompute;
        }
        worker_memory_told(model->worker->memory, model->host, job->prompt, &result, NULL, 0);
    }
    worker_reply_scored(job);
    worker_reply_over(job);
}

/* A job that has come to this thread. */
static void begin(struct worker_model *model, struct worker_job *job)
{
    struct memos_error err;
    int64_t now_us = worker_now_us(model->worker);
    job->waited_us += (uint64_t)(now_us - job->handed_us);
    enum memos_status status = worker_job_wanted(job, now_us, &err);
    if (status == MEMOS_OK && job->stage == WORKER_RUN && worker_job_generates(job)) {
        status = submit(model, job, &err);
        if (status == MEMOS_OK) {
            model->running[model->running_count++] = job;
        }
    } else if (status == MEMOS_OK) {
        if (job->stage == WORKER_RUN) {
            score_begin(model, job);
        }
        piece_add(model, job);
    }
    if (status != MEMOS_OK) {
        drop_late(model, job);
    }
    if (status != MEMOS_OK && !job->is_answered) {
        worker_job_fail(job, &err);
    } else if (status != MEMOS_OK) {
        worker_reply_over(job);
    }
}

/* ---- pieces --------------------------------------------------------------------------------- */

static enum memos_status read_capture(
    struct worker_model *model, struct worker_job *job, bool *out_more, struct memos_error *err)
{
    enum memos_status status =
        worker_capture_read(model->host, job->captures[job->captures_read], err);
    job->captures_read += status == MEMOS_OK;
    *out_more = job->captures_read < job->captures_count;
    if (status == MEMOS_OK && *out_more && !job->is_answered) {
        worker_reply_progress(job, job->captures_read, job->captures_count);
    }
    return status;
}

/* A piece of the first, which then waits behind the others. */
static void piece_run(struct worker_model *model)
{
    struct memos_error err;
    struct worker_job *job = model->pieces;
    model->pieces = job->next;
    model->pieces_tail = model->pieces ? model->pieces_tail : &model->pieces;
    bool more = false;
    enum memos_status status = worker_job_wanted(job, worker_now_us(model->worker), &err);
    if (status == MEMOS_OK) {
        status = job->stage == WORKER_READ ? read_capture(model, job, &more, &err)
                                           : worker_score_window(job, &more, &err);
    }
    if (status == MEMOS_IO) {
        worker_lose(model->worker, &err);
    }
    drop_late(model, job);
    if (status == MEMOS_OK && !more && job->stage != WORKER_READ && job->prompt) {
        status = worker_memory_stands(job->prompt, &err);
    }
    if (status != MEMOS_OK && !job->is_answered) {
        worker_job_fail(job, &err);
    } else if (status != MEMOS_OK) {
        worker_reply_over(job);
    } else if (more) {
        piece_add(model, job);
    } else if (job->stage == WORKER_READ) {
        hand_to_fetch(job, WORKER_PUT);
    } else {
        score_end(model, job);
    }
}

/* ---- the loop ------------------------------------------------------------------------------- */

/* Nobody wants it any more, or it cannot go on. */
static void cancel_unwanted(struct worker_model *model)
{
    for (size_t i = 0; i < model->running_count; i++) {
        const struct worker_job *job = model->running[i];
        if (atomic_load_explicit(&job->cancelled, memory_order_relaxed) ||
            job->failed.status != MEMOS_OK) {
            paramem_engine_cancel(model->host->engine, job->engine_id);
        }
    }
}

/* What the step has told goes out, all of it at once; then what has ended. */
static void tell(struct worker_model *model)
{
    struct worker_out *first = NULL, **tail = &first, *last = NULL;
    size_t count = 0, left = 0;
    for (size_t i = 0; i < model->running_count; i++) {
        struct worker_out *out = worker_reply_tokens(model->running[i]);
        if (out) {
            *tail = last = out;
            tail = &out->next;
            count++;
        }
    }
    if (count > 0) {
        worker_outbox_put(&model->worker->outbox, first, last, count);
    }
    for (size_t i = 0; i < model->running_count; i++) {
        struct worker_job *job = model->running[i];
        if (job->is_done) {
            drop_late(model, job);
            generate_end(model, job);
        } else {
            model->running[left++] = job;
        }
    }
    model->running_count = left;
}

/* ---- what is forgotten ---------------------------------------------------------------------- */

void worker_model_drop(struct worker_model *model, uint64_t owner)
{
    (void)pthread_mutex_lock(&model->lock);
    if (owner == 0 || model->drops_count == WORKER_DROPS_MAX) {
        model->drops[0] = 0; /* everybody's */
        model->drops_count = 1;
    } else {
        model->drops[model->drops_count++] = owner;
    }
    (void)pthread_mutex_unlock(&model->lock);
    worker_queue_poke(&model->queue);
}

static void drop_forgotten(struct worker_model *model)
{
    uint64_t drops[WORKER_DROPS_MAX];
    (void)pthread_mutex_lock(&model->lock);
    const size_t count = model->drops_count;
    memcpy(drops, model->drops, count * sizeof *drops);
    model->drops_count = 0;
    (void)pthread_mutex_unlock(&model->lock);
    for (size_t i = 0; i < count; i++) {
        paramem_engine_drop(model->host->engine, drops[i]);
    }
}

static void publish_stats(struct worker_model *model)
{
    (void)pthread_mutex_lock(&model->lock);
    paramem_engine_stats(model->host->engine, &model->stats);
    (void)pthread_mutex_unlock(&model->lock);
}

static void step(struct worker_model *model)
{
    struct memos_error err;
    bool more = false;
    cancel_unwanted(model);
    enum memos_status status = paramem_engine_step(model->host->engine, &more, &err);
    if (status != MEMOS_OK) { /* the engine has ended all that ran, and takes no more */
        worker_lose(model->worker, &err);
    }
    tell(model);
}

void *worker_model_main(void *self)
{
    struct worker_model *model = self;
    for (;;) {
        bool is_idle = model->running_count == 0 && !model->pieces;
        struct worker_job *job = worker_queue_take(&model->queue, is_idle);
        if (!job && atomic_load(&model->worker->is_stopped)) {
            break;
        }
        drop_forgotten(model);
        while (job) {
            begin(model, job);
            job = worker_queue_take(&model->queue, false);
        }
        if (model->running_count > 0) {
            step(model);
        }
        if (model->pieces) {
            piece_run(model);
        }
        publish_stats(model);
    }
    for (size_t i = 0; i < model->running_count; i++) {
        paramem_engine_cancel(model->host->engine, model->running[i]->engine_id);
    }
    for (bool more = model->running_count > 0; more;) {
        struct memos_error err;
        if (paramem_engine_step(model->host->engine, &more, &err) != MEMOS_OK) {
            break;
        }
    }
    return NULL;
}
