/* The store on a disk that is full or fails.
 *
 * If these failed, an acknowledged memory could be lost, half of another could stay, or words that
 * were forgotten could be read from a file. */
#include "memcube/store.h"
#include "tests/fault/fault_inject.h"
#include "tests/memcube/folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define INLINE_BYTES 1000
#define BLOB_BYTES 5000
#define STEPS_MOST 500 /* failing calls of one change; more would be a loop */

static const char secret[] = "Grandmother hid the ring under the blue tile";

struct fixture {
    char path[FOLDER_PATH_BYTES];
    struct memcube_store *store;
    struct memos_id small, blob; /* of the last puts that were acknowledged */
    char *words;                 /* BLOB_BYTES of the secret */
};

static enum memos_status open_store(struct fixture *f)
{
    struct memcube_store_options options = {
        .path = f->path,
        .inline_bytes_max = INLINE_BYTES,
        .clock = memos_clock_system(),
    };
    struct memos_error err = {0};
    enum memos_status status = memcube_store_open(&options, &f->store, &err);
    assert_true(status == MEMOS_OK || err.text[0] != 0);
    return status;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->words = malloc(BLOB_BYTES);
    assert_non_null(f->words);
    for (size_t i = 0; i < BLOB_BYTES; i++) {
        f->words[i] = secret[i % (sizeof secret - 1)];
    }
    folder_make(f->path);
    assert_int_equal(open_store(f), MEMOS_OK);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(fault_plan(""), 0);
    memcube_store_close(&f->store);
    folder_remove(f->path);
    free(f->words);
    free(f);
    return 0;
}

static void reopen(struct fixture *f)
{
    memcube_store_close(&f->store);
    assert_int_equal(open_store(f), MEMOS_OK);
}

static void start_afresh(struct fixture *f)
{
    memcube_store_close(&f->store);
    folder_remove(f->path);
    folder_make(f->path);
    assert_int_equal(open_store(f), MEMOS_OK);
}

static struct memcube_change change(void)
{
    return (struct memcube_change){
        .space = memos_bytes_of("home"),
        .author = memos_bytes_of("alice"),
        .reason = memos_bytes_of("test"),
    };
}

static struct memcube_draft draft(const char *words, size_t size)
{
    return (struct memcube_draft){
        .kind = MEMCUBE_PLAINTEXT,
        .subtype = memos_bytes_of("fact"),
        .payload = memos_bytes_make(words, size),
        .description.title = memos_bytes_of(secret),
    };
}

/* One change: a small payload and a blob. */
static enum memos_status put_both(struct fixture *f, struct memos_error *err)
{
    struct memcube_change about = change();
    struct memcube_draft drafts[] = {
        draft(f->words, sizeof secret - 1),
        draft(f->words, BLOB_BYTES),
    };
    struct memcube_outcome outcome;
    struct memcube_write *write = NULL;
    enum memos_status status = memcube_write_begin(f->store, &write, err);
    if (status != MEMOS_OK) {
        return status;
    }
    status = memcube_create(write, &about, drafts, 2, &outcome, err);
    if (status != MEMOS_OK) {
        memcube_write_abort(&write);
        return status;
    }
    struct memos_id small = outcome.refs[0].id, blob = outcome.refs[1].id;
    status = memcube_write_commit(&write, err);
    if (status == MEMOS_OK) {
        f->small = small;
        f->blob = blob;
    }
    return status;
}

static uint64_t cubes_of(struct fixture *f)
{
    struct memcube_read *read = NULL;
    struct memcube_space space = {0};
    assert_int_equal(memcube_read_begin(f->store, &read, NULL), MEMOS_OK);
    enum memos_status status = memcube_space_find(read, memos_bytes_of("home"), &space, NULL);
    assert_true(status == MEMOS_OK || status == MEMOS_NOT_FOUND);
    memcube_read_end(&read);
    return status == MEMOS_OK ? space.cubes : 0;
}

