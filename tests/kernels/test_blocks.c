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
#include <stdio.h>
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
        bool widened = check->contexts[i] == check->cuda && (p->dtype >= KERN_Q4_K || p->t > 64);
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

/* K of a model, which is cut, and several blocks of rows. */
static void test_large_shapes(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < 4; i++) {
        compare(
            check, dtypes[i], check_size(check, 97, 120), 40, 8192 / kern_dtype_block(dtypes[i]));
    }
}

/* Sums of the largest codes on both sides must not run over, whatever they are added up in. */
static void test_largest_codes(void **state)
{
    struct check *check = *state;
    enum { N = 17, K = 512 };
    static const uint8_t codes[] = {0xff, 0x00, 0x80, 0x7f, 0xf0};
    for (size_t i = 0; i < 4 * sizeof codes; i++) {
        enum kern_dtype dtype = dtypes[i % 4];
        size_t bytes = kern_dtype_row_bytes(dtype, kern_dtype_block(dtype));
        uint8_t *w = random_blocks(check, dtype, N, K);
        for (size_t at = 0; at < N * kern_dtype_row_bytes(dtype, K); at++) {
            size_t in = at % bytes, first = dtype == KERN_Q4_K ? 4 : 2;
            if (dtype == KERN_Q6_K ? in < 192 : in >= first) {
                w[at] = codes[i / 4];
            }
        }
        float *x = check_filled(check, 5 * K, 0);
        for (size_t k = 0; k < 5 * K; k++) {
            x[k] = k < K ? 1 : k < 2 * K ? -1 : k < 3 * K ? (k % 2 ? 1 : -1) : x[k];
        }
        struct product p = {.t = 5, .n = N, .k = K, .dtype = dtype, .from = dtype, .w = w, .x = x};
        compare_all(check, &p, bound);
        check_free(w);
        check_free(x);
    }
}

/* Zeros have no scale to divide by; numbers near the end of float32 must not run over. */
static void test_extreme_rows(void **state)
{
    struct check *check = *state;
    enum { N = 19, K = 256 };
    for (size_t i = 0; i < 4; i++) {
        uint8_t *w = random_blocks(check, dtypes[i], N, K);
        float *x = check_filled(check, 3 * K, 0);
        memset(x, 0, K * sizeof *x);
        for (size_t k = K; k < 2 * K; k++) {
            x[k] *= k % 64 < 32 ? 1e30F : 1e-30F;
        }
        struct product p = {.t = 3, .n = N, .k = K, .dtype = dtypes[i], .from = dtypes[i], .w = w};
        p.x = x;
        compare_all(check, &p, bound);
        check_free(w);
        check_free(x);
    }
}

/* A row of y is the same to the bit alone and among others. */
static void test_rows_are_alone(void **state)
{
    struct check *check = *state;
    enum { T = 101, N = 33, K = 2560 };
    float *x = check_filled(check, T * K, 0);
    for (size_t i = 0; i < 4; i++) {
        uint8_t *w = random_blocks(check, dtypes[i], N, K);
        for (size_t c = 1; c < check->contexts_count; c++) {
            /* cuda promises it for so many rows (kern.h) */
            size_t most = dtypes[i] >= KERN_Q4_K ? 8 : 64;
            size_t rows = check->contexts[c] == check->cuda ? most : T;
            struct product p = {.t = rows, .n = N, .k = K, .dtype = dtypes[i], .from = dtypes[i]};
            p.w = w;
            p.x = x;
            float *all = run(check->contexts[c], &p);
            for (size_t t = 0; t < rows; t += 10) {
                p.t = 1 + t % 3 < rows - t ? 1 + t % 3 : rows - t;
                p.x = x + t * K;
                float *some = run(check->contexts[c], &p);
                assert_memory_equal(all + t * N, some, p.t * N * sizeof *some);
                check_free(some);
            }
            check_free(all);
        }
        check_free(w);
    }
    check_free(x);
}

/* ---- packing ------------------------------------------------------------------------------- */

/* Numbers become the same codes on all backends, from every type. */
static void test_pack_from_numbers(void **state)
{
    struct check *check = *state;
    static const enum kern_dtype from[] = {KERN_F32, KERN_F16, KERN_BF16};
    enum { N = 21, K = 160 };
    float *w = check_filled(check, (size_t)N * K, 0), *x = check_filled(check, 3 * K, 0);
    memset(w + K, 0, 32 * sizeof *w);
    for (size_t k = 0; k < 32; k++) {
        w[2 * K + k] = k % 2 ? 1.5F : -1.5F;   /* the largest magnitude twice */
        w[3 * K + k] = ((float)k - 16) * 0.5F; /* halves */
        w[4 * K + k] = k == 31 ? 127 : (float)k - 15.5F;
        w[5 * K + k] *= 1e-10F;
    }
    for (size_t i = 0; i < 6; i++) {
        void *narrow = check_bytes((size_t)N * K * kern_dtype_bytes(from[i / 2]), 2);
        kern_from_f32(from[i / 2], w, narrow, (size_t)N * K);
        struct product p = {.t = 3, .n = N, .k = K, .dtype = dtypes[i % 2], .from = from[i / 2]};
        p.w = narrow;
        p.x = x;
        compare_all(check, &p, bound);
        check_free(narrow);
    }
    check_free(w);
    check_free(x);
}

