#include "retrieval/vector_cache.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    struct retrieval_cache_key key;
    struct entry *next;          /* of the same bucket */
    struct entry *newer, *older; /* by when they were asked for */
    float vector[];
};

struct retrieval_cache {
    struct entry **buckets;
    size_t buckets_count; /* a power of two; 0: nothing is remembered */
    size_t entries, entries_max;
    size_t dims;
    struct entry *newest, *oldest;
    uint8_t hash_key[32];
};

static size_t entry_bytes(const struct retrieval_cache *cache)
{
    return sizeof(struct entry) + cache->dims * sizeof(float);
}

enum memos_status retrieval_cache_create(
    size_t bytes_max, size_t dims, struct retrieval_cache **out_cache, struct memos_error *err)
{
    struct retrieval_cache *cache = calloc(1, sizeof *cache);
    if (!cache || sodium_init() < 0) {
        free(cache);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a cache of vectors");
    }
    cache->dims = dims;
    /* an entry comes with a bucket or two */
    cache->entries_max = bytes_max / (entry_bytes(cache) + 2 * sizeof *cache->buckets);
    randombytes_buf(cache->hash_key, sizeof cache->hash_key);
    if (cache->entries_max > 0) {
        cache->buckets_count = 1;
        while (cache->buckets_count < cache->entries_max) {
            cache->buckets_count *= 2;
        }
        cache->buckets = calloc(cache->buckets_count, sizeof *cache->buckets);
        if (!cache->buckets) {
            free(cache);
            return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a cache of vectors");
        }
    }
    *out_cache = cache;
    return MEMOS_OK;
}

void retrieval_cache_destroy(struct retrieval_cache **cache)
{
    struct retrieval_cache *dead = *cache;
    if (!dead) {
        return;
    }
    while (dead->newest) {
        struct entry *entry = dead->newest;
        dead->newest = entry->older;
        free(entry);
    }
    free(dead->buckets);
    free(dead);
    *cache = NULL;
}

struct retrieval_cache_key retrieval_cache_key(
    const struct retrieval_cache *cache, struct memos_bytes text)
{
    struct retrieval_cache_key key;
    (void)crypto_generichash(
        key.bytes, sizeof key.bytes, text.data, text.size, cache->hash_key, sizeof cache->hash_key);
    return key;
}

static struct entry **bucket_of(
    const struct retrieval_cache *cache, const struct retrieval_cache_key *key)
{
    uint64_t hash;
    memcpy(&hash, key->bytes, sizeof hash);
    return &cache->buckets[hash & (cache->buckets_count - 1)];
}

static void unlink_age(struct retrieval_cache *cache, struct entry *entry)
{
    *(entry->newer ? &entry->newer->older : &cache->newest) = entry->older;
    *(entry->older ? &entry->older->newer : &cache->oldest) = entry->newer;
}

static void link_newest(struct retrieval_cache *cache, struct entry *entry)
{
    entry->newer = NULL;
    entry->older = cache->newest;
    *(cache->newest ? &cache->newest->newer : &cache->oldest) = entry;
    cache->newest = entry;
}

const float *retrieval_cache_get(
    struct retrieval_cache *cache, const struct retrieval_cache_key *key)
{
    struct entry *entry = cache->entries_max > 0 ? *bucket_of(cache, key) : NULL;
    while (entry && memcmp(&entry->key, key, sizeof *key) != 0) {
        entry = entry->next;
    }
    if (!entry) {
        return NULL;
    }
    unlink_age(cache, entry);
    link_newest(cache, entry);
    return entry->vector;
}

/* Take the oldest entry out, for its memory. */
static struct entry *take_oldest(struct retrieval_cache *cache)
{
    struct entry *entry = cache->oldest;
    struct entry **at = bucket_of(cache, &entry->key);
    while (*at != entry) {
        at = &(*at)->next;
    }
    *at = entry->next;
    unlink_age(cache, entry);
    cache->entries--;
    return entry;
}

void retrieval_cache_put(
    struct retrieval_cache *cache, const struct retrieval_cache_key *key, const float *vector)
{
    if (cache->entries_max == 0 || retrieval_cache_get(cache, key)) {
        return;
    }
    struct entry *entry =
        cache->entries == cache->entries_max ? take_oldest(cache) : malloc(entry_bytes(cache));
    if (!entry) {
        return;
    }
    struct entry **bucket = bucket_of(cache, key);
    entry->key = *key;
    memcpy(entry->vector, vector, cache->dims * sizeof *vector);
    entry->next = *bucket;
    *bucket = entry;
    link_newest(cache, entry);
    cache->entries++;
}

size_t retrieval_cache_count(const struct retrieval_cache *cache)
{
    return cache->entries;
}

size_t retrieval_cache_bytes(const struct retrieval_cache *cache)
{
    return cache->entries * entry_bytes(cache) + cache->buckets_count * sizeof *cache->buckets;
}
