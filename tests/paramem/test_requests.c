/* How requests to the engine end, what is refused, and what happens when memory or a device does.
 *
 * If these failed, requests would hang, run past their deadline, be answered with what was not
 * asked for, or take pages and memory with them when they go. */
#include "tests/memcube/folder.h"
#include "tests/paramem/golden.h"
#include "tests/paramem/serving.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define OK(call) assert_int_equal(call, MEMOS_OK)

/* ---- faults -------------------------------------------------------------------------------- */

/* malloc and calloc fail when fail_at counts down to 0; they are counted while `counting`. */
static long fail_at = -1;
static size_t allocations;
static bool counting;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t align, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_aligned_alloc(size_t align, size_t size);

static bool refused(void)
{
    allocations += counting;
    return fail_at >= 0 && fail_at-- == 0;
}

void *__wrap_malloc(size_t size)
{
    return refused() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return refused() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return refused() ? NULL : __real_realloc(old, size);
}

void *__wrap_aligned_alloc(size_t align, size_t size)
{
    return refused() ? NULL : __real_aligned_alloc(align, size);
}

/* The device fails at the n-th download from now. */
static long lost_at = -1;

enum memos_status __real_kern_download(
    struct kern_ctx *ctx, void *host, const void *device, size_t bytes, struct memos_error *err);
enum memos_status __wrap_kern_download(
    struct kern_ctx *ctx, void *host, const void *device, size_t bytes, struct memos_error *err);

enum memos_status __wrap_kern_download(
    struct kern_ctx *ctx, void *host, const void *device, size_t bytes, struct memos_error *err)
{
    if (lost_at >= 0 && lost_at-- == 0) {
        return memos_fail(err, MEMOS_IO, "the device fell off the bus");
    }
    return __real_kern_download(ctx, host, device, bytes, err);
}

/* ---- how a request ends --------------------------------------------------------------------- */

struct ending {
    struct serving f;
    struct serving_heard heard[4];
    uint32_t prompt[SERVING_PROMPT_MAX];
};

static int ending_setup(void **state)
{
    struct ending *e = calloc(1, sizeof *e);
    uint64_t numbers = 11;
    assert_non_null(e);
    assert_true(serving_open(&e->f, "cpu", tiny_llama()));
    e->f.engine = serving_engine(&e->f, 4, 2, 16, true); /* a context of 128 */
    serving_prompt(&numbers, e->prompt, SERVING_PROMPT_MAX);
    *state = e;
    return 0;
}

static int ending_teardown(void **state)
{
    struct ending *e = *state;
    lost_at = fail_at = -1;
    serving_close(&e->f);
    free(e);
    return 0;
}

static void ends_at_a_stop_id(void **state)
{
    struct ending *e = *state;
    struct paramem_request request = serving_request(e->prompt, 20, 40, &e->heard[0]);
    request.no_model_stops = true;
    serving_submit(e->f.engine, &request);
    serving_run(e->f.engine);
    assert_int_equal(e->heard[0].count, 40);
    uint32_t stop = e->heard[0].ids[7];
    size_t first = 0;
    for (; e->heard[0].ids[first] != stop; first++) {
    }
    request.stop_ids = &stop;
    request.stop_ids_count = 1;
    request.self = &e->heard[1];
    serving_submit(e->f.engine, &request);
    /* The model's own. */
    e->f.tiny.model.config.stop_ids[0] = stop;
    request.no_model_stops = false;
    request.stop_ids_count = 0;
    request.self = &e->heard[2];
    serving_submit(e->f.engine, &request);
    serving_run(e->f.engine);
    for (size_t i = 1; i < 3; i++) {
        assert_int_equal(e->heard[i].count, first + 1);
        assert_int_equal(e->heard[i].result.finish, PARAMEM_FINISH_STOP);
        assert_memory_equal(e->heard[i].ids, e->heard[0].ids, (first + 1) * sizeof(uint32_t));
    }
}

