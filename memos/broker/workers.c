#include "memos/broker/workers.h"

#include "memos/broker/state.h"

#include <stdlib.h>
#include <string.h>

enum { NAMES_BYTES = 120, HEX_DIGITS_MIN = 8 };

static const Memos__WorkerAnnounce *said(const struct broker_worker *worker)
{
    return worker->announcement->envelope->worker_announce;
}

const char *broker_worker_name(const struct broker_worker *worker)
{
    return said(worker)->name;
}

static bool takes_jobs(const struct broker_worker *worker)
{
    return !worker->gone && !worker->draining;
}

/* ---- the table ---- */

struct broker_worker *broker_workers_at(const struct broker_workers *workers, uint64_t connection)
{
    struct broker_worker *worker = workers->first;
    while (worker && worker->connection != connection) {
        worker = worker->next;
    }
    return worker;
}

struct broker_worker *broker_workers_called(
    const struct broker_workers *workers, struct memos_bytes instance)
{
    for (struct broker_worker *worker = workers->first; worker; worker = worker->next) {
        const ProtobufCBinaryData *own = &said(worker)->instance;
        if (memos_bytes_equal(memos_bytes_make(own->data, own->len), instance)) {
            return worker;
        }
    }
    return NULL;
}

enum memos_status broker_workers_add(struct broker_workers *workers,
    struct broker_request *announcement, struct broker_worker **out_worker, struct memos_error *err)
{
    struct broker *broker = announcement->broker;
    struct broker_worker *worker = calloc(1, sizeof *worker);
    if (!worker) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a worker");
    }
    worker->connection = announcement->connection;
    worker->announcement = announcement;
    worker->since_us = broker->clock.wall_us(broker->clock.self);
    worker->heard_us = announcement->arrived_us;
    worker->next = workers->first;
    workers->first = worker;
    workers->count++;
    *out_worker = worker;
    return MEMOS_OK;
}

void broker_workers_remove(struct broker_workers *workers, struct broker_worker *worker,
    enum memos_status status, const struct memos_error *why)
{
    struct broker *broker = worker->announcement->broker;
    struct broker_worker **at = &workers->first;
    while (*at != worker) {
        at = &(*at)->next;
    }
    *at = worker->next;
    workers->count--;
    if (worker->heartbeat) {
        broker_request_release(worker->heartbeat);
    }
    worker->announcement->answer.drop = true;
    broker_request_pack(worker->announcement, status, why);
    broker_reply_send(broker, &worker->announcement->answer);
    free(worker);
}

/* ---- models ---- */

static bool model_is(const Memos__WorkerModel *model, const struct broker_model_wanted *wanted)
{
    return wanted->by_name ? strcmp(model->name, wanted->name) == 0
                           : memcmp(model->fingerprint.data, wanted->fingerprint,
                                 BROKER_FINGERPRINT_BYTES) == 0;
}

const Memos__WorkerModel *broker_worker_model(
    const struct broker_worker *worker, const struct broker_model_wanted *wanted)
{
    const Memos__WorkerAnnounce *announced = said(worker);
    for (size_t i = 0; i < announced->n_models; i++) {
        if (model_is(announced->models[i], wanted)) {
            return announced->models[i];
        }
    }
    return NULL;
}

bool broker_workers_have(
    const struct broker_workers *workers, const struct broker_model_wanted *wanted)
{
    for (const struct broker_worker *worker = workers->first; worker; worker = worker->next) {
        if (takes_jobs(worker) && broker_worker_model(worker, wanted)) {
            return true;
        }
    }
    return false;
}

/* What a client's text found. */
struct found {
    const Memos__WorkerModel *model; /* the first one that it means */
    bool several;                    /* it means others, too */
    bool draining;                   /* workers that take nothing new have one that it means */
    char names[NAMES_BYTES];         /* of all models, for messages */
};

static bool is_hex_of(const char *text, const ProtobufCBinaryData *fingerprint)
{
    static const char digits[] = "0123456789abcdef";
    size_t length = strlen(text);
    for (size_t i = 0; i < length; i++) {
        uint8_t byte = i / 2 < fingerprint->len ? fingerprint->data[i / 2] : 0;
        unsigned nibble = i % 2 == 0 ? byte >> 4 : byte & 15;
        char lower = text[i] >= 'A' && text[i] <= 'F' ? (char)(text[i] - 'A' + 'a') : text[i];
        if (i / 2 >= fingerprint->len || lower != digits[nibble]) {
            return false;
        }
    }
    return length >= HEX_DIGITS_MIN;
}

