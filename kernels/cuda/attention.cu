/* Attention over the paged cache: which kernels take a step. */
#include "kernels/cuda/attention.cuh"

size_t kern_cuda_attention_workspace_bytes(const struct kern_ctx *ctx, size_t t, size_t sequences,
    size_t heads, size_t kv_heads, size_t head_dim, size_t length_max)
{
    size_t shares = kern_cuda_attention_share_bytes(ctx, t, heads, head_dim);
    size_t pieces =
        sequences * kern_cuda_attention_pieces(length_max) * heads * (head_dim + 2) * sizeof(float);
    (void)kv_heads;
    return shares > pieces ? shares : pieces;
}

void kern_cuda_attention(struct kern_ctx *ctx, const struct kern_attention *a)
{
    attention_view v = {kv_view_of(a->kv), a->query, a->starts, a->lengths, a->tables, a->out,
        a->query_stride, a->tables_stride, a->window, (unsigned)a->t, (unsigned)a->sequences,
        (unsigned)a->heads, (unsigned)a->rows_max, (unsigned)a->length_max, a->scale,
        a->out_dtype == KERN_BF16, a->query_stride % 4 == 0 && lies_wide(a->query, 16),
        (unsigned)kern_cuda_attention_pieces(a->length_max), (float *)a->workspace};
    size_t group = a->heads / a->kv->heads;
    if (a->t == 0 || a->sequences == 0 || a->rows_max == 0) {
        return;
    }
    if (a->rows_max == 1 && kern_cuda_attention_decodes(a->kv->dtype, a->kv->head_dim, group)) {
        kern_cuda_attention_decode(ctx, a->kv->dtype, v);
    } else if (kern_cuda_attention_prefills(a->kv->dtype, a->kv->head_dim)) {
        kern_cuda_attention_prefill(ctx, a->kv->dtype, v);
    } else {
        kern_cuda_attention_plain(ctx, a->kv->dtype, v);
    }
}
