/* Products, in all types of weights, on all levels of this processor, beside ref's.
 *
 * If these failed, an encoder would give vectors that differ from machine to machine, or write over
 * what lies behind its outputs. */
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

/* Of the root mean square. float32: rounding of K additions, whose error grows as K's root does
 * beside that. bf16: the same x and W, but vdpbf16ps and tdpbf16ps round their sums otherwise.
 * int8: sums are exact. */
static double bound_of(enum kern_dtype dtype, size_t k)
{
    double longer = k > 4000 ? sqrt((double)k / 4000) : 1;
    return longer * (dtype == KERN_BF16 ? 2e-4 : 2e-5);
}

struct shape {
    size_t t, n, k;
};

/* One product: what all contexts share. */
struct product {
    struct shape s;
    enum kern_dtype dtype;
    enum kern_activation act;
    float *x, *w, *bias, *residual; /* the last two may be NULL */
    size_t shift;                   /* of y, in bytes */
    bool in_place;                  /* y is the residual */
};

/* y on ctx, to be freed with check_free. */
static float *run(struct kern_ctx *ctx, const struct product *p)
{
    struct kern_matrix *w = NULL;
    struct memos_error err;
    assert_int_equal(
        kern_matrix_pack(ctx, p->dtype, KERN_F32, p->w, p->s.n, p->s.k, &w, &err), MEMOS_OK);
    assert_true(kern_matrix_bytes(w) >= p->s.n * p->s.k * kern_dtype_bytes(p->dtype));
    size_t bytes = kern_linear_workspace_bytes(ctx, w, p->s.t);
    void *workspace = check_bytes(bytes, 0);
    float *y = check_poisoned(p->s.t * p->s.n, p->shift);
    if (p->in_place) {
        memcpy(y, p->residual, p->s.t * p->s.n * sizeof *y);
    }
    struct kern_linear a = {
        .x = p->x,
        .w = w,
        .bias = p->bias,
        .residual = p->in_place ? y : p->residual,
        .y = y,
        .t = p->s.t,
        .act = p->act,
        .workspace = workspace,
    };
    kern_linear(ctx, &a);
    check_free(workspace);
    kern_matrix_free(&w);
    assert_null(w);
    return y;
}

static void compare_all(struct check *check, const struct product *p)
{
    float *want = run(check->contexts[0], p);
    for (size_t i = 1; i < check->contexts_count; i++) {
        float *got = run(check->contexts[i], p);
        /* many rows of codes are multiplied as bf16, which an error of half a 127th tells apart */
        bool widened = check->contexts[i] == check->cuda && p->dtype == KERN_I8 && p->s.t > 64;
        if (!check_close(want, got, p->s.t * p->s.n, widened ? 0.05 : bound_of(p->dtype, p->s.k))) {
            fail_msg("%s, %s: t %zu, n %zu, k %zu, act %d", kern_ctx_name(check->contexts[i]),
                kern_dtype_name(p->dtype), p->s.t, p->s.n, p->s.k, (int)p->act);
        }
        check_free(got);
    }
    check_free(want);
}

static void compare(struct check *check, struct shape s, enum kern_dtype dtype)
{
    uint64_t how = check_next(check);
    struct product p = {
        .s = s,
        .dtype = dtype,
        .act = (enum kern_activation)(how % 5),
        .x = check_filled(check, s.t * s.k, how >> 8 & 60),
        .w = check_filled(check, s.n * s.k, how >> 16 & 60),
        .bias = how >> 24 & 1 ? check_filled(check, s.n, 4) : NULL,
        .residual = how >> 25 & 1 ? check_filled(check, s.t * s.n, 8) : NULL,
        .shift = how >> 32 & 60,
    };
    p.in_place = p.residual && how >> 26 & 1;
    compare_all(check, &p);
    check_free(p.x);
    check_free(p.w);
    if (p.bias) {
        check_free(p.bias);
    }
    if (p.residual) {
        check_free(p.residual);
    }
}

static const enum kern_dtype dtypes[] = {KERN_F32, KERN_BF16, KERN_I8};

static void test_random_shapes(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < 60; i++) {
        struct shape s = {
            check_size(check, 1, 70), check_size(check, 1, 130), check_size(check, 1, 200)};
        compare(check, s, dtypes[i % 3]);
    }
}

/* Every height of a tile, every rest of a panel. */
static void test_small_shapes(void **state)
{
    struct check *check = *state;
    for (size_t t = 1; t <= 17; t++) {
        for (size_t i = 0; i < 3; i++) {
            compare(check, (struct shape){t, 16 + t, 3 * t}, dtypes[i]);
            compare(check, (struct shape){t, t, 1}, dtypes[i]);
        }
    }
}

