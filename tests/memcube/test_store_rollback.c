/* If these fail, going back does not bring back what was there, takes along what it must not,
 * cannot be undone, or leaves standing what was derived from memory that no longer does. */
#include "tests/memcube/store_fixture.h"

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

/* A rollback of the space, with a commit; the items are read before it. */
static size_t go_back(struct fixture *f, const struct memcube_rollback *rollback,
    struct memcube_rollback_item *out_items, size_t most, struct memcube_outcome *out)
{
    const struct memcube_change change = change_of("s");
    struct memcube_rollback_item *items = NULL;
    size_t count = 0;

    f->now_us += 1000000;
    assert_ok(memcube_rollback(
        fixture_write(f), &change, rollback, out, &items, &count, fixture_error()));
    assert_true(count <= most);
    memcpy(out_items, items, count * sizeof *items);
    fixture_commit(f);
    return count;
}

static void back_to_seq(struct fixture *f, uint64_t seq)
{
    struct memcube_rollback_item items[16];
    struct memcube_outcome outcome;
    const struct memcube_rollback rollback = { .to.seq = seq };
    go_back(f, &rollback, items, 16, &outcome);
}

static void test_a_space_goes_back_and_forth(void **state)
{
    struct fixture *f = *state;
    const struct memcube_ref a = fixture_put(f, "s", "a one");     /* 1 */
    const struct memcube_ref b = fixture_put(f, "s", "b one");     /* 2 */
    fixture_update(f, "s", &a.id, "a two");                        /* 3 */
    const struct memcube_ref c = fixture_put(f, "s", "c one");     /* 4 */
    const struct memcube_rollback dry = { .to.seq = 2, .dry_run = true };
    struct memcube_rollback_item items[4];
    struct memcube_outcome outcome;

    assert_int_equal(go_back(f, &dry, items, 4, &outcome), 2);
    assert_int_equal(outcome.seq, 0);
    assert_int_equal(fixture_space(f, "s").seq, 4);
    assert_int_equal(items[0].to, 1);
    assert_int_equal(items[0].made, 0);
    assert_int_equal(items[1].to, 0); /* c was not there */

    back_to_seq(f, 2); /* 5 */
    assert_text(f, "s", &a.id, 0, "a one");
    assert_text(f, "s", &b.id, 0, "b one");
    assert_int_equal(fixture_get_status(f, "s", &c.id, 0), MEMOS_NOT_FOUND);
    assert_int_equal(fixture_get(f, "s", &c.id, 2).state, MEMCUBE_STATE_WITHDRAWN);
    assert_text(f, "s", &c.id, 1, "c one");
    const struct memcube_version v = fixture_get(f, "s", &a.id, 0);
    assert_int_equal(v.number, 3);
    assert_int_equal(v.equals, 1);
    assert_int_equal(v.operation, MEMCUBE_OP_ROLLBACK);
    assert_int_equal(v.state, MEMCUBE_STATE_GENERATED);
    assert_int_equal(fixture_get(f, "s", &b.id, 0).number, 1); /* untouched */
    assert_int_equal(fixture_space(f, "s").cubes, 2);

    const struct memcube_space space = fixture_space(f, "s");
    struct memcube_log_record record;
    size_t count = 0;
    assert_ok(memcube_log_read(
        f->read, &space, 5, false, &record, 1, &count, fixture_error()));
    assert_int_equal(record.entries_count, 2);
    assert_int_equal(record.rollback_to, 3); /* seq 2, plus one */

    back_to_seq(f, 4); /* undo */
    assert_text(f, "s", &a.id, 0, "a two");
    assert_text(f, "s", &c.id, 0, "c one");
    assert_int_equal(fixture_space(f, "s").cubes, 3);
    back_to_seq(f, 4); /* nothing to do */
    assert_int_equal(fixture_space(f, "s").seq, 6);
}

