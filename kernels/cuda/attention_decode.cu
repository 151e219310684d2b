/* Attention of one row of each sequence with the tensor cores, for caches of f16, bf16 and e4m3:
 * bound by reading the cache, once for all query heads that share a key head (at most 16: the rows
 * of a tile). Flash-Decoding's split (Dao, Haziza, Massa and Sizov, 2023): the tokens of a sequence
 * are cut in pieces of at least 256, at most 48 of them (with 8 key heads a wave of blocks on 132
 * multiprocessors), whose sums a second kernel brings together. How a sequence is cut depends on
 * its length alone, so that a row's numbers do not depend on the other sequences.
 *
 * Blocks stay and take pieces by turns: how many there are is known on the device only, and a
 * recorded launch must fit every step. A warp goes through every fourth 16 tokens of a piece, with
 * one copy to shared memory under way.
 *
 * Codes of e4m3 become f16 in registers, exactly; the scales of keys are applied to scores, those
 * of values to weights. Numbers of a head are then taken in another order (word_of), the same for
 * both sides of a product, so that four codes are one access. */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/tile.cuh"

namespace
{

enum {
    WARPS = 4,
    THREADS = 32 * WARPS,
    ROWS = 16,
    KEYS = 16,   /* of a step of a warp */
    PIECE = 256, /* 128: 0.6 us less for one short sequence, 14 us more for 16 of 2,048 tokens */
    PIECES_MAX = 48,
    STEP = WARPS * KEYS, /* tokens of a step of all warps */
};

#define LOG2_E 1.4426950408889634F
#define VALUE_UNIT (448.0F * 16.0F) /* weights times scales of values stay normal f16 */

/* Tokens first..end-1 of a sequence, from a page's beginning on, in `count` pieces of `tokens`. */
struct cut {
    unsigned first, end, start, tokens, count;
};

__device__ __forceinline__ cut cut_of(const attention_view &a, unsigned length)
{
    cut c = {0, 0, 0, PIECE, 1};
    if (length > 0) {
        seen s = seen_by(a, length, 1);
        c.first = s.first;
        c.end = s.end;
        c.start = s.first / KERN_PAGE_TOKENS * KERN_PAGE_TOKENS;
        unsigned span = c.end - c.start, least = (span + PIECES_MAX - 1) / PIECES_MAX;
        least = (least + STEP - 1) / STEP * STEP;
        c.tokens = least > PIECE ? least : (unsigned)PIECE;
        c.count = (span + c.tokens - 1) / c.tokens;
    }
    return c;
}

/* ---- tiles --------------------------------------------------------------------------------- */

template <enum kern_dtype TYPE, int D> struct shape {
    static constexpr int BYTES = D * (TYPE == KERN_E4M3 ? 1 : 2); /* of a row of keys */
    static constexpr int SCALES = TYPE == KERN_E4M3 ? 2 * KEYS * 4 : 0;
    static constexpr int STAGE = 2 * KEYS * BYTES + SCALES; /* keys, values, their scales */
    static constexpr int WARP = 2 * STAGE > ROWS *D * 4 ? 2 * STAGE : ROWS *D * 4;
    static constexpr int QUERIES = ROWS * D * 2;
    static constexpr int TOTAL = QUERIES + WARPS * WARP;
};

/* Where 16 bytes `chunk` of a row lie, rows of BYTES. */
template <int BYTES> __device__ __forceinline__ unsigned chunk_at(unsigned row, unsigned chunk)
{
    return row * BYTES + ((chunk ^ (BYTES == 64 ? row >> 1 & 3 : row & 7)) << 4);
}

/* The place of number d among the 16 of its step of a product: as it is, or, for e4m3, so that a
 * lane's four numbers are neighbours in the cache. */
template <enum kern_dtype TYPE> __device__ __forceinline__ unsigned place_of(unsigned d)
{
    unsigned t = d / 4 % 4, i = d % 4;
    return TYPE == KERN_E4M3 ? d / 16 * 16 + (i / 2 * 8) + 2 * t + i % 2 : d;
}

/* Begin to copy the 16 tokens from `token` on, which lie in `page`. */
template <enum kern_dtype TYPE, int D>
__device__ __forceinline__ void copy_step(const attention_view &a, unsigned char *page,
    unsigned kv_head, const cut &c, unsigned token, unsigned char *to)
{
    typedef shape<TYPE, D> s;
    enum { CHUNKS = s::BYTES / 16, AT_ONCE = 32 / CHUNKS, WIDE = CHUNKS > 32 };
    static_assert(!WIDE, "a row is at most 512 bytes");
    unsigned lane = threadIdx.x % 32, chunk = lane % CHUNKS;
    unsigned place = token % KERN_PAGE_TOKENS;
    const unsigned char *keys =
        page + ((size_t)kv_head * KERN_PAGE_TOKENS + place) * s::BYTES + chunk * 16;
    const unsigned char *values = keys + (size_t)a.kv.heads * KERN_PAGE_TOKENS * s::BYTES;
#pragma unroll
    for (int i = 0; i < KEYS / AT_ONCE; i++) {
        unsigned row = lane / CHUNKS + i * AT_ONCE;
        bool real = token + row >= c.first && token + row < c.end;
        unsigned at = chunk_at<s::BYTES>(row, chunk);
        tile_copy(to + at, real ? keys + row * s::BYTES : page, real);
        tile_copy(to + KEYS * s::BYTES + at, real ? values + row * s::BYTES : page, real);
    }
    if (TYPE == KERN_E4M3 && lane < 8) { /* four scales a lane: of keys, of values */
        unsigned first = token + lane % 4 * 4;
        unsigned some = c.end > first ? (c.end - first < 4 ? c.end - first : 4) : 0;
        const float *scales =
            kv_scales(a.kv, page) +
            ((lane / 4 * a.kv.heads + kv_head) * KERN_PAGE_TOKENS + place + lane % 4 * 4);
        tile_copy_some(to + 2 * KEYS * s::BYTES + lane * 16, scales, some * 4);
    }
}

/* What a thread keeps: rows g and g + 8 of the tile. Column 2t + j of out[n] is number number_of.
 */
template <int D> struct sums {
    float out[D / 8][4];
    float most[2], total[2];
};

template <enum kern_dtype TYPE>
__device__ __forceinline__ unsigned number_of(unsigned n, unsigned column)
{
    return TYPE == KERN_E4M3 ? n / 4 * 32 + column * 4 + n % 4 : n * 8 + column;
}

template <enum kern_dtype TYPE, int D>
__device__ __forceinline__ void score(
    const unsigned char *queries, const unsigned char *keys, float out[2][4])
{
    constexpr enum kern_dtype TILE = TYPE == KERN_BF16 ? KERN_BF16 : KERN_F16;
    constexpr int BYTES = shape<TYPE, D>::BYTES;
    unsigned lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t q[4], b[4];
        tile_load<false>(q, queries + chunk_at<D * 2>(lane % 16, k * 2 + lane / 16));
        if (TYPE == KERN_E4M3) {
#pragma unroll
            for (int n = 0; n < 2; n++) {
                uint32_t codes = *(const uint32_t *)(keys + chunk_at<BYTES>(n * 8 + g, k) + t * 4);
                b[2 * n] = tile_e4m3_pair(codes);
                b[2 * n + 1] = tile_e4m3_pair(codes >> 16);
            }
        } else {
            tile_load<false>(
                b, keys + chunk_at<BYTES>(lane % 8 + lane / 16 * 8, k * 2 + lane / 8 % 2));
        }
        tile_mma<TILE>(out[0], q, b[0], b[1]);
        tile_mma<TILE>(out[1], q, b[2], b[3]);
    }
}

