/* Vectors before a request runs. The background is in backfill.c. */
#include "memos/broker/meaning.h"

#include "memos/broker/backfill.h"
#include "memos/broker/state.h"
#include "proto/log.h"
#include "retrieval/encoder_spec.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { KEY_FILE_BYTES_MAX = 4096, OPEN_AGAIN_S = 5 };

struct broker_meaning {
    struct broker *broker;
    /* NULL: encoder = "none", or an endpoint that has not answered yet. Set once; before that info
     * and backfill are not to be looked at. */
    _Atomic(struct retrieval_embedder *) embedder;
    struct retrieval_encoder_info info;
    struct broker_backfill *backfill;
    pthread_t opener; /* tries an endpoint until it answers */
    bool has_opener;
    pthread_mutex_t lock; /* Sync: of why_not, and of waiting for a change of stopping */
    pthread_cond_t changed;
    atomic_bool stopping; /* an endpoint that is being asked looks at it, too */
    char why_not[160];    /* the endpoint cannot be used */
};

static struct retrieval_embedder *embedder_of(const struct broker_meaning *meaning)
{
    return meaning ? atomic_load_explicit(&meaning->embedder, memory_order_acquire) : NULL;
}

/* What was prepared for a request. */
struct broker_meant {
    struct broker_request *rq;
    void (*then)(struct broker_request *rq);
    struct memos_arena arena;
    struct retrieval_spans *drafts; /* of each draft of a change */
    size_t drafts_count;
    struct memos_bytes *texts; /* of all drafts, or the questions that want a vector */
    size_t count;
    size_t *places; /* of each question among texts; SIZE_MAX: it wants none */
    size_t questions;
    float *values; /* (count, dims) */
    size_t dims;
    bool made;
    struct retrieval_embedder_job job;
};

/* ---- what a request wants -------------------------------------------------------------------- */

static bool questions_begin(struct broker_meant *meant, size_t count)
{
    meant->texts = memos_arena_take(&meant->arena, count, sizeof *meant->texts);
    meant->places = memos_arena_take(&meant->arena, count, sizeof *meant->places);
    return meant->texts && meant->places;
}

static void question_add(struct broker_meant *meant, struct memos_bytes text, bool wants)
{
    wants = wants && text.size > 0;
    meant->places[meant->questions++] = wants ? meant->count : SIZE_MAX;
    if (wants) {
        meant->texts[meant->count++] = text;
    }
}

static bool gather_searches(struct broker_meant *meant)
{
    const struct broker_request *rq = meant->rq;
    const size_t count = rq->call.search.count;
    if (!questions_begin(meant, count)) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        const struct retrieval_query *query = &rq->call.search.searches[i].query;
        question_add(meant, query->text, query->mode != RETRIEVAL_WORDS);
    }
    return meant->count > 0;
}

static bool gather_classified(struct broker_meant *meant)
{
    const struct broker_call_classify *call = &meant->rq->call.classify;
    if (!questions_begin(meant, call->count)) {
        return false;
    }
    for (size_t i = 0; i < call->count; i++) {
        question_add(meant, call->texts[i], true);
    }
    return meant->count > 0;
}

static bool gather_draft(struct broker_meant *meant, const struct memcube_draft *draft)
{
    return retrieval_spans_make(draft->kind, &draft->description, draft->payload, &meant->arena,
               &meant->drafts[meant->drafts_count++], NULL) == MEMOS_OK;
}

/* What an update makes of a cube: its fields, and the head's where it has none. The text of the
 * payload is copied when it is the head's, since the snapshot ends before the vector is made. */
