/* Group commit: the queue, the thread, and what becomes of a group whose write breaks. */
#include "memcube/writer.h"

#include "memcube/store_internal.h"

#include <stdlib.h>
#include <time.h>

#define QUEUE_MAX_DEFAULT 4096
#define GROUP_MAX_DEFAULT 512
#define SWEEP_CUBES_MAX 1000 /* in one transaction, so that no job waits long behind it */
#define GROW_TRIES_MAX 32    /* doublings of the map for one group */

struct memcube_writer {
    struct memcube_store *store;
    size_t queue_max, group_max;
    int64_t sweep_every_us;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t work; /* something waits, or it is time to stop */

    /* Sync: mutex. */
    struct memcube_writer_job *first, **last;
    size_t waiting;
    bool stopping;
    struct memcube_writer_stats stats;
};

/* ---- a group ---- */

static void group_done(struct memcube_writer_job *jobs)
{
    while (jobs) {
        struct memcube_writer_job *job = jobs;
        jobs = job->next; /* done may free the job */
        job->done(job->self, job->status, job->status == MEMOS_OK ? NULL : &job->err);
    }
}

/* None of the group is in the store. A job that had failed by itself keeps its own words. */
static void group_failed(struct memcube_writer_job *jobs, const struct memos_error *why)
{
    for (struct memcube_writer_job *job = jobs; job; job = job->next) {
        if (job->status == MEMOS_OK) {
            job->status = why->status;
            job->err = *why;
        }
    }
}

/* All is committed, but what some of them forgot is not destroyed yet: they must not say that it
 * is. */
static void destroying_failed(struct memcube_writer_job *jobs, const struct memos_error *why)
{
    for (struct memcube_writer_job *job = jobs; job; job = job->next) {
        if (job->forgot && job->status == MEMOS_OK) {
            job->status = memos_fail_foreign(&job->err, why->status, why->foreign,
                "it is forgotten, but not destroyed yet: %s", why->text);
        }
    }
}

/* Run the jobs in one write. False when one broke it; that one's error is then in *err. */
static bool group_run(struct memcube_writer_job *jobs, struct memcube_write *write,
    struct memos_error *err)
{
    bool forgot = false;

    for (struct memcube_writer_job *job = jobs; job; job = job->next) {
        write->shred = false;
        job->status = job->run(job->self, write, &job->err);
        job->forgot = write->shred;
        forgot = forgot || job->forgot;
        if (memcube_write_broken(write)) {
            memos_assert(job->status != MEMOS_OK);
            *err = job->err;
            return false;
        }
    }
    write->shred = forgot;
    return true;
}

static bool map_grow(struct memcube_writer *writer, struct memos_error *err)
{
    const bool grown = memcube_db_grow(writer->store->db, err) == MEMOS_OK;
    atomic_fetch_add(&writer->store->map_grown, grown);
    return grown;
}

enum attempt {
    ATTEMPT_ENDED, /* committed, or failed for all of the group */
    ATTEMPT_GROW,  /* the map was full */
    ATTEMPT_APART, /* a job broke the write: let each run alone */
};

static enum attempt group_attempt(
    struct memcube_writer *writer, struct memcube_writer_job *jobs, struct memos_error *err)
{
    struct memcube_write *write = NULL;
    struct memcube_write_end end;

    for (struct memcube_writer_job *job = jobs; job; job = job->next) {
        job->status = MEMOS_OK;
        job->forgot = false;
    }
    if (memcube_write_begin(writer->store, &write, err) != MEMOS_OK) {
        group_failed(jobs, err);
        return ATTEMPT_ENDED;
    }
    if (!group_run(jobs, write, err)) {
        const bool full = memcube_txn_map_full(write->read.txn);
        memcube_write_abort(&write);
        return full ? ATTEMPT_GROW : ATTEMPT_APART;
    }
    if (memcube_write_finish(&write, &end, err) == MEMOS_OK) {
        return ATTEMPT_ENDED;
    }
    if (!end.committed) {
        group_failed(jobs, err);
        return end.map_full ? ATTEMPT_GROW : ATTEMPT_ENDED;
    }
    if (end.map_full && map_grow(writer, err) &&
        memcube_shred_pending(writer->store, err) == MEMOS_OK) {
        return ATTEMPT_ENDED;
    }
    destroying_failed(jobs, err);
    return ATTEMPT_ENDED;
}

