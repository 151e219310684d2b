/* What the files of the vector index share. Not for use outside retrieval/.
 *
 *   vec.doc      space u32 BE, doc u32 BE  -> the entry (below)
 *   vec.encoder  number u32 BE             -> format u8 (1), fingerprint 32, dims u32, dtype u8,
 *                                             name (sized)
 *   vec.due      space u32 BE, doc u32 BE  -> hash 16 of the text, or nothing
 *   vec.meta     "active"                  -> encoder u32, how often another became active u64
 *                "change"                  -> number u64 of the last change of an entry (below)
 *                "count", encoder u32 BE   -> how many entries it has u64; encoder 0: how many
 *                                             docs vec.due has
 *
 * An entry is format u8 (1), encoder u32, spans u8, hash 16 of the text, nonce 8, then under the
 * doc's key (ChaCha20-Poly1305 over what follows, the bytes before it authenticated with it) a
 * scale f32 for each span and the codes of each span, then the tag 16. The hash is that of the
 * spans (retrieval_spans) hashed again under the doc's key, so that nobody can confirm a guess with
 * it.
 *
 * Changes: a doc above all that were seen is new; any other way for an entry to come or to vanish
 * (erase, fill, repair) is a *change*. Each has a number, counted in the store, and the last ones
 * are remembered here (vectors_change.c), so that a table in memory is brought from one snapshot to
 * a later one by looking at few docs. What a write that was never committed has left in that memory
 * does no harm: the snapshot alone says what a doc has. */
#ifndef RETRIEVAL_VECTORS_INTERNAL_H
#define RETRIEVAL_VECTORS_INTERNAL_H

#include "retrieval/postings.h" /* retrieval_doc_key */
#include "retrieval/vector_code.h"
#include "retrieval/vectors.h"

#include <pthread.h>
#include <stdatomic.h>

struct retrieval_vec_tables {
    memcube_table doc, encoder, due, meta;
};

/* An encoder's record, as far as codes need it. */
struct retrieval_vec_encoder {
    uint32_t number; /* from 1; 0: none */
    uint8_t fingerprint[32];
    size_t dims;
    enum kern_dtype codes;
    size_t code_bytes; /* of one vector */
};

/* ---- records (vectors_record.c) ------------------------------------------------------------- */

/* NOT_FOUND, CORRUPT. */
enum memos_status retrieval_vec_encoder_get(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, uint32_t number, struct retrieval_vec_encoder *out,
    struct memos_error *err);
enum memos_status retrieval_vec_encoder_put(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, const struct retrieval_vec_encoder *encoder, struct memos_bytes name,
    struct memos_error *err);
/* All of them, in order, at most count_max; *out_last is the highest number in use. */
enum memos_status retrieval_vec_encoder_list(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, struct retrieval_vec_encoder *out, size_t count_max, size_t *out_count,
    uint32_t *out_last, struct memos_error *err);

/* The active encoder; number 0 (and OK) when there is none. *out_turns may be NULL. */
enum memos_status retrieval_vec_active_get(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, struct retrieval_vec_encoder *out, uint64_t *out_turns,
    struct memos_error *err);
enum memos_status retrieval_vec_active_put(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, uint32_t number, uint64_t turns, struct memos_error *err);

/* The number of the last change in this snapshot. */
enum memos_status retrieval_vec_change_get(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, uint64_t *out_change, struct memos_error *err);
enum memos_status retrieval_vec_change_put(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, uint64_t change, struct memos_error *err);

/* How many entries an encoder has; 0: how many docs are on the list of what is due. */
enum memos_status retrieval_vec_count_get(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, uint32_t encoder, uint64_t *out_count, struct memos_error *err);
enum memos_status retrieval_vec_count_add(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, uint32_t encoder, int64_t more, struct memos_error *err);

/* ---- entries (vectors_entry.c) -------------------------------------------------------------- */

/* An entry read in place. */
struct retrieval_vec_entry {
    uint32_t encoder;
    size_t spans;
    const uint8_t *hash;      /* 16 */
    struct memos_bytes bytes; /* all of it */
};

/* The hash of spans as an entry (or the list of what is due) has it. */
void retrieval_vec_text_hash(
    const uint8_t key[MEMCUBE_DOC_KEY_BYTES], const uint8_t spans_hash[16], uint8_t out[16]);

/* CORRUPT when it has no possible form. */
enum memos_status retrieval_vec_entry_view(
    struct memos_bytes value, struct retrieval_vec_entry *out, struct memos_error *err);

/* What an entry holds, decrypted. Zero-initialise; reuse; finish. */
struct retrieval_vec_codes {
    size_t spans;
    float scales[RETRIEVAL_SPANS_MAX];
    const uint8_t *codes; /* spans rows of the encoder's code_bytes */
    uint8_t *room;
    size_t room_bytes;
};
void retrieval_vec_codes_finish(struct retrieval_vec_codes *codes);

/* Decrypt. CORRUPT: it was changed, or is not of this encoder's sizes; NO_MEMORY. */
enum memos_status retrieval_vec_entry_open(const struct retrieval_vec_entry *entry,
    const struct retrieval_vec_encoder *encoder, const uint8_t key[MEMCUBE_DOC_KEY_BYTES],
    struct retrieval_vec_codes *out, struct memos_error *err);

