#include "retrieval/embedder.h"

#include "retrieval/vector_cache.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    JOBS_USUAL = 4096,
    TEXTS_USUAL = 65536,
    PIECE_TEXTS_USUAL = 32,
    PIECE_BYTES_USUAL = 8192,
    PASSED_OVER_MAX = 16,  /* pieces of other queues before one of this */
    HITS_PER_PIECE = 1024, /* remembered vectors copied while the lock is held */
    ROLES = 2,
};

/* First things first. */
enum { QUESTIONS, PASSAGES, WITH_TIME, QUEUES };

#define BYTES_USUAL ((size_t)256 << 20)
#define CACHE_USUAL ((size_t)32 << 20)

struct job {
    struct job *next;                         /* in its queue, or among those that have ended */
    const struct retrieval_embedder_job *own; /* the caller's, by which it is taken back */
    struct retrieval_embedder_job wanted;
    size_t bytes;     /* of its texts and vectors */
    size_t taken;     /* texts that are in a piece or have a vector; the first ones */
    bool in_piece;    /* with the encoder now */
    bool is_unwanted; /* taken back while it was */
    enum memos_status status;
    struct memos_error err;
    struct retrieval_cache_key keys[]; /* of each text */
};

struct queue {
    struct job *first, *last;
    unsigned passed_over; /* pieces of others since its turn */
};

struct slot {
    struct job *job;
    size_t index; /* of the text in the job */
};

struct retrieval_embedder {
    struct retrieval_encoder *encoder;
    struct retrieval_encoder_info info;
    struct memos_clock clock;
    size_t jobs_max, texts_max, bytes_max, piece_texts, piece_bytes;
    pthread_t thread;
    bool thread_runs;

    pthread_mutex_t lock; /* Sync: of all below, but the piece */
    pthread_cond_t work, left;
    struct queue queues[QUEUES];
    struct retrieval_cache *caches[ROLES];
    size_t runners; /* calls of run that wait */
    bool stopping;
    struct retrieval_embedder_stats stats;

    /* What is with the encoder; the thread's own. Slots of one job stand together. */
    struct slot *slots;
    struct memos_bytes *texts;
    float *vectors;
    size_t slots_count;
};

/* ---- jobs ---------------------------------------------------------------------------------- */

static enum memos_status fail_too_large(const struct retrieval_embedder *embedder,
    const struct retrieval_embedder_job *wanted, struct memos_error *err)
{
    return memos_fail(err, MEMOS_TOO_LARGE,
        "%zu texts and their vectors are more than may wait for the encoder (%zu texts, %zu bytes)",
        wanted->count, embedder->texts_max, embedder->bytes_max);
}

static enum memos_status job_make(const struct retrieval_embedder *embedder,
    const struct retrieval_embedder_job *wanted, struct job **out_job, struct memos_error *err)
{
    size_t bytes, count = wanted->count;
    if (count > embedder->texts_max ||
        __builtin_mul_overflow(count, embedder->info.dims * sizeof(float), &bytes)) {
        return fail_too_large(embedder, wanted, err);
    }
    for (size_t i = 0; i < count; i++) {
        if (__builtin_add_overflow(bytes, wanted->texts[i].size, &bytes)) {
            return fail_too_large(embedder, wanted, err);
        }
    }
    if (bytes > embedder->bytes_max) {
        return fail_too_large(embedder, wanted, err);
    }
    struct job *job = malloc(sizeof *job + count * sizeof job->keys[0]);
    if (!job) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to encode %zu texts", count);
    }
    *job = (struct job){.own = wanted, .wanted = *wanted, .bytes = bytes};
    for (size_t i = 0; i < count; i++) {
        job->keys[i] = retrieval_cache_key(embedder->caches[wanted->role], wanted->texts[i]);
    }
    *out_job = job;
    return MEMOS_OK;
}

static struct queue *queue_of(struct retrieval_embedder *embedder, const struct job *job)
{
    const struct retrieval_embedder_job *wanted = &job->wanted;
    return &embedder->queues[wanted->has_time                ? WITH_TIME
                             : wanted->role == PARAMEM_QUERY ? QUESTIONS
                                                             : PASSAGES];
}

static void queue_add(struct queue *queue, struct job *job)
{
    job->next = NULL;
    *(queue->last ? &queue->last->next : &queue->first) = job;
    queue->last = job;
}

