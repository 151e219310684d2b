/* Texts read once: their keys and values out of a pass, and back into the cache's pages.
 *
 * A capture's blocks are pages of a cache whose keys are not rotated, all layers of 32 tokens side
 * by side. So it is written as a cache is (kern_kv_write without rope), and read as a cache is
 * (kern_kv_read); where device memory is the process's own, in place. */
#include "paramem/engine_internal.h"

#include <stdlib.h>
#include <string.h>

#define RING_BYTES ((size_t)128 << 20)
#define PIECE_BYTES ((size_t)16 << 20)
#define PIECE_TOKENS 2048
#define COPY_BYTES ((size_t)1 << 20) /* that a thread copies at once */
#define NONE UINT32_MAX

/* ---- room ---------------------------------------------------------------------------------- */

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t page_bytes(const struct paramem_engine *engine, enum kern_dtype dtype)
{
    const struct paramem_decoder_config *config = &engine->model->config;
    return kern_kv_page_bytes(dtype, config->kv_heads, config->head_dim);
}

static bool on_host(const struct paramem_engine *engine)
{
    return kern_memory_is_host(engine->model->ctx);
}

static void arrays_free(struct engine_staging *staging)
{
    free(staging->words_host);
    free(staging->keys);
    free(staging->fresh);
    staging->words_host = NULL;
    staging->keys = NULL;
    staging->fresh = NULL;
}

/* Arrays of words for all tokens of a context, and numbers of a piece. */
static enum memos_status room_make(struct paramem_engine *engine, struct memos_error *err)
{
    const struct paramem_decoder_config *config = &engine->model->config;
    struct engine_staging *staging = &engine->staging;
    struct kern_ctx *ctx = engine->model->ctx;
    size_t tokens = engine_pages_of(engine->context) * KERN_PAGE_TOKENS;
    size_t words = tokens > engine->tokens_step ? tokens : engine->tokens_step;
    enum memos_status status = MEMOS_OK;

    staging->words_count = words;
    staging->tokens_max = smaller(tokens, PIECE_TOKENS);
    if (!staging->words_host) {
        staging->words_host = calloc(3 * words, sizeof *staging->words_host);
        staging->keys = calloc(tokens / KERN_PAGE_TOKENS, sizeof *staging->keys);
        staging->fresh = calloc(tokens / KERN_PAGE_TOKENS, sizeof *staging->fresh);
    }
    if (!staging->words_host || !staging->keys || !staging->fresh) {
        arrays_free(staging);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for slots of %zu tokens", words);
    }
    if (!staging->words) {
        status = kern_alloc(ctx, 3 * words * sizeof(uint32_t), &staging->words, err);
    }
    if (status == MEMOS_OK && !staging->numbers) {
        size_t numbers = 2 * staging->tokens_max * config->kv_heads * config->head_dim;
        status = kern_alloc(ctx, numbers * sizeof(float), &staging->numbers, err);
    }
    return status;
}

/* The ring on the device, and with `host` before it. */
static enum memos_status ring_make(
    struct paramem_engine *engine, bool host, struct memos_error *err)
{
    struct engine_staging *staging = &engine->staging;
    struct kern_ctx *ctx = engine->model->ctx;
    size_t block = engine->model->config.layers * page_bytes(engine, KERN_F32);
    size_t bytes = smaller(RING_BYTES / block, engine_pages_of(engine->context)) * block;
    enum memos_status status = MEMOS_OK;

    staging->ring_bytes = bytes > block ? bytes : block;
    if (!staging->device) {
        status = kern_alloc(ctx, staging->ring_bytes, &staging->device, err);
    }
    if (status == MEMOS_OK && host && !staging->host) {
        status = kern_host_alloc(ctx, staging->ring_bytes, &staging->host, err);
    }
    return status;
}

void engine_staging_release(struct paramem_engine *engine)
{
    struct engine_staging *staging = &engine->staging;
    struct kern_ctx *ctx = engine->model->ctx;
    kern_release(ctx, &staging->device);
    kern_host_release(ctx, &staging->host);
    kern_release(ctx, &staging->numbers);
    kern_release(ctx, &staging->words);
    arrays_free(staging);
}

/* Array `index` of words, on the device and on the host. */
static uint32_t *words_of(const struct paramem_engine *engine, size_t index)
{
    return (uint32_t *)engine->staging.words + index * engine->staging.words_count;
}

