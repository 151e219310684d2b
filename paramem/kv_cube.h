/* Keys and values of a text, kept: what a host model made of it once, so that it need not again.
 *
 * A capture is one piece of little-endian bytes, read where it lies (a file that is mapped, a
 * message, memory). Keys are as they were before rotation: a text's place is given to it when it is
 * put into a cache. It belongs to one model, by fingerprint, which also decides how keys turn.
 *
 *     at      bytes
 *     0       8       "memos-kv"
 *     8       4       version, 1
 *     12      4       dtype: 1 f32, 2 f16, 3 bf16, 4 e4m3
 *     16      16      layers, heads G, head_dim D, tokens: 4 each
 *     32      32      the model's fingerprint
 *     64      32      BLAKE2b-256 of all before `data` but itself
 *     96      32      the key of the block before the first one; zero: it begins the context
 *     128     128 B   ids of B = ceil(tokens / 32) blocks, 4 each; zero past the last
 *     ...     64 B    for each block its key and the BLAKE2b-256 of its bytes
 *     data    B * block bytes, at the next multiple of 4096; zero between
 *
 * A block is 32 tokens of all layers: for each layer what kern_kv calls a page: keys (G, 32, D),
 * values (G, 32, D), and for e4m3 their scales, float32 (G, 32), (G, 32). Of the last block places
 * past the last token are zero. A block's key is that of a cache's page (kv_cache.h) of the same
 * model, type and beginning; the key of a block of fewer tokens is hashed over those. Nothing in a
 * block depends on what follows it, so that captures with a common beginning have blocks in common;
 * byte for byte where the products are (kern_linear: on cuda they are not above 16 rows). So one of
 * a longer text can leave out the blocks that another one has, and name the last of these: it
 * continues any capture that has a block of this key, wherever that ends. Its tokens stand behind
 * those that the key is of, which is all that it says of their place.
 *
 * Threads: views and their bytes are read-only; any thread.
 *
 * Errors: CORRUPT (which field, or which block), UNSUPPORTED (the version). */
#ifndef PARAMEM_KV_CUBE_H
#define PARAMEM_KV_CUBE_H

#include "paramem/kv_cache.h"

#define PARAMEM_KV_CUBE_TOKENS_MAX ((size_t)1 << 24)

/* A capture that is somewhere in memory. Its pointers lead into bytes. */
struct paramem_kv_cube {
    struct memos_bytes bytes;
    enum kern_dtype dtype;
    size_t layers, heads, head_dim, tokens, blocks;
    size_t page_bytes, block_bytes; /* of a block's layer; of a block */
    const uint8_t *fingerprint;     /* (32) */
    const uint8_t *before;          /* (32) the key before its first block; zero: none */
    const uint8_t *ids, *table, *data;
};

struct paramem_kv_cube_shape {
    enum kern_dtype dtype; /* F32, F16, BF16, E4M3 */
    size_t layers, heads, head_dim, tokens;
};

/* Of a whole capture; 0: there is no such shape. */
uint64_t paramem_kv_cube_bytes(const struct paramem_kv_cube_shape *shape);

/* Write all but keys, values and checksums into `memory` (paramem_kv_cube_bytes, 256-byte aligned);
 * places past the last token become zero. fingerprint (32), ids (tokens); before: the key of the
 * block that it continues, NULL: it begins the context. *out views it. */
void paramem_kv_cube_begin(const struct paramem_kv_cube_shape *shape, const uint8_t *fingerprint,
    const struct paramem_key *before, const uint32_t *ids, void *memory,
    struct paramem_kv_cube *out);

/* Write the checksums of a capture that is complete, on the threads of ctx (NULL: on this one).
 * memory is where `cube` lies. Without them nobody reads it again. */
void paramem_kv_cube_seal(const struct paramem_kv_cube *cube, void *memory, struct kern_ctx *ctx);

/* View a capture in any bytes, at any address: everything but the blocks is checked, with the
 * chain of keys. `bytes` must live as long as *out. Allocates nothing. */
MEMOS_MUST_USE enum memos_status paramem_kv_cube_read(
    struct memos_bytes bytes, struct paramem_kv_cube *out, struct memos_error *err);

/* Check the blocks too, on the threads of ctx (NULL: on this one): their checksums, and with
 * `finite` that no number is NaN or infinity. Reads all bytes: once, when they come from outside.
 */
MEMOS_MUST_USE enum memos_status paramem_kv_cube_check(
    const struct paramem_kv_cube *cube, struct kern_ctx *ctx, bool finite, struct memos_error *err);

/* Are its first bytes still a capture's? Who destroys a file that others have mapped writes zeros
 * from its beginning on (memcube/file.h): what was read before this is true was there. */
bool paramem_kv_cube_stands(const struct paramem_kv_cube *cube);

/* Ids first .. first + count - 1. */
void paramem_kv_cube_ids(
    const struct paramem_kv_cube *cube, size_t first, size_t count, uint32_t *out);
struct paramem_key paramem_kv_cube_key(const struct paramem_kv_cube *cube, size_t block);
/* The key that its first block's is made from: the one it names, or the root of its model and type.
 */
struct paramem_key paramem_kv_cube_before(const struct paramem_kv_cube *cube);
/* Does it begin behind blocks that another capture has? */
bool paramem_kv_cube_continues(const struct paramem_kv_cube *cube);
struct memos_bytes paramem_kv_cube_block(const struct paramem_kv_cube *cube, size_t block);
/* (32) What all of its bytes enter, those of the blocks by their checksums; zeros until it is
 * sealed. */
const uint8_t *paramem_kv_cube_sum(const struct paramem_kv_cube *cube);

#endif
