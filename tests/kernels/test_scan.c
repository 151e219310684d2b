/* Dots of a query with rows of codes, in all types, on all levels, beside ref's.
 *
 * If these failed, a search by meaning would rank memories by wrong numbers, or by numbers that
 * depend on what else was asked for. */
#include "kernels/ops.h"
#include "tests/kernels/check.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BOUND 5e-7 /* four units in the last place of float32, of what is summed up */

static const enum kern_dtype dtypes[] = {
    KERN_F32, KERN_F16, KERN_BF16, KERN_E4M3, KERN_E5M2, KERN_I8};

/* A table of `rows` rows, `shift` bytes off alignment. */
static char *random_table(
    struct check *check, enum kern_dtype dtype, size_t rows, size_t k, size_t shift)
{
    char *table = check_bytes(rows * k * kern_dtype_bytes(dtype), shift);
    for (size_t i = 0; i < rows * k; i++) {
        float value = check_float(check);
        if (dtype == KERN_I8) {
            table[i] = (char)(int8_t)(30 * value);
        } else {
            kern_from_f32(dtype, &value, table + i * kern_dtype_bytes(dtype), 1);
        }
    }
    return table;
}

/* What the numbers of a row add to its score, each without its sign: a sum is as exact as that is
 * large, however much of it cancels out. */
static double summed(
    enum kern_dtype dtype, const char *row, size_t k, const float *query, double scale)
{
    double sum = 0;
    for (size_t i = 0; i < k; i++) {
        float value = (float)((const int8_t *)row)[i];
        if (dtype != KERN_I8) {
            kern_to_f32(dtype, row + i * kern_dtype_bytes(dtype), &value, 1);
        }
        sum += fabs((double)value * (double)query[i] * scale);
    }
    return sum;
}

static void compare(struct check *check, enum kern_dtype dtype, size_t rows, size_t k)
{
    char *table = random_table(check, dtype, rows, k, check_size(check, 0, 7));
    float *query = check_filled(check, k, 4), *scales = check_filled(check, rows, 8);
    float *want = check_poisoned(rows, 0), *part = check_poisoned(rows, 4);
    uint32_t *index = check_bytes(rows * sizeof *index, 0);
    const float *scaled = check_next(check) % 2 ? scales : NULL;
    size_t picked = 0;
    for (size_t i = 0; i < rows; i++) {
        index[picked] = (uint32_t)check_size(check, 0, rows - 1);
        picked += check_next(check) % 3 > 0;
    }
    for (size_t i = 0; i < check->contexts_count; i++) {
        const struct kern_ops *ops = check->contexts[i]->ops;
        float *got = i == 0 ? want : check_poisoned(rows, 12);
        ops->scan(dtype, table, scaled, NULL, rows, k, query, got);
        for (size_t r = 0; i > 0 && r < rows; r++) {
            const char *row = table + r * k * kern_dtype_bytes(dtype);
            double all = summed(dtype, row, k, query, scaled ? (double)scaled[r] : 1);
            if (!(fabs((double)want[r] - (double)got[r]) <= BOUND * all)) {
                fail_msg("%s: %s, row %zu of %zu, k %zu: %g, not %g", ops->name,
                    kern_dtype_name(dtype), r, rows, k, (double)got[r], (double)want[r]);
            }
        }
        /* A row's score is the same to the bit whatever is asked for beside it. */
        ops->scan(dtype, table, scaled, index, picked, k, query, part);
        for (size_t at = 0; at < picked; at++) {
            assert_memory_equal(&part[at], &got[index[at]], sizeof *part);
        }
        if (i > 0) {
            check_free(got);
        }
    }
    check_free(table);
    check_free(query);
    check_free(scales);
    check_free(want);
    check_free(part);
    check_free(index);
}

static void test_random_tables(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < 120; i++) {
        compare(check, dtypes[i % 6], check_size(check, 1, 30), check_size(check, 1, 140));
    }
    for (size_t i = 0; i < 6; i++) {
        compare(check, dtypes[i], 50, 384);
        compare(check, dtypes[i], 0, 20);
    }
}

/* Every code of the small types, alone: a one in the query picks it. NaN of e4m3 counts as 480. */
static void test_every_code(void **state)
{
    struct check *check = *state;
    for (size_t c = 0; c < check->contexts_count; c++) {
        for (unsigned code = 0; code < 256; code++) {
            for (size_t i = 3; i < 6; i++) {
                uint8_t row[33] = {0};
                float query[33] = {0}, got, want;
                row[code % 33] = (uint8_t)code;
                query[code % 33] = 1;
                kern_to_f32(dtypes[i], &row[code % 33], &want, 1);
                if (dtypes[i] == KERN_E4M3 && code % 128 == 127) {
                    want = code > 127 ? -480.0F : 480.0F;
                }
                check->contexts[c]->ops->scan(dtypes[i], row, NULL, NULL, 1, 33, query, &got);
                assert_true(got == want || (isnan(got) && isnan(want)));
            }
        }
    }
}

/* The functions of kern.h, on the best level. */
static void test_public(void **state)
{
    struct check *check = *state;
    const float table[] = {1, 2, 3, 4, 5, 6}, query[] = {1, 10}, scales[] = {1, 2, 3};
    const uint32_t index[] = {2, 0};
    float scores[3];
    (void)check;
    kern_scan(KERN_F32, table, NULL, 3, 2, query, scores);
    assert_true(scores[0] == 21 && scores[1] == 43 && scores[2] == 65);
    kern_scan_rows(KERN_F32, table, scales, index, 2, 2, query, scores);
    assert_true(scores[0] == 195 && scores[1] == 21);
    kern_scan(KERN_E4M3, table, NULL, 0, 2, query, scores);
    kern_scan_rows(KERN_E4M3, table, NULL, NULL, 0, 2, query, scores);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_tables),
        cmocka_unit_test(test_every_code),
        cmocka_unit_test(test_public),
    };
    return cmocka_run_group_tests_name("kernels/scan", tests, check_setup, check_teardown);
}
