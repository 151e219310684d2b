/* If these failed, a store could answer searches and listings wrongly for ever, with its history
 * intact; or a repair could make it worse. */
#include "tests/memcube/damage.h"
#include "tests/memcube/history.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- an index that keeps each text's hash -------------------------------------------------- */

static memcube_table index_table;

static struct memcube_key index_key(uint32_t space, uint32_t doc)
{
    return memcube_key_of_u32(space, doc);
}

static struct memcube_hash index_value(const struct memcube_index_doc *doc)
{
    struct memcube_hasher hasher;
    memcube_hasher_begin(&hasher);
    memcube_hasher_add(&hasher, doc->text);
    memcube_hasher_add(&hasher, doc->version->description.title);
    memcube_hasher_add(&hasher, memos_bytes_make(doc->secret, 32));
    memcube_hasher_add(&hasher, memos_bytes_make(doc->key, MEMCUBE_DOC_KEY_BYTES));
    return memcube_hasher_end(&hasher);
}

static enum memos_status index_open(void *self, struct memcube_db *db, struct memos_error *err)
{
    (void)self;
    return memcube_db_table(db, "hashes", MEMCUBE_TABLE_MAP, &index_table, err);
}

static enum memos_status index_add(void *self, struct memcube_txn *txn,
    const struct memcube_index_doc *doc, struct memos_error *err)
{
    struct memcube_key key = index_key(doc->space, doc->doc);
    struct memcube_hash value = index_value(doc);
    (void)self;
    return memcube_put(txn, index_table, memcube_key_view(&key),
        memos_bytes_make(value.bytes, sizeof value.bytes), err);
}

