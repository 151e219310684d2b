/* The largest of a row of logits and the sum of exp(logit - largest), by a block. */
#ifndef KERNELS_CUDA_SOFTMAX_CUH
#define KERNELS_CUDA_SOFTMAX_CUH

#include "kernels/cuda/numbers.cuh"

struct running {
    float most, sum; /* sum of exp(x - most) */
};

/* exp of a difference that is at most 0, or -INFINITY - -INFINITY, which counts as nothing. */
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

template <int V>
static __device__ __forceinline__ running running_of_row(
    const float *row, size_t count, float *scratch)
{
    running r = {-INFINITY, 0};
    for (size_t i = threadIdx.x; i < count / V; i += blockDim.x) {
        r = running_with<V>(r, load_numbers<KERN_F32, V>(row, i * V));
    }
    return running_of_block(r, scratch);
}

#endif
