/* A model's weights out of its files: there, of the right shape, finite, and hashed.
 *
 * A loader collects the tensors that a model asks for, from files of safetensors or of GGUF. The
 * look at their numbers and their hash are one parallel pass, over all of them or some at a time,
 * so that what was just read can be packed while it is still in memory.
 *
 * Threads: one thread, with its ctx. */
#ifndef PARAMEM_WEIGHTS_H
#define PARAMEM_WEIGHTS_H

#include "kernels/kern.h"
#include "paramem/gguf.h"
#include "paramem/safetensors.h"

struct paramem_weight {
    struct memos_bytes name;
    enum kern_dtype dtype; /* 0: one that is not computed with */
    const char *type;      /* its name in the file */
    uint32_t stored;       /* its number in the format, for the digest */
    size_t rank, shape[PARAMEM_RANK_MAX];
    size_t count, bytes;
    const void *data; /* row-major; lives as long as the files */
};

/* The tensor of that name; false: there is none. */
typedef bool paramem_weight_find(const void *files, const char *name, struct paramem_weight *out);
paramem_weight_find paramem_weight_of_tensors; /* files: struct paramem_tensors */
paramem_weight_find paramem_weight_of_gguf;    /* files: struct paramem_gguf */

struct paramem_loader {
    paramem_weight_find *find;
    const void *files;
    const char *prefix; /* before every name; "" at first */
    struct paramem_weight *used;
    size_t used_count, used_max, checked_count;
    struct memos_buffer hashes; /* of pieces */
    enum memos_status status;   /* the first failure stays */
    struct memos_error *err;
};

/* Room for used_max tensors. NO_MEMORY shows in status. */
struct paramem_loader paramem_loader_make(
    paramem_weight_find *find, const void *files, size_t used_max, struct memos_error *err);
void paramem_loader_finish(struct paramem_loader *loader);

/* Is there a tensor prefix + name? */
bool paramem_loader_has(const struct paramem_loader *loader, const char *name);

/* The tensor prefix + name (printf with index, when the name has a %zu) of shape (rows, columns);
 * rows 0: of shape (columns). NULL after a failure: CORRUPT (missing, another shape), UNSUPPORTED
 * (another dtype). Lives as long as the loader. */
const struct paramem_weight *paramem_loader_get(
    struct paramem_loader *loader, const char *name, size_t index, size_t rows, size_t columns);

/* Look at the numbers of the next tensors that were got, up to the first `count` of all, and hash
 * them in pieces of about 1 MiB. CORRUPT: NaN or infinity, says where. */
MEMOS_MUST_USE enum memos_status paramem_loader_check(
    struct paramem_loader *loader, struct kern_ctx *ctx, size_t count);

/* BLAKE2b-256 over each tensor's name, dtype and shape and the hashes of its pieces, in the order
 * in which they were got; all were checked. */
void paramem_loader_digest(const struct paramem_loader *loader, uint8_t out_digest[32]);

#endif
