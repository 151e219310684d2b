#include "paramem/kv_cache.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

struct page {
    struct paramem_key key;
    uint64_t owner; /* of what has the key */
    uint32_t uses;
    uint32_t next, previous; /* of the list it is in */
    uint32_t chain;          /* the next page in the same bucket */
    bool named;
};

/* A list through pages; its head has been in it longest. */
struct list {
    uint32_t head, tail;
    size_t count;
};

struct paramem_kv_cache {
    struct kern_ctx *ctx;
    struct kern_kv *layers;
    void *memory;
    struct page *pages;
    size_t pages_count;
    uint32_t *buckets;
    size_t buckets_mask;
    struct list free, kept;
    struct paramem_key root;
};

/* ---- create -------------------------------------------------------------------------------- */

size_t paramem_kv_page_bytes(enum kern_dtype dtype, size_t layers, size_t heads, size_t head_dim)
{
    return layers * kern_kv_page_bytes(dtype, heads, head_dim);
}

struct paramem_key paramem_kv_root_of(const uint8_t fingerprint[32], enum kern_dtype dtype)
{
    static const char purpose[] = "memos kv 1";
    struct paramem_key key;
    uint8_t type = (uint8_t)dtype;
    crypto_generichash_state state;

    (void)crypto_generichash_init(&state, NULL, 0, sizeof key.bytes);
    (void)crypto_generichash_update(&state, (const uint8_t *)purpose, sizeof purpose);
    (void)crypto_generichash_update(&state, fingerprint, 32);
    (void)crypto_generichash_update(&state, &type, 1);
    (void)crypto_generichash_final(&state, key.bytes, sizeof key.bytes);
    return key;
}

static void list_push(struct paramem_kv_cache *cache, struct list *list, uint32_t index)
{
    struct page *page = &cache->pages[index];
    page->next = NONE;
    page->previous = list->tail;
    if (list->tail == NONE) {
        list->head = index;
    } else {
        cache->pages[list->tail].next = index;
    }
    list->tail = index;
    list->count++;
}

static void list_remove(struct paramem_kv_cache *cache, struct list *list, uint32_t index)
{
    struct page *page = &cache->pages[index];
    memos_assert(list->count > 0);
    if (page->previous == NONE) {
        list->head = page->next;
    } else {
        cache->pages[page->previous].next = page->next;
    }
    if (page->next == NONE) {
        list->tail = page->previous;
    } else {
        cache->pages[page->next].previous = page->previous;
    }
    page->next = page->previous = NONE;
    list->count--;
}

static enum memos_status tables_make(struct paramem_kv_cache *cache,
    const struct paramem_kv_options *options, struct memos_error *err)
{
    size_t buckets = 2;
    while (buckets < 2 * options->pages_count) {
        buckets *= 2;
    }
    cache->layers = calloc(options->layers, sizeof *cache->layers);
    cache->pages = calloc(options->pages_count, sizeof *cache->pages);
    cache->buckets = calloc(buckets, sizeof *cache->buckets);
    if (!cache->layers || !cache->pages || !cache->buckets) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for the table of %zu pages of the cache",
            options->pages_count);
    }
    cache->buckets_mask = buckets - 1;
    memset(cache->buckets, 0xff, buckets * sizeof *cache->buckets);
    for (size_t i = 0; i < options->pages_count; i++) {
        list_push(cache, &cache->free, (uint32_t)i);
    }
    return MEMOS_OK;
}

static enum memos_status memory_make(struct paramem_kv_cache *cache,
    const struct paramem_kv_options *options, struct memos_error *err)
{
    size_t page = kern_kv_page_bytes(options->dtype, options->heads, options->head_dim);
    size_t layer = page * options->pages_count;
    enum memos_status status = kern_alloc(cache->ctx, layer * options->layers, &cache->memory, err);
    if (status != MEMOS_OK) {
        return status;
    }
    /* On a device attention may read past a sequence's end and multiply by zero: that must be
     * finite. On the host nothing does, and pages that are not used yet cost nothing. */
    if (!kern_memory_is_host(cache->ctx)) {
        kern_fill(cache->ctx, cache->memory, 0, layer * options->layers);
    }
    for (size_t i = 0; i < options->layers; i++) {
        cache->layers[i] = (struct kern_kv){.pages = (uint8_t *)cache->memory + i * layer,
            .pages_count = options->pages_count,
            .heads = options->heads,
            .head_dim = options->head_dim,
            .dtype = options->dtype};
    }
    return MEMOS_OK;
}

enum memos_status paramem_kv_create(const struct paramem_kv_options *options,
    struct paramem_kv_cache **out, struct memos_error *err)
{
    memos_assert(sodium_init() >= 0);
    memos_assert(options->layers > 0 && options->pages_count > 0);
    /* Slots are numbers of 32 bits, the last of which says "nowhere". */
    memos_assert(options->pages_count < UINT32_MAX / KERN_PAGE_TOKENS);
    struct paramem_kv_cache *cache = calloc(1, sizeof *cache);
    if (!cache) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for the cache of keys and values");
    }
    cache->ctx = options->ctx;
    cache->pages_count = options->pages_count;
    cache->free = cache->kept = (struct list){.head = NONE, .tail = NONE};
    cache->root = paramem_kv_root_of(options->fingerprint, options->dtype);
    enum memos_status status = tables_make(cache, options, err);
    if (status == MEMOS_OK) {
        status = memory_make(cache, options, err);
    }
    if (status != MEMOS_OK) {
        paramem_kv_destroy(&cache);
        return status;
    }
    *out = cache;
    return MEMOS_OK;
}

