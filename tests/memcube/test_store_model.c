/* Thousands of random steps, done to the store and to a plain model of it, compared all the way.
 *
 * If this fails, memory that a user was told is there is not (or the other way about): a version, a
 * state, a flag, a search's candidates, now or in the past, differ from what was done.
 *
 * MEMOS_TEST_SEED=n repeats a run, MEMOS_TEST_STEPS=n sets its length. */
#include "memcube/record.h"
#include "tests/memcube/store_model_run.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 1200 };

static struct model saved; /* as it was when the write began */
static uint64_t step_number;

/* ---- comparing ----------------------------------------------------------------------------- */

static void version_check(const struct memcube_space *space, int at, int number)
{
    const struct model_cube *cube = &run.model.cubes[at];
    const struct model_version *expected = &cube->versions[number - 1];
    const bool forgotten = model_state(cube) == MEMCUBE_STATE_FORGOTTEN;
    struct memcube_read *read = run.f.write ? memcube_write_read(run.f.write) : run.f.read;
    struct memcube_version v;
    struct memos_bytes payload;
    struct run_draft d;

    assert_ok(memcube_version_get(
        read, space, &cube->id, (uint32_t)number, NULL, &v, fixture_error()));
    assert_int_equal(v.number, number);
    assert_int_equal(v.parent, number - 1);
    assert_int_equal(v.operation, expected->operation);
    assert_int_equal(v.seq, expected->seq);
    assert_int_equal(v.doc, expected->doc);
    assert_int_equal(v.equals, expected->equals);
    assert_int_equal(v.time_us, run.model.times[expected->seq]);
    assert_int_equal(v.derived_count, expected->content.derived_count);
    assert_int_equal(v.state, forgotten ? MEMCUBE_STATE_FORGOTTEN : expected->state);
    assert_int_equal(v.stale, number == cube->count && cube->stale);
    const enum memos_status status =
        memcube_payload_get(read, space, &v, true, &payload, fixture_error());
    if (forgotten) {
        assert_int_equal(status, MEMOS_FORGOTTEN);
        assert_int_equal(v.description.tags_count + v.description.title.size, 0);
        return;
    }
    assert_ok(status);
    run_draft_fill(&d, &expected->content, cube->external);
    assert_true(memos_bytes_equal(payload, run_payload(expected->content.text)));
    assert_true(memos_bytes_equal(v.description.title, d.draft.description.title));
    assert_true(memos_bytes_equal(v.description.speaker, d.draft.description.speaker));
    assert_true(memos_bytes_equal(v.description.external_id, d.draft.description.external_id));
    assert_int_equal(v.description.tags_count, d.draft.description.tags_count);
    assert_int_equal(v.description.event_us, expected->content.event_us);
    assert_int_equal(v.governance.expires_us, expected->content.expires_us);
}

static bool select_expected(int at, const struct memcube_as_of *as_of,
    const struct memcube_filter *filter, int tag, int speaker, int64_t time_us)
{
    const struct model_cube *cube = &run.model.cubes[at];
    const bool now = as_of->seq == 0 && as_of->time_us == 0;
    const uint64_t seq = now          ? run.model.seq
                         : as_of->seq ? as_of->seq
                                      : model_seq_of_time(&run.model, as_of->time_us);
    const int number = model_as_of(cube, seq);
    const unsigned states =
        filter->states ? filter->states
                       : 1u << MEMCUBE_STATE_GENERATED | 1u << MEMCUBE_STATE_ACTIVATED |
                             1u << MEMCUBE_STATE_FROZEN;

    if (number == 0 || model_state(cube) == MEMCUBE_STATE_FORGOTTEN) {
        return false;
    }
    const struct model_version *version = &cube->versions[number - 1];
    return (states & (1u << version->state)) != 0 &&
           (filter->include_stale || !model_stale_as_of(cube, seq)) &&
           model_expiry(version) > time_us &&
           (tag == 0 || (version->content.tags & (1u << (tag - 1))) != 0) &&
           (speaker == 0 || version->content.speaker == speaker) &&
           (filter->from_us == 0 || version->content.event_us >= filter->from_us);
}

