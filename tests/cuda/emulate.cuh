/* CUDA's words on a CPU: what a .cu file of ours needs to be compiled by g++ and run, one thread of
 * the grid after the other, with every access to memory watched.
 *
 *     g++ -std=c++17 -fsanitize=thread -DKERN_CUDA_EMULATED -include tests/cuda/runtime.cuh -c ...
 *
 * A grid's blocks run one after the other; the threads of a block are fibres that meet at
 * __syncthreads, __syncwarp, shuffles and votes, and run in an order that is drawn anew for each
 * launch. -fsanitize=thread is used for its instrumentation only: the compiler then calls
 * __tsan_read4 and its like at every load and store, and these are ours (emulate.cpp), not the
 * sanitizer's. Each byte of device and shared memory remembers who wrote and read it last, and
 * when. Found are:
 *     - accesses outside what emulate_alloc gave, and outside of a block's shared memory;
 *     - reads of bytes that nobody wrote;
 *     - two threads at the same byte, one of them writing, with no barrier between them;
 *     - barriers that not all threads reach.
 * Faults are counted and the first is kept as text; where a test counts them a kernel runs on after
 * one. When it runs at all is runtime.cuh's.
 *
 * Not shown: what really goes on at the same time (memory order between warps that a barrier
 * joins, the weak order of global memory), occupancy, speed, bank conflicts, and what stands behind
 * the portable twins in kernels/cuda/tile.h.
 *
 * Threads: one at a time; runtime.cpp sees to it. */
#ifndef TESTS_CUDA_EMULATE_CUH
#define TESTS_CUDA_EMULATE_CUH

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <functional> /* here, before words of theirs are CUDA's */
#include <memory>

/* What a C header declares as _Bool. */
#define _Bool bool

#define EMULATE_QUIET __attribute__((no_sanitize("thread"), noinline))

#define __global__ static
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __launch_bounds__(...)

/* ---- vectors ------------------------------------------------------------------------------- */

#define EMULATE_VECTOR2(name, type)                                                                \
    struct alignas(2 * sizeof(type)) name {                                                        \
        type x, y;                                                                                 \
    };                                                                                             \
    static inline name make_##name(type x, type y)                                                 \
    {                                                                                              \
        return {x, y};                                                                             \
    }
#define EMULATE_VECTOR4(name, type)                                                                \
    struct alignas(4 * sizeof(type)) name {                                                        \
        type x, y, z, w;                                                                           \
    };                                                                                             \
    static inline name make_##name(type x, type y, type z, type w)                                 \
    {                                                                                              \
        return {x, y, z, w};                                                                       \
    }
EMULATE_VECTOR2(float2, float)
EMULATE_VECTOR2(uint2, uint32_t)
EMULATE_VECTOR2(ushort2, uint16_t)
EMULATE_VECTOR4(float4, float)
EMULATE_VECTOR4(uint4, uint32_t)
EMULATE_VECTOR4(ushort4, uint16_t)

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

/* ---- where a thread is ---------------------------------------------------------------------- */

/* The thread that runs now. */
struct emulate_place {
    uint3 thread, block;
    dim3 threads, blocks;
};
extern struct emulate_place emulate_place;
static const uint3 &threadIdx = emulate_place.thread, &blockIdx = emulate_place.block;
static const dim3 &blockDim = emulate_place.threads, &gridDim = emulate_place.blocks;
#define warpSize 32

/* ---- meetings ------------------------------------------------------------------------------ */

void emulate_meet_block(const char *file, int line);
/* All 32 threads of a warp bring a value; all 32, until the next meeting. ordered: it is a
 * __syncwarp, after which a thread may read what another of the warp wrote. */
const uint64_t *emulate_meet_warp(uint32_t mask, uint64_t value, bool ordered);

#define __syncthreads() emulate_meet_block(__FILE__, __LINE__)

/* A barrier that tells all threads whether one of them said yes. */
bool emulate_meet_or(const char *file, int line, bool vote);
#define __syncthreads_or(vote) emulate_meet_or(__FILE__, __LINE__, (vote) != 0)

static inline void __syncwarp(uint32_t mask = UINT32_MAX)
{
    (void)emulate_meet_warp(mask, 0, true);
}

template <typename T> EMULATE_QUIET T emulate_shuffle(uint32_t mask, T value, unsigned from)
{
    uint64_t bits = 0;
    static_assert(sizeof value <= sizeof bits, "a shuffled value has at most 8 bytes");
    memcpy(&bits, &value, sizeof value);
    memcpy(&value, &emulate_meet_warp(mask, bits, false)[from & 31], sizeof value);
    return value;
}

static inline unsigned emulate_lane(void)
{
    return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) & 31;
}

template <typename T> T __shfl_sync(uint32_t mask, T value, int from)
{
    return emulate_shuffle(mask, value, (unsigned)from);
}
template <typename T> T __shfl_xor_sync(uint32_t mask, T value, int bits)
{
    return emulate_shuffle(mask, value, emulate_lane() ^ (unsigned)bits);
}
template <typename T> T __shfl_down_sync(uint32_t mask, T value, unsigned by)
{
    unsigned lane = emulate_lane();
    return emulate_shuffle(mask, value, lane + by < 32 ? lane + by : lane);
}
template <typename T> T __shfl_up_sync(uint32_t mask, T value, unsigned by)
{
    unsigned lane = emulate_lane();
    return emulate_shuffle(mask, value, lane >= by ? lane - by : lane);
}
uint32_t emulate_ballot(uint32_t mask, bool vote);
#define __ballot_sync(mask, vote) emulate_ballot(mask, (vote) != 0)
#define __any_sync(mask, vote) (emulate_ballot(mask, (vote) != 0) != 0)
#define __all_sync(mask, vote) (emulate_ballot(mask, (vote) != 0) == UINT32_MAX)

