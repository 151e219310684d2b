#include "kernels/cpu/ops.h"
#include "kernels/cpu/vector.h"

#include <math.h>

#define PIECE_NUMBERS 16384 /* about 4 microseconds: less is not worth sharing */

struct layernorm {
    const float *x, *gamma, *beta;
    float *y;
    float eps;
    size_t t, k, piece_rows;
};

static float row_mean(const float *x, size_t k)
{
    __m256 sums = _mm256_setzero_ps();
    size_t i = 0;
    for (; i + 8 <= k; i += 8) {
        sums = _mm256_add_ps(sums, _mm256_loadu_ps(x + i));
    }
    if (i < k) {
        sums = _mm256_add_ps(sums, vector_load_part(x + i, k - i));
    }
    return vector_sum(sums) / (float)k;
}

/* The variance. A mean far from zero is rounded more than the differences to it bear: *rest is what
 * it lacks, the mean of the differences. NaN must stay NaN. */
static float row_variance(const float *x, size_t k, __m256 mean, float *rest)
{
    __m256 squares = _mm256_setzero_ps(), sums = _mm256_setzero_ps();
    size_t i = 0;
    for (; i + 8 <= k; i += 8) {
        __m256 v = _mm256_sub_ps(_mm256_loadu_ps(x + i), mean);
        squares = _mm256_fmadd_ps(v, v, squares);
        sums = _mm256_add_ps(sums, v);
    }
    if (i < k) {
        __m256 v = _mm256_sub_ps(vector_load_part(x + i, k - i), mean);
        v = _mm256_and_ps(v, _mm256_castsi256_ps(vector_mask(k - i)));
        squares = _mm256_fmadd_ps(v, v, squares);
        sums = _mm256_add_ps(sums, v);
    }
    *rest = vector_sum(sums) / (float)k;
    float variance = vector_sum(squares) / (float)k - *rest * *rest;
    return variance < 0 ? 0 : variance;
}

static void layernorm_row(const struct layernorm *l, const float *x, float *y)
{
    __m256 mean = _mm256_set1_ps(row_mean(x, l->k));
    float rest;
    __m256 factor = _mm256_set1_ps(1.0F / sqrtf(row_variance(x, l->k, mean, &rest) + l->eps));
    __m256 lacks = _mm256_set1_ps(rest);
    size_t i = 0;
    for (; i + 8 <= l->k; i += 8) {
        __m256 v = _mm256_sub_ps(_mm256_sub_ps(_mm256_loadu_ps(x + i), mean), lacks);
        v = _mm256_mul_ps(v, factor);
        v = _mm256_fmadd_ps(v, _mm256_loadu_ps(l->gamma + i), _mm256_loadu_ps(l->beta + i));
        _mm256_storeu_ps(y + i, v);
    }
    if (i < l->k) {
        size_t left = l->k - i;
        __m256 v = _mm256_sub_ps(_mm256_sub_ps(vector_load_part(x + i, left), mean), lacks);
        v = _mm256_mul_ps(v, factor);
        v = _mm256_fmadd_ps(
            v, vector_load_part(l->gamma + i, left), vector_load_part(l->beta + i, left));
        _mm256_maskstore_ps(y + i, vector_mask(left), v);
    }
}

static void layernorm_piece(void *self, size_t index, unsigned worker)
{
    const struct layernorm *l = self;
    (void)worker;
    for (size_t i = 0, row = index * l->piece_rows; i < l->piece_rows && row < l->t; i++, row++) {
        layernorm_row(l, l->x + row * l->k, l->y + row * l->k);
    }
}

void kern_cpu_layernorm(struct kern_ctx *ctx, const float *x, const float *gamma, const float *beta,
    float eps, float *y, size_t t, size_t k)
{
    struct layernorm l = {x, gamma, beta, y, eps, t, k, PIECE_NUMBERS / k + 1};
    kern_pool_run(ctx->pool, (t + l.piece_rows - 1) / l.piece_rows, layernorm_piece, &l);
}
