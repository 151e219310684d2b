#include "memos/broker/backfill.h"

#include "memos/broker/state.h"
#include "proto/log.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    ROUND_DOCS = 64,
    ROUND_BYTES_MAX = 8 << 20, /* of texts read in one round */
    LOOK_EVERY_MS = 1000,      /* when nobody kicks */
    RETRY_MS = 5000,           /* after a failure */
    SKIPPED_MAX = 4096,
};

struct broker_backfill {
    struct broker *broker;
    struct retrieval_embedder *embedder;
    struct retrieval_encoder_info info;
    pthread_t thread, upkeep;
    bool has_thread, has_upkeep;
    pthread_mutex_t lock; /* Sync: of everything below */
    pthread_cond_t changed;
    bool stopping, kicked;
    uint64_t due, done, busy_us;
    char error[160];
    /* the thread's own */
    struct retrieval_due skipped[SKIPPED_MAX]; /* their texts cannot be read */
    size_t skipped_count;
};

/* A few docs, and what was read of them. */
struct round {
    struct broker_backfill *backfill;
    struct retrieval_due docs[ROUND_DOCS];
    struct retrieval_spans spans[ROUND_DOCS];
    size_t count;
    struct memos_arena arena;
    struct memos_bytes *texts;
    size_t texts_count;
    float *values;
};

static bool is_stopping(struct broker_backfill *backfill)
{
    (void)pthread_mutex_lock(&backfill->lock);
    bool stopping = backfill->stopping;
    (void)pthread_mutex_unlock(&backfill->lock);
    return stopping;
}

/* Wait for so long, or until *woken is set (and clear it). False: stop. */
static bool wait_for(struct broker_backfill *backfill, int64_t ms, bool *woken)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    (void)pthread_mutex_lock(&backfill->lock);
    while (!backfill->stopping && !*woken &&
           pthread_cond_timedwait(&backfill->changed, &backfill->lock, &until) == 0) {
    }
    bool goes_on = !backfill->stopping;
    *woken = false;
    (void)pthread_mutex_unlock(&backfill->lock);
    return goes_on;
}

/* ---- reading --------------------------------------------------------------------------------- */

static bool is_skipped(const struct broker_backfill *backfill, const struct retrieval_due *due)
{
    for (size_t i = 0; i < backfill->skipped_count; i++) {
        if (backfill->skipped[i].space == due->space && backfill->skipped[i].doc == due->doc) {
            return true;
        }
    }
    return false;
}

static void skip(struct broker_backfill *backfill, const struct retrieval_due *due,
    const struct memos_error *why)
{
    memos_log(MEMOS_LOG_WARNING, memos_log_event("a text has no vector: it cannot be read"),
        memos_log_uint("doc", due->doc), memos_log_error(why));
    if (backfill->skipped_count < SKIPPED_MAX) {
        backfill->skipped[backfill->skipped_count++] = *due;
    }
}

/* The spans of one doc, copied so that they outlive the snapshot. */
static enum memos_status read_doc(struct round *round, struct memcube_read *read,
    const struct retrieval_due *due, struct memos_error *err)
{
    struct retrieval_spans *spans = &round->spans[round->count];
    const enum memos_status status = retrieval_due_spans(read, due, spans, err);
    if (status != MEMOS_OK) {
        return status;
    }
    struct memos_bytes *texts = memos_arena_take(&round->arena, spans->count, sizeof *texts);
    if (!texts && spans->count > 0) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a text");
    }
    for (size_t i = 0; i < spans->count; i++) {
        const void *copy = memos_arena_copy(&round->arena, spans->texts[i]);
        if (!copy) {
            return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a text");
        }
        texts[i] = memos_bytes_make(copy, spans->texts[i].size);
    }
    spans->texts = texts;
    round->docs[round->count++] = *due;
    round->texts_count += spans->count;
    return MEMOS_OK;
}

