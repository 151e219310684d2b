/* A small host model of random weights, and what it must answer, computed in the plainest way.
 *
 * For cmocka tests: what cannot be done fails the test. */
#ifndef TESTS_PARAMEM_TINY_H
#define TESTS_PARAMEM_TINY_H

#include "paramem/layers.h"

#include <stdbool.h>

struct tiny_shape {
    size_t hidden, inner, layers, heads, kv_heads, head_dim, vocab, positions;
    size_t window; /* of every second layer */
    bool qk_norm, bias;
    enum kern_dtype weights; /* F32 when 0 */
    uint64_t seed;
};

struct tiny_layer {
    float *attention_norm, *ffn_norm, *query_norm, *key_norm;
    float *qkv, *out, *gate_up, *down, *qkv_bias;
};

struct tiny {
    struct paramem_model model; /* without tokenizer */
    struct tiny_shape shape;
    uint64_t state;
    struct tiny_layer *host; /* the weights as numbers, before they were packed */
    float *table, *final_norm, *head, *cos, *sin;
    void *memory[256]; /* of the device */
    size_t memory_count;
};

void tiny_make(struct kern_ctx *ctx, const struct tiny_shape *shape, struct tiny *out);
void tiny_free(struct tiny *tiny);

/* Shapes that differ where a pass could go wrong: Llama's, Qwen2's, Qwen3's, Mistral's. */
struct tiny_shape tiny_llama(void);
struct tiny_shape tiny_qwen2(void);
struct tiny_shape tiny_qwen3(void);
struct tiny_shape tiny_mistral(void);
struct tiny_shape tiny_wide(void); /* wide enough for every way that a product can be cut */

/* Logits (count, vocab) after each of ids: everything from the beginning, in float64, no cache. */
void tiny_logits(const struct tiny *tiny, const uint32_t *ids, size_t count, double *logits);

/* A text that is not simply read from its beginning: token i stands at positions[i] and sees itself
 * and, of the tokens before it in the list and less than a window before it in place, those j whose
 * sees[i * count + j] is true. */
struct tiny_text {
    const uint32_t *ids, *positions;
    const bool *sees; /* (count, count) */
    size_t count;
};
void tiny_logits_of(const struct tiny *tiny, const struct tiny_text *text, double *logits);

uint64_t tiny_next(uint64_t *state);
size_t tiny_below(uint64_t *state, size_t end);

#endif
