#include "paramem/engine.h"

#include "paramem/engine_internal.h"

#include <stdlib.h>
#include <string.h>

#define SEQUENCES 16
#define TOKENS_STEP 512
#define REQUESTS 1024
#define SEGMENTS 8    /* beside one for each sequence */
#define SCORE_ROWS 64 /* whose logits are made at once: the head's weights are read for each */

/* ---- create -------------------------------------------------------------------------------- */

/* What was asked for, or the usual; all in one piece of memory a kind. */
static void sizes_take(struct paramem_engine *engine, const struct paramem_engine_options *options)
{
    const struct paramem_model *model = engine->model;
    engine->sequences_max = options->sequences_max > 0 ? options->sequences_max : SEQUENCES;
    engine->tokens_step = options->tokens_step > 0 ? options->tokens_step : TOKENS_STEP;
    if (engine->tokens_step < engine->sequences_max) {
        engine->tokens_step = engine->sequences_max;
    }
    engine->requests_max = options->requests_max > 0 ? options->requests_max : REQUESTS;
    engine->prefix_cache = !options->no_prefix_cache;
    engine->clock = options->clock ? *options->clock : memos_clock_system();
    engine->kv = options->kv;
    if (engine->kv == 0) {
        bool f32 = kern_matrix_dtype(model->layers[0].qkv) == KERN_F32;
        engine->kv = f32 ? KERN_F32 : KERN_BF16;
    }
    engine->score_rows = SCORE_ROWS;
    engine->segments_max = engine->sequences_max + SEGMENTS;
}

/* How many pages: as many as are of use, within what was asked for or a quarter of what is free. */
static enum memos_status pages_plan(const struct paramem_engine *engine, size_t kv_bytes,
    size_t *out_pages, struct memos_error *err)
{
    const struct paramem_decoder_config *config = &engine->model->config;
    size_t page =
        paramem_kv_page_bytes(engine->kv, config->layers, config->kv_heads, config->head_dim);
    size_t context = engine_pages_of(engine->model->context_max);
    size_t most = UINT32_MAX / KERN_PAGE_TOKENS - 1;
    uint64_t left = 0, total = 0;

    size_t pages = engine->sequences_max < most / context ? engine->sequences_max * context : most;
    kern_memory(engine->model->ctx, &left, &total);
    uint64_t room = (kv_bytes > 0 ? kv_bytes : left / 4) / page;
    if (kv_bytes > 0 || room < pages) {
        pages = room < most ? (size_t)room : most;
    }
    if (pages == 0) {
        return memos_fail(err, MEMOS_NO_MEMORY,
            "a page of the cache needs %zu bytes; there is room for %llu", page,
            (unsigned long long)(kv_bytes > 0 ? kv_bytes : left / 4));
    }
    *out_pages = pages;
    return MEMOS_OK;
}

static enum memos_status cache_make(
    struct paramem_engine *engine, size_t kv_bytes, struct memos_error *err)
{
    const struct paramem_decoder_config *config = &engine->model->config;
    size_t pages = 0;
    enum memos_status status = pages_plan(engine, kv_bytes, &pages, err);
    if (status != MEMOS_OK) {
        return status;
    }
    struct paramem_kv_options kv = {.ctx = engine->model->ctx,
        .dtype = engine->kv,
        .layers = config->layers,
        .heads = config->kv_heads,
        .head_dim = config->head_dim,
        .pages_count = pages,
        .fingerprint = engine->model->info.fingerprint};
    size_t tokens = pages * KERN_PAGE_TOKENS, context = engine->model->context_max;
    engine->context = tokens < context ? tokens : context;
    engine->kv_bytes = (uint64_t)pages * paramem_kv_page_bytes(engine->kv, config->layers,
                                             config->kv_heads, config->head_dim);
    return paramem_kv_create(&kv, &engine->cache, err);
}

