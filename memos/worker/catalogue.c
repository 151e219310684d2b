#include "memos/worker/catalogue.h"

#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VIEWS_MAX = 256, KNOWN_MAX = 1000, ARENA_BYTES_MAX = 64 << 20 };

/* ---- keys ------------------------------------------------------------------------------------ */

struct paramem_key *worker_keys_of(struct memos_arena *arena, const uint8_t fingerprint[32],
    enum kern_dtype dtype, const uint32_t *ids, size_t count, size_t *out_blocks)
{
    const size_t blocks = count / KERN_PAGE_TOKENS;
    struct paramem_key *keys = memos_arena_take(arena, blocks + 1, sizeof *keys);
    struct paramem_key key = paramem_kv_root_of(fingerprint, dtype);
    for (size_t i = 0; i < blocks && keys; i++) {
        key = paramem_kv_key(&key, ids + i * KERN_PAGE_TOKENS);
        keys[i] = key;
    }
    *out_blocks = keys ? blocks : 0;
    return keys;
}

struct paramem_key worker_key_of(
    const uint8_t fingerprint[32], enum kern_dtype dtype, const uint32_t *ids, size_t count)
{
    struct paramem_key key = paramem_kv_root_of(fingerprint, dtype);
    size_t at = 0;
    memos_assert(count > 0);
    for (; at + KERN_PAGE_TOKENS <= count; at += KERN_PAGE_TOKENS) {
        key = paramem_kv_key(&key, ids + at);
    }
    return at < count ? paramem_kv_key_of(&key, ids + at, count - at) : key;
}

size_t worker_known_covers(
    const struct worker_known *known, const struct paramem_key *keys, size_t blocks)
{
    const size_t whole = known->tokens / KERN_PAGE_TOKENS;
    const bool is_whole = known->tokens % KERN_PAGE_TOKENS == 0;
    size_t covered = 0;
    if (is_whole && whole > 0 && whole <= blocks &&
        memcmp(keys[whole - 1].bytes, known->key.bytes, PARAMEM_KEY_BYTES) == 0) {
        return known->tokens;
    }
    for (size_t i = 0; i < known->marks_count; i++) {
        const size_t block = (i + 1) * known->stride;
        if (block > whole || block > blocks ||
            memcmp(keys[block - 1].bytes, known->marks + i * WORKER_MARK_BYTES,
                WORKER_MARK_BYTES) != 0) {
            break;
        }
        covered = block * KERN_PAGE_TOKENS;
    }
    return covered;
}

/* ---- chains ---------------------------------------------------------------------------------- */

const struct worker_known *worker_known_base(
    const struct worker_view *view, const struct worker_known *known)
{
    for (size_t i = 0; known->first > 0 && i < view->count; i++) {
        const struct worker_known *base = &view->items[i];
        if (memos_id_equal(&base->ref.id, &known->base.id) && base->dtype == known->dtype &&
            !base->is_stale && base->first < known->first && base->tokens >= known->first) {
            return base;
        }
    }
    return NULL;
}

/* How many captures it is, itself among them; 0: one of them is not there. */
static size_t chain_length(const struct worker_view *view, const struct worker_known *known)
{
    size_t length = 1;
    while (known && known->first > 0 && length < WORKER_CHAIN_MAX) {
        known = worker_known_base(view, known);
        length++;
    }
    return known && known->first == 0 ? length : 0;
}

/* Its cubes, among these in their order. That it is not stale says that they are as they were. */
static bool are_among(
    const struct worker_known *known, const struct memcube_ref *sources, size_t sources_count)
{
    size_t found = 0;
    for (size_t i = 0; i < sources_count && found < known->sources_count; i++) {
        found += memos_id_equal(&known->sources[found].id, &sources[i].id);
    }
    return found == known->sources_count;
}

