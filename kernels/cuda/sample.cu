/* The next token of a row, all on the device, with no sorting of the vocabulary: a block per row,
 * which lies in the second cache and is passed over twice when top_k or top_p leave few keys, else
 * four to six times.
 *
 * A key is a logit and its id as one number that orders them: of equal logits the smaller id comes
 * first. A weight is exp((logit - largest) / temperature) in units of 2^-44, an integer, so that
 * sums are exact and the same in every order; what is smaller than a unit is never drawn. Weights
 * and counts are first summed into bins by (largest - logit) / temperature, and the bin in which
 * top_k or top_p ends is then looked at key by key. */
#include "kernels/cuda/softmax.cuh"

namespace
{

enum {
    THREADS = 1024,
    BINS = 2048, /* 64 for a factor of e */
    FEW = 100,   /* keys that top_p alone is looked for among, at least */
    LIST = 1024, /* keys that are looked at one by one; more (nearly equal logits) take passes */
};

typedef unsigned long long u64;

#define UNIT 17592186044416.0F /* 2^44 */
#define BINS_PER_E 64.0F

struct sampling {
    float *logits;
    const struct kern_sample_row *rows;
    const struct kern_adjust *adjusts;
    size_t vocab, top;
    uint32_t *out_ids;
    float *out_logprobs;
    uint32_t *out_top_ids;
    float *out_top_logprobs;
};

/* A row and what a block knows of it. */
struct work {
    const float *logits;
    size_t vocab;
    bool wide;
    float most, temperature;
    uint32_t *scratch; /* 128 words */
    u64 *list;         /* LIST keys */
    u64 *weights;      /* of the list */
};

__device__ u64 key_of(float logit, uint32_t id)
{
    uint32_t bits = __float_as_uint(isnan(logit) ? -INFINITY : logit + 0.0F); /* -0 is 0 */
    bits = bits >> 31 ? ~bits : bits | 0x80000000U;
    return (u64)bits << 32 | (uint32_t)~id;
}

__device__ uint32_t id_of(u64 key)
{
    return ~(uint32_t)key;
}

__device__ float logit_of(u64 key)
{
    uint32_t bits = (uint32_t)(key >> 32);
    return __uint_as_float(bits >> 31 ? bits & 0x7fffffffU : ~bits);
}

__device__ float share_of(const work &w, float logit)
{
    return isnan(logit) ? 0.0F : expf((logit - w.most) / w.temperature);
}

__device__ u64 weight_of(const work &w, float logit)
{
    return (u64)(share_of(w, logit) * UNIT);
}

/* ---- over a row, over a block ------------------------------------------------------------------
 */

/* f(logit, id) for every id of first..end-1 that falls to thread `at` of `step`; first is a
 * multiple of 4. */
template <typename F>
__device__ void each(const work &w, size_t first, size_t end, unsigned at, unsigned step, F f)
{
    size_t i = first + (w.wide ? 4 * at : at);
    for (; w.wide && i + 12 * step < end; i += 16 * step) {
        numbers<4> x[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            x[j] = load_numbers<KERN_F32, 4>(w.logits, i + 4 * step * j);
        }
#pragma unroll
        for (int j = 0; j < 16; j++) {
            f(x[j / 4].at[j % 4], (uint32_t)(i + 4 * step * (j / 4) + j % 4));
        }
    }
    for (; w.wide && i < end; i += 4 * step) {
        numbers<4> x = load_numbers<KERN_F32, 4>(w.logits, i);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            f(x.at[j], (uint32_t)(i + j));
        }
    }
    for (; !w.wide && i < end; i += step) {
        f(w.logits[i], (uint32_t)i);
    }
}

template <typename F> __device__ void each_of_row(const work &w, F f)
{
    each(w, 0, w.vocab, threadIdx.x, THREADS, f);
}

template <typename F> __device__ u64 warp_joined(u64 value, F join)
{
#pragma unroll
    for (int by = 16; by > 0; by /= 2) {
        value = join(value, __shfl_xor_sync(KERN_WARP, value, by));
    }
    return value;
}

/* Of all threads' values, to all of them. */
template <typename F> __device__ u64 block_joined(const work &w, u64 value, F join)
{
    u64 *scratch = (u64 *)w.scratch;
    value = warp_joined(value, join);
    __syncthreads();
    if (threadIdx.x % 32 == 0) {
        scratch[threadIdx.x / 32] = value;
    }
    __syncthreads();
    return warp_joined(scratch[threadIdx.x % 32], join);
}

