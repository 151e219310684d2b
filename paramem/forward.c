#include "paramem/forward.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN 256
#define LENGTH_LEAST 512 /* of a recording; then it doubles */
#define LENGTH_SIZES 24  /* 512 << 23 is above any context */
#define BATCH_SIZES 64

/* The parts of the device's memory that a pass works in. */
enum part { X, H, QKV, ATTENDED, GATE_UP, GATED, LAST, NORMED, LOGITS, WORKSPACE, STEP, PARTS };

/* What describes a pass, one array behind the other in one piece of memory. */
struct step {
    uint32_t *ids, *positions, *slots, *starts, *chunk_starts, *lengths, *logits_rows, *tables;
};

struct paramem_forward {
    struct paramem_model *model;
    struct kern_kv *kv;
    size_t rows_max, sequences_max, logits_max, length_max;
    size_t qkv_width; /* of a row */
    enum kern_dtype between;
    float scale; /* of attention */
    bool records;

    void *memory; /* of the device */
    uint64_t bytes;
    size_t at[PARTS];
    uint8_t *host; /* a step's arrays, to be copied */
    size_t rows;   /* of the last pass */

    struct kern_graph *graphs[BATCH_SIZES][LENGTH_SIZES];
    enum recording {
        UNMET,
        MET,        /* once: it ran, so that all that a first run sets up is there */
        UNRECORDED, /* recording failed: it is not tried again */
    } recordings[BATCH_SIZES][LENGTH_SIZES];
};

/* The shape of a pass as it is queued. Attention is one operation for the sequences of one row that
 * come first, which decode, and one for those after them, which read chunks: so that a token's
 * numbers are the same whether others read beside it or not. */
struct shape {
    size_t rows, sequences, stride, logits;
    size_t singles, singles_length; /* how many come first; the longest */
    size_t chunk_rows, chunk_length;
    bool decoding; /* row b is sequence b's, and its logits are wanted */
};

/* ---- sizes --------------------------------------------------------------------------------- */

static size_t up(size_t value, size_t unit)
{
    return (value + unit - 1) / unit * unit;
}

/* 1, 2, 4, 8, 16, 24, 32 ...: few enough to record, close enough to waste little. */
static size_t batch_size(size_t sequences, size_t *out_index)
{
    size_t size = 1, index = 0;
    while (size < sequences) {
        size = size < 8 ? 2 * size : size + 8;
        index++;
    }
    *out_index = index;
    return size;
}

static size_t length_size(size_t length, size_t *out_index)
{
    size_t size = LENGTH_LEAST, index = 0;
    while (size < length) {
        size *= 2;
        index++;
    }
    *out_index = index;
    return size;
}

