/* Sampling and scoring, on all levels, beside ref's and beside the distribution itself.
 *
 * If these failed, answers would be drawn from something else than what was asked for: a forbidden
 * token, a cut at another place, the same draw differently from machine to machine. */
#include "kernels/decoder.h"
#include "kernels/ops.h"
#include "tests/kernels/check.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TOP 5
#define ADJUSTS 5
#define LOGPROB_BOUND 2e-5F /* float32 sums of e^x beside double */
/* How far, as a share of the whole, a draw may lie from where its choice changes and still be taken
 * for the neighbour. */
#define SLACK 1e-5

static const struct kern_sample_row plain = {
    .temperature = 1, .top_p = 1, .min_p = 0, .repetition = 1, .draw = 0.5F};

struct taken {
    uint32_t id, top_ids[TOP];
    float logprob, top_logprobs[TOP];
};

/* One row on ctx; the logits that are left in it when `left` is not NULL. */
static struct taken sample(struct kern_ctx *ctx, const float *logits, size_t vocab,
    const struct kern_sample_row *how, const struct kern_adjust *adjusts, float *left)
{
    /* All that an operation touches is memory that a device can reach. */
    struct {
        struct kern_sample_row how;
        struct kern_adjust adjusts[ADJUSTS];
        struct taken taken;
    } *io = check_bytes(sizeof *io, 0);
    float *copy = check_poisoned(vocab, 4);
    void *workspace = check_bytes(kern_sample_workspace_bytes(ctx, 1, vocab), 0);
    memcpy(copy, logits, vocab * sizeof *copy);
    if (adjusts) {
        memcpy(io->adjusts, adjusts, sizeof io->adjusts);
    }
    io->how = *how;
    struct kern_sample a = {.logits = copy,
        .rows = &io->how,
        .adjusts = io->adjusts,
        .rows_count = 1,
        .vocab = vocab,
        .top = vocab < TOP ? vocab : TOP,
        .out_ids = &io->taken.id,
        .out_logprobs = &io->taken.logprob,
        .out_top_ids = io->taken.top_ids,
        .out_top_logprobs = io->taken.top_logprobs,
        .workspace = workspace};
    kern_sample(ctx, &a);
    check_done(ctx);
    if (left) {
        memcpy(left, copy, vocab * sizeof *copy);
    }
    struct taken taken = io->taken;
    check_free(copy);
    check_free(workspace);
    check_free(io);
    return taken;
}

/* Numbers as a model gives them: most low, some high, ties. */
static float *logits_of(struct check *check, size_t vocab, float width)
{
    float *out = check_filled(check, vocab, 0);
    for (size_t i = 0; i < vocab; i++) {
        out[i] *= width;
    }
    for (size_t i = 0; i < vocab / 4; i++) {
        out[check_next(check) % vocab] = out[check_next(check) % vocab];
    }
    return out;
}

static struct kern_sample_row random_row(struct check *check, size_t vocab)
{
    static const float temperatures[] = {0, 0.3F, 1, 2.5F}, top_ps[] = {1, 0.95F, 0.4F, 1e-6F};
    static const float min_ps[] = {0, 0, 0.02F, 1};
    uint64_t how = check_next(check);
    return (struct kern_sample_row){.temperature = temperatures[how & 3],
        .top_p = top_ps[how >> 2 & 3],
        .min_p = min_ps[how >> 4 & 3],
        .top_k = how & 64 ? (uint32_t)check_size(check, 1, how & 128 ? vocab : 50) : 0,
        .repetition = 1,
        .draw = (float)(how >> 40) * 0x1p-24F};
}

/* Is what ctx took what ref takes, or would take for a draw next to it? */
static bool same_choice(
    struct check *check, const float *logits, size_t vocab, struct kern_sample_row how, uint32_t id)
{
    for (int i = -1; i <= 1; i++) {
        struct kern_sample_row near = how;
        near.draw = fminf(fmaxf(how.draw + (float)i * (float)SLACK, 0), 0.9999999F);
        if (sample(check->contexts[0], logits, vocab, &near, NULL, NULL).id == id) {
            return true;
        }
    }
    return false;
}

static void assert_logprob(float want, float got)
{
    if (!(fabsf(want - got) <= LOGPROB_BOUND * fmaxf(1, fabsf(want))) && want != got) {
        fail_msg("logprob %g, not %g", (double)got, (double)want);
    }
}

