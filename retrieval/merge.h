/* From entries to postings, many docs at a time; and reading what has no postings yet.
 *
 * retrieval/postings.h says which docs those are (R2), and why. */
#ifndef RETRIEVAL_MERGE_H
#define RETRIEVAL_MERGE_H

#include "memcube/store.h"
#include "retrieval/postings.h"

/* Which docs have their postings: those up to `through` of the term's shard. */
struct retrieval_merged {
    uint32_t through[RETRIEVAL_SHARDS];
};

static inline uint32_t retrieval_merged_through(
    const struct retrieval_merged *merged, uint64_t term)
{
    return merged->through[term >> RETRIEVAL_SHARD_SHIFT];
}

/* What is merged of a space; nothing, of a new one. */
MEMOS_MUST_USE enum memos_status retrieval_merged_load(const struct retrieval_tables *tables,
    struct memcube_txn *txn, uint32_t space, struct retrieval_merged *out, struct memos_error *err);

/* `doc` has been added: merge the shards whose turn has come, mostly none. */
MEMOS_MUST_USE enum memos_status retrieval_merge_due(const struct retrieval_tables *tables,
    struct memcube_txn *txn, uint32_t space, uint32_t doc, struct retrieval_merged *merged,
    struct memos_error *err);

/* The postings of one term that are not made yet, written like those that are. */
struct retrieval_tail {
    uint8_t *postings;
    size_t postings_bytes;
};

/* Read the tails of terms (sorted by hash), one for each, of docs that are in `live` or `wanted`;
 * memory comes from arena. */
MEMOS_MUST_USE enum memos_status retrieval_tails_read(const struct retrieval_tables *tables,
    struct memcube_txn *txn, uint32_t space, const struct retrieval_term *terms, size_t terms_count,
    const struct memcube_docs *live, const struct memcube_docs *wanted, struct memos_arena *arena,
    struct retrieval_tail **out_tails, struct memos_error *err);

#endif
