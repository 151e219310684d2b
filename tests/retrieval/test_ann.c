/* The approximate index: what it finds beside a look at everything, and what it makes of files.
 *
 * If these failed, memories would not be found in large spaces, a search would show what its filter
 * forbids, or a damaged file would be believed, and read by a library that believes it too. */
#include "retrieval/ann.h"
#include "tests/fault/fault_inject.h"
#include "tests/memcube/folder.h"
#include "tests/retrieval/planted.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DIMS 32
#define COUNT 3000
#define COUNT_PQ 10500 /* enough to learn codes of */
#define TOP 10
#define WIDE (4 * TOP) /* how many are asked for, to be ranked exactly */

#define OK(call) assert_int_equal(call, MEMOS_OK)

static const enum retrieval_ann_type types[] = {RETRIEVAL_ANN_FLAT, RETRIEVAL_ANN_HNSW,
    RETRIEVAL_ANN_IVF_FLAT, RETRIEVAL_ANN_IVF_SQ8}; /* and pq, which is slow to learn, once */
#define TYPES (sizeof types / sizeof *types)

static const uint8_t tag[32] = {1, 2, 3}, other_tag[32] = {1, 2, 4};

struct fixture {
    char folder[FOLDER_PATH_BYTES], path[FOLDER_PATH_BYTES + 8];
    struct planted planted;
    float *vectors; /* (COUNT, DIMS) */
    uint64_t random;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    const char *seed = getenv("MEMOS_TEST_SEED");
    assert_non_null(f);
    f->random = seed ? strtoull(seed, NULL, 10) : 1603;
    print_message("MEMOS_TEST_SEED=%llu\n", (unsigned long long)f->random);
    folder_make(f->folder);
    (void)snprintf(f->path, sizeof f->path, "%s/index", f->folder);
    planted_make(&f->planted, f->random, DIMS, 60, 0.7f);
    f->vectors = malloc(COUNT_PQ * DIMS * sizeof *f->vectors);
    assert_non_null(f->vectors);
    planted_vectors(&f->planted, 0, COUNT_PQ, f->vectors);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    (void)fault_plan(NULL);
    folder_remove(f->folder);
    planted_free(&f->planted);
    free(f->vectors);
    free(f);
    return 0;
}