__device__ u64 block_most(const work &w, u64 value)
{
    return block_joined(w, value, [](u64 a, u64 b) { return a > b ? a : b; });
}

__device__ u64 block_total(const work &w, u64 value)
{
    return block_joined(w, value, [](u64 a, u64 b) { return a + b; });
}

/* The sum of the values of the threads before this one. */
__device__ u64 block_before(const work &w, u64 value)
{
    u64 *scratch = (u64 *)w.scratch, sum = value, all;
    unsigned lane = threadIdx.x % 32;
#pragma unroll
    for (unsigned by = 1; by < 32; by *= 2) {
        u64 other = __shfl_up_sync(KERN_WARP, sum, by);
        sum += lane >= by ? other : 0;
    }
    __syncthreads();
    if (lane == 31) {
        scratch[threadIdx.x / 32] = sum;
    }
    __syncthreads();
    all = warp_joined(
        lane < threadIdx.x / 32 ? scratch[lane] : 0, [](u64 a, u64 b) { return a + b; });
    return all + sum - value;
}

/* ---- the keys of which a row keeps the largest
 * ---------------------------------------------------- */

/* A goal: so many keys, or so much weight. */
struct goal {
    u64 count;
    double weight;
};

__device__ bool reached(goal g, u64 count, u64 weight)
{
    return g.count > 0 ? count >= g.count : (double)weight >= g.weight;
}

/* A key, and the weight of it and all larger ones. */
struct cut {
    u64 key, weight;
};

/* Put the keys for which choose(logit, id) holds into the list, in any order: their number, which
 * may be more than LIST. */
template <typename F> __device__ uint32_t collect(const work &w, F choose)
{
    uint32_t *count = w.scratch + 127;
    __syncthreads();
    if (threadIdx.x == 0) {
        *count = 0;
    }
    __syncthreads();
    each_of_row(w, [&](float x, uint32_t id) {
        if (choose(x, id)) {
            uint32_t at = atomicAdd(count, 1U);
            if (at < LIST) {
                w.list[at] = key_of(x, id);
            }
        }
    });
    __syncthreads();
    return *count;
}

/* The largest key at which the goal is reached, found bit by bit with a pass for each: for rows
 * whose logits are nearly all the same. */
__device__ cut cut_by_bits(const work &w, goal g)
{
    cut c = {0, 0};
    for (u64 bit = 1ULL << 63; bit > 0; bit >>= 1) {
        u64 count = 0, weight = 0;
        each_of_row(w, [&](float x, uint32_t id) {
            bool in = key_of(x, id) >= (c.key | bit);
            count += in;
            weight += in ? weight_of(w, x) : 0;
        });
        count = block_total(w, count);
        weight = block_total(w, weight);
        if (reached(g, count, weight)) {
            c = {c.key | bit, weight};
        }
    }
    return c;
}

__device__ int bin_of(const work &w, float x)
{
    float distance = (w.most - x) / w.temperature * BINS_PER_E;
    return distance < (float)BINS ? (int)distance : BINS; /* BINS: NaN, too far */
}

struct bins {
    uint32_t *counts;
    u64 *weights;
};

__device__ void fill_bins(const work &w, bins b)
{
    for (unsigned i = threadIdx.x; i < BINS; i += THREADS) {
        b.counts[i] = 0;
        b.weights[i] = 0;
    }
    __syncthreads();
    each_of_row(w, [&](float x, uint32_t) {
        int bin = bin_of(w, x);
        if (bin < BINS) {
            atomicAdd(&b.counts[bin], 1U);
            atomicAdd(&b.weights[bin], weight_of(w, x));
        }
    });
    __syncthreads();
}

