/* Host models with random weights in the shapes of real ones: in memory, at once, for measuring
 * what runs them; and as files, for measuring what loads them.
 *
 * Every matrix is cut from one block of random numbers, again and again: how long a product takes
 * does not depend on what is multiplied. */
#ifndef TESTS_BENCH_RANDOM_MODEL_H
#define TESTS_BENCH_RANDOM_MODEL_H

#include "paramem/layers.h"

struct random_shape {
    const char *name, *like;
    enum paramem_architecture architecture;
    size_t hidden, inner, layers, heads, kv_heads, head_dim, vocab;
    bool tied, qk_norm;
    double theta;
};

/* "llama1b", "qwen06b", "llama8b", and "tiny", which is nobody's; NULL: no such shape. */
const struct random_shape *random_shape_find(const char *name);

/* Weights as `dtype`, rotary tables for `context` positions. Ends the process when it fails. */
struct paramem_model *random_model_make(
    struct kern_ctx *ctx, const struct random_shape *shape, enum kern_dtype dtype, size_t context);
void random_model_free(struct paramem_model **model); /* takes NULL */

/* Bytes of the matrices that are read for a token, of the head among them. */
uint64_t random_model_bytes(const struct paramem_model *model);

/* Floating-point operations of reading `tokens` from the beginning, logits of the last alone. */
double random_model_flop(const struct random_shape *shape, size_t tokens);

/* config.json, model.safetensors (bfloat16) and a tokenizer of bytes in a folder that exists. */
void random_model_write(const struct random_shape *shape, const char *folder);

#endif
