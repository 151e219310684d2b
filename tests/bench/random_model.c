#include "tests/bench/random_model.h"

#include "paramem/rope.h"
#include "tests/bench/bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_NUMBERS ((size_t)4 << 20)
#define PARTS_MAX 1024
#define PATH_BYTES 1024
#define HEADER_BYTES ((size_t)1 << 20)

static const struct random_shape shapes[] = {
    {"llama1b", "Llama-3.2-1B", PARAMEM_LLAMA, 2048, 8192, 16, 32, 8, 64, 128256, true, false, 5e5},
    {"qwen06b", "Qwen3-0.6B", PARAMEM_QWEN3, 1024, 3072, 28, 16, 8, 128, 151936, true, true, 1e6},
    {"tiny", "nothing, to see that all works", PARAMEM_LLAMA, 256, 512, 4, 8, 2, 32, 1024, true,
        false, 1e4},
    {"llama8b", "Llama-3.1-8B", PARAMEM_LLAMA, 4096, 14336, 32, 32, 8, 128, 128256, false, false,
        5e5},
};

const struct random_shape *random_shape_find(const char *name)
{
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        if (strcmp(shapes[i].name, name) == 0) {
            return &shapes[i];
        }
    }
    return NULL;
}

/* bfloat16, even in +-0.035: the deviation 0.02 that models begin with. */
static uint16_t *block_make(void)
{
    uint16_t *block = bench_memory(BLOCK_NUMBERS, sizeof *block);
    uint64_t state = 1;
    float numbers[256];
    for (size_t i = 0; i < BLOCK_NUMBERS; i += 256) {
        for (size_t j = 0; j < 256; j++) {
            numbers[j] = 0.07f * ((float)(bench_next(&state) >> 40) / 16777216.0f - 0.5f);
        }
        kern_from_f32(KERN_BF16, numbers, block + i, 256);
    }
    return block;
}

/* ---- in memory ----------------------------------------------------------------------------- */

struct maker {
    struct kern_ctx *ctx;
    enum kern_dtype dtype;
    const uint16_t *block;
    struct memos_error err;
};

static struct kern_matrix *matrix_make(struct maker *maker, size_t n, size_t k)
{
    static struct kern_part parts[PARTS_MAX];
    size_t rows = BLOCK_NUMBERS / k, count = 0;
    struct kern_matrix *matrix = NULL;
    for (size_t done = 0; done < n; done += rows) {
        memos_assert(count < PARTS_MAX);
        parts[count++] =
            (struct kern_part){KERN_BF16, maker->block, n - done < rows ? n - done : rows};
    }
    bench_check(
        kern_matrix_pack_parts(maker->ctx, maker->dtype, parts, count, k, &matrix, &maker->err),
        &maker->err, "packing");
    return matrix;
}

/* Numbers in device memory, from host memory. */
static void *upload(struct maker *maker, const void *from, size_t bytes)
{
    void *memory = NULL;
    bench_check(kern_alloc(maker->ctx, bytes, &memory, &maker->err), &maker->err, "memory");
    kern_upload(maker->ctx, memory, from, bytes);
    return memory;
}

static const float *ones(struct maker *maker, size_t count)
{
    float *numbers = bench_memory(count, sizeof *numbers);
    for (size_t i = 0; i < count; i++) {
        numbers[i] = 1.0f;
    }
    const float *memory = upload(maker, numbers, count * sizeof *numbers);
    free(numbers);
    return memory;
}

static void config_fill(
    struct paramem_decoder_config *out, const struct random_shape *shape, size_t context)
{
    *out = (struct paramem_decoder_config){.architecture = shape->architecture,
        .hidden = shape->hidden,
        .inner = shape->inner,
        .layers = shape->layers,
        .heads = shape->heads,
        .kv_heads = shape->kv_heads,
        .head_dim = shape->head_dim,
        .vocab = shape->vocab,
        .positions_max = context,
        .norm_eps = 1e-5,
        .rope = {.scaling = PARAMEM_ROPE_DEFAULT,
            .theta = shape->theta,
            .factor = 1.0,
            .original_positions = context,
            .rotary = shape->head_dim},
        .tied = shape->tied,
        .qk_norm = shape->qk_norm,
        .bos_id = UINT32_MAX,
        .pad_id = UINT32_MAX};
}

