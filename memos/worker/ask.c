#include "memos/worker/ask.h"

#include <string.h>

/* What is left of the job's time, for the broker. */
static enum memos_status time_left(
    const struct worker_fetch *fetch, uint32_t *out_ms, struct memos_error *err)
{
    const struct memos_clock clock = memos_clock_system();
    *out_ms = 0;
    if (fetch->cancelled && atomic_load(fetch->cancelled)) {
        return memos_fail(err, MEMOS_CANCELLED, "cancelled while its memory was fetched");
    }
    if (fetch->deadline_us == 0) {
        return MEMOS_OK;
    }
    const int64_t left_us = fetch->deadline_us - clock.mono_us(clock.self);
    if (left_us <= 0) {
        return memos_fail(err, MEMOS_DEADLINE, "the time was over while its memory was fetched");
    }
    const int64_t left_ms = left_us / 1000 + 1;
    *out_ms = left_ms < INT32_MAX ? (uint32_t)left_ms : INT32_MAX;
    return MEMOS_OK;
}

enum memos_status worker_ask(const struct worker_fetch *fetch, Memos__Request *request,
    const struct memos_bytes *frames, size_t frames_count, int body_case,
    struct memos_message **out_reply, struct memos_error *err)
{
    struct memos_message *message = NULL;
    *out_reply = NULL;
    enum memos_status status = time_left(fetch, &request->deadline_ms, err);
    if (status != MEMOS_OK) {
        return status;
    }
    request->ticket = (ProtobufCBinaryData){
        .len = fetch->ticket.size, .data = (uint8_t *)(uintptr_t)fetch->ticket.data};
    status = memos_client_call(fetch->client, request, frames, frames_count, &message, err);
    if (status == MEMOS_OK && (int)memos_message_reply(message)->body_case != body_case) {
        status = memos_fail(err, MEMOS_CORRUPT, "the broker answered with something else");
    }
    if (status == MEMOS_OK) {
        *out_reply = message;
    } else {
        memos_message_free(&message);
    }
    return status;
}

bool worker_id_of(ProtobufCBinaryData data, struct memos_id *out)
{
    if (data.len != sizeof out->bytes) {
        return false;
    }
    memcpy(out->bytes, data.data, sizeof out->bytes);
    return true;
}

bool worker_hash_of(ProtobufCBinaryData data, uint8_t out[MEMCUBE_HASH_BYTES])
{
    if (data.len != MEMCUBE_HASH_BYTES) {
        return false;
    }
    memcpy(out, data.data, MEMCUBE_HASH_BYTES);
    return true;
}

enum memos_status worker_moment_ask(const struct worker_fetch *fetch, const char *space,
    uint64_t seq, struct worker_moment *out, struct memos_error *err)
{
    Memos__Log body = MEMOS__LOG__INIT;
    Memos__Request request;
    struct memos_message *message = NULL;
    *out = (struct worker_moment){.seq = seq};
    body.space = (char *)(uintptr_t)space;
    body.from = seq;
    body.newest_first = true;
    body.count_max = 1;
    WORKER_REQUEST(request, LOG, log, body);
    enum memos_status status =
        worker_ask(fetch, &request, NULL, 0, MEMOS__REPLY__BODY_LOG_RECORDS, &message, err);
    if (status != MEMOS_OK) {
        return status;
    }
    const Memos__LogRecords *records = memos_message_reply(message)->log_records;
    if (records->n_records == 1) {
        out->seq = records->records[0]->seq;
        if (!worker_hash_of(records->records[0]->hash, out->head)) {
            status = memos_fail(err, MEMOS_CORRUPT, "a record without its hash");
        }
    } else if (records->head_seq != 0) {
        status = memos_fail(err, MEMOS_CORRUPT, "the history of %s has no record %llu", space,
            (unsigned long long)seq);
    }
    memos_message_free(&message);
    return status;
}
