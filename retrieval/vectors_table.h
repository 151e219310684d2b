/* A space's codes in memory, row after row: what an exact search reads.
 *
 * Rows lie in blocks that never move while anybody may read them; a doc's rows lie beside each
 * other in one block. New rows are written behind the end and then published by moving it, so
 * appending and searching do not meet. Only what takes rows away (forget), and the first block's
 * growing, wait for the searches that are going on, and new searches for them: `scanning`.
 *
 * A table is a cache. It is brought up to date at the beginning of a search from the search's own
 * snapshot, and never shows less than that snapshot has. It may show more: docs that a newer
 * snapshot brought. `wanted` (memcube_docs) leaves those out, or, where a doc of the older snapshot
 * got its vectors meanwhile, they are right. It is never filled from inside a write.
 *
 * Not for use outside retrieval/. */
#ifndef RETRIEVAL_VECTORS_TABLE_H
#define RETRIEVAL_VECTORS_TABLE_H

#include "retrieval/vectors_internal.h"

enum {
    RETRIEVAL_VEC_BLOCK_ROWS = 1024,
    RETRIEVAL_VEC_BLOCK_DOCS = 1024,
    RETRIEVAL_VEC_FIRST_ROWS = 64, /* a small space's only block begins as small as this */
};
_Static_assert((int)RETRIEVAL_SPANS_MAX <= (int)RETRIEVAL_VEC_FIRST_ROWS, "a doc fits");

struct retrieval_vec_block {
    float scales[RETRIEVAL_VEC_BLOCK_ROWS];
    uint32_t docs[RETRIEVAL_VEC_BLOCK_ROWS]; /* 0: there is none (any more) */
    uint8_t *codes;                          /* 64-byte aligned, rows without gaps */
    size_t rows_max;                         /* that codes has room for */
};

struct retrieval_vec_docs {
    _Atomic uint32_t first[RETRIEVAL_VEC_BLOCK_DOCS]; /* row + 1; 0: none */
    _Atomic uint64_t have[RETRIEVAL_VEC_BLOCK_DOCS / 64];
};

/* Pointers that a growing array keeps readable: old arrays live as long as the table. */
struct retrieval_vec_directory {
    void **_Atomic slots;
    size_t count, max;
    void **old[32]; /* each half as large as the next */
    size_t old_count;
};

struct retrieval_vec_ann; /* vectors_ann.c */

struct retrieval_vec_table {
    struct retrieval_vec_table *next; /* list, pins, used: under vectors->lock */
    unsigned pins;
    uint64_t used;

    uint32_t space;
    struct memos_id space_id;
    struct retrieval_vec_encoder encoder;

    pthread_mutex_t updating;  /* Sync: one thread brings it up to date */
    pthread_rwlock_t scanning; /* Sync: read while rows are looked at, written to take them away */
    struct retrieval_vec_directory blocks, docs;
    _Atomic uint64_t rows;         /* published */
    _Atomic uint32_t docs_through; /* docs up to this were looked up */
    _Atomic uint64_t change;       /* changes up to this one are in it */
    _Atomic uint64_t replaced;     /* an older snapshot than this change sees more than is here */
    _Atomic uint64_t bytes;
    _Atomic uint64_t rows_gone;
    bool begun, refused; /* under updating */
    uint64_t epoch;      /* under scanning: how often it began anew, with other rows */

    pthread_mutex_t ann_lock; /* Sync: guards the two below, and who uses the index */
    struct retrieval_vec_ann *ann;
    struct retrieval_vec_ann_plan {
        bool load_tried;
        uint64_t gone_seen;  /* rows gone when work was last looked for */
        uint64_t rows_least; /* after a failure: not before there are so many rows */
    } plan;
};

static inline struct retrieval_vec_block *retrieval_vec_block_at(
    const struct retrieval_vec_table *table, uint64_t row)
{
    void **slots = atomic_load_explicit(&table->blocks.slots, memory_order_acquire);
    return slots[row / RETRIEVAL_VEC_BLOCK_ROWS];
}

/* NULL past what was looked up. */
static inline struct retrieval_vec_docs *retrieval_vec_docs_at(
    const struct retrieval_vec_table *table, uint32_t doc)
{
    if (doc > atomic_load_explicit(&table->docs_through, memory_order_acquire)) {
        return NULL;
    }
    void **slots = atomic_load_explicit(&table->docs.slots, memory_order_acquire);
    return slots[doc / RETRIEVAL_VEC_BLOCK_DOCS];
}

/* A doc's first row; false: it has none. Its others follow, in the same block. */
static inline bool retrieval_vec_row_of(
    const struct retrieval_vec_table *table, uint32_t doc, uint64_t *out_row)
{
    struct retrieval_vec_docs *docs = retrieval_vec_docs_at(table, doc);
    const uint32_t first = docs ? atomic_load_explicit(&docs->first[doc % RETRIEVAL_VEC_BLOCK_DOCS],
                                      memory_order_acquire)
                                : 0;
    *out_row = (uint64_t)first - 1;
    return first != 0;
}