static void layer_make(
    struct maker *maker, const struct random_shape *shape, struct paramem_layer *out)
{
    size_t wide = shape->heads * shape->head_dim, narrow = shape->kv_heads * shape->head_dim;
    out->attention_norm = ones(maker, shape->hidden);
    out->ffn_norm = ones(maker, shape->hidden);
    if (shape->qk_norm) {
        out->query_norm = ones(maker, shape->head_dim);
        out->key_norm = ones(maker, shape->head_dim);
    }
    out->qkv = matrix_make(maker, wide + 2 * narrow, shape->hidden);
    out->out = matrix_make(maker, shape->hidden, wide);
    out->gate_up = matrix_make(maker, 2 * shape->inner, shape->hidden);
    out->down = matrix_make(maker, shape->hidden, shape->inner);
}

static void rope_make(struct maker *maker, const struct paramem_rope_config *config, size_t context,
    struct kern_rope *out)
{
    size_t count = context * config->rotary / 2;
    float *tables = bench_memory(2 * count, sizeof *tables);
    paramem_rope_fill(maker->ctx, config, NULL, context, tables, tables + count);
    *out = (struct kern_rope){.cos = upload(maker, tables, count * sizeof *tables),
        .sin = upload(maker, tables + count, count * sizeof *tables),
        .rotary = config->rotary,
        .positions_max = context};
    free(tables);
}

static void table_make(struct maker *maker, size_t vocab, size_t hidden, struct kern_gather *out)
{
    size_t bytes = vocab * hidden * sizeof(uint16_t), block = BLOCK_NUMBERS * sizeof(uint16_t);
    void *table = NULL;
    bench_check(kern_alloc(maker->ctx, bytes, &table, &maker->err), &maker->err, "embeddings");
    for (size_t at = 0; at < bytes; at += block) {
        kern_upload(
            maker->ctx, (char *)table + at, maker->block, bytes - at < block ? bytes - at : block);
    }
    *out = (struct kern_gather){.table = table, .dtype = KERN_BF16, .k = hidden};
}

struct paramem_model *random_model_make(
    struct kern_ctx *ctx, const struct random_shape *shape, enum kern_dtype dtype, size_t context)
{
    uint16_t *block = block_make();
    struct maker maker = {.ctx = ctx, .dtype = dtype, .block = block};
    struct paramem_model *model = bench_memory(1, sizeof *model);
    model->ctx = ctx;
    model->context_max = context;
    config_fill(&model->config, shape, context);
    model->layers = bench_memory(shape->layers, sizeof *model->layers);
    for (size_t i = 0; i < shape->layers; i++) {
        layer_make(&maker, shape, &model->layers[i]);
    }
    model->final_norm = ones(&maker, shape->hidden);
    model->head = matrix_make(&maker, shape->vocab, shape->hidden);
    table_make(&maker, shape->vocab, shape->hidden, &model->table);
    rope_make(&maker, &model->config.rope, context, &model->rope);
    bench_check(kern_sync(ctx, &maker.err), &maker.err, "a random model");
    model->info = (struct paramem_model_info){.architecture = shape->like,
        .format = "random",
        .weights = kern_dtype_name(dtype),
        .config = &model->config,
        .context_max = context};
    free(block);
    return model;
}

static void release(struct kern_ctx *ctx, const void *memory)
{
    void *own = (void *)(uintptr_t)memory;
    kern_release(ctx, &own);
}

void random_model_free(struct paramem_model **model)
{
    struct paramem_model *m = *model;
    if (!m) {
        return;
    }
    for (size_t i = 0; i < m->config.layers; i++) {
        struct paramem_layer *layer = &m->layers[i];
        release(m->ctx, layer->attention_norm);
        release(m->ctx, layer->ffn_norm);
        release(m->ctx, layer->query_norm);
        release(m->ctx, layer->key_norm);
        kern_matrix_free(&layer->qkv);
        kern_matrix_free(&layer->out);
        kern_matrix_free(&layer->gate_up);
        kern_matrix_free(&layer->down);
    }
    release(m->ctx, m->final_norm);
    release(m->ctx, m->table.table);
    release(m->ctx, m->rope.cos);
    release(m->ctx, m->rope.sin);
    kern_matrix_free(&m->head);
    free(m->layers);
    free(m);
    *model = NULL;
}

