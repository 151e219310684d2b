/* Captures of a prompt: which hold its beginning or its cubes, whether loading them is worth it,
 * and their way into the engine. */
#include "memos/worker/memory_internal.h"

#include <stdlib.h>
#include <string.h>

enum { TRIES = 3, DTYPES = 4 };

struct finding {
    struct worker_memory *memory;
    const struct worker_host *host;
    const struct worker_fetch *fetch;
    struct worker_prompt *prompt;
    struct worker_prompt_private *own;
    const struct worker_view *view;
    enum kern_dtype dtypes[DTYPES]; /* whose keys were made */
    struct paramem_key *keys[DTYPES];
    size_t blocks;  /* whole blocks that may come out of a capture */
    bool *is_tried; /* (view->count) */
};

/* ---- which ----------------------------------------------------------------------------------- */

/* The prompt's keys in a cache of that type; NULL without memory. */
static const struct paramem_key *keys_for(struct finding *f, enum kern_dtype dtype)
{
    size_t blocks = 0, i = 0;
    while (i < DTYPES && f->keys[i] && f->dtypes[i] != dtype) {
        i++;
    }
    if (i < DTYPES && !f->keys[i]) {
        f->dtypes[i] = dtype;
        f->keys[i] = worker_keys_of(&f->prompt->arena, f->host->info.fingerprint, dtype,
            f->prompt->ids.ids, f->blocks * KERN_PAGE_TOKENS, &blocks);
    }
    return i < DTYPES ? f->keys[i] : NULL;
}

/* Is it of the cubes that stand in this prompt, whatever they say now? */
static bool is_of_these(const struct finding *f, const struct worker_known *known)
{
    const struct worker_layout *layout = &f->own->layout;
    if (known->sources_count == 0 || known->sources_count > layout->placed_count) {
        return false;
    }
    for (size_t i = 0; i < known->sources_count; i++) {
        if (!memos_id_equal(&known->sources[i].id, &layout->placed[i].text->ref.id)) {
            return false;
        }
    }
    return true;
}

static void note_stale(struct finding *f)
{
    char ref[WORKER_REF_TEXT_BYTES];
    for (size_t i = 0; i < f->view->count; i++) {
        const struct worker_known *known = &f->view->items[i];
        if (known->is_stale && is_of_these(f, known)) {
            worker_note(&f->own->notes, "capture %s is stale", worker_ref_text(&known->ref, ref));
        }
    }
}

/* The one that holds most of the prompt's beginning; of equals the cache's own type. */
static const struct worker_known *best_of(struct finding *f, size_t *out_tokens)
{
    const struct worker_known *best = NULL;
    *out_tokens = 0;
    for (size_t i = 0; i < f->view->count; i++) {
        const struct worker_known *known = &f->view->items[i];
        const struct paramem_key *keys =
            known->is_stale || f->is_tried[i] ? NULL : keys_for(f, known->dtype);
        const size_t tokens = keys ? worker_known_covers(known, keys, f->blocks) : 0;
        const bool is_own = known->dtype == f->host->kv;
        if (tokens > *out_tokens ||
            (tokens > 0 && tokens == *out_tokens && is_own && best->dtype != f->host->kv)) {
            best = known;
            *out_tokens = tokens;
        }
    }
    return best;
}

static const struct worker_known *find_key(struct finding *f, const uint32_t *ids, size_t count)
{
    const enum kern_dtype dtypes[DTYPES] = {KERN_F32, KERN_F16, KERN_BF16, KERN_E4M3};
    struct paramem_key keys[DTYPES];
    const struct worker_known *found = NULL;
    for (size_t d = 0; d < DTYPES; d++) {
        keys[d] = worker_key_of(f->host->info.fingerprint, dtypes[d], ids, count);
    }
    for (size_t i = 0; i < f->view->count; i++) {
        const struct worker_known *known = &f->view->items[i];
        for (size_t d = 0; d < DTYPES && !known->is_stale && !f->is_tried[i]; d++) {
            const bool is_it = known->dtype == dtypes[d] && known->tokens == count &&
                               memcmp(&known->key, &keys[d], sizeof keys[d]) == 0;
            if (is_it && (!found || known->dtype == f->host->kv)) {
                found = known;
            }
        }
    }
    return found;
}

/* ---- worth it? ------------------------------------------------------------------------------- */

