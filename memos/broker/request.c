#include "memos/broker/request.h"

#include "memos/broker/state.h"

#include <stdlib.h>
#include <string.h>

enum {
    WORK_BYTES_MAX = 64 << 20, /* of one reply, without payloads */
    LARGE_BYTES = 64 << 10,    /* payloads from here on count against their client */
};

static int64_t now_us(const struct broker_request *rq)
{
    return rq->broker->clock.mono_us(rq->broker->clock.self);
}

enum memos_status broker_request_create(
    struct broker *broker, struct broker_request **out_request, struct memos_error *err)
{
    struct broker_request *rq = calloc(1, sizeof *rq);
    if (!rq) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a request");
    }
    rq->broker = broker;
    memos_arena_init(&rq->arena, 0);
    memos_arena_init(&rq->work, WORK_BYTES_MAX);
    broker_request_begin(rq);
    *out_request = rq;
    return MEMOS_OK;
}

void broker_request_reset(struct broker_request *rq)
{
    struct broker *broker = rq->broker;
    struct memos_arena arena = rq->arena, work = rq->work;

    broker_meaning_release(rq);
    broker_access_drop(&rq->access);
    broker_session_drop(&rq->session);
    memos_frames_free(&rq->message);
    memos_frames_free(&rq->answer.frames);
    memos_arena_reset(&arena);
    memos_arena_reset(&work);
    *rq = (struct broker_request){.broker = broker, .arena = arena, .work = work};
    broker_request_begin(rq);
}

void broker_request_destroy(struct broker_request **rq)
{
    if (*rq) {
        broker_request_reset(*rq);
        memos_arena_finish(&(*rq)->arena);
        memos_arena_finish(&(*rq)->work);
        free(*rq);
        *rq = NULL;
    }
}

enum memos_status broker_request_check(const struct broker_request *rq, struct memos_error *err)
{
    if (atomic_load_explicit(&rq->cancelled, memory_order_relaxed)) {
        return memos_fail(err, MEMOS_CANCELLED, "cancelled by its sender");
    }
    if (atomic_load_explicit(&rq->broker->stopping, memory_order_relaxed)) {
        return memos_fail(err, MEMOS_UNAVAILABLE, "the broker is going down");
    }
    if (rq->deadline_us > 0) {
        int64_t late_us = now_us(rq) - rq->deadline_us;
        if (late_us > 0) {
            return memos_fail(err, MEMOS_DEADLINE, "the deadline passed %lld ms ago",
                (long long)(late_us / 1000));
        }
    }
    return MEMOS_OK;
}

void broker_request_begin(struct broker_request *rq)
{
    memos_arena_reset(&rq->work);
    memos__reply__init(&rq->reply);
    rq->payloads = NULL;
    rq->payloads_count = 0;
    rq->payloads_capacity = 0;
    rq->payload_bytes = 0;
}

enum memos_status broker_request_convert(struct broker_request *rq, struct memos_error *err)
{
    if (rq->call_made) {
        return MEMOS_OK;
    }
    struct memos_bytes space = rq->call.space; /* as the rights were checked for */
    enum memos_status status =
        broker_call_make(rq->envelope, &rq->message, &rq->arena, &rq->call, err);
    rq->call.space = space;
    rq->call.change.space = space;
    rq->call.change.author = rq->principal;
    rq->call_made = status == MEMOS_OK;
    return status;
}

enum memos_status broker_request_payload(struct broker_request *rq, struct memos_bytes bytes,
    uint32_t *out_frame, struct memos_error *err)
{
    uint64_t bytes_max = rq->broker->message_bytes_max;
    if (rq->payloads_count == MEMOS_FRAMES_MAX) {
        return memos_fail(err, MEMOS_TOO_LARGE,
            "the reply has more than %d payloads: ask for fewer, or without payloads",
            MEMOS_FRAMES_MAX);
    }
    if (bytes.size > bytes_max || rq->payload_bytes > bytes_max - bytes.size) {
        return memos_fail(err, MEMOS_TOO_LARGE,
            "the reply has more than %llu bytes: ask for fewer, or without payloads",
            (unsigned long long)bytes_max);
    }
    if (rq->payloads_count == rq->payloads_capacity) {
        size_t capacity = rq->payloads_capacity ? rq->payloads_capacity * 2 : 8;
        struct memos_bytes *grown = memos_arena_take(&rq->work, capacity, sizeof *grown);
        if (!grown) {
            return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a reply");
        }
        if (rq->payloads_count > 0) {
            memcpy(grown, rq->payloads, rq->payloads_count * sizeof *grown);
        }
        rq->payloads = grown;
        rq->payloads_capacity = capacity;
    }
    rq->payloads[rq->payloads_count++] = bytes;
    rq->payload_bytes += bytes.size;
    *out_frame = (uint32_t)rq->payloads_count;
    return MEMOS_OK;
}