static enum memos_status read_words(
    struct fixture *f, const struct memos_id *id, struct memos_bytes expected)
{
    struct memcube_read *read = NULL;
    struct memcube_space space;
    struct memcube_version version;
    struct memos_bytes found = {NULL, 0};
    assert_int_equal(memcube_read_begin(f->store, &read, NULL), MEMOS_OK);
    enum memos_status status = memcube_space_find(read, memos_bytes_of("home"), &space, NULL);
    if (status == MEMOS_OK) {
        status = memcube_version_get(read, &space, id, 0, NULL, &version, NULL);
    }
    if (status == MEMOS_OK) {
        status = memcube_payload_get(read, &space, &version, true, &found, NULL);
    }
    if (status == MEMOS_OK) {
        assert_true(memos_bytes_equal(found, expected));
        assert_true(memos_bytes_equal(version.description.title, memos_bytes_of(secret)));
    }
    memcube_read_end(&read);
    return status;
}

static void expect_both(struct fixture *f)
{
    assert_int_equal(
        read_words(f, &f->small, memos_bytes_make(f->words, sizeof secret - 1)), MEMOS_OK);
    assert_int_equal(read_words(f, &f->blob, memos_bytes_make(f->words, BLOB_BYTES)), MEMOS_OK);
}

static void expect_sound(struct fixture *f)
{
    struct memcube_verify_result verified;
    struct memcube_fsck_result checked;
    struct memos_error err = {0};
    if (cubes_of(f) > 0) {
        assert_int_equal(
            memcube_verify(f->store, memos_bytes_of("home"), 0, NULL, NULL, &verified, &err),
            MEMOS_OK);
        assert_string_equal(verified.what, "");
        assert_true(verified.intact);
    }
    assert_int_equal(memcube_fsck(f->store, false, NULL, NULL, NULL, &checked, &err), MEMOS_OK);
    assert_string_equal(checked.first, "");
    assert_int_equal(checked.problems, 0);
}

/* Let the nth call of a plan fail; what the plan met. */
static void fail_call(const char *error_and_calls, unsigned skip)
{
    char plan[128];
    (void)snprintf(plan, sizeof plan, "%s %u 1 memos-test", error_and_calls, skip);
    assert_int_equal(fault_plan(plan), 0);
}

static unsigned long end_of_faults(void)
{
    unsigned long hits = fault_hits();
    assert_int_equal(fault_plan(""), 0);
    return hits;
}

/* Each call of the very first put fails once: keys, folders, the blob, the database. */
static void puts_fail_whole(struct fixture *f, const char *how, enum memos_status expected)
{
    for (unsigned skip = 0;; skip++) {
        struct memos_error err = {0};
        assert_true(skip < STEPS_MOST);
        start_afresh(f);
        fail_call(how, skip);
        enum memos_status status = put_both(f, &err);
        if (end_of_faults() == 0) {
            assert_int_equal(status, MEMOS_OK);
            assert_true(skip >= 8);
            return;
        }
        if (status == MEMOS_OK) {
            expect_both(f); /* a call that did not matter */
        } else {
            assert_int_equal(status, expected);
            assert_true(err.text[0] != 0);
            assert_int_equal(cubes_of(f), 0);
        }
        uint64_t there = cubes_of(f);
        assert_int_equal(put_both(f, &err), MEMOS_OK);
        reopen(f);
        assert_int_equal(cubes_of(f), there + 2);
        expect_both(f);
        if (skip % 4 == 0) {
            expect_sound(f);
        }
    }
}

static void puts_on_a_full_disk_fail_whole(void **state)
{
    puts_fail_whole(*state, "ENOSPC all", MEMOS_NO_SPACE);
}

static void puts_on_a_broken_disk_fail_whole(void **state)
{
    puts_fail_whole(*state, "EIO all", MEMOS_IO);
}

static void puts_that_reach_only_the_cache_fail_whole(void **state)
{
    puts_fail_whole(*state, "EIO write,sync,late", MEMOS_IO);
}

