/* The operations of the ref backend: what each one means. See kern.h. */
#ifndef KERNELS_REF_OPS_H
#define KERNELS_REF_OPS_H

#include "kernels/ops.h"

size_t kern_ref_linear_workspace_bytes(const struct kern_matrix *w, size_t t);
void kern_ref_linear(struct kern_ctx *ctx, const struct kern_linear *a);
void kern_ref_pack(struct kern_matrix *w, const struct kern_strip *strip);
size_t kern_ref_encode_attention_workspace_bytes(
    const struct kern_ctx *ctx, size_t longest, size_t head_dim);
void kern_ref_encode_attention(struct kern_ctx *ctx, const struct kern_encode_attention *a);
void kern_ref_layernorm(struct kern_ctx *ctx, const float *x, const float *gamma, const float *beta,
    float eps, float *y, size_t t, size_t k);
void kern_ref_embed(struct kern_ctx *ctx, const float *const *tables, const uint32_t *const *ids,
    size_t tables_count, float *y, size_t t, size_t k);
void kern_ref_pool_mean(struct kern_ctx *ctx, const float *x, const uint32_t *starts,
    size_t sequences, float *out, size_t k);
void kern_ref_normalize(struct kern_ctx *ctx, float *x, size_t rows, size_t k);
void kern_ref_scan(enum kern_dtype dtype, const void *codes, const float *scales,
    const uint32_t *rows_index, size_t count, size_t k, const float *query, float *scores);
void kern_ref_from_f32(enum kern_dtype to, const float *from, void *out, size_t count);
void kern_ref_to_f32(enum kern_dtype from, const void *data, float *out, size_t count);

/* A decoder's: kernels/decoder.h. */
void kern_ref_gather(struct kern_ctx *ctx, const struct kern_gather *a);
void kern_ref_rmsnorm(struct kern_ctx *ctx, const struct kern_rmsnorm *a);
void kern_ref_silu_mul(struct kern_ctx *ctx, const struct kern_silu_mul *a);
void kern_ref_rotate(struct kern_ctx *ctx, const struct kern_rotate *a);
void kern_ref_kv_write(struct kern_ctx *ctx, const struct kern_kv_write *a);
void kern_ref_kv_read(struct kern_ctx *ctx, const struct kern_kv_read *a);
void kern_ref_kv_shift(struct kern_ctx *ctx, const struct kern_kv_shift *a);
size_t kern_ref_attention_workspace_bytes(const struct kern_ctx *ctx, size_t t, size_t sequences,
    size_t heads, size_t kv_heads, size_t head_dim, size_t length_max);
void kern_ref_attention(struct kern_ctx *ctx, const struct kern_attention *a);
size_t kern_ref_sample_workspace_bytes(const struct kern_ctx *ctx, size_t rows, size_t vocab);
void kern_ref_sample(struct kern_ctx *ctx, const struct kern_sample *a);
void kern_ref_logprobs(struct kern_ctx *ctx, const float *logits, const uint32_t *ids, size_t rows,
    size_t vocab, float *out);
size_t kern_ref_side_ffn_workspace_bytes(const struct kern_ctx *ctx, const struct kern_side_ffn *a);
void kern_ref_side_ffn(struct kern_ctx *ctx, const struct kern_side_ffn *a);

/* What of them the cpu backend uses, too: one head (rotary numbers) by a position, by a difference
 * of positions; step 1 of a row. */
void kern_ref_rotate_head(const struct kern_rope *rope, size_t position, float *x);
void kern_ref_shift_head(const struct kern_rope *rope, int32_t shift, float *x);
void kern_ref_adjust(const struct kern_sample *a, size_t row);

#endif
