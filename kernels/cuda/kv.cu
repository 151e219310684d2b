/* Keys and values into a cache of pages, out of it, and turned to other positions in it. A warp
 * takes a token's key or value of one head: at most 256 numbers, 8 a lane, in chunks of V. */
#include "kernels/cuda/kv.cuh"

namespace
{

enum { V = 4, CHUNKS = 2 }; /* 32 lanes * 4 * 2 = 256 */

#define SMALLEST 1e-30F /* a largest magnitude below that counts as 0 */

struct rope_view {
    const float *cos, *sin; /* NULL: none */
    unsigned half;
};

rope_view rope_view_of(const struct kern_rope *rope)
{
    return rope ? rope_view{rope->cos, rope->sin, (unsigned)(rope->rotary / 2)}
                : rope_view{nullptr, nullptr, 0};
}

/* Four numbers, wherever they lie. */
template <enum kern_dtype TYPE>
__device__ numbers<V> load_any(const void *array, size_t index, bool wide)
{
    if (wide) {
        return load_numbers<TYPE, V>(array, index);
    }
    numbers<V> out;
#pragma unroll
    for (int j = 0; j < V; j++) {
        out.at[j] = load_numbers<TYPE, 1>(array, index + j).at[0];
    }
    return out;
}

/* The number at d of a head after a rotation by row `position` of the tables; get(i) is the head's
 * number i. again: the head was rotated before, so that the tables' factor (cos of position 0) is
 * in it already. */
template <typename F>
__device__ float rotated(
    const rope_view &rope, size_t position, float sign, bool again, unsigned d, F get)
{
    float x = get(d);
    if (d >= 2 * rope.half) {
        return x;
    }
    unsigned pair = d < rope.half ? d : d - rope.half;
    float cos = rope.cos[position * rope.half + pair];
    float sin = rope.sin[position * rope.half + pair] * sign;
    if (again) {
        cos /= rope.cos[pair];
        sin /= rope.cos[pair];
    }
    /* The same bits whatever the types around it are. */
    float other = d < rope.half ? -get(d + rope.half) : get(pair);
    return fmaf(x, cos, __fmul_rn(other, sin));
}

/* A warp's share of a head, put into the cache: numbers lane * 4 .. and 128 + lane * 4 .. */
template <enum kern_dtype TYPE>
__device__ void put(
    const kv_view &kv, unsigned char *page, size_t at, float *scale, const numbers<V> share[CHUNKS])
{
    unsigned lane = threadIdx.x % 32;
    float by = 1.0F, most = 0;
    bool bad = false;
    if (TYPE == KERN_E4M3) {
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            if ((lane + 32 * c) * V < kv.head_dim) {
                for (int j = 0; j < V; j++) {
                    most = fmaxf(most, fabsf(share[c].at[j])); /* of a NaN: the other */
                    bad |= isnan(share[c].at[j]);
                }
            }
        }
        by = __any_sync(KERN_WARP, bad) ? INFINITY : warp_max(most);
        by = isinf(by) ? __uint_as_float(0x7fc00000U) : by < SMALLEST ? 0.0F : by / 448.0F;
        if (lane == 0) {
            *scale = by;
        }
    }
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        if ((lane + 32 * c) * V < kv.head_dim) {
            numbers<V> x = share[c];
            if (TYPE == KERN_E4M3) {
                for (int j = 0; j < V; j++) {
                    x.at[j] = by > 0 ? x.at[j] / by : 0.0F;
                }
            }
            store_numbers<TYPE, V>(page, at + (lane + 32 * c) * V, x);
        }
    }
}

struct writing {
    kv_view kv;
    rope_view rope;
    const void *key, *value;
    const uint32_t *positions, *slots;
    size_t t, stride;
    bool wide;
};

