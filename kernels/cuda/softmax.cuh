/* The largest of a row of logits and the sum of exp(logit - largest), by a block. */
#ifndef KERNELS_CUDA_SOFTMAX_CUH
#define KERNELS_CUDA_SOFTMAX_CUH

#include "kernels/cuda/numbers.cuh"

struct running {
    float most, sum; /* sum of exp(x - most) */
};

/* exp of a difference that is at most 0, or -INFINITY - -INFINITY, which counts as nothing; NaN
 * stays NaN. */
static __device__ __forceinline__ float exp_below(float x, float most)
{
    return x == -INFINITY ? 0.0F : expf(x - most);
}

/* The same to the bit for (b, a): no product becomes part of the addition. */
static __device__ __forceinline__ running running_joined(running a, running b)
{
    float most = fmaxf(a.most, b.most);
    return {most, __fadd_rn(__fmul_rn(a.sum, exp_below(a.most, most)),
                      __fmul_rn(b.sum, exp_below(b.most, most)))};
}

template <int V> static __device__ __forceinline__ running running_with(running r, numbers<V> x)
{
    float most = r.most, sum = 0;
#pragma unroll
    for (int j = 0; j < V; j++) {
        most = fmaxf(most, x.at[j]);
    }
#pragma unroll
    for (int j = 0; j < V; j++) {
        sum += exp_below(x.at[j], most);
    }
    return {most, r.sum * exp_below(r.most, most) + sum};
}

static __device__ __forceinline__ running running_of_warp(running r)
{
#pragma unroll
    for (int by = 16; by > 0; by /= 2) {
        running other = {
            __shfl_xor_sync(KERN_WARP, r.most, by), __shfl_xor_sync(KERN_WARP, r.sum, by)};
        r = running_joined(r, other);
    }
    return r;
}

/* To all threads. scratch: 64 floats of shared memory. */
static __device__ __forceinline__ running running_of_block(running r, float *scratch)
{
    unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    r = running_of_warp(r);
    __syncthreads();
    if (lane == 0) {
        scratch[warp] = r.most;
        scratch[32 + warp] = r.sum;
    }
    __syncthreads();
    r = {-INFINITY, 0};
    if (lane < blockDim.x / 32) {
        r = {scratch[lane], scratch[32 + lane]};
    }
    return running_of_warp(r);
}

/* Of a row, by all of a block of 1024 threads; also tells each of its logits to f(logit, id). What
 * it gives does not depend on f. V is 4 where the row can be read 16 bytes at a time, else 1. */
template <int V, typename F>
static __device__ __forceinline__ running running_of_row(
    const float *row, size_t count, float *scratch, F f)
{
    enum { ROUNDS = 4 }; /* loads on their way */
    running r = {-INFINITY, 0};
    size_t step = (size_t)V * blockDim.x, i = (size_t)V * threadIdx.x;
    for (; i + (ROUNDS - 1) * step < count; i += ROUNDS * step) {
        numbers<V> x[ROUNDS];
#pragma unroll
        for (int j = 0; j < ROUNDS; j++) {
            x[j] = load_numbers<KERN_F32, V>(row, i + j * step);
        }
#pragma unroll
        for (int j = 0; j < ROUNDS * V; j++) {
            f(x[j / V].at[j % V], (uint32_t)(i + j / V * step + j % V));
        }
#pragma unroll
        for (int j = 0; j < ROUNDS; j++) {
            r = running_with<V>(r, x[j]);
        }
    }
    for (; i < count; i += step) {
        numbers<V> x = load_numbers<KERN_F32, V>(row, i);
        for (int j = 0; j < V; j++) {
            f(x.at[j], (uint32_t)(i + j));
        }
        r = running_with<V>(r, x);
    }
    return running_of_block(r, scratch);
}

/* The log softmax of a logit: NaN where the row has a NaN, infinity, or nothing above -infinity. */
static __device__ __forceinline__ float log_softmax(float logit, running row)
{
    return logit - row.most - logf(row.sum);
}

#endif
