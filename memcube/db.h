/* Persistence, as narrow as it can be: transactions, tables of ordered keys, cursors.
 *
 * Nothing above this header knows LMDB (memcube/db_lmdb.c does); another engine can stand behind
 * it.
 *
 * A database has named tables. A *map* table keeps one value per key. A *set* table keeps, under
 * one key, a sorted set of values that all have the same size (postings). Keys are 1..511 bytes and
 * sort as memcmp sorts them.
 *
 * Caveats: one process opens a database at a time (a lock file says who else has it). A forked
 * child must not use it. A read transaction pins the pages that it sees: keep it short; the map
 * cannot grow while one is open (growing waits for the readers, and new readers wait for it).
 *
 * Threads: a memcube_db may be shared. A transaction belongs to one thread. There is one write
 * transaction at a time; a second waits. Readers never wait for a writer. A thread that holds a
 * transaction must not begin another, nor grow: it could wait for itself.
 *
 * Lifetimes: a view that a transaction returns is read-only and dies with the transaction, in a
 * write transaction already with its next change.
 *
 * Errors: NOT_FOUND; NO_SPACE (disk full, or the map is full: memcube_txn_map_full tells, and
 * memcube_db_grow mends it); IO; CORRUPT; NO_MEMORY; BUSY (another process has the database). */
#ifndef MEMCUBE_DB_H
#define MEMCUBE_DB_H

#include "proto/bytes.h"

struct memcube_db;
struct memcube_txn;
struct memcube_cursor;

/* A table's handle, valid as long as the database is open. */
typedef unsigned memcube_table;

enum memcube_table_type {
    MEMCUBE_TABLE_MAP,
    MEMCUBE_TABLE_SET,
};

struct memcube_db_options {
    const char *path;        /* folder; made with 0700 when missing (not when read_only) */
    uint64_t map_bytes;      /* to begin with; grows by doubling. 0: 1 GiB */
    uint64_t map_bytes_max;  /* 0: as far as the address space goes */
    unsigned readers_max;    /* threads that read at once. 0: 126 */
    bool read_only;
    bool sync_off;           /* no fsync: for bulk tests only */
};

MEMOS_MUST_USE enum memos_status memcube_db_open(const struct memcube_db_options *options,
    struct memcube_db **out_db, struct memos_error *err);

/* All transactions must have ended. Takes NULL and half-built ones; sets *db to NULL. */
void memcube_db_close(struct memcube_db **db);

/* Open a table, making it when missing. Only before the first transaction of another thread. */
MEMOS_MUST_USE enum memos_status memcube_db_table(struct memcube_db *db, const char *name,
    enum memcube_table_type type, memcube_table *out_table, struct memos_error *err);

/* A snapshot to read. */
MEMOS_MUST_USE enum memos_status memcube_txn_read(
    struct memcube_db *db, struct memcube_txn **out_txn, struct memos_error *err);

/* The one write transaction; waits for the one before it. */
MEMOS_MUST_USE enum memos_status memcube_txn_write(
    struct memcube_db *db, struct memcube_txn **out_txn, struct memos_error *err);

/* Make the changes durable (one sync) and end the transaction, whatever happens. On failure nothing
 * of it is in the database. */
MEMOS_MUST_USE enum memos_status memcube_txn_commit(
    struct memcube_txn **txn, struct memos_error *err);

/* End without a change. Takes NULL. */
void memcube_txn_abort(struct memcube_txn **txn);

/* Has a change in this transaction failed so that it can only be aborted (map full, disk, memory)?
 * After an abort for a full map, memcube_db_grow makes room and the transaction can be tried
 * anew. */
bool memcube_txn_broken(const struct memcube_txn *txn);
bool memcube_txn_map_full(const struct memcube_txn *txn);

/* The same for one that has ended: did the last write transaction fail for a full map? A commit
 * can, too. Any thread. */
bool memcube_db_map_full(struct memcube_db *db);

/* Double the map. Waits until all transactions have ended. NO_SPACE when it has its largest
 * size. */
MEMOS_MUST_USE enum memos_status memcube_db_grow(struct memcube_db *db, struct memos_error *err);