/* More than one block of rows, more than one piece a thread. */
static void test_large_shapes(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < 3; i++) {
        compare(check, (struct shape){check_size(check, 97, 230), 96, 67}, dtypes[i]);
        compare(check, (struct shape){12, 384, 384}, dtypes[i]);
    }
}

/* K that is cut: sums go on where the last cut left them. */
static void test_large_k(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < 3; i++) {
        compare(check, (struct shape){check_size(check, 97, 120), 40, 4000}, dtypes[i]);
        compare(check, (struct shape){check_size(check, 2, 20), 150, 9001}, dtypes[i]);
    }
}

/* A row of y is the same to the bit alone and among others. */
static void test_rows_are_alone(void **state)
{
    struct check *check = *state;
    enum { T = 101, N = 33, K = 2561 };
    for (size_t i = 0; i < 3; i++) {
        struct product p = {.s = {T, N, K}, .dtype = dtypes[i]};
        float *x = check_filled(check, (size_t)T * K, 0);
        p.w = check_filled(check, (size_t)N * K, 0);
        for (size_t c = 1; c < check->contexts_count; c++) {
            /* cuda promises it for so many rows of these weights (kern.h) */
            size_t most = dtypes[i] == KERN_I8 ? 64 : 8;
            size_t rows = check->contexts[c] == check->cuda ? most : T;
            p.x = x;
            p.s.t = rows;
            float *all = run(check->contexts[c], &p);
            for (size_t t = 0; t < rows; t += 10) {
                p.x = x + t * K;
                p.s.t = 1 + t % 3 < rows - t ? 1 + t % 3 : rows - t;
                float *some = run(check->contexts[c], &p);
                assert_memory_equal(all + t * N, some, p.s.t * N * sizeof *some);
                check_free(some);
            }
            check_free(all);
        }
        check_free(x);
        check_free(p.w);
    }
}

static void run_typed(struct kern_ctx *ctx, const struct kern_matrix *w, const void *x,
    enum kern_dtype x_dtype, void *y, enum kern_dtype y_dtype, size_t t)
{
    void *workspace = check_bytes(kern_linear_workspace_bytes(ctx, w, t), 0);
    struct kern_linear a = {
        .x = x,
        .w = w,
        .y = y,
        .t = t,
        .x_dtype = x_dtype,
        .y_dtype = y_dtype,
        .workspace = workspace,
    };
    kern_linear(ctx, &a);
    check_free(workspace);
}

/* bf16 x gives the bits of the float32 that it was; bf16 y is float32 y, rounded. */
static void test_bf16_between(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < 12; i++) {
        struct shape s = {check_size(check, 1, 40), check_size(check, 1, 70),
            i % 2 ? 64 * check_size(check, 1, 4) : check_size(check, 1, 200)};
        float *x = check_filled(check, s.t * s.k, 0), *w = check_filled(check, s.n * s.k, 0);
        uint16_t *halves = check_bytes(s.t * s.k * 2, 2);
        kern_from_f32(KERN_BF16, x, halves, s.t * s.k);
        kern_to_f32(KERN_BF16, halves, x, s.t * s.k);
        for (size_t c = 0; c < check->contexts_count; c++) {
            struct kern_ctx *ctx = check->contexts[c];
            struct kern_matrix *packed = NULL;
            size_t count = s.t * s.n;
            float *y = check_poisoned(count, 0), *same = check_poisoned(count, 4);
            uint16_t *narrow = check_bytes(2 * count, 2), *rounded = check_bytes(2 * count, 0);
            assert_int_equal(
                kern_matrix_pack(ctx, KERN_BF16, KERN_F32, w, s.n, s.k, &packed, NULL), MEMOS_OK);
            run_typed(ctx, packed, x, KERN_F32, y, KERN_F32, s.t);
            run_typed(ctx, packed, halves, KERN_BF16, same, KERN_F32, s.t);
            run_typed(ctx, packed, halves, KERN_BF16, narrow, KERN_BF16, s.t);
            kern_from_f32(KERN_BF16, y, rounded, count);
            assert_memory_equal(y, same, count * sizeof *y);
            assert_memory_equal(narrow, rounded, 2 * count);
            kern_matrix_free(&packed);
            check_free(y);
            check_free(same);
            check_free(narrow);
            check_free(rounded);
        }
        check_free(x);
        check_free(w);
        check_free(halves);
    }
}

static void test_no_rows(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < 3; i++) {
        compare(check, (struct shape){0, 20, 30}, dtypes[i]);
    }
}

/* Zeros have no scale to divide by; numbers near the end of float32 must not run over in int8. */
static void test_extreme_rows(void **state)
{
    struct check *check = *state;
    struct shape s = {4, 19, 40};
    for (size_t i = 0; i < 3; i++) {
        struct product p = {.s = s, .dtype = dtypes[i]};
        p.x = check_filled(check, s.t * s.k, 0);
        p.w = check_filled(check, s.n * s.k, 0);
        memset(p.x, 0, s.k * sizeof *p.x);
        memset(p.w + s.k, 0, s.k * sizeof *p.w);
        for (size_t k = 0; k < s.k; k++) {
            p.x[s.k + k] *= 1e30F;
            p.w[2 * s.k + k] *= 1e-30F;
        }
        compare_all(check, &p);
        check_free(p.x);
        check_free(p.w);
    }
}

