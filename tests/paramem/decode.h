/* A host model that answers, and what transformers answered: goldens of
 * tests/paramem/golden/models.
 *
 * For cmocka tests: what cannot be done fails the test. */
#ifndef TESTS_PARAMEM_DECODE_H
#define TESTS_PARAMEM_DECODE_H

#include "paramem/forward.h"
#include "paramem/kv_cache.h"

/* NAME.golden: a prompt, the logits after each of its tokens, and the greedy tokens after it. */
struct decode_golden {
    struct memos_buffer file;
    size_t prompt, greedy, vocab;
    const uint32_t *ids;       /* (prompt + greedy) */
    const float *logits;       /* (prompt, vocab) */
    double largest, deviation; /* of the logits */
};
struct decode_golden decode_golden_read(const char *name);
void decode_golden_free(struct decode_golden *golden);

struct decode {
    struct kern_ctx *ctx;
    struct paramem_model *model;
    struct paramem_kv_cache *cache;
    struct paramem_forward *forward;
    uint32_t *pages;
};

/* Open the model at path, which must be as long as `tokens`; ids only, a cache of float32. False:
 * this machine has no such backend. */
bool decode_open(struct decode *decode, const char *backend, const char *path,
    enum kern_dtype weights, size_t tokens);
void decode_close(struct decode *decode);

/* Tokens from .. from + count - 1 of ids, which come after those before them: logits (count, vocab)
 * after each. */
void decode_run(
    struct decode *decode, const uint32_t *ids, size_t from, size_t count, float *logits);

/* golden/models/NAME in the source tree. Returns out. */
char *decode_path(const char *name, char out[1024]);

#endif
