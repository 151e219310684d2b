/* Operations of a decoder (Llama, Qwen and their like): embeddings, RMSNorm, rotary positions, a
 * paged KV cache, attention over it, gates, sampling, and side-FFNs beside the FFN.
 *
 * Letters, beside those of kern.h: B sequences of a step, T rows of a step (the tokens of all its
 * sequences, one sequence after the other), H query heads, G key-value heads (H a multiple of G), D
 * head_dim, V vocabulary, I the FFN's inner width.
 *
 * All tensors are device memory (kern.h); small arrays that describe a step (ids, positions, slots,
 * starts, lengths, tables of pages) too, so that a recorded graph finds new values in the same
 * place. What a launch must know beforehand (T, B, the longest) is passed by value as an upper
 * bound; rows and sequences that are not used are marked as said.
 *
 * What is computed for a row is, to the bit, the same whatever other rows the call has; where the
 * context is not cuda, attention gives the same also however a sequence was cut in steps.
 *
 * Threads, errors: as in kern.h. What those arrays hold is checked where they are the process's
 * memory (ids of tables are not). */
#ifndef KERNELS_DECODER_H
#define KERNELS_DECODER_H

#include "kernels/kern.h"

/* ---- rows in, rows out --------------------------------------------------------------------- */

/* y (T, K) float32 = rows ids[t] of a table (V, K) of dtype F32, F16, BF16 or blocks. ids were
 * checked. */
struct kern_gather {
    const void *table;
    enum kern_dtype dtype;
    const uint32_t *ids;
    float *y;
    size_t t, k;
};
void kern_gather(struct kern_ctx *ctx, const struct kern_gather *a);

/* y[r] (K) = x[r] / sqrt(mean(x[r]^2) + eps) * gamma, for r < rows: Zhang and Sennrich, arXiv
 * 1910.07467, equation 4. x float32; rows lie x_stride numbers apart, those of y y_stride; y may be
 * x when it is float32. For heads of a (T, stride) matrix: `heads` > 1 norms K numbers at h * K of
 * every row, h < heads, with the same gamma. */
struct kern_rmsnorm {
    const float *x;
    const float *gamma;
    void *y;
    size_t rows, heads, k, x_stride, y_stride;
    enum kern_dtype y_dtype; /* F32 (also when 0), BF16 */
    float eps;
};
void kern_rmsnorm(struct kern_ctx *ctx, const struct kern_rmsnorm *a);

/* y (T, I) = silu(gate) * up, where gate_up (T, 2 I) holds gate, then up. Shazeer, arXiv 2002.05202
 * (SwiGLU). Types F32 (also when 0) or BF16. y must not overlap gate_up. */
struct kern_silu_mul {
    const void *gate_up;
    void *y;
    size_t t, inner;
    enum kern_dtype x_dtype, y_dtype;
};
void kern_silu_mul(struct kern_ctx *ctx, const struct kern_silu_mul *a);

/* ---- rotary positions ---------------------------------------------------------------------- */

/* cos and sin (positions_max, rotary / 2) float32, whatever scaling of RoPE is in them; a factor on
 * all of them (YaRN's) is seen as cos of position 0. Numbers i and i + rotary / 2 of a head are a
 * pair (as Hugging Face lies them); those past `rotary` stay.
 *     x[i], x[i + rotary / 2] = x[i] c - x[i + rotary / 2] s, x[i + rotary / 2] c + x[i] s
 * Su et al., arXiv 2104.09864, equation 34. */
struct kern_rope {
    const float *cos, *sin;
    size_t rotary, positions_max;
};

/* Rotate x (T, heads, D) in place, rows `stride` numbers apart, to positions[t] <
 * positions_max. `back`: undo that, which is the rotation by the negative angle over the square of
 * cos of position 0. */
struct kern_rotate {
    const struct kern_rope *rope; /* host struct */
    float *x;
    const uint32_t *positions;
    size_t t, heads, head_dim, stride;
    bool back;
};
void kern_rotate(struct kern_ctx *ctx, const struct kern_rotate *a);

/* ---- the paged KV cache -------------------------------------------------------------------- */

#define KERN_PAGE_TOKENS 32
#define KERN_NO_SLOT UINT32_MAX