static void test_going_back_to_a_time_a_version_and_the_beginning(void **state)
{
    struct fixture *f = *state;
    const struct memcube_ref a = fixture_put(f, "s", "one");
    const int64_t then_us = f->now_us;
    fixture_update(f, "s", &a.id, "two");
    fixture_update(f, "s", &a.id, "three");
    struct memcube_rollback_item items[4];
    struct memcube_outcome outcome;

    const struct memcube_rollback to_time = { .to.time_us = then_us + 10 };
    assert_int_equal(go_back(f, &to_time, items, 4, &outcome), 1);
    assert_text(f, "s", &a.id, 0, "one");
    const struct memcube_rollback to_version = {
        .ids = &a.id, .ids_count = 1, .to_version = 2 };
    assert_int_equal(go_back(f, &to_version, items, 4, &outcome), 1);
    assert_int_equal(items[0].made, 5);
    assert_text(f, "s", &a.id, 0, "two");
    const struct memcube_rollback beginning = { .to_beginning = true };
    assert_int_equal(go_back(f, &beginning, items, 4, &outcome), 1);
    assert_int_equal(fixture_get_status(f, "s", &a.id, 0), MEMOS_NOT_FOUND);
    const struct memcube_rollback again = { .ids = &a.id, .ids_count = 1, .to_version = 3 };
    assert_int_equal(go_back(f, &again, items, 4, &outcome), 1);
    assert_text(f, "s", &a.id, 0, "three");

    const struct memcube_as_of then = { .time_us = then_us };
    const struct memcube_space space = fixture_space(f, "s");
    struct memcube_version v;
    assert_ok(memcube_version_get(
        f->read, &space, &a.id, 0, &then, &v, fixture_error()));
    assert_int_equal(v.number, 1);
    const struct memcube_as_of before = { .time_us = then_us - 1 };
    assert_int_equal(memcube_version_get(f->read, &space, &a.id, 0, &before, &v, NULL),
        MEMOS_NOT_FOUND);
}

static void test_bad_targets_are_refused(void **state)
{
    struct fixture *f = *state;
    const struct memcube_ref a = fixture_put(f, "s", "one");
    const struct memos_id stranger = { .bytes = { 7 } };
    const struct memos_id twice[] = { a.id, a.id };
    const struct {
        struct memcube_rollback rollback;
        enum memos_status status;
    } cases[] = {
        { { .ids = NULL }, MEMOS_INVALID },
        { { .to.seq = 1, .to_beginning = true }, MEMOS_INVALID },
        { { .to.seq = 2 }, MEMOS_INVALID },
        { { .to_version = 1 }, MEMOS_INVALID },
        { { .ids = &a.id, .ids_count = 1, .to_version = 2 }, MEMOS_NOT_FOUND },
        { { .ids = &stranger, .ids_count = 1, .to.seq = 1 }, MEMOS_NOT_FOUND },
        { { .ids = twice, .ids_count = 2, .to.seq = 1 }, MEMOS_INVALID },
    };
    const struct memcube_change change = change_of("s");
    struct memcube_rollback_item *items = NULL;
    struct memcube_outcome outcome;
    size_t count = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(memcube_rollback(fixture_write(f), &change, &cases[i].rollback,
                             &outcome, &items, &count, fixture_error()),
            cases[i].status);
        assert_false(memcube_write_broken(f->write));
    }
    const struct memcube_change nowhere = change_of("nowhere");
    const struct memcube_rollback back = { .to_beginning = true };
    assert_int_equal(memcube_rollback(f->write, &nowhere, &back, &outcome, &items, &count, NULL),
        MEMOS_NOT_FOUND);
    fixture_commit(f);
    assert_int_equal(fixture_space(f, "s").seq, 1);
}

static void test_frozen_and_forgotten_are_passed_by(void **state)
{
    struct fixture *f = *state;
    const struct memcube_ref ice = fixture_put(f, "s", "ice");
    const struct memcube_ref gone = fixture_put(f, "s", "gone");
    const struct memcube_change change = change_of("s");
    struct memcube_outcome outcome;
    struct memcube_forgotten forgotten;
    struct memcube_rollback_item items[4];

    assert_int_equal(fixture_transition(f, "s", &ice.id, MEMCUBE_STATE_FROZEN), MEMOS_OK);
    assert_ok(memcube_forget(fixture_write(f), &change, &gone.id, 1, false, false, &outcome,
        &forgotten, fixture_error()));
    fixture_commit(f);
    struct memcube_rollback rollback = { .to.seq = 2 };
    assert_int_equal(go_back(f, &rollback, items, 4, &outcome), 2);
    assert_int_equal(outcome.seq, 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(items[i].status,
            memos_id_equal(&items[i].id, &ice.id) ? MEMOS_FROZEN : MEMOS_FORGOTTEN);
    }
    rollback.include_frozen = true;
    assert_int_equal(go_back(f, &rollback, items, 4, &outcome), 2);
    assert_int_equal(fixture_get(f, "s", &ice.id, 0).state, MEMCUBE_STATE_GENERATED);
    assert_int_equal(fixture_get(f, "s", &gone.id, 0).state, MEMCUBE_STATE_FORGOTTEN);
}

/* ---- what was derived ---------------------------------------------------------------------- */

