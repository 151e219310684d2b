/* The persistence interface on LMDB, with a disk that fails on purpose.
 *
 * If these failed, an acknowledged write could be lost when the disk is full or broken, a map could
 * stay full, or two brokers could write one store. */
#include "memcube/db.h"
#include "tests/fault/fault_inject.h"
#include "tests/memcube/folder.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    char path[FOLDER_PATH_BYTES];
    struct memcube_db *db;
    memcube_table map, set;
};

static struct memos_bytes text(const char *words)
{
    return memos_bytes_of(words);
}

static void open_db(struct fixture *f, uint64_t map_bytes, uint64_t map_bytes_max)
{
    struct memcube_db_options options = {
        .path = f->path, .map_bytes = map_bytes, .map_bytes_max = map_bytes_max};
    struct memos_error err = {0};
    if (memcube_db_open(&options, &f->db, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(memcube_db_table(f->db, "map", MEMCUBE_TABLE_MAP, &f->map, &err), MEMOS_OK);
    assert_int_equal(memcube_db_table(f->db, "set", MEMCUBE_TABLE_SET, &f->set, &err), MEMOS_OK);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    folder_make(f->path);
    open_db(f, 0, 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(fault_plan(""), 0);
    memcube_db_close(&f->db);
    folder_remove(f->path);
    free(f);
    return 0;
}

static struct memcube_txn *begin_write(struct fixture *f)
{
    struct memcube_txn *txn = NULL;
    struct memos_error err = {0};
    if (memcube_txn_write(f->db, &txn, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    return txn;
}

static void put_one(struct fixture *f, const char *key, const char *value)
{
    struct memcube_txn *txn = begin_write(f);
    struct memos_error err = {0};
    assert_int_equal(memcube_put(txn, f->map, text(key), text(value), &err), MEMOS_OK);
    if (memcube_txn_commit(&txn, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    assert_null(txn);
}

/* "" when it is not there. */
static void read_one(struct fixture *f, const char *key, char out[64])
{
    struct memcube_txn *txn = NULL;
    struct memos_bytes value = {NULL, 0};
    struct memos_error err = {0};
    out[0] = 0;
    if (memcube_txn_read(f->db, &txn, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    enum memos_status status = memcube_get(txn, f->map, text(key), &value, &err);
    if (status == MEMOS_OK) {
        (void)snprintf(out, 64, "%.*s", (int)value.size, (const char *)value.data);
    } else {
        assert_int_equal(status, MEMOS_NOT_FOUND);
    }
    memcube_txn_abort(&txn);
}

static void expect(struct fixture *f, const char *key, const char *value)
{
    char found[64];
    read_one(f, key, found);
    assert_string_equal(found, value);
}

static void values_come_back_after_a_reopen(void **state)
{
    struct fixture *f = *state;
    struct memcube_txn *txn = begin_write(f);
    void *room = NULL;
    assert_int_equal(memcube_put(txn, f->map, text("a"), text("1"), NULL), MEMOS_OK);
    assert_int_equal(memcube_put(txn, f->map, text("a"), text("2"), NULL), MEMOS_OK);
    assert_int_equal(memcube_put_room(txn, f->map, text("b"), 3, &room, NULL), MEMOS_OK);
    memcpy(room, "xyz", 3);
    assert_int_equal(memcube_put(txn, f->map, text("c"), text("gone"), NULL), MEMOS_OK);
    assert_int_equal(
        memcube_delete(txn, f->map, text("c"), memos_bytes_make(NULL, 0), NULL), MEMOS_OK);
    assert_int_equal(
        memcube_delete(txn, f->map, text("c"), memos_bytes_make(NULL, 0), NULL), MEMOS_NOT_FOUND);
    assert_false(memcube_txn_broken(txn));
    assert_int_equal(memcube_txn_commit(&txn, NULL), MEMOS_OK);
    txn = begin_write(f);
    assert_int_equal(memcube_put(txn, f->map, text("d"), text("aborted"), NULL), MEMOS_OK);
    memcube_txn_abort(&txn);
    memcube_db_close(&f->db);
    open_db(f, 0, 0);
    expect(f, "a", "2");
    expect(f, "b", "xyz");
    expect(f, "c", "");
    expect(f, "d", "");
}

static void keys_of_wrong_sizes_leave_the_transaction_whole(void **state)
{
    struct fixture *f = *state;
    char longest[512];
    struct memcube_txn *txn = begin_write(f);
    struct memos_error err;
    memset(longest, 'k', sizeof longest);
    assert_int_equal(
        memcube_put(txn, f->map, memos_bytes_make(longest, 512), text("v"), &err), MEMOS_INVALID);
    assert_int_equal(memcube_put(txn, f->map, text(""), text("v"), &err), MEMOS_INVALID);
    assert_int_equal(
        memcube_put(txn, f->map, memos_bytes_make(longest, 511), text("v"), &err), MEMOS_OK);
    assert_false(memcube_txn_broken(txn));
    assert_int_equal(memcube_txn_commit(&txn, &err), MEMOS_OK);
}

static void cursors_walk_in_order(void **state)
{
    struct fixture *f = *state;
    struct memcube_cursor *cursor = NULL;
    struct memos_bytes key, value;
    struct memcube_txn *txn = begin_write(f);
    for (int i = 0; i < 100; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "k%02d", i * 7 % 100);
        assert_int_equal(memcube_put(txn, f->map, text(name), text(name), NULL), MEMOS_OK);
    }
    assert_int_equal(memcube_cursor_open(txn, f->map, &cursor, NULL), MEMOS_OK);
    int count = 0;
    enum memos_status status = memcube_cursor_move(cursor, MEMCUBE_FIRST, &key, &value, NULL);
    for (; status == MEMOS_OK; count++) {
        char name[16];
        (void)snprintf(name, sizeof name, "k%02d", count);
        assert_true(memos_bytes_equal(key, text(name)));
        status = memcube_cursor_move(cursor, MEMCUBE_NEXT, &key, &value, NULL);
    }
    assert_int_equal(status, MEMOS_NOT_FOUND);
    assert_int_equal(count, 100);
    key = text("k500");
    assert_int_equal(
        memcube_cursor_move(cursor, MEMCUBE_AT_OR_AFTER, &key, &value, NULL), MEMOS_OK);
    assert_true(memos_bytes_equal(key, text("k51")));
    assert_int_equal(memcube_cursor_delete(cursor, NULL), MEMOS_OK);
    assert_int_equal(memcube_cursor_move(cursor, MEMCUBE_NEXT, &key, &value, NULL), MEMOS_OK);
    assert_true(memos_bytes_equal(key, text("k52")));
    assert_int_equal(memcube_cursor_move(cursor, MEMCUBE_PREVIOUS, &key, &value, NULL), MEMOS_OK);
    assert_true(memos_bytes_equal(key, text("k50")));
    key = text("k51");
    assert_int_equal(memcube_cursor_move(cursor, MEMCUBE_AT, &key, &value, NULL), MEMOS_NOT_FOUND);
    memcube_cursor_close(&cursor);
    assert_int_equal(memcube_txn_commit(&txn, NULL), MEMOS_OK);
}

/* All values of a key, through cursor_values. */
static size_t sum_values(
    struct memcube_txn *txn, memcube_table table, const char *name, size_t *out_count)
{
    struct memcube_cursor *cursor = NULL;
    struct memos_bytes key = text(name), values;
    size_t sum = 0;
    uint64_t count = 0;
    *out_count = 0;
    assert_int_equal(memcube_cursor_open(txn, table, &cursor, NULL), MEMOS_OK);
    assert_int_equal(memcube_cursor_move(cursor, MEMCUBE_AT, &key, &values, NULL), MEMOS_OK);
    enum memos_status status = memcube_cursor_values(cursor, true, &values, NULL);
    while (status == MEMOS_OK) {
        struct memos_reader r = memos_reader_of(values);
        for (; r.left > 0; (*out_count)++) {
            sum += memos_read_u32_be(&r);
        }
        status = memcube_cursor_values(cursor, false, &values, NULL);
    }
    assert_int_equal(status, MEMOS_NOT_FOUND);
    assert_int_equal(memcube_cursor_count(cursor, &count, NULL), MEMOS_OK);
    assert_int_equal(count, *out_count);
    memcube_cursor_close(&cursor);
    return sum;
}

static struct memos_bytes number(uint32_t value, uint8_t out[4])
{
    for (int i = 0; i < 4; i++) {
        out[i] = (uint8_t)(value >> (24 - 8 * i));
    }
    return memos_bytes_make(out, 4);
}

static void sets_keep_one_of_each_in_order(void **state)
{
    struct fixture *f = *state;
    struct memcube_txn *txn = begin_write(f);
    uint8_t raw[4];
    size_t count;
    for (uint32_t i = 1; i <= 5000; i++) {
        uint32_t value = i * 2477 % 5000 * 2;
        assert_int_equal(
            memcube_put(txn, f->set, text("many"), number(value, raw), NULL), MEMOS_OK);
        assert_int_equal(
            memcube_put(txn, f->set, text("many"), number(value, raw), NULL), MEMOS_OK);
    }
    assert_int_equal(memcube_put(txn, f->set, text("one"), number(42, raw), NULL), MEMOS_OK);
    assert_int_equal(memcube_put(txn, f->set, text("two"), number(1, raw), NULL), MEMOS_OK);
    assert_int_equal(memcube_put(txn, f->set, text("two"), number(2, raw), NULL), MEMOS_OK);
    assert_int_equal(memcube_delete(txn, f->set, text("two"), number(1, raw), NULL), MEMOS_OK);
    assert_int_equal(
        memcube_delete(txn, f->set, text("two"), number(7, raw), NULL), MEMOS_NOT_FOUND);
    assert_false(memcube_txn_broken(txn));
    assert_int_equal(memcube_txn_commit(&txn, NULL), MEMOS_OK);

    assert_int_equal(memcube_txn_read(f->db, &txn, NULL), MEMOS_OK);
    assert_int_equal(sum_values(txn, f->set, "many", &count), 4999u * 5000u);
    assert_int_equal(count, 5000);
    assert_int_equal(sum_values(txn, f->set, "one", &count), 42);
    assert_int_equal(count, 1);
    assert_int_equal(sum_values(txn, f->set, "two", &count), 2);
    struct memcube_cursor *cursor = NULL;
    assert_int_equal(memcube_cursor_open(txn, f->set, &cursor, NULL), MEMOS_OK);
    struct memos_bytes value = number(4001, raw), key;
    assert_int_equal(
        memcube_cursor_value_at_or_after(cursor, text("many"), &value, NULL), MEMOS_OK);
    uint8_t expected[4];
    assert_true(memos_bytes_equal(value, number(4002, expected)));
    value = number(99999, raw);
    assert_int_equal(
        memcube_cursor_value_at_or_after(cursor, text("many"), &value, NULL), MEMOS_NOT_FOUND);
    key = text("many");
    assert_int_equal(memcube_cursor_move(cursor, MEMCUBE_AT, &key, &value, NULL), MEMOS_OK);
    assert_int_equal(memcube_cursor_move(cursor, MEMCUBE_NEXT_KEY, &key, &value, NULL), MEMOS_OK);
    assert_true(memos_bytes_equal(key, text("one")));
    memcube_cursor_close(&cursor);
    memcube_txn_abort(&txn);
}

static void snapshots_stand_still(void **state)
{
    struct fixture *f = *state;
    struct memcube_txn *reader = NULL;
    struct memos_bytes value;
    put_one(f, "a", "old");
    assert_int_equal(memcube_txn_read(f->db, &reader, NULL), MEMOS_OK);
    put_one(f, "a", "new");
    assert_int_equal(memcube_get(reader, f->map, text("a"), &value, NULL), MEMOS_OK);
    assert_true(memos_bytes_equal(value, text("old")));
    memcube_txn_abort(&reader);
    expect(f, "a", "new");
}

static void a_second_owner_is_told_who_has_it(void **state)
{
    struct fixture *f = *state;
    struct memcube_db_options options = {.path = f->path};
    struct memcube_db *second = NULL;
    struct memos_error err = {0};
    char pid[24];
    assert_int_equal(memcube_db_open(&options, &second, &err), MEMOS_BUSY);
    (void)snprintf(pid, sizeof pid, "%ld", (long)getpid());
    assert_non_null(strstr(err.text, pid));
    memcube_db_close(&f->db);
    assert_int_equal(memcube_db_open(&options, &second, &err), MEMOS_OK);
    memcube_db_close(&second);
    open_db(f, 0, 0);
}

/* Puts of 1 KB until the map is full. */
static enum memos_status fill(struct fixture *f, int from, int count, int *out_done)
{
    static const char kilobyte[1024];
    struct memos_error err = {0};
    struct memcube_txn *txn = begin_write(f);
    enum memos_status status = MEMOS_OK;
    for (int i = from; status == MEMOS_OK && i < from + count; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "fill%08d", i);
        status =
            memcube_put(txn, f->map, text(name), memos_bytes_make(kilobyte, sizeof kilobyte), &err);
    }
    if (status == MEMOS_OK) {
        status = memcube_txn_commit(&txn, &err);
    } else {
        assert_true(memcube_txn_broken(txn));
        assert_true(memcube_txn_map_full(txn));
    }
    memcube_txn_abort(&txn);
    *out_done = status == MEMOS_OK ? from + count : from;
    return status;
}

static void a_full_map_grows(void **state)
{
    struct fixture *f = *state;
    struct memos_error err = {0};
    struct memcube_db_stats stats;
    int done = 0, grown = 0;
    memcube_db_close(&f->db);
    open_db(f, 1 << 20, 8 << 20);
    while (grown < 3) {
        enum memos_status status = fill(f, done, 100, &done);
        if (status != MEMOS_OK) {
            assert_int_equal(status, MEMOS_NO_SPACE);
            assert_true(memcube_db_map_full(f->db));
            assert_int_equal(memcube_db_grow(f->db, &err), MEMOS_OK);
            grown++;
        }
    }
    assert_int_equal(memcube_db_stats(f->db, &stats, &err), MEMOS_OK);
    assert_int_equal(stats.map_bytes, 8 << 20);
    assert_int_equal(stats.grown, 3);
    assert_int_equal(stats.entries, done);
    assert_true(stats.used_bytes <= stats.map_bytes && stats.file_bytes > 3 << 20);
    assert_int_equal(memcube_db_grow(f->db, &err), MEMOS_NO_SPACE);
    expect(f, "nothing", "");
}

struct reading {
    struct fixture *f;
    atomic_bool stop;
    atomic_ulong reads;
};

static void *read_on(void *self)
{
    struct reading *r = self;
    while (!atomic_load(&r->stop)) {
        struct memcube_txn *txn = NULL;
        struct memos_bytes value;
        if (memcube_txn_read(r->f->db, &txn, NULL) != MEMOS_OK) {
            abort();
        }
        if (memcube_get(txn, r->f->map, text("a"), &value, NULL) != MEMOS_OK || value.size != 5 ||
            memcmp(value.data, "stead", 5) != 0) {
            abort();
        }
        memcube_txn_abort(&txn);
        atomic_fetch_add(&r->reads, 1);
    }
    return NULL;
}

static void readers_go_on_while_the_map_grows(void **state)
{
    struct fixture *f = *state;
    struct reading reading = {.f = f};
    pthread_t threads[3];
    int done = 0;
    memcube_db_close(&f->db);
    open_db(f, 1 << 20, 0);
    put_one(f, "a", "stead");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, read_on, &reading), 0);
    }
    for (int round = 0; round < 12; round++) {
        assert_int_equal(memcube_db_grow(f->db, NULL), MEMOS_OK);
        assert_int_equal(fill(f, done, 10, &done), MEMOS_OK);
        while (atomic_load(&reading.reads) < (unsigned long)(round + 1) * 3) {
            (void)sched_yield();
        }
    }
    atomic_store(&reading.stop, true);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
}

struct counting {
    struct fixture *f;
    int rounds;
};

static void *count_up(void *self)
{
    struct counting *c = self;
    for (int i = 0; i < c->rounds; i++) {
        struct memcube_txn *txn = NULL;
        struct memos_bytes value;
        char next[32];
        if (memcube_txn_write(c->f->db, &txn, NULL) != MEMOS_OK ||
            memcube_get(txn, c->f->map, text("n"), &value, NULL) != MEMOS_OK) {
            abort();
        }
        (void)snprintf(next, sizeof next, "%d", (int)strtol(value.data, NULL, 10) + 1);
        if (memcube_put(txn, c->f->map, text("n"), memos_bytes_make(next, strlen(next) + 1),
                NULL) != MEMOS_OK ||
            memcube_txn_commit(&txn, NULL) != MEMOS_OK) {
            abort();
        }
    }
    return NULL;
}

static void writers_take_turns(void **state)
{
    struct fixture *f = *state;
    struct counting counting = {f, 20};
    pthread_t threads[4];
    put_one(f, "n", "0");
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, count_up, &counting), 0);
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    expect(f, "n", "80");
}

/* Fail the first, second, third ... call that a commit makes, until one commit makes fewer calls.
 */
static void fail_every_call_once(
    struct fixture *f, const char *error, const char *calls, enum memos_status expected)
{
    unsigned long failures = 0;
    char acknowledged[16] = "start";
    put_one(f, "a", acknowledged);
    for (unsigned skip = 0;; skip++) {
        struct memcube_txn *txn = begin_write(f);
        struct memos_error err = {0};
        char plan[64], value[16], found[64];
        (void)snprintf(value, sizeof value, "v%u", skip);
        assert_int_equal(memcube_put(txn, f->map, text("a"), text(value), &err), MEMOS_OK);
        (void)snprintf(plan, sizeof plan, "%s %s %u 1 data.mdb", error, calls, skip);
        assert_int_equal(fault_plan(plan), 0);
        enum memos_status status = memcube_txn_commit(&txn, &err);
        unsigned long hits = fault_hits();
        assert_int_equal(fault_plan(""), 0);
        if (hits == 0) {
            assert_int_equal(status, MEMOS_OK);
            break;
        }
        failures++;
        assert_int_equal(status, expected);
        assert_true(err.text[0] != 0);
        read_one(f, "a", found);
        assert_string_equal(found, acknowledged);
        (void)snprintf(acknowledged, sizeof acknowledged, "ok%u", skip);
        put_one(f, "a", acknowledged);
    }
    assert_true(failures >= 3); /* pages, sync, meta page */
    memcube_db_close(&f->db);
    open_db(f, 0, 0);
    char last[16];
    (void)snprintf(last, sizeof last, "v%lu", failures);
    expect(f, "a", last);
}

static void a_full_disk_refuses_and_recovers(void **state)
{
    fail_every_call_once(*state, "ENOSPC", "write,sync", MEMOS_NO_SPACE);
}

static void a_broken_disk_refuses_and_recovers(void **state)
{
    fail_every_call_once(*state, "EIO", "write,sync", MEMOS_IO);
}

static void what_reached_only_the_cache_did_not_happen(void **state)
{
    fail_every_call_once(*state, "EIO", "write,sync,late", MEMOS_IO);
}

static void a_disk_that_stays_full_still_serves_reads(void **state)
{
    struct fixture *f = *state;
    struct memos_error err = {0};
    put_one(f, "a", "kept");
    assert_int_equal(fault_plan("ENOSPC write,sync 0 0 data.mdb"), 0);
    for (int i = 0; i < 5; i++) {
        struct memcube_txn *txn = NULL;
        if (memcube_txn_write(f->db, &txn, &err) == MEMOS_OK) {
            assert_int_equal(memcube_put(txn, f->map, text("a"), text("lost"), &err), MEMOS_OK);
            assert_int_equal(memcube_txn_commit(&txn, &err), MEMOS_NO_SPACE);
        }
        expect(f, "a", "kept");
    }
    assert_int_equal(fault_plan(""), 0);
    put_one(f, "a", "again");
    expect(f, "a", "again");
}

/* The meta page fails while a reader holds its snapshot: the reader must not notice. */
static void a_reader_outlives_the_environment(void **state)
{
    struct fixture *f = *state;
    struct reading reading = {.f = f};
    pthread_t thread;
    put_one(f, "a", "stead");
    assert_int_equal(pthread_create(&thread, NULL, read_on, &reading), 0);
    for (unsigned skip = 0; skip < 6; skip++) {
        struct memcube_txn *txn = begin_write(f);
        struct memos_error err = {0};
        char plan[64];
        assert_int_equal(memcube_put(txn, f->map, text("b"), text("x"), &err), MEMOS_OK);
        (void)snprintf(plan, sizeof plan, "EIO write,sync %u 1 data.mdb", skip);
        assert_int_equal(fault_plan(plan), 0);
        enum memos_status status = memcube_txn_commit(&txn, &err);
        assert_true(status == MEMOS_IO || (status == MEMOS_OK && fault_hits() == 0));
        assert_int_equal(fault_plan(""), 0);
        unsigned long reads = atomic_load(&reading.reads);
        while (atomic_load(&reading.reads) < reads + 3) {
            (void)sched_yield();
        }
    }
    atomic_store(&reading.stop, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static void a_file_cut_short_is_an_error(void **state)
{
    struct fixture *f = *state;
    char file[FOLDER_PATH_BYTES + 16];
    struct memos_error err = {0};
    struct memcube_db_options options = {.path = f->path};
    int done = 0;
    assert_int_equal(fill(f, 0, 2000, &done), MEMOS_OK);
    memcube_db_close(&f->db);
    (void)snprintf(file, sizeof file, "%s/data.mdb", f->path);
    assert_int_equal(truncate(file, 64 << 10), 0);
    enum memos_status status = memcube_db_open(&options, &f->db, &err);
    if (status == MEMOS_OK) {
        status = memcube_db_table(f->db, "map", MEMCUBE_TABLE_MAP, &f->map, &err);
    }
    for (int i = 0; status == MEMOS_OK && i < 2000; i++) {
        struct memcube_txn *txn = NULL;
        struct memos_bytes value;
        char name[16];
        (void)snprintf(name, sizeof name, "fill%08d", i);
        assert_int_equal(memcube_txn_read(f->db, &txn, &err), MEMOS_OK);
        status = memcube_get(txn, f->map, text(name), &value, &err);
        memcube_txn_abort(&txn);
    }
    assert_int_equal(status, MEMOS_CORRUPT);
}

struct traced {
    char text[512];
};

static void note(void *self, const char *table_name, enum memcube_table_type type,
    struct memos_bytes key, struct memos_bytes value, bool is_delete)
{
    struct traced *traced = self;
    size_t used = strlen(traced->text);
    (void)snprintf(traced->text + used, sizeof traced->text - used, "%c%s%s:%.*s=%.*s ",
        is_delete ? '-' : '+', table_name, type == MEMCUBE_TABLE_SET ? "*" : "", (int)key.size,
        (const char *)key.data, (int)value.size, value.data ? (const char *)value.data : "");
}

static void the_trace_sees_every_change(void **state)
{
    struct fixture *f = *state;
    struct traced traced = {""};
    struct memcube_cursor *cursor = NULL;
    struct memos_bytes key = text("a"), value;
    void *room = NULL;
    memcube_db_trace(f->db, note, &traced);
    struct memcube_txn *txn = begin_write(f);
    assert_int_equal(memcube_put(txn, f->map, text("a"), text("1"), NULL), MEMOS_OK);
    assert_int_equal(memcube_put_room(txn, f->map, text("r"), 2, &room, NULL), MEMOS_OK);
    memcpy(room, "ok", 2);
    assert_int_equal(memcube_put(txn, f->set, text("s"), text("v"), NULL), MEMOS_OK);
    assert_int_equal(memcube_delete(txn, f->set, text("s"), text("v"), NULL), MEMOS_OK);
    assert_int_equal(memcube_cursor_open(txn, f->map, &cursor, NULL), MEMOS_OK);
    assert_int_equal(memcube_cursor_move(cursor, MEMCUBE_AT, &key, &value, NULL), MEMOS_OK);
    assert_int_equal(memcube_cursor_delete(cursor, NULL), MEMOS_OK);
    memcube_cursor_close(&cursor);
    assert_int_equal(memcube_txn_commit(&txn, NULL), MEMOS_OK);
    memcube_db_trace(f->db, NULL, NULL);
    assert_string_equal(traced.text, "+map:a=1 +map:r=ok +set*:s=v -set*:s=v -map:a= ");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(values_come_back_after_a_reopen),
        TEST(keys_of_wrong_sizes_leave_the_transaction_whole),
        TEST(cursors_walk_in_order),
        TEST(sets_keep_one_of_each_in_order),
        TEST(snapshots_stand_still),
        TEST(a_second_owner_is_told_who_has_it),
        TEST(a_full_map_grows),
        TEST(readers_go_on_while_the_map_grows),
        TEST(writers_take_turns),
        TEST(a_full_disk_refuses_and_recovers),
        TEST(a_broken_disk_refuses_and_recovers),
        TEST(what_reached_only_the_cache_did_not_happen),
        TEST(a_disk_that_stays_full_still_serves_reads),
        TEST(a_reader_outlives_the_environment),
        TEST(a_file_cut_short_is_an_error),
        TEST(the_trace_sees_every_change),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
