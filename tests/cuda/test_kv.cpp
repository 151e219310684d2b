/* A key in the wrong place of a page, or turned to the wrong position, is a memory that the model
 * reads as another. */
#include "tests/cuda/check.cuh"

static const enum kern_dtype types[] = {KERN_F32, KERN_F16, KERN_BF16, KERN_E4M3};

/* A cache on both sides, filled with numbers, and what a step needs. */
struct cache {
    size_t heads, d, pages, t, rotary;
    enum kern_dtype type;
    std::vector<float> cos, sin;
    std::vector<uint32_t> positions, slots;
    std::vector<int32_t> shifts;
    struct kern_rope rope;
    struct kern_kv kv;
    std::vector<unsigned char> memory;

    explicit cache(enum kern_dtype type_)
        : heads(check_size(1, 3)), d(8 * check_size(1, 32)), pages(4), t(check_size(1, 20)),
          type(type_)
    {
        rotary = emulate_random() % 2 ? d : 2 * check_size(1, d / 2);
        cos.resize(50 * rotary / 2);
        sin.resize(50 * rotary / 2);
        for (size_t i = 0; i < cos.size(); i++) {
            double angle = (double)(i / (rotary / 2)) * pow(0.7, (double)(i % (rotary / 2)));
            cos[i] = (float)(1.1 * ::cos(angle));
            sin[i] = (float)(1.1 * ::sin(angle));
        }
        std::vector<bool> taken(pages * 32);
        for (size_t i = 0; i < t; i++) {
            size_t slot = check_size(0, pages * 32 - 1);
            bool none = taken[slot] || emulate_random() % 5 == 0;
            slots.push_back(none ? KERN_NO_SLOT : (uint32_t)slot);
            taken[slot] = true;
            positions.push_back((uint32_t)check_size(0, 49));
            shifts.push_back((int32_t)check_size(0, 98) - 49);
        }
        rope = {cos.data(), sin.data(), rotary, 50};
        memory.resize(pages * kern_kv_page_bytes(type, heads, d) + 256);
        kv = {base(memory), pages, heads, d, type};
        check_array<float> numbers(check_floats(pages * 32 * heads * d));
        std::vector<uint32_t> all;
        for (uint32_t i = 0; i < pages * 32; i++) {
            all.push_back(i);
        }
        struct kern_kv_write fill = {&kv, nullptr, numbers.host.data(), numbers.host.data(),
            KERN_F32, nullptr, all.data(), all.size(), heads * d};
        kern_ref_kv_write(check_ctx, &fill);
    }
    static void *base(std::vector<unsigned char> &of)
    {
        return (void *)(((uintptr_t)of.data() + 255) / 256 * 256);
    }
    std::vector<unsigned char> bytes(void)
    {
        unsigned char *from = (unsigned char *)base(memory);
        return std::vector<unsigned char>(from, from + pages * kern_kv_page_bytes(type, heads, d));
    }
    /* Everything in it, as numbers. */
    std::vector<float> read(const void *pages_of) const
    {
        std::vector<float> out(2 * pages * 32 * heads * d);
        std::vector<uint32_t> all;
        struct kern_kv other = kv;
        other.pages = (void *)pages_of;
        for (uint32_t i = 0; i < pages * 32; i++) {
            all.push_back(i);
        }
        struct kern_kv_read a = {
            &other, all.data(), out.data(), out.data() + out.size() / 2, all.size()};
        kern_ref_kv_read(check_ctx, &a);
        return out;
    }
    double bound(void) const
    {
        return type == KERN_F32    ? 1e-5
               : type == KERN_F16  ? 4e-3
               : type == KERN_BF16 ? 3e-2
                                   : 0.3; /* a step of the code that is nearest to a half */
    }
};

/* Few numbers may be rounded to the other side; nearly all are the same. */
static void check_same(const cache &c, const void *device_pages)
{
    std::vector<float> want = c.read(c.kv.pages), got = c.read(device_pages);
    size_t off = 0;
    check_close(want.data(), got.data(), want.size(), c.bound());
    for (size_t i = 0; i < want.size(); i++) {
        off += fabs((double)want[i] - got[i]) > 1e-5 * (1 + fabs((double)want[i]));
    }
    assert_true(off <= want.size() / 200 + 4);
}

