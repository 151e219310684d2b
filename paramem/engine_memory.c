/* Texts read once: their keys and values out of a pass, and back into the cache's pages.
 *
 * A capture's blocks are pages of a cache whose keys are not rotated, all layers of 32 tokens side
 * by side. So it is written as a cache is (kern_kv_write without rope), and read as a cache is
 * (engine_blocks.c). */
#include "paramem/engine_internal.h"

#include <string.h>

#define NONE UINT32_MAX

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- capture ------------------------------------------------------------------------------- */

struct capture {
    struct paramem_engine *engine;
    struct paramem_kv_cube cube;
    uint8_t *data;     /* cube.data, to be written */
    size_t first;      /* the first token that is kept */
    size_t from, rows; /* of the pass */
    size_t ring_at;
};

/* Into the capture itself, whose blocks lie in memory of the process. */
static void take_in_place(struct capture *capture, size_t layer, struct kern_kv_write *write)
{
    struct kern_kv kv = engine_blocks_layer(
        capture->engine, capture->cube.dtype, capture->data, capture->cube.blocks, layer);
    write->kv = &kv;
    write->slots = engine_words(capture->engine, 0) + capture->from - capture->first;
    kern_kv_write(capture->engine->model->ctx, write);
}

/* Into the ring, and from there to the capture while the pass goes on. */
static void take_by_ring(struct capture *capture, size_t layer, struct kern_kv_write *write)
{
    struct paramem_engine *engine = capture->engine;
    const struct paramem_kv_cube *cube = &capture->cube;
    struct kern_ctx *ctx = engine->model->ctx;
    size_t pages = engine_pages_of(capture->rows), bytes = pages * cube->page_bytes;

    if (engine->staging.ring_bytes - capture->ring_at < bytes) {
        capture->ring_at = 0;
        kern_copies_wait(ctx); /* what lies there is still on its way */
    }
    uint8_t *at = (uint8_t *)engine->staging.device + capture->ring_at;
    struct kern_kv kv = engine_blocks_layer(engine, cube->dtype, at, pages, 0);
    kv.pages_count = pages;
    if (capture->rows % KERN_PAGE_TOKENS != 0) {
        kern_fill(ctx, at + (pages - 1) * cube->page_bytes, 0, cube->page_bytes);
    }
    write->kv = &kv;
    write->slots = engine_words(engine, 0);
    kern_kv_write(ctx, write);
    size_t block = (capture->from - capture->first) / KERN_PAGE_TOKENS;
    kern_download_beside(
        ctx, &(struct kern_pieces){
                 .host = capture->data + block * cube->block_bytes + layer * cube->page_bytes,
                 .device = at,
                 .host_stride = cube->block_bytes,
                 .device_stride = cube->page_bytes,
                 .bytes = cube->page_bytes,
                 .count = pages});
    capture->ring_at += bytes;
}

static void take(void *self, size_t layer, float *key, float *value, size_t rows, size_t stride)
{
    struct capture *capture = self;
    struct kern_kv_write write = {
        .key = key, .value = value, .from = KERN_F32, .t = rows, .stride = stride};
    memos_assert(rows == capture->rows);
    if (capture->from < capture->first) {
        return;
    }
    if (engine_on_host(capture->engine)) {
        take_in_place(capture, layer, &write);
    } else {
        take_by_ring(capture, layer, &write);
    }
}

/* Rows of a pass: on a device whole pages, of which a layer's fit the ring. */
static size_t capture_rows(const struct capture *capture)
{
    const struct paramem_engine *engine = capture->engine;
    if (engine_on_host(engine)) {
        return engine->tokens_step;
    }
    size_t pages = engine->staging.ring_bytes / capture->cube.page_bytes;
    return smaller(pages, engine->tokens_step / KERN_PAGE_TOKENS) * KERN_PAGE_TOKENS;
}

