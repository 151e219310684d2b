/* Captures of a prompt: which hold its beginning or its cubes, whether loading them is worth it,
 * and bringing them here. */
#include "memos/worker/memory_internal.h"

#include <stdlib.h>
#include <string.h>

enum { TRIES = 3, DTYPES = 4 };

/* Captures that are one text, and what comes of them. */
struct plan {
    const struct worker_known *known[WORKER_CHAIN_MAX]; /* the first one begins the context */
    struct worker_part parts[WORKER_CHAIN_MAX];
    size_t count;
};

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
            if (is_it && known->first == 0 && (!found || known->dtype == f->host->kv)) {
                found = known;
            }
        }
    }
    return found;
}

/* What a capture of the prompt's memory may leave out. */
static void find_base(struct finding *f)
{
    const struct worker_layout *layout = &f->own->layout;
    const size_t blocks = f->prompt->memory_tokens / KERN_PAGE_TOKENS;
    struct memcube_ref *sources =
        memos_arena_take(&f->prompt->arena, layout->placed_count + 1, sizeof *sources);
    const bool has_any = blocks > 1 && sources && f->view->count > 0;
    const struct paramem_key *keys = has_any ? keys_for(f, f->own->dtype) : NULL;
    for (size_t i = 0; i < layout->placed_count && keys; i++) {
        sources[i] = layout->placed[i].text->ref;
    }
    if (keys) {
        (void)worker_base_find(f->view, f->own->dtype, keys,
            (blocks - 1 < f->blocks ? blocks - 1 : f->blocks), sources, layout->placed_count,
            &f->own->base);
    }
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

/* What is not here comes for the next answer. */
static void want_later(struct finding *f, const struct plan *plan)
{
    struct worker_prompt_private *own = f->own;
    for (size_t i = 0; i < plan->count; i++) {
        const struct worker_known *known = plan->known[i];
        if (!plan->parts[i].kept) {
            struct worker_known *later = &own->later[own->later_count++];
            *later = (struct worker_known){.ref = known->ref, .bytes = known->bytes};
            memcpy(later->hash, known->hash, sizeof known->hash);
        }
    }
}

/* Captures that are to spare the reading of `tokens`; the last one names them. */
static bool is_worth_it(struct finding *f, const struct plan *plan, size_t tokens)
{
    const struct worker_known *known = plan->known[plan->count - 1];
    enum worker_source source = WORKER_HELD;
    uint64_t bytes = 0;
    char ref[WORKER_REF_TEXT_BYTES];
    if (f->own->captures == 2) {
        return true;
    }
    for (size_t i = 0; i < plan->count; i++) {
        source = plan->parts[i].source > source ? plan->parts[i].source : source;
        bytes += plan->known[i]->bytes;
    }
    (void)pthread_mutex_lock(&f->memory->lock);
    struct worker_cost *cost = worker_memory_cost(f->memory, f->host);
    const struct worker_choice choice = worker_cost_choose(cost, source, bytes, tokens);
    const bool later = !choice.load && source != WORKER_HELD &&
                       worker_cost_choose(cost, WORKER_HELD, bytes, tokens).load;
    f->memory->stats.computed_instead += !choice.load;
    (void)pthread_mutex_unlock(&f->memory->lock);
    if (later && f->own->later_count == 0) {
        want_later(f, plan);
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

/* Fetch it and check it. */
static enum memos_status part_make(struct finding *f, const struct worker_known *known,
    struct worker_part *part, struct memos_error *err)
{
    enum memos_status status = part->kept ? MEMOS_OK : fetch_kept(f, known, part, err);
    return status == MEMOS_OK ? worker_fusion_check(f->host, &part->kept->cube, err) : status;
}

/* Does it continue the one before at the block that it says? */
static enum memos_status link_check(const struct plan *plan, size_t index, struct memos_error *err)
{
    const struct paramem_kv_cube *cube = &plan->parts[index].kept->cube;
    bool is_good = paramem_kv_cube_continues(cube) == (index > 0);
    if (index > 0 && is_good) {
        const struct paramem_kv_cube *base = &plan->parts[index - 1].kept->cube;
        const size_t blocks =
            (plan->known[index]->first - plan->known[index - 1]->first) / KERN_PAGE_TOKENS;
        const struct paramem_key before = paramem_kv_cube_before(cube);
        struct paramem_key key = {{0}};
        is_good = blocks * KERN_PAGE_TOKENS <= base->tokens;
        if (is_good) {
            key = paramem_kv_cube_key(base, blocks - 1);
        }
        is_good = is_good && memcmp(&key, &before, sizeof key) == 0;
    }
    return is_good ? MEMOS_OK
                   : memos_fail(err, MEMOS_CORRUPT, "it continues another capture than it says");
}

/* How many of `count` ids from `first` on each part holds, up to where the next one goes on. */
static size_t plan_tokens(const struct finding *f, struct plan *plan, size_t first, size_t count)
{
    size_t tokens = 0;
    for (size_t i = 0; i < plan->count; i++) {
        struct worker_part *part = &plan->parts[i];
        size_t most = count - tokens;
        if (i + 1 < plan->count && plan->known[i + 1]->first - tokens < most) {
            most = plan->known[i + 1]->first - tokens;
        }
        part->at = plan->known[i]->first;
        part->tokens = tokens == part->at
                           ? common(&part->kept->cube, f->prompt->ids.ids + first + tokens, most)
                           : 0;
        tokens += part->tokens;
    }
    return tokens;
}

/* Fetch them, check them, and see how many of `count` ids from `first` on they hold. */
static enum memos_status plan_make(struct finding *f, struct plan *plan, size_t first, size_t count,
    size_t expected, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    size_t i = 0;
    for (; i < plan->count && status == MEMOS_OK; i++) {
        status = part_make(f, plan->known[i], &plan->parts[i], err);
        if (status == MEMOS_OK) {
            status = link_check(plan, i, err);
        }
    }
    if (status == MEMOS_OK) {
        const size_t tokens = plan_tokens(f, plan, first, count);
        if (tokens < KERN_PAGE_TOKENS && tokens < expected) {
            status = memos_fail(err, MEMOS_CORRUPT, "it is of other tokens than it says");
        }
    }
    if (status != MEMOS_OK) {
        refuse(f->memory, plan->known[i - 1], status, err);
    }
    return status;
}

/* The captures that this one continues, and itself. */
static enum memos_status plan_begin(
    struct finding *f, const struct worker_known *known, struct plan *plan, struct memos_error *err)
{
    const struct worker_known *backwards[WORKER_CHAIN_MAX];
    size_t count = 0;
    *plan = (struct plan){.count = 0};
    for (; known && count < WORKER_CHAIN_MAX; count++) {
        backwards[count] = known;
        known = known->first > 0 ? worker_known_base(f->view, known) : NULL;
    }
    if (backwards[count - 1]->first > 0) {
        return memos_fail(err, MEMOS_NOT_FOUND, "what it continues is not there, or does not hold");
    }
    while (plan->count < count) {
        known = backwards[count - 1 - plan->count];
        struct worker_part *part = &plan->parts[plan->count];
        plan->known[plan->count++] = known;
        part->ref = known->ref;
        if (is_refused(f->memory, known, err)) {
            return err->status;
        }
        part->source = source_of(f, known, &part->kept);
    }
    return MEMOS_OK;
}

static void plan_release(struct finding *f, struct plan *plan)
{
    for (size_t i = 0; i < plan->count; i++) {
        worker_cache_release(f->memory->cache, plan->parts[i].kept);
    }
    *plan = (struct plan){.count = 0};
}

/* What the capture is wanted for is `count` ids of the prompt from `first` on. How many of them it
 * holds, with those that it continues; 0: it is not taken, and *plan holds nothing. */
static size_t plan_take(struct finding *f, const struct worker_known *known, size_t first,
    size_t count, size_t expected, struct plan *plan)
{
    struct memos_error err = {0};
    char ref[WORKER_REF_TEXT_BYTES];
    size_t tokens = 0;
    f->is_tried[known - f->view->items] = true;
    enum memos_status status = plan_begin(f, known, plan, &err);
    if (status == MEMOS_OK && is_worth_it(f, plan, expected)) {
        status = plan_make(f, plan, first, count, expected, &err);
        for (size_t i = 0; i < plan->count && status == MEMOS_OK; i++) {
            tokens += plan->parts[i].tokens;
        }
    }
    if (status != MEMOS_OK) {
        worker_note(&f->own->notes, "capture %s was not used: %s",
            worker_ref_text(&known->ref, ref), err.text);
    }
    if (tokens == 0) {
        plan_release(f, plan);
    }
    return tokens;
}

static void find_prefix(struct finding *f)
{
    struct worker_chain *prefix = &f->own->prefix;
    for (int i = 0; i < TRIES && prefix->count == 0; i++) {
        size_t tokens;
        struct plan plan;
        const struct worker_known *known = best_of(f, &tokens);
        if (!known) {
            return;
        }
        f->own->covered = tokens > f->own->covered ? tokens : f->own->covered;
        prefix->tokens = plan_take(f, known, 0, f->blocks * KERN_PAGE_TOKENS, tokens, &plan);
        prefix->count = plan.count;
        memcpy(prefix->parts, plan.parts, sizeof plan.parts);
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
        struct plan plan;
        const size_t tokens = known ? plan_take(f, known, placed->body, count, count, &plan) : 0;
        if (tokens == count) {
            struct worker_part *part = &own->apart[own->apart_count++];
            *part = plan.parts[0];
            part->placed = i;
        } else if (tokens > 0) {
            plan_release(f, &plan);
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
    const bool loads_none = own->captures == 1;
    if ((loads_none && !own->wants_capture) || !own->space[0] || !own->texts.has_moment) {
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
        find_base(&f);
        if (loads_none) {
            (void)best_of(&f, &own->covered); /* what is there is not captured again */
        } else {
            find_prefix(&f);
        }
        if (own->is_independent && !loads_none) {
            find_apart(&f);
        }
    }
    worker_view_release(memory->catalogue, f.view);
}

void worker_fusion_release(struct worker_memory *memory, struct worker_prompt *prompt)
{
    struct worker_prompt_private *own = prompt->own;
    for (size_t i = 0; i < own->prefix.count; i++) {
        worker_cache_release(memory->cache, own->prefix.parts[i].kept);
    }
    own->prefix.count = 0;
    for (size_t i = 0; i < own->apart_count; i++) {
        worker_cache_release(memory->cache, own->apart[i].kept);
    }
    own->apart_count = 0;
}

bool worker_memory_has_later(const struct worker_prompt *prompt)
{
    return prompt->own->later_count > 0;
}

void worker_memory_bring_later(struct worker_memory *memory, const struct worker_host *host,
    const struct worker_fetch *fetch, struct worker_prompt *prompt)
{
    struct worker_prompt_private *own = prompt->own;
    struct finding f = {
        .memory = memory, .host = host, .fetch = fetch, .prompt = prompt, .own = own};
    while (own->later_count > 0) {
        const struct worker_known *later = &own->later[--own->later_count];
        struct worker_part part = {.kept = worker_cache_hold(memory->cache, later->hash)};
        if (!part.kept && fetch_kept(&f, later, &part, NULL) != MEMOS_OK) {
            continue; /* the next answer will say why */
        }
        worker_cache_release(memory->cache, part.kept);
    }
}