/* sums += weights . values. */
template <enum kern_dtype TYPE, int D>
__device__ __forceinline__ void gather(
    sums<D> *s, const float weights[2][4], const unsigned char *values)
{
    constexpr enum kern_dtype TILE = TYPE == KERN_BF16 ? KERN_BF16 : KERN_F16;
    constexpr int BYTES = shape<TYPE, D>::BYTES;
    unsigned lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    uint32_t w[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        w[i] = tile_pair<TILE>(weights[i / 2][i % 2 * 2], weights[i / 2][i % 2 * 2 + 1]);
    }
    if (TYPE == KERN_E4M3) {
#pragma unroll
        for (int n = 0; n < D / 32; n++) {
            uint32_t codes[4]; /* of tokens 2t, 2t + 1, 2t + 8, 2t + 9: numbers 32 n + 4 g .. */
#pragma unroll
            for (int i = 0; i < 4; i++) {
                unsigned row = 2 * t + i % 2 + i / 2 * 8;
                codes[i] =
                    *(const uint32_t *)(values + chunk_at<BYTES>(row, 2 * n + g / 4) + g % 4 * 4);
            }
#pragma unroll
            for (int j = 0; j < 4; j++) {
                uint32_t low = tile_bytes(codes[0], codes[1], j | (4 + j) << 4);
                uint32_t high = tile_bytes(codes[2], codes[3], j | (4 + j) << 4);
                tile_mma<TILE>(s->out[4 * n + j], w, tile_e4m3_pair(low), tile_e4m3_pair(high));
            }
        }
    } else {
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            uint32_t b[4];
            tile_load<true>(b, values + chunk_at<BYTES>(lane % 16, n * 2 + lane / 16));
            tile_mma<TILE>(s->out[2 * n], w, b[0], b[1]);
            tile_mma<TILE>(s->out[2 * n + 1], w, b[2], b[3]);
        }
    }
}

