/* What the files of the product share: the ways to multiply. How weights and codes lie is in
 * layout.h.
 *
 * skinny.cu reads W once for up to 16 rows of x, on the tensor cores, for all but F32; plain.cu
 * does any shape, slowly, for F32 and for BF16 with rows that are not aligned; blaslt.cu is
 * cuBLASLt, for many rows of F32 and BF16, where it is there. */
#ifndef KERNELS_CUDA_LINEAR_CUH
#define KERNELS_CUDA_LINEAR_CUH

#include "kernels/cuda/device.cuh"

extern "C" {
#include "kernels/cuda/layout.h"
}

/* How often the device was reset. */
uint64_t kern_cuda_generation(void);

/* Codes of x and their scales, in the caller's workspace. */
struct kern_codes {
    int8_t *codes;
    float *scales;
};
size_t kern_codes_bytes(const struct kern_matrix *w, size_t t);
struct kern_codes kern_quantize(struct kern_ctx *ctx, const struct kern_linear *a);

/* x (T, K) in bf16 is a->x, or its copy in `room` (T, K). */
const void *kern_rounded(struct kern_ctx *ctx, const struct kern_linear *a, void *room);
/* A piece of y: rows t0 .. t0 + t - 1 of columns n0 .. n0 + n - 1. */
struct kern_cut {
    size_t t0, t, n0, n;
};
/* y = act(sums + bias) + residual for a piece of it; sums (t, n). */
void kern_finish(struct kern_ctx *ctx, const struct kern_linear *a, const float *sums,
    const struct kern_cut *cut);
/* Rows n0 .. n0 + n - 1 of codes in bf16, out (n, K): n0 a multiple of 8, as K is. */
void kern_widen(struct kern_ctx *ctx, const struct kern_matrix *w, size_t n0, size_t n, void *out);

/* Is K right for skinny (for bf16 its rows must be 16-byte aligned)? */
bool kern_skinny_can(const struct kern_matrix *w);
void kern_skinny(struct kern_ctx *ctx, const struct kern_linear *a, struct kern_codes x);
void kern_plain(struct kern_ctx *ctx, const struct kern_linear *a);

/* cuBLASLt: NULL in *out where it cannot be loaded. */
void kern_blaslt_open(struct kern_blaslt **out);
void kern_blaslt_close(struct kern_blaslt **blaslt); /* takes NULL */
size_t kern_blaslt_workspace_bytes(void);
/* d (t, n) = x (t, K) . w (n, K)^T [+ c (t, n) float32]: x of w's type (F32, BF16); rows of c and
 * d are ld numbers apart; c may be d. */
struct kern_product {
    const void *w, *x;
    const float *c;
    void *d;
    enum kern_dtype w_dtype, d_dtype;
    size_t n, k, t, ld;
};
/* workspace of kern_blaslt_workspace_bytes. False: it knows no way. */
bool kern_blaslt_multiply(struct kern_ctx *ctx, const struct kern_product *p, void *workspace);

#endif