static enum memos_status read_round(struct round *round, struct memos_error *err)
{
    struct broker_backfill *backfill = round->backfill;
    struct retrieval_vectors *vectors = retrieval_vectors_of(backfill->broker->retrieval);
    struct retrieval_due found[ROUND_DOCS + SKIPPED_MAX / 16];
    size_t count = 0;
    uint64_t total = 0;
    struct memcube_read *read = NULL;
    enum memos_status status = memcube_read_begin(backfill->broker->store, &read, err);
    if (status != MEMOS_OK) {
        return status;
    }
    status = retrieval_vectors_due(
        vectors, read, found, sizeof found / sizeof found[0], &count, &total, err);
    for (size_t i = 0; status == MEMOS_OK && i < count && round->count < ROUND_DOCS; i++) {
        struct memos_error own;
        if (round->arena.used > ROUND_BYTES_MAX) {
            break;
        }
        if (is_skipped(backfill, &found[i])) {
            continue;
        }
        if (read_doc(round, read, &found[i], &own) != MEMOS_OK) {
            skip(backfill, &found[i], &own);
        }
    }
    memcube_read_end(&read);
    (void)pthread_mutex_lock(&backfill->lock);
    backfill->due = total;
    (void)pthread_mutex_unlock(&backfill->lock);
    return status;
}

/* ---- making and writing ---------------------------------------------------------------------- */

static enum memos_status encode_round(struct round *round, struct memos_error *err)
{
    struct broker_backfill *backfill = round->backfill;
    size_t at = 0;
    if (round->texts_count == 0) {
        return MEMOS_OK;
    }
    round->texts = memos_arena_take(&round->arena, round->texts_count, sizeof *round->texts);
    round->values = calloc(round->texts_count * backfill->info.dims, sizeof *round->values);
    if (!round->texts || !round->values) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu vectors", round->texts_count);
    }
    for (size_t i = 0; i < round->count; i++) {
        for (size_t s = 0; s < round->spans[i].count; s++) {
            round->texts[at++] = round->spans[i].texts[s];
        }
    }
    return retrieval_embedder_run_later(
        backfill->embedder, round->texts, at, PARAMEM_PASSAGE, round->values, err);
}

static enum memos_status write_round(
    void *self, struct memcube_write *write, struct memos_error *err)
{
    struct round *round = self;
    struct broker_backfill *backfill = round->backfill;
    struct retrieval_vectors *vectors = retrieval_vectors_of(backfill->broker->retrieval);
    const float *values = round->values;
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; status == MEMOS_OK && i < round->count; i++) {
        status = retrieval_vectors_fill(vectors, write, &round->docs[i], backfill->info.fingerprint,
            &round->spans[i], values, err);
        values += round->spans[i].count * backfill->info.dims;
    }
    return status;
}

static void round_over(struct broker_backfill *backfill, const struct round *round,
    enum memos_status status, const struct memos_error *err, int64_t micros)
{
    (void)pthread_mutex_lock(&backfill->lock);
    backfill->error[0] = '\0';
    if (status == MEMOS_OK) {
        backfill->done += round->count;
        backfill->due -= backfill->due < round->count ? backfill->due : round->count;
        backfill->busy_us += round->count > 0 ? (uint64_t)micros : 0;
    } else {
        (void)snprintf(backfill->error, sizeof backfill->error, "%.150s", err->text);
    }
    (void)pthread_mutex_unlock(&backfill->lock);
}

/* *out_count: docs that were done. */
static enum memos_status run_round(struct broker_backfill *backfill, size_t *out_count)
{
    struct memos_clock *clock = &backfill->broker->clock;
    const int64_t begun_us = clock->mono_us(clock->self);
    struct memos_error err = {0};
    struct round *round = calloc(1, sizeof *round);
    if (!round) {
        return MEMOS_NO_MEMORY;
    }
    round->backfill = backfill;
    memos_arena_init(&round->arena, (size_t)ROUND_BYTES_MAX * 16);
    enum memos_status status = read_round(round, &err);
    if (status == MEMOS_OK && round->count > 0) {
        status = encode_round(round, &err);
    }
    if (status == MEMOS_OK && round->count > 0) {
        status = memcube_writer_run(backfill->broker->writer, write_round, round, &err);
    }
    round_over(backfill, round, status, &err, clock->mono_us(clock->self) - begun_us);
    if (status != MEMOS_OK && status != MEMOS_CANCELLED) {
        memos_log(MEMOS_LOG_WARNING, memos_log_event("vectors are not being made"),
            memos_log_error(&err));
    }
    *out_count = round->count;
    free(round->values);
    memos_arena_finish(&round->arena);
    free(round);
    return status;
}

static void *backfill_main(void *self)
{
    struct broker_backfill *backfill = self;
    int64_t pause_ms = 0;
    while (wait_for(backfill, pause_ms, &backfill->kicked)) {
        size_t count = 0;
        const enum memos_status status = run_round(backfill, &count);
        pause_ms = status != MEMOS_OK ? RETRY_MS : count > 0 ? 0 : LOOK_EVERY_MS;
    }
    return NULL;
}

