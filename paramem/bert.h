/* BERT's encoder: token ids in, a vector for each text out.
 *
 *     x = LN(word[id] + position[place] + type[0])
 *     for each layer:  x = LN(x + O attention(QKV x));  x = LN(x + down act(up x))
 *     pooled over each text's tokens; to length 1 when the model wants that
 *
 * Q, K and V are one matrix (3 hidden, hidden). Word vectors stay where they lie in the file when
 * they are float32; what is multiplied is packed.
 *
 * Source: Devlin et al., arXiv 1810.04805; Vaswani et al., arXiv 1706.03762 (attention).
 *
 * Threads: belongs to one thread at a time, with its kern_ctx. */
#ifndef PARAMEM_BERT_H
#define PARAMEM_BERT_H

#include "paramem/config.h"
#include "paramem/safetensors.h"

struct paramem_bert;

struct paramem_bert_options {
    struct kern_ctx *ctx; /* borrowed for as long as the bert lives, as are the tensors */
    const struct paramem_config *config; /* copied */
    const struct paramem_tensors *tensors;
    enum kern_dtype weights;
    size_t tokens_max; /* of a batch; all room is made for so many */
    size_t text_max;   /* of one text */
};

/* Every tensor's presence, dtype (F32, F16, BF16), shape and numbers are checked. CORRUPT (missing,
 * another shape, not finite: says which), UNSUPPORTED (another dtype), NO_MEMORY. */
MEMOS_MUST_USE enum memos_status paramem_bert_load(
    const struct paramem_bert_options *options, struct paramem_bert **out, struct memos_error *err);
void paramem_bert_free(struct paramem_bert **bert); /* takes NULL */

/* Bytes of weights in memory, those in the file's map that are used in place among them. */
uint64_t paramem_bert_bytes(const struct paramem_bert *bert);

/* BLAKE2b-256 over names, dtypes, shapes and bytes of the weights as they are stored. */
void paramem_bert_digest(const struct paramem_bert *bert, uint8_t out[32]);

/* ids (starts[sequences]) of texts that are rows starts[i] .. starts[i+1]-1, none empty; out
 * (sequences, hidden). Allocates nothing. */
void paramem_bert_encode(struct paramem_bert *bert, const uint32_t *ids, const uint32_t *starts,
    size_t sequences, float *out);

#endif
