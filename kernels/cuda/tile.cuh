/* Instructions that only a GPU has, each a small function; beside it, for the emulator, a portable
 * twin of the same meaning (PTX ISA 8.x: mma, ldmatrix, cp.async).
 *
 * Fragments of a warp: lane = 4 g + t. Of A (16, 16): a[0] has (g, 2t .. 2t+1), a[1] (g + 8, ..),
 * a[2] and a[3] the same rows at columns 2t + 8 .. 2t + 9. Of B (16, 8): b[0] has (2t .. 2t+1, g),
 * b[1] (2t + 8 .. 2t + 9, g). Of the sums (16, 8): d[0], d[1] are (g, 2t .. 2t+1), d[2], d[3] (g +
 * 8, ..). Two numbers of 16 bits are a word, the first in its low half. */
#ifndef KERNELS_CUDA_TILE_CUH
#define KERNELS_CUDA_TILE_CUH

#include "kernels/cuda/numbers.cuh"

/* The type of a tile's numbers: KERN_F16 or KERN_BF16. */
template <enum kern_dtype TYPE>
static __device__ __forceinline__ uint32_t tile_pair(float low, float high);
template <enum kern_dtype TYPE>
static __device__ __forceinline__ void tile_mma(
    float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1);

#ifndef KERN_CUDA_EMULATED

template <> __device__ __forceinline__ uint32_t tile_pair<KERN_F16>(float low, float high)
{
    uint32_t out;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
    return out;
}

template <> __device__ __forceinline__ uint32_t tile_pair<KERN_BF16>(float low, float high)
{
    uint32_t out;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
    return out;
}

/* d += a b. */
template <>
__device__ __forceinline__ void tile_mma<KERN_F16>(
    float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <>
__device__ __forceinline__ void tile_mma<KERN_BF16>(
    float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Four matrices (8, 8) of 16-bit numbers from shared memory: lane 8 i + r brings the address of row
 * r of matrix i (16 bytes); out[i] is (g, 2t .. 2t+1) of matrix i, of its transpose when
 * TRANSPOSED. */
template <bool TRANSPOSED>
static __device__ __forceinline__ void tile_load(uint32_t out[4], const void *row)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    if (TRANSPOSED) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                     : "r"(at)
                     : "memory");
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                     : "r"(at)
                     : "memory");
    }
}

/* Begin to copy 16 bytes to shared memory, or, when not `real`, to fill them with zeros. */
static __device__ __forceinline__ void tile_copy(void *to, const void *from, bool real)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(to)),
                 "l"(from), "r"(real ? 16 : 0)
                 : "memory");
}

/* The same, `some` bytes of the 16 (0..16), then zeros. */
static __device__ __forceinline__ void tile_copy_some(void *to, const void *from, unsigned some)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(to)),
                 "l"(from), "r"(some)
                 : "memory");
}

/* The thread's copies since the last commit are a group; wait until at most LEFT groups are under
 * way. Others see them after a barrier. */
static __device__ __forceinline__ void tile_commit(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int LEFT> static __device__ __forceinline__ void tile_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

/* Two e4m3 codes, in the low half, as two f16. */
static __device__ __forceinline__ uint32_t tile_e4m3_pair(uint32_t codes)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    uint32_t out;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(out) : "h"((uint16_t)codes));
    return out;
#else
    __half2_raw pair = __nv_cvt_fp8x2_to_halfraw2((__nv_fp8x2_storage_t)codes, __NV_E4M3);
    return pair.x | (uint32_t)pair.y << 16;
#endif
}

/* Byte i of the result is byte (selector >> 4 i & 7) of low's bytes, then high's. */
static __device__ __forceinline__ uint32_t tile_bytes(
    uint32_t low, uint32_t high, uint32_t selector)
{
    return __byte_perm(low, high, selector);
}

static __device__ __forceinline__ float tile_exp2(float x)
{
    float out;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
    return out;
}

#else

