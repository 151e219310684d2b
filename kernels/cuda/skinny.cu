/* Products with few rows of x, bound by reading W: each byte of W is read once for 16 rows of x.
 *
 * A block takes tiles of 8 rows of W; its warps share K out in pairs of chunks of 64 bytes of a
 * row, and their sums are added in the order of the warps. A lane reads 16 bytes of a row at once,
 * those of all chunks and tiles of a step before it uses the first: with the blocks that a
 * multiprocessor holds, 64 KiB are on their way (Little's law: 4 TB/s times 600 ns is 18 KiB for
 * each of 132). The tensor cores multiply, x in the place of A and W in the place of B: with one
 * row of x most of their work is wasted, but instructions are few, and a row's sums are the same to
 * the bit however many rows there are and whatever tiles a block has.
 *
 * Every block reads all of x, from the second cache: with many rows of x a block has more tiles, so
 * that this is less than what it reads of W.
 *
 * What a lane holds of K is what words.cuh says of the order of K: any, if x's is the same. */
#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/numbers.cuh"
#include "kernels/cuda/words.cuh"

#include <stdlib.h>

#define WARPS 8
#define CHUNK 64 /* bytes of a row of W: 16 for each of four lanes */

enum kind { BF16, BF16_OF_F32, I8, Q8, Q4 };

struct skinny {
    const void *x;
    const float *x_scales;
    const uint8_t *w;
    const void *w_scales; /* (N) float32, or (N, K' / 32) f16 */
    size_t w_row;         /* bytes */
    size_t k;             /* K of bf16, K' of codes: numbers from row to row of x */
    size_t chunks, t, t_tiles;
    struct kern_epilogue out;
};

/* What a warp has of x for one chunk: [0] rows g, [1] rows g + 8; Q4 has 128 numbers in two words
 * of 16 bytes. */
template <enum kind KIND> struct slice {
    uint4 part[2][KIND == Q4 ? 2 : 1];
};

static __device__ __forceinline__ uint4 zeros(void)
{
    return make_uint4(0, 0, 0, 0);
}

/* 8 numbers of a row of x at k, K a multiple of 8. */
template <enum kind KIND>
static __device__ __forceinline__ uint4 load_bf16(const struct skinny *a, size_t t, size_t k)
{
    if (t >= a->t || k >= a->k) {
        return zeros();
    } else if (KIND == BF16) {
        return *(const uint4 *)((const uint16_t *)a->x + t * a->k + k);
    }
    const float4 *from = (const float4 *)((const float *)a->x + t * a->k + k);
    float4 low = from[0], high = from[1];
    return make_uint4(kern_bf16x2_of(low.x, low.y), kern_bf16x2_of(low.z, low.w),
        kern_bf16x2_of(high.x, high.y), kern_bf16x2_of(high.z, high.w));
}

template <enum kind KIND>
static __device__ __forceinline__ uint4 load_x(
    const struct skinny *a, size_t t, size_t chunk, int part, int q)
{
    if (KIND == BF16 || KIND == BF16_OF_F32) {
        return load_bf16<KIND>(a, t, chunk * 32 + (size_t)q * 8);
    } else if (t >= a->t || chunk >= a->chunks) {
        return zeros();
    }
    size_t numbers = KIND == Q4 ? 128 : 64; /* of a chunk */
    return *(const uint4 *)((const int8_t *)a->x + t * a->k + chunk * numbers + (size_t)part * 64 +
                            (size_t)q * 16);
}

template <enum kind KIND>
static __device__ __forceinline__ uint4 load_w(
    const struct skinny *a, const uint8_t *row, size_t chunk, int q)
{
    bool in =
        KIND == BF16 || KIND == BF16_OF_F32 ? chunk * 32 + (size_t)q * 8 < a->k : chunk < a->chunks;
    return in ? kern_load_once(row + chunk * CHUNK + (size_t)q * 16) : zeros();
}

/* The scales of `count` blocks of one row of x, from block `first` on; zeros for rows that are
 * not. */
template <int COUNT>
static __device__ __forceinline__ void load_x_scales(
    const struct skinny *a, size_t t, size_t first, float *out)
{
    for (int i = 0; i < COUNT; i++) {
        out[i] = t < a->t ? a->x_scales[t * (a->k / 32) + first + (size_t)i] : 0.0F;
    }
}

