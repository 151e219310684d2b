#include "memos/worker/texts.h"

#include <stdlib.h>
#include <string.h>

enum { TOP_K_PRESET = 20, TOP_K_MAX = 200, QUERY_BYTES_MAX = 32 * 1024, ALIKE_WORDS_MAX = 512 };

#define ALIKE_SHARE 0.9

/* ---- one text -------------------------------------------------------------------------------- */

static enum memos_status fail_full(struct memos_error *err)
{
    return memos_fail(err, MEMOS_NO_MEMORY, "no memory for the texts of a prompt");
}

static bool readers_copy(
    const Memos__Cube *cube, struct memos_arena *arena, struct worker_recalled *t)
{
    t->readers = memos_arena_take(arena, cube->n_readers, sizeof *t->readers);
    for (size_t i = 0; i < cube->n_readers && t->readers; i++) {
        t->readers[i] = memos_arena_copy(arena, memos_bytes_of(cube->readers[i]));
        if (!t->readers[i]) {
            return false;
        }
    }
    t->readers_count = cube->n_readers;
    return cube->n_readers == 0 || t->readers;
}

/* INVALID: the cube has no words. */
static enum memos_status text_of(const Memos__Cube *cube, const struct memos_message *message,
    struct memos_arena *arena, struct worker_recalled *out, struct memos_error *err)
{
    const struct memos_bytes payload = memos_message_frame(message, cube->frame);
    char ref[WORKER_REF_TEXT_BYTES];
    *out = (struct worker_recalled){.ref.number = cube->number,
        .event_us = cube->event_us != 0 ? cube->event_us : cube->time_us};
    if (!worker_id_of(cube->id, &out->ref.id) || !worker_hash_of(cube->payload_hash, out->hash)) {
        return memos_fail(err, MEMOS_CORRUPT, "a cube without id or hash");
    }
    if (cube->kind != MEMCUBE_PLAINTEXT || cube->frame == 0 || !memos_bytes_utf8(payload)) {
        return memos_fail(err, MEMOS_INVALID, "%s is no text", worker_ref_text(&out->ref, ref));
    }
    out->words = memos_bytes_make(memos_arena_copy(arena, payload), payload.size);
    out->speaker = memos_bytes_of(cube->speaker);
    out->speaker.data = memos_arena_copy(arena, out->speaker);
    return out->words.data && out->speaker.data && readers_copy(cube, arena, out) ? MEMOS_OK
                                                                                  : fail_full(err);
}

/* ---- texts that say the same ----------------------------------------------------------------- */

