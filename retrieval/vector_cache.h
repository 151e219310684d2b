/* Vectors of texts that were asked for lately, within a bound of bytes; the one that was not asked
 * for the longest time goes first.
 *
 * A text is known by a BLAKE2b-256 of it under a key of the process, so that nobody can make two
 * texts that are taken for one.
 *
 * Threads: a cache belongs to one thread at a time; retrieval_cache_key any. */
#ifndef RETRIEVAL_VECTOR_CACHE_H
#define RETRIEVAL_VECTOR_CACHE_H

#include "proto/bytes.h"

struct retrieval_cache;

struct retrieval_cache_key {
    uint8_t bytes[32];
};

/* bytes_max 0: remembers nothing. NO_MEMORY. */
MEMOS_MUST_USE enum memos_status retrieval_cache_create(
    size_t bytes_max, size_t dims, struct retrieval_cache **out_cache, struct memos_error *err);
void retrieval_cache_destroy(struct retrieval_cache **cache); /* takes NULL */

struct retrieval_cache_key retrieval_cache_key(
    const struct retrieval_cache *cache, struct memos_bytes text);

/* The vector of a text, (dims): a view until the next put; NULL when it is not there. */
const float *retrieval_cache_get(
    struct retrieval_cache *cache, const struct retrieval_cache_key *key);

/* Remember a copy of a vector. Without memory it is not remembered. */
void retrieval_cache_put(
    struct retrieval_cache *cache, const struct retrieval_cache_key *key, const float *vector);

/* How many vectors there are, and what they take. */
size_t retrieval_cache_count(const struct retrieval_cache *cache);
size_t retrieval_cache_bytes(const struct retrieval_cache *cache);

#endif
