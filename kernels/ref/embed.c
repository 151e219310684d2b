#include "kernels/ref/ops.h"

void kern_ref_embed(struct kern_ctx *ctx, const float *const *tables, const uint32_t *const *ids,
    size_t tables_count, float *y, size_t t, size_t k)
{
    (void)ctx;
    for (size_t row = 0; row < t; row++) {
        for (size_t i = 0; i < k; i++) {
            double sum = 0;
            for (size_t table = 0; table < tables_count; table++) {
                sum += (double)tables[table][ids[table][row] * k + i];
            }
            y[row * k + i] = (float)sum;
        }
    }
}
