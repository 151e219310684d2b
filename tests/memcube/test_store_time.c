/* If these fail, memory outlives its time or dies before it, or the counts of reads are wrong. */
#include "tests/memcube/store_fixture.h"

#include <stdio.h>
#include <string.h>

#define SECOND INT64_C(1000000)

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

static size_t sweep(struct fixture *f, size_t most, bool *out_more)
{
    size_t count = 0;
    assert_ok(memcube_sweep(fixture_write(f), most, &count, out_more, fixture_error()));
    fixture_commit(f);
    return count;
}

static struct memcube_ref put_mortal(
    struct fixture *f, const char *space, const char *text, struct memcube_governance governance)
{
    struct memcube_draft draft = draft_of(text);
    draft.governance = governance;
    return fixture_put_draft(f, space, &draft);
}

static void test_what_is_due_is_not_found_before_a_sweep(void **state)
{
    struct fixture *f = *state;
    const int64_t end = f->now_us + 10 * SECOND;
    const struct memcube_ref a =
        put_mortal(f, "s", "a", (struct memcube_governance){ .expires_us = end });
    put_mortal(f, "s", "b", (struct memcube_governance){ .valid_to_us = end + 5 * SECOND });
    const struct memcube_filter all = { .kinds = 0 };
    bool more = true;
    assert_int_equal(fixture_select(f, "s", &all, NULL), 2);
    assert_int_equal(sweep(f, 10, &more), 0);
    f->now_us = end;
    assert_int_equal(fixture_select(f, "s", &all, NULL), 1);
    assert_int_equal(fixture_get(f, "s", &a.id, 0).state, MEMCUBE_STATE_GENERATED);
    assert_int_equal(sweep(f, 10, &more), 1);
    assert_false(more);
    const struct memcube_version v = fixture_get(f, "s", &a.id, 0);
    assert_int_equal(v.state, MEMCUBE_STATE_EXPIRED);
    assert_int_equal(v.operation, MEMCUBE_OP_EXPIRE);
    assert_true(memos_bytes_equal(v.author, text_of("memos")));
    assert_true(memos_bytes_equal(v.reason, text_of("its time-to-live has ended")));
    assert_text(f, "s", &a.id, 0, "a");
    assert_int_equal(fixture_select(f, "s", &all, NULL), 1);
    const struct memcube_as_of then = { .time_us = end - 1 };
    assert_int_equal(fixture_select(f, "s", &all, &then), 2);
    const struct memcube_as_of late = { .time_us = end };
    assert_int_equal(fixture_select(f, "s", &all, &late), 1);

    assert_int_equal(
        fixture_transition(f, "s", &a.id, MEMCUBE_STATE_ACTIVATED), MEMOS_OK);
    assert_int_equal(fixture_get(f, "s", &a.id, 0).governance.expires_us, 0);
    assert_int_equal(sweep(f, 10, &more), 0); /* it does not die of the same end again */
}

static void test_frozen_and_retained_do_not_expire(void **state)
{
    struct fixture *f = *state;
    const int64_t end = f->now_us + 10 * SECOND;
    const struct memcube_ref frozen =
        put_mortal(f, "s", "frozen", (struct memcube_governance){ .expires_us = end });
    const struct memcube_ref kept = put_mortal(f, "s", "kept",
        (struct memcube_governance){
            .expires_us = end, .retain_until_us = end + 100 * SECOND });
    const struct memcube_filter all = { .kinds = 0 };
    bool more = true;
    assert_int_equal(fixture_transition(f, "s", &frozen.id, MEMCUBE_STATE_FROZEN), MEMOS_OK);
    f->now_us = end + 10 * SECOND;
    assert_int_equal(sweep(f, 10, &more), 0);
    assert_int_equal(fixture_select(f, "s", &all, NULL), 2);
    f->now_us = end + 100 * SECOND;
    assert_int_equal(sweep(f, 10, &more), 1);
    assert_int_equal(fixture_get(f, "s", &kept.id, 0).state, MEMCUBE_STATE_EXPIRED);
    assert_int_equal(fixture_get(f, "s", &frozen.id, 0).state, MEMCUBE_STATE_FROZEN);
}