/* ---- upkeep of approximate indexes ----------------------------------------------------------- */

static bool upkeep_goes_on(void *self, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    return !is_stopping(self);
}

static void *upkeep_main(void *self)
{
    struct broker_backfill *backfill = self;
    struct retrieval_vectors *vectors = retrieval_vectors_of(backfill->broker->retrieval);
    int64_t pause_ms = 0;
    bool woken = false; /* nobody does */
    while (wait_for(backfill, pause_ms, &woken)) {
        struct memos_error err = {0};
        bool worked = false;
        const enum memos_status status =
            retrieval_vectors_work(vectors, upkeep_goes_on, backfill, &worked, &err);
        if (status != MEMOS_OK && status != MEMOS_CANCELLED) {
            memos_log(MEMOS_LOG_WARNING,
                memos_log_event("an approximate index is not kept up; searches are exact"),
                memos_log_error(&err));
        }
        pause_ms = status != MEMOS_OK ? RETRY_MS : worked ? 0 : LOOK_EVERY_MS;
    }
    return NULL;
}

/* ---- life ------------------------------------------------------------------------------------ */

static enum memos_status start_thread(pthread_t *thread, bool *has, void *(*run)(void *),
    struct broker_backfill *backfill, const char *name, struct memos_error *err)
{
    const int code = pthread_create(thread, NULL, run, backfill);
    if (code != 0) {
        return memos_fail_errno(err, code, "cannot start the thread %s", name);
    }
    (void)pthread_setname_np(*thread, name);
    *has = true;
    return MEMOS_OK;
}

enum memos_status broker_backfill_create(struct broker *broker, struct retrieval_embedder *embedder,
    const struct retrieval_encoder_info *info, struct broker_backfill **out_backfill,
    struct memos_error *err)
{
    struct broker_backfill *backfill = calloc(1, sizeof *backfill);
    pthread_condattr_t attributes;
    if (!backfill) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to make vectors in the background");
    }
    backfill->broker = broker;
    backfill->embedder = embedder;
    backfill->info = *info;
    (void)pthread_mutex_init(&backfill->lock, NULL);
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&backfill->changed, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    enum memos_status status = start_thread(
        &backfill->thread, &backfill->has_thread, backfill_main, backfill, "memosd-fill", err);
    if (status == MEMOS_OK) {
        status = start_thread(
            &backfill->upkeep, &backfill->has_upkeep, upkeep_main, backfill, "memosd-index", err);
    }
    if (status != MEMOS_OK) {
        broker_backfill_destroy(&backfill);
        return status;
    }
    *out_backfill = backfill;
    return MEMOS_OK;
}

void broker_backfill_destroy(struct broker_backfill **backfill_in)
{
    struct broker_backfill *backfill = *backfill_in;
    *backfill_in = NULL;
    if (!backfill) {
        return;
    }
    (void)pthread_mutex_lock(&backfill->lock);
    backfill->stopping = true;
    (void)pthread_cond_broadcast(&backfill->changed);
    (void)pthread_mutex_unlock(&backfill->lock);
    if (backfill->has_thread) {
        (void)pthread_join(backfill->thread, NULL);
    }
    if (backfill->has_upkeep) {
        (void)pthread_join(backfill->upkeep, NULL);
    }
    (void)pthread_cond_destroy(&backfill->changed);
    (void)pthread_mutex_destroy(&backfill->lock);
    free(backfill);
}

void broker_backfill_kick(struct broker_backfill *backfill)
{
    (void)pthread_mutex_lock(&backfill->lock);
    backfill->kicked = true;
    (void)pthread_cond_broadcast(&backfill->changed);
    (void)pthread_mutex_unlock(&backfill->lock);
}

void broker_backfill_status(struct broker_backfill *backfill, struct broker_meaning_status *out)
{
    (void)pthread_mutex_lock(&backfill->lock);
    out->waiting = backfill->due;
    out->done = backfill->done;
    out->per_second =
        backfill->busy_us > 0 ? (double)backfill->done * 1e6 / (double)backfill->busy_us : 0.0;
    memcpy(out->error, backfill->error, sizeof out->error);
    (void)pthread_mutex_unlock(&backfill->lock);
}
