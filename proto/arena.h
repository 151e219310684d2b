/* Memory with one lifetime: a request, a snapshot, a batch.
 *
 * An arena hands out pieces of a few blocks and takes them all back at once. It never passes
 * size_max, so that nothing a peer sends can size our memory.
 *
 * Threads: one arena belongs to one thread at a time. */
#ifndef PROTO_ARENA_H
#define PROTO_ARENA_H

#include "proto/bytes.h"

struct memos_arena_block;

struct memos_arena {
    struct memos_arena_block *blocks; /* newest first */
    size_t used;
    size_t used_most; /* high-water mark since init, for statistics */
    size_t size_max;
};

void memos_arena_init(struct memos_arena *arena, size_t size_max);

/* Free everything. The arena may be used again. */
void memos_arena_finish(struct memos_arena *arena);

/* Take everything back but keep the largest block for the next use. */
void memos_arena_reset(struct memos_arena *arena);

/* count * size bytes, aligned for any type, not cleared; NULL past size_max, on overflow, and
 * without memory. Views until reset or finish. */
void *memos_arena_take(struct memos_arena *arena, size_t count, size_t size);

/* A copy of bytes with a NUL after them (outside size), so that it serves as a C string too. NULL
 * as memos_arena_take. */
void *memos_arena_copy(struct memos_arena *arena, struct memos_bytes bytes);

#endif
