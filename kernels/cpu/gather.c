/* A piece is some rows. */
#include "kernels/cpu/ops.h"

#define PIECE_NUMBERS 16384

struct gather {
    const struct kern_ops *ops;
    const struct kern_gather *a;
    size_t row_bytes, piece_rows;
};

static void gather_piece(void *self, size_t index, unsigned worker)
{
    const struct gather *gather = self;
    const struct kern_gather *a = gather->a;
    size_t t = index * gather->piece_rows;
    (void)worker;
    for (size_t i = 0; i < gather->piece_rows && t < a->t; i++, t++) {
        const char *row = (const char *)a->table + a->ids[t] * gather->row_bytes;
        gather->ops->to_f32(a->dtype, row, a->y + t * a->k, a->k);
    }
}

void kern_cpu_gather(struct kern_ctx *ctx, const struct kern_gather *a)
{
    struct gather gather = {
        ctx->ops, a, kern_dtype_row_bytes(a->dtype, a->k), PIECE_NUMBERS / a->k + 1};
    kern_pool_run(
        ctx->pool, (a->t + gather.piece_rows - 1) / gather.piece_rows, gather_piece, &gather);
}