/* Take 16 tokens in, which lie in `tile`. */
template <enum kern_dtype TYPE, int D>
__device__ __forceinline__ void take_step(const cut &c, unsigned token, float scale,
    const unsigned char *queries, const unsigned char *tile, sums<D> *s)
{
    typedef shape<TYPE, D> sh;
    unsigned t = threadIdx.x % 4;
    float scores[2][4] = {};
    const float *scales = (const float *)(tile + 2 * KEYS * sh::BYTES);
    score<TYPE, D>(queries, tile, scores);
#pragma unroll
    for (int n = 0; n < 2; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            unsigned key = n * 8 + t * 2 + i % 2;
            float by = TYPE == KERN_E4M3 ? scale * scales[key] : scale;
            bool real = token + key >= c.first && token + key < c.end;
            scores[n][i] = real ? scores[n][i] * by : -INFINITY;
        }
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float most = fmaxf(fmaxf(scores[0][2 * r], scores[0][2 * r + 1]),
            fmaxf(scores[1][2 * r], scores[1][2 * r + 1]));
        most = fmaxf(most, __shfl_xor_sync(KERN_WARP, most, 1));
        most = fmaxf(most, __shfl_xor_sync(KERN_WARP, most, 2));
        most = fmaxf(most, s->most[r]);
        float base = most == -INFINITY ? 0.0F : most, shrink = tile_exp2(s->most[r] - base);
        float total = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float weight = tile_exp2(scores[i / 2][2 * r + i % 2] - base);
            total += weight;
            if (TYPE == KERN_E4M3) {
                weight *= scales[KEYS + i / 2 * 8 + t * 2 + i % 2] * VALUE_UNIT;
            }
            scores[i / 2][2 * r + i % 2] = weight;
        }
        s->most[r] = most;
        s->total[r] = s->total[r] * shrink + total;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            s->out[n][2 * r] *= shrink;
            s->out[n][2 * r + 1] *= shrink;
        }
    }
    gather<TYPE, D>(s, scores, tile + KEYS * sh::BYTES);
}

