/* Texts read once: captures as bytes, and what a model answers when its memory comes out of one.
 *
 * If these failed, a user would be answered from a text that was damaged, of another model, or in
 * another place than it stood; or differently for the only reason that the text was known. */
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
#define TEXT 150

static struct paramem_attached attach(struct serving *f, const struct paramem_kv_cube *cube)
{
    struct paramem_attach what = {.cube = cube};
    struct paramem_attached told;
    struct memos_error err;
    if (paramem_engine_attach(f->engine, &what, &told, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    return told;
}

/* ---- as if it had been read ----------------------------------------------------------------- */

/* From memory at any address, in this engine's own type. */
static void restored_is_read(const char *backend, struct tiny_shape shape)
{
    static struct serving_heard plain, heard;
    uint32_t text[TEXT + 40];
    uint64_t state = 7 + shape.seed;
    struct serving f;
    struct serving_kept kept;
    if (!serving_open(&f, backend, shape)) {
        return;
    }
    serving_prompt(&state, text, TEXT + 40);
    serving_engine_anew(&f, KERN_F32, 20);
    serving_capture(&f, text, TEXT, KERN_F32, &kept);
    serving_assert_idle(f.engine);
    uint8_t *shifted = malloc(kept.cube.bytes.size + 8);
    memcpy(shifted + 8, kept.memory, kept.cube.bytes.size);
    for (size_t far = 0; far < 3; far++) {
        struct paramem_kv_cube cube;
        size_t at = far == 2 ? 8 : 0;
        memmove(shifted + at, shifted + 8, kept.cube.bytes.size);
        OK(paramem_kv_cube_read(
            memos_bytes_make(far == 0 ? kept.memory : shifted + at, kept.cube.bytes.size), &cube,
            NULL));
        size_t length = TEXT - 3 + 20 * far; /* ends in the text, or after it */
        serving_engine_anew(&f, KERN_F32, 20);
        serving_generate(f.engine, text, length, 12, &plain);
        serving_engine_anew(&f, KERN_F32, 20);
        struct paramem_attached told = attach(&f, &cube);
        assert_int_equal(told.tokens, TEXT / 32 * 32);
        assert_int_equal(told.found, 0);
        serving_generate(f.engine, text, length, 12, &heard);
        assert_int_equal(heard.result.cached_tokens, (TEXT - 3) / 32 * 32);
        if (strcmp(backend, "cuda") != 0) {
            serving_assert_same(&plain, &heard);
        }
        serving_assert_greedy(&f, text, length, &heard);
        memmove(shifted + 8, shifted + at, kept.cube.bytes.size);
    }
    free(shifted);
    serving_kept_free(&kept);
    serving_close(&f);
}

static void in_float32_nothing_differs(void **unused)
{
    (void)unused;
    const struct tiny_shape shapes[] = {tiny_llama(), tiny_qwen2(), tiny_qwen3(), tiny_mistral()};
    for (size_t b = 0; b < SERVING_BACKENDS; b++) {
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
            restored_is_read(serving_backends[b], shapes[i]);
        }
    }
}

/* A capture of what comes after another one's blocks: the rest of the whole, to the bit, which then
 * answers as the whole does. */
static void rest_is_read(const char *backend, enum kern_dtype kv)
{
    static struct serving_heard plain, heard;
    enum { SHARED = 64, ALL = TEXT / 32 * 32 };
    uint32_t text[TEXT + 1];
    uint64_t state = 19;
    struct serving f;
    struct serving_kept whole, base, rest;
    struct paramem_attached told;
    if (!serving_open(&f, backend, tiny_llama())) {
        return;
    }
    serving_prompt(&state, text, TEXT + 1);
    serving_engine_anew(&f, kv, 20);
    serving_capture(&f, text, TEXT, KERN_F32, &whole);
    serving_capture(&f, text, SHARED + 6, KERN_F32, &base); /* longer than what is shared */
    serving_capture_from(&f, text, TEXT, SHARED, KERN_F32, &rest);
    assert_true(paramem_kv_cube_continues(&rest.cube) && !paramem_kv_cube_continues(&base.cube));
    struct paramem_key shared = paramem_kv_cube_key(&base.cube, 1);
    assert_memory_equal(rest.cube.before, shared.bytes, sizeof shared.bytes);
    assert_int_equal(rest.cube.blocks + 2, whole.cube.blocks);
    for (size_t i = 0; i < rest.cube.blocks && strcmp(backend, "cuda") != 0; i++) {
        assert_memory_equal(paramem_kv_cube_block(&rest.cube, i).data,
            paramem_kv_cube_block(&whole.cube, i + 2).data, whole.cube.block_bytes);
    }
    serving_engine_anew(&f, kv, 20);
    serving_generate(f.engine, text, TEXT + 1, 12, &plain);
    serving_engine_anew(&f, kv, 20);
    struct paramem_attach what = {.cube = &rest.cube};
    assert_int_equal(paramem_engine_attach(f.engine, &what, &told, NULL), MEMOS_INVALID);
    what = (struct paramem_attach){.cube = &base.cube, .tokens_max = SHARED};
    OK(paramem_engine_attach(f.engine, &what, &told, NULL));
    const struct paramem_attached first = told;
    what.after = &first;
    assert_int_equal(paramem_engine_attach(f.engine, &what, &told, NULL), MEMOS_INVALID);
    what = (struct paramem_attach){.cube = &rest.cube, .after = &first};
    OK(paramem_engine_attach(f.engine, &what, &told, NULL));
    assert_int_equal(told.at, SHARED);
    assert_int_equal(told.tokens, ALL - SHARED);
    serving_generate(f.engine, text, TEXT + 1, 12, &heard);
    assert_int_equal(heard.result.cached_tokens, ALL);
    if (strcmp(backend, "cuda") != 0) {
        serving_assert_same(&plain, &heard);
    }
    serving_kept_free(&whole);
    serving_kept_free(&base);
    serving_kept_free(&rest);
    serving_close(&f);
}

static void the_rest_of_a_text_is_enough(void **unused)
{
    (void)unused;
    for (size_t b = 0; b < SERVING_BACKENDS; b++) {
        rest_is_read(serving_backends[b], KERN_F32);
        rest_is_read(serving_backends[b], KERN_BF16);
    }
}

/* A float32 capture in a cache of fewer bits: what reading puts there, to the bit. It is made by an
 * engine with such a cache, for what a layer sees of the text has been in it. */
static void a_smaller_cache_rounds_once(void **unused)
{
    (void)unused;
    static struct serving_heard plain, heard;
    const enum kern_dtype types[] = {KERN_F16, KERN_BF16, KERN_E4M3};
    uint32_t text[TEXT];
    uint64_t state = 71;
    serving_prompt(&state, text, TEXT);
    for (size_t b = 0; b < 2; b++) {
        for (size_t i = 0; i < 3; i++) {
            struct serving f;
            struct serving_kept kept;
            assert_true(serving_open(&f, serving_backends[b], tiny_llama()));
            serving_engine_anew(&f, types[i], 20);
            serving_generate(f.engine, text, TEXT, 12, &plain);
            serving_engine_anew(&f, types[i], 20);
            serving_capture(&f, text, TEXT, KERN_F32, &kept);
            serving_engine_anew(&f, types[i], 20);
            attach(&f, &kept.cube);
            serving_generate(f.engine, text, TEXT, 12, &heard);
            assert_int_equal(heard.result.cached_tokens, TEXT / 32 * 32);
            serving_assert_same(&plain, &heard);
            serving_kept_free(&kept);
            serving_close(&f);
        }
    }
}

/* What was read by one backend is continued on another. */
static void backends_understand_each_other(void **unused)
{
    (void)unused;
    static struct serving_heard heard;
    uint32_t text[TEXT];
    uint64_t state = 9;
    size_t pairs = 0;
    serving_prompt(&state, text, TEXT);
    for (size_t i = 0; i < SERVING_BACKENDS * SERVING_BACKENDS; i++) {
        size_t a = i / SERVING_BACKENDS, b = i % SERVING_BACKENDS;
        struct serving from, to;
        struct serving_kept kept;
        if (a == b || !serving_open(&from, serving_backends[a], tiny_qwen3())) {
            continue;
        }
        if (serving_open(&to, serving_backends[b], tiny_qwen3())) {
            serving_engine_anew(&from, KERN_F32, 20);
            serving_engine_anew(&to, KERN_F32, 20);
            serving_capture(&from, text, TEXT, KERN_F32, &kept);
            attach(&to, &kept.cube);
            serving_generate(to.engine, text, TEXT, 30, &heard);
            assert_int_equal(heard.result.cached_tokens, TEXT / 32 * 32);
            serving_assert_greedy(&to, text, TEXT, &heard);
            serving_kept_free(&kept);
            serving_close(&to);
            pairs++;
        }
        serving_close(&from);
    }
    assert_true(pairs == 2 || pairs == 6); /* without a GPU, with one */
    print_message("%zu pairs of backends\n", pairs);
}

/* ---- what rounding costs --------------------------------------------------------------------- */

/* The largest logit that the model gives after the text. */
static double largest_logit(struct serving *f, const uint32_t *text)
{
    double *logits = calloc((size_t)TEXT * SERVING_VOCAB, sizeof *logits), most = 0;
    assert_non_null(logits);
    tiny_logits(&f->tiny, text, TEXT, logits);
    for (size_t v = 0; v < SERVING_VOCAB; v++) {
        most = fmax(most, fabs(logits[(size_t)(TEXT - 1) * SERVING_VOCAB + v]));
    }
    free(logits);
    return most;
}

/* Rounding is by 2^-12, 2^-9 and 2^-4 of each number of keys and values at worst. What that does to
 * a log probability is measured against twice the largest logit (its own logit is off, and the sum
 * of all): 6, 4 and 0.4 times the rounding. The bounds leave room for four times that. */
static void rounding_is_bounded(void **unused)
{
    (void)unused;
    static struct serving_heard plain, heard;
    const struct {
        enum kern_dtype dtype;
        double bound;
    } types[] = {{KERN_F32, 0}, {KERN_F16, 5e-3}, {KERN_BF16, 4e-2}, {KERN_E4M3, 0.15}};
    uint32_t text[TEXT];
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        double worst = 0;
        for (uint64_t seed = 0; seed < 12; seed++) {
            struct serving f;
            struct serving_kept kept;
            uint64_t state = 100 + seed;
            serving_prompt(&state, text, TEXT);
            assert_true(serving_open(&f, "cpu", seed % 2 ? tiny_llama() : tiny_qwen3()));
            serving_engine_anew(&f, KERN_F32, 20);
            serving_capture(&f, text, TEXT, types[i].dtype, &kept);
            serving_engine_anew(&f, KERN_F32, 20);
            serving_generate(f.engine, text, TEXT, 1, &plain);
            serving_engine_anew(&f, KERN_F32, 20);
            attach(&f, &kept.cube);
            serving_generate(f.engine, text, TEXT, 1, &heard);
            if (heard.ids[0] == plain.ids[0]) {
                double far = fabs((double)heard.logprobs[0] - (double)plain.logprobs[0]);
                worst = fmax(worst, far / (2 * largest_logit(&f, text)));
            }
            serving_kept_free(&kept);
            serving_close(&f);
        }
        print_message("%s: log probabilities within %.1e of twice the largest logit (%.1e)\n",
            kern_dtype_name(types[i].dtype), worst, types[i].bound);
        assert_true(worst <= types[i].bound);
        assert_true(types[i].dtype == KERN_F32 || worst > 0); /* it was rounded */
    }
}