bool worker_base_find(const struct worker_view *view, enum kern_dtype dtype,
    const struct paramem_key *keys, size_t blocks, const struct memcube_ref *sources,
    size_t sources_count, struct worker_base *out)
{
    size_t length = 0;
    *out = (struct worker_base){.tokens = 0};
    for (size_t i = 0; i < view->count; i++) {
        const struct worker_known *known = &view->items[i];
        const size_t tokens =
            known->is_stale || known->dtype != dtype ? 0 : worker_known_covers(known, keys, blocks);
        if (tokens > out->tokens && tokens > known->first &&
            tokens >= (size_t)WORKER_BASE_BLOCKS * KERN_PAGE_TOKENS &&
            are_among(known, sources, sources_count)) {
            const size_t own = chain_length(view, known);
            if (own == 0) {
                continue; /* a part of it is not there */
            }
            length = own;
            *out = (struct worker_base){.ref = known->ref, .tokens = tokens};
            memcpy(out->hash, known->hash, sizeof known->hash);
        }
    }
    if (length == WORKER_CHAIN_MAX) { /* all of it once more, which the next ones continue */
        out->tokens = 0;
    }
    return out->tokens > 0;
}

/* ---- what a cube says ------------------------------------------------------------------------ */

static int digit_of(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Exactly `count` bytes, or false. */
static bool unhex(const char *text, size_t count, uint8_t *out)
{
    for (size_t i = 0; i < count; i++) {
        const int high = digit_of(text[2 * i]);
        const int low = high >= 0 ? digit_of(text[2 * i + 1]) : -1;
        if (low < 0) {
            return false;
        }
        out[i] = (uint8_t)(high << 4 | low);
    }
    return text[2 * count] == '\0';
}

static void tag_of(const uint8_t fingerprint[32], char out[WORKER_TAG_BYTES])
{
    memcpy(out, "kv:", 3);
    (void)sodium_bin2hex(out + 3, WORKER_TAG_BYTES - 3, fingerprint, 8);
}

enum memos_status worker_description_make(const uint8_t fingerprint[32],
    const struct paramem_capture *capture, struct worker_description *out, struct memos_error *err)
{
    const size_t whole = capture->count / KERN_PAGE_TOKENS;
    const size_t stride = whole > 0 ? (whole + WORKER_MARKS_MAX - 1) / WORKER_MARKS_MAX : 1;
    const struct paramem_key last =
        worker_key_of(fingerprint, capture->dtype, capture->ids, capture->count);
    struct paramem_key key = paramem_kv_root_of(fingerprint, capture->dtype);
    *out = (struct worker_description){.dtype = kern_dtype_name(capture->dtype),
        .marks = memos_buffer_make(2 * WORKER_MARK_BYTES * WORKER_MARKS_MAX + 1)};
    memcpy(out->external_id, "kv:", 3);
    (void)sodium_bin2hex(
        out->external_id + 3, sizeof out->external_id - 3, last.bytes, sizeof last.bytes);
    tag_of(fingerprint, out->tag);
    (void)sodium_bin2hex(out->model, sizeof out->model, fingerprint, 32);
    (void)snprintf(out->tokens, sizeof out->tokens, "%zu", capture->count);
    (void)snprintf(out->stride, sizeof out->stride, "%zu", stride);
    (void)snprintf(out->first, sizeof out->first, "%zu", capture->first);
    for (size_t block = 1; block <= whole; block++) {
        char mark[2 * WORKER_MARK_BYTES + 1];
        key = paramem_kv_key(&key, capture->ids + (block - 1) * KERN_PAGE_TOKENS);
        (void)sodium_bin2hex(mark, sizeof mark, key.bytes, WORKER_MARK_BYTES);
        memos_buffer_bytes(
            &out->marks, mark, block % stride == 0 ? 2 * (size_t)WORKER_MARK_BYTES : 0);
    }
    memos_buffer_u8(&out->marks, 0);
    return out->marks.failed ? memos_fail(err, MEMOS_NO_MEMORY, "no memory for marks of a capture")
                             : MEMOS_OK;
}

void worker_description_free(struct worker_description *description)
{
    memos_buffer_free(&description->marks);
}

static bool is_of_model(const Memos__Cube *cube, const uint8_t fingerprint[32])
{
    char model[2 * 32 + 1];
    (void)sodium_bin2hex(model, sizeof model, fingerprint, 32);
    return cube->model.len == sizeof model - 1 &&
           memcmp(cube->model.data, model, sizeof model - 1) == 0;
}

static const char *attribute(const Memos__Cube *cube, const char *name)
{
    for (size_t i = 0; i < cube->n_attributes; i++) {
        if (strcmp(cube->attributes[i]->name, name) == 0) {
            return cube->attributes[i]->value;
        }
    }
    return "";
}

static bool number_of(const char *text, size_t max, size_t *out)
{
    size_t value = 0;
    if (!*text) {
        return false;
    }
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || value > max / 10) {
            return false;
        }
        value = value * 10 + (size_t)(*text - '0');
    }
    *out = value;
    return value > 0 && value <= max;
}