/* One layer's keys and values in pages of KERN_PAGE_TOKENS tokens. A page is
 *     keys (G, 32, D), values (G, 32, D), and for E4M3 their scales: float32 (G, 32), (G, 32).
 * Token `slot` is place slot % 32 of page slot / 32. Keys are rotated. E4M3: a scale for each token
 * and head, its largest magnitude over 448, and codes of number / scale. Below a magnitude of 1e-30
 * scale and codes are 0; a head of which a number is not finite has the scale NaN. */
struct kern_kv {
    void *pages;
    size_t pages_count;
    size_t heads, head_dim; /* G, D; D at most 256 and a multiple of 8 */
    enum kern_dtype dtype;  /* F32, F16, BF16, E4M3 */
};
size_t kern_kv_page_bytes(enum kern_dtype dtype, size_t heads, size_t head_dim); /* x 256 */

/* Put keys and values of T tokens into slots; slots[t] KERN_NO_SLOT: nowhere. key and value: rows
 * (G, D) `stride` numbers apart, of F32 (what a forward pass has) or of dtype `from` (a capture).
 * The key is rotated to positions[t] on the way (rope NULL: it is taken as it is); key itself stays
 * unrotated. */
struct kern_kv_write {
    const struct kern_kv *kv;     /* host struct */
    const struct kern_rope *rope; /* host struct */
    const void *key, *value;
    enum kern_dtype from; /* F32 (also when 0), F16, BF16 */
    const uint32_t *positions, *slots;
    size_t t, stride;
};
void kern_kv_write(struct kern_ctx *ctx, const struct kern_kv_write *a);

/* Take them out again: key and value (T, G, D) float32 of slots[t], as cached (rotated, rounded);
 * zeros for KERN_NO_SLOT. */
struct kern_kv_read {
    const struct kern_kv *kv;
    const uint32_t *slots;
    float *key, *value;
    size_t t;
};
void kern_kv_read(struct kern_ctx *ctx, const struct kern_kv_read *a);

/* Re-rotate cached keys in place by shifts[t] positions (the difference, may be negative): Q and K
 * rotated by a common shift give the same product, so a block moves as a whole. cos and sin of
 * |shifts[t]| < positions_max are divided by cos of position 0, which is in the keys already.
 * Rounds again; a shift of 0 changes nothing. A slot stands in a call once. */
struct kern_kv_shift {
    const struct kern_kv *kv;
    const struct kern_rope *rope;
    const uint32_t *slots;
    const int32_t *shifts;
    size_t t;
};
void kern_kv_shift(struct kern_ctx *ctx, const struct kern_kv_shift *a);

/* Causal attention of a step's queries over the cache. Rows starts[b] .. starts[b+1]-1 are sequence
 * b's last tokens, whose keys are in the cache already; lengths[b] counts its tokens with them (0:
 * the sequence is not used). Its token i is in place i % 32 of page tables[b * tables_stride +
 * i / 32]. Row r of sequence b sees tokens 0 .. lengths[b] - (starts[b+1] - r); of these, when
 * window > 0, the last `window` only. What no row sees is not read. Rows of a sequence that is not
 * used become zeros; rows from starts[B] on stay. Query head h reads key head h / (H / G).
 *     out[r, h] = softmax(q[r, h] . K^T scale) V
 * Dao et al., arXiv 2205.14135 (blocks with an online softmax); Kwon et al., arXiv 2309.06180
 * (pages). */
struct kern_attention {
    const float *query; /* rows (H, D) query_stride numbers apart, rotated */
    const struct kern_kv *kv;
    const uint32_t *starts, *lengths, *tables; /* (B + 1), (B), (B, tables_stride) */
    size_t t, sequences, heads, query_stride, tables_stride;
    size_t rows_max;   /* of one sequence in this step; 1: decoding */
    size_t length_max; /* no lengths[b] is above */
    size_t window;
    float scale;
    void *out;                 /* (T, H D) */
    enum kern_dtype out_dtype; /* F32 (also when 0), BF16 */
    void *workspace;           /* kern_attention_workspace_bytes, 256-byte aligned */
};
size_t kern_attention_workspace_bytes(const struct kern_ctx *ctx, size_t t, size_t sequences,
    size_t heads, size_t kv_heads, size_t head_dim, size_t length_max);
