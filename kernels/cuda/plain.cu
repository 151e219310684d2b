/* The product for any shape, in float32 arithmetic: a warp takes a row of W and 8 rows of x. For
 * float32 weights with few rows, which it reads once; and for what the other ways do not take. */
#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/words.cuh"

#define WARPS 8
#define ROWS 8

struct plain {
    const void *x, *w;
    size_t k, t, t_tiles;
    struct kern_epilogue out;
};

template <bool BF16> static __device__ __forceinline__ float number(const void *from, size_t at)
{
    return BF16 ? kern_float_of_bf16(((const uint16_t *)from)[at]) : ((const float *)from)[at];
}

/* x is rounded to bf16 for bf16 weights. */
template <bool W_BF16, bool X_BF16>
static __device__ __forceinline__ float number_of_x(const void *from, size_t at)
{
    float value = number<X_BF16>(from, at);
    return W_BF16 && !X_BF16 ? kern_float_of_bf16(kern_bf16_of_float(value)) : value;
}

/* STEP numbers of K at once by each lane: 4 where rows of float32 are 16-byte aligned. The order in
 * which a row's products are added does not depend on the other rows. */
template <bool W_BF16, bool X_BF16, int STEP>
__global__ void __launch_bounds__(WARPS * 32) plain(const struct plain a)
{
    size_t n = blockIdx.x / a.t_tiles * WARPS + threadIdx.x / 32;
    size_t t0 = blockIdx.x % a.t_tiles * ROWS;
    size_t lane = threadIdx.x % 32;
    float sums[ROWS] = {};
    if (n >= a.out.n) {
        return;
    }
    for (size_t k = lane * STEP; k < a.k; k += 32 * STEP) {
        float w[STEP];
        if (STEP == 4) {
            uint4 four = kern_load_once((const float *)a.w + n * a.k + k);
            memcpy(w, &four, sizeof w);
        } else {
            w[0] = number<W_BF16>(a.w, n * a.k + k);
        }
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            if (t0 + (size_t)r < a.t) {
#pragma unroll
                for (int i = 0; i < STEP; i++) {
                    sums[r] += w[i] * number_of_x<W_BF16, X_BF16>(
                                          a.x, (t0 + (size_t)r) * a.k + k + (size_t)i);
                }
            }
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        if (t0 + (size_t)r < a.t) { /* or not, for a whole warp */
            for (int step = 16; step > 0; step /= 2) {
                sums[r] += __shfl_xor_sync(~0U, sums[r], step);
            }
            if (lane == 0) {
                kern_put(&a.out, t0 + (size_t)r, n, sums[r]);
            }
        }
    }
}

void kern_plain(struct kern_ctx *ctx, const struct kern_linear *a)
{
    const struct kern_matrix *w = a->w;
    struct plain args = {a->x, w->data, w->k, a->t, (a->t + ROWS - 1) / ROWS, kern_epilogue_of(a)};
    dim3 grid((unsigned)((w->n + WARPS - 1) / WARPS * args.t_tiles)), block(WARPS * 32);
    if (w->dtype == KERN_BF16 && a->x_dtype == KERN_BF16) {
        KERN_LAUNCH(ctx, (plain<true, true, 1>), grid, block, 0, args);
    } else if (w->dtype == KERN_BF16) {
        KERN_LAUNCH(ctx, (plain<true, false, 1>), grid, block, 0, args);
    } else if (w->k % 4 == 0) {
        KERN_LAUNCH(ctx, (plain<false, false, 4>), grid, block, 0, args);
    } else {
        KERN_LAUNCH(ctx, (plain<false, false, 1>), grid, block, 0, args);
    }
}