/* The value under key (map tables). NOT_FOUND leaves *out alone. */
MEMOS_MUST_USE enum memos_status memcube_get(struct memcube_txn *txn, memcube_table table,
    struct memos_bytes key, struct memos_bytes *out_value, struct memos_error *err);

/* Set the value under key; replaces. In a set table: add the value; already there is OK. */
MEMOS_MUST_USE enum memos_status memcube_put(struct memcube_txn *txn, memcube_table table,
    struct memos_bytes key, struct memos_bytes value, struct memos_error *err);

/* As memcube_put in a map table, but the bytes are for the caller to fill before the next
 * change. */
MEMOS_MUST_USE enum memos_status memcube_put_room(struct memcube_txn *txn, memcube_table table,
    struct memos_bytes key, size_t value_bytes, void **out_room, struct memos_error *err);

/* Remove a key with everything under it (value.data NULL), or one value of a set table. NOT_FOUND
 * when it is not there. */
MEMOS_MUST_USE enum memos_status memcube_delete(struct memcube_txn *txn, memcube_table table,
    struct memos_bytes key, struct memos_bytes value, struct memos_error *err);

/* Cursors: open, move, close before the transaction ends. */
MEMOS_MUST_USE enum memos_status memcube_cursor_open(struct memcube_txn *txn, memcube_table table,
    struct memcube_cursor **out_cursor, struct memos_error *err);
void memcube_cursor_close(struct memcube_cursor **cursor);

enum memcube_move {
    MEMCUBE_FIRST,
    MEMCUBE_LAST,
    MEMCUBE_NEXT,
    MEMCUBE_PREVIOUS,
    MEMCUBE_AT_OR_AFTER, /* *key: the first key >= it */
    MEMCUBE_AT,          /* *key: exactly it */
    MEMCUBE_NEXT_KEY,    /* set tables: skip the rest of this key's set */
};

/* Move, then view key and value. NOT_FOUND past the end. */
MEMOS_MUST_USE enum memos_status memcube_cursor_move(struct memcube_cursor *cursor,
    enum memcube_move move, struct memos_bytes *key, struct memos_bytes *value,
    struct memos_error *err);

/* Set tables: view as many values of the current key at once as lie together (a multiple of the
 * value's size); call again for the next piece; NOT_FOUND after the last. `first` true begins with
 * the current key's first value. This is how postings are read. */
MEMOS_MUST_USE enum memos_status memcube_cursor_values(struct memcube_cursor *cursor, bool first,
    struct memos_bytes *out_values, struct memos_error *err);

/* Set tables: go to the first value >= *value under key; view it. NOT_FOUND when there is none. */
MEMOS_MUST_USE enum memos_status memcube_cursor_value_at_or_after(struct memcube_cursor *cursor,
    struct memos_bytes key, struct memos_bytes *value, struct memos_error *err);

/* How many values the current key has. */
MEMOS_MUST_USE enum memos_status memcube_cursor_count(
    struct memcube_cursor *cursor, uint64_t *out_count, struct memos_error *err);

/* Remove what the cursor stands on. */
MEMOS_MUST_USE enum memos_status memcube_cursor_delete(
    struct memcube_cursor *cursor, struct memos_error *err);

/* Sizes, for `stats`. */
struct memcube_db_stats {
    uint64_t map_bytes, file_bytes, used_bytes, entries, last_txn;
    uint64_t grown; /* how often the map was doubled since opening */
    unsigned readers, readers_max;
};
MEMOS_MUST_USE enum memos_status memcube_db_stats(
    struct memcube_db *db, struct memcube_db_stats *out, struct memos_error *err);

/* For benchmarks: called for every put and delete of every write transaction (value.data NULL for a
 * delete), so that the same bytes can be written to the bare engine. NULL turns it off. Set before
 * the first write. */
typedef void memcube_db_trace_fn(void *self, const char *table_name, enum memcube_table_type type,
    struct memos_bytes key, struct memos_bytes value, bool is_delete);
void memcube_db_trace(struct memcube_db *db, memcube_db_trace_fn *fn, void *self);

#endif
