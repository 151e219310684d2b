/* The GPU behind a context: products in its memory, recorded operations, errors, what follows them.
 * Skipped where there is none.
 *
 * If these failed, a GPU would answer with other numbers than a CPU, a worker would not outlive a
 * GPU that failed, or lose some of its memory with every request. */
#include "kernels/ops.h"
#include "tests/kernels/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct kern_ctx *gpu(struct check *check)
{
    return check->contexts[check->contexts_count - 1];
}

/* By tests/cuda: what takes long is left out. */
static bool is_emulated(struct check *check)
{
    return strstr(kern_ctx_name(gpu(check)), "emulated") != NULL;
}

/* A context of its own, with nothing else on the device: what a reset takes is all there is. */
static struct kern_ctx *alone(struct check *check)
{
    const struct kern_options options = {.backend = "cuda", .threads = 1};
    struct kern_ctx *ctx = NULL;
    check_drop_cuda(check);
    assert_int_equal(kern_ctx_create(&options, &ctx, NULL), MEMOS_OK);
    return ctx;
}

/* ---- products ------------------------------------------------------------------------------ */

struct product {
    size_t t, n, k;
    enum kern_dtype weights, x_dtype, y_dtype;
    enum kern_activation act;
    bool bias, residual, in_place;
};

/* What all contexts are given. */
struct numbers {
    float *x, *w, *bias, *residual;
};

static void *to_device(struct kern_ctx *ctx, const float *from, size_t count, enum kern_dtype as)
{
    void *converted = malloc(count * kern_dtype_bytes(as));
    kern_from_f32(as, from, converted, count);
    void *device = check_upload(ctx, converted, count * kern_dtype_bytes(as));
    free(converted);
    return device;
}

/* y in float32, to be freed. */
static float *run(struct kern_ctx *ctx, const struct product *p, const struct numbers *from)
{
    struct kern_matrix *w = NULL;
    size_t count = p->t * p->n, y_bytes = kern_dtype_bytes(p->y_dtype);
    float *out = malloc(count * sizeof *out);
    void *got = malloc(count * y_bytes);
    memset(got, 0xff, count * y_bytes);
    assert_int_equal(
        kern_matrix_pack(ctx, p->weights, KERN_F32, from->w, p->n, p->k, &w, NULL), MEMOS_OK);
    size_t room = kern_linear_workspace_bytes(ctx, w, p->t);
    struct kern_linear a = {
        .x = to_device(ctx, from->x, p->t * p->k, p->x_dtype),
        .w = w,
        .bias = p->bias ? to_device(ctx, from->bias, p->n, KERN_F32) : NULL,
        .residual = p->residual ? to_device(ctx, from->residual, count, KERN_F32) : NULL,
        .y = p->in_place ? NULL : check_upload(ctx, got, count * y_bytes),
        .t = p->t,
        .act = p->act,
        .x_dtype = p->x_dtype,
        .y_dtype = p->y_dtype,
    };
    a.y = p->in_place ? (void *)(uintptr_t)a.residual : a.y;
    assert_int_equal(kern_alloc(ctx, room, &a.workspace, NULL), MEMOS_OK);
    kern_fill(ctx, a.workspace, 0xff, room);
    kern_linear(ctx, &a);
    check_done(ctx);
    check_download(ctx, a.y, got, count * y_bytes);
    check_download(ctx, (void *)(uintptr_t)a.x, NULL, p->t * p->k * kern_dtype_bytes(p->x_dtype));
    if (p->bias) {
        check_download(ctx, (void *)(uintptr_t)a.bias, NULL, p->n * sizeof(float));
    }
    if (p->residual && !p->in_place) {
        check_download(ctx, (void *)(uintptr_t)a.residual, NULL, count * sizeof(float));
    }
    kern_release(ctx, &a.workspace);
    kern_matrix_free(&w);
    kern_to_f32(p->y_dtype, got, out, count);
    free(got);
    return out;
}

/* Of the root mean square: sums of K in float32, tensor cores' too; of bf16 outputs 2^-9 of the
 * largest, some four times the root mean square. With many rows codes are multiplied as bf16 and x
 * is not in codes: what is compared with is off by half a 127th of the largest of x. */
static double bound_of(const struct product *p)
{
    bool widened = p->weights >= KERN_I8 && p->t > 64;
    return widened ? 5e-2 : p->y_dtype == KERN_BF16 ? 2e-2 : p->weights == KERN_F32 ? 3e-5 : 2e-4;
}

static struct numbers numbers_of(struct check *check, const struct product *p)
{
    return (struct numbers){
        .x = check_filled(check, p->t * p->k, 0),
        .w = check_filled(check, p->n * p->k, 0),
        .bias = check_filled(check, p->n, 0),
        .residual = check_filled(check, p->t * p->n, 0),
    };
}

