/* Weights in blocks as GGUF has them: what their codes mean, how numbers become codes, and products
 * with them on all levels of this processor, beside ref's.
 *
 * If these failed, a model from a GGUF file would be another model than the one that its author
 * measured, or speak differently from machine to machine. */
#include "kernels/blocks.h"
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

static const enum kern_dtype dtypes[] = {KERN_Q8_0, KERN_Q4_0, KERN_Q4_K, KERN_Q6_K};

/* Sums of groups are exact; what is left is float32 rounding of K / 32 additions. */
static const double bound = 2e-5;

/* ---- products ------------------------------------------------------------------------------ */

static void put_scale(struct check *check, float size, uint8_t *to)
{
    float scale = size * (1 + check_float(check) / 8);
    kern_from_f32(KERN_F16, &scale, to, 1);
}

/* (n, k) of any codes and of scales that are like a model's. */
static uint8_t *random_blocks(struct check *check, enum kern_dtype dtype, size_t n, size_t k)
{
    size_t block = kern_dtype_row_bytes(dtype, kern_dtype_block(dtype));
    size_t bytes = n * kern_dtype_row_bytes(dtype, k);
    uint8_t *out = check_bytes(bytes, 1); /* misaligned, as in a file */
    for (size_t i = 0; i < bytes; i++) {
        out[i] = (uint8_t)(check_next(check) >> 40);
    }
    for (size_t at = 0; at < bytes; at += block) {
        if (dtype == KERN_Q6_K) {
            put_scale(check, 1e-4F, out + at + 208);
        } else {
            put_scale(check,
                dtype == KERN_Q8_0   ? 1e-2F
                : dtype == KERN_Q4_0 ? 0.1F
                                     : 2e-3F,
                out + at);
        }
        if (dtype == KERN_Q4_K) {
            put_scale(check, 2e-3F, out + at + 2);
        }
    }
    return out;
}

struct product {
    size_t t, n, k;
    enum kern_dtype dtype, from;
    const void *w;
    const float *x, *bias, *residual; /* the last two may be NULL */
    enum kern_dtype y_dtype;
};

/* y on ctx, as float32, to be freed with check_free. */
static float *run(struct kern_ctx *ctx, const struct product *p)
{
    struct kern_matrix *w = NULL;
    /* Two parts, so that a panel has rows of both. */
    size_t first = p->n / 2;
    const struct kern_part parts[] = {{p->from, p->w, first},
        {p->from, (const char *)p->w + first * kern_dtype_row_bytes(p->from, p->k), p->n - first}};
    assert_int_equal(kern_matrix_pack_parts(ctx, p->dtype, parts, 2, p->k, &w, NULL), MEMOS_OK);
    size_t n, k, bytes = kern_linear_workspace_bytes(ctx, w, p->t);
    kern_matrix_shape(w, &n, &k);
    assert_int_equal(n, p->n);
    assert_int_equal(k, p->k);
    void *workspace = check_bytes(bytes, 0);
    size_t count = p->t * p->n;
    float *y = check_poisoned(count, 0);
    uint16_t *halves = check_bytes(count * 2, 0);
    struct kern_linear a = {
        .x = p->x,
        .w = w,
        .bias = p->bias,
        .residual = p->residual,
        .y = p->y_dtype == KERN_BF16 ? (void *)halves : y,
        .t = p->t,
        .y_dtype = p->y_dtype,
        .workspace = workspace,
    };
    kern_linear(ctx, &a);
    if (p->y_dtype == KERN_BF16) {
        kern_to_f32(KERN_BF16, halves, y, count);
    }
    check_free(halves);
    check_free(workspace);
    kern_matrix_free(&w);
    return y;
}

static void compare_all(struct check *check, const struct product *p, double most)
{
    float *want = run(check->contexts[0], p);
    for (size_t i = 1; i < check->contexts_count; i++) {
        float *got = run(check->contexts[i], p);
        /* cuda multiplies these as bf16, and x is not in codes then: an error of half a 127th. */
        bool widened = check->contexts[i] == check->cuda && p->dtype >= KERN_Q4_K;
        if (!check_close(want, got, p->t * p->n, widened ? 0.05 : most)) {
            fail_msg("%s, %s from %s: t %zu, n %zu, k %zu", kern_ctx_name(check->contexts[i]),
                kern_dtype_name(p->dtype), kern_dtype_name(p->from), p->t, p->n, p->k);
        }
        check_free(got);
    }
    check_free(want);
}

static void compare(struct check *check, enum kern_dtype dtype, size_t t, size_t n, size_t blocks)
{
    size_t k = blocks * kern_dtype_block(dtype);
    uint64_t how = check_next(check);
    uint8_t *w = random_blocks(check, dtype, n, k);
    float *x = check_filled(check, t * k, how & 60);
    float *bias = check_filled(check, n, 4), *residual = check_filled(check, t * n, 8);
    struct product p = {.t = t, .n = n, .k = k, .dtype = dtype, .from = dtype, .w = w, .x = x};
    p.bias = how >> 8 & 1 ? bias : NULL;
    p.residual = how >> 9 & 1 ? residual : NULL;
    p.y_dtype = how >> 10 & 1 ? KERN_BF16 : KERN_F32;
    compare_all(check, &p, p.y_dtype == KERN_BF16 ? 0.05 : bound);
    check_free(x);
    check_free(w);
    check_free(bias);
    check_free(residual);
}

static void test_random_shapes(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < 40; i++) {
        size_t k_most = kern_dtype_block(dtypes[i % 4]) == 32 ? 17 : 3;
        compare(check, dtypes[i % 4], check_size(check, 1, 40), check_size(check, 2, 70),
            check_size(check, 1, k_most));
    }
}

/* Every height of a tile, every rest of a panel. */
static void test_small_shapes(void **state)
{
    struct check *check = *state;
    for (size_t t = 1; t <= 17; t++) {
        for (size_t i = 0; i < 4; i++) {
            compare(check, dtypes[i], t, 15 + t, 1);
            compare(check, dtypes[i], t, 3, 2);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_shapes),
        cmocka_unit_test(test_small_shapes),
    };
    return cmocka_run_group_tests_name(
        "kernels/blocks", tests, check_setup_copying, check_teardown);
}