static void queue_remove(struct queue *queue, struct job *job)
{
    struct job *before = NULL;
    for (struct job *at = queue->first; at != job; at = at->next) {
        before = at;
    }
    *(before ? &before->next : &queue->first) = job->next;
    queue->last = queue->last == job ? before : queue->last;
}

/* The job leaves: it counts no more. The lock is held. */
static void uncount(struct retrieval_embedder *embedder, const struct job *job)
{
    embedder->stats.jobs_now--;
    embedder->stats.texts_now -= job->wanted.count;
    embedder->stats.bytes_now -= job->bytes;
    embedder->stats.cancelled += job->status == MEMOS_CANCELLED;
    embedder->stats.failed += job->status != MEMOS_OK && job->status != MEMOS_CANCELLED;
}

/* A job, out of its queue, has ended: its done is called when the lock is free. */
static void job_end(struct retrieval_embedder *embedder, struct job *job, struct queue *ended)
{
    uncount(embedder, job);
    queue_add(ended, job);
}

/* Call done for all that have ended. The lock is free. */
static void tell(struct queue *ended)
{
    while (ended->first) {
        struct job *job = ended->first;
        ended->first = job->next;
        job->wanted.done(job->wanted.self, job->status, job->status == MEMOS_OK ? NULL : &job->err);
        free(job);
    }
    ended->last = NULL;
}

/* ---- the thread ---------------------------------------------------------------------------- */

/* Copy what is remembered, put the rest in the piece, until it is full or all texts are taken.
 * Counts in *bytes and *hits. False: the piece is full. */
static bool take_texts(
    struct retrieval_embedder *embedder, struct job *job, size_t *bytes, size_t *hits)
{
    const struct retrieval_embedder_job *wanted = &job->wanted;
    size_t dims = embedder->info.dims;
    for (; job->taken < wanted->count; job->taken++) {
        struct memos_bytes text = wanted->texts[job->taken];
        size_t left = embedder->piece_bytes - *bytes;
        const float *known =
            retrieval_cache_get(embedder->caches[wanted->role], &job->keys[job->taken]);
        if (known && *hits == HITS_PER_PIECE) {
            return false;
        } else if (known) {
            memcpy(wanted->out + job->taken * dims, known, dims * sizeof *known);
            embedder->stats.remembered++;
            (*hits)++;
            continue;
        } else if (embedder->slots_count == embedder->piece_texts ||
                   (embedder->slots_count > 0 && text.size > left)) {
            return false;
        }
        *bytes += text.size < left ? text.size : left;
        embedder->texts[embedder->slots_count] = text;
        embedder->slots[embedder->slots_count++] = (struct slot){job, job->taken};
        job->in_piece = true;
    }
    return true;
}

/* The queue whose turn it is: the first that is not empty, unless one was passed over too often.
 * There is one. */
static struct queue *next_queue(struct retrieval_embedder *embedder)
{
    struct queue *chosen = NULL;
    for (size_t i = 0; i < QUEUES; i++) {
        struct queue *queue = &embedder->queues[i];
        if (queue->first && (!chosen || queue->passed_over >= PASSED_OVER_MAX)) {
            chosen = queue;
        }
    }
    for (size_t i = 0; i < QUEUES; i++) {
        struct queue *queue = &embedder->queues[i];
        queue->passed_over = queue->first && queue != chosen ? queue->passed_over + 1 : 0;
    }
    return chosen;
}

/* Form the next piece, of one role; jobs that have ended before it (too late, or all remembered) go
 * to ended. The lock is held. */
static void take_piece(struct retrieval_embedder *embedder, struct queue *ended)
{
    struct queue *queue = next_queue(embedder);
    int64_t now_us = embedder->clock.mono_us(embedder->clock.self);
    size_t bytes = 0, hits = 0;
    bool has_room = true;

    embedder->slots_count = 0;
    while (queue->first && has_room) {
        struct job *job = queue->first;
        if (embedder->slots_count > 0 && embedder->slots[0].job->wanted.role != job->wanted.role) {
            break;
        }
        if (job->wanted.deadline_us != 0 && now_us >= job->wanted.deadline_us) {
            job->status = memos_fail(&job->err, MEMOS_DEADLINE,
                "%zu texts waited too long for the encoder", job->wanted.count);
            queue_remove(queue, job);
            job_end(embedder, job, ended);
            continue;
        }
        has_room = take_texts(embedder, job, &bytes, &hits);
        if (job->taken == job->wanted.count) {
            queue_remove(queue, job);
            if (!job->in_piece) {
                job_end(embedder, job, ended);
            }
        }
    }
}