/* ---- packing ---- */

/* A large payload on its way out: ZeroMQ keeps it until its client takes it. */
struct leaving {
    struct broker_session *session;
    size_t size;
    struct memos_bytes map; /* a file's pages, lent as they are; data NULL: copied into data */
    _Alignas(max_align_t) uint8_t data[];
};

static void leaving_release(void *data, void *hint)
{
    struct leaving *leaving = hint;
    (void)data;
    atomic_fetch_sub_explicit(&leaving->session->leaving, leaving->size, memory_order_relaxed);
    broker_session_drop(&leaving->session);
    if (leaving->map.data) {
        memcube_payload_unmap(leaving->map);
    }
    free(leaving);
}

static bool is_large(const struct broker_request *rq, struct memos_bytes payload)
{
    return payload.size >= LARGE_BYTES && rq->session;
}

/* Count a reply's large payloads against its client. What the client has not taken of earlier
 * replies may stand in the way; the reply's own size may not: that has a bound of its own. */
static enum memos_status reserve(
    struct broker_request *rq, uint64_t *out_bytes, struct memos_error *err)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < rq->payloads_count; i++) {
        bytes += is_large(rq, rq->payloads[i]) ? rq->payloads[i].size : 0;
    }
    *out_bytes = bytes;
    if (bytes == 0) {
        return MEMOS_OK;
    }
    struct broker_session *session = rq->session;
    uint64_t before = atomic_fetch_add_explicit(&session->leaving, bytes, memory_order_relaxed);
    if (before > 0 && before + bytes > session->leaving_max) {
        atomic_fetch_sub_explicit(&session->leaving, bytes, memory_order_relaxed);
        *out_bytes = 0;
        return memos_fail(err, MEMOS_BUSY, "%llu bytes of earlier replies have not been taken yet",
            (unsigned long long)before);
    }
    return MEMOS_OK;
}

/* Pages that are not in memory are read here, not on ZeroMQ's thread, where everybody would wait.
 */
static void touch(struct memos_bytes bytes)
{
    enum { PAGE = 4096 };
    const volatile uint8_t *at = bytes.data;
    for (size_t i = 0; i < bytes.size; i += PAGE) {
        (void)at[i];
    }
}

/* Add a payload that has been reserved; the reservation goes with it, on failure too. */
static enum memos_status add_large(struct broker_request *rq, struct memos_frames *frames,
    struct memos_bytes bytes, struct memos_error *err)
{
    struct broker_session *session = rq->session;
    bool lent = rq->reader && rq->reader->read && memcube_payload_take(rq->reader->read, bytes);
    struct leaving *leaving = malloc(sizeof *leaving + (lent ? 0 : bytes.size));
    if (!leaving) {
        atomic_fetch_sub_explicit(&session->leaving, bytes.size, memory_order_relaxed);
        if (lent) {
            memcube_payload_unmap(bytes);
        }
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a payload of %zu bytes", bytes.size);
    }
    atomic_fetch_add_explicit(&session->references, 1, memory_order_relaxed);
    leaving->session = session;
    leaving->size = bytes.size;
    leaving->map = lent ? bytes : memos_bytes_make(NULL, 0);
    if (lent) {
        touch(bytes);
    } else {
        memcpy(leaving->data, bytes.data, bytes.size);
        bytes.data = leaving->data;
    }
    enum memos_status status = memos_frames_add_lent(frames, bytes, leaving_release, leaving, err);
    if (status != MEMOS_OK) {
        leaving_release(NULL, leaving);
    }
    return status;
}

static enum memos_status pack(
    struct broker_request *rq, struct memos_frames *frames, struct memos_error *err)
{
    struct memos_bytes identity = memos_frames_identity(&rq->message);
    uint64_t reserved = 0;
    enum memos_status status = memos_envelope_begin(frames, identity, &rq->reply.base, err);
    if (status == MEMOS_OK) {
        status = reserve(rq, &reserved, err);
    }
    for (size_t i = 0; i < rq->payloads_count && status == MEMOS_OK; i++) {
        struct memos_bytes bytes = rq->payloads[i];
        if (is_large(rq, bytes)) {
            reserved -= bytes.size;
            status = add_large(rq, frames, bytes, err);
        } else {
            status = memos_frames_add(frames, bytes, err);
        }
    }
    if (status != MEMOS_OK) {
        if (reserved > 0) {
            atomic_fetch_sub_explicit(&rq->session->leaving, reserved, memory_order_relaxed);
        }
        memos_frames_free(frames);
    }
    return status;
}

/* Whether a cube is missing or hidden must not show: who is no administrator is told the same
 * words. */
