/* Threads that take requests from one queue.
 *
 * The queue has no bound of its own: the front thread bounds how many requests there are at all.
 *
 * Threads: submit from any; create and destroy from one. */
#ifndef MEMOS_BROKER_POOL_H
#define MEMOS_BROKER_POOL_H

#include "memos/broker/request.h"

struct broker_pool;

struct broker_pool_options {
    const char *name; /* of the threads, at most 15 bytes */
    size_t threads;
    /* Run one request. `worker` is the thread's own, what begin gave. */
    void (*run)(void *worker, struct broker_request *rq);
    void *(*begin)(void *self); /* at the thread's start; may give NULL */
    void (*idle)(void *worker); /* before it waits: let go of what others wait for */
    void (*end)(void *worker);
    void *self;
};

MEMOS_MUST_USE enum memos_status broker_pool_create(const struct broker_pool_options *options,
    struct broker_pool **out_pool, struct memos_error *err);

/* Run what waits, then stop the threads. Takes NULL. */
void broker_pool_destroy(struct broker_pool **pool);

/* Hand over `count` requests, linked by next. */
void broker_pool_submit(struct broker_pool *pool, struct broker_request *first,
    struct broker_request *last, size_t count);

/* How many wait (and do not run yet). Any thread; a moment's truth. */
size_t broker_pool_waiting(const struct broker_pool *pool);

#endif
