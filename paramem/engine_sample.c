/* What is sampled with, row by row, and the way to the device and back: one copy each. */
#include "paramem/engine_internal.h"

#include <stdlib.h>
#include <string.h>

#define ALIGN 256
#define ADJUSTS_LEAST                                                                              \
    65536 /* that go to the device at once; one row may need the whole vocabulary */

/* ---- what is changed in a row's logits ------------------------------------------------------ */

static bool penalised(const struct engine_sequence *sequence)
{
    float repetition = sequence->request.sampling.repetition;
    return repetition != 0 && repetition != 1;
}

size_t engine_adjusts_most(const struct engine_sequence *sequence, size_t vocab)
{
    size_t most = sequence->request.sampling.biases_count;
    if (penalised(sequence)) {
        most += sequence->count_max;
    }
    return most < vocab ? most : vocab;
}

static int bias_compare(const void *left, const void *right)
{
    uint32_t a = ((const struct paramem_bias *)left)->id;
    uint32_t b = ((const struct paramem_bias *)right)->id;
    return (a > b) - (a < b);
}

static int id_compare(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

/* Merge sorted biases and sorted ids, in which one id may stand often. */
static void merge(struct engine_sequence *sequence, const struct paramem_bias *biases,
    size_t biases_count, const uint32_t *ids, size_t ids_count)
{
    for (size_t b = 0, i = 0; b < biases_count || i < ids_count;) {
        bool biased = i == ids_count || (b < biases_count && biases[b].id <= ids[i]);
        uint32_t id = biased ? biases[b].id : ids[i];
        struct kern_adjust *adjust = &sequence->adjusts[sequence->adjusts_count++];
        *adjust = (struct kern_adjust){.id = id, .bias = biased ? biases[b++].bias : 0};
        for (; i < ids_count && ids[i] == id; i++) {
            adjust->seen = 1;
        }
    }
}

enum memos_status engine_adjusts_make(struct engine_sequence *sequence, struct memos_error *err)
{
    const struct paramem_sampling *sampling = &sequence->request.sampling;
    size_t biases_count = sampling->biases_count, count = sequence->prompt_count;
    /* The request's own copy, which lies in its arena. */
    struct paramem_bias *biases = (struct paramem_bias *)(uintptr_t)sampling->biases;
    uint32_t *ids = NULL;

    qsort(biases, biases_count, sizeof *biases, bias_compare);
    for (size_t i = 1; i < biases_count; i++) {
        if (biases[i - 1].id == biases[i].id) {
            return memos_fail(err, MEMOS_INVALID, "token %u has two biases", biases[i].id);
        }
    }
    if (penalised(sequence)) {
        ids = malloc(count * sizeof *ids);
        if (!ids) {
            return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a prompt of %zu tokens", count);
        }
        memcpy(ids, sequence->ids, count * sizeof *ids);
        qsort(ids, count, sizeof *ids, id_compare);
    }
    merge(sequence, biases, biases_count, ids, ids ? count : 0);
    free(ids);
    return MEMOS_OK;
}

void engine_adjusts_add(struct engine_sequence *sequence, uint32_t id)
{
    struct kern_adjust *adjusts = sequence->adjusts;
    size_t low = 0, high = sequence->adjusts_count;
    if (!penalised(sequence)) {
        return;
    }
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (adjusts[middle].id < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == sequence->adjusts_count || adjusts[low].id != id) {
        size_t behind = sequence->adjusts_count - low;
        memmove(adjusts + low + 1, adjusts + low, behind * sizeof *adjusts);
        adjusts[low] = (struct kern_adjust){.id = id};
        sequence->adjusts_count++;
    }
    adjusts[low].seen = 1;
}

/* ---- room ---------------------------------------------------------------------------------- */

/* Ids, logprobs, and both of the alternatives. */
static size_t out_bytes(size_t rows, size_t top)
{
    return rows * (2 + 2 * top) * sizeof(uint32_t);
}

static size_t up(size_t value)
{
    return (value + ALIGN - 1) / ALIGN * ALIGN;
}

enum memos_status engine_sampler_create(struct paramem_engine *engine, struct memos_error *err)
{
    struct engine_sampler *sampler = &engine->sampler;
    struct kern_ctx *ctx = engine->model->ctx;
    size_t vocab = engine->model->config.vocab;

    sampler->rows_max = engine->sequences_max;
    sampler->adjusts_max = vocab > ADJUSTS_LEAST ? vocab : ADJUSTS_LEAST;
    /* Scoring has ids there. */
    size_t ids = engine->score_rows * sizeof(uint32_t);
    sampler->adjusts_at = up(ids + sampler->rows_max * sizeof(struct kern_sample_row));
    sampler->out_at = sampler->adjusts_at + up(sampler->adjusts_max * sizeof(struct kern_adjust));
    sampler->workspace_at = sampler->out_at + up(out_bytes(sampler->rows_max, KERN_TOP_MAX));
    sampler->bytes =
        sampler->workspace_at + kern_sample_workspace_bytes(ctx, sampler->rows_max, vocab);
    enum memos_status status = kern_alloc(ctx, sampler->bytes, &sampler->device, err);
    if (status == MEMOS_OK) {
        status = kern_host_alloc(ctx, sampler->workspace_at, &sampler->host, err);
    }
    return status;
}

void engine_sampler_destroy(struct paramem_engine *engine)
{
    kern_host_release(engine->model->ctx, &engine->sampler.host);
    kern_release(engine->model->ctx, &engine->sampler.device);
}

/* ---- a step -------------------------------------------------------------------------------- */

static uint64_t mixed(uint64_t z)
{
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

float engine_draw(uint64_t seed, uint64_t index)
{
    uint64_t z = mixed(
        mixed(seed + UINT64_C(0x9e3779b97f4a7c15)) + (index + 1) * UINT64_C(0x9e3779b97f4a7c15));
    return (float)(z >> 40) / 16777216.0F;
}

static struct kern_sample_row row_of(const struct engine_sequence *sequence)
{
    const struct paramem_sampling *s = &sequence->request.sampling;
    size_t top_k = s->top_k < UINT32_MAX ? s->top_k : 0;
    return (struct kern_sample_row){.temperature = s->temperature,
        .top_p = s->top_p > 0 ? s->top_p : 1,
        .min_p = s->min_p,
        .repetition = penalised(sequence) ? s->repetition : 1,
        .draw = engine_draw(s->seed, sequence->count - sequence->prompt_count),
        .top_k = (uint32_t)top_k,
        .adjust_count = (uint32_t)sequence->adjusts_count};
}

/* Write rows and adjusts of the sequences from `first` on, as many as fit; the bytes of both. */
static size_t fill(struct paramem_engine *engine, size_t first, size_t *out_count, size_t *out_top)
{
    struct engine_sampler *sampler = &engine->sampler;
    struct kern_sample_row *rows = sampler->host;
    struct kern_adjust *adjusts = (void *)((uint8_t *)sampler->host + sampler->adjusts_at);
    size_t used = 0, count = 0, top = 0, all = engine->pass.logits_count;

    for (; first + count < all; count++) {
        const struct engine_sequence *sequence = engine->sampling[first + count];
        if (sequence->adjusts_count > sampler->adjusts_max - used) {
            break;
        }
        rows[count] = row_of(sequence);
        rows[count].adjust_start = (uint32_t)used;
        memcpy(adjusts + used, sequence->adjusts, sequence->adjusts_count * sizeof *adjusts);
        used += sequence->adjusts_count;
        top = sequence->request.top > top ? sequence->request.top : top;
    }
    *out_count = count;
    *out_top = top;
    return sampler->adjusts_at + used * sizeof *adjusts;
}

/* The arrays of what is sampled, in memory that begins at base. */
static struct engine_sampled sampled_at(void *base, size_t rows, size_t top)
{
    uint32_t *ids = base;
    float *logprobs = (float *)(void *)(ids + rows);
    uint32_t *top_ids = (uint32_t *)(void *)(logprobs + rows);
    return (struct engine_sampled){.ids = ids,
        .logprobs = logprobs,
        .top_ids = top_ids,
        .top_logprobs = (float *)(void *)(top_ids + rows * top),
        .top = top};
}

enum memos_status engine_sample(struct paramem_engine *engine, size_t first, size_t *out_count,
    struct engine_sampled *out, struct memos_error *err)
{
    struct engine_sampler *sampler = &engine->sampler;
    struct kern_ctx *ctx = engine->model->ctx;
    size_t count = 0, top = 0, vocab = engine->model->config.vocab;
    uint8_t *device = sampler->device, *host = sampler->host;

    kern_upload(ctx, device, host, fill(engine, first, &count, &top));
    memos_assert(count > 0);
    struct engine_sampled there = sampled_at(device + sampler->out_at, count, top);
    kern_sample(ctx, &(struct kern_sample){.logits = sampler->logits + first * vocab,
                         .rows = (const void *)device,
                         .adjusts = (const void *)(device + sampler->adjusts_at),
                         .rows_count = count,
                         .vocab = vocab,
                         .top = top,
                         .out_ids = (uint32_t *)(uintptr_t)there.ids,
                         .out_logprobs = (float *)(uintptr_t)there.logprobs,
                         .out_top_ids = (uint32_t *)(uintptr_t)there.top_ids,
                         .out_top_logprobs = (float *)(uintptr_t)there.top_logprobs,
                         .workspace = device + sampler->workspace_at});
    enum memos_status status = kern_download(
        ctx, host + sampler->out_at, device + sampler->out_at, out_bytes(count, top), err);
    *out = sampled_at(host + sampler->out_at, count, top);
    *out_count = count;
    return status;
}