uint64_t random_model_bytes(const struct paramem_model *model)
{
    uint64_t bytes = kern_matrix_bytes(model->head);
    for (size_t i = 0; i < model->config.layers; i++) {
        const struct paramem_layer *layer = &model->layers[i];
        bytes += kern_matrix_bytes(layer->qkv) + kern_matrix_bytes(layer->out) +
                 kern_matrix_bytes(layer->gate_up) + kern_matrix_bytes(layer->down);
    }
    return bytes;
}

double random_model_flop(const struct random_shape *shape, size_t tokens)
{
    double wide = (double)(shape->heads * shape->head_dim), t = (double)tokens;
    double narrow = (double)(shape->kv_heads * shape->head_dim), hidden = (double)shape->hidden;
    double weights =
        (wide + 2 * narrow) * hidden + hidden * wide + 3.0 * (double)shape->inner * hidden;
    /* a token sees half of the others: query with key, weight with value */
    return (double)shape->layers * (2.0 * t * weights + 2.0 * t * t * wide) +
           2.0 * (double)shape->vocab * hidden;
}

/* ---- as files ------------------------------------------------------------------------------ */

struct writer {
    FILE *file;
    char *header;
    size_t header_size;
    uint64_t at; /* in the data */
    const uint16_t *block;
};

static FILE *file_open(const char *folder, const char *name)
{
    char path[PATH_BYTES];
    int size = snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = size > 0 && (size_t)size < sizeof path ? fopen(path, "wb") : NULL;
    if (!file) {
        bench_fail("%s/%s: %s", folder, name, strerror(errno));
    }
    return file;
}

static void file_close(FILE *file)
{
    if (ferror(file) || fclose(file) != 0) {
        bench_fail("cannot write a random model: %s", strerror(errno));
    }
}

/* Once for the header (file NULL), once for the data. columns 0: a vector of ones. */
static void tensor_write(struct writer *w, const char *name, size_t rows, size_t columns)
{
    static const uint16_t one = 0x3f80;
    size_t count = columns > 0 ? rows * columns : rows;
    uint64_t end = w->at + count * sizeof(uint16_t);
    if (w->file && columns == 0) {
        for (size_t i = 0; i < rows; i++) {
            (void)fwrite(&one, sizeof one, 1, w->file);
        }
    }
    for (size_t done = 0; w->file && columns > 0 && done < count; done += BLOCK_NUMBERS) {
        size_t left = count - done;
        (void)fwrite(
            w->block, sizeof *w->block, left < BLOCK_NUMBERS ? left : BLOCK_NUMBERS, w->file);
    }
    if (!w->file) {
        char shape[64];
        (void)snprintf(shape, sizeof shape, columns > 0 ? "%zu,%zu" : "%zu", rows, columns);
        w->header_size +=
            (size_t)snprintf(w->header + w->header_size, HEADER_BYTES - w->header_size,
                "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":[%s],\"data_offsets\":[%llu,%llu]}",
                w->header_size > 1 ? "," : "", name, shape, (unsigned long long)w->at,
                (unsigned long long)end);
        memos_assert(w->header_size < HEADER_BYTES);
    }
    w->at = end;
}

static void layer_write(struct writer *w, const struct random_shape *shape, size_t layer)
{
    const struct {
        const char *name;
        size_t rows, columns;
    } tensors[] = {{"input_layernorm", shape->hidden, 0},
        {"self_attn.q_proj", shape->heads * shape->head_dim, shape->hidden},
        {"self_attn.k_proj", shape->kv_heads * shape->head_dim, shape->hidden},
        {"self_attn.v_proj", shape->kv_heads * shape->head_dim, shape->hidden},
        {"self_attn.o_proj", shape->hidden, shape->heads * shape->head_dim},
        {"post_attention_layernorm", shape->hidden, 0},
        {"mlp.gate_proj", shape->inner, shape->hidden},
        {"mlp.up_proj", shape->inner, shape->hidden},
        {"mlp.down_proj", shape->hidden, shape->inner},
        {"self_attn.q_norm", shape->qk_norm ? shape->head_dim : 0, 0},
        {"self_attn.k_norm", shape->qk_norm ? shape->head_dim : 0, 0}};
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
        char name[128];
        (void)snprintf(name, sizeof name, "model.layers.%zu.%s.weight", layer, tensors[i].name);
        if (tensors[i].rows > 0) {
            tensor_write(w, name, tensors[i].rows, tensors[i].columns);
        }
    }
}

