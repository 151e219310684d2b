/* What a host model is made of, for who runs it (forward.c) and who loads it (model.c).
 *
 * Everything here is device memory of the model's context, read-only after load. */
#ifndef PARAMEM_LAYERS_H
#define PARAMEM_LAYERS_H

#include "paramem/model.h"
#include "paramem/tokenizer.h"

struct paramem_layer {
    const float *attention_norm, *ffn_norm; /* (hidden) */
    const float *query_norm, *key_norm;     /* (head_dim), or NULL */
    struct kern_matrix *qkv;                /* ((H + 2 G) D, hidden): query, key, value */
    struct kern_matrix *out;                /* (hidden, H D) */
    struct kern_matrix *gate_up;            /* (2 inner, hidden): gate, up */
    struct kern_matrix *down;               /* (hidden, inner) */
    const float *qkv_bias, *out_bias, *gate_up_bias, *down_bias; /* or NULL */
    size_t window;                                               /* 0: none */
};

struct paramem_model {
    struct kern_ctx *ctx;
    struct paramem_decoder_config config;
    size_t context_max;
    struct kern_gather table; /* table, dtype, k: of the embeddings */
    struct paramem_layer *layers;
    const float *final_norm;
    struct kern_matrix *head; /* (vocab, hidden) */
    struct kern_rope rope;
    struct paramem_tokenizer *tokenizer; /* owned; NULL: ids only */
    struct paramem_model_info info;
    struct paramem_model_files *files; /* maps (paramem/model_files.h) */
    void *memory[4];                   /* model.c's own, to release */
};

#endif
