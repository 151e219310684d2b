/* How likely texts are to a model: perplexity, and the choice of the likeliest. In this process, or
 * (ask_score.c) in a worker. */
#include "paramem/tokenizer.h"
#include "tools/memosctl/ask.h"
#include "tools/memosctl/choices.h"
#include "tools/memosctl/host.h"
#include "tools/memosctl/input.h"
#include "tools/memosctl/receipt.h"

#include <math.h>
#include <stdlib.h>

/* ---- a text --------------------------------------------------------------------------------- */

static enum memos_status encode(const struct ctl_host *host, struct memos_bytes text,
    struct paramem_ids *out, struct memos_error *err)
{
    return paramem_tokenizer_encode(
        host->tokenizer, text, PARAMEM_ADD_SPECIAL | PARAMEM_PLAIN_TEXT, out, err);
}

/* Log-probabilities of ids[1..]; *out from the arena. */
static enum memos_status score_ids(struct ctl *ctl, struct ctl_host *host,
    const struct paramem_ids *ids, size_t overlap, float **out, struct memos_error *err)
{
    if (ids->count < 2) {
        return memos_fail(err, MEMOS_INVALID,
            "there is nothing to score: %zu tokens, and the first has nothing before it",
            ids->count);
    }
    *out = memos_arena_take(&ctl->arena, ids->count - 1, sizeof **out);
    return *out ? paramem_engine_score(host->engine, ids->ids, ids->count, overlap, *out, err)
                : memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu scores", ids->count - 1);
}

static enum memos_status score_text(struct ctl *ctl, struct ctl_host *host, struct memos_bytes text,
    size_t overlap, struct ctl_score *out, struct memos_error *err)
{
    struct paramem_ids ids = {0};
    float *logprobs = NULL;
    int64_t began_us = ctl->clock.mono_us(ctl->clock.self);
    *out = (struct ctl_score){.bytes = text.size};
    enum memos_status status = encode(host, text, &ids, err);
    if (status == MEMOS_OK) {
        status = score_ids(ctl, host, &ids, overlap, &logprobs, err);
    }
    if (status == MEMOS_OK) {
        struct memos_bytes first = paramem_tokenizer_bytes(host->tokenizer, ids.ids[0]);
        /* a token that was added before the text is none of its bytes */
        bool is_added = paramem_tokenizer_special(host->tokenizer, ids.ids[0]);
        out->bytes -= is_added || first.size > out->bytes ? 0 : first.size;
        out->tokens = ids.count;
        out->scored = ids.count - 1;
        for (size_t i = 0; i < out->scored; i++) {
            out->logprob += (double)logprobs[i];
        }
        out->took_us = ctl->clock.mono_us(ctl->clock.self) - began_us;
    }
    free(ids.ids);
    return status;
}

enum memos_status ctl_score_print(
    struct ctl *ctl, const struct ctl_score *score, struct memos_error *err)
{
    double perplexity = exp(-score->logprob / (double)score->scored);
    double bits = -score->logprob / M_LN2;
    double seconds = (double)score->took_us / 1e6;
    if (ctl->json) {
        return ctl_json_print(
            json_pack("{so,sI,sI,sI,sf,sf,sf,sI,sI,sf,so?}", "model", ctl_json_string(score->model),
                "tokens", (json_int_t)score->tokens, "scored", (json_int_t)score->scored, "bytes",
                (json_int_t)score->bytes, "logprob", score->logprob, "perplexity", perplexity,
                "bits_per_byte", score->bytes > 0 ? bits / (double)score->bytes : 0.0, "context",
                (json_int_t)score->context, "overlap", (json_int_t)score->overlap, "seconds",
                seconds, "receipt", score->receipt ? ctl_receipt_json(score->receipt) : NULL),
            err);
    }
    ctl_paper_fieldf(&ctl->paper, "perplexity", "%.4f", perplexity);
    if (score->bytes > 0) {
        ctl_paper_fieldf(&ctl->paper, "bits/byte", "%.4f", bits / (double)score->bytes);
    }
    ctl_paper_fieldf(&ctl->paper, "tokens", "%zu (%zu scored, %zu bytes)", score->tokens,
        score->scored, score->bytes);
    ctl_note(ctl, "%.1f tokens/s on %s", (double)score->tokens / seconds, score->where);
    return MEMOS_OK;
}

/* ---- choices -------------------------------------------------------------------------------- */

struct local {
    struct ctl *ctl;
    struct ctl_host *host;
};

