/* A small host model with a tokenizer of bytes and ChatML, as a worker has it: weights are random,
 * and what it answers follows from every token before.
 *
 * For cmocka tests: what cannot be done fails the test. */
#ifndef TESTS_WORKER_TINY_HOST_H
#define TESTS_WORKER_TINY_HOST_H

#include "memos/worker/memory.h"
#include "tests/memcube/folder.h"
#include "tests/paramem/tiny.h"

#define TINY_HOST_ANSWER_MAX 64

struct tiny_host_options {
    uint64_t seed;      /* of the weights, and what the fingerprint is made of; 0: 1 */
    enum kern_dtype kv; /* 0: F32 */
    size_t context;     /* 0: 2048 */
    size_t pages;       /* of the cache; 0: of two contexts */
    size_t sequences;   /* at once; 0: 2 */
    bool is_bare;       /* no chat template */
};

struct tiny_host {
    char folder[FOLDER_PATH_BYTES]; /* of the tokenizer's file */
    struct tiny tiny;
    struct paramem_tokenizer *tokenizer;
    size_t sequences;
    struct worker_host host;
};

void tiny_host_make(struct tiny_host *out, const struct tiny_host_options *options);
void tiny_host_free(struct tiny_host *tiny);

/* A new engine: nothing of what was read is remembered. */
void tiny_host_forget(struct tiny_host *tiny);

/* Greedy ids after a prompt. */
struct tiny_answer {
    uint32_t ids[TINY_HOST_ANSWER_MAX];
    size_t count;
    struct paramem_result result; /* err and stop_string are gone */
};
void tiny_host_answer(struct tiny_host *tiny, const uint32_t *ids, size_t count,
    const struct paramem_placed *placed, size_t placed_count, size_t tokens,
    struct tiny_answer *out);

/* The text of ids, special tokens written out. Free with free. */
char *tiny_host_text(const struct tiny_host *tiny, const uint32_t *ids, size_t count);

#endif
