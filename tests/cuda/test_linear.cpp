/* Without these kernels a model on a GPU multiplies the wrong numbers of its weights, or leaves
 * some out where a size does not fill a tile: answers would be noise. */
#define KERN_CUDA_EMULATED
#include "tests/cuda/check.cuh"
#include "tests/cuda/runtime.cuh"

#include "kernels/cuda/linear.cuh"

extern "C" {
#include "kernels/blocks.h"
}

struct product {
    size_t t, n, k;
    enum kern_dtype weights, x_dtype, y_dtype;
    enum kern_activation act;
    bool bias, residual;
};

/* Weights as the device has them. */
struct laid_out {
    std::vector<unsigned char> codes, scales;
    struct kern_matrix w;

    laid_out(const struct product &p, const std::vector<float> &from) : w()
    {
        std::vector<float> room(2 * p.k);
        w.dtype = p.weights;
        w.n = p.n;
        w.k = p.k;
        w.k_padded = kern_layout_padded(p.weights, p.k);
        size_t row = kern_layout_row_bytes(&w);
        codes.resize(p.n * row);
        scales.resize(kern_layout_scales_bytes(&w) + 4);
        for (size_t n = 0; n < p.n; n++) {
            kern_layout_row(
                &w, n, KERN_F32, &from[n * p.k], room.data(), &codes[n * row], scales.data());
        }
    }
};

static std::vector<float> reference(const struct product &p, const std::vector<float> &w,
    const std::vector<unsigned char> &x, const std::vector<float> &bias,
    const std::vector<float> &residual)
{
    struct kern_matrix *packed = NULL;
    std::vector<float> y(p.t * p.n);
    std::vector<unsigned char> room(p.k * 8);
    assert_int_equal(
        kern_matrix_pack(check_ctx, p.weights, KERN_F32, w.data(), p.n, p.k, &packed, NULL),
        MEMOS_OK);
    struct kern_linear a = {};
    std::vector<float> wide = check_values(p.x_dtype, x.data(), p.t * p.k);
    a.x = wide.data();
    a.w = packed;
    a.bias = p.bias ? bias.data() : NULL;
    a.residual = p.residual ? residual.data() : NULL;
    a.y = y.data();
    a.t = p.t;
    a.act = p.act;
    a.workspace = room.data();
    kern_ref_linear(check_ctx, &a);
    kern_matrix_free(&packed);
    return y;
}

static void compare(const struct product &p)
{
    std::vector<float> w = check_floats(p.n * p.k), bias = check_floats(p.n);
    std::vector<float> residual = check_floats(p.t * p.n);
    std::vector<unsigned char> x = check_stored(p.x_dtype, check_floats(p.t * p.k));
    struct laid_out laid(p, w);
    check_array<unsigned char> d_codes(laid.codes), d_scales(laid.scales), d_x(x);
    check_array<float> d_bias(bias), d_residual(residual);
    check_array<unsigned char> y(p.t * p.n * kern_dtype_bytes(p.y_dtype));
    laid.w.data = d_codes.device;
    laid.w.scales = (float *)(void *)d_scales.device;
    bool integers = p.weights != KERN_F32 && p.weights != KERN_BF16;
    check_array<unsigned char> room(integers ? kern_codes_bytes(&laid.w, p.t) : 1);
    struct kern_linear a = {};
    a.x = d_x.device;
    a.w = &laid.w;
    a.bias = p.bias ? d_bias.device : NULL;
    a.residual = p.residual ? d_residual.device : NULL;
    a.y = y.device;
    a.t = p.t;
    a.act = p.act;
    a.x_dtype = p.x_dtype;
    a.y_dtype = p.y_dtype;
    a.workspace = room.device;
    struct kern_codes x_codes = {};
    if (!kern_skinny_can(&laid.w)) {
        kern_plain(check_device, &a);
    } else {
        x_codes = integers ? kern_quantize(check_device, &a) : x_codes;
        kern_skinny(check_device, &a, x_codes);
    }
    check_no_faults();
    assert_true(y.written(0, y.host.size()));
    std::vector<float> want = reference(p, w, x, bias, residual);
    check_close(want.data(), check_values(p.y_dtype, y.device, want.size()).data(), want.size(),
        p.y_dtype == KERN_BF16 ? 2e-2 : 1e-4);
}