static void numbers_free(struct numbers *numbers)
{
    check_free(numbers->x);
    check_free(numbers->w);
    check_free(numbers->bias);
    check_free(numbers->residual);
}

static void compare(struct check *check, const struct product *p)
{
    struct numbers numbers = numbers_of(check, p);
    float *want = run(check->contexts[0], p, &numbers);
    float *got = run(gpu(check), p, &numbers);
    if (!check_close(want, got, p->t * p->n, bound_of(p))) {
        fail_msg("%s: t %zu, n %zu, k %zu, x %s, y %s, act %d, bias %d, residual %d, in place %d",
            kern_dtype_name(p->weights), p->t, p->n, p->k, kern_dtype_name(p->x_dtype),
            kern_dtype_name(p->y_dtype), (int)p->act, p->bias, p->residual, p->in_place);
    }
    free(want);
    free(got);
    numbers_free(&numbers);
}

static const enum kern_dtype weights[] = {KERN_F32, KERN_BF16, KERN_I8, KERN_Q8_0, KERN_Q4_0};

/* Both sides of every way's borders, and shapes that leave a rest everywhere. */
static void test_products(void **state)
{
    static const size_t ts[] = {1, 2, 7, 8, 9, 16, 17, 33, 70, 130};
    struct check *check = *state;
    const size_t rounds = is_emulated(check) ? 5 * 6 : 5 * 60;
    for (size_t i = 0; i < rounds; i++) {
        uint64_t how = check_next(check);
        size_t block = kern_dtype_block(weights[i % 5]);
        struct product p = {
            .t = ts[how % 10],
            .n = check_size(check, 1, 300),
            .k = block * check_size(check, 1, 700 / block),
            .weights = weights[i % 5],
            .x_dtype = weights[i % 5] == KERN_BF16 && how >> 8 & 1 ? KERN_BF16 : KERN_F32,
            .y_dtype = how >> 9 & 1 ? KERN_BF16 : KERN_F32,
            .act = how >> 10 & 1 ? KERN_NONE : (enum kern_activation)(how >> 11 & 3),
            .bias = how >> 13 & 1,
            .residual = how >> 14 & 1,
        };
        p.k = block == 1 && how >> 16 & 1 ? kern_up(p.k, 8) : p.k;
        p.in_place = p.residual && p.y_dtype == KERN_F32 && how >> 15 & 1;
        compare(check, &p);
    }
}

/* Rows of K that more than one warp, and more than one step of a warp, add up; more tiles than
 * fit at once. */
static void test_large_products(void **state)
{
    struct check *check = *state;
    if (is_emulated(check)) {
        skip(); /* hours */
    }
    for (size_t i = 0; i < 5; i++) {
        compare(check, &(struct product){.t = 3,
                           .n = 5000,
                           .k = 2048 + 64,
                           .weights = weights[i],
                           .x_dtype = KERN_F32,
                           .y_dtype = KERN_F32});
        compare(check, &(struct product){.t = 66, /* more than one piece of widened weights */
                           .n = 8264,
                           .k = 4096,
                           .weights = weights[i],
                           .x_dtype = KERN_F32,
                           .y_dtype = KERN_F32,
                           .residual = i % 2 == 0,
                           .bias = true});
        compare(check, &(struct product){.t = 40,
                           .n = 264,
                           .k = 4096,
                           .weights = weights[i],
                           .x_dtype = KERN_F32,
                           .y_dtype = KERN_F32,
                           .residual = true,
                           .in_place = true});
    }
}

/* The first row's numbers are the same to the bit, alone or among others: to 8 rows with any
 * weights, beyond with integer ones. */
static void test_rows_alone(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < 5; i++) {
        struct product p = {.t = i < 2 ? 8 : 50,
            .n = 600,
            .k = 1024,
            .weights = weights[i],
            .x_dtype = KERN_F32,
            .y_dtype = KERN_F32};
        struct numbers numbers = numbers_of(check, &p);
        float *all = run(gpu(check), &p, &numbers);
        for (p.t = 1; p.t <= 7; p.t += 3) {
            float *some = run(gpu(check), &p, &numbers);
            assert_memory_equal(some, all, p.t * p.n * sizeof *some);
            free(some);
        }
        free(all);
        numbers_free(&numbers);
    }
}

/* ---- recorded operations ------------------------------------------------------------------- */

enum { N = 96, K = 128, T = 4 };

/* Two products, one after the other, and a copy. */
struct steps {
    struct kern_matrix *up, *down;
    float *x, *between, *y, *copy;
    float values[T * K];
};

