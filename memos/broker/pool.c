#include "memos/broker/pool.h"

#include <errno.h>
#include <stdlib.h>

struct broker_pool {
    struct broker_pool_options options;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct broker_request *first, **tail; /* under lock */
    atomic_size_t waiting;                /* written under lock */
    size_t idle;                          /* under lock */
    bool stop;                            /* under lock */
    pthread_t *threads;
    size_t threads_count;
};

/* The next request; NULL when the pool stops. Waits; calls idle before it does. */
static struct broker_request *pool_take(struct broker_pool *pool, void *worker)
{
    (void)pthread_mutex_lock(&pool->lock);
    if (!pool->first && !pool->stop) {
        (void)pthread_mutex_unlock(&pool->lock);
        pool->options.idle(worker);
        (void)pthread_mutex_lock(&pool->lock);
    }
    pool->idle++;
    while (!pool->first && !pool->stop) {
        (void)pthread_cond_wait(&pool->wake, &pool->lock);
    }
    pool->idle--;
    struct broker_request *rq = pool->first;
    if (rq) {
        pool->first = rq->next;
        pool->tail = pool->first ? pool->tail : &pool->first;
        rq->next = NULL;
        atomic_fetch_sub_explicit(&pool->waiting, 1, memory_order_relaxed);
    }
    (void)pthread_mutex_unlock(&pool->lock);
    return rq;
}

static void *pool_main(void *self)
{
    struct broker_pool *pool = self;
    void *worker = pool->options.begin(pool->options.self);
    for (struct broker_request *rq; (rq = pool_take(pool, worker)) != NULL;) {
        pool->options.run(worker, rq);
    }
    pool->options.end(worker);
    return NULL;
}

enum memos_status broker_pool_create(const struct broker_pool_options *options,
    struct broker_pool **out_pool, struct memos_error *err)
{
    struct broker_pool *pool = calloc(1, sizeof *pool);
    if (!pool) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a pool of threads");
    }
    pool->options = *options;
    pool->tail = &pool->first;
    (void)pthread_mutex_init(&pool->lock, NULL);
    (void)pthread_cond_init(&pool->wake, NULL);
    pool->threads = calloc(options->threads, sizeof *pool->threads);
    int failed = pool->threads ? 0 : ENOMEM;
    while (!failed && pool->threads_count < options->threads) {
        pthread_t *thread = &pool->threads[pool->threads_count];
        failed = pthread_create(thread, NULL, pool_main, pool);
        if (!failed) {
            (void)pthread_setname_np(*thread, options->name);
            pool->threads_count++;
        }
    }
    if (failed) {
        broker_pool_destroy(&pool);
        return memos_fail_errno(err, failed, "cannot start the threads of %s", options->name);
    }
    *out_pool = pool;
    return MEMOS_OK;
}

void broker_pool_destroy(struct broker_pool **pool)
{
    struct broker_pool *it = *pool;
    *pool = NULL;
    if (!it) {
        return;
    }
    (void)pthread_mutex_lock(&it->lock);
    it->stop = true;
    (void)pthread_cond_broadcast(&it->wake);
    (void)pthread_mutex_unlock(&it->lock);
    for (size_t i = 0; i < it->threads_count; i++) {
        (void)pthread_join(it->threads[i], NULL);
    }
    (void)pthread_cond_destroy(&it->wake);
    (void)pthread_mutex_destroy(&it->lock);
    free(it->threads);
    free(it);
}

void broker_pool_submit(struct broker_pool *pool, struct broker_request *first,
    struct broker_request *last, size_t count)
{
    (void)pthread_mutex_lock(&pool->lock);
    last->next = NULL;
    *pool->tail = first;
    pool->tail = &last->next;
    atomic_fetch_add_explicit(&pool->waiting, count, memory_order_relaxed);
    for (size_t i = 0; i < count && i < pool->idle; i++) {
        (void)pthread_cond_signal(&pool->wake);
    }
    (void)pthread_mutex_unlock(&pool->lock);
}

size_t broker_pool_waiting(const struct broker_pool *pool)
{
    return atomic_load_explicit(&pool->waiting, memory_order_relaxed);
}
