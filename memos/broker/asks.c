/* Requests that the front thread answers from its own state. */
#include "memos/broker/state.h"
#include "memos/broker/work.h"

#include <string.h>

static enum memos_status fail_full(struct memos_error *err)
{
    return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a reply");
}

static char *const_text(const char *text)
{
    return (char *)(uintptr_t)text; /* protobuf-c only reads what it packs */
}

enum memos_status broker_hello(struct broker_request *rq, struct memos_error *err)
{
    struct broker *broker = rq->broker;
    const struct broker_entrance *entrance = &broker->doors[rq->peer.door];
    Memos__Welcome *out = memos_arena_take(&rq->work, 1, sizeof *out);
    if (!out) {
        return fail_full(err);
    }
    memos__welcome__init(out);
    out->version = const_text(BROKER_VERSION);
    out->protocol = MEMOS_PROTOCOL_VERSION;
    out->message_bytes_max = broker->message_bytes_max;
    out->administrator = broker_access_global(rq->access, rq->principal, BROKER_RIGHT_ADMIN);
    if (entrance->events_count > 0) {
        out->events = entrance->events_bound[0];
    }
    if (broker->keys.public_key[0] != '\0') {
        out->server_key.data = (uint8_t *)broker->keys.public_key;
        out->server_key.len = BROKER_KEY_BYTES;
    }
    rq->reply.body_case = MEMOS__REPLY__BODY_WELCOME;
    rq->reply.welcome = out;
    return broker_text_make(&rq->work, rq->principal, &out->principal, err);
}

enum memos_status broker_stats(struct broker_request *rq, struct memos_error *err)
{
    Memos__StatsResult *out = memos_arena_take(&rq->work, 1, sizeof *out);
    if (!out) {
        return fail_full(err);
    }
    memos__stats_result__init(out);
    rq->reply.body_case = MEMOS__REPLY__BODY_STATS_RESULT;
    rq->reply.stats_result = out;
    return broker_metrics_make(rq, out, err);
}

enum memos_status broker_watch(struct broker_request *rq, struct memos_error *err)
{
    struct broker *broker = rq->broker;
    struct memcube_read *read = NULL;
    struct memcube_space space;
    Memos__WatchToken *out = memos_arena_take(&rq->work, 1, sizeof *out);
    uint8_t *token = memos_arena_take(&rq->work, 1, 16);
    if (!out || !token) {
        return fail_full(err);
    }
    memos__watch_token__init(out);
    enum memos_status status = memcube_read_begin(broker->store, &read, err);
    if (status == MEMOS_OK) {
        status = memcube_space_find(read, rq->call.space, &space, err);
    }
    if (status == MEMOS_NOT_FOUND) { /* who may read it may wait for it */
        space = (struct memcube_space){.name = rq->call.space};
        status = MEMOS_OK;
    }
    if (status == MEMOS_OK) {
        status = broker_events_watch(broker->events, rq, &space, broker->config.watches_max,
            broker->config.watch_lease_ms, token, err);
    }
    if (status == MEMOS_OK) {
        out->token = (ProtobufCBinaryData){.len = 16, .data = token};
        out->lease_ms = (uint32_t)broker->config.watch_lease_ms;
        out->seq = space.seq;
        rq->reply.body_case = MEMOS__REPLY__BODY_WATCH_TOKEN;
        rq->reply.watch_token = out;
    }
    if (read) {
        memcube_read_end(&read);
    }
    return status;
}

enum memos_status broker_cancel(struct broker_request *rq, struct memos_error *err)
{
    uint64_t id = rq->envelope->cancel->request_id;
    for (struct broker_request *other = rq->session->first; other; other = other->session_next) {
        if (other != rq && other->envelope->id == id) {
            if (other->type->class == BROKER_KEPT) {
                broker_work_cancel(other);
                return MEMOS_OK;
            }
            atomic_store_explicit(&other->cancelled, true, memory_order_relaxed);
            return MEMOS_OK;
        }
    }
    return memos_fail(
        err, MEMOS_NOT_FOUND, "request %llu is not waiting here", (unsigned long long)id);
}

