/* Prompts of which ranges come out of captures made elsewhere: what such a prompt says, and that
 * nobody else is told it.
 *
 * If these failed, a user's memory would be put in the wrong place or beside the wrong text; or an
 * answer that was to be exact would be made from numbers that only another's request had asked
 * for. */
#include "tests/paramem/refusing.h"
#include "tests/paramem/serving.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define OK(call) assert_int_equal(call, MEMOS_OK)
#define BLOCKS 3
#define PROMPT_MAX 330
#define ROWS_MAX (2 * PROMPT_MAX)
#define ANSWER 6
#define PAGES 40

/* ---- faults -------------------------------------------------------------------------------- */

static bool device_lost;

enum memos_status __real_kern_sync(struct kern_ctx *ctx, struct memos_error *err);
enum memos_status __wrap_kern_sync(struct kern_ctx *ctx, struct memos_error *err);
enum memos_status __wrap_kern_sync(struct kern_ctx *ctx, struct memos_error *err)
{
    return device_lost ? memos_fail(err, MEMOS_IO, "the device is lost")
                       : __real_kern_sync(ctx, err);
}

/* ---- scenes -------------------------------------------------------------------------------- */

/* A prompt with blocks in it, each captured behind `lead` tokens that the prompt has not. */
struct scene {
    uint32_t prompt[PROMPT_MAX];
    size_t count;
    uint32_t texts[BLOCKS][PROMPT_MAX];
    struct paramem_placed placed[BLOCKS];
    struct serving_kept kept[BLOCKS];
};

static void gap(struct scene *scene, uint64_t *state, size_t tokens)
{
    serving_prompt(state, scene->prompt + scene->count, tokens);
    scene->count += tokens;
}

/* Blocks of up to 90 tokens with up to 30 between them, and in one of three scenes nothing behind
 * them. */
static void scene_make(
    struct scene *scene, struct serving *f, uint64_t *state, enum kern_dtype dtype)
{
    memset(scene, 0, sizeof *scene);
    gap(scene, state, 1 + tiny_below(state, 40));
    for (size_t i = 0; i < BLOCKS; i++) {
        size_t most = scene->count < 20 ? scene->count : 20;
        size_t lead = tiny_below(state, most + 1), tokens = 1 + tiny_below(state, 90 - lead);
        size_t all = lead + tokens + tiny_below(state, 10);
        serving_prompt(state, scene->texts[i], all);
        memcpy(
            scene->prompt + scene->count, scene->texts[i] + lead, tokens * sizeof *scene->prompt);
        serving_capture(f, scene->texts[i], all, dtype, &scene->kept[i]);
        scene->placed[i] = (struct paramem_placed){.cube = &scene->kept[i].cube,
            .first_in_cube = lead,
            .tokens = tokens,
            .at = scene->count,
            .recompute = tiny_below(state, 2) * tiny_below(state, tokens + 1)};
        scene->count += tokens;
        gap(scene, state, tiny_below(state, 2) * tiny_below(state, 15));
    }
    gap(scene, state, tiny_below(state, 3) > 0 ? tiny_below(state, 15) : 0);
}

static void scene_free(struct scene *scene)
{
    for (size_t i = 0; i < BLOCKS; i++) {
        serving_kept_free(&scene->kept[i]);
    }
}

/* Tokens that come out of captures. */
static size_t taken(const struct scene *scene, size_t at)
{
    for (size_t i = 0; i < BLOCKS; i++) {
        const struct paramem_placed *p = &scene->placed[i];
        if (at >= p->at + p->recompute && at < p->at + p->tokens && at + 1 < scene->count) {
            return 1;
        }
    }
    return 0;
}

static size_t taken_all(const struct scene *scene)
{
    size_t sum = 0;
    for (size_t i = 0; i < scene->count; i++) {
        sum += taken(scene, i);
    }
    return sum;
}

static struct paramem_request scene_request(
    const struct scene *scene, size_t tokens, struct serving_heard *heard)
{
    memset(heard, 0, sizeof *heard);
    struct paramem_request request = serving_request(scene->prompt, scene->count, tokens, heard);
    request.no_model_stops = true;
    request.placed = scene->placed;
    request.placed_count = BLOCKS;
    return request;
}