static void test_a_correction_makes_stale_and_a_rollback_fresh(void **state)
{
    struct fixture *f = *state;
    const struct memcube_filter searched = { .kinds = 0 };
    const struct memcube_ref source = fixture_put(f, "s", "the source");          /* 1 */
    const struct memcube_ref child = fixture_derive(f, "s", "child", source);      /* 2 */
    const struct memcube_ref grandchild = fixture_derive(f, "s", "grandchild", child); /* 3 */
    assert_int_equal(fixture_select(f, "s", &searched, NULL), 3);

    const struct memcube_change change = change_of("s");
    const struct memcube_update update = { .id = source.id,
        .fields = MEMCUBE_FIELD_PAYLOAD, .draft = draft_of("the source, corrected") };
    struct memcube_outcome outcome;
    assert_ok(memcube_update(fixture_write(f), &change, &update, 1, &outcome, fixture_error()));
    assert_int_equal(outcome.affected_count, 2);
    assert_true(memos_id_equal(&outcome.affected[0], &child.id));
    fixture_commit(f); /* 4 */
    assert_true(fixture_get(f, "s", &child.id, 0).stale);
    assert_true(fixture_get(f, "s", &grandchild.id, 0).stale);
    assert_int_equal(fixture_select(f, "s", &searched, NULL), 1);
    const struct memcube_filter with_stale = { .include_stale = true };
    assert_int_equal(fixture_select(f, "s", &with_stale, NULL), 3);
    const struct memcube_as_of then = { .seq = 3 };
    assert_int_equal(fixture_select(f, "s", &searched, &then), 3); /* it stood then */

    back_to_seq(f, 3);
    assert_false(fixture_get(f, "s", &grandchild.id, 0).stale);
    assert_int_equal(fixture_select(f, "s", &searched, NULL), 3);

    struct memcube_log_record record;
    size_t count = 0;
    const struct memcube_space space = fixture_space(f, "s");
    assert_ok(memcube_log_read(
        f->read, &space, 4, false, &record, 1, &count, fixture_error()));
    assert_int_equal(record.affected_count, 2);
}

static void test_a_tag_does_not_make_stale_but_an_end_does(void **state)
{
    struct fixture *f = *state;
    const struct memcube_ref source = fixture_put(f, "s", "the source");
    const struct memcube_ref child = fixture_derive(f, "s", "child", source);
    const struct memcube_change change = change_of("s");
    const struct memos_bytes tag[] = { text_of("new") };
    const struct memcube_update update = {
        .id = source.id, .tags_add = tag, .tags_add_count = 1 };
    struct memcube_outcome outcome;
    assert_ok(memcube_update(fixture_write(f), &change, &update, 1, &outcome, fixture_error()));
    assert_int_equal(outcome.affected_count, 0);
    fixture_commit(f);
    assert_int_equal(
        fixture_transition(f, "s", &source.id, MEMCUBE_STATE_ARCHIVED), MEMOS_OK);
    assert_false(fixture_get(f, "s", &child.id, 0).stale);
    assert_int_equal(
        fixture_transition(f, "s", &source.id, MEMCUBE_STATE_ACTIVATED), MEMOS_OK);
    assert_int_equal(
        fixture_transition(f, "s", &source.id, MEMCUBE_STATE_EXPIRED), MEMOS_OK);
    assert_true(fixture_get(f, "s", &child.id, 0).stale);
    assert_int_equal(
        fixture_transition(f, "s", &source.id, MEMCUBE_STATE_ACTIVATED), MEMOS_OK);
    assert_false(fixture_get(f, "s", &child.id, 0).stale);
}

static void test_derivation_is_checked(void **state)
{
    struct fixture *f = *state;
    const struct memcube_ref a = fixture_put(f, "s", "a");
    const struct memcube_ref b = fixture_derive(f, "s", "b", a);
    struct memcube_ref refs[] = { b };
    const struct memcube_change change = change_of("s");
    struct memcube_update update = { .id = a.id, .fields = MEMCUBE_FIELD_DERIVED,
        .draft.derived_from = refs, .draft.derived_count = 1 };
    struct memcube_outcome outcome;
    assert_int_equal(
        memcube_update(fixture_write(f), &change, &update, 1, &outcome, fixture_error()),
        MEMOS_INVALID); /* a circle */
    refs[0] = a;
    assert_int_equal(
        memcube_update(f->write, &change, &update, 1, &outcome, fixture_error()),
        MEMOS_INVALID); /* itself */
    struct memcube_draft draft = draft_of("c");
    struct memcube_ref later = { .id = a.id, .number = 2 };
    draft.derived_from = &later;
    draft.derived_count = 1;
    assert_int_equal(
        memcube_create(f->write, &change, &draft, 1, &outcome, fixture_error()),
        MEMOS_NOT_FOUND);
    fixture_commit(f);
}

/* ---- forget: what goes along --------------------------------------------------------------- */

