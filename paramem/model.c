#include "paramem/model.h"

#include "paramem/layers.h"
#include "paramem/model_files.h"
#include "paramem/rope.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 32        /* numbers of a block of Q8_0 and Q4_0 */
#define VECTOR_ALIGN 64 /* floats */
#define GIGABYTE 1e9

/* struct paramem_model's memory. */
enum { MEMORY_VECTORS, MEMORY_TABLE, MEMORY_COS, MEMORY_SIN, MEMORIES };

/* A model while it is loaded. */
struct load {
    struct paramem_model *model;
    struct paramem_model_files *files;
    const struct paramem_model_options *options;
    float *vectors; /* host: norms and biases, as they will lie in the device's */
    size_t vectors_used, vectors_max;
    uint64_t bytes_by[KERN_Q6_K + 1]; /* of matrices, by type */
    struct memos_error *err;
};

/* ---- what it takes ------------------------------------------------------------------------- */

static size_t padded(size_t count)
{
    return (count + VECTOR_ALIGN - 1) / VECTOR_ALIGN * VECTOR_ALIGN;
}

/* Floats of all norms and biases. */
static size_t vectors_count(const struct paramem_decoder_config *c)
{
    size_t qkv = (c->heads + 2 * c->kv_heads) * c->head_dim;
    size_t layer = 2 * padded(c->hidden) + (c->qk_norm ? 2 * padded(c->head_dim) : 0) +
                   (c->qkv_bias ? padded(qkv) : 0) + (c->out_bias ? padded(c->hidden) : 0) +
                   (c->ffn_bias ? padded(2 * c->inner) + padded(c->hidden) : 0);
    return padded(c->hidden) + c->layers * layer;
}

/* What parts that become one matrix are packed as (model.h, "as stored"). */
static enum kern_dtype target_of(
    enum kern_dtype wanted, const struct paramem_weight *const *parts, size_t count)
{
    bool same = true, blocks = false;
    if (wanted) {
        return wanted;
    }
    for (size_t i = 0; i < count; i++) {
        same = same && parts[i]->dtype == parts[0]->dtype;
        blocks = blocks || kern_dtype_block(parts[i]->dtype) > 1;
    }
    if (same) {
        return parts[0]->dtype == KERN_F16 ? KERN_F32 : parts[0]->dtype;
    }
    return blocks ? KERN_Q8_0 : KERN_F32;
}

static uint64_t packed_bytes(
    enum kern_dtype wanted, const struct paramem_weight *const *parts, size_t count)
{
    enum kern_dtype to = target_of(wanted, parts, count);
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        size_t k = (parts[i]->shape[1] + BLOCK - 1) / BLOCK * BLOCK;
        size_t row = kern_dtype_block(to) <= BLOCK ? kern_dtype_row_bytes(to, k)
                                                   : parts[i]->bytes / parts[i]->shape[0];
        bytes += (uint64_t)row * parts[i]->shape[0];
    }
    return bytes;
}

static const struct paramem_weight *head_of(const struct paramem_model_files *files)
{
    return files->head ? files->head : files->table;
}

/* Bytes of memory that the model will take, but for what is read in place. */
static uint64_t needed_bytes(const struct load *load)
{
    const struct paramem_model_files *files = load->files;
    const struct paramem_decoder_config *config = &files->config;
    enum kern_dtype wanted = load->options->weights;
    const struct paramem_weight *head = head_of(files);
    uint64_t bytes = packed_bytes(wanted, &head, 1);

    for (size_t i = 0; i < config->layers; i++) {
        const struct paramem_weight *const *parts = files->layers[i].parts;
        bytes += packed_bytes(wanted, &parts[PARAMEM_QUERY], 3);
        bytes += packed_bytes(wanted, &parts[PARAMEM_OUT], 1);
        bytes += packed_bytes(wanted, &parts[PARAMEM_GATE], 2);
        bytes += packed_bytes(wanted, &parts[PARAMEM_DOWN], 1);
    }
    bytes += vectors_count(config) * sizeof(float);
    bytes += (uint64_t)load->model->context_max * config->rope.rotary * sizeof(float);
    if (!kern_memory_is_host(load->model->ctx)) {
        bytes += files->table->bytes;
    }
    return bytes;
}

