/* What a decoder does to rows (embeddings, RMSNorm, gates, rotation, side-FFNs), on all levels,
 * beside ref's.
 *
 * If these failed, a host model would say something else on another machine, or in a batch. */
#include "kernels/decoder.h"
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

#define BOUND 2e-5
/* One number of a bf16 output may round the other way: a step at four times the root mean square.
 */
#define BOUND_BF16 0.04

static double bound_of(enum kern_dtype dtype)
{
    return dtype == KERN_BF16 ? BOUND_BF16 : BOUND;
}

/* count numbers of dtype, made of floats that are freed here. */
static void *as_dtype(enum kern_dtype dtype, float *from, size_t count)
{
    void *out = check_bytes(count * kern_dtype_bytes(dtype), 0);
    kern_from_f32(dtype, from, out, count);
    check_free(from);
    return out;
}

/* The same as floats; frees its argument. */
static float *as_floats(enum kern_dtype dtype, void *from, size_t count)
{
    float *out = check_poisoned(count, 0);
    kern_to_f32(dtype, from, out, count);
    check_free(from);
    return out;
}

/* ---- gather -------------------------------------------------------------------------------- */

static void test_gather(void **state)
{
    struct check *check = *state;
    static const enum kern_dtype dtypes[] = {KERN_F32, KERN_F16, KERN_BF16};
    for (size_t i = 0; i < 30; i++) {
        size_t vocab = check_size(check, 1, 60), k = check_size(check, 1, 300);
        size_t t = check_size(check, 0, 200);
        enum kern_dtype dtype = dtypes[i % 3];
        void *table = as_dtype(dtype, check_filled(check, vocab * k, 0), vocab * k);
        uint32_t *ids = check_bytes(t * sizeof *ids, 4);
        float *want = check_poisoned(k, 0);
        for (size_t r = 0; r < t; r++) {
            ids[r] = (uint32_t)check_size(check, 0, vocab - 1);
        }
        for (size_t c = 0; c < check->contexts_count; c++) {
            float *y = check_poisoned(t * k, 4);
            struct kern_gather a = {table, dtype, ids, y, t, k};
            kern_gather(check->contexts[c], &a);
            check_done(check->contexts[c]);
            for (size_t r = 0; r < t; r++) {
                kern_to_f32(dtype, (char *)table + ids[r] * k * kern_dtype_bytes(dtype), want, k);
                assert_memory_equal(y + r * k, want, k * sizeof *want);
            }
            check_free(y);
        }
        check_free(want);
        check_free(ids);
        check_free(table);
    }
}

/* ---- rmsnorm ------------------------------------------------------------------------------- */

struct norm {
    size_t rows, heads, k, x_stride, y_stride;
    enum kern_dtype y_dtype;
    bool in_place;
    const float *x, *gamma;
};

/* All of y (rows, y_stride) as floats, what stands between rows among it. */
static float *run_norm(struct kern_ctx *ctx, const struct norm *n)
{
    size_t count = n->rows * n->y_stride;
    void *y = check_bytes(count * kern_dtype_bytes(n->y_dtype), 8);
    if (n->in_place) {
        memcpy(y, n->x, count * sizeof(float));
    }
    struct kern_rmsnorm a = {.x = n->in_place ? y : n->x,
        .gamma = n->gamma,
        .y = y,
        .rows = n->rows,
        .heads = n->heads,
        .k = n->k,
        .x_stride = n->x_stride,
        .y_stride = n->y_stride,
        .y_dtype = n->y_dtype,
        .eps = 1e-5F};
    kern_rmsnorm(ctx, &a);
    check_done(ctx);
    return as_floats(n->y_dtype, y, count);
}

/* Rows as they are, and what lies between them unchanged (NaN, or x's own numbers). */
static void compare_norm(
    struct check *check, const struct norm *n, size_t context, const float *want)
{
    float *got = run_norm(check->contexts[context], n);
    size_t width = (n->heads ? n->heads : 1) * n->k;
    for (size_t r = 0; r < n->rows; r++) {
        const float *row = got + r * n->y_stride;
        assert_true(check_close(want + r * n->y_stride, row, width, bound_of(n->y_dtype)));
        assert_memory_equal(
            want + r * n->y_stride + width, row + width, (n->y_stride - width) * sizeof *row);
    }
    check_free(got);
}

