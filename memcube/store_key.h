/* Keys of the store's tables: built on the stack, big-endian, so that they sort as numbers do.
 *
 * Which table has which key: memcube/README.md. */
#ifndef MEMCUBE_STORE_KEY_H
#define MEMCUBE_STORE_KEY_H

#include "proto/id.h"

#include <endian.h>
#include <string.h>

enum {
    MEMCUBE_KEY_BYTES_MAX = 64, /* of the keys built here; names are keys of their own */
};

struct memcube_key {
    size_t size;
    uint8_t bytes[MEMCUBE_KEY_BYTES_MAX];
};

static inline void memcube_key_bytes(struct memcube_key *key, const void *data, size_t size)
{
    memos_assert(size <= sizeof key->bytes - key->size);
    memcpy(key->bytes + key->size, data, size);
    key->size += size;
}

static inline void memcube_key_u8(struct memcube_key *key, uint8_t value)
{
    memcube_key_bytes(key, &value, sizeof value);
}

static inline void memcube_key_u32(struct memcube_key *key, uint32_t value)
{
    const uint32_t be = htobe32(value);
    memcube_key_bytes(key, &be, sizeof be);
}

static inline void memcube_key_u64(struct memcube_key *key, uint64_t value)
{
    const uint64_t be = htobe64(value);
    memcube_key_bytes(key, &be, sizeof be);
}

/* Times before 1970 sort before those after it. */
static inline void memcube_key_time(struct memcube_key *key, int64_t time_us)
{
    memcube_key_u64(key, (uint64_t)time_us ^ (UINT64_C(1) << 63));
}

static inline struct memcube_key memcube_key_of(uint32_t space)
{
    struct memcube_key key = { .size = 0 };
    memcube_key_u32(&key, space);
    return key;
}

static inline struct memcube_key memcube_key_of_u32(uint32_t space, uint32_t number)
{
    struct memcube_key key = memcube_key_of(space);
    memcube_key_u32(&key, number);
    return key;
}

static inline struct memcube_key memcube_key_of_u64(uint32_t space, uint64_t number)
{
    struct memcube_key key = memcube_key_of(space);
    memcube_key_u64(&key, number);
    return key;
}

static inline struct memcube_key memcube_key_of_id(uint32_t space, const struct memos_id *id)
{
    struct memcube_key key = memcube_key_of(space);
    memcube_key_bytes(&key, id->bytes, sizeof id->bytes);
    return key;
}

static inline struct memos_bytes memcube_key_view(const struct memcube_key *key)
{
    return memos_bytes_make(key->bytes, key->size);
}

/* Does a key that a cursor found begin as this one does (is it in the same space, say)? */
static inline bool memcube_key_begins(struct memos_bytes found, const struct memcube_key *prefix)
{
    return found.size >= prefix->size && memcmp(found.data, prefix->bytes, prefix->size) == 0;
}

#endif