static enum memos_status room_check(const struct load *load)
{
    uint64_t needed = needed_bytes(load), free_bytes = 0, total = 0;
    kern_memory(load->model->ctx, &free_bytes, &total);
    if (total > 0 && needed > free_bytes) {
        return memos_fail(load->err, MEMOS_NO_MEMORY,
            "%s needs %.2f GB, %.2f GB are free; smaller weights (i8, q4_0) or a shorter context "
            "need less",
            load->options->path, (double)needed / GIGABYTE, (double)free_bytes / GIGABYTE);
    }
    return MEMOS_OK;
}

/* What the options ask of this model. */
static enum memos_status options_check(const struct load *load)
{
    const struct paramem_decoder_config *config = &load->files->config;
    const struct paramem_model_options *options = load->options;
    static const enum kern_dtype works[] = {0, KERN_F32, KERN_BF16, KERN_I8, KERN_Q8_0, KERN_Q4_0};
    bool known = false;

    for (size_t i = 0; i < sizeof works / sizeof works[0]; i++) {
        known = known || options->weights == works[i];
    }
    if (!known) {
        return memos_fail(load->err, MEMOS_UNSUPPORTED,
            "weights %s; f32, bf16, i8, q8_0 and q4_0 work, or as they are stored",
            kern_dtype_name(options->weights));
    }
    if ((options->weights == KERN_Q8_0 || options->weights == KERN_Q4_0) &&
        (config->hidden % BLOCK != 0 || config->inner % BLOCK != 0 ||
            config->heads * config->head_dim % BLOCK != 0)) {
        return memos_fail(load->err, MEMOS_UNSUPPORTED,
            "weights %s need rows of whole blocks of %d numbers; this model has rows of %zu, %zu "
            "and %zu",
            kern_dtype_name(options->weights), BLOCK, config->hidden, config->inner,
            config->heads * config->head_dim);
    }
    if (options->context_max > PARAMEM_POSITIONS_MAX) {
        return memos_fail(load->err, MEMOS_TOO_LARGE, "a context of %zu tokens, at most %zu",
            options->context_max, (size_t)PARAMEM_POSITIONS_MAX);
    }
    return MEMOS_OK;
}

/* Dynamic scaling is there to be read past the length that the model was taught. */
static size_t context_of(const struct paramem_decoder_config *config, size_t wanted)
{
    double own = (double)config->positions_max;
    if (config->rope.scaling == PARAMEM_ROPE_DYNAMIC) {
        own *= config->rope.factor;
    }
    if (wanted > 0) {
        return wanted;
    }
    return own < (double)PARAMEM_POSITIONS_MAX ? (size_t)own : (size_t)PARAMEM_POSITIONS_MAX;
}

/* ---- matrices ------------------------------------------------------------------------------ */

/* The rows of each head from llama.cpp's order into Hugging Face's. */
static void rows_turn(const uint8_t *from, size_t row, size_t heads, size_t head_dim, uint8_t *to)
{
    size_t half = head_dim / 2;
    for (size_t h = 0; h < heads; h++) {
        for (size_t i = 0; i < head_dim; i++) {
            size_t source = h * head_dim + (i < half ? 2 * i : 2 * (i - half) + 1);
            memcpy(to + (h * head_dim + i) * row, from + source * row, row);
        }
    }
}

static enum memos_status pack(struct load *load, const struct paramem_weight *const *weights,
    const struct kern_part *parts, size_t count, struct kern_matrix **out)
{
    enum kern_dtype to = target_of(load->options->weights, weights, count);
    enum memos_status status = kern_matrix_pack_parts(
        load->model->ctx, to, parts, count, weights[0]->shape[1], out, load->err);
    if (status == MEMOS_OK) {
        load->bytes_by[to] += kern_matrix_bytes(*out);
    }
    return status;
}

/* Weights one below the other, where they lie. */
static enum memos_status pack_in_place(struct load *load,
    const struct paramem_weight *const *weights, size_t count, struct kern_matrix **out)
{
    struct kern_part parts[2];
    memos_assert(count <= 2);
    for (size_t i = 0; i < count; i++) {
        parts[i] = (struct kern_part){
            .from = weights[i]->dtype, .data = weights[i]->data, .n = weights[i]->shape[0]};
    }
    return pack(load, weights, parts, count, out);
}

/* Query, key and value; of a file in llama.cpp's order, query and key by way of a copy. */
static enum memos_status qkv_pack(
    struct load *load, const struct paramem_weight *const *weights, struct kern_matrix **out)
{
    const struct paramem_decoder_config *config = &load->files->config;
    const size_t heads[] = {config->heads, config->kv_heads};
    struct kern_part parts[3];
    uint8_t *turned = NULL, *at = NULL;

