/* What the kernels of attention share: the step as they take it, and which tokens a row sees. */
#ifndef KERNELS_CUDA_ATTENTION_CUH
#define KERNELS_CUDA_ATTENTION_CUH

#include "kernels/cuda/kv.cuh"

/* A kern_attention as a kernel takes it. */
struct attention_view {
    kv_view kv;
    const float *query;
    const uint32_t *starts, *lengths, *tables;
    void *out;
    size_t query_stride, tables_stride, window;
    unsigned t, sequences, heads, rows_max, length_max;
    float scale;
    bool out_half;       /* BF16, else F32 */
    bool wide;           /* queries can be read 16 bytes at a time */
    unsigned pieces_max; /* that a sequence is cut into */
    float *partial;      /* (sequences, pieces_max, H, 2 + D): of a piece the largest score, the
                            weights' sum, and the sums */
};

/* The sequence of a row, or -1 when it is past the last one. */
static __device__ __forceinline__ int sequence_of(const attention_view &a, unsigned row)
{
    unsigned low = 0, high = a.sequences;
    if (row >= a.starts[a.sequences]) {
        return -1;
    }
    while (high - low > 1) { /* starts[low] <= row < starts[high] */
        unsigned middle = (low + high) / 2;
        if (a.starts[middle] <= row) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return (int)low;
}

/* The tokens first..end-1 that the row `left` rows before its sequence's end (1: the last) sees. */
struct seen {
    unsigned first, end;
};

static __device__ __forceinline__ seen seen_by(
    const attention_view &a, unsigned length, unsigned left)
{
    seen s = {0, length - left + 1};
    if (a.window > 0 && s.end > a.window) {
        s.first = s.end - (unsigned)a.window;
    }
    return s;
}

static __device__ __forceinline__ unsigned char *page_of(
    const attention_view &a, unsigned sequence, unsigned page)
{
    return a.kv.pages + a.tables[sequence * a.tables_stride + page] * a.kv.page_bytes;
}

static __device__ __forceinline__ void attention_put(
    const attention_view &a, unsigned row, unsigned head, unsigned d, float value)
{
    size_t at = ((size_t)row * a.heads + head) * a.kv.head_dim + d;
    if (a.out_half) {
        ((uint16_t *)a.out)[at] = bf16_bits(value);
    } else {
        ((float *)a.out)[at] = value;
    }
}

/* attention_prefill.cu: tensor cores. What it has tiles for; a launch. */
size_t kern_cuda_attention_share_bytes(
    const struct kern_ctx *ctx, size_t t, size_t heads, size_t head_dim);
/* Into how many shares the tokens are cut when there are so many blocks of rows. */
size_t kern_cuda_attention_shares(const struct kern_ctx *ctx, size_t t, size_t blocks, size_t heads,
    size_t head_dim, size_t length_max);
bool kern_cuda_attention_prefills(enum kern_dtype dtype, size_t head_dim);
void kern_cuda_attention_prefill(
    struct kern_ctx *ctx, enum kern_dtype dtype, const attention_view &a);

/* attention_decode.cu: tensor cores, one row a sequence. */
bool kern_cuda_attention_decodes(enum kern_dtype dtype, size_t head_dim, size_t group);
size_t kern_cuda_attention_pieces(size_t length_max);
void kern_cuda_attention_decode(
    struct kern_ctx *ctx, enum kern_dtype dtype, const attention_view &a);

/* attention_plain.cu: any type of cache and any head_dim, float32 arithmetic. */
void kern_cuda_attention_plain(
    struct kern_ctx *ctx, enum kern_dtype dtype, const attention_view &a);

#endif
