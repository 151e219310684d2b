/* A block of memory that is applied to another sequence's rows, or twice, changes what a model says
 * for somebody who did not ask for it. */
#include "tests/cuda/check.h"

struct block {
    struct kern_matrix *in, *out;
    block(size_t k, size_t r, enum kern_dtype type)
    {
        assert_int_equal(kern_matrix_pack(check_ctx, type, KERN_F32,
                             check_floats(2 * r * k, 0.1F).data(), 2 * r, k, &in, nullptr),
            MEMOS_OK);
        assert_int_equal(kern_matrix_pack(check_ctx, type, KERN_F32,
                             check_floats(k * r, 0.3F).data(), k, r, &out, nullptr),
            MEMOS_OK);
    }
    block(const block &) = delete;
    block &operator=(const block &) = delete;
    ~block()
    {
        kern_matrix_free(&in);
        kern_matrix_free(&out);
    }
};

/* Products are ref's, on both sides: they are not what is tested here. */
static void test_groups(void **)
{
    for (size_t round = 0; round < 12; round++) {
        size_t t = check_size(1, 14), k = 8 * check_size(1, 6), groups = check_size(1, 4);
        enum kern_dtype type = round % 2 ? KERN_BF16 : KERN_F32;
        enum kern_dtype h_type = round % 3 == 0 ? KERN_BF16 : KERN_F32;
        block first(k, 8 * check_size(1, 4), type), second(k, 8 * check_size(1, 4), type);
        std::vector<struct kern_side_block> blocks;
        std::vector<uint32_t> starts(1, 0), rows;
        for (size_t g = 0; g < groups; g++) {
            const block &one = g % 2 ? second : first;
            size_t begin = check_size(0, t - 1), step = check_size(1, 3);
            blocks.push_back({one.in, one.out, check_float()});
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
        /* ref's products write it: it counts as written. */
        std::vector<unsigned char> room(
            kern_cuda_side_ffn_workspace_bytes(check_ctx, &a) + 256, 0xff);
        check_array<unsigned char> workspace(room);
        std::vector<unsigned char> ref_room(
            kern_ref_side_ffn_workspace_bytes(check_ctx, &want) + 256);
        a.workspace = workspace.device;
        want.workspace = (void *)(((uintptr_t)ref_room.data() + 255) / 256 * 256);
        kern_cuda_side_ffn(check_ctx, &a);
        check_no_faults();
        kern_ref_side_ffn(check_ctx, &want);
        check_close(y.host.data(), y.device, t * k, type == KERN_BF16 ? 2e-2 : 1e-5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_groups)};
    return cmocka_run_group_tests(tests, check_setup, check_teardown);
}
