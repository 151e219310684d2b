/* If these fail, a store of yesterday cannot be opened today, one of tomorrow is damaged by us, or
 * two processes write over one another. */
#include "memcube/db.h"
#include "memcube/store_internal.h"
#include "tests/memcube/store_fixture.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

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

/* Write a format number, and with `strip` take away what format 1 did not have. */
static void mark_format(struct fixture *f, uint64_t format, bool strip)
{
    const struct memcube_db_options options = { .path = f->path, .sync_off = true };
    const uint64_t le = htole64(format);
    struct memcube_db *db = NULL;
    struct memcube_txn *txn = NULL;
    memcube_table meta;
    memcube_table number;

    fixture_close(f);
    assert_ok(memcube_db_open(&options, &db, fixture_error()));
    assert_ok(memcube_db_table(db, "meta", MEMCUBE_TABLE_MAP, &meta, fixture_error()));
    assert_ok(memcube_db_table(db, "number", MEMCUBE_TABLE_MAP, &number, fixture_error()));
    assert_ok(memcube_txn_write(db, &txn, fixture_error()));
    assert_ok(memcube_put(txn, meta, text_of("format"), memos_bytes_make(&le, sizeof le),
        fixture_error()));
    for (uint32_t space = 1; strip && space <= 2; space++) {
        const struct memcube_key key = memcube_key_of(space);
        assert_ok(memcube_delete(
            txn, number, memcube_key_view(&key), memos_bytes_make(NULL, 0), fixture_error()));
    }
    assert_ok(memcube_txn_commit(&txn, fixture_error()));
    memcube_db_close(&db);
}

static void test_an_older_format_is_migrated(void **state)
{
    struct fixture *f = *state;
    struct memcube_draft draft = draft_of("mortal");
    draft.governance.expires_us = f->now_us + 5000000;
    const struct memcube_ref ref = fixture_put_draft(f, "old/one", &draft);
    fixture_put(f, "old/two", "kept");
    mark_format(f, 1, true);

    f->options.read_only = true; /* reading alone cannot migrate */
    assert_int_equal(memcube_store_open(&f->options, &f->store, NULL), MEMOS_UNSUPPORTED);
    f->options.read_only = false;
    fixture_open(f);
    f->now_us += 10000000;
    size_t count = 0;
    bool more = true;
    assert_ok(memcube_sweep(fixture_write(f), 10, &count, &more, fixture_error()));
    fixture_commit(f); /* the sweep goes by the numbers of spaces, which format 1 did not keep */
    assert_int_equal(count, 1);
    assert_int_equal(fixture_get(f, "old/one", &ref.id, 0).state, MEMCUBE_STATE_EXPIRED);
    f->options.read_only = true; /* and it is marked as migrated */
    fixture_reopen(f);
    f->options.read_only = false;
    assert_text(f, "old/one", &ref.id, 0, "mortal");
}

static void test_a_newer_format_is_refused_and_untouched(void **state)
{
    struct fixture *f = *state;
    const struct memcube_ref ref = fixture_put(f, "s", "from tomorrow");
    mark_format(f, MEMCUBE_FORMAT + 1, false);
    assert_int_equal(
        memcube_store_open(&f->options, &f->store, fixture_error()), MEMOS_UNSUPPORTED);
    assert_non_null(strstr(fixture_error()->text, "format"));
    assert_null(f->store);
    mark_format(f, MEMCUBE_FORMAT, false);
    fixture_open(f);
    assert_text(f, "s", &ref.id, 0, "from tomorrow");
}

static void test_reading_only(void **state)
{
    struct fixture *f = *state;
    const struct memcube_ref ref = fixture_put(f, "s", "look, do not touch");
    f->options.read_only = true;
    fixture_reopen(f);
    f->options.read_only = false;
    assert_text(f, "s", &ref.id, 0, "look, do not touch");
    memcube_read_end(&f->read);
    assert_int_equal(memcube_write_begin(f->store, &f->write, NULL), MEMOS_DENIED);
    fixture_close(f);
    struct memcube_store_options nothing = f->options;
    nothing.read_only = true;
    char path[FOLDER_PATH_BYTES];
    folder_make(path);
    nothing.path = path;
    assert_int_not_equal(memcube_store_open(&nothing, &f->store, NULL), MEMOS_OK);
    folder_remove(path);
    fixture_open(f);
}

static void test_one_process_at_a_time(void **state)
{
    struct fixture *f = *state;
    fixture_put(f, "s", "mine");
    memcube_read_end(&f->read);
    int status = 0;
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct memcube_store *store = NULL;
        _exit(memcube_store_open(&f->options, &store, NULL) == MEMOS_BUSY ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void test_stats_count(void **state)
{
    struct fixture *f = *state;
    struct memcube_store_stats stats;
    const struct memcube_ref ref = fixture_put(f, "s", "one");
    fixture_update(f, "s", &ref.id, "two");
    fixture_put(f, "t", "three");
    assert_ok(memcube_store_stats(f->store, &stats, fixture_error()));
    assert_int_equal(stats.spaces, 2);
    assert_int_equal(stats.commits, 3);
    assert_int_equal(stats.records, 3);
    assert_int_equal(stats.versions_made, 3);
    assert_true(stats.used_bytes > 0 && stats.map_bytes >= stats.used_bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_an_older_format_is_migrated, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_a_newer_format_is_refused_and_untouched, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reading_only, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_process_at_a_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stats_count, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