    for (size_t i = 0; i < 3; i++) {
        parts[i] = (struct kern_part){
            .from = weights[i]->dtype, .data = weights[i]->data, .n = weights[i]->shape[0]};
    }
    if (paramem_model_files_turned(load->files)) {
        size_t bytes = weights[0]->bytes + weights[1]->bytes;
        at = turned = malloc(bytes);
        if (!turned) {
            return memos_fail(load->err, MEMOS_NO_MEMORY, "no memory for %zu bytes", bytes);
        }
        for (size_t i = 0; i < 2; i++) {
            rows_turn(weights[i]->data, weights[i]->bytes / weights[i]->shape[0], heads[i],
                config->head_dim, at);
            parts[i].data = at;
            at += weights[i]->bytes;
        }
    }
    enum memos_status status = pack(load, weights, parts, 3, out);
    free(turned);
    return status;
}

/* ---- vectors ------------------------------------------------------------------------------- */

/* Room for a vector of `count`: where it lies on the host; *out where it will on the device. */
static float *vector_take(struct load *load, size_t count, const float **out)
{
    memos_assert(padded(count) <= load->vectors_max - load->vectors_used);
    float *host = load->vectors + load->vectors_used;
    *out = (const float *)load->model->memory[MEMORY_VECTORS] + load->vectors_used;
    load->vectors_used += padded(count);
    return host;
}

/* Vectors one behind the other; the first may be NULL: there is none. */
static void vectors_load(
    struct load *load, const struct paramem_weight *const *weights, size_t count, const float **out)
{
    size_t total = 0;
    if (!weights[0]) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        total += weights[i]->count;
    }
    float *host = vector_take(load, total, out);
    for (size_t i = 0; i < count; i++) {
        kern_to_f32(weights[i]->dtype, weights[i]->data, host, weights[i]->count);
        host += weights[i]->count;
    }
}

/* Biases of query and key are in the order of their rows. */
static enum memos_status qkv_bias_load(
    struct load *load, const struct paramem_weight *const *weights, const float **out)
{
    const struct paramem_decoder_config *config = &load->files->config;
    const size_t heads[] = {config->heads, config->kv_heads};
    vectors_load(load, weights, 3, out);
    if (!weights[0] || !paramem_model_files_turned(load->files)) {
        return MEMOS_OK;
    }
    size_t bytes = weights[0]->count * sizeof(float);
    float *host = load->vectors + (*out - (const float *)load->model->memory[MEMORY_VECTORS]);
    uint8_t *copy = malloc(bytes);
    if (!copy) {
        return memos_fail(load->err, MEMOS_NO_MEMORY, "no memory for %zu bytes", bytes);
    }
    for (size_t i = 0; i < 2; i++) {
        memcpy(copy, host, weights[i]->count * sizeof(float));
        rows_turn(copy, sizeof(float), heads[i], config->head_dim, (uint8_t *)host);
        host += weights[i]->count;
    }
    free(copy);
    return MEMOS_OK;
}

/* ---- the parts of a model ------------------------------------------------------------------ */

static enum memos_status layer_load(struct load *load, size_t index)
{
    struct paramem_layer *layer = &load->model->layers[index];
    const struct paramem_decoder_config *config = &load->files->config;
    const struct paramem_weight *const *parts = load->files->layers[index].parts;

