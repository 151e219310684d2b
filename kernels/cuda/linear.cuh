/* What the files of the product share: how weights lie on the device, and the ways to multiply.
 *
 * Weights (N, K) are row-major; K is padded with zeros to k_padded where a way wants it:
 *     F32, BF16   as they are, K' = K: a table of embeddings can be the same memory
 *     I8          codes (N, K'), K' a multiple of 64; scales (N) float32
 *     Q8_0        codes (N, K'), K' a multiple of 128, in the order of kern_q8_place; scales
 *                 (N, K' / 32) f16
 *     Q4_0        codes (N, K' / 2 bytes), K' a multiple of 128, see kern_q4_place; scales as Q8_0
 * Q4_K and Q6_K become BF16 when they are packed: their numbers rounded, twice at most.
 *
 * x of integer weights is quantized first (quantize.cu) into codes (T, K') in the same order and
 * scales float32: (T) for I8, (T, K' / 32) for blocks.
 *
 * The ways: skinny.cu reads W once for up to 16 rows of x, on the tensor cores, for all but F32;
 * plain.cu does any shape, slowly, for F32 and for BF16 with odd K; blaslt.cu is cuBLASLt, for many
 * rows of F32 and BF16, where it is there. */
#ifndef KERNELS_CUDA_LINEAR_CUH
#define KERNELS_CUDA_LINEAR_CUH

#include "kernels/cuda/device.cuh"

/* How often the device was reset. */
uint64_t kern_cuda_generation(void);

/* Where number k of a row lies among the codes of Q8_0, and of x for blocks: in each 64, a quarter
 * of a warp's lanes takes 8 numbers of the first block and 8 of the second with one load. */
static inline __host__ __device__ size_t kern_q8_place(size_t k)
{
    return k / 64 * 64 + k % 32 / 8 * 16 + k % 64 / 32 * 8 + k % 8;
}

/* Where number k of a row lies among the codes of Q4_0, counted in halves of bytes, the lower half
 * first: in each 128, a quarter of the lanes takes 8 numbers of each of 4 blocks, of which the
 * first four are the lower halves of 4 bytes and the others the upper. A code is q - 8 in two's
 * complement. */
static inline __host__ __device__ size_t kern_q4_place(size_t k)
{
    return k / 128 * 128 + k % 32 / 8 * 32 + k % 128 / 32 * 8 + k % 4 * 2 + k % 8 / 4;
}

/* Codes of x and their scales, in the caller's workspace. */
struct kern_codes {
    int8_t *codes;
    float *scales;
};
size_t kern_codes_bytes(const struct kern_matrix *w, size_t t);
struct kern_codes kern_quantize(struct kern_ctx *ctx, const struct kern_linear *a);

/* x (T, K) in bf16 is a->x, or its copy in `room` (T, K). */
const void *kern_rounded(struct kern_ctx *ctx, const struct kern_linear *a, void *room);
/* y = act(sums + bias) + residual for rows t0 .. t0 + t - 1 of a; sums (t, N). */
void kern_finish(
    struct kern_ctx *ctx, const struct kern_linear *a, const float *sums, size_t t0, size_t t);

/* Is K right for skinny (for bf16 its rows must be 16-byte aligned)? */
bool kern_skinny_can(const struct kern_matrix *w);
void kern_skinny(struct kern_ctx *ctx, const struct kern_linear *a, struct kern_codes x);
void kern_plain(struct kern_ctx *ctx, const struct kern_linear *a);

#ifndef KERN_CUDA_EMULATED

/* cuBLASLt: NULL in *out where it cannot be loaded. */
void kern_blaslt_open(struct kern_blaslt **out);
void kern_blaslt_close(struct kern_blaslt **blaslt); /* takes NULL */
size_t kern_blaslt_workspace_bytes(void);
/* d (t, N) = x (t, K) . w^T [+ c (t, N) float32]: x of w's type, d of d_dtype. c may be d. workspace
 * of kern_blaslt_workspace_bytes. False: it knows no way. */
bool kern_blaslt_multiply(struct kern_ctx *ctx, const struct kern_matrix *w, const void *x,
    const float *c, void *d, enum kern_dtype d_dtype, size_t t, void *workspace);

#endif

#endif
