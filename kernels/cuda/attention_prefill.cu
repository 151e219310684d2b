/* Attention of many rows of a sequence with the tensor cores, for caches of f16, bf16 and e4m3.
 * FlashAttention-2's shape (Dao, arXiv 2307.08691): a block has 128 rows of queries (64 where a
 * head has 256 numbers) and goes through the keys and values 64 tokens at a time, which are copied
 * to shared memory while it computes with the others.
 *
 * A "row" of a block is a row of the step and one of the query heads that share a key head: all of
 * them use the tile that was loaded, and short steps fill a block. Heavy blocks (late rows, which
 * see most) come first.
 *
 * A short step on a long sequence (a question after a memory) has few blocks: several then share
 * the tokens, and a second kernel joins their sums.
 *
 * Scores, largest and sums are float32; queries and weights are rounded to the type of the tiles
 * (f16 for e4m3, whose numbers are multiplied by their scale first). */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/tile.cuh"

namespace
{

enum {
    WARPS = 4,
    THREADS = 32 * WARPS,
    KEYS = 64,
    SHARES_MAX = 32,    /* blocks that share a tile's tokens */
    SHARE_TOKENS = 256, /* of a share at least */
};

#define LOG2_E 1.4426950408889634F

/* Where 16 bytes `chunk` of a row of a tile lie: rows next to each other do not meet in a bank. */
template <int D> __device__ __forceinline__ unsigned tile_at(unsigned row, unsigned chunk)
{
    return row * (D * 2) + ((chunk ^ (row & 7)) << 4);
}

/* A block's place in a step. */
struct place {
    unsigned sequence, kv_head, first_row, rows; /* rows of the step, of this sequence */
    unsigned index;                              /* of the block's first row * heads */
    unsigned group, length;
    unsigned key_first, key_end; /* that any of its rows sees */
};

__device__ bool place_of(const attention_view &a, unsigned m, place *p)
{
    unsigned tiles = (gridDim.x / a.kv.heads), tile = tiles - 1 - blockIdx.x / a.kv.heads;
    p->sequence = blockIdx.y;
    p->kv_head = blockIdx.x % a.kv.heads;
    p->group = a.heads / a.kv.heads;
    p->first_row = a.starts[p->sequence];
    p->rows = a.starts[p->sequence + 1] - p->first_row;
    p->index = tile * m;
    p->length = a.lengths[p->sequence];
    if (p->index >= p->rows * p->group) {
        return false;
    }
    unsigned last = (p->index + m - 1) / p->group;
    last = last < p->rows ? last : p->rows - 1;
    p->key_end = p->length == 0 ? 0 : p->length - (p->rows - last) + 1;
    p->key_first = p->length == 0 ? 0 : seen_by(a, p->length, p->rows - p->index / p->group).first;
    return true;
}

/* Begin to copy keys (or values) key .. key + 63 of the block's head; codes are followed by their
 * scales. */
template <enum kern_dtype TYPE, int D>
__device__ __forceinline__ void copy_tile(
    const attention_view &a, const place &p, unsigned key, bool values, unsigned char *to)
{
    enum { BYTES = D * (TYPE == KERN_E4M3 ? 1 : 2), CHUNKS = BYTES / 16, STEP = THREADS / CHUNKS };
    unsigned chunk = threadIdx.x % CHUNKS;
    size_t head = (size_t)p.kv_head * KERN_PAGE_TOKENS * BYTES +
                  (values ? (size_t)a.kv.heads * KERN_PAGE_TOKENS * BYTES : 0);
#pragma unroll
    for (int half = 0; half < KEYS / KERN_PAGE_TOKENS; half++) {
        unsigned first = key + half * KERN_PAGE_TOKENS;
        bool there = first < p.key_end && first + KERN_PAGE_TOKENS > p.key_first;
        const unsigned char *page =
            there ? page_of(a, p.sequence, first / KERN_PAGE_TOKENS) + head : a.kv.pages;
#pragma unroll
        for (int i = 0; i < KERN_PAGE_TOKENS / STEP; i++) {
            unsigned row = threadIdx.x / CHUNKS + i * STEP;
            bool real = first + row >= p.key_first && first + row < p.key_end;
            unsigned to_row = half * KERN_PAGE_TOKENS + row;
            unsigned at = TYPE == KERN_E4M3 ? to_row * D + chunk * 16 : tile_at<D>(to_row, chunk);
            tile_copy(to + at, real ? page + row * BYTES + chunk * 16 : page, real);
        }
    }
    if (TYPE == KERN_E4M3 && threadIdx.x < KEYS / 4) { /* four scales a thread */
        unsigned first = key + threadIdx.x * 4, some = first < p.key_end ? p.key_end - first : 0;
        unsigned char *page = a.kv.pages;
        if (some > 0 && first + 4 > p.key_first) {
            page = page_of(a, p.sequence, first / KERN_PAGE_TOKENS);
        } else {
            some = 0;
        }
        const float *scales = kv_scales(a.kv, page) +
                              ((values ? a.kv.heads : 0) + p.kv_head) * KERN_PAGE_TOKENS +
                              first % KERN_PAGE_TOKENS;
        tile_copy_some(to + KEYS * D + threadIdx.x * 16, scales, (some < 4 ? some : 4) * 4);
    }
    tile_commit();
}

/* Codes to f16, times their scales. Between barriers. */
template <int D>
__device__ __forceinline__ void widen_tile(
    const place &p, unsigned key, const unsigned char *codes, unsigned char *to)
{
    const float *scales = (const float *)(codes + KEYS * D);
    for (unsigned i = threadIdx.x; i < KEYS * D / 16; i += THREADS) {
        unsigned row = i / (D / 16), at = i % (D / 16);
        bool real = key + row >= p.key_first && key + row < p.key_end;
        float scale = real ? scales[row] : 0.0F;
        uint4 four = *(const uint4 *)(codes + row * D + at * 16);
        uint32_t words[4] = {four.x, four.y, four.z, four.w}, out[8];
#pragma unroll
        for (int j = 0; j < 8; j++) {
            uint32_t pair = tile_e4m3_pair(words[j / 2] >> (j % 2 * 16));
            out[j] = tile_pair<KERN_F16>(
                f16_value((uint16_t)pair) * scale, f16_value((uint16_t)(pair >> 16)) * scale);
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            *(uint4 *)(to + tile_at<D>(row, at * 2 + half)) =
                make_uint4(out[4 * half], out[4 * half + 1], out[4 * half + 2], out[4 * half + 3]);
        }
    }
}

/* Queries, rounded, rows of the block. */
template <enum kern_dtype TILE, int D, int M>
__device__ __forceinline__ void fill_queries(
    const attention_view &a, const place &p, unsigned char *to)
{
    for (unsigned i = threadIdx.x; i < M * D / 8; i += THREADS) {
        unsigned m = i / (D / 8), chunk = i % (D / 8), index = p.index + m;
        unsigned row = index / p.group, head = p.kv_head * p.group + index % p.group;
        numbers<8> x = {};
        if (row < p.rows) {
            const float *from =
                a.query + (p.first_row + row) * a.query_stride + head * D + chunk * 8;
            if (a.wide) {
                x = load_numbers<KERN_F32, 8>(from, 0);
            } else {
                for (int j = 0; j < 8; j++) {
                    x.at[j] = from[j];
                }
            }
        }
        store_numbers<TILE, 8>(to + tile_at<D>(m, chunk), 0, x);
    }
}

/* What a thread keeps of MT tiles of 16 rows: it has two rows of each. */
template <int D, int MT> struct sums {
    float out[MT][D / 8][4];
    float most[MT][2], total[MT][2];
};

template <int D, int MT> __device__ __forceinline__ void begin(sums<D, MT> *s)
{
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                s->out[m][n][i] = 0;
            }
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            s->most[m][i] = -INFINITY;
            s->total[m][i] = 0;
        }
    }
}

