/* Captures read by the engine, and kept as cubes. */
#include "memos/worker/memory_internal.h"

#include <stdlib.h>
#include <string.h>

#define MESSAGE_SLACK ((uint64_t)1 << 16) /* of an envelope around a payload */

enum memos_status worker_capture_full(struct memos_error *err)
{
    return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a capture");
}

enum memos_status worker_capture_ref(struct memos_arena *arena, const struct memcube_ref *ref,
    Memos__CaptureMade *out, struct memos_error *err)
{
    Memos__Ref *made = memos_arena_take(arena, 1, sizeof *made);
    uint8_t *id = memos_arena_copy(arena, memos_bytes_make(ref->id.bytes, sizeof ref->id.bytes));
    memos__capture_made__init(out);
    if (!made || !id) {
        return worker_capture_full(err);
    }
    memos__ref__init(made);
    made->id = (ProtobufCBinaryData){.len = sizeof ref->id.bytes, .data = id};
    made->number = ref->number;
    out->ref = made;
    return MEMOS_OK;
}

void worker_capture_free(struct worker_capture **capture)
{
    struct worker_capture *old = *capture;
    *capture = NULL;
    if (!old) {
        return;
    }
    if (old->asked.memory) {
        kern_host_release(old->own->ctx, &old->asked.memory);
    }
    memos_arena_finish(&old->own->arena);
    free(old->own);
    free(old);
}

/* ---- reading --------------------------------------------------------------------------------- */

enum memos_status worker_capture_read(
    const struct worker_host *host, struct worker_capture *capture, struct memos_error *err)
{
    const struct memos_clock *clock = &capture->own->memory->clock;
    const int64_t begin_us = clock->mono_us(clock->self);
    struct paramem_capture *asked = &capture->asked;
    const size_t bytes =
        paramem_engine_capture_bytes(host->engine, asked->count - asked->first, asked->dtype);
    if (bytes == 0) {
        return memos_fail(err, MEMOS_TOO_LARGE, "a capture of %zu tokens", asked->count);
    }
    enum memos_status status = MEMOS_OK;
    if (!asked->memory) {
        capture->own->ctx = host->ctx;
        status = kern_host_alloc(host->ctx, bytes, &asked->memory, err);
    }
    if (status == MEMOS_OK) {
        status = paramem_engine_capture(host->engine, asked, &capture->cube, err);
    }
    capture->read_us = (uint64_t)(clock->mono_us(clock->self) - begin_us);
    return status;
}

/* ---- keeping --------------------------------------------------------------------------------- */

/* The largest message that the broker takes: one that is larger would cost the connection. */
static enum memos_status message_max(struct worker_memory *memory, const struct worker_fetch *fetch,
    uint64_t *out, struct memos_error *err)
{
    Memos__Hello body = MEMOS__HELLO__INIT;
    Memos__Request request;
    struct memos_message *message = NULL;
    (void)pthread_mutex_lock(&memory->lock);
    *out = memory->message_bytes_max;
    (void)pthread_mutex_unlock(&memory->lock);
    if (*out > 0) {
        return MEMOS_OK;
    }
    WORKER_REQUEST(request, HELLO, hello, body);
    struct worker_fetch own = *fetch;
    own.ticket = memos_bytes_make(NULL, 0); /* it is about the connection, not about the job */
    enum memos_status status =
        worker_ask(&own, &request, NULL, 0, MEMOS__REPLY__BODY_WELCOME, &message, err);
    if (status == MEMOS_OK) {
        *out = memos_message_reply(message)->welcome->message_bytes_max;
        (void)pthread_mutex_lock(&memory->lock);
        memory->message_bytes_max = *out;
        (void)pthread_mutex_unlock(&memory->lock);
    }
    memos_message_free(&message);
    return status;
}

