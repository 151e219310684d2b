/* Attention in float32, for every type of cache and every head_dim: the path of float32 caches, so
 * that they agree with the other backends, and of heads that have no tiles.
 *
 * A block is one head of one row. Its warps take turns with the pages; a lane scores one token of a
 * page, then the warp adds up the page's values, a lane having every 32nd number. What a row gets
 * depends on nothing but its own sequence. */
#include "kernels/cuda/attention.cuh"

namespace
{

enum { WARPS = 4, HEAD_DIM_MAX = 256, SHARES = HEAD_DIM_MAX / 32 };

struct share {
    float most, total;
    float sums[SHARES]; /* numbers lane, lane + 32 .. of the head */
};

/* The lane's token's score; -INFINITY when the row does not see it. */
template <enum kern_dtype TYPE>
__device__ float score(const attention_view &a, const unsigned char *page, unsigned head,
    const float *query, bool visible)
{
    unsigned lane = threadIdx.x % 32;
    float sum = 0;
    if (!visible) {
        return -INFINITY;
    }
    size_t at = kv_at(a.kv, head, lane);
    for (unsigned d = 0; d < a.kv.head_dim; d += 8) {
        numbers<8> key = load_numbers<TYPE, 8>(page, at + d);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            sum += query[d + j] * key.at[j];
        }
    }
    if (TYPE == KERN_E4M3) {
        sum *= kv_scales(a.kv, (unsigned char *)page)[head * KERN_PAGE_TOKENS + lane];
    }
    return sum * a.scale;
}

/* Take a page in: tokens first..end-1 of it (0..32) are seen. */
template <enum kern_dtype TYPE>
__device__ void take_page(const attention_view &a, unsigned char *page, unsigned head,
    const float *query, unsigned first, unsigned end, share *s)
{
    unsigned lane = threadIdx.x % 32;
    bool visible = lane >= first && lane < end;
    float mine = score<TYPE>(a, page, head, query, visible);
    float most = fmaxf(s->most, warp_max(mine));
    float weight = visible ? expf(mine - most) : 0.0F;
    float shrink = s->most == -INFINITY ? 0.0F : expf(s->most - most);
    s->most = most;
    s->total = s->total * shrink + warp_sum(weight);
    if (TYPE == KERN_E4M3 && visible) {
        weight *= kv_scales(a.kv, page)[(a.kv.heads + head) * KERN_PAGE_TOKENS + lane];
    }
#pragma unroll
    for (int i = 0; i < SHARES; i++) {
        s->sums[i] *= shrink;
    }
    for (unsigned token = first; token < end; token++) {
        float by = __shfl_sync(KERN_WARP, weight, (int)token);
        size_t at = kv_values(a.kv) + kv_at(a.kv, head, token);
#pragma unroll
        for (int i = 0; i < SHARES; i++) {
            if (lane + 32 * i < a.kv.head_dim) {
                s->sums[i] += by * load_numbers<TYPE, 1>(page, at + lane + 32 * i).at[0];
            }
        }
    }
}

template <enum kern_dtype TYPE>
__global__ void __launch_bounds__(WARPS * 32) attention_plain_kernel(attention_view a)
{
    KERN_SHARED(float, query, HEAD_DIM_MAX);
    KERN_SHARED(float, sums, WARPS *HEAD_DIM_MAX);
    KERN_SHARED(float, most, WARPS);
    KERN_SHARED(float, total, WARPS);
    unsigned head = blockIdx.x % a.heads, row = blockIdx.x / a.heads;
    unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, d_count = a.kv.head_dim;
    unsigned kv_head = head / (a.heads / a.kv.heads);
    int b = sequence_of(a, row);
    if (b < 0) {
        return;
    }
    unsigned length = a.lengths[b];
    if (length == 0) {
        for (unsigned d = threadIdx.x; d < d_count; d += blockDim.x) {
            attention_put(a, row, head, d, 0);
        }
        return;
    }
    for (unsigned d = threadIdx.x; d < d_count; d += blockDim.x) {
        query[d] = a.query[row * a.query_stride + head * d_count + d];
    }
    __syncthreads();
    seen s = seen_by(a, length, a.starts[b + 1] - row);
    share mine = {-INFINITY, 0, {}};
    for (unsigned page = s.first / 32 + warp; page * 32 < s.end; page += WARPS) {
        unsigned first = s.first > page * 32 ? s.first - page * 32 : 0;
        unsigned end = s.end - page * 32 < 32 ? s.end - page * 32 : 32;
        take_page<TYPE>(a, page_of(a, (unsigned)b, page), kv_head, query, first, end, &mine);
    }
    if (lane == 0) {
        most[warp] = mine.most;
        total[warp] = mine.total;
    }
#pragma unroll
    for (int i = 0; i < SHARES; i++) {
        if (lane + 32 * i < d_count) {
            sums[warp * HEAD_DIM_MAX + lane + 32 * i] = mine.sums[i];
        }
    }
    __syncthreads();
    for (unsigned d = threadIdx.x; d < d_count; d += blockDim.x) {
        float top = -INFINITY, sum = 0, all = 0;
        for (int w = 0; w < WARPS; w++) {
            top = fmaxf(top, most[w]);
        }
        for (int w = 0; w < WARPS; w++) {
            float by = most[w] == -INFINITY ? 0.0F : expf(most[w] - top);
            sum += by * sums[w * HEAD_DIM_MAX + d];
            all += by * total[w];
        }
        attention_put(a, row, head, d, sum / all);
    }
}

template <enum kern_dtype TYPE> void launch(struct kern_ctx *ctx, const attention_view &a)
{
    KERN_LAUNCH(ctx, attention_plain_kernel<TYPE>, dim3(a.t * a.heads), dim3(WARPS * 32), 0, a);
}

} // namespace

void kern_cuda_attention_plain(struct kern_ctx *ctx, enum kern_dtype dtype, const attention_view &a)
{
    switch (dtype) {
    case KERN_F32:
        return launch<KERN_F32>(ctx, a);
    case KERN_F16:
        return launch<KERN_F16>(ctx, a);
    case KERN_BF16:
        return launch<KERN_BF16>(ctx, a);
    default:
        return launch<KERN_E4M3>(ctx, a);
    }
}