/* Scores of the warp's rows with the 64 keys of a tile. */
template <enum kern_dtype TILE, int D, int MT>
__device__ __forceinline__ void score(
    const unsigned char *queries, const unsigned char *keys, float out[MT][KEYS / 8][4])
{
    unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) {
            out[m][n][0] = out[m][n][1] = out[m][n][2] = out[m][n][3] = 0;
        }
    }
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t q[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++) {
            tile_load<false>(
                q[m], queries + tile_at<D>((warp * MT + m) * 16 + lane % 16, k * 2 + lane / 16));
        }
#pragma unroll
        for (int n = 0; n < KEYS / 16; n++) {
            uint32_t b[4];
            tile_load<false>(
                b, keys + tile_at<D>(n * 16 + lane % 8 + lane / 16 * 8, k * 2 + lane / 8 % 2));
#pragma unroll
            for (int m = 0; m < MT; m++) {
                tile_mma<TILE>(out[m][2 * n], q[m], b[0], b[1]);
                tile_mma<TILE>(out[m][2 * n + 1], q[m], b[2], b[3]);
            }
        }
    }
}

/* Scores of tokens that a row does not see are nothing. Most tiles do not need it. */
template <int MT>
__device__ __forceinline__ void mask(
    const attention_view &a, const place &p, float scores[MT][KEYS / 8][4], unsigned key)
{
    unsigned g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            unsigned row = (p.index + (threadIdx.x / 32 * MT + m) * 16 + i * 8 + g) / p.group;
            seen see = {0, 0};
            if (row < p.rows && p.length > 0) {
                see = seen_by(a, p.length, p.rows - row);
            }
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    unsigned at = key + n * 8 + t * 2 + j;
                    bool real = at >= see.first && at < see.end;
                    scores[m][n][2 * i + j] = real ? scores[m][n][2 * i + j] : -INFINITY;
                }
            }
        }
    }
}

