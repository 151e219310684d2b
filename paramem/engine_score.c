/* How likely a given text is, token by token. */
#include "paramem/engine_internal.h"

#include <math.h>
#include <string.h>

/* A text that is being told. */
struct score {
    const uint32_t *ids;
    size_t count;
    size_t told; /* out[0..told) are there: of ids 1..told */
    float *out;
};

void engine_pages_take(struct paramem_engine *engine, size_t count)
{
    while (paramem_kv_available(engine->cache) < count) {
        engine_preempt(engine);
    }
    for (size_t i = 0; i < count; i++) {
        engine->score_pages[i] = paramem_kv_take(engine->cache);
    }
}

void engine_pages_give(struct paramem_engine *engine, size_t count)
{
    while (count > 0) {
        paramem_kv_release(engine->cache, engine->score_pages[--count]);
    }
}

void engine_chunk_run(struct paramem_engine *engine, const uint32_t *ids, size_t from, size_t rows,
    const struct paramem_hooks *hooks)
{
    const uint32_t *table = engine->score_pages;
    float *unused = NULL;
    for (size_t i = 0; i < rows; i++) {
        size_t at = from + i;
        engine->positions[i] = (uint32_t)at;
        engine->slots[i] =
            table[at / KERN_PAGE_TOKENS] * KERN_PAGE_TOKENS + (uint32_t)(at % KERN_PAGE_TOKENS);
    }
    uint32_t starts[2] = {0, (uint32_t)rows}, length = (uint32_t)(from + rows);
    struct paramem_pass pass = {.ids = ids + from,
        .positions = engine->positions,
        .slots = engine->slots,
        .rows = rows,
        .starts = starts,
        .lengths = &length,
        .tables = &table,
        .sequences = 1,
        .hooks = hooks};
    paramem_forward_run(engine->forward, &pass, &unused);
}

/* Tell what rows first .. first + count - 1 of the last pass say of the tokens after them. */
static enum memos_status rows_tell(struct paramem_engine *engine, struct score *score, size_t first,
    size_t count, struct memos_error *err)
{
    struct engine_sampler *sampler = &engine->sampler;
    struct kern_ctx *ctx = engine->model->ctx;
    uint8_t *device = sampler->device;
    float *logits = NULL, *out = (float *)(void *)(device + sampler->adjusts_at);

    /* The sampler's room is free between steps: ids where its rows are, the answer behind. */
    memcpy(sampler->host, score->ids + score->told + 1, count * sizeof *score->ids);
    kern_upload(ctx, device, sampler->host, count * sizeof *score->ids);
    paramem_forward_logits(engine->forward, first, count, &logits);
    kern_logprobs(ctx, logits, (const uint32_t *)(const void *)device, count,
        engine->model->config.vocab, out);
    enum memos_status status =
        kern_download(ctx, score->out + score->told, out, count * sizeof *out, err);
    score->told += count;
    return status;
}

/* Tell rows `row` .. `end` - 1, of which the first of the last pass is row `from`. */
static enum memos_status slices_tell(struct paramem_engine *engine, struct score *score,
    size_t from, size_t row, size_t end, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    while (status == MEMOS_OK && row < end) {
        size_t slice = end - row < engine->score_rows ? end - row : engine->score_rows;
        status = rows_tell(engine, score, row - from, slice, err);
        row += slice;
    }
    return status == MEMOS_OK ? kern_sync(engine->model->ctx, err) : status;
}

/* A window of `length` tokens from `begin` on. */
static enum memos_status window_run(struct paramem_engine *engine, struct score *score,
    size_t begin, size_t length, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    for (size_t from = 0; status == MEMOS_OK && from < length;) {
        size_t left = length - from;
        size_t rows = left < engine->tokens_step ? left : engine->tokens_step;
        engine_chunk_run(engine, score->ids + begin, from, rows, NULL);
        /* Row r tells of token begin + r + 1; those before `told` + 1 have been told. */
        size_t row = begin + from < score->told ? score->told - begin : from;
        size_t end = from + rows;
        end = begin + end < score->count ? end : score->count - 1 - begin;
        status = slices_tell(engine, score, from, row, end, err);
        engine->stats.prompt_tokens += rows;
        from += rows;
    }
    return status;
}

enum memos_status engine_ids_check(
    const struct paramem_engine *engine, const uint32_t *ids, size_t count, struct memos_error *err)
{
    size_t vocab = engine->model->config.vocab;
    for (size_t i = 0; i < count; i++) {
        if (ids[i] >= vocab) {
            return memos_fail(
                err, MEMOS_INVALID, "token %zu is %u; the model has %zu tokens", i, ids[i], vocab);
        }
    }
    return MEMOS_OK;
}