/* ---- blocks ---------------------------------------------------------------------------------- */

static void common_beginnings_have_common_blocks(void **unused)
{
    (void)unused;
    for (size_t b = 0; b < 2; b++) {
        uint32_t one[TEXT], two[TEXT];
        uint64_t state = 21;
        struct serving f;
        struct serving_kept kept[2];
        assert_true(serving_open(&f, serving_backends[b], tiny_llama()));
        serving_engine_anew(&f, KERN_F32, 20);
        serving_prompt(&state, one, TEXT);
        serving_prompt(&state, two, TEXT);
        memcpy(two, one, 70 * sizeof *one);
        serving_capture(&f, one, TEXT, KERN_E4M3, &kept[0]);
        serving_capture(&f, two, 97, KERN_E4M3, &kept[1]);
        for (size_t i = 0; i < 4; i++) {
            struct paramem_key keys[2] = {
                paramem_kv_cube_key(&kept[0].cube, i), paramem_kv_cube_key(&kept[1].cube, i)};
            bool same = memos_bytes_equal(
                paramem_kv_cube_block(&kept[0].cube, i), paramem_kv_cube_block(&kept[1].cube, i));
            assert_int_equal(same, i < 2);
            assert_int_equal(memcmp(&keys[0], &keys[1], sizeof keys[0]) == 0, i < 2);
        }
        serving_kept_free(&kept[0]);
        serving_kept_free(&kept[1]);
        serving_close(&f);
    }
}

