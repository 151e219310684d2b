/* Small floats: every code of every type, and rounding to nearest even between every two.
 *
 * If these failed, models would be read wrong, and vectors stored with more error than their type
 * has. The values are written down here or computed in another way than ref computes them. */
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

/* OCP 8-bit floating point specification (2023), table 2: the magnitudes of e4m3, 127 is NaN. */
static const float e4m3[127] = {0.0F, 0.001953125F, 0.00390625F, 0.005859375F, 0.0078125F,
    0.009765625F, 0.01171875F, 0.013671875F, 0.015625F, 0.017578125F, 0.01953125F, 0.021484375F,
    0.0234375F, 0.025390625F, 0.02734375F, 0.029296875F, 0.03125F, 0.03515625F, 0.0390625F,
    0.04296875F, 0.046875F, 0.05078125F, 0.0546875F, 0.05859375F, 0.0625F, 0.0703125F, 0.078125F,
    0.0859375F, 0.09375F, 0.1015625F, 0.109375F, 0.1171875F, 0.125F, 0.140625F, 0.15625F, 0.171875F,
    0.1875F, 0.203125F, 0.21875F, 0.234375F, 0.25F, 0.28125F, 0.3125F, 0.34375F, 0.375F, 0.40625F,
    0.4375F, 0.46875F, 0.5F, 0.5625F, 0.625F, 0.6875F, 0.75F, 0.8125F, 0.875F, 0.9375F, 1.0F,
    1.125F, 1.25F, 1.375F, 1.5F, 1.625F, 1.75F, 1.875F, 2.0F, 2.25F, 2.5F, 2.75F, 3.0F, 3.25F, 3.5F,
    3.75F, 4.0F, 4.5F, 5.0F, 5.5F, 6.0F, 6.5F, 7.0F, 7.5F, 8.0F, 9.0F, 10.0F, 11.0F, 12.0F, 13.0F,
    14.0F, 15.0F, 16.0F, 18.0F, 20.0F, 22.0F, 24.0F, 26.0F, 28.0F, 30.0F, 32.0F, 36.0F, 40.0F,
    44.0F, 48.0F, 52.0F, 56.0F, 60.0F, 64.0F, 72.0F, 80.0F, 88.0F, 96.0F, 104.0F, 112.0F, 120.0F,
    128.0F, 144.0F, 160.0F, 176.0F, 192.0F, 208.0F, 224.0F, 240.0F, 256.0F, 288.0F, 320.0F, 352.0F,
    384.0F, 416.0F, 448.0F};

