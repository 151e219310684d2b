/* A sentence encoder: texts in, vectors out. BERT-family models from a Hugging Face folder as it
 * is: all-MiniLM-L6-v2, BGE, E5, GTE.
 *
 * Read from the folder: config.json (shape), modules.json and 1_Pooling/config.json (mean or CLS
 * pooling, normalisation), sentence_bert_config.json (maximum length),
 * config_sentence_transformers.json (prompts, when there are any), tokenizer.json or vocab.txt
 * with tokenizer_config.json, model.safetensors.
 *
 * Sources: Devlin et al., arXiv 1810.04805 (BERT); Reimers and Gurevych, arXiv 1908.10084
 * (pooling).
 *
 * Threads: an encoder belongs to one thread at a time; it computes on threads of its own.
 *
 * Errors: INVALID (an option: tokens_max past the model's, a prefix that is no UTF-8 or over 511
 * bytes), NOT_FOUND (a file is missing: says which), CORRUPT (truncated or hostile files: names
 * file, tensor or key, and what was expected), UNSUPPORTED (another architecture: by name, with the
 * list of those that work), NO_MEMORY. */
#ifndef PARAMEM_ENCODER_H
#define PARAMEM_ENCODER_H

#include "kernels/kern.h"

struct paramem_encoder;

enum paramem_role {
    PARAMEM_PASSAGE, /* what is stored */
    PARAMEM_QUERY,   /* what is asked; some models want a prefix */
};

struct paramem_encoder_options {
    const char *path;                          /* the folder */
    enum kern_dtype weights;                   /* KERN_F32, KERN_BF16 or KERN_I8; 0: F32 */
    const char *query_prefix, *passage_prefix; /* NULL: what the folder says, else none */
    size_t tokens_max;                         /* of one text; 0: what the folder says */
    struct kern_options kern;
};

MEMOS_MUST_USE enum memos_status paramem_encoder_open(const struct paramem_encoder_options *options,
    struct paramem_encoder **out_encoder, struct memos_error *err);
void paramem_encoder_close(struct paramem_encoder **encoder); /* takes NULL */

struct paramem_encoder_info {
    const char *architecture; /* "BertModel" */
    const char *pooling;      /* "mean", "cls" */
    const char *kern;         /* kern_ctx_name */
    enum kern_dtype weights;
    size_t dims, layers, tokens_max, vocab;
    uint64_t weight_bytes;   /* in memory */
    uint8_t fingerprint[32]; /* BLAKE2b-256 over architecture, pooling, prefixes, tokens_max,
                                tokenizer and weights as stored: equal exactly when vectors are
                                comparable */
    bool normalized;
};
/* Texts live as long as the encoder. */
void paramem_encoder_describe(
    const struct paramem_encoder *encoder, struct paramem_encoder_info *out);

/* Encode `count` texts (UTF-8; what is ill-formed is read as U+FFFD) into out (count, dims)
 * float32, in the order given. A text longer than tokens_max is cut there. Batches are formed
 * inside, in that order and without padding, of at most 512 tokens (or tokens_max), so memory does
 * not depend on count. An empty text has a vector, too. */
MEMOS_MUST_USE enum memos_status paramem_encoder_encode(struct paramem_encoder *encoder,
    const struct memos_bytes *texts, size_t count, enum paramem_role role, float *out,
    struct memos_error *err);

/* How many tokens the text has, specials included, at most tokens_max + 1 (then it would be cut).
 */
MEMOS_MUST_USE enum memos_status paramem_encoder_count(struct paramem_encoder *encoder,
    struct memos_bytes text, size_t *out_tokens, struct memos_error *err);

/* Token ids as the tokenizers library gives them (specials included, cut at ids_max and at
 * tokens_max), for tests and tools. */
MEMOS_MUST_USE enum memos_status paramem_encoder_tokenize(struct paramem_encoder *encoder,
    struct memos_bytes text, uint32_t *ids, size_t ids_max, size_t *out_count,
    struct memos_error *err);

#endif
