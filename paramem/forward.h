/* One pass through a host model: rows of token ids in, logits out, keys and values into the cache.
 *
 *     x = table[id]
 *     for each layer:
 *         h = RMSNorm(x);  q, k, v = QKV h (+ bias);  q, k = RMSNorm by head (Qwen3)
 *         [memory: value embeddings go into v here, before the cache]
 *         q = rotate(q);  cache <- rotate(k), v;  [memory: captured k and v are taken, or put,
 * here] x = x + O attention(q, cache) h = RMSNorm(x);  x = x + down(silu(gate h) * up h) [memory:
 * side-FFNs add to x here, from the same h] logits = head RMSNorm(x)   for the rows that are asked
 *
 * Touvron et al., arXiv 2302.13971 (Llama); Yang et al., arXiv 2505.09388 (Qwen3).
 *
 * Nothing is allocated in a pass. A pass of one row a sequence (decoding) is recorded once for each
 * size of batch where the backend records.
 *
 * Threads: one at a time. */
#ifndef PARAMEM_FORWARD_H
#define PARAMEM_FORWARD_H

#include "paramem/layers.h"

struct paramem_forward;

/* Where memory goes in. Every hook may be NULL and then costs nothing. They are called while a pass
 * is queued, between operations; `rows` are all of the pass. A pass with hooks is not recorded. */
struct paramem_hooks {
    void *self;
    /* k and v of this layer (T, G, D), not rotated, rows `stride` floats apart, before they are
     * cached: may change v (value embeddings), may copy (capture). */
    void (*key_value)(
        void *self, size_t layer, float *key, float *value, size_t rows, size_t stride);
    /* h (T, hidden) of h_dtype, the FFN's input; y (T, hidden), to be added to. */
    void (*ffn)(
        void *self, size_t layer, const void *h, enum kern_dtype h_dtype, float *y, size_t rows);
};

struct paramem_forward_options {
    struct paramem_model *model;
    const struct kern_kv *kv; /* (layers): copied */
    size_t rows_max, sequences_max, logits_max, length_max;
};

MEMOS_MUST_USE enum memos_status paramem_forward_create(
    const struct paramem_forward_options *options, struct paramem_forward **out,
    struct memos_error *err);
void paramem_forward_destroy(struct paramem_forward **forward);        /* takes NULL */
uint64_t paramem_forward_bytes(const struct paramem_forward *forward); /* of device memory */

/* Host arrays; they are copied to the device on entry. */
struct paramem_pass {
    const uint32_t *ids, *positions, *slots; /* (rows) */
    size_t rows;
    const uint32_t *starts, *lengths; /* (sequences + 1), (sequences): see kern_attention */
    const uint32_t *tables;           /* (sequences, tables_stride) */
    size_t sequences, tables_stride;
    const uint32_t *logits_rows; /* which rows' logits are wanted */
    size_t logits_count;
    const struct paramem_hooks *hooks; /* NULL: none */
};

/* Queue a pass. *out_logits (logits_count, V) float32 in device memory, good until the next. */
void paramem_forward_run(
    struct paramem_forward *forward, const struct paramem_pass *pass, float **out_logits);

#endif