    enum memos_status status = qkv_pack(load, &parts[PARAMEM_QUERY], &layer->qkv);
    if (status == MEMOS_OK) {
        status = pack_in_place(load, &parts[PARAMEM_OUT], 1, &layer->out);
    }
    if (status == MEMOS_OK) {
        status = pack_in_place(load, &parts[PARAMEM_GATE], 2, &layer->gate_up);
    }
    if (status == MEMOS_OK) {
        status = pack_in_place(load, &parts[PARAMEM_DOWN], 1, &layer->down);
    }
    if (status == MEMOS_OK) {
        status = qkv_bias_load(load, &parts[PARAMEM_QUERY_BIAS], &layer->qkv_bias);
    }
    vectors_load(load, &parts[PARAMEM_ATTENTION_NORM], 1, &layer->attention_norm);
    vectors_load(load, &parts[PARAMEM_FFN_NORM], 1, &layer->ffn_norm);
    vectors_load(load, &parts[PARAMEM_QUERY_NORM], 1, &layer->query_norm);
    vectors_load(load, &parts[PARAMEM_KEY_NORM], 1, &layer->key_norm);
    vectors_load(load, &parts[PARAMEM_OUT_BIAS], 1, &layer->out_bias);
    vectors_load(load, &parts[PARAMEM_GATE_BIAS], 2, &layer->gate_up_bias);
    vectors_load(load, &parts[PARAMEM_DOWN_BIAS], 1, &layer->down_bias);
    layer->window = config->window > 0 && index >= config->window_from ? config->window : 0;
    for (size_t part = 0; part < PARAMEM_PARTS && status == MEMOS_OK; part++) {
        if (parts[part]) {
            paramem_model_files_release(parts[part]);
        }
    }
    return status;
}

/* Device memory with this content. */
static enum memos_status upload(struct load *load, int memory, const void *content, size_t bytes)
{
    struct paramem_model *model = load->model;
    enum memos_status status = kern_alloc(model->ctx, bytes, &model->memory[memory], load->err);
    if (status == MEMOS_OK) {
        kern_upload(model->ctx, model->memory[memory], content, bytes);
    }
    return status;
}

/* The table where it lies: in the map, in the head when that has the rows as stored, or uploaded.
 */
static enum memos_status table_load(struct load *load)
{
    struct paramem_model *model = load->model;
    const struct paramem_weight *weight = load->files->table;
    enum kern_dtype dtype = weight->dtype;
    const void *rows = NULL;

    if (kern_memory_is_host(model->ctx)) {
        rows = weight->data;
    } else if (model->config.tied) {
        rows = kern_matrix_rows(model->head, &dtype);
        rows = dtype == weight->dtype ? rows : NULL;
    }
    if (!rows) {
        dtype = weight->dtype;
        enum memos_status status = upload(load, MEMORY_TABLE, weight->data, weight->bytes);
        if (status != MEMOS_OK) {
            return status;
        }
        rows = model->memory[MEMORY_TABLE];
    }
    model->table = (struct kern_gather){.table = rows, .dtype = dtype, .k = model->config.hidden};
    return MEMOS_OK;
}

/* What belongs to no layer; numbers of unit 0 are checked. */
static enum memos_status loose_load(struct load *load)
{
    struct paramem_model *model = load->model;
    const struct paramem_weight *head = head_of(load->files);
    enum memos_status status = pack_in_place(load, &head, 1, &model->head);
    if (status == MEMOS_OK) {
        status = table_load(load);
    }
    if (status == MEMOS_OK) {
        vectors_load(load, &load->files->final_norm, 1, &model->final_norm);
        paramem_model_files_release(head);
        paramem_model_files_release(load->files->table);
    }
    return status;
}

static enum memos_status rope_load(struct load *load)
{
    struct paramem_model *model = load->model;
    const struct paramem_rope_config *rope = &model->config.rope;
    const struct paramem_weight *divisors = load->files->factors;
    size_t half = rope->rotary / 2, count = model->context_max * half;
    float factors[PARAMEM_ROTARY_MAX];
    float *tables = calloc(2 * count, sizeof *tables);

    if (!tables) {
        return memos_fail(load->err, MEMOS_NO_MEMORY,
            "no memory for %zu positions, %zu bytes: a shorter context needs less",
            model->context_max, 2 * count * sizeof *tables);
    }
    if (divisors) {
        kern_to_f32(divisors->dtype, divisors->data, factors, divisors->count);
    }
    paramem_rope_fill(
        model->ctx, rope, divisors ? factors : NULL, model->context_max, tables, tables + count);
    enum memos_status status = upload(load, MEMORY_COS, tables, count * sizeof *tables);
    if (status == MEMOS_OK) {
        status = upload(load, MEMORY_SIN, tables + count, count * sizeof *tables);
    }
    free(tables);
    model->rope = (struct kern_rope){.cos = model->memory[MEMORY_COS],
        .sin = model->memory[MEMORY_SIN],
        .rotary = rope->rotary,
        .positions_max = model->context_max};
    return status;
}

/* ---- load ---------------------------------------------------------------------------------- */

