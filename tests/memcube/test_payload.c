/* Payloads: stored once, counted, destroyed for good.
 *
 * If these failed, what a user asked to forget could be read from the files of the store, or what
 * he asked to keep could be gone. */
#include "memcube/payload.h"
#include "memcube/record.h"
#include "tests/fault/fault_inject.h"
#include "tests/memcube/folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define INLINE_BYTES 100
#define BIG_BYTES ((size_t)3 * 1024 * 1024 / 2)

static const char secret[] = "Ada's passphrase is correct-horse-battery-staple";

struct fixture {
    char path[FOLDER_PATH_BYTES];
    struct memcube_db *db;
    struct memcube_vault *vault;
    struct memcube_payloads *payloads;
    uint64_t slot;
    struct memos_arena arena;
    struct memcube_maps maps;
    char *big;
};

static enum memos_status slot_next(
    void *self, struct memcube_txn *txn, uint64_t *out_slot, struct memos_error *err)
{
    struct fixture *f = self;
    (void)txn;
    *out_slot = ++f->slot;
    return memcube_vault_reserve(f->vault, *out_slot, err);
}

static void open_all(struct fixture *f)
{
    struct memos_error err = {0};
    struct memcube_db_options options = {.path = f->path};
    if (memcube_db_open(&options, &f->db, &err) != MEMOS_OK ||
        memcube_vault_open(f->path, false, &f->vault, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    struct memcube_payloads_options payloads = {
        .db = f->db,
        .vault = f->vault,
        .path = f->path,
        .inline_bytes_max = INLINE_BYTES,
        .slot_next = slot_next,
        .self = f,
    };
    if (memcube_payloads_open(&payloads, &f->payloads, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
}

static void close_all(struct fixture *f)
{
    memcube_maps_release(&f->maps);
    memcube_payloads_close(&f->payloads);
    memcube_vault_close(&f->vault);
    memcube_db_close(&f->db);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->big = malloc(BIG_BYTES);
    assert_non_null(f->big);
    for (size_t i = 0; i < BIG_BYTES; i++) {
        f->big[i] = secret[i % (sizeof secret - 1)];
    }
    memos_arena_init(&f->arena, 1 << 24);
    folder_make(f->path);
    open_all(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(fault_plan(""), 0);
    close_all(f);
    folder_remove(f->path);
    memos_arena_finish(&f->arena);
    free(f->big);
    free(f);
    return 0;
}

static struct memos_bytes small_payload(void)
{
    return memos_bytes_make(secret, sizeof secret - 1);
}

static struct memos_bytes big_payload(const struct fixture *f)
{
    return memos_bytes_make(f->big, BIG_BYTES);
}

static struct memcube_txn *begin(struct fixture *f)
{
    struct memcube_txn *txn = NULL;
    assert_int_equal(memcube_txn_write(f->db, &txn, NULL), MEMOS_OK);
    return txn;
}

static void commit(struct memcube_txn **txn)
{
    struct memos_error err = {0};
    if (memcube_txn_commit(txn, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
}

static struct memcube_place add(struct fixture *f, uint32_t space, struct memos_bytes bytes)
{
    struct memcube_txn *txn = begin(f);
    struct memcube_hash hash = memcube_hash_of(bytes);
    struct memcube_place place = {0};
    struct memos_error err = {0};
    uint64_t bytes_new = 0;
    if (memcube_payload_add(f->payloads, txn, space, &hash, bytes, &place, &bytes_new, &err) !=
        MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    commit(&txn);
    return place;
}

static bool release(struct fixture *f, uint32_t space, struct memos_bytes bytes, uint32_t count)
{
    struct memcube_txn *txn = begin(f);
    struct memcube_hash hash = memcube_hash_of(bytes);
    bool destroyed = false;
    assert_int_equal(
        memcube_payload_release(f->payloads, txn, space, &hash, count, &destroyed, NULL), MEMOS_OK);
    commit(&txn);
    return destroyed;
}

static uint64_t shred(struct fixture *f)
{
    uint64_t count = 0;
    struct memos_error err = {0};
    if (memcube_payloads_shred(f->payloads, &count, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    return count;
}

static enum memos_status read_back(struct fixture *f, uint32_t space, struct memos_bytes expected,
    struct memcube_place place, bool verify)
{
    struct memcube_txn *txn = NULL;
    struct memcube_hash hash = memcube_hash_of(expected);
    struct memos_bytes found = {NULL, 0};
    assert_int_equal(memcube_txn_read(f->db, &txn, NULL), MEMOS_OK);
    enum memos_status status = memcube_payload_read(f->payloads, txn, space, place, &hash,
        expected.size, verify, &f->arena, &f->maps, &found, NULL);
    if (status == MEMOS_OK) {
        assert_true(memos_bytes_equal(expected, found));
    }
    memcube_txn_abort(&txn);
    return status;
}

static void expect_blobs(struct fixture *f, uint64_t expected)
{
    uint64_t count = 99, bytes = 0;
    memcube_payloads_blobs(f->payloads, &count, &bytes);
    assert_int_equal(count, expected);
    assert_int_equal(bytes, expected * BIG_BYTES);
}

static void payloads_come_back(void **state)
{
    struct fixture *f = *state;
    struct memos_bytes empty = memos_bytes_of("");
    struct memcube_place small = add(f, 1, small_payload());
    struct memcube_place big = add(f, 1, big_payload(f));
    struct memcube_place nothing = add(f, 1, empty);
    assert_true(small.slot != 0 && nothing.slot != 0 && big.slot == 0);
    close_all(f);
    open_all(f);
    assert_int_equal(read_back(f, 1, small_payload(), small, true), MEMOS_OK);
    assert_int_equal(read_back(f, 1, big_payload(f), big, true), MEMOS_OK);
    assert_int_equal(read_back(f, 1, empty, nothing, true), MEMOS_OK);
    assert_int_equal(read_back(f, 2, big_payload(f), big, true), MEMOS_FORGOTTEN);
    /* The small one nowhere in the clear; the big one in its file alone. */
    assert_int_equal(folder_count(f->path, "-1"), 1);
    assert_int_equal(folder_scan(f->path, small_payload()), BIG_BYTES / small_payload().size);
}

static void a_payload_is_stored_once(void **state)
{
    struct fixture *f = *state;
    struct memcube_hash hash = memcube_hash_of(small_payload());
    struct memcube_place first = add(f, 1, small_payload()), second, other;
    struct memcube_txn *txn = begin(f);
    uint64_t bytes_new = 99, references = 0;
    assert_int_equal(
        memcube_payload_add(f->payloads, txn, 1, &hash, small_payload(), &second, &bytes_new, NULL),
        MEMOS_OK);
    assert_int_equal(bytes_new, 0);
    assert_int_equal(second.slot, first.slot);
    assert_int_equal(memcube_payload_share(f->payloads, txn, 1, &hash, &second, NULL), MEMOS_OK);
    assert_int_equal(
        memcube_payload_share(f->payloads, txn, 2, &hash, &second, NULL), MEMOS_NOT_FOUND);
    /* Another space has its own copy under its own key. */
    assert_int_equal(
        memcube_payload_add(f->payloads, txn, 2, &hash, small_payload(), &other, &bytes_new, NULL),
        MEMOS_OK);
    assert_int_equal(bytes_new, small_payload().size);
    assert_int_not_equal(other.slot, first.slot);
    assert_int_equal(
        memcube_payload_references(f->payloads, txn, 1, &hash, &references, NULL), MEMOS_OK);
    assert_int_equal(references, 3);
    commit(&txn);
    assert_false(release(f, 1, small_payload(), 2));
    assert_int_equal(shred(f), 0);
    assert_int_equal(read_back(f, 1, small_payload(), first, true), MEMOS_OK);
    assert_true(release(f, 1, small_payload(), 1));
    assert_int_equal(shred(f), 1);
    assert_int_equal(read_back(f, 1, small_payload(), first, true), MEMOS_FORGOTTEN);
    assert_int_equal(read_back(f, 2, small_payload(), other, true), MEMOS_OK);
}

static void what_is_destroyed_is_in_no_file(void **state)
{
    struct fixture *f = *state;
    uint8_t key[32];
    struct memcube_place small = add(f, 1, small_payload());
    struct memcube_place big = add(f, 1, big_payload(f));
    assert_int_equal(memcube_vault_key(f->vault, small.slot, key, NULL), MEMOS_OK);
    assert_true(folder_scan(f->path, small_payload()) > 0);
    assert_true(release(f, 1, small_payload(), 1));
    assert_true(release(f, 1, big_payload(f), 1));
    assert_int_equal(shred(f), 2);
    assert_int_equal(folder_scan(f->path, small_payload()), 0);
    assert_int_equal(folder_scan(f->path, memos_bytes_make(key, sizeof key)), 0);
    assert_int_equal(folder_count(f->path, "-1"), 0);
    assert_int_equal(read_back(f, 1, small_payload(), small, false), MEMOS_FORGOTTEN);
    assert_int_equal(read_back(f, 1, big_payload(f), big, false), MEMOS_FORGOTTEN);
    assert_int_equal(shred(f), 0);
}

static void destroying_is_finished_after_a_crash(void **state)
{
    struct fixture *f = *state;
    uint64_t removed = 0;
    (void)add(f, 1, small_payload());
    (void)add(f, 1, big_payload(f));
    assert_true(release(f, 1, small_payload(), 1));
    assert_true(release(f, 1, big_payload(f), 1));
    for (unsigned skip = 0;; skip++) {
        uint64_t count = 0;
        char plan[64];
        (void)snprintf(plan, sizeof plan, "EIO all %u 1 memos-test", skip);
        assert_int_equal(fault_plan(plan), 0);
        enum memos_status status = memcube_payloads_shred(f->payloads, &count, NULL);
        unsigned long hits = fault_hits();
        assert_int_equal(fault_plan(""), 0);
        close_all(f);
        open_all(f);
        if (hits == 0) {
            assert_int_equal(status, MEMOS_OK);
            break;
        }
    }
    assert_int_equal(shred(f), 0);
    assert_int_equal(memcube_payloads_sweep(f->payloads, &removed, NULL), MEMOS_OK);
    assert_int_equal(folder_scan(f->path, small_payload()), 0);
    assert_int_equal(folder_count(f->path, "-1"), 0);
}

static void blobs_that_nothing_names_are_swept(void **state)
{
    struct fixture *f = *state;
    struct memcube_hash hash = memcube_hash_of(big_payload(f));
    struct memcube_place place, kept = add(f, 7, big_payload(f));
    uint64_t bytes_new, removed = 0;
    struct memcube_txn *txn = begin(f);
    assert_int_equal(
        memcube_payload_add(f->payloads, txn, 1, &hash, big_payload(f), &place, &bytes_new, NULL),
        MEMOS_OK);
    memcube_txn_abort(&txn);
    assert_int_equal(folder_count(f->path, "-1"), 1);
    assert_int_equal(memcube_payloads_sweep(f->payloads, &removed, NULL), MEMOS_OK);
    assert_int_equal(removed, 1);
    assert_int_equal(folder_count(f->path, "-1"), 0);
    assert_int_equal(read_back(f, 7, big_payload(f), kept, true), MEMOS_OK);
    expect_blobs(f, 1);
    (void)add(f, 2, big_payload(f));
    (void)add(f, 2, big_payload(f));
    expect_blobs(f, 2);
    assert_true(release(f, 2, big_payload(f), 2));
    assert_int_equal(shred(f), 1);
    expect_blobs(f, 1);
}

/* Unless something names them by then, or has named them all the time. */
static void blobs_of_an_abandoned_write_go_at_once(void **state)
{
    struct fixture *f = *state;
    struct memcube_hash hash = memcube_hash_of(big_payload(f));
    struct memcube_place place;
    uint64_t bytes_new;
    for (int named = 0; named < 2; named++) {
        struct memcube_txn *txn = begin(f);
        assert_int_equal(memcube_payload_add(
                             f->payloads, txn, 1, &hash, big_payload(f), &place, &bytes_new, NULL),
            MEMOS_OK);
        memcube_txn_abort(&txn);
        if (named) {
            place = add(f, 1, big_payload(f));
        }
        memcube_payloads_settle(f->payloads, false);
        expect_blobs(f, (uint64_t)named);
        assert_int_equal(folder_count(f->path, "-1"), named);
    }
    memcube_payloads_settle(f->payloads, false);
    assert_int_equal(read_back(f, 1, big_payload(f), place, true), MEMOS_OK);
}

static void words_put_again_before_the_shredding_stay(void **state)
{
    struct fixture *f = *state;
    (void)add(f, 1, big_payload(f));
    (void)add(f, 1, small_payload());
    assert_true(release(f, 1, big_payload(f), 1));
    assert_true(release(f, 1, small_payload(), 1));
    struct memcube_place big = add(f, 1, big_payload(f));
    struct memcube_place small = add(f, 1, small_payload());
    assert_int_equal(shred(f), 2);
    assert_int_equal(read_back(f, 1, big_payload(f), big, true), MEMOS_OK);
    assert_int_equal(read_back(f, 1, small_payload(), small, true), MEMOS_OK);
}

static void a_blob_that_cannot_be_written_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct memcube_hash hash = memcube_hash_of(big_payload(f));
    unsigned failures = 0;
    for (unsigned skip = 0;; skip++) {
        struct memcube_place place;
        struct memos_error err = {0};
        uint64_t bytes_new = 0;
        char plan[64];
        struct memcube_txn *txn = begin(f);
        (void)snprintf(plan, sizeof plan, "ENOSPC all %u 1 blobs", skip);
        assert_int_equal(fault_plan(plan), 0);
        enum memos_status status = memcube_payload_add(
            f->payloads, txn, 1, &hash, big_payload(f), &place, &bytes_new, &err);
        unsigned long hits = fault_hits();
        assert_int_equal(fault_plan(""), 0);
        if (hits == 0) {
            assert_int_equal(status, MEMOS_OK);
            commit(&txn);
            assert_int_equal(read_back(f, 1, big_payload(f), place, true), MEMOS_OK);
            break;
        }
        failures++;
        assert_int_equal(status, MEMOS_NO_SPACE);
        memcube_txn_abort(&txn);
        assert_int_equal(folder_count(f->path, ".new"), 0);
    }
    assert_true(failures >= 4);
}

static void damage_is_found(void **state)
{
    struct fixture *f = *state;
    struct memcube_place big = add(f, 1, big_payload(f));
    struct memcube_hash hash = memcube_hash_of(big_payload(f));
    struct memos_bytes path;
    assert_int_equal(
        memcube_payload_file(f->payloads, 1, big, &hash, &f->arena, &path, NULL), MEMOS_OK);
    FILE *file = fopen(path.data, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, 1 << 20, SEEK_SET), 0);
    assert_int_equal(fputc('#', file), '#');
    assert_int_equal(fclose(file), 0);
    assert_int_equal(read_back(f, 1, big_payload(f), big, true), MEMOS_CORRUPT);
    assert_int_equal(truncate(path.data, 1000), 0);
    assert_int_equal(read_back(f, 1, big_payload(f), big, false), MEMOS_CORRUPT);
    assert_int_equal(unlink(path.data), 0);
    assert_int_equal(read_back(f, 1, big_payload(f), big, false), MEMOS_CORRUPT);
}

static void files_are_private_and_have_a_path(void **state)
{
    struct fixture *f = *state;
    struct memcube_place big = add(f, 1, big_payload(f)), small = add(f, 1, small_payload());
    struct memcube_hash hash = memcube_hash_of(big_payload(f));
    struct memos_bytes path;
    struct stat about;
    assert_int_equal(
        memcube_payload_file(f->payloads, 1, big, &hash, &f->arena, &path, NULL), MEMOS_OK);
    assert_int_equal(((const char *)path.data)[0], '/');
    assert_int_equal(strlen(path.data), path.size);
    assert_int_equal(stat(path.data, &about), 0);
    assert_int_equal(about.st_mode & 0777, 0600);
    assert_int_equal(about.st_size, BIG_BYTES);
    assert_int_equal(memcube_payload_file(f->payloads, 1, small, &hash, &f->arena, &path, NULL),
        MEMOS_NOT_FOUND);
    assert_true(release(f, 1, big_payload(f), 1));
    assert_int_equal(shred(f), 1);
    assert_int_equal(
        memcube_payload_file(f->payloads, 1, big, &hash, &f->arena, &path, NULL), MEMOS_FORGOTTEN);
}

/* More than one batch of the list. */
static void many_are_destroyed_at_once(void **state)
{
    struct fixture *f = *state;
    struct memcube_txn *txn = begin(f);
    for (int i = 0; i < 600; i++) {
        char words[32];
        struct memcube_place place;
        uint64_t bytes_new;
        bool destroyed = false;
        (void)snprintf(words, sizeof words, "hidden words %d", i);
        struct memcube_hash hash = memcube_hash_of(memos_bytes_of(words));
        assert_int_equal(memcube_payload_add(f->payloads, txn, 1, &hash, memos_bytes_of(words),
                             &place, &bytes_new, NULL),
            MEMOS_OK);
        assert_int_equal(
            memcube_payload_release(f->payloads, txn, 1, &hash, 1, &destroyed, NULL), MEMOS_OK);
        assert_true(destroyed);
    }
    commit(&txn);
    assert_int_equal(shred(f), 600);
    uint8_t key[32];
    for (uint64_t slot = 1; slot <= 600; slot++) {
        assert_int_equal(memcube_vault_key(f->vault, slot, key, NULL), MEMOS_FORGOTTEN);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(payloads_come_back),
        TEST(a_payload_is_stored_once),
        TEST(what_is_destroyed_is_in_no_file),
        TEST(destroying_is_finished_after_a_crash),
        TEST(blobs_that_nothing_names_are_swept),
        TEST(blobs_of_an_abandoned_write_go_at_once),
        TEST(words_put_again_before_the_shredding_stay),
        TEST(a_blob_that_cannot_be_written_leaves_nothing),
        TEST(damage_is_found),
        TEST(files_are_private_and_have_a_path),
        TEST(many_are_destroyed_at_once),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
