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

/* A decoder's: kernels/decoder.h. */
void kern_cpu_gather(struct kern_ctx *ctx, const struct kern_gather *a);
void kern_cpu_rmsnorm(struct kern_ctx *ctx, const struct kern_rmsnorm *a);
void kern_cpu_silu_mul(struct kern_ctx *ctx, const struct kern_silu_mul *a);
void kern_cpu_rotate(struct kern_ctx *ctx, const struct kern_rotate *a);
void kern_cpu_kv_write(struct kern_ctx *ctx, const struct kern_kv_write *a);
void kern_cpu_kv_read(struct kern_ctx *ctx, const struct kern_kv_read *a);
void kern_cpu_kv_shift(struct kern_ctx *ctx, const struct kern_kv_shift *a);
size_t kern_cpu_attention_workspace_bytes(const struct kern_ctx *ctx, size_t t, size_t sequences,
    size_t heads, size_t kv_heads, size_t head_dim, size_t length_max);
void kern_cpu_attention(struct kern_ctx *ctx, const struct kern_attention *a);
size_t kern_cpu_sample_workspace_bytes(const struct kern_ctx *ctx, size_t rows, size_t vocab);
void kern_cpu_sample(struct kern_ctx *ctx, const struct kern_sample *a);
void kern_cpu_logprobs(struct kern_ctx *ctx, const float *logits, const uint32_t *ids, size_t rows,
    size_t vocab, float *out);

/* ---- the inner loops of attention ---------------------------------------------------------- */

/* Keys are looked at in chunks of so many, which begin at multiples of it in the sequence. */
#define KERN_CHUNK 256
#define KERN_CHUNK_PAGES (KERN_CHUNK / KERN_PAGE_TOKENS)
/* From row to row of scores, in floats: a whole line more than a chunk, so that rows do not fall
 * into the same few sets of the cache. */
#define KERN_SCORES (KERN_CHUNK + 16)

/* scores (rows, count) = queries (rows, d) . keys (count, d)^T. Keys up to the next multiple of 4
 * are read, and scores of them written. */
struct kern_dots {
    const float *queries, *keys;
    float *scores; /* KERN_SCORES apart */
    size_t rows, count, d;
    const char *ahead;  /* memory that is needed soon, ... */
    size_t ahead_bytes; /* so much of it for each key; 0: none */
};

/* out (rows, d) += weights (rows, count) . values (count, d), which lie in pages. */
struct kern_mix {
    const float *weights; /* KERN_SCORES apart */
    const float *const *pages;
    size_t pages_count;
    float *out;
    size_t rows, count, d;
    const char *ahead; /* as above: a line of ahead_line bytes for each value and 16 columns */
    size_t ahead_line;
};

/* What these compute for a row does not depend on the other rows, nor on where calls are cut. */
struct kern_attention_tiles {
    /* count (a multiple of 8) codes of F16, BF16 or E4M3 (whose numbers come out over 256). */
    void (*decode)(enum kern_dtype dtype, const char *from, float *to, size_t count);
    void (*dots)(const struct kern_dots *a);
    void (*mix)(const struct kern_mix *a);
};

extern const struct kern_attention_tiles kern_cpu_attention_avx2;

extern const struct kern_tiles kern_cpu_f32_avx2, kern_cpu_bf16_avx2, kern_cpu_i8_avx2;
extern const struct kern_tiles kern_cpu_q8_0_avx2, kern_cpu_q4_0_avx2, kern_cpu_q4_k_avx2,
    kern_cpu_q6_k_avx2;
extern const struct kern_tiles kern_cpu_f32_avx512, kern_cpu_bf16_avx512, kern_cpu_i8_avx512;
extern const struct kern_tiles kern_cpu_q8_0_avx512, kern_cpu_q4_0_avx512, kern_cpu_q4_k_avx512,
    kern_cpu_q6_k_avx512;
extern const struct kern_tiles kern_cpu_bf16_amx, kern_cpu_i8_amx;
extern const struct kern_tiles kern_cpu_q8_0_amx, kern_cpu_q4_0_amx, kern_cpu_q4_k_amx;

#endif
