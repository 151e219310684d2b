/* The definitions of a decoder's operations beside torch and transformers, which computed the file.
 *
 * If these failed, all of our backends would agree on something that no model means. */
#include "kernels/decoder.h"
#include "kernels/ops.h"
#include "tests/kernels/check.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* As in tools/golden/make_decoder.py. */
enum {
    HEADS = 6,
    KV_HEADS = 2,
    HEAD_DIM = 16,
    LENGTH = 300,
    ROWS = 7,
    WIDTH = 40,
    POSITIONS = 64,
    VOCAB = 50,
    SAMPLINGS = 6,
    PAGES = 10,
    DRAWS = 2000,
};
static const size_t windows[] = {0, 20};
static const uint32_t seen[] = {3, 7, 11, 30};

#define BOUND 3e-5

/* The file, read from the front. */
struct golden {
    struct check *check;
    FILE *file;
};

static int setup(void **state)
{
    struct golden *golden = calloc(1, sizeof *golden);
    void *check = NULL;
    assert_non_null(golden);
    assert_int_equal(check_setup(&check), 0);
    golden->check = check;
    golden->file = fopen(GOLDEN_FOLDER "/decoder.bin", "rb");
    assert_non_null(golden->file);
    *state = golden;
    return 0;
}

static int teardown(void **state)
{
    struct golden *golden = *state;
    void *check = golden->check;
    (void)fclose(golden->file);
    free(golden);
    return check_teardown(&check);
}

/* The next count numbers, to be freed with check_free. */
static float *next(struct golden *golden, size_t count)
{
    float *out = check_poisoned(count, 0);
    assert_int_equal(fread(out, sizeof *out, count, golden->file), count);
    return out;
}

/* ---- attention ----------------------------------------------------------------------------- */

static void attend(struct kern_ctx *ctx, struct kern_attention a, const float *key,
    const float *value, const float *want)
{
    uint32_t slots[LENGTH], tables[PAGES], starts[] = {0, ROWS}, lengths[] = {LENGTH};
    for (uint32_t i = 0; i < PAGES; i++) {
        tables[i] = PAGES - 1 - i;
    }
    for (uint32_t i = 0; i < LENGTH; i++) {
        slots[i] = tables[i / KERN_PAGE_TOKENS] * KERN_PAGE_TOKENS + i % KERN_PAGE_TOKENS;
    }
    struct kern_kv kv = {check_bytes(PAGES * kern_kv_page_bytes(KERN_F32, KV_HEADS, HEAD_DIM), 0),
        PAGES, KV_HEADS, HEAD_DIM, KERN_F32};
    struct kern_kv_write write = {.kv = &kv,
        .key = key,
        .value = value,
        .slots = slots,
        .t = LENGTH,
        .stride = (size_t)KV_HEADS * HEAD_DIM};
    kern_kv_write(ctx, &write);
    a.kv = &kv;
    a.starts = starts;
    a.lengths = lengths;
    a.tables = tables;
    a.out = check_poisoned((size_t)ROWS * HEADS * HEAD_DIM, 0);
    size_t bytes = kern_attention_workspace_bytes(ctx, ROWS, 1, HEADS, KV_HEADS, HEAD_DIM, LENGTH);
    a.workspace = check_bytes(bytes, 0);
    kern_attention(ctx, &a);
    assert_true(check_close(want, a.out, (size_t)ROWS * HEADS * HEAD_DIM, BOUND));
    check_free(a.out);
    check_free(a.workspace);
    check_free(kv.pages);
}

static void check_attention(struct golden *golden)
{
    float *query = next(golden, (size_t)ROWS * HEADS * HEAD_DIM);
    float *key = next(golden, (size_t)LENGTH * KV_HEADS * HEAD_DIM);
    float *value = next(golden, (size_t)LENGTH * KV_HEADS * HEAD_DIM);
    for (size_t w = 0; w < 2; w++) {
        float *want = next(golden, (size_t)ROWS * HEADS * HEAD_DIM);
        struct kern_attention a = {.query = query,
            .t = ROWS,
            .sequences = 1,
            .heads = HEADS,
            .query_stride = (size_t)HEADS * HEAD_DIM,
            .tables_stride = PAGES,
            .rows_max = ROWS,
            .length_max = LENGTH,
            .window = windows[w],
            .scale = 0.25F};
        for (size_t c = 0; c < golden->check->contexts_count; c++) {
            attend(golden->check->contexts[c], a, key, value, want);
        }
        check_free(want);
    }
    check_free(query);
    check_free(key);
    check_free(value);
}

/* ---- rows ---------------------------------------------------------------------------------- */

