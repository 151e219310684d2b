/* Requests about models and workers: what they name must be there and within bounds. What of it a
 * worker understands (templates, samplings, tools) is for the worker to say. */
#include "memos/broker/convert.h"

#include <math.h>
#include <string.h>

enum {
    WORKER_MESSAGE_MAX = 64 << 10, /* an announcement's or a heartbeat's envelope is far smaller */
    MODELS_MAX = 16,
    KINDS_MAX = 16,
    JOBS_MAX = 1024,
    WARM_MAX = 64,
    INSTANCE_BYTES = 16,
    TICKET_BYTES = 16,
    FINGERPRINT_BYTES = 32,
    NAME_BYTES_MAX = 128,
    SHORT_BYTES_MAX = 64,
    CAPTURE_IDS_MAX = 1000,
    PRIORITY_NORMAL = 128,
};

/* Frames that are named; one bit each. */
struct named {
    const struct memos_frames *frames;
    uint64_t used[MEMOS_FRAMES_MAX / 64];
};

static enum memos_status frame_check(
    struct named *named, uint32_t number, bool needed, struct memos_error *err)
{
    size_t count = memos_frames_payload_count(named->frames);
    if (number == 0 && !needed) {
        return MEMOS_OK;
    }
    if (number == 0 || number > count || number > MEMOS_FRAMES_MAX) {
        return memos_fail(err, MEMOS_INVALID, "frame %u is named, and %zu came", number, count);
    }
    uint64_t *word = &named->used[(number - 1) / 64], bit = 1ull << ((number - 1) % 64);
    if (*word & bit) {
        return memos_fail(err, MEMOS_INVALID, "frame %u is named twice", number);
    }
    *word |= bit;
    return MEMOS_OK;
}

static enum memos_status text_check(
    const char *name, const char *text, size_t size_min, size_t size_max, struct memos_error *err)
{
    struct memos_bytes bytes = memos_bytes_of(text);
    if (bytes.size < size_min) {
        return memos_fail(err, MEMOS_INVALID, "%s is empty", name);
    }
    if (bytes.size > size_max) {
        return memos_fail(err, MEMOS_TOO_LARGE, "%s has %zu bytes; at most %zu are taken", name,
            bytes.size, size_max);
    }
    if (!memos_bytes_utf8(bytes)) {
        return memos_fail(err, MEMOS_INVALID, "%s is not UTF-8", name);
    }
    for (size_t i = 0; i < bytes.size; i++) {
        if ((unsigned char)text[i] < ' ' || text[i] == 127) {
            return memos_fail(err, MEMOS_INVALID, "%s has a control character", name);
        }
    }
    return MEMOS_OK;
}

static enum memos_status bytes_check(
    const char *name, ProtobufCBinaryData data, size_t size, struct memos_error *err)
{
    return data.len == size ? MEMOS_OK
                            : memos_fail(err, MEMOS_INVALID, "%s must have %zu bytes, not %zu",
                                  name, size, data.len);
}

/* ---- what clients ask of models ---- */

static enum memos_status space_check(
    const char *space, bool needed, struct broker_call *out, struct memos_error *err)
{
    out->space = memos_bytes_of(space);
    return out->space.size == 0 && !needed ? MEMOS_OK : memcube_space_check(out->space, err);
}

static enum memos_status model_check(
    const char *model, struct broker_call *out, struct memos_error *err)
{
    out->work.model = model;
    return text_check("model", model, 0, NAME_BYTES_MAX, err);
}

static enum memos_status messages_check(
    struct named *named, Memos__ChatMessage *const *messages, size_t count, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    if (count > MEMOS_FRAMES_MAX) {
        return memos_fail(
            err, MEMOS_TOO_LARGE, "%zu messages; at most %d are taken", count, MEMOS_FRAMES_MAX);
    }
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        status = text_check("a message's role", messages[i]->role, 1, SHORT_BYTES_MAX, err);
        if (status == MEMOS_OK) {
            status = frame_check(named, messages[i]->frame, false, err);
        }
    }
    return status;
}

static enum memos_status memory_check(
    const Memos__Memory *memory, const struct broker_call *call, struct memos_error *err)
{
    if (!memory) {
        return MEMOS_OK;
    }
    bool wants = memory->search || memory->n_cubes > 0 || memory->capture;
    if (wants && call->space.size == 0) {
        return memos_fail(err, MEMOS_INVALID, "memory comes out of a space, and none is named");
    }
    if (memory->n_cubes > BROKER_BATCH_MAX || memory->n_without > BROKER_BATCH_MAX) {
        return memos_fail(err, MEMOS_TOO_LARGE, "at most %d cubes can be named", BROKER_BATCH_MAX);
    }
    if (memory->top_k > BROKER_BATCH_MAX) {
        return memos_fail(
            err, MEMOS_INVALID, "top_k is %u; it goes up to %d", memory->top_k, BROKER_BATCH_MAX);
    }
    if (memory->captures > 2 || memory->independent > 1 || memory->capture_dtype > 4) {
        return memos_fail(
            err, MEMOS_INVALID, "captures is 0, 1 or 2, independent 0 or 1, capture_dtype 0 to 4");
    }
    for (size_t i = 0; i < memory->n_cubes; i++) {
        enum memos_status status = bytes_check("a cube's id", memory->cubes[i]->id, 16, err);
        if (status != MEMOS_OK) {
            return status;
        }
    }
    return MEMOS_OK;
}

