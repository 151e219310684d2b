#include "memos/worker/memory_internal.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

enum { HOT_PRESET = 2, ARENA_BYTES_MAX = 1 << 30 };

/* ---- life ------------------------------------------------------------------------------------ */

enum memos_status worker_memory_create(const struct worker_memory_options *options,
    struct worker_memory **out, struct memos_error *err)
{
    struct worker_memory *memory = calloc(1, sizeof *memory);
    *out = NULL;
    if (!memory || pthread_mutex_init(&memory->lock, NULL) != 0) {
        free(memory);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for what models remember");
    }
    memory->clock = options->clock.mono_us ? options->clock : memos_clock_system();
    memory->hot_uses = options->hot_uses > 0 ? options->hot_uses : HOT_PRESET;
    enum memos_status status = worker_cache_create(options->cache_bytes, &memory->cache, err);
    if (status == MEMOS_OK) {
        status = worker_catalogue_create(&memory->catalogue, err);
    }
    if (status == MEMOS_OK) {
        *out = memory;
    } else {
        worker_memory_destroy(&memory);
    }
    return status;
}

void worker_memory_destroy(struct worker_memory **memory)
{
    struct worker_memory *own = *memory;
    *memory = NULL;
    if (!own) {
        return;
    }
    worker_catalogue_destroy(&own->catalogue);
    worker_cache_destroy(&own->cache);
    (void)pthread_mutex_destroy(&own->lock);
    free(own);
}

struct worker_cost *worker_memory_cost(struct worker_memory *memory, const struct worker_host *host)
{
    size_t i = 0;
    while (i < memory->models_count && memcmp(memory->models[i], host->info.fingerprint, 32) != 0) {
        i++;
    }
    if (i == memory->models_count) {
        i = i < WORKER_MODELS_MAX ? i : WORKER_MODELS_MAX - 1; /* the last one's makes room */
        memory->models_count = i + 1;
        memcpy(memory->models[i], host->info.fingerprint, 32);
        worker_cost_init(&memory->costs[i], host->info.parameters, !kern_memory_is_host(host->ctx));
    }
    return &memory->costs[i];
}

void worker_memory_stats(struct worker_memory *memory, struct worker_memory_stats *out)
{
    (void)pthread_mutex_lock(&memory->lock);
    *out = memory->stats;
    (void)pthread_mutex_unlock(&memory->lock);
    out->bytes_held = worker_cache_bytes(memory->cache);
}

size_t worker_memory_warm(struct worker_memory *memory, size_t count_max, struct memos_buffer *out)
{
    return worker_cache_spaces(memory->cache, count_max, out);
}

uint64_t worker_owner_of(const char *space)
{
    uint8_t hash[16];
    uint64_t owner = 0;
    if (space[0]) {
        (void)crypto_generichash(hash, sizeof hash, (const uint8_t *)space, strlen(space), NULL, 0);
        memcpy(&owner, hash, sizeof owner);
        owner += owner == 0;
    }
    return owner;
}

void worker_memory_drop(struct worker_memory *memory, const char *space)
{
    worker_cache_keep(memory->cache, space, NULL, 0);
}

/* ---- uses ------------------------------------------------------------------------------------ */

uint32_t worker_memory_uses(struct worker_memory *memory, const struct worker_host *host,
    const struct worker_prompt *prompt, size_t cubes, bool add)
{
    const struct worker_prompt_private *own = prompt->own;
    crypto_generichash_state state;
    uint64_t key = 0;
    (void)crypto_generichash_init(&state, NULL, 0, 16);
    (void)crypto_generichash_update(&state, host->info.fingerprint, 32);
    (void)crypto_generichash_update(&state, (const uint8_t *)own->space, strlen(own->space) + 1);
    (void)crypto_generichash_update(&state, (const uint8_t *)prompt->ids.ids,
        own->layout.memory_first * sizeof *prompt->ids.ids);
    for (size_t i = 0; i < cubes; i++) {
        (void)crypto_generichash_update(&state, own->layout.placed[i].text->ref.id.bytes, 16);
    }
    uint8_t hash[16];
    (void)crypto_generichash_final(&state, hash, sizeof hash);
    memcpy(&key, hash, sizeof key);
    (void)pthread_mutex_lock(&memory->lock);
    const size_t place = key % WORKER_USES_PLACES;
    uint32_t *count = &memory->uses.count[place];
    if (memory->uses.key[place] != key && add) {
        memory->uses.key[place] = key;
        *count = 0;
    }
    const bool is_it = memory->uses.key[place] == key;
    if (is_it && add && *count < UINT32_MAX) {
        (*count)++;
    }
    const uint32_t uses = is_it ? *count : 0;
    (void)pthread_mutex_unlock(&memory->lock);
    return uses;
}

/* ---- a prompt -------------------------------------------------------------------------------- */

enum kern_dtype worker_dtype_of(uint32_t number, const struct worker_host *host)
{
    const enum kern_dtype dtypes[] = {host->kv, KERN_F32, KERN_F16, KERN_BF16, KERN_E4M3};
    return number < sizeof dtypes / sizeof dtypes[0] ? dtypes[number] : (enum kern_dtype)0;
}