/* Encode the slots from `begin` up to `end`. */
static enum memos_status encode(
    struct retrieval_embedder *embedder, size_t begin, size_t end, struct memos_error *err)
{
    enum paramem_role role = embedder->slots[begin].job->wanted.role;
    int64_t began_us = embedder->clock.mono_us(embedder->clock.self);
    enum memos_status status = retrieval_encoder_encode(embedder->encoder, embedder->texts + begin,
        end - begin, role, embedder->vectors + begin * embedder->info.dims, err);
    int64_t took_us = embedder->clock.mono_us(embedder->clock.self) - began_us;

    (void)pthread_mutex_lock(&embedder->lock);
    embedder->stats.pieces++;
    embedder->stats.joined += embedder->slots[begin].job != embedder->slots[end - 1].job;
    embedder->stats.busy_us += (uint64_t)took_us;
    for (size_t i = begin; i < end && status == MEMOS_OK; i++) {
        embedder->stats.texts++;
        embedder->stats.text_bytes += embedder->texts[i].size;
    }
    (void)pthread_mutex_unlock(&embedder->lock);
    return status;
}

/* Where the slots of the job at `begin` end. */
static size_t share_end(const struct retrieval_embedder *embedder, size_t begin)
{
    size_t end = begin + 1;
    while (end < embedder->slots_count && embedder->slots[end].job == embedder->slots[begin].job) {
        end++;
    }
    return end;
}

/* Encode the piece; each job's status says what came of its share. The lock is free. */
static void encode_piece(struct retrieval_embedder *embedder)
{
    struct memos_error err = {0};
    enum memos_status status = encode(embedder, 0, embedder->slots_count, &err);
    bool by_itself = status != MEMOS_OK && status != MEMOS_UNAVAILABLE && status != MEMOS_DENIED &&
                     status != MEMOS_CANCELLED && share_end(embedder, 0) != embedder->slots_count;
    for (size_t begin = 0; begin < embedder->slots_count;) {
        struct job *job = embedder->slots[begin].job;
        size_t end = share_end(embedder, begin);
        if (by_itself) {
            err = (struct memos_error){0};
            status = encode(embedder, begin, end, &err);
        }
        job->status = status;
        job->err = err;
        begin = end;
    }
}

/* Give the vectors of the piece to its jobs and the cache; those that are through, or failed, or
 * are not wanted any more, end. The lock is held. */
static void give_piece(struct retrieval_embedder *embedder, struct queue *ended)
{
    size_t dims = embedder->info.dims;
    for (size_t begin = 0; begin < embedder->slots_count;) {
        struct job *job = embedder->slots[begin].job;
        size_t end = share_end(embedder, begin);
        bool was_last = job->taken == job->wanted.count;
        for (size_t i = begin; i < end && job->status == MEMOS_OK; i++) {
            const float *vector = embedder->vectors + i * dims;
            size_t index = embedder->slots[i].index;
            memcpy(job->wanted.out + index * dims, vector, dims * sizeof *vector);
            retrieval_cache_put(embedder->caches[job->wanted.role], &job->keys[index], vector);
        }
        job->in_piece = false;
        if (job->status == MEMOS_OK && job->is_unwanted && !was_last) {
            job->status = memos_fail(&job->err, MEMOS_CANCELLED, "taken back");
        }
        if (!was_last && job->status != MEMOS_OK) {
            queue_remove(queue_of(embedder, job), job);
        }
        if (was_last || job->status != MEMOS_OK) {
            job_end(embedder, job, ended);
        }
        begin = end;
    }
    embedder->slots_count = 0;
}

static void end_all(struct retrieval_embedder *embedder, struct queue *ended)
{
    for (size_t i = 0; i < QUEUES; i++) {
        struct queue *queue = &embedder->queues[i];
        while (queue->first) {
            struct job *job = queue->first;
            queue_remove(queue, job);
            job->status = memos_fail(&job->err, MEMOS_CANCELLED, "the encoder is being stopped");
            job_end(embedder, job, ended);
        }
    }
}