static enum memos_status arrays_make(struct paramem_engine *engine, struct memos_error *err)
{
    size_t rows = engine->tokens_step, sequences = engine->sequences_max;
    size_t segments = engine->segments_max;
    engine->slots_count = sequences + engine->requests_max;
    engine->live = calloc(engine->slots_count, sizeof *engine->live);
    engine->slots_free = calloc(engine->slots_count, sizeof *engine->slots_free);
    engine->running = calloc(sequences, sizeof(void *));
    engine->ids = calloc(rows, sizeof *engine->ids);
    engine->positions = calloc(rows, sizeof *engine->positions);
    engine->slots = calloc(rows, sizeof *engine->slots);
    engine->starts = calloc(segments + 1, sizeof *engine->starts);
    engine->lengths = calloc(segments, sizeof *engine->lengths);
    engine->logits_rows = calloc(sequences, sizeof *engine->logits_rows);
    engine->tables = calloc(segments, sizeof(void *));
    engine->sampling = calloc(sequences, sizeof(void *));
    engine->score_pages = calloc(engine_pages_of(engine->context), sizeof *engine->score_pages);
    if (!engine->live || !engine->slots_free || !engine->running || !engine->ids ||
        !engine->positions || !engine->slots || !engine->starts || !engine->lengths ||
        !engine->logits_rows || !engine->tables || !engine->sampling || !engine->score_pages) {
        return memos_fail(err, MEMOS_NO_MEMORY,
            "no memory for steps of %zu tokens and %zu requests", rows, engine->slots_count);
    }
    for (size_t i = 0; i < engine->slots_count; i++) {
        atomic_init(&engine->live[i], 0);
        engine->slots_free[engine->slots_free_count++] = (uint32_t)i;
    }
    return MEMOS_OK;
}

static enum memos_status engine_fill(struct paramem_engine *engine,
    const struct paramem_engine_options *options, struct memos_error *err)
{
    sizes_take(engine, options);
    enum memos_status status = cache_make(engine, options->kv_bytes, err);
    if (status == MEMOS_OK) {
        status = arrays_make(engine, err);
    }
    if (status == MEMOS_OK) {
        size_t sequences = engine->sequences_max, score = engine->score_rows;
        struct paramem_forward_options forward = {.model = engine->model,
            .kv = paramem_kv_layers(engine->cache),
            .rows_max = engine->tokens_step,
            .sequences_max = engine->segments_max,
            .logits_max = sequences > score ? sequences : score,
            .length_max = engine->context};
        status = paramem_forward_create(&forward, &engine->forward, err);
    }
    if (status == MEMOS_OK) {
        status = engine_sampler_create(engine, err);
    }
    return status;
}

enum memos_status paramem_engine_create(const struct paramem_engine_options *options,
    struct paramem_engine **out, struct memos_error *err)
{
    enum kern_dtype kv = options->kv;
    if (kv != 0 && kv != KERN_F32 && kv != KERN_F16 && kv != KERN_BF16 && kv != KERN_E4M3) {
        return memos_fail(err, MEMOS_UNSUPPORTED, "a cache in %s; f32, f16, bf16 and e4m3 work",
            kern_dtype_name(kv));
    }
    struct paramem_engine *engine = calloc(1, sizeof *engine);
    if (!engine) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for an engine");
    }
    engine->model = options->model;
    engine->deadline_next = UINT64_MAX;
    engine->waiting_end = &engine->waiting;
    atomic_init(&engine->cancels, false);
    enum memos_status status = engine_fill(engine, options, err);
    if (status != MEMOS_OK) {
        paramem_engine_destroy(&engine);
        return status;
    }
    *out = engine;
    return MEMOS_OK;
}

/* ---- the end of a request ------------------------------------------------------------------ */