static enum worker_source source_of(
    struct finding *f, const struct worker_known *known, const struct worker_kept **out_held)
{
    *out_held = worker_cache_hold(f->memory->cache, known->hash);
    if (*out_held) {
        return WORKER_HELD;
    }
    return f->fetch->same_host ? WORKER_MAPPED : WORKER_WIRE;
}

static bool is_worth_it(
    struct finding *f, const struct worker_known *known, enum worker_source source, size_t tokens)
{
    char ref[WORKER_REF_TEXT_BYTES];
    if (f->own->captures == 2) {
        return true;
    }
    (void)pthread_mutex_lock(&f->memory->lock);
    struct worker_cost *cost = worker_memory_cost(f->memory, f->host);
    const struct worker_choice choice = worker_cost_choose(cost, source, known->bytes, tokens);
    const bool later = !choice.load && source != WORKER_HELD && !f->own->has_later &&
                       worker_cost_choose(cost, WORKER_HELD, known->bytes, tokens).load;
    f->memory->stats.computed_instead += !choice.load;
    (void)pthread_mutex_unlock(&f->memory->lock);
    if (later) {
        f->own->has_later = true;
        f->own->later = (struct worker_known){.ref = known->ref, .bytes = known->bytes};
        memcpy(f->own->later.hash, known->hash, sizeof known->hash);
    }
    if (!choice.load) {
        worker_note(&f->own->notes,
            "capture %s was not loaded: it would take %.1f ms (%s) and %.1f ms to attach, reading "
            "its %zu tokens %.1f ms",
            worker_ref_text(&known->ref, ref), (double)choice.load_us / 1e3,
            worker_source_text(source), (double)choice.attach_us / 1e3, tokens,
            (double)choice.read_us / 1e3);
    }
    return choice.load;
}

/* ---- fetching -------------------------------------------------------------------------------- */

static enum memos_status get(const struct worker_fetch *fetch, const char *space,
    const struct memcube_ref *ref, struct memos_message **out, struct memos_error *err)
{
    ProtobufCBinaryData id = {
        .len = sizeof ref->id.bytes, .data = (uint8_t *)(uintptr_t)ref->id.bytes};
    Memos__Get body = MEMOS__GET__INIT;
    Memos__Request request;
    body.space = (char *)(uintptr_t)space;
    body.ids = &id;
    body.n_ids = 1;
    body.number = ref->number;
    body.path = fetch->same_host;
    WORKER_REQUEST(request, GET, get, body);
    return worker_ask(fetch, &request, NULL, 0, MEMOS__REPLY__BODY_CUBES, out, err);
}

static enum memos_status add(struct finding *f, const struct worker_known *known,
    const struct memos_message *message, const struct worker_kept **out, struct memos_error *err)
{
    const Memos__Cubes *cubes = memos_message_reply(message)->cubes;
    const Memos__Cube *cube = cubes->n_cubes == 1 ? cubes->cubes[0] : NULL;
    struct worker_cache *cache = f->memory->cache;
    if (!cube || cube->payload_hash.len != MEMCUBE_HASH_BYTES ||
        memcmp(cube->payload_hash.data, known->hash, MEMCUBE_HASH_BYTES) != 0) {
        return memos_fail(err, MEMOS_CORRUPT, "another payload came than was listed");
    }
    return cube->path[0] ? worker_cache_map(cache, f->own->space, known->hash, cube->path,
                               known->bytes, out, err)
                         : worker_cache_add(cache, f->own->space, known->hash,
                               memos_message_frame(message, cube->frame), out, err);
}

static enum memos_status fetch_kept(struct finding *f, const struct worker_known *known,
    struct worker_part *part, struct memos_error *err)
{
    const struct memos_clock *clock = &f->memory->clock;
    const int64_t begin_us = clock->mono_us(clock->self);
    struct memos_message *message = NULL;
    enum memos_status status = get(f->fetch, f->own->space, &known->ref, &message, err);
    if (status == MEMOS_OK) {
        status = add(f, known, message, &part->kept, err);
    }
    memos_message_free(&message);
    if (status != MEMOS_OK) {
        return status;
    }
    part->source = part->kept->source;
    part->load_us = (uint64_t)(clock->mono_us(clock->self) - begin_us);
    part->bytes = known->bytes;
    (void)pthread_mutex_lock(&f->memory->lock);
    worker_cost_saw_load(
        worker_memory_cost(f->memory, f->host), part->source, part->bytes, part->load_us);
    f->memory->stats.loaded++;
    f->memory->stats.bytes_fetched += part->bytes;
    (void)pthread_mutex_unlock(&f->memory->lock);
    return MEMOS_OK;
}