/* Warps: (token, head, key or value). */
template <enum kern_dtype TYPE, enum kern_dtype FROM>
__global__ void __launch_bounds__(256) kv_write_kernel(writing a)
{
    size_t warp = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    unsigned lane = threadIdx.x % 32, head = (unsigned)(warp / 2 % a.kv.heads);
    bool is_key = warp % 2 == 0;
    size_t t = warp / 2 / a.kv.heads;
    if (t >= a.t || a.slots[t] == KERN_NO_SLOT) {
        return;
    }
    uint32_t slot = a.slots[t];
    size_t from = t * a.stride + (size_t)head * a.kv.head_dim;
    const void *in = is_key ? a.key : a.value;
    bool turn = is_key && a.rope.half > 0;
    numbers<V> share[CHUNKS];
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        unsigned d = (lane + 32 * c) * V;
        if (d < a.kv.head_dim && turn) {
            for (int j = 0; j < V; j++) {
                share[c].at[j] = rotated(a.rope, a.positions[t], 1.0F, false, d + j,
                    [&](unsigned i) { return load_numbers<FROM, 1>(in, from + i).at[0]; });
            }
        } else if (d < a.kv.head_dim) {
            share[c] = load_any<FROM>(in, from + d, a.wide);
        }
    }
    unsigned char *page = a.kv.pages + slot / KERN_PAGE_TOKENS * a.kv.page_bytes;
    unsigned place = slot % KERN_PAGE_TOKENS;
    float *scales = kv_scales(a.kv, page) + (is_key ? 0 : a.kv.heads * KERN_PAGE_TOKENS);
    put<TYPE>(a.kv, page, kv_at(a.kv, head, place) + (is_key ? 0 : kv_values(a.kv)),
        scales + head * KERN_PAGE_TOKENS + place, share);
}

struct reading {
    kv_view kv;
    rope_view rope; /* of a shift */
    const uint32_t *slots;
    const int32_t *shifts;
    float *key, *value;
    size_t t;
};

template <enum kern_dtype TYPE> __global__ void __launch_bounds__(256) kv_read_kernel(reading a)
{
    size_t warp = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    unsigned lane = threadIdx.x % 32, head = (unsigned)(warp / 2 % a.kv.heads);
    bool is_key = warp % 2 == 0;
    size_t t = warp / 2 / a.kv.heads;
    if (t >= a.t) {
        return;
    }
    uint32_t slot = a.slots[t];
    float *out = is_key ? a.key : a.value, scale = 1.0F;
    unsigned place = slot % KERN_PAGE_TOKENS;
    unsigned char *page = a.kv.pages;
    if (slot != KERN_NO_SLOT) {
        page += slot / KERN_PAGE_TOKENS * a.kv.page_bytes;
        if (TYPE == KERN_E4M3) {
            scale = kv_scales(
                a.kv, page)[((is_key ? 0 : a.kv.heads) + head) * KERN_PAGE_TOKENS + place];
        }
    }
    for (unsigned d = lane * V; d < a.kv.head_dim; d += 32 * V) {
        numbers<V> x = {};
        if (slot != KERN_NO_SLOT) {
            x = load_numbers<TYPE, V>(
                page, kv_at(a.kv, head, place) + (is_key ? 0 : kv_values(a.kv)) + d);
            for (int j = 0; j < V; j++) {
                x.at[j] *= scale;
            }
        }
        store_numbers<KERN_F32, V>(out, (t * a.kv.heads + head) * a.kv.head_dim + d, x);
    }
}

/* Warps: (token, head). */
template <enum kern_dtype TYPE> __global__ void __launch_bounds__(256) kv_shift_kernel(reading a)
{
    size_t warp = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    unsigned lane = threadIdx.x % 32, head = (unsigned)(warp % a.kv.heads);
    size_t t = warp / a.kv.heads;
    if (t >= a.t || a.slots[t] == KERN_NO_SLOT || a.shifts[t] == 0) {
        return;
    }
    uint32_t slot = a.slots[t];
    int32_t shift = a.shifts[t];
    unsigned place = slot % KERN_PAGE_TOKENS;
    unsigned char *page = a.kv.pages + slot / KERN_PAGE_TOKENS * a.kv.page_bytes;
    size_t at = kv_at(a.kv, head, place);
    float *scale = kv_scales(a.kv, page) + head * KERN_PAGE_TOKENS + place;
    float by = TYPE == KERN_E4M3 ? *scale : 1.0F;
    numbers<V> share[CHUNKS];
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        unsigned d = (lane + 32 * c) * V;
        if (d < a.kv.head_dim) {
            for (int j = 0; j < V; j++) {
                share[c].at[j] = rotated(a.rope, (size_t)(shift < 0 ? -(int64_t)shift : shift),
                    shift < 0 ? -1.0F : 1.0F, true, d + j,
                    [&](unsigned i) { return load_numbers<TYPE, 1>(page, at + i).at[0] * by; });
            }
        }
    }
    __syncwarp(); /* all have read */
    put<TYPE>(a.kv, page, at, scale, share);
}