static void a_full_disk_serves_reads_and_recovers(void **state)
{
    struct fixture *f = *state;
    struct memos_error err = {0};
    assert_int_equal(put_both(f, &err), MEMOS_OK);
    assert_int_equal(fault_plan("ENOSPC all 0 0 memos-test"), 0);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(put_both(f, &err), MEMOS_NO_SPACE);
        expect_both(f);
    }
    assert_int_equal(fault_plan(""), 0);
    assert_int_equal(put_both(f, &err), MEMOS_OK);
    expect_both(f);
    assert_int_equal(cubes_of(f), 4);
    expect_sound(f);
}

/* A store that cannot be opened now is opened when the disk works again. */
static void opening_survives_a_broken_disk(void **state)
{
    struct fixture *f = *state;
    struct memos_error err = {0};
    unsigned refused = 0;
    for (int fresh = 0; fresh < 2; fresh++) {
        for (unsigned skip = 0;; skip++) {
            assert_true(skip < STEPS_MOST);
            memcube_store_close(&f->store);
            if (fresh) {
                folder_remove(f->path);
                folder_make(f->path);
            }
            fail_call("EIO all", skip);
            enum memos_status status = open_store(f);
            unsigned long hits = end_of_faults();
            if (status != MEMOS_OK) {
                refused++;
                assert_null(f->store);
                assert_int_equal(open_store(f), MEMOS_OK);
            }
            assert_int_equal(put_both(f, &err), MEMOS_OK);
            expect_both(f);
            if (hits == 0) {
                break;
            }
        }
    }
    assert_true(refused > 0);
    expect_sound(f);
}

static enum memos_status forget_both(struct fixture *f, struct memos_error *err)
{
    struct memcube_change about = change();
    struct memos_id ids[] = {f->small, f->blob};
    struct memcube_outcome outcome;
    struct memcube_forgotten forgotten;
    struct memcube_write *write = NULL;
    enum memos_status status = memcube_write_begin(f->store, &write, err);
    if (status != MEMOS_OK) {
        return status;
    }
    status = memcube_forget(write, &about, ids, 2, false, false, &outcome, &forgotten, err);
    if (status != MEMOS_OK) {
        memcube_write_abort(&write);
        return status;
    }
    return memcube_write_commit(&write, err);
}

/* Each call of a forget fails once. Whether it was done or not, it was done whole; and once the
 * store says forgotten, the next open leaves nothing to read. */
static void forgetting_is_finished_sooner_or_later(void **state)
{
    struct fixture *f = *state;
    unsigned undone = 0, pending = 0;
    for (unsigned skip = 0;; skip++) {
        struct memos_error err = {0};
        assert_true(skip < STEPS_MOST);
        start_afresh(f);
        assert_int_equal(put_both(f, &err), MEMOS_OK);
        assert_true(folder_scan(f->path, memos_bytes_of(secret)) > 0);
        fail_call("EIO all", skip);
        enum memos_status status = forget_both(f, &err);
        unsigned long hits = end_of_faults();
        if (status == MEMOS_OK) {
            assert_int_equal(folder_scan(f->path, memos_bytes_of(secret)), 0);
        }
        reopen(f);
        if (cubes_of(f) == 0) {
            pending += status != MEMOS_OK;
        } else {
            assert_int_not_equal(status, MEMOS_OK);
            undone++;
            expect_both(f);
            assert_int_equal(forget_both(f, &err), MEMOS_OK);
        }
        assert_int_equal(folder_scan(f->path, memos_bytes_of(secret)), 0);
        assert_int_equal(read_words(f, &f->small, memos_bytes_of("")), MEMOS_FORGOTTEN);
        assert_int_equal(read_words(f, &f->blob, memos_bytes_of("")), MEMOS_FORGOTTEN);
        if (hits == 0) {
            break;
        }
    }
    assert_true(undone >= 2 && pending >= 2);
    expect_sound(f);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(puts_on_a_full_disk_fail_whole),
        TEST(puts_on_a_broken_disk_fail_whole),
        TEST(puts_that_reach_only_the_cache_fail_whole),
        TEST(a_full_disk_serves_reads_and_recovers),
        TEST(opening_survives_a_broken_disk),
        TEST(forgetting_is_finished_sooner_or_later),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