static void scene_ask(
    struct paramem_engine *engine, const struct scene *scene, struct serving_heard *heard)
{
    struct paramem_request request = scene_request(scene, ANSWER, heard);
    serving_submit(engine, &request);
    serving_run(engine);
    assert_int_equal(heard->count, ANSWER);
}

/* ---- against the model --------------------------------------------------------------------- */

/* All rows that there are: each capture's, then those of prompt and answer that are computed. */
struct rows {
    uint32_t ids[ROWS_MAX], positions[ROWS_MAX];
    bool sees[ROWS_MAX * ROWS_MAX];
    bool shown[ROWS_MAX]; /* to the prompt's own rows */
    size_t count;
};

static void rows_of_block(struct rows *rows, const struct scene *scene, size_t block)
{
    const struct paramem_placed *p = &scene->placed[block];
    size_t begin = rows->count, count = p->first_in_cube + p->tokens;
    for (size_t i = 0; i < count; i++, rows->count++) {
        size_t at = p->at + i - p->first_in_cube;
        rows->ids[rows->count] = scene->texts[block][i];
        rows->positions[rows->count] = (uint32_t)at;
        rows->shown[rows->count] = i >= p->first_in_cube + p->recompute && at + 1 < scene->count;
        for (size_t j = begin; j < rows->count; j++) {
            rows->sees[rows->count * ROWS_MAX + j] = true;
        }
    }
}

static void rows_make(
    struct rows *rows, const struct scene *scene, const struct serving_heard *heard)
{
    memset(rows, 0, sizeof *rows);
    for (size_t i = 0; i < BLOCKS; i++) {
        rows_of_block(rows, scene, i);
    }
    for (size_t at = 0; at < scene->count + heard->count; at++) {
        bool prompt = at < scene->count;
        if (prompt && taken(scene, at)) {
            continue;
        }
        size_t row = rows->count++;
        rows->ids[row] = prompt ? scene->prompt[at] : heard->ids[at - scene->count];
        rows->positions[row] = (uint32_t)at;
        for (size_t j = 0; j < row; j++) {
            rows->sees[row * ROWS_MAX + j] = rows->shown[j] && rows->positions[j] < at;
        }
        rows->shown[row] = true;
    }
}

static double logprob_of(const double *row, uint32_t id, double *out_behind)
{
    double most = row[0], sum = 0;
    for (size_t v = 0; v < SERVING_VOCAB; v++) {
        most = fmax(most, row[v]);
    }
    for (size_t v = 0; v < SERVING_VOCAB; v++) {
        sum += exp(row[v] - most);
    }
    *out_behind = most - row[id];
    return row[id] - most - log(sum);
}

/* Log probabilities are those of the model with these rows, and every token is its likeliest, but
 * for `rounding` of twice the largest logit (see test_kv_cube.c) and what float32 cannot tell. How
 * far they are, in the same measure. */
static double far_from_model(struct serving *f, const struct scene *scene,
    const struct serving_heard *heard, double rounding)
{
    static struct rows rows;
    rows_make(&rows, scene, heard);
    size_t n = rows.count;
    bool *sees = malloc(n * n);
    double *logits = calloc(n * SERVING_VOCAB, sizeof *logits), worst = 0, largest = 0;
    assert_true(sees && logits);
    for (size_t i = 0; i < n; i++) {
        memcpy(sees + i * n, rows.sees + i * ROWS_MAX, n);
    }
    const struct tiny_text text = {rows.ids, rows.positions, sees, n};
    tiny_logits_of(&f->tiny, &text, logits);
    const double *answer = logits + (n - heard->count - 1) * SERVING_VOCAB;
    for (size_t i = 0; i < heard->count * SERVING_VOCAB; i++) {
        largest = fmax(largest, fabs(answer[i]));
    }
    for (size_t i = 0; i < heard->count; i++) {
        double behind, told = (double)heard->logprobs[i];
        const double *row = answer + i * SERVING_VOCAB;
        double far = fabs(logprob_of(row, heard->ids[i], &behind) - told);
        worst = fmax(worst, far / (2 * largest));
        assert_true(far <= 1e-3 + rounding * 2 * largest);
        assert_true(behind <= 1e-3 + rounding * 2 * largest);
    }
    free(sees);
    free(logits);
    return worst;
}