static void test_forget_takes_along_what_was_derived(void **state)
{
    struct fixture *f = *state;
    const struct memcube_ref source = fixture_put(f, "s", "source");
    const struct memcube_ref child = fixture_derive(f, "s", "child", source);
    const struct memcube_ref grandchild = fixture_derive(f, "s", "grandchild", child);
    const struct memcube_ref other = fixture_put(f, "s", "other");
    const struct memcube_change change = change_of("s");
    struct memcube_outcome outcome;
    struct memcube_forgotten forgotten;

    /* No longer derived, but once it was: it goes, too. */
    const struct memcube_update free_it = {
        .id = child.id, .fields = MEMCUBE_FIELD_DERIVED };
    assert_ok(
        memcube_update(fixture_write(f), &change, &free_it, 1, &outcome, fixture_error()));
    assert_ok(memcube_forget(f->write, &change, &source.id, 1, false, true, &outcome, &forgotten,
        fixture_error()));
    assert_int_equal(forgotten.ids_count, 3);
    assert_int_equal(outcome.seq, 0);
    assert_ok(memcube_forget(f->write, &change, &source.id, 1, false, false, &outcome,
        &forgotten, fixture_error()));
    assert_int_equal(forgotten.ids_count, 3);
    assert_int_equal(forgotten.payloads_destroyed, 3);
    assert_int_equal(outcome.refs_count, 3);
    fixture_commit(f);
    assert_int_equal(
        fixture_get(f, "s", &grandchild.id, 0).state, MEMCUBE_STATE_FORGOTTEN);
    assert_text(f, "s", &other.id, 0, "other");
    const struct memcube_filter all = { .include_stale = true };
    assert_int_equal(fixture_select(f, "s", &all, NULL), 1);
    const struct memcube_as_of then = { .seq = 4 };
    assert_int_equal(fixture_select(f, "s", &all, &then), 1); /* gone from the past, too */
    assert_ok(memcube_forget(fixture_write(f), &change, &source.id, 1, false, false, &outcome,
        &forgotten, fixture_error()));
    assert_int_equal(outcome.seq, 0);
    fixture_commit(f);
}

static void test_retention_keeps(void **state)
{
    struct fixture *f = *state;
    struct memcube_draft draft = draft_of("a contract");
    draft.governance.retain_until_us = f->now_us + INT64_C(3600000000);
    const struct memcube_ref kept = fixture_put_draft(f, "s", &draft);
    const struct memcube_ref other = fixture_put(f, "s", "another");
    const struct memos_id both[] = { other.id, kept.id };
    const struct memcube_change change = change_of("s");
    struct memcube_outcome outcome;
    struct memcube_forgotten forgotten;

    assert_int_equal(memcube_forget(fixture_write(f), &change, both, 2, false, false, &outcome,
                         &forgotten, fixture_error()),
        MEMOS_CONFLICT);
    assert_false(memcube_write_broken(f->write));
    fixture_commit(f);
    assert_text(f, "s", &other.id, 0, "another");
    assert_int_equal(
        fixture_transition(f, "s", &kept.id, MEMCUBE_STATE_EXPIRED), MEMOS_CONFLICT);
    assert_ok(memcube_forget(fixture_write(f), &change, both, 2, true, false, &outcome,
        &forgotten, fixture_error()));
    fixture_commit(f);
    assert_int_equal(fixture_get(f, "s", &kept.id, 0).state, MEMCUBE_STATE_FORGOTTEN);
}

static void test_forgotten_ids_may_be_used_anew(void **state)
{
    struct fixture *f = *state;
    struct memcube_draft draft = draft_of("message one");
    draft.description.external_id = text_of("m1");
    const struct memcube_ref first = fixture_put_draft(f, "s", &draft);
    const struct memcube_change change = change_of("s");
    struct memcube_outcome outcome;
    struct memcube_forgotten forgotten;
    assert_ok(memcube_forget(fixture_write(f), &change, &first.id, 1, false, false, &outcome,
        &forgotten, fixture_error()));
    fixture_commit(f);
    const struct memcube_ref second = fixture_put_draft(f, "s", &draft);
    assert_false(memos_id_equal(&first.id, &second.id));
    assert_text(f, "s", &second.id, 0, "message one");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_space_goes_back_and_forth, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_going_back_to_a_time_a_version_and_the_beginning, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_targets_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_frozen_and_forgotten_are_passed_by, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_a_correction_makes_stale_and_a_rollback_fresh, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_a_tag_does_not_make_stale_but_an_end_does, setup, teardown),
        cmocka_unit_test_setup_teardown(test_derivation_is_checked, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_forget_takes_along_what_was_derived, setup, teardown),
        cmocka_unit_test_setup_teardown(test_retention_keeps, setup, teardown),
        cmocka_unit_test_setup_teardown(test_forgotten_ids_may_be_used_anew, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
