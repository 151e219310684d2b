/* The vector index through the store: what is written, changed, taken back, forgotten or filled in
 * later is found by its meaning, or not, by the very next search.
 *
 * If these failed, a user would miss what he said, or be shown what he had forgotten. */
#include "retrieval/vectors_internal.h"
#include "tests/retrieval/vectors_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct memcube_as_of now;

static struct memcube_fsck_result fsck(struct vectors_fixture *v, bool repair)
{
    struct memcube_fsck_result result;
    memcube_read_end(&v->f.read);
    assert_ok(memcube_fsck(v->f.store, repair, NULL, NULL, NULL, &result, fixture_error()));
    return result;
}

static void assert_whole(struct vectors_fixture *v)
{
    const struct memcube_fsck_result result = fsck(v, false);
    if (result.problems != 0) {
        fail_msg("fsck: %s", result.first);
    }
}

static void what_was_put_is_found(void **state)
{
    struct vectors_fixture fixture, *v = &fixture;
    (void)state;
    vectors_make(v, NULL, false);
    (void)vectors_put(v, "home", "a river in spring", true);
    (void)vectors_put(v, "home", "the price of bread", true);
    (void)vectors_put(v, "away", "a river in autumn", true);
    struct vectors_found found = vectors_search(v, "home", "a river in spring", NULL, NULL, 10);
    assert_int_equal(found.count, 2);
    assert_int_equal(found.hits[0].doc, 1);
    assert_true(found.hits[0].cosine > 0.99f && found.hits[0].cosine < 1.01f);
    assert_true(found.hits[1].cosine < found.hits[0].cosine);
    assert_int_equal(found.missing, 0);
    assert_int_equal(vectors_search(v, "home", "x", NULL, NULL, 1).count, 1);
    assert_int_equal(vectors_search(v, "home", "x", NULL, NULL, 0).count, 0);
    assert_int_equal(vectors_stats(v).offers, 0);
    assert_int_equal(vectors_due_total(v), 0);
    assert_whole(v);
    vectors_reopen(v);
    found = vectors_search(v, "home", "a river in spring", NULL, NULL, 10);
    assert_true(found.count == 2 && found.hits[0].doc == 1);
    vectors_drop(v);
}

static void contents_come_and_go_with_their_heads(void **state)
{
    struct vectors_fixture fixture, *v = &fixture;
    (void)state;
    vectors_make(v, NULL, false);
    struct memcube_ref ref = vectors_put(v, "home", "tea with milk", true);
    const struct memcube_as_of then = {.seq = 1};
    const struct memcube_draft second = draft_of("coffee without sugar");
    vectors_offer(v, &second);
    (void)fixture_update(&v->f, "home", &ref.id, "coffee without sugar");
    struct vectors_found found = vectors_search(v, "home", "tea with milk", NULL, NULL, 10);
    assert_true(found.count == 1 && found.hits[0].doc == 2);
    found = vectors_search(v, "home", "tea with milk", NULL, &then, 10);
    assert_true(found.count == 1 && found.hits[0].doc == 1 && found.hits[0].cosine > 0.99f);

    const struct memcube_change change = change_of("home");
    const struct memcube_rollback back = {.ids = &ref.id, .ids_count = 1, .to_version = 1};
    struct memcube_outcome outcome;
    struct memcube_rollback_item *items = NULL;
    size_t count = 0;
    assert_ok(memcube_rollback(
        fixture_write(&v->f), &change, &back, &outcome, &items, &count, fixture_error()));
    fixture_commit(&v->f);
    found = vectors_search(v, "home", "tea with milk", NULL, &now, 10);
    assert_true(found.count == 1 && found.hits[0].doc == 1);
    assert_int_equal(fixture_transition(&v->f, "home", &ref.id, MEMCUBE_STATE_ARCHIVED), MEMOS_OK);
    assert_int_equal(vectors_search(v, "home", "tea with milk", NULL, NULL, 10).count, 0);
    const struct memcube_filter archived = {.states = 1u << MEMCUBE_STATE_ARCHIVED};
    assert_int_equal(vectors_search(v, "home", "tea with milk", &archived, NULL, 10).count, 1);
    assert_whole(v);
    vectors_drop(v);
}

