/* Engines over tiny models, and what their requests are told. For cmocka tests: what cannot be done
 * fails the test. */
#ifndef TESTS_PARAMEM_SERVING_H
#define TESTS_PARAMEM_SERVING_H

#include "paramem/engine.h"
#include "tests/paramem/tiny.h"

#define SERVING_VOCAB 131 /* of the tiny shapes */
#define SERVING_TOKENS_MAX 512
#define SERVING_PROMPT_MAX 200
#define SERVING_BACKENDS 3

/* "ref", "cpu", "cuda". */
extern const char *const serving_backends[SERVING_BACKENDS];

struct serving {
    struct kern_ctx *ctx;
    struct tiny tiny;
    struct paramem_engine *engine;
    int64_t now_us;
    struct memos_clock clock;
};

/* What one request was told. */
struct serving_heard {
    uint32_t ids[SERVING_TOKENS_MAX];
    float logprobs[SERVING_TOKENS_MAX];
    size_t count;
    struct paramem_result result;
    bool done;
};

void serving_hear_token(void *self, const struct paramem_token *token);
void serving_hear_done(void *self, const struct paramem_result *result);

/* A context and a model, no engine yet; false: this machine has no such backend, which is cuda. */
bool serving_open(struct serving *f, const char *backend, struct tiny_shape shape);
/* So many rounds of something; few with an emulated GPU, where a step takes long. */
size_t serving_rounds(const struct serving *f, size_t count);
void serving_close(struct serving *f);

/* Bytes of so many pages. */
size_t serving_pages_bytes(const struct serving *f, enum kern_dtype kv, size_t pages);
struct paramem_engine *serving_engine(
    struct serving *f, size_t pages, size_t sequences, size_t tokens_step, bool prefix_cache);

/* One whose cache has that type, three sequences and 64 tokens a step; in place of f->engine. */
struct paramem_engine *serving_engine_of(struct serving *f, enum kern_dtype kv, size_t pages);
void serving_engine_anew(struct serving *f, enum kern_dtype kv, size_t pages);

/* Greedy, heard by `heard`. */
struct paramem_request serving_request(
    const uint32_t *prompt, size_t count, size_t max_tokens, struct serving_heard *heard);
uint64_t serving_submit(struct paramem_engine *engine, const struct paramem_request *request);
void serving_run(struct paramem_engine *engine);

/* `tokens` greedy tokens, whatever they are. */
void serving_generate(struct paramem_engine *engine, const uint32_t *prompt, size_t count,
    size_t tokens, struct serving_heard *out);
/* The same tokens with the same log probabilities, to the bit. */
void serving_assert_same(const struct serving_heard *a, const struct serving_heard *b);

/* A capture in memory of its own, sealed and checked, made by f->engine. */
struct serving_kept {
    struct kern_ctx *ctx;
    void *memory;
    struct paramem_kv_cube cube;
};
void serving_capture(struct serving *f, const uint32_t *ids, size_t count, enum kern_dtype dtype,
    struct serving_kept *out);
/* Of the tokens from `first` on. */
void serving_capture_from(struct serving *f, const uint32_t *ids, size_t count, size_t first,
    enum kern_dtype dtype, struct serving_kept *out);
void serving_kept_free(struct serving_kept *kept);

/* Nobody is there, and no page is kept from the next. */
void serving_assert_idle(const struct paramem_engine *engine);

/* Ids that are neither bos nor stop. */
void serving_prompt(uint64_t *state, uint32_t *out, size_t count);

/* Greedy tokens are the most likely of the plainly computed model (or within what float32 cannot
 * tell apart), with its log probabilities. */
void serving_assert_greedy(
    struct serving *f, const uint32_t *prompt, size_t count, const struct serving_heard *heard);

#endif
