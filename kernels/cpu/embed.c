#include "kernels/cpu/ops.h"
#include "kernels/cpu/vector.h"

#include <string.h>

#define PIECE_NUMBERS 16384

struct embed {
    const float *const *tables;
    const uint32_t *const *ids;
    size_t tables_count;
    float *y;
    size_t t, k, piece_rows;
};

static void add(float *y, const float *x, size_t k)
{
    size_t i = 0;
    for (; i + 8 <= k; i += 8) {
        _mm256_storeu_ps(y + i, _mm256_add_ps(_mm256_loadu_ps(y + i), _mm256_loadu_ps(x + i)));
    }
    for (; i < k; i++) {
        y[i] += x[i];
    }
}

static void embed_piece(void *self, size_t index, unsigned worker)
{
    const struct embed *e = self;
    (void)worker;
    for (size_t i = 0, row = index * e->piece_rows; i < e->piece_rows && row < e->t; i++, row++) {
        float *y = e->y + row * e->k;
        memset(y, 0, e->k * sizeof *y);
        for (size_t table = 0; table < e->tables_count; table++) {
            add(y, e->tables[table] + e->ids[table][row] * e->k, e->k);
        }
    }
}

void kern_cpu_embed(struct kern_ctx *ctx, const float *const *tables, const uint32_t *const *ids,
    size_t tables_count, float *y, size_t t, size_t k)
{
    struct embed e = {tables, ids, tables_count, y, t, k, PIECE_NUMBERS / k + 1};
    kern_pool_run(ctx->pool, (t + e.piece_rows - 1) / e.piece_rows, embed_piece, &e);
}
