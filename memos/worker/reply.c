#include "memos/worker/reply.h"

#include <stdlib.h>
#include <string.h>

static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */

size_t worker_text_clean(struct memos_bytes bytes, char *out)
{
    const char *at = bytes.data;
    size_t size = 0;
    if (memos_bytes_utf8(bytes)) {
        memcpy(out, bytes.size > 0 ? at : "", bytes.size);
        out[bytes.size] = '\0';
        return bytes.size;
    }
    for (size_t left = bytes.size; left > 0;) {
        size_t sequence = memos_bytes_utf8_sequence(memos_bytes_make(at, left));
        size_t taken = sequence > 0 ? sequence : 1;
        memcpy(out + size, sequence > 0 ? at : replacement, sequence > 0 ? sequence : 3);
        size += sequence > 0 ? sequence : 3;
        at += taken;
        left -= taken;
    }
    out[size] = '\0';
    return size;
}

static void put(struct worker_job *job, struct worker_out *out)
{
    worker_outbox_put(&job->worker->outbox, out, out, 1);
}

/* ---- tokens --------------------------------------------------------------------------------- */

/* Room behind a worker_out, taken piece by piece. */
static void *take(uint8_t **room, size_t bytes)
{
    void *piece = *room;
    *room += (bytes + 7) / 8 * 8;
    return piece;
}

static const struct paramem_tokenizer *tokenizer_of(const struct worker_job *job)
{
    return job->model->host->tokenizer;
}

static size_t texts_bytes(const struct worker_job *job)
{
    size_t bytes = 0;
    for (size_t i = 0; i < job->heard.count; i++) {
        bytes += 3 * paramem_tokenizer_bytes(tokenizer_of(job), job->heard.tokens[i].id).size + 8;
    }
    return bytes;
}

static Memos__TokenLogprob *token_make(
    const struct worker_job *job, const struct worker_heard_token *heard, uint8_t **room)
{
    Memos__TokenLogprob *token = take(room, sizeof *token);
    memos__token_logprob__init(token);
    token->id = heard->id;
    token->logprob = heard->logprob;
    if (job->request.top > 0) {
        struct memos_bytes bytes = paramem_tokenizer_bytes(tokenizer_of(job), heard->id);
        token->text = (char *)*room;
        (void)take(room, worker_text_clean(bytes, token->text) + 1);
    }
    return token;
}

/* One piece of memory holds all of it: this is made for every token of every stream. */
struct worker_out *worker_reply_tokens(struct worker_job *job)
{
    struct worker_heard *heard = &job->heard;
    size_t stride = 1 + job->request.top, count = heard->count / stride;
    if (heard->count == 0 && heard->text.size == 0) {
        return NULL;
    }
    struct memos_bytes text = memos_buffer_view(&heard->text);
    struct worker_out *out = NULL;
    size_t bytes = sizeof *out + sizeof(Memos__Tokens) + 3 * text.size + 16 +
                   heard->count * (sizeof(void *) + sizeof(Memos__TokenLogprob)) + 16;
    bytes += job->request.top > 0 ? texts_bytes(job) : 0;
    out = malloc(bytes);
    if (!out) {
        (void)memos_fail(&job->failed, MEMOS_NO_MEMORY, "no memory for tokens on their way");
        return NULL;
    }
    *out = (struct worker_out){.job = job};
    uint8_t *room = (uint8_t *)(out + 1);
    Memos__Tokens *tokens = take(&room, sizeof *tokens);
    memos__reply__init(&out->reply);
    memos__tokens__init(tokens);
    tokens->tokens = take(&room, count * sizeof(void *));
    tokens->top = take(&room, (heard->count - count) * sizeof(void *));
    for (size_t i = 0; i < count * stride; i++) {
        Memos__TokenLogprob *token = token_make(job, &heard->tokens[i], &room);
        if (i % stride == 0) {
            tokens->tokens[tokens->n_tokens++] = token;
        } else {
            tokens->top[tokens->n_top++] = token;
        }
    }
    if (text.size > 0) {
        tokens->text = (char *)room;
        (void)worker_text_clean(text, tokens->text);
    }
    out->reply.more = true;
    out->reply.body_case = MEMOS__REPLY__BODY_TOKENS;
    out->reply.tokens = tokens;
    memos_buffer_reset(&heard->text);
    heard->count = 0;
    return out;
}

void worker_reply_progress(struct worker_job *job, uint64_t done, uint64_t total)
{
    struct worker_out *out = calloc(1, sizeof *out + sizeof(Memos__Progress));
    if (!out) {
        return;
    }
    Memos__Progress *progress = (Memos__Progress *)(void *)(out + 1);
    out->job = job;
    memos__reply__init(&out->reply);
    memos__progress__init(progress);
    progress->done = done;
    progress->total = total;
    out->reply.more = true;
    out->reply.body_case = MEMOS__REPLY__BODY_PROGRESS;
    out->reply.progress = progress;
    put(job, out);
}

/* ---- the last ------------------------------------------------------------------------------- */

/* What to do about a failure, where a worker knows better than the table of statuses. */
static const char *hint_of(enum memos_status status)
{
    switch (status) {
    case MEMOS_TOO_LARGE:
        return "shorten it, ask for fewer tokens or memory, or let the front be cut (cut_front)";
    case MEMOS_UNSUPPORTED:
        return "send a text instead of messages, or name a chat template";
    case MEMOS_NO_MEMORY:
        return "ask for less at once; the worker's --kv-memory and --sequences say what it takes";
    case MEMOS_IO:
        return "send it again: the worker begins anew";
    default:
        return memos_status_hint(status);
    }
}

