#include "paramem/weights.h"

#include "paramem/digests.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_BYTES 256
#define PIECE_BYTES ((size_t)1 << 20)
#define SLICE_BYTES ((size_t)1 << 14)
#define HASH_BYTES PARAMEM_DIGEST_BYTES

struct paramem_loader paramem_loader_make(
    paramem_weight_find *find, const void *files, size_t used_max, struct memos_error *err)
{
    struct paramem_loader loader = {.find = find,
        .files = files,
        .prefix = "",
        .used_max = used_max,
        .hashes = memos_buffer_make(SIZE_MAX / 2),
        .status = MEMOS_OK,
        .err = err};
    memos_assert(sodium_init() >= 0); /* picks its fastest BLAKE2b */
    loader.used = calloc(used_max, sizeof *loader.used);
    if (!loader.used) {
        loader.status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu tensors", used_max);
    }
    return loader;
}

void paramem_loader_finish(struct paramem_loader *loader)
{
    free(loader->used);
    loader->used = NULL;
    memos_buffer_free(&loader->hashes);
}

/* ---- looking tensors up -------------------------------------------------------------------- */

static enum kern_dtype dtype_of(enum paramem_dtype dtype)
{
    switch (dtype) {
    case PARAMEM_F32:
        return KERN_F32;
    case PARAMEM_F16:
        return KERN_F16;
    case PARAMEM_BF16:
        return KERN_BF16;
    default:
        return 0;
    }
}

bool paramem_weight_of_tensors(const void *files, const char *name, struct paramem_weight *out)
{
    const struct paramem_tensor *tensor = paramem_tensors_find(files, name);
    if (!tensor) {
        return false;
    }
    *out = (struct paramem_weight){.name = memos_bytes_of(tensor->name),
        .dtype = dtype_of(tensor->dtype),
        .type = paramem_dtype_name(tensor->dtype),
        .stored = tensor->dtype,
        .rank = tensor->rank,
        .count = tensor->count,
        .bytes = tensor->bytes,
        .data = tensor->data};
    memcpy(out->shape, tensor->shape, sizeof out->shape);
    return true;
}

bool paramem_weight_of_gguf(const void *files, const char *name, struct paramem_weight *out)
{
    const struct paramem_gguf_tensor *tensor = paramem_gguf_tensor_find(files, name);
    if (!tensor) {
        return false;
    }
    *out = (struct paramem_weight){.name = tensor->name,
        .dtype = tensor->dtype,
        .type = paramem_gguf_type_name(tensor->type_number),
        .stored = tensor->type_number,
        .rank = tensor->rank,
        .count = tensor->count,
        .bytes = tensor->bytes,
        .data = tensor->data};
    memcpy(out->shape, tensor->shape, sizeof tensor->shape);
    return true;
}

static void shape_check(struct paramem_loader *loader, const char *name,
    const struct paramem_weight *weight, size_t rows, size_t columns)
{
    size_t rank = rows == 0 ? 1 : 2;
    bool good = weight->rank == rank && weight->shape[rank - 1] == columns &&
                (rank == 1 || weight->shape[0] == rows);
    if (!good) {
        loader->status = memos_fail(loader->err, MEMOS_CORRUPT,
            "%s: %zu dimensions of %zu, %zu; the configuration says %zu, %zu", name, weight->rank,
            weight->rank > 0 ? weight->shape[0] : 0, weight->rank > 1 ? weight->shape[1] : 0,
            rank == 1 ? columns : rows, rank == 1 ? (size_t)0 : columns);
    } else if (weight->dtype == 0) {
        loader->status = memos_fail(loader->err, MEMOS_UNSUPPORTED,
            "%s: dtype %s; F32, F16 and BF16 work, and GGUF's Q8_0, Q4_0, Q4_K and Q6_K", name,
            weight->type);
    }
}

/* prefix, name with its %zu replaced. */
static void name_make(char out[NAME_BYTES], const char *prefix, const char *name, size_t index)
{
    const char *mark = strstr(name, "%zu");
    int size = mark ? snprintf(out, NAME_BYTES, "%s%.*s%zu%s", prefix, (int)(mark - name), name,
                          index, mark + 3)
                    : snprintf(out, NAME_BYTES, "%s%s", prefix, name);
    memos_assert(size > 0 && size < NAME_BYTES);
}

bool paramem_loader_has(const struct paramem_loader *loader, const char *name)
{
    char full[NAME_BYTES];
    struct paramem_weight weight;
    name_make(full, loader->prefix, name, 0);
    return loader->find(loader->files, full, &weight);
}

