/* Which captures a space has for a model, as the store tells now.
 *
 * A capture is an activation cube of subtype "kv" with the model's fingerprint in hex as `model`,
 * derived from the versions whose texts it is of, in their order. A lookup needs, beside the
 * header:
 *
 *     external id   "kv:" and the hex of its last block's key (paramem/kv_cube.h): one a content
 *     tag           "kv:" and the first 16 hex digits of the fingerprint
 *     attributes    tokens, dtype; stride and marks: of every stride-th whole block the first
 *                   8 bytes of its key in hex, at most 255 of them, so that it is seen how much of
 *                   a longer capture a prompt begins with; form: "prefix" or "independent";
 *                   first: how many tokens stand before its own, if it continues another capture
 *
 * One that continues another has that, its base, as the last version that it is derived from: it is
 * of use only with it, and goes stale and is forgotten with it. Tokens, marks and id are of all of
 * its text, the base's too. A base is of some of the same cubes, so that it does not go stale but
 * with them. At most WORKER_CHAIN_MAX are one text; what would be one more is kept whole.
 *
 * What a space has is asked for anew whenever its history went on (its seq), so that what went
 * stale meanwhile is known. Marks only say what to load: ids are compared before anything is used.
 *
 * Threads: the catalogue: all. A view is read-only. */
#ifndef MEMOS_WORKER_CATALOGUE_H
#define MEMOS_WORKER_CATALOGUE_H

#include "memos/worker/ask.h"
#include "paramem/engine.h"

#define WORKER_KV_CODEC "application/vnd.memos.kv"
#define WORKER_KV_SUBTYPE "kv"

enum {
    WORKER_MARKS_MAX = 255,
    WORKER_MARK_BYTES = 8,
    WORKER_CHAIN_MAX = 8,   /* captures that are one text */
    WORKER_BASE_BLOCKS = 4, /* less in common is not worth a chain */
};

struct worker_known {
    struct memcube_ref ref;
    uint8_t hash[MEMCUBE_HASH_BYTES]; /* of the payload */
    uint64_t bytes;
    enum kern_dtype dtype;
    size_t tokens; /* of its text, its base's too */
    size_t first;  /* of these, those that are in its base; 0: it has none */
    struct memcube_ref base;
    struct paramem_key key; /* of its last block */
    bool is_stale, is_independent;
    size_t stride; /* in blocks */
    const uint8_t *marks;
    size_t marks_count;
    const struct memcube_ref *sources; /* without the base */
    size_t sources_count;
};

struct worker_view {
    const struct worker_known *items; /* newest first */
    size_t count;
    size_t not_read; /* cubes that are described otherwise, or are too many */
};

struct worker_catalogue;
MEMOS_MUST_USE enum memos_status worker_catalogue_create(
    struct worker_catalogue **out, struct memos_error *err);
void worker_catalogue_destroy(struct worker_catalogue **catalogue); /* takes NULL */

/* What `space` has for the model, as fetch's principal sees it, at `seq` or later. seq 0: ask anew
 * whatever is known. *out_is_new: it was asked for. Free with worker_view_release. */
MEMOS_MUST_USE enum memos_status worker_catalogue_view(struct worker_catalogue *catalogue,
    const struct worker_fetch *fetch, const char *space, const uint8_t fingerprint[32],
    uint64_t seq, const struct worker_view **out, bool *out_is_new, struct memos_error *err);
void worker_view_release(struct worker_catalogue *catalogue, const struct worker_view *view);

/* The keys of a prompt's whole blocks, in a cache of that type; NULL without memory. */
struct paramem_key *worker_keys_of(struct memos_arena *arena, const uint8_t fingerprint[32],
    enum kern_dtype dtype, const uint32_t *ids, size_t count, size_t *out_blocks);
/* The key of a text's last block, whole or not: what a capture of it is named by. count > 0 */
struct paramem_key worker_key_of(
    const uint8_t fingerprint[32], enum kern_dtype dtype, const uint32_t *ids, size_t count);

/* How many tokens of the capture's beginning those blocks begin with, by its marks and its key. */
size_t worker_known_covers(
    const struct worker_known *known, const struct paramem_key *keys, size_t blocks);

/* Its base; NULL: it has none, or that is not in the view, does not hold, or has fewer tokens than
 * it stands on. */
const struct worker_known *worker_known_base(
    const struct worker_view *view, const struct worker_known *known);

/* What a capture of those blocks, of that type and of those cubes, may continue, and how many
 * tokens of it; false: nothing. keys as of worker_keys_of, of whole blocks of which one must be
 * left. */
struct worker_base {
    struct memcube_ref ref;
    uint8_t hash[MEMCUBE_HASH_BYTES];
    size_t tokens;
};
bool worker_base_find(const struct worker_view *view, enum kern_dtype dtype,
    const struct paramem_key *keys, size_t blocks, const struct memcube_ref *sources,
    size_t sources_count, struct worker_base *out);

#define WORKER_TAG_BYTES (3 + 16 + 1) /* "kv:", the fingerprint's first 8 bytes, NUL */

/* What a capture's cube says of itself. Texts are on the heap in `texts`; free with _free. */
struct worker_description {
    char external_id[4 + 2 * PARAMEM_KEY_BYTES];
    char tag[WORKER_TAG_BYTES], model[2 * 32 + 1];
    char tokens[24], stride[24], first[24];
    const char *dtype;
    struct memos_buffer marks; /* with a NUL */
};
MEMOS_MUST_USE enum memos_status worker_description_make(const uint8_t fingerprint[32],
    const struct paramem_capture *capture, struct worker_description *out, struct memos_error *err);
void worker_description_free(struct worker_description *description);

#endif