static enum memos_status index_erase(
    void *self, struct memcube_txn *txn, uint32_t space, uint32_t doc, struct memos_error *err)
{
    struct memcube_key key = index_key(space, doc);
    (void)self;
    enum memos_status status = memcube_delete(
        txn, index_table, memcube_key_view(&key), memos_bytes_make(NULL, 0), err);
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

static enum memos_status index_check(void *self, struct memcube_txn *txn,
    const struct memcube_index_doc *doc, struct memos_error *err)
{
    struct memcube_key key = index_key(doc->space, doc->doc);
    struct memcube_hash value = index_value(doc);
    struct memos_bytes found;
    (void)self;
    enum memos_status status =
        memcube_get(txn, index_table, memcube_key_view(&key), &found, err);
    if (status == MEMOS_NOT_FOUND ||
        (status == MEMOS_OK &&
            !memos_bytes_equal(found, memos_bytes_make(value.bytes, sizeof value.bytes)))) {
        return memos_fail(err, MEMOS_CORRUPT, "its hash is another");
    }
    return status;
}

static struct memcube_index hashes = {
    .name = "hashes",
    .open = index_open,
    .add = index_add,
    .erase = index_erase,
    .check = index_check,
};
static struct memcube_index *const indexes[] = { &hashes };

/* ---- a store and its tables ---------------------------------------------------------------- */

#define TABLES_MAX 16

struct table {
    const char *name;
    memcube_table handle;
    bool is_set;
};

struct bench {
    struct fixture f;
    struct history history;
    struct table tables[TABLES_MAX];
    size_t tables_count;
    struct memcube_hash before[TABLES_MAX];
    char told[256]; /* the last problem */
};

static void bench_make(struct bench *b)
{
    struct memcube_payload_tables payload;
    memset(b, 0, sizeof *b);
    fixture_make(&b->f);
    b->f.options.indexes = indexes;
    b->f.options.indexes_count = 1;
    fixture_reopen(&b->f);
    b->history = history_make(&b->f, "s");
    (void)history_make(&b->f, "t"); /* a neighbour, to be left alone */
    const struct memcube_tables *all = &b->f.store->tables;
    memcube_payloads_tables(b->f.store->payloads, &payload);
    const struct table tables[] = {
        { "chain", all->chain, false },
        { "cube", all->cube, false },
        { "doc", all->doc, false },
        { "bits", all->bits, false },
        { "facet", all->facet, true },
        { "time", all->time, false },
        { "external", all->external, false },
        { "edge", all->edge, true },
        { "expiry", all->expiry, false },
        { "payload.refs", payload.refs, false },
        { "hashes", index_table, false },
        { "space", all->space, false },
        { "row", all->row, false },
        { "log", all->log, false },
    };
    b->tables_count = sizeof tables / sizeof tables[0];
    memcpy(b->tables, tables, sizeof tables);
    for (size_t i = 0; i < b->tables_count; i++) {
        b->before[i] = damage_table_hash(&b->f, b->tables[i].handle);
    }
}

static void hear(void *self, const char *problem)
{
    struct bench *b = self;
    (void)snprintf(b->told, sizeof b->told, "%s", problem);
}

static struct memcube_fsck_result fsck(struct bench *b, bool repair)
{
    struct memcube_fsck_result result;
    b->told[0] = '\0';
    memcube_read_end(&b->f.read);
    assert_ok(memcube_fsck(b->f.store, repair, NULL, hear, b, &result, fixture_error()));
    assert_int_equal(result.problems == 0, result.first[0] == '\0');
    return result;
}

/* It is found, named, mended; and every table is what it was, byte for byte. */
static void assert_found_and_mended(struct bench *b, const char *name, const char *what, size_t n)
{
    struct memcube_fsck_result found = fsck(b, false);
    if (found.problems == 0 || found.repaired != 0) {
        fail_msg("%s, %s %zu: fsck finds nothing", name, what, n);
    }
    if (!strstr(found.first, name) && !strstr(b->told, name)) {
        fail_msg("%s, %s %zu: fsck says: %s", name, what, n, found.first);
    }
    struct memcube_fsck_result mended = fsck(b, true);
    if (mended.problems != mended.repaired) {
        fail_msg("%s, %s %zu: %llu found, %llu mended: %s; %s", name, what, n,
            (unsigned long long)mended.problems, (unsigned long long)mended.repaired,
            mended.first, b->told);
    }
    struct memcube_fsck_result after = fsck(b, false);
    if (after.problems != 0) {
        fail_msg("%s, %s %zu: after the repair: %s", name, what, n, after.first);
    }
    for (size_t i = 0; i < b->tables_count; i++) {
        struct memcube_hash now = damage_table_hash(&b->f, b->tables[i].handle);
        if (!memcube_hash_equal(&now, &b->before[i])) {
            fail_msg("%s, %s %zu: table %s is not what it was", name, what, n, b->tables[i].name);
        }
    }
}

static const struct table *table_named(const struct bench *b, const char *name)
{
    for (size_t i = 0; i < b->tables_count; i++) {
        if (strcmp(b->tables[i].name, name) == 0) {
            return &b->tables[i];
        }
    }
    fail_msg("no table %s", name);
    return NULL;
}

/* Remove each entry of a table, and change bytes of each, one after the other. */
static void plant_everywhere(const char *name)
{
    struct bench b;
    struct damage_entry entry;
    size_t n = 0;
    bench_make(&b);
    const struct table *table = table_named(&b, name);
    for (; damage_entry_at(&b.f, table->handle, n, &entry); n++) {
        damage_remove(&b.f, table->handle, table->is_set, &entry);
        assert_found_and_mended(&b, name, "entry without", n);
        for (size_t at = 0; !table->is_set && at < entry.value_size;
             at += entry.value_size > 64 ? 61 : 3) {
            struct damage_entry bad = entry;
            bad.value[at] ^= 0x11;
            damage_put(&b.f, table->handle, &bad);
            assert_found_and_mended(&b, name, "value of entry", n);
        }
    }
    assert_true(n > 0);

    /* One too many: a key, and in a set a value, that nobody asked for. */
    assert_true(damage_entry_at(&b.f, table->handle, 0, &entry));
    if (table->is_set) {
        entry.value[entry.value_size - 1] ^= 0x40;
        damage_put(&b.f, table->handle, &entry);
        assert_found_and_mended(&b, name, "value too many", 0);
        assert_true(damage_entry_at(&b.f, table->handle, 0, &entry));
    }
    entry.key[entry.key_size - 1] ^= 0x40;
    damage_put(&b.f, table->handle, &entry);
    assert_found_and_mended(&b, name, "key too many", 0);
    fixture_drop(&b.f);
}

/* ---- tests --------------------------------------------------------------------------------- */

static void test_sound_store_has_no_problems(void **state)
{
    struct bench b;
    (void)state;
    bench_make(&b);
    struct memcube_fsck_result result = fsck(&b, false);
    if (result.problems != 0) {
        fail_msg("%s", result.first);
    }
    struct memcube_space space = fixture_space(&b.f, "s");
    assert_int_equal(result.spaces, 2);
    assert_int_equal(result.cubes, 16);
    assert_int_equal(result.versions, 2 * space.versions);
    assert_int_equal(result.docs, 2 * space.docs);
    assert_int_equal(result.blobs, 2);
    fixture_reopen(&b.f);
    assert_int_equal(fsck(&b, true).problems, 0);
    fixture_drop(&b.f);
}

#define PLANT(table)                                                                               \
    static void test_##table(void **state)                                                         \
    {                                                                                              \
        (void)state;                                                                               \
        plant_everywhere(#table);                                                                  \
    }
PLANT(chain)
PLANT(cube)
PLANT(doc)
PLANT(bits)
PLANT(facet)
PLANT(time)
PLANT(external)
PLANT(edge)
PLANT(expiry)
#undef PLANT

static void test_references(void **state)
{
    (void)state;
    plant_everywhere("payload.refs");
}

static void test_index(void **state)
{
    struct bench b;
    struct damage_entry entry;
    (void)state;
    bench_make(&b);
    const struct table *table = table_named(&b, "hashes");
    for (size_t n = 0; damage_entry_at(&b.f, table->handle, n, &entry); n++) {
        damage_remove(&b.f, table->handle, false, &entry);
        assert_found_and_mended(&b, "hashes", "entry without", n);
        entry.value[n % 32] ^= 1;
        damage_put(&b.f, table->handle, &entry);
        assert_found_and_mended(&b, "hashes", "value of entry", n);
    }
    fixture_drop(&b.f);
}

static void test_counts_of_the_space(void **state)
{
    struct bench b;
    struct damage_entry entry;
    (void)state;
    bench_make(&b);
    const struct table *table = table_named(&b, "space");
    const size_t counts_at = 4 + 16 + 8 + 32 + 8 + 8; /* cubes, versions, docs, bytes */
    for (size_t at = counts_at; at < counts_at + 8 + 8 + 4 + 8; at += 3) {
        assert_true(damage_entry_at(&b.f, table->handle, 0, &entry));
        entry.value[at] ^= 0x02;
        damage_put(&b.f, table->handle, &entry);
        assert_found_and_mended(&b, "space s", "count at byte", at);
    }
    fixture_drop(&b.f);
}

static void test_all_tables_gone(void **state)
{
    struct bench b;
    struct damage_entry entry;
    (void)state;
    bench_make(&b);
    for (size_t i = 0; i < b.tables_count; i++) {
        const char *name = b.tables[i].name;
        if (strcmp(name, "space") == 0 || strcmp(name, "row") == 0 || strcmp(name, "log") == 0) {
            continue;
        }
        while (damage_entry_at(&b.f, b.tables[i].handle, 0, &entry)) {
            damage_remove(&b.f, b.tables[i].handle, false, &entry);
        }
    }
    struct memcube_fsck_result result = fsck(&b, true);
    assert_int_equal(result.problems, result.repaired);
    assert_int_equal(fsck(&b, false).problems, 0);
    for (size_t i = 0; i < b.tables_count; i++) {
        struct memcube_hash now = damage_table_hash(&b.f, b.tables[i].handle);
        if (!memcube_hash_equal(&now, &b.before[i])) {
            fail_msg("table %s is not what it was", b.tables[i].name);
        }
    }
    assert_text(&b.f, "s", &b.history.tea.id, 1, "Ann likes tea");
    fixture_drop(&b.f);
}

static void test_strays(void **state)
{
    struct bench b;
    struct damage_entry entry;
    struct memcube_payload_tables payload;
    char path[FOLDER_PATH_BYTES + 128];
    (void)state;
    bench_make(&b);
    memcube_payloads_tables(b.f.store->payloads, &payload);
    assert_true(damage_entry_at(&b.f, payload.data, 0, &entry));
    entry.key[4] ^= 1; /* a slot far beyond */
    damage_put(&b.f, payload.data, &entry);
    (void)snprintf(path, sizeof path, "%s/blobs/ab", b.f.path);
    (void)mkdir(path, 0700);
    (void)snprintf(path, sizeof path,
        "%s/blobs/ab/ab00000000000000000000000000000000000000000000000000000000000000-1", b.f.path);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "words", 5), 5);
    assert_int_equal(close(fd), 0);

    struct memcube_fsck_result result = fsck(&b, false);
    assert_int_equal(result.problems, 2);
    assert_int_equal(access(path, F_OK), 0);
    result = fsck(&b, true);
    assert_int_equal(result.problems, 2);
    assert_int_equal(result.repaired, 2);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(fsck(&b, false).problems, 0);
    fixture_drop(&b.f);
}

