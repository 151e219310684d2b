/* Blocks of captures on their way into the cache's pages, and the room that this needs.
 *
 * Blocks are read as a cache is (kern_kv_read): where device memory is the process's own, in place;
 * else by a ring of pieces, of which one is on its way while the one before is turned. */
#include "paramem/engine_internal.h"

#include <stdlib.h>
#include <string.h>

#define RING_BYTES ((size_t)128 << 20)
#define PIECE_BYTES ((size_t)16 << 20)
#define PIECE_TOKENS 2048
#define COPY_BYTES ((size_t)1 << 20) /* that a thread copies at once */

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

bool engine_on_host(const struct paramem_engine *engine)
{
    return kern_memory_is_host(engine->model->ctx);
}

static void arrays_free(struct engine_staging *staging)
{
    free(staging->words_host);
    free(staging->keys);
    free(staging->blocks);
    staging->words_host = NULL;
    staging->keys = NULL;
    staging->blocks = NULL;
}

enum memos_status engine_room_make(struct paramem_engine *engine, struct memos_error *err)
{
    const struct paramem_decoder_config *config = &engine->model->config;
    struct engine_staging *staging = &engine->staging;
    struct kern_ctx *ctx = engine->model->ctx;
    /* A text of a context lies in one block more when it does not begin with one. */
    size_t tokens = (engine_pages_of(engine->context) + 1) * KERN_PAGE_TOKENS;
    size_t words = tokens > engine->tokens_step ? tokens : engine->tokens_step;
    enum memos_status status = MEMOS_OK;

    staging->words_count = words;
    staging->tokens_max = smaller(tokens, PIECE_TOKENS);
    if (!staging->words_host) {
        staging->words_host = calloc(ENGINE_WORDS * words, sizeof *staging->words_host);
        staging->keys = calloc(tokens / KERN_PAGE_TOKENS, sizeof *staging->keys);
        staging->blocks = calloc(tokens / KERN_PAGE_TOKENS, sizeof *staging->blocks);
    }
    if (!staging->words_host || !staging->keys || !staging->blocks) {
        arrays_free(staging);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for slots of %zu tokens", words);
    }
    if (!staging->words) {
        status = kern_alloc(ctx, ENGINE_WORDS * words * sizeof(uint32_t), &staging->words, err);
    }
    if (status == MEMOS_OK && !staging->numbers) {
        size_t numbers = 2 * staging->tokens_max * config->kv_heads * config->head_dim;
        status = kern_alloc(ctx, numbers * sizeof(float), &staging->numbers, err);
    }
    return status;
}

