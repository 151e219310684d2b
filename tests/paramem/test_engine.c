/* The engine: requests that share passes, pages and beginnings, against the same requests alone and
 * against the model computed plainly.
 *
 * If these failed, what a user is told would depend on who else asks at the time. */
#include "tests/paramem/decode.h"
#include "tests/paramem/golden.h"
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

/* ---- against the model --------------------------------------------------------------------- */

static void greedy_is_the_model(void **unused)
{
    (void)unused;
    const struct tiny_shape shapes[] = {tiny_llama(), tiny_qwen2(), tiny_qwen3(), tiny_mistral()};
    for (size_t b = 0; b < SERVING_BACKENDS; b++) {
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
            static struct serving_heard heard[3];
            uint32_t prompts[3][SERVING_PROMPT_MAX];
            const size_t counts[3] = {1, 64, 101};
            uint64_t state = 5 + i;
            struct serving f;
            if (!serving_open(&f, serving_backends[b], shapes[i])) {
                continue;
            }
            memset(heard, 0, sizeof heard);
            f.engine = serving_engine(&f, 40, 3, 32, true);
            for (size_t r = 0; r < 3; r++) {
                serving_prompt(&state, prompts[r], counts[r]);
                struct paramem_request request =
                    serving_request(prompts[r], counts[r], 64, &heard[r]);
                request.no_model_stops = true;
                serving_submit(f.engine, &request);
            }
            serving_run(f.engine);
            for (size_t r = 0; r < 3; r++) {
                assert_int_equal(heard[r].result.finish, PARAMEM_FINISH_LENGTH);
                assert_int_equal(heard[r].count, 64);
                serving_assert_greedy(&f, prompts[r], counts[r], &heard[r]);
            }
            serving_assert_idle(f.engine);
            serving_close(&f);
        }
    }
}

/* ---- against transformers ------------------------------------------------------------------- */

/* Greedy tokens of real families, read in small chunks beside others that come and go. */
static void golden_engine(const char *backend, const char *name)
{
    static struct serving_heard heard[6];
    char path[GOLDEN_PATH_BYTES];
    uint32_t noise[40];
    uint64_t state = 31;
    struct decode_golden golden = decode_golden_read(name);
    struct kern_options options = {.backend = backend, .threads = 2};
    struct kern_ctx *ctx = NULL;
    struct paramem_model *model = NULL;
    struct paramem_engine *engine = NULL;
    memset(heard, 0, sizeof heard);
    if (kern_ctx_create(&options, &ctx, NULL) == MEMOS_OK) {
        struct paramem_model_options open = {
            .path = decode_path(name, path), .ctx = ctx, .weights = KERN_F32, .ids_only = true};
        OK(paramem_model_open(&open, &model, NULL));
        struct paramem_engine_options serve = {.model = model,
            .kv = KERN_F32,
            .sequences_max = 4,
            .tokens_step = 13,
            .kv_bytes = (size_t)8 << 20};
        OK(paramem_engine_create(&serve, &engine, NULL));
        for (size_t i = 0; i < 6; i++) {
            bool more = false;
            struct paramem_request request =
                serving_request(golden.ids, golden.prompt, golden.greedy, &heard[i]);
            request.no_model_stops = true;
            if (i % 2 == 1) {
                for (size_t j = 0; j < 40; j++) {
                    noise[j] = (uint32_t)tiny_below(&state, golden.vocab);
                }
                request.prompt = noise;
                request.prompt_count = 40;
            }
            serving_submit(engine, &request);
            OK(paramem_engine_step(engine, &more, NULL));
        }
        serving_run(engine);
        for (size_t i = 0; i < 6; i += 2) {
            assert_int_equal(heard[i].count, golden.greedy);
            assert_memory_equal(
                heard[i].ids, golden.ids + golden.prompt, golden.greedy * sizeof *golden.ids);
        }
        paramem_engine_destroy(&engine);
        paramem_model_close(&model);
        kern_ctx_destroy(&ctx);
    } else {
        assert_string_equal(backend, "cuda");
    }
    decode_golden_free(&golden);
}

static void greedy_is_transformers(void **unused)
{
    (void)unused;
    static const char *const families[] = {
        "llama2", "llama3", "mistral", "qwen2", "qwen2_yarn", "qwen3", "smollm", "biased"};
    for (size_t b = 0; b < SERVING_BACKENDS; b++) {
        for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
            golden_engine(serving_backends[b], families[i]);
        }
    }
}

/* ---- alone or beside others ----------------------------------------------------------------- */

#define REQUESTS 1000
#define BEGINNINGS 4