/* A block that is there is not copied again, a text goes in as far as asked and as there is room.
 */
static void attaching_takes_what_it_can(void **unused)
{
    (void)unused;
    static struct serving_heard heard;
    uint32_t text[TEXT];
    uint64_t state = 23;
    struct serving f;
    struct serving_kept kept;
    struct paramem_attached told;
    assert_true(serving_open(&f, "cpu", tiny_llama()));
    serving_engine_anew(&f, KERN_F32, 20);
    serving_prompt(&state, text, TEXT);
    serving_capture(&f, text, TEXT, KERN_BF16, &kept);
    told = attach(&f, &kept.cube); /* capturing left it there */
    assert_int_equal(told.found, 128);
    serving_engine_anew(&f, KERN_F32, 20);
    struct paramem_attach some = {.cube = &kept.cube, .tokens_max = 70};
    OK(paramem_engine_attach(f.engine, &some, &told, NULL));
    assert_int_equal(told.tokens, 64);
    told = attach(&f, &kept.cube);
    assert_int_equal(told.tokens, 128);
    assert_int_equal(told.found, 64);
    serving_assert_idle(f.engine);
    serving_engine_anew(&f, KERN_F32, 5); /* a request of this size takes them all */
    memset(&heard, 0, sizeof heard);
    struct paramem_request request = serving_request(text, 60, 60, &heard);
    request.no_model_stops = true;
    serving_submit(f.engine, &request);
    bool more = true;
    OK(paramem_engine_step(f.engine, &more, NULL));
    told = attach(&f, &kept.cube); /* what is read is not taken away */
    assert_int_equal(told.tokens, 128);
    assert_int_equal(told.found, 32);
    serving_run(f.engine);
    serving_assert_greedy(&f, text, 60, &heard);
    serving_kept_free(&kept);
    serving_close(&f);
}

