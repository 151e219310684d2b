/* Codes of vectors: how much a cosine may change, by type.
 *
 * If these failed, what was stored would be near to other things than what was said. */
#include "retrieval/vector_code.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define DIMS 384
#define COUNT 64

static float vectors[COUNT][DIMS];
static uint64_t drawn;

static double draw(void)
{
    drawn += 0x9e3779b97f4a7c15u;
    uint64_t z = drawn;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

/* Unit vectors; spread > 0: with dims of very different size, as encoders have them. */
static void vectors_make(double spread)
{
    drawn = 11;
    double sizes[DIMS];
    for (size_t i = 0; i < DIMS; i++) {
        sizes[i] = exp(spread * (draw() + draw() + draw() - 1.5) * 2.0);
    }
    for (size_t n = 0; n < COUNT; n++) {
        double squares = 0.0;
        for (size_t i = 0; i < DIMS; i++) {
            const double x = (draw() + draw() + draw() - 1.5) * sizes[i];
            vectors[n][i] = (float)x;
            squares += x * x;
        }
        for (size_t i = 0; i < DIMS; i++) {
            vectors[n][i] = (float)((double)vectors[n][i] / sqrt(squares));
        }
    }
}

static double dot(const float *a, const float *b)
{
    double sum = 0.0;
    for (size_t i = 0; i < DIMS; i++) {
        sum += (double)a[i] * (double)b[i];
    }
    return sum;
}

/* The root mean square of what coding changes in the cosine of two vectors, with the scores as
 * kern_scan gives them; *out_self: the most that a vector's cosine with itself is off. */
static double error_of(enum kern_dtype dtype, double *out_self)
{
    static uint8_t codes[COUNT * DIMS * sizeof(float)];
    static float scales[COUNT], scores[COUNT], back[DIMS];
    double squares = 0.0;

    *out_self = 0.0;
    for (size_t n = 0; n < COUNT; n++) {
        scales[n] = retrieval_code_encode(
            dtype, vectors[n], DIMS, codes + n * retrieval_code_bytes(dtype, DIMS));
    }
    for (size_t a = 0; a < COUNT; a++) {
        kern_scan(dtype, codes, scales, COUNT, DIMS, vectors[a], scores);
        for (size_t b = 0; b < COUNT; b++) {
            const double off = (double)scores[b] - dot(vectors[a], vectors[b]);
            squares += off * off;
            retrieval_code_decode(
                dtype, codes + b * retrieval_code_bytes(dtype, DIMS), scales[b], DIMS, back);
            assert_true(fabs(dot(vectors[a], back) - (double)scores[b]) < 1e-5);
            if (a == b) {
                *out_self = fmax(*out_self, fabs(off));
                assert_true(fabs(dot(back, back) - 1.0) < 2e-3); /* as long as before */
            }
        }
    }
    return sqrt(squares / (COUNT * COUNT));
}

static void codes_change_cosines_by_little(void **state)
{
    static const struct {
        enum kern_dtype dtype;
        double most;
    } bounds[] = {
        {KERN_F32, 1e-6},
        {KERN_F16, 2.5e-4},
        {KERN_BF16, 2e-3},
        {KERN_I8, 1.5e-3},
        {KERN_E4M3, 3e-3},
        {KERN_E5M2, 6e-3},
    };
    (void)state;
    for (int uneven = 0; uneven < 2; uneven++) {
        vectors_make(uneven ? 0.7 : 0.0);
        for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
            double self;
            const double error = error_of(bounds[i].dtype, &self);
            if (error > bounds[i].most || self > bounds[i].most) {
                fail_msg("%s: off by %g, with itself by %g", kern_dtype_name(bounds[i].dtype),
                    error, self);
            }
        }
    }
}

/* Without a scale, small components would be subnormal or nothing. */
static void the_scale_is_what_keeps_small_components(void **state)
{
    float small[DIMS], back[DIMS];
    uint8_t codes[DIMS];
    (void)state;
    vectors_make(0.0);
    for (int shift = -100; shift <= 100; shift += 25) {
        for (size_t i = 0; i < DIMS; i++) {
            small[i] = ldexpf(vectors[0][i], shift);
        }
        const enum kern_dtype dtypes[] = {KERN_E4M3, KERN_E5M2, KERN_I8};
        for (size_t t = 0; t < 3; t++) {
            const float scale = retrieval_code_encode(dtypes[t], small, DIMS, codes);
            if (shift == -100) {
                continue; /* too small to be a vector of anything */
            }
            retrieval_code_decode(dtypes[t], codes, scale, DIMS, back);
            const double length = sqrt(dot(small, small)), others = sqrt(dot(back, back));
            assert_true(fabs(others / length - 1.0) < 1e-5);
            assert_true(dot(small, back) / length / others > 0.998);
        }
    }
}

static void zeros_and_single_components(void **state)
{
    const enum kern_dtype dtypes[] = {KERN_F32, KERN_F16, KERN_BF16, KERN_E4M3, KERN_E5M2, KERN_I8};
    uint8_t codes[DIMS * sizeof(float)];
    float vector[DIMS] = {0.0f}, back[DIMS];
    (void)state;
    for (size_t t = 0; t < sizeof dtypes / sizeof dtypes[0]; t++) {
        memset(vector, 0, sizeof vector);
        memset(codes, 0xff, sizeof codes);
        float scale = retrieval_code_encode(dtypes[t], vector, DIMS, codes);
        retrieval_code_decode(dtypes[t], codes, scale, DIMS, back);
        for (size_t i = 0; i < DIMS; i++) {
            assert_true(back[i] == 0.0f);
        }
        vector[17] = -1.0f;
        scale = retrieval_code_encode(dtypes[t], vector, DIMS, codes);
        retrieval_code_decode(dtypes[t], codes, scale, DIMS, back);
        assert_true(back[17] == -1.0f && back[16] == 0.0f);
    }
}

/* Ranges by dimension help where dims differ, and are exact at their ends. */
static void ranges_by_dimension(void **state)
{
    static int8_t codes[COUNT * DIMS];
    float ranges[DIMS], query[DIMS], scores[COUNT];
    double squares = 0.0;
    (void)state;
    vectors_make(0.7);
    retrieval_ranges_fit(vectors[0], COUNT, DIMS, ranges);
    for (size_t n = 0; n < COUNT; n++) {
        retrieval_ranges_encode(ranges, vectors[n], DIMS, codes + n * DIMS);
    }
    for (size_t a = 0; a < COUNT; a++) {
        retrieval_ranges_query(ranges, vectors[a], DIMS, query);
        kern_scan(KERN_I8, codes, NULL, COUNT, DIMS, query, scores);
        for (size_t b = 0; b < COUNT; b++) {
            const double off = (double)scores[b] - dot(vectors[a], vectors[b]);
            squares += off * off;
        }
    }
    assert_true(sqrt(squares / (COUNT * COUNT)) < 1.5e-3);
    const float outside[DIMS] = {1e6f, -1e6f};
    retrieval_ranges_encode(ranges, outside, DIMS, codes);
    assert_true(codes[0] == 127 && codes[1] == -127 && codes[2] == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_change_cosines_by_little),
        cmocka_unit_test(the_scale_is_what_keeps_small_components),
        cmocka_unit_test(zeros_and_single_components),
        cmocka_unit_test(ranges_by_dimension),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
