/* A piece is some rows. The squares of a row are added in sixteen sums, and those to a double every
 * 512 numbers, so that a long row is as good as a short one. */
#include "kernels/cpu/ops.h"
#include "kernels/cpu/vector.h"

#include <math.h>

#define PIECE_NUMBERS 8192
#define RUN 512

struct rmsnorm {
    const struct kern_rmsnorm *a;
    size_t piece_rows, count;
};

static __m256 load(const float *x, size_t left)
{
    return left >= 8 ? _mm256_loadu_ps(x) : vector_load_part(x, left);
}

static double squares_of(const float *x, size_t k)
{
    double squares = 0;
    for (size_t first = 0; first < k; first += RUN) {
        size_t end = k - first < RUN ? k : first + RUN;
        __m256 even = _mm256_setzero_ps(), odd = _mm256_setzero_ps();
        for (size_t i = first; i < end; i += 16) {
            __m256 v = load(x + i, k - i);
            even = _mm256_fmadd_ps(v, v, even);
            if (i + 8 < end) {
                v = load(x + i + 8, k - i - 8);
                odd = _mm256_fmadd_ps(v, v, odd);
            }
        }
        squares += (double)vector_sum(_mm256_add_ps(even, odd));
    }
    return squares;
}

/* Squares of numbers near the ends of float32 leave it: such a row is measured in double. */
static double careful_squares_of(const float *x, size_t k)
{
    double squares = 0;
    for (size_t i = 0; i < k; i++) {
        squares += (double)x[i] * (double)x[i];
    }
    return squares;
}

static void store(enum kern_dtype dtype, void *y, size_t at, size_t left, __m256 v)
{
    if (dtype == KERN_BF16) {
        vector_store_bf16((uint16_t *)y + at, left, v);
    } else if (left >= 8) {
        _mm256_storeu_ps((float *)y + at, v);
    } else {
        _mm256_maskstore_ps((float *)y + at, vector_mask(left), v);
    }
}

static void norm_row(const struct kern_rmsnorm *a, const float *x, size_t y_at)
{
    double squares = squares_of(x, a->k);
    if (!(squares > 1e-25 && squares < 1e37)) {
        squares = careful_squares_of(x, a->k);
    }
    __m256 factor = _mm256_set1_ps((float)(1 / sqrt(squares / (double)a->k + (double)a->eps)));
    for (size_t k = 0; k < a->k; k += 8) {
        size_t left = a->k - k;
        __m256 v = _mm256_mul_ps(load(x + k, left), factor);
        store(a->y_dtype, a->y, y_at + k, left, _mm256_mul_ps(v, load(a->gamma + k, left)));
    }
}

static void rmsnorm_piece(void *self, size_t index, unsigned worker)
{
    const struct rmsnorm *norm = self;
    const struct kern_rmsnorm *a = norm->a;
    size_t i = index * norm->piece_rows;
    (void)worker;
    for (size_t n = 0; n < norm->piece_rows && i < norm->count; n++, i++) {
        size_t row = i / a->heads, at = i % a->heads * a->k;
        norm_row(a, a->x + row * a->x_stride + at, row * a->y_stride + at);
    }
}

void kern_cpu_rmsnorm(struct kern_ctx *ctx, const struct kern_rmsnorm *a)
{
    struct rmsnorm norm = {a, PIECE_NUMBERS / a->k + 1, a->rows * a->heads};
    kern_pool_run(
        ctx->pool, (norm.count + norm.piece_rows - 1) / norm.piece_rows, rmsnorm_piece, &norm);
}
