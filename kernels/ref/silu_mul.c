#include "kernels/ref/ops.h"

#include <math.h>

void kern_ref_silu_mul(struct kern_ctx *ctx, const struct kern_silu_mul *a)
{
    size_t x_bytes = kern_dtype_bytes(a->x_dtype), y_bytes = kern_dtype_bytes(a->y_dtype);
    (void)ctx;
    for (size_t i = 0; i < a->t * a->inner; i++) {
        size_t row = i / a->inner, k = i % a->inner;
        const char *at = (const char *)a->gate_up + (row * 2 * a->inner + k) * x_bytes;
        float gate, up;
        kern_ref_to_f32(a->x_dtype, at, &gate, 1);
        kern_ref_to_f32(a->x_dtype, at + a->inner * x_bytes, &up, 1);
        float y = (float)((double)gate / (1 + exp(-(double)gate)) * (double)up);
        kern_ref_from_f32(a->y_dtype, &y, (char *)a->y + i * y_bytes, 1);
    }
}