enum memos_status worker_fusion_check(
    const struct worker_host *host, const struct paramem_kv_cube *cube, struct memos_error *err)
{
    const struct paramem_decoder_config *config = host->info.config;
    if (memcmp(cube->fingerprint, host->info.fingerprint, 32) != 0) {
        return memos_fail(err, MEMOS_STALE, "it is of another model");
    }
    if (cube->layers != config->layers || cube->heads != config->kv_heads ||
        cube->head_dim != config->head_dim) {
        return memos_fail(err, MEMOS_CORRUPT, "it has not the model's shape");
    }
    return MEMOS_OK;
}

/* How many of the capture's first tokens are ids. */
static size_t common(const struct paramem_kv_cube *cube, const uint32_t *ids, size_t count)
{
    size_t same = 0;
    bool is_same = true;
    while (is_same && same < count && same < cube->tokens) {
        uint32_t id;
        paramem_kv_cube_ids(cube, same, 1, &id);
        is_same = id == ids[same];
        same += is_same;
    }
    return same;
}

/* Was this payload refused before? The reason, then. */
static bool is_refused(
    struct worker_memory *memory, const struct worker_known *known, struct memos_error *err)
{
    struct worker_refused *refused = &memory->refused;
    bool is_it = false;
    (void)pthread_mutex_lock(&memory->lock);
    for (size_t i = 0; i < WORKER_REFUSED_MAX && i < refused->count && !is_it; i++) {
        is_it = memcmp(refused->hash[i], known->hash, sizeof known->hash) == 0;
        if (is_it) {
            *err = refused->why[i];
        }
    }
    (void)pthread_mutex_unlock(&memory->lock);
    return is_it;
}

static void refuse(struct worker_memory *memory, const struct worker_known *known,
    enum memos_status status, const struct memos_error *err)
{
    struct worker_refused *refused = &memory->refused;
    (void)pthread_mutex_lock(&memory->lock);
    memory->stats.refused++;
    if (status == MEMOS_CORRUPT || status == MEMOS_UNSUPPORTED || status == MEMOS_STALE) {
        const size_t place = refused->count++ % WORKER_REFUSED_MAX;
        memcpy(refused->hash[place], known->hash, sizeof known->hash);
        refused->why[place] = *err;
    }
    (void)pthread_mutex_unlock(&memory->lock);
}

/* Fetch it, check it, and see how many of `count` ids from `first` on it holds. */
static enum memos_status part_make(struct finding *f, const struct worker_known *known,
    size_t first, size_t count, size_t expected, struct worker_part *part, struct memos_error *err)
{
    enum memos_status status = part->kept ? MEMOS_OK : fetch_kept(f, known, part, err);
    if (status == MEMOS_OK) {
        status = worker_fusion_check(f->host, &part->kept->cube, err);
    }
    if (status == MEMOS_OK) {
        part->tokens = common(&part->kept->cube, f->prompt->ids.ids + first, count);
        if (part->tokens < KERN_PAGE_TOKENS && part->tokens < expected) {
            status = memos_fail(err, MEMOS_CORRUPT, "it is of other tokens than it says");
        }
    }
    if (status != MEMOS_OK) {
        refuse(f->memory, known, status, err);
    }
    return status;
}

/* What it wants of the prompt is `count` ids from `first` on; *part holds it when true. */
static bool part_take(struct finding *f, const struct worker_known *known, size_t first,
    size_t count, size_t expected, struct worker_part *part)
{
    struct memos_error err = {0};
    char ref[WORKER_REF_TEXT_BYTES];
    bool is_taken = false;
    *part = (struct worker_part){.ref = known->ref};
    f->is_tried[known - f->view->items] = true;
    part->source = source_of(f, known, &part->kept);
    if (is_refused(f->memory, known, &err) ||
        (is_worth_it(f, known, part->source, expected) &&
            part_make(f, known, first, count, expected, part, &err) != MEMOS_OK)) {
        worker_note(&f->own->notes, "capture %s was not used: %s",
            worker_ref_text(&known->ref, ref), err.text);
    } else {
        is_taken = part->tokens > 0;
    }
    if (!is_taken) {
        worker_cache_release(f->memory->cache, part->kept);
        *part = (struct worker_part){0};
    }
    return is_taken;
}