struct trial {
    uint32_t prompt[SERVING_PROMPT_MAX], stop_id;
    struct paramem_bias biases[3];
    struct paramem_request request;
    uint64_t id;
    struct serving_heard heard, alone;
};

static void trial_make(
    uint64_t *state, uint32_t beginnings[BEGINNINGS][SERVING_PROMPT_MAX], struct trial *trial)
{
    size_t shared = tiny_below(state, 3) * 45, tail = 1 + tiny_below(state, 40);
    memset(trial, 0, sizeof *trial);
    memcpy(trial->prompt, beginnings[tiny_below(state, BEGINNINGS)], shared * sizeof(uint32_t));
    serving_prompt(state, trial->prompt + shared, tail);
    trial->request =
        serving_request(trial->prompt, shared + tail, 1 + tiny_below(state, 110), &trial->heard);
    trial->stop_id = (uint32_t)tiny_below(state, SERVING_VOCAB);
    trial->request.stop_ids = &trial->stop_id;
    trial->request.stop_ids_count = tiny_below(state, 2);
    trial->request.top = tiny_below(state, 4);
    if (tiny_below(state, 3) == 0) {
        return;
    }
    struct paramem_sampling *sampling = &trial->request.sampling;
    sampling->temperature = 0.5F + (float)tiny_below(state, 10) / 10;
    sampling->seed = tiny_next(state);
    sampling->top_k = tiny_below(state, 2) * (1 + tiny_below(state, 60));
    sampling->top_p = tiny_below(state, 2) ? 0.9F : 0;
    sampling->min_p = tiny_below(state, 2) ? 0.02F : 0;
    sampling->repetition = tiny_below(state, 2) ? 1.2F : 0;
    sampling->biases = trial->biases;
    sampling->biases_count = tiny_below(state, 4);
    for (size_t i = 0; i < 3; i++) {
        trial->biases[i] = (struct paramem_bias){.id = (uint32_t)(90 - 30 * i),
            .bias = tiny_below(state, 2) ? -INFINITY : (float)tiny_below(state, 5) - 2};
    }
}

/* Each by itself, in small chunks, without the prefix cache. */
static void run_alone(struct serving *f, struct trial *trials, size_t count)
{
    struct paramem_engine *engine = serving_engine(f, 16, 1, 7, false);
    for (size_t i = 0; i < count; i++) {
        struct paramem_request request = trials[i].request;
        request.self = &trials[i].alone;
        request.deadline_us = 0;
        serving_submit(engine, &request);
        serving_run(engine);
    }
    serving_assert_idle(engine);
    paramem_engine_destroy(&engine);
}

static void run_together(struct serving *f, struct trial *trials, size_t count, uint64_t *state)
{
    bool more = true;
    for (size_t sent = 0; sent < count || more; f->now_us += 1000) {
        for (size_t burst = tiny_below(state, 4); burst > 0 && sent < count; burst--, sent++) {
            struct trial *trial = &trials[sent];
            if (tiny_below(state, 10) == 0) {
                trial->request.deadline_us = (uint64_t)f->now_us + 1000 * tiny_below(state, 90);
            }
            trial->id = serving_submit(f->engine, &trial->request);
        }
        if (sent > 0 && tiny_below(state, 20) == 0) {
            paramem_engine_cancel(f->engine, trials[tiny_below(state, sent)].id);
        }
        OK(paramem_engine_step(f->engine, &more, NULL));
    }
}

/* What was told is what is told alone, to the bit; of what was broken off, the beginning. */
static void assert_alike(const struct trial *trial, bool exact)
{
    const struct serving_heard *heard = &trial->heard, *alone = &trial->alone;
    enum paramem_finish finish = heard->result.finish;
    bool broken = finish == PARAMEM_FINISH_CANCELLED || finish == PARAMEM_FINISH_DEADLINE;
    assert_true(heard->done && alone->done);
    if (!exact) {
        return;
    }
    assert_true(broken || finish == alone->result.finish);
    assert_true(broken ? heard->count <= alone->count : heard->count == alone->count);
    assert_memory_equal(heard->ids, alone->ids, heard->count * sizeof *heard->ids);
    assert_memory_equal(heard->logprobs, alone->logprobs, heard->count * sizeof(float));
}

