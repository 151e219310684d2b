/* If these fail, a search or a list shows what it must not (another's private memory, what has
 * expired, what is stale), or hides what it must show. */
#include "tests/memcube/store_fixture.h"

#include <stdio.h>
#include <string.h>

static int setup(void **state)
{
    static struct fixture f;
    fixture_make(&f);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture_drop(*state);
    return 0;
}

static bool selects(struct fixture *f, const struct memcube_filter *filter,
    const struct memcube_as_of *as_of, uint32_t doc)
{
    const struct memcube_space space = fixture_space(f, "s");
    struct memcube_docs docs;
    assert_ok(memcube_docs_select(f->read, &space, filter, as_of, &docs, fixture_error()));
    assert_int_equal(docs.words[0] & 1, 0);
    return doc < docs.docs_end && (docs.words[doc / 64] >> (doc % 64) & 1) != 0;
}

static struct memcube_ref put_rich(struct fixture *f)
{
    static struct memos_bytes tags[] = { { "red", 3 }, { "round", 5 } };
    static struct memcube_source sources[] = { { { "file", 4 }, { "/notes.md", 9 }, 0, 0 } };
    struct memcube_draft draft = draft_of("an apple");
    draft.subtype = text_of("thing");
    draft.description.tags = tags;
    draft.description.tags_count = 2;
    draft.description.sources = sources;
    draft.description.sources_count = 1;
    draft.description.speaker = text_of("Ann");
    draft.description.event_us = INT64_C(5000000);
    return fixture_put_draft(f, "s", &draft);
}

static void test_filters_are_ands_of_ors(void **state)
{
    struct fixture *f = *state;
    const struct memcube_ref ref = put_rich(f);
    fixture_put(f, "s", "a plain fact");
    const uint32_t doc = fixture_get(f, "s", &ref.id, 0).doc;
    const struct memos_bytes red_round[] = { text_of("red"), text_of("round") };
    const struct memos_bytes red_blue[] = { text_of("red"), text_of("blue") };
    const struct memos_bytes subtypes[] = { text_of("event"), text_of("thing") };
    const struct {
        struct memcube_filter filter;
        bool selected;
    } cases[] = {
        { { .tags = red_round, .tags_count = 2 }, true },
        { { .tags = red_blue, .tags_count = 2 }, false },
        { { .tags = red_blue, .tags_count = 1 }, true },
        { { .subtypes = subtypes, .subtypes_count = 2 }, true },
        { { .subtypes = subtypes, .subtypes_count = 1 }, false },
        { { .source = text_of("/notes.md") }, true },
        { { .source = text_of("/other.md") }, false },
        { { .speaker = text_of("Ann") }, true },
        { { .speaker = text_of("ann") }, false },
        { { .kinds = 1u << MEMCUBE_PLAINTEXT }, true },
        { { .kinds = 1u << MEMCUBE_PARAMETRIC }, false },
        { { .from_us = 5000000, .to_us = 5000001 }, true },
        { { .from_us = 5000001 }, false },
        { { .to_us = 5000000 }, false },
        { { .states = 1u << MEMCUBE_STATE_GENERATED }, true },
        { { .states = 1u << MEMCUBE_STATE_ARCHIVED }, false },
        { { .tags = red_round, .tags_count = 1, .speaker = text_of("Ann"),
              .subtypes = subtypes, .subtypes_count = 2 },
            true },
    };
    const struct memcube_as_of then = { .seq = 1 };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(selects(f, &cases[i].filter, NULL, doc), cases[i].selected);
        assert_int_equal(selects(f, &cases[i].filter, &then, doc), cases[i].selected);
    }
    const struct memcube_filter all = { .kinds = 0 };
    assert_int_equal(fixture_select(f, "s", &all, NULL), 2);
    assert_int_equal(fixture_select(f, "s", &all, &then), 1);
}