/* How many rows the doc that has this first row has. Held (below), or under updating. */
static inline size_t retrieval_vec_spans_at(const struct retrieval_vec_table *table, uint64_t row)
{
    const struct retrieval_vec_block *block = retrieval_vec_block_at(table, row);
    const uint64_t left = atomic_load_explicit(&table->rows, memory_order_acquire) - row;
    const size_t at = row % RETRIEVAL_VEC_BLOCK_ROWS;
    const size_t most =
        left < RETRIEVAL_VEC_BLOCK_ROWS - at ? (size_t)left : RETRIEVAL_VEC_BLOCK_ROWS - at;
    size_t count = 1;
    while (count < most && block->docs[at + count] == block->docs[at]) {
        count++;
    }
    return count;
}

/* The table of a space, that shows all that the snapshot has; held until it is given back, so that
 * no row goes meanwhile (a thread holds one at a time). *out_table NULL and OK: there is no room
 * for it, or it shows less than this old snapshot: read the store. load false: only when it is
 * there and up to date. */
enum memos_status retrieval_vec_table_take(struct retrieval_vectors *vectors,
    struct memcube_read *read, const struct memcube_space *space,
    const struct retrieval_vec_encoder *encoder, bool load, struct retrieval_vec_table **out_table,
    struct memos_error *err);
void retrieval_vec_table_give(struct retrieval_vectors *vectors, struct retrieval_vec_table *table);

/* Undo pins++ (under vectors->lock). */
void retrieval_vec_table_unpin(
    struct retrieval_vectors *vectors, struct retrieval_vec_table *table);

/* Drop all; nobody uses any. */
void retrieval_vec_tables_drop(struct retrieval_vectors *vectors);

/* ---- approximate indexes (vectors_ann.c) ---------------------------------------------------- */

/* The approximate index of a table, in use until it is given back; NULL. */
struct retrieval_vec_ann *retrieval_vec_ann_take(struct retrieval_vec_table *table);
void retrieval_vec_ann_give(struct retrieval_vec_table *table, struct retrieval_vec_ann *ann);

/* Candidates among the wanted docs: rows by approximate score, or where the index has lists those
 * of the nearest, and the rows that it does not cover. All in arena. Under scanning. */
struct retrieval_vec_candidates {
    uint64_t *marks; /* a bit for each row before rest_from, `rest` among them; NULL: rows it is */
    uint64_t *rows;  /* named by the index */
    size_t rows_count;
    uint64_t rest_from;   /* all rows from this one on are not covered */
    const uint32_t *rest; /* nor are these before it */
    size_t rest_count;
};
enum memos_status retrieval_vec_ann_search(const struct retrieval_vec_table *table,
    const struct retrieval_vec_ann *ann, const float *query, const struct memcube_docs *wanted,
    size_t top_k, struct memos_arena *arena, struct retrieval_vec_candidates *out,
    struct memos_error *err);

/* Let go of the table's index, if it has one: who uses it may finish. False: it had none. */
bool retrieval_vec_ann_drop(struct retrieval_vectors *vectors, struct retrieval_vec_table *table);
uint64_t retrieval_vec_ann_bytes(struct retrieval_vec_table *table);

/* Count bytes onto all tables', dropping tables that are not used where the bound wants it. False:
 * there is no room. */
bool retrieval_vec_bytes_take(struct retrieval_vectors *vectors, uint64_t bytes);

/* ---- their files (vectors_file.c) ----------------------------------------------------------- */

/* Finds what lies in the folder (made when missing). */
enum memos_status retrieval_vec_files_open(
    const char *folder, struct retrieval_vec_files **out_files, struct memos_error *err);
void retrieval_vec_files_close(struct retrieval_vec_files **files);

/* Which docs the rows of a saved index had: one number a row, 0 for none. */
struct retrieval_vec_saved {
    uint32_t *docs; /* malloc */
    uint64_t count;
};

/* Save an index and the docs of its rows, unless something of the space was erased after `change`:
 * CONFLICT then. */
enum memos_status retrieval_vec_file_save(struct retrieval_vectors *vectors,
    const struct retrieval_vec_table *table, const struct retrieval_ann *ann,
    const struct retrieval_vec_saved *docs, uint64_t change, struct memos_error *err);
/* NOT_FOUND; CORRUPT and CONFLICT: it is of no use. */
enum memos_status retrieval_vec_file_load(struct retrieval_vectors *vectors,
    const struct retrieval_vec_table *table, struct retrieval_ann **out_ann,
    struct retrieval_vec_saved *out_docs, struct memos_error *err);
/* Destroy everything of a space, durably: overwritten with zeros, removed. OK when there is
 * nothing. */
enum memos_status retrieval_vec_file_erase(
    struct retrieval_vec_files *files, uint32_t space, struct memos_error *err);

/* The file of docs, checked; out->docs is malloc'ed. For vectors_file.c and its fuzz target. */
enum memos_status retrieval_vec_saved_decode(
    struct memos_bytes bytes, struct retrieval_vec_saved *out, struct memos_error *err);

#endif