static uint32_t *words_host_of(const struct paramem_engine *engine, size_t index)
{
    return engine->staging.words_host + index * engine->staging.words_count;
}

/* Pages of one layer among blocks that hold all layers of `page` bytes: slots count pages of all.
 */
static struct kern_kv layer_of(const struct paramem_engine *engine, enum kern_dtype dtype,
    uint8_t *blocks, size_t blocks_count, size_t layer)
{
    const struct paramem_decoder_config *config = &engine->model->config;
    return (struct kern_kv){.pages = blocks + layer * page_bytes(engine, dtype),
        .pages_count = blocks_count * config->layers - layer,
        .heads = config->kv_heads,
        .head_dim = config->head_dim,
        .dtype = dtype};
}

/* The slot of a token in the first layer of blocks of all layers. */
static uint32_t slot_in_blocks(const struct paramem_engine *engine, size_t token)
{
    size_t page = token / KERN_PAGE_TOKENS * engine->model->config.layers;
    return (uint32_t)(page * KERN_PAGE_TOKENS + token % KERN_PAGE_TOKENS);
}

/* ---- capture ------------------------------------------------------------------------------- */

struct capture {
    struct paramem_engine *engine;
    struct paramem_kv_cube cube;
    uint8_t *data;     /* cube.data, to be written */
    size_t from, rows; /* of the pass */
    size_t ring_at;
};

/* Into the capture itself, whose blocks lie in memory of the process. */
static void take_in_place(struct capture *capture, size_t layer, struct kern_kv_write *write)
{
    struct kern_kv kv =
        layer_of(capture->engine, capture->cube.dtype, capture->data, capture->cube.blocks, layer);
    write->kv = &kv;
    write->slots = words_of(capture->engine, 0) + capture->from;
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
    struct kern_kv kv = layer_of(engine, cube->dtype, at, pages, 0);
    kv.pages_count = pages;
    if (capture->rows % KERN_PAGE_TOKENS != 0) {
        kern_fill(ctx, at + (pages - 1) * cube->page_bytes, 0, cube->page_bytes);
    }
    write->kv = &kv;
    write->slots = words_of(engine, 0);
    kern_kv_write(ctx, write);
    size_t block = capture->from / KERN_PAGE_TOKENS;
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
    if (on_host(capture->engine)) {
        take_in_place(capture, layer, &write);
    } else {
        take_by_ring(capture, layer, &write);
    }
}

