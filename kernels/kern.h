/* Tensor operations, on the best that this processor has.
 *
 * Letters: T tokens (rows), N outputs, K inputs, H heads, D head_dim, B sequences, V vocabulary,
 * R rows of a table of vectors. Matrices are row-major; a shape (T, K) lies with K next to itself.
 *
 * Each operation is a slot of `struct kern_ops`; there is one table per backend: `ref` (scalar C,
 * double accumulation: the definition), `cpu` (AVX2, AVX-512, AMX, chosen by what the processor
 * has), `cuda`. Callers use the kern_* functions, which check their arguments once and then call
 * the table; a slot that is NULL means ref's.
 *
 * What only a decoder needs is in kernels/decoder.h.
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

    /* Weights only: blocks of numbers of a row as GGUF lays them out (kernels/blocks.h). */
    KERN_Q8_0, /* 32 codes of 8 bits, an f16 scale: int8 by group */
    KERN_Q4_0, /* 32 codes of 4 bits, an f16 scale */
    KERN_Q4_K, /* 256 codes of 4 bits in 8 groups with a scale and a minimum of 6 bits each */
    KERN_Q6_K, /* 256 codes of 6 bits in 16 groups with a scale of 8 bits */
};

/* Bytes of one element, 0 of a type of blocks; the name as it is written in files and options
 * ("f32", "bf16" ...). */
size_t kern_dtype_bytes(enum kern_dtype dtype);
const char *kern_dtype_name(enum kern_dtype dtype); /* static */
/* How many numbers lie together (1, 32 or 256), and the bytes of k of them; k a multiple of that.
 */
size_t kern_dtype_block(enum kern_dtype dtype);
size_t kern_dtype_row_bytes(enum kern_dtype dtype, size_t k);
/* 0: no such name. */
enum kern_dtype kern_dtype_of(struct memos_bytes name);

/* ---- the context --------------------------------------------------------------------------- */

struct kern_ctx;

struct kern_options {
    const char *backend; /* "ref", "cpu", "cuda" (its first device; CUDA_VISIBLE_DEVICES chooses);
                            "auto": cuda where there is a GPU that works, else cpu; NULL: cpu */
    const char *level;   /* cpu: at most "sse2", "avx2", "avx512", "amx"; NULL: the best */
    unsigned threads;    /* that compute, the caller's among them. 0: one a processor, at most 16 */
};

MEMOS_MUST_USE enum memos_status kern_ctx_create(
    const struct kern_options *options, struct kern_ctx **out_ctx, struct memos_error *err);
void kern_ctx_destroy(struct kern_ctx **ctx); /* takes NULL */

/* "cpu/avx2, 2 threads", "cuda/sm_90, NVIDIA H100": for logs and tables. Lives as long as ctx. */
const char *kern_ctx_name(const struct kern_ctx *ctx);
unsigned kern_ctx_threads(const struct kern_ctx *ctx);

/* Run fn(self, i) for i in 0..count-1 on the pool; returns when all are done. fn must not call
 * kern_* with the same ctx. */
void kern_parallel(
    struct kern_ctx *ctx, size_t count, void (*fn)(void *self, size_t index), void *self);

/* ---- memory where the context computes ------------------------------------------------------ */

/* "Device memory" below is memory of the context's backend: of cuda's card what kern_alloc gave, of
 * the others any memory of the process. What an operation reads and writes is device memory unless
 * its comment says host. On cuda a tensor begins at a multiple of 16 bytes. Operations of cuda are
 * queued in order and return at once; an error of one stays in the context, makes those that follow
 * do nothing, and is told by kern_sync (and by every function here that returns a status). Where
 * the context is not cuda all is done on return. */

/* Is device memory the process's own, so that what lies in it may be read in place? */
bool kern_memory_is_host(const struct kern_ctx *ctx);

/* 256-byte aligned, not cleared. NO_MEMORY says how much was asked for and how much there is. */
MEMOS_MUST_USE enum memos_status kern_alloc(
    struct kern_ctx *ctx, size_t bytes, void **out_memory, struct memos_error *err);
void kern_release(struct kern_ctx *ctx, void **memory); /* takes NULL */

/* Memory of the host from which copies to the device need not wait (pinned, on cuda). */
MEMOS_MUST_USE enum memos_status kern_host_alloc(
    struct kern_ctx *ctx, size_t bytes, void **out_memory, struct memos_error *err);