/* ---- memory -------------------------------------------------------------------------------- */

/* The block's shared memory. `site` names a declaration: the same memory for all threads. */
void *emulate_shared(const void *site, size_t bytes, size_t align);
void *emulate_dynamic_shared(void);

/* An access that the compiler does not tell of. */
enum emulate_access { EMULATE_READ, EMULATE_WRITE, EMULATE_ATOMIC };
void emulate_touch(const void *at, size_t bytes, enum emulate_access access);

/* A copy of `bytes` (4, 8, 16) that takes place when it is waited for (cp.async): of the bytes the
 * last `filled` are zeros, not read. A group is what was asked for before a commit; wait until at
 * most `left` groups are under way. */
void emulate_copy_later(void *to, const void *from, size_t bytes, size_t filled);
void emulate_copy_commit(void);
void emulate_copy_wait(size_t left);

template <typename T, typename F> EMULATE_QUIET T emulate_atomic(T *at, F change)
{
    emulate_touch(at, sizeof *at, EMULATE_ATOMIC);
    T before = *at;
    *at = change(before);
    return before;
}
#define EMULATE_ATOMIC_OP(name, expression)                                                        \
    template <typename T, typename U> T name(T *at, U by_)                                         \
    {                                                                                              \
        T by = (T)by_;                                                                             \
        return emulate_atomic(at, [by](T was) -> T { return expression; });                        \
    }
EMULATE_ATOMIC_OP(atomicAdd, was + by)
EMULATE_ATOMIC_OP(atomicMax, was > by ? was : by)
EMULATE_ATOMIC_OP(atomicMin, was < by ? was : by)
EMULATE_ATOMIC_OP(atomicOr, was | by)
EMULATE_ATOMIC_OP(atomicExch, by)

template <typename T> T __ldg(const T *at)
{
    return *at;
}

/* ---- arithmetic ---------------------------------------------------------------------------- */

#define EMULATE_CAST(name, to, from)                                                               \
    static inline to name(from value)                                                              \
    {                                                                                              \
        to out;                                                                                    \
        memcpy(&out, &value, sizeof out);                                                          \
        return out;                                                                                \
    }
EMULATE_CAST(__float_as_uint, uint32_t, float)
EMULATE_CAST(__uint_as_float, float, uint32_t)
EMULATE_CAST(__float_as_int, int32_t, float)
EMULATE_CAST(__int_as_float, float, int32_t)

#define __expf expf
static inline float __fdividef(float x, float y)
{
    return x / y;
}
static inline float __fmul_rn(float x, float y)
{
    return x * y;
}
static inline float __fadd_rn(float x, float y)
{
    return x + y;
}
static inline float rsqrtf(float x)
{
    return 1 / sqrtf(x);
}
static inline int __popc(uint32_t x)
{
    return __builtin_popcount(x);
}
static inline int __clz(uint32_t x)
{
    return x ? __builtin_clz(x) : 32;
}
static inline int __ffs(uint32_t x)
{
    return __builtin_ffs((int)x);
}
template <typename T> T min(T a, T b)
{
    return b < a ? b : a;
}
template <typename T> T max(T a, T b)
{
    return a < b ? b : a;
}

/* ---- launches ------------------------------------------------------------------------------ */

/* Run body(self) as every thread of a grid. self is self_bytes long: its members may be read. */
void emulate_grid(const char *what, dim3 grid, dim3 block, size_t shared, void (*body)(void *self),
    void *self, size_t self_bytes);

/* ---- device memory (runtime.cpp) ------------------------------------------------------------- */

/* 256-byte aligned, with nothing around it that may be touched: bytes 0xff that count as never
 * written. */
void *emulate_piece(size_t bytes);
/* A fault when what lies around it was changed. */
void emulate_piece_free(void *memory);
bool emulate_holds(const void *memory, size_t bytes);
/* Bytes were copied there from the host, or from other device memory. */
void emulate_from_host(void *memory, size_t bytes);
void emulate_from_device(void *to, const void *from, size_t bytes);
/* Did the last grid touch what is no memory, and end with that? */
bool emulate_lost(void);
/* End the process when there were faults that nobody counts. */
void emulate_end_if_faulty(void);

/* ---- a test's side ------------------------------------------------------------------------- */

/* The context whose kernels are tested, of the emulated device; where tests/cuda/device.cpp is
 * linked instead of emulate.cpp, a GPU's (the process ends with 77 when there is none). From then
 * on faults are counted for emulate_faults. done: before ref goes. */
struct kern_ctx *emulate_context(void);
void emulate_context_done(void);

/* Device memory, 256-byte aligned, with nothing around it that may be touched: a copy of `from`,
 * or, when that is NULL, bytes 0xff that count as never written. */
void *emulate_alloc(size_t bytes, const void *from);
/* A fault when what lies around it was changed. */
void emulate_free(void *memory);
/* Has every byte been written (by a kernel or at the beginning)? */
bool emulate_written(const void *memory, size_t bytes);
/* Count the bytes as never written again. */
void emulate_forget(void *memory, size_t bytes);

void emulate_seed(uint64_t seed);
uint64_t emulate_random(void);
/* Faults since this was called last; the first one's text is copied to text[256] (may be NULL). */
size_t emulate_faults(char *text);

#endif
