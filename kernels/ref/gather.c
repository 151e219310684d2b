#include "kernels/ref/ops.h"

void kern_ref_gather(struct kern_ctx *ctx, const struct kern_gather *a)
{
    size_t row_bytes = kern_dtype_row_bytes(a->dtype, a->k);
    for (size_t t = 0; t < a->t; t++) {
        ctx->ops->to_f32(
            a->dtype, (const char *)a->table + a->ids[t] * row_bytes, a->y + t * a->k, a->k);
    }
}
