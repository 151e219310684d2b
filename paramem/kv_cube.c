#include "paramem/kv_cube.h"

#include <sodium.h>
#include <string.h>

#define VERSION 1
#define HEADER_BYTES 128
#define SUM_AT 64
#define BEFORE_AT 96
#define HASH_BYTES 32
#define IDS_BYTES (KERN_PAGE_TOKENS * 4) /* of a block */
#define ENTRY_BYTES (PARAMEM_KEY_BYTES + HASH_BYTES)
#define DATA_ALIGNMENT 4096
#define LAYERS_MAX 1024
#define HEADS_MAX 1024

static const char magic[8] = {'m', 'e', 'm', 'o', 's', '-', 'k', 'v'};

/* The numbers in files are these for ever. */
_Static_assert(KERN_F32 == 1 && KERN_F16 == 2 && KERN_BF16 == 3 && KERN_E4M3 == 4, "dtypes");

/* ---- shapes -------------------------------------------------------------------------------- */

static bool shape_is_known(const struct paramem_kv_cube_shape *shape)
{
    return shape->dtype >= KERN_F32 && shape->dtype <= KERN_E4M3 && shape->layers > 0 &&
           shape->layers <= LAYERS_MAX && shape->heads > 0 && shape->heads <= HEADS_MAX &&
           shape->head_dim > 0 && shape->head_dim <= 256 && shape->head_dim % 8 == 0 &&
           shape->tokens > 0 && shape->tokens <= PARAMEM_KV_CUBE_TOKENS_MAX;
}

static size_t blocks_of(size_t tokens)
{
    return (tokens + KERN_PAGE_TOKENS - 1) / KERN_PAGE_TOKENS;
}

/* What stands before the data: at most 2^19 blocks. */
static size_t data_at(size_t blocks)
{
    size_t bytes = HEADER_BYTES + blocks * (IDS_BYTES + ENTRY_BYTES);
    return (bytes + DATA_ALIGNMENT - 1) / DATA_ALIGNMENT * DATA_ALIGNMENT;
}

uint64_t paramem_kv_cube_bytes(const struct paramem_kv_cube_shape *shape)
{
    if (!shape_is_known(shape)) {
        return 0;
    }
    /* below 2^56 for the largest of everything */
    uint64_t page = kern_kv_page_bytes(shape->dtype, shape->heads, shape->head_dim);
    size_t blocks = blocks_of(shape->tokens);
    return data_at(blocks) + page * shape->layers * blocks;
}

static void view_make(const struct paramem_kv_cube_shape *shape, struct memos_bytes bytes,
    struct paramem_kv_cube *out)
{
    const uint8_t *at = bytes.data;
    size_t blocks = blocks_of(shape->tokens);
    size_t page = kern_kv_page_bytes(shape->dtype, shape->heads, shape->head_dim);
    *out = (struct paramem_kv_cube){.bytes = bytes,
        .dtype = shape->dtype,
        .layers = shape->layers,
        .heads = shape->heads,
        .head_dim = shape->head_dim,
        .tokens = shape->tokens,
        .blocks = blocks,
        .page_bytes = page,
        .block_bytes = page * shape->layers,
        .fingerprint = at + 32,
        .before = at + BEFORE_AT,
        .ids = at + HEADER_BYTES,
        .table = at + HEADER_BYTES + blocks * IDS_BYTES,
        .data = at + data_at(blocks)};
}

/* ---- parts --------------------------------------------------------------------------------- */

static bool all_zero(const uint8_t *at, size_t size)
{
    uint8_t any = 0;
    for (size_t i = 0; i < size; i++) {
        any |= at[i];
    }
    return any == 0;
}

void paramem_kv_cube_ids(
    const struct paramem_kv_cube *cube, size_t first, size_t count, uint32_t *out)
{
    memos_assert(first <= cube->tokens && count <= cube->tokens - first);
    struct memos_reader reader =
        memos_reader_of(memos_bytes_make(cube->ids + 4 * first, 4 * count));
    for (size_t i = 0; i < count; i++) {
        out[i] = memos_read_u32(&reader);
    }
}

struct paramem_key paramem_kv_cube_key(const struct paramem_kv_cube *cube, size_t block)
{
    struct paramem_key key;
    memos_assert(block < cube->blocks);
    memcpy(key.bytes, cube->table + block * ENTRY_BYTES, sizeof key.bytes);
    return key;
}

