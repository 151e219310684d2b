#include "tests/worker/tiny_host.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define OK(call) assert_int_equal(call, MEMOS_OK)

enum { VOCAB = 259 };

/* Byte-level BPE of one merge: each byte is a token, written as GPT-2's table has it. */
static void tokenizer_write(const char *folder)
{
    char path[FOLDER_PATH_BYTES + 32];
    unsigned next = 256;
    (void)snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    (void)fputs("{\"version\": \"1.0\", \"added_tokens\": [\n", file);
    for (unsigned i = 0; i < 2; i++) {
        (void)fprintf(file,
            "%s{\"id\": %u, \"content\": \"%s\", \"single_word\": false, \"lstrip\": false,"
            " \"rstrip\": false, \"normalized\": false, \"special\": true}",
            i > 0 ? "," : "", 257 + i, i > 0 ? "<|im_end|>" : "<|im_start|>");
    }
    (void)fputs("], \"normalizer\": null,\n"
                " \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false,"
                " \"trim_offsets\": true, \"use_regex\": true},\n"
                " \"post_processor\": null, \"decoder\": {\"type\": \"ByteLevel\","
                " \"add_prefix_space\": true, \"trim_offsets\": true, \"use_regex\": true},\n"
                " \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null,"
                " \"continuing_subword_prefix\": null, \"end_of_word_suffix\": null,"
                " \"fuse_unk\": false, \"byte_fallback\": false, \"merges\": [\"t h\"],"
                " \"vocab\": {",
        file);
    for (unsigned byte = 0; byte < 256; byte++) {
        const bool is_shown = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) ||
                              (byte >= 0xae && byte <= 0xff);
        (void)fprintf(
            file, "%s\"\\u%04x\": %u", byte > 0 ? ", " : "", is_shown ? byte : next, byte);
        next += !is_shown;
    }
    (void)fputs(", \"th\": 256}}}\n", file);
    assert_int_equal(fclose(file), 0);
}

static struct paramem_engine *engine_make(struct tiny_host *tiny, size_t pages)
{
    struct worker_host *host = &tiny->host;
    const struct tiny_shape *shape = &tiny->tiny.shape;
    struct paramem_engine *engine = NULL;
    struct memos_error err;
    const struct paramem_engine_options options = {.model = &tiny->tiny.model,
        .kv = host->kv,
        .kv_bytes =
            pages * shape->layers * kern_kv_page_bytes(host->kv, shape->kv_heads, shape->head_dim),
        .sequences_max = tiny->sequences,
        .tokens_step = 128};
    if (paramem_engine_create(&options, &engine, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    return engine;
}

static size_t pages_of(const struct tiny_host *tiny)
{
    return 2 * (tiny->tiny.shape.positions / KERN_PAGE_TOKENS) + 2;
}

void tiny_host_make(struct tiny_host *out, const struct tiny_host_options *options)
{
    const struct kern_options kern = {.backend = "cpu", .threads = 1};
    struct tiny_shape shape = tiny_llama();
    struct worker_host *host = &out->host;
    struct memos_error err = {0};
    *out = (struct tiny_host){.sequences = options->sequences > 0 ? options->sequences : 2};
    shape.vocab = VOCAB;
    shape.positions = options->context > 0 ? options->context : 2048;
    shape.seed = options->seed > 0 ? options->seed : 1;
    folder_make(out->folder);
    tokenizer_write(out->folder);
    if (paramem_tokenizer_open(out->folder, &out->tokenizer, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    OK(kern_ctx_create(&kern, &host->ctx, NULL));
    tiny_make(host->ctx, &shape, &out->tiny);
    host->name = strdup("tiny");
    host->model = &out->tiny.model;
    memset(host->model->info.fingerprint, (int)(0xd0 + shape.seed), 32); /* as unlike text as any */
    host->info = out->tiny.model.info;
    host->info.context_max = shape.positions;
    host->info.parameters = 1000000000; /* so that loading is worth it before all measurement */
    host->tokenizer = out->tokenizer;
    host->kv = options->kv ? options->kv : KERN_F32;
    if (!options->is_bare) {
        OK(paramem_chat_open("chatml", NULL, "", "", &host->chat, NULL));
    }
    host->engine = engine_make(out, options->pages > 0 ? options->pages : pages_of(out));
}

void tiny_host_free(struct tiny_host *tiny)
{
    paramem_engine_destroy(&tiny->host.engine);
    tiny_free(&tiny->tiny);
    paramem_chat_close(&tiny->host.chat);
    paramem_tokenizer_close(&tiny->tokenizer);
    kern_ctx_destroy(&tiny->host.ctx);
    free(tiny->host.name);
    folder_remove(tiny->folder);
}

void tiny_host_forget(struct tiny_host *tiny)
{
    paramem_engine_destroy(&tiny->host.engine);
    tiny->host.engine = engine_make(tiny, pages_of(tiny));
}

static void hear_token(void *self, const struct paramem_token *token)
{
    struct tiny_answer *answer = self;
    assert_true(answer->count < TINY_HOST_ANSWER_MAX);
    answer->ids[answer->count++] = token->id;
}

static void hear_done(void *self, const struct paramem_result *result)
{
    struct tiny_answer *answer = self;
    if (result->finish == PARAMEM_FINISH_FAILED) {
        fail_msg("%s", result->err->text);
    }
    answer->result = *result;
    answer->result.err = NULL;
    answer->result.stop_string = NULL;
}

void tiny_host_answer(struct tiny_host *tiny, const uint32_t *ids, size_t count,
    const struct paramem_placed *placed, size_t placed_count, size_t tokens,
    struct tiny_answer *out)
{
    const struct paramem_request request = {.prompt = ids,
        .prompt_count = count,
        .max_tokens = tokens,
        .no_model_stops = true,
        .placed = placed,
        .placed_count = placed_count,
        .on_token = hear_token,
        .on_done = hear_done,
        .self = out};
    struct memos_error err = {0};
    bool more = true;
    uint64_t id;
    *out = (struct tiny_answer){0};
    if (paramem_engine_submit(tiny->host.engine, &request, &id, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    for (size_t steps = 0; more; steps++) {
        assert_true(steps < 100000);
        OK(paramem_engine_step(tiny->host.engine, &more, &err));
    }
    assert_int_equal(out->count, tokens);
}

char *tiny_host_text(const struct tiny_host *tiny, const uint32_t *ids, size_t count)
{
    struct memos_buffer text = memos_buffer_make((size_t)1 << 24);
    OK(paramem_tokenizer_decode(tiny->tokenizer, ids, count, false, &text, NULL));
    memos_buffer_u8(&text, 0);
    assert_false(text.failed);
    return (char *)text.data;
}
