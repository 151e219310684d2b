/* Rows of a table of embeddings, of numbers or of blocks, as float32. */
#include "kernels/cuda/numbers.cuh"

namespace
{

struct rows {
    const unsigned char *table;
    const uint32_t *ids;
    float *y;
    size_t k, row_bytes;
};

/* A block per row. */
template <enum kern_dtype TYPE, int V> __global__ void __launch_bounds__(256) gather_kernel(rows a)
{
    const unsigned char *row = a.table + a.ids[blockIdx.x] * a.row_bytes;
    for (size_t i = threadIdx.x; i < a.k / V; i += blockDim.x) {
        store_numbers<KERN_F32, V>(
            a.y, blockIdx.x * a.k + i * V, load_numbers<TYPE, V>(row, i * V));
    }
}

/* Blocks lie at odd addresses: two bytes at a time. */
__device__ float half_at(const unsigned char *at)
{
    return f16_value(*(const uint16_t *)at);
}

/* Code `i` of a block: the number it stands for. As GGUF lays them out (kern.h). */
__device__ float q8_0_at(const unsigned char *block, unsigned i)
{
    return half_at(block) * (float)(signed char)block[2 + i];
}

__device__ float q4_0_at(const unsigned char *block, unsigned i)
{
    unsigned code = block[2 + i % 16] >> (i < 16 ? 0 : 4) & 15U;
    return half_at(block) * ((float)code - 8.0F);
}

/* d, dmin, 12 bytes of scales and minima of 6 bits, 128 bytes of codes. */
__device__ float q4_k_at(const unsigned char *block, unsigned i)
{
    const unsigned char *packed = block + 4;
    unsigned group = i / 32, scale, least;
    if (group < 4) {
        scale = packed[group] & 63U;
        least = packed[group + 4] & 63U;
    } else {
        scale = (packed[group + 4] & 15U) | (unsigned)(packed[group - 4] >> 6) << 4;
        least = (unsigned)(packed[group + 4] >> 4) | (unsigned)(packed[group] >> 6) << 4;
    }
    unsigned code = block[16 + group / 2 * 32 + i % 32] >> (group % 2 * 4) & 15U;
    return half_at(block) * (float)scale * (float)code - half_at(block + 2) * (float)least;
}

/* 128 bytes of low bits, 64 of high bits, 16 scales, d. */
__device__ float q6_k_at(const unsigned char *block, unsigned i)
{
    unsigned half = i / 128, quarter = i % 128 / 32, l = i % 32;
    unsigned low = block[half * 64 + quarter % 2 * 32 + l] >> (quarter / 2 * 4) & 15U;
    unsigned high = block[128 + half * 32 + l] >> (quarter * 2) & 3U;
    float scale = (float)(signed char)block[192 + i / 16];
    return half_at(block + 208) * scale * ((float)(low | high << 4) - 32.0F);
}

template <enum kern_dtype TYPE> __global__ void __launch_bounds__(256) gather_blocks_kernel(rows a)
{
    const unsigned char *row = a.table + a.ids[blockIdx.x] * a.row_bytes;
    for (size_t i = threadIdx.x; i < a.k; i += blockDim.x) {
        float value = TYPE == KERN_Q8_0   ? q8_0_at(row + i / 32 * 34, i % 32)
                      : TYPE == KERN_Q4_0 ? q4_0_at(row + i / 32 * 18, i % 32)
                      : TYPE == KERN_Q4_K ? q4_k_at(row + i / 256 * 144, i % 256)
                                          : q6_k_at(row + i / 256 * 210, i % 256);
        a.y[blockIdx.x * a.k + i] = value;
    }
}

template <enum kern_dtype TYPE> void launch(struct kern_ctx *ctx, const rows &a, size_t t)
{
    bool wide = a.k % 4 == 0 && lies_wide(a.table, 16) && lies_wide(a.y, 16);
    if (wide) {
        KERN_LAUNCH(ctx, (gather_kernel<TYPE, 4>), dim3((unsigned)t), dim3(256), 0, a);
    } else {
        KERN_LAUNCH(ctx, (gather_kernel<TYPE, 1>), dim3((unsigned)t), dim3(256), 0, a);
    }
}

template <enum kern_dtype TYPE> void launch_blocks(struct kern_ctx *ctx, const rows &a, size_t t)
{
    KERN_LAUNCH(ctx, gather_blocks_kernel<TYPE>, dim3((unsigned)t), dim3(256), 0, a);
}

} // namespace

void kern_cuda_gather(struct kern_ctx *ctx, const struct kern_gather *a)
{
    rows r = {
        (const unsigned char *)a->table, a->ids, a->y, a->k, kern_dtype_row_bytes(a->dtype, a->k)};
    if (a->t == 0) {
        return;
    }
    switch (a->dtype) {
    case KERN_F32:
        return launch<KERN_F32>(ctx, r, a->t);
    case KERN_F16:
        return launch<KERN_F16>(ctx, r, a->t);
    case KERN_BF16:
        return launch<KERN_BF16>(ctx, r, a->t);
    case KERN_Q8_0:
        return launch_blocks<KERN_Q8_0>(ctx, r, a->t);
    case KERN_Q4_0:
        return launch_blocks<KERN_Q4_0>(ctx, r, a->t);
    case KERN_Q4_K:
        return launch_blocks<KERN_Q4_K>(ctx, r, a->t);
    default:
        memos_assert(a->dtype == KERN_Q6_K);
        return launch_blocks<KERN_Q6_K>(ctx, r, a->t);
    }
}