static void ends_with_the_context(void **state)
{
    struct ending *e = *state;
    uint64_t id = 0;
    struct memos_error err;
    struct paramem_request request = serving_request(e->prompt, 100, 0, &e->heard[0]);
    request.no_model_stops = true;
    assert_int_equal(paramem_engine_context(e->f.engine), 128);
    serving_submit(e->f.engine, &request);
    request.max_tokens = 28;
    request.self = &e->heard[1];
    serving_submit(e->f.engine, &request);
    serving_run(e->f.engine);
    assert_int_equal(e->heard[0].count, 28);
    assert_int_equal(e->heard[0].result.finish, PARAMEM_FINISH_CONTEXT);
    assert_int_equal(e->heard[1].count, 28);
    assert_int_equal(e->heard[1].result.finish, PARAMEM_FINISH_LENGTH);
    request.max_tokens = 29;
    assert_int_equal(paramem_engine_submit(e->f.engine, &request, &id, &err), MEMOS_TOO_LARGE);
    request.max_tokens = 0;
    request.prompt_count = 128;
    assert_int_equal(paramem_engine_submit(e->f.engine, &request, &id, &err), MEMOS_TOO_LARGE);
    request.max_tokens = SIZE_MAX;
    assert_int_equal(paramem_engine_submit(e->f.engine, &request, &id, &err), MEMOS_TOO_LARGE);
}

/* A prompt that is cut answers as the prompt that is left, its bos before it. */
static void a_prompt_is_cut_at_the_front(void **state)
{
    struct ending *e = *state;
    uint32_t cut[128];
    uint64_t id = 0;
    e->prompt[0] = 1; /* bos */
    struct paramem_request request = serving_request(e->prompt, 180, 28, &e->heard[0]);
    request.no_model_stops = true;
    request.overflow = PARAMEM_OVERFLOW_CUT_FRONT;
    serving_submit(e->f.engine, &request);
    request.max_tokens = 0;
    request.self = &e->heard[1];
    serving_submit(e->f.engine, &request);
    serving_run(e->f.engine);
    assert_int_equal(e->heard[0].result.cut_tokens, 80);
    assert_int_equal(e->heard[0].result.prompt_tokens, 100);
    assert_int_equal(e->heard[0].count, 28);
    cut[0] = 1;
    memcpy(cut + 1, e->prompt + 81, 99 * sizeof *cut);
    serving_assert_greedy(&e->f, cut, 100, &e->heard[0]);
    assert_int_equal(e->heard[1].result.cut_tokens, 180 - 96);
    assert_int_equal(e->heard[1].count, 32);
    request.max_tokens = 127;
    assert_int_equal(paramem_engine_submit(e->f.engine, &request, &id, NULL), MEMOS_TOO_LARGE);
    e->prompt[0] = 5; /* no bos: one more of the prompt is left */
    request.max_tokens = 127;
    request.self = &e->heard[2];
    serving_submit(e->f.engine, &request);
    serving_run(e->f.engine);
    assert_int_equal(e->heard[2].result.prompt_tokens, 1);
    serving_assert_greedy(&e->f, e->prompt + 179, 1, &e->heard[2]);
}

static void deadlines_and_cancels_end_at_the_next_step(void **state)
{
    struct ending *e = *state;
    struct paramem_engine *engine = e->f.engine;
    bool more = false;
    for (size_t i = 0; i < 4; i++) { /* two run, two wait */
        struct paramem_request request = serving_request(e->prompt, 10, 40, &e->heard[i]);
        request.no_model_stops = true;
        request.deadline_us = i % 2 == 1 ? 5000 : 0;
        uint64_t id = serving_submit(engine, &request);
        OK(paramem_engine_step(engine, &more, NULL));
        if (i % 2 == 0) {
            paramem_engine_cancel(engine, id);
            paramem_engine_cancel(engine, id + 7); /* nobody's */
            OK(paramem_engine_step(engine, &more, NULL));
            assert_true(e->heard[i].done);
            assert_int_equal(e->heard[i].result.finish, PARAMEM_FINISH_CANCELLED);
            paramem_engine_cancel(engine, id); /* over: nothing happens */
        }
    }
    e->f.now_us = 4999;
    OK(paramem_engine_step(engine, &more, NULL));
    assert_false(e->heard[1].done || e->heard[3].done);
    e->f.now_us = 5000;
    size_t had = e->heard[1].count;
    OK(paramem_engine_step(engine, &more, NULL));
    assert_true(e->heard[1].done && e->heard[3].done && !more);
    assert_int_equal(e->heard[1].count, had);
    assert_int_equal(e->heard[1].result.finish, PARAMEM_FINISH_DEADLINE);
    assert_int_equal(e->heard[1].result.total_us, 5000);
    serving_assert_idle(engine);
}