/* What cannot be rebuilt is reported and left alone. */
static void test_history_is_never_changed(void **state)
{
    struct bench b;
    struct damage_entry entry, bad;
    (void)state;
    bench_make(&b);
    const memcube_table handles[] = { b.f.store->tables.log, b.f.store->tables.row };
    for (size_t t = 0; t < 2; t++) {
        for (size_t n = 0; n < 8; n++) {
            assert_true(damage_entry_at(&b.f, handles[t], n, &entry));
            bad = entry;
            bad.value[entry.value_size / 2] ^= 0x20;
            for (int gone = 0; gone < 2; gone++) {
                if (gone) {
                    damage_remove(&b.f, handles[t], false, &entry);
                } else {
                    damage_put(&b.f, handles[t], &bad);
                }
                struct memcube_hash log = damage_table_hash(&b.f, handles[0]);
                struct memcube_hash row = damage_table_hash(&b.f, handles[1]);
                struct memcube_fsck_result result = fsck(&b, true);
                assert_true(result.problems > result.repaired);
                struct memcube_hash log_now = damage_table_hash(&b.f, handles[0]);
                struct memcube_hash row_now = damage_table_hash(&b.f, handles[1]);
                assert_true(memcube_hash_equal(&log, &log_now));
                assert_true(memcube_hash_equal(&row, &row_now));
                damage_put(&b.f, handles[t], &entry);
                struct memcube_fsck_result again = fsck(&b, true);
                assert_int_equal(again.problems, again.repaired);
                assert_int_equal(fsck(&b, false).problems, 0);
            }
        }
    }
    fixture_drop(&b.f);
}