/* The scales of rows 2 q and 2 q + 1 of a tile, COUNT blocks of each: they lie together. */
template <int COUNT>
static __device__ __forceinline__ void load_w_scales(
    const struct skinny *a, size_t tile, size_t chunk, int q, float out[2][COUNT])
{
    const uint16_t *from =
        (const uint16_t *)a->w_scales + ((tile * a->chunks + chunk) * 8 + (size_t)q * 2) * COUNT;
    uint32_t both[COUNT];
    if constexpr (COUNT == 4) {
        *(uint4 *)both = *(const uint4 *)from;
    } else {
        *(uint2 *)both = *(const uint2 *)from;
    }
#pragma unroll
    for (int i = 0; i < 2 * COUNT; i++) {
        out[i / COUNT][i % COUNT] = kern_float_of_f16((uint16_t)(both[i / 2] >> (i % 2 * 16)));
    }
}

/* One block of 32 of a tile: exact sums, then both scales. Q4's codes are 16 times too large, which
 * finish takes off. */
static __device__ __forceinline__ void add_block(float *sums, const uint32_t *x,
    const uint32_t *low, uint32_t w0, uint32_t w1, const float x_scale[2], const float w_scale[2])
{
    int32_t c[4] = {0, 0, 0, 0};
    kern_mma_s8(c, x[0], low[0], x[1], low[1], w0, w1);
    for (int i = 0; i < 4; i++) {
        sums[i] += (float)c[i] * (x_scale[i / 2] * w_scale[i % 2]);
    }
}