static void test_rmsnorm(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < 60; i++) {
        struct norm n = {.rows = check_size(check, 1, 40),
            .heads = i % 3 == 0 ? check_size(check, 0, 6) : 0,
            .k = check_size(check, 1, i % 7 == 0 ? 3000 : 200),
            .y_dtype = i % 4 == 1 ? KERN_BF16 : KERN_F32,
            .in_place = i % 4 == 2};
        size_t width = (n.heads ? n.heads : 1) * n.k;
        n.x_stride = width + check_size(check, 0, 9);
        n.y_stride = n.in_place ? n.x_stride : width + check_size(check, 0, 9);
        n.x = check_filled(check, n.rows * n.x_stride, 4);
        n.gamma = check_filled(check, n.k, 0);
        float *want = run_norm(check->contexts[0], &n);
        for (size_t c = 1; c < check->contexts_count; c++) {
            compare_norm(check, &n, c, want);
        }
        check_free(want);
        check_free((void *)(uintptr_t)n.x);
        check_free((void *)(uintptr_t)n.gamma);
    }
}

/* Squares of these leave float32, upwards and downwards; zeros have no size but eps. */
static void test_rmsnorm_of_extremes(void **state)
{
    struct check *check = *state;
    static const float sizes[] = {1e30F, 1e-20F, 1e-30F, 0};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct norm n = {.rows = 1, .k = 77, .x_stride = 77, .y_stride = 77, .y_dtype = KERN_F32};
        float *x = check_filled(check, 77, 0), *gamma = check_filled(check, 77, 0);
        for (size_t k = 0; k < 77; k++) {
            x[k] *= sizes[i];
        }
        n.x = x;
        n.gamma = gamma;
        float *want = run_norm(check->contexts[0], &n);
        assert_false(isnan(want[0]));
        for (size_t c = 1; c < check->contexts_count; c++) {
            compare_norm(check, &n, c, want);
        }
        check_free(want);
        check_free(x);
        check_free(gamma);
    }
}

/* A row alone has the bits that it has among others. */
static void test_rmsnorm_rows_are_alone(void **state)
{
    struct check *check = *state;
    struct norm n = {.rows = 50, .k = 1111, .x_stride = 1111, .y_stride = 1111};
    n.y_dtype = KERN_F32;
    n.x = check_filled(check, n.rows * n.k, 0);
    n.gamma = check_filled(check, n.k, 0);
    for (size_t c = 0; c < check->contexts_count; c++) {
        float *all = run_norm(check->contexts[c], &n);
        for (size_t r = 0; r < n.rows; r += 7) {
            struct norm one = n;
            one.rows = 1;
            one.x = n.x + r * n.k;
            float *row = run_norm(check->contexts[c], &one);
            assert_memory_equal(row, all + r * n.k, n.k * sizeof *row);
            check_free(row);
        }
        check_free(all);
    }
    check_free((void *)(uintptr_t)n.x);
    check_free((void *)(uintptr_t)n.gamma);
}

/* ---- silu_mul ------------------------------------------------------------------------------ */

static void test_silu_mul(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < 40; i++) {
        size_t t = check_size(check, 1, 12), inner = check_size(check, 1, i % 5 == 0 ? 9000 : 300);
        enum kern_dtype from = i & 1 ? KERN_BF16 : KERN_F32, to = i & 2 ? KERN_BF16 : KERN_F32;
        float *numbers = check_filled(check, t * 2 * inner, 0);
        numbers[0] = 88.9F; /* e^-x of these leaves float32 */
        numbers[inner / 2] = -95;
        void *gate_up = as_dtype(from, numbers, t * 2 * inner);
        float *want = NULL;
        for (size_t c = 0; c < check->contexts_count; c++) {
            void *y = check_bytes(t * inner * kern_dtype_bytes(to), 4);
            struct kern_silu_mul a = {gate_up, y, t, inner, from, to};
            kern_silu_mul(check->contexts[c], &a);
            check_done(check->contexts[c]);
            float *got = as_floats(to, y, t * inner);
            if (c > 0) {
                assert_true(check_close(want, got, t * inner, bound_of(to)));
                check_free(got);
            } else {
                want = got;
            }
        }
        check_free(want);
        check_free(gate_up);
    }
}