/* Whatever the ranges, their places and what is computed of them: the model in float64, in which
 * the rows of a capture see what they saw when they were captured. */
static void placed_is_what_it_says(void **unused)
{
    (void)unused;
    static struct serving_heard heard;
    static struct scene scene;
    const char *text = getenv("MEMOS_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 10) : 20261127;
    const struct tiny_shape shapes[] = {tiny_llama(), tiny_qwen2(), tiny_qwen3(), tiny_mistral()};
    print_message("MEMOS_TEST_SEED=%llu\n", (unsigned long long)seed);
    for (size_t i = 0; i < SERVING_BACKENDS * 4; i++) {
        struct serving f;
        uint64_t state = seed + i;
        if (!serving_open(&f, serving_backends[i / 4], shapes[i % 4])) {
            continue;
        }
        for (size_t trial = 0; trial < 3; trial++) {
            serving_engine_anew(&f, KERN_F32, PAGES);
            scene_make(&scene, &f, &state, KERN_F32);
            scene_ask(f.engine, &scene, &heard);
            assert_int_equal(heard.result.placed_tokens, taken_all(&scene));
            (void)far_from_model(&f, &scene, &heard, 0);
            serving_assert_idle(f.engine);
            scene_free(&scene);
        }
        serving_close(&f);
    }
}

/* Captures and caches of fewer bits, by the bounds of test_kv_cube.c: one for each that rounds. */
static void rounding_is_bounded(void **unused)
{
    (void)unused;
    static struct serving_heard heard;
    static struct scene scene;
    const struct {
        enum kern_dtype capture, cache;
        double bound;
    } types[] = {{KERN_F16, KERN_F32, 5e-3}, {KERN_BF16, KERN_F32, 4e-2},
        {KERN_E4M3, KERN_F32, 0.15}, {KERN_BF16, KERN_BF16, 8e-2}, {KERN_E4M3, KERN_E4M3, 0.3},
        {KERN_F32, KERN_E4M3, 0.15}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        double worst = 0;
        for (uint64_t seed = 0; seed < 4; seed++) {
            struct serving f;
            uint64_t state = 50 + seed;
            assert_true(serving_open(&f, "cpu", seed % 2 ? tiny_llama() : tiny_qwen3()));
            serving_engine_anew(&f, types[i].cache, PAGES);
            scene_make(&scene, &f, &state, types[i].capture);
            scene_ask(f.engine, &scene, &heard);
            worst = fmax(worst, far_from_model(&f, &scene, &heard, types[i].bound));
            scene_free(&scene);
            serving_close(&f);
        }
        print_message("%s in a cache of %s: log probabilities within %.1e of twice the largest "
                      "logit (%.1e)\n",
            kern_dtype_name(types[i].capture), kern_dtype_name(types[i].cache), worst,
            types[i].bound);
        assert_true(worst > 1e-6); /* it was rounded */
    }
}

/* One capture at the front, in float32, is the text itself. */
static void at_the_front_it_is_the_text(void **unused)
{
    (void)unused;
    static struct serving_heard plain, heard;
    static struct scene scene;
    for (size_t b = 0; b < 2; b++) {
        struct serving f;
        uint64_t state = 3;
        assert_true(serving_open(&f, serving_backends[b], tiny_qwen3()));
        for (size_t tokens = 1; tokens < 100; tokens += 33) {
            struct serving_kept kept;
            memset(&scene, 0, sizeof scene);
            gap(&scene, &state, 120);
            serving_engine_anew(&f, KERN_F32, PAGES);
            serving_generate(f.engine, scene.prompt, scene.count, ANSWER, &plain);
            serving_capture(&f, scene.prompt, tokens, KERN_F32, &kept);
            const struct paramem_placed placed = {.cube = &kept.cube, .tokens = tokens};
            serving_engine_anew(&f, KERN_F32, PAGES);
            struct paramem_request request = scene_request(&scene, ANSWER, &heard);
            request.placed = &placed;
            request.placed_count = 1;
            serving_submit(f.engine, &request);
            serving_run(f.engine);
            assert_int_equal(heard.result.placed_tokens, tokens);
            serving_assert_same(&plain, &heard);
            serving_kept_free(&kept);
        }
        serving_close(&f);
    }
}

/* A text with captures in it is told as the requests with its beginnings are. */
static void scores_are_what_requests_say(void **unused)
{
    (void)unused;
    static struct serving_heard heard;
    static struct scene scene;
    static uint32_t ids[PROMPT_MAX + ANSWER];
    static float told[PROMPT_MAX + ANSWER], plain[PROMPT_MAX + ANSWER];
    for (size_t i = 0; i < 4; i++) {
        struct serving f;
        uint64_t state = 40 + i;
        assert_true(serving_open(&f, serving_backends[i % 2], tiny_llama()));
        serving_engine_anew(&f, KERN_F32, PAGES);
        scene_make(&scene, &f, &state, KERN_F32);
        gap(&scene, &state, 3);
        scene_ask(f.engine, &scene, &heard);
        size_t count = scene.count + ANSWER;
        memcpy(ids, scene.prompt, scene.count * sizeof *ids);
        memcpy(ids + scene.count, heard.ids, ANSWER * sizeof *ids);
        OK(paramem_engine_score_placed(f.engine, ids, count, scene.placed, BLOCKS, told, NULL));
        assert_memory_equal(told + scene.count - 1, heard.logprobs, ANSWER * sizeof *told);
        for (size_t t = 0; t + 1 < count; t++) {
            assert_int_equal(isnan(told[t]), taken(&scene, t));
        }
        OK(paramem_engine_score_placed(f.engine, ids, count, NULL, 0, told, NULL));
        OK(paramem_engine_score(f.engine, ids, count, 0, plain, NULL));
        assert_memory_equal(told, plain, (count - 1) * sizeof *told);
        struct paramem_placed bad = scene.placed[0];
        bad.at++;
        assert_int_equal(
            paramem_engine_score_placed(f.engine, ids, count, &bad, 1, told, NULL), MEMOS_INVALID);
        serving_assert_idle(f.engine);
        scene_free(&scene);
        serving_close(&f);
    }
}

/* ---- who is served beside ------------------------------------------------------------------- */

/* Submit the scene among others that take its pages, while it is read in pieces. */
static void ask_in_company(struct serving *f, struct paramem_engine *engine,
    const struct scene *scene, uint64_t *state, struct serving_heard *out)
{
    static struct serving_heard others[8];
    uint32_t prompt[60];
    memset(others, 0, sizeof others);
    bool more = true;
    for (size_t i = 0; i < 8; i++) {
        size_t count = 1 + tiny_below(state, 60);
        serving_prompt(state, prompt, count);
        struct paramem_request request = serving_request(prompt, count, 30, &others[i]);
        request.no_model_stops = true;
        serving_submit(engine, &request);
        if (i == 2) {
            request = scene_request(scene, ANSWER, out);
            serving_submit(engine, &request);
        }
        OK(paramem_engine_step(engine, &more, NULL));
    }
    serving_run(engine);
    serving_assert_idle(engine);
    (void)f;
}

/* Pieces of a prompt, others, lost pages, other memory, pages that are found again: to the bit. */
static void company_changes_nothing(void **unused)
{
    (void)unused;
    static struct serving_heard plain, heard;
    static struct scene scene;
    size_t preempted = 0;
    for (size_t i = 0; i < 16; i++) {
        struct serving f;
        uint64_t state = 900 + i;
        assert_true(
            serving_open(&f, serving_backends[i % 2], i % 4 < 2 ? tiny_mistral() : tiny_llama()));
        serving_engine_anew(&f, KERN_F32, PAGES);
        scene_make(&scene, &f, &state, KERN_F32);
        scene_ask(f.engine, &scene, &plain);
        scene_ask(f.engine, &scene, &heard);
        serving_assert_same(&plain, &heard);
        size_t all = heard.result.prompt_tokens, found = heard.result.cached_tokens;
        assert_int_equal(found, (all - 1) / 32 * 32);
        assert_true(heard.result.placed_tokens <= taken_all(&scene));

        void *odd[BLOCKS]; /* at an address that the kernels cannot read at */
        for (size_t b = 0; b < BLOCKS; b++) {
            size_t size = scene.kept[b].cube.bytes.size;
            odd[b] = malloc(size + 1);
            assert_non_null(odd[b]);
            memcpy((uint8_t *)odd[b] + 1, scene.kept[b].memory, size);
            OK(paramem_kv_cube_read(
                memos_bytes_make((uint8_t *)odd[b] + 1, size), &scene.kept[b].cube, NULL));
        }
        size_t pages = (scene.count + ANSWER + 31) / 32 + 2;
        struct paramem_engine *engine = serving_engine(&f, pages, 4, 4 + 13 * (i % 3), i % 8 < 6);
        ask_in_company(&f, engine, &scene, &state, &heard);
        serving_assert_same(&plain, &heard);
        struct paramem_engine_stats stats;
        paramem_engine_stats(engine, &stats);
        preempted += stats.preempted;
        paramem_engine_destroy(&engine);
        for (size_t b = 0; b < BLOCKS; b++) {
            free(odd[b]);
        }
        scene_free(&scene);
        serving_close(&f);
    }
    assert_true(preempted > 0);
}

/* What is exact stays so: a plain prompt shares with a placed one what stands before the first
 * capture, and nothing behind it; so do captures and attachments; and other captures of the same
 * ids, or the same in another piece. */
static void nobody_else_is_told(void **unused)
{
    (void)unused;
    static struct serving_heard plain, placed, heard;
    static struct scene scene;
    for (size_t i = 0; i < 8; i++) {
        struct serving f;
        struct serving_kept whole;
        uint64_t state = 70 + i;
        assert_true(serving_open(&f, "cpu", tiny_llama()));
        struct paramem_engine *fresh = serving_engine_of(&f, KERN_F32, PAGES);
        serving_engine_anew(&f, KERN_F32, PAGES);
        scene_make(&scene, &f, &state, KERN_F32);
        size_t shared = 0;
        while (shared + 1 < scene.count && !taken(&scene, shared)) {
            shared++;
        }
        serving_generate(fresh, scene.prompt, scene.count, ANSWER, &plain);
        serving_engine_anew(&f, KERN_F32, PAGES);
        scene_ask(f.engine, &scene, &placed);
        serving_generate(f.engine, scene.prompt, scene.count, ANSWER, &heard);
        serving_assert_same(&plain, &heard);
        assert_int_equal(heard.result.cached_tokens, shared / 32 * 32);

        serving_engine_anew(&f, KERN_F32, PAGES);
        serving_capture(&f, scene.prompt, scene.count, KERN_F32, &whole);
        scene_ask(f.engine, &scene, &heard);
        serving_assert_same(&placed, &heard);
        assert_int_equal(heard.result.cached_tokens, shared / 32 * 32);
        struct paramem_attached told;
        serving_engine_anew(&f, KERN_F32, PAGES);
        scene_ask(f.engine, &scene, &heard);
        OK(paramem_engine_attach(
            f.engine, &(struct paramem_attach){.cube = &whole.cube}, &told, NULL));
        assert_int_equal(told.found, shared / 32 * 32);
        serving_generate(f.engine, scene.prompt, scene.count, ANSWER, &heard);
        serving_assert_same(&plain, &heard);

        serving_kept_free(&whole);
        paramem_engine_destroy(&fresh);
        scene_free(&scene);
        serving_close(&f);
    }
}

/* The same ids out of another capture are something else. */
static void another_capture_is_another_prompt(void **unused)
{
    (void)unused;
    static struct serving_heard heard[5];
    static struct scene scene;
    struct serving f;
    struct serving_kept bare, twice;
    uint64_t state = 5;
    assert_true(serving_open(&f, "cpu", tiny_llama()));
    serving_engine_anew(&f, KERN_F32, PAGES);
    memset(&scene, 0, sizeof scene);
    gap(&scene, &state, 130);
    serving_capture(&f, scene.prompt, 120, KERN_F32, &scene.kept[0]);
    serving_capture(&f, scene.prompt + 20, 100, KERN_F32, &bare);
    memcpy(scene.texts[0], scene.prompt + 20, 100 * sizeof *scene.prompt);
    memcpy(scene.texts[0] + 100, scene.prompt + 20, 100 * sizeof *scene.prompt);
    serving_capture(&f, scene.texts[0], 200, KERN_F32, &twice);
    const struct paramem_placed ways[] = {
        {.cube = &scene.kept[0].cube, .first_in_cube = 20, .tokens = 100, .at = 20},
        {.cube = &bare.cube, .tokens = 100, .at = 20},
        {.cube = &twice.cube, .tokens = 100, .at = 20},
        {.cube = &twice.cube, .first_in_cube = 100, .tokens = 100, .at = 20},
        {.cube = &bare.cube, .tokens = 100, .at = 20, .recompute = 8},
    };
    for (size_t i = 0; i < 5; i++) {
        struct paramem_request request = scene_request(&scene, 1, &heard[i]);
        request.placed = &ways[i];
        request.placed_count = 1;
        serving_submit(f.engine, &request);
        serving_run(f.engine);
        assert_int_equal(heard[i].result.cached_tokens, 0);
        assert_int_equal(heard[i].result.placed_tokens, i < 4 ? 100 : 92);
        for (size_t j = 0; j < i; j++) {
            bool alike = heard[i].logprobs[0] == heard[j].logprobs[0];
            assert_int_equal(alike, i == 2 && j == 1); /* the same text, at the same beginning */
        }
    }
    serving_kept_free(&twice);
    serving_kept_free(&bare);
    serving_kept_free(&scene.kept[0]);
    serving_close(&f);
}

/* ---- faults -------------------------------------------------------------------------------- */

static void assert_refused(struct serving *f, const struct scene *scene,
    const struct paramem_placed *placed, size_t count, enum memos_status status)
{
    static struct serving_heard heard;
    uint64_t id = 0;
    struct memos_error err;
    struct paramem_request request = scene_request(scene, ANSWER, &heard);
    request.placed = placed;
    request.placed_count = count;
    assert_int_equal(paramem_engine_submit(f->engine, &request, &id, &err), status);
    serving_assert_idle(f->engine);
}

static void what_does_not_fit_is_refused(void **unused)
{
    (void)unused;
    static struct scene scene;
    static struct paramem_placed many[PARAMEM_PLACED_MAX + 1];
    struct serving f;
    uint64_t state = 12;
    assert_true(serving_open(&f, "cpu", tiny_llama()));
    serving_engine_anew(&f, KERN_F32, PAGES);
    scene_make(&scene, &f, &state, KERN_F32);
    scene.placed[0].recompute = 0;
    const struct paramem_placed good = scene.placed[0];
    struct paramem_placed bad[] = {good, good, good, good, good, good, good, good};
    bad[0].tokens = 0;
    bad[1].tokens = good.cube->tokens + 1;
    bad[2].first_in_cube = SIZE_MAX;
    bad[3].at = good.at + 1; /* other ids there */
    bad[4].at = scene.count - good.tokens + 1;
    bad[5].at = SIZE_MAX;
    bad[6].recompute = good.tokens + 1;
    bad[7].tokens = SIZE_MAX;
    for (size_t i = 0; i < 8; i++) {
        assert_refused(&f, &scene, &bad[i], 1, MEMOS_INVALID);
    }
    const struct paramem_placed twice[] = {good, good};
    assert_refused(&f, &scene, twice, 2, MEMOS_INVALID);
    const struct paramem_placed back[] = {scene.placed[1], scene.placed[0]};
    assert_refused(&f, &scene, back, 2, MEMOS_INVALID);
    assert_refused(&f, &scene, many, PARAMEM_PLACED_MAX + 1, MEMOS_INVALID);

    struct paramem_kv_cube cube = *good.cube;
    struct paramem_placed other = good;
    uint8_t *bytes = malloc(cube.bytes.size);
    assert_non_null(bytes);
    memcpy(bytes, cube.bytes.data, cube.bytes.size);
    other.cube = &cube;
    bytes[32] ^= 1;
    cube.fingerprint = bytes + 32;
    assert_refused(&f, &scene, &other, 1, MEMOS_STALE);
    cube = *good.cube;
    cube.heads = 1;
    assert_refused(&f, &scene, &other, 1, MEMOS_CORRUPT);
    cube = *good.cube;
    memset(bytes + 64, 0, 32);
    cube.bytes.data = bytes;
    assert_refused(&f, &scene, &other, 1, MEMOS_INVALID);
    free(bytes);
    scene_free(&scene);
    serving_close(&f);
}

/* A prompt with captures is not cut. */
static void a_prompt_is_not_cut(void **unused)
{
    (void)unused;
    static struct serving_heard heard;
    static struct scene scene;
    struct serving f;
    uint64_t state = 12, id = 0;
    assert_true(serving_open(&f, "cpu", tiny_llama()));
    serving_engine_anew(&f, KERN_F32, PAGES);
    scene_make(&scene, &f, &state, KERN_F32);
    struct paramem_request request =
        scene_request(&scene, paramem_engine_context(f.engine) - scene.count + 1, &heard);
    request.overflow = PARAMEM_OVERFLOW_CUT_FRONT;
    assert_int_equal(paramem_engine_submit(f.engine, &request, &id, NULL), MEMOS_TOO_LARGE);
    request.placed_count = 0;
    OK(paramem_engine_submit(f.engine, &request, &id, NULL));
    scene_free(&scene);
    serving_close(&f);
}

/* Memory that ends at any place of a submit refuses that request and no other; no step asks for
 * any. */
static void memory_may_end_anywhere(void **unused)
{
    (void)unused;
    static struct serving_heard heard;
    static struct scene scene;
    struct serving f;
    uint64_t state = 31, id = 0;
    assert_true(serving_open(&f, "cpu", tiny_llama()));
    serving_engine_anew(&f, KERN_F32, PAGES);
    scene_make(&scene, &f, &state, KERN_F32);
    size_t size = scene.kept[1].cube.bytes.size;
    uint8_t *odd = malloc(size + 1); /* so that one goes through the ring */
    assert_non_null(odd);
    memcpy(odd + 1, scene.kept[1].memory, size);
    OK(paramem_kv_cube_read(memos_bytes_make(odd + 1, size), &scene.kept[1].cube, NULL));
    struct paramem_request request = scene_request(&scene, ANSWER, &heard);
    enum memos_status status = MEMOS_NO_MEMORY;
    long places = -1;
    while (status != MEMOS_OK) {
        serving_engine_anew(&f, KERN_F32, PAGES);
        refusing_at = ++places;
        status = paramem_engine_submit(f.engine, &request, &id, NULL);
        refusing_at = -1;
        assert_true(status == MEMOS_OK || status == MEMOS_NO_MEMORY);
    }
    assert_true(places > 7); /* the room needs seven */
    refusing_asked = 0;
    serving_run(f.engine);
    assert_int_equal(refusing_asked, 0);
    assert_true(heard.done);
    assert_int_equal(heard.result.placed_tokens, taken_all(&scene));
    (void)far_from_model(&f, &scene, &heard, 0);
    free(odd);
    scene_free(&scene);
    serving_close(&f);
}

/* The device fails while a capture is put: all requests end, and say why. */
static void a_lost_device_ends_requests(void **unused)
{
    (void)unused;
    static struct serving_heard heard, other;
    static struct scene scene;
    struct serving f;
    uint64_t state = 32;
    bool more = true;
    struct memos_error err;
    assert_true(serving_open(&f, "cpu", tiny_llama()));
    serving_engine_anew(&f, KERN_F32, PAGES);
    scene_make(&scene, &f, &state, KERN_F32);
    struct paramem_request request = scene_request(&scene, ANSWER, &heard);
    serving_submit(f.engine, &request);
    request = serving_request(scene.prompt, 5, 5, &other);
    serving_submit(f.engine, &request);
    device_lost = true;
    assert_int_equal(paramem_engine_step(f.engine, &more, &err), MEMOS_IO);
    device_lost = false;
    assert_false(more);
    assert_int_equal(heard.result.finish, PARAMEM_FINISH_FAILED);
    assert_int_equal(heard.result.status, MEMOS_IO);
    assert_int_equal(other.result.finish, PARAMEM_FINISH_FAILED);
    serving_assert_idle(f.engine);
    scene_free(&scene);
    serving_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(placed_is_what_it_says),
        cmocka_unit_test(rounding_is_bounded),
        cmocka_unit_test(at_the_front_it_is_the_text),
        cmocka_unit_test(scores_are_what_requests_say),
        cmocka_unit_test(company_changes_nothing),
        cmocka_unit_test(nobody_else_is_told),
        cmocka_unit_test(another_capture_is_another_prompt),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(a_prompt_is_not_cut),
        cmocka_unit_test(memory_may_end_anywhere),
        cmocka_unit_test(a_lost_device_ends_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
