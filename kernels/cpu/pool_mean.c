#include "kernels/cpu/ops.h"
#include "kernels/cpu/vector.h"

#include <string.h>

struct pool_mean {
    const float *x;
    const uint32_t *starts;
    float *out;
    size_t k;
};

/* Columns i.. of eight are summed over all rows, then the next eight: no sum leaves its register.
 */
static void pool_piece(void *self, size_t b, unsigned worker)
{
    const struct pool_mean *p = self;
    size_t first = p->starts[b], count = p->starts[b + 1] - first, k = p->k;
    const float *x = p->x + first * k;
    float *out = p->out + b * k;
    (void)worker;
    if (count == 0) {
        memset(out, 0, k * sizeof *out);
        return;
    }
    const __m256 part = _mm256_set1_ps(1.0F / (float)count);
    for (size_t i = 0; i < k; i += 8) {
        __m256 sum = _mm256_setzero_ps();
        if (k - i >= 8) {
            for (size_t row = 0; row < count; row++) {
                sum = _mm256_add_ps(sum, _mm256_loadu_ps(x + row * k + i));
            }
            _mm256_storeu_ps(out + i, _mm256_mul_ps(sum, part));
        } else {
            for (size_t row = 0; row < count; row++) {
                sum = _mm256_add_ps(sum, vector_load_part(x + row * k + i, k - i));
            }
            _mm256_maskstore_ps(out + i, vector_mask(k - i), _mm256_mul_ps(sum, part));
        }
    }
}

void kern_cpu_pool_mean(struct kern_ctx *ctx, const float *x, const uint32_t *starts,
    size_t sequences, float *out, size_t k)
{
    struct pool_mean p = {x, starts, out, k};
    kern_pool_run(ctx->pool, sequences, pool_piece, &p);
}