/* The blocks of a chunk for one tile. */
template <enum kind KIND>
static __device__ __forceinline__ void add_blocks(const struct skinny *a, float *sums,
    const struct slice<KIND> *x, uint4 w, size_t tile, size_t chunk,
    const float x_scales[2][KIND == Q4 ? 4 : 2])
{
    constexpr int BLOCKS = KIND == Q4 ? 4 : 2;
    float w_scales[2][BLOCKS];
    load_w_scales<BLOCKS>(a, tile, chunk, (int)threadIdx.x % 4, w_scales);
    const uint32_t words[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (int b = 0; b < BLOCKS; b++) {
        const float xs[2] = {x_scales[0][b], x_scales[1][b]};
        const float ws[2] = {w_scales[0][b], w_scales[1][b]};
        const uint4 up = x->part[0][b / 2], down = x->part[1][b / 2];
        const uint32_t ups[2] = {b % 2 ? up.z : up.x, b % 2 ? up.w : up.y};
        const uint32_t downs[2] = {b % 2 ? down.z : down.x, b % 2 ? down.w : down.y};
        if (KIND == Q4) {
            add_block(sums, ups, downs, words[b] << 4 & 0xf0f0f0f0, words[b] & 0xf0f0f0f0, xs, ws);
        } else {
            add_block(sums, ups, downs, words[2 * b % 4], words[(2 * b + 1) % 4], xs, ws);
        }
    }
}

static __device__ __forceinline__ void add_all(float *sums, uint4 up, uint4 down, uint4 w)
{
    kern_mma_bf16(sums, up.x, down.x, up.y, down.y, w.x, w.y);
    kern_mma_bf16(sums, up.z, down.z, up.w, down.w, w.z, w.w);
}

static __device__ __forceinline__ void add_all(int32_t *sums, uint4 up, uint4 down, uint4 w)
{
    kern_mma_s8(sums, up.x, down.x, up.y, down.y, w.x, w.y);
    kern_mma_s8(sums, up.z, down.z, up.w, down.w, w.z, w.w);
}

template <enum kind KIND> struct sum_of {
    using type = float;
};
template <> struct sum_of<I8> {
    using type = int32_t;
};

/* Add the warps' sums and put them out. sums is each lane's, shared (WARPS, TOKENS, TILES 8). */
template <enum kind KIND, int TILES, int TOKENS>
static __device__ void finish(const struct skinny *a, typename sum_of<KIND>::type (*sums)[4],
    typename sum_of<KIND>::type *shared, size_t n0, size_t t0)
{
    constexpr int N = TILES * 8;
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, g = lane / 4, q = lane % 4;
    for (int tile = 0; tile < TILES; tile++) {
        for (int i = 0; i < TOKENS / 4; i++) { /* 2 sums of each 8 rows of x */
            int t = g + i / 2 * 8, n = tile * 8 + 2 * q + i % 2;
            shared[(warp * TOKENS + t) * N + n] = sums[tile][i];
        }
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < TOKENS * N; i += WARPS * 32) {
        size_t t = t0 + (size_t)(i / N), n = n0 + (size_t)(i % N);
        typename sum_of<KIND>::type sum = 0;
        for (int from = 0; from < WARPS; from++) {
            sum += shared[from * TOKENS * N + i];
        }
        if (t < a->t && n < a->out.n) {
            float value = (float)sum;
            if (KIND == I8) {
                value *= a->x_scales[t] * ((const float *)a->w_scales)[n];
            } else if (KIND == Q4) {
                value *= 0.0625F;
            }
            kern_put(&a->out, t, n, value);
        }
    }
}

/* Multiply what a lane has of W of chunk c of a step with x. */
template <enum kind KIND, int TILES, int CHUNKS, int TOKENS>
static __device__ __forceinline__ void add_chunk(const struct skinny *a,
    typename sum_of<KIND>::type (*sums)[4], const uint4 (*w)[CHUNKS], int c, size_t chunk,
    size_t n0, size_t t)
{
    int q = (int)threadIdx.x % 4;
    struct slice<KIND> x;
#pragma unroll
    for (int part = 0; part < (KIND == Q4 ? 2 : 1); part++) {
        x.part[0][part] = load_x<KIND>(a, t, chunk, part, q);
        x.part[1][part] = TOKENS > 8 ? load_x<KIND>(a, t + 8, chunk, part, q) : zeros();
    }
    if constexpr (KIND == Q8 || KIND == Q4) {
        constexpr int BLOCKS = KIND == Q4 ? 4 : 2;
        float scales[2][BLOCKS] = {};
        if (chunk >= a->chunks) {
            return; /* the whole warp does */
        }
        load_x_scales<BLOCKS>(a, t, chunk * BLOCKS, scales[0]);
        if (TOKENS > 8) {
            load_x_scales<BLOCKS>(a, t + 8, chunk * BLOCKS, scales[1]);
        }
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
            size_t at = n0 / 8 + (size_t)tile, last = (a->out.n - 1) / 8;
            add_blocks<KIND>(a, sums[tile], &x, w[tile][c], at < last ? at : last, chunk, scales);
        }
    } else {
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
            add_all(sums[tile], x.part[0][0], x.part[1][0], w[tile][c]);
        }
    }
}

/* Chunk c of a warp's step. A warp has every eighth pair of chunks, in order, however many make a
 * step. */
template <int CHUNKS> static __device__ __forceinline__ size_t chunk_of(size_t step, int c)
{
    size_t pair = (step * (CHUNKS / 2) + (size_t)(c / 2)) * WARPS + threadIdx.x / 32;
    return pair * 2 + (size_t)(c % 2);
}

/* TILES of 8 rows of W by TOKENS (8 or 16) rows of x. */
template <enum kind KIND, int TILES, int CHUNKS, int TOKENS>
__global__ void __launch_bounds__(WARPS * 32, KIND == BF16 && TOKENS == 8 ? 3 : 2)
    skinny(const struct skinny a)
{
    using sum_type = typename sum_of<KIND>::type;
    KERN_SHARED(sum_type, shared, WARPS * TOKENS * TILES * 8);
    size_t t0 = blockIdx.x % a.t_tiles * TOKENS, n0 = blockIdx.x / a.t_tiles * (TILES * 8);
    size_t steps = (a.chunks + WARPS * CHUNKS - 1) / (WARPS * CHUNKS);
    int lane = (int)threadIdx.x % 32, g = lane / 4, q = lane % 4;
    sum_type sums[TILES][4] = {};
    const uint8_t *rows[TILES];
    uint4 w[TILES][CHUNKS];

#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
        size_t n = n0 + (size_t)(tile * 8 + g);
        rows[tile] = a.w + (n < a.out.n ? n : a.out.n - 1) * a.w_row;
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            w[tile][c] = load_w<KIND>(&a, rows[tile], chunk_of<CHUNKS>(0, c), q);
        }
    }
    for (size_t step = 0; step < steps; step++) {
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            add_chunk<KIND, TILES, CHUNKS, TOKENS>(
                &a, sums, w, c, chunk_of<CHUNKS>(step, c), n0, t0 + (size_t)g);
#pragma unroll
            for (int tile = 0; tile < TILES; tile++) {
                w[tile][c] = load_w<KIND>(&a, rows[tile], chunk_of<CHUNKS>(step + 1, c), q);
            }
        }
    }
    finish<KIND, TILES, TOKENS>(&a, sums, shared, n0, t0);
}

