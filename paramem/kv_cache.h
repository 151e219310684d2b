/* Pages of keys and values: who uses which, and which hold what somebody may want again.
 *
 * A page has the same number in every layer. It is free, or used (by `uses` holders), or unused
 * but kept, because it is whole and has a key: the hash of its tokens and of all before them
 * (Kwon et al., arXiv 2309.06180, section 4.4; Zheng et al., arXiv 2312.07104). Kept pages are
 * given out again, those first that nobody has wanted longest, when no page is free.
 *
 * Invariants:
 *   1. Every page is in exactly one of: the free list, the list of kept pages, use.
 *   2. A page with a key is written no more once the pass that was being made when it got it is
 *      queued: what reads in the same pass reads what it writes, layer by layer.
 *   3. At most one page has a given key.
 *
 * A key is BLAKE2b-256 over the key before it and 32 ids; the first "key before" is the hash of the
 * model's fingerprint and the type of the cache. Two different beginnings with one key are not to
 * be expected, whoever chooses them.
 *
 * All is made at create. Threads: one at a time. */
#ifndef PARAMEM_KV_CACHE_H
#define PARAMEM_KV_CACHE_H

#include "kernels/decoder.h"

#define PARAMEM_KEY_BYTES 32

struct paramem_key {
    uint8_t bytes[PARAMEM_KEY_BYTES];
};

struct paramem_kv_cache;

struct paramem_kv_options {
    struct kern_ctx *ctx; /* borrowed */
    enum kern_dtype dtype;
    size_t layers, heads, head_dim; /* G, D */
    size_t pages_count;             /* at least 1 */
    const uint8_t *fingerprint;     /* (32) of the model; copied */
};

/* Bytes of one page in all layers. */
size_t paramem_kv_page_bytes(enum kern_dtype dtype, size_t layers, size_t heads, size_t head_dim);

/* NO_MEMORY says how much. */
MEMOS_MUST_USE enum memos_status paramem_kv_create(const struct paramem_kv_options *options,
    struct paramem_kv_cache **out, struct memos_error *err);
void paramem_kv_destroy(struct paramem_kv_cache **cache); /* takes NULL */

/* (layers); lives as long as the cache. */
const struct kern_kv *paramem_kv_layers(const struct paramem_kv_cache *cache);

/* How many paramem_kv_take can give: free ones and kept ones. */
size_t paramem_kv_available(const struct paramem_kv_cache *cache);
size_t paramem_kv_kept(const struct paramem_kv_cache *cache);
size_t paramem_kv_total(const struct paramem_kv_cache *cache);

/* A page for one user, with anything in it. Some must be available. */
uint32_t paramem_kv_take(struct paramem_kv_cache *cache);
/* One user fewer. Let a sequence's pages go from its last to its first: a beginning is then kept
 * longer than what follows it, without which it is of use and not the other way round. */
void paramem_kv_release(struct paramem_kv_cache *cache, uint32_t page);

/* The key before the first page; the key of a page; of a page's first `count` tokens, at least one:
 * the same when it is all. */
struct paramem_key paramem_kv_root(const struct paramem_kv_cache *cache);
struct paramem_key paramem_kv_key(
    const struct paramem_key *before, const uint32_t ids[KERN_PAGE_TOKENS]);
struct paramem_key paramem_kv_key_of(
    const struct paramem_key *before, const uint32_t *ids, size_t count);
/* Instead of a key before: what follows it is not what the tokens alone say. */
struct paramem_key paramem_kv_key_salted(
    const struct paramem_key *before, const struct paramem_key *salt);
/* The root of every cache of that model and type. */
struct paramem_key paramem_kv_root_of(const uint8_t fingerprint[32], enum kern_dtype dtype);
/* Give a whole page in use its key, for an owner (0: nobody). Nothing happens when another page has
 * the key. */
void paramem_kv_name(
    struct paramem_kv_cache *cache, uint32_t page, const struct paramem_key *key, uint64_t owner);
/* Nobody finds this owner's pages any more (0: anybody's); those that nobody uses are free. */
void paramem_kv_drop(struct paramem_kv_cache *cache, uint64_t owner);
/* The page of this key, with one more user; false: there is none. */
bool paramem_kv_find(
    struct paramem_kv_cache *cache, const struct paramem_key *key, uint32_t *out_page);

#endif