void kern_attention(struct kern_ctx *ctx, const struct kern_attention *a);

/* ---- sampling ------------------------------------------------------------------------------ */

/* What is changed in the logits of a row before anything else. `seen`: the token is in the text so
 * far: a positive logit is divided by the row's repetition penalty, a negative one multiplied by it
 * (Keskar et al., arXiv 1909.05858, section 4.1). Then bias is added (-INFINITY forbids). Each id
 * at most once in a row. */
struct kern_adjust {
    uint32_t id;
    uint32_t seen;
    float bias;
};

/* How the next token of a row is taken.
 *   1. logits are adjusted; logprobs are log softmax of the result.
 *   2. temperature 0: the largest (of equals the smallest id). Else p = softmax(logit /
 * temperature).
 *   3. Kept are the top_k largest p (0: all); of those, renormalised, the smallest set of largest p
 *      whose sum is at least top_p (1: all); of those p >= min_p * the largest. Of equals the
 *      smaller id first.
 *   4. The kept ones in the order of their ids: the first at which the running sum is above draw *
 *      their sum, draw in [0, 1).
 * A NaN is never taken while there is a number above -infinity, and makes every logprob of the row
 * NaN, so that the caller sees it. The same when a logit is infinity, which is then taken as if
 * temperature were 0. When there is no number above -infinity, id 0 is taken and logprobs are NaN.
 * Holtzman et al., arXiv 1904.09751 (top_p); Nguyen et al., arXiv 2407.01082 (min_p). */
struct kern_sample_row {
    float temperature; /* 0 or more */
    float top_p;       /* above 0, at most 1 */
    float min_p;       /* 0 .. 1; 0: all */
    float repetition;  /* above 0; 1: none */
    float draw;
    uint32_t top_k;
    uint32_t adjust_start, adjust_count; /* in adjusts */
};

#define KERN_TOP_MAX 20

struct kern_sample {
    float *logits; /* (B, V); overwritten */
    const struct kern_sample_row *rows;
    const struct kern_adjust *adjusts; /* sorted by id within a row */
    size_t rows_count, vocab;
    size_t top;            /* how many of the most likely to tell, at most KERN_TOP_MAX */
    uint32_t *out_ids;     /* (B) */
    float *out_logprobs;   /* (B) of what was taken */
    uint32_t *out_top_ids; /* (B, top) largest first */
    float *out_top_logprobs;
    void *workspace; /* kern_sample_workspace_bytes, 256-byte aligned */
};
size_t kern_sample_workspace_bytes(const struct kern_ctx *ctx, size_t rows, size_t vocab);
void kern_sample(struct kern_ctx *ctx, const struct kern_sample *a);

/* out[r] = log softmax(logits[r])[ids[r]]; logits (R, V) float32 stay. NaN when one of the row is
 * NaN or infinity. For scoring. */
void kern_logprobs(struct kern_ctx *ctx, const float *logits, const uint32_t *ids, size_t rows,
    size_t vocab, float *out);

/* ---- side-FFNs ----------------------------------------------------------------------------- */

/* A block of memory beside an FFN: y += tau * (silu(h M1^T) * (h M2^T)) M3^T. in (2 R, K) holds M1
 * then M2, out (K, R) M3, as packed; R may differ from block to block. Pouransari et al., arXiv
 * 2510.02375, section 2; Lu et al., arXiv 2602.05085. */
struct kern_side_block {
    const struct kern_matrix *in, *out;
    float tau;
};

/* Rows starts[g] .. starts[g+1]-1 of `rows` (indices into h and y) go through blocks[g]. A row may
 * stand in several groups. Groups are added in their order. All arrays are host memory, for they
 * change only when a memory is attached. */
struct kern_side_ffn {
    const void *h; /* (T, K) */
    enum kern_dtype h_dtype;
    float *y; /* (T, K), added to */
    size_t t, k;
    const struct kern_side_block *blocks;
    const uint32_t *starts, *rows;
    size_t groups;
    void *workspace; /* kern_side_ffn_workspace_bytes, 256-byte aligned */
};
size_t kern_side_ffn_workspace_bytes(
    const struct kern_ctx *ctx, const struct kern_side_ffn *a); /* of its shapes */
void kern_side_ffn(struct kern_ctx *ctx, const struct kern_side_ffn *a);

#endif
