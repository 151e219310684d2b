#include "kernels/ops.h"
#include "kernels/ref/ops.h"

#include <math.h>
#include <stdlib.h>

/* Odd on purpose: a rest in every direction, and more than one tile of every level. */
enum { T = 37, N = 45, K = 150, WORKSPACE = 1 << 16 };

struct numbers {
    float x[T * K], w[N * K], bias[N], want[T * N], got[T * N];
    _Alignas(256) char workspace[WORKSPACE];
};

/* -1..1, without a generator's state. */
static float number(uint32_t i)
{
    i = (i ^ 61) * 0x9e3779b1U;
    i = (i ^ i >> 15) * 0x85ebca6bU;
    return (float)((i ^ i >> 13) & 0xffff) / 32768.0F - 1.0F;
}

static bool close_enough(const float *want, const float *got, size_t count, float bound)
{
    for (size_t i = 0; i < count; i++) {
        if (!(fabsf(want[i] - got[i]) <= bound)) {
            return false;
        }
    }
    return true;
}

static bool run_linear(const struct kern_ops *ops, struct kern_pool *pool, enum kern_dtype dtype,
    struct numbers *numbers, float *y)
{
    struct kern_ctx ctx = {.ops = ops, .pool = pool, .threads = 1};
    struct kern_matrix *w = NULL;
    if (kern_matrix_pack(&ctx, dtype, KERN_F32, numbers->w, N, K, &w, NULL) != MEMOS_OK) {
        return false;
    }
    bool fits = ops->linear_workspace_bytes(w, T) <= sizeof numbers->workspace;
    struct kern_linear a = {.x = numbers->x,
        .w = w,
        .bias = numbers->bias,
        .y = y,
        .t = T,
        .act = KERN_GELU,
        .workspace = numbers->workspace};
    if (fits) {
        ops->linear(&ctx, &a);
    }
    kern_matrix_free(&w);
    return fits;
}

static bool linear_agrees(
    const struct kern_ops *ops, struct kern_pool *pool, enum kern_dtype dtype, struct numbers *n)
{
    return run_linear(&kern_ref_ops, pool, dtype, n, n->want) &&
           run_linear(ops, pool, dtype, n, n->got) && close_enough(n->want, n->got, T * N, 1e-3F);
}

/* The weights' memory, read as codes of e4m3 and as float32: any bytes will do. */
static bool scan_agrees(const struct kern_ops *ops, enum kern_dtype dtype, struct numbers *n)
{
    uint8_t *codes = (uint8_t *)n->workspace;
    size_t bytes = kern_dtype_bytes(dtype);
    float bound = dtype == KERN_E4M3 ? 0.5F : 1e-3F; /* of sums of some 10,000 */
    for (uint32_t i = 0; i < N * K * bytes; i++) {
        codes[i] = (uint8_t)((number(i) + 1) * 127);
    }
    const void *table = dtype == KERN_F32 ? (const void *)n->w : codes;
    kern_ref_scan(dtype, table, NULL, NULL, N, K, n->x, n->want);
    ops->scan(dtype, table, NULL, NULL, N, K, n->x, n->got);
    return close_enough(n->want, n->got, N, bound);
}

bool kern_ops_agree(const struct kern_ops *ops)
{
    struct numbers *numbers = aligned_alloc(256, (sizeof *numbers + 255) / 256 * 256);
    struct kern_pool *pool = NULL;
    bool agree = numbers && kern_pool_create(1, &pool, NULL) == MEMOS_OK;
    for (uint32_t i = 0; agree && i < N * K; i++) {
        numbers->w[i] = number(i + 100000) / 4;
        numbers->bias[i % N] = number(i + 200000);
        for (uint32_t t = 0; t < T * K && i == 0; t++) {
            numbers->x[t] = number(t);
        }
    }
    agree = agree && linear_agrees(ops, pool, KERN_F32, numbers) &&
            linear_agrees(ops, pool, KERN_BF16, numbers) &&
            linear_agrees(ops, pool, KERN_I8, numbers) && scan_agrees(ops, KERN_F32, numbers) &&
            scan_agrees(ops, KERN_E4M3, numbers);
    kern_pool_destroy(&pool);
    free(numbers);
    return agree;
}