static int by_hash(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static bool is_word(uint8_t byte)
{
    return byte >= 0x80 || (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') ||
           (byte >= 'A' && byte <= 'Z');
}

/* Hashes (FNV-1a) of the first words, sorted, each once. */
static size_t words_of(struct memos_bytes text, uint32_t out[ALIKE_WORDS_MAX])
{
    const uint8_t *bytes = text.data;
    size_t count = 0, kept = 0;
    for (size_t i = 0; i < text.size && count < ALIKE_WORDS_MAX;) {
        uint32_t hash = 2166136261u;
        size_t begin = i;
        for (; i < text.size && is_word(bytes[i]); i++) {
            const uint8_t low = bytes[i] >= 'A' && bytes[i] <= 'Z' ? bytes[i] | 0x20 : bytes[i];
            hash = (hash ^ low) * 16777619u;
        }
        if (i > begin) {
            out[count++] = hash;
        } else {
            i++;
        }
    }
    qsort(out, count, sizeof *out, by_hash);
    for (size_t i = 0; i < count; i++) {
        if (kept == 0 || out[kept - 1] != out[i]) {
            out[kept++] = out[i];
        }
    }
    return kept;
}

bool worker_texts_alike(struct memos_bytes a, struct memos_bytes b)
{
    uint32_t first[ALIKE_WORDS_MAX], second[ALIKE_WORDS_MAX];
    const size_t larger = a.size > b.size ? a.size : b.size;
    const size_t smaller = a.size > b.size ? b.size : a.size;
    if (memos_bytes_equal(a, b)) {
        return true;
    }
    if (smaller < larger / 2) {
        return false;
    }
    const size_t n = words_of(a, first), m = words_of(b, second);
    size_t common = 0;
    for (size_t i = 0, j = 0; i < n && j < m;) {
        if (first[i] == second[j]) {
            common++;
            i++;
            j++;
        } else if (first[i] < second[j]) {
            i++;
        } else {
            j++;
        }
    }
    const size_t all = n + m - common;
    return all > 0 && (double)common >= ALIKE_SHARE * (double)all;
}

/* Is it there already, or said by one that stands before it? */
static bool is_told(const struct worker_texts *texts, const struct worker_recalled *text,
    struct worker_notes *notes)
{
    char ref[WORKER_REF_TEXT_BYTES], other[WORKER_REF_TEXT_BYTES];
    for (size_t i = 0; i < texts->count; i++) {
        const struct worker_recalled *item = &texts->items[i];
        if (memos_id_equal(&item->ref.id, &text->ref.id)) {
            return true;
        }
        const bool same_time = item->event_us == text->event_us;
        if (memcmp(item->hash, text->hash, sizeof item->hash) == 0 ||
            (same_time && worker_texts_alike(item->words, text->words))) {
            worker_note(notes, "%s says what %s says", worker_ref_text(&text->ref, ref),
                worker_ref_text(&item->ref, other));
            return true;
        }
    }
    return false;
}

/* ---- the search ------------------------------------------------------------------------------ */

/* The client has it in its messages already. */
static bool is_known(const Memos__Memory *memory, const struct memos_id *id)
{
    for (size_t i = 0; i < memory->n_without; i++) {
        if (memory->without[i].len == sizeof id->bytes &&
            memcmp(memory->without[i].data, id->bytes, sizeof id->bytes) == 0) {
            return true;
        }
    }
    return false;
}

static enum memos_status hits_take(const struct memos_message *message, const Memos__Memory *memory,
    struct memos_arena *arena, struct worker_notes *notes, struct worker_texts *texts,
    struct memos_error *err)
{
    const Memos__Hits *hits = memos_message_reply(message)->hits;
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; i < hits->n_hits && status == MEMOS_OK; i++) {
        const Memos__Cube *cube = hits->hits[i]->cube;
        struct worker_recalled *text = &texts->items[texts->count];
        if (!cube || strcmp(cube->subtype, "receipt") == 0) {
            continue;
        }
        status = text_of(cube, message, arena, text, err);
        if (status == MEMOS_INVALID) {
            char ref[WORKER_REF_TEXT_BYTES];
            worker_note(notes, "%s is no text", worker_ref_text(&text->ref, ref));
            status = MEMOS_OK;
            continue;
        }
        text->score = hits->hits[i]->score;
        if (status == MEMOS_OK && !is_known(memory, &text->ref.id) &&
            !is_told(texts, text, notes)) {
            texts->count++;
        }
    }
    return status;
}

static size_t top_k_of(const Memos__Memory *memory)
{
    const size_t top_k = memory->top_k > 0 ? memory->top_k : TOP_K_PRESET;
    return top_k < TOP_K_MAX ? top_k : TOP_K_MAX;
}

/* A question that is too long for a search is cut: its end says what is asked. */
static const char *query_of(const char *query)
{
    const size_t size = strlen(query);
    const char *at = size > QUERY_BYTES_MAX ? query + size - QUERY_BYTES_MAX : query;
    while ((*at & 0xc0) == 0x80) {
        at++;
    }
    return at;
}

static enum memos_status search(const struct worker_fetch *fetch, const char *space,
    const Memos__Memory *memory, const char *query, struct memos_message **out,
    struct memos_error *err)
{
    uint32_t plaintext = MEMCUBE_PLAINTEXT;
    Memos__Search body = MEMOS__SEARCH__INIT;
    Memos__Filter filter = MEMOS__FILTER__INIT;
    Memos__Request request;
    if (memory->filter) {
        filter = *memory->filter;
    }
    filter.kinds = &plaintext;
    filter.n_kinds = 1;
    body.space = (char *)(uintptr_t)space;
    body.text = (char *)(uintptr_t)(memory->search ? query_of(query) : "when");
    body.mode = memory->search ? 0 : 1;
    body.filter = &filter;
    body.as_of = memory->as_of;
    body.top_k = (uint32_t)top_k_of(memory);
    body.ids_only = !memory->search; /* only the moment is wanted */
    WORKER_REQUEST(request, SEARCH, search, body);
    return worker_ask(fetch, &request, NULL, 0, MEMOS__REPLY__BODY_HITS, out, err);
}

/* ---- named cubes ----------------------------------------------------------------------------- */

static enum memos_status get(const struct worker_fetch *fetch, const char *space,
    const struct memos_id *id, uint32_t number, uint64_t seq, bool no_payload,
    struct memos_message **out, struct memos_error *err)
{
    ProtobufCBinaryData ids = {.len = sizeof id->bytes, .data = (uint8_t *)(uintptr_t)id->bytes};
    Memos__Get body = MEMOS__GET__INIT;
    Memos__AsOf as_of = MEMOS__AS_OF__INIT;
    Memos__Request request;
    as_of.seq = seq;
    body.space = (char *)(uintptr_t)space;
    body.ids = &ids;
    body.n_ids = 1;
    body.number = number;
    body.as_of = seq > 0 ? &as_of : NULL;
    body.no_payload = no_payload;
    body.peek = no_payload;
    WORKER_REQUEST(request, GET, get, body);
    enum memos_status status =
        worker_ask(fetch, &request, NULL, 0, MEMOS__REPLY__BODY_CUBES, out, err);
    if (status == MEMOS_OK && memos_message_reply(*out)->cubes->n_cubes != 1) {
        memos_message_free(out);
        status = memos_fail(err, MEMOS_CORRUPT, "one cube was asked for, others came");
    }
    return status;
}

static bool state_stands(uint32_t state)
{
    return state != MEMCUBE_STATE_ARCHIVED && state != MEMCUBE_STATE_EXPIRED &&
           state != MEMCUBE_STATE_WITHDRAWN && state != MEMCUBE_STATE_FORGOTTEN;
}

/* An older version may be named; it is used when it says what the head says. */
static enum memos_status check_stands(
    const Memos__Cube *head, const struct worker_recalled *text, struct memos_error *err)
{
    char ref[WORKER_REF_TEXT_BYTES];
    if (head->stale || !state_stands(head->state)) {
        const char *state = head->stale ? "stale" : memcube_state_text((int)head->state);
        return memos_fail(err, MEMOS_STALE, "%s is %s", worker_ref_text(&text->ref, ref),
            state ? state : "in no state that is known");
    }
    if (head->payload_hash.len != sizeof text->hash ||
        memcmp(head->payload_hash.data, text->hash, sizeof text->hash) != 0) {
        return memos_fail(err, MEMOS_STALE, "%s does not stand: the cube is at version %u",
            worker_ref_text(&text->ref, ref), (unsigned)head->number);
    }
    return MEMOS_OK;
}

static enum memos_status named_take(const struct worker_fetch *fetch, const char *space,
    const struct memcube_ref *ref, struct memos_arena *arena, struct worker_texts *texts,
    struct memos_error *err)
{
    struct worker_recalled *text = &texts->items[texts->count];
    struct memos_message *message = NULL, *head = NULL;
    enum memos_status status =
        get(fetch, space, &ref->id, ref->number, texts->moment.seq, false, &message, err);
    if (status != MEMOS_OK) {
        return status;
    }
    const Memos__Cube *cube = memos_message_reply(message)->cubes->cubes[0];
    status = text_of(cube, message, arena, text, err);
    if (status == MEMOS_OK && ref->number != 0) {
        status = get(fetch, space, &ref->id, 0, texts->moment.seq, true, &head, err);
        cube = status == MEMOS_OK ? memos_message_reply(head)->cubes->cubes[0] : cube;
    }
    if (status == MEMOS_OK) {
        status = check_stands(cube, text, err);
    }
    if (status == MEMOS_OK) {
        text->is_named = true;
        texts->count++;
    }
    memos_message_free(&head);
    memos_message_free(&message);
    return status;
}

static bool is_there(const struct worker_texts *texts, const struct memos_id *id)
{
    for (size_t i = 0; i < texts->count; i++) {
        if (memos_id_equal(&texts->items[i].ref.id, id)) {
            return true;
        }
    }
    return false;
}

static enum memos_status named_all(const struct worker_fetch *fetch, const char *space,
    const Memos__Memory *memory, struct memos_arena *arena, struct worker_texts *texts,
    struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; i < memory->n_cubes && status == MEMOS_OK; i++) {
        struct memcube_ref ref = {.number = memory->cubes[i]->number};
        if (!worker_id_of(memory->cubes[i]->id, &ref.id)) {
            return memos_fail(err, MEMOS_INVALID, "a named cube's id has %zu bytes, not 16",
                memory->cubes[i]->id.len);
        }
        if (!is_there(texts, &ref.id)) {
            status = named_take(fetch, space, &ref, arena, texts, err);
        }
    }
    return status;
}