/* Where the goal is reached; the last key of all bins when it is not. */
__device__ cut cut_at(const work &w, bins b, goal g)
{
    enum { EACH = BINS / THREADS };
    KERN_SHARED(u64, found, 4); /* bin, count and weight before it; the cut */
    u64 count = 0, weight = 0;
    for (int i = 0; i < EACH; i++) {
        count += b.counts[threadIdx.x * EACH + i];
        weight += b.weights[threadIdx.x * EACH + i];
    }
    count = block_before(w, count);
    weight = block_before(w, weight);
    __syncthreads();
    if (threadIdx.x == 0) {
        found[0] = BINS;
    }
    __syncthreads();
    for (int i = 0; i < EACH; i++) {
        unsigned bin = threadIdx.x * EACH + i;
        u64 count_with = count + b.counts[bin], weight_with = weight + b.weights[bin];
        if (!reached(g, count, weight) && reached(g, count_with, weight_with)) {
            found[0] = bin;
            found[1] = count;
            found[2] = weight;
        }
        count = count_with;
        weight = weight_with;
    }
    __syncthreads();
    int bin = (int)found[0];
    if (bin == BINS) {
        return {0, block_total(w, threadIdx.x == THREADS - 1 ? weight : 0)};
    }
    u64 count_before = found[1], weight_before = found[2];
    uint32_t listed = collect(w, [&](float x, uint32_t) { return bin_of(w, x) == bin; });
    if (listed > LIST) {
        return cut_by_bits(w, g);
    }
    u64 key = threadIdx.x < listed ? w.list[threadIdx.x] : 0;
    w.weights[threadIdx.x] = threadIdx.x < listed ? weight_of(w, logit_of(key)) : 0;
    __syncthreads();
    u64 mine = w.weights[threadIdx.x];
    count = count_before;
    weight = weight_before;
    for (unsigned i = 0; i < listed; i++) {
        count += w.list[i] >= key;
        weight += w.list[i] >= key ? w.weights[i] : 0;
    }
    if (threadIdx.x < listed && reached(g, count, weight) &&
        !reached(g, count - 1, weight - mine)) {
        found[3] = key;
        found[2] = weight;
    }
    __syncthreads();
    return {found[3], found[2]};
}

/* The smallest key that top_k and top_p leave. */
__device__ u64 least_kept(const work &w, bins b, const struct kern_sample_row &how)
{
    cut c = {0, 0};
    if ((how.top_k == 0 || how.top_k >= w.vocab) && how.top_p >= 1.0F) {
        return 0;
    }
    fill_bins(w, b);
    c = cut_at(w, b, {how.top_k > 0 && how.top_k < w.vocab ? how.top_k : ~0ULL, 0});
    if (how.top_p < 1.0F) {
        c = cut_at(w, b, {0, (double)how.top_p * (double)c.weight});
    }
    return c.key;
}

/* ---- the few largest ------------------------------------------------------------------------
 */

/* A key that at least `top` of the row's keys are not below, and not many more: of the largest of
 * 256 (or 1,024) groups of threads the top-th. 0 when there are fewer. mine: the thread's largest.
 */
__device__ u64 bound_of(const work &w, u64 mine, size_t top)
{
    KERN_SHARED(u64, bound, 1);
    unsigned by = top <= 128 ? 4 : 1, count = THREADS / by, rank = 0;
    if (by > 1) {
        u64 other = __shfl_xor_sync(KERN_WARP, mine, 1);
        mine = other > mine ? other : mine;
        other = __shfl_xor_sync(KERN_WARP, mine, 2);
        mine = other > mine ? other : mine;
    }
    __syncthreads();
    if (threadIdx.x % by == 0) {
        w.list[threadIdx.x / by] = mine;
    }
    if (threadIdx.x == 0) {
        *bound = 0;
    }
    __syncthreads();
    if (threadIdx.x < count) {
        mine = w.list[threadIdx.x];
#pragma unroll 8
        for (unsigned i = 0; i < count; i++) {
            rank += w.list[i] > mine;
        }
        if (mine != 0 && rank == top - 1) {
            *bound = mine;
        }
    }
    __syncthreads();
    return *bound;
}

/* The draw from a row of which top_k or top_p keep a few keys (most do), which are compared with
 * each other in shared memory: two passes over the row in all. The same as from least_kept and
 * drawn, to the bit. False when they are too many. */