void kern_host_release(struct kern_ctx *ctx, void **memory); /* takes NULL */

/* Queue a copy. host must stay as it is until kern_sync unless it is of the process's ordinary
 * memory (then it was copied on return). */
void kern_upload(struct kern_ctx *ctx, void *device, const void *host, size_t bytes);
void kern_fill(struct kern_ctx *ctx, void *device, int byte, size_t bytes);
void kern_copy(struct kern_ctx *ctx, void *device_to, const void *device_from, size_t bytes);
/* Waits for all that was queued before, then for the copy. */
MEMOS_MUST_USE enum memos_status kern_download(
    struct kern_ctx *ctx, void *host, const void *device, size_t bytes, struct memos_error *err);
/* Wait for all that was queued; the first error since the last kern_sync (IO: the device failed;
 * kern_reset must follow). */
MEMOS_MUST_USE enum memos_status kern_sync(struct kern_ctx *ctx, struct memos_error *err);
/* Begin again after the device failed. What was in device memory is gone, in all contexts of the
 * process on that device, as is memory of kern_host_alloc: release all memory made with this
 * context before (which touches nothing on a device that failed); matrices and graphs may be freed
 * before or after; then make and fill all anew. Other contexts tell the same IO error at their next
 * kern_sync and are reset the same way; none may be in use meanwhile. IO: the device does not come
 * back to this process, which must be started again: so it is after a kernel that touched memory
 * that is not there (CUDA 13 keeps such an error until the process ends). Does nothing where the
 * context is not cuda. */
MEMOS_MUST_USE enum memos_status kern_reset(struct kern_ctx *ctx, struct memos_error *err);
/* Bytes of the device's memory that are free and there are; the host's on other backends. */
void kern_memory(struct kern_ctx *ctx, uint64_t *out_free, uint64_t *out_total);

/* Copies beside the computation: queued on a second queue of their own. kern_copies_wait makes what
 * is queued after it wait for the copies queued before it. `host` from kern_host_alloc. */
void kern_upload_beside(struct kern_ctx *ctx, void *device, const void *host, size_t bytes);
void kern_copies_wait(struct kern_ctx *ctx);
/* The other way: `count` pieces of `bytes` that lie so far apart there and here. They are copied
 * when what was queued before is done, and have come when kern_sync returns; operations queued
 * later run meanwhile. Into memory that is not from kern_host_alloc the call may wait for them. */
struct kern_pieces {
    void *host;
    const void *device;
    size_t host_stride, device_stride; /* at least bytes */
    size_t bytes, count;
};
void kern_download_beside(struct kern_ctx *ctx, const struct kern_pieces *pieces);

/* Record operations once and queue them all with one call later: what a decoding step of a given
 * batch does is always the same but for what lies in its memory. begin: false when this backend
 * does not record (then operations simply run, and there is no end). Between begin and end only
 * operations, kern_copy and kern_fill; nothing runs until kern_graph_run. */
struct kern_graph;
bool kern_graph_begin(struct kern_ctx *ctx);
MEMOS_MUST_USE enum memos_status kern_graph_end(
    struct kern_ctx *ctx, struct kern_graph **out_graph, struct memos_error *err);
void kern_graph_run(struct kern_ctx *ctx, struct kern_graph *graph);
void kern_graph_free(struct kern_graph **graph); /* takes NULL */

/* ---- conversion ---------------------------------------------------------------------------- */

/* Host memory. out[i] = from[i] in dtype `to` (not I8 and no blocks), rounded to nearest even; what
 * is too large, infinity included, becomes the largest finite value of e4m3 and e5m2, infinity of
 * f16 and bf16. NaN stays NaN. From blocks: count is a multiple of the block. data and out may be
 * misaligned for what they hold where they are void. */
void kern_from_f32(enum kern_dtype to, const float *from, void *out, size_t count);
void kern_to_f32(enum kern_dtype from, const void *data, float *out, size_t count);

/* ---- linear -------------------------------------------------------------------------------- */

/* A weight matrix (N, K) laid out for this context's products, in device memory. */
struct kern_matrix;

/* Rows of a matrix as they lie in a file, in host memory: (n, K) of `from`, row-major, at any
 * address. */