static void test_sweeps_are_bounded_and_go_by_space(void **state)
{
    struct fixture *f = *state;
    const struct memcube_governance soon = { .expires_us = f->now_us + 100 * SECOND };
    for (int i = 0; i < 6; i++) {
        char text[8];
        (void)snprintf(text, sizeof text, "%d", i);
        put_mortal(f, i % 2 ? "s" : "t", text, soon);
    }
    f->now_us += 200 * SECOND;
    bool more = false;
    assert_int_equal(sweep(f, 4, &more), 4);
    assert_true(more);
    assert_int_equal(sweep(f, 4, &more), 2);
    assert_false(more);
    const struct memcube_filter all = { .kinds = 0 };
    assert_int_equal(fixture_select(f, "s", &all, NULL), 0);
    assert_int_equal(fixture_select(f, "t", &all, NULL), 0);
    const uint64_t records = fixture_space(f, "s").seq + fixture_space(f, "t").seq;
    assert_in_range(records, 8, 10); /* six puts, one record a space and sweep */
}

static void test_an_update_moves_the_end(void **state)
{
    struct fixture *f = *state;
    const int64_t end = f->now_us + 10 * SECOND;
    const struct memcube_ref ref =
        put_mortal(f, "s", "a", (struct memcube_governance){ .expires_us = end });
    const struct memcube_change change = change_of("s");
    const struct memcube_update update = { .id = ref.id, .fields = MEMCUBE_FIELD_EXPIRY,
        .draft.governance.expires_us = end + 50 * SECOND };
    struct memcube_outcome outcome;
    bool more = true;
    assert_ok(memcube_update(fixture_write(f), &change, &update, 1, &outcome, fixture_error()));
    fixture_commit(f);
    f->now_us = end + SECOND;
    assert_int_equal(sweep(f, 10, &more), 0);
    f->now_us = end + 50 * SECOND;
    assert_int_equal(sweep(f, 10, &more), 1);
}

/* ---- behaviour ----------------------------------------------------------------------------- */

static struct memcube_behaviour behaviour(struct fixture *f, const struct memos_id *id)
{
    const struct memcube_space space = fixture_space(f, "s");
    struct memcube_behaviour out;
    assert_ok(memcube_behaviour_get(f->read, space.number, id, &out, fixture_error()));
    return out;
}

static void test_reads_are_counted(void **state)
{
    struct fixture *f = *state;
    const struct memcube_ref ref = fixture_put(f, "s", "read me");
    const uint32_t space = fixture_space(f, "s").number;
    bool more = true;
    assert_int_equal(behaviour(f, &ref.id).reads, 0);
    memcube_behaviour_count(f->store, space, &ref.id, 7);
    memcube_behaviour_count(f->store, space, &ref.id, 9);
    assert_int_equal(behaviour(f, &ref.id).reads, 2);
    sweep(f, 10, &more);
    memcube_behaviour_count(f->store, space, &ref.id, 11);
    assert_int_equal(behaviour(f, &ref.id).reads, 3);
    fixture_reopen(f); /* written at close */
    assert_int_equal(behaviour(f, &ref.id).reads, 3);
    assert_int_equal(behaviour(f, &ref.id).last_read_us, 11);
    assert_int_equal(fixture_space(f, "s").seq, 1); /* no history of reading */
}

static void test_feedback_is_a_mean_within_bounds(void **state)
{
    struct fixture *f = *state;
    const struct memcube_ref ref = fixture_put(f, "s", "useful");
    const struct memos_id stranger = { .bytes = { 3 } };
    for (int i = 0; i < 50; i++) {
        assert_ok(memcube_behaviour_feedback(
            fixture_write(f), text_of("s"), &ref.id, 1.0f, fixture_error()));
    }
    assert_int_equal(memcube_behaviour_feedback(f->write, text_of("s"), &ref.id, 1.5f, NULL),
        MEMOS_INVALID);
    assert_int_equal(memcube_behaviour_feedback(f->write, text_of("s"), &stranger, 1.0f, NULL),
        MEMOS_NOT_FOUND);
    fixture_commit(f);
    const float usefulness = behaviour(f, &ref.id).usefulness;
    assert_true(usefulness > 0.99f && usefulness <= 1.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            test_what_is_due_is_not_found_before_a_sweep, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_frozen_and_retained_do_not_expire, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_sweeps_are_bounded_and_go_by_space, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_update_moves_the_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reads_are_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_feedback_is_a_mean_within_bounds, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