/* It is in no list any more. err: of FAILED. */
static void sequence_end(struct paramem_engine *engine, struct engine_sequence *sequence,
    enum paramem_finish finish, const struct memos_error *err)
{
    int64_t now = engine->clock.mono_us(engine->clock.self);
    int64_t began = sequence->began_us ? sequence->began_us : now;
    int64_t first = sequence->first_us ? sequence->first_us : now;
    bool failed = finish == PARAMEM_FINISH_FAILED;
    struct paramem_result result = {.finish = finish,
        .prompt_tokens = sequence->prompt_count,
        .cached_tokens = sequence->cached,
        .placed_tokens = sequence->put,
        .cut_tokens = sequence->cut,
        .tokens = sequence->count - sequence->prompt_count,
        .stop_string = sequence->stop_string,
        .queued_us = (uint64_t)(began - sequence->submitted_us),
        .first_us = (uint64_t)(first - sequence->submitted_us),
        .total_us = (uint64_t)(now - sequence->submitted_us),
        .status = failed ? err->status : MEMOS_OK,
        .err = failed ? err : NULL};

    engine_pages_release(engine, sequence);
    atomic_store(&engine->live[sequence->slot], 0);
    engine->slots_free[engine->slots_free_count++] = (uint32_t)sequence->slot;
    engine->stats.cancelled +=
        finish == PARAMEM_FINISH_CANCELLED || finish == PARAMEM_FINISH_DEADLINE;
    engine->stats.failed += failed;
    sequence->request.on_done(sequence->request.self, &result);
    engine_sequence_free(&sequence);
}

/* Take those that have ended out of the running. on_done may submit, so that lists are put in order
 * before it is called. */
static void running_sweep(struct paramem_engine *engine, const struct memos_error *err)
{
    for (size_t i = 0; i < engine->running_count;) {
        struct engine_sequence *sequence = engine->running[i];
        if (!sequence->finish) {
            i++;
            continue;
        }
        engine->running_count--;
        memmove(engine->running + i, engine->running + i + 1,
            (engine->running_count - i) * sizeof(void *));
        sequence_end(engine, sequence, sequence->finish, err);
    }
}

static void waiting_sweep(struct paramem_engine *engine, const struct memos_error *err)
{
    for (struct engine_sequence **link = &engine->waiting; *link;) {
        struct engine_sequence *sequence = *link;
        if (!sequence->finish) {
            link = &sequence->next;
            continue;
        }
        *link = sequence->next;
        if (!*link) {
            engine->waiting_end = link;
        }
        engine->waiting_count--;
        sequence_end(engine, sequence, sequence->finish, err);
    }
}

/* Mark what was cancelled, or is late. */
static bool mark(struct paramem_engine *engine, struct engine_sequence *sequence, uint64_t now)
{
    uint64_t deadline = sequence->request.deadline_us;
    if (atomic_load(&engine->live[sequence->slot]) & ENGINE_CANCELLED) {
        sequence->finish = PARAMEM_FINISH_CANCELLED;
    } else if (deadline != 0 && now >= deadline) {
        sequence->finish = PARAMEM_FINISH_DEADLINE;
    } else if (deadline != 0 && deadline < engine->deadline_next) {
        engine->deadline_next = deadline;
    }
    return sequence->finish != 0;
}

/* Looks at all requests only when one was cancelled, or the first deadline has come. */
static void end_unwanted(struct paramem_engine *engine)
{
    bool any = false, cancels = atomic_exchange(&engine->cancels, false);
    uint64_t now = 0;
    if (engine->deadline_next != UINT64_MAX) {
        now = (uint64_t)engine->clock.mono_us(engine->clock.self);
    }
    if (!cancels && now < engine->deadline_next) {
        return;
    }
    engine->deadline_next = UINT64_MAX;
    for (size_t i = 0; i < engine->running_count; i++) {
        any |= mark(engine, engine->running[i], now);
    }
    for (struct engine_sequence *s = engine->waiting; s; s = s->next) {
        any |= mark(engine, s, now);
    }
    if (any) {
        running_sweep(engine, NULL);
        waiting_sweep(engine, NULL);
    }
}