/* Do the sources' heads say what was captured? */
static enum memos_status sources_check(const struct worker_fetch *fetch,
    const struct worker_capture_private *own, struct memos_error *err)
{
    ProtobufCBinaryData *ids = calloc(own->sources_count + 1, sizeof *ids);
    struct memos_message *message = NULL;
    Memos__Get body = MEMOS__GET__INIT;
    Memos__Request request;
    if (!ids) {
        return worker_capture_full(err);
    }
    for (size_t i = 0; i < own->sources_count; i++) {
        ids[i] = (ProtobufCBinaryData){.len = 16, .data = own->sources[i].id.bytes};
    }
    body.space = own->space;
    body.ids = ids;
    body.n_ids = own->sources_count;
    body.no_payload = true;
    body.peek = true;
    WORKER_REQUEST(request, GET, get, body);
    enum memos_status status =
        worker_ask(fetch, &request, NULL, 0, MEMOS__REPLY__BODY_CUBES, &message, err);
    for (size_t i = 0; status == MEMOS_OK && i < own->sources_count; i++) {
        const Memos__Cubes *cubes = memos_message_reply(message)->cubes;
        const Memos__Cube *cube = i < cubes->n_cubes ? cubes->cubes[i] : NULL;
        char ref[WORKER_REF_TEXT_BYTES];
        if (!cube || cube->stale || cube->payload_hash.len != sizeof own->hashes[i] ||
            memcmp(cube->payload_hash.data, own->hashes[i], sizeof own->hashes[i]) != 0) {
            status = memos_fail(err, MEMOS_CONFLICT, "%s does not stand any more",
                worker_ref_text(&own->sources[i], ref));
        }
    }
    memos_message_free(&message);
    free(ids);
    return status == MEMOS_NOT_FOUND ? memos_fail(err, MEMOS_CONFLICT, "a source is gone") : status;
}

static void attribute_set(Memos__Attribute *attribute, const char *name, const char *value)
{
    memos__attribute__init(attribute);
    attribute->name = (char *)(uintptr_t)name;
    attribute->value = (char *)(uintptr_t)value;
}

/* The draft's parts that point to others; all live on the caller's stack. */
struct draft {
    Memos__Draft draft, *drafts[1];
    Memos__Attribute attributes[6], *attribute_pointers[6];
    Memos__Ref *refs, **ref_pointers;
    char *tags[1];
    struct worker_description says;
};

static enum memos_status draft_make(
    struct worker_capture *capture, struct draft *d, struct memos_error *err)
{
    struct worker_capture_private *own = capture->own;
    enum memos_status status =
        worker_description_make(capture->cube.fingerprint, &capture->asked, &d->says, err);
    const size_t attributes = capture->asked.first > 0 ? 6 : 5;
    d->refs = memos_arena_take(&own->arena, own->sources_count + 1, sizeof *d->refs);
    d->ref_pointers =
        memos_arena_take(&own->arena, own->sources_count + 1, sizeof *d->ref_pointers);
    if (status != MEMOS_OK || !d->refs || !d->ref_pointers) {
        return status != MEMOS_OK ? status : worker_capture_full(err);
    }
    attribute_set(&d->attributes[0], "tokens", d->says.tokens);
    attribute_set(&d->attributes[1], "dtype", d->says.dtype);
    attribute_set(&d->attributes[2], "stride", d->says.stride);
    attribute_set(&d->attributes[3], "marks", (const char *)d->says.marks.data);
    attribute_set(&d->attributes[4], "form", own->is_independent ? "independent" : "prefix");
    attribute_set(&d->attributes[5], "first", d->says.first);
    for (size_t i = 0; i < attributes; i++) {
        d->attribute_pointers[i] = &d->attributes[i];
    }
    for (size_t i = 0; i < own->sources_count; i++) {
        memos__ref__init(&d->refs[i]);
        d->refs[i].id = (ProtobufCBinaryData){.len = 16, .data = own->sources[i].id.bytes};
        d->refs[i].number = own->sources[i].number;
        d->ref_pointers[i] = &d->refs[i];
    }
    memos__draft__init(&d->draft);
    d->draft.kind = MEMCUBE_ACTIVATION;
    d->draft.subtype = (char *)(uintptr_t)WORKER_KV_SUBTYPE;
    d->draft.codec = (char *)(uintptr_t)WORKER_KV_CODEC;
    d->draft.frame = 1;
    d->draft.model =
        (ProtobufCBinaryData){.len = strlen(d->says.model), .data = (uint8_t *)d->says.model};
    d->draft.derived_from = d->ref_pointers;
    d->draft.n_derived_from = own->sources_count;
    d->draft.external_id = d->says.external_id;
    d->tags[0] = d->says.tag;
    d->draft.tags = d->tags;
    d->draft.n_tags = 1;
    d->draft.attributes = d->attribute_pointers;
    d->draft.n_attributes = attributes;
    d->draft.readers = own->readers;
    d->draft.n_readers = own->readers_count;
    d->drafts[0] = &d->draft;
    return MEMOS_OK;
}

