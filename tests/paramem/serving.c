#include "tests/paramem/serving.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define OK(call) assert_int_equal(call, MEMOS_OK)

const char *const serving_backends[SERVING_BACKENDS] = {"ref", "cpu", "cuda"};

void serving_hear_token(void *self, const struct paramem_token *token)
{
    struct serving_heard *heard = self;
    assert_false(heard->done);
    assert_true(heard->count < SERVING_TOKENS_MAX);
    heard->ids[heard->count] = token->id;
    heard->logprobs[heard->count++] = token->logprob;
}

void serving_hear_done(void *self, const struct paramem_result *result)
{
    struct serving_heard *heard = self;
    assert_false(heard->done);
    assert_int_equal(result->tokens, heard->count);
    heard->done = true;
    heard->result = *result;
}

bool serving_open(struct serving *f, const char *backend, struct tiny_shape shape)
{
    struct kern_options options = {.backend = backend, .threads = 2};
    memset(f, 0, sizeof *f);
    f->clock = memos_clock_fixed(&f->now_us);
    if (kern_ctx_create(&options, &f->ctx, NULL) != MEMOS_OK) {
        assert_string_equal(backend, "cuda");
        return false;
    }
    tiny_make(f->ctx, &shape, &f->tiny);
    return true;
}

size_t serving_rounds(const struct serving *f, size_t count)
{
    return strstr(kern_ctx_name(f->ctx), "emulated") ? (count + 24) / 25 : count;
}

void serving_close(struct serving *f)
{
    paramem_engine_destroy(&f->engine);
    tiny_free(&f->tiny);
    kern_ctx_destroy(&f->ctx);
}

/* Bytes of so many pages. */
size_t serving_pages_bytes(const struct serving *f, enum kern_dtype kv, size_t pages)
{
    const struct tiny_shape *s = &f->tiny.shape;
    return pages * s->layers * kern_kv_page_bytes(kv, s->kv_heads, s->head_dim);
}

struct paramem_engine *serving_engine(
    struct serving *f, size_t pages, size_t sequences, size_t tokens_step, bool prefix_cache)
{
    struct paramem_engine *engine = NULL;
    struct paramem_engine_options options = {.model = &f->tiny.model,
        .kv = KERN_F32,
        .kv_bytes = serving_pages_bytes(f, KERN_F32, pages),
        .sequences_max = sequences,
        .tokens_step = tokens_step,
        .no_prefix_cache = !prefix_cache,
        .clock = &f->clock};
    OK(paramem_engine_create(&options, &engine, NULL));
    return engine;
}

struct paramem_request serving_request(
    const uint32_t *prompt, size_t count, size_t max_tokens, struct serving_heard *heard)
{
    return (struct paramem_request){.prompt = prompt,
        .prompt_count = count,
        .max_tokens = max_tokens,
        .on_token = serving_hear_token,
        .on_done = serving_hear_done,
        .self = heard};
}