/* Try a group until it has ended or must be taken apart; false for the latter. */
static bool group_settle(struct memcube_writer *writer, struct memcube_writer_job *jobs)
{
    struct memos_error err = { .status = MEMOS_OK };

    for (int tries = 0; tries < GROW_TRIES_MAX; tries++) {
        switch (group_attempt(writer, jobs, &err)) {
        case ATTEMPT_ENDED:
            return true;
        case ATTEMPT_APART:
            return !jobs->next; /* a job that was alone has its own error */
        case ATTEMPT_GROW:
            if (!map_grow(writer, &err)) {
                /* A smaller job may still find room; one that was alone has its own error. */
                return !jobs->next;
            }
            break;
        }
    }
    return !jobs->next;
}

static void group_write(struct memcube_writer *writer, struct memcube_writer_job *jobs)
{
    if (group_settle(writer, jobs)) {
        group_done(jobs);
        return;
    }
    while (jobs) {
        struct memcube_writer_job *job = jobs;
        jobs = job->next;
        job->next = NULL;
        (void)group_settle(writer, job); /* a group of one always ends */
        group_done(job);
    }
}

/* ---- the sweep, as a job like any other ---- */

struct sweep {
    bool more;
};

static enum memos_status sweep_run(
    void *self, struct memcube_write *write, struct memos_error *err)
{
    struct sweep *sweep = self;
    size_t count = 0;
    return memcube_sweep(write, SWEEP_CUBES_MAX, &count, &sweep->more, err);
}

/* A sweep that fails (a full disk) is tried again when its time comes. */
static void sweep_done(void *self, enum memos_status status, const struct memos_error *err)
{
    struct sweep *sweep = self;
    (void)err;
    sweep->more = sweep->more && status == MEMOS_OK;
}

static bool sweep_write(struct memcube_writer *writer)
{
    struct sweep sweep = { false };
    struct memcube_writer_job job = { .run = sweep_run, .done = sweep_done, .self = &sweep };
    group_write(writer, &job);
    return sweep.more;
}

/* ---- the thread ---- */

static int64_t mono_us(const struct memcube_writer *writer)
{
    return writer->store->clock.mono_us(writer->store->clock.self);
}

/* Wait for jobs, the next sweep or the end. Holds the mutex. */
static void wait_for_work(struct memcube_writer *writer, int64_t sweep_at_us)
{
    if (writer->sweep_every_us == 0) {
        pthread_cond_wait(&writer->work, &writer->mutex);
        return;
    }
    const int64_t left_us = sweep_at_us - mono_us(writer);
    if (left_us <= 0) {
        return;
    }
    struct timespec until;
    memos_assert(clock_gettime(CLOCK_MONOTONIC, &until) == 0);
    const int64_t nanos = until.tv_nsec + left_us % 1000000 * 1000;
    until.tv_sec += left_us / 1000000 + nanos / 1000000000;
    until.tv_nsec = nanos % 1000000000;
    (void)pthread_cond_timedwait(&writer->work, &writer->mutex, &until);
}

/* Take the oldest jobs, as many as a group may have. Holds the mutex. */
static struct memcube_writer_job *take_group(struct memcube_writer *writer)
{
    struct memcube_writer_job *jobs = writer->first, **end = &writer->first;
    size_t count = 0;
    for (; *end && count < writer->group_max; count++) {
        end = &(*end)->next;
    }
    writer->first = *end;
    *end = NULL;
    if (!writer->first) {
        writer->last = &writer->first;
    }
    writer->waiting -= count;
    writer->stats.jobs += count;
    writer->stats.groups += count > 0;
    if (count > writer->stats.group_largest) {
        writer->stats.group_largest = count;
    }
    return count ? jobs : NULL;
}

static void *writer_thread(void *self)
{
    struct memcube_writer *writer = self;
    int64_t sweep_at_us = mono_us(writer) + writer->sweep_every_us;

    pthread_mutex_lock(&writer->mutex);
    for (;;) {
        const bool sweep = writer->sweep_every_us > 0 && mono_us(writer) >= sweep_at_us;
        if (!writer->first && !sweep && !writer->stopping) {
            wait_for_work(writer, sweep_at_us);
            continue;
        }
        struct memcube_writer_job *jobs = take_group(writer);
        if (!jobs && writer->stopping) {
            break;
        }
        pthread_mutex_unlock(&writer->mutex);
        if (jobs) {
            group_write(writer, jobs);
        }
        if (sweep && !sweep_write(writer)) { /* with more to do it goes on after the next group */
            sweep_at_us = mono_us(writer) + writer->sweep_every_us;
        }
        pthread_mutex_lock(&writer->mutex);
    }
    pthread_mutex_unlock(&writer->mutex);
    return NULL;
}

/* ---- the outside ---- */

/* timedwait must not follow the wall clock, which may step. */
static int cond_init_monotonic(pthread_cond_t *cond)
{
    pthread_condattr_t attributes;
    int error = pthread_condattr_init(&attributes);
    if (error == 0) {
        error = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        if (error == 0) {
            error = pthread_cond_init(cond, &attributes);
        }
        (void)pthread_condattr_destroy(&attributes);
    }
    return error;
}