static void select_check(const struct memcube_space *space)
{
    struct memcube_read *read = run.f.write ? memcube_write_read(run.f.write) : run.f.read;
    const int tag = run_chance(40) ? 1 + run_below(RUN_TAGS) : 0;
    const int speaker = run_chance(30) ? 1 + run_below(2) : 0;
    const struct memos_bytes tags[] = { run_word("a-tag", tag) };
    const struct memcube_filter filter = {
        .states = run_chance(30) ? 1u << (1 + run_below(7)) : 0,
        .tags = tags,
        .tags_count = tag != 0,
        .speaker = run_word("speaker", speaker),
        .include_stale = run_chance(30),
        .from_us = run_chance(20) ? run.f.now_us - run_below(500) * INT64_C(1000000) : 0,
    };
    struct memcube_as_of as_of = { .seq = 0 };
    int64_t time_us = run.f.now_us;
    struct memcube_docs docs;
    uint32_t expected = 0;

    if (run_chance(50) && run.model.seq > 0) {
        as_of.seq = 1 + run_random() % run.model.seq;
        time_us = run.model.times[as_of.seq];
    } else if (run_chance(30) && run.model.seq > 0) {
        as_of.time_us = run.model.times[1 + run_random() % run.model.seq];
        time_us = as_of.time_us;
    }
    assert_ok(memcube_docs_select(read, space, &filter, &as_of, &docs, fixture_error()));
    assert_int_equal(docs.docs_end, run.model.docs + 1);
    for (int i = 0; i < run.model.count; i++) {
        const struct model_cube *cube = &run.model.cubes[i];
        const bool wanted = select_expected(i, &as_of, &filter, tag, speaker, time_us);
        const bool now = as_of.seq == 0 && as_of.time_us == 0;
        const uint64_t seq = now         ? run.model.seq
                             : as_of.seq ? as_of.seq
                                         : model_seq_of_time(&run.model, as_of.time_us);
        const int number = model_as_of(cube, seq);
        const uint32_t doc = number ? cube->versions[number - 1].doc : 0;
        if (doc != 0) {
            assert_int_equal(docs.words[doc / 64] >> (doc % 64) & 1, wanted);
        }
        expected += wanted;
    }
    assert_int_equal(docs.count, expected);
}

/* All pages of a list together are the selection, in order. */
static void list_check(const struct memcube_space *space)
{
    struct memcube_read *read = run.f.write ? memcube_write_read(run.f.write) : run.f.read;
    struct memcube_list_query query = { .count_max = (size_t)(1 + run_below(20)) };
    struct memcube_version versions[20];
    const bool oldest = query.oldest_first = run_chance(50);
    struct memcube_docs docs;
    size_t total = 0;
    int64_t last_us = oldest ? INT64_MIN : INT64_MAX;

    assert_ok(memcube_docs_select(read, space, &query.filter, NULL, &docs, fixture_error()));
    do {
        size_t count = 0;
        assert_ok(memcube_list(
            read, space, &query, versions, &count, &query.cursor, fixture_error()));
        for (size_t i = 0; i < count; i++) {
            const int64_t at_us = versions[i].description.event_us;
            assert_true(oldest ? at_us >= last_us : at_us <= last_us);
            last_us = at_us;
        }
        total += count;
    } while (query.cursor != 0);
    assert_int_equal(total, docs.count);
}

static void space_check(const struct memcube_space *space)
{
    uint64_t cubes = 0;
    uint64_t versions = 0;

    for (int i = 0; i < run.model.count; i++) {
        const enum memcube_state state = model_state(&run.model.cubes[i]);
        cubes += state != MEMCUBE_STATE_WITHDRAWN && state != MEMCUBE_STATE_FORGOTTEN;
        versions += (uint64_t)run.model.cubes[i].count;
    }
    assert_int_equal(space->seq, run.model.seq);
    assert_int_equal(space->docs, run.model.docs);
    assert_int_equal(space->cubes, cubes);
    assert_int_equal(space->versions, versions);
}

