/* Attention over the paged cache: which kernels take a step. */
#include "kernels/cuda/attention.cuh"

size_t kern_cuda_attention_workspace_bytes(const struct kern_ctx *ctx, size_t t, size_t sequences,
    size_t heads, size_t kv_heads, size_t head_dim, size_t length_max)
{
    (void)ctx;
    (void)t;
    (void)sequences;
    (void)heads;
    (void)kv_heads;
    (void)head_dim;
    (void)length_max;
    return 0;
}

void kern_cuda_attention(struct kern_ctx *ctx, const struct kern_attention *a)
{
    attention_view v = {kv_view_of(a->kv), a->query, a->starts, a->lengths, a->tables, a->out,
        a->query_stride, a->tables_stride, a->window, (unsigned)a->t, (unsigned)a->sequences,
        (unsigned)a->heads, (unsigned)a->rows_max, (unsigned)a->length_max, a->scale,
        a->out_dtype == KERN_BF16, (float *)a->workspace};
    if (a->t == 0 || a->sequences == 0) {
        return;
    }
    kern_cuda_attention_plain(ctx, a->kv->dtype, v);
}