static void found_name(struct found *found, const char *name)
{
    size_t length = strlen(found->names), name_length = strlen(name);
    const char *at = strstr(found->names, name);
    bool told = at && (at == found->names || at[-1] == ' ') &&
                (at[name_length] == ',' || at[name_length] == '\0');
    if (!told) {
        (void)snprintf(
            found->names + length, sizeof found->names - length, "%s%s", length ? ", " : "", name);
    }
}

/* `by_name`: compare with names; else with fingerprints. An empty text means every model. */
static void look_for(
    const struct broker_workers *workers, const char *text, bool by_name, struct found *out)
{
    *out = (struct found){NULL};
    for (const struct broker_worker *worker = workers->first; worker; worker = worker->next) {
        const Memos__WorkerAnnounce *announced = said(worker);
        for (size_t i = 0; i < announced->n_models; i++) {
            const Memos__WorkerModel *model = announced->models[i];
            bool meant = text[0] == '\0' || (by_name ? strcmp(text, model->name) == 0
                                                     : is_hex_of(text, &model->fingerprint));
            if (takes_jobs(worker)) {
                found_name(out, model->name);
            }
            if (meant && !takes_jobs(worker)) {
                out->draining = true;
            } else if (meant && !out->model) {
                out->model = model;
            } else if (meant && memcmp(model->fingerprint.data, out->model->fingerprint.data,
                                    BROKER_FINGERPRINT_BYTES) != 0) {
                out->several = true;
            }
        }
    }
}

static enum memos_status fail_none(const struct broker_workers *workers, const char *model,
    const struct found *found, struct memos_error *err)
{
    if (found->draining) {
        return memos_fail(err, MEMOS_UNAVAILABLE, "the workers that have %.60s are being drained",
            model[0] ? model : "a model");
    }
    if (!workers->first || found->names[0] == '\0') {
        return memos_fail(err, MEMOS_UNAVAILABLE, "no worker is there to run a model");
    }
    return memos_fail(
        err, MEMOS_NOT_FOUND, "no worker has the model %.60s; there are: %s", model, found->names);
}

enum memos_status broker_workers_resolve(const struct broker_workers *workers, const char *model,
    struct broker_model_wanted *out, struct memos_error *err)
{
    struct found found;
    *out = (struct broker_model_wanted){.by_name = model[0] != '\0'};
    look_for(workers, model, true, &found);
    if (out->by_name && !found.model && !found.draining) {
        out->by_name = false;
        look_for(workers, model, false, &found);
    }
    if (!found.model) {
        return fail_none(workers, model, &found, err);
    }
    if (found.several && !out->by_name) {
        return memos_fail(err, MEMOS_INVALID, "%s: say which model; there are: %s",
            model[0] ? "several models' fingerprints begin so" : "there are several models",
            found.names);
    }
    (void)snprintf(out->name, sizeof out->name, "%s", found.model->name);
    memcpy(out->fingerprint, found.model->fingerprint.data, sizeof out->fingerprint);
    return MEMOS_OK;
}

/* ---- choosing ---- */

/* FNV-1a: two spaces that fall together cost a colder worker, nothing else. */
static uint64_t space_hash(const char *space)
{
    uint64_t hash = 0xCBF29CE484222325ull;
    for (; *space; space++) {
        hash = (hash ^ (uint8_t)*space) * 0x100000001B3ull;
    }
    return hash;
}

void broker_worker_served(struct broker_worker *worker, const char *space)
{
    uint64_t hash = space_hash(space);
    if (space[0] == '\0' ||
        worker->served[(worker->served_next + BROKER_SERVED_MAX - 1) % BROKER_SERVED_MAX] == hash) {
        return;
    }
    worker->served[worker->served_next] = hash;
    worker->served_next = (worker->served_next + 1) % BROKER_SERVED_MAX;
}

static bool is_warm(const struct broker_worker *worker, const char *space)
{
    const Memos__WorkerHeartbeat *last =
        worker->heartbeat ? worker->heartbeat->envelope->worker_heartbeat : NULL;
    for (size_t i = 0; last && i < last->n_warm; i++) {
        if (strcmp(last->warm[i], space) == 0) {
            return true;
        }
    }
    return false;
}

static bool has_served(const struct broker_worker *worker, uint64_t hash)
{
    for (size_t i = 0; i < BROKER_SERVED_MAX; i++) {
        if (worker->served[i] == hash) {
            return true;
        }
    }
    return false;
}

/* How near the space's memory is: 2 in its cache, 1 perhaps. */
static int nearness(const struct broker_worker *worker, const char *space)
{
    if (space[0] == '\0') {
        return 0;
    }
    return is_warm(worker, space) ? 2 : has_served(worker, space_hash(space));
}