static void tensors_write(struct writer *w, const struct random_shape *shape)
{
    w->at = 0;
    tensor_write(w, "model.embed_tokens.weight", shape->vocab, shape->hidden);
    for (size_t i = 0; i < shape->layers; i++) {
        layer_write(w, shape, i);
    }
    tensor_write(w, "model.norm.weight", shape->hidden, 0);
    if (!shape->tied) {
        tensor_write(w, "lm_head.weight", shape->vocab, shape->hidden);
    }
}

static void config_write(const struct random_shape *shape, const char *folder)
{
    bool is_qwen = shape->architecture == PARAMEM_QWEN3;
    FILE *file = file_open(folder, "config.json");
    (void)fprintf(file,
        "{\"architectures\": [\"%s\"], \"model_type\": \"%s\", \"hidden_act\": \"silu\",\n"
        " \"hidden_size\": %zu, \"intermediate_size\": %zu, \"num_hidden_layers\": %zu,\n"
        " \"num_attention_heads\": %zu, \"num_key_value_heads\": %zu, \"head_dim\": %zu,\n"
        " \"vocab_size\": %zu, \"max_position_embeddings\": 8192, \"rms_norm_eps\": 1e-05,\n"
        " \"rope_theta\": %.1f, \"tie_word_embeddings\": %s, \"torch_dtype\": \"bfloat16\"}\n",
        is_qwen ? "Qwen3ForCausalLM" : "LlamaForCausalLM", is_qwen ? "qwen3" : "llama",
        shape->hidden, shape->inner, shape->layers, shape->heads, shape->kv_heads, shape->head_dim,
        shape->vocab, shape->theta, shape->tied ? "true" : "false");
    file_close(file);
}

/* Byte-level BPE of one merge: each byte is a token, written as GPT-2's table has it. */
static void tokenizer_write(const char *folder)
{
    FILE *file = file_open(folder, "tokenizer.json");
    unsigned next = 256;
    (void)fputs(
        "{\"version\": \"1.0\", \"added_tokens\": [], \"normalizer\": null,\n"
        " \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false,"
        " \"trim_offsets\": true, \"use_regex\": true},\n"
        " \"post_processor\": null, \"decoder\": {\"type\": \"ByteLevel\","
        " \"add_prefix_space\": true, \"trim_offsets\": true, \"use_regex\": true},\n"
        " \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null,"
        " \"continuing_subword_prefix\": null, \"end_of_word_suffix\": null,"
        " \"fuse_unk\": false, \"byte_fallback\": false, \"merges\": [\"t h\"], \"vocab\": {",
        file);
    for (unsigned byte = 0; byte < 256; byte++) {
        bool is_shown = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) ||
                        (byte >= 0xae && byte <= 0xff);
        (void)fprintf(
            file, "%s\"\\u%04x\": %u", byte > 0 ? ", " : "", is_shown ? byte : next, byte);
        next += !is_shown;
    }
    (void)fputs(", \"th\": 256}}}\n", file);
    file_close(file);
}

void random_model_write(const struct random_shape *shape, const char *folder)
{
    uint16_t *block = block_make();
    struct writer w = {.block = block, .header = bench_memory(HEADER_BYTES, 1)};
    config_write(shape, folder);
    tokenizer_write(folder);
    w.header[w.header_size++] = '{';
    tensors_write(&w, shape);
    while (w.header_size % 8 != 7) {
        w.header[w.header_size++] = ' ';
    }
    w.header[w.header_size++] = '}';
    w.file = file_open(folder, "model.safetensors");
    const uint64_t size = w.header_size; /* little-endian, as this machine */
    (void)fwrite(&size, sizeof size, 1, w.file);
    (void)fwrite(w.header, 1, w.header_size, w.file);
    tensors_write(&w, shape);
    file_close(w.file);
    free(w.header);
    free(block);
}