static enum memos_status sampling_check(const Memos__Sampling *sampling, struct memos_error *err)
{
    if (!sampling) {
        return MEMOS_OK;
    }
    const float numbers[] = {
        sampling->temperature, sampling->top_p, sampling->min_p, sampling->repetition};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (!isfinite(numbers[i]) || numbers[i] < 0) {
            return memos_fail(
                err, MEMOS_INVALID, "sampling has a number that is none, or negative");
        }
    }
    for (size_t i = 0; i < sampling->n_biases; i++) {
        float bias = sampling->biases[i]->bias;
        if (isnan(bias) || (isinf(bias) && bias > 0)) {
            return memos_fail(err, MEMOS_INVALID, "a bias is no number, or infinite");
        }
    }
    return MEMOS_OK;
}

static enum memos_status generate_check(struct named *named, const Memos__Generate *body,
    struct broker_call *out, struct memos_error *err)
{
    enum memos_status status = space_check(body->space, body->keep_receipt, out, err);
    if (status == MEMOS_OK) {
        status = model_check(body->model, out, err);
    }
    if (status == MEMOS_OK) {
        status = messages_check(named, body->messages, body->n_messages, err);
    }
    if (status == MEMOS_OK) {
        status = frame_check(named, body->prompt_frame, body->n_messages == 0, err);
    }
    if (status == MEMOS_OK) {
        status = memory_check(body->memory, out, err);
    }
    if (status == MEMOS_OK) {
        status = sampling_check(body->sampling, err);
    }
    if (status == MEMOS_OK && body->n_messages > 0 && body->prompt_frame > 0) {
        status = memos_fail(err, MEMOS_INVALID, "messages or a prompt, not both");
    }
    if (status == MEMOS_OK && (body->priority > 255 || body->top_logprobs > 20)) {
        status =
            memos_fail(err, MEMOS_INVALID, "priority goes up to 255, and top_logprobs up to 20");
    }
    out->work.priority = body->priority ? body->priority : PRIORITY_NORMAL;
    return status;
}

static enum memos_status score_check(
    struct named *named, const Memos__Score *body, struct broker_call *out, struct memos_error *err)
{
    enum memos_status status = space_check(body->space, false, out, err);
    if (status == MEMOS_OK) {
        status = model_check(body->model, out, err);
    }
    if (status == MEMOS_OK && body->n_frames == 0) {
        status = memos_fail(err, MEMOS_INVALID, "no text to score was given");
    }
    if (status == MEMOS_OK) {
        status = frame_check(named, body->prompt_frame, false, err);
    }
    for (size_t i = 0; i < body->n_frames && status == MEMOS_OK; i++) {
        status = frame_check(named, body->frames[i], true, err);
    }
    return status == MEMOS_OK ? memory_check(body->memory, out, err) : status;
}

static enum memos_status capture_check(struct named *named, const Memos__Capture *body,
    struct broker_call *out, struct memos_error *err)
{
    enum memos_status status = space_check(body->space, true, out, err);
    if (status == MEMOS_OK) {
        status = model_check(body->model, out, err);
    }
    if (status == MEMOS_OK) {
        status = messages_check(named, body->messages, body->n_messages, err);
    }
    if (status == MEMOS_OK && body->n_ids > CAPTURE_IDS_MAX) {
        status = memos_fail(
            err, MEMOS_TOO_LARGE, "%zu ids; at most %d are taken", body->n_ids, CAPTURE_IDS_MAX);
    }
    if (status == MEMOS_OK && body->n_ids == 0 && body->n_messages == 0) {
        status =
            memos_fail(err, MEMOS_INVALID, "a capture is of cubes, or of messages, or of both");
    }
    if (status == MEMOS_OK && body->dtype > 4) {
        status = memos_fail(err, MEMOS_INVALID, "dtype is 0 to 4, not %u", body->dtype);
    }
    for (size_t i = 0; i < body->n_ids && status == MEMOS_OK; i++) {
        status = bytes_check("an id", body->ids[i], 16, err);
    }
    return status == MEMOS_OK ? text_check("reason", body->reason, 0, MEMCUBE_REASON_BYTES_MAX, err)
                              : status;
}

/* ---- what workers say ---- */

static enum memos_status worker_model_check(
    const Memos__WorkerModel *model, struct memos_error *err)
{
    enum memos_status status = text_check("a model's name", model->name, 1, NAME_BYTES_MAX, err);
    const char *const shorts[] = {
        model->architecture, model->weights, model->kv, model->backend, model->template_};
    for (size_t i = 0; i < sizeof shorts / sizeof shorts[0] && status == MEMOS_OK; i++) {
        status = text_check("what a model is", shorts[i], 0, SHORT_BYTES_MAX, err);
    }
    if (status == MEMOS_OK) {
        status = bytes_check("a model's fingerprint", model->fingerprint, FINGERPRINT_BYTES, err);
    }
    if (status == MEMOS_OK && model->context == 0) {
        status = memos_fail(err, MEMOS_INVALID, "the model %.60s has no context", model->name);
    }
    return status;
}