template <> inline uint32_t tile_pair<KERN_F16>(float low, float high)
{
    return f16_bits(low) | (uint32_t)f16_bits(high) << 16;
}
template <> inline uint32_t tile_pair<KERN_BF16>(float low, float high)
{
    return bf16_bits(low) | (uint32_t)bf16_bits(high) << 16;
}

/* Each lane looks at the others' fragments where they lie, between two meetings. */
template <enum kern_dtype TYPE>
EMULATE_QUIET static void emulate_mma(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    const uint32_t *both[2] = {a, b};
    unsigned g = emulate_lane() / 4, t = emulate_lane() % 4;
    float row[2][16], column[2][16];
    const uint64_t *all = emulate_meet_warp(KERN_WARP, (uint64_t)(uintptr_t)both, false);
    for (unsigned k = 0; k < 16; k++) {
        const uint32_t *const *of_row = (const uint32_t *const *)all[4 * g + k % 8 / 2];
        for (unsigned i = 0; i < 2; i++) {
            const uint32_t *const *of_column =
                (const uint32_t *const *)all[4 * (2 * t + i) + k % 8 / 2];
            uint32_t left = of_row[0][i + k / 8 * 2] >> (k % 2 * 16);
            uint32_t right = of_column[1][k / 8] >> (k % 2 * 16);
            row[i][k] = TYPE == KERN_F16 ? f16_value((uint16_t)left) : bf16_value((uint16_t)left);
            column[i][k] =
                TYPE == KERN_F16 ? f16_value((uint16_t)right) : bf16_value((uint16_t)right);
        }
    }
    (void)emulate_meet_warp(KERN_WARP, 0, false);
    for (unsigned i = 0; i < 4; i++) {
        for (unsigned k = 0; k < 16; k++) {
            d[i] += row[i / 2][k] * column[i % 2][k];
        }
    }
}

template <>
inline void tile_mma<KERN_F16>(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    uint32_t b[2] = {b0, b1};
    emulate_mma<KERN_F16>(d, a, b);
}
template <>
inline void tile_mma<KERN_BF16>(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    uint32_t b[2] = {b0, b1};
    emulate_mma<KERN_BF16>(d, a, b);
}

template <bool TRANSPOSED> static inline void tile_load(uint32_t out[4], const void *row)
{
    unsigned g = emulate_lane() / 4, t = emulate_lane() % 4;
    const uint64_t *all = emulate_meet_warp(KERN_WARP, (uint64_t)(uintptr_t)row, false);
    for (unsigned i = 0; i < 4; i++) {
        const uint16_t *low = (const uint16_t *)all[8 * i + (TRANSPOSED ? 2 * t : g)];
        const uint16_t *high = (const uint16_t *)all[8 * i + (TRANSPOSED ? 2 * t + 1 : g)];
        out[i] = TRANSPOSED ? low[g] | (uint32_t)high[g] << 16
                            : low[2 * t] | (uint32_t)high[2 * t + 1] << 16;
    }
}

static inline void tile_copy(void *to, const void *from, bool real)
{
    emulate_copy_later(to, from, 16, real ? 0 : 16);
}
static inline void tile_copy_some(void *to, const void *from, unsigned some)
{
    emulate_copy_later(to, from, 16, 16 - some);
}
static inline void tile_commit(void)
{
    emulate_copy_commit();
}
template <int LEFT> static inline void tile_wait(void)
{
    emulate_copy_wait(LEFT);
}
static inline uint32_t tile_e4m3_pair(uint32_t codes)
{
    return f16_bits(e4m3_value((uint8_t)codes)) |
           (uint32_t)f16_bits(e4m3_value((uint8_t)(codes >> 8))) << 16;
}
static inline uint32_t tile_bytes(uint32_t low, uint32_t high, uint32_t selector)
{
    uint64_t all = low | (uint64_t)high << 32;
    uint32_t out = 0;
    for (unsigned i = 0; i < 4; i++) {
        out |= (uint32_t)(all >> ((selector >> 4 * i & 7) * 8) & 255) << 8 * i;
    }
    return out;
}
static inline float tile_exp2(float x)
{
    return exp2f(x);
}

#endif

#endif
