/* Captures planned: of cubes and messages, or of a prompt that was answered. */
#include "memos/worker/memory_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- planning -------------------------------------------------------------------------------- */

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
        return worker_capture_full(err);
    }
    for (size_t r = 0; r < first->readers_count; r++) {
        bool may = true;
        for (size_t i = 0; i < count && may; i++) {
            may = texts[i]->readers_count == 0 ||
                  is_among(texts[i]->readers, texts[i]->readers_count, first->readers[r]);
        }
        char *name = may ? memos_arena_copy(&own->arena, memos_bytes_of(first->readers[r])) : NULL;
        if (may && !name) {
            return worker_capture_full(err);
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
    struct worker_base base; /* that it continues; tokens 0: none */
};

static enum memos_status sources_copy(struct worker_capture_private *own,
    const struct worker_recalled *const *texts, size_t count, const struct worker_base *base,
    struct memos_error *err)
{
    own->sources = memos_arena_take(&own->arena, count + 1, sizeof *own->sources);
    own->hashes = memos_arena_take(&own->arena, count + 1, sizeof *own->hashes);
    if (!own->sources || !own->hashes) {
        return worker_capture_full(err);
    }
    for (size_t i = 0; i < count; i++) {
        own->sources[i] = texts[i]->ref;
        memcpy(own->hashes[i], texts[i]->hash, sizeof own->hashes[i]);
    }
    own->sources_count = count;
    if (base->tokens > 0) {
        own->sources[count] = base->ref;
        memcpy(own->hashes[count], base->hash, sizeof own->hashes[count]);
        own->sources_count++;
    }
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
        return worker_capture_full(err);
    }
    capture->own = own;
    memos_arena_init(&own->arena, SIZE_MAX / 2);
    own->memory = p->memory;
    own->space = memos_arena_copy(&own->arena, memos_bytes_of(p->space));
    own->reason = memos_arena_copy(&own->arena, memos_bytes_of(p->reason));
    own->is_independent = p->is_independent;
    own->ids = memos_arena_copy(&own->arena, memos_bytes_make(ids, count * sizeof *ids));
    capture->asked = (struct paramem_capture){.ids = own->ids,
        .count = count,
        .first = p->base.tokens,
        .dtype = p->dtype,
        .owner = worker_owner_of(p->space)};
    enum memos_status status = own->space && own->reason && own->ids
                                   ? sources_copy(own, texts, texts_count, &p->base, err)
                                   : worker_capture_full(err);
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
    if (cubes == 0 && own->captures == 1) {
        return MEMOS_OK; /* which there are was not looked at */
    }
    if (cubes == 0) {
        cubes = hot_cubes(memory, host, prompt);
        p.reason = "captures of these cubes are often used, and the last one went stale";
    }
    const size_t end = cubes > 0 ? layout->placed[cubes - 1].end : 0;
    const size_t tokens = end / KERN_PAGE_TOKENS * KERN_PAGE_TOKENS;
    if (tokens == 0 || own->covered >= tokens) {
        return MEMOS_OK;
    }
    if (cubes == layout->placed_count && own->base.tokens < tokens) {
        p.base = own->base; /* which may be of all of them */
    }
    const struct worker_recalled **texts = calloc(cubes, sizeof *texts);
    if (!texts) {
        return worker_capture_full(err);
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

/* The one of these ids that holds; NULL: there is none. */
static const struct worker_known *find_made(
    const struct job *job, const struct worker_view *view, const uint32_t *ids, size_t count)
{
    const struct paramem_key key =
        worker_key_of(job->plan.host->info.fingerprint, job->plan.dtype, ids, count);
    for (size_t i = 0; i < view->count; i++) {
        const struct worker_known *known = &view->items[i];
        if (!known->is_stale && known->tokens == count && known->dtype == job->plan.dtype &&
            memcmp(&known->key, &key, sizeof key) == 0 &&
            (known->first == 0 || worker_known_base(view, known))) {
            return known;
        }
    }
    return NULL;
}

static enum memos_status add_existing(
    struct job *job, const struct worker_known *known, struct memos_error *err)
{
    Memos__CaptureMade *made = memos_arena_take(job->arena, 1, sizeof *made);
    enum memos_status status =
        made ? worker_capture_ref(job->arena, &known->ref, made, err) : worker_capture_full(err);
    if (status == MEMOS_OK) {
        made->tokens = (uint32_t)known->tokens;
        made->shared_tokens = (uint32_t)known->first;
        made->bytes = known->bytes;
        made->existed = true;
        job->existing[job->existing_count++] = made;
    }
    return status;
}

/* What the space has of these ids: all of them, which is told instead, or what a capture of them
 * may continue. */
static enum memos_status look(struct job *job, const uint32_t *ids, size_t count,
    const struct worker_recalled *const *texts, size_t texts_count, bool *out_is_there,
    struct memos_error *err)
{
    const uint8_t *fingerprint = job->plan.host->info.fingerprint;
    struct worker_catalogue *catalogue = job->plan.memory->catalogue;
    const struct worker_view *view;
    size_t blocks = 0;
    bool is_new;
    job->plan.base = (struct worker_base){.tokens = 0};
    *out_is_there = false;
    enum memos_status status = worker_catalogue_view(catalogue, job->fetch, job->plan.space,
        fingerprint, job->texts.moment.seq, &view, &is_new, err);
    if (status != MEMOS_OK) {
        return status;
    }
    const struct worker_known *known = find_made(job, view, ids, count);
    *out_is_there = known != NULL;
    struct memcube_ref *sources = memos_arena_take(job->arena, texts_count + 1, sizeof *sources);
    const struct paramem_key *keys =
        worker_keys_of(job->arena, fingerprint, job->plan.dtype, ids, count - 1, &blocks);
    for (size_t i = 0; i < texts_count && sources; i++) {
        sources[i] = texts[i]->ref;
    }
    if (known) {
        status = add_existing(job, known, err);
    } else if (keys && sources && !job->plan.is_independent) {
        (void)worker_base_find(
            view, job->plan.dtype, keys, blocks, sources, texts_count, &job->plan.base);
    }
    worker_view_release(catalogue, view);
    return status;
}

static enum memos_status job_add(struct job *job, const uint32_t *ids, size_t count,
    const struct worker_recalled *const *texts, size_t texts_count, struct memos_error *err)
{
    bool is_there;
    enum memos_status status = look(job, ids, count, texts, texts_count, &is_there, err);
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
        return worker_capture_full(err);
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
        return worker_capture_full(err);
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
        status = job.made && job.existing ? MEMOS_OK : worker_capture_full(err);
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
