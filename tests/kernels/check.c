#include "tests/kernels/check.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define FENCE_BYTES 64
#define FENCE 0xa5
#define DEVICE_FENCE_BYTES 256 /* what follows stays aligned */

bool check_sanitizing(void)
{
    return getenv("MEMOS_TEST_SANITIZING") != NULL;
}

static void add_cuda(struct check *check)
{
    const struct kern_options options = {"cuda", NULL, 2};
    struct kern_ctx *ctx = NULL;
    struct memos_error err;
    if (kern_ctx_create(&options, &ctx, &err) != MEMOS_OK) {
        print_message("not testing cuda: %s\n", err.text);
        return;
    }
    print_message("testing %s\n", kern_ctx_name(ctx));
    check->contexts[check->contexts_count++] = ctx;
    check->cuda = ctx;
}

int check_setup_all(void **state)
{
    int result = check_setup(state);
    add_cuda(*state);
    return result;
}

int check_setup_copying(void **state)
{
    int result = check_setup_all(state);
    struct check *check = *state;
    if (check->cuda) {
        check_on_device(check->cuda);
    }
    return result;
}

int check_setup(void **state)
{
    static const struct kern_options options[] = {
        {"ref", NULL, 1},
        {"cpu", "sse2", 1},
        {"cpu", "avx2", 1},
        {"cpu", "avx2", 3},
        {"cpu", "avx512", 1},
        {"cpu", "avx512", 2},
        {"cpu", "amx", 1},
        {"cpu", "amx", 2},
    };
    struct check *check = calloc(1, sizeof *check);
    const char *seed = getenv("MEMOS_TEST_SEED");
    assert_non_null(check);
    check->state = seed ? strtoull(seed, NULL, 10) : (uint64_t)getpid();
    print_message("MEMOS_TEST_SEED=%llu\n", (unsigned long long)check->state);
    size_t count = check_sanitizing() ? 1 : sizeof options / sizeof *options;
    for (size_t i = 0; i < count; i++) {
        struct kern_ctx *ctx = NULL;
        assert_int_equal(kern_ctx_create(&options[i], &ctx, NULL), MEMOS_OK);
        /* A level that this processor does not have gives a weaker one, tested already. */
        if (options[i].level && !strstr(kern_ctx_name(ctx), options[i].level)) {
            kern_ctx_destroy(&ctx);
            continue;
        }
        print_message("testing %s\n", kern_ctx_name(ctx));
        check->contexts[check->contexts_count++] = ctx;
    }
    *state = check;
    return 0;
}

int check_teardown(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < check->contexts_count; i++) {
        kern_ctx_destroy(&check->contexts[i]);
    }
    free(check);
    return 0;
}

uint64_t check_next(struct check *check)
{
    uint64_t z = check->state += 0x9e3779b97f4a7c15;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

size_t check_size(struct check *check, size_t least, size_t most)
{
    return least + check_next(check) % (most - least + 1);
}

float check_float(struct check *check)
{
    double sum = 0;
    for (int i = 0; i < 4; i++) {
        sum += (double)(check_next(check) >> 11) * 0x1p-53 - 0.5;
    }
    return (float)(2 * sum);
}

/* A block is: its size, a fence, shift bytes, the memory, a fence. */
struct block {
    size_t bytes, shift;
    char *memory;
};

void *check_bytes(size_t bytes, size_t shift)
{
    size_t head = sizeof(struct block) + 2 * FENCE_BYTES;
    head = (head + 255) / 256 * 256;
    struct block block = {.bytes = bytes, .shift = shift};
    block.memory = aligned_alloc(256, (head + shift + bytes + FENCE_BYTES + 255) / 256 * 256);
    assert_non_null(block.memory);
    char *at = block.memory + head + shift;
    memset(block.memory, FENCE, head + shift + bytes + FENCE_BYTES);
    memcpy(at - FENCE_BYTES - sizeof block, &block, sizeof block);
    memset(at, 0xff, bytes);
    return at;
}

float *check_poisoned(size_t count, size_t shift)
{
    return check_bytes(count * sizeof(float), shift); /* all ones is a NaN */
}

float *check_filled(struct check *check, size_t count, size_t shift)
{
    char *out = check_bytes(count * sizeof(float), shift);
    for (size_t i = 0; i < count; i++) {
        float value = check_float(check);
        memcpy(out + i * sizeof value, &value, sizeof value);
    }
    return (float *)(void *)out;
}

void check_free(void *memory)
{
    struct block block;
    const unsigned char *at = memory;
    memcpy(&block, at - FENCE_BYTES - sizeof block, sizeof block);
    for (size_t i = 0; i < FENCE_BYTES; i++) {
        assert_int_equal(at[block.bytes + i], FENCE);
        assert_int_equal(at[(ptrdiff_t)i - FENCE_BYTES], FENCE);
    }
    free(block.memory);
}

void check_drop_cuda(struct check *check)
{
    if (check->cuda) {
        kern_ctx_destroy(&check->contexts[--check->contexts_count]);
        check->cuda = NULL;
    }
}

/* ---- device memory ------------------------------------------------------------------------- */

void check_done(struct kern_ctx *ctx)
{
    struct memos_error err;
    if (kern_sync(ctx, &err) != MEMOS_OK) {
        fail_msg("%s: %s", kern_ctx_name(ctx), err.text);
    }
}

void *check_upload(struct kern_ctx *ctx, const void *host, size_t bytes)
{
    void *memory = NULL;
    assert_int_equal(kern_alloc(ctx, bytes + 2 * DEVICE_FENCE_BYTES, &memory, NULL), MEMOS_OK);
    char *at = (char *)memory + DEVICE_FENCE_BYTES;
    kern_fill(ctx, memory, FENCE, bytes + 2 * DEVICE_FENCE_BYTES);
    kern_upload(ctx, at, host, bytes);
    return at;
}

void check_download(struct kern_ctx *ctx, void *device, void *host, size_t bytes)
{
    size_t all = bytes + 2 * DEVICE_FENCE_BYTES;
    unsigned char *copy = malloc(all);
    void *memory = (char *)device - DEVICE_FENCE_BYTES;
    struct memos_error err;
    assert_non_null(copy);
    if (kern_download(ctx, copy, memory, all, &err) != MEMOS_OK) {
        fail_msg("%s: %s", kern_ctx_name(ctx), err.text);
    }
    for (size_t i = 0; i < DEVICE_FENCE_BYTES; i++) {
        assert_int_equal(copy[i], FENCE);
        assert_int_equal(copy[all - 1 - i], FENCE);
    }
    if (host) {
        memcpy(host, copy + DEVICE_FENCE_BYTES, bytes);
    }
    free(copy);
    kern_release(ctx, &memory);
}

bool check_close(const float *want, const float *got, size_t count, double bound)
{
    double squares = 0, worst = 0;
    size_t worst_at = 0;
    for (size_t i = 0; i < count; i++) {
        squares += (double)want[i] * (double)want[i];
        double off = fabs((double)want[i] - (double)got[i]);
        if (!(off <= worst)) { /* NaN is the worst */
            worst = isnan(off) ? INFINITY : off;
            worst_at = i;
        }
    }
    double unit = count > 0 ? fmax(sqrt(squares / (double)count), 0.05) : 1;
    if (worst <= bound * unit) {
        return true;
    }
    print_message("[%zu] of %zu: %g, not %g; off by %g of %g\n", worst_at, count,
        (double)got[worst_at], (double)want[worst_at], worst / unit, bound);
    return false;
}
