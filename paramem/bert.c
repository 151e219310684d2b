#include "paramem/bert.h"

#include "paramem/weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct layer {
    struct kern_matrix *qkv, *out, *up, *down;
    const float *qkv_bias, *out_bias, *up_bias, *down_bias;
    const float *mid_gamma, *mid_beta; /* LayerNorm after attention */
    const float *end_gamma, *end_beta; /* and at the end */
};

enum { TABLE_WORD, TABLE_POSITION, TABLE_TYPE, TABLES };

struct paramem_bert {
    struct kern_ctx *ctx;
    struct paramem_config config;
    size_t tokens_max, text_max;

    const float *tables[TABLES]; /* in the file's map, or one of `made` */
    float *made[TABLES];
    const float *gamma, *beta; /* LayerNorm of the embeddings */
    struct layer *layers;
    float *vectors; /* biases and the like of all layers */
    size_t vectors_used;
    uint8_t digest[32];
    uint64_t bytes;

    /* Room of a batch of T = tokens_max: x (T, H) and y (T, H) go through the layers; wide holds
     * qkv (T, 3H) and attended (T, H), then what is between up and down (T, I). */
    float *x, *y, *wide;
    uint32_t *places, *types; /* (T) */
    void *workspace;          /* of kern_* */
};

/* ---- loading ------------------------------------------------------------------------------- */

static size_t vectors_count(const struct paramem_config *c)
{
    return 2 * c->hidden + c->layers * (9 * c->hidden + c->intermediate);
}

/* The next `count` floats of the block of vectors. */
static float *vector_take(struct paramem_bert *bert, size_t count)
{
    memos_assert(count <= vectors_count(&bert->config) - bert->vectors_used);
    float *taken = bert->vectors + bert->vectors_used;
    bert->vectors_used += count;
    return taken;
}

static void vector_copy(
    struct paramem_loader *loader, const char *name, size_t index, size_t count, float *out)
{
    const struct paramem_weight *tensor = paramem_loader_get(loader, name, index, 0, count);
    if (tensor) {
        kern_to_f32(tensor->dtype, tensor->data, out, count);
    }
}

static const float *vector_load(struct paramem_bert *bert, struct paramem_loader *loader,
    const char *name, size_t index, size_t count)
{
    float *out = vector_take(bert, count);
    vector_copy(loader, name, index, count, out);
    return out;
}

static void no_memory(struct paramem_loader *loader, size_t bytes)
{
    loader->status =
        memos_fail(loader->err, MEMOS_NO_MEMORY, "no memory for %zu bytes of a model", bytes);
}

/* A table of embeddings: where it lies when it is float32, else converted. */
static void table_load(struct paramem_bert *bert, struct paramem_loader *loader, int table,
    const char *name, size_t rows)
{
    size_t hidden = bert->config.hidden;
    const struct paramem_weight *tensor = paramem_loader_get(loader, name, 0, rows, hidden);
    if (!tensor) {
        return;
    }
    bert->bytes += tensor->count * sizeof(float);
    if (tensor->dtype == KERN_F32) {
        bert->tables[table] = tensor->data;
        return;
    }
    bert->made[table] = malloc(tensor->count * sizeof(float));
    if (!bert->made[table]) {
        no_memory(loader, tensor->count * sizeof(float));
        return;
    }
    kern_to_f32(tensor->dtype, tensor->data, bert->made[table], tensor->count);
    bert->tables[table] = bert->made[table];
}

static void matrix_load(struct paramem_bert *bert, struct paramem_loader *loader,
    enum kern_dtype to, const char *name, size_t index, size_t n, size_t k,
    struct kern_matrix **out)
{
    const struct paramem_weight *tensor = paramem_loader_get(loader, name, index, n, k);
    if (!tensor) {
        return;
    }
    loader->status =
        kern_matrix_pack(bert->ctx, to, tensor->dtype, tensor->data, n, k, out, loader->err);
    if (loader->status == MEMOS_OK) {
        bert->bytes += kern_matrix_bytes(*out);
    }
}

