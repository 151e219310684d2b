/* Captures that are in this process: their bytes, received or mapped, checked once, kept by use
 * under a bound of bytes.
 *
 * A capture is known by the hash of its payload. What is held by a job stays until it is released;
 * the rest goes when room is needed, the longest unused first, and at once when the store says that
 * it does not hold any more.
 *
 * Threads: all. */
#ifndef MEMOS_WORKER_CACHE_H
#define MEMOS_WORKER_CACHE_H

#include "memcube/cube.h"
#include "memos/worker/cost.h"
#include "paramem/kv_cube.h"

struct worker_cache;

/* One capture, held by somebody. Read-only. */
struct worker_kept {
    struct paramem_kv_cube cube;
    uint8_t hash[MEMCUBE_HASH_BYTES];
    enum worker_source source; /* how it came: mapped or sent */
};

MEMOS_MUST_USE enum memos_status worker_cache_create(
    uint64_t bytes_max, struct worker_cache **out, struct memos_error *err);
/* Nothing may be held any more. Takes NULL. */
void worker_cache_destroy(struct worker_cache **cache);

/* Hold the capture of this hash; NULL: it is not here. */
const struct worker_kept *worker_cache_hold(
    struct worker_cache *cache, const uint8_t hash[MEMCUBE_HASH_BYTES]);
void worker_cache_release(struct worker_cache *cache, const struct worker_kept *kept);

/* Copy `bytes`, or map the file at `path`, check it (paramem_kv_cube_read, _check with finite), and
 * hold it for the caller. space: what worker_cache_keep names. CORRUPT, UNSUPPORTED; IO and
 * NOT_FOUND of a file; NO_MEMORY. */
MEMOS_MUST_USE enum memos_status worker_cache_add(struct worker_cache *cache, const char *space,
    const uint8_t hash[MEMCUBE_HASH_BYTES], struct memos_bytes bytes,
    const struct worker_kept **out, struct memos_error *err);
MEMOS_MUST_USE enum memos_status worker_cache_map(struct worker_cache *cache, const char *space,
    const uint8_t hash[MEMCUBE_HASH_BYTES], const char *path, uint64_t bytes,
    const struct worker_kept **out, struct memos_error *err);

/* Of this space (NULL: of any), keep only captures with one of these hashes (count, 32 bytes each).
 */
void worker_cache_keep(
    struct worker_cache *cache, const char *space, const uint8_t *hashes, size_t count);

uint64_t worker_cache_bytes(struct worker_cache *cache);

/* Names of the spaces whose captures are here, newest first, at most count_max, joined into `out`
 * one after the other with a NUL each. How many. */
size_t worker_cache_spaces(struct worker_cache *cache, size_t count_max, struct memos_buffer *out);

#endif