static struct retrieval_ann *build(struct fixture *f, enum retrieval_ann_type type, uint64_t count)
{
    struct retrieval_ann *ann = NULL;
    struct memos_error err = {0};
    struct retrieval_ann_build options = {.type = type,
        .dims = DIMS,
        .count = count,
        .vectors = planted_vectors,
        .self = &f->planted,
        .threads = 1};
    if (retrieval_ann_build(&options, &ann, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(retrieval_ann_count(ann), count);
    return ann;
}

/* ---- a look at everything ------------------------------------------------------------------ */

static float dot(const float *a, const float *b)
{
    float sum = 0.0f;
    for (size_t i = 0; i < DIMS; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

static bool wants(const uint64_t *wanted, uint64_t bits, uint64_t label)
{
    return !wanted || (label < bits && (wanted[label / 64] >> (label % 64) & 1) != 0);
}

static int falling(const void *a, const void *b)
{
    float left = *(const float *)a, right = *(const float *)b;
    return (left < right) - (left > right);
}

/* How many of `labels` are among the `top` nearest of what is wanted; also checks that they are
 * different, wanted, and in order. */
static size_t hits(const struct fixture *f, const float *query, uint64_t count,
    const uint64_t *wanted, uint64_t bits, size_t top, const int64_t *labels, const float *scores,
    size_t found)
{
    static float all[COUNT_PQ];
    size_t all_count = 0, good = 0;
    for (uint64_t label = 0; label < count; label++) {
        if (wants(wanted, bits, label)) {
            all[all_count++] = dot(query, f->vectors + label * DIMS);
        }
    }
    qsort(all, all_count, sizeof *all, falling);
    for (size_t i = 0; i < found; i++) {
        assert_true(labels[i] >= 0 && (uint64_t)labels[i] < count);
        assert_true(wants(wanted, bits, (uint64_t)labels[i]));
        assert_true(i == 0 || scores[i] <= scores[i - 1]);
        float score = dot(query, f->vectors + (size_t)labels[i] * DIMS);
        good += top >= all_count || score >= all[top - 1];
        for (size_t j = 0; j < i; j++) {
            assert_int_not_equal(labels[i], labels[j]);
        }
    }
    return good;
}

static size_t search(const struct retrieval_ann *ann, const float *query, const uint64_t *wanted,
    uint64_t bits, size_t top_k, int64_t *labels, float *scores)
{
    size_t count = SIZE_MAX;
    struct memos_error err = {0};
    if (retrieval_ann_search(ann, query, wanted, bits, top_k, labels, scores, &count, &err) !=
        MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    return count;
}

/* Share of the TOP nearest that are among WIDE found, over some queries. */
static double recall(struct fixture *f, const struct retrieval_ann *ann, const uint64_t *wanted,
    uint64_t bits, uint64_t wanted_count)
{
    int64_t labels[WIDE];
    float scores[WIDE], query[DIMS];
    size_t good = 0, all = 0;
    for (uint64_t i = 0; i < 25; i++) {
        planted_vectors(&f->planted, COUNT_PQ + i, 1, query);
        size_t found = search(ann, query, wanted, bits, WIDE, labels, scores);
        size_t most = wanted_count < WIDE ? (size_t)wanted_count : WIDE;
        assert_int_equal(found, most);
        good += hits(f, query, retrieval_ann_count(ann), wanted, bits, TOP, labels, scores, found);
        all += wanted_count < TOP ? (size_t)wanted_count : TOP;
    }
    return all > 0 ? (double)good / (double)all : 1.0;
}

/* ---- finding ------------------------------------------------------------------------------- */

static void neighbours_are_found(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < TYPES; i++) {
        struct retrieval_ann *ann = build(f, types[i], COUNT);
        double share = recall(f, ann, NULL, 0, COUNT);
        print_message("%s: recall@10 of 40: %.3f\n", retrieval_ann_describe(ann), share);
        assert_true(share >= (types[i] == RETRIEVAL_ANN_FLAT ? 1.0 : 0.95));
        assert_true(retrieval_ann_bytes(ann) > COUNT * 4);
        retrieval_ann_free(&ann);
        assert_null(ann);
        retrieval_ann_free(&ann);
    }
}

/* Product codes: coarse, but good enough to rank exactly what they name; and they come back. */
static void product_codes_are_good_enough(void **state)
{
    struct fixture *f = *state;
    struct retrieval_ann *ann = build(f, RETRIEVAL_ANN_IVF_PQ, COUNT_PQ), *loaded = NULL;
    uint64_t wanted[COUNT_PQ / 64 + 1] = {0};
    OK(retrieval_ann_save(ann, f->path, tag, NULL));
    retrieval_ann_free(&ann);
    OK(retrieval_ann_load(f->path, tag, &loaded, NULL));
    double share = recall(f, loaded, NULL, 0, COUNT_PQ);
    print_message("%s: %.3f\n", retrieval_ann_describe(loaded), share);
    assert_true(share >= 0.85);
    for (size_t i = 0; i < 20; i++) {
        wanted[i * 8] = 1;
    }
    assert_true(recall(f, loaded, wanted, COUNT_PQ, 20) >= 0.95);
    retrieval_ann_free(&loaded);
}

/* What a filter leaves is found, however little it is, and nothing else. */
static void filters_hold(void **state)
{
    struct fixture *f = *state;
    static const uint64_t one_in[] = {2, 10, 100, 1000};
    for (size_t i = 0; i < TYPES; i++) {
        struct retrieval_ann *ann = build(f, types[i], COUNT);
        for (size_t j = 0; j < sizeof one_in / sizeof *one_in; j++) {
            uint64_t wanted[COUNT / 64 + 1] = {0};
            uint64_t count = 0;
            for (uint64_t label = 0; label < COUNT; label++) {
                if (planted_random(&f->random) % one_in[j] == 0) {
                    wanted[label / 64] |= UINT64_C(1) << (label % 64);
                    count++;
                }
            }
            double share = recall(f, ann, wanted, COUNT, count);
            print_message("%s, one in %llu: %.3f\n", retrieval_ann_describe(ann),
                (unsigned long long)one_in[j], share);
            assert_true(share >= 0.95);
        }
        retrieval_ann_free(&ann);
    }
}

static void filters_have_ends(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < TYPES; i++) {
        struct retrieval_ann *ann = build(f, types[i], COUNT);
        uint64_t wanted[COUNT / 64 + 2] = {0};
        int64_t labels[COUNT];
        float scores[COUNT];
        const float *query = f->vectors;
        assert_int_equal(search(ann, query, wanted, COUNT, 5, labels, scores), 0);
        assert_int_equal(search(ann, query, NULL, 0, 0, labels, scores), 0);

        wanted[2321 / 64] |= UINT64_C(1) << (2321 % 64);
        assert_int_equal(search(ann, query, wanted, COUNT, 5, labels, scores), 1);
        assert_int_equal(labels[0], 2321);

        /* Bits after the end count for nothing, neither in its byte nor after the labels. */
        memset(wanted, 0xff, sizeof wanted);
        for (uint64_t bits = 0; bits < 20; bits++) {
            size_t found = search(ann, query, wanted, bits, 30, labels, scores);
            assert_int_equal(found, bits);
            assert_int_equal(hits(f, query, COUNT, wanted, bits, 30, labels, scores, found), bits);
        }
        assert_int_equal(search(ann, query, wanted, 64 * (COUNT / 64 + 2), 7, labels, scores), 7);
        assert_int_equal(search(ann, query, NULL, 0, COUNT, labels, scores), COUNT);
        retrieval_ann_free(&ann);
    }
}

/* Few vectors, none, and equal ones. */
static void small_indexes_are_complete(void **state)
{
    struct fixture *f = *state;
    int64_t labels[300];
    float scores[300];
    for (size_t i = 0; i < TYPES; i++) {
        for (uint64_t count = 0; count <= 300; count += count < 3 ? 1 : 297) {
            struct retrieval_ann *ann = build(f, types[i], count);
            size_t found = search(ann, f->vectors, NULL, 0, 300, labels, scores);
            assert_int_equal(found, count);
            assert_int_equal(
                hits(f, f->vectors, count, NULL, 0, 300, labels, scores, found), count);
            retrieval_ann_free(&ann);
        }
    }
    struct planted equal = f->planted;
    equal.spread = 0.0f;
    equal.centres_count = 1;
    for (size_t i = 0; i < TYPES; i++) {
        struct retrieval_ann *ann = NULL;
        struct retrieval_ann_build options = {.type = types[i],
            .dims = DIMS,
            .count = 400,
            .vectors = planted_vectors,
            .self = &equal};
        OK(retrieval_ann_build(&options, &ann, NULL));
        assert_int_equal(search(ann, equal.centres, NULL, 0, 300, labels, scores), 300);
        retrieval_ann_free(&ann);
    }
}

static void what_is_added_is_found(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < TYPES; i++) {
        struct retrieval_ann *ann = build(f, types[i], COUNT - 1000);
        for (size_t at = COUNT - 1000; at < COUNT; at += 200) {
            OK(retrieval_ann_add(ann, f->vectors + at * DIMS, 200, NULL));
        }
        OK(retrieval_ann_add(ann, NULL, 0, NULL));
        assert_int_equal(retrieval_ann_count(ann), COUNT);
        assert_true(recall(f, ann, NULL, 0, COUNT) >= 0.95);
        retrieval_ann_free(&ann);
    }
}

static void sizes_choose_types(void **state)
{
    struct fixture *f = *state;
    bool known;
    struct retrieval_ann *ann = build(f, RETRIEVAL_ANN_AUTO, 1000);
    assert_string_equal(retrieval_ann_describe(ann), "Flat");
    retrieval_ann_free(&ann);
    for (int type = RETRIEVAL_ANN_AUTO; type <= RETRIEVAL_ANN_IVF_PQ; type++) {
        const char *name = retrieval_ann_type_name((enum retrieval_ann_type)type);
        assert_int_equal(retrieval_ann_type_of(memos_bytes_of(name), &known), type);
        assert_true(known);
    }
    (void)retrieval_ann_type_of(memos_bytes_of("ivf"), &known);
    assert_false(known);
    struct retrieval_ann_build options = {.dims = 0, .count = 1};
    assert_int_equal(retrieval_ann_build(&options, &ann, NULL), MEMOS_INVALID);
}

/* ---- stopping ------------------------------------------------------------------------------ */

struct steps {
    uint64_t allowed, seen, last, total;
};

static bool step(void *self, uint64_t done, uint64_t total)
{
    struct steps *steps = self;
    assert_true(done >= steps->last && done <= total);
    assert_true(steps->seen == 0 || total == steps->total);
    steps->last = done;
    steps->total = total;
    return ++steps->seen <= steps->allowed;
}

static void building_can_be_stopped(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < TYPES; i++) {
        struct steps steps = {.allowed = types[i] == RETRIEVAL_ANN_HNSW ? 0 : 1};
        struct retrieval_ann *ann = NULL;
        struct retrieval_ann_build options = {.type = types[i],
            .dims = DIMS,
            .count = types[i] == RETRIEVAL_ANN_FLAT ? 70000 : COUNT,
            .vectors = planted_vectors,
            .self = &f->planted,
            .progress = step,
            .progress_self = &steps};
        assert_int_equal(retrieval_ann_build(&options, &ann, NULL), MEMOS_CANCELLED);
        assert_null(ann);
        assert_int_equal(steps.seen, steps.allowed + 1);
    }
    struct steps steps = {.allowed = UINT64_MAX};
    struct retrieval_ann *ann = NULL;
    struct retrieval_ann_build options = {.type = RETRIEVAL_ANN_IVF_FLAT,
        .dims = DIMS,
        .count = 3000,
        .vectors = planted_vectors,
        .self = &f->planted,
        .progress = step,
        .progress_self = &steps};
    OK(retrieval_ann_build(&options, &ann, NULL));
    assert_int_equal(steps.last, steps.total);
    assert_true(steps.seen >= 3);
    retrieval_ann_free(&ann);
}

/* ---- files --------------------------------------------------------------------------------- */

static void equal_results(
    struct fixture *f, const struct retrieval_ann *a, const struct retrieval_ann *b)
{
    int64_t left[TOP], right[TOP];
    float left_scores[TOP], right_scores[TOP];
    for (size_t i = 0; i < 10; i++) {
        const float *query = f->vectors + i * 97 * DIMS;
        assert_int_equal(search(a, query, NULL, 0, TOP, left, left_scores), TOP);
        assert_int_equal(search(b, query, NULL, 0, TOP, right, right_scores), TOP);
        assert_memory_equal(left, right, sizeof left);
        assert_memory_equal(left_scores, right_scores, sizeof left_scores);
    }
}

static void files_bring_it_back(void **state)
{
    struct fixture *f = *state;
    struct retrieval_ann *loaded = NULL;
    assert_int_equal(retrieval_ann_load(f->path, tag, &loaded, NULL), MEMOS_NOT_FOUND);
    for (size_t i = 0; i < TYPES; i++) {
        struct retrieval_ann *ann = build(f, types[i], COUNT - 100);
        OK(retrieval_ann_save(ann, f->path, tag, NULL)); /* over the one before */
        assert_int_equal(folder_count(f->folder, ""), 1);
        assert_int_equal(retrieval_ann_load(f->path, other_tag, &loaded, NULL), MEMOS_CONFLICT);
        assert_null(loaded);
        OK(retrieval_ann_load(f->path, tag, &loaded, NULL));
        assert_string_equal(retrieval_ann_describe(loaded), retrieval_ann_describe(ann));
        assert_int_equal(retrieval_ann_count(loaded), COUNT - 100);
        assert_int_equal(retrieval_ann_bytes(loaded), retrieval_ann_bytes(ann));
        equal_results(f, ann, loaded);
        /* What was loaded can grow. */
        OK(retrieval_ann_add(loaded, f->vectors + (COUNT - 100) * DIMS, 100, NULL));
        assert_true(recall(f, loaded, NULL, 0, COUNT) >= 0.95);
        retrieval_ann_free(&loaded);
        retrieval_ann_free(&ann);
    }
}

static size_t file_read(const char *path, uint8_t **out)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    size_t size = (size_t)ftell(file);
    rewind(file);
    *out = malloc(size + 1);
    assert_non_null(*out);
    assert_int_equal(fread(*out, 1, size, file), size);
    fclose(file);
    return size;
}

