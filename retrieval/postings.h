/* The lexical index's tables, and how an entry gets in and out of them.
 *
 *   lex.doc     map  space u32 BE, doc u32 BE     -> length u32 LE, (term u64 BE, count u16 LE)*
 *   lex.post    set  space u32 BE, term u64 BE    -> doc u32 BE, count u16 LE
 *   lex.merged  map  space u32 BE                 -> u32 LE for each shard of terms
 *   lex.len     map  space u32 BE, chunk u32 BE   -> 256 lengths, u16 LE each; 0: no entry
 *
 * A new doc's words are written to lex.doc alone, one value at the table's end. Postings are made
 * later, of many docs at once: terms fall into RETRIEVAL_SHARDS shards by their highest bits, and
 * each time RETRIEVAL_TAIL_DOCS / RETRIEVAL_SHARDS docs have come, one shard, in turn, gets the
 * postings of all docs that it lacks. Since a shard's postings lie side by side, that touches few
 * pages, where the postings of a single doc touch one each. What has no postings yet, the *tail*,
 * is never more than the last RETRIEVAL_TAIL_DOCS or so docs, and a search reads it from lex.doc.
 *
 *  R1 a doc that is searched has an entry in lex.doc; its terms are sorted, each once, none with
 *     count 0;
 *  R2 a term of an entry has a posting exactly when the doc is not above what lex.merged says of
 * the term's shard; there are no other postings; R3 a doc's length in lex.len is that of its entry,
 * but at least 1 and at most 65535.
 *
 * What a doc is, memcube/index.h says. An entry is taken out by what lex.doc says, never by making
 * the words anew, so that other word rules than those it was made with do no harm. */
#ifndef RETRIEVAL_POSTINGS_H
#define RETRIEVAL_POSTINGS_H

#include "memcube/db.h"
#include "retrieval/terms.h"

#include <endian.h>
#include <string.h>

struct retrieval_tables {
    memcube_table doc, post, merged, len;
};

#define RETRIEVAL_SHARDS 32u
#define RETRIEVAL_SHARD_SHIFT 59  /* of a term, to get its shard */
#define RETRIEVAL_TAIL_DOCS 2048u /* a multiple of RETRIEVAL_SHARDS */

#define RETRIEVAL_TERM_KEY_BYTES 12 /* key in lex.post */
#define RETRIEVAL_DOC_KEY_BYTES 8   /* key in lex.doc and lex.len */
#define RETRIEVAL_POSTING_BYTES 6
#define RETRIEVAL_ENTRY_TERM_BYTES 10
#define RETRIEVAL_COUNT_MAX 65535u
#define RETRIEVAL_LENGTH_MAX 65535u
#define RETRIEVAL_CHUNK_DOCS 256u
#define RETRIEVAL_CHUNK_BYTES (RETRIEVAL_CHUNK_DOCS * 2)

/* A document's number and how often it has the term. */
struct retrieval_posting {
    uint32_t doc;
    uint32_t count;
};

/* Read the posting at `at` (RETRIEVAL_POSTING_BYTES bytes). */
static inline struct retrieval_posting retrieval_posting_read(const uint8_t *at)
{
    return (struct retrieval_posting){
        .doc = (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3],
        .count = (uint32_t)at[4] | (uint32_t)at[5] << 8,
    };
}

/* Write it (a count too large is cut); a view of out. */
struct memos_bytes retrieval_posting_write(
    uint8_t out[RETRIEVAL_POSTING_BYTES], struct retrieval_posting posting);

/* What lex.doc keeps of a doc, read in place. */
struct retrieval_entry_view {
    uint32_t length;
    const uint8_t *terms; /* terms_count times RETRIEVAL_ENTRY_TERM_BYTES */
    size_t terms_count;
};

/* CORRUPT when the size is none that an entry can have. */
MEMOS_MUST_USE enum memos_status retrieval_entry_view(
    struct memos_bytes value, struct retrieval_entry_view *out, struct memos_error *err);

static inline uint64_t retrieval_entry_term(const struct retrieval_entry_view *entry, size_t i)
{
    uint64_t term;
    memcpy(&term, entry->terms + i * RETRIEVAL_ENTRY_TERM_BYTES, sizeof term);
    return be64toh(term);
}

static inline uint32_t retrieval_entry_count(const struct retrieval_entry_view *entry, size_t i)
{
    const uint8_t *at = entry->terms + i * RETRIEVAL_ENTRY_TERM_BYTES + 8;
    return (uint32_t)at[0] | (uint32_t)at[1] << 8;
}

/* The first of its terms from index `from` on that is not below `term`; terms_count if none. */
size_t retrieval_entry_find(const struct retrieval_entry_view *entry, size_t from, uint64_t term);

/* Make keys. */
struct memos_bytes retrieval_term_key(
    uint8_t out[RETRIEVAL_TERM_KEY_BYTES], uint32_t space, uint64_t term);
struct memos_bytes retrieval_space_key(uint8_t out[RETRIEVAL_DOC_KEY_BYTES], uint32_t space);
struct memos_bytes retrieval_doc_key(
    uint8_t out[RETRIEVAL_DOC_KEY_BYTES], uint32_t space, uint32_t doc_or_chunk);

/* Open or make the tables. */
MEMOS_MUST_USE enum memos_status retrieval_tables_open(
    struct memcube_db *db, struct retrieval_tables *out_tables, struct memos_error *err);

/* What a doc's words came to. */
struct retrieval_entry {
    uint32_t space, doc;
    uint32_t length;                    /* words in all */
    const struct retrieval_term *terms; /* sorted by hash */
    size_t terms_count;
};

/* Write the entry of a doc that has none, and make the postings that are due. */
MEMOS_MUST_USE enum memos_status retrieval_entry_add(const struct retrieval_tables *tables,
    struct memcube_txn *txn, const struct retrieval_entry *entry, struct memos_error *err);

/* Remove a doc's entry and its postings; OK when there is none. Of an entry that cannot be read,
 * all postings of the space are gone through. */
MEMOS_MUST_USE enum memos_status retrieval_entry_erase(const struct retrieval_tables *tables,
    struct memcube_txn *txn, uint32_t space, uint32_t doc, struct memos_error *err);

/* Is the doc's entry exactly this one? CORRUPT says what is not. */
MEMOS_MUST_USE enum memos_status retrieval_entry_check(const struct retrieval_tables *tables,
    struct memcube_txn *txn, const struct retrieval_entry *entry, struct memos_error *err);

#endif
