/* Tensor operations, on the best that this processor has.
 *
 * Letters: T tokens (rows), N outputs, K inputs, H heads, D head_dim, B sequences, V vocabulary,
 * R rows of a table of vectors. Matrices are row-major; a shape (T, K) lies with K next to itself.
 *
 * Each operation is a slot of `struct kern_ops`; there is one table per backend: `ref` (scalar C,
 * double accumulation: the definition), `cpu` (AVX2, AVX-512, AMX, chosen by what the processor
 * has). Callers use the kern_* functions, which check their arguments once and then call the table;
 * a slot that is NULL means ref's.
 *
 * Nothing here allocates while it computes: what needs room says how much
 * (kern_x_workspace_bytes) and is given it.
 *
 * Threads: a kern_ctx belongs to one thread at a time; it owns a fixed pool of its own that works
 * inside a call only. Packed matrices are read-only and may be shared.
 *
 * Errors: our own mistakes (wrong shapes, a workspace too small) are asserted; UNSUPPORTED and
 * NO_MEMORY come from create and pack. */
#ifndef KERNELS_KERN_H
#define KERNELS_KERN_H

#include "proto/bytes.h"

enum kern_dtype {
    KERN_F32 = 1,
    KERN_F16,
    KERN_BF16,
    KERN_E4M3, /* float8 e4m3fn: no infinities, largest 448 */
    KERN_E5M2, /* float8 e5m2 */
    KERN_I8,
};

/* Bytes of one element; the name as it is written in files and options ("f32", "bf16" ...). */
size_t kern_dtype_bytes(enum kern_dtype dtype);
const char *kern_dtype_name(enum kern_dtype dtype); /* static */
/* 0: no such name. */
enum kern_dtype kern_dtype_of(struct memos_bytes name);

/* ---- the context --------------------------------------------------------------------------- */

struct kern_ctx;

struct kern_options {
    const char *backend; /* "ref", "cpu"; NULL: the best */
    const char *level;   /* cpu: at most "sse2", "avx2", "avx512", "amx"; NULL: the best */
    unsigned threads;    /* that compute, the caller's among them. 0: one a processor, at most 16 */
};

MEMOS_MUST_USE enum memos_status kern_ctx_create(
    const struct kern_options *options, struct kern_ctx **out_ctx, struct memos_error *err);
void kern_ctx_destroy(struct kern_ctx **ctx); /* takes NULL */

/* "cpu/avx2, 2 threads": for logs and tables. Lives as long as ctx. */
const char *kern_ctx_name(const struct kern_ctx *ctx);
unsigned kern_ctx_threads(const struct kern_ctx *ctx);

/* Run fn(self, i) for i in 0..count-1 on the pool; returns when all are done. fn must not call
 * kern_* with the same ctx. */
void kern_parallel(
    struct kern_ctx *ctx, size_t count, void (*fn)(void *self, size_t index), void *self);

/* ---- conversion ---------------------------------------------------------------------------- */

/* out[i] = from[i] in dtype `to` (not I8), rounded to nearest even; what is too large, infinity
 * included, becomes the largest finite value of e4m3 and e5m2, infinity of f16 and bf16. NaN stays
 * NaN. data and out may be misaligned for what they hold where they are void. */
void kern_from_f32(enum kern_dtype to, const float *from, void *out, size_t count);
void kern_to_f32(enum kern_dtype from, const void *data, float *out, size_t count);

/* ---- linear -------------------------------------------------------------------------------- */

/* A weight matrix (N, K) laid out for this context's products. */
struct kern_matrix;

/* Pack `data` (N, K) of `from` (F32, F16 or BF16) as `to`: F32, BF16, or I8 (a scale per row of N:
 * the largest magnitude over 127; K at most 65,536). N and K are not 0. Copies. A matrix is
 * multiplied as the context that packed it multiplies, also on another. NO_MEMORY; UNSUPPORTED. */
MEMOS_MUST_USE enum memos_status kern_matrix_pack(struct kern_ctx *ctx, enum kern_dtype to,
    enum kern_dtype from, const void *data, size_t n, size_t k, struct kern_matrix **out,
    struct memos_error *err);