static void compare_some(void)
{
    if (run.model.count == 0) {
        return;
    }
    const struct memcube_space space = fixture_space(&run.f, RUN_SPACE);
    space_check(&space);
    for (int i = 0; i < 4; i++) {
        const int at = run_below(run.model.count);
        version_check(&space, at, 1 + run_below(run.model.cubes[at].count));
    }
    select_check(&space);
    if (run_chance(20)) {
        list_check(&space);
    }
}

static void compare_all(void)
{
    if (run.model.count == 0) {
        return;
    }
    const struct memcube_space space = fixture_space(&run.f, RUN_SPACE);
    struct memcube_hash previous = { .bytes = { 0 } };
    space_check(&space);
    for (int at = 0; at < run.model.count; at++) {
        for (int number = 1; number <= run.model.cubes[at].count; number++) {
            version_check(&space, at, number);
        }
    }
    for (uint64_t seq = 1; seq <= run.model.seq; seq++) {
        struct memcube_read *read = run.f.write ? memcube_write_read(run.f.write) : run.f.read;
        struct memcube_log_record record;
        size_t count = 0;
        assert_ok(memcube_log_read(
            read, &space, seq, false, &record, 1, &count, fixture_error()));
        assert_int_equal(count, 1);
        assert_true(memcube_hash_equal(&record.previous, &previous));
        assert_int_equal(record.time_us, run.model.times[seq]);
        previous = record.hash;
    }
    assert_true(memcube_hash_equal(&previous, &space.head));
    for (int i = 0; i < 20; i++) {
        select_check(&space);
    }
    list_check(&space);
}

static void problem_print(void *self, const char *problem)
{
    (void)self;
    print_error("fsck: %s\n", problem);
}

/* The store's own proof: history, and everything that is derived from it. */
static void fsck_check(void)
{
    struct memcube_fsck_result result;

    memcube_read_end(&run.f.read);
    assert_ok(memcube_fsck(
        run.f.store, false, NULL, problem_print, NULL, &result, fixture_error()));
    assert_int_equal(result.problems, 0);
    assert_int_equal(result.cubes, run.model.count);
}

/* ---- the run ------------------------------------------------------------------------------- */

static void write_random(void)
{
    memcpy(&saved, &run.model, sizeof saved);
    fixture_write(&run.f);
    for (int i = 1 + run_below(4); i > 0; i--) {
        run.f.now_us += (run_chance(90) ? run_below(60) : -run_below(30)) * INT64_C(1000000);
        run_step();
        step_number++;
        if (run_chance(20)) {
            compare_some();
        }
    }
    if (run_chance(10)) {
        memcube_write_abort(&run.f.write);
        memcpy(&run.model, &saved, sizeof run.model);
    } else {
        fixture_commit(&run.f);
    }
}

static uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && text[0] != '\0' ? strtoull(text, NULL, 10) : otherwise;
}

static void test_store_does_what_the_model_does(void **state)
{
    const uint64_t steps = number_of("MEMOS_TEST_STEPS", STEPS);

    (void)state;
    while (step_number < steps && run.model.seq < MODEL_RECORDS_MAX - 64) {
        write_random();
        compare_some();
        if (run_chance(2)) {
            fixture_reopen(&run.f);
        }
        if (run_chance(1)) {
            compare_all();
            fsck_check();
        }
    }
    compare_all();
    fsck_check();
}

static int setup(void **state)
{
    (void)state;
    assert_true(sodium_init() >= 0);
    uint64_t fresh = 0;
    randombytes_buf(&fresh, sizeof fresh);
    run.random = number_of("MEMOS_TEST_SEED", fresh >> 32);
    print_message("MEMOS_TEST_SEED=%llu\n", (unsigned long long)run.random);
    fixture_make(&run.f);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    print_message("%llu steps, %llu records, %d cubes\n", (unsigned long long)step_number,
        (unsigned long long)run.model.seq, run.model.count);
    fixture_drop(&run.f);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_store_does_what_the_model_does, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
