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

enum { KEY_FILE_BYTES_MAX = 4096 };

struct broker_meaning {
    struct broker *broker;
    struct retrieval_embedder *embedder; /* NULL: encoder = "none" */
    struct retrieval_encoder_info info;
    struct broker_backfill *backfill;
};

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

/* An update that brings no new text says nothing of the text that stays: its vector, if it needs a
 * new one, is made in the background. */
static bool gather_drafts(struct broker_meant *meant)
{
    const struct broker_request *rq = meant->rq;
    int body = (int)rq->envelope->body_case;
    size_t count = body == MEMOS__REQUEST__BODY_PUT      ? rq->call.put.count
                   : body == MEMOS__REQUEST__BODY_UPDATE ? rq->call.update.count
                                                         : 1;
    bool good = true;
    meant->drafts = memos_arena_take(&meant->arena, count, sizeof *meant->drafts);
    if (!meant->drafts) {
        return false;
    }
    for (size_t i = 0; i < count && good; i++) {
        if (body == MEMOS__REQUEST__BODY_PUT) {
            good = gather_draft(meant, &rq->call.put.drafts[i]);
        } else if (body == MEMOS__REQUEST__BODY_MERGE) {
            good = gather_draft(meant, &rq->call.merge.draft);
        } else if (rq->call.update.updates[i].fields & MEMCUBE_FIELD_PAYLOAD) {
            good = gather_draft(meant, &rq->call.update.updates[i].draft);
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

static bool gather(struct broker_meant *meant)
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
        return gather_drafts(meant) && flatten(meant);
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
            meaning->embedder, meant->texts, meant->count, role, meant->values)) {
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
    return retrieval_embedder_submit(meaning->embedder, &meant->job, NULL) == MEMOS_OK ? WAITS
                                                                                       : NOT_BEGUN;
}

bool broker_meaning_prepare(struct broker_request *rq, void (*then)(struct broker_request *rq))
{
    struct broker_meaning *meaning = rq->broker->meaning;
    if (rq->meant || !meaning || !meaning->embedder) {
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
    const bool wanted = gather(meant);
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
    if (!meaning || !meaning->embedder) {
        return false;
    }
    *out = meaning->info;
    return true;
}

enum memos_status broker_meaning_encode(
    struct broker_meaning *meaning, struct memos_bytes text, float *out, struct memos_error *err)
{
    if (!meaning || !meaning->embedder) {
        return memos_fail(err, MEMOS_UNSUPPORTED, "the broker has no encoder (encoder = \"none\")");
    }
    return retrieval_embedder_run(meaning->embedder, &text, 1, PARAMEM_QUERY, out, err);
}

void broker_meaning_kick(struct broker_meaning *meaning)
{
    if (meaning && meaning->backfill) {
        broker_backfill_kick(meaning->backfill);
    }
}

void broker_meaning_status(struct broker_meaning *meaning, struct broker_meaning_status *out)
{
    *out = (struct broker_meaning_status){.todo = 0};
    if (meaning && meaning->embedder) {
        broker_backfill_status(meaning->backfill, out);
        retrieval_embedder_stats(meaning->embedder, &out->embedder);
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
    const struct broker_config *config, struct retrieval_encoder **out, struct memos_error *err)
{
    struct retrieval_encoder_spec *spec = calloc(1, sizeof *spec);
    struct retrieval_encoder_options options;
    char key[KEY_FILE_BYTES_MAX] = "";
    enum memos_status status = spec ? retrieval_encoder_spec_parse(
                                          config->encoder, config->encoder_weights, NULL, spec, err)
                                    : memos_fail(err, MEMOS_NO_MEMORY, "no memory for an encoder");
    if (status == MEMOS_OK) {
        retrieval_encoder_spec_options(spec, &options);
        options.folder.kern.threads = (unsigned)config->encoder_threads;
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

static enum memos_status start_encoder(struct broker_meaning *meaning, struct memos_error *err)
{
    const struct broker_config *config = meaning->broker->options.config;
    const struct retrieval_embedder_options options = {
        .clock = meaning->broker->clock,
        .texts_max = (size_t)config->encoder_queue_max,
    };
    struct retrieval_encoder *encoder = NULL;
    enum memos_status status = open_encoder(config, &encoder, err);
    if (status == MEMOS_OK) {
        status = retrieval_embedder_create(&encoder, &options, &meaning->embedder, err);
    }
    retrieval_encoder_close(&encoder);
    if (status != MEMOS_OK) {
        return status;
    }
    retrieval_embedder_describe(meaning->embedder, &meaning->info);
    memos_log(MEMOS_LOG_INFO, memos_log_event("encoder"),
        memos_log_text("name", meaning->info.name), memos_log_uint("dims", meaning->info.dims));
    status = memcube_writer_run(meaning->broker->writer, activate, meaning, err);
    return status == MEMOS_OK ? broker_backfill_create(meaning->broker, meaning->embedder,
                                    &meaning->info, &meaning->backfill, err)
                              : status;
}

enum memos_status broker_meaning_create(
    struct broker *broker, struct broker_meaning **out_meaning, struct memos_error *err)
{
    struct broker_meaning *meaning = calloc(1, sizeof *meaning);
    if (!meaning) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for an encoder");
    }
    meaning->broker = broker;
    *out_meaning = meaning; /* destroyed with the broker, half-built too */
    return strcmp(broker->options.config->encoder, "none") == 0 ? MEMOS_OK
                                                                : start_encoder(meaning, err);
}

void broker_meaning_stop(struct broker_meaning *meaning)
{
    if (meaning && meaning->embedder) {
        retrieval_embedder_stop(meaning->embedder);
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
    if (meaning) {
        broker_backfill_destroy(&meaning->backfill);
        retrieval_embedder_destroy(&meaning->embedder);
        free(meaning);
    }
}
