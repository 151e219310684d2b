/* A piece is a run of at most 4,096 numbers of a row. */
#include "kernels/cpu/ops.h"
#include "kernels/cpu/vector.h"

#define INLINE static inline __attribute__((always_inline))

#define RUN 4096

struct silu_mul {
    const struct kern_silu_mul *a;
    size_t runs; /* of a row */
};

INLINE __m256 load(enum kern_dtype dtype, const void *x, size_t at, size_t left)
{
    if (dtype == KERN_BF16) {
        return vector_load_bf16((const uint16_t *)x + at, left);
    }
    const float *from = (const float *)x + at;
    return left >= 8 ? _mm256_loadu_ps(from) : vector_load_part(from, left);
}

/* Numbers first..end-1 of row t. */
INLINE void silu_mul_run(const struct kern_silu_mul *a, size_t t, size_t first, size_t end,
    const enum kern_dtype x_dtype, const enum kern_dtype y_dtype)
{
    size_t gate_at = t * 2 * a->inner, up_at = gate_at + a->inner, y_at = t * a->inner;
    for (size_t i = first; i < end; i += 8) {
        size_t left = end - i;
        __m256 gate = load(x_dtype, a->gate_up, gate_at + i, left);
        __m256 up = load(x_dtype, a->gate_up, up_at + i, left);
        __m256 v = _mm256_mul_ps(vector_silu(gate), up);
        if (y_dtype == KERN_BF16) {
            vector_store_bf16((uint16_t *)a->y + y_at + i, left, v);
        } else if (left >= 8) {
            _mm256_storeu_ps((float *)a->y + y_at + i, v);
        } else {
            _mm256_maskstore_ps((float *)a->y + y_at + i, vector_mask(left), v);
        }
    }
}

static void silu_mul_piece(void *self, size_t index, unsigned worker)
{
    const struct silu_mul *silu = self;
    const struct kern_silu_mul *a = silu->a;
    size_t t = index / silu->runs, first = index % silu->runs * RUN;
    size_t end = a->inner - first < RUN ? a->inner : first + RUN;
    (void)worker;
    if (a->x_dtype == KERN_F32 && a->y_dtype == KERN_F32) {
        silu_mul_run(a, t, first, end, KERN_F32, KERN_F32);
    } else if (a->x_dtype == KERN_F32) {
        silu_mul_run(a, t, first, end, KERN_F32, KERN_BF16);
    } else if (a->y_dtype == KERN_F32) {
        silu_mul_run(a, t, first, end, KERN_BF16, KERN_F32);
    } else {
        silu_mul_run(a, t, first, end, KERN_BF16, KERN_BF16);
    }
}

void kern_cpu_silu_mul(struct kern_ctx *ctx, const struct kern_silu_mul *a)
{
    struct silu_mul silu = {a, (a->inner + RUN - 1) / RUN};
    kern_pool_run(ctx->pool, a->t * silu.runs, silu_mul_piece, &silu);
}
