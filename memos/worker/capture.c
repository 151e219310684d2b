/* Captures: planned from cubes and messages or from a prompt that was answered, read by the engine,
 * kept as cubes. */
#include "memos/worker/memory_internal.h"

#include <stdlib.h>
#include <string.h>

enum { REASON_BYTES = 256 };

#define MESSAGE_SLACK ((uint64_t)1 << 16) /* of an envelope around a payload */

/* Everything that the cube will say. On the heap: it outlives the prompt. */
struct worker_capture_private {
    struct memos_arena arena;
    struct worker_memory *memory;
    struct kern_ctx *ctx; /* that `memory` of the capture is from */
    char *space, *reason;
    struct memcube_ref *sources;
    uint8_t (*hashes)[MEMCUBE_HASH_BYTES]; /* of the sources' payloads */
    size_t sources_count;
    char **readers;
    size_t readers_count;
    bool is_independent;
    uint32_t *ids;
};

/* ---- planning -------------------------------------------------------------------------------- */

static enum memos_status fail_full(struct memos_error *err)
{
    return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a capture");
}

static bool is_among(char *const *readers, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(readers[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* A capture is for those who may read all that it is of. CONFLICT: nobody may. */
static enum memos_status readers_join(struct worker_capture_private *own,
    const struct worker_recalled *const *texts, size_t count, struct memos_error *err)
{
    const struct worker_recalled *first = NULL;
    for (size_t i = 0; i < count && !first; i++) {
        first = texts[i]->readers_count > 0 ? texts[i] : NULL;
    }
    if (!first) {
        return MEMOS_OK;
    }
    own->readers = memos_arena_take(&own->arena, first->readers_count, sizeof *own->readers);
    if (!own->readers) {
        return fail_full(err);
    }
    for (size_t r = 0; r < first->readers_count; r++) {
        bool may = true;
        for (size_t i = 0; i < count && may; i++) {
            may = texts[i]->readers_count == 0 ||
                  is_among(texts[i]->readers, texts[i]->readers_count, first->readers[r]);
        }
        char *name = may ? memos_arena_copy(&own->arena, memos_bytes_of(first->readers[r])) : NULL;
        if (may && !name) {
            return fail_full(err);
        }
        if (may) {
            own->readers[own->readers_count++] = name;
        }
    }
    return own->readers_count > 0 ? MEMOS_OK
                                  : memos_fail(err, MEMOS_CONFLICT,
                                        "the cubes' lists of readers have nobody in common: who "
                                        "could read a capture?");
}

struct planning {
    struct worker_memory *memory;
    const struct worker_host *host;
    const char *space, *reason;
    enum kern_dtype dtype;
    bool is_independent;
};

static enum memos_status sources_copy(struct worker_capture_private *own,
    const struct worker_recalled *const *texts, size_t count, struct memos_error *err)
{
    own->sources = memos_arena_take(&own->arena, count + 1, sizeof *own->sources);
    own->hashes = memos_arena_take(&own->arena, count + 1, sizeof *own->hashes);
    if (!own->sources || !own->hashes) {
        return fail_full(err);
    }
    for (size_t i = 0; i < count; i++) {
        own->sources[i] = texts[i]->ref;
        memcpy(own->hashes[i], texts[i]->hash, sizeof own->hashes[i]);
    }
    own->sources_count = count;
    return readers_join(own, texts, count, err);
}

/* A capture of `count` ids that hold these texts. */
static enum memos_status plan_one(const struct planning *p, const uint32_t *ids, size_t count,
    const struct worker_recalled *const *texts, size_t texts_count, struct worker_capture **out,
    struct memos_error *err)
{
    struct worker_capture *capture = calloc(1, sizeof *capture);
    struct worker_capture_private *own = calloc(1, sizeof *own);
    *out = NULL;
    if (!capture || !own) {
        free(capture);
        free(own);
        return fail_full(err);
    }
    capture->own = own;
    capture->dtype = p->dtype;
    memos_arena_init(&own->arena, SIZE_MAX / 2);
    own->memory = p->memory;
    own->space = memos_arena_copy(&own->arena, memos_bytes_of(p->space));
    own->reason = memos_arena_copy(&own->arena, memos_bytes_of(p->reason));
    own->is_independent = p->is_independent;
    own->ids = memos_arena_copy(&own->arena, memos_bytes_make(ids, count * sizeof *ids));
    capture->ids = (struct paramem_ids){own->ids, count};
    enum memos_status status = own->space && own->reason && own->ids
                                   ? sources_copy(own, texts, texts_count, err)
                                   : fail_full(err);
    if (status == MEMOS_OK && paramem_engine_capture_bytes(p->host->engine, count, p->dtype) == 0) {
        status =
            memos_fail(err, MEMOS_TOO_LARGE, "a capture of %zu tokens as %s; the context is %zu",
                count, kern_dtype_name(p->dtype), paramem_engine_context(p->host->engine));
    }
    if (status == MEMOS_OK) {
        *out = capture;
    } else {
        worker_capture_free(&capture);
    }
    return status;
}

void worker_capture_free(struct worker_capture **capture)
{
    struct worker_capture *old = *capture;
    *capture = NULL;
    if (!old) {
        return;
    }
    if (old->memory) {
        kern_host_release(old->own->ctx, &old->memory);
    }
    memos_arena_finish(&old->own->arena);
    free(old->own);
    free(old);
}

/* ---- of a prompt that was answered ----------------------------------------------------------- */

/* How many cubes a capture of the prompt is worth keeping of; 0: none. */
static size_t hot_cubes(struct worker_memory *memory, const struct worker_host *host,
    const struct worker_prompt *prompt)
{
    const struct worker_layout *layout = &prompt->own->layout;
    for (size_t cubes = layout->placed_count; cubes > 0; cubes--) {
        const size_t tokens = layout->placed[cubes - 1].end;
        if (prompt->own->covered + KERN_PAGE_TOKENS > tokens) {
            return 0; /* there is one that holds */
        }
        if (worker_memory_uses(memory, host, prompt, cubes, false) >= memory->hot_uses) {
            return cubes;
        }
    }
    return 0;
}

enum memos_status worker_memory_wanted(struct worker_memory *memory, const struct worker_host *host,
    const struct worker_prompt *prompt, struct worker_capture **out, struct memos_error *err)
{
    const struct worker_prompt_private *own = prompt->own;
    const struct worker_layout *layout = &own->layout;
    struct planning p = {.memory = memory,
        .host = host,
        .space = own->space,
        .dtype = own->dtype,
        .reason = "what a model made of the memory of an answer"};
    *out = NULL;
    if (own->texts.is_past || layout->placed_count == 0) {
        return MEMOS_OK; /* of what stood once, or of nothing */
    }
    size_t cubes = own->wants_capture ? layout->placed_count : 0;
    if (cubes == 0) {
        cubes = hot_cubes(memory, host, prompt);
        p.reason = "captures of these cubes are often used, and the last one went stale";
    }
    const size_t end = cubes > 0 ? layout->placed[cubes - 1].end : 0;
    const size_t tokens = end / KERN_PAGE_TOKENS * KERN_PAGE_TOKENS;
    if (tokens == 0 || own->covered >= tokens) {
        return MEMOS_OK;
    }
    const struct worker_recalled **texts = calloc(cubes, sizeof *texts);
    if (!texts) {
        return fail_full(err);
    }
    for (size_t i = 0; i < cubes; i++) {
        texts[i] = layout->placed[i].text;
    }
    enum memos_status status = plan_one(&p, prompt->ids.ids, tokens, texts, cubes, out, err);
    free(texts);
    return status;
}

/* ---- of cubes and messages ------------------------------------------------------------------- */

struct job {
    struct planning plan;
    const struct worker_fetch *fetch;
    const Memos__Capture *capture;
    const struct memos_bytes *frames;
    size_t frames_count;
    struct worker_texts texts;
    struct memos_arena *arena;
    struct worker_capture **made;
    size_t made_count;
    Memos__CaptureMade **existing;
    size_t existing_count;
};

/* Is there one of these ids that holds? Then it is told instead. */
static enum memos_status exists(
    struct job *job, const uint32_t *ids, size_t count, bool *out, struct memos_error *err)
{
    const struct worker_host *host = job->plan.host;
    struct worker_catalogue *catalogue = job->plan.memory->catalogue;
    const struct worker_view *view;
    bool is_new;
    const struct paramem_key key =
        worker_key_of(host->info.fingerprint, job->plan.dtype, ids, count);
    *out = false;
    enum memos_status status = worker_catalogue_view(catalogue, job->fetch, job->plan.space,
        host->info.fingerprint, job->texts.moment.seq, &view, &is_new, err);
    for (size_t i = 0; status == MEMOS_OK && i < view->count && !*out; i++) {
        const struct worker_known *known = &view->items[i];
        if (known->is_stale || known->tokens != count || known->dtype != job->plan.dtype ||
            memcmp(&known->key, &key, sizeof key) != 0) {
            continue;
        }
        Memos__CaptureMade *made = memos_arena_take(job->arena, 1, sizeof *made);
        Memos__Ref *ref = memos_arena_take(job->arena, 1, sizeof *ref);
        uint8_t *id = memos_arena_copy(
            job->arena, memos_bytes_make(known->ref.id.bytes, sizeof known->ref.id.bytes));
        if (!made || !ref || !id) {
            status = fail_full(err);
            break;
        }
        memos__capture_made__init(made);
        memos__ref__init(ref);
        ref->id = (ProtobufCBinaryData){.len = sizeof known->ref.id.bytes, .data = id};
        ref->number = known->ref.number;
        made->ref = ref;
        made->tokens = (uint32_t)known->tokens;
        made->bytes = known->bytes;
        made->existed = true;
        job->existing[job->existing_count++] = made;
        *out = true;
    }
    if (status == MEMOS_OK) {
        worker_view_release(catalogue, view);
    }
    return status;
}

static enum memos_status job_add(struct job *job, const uint32_t *ids, size_t count,
    const struct worker_recalled *const *texts, size_t texts_count, struct memos_error *err)
{
    bool is_there;
    enum memos_status status = exists(job, ids, count, &is_there, err);
    if (status == MEMOS_OK && !is_there) {
        status =
            plan_one(&job->plan, ids, count, texts, texts_count, &job->made[job->made_count], err);
        job->made_count += status == MEMOS_OK;
    }
    return status;
}

static enum memos_status plan_independent(struct job *job, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; i < job->texts.count && status == MEMOS_OK; i++) {
        const struct worker_recalled *text = &job->texts.items[i];
        struct paramem_ids ids = {0};
        status = worker_prompt_body_ids(job->plan.host, text, &ids, err);
        if (status == MEMOS_OK) {
            status = job_add(job, ids.ids, ids.count, &text, 1, err);
        }
        free(ids.ids);
    }
    return status;
}

/* The Generate whose prompt begins with what is to be captured. A template may want a user's turn
 * before it shows the system message: with cubes one is added, behind the memory. */
static enum memos_status layout_make(
    struct job *job, struct worker_layout *out, struct worker_notes *notes, struct memos_error *err)
{
    const Memos__Capture *capture = job->capture;
    const struct worker_host *host = job->plan.host;
    Memos__Generate generate = MEMOS__GENERATE__INIT;
    Memos__ChatMessage turn = MEMOS__CHAT_MESSAGE__INIT;
    char role[] = "user";
    const bool is_chat =
        capture->n_messages > 0 || capture->template_[0] || (host->chat && !capture->bare);
    struct memos_bytes *frames =
        memos_arena_take(job->arena, job->frames_count + 1, sizeof *frames);
    Memos__ChatMessage **messages =
        memos_arena_take(job->arena, capture->n_messages + 1, sizeof *messages);
    if (!frames || !messages) {
        return fail_full(err);
    }
    for (size_t i = 0; i < job->frames_count; i++) {
        frames[i] = job->frames[i];
    }
    frames[job->frames_count] = memos_bytes_of("-");
    turn.role = role;
    turn.frame = (uint32_t)job->frames_count + 1;
    for (size_t i = 0; i < capture->n_messages; i++) {
        messages[generate.n_messages++] = capture->messages[i];
    }
    const bool ends_with_user =
        generate.n_messages > 0 && strcmp(messages[generate.n_messages - 1]->role, "user") == 0;
    if (is_chat && job->texts.count > 0 && !ends_with_user) {
        messages[generate.n_messages++] = &turn;
    }
    generate.messages = messages;
    generate.prompt_frame = is_chat ? 0 : turn.frame;
    generate.template_ = capture->template_;
    const size_t context = paramem_engine_context(host->engine);
    const struct worker_prompt_input input = {.host = host,
        .generate = &generate,
        .frames = frames,
        .frames_count = job->frames_count + 1,
        .texts = job->texts.items,
        .texts_count = job->texts.count,
        .budget = context,
        .no_generation = job->texts.count == 0};
    return worker_prompt_make(&input, job->arena, notes, out, err);
}

static enum memos_status plan_prefix(struct job *job, struct memos_error *err)
{
    struct worker_notes notes = {.arena = job->arena};
    struct worker_layout layout = {0};
    const struct worker_recalled **texts =
        memos_arena_take(job->arena, job->texts.count + 1, sizeof *texts);
    if (!texts) {
        return fail_full(err);
    }
    enum memos_status status = layout_make(job, &layout, &notes, err);
    const size_t end = layout.memory_tokens > 0 ? layout.memory_tokens : layout.ids.count;
    const size_t tokens = end / KERN_PAGE_TOKENS * KERN_PAGE_TOKENS;
    if (status == MEMOS_OK && tokens == 0) {
        status = memos_fail(err, MEMOS_INVALID,
            "there are %zu tokens; captures are of whole blocks of %d", end, KERN_PAGE_TOKENS);
    }
    if (status == MEMOS_OK) {
        for (size_t i = 0; i < layout.placed_count; i++) {
            texts[i] = layout.placed[i].text;
        }
        status = job_add(job, layout.ids.ids, tokens, texts, layout.placed_count, err);
    }
    free(layout.ids.ids);
    return status;
}

static enum memos_status job_check(const struct job *job, struct memos_error *err)
{
    const Memos__Capture *capture = job->capture;
    if (!capture->space[0]) {
        return memos_fail(err, MEMOS_INVALID, "a capture is to be kept, and no space is named");
    }
    if (job->plan.dtype == (enum kern_dtype)0) {
        return memos_fail(err, MEMOS_INVALID, "captures are of types 1 to 4");
    }
    if (capture->n_ids == 0 && (capture->n_messages == 0 || capture->independent)) {
        return memos_fail(err, MEMOS_INVALID, "nothing is named that could be captured");
    }
    return MEMOS_OK;
}

enum memos_status worker_capture_plan(struct worker_memory *memory, const struct worker_host *host,
    const struct worker_fetch *fetch, const Memos__Capture *capture,
    const struct memos_bytes *frames, size_t frames_count, struct worker_capture ***out,
    size_t *out_count, Memos__CaptureMade ***out_existing, size_t *out_existing_count,
    struct memos_arena *arena, struct memos_error *err)
{
    struct job job = {.plan = {.memory = memory,
                          .host = host,
                          .space = capture->space,
                          .dtype = worker_dtype_of(capture->dtype, host),
                          .is_independent = capture->independent,
                          .reason = capture->reason[0] ? capture->reason : "captured on request"},
        .fetch = fetch,
        .capture = capture,
        .frames = frames,
        .frames_count = frames_count,
        .arena = arena};
    *out = NULL;
    *out_count = *out_existing_count = 0;
    *out_existing = NULL;
    enum memos_status status = job_check(&job, err);
    if (status == MEMOS_OK) {
        status = worker_texts_named(
            fetch, capture->space, capture->ids, capture->n_ids, arena, &job.texts, err);
    }
    if (status == MEMOS_OK) {
        job.made = calloc(job.texts.count + 1, sizeof *job.made);
        job.existing = memos_arena_take(arena, job.texts.count + 1, sizeof *job.existing);
        status = job.made && job.existing ? MEMOS_OK : fail_full(err);
    }
    if (status == MEMOS_OK) {
        status = capture->independent ? plan_independent(&job, err) : plan_prefix(&job, err);
    }
    if (status != MEMOS_OK) {
        for (size_t i = 0; i < job.made_count; i++) {
            worker_capture_free(&job.made[i]);
        }
        free(job.made);
        return status;
    }
    *out = job.made;
    *out_count = job.made_count;
    *out_existing = job.existing;
    *out_existing_count = job.existing_count;
    return MEMOS_OK;
}

/* ---- reading --------------------------------------------------------------------------------- */

enum memos_status worker_capture_read(
    const struct worker_host *host, struct worker_capture *capture, struct memos_error *err)
{
    const struct memos_clock *clock = &capture->own->memory->clock;
    const int64_t begin_us = clock->mono_us(clock->self);
    const size_t bytes =
        paramem_engine_capture_bytes(host->engine, capture->ids.count, capture->dtype);
    if (bytes == 0) {
        return memos_fail(err, MEMOS_TOO_LARGE, "a capture of %zu tokens", capture->ids.count);
    }
    enum memos_status status = MEMOS_OK;
    if (!capture->memory) {
        capture->own->ctx = host->ctx;
        status = kern_host_alloc(host->ctx, bytes, &capture->memory, err);
    }
    if (status == MEMOS_OK) {
        status = paramem_engine_capture(host->engine, capture->ids.ids, capture->ids.count,
            capture->dtype, capture->memory, &capture->cube, err);
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
        return fail_full(err);
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
    Memos__Attribute attributes[5], *attribute_pointers[5];
    Memos__Ref *refs, **ref_pointers;
    char *tags[1];
    struct worker_description says;
};

static enum memos_status draft_make(
    struct worker_capture *capture, struct draft *d, struct memos_error *err)
{
    struct worker_capture_private *own = capture->own;
    enum memos_status status = worker_description_make(&capture->cube, &d->says, err);
    d->refs = memos_arena_take(&own->arena, own->sources_count + 1, sizeof *d->refs);
    d->ref_pointers =
        memos_arena_take(&own->arena, own->sources_count + 1, sizeof *d->ref_pointers);
    if (status != MEMOS_OK || !d->refs || !d->ref_pointers) {
        return status != MEMOS_OK ? status : fail_full(err);
    }
    attribute_set(&d->attributes[0], "tokens", d->says.tokens);
    attribute_set(&d->attributes[1], "dtype", d->says.dtype);
    attribute_set(&d->attributes[2], "stride", d->says.stride);
    attribute_set(&d->attributes[3], "marks", (const char *)d->says.marks.data);
    attribute_set(&d->attributes[4], "form", own->is_independent ? "independent" : "prefix");
    for (size_t i = 0; i < 5; i++) {
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
    d->draft.n_attributes = 5;
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
        paramem_kv_cube_seal(&capture->cube, capture->memory, NULL);
        status = put(fetch, capture, &ref, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    Memos__Ref *made = memos_arena_take(arena, 1, sizeof *made);
    uint8_t *id = memos_arena_copy(arena, memos_bytes_make(ref.id.bytes, sizeof ref.id.bytes));
    if (!made || !id) {
        return fail_full(err);
    }
    memos__ref__init(made);
    made->id = (ProtobufCBinaryData){.len = sizeof ref.id.bytes, .data = id};
    made->number = ref.number;
    memos__capture_made__init(out_made);
    out_made->ref = made;
    out_made->tokens = (uint32_t)capture->cube.tokens;
    out_made->bytes = bytes;
    out_made->read_us = capture->read_us;
    out_made->store_us = (uint64_t)(memory->clock.mono_us(memory->clock.self) - begin_us);
    return MEMOS_OK;
}
