/* Keys that can be destroyed.
 *
 * If these failed, forgotten words could be read from the disk, or remembered ones could not. */
#include "memcube/vault.h"
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
    char folder[FOLDER_PATH_BYTES];
    char path[FOLDER_PATH_BYTES + 16];
    struct memcube_vault *vault;
};

static void open_vault(struct fixture *f)
{
    struct memos_error err = {0};
    if (memcube_vault_open(f->folder, false, &f->vault, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    folder_make(f->folder);
    (void)snprintf(f->path, sizeof f->path, "%s/vault", f->folder);
    open_vault(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(fault_plan(""), 0);
    memcube_vault_close(&f->vault);
    folder_remove(f->folder);
    free(f);
    return 0;
}

static void texts_come_back_after_a_reopen(void **state)
{
    struct fixture *f = *state;
    char secret[] = "the cat is called Ada", hidden[sizeof secret], again[sizeof secret];
    struct memos_error err = {0};
    assert_int_equal(memcube_vault_reserve(f->vault, 20000, &err), MEMOS_OK);
    assert_int_equal(
        memcube_vault_apply(f->vault, 20000, 7, secret, hidden, sizeof secret, &err), MEMOS_OK);
    assert_memory_not_equal(secret, hidden, sizeof secret);
    memcube_vault_close(&f->vault);
    open_vault(f);
    assert_int_equal(
        memcube_vault_apply(f->vault, 20000, 8, hidden, again, sizeof secret, &err), MEMOS_OK);
    assert_memory_not_equal(secret, again, sizeof secret);
    assert_int_equal(
        memcube_vault_apply(f->vault, 20000, 7, hidden, hidden, sizeof secret, &err), MEMOS_OK);
    assert_memory_equal(secret, hidden, sizeof secret);
}

static void keys_differ(void **state)
{
    struct fixture *f = *state;
    uint8_t first[32], second[32];
    assert_int_equal(memcube_vault_reserve(f->vault, 2, NULL), MEMOS_OK);
    assert_int_equal(memcube_vault_key(f->vault, 1, first, NULL), MEMOS_OK);
    assert_int_equal(memcube_vault_key(f->vault, 2, second, NULL), MEMOS_OK);
    assert_memory_not_equal(first, second, 32);
}

static void a_destroyed_key_is_nowhere(void **state)
{
    struct fixture *f = *state;
    uint8_t key[32], kept[32], again[32];
    uint64_t slots[] = {5, 16384};
    struct memos_error err = {0};
    assert_int_equal(memcube_vault_reserve(f->vault, 16385, NULL), MEMOS_OK);
    assert_int_equal(memcube_vault_key(f->vault, 5, key, NULL), MEMOS_OK);
    assert_int_equal(memcube_vault_key(f->vault, 6, kept, NULL), MEMOS_OK);
    assert_int_equal(folder_scan(f->folder, memos_bytes_make(key, 32)), 1);
    assert_int_equal(memcube_vault_destroy(f->vault, slots, 2, &err), MEMOS_OK);
    assert_int_equal(folder_scan(f->folder, memos_bytes_make(key, 32)), 0);
    assert_int_equal(folder_scan(f->folder, memos_bytes_make(key, 8)), 0);
    for (int reopened = 0; reopened < 2; reopened++) {
        assert_int_equal(memcube_vault_key(f->vault, 5, again, &err), MEMOS_FORGOTTEN);
        assert_int_equal(
            memcube_vault_apply(f->vault, 16384, 0, key, again, 1, &err), MEMOS_FORGOTTEN);
        assert_int_equal(memcube_vault_key(f->vault, 6, again, &err), MEMOS_OK);
        assert_memory_equal(kept, again, 32);
        memcube_vault_close(&f->vault);
        open_vault(f);
    }
    /* Reserving goes on after the destroyed ones and does not fill them again. */
    assert_int_equal(memcube_vault_reserve(f->vault, 40000, &err), MEMOS_OK);
    assert_int_equal(memcube_vault_key(f->vault, 5, again, &err), MEMOS_FORGOTTEN);
}

static void slots_that_are_not_there_are_refused(void **state)
{
    struct fixture *f = *state;
    uint8_t key[32];
    uint64_t far = 16385;
    assert_int_equal(memcube_vault_reserve(f->vault, 1, NULL), MEMOS_OK);
    assert_int_equal(memcube_vault_key(f->vault, 0, key, NULL), MEMOS_CORRUPT);
    assert_int_equal(memcube_vault_key(f->vault, far, key, NULL), MEMOS_CORRUPT);
    assert_int_equal(memcube_vault_key(f->vault, UINT64_MAX, key, NULL), MEMOS_CORRUPT);
    assert_int_equal(memcube_vault_destroy(f->vault, &far, 1, NULL), MEMOS_CORRUPT);
}

/* Each write and sync of growing fails once; the keys that were there stay, and growing works when
 * the disk does. */
static void growing_survives_a_full_disk(void **state)
{
    struct fixture *f = *state;
    uint8_t before[32], after[32];
    uint64_t want = 16384;
    unsigned failures = 0;
    assert_int_equal(memcube_vault_reserve(f->vault, want, NULL), MEMOS_OK);
    assert_int_equal(memcube_vault_key(f->vault, 1, before, NULL), MEMOS_OK);
    for (unsigned skip = 0;; skip++) {
        struct memos_error err = {0};
        char plan[64];
        (void)snprintf(plan, sizeof plan, "ENOSPC write,sync %u 1 vault", skip);
        assert_int_equal(fault_plan(plan), 0);
        enum memos_status status = memcube_vault_reserve(f->vault, want + 1, &err);
        unsigned long hits = fault_hits();
        assert_int_equal(fault_plan(""), 0);
        if (hits == 0) {
            assert_int_equal(status, MEMOS_OK);
            break;
        }
        failures++;
        assert_int_equal(status, MEMOS_NO_SPACE);
        assert_int_equal(memcube_vault_key(f->vault, want + 1, after, NULL), MEMOS_CORRUPT);
        memcube_vault_close(&f->vault);
        open_vault(f);
        assert_int_equal(memcube_vault_key(f->vault, 1, after, NULL), MEMOS_OK);
        assert_memory_equal(before, after, 32);
    }
    assert_true(failures >= 4);
    assert_int_equal(memcube_vault_key(f->vault, want + 1, after, NULL), MEMOS_OK);
}

static void damaged_files_are_refused(void **state)
{
    struct fixture *f = *state;
    struct memos_error err = {0};
    assert_int_equal(memcube_vault_reserve(f->vault, 1, NULL), MEMOS_OK);
    memcube_vault_close(&f->vault);
    assert_int_equal(truncate(f->path, 64 + 32 * 100), 0);
    assert_int_equal(memcube_vault_open(f->folder, false, &f->vault, &err), MEMOS_CORRUPT);
    FILE *file = fopen(f->path, "r+b");
    assert_non_null(file);
    assert_int_equal(fwrite("nonsense", 1, 8, file), 8);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(memcube_vault_open(f->folder, false, &f->vault, &err), MEMOS_CORRUPT);
    assert_null(f->vault);
    assert_int_equal(remove(f->path), 0);
    assert_int_equal(memcube_vault_open(f->folder, true, &f->vault, &err), MEMOS_NOT_FOUND);
    open_vault(f);
}

static void read_only_vaults_do_not_change(void **state)
{
    struct fixture *f = *state;
    uint8_t key[32];
    uint64_t slot = 1;
    assert_int_equal(memcube_vault_reserve(f->vault, 1, NULL), MEMOS_OK);
    memcube_vault_close(&f->vault);
    assert_int_equal(memcube_vault_open(f->folder, true, &f->vault, NULL), MEMOS_OK);
    assert_int_equal(memcube_vault_key(f->vault, 1, key, NULL), MEMOS_OK);
    assert_int_equal(memcube_vault_reserve(f->vault, 99999, NULL), MEMOS_DENIED);
    assert_int_not_equal(memcube_vault_destroy(f->vault, &slot, 1, NULL), MEMOS_OK);
    assert_int_equal(memcube_vault_key(f->vault, 1, key, NULL), MEMOS_OK);
}

struct reading {
    struct memcube_vault *vault;
    atomic_bool stop;
    atomic_uint reads;
};

static void *read_on(void *self)
{
    struct reading *r = self;
    uint8_t before[32], now[32];
    if (memcube_vault_key(r->vault, 1, before, NULL) != MEMOS_OK) {
        abort();
    }
    while (!atomic_load(&r->stop)) {
        enum memos_status status = memcube_vault_key(r->vault, 2, now, NULL);
        if (memcube_vault_key(r->vault, 1, now, NULL) != MEMOS_OK || memcmp(before, now, 32) != 0 ||
            (status != MEMOS_OK && status != MEMOS_FORGOTTEN)) {
            abort();
        }
        atomic_fetch_add(&r->reads, 1);
    }
    return NULL;
}

static void readers_run_beside_growing_and_destroying(void **state)
{
    struct fixture *f = *state;
    pthread_t threads[2];
    uint64_t slot = 2;
    assert_int_equal(memcube_vault_reserve(f->vault, 2, NULL), MEMOS_OK);
    struct reading reading = {.vault = f->vault};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, read_on, &reading), 0);
    }
    for (unsigned i = 1; i <= 4; i++) {
        assert_int_equal(memcube_vault_reserve(f->vault, i * 16384 + 1, NULL), MEMOS_OK);
        assert_int_equal(memcube_vault_destroy(f->vault, &slot, 1, NULL), MEMOS_OK);
        while (atomic_load(&reading.reads) < 10 * i) {
            (void)sched_yield();
        }
    }
    atomic_store(&reading.stop, true);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(texts_come_back_after_a_reopen),
        TEST(keys_differ),
        TEST(a_destroyed_key_is_nowhere),
        TEST(slots_that_are_not_there_are_refused),
        TEST(growing_survives_a_full_disk),
        TEST(damaged_files_are_refused),
        TEST(read_only_vaults_do_not_change),
        TEST(readers_run_beside_growing_and_destroying),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
