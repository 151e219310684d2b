/* If these fail, what a user puts in is not what is there afterwards: a version is lost, an update
 * lands on the wrong fields, a repeated request is applied twice, or a refused one leaves a
 * trace. */
#include "tests/memcube/store_fixture.h"

#include "memcube/record.h"

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

static void test_put_then_get(void **state)
{
    struct fixture *f = *state;
    struct memos_bytes tags[] = { text_of("food"), text_of("home") };
    struct memcube_source source = { text_of("message"), text_of("chat:17"), 3, 9 };
    struct memcube_attribute attribute = { text_of("mood"), text_of("calm") };
    struct memcube_draft draft = draft_of("Ann likes pears");
    draft.description.title = text_of("pears");
    draft.description.language = text_of("en");
    draft.description.speaker = text_of("Ann");
    draft.description.tags = tags;
    draft.description.tags_count = 2;
    draft.description.sources = &source;
    draft.description.sources_count = 1;
    draft.description.attributes = &attribute;
    draft.description.attributes_count = 1;
    draft.description.event_us = 42;
    draft.governance.priority = 7;
    const struct memcube_ref ref = fixture_put_draft(f, "acme/ann", &draft);
    assert_int_equal(ref.number, 1);
    fixture_reopen(f);
    const struct memcube_version v = fixture_get(f, "acme/ann", &ref.id, 0);
    assert_int_equal(v.number, 1);
    assert_int_equal(v.parent, 0);
    assert_int_equal(v.operation, MEMCUBE_OP_CREATE);
    assert_int_equal(v.state, MEMCUBE_STATE_GENERATED);
    assert_true(memos_bytes_equal(v.author, text_of("alice")));
    assert_true(memos_bytes_equal(v.reason, text_of("a test")));
    assert_true(memos_bytes_equal(v.subtype, text_of("fact")));
    assert_true(memos_bytes_equal(v.codec, text_of("text/plain; charset=utf-8")));
    assert_true(memos_bytes_equal(v.description.title, text_of("pears")));
    assert_true(memos_bytes_equal(v.description.speaker, text_of("Ann")));
    assert_int_equal(v.description.tags_count, 2);
    assert_true(memos_bytes_equal(v.description.tags[1], text_of("home")));
    assert_int_equal(v.description.sources[0].offset, 3);
    assert_true(memos_bytes_equal(v.description.attributes[0].value, text_of("calm")));
    assert_int_equal(v.description.event_us, 42);
    assert_int_equal(v.governance.priority, 7);
    assert_int_equal(v.governance.sensitivity, 2);
    assert_int_equal(v.seq, 1);
    assert_int_equal(v.time_us, f->now_us);
    assert_text(f, "acme/ann", &ref.id, 0, "Ann likes pears");
}

static void test_update_sets_only_its_fields(void **state)
{
    struct fixture *f = *state;
    struct memos_bytes tags[] = { text_of("a"), text_of("b") };
    struct memcube_draft draft = draft_of("first words");
    draft.description.tags = tags;
    draft.description.tags_count = 2;
    draft.description.title = text_of("the title");
    const struct memcube_ref ref = fixture_put_draft(f, "s", &draft);

    const struct memcube_change change = change_of("s");
    const struct memos_bytes add[] = { text_of("c"), text_of("a") };
    const struct memos_bytes drop[] = { text_of("b") };
    const struct memcube_update update = { .id = ref.id, .tags_add = add, .tags_add_count = 2,
        .tags_remove = drop, .tags_remove_count = 1, .fields = MEMCUBE_FIELD_PRIORITY,
        .draft.governance.priority = 200 };
    struct memcube_outcome outcome;
    assert_ok(
        memcube_update(fixture_write(f), &change, &update, 1, &outcome, fixture_error()));
    assert_int_equal(outcome.refs[0].number, 2);
    fixture_commit(f);
    const struct memcube_version v = fixture_get(f, "s", &ref.id, 0);
    assert_int_equal(v.number, 2);
    assert_int_equal(v.parent, 1);
    assert_int_equal(v.state, MEMCUBE_STATE_ACTIVATED);
    assert_int_equal(v.description.tags_count, 2);
    assert_true(memos_bytes_equal(v.description.tags[0], text_of("a")));
    assert_true(memos_bytes_equal(v.description.tags[1], text_of("c")));
    assert_true(memos_bytes_equal(v.description.title, text_of("the title")));
    assert_int_equal(v.governance.priority, 200);
    assert_int_equal(v.doc, fixture_get(f, "s", &ref.id, 1).doc);
    assert_text(f, "s", &ref.id, 2, "first words");
    assert_text(f, "s", &ref.id, 1, "first words");

    const struct memcube_ref third = fixture_update(f, "s", &ref.id, "other words");
    assert_int_equal(third.number, 3);
    assert_text(f, "s", &ref.id, 0, "other words");
    assert_text(f, "s", &ref.id, 2, "first words");
    assert_int_not_equal(
        fixture_get(f, "s", &ref.id, 3).doc, fixture_get(f, "s", &ref.id, 2).doc);
}