static void test_same_as_ref(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < 400; i++) {
        size_t vocab = check_size(check, 1, i % 4 == 0 ? 9000 : 300);
        float *logits = logits_of(check, vocab, i % 3 == 0 ? 0.1F : 3);
        struct kern_sample_row how = random_row(check, vocab);
        struct taken want = sample(check->contexts[0], logits, vocab, &how, NULL, NULL);
        for (size_t c = 1; c < check->contexts_count; c++) {
            struct taken got = sample(check->contexts[c], logits, vocab, &how, NULL, NULL);
            if (got.id != want.id && !same_choice(check, logits, vocab, how, got.id)) {
                fail_msg("%s: V %zu, temperature %g, top_p %g, min_p %g, top_k %u, draw %.9g: id "
                         "%u, not %u",
                    kern_ctx_name(check->contexts[c]), vocab, (double)how.temperature,
                    (double)how.top_p, (double)how.min_p, how.top_k, (double)how.draw, got.id,
                    want.id);
            }
            if (got.id == want.id) {
                assert_logprob(want.logprob, got.logprob);
            }
            for (size_t t = 0; t < TOP && t < vocab; t++) {
                assert_int_equal(got.top_ids[t], want.top_ids[t]);
                assert_logprob(want.top_logprobs[t], got.top_logprobs[t]);
            }
        }
        check_free(logits);
    }
}

/* The largest, of equals the smallest id; top_k 1 and a small top_p are the same. */
static void test_greedy(void **state)
{
    struct check *check = *state;
    enum { VOCAB = 1000 };
    float *logits = logits_of(check, VOCAB, 1);
    for (size_t i = 0; i < 30; i++) {
        uint32_t best = (uint32_t)check_size(check, 0, VOCAB - 1);
        logits[best] = 10.0F + (float)i;
        logits[best + (VOCAB - best) / 2] = logits[best];
        logits[VOCAB - 1] = logits[best];
        struct kern_sample_row rows[3] = {plain, plain, plain};
        rows[0].temperature = 0;
        rows[1].top_k = 1;
        rows[2].top_p = 1e-9F;
        for (size_t c = 0; c < check->contexts_count * 3; c++) {
            rows[c % 3].draw = 0.999F;
            assert_int_equal(
                sample(check->contexts[c / 3], logits, VOCAB, &rows[c % 3], NULL, NULL).id, best);
        }
    }
    check_free(logits);
}