static void what_was_not_offered_is_filled_in(void **state)
{
    struct vectors_fixture fixture, *v = &fixture;
    (void)state;
    vectors_make(v, NULL, false);
    (void)vectors_put(v, "home", "first words", false);
    (void)vectors_put(v, "home", "second words", true);
    struct memcube_ref third = vectors_put(v, "home", "third words", false);
    (void)fixture_update(&v->f, "home", &third.id, "third words, changed");
    struct vectors_found found = vectors_search(v, "home", "first words", NULL, NULL, 10);
    assert_true(found.count == 1 && found.hits[0].doc == 2);
    assert_true(found.wanted == 3 && found.missing == 2);
    assert_whole(v);
    assert_int_equal(vectors_fill(v, 2), 3);
    assert_int_equal(vectors_fill(v, 2), 1);
    assert_int_equal(vectors_due_total(v), 0);
    found = vectors_search(v, "home", "first words", NULL, NULL, 10);
    assert_true(found.count == 3 && found.hits[0].doc == 1 && found.missing == 0);
    assert_true(vectors_among(&found, 4) && !vectors_among(&found, 3));
    const struct memcube_as_of then = {.seq = 3};
    found = vectors_search(v, "home", "third words", NULL, &then, 10);
    assert_true(found.count == 3 && found.hits[0].doc == 3); /* no head, and filled all the same */
    assert_whole(v);
    vectors_drop(v);
}

static void fill_is_refused_for_other_words(void **state)
{
    struct vectors_fixture fixture, *v = &fixture;
    struct retrieval_spans spans;
    float values[VECTORS_DIMS] = {1.0f};
    (void)state;
    vectors_make(v, NULL, false);
    (void)vectors_put(v, "home", "what was said", false);
    struct memcube_write *write = fixture_write(&v->f);
    const struct retrieval_due due = {
        memcube_write_read(write) ? fixture_space(&v->f, "home").number : 0, 1};
    const struct memcube_description none = {.event_us = 0};
    assert_ok(retrieval_spans_make(MEMCUBE_PLAINTEXT, &none, text_of("what was not said"),
        memcube_read_arena(memcube_write_read(write)), &spans, fixture_error()));
    assert_ok(retrieval_vectors_fill(
        v->vectors, write, &due, v->fingerprint, &spans, values, fixture_error()));
    const uint8_t stranger[32] = {9};
    assert_ok(retrieval_due_spans(memcube_write_read(write), &due, &spans, fixture_error()));
    assert_ok(retrieval_vectors_fill(
        v->vectors, write, &due, stranger, &spans, values, fixture_error()));
    values[3] = NAN;
    assert_int_equal(
        retrieval_vectors_fill(v->vectors, write, &due, v->fingerprint, &spans, values, NULL),
        MEMOS_INVALID);
    assert_int_equal(
        retrieval_vectors_offer(v->vectors, v->fingerprint, &spans, values, NULL), MEMOS_INVALID);
    assert_int_equal(
        retrieval_vectors_offer(v->vectors, stranger, &spans, values, NULL), MEMOS_INVALID);
    fixture_commit(&v->f);
    assert_int_equal(vectors_due_total(v), 1);
    assert_int_equal(vectors_search(v, "home", "x", NULL, NULL, 10).count, 0);
    vectors_drop(v);
}