static void what_does_not_fit_is_refused(void **unused)
{
    (void)unused;
    uint32_t text[TEXT];
    uint64_t state = 25;
    struct serving f;
    struct serving_kept kept;
    struct memos_error err;
    struct paramem_attached told;
    assert_true(serving_open(&f, "cpu", tiny_llama()));
    serving_engine_anew(&f, KERN_F32, 3);
    serving_prompt(&state, text, TEXT);
    struct paramem_kv_cube cube;
    _Alignas(256) static uint8_t memory[1];
    assert_int_equal(paramem_engine_capture_bytes(f.engine, TEXT, KERN_F32), 0);
    const struct paramem_capture wrong[] = {
        {.ids = text, .count = TEXT, .dtype = KERN_F32, .memory = memory},
        {.ids = text, .count = 0, .dtype = KERN_F32, .memory = memory},
        {.ids = text, .count = 9, .dtype = KERN_I8, .memory = memory},
        {.ids = text, .count = 64, .first = 31, .dtype = KERN_F32, .memory = memory},
        {.ids = text, .count = 64, .first = 64, .dtype = KERN_F32, .memory = memory},
        {.ids = text, .count = 9, .dtype = KERN_F32, .memory = memory}, /* with a wrong id, below */
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        text[3] = i + 1 == sizeof wrong / sizeof wrong[0] ? SERVING_VOCAB : 5;
        assert_int_equal(paramem_engine_capture(f.engine, &wrong[i], &cube, &err), MEMOS_INVALID);
    }
    text[3] = 5;
    serving_capture(&f, text, 90, KERN_F32, &kept);
    struct paramem_attach what = {.cube = &kept.cube};
    memset(f.tiny.model.info.fingerprint, 0xab, 32); /* it is another model now */
    assert_int_equal(paramem_engine_attach(f.engine, &what, &told, &err), MEMOS_STALE);
    assert_non_null(strstr(err.text, "this one is abababab..."));
    memcpy(f.tiny.model.info.fingerprint, kept.cube.fingerprint, 32);
    f.tiny.model.config.vocab = 90; /* the text has greater ids */
    assert_int_equal(paramem_engine_attach(f.engine, &what, &told, &err), MEMOS_CORRUPT);
    f.tiny.model.config.vocab = SERVING_VOCAB;
    kept.cube.heads++;
    assert_int_equal(paramem_engine_attach(f.engine, &what, &told, &err), MEMOS_CORRUPT);
    kept.cube.heads--;
    paramem_engine_destroy(&f.engine);
    f.engine = serving_engine(&f, 10, 2, 32, false);
    assert_int_equal(paramem_engine_attach(f.engine, &what, &told, &err), MEMOS_INVALID);
    serving_kept_free(&kept);
    serving_close(&f);
}

