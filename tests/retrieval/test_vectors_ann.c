/* Approximate indexes under the vector index: they name what an exact search would find, live
 * through a restart, and leave nothing of what is forgotten in any file.
 *
 * If these failed, large spaces would be searched slowly or wrongly, or a file would keep what a
 * user had forgotten. */
#include "retrieval/vectors_internal.h"
#include "tests/fault/fault_inject.h"
#include "tests/retrieval/vectors_fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROWS 900

static const struct retrieval_vectors_options options = {.exact_rows_max = 200};

static void name_of(int i, char out[32])
{
    (void)snprintf(out, 32, "thing%d %d", i / 10, i);
}

static struct memos_id ids[ROWS];

static void make(struct vectors_fixture *v)
{
    vectors_make(v, &options, true);
    for (int i = 0; i < ROWS; i++) {
        char text[32];
        name_of(i, text);
        ids[i] = vectors_put(v, "home", text, true).id;
    }
}

/* Work until nothing is left to do; how many times it worked. */
static int work(struct vectors_fixture *v)
{
    bool worked = true;
    int count = -1;
    for (; worked; count++) {
        assert_ok(retrieval_vectors_work(v->vectors, NULL, NULL, &worked, fixture_error()));
    }
    return count;
}

/* Is the i-th found by its own words? */
static bool is_found(struct vectors_fixture *v, int i)
{
    char text[32];
    name_of(i, text);
    const struct vectors_found found = vectors_search(v, "home", text, NULL, NULL, 10);
    return found.count > 0 && found.hits[0].doc == (uint32_t)i + 1 && found.hits[0].cosine > 0.99f;
}

static void forget(struct vectors_fixture *v, int i)
{
    const struct memcube_change change = change_of("home");
    struct memcube_outcome outcome;
    struct memcube_forgotten forgotten;
    assert_ok(memcube_forget(fixture_write(&v->f), &change, &ids[i], 1, false, false, &outcome,
        &forgotten, fixture_error()));
    fixture_commit(&v->f);
}

static size_t files(struct vectors_fixture *v)
{
    return folder_count(v->f.path, ".ann") + folder_count(v->f.path, ".docs");
}

static void large_spaces_are_searched_through_one(void **state)
{
    struct vectors_fixture fixture, *v = &fixture;
    char text[32];
    (void)state;
    make(v);
    assert_int_equal(work(v), 0); /* nothing was searched yet */
    assert_true(is_found(v, 7));
    assert_int_equal(vectors_stats(v).ann_searches, 0);
    assert_int_equal(work(v), 2); /* there is no file; it is built */
    assert_int_equal(vectors_stats(v).ann_built, 1);
    assert_int_equal(vectors_stats(v).ann_indexes, 1);
    assert_int_equal(files(v), 2);
    for (int i = 0; i < ROWS; i += 50) {
        assert_true(is_found(v, i));
    }
    assert_int_equal(vectors_stats(v).ann_searches, ROWS / 50);
    /* What came after it is found, too, now and after a restart; at some time it is built anew. */
    (void)vectors_put(v, "home", "thing9 later", true);
    struct vectors_found found = vectors_search(v, "home", "thing9 later", NULL, NULL, 10);
    assert_true(found.hits[0].doc == ROWS + 1 && found.missing == 0);
    assert_int_equal(work(v), 0);
    for (int i = 0; i < ROWS / 2; i++) {
        (void)snprintf(text, sizeof text, "more%d %d", i / 10, i);
        (void)vectors_put(v, "home", text, true);
    }
    assert_true(is_found(v, 3));
    assert_int_equal(work(v), 1);
    assert_int_equal(vectors_stats(v).ann_built, 2);
    found = vectors_search(v, "home", "more3 30", NULL, NULL, 1);
    assert_int_equal(found.hits[0].doc, ROWS + 1 + 31);
    /* Filters that leave few are scanned exactly. */
    const uint64_t searches = vectors_stats(v).ann_searches;
    const struct memcube_filter early = {.to_us = v->f.now_us - INT64_C(1000000) * ROWS};
    found = vectors_search(v, "home", "thing1 10", &early, NULL, 1);
    assert_true(found.count == 1 && found.wanted > 0);
    assert_int_equal(vectors_stats(v).ann_searches, searches + (found.wanted > 200));
    vectors_drop(v);
}