static void file_write(const char *path, const uint8_t *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

/* Beginnings of a file, flipped bits (of the header all of them), and bytes after the end. */
static void damage_is_refused(void **state)
{
    struct fixture *f = *state;
    struct retrieval_ann *ann = build(f, RETRIEVAL_ANN_HNSW, 5), *loaded = NULL;
    struct memos_error err;
    uint8_t *bytes;
    OK(retrieval_ann_save(ann, f->path, tag, NULL));
    retrieval_ann_free(&ann);
    size_t size = file_read(f->path, &bytes);
    for (size_t cut = 0; cut < size; cut += cut < 200 ? 1 : 7) {
        file_write(f->path, bytes, cut);
        assert_int_equal(retrieval_ann_load(f->path, tag, &loaded, &err), MEMOS_CORRUPT);
        assert_null(loaded);
    }
    for (size_t bit = 0; bit < size * 8; bit += bit < 128 * 8 ? 1 : 23) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        file_write(f->path, bytes, size);
        assert_int_equal(retrieval_ann_load(f->path, tag, &loaded, &err), MEMOS_CORRUPT);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    bytes[size] = 0;
    file_write(f->path, bytes, size + 1);
    assert_int_equal(retrieval_ann_load(f->path, tag, &loaded, &err), MEMOS_CORRUPT);
    file_write(f->path, bytes, size);
    OK(retrieval_ann_load(f->path, tag, &loaded, &err));
    retrieval_ann_free(&loaded);
    free(bytes);
}

/* A disk that is full or fails leaves what was there, and nothing half. */
static void failing_disks_leave_the_old(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *plan;
        enum memos_status status;
    } faults[] = {
        {"ENOSPC write 0 0 /index.", MEMOS_NO_SPACE},
        {"ENOSPC write 1 0 /index.", MEMOS_NO_SPACE}, /* the header */
        {"EIO sync 0 1 /index.", MEMOS_IO},
        {"ENOSPC rename 0 1 /index", MEMOS_NO_SPACE},
    };
    struct retrieval_ann *small = build(f, RETRIEVAL_ANN_FLAT, 50), *loaded = NULL;
    struct retrieval_ann *large = build(f, RETRIEVAL_ANN_FLAT, 500);
    OK(retrieval_ann_save(small, f->path, tag, NULL));
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        struct memos_error err = {0};
        assert_int_equal(fault_plan(faults[i].plan), 0);
        enum memos_status status = retrieval_ann_save(large, f->path, other_tag, &err);
        assert_true(fault_hits() > 0);
        assert_int_equal(fault_plan(NULL), 0);
        assert_int_equal(status, faults[i].status);
        assert_int_equal(err.status, faults[i].status);
        assert_int_equal(folder_count(f->folder, ""), 1);
        OK(retrieval_ann_load(f->path, tag, &loaded, &err));
        assert_int_equal(retrieval_ann_count(loaded), 50);
        retrieval_ann_free(&loaded);
    }
    assert_int_equal(retrieval_ann_save(large, "/nowhere/at/all", tag, NULL), MEMOS_NOT_FOUND);
    retrieval_ann_free(&small);
    retrieval_ann_free(&large);
}