/* ---- pieces -------------------------------------------------------------------------------- */

struct piece {
    unsigned sequence, index, kv_head, row;
    cut c;
};

/* The warp's sums of a piece. */
template <enum kern_dtype TYPE, int D>
__device__ __forceinline__ void run_piece(const attention_view &a, const piece &p,
    const unsigned char *queries, unsigned char *memory, sums<D> *s)
{
    typedef shape<TYPE, D> sh;
    unsigned token = p.c.start + p.index * p.c.tokens, end = token + p.c.tokens, stage = 0;
    end = end < p.c.end ? end : p.c.end;
    token += threadIdx.x / 32 * KEYS;
    *s = {};
    s->most[0] = s->most[1] = -INFINITY;
    /* Where a page lies is asked for a step before it is copied from. */
    unsigned char *page = token < end ? page_of(a, p.sequence, token / KERN_PAGE_TOKENS) : nullptr;
    unsigned char *next =
        token + STEP < end ? page_of(a, p.sequence, (token + STEP) / KERN_PAGE_TOKENS) : nullptr;
    if (token < end) {
        copy_step<TYPE, D>(a, page, p.kv_head, p.c, token, memory);
    }
    tile_commit();
    for (; token < end; token += STEP) {
        page = next;
        if (token + 2 * STEP < end) {
            next = page_of(a, p.sequence, (token + 2 * STEP) / KERN_PAGE_TOKENS);
        }
        if (token + STEP < end) {
            copy_step<TYPE, D>(
                a, page, p.kv_head, p.c, token + STEP, memory + (stage ^ 1) * sh::STAGE);
        }
        tile_commit();
        tile_wait<1>();
        __syncwarp();
        take_step<TYPE, D>(p.c, token, a.scale * LOG2_E, queries, memory + stage * sh::STAGE, s);
        __syncwarp();
        stage ^= 1;
    }
    tile_wait<0>();
    __syncwarp();
}

/* Bring the warps' sums together: to `out`, or, where the sequence has more pieces, to the
 * workspace. memory: of all warps. */
template <enum kern_dtype TYPE, int D>
__device__ __forceinline__ void finish_piece(const attention_view &a, const piece &p,
    unsigned char *memory, float *most, float *total, const sums<D> &s)
{
    typedef shape<TYPE, D> sh;
    unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    unsigned group = a.heads / a.kv.heads;
    float *mine = (float *)(memory + warp * sh::WARP);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float all = s.total[r];
        all += __shfl_xor_sync(KERN_WARP, all, 1);
        all += __shfl_xor_sync(KERN_WARP, all, 2);
        if (g + 8 * r < group) {
            if (t == 0) {
                most[warp * ROWS + g + 8 * r] = s.most[r];
                total[warp * ROWS + g + 8 * r] = all;
            }
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    mine[(g + 8 * r) * D + number_of<TYPE>(n, 2 * t + j)] = s.out[n][2 * r + j];
                }
            }
        }
    }
    __syncthreads();
    for (unsigned i = threadIdx.x; i < group * D; i += THREADS) {
        unsigned row = i / D, head = p.kv_head * group + row;
        float top = -INFINITY, sum = 0, all = 0;
        for (int w = 0; w < WARPS; w++) {
            top = fmaxf(top, most[w * ROWS + row]);
        }
        for (int w = 0; w < WARPS; w++) {
            float by =
                most[w * ROWS + row] == -INFINITY ? 0.0F : tile_exp2(most[w * ROWS + row] - top);
            sum += by * ((const float *)(memory + w * sh::WARP))[i];
            all += by * total[w * ROWS + row];
        }
        sum = TYPE == KERN_E4M3 ? sum * (1.0F / VALUE_UNIT) : sum;
        if (p.c.count == 1) {
            attention_put(a, p.row, head, i % D, p.c.end > 0 ? sum / all : 0.0F);
            continue;
        }
        float *to =
            a.partial + (((size_t)p.sequence * a.pieces_max + p.index) * a.heads + head) * (D + 2);
        to[2 + i % D] = sum;
        if (i % D == 0) {
            to[0] = top;
            to[1] = all;
        }
    }
    __syncthreads();
}

