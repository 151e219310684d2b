#include "kernels/ref/ops.h"

#include <math.h>

void kern_ref_normalize(struct kern_ctx *ctx, float *x, size_t rows, size_t k)
{
    (void)ctx;
    for (size_t row = 0; row < rows; row++, x += k) {
        double sum = 0;
        for (size_t i = 0; i < k; i++) {
            sum += (double)x[i] * (double)x[i];
        }
        double factor = sum > 0 ? 1 / sqrt(sum) : 0;
        for (size_t i = 0; i < k; i++) {
            x[i] = (float)((double)x[i] * factor);
        }
    }
}
