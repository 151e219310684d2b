/* The operations of the cuda backend: each is a file of its name (NAME.cu) and does what kern.h and
 * decoder.h say, in device memory, queued on the context's stream. */
#ifndef KERNELS_CUDA_OPS_H
#define KERNELS_CUDA_OPS_H

#include "kernels/ops.h"

/* The table; NULL when this was built without CUDA (none.c). */
const struct kern_ops *kern_cuda_ops(void);

extern const struct kern_device kern_cuda_device;

size_t kern_cuda_linear_workspace_bytes(const struct kern_matrix *w, size_t t);
void kern_cuda_linear(struct kern_ctx *ctx, const struct kern_linear *a);
enum memos_status kern_cuda_matrix_pack(struct kern_ctx *ctx, enum kern_dtype to,
    const struct kern_part *parts, size_t parts_count, size_t k, struct kern_matrix **out,
    struct memos_error *err);
void kern_cuda_matrix_free(struct kern_matrix *matrix);
enum kern_dtype kern_cuda_between_dtype(const struct kern_ctx *ctx, enum kern_dtype weights);

void kern_cuda_gather(struct kern_ctx *ctx, const struct kern_gather *a);
void kern_cuda_rmsnorm(struct kern_ctx *ctx, const struct kern_rmsnorm *a);
void kern_cuda_silu_mul(struct kern_ctx *ctx, const struct kern_silu_mul *a);
void kern_cuda_rotate(struct kern_ctx *ctx, const struct kern_rotate *a);
void kern_cuda_kv_write(struct kern_ctx *ctx, const struct kern_kv_write *a);
void kern_cuda_kv_read(struct kern_ctx *ctx, const struct kern_kv_read *a);
void kern_cuda_kv_shift(struct kern_ctx *ctx, const struct kern_kv_shift *a);
size_t kern_cuda_attention_workspace_bytes(const struct kern_ctx *ctx, size_t t, size_t sequences,
    size_t heads, size_t kv_heads, size_t head_dim, size_t length_max);
void kern_cuda_attention(struct kern_ctx *ctx, const struct kern_attention *a);
size_t kern_cuda_sample_workspace_bytes(const struct kern_ctx *ctx, size_t rows, size_t vocab);
void kern_cuda_sample(struct kern_ctx *ctx, const struct kern_sample *a);
void kern_cuda_logprobs(struct kern_ctx *ctx, const float *logits, const uint32_t *ids, size_t rows,
    size_t vocab, float *out);
size_t kern_cuda_side_ffn_workspace_bytes(
    const struct kern_ctx *ctx, const struct kern_side_ffn *a);
void kern_cuda_side_ffn(struct kern_ctx *ctx, const struct kern_side_ffn *a);

#endif
