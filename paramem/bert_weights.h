/* A model's weights out of its files: there, of the right shape, finite, and hashed.
 *
 * A loader collects the tensors that a model asks for; the check of their numbers and their hash
 * are one parallel pass over all of them at the end.
 *
 * Threads: one thread, with its ctx. */
#ifndef PARAMEM_BERT_WEIGHTS_H
#define PARAMEM_BERT_WEIGHTS_H

#include "kernels/kern.h"
#include "paramem/safetensors.h"

struct paramem_loader {
    const struct paramem_tensors *tensors;
    const char *prefix; /* before every name */
    const struct paramem_tensor **used;
    size_t used_count, used_max;
    enum memos_status status; /* the first failure stays */
    struct memos_error *err;
};

/* Room for used_max tensors. NO_MEMORY shows in status. */
struct paramem_loader paramem_loader_make(
    const struct paramem_tensors *tensors, size_t used_max, struct memos_error *err);
void paramem_loader_finish(struct paramem_loader *loader);

/* The tensor prefix + name (printf with index, when the name has a %zu) of shape (rows, columns);
 * rows 0: of shape (columns). NULL after a failure. */
const struct paramem_tensor *paramem_loader_get(
    struct paramem_loader *loader, const char *name, size_t index, size_t rows, size_t columns);

/* The dtype of a tensor that paramem_loader_get gave. */
enum kern_dtype paramem_loader_dtype(const struct paramem_tensor *tensor);

/* Look at the numbers of all that was got, and hash it: BLAKE2b-256 over each tensor's name, dtype
 * and shape and the hashes of its pieces of 1 MiB. CORRUPT: NaN or infinity, says where. */
MEMOS_MUST_USE enum memos_status paramem_loader_check(
    struct paramem_loader *loader, struct kern_ctx *ctx, uint8_t out_digest[32]);

#endif
