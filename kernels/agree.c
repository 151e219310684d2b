#include "kernels/ops.h"
#include "kernels/ref/ops.h"

#include <math.h>
#include <stdlib.h>

/* Odd on purpose: a rest in every direction, and more than one tile of every level. Of blocks,
 * which have a K of their own, fewer rows: so many that a level takes its tiles for many (16 and
 * more), and so few that it does not. */
enum { T = 37, N = 45, K = 150, WORKSPACE = 1 << 16 };
enum { BLOCKS_T = 21, BLOCKS_T_FEW = 9, BLOCKS_N = 21, BLOCKS_K = 256 };

struct numbers {
    float x[T * K], w[N * K], bias[N], want[T * N], got[T * N];
    uint8_t blocks[BLOCKS_N * BLOCKS_K / 32 * 34]; /* of the largest type */
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
    struct numbers *numbers, size_t t, float *y)
{
    struct kern_ctx ctx = {.ops = ops, .pool = pool, .threads = 1};
    struct kern_matrix *w = NULL;
    bool blocks = kern_dtype_block(dtype) > 1;
    const struct kern_part part = {blocks ? dtype : KERN_F32,
        blocks ? (const void *)numbers->blocks : numbers->w, blocks ? BLOCKS_N : N};
    if (kern_matrix_pack_parts(&ctx, dtype, &part, 1, blocks ? BLOCKS_K : K, &w, NULL) !=
        MEMOS_OK) {
        return false;
    }
    bool fits = ops->linear_workspace_bytes(w, t) <= sizeof numbers->workspace;
    struct kern_linear a = {.x = numbers->x,
        .w = w,
        .bias = numbers->bias,
        .y = y,
        .t = t,
        .act = KERN_GELU,
        .workspace = numbers->workspace};
    if (fits) {
        ops->linear(&ctx, &a);
    }
    kern_matrix_free(&w);
    return fits;
}

/* Any codes, and scales of 2^-12 to 2^-9: the second byte of each f16. */
static void make_blocks(enum kern_dtype dtype, uint8_t *out)
{
    size_t block = kern_dtype_row_bytes(dtype, kern_dtype_block(dtype));
    size_t bytes = BLOCKS_N * kern_dtype_row_bytes(dtype, BLOCKS_K);
    for (uint32_t i = 0; i < bytes; i++) {
        size_t in = i % block;
        bool scale = dtype == KERN_Q6_K ? in == 209 : in == 1 || (dtype == KERN_Q4_K && in == 3);
        uint8_t byte = (uint8_t)((number(i) + 1) * 127);
        out[i] = scale ? 0x0c + byte % 12 : byte;
    }
}

static bool blocks_agree(const struct kern_ops *ops, struct kern_pool *pool, struct numbers *n)
{
    for (enum kern_dtype dtype = KERN_Q8_0; dtype <= KERN_Q6_K; dtype++) {
        float *want = n->want, *got = n->got;
        make_blocks(dtype, n->blocks);
        if (!run_linear(&kern_ref_ops, pool, dtype, n, BLOCKS_T, want) ||
            !run_linear(ops, pool, dtype, n, BLOCKS_T, got) ||
            !close_enough(want, got, (size_t)BLOCKS_T * BLOCKS_N, 1e-3F) ||
            !run_linear(ops, pool, dtype, n, BLOCKS_T_FEW, got) ||
            !close_enough(want, got, (size_t)BLOCKS_T_FEW * BLOCKS_N, 1e-3F)) {
            return false;
        }
    }
    return true;
}

static bool linear_agrees(
    const struct kern_ops *ops, struct kern_pool *pool, enum kern_dtype dtype, struct numbers *n)
{
    return run_linear(&kern_ref_ops, pool, dtype, n, T, n->want) &&
           run_linear(ops, pool, dtype, n, T, n->got) &&
           close_enough(n->want, n->got, T * N, 1e-3F);
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
            linear_agrees(ops, pool, KERN_I8, numbers) && blocks_agree(ops, pool, numbers) &&
            scan_agrees(ops, KERN_F32, numbers) && scan_agrees(ops, KERN_E4M3, numbers);
    kern_pool_destroy(&pool);
    free(numbers);
    return agree;
}