static float of_bits(uint32_t bits)
{
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

static uint32_t bits_of(float value)
{
    uint32_t out;
    memcpy(&out, &value, sizeof out);
    return out;
}

/* f16 by moving bits; subnormal numbers by subtracting what the hidden bit added. */
static float f16_value(uint32_t code)
{
    uint32_t sign = (code & 0x8000) << 16, size = code & 0x7fff;
    if (size >= 0x7c00) {
        return of_bits(sign | 0x7f800000 | (size & 0x3ff) << 13);
    }
    if (size < 0x400) {
        return of_bits(sign | bits_of(of_bits(0x38800000 + (size << 13)) - of_bits(0x38800000)));
    }
    return of_bits(sign | (size + (112 << 10)) << 13);
}

static float value_of(enum kern_dtype dtype, uint32_t code)
{
    switch (dtype) {
    case KERN_F16:
        return f16_value(code);
    case KERN_BF16:
        return of_bits(code << 16);
    case KERN_E5M2:
        return f16_value(code << 8);
    default:
        break;
    }
    if (code % 128 == 127) {
        return NAN;
    }
    return code < 128 ? e4m3[code] : -e4m3[code - 128];
}

static const struct kind {
    enum kern_dtype dtype;
    uint32_t codes;    /* how many there are */
    uint32_t last;     /* the largest finite one */
    uint32_t overflow; /* what is too large becomes */
} kinds[] = {
    {KERN_F16, 65536, 0x7bff, 0x7c00},
    {KERN_BF16, 65536, 0x7f7f, 0x7f80},
    {KERN_E4M3, 256, 0x7e, 0x7e},
    {KERN_E5M2, 256, 0x7b, 0x7b},
};

static bool same(float a, float b)
{
    return (isnan(a) && isnan(b)) || bits_of(a) == bits_of(b);
}

/* `count` codes starting at `first`, as dtype stores them. */
static void store_codes(const struct kind *kind, uint32_t first, size_t count, void *out)
{
    for (size_t i = 0; i < count; i++) {
        uint16_t code = (uint16_t)(first + i);
        if (kind->codes == 256) {
            ((uint8_t *)out)[i] = (uint8_t)code;
        } else {
            memcpy((char *)out + 2 * i, &code, sizeof code);
        }
    }
}

static uint32_t load_code(const struct kind *kind, const void *from, size_t i)
{
    uint16_t code;
    if (kind->codes == 256) {
        return ((const uint8_t *)from)[i];
    }
    memcpy(&code, (const char *)from + 2 * i, sizeof code);
    return code;
}

static void test_every_code(void **state)
{
    struct check *check = *state;
    for (size_t c = 0; c < check->contexts_count; c++) {
        const struct kern_ops *ops = check->contexts[c]->ops;
        for (size_t i = 0; i < 4; i++) {
            const struct kind *kind = &kinds[i];
            uint16_t codes[64], back[64];
            float values[64];
            for (uint32_t first = 0; first < kind->codes; first += 64) {
                store_codes(kind, first, 64, codes);
                ops->to_f32(kind->dtype, codes, values, 64);
                ops->from_f32(kind->dtype, values, back, 64);
                for (uint32_t at = 0; at < 64; at++) {
                    float want = value_of(kind->dtype, first + at);
                    uint32_t code = load_code(kind, back, at);
                    assert_true(same(values[at], want));
                    if (isnan(want)) {
                        assert_true(isnan(value_of(kind->dtype, code)));
                    } else if (isinf(want) && kind->dtype == KERN_E5M2) {
                        assert_int_equal(code & 0x7f, kind->overflow);
                    } else {
                        assert_int_equal(code, first + at);
                    }
                }
            }
        }
    }
}

/* What lies between two codes goes to the nearer, what lies in the middle to the even one. */
static void test_rounding(void **state)
{
    struct check *check = *state;
    for (size_t c = 0; c < check->contexts_count; c++) {
        const struct kern_ops *ops = check->contexts[c]->ops;
        for (size_t i = 0; i < 4; i++) {
            const struct kind *kind = &kinds[i];
            for (uint32_t code = 0; code < kind->last; code++) {
                double low = (double)value_of(kind->dtype, code);
                double high = (double)value_of(kind->dtype, code + 1);
                float middle = (float)((low + high) / 2);
                uint32_t even = code + code % 2;
                float in[8] = {(float)low, nextafterf(middle, 0), middle,
                    nextafterf(middle, INFINITY), (float)high, -middle, 0, -0.0F};
                uint32_t want[8] = {code, code, even, code + 1, code + 1,
                    even | (kind->codes == 256 ? 0x80 : 0x8000), 0,
                    kind->codes == 256 ? 0x80 : 0x8000};
                uint16_t out[8];
                ops->from_f32(kind->dtype, in, out, 8);
                for (size_t at = 0; at < 8; at++) {
                    assert_int_equal(load_code(kind, out, at), want[at]);
                }
            }
        }
    }
}

static void test_too_large(void **state)
{
    struct check *check = *state;
    static const float least[] = {65520.0F, 0x1.ffp127F, 464.0F, 61440.0F};
    for (size_t c = 0; c < check->contexts_count; c++) {
        const struct kern_ops *ops = check->contexts[c]->ops;
        for (size_t i = 0; i < 4; i++) {
            const struct kind *kind = &kinds[i];
            uint32_t sign = kind->codes == 256 ? 0x80 : 0x8000;
            float in[8] = {least[i], 3.4e38F, INFINITY, -INFINITY, NAN, -NAN, 0x1.fffffep127F, 1};
            uint16_t out[8];
            ops->from_f32(kind->dtype, in, out, 8);
            assert_int_equal(load_code(kind, out, 0), kind->overflow);
            assert_int_equal(load_code(kind, out, 1), kind->overflow);
            assert_int_equal(load_code(kind, out, 2), kind->overflow);
            assert_int_equal(load_code(kind, out, 3), kind->overflow | sign);
            assert_true(isnan(value_of(kind->dtype, load_code(kind, out, 4))));
            assert_true(isnan(value_of(kind->dtype, load_code(kind, out, 5))));
            assert_int_equal(load_code(kind, out, 6), kind->overflow);
        }
    }
}

/* Counts that are no multiple of anything, misaligned, and the trivial types. */
static void test_counts(void **state)
{
    struct check *check = *state;
    static const enum kern_dtype dtypes[] = {KERN_F32, KERN_F16, KERN_BF16, KERN_E4M3, KERN_E5M2};
    for (size_t i = 0; i < 100; i++) {
        enum kern_dtype dtype = dtypes[i % 5];
        size_t count = check_size(check, 0, 40), bytes = count * kern_dtype_bytes(dtype);
        float *from = check_filled(check, count, 4), *back = check_poisoned(count, 8);
        char *want = check_bytes(bytes, 1);
        check->contexts[0]->ops->from_f32(dtype, from, want, count);
        for (size_t c = 1; c < check->contexts_count; c++) {
            char *got = check_bytes(bytes, c % 8);
            check->contexts[c]->ops->from_f32(dtype, from, got, count);
            assert_memory_equal(want, got, bytes);
            check->contexts[c]->ops->to_f32(dtype, got, back, count);
            assert_true(check_close(from, back, count, 0.2));
            check_free(got);
        }
        check_free(want);
        check_free(from);
        check_free(back);
    }
    const int8_t codes[] = {-128, -1, 0, 127};
    const float want[] = {-128, -1, 0, 127};
    float got[4];
    kern_to_f32(KERN_I8, codes, got, 4);
    assert_memory_equal(got, want, sizeof got);
}

static void test_names(void **state)
{
    (void)state;
    static const char *const names[] = {"f32", "f16", "bf16", "e4m3", "e5m2", "i8"};
    static const size_t bytes[] = {4, 2, 2, 1, 1, 1};
    for (size_t i = 0; i < 6; i++) {
        enum kern_dtype dtype = kern_dtype_of(memos_bytes_of(names[i]));
        assert_int_equal(dtype, KERN_F32 + i);
        assert_string_equal(kern_dtype_name(dtype), names[i]);
        assert_int_equal(kern_dtype_bytes(dtype), bytes[i]);
    }
    assert_int_equal(kern_dtype_of(memos_bytes_of("f64")), 0);
    assert_int_equal(kern_dtype_of(memos_bytes_of("")), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_code),
        cmocka_unit_test(test_rounding),
        cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests_name("kernels/convert", tests, check_setup, check_teardown);
}