void kern_matrix_free(struct kern_matrix **matrix); /* takes NULL */
size_t kern_matrix_bytes(const struct kern_matrix *matrix);

enum kern_activation {
    KERN_NONE,
    KERN_GELU,      /* x/2 (1 + erf(x / sqrt 2)) */
    KERN_GELU_TANH, /* the tanh approximation */
    KERN_RELU,
    KERN_SILU,
};

/* y (T, N) = act(x (T, K) . w^T + bias) [+ residual]. x and y float32; bias (N) or NULL; residual
 * (T, N) or NULL, may be y itself. BF16 weights: x is rounded to bf16, sums are float32. I8
 * weights: each row of x is quantized to int8 with its own scale, sums are int32.
 * Work: 2 T N K flop. y must not overlap x. */
struct kern_linear {
    const float *x;
    const struct kern_matrix *w;
    const float *bias;
    const float *residual;
    float *y;
    size_t t;
    enum kern_activation act;
    void *workspace; /* kern_linear_workspace_bytes(ctx, w, t), 64-byte aligned; NULL when 0 */
};
size_t kern_linear_workspace_bytes(
    const struct kern_ctx *ctx, const struct kern_matrix *w, size_t t);
void kern_linear(struct kern_ctx *ctx, const struct kern_linear *a);

/* ---- the rest of an encoder ---------------------------------------------------------------- */

/* y (T, K) = (x - mean) / sqrt(var + eps) * gamma + beta, by rows; y may be x. */
void kern_layernorm(struct kern_ctx *ctx, const float *x, const float *gamma, const float *beta,
    float eps, float *y, size_t t, size_t k);

/* y (T, K) = sum over tables i of tables[i][ids[i][t]] (rows of K float32); ids were checked. */
void kern_embed(struct kern_ctx *ctx, const float *const *tables, const uint32_t *const *ids,
    size_t tables_count, float *y, size_t t, size_t k);

/* Attention of every token to all tokens of its own sequence, padding-free. qkv (T, 3 H D): query,
 * key, value beside each other; starts (B + 1): sequence b is rows starts[b] .. starts[b+1]-1;
 * out (T, H D). softmax(q k^T scale) v. */
struct kern_encode_attention {
    const float *qkv;
    const uint32_t *starts;
    size_t sequences;
    size_t heads, head_dim;
    float scale;
    float *out;
    void *workspace; /* kern_encode_attention_workspace_bytes(ctx, longest sequence, head_dim) */
};
size_t kern_encode_attention_workspace_bytes(
    const struct kern_ctx *ctx, size_t longest, size_t head_dim);
void kern_encode_attention(struct kern_ctx *ctx, const struct kern_encode_attention *a);

/* out (B, K): the mean of each sequence's rows, or its first row (cls); zeros for no rows. */
void kern_pool_mean(struct kern_ctx *ctx, const float *x, const uint32_t *starts, size_t sequences,
    float *out, size_t k);
void kern_pool_cls(struct kern_ctx *ctx, const float *x, const uint32_t *starts, size_t sequences,
    float *out, size_t k);

/* Each row to length 1; a row of zeros stays. */
void kern_normalize(struct kern_ctx *ctx, float *x, size_t rows, size_t k);

/* ---- vectors ------------------------------------------------------------------------------- */

/* scores[i] = scales[i] * (query . codes[i]) for rows i of a table (R, K) of codes of any dtype;
 * scales NULL: all one. Threads: single-threaded, any thread, no ctx. What it computes for a row
 * does not depend on the other rows, to the bit. A NaN of e4m3 counts as 480 with its sign, so that
 * every table of it has an order. Bound by memory: rows * k * bytes of the type are read. */
void kern_scan(enum kern_dtype dtype, const void *codes, const float *scales, size_t rows, size_t k,
    const float *query, float *scores);

/* The same for the rows rows_index[0..count-1] only. */
void kern_scan_rows(enum kern_dtype dtype, const void *codes, const float *scales,
    const uint32_t *rows_index, size_t count, size_t k, const float *query, float *scores);

#endif
