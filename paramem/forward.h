/* One pass through a host model: rows of token ids in, logits out, keys and values into the cache.
 *
 *     x = table[id]
 *     for each layer:
 *         h = RMSNorm(x);  q, k, v = QKV h (+ bias);  q, k = RMSNorm by head (Qwen3)
 *         [memory: value embeddings go into v here; captured k and v are taken, or put, here]
 *         cache <- rotate(k), v;  q = rotate(q);  x = x + O attention(q, cache)
 *         h = RMSNorm(x);  x = x + down(silu(gate h) * up h)
 *         [memory: side-FFNs add to x here, from the same h]
 *     logits = head RMSNorm(x), for the rows that are asked for
 *
 * Touvron et al., arXiv 2302.13971 (Llama); Yang et al., arXiv 2505.09388 (Qwen3).
 *
 * All room is made at create. What describes a pass goes to the device in one copy, to the same
 * place every time. A decoding pass (one row of every sequence, logits of all, no hooks) is padded
 * to one of a few sizes and, where the backend records, recorded the second time a size is met;
 * the copy is queued before the recording, not in it, so that its length may differ.
 *
 * Threads: one at a time. */
#ifndef PARAMEM_FORWARD_H
#define PARAMEM_FORWARD_H

#include "paramem/layers.h"

struct paramem_forward;

/* Where memory goes in. Every hook may be NULL and then costs nothing. They are called while a pass
 * is queued, between operations, and queue operations of their own on the model's context; `rows`
 * are all of the pass. A pass with hooks is not recorded. */
struct paramem_hooks {
    void *self;
    /* k and v of this layer, rows of (G, D) `stride` floats apart, not rotated, before they are
     * cached: may change them (value embeddings), may copy them (capture). */
    void (*key_value)(
        void *self, size_t layer, float *key, float *value, size_t rows, size_t stride);
    /* h (T, hidden) of h_dtype, the FFN's input; y (T, hidden), to be added to. */
    void (*ffn)(
        void *self, size_t layer, const void *h, enum kern_dtype h_dtype, float *y, size_t rows);
};

struct paramem_forward_options {
    struct paramem_model *model; /* borrowed */
    const struct kern_kv *kv;    /* (layers), of the same pages_count: copied */
    size_t rows_max;             /* of a pass */
    size_t sequences_max;
    size_t logits_max; /* rows of logits that are made at once */
    size_t length_max; /* of a sequence */
};

/* NO_MEMORY (says how much). */
MEMOS_MUST_USE enum memos_status paramem_forward_create(
    const struct paramem_forward_options *options, struct paramem_forward **out,
    struct memos_error *err);
void paramem_forward_destroy(struct paramem_forward **forward);        /* takes NULL */
uint64_t paramem_forward_bytes(const struct paramem_forward *forward); /* of device memory */

/* Host arrays; they are copied on entry. */
struct paramem_pass {
    const uint32_t *ids, *positions, *slots; /* (rows) */
    size_t rows;                             /* 1..rows_max */
    const uint32_t *starts, *lengths;        /* (sequences + 1), (sequences): see kern_attention */
    const uint32_t *const *tables;           /* tables[b]: pages of lengths[b] tokens */
    size_t sequences;
    const uint32_t *logits_rows; /* which rows' logits are wanted */
    size_t logits_count;
    const struct paramem_hooks *hooks; /* NULL: none */
};

/* Queue a pass. *out_logits (logits_count, V) float32 in device memory, good until the next call.
 * On a device there must be a kern_sync or a kern_download between two passes, since the copy of
 * the first may still be under way. */
void paramem_forward_run(
    struct paramem_forward *forward, const struct paramem_pass *pass, float **out_logits);

/* Logits of rows first .. first + count - 1 of the last pass, count at most logits_max: for who
 * wants those of all rows and has no room for them at once. */
void paramem_forward_logits(
    struct paramem_forward *forward, size_t first, size_t count, float **out_logits);

#endif