static void a_restart_loads_it(void **state)
{
    struct vectors_fixture fixture, *v = &fixture;
    (void)state;
    make(v);
    /* One that is filled late: its row lies elsewhere after the restart. */
    (void)vectors_put(v, "home", "late", false);
    (void)vectors_put(v, "home", "thing8 x", true);
    assert_true(is_found(v, 7));
    (void)vectors_fill(v, 1);
    assert_true(is_found(v, 8));
    assert_int_equal(work(v), 2);
    (void)vectors_put(v, "home", "thing8 after", true);
    vectors_reopen(v);
    assert_int_equal(work(v), 0);
    assert_true(is_found(v, 7));
    assert_int_equal(work(v), 1);
    assert_int_equal(vectors_stats(v).ann_loaded, 1);
    assert_int_equal(vectors_stats(v).ann_built, 0);
    for (int i = 0; i < ROWS; i += 50) {
        assert_true(is_found(v, i));
    }
    assert_true(vectors_stats(v).ann_searches > 0);
    struct vectors_found found = vectors_search(v, "home", "late", NULL, NULL, 1);
    assert_true(found.hits[0].doc == ROWS + 1);
    found = vectors_search(v, "home", "thing8 x", NULL, NULL, 1);
    assert_true(found.hits[0].doc == ROWS + 2);
    found = vectors_search(v, "home", "thing8 after", NULL, NULL, 1);
    assert_true(found.hits[0].doc == ROWS + 3);
    vectors_drop(v);
}

static void damaged_files_are_replaced(void **state)
{
    static const char *const kinds[] = {"ann", "docs", "ann", "docs"};
    struct vectors_fixture fixture, *v = &fixture;
    char path[600];
    (void)state;
    make(v);
    assert_true(is_found(v, 7));
    assert_int_equal(work(v), 2);
    const uint32_t space = fixture_space(&v->f, "home").number;
    for (size_t i = 0; i < 4; i++) {
        vectors_close(v);
        (void)snprintf(path, sizeof path, "%s/%u-1.%s", v->folder, space, kinds[i]);
        struct stat about;
        assert_int_equal(stat(path, &about), 0);
        if (i < 2) {
            int fd = open(path, O_RDWR);
            uint8_t byte;
            assert_true(fd >= 0);
            assert_int_equal(pread(fd, &byte, 1, about.st_size / 2), 1);
            byte ^= 4;
            assert_int_equal(pwrite(fd, &byte, 1, about.st_size / 2), 1);
            (void)close(fd);
        } else {
            assert_int_equal(truncate(path, about.st_size / 3), 0);
        }
        vectors_open(v);
        assert_true(is_found(v, 7));
        assert_int_equal(work(v), 2);
        assert_int_equal(vectors_stats(v).ann_loaded, 0);
        assert_int_equal(vectors_stats(v).ann_built, 1);
        assert_true(is_found(v, 17));
    }
    vectors_drop(v);
}

static void forget_destroys_the_files(void **state)
{
    struct vectors_fixture fixture, *v = &fixture;
    (void)state;
    make(v);
    assert_true(is_found(v, 7));
    assert_int_equal(work(v), 2);
    assert_int_equal(files(v), 2);
    forget(v, 7);
    assert_int_equal(files(v), 0);
    assert_false(is_found(v, 7));
    assert_true(is_found(v, 8));
    const struct memcube_as_of then = {.seq = ROWS};
    char text[32];
    name_of(7, text);
    struct vectors_found found = vectors_search(v, "home", text, NULL, &then, 10);
    assert_false(vectors_among(&found, 8));
    /* Not at the first call, since more may be forgotten; then anew, without it. */
    assert_int_equal(work(v), 0);
    assert_int_equal(work(v), 1);
    assert_int_equal(files(v), 2);
    assert_int_equal(vectors_stats(v).ann_built, 2);
    assert_false(is_found(v, 7));
    assert_true(is_found(v, 8));
    vectors_reopen(v);
    assert_true(is_found(v, 8));
    assert_int_equal(work(v), 1);
    assert_int_equal(vectors_stats(v).ann_loaded, 1);
    assert_false(is_found(v, 7));
    assert_true(is_found(v, 9));
    /* Also those that no process has looked at since it began. */
    vectors_reopen(v);
    forget(v, 9);
    assert_int_equal(files(v), 0);
    vectors_drop(v);
}

static bool stop(void *self, uint64_t done, uint64_t total)
{
    (void)self, (void)done, (void)total;
    return false;
}

/* Something is forgotten while an index is built. */
static bool forget_meanwhile(void *self, uint64_t done, uint64_t total)
{
    struct vectors_fixture *v = self;
    (void)done, (void)total;
    if (fixture_get(&v->f, "home", &ids[20], 0).state != MEMCUBE_STATE_FORGOTTEN) {
        forget(v, 20);
    }
    return true;
}