/* Query, key and value as one matrix and one bias. */
static void qkv_load(struct paramem_bert *bert, struct paramem_loader *loader, enum kern_dtype to,
    size_t index, struct layer *layer)
{
    static const char *const names[] = {"encoder.layer.%zu.attention.self.query.weight",
        "encoder.layer.%zu.attention.self.key.weight",
        "encoder.layer.%zu.attention.self.value.weight"};
    static const char *const biases[] = {"encoder.layer.%zu.attention.self.query.bias",
        "encoder.layer.%zu.attention.self.key.bias", "encoder.layer.%zu.attention.self.value.bias"};
    size_t hidden = bert->config.hidden;
    struct kern_part parts[3];
    float *bias = vector_take(bert, 3 * hidden);

    for (size_t i = 0; i < 3; i++) {
        const struct paramem_weight *weight =
            paramem_loader_get(loader, names[i], index, hidden, hidden);
        vector_copy(loader, biases[i], index, hidden, bias + i * hidden);
        if (weight) {
            parts[i] = (struct kern_part){.from = weight->dtype, .data = weight->data, .n = hidden};
        }
    }
    layer->qkv_bias = bias;
    if (loader->status == MEMOS_OK) {
        loader->status =
            kern_matrix_pack_parts(bert->ctx, to, parts, 3, hidden, &layer->qkv, loader->err);
    }
    if (loader->status == MEMOS_OK) {
        bert->bytes += kern_matrix_bytes(layer->qkv);
    }
}

#define LAYER "encoder.layer.%zu."

static void layer_load(struct paramem_bert *bert, struct paramem_loader *loader, enum kern_dtype to,
    size_t i, struct layer *layer)
{
    size_t h = bert->config.hidden, inner = bert->config.intermediate;

    qkv_load(bert, loader, to, i, layer);
    matrix_load(bert, loader, to, LAYER "attention.output.dense.weight", i, h, h, &layer->out);
    layer->out_bias = vector_load(bert, loader, LAYER "attention.output.dense.bias", i, h);
    layer->mid_gamma = vector_load(bert, loader, LAYER "attention.output.LayerNorm.weight", i, h);
    layer->mid_beta = vector_load(bert, loader, LAYER "attention.output.LayerNorm.bias", i, h);
    matrix_load(bert, loader, to, LAYER "intermediate.dense.weight", i, inner, h, &layer->up);
    layer->up_bias = vector_load(bert, loader, LAYER "intermediate.dense.bias", i, inner);
    matrix_load(bert, loader, to, LAYER "output.dense.weight", i, h, inner, &layer->down);
    layer->down_bias = vector_load(bert, loader, LAYER "output.dense.bias", i, h);
    layer->end_gamma = vector_load(bert, loader, LAYER "output.LayerNorm.weight", i, h);
    layer->end_beta = vector_load(bert, loader, LAYER "output.LayerNorm.bias", i, h);
}

static void weights_load(
    struct paramem_bert *bert, struct paramem_loader *loader, enum kern_dtype to)
{
    const struct paramem_config *config = &bert->config;

    /* A model with a head keeps its encoder under "bert.". */
    if (!paramem_loader_has(loader, "embeddings.word_embeddings.weight")) {
        loader->prefix = "bert.";
        if (!paramem_loader_has(loader, "embeddings.word_embeddings.weight")) {
            loader->prefix = "";
        }
    }
    table_load(bert, loader, TABLE_WORD, "embeddings.word_embeddings.weight", config->vocab);
    table_load(
        bert, loader, TABLE_POSITION, "embeddings.position_embeddings.weight", config->positions);
    table_load(bert, loader, TABLE_TYPE, "embeddings.token_type_embeddings.weight", config->types);
    bert->gamma = vector_load(bert, loader, "embeddings.LayerNorm.weight", 0, config->hidden);
    bert->beta = vector_load(bert, loader, "embeddings.LayerNorm.bias", 0, config->hidden);
    for (size_t i = 0; i < config->layers && loader->status == MEMOS_OK; i++) {
        layer_load(bert, loader, to, i, &bert->layers[i]);
    }
    bert->bytes += vectors_count(config) * sizeof(float);
}

/* ---- room ---------------------------------------------------------------------------------- */

/* Floats of `wide` for one token. */
static size_t wide_of(const struct paramem_config *config)
{
    size_t attention = 4 * config->hidden;
    return attention > config->intermediate ? attention : config->intermediate;
}