static enum memos_status tell(const struct paramem_model_files *files, paramem_progress *progress,
    void *self, struct memos_error *err)
{
    if (progress && !progress(self, files->checked_bytes, files->bytes)) {
        return memos_fail(err, MEMOS_CANCELLED, "loading was cancelled");
    }
    return MEMOS_OK;
}

/* Check and pack, unit by unit. */
static enum memos_status weights_load(struct load *load)
{
    const struct paramem_model_options *options = load->options;
    struct paramem_model *model = load->model;
    size_t layers = model->config.layers;
    enum memos_status status = tell(load->files, options->progress, options->self, load->err);

    for (size_t unit = 0; unit <= layers && status == MEMOS_OK; unit++) {
        status = paramem_model_files_check(load->files, model->ctx, unit, load->err);
        if (status == MEMOS_OK) {
            status = unit == 0 ? loose_load(load) : layer_load(load, unit - 1);
        }
        if (status == MEMOS_OK) {
            status = tell(load->files, options->progress, options->self, load->err);
        }
    }
    return status;
}

static enum memos_status vectors_make(struct load *load)
{
    struct paramem_model *model = load->model;
    load->vectors_max = vectors_count(&model->config);
    load->vectors = calloc(load->vectors_max, sizeof *load->vectors);
    if (!load->vectors) {
        return memos_fail(load->err, MEMOS_NO_MEMORY,
            "no memory for %zu floats of norms and biases", load->vectors_max);
    }
    return kern_alloc(model->ctx, load->vectors_max * sizeof *load->vectors,
        &model->memory[MEMORY_VECTORS], load->err);
}

static void info_fill(const struct load *load)
{
    struct paramem_model *model = load->model;
    struct paramem_model_info *info = &model->info;
    enum kern_dtype most = KERN_F32;

    for (int i = KERN_F32; i <= KERN_Q6_K; i++) {
        most = load->bytes_by[i] > load->bytes_by[most] ? (enum kern_dtype)i : most;
        info->weight_bytes += load->bytes_by[i];
    }
    info->weight_bytes += load->vectors_max * sizeof(float);
    if (kern_memory_is_host(model->ctx) || model->memory[MEMORY_TABLE]) {
        info->weight_bytes += load->files->table->bytes;
    }
    info->architecture = paramem_architecture_name(model->config.architecture);
    info->format = load->files->gguf ? "gguf" : "safetensors";
    info->weights = kern_dtype_name(most);
    info->config = &model->config;
    info->context_max = model->context_max;
    info->parameters = load->files->parameters;
    paramem_model_files_fingerprint(load->files, model->tokenizer, info->fingerprint);
    if (model->tokenizer) {
        struct paramem_tokenizer_info about;
        paramem_tokenizer_describe(model->tokenizer, &about);
        info->chat_template = about.chat_template;
    }
}

static enum memos_status tokenizer_load(struct load *load)
{
    struct paramem_model *model = load->model;
    struct paramem_tokenizer_info info;
    if (load->options->ids_only) {
        return MEMOS_OK;
    }
    enum memos_status status = paramem_model_files_tokenizer(
        load->files, load->options->path, &model->tokenizer, load->err);
    if (status != MEMOS_OK) {
        return status;
    }
    paramem_tokenizer_describe(model->tokenizer, &info);
    if (info.vocab > model->config.vocab) {
        return memos_fail(load->err, MEMOS_CORRUPT,
            "%s: the tokenizer has %zu ids, the table of embeddings %zu rows", load->options->path,
            info.vocab, model->config.vocab);
    }
    return MEMOS_OK;
}

static enum memos_status model_fill(struct load *load)
{
    struct paramem_model *model = load->model;
    enum memos_status status = options_check(load);
    model->config = load->files->config;
    model->context_max = context_of(&model->config, load->options->context_max);
    if (status == MEMOS_OK) {
        status = room_check(load);
    }
    if (status == MEMOS_OK) {
        status = tokenizer_load(load);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    model->layers = calloc(model->config.layers, sizeof *model->layers);
    if (!model->layers) {
        return memos_fail(
            load->err, MEMOS_NO_MEMORY, "no memory for %zu layers", model->config.layers);
    }
    status = vectors_make(load);
    if (status == MEMOS_OK) {
        status = weights_load(load);
    }
    if (status == MEMOS_OK) {
        kern_upload(model->ctx, model->memory[MEMORY_VECTORS], load->vectors,
            load->vectors_max * sizeof *load->vectors);
        status = rope_load(load);
    }
    if (status == MEMOS_OK) {
        status = kern_sync(model->ctx, load->err);
    }
    if (status == MEMOS_OK) {
        info_fill(load);
    }
    return status;
}

enum memos_status paramem_model_open(const struct paramem_model_options *options,
    struct paramem_model **out_model, struct memos_error *err)
{
    struct paramem_model *model = calloc(1, sizeof *model);
    if (!model) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a model");
    }
    model->ctx = options->ctx;
    enum memos_status status = paramem_model_files_open(options->path, &model->files, err);
    if (status == MEMOS_OK) {
        struct load load = {.model = model, .files = model->files, .options = options, .err = err};
        status = model_fill(&load);
        free(load.vectors);
    }
    if (status != MEMOS_OK) {
        paramem_model_close(&model);
        return status;
    }
    *out_model = model;
    return MEMOS_OK;
}