static enum memos_status wishes_take(struct worker_prompt *prompt, const struct worker_host *host,
    const Memos__Generate *generate, struct memos_error *err)
{
    struct worker_prompt_private *own = prompt->own;
    const Memos__Memory *memory = generate->memory;
    own->space = memos_arena_copy(&prompt->arena, memos_bytes_of(generate->space));
    own->dtype = worker_dtype_of(memory ? memory->capture_dtype : 0, host);
    if (!own->space || own->dtype == (enum kern_dtype)0) {
        return own->space ? memos_fail(err, MEMOS_INVALID, "captures are of types 1 to 4")
                          : memos_fail(err, MEMOS_NO_MEMORY, "no memory for a prompt");
    }
    if (memory) {
        own->wants_capture = memory->capture;
        own->captures = memory->captures;
        own->is_independent = memory->independent != 0;
        own->recompute = memory->recompute_tokens;
    }
    if (!own->space[0] && memory && (memory->search || memory->n_cubes > 0 || memory->capture)) {
        return memos_fail(err, MEMOS_INVALID, "memory is wished for, and no space is named");
    }
    return MEMOS_OK;
}

static enum memos_status layout_make(struct worker_prompt *prompt, const struct worker_host *host,
    const Memos__Generate *generate, const struct memos_bytes *frames, size_t frames_count,
    struct memos_error *err)
{
    struct worker_prompt_private *own = prompt->own;
    const size_t context = paramem_engine_context(host->engine);
    const size_t wished = generate->memory ? generate->memory->budget_tokens : 0;
    const struct worker_prompt_input input = {.host = host,
        .generate = generate,
        .frames = frames,
        .frames_count = frames_count,
        .texts = own->texts.items,
        .texts_count = own->texts.count,
        .budget = wished > 0 ? wished : context / 4,
        .context = context};
    enum memos_status status =
        worker_prompt_make(&input, &prompt->arena, &own->notes, &own->layout, err);
    prompt->ids = own->layout.ids;
    prompt->memory_tokens = own->layout.memory_tokens;
    return status;
}

static enum memos_status prepare(struct worker_memory *memory, const struct worker_host *host,
    const struct worker_fetch *fetch, const Memos__Generate *generate,
    const struct memos_bytes *frames, size_t frames_count, struct worker_prompt *prompt,
    struct memos_error *err)
{
    struct worker_prompt_private *own = prompt->own;
    enum memos_status status = wishes_take(prompt, host, generate, err);
    if (status == MEMOS_OK && own->space[0]) {
        const char *question =
            worker_prompt_question(generate, frames, frames_count, &prompt->arena);
        status = worker_texts_find(fetch, own->space, generate->memory, question, &prompt->arena,
            &own->notes, &own->texts, err);
    }
    if (status == MEMOS_OK) {
        status = layout_make(prompt, host, generate, frames, frames_count, err);
    }
    if (status == MEMOS_OK) {
        worker_fusion_find(memory, host, fetch, prompt);
        status = worker_receipt_begin(memory, host, fetch, prompt, err);
    }
    return status;
}

enum memos_status worker_memory_prepare(struct worker_memory *memory,
    const struct worker_host *host, const struct worker_fetch *fetch,
    const Memos__Generate *generate, const struct memos_bytes *frames, size_t frames_count,
    struct worker_prompt **out, struct memos_error *err)
{
    const int64_t begin_us = memory->clock.mono_us(memory->clock.self);
    struct worker_prompt *prompt = calloc(1, sizeof *prompt);
    *out = NULL;
    if (prompt) {
        prompt->own = calloc(1, sizeof *prompt->own);
    }
    if (!prompt || !prompt->own) {
        free(prompt);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a prompt");
    }
    memos_arena_init(&prompt->arena, ARENA_BYTES_MAX);
    prompt->own->notes.arena = &prompt->arena;
    enum memos_status status =
        prepare(memory, host, fetch, generate, frames, frames_count, prompt, err);
    prompt->prepare_us = (uint64_t)(memory->clock.mono_us(memory->clock.self) - begin_us);
    if (status == MEMOS_OK) {
        *out = prompt;
    } else {
        worker_prompt_free(memory, &prompt);
    }
    return status;
}

void worker_prompt_free(struct worker_memory *memory, struct worker_prompt **prompt)
{
    struct worker_prompt *own = *prompt;
    *prompt = NULL;
    if (!own) {
        return;
    }
    worker_fusion_release(memory, own);
    free(own->ids.ids);
    memos_arena_finish(&own->arena);
    free(own->own);
    free(own);
}

/* ---- afterwards ------------------------------------------------------------------------------ */

void worker_memory_told(struct worker_memory *memory, const struct worker_host *host,
    struct worker_prompt *prompt, const struct paramem_result *result, const uint32_t *answer,
    size_t answer_count)
{
    const struct worker_prompt_private *own = prompt->own;
    const size_t spared = result->cached_tokens + result->placed_tokens;
    if (result->tokens > 0 && result->prompt_tokens > spared &&
        result->first_us > result->queued_us) {
        (void)pthread_mutex_lock(&memory->lock);
        worker_cost_saw_read(worker_memory_cost(memory, host), result->prompt_tokens - spared,
            result->first_us - result->queued_us);
        (void)pthread_mutex_unlock(&memory->lock);
    }
    worker_receipt_end(memory, prompt, result, answer, answer_count);
    for (size_t cubes = own->layout.placed_count; own->attached_tokens > 0 && cubes > 0; cubes--) {
        const struct worker_placed *placed = &own->layout.placed[cubes - 1];
        if (placed->first < own->attached_tokens) {
            (void)worker_memory_uses(memory, host, prompt, cubes, true);
            break;
        }
    }
}
