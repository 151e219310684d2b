/* Small words of the kernels: what needs an instruction of a GPU, each with a twin of the same
 * meaning for the emulator. */
#ifndef KERNELS_CUDA_WORDS_CUH
#define KERNELS_CUDA_WORDS_CUH

#include "kernels/cuda/device.cuh"

#include <math.h>
#include <string.h>

#ifndef KERN_CUDA_EMULATED
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

static __device__ __forceinline__ float kern_float_of_bf16(uint16_t bits)
{
#ifndef KERN_CUDA_EMULATED
    return __uint_as_float((uint32_t)bits << 16);
#else
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
#endif
}

/* Rounded to nearest even; NaN stays NaN. */
static __device__ __forceinline__ uint16_t kern_bf16_of_float(float value)
{
#ifndef KERN_CUDA_EMULATED
    return __bfloat16_as_ushort(__float2bfloat16_rn(value));
#else
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) {
        return (uint16_t)(bits >> 16 | 0x40);
    }
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
#endif
}

/* Two at once, `low` in the lower half. */
static __device__ __forceinline__ uint32_t kern_bf16x2_of(float low, float high)
{
#ifndef KERN_CUDA_EMULATED
    __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &both, sizeof bits);
    return bits;
#else
    return (uint32_t)kern_bf16_of_float(high) << 16 | kern_bf16_of_float(low);
#endif
}

static __device__ __forceinline__ float kern_float_of_f16(uint16_t bits)
{
#ifndef KERN_CUDA_EMULATED
    return __half2float(__ushort_as_half(bits));
#else
    _Float16 half;
    memcpy(&half, &bits, sizeof half);
    return (float)half;
#endif
}

/* 16 bytes that are read once and not by this kernel's other blocks: past the first cache. */
static __device__ __forceinline__ uint4 kern_load_once(const void *from)
{
#ifndef KERN_CUDA_EMULATED
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from));
    return v;
#else
    return *(const uint4 *)from;
#endif
}

/* ---- the tensor cores ---------------------------------------------------------------------- */

/* Of a warp, lane = 4 g + q. A (16, K) and B (8, K) are held as
 *     a[0] A[g], k0    a[1] A[g + 8], k0    a[2] A[g], k1    a[3] A[g + 8], k1
 *     b[0] B[g], k0    b[1] B[g], k1
 * where k0 and k1 are the lane's 4 bytes of the first and of the second half of K (16 bf16, or 32
 * int8), q choosing which. Sums c (16, 8): c[0] (g, 2 q), c[1] (g, 2 q + 1), c[2] (g + 8, 2 q),
 * c[3] (g + 8, 2 q + 1). As A and B are asked for the same k by the same lanes, any order of K that
 * both share will do. */
#ifndef KERN_CUDA_EMULATED

static __device__ __forceinline__ void kern_mma_bf16(
    float *c, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

static __device__ __forceinline__ void kern_mma_s8(
    int32_t *c, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, "
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

#else

/* The dot of one word of A with one of B. */
static __device__ inline float kern_dot_words(uint32_t a, uint32_t b, float)
{
    return kern_float_of_bf16((uint16_t)a) * kern_float_of_bf16((uint16_t)b) +
           kern_float_of_bf16((uint16_t)(a >> 16)) * kern_float_of_bf16((uint16_t)(b >> 16));
}

static __device__ inline int32_t kern_dot_words(uint32_t a, uint32_t b, int32_t)
{
    int32_t sum = 0;
    for (int i = 0; i < 32; i += 8) {
        sum += (int8_t)(a >> i) * (int8_t)(b >> i);
    }
    return sum;
}

/* Every lane asks the lanes that hold its rows of A and of B. */
template <typename SUM>
static __device__ inline void kern_mma_twin(
    SUM *c, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1)
{
    int lane = (int)threadIdx.x % 32, g = lane / 4, q = lane % 4;
    for (int from = 0; from < 4; from++) {
        uint32_t a[4], b[2][2];
        a[0] = __shfl_sync(~0U, a0, 4 * g + from);
        a[1] = __shfl_sync(~0U, a1, 4 * g + from);
        a[2] = __shfl_sync(~0U, a2, 4 * g + from);
        a[3] = __shfl_sync(~0U, a3, 4 * g + from);
        for (int column = 0; column < 2; column++) {
            b[column][0] = __shfl_sync(~0U, b0, 4 * (2 * q + column) + from);
            b[column][1] = __shfl_sync(~0U, b1, 4 * (2 * q + column) + from);
        }
        for (int i = 0; i < 4; i++) {
            c[i] += kern_dot_words(a[i / 2], b[i % 2][0], SUM(0)) +
                    kern_dot_words(a[i / 2 + 2], b[i % 2][1], SUM(0));
        }
    }
}

static __device__ inline void kern_mma_bf16(
    float *c, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1)
{
    kern_mma_twin(c, a0, a1, a2, a3, b0, b1);
}

static __device__ inline void kern_mma_s8(
    int32_t *c, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1)
{
    kern_mma_twin(c, a0, a1, a2, a3, b0, b1);
}

#endif

/* ---- what follows a product ---------------------------------------------------------------- */

static __device__ __forceinline__ float kern_activate(int act, float x)
{
    switch (act) {
    case KERN_GELU:
        return 0.5F * x * (1.0F + erff(x * 0.70710678F));
    case KERN_GELU_TANH:
        return 0.5F * x * (1.0F + tanhf(0.79788456F * (x + 0.044715F * x * x * x)));
    case KERN_RELU:
        return x > 0 ? x : 0;
    case KERN_SILU:
        return x / (1.0F + expf(-x));
    default:
        return x;
    }
}

/* Where sums go: y (T, N) = act(sum + bias) + residual. */
struct kern_epilogue {
    const float *bias, *residual;
    void *y;
    size_t n;
    int act;
    bool y_bf16;
};

static inline struct kern_epilogue kern_epilogue_of(const struct kern_linear *a)
{
    struct kern_epilogue e = {
        a->bias, a->residual, a->y, a->w->n, (int)a->act, a->y_dtype == KERN_BF16};
    return e;
}

static __device__ __forceinline__ void kern_put(
    const struct kern_epilogue *e, size_t t, size_t n, float sum)
{
    size_t at = t * e->n + n;
    float value = kern_activate(e->act, sum + (e->bias ? e->bias[n] : 0.0F));
    value += e->residual ? e->residual[at] : 0.0F;
    if (e->y_bf16) {
        ((uint16_t *)e->y)[at] = kern_bf16_of_float(value);
    } else {
        ((float *)e->y)[at] = value;
    }
}

#endif
