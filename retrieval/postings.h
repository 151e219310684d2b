/* The lexical index's tables, and how an entry gets in and out of them.
 *
 *   lex.post  set  space u32 BE, term u64 BE    -> doc u32 BE, count u16 LE
 *   lex.doc   map  space u32 BE, doc u32 BE     -> length u32 LE, then (term u64 BE, count u16 LE)*
 *   lex.len   map  space u32 BE, chunk u32 BE   -> 256 lengths, u16 LE each; 0: no entry
 *
 *  R1 a doc has an entry in lex.doc, and for each term in it one posting, and no other postings;
 *  R2 its terms are sorted, each once, none with count 0;
 *  R3 its length in lex.len is that of its entry, but at least 1 and at most 65535.
 *
 * What a doc is, memcube/index.h says. An entry is taken out by what lex.doc says, never by making
 * the words anew, so that other word rules than those it was made with do no harm. */
#ifndef RETRIEVAL_POSTINGS_H
#define RETRIEVAL_POSTINGS_H

#include "memcube/db.h"
#include "retrieval/terms.h"

struct retrieval_tables {
    memcube_table post, doc, len;
};

#define RETRIEVAL_TERM_KEY_BYTES 12 /* key in lex.post */
#define RETRIEVAL_DOC_KEY_BYTES 8   /* key in lex.doc and lex.len */
#define RETRIEVAL_POSTING_BYTES 6
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

/* Make keys. */
struct memos_bytes retrieval_term_key(
    uint8_t out[RETRIEVAL_TERM_KEY_BYTES], uint32_t space, uint64_t term);
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

/* Write an entry. Of a doc that has none. */
MEMOS_MUST_USE enum memos_status retrieval_entry_add(const struct retrieval_tables *tables,
    struct memcube_txn *txn, const struct retrieval_entry *entry, struct memos_error *err);

/* Remove a doc's entry; OK when there is none. */
MEMOS_MUST_USE enum memos_status retrieval_entry_erase(const struct retrieval_tables *tables,
    struct memcube_txn *txn, uint32_t space, uint32_t doc, struct memos_error *err);

/* Is the doc's entry exactly this one? CORRUPT says what is not. */
MEMOS_MUST_USE enum memos_status retrieval_entry_check(const struct retrieval_tables *tables,
    struct memcube_txn *txn, const struct retrieval_entry *entry, struct memos_error *err);

#endif