/* log P(choice | prompt): of the tokens of both together, those that the prompt alone has not. */
static enum memos_status score_choice(struct ctl *ctl, struct ctl_host *host,
    const struct paramem_ids *alone, const struct ctl_question *question, size_t choice,
    double *out, struct memos_error *err)
{
    struct memos_buffer text = memos_buffer_make((size_t)CTL_FILE_BYTES_MAX);
    struct paramem_ids ids = {0};
    float *logprobs = NULL;
    memos_buffer_bytes(&text, question->prompt.data, question->prompt.size);
    memos_buffer_bytes(&text, question->choices[choice].data, question->choices[choice].size);
    enum memos_status status = text.failed
                                   ? memos_fail(err, MEMOS_NO_MEMORY, "no memory for a choice")
                                   : encode(host, memos_buffer_view(&text), &ids, err);
    if (status == MEMOS_OK && ids.count > host->info.context_max) {
        status = memos_fail(err, MEMOS_TOO_LARGE,
            "line %zu: %zu tokens are more than the context holds (%zu)", question->number,
            ids.count, host->info.context_max);
    }
    if (status == MEMOS_OK) {
        status = score_ids(ctl, host, &ids, 0, &logprobs, err);
    }
    size_t shared = 0;
    while (status == MEMOS_OK && shared < alone->count && shared < ids.count &&
           alone->ids[shared] == ids.ids[shared]) {
        shared++;
    }
    *out = 0;
    for (size_t i = shared > 0 ? shared : 1; status == MEMOS_OK && i < ids.count; i++) {
        *out += (double)logprobs[i - 1];
    }
    free(ids.ids);
    memos_buffer_free(&text);
    return status;
}

static enum memos_status score_choices(void *self, const struct ctl_question *question,
    double out_sums[CTL_CHOICES_MAX], struct memos_error *err)
{
    const struct local *local = self;
    struct paramem_ids alone = {0};
    enum memos_status status = encode(local->host, question->prompt, &alone, err);
    for (size_t i = 0; i < question->choices_count && status == MEMOS_OK; i++) {
        status = score_choice(local->ctl, local->host, &alone, question, i, &out_sums[i], err);
    }
    free(alone.ids);
    memos_arena_reset(&local->ctl->arena);
    return status;
}

/* ---- the command ---------------------------------------------------------------------------- */

enum { CONTEXT_USUAL = 4096, ADDED_TOKENS = 8 };

/* No token is less than a byte, so that this many tokens are enough for a text, or any line. */
static size_t tokens_most(const struct ctl *ctl, struct memos_bytes text)
{
    size_t most = text.size;
    if (ctl_args_has(ctl->args, CTL_CHOICES)) {
        for (most = 0; text.size > 0;) {
            struct memos_bytes line = ctl_line_next(&text);
            most = line.size > most ? line.size : most;
        }
    }
    return most + ADDED_TOKENS;
}

static enum memos_status score(
    struct ctl *ctl, struct ctl_host *host, struct memos_bytes text, struct memos_error *err)
{
    struct ctl_score result;
    uint64_t overlap;
    size_t context = host->info.context_max;
    enum memos_status status =
        ctl_args_number(ctl->args, CTL_OVERLAP, context / 2, 0, context - 1, &overlap, err);
    if (status == MEMOS_OK) {
        status = ctl_host_engine(ctl, host, tokens_most(ctl, text), err);
    }
    if (status != MEMOS_OK) {
        return status;
    } else if (ctl_args_has(ctl->args, CTL_CHOICES)) {
        struct local local = {ctl, host};
        return ctl_choices_answer(ctl, text, score_choices, &local, err);
    }
    status = score_text(ctl, host, text, (size_t)overlap, &result, err);
    result.model = host->path;
    result.where = kern_ctx_name(host->ctx);
    result.context = context;
    result.overlap = (size_t)overlap;
    return status == MEMOS_OK ? ctl_score_print(ctl, &result, err) : status;
}

enum memos_status ctl_run_score(struct ctl *ctl, struct memos_error *err)
{
    struct ctl_host host = {0};
    struct memos_buffer text = memos_buffer_make(0);
    enum memos_status status = ctl_ask_check(ctl, err);
    if (status == MEMOS_OK) {
        status = ctl_file_read(ctl_operand(ctl, 0), (size_t)CTL_FILE_BYTES_MAX, &text, err);
    }
    if (status == MEMOS_OK && ctl_asks_worker(ctl)) {
        status = ctl_score_asked(ctl, memos_buffer_view(&text), err);
        memos_buffer_free(&text);
        return status;
    }
    if (status == MEMOS_OK) {
        status = ctl_host_open(ctl, CONTEXT_USUAL, &host, err);
    }
    if (status == MEMOS_OK) {
        status = score(ctl, &host, memos_buffer_view(&text), err);
    }
    if (host.path[0]) {
        ctl_host_advise(ctl, status);
    }
    ctl_host_close(&host);
    memos_buffer_free(&text);
    return status;
}