/* Scores become weights; the sums so far shrink when a row's largest score grew. `scale` is in
 * units of a power of 2. */
template <int D, int MT>
__device__ __forceinline__ void weigh(sums<D, MT> *s, float scores[MT][KEYS / 8][4], float scale)
{
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float most = s->most[m][i], total = 0;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    most = fmaxf(most, scores[m][n][2 * i + j]);
                }
            }
            most = fmaxf(most, __shfl_xor_sync(KERN_WARP, most, 1));
            most = fmaxf(most, __shfl_xor_sync(KERN_WARP, most, 2));
            float base = most == -INFINITY ? 0.0F : most * scale;
            float shrink = tile_exp2(s->most[m][i] * scale - base);
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    float weight = tile_exp2(scores[m][n][2 * i + j] * scale - base);
                    scores[m][n][2 * i + j] = weight;
                    total += weight;
                }
            }
            s->most[m][i] = most;
            s->total[m][i] = s->total[m][i] * shrink + total;
            if (!__any_sync(KERN_WARP, shrink != 1.0F)) {
                continue; /* later tiles seldom have a new largest */
            }
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                s->out[m][n][2 * i] *= shrink;
                s->out[m][n][2 * i + 1] *= shrink;
            }
        }
    }
}

/* sums += weights . values of a tile. */
template <enum kern_dtype TILE, int D, int MT>
__device__ __forceinline__ void gather(
    sums<D, MT> *s, const float weights[MT][KEYS / 8][4], const unsigned char *values)
{
    unsigned lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < KEYS / 16; k++) {
        uint32_t w[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float *pair = &weights[m][2 * k + i / 2][i % 2 * 2];
                w[m][i] = tile_pair<TILE>(pair[0], pair[1]);
            }
        }
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            uint32_t b[4];
            tile_load<true>(b, values + tile_at<D>(k * 16 + lane % 16, n * 2 + lane / 16));
#pragma unroll
            for (int m = 0; m < MT; m++) {
                tile_mma<TILE>(s->out[m][2 * n], w[m], b[0], b[1]);
                tile_mma<TILE>(s->out[m][2 * n + 1], w[m], b[2], b[3]);
            }
        }
    }
}

/* The block's share of the tokens, when several blocks have the same rows. */
__device__ void take_share(place *p)
{
    unsigned start = p->key_first / KEYS * KEYS, tiles = (p->key_end - start + KEYS - 1) / KEYS;
    unsigned share = (tiles + gridDim.z - 1) / gridDim.z * KEYS;
    unsigned first = start + blockIdx.z * share, end = first + share;
    p->key_first = first > p->key_first ? first : p->key_first;
    p->key_end = end < p->key_end ? end : p->key_end;
}

