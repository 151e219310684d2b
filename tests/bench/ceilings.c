#include "tests/bench/ceilings.h"

#include "tests/bench/bench.h"
#include "tests/bench/gemm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define READ_BYTES ((size_t)1 << 30)
#define FILE_PIECE ((size_t)4 << 20)
#define HUGE_BYTES ((size_t)2 << 20)
enum { ROUNDS = 5, PIECES = 64 };

/* ---- memory -------------------------------------------------------------------------------- */

struct reading {
    const uint64_t *numbers;
    size_t count; /* of a piece */
    uint64_t sums[PIECES];
};

static void read_piece(void *self, size_t index)
{
    struct reading *reading = self;
    const uint64_t *numbers = reading->numbers + index * reading->count;
    uint64_t sums[16] = {0}; /* apart, so that the compiler may keep them in registers */
    for (size_t i = 0; i < reading->count; i += 16) {
        for (size_t j = 0; j < 16; j++) {
            sums[j] += numbers[i + j];
        }
    }
    for (size_t j = 0; j < 16; j++) {
        reading->sums[index] += sums[j];
    }
}

static double read_host(struct kern_ctx *ctx)
{
    struct reading reading = {.count = READ_BYTES / sizeof(uint64_t) / PIECES};
    int64_t times[ROUNDS];
    uint64_t *numbers = malloc(READ_BYTES);
    if (!numbers) {
        bench_fail("no memory to read");
    }
    memset(numbers, 1, READ_BYTES);
    reading.numbers = numbers;
    for (size_t round = 0; round < ROUNDS; round++) {
        int64_t begin = bench_now_ns();
        kern_parallel(ctx, PIECES, read_piece, &reading);
        times[round] = bench_now_ns() - begin;
    }
    memos_assert(reading.sums[0] != 1); /* they are used */
    free(numbers);
    return (double)READ_BYTES * 1e9 / bench_percentile(times, ROUNDS, 0.0);
}

static double copy_device(struct kern_ctx *ctx)
{
    struct memos_error err;
    void *from = NULL, *to = NULL;
    int64_t times[ROUNDS];
    bench_check(kern_alloc(ctx, READ_BYTES, &from, &err), &err, "memory");
    bench_check(kern_alloc(ctx, READ_BYTES, &to, &err), &err, "memory");
    kern_fill(ctx, from, 1, READ_BYTES);
    for (size_t round = 0; round < ROUNDS; round++) {
        bench_check(kern_sync(ctx, &err), &err, "a copy");
        int64_t begin = bench_now_ns();
        kern_copy(ctx, to, from, READ_BYTES);
        bench_check(kern_sync(ctx, &err), &err, "a copy");
        times[round] = bench_now_ns() - begin;
    }
    kern_release(ctx, &from);
    kern_release(ctx, &to);
    return 2.0 * (double)READ_BYTES * 1e9 / bench_percentile(times, ROUNDS, 0.0);
}

double limits_read(struct kern_ctx *ctx)
{
    return strncmp(kern_ctx_name(ctx), "cuda", 4) == 0 ? copy_device(ctx) : read_host(ctx);
}

/* ---- products ------------------------------------------------------------------------------ */

static float *numbers_make(size_t count)
{
    float *numbers = bench_memory(count, sizeof *numbers);
    uint64_t state = 7;
    for (size_t i = 0; i < count; i++) {
        numbers[i] = (float)(bench_next(&state) >> 40) / 8388608.0f - 1.0f;
    }
    return numbers;
}

/* The first `count` numbers, rounded to dtype, to device memory. */
static void upload_as(
    struct kern_ctx *ctx, enum kern_dtype dtype, const float *numbers, size_t count, void *to)
{
    void *rounded = bench_memory(count, kern_dtype_bytes(dtype));
    struct memos_error err;
    kern_from_f32(dtype, numbers, rounded, count);
    kern_upload(ctx, to, rounded, count * kern_dtype_bytes(dtype));
    bench_check(kern_sync(ctx, &err), &err, "a copy");
    free(rounded);
}