static void check_rows(struct golden *golden)
{
    float *x = next(golden, (size_t)ROWS * WIDTH), *gamma = next(golden, WIDTH);
    float *normed = next(golden, (size_t)ROWS * WIDTH);
    float *gate_up = next(golden, (size_t)ROWS * 2 * WIDTH);
    float *gated = next(golden, (size_t)ROWS * WIDTH);
    for (size_t c = 0; c < golden->check->contexts_count; c++) {
        float *y = check_poisoned((size_t)ROWS * WIDTH, 0);
        struct kern_rmsnorm norm = {.x = x,
            .gamma = gamma,
            .y = y,
            .rows = ROWS,
            .k = WIDTH,
            .x_stride = WIDTH,
            .y_stride = WIDTH,
            .eps = 1e-5F};
        struct kern_silu_mul gate = {.gate_up = gate_up, .y = y, .t = ROWS, .inner = WIDTH};
        kern_rmsnorm(golden->check->contexts[c], &norm);
        assert_true(check_close(normed, y, (size_t)ROWS * WIDTH, BOUND));
        kern_silu_mul(golden->check->contexts[c], &gate);
        assert_true(check_close(gated, y, (size_t)ROWS * WIDTH, BOUND));
        check_free(y);
    }
    check_free(x);
    check_free(gamma);
    check_free(normed);
    check_free(gate_up);
    check_free(gated);
}

static void check_rotary(struct golden *golden)
{
    enum { COUNT = ROWS * HEADS * HEAD_DIM };
    float *cosines = next(golden, (size_t)POSITIONS * HEAD_DIM / 2);
    float *sines = next(golden, (size_t)POSITIONS * HEAD_DIM / 2);
    float *numbers = next(golden, ROWS), *x = next(golden, COUNT), *want = next(golden, COUNT);
    struct kern_rope rope = {cosines, sines, HEAD_DIM, POSITIONS};
    uint32_t positions[ROWS];
    for (size_t i = 0; i < ROWS; i++) {
        positions[i] = (uint32_t)numbers[i];
    }
    for (size_t c = 0; c < golden->check->contexts_count; c++) {
        float *y = check_poisoned(COUNT, 0);
        memcpy(y, x, COUNT * sizeof *y);
        struct kern_rotate a = {.rope = &rope,
            .x = y,
            .positions = positions,
            .t = ROWS,
            .heads = HEADS,
            .head_dim = HEAD_DIM,
            .stride = (size_t)HEADS * HEAD_DIM};
        kern_rotate(golden->check->contexts[c], &a);
        assert_true(check_close(want, y, COUNT, BOUND));
        check_free(y);
    }
    check_free(cosines);
    check_free(sines);
    check_free(numbers);
    check_free(x);
    check_free(want);
}

/* ---- sampling ------------------------------------------------------------------------------ */

/* Evenly spread draws fall on each id as often as its probability says, within one; never on one
 * that is cut. */
static void draw_all(struct kern_ctx *ctx, const float *logits, struct kern_sample_row row,
    const struct kern_adjust *adjusts, const float *want)
{
    size_t counts[VOCAB] = {0};
    void *workspace = check_bytes(kern_sample_workspace_bytes(ctx, 1, VOCAB), 0);
    for (size_t i = 0; i < DRAWS; i++) {
        float copy[VOCAB], logprob;
        uint32_t id = UINT32_MAX;
        row.draw = ((float)i + 0.5F) / DRAWS;
        memcpy(copy, logits, sizeof copy);
        struct kern_sample a = {.logits = copy,
            .rows = &row,
            .adjusts = adjusts,
            .rows_count = 1,
            .vocab = VOCAB,
            .out_ids = &id,
            .out_logprobs = &logprob,
            .workspace = workspace};
        kern_sample(ctx, &a);
        assert_true(id < VOCAB);
        counts[id]++;
    }
    for (size_t id = 0; id < VOCAB; id++) {
        if (!(fabs((double)counts[id] - (double)want[id] * DRAWS) <= (want[id] > 0 ? 1.01 : 0))) {
            fail_msg("%s: id %zu %zu times, not %g", kern_ctx_name(ctx), id, counts[id],
                (double)want[id] * DRAWS);
        }
    }
    check_free(workspace);
}

static void check_sampling(struct golden *golden)
{
    float *logits = next(golden, VOCAB);
    struct kern_adjust adjusts[4];
    for (size_t i = 0; i < 4; i++) {
        adjusts[i] = (struct kern_adjust){seen[i], 1, 0};
    }
    for (size_t i = 0; i < SAMPLINGS; i++) {
        float *how = next(golden, 5), *want = next(golden, VOCAB);
        struct kern_sample_row row = {.temperature = how[0],
            .top_k = (uint32_t)how[1],
            .top_p = how[2],
            .min_p = how[3],
            .repetition = how[4],
            .adjust_count = 4};
        for (size_t c = 0; c < golden->check->contexts_count; c++) {
            draw_all(golden->check->contexts[c], logits, row, adjusts, want);
        }
        check_free(how);
        check_free(want);
    }
    check_free(logits);
}

static void test_all_of_the_file(void **state)
{
    struct golden *golden = *state;
    char more;
    check_attention(golden);
    check_rows(golden);
    check_rotary(golden);
    check_sampling(golden);
    assert_int_equal(fread(&more, 1, 1, golden->file), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all_of_the_file)};
    return cmocka_run_group_tests_name("kernels/golden", tests, setup, teardown);
}