static void find_prefix(struct finding *f)
{
    for (int i = 0; i < TRIES && !f->own->prefix.kept; i++) {
        size_t tokens;
        const struct worker_known *known = best_of(f, &tokens);
        if (!known) {
            return;
        }
        f->own->covered = tokens > f->own->covered ? tokens : f->own->covered;
        (void)part_take(f, known, 0, f->blocks * KERN_PAGE_TOKENS, tokens, &f->own->prefix);
    }
}

/* Cubes' own captures, for those that the common beginning does not hold. */
static void find_apart(struct finding *f)
{
    struct worker_prompt_private *own = f->own;
    const struct worker_layout *layout = &own->layout;
    own->apart = memos_arena_take(&f->prompt->arena, layout->placed_count, sizeof *own->apart);
    own->placed = memos_arena_take(&f->prompt->arena, layout->placed_count, sizeof *own->placed);
    own->placed_of = memos_arena_take(&f->prompt->arena, layout->placed_count, sizeof(void *));
    const bool has_room = own->apart && own->placed && own->placed_of;
    for (size_t i = 0; i < layout->placed_count && has_room; i++) {
        const struct worker_placed *placed = &layout->placed[i];
        const size_t count = placed->end - placed->body;
        const struct worker_known *known =
            placed->is_cut || placed->end <= own->prefix.tokens ||
                    placed->end >= f->prompt->ids.count || own->apart_count == PARAMEM_PLACED_MAX
                ? NULL
                : find_key(f, f->prompt->ids.ids + placed->body, count);
        struct worker_part *part = &own->apart[own->apart_count];
        if (known && part_take(f, known, placed->body, count, count, part)) {
            part->placed = i;
            own->apart_count += part->tokens == count;
            if (part->tokens != count) {
                worker_cache_release(f->memory->cache, part->kept);
            }
        }
    }
}

/* What the cache holds of this space goes when the store does not vouch for it any more. */
static void drop_stale(struct finding *f)
{
    uint8_t *hashes = memos_arena_take(&f->prompt->arena, f->view->count + 1, MEMCUBE_HASH_BYTES);
    size_t count = 0;
    for (size_t i = 0; i < f->view->count && hashes; i++) {
        if (!f->view->items[i].is_stale) {
            memcpy(
                hashes + MEMCUBE_HASH_BYTES * count++, f->view->items[i].hash, MEMCUBE_HASH_BYTES);
        }
    }
    if (hashes) {
        worker_cache_keep(f->memory->cache, f->own->space, hashes, count);
    }
}

void worker_fusion_find(struct worker_memory *memory, const struct worker_host *host,
    const struct worker_fetch *fetch, struct worker_prompt *prompt)
{
    struct worker_prompt_private *own = prompt->own;
    struct finding f = {
        .memory = memory, .host = host, .fetch = fetch, .prompt = prompt, .own = own};
    struct memos_error err = {0};
    bool is_new = false;
    /* of the last token logits are wanted: it is always computed */
    f.blocks = prompt->ids.count > 0 ? (prompt->ids.count - 1) / KERN_PAGE_TOKENS : 0;
    if (own->captures == 1 || !own->space[0] || !own->texts.has_moment) {
        return;
    }
    const uint64_t seq = own->texts.is_past ? 0 : own->texts.moment.seq;
    if (worker_catalogue_view(memory->catalogue, fetch, own->space, host->info.fingerprint, seq,
            &f.view, &is_new, &err) != MEMOS_OK) {
        worker_note(&own->notes, "captures could not be listed: %s", err.text);
        return;
    }
    f.is_tried = memos_arena_take(&prompt->arena, f.view->count + 1, sizeof *f.is_tried);
    if (f.is_tried) {
        memset(f.is_tried, 0, (f.view->count + 1) * sizeof *f.is_tried);
        if (is_new) {
            drop_stale(&f);
        }
        note_stale(&f);
        find_prefix(&f);
        if (own->is_independent) {
            find_apart(&f);
        }
    }
    worker_view_release(memory->catalogue, f.view);
}