static void forgotten_docs_are_gone_at_once(void **state)
{
    struct vectors_fixture fixture, *v = &fixture;
    struct memcube_outcome outcome;
    struct memcube_forgotten forgotten;
    float out[VECTORS_DIMS];
    size_t spans = 0;
    (void)state;
    vectors_make(v, NULL, false);
    struct memcube_ref ref = vectors_put(v, "home", "a secret", true);
    (void)vectors_put(v, "home", "no secret", true);
    struct memcube_ref undone = vectors_put(v, "home", "another secret", false);
    assert_int_equal(vectors_search(v, "home", "a secret", NULL, NULL, 10).count, 2);
    const struct memcube_change change = change_of("home");
    const struct memos_id ids[] = {ref.id, undone.id};

    /* A forget that does not happen changes nothing. */
    assert_ok(memcube_forget(fixture_write(&v->f), &change, ids, 2, false, false, &outcome,
        &forgotten, fixture_error()));
    memcube_write_abort(&v->f.write);
    assert_int_equal(vectors_search(v, "home", "a secret", NULL, NULL, 10).count, 2);

    assert_ok(memcube_forget(fixture_write(&v->f), &change, ids, 2, false, false, &outcome,
        &forgotten, fixture_error()));
    fixture_commit(&v->f);
    struct vectors_found found = vectors_search(v, "home", "a secret", NULL, NULL, 10);
    assert_true(found.count == 1 && found.hits[0].doc == 2);
    assert_int_equal(vectors_due_total(v), 0);
    const struct memcube_as_of then = {.seq = 2};
    found = vectors_search(v, "home", "a secret", NULL, &then, 10);
    assert_true(found.count == 1 && found.hits[0].doc == 2);
    const struct memcube_space space = fixture_space(&v->f, "home");
    assert_int_equal(retrieval_vectors_get(v->vectors, fixture_read(&v->f), &space, v->fingerprint,
                         1, out, 1, &spans, NULL),
        MEMOS_NOT_FOUND);
    assert_ok(retrieval_vectors_get(v->vectors, fixture_read(&v->f), &space, v->fingerprint, 2, out,
        1, &spans, fixture_error()));
    assert_int_equal(spans, 1);
    assert_int_equal(vectors_stats(v).rows, 1);
    assert_whole(v);
    vectors_drop(v);
}

/* Codes of a doc, as they lie in memory and before they are encrypted. */
static void codes_of(const struct vectors_fixture *v, const char *text, uint8_t out[VECTORS_DIMS])
{
    float vector[VECTORS_DIMS];
    vectors_encode(v->fingerprint, text_of(text), VECTORS_DIMS, vector);
    (void)retrieval_code_encode(KERN_E4M3, vector, VECTORS_DIMS, out);
}

static void no_file_has_a_vector_in_the_clear(void **state)
{
    struct vectors_fixture fixture, *v = &fixture;
    struct memcube_outcome outcome;
    struct memcube_forgotten forgotten;
    uint8_t codes[VECTORS_DIMS];
    (void)state;
    vectors_make(v, NULL, true);
    struct memcube_ref ref = vectors_put(v, "home", "a secret", true);
    (void)vectors_put(v, "home", "filled in later", false);
    (void)vectors_fill(v, 10);
    (void)vectors_search(v, "home", "a secret", NULL, NULL, 10);
    codes_of(v, "a secret", codes);
    assert_int_equal(folder_scan(v->f.path, memos_bytes_make(codes, 12)), 0);
    const struct memcube_change change = change_of("home");
    assert_ok(memcube_forget(fixture_write(&v->f), &change, &ref.id, 1, false, false, &outcome,
        &forgotten, fixture_error()));
    fixture_commit(&v->f);
    assert_int_equal(folder_scan(v->f.path, memos_bytes_make(codes, 12)), 0);
    codes_of(v, "filled in later", codes);
    assert_int_equal(folder_scan(v->f.path, memos_bytes_make(codes, 12)), 0);
    vectors_drop(v);
}