static enum memos_status models_check(const Memos__WorkerAnnounce *body, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    if (body->n_models == 0 || body->n_models > MODELS_MAX) {
        return memos_fail(
            err, MEMOS_INVALID, "a worker has 1 to %d models, not %zu", MODELS_MAX, body->n_models);
    }
    for (size_t i = 0; i < body->n_models && status == MEMOS_OK; i++) {
        status = worker_model_check(body->models[i], err);
        for (size_t before = 0; before < i && status == MEMOS_OK; before++) {
            if (strcmp(body->models[before]->name, body->models[i]->name) == 0) {
                status = memos_fail(
                    err, MEMOS_INVALID, "two models are called %.60s", body->models[i]->name);
            }
        }
    }
    return status;
}

static enum memos_status announce_check(const Memos__WorkerAnnounce *body, struct memos_error *err)
{
    if (memos__worker_announce__get_packed_size(body) > WORKER_MESSAGE_MAX) {
        return memos_fail(
            err, MEMOS_TOO_LARGE, "an announcement of more than %d bytes", WORKER_MESSAGE_MAX);
    }
    enum memos_status status = text_check("a worker's name", body->name, 1, NAME_BYTES_MAX, err);
    if (status == MEMOS_OK) {
        status = text_check("version", body->version, 0, SHORT_BYTES_MAX, err);
    }
    if (status == MEMOS_OK) {
        status = bytes_check("instance", body->instance, INSTANCE_BYTES, err);
    }
    if (status == MEMOS_OK && (body->jobs_max == 0 || body->jobs_max > JOBS_MAX)) {
        status =
            memos_fail(err, MEMOS_INVALID, "jobs_max is 1 to %d, not %u", JOBS_MAX, body->jobs_max);
    }
    if (status == MEMOS_OK && body->n_kinds > KINDS_MAX) {
        status = memos_fail(err, MEMOS_INVALID, "at most %d kinds of memory", KINDS_MAX);
    }
    for (size_t i = 0; i < body->n_kinds && status == MEMOS_OK; i++) {
        status = text_check("a kind of memory", body->kinds[i], 1, SHORT_BYTES_MAX, err);
    }
    return status == MEMOS_OK ? models_check(body, err) : status;
}

static enum memos_status heartbeat_check(
    const Memos__WorkerHeartbeat *body, struct memos_error *err)
{
    enum memos_status status = bytes_check("instance", body->instance, INSTANCE_BYTES, err);
    if (status == MEMOS_OK && body->n_warm > WARM_MAX) {
        status = memos_fail(err, MEMOS_INVALID, "at most %d spaces are warm", WARM_MAX);
    }
    for (size_t i = 0; i < body->n_warm && status == MEMOS_OK; i++) {
        status = memcube_space_check(memos_bytes_of(body->warm[i]), err);
    }
    return status;
}

static enum memos_status update_check(const Memos__JobUpdate *body, struct memos_error *err)
{
    enum memos_status status = bytes_check("ticket", body->ticket, TICKET_BYTES, err);
    return status == MEMOS_OK && !body->reply
               ? memos_fail(err, MEMOS_INVALID, "the update brings no reply")
               : status;
}

static enum memos_status drain_check(const Memos__WorkerDrain *body, struct memos_error *err)
{
    return body->id.len >= 1 && body->id.len <= INSTANCE_BYTES
               ? MEMOS_OK
               : memos_fail(err, MEMOS_INVALID, "a worker's id has 1 to %d bytes", INSTANCE_BYTES);
}

enum memos_status broker_call_work(const Memos__Request *request, const struct memos_frames *frames,
    struct broker_call *out, struct memos_error *err)
{
    struct named named = {.frames = frames};
    out->work.priority = PRIORITY_NORMAL;
    switch (request->body_case) {
    case MEMOS__REQUEST__BODY_GENERATE:
        return generate_check(&named, request->generate, out, err);
    case MEMOS__REQUEST__BODY_SCORE:
        return score_check(&named, request->score, out, err);
    case MEMOS__REQUEST__BODY_CAPTURE:
        return capture_check(&named, request->capture, out, err);
    case MEMOS__REQUEST__BODY_WORKER_DRAIN:
        return drain_check(request->worker_drain, err);
    case MEMOS__REQUEST__BODY_WORKER_ANNOUNCE:
        return announce_check(request->worker_announce, err);
    case MEMOS__REQUEST__BODY_WORKER_HEARTBEAT:
        return heartbeat_check(request->worker_heartbeat, err);
    case MEMOS__REQUEST__BODY_JOB_UPDATE:
        return update_check(request->job_update, err);
    case MEMOS__REQUEST__BODY_JOB_OVER:
        return bytes_check("ticket", request->job_over->ticket, TICKET_BYTES, err);
    default:
        return MEMOS_OK;
    }
}