static enum memos_status updated(struct broker_meant *meant, struct broker_reader *reader,
    const struct memcube_update *update, struct memcube_draft *out, struct memos_error *err)
{
    const unsigned fields = update->fields;
    struct memcube_space space;
    struct memcube_version head;
    enum memos_status status = broker_reader_space(reader, meant->rq->call.space, &space, err);
    if (status == MEMOS_OK) {
        status = memcube_version_get(reader->read, &space, &update->id, 0, NULL, &head, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    *out = update->draft;
    out->kind = head.kind;
    if ((fields & MEMCUBE_FIELD_TITLE) == 0) {
        out->description.title = head.description.title;
    }
    if ((fields & MEMCUBE_FIELD_SPEAKER) == 0) {
        out->description.speaker = head.description.speaker;
    }
    if ((fields & MEMCUBE_FIELD_ATTRIBUTES) == 0) {
        out->description.attributes = head.description.attributes;
        out->description.attributes_count = head.description.attributes_count;
    }
    if ((fields & MEMCUBE_FIELD_PAYLOAD) == 0) {
        status = memcube_payload_get(reader->read, &space, &head, false, &out->payload, err);
        out->payload.data =
            status == MEMOS_OK ? memos_arena_copy(&meant->arena, out->payload) : NULL;
    }
    return status == MEMOS_OK && !out->payload.data
               ? memos_fail(err, MEMOS_NO_MEMORY, "no memory for a text")
               : status;
}

/* Only what changes a content needs a vector. What cannot be read here is refused by the writer, or
 * gets its vector in the background. */
static bool gather_update(
    struct broker_meant *meant, struct broker_reader *reader, const struct memcube_update *update)
{
    const unsigned content = MEMCUBE_FIELD_PAYLOAD | MEMCUBE_FIELD_TITLE | MEMCUBE_FIELD_SPEAKER |
                             MEMCUBE_FIELD_ATTRIBUTES;
    struct memcube_draft draft;
    if ((update->fields & content) == 0 || !reader ||
        updated(meant, reader, update, &draft, NULL) != MEMOS_OK) {
        return true;
    }
    return gather_draft(meant, &draft);
}

static bool gather_drafts(struct broker_meant *meant, struct broker_reader *reader)
{
    const struct broker_request *rq = meant->rq;
    int body = (int)rq->envelope->body_case;
    size_t count = body == MEMOS__REQUEST__BODY_PUT      ? rq->call.put.count
                   : body == MEMOS__REQUEST__BODY_UPDATE ? rq->call.update.count
                                                         : 1;
    bool good = true;
    if (body == MEMOS__REQUEST__BODY_UPDATE && reader &&
        broker_reader_renew(reader, NULL) != MEMOS_OK) {
        reader = NULL;
    }
    meant->drafts = memos_arena_take(&meant->arena, count, sizeof *meant->drafts);
    if (!meant->drafts) {
        return false;
    }
    for (size_t i = 0; i < count && good; i++) {
        if (body == MEMOS__REQUEST__BODY_PUT) {
            good = gather_draft(meant, &rq->call.put.drafts[i]);
        } else if (body == MEMOS__REQUEST__BODY_MERGE) {
            good = gather_draft(meant, &rq->call.merge.draft);
        } else {
            good = gather_update(meant, reader, &rq->call.update.updates[i]);
        }
    }
    return good;
}

/* All spans of all drafts, one after the other. */
static bool flatten(struct broker_meant *meant)
{
    size_t count = 0;
    for (size_t i = 0; i < meant->drafts_count; i++) {
        count += meant->drafts[i].count;
    }
    meant->texts = memos_arena_take(&meant->arena, count, sizeof *meant->texts);
    if (count == 0 || !meant->texts) {
        return false;
    }
    for (size_t i = 0; i < meant->drafts_count; i++) {
        for (size_t s = 0; s < meant->drafts[i].count; s++) {
            meant->texts[meant->count++] = meant->drafts[i].texts[s];
        }
    }
    return true;
}

static bool gather(struct broker_meant *meant, struct broker_reader *reader)
{
    switch (meant->rq->envelope->body_case) {
    case MEMOS__REQUEST__BODY_SEARCH:
    case MEMOS__REQUEST__BODY_SEARCH_MANY:
        return gather_searches(meant);
    case MEMOS__REQUEST__BODY_CLASSIFY:
        return gather_classified(meant);
    case MEMOS__REQUEST__BODY_PUT:
    case MEMOS__REQUEST__BODY_UPDATE:
    case MEMOS__REQUEST__BODY_MERGE:
        return gather_drafts(meant, reader) && flatten(meant);
    default:
        return false;
    }
}

/* ---- preparing ------------------------------------------------------------------------------- */

static void offer(struct broker_meant *meant)
{
    struct broker_meaning *meaning = meant->rq->broker->meaning;
    struct retrieval_vectors *vectors = retrieval_vectors_of(meant->rq->broker->retrieval);
    const float *values = meant->values;
    for (size_t i = 0; i < meant->drafts_count; i++) {
        const struct retrieval_spans *spans = &meant->drafts[i];
        if (spans->count > 0 && retrieval_vectors_offer(vectors, meaning->info.fingerprint, spans,
                                    values, NULL) != MEMOS_OK) {
            broker_meaning_kick(meaning);
        }
        values += spans->count * meant->dims;
    }
}

static void prepared(void *self, enum memos_status status, const struct memos_error *err)
{
    struct broker_meant *meant = self;
    struct broker_request *rq = meant->rq;
    meant->made = status == MEMOS_OK;
    if (meant->made) {
        offer(meant);
    } else {
        memos_log(MEMOS_LOG_DEBUG, memos_log_event("no vectors for a request"),
            memos_log_text("why", err ? err->text : ""));
        broker_meaning_kick(rq->broker->meaning);
    }
    meant->then(rq);
}

void broker_meaning_release(struct broker_request *rq)
{
    struct broker_meant *meant = rq->meant;
    rq->meant = NULL;
    if (meant) {
        free(meant->values);
        memos_arena_finish(&meant->arena);
        free(meant);
    }
}

enum begun { NOT_BEGUN, WAITS, KNOWN };

static enum begun begin(struct broker_meaning *meaning, struct broker_meant *meant)
{
    const enum paramem_role role = meant->drafts_count > 0 ? PARAMEM_PASSAGE : PARAMEM_QUERY;
    meant->dims = meaning->info.dims;
    meant->values = calloc(meant->count * meant->dims, sizeof *meant->values);
    if (!meant->values) {
        return NOT_BEGUN;
    }
    if (retrieval_embedder_remembered(
            embedder_of(meaning), meant->texts, meant->count, role, meant->values)) {
        meant->made = true;
        offer(meant);
        return KNOWN;
    }
    meant->job = (struct retrieval_embedder_job){
        .texts = meant->texts,
        .count = meant->count,
        .role = role,
        .deadline_us = meant->rq->deadline_us,
        .out = meant->values,
        .done = prepared,
        .self = meant,
    };
    return retrieval_embedder_submit(embedder_of(meaning), &meant->job, NULL) == MEMOS_OK
               ? WAITS
               : NOT_BEGUN;
}

bool broker_meaning_prepare(struct broker_request *rq, struct broker_reader *reader,
    void (*then)(struct broker_request *rq))
{
    struct broker_meaning *meaning = rq->broker->meaning;
    if (rq->meant || !embedder_of(meaning)) {
        return false;
    }
    struct broker_meant *meant = calloc(1, sizeof *meant);
    if (!meant) {
        return false;
    }
    meant->rq = rq;
    meant->then = then;
    /* titles are joined with their texts, so that each may be copied once */
    memos_arena_init(&meant->arena, 2 * rq->message_bytes + (1 << 20));
    rq->meant = meant;
    const bool wanted = gather(meant, reader);
    const enum begun begun = wanted ? begin(meaning, meant) : NOT_BEGUN;
    if (begun == WAITS) {
        return true; /* rq may be gone by now */
    }
    if (wanted && begun == NOT_BEGUN) {
        broker_meaning_kick(meaning); /* the queue is full, or memory is short */
    }
    return false;
}

const float *broker_meaning_vector(const struct broker_request *rq, size_t i)
{
    const struct broker_meant *meant = rq->meant;
    if (!meant || !meant->made || i >= meant->questions || meant->places[i] == SIZE_MAX) {
        return NULL;
    }
    return meant->values + meant->places[i] * meant->dims;
}

/* ---- the encoder ----------------------------------------------------------------------------- */

bool broker_meaning_describe(
    const struct broker_meaning *meaning, struct retrieval_encoder_info *out)
{
    if (!embedder_of(meaning)) {
        return false;
    }
    *out = meaning->info;
    return true;
}

enum memos_status broker_meaning_encode(
    struct broker_meaning *meaning, struct memos_bytes text, float *out, struct memos_error *err)
{
    if (!embedder_of(meaning)) {
        return memos_fail(err, MEMOS_UNAVAILABLE,
            "the broker has no encoder: encoder = \"none\", or its endpoint does not answer");
    }
    return retrieval_embedder_run(embedder_of(meaning), &text, 1, PARAMEM_QUERY, out, err);
}

void broker_meaning_kick(struct broker_meaning *meaning)
{
    if (embedder_of(meaning)) {
        broker_backfill_kick(meaning->backfill);
    }
}

void broker_meaning_status(struct broker_meaning *meaning, struct broker_meaning_status *out)
{
    *out = (struct broker_meaning_status){.waiting = 0};
    if (embedder_of(meaning)) {
        broker_backfill_status(meaning->backfill, out);
        retrieval_embedder_stats(embedder_of(meaning), &out->embedder);
    } else if (meaning) {
        (void)pthread_mutex_lock(&meaning->lock);
        memcpy(out->error, meaning->why_not, sizeof out->error);
        (void)pthread_mutex_unlock(&meaning->lock);
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

/* The bearer token of an endpoint: the first line of a file that others may not read. */
static enum memos_status key_read(
    const char *path, char out[KEY_FILE_BYTES_MAX], struct memos_error *err)
{
    struct stat info;
    FILE *file = fopen(path, "re");
    if (!file || fstat(fileno(file), &info) != 0) {
        const enum memos_status status =
            memos_fail_errno(err, errno, "encoder_key_file %s cannot be read", path);
        if (file) {
            (void)fclose(file);
        }
        return status;
    }
    const bool is_private = (info.st_mode & 077) == 0;
    const bool has_line = is_private && fgets(out, KEY_FILE_BYTES_MAX, file) != NULL;
    (void)fclose(file);
    if (!is_private) {
        return memos_fail(err, MEMOS_DENIED, "%s can be read by others: chmod 600 %s", path, path);
    }
    if (!has_line) {
        return memos_fail(err, MEMOS_INVALID, "%s has no key in its first line", path);
    }
    out[strcspn(out, "\r\n")] = '\0';
    return MEMOS_OK;
}

static enum memos_status open_encoder(
    const struct broker_meaning *meaning, struct retrieval_encoder **out, struct memos_error *err)
{
    const struct broker_config *config = meaning->broker->options.config;
    struct retrieval_encoder_spec *spec = calloc(1, sizeof *spec);
    struct retrieval_encoder_options options;
    char key[KEY_FILE_BYTES_MAX] = "";
    enum memos_status status = spec ? retrieval_encoder_spec_parse(
                                          config->encoder, config->encoder_weights, NULL, spec, err)
                                    : memos_fail(err, MEMOS_NO_MEMORY, "no memory for an encoder");
    if (status == MEMOS_OK) {
        retrieval_encoder_spec_options(spec, &options);
        options.folder.kern.threads = (unsigned)config->encoder_threads;
        options.endpoint.stop = &meaning->stopping;
    }
    if (status == MEMOS_OK && config->encoder_key_file[0]) {
        status = key_read(config->encoder_key_file, key, err);
        options.endpoint.key = key;
    }
    if (status == MEMOS_OK) {
        status = retrieval_encoder_open(&options, out, err);
    }
    if (status == MEMOS_OK && spec->fell_back) {
        memos_log(MEMOS_LOG_WARNING,
            memos_log_event(
                "no encoder that knows meanings: searching by words and hashed n-grams"),
            memos_log_text("better", "memosctl encoder add minilm, then restart memosd"));
    }
    sodium_memzero(key, sizeof key);
    free(spec);
    return status;
}

/* On the writer's thread: from now on these vectors are stored. */
static enum memos_status activate(void *self, struct memcube_write *write, struct memos_error *err)
{
    const struct broker_meaning *meaning = self;
    return retrieval_vectors_activate(retrieval_vectors_of(meaning->broker->retrieval), write,
        meaning->info.fingerprint, memos_bytes_of(meaning->info.name), meaning->info.dims, err);
}

/* Open it, make it the one in use, and only then let everybody see it. */
static enum memos_status start_encoder(struct broker_meaning *meaning, struct memos_error *err)
{
    const struct retrieval_embedder_options options = {
        .clock = meaning->broker->clock,
        .texts_max = (size_t)meaning->broker->options.config->encoder_queue_max,
    };
    struct retrieval_encoder *encoder = NULL;
    struct retrieval_embedder *embedder = NULL;
    enum memos_status status = open_encoder(meaning, &encoder, err);
    if (status == MEMOS_OK) {
        status = retrieval_embedder_create(&encoder, &options, &embedder, err);
    }
    retrieval_encoder_close(&encoder);
    if (status == MEMOS_OK) {
        retrieval_embedder_describe(embedder, &meaning->info);
        status = memcube_writer_run(meaning->broker->writer, activate, meaning, err);
    }
    if (status == MEMOS_OK) {
        status = broker_backfill_create(
            meaning->broker, embedder, &meaning->info, &meaning->backfill, err);
    }
    if (status != MEMOS_OK) {
        retrieval_embedder_destroy(&embedder);
        return status;
    }
    memos_log(MEMOS_LOG_INFO, memos_log_event("encoder"),
        memos_log_text("name", meaning->info.name), memos_log_uint("dims", meaning->info.dims));
    atomic_store_explicit(&meaning->embedder, embedder, memory_order_release);
    return MEMOS_OK;
}

static void not_yet(struct broker_meaning *meaning, const struct memos_error *err)
{
    (void)pthread_mutex_lock(&meaning->lock);
    (void)snprintf(meaning->why_not, sizeof meaning->why_not, "%.150s", err->text);
    (void)pthread_mutex_unlock(&meaning->lock);
    memos_log(MEMOS_LOG_WARNING,
        memos_log_event("the encoder cannot be used yet: searching by words, trying again"),
        memos_log_error(err));
}

/* Wait a while; false: it is time to end. */
static bool wait_again(struct broker_meaning *meaning)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += OPEN_AGAIN_S;
    (void)pthread_mutex_lock(&meaning->lock);
    while (!meaning->stopping &&
           pthread_cond_timedwait(&meaning->changed, &meaning->lock, &until) == 0) {
    }
    const bool goes_on = !meaning->stopping;
    (void)pthread_mutex_unlock(&meaning->lock);
    return goes_on;
}

static void *opener_main(void *self)
{
    struct broker_meaning *meaning = self;
    while (wait_again(meaning)) {
        struct memos_error err = {0};
        if (start_encoder(meaning, &err) == MEMOS_OK) {
            break;
        }
        not_yet(meaning, &err);
    }
    return NULL;
}

/* A service elsewhere may be down for a while; a folder that is wrong stays wrong. */
static bool may_pass(const struct broker_config *config, enum memos_status status)
{
    return strstr(config->encoder, "://") && status != MEMOS_INVALID && status != MEMOS_NO_MEMORY;
}

static enum memos_status start_or_wait(struct broker_meaning *meaning, struct memos_error *err)
{
    struct memos_error why = {0};
    const enum memos_status status = start_encoder(meaning, &why);
    if (status == MEMOS_OK) {
        return MEMOS_OK;
    }
    if (!may_pass(meaning->broker->options.config, status)) {
        return memos_fail(err, status, "%s", why.text);
    }
    not_yet(meaning, &why);
    const int code = pthread_create(&meaning->opener, NULL, opener_main, meaning);
    if (code != 0) {
        return memos_fail_errno(err, code, "cannot start the thread that waits for the encoder");
    }
    meaning->has_opener = true;
    return MEMOS_OK;
}

enum memos_status broker_meaning_create(
    struct broker *broker, struct broker_meaning **out_meaning, struct memos_error *err)
{
    struct broker_meaning *meaning = calloc(1, sizeof *meaning);
    pthread_condattr_t attributes;
    if (!meaning) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for an encoder");
    }
    meaning->broker = broker;
    atomic_init(&meaning->stopping, false);
    (void)pthread_mutex_init(&meaning->lock, NULL);
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&meaning->changed, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    *out_meaning = meaning; /* destroyed with the broker, half-built too */
    return strcmp(broker->options.config->encoder, "none") == 0 ? MEMOS_OK
                                                                : start_or_wait(meaning, err);
}

void broker_meaning_stop(struct broker_meaning *meaning)
{
    if (!meaning) {
        return;
    }
    (void)pthread_mutex_lock(&meaning->lock);
    meaning->stopping = true;
    (void)pthread_cond_signal(&meaning->changed);
    (void)pthread_mutex_unlock(&meaning->lock);
    if (meaning->has_opener) {
        (void)pthread_join(meaning->opener, NULL);
        meaning->has_opener = false;
    }
    if (embedder_of(meaning)) {
        retrieval_embedder_stop(embedder_of(meaning));
    }
}

void broker_meaning_end(struct broker_meaning *meaning)
{
    if (meaning) {
        broker_backfill_destroy(&meaning->backfill);
    }
}

void broker_meaning_destroy(struct broker_meaning **meaning_in)
{
    struct broker_meaning *meaning = *meaning_in;
    *meaning_in = NULL;
    if (!meaning) {
        return;
    }
    struct retrieval_embedder *embedder = embedder_of(meaning);
    broker_meaning_stop(meaning);
    broker_backfill_destroy(&meaning->backfill);
    retrieval_embedder_destroy(&embedder);
    (void)pthread_cond_destroy(&meaning->changed);
    (void)pthread_mutex_destroy(&meaning->lock);
    free(meaning);
}