static void test_update_that_changes_nothing_makes_no_version(void **state)
{
    struct fixture *f = *state;
    const struct memcube_ref ref = fixture_put(f, "s", "the same");
    const uint64_t seq = fixture_space(f, "s").seq;
    assert_int_equal(fixture_update(f, "s", &ref.id, "the same").number, 1);
    assert_int_equal(fixture_space(f, "s").seq, seq);
}

static void test_update_expects_a_version(void **state)
{
    struct fixture *f = *state;
    const struct memcube_ref ref = fixture_put(f, "s", "one");
    fixture_update(f, "s", &ref.id, "two");
    const struct memcube_change change = change_of("s");
    struct memcube_update update = { .id = ref.id, .expected = 1,
        .fields = MEMCUBE_FIELD_PAYLOAD, .draft = draft_of("three") };
    struct memcube_outcome outcome;
    assert_int_equal(
        memcube_update(fixture_write(f), &change, &update, 1, &outcome, fixture_error()),
        MEMOS_CONFLICT);
    assert_false(memcube_write_broken(f->write));
    update.expected = 2;
    assert_ok(
        memcube_update(fixture_write(f), &change, &update, 1, &outcome, fixture_error()));
    fixture_commit(f);
    assert_text(f, "s", &ref.id, 0, "three");
}

static void test_a_refused_change_leaves_no_trace(void **state)
{
    struct fixture *f = *state;
    const struct memcube_ref ref = fixture_put(f, "s", "kept");
    const struct memcube_space before = fixture_space(f, "s");
    struct memcube_draft drafts[2] = { draft_of("good"), draft_of("bad") };
    drafts[1].kind = (enum memcube_kind)9;
    const struct memcube_change change = change_of("s");
    struct memcube_outcome outcome;
    assert_int_equal(
        memcube_create(fixture_write(f), &change, drafts, 2, &outcome, fixture_error()),
        MEMOS_INVALID);
    assert_false(memcube_write_broken(f->write));

    const struct memcube_change elsewhere = change_of("never");
    assert_int_equal(
        memcube_create(fixture_write(f), &elsewhere, drafts, 2, &outcome, fixture_error()),
        MEMOS_INVALID);
    struct memcube_update updates[2] = { { .id = ref.id,
                                             .fields = MEMCUBE_FIELD_PAYLOAD,
                                             .draft = draft_of("x") },
        { .id = { .bytes = { 1 } }, .fields = MEMCUBE_FIELD_PAYLOAD, .draft = draft_of("y") } };
    assert_int_equal(
        memcube_update(fixture_write(f), &change, updates, 2, &outcome, fixture_error()),
        MEMOS_NOT_FOUND);
    updates[1].id = ref.id;
    assert_int_equal(
        memcube_update(fixture_write(f), &change, updates, 2, &outcome, fixture_error()),
        MEMOS_INVALID);
    fixture_commit(f);
    const struct memcube_space after = fixture_space(f, "s");
    assert_int_equal(after.seq, before.seq);
    assert_int_equal(after.versions, before.versions);
    assert_true(memcube_hash_equal(&after.head, &before.head));
    struct memcube_space never;
    assert_int_equal(
        memcube_space_find(f->read, text_of("never"), &never, NULL), MEMOS_NOT_FOUND);
    assert_text(f, "s", &ref.id, 0, "kept");
}