static void test_products(void **)
{
    static const enum kern_dtype types[] = {
        KERN_F32, KERN_BF16, KERN_I8, KERN_Q8_0, KERN_Q4_0, KERN_BF16};
    for (size_t round = 0; round < 60; round++) {
        enum kern_dtype weights = types[round % 6];
        size_t block = kern_dtype_block(weights);
        struct product p = {};
        p.t = check_size(1, 20);
        p.n = check_size(1, 70);
        p.k = block * check_size(1, (round % 7 == 0 ? 1300 : 200) / block);
        p.k = block == 1 && round % 4 > 0 ? kern_up(p.k, 8) : p.k;
        p.weights = weights;
        p.x_dtype = round % 6 == 5 ? KERN_BF16 : KERN_F32;
        p.y_dtype = check_size(0, 1) ? KERN_BF16 : KERN_F32;
        p.act = (enum kern_activation)check_size(0, 4);
        p.bias = check_size(0, 1);
        p.residual = check_size(0, 1);
        compare(p);
    }
}

/* So many rows of W that a block takes two tiles of them, or four. */
static void test_more_tiles(void **)
{
    static const enum kern_dtype types[] = {KERN_BF16, KERN_I8, KERN_Q8_0, KERN_Q4_0};
    for (size_t round = 0; round < 12; round++) {
        struct product p = {};
        p.t = round % 3 == 0 ? 3 : round % 3 == 1 ? 7 : 11;
        p.n = (round % 3 == 1 ? 32 : 16) * 8 + check_size(0, 20);
        p.k = round % 3 == 1 ? 160 : 1312;
        p.weights = types[round / 3];
        p.x_dtype = p.y_dtype = KERN_F32;
        compare(p);
    }
}

/* Codes as numbers again, from a row in the middle on. */
static void test_widening(void **)
{
    static const enum kern_dtype types[] = {KERN_I8, KERN_Q8_0, KERN_Q4_0};
    for (size_t round = 0; round < 9; round++) {
        struct product p = {};
        p.n = check_size(9, 40);
        p.k = 32 * check_size(1, 12);
        p.weights = types[round % 3];
        std::vector<float> w = check_floats(p.n * p.k), wide(p.n * p.k);
        struct laid_out laid(p, w);
        check_array<unsigned char> d_codes(laid.codes), d_scales(laid.scales);
        laid.w.data = d_codes.device;
        laid.w.scales = (float *)(void *)d_scales.device;
        size_t n = p.n - 8;
        check_array<unsigned char> out(n * p.k * 2);
        kern_widen(check_device, &laid.w, 8, n, out.device);
        check_no_faults();
        assert_true(out.written(0, n * p.k * 2));
        if (p.weights == KERN_I8) {
            for (size_t i = 0; i < p.n * p.k; i++) {
                float scale = ((const float *)(const void *)laid.scales.data())[i / p.k];
                wide[i] = scale * (float)(int8_t)laid.codes[i / p.k * laid.w.k_padded + i % p.k];
            }
        } else {
            std::vector<unsigned char> blocks(kern_dtype_row_bytes(p.weights, p.n * p.k));
            kern_blocks_from_f32(p.weights, w.data(), blocks.data(), p.n * p.k);
            kern_to_f32(p.weights, blocks.data(), wide.data(), p.n * p.k);
        }
        wide.erase(wide.begin(), wide.begin() + (std::ptrdiff_t)(8 * p.k));
        std::vector<unsigned char> want = check_stored(KERN_BF16, wide);
        assert_memory_equal(want.data(), out.device, want.size());
    }
}

static void test_rounding(void **)
{
    for (size_t round = 0; round < 6; round++) {
        size_t t = check_size(1, 5), k = check_size(1, 500), n = check_size(1, 9);
        struct kern_matrix w = {};
        w.dtype = KERN_BF16;
        w.n = n;
        w.k = k;
        check_array<float> x(check_floats(t * k)), sums(check_floats(t * n));
        check_array<unsigned char> rounded(t * k * 2);
        check_array<float> y((t + 2) * n);
        struct kern_linear a = {};
        a.x = x.device;
        a.w = &w;
        a.t = t;
        a.y = y.device;
        assert_ptr_equal(kern_rounded(check_device, &a, rounded.device), rounded.device);
        std::vector<unsigned char> want = check_stored(KERN_BF16, x.host);
        check_no_faults();
        assert_memory_equal(want.data(), rounded.device, want.size());
        a.act = KERN_RELU;
        struct kern_cut cut = {2, t, 0, n}; /* rows 2 .. */
        kern_finish(check_device, &a, sums.device, &cut);
        check_no_faults();
        assert_true(y.written(2 * n, t * n));
        for (size_t i = 0; i < t * n; i++) {
            float value = sums.host[i] > 0 ? sums.host[i] : 0;
            assert_memory_equal(&value, y.device + 2 * n + i, sizeof value);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_more_tiles),
        cmocka_unit_test(test_widening),
        cmocka_unit_test(test_rounding),
    };
    return cmocka_run_group_tests_name("cuda/linear", tests, check_setup, check_teardown);
}
