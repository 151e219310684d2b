/* The feature index: what a ranking wants to know of a doc beside its words and its vector, in 32
 * bytes each, kept in the store's own transactions.
 *
 *   feat.doc      map  space u32 BE, chunk u32 BE    -> 32 records of 32 bytes: previous u32, next
 * u32, session 56 bits and flags 8 bits, event time i64, speaker u32, words u16, share of them that
 * ask u16; all LE; zeros: no record feat.session  map  space u32 BE, session u64 BE  -> last doc
 * u32 LE feat.date     map  space u32 BE, doc u32 BE      -> (from i32 LE, to i32 LE)*, masked
 *
 * Docs of one conversation form a list, in the order of writing. What makes the conversation is the
 * attribute "session", else what of its first source's uri comes before the last '/'.
 *
 *  F1 a doc that is searched has a record;
 *  F2 previous and next of two docs say the same, both are of one session, and a session's last doc
 *     is the one without a next;
 *  F3 contents of one cube stand side by side, the newer behind, as long as they are of one
 *     session: so that an edited turn keeps its place. Of them one at most is seen at any moment,
 *     so that a walk over what is seen finds the neighbours of now, of then, and of what a rollback
 *     brought back.
 *
 * Nothing here repeats a text: sessions and speakers are hashed with the space's secret, days that
 * a text means are masked with it. What stays in the clear are counts and kinds: how many words,
 * how many of them ask, whether it names a time, asks or states. Forget sets a record to zeros.
 *
 * Threads: a retrieval_features is shared; a view belongs to its transaction's thread. */
#ifndef RETRIEVAL_FEATURE_H
#define RETRIEVAL_FEATURE_H

#include "memcube/index.h"
#include "memcube/store.h"
#include "retrieval/fuse.h"
#include "retrieval/statement.h"

#define RETRIEVAL_FEATURE_BYTES 32
#define RETRIEVAL_FEATURE_CHUNK_DOCS 32u
#define RETRIEVAL_FEATURE_CHUNK_BYTES (RETRIEVAL_FEATURE_CHUNK_DOCS * RETRIEVAL_FEATURE_BYTES)
#define RETRIEVAL_FEATURE_RANGES_MAX 8

enum retrieval_feature_flag {
    RETRIEVAL_FEATURE_THERE = 1 << 0, /* in every record */
    RETRIEVAL_FEATURE_TIME = 1 << 1,
    RETRIEVAL_FEATURE_ASK = 1 << 2,
    RETRIEVAL_FEATURE_STRONG = 1 << 3, /* states something lasting: surely, */
    RETRIEVAL_FEATURE_WEAK = 1 << 4,   /* maybe */
    RETRIEVAL_FEATURE_MACHINE = 1 << 5,
    RETRIEVAL_FEATURE_DATES = 1 << 6, /* has ranges in feat.date */
};

struct retrieval_feature {
    uint32_t previous, next; /* docs of the same session; 0: none */
    uint64_t session;        /* 56 bits; 0: none */
    unsigned flags;          /* enum retrieval_feature_flag */
    int64_t event_us;        /* when it happened, else when it was recorded */
    uint32_t speaker;        /* retrieval_name_hash */
    uint16_t words;          /* at most 65535 */
    uint16_t asking;         /* share in questions, of 65535 */
};

struct retrieval_features;

/* statements: borrowed as long as the features live. */
MEMOS_MUST_USE enum memos_status retrieval_features_create(
    const struct retrieval_statements *statements, struct retrieval_features **out_features,
    struct memos_error *err);
void retrieval_features_destroy(struct retrieval_features **features); /* takes NULL */

/* What to hand to memcube_store_open. Lives as long as the features. */
struct memcube_index *retrieval_features_index(struct retrieval_features *features);

/* The records of a space, as a snapshot has them; read when they are looked at. */
struct retrieval_features_view {
    const struct retrieval_features *features;
    struct memcube_txn *txn;
    uint32_t space;
    const uint8_t **chunks; /* NULL: not read yet */
    size_t chunks_count;
    enum memos_status status; /* of the first read that failed: a failed record reads as none */
    struct memos_error error;
};

/* Views die with the transaction; memory comes from arena. A view is one thread's. NO_MEMORY. */
MEMOS_MUST_USE enum memos_status retrieval_features_load(const struct retrieval_features *features,
    struct memcube_txn *txn, uint32_t space, uint32_t docs_end, struct memos_arena *arena,
    struct retrieval_features_view *out, struct memos_error *err);

/* Could everything be read that was looked at? CORRUPT, IO. */
MEMOS_MUST_USE enum memos_status retrieval_features_view_check(
    const struct retrieval_features_view *view, struct memos_error *err);

/* The record of a doc; false, and zeros, when there is none. */
bool retrieval_feature_get(
    struct retrieval_features_view *view, uint32_t doc, struct retrieval_feature *out);

/* The docs before (or after) a doc in its conversation that are in `visible`, nearest first; how
 * many of count_max there are. */
size_t retrieval_features_beside(struct retrieval_features_view *view, uint32_t doc, bool after,
    const struct memcube_docs *visible, size_t count_max, uint32_t *out);

/* Of the speakers of `visible` docs, the one that is among `names` (sorted hashes); 0 when there is
 * none, or more than one. The view is of this snapshot. */
uint32_t retrieval_features_named(struct retrieval_features *features, struct memcube_read *read,
    const struct memcube_space *space, struct retrieval_features_view *view,
    const struct memcube_docs *visible, const uint32_t *names, size_t names_count);

/* The days that a doc's text means, at most RETRIEVAL_FEATURE_RANGES_MAX; 0 when none. */
MEMOS_MUST_USE enum memos_status retrieval_features_ranges(
    const struct retrieval_features *features, struct memcube_txn *txn,
    const struct memcube_space *space, uint32_t doc, struct retrieval_fuse_range *out,
    size_t *out_count, struct memos_error *err);

#endif
