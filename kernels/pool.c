#include "kernels/pool.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Looks before sleeping: some 30 microseconds, the time of one small product. */
#define SPINS 1500

/* The ticket is the number of the job (upper half) and how many of its pieces nobody has taken
 * (lower half). A piece is taken by counting down, and only while there is one: the fields of a job
 * change only when all its pieces are done, so what was read before a count that succeeded belongs
 * to the job that was counted in. */
struct kern_pool {
    _Alignas(64) _Atomic uint64_t ticket;
    _Atomic(kern_piece *) piece;
    _Atomic(void *) self;
    _Atomic uint32_t count;
    _Alignas(64) _Atomic uint32_t pending; /* pieces not done; the caller sleeps on it */
    _Atomic uint32_t caller_sleeps;
    _Alignas(64) _Atomic uint32_t call; /* counts jobs; workers sleep on it */
    _Atomic uint32_t sleepers;
    _Atomic uint32_t quit;
    unsigned threads;
    struct worker {
        struct kern_pool *pool;
        pthread_t thread;
        unsigned number;
    } * workers;
    unsigned started;
};

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    (void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int count)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

/* Take and do pieces until none is left. */
static void work(struct kern_pool *pool, unsigned worker)
{
    uint64_t ticket = atomic_load(&pool->ticket);
    while ((uint32_t)ticket != 0) {
        kern_piece *piece = atomic_load_explicit(&pool->piece, memory_order_relaxed);
        void *self = atomic_load_explicit(&pool->self, memory_order_relaxed);
        uint32_t count = atomic_load_explicit(&pool->count, memory_order_relaxed);
        if (!atomic_compare_exchange_weak(&pool->ticket, &ticket, ticket - 1)) {
            continue;
        }
        piece(self, count - (uint32_t)ticket, worker);
        if (atomic_fetch_sub(&pool->pending, 1) == 1 && worker != 0 &&
            atomic_load(&pool->caller_sleeps)) {
            futex_wake(&pool->pending, 1);
        }
        ticket = atomic_load(&pool->ticket);
    }
}

static void *worker_main(void *arg)
{
    struct worker *me = arg;
    struct kern_pool *pool = me->pool;
    for (;;) {
        /* Before work, so that no call is missed, and before quit, which is raised before `call`:
         * who reads the last call sees that it is the last. */
        uint32_t call = atomic_load(&pool->call);
        unsigned spins = 0;
        if (atomic_load(&pool->quit)) {
            return NULL;
        }
        work(pool, me->number);
        while (spins < SPINS && atomic_load_explicit(&pool->call, memory_order_relaxed) == call) {
            relax();
            spins++;
        }
        if (spins < SPINS) {
            continue;
        }
        /* Who raises `call` looks at sleepers after it; futex_wait looks at `call` after this. */
        (void)atomic_fetch_add(&pool->sleepers, 1);
        futex_wait(&pool->call, call);
        (void)atomic_fetch_sub(&pool->sleepers, 1);
    }
}

void kern_pool_run(struct kern_pool *pool, size_t count, kern_piece *piece, void *self)
{
    memos_assert(count <= UINT32_MAX);
    if (count == 0) {
        return;
    }
    if (count == 1 || pool->threads == 1) {
        for (size_t i = 0; i < count; i++) {
            piece(self, i, 0);
        }
        return;
    }
    atomic_store_explicit(&pool->piece, piece, memory_order_relaxed);
    atomic_store_explicit(&pool->self, self, memory_order_relaxed);
    atomic_store_explicit(&pool->count, (uint32_t)count, memory_order_relaxed);
    atomic_store(&pool->pending, (uint32_t)count);
    uint64_t job = (atomic_load(&pool->ticket) >> 32) + 1;
    atomic_store(&pool->ticket, job << 32 | (uint32_t)count);
    (void)atomic_fetch_add(&pool->call, 1);
    if (atomic_load(&pool->sleepers) != 0) {
        futex_wake(&pool->call, count - 1 < INT_MAX ? (int)(count - 1) : INT_MAX);
    }
    work(pool, 0);
    unsigned spins = 0;
    for (uint32_t left; (left = atomic_load(&pool->pending)) != 0;) {
        if (spins < SPINS) {
            relax();
            spins++;
            continue;
        }
        atomic_store(&pool->caller_sleeps, 1);
        futex_wait(&pool->pending, left);
        atomic_store(&pool->caller_sleeps, 0);
    }
}

static enum memos_status pool_start(struct kern_pool *pool, struct memos_error *err)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    int code = pthread_sigmask(SIG_SETMASK, &all, &before);
    while (code == 0 && pool->started + 1 < pool->threads) {
        struct worker *worker = &pool->workers[pool->started];
        *worker = (struct worker){.pool = pool, .number = pool->started + 1};
        code = pthread_create(&worker->thread, NULL, worker_main, worker);
        pool->started += code == 0;
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code != 0) {
        return memos_fail_errno(
            err, code, "cannot start thread %u of %u", pool->started + 1, pool->threads);
    }
    return MEMOS_OK;
}

enum memos_status kern_pool_create(
    unsigned threads, struct kern_pool **out, struct memos_error *err)
{
    memos_assert(threads > 0);
    struct kern_pool *pool = aligned_alloc(64, (sizeof *pool + 63) / 64 * 64);
    if (pool) {
        *pool = (struct kern_pool){.threads = threads};
        pool->workers = calloc(threads, sizeof *pool->workers);
    }
    if (!pool || !pool->workers) {
        free(pool);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %u threads", threads);
    }
    enum memos_status status = pool_start(pool, err);
    if (status != MEMOS_OK) {
        kern_pool_destroy(&pool);
        return status;
    }
    *out = pool;
    return MEMOS_OK;
}

void kern_pool_destroy(struct kern_pool **pool_in)
{
    struct kern_pool *pool = *pool_in;
    if (!pool) {
        return;
    }
    atomic_store(&pool->quit, 1);
    (void)atomic_fetch_add(&pool->call, 1);
    futex_wake(&pool->call, INT_MAX);
    for (unsigned i = 0; i < pool->started; i++) {
        (void)pthread_join(pool->workers[i].thread, NULL);
    }
    free(pool->workers);
    free(pool);
    *pool_in = NULL;
}