/* ---- rotate -------------------------------------------------------------------------------- */

/* Angles as Llama has them, times a factor as YaRN has one. */
static struct kern_rope rope_make(size_t rotary, size_t positions, double factor)
{
    size_t half = rotary / 2;
    float *cosines = check_poisoned(positions * half, 0),
          *sines = check_poisoned(positions * half, 0);
    for (size_t i = 0; i < positions * half; i++) {
        double angle = (double)(i / half) * pow(10000, -2.0 * (double)(i % half) / (double)rotary);
        cosines[i] = (float)(factor * cos(angle));
        sines[i] = (float)(factor * sin(angle));
    }
    return (struct kern_rope){cosines, sines, rotary, positions};
}

static void rope_free(struct kern_rope *rope)
{
    check_free((void *)(uintptr_t)rope->cos);
    check_free((void *)(uintptr_t)rope->sin);
}

static void test_rotate(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < 30; i++) {
        size_t t = check_size(check, 1, 20), heads = check_size(check, 1, 5);
        size_t d = check_size(check, 2, 90), stride = heads * d + check_size(check, 0, 5);
        struct kern_rope rope = rope_make(2 * check_size(check, 1, d / 2), 50, i % 2 ? 1 : 1.2);
        float *x = check_filled(check, t * stride, 4), *want = check_poisoned(t * stride, 0);
        uint32_t *positions = check_bytes(t * sizeof *positions, 0);
        for (size_t r = 0; r < t; r++) {
            positions[r] = (uint32_t)check_size(check, 0, 49);
        }
        for (size_t c = 0; c < check->contexts_count; c++) {
            float *got = check_poisoned(t * stride, 0);
            struct kern_rotate a = {.rope = &rope,
                .x = got,
                .positions = positions,
                .t = t,
                .heads = heads,
                .head_dim = d,
                .stride = stride};
            memcpy(got, x, t * stride * sizeof *x);
            kern_rotate(check->contexts[c], &a);
            check_done(check->contexts[c]);
            memcpy(c == 0 ? want : got, got, t * stride * sizeof *x);
            assert_true(check_close(want, got, t * stride, BOUND));
            a.back = true;
            kern_rotate(check->contexts[c], &a);
            check_done(check->contexts[c]);
            assert_true(check_close(x, got, t * stride, BOUND));
            check_free(got);
        }
        check_free(x);
        check_free(want);
        check_free(positions);
        rope_free(&rope);
    }
}

/* ---- side-FFNs ----------------------------------------------------------------------------- */

#define GROUPS 3
#define ROWS 9

struct side {
    float *in[GROUPS], *out[GROUPS]; /* weights */
    size_t inner[GROUPS], k;
    float tau[GROUPS];
    const void *h;
    enum kern_dtype h_dtype;
    const float *y;
};

static const uint32_t side_starts[GROUPS + 1] = {0, 4, 4, 7};
static const uint32_t side_rows[] = {1, 3, 8, 0, 3, 1, 5};

