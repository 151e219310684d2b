/* Without these kernels a model on a GPU reads the wrong embedding, or norms, gates and turns its
 * heads wrongly at sizes that do not fill a block: answers would be noise. */
#include "tests/cuda/check.cuh"

static enum kern_dtype pick(const enum kern_dtype *from, size_t count)
{
    return from[check_size(0, count - 1)];
}

static void test_gather(void **)
{
    static const enum kern_dtype types[] = {
        KERN_F32, KERN_F16, KERN_BF16, KERN_Q8_0, KERN_Q4_0, KERN_Q4_K, KERN_Q6_K};
    for (int round = 0; round < 40; round++) {
        enum kern_dtype type = types[(size_t)round % 7];
        size_t block = kern_dtype_block(type);
        size_t k = block > 1 ? block * check_size(1, 4) : check_size(1, 300);
        size_t rows = check_size(1, 20), t = check_size(1, 9);
        std::vector<unsigned char> table(rows * kern_dtype_row_bytes(type, k));
        if (block == 1) {
            table = check_stored(type, check_floats(rows * k));
        }
        for (size_t i = 0; block > 1 && i < table.size(); i++) {
            table[i] = (unsigned char)(emulate_random() & 0x3f); /* scales stay finite */
        }
        std::vector<uint32_t> ids(t);
        for (uint32_t &id : ids) {
            id = (uint32_t)check_size(0, rows - 1);
        }
        check_array<unsigned char> d_table(table);
        check_array<uint32_t> d_ids(ids);
        check_array<float> y(t * k);
        struct kern_gather a = {d_table.device, type, d_ids.device, y.device, t, k};
        kern_cuda_gather(check_device, &a);
        check_no_faults();
        assert_true(y.written(0, t * k));
        struct kern_gather want = {table.data(), type, ids.data(), y.host.data(), t, k};
        kern_ref_gather(check_ctx, &want);
        check_close(y.host.data(), y.device, t * k, 1e-6);
    }
}

static void test_rmsnorm(void **)
{
    static const size_t widths[] = {1, 3, 8, 64, 127, 128, 512, 516, 1001, 4096, 4100, 5000, 17000};
    for (size_t round = 0; round < 26; round++) {
        size_t k = widths[round % 13], heads = k < 200 ? check_size(1, 5) : 1;
        size_t rows = k > 2000 ? 2 : check_size(1, 20), odd = check_size(0, 1);
        size_t x_stride = heads * k + odd * check_size(0, 5), y_stride = heads * k + 4 * odd;
        enum kern_dtype type = round % 3 == 0 ? KERN_BF16 : KERN_F32;
        check_array<float> x(check_floats(rows * x_stride, round % 5 == 4 ? 1e30F : 1), odd),
            gamma(check_floats(k));
        check_array<unsigned char> y(rows * y_stride * kern_dtype_bytes(type));
        struct kern_rmsnorm a = {
            x.device, gamma.device, y.device, rows, heads, k, x_stride, y_stride, type, 1e-5F};
        struct kern_rmsnorm want = a;
        want.x = x.host.data();
        want.gamma = gamma.host.data();
        want.y = y.host.data();
        kern_cuda_rmsnorm(check_device, &a);
        check_no_faults();
        kern_ref_rmsnorm(check_ctx, &want);
        for (size_t r = 0; r < rows; r++) {
            size_t at = r * y_stride * kern_dtype_bytes(type), count = heads * k;
            assert_true(y.written(at, count * kern_dtype_bytes(type)));
            check_close(check_values(type, &y.host[at], count).data(),
                check_values(type, y.device + at, count).data(), count,
                type == KERN_BF16 ? 1.6e-2 : 1e-5);
        }
        if (type == KERN_F32) { /* in place */
            a.y = x.device;
            a.y_stride = x_stride;
            want.y = x.host.data();
            want.y_stride = x_stride;
            kern_cuda_rmsnorm(check_device, &a);
            kern_ref_rmsnorm(check_ctx, &want);
            check_no_faults();
            check_close(x.host.data(), x.device, rows * x_stride, 1e-5);
        }
    }
}

static void test_silu_mul(void **)
{
    static const enum kern_dtype types[] = {KERN_F32, KERN_BF16};
    for (int round = 0; round < 24; round++) {
        size_t t = check_size(1, 7), inner = round % 2 ? check_size(1, 50) * 8 : check_size(1, 300);
        enum kern_dtype x_type = pick(types, 2), y_type = pick(types, 2);
        std::vector<unsigned char> x = check_stored(x_type, check_floats(t * 2 * inner, 3));
        check_array<unsigned char> d_x(x), y(t * inner * kern_dtype_bytes(y_type));
        struct kern_silu_mul a = {d_x.device, y.device, t, inner, x_type, y_type};
        struct kern_silu_mul want = {x.data(), y.host.data(), t, inner, x_type, y_type};
        kern_cuda_silu_mul(check_device, &a);
        check_no_faults();
        assert_true(y.written(0, y.host.size()));
        kern_ref_silu_mul(check_ctx, &want);
        check_close(check_values(y_type, y.host.data(), t * inner).data(),
            check_values(y_type, y.device, t * inner).data(), t * inner,
            y_type == KERN_BF16 ? 4e-2 : 1e-5);
    }
}

static void test_rotate(void **)
{
    for (int round = 0; round < 24; round++) {
        size_t d = 8 * check_size(1, 16), rotary = 2 * check_size(1, d / 2),
               heads = check_size(1, 4);
        size_t t = check_size(1, 12), stride = heads * d + (round % 3 ? 0 : check_size(0, 5));
        rotary = round % 2 ? d : rotary;
        std::vector<float> cos(50 * rotary / 2), sin(50 * rotary / 2);
        for (size_t i = 0; i < cos.size(); i++) { /* a factor, as YaRN has */
            double angle = (double)(i / (rotary / 2)) * pow(0.7, (double)(i % (rotary / 2)));
            cos[i] = (float)(1.2 * ::cos(angle));
            sin[i] = (float)(1.2 * ::sin(angle));
        }
        std::vector<uint32_t> positions(t);
        for (uint32_t &p : positions) {
            p = (uint32_t)check_size(0, 49);
        }
        check_array<float> x(check_floats(t * stride), check_size(0, 1)), d_cos(cos), d_sin(sin);
        check_array<uint32_t> d_positions(positions);
        struct kern_rope rope = {d_cos.device, d_sin.device, rotary, 50};
        struct kern_rope host = {cos.data(), sin.data(), rotary, 50};
        struct kern_rotate a = {
            &rope, x.device, d_positions.device, t, heads, d, stride, round % 4 == 1};
        struct kern_rotate want = a;
        want.rope = &host;
        want.x = x.host.data();
        want.positions = positions.data();
        kern_cuda_rotate(check_device, &a);
        check_no_faults();
        kern_ref_rotate(check_ctx, &want);
        check_close(x.host.data(), x.device, t * stride, 1e-5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gather),
        cmocka_unit_test(test_rmsnorm),
        cmocka_unit_test(test_silu_mul),
        cmocka_unit_test(test_rotate),
    };
    return cmocka_run_group_tests(tests, check_setup, check_teardown);
}
