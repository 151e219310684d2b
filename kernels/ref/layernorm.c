#include "kernels/ref/ops.h"

#include <math.h>

void kern_ref_layernorm(struct kern_ctx *ctx, const float *x, const float *gamma, const float *beta,
    float eps, float *y, size_t t, size_t k)
{
    (void)ctx;
    for (size_t row = 0; row < t; row++, x += k, y += k) {
        double mean = 0, variance = 0;
        for (size_t i = 0; i < k; i++) {
            mean += (double)x[i];
        }
        mean /= (double)k;
        for (size_t i = 0; i < k; i++) {
            variance += ((double)x[i] - mean) * ((double)x[i] - mean);
        }
        double factor = 1 / sqrt(variance / (double)k + (double)eps);
        for (size_t i = 0; i < k; i++) {
            y[i] = (float)(((double)x[i] - mean) * factor * (double)gamma[i] + (double)beta[i]);
        }
    }
}