uint64_t serving_submit(struct paramem_engine *engine, const struct paramem_request *request)
{
    uint64_t id = 0;
    struct memos_error err;
    if (paramem_engine_submit(engine, request, &id, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_not_equal(id, 0);
    return id;
}

void serving_run(struct paramem_engine *engine)
{
    bool more = true;
    for (size_t steps = 0; more; steps++) {
        assert_true(steps < 100000);
        OK(paramem_engine_step(engine, &more, NULL));
    }
}

struct paramem_engine *serving_engine_of(struct serving *f, enum kern_dtype kv, size_t pages)
{
    struct paramem_engine *engine = NULL;
    struct paramem_engine_options options = {.model = &f->tiny.model,
        .kv = kv,
        .kv_bytes = serving_pages_bytes(f, kv, pages),
        .sequences_max = 3,
        .tokens_step = 64,
        .clock = &f->clock};
    OK(paramem_engine_create(&options, &engine, NULL));
    return engine;
}

void serving_engine_anew(struct serving *f, enum kern_dtype kv, size_t pages)
{
    paramem_engine_destroy(&f->engine);
    f->engine = serving_engine_of(f, kv, pages);
}

void serving_generate(struct paramem_engine *engine, const uint32_t *prompt, size_t count,
    size_t tokens, struct serving_heard *out)
{
    memset(out, 0, sizeof *out);
    struct paramem_request request = serving_request(prompt, count, tokens, out);
    request.no_model_stops = true;
    serving_submit(engine, &request);
    serving_run(engine);
    assert_int_equal(out->count, tokens);
}

void serving_assert_same(const struct serving_heard *a, const struct serving_heard *b)
{
    assert_int_equal(a->count, b->count);
    assert_memory_equal(a->ids, b->ids, a->count * sizeof *a->ids);
    assert_memory_equal(a->logprobs, b->logprobs, a->count * sizeof *a->logprobs);
}

void serving_capture(struct serving *f, const uint32_t *ids, size_t count, enum kern_dtype dtype,
    struct serving_kept *out)
{
    serving_capture_from(f, ids, count, 0, dtype, out);
}

void serving_capture_from(struct serving *f, const uint32_t *ids, size_t count, size_t first,
    enum kern_dtype dtype, struct serving_kept *out)
{
    struct memos_error err;
    size_t bytes = paramem_engine_capture_bytes(f->engine, count - first, dtype);
    assert_int_not_equal(bytes, 0);
    out->ctx = f->ctx;
    OK(kern_host_alloc(f->ctx, bytes, &out->memory, NULL));
    memset(out->memory, 0x55, bytes);
    const struct paramem_capture asked = {
        .ids = ids, .count = count, .first = first, .dtype = dtype, .memory = out->memory};
    if (paramem_engine_capture(f->engine, &asked, &out->cube, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(out->cube.bytes.size, bytes);
    paramem_kv_cube_seal(&out->cube, out->memory, f->ctx);
    OK(paramem_kv_cube_read(out->cube.bytes, &out->cube, NULL));
    OK(paramem_kv_cube_check(&out->cube, f->ctx, true, NULL));
}

void serving_kept_free(struct serving_kept *kept)
{
    kern_host_release(kept->ctx, &kept->memory);
}

/* Nobody is there, and no page is kept from the next. */
void serving_assert_idle(const struct paramem_engine *engine)
{
    struct paramem_engine_stats stats;
    paramem_engine_stats(engine, &stats);
    assert_int_equal(stats.running + stats.waiting, 0);
    assert_int_equal(stats.pages_used, 0);
}

void serving_prompt(uint64_t *state, uint32_t *out, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = 3 + (uint32_t)tiny_below(state, SERVING_VOCAB - 3);
    }
}

/* ---- against the model --------------------------------------------------------------------- */

/* Greedy tokens are the most likely of the plainly computed model (or within what float32 cannot
 * tell apart), with its log probabilities. */
void serving_assert_greedy(
    struct serving *f, const uint32_t *prompt, size_t count, const struct serving_heard *heard)
{
    uint32_t ids[SERVING_TOKENS_MAX];
    double *logits = calloc((count + heard->count) * SERVING_VOCAB, sizeof *logits);
    assert_non_null(logits);
    memcpy(ids, prompt, count * sizeof *ids);
    memcpy(ids + count, heard->ids, heard->count * sizeof *ids);
    tiny_logits(&f->tiny, ids, count + heard->count, logits);
    for (size_t i = 0; i < heard->count; i++) {
        const double *row = logits + (count + i - 1) * SERVING_VOCAB;
        double most = row[0], sum = 0;
        for (size_t v = 0; v < SERVING_VOCAB; v++) {
            most = fmax(most, row[v]);
        }
        for (size_t v = 0; v < SERVING_VOCAB; v++) {
            sum += exp(row[v] - most);
        }
        assert_true(row[heard->ids[i]] >= most - 1e-3);
        double logprob = row[heard->ids[i]] - most - log(sum);
        assert_true(fabs(logprob - (double)heard->logprobs[i]) < 1e-3);
    }
    free(logits);
}