/* f16 and bf16 files are packed as if they were widened first. */
static void test_pack_from_halves(void **state)
{
    struct check *check = *state;
    static const enum kern_dtype from[] = {KERN_F16, KERN_BF16};
    enum { N = 21, K = 35 };
    float *w = check_filled(check, (size_t)N * K, 0), wide[N * K];
    uint16_t halves[N * K];
    for (size_t i = 0; i < 6; i++) {
        struct kern_ctx *ctx = check->contexts[check->contexts_count - (check->cuda ? 2 : 1)];
        struct kern_matrix *direct = NULL, *widened = NULL;
        kern_from_f32(from[i % 2], w, halves, (size_t)N * K);
        kern_to_f32(from[i % 2], halves, wide, (size_t)N * K);
        assert_int_equal(
            kern_matrix_pack(ctx, dtypes[i / 2], from[i % 2], halves, N, K, &direct, NULL),
            MEMOS_OK);
        assert_int_equal(
            kern_matrix_pack(ctx, dtypes[i / 2], KERN_F32, wide, N, K, &widened, NULL), MEMOS_OK);
        assert_int_equal(direct->bytes, widened->bytes);
        assert_memory_equal(direct->data, widened->data, direct->panel_bytes * ((N + 15) / 16));
        kern_matrix_free(&direct);
        kern_matrix_free(&widened);
    }
    check_free(w);
}

static void test_unsupported(void **state)
{
    struct check *check = *state;
    struct kern_matrix *w = NULL;
    struct memos_error err;
    static const float row[4];
    assert_int_equal(kern_matrix_pack(check->contexts[0], KERN_E4M3, KERN_F32, row, 1, 4, &w, &err),
        MEMOS_UNSUPPORTED);
    assert_int_equal(kern_matrix_pack(check->contexts[0], KERN_F32, KERN_I8, row, 1, 4, &w, &err),
        MEMOS_UNSUPPORTED);
    assert_int_equal(
        kern_matrix_pack(check->contexts[0], KERN_I8, KERN_F32, row, 1, 65537, &w, &err),
        MEMOS_UNSUPPORTED);
    assert_null(w);
    kern_matrix_free(&w);
}

/* ---- the comparison itself ----------------------------------------------------------------- */

static const struct kern_tiles *right;

/* Forgets the last number of K. */
static void wrong_run(const struct kern_tile *tile)
{
    struct kern_tile less = *tile;
    less.k--;
    right->run(&less);
}

static void test_wrong_kernel_is_seen(void **state)
{
    struct check *check = *state;
    struct kern_ops wrong = *kern_ops_of(NULL, NULL);
    if (!wrong.tiles[0]) {
        skip();
    }
    right = wrong.tiles[0];
    struct kern_tiles tiles = *right;
    tiles.run = wrong_run;
    assert_true(kern_ops_agree(&wrong));
    wrong.tiles[0] = &tiles;
    assert_false(kern_ops_agree(&wrong));

    struct kern_ctx *ctx = check->contexts[check->contexts_count - 1];
    struct kern_ctx wrong_ctx = *ctx;
    wrong_ctx.ops = &wrong;
    struct shape s = {5, 33, 384};
    struct product p = {.s = s, .dtype = KERN_F32};
    p.x = check_filled(check, s.t * s.k, 0);
    p.w = check_filled(check, s.n * s.k, 0);
    float *want = run(check->contexts[0], &p), *got = run(ctx, &p), *bad = run(&wrong_ctx, &p);
    assert_true(check_close(want, got, s.t * s.n, bound_of(KERN_F32, s.k)));
    assert_false(check_close(want, bad, s.t * s.n, bound_of(KERN_F32, s.k)));
    check_free(want);
    check_free(got);
    check_free(bad);
    check_free(p.x);
    check_free(p.w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_shapes),
        cmocka_unit_test(test_small_shapes),
        cmocka_unit_test(test_large_shapes),
        cmocka_unit_test(test_large_k),
        cmocka_unit_test(test_rows_are_alone),
        cmocka_unit_test(test_bf16_between),
        cmocka_unit_test(test_no_rows),
        cmocka_unit_test(test_extreme_rows),
        cmocka_unit_test(test_pack_from_halves),
        cmocka_unit_test(test_unsupported),
        cmocka_unit_test(test_wrong_kernel_is_seen),
    };
    return cmocka_run_group_tests_name(
        "kernels/linear", tests, check_setup_copying, check_teardown);
}