struct memos_bytes paramem_kv_cube_block(const struct paramem_kv_cube *cube, size_t block)
{
    memos_assert(block < cube->blocks);
    return memos_bytes_make(cube->data + block * cube->block_bytes, cube->block_bytes);
}

const uint8_t *paramem_kv_cube_sum(const struct paramem_kv_cube *cube)
{
    return (const uint8_t *)cube->bytes.data + SUM_AT;
}

bool paramem_kv_cube_continues(const struct paramem_kv_cube *cube)
{
    return !all_zero(cube->before, PARAMEM_KEY_BYTES);
}

struct paramem_key paramem_kv_cube_before(const struct paramem_kv_cube *cube)
{
    struct paramem_key key;
    if (!paramem_kv_cube_continues(cube)) {
        return paramem_kv_root_of(cube->fingerprint, cube->dtype);
    }
    memcpy(key.bytes, cube->before, sizeof key.bytes);
    return key;
}

bool paramem_kv_cube_stands(const struct paramem_kv_cube *cube)
{
    const volatile uint8_t *at = cube->bytes.data; /* another process may write it */
    bool stands = true;
#ifndef __SANITIZE_THREAD__ /* which knows no fences, nor other processes */
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
#endif
    for (size_t i = 0; i < sizeof magic; i++) {
        stands = stands && at[i] == (uint8_t)magic[i];
    }
    return stands;
}

/* The key of block `block`, from its ids and the key before it. */
static struct paramem_key key_of(
    const struct paramem_kv_cube *cube, const struct paramem_key *before, size_t block)
{
    uint32_t ids[KERN_PAGE_TOKENS];
    size_t first = block * KERN_PAGE_TOKENS, left = cube->tokens - first;
    size_t count = left < KERN_PAGE_TOKENS ? left : KERN_PAGE_TOKENS;
    paramem_kv_cube_ids(cube, first, count, ids);
    return paramem_kv_key_of(before, ids, count);
}

static void block_sum(const struct paramem_kv_cube *cube, size_t block, uint8_t out[HASH_BYTES])
{
    struct memos_bytes bytes = paramem_kv_cube_block(cube, block);
    (void)crypto_generichash(out, HASH_BYTES, bytes.data, bytes.size, NULL, 0);
}

/* Of all before the data, without the place where it stands. */
static void header_sum(const struct paramem_kv_cube *cube, uint8_t out[HASH_BYTES])
{
    const uint8_t *at = cube->bytes.data;
    size_t after = SUM_AT + HASH_BYTES;
    crypto_generichash_state state;
    (void)crypto_generichash_init(&state, NULL, 0, HASH_BYTES);
    (void)crypto_generichash_update(&state, at, SUM_AT);
    (void)crypto_generichash_update(&state, at + after, (size_t)(cube->data - at) - after);
    (void)crypto_generichash_final(&state, out, HASH_BYTES);
}

/* ---- writing ------------------------------------------------------------------------------- */

static void put_u32(uint8_t *at, size_t value)
{
    for (size_t i = 0; i < 4; i++) {
        at[i] = (uint8_t)(value >> 8 * i);
    }
}

void paramem_kv_cube_begin(const struct paramem_kv_cube_shape *shape, const uint8_t *fingerprint,
    const struct paramem_key *before, const uint32_t *ids, void *memory,
    struct paramem_kv_cube *out)
{
    uint8_t *at = memory;
    const size_t numbers[] = {
        VERSION, shape->dtype, shape->layers, shape->heads, shape->head_dim, shape->tokens};
    memos_assert(sodium_init() >= 0);
    memos_assert(shape_is_known(shape) && (uintptr_t)memory % 256 == 0);
    view_make(shape, memos_bytes_make(memory, (size_t)paramem_kv_cube_bytes(shape)), out);
    memset(at, 0, (size_t)(out->data - at));
    memcpy(at, magic, sizeof magic);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        put_u32(at + sizeof magic + 4 * i, numbers[i]);
    }
    memcpy(at + 32, fingerprint, 32);
    if (before) {
        memcpy(at + BEFORE_AT, before->bytes, sizeof before->bytes);
    }
    for (size_t i = 0; i < shape->tokens; i++) {
        put_u32(at + HEADER_BYTES + 4 * i, ids[i]);
    }
    struct paramem_key key = paramem_kv_cube_before(out);
    uint8_t *table = at + (out->table - at);
    for (size_t i = 0; i < out->blocks; i++) {
        key = key_of(out, &key, i);
        memcpy(table + i * ENTRY_BYTES, key.bytes, sizeof key.bytes);
    }
    if (shape->tokens % KERN_PAGE_TOKENS != 0) {
        memset(at + (out->bytes.size - out->block_bytes), 0, out->block_bytes);
    }
}