void paramem_engine_destroy(struct paramem_engine **engine)
{
    struct paramem_engine *old = *engine;
    if (!old) {
        return;
    }
    old->closing = true;
    for (size_t i = 0; i < old->running_count; i++) {
        old->running[i]->finish = PARAMEM_FINISH_CANCELLED;
    }
    for (struct engine_sequence *s = old->waiting; s; s = s->next) {
        s->finish = PARAMEM_FINISH_CANCELLED;
    }
    running_sweep(old, NULL);
    waiting_sweep(old, NULL);
    engine_sampler_destroy(old);
    engine_staging_release(old);
    paramem_forward_destroy(&old->forward);
    paramem_kv_destroy(&old->cache);
    void *const arrays[] = {old->live, old->slots_free, old->running, old->ids, old->positions,
        old->slots, old->starts, old->lengths, old->logits_rows, old->tables, old->sampling,
        old->score_pages};
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) {
        free(arrays[i]);
    }
    free(old);
    *engine = NULL;
}

/* ---- a step -------------------------------------------------------------------------------- */

void engine_fail(struct paramem_engine *engine, const struct memos_error *err)
{
    engine->lost = true;
    for (size_t i = 0; i < engine->running_count; i++) {
        struct engine_sequence *sequence = engine->running[i];
        sequence->finish = sequence->finish ? sequence->finish : PARAMEM_FINISH_FAILED;
    }
    for (struct engine_sequence *s = engine->waiting; s; s = s->next) {
        s->finish = PARAMEM_FINISH_FAILED;
    }
    running_sweep(engine, err);
    waiting_sweep(engine, err);
}

/* Tokens of all whose last row was in the pass. One whose text fails ends; the others go on. */
static enum memos_status take_tokens(struct paramem_engine *engine, struct memos_error *err)
{
    struct engine_sampled sampled;
    for (size_t first = 0, count = 0; first < engine->pass.logits_count; first += count) {
        enum memos_status status = engine_sample(engine, first, &count, &sampled, err);
        if (status != MEMOS_OK) {
            return status;
        }
        int64_t now = engine->clock.mono_us(engine->clock.self);
        for (size_t row = 0; row < count; row++) {
            struct engine_sequence *sequence = engine->sampling[first + row];
            struct memos_error own;
            sequence->first_us = sequence->first_us ? sequence->first_us : now;
            if (engine_answer(engine, sequence, &sampled, row, &own) != MEMOS_OK) {
                sequence->finish = PARAMEM_FINISH_FAILED;
                running_sweep(engine, &own);
            }
        }
    }
    return MEMOS_OK;
}

static enum memos_status compute(struct paramem_engine *engine, struct memos_error *err)
{
    engine->stats.steps++;
    paramem_forward_run(engine->forward, &engine->pass, &engine->sampler.logits);
    /* A pass that asks for no tokens has no other place to fail in. */
    return engine->pass.logits_count > 0 ? take_tokens(engine, err)
                                         : kern_sync(engine->model->ctx, err);
}

enum memos_status paramem_engine_step(
    struct paramem_engine *engine, bool *out_more, struct memos_error *err)
{
    struct memos_error own;
    enum memos_status status = MEMOS_OK;

    end_unwanted(engine);
    status = engine_schedule(engine, &own);
    if (status == MEMOS_OK && engine->pass.rows > 0) {
        status = compute(engine, &own);
    }
    if (status == MEMOS_OK) {
        running_sweep(engine, NULL);
    } else {
        engine_fail(engine, &own);
    }
    *out_more = engine->running_count > 0 || engine->waiting;
    if (status != MEMOS_OK && err) {
        *err = own;
    }
    return status;
}

size_t paramem_engine_context(const struct paramem_engine *engine)
{
    return engine->context;
}

enum kern_dtype paramem_engine_kv(const struct paramem_engine *engine)
{
    return engine->kv;
}

void paramem_engine_stats(const struct paramem_engine *engine, struct paramem_engine_stats *out)
{
    size_t total = paramem_kv_total(engine->cache);
    *out = engine->stats;
    out->running = engine->running_count;
    out->waiting = engine->waiting_count;
    out->pages_total = total;
    out->pages_used = total - paramem_kv_available(engine->cache);
    out->pages_cached = paramem_kv_kept(engine->cache);
    out->weight_bytes = engine->model->info.weight_bytes;
    out->kv_bytes = engine->kv_bytes;
    out->workspace_bytes = paramem_forward_bytes(engine->forward) + engine->sampler.bytes;
}
