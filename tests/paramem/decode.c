#include "tests/paramem/decode.h"

#include "tests/paramem/golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MAGIC 0x4C4F4731u
#define ROWS_MAX 48

char *decode_path(const char *name, char out[GOLDEN_PATH_BYTES])
{
    char inner[256];
    assert_true(snprintf(inner, sizeof inner, "models/%s", name) > 0);
    return golden_path(inner, out);
}

struct decode_golden decode_golden_read(const char *name)
{
    char path[GOLDEN_PATH_BYTES], file[200];
    assert_true(snprintf(file, sizeof file, "%s.golden", name) > 0);
    struct decode_golden golden = {.file = golden_file(decode_path(file, path))};
    const uint32_t *head = (const void *)golden.file.data;
    double sum = 0;

    assert_true(golden.file.size >= 16 && head[0] == MAGIC);
    golden.prompt = head[1];
    golden.greedy = head[2];
    golden.vocab = head[3];
    golden.ids = head + 4;
    golden.logits = (const float *)(const void *)(golden.ids + golden.prompt + golden.greedy);
    size_t count = golden.prompt * golden.vocab;
    assert_int_equal(golden.file.size, 4 * (4 + golden.prompt + golden.greedy + count));
    for (size_t i = 0; i < count; i++) {
        double value = (double)golden.logits[i];
        golden.largest = fmax(golden.largest, fabs(value));
        sum += value * value;
    }
    golden.deviation = sqrt(sum / (double)count);
    return golden;
}

void decode_golden_free(struct decode_golden *golden)
{
    memos_buffer_free(&golden->file);
}

bool decode_open(struct decode *decode, const char *backend, const char *path,
    enum kern_dtype weights, size_t tokens)
{
    struct kern_options options = {.backend = backend, .threads = 2};
    struct memos_error err = {.text = ""};
    size_t pages = (tokens + KERN_PAGE_TOKENS - 1) / KERN_PAGE_TOKENS;

    *decode = (struct decode){NULL};
    if (kern_ctx_create(&options, &decode->ctx, &err) != MEMOS_OK) {
        assert_string_equal(backend, "cuda");
        return false;
    }
    struct paramem_model_options model = {
        .path = path, .ctx = decode->ctx, .weights = weights, .ids_only = true};
    if (paramem_model_open(&model, &decode->model, &err) != MEMOS_OK) {
        fail_msg("%s: %s", path, err.text);
    }
    const struct paramem_decoder_config *config = &decode->model->config;
    struct paramem_kv_options kv = {.ctx = decode->ctx,
        .dtype = KERN_F32,
        .layers = config->layers,
        .heads = config->kv_heads,
        .head_dim = config->head_dim,
        .pages_count = pages,
        .fingerprint = decode->model->info.fingerprint};
    assert_int_equal(paramem_kv_create(&kv, &decode->cache, NULL), MEMOS_OK);
    struct paramem_forward_options forward = {.model = decode->model,
        .kv = paramem_kv_layers(decode->cache),
        .rows_max = ROWS_MAX,
        .sequences_max = 1,
        .logits_max = ROWS_MAX,
        .length_max = tokens};
    assert_int_equal(paramem_forward_create(&forward, &decode->forward, NULL), MEMOS_OK);
    decode->pages = calloc(pages, sizeof *decode->pages);
    assert_non_null(decode->pages);
    for (size_t i = 0; i < pages; i++) {
        decode->pages[i] = (uint32_t)(pages - 1 - i);
    }
    return true;
}

void decode_close(struct decode *decode)
{
    paramem_forward_destroy(&decode->forward);
    paramem_kv_destroy(&decode->cache);
    paramem_model_close(&decode->model);
    kern_ctx_destroy(&decode->ctx);
    free(decode->pages);
}

void decode_run(
    struct decode *decode, const uint32_t *ids, size_t from, size_t count, float *logits)
{
    uint32_t positions[ROWS_MAX], slots[ROWS_MAX], rows[ROWS_MAX];
    const uint32_t starts[] = {0, (uint32_t)count}, lengths[] = {(uint32_t)(from + count)};
    const uint32_t *const tables[] = {decode->pages};
    float *made = NULL;

    assert_true(count <= ROWS_MAX);
    for (size_t i = 0; i < count; i++) {
        size_t at = from + i;
        positions[i] = (uint32_t)at;
        slots[i] = decode->pages[at / KERN_PAGE_TOKENS] * KERN_PAGE_TOKENS +
                   (uint32_t)(at % KERN_PAGE_TOKENS);
        rows[i] = (uint32_t)i;
    }
    struct paramem_pass pass = {.ids = ids + from,
        .positions = positions,
        .slots = slots,
        .rows = count,
        .starts = starts,
        .lengths = lengths,
        .tables = tables,
        .sequences = 1,
        .logits_rows = rows,
        .logits_count = count};
    paramem_forward_run(decode->forward, &pass, &made);
    size_t bytes = count * decode->model->config.vocab * sizeof *logits;
    assert_int_equal(kern_download(decode->ctx, logits, made, bytes, NULL), MEMOS_OK);
}