/* first[b]: the pieces of the sequences before b, for all heads. */
__device__ __forceinline__ void count_pieces(const attention_view &a, uint32_t *first)
{
    unsigned lane = threadIdx.x, before = 0;
    if (threadIdx.x < 32) {
        for (unsigned b = 0; b < a.sequences; b += 32) {
            unsigned count = 0;
            if (b + lane < a.sequences) { /* three loads at once, not one after the other */
                uint32_t start = a.starts[b + lane], end = a.starts[b + lane + 1];
                unsigned pieces = cut_of(a, a.lengths[b + lane]).count * a.kv.heads;
                count = start < end ? pieces : 0;
            }
            unsigned sum = count;
#pragma unroll
            for (unsigned by = 1; by < 32; by *= 2) {
                unsigned other = __shfl_up_sync(KERN_WARP, sum, by);
                sum += lane >= by ? other : 0;
            }
            if (b + lane < a.sequences) {
                first[b + lane] = before + sum - count;
            }
            before += __shfl_sync(KERN_WARP, sum, 31);
        }
        if (lane == 0) {
            first[a.sequences] = before;
        }
    }
    __syncthreads();
}

__device__ __forceinline__ piece piece_of(
    const attention_view &a, const uint32_t *first, unsigned item)
{
    unsigned low = 0, high = a.sequences;
    piece p;
    while (high - low > 1) { /* first[low] <= item < first[high] */
        unsigned middle = (low + high) / 2;
        if (first[middle] <= item) {
            low = middle;
        } else {
            high = middle;
        }
    }
    p.sequence = low;
    p.index = (item - first[low]) / a.kv.heads;
    p.kv_head = (item - first[low]) % a.kv.heads;
    p.row = a.starts[low];
    p.c = cut_of(a, a.lengths[low]);
    return p;
}

template <enum kern_dtype TYPE, int D>
__global__ void __launch_bounds__(THREADS, D > 128 ? 1 : 3)
    attention_decode_kernel(attention_view a)
{
    typedef shape<TYPE, D> sh;
    constexpr enum kern_dtype TILE = TYPE == KERN_BF16 ? KERN_BF16 : KERN_F16;
    KERN_SHARED_DYNAMIC(memory);
    KERN_SHARED(float, most, WARPS *ROWS);
    KERN_SHARED(float, total, WARPS *ROWS);
    unsigned char *queries = memory, *tiles = memory + sh::QUERIES;
    uint32_t *first = (uint32_t *)(memory + sh::TOTAL);
    unsigned group = a.heads / a.kv.heads;
    sums<D> s;
    count_pieces(a, first);
    for (unsigned item = blockIdx.x; item < first[a.sequences]; item += gridDim.x) {
        piece p = piece_of(a, first, item);
        for (unsigned i = threadIdx.x; i < ROWS * D; i += THREADS) {
            unsigned row = i / D, d = i % D, at = place_of<TYPE>(d);
            float x = row < group
                          ? a.query[p.row * a.query_stride + (p.kv_head * group + row) * D + d]
                          : 0.0F;
            numbers<1> one = {{x}};
            store_numbers<TILE, 1>(queries + chunk_at<D * 2>(row, at / 8), at % 8, one);
        }
        __syncthreads();
        run_piece<TYPE, D>(a, p, queries, tiles + threadIdx.x / 32 * sh::WARP, &s);
        finish_piece<TYPE, D>(a, p, tiles, most, total, s);
    }
}

/* A block is a head of a sequence; a thread a number of it. A warp's lanes have a piece's weight,
 * or two. */
