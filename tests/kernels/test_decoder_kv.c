/* The paged cache: what is written is read again, as far as the type of the cache goes, and a key
 * that is moved is the key that would have been written there.
 *
 * If these failed, a captured memory would be another memory when it is put back. */
#include "kernels/decoder.h"
#include "kernels/kv.h"
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

#define PAGES 5
#define TOKENS 41
#define POSITIONS 300

static const enum kern_dtype dtypes[] = {KERN_F32, KERN_F16, KERN_BF16, KERN_E4M3};

/* By how much a number may be off after one rounding, as a share of the largest of its head: half a
 * step of the mantissa (2^-11 and 2^-8 of the number itself); for e4m3 half the step of 32 at 448,
 * and the roundings of scale and quotient; for float32 the products and the sum of a rotation. */
static double step_of(enum kern_dtype dtype)
{
    return dtype == KERN_F32    ? 2.5e-7
           : dtype == KERN_F16  ? 0x1p-11
           : dtype == KERN_BF16 ? 0x1p-8
                                : 16.01 / 448;
}

struct fixture {
    struct kern_kv kv;
    struct kern_rope rope;
    size_t heads, d, stride;
    float *key, *value;          /* (TOKENS, stride) */
    uint32_t *slots, *positions; /* (TOKENS) */
};

static struct kern_rope rope_make(size_t rotary, double factor)
{
    size_t half = rotary / 2;
    float *cosines = check_poisoned(POSITIONS * half, 0);
    float *sines = check_poisoned(POSITIONS * half, 0);
    for (size_t i = 0; i < POSITIONS * half; i++) {
        double angle = (double)(i / half) * pow(500000, -2.0 * (double)(i % half) / (double)rotary);
        cosines[i] = (float)(factor * cos(angle));
        sines[i] = (float)(factor * sin(angle));
    }
    return (struct kern_rope){cosines, sines, rotary, POSITIONS};
}

static struct fixture fixture_make(struct check *check, enum kern_dtype dtype, double factor)
{
    struct fixture f = {.heads = check_size(check, 1, 4), .d = 8 * check_size(check, 1, 16)};
    f.stride = f.heads * f.d + check_size(check, 0, 7);
    f.kv = (struct kern_kv){check_bytes(PAGES * kern_kv_page_bytes(dtype, f.heads, f.d), 0), PAGES,
        f.heads, f.d, dtype};
    f.rope = rope_make(2 * check_size(check, 1, f.d / 2), factor);
    f.key = check_filled(check, TOKENS * f.stride, 4);
    f.value = check_filled(check, TOKENS * f.stride, 8);
    f.slots = check_bytes(TOKENS * sizeof *f.slots, 0);
    f.positions = check_bytes(TOKENS * sizeof *f.positions, 0);
    for (size_t t = 0; t < TOKENS; t++) {
        f.slots[t] = (uint32_t)(t * 97 % (PAGES * KERN_PAGE_TOKENS)); /* all different */
        f.positions[t] = (uint32_t)check_size(check, 0, POSITIONS - 1);
    }
    return f;
}

static void fixture_free(struct fixture *f)
{
    check_free(f->kv.pages);
    check_free(f->key);
    check_free(f->value);
    check_free(f->slots);
    check_free(f->positions);
    check_free((void *)(uintptr_t)f->rope.cos);
    check_free((void *)(uintptr_t)f->rope.sin);
}

static void write(struct kern_ctx *ctx, const struct fixture *f, const struct kern_rope *rope)
{
    struct kern_kv_write a = {.kv = &f->kv,
        .rope = rope,
        .key = f->key,
        .value = f->value,
        .positions = f->positions,
        .slots = f->slots,
        .t = TOKENS,
        .stride = f->stride};
    kern_kv_write(ctx, &a);
    check_done(ctx);
}

/* keys and values (TOKENS, G, D) one after the other. */
static float *read(struct kern_ctx *ctx, const struct fixture *f)
{
    size_t count = TOKENS * f->heads * f->d;
    float *out = check_poisoned(2 * count, 4);
    struct kern_kv_read a = {
        .kv = &f->kv, .slots = f->slots, .key = out, .value = out + count, .t = TOKENS};
    kern_kv_read(ctx, &a);
    check_done(ctx);
    return out;
}

/* A head's numbers are off by at most `steps` roundings of the cache's type. */
static void assert_head(
    enum kern_dtype dtype, const float *want, const float *got, size_t d, double steps)
{
    double most = 0;
    for (size_t i = 0; i < d; i++) {
        most = fmax(most, fabs((double)want[i]));
    }
    for (size_t i = 0; i < d; i++) {
        double off = fabs((double)want[i] - (double)got[i]);
        if (!(off <= steps * step_of(dtype) * most)) {
            fail_msg("%s [%zu]: %g, not %g, of %g", kern_dtype_name(dtype), i, (double)got[i],
                (double)want[i], most);
        }
    }
}