/* Four ids of which the probabilities are known: where the draw falls, and what is cut. */
static void test_known_distribution(void **state)
{
    struct check *check = *state;
    const float logits[] = {logf(0.2F), logf(0.5F), logf(0.1F), logf(0.2F)};
    static const struct {
        float draw, top_p, min_p;
        uint32_t top_k, id;
    } cases[] = {
        {0, 1, 0, 0, 0},
        {0.19F, 1, 0, 0, 0},
        {0.21F, 1, 0, 0, 1},
        {0.71F, 1, 0, 0, 2},
        {0.81F, 1, 0, 0, 3},
        {0.9999F, 1, 0, 0, 3},
        {0.28F, 1, 0, 2, 0},   /* 0 and 1: the smaller id of equals; 2/7 */
        {0.29F, 1, 0, 2, 1},   /* ... */
        {0.9999F, 1, 0, 2, 1}, /* ... */
        {0.9999F, 0.45F, 0, 0, 1},
        {0.28F, 0.6F, 0, 0, 0}, /* 0.5 is less than 0.6: one more */
        {0.9999F, 0.6F, 0, 0, 1},
        {0.9999F, 0.8F, 0, 0, 3}, /* 0.5, 0.2, 0.2 */
        {0.9999F, 0.6F, 0, 3, 1}, /* of 0.9: 0.5 and 0.2 are 0.78 of it */
        {0.9999F, 1, 0.3F, 0, 3},
        {0.9999F, 1, 0.5F, 0, 1},
        {0.0F, 1, 0.5F, 0, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kern_sample_row how = plain;
        how.draw = cases[i].draw;
        how.top_p = cases[i].top_p;
        how.min_p = cases[i].min_p;
        how.top_k = cases[i].top_k;
        uint32_t want = cases[i].id;
        for (size_t c = 0; c < check->contexts_count; c++) {
            struct taken got = sample(check->contexts[c], logits, 4, &how, NULL, NULL);
            if (got.id != want) {
                fail_msg(
                    "%s, case %zu: %u, not %u", kern_ctx_name(check->contexts[c]), i, got.id, want);
            }
            assert_logprob(logits[want], got.logprob);
        }
    }
}

/* Evenly spread draws give each id its share; the square of the error over the expectation, summed,
 * is far below what chance would give, since draws are not chance. */
static void test_shares(void **state)
{
    struct check *check = *state;
    enum { VOCAB = 37, DRAWS = 4096 };
    float *logits = logits_of(check, VOCAB, 1);
    for (size_t c = 0; c < check->contexts_count; c++) {
        double total = 0, squares = 0;
        size_t counts[VOCAB] = {0};
        for (size_t i = 0; i < DRAWS; i++) {
            struct kern_sample_row how = plain;
            how.temperature = 0.7F;
            how.draw = ((float)i + 0.5F) / DRAWS;
            counts[sample(check->contexts[c], logits, VOCAB, &how, NULL, NULL).id]++;
        }
        for (size_t i = 0; i < VOCAB; i++) {
            total += exp((double)logits[i] / 0.7);
        }
        for (size_t i = 0; i < VOCAB; i++) {
            double want = exp((double)logits[i] / 0.7) / total * DRAWS;
            assert_true(fabs((double)counts[i] - want) <= 1.01);
            squares += ((double)counts[i] - want) * ((double)counts[i] - want) / want;
        }
        assert_true(squares < VOCAB);
    }
    check_free(logits);
}

/* ---- adjusting ----------------------------------------------------------------------------- */

static void test_adjusted(void **state)
{
    struct check *check = *state;
    const float logits[] = {2, -2, 1, 0.5F, 3};
    const struct kern_adjust adjusts[ADJUSTS] = {
        {9, 1, 9}, {0, 1, 0}, {1, 1, 0.25F}, {3, 0, 4}, {4, 0, -INFINITY}};
    const float want[] = {1, -4 + 0.25F, 1, 4.5F, -INFINITY};
    struct kern_sample_row how = plain;
    how.repetition = 2;
    how.adjust_start = 1;
    how.adjust_count = 4;
    for (size_t c = 0; c < check->contexts_count; c++) {
        float left[5];
        how.temperature = how.draw = 0;
        assert_int_equal(sample(check->contexts[c], logits, 5, &how, adjusts, left).id, 3);
        assert_memory_equal(left, want, sizeof want);
        how.temperature = 1;
        for (how.draw = 0; how.draw < 1; how.draw += 0.01F) {
            struct taken got = sample(check->contexts[c], logits, 5, &how, adjusts, NULL);
            assert_int_not_equal(got.id, 4);
            assert_int_equal(got.top_ids[4], 4);
            assert_true(isinf(got.top_logprobs[4]) && got.top_logprobs[4] < 0);
        }
    }
}

/* All of a long row but a few ids is forbidden, as a grammar does. */
static void test_mostly_forbidden(void **state)
{
    struct check *check = *state;
    enum { VOCAB = 5000 };
    float *logits = check_poisoned(VOCAB, 0);
    for (size_t i = 0; i < VOCAB; i++) {
        logits[i] = -INFINITY;
    }
    logits[4001] = -3;
    logits[4999] = -200; /* nothing beside the other */
    for (size_t i = 0; i < 40; i++) {
        struct kern_sample_row how = random_row(check, VOCAB);
        for (size_t c = 0; c < check->contexts_count; c++) {
            struct taken got = sample(check->contexts[c], logits, VOCAB, &how, NULL, NULL);
            assert_int_equal(got.id, 4001);
            assert_logprob(0, got.logprob);
            assert_int_equal(got.top_ids[1], 4999);
            assert_int_equal(got.top_ids[2], 0);
        }
    }
    check_free(logits);
}

/* NaN is never taken and is told; infinity is taken and told; nothing at all is id 0. */
static void test_not_numbers(void **state)
{
    struct check *check = *state;
    enum { VOCAB = 40 };
    float *logits = logits_of(check, VOCAB, 2);
    for (size_t i = 0; i < 60; i++) {
        struct kern_sample_row how = random_row(check, VOCAB);
        for (size_t c = 0; c < check->contexts_count; c++) {
            float bad[VOCAB];
            memcpy(bad, logits, sizeof bad);
            bad[0] = bad[17] = NAN;
            struct taken got = sample(check->contexts[c], bad, VOCAB, &how, NULL, NULL);
            assert_true(got.id < VOCAB && got.id != 0 && got.id != 17);
            assert_true(isnan(got.logprob) && isnan(got.top_logprobs[0]));
            bad[20] = bad[30] = INFINITY;
            got = sample(check->contexts[c], bad, VOCAB, &how, NULL, NULL);
            assert_int_equal(got.id, 20);
            assert_true(isnan(got.logprob));
            for (size_t k = 0; k < VOCAB; k++) {
                bad[k] = k % 2 == 0 ? NAN : -INFINITY;
            }
            got = sample(check->contexts[c], bad, VOCAB, &how, NULL, NULL);
            assert_int_equal(got.id, 0);
            assert_true(isnan(got.logprob));
            assert_int_equal(got.top_ids[1], 1);
        }
    }
    check_free(logits);
}

/* ---- rows and scoring ---------------------------------------------------------------------- */

enum { VOCAB = 2500, ROWS = 7 };

/* What the rows of one call give, where a device can reach it. */
struct batch {
    struct kern_sample_row rows[ROWS];
    uint32_t ids[ROWS];
    float logprobs[ROWS], scores[ROWS];
};

static void run_batch(struct kern_ctx *ctx, const float *logits, struct batch *batch)
{
    float *copy = check_poisoned((size_t)VOCAB * ROWS, 0);
    void *workspace = check_bytes(kern_sample_workspace_bytes(ctx, ROWS, VOCAB), 0);
    memcpy(copy, logits, (size_t)VOCAB * ROWS * sizeof *copy);
    struct kern_sample a = {.logits = copy,
        .rows = batch->rows,
        .rows_count = ROWS,
        .vocab = VOCAB,
        .out_ids = batch->ids,
        .out_logprobs = batch->logprobs,
        .workspace = workspace};
    kern_sample(ctx, &a);
    kern_logprobs(ctx, logits, batch->ids, ROWS, VOCAB, batch->scores);
    check_done(ctx);
    check_free(workspace);
    check_free(copy);
}

/* What a row gets does not depend on the others. */
static void test_rows_are_alone(void **state)
{
    struct check *check = *state;
    float *logits = logits_of(check, (size_t)VOCAB * ROWS, 2);
    struct batch *batch = check_bytes(sizeof *batch, 0);
    for (size_t r = 0; r < ROWS; r++) {
        batch->rows[r] = random_row(check, VOCAB);
    }
    for (size_t c = 0; c < check->contexts_count; c++) {
        struct kern_ctx *ctx = check->contexts[c];
        run_batch(ctx, logits, batch);
        for (size_t r = 0; r < ROWS; r++) {
            struct taken alone =
                sample(ctx, logits + r * VOCAB, VOCAB, &batch->rows[r], NULL, NULL);
            assert_int_equal(batch->ids[r], alone.id);
            assert_memory_equal(&batch->logprobs[r], &alone.logprob, sizeof alone.logprob);
            assert_logprob(batch->logprobs[r], batch->scores[r]);
        }
    }
    check_free(batch);
    check_free(logits);
}

static void test_logprobs(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < 40; i++) {
        size_t vocab = check_size(check, 1, 3000), rows = check_size(check, 1, 5);
        float *logits = logits_of(check, vocab * rows, 4);
        float *want = check_poisoned(rows, 0), *got = check_poisoned(rows, 0);
        uint32_t *ids = check_bytes(rows * sizeof *ids, 0);
        for (size_t r = 0; r < rows; r++) {
            ids[r] = (uint32_t)check_size(check, 0, vocab - 1);
        }
        kern_logprobs(check->contexts[0], logits, ids, rows, vocab, want);
        for (size_t c = 1; c < check->contexts_count; c++) {
            kern_logprobs(check->contexts[c], logits, ids, rows, vocab, got);
            check_done(check->contexts[c]);
            for (size_t r = 0; r < rows; r++) {
                assert_logprob(want[r], got[r]);
            }
        }
        check_free(logits);
        check_free(want);
        check_free(got);
        check_free(ids);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_as_ref),
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_known_distribution),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_adjusted),
        cmocka_unit_test(test_mostly_forbidden),
        cmocka_unit_test(test_not_numbers),
        cmocka_unit_test(test_rows_are_alone),
        cmocka_unit_test(test_logprobs),
    };
    return cmocka_run_group_tests_name(
        "kernels/sample", tests, check_setup_copying, check_teardown);
}