static void what_is_forgotten_meanwhile_is_not_saved(void **state)
{
    struct vectors_fixture fixture, *v = &fixture;
    bool worked = false;
    (void)state;
    make(v);
    assert_true(is_found(v, 7));
    assert_ok(retrieval_vectors_work(v->vectors, stop, NULL, &worked, fixture_error()));
    assert_true(worked); /* it looked for a file */
    assert_int_equal(
        retrieval_vectors_work(v->vectors, stop, NULL, &worked, NULL), MEMOS_CANCELLED);
    assert_int_equal(vectors_stats(v).ann_indexes, 0);
    assert_ok(retrieval_vectors_work(v->vectors, forget_meanwhile, v, &worked, fixture_error()));
    assert_int_equal(vectors_stats(v).ann_indexes, 1);
    assert_int_equal(files(v), 0);
    assert_false(is_found(v, 20));
    (void)work(v);
    assert_int_equal(work(v), 1);
    assert_int_equal(files(v), 2);
    assert_false(is_found(v, 20));
    assert_true(is_found(v, 21));
    vectors_drop(v);
}

static void a_disk_that_fails_harms_no_search(void **state)
{
    struct vectors_fixture fixture, *v = &fixture;
    static const char *const plans[] = {
        "ENOSPC write,sync 0 0 vectors", "EIO write,sync 1 0 vectors"};
    struct memos_error err;
    bool worked = false;
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        make(v);
        assert_true(is_found(v, 7));
        assert_ok(retrieval_vectors_work(v->vectors, NULL, NULL, &worked, fixture_error()));
        assert_int_equal(fault_plan(plans[i]), 0);
        enum memos_status status = retrieval_vectors_work(v->vectors, NULL, NULL, &worked, &err);
        assert_true(fault_hits() > 0);
        assert_int_equal(fault_plan(NULL), 0);
        assert_int_equal(status, i == 0 ? MEMOS_NO_SPACE : MEMOS_IO);
        assert_non_null(strstr(err.text, "vectors"));
        assert_int_equal(vectors_stats(v).ann_indexes, 1); /* in use all the same */
        assert_true(is_found(v, 27));
        assert_int_equal(folder_count(v->f.path, ".ann"), 0);
        forget(v, 27);
        assert_false(is_found(v, 27));
        assert_int_equal(files(v), 0);
        vectors_drop(v);
    }
}

static void a_folder_that_cannot_be_made_harms_no_search(void **state)
{
    struct vectors_fixture fixture, *v = &fixture;
    bool worked = false;
    struct memos_error err;
    (void)state;
    make(v);
    int fd = open(v->folder, O_WRONLY | O_CREAT, 0600); /* a file is in its place */
    assert_true(fd >= 0);
    (void)close(fd);
    assert_true(is_found(v, 7));
    assert_ok(retrieval_vectors_work(v->vectors, NULL, NULL, &worked, fixture_error()));
    assert_int_not_equal(retrieval_vectors_work(v->vectors, NULL, NULL, &worked, &err), MEMOS_OK);
    assert_true(is_found(v, 27));
    assert_int_equal(unlink(v->folder), 0);
    vectors_drop(v);
}

/* A forget whose file cannot be destroyed must not say that it was done. */
static void a_file_that_cannot_be_destroyed_fails_the_forget(void **state)
{
    struct vectors_fixture fixture, *v = &fixture;
    const struct memcube_change change = change_of("home");
    struct memcube_outcome outcome;
    struct memcube_forgotten forgotten;
    (void)state;
    make(v);
    assert_true(is_found(v, 7));
    assert_int_equal(work(v), 2);
    assert_int_equal(fault_plan("EIO write,sync 0 0 vectors"), 0);
    assert_int_equal(memcube_forget(fixture_write(&v->f), &change, &ids[7], 1, false, false,
                         &outcome, &forgotten, NULL),
        MEMOS_IO);
    assert_int_equal(fault_plan(NULL), 0);
    memcube_write_abort(&v->f.write);
    assert_true(is_found(v, 7));
    forget(v, 7);
    assert_int_equal(files(v), 0);
    assert_false(is_found(v, 7));
    vectors_drop(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_spaces_are_searched_through_one),
        cmocka_unit_test(a_restart_loads_it),
        cmocka_unit_test(damaged_files_are_replaced),
        cmocka_unit_test(forget_destroys_the_files),
        cmocka_unit_test(what_is_forgotten_meanwhile_is_not_saved),
        cmocka_unit_test(a_disk_that_fails_harms_no_search),
        cmocka_unit_test(a_folder_that_cannot_be_made_harms_no_search),
        cmocka_unit_test(a_file_that_cannot_be_destroyed_fails_the_forget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
