/* Any bytes as a request with its payload frames, up to the call that the store would get: whatever
 * is let through must lie within the store's limits and point into the message.
 *
 * Input: one byte, how many payload frames (at most 3); for each two bytes, its size, and its
 * bytes; then the envelope. */
#include "memos/broker/convert.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds) {
        abort();
    }
}

/* Is this view all of one of the payload frames, or empty? */
static bool is_payload(const struct memos_frames *frames, struct memos_bytes bytes)
{
    bool found = bytes.size == 0;
    for (uint32_t i = 1; i <= memos_frames_payload_count(frames); i++) {
        struct memos_bytes payload = memos_frames_payload(frames, i);
        found = found || (payload.data == bytes.data && payload.size == bytes.size);
    }
    return found;
}

static void look_at_draft(const struct memos_frames *frames, const struct memcube_draft *draft)
{
    const struct memcube_description *about = &draft->description;
    must(is_payload(frames, draft->payload));
    must(memcube_kind_text((int)draft->kind) != NULL);
    must(about->tags_count <= MEMCUBE_TAGS_MAX && about->sources_count <= MEMCUBE_SOURCES_MAX);
    must(about->readers_count <= MEMCUBE_READERS_MAX);
    must(about->attributes_count <= MEMCUBE_ATTRIBUTES_MAX);
    must(draft->derived_count <= MEMCUBE_DERIVED_MAX);
    for (size_t i = 0; i < about->tags_count; i++) {
        must(about->tags[i].size <= MEMCUBE_NAME_BYTES_MAX && memos_bytes_utf8(about->tags[i]));
    }
}

static void look_at_changes(const Memos__Request *request, const struct memos_frames *frames,
    const struct broker_call *call)
{
    switch (request->body_case) {
    case MEMOS__REQUEST__BODY_PUT:
        must(call->put.count >= 1 && call->put.count <= BROKER_BATCH_MAX);
        for (size_t i = 0; i < call->put.count; i++) {
            look_at_draft(frames, &call->put.drafts[i]);
            must(memcube_draft_check(&call->put.drafts[i], NULL) == MEMOS_OK);
        }
        break;
    case MEMOS__REQUEST__BODY_UPDATE:
        must(call->update.count >= 1 && call->update.count <= BROKER_BATCH_MAX);
        for (size_t i = 0; i < call->update.count; i++) {
            look_at_draft(frames, &call->update.updates[i].draft);
        }
        break;
    case MEMOS__REQUEST__BODY_MERGE:
        must(call->merge.count >= 1 && call->merge.count <= BROKER_BATCH_MAX);
        look_at_draft(frames, &call->merge.draft);
        break;
    case MEMOS__REQUEST__BODY_IMPORT:
        must(is_payload(frames, call->import.part));
        break;
    case MEMOS__REQUEST__BODY_FEEDBACK:
        must(call->feedback.usefulness >= -1 && call->feedback.usefulness <= 1);
        break;
    default:
        break;
    }
}

static void look_at_reads(const Memos__Request *request, const struct broker_call *call)
{
    switch (request->body_case) {
    case MEMOS__REQUEST__BODY_GET:
        must(call->get.ids_count <= BROKER_BATCH_MAX);
        must(call->get.external_ids_count <= BROKER_BATCH_MAX);
        break;
    case MEMOS__REQUEST__BODY_LIST:
        must(call->list.count_max >= 1 && call->list.count_max <= BROKER_BATCH_MAX);
        break;
    case MEMOS__REQUEST__BODY_SEARCH:
    case MEMOS__REQUEST__BODY_SEARCH_MANY:
        must(call->search.count >= 1 && call->search.count <= BROKER_SEARCHES_MAX);
        for (size_t i = 0; i < call->search.count; i++) {
            const struct broker_call_search *search = &call->search.searches[i];
            must(search->query.top_k >= 1 && search->query.top_k <= BROKER_BATCH_MAX);
            must((search->status == MEMOS_OK) ==
                 (memcube_space_check(search->space, NULL) == MEMOS_OK));
        }
        break;
    default:
        break;
    }
}

static bool is_frame(const struct memos_frames *frames, uint32_t number)
{
    return number <= memos_frames_payload_count(frames);
}

static void look_at_announcement(const Memos__WorkerAnnounce *body)
{
    must(body->n_models >= 1 && body->n_models <= 16);
    must(body->jobs_max >= 1 && body->jobs_max <= 1024 && body->instance.len == 16);
    for (size_t i = 0; i < body->n_models; i++) {
        must(body->models[i]->fingerprint.len == 32 && body->models[i]->name[0] != '\0');
        must(memos_bytes_utf8(memos_bytes_of(body->models[i]->name)));
    }
}

static void look_at_work(const Memos__Request *request, const struct memos_frames *frames,
    const struct broker_call *call)
{
    switch (request->body_case) {
    case MEMOS__REQUEST__BODY_GENERATE:
        must(call->work.model && call->work.priority >= 1 && call->work.priority <= 255);
        must(is_frame(frames, request->generate->prompt_frame));
        for (size_t i = 0; i < request->generate->n_messages; i++) {
            must(is_frame(frames, request->generate->messages[i]->frame));
        }
        break;
    case MEMOS__REQUEST__BODY_SCORE:
        must(call->work.model && request->score->n_frames >= 1);
        for (size_t i = 0; i < request->score->n_frames; i++) {
            must(is_frame(frames, request->score->frames[i]));
        }
        break;
    case MEMOS__REQUEST__BODY_CAPTURE:
        must(memcube_space_check(call->space, NULL) == MEMOS_OK);
        must(request->capture->n_ids + request->capture->n_messages > 0);
        break;
    case MEMOS__REQUEST__BODY_WORKER_ANNOUNCE:
        look_at_announcement(request->worker_announce);
        break;
    case MEMOS__REQUEST__BODY_WORKER_HEARTBEAT:
        must(request->worker_heartbeat->n_warm <= 64);
        break;
    case MEMOS__REQUEST__BODY_JOB_UPDATE:
        must(request->job_update->ticket.len == 16 && request->job_update->reply);
        break;
    case MEMOS__REQUEST__BODY_JOB_OVER:
        must(request->job_over->ticket.len == 16);
        break;
    default:
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct memos_reader reader = memos_reader_of(memos_bytes_make(data, size));
    struct memos_frames frames;
    struct memos_arena arena;
    struct memos_error err;
    Memos__Request *request = NULL;
    struct broker_call call;
    uint8_t *envelope;
    unsigned count = memos_read_u8(&reader) % 4;

    must(memos_frames_begin(&frames, memos_bytes_make(NULL, 0), 0, &envelope, NULL) == MEMOS_OK);
    for (unsigned i = 0; i < count; i++) {
        struct memos_bytes payload = memos_read_bytes(&reader, memos_read_u16(&reader));
        must(memos_frames_add(&frames, payload, NULL) == MEMOS_OK);
    }
    struct memos_bytes rest = memos_read_bytes(&reader, reader.left);
    memos_arena_init(&arena, 2 * memos_envelope_memory(rest.size));
    if (memos_request_unpack(rest, &arena, &request, &err) == MEMOS_OK &&
        broker_call_make(request, &frames, &arena, &call, &err) == MEMOS_OK) {
        look_at_changes(request, &frames, &call);
        look_at_reads(request, &call);
        look_at_work(request, &frames, &call);
    }
    memos_arena_finish(&arena);
    memos_frames_free(&frames);
    return 0;
}