static enum memos_status put(const struct worker_fetch *fetch, struct worker_capture *capture,
    struct memcube_ref *out, struct memos_error *err)
{
    struct draft d = {.refs = NULL};
    struct memos_message *message = NULL;
    Memos__Put body = MEMOS__PUT__INIT;
    Memos__Request request;
    enum memos_status status = draft_make(capture, &d, err);
    if (status == MEMOS_OK) {
        body.space = capture->own->space;
        body.reason = capture->own->reason;
        body.drafts = d.drafts;
        body.n_drafts = 1;
        WORKER_REQUEST(request, PUT, put, body);
        status = worker_ask(
            fetch, &request, &capture->cube.bytes, 1, MEMOS__REPLY__BODY_OUTCOME, &message, err);
    }
    if (status == MEMOS_OK) {
        const Memos__Outcome *outcome = memos_message_reply(message)->outcome;
        if (outcome->n_refs == 1 && worker_id_of(outcome->refs[0]->id, &out->id)) {
            out->number = outcome->refs[0]->number;
        } else {
            status = memos_fail(err, MEMOS_CORRUPT, "the broker did not say what it kept");
        }
    }
    memos_message_free(&message);
    worker_description_free(&d.says);
    return status;
}

enum memos_status worker_capture_put(struct worker_memory *memory, const struct worker_host *host,
    const struct worker_fetch *fetch, struct worker_capture *capture, struct memos_arena *arena,
    Memos__CaptureMade *out_made, struct memos_error *err)
{
    const int64_t begin_us = memory->clock.mono_us(memory->clock.self);
    const uint64_t bytes = capture->cube.bytes.size;
    struct memcube_ref ref;
    uint64_t max = 0;
    (void)host;
    enum memos_status status = message_max(memory, fetch, &max, err);
    if (status == MEMOS_OK && (max < MESSAGE_SLACK || bytes > max - MESSAGE_SLACK)) {
        status = memos_fail(err, MEMOS_TOO_LARGE,
            "a capture of %llu bytes; the broker takes messages of %llu", (unsigned long long)bytes,
            (unsigned long long)max);
    }
    if (status == MEMOS_OK && capture->own->sources_count > 0) {
        status = sources_check(fetch, capture->own, err);
    }
    if (status == MEMOS_OK) {
        paramem_kv_cube_seal(&capture->cube, capture->asked.memory, NULL);
        status = put(fetch, capture, &ref, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    status = worker_capture_ref(arena, &ref, out_made, err);
    if (status != MEMOS_OK) {
        return status;
    }
    out_made->tokens = (uint32_t)capture->asked.count;
    out_made->shared_tokens = (uint32_t)capture->asked.first;
    out_made->bytes = bytes;
    out_made->read_us = capture->read_us;
    out_made->store_us = (uint64_t)(memory->clock.mono_us(memory->clock.self) - begin_us);
    return MEMOS_OK;
}
