#include "kernels/ref/ops.h"

#include <math.h>

void kern_ref_rmsnorm(struct kern_ctx *ctx, const struct kern_rmsnorm *a)
{
    size_t bytes = kern_dtype_bytes(a->y_dtype);
    (void)ctx;
    for (size_t i = 0; i < a->rows * a->heads; i++) {
        size_t row = i / a->heads, head = i % a->heads;
        const float *x = a->x + row * a->x_stride + head * a->k;
        char *y = (char *)a->y + (row * a->y_stride + head * a->k) * bytes;
        double squares = 0;
        for (size_t k = 0; k < a->k; k++) {
            squares += (double)x[k] * (double)x[k];
        }
        double factor = 1 / sqrt(squares / (double)a->k + (double)a->eps);
        for (size_t k = 0; k < a->k; k++) {
            float normed = (float)((double)x[k] * factor * (double)a->gamma[k]);
            kern_ref_from_f32(a->y_dtype, &normed, y + k * bytes, 1);
        }
    }
}