static void steps_make(struct check *check, struct kern_ctx *ctx, struct steps *s)
{
    float *up = check_filled(check, N * K, 0), *down = check_filled(check, K * N, 0);
    for (size_t i = 0; i < T * K; i++) {
        s->values[i] = check_float(check);
    }
    assert_int_equal(kern_matrix_pack(ctx, KERN_BF16, KERN_F32, up, N, K, &s->up, NULL), MEMOS_OK);
    assert_int_equal(
        kern_matrix_pack(ctx, KERN_BF16, KERN_F32, down, K, N, &s->down, NULL), MEMOS_OK);
    s->x = check_upload(ctx, s->values, sizeof s->values);
    s->between = check_upload(ctx, s->values, T * N * sizeof(float));
    s->y = check_upload(ctx, s->values, sizeof s->values);
    s->copy = check_upload(ctx, s->values, sizeof s->values);
    check_free(up);
    check_free(down);
}

static void steps_run(struct kern_ctx *ctx, struct steps *s)
{
    struct kern_linear up = {.x = s->x, .w = s->up, .y = s->between, .t = T, .act = KERN_SILU};
    struct kern_linear down = {.x = s->between, .w = s->down, .residual = s->x, .y = s->y, .t = T};
    kern_linear(ctx, &up);
    kern_linear(ctx, &down);
    kern_copy(ctx, s->copy, s->y, sizeof s->values);
}

static void steps_free(struct kern_ctx *ctx, struct steps *s, float *out)
{
    kern_matrix_free(&s->up);
    kern_matrix_free(&s->down);
    check_download(ctx, s->x, NULL, sizeof s->values);
    check_download(ctx, s->between, NULL, T * N * sizeof(float));
    check_download(ctx, s->y, NULL, sizeof s->values);
    check_download(ctx, s->copy, out, sizeof s->values);
}

/* Nothing runs when it is recorded; run, it does what the operations do, with what lies there. */
static void test_graph(void **state)
{
    struct check *check = *state;
    struct kern_ctx *ctx = gpu(check);
    struct steps s;
    struct kern_graph *graph = NULL;
    float before[T * K], want[T * K], got[T * K];
    steps_make(check, ctx, &s);
    memcpy(before, s.values, sizeof before);
    assert_true(kern_graph_begin(ctx));
    steps_run(ctx, &s);
    assert_int_equal(kern_graph_end(ctx, &graph, NULL), MEMOS_OK);
    assert_int_equal(kern_download(ctx, got, s.copy, sizeof got, NULL), MEMOS_OK);
    assert_memory_equal(got, before, sizeof got);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < T * K; i++) {
            s.values[i] = check_float(check);
        }
        kern_upload(ctx, s.x, s.values, sizeof s.values);
        steps_run(ctx, &s);
        assert_int_equal(kern_download(ctx, want, s.copy, sizeof want, NULL), MEMOS_OK);
        kern_fill(ctx, s.copy, 0, sizeof got);
        kern_fill(ctx, s.between, 0xff, T * N * sizeof(float));
        kern_graph_run(ctx, graph);
        assert_int_equal(kern_download(ctx, got, s.copy, sizeof got, NULL), MEMOS_OK);
        assert_memory_equal(got, want, sizeof got);
    }
    kern_graph_free(&graph);
    kern_graph_free(&graph);
    steps_free(ctx, &s, got);
}

/* ---- errors -------------------------------------------------------------------------------- */

static uint64_t available(struct kern_ctx *ctx)
{
    uint64_t out, total;
    kern_memory(ctx, &out, &total);
    return out;
}

/* Contexts, weights and graphs that come and go leave as much memory as there was. */
static void test_nothing_leaks(void **state)
{
    struct check *check = *state;
    struct kern_ctx *ctx = gpu(check);
    uint64_t before = 0;
    if (check_sanitizing()) {
        skip(); /* the tool keeps memory of its own */
    }
    for (size_t i = 0; i < 60; i++) {
        const struct kern_options options = {.backend = "cuda", .threads = 1};
        struct kern_ctx *other = NULL;
        struct kern_graph *graph = NULL;
        struct steps s;
        float out[T * K];
        assert_int_equal(kern_ctx_create(&options, &other, NULL), MEMOS_OK);
        steps_make(check, other, &s);
        assert_true(kern_graph_begin(other));
        steps_run(other, &s);
        assert_int_equal(kern_graph_end(other, &graph, NULL), MEMOS_OK);
        kern_graph_run(other, graph);
        kern_graph_free(&graph);
        steps_free(other, &s, out);
        kern_ctx_destroy(&other);
        before = i == 9 ? available(ctx) : before; /* the driver keeps some of the first */
    }
    assert_true(available(ctx) + (1 << 20) > before);
}

