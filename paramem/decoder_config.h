/* What a host model's files say about it: config.json and generation_config.json of a folder, or
 * the metadata of a GGUF file. Every number is within bounds afterwards, and all of them fit each
 * other; what is not computed here (an architecture, a kind of RoPE, quantized weights, another
 * activation) is refused by its name.
 *
 * A value that is absent means what it means to transformers 5 (configuration_*.py of the family),
 * or to llama.cpp.
 *
 * Threads: no shared state.
 *
 * Errors: NOT_FOUND (config.json), CORRUPT, UNSUPPORTED, TOO_LARGE, NO_MEMORY. */
#ifndef PARAMEM_DECODER_CONFIG_H
#define PARAMEM_DECODER_CONFIG_H

#include "paramem/gguf.h"
#include "paramem/model.h"

MEMOS_MUST_USE enum memos_status paramem_decoder_config_read(
    const char *folder, struct paramem_decoder_config *out, struct memos_error *err);

/* The same of the two files' texts; generation may be empty: there is none. */
MEMOS_MUST_USE enum memos_status paramem_decoder_config_parse(struct memos_bytes config,
    struct memos_bytes generation, struct paramem_decoder_config *out, struct memos_error *err);

/* The vocabulary is what the table of embeddings has; biases, and a head of its own, are there when
 * their tensors are. */
MEMOS_MUST_USE enum memos_status paramem_decoder_config_of_gguf(
    const struct paramem_gguf *gguf, struct paramem_decoder_config *out, struct memos_error *err);

/* "LlamaForCausalLM"; static. */
const char *paramem_architecture_name(enum paramem_architecture architecture);

/* What decoder_config.c and decoder_config_gguf.c check alike. `name`: of the file. */
MEMOS_MUST_USE enum memos_status paramem_decoder_config_check(
    const struct paramem_decoder_config *config, const char *name, struct memos_error *err);

#define PARAMEM_HIDDEN_MAX 65536
#define PARAMEM_INNER_MAX ((uint64_t)1 << 20)
#define PARAMEM_LAYERS_MAX 1024
#define PARAMEM_HEADS_MAX 1024
#define PARAMEM_VOCAB_MAX ((uint64_t)1 << 22)
#define PARAMEM_POSITIONS_MAX ((uint64_t)1 << 24)

#endif
