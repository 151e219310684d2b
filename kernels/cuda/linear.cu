/* y = act(x w^T + bias) + residual on the device: which way is taken. */
#include "kernels/cuda/linear.cuh"

/* Up to this many rows W is what a product waits for: read once, it takes no longer than for one.
 * A row's numbers are the same to the bit for any count of rows on the same side. */
#define SKINNY_ROWS_MAX 16

/* Sums of cuBLASLt that are finished by our own kernel are made this many bytes at a time, and at
 * least a row. */
#define SUMS_BYTES ((size_t)32 << 20)

static bool may_use_blaslt(const struct kern_matrix *w, size_t t)
{
    return t > SKINNY_ROWS_MAX && (w->dtype == KERN_F32 || w->dtype == KERN_BF16);
}

static size_t sums_rows(const struct kern_matrix *w, size_t t)
{
    size_t rows = SUMS_BYTES / (w->n * sizeof(float));
    rows = rows > 0 ? rows : 1;
    return rows < t ? rows : t;
}

/* The workspace of a product with cuBLASLt: its own, x rounded, sums. */
static size_t rounded_bytes(const struct kern_matrix *w, size_t t)
{
    return w->dtype == KERN_BF16 ? kern_up(t * w->k * 2, 256) : 0;
}

extern "C" size_t kern_cuda_linear_workspace_bytes(const struct kern_matrix *w, size_t t)
{
    if (w->dtype != KERN_F32 && w->dtype != KERN_BF16) {
        return kern_codes_bytes(w, t);
    } else if (!may_use_blaslt(w, t)) {
        return 0;
    }
    return kern_blaslt_workspace_bytes() + rounded_bytes(w, t) +
           kern_up(sums_rows(w, t) * w->n * sizeof(float), 256);
}

/* The product of rows t0 .. t0 + t - 1 straight into y, when nothing follows that cuBLASLt does not
 * do, or into `sums`. */
static bool multiply(struct kern_ctx *ctx, const struct kern_linear *a, const void *x, float *sums,
    bool straight, size_t t0, size_t t)
{
    const struct kern_matrix *w = a->w;
    size_t y_bytes = a->y_dtype == KERN_BF16 ? 2 : 4;
    const char *rows = (const char *)x + t0 * w->k * kern_dtype_bytes(w->dtype);
    if (!straight) {
        return kern_blaslt_multiply(ctx, w, rows, NULL, sums, KERN_F32, t, a->workspace);
    }
    return kern_blaslt_multiply(ctx, w, rows, a->residual ? a->residual + t0 * w->n : NULL,
        (char *)a->y + t0 * w->n * y_bytes, a->y_dtype == KERN_BF16 ? KERN_BF16 : KERN_F32, t,
        a->workspace);
}

static bool with_blaslt(struct kern_ctx *ctx, const struct kern_linear *a)
{
    const struct kern_matrix *w = a->w;
    char *room = (char *)a->workspace + kern_blaslt_workspace_bytes();
    float *sums = (float *)(room + rounded_bytes(w, a->t));
    bool straight = !a->bias && a->act == KERN_NONE && !(a->residual && a->y_dtype == KERN_BF16);
    size_t rows = straight ? a->t : sums_rows(w, a->t);
    const void *x = w->dtype == KERN_BF16 ? kern_rounded(ctx, a, room) : a->x;
    for (size_t t0 = 0; t0 < a->t; t0 += rows) {
        size_t t = rows < a->t - t0 ? rows : a->t - t0;
        if (!multiply(ctx, a, x, sums, straight, t0, t)) {
            return false; /* with the first rows, or never */
        }
        if (!straight) {
            kern_finish(ctx, a, sums, t0, t);
        }
    }
    return true;
}

extern "C" void kern_cuda_linear(struct kern_ctx *ctx, const struct kern_linear *a)
{
    const struct kern_matrix *w = a->w;
    struct kern_codes none = {NULL, NULL};
    if (!kern_cuda_usable(ctx)) {
        return;
    } else if (may_use_blaslt(w, a->t) && with_blaslt(ctx, a)) {
        return;
    } else if (!kern_skinny_can(w)) {
        kern_plain(ctx, a);
    } else if (w->dtype == KERN_BF16) {
        kern_skinny(ctx, a, none);
    } else {
        kern_skinny(ctx, a, kern_quantize(ctx, a));
    }
}

/* What is between products of bf16 is rounded for the next one anyway. */
extern "C" enum kern_dtype kern_cuda_between_dtype(
    const struct kern_ctx *ctx, enum kern_dtype weights)
{
    (void)ctx;
    bool bf16 = weights == KERN_BF16 || weights == KERN_Q4_K || weights == KERN_Q6_K;
    return bf16 ? KERN_BF16 : KERN_F32;
}
