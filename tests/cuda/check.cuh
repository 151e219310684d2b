/* What the tests of emulated kernels share: device memory with a host copy beside it, random
 * numbers, and the end of every launch: no fault, and all that should be written was.
 *
 * Threads: one. */
#ifndef TESTS_CUDA_CHECK_CUH
#define TESTS_CUDA_CHECK_CUH

#include "tests/cuda/emulate.cuh"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

extern "C" {
#include <cmocka.h>

#include "kernels/cuda/ops.h"
#include "kernels/ref/ops.h"
}

#include <vector>

/* For ref's functions; for those that are tested. */
static struct kern_ctx *check_ctx, *check_device;

/* Reads MEMOS_TEST_SEED, or makes a seed; prints it. */
static inline int check_setup(void **)
{
    struct kern_options options = {"ref", nullptr, 1};
    assert_int_equal(kern_ctx_create(&options, &check_ctx, nullptr), MEMOS_OK);
    check_device = emulate_context();
    const char *text = getenv("MEMOS_TEST_SEED");
    unsigned long long seed = text ? strtoull(text, nullptr, 10) : (unsigned long long)getpid();
    print_message("MEMOS_TEST_SEED=%llu\n", seed);
    emulate_seed(seed);
    return 0;
}

static inline int check_teardown(void **)
{
    emulate_context_done();
    kern_ctx_destroy(&check_ctx);
    return 0;
}

static inline size_t check_size(size_t least, size_t most)
{
    return least + emulate_random() % (most - least + 1);
}

static inline float check_float(void)
{
    double sum = 0;
    for (int i = 0; i < 4; i++) {
        sum += (double)(emulate_random() >> 11) * 0x1p-53 - 0.5;
    }
    return (float)(2 * sum);
}

/* count numbers, `shift` elements after an aligned address, on the host and on the "device". */
template <typename T> struct check_array {
    std::vector<T> host;
    T *memory, *device;
    size_t shift;

    explicit check_array(size_t count, size_t shift_ = 0) : host(count), shift(shift_)
    {
        memory = (T *)emulate_alloc((count + shift) * sizeof(T), nullptr);
        device = memory + shift;
    }
    explicit check_array(const std::vector<T> &from, size_t shift_ = 0) : host(from), shift(shift_)
    {
        std::vector<T> with(shift + from.size());
        for (size_t i = 0; i < from.size(); i++) {
            with[shift + i] = from[i];
        }
        memory = (T *)emulate_alloc(with.size() * sizeof(T), with.data());
        device = memory + shift;
    }
    check_array(const check_array &) = delete;
    check_array &operator=(const check_array &) = delete;
    ~check_array()
    {
        emulate_free(memory);
    }
    bool written(size_t first, size_t count) const
    {
        return emulate_written(device + first, count * sizeof(T));
    }
};

static inline std::vector<float> check_floats(size_t count, float scale = 1)
{
    std::vector<float> out(count);
    for (float &x : out) {
        x = check_float() * scale;
    }
    return out;
}

/* Numbers in another type, as bytes. */
static inline std::vector<unsigned char> check_stored(
    enum kern_dtype type, const std::vector<float> &from)
{
    std::vector<unsigned char> out(from.size() * kern_dtype_bytes(type));
    kern_from_f32(type, from.data(), out.data(), from.size());
    return out;
}

static inline std::vector<float> check_values(enum kern_dtype type, const void *from, size_t count)
{
    std::vector<float> out(count);
    kern_to_f32(type, from, out.data(), count);
    return out;
}

/* No fault since the last call; says the first. */
static inline void check_no_faults(void)
{
    char text[256];
    size_t faults = emulate_faults(text);
    if (faults > 0) {
        print_message("%zu faults; the first: %s\n", faults, text);
    }
    assert_int_equal(faults, 0);
}

/* Are got's numbers want's? `bound` is in units of the root mean square of want (at least 0.05),
 * `step` in units of each number: what its type rounds by. NaN where want has NaN. */
static inline void check_close(
    const float *want, const float *got, size_t count, double bound, double step = 0)
{
    double squares = 0;
    for (size_t i = 0; i < count; i++) {
        squares += isnan(want[i]) ? 0 : (double)want[i] * want[i];
    }
    double unit = count > 0 ? fmax(sqrt(squares / (double)count), 0.05) : 1;
    for (size_t i = 0; i < count; i++) {
        double most = bound * unit + step * fabs((double)want[i]);
        bool same = isnan(want[i]) ? isnan(got[i]) : fabs((double)want[i] - got[i]) <= most;
        if (!same) {
            print_message("[%zu] of %zu: %g, not %g; off by %g of %g\n", i, count, (double)got[i],
                (double)want[i], fabs((double)want[i] - got[i]) / unit, bound);
        }
        assert_true(same);
    }
}

#endif