const struct paramem_weight *paramem_loader_get(
    struct paramem_loader *loader, const char *name, size_t index, size_t rows, size_t columns)
{
    char full[NAME_BYTES];
    if (loader->status != MEMOS_OK) {
        return NULL;
    }
    memos_assert(loader->used_count < loader->used_max);
    struct paramem_weight *weight = &loader->used[loader->used_count];
    name_make(full, loader->prefix, name, index);
    if (!loader->find(loader->files, full, weight)) {
        loader->status = memos_fail(loader->err, MEMOS_CORRUPT, "the tensor %s is missing", full);
        return NULL;
    }
    shape_check(loader, full, weight, rows, columns);
    if (loader->status != MEMOS_OK) {
        return NULL;
    }
    loader->used_count++;
    return weight;
}

/* ---- the pass over the numbers ------------------------------------------------------------- */

struct piece {
    const struct paramem_weight *weight;
    const uint8_t *data;
    size_t bytes;
    bool finite;
    uint8_t *hash;
};

struct pieces {
    struct piece *at;
    size_t count;
};

/* NaN and infinity have all bits of the exponent set: then, and only then, the lowest of them added
 * once more carries into the sign's place, which was cleared. 64 bits of numbers at a time, as
 * every lane keeps its carry; exponent and one are of all lanes. */
static bool words_finite(const uint8_t *data, size_t bytes, uint64_t exponent, uint64_t one)
{
    const uint64_t sign = exponent + one;
    uint64_t found = 0, word, last = 0;
    size_t whole = bytes / sizeof word * sizeof word;
    for (size_t i = 0; i < whole; i += sizeof word) {
        memcpy(&word, data + i, sizeof word);
        found |= (word & exponent) + one;
    }
    memcpy(&last, data + whole, bytes - whole);
    return ((found | ((last & exponent) + one)) & sign) == 0;
}

/* Of blocks, whose codes are finite: their f16 scale at byte `at`. */
static bool finite_scales(const uint8_t *data, size_t bytes, size_t block, size_t at)
{
    uint16_t found = 0;
    for (size_t i = at; i < bytes; i += block) {
        uint16_t scale = (uint16_t)(data[i] | data[i + 1] << 8);
        found |= (uint16_t)((scale & 0x7C00) == 0x7C00);
    }
    return found == 0;
}

static bool numbers_finite(enum kern_dtype dtype, const void *data, size_t bytes)
{
    size_t block = kern_dtype_row_bytes(dtype, kern_dtype_block(dtype));
    switch (dtype) {
    case KERN_F32:
        return words_finite(
            data, bytes, UINT64_C(0x7F8000007F800000), UINT64_C(0x0080000000800000));
    case KERN_BF16:
        return words_finite(
            data, bytes, UINT64_C(0x7F807F807F807F80), UINT64_C(0x0080008000800080));
    case KERN_F16:
        return words_finite(
            data, bytes, UINT64_C(0x7C007C007C007C00), UINT64_C(0x0400040004000400));
    case KERN_Q4_K: /* a scale and a minimum */
        return finite_scales(data, bytes, block, 0) && finite_scales(data, bytes, block, 2);
    case KERN_Q6_K: /* its scale stands last */
        return finite_scales(data, bytes, block, block - 2);
    default:
        return finite_scales(data, bytes, block, 0);
    }
}

/* Pieces that are hashed together. */
struct group {
    struct piece *pieces;
    size_t count;
};

static void group_look(void *self, size_t from, size_t size)
{
    struct group *group = self;
    for (size_t i = 0; i < group->count; i++) {
        struct piece *piece = &group->pieces[i];
        piece->finite =
            piece->finite && numbers_finite(piece->weight->dtype, piece->data + from, size);
    }
}

static size_t block_bytes(const struct paramem_weight *weight)
{
    return kern_dtype_row_bytes(weight->dtype, kern_dtype_block(weight->dtype));
}

/* What is looked at and then hashed, while it is in a core's cache: whole blocks and a multiple of
 * 128, as a block has an even number of bytes, at most 256. */
static size_t slice_bytes(const struct paramem_weight *weight)
{
    size_t step = 64 * block_bytes(weight);
    return SLICE_BYTES / step * step;
}

/* Are the pieces of one kind and size, as a group's have to be? */
static bool pieces_alike(const struct piece *a, const struct piece *b)
{
    return a->weight->dtype == b->weight->dtype && a->bytes == b->bytes;
}

static void pieces_check(void *self, size_t index)
{
    struct pieces *all = self;
    size_t first = index * PARAMEM_DIGESTS_LANES, left = all->count - first;
    size_t end = first + (left < PARAMEM_DIGESTS_LANES ? left : PARAMEM_DIGESTS_LANES);
    while (first < end) {
        const uint8_t *data[PARAMEM_DIGESTS_LANES];
        uint8_t *hashes[PARAMEM_DIGESTS_LANES];
        struct group group = {&all->at[first], 0};
        for (; first < end && pieces_alike(group.pieces, &all->at[first]); first++) {
            data[group.count] = all->at[first].data;
            hashes[group.count++] = all->at[first].hash;
        }
        paramem_digests(data, group.count, group.pieces->bytes, slice_bytes(group.pieces->weight),
            group_look, &group, hashes);
    }
}

