/* The rest of an encoder on all levels of this processor, beside ref's; and ref's beside what can
 * be said without it.
 *
 * If these failed, embeddings would be wrong, or depend on which machine or beside which other
 * texts they were made. */
#include "tests/kernels/check.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BOUND 3e-5

/* Compare what `run` writes (count floats) on all contexts. */
static void compare_all(struct check *check, size_t count,
    void (*run)(struct kern_ctx *ctx, const void *a, float *out), const void *a)
{
    float *want = check_poisoned(count, 0);
    run(check->contexts[0], a, want);
    for (size_t i = 1; i < check->contexts_count; i++) {
        float *got = check_poisoned(count, 4 * (i % 4));
        run(check->contexts[i], a, got);
        if (!check_close(want, got, count, BOUND)) {
            fail_msg("%s", kern_ctx_name(check->contexts[i]));
        }
        check_free(got);
    }
    check_free(want);
}

/* starts of `sequences` sequences of least..most rows. */
static uint32_t *random_starts(struct check *check, size_t sequences, size_t least, size_t most)
{
    uint32_t *starts = calloc(sequences + 1, sizeof *starts);
    assert_non_null(starts);
    for (size_t b = 0; b < sequences; b++) {
        starts[b + 1] = starts[b] + (uint32_t)check_size(check, least, most);
    }
    return starts;
}

/* ---- layernorm ----------------------------------------------------------------------------- */

struct layernorm {
    size_t t, k;
    const float *x, *gamma, *beta;
    bool in_place;
};

static void run_layernorm(struct kern_ctx *ctx, const void *arg, float *out)
{
    const struct layernorm *a = arg;
    if (a->in_place && a->t > 0) {
        memcpy(out, a->x, a->t * a->k * sizeof *out);
    }
    kern_layernorm(ctx, a->in_place ? out : a->x, a->gamma, a->beta, 1e-12F, out, a->t, a->k);
}

static void test_layernorm(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < 40; i++) {
        struct layernorm a = {.t = check_size(check, 0, 90), .k = check_size(check, 2, 400)};
        float *x = check_filled(check, a.t * a.k, 4 * (i % 8));
        float *gamma = check_filled(check, a.k, 4), *beta = check_filled(check, a.k, 12);
        for (size_t at = 0; at < a.t * a.k; at++) {
            x[at] += (float)i; /* a mean that is far from zero */
        }
        a.x = x;
        a.gamma = gamma;
        a.beta = beta;
        a.in_place = i % 2;
        compare_all(check, a.t * a.k, run_layernorm, &a);
        check_free(x);
        check_free(gamma);
        check_free(beta);
    }
}

/* ---- attention ----------------------------------------------------------------------------- */

struct attention {
    const float *qkv;
    const uint32_t *starts;
    size_t sequences, heads, head_dim, longest;
};

static void run_attention(struct kern_ctx *ctx, const void *arg, float *out)
{
    const struct attention *a = arg;
    size_t bytes = kern_encode_attention_workspace_bytes(ctx, a->longest, a->head_dim);
    void *workspace = check_bytes(bytes, 0);
    struct kern_encode_attention call = {
        .qkv = a->qkv,
        .starts = a->starts,
        .sequences = a->sequences,
        .heads = a->heads,
        .head_dim = a->head_dim,
        .scale = 1.0F / sqrtf((float)a->head_dim),
        .out = out,
        .workspace = workspace,
    };
    kern_encode_attention(ctx, &call);
    check_free(workspace);
}

static void compare_attention(
    struct check *check, size_t sequences, size_t least, size_t most, size_t heads, size_t head_dim)
{
    uint32_t *starts = random_starts(check, sequences, least, most);
    size_t t = starts[sequences];
    float *qkv = check_filled(check, t * 3 * heads * head_dim, 4);
    struct attention a = {qkv, starts, sequences, heads, head_dim, most};
    compare_all(check, t * heads * head_dim, run_attention, &a);
    check_free(qkv);
    free(starts);
}

static void test_attention(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < 30; i++) {
        compare_attention(check, check_size(check, 0, 5), 0, check_size(check, 1, 60),
            check_size(check, 1, 5), check_size(check, 1, 70));
    }
    for (size_t s = 1; s < 20; s++) {
        compare_attention(check, 2, s, s, 2, 32);
    }
    compare_attention(check, 3, 100, 200, 2, 64);
}

/* One row attends to itself alone: out is its value. Equal keys: the mean of the values. */
static void test_attention_means(void **state)
{
    struct check *check = *state;
    enum { S = 11, D = 5 };
    float qkv[S * 3 * D], got[S * D], want[S * D];
    uint32_t one_each[S + 1], together[2] = {0, S};
    for (size_t i = 0; i < (size_t)S * 3 * D; i++) {
        qkv[i] = i / D % 3 == 1 ? 0.5F : check_float(check);
    }
    for (uint32_t i = 0; i <= S; i++) {
        one_each[i] = i;
    }
    for (size_t i = 0; i < check->contexts_count; i++) {
        struct attention a = {qkv, one_each, S, 1, D, 1};
        run_attention(check->contexts[i], &a, got);
        for (size_t row = 0; row < S; row++) {
            memcpy(want + row * D, qkv + row * 3 * D + (size_t)2 * D, D * sizeof *want);
        }
        assert_true(check_close(want, got, (size_t)S * D, BOUND));
        a = (struct attention){qkv, together, 1, 1, D, S};
        run_attention(check->contexts[i], &a, got);
        for (size_t d = 0; d < D; d++) {
            float sum = 0;
            for (size_t row = 0; row < S; row++) {
                sum += qkv[row * 3 * D + (size_t)2 * D + d];
            }
            for (size_t row = 0; row < S; row++) {
                want[row * D + d] = sum / S;
            }
        }
        assert_true(check_close(want, got, (size_t)S * D, BOUND));
    }
}