static size_t pages_of(size_t tokens)
{
    return (tokens + KERN_PAGE_TOKENS - 1) / KERN_PAGE_TOKENS;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

enum { PRODUCTS = 4 }; /* of a layer */

static void products_of(const struct paramem_layer *layer, const struct kern_matrix *out[PRODUCTS])
{
    out[0] = layer->qkv;
    out[1] = layer->out;
    out[2] = layer->gate_up;
    out[3] = layer->down;
}

/* What lies between products has one type: float32 where they do not want the same. */
static enum kern_dtype between_of(const struct paramem_model *model)
{
    const struct kern_matrix *all[PRODUCTS];
    enum kern_dtype between = kern_between_dtype(model->ctx, kern_matrix_dtype(model->head));
    for (size_t i = 0; i < model->config.layers; i++) {
        products_of(&model->layers[i], all);
        for (size_t j = 0; j < PRODUCTS; j++) {
            if (kern_between_dtype(model->ctx, kern_matrix_dtype(all[j])) != between) {
                return KERN_F32;
            }
        }
    }
    return between;
}

static size_t linear_room(const struct paramem_forward *forward, size_t rows, size_t logits)
{
    const struct paramem_model *model = forward->model;
    const struct kern_matrix *all[PRODUCTS];
    size_t room = kern_linear_workspace_bytes(model->ctx, model->head, logits);
    for (size_t i = 0; i < model->config.layers; i++) {
        products_of(&model->layers[i], all);
        for (size_t j = 0; j < PRODUCTS; j++) {
            room = larger(room, kern_linear_workspace_bytes(model->ctx, all[j], rows));
        }
    }
    return room;
}

/* Room that every number of rows up to the most is content with: what a product or attention asks
 * for need not grow with its rows (few rows of a long context are split, many are not). */
static size_t workspace_room(const struct paramem_forward *forward)
{
    const struct paramem_decoder_config *config = &forward->model->config;
    size_t unused, length = length_size(forward->length_max, &unused), room = 0;
    for (size_t rows = 1;; rows = 2 * rows < forward->rows_max ? 2 * rows : forward->rows_max) {
        size_t logits = rows < forward->logits_max ? rows : forward->logits_max;
        room = larger(room, linear_room(forward, rows, logits));
        if (rows == forward->rows_max) {
            break;
        }
    }
    for (size_t rows = 1; rows <= forward->rows_max; rows++) {
        size_t sequences = rows < forward->sequences_max ? rows : forward->sequences_max;
        room = larger(room, kern_attention_workspace_bytes(forward->model->ctx, rows, sequences,
                                config->heads, config->kv_heads, config->head_dim, length));
    }
    return room;
}

static size_t step_bytes(const struct paramem_forward *forward)
{
    size_t unused, pages = pages_of(length_size(forward->length_max, &unused));
    size_t numbers = 3 * up(forward->rows_max, 16) + 3 * up(forward->sequences_max + 1, 16) +
                     up(forward->logits_max, 16) + forward->sequences_max * pages;
    return numbers * sizeof(uint32_t);
}

/* Where the parts lie; the bytes of all. */
static void parts_plan(struct paramem_forward *forward)
{
    const struct paramem_decoder_config *config = &forward->model->config;
    size_t rows = forward->rows_max, logits = forward->logits_max;
    size_t between = kern_dtype_bytes(forward->between);
    size_t sizes[PARTS] = {
        [X] = rows * config->hidden * sizeof(float),
        [H] = rows * config->hidden * between,
        [QKV] = rows * forward->qkv_width * sizeof(float),
        [ATTENDED] = rows * config->heads * config->head_dim * between,
        [GATE_UP] = rows * 2 * config->inner * between,
        [GATED] = rows * config->inner * between,
        [LAST] = logits * config->hidden * sizeof(float),
        [NORMED] = logits * config->hidden * between,
        [LOGITS] = logits * config->vocab * sizeof(float),
        [WORKSPACE] = workspace_room(forward),
        [STEP] = step_bytes(forward),
    };
    for (size_t i = 0; i < PARTS; i++) {
        forward->at[i] = (size_t)forward->bytes;
        forward->bytes += up(sizes[i], ALIGN);
    }
}

/* ---- create -------------------------------------------------------------------------------- */

/* A recording of nothing tells whether this backend records. */
static enum memos_status records_ask(struct paramem_forward *forward, struct memos_error *err)
{
    struct kern_graph *graph = NULL;
    if (!kern_graph_begin(forward->model->ctx)) {
        return MEMOS_OK;
    }
    enum memos_status status = kern_graph_end(forward->model->ctx, &graph, err);
    kern_graph_free(&graph);
    forward->records = status == MEMOS_OK;
    return status;
}

static enum memos_status forward_fill(struct paramem_forward *forward,
    const struct paramem_forward_options *options, struct memos_error *err)
{
    struct kern_ctx *ctx = forward->model->ctx;
    size_t layers = forward->model->config.layers;

    forward->kv = calloc(layers, sizeof *forward->kv);
    if (!forward->kv) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a forward pass");
    }
    memcpy(forward->kv, options->kv, layers * sizeof *forward->kv);
    enum memos_status status = records_ask(forward, err);
    if (status == MEMOS_OK) {
        parts_plan(forward);
        status = kern_alloc(ctx, (size_t)forward->bytes, &forward->memory, err);
    }
    if (status == MEMOS_OK) {
        /* Rows that pad a batch are computed with: they begin with what is finite. */
        if (forward->records) {
            kern_fill(ctx, forward->memory, 0, (size_t)forward->bytes);
        }
        void *host = NULL;
        status = kern_host_alloc(ctx, step_bytes(forward), &host, err);
        forward->host = host;
    }
    return status;
}

static void forward_check(const struct paramem_forward_options *options)
{
    const struct paramem_model *model = options->model;
    const struct paramem_decoder_config *config = &model->config;
    size_t n = 0, k = 0;

    kern_matrix_shape(model->head, &n, &k);
    memos_assert(n == config->vocab && k == config->hidden);
    memos_assert(model->table.k == config->hidden);
    memos_assert(config->kv_heads > 0 && config->heads % config->kv_heads == 0);
    memos_assert(options->rows_max > 0 && options->sequences_max > 0 && options->logits_max > 0);
    memos_assert(options->length_max > 0 && options->length_max <= model->rope.positions_max);
}