__device__ bool drawn_of_few(
    const work &w, const struct kern_sample_row &how, u64 mine, u64 best, uint32_t *out_id)
{
    KERN_SHARED(u64, told, 2); /* what top_k leaves; the id */
    bool by_count = how.top_k > 0 && how.top_k < w.vocab;
    size_t top = by_count ? how.top_k : (size_t)FEW;
    if (top > LIST / 2 || (!by_count && how.top_p >= 1.0F)) {
        return false;
    }
    u64 least = bound_of(w, mine, top), sum = 0;
    uint32_t listed = collect(w, [&](float x, uint32_t id) {
        sum += by_count ? 0 : weight_of(w, x);
        return key_of(x, id) >= least;
    });
    if (listed > LIST) {
        return false;
    }
    bool here = threadIdx.x < listed;
    u64 key = here ? w.list[threadIdx.x] : 0, upto = 0, before = 0, total = 0;
    u64 weight = here ? weight_of(w, logit_of(key)) : 0, all = by_count ? 0 : block_total(w, sum);
    uint32_t rank = 0;
    w.weights[threadIdx.x] = weight;
    if (threadIdx.x == 0) {
        told[0] = all;
        told[1] = id_of(best);
    }
    __syncthreads();
    for (unsigned i = 0; i < listed && here; i++) {
        rank += w.list[i] > key;
        upto += w.list[i] > key ? w.weights[i] : 0;
        total += w.weights[i];
    }
    if (here && by_count && rank == top - 1) {
        told[0] = upto + weight;
    }
    __syncthreads();
    double most = how.top_p < 1.0F ? (double)how.top_p * (double)told[0] : INFINITY;
    if (__syncthreads_or(threadIdx.x == 0 && !by_count && (double)total < most)) {
        return false; /* top_p keeps more than the list has */
    }
    bool kept = here && (rank < top || !by_count) && (double)upto < most &&
                (key == best || share_of(w, logit_of(key)) >= how.min_p);
    w.weights[threadIdx.x] = kept ? weight : 0;
    __syncthreads();
    total = 0;
    for (unsigned i = 0; i < listed && here; i++) {
        total += w.weights[i];
        before += id_of(w.list[i]) < id_of(key) ? w.weights[i] : 0;
    }
    double goal = (double)how.draw * (double)total;
    if (kept && !((double)before > goal) && (double)(before + weight) > goal) {
        told[1] = id_of(key);
    }
    __syncthreads();
    *out_id = (uint32_t)told[1];
    return true;
}

/* ---- the draw ---------------------------------------------------------------------------------
 */

__device__ uint32_t drawn(const work &w, const struct kern_sample_row &how, u64 least, u64 best)
{
    KERN_SHARED(u64, of_warps, 32);
    KERN_SHARED(uint32_t, chosen, 1);
    auto weight = [&](float x, uint32_t id) -> u64 {
        u64 key = key_of(x, id);
        bool kept = key >= least && (key == best || share_of(w, x) >= how.min_p);
        return kept ? weight_of(w, x) : 0;
    };
    size_t range = (w.vocab + 127) / 128 * 4; /* of ids, of a warp */
    size_t warp = threadIdx.x / 32, first = warp * range;
    size_t end = first + range < w.vocab ? first + range : w.vocab;
    u64 sum = 0;
    each(w, first, end, threadIdx.x % 32, 32, [&](float x, uint32_t id) { sum += weight(x, id); });
    sum = warp_joined(sum, [](u64 a, u64 b) { return a + b; });
    __syncthreads();
    if (threadIdx.x % 32 == 0) {
        of_warps[warp] = sum;
    }
    if (threadIdx.x == 0) {
        *chosen = id_of(best);
    }
    __syncthreads();
    u64 total = 0, before = 0, upto = 0;
    size_t in = 0;
    for (size_t i = 0; i < 32; i++) {
        total += of_warps[i];
    }
    double goal = (double)how.draw * (double)total;
    for (in = 0; in < 32 && !((double)(before + of_warps[in]) > goal); in++) {
        before += of_warps[in];
    }
    first = in * range;
    end = first + range < w.vocab ? first + range : w.vocab;
    size_t each_thread = (range + THREADS - 1) / THREADS;
    size_t id = first + threadIdx.x * each_thread;
    for (size_t i = id; i < end && i < id + each_thread; i++) {
        upto += weight(w.logits[i], (uint32_t)i);
    }
    before += block_before(w, upto);
    for (size_t i = id; i < end && i < id + each_thread; i++) {
        u64 with = before + weight(w.logits[i], (uint32_t)i);
        if (!((double)before > goal) && (double)with > goal) {
            *chosen = (uint32_t)i;
        }
        before = with;
    }
    __syncthreads();
    return *chosen;
}