static void test_an_aborted_write_leaves_no_trace(void **state)
{
    struct fixture *f = *state;
    const struct memcube_ref ref = fixture_put(f, "s", "kept");
    const struct memcube_change change = change_of("s");
    const struct memcube_draft draft = draft_of("gone");
    struct memcube_outcome outcome;
    assert_ok(memcube_create(fixture_write(f), &change, &draft, 1, &outcome, fixture_error()));
    const struct memos_id id = outcome.refs[0].id;
    assert_int_equal(fixture_get_status(f, "s", &id, 0), MEMOS_OK);
    memcube_write_abort(&f->write);
    assert_int_equal(fixture_get_status(f, "s", &id, 0), MEMOS_NOT_FOUND);
    assert_int_equal(fixture_space(f, "s").seq, 1);
    assert_text(f, "s", &ref.id, 0, "kept");
}

static void test_a_repeated_key_gives_the_first_outcome(void **state)
{
    struct fixture *f = *state;
    struct memcube_change change = change_of("s");
    change.idempotency_key = text_of("key-1");
    const struct memcube_draft draft = draft_of("once");
    struct memcube_outcome first;
    struct memcube_outcome second;
    assert_ok(memcube_create(fixture_write(f), &change, &draft, 1, &first, fixture_error()));
    assert_false(first.repeated);
    assert_ok(memcube_create(f->write, &change, &draft, 1, &second, fixture_error()));
    assert_true(second.repeated);
    assert_int_equal(second.seq, first.seq);
    const struct memcube_ref ref = first.refs[0];
    fixture_commit(f);
    fixture_reopen(f);
    f->now_us += INT64_C(23) * 3600 * 1000000;
    assert_ok(memcube_create(fixture_write(f), &change, &draft, 1, &second, fixture_error()));
    assert_true(second.repeated);
    assert_true(memos_id_equal(&second.refs[0].id, &ref.id));
    change.space = text_of("other");
    assert_int_equal(
        memcube_create(f->write, &change, &draft, 1, &second, fixture_error()), MEMOS_CONFLICT);
    change.space = text_of("s");
    change.author = text_of("bob"); /* his own key */
    assert_ok(memcube_create(f->write, &change, &draft, 1, &second, fixture_error()));
    assert_false(second.repeated);
    change.author = text_of("alice");
    f->now_us += INT64_C(2) * 3600 * 1000000;
    assert_ok(memcube_create(f->write, &change, &draft, 1, &second, fixture_error()));
    assert_false(second.repeated);
    fixture_commit(f);
    assert_int_equal(fixture_space(f, "s").cubes, 3);
}

static void test_an_external_id_is_one_cube(void **state)
{
    struct fixture *f = *state;
    struct memcube_draft draft = draft_of("line one");
    draft.description.external_id = text_of("msg-1");
    const struct memcube_ref first = fixture_put_draft(f, "s", &draft);
    const struct memcube_ref again = fixture_put_draft(f, "s", &draft);
    assert_true(memos_id_equal(&first.id, &again.id));
    assert_int_equal(again.number, 1);
    assert_int_equal(fixture_space(f, "s").seq, 1);
    draft.payload = text_of("line one, edited");
    const struct memcube_ref edited = fixture_put_draft(f, "s", &draft);
    assert_true(memos_id_equal(&first.id, &edited.id));
    assert_int_equal(edited.number, 2);
    assert_int_equal(fixture_get(f, "s", &first.id, 0).operation, MEMCUBE_OP_UPDATE);
    const struct memcube_ref elsewhere = fixture_put_draft(f, "t", &draft);
    assert_false(memos_id_equal(&first.id, &elsewhere.id));

    struct memos_id found;
    const struct memcube_space space = fixture_space(f, "s");
    assert_ok(
        memcube_external_find(f->read, &space, text_of("msg-1"), &found, fixture_error()));
    assert_true(memos_id_equal(&found, &first.id));
    assert_int_equal(
        memcube_external_find(f->read, &space, text_of("msg-2"), &found, NULL),
        MEMOS_NOT_FOUND);
    struct memcube_draft twice[2] = { draft, draft };
    struct memcube_outcome outcome;
    const struct memcube_change change = change_of("s");
    assert_int_equal(
        memcube_create(fixture_write(f), &change, twice, 2, &outcome, fixture_error()),
        MEMOS_INVALID);
    fixture_commit(f);
}