/* Scores of 10,000 must not become infinite weights. */
static void test_attention_large_scores(void **state)
{
    struct check *check = *state;
    uint32_t starts[] = {0, 9};
    float *qkv = check_filled(check, (size_t)9 * 3 * 8, 0);
    for (size_t i = 0; i < (size_t)9 * 3 * 8; i++) {
        qkv[i] *= i / 8 % 3 < 2 ? 100 : 1;
    }
    struct attention a = {qkv, starts, 1, 1, 8, 9};
    compare_all(check, (size_t)9 * 8, run_attention, &a);
    check_free(qkv);
}

/* ---- embeddings, pools, lengths ------------------------------------------------------------ */

struct embed {
    const float *tables[3];
    const uint32_t *ids[3];
    size_t count, t, k;
};

static void run_embed(struct kern_ctx *ctx, const void *arg, float *out)
{
    const struct embed *a = arg;
    kern_embed(ctx, a->tables, a->ids, a->count, out, a->t, a->k);
}

static void test_embed(void **state)
{
    struct check *check = *state;
    enum { V = 50 };
    for (size_t i = 0; i < 20; i++) {
        struct embed a = {
            .count = i % 4, .t = check_size(check, 0, 80), .k = check_size(check, 1, 400)};
        float *tables[3];
        uint32_t *ids[3];
        for (size_t table = 0; table < 3; table++) {
            a.tables[table] = tables[table] = check_filled(check, V * a.k, 4);
            a.ids[table] = ids[table] = check_bytes(a.t * sizeof(uint32_t), 0);
            for (size_t t = 0; t < a.t; t++) {
                ids[table][t] = (uint32_t)check_size(check, 0, V - 1);
            }
        }
        compare_all(check, a.t * a.k, run_embed, &a);
        for (size_t table = 0; table < 3; table++) {
            check_free(tables[table]);
            check_free(ids[table]);
        }
    }
}

struct pool {
    const float *x;
    const uint32_t *starts;
    size_t sequences, k;
};

static void run_mean(struct kern_ctx *ctx, const void *arg, float *out)
{
    const struct pool *a = arg;
    kern_pool_mean(ctx, a->x, a->starts, a->sequences, out, a->k);
}

static void run_cls(struct kern_ctx *ctx, const void *arg, float *out)
{
    const struct pool *a = arg;
    kern_pool_cls(ctx, a->x, a->starts, a->sequences, out, a->k);
}

static void test_pools(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < 20; i++) {
        struct pool a = {.sequences = check_size(check, 0, 9), .k = check_size(check, 1, 400)};
        uint32_t *starts = random_starts(check, a.sequences, 0, 30);
        float *x = check_filled(check, starts[a.sequences] * a.k, 4);
        a.x = x;
        a.starts = starts;
        compare_all(check, a.sequences * a.k, run_mean, &a);
        compare_all(check, a.sequences * a.k, run_cls, &a);
        check_free(x);
        free(starts);
    }
    const float rows[] = {1, 2, 3, 4, 5, 9};
    const uint32_t starts[] = {0, 0, 2, 3};
    const float want_mean[] = {0, 0, 2, 3, 5, 9}, want_cls[] = {0, 0, 1, 2, 5, 9};
    float got[6];
    kern_pool_mean(check->contexts[0], rows, starts, 3, got, 2);
    assert_memory_equal(got, want_mean, sizeof got);
    kern_pool_cls(check->contexts[0], rows, starts, 3, got, 2);
    assert_memory_equal(got, want_cls, sizeof got);
}

static void run_normalize(struct kern_ctx *ctx, const void *arg, float *out)
{
    const struct pool *a = arg;
    if (a->sequences > 0) {
        memcpy(out, a->x, a->sequences * a->k * sizeof *out);
    }
    kern_normalize(ctx, out, a->sequences, a->k);
}

static void test_normalize(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < 20; i++) {
        struct pool a = {.sequences = check_size(check, 0, 9), .k = check_size(check, 1, 400)};
        float *x = check_filled(check, a.sequences * a.k, 4);
        for (size_t at = 0; at < a.sequences * a.k; at++) {
            x[at] *= i % 3 == 0 ? 1e-30F : i % 3 == 1 ? 1e30F : 1.0F;
        }
        if (a.sequences > 2) {
            memset(x + a.k, 0, a.k * sizeof *x);
        }
        a.x = x;
        compare_all(check, a.sequences * a.k, run_normalize, &a);
        check_free(x);
    }
    float row[] = {3, 4, 0, 0};
    kern_normalize(check->contexts[0], row, 2, 2);
    assert_true(fabsf(row[0] - 0.6F) < 1e-6F && fabsf(row[1] - 0.8F) < 1e-6F);
    assert_true(row[2] == 0 && row[3] == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layernorm),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_attention_means),
        cmocka_unit_test(test_attention_large_scores),
        cmocka_unit_test(test_embed),
        cmocka_unit_test(test_pools),
        cmocka_unit_test(test_normalize),
    };
    return cmocka_run_group_tests_name("kernels/encode", tests, check_setup, check_teardown);
}