static uint64_t seed_of(void)
{
    const char *given = getenv("MEMOS_TEST_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 0) : 20261127;
    print_message("MEMOS_TEST_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

static void company_changes_nothing(void **unused)
{
    (void)unused;
    uint64_t seed = seed_of();
    struct trial *trials = calloc(REQUESTS, sizeof *trials);
    assert_non_null(trials);
    for (size_t b = 0; b < SERVING_BACKENDS; b++) {
        size_t count = strcmp(serving_backends[b], "ref") == 0 ? REQUESTS / 10 : REQUESTS,
               greedy = 0;
        struct paramem_engine_stats stats;
        uint32_t beginnings[BEGINNINGS][SERVING_PROMPT_MAX];
        uint64_t state = seed;
        struct serving f;
        if (!serving_open(&f, serving_backends[b], b == 0 ? tiny_mistral() : tiny_qwen3())) {
            continue;
        }
        count = serving_rounds(&f, count);
        for (size_t i = 0; i < BEGINNINGS; i++) {
            serving_prompt(&state, beginnings[i], SERVING_PROMPT_MAX);
        }
        for (size_t i = 0; i < count; i++) {
            trial_make(&state, beginnings, &trials[i]);
        }
        f.engine = serving_engine(&f, 10, 6, 48, true);
        run_together(&f, trials, count, &state);
        serving_assert_idle(f.engine);
        paramem_engine_stats(f.engine, &stats);
        run_alone(&f, trials, count);
        for (size_t i = 0; i < count; i++) {
            assert_alike(&trials[i], strcmp(serving_backends[b], "cuda") != 0);
            if (trials[i].request.sampling.temperature == 0 && greedy < 20) {
                serving_assert_greedy(
                    &f, trials[i].prompt, trials[i].request.prompt_count, &trials[i].heard);
                greedy++;
            }
        }
        print_message("%s: %llu steps, %llu prompt tokens, %llu cached, %llu preempted, "
                      "%llu broken off\n",
            kern_ctx_name(f.ctx), (unsigned long long)stats.steps,
            (unsigned long long)stats.prompt_tokens, (unsigned long long)stats.cached_tokens,
            (unsigned long long)stats.preempted, (unsigned long long)stats.cancelled);
        assert_int_equal(stats.requests, count);
        assert_true(stats.preempted > 0 && stats.cached_tokens > 0 && stats.cancelled > 0);
        serving_close(&f);
    }
    free(trials);
}

/* ---- beginnings that are shared ------------------------------------------------------------- */

/* Of eight that come at once with the same long beginning, one computes it. */
static void a_beginning_is_computed_once(void **unused)
{
    (void)unused;
    static struct serving_heard heard[9];
    uint32_t prompts[9][SERVING_PROMPT_MAX];
    uint64_t state = 9;
    struct paramem_engine_stats stats;
    struct serving f;
    memset(heard, 0, sizeof heard);
    assert_true(serving_open(&f, "cpu", tiny_llama()));
    f.engine = serving_engine(&f, 64, 8, 512, true);
    serving_prompt(&state, prompts[0], 100);
    for (size_t i = 0; i < 9; i++) {
        memcpy(prompts[i], prompts[0], sizeof prompts[0]);
        prompts[i][99] = (uint32_t)(10 + i);
        struct paramem_request request = serving_request(prompts[i], 100, 5, &heard[i]);
        request.no_model_stops = true;
        if (i < 8) {
            serving_submit(f.engine, &request);
        }
    }
    serving_run(f.engine);
    paramem_engine_stats(f.engine, &stats);
    /* 96 tokens are three whole pages; four are everybody's own. */
    assert_int_equal(stats.prompt_tokens, 96 + 8 * 4);
    assert_int_equal(stats.cached_tokens, 7 * 96);
    assert_int_equal(heard[0].result.cached_tokens, 0);
    assert_int_equal(heard[7].result.cached_tokens, 96);
    for (size_t i = 0; i < 8; i++) {
        serving_assert_greedy(&f, prompts[i], 100, &heard[i]);
    }
    /* An answer is a beginning too: the next turn of a conversation. */
    memcpy(prompts[8], prompts[0], 100 * sizeof(uint32_t));
    struct paramem_request request = serving_request(prompts[0], 100, 50, &heard[8]);
    request.no_model_stops = true;
    serving_submit(f.engine, &request);
    serving_run(f.engine);
    memcpy(prompts[8] + 100, heard[8].ids, 50 * sizeof(uint32_t));
    memset(&heard[8], 0, sizeof heard[8]);
    request = serving_request(prompts[8], 150, 5, &heard[8]);
    request.no_model_stops = true;
    serving_submit(f.engine, &request);
    serving_run(f.engine);
    assert_int_equal(heard[8].result.cached_tokens, 128);
    serving_assert_greedy(&f, prompts[8], 150, &heard[8]);
    serving_assert_idle(f.engine);
    serving_close(&f);
}

/* What was made of one owner's texts is gone, also of what still runs; another's is not. */
static void what_is_dropped_is_computed_again(void **unused)
{
    (void)unused;
    static struct serving_heard heard[5];
    uint32_t prompts[2][SERVING_PROMPT_MAX];
    static const size_t asked[5] = {0, 1, 0, 1, 0}, cached[5] = {0, 0, 0, 64, 64};
    uint64_t state = 31;
    struct serving f;
    bool more = true;
    memset(heard, 0, sizeof heard);
    assert_true(serving_open(&f, "cpu", tiny_llama()));
    f.engine = serving_engine(&f, 64, 4, 512, true);
    serving_prompt(&state, prompts[0], 70);
    serving_prompt(&state, prompts[1], 70);
    for (size_t i = 0; i < 5; i++) {
        struct paramem_request request =
            serving_request(prompts[asked[i]], 70, i == 0 ? 40 : 5, &heard[i]);
        request.no_model_stops = true;
        request.owner = 1 + asked[i];
        serving_submit(f.engine, &request);
        for (size_t steps = 0; i == 1 && steps < 10 && more; steps++) {
            OK(paramem_engine_step(f.engine, &more, NULL));
        }
        if (i == 1) { /* the first one still runs, the second one has ended */
            assert_true(!heard[0].done && heard[1].done);
            paramem_engine_drop(f.engine, 1);
        }
        if (i > 0) {
            serving_run(f.engine);
        }
    }
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(heard[i].result.cached_tokens, cached[i]);
        serving_assert_greedy(&f, prompts[asked[i]], 70, &heard[i]);
    }
    paramem_engine_drop(f.engine, 0);
    struct paramem_engine_stats stats;
    paramem_engine_stats(f.engine, &stats);
    assert_int_equal(stats.pages_cached, 0);
    serving_assert_idle(f.engine);
    serving_close(&f);
}

/* ---- scoring -------------------------------------------------------------------------------- */

static void scores_are_the_model(void **unused)
{
    (void)unused;
    for (size_t b = 0; b < SERVING_BACKENDS; b++) {
        uint32_t ids[300];
        float out[299];
        double *logits = calloc((size_t)96 * SERVING_VOCAB, sizeof *logits);
        uint64_t state = 21;
        struct serving_heard heard = {0};
        bool more = true;
        struct serving f;
        assert_non_null(logits);
        if (!serving_open(&f, serving_backends[b], tiny_llama())) {
            free(logits);
            continue;
        }
        f.engine = serving_engine(&f, 3, 2, 20, true); /* a context of 96 */
        serving_prompt(&state, ids, 300);
        /* Something runs, and loses its pages to the score. */
        struct paramem_request request = serving_request(ids, 40, 30, &heard);
        request.no_model_stops = true;
        serving_submit(f.engine, &request);
        for (size_t i = 0; i < 5; i++) {
            OK(paramem_engine_step(f.engine, &more, NULL));
        }
        OK(paramem_engine_score(f.engine, ids, 300, 30, out, NULL));
        for (size_t begin = 0, told = 0; told < 299; begin += 66) {
            size_t length = 300 - begin < 96 ? 300 - begin : 96;
            tiny_logits(&f.tiny, ids + begin, length, logits);
            for (size_t row = told - begin; row < length && begin + row + 1 < 300; row++) {
                double most = -INFINITY, sum = 0;
                for (size_t v = 0; v < SERVING_VOCAB; v++) {
                    most = fmax(most, logits[row * SERVING_VOCAB + v]);
                }
                for (size_t v = 0; v < SERVING_VOCAB; v++) {
                    sum += exp(logits[row * SERVING_VOCAB + v] - most);
                }
                double want = logits[row * SERVING_VOCAB + ids[begin + row + 1]] - most - log(sum);
                assert_true(fabs(want - (double)out[told]) < 1e-3);
                told++;
            }
        }
        serving_run(f.engine);
        serving_assert_greedy(&f, ids, 40, &heard);
        serving_assert_idle(f.engine);
        assert_int_equal(paramem_engine_score(f.engine, ids, 1, 0, out, NULL), MEMOS_INVALID);
        assert_int_equal(paramem_engine_score(f.engine, ids, 97, 96, out, NULL), MEMOS_INVALID);
        ids[3] = SERVING_VOCAB;
        assert_int_equal(paramem_engine_score(f.engine, ids, 10, 0, out, NULL), MEMOS_INVALID);
        serving_close(&f);
        free(logits);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_is_the_model),
        cmocka_unit_test(greedy_is_transformers),
        cmocka_unit_test(company_changes_nothing),
        cmocka_unit_test(a_beginning_is_computed_once),
        cmocka_unit_test(what_is_dropped_is_computed_again),
        cmocka_unit_test(scores_are_the_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
