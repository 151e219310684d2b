/* What a product makes of x first, and what it makes of its sums when nobody else does. */
#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/numbers.cuh"
#include "kernels/cuda/words.cuh"

#define THREADS 256
#define ROW_THREADS 1024

/* The code of a number, as everywhere in kernels. */
static __device__ __forceinline__ int32_t code_of(float value, float to_code)
{
    float code = rintf(value * to_code);
    return (int32_t)(code > 127.0F ? 127.0F : code > -127.0F ? code : -127.0F);
}

/* The largest of what all threads have. */
static __device__ __forceinline__ float most_of_block(float most, float *shared)
{
    for (int step = 16; step > 0; step /= 2) {
        most = fmaxf(most, __shfl_xor_sync(~0U, most, step));
    }
    if (threadIdx.x % 32 == 0) {
        shared[threadIdx.x / 32] = most;
    }
    __syncthreads();
    for (unsigned i = 0; i < blockDim.x / 32; i++) {
        most = fmaxf(most, shared[i]);
    }
    return most;
}

/* One block of threads a row: its largest magnitude, then its codes; zeros pad. The first
 * KEPT numbers of each thread stay in registers. */
#define KEPT 16
__global__ void __launch_bounds__(ROW_THREADS)
    quantize_rows(const float *x, int8_t *codes, float *scales, size_t k, size_t k_padded)
{
    KERN_SHARED(float, mosts, ROW_THREADS / 32);
    const float *row = x + blockIdx.x * k;
    int8_t *to = codes + blockIdx.x * k_padded;
    float kept[KEPT], most = 0;
#pragma unroll
    for (size_t i = 0; i < KEPT; i++) {
        size_t at = i * blockDim.x + threadIdx.x;
        kept[i] = at < k ? row[at] : 0.0F;
        most = fmaxf(most, fabsf(kept[i]));
    }
    for (size_t at = KEPT * (size_t)blockDim.x + threadIdx.x; at < k; at += blockDim.x) {
        most = fmaxf(most, fabsf(row[at]));
    }
    most = most_of_block(most, mosts);
    float to_code = most > 0 ? 127.0F / most : 0;
#pragma unroll
    for (size_t i = 0; i < KEPT; i++) {
        size_t at = i * blockDim.x + threadIdx.x;
        if (at < k_padded) {
            to[at] = (int8_t)code_of(kept[i], to_code);
        }
    }
    for (size_t at = KEPT * (size_t)blockDim.x + threadIdx.x; at < k_padded; at += blockDim.x) {
        to[at] = at < k ? (int8_t)code_of(row[at], to_code) : 0;
    }
    if (threadIdx.x == 0) {
        scales[blockIdx.x] = most / 127.0F;
    }
}

/* Four threads a block of 32 numbers, eight each, whose codes lie together (kern_q8_place). */
__global__ void __launch_bounds__(THREADS) quantize_blocks(
    const float *x, int8_t *codes, float *scales, size_t t, size_t k, size_t k_padded)
{
    size_t at = (blockIdx.x * (size_t)THREADS + threadIdx.x) * 8; /* of all (T, K') numbers */
    size_t row = at / k_padded, first = at % k_padded;
    float numbers[8], most = 0;
    for (size_t i = 0; i < 8; i++) {
        numbers[i] = row < t && first + i < k ? x[row * k + first + i] : 0.0F;
        most = fmaxf(most, fabsf(numbers[i]));
    }
    most = fmaxf(most, __shfl_xor_sync(~0U, most, 1));
    most = fmaxf(most, __shfl_xor_sync(~0U, most, 2));
    if (row >= t) {
        return;
    }
    float to_code = most > 0 ? 127.0F / most : 0;
    uint32_t words[2] = {0, 0};
    for (int i = 0; i < 8; i++) {
        words[i / 4] |= (uint32_t)(uint8_t)code_of(numbers[i], to_code) << (i % 4 * 8);
    }
    *(uint2 *)(codes + row * k_padded + kern_q8_place(first)) = make_uint2(words[0], words[1]);
    if (first % 32 == 0) {
        scales[(row * k_padded + first) / 32] = most / 127.0F;
    }
}

/* How many bytes the codes take before their scales. */
static size_t code_bytes(const struct kern_matrix *w, size_t t)
{
    return kern_up(t * w->k_padded, 256);
}

size_t kern_codes_bytes(const struct kern_matrix *w, size_t t)
{
    size_t scales = w->dtype == KERN_I8 ? t : t * (w->k_padded / 32);
    return code_bytes(w, t) + kern_up(scales * sizeof(float), 256);
}

struct kern_codes kern_quantize(struct kern_ctx *ctx, const struct kern_linear *a)
{
    const struct kern_matrix *w = a->w;
    struct kern_codes out = {
        (int8_t *)a->workspace, (float *)((char *)a->workspace + code_bytes(w, a->t))};
    if (w->dtype == KERN_I8) {
        /* few numbers a thread: rows are few, and each waits for its own */
        unsigned threads = w->k >= 4 * ROW_THREADS ? ROW_THREADS : THREADS;
        KERN_LAUNCH(ctx, quantize_rows, dim3((unsigned)a->t), dim3(threads), 0, (const float *)a->x,
            out.codes, out.scales, w->k, w->k_padded);
    } else {
        size_t threads = a->t * w->k_padded / 8;
        KERN_LAUNCH(ctx, quantize_blocks, dim3((unsigned)((threads + THREADS - 1) / THREADS)),
            dim3(THREADS), 0, (const float *)a->x, out.codes, out.scales, a->t, w->k, w->k_padded);
    }
    return out;
}