void paramem_model_close(struct paramem_model **model)
{
    struct paramem_model *old = *model;
    if (!old) {
        return;
    }
    for (size_t i = 0; old->layers && i < old->config.layers; i++) {
        kern_matrix_free(&old->layers[i].qkv);
        kern_matrix_free(&old->layers[i].out);
        kern_matrix_free(&old->layers[i].gate_up);
        kern_matrix_free(&old->layers[i].down);
    }
    kern_matrix_free(&old->head);
    for (size_t i = 0; i < MEMORIES; i++) {
        kern_release(old->ctx, &old->memory[i]);
    }
    free(old->layers);
    paramem_tokenizer_close(&old->tokenizer);
    paramem_model_files_close(&old->files);
    free(old);
    *model = NULL;
}

void paramem_model_describe(const struct paramem_model *model, struct paramem_model_info *out)
{
    *out = model->info;
}

/* ---- the files alone ----------------------------------------------------------------------- */

enum memos_status paramem_model_fingerprint(const char *path, paramem_progress *progress,
    void *self, uint8_t out[32], struct memos_error *err)
{
    struct paramem_model_files *files = NULL;
    struct paramem_tokenizer *tokenizer = NULL;
    struct kern_ctx *ctx = NULL;
    enum memos_status status = paramem_model_files_open(path, &files, err);
    if (status == MEMOS_OK) {
        status = paramem_model_files_tokenizer(files, path, &tokenizer, err);
    }
    if (status == MEMOS_OK) {
        status = kern_ctx_create(&(struct kern_options){.backend = "cpu"}, &ctx, err);
    }
    for (size_t unit = 0; status == MEMOS_OK && unit <= files->config.layers; unit++) {
        size_t first = files->loader.checked_count;
        status = paramem_model_files_check(files, ctx, unit, err);
        for (size_t i = first; i < files->loader.checked_count; i++) {
            paramem_model_files_release(&files->loader.used[i]);
        }
        if (status == MEMOS_OK) {
            status = tell(files, progress, self, err);
        }
    }
    if (status == MEMOS_OK) {
        paramem_model_files_fingerprint(files, tokenizer, out);
    }
    kern_ctx_destroy(&ctx);
    paramem_tokenizer_close(&tokenizer);
    paramem_model_files_close(&files);
    return status;
}

enum memos_status paramem_model_inspect(
    const char *path, struct paramem_model_summary *out, struct memos_error *err)
{
    struct paramem_model_files *files = NULL;
    uint64_t bytes_by[KERN_Q6_K + 1] = {0};
    enum kern_dtype most = KERN_F32;
    enum memos_status status = paramem_model_files_open(path, &files, err);
    if (status != MEMOS_OK) {
        return status;
    }
    for (size_t i = 0; i < files->loader.used_count; i++) {
        enum kern_dtype dtype = files->loader.used[i].dtype;
        bytes_by[dtype] += files->loader.used[i].bytes;
        most = bytes_by[dtype] > bytes_by[most] ? dtype : most;
    }
    *out = (struct paramem_model_summary){
        .config = files->config, .parameters = files->parameters, .file_bytes = files->bytes};
    (void)snprintf(out->architecture, sizeof out->architecture, "%s",
        paramem_architecture_name(files->config.architecture));
    (void)snprintf(out->format, sizeof out->format, "%s", files->gguf ? "gguf" : "safetensors");
    (void)snprintf(out->weights, sizeof out->weights, "%s", kern_dtype_name(most));
    paramem_model_files_close(&files);
    return MEMOS_OK;
}