enum memos_status broker_grant_list(struct broker_request *rq, struct memos_error *err)
{
    size_t count;
    const struct broker_grant *grants = broker_access_grants(rq->access, &count);
    Memos__Grants *out = memos_arena_take(&rq->work, 1, sizeof *out);
    void **pointers = NULL;
    enum memos_status status =
        broker_array_make(&rq->work, count, sizeof(Memos__Grant), &pointers, err);
    if (!out || status != MEMOS_OK) {
        return fail_full(err);
    }
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        Memos__Grant *grant = pointers[i];
        memos__grant__init(grant);
        grant->rights = const_text(broker_right_text(grants[i].right));
        grant->since_us = grants[i].since_us;
        status = broker_text_make(&rq->work, grants[i].principal, &grant->principal, err);
        if (status == MEMOS_OK) {
            status = broker_text_make(&rq->work, grants[i].spaces, &grant->spaces, err);
        }
    }
    memos__grants__init(out);
    out->grants = (Memos__Grant **)pointers;
    out->n_grants = count;
    rq->reply.body_case = MEMOS__REPLY__BODY_GRANTS;
    rq->reply.grants = out;
    return status;
}

enum memos_status broker_key_list(struct broker_request *rq, struct memos_error *err)
{
    size_t count;
    const struct broker_key *keys = broker_access_keys(rq->access, &count);
    Memos__Keys *out = memos_arena_take(&rq->work, 1, sizeof *out);
    void **pointers = NULL;
    enum memos_status status =
        broker_array_make(&rq->work, count, sizeof(Memos__Key), &pointers, err);
    if (!out || status != MEMOS_OK) {
        return fail_full(err);
    }
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        Memos__Key *key = pointers[i];
        memos__key__init(key);
        key->since_us = keys[i].since_us;
        status = broker_text_make(&rq->work, keys[i].public_key, &key->public_key, err);
        if (status == MEMOS_OK) {
            status = broker_text_make(&rq->work, keys[i].principal, &key->principal, err);
        }
    }
    memos__keys__init(out);
    out->keys = (Memos__Key **)pointers;
    out->n_keys = count;
    rq->reply.body_case = MEMOS__REPLY__BODY_KEYS;
    rq->reply.keys = out;
    return status;
}

static const char *source_name(enum retrieval_encoder_source source)
{
    switch (source) {
    case RETRIEVAL_ENCODER_FOLDER:
        return "folder";
    case RETRIEVAL_ENCODER_ENDPOINT:
        return "endpoint";
    case RETRIEVAL_ENCODER_NGRAMS:
        return "ngrams";
    }
    return "";
}

enum memos_status broker_encoder_status(struct broker_request *rq, struct memos_error *err)
{
    struct broker *broker = rq->broker;
    struct retrieval_encoder_info info;
    struct broker_meaning_status now;
    Memos__EncoderInfo *out = memos_arena_take(&rq->work, 1, sizeof *out);
    if (!out) {
        return fail_full(err);
    }
    memos__encoder_info__init(out);
    rq->reply.body_case = MEMOS__REPLY__BODY_ENCODER_INFO;
    rq->reply.encoder_info = out;
    broker_meaning_status(broker->meaning, &now);
    if (!broker_meaning_describe(broker->meaning, &info)) {
        return broker_text_make(&rq->work, memos_bytes_of(now.error), &out->error, err);
    }
    void *fingerprint =
        memos_arena_copy(&rq->work, memos_bytes_make(info.fingerprint, sizeof info.fingerprint));
    if (!fingerprint) {
        return fail_full(err);
    }
    out->fingerprint = (ProtobufCBinaryData){.len = sizeof info.fingerprint, .data = fingerprint};
    out->source = const_text(source_name(info.source));
    out->dims = (uint32_t)info.dims;
    out->semantic = info.semantic;
    out->codes = const_text(broker->options.config->vector_codes);
    out->waiting = now.waiting;
    out->done = now.done;
    out->per_second = now.per_second;
    enum memos_status status =
        broker_text_make(&rq->work, memos_bytes_of(info.name), &out->name, err);
    return status == MEMOS_OK
               ? broker_text_make(&rq->work, memos_bytes_of(now.error), &out->error, err)
               : status;
}