static void test_states_follow_their_table(void **state)
{
    struct fixture *f = *state;
    const struct memcube_ref ref = fixture_put(f, "s", "ice");
    const struct memos_id *id = &ref.id;
    const struct memcube_change change = change_of("s");
    const struct memcube_update update = {
        .id = *id, .fields = MEMCUBE_FIELD_PAYLOAD, .draft = draft_of("water") };
    struct memcube_outcome outcome;

    assert_int_equal(fixture_transition(f, "s", id, MEMCUBE_STATE_FROZEN), MEMOS_OK);
    assert_int_equal(
        memcube_update(fixture_write(f), &change, &update, 1, &outcome, fixture_error()),
        MEMOS_FROZEN);
    fixture_commit(f);
    assert_int_equal(fixture_transition(f, "s", id, MEMCUBE_STATE_EXPIRED), MEMOS_FROZEN);
    assert_int_equal(fixture_transition(f, "s", id, MEMCUBE_STATE_ACTIVATED), MEMOS_OK);
    assert_int_equal(fixture_transition(f, "s", id, MEMCUBE_STATE_ACTIVATED), MEMOS_OK);
    assert_int_equal(fixture_get(f, "s", id, 0).number, 3);
    assert_int_equal(fixture_transition(f, "s", id, MEMCUBE_STATE_ARCHIVED), MEMOS_OK);
    assert_int_equal(fixture_transition(f, "s", id, MEMCUBE_STATE_EXPIRED), MEMOS_CONFLICT);
    assert_int_equal(fixture_transition(f, "s", id, MEMCUBE_STATE_FORGOTTEN), MEMOS_CONFLICT);
    assert_int_equal(fixture_transition(f, "s", id, (enum memcube_state)99), MEMOS_INVALID);
    const struct memcube_version v = fixture_get(f, "s", id, 0);
    assert_int_equal(v.number, 4);
    assert_int_equal(v.state, MEMCUBE_STATE_ARCHIVED);
    assert_int_equal(v.operation, MEMCUBE_OP_TRANSITION);
    assert_text(f, "s", id, 0, "ice");
}

static void test_merge_joins_cubes(void **state)
{
    struct fixture *f = *state;
    const struct memcube_ref a = fixture_put(f, "s", "A");
    const struct memcube_ref b = fixture_put(f, "s", "B");
    const struct memos_id sources[] = { a.id, b.id };
    const struct memcube_draft draft = draft_of("A and B");
    const struct memcube_change change = change_of("s");
    struct memcube_outcome outcome;

    assert_ok(memcube_merge(
        fixture_write(f), &change, sources, 2, &draft, &outcome, fixture_error()));
    assert_int_equal(outcome.refs_count, 3);
    const struct memcube_ref joined = outcome.refs[0];
    fixture_commit(f);
    const struct memcube_version v = fixture_get(f, "s", &joined.id, 0);
    assert_int_equal(v.operation, MEMCUBE_OP_MERGE);
    assert_int_equal(v.derived_count, 2);
    assert_int_equal(v.derived_from[1].number, 1);
    assert_false(v.stale);
    assert_int_equal(fixture_get(f, "s", &a.id, 0).state, MEMCUBE_STATE_MERGED);
    assert_int_equal(fixture_space(f, "s").seq, 3);
    assert_int_equal(
        memcube_merge(
            fixture_write(f), &change, sources, 2, &draft, &outcome, fixture_error()),
        MEMOS_OK); /* merged ones may be merged into another */
    memcube_write_abort(&f->write);
}

static void test_spaces_do_not_see_each_other(void **state)
{
    struct fixture *f = *state;
    const struct memcube_ref mine = fixture_put(f, "acme/mine", "mine");
    fixture_put(f, "acme/yours", "yours");
    assert_int_equal(fixture_get_status(f, "acme/yours", &mine.id, 0), MEMOS_NOT_FOUND);
    assert_int_equal(fixture_get_status(f, "acme/yours", &mine.id, 1), MEMOS_NOT_FOUND);
    struct memcube_space spaces[4];
    size_t count = 0;
    assert_ok(memcube_space_list(
        fixture_read(f), text_of(""), spaces, 4, &count, fixture_error()));
    assert_int_equal(count, 2);
    assert_true(memos_bytes_equal(spaces[0].name, text_of("acme/mine")));
    assert_ok(memcube_space_list(
        fixture_read(f), text_of("acme/mine"), spaces, 4, &count, fixture_error()));
    assert_int_equal(count, 1);
    assert_true(memos_bytes_equal(spaces[0].name, text_of("acme/yours")));
}