/* Blocks can be packed as numbers, and as other blocks. */
static void test_pack_from_blocks(void **state)
{
    struct check *check = *state;
    static const enum kern_dtype to[] = {KERN_F32, KERN_BF16, KERN_I8, KERN_Q8_0, KERN_Q4_0};
    enum { N = 35, K = 512 };
    float *x = check_filled(check, 3 * K, 0);
    for (size_t i = 0; i < 20; i++) {
        uint8_t *w = random_blocks(check, dtypes[i % 4], N, K);
        struct product p = {.t = 3, .n = N, .k = K, .dtype = to[i / 4], .from = dtypes[i % 4]};
        p.w = w;
        p.x = x;
        compare_all(check, &p, to[i / 4] == KERN_BF16 ? 2e-4 : bound);
        check_free(w);
    }
    check_free(x);
}

/* Parts of different types below each other are what each is alone. */
static void test_parts_of_types(void **state)
{
    struct check *check = *state;
    enum { A = 5, B = 19, K = 256 };
    uint8_t *q4 = random_blocks(check, KERN_Q4_0, A, K),
            *q6 = random_blocks(check, KERN_Q6_K, B, K);
    float *x = check_filled(check, K, 0), whole[A + B];
    const struct kern_part parts[] = {{KERN_Q4_0, q4, A}, {KERN_Q6_K, q6, B}};
    for (size_t c = 0; c < check->contexts_count; c++) {
        struct kern_matrix *w = NULL;
        struct kern_ctx *ctx = check->contexts[c];
        assert_int_equal(kern_matrix_pack_parts(ctx, KERN_Q8_0, parts, 2, K, &w, NULL), MEMOS_OK);
        assert_int_equal(kern_matrix_dtype(w), KERN_Q8_0);
        void *workspace = check_bytes(kern_linear_workspace_bytes(ctx, w, 1), 0);
        kern_linear(
            ctx, &(struct kern_linear){.x = x, .w = w, .y = whole, .t = 1, .workspace = workspace});
        struct product p = {.t = 1, .n = A, .k = K, .dtype = KERN_Q8_0, .from = KERN_Q4_0};
        p.w = q4;
        p.x = x;
        float *above = run(ctx, &p);
        p.n = B;
        p.from = KERN_Q6_K;
        p.w = q6;
        float *below = run(ctx, &p);
        assert_memory_equal(whole, above, A * sizeof *above);
        assert_memory_equal(whole + A, below, B * sizeof *below);
        check_free(above);
        check_free(below);
        check_free(workspace);
        kern_matrix_free(&w);
    }
    check_free(q4);
    check_free(q6);
    check_free(x);
}

/* Where rows lie as they came, they are the bytes of the file. */
static void test_rows_of_ref(void **state)
{
    struct check *check = *state;
    enum { N = 5, K = 512 };
    for (size_t i = 0; i < 4; i++) {
        uint8_t *w = random_blocks(check, dtypes[i], N, K);
        struct kern_matrix *packed = NULL;
        enum kern_dtype dtype;
        assert_int_equal(
            kern_matrix_pack(check->contexts[0], dtypes[i], dtypes[i], w, N, K, &packed, NULL),
            MEMOS_OK);
        const void *rows = kern_matrix_rows(packed, &dtype);
        assert_non_null(rows);
        assert_int_equal(dtype, dtypes[i]);
        assert_memory_equal(rows, w, N * kern_dtype_row_bytes(dtype, K));
        kern_matrix_free(&packed);
        check_free(w);
    }
}

static void test_unsupported(void **state)
{
    struct check *check = *state;
    static const float rows[512];
    static const struct {
        enum kern_dtype to, from;
        size_t k;
    } cases[] = {{KERN_Q8_0, KERN_F32, 33}, {KERN_Q4_0, KERN_BF16, 48}, {KERN_Q4_K, KERN_F32, 256},
        {KERN_Q6_K, KERN_Q4_K, 256}, {KERN_F32, KERN_Q4_K, 128}, {KERN_F32, KERN_Q8_0, 16}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kern_matrix *w = NULL;
        assert_int_equal(kern_matrix_pack(check->contexts[0], cases[i].to, cases[i].from, rows, 1,
                             cases[i].k, &w, NULL),
            MEMOS_UNSUPPORTED);
        assert_null(w);
    }
}