enum memos_status engine_ring_make(
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

uint32_t *engine_words(const struct paramem_engine *engine, size_t index)
{
    return (uint32_t *)engine->staging.words + index * engine->staging.words_count;
}

uint32_t *engine_words_host(const struct paramem_engine *engine, size_t index)
{
    return engine->staging.words_host + index * engine->staging.words_count;
}

struct kern_kv engine_blocks_layer(const struct paramem_engine *engine, enum kern_dtype dtype,
    uint8_t *blocks, size_t blocks_count, size_t layer)
{
    const struct paramem_decoder_config *config = &engine->model->config;
    return (struct kern_kv){.pages = blocks + layer * page_bytes(engine, dtype),
        .pages_count = blocks_count * config->layers - layer,
        .heads = config->kv_heads,
        .head_dim = config->head_dim,
        .dtype = dtype};
}

uint32_t engine_blocks_slot(const struct paramem_engine *engine, size_t token)
{
    size_t page = token / KERN_PAGE_TOKENS * engine->model->config.layers;
    return (uint32_t)(page * KERN_PAGE_TOKENS + token % KERN_PAGE_TOKENS);
}

/* ---- into pages ---------------------------------------------------------------------------- */

enum memos_status engine_blocks_check(const struct paramem_engine *engine,
    const struct paramem_kv_cube *cube, struct memos_error *err)
{
    const struct paramem_decoder_config *config = &engine->model->config;
    const uint8_t *own = engine->model->info.fingerprint, *its = cube->fingerprint;
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
    return MEMOS_OK;
}

enum memos_status engine_blocks_plan(
    struct paramem_engine *engine, struct engine_blocks *blocks, struct memos_error *err)
{
    size_t block = blocks->cube->block_bytes;
    enum memos_status status = engine_room_make(engine, err);
    if (status != MEMOS_OK) {
        return status;
    }
    blocks->in_place = engine_on_host(engine) && (uintptr_t)blocks->cube->data % 256 == 0;
    blocks->piece = smaller(PIECE_BYTES / block, engine->staging.tokens_max / KERN_PAGE_TOKENS);
    blocks->piece = blocks->piece > 0 ? blocks->piece : 1;
    blocks->ring = 1;
    if (blocks->in_place) {
        return MEMOS_OK;
    }
    status = engine_ring_make(engine, !blocks->pinned, err);
    if (status == MEMOS_OK) {
        size_t fit = engine->staging.ring_bytes / block;
        blocks->piece = smaller(blocks->piece, fit);
        blocks->ring = fit / blocks->piece;
    }
    return status;
}

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
static enum memos_status piece_bring(struct paramem_engine *engine, struct engine_blocks *blocks,
    size_t first, size_t count, uint8_t **out, struct memos_error *err)
{
    struct engine_staging *staging = &engine->staging;
    struct kern_ctx *ctx = engine->model->ctx;
    const uint8_t *from = paramem_kv_cube_block(blocks->cube, first).data;
    size_t bytes = count * blocks->cube->block_bytes, place = blocks->pieces++ % blocks->ring;
    size_t at = place * blocks->piece * blocks->cube->block_bytes;
    enum memos_status status = MEMOS_OK;

    if (blocks->in_place) {
        *out = (uint8_t *)(uintptr_t)from; /* is read only */
        return MEMOS_OK;
    }
    if (place == 0 && blocks->pieces > 1) {
        status = kern_sync(ctx, err); /* the ring is still being read */
    }
    if (!blocks->pinned) {
        struct copying copying = {from, (uint8_t *)staging->host + at, bytes};
        kern_parallel(ctx, (bytes + COPY_BYTES - 1) / COPY_BYTES, copy_part, &copying);
        from = copying.to;
    }
    *out = (uint8_t *)staging->device + at;
    kern_upload_beside(ctx, *out, from, bytes);
    kern_copies_wait(ctx);
    blocks->bytes_copied += bytes;
    return status;
}

/* Queue what turns `count` blocks that the device can read, and writes them where the words of
 * those from `at` on say. */
static void piece_put(
    struct paramem_engine *engine, enum kern_dtype dtype, uint8_t *piece, size_t count, size_t at)
{
    const struct paramem_decoder_config *config = &engine->model->config;
    const struct kern_kv *cache = paramem_kv_layers(engine->cache);
    size_t width = config->kv_heads * config->head_dim;
    float *key = engine->staging.numbers, *value = key + engine->staging.tokens_max * width;

    for (size_t layer = 0; layer < config->layers; layer++) {
        struct kern_kv from = engine_blocks_layer(engine, dtype, piece, count, layer);
        kern_kv_read(engine->model->ctx, &(struct kern_kv_read){.kv = &from,
                                             .slots = engine_words(engine, 0),
                                             .key = key,
                                             .value = value,
                                             .t = count * KERN_PAGE_TOKENS});
        kern_kv_write(
            engine->model->ctx, &(struct kern_kv_write){.kv = &cache[layer],
                                    .rope = &engine->model->rope,
                                    .key = key,
                                    .value = value,
                                    .from = KERN_F32,
                                    .positions = engine_words(engine, 1) + at * KERN_PAGE_TOKENS,
                                    .slots = engine_words(engine, 2) + at * KERN_PAGE_TOKENS,
                                    .t = count * KERN_PAGE_TOKENS,
                                    .stride = width});
    }
}

/* Where tokens of a piece lie in its first layer, and the words that say where they go. */
static void words_send(const struct paramem_engine *engine, const struct engine_blocks *blocks)
{
    size_t tokens = blocks->count * KERN_PAGE_TOKENS;
    size_t piece = smaller(tokens, blocks->piece * KERN_PAGE_TOKENS);
    uint32_t *read = engine_words_host(engine, 0);

    for (size_t i = 0; i < piece; i++) {
        read[i] = engine_blocks_slot(engine, i);
    }
    kern_upload(engine->model->ctx, engine_words(engine, 0), read, piece * sizeof *read);
    for (size_t i = 1; i < ENGINE_WORDS; i++) {
        kern_upload(engine->model->ctx, engine_words(engine, i), engine_words_host(engine, i),
            tokens * sizeof *read);
    }
}

enum memos_status engine_blocks_put(
    struct paramem_engine *engine, struct engine_blocks *blocks, struct memos_error *err)
{
    const uint32_t *which = engine->staging.blocks;
    enum memos_status status = MEMOS_OK;

    words_send(engine, blocks);
    for (size_t at = 0, count = 0; status == MEMOS_OK && at < blocks->count; at += count) {
        uint8_t *piece = NULL;
        count = 1;
        while (at + count < blocks->count && count < blocks->piece &&
               which[at + count] == which[at] + count) {
            count++;
        }
        status = piece_bring(engine, blocks, which[at], count, &piece, err);
        piece_put(engine, blocks->cube->dtype, piece, count, at);
    }
    enum memos_status synced = kern_sync(engine->model->ctx, status ? NULL : err);
    return status != MEMOS_OK ? status : synced;
}