static size_t workspace_bytes(const struct paramem_bert *bert)
{
    const struct layer *layer = &bert->layers[0]; /* all have the same shapes */
    const struct paramem_config *config = &bert->config;
    size_t most = kern_encode_attention_workspace_bytes(
        bert->ctx, bert->text_max, config->hidden / config->heads);
    const struct kern_matrix *matrices[] = {layer->qkv, layer->out, layer->up, layer->down};
    for (size_t i = 0; i < sizeof matrices / sizeof matrices[0]; i++) {
        size_t bytes = kern_linear_workspace_bytes(bert->ctx, matrices[i], bert->tokens_max);
        most = bytes > most ? bytes : most;
    }
    return most;
}

/* 256-byte aligned, at least that; NULL without memory. */
static void *room(size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX - 256) {
        return NULL;
    }
    return aligned_alloc(256, (bytes + 255) / 256 * 256 + 256 * (bytes == 0));
}

static enum memos_status room_make(struct paramem_bert *bert, struct memos_error *err)
{
    size_t tokens = bert->tokens_max, hidden = bert->config.hidden;
    size_t wide = wide_of(&bert->config);

    bert->x = room(tokens, hidden * sizeof(float));
    bert->y = room(tokens, hidden * sizeof(float));
    bert->wide = room(tokens, wide * sizeof(float));
    bert->places = room(tokens, sizeof(uint32_t));
    bert->types = room(tokens, sizeof(uint32_t));
    bert->workspace = room(workspace_bytes(bert), 1);
    if (!bert->x || !bert->y || !bert->wide || !bert->places || !bert->types || !bert->workspace) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to encode %zu tokens at a time", tokens);
    }
    memset(bert->types, 0, tokens * sizeof(uint32_t));
    return MEMOS_OK;
}

/* ---- life ---------------------------------------------------------------------------------- */

static enum memos_status bert_fill(
    struct paramem_bert *bert, const struct paramem_bert_options *options, struct memos_error *err)
{
    const struct paramem_config *config = &bert->config;
    bert->layers = calloc(config->layers, sizeof *bert->layers);
    bert->vectors = calloc(vectors_count(config), sizeof *bert->vectors);
    if (!bert->layers || !bert->vectors) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu layers", config->layers);
    }
    struct paramem_loader loader = paramem_loader_make(
        paramem_weight_of_tensors, options->tensors, 5 + 16 * config->layers, err);
    if (loader.status == MEMOS_OK) {
        weights_load(bert, &loader, options->weights);
    }
    enum memos_status status = paramem_loader_check(&loader, bert->ctx, loader.used_count);
    if (status == MEMOS_OK) {
        paramem_loader_digest(&loader, bert->digest);
    }
    paramem_loader_finish(&loader);
    return status == MEMOS_OK ? room_make(bert, err) : status;
}

enum memos_status paramem_bert_load(
    const struct paramem_bert_options *options, struct paramem_bert **out, struct memos_error *err)
{
    memos_assert(options->text_max <= options->tokens_max &&
                 options->text_max <= options->config->positions);
    struct paramem_bert *bert = calloc(1, sizeof *bert);
    if (!bert) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a model");
    }
    bert->ctx = options->ctx;
    bert->config = *options->config;
    bert->tokens_max = options->tokens_max;
    bert->text_max = options->text_max;
    enum memos_status status = bert_fill(bert, options, err);
    if (status != MEMOS_OK) {
        paramem_bert_free(&bert);
        return status;
    }
    *out = bert;
    return MEMOS_OK;
}

void paramem_bert_free(struct paramem_bert **bert)
{
    struct paramem_bert *old = *bert;
    if (!old) {
        return;
    }
    for (size_t i = 0; old->layers && i < old->config.layers; i++) {
        kern_matrix_free(&old->layers[i].qkv);
        kern_matrix_free(&old->layers[i].out);
        kern_matrix_free(&old->layers[i].up);
        kern_matrix_free(&old->layers[i].down);
    }
    for (size_t i = 0; i < TABLES; i++) {
        free(old->made[i]);
    }
    free(old->layers);
    free(old->vectors);
    free(old->x);
    free(old->y);
    free(old->wide);
    free(old->places);
    free(old->types);
    free(old->workspace);
    free(old);
    *bert = NULL;
}