/* ---- what others compute ------------------------------------------------------------------- */

static const unsigned char *take(const unsigned char **at, size_t bytes)
{
    *at += bytes;
    return *at - bytes;
}

/* golden/README.md says what lies in the file. */
static void test_golden(void **state)
{
    enum { NUMBERS = 1024, BYTES = 27656 };
    static unsigned char golden[BYTES + 1];
    (void)state;
    FILE *file = fopen(GOLDEN_FOLDER "/blocks.bin", "rb");
    assert_non_null(file);
    assert_int_equal(fread(golden, 1, sizeof golden, file), BYTES);
    assert_int_equal(fclose(file), 0);
    const unsigned char *at = golden;
    for (size_t i = 0; i < 4; i++) {
        size_t bytes = kern_dtype_row_bytes(dtypes[i], NUMBERS);
        float numbers[NUMBERS], want[NUMBERS];
        unsigned char coded[NUMBERS * 2];
        bool made = dtypes[i] == KERN_Q8_0 || dtypes[i] == KERN_Q4_0;
        memcpy(numbers, take(&at, made ? sizeof numbers : 0), made ? sizeof numbers : 0);
        const unsigned char *blocks = take(&at, bytes);
        memcpy(want, take(&at, sizeof want), sizeof want);
        if (made) {
            kern_blocks_from_f32(dtypes[i], numbers, coded, NUMBERS);
            assert_memory_equal(coded, blocks, bytes);
        }
        kern_to_f32(dtypes[i], blocks, numbers, NUMBERS);
        for (size_t k = 0; k < NUMBERS; k++) {
            if (!(numbers[k] == want[k]) && !(isnan(numbers[k]) && isnan(want[k]))) {
                fail_msg("%s[%zu]: %g, not %g", kern_dtype_name(dtypes[i]), k, (double)numbers[k],
                    (double)want[k]);
            }
        }
    }
    assert_ptr_equal(at, golden + BYTES);
}

/* ---- the comparison itself ----------------------------------------------------------------- */

static const struct kern_tiles *right;

/* Takes the sums of x for those of the block before. */
static void wrong_run(const struct kern_tile *tile)
{
    struct kern_tile other = *tile;
    int32_t sums[512] = {0};
    other.x_sums = sums;
    if (tile->x_groups * tile->rows * 2 <= 512) {
        memcpy(sums + 1, tile->x_sums, (tile->x_groups * tile->rows - 1) * sizeof *sums);
    }
    right->run(&other);
}

static void test_wrong_kernel_is_seen(void **state)
{
    struct check *check = *state;
    struct kern_ops wrong = *kern_ops_of(NULL, NULL);
    if (!wrong.blocks[0]) {
        skip();
    }
    struct kern_ctx *ctx = check->contexts[check->contexts_count - 1];
    struct kern_ctx wrong_ctx = *ctx;
    wrong_ctx.ops = &wrong;
    for (size_t i = 1; i < 4; i++) { /* Q8_0 needs no sums on AVX2 */
        wrong = *kern_ops_of(NULL, NULL);
        right = wrong.blocks[i];
        struct kern_tiles tiles = *right;
        tiles.run = wrong_run;
        assert_true(kern_ops_agree(&wrong));
        wrong.blocks[i] = &tiles;
        assert_false(kern_ops_agree(&wrong));
        uint8_t *w = random_blocks(check, dtypes[i], 33, 512);
        float *x = check_filled(check, 5 * 512, 0);
        struct product p = {.t = 5, .n = 33, .k = 512, .dtype = dtypes[i], .from = dtypes[i]};
        p.w = w;
        p.x = x;
        float *want = run(check->contexts[0], &p), *bad = run(&wrong_ctx, &p);
        assert_false(check_close(want, bad, 5 * 33, bound));
        check_free(want);
        check_free(bad);
        check_free(w);
        check_free(x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_random_shapes),
        cmocka_unit_test(test_small_shapes),
        cmocka_unit_test(test_large_shapes),
        cmocka_unit_test(test_largest_codes),
        cmocka_unit_test(test_extreme_rows),
        cmocka_unit_test(test_rows_are_alone),
        cmocka_unit_test(test_pack_from_numbers),
        cmocka_unit_test(test_pack_from_blocks),
        cmocka_unit_test(test_parts_of_types),
        cmocka_unit_test(test_rows_of_ref),
        cmocka_unit_test(test_unsupported),
        cmocka_unit_test(test_wrong_kernel_is_seen),
    };
    return cmocka_run_group_tests_name(
        "kernels/blocks", tests, check_setup_copying, check_teardown);
}