static void test_the_log_is_a_chain(void **state)
{
    struct fixture *f = *state;
    const struct memcube_ref ref = fixture_put(f, "s", "one");
    fixture_update(f, "s", &ref.id, "two");
    f->now_us -= INT64_C(3600) * 1000000; /* the clock steps back; the log does not */
    fixture_put(f, "s", "three");
    const struct memcube_space space = fixture_space(f, "s");
    struct memcube_log_record records[4];
    size_t count = 0;
    assert_ok(memcube_log_read(f->read, &space, 1, false, records, 4, &count, fixture_error()));
    assert_int_equal(count, 3);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(records[i].seq, i + 1);
        assert_int_equal(records[i].entries_count, 1);
        if (i > 0) {
            assert_true(memcube_hash_equal(&records[i].previous, &records[i - 1].hash));
            assert_true(records[i].time_us >= records[i - 1].time_us);
        }
    }
    assert_true(memcube_hash_equal(&records[2].hash, &space.head));
    assert_int_equal(records[1].operation, MEMCUBE_OP_UPDATE);
    assert_ok(memcube_log_read(f->read, &space, 0, true, records, 1, &count, fixture_error()));
    assert_int_equal(records[0].seq, 3);
    struct memcube_version history[4];
    assert_ok(memcube_history(
        f->read, &space, &ref.id, 0, history, 4, &count, fixture_error()));
    assert_int_equal(count, 2);
    assert_int_equal(history[1].seq, 2);
}

static void test_an_id_is_completed(void **state)
{
    struct fixture *f = *state;
    const struct memcube_ref a = fixture_put(f, "s", "a");
    fixture_put(f, "s", "b");
    char text[MEMOS_ID_TEXT_BYTES];
    struct memos_id found;
    memos_id_format(&a.id, text);
    const struct memcube_space space = fixture_space(f, "s");
    assert_ok(memcube_id_complete(f->read, &space, text_of(text), &found, fixture_error()));
    assert_true(memos_id_equal(&found, &a.id));
    text[12] = '\0'; /* within the time of both: one second apart */
    assert_ok(memcube_id_complete(f->read, &space, text_of(text), &found, fixture_error()));
    text[4] = '\0';
    assert_int_equal(
        memcube_id_complete(f->read, &space, text_of(text), &found, NULL), MEMOS_CONFLICT);
    assert_int_equal(
        memcube_id_complete(f->read, &space, text_of("fff"), &found, NULL), MEMOS_NOT_FOUND);
    assert_int_equal(
        memcube_id_complete(f->read, &space, text_of("xyz"), &found, NULL), MEMOS_INVALID);
}

static void test_equal_payloads_are_stored_once(void **state)
{
    struct fixture *f = *state;
    fixture_put(f, "s", "the very same words");
    const uint64_t before = fixture_space(f, "s").payload_bytes;
    fixture_put(f, "s", "the very same words");
    assert_int_equal(fixture_space(f, "s").payload_bytes, before);
    assert_int_equal(fixture_space(f, "s").cubes, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_put_then_get, setup, teardown),
        cmocka_unit_test_setup_teardown(test_update_sets_only_its_fields, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_update_that_changes_nothing_makes_no_version, setup, teardown),
        cmocka_unit_test_setup_teardown(test_update_expects_a_version, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_refused_change_leaves_no_trace, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_aborted_write_leaves_no_trace, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_a_repeated_key_gives_the_first_outcome, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_external_id_is_one_cube, setup, teardown),
        cmocka_unit_test_setup_teardown(test_states_follow_their_table, setup, teardown),
        cmocka_unit_test_setup_teardown(test_merge_joins_cubes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_spaces_do_not_see_each_other, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_log_is_a_chain, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_id_is_completed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_equal_payloads_are_stored_once, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