static void filters_are_kept(void **state)
{
    struct vectors_fixture fixture, *v = &fixture;
    struct memos_bytes tags[] = {text_of("blue")};
    (void)state;
    vectors_make(v, NULL, false);
    for (int i = 0; i < 300; i++) {
        char text[32];
        (void)snprintf(text, sizeof text, "thing %d", i);
        struct memcube_draft draft = draft_of(text);
        draft.description.tags = tags;
        draft.description.tags_count = i % 100 == 7;
        vectors_offer(v, &draft);
        (void)fixture_put_draft(&v->f, "home", &draft);
    }
    const struct memcube_filter blue = {.tags = tags, .tags_count = 1};
    struct vectors_found found = vectors_search(v, "home", "thing 0", &blue, NULL, 10);
    assert_int_equal(found.count, 3);
    assert_true(vectors_among(&found, 8) && vectors_among(&found, 108));
    /* The same cosines as without a filter. */
    struct vectors_found alone = vectors_search(v, "home", "thing 107", NULL, NULL, 1);
    assert_true(alone.count == 1 && alone.hits[0].doc == 108);
    found = vectors_search(v, "home", "thing 107", &blue, NULL, 1);
    assert_true(found.hits[0].doc == 108 && found.hits[0].cosine == alone.hits[0].cosine);
    const uint32_t docs[] = {108, 5, 4000};
    float cosines[3], query[VECTORS_DIMS];
    const struct memcube_space space = fixture_space(&v->f, "home");
    vectors_encode(v->fingerprint, text_of("thing 107"), VECTORS_DIMS, query);
    assert_ok(retrieval_vectors_score(v->vectors, fixture_read(&v->f), &space, v->fingerprint,
        query, docs, 3, cosines, fixture_error()));
    assert_true(cosines[0] == alone.hits[0].cosine && !isnan(cosines[1]) && isnan(cosines[2]));
    vectors_drop(v);
}

static void long_texts_are_found_by_any_span(void **state)
{
    struct vectors_fixture fixture, *v = &fixture;
    char text[5000], last[1200] = "";
    struct retrieval_spans spans;
    struct memos_arena arena;
    (void)state;
    vectors_make(v, NULL, false);
    for (size_t i = 0, n = 0; i < sizeof text - 64; n++) {
        i += (size_t)snprintf(text + i, 64, "Sentence %zu of a long story. ", n);
    }
    struct memcube_draft draft = draft_of(text);
    memos_arena_init(&arena, 1 << 20);
    assert_ok(retrieval_spans_make(
        draft.kind, &draft.description, draft.payload, &arena, &spans, fixture_error()));
    assert_true(spans.count > 3 && spans.count < 10);
    memcpy(last, spans.texts[spans.count - 1].data, spans.texts[spans.count - 1].size);
    (void)vectors_put(v, "home", text, true);
    (void)vectors_put(v, "home", "something short", true);
    struct vectors_found found = vectors_search(v, "home", last, NULL, NULL, 10);
    assert_true(found.count == 2 && found.hits[0].doc == 1 && found.hits[0].cosine > 0.98f);
    const struct memcube_space space = fixture_space(&v->f, "home");
    float *out = calloc(RETRIEVAL_SPANS_MAX * VECTORS_DIMS, sizeof *out);
    size_t count = 0;
    assert_non_null(out);
    assert_ok(retrieval_vectors_get(v->vectors, fixture_read(&v->f), &space, v->fingerprint, 1, out,
        RETRIEVAL_SPANS_MAX, &count, fixture_error()));
    assert_int_equal(count, spans.count);
    assert_int_equal(vectors_stats(v).rows, spans.count + 1);
    free(out);
    memos_arena_finish(&arena);
    vectors_drop(v);
}

