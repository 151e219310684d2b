/* How likely texts are to a model: perplexity, and the choice of the likeliest. */
#include "paramem/tokenizer.h"
#include "tools/memosctl/host.h"
#include "tools/memosctl/input.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- a text --------------------------------------------------------------------------------- */

struct score {
    size_t tokens, scored, bytes; /* bytes: of the tokens that were scored */
    double logprob;               /* their sum, natural */
    int64_t took_us;
};

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
    size_t overlap, struct score *out, struct memos_error *err)
{
    struct paramem_ids ids = {0};
    float *logprobs = NULL;
    int64_t began_us = ctl->clock.mono_us(ctl->clock.self);
    *out = (struct score){.bytes = text.size};
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

static enum memos_status print_score(struct ctl *ctl, const struct ctl_host *host,
    const struct score *score, size_t overlap, struct memos_error *err)
{
    double perplexity = exp(-score->logprob / (double)score->scored);
    double bits = -score->logprob / M_LN2;
    double seconds = (double)score->took_us / 1e6;
    if (ctl->json) {
        return ctl_json_print(
            json_pack("{so,sI,sI,sI,sf,sf,sf,sI,sI,sf}", "model", ctl_json_string(host->path),
                "tokens", (json_int_t)score->tokens, "scored", (json_int_t)score->scored, "bytes",
                (json_int_t)score->bytes, "logprob", score->logprob, "perplexity", perplexity,
                "bits_per_byte", score->bytes > 0 ? bits / (double)score->bytes : 0.0, "context",
                (json_int_t)host->info.context_max, "overlap", (json_int_t)overlap, "seconds",
                seconds),
            err);
    }
    ctl_paper_fieldf(&ctl->paper, "perplexity", "%.4f", perplexity);
    if (score->bytes > 0) {
        ctl_paper_fieldf(&ctl->paper, "bits/byte", "%.4f", bits / (double)score->bytes);
    }
    ctl_paper_fieldf(&ctl->paper, "tokens", "%zu (%zu scored, %zu bytes)", score->tokens,
        score->scored, score->bytes);
    ctl_note(ctl, "%.1f tokens/s on %s", (double)score->tokens / seconds, kern_ctx_name(host->ctx));
    return MEMOS_OK;
}

/* ---- choices -------------------------------------------------------------------------------- */

enum { CHOICES_MAX = 64, ADDED_TOKENS = 8 };

struct question {
    size_t number; /* of its line */
    const json_t *id, *answer;
    struct memos_bytes prompt, choices[CHOICES_MAX];
    size_t choices_count;
};

/* What is right and what was found. */
struct tally {
    size_t questions, answered, right, right_by_byte;
};

static struct memos_bytes text_of(const json_t *value)
{
    return memos_bytes_make(json_string_value(value), json_string_length(value));
}

static enum memos_status read_question(
    const json_t *line, struct question *out, struct memos_error *err)
{
    const json_t *choices = json_object_get(line, "choices");
    const json_t *prompt = json_object_get(line, "prompt");
    out->id = json_object_get(line, "id");
    out->answer = json_object_get(line, "answer");
    out->choices_count = json_array_size(choices);
    if (!json_is_string(prompt) || out->choices_count < 2 || out->choices_count > CHOICES_MAX) {
        return memos_fail(err, MEMOS_INVALID,
            "line %zu: a \"prompt\" and 2 to %d \"choices\" are needed", out->number, CHOICES_MAX);
    }
    out->prompt = text_of(prompt);
    for (size_t i = 0; i < out->choices_count; i++) {
        const json_t *choice = json_array_get(choices, i);
        if (!json_is_string(choice) || json_string_length(choice) == 0) {
            return memos_fail(
                err, MEMOS_INVALID, "line %zu: choice %zu is no text, or empty", out->number, i);
        }
        out->choices[i] = text_of(choice);
    }
    if (out->answer && !json_is_null(out->answer) &&
        (!json_is_integer(out->answer) || json_integer_value(out->answer) < 0 ||
            (size_t)json_integer_value(out->answer) >= out->choices_count)) {
        return memos_fail(err, MEMOS_INVALID,
            "line %zu: \"answer\" is the number of a choice, "
            "from 0 on",
            out->number);
    }
    return MEMOS_OK;
}

/* log P(choice | prompt): of the tokens of both together, those that the prompt alone has not. */
static enum memos_status score_choice(struct ctl *ctl, struct ctl_host *host,
    const struct paramem_ids *alone, const struct question *question, size_t choice, double *out,
    struct memos_error *err)
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

static size_t largest(const double *values, size_t count)
{
    size_t best = 0;
    for (size_t i = 1; i < count; i++) {
        best = values[i] > values[best] ? i : best;
    }
    return best;
}

static enum memos_status print_question(const struct ctl *ctl, const struct question *question,
    const double *sums, size_t best, size_t best_by_byte, struct memos_error *err)
{
    json_t *logprobs = json_array();
    if (!ctl->json) {
        printf("%zu: %zu (%.3f)%s", question->number, best, sums[best],
            best == best_by_byte ? "" : ", by byte ");
        if (best != best_by_byte) {
            printf("%zu", best_by_byte);
        }
        putchar('\n');
        json_decref(logprobs);
        return MEMOS_OK;
    }
    for (size_t i = 0; i < question->choices_count && logprobs; i++) {
        (void)json_array_append_new(logprobs, json_real(sums[i]));
    }
    return ctl_json_line(
        json_pack("{sO?,sI,sI,sI,sO?,so}", "id", question->id, "line", (json_int_t)question->number,
            "best", (json_int_t)best, "best_by_byte", (json_int_t)best_by_byte, "answer",
            question->answer, "logprobs", logprobs),
        err);
}

static enum memos_status choose(struct ctl *ctl, struct ctl_host *host,
    const struct question *question, struct tally *tally, struct memos_error *err)
{
    double sums[CHOICES_MAX], by_byte[CHOICES_MAX];
    struct paramem_ids alone = {0};
    enum memos_status status = encode(host, question->prompt, &alone, err);
    for (size_t i = 0; i < question->choices_count && status == MEMOS_OK; i++) {
        status = score_choice(ctl, host, &alone, question, i, &sums[i], err);
        by_byte[i] = sums[i] / (double)question->choices[i].size;
    }
    free(alone.ids);
    if (status != MEMOS_OK) {
        return status;
    }
    size_t best = largest(sums, question->choices_count);
    size_t best_by_byte = largest(by_byte, question->choices_count);
    tally->questions++;
    if (json_is_integer(question->answer)) {
        size_t answer = (size_t)json_integer_value(question->answer);
        tally->answered++;
        tally->right += best == answer;
        tally->right_by_byte += best_by_byte == answer;
    }
    return print_question(ctl, question, sums, best, best_by_byte, err);
}

static enum memos_status choose_line(struct ctl *ctl, struct ctl_host *host,
    struct memos_bytes line, size_t number, struct tally *tally, struct memos_error *err)
{
    json_error_t why;
    struct question question = {.number = number};
    json_t *json = json_loadb(line.data, line.size, JSON_REJECT_DUPLICATES, &why);
    if (!json) {
        return memos_fail(err, MEMOS_INVALID, "line %zu is no JSON: %.100s", number, why.text);
    }
    enum memos_status status = read_question(json, &question, err);
    if (status == MEMOS_OK) {
        status = choose(ctl, host, &question, tally, err);
    }
    json_decref(json);
    memos_arena_reset(&ctl->arena);
    return status;
}

/* The next line of text, which it is taken from; without its end. */
static struct memos_bytes next_line(struct memos_bytes *text)
{
    const char *begin = text->data, *stop = memchr(begin, '\n', text->size);
    size_t size = stop ? (size_t)(stop - begin) : text->size, used = size + (stop ? 1 : 0);
    *text = memos_bytes_make(begin + used, text->size - used);
    return memos_bytes_make(begin, size);
}

static bool is_blank(struct memos_bytes line)
{
    const char *at = line.data;
    size_t i = 0;
    while (i < line.size && (at[i] == ' ' || at[i] == '\t' || at[i] == '\r')) {
        i++;
    }
    return i == line.size;
}

static enum memos_status choose_all(
    struct ctl *ctl, struct ctl_host *host, struct memos_bytes text, struct memos_error *err)
{
    struct tally tally = {0};
    enum memos_status status = MEMOS_OK;
    for (size_t number = 1; text.size > 0 && status == MEMOS_OK; number++) {
        struct memos_bytes line = next_line(&text);
        if (ctl_stopped()) {
            status = memos_fail(err, MEMOS_CANCELLED, "stopped at line %zu", number);
        } else if (!is_blank(line)) {
            status = choose_line(ctl, host, line, number, &tally, err);
        }
    }
    if (status == MEMOS_OK && tally.answered > 0) {
        ctl_note(ctl, "%zu of %zu right (%.1f%%); by byte %zu (%.1f%%)", tally.right,
            tally.answered, 100.0 * (double)tally.right / (double)tally.answered,
            tally.right_by_byte, 100.0 * (double)tally.right_by_byte / (double)tally.answered);
    }
    return status;
}

/* ---- the command ---------------------------------------------------------------------------- */

enum { CONTEXT_USUAL = 4096 };

/* No token is less than a byte, so that this many tokens are enough for a text, or any line. */
static size_t tokens_most(const struct ctl *ctl, struct memos_bytes text)
{
    size_t most = text.size;
    if (ctl_args_has(ctl->args, CTL_CHOICES)) {
        for (most = 0; text.size > 0;) {
            struct memos_bytes line = next_line(&text);
            most = line.size > most ? line.size : most;
        }
    }
    return most + ADDED_TOKENS;
}

static enum memos_status score(
    struct ctl *ctl, struct ctl_host *host, struct memos_bytes text, struct memos_error *err)
{
    struct score result;
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
        return choose_all(ctl, host, text, err);
    }
    status = score_text(ctl, host, text, (size_t)overlap, &result, err);
    return status == MEMOS_OK ? print_score(ctl, host, &result, (size_t)overlap, err) : status;
}

enum memos_status ctl_run_score(struct ctl *ctl, struct memos_error *err)
{
    struct ctl_host host = {0};
    struct memos_buffer text = memos_buffer_make(0);
    enum memos_status status =
        ctl_file_read(ctl_operand(ctl, 0), (size_t)CTL_FILE_BYTES_MAX, &text, err);
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