uint64_t paramem_bert_bytes(const struct paramem_bert *bert)
{
    return bert->bytes;
}

void paramem_bert_digest(const struct paramem_bert *bert, uint8_t out[32])
{
    memcpy(out, bert->digest, sizeof bert->digest);
}

/* ---- forward ------------------------------------------------------------------------------- */

static void linear(struct paramem_bert *bert, const float *x, const struct kern_matrix *w,
    const float *bias, const float *residual, float *y, size_t t, enum kern_activation act)
{
    kern_linear(bert->ctx, &(struct kern_linear){.x = x,
                               .w = w,
                               .bias = bias,
                               .residual = residual,
                               .y = y,
                               .t = t,
                               .act = act,
                               .workspace = bert->workspace});
}

static void embed(
    struct paramem_bert *bert, const uint32_t *ids, const uint32_t *starts, size_t sequences)
{
    size_t hidden = bert->config.hidden, t = starts[sequences];
    const uint32_t *rows[TABLES] = {
        [TABLE_WORD] = ids, [TABLE_POSITION] = bert->places, [TABLE_TYPE] = bert->types};

    for (size_t i = 0; i < sequences; i++) {
        memos_assert(starts[i + 1] > starts[i] && starts[i + 1] - starts[i] <= bert->text_max);
        for (uint32_t at = starts[i]; at < starts[i + 1]; at++) {
            bert->places[at] = at - starts[i];
        }
    }
    kern_embed(bert->ctx, bert->tables, rows, TABLES, bert->x, t, hidden);
    kern_layernorm(
        bert->ctx, bert->x, bert->gamma, bert->beta, bert->config.eps, bert->x, t, hidden);
}

/* x through one layer, in place. */
static void layer_run(
    struct paramem_bert *bert, const struct layer *layer, const uint32_t *starts, size_t sequences)
{
    const struct paramem_config *config = &bert->config;
    size_t hidden = config->hidden, t = starts[sequences], head_dim = hidden / config->heads;
    float *qkv = bert->wide, *attended = bert->wide + t * 3 * hidden, *inner = bert->wide;

    linear(bert, bert->x, layer->qkv, layer->qkv_bias, NULL, qkv, t, KERN_NONE);
    kern_encode_attention(bert->ctx, &(struct kern_encode_attention){.qkv = qkv,
                                         .starts = starts,
                                         .sequences = sequences,
                                         .heads = config->heads,
                                         .head_dim = head_dim,
                                         .scale = (float)(1.0 / sqrt((double)head_dim)),
                                         .out = attended,
                                         .workspace = bert->workspace});
    linear(bert, attended, layer->out, layer->out_bias, bert->x, bert->y, t, KERN_NONE);
    kern_layernorm(
        bert->ctx, bert->y, layer->mid_gamma, layer->mid_beta, config->eps, bert->x, t, hidden);
    linear(bert, bert->x, layer->up, layer->up_bias, NULL, inner, t, config->act);
    linear(bert, inner, layer->down, layer->down_bias, bert->x, bert->y, t, KERN_NONE);
    kern_layernorm(
        bert->ctx, bert->y, layer->end_gamma, layer->end_beta, config->eps, bert->x, t, hidden);
}

void paramem_bert_encode(struct paramem_bert *bert, const uint32_t *ids, const uint32_t *starts,
    size_t sequences, float *out)
{
    const struct paramem_config *config = &bert->config;
    memos_assert(sequences > 0 && starts[0] == 0 && starts[sequences] <= bert->tokens_max);

    embed(bert, ids, starts, sequences);
    for (size_t i = 0; i < config->layers; i++) {
        layer_run(bert, &bert->layers[i], starts, sequences);
    }
    if (config->pooling == PARAMEM_POOL_MEAN) {
        kern_pool_mean(bert->ctx, bert->x, starts, sequences, out, config->hidden);
    } else {
        kern_pool_cls(bert->ctx, bert->x, starts, sequences, out, config->hidden);
    }
    if (config->normalize) {
        kern_normalize(bert->ctx, out, sequences, config->hidden);
    }
}
