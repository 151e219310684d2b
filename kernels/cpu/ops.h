/* The operations of the cpu backend. What is not here is ref's.
 *
 * Files are compiled for what they use: those called *_avx512.c for AVX-512, *_amx.c for AMX,
 * table.c for any x86-64, all others for AVX2 with FMA and F16C. Nothing of a file may run before
 * level.c has seen that the processor has it. */
#ifndef KERNELS_CPU_OPS_H
#define KERNELS_CPU_OPS_H

#include "kernels/ops.h"

/* The levels, weakest first. At SSE2 cpu is ref under another name. */
enum kern_level { KERN_SSE2, KERN_AVX2, KERN_AVX512, KERN_AMX };

/* The table of a level, from what this processor has: an AVX-512 processor without VNNI multiplies
 * int8 as AVX2 does. NULL when it does not have the level. */
const struct kern_ops *kern_cpu_ops(enum kern_level level);

size_t kern_cpu_linear_workspace_bytes(const struct kern_matrix *w, size_t t);
void kern_cpu_linear(struct kern_ctx *ctx, const struct kern_linear *a);
void kern_cpu_pack(struct kern_matrix *w, const struct kern_strip *strip);
size_t kern_cpu_encode_attention_workspace_bytes(
    const struct kern_ctx *ctx, size_t longest, size_t head_dim);
void kern_cpu_encode_attention(struct kern_ctx *ctx, const struct kern_encode_attention *a);
void kern_cpu_layernorm(struct kern_ctx *ctx, const float *x, const float *gamma, const float *beta,
    float eps, float *y, size_t t, size_t k);
void kern_cpu_embed(struct kern_ctx *ctx, const float *const *tables, const uint32_t *const *ids,
    size_t tables_count, float *y, size_t t, size_t k);
void kern_cpu_pool_mean(struct kern_ctx *ctx, const float *x, const uint32_t *starts,
    size_t sequences, float *out, size_t k);
void kern_cpu_normalize(struct kern_ctx *ctx, float *x, size_t rows, size_t k);
void kern_cpu_scan(enum kern_dtype dtype, const void *codes, const float *scales,
    const uint32_t *rows_index, size_t count, size_t k, const float *query, float *scores);
void kern_cpu_scan_avx512(enum kern_dtype dtype, const void *codes, const float *scales,
    const uint32_t *rows_index, size_t count, size_t k, const float *query, float *scores);
void kern_cpu_from_f32(enum kern_dtype to, const float *from, void *out, size_t count);
void kern_cpu_to_f32(enum kern_dtype from, const void *data, float *out, size_t count);

extern const struct kern_tiles kern_cpu_f32_avx2, kern_cpu_bf16_avx2, kern_cpu_i8_avx2;
extern const struct kern_tiles kern_cpu_q8_0_avx2, kern_cpu_q4_0_avx2, kern_cpu_q4_k_avx2,
    kern_cpu_q6_k_avx2;
extern const struct kern_tiles kern_cpu_f32_avx512, kern_cpu_bf16_avx512, kern_cpu_i8_avx512;
extern const struct kern_tiles kern_cpu_q8_0_avx512, kern_cpu_q4_0_avx512, kern_cpu_q4_k_avx512,
    kern_cpu_q6_k_avx512;
extern const struct kern_tiles kern_cpu_bf16_amx, kern_cpu_i8_amx;

#endif