struct sealing {
    const struct paramem_kv_cube *cube;
    uint8_t *table;
};

static void seal_block(void *self, size_t index)
{
    struct sealing *sealing = self;
    block_sum(sealing->cube, index, sealing->table + index * ENTRY_BYTES + PARAMEM_KEY_BYTES);
}

static void for_blocks(const struct paramem_kv_cube *cube, struct kern_ctx *ctx,
    void (*fn)(void *self, size_t index), void *self)
{
    if (ctx) {
        kern_parallel(ctx, cube->blocks, fn, self);
        return;
    }
    for (size_t i = 0; i < cube->blocks; i++) {
        fn(self, i);
    }
}

void paramem_kv_cube_seal(const struct paramem_kv_cube *cube, void *memory, struct kern_ctx *ctx)
{
    uint8_t *at = memory;
    memos_assert(memory == cube->bytes.data);
    struct sealing sealing = {cube, at + (cube->table - at)};
    for_blocks(cube, ctx, seal_block, &sealing);
    header_sum(cube, at + SUM_AT);
}

/* ---- reading ------------------------------------------------------------------------------- */

static enum memos_status header_read(
    struct memos_bytes bytes, struct paramem_kv_cube_shape *out, struct memos_error *err)
{
    struct memos_reader reader = memos_reader_of(bytes);
    struct memos_bytes begin = memos_read_bytes(&reader, sizeof magic);
    if (bytes.size < HEADER_BYTES || memcmp(begin.data, magic, sizeof magic) != 0) {
        return memos_fail(
            err, MEMOS_CORRUPT, "%zu bytes that do not begin as a capture of keys", bytes.size);
    }
    uint32_t version = memos_read_u32(&reader);
    if (version != VERSION) {
        return memos_fail(
            err, MEMOS_UNSUPPORTED, "a capture of version %u; %d is known", version, VERSION);
    }
    uint32_t dtype = memos_read_u32(&reader);
    out->dtype = dtype >= KERN_F32 && dtype <= KERN_E4M3 ? (enum kern_dtype)dtype : 0;
    out->layers = memos_read_u32(&reader);
    out->heads = memos_read_u32(&reader);
    out->head_dim = memos_read_u32(&reader);
    out->tokens = memos_read_u32(&reader);
    uint64_t size = paramem_kv_cube_bytes(out);
    if (size == 0) {
        return memos_fail(err, MEMOS_CORRUPT,
            "a capture of type %u, %zu layers, %zu heads of %zu, %zu tokens", dtype, out->layers,
            out->heads, out->head_dim, out->tokens);
    }
    if (size != bytes.size) {
        return memos_fail(err, MEMOS_CORRUPT, "a capture of %zu bytes; %zu tokens need %llu",
            bytes.size, out->tokens, (unsigned long long)size);
    }
    return MEMOS_OK;
}

/* What must be zero, and the chain of keys. */
static enum memos_status parts_check(const struct paramem_kv_cube *cube, struct memos_error *err)
{
    const uint8_t *ids_end = cube->ids + 4 * cube->tokens;
    const uint8_t *table_end = cube->table + cube->blocks * ENTRY_BYTES;
    if (!all_zero(ids_end, (size_t)(cube->table - ids_end)) ||
        !all_zero(table_end, (size_t)(cube->data - table_end))) {
        return memos_fail(err, MEMOS_CORRUPT, "a capture with bytes where zeros belong");
    }
    struct paramem_key key = paramem_kv_cube_before(cube);
    for (size_t i = 0; i < cube->blocks; i++) {
        key = key_of(cube, &key, i);
        if (memcmp(key.bytes, cube->table + i * ENTRY_BYTES, sizeof key.bytes) != 0) {
            return memos_fail(err, MEMOS_CORRUPT,
                "block %zu of %zu of a capture has not the key of its tokens", i, cube->blocks);
        }
    }
    return MEMOS_OK;
}