enum memos_status paramem_forward_create(const struct paramem_forward_options *options,
    struct paramem_forward **out, struct memos_error *err)
{
    const struct paramem_decoder_config *config = &options->model->config;
    struct paramem_model *model = options->model;
    size_t unused, padded = batch_size(options->sequences_max, &unused), n = 0, k = 0;

    forward_check(options);
    struct paramem_forward *forward = calloc(1, sizeof *forward);
    if (!forward) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a forward pass");
    }
    forward->model = model;
    forward->sequences_max = padded;
    forward->rows_max = larger(options->rows_max, padded);
    forward->logits_max = larger(options->logits_max, padded);
    forward->length_max = options->length_max;
    forward->qkv_width = (config->heads + 2 * config->kv_heads) * config->head_dim;
    kern_matrix_shape(model->layers[0].qkv, &n, &k);
    memos_assert(n == forward->qkv_width && k == config->hidden);
    forward->between = between_of(model);
    forward->scale = 1 / sqrtf((float)config->head_dim);
    enum memos_status status = forward_fill(forward, options, err);
    if (status != MEMOS_OK) {
        paramem_forward_destroy(&forward);
        return status;
    }
    *out = forward;
    return MEMOS_OK;
}

void paramem_forward_destroy(struct paramem_forward **forward)
{
    struct paramem_forward *old = *forward;
    if (!old) {
        return;
    }
    for (size_t i = 0; i < BATCH_SIZES; i++) {
        for (size_t j = 0; j < LENGTH_SIZES; j++) {
            kern_graph_free(&old->graphs[i][j]);
        }
    }
    void *host = old->host;
    kern_host_release(old->model->ctx, &host);
    kern_release(old->model->ctx, &old->memory);
    free(old->kv);
    free(old);
    *forward = NULL;
}

uint64_t paramem_forward_bytes(const struct paramem_forward *forward)
{
    return forward->bytes;
}

/* ---- a pass's description ------------------------------------------------------------------ */

static void *part(const struct paramem_forward *forward, enum part which)
{
    return (uint8_t *)forward->memory + forward->at[which];
}

/* The arrays of a pass of this shape in memory that begins at base; *out_bytes of all. */
static struct step step_of(const struct shape *shape, void *base, size_t *out_bytes)
{
    uint32_t *at = base;
    struct step step;
    uint32_t **const arrays[] = {&step.ids, &step.positions, &step.slots, &step.starts,
        &step.chunk_starts, &step.lengths, &step.logits_rows, &step.tables};
    const size_t counts[] = {shape->rows, shape->rows, shape->rows, shape->sequences + 1,
        shape->sequences + 1, shape->sequences, shape->logits, shape->sequences * shape->stride};
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) {
        *arrays[i] = at;
        at += up(counts[i], 16);
    }
    *out_bytes = (size_t)((uint8_t *)at - (uint8_t *)base);
    return step;
}

static struct shape shape_of(const struct paramem_pass *pass)
{
    struct shape shape = {.rows = pass->rows,
        .sequences = pass->sequences,
        .logits = pass->logits_count,
        .decoding = !pass->hooks && pass->logits_count == pass->rows};
    for (size_t b = 0; b < pass->sequences; b++) {
        size_t rows = pass->starts[b + 1] - pass->starts[b];
        if (rows == 1 && shape.singles == b) {
            shape.singles++;
            shape.singles_length = larger(shape.singles_length, pass->lengths[b]);
        } else {
            shape.chunk_rows = larger(shape.chunk_rows, rows);
            shape.chunk_length = larger(shape.chunk_length, pass->lengths[b]);
        }
    }
    shape.decoding = shape.decoding && shape.singles == pass->sequences;
    for (size_t i = 0; shape.decoding && i < pass->logits_count; i++) {
        shape.decoding = pass->logits_rows[i] == i;
    }
    shape.stride = pages_of(larger(shape.singles_length, shape.chunk_length));
    return shape;
}

