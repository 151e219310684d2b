/* A table in memory from 128-bit keys (cube ids, the beginnings of hashes) to 64-bit values.
 *
 * For proofs that must look back at what went by: which payloads an archive already carried, how
 * often a payload is named. Keys come from outside, so their place in the table is made with a
 * random key of its own: nobody can choose keys that all fall together.
 *
 * Memory: 24 bytes a slot, at most half of the slots are used. The caller bounds it by keys_max.
 *
 * Threads: one map belongs to one thread at a time. */
#ifndef MEMCUBE_IDMAP_H
#define MEMCUBE_IDMAP_H

#include "proto/bytes.h"

#define MEMCUBE_IDMAP_KEY_BYTES 16

struct memcube_idmap_slot {
    uint8_t key[MEMCUBE_IDMAP_KEY_BYTES];
    uint64_t value;
};

struct memcube_idmap {
    struct memcube_idmap_slot *slots; /* value 0: free */
    size_t slots_count;               /* a power of two, or 0 */
    size_t count;
    size_t keys_max;
    uint8_t secret[16];
};

/* Empty; takes no memory yet. */
void memcube_idmap_init(struct memcube_idmap *map, size_t keys_max);
void memcube_idmap_finish(struct memcube_idmap *map);

/* Forget all keys, keep the memory. */
void memcube_idmap_clear(struct memcube_idmap *map);

/* The value under key; NULL when it is not there. May be written through (never with 0); dies with
 * the next add. */
uint64_t *memcube_idmap_find(const struct memcube_idmap *map, const uint8_t *key);

/* The value under key, made as `value` (not 0) when it is not there. NO_MEMORY; TOO_LARGE past
 * keys_max. */
MEMOS_MUST_USE enum memos_status memcube_idmap_add(struct memcube_idmap *map, const uint8_t *key,
    uint64_t value, uint64_t **out_value, struct memos_error *err);

/* All pairs in no order: begin with *position 0; false after the last. */
bool memcube_idmap_next(
    const struct memcube_idmap *map, size_t *position, struct memcube_idmap_slot *out);

#endif