/* Pieces are whole blocks. */
static size_t piece_bytes(const struct paramem_weight *weight)
{
    size_t block = block_bytes(weight);
    return PIECE_BYTES / block * block;
}

static size_t pieces_of(const struct paramem_weight *weight)
{
    size_t bytes = piece_bytes(weight);
    return weight->bytes / bytes + (weight->bytes % bytes != 0);
}

/* All pieces of tensors up to `to`, those of the whole size first: they are alike. */
static void pieces_cut(
    const struct paramem_loader *loader, size_t to, uint8_t *hashes, struct pieces *out)
{
    for (int whole = 1; whole >= 0; whole--) {
        uint8_t *hash = hashes;
        for (size_t i = loader->checked_count; i < to; i++) {
            const struct paramem_weight *weight = &loader->used[i];
            size_t most = piece_bytes(weight);
            for (size_t done = 0; done < weight->bytes; done += most, hash += HASH_BYTES) {
                size_t left = weight->bytes - done;
                if ((left >= most) == (whole == 1)) {
                    out->at[out->count++] = (struct piece){.weight = weight,
                        .data = (const uint8_t *)weight->data + done,
                        .bytes = left < most ? left : most,
                        .finite = true,
                        .hash = hash};
                }
            }
        }
    }
}

static enum memos_status finite_check(const struct pieces *pieces, struct memos_error *err)
{
    for (size_t i = 0; i < pieces->count; i++) {
        if (!pieces->at[i].finite) {
            struct memos_bytes name = pieces->at[i].weight->name;
            return memos_fail(err, MEMOS_CORRUPT, "%.*s holds a NaN or an infinity",
                (int)(name.size < 100 ? name.size : 100), (const char *)name.data);
        }
    }
    return MEMOS_OK;
}

enum memos_status paramem_loader_check(
    struct paramem_loader *loader, struct kern_ctx *ctx, size_t count)
{
    size_t total = 0;
    if (loader->status != MEMOS_OK) {
        return loader->status;
    }
    memos_assert(count <= loader->used_count && count >= loader->checked_count);
    for (size_t i = loader->checked_count; i < count; i++) {
        total += pieces_of(&loader->used[i]);
    }
    struct pieces pieces = {.at = calloc(total + 1, sizeof *pieces.at)};
    uint8_t *hashes = memos_buffer_take(&loader->hashes, total * HASH_BYTES);
    if (!pieces.at || (total > 0 && !hashes)) {
        free(pieces.at);
        loader->status = memos_fail(loader->err, MEMOS_NO_MEMORY, "no memory to check the weights");
        return loader->status;
    }
    pieces_cut(loader, count, hashes, &pieces);
    memos_assert(pieces.count == total);
    kern_parallel(
        ctx, (total + PARAMEM_DIGESTS_LANES - 1) / PARAMEM_DIGESTS_LANES, pieces_check, &pieces);
    loader->status = finite_check(&pieces, loader->err);
    loader->checked_count = count;
    free(pieces.at);
    return loader->status;
}

static void hash_size(crypto_generichash_state *state, uint64_t value)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)(value >> 8 * i);
    }
    (void)crypto_generichash_update(state, bytes, sizeof bytes);
}

/* The names are without the prefix, which says nothing of the weights. */
void paramem_loader_digest(const struct paramem_loader *loader, uint8_t out[32])
{
    crypto_generichash_state state;
    const uint8_t *hashes = loader->hashes.data;
    memos_assert(loader->checked_count == loader->used_count);
    (void)crypto_generichash_init(&state, NULL, 0, 32);
    for (size_t i = 0; i < loader->used_count; i++) {
        const struct paramem_weight *weight = &loader->used[i];
        size_t before = strlen(loader->prefix), size = weight->name.size - before;
        hash_size(&state, size);
        (void)crypto_generichash_update(&state, (const uint8_t *)weight->name.data + before, size);
        hash_size(&state, weight->stored);
        hash_size(&state, weight->rank);
        for (size_t d = 0; d < weight->rank; d++) {
            hash_size(&state, weight->shape[d]);
        }
        for (size_t p = 0; p < pieces_of(weight); p++) {
            (void)crypto_generichash_update(&state, hashes, HASH_BYTES);
            hashes += HASH_BYTES;
        }
    }
    (void)crypto_generichash_final(&state, out, 32);
}