/* ---- rounding ------------------------------------------------------------------------------ */

__global__ void __launch_bounds__(THREADS)
    round_to_bf16(const float *x, uint16_t *out, size_t count)
{
    size_t at = (blockIdx.x * (size_t)THREADS + threadIdx.x) * 4;
    if (at + 4 <= count) {
        float4 v = *(const float4 *)(x + at);
        *(uint2 *)(out + at) = make_uint2(kern_bf16x2_of(v.x, v.y), kern_bf16x2_of(v.z, v.w));
    } else {
        for (; at < count; at++) {
            out[at] = kern_bf16_of_float(x[at]);
        }
    }
}

const void *kern_rounded(struct kern_ctx *ctx, const struct kern_linear *a, void *room)
{
    size_t count = a->t * a->w->k;
    if (a->x_dtype == KERN_BF16) {
        return a->x;
    }
    KERN_LAUNCH(ctx, round_to_bf16, dim3((unsigned)((count + 4 * THREADS - 1) / (4 * THREADS))),
        dim3(THREADS), 0, (const float *)a->x, (uint16_t *)room, count);
    return room;
}

/* ---- what follows -------------------------------------------------------------------------- */

__global__ void __launch_bounds__(THREADS)
    finish(const float *sums, const struct kern_epilogue out, const struct kern_cut cut)
{
    size_t at = blockIdx.x * (size_t)THREADS + threadIdx.x;
    if (at < cut.t * cut.n) {
        kern_put(&out, cut.t0 + at / cut.n, cut.n0 + at % cut.n, sums[at]);
    }
}

void kern_finish(struct kern_ctx *ctx, const struct kern_linear *a, const float *sums,
    const struct kern_cut *cut)
{
    size_t count = cut->t * cut->n;
    KERN_LAUNCH(ctx, finish, dim3((unsigned)((count + THREADS - 1) / THREADS)), dim3(THREADS), 0,
        sums, kern_epilogue_of(a), *cut);
}

/* ---- codes as numbers ---------------------------------------------------------------------- */

struct widening {
    const uint8_t *codes;
    const void *scales;
    enum kern_dtype dtype;
    size_t k, k_padded, row; /* row: bytes of codes */
    size_t n0, n;
    uint16_t *out;
};

/* Code i of the 8 of a thread. */
static __device__ __forceinline__ float code_value(const struct widening *a, uint2 codes, int i)
{
    if (a->dtype == KERN_Q4_0) { /* lower halves of four bytes, then the upper */
        int half = (int)(codes.x >> (i % 4 * 8 + i / 4 * 4) & 15);
        return (float)(half < 8 ? half : half - 16);
    }
    return (float)(int8_t)((i < 4 ? codes.x : codes.y) >> (i % 4 * 8));
}

/* Eight numbers of a row, which lie together among the codes. */
__global__ void __launch_bounds__(THREADS) widen(const struct widening a)
{
    size_t at = (blockIdx.x * (size_t)THREADS + threadIdx.x) * 8;
    size_t row = at / a.k, k = at % a.k, n = a.n0 + row;
    if (row >= a.n) {
        return;
    }
    const uint8_t *codes = a.codes + n * a.row;
    uint2 eight = make_uint2(0, 0);
    float scale;
    if (a.dtype == KERN_I8) {
        eight = *(const uint2 *)(codes + k);
        scale = ((const float *)a.scales)[n];
    } else {
        size_t together = a.dtype == KERN_Q8_0 ? 2 : 4, chunks = a.k_padded / 32 / together;
        size_t group = (n / 8 * chunks + k / 32 / together) * 8 + n % 8;
        scale =
            kern_float_of_f16(((const uint16_t *)a.scales)[group * together + k / 32 % together]);
        if (a.dtype == KERN_Q8_0) {
            eight = *(const uint2 *)(codes + kern_q8_place(k));
        } else {
            eight.x = *(const uint32_t *)(codes + kern_q4_place(k) / 2);
        }
    }
    uint32_t out[4];
    for (int i = 0; i < 4; i++) {
        out[i] = kern_bf16x2_of(
            code_value(&a, eight, 2 * i) * scale, code_value(&a, eight, 2 * i + 1) * scale);
    }
    *(uint4 *)(a.out + row * a.k + k) = make_uint4(out[0], out[1], out[2], out[3]);
}

void kern_widen(struct kern_ctx *ctx, const struct kern_matrix *w, size_t n0, size_t n, void *out)
{
    struct widening a = {(const uint8_t *)w->data, w->scales, w->dtype, w->k, w->k_padded,
        w->dtype == KERN_Q4_0 ? w->k_padded / 2 : w->k_padded, n0, n, (uint16_t *)out};
    size_t threads = n * w->k / 8;
    KERN_LAUNCH(
        ctx, widen, dim3((unsigned)((threads + THREADS - 1) / THREADS)), dim3(THREADS), 0, a);
}