static void another_encoder_begins_anew(void **state)
{
    struct vectors_fixture fixture, *v = &fixture;
    float query[VECTORS_DIMS] = {1.0f};
    const uint8_t first[32] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
        1, 1, 1, 1, 1, 1, 1, 1, 1};
    (void)state;
    vectors_make(v, NULL, false);
    for (int i = 0; i < 5; i++) {
        char text[32];
        (void)snprintf(text, sizeof text, "word %d", i);
        (void)vectors_put(v, "home", text, true);
    }
    (void)vectors_put(v, "home", "late", false);
    assert_int_equal(vectors_search(v, "home", "word 1", NULL, NULL, 10).count, 5);
    vectors_activate(v, 2, VECTORS_DIMS);
    struct vectors_found found = vectors_search(v, "home", "word 1", NULL, NULL, 10);
    assert_true(found.count == 0 && found.missing == 6);
    const struct memcube_space space = fixture_space(&v->f, "home");
    struct memcube_docs docs;
    struct retrieval_vector_hit hits[4];
    size_t count = 9;
    uint32_t missing;
    const struct memcube_filter all = {.kinds = 0};
    assert_ok(memcube_docs_select(fixture_read(&v->f), &space, &all, NULL, &docs, fixture_error()));
    assert_ok(retrieval_vectors_search(v->vectors, fixture_read(&v->f), &space, first, query, &docs,
        4, hits, &count, &missing, fixture_error()));
    assert_true(count == 0 && missing == 6);
    assert_int_equal(vectors_fill(v, 4), 6);
    assert_int_equal(vectors_fill(v, 4), 2);
    assert_int_equal(vectors_due_total(v), 0);
    found = vectors_search(v, "home", "word 1", NULL, NULL, 10);
    assert_true(found.count == 6 && found.hits[0].doc == 2 && found.missing == 0);
    assert_whole(v);
    vectors_activate(v, 1, VECTORS_DIMS); /* and back: nothing is left of the first */
    assert_int_equal(vectors_search(v, "home", "word 1", NULL, NULL, 10).missing, 6);
    assert_int_equal(vectors_fill(v, 100), 6);
    assert_int_equal(vectors_search(v, "home", "word 1", NULL, NULL, 10).hits[0].doc, 2);
    assert_int_equal(retrieval_vectors_activate(v->vectors, fixture_write(&v->f), v->fingerprint,
                         text_of("x"), VECTORS_DIMS + 1, NULL),
        MEMOS_INVALID);
    memcube_write_abort(&v->f.write);
    vectors_drop(v);
}

static void a_store_from_before_is_put_on_the_list(void **state)
{
    struct vectors_fixture fixture, *v = &fixture;
    (void)state;
    *v = (struct vectors_fixture){.vectors = NULL};
    fixture_make(&v->f);
    for (int i = 0; i < 200; i++) {
        char text[32];
        (void)snprintf(text, sizeof text, "old %d", i);
        (void)fixture_put(&v->f, i % 2 ? "home" : "away", text);
    }
    struct memcube_draft empty = draft_of("");
    (void)fixture_put_draft(&v->f, "away", &empty);
    fixture_close(&v->f);
    vectors_open(v);
    vectors_activate(v, 1, VECTORS_DIMS);
    assert_int_equal(vectors_due_total(v), 201);
    assert_int_equal(vectors_fill(v, 500), 201);
    assert_int_equal(vectors_due_total(v), 0); /* the empty one is struck off */
    struct vectors_found found = vectors_search(v, "home", "old 3", NULL, NULL, 10);
    assert_true(found.hits[0].doc == 2 && found.missing == 0);
    assert_int_equal(vectors_search(v, "away", "old 3", NULL, NULL, 10).missing, 1);
    assert_whole(v);
    vectors_drop(v);
}

