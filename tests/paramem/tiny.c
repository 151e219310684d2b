#include "tests/paramem/tiny.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- numbers ------------------------------------------------------------------------------- */

uint64_t tiny_next(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

size_t tiny_below(uint64_t *state, size_t end)
{
    return (size_t)(tiny_next(state) % end);
}

/* About normal, of this deviation and around this mean. */
static float *numbers(struct tiny *tiny, size_t count, double mean, double deviation)
{
    float *out = calloc(count, sizeof *out);
    assert_non_null(out);
    for (size_t i = 0; i < count; i++) {
        double sum = 0;
        for (size_t j = 0; j < 4; j++) {
            sum += (double)(tiny_next(&tiny->state) >> 40) / 16777216.0 - 0.5;
        }
        out[i] = (float)(mean + sum * sqrt(3) * deviation);
    }
    return out;
}

/* ---- the model ----------------------------------------------------------------------------- */

struct tiny_shape tiny_llama(void)
{
    return (struct tiny_shape){.hidden = 48,
        .inner = 80,
        .layers = 3,
        .heads = 6,
        .kv_heads = 2,
        .head_dim = 8,
        .vocab = 131,
        .positions = 512,
        .seed = 1};
}

struct tiny_shape tiny_qwen2(void)
{
    struct tiny_shape shape = tiny_llama();
    shape.bias = true;
    shape.heads = shape.kv_heads = 3;
    shape.head_dim = 16;
    shape.seed = 2;
    return shape;
}

struct tiny_shape tiny_qwen3(void)
{
    struct tiny_shape shape = tiny_llama();
    shape.qk_norm = true;
    shape.head_dim = 24; /* heads are wider than hidden, as in the family */
    shape.seed = 3;
    return shape;
}

struct tiny_shape tiny_mistral(void)
{
    struct tiny_shape shape = tiny_llama();
    shape.window = 37;
    shape.seed = 4;
    return shape;
}

struct tiny_shape tiny_wide(void)
{
    return (struct tiny_shape){.hidden = 512,
        .inner = 1536,
        .layers = 2,
        .heads = 8,
        .kv_heads = 2,
        .head_dim = 64,
        .vocab = 131,
        .positions = 512,
        .seed = 5};
}

static float *device_copy(struct tiny *tiny, const float *host, size_t count)
{
    void *memory = NULL;
    assert_int_equal(kern_alloc(tiny->model.ctx, count * sizeof *host, &memory, NULL), MEMOS_OK);
    kern_upload(tiny->model.ctx, memory, host, count * sizeof *host);
    assert_true(tiny->memory_count < sizeof tiny->memory / sizeof tiny->memory[0]);
    tiny->memory[tiny->memory_count++] = memory;
    return memory;
}

static struct kern_matrix *pack(struct tiny *tiny, const float *host, size_t n, size_t k)
{
    struct kern_matrix *matrix = NULL;
    struct memos_error err;
    enum kern_dtype weights = tiny->shape.weights ? tiny->shape.weights : KERN_F32;
    if (kern_matrix_pack(tiny->model.ctx, weights, KERN_F32, host, n, k, &matrix, &err) !=
        MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    return matrix;
}

static void layer_make(struct tiny *tiny, size_t index)
{
    const struct tiny_shape *s = &tiny->shape;
    struct tiny_layer *host = &tiny->host[index];
    struct paramem_layer *layer = &tiny->model.layers[index];
    size_t attended = s->heads * s->head_dim;
    size_t qkv = (s->heads + 2 * s->kv_heads) * s->head_dim;
    double hidden = 1 / sqrt((double)s->hidden);

    host->attention_norm = numbers(tiny, s->hidden, 1, 0.2);
    host->ffn_norm = numbers(tiny, s->hidden, 1, 0.2);
    host->qkv = numbers(tiny, qkv * s->hidden, 0, 2 * hidden);
    host->out = numbers(tiny, s->hidden * attended, 0, 1 / sqrt((double)attended));
    host->gate_up = numbers(tiny, 2 * s->inner * s->hidden, 0, 1.5 * hidden);
    host->down = numbers(tiny, s->hidden * s->inner, 0, 1 / sqrt((double)s->inner));
    layer->attention_norm = device_copy(tiny, host->attention_norm, s->hidden);
    layer->ffn_norm = device_copy(tiny, host->ffn_norm, s->hidden);
    layer->qkv = pack(tiny, host->qkv, qkv, s->hidden);
    layer->out = pack(tiny, host->out, s->hidden, attended);
    layer->gate_up = pack(tiny, host->gate_up, 2 * s->inner, s->hidden);
    layer->down = pack(tiny, host->down, s->hidden, s->inner);
    layer->window = index % 2 == 1 ? s->window : 0;
    if (s->bias) {
        host->qkv_bias = numbers(tiny, qkv, 0, 0.5);
        layer->qkv_bias = device_copy(tiny, host->qkv_bias, qkv);
    }
    if (s->qk_norm) {
        host->query_norm = numbers(tiny, s->head_dim, 1.5, 0.2);
        host->key_norm = numbers(tiny, s->head_dim, 1.5, 0.2);
        layer->query_norm = device_copy(tiny, host->query_norm, s->head_dim);
        layer->key_norm = device_copy(tiny, host->key_norm, s->head_dim);
    }
}

static void rope_make(struct tiny *tiny)
{
    const struct tiny_shape *s = &tiny->shape;
    size_t half = s->head_dim / 2, count = s->positions * half;
    tiny->cos = calloc(count, sizeof *tiny->cos);
    tiny->sin = calloc(count, sizeof *tiny->sin);
    assert_true(tiny->cos && tiny->sin);
    for (size_t p = 0; p < s->positions; p++) {
        for (size_t i = 0; i < half; i++) {
            double angle = (double)p * pow(10000, -2.0 * (double)i / (double)s->head_dim);
            tiny->cos[p * half + i] = (float)cos(angle);
            tiny->sin[p * half + i] = (float)sin(angle);
        }
    }
    tiny->model.rope = (struct kern_rope){.cos = device_copy(tiny, tiny->cos, count),
        .sin = device_copy(tiny, tiny->sin, count),
        .rotary = s->head_dim,
        .positions_max = s->positions};
}

static struct paramem_decoder_config config_of(const struct tiny_shape *s)
{
    return (struct paramem_decoder_config){.architecture = PARAMEM_LLAMA,
        .hidden = s->hidden,
        .inner = s->inner,
        .layers = s->layers,
        .heads = s->heads,
        .kv_heads = s->kv_heads,
        .head_dim = s->head_dim,
        .vocab = s->vocab,
        .positions_max = s->positions,
        .norm_eps = 1e-5,
        .bos_id = 1,
        .pad_id = UINT32_MAX,
        .stop_ids = {2},
        .stop_count = 1};
}

void tiny_make(struct kern_ctx *ctx, const struct tiny_shape *shape, struct tiny *out)
{
    struct tiny *tiny = out;
    struct paramem_model *model = &tiny->model;
    memset(tiny, 0, sizeof *tiny);
    tiny->shape = *shape;
    tiny->state = shape->seed;
    model->ctx = ctx;
    model->config = config_of(shape);
    model->context_max = shape->positions;
    model->info.config = &model->config;
    memset(model->info.fingerprint, (int)shape->seed, sizeof model->info.fingerprint);
    model->layers = calloc(shape->layers, sizeof *model->layers);
    tiny->host = calloc(shape->layers, sizeof *tiny->host);
    assert_true(model->layers && tiny->host);
    for (size_t i = 0; i < shape->layers; i++) {
        layer_make(tiny, i);
    }
    tiny->table = numbers(tiny, shape->vocab * shape->hidden, 0, 1);
    tiny->final_norm = numbers(tiny, shape->hidden, 1, 0.2);
    tiny->head = numbers(tiny, shape->vocab * shape->hidden, 0, 2 / sqrt((double)shape->hidden));
    model->table =
        (struct kern_gather){.table = device_copy(tiny, tiny->table, shape->vocab * shape->hidden),
            .dtype = KERN_F32,
            .k = shape->hidden};
    model->final_norm = device_copy(tiny, tiny->final_norm, shape->hidden);
    model->head = pack(tiny, tiny->head, shape->vocab, shape->hidden);
    rope_make(tiny);
    assert_int_equal(kern_sync(ctx, NULL), MEMOS_OK);
}

void tiny_free(struct tiny *tiny)
{
    for (size_t i = 0; i < tiny->shape.layers; i++) {
        struct tiny_layer *host = &tiny->host[i];
        struct paramem_layer *layer = &tiny->model.layers[i];
        float *const all[] = {host->attention_norm, host->ffn_norm, host->query_norm,
            host->key_norm, host->qkv, host->out, host->gate_up, host->down, host->qkv_bias};
        for (size_t j = 0; j < sizeof all / sizeof all[0]; j++) {
            free(all[j]);
        }
        kern_matrix_free(&layer->qkv);
        kern_matrix_free(&layer->out);
        kern_matrix_free(&layer->gate_up);
        kern_matrix_free(&layer->down);
    }
    kern_matrix_free(&tiny->model.head);
    for (size_t i = 0; i < tiny->memory_count; i++) {
        kern_release(tiny->model.ctx, &tiny->memory[i]);
    }
    free(tiny->host);
    free(tiny->model.layers);
    free(tiny->table);
    free(tiny->final_norm);
    free(tiny->head);
    free(tiny->cos);
    free(tiny->sin);
}

/* ---- what it must answer ------------------------------------------------------------------- */

static void norm(const double *x, const float *gamma, size_t k, double *y)
{
    double sum = 0;
    for (size_t i = 0; i < k; i++) {
        sum += x[i] * x[i];
    }
    double scale = 1 / sqrt(sum / (double)k + 1e-5);
    for (size_t i = 0; i < k; i++) {
        y[i] = x[i] * scale * (double)gamma[i];
    }
}

static void times(const float *w, const double *x, size_t n, size_t k, double *y)
{
    for (size_t i = 0; i < n; i++) {
        y[i] = 0;
        for (size_t j = 0; j < k; j++) {
            y[i] += (double)w[i * k + j] * x[j];
        }
    }
}

/* Norm (gamma may be NULL) and turn one head. */
static void head_ready(const struct tiny *tiny, double *head, const float *gamma, size_t position)
{
    size_t dim = tiny->shape.head_dim, half = dim / 2;
    if (gamma) {
        norm(head, gamma, dim, head);
    }
    for (size_t i = 0; i < half; i++) {
        double c = (double)tiny->cos[position * half + i];
        double s = (double)tiny->sin[position * half + i];
        double a = head[i], b = head[i + half];
        head[i] = a * c - b * s;
        head[i + half] = b * c + a * s;
    }
}

static bool sees(const struct tiny_text *text, size_t window, size_t row, size_t other)
{
    bool near = window == 0 || text->positions[row] - text->positions[other] < window;
    return row == other || (text->sees[row * text->count + other] && near);
}

/* One head of one row: query against the keys that it sees. */
static void attend(const struct tiny *tiny, const struct tiny_text *text, size_t window,
    const double *qkv, size_t row, size_t head, double *out)
{
    const struct tiny_shape *s = &tiny->shape;
    size_t dim = s->head_dim, width = (s->heads + 2 * s->kv_heads) * dim;
    size_t group = head / (s->heads / s->kv_heads);
    const double *query = qkv + row * width + head * dim;
    double *scores = calloc(row + 1, sizeof *scores), most = -INFINITY, sum = 0;
    assert_non_null(scores);
    for (size_t t = 0; t <= row; t++) {
        const double *key = qkv + t * width + (s->heads + group) * dim;
        for (size_t i = 0; i < dim; i++) {
            scores[t] += query[i] * key[i] / sqrt((double)dim);
        }
        scores[t] = sees(text, window, row, t) ? scores[t] : -INFINITY;
        most = fmax(most, scores[t]);
    }
    memset(out, 0, dim * sizeof *out);
    for (size_t t = 0; t <= row; t++) {
        sum += exp(scores[t] - most);
    }
    for (size_t t = 0; t <= row; t++) {
        const double *value = qkv + t * width + (s->heads + s->kv_heads + group) * dim;
        for (size_t i = 0; i < dim; i++) {
            out[i] += exp(scores[t] - most) / sum * value[i];
        }
    }
    free(scores);
}

static void mix(const struct tiny *tiny, const struct tiny_text *text, size_t index, double *x)
{
    const struct tiny_shape *s = &tiny->shape;
    size_t count = text->count;
    const struct tiny_layer *layer = &tiny->host[index];
    size_t width = (s->heads + 2 * s->kv_heads) * s->head_dim;
    size_t attended = s->heads * s->head_dim;
    size_t window = tiny->model.layers[index].window;
    double *qkv = calloc(count * width, sizeof *qkv);
    double *h = calloc(s->hidden + attended, sizeof *h), *o = h ? h + s->hidden : NULL;
    assert_true(qkv && h);
    for (size_t t = 0; t < count; t++) {
        double *row = qkv + t * width;
        norm(x + t * s->hidden, layer->attention_norm, s->hidden, h);
        times(layer->qkv, h, width, s->hidden, row);
        for (size_t i = 0; layer->qkv_bias && i < width; i++) {
            row[i] += (double)layer->qkv_bias[i];
        }
        for (size_t i = 0; i < s->heads + s->kv_heads; i++) {
            const float *gamma = i < s->heads ? layer->query_norm : layer->key_norm;
            head_ready(tiny, row + i * s->head_dim, gamma, text->positions[t]);
        }
    }
    for (size_t t = 0; t < count; t++) {
        for (size_t i = 0; i < s->heads; i++) {
            attend(tiny, text, window, qkv, t, i, o + i * s->head_dim);
        }
        times(layer->out, o, s->hidden, attended, h);
        for (size_t i = 0; i < s->hidden; i++) {
            x[t * s->hidden + i] += h[i];
        }
    }
    free(qkv);
    free(h);
}

static void feed(const struct tiny *tiny, size_t index, double *x)
{
    const struct tiny_shape *s = &tiny->shape;
    const struct tiny_layer *layer = &tiny->host[index];
    double *h = calloc(s->hidden + 2 * s->inner, sizeof *h);
    assert_non_null(h);
    double *inner = h + s->hidden;
    norm(x, layer->ffn_norm, s->hidden, h);
    times(layer->gate_up, h, 2 * s->inner, s->hidden, inner);
    for (size_t i = 0; i < s->inner; i++) {
        inner[i] = inner[i] / (1 + exp(-inner[i])) * inner[s->inner + i];
    }
    times(layer->down, inner, s->hidden, s->inner, h);
    for (size_t i = 0; i < s->hidden; i++) {
        x[i] += h[i];
    }
    free(h);
}

void tiny_logits_of(const struct tiny *tiny, const struct tiny_text *text, double *logits)
{
    const struct tiny_shape *s = &tiny->shape;
    size_t count = text->count;
    double *x = calloc((count + 1) * s->hidden, sizeof *x), *last = x ? x + count * s->hidden : x;
    assert_non_null(x);
    for (size_t t = 0; t < count; t++) {
        for (size_t i = 0; i < s->hidden; i++) {
            x[t * s->hidden + i] = (double)tiny->table[text->ids[t] * s->hidden + i];
        }
    }
    for (size_t i = 0; i < s->layers; i++) {
        mix(tiny, text, i, x);
        for (size_t t = 0; t < count; t++) {
            feed(tiny, i, x + t * s->hidden);
        }
    }
    for (size_t t = 0; t < count; t++) {
        norm(x + t * s->hidden, tiny->final_norm, s->hidden, last);
        times(tiny->head, last, s->vocab, s->hidden, logits + t * s->vocab);
    }
    free(x);
}

void tiny_logits(const struct tiny *tiny, const uint32_t *ids, size_t count, double *logits)
{
    uint32_t *positions = calloc(count, sizeof *positions);
    bool *all = malloc(count * count);
    assert_true(positions && all);
    memset(all, 1, count * count);
    for (size_t i = 0; i < count; i++) {
        positions[i] = (uint32_t)i;
    }
    const struct tiny_text text = {ids, positions, all, count};
    tiny_logits_of(tiny, &text, logits);
    free(positions);
    free(all);
}
