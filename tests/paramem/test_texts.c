/* Real texts, read and out of captures: the same answers.
 *
 * If these failed, a memory that was read once would be answered from differently than the same
 * memory read again, for texts as people write them. The texts are LoCoMo's conversations, byte by
 * byte; tools/eval/fusion does the same with a trained model and its tokenizer. */
#include "paramem/json.h"
#include "tests/paramem/golden.h"
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
#define TEXTS 120
#define TOKENS 256
#define ANSWER 32
#define VOCAB 259    /* bytes behind three others */
#define LOGIT_MAX 10 /* of these shapes: below this in magnitude */

struct texts {
    uint32_t ids[TEXTS][TOKENS];
    size_t counts[TEXTS], count;
};

/* Turns until a text is full; the last of them is cut. */
static void text_add(struct texts *texts, const char *turn)
{
    size_t *count = &texts->counts[texts->count];
    for (const char *at = turn; *at && *count < TOKENS; at++) {
        texts->ids[texts->count][(*count)++] = 3 + (uint32_t)(uint8_t)*at;
    }
    texts->count += *count == TOKENS;
}

/* False: the data is not there. */
static bool texts_read(struct texts *out)
{
    const struct paramem_json_limits limits = {
        .bytes_max = 1 << 16, .depth_max = 8, .values_max = 256};
    const char *path = GOLDEN_DATA "/locomo/turns.jsonl";
    FILE *there = fopen(path, "rb");
    memset(out, 0, sizeof *out);
    if (!there) {
        print_message("skipped: no %s\n", path);
        return false;
    }
    (void)fclose(there);
    struct memos_buffer file = golden_file(path);
    const char *at = (const char *)file.data, *end = at + file.size;
    while (at < end && out->count < TEXTS) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        size_t size = (size_t)((line_end ? line_end : end) - at);
        json_t *json = NULL;
        OK(paramem_json_parse(memos_bytes_make(at, size), &limits, path, &json, NULL));
        struct paramem_keys keys = paramem_keys_of(json, path, NULL);
        text_add(out, paramem_keys_text_or(&keys, "text", ""));
        json_decref(json);
        at += size + 1;
    }
    memos_buffer_free(&file);
    assert_int_equal(out->count, TEXTS);
    return true;
}

/* How the answers to one model's texts compare. */
struct tally {
    size_t tokens, same;
    double far; /* log probabilities of the first token, where it is the same */
};

static void compare(
    struct tally *tally, const struct serving_heard *a, const struct serving_heard *b)
{
    size_t same = 0;
    while (same < ANSWER && a->ids[same] == b->ids[same]) {
        same++;
    }
    if (same > 0) {
        tally->far = fmax(tally->far, fabs((double)a->logprobs[0] - (double)b->logprobs[0]));
    }
    tally->tokens += ANSWER;
    tally->same += same;
}

/* Every step-th text, captured as `dtype`: a beginning of each, so that it ends in the capture,
 * with it, or after it. Attached, and at the front as a placed one. */
static void some_texts(const struct texts *texts, size_t step, struct tiny_shape shape,
    enum kern_dtype dtype, struct tally *tally)
{
    static struct serving_heard plain, heard, placed;
    struct serving f;
    shape.vocab = VOCAB;
    assert_true(serving_open(&f, "cpu", shape));
    struct paramem_engine *reader = serving_engine(&f, 20, 1, 512, false);
    struct paramem_engine *keeper = serving_engine(&f, 60, 1, 512, true);
    for (size_t i = 0; i < TEXTS; i += step) {
        const uint32_t *ids = texts->ids[i];
        size_t count = TOKENS - i % 70, captured = TOKENS - 40;
        struct serving_kept kept;
        struct paramem_attached told;
        f.engine = reader;
        serving_generate(reader, ids, count, ANSWER, &plain);
        serving_capture(&f, ids, captured, dtype, &kept);
        const struct paramem_attach attach = {.cube = &kept.cube};
        OK(paramem_engine_attach(keeper, &attach, &told, NULL));
        assert_int_equal(told.found, 0);
        serving_generate(keeper, ids, count, ANSWER, &heard);
        assert_true(heard.result.cached_tokens >= 160);
        compare(tally, &plain, &heard);
        const struct paramem_placed front = {
            .cube = &kept.cube, .tokens = captured < count ? captured : count};
        memset(&placed, 0, sizeof placed);
        struct paramem_request request = serving_request(ids, count, ANSWER, &placed);
        request.no_model_stops = true;
        request.placed = &front;
        request.placed_count = 1;
        serving_submit(reader, &request);
        serving_run(reader);
        compare(tally, &plain, &placed);
        if (dtype == KERN_F32) {
            serving_assert_same(&plain, &heard);
            serving_assert_same(&plain, &placed);
        }
        serving_kept_free(&kept);
    }
    paramem_engine_destroy(&reader);
    paramem_engine_destroy(&keeper);
    f.engine = NULL;
    serving_close(&f);
}

/* float32 to the bit. The others by the bounds of test_kv_cube.c, of twice the largest logit. */
static void answers_are_the_same(void **unused)
{
    (void)unused;
    static struct texts texts;
    const struct tiny_shape shapes[] = {tiny_llama(), tiny_qwen2(), tiny_qwen3(), tiny_mistral()};
    const struct {
        enum kern_dtype dtype;
        size_t step;
        double bound;
    } types[] = {{KERN_F32, 1, 0}, {KERN_BF16, 8, 4e-2}, {KERN_E4M3, 8, 0.15}};
    if (!texts_read(&texts)) {
        skip();
        return;
    }
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        struct tally tally = {0};
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
            some_texts(&texts, types[t].step, shapes[i], types[t].dtype, &tally);
        }
        print_message("%s: %zu texts, four models: %.1f%% of the tokens before the first that "
                      "differs; log probabilities of first tokens within %.1e (%.1e)\n",
            kern_dtype_name(types[t].dtype), TEXTS / types[t].step,
            100 * (double)tally.same / (double)tally.tokens, tally.far,
            types[t].bound * 2 * LOGIT_MAX);
        assert_true(tally.far <= types[t].bound * 2 * LOGIT_MAX);
        assert_true(types[t].dtype != KERN_F32 || tally.same == tally.tokens);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