static void damaged_entries_are_left_out_and_mended(void **state)
{
    struct vectors_fixture fixture, *v = &fixture;
    (void)state;
    vectors_make(v, NULL, false);
    for (int i = 0; i < 4; i++) {
        char text[32];
        (void)snprintf(text, sizeof text, "entry %d", i);
        (void)vectors_put(v, "home", text, true);
    }
    const uint32_t space = fixture_space(&v->f, "home").number;
    for (uint32_t doc = 1; doc <= 3; doc++) { /* a bit, the end, the form */
        uint8_t key[RETRIEVAL_DOC_KEY_BYTES], bytes[512];
        struct memcube_txn *txn = memcube_read_txn(memcube_write_read(fixture_write(&v->f)));
        struct memos_bytes value;
        assert_ok(memcube_get(txn, v->vectors->tables.doc, retrieval_doc_key(key, space, doc),
            &value, fixture_error()));
        memcpy(bytes, value.data, value.size);
        bytes[doc == 1 ? 40 : 0] ^= doc == 2 ? 0 : 1;
        value = memos_bytes_make(bytes, doc == 2 ? 30 : value.size);
        assert_ok(memcube_put(txn, v->vectors->tables.doc, retrieval_doc_key(key, space, doc),
            value, fixture_error()));
        fixture_commit(&v->f);
    }
    struct vectors_found found = vectors_search(v, "home", "entry 0", NULL, NULL, 10);
    assert_true(found.count == 1 && found.hits[0].doc == 4 && found.missing == 3);
    assert_int_equal(vectors_stats(v).damaged, 3);
    assert_int_equal(fsck(v, false).problems, 3);
    assert_int_equal(fsck(v, true).repaired, 3);
    /* Docs 1 to 3 are mended from what is still remembered of their offers, or go on the list. */
    (void)vectors_fill(v, 10);
    found = vectors_search(v, "home", "entry 0", NULL, NULL, 10);
    assert_true(found.count == 4 && found.hits[0].doc == 1 && found.missing == 0);
    assert_whole(v);
    vectors_drop(v);
}

static void memory_is_bounded(void **state)
{
    struct vectors_fixture fixture, *v = &fixture;
    /* About two small tables. */
    const struct retrieval_vectors_options small = {
        .cache_bytes_max = 34 * 1024, .offers_bytes_max = 4096};
    (void)state;
    vectors_make(v, &small, false);
    const char *spaces[] = {"a", "b", "c", "d"};
    for (int i = 0; i < 80; i++) {
        char text[32];
        (void)snprintf(text, sizeof text, "%s %d", spaces[i % 4], i);
        (void)vectors_put(v, spaces[i % 4], text, true);
    }
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 4; i++) {
            char text[32];
            (void)snprintf(text, sizeof text, "%s %d", spaces[i], i + 4);
            struct vectors_found found = vectors_search(v, spaces[i], text, NULL, NULL, 10);
            assert_true(found.count == 10 && found.hits[0].doc == 2 && found.missing == 0);
            assert_true(vectors_stats(v).table_bytes <= small.cache_bytes_max);
        }
    }
    assert_true(vectors_stats(v).tables < 4 && vectors_stats(v).tables > 0);
    assert_true(vectors_stats(v).loads > 4);
    assert_int_equal(vectors_stats(v).streamed, 0);
    for (int i = 0; i < 1300; i++) { /* too large for any table */
        char text[32];
        (void)snprintf(text, sizeof text, "large %d", i);
        (void)vectors_put(v, "large", text, true);
    }
    struct vectors_found found = vectors_search(v, "large", "large 1234", NULL, NULL, 10);
    assert_true(found.count == 10 && found.hits[0].doc == 1235 && found.missing == 0);
    assert_int_equal(vectors_stats(v).streamed, 1);
    struct retrieval_spans spans = {.count = 1};
    for (int i = 0; i < 100; i++) {
        const float values[VECTORS_DIMS] = {1.0f};
        spans.hash[0] = (uint8_t)i;
        assert_ok(
            retrieval_vectors_offer(v->vectors, v->fingerprint, &spans, values, fixture_error()));
    }
    assert_true(vectors_stats(v).offers_bytes <= 4096 && vectors_stats(v).offers_dropped > 0);
    vectors_drop(v);
}