/* Is a less loaded than b? Then, who has done less. */
static bool less_loaded(const struct broker_worker *a, const struct broker_worker *b)
{
    uint64_t left = (uint64_t)a->running * said(b)->jobs_max,
             right = (uint64_t)b->running * said(a)->jobs_max;
    return left != right ? left < right : a->done + a->failed < b->done + b->failed;
}

struct broker_worker *broker_workers_choose(const struct broker_workers *workers,
    const struct broker_model_wanted *wanted, const char *space)
{
    struct broker_worker *best = NULL;
    int best_near = 0;
    for (struct broker_worker *worker = workers->first; worker; worker = worker->next) {
        bool may = takes_jobs(worker) && !worker->full &&
                   worker->running < said(worker)->jobs_max &&
                   broker_worker_model(worker, wanted) != NULL;
        int near = may ? nearness(worker, space) : 0;
        if (may &&
            (!best || near > best_near || (near == best_near && less_loaded(worker, best)))) {
            best = worker;
            best_near = near;
        }
    }
    return best;
}

/* ---- telling ---- */

enum memos_status broker_worker_tell(struct broker_worker *worker, Memos__Reply *reply,
    const struct memos_frames *payloads, struct memos_error *err)
{
    struct broker_request *rq = worker->announcement;
    struct broker *broker = rq->broker;
    struct memos_frames frames;
    reply->id = rq->envelope->id;
    reply->more = true;
    enum memos_status status =
        memos_envelope_begin(&frames, memos_frames_identity(&rq->message), &reply->base, err);
    size_t count = payloads ? memos_frames_payload_count(payloads) : 0;
    for (uint32_t i = 1; i <= count && status == MEMOS_OK; i++) {
        status = memos_frames_add_shared(&frames, payloads, i, err);
    }
    if (status == MEMOS_OK) {
        status = memos_frames_send(broker->doors[rq->peer.door].router, ZMQ_DONTWAIT, &frames, err);
        worker->gone = worker->gone || status == MEMOS_NOT_FOUND;
        worker->full = worker->full || status == MEMOS_BUSY;
    }
    memos_frames_free(&frames);
    return status;
}

void broker_worker_ping(struct broker_worker *worker)
{
    Memos__WorkerPing ping = MEMOS__WORKER_PING__INIT;
    Memos__Reply reply = MEMOS__REPLY__INIT;
    reply.body_case = MEMOS__REPLY__BODY_WORKER_PING;
    reply.worker_ping = &ping;
    /* What failed is noted in the worker, and looked at by the next tick. */
    (void)(broker_worker_tell(worker, &reply, NULL, NULL) == MEMOS_OK);
}

/* ---- who is there? ---- */

/* Views what the workers said: the reply is packed before they say anything new. */
static enum memos_status info_fill(const struct broker_worker *worker, struct broker_request *rq,
    bool whole, Memos__WorkerInfo *out, struct memos_error *err)
{
    const Memos__WorkerAnnounce *announced = said(worker);
    Memos__WorkerAnnounce *shown = memos_arena_take(&rq->work, 1, sizeof *shown);
    if (!shown) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a reply");
    }
    memos__worker_info__init(out);
    memos__worker_announce__init(shown);
    out->announced = shown;
    out->draining = worker->draining;
    if (!whole) {
        shown->models = announced->models;
        shown->n_models = announced->n_models;
        return MEMOS_OK;
    }
    *shown = *announced;
    out->id = announced->instance;
    out->last = worker->heartbeat ? worker->heartbeat->envelope->worker_heartbeat : NULL;
    out->jobs_running = worker->running;
    out->jobs_done = worker->done;
    out->jobs_failed = worker->failed;
    out->since_us = worker->since_us;
    int64_t quiet_us = rq->arrived_us - worker->heard_us;
    out->quiet_ms = quiet_us > 0 ? (uint32_t)(quiet_us / 1000) : 0;
    return MEMOS_OK;
}

enum memos_status broker_workers_make(const struct broker_workers *workers,
    struct broker_request *rq, Memos__WorkerInfos *out, struct memos_error *err)
{
    bool whole = broker_access_global(rq->access, rq->principal, BROKER_RIGHT_ADMIN);
    void **pointers = NULL;
    enum memos_status status =
        broker_array_make(&rq->work, workers->count, sizeof(Memos__WorkerInfo), &pointers, err);
    if (status != MEMOS_OK) {
        return status;
    }
    memos__worker_infos__init(out);
    out->workers = (Memos__WorkerInfo **)pointers;
    for (const struct broker_worker *worker = workers->first; worker && status == MEMOS_OK;
         worker = worker->next) {
        status = info_fill(worker, rq, whole, out->workers[out->n_workers], err);
        out->n_workers++;
    }
    return status;
}