dim3 blocks_of(size_t warps)
{
    return dim3((unsigned)((warps + 7) / 8));
}

template <enum kern_dtype TYPE>
void launch_write(struct kern_ctx *ctx, enum kern_dtype from, const writing &a)
{
    dim3 blocks = blocks_of(a.t * a.kv.heads * 2);
    if (from == KERN_F16) {
        KERN_LAUNCH(ctx, (kv_write_kernel<TYPE, KERN_F16>), blocks, dim3(256), 0, a);
    } else if (from == KERN_BF16) {
        KERN_LAUNCH(ctx, (kv_write_kernel<TYPE, KERN_BF16>), blocks, dim3(256), 0, a);
    } else {
        KERN_LAUNCH(ctx, (kv_write_kernel<TYPE, KERN_F32>), blocks, dim3(256), 0, a);
    }
}

template <enum kern_dtype TYPE> void launch_reading(struct kern_ctx *ctx, const reading &a)
{
    if (a.shifts) {
        KERN_LAUNCH(ctx, kv_shift_kernel<TYPE>, blocks_of(a.t * a.kv.heads), dim3(256), 0, a);
    } else {
        KERN_LAUNCH(ctx, kv_read_kernel<TYPE>, blocks_of(a.t * a.kv.heads * 2), dim3(256), 0, a);
    }
}

void launch_reading_of(struct kern_ctx *ctx, enum kern_dtype dtype, const reading &a)
{
    switch (dtype) {
    case KERN_F32:
        return launch_reading<KERN_F32>(ctx, a);
    case KERN_F16:
        return launch_reading<KERN_F16>(ctx, a);
    case KERN_BF16:
        return launch_reading<KERN_BF16>(ctx, a);
    default:
        return launch_reading<KERN_E4M3>(ctx, a);
    }
}

} // namespace

void kern_cuda_kv_write(struct kern_ctx *ctx, const struct kern_kv_write *a)
{
    bool plain = a->from != KERN_F16 && a->from != KERN_BF16;
    size_t bytes = V * (plain ? 4 : 2);
    writing w = {kv_view_of(a->kv), rope_view_of(a->rope), a->key, a->value, a->positions, a->slots,
        a->t, a->stride,
        a->stride % V == 0 && lies_wide(a->key, bytes) && lies_wide(a->value, bytes)};
    if (a->t == 0) {
        return;
    }
    switch (a->kv->dtype) {
    case KERN_F32:
        return launch_write<KERN_F32>(ctx, a->from, w);
    case KERN_F16:
        return launch_write<KERN_F16>(ctx, a->from, w);
    case KERN_BF16:
        return launch_write<KERN_BF16>(ctx, a->from, w);
    default:
        return launch_write<KERN_E4M3>(ctx, a->from, w);
    }
}

void kern_cuda_kv_read(struct kern_ctx *ctx, const struct kern_kv_read *a)
{
    reading r = {
        kv_view_of(a->kv), rope_view_of(nullptr), a->slots, nullptr, a->key, a->value, a->t};
    if (a->t > 0) {
        launch_reading_of(ctx, a->kv->dtype, r);
    }
}

void kern_cuda_kv_shift(struct kern_ctx *ctx, const struct kern_kv_shift *a)
{
    reading r = {
        kv_view_of(a->kv), rope_view_of(a->rope), a->slots, a->shifts, nullptr, nullptr, a->t};
    if (a->t > 0) {
        launch_reading_of(ctx, a->kv->dtype, r);
    }
}