/* Without memory nothing is attached, and what was there works as before; then it is attached. */
static void without_memory_nothing_happens(void **unused)
{
    (void)unused;
    static struct serving_heard heard;
    uint32_t text[TEXT];
    uint64_t state = 27;
    struct serving f;
    struct serving_kept kept;
    struct paramem_attached told;
    struct memos_error err;
    enum memos_status status = MEMOS_NO_MEMORY;
    assert_true(serving_open(&f, "cpu", tiny_llama()));
    serving_engine_anew(&f, KERN_F32, 20);
    serving_prompt(&state, text, TEXT);
    serving_capture(&f, text, TEXT, KERN_F32, &kept);
    uint8_t *odd = malloc(kept.cube.bytes.size + 1); /* so that it goes through the ring */
    struct paramem_kv_cube cube;
    memcpy(odd + 1, kept.memory, kept.cube.bytes.size);
    OK(paramem_kv_cube_read(memos_bytes_make(odd + 1, kept.cube.bytes.size), &cube, NULL));
    struct paramem_attach what = {.cube = &cube};
    long places = 0;
    for (; status != MEMOS_OK; places++) {
        serving_engine_anew(&f, KERN_F32, 20);
        refusing_at = places;
        status = paramem_engine_attach(f.engine, &what, &told, &err);
        refusing_at = -1;
        assert_true(status == MEMOS_OK || status == MEMOS_NO_MEMORY);
        serving_assert_idle(f.engine);
        OK(paramem_engine_attach(f.engine, &what, &told, &err));
        serving_generate(f.engine, text, TEXT, 3, &heard);
        assert_int_equal(heard.result.cached_tokens, TEXT / 32 * 32);
        serving_assert_greedy(&f, text, TEXT, &heard);
    }
    assert_int_equal(places, 7 + 1); /* three arrays, words, numbers, the ring on both sides */
    free(odd);
    serving_kept_free(&kept);
    serving_close(&f);
}

/* ---- the bytes ------------------------------------------------------------------------------- */

/* What reading and checking say of `size` bytes. */
static enum memos_status verdict(const uint8_t *bytes, size_t size)
{
    struct paramem_kv_cube cube;
    struct memos_error err;
    enum memos_status status = paramem_kv_cube_read(memos_bytes_make(bytes, size), &cube, &err);
    return status == MEMOS_OK ? paramem_kv_cube_check(&cube, NULL, true, &err) : status;
}

/* A capture that no model made: any numbers, sealed. */
static uint8_t *made(const struct paramem_kv_cube_shape *shape, struct paramem_kv_cube *out)
{
    static const uint8_t fingerprint[32] = {4, 5, 6};
    uint32_t ids[TEXT];
    size_t size = (size_t)paramem_kv_cube_bytes(shape);
    uint8_t *memory = aligned_alloc(256, size);
    assert_non_null(memory);
    for (size_t i = 0; i < TEXT; i++) {
        ids[i] = (uint32_t)i * 77;
    }
    memset(memory, 0x21, size);
    paramem_kv_cube_begin(shape, fingerprint, NULL, ids, memory, out);
    paramem_kv_cube_seal(out, memory, NULL);
    return memory;
}