static bool marks_read(const char *text, struct memos_arena *arena, struct worker_known *out)
{
    const size_t digits = strlen(text);
    const size_t count = digits / (2 * WORKER_MARK_BYTES);
    if (digits % (2 * WORKER_MARK_BYTES) != 0 || count > WORKER_MARKS_MAX) {
        return false;
    }
    uint8_t *marks = memos_arena_take(arena, count + 1, WORKER_MARK_BYTES);
    out->marks = marks;
    out->marks_count = count;
    return marks && unhex(text, count * WORKER_MARK_BYTES, marks);
}

static bool sources_read(
    const Memos__Cube *cube, struct memos_arena *arena, struct worker_known *out)
{
    struct memcube_ref *sources =
        memos_arena_take(arena, cube->n_derived_from + 1, sizeof *sources);
    for (size_t i = 0; i < cube->n_derived_from && sources; i++) {
        sources[i].number = cube->derived_from[i]->number;
        if (!worker_id_of(cube->derived_from[i]->id, &sources[i].id)) {
            return false;
        }
    }
    out->sources = sources;
    out->sources_count = cube->n_derived_from;
    return sources != NULL;
}

/* The base is the last source. */
static bool base_read(const Memos__Cube *cube, struct worker_known *out)
{
    const char *first = attribute(cube, "first");
    if (!first[0] || strcmp(first, "0") == 0) {
        return true;
    }
    if (!number_of(first, PARAMEM_KV_CUBE_TOKENS_MAX, &out->first) || out->sources_count == 0 ||
        out->first >= out->tokens || out->first % KERN_PAGE_TOKENS != 0) {
        return false;
    }
    out->base = out->sources[--out->sources_count];
    return true;
}

/* False: it is no capture of this model as this file describes them. */
static bool known_read(const Memos__Cube *cube, const uint8_t fingerprint[32],
    struct memos_arena *arena, struct worker_known *out)
{
    *out = (struct worker_known){.ref.number = cube->number,
        .bytes = cube->payload_bytes,
        .is_stale = cube->stale,
        .is_independent = strcmp(attribute(cube, "form"), "independent") == 0,
        .dtype = kern_dtype_of(memos_bytes_of(attribute(cube, "dtype")))};
    return cube->kind == MEMCUBE_ACTIVATION && is_of_model(cube, fingerprint) &&
           worker_id_of(cube->id, &out->ref.id) && worker_hash_of(cube->payload_hash, out->hash) &&
           (out->dtype == KERN_F32 || out->dtype == KERN_F16 || out->dtype == KERN_BF16 ||
               out->dtype == KERN_E4M3) &&
           number_of(attribute(cube, "tokens"), PARAMEM_KV_CUBE_TOKENS_MAX, &out->tokens) &&
           number_of(attribute(cube, "stride"), PARAMEM_KV_CUBE_TOKENS_MAX, &out->stride) &&
           strncmp(cube->external_id, "kv:", 3) == 0 &&
           unhex(cube->external_id + 3, PARAMEM_KEY_BYTES, out->key.bytes) &&
           marks_read(attribute(cube, "marks"), arena, out) && sources_read(cube, arena, out) &&
           base_read(cube, out);
}