void paramem_kv_destroy(struct paramem_kv_cache **cache)
{
    struct paramem_kv_cache *old = *cache;
    if (!old) {
        return;
    }
    kern_release(old->ctx, &old->memory);
    free(old->layers);
    free(old->pages);
    free(old->buckets);
    free(old);
    *cache = NULL;
}

const struct kern_kv *paramem_kv_layers(const struct paramem_kv_cache *cache)
{
    return cache->layers;
}

size_t paramem_kv_available(const struct paramem_kv_cache *cache)
{
    return cache->free.count + cache->kept.count;
}

size_t paramem_kv_kept(const struct paramem_kv_cache *cache)
{
    return cache->kept.count;
}

size_t paramem_kv_total(const struct paramem_kv_cache *cache)
{
    return cache->pages_count;
}

/* ---- keys ---------------------------------------------------------------------------------- */

struct paramem_key paramem_kv_root(const struct paramem_kv_cache *cache)
{
    return cache->root;
}

struct paramem_key paramem_kv_key(
    const struct paramem_key *before, const uint32_t ids[KERN_PAGE_TOKENS])
{
    return paramem_kv_key_of(before, ids, KERN_PAGE_TOKENS);
}

struct paramem_key paramem_kv_key_of(
    const struct paramem_key *before, const uint32_t *ids, size_t count)
{
    uint8_t text[PARAMEM_KEY_BYTES + KERN_PAGE_TOKENS * 4];
    struct paramem_key key;
    uint8_t *at = text + PARAMEM_KEY_BYTES;

    memos_assert(count > 0 && count <= KERN_PAGE_TOKENS);
    memcpy(text, before->bytes, PARAMEM_KEY_BYTES);
    for (size_t i = 0; i < count; i++, at += 4) {
        at[0] = (uint8_t)ids[i];
        at[1] = (uint8_t)(ids[i] >> 8);
        at[2] = (uint8_t)(ids[i] >> 16);
        at[3] = (uint8_t)(ids[i] >> 24);
    }
    (void)crypto_generichash(key.bytes, sizeof key.bytes, text, (size_t)(at - text), NULL, 0);
    return key;
}

struct paramem_key paramem_kv_key_salted(
    const struct paramem_key *before, const struct paramem_key *salt)
{
    static const char purpose[] = "memos kv salted 1";
    uint8_t text[sizeof purpose + 2 * PARAMEM_KEY_BYTES];
    struct paramem_key key;

    memcpy(text, purpose, sizeof purpose);
    memcpy(text + sizeof purpose, before->bytes, PARAMEM_KEY_BYTES);
    memcpy(text + sizeof purpose + PARAMEM_KEY_BYTES, salt->bytes, PARAMEM_KEY_BYTES);
    (void)crypto_generichash(key.bytes, sizeof key.bytes, text, sizeof text, NULL, 0);
    return key;
}

static uint32_t *bucket_of(const struct paramem_kv_cache *cache, const struct paramem_key *key)
{
    uint64_t hash;
    memcpy(&hash, key->bytes, sizeof hash);
    return &cache->buckets[hash & cache->buckets_mask];
}

static uint32_t lookup(const struct paramem_kv_cache *cache, const struct paramem_key *key)
{
    uint32_t page = *bucket_of(cache, key);
    while (page != NONE && memcmp(&cache->pages[page].key, key, sizeof *key) != 0) {
        page = cache->pages[page].chain;
    }
    return page;
}

static void unname(struct paramem_kv_cache *cache, uint32_t page)
{
    uint32_t *link = bucket_of(cache, &cache->pages[page].key);
    while (*link != page) {
        memos_assert(*link != NONE);
        link = &cache->pages[*link].chain;
    }
    *link = cache->pages[page].chain;
    cache->pages[page].named = false;
}

void paramem_kv_name(
    struct paramem_kv_cache *cache, uint32_t page, const struct paramem_key *key, uint64_t owner)
{
    struct page *at = &cache->pages[page];
    memos_assert(at->uses > 0 && !at->named);
    if (lookup(cache, key) == NONE) {
        uint32_t *bucket = bucket_of(cache, key);
        at->key = *key;
        at->owner = owner;
        at->named = true;
        at->chain = *bucket;
        *bucket = page;
    }
}

void paramem_kv_drop(struct paramem_kv_cache *cache, uint64_t owner)
{
    for (size_t i = 0; i < cache->pages_count; i++) {
        const struct page *page = &cache->pages[i];
        if (page->named && (owner == 0 || page->owner == owner)) {
            unname(cache, (uint32_t)i);
            if (page->uses == 0) {
                list_remove(cache, &cache->kept, (uint32_t)i);
                list_push(cache, &cache->free, (uint32_t)i);
            }
        }
    }
}

bool paramem_kv_find(
    struct paramem_kv_cache *cache, const struct paramem_key *key, uint32_t *out_page)
{
    uint32_t page = lookup(cache, key);
    if (page == NONE) {
        return false;
    }
    if (cache->pages[page].uses == 0) {
        list_remove(cache, &cache->kept, page);
    }
    cache->pages[page].uses++;
    *out_page = page;
    return true;
}

/* ---- pages --------------------------------------------------------------------------------- */

uint32_t paramem_kv_take(struct paramem_kv_cache *cache)
{
    struct list *list = cache->free.count > 0 ? &cache->free : &cache->kept;
    uint32_t page = list->head;
    memos_assert(list->count > 0);
    list_remove(cache, list, page);
    if (cache->pages[page].named) {
        unname(cache, page);
    }
    cache->pages[page].uses = 1;
    return page;
}

void paramem_kv_release(struct paramem_kv_cache *cache, uint32_t page)
{
    memos_assert(page < cache->pages_count && cache->pages[page].uses > 0);
    if (--cache->pages[page].uses == 0) {
        list_push(cache, cache->pages[page].named ? &cache->kept : &cache->free, page);
    }
}