/* Copy the pass into the host's block; rows and sequences past the pass's are unused. */
static void step_fill(
    const struct step *step, const struct shape *shape, const struct paramem_pass *pass)
{
    size_t rows = pass->rows, word = sizeof *pass->ids;
    memcpy(step->ids, pass->ids, rows * word);
    memcpy(step->positions, pass->positions, rows * word);
    memcpy(step->slots, pass->slots, rows * word);
    memcpy(step->starts, pass->starts, (pass->sequences + 1) * word);
    for (size_t b = shape->singles; b <= pass->sequences; b++) {
        step->chunk_starts[b] = pass->starts[b] - (uint32_t)shape->singles;
    }
    memcpy(step->lengths, pass->lengths, pass->sequences * word);
    if (pass->logits_count > 0) {
        memcpy(step->logits_rows, pass->logits_rows, pass->logits_count * word);
    }
    for (size_t b = 0; b < pass->sequences; b++) {
        size_t pages = pages_of(pass->lengths[b]);
        memcpy(step->tables + b * shape->stride, pass->tables[b], pages * word);
        memset(step->tables + b * shape->stride + pages, 0, (shape->stride - pages) * word);
    }
    for (size_t b = rows; b < shape->rows; b++) {
        step->ids[b] = step->positions[b] = 0;
        step->slots[b] = KERN_NO_SLOT;
        step->starts[b + 1] = (uint32_t)b + 1;
        step->lengths[b] = 0;
        step->logits_rows[b] = (uint32_t)b;
        memset(step->tables + b * shape->stride, 0, shape->stride * word);
    }
}

static void pass_check(const struct paramem_forward *forward, const struct paramem_pass *pass)
{
    const struct paramem_model *model = forward->model;
    memos_assert(pass->rows > 0 && pass->rows <= forward->rows_max);
    memos_assert(pass->sequences > 0 && pass->sequences <= forward->sequences_max);
    memos_assert(pass->logits_count <= forward->logits_max);
    memos_assert(pass->starts[0] == 0 && pass->starts[pass->sequences] == pass->rows);
    size_t slots = forward->kv[0].pages_count * KERN_PAGE_TOKENS;
    for (size_t t = 0; t < pass->rows; t++) {
        memos_assert(pass->ids[t] < model->config.vocab);
        memos_assert(pass->positions[t] < model->rope.positions_max);
        memos_assert(pass->slots[t] < slots || pass->slots[t] == KERN_NO_SLOT);
    }
    for (size_t b = 0; b < pass->sequences; b++) {
        memos_assert(pass->starts[b] < pass->starts[b + 1]);
        memos_assert(pass->lengths[b] >= pass->starts[b + 1] - pass->starts[b]);
        memos_assert(pass->lengths[b] <= forward->length_max);
    }
    for (size_t i = 0; i < pass->logits_count; i++) {
        memos_assert(pass->logits_rows[i] < pass->rows);
    }
}

/* ---- operations ---------------------------------------------------------------------------- */

static void product(const struct paramem_forward *forward, const struct kern_matrix *w,
    const float *bias, enum part from, enum part to, enum kern_dtype x_dtype,
    enum kern_dtype y_dtype, size_t rows)
{
    kern_linear(forward->model->ctx, &(struct kern_linear){.x = part(forward, from),
                                         .w = w,
                                         .bias = bias,
                                         .residual = to == X ? part(forward, X) : NULL,
                                         .y = part(forward, to),
                                         .t = rows,
                                         .act = KERN_NONE,
                                         .x_dtype = x_dtype,
                                         .y_dtype = y_dtype,
                                         .workspace = part(forward, WORKSPACE)});
}

static void norm(const struct paramem_forward *forward, const float *gamma, const float *x,
    enum part to, size_t rows)
{
    size_t hidden = forward->model->config.hidden;
    kern_rmsnorm(forward->model->ctx, &(struct kern_rmsnorm){.x = x,
                                          .gamma = gamma,
                                          .y = part(forward, to),
                                          .rows = rows,
                                          .heads = 1,
                                          .k = hidden,
                                          .x_stride = hidden,
                                          .y_stride = hidden,
                                          .y_dtype = forward->between,
                                          .eps = (float)forward->model->config.norm_eps});
}

