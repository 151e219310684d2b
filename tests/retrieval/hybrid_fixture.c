#include "tests/retrieval/hybrid_fixture.h"

#include "retrieval/words.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const things[][6] = {
    {"dog", "puppy", "hound", "pet", "terrier"},
    {"car", "automobile", "vehicle", "driving", "sedan"},
    {"cook", "dinner", "meal", "kitchen", "recipe"},
    {"doctor", "hospital", "physician", "clinic", "nurse"},
    {"music", "song", "guitar", "concert", "piano"},
    {"sea", "beach", "ocean", "coast", "shore"},
    {"money", "salary", "wage", "pay", "income"},
};
#define THINGS (sizeof things / sizeof things[0])

static int thing_of(const struct retrieval_word *word)
{
    for (size_t i = 0; i < THINGS; i++) {
        for (size_t k = 0; k < 6 && things[i][k]; k++) {
            if (strlen(things[i][k]) == word->size &&
                memcmp(things[i][k], word->bytes, word->size) == 0) {
                return (int)i;
            }
        }
    }
    return -1;
}

void hybrid_encode(struct memos_bytes text, float out[HYBRID_DIMS])
{
    struct retrieval_words words;
    struct retrieval_word word;
    uint32_t hash = 2166136261u;
    double squares = 0.0;

    memset(out, 0, HYBRID_DIMS * sizeof *out);
    retrieval_words_init(&words, text, retrieval_language_of(memos_bytes_of("en")));
    while (retrieval_words_next(&words, &word)) {
        int thing = thing_of(&word);
        for (size_t i = 0; i < word.size; i++) {
            hash = (hash ^ word.bytes[i]) * 16777619u;
        }
        if (thing >= 0) {
            out[thing] += 1.0f;
        }
        /* Every other word moves the vector a little, somewhere. */
        out[THINGS + hash % (HYBRID_DIMS - THINGS)] += 0.2f;
    }
    out[HYBRID_DIMS - 1] += 0.05f;
    for (size_t i = 0; i < HYBRID_DIMS; i++) {
        squares += (double)(out[i] * out[i]);
    }
    for (size_t i = 0; i < HYBRID_DIMS; i++) {
        out[i] /= (float)sqrt(squares);
    }
}

static void open_all(struct hybrid *h)
{
    assert_ok(retrieval_create(
        &(struct retrieval_vectors_options){.folder = NULL}, &h->retrieval, fixture_error()));
    h->f.options.indexes = retrieval_indexes(h->retrieval, &h->f.options.indexes_count);
    fixture_open(&h->f);
}

static void close_all(struct hybrid *h)
{
    fixture_close(&h->f);
    retrieval_destroy(&h->retrieval);
}

void hybrid_make(struct hybrid *h)
{
    *h = (struct hybrid){.silent = false};
    fixture_make(&h->f);
    fixture_close(&h->f);
    open_all(h);
    memset(h->fingerprint, 7, sizeof h->fingerprint);
    assert_ok(retrieval_vectors_activate(retrieval_vectors_of(h->retrieval), fixture_write(&h->f),
        h->fingerprint, memos_bytes_of("things"), HYBRID_DIMS, fixture_error()));
    fixture_commit(&h->f);
}

void hybrid_drop(struct hybrid *h)
{
    close_all(h);
    folder_remove(h->f.path);
}

void hybrid_reopen(struct hybrid *h)
{
    close_all(h);
    open_all(h);
}

static void offer(struct hybrid *h, const struct memcube_draft *draft)
{
    struct retrieval_spans spans;
    struct memos_arena arena;
    float values[HYBRID_DIMS];

    memos_arena_init(&arena, (size_t)1 << 20);
    assert_ok(retrieval_spans_make(
        draft->kind, &draft->description, draft->payload, &arena, &spans, fixture_error()));
    assert_int_equal(spans.count, 1);
    hybrid_encode(spans.texts[0], values);
    assert_ok(retrieval_vectors_offer(
        retrieval_vectors_of(h->retrieval), h->fingerprint, &spans, values, fixture_error()));
    memos_arena_finish(&arena);
}

struct memcube_ref hybrid_put(struct hybrid *h, const struct hybrid_turn *turn)
{
    struct memcube_draft draft = draft_of(turn->text);
    struct memcube_attribute session = {memos_bytes_of("session"), memos_bytes_of(turn->session)};
    struct memos_bytes reader = memos_bytes_of(turn->reader), tag = memos_bytes_of(turn->tag);
    draft.description.attributes = &session;
    draft.description.attributes_count = turn->session ? 1 : 0;
    draft.description.speaker = memos_bytes_of(turn->speaker);
    draft.description.event_us = turn->event_us;
    draft.description.readers = &reader;
    draft.description.readers_count = turn->reader ? 1 : 0;
    draft.description.tags = &tag;
    draft.description.tags_count = turn->tag ? 1 : 0;
    draft.governance.priority = turn->priority;
    draft.governance.valid_to_us = turn->valid_to_us;
    draft.governance.valid_from_us = turn->valid_from_us;
    if (!h->silent) {
        offer(h, &draft);
    }
    return fixture_put_draft(&h->f, HYBRID_SPACE, &draft);
}

struct memcube_ref hybrid_edit(struct hybrid *h, const struct memos_id *id, const char *text)
{
    struct memcube_version head = fixture_get(&h->f, HYBRID_SPACE, id, 0);
    struct memcube_draft draft = draft_of(text);
    draft.description = head.description;
    if (!h->silent) {
        offer(h, &draft);
    }
    return fixture_update(&h->f, HYBRID_SPACE, id, text);
}