/* Rotated by the definition, in double, by the angle times `sign` and over `factor`. */
static void rotate(const struct fixture *f, size_t position, double sign, double factor, float *x)
{
    size_t half = f->rope.rotary / 2;
    for (size_t i = 0; i < half; i++) {
        double c = (double)f->rope.cos[position * half + i] / factor;
        double s = (double)f->rope.sin[position * half + i] / factor * sign;
        double left = (double)x[i], right = (double)x[i + half];
        x[i] = (float)(left * c - right * s);
        x[i + half] = (float)(right * c + left * s);
    }
}

static void test_round_trip(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < 12; i++) {
        struct fixture f = fixture_make(check, dtypes[i % 4], i % 3 == 0 ? 1.3 : 1);
        f.slots[3] = KERN_NO_SLOT;
        for (size_t c = 0; c < check->contexts_count; c++) {
            memset(f.kv.pages, 0xff, PAGES * kern_kv_page_bytes(f.kv.dtype, f.heads, f.d));
            write(check->contexts[c], &f, i % 2 == 0 ? &f.rope : NULL);
            float *got = read(check->contexts[c], &f);
            for (size_t j = 0; j < TOKENS * f.heads; j++) {
                size_t t = j / f.heads, at = t * f.stride + j % f.heads * f.d;
                float want[256], *value = got + TOKENS * f.heads * f.d;
                memcpy(want, f.key + at, f.d * sizeof *want);
                if (i % 2 == 0) {
                    rotate(&f, f.positions[t], 1, 1, want);
                }
                memset(want, 0, t == 3 ? f.d * sizeof *want : 0);
                assert_head(f.kv.dtype, want, got + j * f.d, f.d, t == 3 ? 0 : 1.01);
                memcpy(want, f.value + at, f.d * sizeof *want);
                memset(want, 0, t == 3 ? f.d * sizeof *want : 0);
                assert_head(f.kv.dtype, want, value + j * f.d, f.d, t == 3 ? 0 : 1.01);
            }
            check_free(got);
        }
        fixture_free(&f);
    }
}

/* Without a rotation all levels write the same bytes, what no token has among them. */
static void test_same_bytes(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < 12; i++) {
        struct fixture f = fixture_make(check, dtypes[i % 4], 1);
        size_t bytes = PAGES * kern_kv_page_bytes(f.kv.dtype, f.heads, f.d);
        char *want = check_bytes(bytes, 0);
        for (size_t k = 0; k < f.d && i >= 4; k++) { /* all sizes, zeros, what is not a number */
            f.key[k] = 0;
            f.key[f.stride + k] *= ldexpf(1, (int)check_size(check, 0, 40) - 20);
            f.value[k] *= 1e-33F;
            f.value[f.stride + k] *= 1e33F;
            f.key[2 * f.stride + k] = k == 1 ? NAN : f.key[2 * f.stride + k];
            f.value[2 * f.stride + k] = k == 0 ? -INFINITY : f.value[2 * f.stride + k];
        }
        for (size_t c = 0; c < check->contexts_count; c++) {
            memset(f.kv.pages, 0xff, bytes);
            write(check->contexts[c], &f, NULL);
            if (c == 0) {
                memcpy(want, f.kv.pages, bytes);
            } else if (!check->contexts[c]->ops->device) { /* cuda has another NaN */
                assert_memory_equal(f.kv.pages, want, bytes);
            }
            float *got = read(check->contexts[c], &f);
            if (f.kv.dtype == KERN_E4M3 && i >= 4) {
                assert_true(isnan(got[2 * f.heads * f.d]));
                assert_true(isnan(got[(TOKENS + 2) * f.heads * f.d + f.d - 1]));
                assert_true(got[TOKENS * f.heads * f.d] == 0);
            }
            check_free(got);
        }
        check_free(want);
        fixture_free(&f);
    }
}