static const char *error_text(
    const struct broker_request *rq, enum memos_status status, const char *text)
{
    bool about_cubes = !rq->type || rq->type->class != BROKER_KEPT;
    if (status == MEMOS_NOT_FOUND && rq->viewer.data && about_cubes) {
        return "there is no such cube or version, or it is not yours to see";
    }
    return text;
}

/* What is not there or cannot be had is a worker, where a job was asked for. */
static const char *hint_text(const struct broker_request *rq, enum memos_status status)
{
    bool wants_worker = rq->type && rq->type->class == BROKER_KEPT && !rq->type->on;
    if (wants_worker && status == MEMOS_UNAVAILABLE) {
        return "memosctl worker start --model PATH starts one; memosctl worker list tells who is "
               "there";
    }
    if (wants_worker && status == MEMOS_NOT_FOUND) {
        return "memosctl worker list tells which models there are";
    }
    return memos_status_hint(status);
}

static void head_fill(struct broker_request *rq, enum memos_status status, const char *text)
{
    rq->reply.id = rq->envelope ? rq->envelope->id : 0;
    rq->reply.status = (uint32_t)status;
    if (status != MEMOS_OK) {
        rq->reply.message = (char *)(uintptr_t)error_text(rq, status, text);
        rq->reply.hint = (char *)(uintptr_t)hint_text(rq, status);
    }
}

void broker_request_pack(
    struct broker_request *rq, enum memos_status status, const struct memos_error *error)
{
    struct memos_error second = {0};
    bool keeps_body = status == MEMOS_OK || status == MEMOS_FORGOTTEN || status == MEMOS_CONFLICT;

    rq->answer.request = rq;
    rq->answer.last = true;
    rq->answer.status = status;
    if (!keeps_body) {
        broker_request_begin(rq);
    }
    head_fill(rq, status, error ? error->text : "");
    enum memos_status packed = pack(rq, &rq->answer.frames, &second);
    if (packed != MEMOS_OK) {
        broker_request_begin(rq);
        head_fill(rq, packed, second.text);
        rq->answer.status = packed;
        packed = pack(rq, &rq->answer.frames, NULL);
    }
    if (packed != MEMOS_OK) {
        memos_frames_free(
            &rq->answer.frames); /* no memory: the client will run into its deadline */
    }
}

enum memos_status broker_request_more(struct broker_request *rq, zmq_free_fn *release, void *hint,
    struct broker_reply **out_reply, struct memos_error *err)
{
    struct broker_reply *reply = calloc(1, sizeof *reply);
    if (!reply) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a part of a reply");
    }
    head_fill(rq, MEMOS_OK, "");
    rq->reply.more = true;
    reply->request = rq;
    enum memos_status status = memos_envelope_begin(
        &reply->frames, memos_frames_identity(&rq->message), &rq->reply.base, err);
    if (status == MEMOS_OK && rq->payloads_count > 0) {
        status = memos_frames_add_lent(&reply->frames, rq->payloads[0], release, hint, err);
    }
    if (status != MEMOS_OK) {
        memos_frames_free(&reply->frames);
        free(reply);
        return status;
    }
    *out_reply = reply;
    return MEMOS_OK;
}

/* ---- rights ---- */

enum memos_status broker_request_denied(const struct broker_request *rq, enum broker_right needed,
    struct memos_bytes space, struct memos_error *err)
{
    struct memos_bytes who = rq->principal.size > 0 ? rq->principal : memos_bytes_of("this key");
    return memos_fail(err, MEMOS_DENIED, "%.*s needs the right to %s %.*s", (int)who.size,
        (const char *)who.data,
        needed == BROKER_RIGHT_ADMIN ? "administer" : broker_right_text(needed), (int)space.size,
        (const char *)space.data);
}

enum memos_status broker_request_sees_version(const struct broker_request *rq,
    struct memcube_read *read, const struct memcube_space *space,
    const struct memcube_version *version, struct memos_error *err)
{
    bool may = true;
    enum memos_status status = rq->viewer.data
                                   ? memcube_viewer_may(read, space, version, rq->viewer, &may, err)
                                   : MEMOS_OK;
    if (status != MEMOS_OK) {
        return status;
    }
    return may ? MEMOS_OK : memos_fail(err, MEMOS_NOT_FOUND, "hidden");
}

enum memos_status broker_request_sees(const struct broker_request *rq, struct memcube_read *read,
    const struct memcube_space *space, const struct memos_id *id, struct memos_error *err)
{
    struct memcube_version version;
    if (!rq->viewer.data) {
        return MEMOS_OK;
    }
    enum memos_status status = memcube_version_get(read, space, id, 0, NULL, &version, err);
    if (status == MEMOS_NOT_FOUND) { /* withdrawn cubes have versions, though no head to show */
        status = memcube_version_get(read, space, id, 1, NULL, &version, err);
    }
    if (status != MEMOS_OK) {
        return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
    }
    return broker_request_sees_version(rq, read, space, &version, err);
}