struct kern_part {
    enum kern_dtype from; /* F32, F16, BF16, or blocks */
    const void *data;
    size_t n;
};

/* Pack the parts, one below the other (N is the sum of their n), as `to`: F32, BF16, I8 (a scale
 * per row of N: the largest magnitude over 127; K at most 65,536), Q8_0 and Q4_0 (quantized as
 * kernels/blocks.h says), and Q4_K or Q6_K when every part is of that type. Blocks of the same type
 * keep their codes and scales to the bit. K is a multiple of the block of every type of blocks that
 * takes part. N and K are not 0. Copies, on the context's threads. A matrix is multiplied as the
 * context that packed it multiplies, also on another of the same backend. NO_MEMORY; UNSUPPORTED.
 */
MEMOS_MUST_USE enum memos_status kern_matrix_pack_parts(struct kern_ctx *ctx, enum kern_dtype to,
    const struct kern_part *parts, size_t parts_count, size_t k, struct kern_matrix **out,
    struct memos_error *err);
/* The same of one part. */
MEMOS_MUST_USE enum memos_status kern_matrix_pack(struct kern_ctx *ctx, enum kern_dtype to,
    enum kern_dtype from, const void *data, size_t n, size_t k, struct kern_matrix **out,
    struct memos_error *err);
void kern_matrix_free(struct kern_matrix **matrix); /* takes NULL */
size_t kern_matrix_bytes(const struct kern_matrix *matrix);
void kern_matrix_shape(const struct kern_matrix *matrix, size_t *out_n, size_t *out_k);
enum kern_dtype kern_matrix_dtype(const struct kern_matrix *matrix); /* what it was packed as */
/* The rows where they lie row-major and unchanged in device memory (dtype in *out_dtype), so that a
 * table of embeddings can be the same memory; NULL when this backend lays them out otherwise. */
const void *kern_matrix_rows(const struct kern_matrix *matrix, enum kern_dtype *out_dtype);

enum kern_activation {
    KERN_NONE,
    KERN_GELU,      /* x/2 (1 + erf(x / sqrt 2)) */
    KERN_GELU_TANH, /* the tanh approximation */
    KERN_RELU,
    KERN_SILU,
};

/* y (T, N) = act(x (T, K) . w^T + bias) [+ residual]. bias (N) float32 or NULL; residual (T, N)
 * float32 or NULL, may be y itself when y is float32. BF16 weights: x is rounded to bf16, sums are
 * float32. I8 weights: each row of x is quantized to int8 with its own scale, sums are int32. Block
 * weights: each 32 numbers of a row of x are quantized to int8 with their own scale, sums of 32 are
 * int32 (Q6_K: of 16), sums of those, each times its scales, float32. x BF16 is for BF16 weights
 * only and gives the same numbers as the float32 that it was rounded from. A row of y does not
 * depend on T, nor on the other rows, to the bit; on cuda that holds among products of at most 8
 * rows of F32 and BF16 weights, of at most 64 of the others. cuda multiplies more rows of I8, Q8_0
 * and Q4_0 as BF16 (weights and x are rounded to it, x is not quantized), and Q4_K and Q6_K always:
 * their matrices then are BF16. Work: 2 T N K flop. y must not overlap x. */
struct kern_linear {
    const void *x;
    const struct kern_matrix *w;
    const float *bias;
    const float *residual;
    void *y;
    size_t t;
    enum kern_activation act;
    enum kern_dtype x_dtype, y_dtype; /* F32 (also when 0) or BF16; see kern_between_dtype */
    void *workspace; /* kern_linear_workspace_bytes(ctx, w, t), 256-byte aligned; NULL when 0 */
};
size_t kern_linear_workspace_bytes(
    const struct kern_ctx *ctx, const struct kern_matrix *w, size_t t);
void kern_linear(struct kern_ctx *ctx, const struct kern_linear *a);

/* The type in which what lies between products of `weights` is best kept on this context: the
 * output of norms, attention and gates, and the product of gate and up. BF16 or F32; every backend
 * computes with both. */
enum kern_dtype kern_between_dtype(const struct kern_ctx *ctx, enum kern_dtype weights);

/* ---- the rest of an encoder ---------------------------------------------------------------- */

/* Host memory; not on cuda. */

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