static bool has_work(const struct retrieval_embedder *embedder)
{
    for (size_t i = 0; i < QUEUES; i++) {
        if (embedder->queues[i].first) {
            return true;
        }
    }
    return false;
}

static void *work(void *self)
{
    struct retrieval_embedder *embedder = self;
    struct queue ended = {.first = NULL};

    (void)pthread_mutex_lock(&embedder->lock);
    for (bool goes_on = true; goes_on;) {
        while (!embedder->stopping && !has_work(embedder)) {
            (void)pthread_cond_wait(&embedder->work, &embedder->lock);
        }
        goes_on = !embedder->stopping;
        if (!goes_on) {
            end_all(embedder, &ended);
        } else {
            take_piece(embedder, &ended);
        }
        (void)pthread_mutex_unlock(&embedder->lock);
        tell(&ended);
        if (embedder->slots_count > 0) {
            encode_piece(embedder);
            (void)pthread_mutex_lock(&embedder->lock);
            give_piece(embedder, &ended);
            (void)pthread_mutex_unlock(&embedder->lock);
            tell(&ended);
        }
        (void)pthread_mutex_lock(&embedder->lock);
    }
    (void)pthread_mutex_unlock(&embedder->lock);
    return NULL;
}

/* ---- making -------------------------------------------------------------------------------- */

static enum memos_status start(struct retrieval_embedder *embedder,
    const struct retrieval_embedder_options *options, struct memos_error *err)
{
    size_t cache_bytes = options->cache_bytes > 0 ? options->cache_bytes : CACHE_USUAL;
    size_t texts = embedder->piece_texts, dims = embedder->info.dims;
    enum memos_status status = MEMOS_OK;
    for (size_t role = 0; role < ROLES && status == MEMOS_OK; role++) {
        status = retrieval_cache_create(
            options->forgets ? 0 : cache_bytes / ROLES, dims, &embedder->caches[role], err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    embedder->slots = calloc(texts, sizeof *embedder->slots);
    embedder->texts = calloc(texts, sizeof *embedder->texts);
    embedder->vectors = calloc(texts * dims, sizeof *embedder->vectors);
    if (!embedder->slots || !embedder->texts || !embedder->vectors) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for an embedder");
    }
    int rc = pthread_create(&embedder->thread, NULL, work, embedder);
    embedder->thread_runs = rc == 0;
    return rc == 0 ? MEMOS_OK : memos_fail_errno(err, rc, "starting the encoder's thread");
}

static enum memos_status locks_make(struct retrieval_embedder *embedder, struct memos_error *err)
{
    int rc = pthread_mutex_init(&embedder->lock, NULL);
    if (rc == 0 && (rc = pthread_cond_init(&embedder->work, NULL)) != 0) {
        (void)pthread_mutex_destroy(&embedder->lock);
    } else if (rc == 0 && (rc = pthread_cond_init(&embedder->left, NULL)) != 0) {
        (void)pthread_cond_destroy(&embedder->work);
        (void)pthread_mutex_destroy(&embedder->lock);
    }
    return rc == 0 ? MEMOS_OK : memos_fail_errno(err, rc, "making a lock");
}

enum memos_status retrieval_embedder_create(struct retrieval_encoder **encoder,
    const struct retrieval_embedder_options *options, struct retrieval_embedder **out_embedder,
    struct memos_error *err)
{
    struct retrieval_embedder *embedder = calloc(1, sizeof *embedder);
    if (!embedder) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for an embedder");
    }
    enum memos_status status = locks_make(embedder, err);
    if (status != MEMOS_OK) {
        free(embedder);
        return status;
    }
    embedder->clock = options->clock;
    embedder->jobs_max = options->jobs_max > 0 ? options->jobs_max : JOBS_USUAL;
    embedder->texts_max = options->texts_max > 0 ? options->texts_max : TEXTS_USUAL;
    embedder->bytes_max = options->bytes_max > 0 ? options->bytes_max : BYTES_USUAL;
    embedder->piece_texts = options->piece_texts > 0 ? options->piece_texts : PIECE_TEXTS_USUAL;
    embedder->piece_bytes = options->piece_bytes > 0 ? options->piece_bytes : PIECE_BYTES_USUAL;
    embedder->encoder = *encoder;
    retrieval_encoder_describe(*encoder, &embedder->info);
    status = start(embedder, options, err);
    if (status != MEMOS_OK) {
        embedder->encoder = NULL; /* stays the caller's */
        retrieval_embedder_destroy(&embedder);
        return status;
    }
    *encoder = NULL;
    *out_embedder = embedder;
    return MEMOS_OK;
}

