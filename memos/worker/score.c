#include "memos/worker/score.h"

#include "memos/worker/state.h"

#include <stdlib.h>
#include <string.h>

static const struct worker_host *host_of(const struct worker_job *job)
{
    return job->model->host;
}

static enum memos_status encode(const struct worker_job *job, struct memos_bytes text,
    unsigned flags, struct paramem_ids *out, struct memos_error *err)
{
    return paramem_tokenizer_encode(
        host_of(job)->tokenizer, text, flags | PARAMEM_PLAIN_TEXT, out, err);
}

/* Its own tokens alone, whole but for the first one, which has nothing before it. */
static enum memos_status alone(const struct worker_job *job, struct memos_bytes text,
    struct worker_text *out, struct memos_error *err)
{
    struct paramem_ids ids = {0};
    enum memos_status status = encode(job, text, PARAMEM_ADD_SPECIAL, &ids, err);
    if (status != MEMOS_OK) {
        return status;
    }
    const struct paramem_tokenizer *tokenizer = host_of(job)->tokenizer;
    *out = (struct worker_text){.ids = ids.ids, .count = ids.count, .first = 1};
    out->bytes = text.size;
    if (ids.count < 2) {
        return memos_fail(err, MEMOS_INVALID,
            "there is nothing to score: %zu tokens, and the first has nothing before it",
            ids.count);
    }
    /* a token that was added before the text is none of its bytes */
    struct memos_bytes first = paramem_tokenizer_bytes(tokenizer, ids.ids[0]);
    bool is_added = paramem_tokenizer_special(tokenizer, ids.ids[0]);
    out->bytes -= is_added || first.size > out->bytes ? 0 : first.size;
    return MEMOS_OK;
}

static enum memos_status after_prompt(const struct worker_job *job, struct memos_bytes prompt,
    const struct paramem_ids *before, struct memos_bytes text, struct worker_text *out,
    struct memos_error *err)
{
    struct memos_buffer both = memos_buffer_make(prompt.size + text.size);
    struct paramem_ids ids = {0};
    memos_buffer_bytes(&both, prompt.data, prompt.size);
    memos_buffer_bytes(&both, text.data, text.size);
    enum memos_status status =
        both.failed ? memos_fail(err, MEMOS_NO_MEMORY, "no memory for a text")
                    : encode(job, memos_buffer_view(&both), PARAMEM_ADD_SPECIAL, &ids, err);
    memos_buffer_free(&both);
    size_t shared = 0;
    while (shared < before->count && shared < ids.count && before->ids[shared] == ids.ids[shared]) {
        shared++;
    }
    *out = (struct worker_text){.ids = ids.ids, .count = ids.count, .bytes = text.size};
    out->first = shared > 0 ? shared : 1;
    return status;
}

/* After a prompt whose ids are made: what was placed in it is not to be cut anew. */
static enum memos_status after_ids(const struct worker_job *job, struct memos_bytes text,
    struct worker_text *out, struct memos_error *err)
{
    const struct paramem_ids *before = &job->prompt->ids;
    struct paramem_ids own = {0};
    enum memos_status status = encode(job, text, 0, &own, err);
    uint32_t *ids = NULL;
    if (status == MEMOS_OK) {
        ids = calloc(before->count + own.count, sizeof *ids);
        status = ids ? MEMOS_OK : memos_fail(err, MEMOS_NO_MEMORY, "no memory for a text");
    }
    if (status == MEMOS_OK) {
        memcpy(ids, before->ids, before->count * sizeof *ids);
        memcpy(ids + before->count, own.ids, own.count * sizeof *ids);
        *out = (struct worker_text){.ids = ids,
            .count = before->count + own.count,
            .first = before->count,
            .bytes = text.size};
    }
    free(own.ids);
    return status;
}

static enum memos_status prepare_text(const struct worker_job *job,
    const struct paramem_ids *before, struct memos_bytes text, struct worker_text *out,
    struct memos_error *err)
{
    const Memos__Score *score = job->asked->score;
    size_t context = paramem_engine_context(host_of(job)->engine);
    bool has_memory = job->prompt && job->prompt->ids.count > 0;
    bool has_prompt = has_memory || score->prompt_frame != 0;
    enum memos_status status;
    if (has_memory) {
        status = after_ids(job, text, out, err);
    } else if (has_prompt) {
        status = after_prompt(
            job, worker_frame(&job->frames, score->prompt_frame), before, text, out, err);
    } else {
        status = alone(job, text, out, err);
    }
    if (status == MEMOS_OK && (out->first >= out->count || out->first == 0)) {
        status = memos_fail(err, MEMOS_INVALID, "a text adds no token to what stands before it");
    } else if (status == MEMOS_OK && has_prompt && out->count > context) {
        status = memos_fail(err, MEMOS_TOO_LARGE,
            "prompt and text have %zu tokens; the context is %zu", out->count, context);
    }
    if (status == MEMOS_OK) {
        out->logprobs = calloc(out->count - 1, sizeof *out->logprobs);
        status = out->logprobs
                     ? MEMOS_OK
                     : memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu scores", out->count - 1);
    }
    return status;
}

enum memos_status worker_score_prepare(struct worker_job *job, struct memos_error *err)
{
    const Memos__Score *score = job->asked->score;
    struct paramem_ids before = {0};
    enum memos_status status = MEMOS_OK;
    if (score->overlap >= paramem_engine_context(host_of(job)->engine)) {
        return memos_fail(err, MEMOS_INVALID, "an overlap of %u; it is less than the context, %zu",
            (unsigned)score->overlap, paramem_engine_context(host_of(job)->engine));
    }
    job->texts = calloc(score->n_frames, sizeof *job->texts);
    if (!job->texts) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu texts", score->n_frames);
    }
    if (!job->prompt && score->prompt_frame != 0) {
        status = encode(job, worker_frame(&job->frames, score->prompt_frame), PARAMEM_ADD_SPECIAL,
            &before, err);
    }
    for (size_t i = 0; status == MEMOS_OK && i < score->n_frames; i++) {
        struct memos_bytes text = worker_frame(&job->frames, score->frames[i]);
        job->texts_count = i + 1;
        status = prepare_text(job, &before, text, &job->texts[i], err);
    }
    free(before.ids);
    return status;
}

/* One token more than the context is one window of it: the last row tells of that token. */
enum memos_status worker_score_window(
    struct worker_job *job, bool *out_more, struct memos_error *err)
{
    struct worker_text *text = &job->texts[job->texts_told];
    struct paramem_engine *engine = host_of(job)->engine;
    size_t context = paramem_engine_context(engine);
    size_t overlap = job->asked->score->overlap ? job->asked->score->overlap : context / 4;
    size_t left = text->count - text->begin;
    size_t count = left > context + 1 ? context + 1 : left;
    float *told = calloc(count - 1, sizeof *told);
    if (!told) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu scores", count - 1);
    }
    enum memos_status status;
    if (job->prompt && job->prompt->placed_count > 0) { /* within the context: one window */
        status = paramem_engine_score_placed(
            engine, text->ids, count, job->prompt->placed, job->prompt->placed_count, told, err);
    } else {
        status = paramem_engine_score(engine, text->ids + text->begin, count, overlap, told, err);
    }
    if (status == MEMOS_OK) {
        size_t known = text->told - text->begin, fresh = count - 1 - known;
        memcpy(text->logprobs + text->told, told + known, fresh * sizeof *told);
        text->told += fresh;
        text->begin += context - overlap;
        job->texts_told += text->told == text->count - 1;
    }
    free(told);
    *out_more = job->texts_told < job->texts_count;
    return status;
}