double limits_product(struct kern_ctx *ctx, enum kern_dtype dtype, size_t t, size_t n, size_t k)
{
    struct memos_error err;
    struct kern_matrix *w = NULL;
    float *numbers = numbers_make(n > t ? n * k : t * k);
    void *x = NULL, *y = NULL, *workspace = NULL;
    int64_t times[ROUNDS];
    bench_check(kern_matrix_pack(ctx, dtype, KERN_F32, numbers, n, k, &w, &err), &err, "packing");
    enum kern_dtype between = kern_between_dtype(ctx, dtype);
    size_t room = kern_linear_workspace_bytes(ctx, w, t);
    bench_check(kern_alloc(ctx, t * k * sizeof(float), &x, &err), &err, "memory");
    bench_check(kern_alloc(ctx, t * n * sizeof(float), &y, &err), &err, "memory");
    bench_check(kern_alloc(ctx, room + 256, &workspace, &err), &err, "memory");
    /* numbers, not zeros: those cost a GPU less power, and so time */
    upload_as(ctx, between, numbers, t * k, x);
    struct kern_linear a = {.x = x,
        .w = w,
        .y = y,
        .t = t,
        .x_dtype = between,
        .y_dtype = between,
        .workspace = workspace};
    for (size_t round = 0; round < ROUNDS; round++) {
        kern_linear(ctx, &a);
        bench_check(kern_sync(ctx, &err), &err, "a product");
        int64_t begin = bench_now_ns();
        kern_linear(ctx, &a);
        bench_check(kern_sync(ctx, &err), &err, "a product");
        times[round] = bench_now_ns() - begin;
    }
    kern_release(ctx, &x);
    kern_release(ctx, &y);
    kern_release(ctx, &workspace);
    kern_matrix_free(&w);
    free(numbers);
    return 2.0 * (double)t * (double)n * (double)k * 1e9 / bench_percentile(times, ROUNDS, 0.0);
}

static double time_rival(struct gemm *gemm)
{
    int64_t times[ROUNDS];
    if (!gemm) {
        return 0;
    }
    for (size_t round = 0; round < ROUNDS; round++) {
        gemm_run(gemm);
        int64_t begin = bench_now_ns();
        gemm_run(gemm);
        times[round] = bench_now_ns() - begin;
    }
    gemm_free(&gemm);
    return bench_percentile(times, ROUNDS, 0.0);
}

double limits_rival(size_t t, size_t n, size_t k)
{
    float *x = numbers_make(t * k), *w = numbers_make(n * k);
    double best = time_rival(gemm_openblas(x, w, t, n, k));
    double other = time_rival(gemm_onednn(KERN_BF16, x, w, t, n, k));
    if (best == 0 || (other > 0 && other < best)) {
        best = other;
    }
    free(x);
    free(w);
    return best > 0 ? 2.0 * (double)t * (double)n * (double)k * 1e9 / best : 0;
}

/* ---- files and this process ---------------------------------------------------------------- */

double limits_file(const char *path)
{
    char *room = bench_memory(FILE_PIECE, 1);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = 1;
    if (file < 0) {
        bench_fail("%s: %s", path, strerror(errno));
    }
    int64_t begin = bench_now_ns();
    while (size > 0) {
        size = read(file, room, FILE_PIECE);
    }
    double seconds = (double)(bench_now_ns() - begin) / 1e9;
    if (size < 0) {
        bench_fail("%s: %s", path, strerror(errno));
    }
    close(file);
    free(room);
    return seconds;
}

double limits_fresh_memory(size_t bytes)
{
    int64_t begin = bench_now_ns();
    size_t size = (bytes + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES;
    volatile char *memory = aligned_alloc(HUGE_BYTES, size);
    if (!memory) {
        bench_fail("no memory for %zu bytes", size);
    }
    (void)madvise((void *)memory, size, MADV_HUGEPAGE);
    for (size_t i = 0; i < size; i += 4096) {
        memory[i] = 1;
    }
    double seconds = (double)(bench_now_ns() - begin) / 1e9;
    free((void *)memory);
    return seconds;
}

void limits_memory_reset(void)
{
    FILE *file = fopen("/proc/self/clear_refs", "w");
    if (file) {
        (void)fputs("5", file); /* the high-water mark, says proc(5) */
        (void)fclose(file);
    }
}

static uint64_t status_bytes(const char *field)
{
    char line[256];
    unsigned long long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, field, strlen(field)) == 0) {
            (void)sscanf(line + strlen(field), "%llu", &kib);
        }
    }
    if (file) {
        (void)fclose(file);
    }
    return kib * 1024;
}

uint64_t limits_memory_most(void)
{
    return status_bytes("VmHWM:");
}

uint64_t limits_memory_now(void)
{
    return status_bytes("VmRSS:");
}
