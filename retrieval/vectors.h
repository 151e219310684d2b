/* The vector index: what a version means, kept in the store's own transactions.
 *
 * A doc (one content of a cube, memcube/index.h) has one entry: the codes of one or more unit
 * vectors (a long text is cut into spans), the number of the encoder that made them, and a keyed
 * hash of the text that they were made from. An entry is encrypted under a key that forget
 * destroys with the cube, so that no copy of it can be read afterwards. Since docs are contents,
 * rollback, as_of and states move nothing here.
 *
 * Vectors come with the write: the caller has them made beforehand (retrieval_vectors_offer) and
 * add finds them by the text's hash. A doc whose vector was not offered (an import, a change of
 * encoder, an endpoint that is down) is put on the list of what is to be done (`vec.due`), and is
 * found by its words until then.
 *
 * In memory lies, for each space that is searched, a table of all codes of the active encoder,
 * row after row, under a bound; it is brought up to date from the snapshot at each search. Large
 * spaces have an approximate index over it (retrieval/ann.h).
 *
 *  V1 an entry's spans all have the dims and code type of its encoder's record;
 *  V2 a plaintext doc has an entry of the active encoder, or is on the list of what is due, or both
 * (an entry of another encoder); V3 a search scores only entries of one encoder, the one that made
 * its query's vector; V4 what a search is given to see (struct memcube_docs) is all that it scores:
 * no row of a doc outside of it, and no doc of it with an entry left out.
 *
 * Threads: may be shared; a search runs on the caller's snapshot. */
#ifndef RETRIEVAL_VECTORS_H
#define RETRIEVAL_VECTORS_H

#include "kernels/kern.h"
#include "memcube/index.h"
#include "memcube/store.h"
#include "retrieval/ann.h"

enum {
    RETRIEVAL_DIMS_MAX = 4096,
    RETRIEVAL_SPANS_MAX = 64,   /* of one doc; what comes after is found by its words */
    RETRIEVAL_SPAN_BYTES = 960, /* of text in one span: about the 256 tokens of small encoders */
};

struct retrieval_vectors;

struct retrieval_vectors_options {
    const char *folder;        /* for approximate indexes; NULL: none are built */
    enum kern_dtype codes;     /* of new entries; 0: KERN_E4M3 */
    uint64_t cache_bytes_max;  /* of tables in memory; 0: 1 GiB. The least used go first */
    uint64_t offers_bytes_max; /* vectors that wait for their write; 0: 64 MiB */
    uint64_t exact_rows_max;   /* a search that may score more rows than this uses an approximate
                                  index, when there is one. 0: 50,000 */
    enum retrieval_ann_type ann;
};

MEMOS_MUST_USE enum memos_status retrieval_vectors_create(
    const struct retrieval_vectors_options *options, struct retrieval_vectors **out_vectors,
    struct memos_error *err);
void retrieval_vectors_destroy(struct retrieval_vectors **vectors);

/* What to hand to memcube_store_open. Lives as long as the vectors. */
struct memcube_index *retrieval_vectors_index(struct retrieval_vectors *vectors);

/* Which encoder's vectors are stored and searched from now on. Makes its record when it is new. On
 * the writer's transaction; nothing to do when it is active already. Everything that has an entry
 * of another encoder is to be done anew (lazily: retrieval_vectors_due finds it); the very first
 * encoder of a store puts all docs on the list. INVALID: these dims are out of range, or the
 * fingerprint had others. */
MEMOS_MUST_USE enum memos_status retrieval_vectors_activate(struct retrieval_vectors *vectors,
    struct memcube_write *write, const uint8_t fingerprint[32], struct memos_bytes name,
    size_t dims, struct memos_error *err);

/* ---- writing ------------------------------------------------------------------------------- */

/* The text that stands for a version, that is to be encoded: what of title, caption and payload
 * counts, cut into spans. Texts live in arena, or view `payload`. The same function makes the text
 * for offers and for add, so that they agree: it knows nothing of the encoder. */
struct retrieval_spans {
    const struct memos_bytes *texts;
    size_t count;     /* 0: nothing to encode (not plaintext, or empty) */
    uint8_t hash[16]; /* BLAKE2b of all of it */
};
MEMOS_MUST_USE enum memos_status retrieval_spans_make(enum memcube_kind kind,
    const struct memcube_description *description, struct memos_bytes payload,
    struct memos_arena *arena, struct retrieval_spans *out, struct memos_error *err);

/* Keep unit vectors (spans->count, dims) of a text for the add that will want them; copies. An
 * offer is dropped some time after its add has come (which may come again, when its write is
 * repeated), or when newer ones need the room. INVALID: an encoder that was never active, or values
 * that are not finite. */