__global__ void __launch_bounds__(256) attention_merge_kernel(attention_view a)
{
    unsigned b = blockIdx.x / a.heads, head = blockIdx.x % a.heads, d = threadIdx.x;
    unsigned lane = threadIdx.x % 32, width = a.kv.head_dim + 2;
    size_t step = (size_t)a.heads * width;
    uint32_t start = a.starts[b], end = a.starts[b + 1];
    unsigned count = cut_of(a, a.lengths[b]).count;
    if (count == 1 || start == end) {
        return;
    }
    const float *from = a.partial + ((size_t)b * a.pieces_max * a.heads + head) * width;
    float most[2] = {-INFINITY, -INFINITY}, by[2], sum = 0, all = 0;
    static_assert(PIECES_MAX <= 64, "a lane has two pieces at most");
#pragma unroll
    for (unsigned j = 0; j < 2; j++) {
        most[j] = lane + 32 * j < count ? from[(lane + 32 * j) * step] : -INFINITY;
    }
    float top = warp_max(fmaxf(most[0], most[1]));
#pragma unroll
    for (unsigned j = 0; j < 2; j++) {
        by[j] = lane + 32 * j < count ? tile_exp2(most[j] - top) : 0.0F;
        all += lane + 32 * j < count ? by[j] * from[(lane + 32 * j) * step + 1] : 0.0F;
    }
    all = warp_sum(all);
#pragma unroll 8
    for (unsigned i = 0; i < count; i++) {
        sum +=
            __shfl_sync(KERN_WARP, i < 32 ? by[0] : by[1], (int)(i % 32)) * from[i * step + 2 + d];
    }
    attention_put(a, start, head, d, sum / all);
}

template <enum kern_dtype TYPE, int D> void launch(struct kern_ctx *ctx, const attention_view &a)
{
    unsigned shared = shape<TYPE, D>::TOTAL + (a.sequences + 1) * 4;
    size_t room = (220U << 10) / (shared + 1024), most = D > 128 ? 1 : 4;
    size_t blocks = kern_cuda_width(ctx) * (room < most ? room : most);
    size_t items = (size_t)a.sequences * a.kv.heads * a.pieces_max;
    KERN_LAUNCH(ctx, (attention_decode_kernel<TYPE, D>),
        dim3((unsigned)(items < blocks ? items : blocks)), dim3(THREADS), shared, a);
    if (a.pieces_max > 1) {
        KERN_LAUNCH(ctx, attention_merge_kernel, dim3(a.sequences * a.heads), dim3(D), 0, a);
    }
}

template <enum kern_dtype TYPE> void launch_width(struct kern_ctx *ctx, const attention_view &a)
{
    switch (a.kv.head_dim) {
    case 64:
        return launch<TYPE, 64>(ctx, a);
    case 128:
        return launch<TYPE, 128>(ctx, a);
    default:
        memos_assert(a.kv.head_dim == 256);
        return launch<TYPE, 256>(ctx, a);
    }
}

} // namespace

size_t kern_cuda_attention_pieces(size_t length_max)
{
    size_t pieces = (length_max + PIECE - 1) / PIECE;
    return pieces < 1 ? 1 : pieces < PIECES_MAX ? pieces : (size_t)PIECES_MAX;
}

bool kern_cuda_attention_decodes(enum kern_dtype dtype, size_t head_dim, size_t group)
{
    return dtype != KERN_F32 && group <= ROWS &&
           (head_dim == 64 || head_dim == 128 || head_dim == 256);
}

void kern_cuda_attention_decode(
    struct kern_ctx *ctx, enum kern_dtype dtype, const attention_view &a)
{
    switch (dtype) {
    case KERN_F16:
        return launch_width<KERN_F16>(ctx, a);
    case KERN_BF16:
        return launch_width<KERN_BF16>(ctx, a);
    default:
        memos_assert(dtype == KERN_E4M3);
        return launch_width<KERN_E4M3>(ctx, a);
    }
}