static enum memos_status capture_run(
    struct capture *capture, const uint32_t *ids, struct memos_error *err)
{
    struct paramem_engine *engine = capture->engine;
    const struct paramem_hooks hooks = {.self = capture, .key_value = take};
    size_t kept = capture->cube.tokens, count = capture->first + kept;
    size_t step = capture_rows(capture);
    enum memos_status status = MEMOS_OK;
    uint32_t *slots = engine_words_host(engine, 0);

    for (size_t i = 0; i < kept; i++) {
        slots[i] = engine_on_host(engine) ? engine_blocks_slot(engine, i) : (uint32_t)i;
    }
    kern_upload(engine->model->ctx, engine_words(engine, 0), slots, kept * sizeof *slots);
    for (size_t from = 0; status == MEMOS_OK && from < count; from += capture->rows) {
        capture->from = from;
        capture->rows = smaller((from < capture->first ? capture->first : count) - from, step);
        capture->ring_at = 0;
        engine_chunk_run(engine, ids, from, capture->rows, &hooks);
        engine->stats.prompt_tokens += capture->rows;
        status = kern_sync(engine->model->ctx, err);
    }
    return status;
}

/* Let others find what was read. */
static void pages_name(
    struct paramem_engine *engine, const uint32_t *ids, size_t pages, uint64_t owner)
{
    struct paramem_key key = paramem_kv_root(engine->cache);
    for (size_t i = 0; engine->prefix_cache && i < pages; i++) {
        uint32_t held = NONE;
        key = paramem_kv_key(&key, ids + i * KERN_PAGE_TOKENS);
        if (paramem_kv_find(engine->cache, &key, &held)) { /* as fresh as if it were this one */
            paramem_kv_release(engine->cache, held);
        } else {
            paramem_kv_name(engine->cache, engine->score_pages[i], &key, owner);
        }
    }
}

static struct paramem_kv_cube_shape shape_of(
    const struct paramem_engine *engine, size_t tokens, enum kern_dtype dtype)
{
    const struct paramem_decoder_config *config = &engine->model->config;
    return (struct paramem_kv_cube_shape){.dtype = dtype,
        .layers = config->layers,
        .heads = config->kv_heads,
        .head_dim = config->head_dim,
        .tokens = tokens};
}

size_t paramem_engine_capture_bytes(
    const struct paramem_engine *engine, size_t tokens, enum kern_dtype dtype)
{
    struct paramem_kv_cube_shape shape = shape_of(engine, tokens, dtype);
    return tokens <= engine->context ? (size_t)paramem_kv_cube_bytes(&shape) : 0;
}

static enum memos_status capture_check(const struct paramem_engine *engine,
    const struct paramem_capture *capture, struct memos_error *err)
{
    const size_t count = capture->count;
    if (engine->lost) {
        return memos_fail(err, MEMOS_IO, "the device failed; make model and engine anew");
    }
    if (paramem_engine_capture_bytes(engine, count, capture->dtype) == 0) {
        return memos_fail(err, MEMOS_INVALID,
            "a capture of %zu tokens as %s; 1 to %zu, as f32, f16, bf16 or e4m3", count,
            kern_dtype_name(capture->dtype), engine->context);
    }
    if (capture->first >= count || capture->first % KERN_PAGE_TOKENS != 0) {
        return memos_fail(err, MEMOS_INVALID,
            "a capture of %zu tokens from %zu on; blocks have %d, and one must be left", count,
            capture->first, KERN_PAGE_TOKENS);
    }
    if (!engine_on_host(engine) && engine->tokens_step < KERN_PAGE_TOKENS) {
        return memos_fail(err, MEMOS_INVALID, "steps of %zu tokens; a capture needs %d",
            engine->tokens_step, KERN_PAGE_TOKENS);
    }
    return engine_ids_check(engine, capture->ids, count, err);
}

