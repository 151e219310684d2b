#include "kernels/cpu/ops.h"
#include "kernels/cpu/vector.h"

#include <math.h>

/* Squares are summed as doubles, so that no row is too long or too short to be measured. */
static double row_squares(const float *x, size_t k)
{
    __m256d low = _mm256_setzero_pd(), high = low;
    double sums[4], sum = 0;
    size_t i = 0;
    for (; i + 8 <= k; i += 8) {
        __m256d a = _mm256_cvtps_pd(_mm_loadu_ps(x + i));
        __m256d b = _mm256_cvtps_pd(_mm_loadu_ps(x + i + 4));
        low = _mm256_fmadd_pd(a, a, low);
        high = _mm256_fmadd_pd(b, b, high);
    }
    for (; i < k; i++) {
        sum += (double)x[i] * (double)x[i];
    }
    _mm256_storeu_pd(sums, _mm256_add_pd(low, high));
    return sum + sums[0] + sums[1] + sums[2] + sums[3];
}

void kern_cpu_normalize(struct kern_ctx *ctx, float *x, size_t rows, size_t k)
{
    (void)ctx;
    for (size_t row = 0; row < rows; row++, x += k) {
        double sum = row_squares(x, k);
        double factor = sum > 0 ? 1 / sqrt(sum) : 0;
        for (size_t i = 0; i < k; i++) {
            x[i] = (float)((double)x[i] * factor);
        }
    }
}
