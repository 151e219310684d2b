/* What a sentence encoder's folder says about itself, every value within bounds.
 *
 *     config.json                        the shape of the network (required)
 *     modules.json                       what follows the network: pooling, normalisation
 *     1_Pooling/config.json              which pooling (where modules.json says)
 *     sentence_bert_config.json          the most tokens of a text
 *     config_sentence_transformers.json  prompts: prefixes of questions and of passages
 *     tokenizer_config.json              the most tokens, and how vocab.txt is to be read
 *
 * What a missing file means is what sentence-transformers takes it for: without modules.json the
 * mean is taken and not normalised.
 *
 * Threads: no shared state. */
#ifndef PARAMEM_CONFIG_H
#define PARAMEM_CONFIG_H

#include "kernels/kern.h"

enum paramem_pooling {
    PARAMEM_POOL_MEAN = 1,
    PARAMEM_POOL_CLS,
};

#define PARAMEM_PROMPT_BYTES 512
#define PARAMEM_NAME_BYTES 64

struct paramem_config {
    size_t layers, hidden, heads, intermediate;
    size_t vocab, positions, types;
    float eps; /* of LayerNorm */
    enum kern_activation act;
    enum paramem_pooling pooling;
    bool normalize;
    size_t tokens_max; /* of one text, specials included; at most positions */
    char query_prefix[PARAMEM_PROMPT_BYTES], passage_prefix[PARAMEM_PROMPT_BYTES];
    /* Of tokenizer_config.json; they hold when there is no tokenizer.json. */
    bool lowercase, chinese_chars, strip_accents;
    char cls[PARAMEM_NAME_BYTES], sep[PARAMEM_NAME_BYTES], unk[PARAMEM_NAME_BYTES];
    char pad[PARAMEM_NAME_BYTES], mask[PARAMEM_NAME_BYTES];
};

/* NOT_FOUND (config.json, or a pooling configuration that modules.json names), CORRUPT, TOO_LARGE,
 * UNSUPPORTED (by name: another architecture, positions that are not absolute, another pooling, a
 * module after it). */
MEMOS_MUST_USE enum memos_status paramem_config_read(
    const char *folder, struct paramem_config *out, struct memos_error *err);

/* The same from the texts of those files, in the order above (data NULL: there is no such file). */
enum paramem_config_file {
    PARAMEM_CONFIG_NETWORK,
    PARAMEM_CONFIG_MODULES,
    PARAMEM_CONFIG_POOLING,
    PARAMEM_CONFIG_LENGTH,
    PARAMEM_CONFIG_PROMPTS,
    PARAMEM_CONFIG_TOKENIZER,
    PARAMEM_CONFIG_FILES,
};
MEMOS_MUST_USE enum memos_status paramem_config_parse(
    const struct memos_bytes texts[PARAMEM_CONFIG_FILES], struct paramem_config *out,
    struct memos_error *err);

#endif