/* What attention_join_kernel takes of a row and head: the largest score, the weights' sum, the
 * sums. */
__device__ __forceinline__ float *partial_of(
    const attention_view &a, unsigned row, unsigned head, unsigned share, unsigned shares)
{
    return a.partial + (((size_t)row * a.heads + head) * shares + share) * (a.kv.head_dim + 2);
}

template <int D, int MT>
__device__ __forceinline__ void finish(
    const attention_view &a, const place &p, float scale, sums<D, MT> *s)
{
    unsigned g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float total = s->total[m][i];
            total += __shfl_xor_sync(KERN_WARP, total, 1);
            total += __shfl_xor_sync(KERN_WARP, total, 2);
            unsigned index = p.index + (threadIdx.x / 32 * MT + m) * 16 + i * 8 + g;
            unsigned row = index / p.group, head = p.kv_head * p.group + index % p.group;
            float by = p.length > 0 ? 1.0F / total : 0.0F;
            if (row >= p.rows) {
                continue;
            }
            if (gridDim.z > 1) {
                float *to = partial_of(a, p.first_row + row, head, blockIdx.z, gridDim.z);
#pragma unroll
                for (int n = 0; n < D / 8; n++) {
                    numbers<2> pair = {{s->out[m][n][2 * i], s->out[m][n][2 * i + 1]}};
                    store_numbers<KERN_F32, 2>(to, 2 + n * 8 + t * 2, pair);
                }
                if (t == 0) {
                    to[0] = s->most[m][i] * scale;
                    to[1] = total;
                }
                continue;
            }
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                size_t at = ((size_t)(p.first_row + row) * a.heads + head) * D + n * 8 + t * 2;
                numbers<2> pair = {{s->out[m][n][2 * i] * by, s->out[m][n][2 * i + 1] * by}};
                if (a.out_half) {
                    store_numbers<KERN_BF16, 2>(a.out, at, pair);
                } else {
                    store_numbers<KERN_F32, 2>(a.out, at, pair);
                }
            }
        }
    }
}

/* Shared memory: queries, keys, values; of e4m3 also the codes of both and
 * their scales. */
template <enum kern_dtype TYPE, int D, int MT> __host__ __device__ constexpr unsigned shared_bytes()
{
    return (64 * MT + 2 * KEYS) * D * 2 + (TYPE == KERN_E4M3 ? 2 * KEYS * (D + 4) : 0);
}

template <enum kern_dtype TYPE, int D, int MT>
__global__ void __launch_bounds__(THREADS, D > 128 ? 1 : 2)
    attention_prefill_kernel(attention_view a)
{
    constexpr enum kern_dtype TILE = TYPE == KERN_BF16 ? KERN_BF16 : KERN_F16;
    constexpr int M = 64 * MT;
    KERN_SHARED_DYNAMIC(memory);
    unsigned char *queries = memory, *keys = queries + M * D * 2, *values = keys + KEYS * D * 2;
    unsigned char *codes = values + KEYS * D * 2, *value_codes = codes + KEYS * (D + 4);
    place p;
    sums<D, MT> s;
    float scores[MT][KEYS / 8][4];
    float scale = a.scale * LOG2_E;
    if (!place_of(a, M, &p)) {
        return;
    }
    take_share(&p);
    begin<D, MT>(&s);
    unsigned key = p.key_first / KEYS * KEYS;
    copy_tile<TYPE, D>(a, p, key, false, TYPE == KERN_E4M3 ? codes : keys);
    fill_queries<TILE, D, M>(a, p, queries);
    for (; key < p.key_end; key += KEYS) {
        tile_wait<0>(); /* keys */
        __syncthreads();
        copy_tile<TYPE, D>(a, p, key, true, TYPE == KERN_E4M3 ? value_codes : values);
        if (TYPE == KERN_E4M3) {
            widen_tile<D>(p, key, codes, keys);
            __syncthreads();
        }
        score<TILE, D, MT>(queries, keys, scores);
        /* All rows see all of a tile that ends before the first row's end and begins after the last
         * row's beginning. */
        if (key + KEYS > p.length - (p.rows - p.index / p.group) + 1 || a.window > 0 ||
            key < p.key_first || key + KEYS > p.key_end) {
            mask<MT>(a, p, scores, key);
        }
        weigh<D, MT>(&s, scores, scale);
        tile_wait<0>(); /* values */
        __syncthreads();
        copy_tile<TYPE, D>(a, p, key + KEYS, false, TYPE == KERN_E4M3 ? codes : keys);
        if (TYPE == KERN_E4M3) {
            widen_tile<D>(p, key, value_codes, values);
            __syncthreads();
        }
        gather<TILE, D, MT>(&s, scores, values);
    }
    tile_wait<0>();
    finish<D, MT>(a, p, scale, &s);
}

