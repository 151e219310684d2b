/* Numbers in registers and how they come from and go to memory; sums over warps and blocks; shared
 * memory as the emulator can see it.
 *
 * A `numbers<V>` is V float32 in registers. load_numbers and store_numbers move V numbers of any
 * type with accesses as wide as they can be (up to 16 bytes), and expect that the address is a
 * multiple of that.
 *
 * Threads: device code. */
#ifndef KERNELS_CUDA_NUMBERS_CUH
#define KERNELS_CUDA_NUMBERS_CUH

#include "kernels/cuda/device.cuh"

/* A declaration of shared memory, and the block's dynamic shared memory (128-byte aligned). */
#ifndef KERN_CUDA_EMULATED
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#define KERN_SHARED(type, name, count) __shared__ type name[count]
#define KERN_SHARED_DYNAMIC(name) extern __shared__ __align__(128) unsigned char name[]
#else
#define KERN_SHARED(type, name, count)                                                             \
    static const char name##_site = 0;                                                             \
    type *const name = (type *)emulate_shared(                                                     \
        &name##_site, sizeof(type) * (count), alignof(type) < 16 ? 16 : alignof(type))
#define KERN_SHARED_DYNAMIC(name)                                                                  \
    unsigned char *const name = (unsigned char *)emulate_dynamic_shared()
#endif

/* ---- one number ---------------------------------------------------------------------------- */

/* Bits of f16, bf16 and e4m3 to a float and back: to nearest even; what is too large becomes
 * infinity, of e4m3 448. */
static __device__ __forceinline__ float bf16_value(uint16_t bits)
{
    return __uint_as_float((uint32_t)bits << 16);
}

static __device__ __forceinline__ uint16_t bf16_bits(float value)
{
    uint32_t bits = __float_as_uint(value);
    if ((bits & 0x7fffffffU) > 0x7f800000U) {
        return (uint16_t)(bits >> 16 | 0x40U);
    }
    return (uint16_t)((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
}

#ifndef KERN_CUDA_EMULATED
static __device__ __forceinline__ float f16_value(uint16_t bits)
{
    return __half2float(__ushort_as_half(bits));
}

static __device__ __forceinline__ uint16_t f16_bits(float value)
{
    uint32_t bits = __float_as_uint(value);
    if ((bits & 0x7fffffffU) > 0x7f800000U) { /* quiet, with what fits of the payload */
        return (uint16_t)(bits >> 16 & 0x8000U | 0x7e00U | (bits >> 13 & 0x3ffU));
    }
    return __half_as_ushort(__float2half_rn(value));
}

static __device__ __forceinline__ float e4m3_value(uint8_t bits)
{
    return __half2float(__half(__nv_cvt_fp8_to_halfraw(bits, __NV_E4M3)));
}

static __device__ __forceinline__ uint8_t e4m3_bits(float value)
{
    return (uint8_t)__nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3);
}
#else
EMULATE_QUIET static float emulate_value(enum kern_dtype type, const void *bits)
{
    float value;
    kern_to_f32(type, bits, &value, 1);
    return value;
}
static inline float f16_value(uint16_t bits)
{
    return emulate_value(KERN_F16, &bits);
}
static inline float e4m3_value(uint8_t bits)
{
    return emulate_value(KERN_E4M3, &bits);
}
EMULATE_QUIET static uint16_t f16_bits(float value)
{
    uint16_t bits;
    kern_from_f32(KERN_F16, &value, &bits, 1);
    return bits;
}
EMULATE_QUIET static uint8_t e4m3_bits(float value)
{
    uint8_t bits;
    kern_from_f32(KERN_E4M3, &value, &bits, 1);
    return bits;
}
#endif

/* ---- some numbers -------------------------------------------------------------------------- */

template <int V> struct numbers {
    float at[V];
};

/* A type's storage, and BYTES bytes as the widest accesses move them. */
template <enum kern_dtype TYPE> struct stored;
template <> struct stored<KERN_F32> {
    typedef float type;
};
template <> struct stored<KERN_F16> {
    typedef uint16_t type;
};
template <> struct stored<KERN_BF16> {
    typedef uint16_t type;
};
template <> struct stored<KERN_E4M3> {
    typedef uint8_t type;
};

template <int BYTES> struct wide {
    uint4 at[BYTES / 16];
};
template <> struct wide<8> {
    uint2 at[1];
};
template <> struct wide<4> {
    uint32_t at[1];
};
template <> struct wide<2> {
    uint16_t at[1];
};
template <> struct wide<1> {
    uint8_t at[1];
};

static __device__ __forceinline__ float value_of(float value, stored<KERN_F32>)
{
    return value;
}
static __device__ __forceinline__ float value_of(uint16_t bits, stored<KERN_F16>)
{
    return f16_value(bits);
}
static __device__ __forceinline__ float value_of(uint16_t bits, stored<KERN_BF16>)
{
    return bf16_value(bits);
}
static __device__ __forceinline__ float value_of(uint8_t bits, stored<KERN_E4M3>)
{
    return e4m3_value(bits);
}
static __device__ __forceinline__ float stored_as(float value, stored<KERN_F32>)
{
    return value;
}
static __device__ __forceinline__ uint16_t stored_as(float value, stored<KERN_F16>)
{
    return f16_bits(value);
}
static __device__ __forceinline__ uint16_t stored_as(float value, stored<KERN_BF16>)
{
    return bf16_bits(value);
}
static __device__ __forceinline__ uint8_t stored_as(float value, stored<KERN_E4M3>)
{
    return e4m3_bits(value);
}

/* Numbers index .. index + V - 1 of an array. */
template <enum kern_dtype TYPE, int V>
static __device__ __forceinline__ numbers<V> load_numbers(const void *array, size_t index)
{
    typedef typename stored<TYPE>::type type;
    union {
        wide<V * sizeof(type)> all;
        type each[V];
    } in;
    in.all = *(const wide<V * sizeof(type)> *)((const type *)array + index);
    numbers<V> out;
#pragma unroll
    for (int i = 0; i < V; i++) {
        out.at[i] = value_of(in.each[i], stored<TYPE>());
    }
    return out;
}

template <enum kern_dtype TYPE, int V>
static __device__ __forceinline__ void store_numbers(void *array, size_t index, numbers<V> from)
{
    typedef typename stored<TYPE>::type type;
    union {
        wide<V * sizeof(type)> all;
        type each[V];
    } out;
#pragma unroll
    for (int i = 0; i < V; i++) {
        out.each[i] = stored_as(from.at[i], stored<TYPE>());
    }
    *(wide<V * sizeof(type)> *)((type *)array + index) = out.all;
}

/* Can V numbers of `bytes` each be moved at once at every multiple of V of this array? (Host.) */
static inline bool lies_wide(const void *array, size_t bytes)
{
    return (uintptr_t)array % (bytes > 16 ? 16 : bytes) == 0;
}

/* ---- over a warp, over a block -----------------------------------------------------------------
 */

#define KERN_WARP 0xffffffffU

static __device__ __forceinline__ float warp_sum(float value)
{
#pragma unroll
    for (int by = 16; by > 0; by /= 2) {
        value += __shfl_xor_sync(KERN_WARP, value, by);
    }
    return value;
}

static __device__ __forceinline__ float warp_max(float value)
{
#pragma unroll
    for (int by = 16; by > 0; by /= 2) {
        value = fmaxf(value, __shfl_xor_sync(KERN_WARP, value, by));
    }
    return value;
}

/* The sum of all threads' values, to all of them, in an order that is always the same. scratch: 32
 * floats of shared memory, which may be used again at once. blockDim.x is a multiple of 32. */
static __device__ __forceinline__ float block_sum(float value, float *scratch)
{
    value = warp_sum(value);
    __syncthreads();
    if (threadIdx.x % 32 == 0) {
        scratch[threadIdx.x / 32] = value;
    }
    __syncthreads();
    return warp_sum(threadIdx.x % 32 < blockDim.x / 32 ? scratch[threadIdx.x % 32] : 0.0F);
}

static __device__ __forceinline__ float block_max(float value, float *scratch)
{
    value = warp_max(value);
    __syncthreads();
    if (threadIdx.x % 32 == 0) {
        scratch[threadIdx.x / 32] = value;
    }
    __syncthreads();
    return warp_max(threadIdx.x % 32 < blockDim.x / 32 ? scratch[threadIdx.x % 32] : -INFINITY);
}

#endif