enum memos_status memcube_writer_create(struct memcube_store *store,
    const struct memcube_writer_options *options, struct memcube_writer **out_writer,
    struct memos_error *err)
{
    struct memcube_writer *writer = calloc(1, sizeof *writer);
    if (!writer) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a writer");
    }
    writer->store = store;
    writer->queue_max = options->queue_max ? options->queue_max : QUEUE_MAX_DEFAULT;
    writer->group_max = options->group_max ? options->group_max : GROUP_MAX_DEFAULT;
    writer->sweep_every_us = options->sweep_every_us;
    writer->last = &writer->first;
    int error = pthread_mutex_init(&writer->mutex, NULL);
    if (error != 0) {
        free(writer);
        return memos_fail_errno(err, error, "making the writer's lock");
    }
    error = cond_init_monotonic(&writer->work);
    if (error == 0) {
        error = pthread_create(&writer->thread, NULL, writer_thread, writer);
        if (error != 0) {
            pthread_cond_destroy(&writer->work);
        }
    }
    if (error != 0) {
        pthread_mutex_destroy(&writer->mutex);
        free(writer);
        return memos_fail_errno(err, error, "starting the writer's thread");
    }
    *out_writer = writer;
    return MEMOS_OK;
}

void memcube_writer_destroy(struct memcube_writer **writer)
{
    struct memcube_writer *w = *writer;
    if (!w) {
        return;
    }
    pthread_mutex_lock(&w->mutex);
    w->stopping = true;
    pthread_cond_signal(&w->work);
    pthread_mutex_unlock(&w->mutex);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->work);
    pthread_mutex_destroy(&w->mutex);
    free(w);
    *writer = NULL;
}

enum memos_status memcube_writer_submit(
    struct memcube_writer *writer, struct memcube_writer_job *job, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;

    job->next = NULL;
    pthread_mutex_lock(&writer->mutex);
    if (writer->stopping) {
        status = memos_fail(err, MEMOS_UNAVAILABLE, "the store is being closed");
    } else if (writer->waiting >= writer->queue_max) {
        writer->stats.refused++;
        status = memos_fail(
            err, MEMOS_BUSY, "%zu changes are waiting to be written already", writer->waiting);
    } else {
        *writer->last = job;
        writer->last = &job->next;
        writer->waiting++;
        pthread_cond_signal(&writer->work);
    }
    pthread_mutex_unlock(&writer->mutex);
    return status;
}

/* A caller that waits for its job. */
struct waiter {
    enum memos_status (*run)(void *, struct memcube_write *, struct memos_error *);
    void *self;
    pthread_mutex_t mutex;
    pthread_cond_t ended;
    bool has_ended;
    enum memos_status status;
    struct memos_error err;
};

static enum memos_status waiter_run(
    void *self, struct memcube_write *write, struct memos_error *err)
{
    struct waiter *waiter = self;
    return waiter->run(waiter->self, write, err);
}

static void waiter_done(void *self, enum memos_status status, const struct memos_error *err)
{
    struct waiter *waiter = self;
    pthread_mutex_lock(&waiter->mutex);
    waiter->status = status;
    if (err) {
        waiter->err = *err;
    }
    waiter->has_ended = true;
    pthread_cond_signal(&waiter->ended);
    pthread_mutex_unlock(&waiter->mutex);
}

enum memos_status memcube_writer_run(struct memcube_writer *writer,
    enum memos_status (*run)(void *, struct memcube_write *, struct memos_error *), void *self,
    struct memos_error *err)
{
    struct waiter waiter = {
        .run = run,
        .self = self,
        .mutex = PTHREAD_MUTEX_INITIALIZER,
        .ended = PTHREAD_COND_INITIALIZER,
    };
    struct memcube_writer_job job = {
        .run = waiter_run, .done = waiter_done, .self = &waiter
    };
    enum memos_status status = memcube_writer_submit(writer, &job, err);
    if (status != MEMOS_OK) {
        return status;
    }
    pthread_mutex_lock(&waiter.mutex);
    while (!waiter.has_ended) {
        pthread_cond_wait(&waiter.ended, &waiter.mutex);
    }
    pthread_mutex_unlock(&waiter.mutex);
    if (waiter.status != MEMOS_OK && err) {
        *err = waiter.err;
    }
    return waiter.status;
}

void memcube_writer_stats(struct memcube_writer *writer, struct memcube_writer_stats *out)
{
    pthread_mutex_lock(&writer->mutex);
    *out = writer->stats;
    out->waiting = writer->waiting;
    pthread_mutex_unlock(&writer->mutex);
}