/* ---- views ----------------------------------------------------------------------------------- */

struct view {
    struct worker_view view; /* first: what is given out */
    struct memos_arena arena;
    size_t holders; /* Sync: the catalogue's lock */
};

struct place {
    struct view *view; /* NULL: the place is free */
    char space[MEMCUBE_SPACE_BYTES_MAX + 1];
    char principal[MEMCUBE_NAME_BYTES_MAX + 1];
    uint8_t fingerprint[32];
    uint64_t seq, used;
};

struct worker_catalogue {
    pthread_mutex_t lock; /* Sync: of all below */
    struct place places[VIEWS_MAX];
    uint64_t uses;
};

enum memos_status worker_catalogue_create(struct worker_catalogue **out, struct memos_error *err)
{
    struct worker_catalogue *catalogue = calloc(1, sizeof *catalogue);
    *out = NULL;
    if (!catalogue || pthread_mutex_init(&catalogue->lock, NULL) != 0) {
        free(catalogue);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a catalogue of captures");
    }
    *out = catalogue;
    return MEMOS_OK;
}

static void view_free(struct view *view)
{
    memos_arena_finish(&view->arena);
    free(view);
}

/* Under the lock. */
static void let_go(struct view *view)
{
    memos_assert(view->holders > 0);
    if (--view->holders == 0) {
        view_free(view);
    }
}

void worker_view_release(struct worker_catalogue *catalogue, const struct worker_view *view)
{
    if (view) {
        (void)pthread_mutex_lock(&catalogue->lock);
        let_go((struct view *)(uintptr_t)view);
        (void)pthread_mutex_unlock(&catalogue->lock);
    }
}

void worker_catalogue_destroy(struct worker_catalogue **catalogue)
{
    struct worker_catalogue *own = *catalogue;
    *catalogue = NULL;
    if (!own) {
        return;
    }
    for (size_t i = 0; i < VIEWS_MAX; i++) {
        if (own->places[i].view) {
            let_go(own->places[i].view);
        }
    }
    (void)pthread_mutex_destroy(&own->lock);
    free(own);
}

/* Under the lock: the place of this, or the one to take for it. */
static struct place *place_find(struct worker_catalogue *catalogue, const char *space,
    const char *principal, const uint8_t fingerprint[32], bool *out_is_its)
{
    struct place *oldest = &catalogue->places[0];
    for (size_t i = 0; i < VIEWS_MAX; i++) {
        struct place *place = &catalogue->places[i];
        if (place->view && strcmp(place->space, space) == 0 &&
            strcmp(place->principal, principal) == 0 &&
            memcmp(place->fingerprint, fingerprint, 32) == 0) {
            *out_is_its = true;
            return place;
        }
        oldest = place->used < oldest->used ? place : oldest;
    }
    *out_is_its = false;
    return oldest;
}

/* ---- asking ---------------------------------------------------------------------------------- */

static enum memos_status ask(const struct worker_fetch *fetch, const char *space, char *tag,
    struct memos_message **out, struct memos_error *err)
{
    uint32_t kind = MEMCUBE_ACTIVATION;
    char subtype[] = WORKER_KV_SUBTYPE, *subtypes[] = {subtype}, *tags[] = {tag};
    Memos__Filter filter = MEMOS__FILTER__INIT;
    Memos__List body = MEMOS__LIST__INIT;
    Memos__Request request;
    filter.kinds = &kind;
    filter.n_kinds = 1;
    filter.subtypes = subtypes;
    filter.n_subtypes = 1;
    filter.tags = tags;
    filter.n_tags = 1;
    filter.include_stale = true;
    body.space = (char *)(uintptr_t)space;
    body.filter = &filter;
    body.count_max = KNOWN_MAX;
    WORKER_REQUEST(request, LIST, list, body);
    return worker_ask(fetch, &request, NULL, 0, MEMOS__REPLY__BODY_CUBES, out, err);
}

