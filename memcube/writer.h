/* Group commit: many threads hand in changes, one thread writes them with one sync per group.
 *
 * A job is a function that makes changes in the write it is given. The writer's thread takes
 * whatever waits (up to a bound), runs the jobs one after the other in one transaction, commits,
 * and only then tells each job how it ended. A job that fails without breaking the write loses
 * nothing for the others; one that breaks it (disk full, map full) makes the group be run anew,
 * after growing the map or one by one, so that only the guilty job fails.
 *
 * A job may therefore run more than once: it must keep what it computed in its own memory and reset
 * it at its start. */
#ifndef MEMCUBE_WRITER_H
#define MEMCUBE_WRITER_H

#include "memcube/store.h"

struct memcube_writer;

struct memcube_writer_job {
    /* Make the changes; on the writer's thread. */
    enum memos_status (*run)(void *self, struct memcube_write *write, struct memos_error *err);
    /* The end: committed (OK) or not. On the writer's thread; must be quick. `err` is NULL when
     * OK. A job that forgot something is told what hindered it, too, when all is committed but
     * what it forgot could not be destroyed. The store tries that again with every commit, and when
     * it is opened; to forget the same ids again tells whether it is done. */
    void (*done)(void *self, enum memos_status status, const struct memos_error *err);
    void *self;

    /* The writer's own. */
    struct memcube_writer_job *next;
    enum memos_status status;
    struct memos_error err;
    bool forgot;
};

struct memcube_writer_options {
    size_t queue_max; /* jobs that may wait. 0: 4096 */
    size_t group_max; /* jobs in one transaction. 0: 512 */
    int64_t sweep_every_us; /* run memcube_sweep this often; 0: never */
};

/* Starts the thread. Borrows the store until destroy. */
MEMOS_MUST_USE enum memos_status memcube_writer_create(struct memcube_store *store,
    const struct memcube_writer_options *options, struct memcube_writer **out_writer,
    struct memos_error *err);

/* Finish what waits, stop the thread. Takes NULL. */
void memcube_writer_destroy(struct memcube_writer **writer);

/* Hand in a job; it belongs to the writer until done is called. BUSY when the queue is full: done
 * is not called then. Any thread. */
MEMOS_MUST_USE enum memos_status memcube_writer_submit(struct memcube_writer *writer,
    struct memcube_writer_job *job, struct memos_error *err);

/* Run one job and wait for its end. Any thread but the writer's. */
MEMOS_MUST_USE enum memos_status memcube_writer_run(struct memcube_writer *writer,
    enum memos_status (*run)(void *, struct memcube_write *, struct memos_error *), void *self,
    struct memos_error *err);

struct memcube_writer_stats {
    uint64_t jobs, groups, group_largest, refused, waiting;
};
void memcube_writer_stats(struct memcube_writer *writer, struct memcube_writer_stats *out);

#endif