static void test_write(void **)
{
    static const enum kern_dtype froms[] = {KERN_F32, KERN_F16, KERN_BF16};
    for (size_t round = 0; round < 24; round++) {
        cache c(types[round % 4]);
        enum kern_dtype from = froms[round / 4 % 3];
        size_t stride = c.heads * c.d + (round % 2 ? check_size(0, 9) : 0);
        std::vector<unsigned char> key = check_stored(from, check_floats(c.t * stride, 2));
        std::vector<unsigned char> value = check_stored(from, check_floats(c.t * stride, 2));
        std::vector<unsigned char> before = c.bytes();
        check_array<unsigned char> pages(before), d_key(key), d_value(value);
        check_array<float> cos(c.cos), sin(c.sin);
        check_array<uint32_t> positions(c.positions), slots(c.slots);
        struct kern_rope rope = {cos.device, sin.device, c.rotary, 50};
        struct kern_kv kv = c.kv;
        kv.pages = pages.device;
        struct kern_kv_write a = {&kv, round % 3 ? &rope : nullptr, d_key.device, d_value.device,
            from, positions.device, slots.device, c.t, stride};
        struct kern_kv_write want = {&c.kv, round % 3 ? &c.rope : nullptr, key.data(), value.data(),
            from, c.positions.data(), c.slots.data(), c.t, stride};
        kern_cuda_kv_write(check_device, &a);
        check_no_faults();
        kern_ref_kv_write(check_ctx, &want);
        check_same(c, pages.device);
    }
}

static void test_read(void **)
{
    for (size_t round = 0; round < 12; round++) {
        cache c(types[round % 4]);
        check_array<unsigned char> pages(c.bytes());
        check_array<uint32_t> slots(c.slots);
        check_array<float> key(c.t * c.heads * c.d), value(c.t * c.heads * c.d);
        struct kern_kv kv = c.kv;
        kv.pages = pages.device;
        struct kern_kv_read a = {&kv, slots.device, key.device, value.device, c.t};
        struct kern_kv_read want = {&c.kv, c.slots.data(), key.host.data(), value.host.data(), c.t};
        kern_cuda_kv_read(check_device, &a);
        check_no_faults();
        kern_ref_kv_read(check_ctx, &want);
        assert_true(key.written(0, key.host.size()) && value.written(0, value.host.size()));
        check_close(key.host.data(), key.device, key.host.size(), 1e-6);
        check_close(value.host.data(), value.device, value.host.size(), 1e-6);
    }
}

static void test_shift(void **)
{
    for (size_t round = 0; round < 16; round++) {
        cache c(types[round % 4]);
        check_array<unsigned char> pages(c.bytes());
        check_array<float> cos(c.cos), sin(c.sin);
        check_array<uint32_t> slots(c.slots);
        check_array<int32_t> shifts(c.shifts);
        struct kern_rope rope = {cos.device, sin.device, c.rotary, 50};
        struct kern_kv kv = c.kv;
        kv.pages = pages.device;
        struct kern_kv_shift a = {&kv, &rope, slots.device, shifts.device, c.t};
        struct kern_kv_shift want = {&c.kv, &c.rope, c.slots.data(), c.shifts.data(), c.t};
        kern_cuda_kv_shift(check_device, &a);
        check_no_faults();
        kern_ref_kv_shift(check_ctx, &want);
        check_same(c, pages.device);
    }
}

/* What is not finite makes a head NaN, what is tiny makes it zero. */
static void test_odd_numbers(void **)
{
    static const float odd[] = {NAN, INFINITY, -INFINITY, 1e-31F, 0};
    for (float x : odd) {
        cache c(KERN_E4M3);
        std::vector<float> in(c.heads * c.d);
        std::vector<uint32_t> slot(1, 5);
        in[c.d - 1] = x;
        check_array<unsigned char> pages(c.bytes());
        check_array<float> d_in(in);
        check_array<uint32_t> d_slot(slot);
        struct kern_kv kv = c.kv;
        kv.pages = pages.device;
        struct kern_kv_write a = {
            &kv, nullptr, d_in.device, d_in.device, KERN_F32, nullptr, d_slot.device, 1, in.size()};
        struct kern_kv_write want = {
            &c.kv, nullptr, in.data(), in.data(), KERN_F32, nullptr, slot.data(), 1, in.size()};
        kern_cuda_kv_write(check_device, &a);
        check_no_faults();
        kern_ref_kv_write(check_ctx, &want);
        check_same(c, pages.device);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write),
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_shift),
        cmocka_unit_test(test_odd_numbers),
    };
    return cmocka_run_group_tests(tests, check_setup, check_teardown);
}