static void what_a_write_sees_is_not_kept(void **state)
{
    struct vectors_fixture fixture, *v = &fixture;
    const struct memcube_change change = change_of("home");
    struct memcube_outcome outcome;
    (void)state;
    vectors_make(v, NULL, false);
    (void)vectors_put(v, "home", "one", true);
    struct memcube_draft draft = draft_of("never committed");
    vectors_offer(v, &draft);
    assert_ok(memcube_create(fixture_write(&v->f), &change, &draft, 1, &outcome, fixture_error()));
    struct vectors_found found = vectors_search(v, "home", "never committed", NULL, NULL, 10);
    assert_true(found.count == 2 && found.hits[0].doc == 2);
    memcube_write_abort(&v->f.write);
    (void)vectors_put(v, "home", "committed", true);
    found = vectors_search(v, "home", "never committed", NULL, NULL, 10);
    assert_true(found.count == 2 && found.hits[0].cosine < 0.95f);
    /* The offer was taken by a write that was not, and serves the next one all the same. */
    (void)fixture_put_draft(&v->f, "home", &draft);
    assert_int_equal(vectors_due_total(v), 0);
    found = vectors_search(v, "home", "never committed", NULL, NULL, 10);
    assert_true(found.hits[0].doc == 3 && found.hits[0].cosine > 0.99f);
    vectors_drop(v);
}

static void an_older_snapshot_misses_nothing(void **state)
{
    struct vectors_fixture fixture, *v = &fixture;
    struct memcube_read *old = NULL;
    (void)state;
    vectors_make(v, NULL, false);
    struct memcube_ref ref = vectors_put(v, "home", "mine", true);
    (void)vectors_put(v, "home", "yours", true);
    (void)vectors_put(v, "home", "unfilled", false);
    struct vectors_found found = vectors_search(v, "home", "mine", NULL, NULL, 10);
    assert_true(found.count == 2 && found.missing == 1);
    assert_ok(memcube_read_begin(v->f.store, &old, fixture_error()));

    /* Newer searches bring the table on: a fill, new docs ... */
    (void)vectors_fill(v, 10);
    const struct memcube_draft second = draft_of("mine, changed");
    vectors_offer(v, &second);
    (void)fixture_update(&v->f, "home", &ref.id, "mine, changed");
    found = vectors_search(v, "home", "mine, changed", NULL, NULL, 10);
    assert_true(found.count == 3 && found.hits[0].doc == 4 && found.missing == 0);
    found = vectors_search_in(v, old, "home", "mine", NULL, NULL, 10);
    assert_true(found.count == 3 && found.hits[0].doc == 1 && found.hits[0].cosine > 0.99f);
    assert_false(vectors_among(&found, 4));

    /* ... and another encoder for a while, so that the table loses what the old snapshot has. */
    vectors_activate(v, 2, VECTORS_DIMS);
    (void)vectors_fill(v, 10);
    vectors_activate(v, 1, VECTORS_DIMS);
    assert_int_equal(vectors_search(v, "home", "mine", NULL, NULL, 10).count, 0);
    assert_int_equal(vectors_stats(v).streamed, 0);
    found = vectors_search_in(v, old, "home", "mine", NULL, NULL, 10);
    assert_true(found.count == 2 && found.hits[0].doc == 1 && found.missing == 1);
    assert_int_equal(vectors_stats(v).streamed, 1);
    memcube_read_end(&old);
    vectors_drop(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_put_is_found),
        cmocka_unit_test(contents_come_and_go_with_their_heads),
        cmocka_unit_test(what_was_not_offered_is_filled_in),
        cmocka_unit_test(fill_is_refused_for_other_words),
        cmocka_unit_test(forgotten_docs_are_gone_at_once),
        cmocka_unit_test(no_file_has_a_vector_in_the_clear),
        cmocka_unit_test(filters_are_kept),
        cmocka_unit_test(long_texts_are_found_by_any_span),
        cmocka_unit_test(another_encoder_begins_anew),
        cmocka_unit_test(a_store_from_before_is_put_on_the_list),
        cmocka_unit_test(damaged_entries_are_left_out_and_mended),
        cmocka_unit_test(memory_is_bounded),
        cmocka_unit_test(what_a_write_sees_is_not_kept),
        cmocka_unit_test(an_older_snapshot_misses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