/* A private memory: in now and in the past, by the list that it had and the one that it has. */
static void test_access_lists_hide(void **state)
{
    struct fixture *f = *state;
    struct memos_bytes readers[] = { text_of("bob") };
    const struct memcube_ref ref = fixture_put(f, "s", "soon a secret");
    const struct memcube_change change = change_of("s");
    const struct memcube_update update = { .id = ref.id, .fields = MEMCUBE_FIELD_READERS,
        .draft.description.readers = readers, .draft.description.readers_count = 1 };
    struct memcube_outcome outcome;
    assert_ok(memcube_update(fixture_write(f), &change, &update, 1, &outcome, fixture_error()));
    fixture_commit(f);

    const uint32_t doc = fixture_get(f, "s", &ref.id, 0).doc;
    const struct memcube_filter bob = { .viewer = text_of("bob") };
    const struct memcube_filter eve = { .viewer = text_of("eve") };
    const struct memcube_filter nobody = { .viewer = text_of("") };
    const struct memcube_filter admin = { .kinds = 0 };
    const struct memcube_as_of before = { .seq = 1 };
    assert_true(selects(f, &bob, NULL, doc));
    assert_false(selects(f, &eve, NULL, doc));
    assert_false(selects(f, &nobody, NULL, doc));
    assert_true(selects(f, &admin, NULL, doc));
    assert_true(selects(f, &bob, &before, doc));
    assert_false(selects(f, &eve, &before, doc)); /* what the present hides, the past hides */

    const struct memcube_space space = fixture_space(f, "s");
    struct memcube_version v;
    bool may = true;
    assert_ok(
        memcube_version_get(f->read, &space, &ref.id, 1, NULL, &v, fixture_error()));
    assert_ok(memcube_viewer_may(
        f->read, &space, &v, text_of("eve"), &may, fixture_error()));
    assert_false(may);
    assert_ok(memcube_viewer_may(
        f->read, &space, &v, text_of("bob"), &may, fixture_error()));
    assert_true(may);
    assert_ok(memcube_viewer_may(
        f->read, &space, &v, memos_bytes_make(NULL, 0), &may, fixture_error()));
    assert_true(may);
}

static void test_states_are_searched_as_their_table_says(void **state)
{
    struct fixture *f = *state;
    const struct memcube_ref ref = fixture_put(f, "s", "a memory");
    const uint32_t doc = fixture_get(f, "s", &ref.id, 0).doc;
    const struct memcube_filter searched = { .kinds = 0 };
    const struct memcube_filter archived = { .states = 1u << MEMCUBE_STATE_ARCHIVED };
    assert_true(selects(f, &searched, NULL, doc));
    assert_int_equal(
        fixture_transition(f, "s", &ref.id, MEMCUBE_STATE_ARCHIVED), MEMOS_OK);
    assert_false(selects(f, &searched, NULL, doc));
    assert_true(selects(f, &archived, NULL, doc));
    const struct memcube_as_of then = { .seq = 1 };
    assert_true(selects(f, &searched, &then, doc));
    assert_int_equal(
        fixture_transition(f, "s", &ref.id, MEMCUBE_STATE_ACTIVATED), MEMOS_OK);
    assert_true(selects(f, &searched, NULL, doc));
    assert_int_equal(fixture_transition(f, "s", &ref.id, MEMCUBE_STATE_FROZEN), MEMOS_OK);
    assert_true(selects(f, &searched, NULL, doc));
}