static void every_damage_is_seen(void **unused)
{
    (void)unused;
    const struct paramem_kv_cube_shape shape = {
        .dtype = KERN_E4M3, .layers = 1, .heads = 1, .head_dim = 8, .tokens = 40};
    struct paramem_kv_cube cube;
    uint8_t *bytes = made(&shape, &cube);
    size_t size = cube.bytes.size;
    assert_int_equal(verdict(bytes, size), MEMOS_OK);
    for (size_t i = 0; i < size; i++) {
        bytes[i] ^= (uint8_t)(1 << i % 8);
        enum memos_status status = verdict(bytes, size);
        assert_int_equal(status, i >= 8 && i < 12 ? MEMOS_UNSUPPORTED : MEMOS_CORRUPT);
        bytes[i] ^= (uint8_t)(1 << i % 8);
    }
    for (size_t i = 0; i < size; i += i < 300 ? 1 : 61) {
        uint8_t *exact = malloc(i + 1); /* so that reading past the end is seen */
        memcpy(exact, bytes, i);
        assert_int_equal(verdict(exact, i), MEMOS_CORRUPT);
        free(exact);
    }
    free(bytes);
}

static void put(uint8_t *at, uint64_t bits, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        at[i] = (uint8_t)(bits >> 8 * i);
    }
}

static void numbers_that_are_none_are_refused(void **unused)
{
    (void)unused;
    const struct {
        enum kern_dtype dtype;
        size_t bytes;
        uint64_t nan, infinity, largest;
    } types[] = {{KERN_F32, 4, 0xffc00001, 0xff800000, 0xff7fffff},
        {KERN_F16, 2, 0x7e00, 0xfc00, 0xfbff}, {KERN_BF16, 2, 0xffc0, 0x7f80, 0xff7f},
        {KERN_E4M3, 1, 0xff, 0x7f, 0xfe}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        const struct paramem_kv_cube_shape shape = {
            .dtype = types[i].dtype, .layers = 2, .heads = 2, .head_dim = 16, .tokens = 64};
        const uint64_t bits[] = {types[i].nan, types[i].infinity, types[i].largest};
        struct paramem_kv_cube cube, again;
        uint8_t *bytes = made(&shape, &cube);
        uint8_t *at = bytes + (cube.data - bytes) + cube.block_bytes + 40 * types[i].bytes;
        for (size_t j = 0; j < 3; j++) {
            put(at, bits[j], types[i].bytes);
            paramem_kv_cube_seal(&cube, bytes, NULL);
            OK(paramem_kv_cube_read(cube.bytes, &again, NULL));
            OK(paramem_kv_cube_check(&again, NULL, false, NULL));
            assert_int_equal(verdict(bytes, cube.bytes.size), j == 2 ? MEMOS_OK : MEMOS_CORRUPT);
        }
        if (types[i].dtype == KERN_E4M3) {
            put(bytes + cube.bytes.size - 4, 0x7fc00000, 4); /* a scale, the last of all */
            paramem_kv_cube_seal(&cube, bytes, NULL);
            assert_int_equal(verdict(bytes, cube.bytes.size), MEMOS_CORRUPT);
        }
        free(bytes);
    }
}

/* ---- anything, in any order ------------------------------------------------------------------ */

#define CUBES 5
#define LENGTH_MAX 140

struct world {
    struct serving f;
    struct paramem_engine *plain; /* on the same model, which nobody attaches anything to; NULL: the
                                     model computed plainly, for sums on a GPU are not the same */
    uint64_t state;
    uint32_t texts[3][LENGTH_MAX];
    struct serving_kept cubes[CUBES];
};

/* A text's beginning and something else. */
static size_t prompt_make(struct world *w, uint32_t *out)
{
    size_t shared = tiny_below(&w->state, 100), tail = 1 + tiny_below(&w->state, 30);
    memcpy(out, w->texts[tiny_below(&w->state, 3)], shared * sizeof *out);
    serving_prompt(&w->state, out + shared, tail);
    return shared + tail;
}