/* ---- all of them ----------------------------------------------------------------------------- */

/* The moment: the one that was searched, or the newest. */
static enum memos_status moment_find(const struct worker_fetch *fetch, const char *space,
    const struct memos_message *hits, struct worker_texts *out, struct memos_error *err)
{
    const uint64_t seq = hits ? memos_message_reply(hits)->hits->seq : 0;
    enum memos_status status = MEMOS_OK;
    if (!hits || seq > 0) {
        status = worker_moment_ask(fetch, space, seq, &out->moment, err);
    }
    out->has_moment = status == MEMOS_OK;
    return status;
}

static enum memos_status find(const struct worker_fetch *fetch, const char *space,
    const Memos__Memory *memory, const char *query, struct memos_arena *arena,
    struct worker_notes *notes, struct worker_texts *out, struct memos_error *err)
{
    struct memos_message *hits = NULL;
    enum memos_status status = MEMOS_OK;
    if ((memory->search && query[0]) || memory->as_of) {
        status = search(fetch, space, memory, query, &hits, err);
    }
    if (status == MEMOS_OK) {
        status = moment_find(fetch, space, hits, out, err);
    }
    if (status == MEMOS_OK) {
        status = named_all(fetch, space, memory, arena, out, err);
    }
    if (status == MEMOS_OK && hits && memory->search) {
        status = hits_take(hits, memory, arena, notes, out, err);
    }
    memos_message_free(&hits);
    return status;
}

