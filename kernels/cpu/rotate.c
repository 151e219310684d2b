/* A piece is some rows. */
#include "kernels/cpu/rotate.h"

#include "kernels/cpu/ops.h"
#include "kernels/cpu/vector.h"
#include "kernels/ref/ops.h"

#define PIECE_NUMBERS 8192

void kern_cpu_rotate_head(const struct kern_rope *rope, size_t position, float *x)
{
    size_t half = rope->rotary / 2, i = 0;
    const float *cos = rope->cos + position * half, *sin = rope->sin + position * half;
    for (; i + 8 <= half; i += 8) {
        __m256 c = _mm256_loadu_ps(cos + i), s = _mm256_loadu_ps(sin + i);
        __m256 left = _mm256_loadu_ps(x + i), right = _mm256_loadu_ps(x + half + i);
        _mm256_storeu_ps(x + i, _mm256_fmsub_ps(left, c, _mm256_mul_ps(right, s)));
        _mm256_storeu_ps(x + half + i, _mm256_fmadd_ps(right, c, _mm256_mul_ps(left, s)));
    }
    for (; i < half; i++) {
        float left = x[i], right = x[half + i];
        x[i] = left * cos[i] - right * sin[i];
        x[half + i] = right * cos[i] + left * sin[i];
    }
}

struct rotate {
    const struct kern_rotate *a;
    size_t piece_rows;
};

static void rotate_piece(void *self, size_t index, unsigned worker)
{
    const struct rotate *rotate = self;
    const struct kern_rotate *a = rotate->a;
    size_t t = index * rotate->piece_rows;
    (void)worker;
    for (size_t i = 0; i < rotate->piece_rows && t < a->t; i++, t++) {
        for (size_t h = 0; h < a->heads; h++) {
            kern_cpu_rotate_head(a->rope, a->positions[t], a->x + t * a->stride + h * a->head_dim);
        }
    }
}

void kern_cpu_rotate(struct kern_ctx *ctx, const struct kern_rotate *a)
{
    struct rotate rotate = {a, PIECE_NUMBERS / (a->heads * a->head_dim) + 1};
    if (a->back) { /* seldom */
        kern_ref_rotate(ctx, a);
        return;
    }
    kern_pool_run(
        ctx->pool, (a->t + rotate.piece_rows - 1) / rotate.piece_rows, rotate_piece, &rotate);
}