static void put_last(struct worker_job *job, const struct memos_error *err)
{
    memos_assert(!job->is_answered);
    Memos__Reply *reply = &job->last.reply;
    job->is_answered = true;
    if (err) {
        (void)worker_text_clean(memos_bytes_of(err->text), job->last_words);
        reply->status = err->status;
        reply->message = job->last_words;
        reply->hint = (char *)(uintptr_t)hint_of(err->status);
    }
    put(job, &job->last);
}

static uint64_t passed_us(int64_t from_us, int64_t to_us)
{
    return to_us > from_us ? (uint64_t)(to_us - from_us) : 0;
}

static void put_receipt(struct worker_job *job, Memos__Generated *made)
{
    made->memory_us = job->prompt->prepare_us + job->prompt->fuse_us;
    made->receipt = job->prompt->receipt;
    if (job->receipt_put.number > 0) {
        memos__ref__init(&job->receipt_ref);
        job->receipt_ref.id.data = job->receipt_put.id.bytes;
        job->receipt_ref.id.len = sizeof job->receipt_put.id.bytes;
        job->receipt_ref.number = job->receipt_put.number;
        made->receipt_ref = &job->receipt_ref;
    }
}

void worker_reply_generated(struct worker_job *job, const struct memos_error *err)
{
    const struct paramem_result *result = &job->result;
    Memos__Generated *made = &job->generated;
    struct memos_bytes answer = memos_buffer_view(&job->answer);
    int64_t now_us = worker_now_us(job->worker);
    memos__generated__init(made);
    made->finish = result->finish;
    made->prompt_tokens = (uint32_t)result->prompt_tokens;
    made->cached_tokens = (uint32_t)result->cached_tokens;
    made->cut_tokens = (uint32_t)result->cut_tokens;
    made->tokens = (uint32_t)result->tokens;
    made->stop_string = result->stop_string ? job->stop_string : made->stop_string;
    made->queued_us = job->asked->queued_us + job->waited_us + result->queued_us;
    made->total_us = job->asked->queued_us + passed_us(job->came_us, now_us);
    /* the engine's clock begins when the request is given to it */
    uint64_t before_us = job->asked->queued_us + passed_us(job->came_us, job->submitted_us);
    made->first_us = result->tokens > 0 ? before_us + result->first_us : 0;
    if (job->prompt) {
        put_receipt(job, made);
    }
    made->frame = 1;
    job->last.frame = memos_bytes_make(answer.size > 0 ? answer.data : "", answer.size);
    job->last.reply.body_case = MEMOS__REPLY__BODY_GENERATED;
    job->last.reply.generated = made;
    put_last(job, err);
}

void worker_reply_scored(struct worker_job *job)
{
    Memos__Scored *made = &job->scored;
    Memos__TextScore *scores = memos_arena_take(&job->arena, job->texts_count, sizeof *scores);
    Memos__TextScore **list = memos_arena_take(&job->arena, job->texts_count, sizeof *list);
    struct memos_error err;
    if (!scores || !list) {
        (void)memos_fail(&err, MEMOS_NO_MEMORY, "no memory for %zu scores", job->texts_count);
        put_last(job, &err);
        return;
    }
    memos__scored__init(made);
    for (size_t i = 0; i < job->texts_count; i++) {
        const struct worker_text *text = &job->texts[i];
        Memos__TextScore *score = list[i] = &scores[i];
        memos__text_score__init(score);
        score->tokens = text->count - text->first;
        score->bytes = text->bytes;
        for (size_t at = text->first; at < text->count; at++) {
            score->logprob += (double)text->logprobs[at - 1];
        }
        if (job->asked->score->logprobs) {
            score->logprobs = text->logprobs + text->first - 1;
            score->n_logprobs = text->count - text->first;
        }
    }
    made->texts = list;
    made->n_texts = job->texts_count;
    made->receipt = job->prompt ? job->prompt->receipt : NULL;
    job->last.reply.body_case = MEMOS__REPLY__BODY_SCORED;
    job->last.reply.scored = made;
    put_last(job, NULL);
}

void worker_reply_captured(struct worker_job *job)
{
    Memos__Captured *made = &job->captured;
    size_t count = job->existing_count + job->captures_count;
    Memos__CaptureMade **list = memos_arena_take(&job->arena, count, sizeof *list);
    struct memos_error err;
    if (!list) {
        (void)memos_fail(&err, MEMOS_NO_MEMORY, "no memory for %zu captures", count);
        put_last(job, &err);
        return;
    }
    memos__captured__init(made);
    for (size_t i = 0; i < job->existing_count; i++) {
        list[made->n_captures++] = job->existing[i];
    }
    for (size_t i = 0; i < job->captures_count; i++) {
        list[made->n_captures++] = &job->made[i];
    }
    made->captures = list;
    job->last.reply.body_case = MEMOS__REPLY__BODY_CAPTURED;
    job->last.reply.captured = made;
    put_last(job, NULL);
}

void worker_reply_failed(struct worker_job *job, const struct memos_error *err)
{
    put_last(job, err);
}

void worker_reply_over(struct worker_job *job)
{
    memos_assert(job->is_answered);
    put(job, &job->over);
}

void worker_job_fail(struct worker_job *job, const struct memos_error *err)
{
    worker_reply_failed(job, err);
    worker_reply_over(job);
}
