/* Host models opened: what they are told to be, fingerprints, progress, and every way in which
 * files and memory can fail.
 *
 * If these failed, a damaged or hostile model would be computed with, or loading would end the
 * process instead of saying what is wrong. */
#include "paramem/layers.h"
#include "paramem/model_files.h"
#include "tests/memcube/folder.h"
#include "tests/paramem/decode.h"
#include "tests/paramem/golden.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- an allocation that fails --------------------------------------------------------------- */

static _Atomic long until_failure = -1; /* allocations that work; -1: all do */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
char *__wrap_strdup(const char *text);

/* One that fails leaves all after it working, so that what cleans up is seen as well. */
static bool fails(void)
{
    return until_failure >= 0 && atomic_fetch_sub(&until_failure, 1) == 0;
}

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *memory, size_t size)
{
    return fails() ? NULL : __real_realloc(memory, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return fails() ? NULL : __real_aligned_alloc(alignment, size);
}

char *__wrap_strdup(const char *text)
{
    return fails() ? NULL : __real_strdup(text);
}

/* ---- models --------------------------------------------------------------------------------- */

static struct kern_ctx *ctx_make(void)
{
    struct kern_ctx *ctx = NULL;
    struct kern_options options = {.backend = "cpu", .threads = 2};
    assert_int_equal(kern_ctx_create(&options, &ctx, NULL), MEMOS_OK);
    return ctx;
}

static struct paramem_model *model_open(struct kern_ctx *ctx, const char *path)
{
    struct paramem_model *model = NULL;
    struct memos_error err = {.text = ""};
    struct paramem_model_options options = {.path = path, .ctx = ctx, .ids_only = true};
    if (paramem_model_open(&options, &model, &err) != MEMOS_OK) {
        fail_msg("%s: %s", path, err.text);
    }
    return model;
}

static void refused(
    const struct paramem_model_options *options, enum memos_status wanted, const char *text)
{
    struct paramem_model *model = NULL;
    struct memos_error err = {.text = ""};
    enum memos_status status = paramem_model_open(options, &model, &err);
    if (status != wanted || !strstr(err.text, text)) {
        fail_msg("%s, not %s: %s", memos_status_name(status), memos_status_name(wanted), err.text);
    }
    assert_null(model);
}

/* The model at path. */
static void path_refused(const char *path, enum memos_status wanted, const char *text)
{
    struct kern_ctx *ctx = ctx_make();
    struct paramem_model_options options = {.path = path, .ctx = ctx, .ids_only = true};
    refused(&options, wanted, text);
    kern_ctx_destroy(&ctx);
}

/* A tokenizer of few tokens. */
static void tokenizer_write(const char *folder, const char *merge)
{
    char json[512];
    (void)snprintf(json, sizeof json,
        "{\"version\":\"1.0\",\"added_tokens\":[],\"normalizer\":null,\"pre_tokenizer\":"
        "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"
        "\"use_regex\":true},\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\"},"
        "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"%s\":2},\"merges\":[\"%c %c\"]}}",
        merge, merge[0], merge[1]);
    golden_write(folder, "tokenizer.json", memos_bytes_of(json));
}

static void models_say_what_they_are(void **state)
{
    (void)state;
    char path[GOLDEN_PATH_BYTES];
    struct kern_ctx *ctx = ctx_make();
    struct paramem_model *model = model_open(ctx, decode_path("llama3", path));
    struct paramem_model_info info;
    struct paramem_model_summary summary;

    paramem_model_describe(model, &info);
    assert_string_equal(info.architecture, "LlamaForCausalLM");
    assert_string_equal(info.format, "safetensors");
    assert_string_equal(info.weights, "bf16");
    assert_null(info.chat_template);
    assert_int_equal(info.context_max, 256);
    /* Table (160, 32); layers of (32 + 16 + 16 + 32) x 32, 3 x 64 x 32, 2 x 32; the last norm. */
    size_t numbers = 160 * 32 + 2 * (96 * 32 + 3 * 64 * 32 + 64) + 32;
    assert_int_equal(info.parameters, numbers);
    assert_true(info.weight_bytes >= 2 * numbers && info.weight_bytes < 6 * numbers);
    assert_true(info.config->tied && info.config->kv_heads == 2);
    assert_true(info.config->rope.scaling == PARAMEM_ROPE_LLAMA3);
    paramem_model_close(&model);
    paramem_model_close(&model);

    assert_int_equal(paramem_model_inspect(path, &summary, NULL), MEMOS_OK);
    assert_string_equal(summary.architecture, "LlamaForCausalLM");
    assert_string_equal(summary.weights, "bf16");
    assert_int_equal(summary.parameters, numbers);
    assert_int_equal(summary.file_bytes, 2 * numbers);
    assert_int_equal(
        paramem_model_inspect(decode_path("kquants.gguf", path), &summary, NULL), MEMOS_OK);
    assert_string_equal(summary.format, "gguf");
    assert_string_equal(summary.architecture, "Qwen2ForCausalLM");
    assert_string_equal(summary.weights, "q4_k");
    kern_ctx_destroy(&ctx);
}

/* What lies in the map and what is packed: norms and biases in float32, the window by layer. */
static void layers_are_whole(void **state)
{
    (void)state;
    char path[GOLDEN_PATH_BYTES];
    struct kern_ctx *ctx = ctx_make();
    struct paramem_model *model = model_open(ctx, decode_path("qwen2", path));
    assert_true(model->layers[0].window == 0 && model->layers[1].window == 24);
    assert_non_null(model->layers[1].qkv_bias);
    assert_null(model->layers[1].out_bias);
    assert_null(model->layers[1].query_norm);
    assert_int_equal(model->table.dtype, KERN_BF16);
    size_t n, k;
    kern_matrix_shape(model->layers[0].qkv, &n, &k);
    assert_true(n == 64 && k == 32);
    kern_matrix_shape(model->layers[0].gate_up, &n, &k);
    assert_true(n == 128 && k == 32);
    paramem_model_close(&model);
    model = model_open(ctx, decode_path("biased", path));
    assert_non_null(model->layers[0].out_bias);
    assert_non_null(model->layers[0].gate_up_bias);
    assert_non_null(model->layers[0].down_bias);
    paramem_model_close(&model);
    kern_ctx_destroy(&ctx);
}

/* ---- fingerprints ---------------------------------------------------------------------------- */

static void fingerprint_of(const char *folder, uint8_t out[32])
{
    struct memos_error err = {.text = ""};
    if (paramem_model_fingerprint(folder, NULL, NULL, out, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
}

/* Change a byte of a file from its end, or the first place where `from` stands. */
static void file_change(const char *folder, const char *name, const char *from, const char *to)
{
    char path[GOLDEN_PATH_BYTES];
    assert_true(snprintf(path, sizeof path, "%s/%s", folder, name) > 0);
    struct memos_buffer file = golden_file(path);
    size_t length = strlen(from);
    bool changed = false;
    assert_int_equal(length, strlen(to));
    for (size_t i = 0; i + length <= file.size && !changed; i++) {
        if (memcmp(file.data + i, from, length) == 0) {
            memcpy(file.data + i, to, length);
            changed = true;
        }
    }
    assert_true(changed);
    golden_write(folder, name, memos_buffer_view(&file));
    memos_buffer_free(&file);
}

/* Put two bytes at the very end of the weights. */
static void last_weight_set(const char *folder, const char *name, uint8_t low, uint8_t high)
{
    char path[GOLDEN_PATH_BYTES];
    assert_true(snprintf(path, sizeof path, "%s/%s", folder, name) > 0);
    struct memos_buffer file = golden_file(path);
    file.data[file.size - 2] = low;
    file.data[file.size - 1] = high;
    golden_write(folder, name, memos_buffer_view(&file));
    memos_buffer_free(&file);
}

static void fingerprints_tell_models_apart(void **state)
{
    (void)state;
    char folder[FOLDER_PATH_BYTES];
    uint8_t first[32], other[32];
    folder_make(folder);
    golden_copy("models/llama3", folder);
    tokenizer_write(folder, "ab");
    fingerprint_of(folder, first);

    static const enum kern_dtype weights[] = {0, KERN_F32, KERN_I8};
    for (size_t i = 0; i < 3; i++) {
        struct kern_ctx *ctx = ctx_make();
        struct paramem_model *model = NULL;
        struct paramem_model_options options = {
            .path = folder, .ctx = ctx, .weights = weights[i], .context_max = 64};
        struct memos_error err = {.text = ""};
        if (paramem_model_open(&options, &model, &err) != MEMOS_OK) {
            fail_msg("%s", err.text);
        }
        assert_memory_equal(first, model->info.fingerprint, 32);
        paramem_model_close(&model);
        kern_ctx_destroy(&ctx);
    }
    tokenizer_write(folder, "ba");
    fingerprint_of(folder, other);
    assert_memory_not_equal(first, other, 32);
    tokenizer_write(folder, "ab");
    file_change(folder, "config.json", "\"rope_theta\": 100.0", "\"rope_theta\": 101.0");
    fingerprint_of(folder, other);
    assert_memory_not_equal(first, other, 32);
    file_change(folder, "config.json", "\"rope_theta\": 101.0", "\"rope_theta\": 100.0");
    file_change(folder, "config.json", "\"max_position_embeddings\": 256",
        "\"max_position_embeddings\": 255");
    fingerprint_of(folder, other);
    assert_memory_equal(first, other, 32);
    last_weight_set(folder, "model.safetensors", 1, 0x3F);
    fingerprint_of(folder, other);
    assert_memory_not_equal(first, other, 32);
    folder_remove(folder);
}

/* ---- progress -------------------------------------------------------------------------------- */

struct told {
    size_t calls, stop_at;
    uint64_t done, total;
};

static bool hear(void *self, uint64_t done, uint64_t total)
{
    struct told *told = self;
    assert_true(done >= told->done && done <= total && (told->total == total || !told->total));
    told->done = done;
    told->total = total;
    return ++told->calls != told->stop_at;
}

static void loading_tells_and_stops(void **state)
{
    (void)state;
    char path[GOLDEN_PATH_BYTES];
    struct kern_ctx *ctx = ctx_make();
    struct told told = {0};
    struct paramem_model *model = NULL;
    struct paramem_model_options options = {.path = decode_path("llama2", path),
        .ctx = ctx,
        .ids_only = true,
        .progress = hear,
        .self = &told};
    assert_int_equal(paramem_model_open(&options, &model, NULL), MEMOS_OK);
    assert_true(told.done == told.total && told.total > 100000);
    assert_int_equal(told.calls, 1 + 1 + 2); /* at first, the table, two layers */
    paramem_model_close(&model);
    for (size_t i = 1; i <= 4; i++) {
        told = (struct told){.stop_at = i};
        refused(&options, MEMOS_CANCELLED, "cancelled");
        assert_int_equal(told.calls, i);
    }
    kern_ctx_destroy(&ctx);
}

/* ---- bad files ------------------------------------------------------------------------------- */

static void options_are_checked(void **state)
{
    (void)state;
    char path[GOLDEN_PATH_BYTES];
    struct kern_ctx *ctx = ctx_make();
    struct paramem_model_options options = {
        .path = decode_path("smollm", path), .ctx = ctx, .ids_only = true};
    options.weights = KERN_Q8_0;
    refused(&options, MEMOS_UNSUPPORTED, "whole blocks of 32");
    options.weights = KERN_E4M3;
    refused(&options, MEMOS_UNSUPPORTED, "weights e4m3");
    options.weights = 0;
    options.context_max = SIZE_MAX;
    refused(&options, MEMOS_TOO_LARGE, "a context of");
    options.context_max = 0;
    options.ids_only = false;
    refused(&options, MEMOS_NOT_FOUND, "tokenizer.json");
    kern_ctx_destroy(&ctx);
}

static void damaged_folders_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *file, *from, *to;
        enum memos_status status;
        const char *text;
    } cases[] = {
        {"config.json", "LlamaForCausalLM", "ElephForCausalLM", MEMOS_UNSUPPORTED, "ElephFor"},
        {"config.json", "\"intermediate_size\": 64", "\"intermediate_size\": 65", MEMOS_CORRUPT,
            "mlp.gate_proj.weight: 2 dimensions of 64, 32; the configuration says 65, 32"},
        {"config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", MEMOS_CORRUPT,
            "the tensor model.layers.2.input_layernorm.weight is missing"},
        {"config.json", "\"vocab_size\": 160", "\"vocab_size\": 161", MEMOS_CORRUPT,
            "embed_tokens"},
        {"config.json", "\"tie_word_embeddings\": true", "\"tie_word_embeddings\":false",
            MEMOS_CORRUPT, "lm_head.weight is missing"},
        {"model.safetensors", "model.norm.weight", "model.harm.weight", MEMOS_CORRUPT,
            "model.norm.weight is missing"},
        {"model.safetensors", "\"BF16\"", "\"U16\" ", MEMOS_UNSUPPORTED, "dtype U16"},
        {"model.safetensors", "\"BF16\"", "\"F32\" ", MEMOS_CORRUPT, "elements of F32"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char folder[FOLDER_PATH_BYTES];
        folder_make(folder);
        golden_copy("models/llama3", folder);
        file_change(folder, cases[i].file, cases[i].from, cases[i].to);
        path_refused(folder, cases[i].status, cases[i].text);
        folder_remove(folder);
    }
    path_refused("/no/such/model", MEMOS_NOT_FOUND, "/no/such/model");
}

static void no_nan_is_computed_with(void **state)
{
    (void)state;
    char folder[FOLDER_PATH_BYTES];
    folder_make(folder);
    golden_copy("models/llama3", folder);
    last_weight_set(folder, "model.safetensors", 0x80, 0x7F); /* +infinity, as a bfloat16 */
    path_refused(folder, MEMOS_CORRUPT, "NaN or an infinity");
    last_weight_set(folder, "model.safetensors", 0xC1, 0xFF);
    path_refused(folder, MEMOS_CORRUPT, "NaN or an infinity");
    last_weight_set(folder, "model.safetensors", 0x7F, 0x7F); /* the largest finite one */
    struct kern_ctx *ctx = ctx_make();
    struct paramem_model *model = model_open(ctx, folder);
    paramem_model_close(&model);
    kern_ctx_destroy(&ctx);
    folder_remove(folder);
}

/* Each kind of block has its scales elsewhere. */
static void no_nan_of_a_block_is_computed_with(void **state)
{
    (void)state;
    static const struct {
        const char *file, *tensor;
        size_t at;
    } cases[] = {{"llama3_q8_0.gguf", "blk.1.ffn_up.weight", 34},
        {"llama3_q4_0.gguf", "blk.0.attn_k.weight", 18},
        {"kquants.gguf", "blk.1.ffn_down.weight", 144},
        {"kquants.gguf", "blk.1.ffn_down.weight", 146}, {"kquants.gguf", "token_embd.weight", 208},
        {"llama3_f16.gguf", "blk.0.attn_k.weight", 2}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char path[GOLDEN_PATH_BYTES], folder[FOLDER_PATH_BYTES];
        struct memos_buffer file = golden_file(decode_path(cases[i].file, path));
        struct paramem_gguf *gguf = NULL;
        assert_int_equal(paramem_gguf_parse(memos_buffer_view(&file), "f", &gguf, NULL), MEMOS_OK);
        const struct paramem_gguf_tensor *tensor = paramem_gguf_tensor_find(gguf, cases[i].tensor);
        uint8_t *scale = (uint8_t *)(uintptr_t)tensor->data + cases[i].at;
        scale[0] = 0;
        scale[1] = 0x7C;
        folder_make(folder);
        golden_write(folder, "m.gguf", memos_buffer_view(&file));
        assert_true(snprintf(path, sizeof path, "%s/m.gguf", folder) > 0);
        path_refused(path, MEMOS_CORRUPT, cases[i].tensor);
        paramem_gguf_close(&gguf);
        memos_buffer_free(&file);
        folder_remove(folder);
    }
}

static void cut_files_are_refused(void **state)
{
    (void)state;
    char path[GOLDEN_PATH_BYTES], folder[FOLDER_PATH_BYTES], shard[64];
    folder_make(folder);
    golden_copy("models/llama2", folder);
    (void)snprintf(shard, sizeof shard, "model-00002-of-00004.safetensors");
    assert_true(snprintf(path, sizeof path, "%s/%s", folder, shard) > 0);
    if (access(path, F_OK) != 0) {
        (void)snprintf(shard, sizeof shard, "model-00002-of-00003.safetensors");
        assert_true(snprintf(path, sizeof path, "%s/%s", folder, shard) > 0);
    }
    struct memos_buffer file = golden_file(path);
    for (size_t size = 0; size < file.size; size += 997) {
        golden_write(folder, shard, memos_bytes_make(file.data, size));
        path_refused(folder, MEMOS_CORRUPT, shard);
    }
    memos_buffer_free(&file);
    assert_int_equal(unlink(path), 0);
    path_refused(folder, MEMOS_NOT_FOUND, shard);
    folder_remove(folder);

    folder_make(folder);
    file = golden_file(decode_path("llama3_q4_0.gguf", path));
    assert_true(snprintf(path, sizeof path, "%s/m.gguf", folder) > 0);
    for (size_t size = 0; size < file.size; size += 499) {
        golden_write(folder, "m.gguf", memos_bytes_make(file.data, size));
        path_refused(path, MEMOS_CORRUPT, "m.gguf");
    }
    memos_buffer_free(&file);
    folder_remove(folder);
}

/* Whatever a byte of the header is changed to, the model opens or is refused. */
static void changed_files_are_opened_or_refused(void **state)
{
    (void)state;
    uint64_t random = golden_seed();
    char path[GOLDEN_PATH_BYTES], folder[FOLDER_PATH_BYTES];
    struct kern_ctx *ctx = ctx_make();
    struct memos_buffer file = golden_file(decode_path("llama3_q4_0.gguf", path));
    size_t opened = 0;
    folder_make(folder);
    assert_true(snprintf(path, sizeof path, "%s/m.gguf", folder) > 0);
    for (size_t i = 0; i < 400; i++) {
        size_t at = golden_random(&random) % 2000;
        uint8_t old = file.data[at];
        struct paramem_model *model = NULL;
        struct paramem_model_options options = {
            .path = path, .ctx = ctx, .ids_only = true, .context_max = 64};
        file.data[at] = (uint8_t)golden_random(&random);
        golden_write(folder, "m.gguf", memos_buffer_view(&file));
        opened += paramem_model_open(&options, &model, NULL) == MEMOS_OK;
        paramem_model_close(&model);
        file.data[at] = old;
    }
    assert_true(opened > 0 && opened < 400);
    memos_buffer_free(&file);
    kern_ctx_destroy(&ctx);
    folder_remove(folder);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void entry(
    struct memos_buffer *out, const char *name, size_t rows, size_t columns, uint64_t *offset)
{
    memos_buffer_printf(out, "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":[", *offset ? "," : "{", name);
    if (rows > 0) {
        memos_buffer_printf(out, "%zu,", rows);
    }
    uint64_t end = *offset + 2 * (rows > 0 ? rows : 1) * (uint64_t)columns;
    memos_buffer_printf(out, "%zu],\"data_offsets\":[%llu,%llu]}", columns,
        (unsigned long long)*offset, (unsigned long long)end);
    *offset = end;
}

/* 500 GB of weights, in a file with a hole: nobody reads them. */
static void a_model_that_does_not_fit_says_so(void **state)
{
    (void)state;
    char folder[FOLDER_PATH_BYTES], path[GOLDEN_PATH_BYTES];
    const size_t hidden = 65536, inner = 1 << 20;
    struct memos_buffer head = memos_buffer_make(1 << 16);
    uint64_t size = 0;
    folder_make(folder);
    golden_write(folder, "config.json",
        memos_bytes_of("{\"model_type\":\"llama\",\"hidden_size\":65536,\"intermediate_size\":"
                       "1048576,\"num_hidden_layers\":1,\"num_attention_heads\":256,"
                       "\"vocab_size\":8,\"tie_word_embeddings\":true}"));
    entry(&head, "model.embed_tokens.weight", 8, hidden, &size);
    entry(&head, "model.norm.weight", 0, hidden, &size);
#define LAYER "model.layers.0."
    entry(&head, LAYER "input_layernorm.weight", 0, hidden, &size);
    entry(&head, LAYER "post_attention_layernorm.weight", 0, hidden, &size);
    entry(&head, LAYER "self_attn.q_proj.weight", hidden, hidden, &size);
    entry(&head, LAYER "self_attn.k_proj.weight", hidden, hidden, &size);
    entry(&head, LAYER "self_attn.v_proj.weight", hidden, hidden, &size);
    entry(&head, LAYER "self_attn.o_proj.weight", hidden, hidden, &size);
    entry(&head, LAYER "mlp.gate_proj.weight", inner, hidden, &size);
    entry(&head, LAYER "mlp.up_proj.weight", inner, hidden, &size);
    entry(&head, LAYER "mlp.down_proj.weight", hidden, inner, &size);
    memos_buffer_printf(&head, "}");
    while (head.size % 8 != 0) {
        memos_buffer_u8(&head, ' ');
    }
    assert_true(snprintf(path, sizeof path, "%s/model.safetensors", folder) > 0);
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    uint64_t length = head.size;
    assert_true(file >= 0 && write(file, &length, 8) == 8);
    assert_int_equal(write(file, head.data, head.size), head.size);
    if (ftruncate(file, (off_t)(8 + head.size + size)) == 0) {
        path_refused(folder, MEMOS_NO_MEMORY, " GB are free; smaller weights");
    } else {
        print_message("no file with a hole here\n");
    }
    assert_int_equal(close(file), 0);
    memos_buffer_free(&head);
    folder_remove(folder);
}

/* Every allocation of loading fails once; what is said is the truth, and nothing leaks. */
static void no_memory_is_said(const char *name)
{
    char path[GOLDEN_PATH_BYTES];
    struct kern_ctx *ctx = ctx_make();
    struct paramem_model_options options = {
        .path = decode_path(name, path), .ctx = ctx, .ids_only = true};
    enum memos_status status = MEMOS_NO_MEMORY;
    long allowed = 0;
    for (; status != MEMOS_OK && allowed < 10000; allowed++) {
        struct paramem_model *model = NULL;
        struct memos_error err = {.text = ""};
        until_failure = allowed;
        status = paramem_model_open(&options, &model, &err);
        bool reached = until_failure < 0;
        until_failure = -1;
        if (status != MEMOS_OK && status != MEMOS_NO_MEMORY) {
            fail_msg(
                "%s, allocation %ld: %s: %s", name, allowed, memos_status_name(status), err.text);
        }
        assert_true(reached || status == MEMOS_OK);
        assert_true(status == MEMOS_OK || (!model && err.text[0] != '\0'));
        paramem_model_close(&model);
        if (status == MEMOS_OK && reached) {
            status = MEMOS_NO_MEMORY; /* it did without: look at the next */
        }
    }
    assert_true(allowed > 10 && allowed < 10000);
    kern_ctx_destroy(&ctx);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    no_memory_is_said("llama2");
    no_memory_is_said("biased.gguf");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models_say_what_they_are),
        cmocka_unit_test(layers_are_whole),
        cmocka_unit_test(fingerprints_tell_models_apart),
        cmocka_unit_test(loading_tells_and_stops),
        cmocka_unit_test(options_are_checked),
        cmocka_unit_test(damaged_folders_are_refused),
        cmocka_unit_test(no_nan_is_computed_with),
        cmocka_unit_test(no_nan_of_a_block_is_computed_with),
        cmocka_unit_test(cut_files_are_refused),
        cmocka_unit_test(changed_files_are_opened_or_refused),
        cmocka_unit_test(a_model_that_does_not_fit_says_so),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