static void ask(struct world *w, uint64_t *out_cached)
{
    static struct serving_heard heard[2], plain;
    uint32_t prompts[2][LENGTH_MAX];
    size_t counts[2], tokens = 1 + tiny_below(&w->state, 40);
    memset(heard, 0, sizeof heard);
    for (size_t i = 0; i < 2; i++) {
        counts[i] = prompt_make(w, prompts[i]);
        struct paramem_request request = serving_request(prompts[i], counts[i], tokens, &heard[i]);
        request.no_model_stops = true;
        serving_submit(w->f.engine, &request);
    }
    bool more = true;
    for (size_t steps = tiny_below(&w->state, 4); more && steps > 0; steps--) {
        OK(paramem_engine_step(w->f.engine, &more, NULL));
    }
    if (tiny_below(&w->state, 2)) { /* while they run */
        struct serving_kept *kept = &w->cubes[tiny_below(&w->state, CUBES)];
        if (kept->memory) {
            attach(&w->f, &kept->cube);
        }
    }
    serving_run(w->f.engine);
    struct paramem_engine *busy = w->f.engine;
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(heard[i].count, tokens);
        *out_cached += heard[i].result.cached_tokens;
        if (w->plain) {
            w->f.engine = w->plain;
            serving_generate(w->f.engine, prompts[i], counts[i], tokens, &plain);
            serving_assert_same(&plain, &heard[i]);
            w->f.engine = busy;
        } else {
            serving_assert_greedy(&w->f, prompts[i], counts[i], &heard[i]);
        }
    }
}

static void keep(struct world *w)
{
    struct serving_kept *kept = &w->cubes[tiny_below(&w->state, CUBES)];
    uint32_t ids[LENGTH_MAX];
    size_t count = prompt_make(w, ids);
    if (kept->memory) {
        serving_kept_free(kept);
    }
    serving_capture(&w->f, ids, count, KERN_F32, kept);
}

static void any_order_changes_nothing(void **unused)
{
    (void)unused;
    static struct world w;
    const char *text = getenv("MEMOS_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 10) : 20261127, cached = 0;
    print_message("MEMOS_TEST_SEED=%llu\n", (unsigned long long)seed);
    for (size_t b = 0; b < SERVING_BACKENDS; b++) {
        memset(&w, 0, sizeof w);
        w.state = seed + b;
        if (!serving_open(&w.f, serving_backends[b], b ? tiny_mistral() : tiny_qwen3())) {
            continue;
        }
        for (size_t i = 0; i < 3; i++) {
            serving_prompt(&w.state, w.texts[i], LENGTH_MAX);
        }
        if (strcmp(serving_backends[b], "cuda") != 0) {
            w.plain = serving_engine(&w.f, 10, 1, 64, false);
        }
        w.f.engine = serving_engine(&w.f, 12, 3, 48, true); /* so few that pages go */
        const size_t rounds = serving_rounds(&w.f, 150);
        for (size_t i = 0; i < rounds; i++) {
            size_t what = tiny_below(&w.state, 5);
            struct serving_kept *kept = &w.cubes[tiny_below(&w.state, CUBES)];
            if (what == 0) {
                keep(&w);
            } else if (what <= 2 && kept->memory) {
                attach(&w.f, &kept->cube);
            } else if (what > 2) {
                ask(&w, &cached);
            }
        }
        serving_assert_idle(w.f.engine);
        for (size_t i = 0; i < CUBES; i++) {
            if (w.cubes[i].memory) {
                serving_kept_free(&w.cubes[i]);
            }
        }
        paramem_engine_destroy(&w.plain);
        serving_close(&w.f);
    }
    assert_true(cached > 0);
    print_message("%llu tokens were not read again\n", (unsigned long long)cached);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_float32_nothing_differs),
        cmocka_unit_test(the_rest_of_a_text_is_enough),
        cmocka_unit_test(a_smaller_cache_rounds_once),
        cmocka_unit_test(backends_understand_each_other),
        cmocka_unit_test(rounding_is_bounded),
        cmocka_unit_test(common_beginnings_have_common_blocks),
        cmocka_unit_test(attaching_takes_what_it_can),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(without_memory_nothing_happens),
        cmocka_unit_test(every_damage_is_seen),
        cmocka_unit_test(numbers_that_are_none_are_refused),
        cmocka_unit_test(any_order_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