enum memos_status worker_texts_find(const struct worker_fetch *fetch, const char *space,
    const Memos__Memory *memory, const char *query, struct memos_arena *arena,
    struct worker_notes *notes, struct worker_texts *out, struct memos_error *err)
{
    const struct memos_clock clock = memos_clock_system();
    const int64_t begin_us = clock.mono_us(clock.self);
    const Memos__Memory none = MEMOS__MEMORY__INIT;
    *out = (struct worker_texts){0};
    memory = memory ? memory : &none;
    out->is_past = memory->as_of && (memory->as_of->seq != 0 || memory->as_of->time_us != 0);
    out->items = memos_arena_take(arena, memory->n_cubes + TOP_K_MAX + 1, sizeof *out->items);
    if (!out->items) {
        return fail_full(err);
    }
    if (memory->n_cubes > MEMCUBE_DERIVED_MAX) {
        return memos_fail(err, MEMOS_TOO_LARGE, "%zu cubes are named; at most %d are taken",
            memory->n_cubes, MEMCUBE_DERIVED_MAX);
    }
    if (memory->query && memory->query[0]) {
        query = memory->query;
    }
    enum memos_status status = find(fetch, space, memory, query, arena, notes, out, err);
    if (status == MEMOS_NOT_FOUND && memory->n_cubes == 0) {
        worker_note(notes, "there is no space %s, or nothing in it", space);
        out->count = 0;
        status = MEMOS_OK;
    }
    out->micros = (uint64_t)(clock.mono_us(clock.self) - begin_us);
    return status;
}

enum memos_status worker_texts_named(const struct worker_fetch *fetch, const char *space,
    const ProtobufCBinaryData *ids, size_t count, struct memos_arena *arena,
    struct worker_texts *out, struct memos_error *err)
{
    *out = (struct worker_texts){0};
    if (count > MEMCUBE_DERIVED_MAX) {
        return memos_fail(err, MEMOS_TOO_LARGE, "%zu cubes are named; at most %d are taken", count,
            MEMCUBE_DERIVED_MAX);
    }
    out->items = memos_arena_take(arena, count + 1, sizeof *out->items);
    if (!out->items) {
        return fail_full(err);
    }
    enum memos_status status = moment_find(fetch, space, NULL, out, err);
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        struct memcube_ref ref = {.number = 0};
        if (!worker_id_of(ids[i], &ref.id)) {
            return memos_fail(err, MEMOS_INVALID, "an id has %zu bytes, not 16", ids[i].len);
        }
        if (!is_there(out, &ref.id)) {
            status = named_take(fetch, space, &ref, arena, out, err);
        }
    }
    return status;
}