MEMOS_MUST_USE enum memos_status retrieval_vectors_offer(struct retrieval_vectors *vectors,
    const uint8_t fingerprint[32], const struct retrieval_spans *spans, const float *values,
    struct memos_error *err);

/* Docs that want vectors of the active encoder, over all spaces, at most count_max; *out_total is
 * how many there are. */
struct retrieval_due {
    uint32_t space, doc;
};
MEMOS_MUST_USE enum memos_status retrieval_vectors_due(struct retrieval_vectors *vectors,
    struct memcube_read *read, struct retrieval_due *out, size_t count_max, size_t *out_count,
    uint64_t *out_total, struct memos_error *err);

/* The spans of a doc on the list, as add made them; in the snapshot's arena. FORGOTTEN: meanwhile.
 */
MEMOS_MUST_USE enum memos_status retrieval_due_spans(struct memcube_read *read,
    const struct retrieval_due *due, struct retrieval_spans *out, struct memos_error *err);

/* Write the vectors of a doc that was on the list, or strike it off when its text has nothing to
 * encode (spans->count 0). A no-op when its text has another hash, when it is forgotten, when the
 * encoder is not the active one any more, or when somebody else was quicker. */
MEMOS_MUST_USE enum memos_status retrieval_vectors_fill(struct retrieval_vectors *vectors,
    struct memcube_write *write, const struct retrieval_due *due, const uint8_t fingerprint[32],
    const struct retrieval_spans *spans, const float *values, struct memos_error *err);

/* ---- searching ----------------------------------------------------------------------------- */

struct retrieval_vector_hit {
    uint32_t doc;
    float cosine; /* the best of its spans */
};

/* The docs of `wanted` nearest to query (dims float32, unit length), best first, at most top_k:
 * exact for small tables, approximate (and exact again over what the approximate index names) for
 * large ones. *out_missing: docs of wanted that have no entry of the active encoder. OK and
 * nothing when fingerprint is not the active encoder's. */
MEMOS_MUST_USE enum memos_status retrieval_vectors_search(struct retrieval_vectors *vectors,
    struct memcube_read *read, const struct memcube_space *space, const uint8_t fingerprint[32],
    const float *query, const struct memcube_docs *wanted, size_t top_k,
    struct retrieval_vector_hit *out, size_t *out_count, uint32_t *out_missing,
    struct memos_error *err);

/* The cosine of each of these docs (NaN for one without entry). */
MEMOS_MUST_USE enum memos_status retrieval_vectors_score(struct retrieval_vectors *vectors,
    struct memcube_read *read, const struct memcube_space *space, const uint8_t fingerprint[32],
    const float *query, const uint32_t *docs, size_t docs_count, float *out_cosines,
    struct memos_error *err);

/* A doc's vectors, decoded, into out (at most spans_max times dims of this encoder); for the tree,
 * for diversity, and for classification. NOT_FOUND without an entry of this encoder. */
MEMOS_MUST_USE enum memos_status retrieval_vectors_get(struct retrieval_vectors *vectors,
    struct memcube_read *read, const struct memcube_space *space, const uint8_t fingerprint[32],
    uint32_t doc, float *out, size_t spans_max, size_t *out_spans, struct memos_error *err);

/* ---- in the background --------------------------------------------------------------------- */

/* Load, build or save one approximate index, if one is wanted. May take minutes: for a thread of
 * the caller's own, one at a time, again and again while *out_worked. progress may be NULL. What
 * fails here (NO_SPACE, IO, DENIED: the file could not be saved; NO_MEMORY; CANCELLED) harms no
 * search: tables are searched exactly, and an index that was not saved is used all the same. */
MEMOS_MUST_USE enum memos_status retrieval_vectors_work(struct retrieval_vectors *vectors,
    retrieval_ann_progress_fn *progress, void *progress_self, bool *out_worked,
    struct memos_error *err);

struct retrieval_vectors_stats {
    uint64_t tables, table_bytes, rows; /* in memory */
    uint64_t ann_indexes, ann_bytes, ann_built, ann_loaded, ann_searches;
    uint64_t offers, offers_bytes, offers_dropped;
    uint64_t loads;    /* tables read from the store */
    uint64_t streamed; /* searches that read the store, for want of memory */
    uint64_t damaged;  /* entries that could not be opened: memosctl fsck finds them */
};
void retrieval_vectors_stats(
    struct retrieval_vectors *vectors, struct retrieval_vectors_stats *out);

#endif