enum memos_status paramem_kv_cube_read(
    struct memos_bytes bytes, struct paramem_kv_cube *out, struct memos_error *err)
{
    struct paramem_kv_cube_shape shape;
    uint8_t sum[HASH_BYTES];
    memos_assert(sodium_init() >= 0);
    enum memos_status status = header_read(bytes, &shape, err);
    if (status != MEMOS_OK) {
        return status;
    }
    view_make(&shape, bytes, out);
    header_sum(out, sum);
    if (memcmp(sum, (const uint8_t *)bytes.data + SUM_AT, sizeof sum) != 0) {
        return memos_fail(
            err, MEMOS_CORRUPT, "a capture of %zu tokens: its header is damaged", shape.tokens);
    }
    return parts_check(out, err);
}

/* ---- the blocks ---------------------------------------------------------------------------- */

/* Is there one of count numbers of 32, 16 or 8 bits whose bits of `mask` are all set? That is what
 * NaN and infinity are in every type here. */
static bool any_u32(const uint8_t *at, size_t count, uint32_t mask)
{
    uint32_t any = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t x;
        memcpy(&x, at + 4 * i, sizeof x);
        any |= (x & mask) == mask;
    }
    return any;
}

static bool any_u16(const uint8_t *at, size_t count, uint16_t mask)
{
    uint16_t any = 0;
    for (size_t i = 0; i < count; i++) {
        uint16_t x;
        memcpy(&x, at + 2 * i, sizeof x);
        any |= (x & mask) == mask;
    }
    return any;
}

static bool any_u8(const uint8_t *at, size_t count, uint8_t mask)
{
    uint8_t any = 0;
    for (size_t i = 0; i < count; i++) {
        any |= (at[i] & mask) == mask;
    }
    return any;
}

static bool page_is_finite(const struct paramem_kv_cube *cube, const uint8_t *page)
{
    size_t numbers = 2 * cube->heads * KERN_PAGE_TOKENS * cube->head_dim;
    switch (cube->dtype) {
    case KERN_F32:
        return !any_u32(page, numbers, 0x7f800000);
    case KERN_F16:
        return !any_u16(page, numbers, 0x7c00);
    case KERN_BF16:
        return !any_u16(page, numbers, 0x7f80);
    default:
        return !any_u8(page, numbers, 0x7f) &&
               !any_u32(page + numbers, 2 * cube->heads * KERN_PAGE_TOKENS, 0x7f800000);
    }
}

struct checking {
    const struct paramem_kv_cube *cube;
    bool finite;
    size_t damaged, infinite; /* a block each, or SIZE_MAX; Sync: atomic */
};

/* Keep the first of all that are found. */
static void first_put(size_t *place, size_t block)
{
    size_t now = __atomic_load_n(place, __ATOMIC_RELAXED);
    while (block < now && !__atomic_compare_exchange_n(
                              place, &now, block, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
}

static void check_block(void *self, size_t index)
{
    struct checking *checking = self;
    const struct paramem_kv_cube *cube = checking->cube;
    const uint8_t *data = paramem_kv_cube_block(cube, index).data;
    uint8_t sum[HASH_BYTES];
    block_sum(cube, index, sum);
    if (memcmp(sum, cube->table + index * ENTRY_BYTES + PARAMEM_KEY_BYTES, sizeof sum) != 0) {
        first_put(&checking->damaged, index);
        return;
    }
    for (size_t layer = 0; checking->finite && layer < cube->layers; layer++) {
        if (!page_is_finite(cube, data + layer * cube->page_bytes)) {
            first_put(&checking->infinite, index);
        }
    }
}

enum memos_status paramem_kv_cube_check(
    const struct paramem_kv_cube *cube, struct kern_ctx *ctx, bool finite, struct memos_error *err)
{
    struct checking checking = {cube, finite, SIZE_MAX, SIZE_MAX};
    for_blocks(cube, ctx, check_block, &checking);
    if (checking.damaged != SIZE_MAX) {
        return memos_fail(err, MEMOS_CORRUPT, "block %zu of %zu of a capture is damaged",
            checking.damaged, cube->blocks);
    }
    if (checking.infinite != SIZE_MAX) {
        return memos_fail(err, MEMOS_CORRUPT, "block %zu of %zu of a capture holds NaN or infinity",
            checking.infinite, cube->blocks);
    }
    return MEMOS_OK;
}