/* Words that were replaced are found in the past only, and come back with the same number. */
static void test_old_words_keep_their_number(void **state)
{
    struct fixture *f = *state;
    const struct memcube_ref ref = fixture_put(f, "s", "old words");
    const uint32_t old = fixture_get(f, "s", &ref.id, 0).doc;
    fixture_update(f, "s", &ref.id, "new words");
    const uint32_t new = fixture_get(f, "s", &ref.id, 0).doc;
    const struct memcube_filter all = { .kinds = 0 };
    const struct memcube_as_of then = { .seq = 1 };
    assert_true(old != new);
    assert_false(selects(f, &all, NULL, old));
    assert_true(selects(f, &all, NULL, new));
    assert_true(selects(f, &all, &then, old));
    assert_false(selects(f, &all, &then, new));
    const struct memcube_space space = fixture_space(f, "s");
    struct memcube_version v;
    assert_int_equal(
        memcube_version_of_doc(f->read, &space, old, NULL, &v, NULL), MEMOS_NOT_FOUND);
    assert_ok(memcube_version_of_doc(f->read, &space, old, &then, &v, fixture_error()));
    assert_int_equal(v.number, 1);
    assert_int_equal(
        memcube_version_of_doc(f->read, &space, 99, NULL, &v, NULL), MEMOS_NOT_FOUND);

    const struct memcube_change change = change_of("s");
    const struct memcube_rollback rollback = { .to.seq = 1 };
    struct memcube_outcome outcome;
    struct memcube_rollback_item *items = NULL;
    size_t count = 0;
    assert_ok(memcube_rollback(fixture_write(f), &change, &rollback, &outcome, &items, &count,
        fixture_error()));
    assert_int_equal(fixture_get(f, "s", &ref.id, 0).doc, old); /* seen inside the write */
    fixture_commit(f);
    assert_true(selects(f, &all, NULL, old));
    assert_false(selects(f, &all, NULL, new));
    assert_int_equal(fixture_space(f, "s").docs, 2);
}

/* More docs than a chunk of a bitmap has, in one write and after it. */
static void test_many_docs(void **state)
{
    enum { MANY = 5000 };
    struct fixture *f = *state;
    const struct memcube_change change = change_of("s");
    const struct memcube_filter all = { .kinds = 1u << MEMCUBE_PLAINTEXT };
    struct memcube_outcome outcome;
    char text[32];
    for (int i = 0; i < MANY; i++) {
        (void)snprintf(text, sizeof text, "fact %d", i);
        const struct memcube_draft draft = draft_of(text);
        assert_ok(
            memcube_create(fixture_write(f), &change, &draft, 1, &outcome, fixture_error()));
    }
    assert_int_equal(fixture_select(f, "s", &all, NULL), MANY);
    fixture_commit(f);
    assert_int_equal(fixture_select(f, "s", &all, NULL), MANY);
    fixture_reopen(f);
    const struct memcube_as_of half = { .seq = MANY / 2 };
    assert_int_equal(fixture_select(f, "s", &all, NULL), MANY);
    assert_int_equal(fixture_select(f, "s", &all, &half), MANY / 2);
}

static void test_lists_go_by_event_time_in_pages(void **state)
{
    struct fixture *f = *state;
    const int64_t times[] = { 30, 10, 20, 20, -5, 40 };
    for (size_t i = 0; i < 6; i++) {
        char text[8];
        (void)snprintf(text, sizeof text, "n%zu", i);
        struct memcube_draft draft = draft_of(text);
        draft.description.event_us = times[i];
        fixture_put_draft(f, "s", &draft);
    }
    fixture_put(f, "t", "elsewhere");
    const int64_t newest[] = { 40, 30, 20, 20, 10, -5 };
    for (int oldest_first = 0; oldest_first < 2; oldest_first++) {
        struct memcube_list_query query = {
            .oldest_first = oldest_first != 0, .count_max = 2 };
        size_t at = 0;
        do {
            const struct memcube_space space = fixture_space(f, "s");
            struct memcube_version page[2];
            size_t count = 0;
            uint64_t next = 0;
            assert_ok(memcube_list(
                f->read, &space, &query, page, &count, &next, fixture_error()));
            for (size_t i = 0; i < count; i++, at++) {
                assert_int_equal(page[i].description.event_us,
                    oldest_first ? newest[5 - at] : newest[at]);
            }
            query.cursor = next;
        } while (query.cursor != 0);
        assert_int_equal(at, 6);
    }
    const struct memcube_space space = fixture_space(f, "s");
    struct memcube_list_query beyond = { .count_max = 1, .cursor = 99 };
    struct memcube_version page[1];
    size_t count = 0;
    uint64_t next = 0;
    assert_int_equal(
        memcube_list(f->read, &space, &beyond, page, &count, &next, NULL), MEMOS_CONFLICT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_filters_are_ands_of_ors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_access_lists_hide, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_states_are_searched_as_their_table_says, setup, teardown),
        cmocka_unit_test_setup_teardown(test_old_words_keep_their_number, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_docs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lists_go_by_event_time_in_pages, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