static enum memos_status view_fill(const struct worker_fetch *fetch, const char *space,
    const uint8_t fingerprint[32], struct view *view, struct memos_error *err)
{
    struct memos_message *message = NULL;
    char tag[WORKER_TAG_BYTES];
    tag_of(fingerprint, tag);
    enum memos_status status = ask(fetch, space, tag, &message, err);
    if (status != MEMOS_OK) {
        return status;
    }
    const Memos__Cubes *cubes = memos_message_reply(message)->cubes;
    struct worker_known *items = memos_arena_take(&view->arena, cubes->n_cubes + 1, sizeof *items);
    if (!items) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for a list of captures");
    }
    for (size_t i = 0; i < cubes->n_cubes && items; i++) {
        if (known_read(cubes->cubes[i], fingerprint, &view->arena, &items[view->view.count])) {
            view->view.count++;
        } else {
            view->view.not_read++;
        }
    }
    view->view.items = items;
    view->view.not_read += cubes->next != 0; /* there are more */
    memos_message_free(&message);
    return status;
}

static enum memos_status view_make(const struct worker_fetch *fetch, const char *space,
    const uint8_t fingerprint[32], struct view **out, struct memos_error *err)
{
    struct view *view = calloc(1, sizeof *view);
    if (!view) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a list of captures");
    }
    memos_arena_init(&view->arena, ARENA_BYTES_MAX);
    enum memos_status status = view_fill(fetch, space, fingerprint, view, err);
    if (status == MEMOS_OK) {
        *out = view;
    } else {
        view_free(view);
    }
    return status;
}

enum memos_status worker_catalogue_view(struct worker_catalogue *catalogue,
    const struct worker_fetch *fetch, const char *space, const uint8_t fingerprint[32],
    uint64_t seq, const struct worker_view **out, bool *out_is_new, struct memos_error *err)
{
    const char *principal = fetch->principal ? fetch->principal : "";
    struct view *view = NULL;
    bool is_its = false;
    *out = NULL;
    *out_is_new = false;
    if (strlen(space) > MEMCUBE_SPACE_BYTES_MAX || strlen(principal) > MEMCUBE_NAME_BYTES_MAX) {
        return memos_fail(err, MEMOS_INVALID, "the name of a space or principal is too long");
    }
    (void)pthread_mutex_lock(&catalogue->lock);
    struct place *place = place_find(catalogue, space, principal, fingerprint, &is_its);
    if (is_its && seq != 0 && place->seq == seq) {
        view = place->view;
        view->holders++;
        place->used = ++catalogue->uses;
    }
    (void)pthread_mutex_unlock(&catalogue->lock);
    if (view) {
        *out = &view->view;
        return MEMOS_OK;
    }
    enum memos_status status = view_make(fetch, space, fingerprint, &view, err);
    if (status != MEMOS_OK) {
        return status;
    }
    view->holders = 1;
    (void)pthread_mutex_lock(&catalogue->lock);
    place = place_find(catalogue, space, principal, fingerprint, &is_its);
    if (seq != 0 && (!is_its || place->seq <= seq)) {
        if (place->view) {
            let_go(place->view);
        }
        *place = (struct place){.view = view, .seq = seq, .used = ++catalogue->uses};
        memcpy(place->space, space, strlen(space) + 1);
        memcpy(place->principal, principal, strlen(principal) + 1);
        memcpy(place->fingerprint, fingerprint, 32);
        view->holders++;
    }
    (void)pthread_mutex_unlock(&catalogue->lock);
    *out = &view->view;
    *out_is_new = true;
    return MEMOS_OK;
}