/* A block is a head of a row. */
__global__ void __launch_bounds__(256) attention_join_kernel(attention_view a, unsigned shares)
{
    unsigned row = blockIdx.x / a.heads, head = blockIdx.x % a.heads, d = threadIdx.x;
    float top = -INFINITY, sum = 0, all = 0;
    if (row >= a.starts[a.sequences] || d >= a.kv.head_dim) {
        return;
    }
    for (unsigned i = 0; i < shares; i++) {
        top = fmaxf(top, partial_of(a, row, head, i, shares)[0]);
    }
    for (unsigned i = 0; i < shares; i++) {
        const float *one = partial_of(a, row, head, i, shares);
        float by = one[0] == -INFINITY ? 0.0F : tile_exp2(one[0] - top);
        sum += by * one[2 + d];
        all += by * one[1];
    }
    attention_put(a, row, head, d, all == 0 ? 0.0F : sum / all);
}

template <enum kern_dtype TYPE, int D, int MT>
void launch(struct kern_ctx *ctx, const attention_view &a)
{
    unsigned tiles = (a.rows_max * (a.heads / a.kv.heads) + 64 * MT - 1) / (64 * MT);
    unsigned shares = (unsigned)kern_cuda_attention_shares(
        ctx, a.t, (size_t)tiles * a.kv.heads * a.sequences, a.heads, D, a.length_max);
    KERN_LAUNCH(ctx, (attention_prefill_kernel<TYPE, D, MT>),
        dim3(tiles * a.kv.heads, a.sequences, shares), dim3(THREADS), (shared_bytes<TYPE, D, MT>()),
        a);
    if (shares > 1) {
        KERN_LAUNCH(ctx, attention_join_kernel, dim3(a.t * a.heads), dim3((D + 31) / 32 * 32), 0, a,
            shares);
    }
}

template <enum kern_dtype TYPE> void launch_width(struct kern_ctx *ctx, const attention_view &a)
{
    switch (a.kv.head_dim) {
    case 64:
        return launch<TYPE, 64, 2>(ctx, a);
    case 128:
        return launch<TYPE, 128, 2>(ctx, a);
    default:
        memos_assert(a.kv.head_dim == 256);
        return launch<TYPE, 256, 1>(ctx, a);
    }
}

} // namespace

size_t kern_cuda_attention_share_bytes(
    const struct kern_ctx *ctx, size_t t, size_t heads, size_t head_dim)
{
    size_t row = (head_dim + 2) * sizeof(float), few = t * heads * SHARES_MAX * row;
    size_t most = 128 * 2 * kern_cuda_width(ctx) * row;
    return few < most ? few : most;
}

size_t kern_cuda_attention_shares(const struct kern_ctx *ctx, size_t t, size_t blocks, size_t heads,
    size_t head_dim, size_t length_max)
{
    size_t shares = 2 * kern_cuda_width(ctx) / (blocks > 0 ? blocks : 1);
    size_t room = kern_cuda_attention_share_bytes(ctx, t, heads, head_dim) /
                  (t * heads * (head_dim + 2) * sizeof(float));
    shares = shares < length_max / SHARE_TOKENS ? shares : length_max / SHARE_TOKENS;
    shares = shares < room ? shares : room;
    shares = shares < SHARES_MAX ? shares : (size_t)SHARES_MAX;
    return shares > 1 ? shares : 1;
}

bool kern_cuda_attention_prefills(enum kern_dtype dtype, size_t head_dim)
{
    return dtype != KERN_F32 && (head_dim == 64 || head_dim == 128 || head_dim == 256);
}

void kern_cuda_attention_prefill(
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