void worker_fusion_release(struct worker_memory *memory, struct worker_prompt *prompt)
{
    struct worker_prompt_private *own = prompt->own;
    worker_cache_release(memory->cache, own->prefix.kept);
    own->prefix.kept = NULL;
    for (size_t i = 0; i < own->apart_count; i++) {
        worker_cache_release(memory->cache, own->apart[i].kept);
    }
    own->apart_count = 0;
}

bool worker_memory_has_later(const struct worker_prompt *prompt)
{
    return prompt->own->has_later;
}

void worker_memory_bring_later(struct worker_memory *memory, const struct worker_host *host,
    const struct worker_fetch *fetch, struct worker_prompt *prompt)
{
    struct worker_prompt_private *own = prompt->own;
    struct finding f = {
        .memory = memory, .host = host, .fetch = fetch, .prompt = prompt, .own = own};
    struct worker_part part = {.kept = NULL};
    if (own->has_later) {
        own->has_later = false;
        part.kept = worker_cache_hold(memory->cache, own->later.hash);
        if (!part.kept && fetch_kept(&f, &own->later, &part, NULL) != MEMOS_OK) {
            return; /* the next answer will say why */
        }
        worker_cache_release(memory->cache, part.kept);
    }
}

/* ---- into the engine ------------------------------------------------------------------------- */

static void attach_prefix(
    struct worker_memory *memory, const struct worker_host *host, struct worker_prompt *prompt)
{
    struct worker_prompt_private *own = prompt->own;
    const struct paramem_attach attach = {
        .cube = &own->prefix.kept->cube, .tokens_max = own->prefix.tokens};
    const int64_t begin_us = memory->clock.mono_us(memory->clock.self);
    struct memos_error err = {0};
    char ref[WORKER_REF_TEXT_BYTES];
    const enum memos_status status =
        paramem_engine_attach(host->engine, &attach, &own->attached, &err);
    own->attach_us = (uint64_t)(memory->clock.mono_us(memory->clock.self) - begin_us);
    own->is_attached = status == MEMOS_OK && own->attached.tokens > 0;
    (void)pthread_mutex_lock(&memory->lock);
    memory->stats.attached += own->is_attached;
    memory->stats.refused += status != MEMOS_OK;
    if (own->is_attached && own->attached.found == 0) {
        const size_t blocks = own->attached.tokens / KERN_PAGE_TOKENS;
        worker_cost_saw_attach(worker_memory_cost(memory, host),
            blocks * own->prefix.kept->cube.block_bytes, own->attach_us);
    }
    (void)pthread_mutex_unlock(&memory->lock);
    if (status != MEMOS_OK) {
        worker_note(&own->notes, "capture %s was not attached: %s",
            worker_ref_text(&own->prefix.ref, ref), err.text);
    } else if (!own->is_attached) {
        worker_note(&own->notes, "capture %s was not attached: the engine has no room",
            worker_ref_text(&own->prefix.ref, ref));
    }
}

/* Where each of the independent captures goes: behind what is exact already. */
static void place_apart(struct worker_prompt *prompt)
{
    struct worker_prompt_private *own = prompt->own;
    const size_t exact = own->is_attached ? own->attached.tokens : 0;
    for (size_t i = 0; i < own->apart_count; i++) {
        const struct worker_part *part = &own->apart[i];
        const size_t body = own->layout.placed[part->placed].body;
        const size_t known = exact > body ? exact - body : 0;
        if (known >= part->tokens) {
            continue;
        }
        const size_t tokens = part->tokens - known;
        const size_t recompute = own->recompute > known ? own->recompute - known : 0;
        own->placed_of[prompt->placed_count] = part;
        own->placed[prompt->placed_count++] = (struct paramem_placed){.cube = &part->kept->cube,
            .first_in_cube = known,
            .tokens = tokens,
            .at = body + known,
            .recompute = recompute < tokens ? recompute : tokens};
    }
    prompt->placed = own->placed;
}

void worker_memory_fuse(
    struct worker_memory *memory, const struct worker_host *host, struct worker_prompt *prompt)
{
    struct worker_prompt_private *own = prompt->own;
    const int64_t begin_us = memory->clock.mono_us(memory->clock.self);
    if (own->prefix.kept) {
        attach_prefix(memory, host, prompt);
    }
    place_apart(prompt);
    prompt->fuse_us = (uint64_t)(memory->clock.mono_us(memory->clock.self) - begin_us);
}