/* All but keys and values. */
static void capture_begin(struct capture *capture, const struct paramem_capture *asked)
{
    const struct paramem_engine *engine = capture->engine;
    const uint8_t *fingerprint = engine->model->info.fingerprint;
    struct paramem_kv_cube_shape shape =
        shape_of(engine, asked->count - asked->first, asked->dtype);
    struct paramem_key before = paramem_kv_root_of(fingerprint, asked->dtype);
    for (size_t at = 0; at < asked->first; at += KERN_PAGE_TOKENS) {
        before = paramem_kv_key(&before, asked->ids + at);
    }
    paramem_kv_cube_begin(&shape, fingerprint, asked->first > 0 ? &before : NULL,
        asked->ids + asked->first, asked->memory, &capture->cube);
    capture->first = asked->first;
    capture->data = (uint8_t *)asked->memory + (capture->cube.data - (uint8_t *)asked->memory);
}

enum memos_status paramem_engine_capture(struct paramem_engine *engine,
    const struct paramem_capture *asked, struct paramem_kv_cube *out, struct memos_error *err)
{
    struct capture capture = {.engine = engine};
    struct memos_error own;
    const size_t count = asked->count;
    enum memos_status status = capture_check(engine, asked, err);
    if (status == MEMOS_OK) {
        status = engine_room_make(engine, err);
    }
    if (status == MEMOS_OK && !engine_on_host(engine)) {
        status = engine_ring_make(engine, false, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    capture_begin(&capture, asked);
    engine_pages_take(engine, engine_pages_of(count));
    status = capture_run(&capture, asked->ids, &own);
    if (status == MEMOS_OK) {
        pages_name(engine, asked->ids, count / KERN_PAGE_TOKENS, asked->owner);
    }
    engine_pages_give(engine, engine_pages_of(count));
    if (status != MEMOS_OK) {
        engine_fail(engine, &own);
        if (err) {
            *err = own;
        }
        return status;
    }
    *out = capture.cube;
    return MEMOS_OK;
}

/* ---- attach -------------------------------------------------------------------------------- */

struct attach {
    struct paramem_engine *engine;
    struct engine_blocks blocks; /* that have to be put */
    struct paramem_key before;   /* in this cache, of what stands before */
    size_t at;                   /* where the first token stands */
    size_t held;                 /* of the beginning, that have a page in score_pages */
    size_t found;                /* of these, that were there */
    uint64_t owner;
};

/* Pages for blocks, found or taken, as far as there are any. */
static void pages_hold(struct attach *attach, size_t blocks)
{
    struct paramem_engine *engine = attach->engine;
    struct paramem_key key = attach->before;
    uint32_t *pages = engine->score_pages, ids[KERN_PAGE_TOKENS];

    for (size_t i = 0; i < blocks; i++) {
        paramem_kv_cube_ids(attach->blocks.cube, i * KERN_PAGE_TOKENS, KERN_PAGE_TOKENS, ids);
        key = engine->staging.keys[i] = paramem_kv_key(&key, ids);
        if (!paramem_kv_find(engine->cache, &key, &pages[i])) {
            pages[i] = NONE;
        }
    }
    size_t held = 0;
    for (; held < blocks; held++) {
        if (pages[held] != NONE) {
            attach->found++;
        } else if (paramem_kv_available(engine->cache) > 0) {
            pages[held] = paramem_kv_take(engine->cache);
            engine->staging.blocks[attach->blocks.count++] = (uint32_t)held;
        } else {
            break;
        }
    }
    for (size_t i = blocks; i > held; i--) {
        if (pages[i - 1] != NONE) {
            paramem_kv_release(engine->cache, pages[i - 1]);
        }
    }
    attach->held = held;
}

/* Whole blocks, each to its own place in the text. */
static enum memos_status pages_fill(struct attach *attach, struct memos_error *err)
{
    struct paramem_engine *engine = attach->engine;
    uint32_t *positions = engine_words_host(engine, 1), *slots = engine_words_host(engine, 2);
    for (size_t i = 0; i < attach->blocks.count * KERN_PAGE_TOKENS; i++) {
        uint32_t block = engine->staging.blocks[i / KERN_PAGE_TOKENS];
        uint32_t place = (uint32_t)(i % KERN_PAGE_TOKENS);
        positions[i] = (uint32_t)attach->at + block * KERN_PAGE_TOKENS + place;
        slots[i] = engine->score_pages[block] * KERN_PAGE_TOKENS + place;
    }
    return engine_blocks_put(engine, &attach->blocks, err);
}

static void attach_end(struct attach *attach, bool filled)
{
    struct paramem_engine *engine = attach->engine;
    for (size_t i = 0; filled && i < attach->blocks.count; i++) {
        uint32_t block = engine->staging.blocks[i];
        paramem_kv_name(
            engine->cache, engine->score_pages[block], &engine->staging.keys[block], attach->owner);
    }
    engine_pages_give(engine, attach->held);
}

static enum memos_status attach_check(const struct paramem_engine *engine,
    const struct paramem_attach *attach, struct memos_error *err)
{
    const struct paramem_kv_cube *cube = attach->cube;
    size_t vocab = engine->model->config.vocab;
    if (engine->lost) {
        return memos_fail(err, MEMOS_IO, "the device failed; make model and engine anew");
    }
    if (!engine->prefix_cache) {
        return memos_fail(err, MEMOS_INVALID, "this engine keeps no beginnings of prompts");
    }
    if (paramem_kv_cube_continues(cube) != (attach->after != NULL)) {
        return memos_fail(err, MEMOS_INVALID,
            attach->after ? "the capture begins a context, and continues nothing"
                          : "the capture continues another one, which has to be attached first");
    }
    enum memos_status status = engine_blocks_check(engine, cube, err);
    for (size_t i = 0; status == MEMOS_OK && i < cube->tokens; i++) {
        uint32_t id;
        paramem_kv_cube_ids(cube, i, 1, &id);
        if (id >= vocab) {
            status = memos_fail(err, MEMOS_CORRUPT,
                "token %zu of the capture is %u; its model has %zu", i, id, vocab);
        }
    }
    return status;
}

enum memos_status paramem_engine_attach(struct paramem_engine *engine,
    const struct paramem_attach *attach, struct paramem_attached *out, struct memos_error *err)
{
    const struct paramem_kv_cube *cube = attach->cube;
    const struct paramem_attached *after = attach->after;
    struct attach work = {.engine = engine,
        .blocks = {.cube = cube, .pinned = attach->pinned},
        .before = after ? after->key : paramem_kv_root(engine->cache),
        .at = after ? after->at + after->tokens : 0,
        .owner = attach->owner};
    struct memos_error own;
    enum memos_status status = attach_check(engine, attach, err);
    *out = (struct paramem_attached){.at = work.at, .key = work.before};
    if (status == MEMOS_OK) {
        status = engine_blocks_plan(engine, &work.blocks, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    memos_assert(work.at <= engine->context);
    size_t tokens = smaller(cube->tokens, engine->context - work.at);
    tokens = attach->tokens_max > 0 ? smaller(tokens, attach->tokens_max) : tokens;
    pages_hold(&work, tokens / KERN_PAGE_TOKENS);
    if (work.blocks.count > 0) {
        status = pages_fill(&work, &own);
    }
    attach_end(&work, status == MEMOS_OK);
    if (status != MEMOS_OK) {
        engine_fail(engine, &own);
        if (err) {
            *err = own;
        }
        return status;
    }
    out->tokens = work.held * KERN_PAGE_TOKENS;
    out->found = work.found * KERN_PAGE_TOKENS;
    out->bytes_copied = work.blocks.bytes_copied;
    if (work.held > 0) {
        out->key = engine->staging.keys[work.held - 1];
    }
    return MEMOS_OK;
}

/* ---- drop ---------------------------------------------------------------------------------- */

void paramem_engine_drop(struct paramem_engine *engine, uint64_t owner)
{
    paramem_kv_drop(engine->cache, owner);
}