/* Write the entry of a doc: spans_count vectors (dims) of this encoder. */
enum memos_status retrieval_vec_entry_put(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, uint32_t space, uint32_t doc,
    const struct retrieval_vec_encoder *encoder, const uint8_t key[MEMCUBE_DOC_KEY_BYTES],
    const uint8_t spans_hash[16], const float *values, size_t spans_count, struct memos_error *err);

/* ---- offers (vectors_offer.c) --------------------------------------------------------------- */

struct retrieval_vec_offer;
struct retrieval_vec_known; /* fingerprints and their dims */

struct retrieval_vec_offers {
    pthread_mutex_t lock; /* Sync: guards all below */
    struct retrieval_vec_offer **buckets;
    /* Oldest first. Used ones are kept for a while, since a write may be repeated. */
    struct retrieval_vec_offer_list {
        struct retrieval_vec_offer *oldest, *newest;
        uint64_t count, bytes;
    } fresh, used;
    uint64_t bytes_max, dropped;
    struct retrieval_vec_known *known;
    size_t known_count, known_max;
};
enum memos_status retrieval_vec_offers_init(
    struct retrieval_vec_offers *offers, uint64_t bytes_max, struct memos_error *err);
void retrieval_vec_offers_finish(struct retrieval_vec_offers *offers);
/* Vectors of this encoder will come, with so many dims. INVALID when it had others. */
enum memos_status retrieval_vec_offers_know(struct retrieval_vec_offers *offers,
    const uint8_t fingerprint[32], size_t dims, struct memos_error *err);
/* What was offered for these spans, a copy that the caller frees; NULL: nothing (or no memory for
 * the copy: then it is done later, from the list of what is due). */
float *retrieval_vec_offers_take(struct retrieval_vec_offers *offers,
    const struct retrieval_vec_encoder *encoder, const struct retrieval_spans *spans);

/* Are all values finite? */
bool retrieval_vec_finite(const float *values, size_t count);

/* ---- changes (vectors_change.c) ------------------------------------------------------------- */

struct retrieval_vec_change {
    uint64_t number;
    uint32_t space, doc;
    bool erased;
};
struct retrieval_vec_changes {
    pthread_mutex_t lock;              /* Sync: guards all below */
    struct retrieval_vec_change *list; /* numbers without gaps */
    size_t count, max;
};
void retrieval_vec_changes_init(struct retrieval_vec_changes *changes);
void retrieval_vec_changes_finish(struct retrieval_vec_changes *changes);
/* Count a change in the store and remember it. NO_MEMORY, or the database's. */
enum memos_status retrieval_vec_change_make(struct retrieval_vec_changes *changes,
    const struct retrieval_vec_tables *tables, struct memcube_txn *txn, uint32_t space,
    uint32_t doc, bool erased, struct memos_error *err);
/* The docs of a space that changed after one number and up to another, allocated; the caller frees.
 * *out_known false: they are not remembered any more (or there is no memory to say so). */
void retrieval_vec_changes_between(struct retrieval_vec_changes *changes, uint32_t space,
    uint64_t after, uint64_t through, uint32_t **out_docs, size_t *out_count, bool *out_known);
/* Was something of a space erased after this change, in a write that may have been committed or
 * may yet be? True also when it is not remembered. */
bool retrieval_vec_changes_erased(
    struct retrieval_vec_changes *changes, uint32_t space, uint64_t after);

/* ---- the index as a whole ------------------------------------------------------------------- */

struct retrieval_vec_table;

struct retrieval_vec_files;

struct retrieval_vectors {
    struct memcube_index index;
    struct retrieval_vec_tables tables;
    enum kern_dtype codes;
    uint64_t cache_bytes_max, exact_rows_max;
    enum retrieval_ann_type ann_type;
    struct retrieval_vec_offers offers;
    struct retrieval_vec_changes changes;
    struct retrieval_vec_files *files; /* NULL: no approximate index is saved */

    pthread_mutex_t lock; /* Sync: guards the list of tables, their pins and times of use */
    struct retrieval_vec_table *list;
    uint64_t uses;
    _Atomic uint64_t bytes; /* of all tables */

    /* Sync: where the search for docs with an entry of another encoder goes on; guarded by lock. */
    struct {
        uint64_t turns; /* of the active encoder when it was last moved */
        uint32_t space, doc;
    } sweep;

    /* Sync: counters for stats, any thread. */
    _Atomic uint64_t loads, streamed, damaged, ann_built, ann_loaded, ann_searches;
};

static inline bool retrieval_vec_wanted(const struct memcube_docs *wanted, uint32_t doc)
{
    return doc < wanted->docs_end && (wanted->words[doc / 64] >> (doc % 64) & 1) != 0;
}

/* The codes of a doc's entry, if it has one of this encoder that can be opened: NOT_FOUND (no
 * entry, one of another encoder, forgotten, or damaged: counted). key NULL: it is looked up.
 * *out_other, when not NULL: there is one of another encoder. */
enum memos_status retrieval_vec_doc_load(struct retrieval_vectors *vectors,
    struct memcube_read *read, uint32_t space, uint32_t doc,
    const struct retrieval_vec_encoder *encoder, const uint8_t *key,
    struct retrieval_vec_codes *out, bool *out_other, struct memos_error *err);

/* Is this the active encoder's fingerprint? *out is its record; number 0: it is not. */
enum memos_status retrieval_vec_active_is(struct retrieval_vectors *vectors,
    struct memcube_txn *txn, const uint8_t fingerprint[32], struct retrieval_vec_encoder *out,
    struct memos_error *err);

#endif
