/* The same keys and bytes to bare LMDB: records what the store writes, and replays it in plain
 * transactions, so that what differs is only what the store does around the engine.
 *
 * Threads: a trace belongs to one thread at a time (the store's writer, then main). */
#ifndef TESTS_BENCH_BARE_H
#define TESTS_BENCH_BARE_H

#include "memcube/db.h"

struct bare_trace;

struct bare_trace *bare_trace_make(void);
void bare_trace_free(struct bare_trace **trace);

/* A memcube_db_trace_fn; self is the trace. */
void bare_trace_add(void *self, const char *table_name, enum memcube_table_type type,
    struct memos_bytes key, struct memos_bytes value, bool is_delete);

/* What came since the last mark belongs to one put. */
void bare_trace_mark(struct bare_trace *trace);

/* Marks, changes and bytes (keys and values) of the whole trace. */
struct bare_trace_size {
    size_t marks, changes, bytes;
};
struct bare_trace_size bare_trace_size(const struct bare_trace *trace);

/* Write the first `marks` puts of the trace into a new database in folder (made), in `groups`
 * transactions of as many puts each, every one synced. transaction_ns: room for the time of each
 * transaction, or NULL. Returns the seconds that it took. */
double bare_replay(const struct bare_trace *trace, const char *folder, size_t marks, size_t groups,
    int64_t *transaction_ns);

#endif