/* Norm the heads of queries or keys where they lie. */
static void norm_heads(
    const struct paramem_forward *forward, const float *gamma, float *x, size_t heads, size_t rows)
{
    if (gamma) {
        kern_rmsnorm(forward->model->ctx, &(struct kern_rmsnorm){.x = x,
                                              .gamma = gamma,
                                              .y = x,
                                              .rows = rows,
                                              .heads = heads,
                                              .k = forward->model->config.head_dim,
                                              .x_stride = forward->qkv_width,
                                              .y_stride = forward->qkv_width,
                                              .y_dtype = KERN_F32,
                                              .eps = (float)forward->model->config.norm_eps});
    }
}

/* Attention of the sequences from `first` on, whose first row is row `first` too. */
static void queue_attention(const struct paramem_forward *forward, size_t index,
    const struct shape *shape, const struct step *step, size_t first)
{
    const struct paramem_decoder_config *config = &forward->model->config;
    bool singles = first < shape->singles;
    float *query = part(forward, QKV);
    uint8_t *out = part(forward, ATTENDED);
    size_t out_bytes = config->heads * config->head_dim * kern_dtype_bytes(forward->between);
    kern_attention(forward->model->ctx,
        &(struct kern_attention){.query = query + first * forward->qkv_width,
            .kv = &forward->kv[index],
            .starts = singles ? step->starts : step->chunk_starts + first,
            .lengths = step->lengths + first,
            .tables = step->tables + first * shape->stride,
            .t = (singles ? shape->singles : shape->rows) - first,
            .sequences = (singles ? shape->singles : shape->sequences) - first,
            .heads = config->heads,
            .query_stride = forward->qkv_width,
            .tables_stride = shape->stride,
            .rows_max = singles ? 1 : shape->chunk_rows,
            .length_max = singles ? shape->singles_length : shape->chunk_length,
            .window = forward->model->layers[index].window,
            .scale = forward->scale,
            .out = out + first * out_bytes,
            .out_dtype = forward->between,
            .workspace = part(forward, WORKSPACE)});
}

/* h -> queries, keys, values -> the cache -> x. */
static void queue_mixing(const struct paramem_forward *forward, size_t index,
    const struct shape *shape, const struct step *step, const struct paramem_hooks *hooks)
{
    const struct paramem_model *model = forward->model;
    const struct paramem_decoder_config *config = &model->config;
    const struct paramem_layer *layer = &model->layers[index];
    float *query = part(forward, QKV);
    float *key = query + config->heads * config->head_dim;
    float *value = key + config->kv_heads * config->head_dim;

    norm(forward, layer->attention_norm, part(forward, X), H, shape->rows);
    product(forward, layer->qkv, layer->qkv_bias, H, QKV, forward->between, KERN_F32, shape->rows);
    norm_heads(forward, layer->query_norm, query, config->heads, shape->rows);
    norm_heads(forward, layer->key_norm, key, config->kv_heads, shape->rows);
    if (hooks && hooks->key_value) {
        hooks->key_value(hooks->self, index, key, value, shape->rows, forward->qkv_width);
    }
    kern_kv_write(model->ctx, &(struct kern_kv_write){.kv = &forward->kv[index],
                                  .rope = &model->rope,
                                  .key = key,
                                  .value = value,
                                  .from = KERN_F32,
                                  .positions = step->positions,
                                  .slots = step->slots,
                                  .t = shape->rows,
                                  .stride = forward->qkv_width});
    kern_rotate(model->ctx, &(struct kern_rotate){.rope = &model->rope,
                                .x = query,
                                .positions = step->positions,
                                .t = shape->rows,
                                .heads = config->heads,
                                .head_dim = config->head_dim,
                                .stride = forward->qkv_width});
    if (shape->singles > 0) {
        queue_attention(forward, index, shape, step, 0);
    }
    if (shape->singles < shape->sequences) {
        queue_attention(forward, index, shape, step, shape->singles);
    }
    product(
        forward, layer->out, layer->out_bias, ATTENDED, X, forward->between, KERN_F32, shape->rows);
}

static void queue_ffn(const struct paramem_forward *forward, size_t index, size_t rows,
    const struct paramem_hooks *hooks)
{
    const struct paramem_layer *layer = &forward->model->layers[index];
    enum kern_dtype between = forward->between;

    norm(forward, layer->ffn_norm, part(forward, X), H, rows);
    product(forward, layer->gate_up, layer->gate_up_bias, H, GATE_UP, between, between, rows);
    kern_silu_mul(forward->model->ctx, &(struct kern_silu_mul){.gate_up = part(forward, GATE_UP),
                                           .y = part(forward, GATED),
                                           .t = rows,
                                           .inner = forward->model->config.inner,
                                           .x_dtype = between,
                                           .y_dtype = between});
    product(forward, layer->down, layer->down_bias, GATED, X, between, KERN_F32, rows);
    if (hooks && hooks->ffn) {
        hooks->ffn(hooks->self, index, part(forward, H), between, part(forward, X), rows);
    }
}

