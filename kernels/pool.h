/* A fixed pool of threads that share out numbered pieces of one job.
 *
 * Made for jobs of 20 microseconds: a worker that finds nothing to do looks again for a while
 * before it sleeps, so that the next call of a chain of calls finds it awake; and who asked waits
 * for pieces to be done, not for workers to have come, so that a worker that was not scheduled
 * costs nothing when the others did its share.
 *
 * Threads: one job at a time, by one caller. Workers take no signals. */
#ifndef KERNELS_POOL_H
#define KERNELS_POOL_H

#include "proto/status.h"

#include <stdint.h>

struct kern_pool;

/* threads: those that compute, the caller among them; 1 starts none. NO_MEMORY; IO when a
 * thread cannot be started. */
MEMOS_MUST_USE enum memos_status kern_pool_create(
    unsigned threads, struct kern_pool **out, struct memos_error *err);
void kern_pool_destroy(struct kern_pool **pool); /* takes NULL */

/* A piece: index below count; worker below threads, each value on one thread at a time, so that it
 * can name a share of a workspace. */
typedef void kern_piece(void *self, size_t index, unsigned worker);

/* Run all pieces; returns when they are done, and then sees all that they wrote. */
void kern_pool_run(struct kern_pool *pool, size_t count, kern_piece *piece, void *self);

#endif