/* What we ask for wrongly is told once, by the next call that can tell, and is over then. */
static void test_passing_error(void **state)
{
    struct kern_ctx *ctx = alone(*state);
    struct memos_error err;
    kern_fill(ctx, (void *)(uintptr_t)64, 0, 64);
    assert_int_equal(kern_sync(ctx, &err), MEMOS_INTERNAL);
    assert_non_null(strstr(err.text, "fill"));
    assert_int_equal(kern_sync(ctx, &err), MEMOS_OK);
    kern_ctx_destroy(&ctx);
}

/* ---- after a reset ------------------------------------------------------------------------- */

/* As steps_free, when the device is not to be touched. */
static void steps_forget(struct kern_ctx *ctx, struct steps *s)
{
    float *pieces[] = {s->x, s->between, s->y, s->copy};
    kern_matrix_free(&s->up);
    kern_matrix_free(&s->down);
    for (size_t i = 0; i < 4; i++) {
        void *memory = (char *)pieces[i] - 256; /* as check_upload made it */
        kern_release(ctx, &memory);
    }
}

/* Everything is made anew and gives what it gave; what is left of before frees nothing of now. */
static void test_reset(void **state)
{
    struct check *check = *state;
    struct kern_ctx *ctx = alone(check);
    struct kern_graph *graph = NULL;
    struct steps s, kept;
    struct memos_error err;
    float want[T * K], got[T * K];
    uint64_t seed = check->state;
    steps_make(check, ctx, &s);
    kept = s;
    assert_true(kern_graph_begin(ctx));
    steps_run(ctx, &s);
    assert_int_equal(kern_graph_end(ctx, &graph, NULL), MEMOS_OK);
    steps_run(ctx, &s);
    s.up = s.down = NULL;
    steps_free(ctx, &s, want);
    if (kern_reset(ctx, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    check->state = seed;
    steps_make(check, ctx, &s);
    kern_matrix_free(&kept.up);
    kern_matrix_free(&kept.down);
    kern_graph_free(&graph);
    steps_run(ctx, &s);
    steps_free(ctx, &s, got);
    assert_memory_equal(got, want, sizeof got);
    kern_ctx_destroy(&ctx);
}

/* The device is lost: everything says so and does nothing, all can be released, and a reset works
 * or says that the process must be started again. */
static void test_lost_device(void **state)
{
    struct check *check = *state;
    struct kern_ctx *ctx = alone(check);
    struct kern_graph *graph = NULL;
    struct memos_error err;
    struct steps s;
    float got[T * K];
    void *memory = NULL;
    steps_make(check, ctx, &s);
    steps_run(ctx, &s);
    check_done(ctx);
    struct kern_linear wrong = {.x = s.x, .w = s.up, .y = (void *)(uintptr_t)64, .t = T};
    kern_linear(ctx, &wrong);
    assert_int_equal(kern_sync(ctx, &err), MEMOS_IO);
    print_message("%s\n", err.text);
    assert_int_equal(kern_sync(ctx, &err), MEMOS_IO);
    assert_true(kern_graph_begin(ctx));
    steps_run(ctx, &s); /* does nothing */
    assert_int_equal(kern_graph_end(ctx, &graph, &err), MEMOS_IO);
    assert_null(graph);
    assert_int_equal(kern_download(ctx, got, s.copy, sizeof got, &err), MEMOS_IO);
    assert_int_equal(kern_alloc(ctx, 4096, &memory, &err), MEMOS_IO);
    steps_forget(ctx, &s);
    if (kern_reset(ctx, &err) == MEMOS_OK) {
        steps_make(check, ctx, &s);
        steps_run(ctx, &s);
        check_done(ctx);
        steps_free(ctx, &s, got);
    } else {
        print_message("%s\n", err.text);
        assert_int_equal(err.status, MEMOS_IO);
        assert_non_null(strstr(err.text, "start it again"));
        assert_int_equal(kern_alloc(ctx, 4096, &memory, &err), MEMOS_IO);
        assert_int_equal(kern_sync(ctx, &err), MEMOS_IO);
    }
    kern_ctx_destroy(&ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products), cmocka_unit_test(test_large_products),
        cmocka_unit_test(test_rows_alone), cmocka_unit_test(test_graph),
        cmocka_unit_test(test_nothing_leaks),
        cmocka_unit_test(test_reset), /* takes the device from all others */
        cmocka_unit_test(test_passing_error),
        cmocka_unit_test(test_lost_device), /* perhaps for good */
    };
    const size_t planted = check_sanitizing() ? 2 : 0;
    const struct kern_options options = {.backend = "cuda", .threads = 1};
    struct kern_ctx *ctx = NULL;
    struct memos_error err;
    if (kern_ctx_create(&options, &ctx, &err) != MEMOS_OK) {
        printf("skipped: %s\n", err.text);
        return 77;
    }
    kern_ctx_destroy(&ctx);
    return _cmocka_run_group_tests("kernels/device", tests, sizeof tests / sizeof *tests - planted,
        check_setup_all, check_teardown);
}