struct canceller {
    struct paramem_engine *engine;
    uint64_t id;
};

static void *cancel_from_elsewhere(void *self)
{
    const struct canceller *canceller = self;
    for (size_t i = 0; i < 1000; i++) {
        paramem_engine_cancel(canceller->engine, canceller->id + i % 2);
    }
    return NULL;
}

static void another_thread_may_cancel(void **state)
{
    struct ending *e = *state;
    bool more = true;
    struct paramem_request request = serving_request(e->prompt, 3, 100, &e->heard[0]);
    request.no_model_stops = true;
    struct canceller canceller = {e->f.engine, serving_submit(e->f.engine, &request)};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, cancel_from_elsewhere, &canceller), 0);
    while (more) {
        OK(paramem_engine_step(e->f.engine, &more, NULL));
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(e->heard[0].done);
}

/* ---- callbacks that serving_submit and cancel
 * -------------------------------------------------------- */

struct relay {
    struct ending *e;
    size_t left, done;
    uint64_t id;
};

static void relay_token(void *self, const struct paramem_token *token)
{
    struct relay *relay = self;
    (void)token;
    if (relay->left == 2) {
        paramem_engine_cancel(relay->e->f.engine, relay->id);
    }
}

static void relay_done(void *self, const struct paramem_result *result)
{
    struct relay *relay = self;
    relay->done++;
    assert_int_equal(
        result->finish, relay->left == 2 ? PARAMEM_FINISH_CANCELLED : PARAMEM_FINISH_LENGTH);
    if (relay->left > 0) {
        relay->left--;
        struct paramem_request request = serving_request(relay->e->prompt, 4, 3, NULL);
        request.on_token = relay_token;
        request.on_done = relay_done;
        request.no_model_stops = true;
        request.self = relay;
        relay->id = serving_submit(relay->e->f.engine, &request);
    }
}

static void callbacks_may_submit_and_cancel(void **state)
{
    struct ending *e = *state;
    struct relay relay = {.e = e, .left = 5};
    struct paramem_request request = serving_request(e->prompt, 4, 3, NULL);
    request.on_token = relay_token;
    request.on_done = relay_done;
    request.no_model_stops = true;
    request.self = &relay;
    relay.id = serving_submit(e->f.engine, &request);
    serving_run(e->f.engine);
    assert_int_equal(relay.done, 6);
    serving_assert_idle(e->f.engine);
}

/* ---- what is refused ------------------------------------------------------------------------ */

static void assert_refused(
    struct ending *e, struct paramem_request request, enum memos_status want, const char *word)
{
    struct memos_error err = {0};
    uint64_t id = 77;
    assert_int_equal(paramem_engine_submit(e->f.engine, &request, &id, &err), want);
    assert_non_null(strstr(err.text, word));
    assert_int_equal(id, 77);
}

static void wrong_requests_are_refused(void **state)
{
    struct ending *e = *state;
    const struct paramem_request good = serving_request(e->prompt, 10, 5, &e->heard[0]);
    struct paramem_request bad = good;
    const uint32_t outside[] = {5, SERVING_VOCAB};
    const char *const empty = "";
    bad.prompt_count = 0;
    assert_refused(e, bad, MEMOS_INVALID, "no tokens");
    bad = good, bad.prompt = outside, bad.prompt_count = 2;
    assert_refused(e, bad, MEMOS_INVALID, "token 1 is 131");
    bad = good, bad.stop_ids = outside, bad.stop_ids_count = 2;
    assert_refused(e, bad, MEMOS_INVALID, "131");
    bad = good, bad.sampling.temperature = NAN;
    assert_refused(e, bad, MEMOS_INVALID, "temperature");
    bad = good, bad.sampling.temperature = -1;
    assert_refused(e, bad, MEMOS_INVALID, "temperature");
    bad = good, bad.sampling.top_p = 1.5F;
    assert_refused(e, bad, MEMOS_INVALID, "top_p");
    bad = good, bad.sampling.min_p = NAN;
    assert_refused(e, bad, MEMOS_INVALID, "min_p");
    bad = good, bad.sampling.repetition = -2;
    assert_refused(e, bad, MEMOS_INVALID, "repetition");
    bad = good, bad.top = KERN_TOP_MAX + 1;
    assert_refused(e, bad, MEMOS_INVALID, "alternatives");
    size_t vocab = e->f.tiny.model.config.vocab;
    e->f.tiny.model.config.vocab = 2;
    bad = good, bad.top = 3;
    assert_refused(e, bad, MEMOS_INVALID, "alternatives; at most 2");
    e->f.tiny.model.config.vocab = vocab;
    bad = good, bad.stops = &empty, bad.stops_count = 1;
    assert_refused(e, bad, MEMOS_INVALID, "tokenizer");
    const struct paramem_bias twice[] = {{4, 1}, {5, 1}, {4, 2}}, nan[] = {{4, NAN}};
    bad = good, bad.sampling.biases = twice, bad.sampling.biases_count = 3;
    assert_refused(e, bad, MEMOS_INVALID, "two biases");
    bad.sampling.biases = nan, bad.sampling.biases_count = 1;
    assert_refused(e, bad, MEMOS_INVALID, "bias");
    serving_assert_idle(e->f.engine);
}

