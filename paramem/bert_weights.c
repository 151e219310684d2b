#include "paramem/bert_weights.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_BYTES 256
#define PIECE_BYTES ((size_t)1 << 20)

struct paramem_loader paramem_loader_make(
    const struct paramem_tensors *tensors, size_t used_max, struct memos_error *err)
{
    struct paramem_loader loader = {
        .tensors = tensors, .prefix = "", .used_max = used_max, .status = MEMOS_OK, .err = err};
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
}

enum kern_dtype paramem_loader_dtype(const struct paramem_tensor *tensor)
{
    switch (tensor->dtype) {
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

static void shape_check(struct paramem_loader *loader, const char *name,
    const struct paramem_tensor *tensor, size_t rows, size_t columns)
{
    size_t rank = rows == 0 ? 1 : 2;
    bool good = tensor->rank == rank && tensor->shape[rank - 1] == columns &&
                (rank == 1 || tensor->shape[0] == rows);
    if (!good) {
        loader->status = memos_fail(loader->err, MEMOS_CORRUPT,
            "%s: %zu dimensions of %zu, %zu; the configuration says %zu, %zu", name, tensor->rank,
            tensor->rank > 0 ? tensor->shape[0] : 0, tensor->rank > 1 ? tensor->shape[1] : 0,
            rank == 1 ? columns : rows, rank == 1 ? (size_t)0 : columns);
    } else if (paramem_loader_dtype(tensor) == 0) {
        loader->status = memos_fail(loader->err, MEMOS_UNSUPPORTED,
            "%s: dtype %s; F32, F16, BF16 work", name, paramem_dtype_name(tensor->dtype));
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

const struct paramem_tensor *paramem_loader_get(
    struct paramem_loader *loader, const char *name, size_t index, size_t rows, size_t columns)
{
    char full[NAME_BYTES];
    if (loader->status != MEMOS_OK) {
        return NULL;
    }
    name_make(full, loader->prefix, name, index);
    const struct paramem_tensor *tensor = paramem_tensors_find(loader->tensors, full);
    if (!tensor) {
        loader->status = memos_fail(loader->err, MEMOS_CORRUPT, "the tensor %s is missing", full);
        return NULL;
    }
    shape_check(loader, full, tensor, rows, columns);
    if (loader->status != MEMOS_OK) {
        return NULL;
    }
    memos_assert(loader->used_count < loader->used_max);
    loader->used[loader->used_count++] = tensor;
    return tensor;
}

/* ---- the pass over the numbers ------------------------------------------------------------- */

struct piece {
    const struct paramem_tensor *tensor;
    const uint8_t *data;
    size_t bytes;
    bool finite;
    uint8_t hash[32];
};

/* NaN and infinity have all bits of the exponent set. */
static bool finite32(const uint32_t *data, size_t count)
{
    uint32_t found = 0;
    for (size_t i = 0; i < count; i++) {
        found |= (uint32_t)((data[i] & 0x7F800000u) == 0x7F800000u);
    }
    return found == 0;
}

static bool finite16(const uint16_t *data, size_t count, uint16_t exponent)
{
    uint16_t found = 0;
    for (size_t i = 0; i < count; i++) {
        found |= (uint16_t)((data[i] & exponent) == exponent);
    }
    return found == 0;
}

static void piece_check(void *self, size_t index)
{
    struct piece *piece = (struct piece *)self + index;
    const void *data = piece->data;
    switch (piece->tensor->dtype) {
    case PARAMEM_F32:
        piece->finite = finite32(data, piece->bytes / 4);
        break;
    case PARAMEM_BF16:
        piece->finite = finite16(data, piece->bytes / 2, 0x7F80);
        break;
    default:
        piece->finite = finite16(data, piece->bytes / 2, 0x7C00);
        break;
    }
    (void)crypto_generichash(piece->hash, sizeof piece->hash, data, piece->bytes, NULL, 0);
}

static size_t pieces_of(const struct paramem_tensor *tensor)
{
    return tensor->bytes / PIECE_BYTES + (tensor->bytes % PIECE_BYTES != 0);
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
static void digest_make(
    const struct paramem_loader *loader, const struct piece *pieces, uint8_t out[32])
{
    crypto_generichash_state state;
    (void)crypto_generichash_init(&state, NULL, 0, 32);
    for (size_t i = 0; i < loader->used_count; i++) {
        const struct paramem_tensor *tensor = loader->used[i];
        const char *name = tensor->name + strlen(loader->prefix);
        hash_size(&state, strlen(name));
        (void)crypto_generichash_update(&state, (const uint8_t *)name, strlen(name));
        hash_size(&state, tensor->dtype);
        hash_size(&state, tensor->rank);
        for (size_t d = 0; d < tensor->rank; d++) {
            hash_size(&state, tensor->shape[d]);
        }
        for (size_t p = 0; p < pieces_of(tensor); p++) {
            (void)crypto_generichash_update(&state, pieces->hash, sizeof pieces->hash);
            pieces++;
        }
    }
    (void)crypto_generichash_final(&state, out, 32);
}

enum memos_status paramem_loader_check(
    struct paramem_loader *loader, struct kern_ctx *ctx, uint8_t out_digest[32])
{
    size_t count = 0, at = 0;
    if (loader->status != MEMOS_OK) {
        return loader->status;
    }
    for (size_t i = 0; i < loader->used_count; i++) {
        count += pieces_of(loader->used[i]);
    }
    struct piece *pieces = calloc(count + 1, sizeof *pieces);
    if (!pieces) {
        return memos_fail(loader->err, MEMOS_NO_MEMORY, "no memory to check the weights");
    }
    for (size_t i = 0; i < loader->used_count; i++) {
        const struct paramem_tensor *tensor = loader->used[i];
        for (size_t done = 0; done < tensor->bytes; done += PIECE_BYTES) {
            size_t left = tensor->bytes - done;
            pieces[at].tensor = tensor;
            pieces[at].data = (const uint8_t *)tensor->data + done;
            pieces[at++].bytes = left < PIECE_BYTES ? left : PIECE_BYTES;
        }
    }
    kern_parallel(ctx, count, piece_check, pieces);
    for (size_t i = 0; i < count && loader->status == MEMOS_OK; i++) {
        if (!pieces[i].finite) {
            loader->status = memos_fail(loader->err, MEMOS_CORRUPT, "%s holds a NaN or an infinity",
                pieces[i].tensor->name);
        }
    }
    digest_make(loader, pieces, out_digest);
    free(pieces);
    return loader->status;
}