static float *run_side(struct kern_ctx *ctx, const struct side *s, enum kern_dtype weights)
{
    struct kern_matrix *in[GROUPS], *out[GROUPS];
    struct kern_side_block blocks[GROUPS];
    struct memos_error err;
    for (size_t g = 0; g < GROUPS; g++) {
        assert_int_equal(
            kern_matrix_pack(ctx, weights, KERN_F32, s->in[g], 2 * s->inner[g], s->k, &in[g], &err),
            MEMOS_OK);
        assert_int_equal(
            kern_matrix_pack(ctx, weights, KERN_F32, s->out[g], s->k, s->inner[g], &out[g], &err),
            MEMOS_OK);
        blocks[g] = (struct kern_side_block){in[g], out[g], s->tau[g]};
    }
    float *y = check_poisoned(ROWS * s->k, 0);
    memcpy(y, s->y, ROWS * s->k * sizeof *y);
    struct kern_side_ffn a = {.h = s->h,
        .h_dtype = s->h_dtype,
        .y = y,
        .t = ROWS,
        .k = s->k,
        .blocks = blocks,
        .starts = side_starts,
        .rows = side_rows,
        .groups = GROUPS};
    void *workspace = check_bytes(kern_side_ffn_workspace_bytes(ctx, &a), 0);
    a.workspace = workspace;
    kern_side_ffn(ctx, &a);
    check_done(ctx);
    check_free(workspace);
    for (size_t g = 0; g < GROUPS; g++) {
        kern_matrix_free(&in[g]);
        kern_matrix_free(&out[g]);
    }
    return y;
}

/* The definition, with nothing of ours in it. */
static float *side_by_hand(const struct side *s, const float *h)
{
    float *y = check_poisoned(ROWS * s->k, 0);
    memcpy(y, s->y, ROWS * s->k * sizeof *y);
    for (size_t i = 0, g = 0; i < side_starts[GROUPS]; i++) {
        while (i >= side_starts[g + 1]) {
            g++;
        }
        for (size_t r = 0; r < s->inner[g]; r++) {
            const float *gate_row = s->in[g] + r * s->k;
            const float *up_row = gate_row + s->inner[g] * s->k;
            double gate = 0, up = 0;
            for (size_t k = 0; k < s->k; k++) {
                gate += (double)h[side_rows[i] * s->k + k] * (double)gate_row[k];
                up += (double)h[side_rows[i] * s->k + k] * (double)up_row[k];
            }
            double inner = gate / (1 + exp(-gate)) * up * (double)s->tau[g];
            for (size_t k = 0; k < s->k; k++) {
                y[side_rows[i] * s->k + k] +=
                    (float)(inner * (double)s->out[g][k * s->inner[g] + r]);
            }
        }
    }
    return y;
}

static void test_side_ffn(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < 6; i++) {
        struct side s = {.k = check_size(check, 3, 80), .h_dtype = i % 2 ? KERN_BF16 : KERN_F32};
        for (size_t g = 0; g < GROUPS; g++) {
            s.inner[g] = check_size(check, 1, 40);
            s.in[g] = check_filled(check, 2 * s.inner[g] * s.k, 0);
            s.out[g] = check_filled(check, s.inner[g] * s.k, 0);
            s.tau[g] = check_float(check);
        }
        void *h = as_dtype(s.h_dtype, check_filled(check, ROWS * s.k, 0), ROWS * s.k);
        float *h_floats = check_poisoned(ROWS * s.k, 0), *y = check_filled(check, ROWS * s.k, 0);
        kern_to_f32(s.h_dtype, h, h_floats, ROWS * s.k);
        s.h = h;
        s.y = y;
        float *want = side_by_hand(&s, h_floats);
        for (size_t c = 0; c < check->contexts_count; c++) {
            float *got = run_side(check->contexts[c], &s, KERN_F32);
            assert_true(check_close(want, got, ROWS * s.k, BOUND));
            check_free(got);
            got = run_side(check->contexts[c], &s, KERN_BF16); /* three roundings of 2^-9 */
            assert_true(check_close(want, got, ROWS * s.k, 0.1));
            check_free(got);
        }
        for (size_t g = 0; g < GROUPS; g++) {
            check_free(s.in[g]);
            check_free(s.out[g]);
        }
        check_free(h);
        check_free(h_floats);
        check_free(y);
        check_free(want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gather),
        cmocka_unit_test(test_rmsnorm),
        cmocka_unit_test(test_rmsnorm_of_extremes),
        cmocka_unit_test(test_rmsnorm_rows_are_alone),
        cmocka_unit_test(test_silu_mul),
        cmocka_unit_test(test_rotate),
        cmocka_unit_test(test_side_ffn),
    };
    return cmocka_run_group_tests_name("kernels/rows", tests, check_setup_copying, check_teardown);
}