/* ---- the most likely ----------------------------------------------------------------------------
 */

/* The `top` largest keys. mine: the thread's largest. */
__device__ void tell_top(const work &w, const sampling &a, size_t row, u64 mine, running all)
{
    u64 least = bound_of(w, mine, a.top);
    uint32_t rank = 0;
    auto put = [&](size_t at, u64 key) {
        a.out_top_ids[row * a.top + at] = id_of(key);
        a.out_top_logprobs[row * a.top + at] = log_softmax(logit_of(key), all);
    };
    uint32_t listed = collect(w, [&](float x, uint32_t id) { return key_of(x, id) >= least; });
    if (listed <= LIST) {
        u64 key = threadIdx.x < listed ? w.list[threadIdx.x] : 0;
        rank = 0;
        for (unsigned i = 0; i < listed; i++) {
            rank += w.list[i] > key;
        }
        if (threadIdx.x < listed && rank < a.top) {
            put(rank, key);
        }
        return;
    }
    u64 last = ~0ULL;
    for (size_t i = 0; i < a.top; i++) {
        u64 best = 0;
        each_of_row(w, [&](float x, uint32_t id) {
            u64 key = key_of(x, id);
            best = key < last && key > best ? key : best;
        });
        last = block_most(w, best);
        if (threadIdx.x == 0) {
            put(i, last);
        }
    }
}

__device__ void adjust(const sampling &a, const struct kern_sample_row &how, float *logits)
{
    for (uint32_t i = threadIdx.x; i < how.adjust_count; i += THREADS) {
        struct kern_adjust one = a.adjusts[how.adjust_start + i];
        float x = logits[one.id];
        if (one.seen) {
            x = x > 0 ? x / how.repetition : x * how.repetition;
        }
        logits[one.id] = x + one.bias;
    }
    __syncthreads();
}

__global__ void __launch_bounds__(THREADS) sample_kernel(sampling a)
{
    KERN_SHARED(uint32_t, scratch, 128);
    KERN_SHARED(u64, list, LIST);
    KERN_SHARED(u64, weights, LIST);
    KERN_SHARED(u64, bin_weights, BINS);
    KERN_SHARED(uint32_t, bin_counts, BINS);
    struct kern_sample_row how = a.rows[blockIdx.x];
    float *logits = a.logits + blockIdx.x * a.vocab;
    work w = {logits, a.vocab, a.vocab % 4 == 0 && (uintptr_t)a.logits % 16 == 0, 0,
        how.temperature, scratch, list, weights};
    adjust(a, how, logits);

    u64 mine = 0;
    auto largest = [&](float x, uint32_t id) {
        u64 key = key_of(x, id);
        mine = key > mine ? key : mine;
    };
    running all = w.wide ? running_of_row<4>(logits, a.vocab, (float *)scratch, largest)
                         : running_of_row<1>(logits, a.vocab, (float *)scratch, largest);
    u64 best = block_most(w, mine);
    w.most = logit_of(best);
    uint32_t id = id_of(best);
    if (how.temperature > 0 && !isinf(w.most)) {
        if (!drawn_of_few(w, how, mine, best, &id)) {
            id = drawn(w, how, least_kept(w, {bin_counts, bin_weights}, how), best);
        }
    }
    if (threadIdx.x == 0) {
        a.out_ids[blockIdx.x] = id;
        a.out_logprobs[blockIdx.x] = log_softmax(logits[id], all);
    }
    if (a.top > 0) {
        tell_top(w, a, blockIdx.x, mine, all);
    }
}

} // namespace

size_t kern_cuda_sample_workspace_bytes(const struct kern_ctx *ctx, size_t rows, size_t vocab)
{
    (void)ctx;
    (void)rows;
    (void)vocab;
    return 0;
}

void kern_cuda_sample(struct kern_ctx *ctx, const struct kern_sample *a)
{
    sampling s = {a->logits, a->rows, a->adjusts, a->vocab, a->top, a->out_ids, a->out_logprobs,
        a->out_top_ids, a->out_top_logprobs};
    if (a->rows_count > 0) {
        KERN_LAUNCH(ctx, sample_kernel, dim3((unsigned)a->rows_count), dim3(THREADS), 0, s);
    }
}