/* ---- launches ------------------------------------------------------------------------------ */

bool kern_skinny_can(const struct kern_matrix *w)
{
    return w->dtype == KERN_BF16 ? w->k % 8 == 0 : w->dtype != KERN_F32;
}

template <enum kind KIND, int TILES, int CHUNKS, int TOKENS>
static void launch(struct kern_ctx *ctx, struct skinny *a)
{
    a->t_tiles = (a->t + TOKENS - 1) / TOKENS;
    size_t blocks = (a->out.n + TILES * 8 - 1) / (TILES * 8) * a->t_tiles;
    KERN_LAUNCH(ctx, (skinny<KIND, TILES, CHUNKS, TOKENS>), dim3((unsigned)blocks),
        dim3(WARPS * 32), 0, *a);
}

template <enum kind KIND, int TILES, int CHUNKS>
static void launch_for(struct kern_ctx *ctx, struct skinny *a)
{
    a->t > 8 ? launch<KIND, TILES, CHUNKS, 16>(ctx, a) : launch<KIND, TILES, CHUNKS, 8>(ctx, a);
}

/* As many tiles a block as leave each multiprocessor about two blocks (one, with many rows of x):
 * what a block reads of x, it reads for all of them. Blocks of codes have scales, which take the
 * registers of a third tile, Q4's of two chunks. */
template <enum kind KIND> static void choose(struct kern_ctx *ctx, struct skinny *a)
{
    size_t width = kern_cuda_width(ctx), one = width - width / 8, two = 2 * width - width / 8;
    size_t tiles = (a->out.n + 7) / 8;
    if constexpr (KIND != Q8 && KIND != Q4) {
        if ((a->t > 8 && tiles / 4 >= one) || (a->t > 4 && tiles / 4 >= two)) {
            launch_for<KIND, 4, 2>(ctx, a);
            return;
        }
    }
    if (tiles / 2 >= two) {
        launch_for<KIND, 2, KIND == Q4 ? 2 : 4>(ctx, a);
    } else {
        launch_for<KIND, 1, 4>(ctx, a);
    }
}

void kern_skinny(struct kern_ctx *ctx, const struct kern_linear *a, struct kern_codes x)
{
    const struct kern_matrix *w = a->w;
    struct skinny args = {};
    args.x = x.codes ? (const void *)x.codes : a->x;
    args.x_scales = x.scales;
    args.w = (const uint8_t *)w->data;
    args.w_scales = w->scales;
    args.k = w->k_padded;
    args.t = a->t;
    args.out = kern_epilogue_of(a);
    switch (w->dtype) {
    case KERN_I8:
        args.w_row = w->k_padded;
        args.chunks = args.w_row / CHUNK;
        choose<I8>(ctx, &args);
        break;
    case KERN_Q8_0:
        args.w_row = w->k_padded;
        args.chunks = args.w_row / CHUNK;
        choose<Q8>(ctx, &args);
        break;
    case KERN_Q4_0:
        args.w_row = w->k_padded / 2;
        args.chunks = args.w_row / CHUNK;
        choose<Q4>(ctx, &args);
        break;
    default:
        args.w_row = w->k * 2;
        args.chunks = (w->k + 31) / 32;
        if (a->x_dtype == KERN_BF16) {
            choose<BF16>(ctx, &args);
        } else {
            choose<BF16_OF_F32>(ctx, &args);
        }
        break;
    }
}