/* Rows of a pass: on a device whole pages, of which a layer's fit the ring. */
static size_t capture_rows(const struct capture *capture)
{
    const struct paramem_engine *engine = capture->engine;
    if (on_host(engine)) {
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
    size_t count = capture->cube.tokens, step = capture_rows(capture);
    enum memos_status status = MEMOS_OK;
    uint32_t *slots = words_host_of(engine, 0);

    for (size_t i = 0; i < count; i++) {
        slots[i] = on_host(engine) ? slot_in_blocks(engine, i) : (uint32_t)i;
    }
    kern_upload(engine->model->ctx, words_of(engine, 0), slots, count * sizeof *slots);
    for (size_t from = 0; status == MEMOS_OK && from < count; from += capture->rows) {
        capture->from = from;
        capture->rows = smaller(count - from, step);
        capture->ring_at = 0;
        engine_chunk_run(engine, ids, from, capture->rows, &hooks);
        engine->stats.prompt_tokens += capture->rows;
        status = kern_sync(engine->model->ctx, err);
    }
    return status;
}

/* Let others find what was read. */
static void pages_name(struct paramem_engine *engine, const uint32_t *ids, size_t pages)
{
    struct paramem_key key = paramem_kv_root(engine->cache);
    for (size_t i = 0; engine->prefix_cache && i < pages; i++) {
        uint32_t held = NONE;
        key = paramem_kv_key(&key, ids + i * KERN_PAGE_TOKENS);
        if (paramem_kv_find(engine->cache, &key, &held)) { /* as fresh as if it were this one */
            paramem_kv_release(engine->cache, held);
        } else {
            paramem_kv_name(engine->cache, engine->score_pages[i], &key);
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

static enum memos_status capture_check(const struct paramem_engine *engine, const uint32_t *ids,
    size_t count, enum kern_dtype dtype, struct memos_error *err)
{
    if (engine->lost) {
        return memos_fail(err, MEMOS_IO, "the device failed; make model and engine anew");
    }
    if (paramem_engine_capture_bytes(engine, count, dtype) == 0) {
        return memos_fail(err, MEMOS_INVALID,
            "a capture of %zu tokens as %s; 1 to %zu, as f32, f16, bf16 or e4m3", count,
            kern_dtype_name(dtype), engine->context);
    }
    if (!on_host(engine) && engine->tokens_step < KERN_PAGE_TOKENS) {
        return memos_fail(err, MEMOS_INVALID, "steps of %zu tokens; a capture needs %d",
            engine->tokens_step, KERN_PAGE_TOKENS);
    }
    return engine_ids_check(engine, ids, count, err);
}

enum memos_status paramem_engine_capture(struct paramem_engine *engine, const uint32_t *ids,
    size_t count, enum kern_dtype dtype, void *memory, struct paramem_kv_cube *out,
    struct memos_error *err)
{
    struct capture capture = {.engine = engine};
    struct memos_error own;
    enum memos_status status = capture_check(engine, ids, count, dtype, err);
    if (status == MEMOS_OK) {
        status = room_make(engine, err);
    }
    if (status == MEMOS_OK && !on_host(engine)) {
        status = ring_make(engine, false, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    struct paramem_kv_cube_shape shape = shape_of(engine, count, dtype);
    paramem_kv_cube_begin(&shape, engine->model->info.fingerprint, ids, memory, &capture.cube);
    capture.data = (uint8_t *)memory + (capture.cube.data - (const uint8_t *)memory);
    engine_pages_take(engine, engine_pages_of(count));
    status = capture_run(&capture, ids, &own);
    if (status == MEMOS_OK) {
        pages_name(engine, ids, count / KERN_PAGE_TOKENS);
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

/* Blocks of a cube on their way into pages. */
struct attach {
    struct paramem_engine *engine;
    const struct paramem_kv_cube *cube;
    bool pinned, in_place;
    size_t blocks;      /* that have a page in score_pages */
    size_t fresh;       /* of these, to be filled */
    size_t piece, ring; /* blocks of a piece; pieces of the ring */
    size_t pieces_done;
    struct paramem_attached *told;
};

struct copying {
    const uint8_t *from;
    uint8_t *to;
    size_t bytes;
};

static void copy_part(void *self, size_t index)
{
    const struct copying *copying = self;
    size_t at = index * COPY_BYTES;
    memcpy(copying->to + at, copying->from + at, smaller(copying->bytes - at, COPY_BYTES));
}

/* Where the device can read `count` blocks from `first` on: there already, or on their way. */
static enum memos_status piece_bring(
    struct attach *attach, size_t first, size_t count, uint8_t **out, struct memos_error *err)
{
    struct engine_staging *staging = &attach->engine->staging;
    struct kern_ctx *ctx = attach->engine->model->ctx;
    const uint8_t *from = paramem_kv_cube_block(attach->cube, first).data;
    size_t bytes = count * attach->cube->block_bytes, place = attach->pieces_done++ % attach->ring;
    size_t at = place * attach->piece * attach->cube->block_bytes;
    enum memos_status status = MEMOS_OK;

    if (attach->in_place) {
        *out = (uint8_t *)(uintptr_t)from; /* is read only */
        return MEMOS_OK;
    }
    if (place == 0 && attach->pieces_done > 1) {
        status = kern_sync(ctx, err); /* the ring is still being read */
    }
    if (!attach->pinned) {
        struct copying copying = {from, (uint8_t *)staging->host + at, bytes};
        kern_parallel(ctx, (bytes + COPY_BYTES - 1) / COPY_BYTES, copy_part, &copying);
        from = copying.to;
    }
    *out = (uint8_t *)staging->device + at;
    kern_upload_beside(ctx, *out, from, bytes);
    kern_copies_wait(ctx);
    attach->told->bytes_copied += bytes;
    return status;
}

/* Queue what turns `count` blocks that the device can read into pages, `fresh` of them before. */
static void piece_put(const struct attach *attach, uint8_t *blocks, size_t count, size_t fresh)
{
    struct paramem_engine *engine = attach->engine;
    const struct paramem_decoder_config *config = &engine->model->config;
    const struct kern_kv *cache = paramem_kv_layers(engine->cache);
    size_t width = config->kv_heads * config->head_dim;
    float *key = engine->staging.numbers, *value = key + engine->staging.tokens_max * width;

    for (size_t layer = 0; layer < config->layers; layer++) {
        struct kern_kv from = layer_of(engine, attach->cube->dtype, blocks, count, layer);
        kern_kv_read(engine->model->ctx, &(struct kern_kv_read){.kv = &from,
                                             .slots = words_of(engine, 0),
                                             .key = key,
                                             .value = value,
                                             .t = count * KERN_PAGE_TOKENS});
        kern_kv_write(
            engine->model->ctx, &(struct kern_kv_write){.kv = &cache[layer],
                                    .rope = &engine->model->rope,
                                    .key = key,
                                    .value = value,
                                    .from = KERN_F32,
                                    .positions = words_of(engine, 1) + fresh * KERN_PAGE_TOKENS,
                                    .slots = words_of(engine, 2) + fresh * KERN_PAGE_TOKENS,
                                    .t = count * KERN_PAGE_TOKENS,
                                    .stride = width});
    }
}

/* Pages for blocks, found or taken, as far as there are any; which were taken goes to `fresh`. */
static void pages_hold(struct attach *attach, size_t blocks)
{
    struct paramem_engine *engine = attach->engine;
    struct paramem_key key = paramem_kv_root(engine->cache);
    uint32_t *pages = engine->score_pages, ids[KERN_PAGE_TOKENS];

    for (size_t i = 0; i < blocks; i++) {
        paramem_kv_cube_ids(attach->cube, i * KERN_PAGE_TOKENS, KERN_PAGE_TOKENS, ids);
        key = engine->staging.keys[i] = paramem_kv_key(&key, ids);
        if (!paramem_kv_find(engine->cache, &key, &pages[i])) {
            pages[i] = NONE;
        }
    }
    size_t held = 0;
    for (; held < blocks; held++) {
        if (pages[held] != NONE) {
            attach->told->found += KERN_PAGE_TOKENS;
        } else if (paramem_kv_available(engine->cache) > 0) {
            pages[held] = paramem_kv_take(engine->cache);
            engine->staging.fresh[attach->fresh++] = (uint32_t)held;
        } else {
            break;
        }
    }
    for (size_t i = blocks; i > held; i--) {
        if (pages[i - 1] != NONE) {
            paramem_kv_release(engine->cache, pages[i - 1]);
        }
    }
    attach->blocks = held;
}

/* Where tokens of a piece lie in its first layer; the places of fresh tokens in text and cache. */
static void words_fill(const struct attach *attach)
{
    const struct paramem_engine *engine = attach->engine;
    uint32_t *read = words_host_of(engine, 0), *positions = words_host_of(engine, 1);
    uint32_t *slots = words_host_of(engine, 2);
    size_t tokens = attach->fresh * KERN_PAGE_TOKENS, word = sizeof *read;
    size_t piece = smaller(tokens, attach->piece * KERN_PAGE_TOKENS);

    for (size_t i = 0; i < piece; i++) {
        read[i] = slot_in_blocks(engine, i);
    }
    for (size_t i = 0; i < tokens; i++) {
        uint32_t block = engine->staging.fresh[i / KERN_PAGE_TOKENS];
        uint32_t place = (uint32_t)(i % KERN_PAGE_TOKENS);
        positions[i] = block * KERN_PAGE_TOKENS + place;
        slots[i] = engine->score_pages[block] * KERN_PAGE_TOKENS + place;
    }
    kern_upload(engine->model->ctx, words_of(engine, 0), read, piece * word);
    kern_upload(engine->model->ctx, words_of(engine, 1), positions, tokens * word);
    kern_upload(engine->model->ctx, words_of(engine, 2), slots, tokens * word);
}

/* Fill the fresh pages, by pieces of blocks that are neighbours: while one is turned the next is
 * on its way. */
static enum memos_status pages_fill(struct attach *attach, struct memos_error *err)
{
    const uint32_t *fresh = attach->engine->staging.fresh;
    enum memos_status status = MEMOS_OK;

    words_fill(attach);
    for (size_t at = 0, count = 0; status == MEMOS_OK && at < attach->fresh; at += count) {
        uint8_t *blocks = NULL;
        count = 1;
        while (at + count < attach->fresh && count < attach->piece &&
               fresh[at + count] == fresh[at] + count) {
            count++;
        }
        status = piece_bring(attach, fresh[at], count, &blocks, err);
        piece_put(attach, blocks, count, at);
    }
    enum memos_status synced = kern_sync(attach->engine->model->ctx, status ? NULL : err);
    return status != MEMOS_OK ? status : synced;
}

static void attach_end(struct attach *attach, bool filled)
{
    struct paramem_engine *engine = attach->engine;
    for (size_t i = 0; filled && i < attach->fresh; i++) {
        uint32_t block = engine->staging.fresh[i];
        paramem_kv_name(engine->cache, engine->score_pages[block], &engine->staging.keys[block]);
    }
    engine_pages_give(engine, attach->blocks);
}

static enum memos_status attach_check(const struct paramem_engine *engine,
    const struct paramem_kv_cube *cube, struct memos_error *err)
{
    const struct paramem_decoder_config *config = &engine->model->config;
    const uint8_t *own = engine->model->info.fingerprint, *its = cube->fingerprint;
    if (engine->lost) {
        return memos_fail(err, MEMOS_IO, "the device failed; make model and engine anew");
    }
    if (!engine->prefix_cache) {
        return memos_fail(err, MEMOS_INVALID, "this engine keeps no beginnings of prompts");
    }
    if (memcmp(own, its, 32) != 0) {
        return memos_fail(err, MEMOS_STALE,
            "the capture is of model %02x%02x%02x%02x..., this one is %02x%02x%02x%02x...", its[0],
            its[1], its[2], its[3], own[0], own[1], own[2], own[3]);
    }
    if (cube->layers != config->layers || cube->heads != config->kv_heads ||
        cube->head_dim != config->head_dim) {
        return memos_fail(err, MEMOS_CORRUPT,
            "the capture has %zu layers of %zu heads of %zu; its model has %zu of %zu of %zu",
            cube->layers, cube->heads, cube->head_dim, config->layers, config->kv_heads,
            config->head_dim);
    }
    for (size_t i = 0; i < cube->tokens; i++) {
        uint32_t id;
        paramem_kv_cube_ids(cube, i, 1, &id);
        if (id >= config->vocab) {
            return memos_fail(err, MEMOS_CORRUPT,
                "token %zu of the capture is %u; its model has %zu", i, id, config->vocab);
        }
    }
    return MEMOS_OK;
}

/* Where the blocks are read, and in what pieces. */
static enum memos_status attach_plan(struct attach *attach, struct memos_error *err)
{
    struct paramem_engine *engine = attach->engine;
    size_t block = attach->cube->block_bytes;
    attach->in_place = on_host(engine) && (uintptr_t)attach->cube->data % 256 == 0;
    attach->piece = smaller(PIECE_BYTES / block, engine->staging.tokens_max / KERN_PAGE_TOKENS);
    attach->piece = attach->piece > 0 ? attach->piece : 1;
    attach->ring = 1;
    if (attach->in_place) {
        return MEMOS_OK;
    }
    enum memos_status status = ring_make(engine, !attach->pinned, err);
    if (status == MEMOS_OK) {
        size_t fit = engine->staging.ring_bytes / block;
        attach->piece = smaller(attach->piece, fit);
        attach->ring = fit / attach->piece;
    }
    return status;
}

enum memos_status paramem_engine_attach(struct paramem_engine *engine,
    const struct paramem_attach *attach, struct paramem_attached *out, struct memos_error *err)
{
    const struct paramem_kv_cube *cube = attach->cube;
    struct attach work = {.engine = engine, .cube = cube, .pinned = attach->pinned, .told = out};
    struct memos_error own;
    *out = (struct paramem_attached){0};
    enum memos_status status = attach_check(engine, cube, err);
    if (status == MEMOS_OK) {
        status = room_make(engine, err);
    }
    if (status == MEMOS_OK) {
        status = attach_plan(&work, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    size_t tokens = smaller(cube->tokens, engine->context);
    tokens = attach->tokens_max > 0 ? smaller(tokens, attach->tokens_max) : tokens;
    pages_hold(&work, tokens / KERN_PAGE_TOKENS);
    if (work.fresh > 0) {
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
    out->tokens = work.blocks * KERN_PAGE_TOKENS;
    return MEMOS_OK;
}
