/* A space as a classifier: the labels of the nearest examples vote (retrieval/vote.h). */
#include "memos/broker/state.h"

#include <string.h>

static enum memos_status fail_full(struct memos_error *err)
{
    return memos_fail(err, MEMOS_TOO_LARGE, "the reply needs more memory than one may take");
}

/* One request: its labels are numbered as they are met. */
struct classifying {
    struct broker_request *rq;
    struct memcube_read *read;
    struct memcube_space space;
    struct retrieval_encoder_info encoder;
    struct memcube_docs wanted;
    struct retrieval_vector_hit *hits;
    struct retrieval_voice *voices; /* as many as tags of top_k examples can be */
    struct retrieval_share *shares;
    struct memcube_ref *refs;
    struct memos_bytes *labels;
    uint32_t labels_count;
    size_t voices_max;
};

static bool begins(struct memos_bytes text, struct memos_bytes prefix)
{
    return text.size > prefix.size && memcmp(text.data, prefix.data, prefix.size) == 0;
}

static uint32_t label_number(struct classifying *c, struct memos_bytes name)
{
    for (uint32_t i = 0; i < c->labels_count; i++) {
        if (memos_bytes_equal(c->labels[i], name)) {
            return i;
        }
    }
    c->labels[c->labels_count] = name;
    return c->labels_count++;
}

/* The labels of one example join the voices. */
static enum memos_status example_add(
    struct classifying *c, size_t i, size_t *voices_count, struct memos_error *err)
{
    const struct broker_call_classify *call = &c->rq->call.classify;
    const struct memos_bytes prefix = call->tag_prefix;
    struct memcube_version version;
    enum memos_status status =
        memcube_version_of_doc(c->read, &c->space, c->hits[i].doc, &call->as_of, &version, err);
    if (status != MEMOS_OK) {
        return status;
    }
    c->refs[i] = (struct memcube_ref){.id = version.id, .number = version.number};
    for (size_t t = 0; t < version.description.tags_count; t++) {
        struct memos_bytes tag = version.description.tags[t];
        if (prefix.size > 0 && !begins(tag, prefix)) {
            continue;
        }
        tag = memos_bytes_make((const char *)tag.data + prefix.size, tag.size - prefix.size);
        c->voices[(*voices_count)++] = (struct retrieval_voice){
            .example = (uint32_t)i,
            .label = label_number(c, tag),
            .cosine = c->hits[i].cosine,
            .time_us = version.time_us,
        };
    }
    return MEMOS_OK;
}

static enum memos_status labels_fill(
    struct classifying *c, size_t count, Memos__Classification *out, struct memos_error *err)
{
    void **pointers = NULL;
    enum memos_status status =
        broker_array_make(&c->rq->work, count, sizeof(Memos__Label), &pointers, err);
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        Memos__Label *label = pointers[i];
        memos__label__init(label);
        label->weight = c->shares[i].weight;
        status = broker_text_make(&c->rq->work, c->labels[c->shares[i].label], &label->name, err);
    }
    out->labels = (Memos__Label **)pointers;
    out->n_labels = count;
    return status;
}

static enum memos_status classify_one(
    struct classifying *c, size_t index, Memos__Classification *out, struct memos_error *err)
{
    const struct broker_call_classify *call = &c->rq->call.classify;
    const struct retrieval_vote_options options = {
        .method = call->method, .margin = call->margin, .temperature = call->temperature};
    const float *vector = broker_meaning_vector(c->rq, index);
    size_t hits_count = 0, voices_count = 0, examples = 0;
    uint32_t missing = 0;

    if (!vector) {
        return call->texts[index].size == 0
                   ? MEMOS_OK
                   : memos_fail(err, MEMOS_UNAVAILABLE, "the encoder made no vector of the text");
    }
    enum memos_status status = retrieval_vectors_search(
        retrieval_vectors_of(c->rq->broker->retrieval), c->read, &c->space, c->encoder.fingerprint,
        vector, &c->wanted, call->top_k, c->hits, &hits_count, &missing, err);
    c->labels_count = 0;
    for (size_t i = 0; i < hits_count && status == MEMOS_OK; i++) {
        status = example_add(c, i, &voices_count, err);
    }
    if (status != MEMOS_OK || voices_count == 0) {
        return status;
    }
    size_t count = retrieval_vote(&options, c->voices, voices_count, c->shares, &examples);
    out->best_cosine = c->hits[0].cosine;
    status = labels_fill(c, count, out, err);
    if (status == MEMOS_OK) {
        status = broker_refs_make(&c->rq->work, c->refs, examples, &out->examples, err);
        out->n_examples = status == MEMOS_OK ? examples : 0;
    }
    return status;
}

static enum memos_status begin(struct classifying *c, struct memos_error *err)
{
    struct broker_request *rq = c->rq;
    struct broker_call_classify *call = &rq->call.classify;
    c->voices_max = call->top_k * MEMCUBE_TAGS_MAX;
    c->hits = memos_arena_take(&rq->work, call->top_k, sizeof *c->hits);
    c->refs = memos_arena_take(&rq->work, call->top_k, sizeof *c->refs);
    c->voices = memos_arena_take(&rq->work, c->voices_max, sizeof *c->voices);
    c->shares = memos_arena_take(&rq->work, c->voices_max, sizeof *c->shares);
    c->labels = memos_arena_take(&rq->work, c->voices_max, sizeof *c->labels);
    if (!c->hits || !c->refs || !c->voices || !c->shares || !c->labels) {
        return fail_full(err);
    }
    if (!broker_meaning_describe(rq->broker->meaning, &c->encoder)) {
        return memos_fail(err, MEMOS_UNSUPPORTED,
            "the broker has no encoder (encoder = \"none\"), and classifies by vectors");
    }
    call->filter.viewer = rq->viewer;
    enum memos_status status = broker_reader_space(rq->reader, rq->call.space, &c->space, err);
    return status == MEMOS_OK ? memcube_docs_select(c->read, &c->space, &call->filter, &call->as_of,
                                    &c->wanted, err)
                              : status;
}

enum memos_status broker_classify(
    struct broker_request *rq, struct memcube_read *read, struct memos_error *err)
{
    const struct memos_clock *clock = &rq->broker->clock;
    const int64_t begun_us = clock->mono_us(clock->self);
    struct classifying c = {.rq = rq, .read = read};
    const size_t count = rq->call.classify.count;
    void **pointers = NULL;
    Memos__Classified *out = memos_arena_take(&rq->work, 1, sizeof *out);
    enum memos_status status = out ? begin(&c, err) : fail_full(err);
    if (status == MEMOS_OK) {
        status = broker_array_make(&rq->work, count, sizeof(Memos__Classification), &pointers, err);
    }
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        memos__classification__init(pointers[i]);
        status = classify_one(&c, i, pointers[i], err);
        if (status == MEMOS_OK) {
            status = broker_request_check(rq, err);
        }
    }
    if (status != MEMOS_OK) {
        return status;
    }
    memos__classified__init(out);
    out->results = (Memos__Classification **)pointers;
    out->n_results = count;
    out->micros = (uint64_t)(clock->mono_us(clock->self) - begun_us);
    rq->reply.body_case = MEMOS__REPLY__BODY_CLASSIFIED;
    rq->reply.classified = out;
    return MEMOS_OK;
}
