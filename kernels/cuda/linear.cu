/* y = act(x w^T + bias) + residual on the device: which way is taken. */
#include "kernels/cuda/linear.cuh"

/* Up to this many rows W is what a product waits for: read once, it takes no longer than for one.
 * Of codes, to where widening them pays. A row's numbers are the same to the bit for any count of
 * rows on the same side. */
#define FLOATS_ROWS_MAX 8
#define CODES_ROWS_MAX 64

/* Sums of cuBLASLt that are finished by our own kernel are made this many bytes at a time, and at
 * least a row; widened weights too, and at least 8 rows. */
#define SUMS_BYTES ((size_t)32 << 20)
#define WIDE_BYTES ((size_t)64 << 20)

static bool of_floats(const struct kern_matrix *w)
{
    return w->dtype == KERN_F32 || w->dtype == KERN_BF16;
}

static bool may_use_blaslt(const struct kern_matrix *w, size_t t)
{
    return of_floats(w) ? t > FLOATS_ROWS_MAX : t > CODES_ROWS_MAX && w->k % 8 == 0;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* How many rows of W are multiplied at once: all, or as many as are widened. */
static size_t piece_columns(const struct kern_matrix *w)
{
    size_t wide = WIDE_BYTES / (w->k * 2) / 8 * 8;
    return of_floats(w) ? w->n : least(wide > 0 ? wide : 8, w->n);
}

/* How many rows of sums are kept at once. */
static size_t piece_rows(const struct kern_matrix *w, size_t t)
{
    size_t rows = SUMS_BYTES / (piece_columns(w) * sizeof(float));
    return least(rows > 0 ? rows : 1, t);
}

/* The workspace of a product with cuBLASLt: its own, then these. */
struct room {
    size_t x, w, sums, total; /* x rounded, w widened */
};

static struct room room_of(const struct kern_matrix *w, size_t t)
{
    struct room r;
    r.x = kern_blaslt_workspace_bytes();
    r.w = r.x + (w->dtype == KERN_F32 ? 0 : kern_up(t * w->k * 2, 256));
    r.sums = r.w + (of_floats(w) ? 0 : kern_up(piece_columns(w) * w->k * 2, 256));
    r.total = r.sums + kern_up(piece_rows(w, t) * piece_columns(w) * sizeof(float), 256);
    return r;
}

extern "C" size_t kern_cuda_linear_workspace_bytes(const struct kern_matrix *w, size_t t)
{
    size_t many = may_use_blaslt(w, t) ? room_of(w, t).total : 0;
    size_t few = of_floats(w) ? 0 : kern_codes_bytes(w, t);
    return many > few ? many : few;
}

/* A piece of y: straight into it, when nothing follows that cuBLASLt does not do, or by sums. */
static bool multiply(struct kern_ctx *ctx, const struct kern_linear *a, const void *x,
    const void *w, float *sums, const struct kern_cut *cut)
{
    enum kern_dtype type = a->w->dtype == KERN_F32 ? KERN_F32 : KERN_BF16;
    bool straight = !a->bias && a->act == KERN_NONE && !(a->residual && a->y_dtype == KERN_BF16);
    size_t at = cut->t0 * a->w->n + cut->n0, y_bytes = a->y_dtype == KERN_BF16 ? 2 : 4;
    struct kern_product p = {};
    p.w = w;
    p.x = (const char *)x + cut->t0 * a->w->k * kern_dtype_bytes(type);
    p.w_dtype = type;
    p.n = cut->n;
    p.k = a->w->k;
    p.t = cut->t;
    if (straight) {
        p.c = a->residual ? a->residual + at : NULL;
        p.d = (char *)a->y + at * y_bytes;
        p.d_dtype = a->y_dtype == KERN_BF16 ? KERN_BF16 : KERN_F32;
        p.ld = a->w->n;
        return kern_blaslt_multiply(ctx, &p, a->workspace);
    }
    p.d = sums;
    p.d_dtype = KERN_F32;
    p.ld = cut->n;
    bool done = kern_blaslt_multiply(ctx, &p, a->workspace);
    if (done) {
        kern_finish(ctx, a, sums, cut);
    }
    return done;
}

/* False: cuBLASLt is not there, or knows no way; nothing was written. */
static bool with_blaslt(struct kern_ctx *ctx, const struct kern_linear *a)
{
    const struct kern_matrix *w = a->w;
    struct room room = room_of(w, a->t);
    char *memory = (char *)a->workspace;
    size_t columns = piece_columns(w), rows = piece_rows(w, a->t);
    if (!kern_cuda_of(ctx)->blaslt) {
        return false;
    }
    const void *x = w->dtype == KERN_F32 ? a->x : kern_rounded(ctx, a, memory + room.x);
    for (size_t n0 = 0; n0 < w->n; n0 += columns) {
        const void *data = w->data;
        size_t n = least(columns, w->n - n0);
        if (!of_floats(w)) {
            kern_widen(ctx, w, n0, n, memory + room.w);
            data = memory + room.w;
        }
        for (size_t t0 = 0; t0 < a->t; t0 += rows) {
            struct kern_cut cut = {t0, least(rows, a->t - t0), n0, n};
            bool first = t0 == 0 && n0 == 0;
            if (!multiply(ctx, a, x, data, (float *)(memory + room.sums), &cut)) {
                if (!first) { /* a part of y is written */
                    kern_cuda_check(ctx, cudaErrorNotSupported, "cublasLtMatmul");
                }
                return !first;
            }
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