/* ---- stop strings --------------------------------------------------------------------------- */

#define TOKENIZER_IDS 121 /* fewer than the model has */

/* A tokenizer whose token 3 + i is the printable character '!' + i, or, past '~', a byte that is no
 * character by itself; the last is "!#". */
static void tokenizer_make(const char *folder, struct paramem_tokenizer **out)
{
    struct memos_buffer b = memos_buffer_make(1u << 20);
    struct memos_error err;
    memos_buffer_printf(
        &b, "%s", "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[");
    for (int i = 0; i < 3; i++) {
        memos_buffer_printf(&b,
            "%s{\"id\":%d,\"content\":\"<%d>\",\"single_word\":false,\"lstrip\":false,"
            "\"rstrip\":false,\"normalized\":false,\"special\":true}",
            i ? "," : "", i, i);
    }
    memos_buffer_printf(&b, "%s",
        "],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":"
        "false,"
        "\"trim_offsets\":true,\"use_regex\":true},\"post_processor\":null,\"decoder\":{\"type\":"
        "\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true},"
        "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
        "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":false,"
        "\"byte_fallback\":false,\"vocab\":{\"<0>\":0,\"<1>\":1,\"<2>\":2");
    for (unsigned i = 0; i + 3 < TOKENIZER_IDS - 1; i++) {
        /* In byte-level vocabularies byte 0xae + n is written as U+00AE + n. */
        unsigned code = i < 94 ? 0x21 + i : 0xae + i - 94;
        memos_buffer_printf(&b, ",\"\\u%04x\":%u", code, 3 + i);
    }
    memos_buffer_printf(&b, ",\"!#\":%d},\"merges\":[\"! #\"]}}", TOKENIZER_IDS - 1);
    golden_write(folder, "tokenizer.json", memos_buffer_view(&b));
    memos_buffer_free(&b);
    if (paramem_tokenizer_open(folder, out, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
}

/* A request whose text is listened to. */
struct reader {
    struct serving_heard heard;
    char text[4096], stop[64];
    size_t size, tokens;
};

static void read_token(void *self, const struct paramem_token *token)
{
    struct reader *reader = self;
    assert_true(reader->size + token->text.size < sizeof reader->text);
    assert_true(memos_bytes_utf8(token->text));
    if (token->text.size > 0) {
        memcpy(reader->text + reader->size, token->text.data, token->text.size);
    }
    reader->size += token->text.size;
    reader->text[reader->size] = '\0';
    serving_hear_token(&reader->heard, token);
}

static void read_done(void *self, const struct paramem_result *result)
{
    struct reader *reader = self;
    serving_hear_done(&reader->heard, result);
    if (result->stop_string) {
        assert_true(strlen(result->stop_string) < sizeof reader->stop);
        memcpy(reader->stop, result->stop_string, strlen(result->stop_string) + 1);
    }
}

static void read_answer(
    struct ending *e, const char *const *stops, size_t stops_count, struct reader *reader)
{
    memset(reader, 0, sizeof *reader);
    struct paramem_request request = serving_request(e->prompt, 9, 60, NULL);
    request.sampling.temperature = 1.5F;
    request.sampling.seed = 3;
    request.no_model_stops = true;
    request.stops = stops;
    request.stops_count = stops_count;
    request.on_token = read_token;
    request.on_done = read_done;
    request.self = reader;
    serving_submit(e->f.engine, &request);
    serving_run(e->f.engine);
}

static void ends_before_a_stop_string(void **state)
{
    struct ending *e = *state;
    char folder[FOLDER_PATH_BYTES], missed[16];
    static struct reader whole, cut;
    struct paramem_tokenizer *tokenizer = NULL;
    folder_make(folder);
    tokenizer_make(folder, &tokenizer);
    e->f.tiny.model.tokenizer = tokenizer;
    read_answer(e, NULL, 0, &whole);
    assert_int_equal(whole.heard.result.finish, PARAMEM_FINISH_LENGTH);
    assert_true(whole.size >= 40);
    for (size_t at = 0; at + 7 < whole.size; at++) {
        if ((whole.text[at] & 0xc0) == 0x80) {
            continue; /* inside a character */
        }
        char stop[8] = {0};
        const char *stops[] = {missed, stop, "never there"};
        memcpy(stop, whole.text + at, 4 + at % 4);
        size_t first = (size_t)(strstr(whole.text, stop) - whole.text);
        /* One that the text comes close to, from the same place, and for longer. */
        memcpy(missed, whole.text + at, 7);
        memcpy(missed + 7, "\x01", 2);
        read_answer(e, stops, 3, &cut);
        assert_int_equal(cut.heard.result.finish, PARAMEM_FINISH_STOP);
        assert_string_equal(cut.stop, stop);
        assert_int_equal(cut.size, first);
        assert_memory_equal(cut.text, whole.text, first);
        /* Only the near one: all of the text comes. */
        read_answer(e, stops, 1, &cut);
        assert_string_equal(cut.text, whole.text);
        assert_int_equal(cut.heard.result.finish, PARAMEM_FINISH_LENGTH);
    }
    /* An id that only the model has is no text, and no end. */
    struct paramem_bias only = {TOKENIZER_IDS + 2, 1000};
    memset(&cut, 0, sizeof cut);
    struct paramem_request silent = serving_request(e->prompt, 9, 5, NULL);
    silent.sampling.biases = &only;
    silent.sampling.biases_count = 1;
    silent.on_token = read_token;
    silent.on_done = read_done;
    silent.self = &cut;
    serving_submit(e->f.engine, &silent);
    serving_run(e->f.engine);
    assert_int_equal(cut.heard.result.finish, PARAMEM_FINISH_LENGTH);
    assert_int_equal(cut.heard.count, 5);
    assert_int_equal(cut.size, 0);
    /* What is held back at the end was no stop string. */
    char end[32];
    (void)snprintf(end, sizeof end, "%s!more", whole.text + whole.size - 3);
    const char *held = end;
    if ((whole.text[whole.size - 3] & 0xc0) != 0x80) {
        read_answer(e, &held, 1, &cut);
        assert_string_equal(cut.text, whole.text);
    }
    const char *const empty = "";
    struct paramem_request bad = serving_request(e->prompt, 10, 5, &e->heard[0]);
    bad.stops = &empty;
    bad.stops_count = 1;
    assert_refused(e, bad, MEMOS_INVALID, "0 bytes");
    paramem_tokenizer_close(&tokenizer);
    e->f.tiny.model.tokenizer = NULL;
    folder_remove(folder);
}

static void a_full_queue_is_told(void **state)
{
    struct ending *e = *state;
    static struct serving_heard heard[1025];
    memset(heard, 0, sizeof heard);
    for (size_t i = 0; i < 1024; i++) {
        struct paramem_request request = serving_request(e->prompt, 4, 1, &heard[i]);
        serving_submit(e->f.engine, &request);
    }
    assert_refused(e, serving_request(e->prompt, 4, 1, &heard[1024]), MEMOS_BUSY, "1024");
    serving_run(e->f.engine);
    for (size_t i = 0; i < 1024; i++) {
        assert_true(heard[i].done && heard[i].count == 1);
    }
}

static void destroy_tells_everybody(void **state)
{
    struct ending *e = *state;
    bool more = false;
    for (size_t i = 0; i < 4; i++) {
        struct paramem_request request = serving_request(e->prompt, 4, 10, &e->heard[i]);
        request.no_model_stops = true;
        serving_submit(e->f.engine, &request);
    }
    OK(paramem_engine_step(e->f.engine, &more, NULL));
    paramem_engine_destroy(&e->f.engine);
    for (size_t i = 0; i < 4; i++) {
        assert_true(e->heard[i].done);
        assert_int_equal(e->heard[i].result.finish, PARAMEM_FINISH_CANCELLED);
    }
}

/* ---- sampling ------------------------------------------------------------------------------- */

static void sampling_is_used(void **state)
{
    struct ending *e = *state;
    struct paramem_bias only[] = {{90, -INFINITY}, {17, 100}};
    struct paramem_request request = serving_request(e->prompt, 9, 20, &e->heard[0]);
    request.no_model_stops = true;
    request.sampling.biases = only;
    request.sampling.biases_count = 2;
    serving_submit(e->f.engine, &request);
    /* A penalty that nothing survives: no token comes twice, none of the prompt. */
    request.sampling = (struct paramem_sampling){.repetition = 1e30F};
    request.self = &e->heard[1];
    serving_submit(e->f.engine, &request);
    request.sampling = (struct paramem_sampling){.temperature = 1.5F, .seed = 1};
    request.self = &e->heard[2];
    serving_submit(e->f.engine, &request);
    request.sampling.seed = 2;
    request.self = &e->heard[3];
    serving_submit(e->f.engine, &request);
    serving_run(e->f.engine);
    for (size_t i = 0; i < 20; i++) {
        assert_int_equal(e->heard[0].ids[i], 17);
        for (size_t j = 0; j < i; j++) {
            assert_int_not_equal(e->heard[1].ids[i], e->heard[1].ids[j]);
        }
        for (size_t j = 0; j < 9; j++) {
            assert_int_not_equal(e->heard[1].ids[i], e->prompt[j]);
        }
    }
    assert_memory_not_equal(e->heard[2].ids, e->heard[3].ids, 20 * sizeof(uint32_t));
}

struct alternatives {
    struct serving_heard heard;
    uint32_t ids[3];
    float logprobs[3];
};

static void hear_alternatives(void *self, const struct paramem_token *token)
{
    struct alternatives *a = self;
    assert_int_equal(token->top_count, 3);
    memcpy(a->ids, token->top_ids, sizeof a->ids);
    memcpy(a->logprobs, token->top_logprobs, sizeof a->logprobs);
    serving_hear_token(&a->heard, token);
}

static void done_alternatives(void *self, const struct paramem_result *result)
{
    serving_hear_done(&((struct alternatives *)self)->heard, result);
}

static void alternatives_are_told(void **state)
{
    struct ending *e = *state;
    struct alternatives a = {0};
    double logits[9 * SERVING_VOCAB];
    bool more = true;
    struct paramem_request request = serving_request(e->prompt, 9, 1, NULL);
    request.on_token = hear_alternatives;
    request.on_done = done_alternatives;
    request.self = &a;
    request.top = 3;
    serving_submit(e->f.engine, &request);
    /* Beside one that wants more of them. */
    struct paramem_request other = serving_request(e->prompt, 3, 1, &e->heard[0]);
    other.top = KERN_TOP_MAX;
    serving_submit(e->f.engine, &other);
    OK(paramem_engine_step(e->f.engine, &more, NULL));
    tiny_logits(&e->f.tiny, e->prompt, 9, logits);
    const double *row = logits + (size_t)8 * SERVING_VOCAB;
    assert_int_equal(a.ids[0], a.heard.ids[0]);
    assert_true(a.logprobs[0] == a.heard.logprobs[0]);
    for (size_t i = 1; i < 3; i++) {
        double want = row[a.ids[i]] - row[a.ids[0]];
        assert_true(fabs((double)(a.logprobs[i] - a.logprobs[0]) - want) < 1e-3);
        assert_true(a.logprobs[i] <= a.logprobs[i - 1]);
    }
    size_t above = 0;
    for (size_t v = 0; v < SERVING_VOCAB; v++) {
        above += row[v] > row[a.ids[2]] + 1e-3;
    }
    assert_true(above <= 2);
}

/* ---- faults --------------------------------------------------------------------------------- */

static void a_lost_device_ends_requests(void **state)
{
    struct ending *e = *state;
    bool more = true;
    struct memos_error err = {0};
    float out[9];
    for (size_t i = 0; i < 4; i++) {
        struct paramem_request request = serving_request(e->prompt, 10, 10, &e->heard[i]);
        request.no_model_stops = true;
        serving_submit(e->f.engine, &request);
    }
    OK(paramem_engine_step(e->f.engine, &more, NULL));
    lost_at = 0;
    assert_int_equal(paramem_engine_step(e->f.engine, &more, &err), MEMOS_IO);
    assert_non_null(strstr(err.text, "bus"));
    assert_false(more);
    for (size_t i = 0; i < 4; i++) {
        assert_true(e->heard[i].done);
        assert_int_equal(e->heard[i].result.finish, PARAMEM_FINISH_FAILED);
        assert_int_equal(e->heard[i].result.status, MEMOS_IO);
    }
    serving_assert_idle(e->f.engine);
    assert_refused(e, serving_request(e->prompt, 4, 1, &e->heard[0]), MEMOS_IO, "anew");
    assert_int_equal(paramem_engine_score(e->f.engine, e->prompt, 10, 0, out, &err), MEMOS_IO);
}

static void memory_may_end_anywhere(void **state)
{
    struct ending *e = *state;
    struct memos_error err;
    struct paramem_engine *engine = NULL;
    struct paramem_engine_options options = {.model = &e->f.tiny.model,
        .kv_bytes = serving_pages_bytes(&e->f, KERN_F32, 8),
        .sequences_max = 2,
        .tokens_step = 16,
        .requests_max = 4};
    long attempt = 0;
    for (;; attempt++) {
        fail_at = attempt;
        enum memos_status status = paramem_engine_create(&options, &engine, &err);
        fail_at = -1;
        if (status == MEMOS_OK) {
            break;
        }
        assert_int_equal(status, MEMOS_NO_MEMORY);
        assert_null(engine);
    }
    assert_true(attempt > 10);
    struct paramem_bias bias = {3, 1};
    uint32_t stop = 2;
    struct paramem_request request = serving_request(e->prompt, 30, 30, &e->heard[0]);
    request.sampling = (struct paramem_sampling){
        .temperature = 1, .repetition = 1.1F, .biases = &bias, .biases_count = 1};
    request.stop_ids = &stop;
    request.stop_ids_count = 1;
    for (attempt = 0;; attempt++) {
        uint64_t id = 0;
        fail_at = attempt;
        enum memos_status status = paramem_engine_submit(engine, &request, &id, &err);
        fail_at = -1;
        if (status == MEMOS_OK) {
            break;
        }
        assert_int_equal(status, MEMOS_NO_MEMORY);
        serving_assert_idle(engine);
    }
    assert_true(attempt > 3);
    /* From here on nothing is asked for. */
    counting = true;
    allocations = 0;
    serving_run(engine);
    counting = false;
    assert_int_equal(allocations, 0);
    assert_true(e->heard[0].done);
    paramem_engine_destroy(&engine);
}

static void too_small_a_cache_is_told(void **state)
{
    struct ending *e = *state;
    struct memos_error err = {0};
    struct paramem_engine *engine = NULL;
    struct paramem_engine_options options = {
        .model = &e->f.tiny.model, .kv_bytes = serving_pages_bytes(&e->f, KERN_F32, 1) - 1};
    assert_int_equal(paramem_engine_create(&options, &engine, &err), MEMOS_NO_MEMORY);
    assert_non_null(strstr(err.text, "page"));
    options = (struct paramem_engine_options){.model = &e->f.tiny.model, .kv = KERN_Q4_0};
    assert_int_equal(paramem_engine_create(&options, &engine, &err), MEMOS_UNSUPPORTED);
    assert_null(engine);
}

#define ENDING(test) cmocka_unit_test_setup_teardown(test, ending_setup, ending_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ENDING(ends_at_a_stop_id),
        ENDING(ends_with_the_context),
        ENDING(a_prompt_is_cut_at_the_front),
        ENDING(deadlines_and_cancels_end_at_the_next_step),
        ENDING(another_thread_may_cancel),
        ENDING(callbacks_may_submit_and_cancel),
        ENDING(wrong_requests_are_refused),
        ENDING(ends_before_a_stop_string),
        ENDING(a_full_queue_is_told),
        ENDING(destroy_tells_everybody),
        ENDING(sampling_is_used),
        ENDING(alternatives_are_told),
        ENDING(a_lost_device_ends_requests),
        ENDING(memory_may_end_anywhere),
        ENDING(too_small_a_cache_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