/* Logits of `rows` (device memory) of x; NULL: of the first `count`. */
static void queue_logits(
    const struct paramem_forward *forward, const float *x, const uint32_t *rows, size_t count)
{
    const struct paramem_model *model = forward->model;
    if (count == 0) {
        return;
    }
    if (rows) {
        kern_gather(model->ctx, &(struct kern_gather){.table = x,
                                    .dtype = KERN_F32,
                                    .ids = rows,
                                    .y = part(forward, LAST),
                                    .t = count,
                                    .k = model->config.hidden});
        x = part(forward, LAST);
    }
    norm(forward, model->final_norm, x, NORMED, count);
    product(forward, model->head, NULL, NORMED, LOGITS, forward->between, KERN_F32, count);
}

static void queue_all(const struct paramem_forward *forward, const struct shape *shape,
    const struct step *step, const struct paramem_hooks *hooks)
{
    const struct paramem_model *model = forward->model;
    struct kern_gather gather = model->table;
    gather.ids = step->ids;
    gather.y = part(forward, X);
    gather.t = shape->rows;
    kern_gather(model->ctx, &gather);
    for (size_t i = 0; i < model->config.layers; i++) {
        queue_mixing(forward, i, shape, step, hooks);
        queue_ffn(forward, i, shape->rows, hooks);
    }
    queue_logits(
        forward, part(forward, X), shape->decoding ? NULL : step->logits_rows, shape->logits);
}

/* ---- run ----------------------------------------------------------------------------------- */

/* The recording of a padded shape, made the second time that it is met; NULL: it runs as it is. */
static struct kern_graph *graph_of(struct paramem_forward *forward, const struct shape *shape,
    const struct step *step, size_t batch, size_t length)
{
    struct kern_graph **graph = &forward->graphs[batch][length];
    enum recording *recording = &forward->recordings[batch][length];
    if (*recording == UNMET) {
        *recording = MET;
    } else if (*recording == MET && !*graph && !kern_graph_begin(forward->model->ctx)) {
        *recording = UNRECORDED; /* the device failed: kern_sync will say so */
    } else if (*recording == MET && !*graph) {
        queue_all(forward, shape, step, NULL);
        if (kern_graph_end(forward->model->ctx, graph, NULL) != MEMOS_OK) {
            *graph = NULL;
            *recording = UNRECORDED;
        }
    }
    return *graph;
}

void paramem_forward_run(
    struct paramem_forward *forward, const struct paramem_pass *pass, float **out_logits)
{
    struct kern_ctx *ctx = forward->model->ctx;
    struct shape shape = shape_of(pass);
    size_t batch = 0, length = 0, bytes = 0;

    pass_check(forward, pass);
    bool recorded = forward->records && shape.decoding;
    if (recorded) {
        shape.rows = shape.sequences = shape.singles = batch_size(shape.rows, &batch);
        shape.logits = shape.rows;
        shape.singles_length = length_size(shape.singles_length, &length);
        shape.stride = pages_of(shape.singles_length);
        recorded = batch < BATCH_SIZES && length < LENGTH_SIZES;
    }
    struct step host = step_of(&shape, forward->host, &bytes);
    step_fill(&host, &shape, pass);
    struct step step = step_of(&shape, part(forward, STEP), &bytes);
    kern_upload(ctx, part(forward, STEP), forward->host, bytes);

    struct kern_graph *graph = recorded ? graph_of(forward, &shape, &step, batch, length) : NULL;
    if (graph) {
        kern_graph_run(ctx, graph);
    } else {
        queue_all(forward, &shape, &step, pass->hooks);
    }
    forward->rows = pass->rows;
    *out_logits = part(forward, LOGITS);
}

void paramem_forward_logits(
    struct paramem_forward *forward, size_t first, size_t count, float **out_logits)
{
    memos_assert(first <= forward->rows && count <= forward->rows - first);
    memos_assert(count <= forward->logits_max);
    const float *x = part(forward, X);
    queue_logits(forward, x + first * forward->model->config.hidden, NULL, count);
    *out_logits = part(forward, LOGITS);
}