/* A repair runs beside writers that forget, and takes nothing of that for damage. */
static void test_beside_a_writer_that_forgets(void **state)
{
    struct bench b;
    struct history_writing writing;
    (void)state;
    bench_make(&b);
    b.f.options.clock = memos_clock_system();
    fixture_reopen(&b.f);
    history_writing_begin(&writing, b.f.store, "s", 400);
    bool done;
    do {
        done = history_writing_done(&writing);
        struct memcube_fsck_result result = fsck(&b, true);
        if (result.problems != 0) {
            fail_msg("%s", result.first);
        }
    } while (!done);
    history_writing_end(&writing);
    fixture_drop(&b.f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sound_store_has_no_problems),
        cmocka_unit_test(test_chain),
        cmocka_unit_test(test_cube),
        cmocka_unit_test(test_doc),
        cmocka_unit_test(test_bits),
        cmocka_unit_test(test_facet),
        cmocka_unit_test(test_time),
        cmocka_unit_test(test_external),
        cmocka_unit_test(test_edge),
        cmocka_unit_test(test_expiry),
        cmocka_unit_test(test_references),
        cmocka_unit_test(test_index),
        cmocka_unit_test(test_counts_of_the_space),
        cmocka_unit_test(test_all_tables_gone),
        cmocka_unit_test(test_strays),
        cmocka_unit_test(test_history_is_never_changed),
        cmocka_unit_test(test_beside_a_writer_that_forgets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