/* ---- threads ------------------------------------------------------------------------------- */

struct searcher {
    struct fixture *f;
    const struct retrieval_ann *ann;
    size_t number;
    bool agreed;
};

static void *searcher_run(void *argument)
{
    struct searcher *s = argument;
    int64_t labels[TOP];
    float scores[TOP];
    uint64_t wanted[COUNT / 64 + 1];
    size_t count;
    memset(wanted, s->number % 2 == 0 ? 0xff : 0xaa, sizeof wanted);
    s->agreed = true;
    for (size_t i = 0; i < 100; i++) {
        size_t own = (s->number * 100 + i) * 2 + 1; /* odd labels are wanted by all */
        if (retrieval_ann_search(s->ann, s->f->vectors + own * DIMS, wanted, COUNT, TOP, labels,
                scores, &count, NULL) != MEMOS_OK ||
            count != TOP || labels[0] != (int64_t)own) {
            s->agreed = false;
        }
    }
    return NULL;
}

static void many_search_at_once(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < TYPES; i++) {
        struct retrieval_ann *ann = build(f, types[i], COUNT);
        struct searcher searchers[4];
        pthread_t threads[4];
        for (size_t t = 0; t < 4; t++) {
            searchers[t] = (struct searcher){.f = f, .ann = ann, .number = t};
            assert_int_equal(pthread_create(&threads[t], NULL, searcher_run, &searchers[t]), 0);
        }
        for (size_t t = 0; t < 4; t++) {
            assert_int_equal(pthread_join(threads[t], NULL), 0);
            assert_true(searchers[t].agreed);
        }
        retrieval_ann_free(&ann);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(neighbours_are_found, setup, teardown),
        cmocka_unit_test_setup_teardown(filters_hold, setup, teardown),
        cmocka_unit_test_setup_teardown(filters_have_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(small_indexes_are_complete, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_added_is_found, setup, teardown),
        cmocka_unit_test_setup_teardown(sizes_choose_types, setup, teardown),
        cmocka_unit_test_setup_teardown(building_can_be_stopped, setup, teardown),
        cmocka_unit_test_setup_teardown(files_bring_it_back, setup, teardown),
        cmocka_unit_test_setup_teardown(damage_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(failing_disks_leave_the_old, setup, teardown),
        cmocka_unit_test_setup_teardown(product_codes_are_good_enough, setup, teardown),
        cmocka_unit_test_setup_teardown(many_search_at_once, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