/* From halves it is what it is from the floats that they are. */
static void test_from_halves(void **state)
{
    struct check *check = *state;
    static const enum kern_dtype from[] = {KERN_F16, KERN_BF16};
    for (size_t i = 0; i < 8; i++) {
        struct fixture f = fixture_make(check, dtypes[i / 2], 1);
        size_t count = TOKENS * f.stride;
        uint16_t *key = check_bytes(count * 2, 2), *value = check_bytes(count * 2, 6);
        kern_from_f32(from[i % 2], f.key, key, count);
        kern_from_f32(from[i % 2], f.value, value, count);
        kern_to_f32(from[i % 2], key, f.key, count);
        kern_to_f32(from[i % 2], value, f.value, count);
        for (size_t c = 0; c < check->contexts_count; c++) {
            write(check->contexts[c], &f, &f.rope);
            float *want = read(check->contexts[c], &f);
            memset(f.kv.pages, 0xff, PAGES * kern_kv_page_bytes(f.kv.dtype, f.heads, f.d));
            struct kern_kv_write a = {.kv = &f.kv,
                .rope = &f.rope,
                .key = key,
                .value = value,
                .from = from[i % 2],
                .positions = f.positions,
                .slots = f.slots,
                .t = TOKENS,
                .stride = f.stride};
            kern_kv_write(check->contexts[c], &a);
            check_done(check->contexts[c]);
            float *got = read(check->contexts[c], &f);
            assert_memory_equal(want, got, 2 * TOKENS * f.heads * f.d * sizeof *got);
            check_free(want);
            check_free(got);
        }
        check_free(key);
        check_free(value);
        fixture_free(&f);
    }
}

/* Keys written at one place and shifted are keys written at the other; values stay, to the bit. The
 * factor of the tables is in both once. Two roundings of the cache, and the differences of angles:
 * float32 tables of 300 positions. */
static void test_shift(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < 12; i++) {
        double factor = i % 3 == 0 ? 1.25 : 1;
        struct fixture f = fixture_make(check, dtypes[i % 4], factor);
        int32_t *shifts = check_bytes(TOKENS * sizeof *shifts, 0);
        for (size_t t = 0; t < TOKENS; t++) {
            int32_t to = t == 5 ? (int32_t)f.positions[t] : (int32_t)check_size(check, 0, 299);
            shifts[t] = to - (int32_t)f.positions[t];
        }
        for (size_t c = 0; c < check->contexts_count; c++) {
            write(check->contexts[c], &f, &f.rope);
            float *before = read(check->contexts[c], &f);
            struct kern_kv_shift a = {
                .kv = &f.kv, .rope = &f.rope, .slots = f.slots, .shifts = shifts, .t = TOKENS};
            kern_kv_shift(check->contexts[c], &a);
            check_done(check->contexts[c]);
            float *got = read(check->contexts[c], &f);
            size_t values = TOKENS * f.heads * f.d;
            assert_memory_equal(before + values, got + values, values * sizeof *got);
            for (size_t j = 0; j < TOKENS * f.heads; j++) {
                size_t t = j / f.heads;
                float want[256];
                memcpy(want, f.key + t * f.stride + j % f.heads * f.d, f.d * sizeof *want);
                rotate(&f, (size_t)((int32_t)f.positions[t] + shifts[t]), 1, 1, want);
                assert_head(f.kv.dtype, want, got + j * f.d, f.d, f.kv.dtype == KERN_F32 ? 30 : 4);
                if (shifts[t] == 0) {
                    assert_memory_equal(before + j * f.d, got + j * f.d, f.d * sizeof *got);
                }
            }
            check_free(before);
            check_free(got);
        }
        check_free(shifts);
        fixture_free(&f);
    }
}

/* ---- the comparison itself ----------------------------------------------------------------- */

static const struct kern_ops *right;

/* Rotates by one position too much. */
static void wrong_write(struct kern_ctx *ctx, const struct kern_kv_write *a)
{
    uint32_t positions[TOKENS];
    struct kern_kv_write wrong = *a;
    for (size_t t = 0; t < a->t; t++) {
        positions[t] = (a->positions[t] + 1) % POSITIONS;
    }
    wrong.positions = positions;
    right->kv_write(ctx, &wrong);
}

static void test_wrong_kernel_is_seen(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < 4; i++) {
        struct fixture f = fixture_make(check, dtypes[i], 1);
        struct kern_ctx wrong_ctx = *check->contexts[1];
        struct kern_ops ops = *wrong_ctx.ops;
        right = wrong_ctx.ops;
        ops.kv_write = wrong_write;
        wrong_ctx.ops = &ops;
        write(check->contexts[0], &f, &f.rope);
        float *want = read(check->contexts[0], &f);
        write(&wrong_ctx, &f, &f.rope);
        float *bad = read(check->contexts[0], &f);
        assert_false(check_close(want, bad, TOKENS * f.heads * f.d, 0.2));
        check_free(want);
        check_free(bad);
        fixture_free(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_from_halves),
        cmocka_unit_test(test_shift),
        cmocka_unit_test(test_wrong_kernel_is_seen),
    };
    return cmocka_run_group_tests_name("kernels/kv", tests, check_setup_copying, check_teardown);
}
