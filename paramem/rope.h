/* Rotary positions: the tables of cosines and sines that a model's configuration means.
 *
 * Kinds: default, linear (positions divided), dynamic (NTK: the base grows with the text), llama3
 * (low frequencies divided, those between blended) and yarn, each computed as transformers 5
 * computes it: frequencies and angles in float32, for a model was taught with their rounding.
 *
 * Sources: Su et al., arXiv 2104.09864; Chen et al., arXiv 2306.15595 (linear); Peng et al., arXiv
 * 2309.00071 (dynamic, yarn); transformers 5.24, modeling_rope_utils.py.
 * Departure: dynamic. transformers takes the base for the longest text so far, and so turns the
 * tokens of one prompt by the base of its length, though those before them are in the cache with
 * another. Here position p turns by the base for a text of p + 1 tokens, which is what transformers
 * does when tokens come one by one: the table does not depend on how a text is cut.
 *
 * Threads: no shared state. */
#ifndef PARAMEM_ROPE_H
#define PARAMEM_ROPE_H

#include "paramem/model.h"

#define PARAMEM_ROTARY_MAX 256

/* cos and sin (positions, rotary / 2) in host memory. `factors` (rotary / 2), or NULL: what each
 * frequency is divided by besides (GGUF's rope_freqs). Computes on the threads of ctx. */
void paramem_rope_fill(struct kern_ctx *ctx, const struct paramem_rope_config *config,
    const float *factors, size_t positions, float *cos, float *sin);

#endif
