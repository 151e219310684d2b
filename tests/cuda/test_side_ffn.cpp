/* A block of memory that is applied to another sequence's rows, or twice, changes what a model says
 * for somebody who did not ask for it. */
#include "tests/cuda/check.cuh"

struct block {
    struct kern_matrix *in, *out, *device_in, *device_out;

    static struct kern_matrix *pack(
        struct kern_ctx *ctx, enum kern_dtype type, const std::vector<float> &from, size_t n)
    {
        struct kern_matrix *out = nullptr;
        assert_int_equal(
            kern_matrix_pack(ctx, type, KERN_F32, from.data(), n, from.size() / n, &out, nullptr),
            MEMOS_OK);
        return out;
    }
    block(size_t k, size_t r, enum kern_dtype type)
    {
        std::vector<float> left = check_floats(2 * r * k, 0.1F), right = check_floats(k * r, 0.3F);
        in = pack(check_ctx, type, left, 2 * r);
        out = pack(check_ctx, type, right, k);
        device_in = pack(check_device, type, left, 2 * r);
        device_out = pack(check_device, type, right, k);
    }
    block(const block &) = delete;
    block &operator=(const block &) = delete;
    ~block()
    {
        kern_matrix_free(&in);
        kern_matrix_free(&out);
        kern_matrix_free(&device_in);
        kern_matrix_free(&device_out);
    }
};

/* On the emulator products are ref's on both sides: they are not what is tested here. */
static void test_groups(void **)
{
    for (size_t round = 0; round < 12; round++) {
        size_t t = check_size(1, 14), k = 8 * check_size(1, 6), groups = check_size(1, 4);
        enum kern_dtype type = round % 2 ? KERN_BF16 : KERN_F32;
        enum kern_dtype h_type = round % 3 == 0 ? KERN_BF16 : KERN_F32;
        block first(k, 8 * check_size(1, 4), type), second(k, 8 * check_size(1, 4), type);
        std::vector<struct kern_side_block> blocks, device_blocks;
        std::vector<uint32_t> starts(1, 0), rows;
        for (size_t g = 0; g < groups; g++) {
            const block &one = g % 2 ? second : first;
            size_t begin = check_size(0, t - 1), step = check_size(1, 3);
            blocks.push_back({one.in, one.out, check_float()});
            device_blocks.push_back({one.device_in, one.device_out, blocks[g].tau});
            for (size_t i = begin; i < t && (step == 1 || emulate_random() % 4); i += step) {
                rows.push_back((uint32_t)i);
            }
            starts.push_back((uint32_t)rows.size());
        }
        rows.push_back(0);
        std::vector<unsigned char> h = check_stored(h_type, check_floats(t * k));
        check_array<unsigned char> d_h(h);
        check_array<float> y(check_floats(t * k));
        struct kern_side_ffn want = {h.data(), h_type, y.host.data(), t, k, blocks.data(),
            starts.data(), rows.data(), groups, nullptr};
        struct kern_side_ffn a = want;
        a.h = d_h.device;
        a.y = y.device;
        a.blocks = device_blocks.data();
        /* ref's products write it: it counts as written. */
        std::vector<unsigned char> room(
            kern_cuda_side_ffn_workspace_bytes(check_device, &a) + 256, 0xff);
        check_array<unsigned char> workspace(room);
        std::vector<unsigned char> ref_room(
            kern_ref_side_ffn_workspace_bytes(check_ctx, &want) + 256);
        a.workspace = workspace.device;
        want.workspace = (void *)(((uintptr_t)ref_room.data() + 255) / 256 * 256);
        kern_cuda_side_ffn(check_device, &a);
        check_no_faults();
        kern_ref_side_ffn(check_ctx, &want);
        check_close(y.host.data(), y.device, t * k, type == KERN_BF16 ? 3e-2 : 1e-4);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_groups)};
    return cmocka_run_group_tests(tests, check_setup, check_teardown);
}