void retrieval_embedder_stop(struct retrieval_embedder *embedder)
{
    if (!embedder->thread_runs) {
        return;
    }
    (void)pthread_mutex_lock(&embedder->lock);
    embedder->stopping = true;
    (void)pthread_cond_signal(&embedder->work);
    (void)pthread_mutex_unlock(&embedder->lock);
    retrieval_encoder_interrupt(embedder->encoder);
    (void)pthread_join(embedder->thread, NULL);
    embedder->thread_runs = false;
}

void retrieval_embedder_destroy(struct retrieval_embedder **embedder)
{
    struct retrieval_embedder *dead = *embedder;
    if (!dead) {
        return;
    }
    retrieval_embedder_stop(dead);
    (void)pthread_mutex_lock(&dead->lock);
    while (dead->runners > 0) {
        (void)pthread_cond_wait(&dead->left, &dead->lock);
    }
    (void)pthread_mutex_unlock(&dead->lock);
    for (size_t role = 0; role < ROLES; role++) {
        retrieval_cache_destroy(&dead->caches[role]);
    }
    retrieval_encoder_close(&dead->encoder);
    (void)pthread_cond_destroy(&dead->left);
    (void)pthread_cond_destroy(&dead->work);
    (void)pthread_mutex_destroy(&dead->lock);
    free(dead->slots);
    free(dead->texts);
    free(dead->vectors);
    free(dead);
    *embedder = NULL;
}

void retrieval_embedder_describe(
    const struct retrieval_embedder *embedder, struct retrieval_encoder_info *out)
{
    *out = embedder->info;
}

/* ---- asking -------------------------------------------------------------------------------- */

/* Put a job in its queue; the lock is held. */
static enum memos_status enqueue(
    struct retrieval_embedder *embedder, struct job *job, struct memos_error *err)
{
    struct retrieval_embedder_stats *stats = &embedder->stats;
    if (embedder->stopping) {
        return memos_fail(err, MEMOS_CANCELLED, "the encoder is being stopped");
    } else if (stats->jobs_now == embedder->jobs_max ||
               job->wanted.count > embedder->texts_max - stats->texts_now ||
               job->bytes > embedder->bytes_max - stats->bytes_now) {
        return memos_fail(err, MEMOS_BUSY,
            "%zu texts of %zu requests (%zu bytes) wait for the encoder already", stats->texts_now,
            stats->jobs_now, stats->bytes_now);
    }
    stats->jobs++;
    stats->jobs_now++;
    stats->texts_now += job->wanted.count;
    stats->bytes_now += job->bytes;
    queue_add(queue_of(embedder, job), job);
    (void)pthread_cond_signal(&embedder->work);
    return MEMOS_OK;
}

enum memos_status retrieval_embedder_submit(struct retrieval_embedder *embedder,
    const struct retrieval_embedder_job *job, struct memos_error *err)
{
    struct job *made = NULL;
    memos_assert(job->count > 0 && job->done);
    memos_assert(job->role == PARAMEM_QUERY || job->role == PARAMEM_PASSAGE);
    enum memos_status status = job_make(embedder, job, &made, err);
    (void)pthread_mutex_lock(&embedder->lock);
    if (status == MEMOS_OK) {
        status = enqueue(embedder, made, err);
        made = status == MEMOS_OK ? NULL : made; /* the thread's */
    }
    embedder->stats.refused += status == MEMOS_BUSY || status == MEMOS_TOO_LARGE;
    (void)pthread_mutex_unlock(&embedder->lock);
    free(made);
    return status;
}

bool retrieval_embedder_cancel(
    struct retrieval_embedder *embedder, const struct retrieval_embedder_job *job)
{
    struct job *found = NULL;
    (void)pthread_mutex_lock(&embedder->lock);
    for (size_t i = 0; i < QUEUES && !found; i++) {
        found = embedder->queues[i].first;
        while (found && found->own != job) {
            found = found->next;
        }
    }
    bool gone = found && !found->in_piece;
    if (gone) {
        queue_remove(queue_of(embedder, found), found);
        found->status = MEMOS_CANCELLED;
        uncount(embedder, found);
    } else if (found) {
        found->is_unwanted = true;
    }
    (void)pthread_mutex_unlock(&embedder->lock);
    if (gone) {
        free(found);
    }
    return gone;
}