void hybrid_forget(struct hybrid *h, const struct memos_id *id)
{
    const struct memcube_change change = change_of(HYBRID_SPACE);
    struct memcube_outcome outcome;
    struct memcube_forgotten forgotten;
    assert_ok(memcube_forget(
        fixture_write(&h->f), &change, id, 1, false, false, &outcome, &forgotten, fixture_error()));
    fixture_commit(&h->f);
}

void hybrid_rollback(struct hybrid *h, uint64_t seq)
{
    const struct memcube_change change = change_of(HYBRID_SPACE);
    const struct memcube_rollback rollback = {.to = {.seq = seq}};
    struct memcube_outcome outcome;
    struct memcube_rollback_item *items;
    size_t items_count;
    assert_ok(memcube_rollback(
        fixture_write(&h->f), &change, &rollback, &outcome, &items, &items_count, fixture_error()));
    fixture_commit(&h->f);
}

uint64_t hybrid_seq(struct hybrid *h)
{
    return fixture_space(&h->f, HYBRID_SPACE).seq;
}

struct hybrid_found hybrid_ask(
    struct hybrid *h, const char *text, const struct retrieval_query *query, bool no_vector)
{
    struct hybrid_found found = {.count = 0};
    struct retrieval_query asked = query ? *query : (struct retrieval_query){.top_k = 0};
    struct memcube_read *read = fixture_read(&h->f);
    struct memcube_space space;
    float vector[HYBRID_DIMS];

    hybrid_encode(memos_bytes_of(text), vector);
    asked.text = memos_bytes_of(text);
    asked.top_k = asked.top_k ? asked.top_k : HYBRID_HITS;
    asked.vector = no_vector ? NULL : vector;
    asked.dims = no_vector ? 0 : HYBRID_DIMS;
    asked.fingerprint = no_vector ? NULL : h->fingerprint;
    assert_ok(memcube_space_find(read, memos_bytes_of(HYBRID_SPACE), &space, fixture_error()));
    assert_ok(retrieval_search(h->retrieval, read, &space, &asked, found.hits, &found.count,
        &found.report, fixture_error()));
    for (size_t i = 0; i < found.count; i++) {
        struct memcube_version version;
        assert_ok(memcube_version_of_doc(
            read, &space, found.hits[i].doc, &asked.as_of, &version, fixture_error()));
        found.ids[i] = version.id;
    }
    return found;
}

int hybrid_place(const struct hybrid_found *found, struct memcube_ref ref)
{
    for (size_t i = 0; i < found->count; i++) {
        if (memcmp(found->ids[i].bytes, ref.id.bytes, sizeof ref.id.bytes) == 0) {
            return (int)i;
        }
    }
    return -1;
}

static void append_text(struct hybrid *h, struct memcube_read *read,
    const struct memcube_space *space, uint32_t doc, const struct memcube_as_of *as_of, char *out,
    size_t room)
{
    struct memcube_version version;
    struct memos_bytes payload;
    size_t used = strlen(out);
    (void)h;
    assert_ok(memcube_version_of_doc(read, space, doc, as_of, &version, fixture_error()));
    assert_ok(memcube_payload_get(read, space, &version, true, &payload, fixture_error()));
    (void)snprintf(out + used, room - used, "%.*s ", (int)payload.size, (const char *)payload.data);
}

const char *hybrid_text(struct hybrid *h, uint32_t doc)
{
    static char text[1024];
    struct memcube_read *read = fixture_read(&h->f);
    struct memcube_space space = fixture_space(&h->f, HYBRID_SPACE);
    text[0] = 0;
    append_text(h, read, &space, doc, NULL, text, sizeof text);
    return text;
}

const char *hybrid_beside(
    struct hybrid *h, struct memcube_ref ref, const char *viewer, const struct memcube_as_of *as_of)
{
    static char text[4096];
    uint32_t before[RETRIEVAL_NEIGHBOURS_MAX], after[RETRIEVAL_NEIGHBOURS_MAX];
    size_t before_count, after_count;
    struct memcube_filter filter = {.viewer = memos_bytes_of(viewer)};
    struct memcube_as_of now = {.seq = 0};
    struct memcube_version version;
    struct memcube_docs docs;
    struct memcube_space space;
    struct memcube_read *read = fixture_read(&h->f);

    as_of = as_of ? as_of : &now;
    text[0] = 0;
    assert_ok(memcube_space_find(read, memos_bytes_of(HYBRID_SPACE), &space, fixture_error()));
    assert_ok(memcube_version_get(read, &space, &ref.id, 0, as_of, &version, fixture_error()));
    assert_ok(memcube_docs_select(read, &space, &filter, as_of, &docs, fixture_error()));
    assert_ok(retrieval_neighbours(h->retrieval, read, &space, version.doc, &docs, 2, before,
        &before_count, after, &after_count, fixture_error()));
    while (before_count > 0) {
        append_text(h, read, &space, before[--before_count], as_of, text, sizeof text);
    }
    (void)snprintf(text + strlen(text), sizeof text - strlen(text), "|");
    for (size_t i = 0; i < after_count; i++) {
        (void)snprintf(text + strlen(text), sizeof text - strlen(text), " ");
        append_text(h, read, &space, after[i], as_of, text, sizeof text);
        text[strlen(text) - 1] = 0;
    }
    return text;
}
