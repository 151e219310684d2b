#include "kernels/ref/ops.h"

/* An empty sequence has no mean: zeros. */
void kern_ref_pool_mean(struct kern_ctx *ctx, const float *x, const uint32_t *starts,
    size_t sequences, float *out, size_t k)
{
    (void)ctx;
    for (size_t b = 0; b < sequences; b++) {
        size_t count = starts[b + 1] - starts[b];
        for (size_t i = 0; i < k; i++) {
            double sum = 0;
            for (size_t row = starts[b]; row < starts[b + 1]; row++) {
                sum += (double)x[row * k + i];
            }
            out[b * k + i] = count > 0 ? (float)(sum / (double)count) : 0;
        }
    }
}