bool retrieval_embedder_remembered(struct retrieval_embedder *embedder,
    const struct memos_bytes *texts, size_t count, enum paramem_role role, float *out)
{
    size_t dims = embedder->info.dims;
    struct retrieval_cache *cache = embedder->caches[role];
    for (size_t i = 0; i < count; i++) {
        struct retrieval_cache_key key = retrieval_cache_key(cache, texts[i]);
        (void)pthread_mutex_lock(&embedder->lock);
        const float *known = retrieval_cache_get(cache, &key);
        if (known) {
            memcpy(out + i * dims, known, dims * sizeof *known);
            embedder->stats.remembered++;
        }
        (void)pthread_mutex_unlock(&embedder->lock);
        if (!known) {
            return false;
        }
    }
    return true;
}

/* A caller of run that waits, on its stack. Sync: the embedder's lock. */
struct waiter {
    struct retrieval_embedder *embedder;
    pthread_cond_t ended;
    bool has_ended;
    enum memos_status status;
    struct memos_error *err;
};

static void wake(void *self, enum memos_status status, const struct memos_error *err)
{
    struct waiter *waiter = self;
    struct retrieval_embedder *embedder = waiter->embedder;
    (void)pthread_mutex_lock(&embedder->lock);
    waiter->status = status;
    if (err && waiter->err) {
        *waiter->err = *err;
    }
    waiter->has_ended = true;
    (void)pthread_cond_signal(&waiter->ended);
    (void)pthread_mutex_unlock(&embedder->lock);
}

/* Submit, and wait for the end. */
static enum memos_status run(struct retrieval_embedder *embedder,
    struct retrieval_embedder_job *job, struct memos_error *err)
{
    if (retrieval_embedder_remembered(embedder, job->texts, job->count, job->role, job->out)) {
        return MEMOS_OK;
    }
    struct waiter waiter = {.embedder = embedder, .err = err};
    int rc = pthread_cond_init(&waiter.ended, NULL);
    if (rc != 0) {
        return memos_fail_errno(err, rc, "making a lock");
    }
    job->done = wake;
    job->self = &waiter;
    (void)pthread_mutex_lock(&embedder->lock);
    embedder->runners++;
    (void)pthread_mutex_unlock(&embedder->lock);
    enum memos_status status = retrieval_embedder_submit(embedder, job, err);
    (void)pthread_mutex_lock(&embedder->lock);
    while (status == MEMOS_OK && !waiter.has_ended) {
        (void)pthread_cond_wait(&waiter.ended, &embedder->lock);
    }
    status = status == MEMOS_OK ? waiter.status : status;
    (void)pthread_cond_destroy(&waiter.ended); /* who signalled it has let go of the lock */
    embedder->runners--;
    (void)pthread_cond_signal(&embedder->left);
    (void)pthread_mutex_unlock(&embedder->lock);
    return status;
}

enum memos_status retrieval_embedder_run(struct retrieval_embedder *embedder,
    const struct memos_bytes *texts, size_t count, enum paramem_role role, float *out,
    struct memos_error *err)
{
    struct retrieval_embedder_job job = {.texts = texts, .count = count, .role = role, .out = out};
    return run(embedder, &job, err);
}

enum memos_status retrieval_embedder_run_later(struct retrieval_embedder *embedder,
    const struct memos_bytes *texts, size_t count, enum paramem_role role, float *out,
    struct memos_error *err)
{
    struct retrieval_embedder_job job = {
        .texts = texts, .count = count, .role = role, .has_time = true, .out = out};
    return run(embedder, &job, err);
}

void retrieval_embedder_stats(
    struct retrieval_embedder *embedder, struct retrieval_embedder_stats *out)
{
    (void)pthread_mutex_lock(&embedder->lock);
    *out = embedder->stats;
    out->cache_count = out->cache_bytes = 0;
    for (size_t role = 0; role < ROLES; role++) {
        out->cache_count += retrieval_cache_count(embedder->caches[role]);
        out->cache_bytes += retrieval_cache_bytes(embedder->caches[role]);
    }
    (void)pthread_mutex_unlock(&embedder->lock);
}