enum memos_status paramem_engine_score(struct paramem_engine *engine, const uint32_t *ids,
    size_t count, size_t overlap, float *out, struct memos_error *err)
{
    struct score score = {.ids = ids, .count = count, .out = out};
    size_t context = engine->context;
    struct memos_error own;

    if (engine->lost) {
        return memos_fail(err, MEMOS_IO, "the device failed; make model and engine anew");
    }
    if (count < 2 || (count > context && overlap >= context)) {
        return memos_fail(err, MEMOS_INVALID,
            "%zu tokens with an overlap of %zu; at least 2, and less than the context of %zu",
            count, overlap, context);
    }
    enum memos_status status = engine_ids_check(engine, ids, count, err);
    if (status != MEMOS_OK) {
        return status;
    }
    for (size_t begin = 0; status == MEMOS_OK && score.told < count - 1;) {
        size_t length = count - begin < context ? count - begin : context;
        size_t pages = engine_pages_of(length);
        engine_pages_take(engine, pages);
        status = window_run(engine, &score, begin, length, &own);
        engine_pages_give(engine, pages);
        begin += length - overlap;
    }
    if (status != MEMOS_OK) {
        engine_fail(engine, &own);
        if (err) {
            *err = own;
        }
    }
    return status;
}

/* ---- with captures in it ------------------------------------------------------------------- */

/* All runs of rows that are computed; score->told goes over those between. */
static enum memos_status runs_run(struct paramem_engine *engine,
    const struct engine_sequence *sequence, struct score *score, struct memos_error *err)
{
    enum memos_status status = engine_placed_put(engine, sequence, err);
    for (size_t from = 0; status == MEMOS_OK && from < score->count;) {
        const struct engine_placed *placed = engine_placed_from(sequence, from);
        if (placed && placed->from <= from) {
            from = placed->end;
            continue;
        }
        size_t end = placed ? placed->from : score->count;
        end = end - from < engine->tokens_step ? end : from + engine->tokens_step;
        engine_chunk_run(engine, score->ids, from, end - from, NULL);
        engine->stats.prompt_tokens += end - from;
        score->told = from;
        size_t tell = end < score->count ? end : score->count - 1;
        status = slices_tell(engine, score, from, from, tell, err);
        from = end;
    }
    return status;
}

static enum memos_status placed_score(struct paramem_engine *engine,
    const struct paramem_request *request, struct score *score, struct memos_error *err)
{
    size_t pages = engine_pages_of(score->count);
    struct engine_sequence sequence = {.pages = engine->score_pages};
    enum memos_status status = MEMOS_OK;
    struct memos_error own;

    memos_arena_init(&sequence.arena, SIZE_MAX / 4);
    if (!engine_placed_copy(&sequence, request)) {
        memos_arena_finish(&sequence.arena);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for placed captures");
    }
    for (size_t i = 0; i < score->count - 1; i++) {
        score->out[i] = NAN;
    }
    engine_pages_take(engine, pages);
    status = runs_run(engine, &sequence, score, &own);
    engine_pages_give(engine, pages);
    memos_arena_finish(&sequence.arena);
    if (status != MEMOS_OK) {
        engine_fail(engine, &own);
        if (err) {
            *err = own;
        }
    }
    return status;
}

enum memos_status paramem_engine_score_placed(struct paramem_engine *engine, const uint32_t *ids,
    size_t count, const struct paramem_placed *placed, size_t placed_count, float *out,
    struct memos_error *err)
{
    const struct paramem_request request = {
        .prompt = ids, .prompt_count = count, .placed = placed, .placed_count = placed_count};
    struct score score = {.ids = ids, .count = count, .out = out};
    if (engine->lost) {
        return memos_fail(err, MEMOS_IO, "the device failed; make model and engine anew");
    }
    if (count < 2) {
        return memos_fail(err, MEMOS_INVALID, "%zu tokens; at least 2", count);
    }
    if (count > engine->context) {
        return memos_fail(err, MEMOS_TOO_LARGE, "%zu tokens do not fit the context of %zu", count,
            engine->context);
    }
    enum memos_status status = engine_ids_check(engine, ids, count, err);
    if (status == MEMOS_OK) {
        status = engine_placed_check(engine, &request, err);
    }
    return status == MEMOS_OK ? placed_score(engine, &request, &score, err) : status;
}
