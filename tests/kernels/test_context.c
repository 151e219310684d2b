/* Contexts, their threads, and that nothing is allocated while something is computed.
 *
 * If these failed, a broker would hang in the middle of a question, compute some rows twice and
 * some never, or run out of memory where it cannot say so. Under the thread sanitizer this is also
 * the proof that the pool's handing over is one. */
#include "kernels/kern.h"
#include "tests/kernels/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- counted allocation -------------------------------------------------------------------- */

static _Atomic size_t allocations;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);

void *__wrap_malloc(size_t size)
{
    allocations++;
    return __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    allocations++;
    return __real_calloc(count, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    allocations++;
    return __real_aligned_alloc(alignment, size);
}

static void run_all(struct kern_ctx *ctx, const struct kern_matrix *w, float *x, float *y,
    void *workspace, size_t t, size_t k)
{
    const uint32_t starts[] = {0, (uint32_t)t / 2, (uint32_t)t};
    struct kern_linear a = {.x = x, .w = w, .y = y, .t = t, .workspace = workspace};
    kern_linear(ctx, &a);
    struct kern_encode_attention attention = {.qkv = y,
        .starts = starts,
        .sequences = 2,
        .heads = 1,
        .head_dim = k,
        .scale = 1,
        .out = x,
        .workspace = workspace};
    kern_encode_attention(ctx, &attention);
    kern_layernorm(ctx, x, y, y, 1e-5F, x, t, k);
    kern_pool_mean(ctx, x, starts, 2, y, k);
    kern_pool_cls(ctx, x, starts, 2, y, k);
    kern_normalize(ctx, x, t, k);
    kern_from_f32(KERN_E4M3, x, workspace, t * k);
    kern_scan(KERN_E4M3, workspace, NULL, t, k, x, y);
}

static void test_nothing_is_allocated(void **state)
{
    struct check *check = *state;
    static const enum kern_dtype dtypes[] = {KERN_F32, KERN_BF16, KERN_I8};
    enum { T = 130, K = 40 };
    static float x[T * K], y[T * 3 * K], weights[3 * K * K];
    for (size_t i = 0; i < (size_t)T * K; i++) {
        x[i] = check_float(check);
    }
    for (size_t i = 0; i < (size_t)3 * K * K; i++) {
        weights[i] = check_float(check) / 8;
    }
    for (size_t i = 0; i < check->contexts_count; i++) {
        for (size_t d = 0; d < 3; d++) {
            struct kern_ctx *ctx = check->contexts[i];
            struct kern_matrix *w = NULL;
            assert_int_equal(
                kern_matrix_pack(ctx, dtypes[d], KERN_F32, weights, (size_t)3 * K, K, &w, NULL),
                MEMOS_OK);
            void *workspace = aligned_alloc(256, 1 << 20);
            assert_true(kern_linear_workspace_bytes(ctx, w, T) <= 1 << 20);
            assert_true(kern_encode_attention_workspace_bytes(ctx, T, K) <= 1 << 20);
            size_t before = allocations;
            run_all(ctx, w, x, y, workspace, T, K);
            assert_int_equal(allocations, before);
            free(workspace);
            kern_matrix_free(&w);
            assert_true(allocations > 0); /* that they are counted at all */
        }
    }
}

/* ---- creation ------------------------------------------------------------------------------ */

static void test_create(void **state)
{
    (void)state;
    struct kern_ctx *ctx = NULL;
    struct memos_error err;
    struct kern_options options = {0};
    assert_int_equal(kern_ctx_create(&options, &ctx, &err), MEMOS_OK);
    assert_true(kern_ctx_threads(ctx) >= 1);
    assert_true(strncmp(kern_ctx_name(ctx), "cpu/", 4) == 0);
    kern_ctx_destroy(&ctx);
    assert_null(ctx);
    kern_ctx_destroy(&ctx);

    options = (struct kern_options){.backend = "ref", .threads = 2};
    assert_int_equal(kern_ctx_create(&options, &ctx, &err), MEMOS_OK);
    assert_string_equal(kern_ctx_name(ctx), "ref, 2 threads");
    assert_int_equal(kern_ctx_threads(ctx), 2);
    kern_ctx_destroy(&ctx);

    options = (struct kern_options){.backend = "cpu", .level = "sse2", .threads = 1};
    assert_int_equal(kern_ctx_create(&options, &ctx, &err), MEMOS_OK);
    assert_string_equal(kern_ctx_name(ctx), "cpu/sse2, 1 thread");
    kern_ctx_destroy(&ctx);
}

static void test_create_refuses(void **state)
{
    (void)state;
    static const struct kern_options wrong[] = {
        {.backend = "gpu"},
        {.backend = "cpu", .level = "neon"},
        {.threads = 100000},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct kern_ctx *ctx = NULL;
        struct memos_error err;
        assert_int_equal(kern_ctx_create(&wrong[i], &ctx, &err), MEMOS_UNSUPPORTED);
        assert_null(ctx);
        assert_true(strlen(err.text) > 0);
    }
}

/* ---- the pool ------------------------------------------------------------------------------ */

struct counting {
    size_t *done; /* by index; a piece that is run by two threads is a race */
    size_t count;
};

static void count_piece(void *self, size_t index)
{
    struct counting *counting = self;
    assert_true(index < counting->count);
    counting->done[index]++;
}

/* Every piece once, in jobs of all sizes, one after the other without a pause. */
static void test_parallel(void **state)
{
    struct check *check = *state;
    enum { COUNT_MAX = 40, ROUNDS = 3000 };
    for (unsigned threads = 1; threads <= 5; threads++) {
        struct kern_options options = {.threads = threads};
        struct kern_ctx *ctx = NULL;
        size_t done[COUNT_MAX] = {0}, want[COUNT_MAX] = {0};
        assert_int_equal(kern_ctx_create(&options, &ctx, NULL), MEMOS_OK);
        for (size_t i = 0; i < ROUNDS; i++) {
            struct counting counting = {done, check_size(check, 0, COUNT_MAX)};
            kern_parallel(ctx, counting.count, count_piece, &counting);
            for (size_t at = 0; at < counting.count; at++) {
                want[at]++;
            }
        }
        assert_memory_equal(done, want, sizeof done);
        kern_ctx_destroy(&ctx);
    }
}

static void wait_piece(void *self, size_t index)
{
    _Atomic size_t *arrived = self;
    (void)index;
    arrived[0]++;
    while (arrived[0] % 2 != 0) { /* until the other thread has come, too */
    }
}

/* Two pieces that wait for each other end only when a second thread takes one: workers do come,
 * also after they went to sleep. */
static void test_workers_come(void **state)
{
    (void)state;
    struct kern_options options = {.threads = 2};
    struct kern_ctx *ctx = NULL;
    _Atomic size_t arrived = 0;
    assert_int_equal(kern_ctx_create(&options, &ctx, NULL), MEMOS_OK);
    for (size_t round = 0; round < 20; round++) {
        kern_parallel(ctx, 2, wait_piece, &arrived);
        for (volatile size_t i = 0; i < 300000 && round % 2; i++) { /* they fall asleep */
        }
    }
    assert_int_equal(arrived, 40);
    kern_ctx_destroy(&ctx);
}

/* Contexts that come and go, used at once or never: threads that begin when the end has come must
 * see it, or a process hangs as it closes a model. */
static void test_short_lives(void **state)
{
    (void)state;
    for (size_t i = 0; i < 400; i++) {
        struct kern_options options = {.threads = i % 4 < 2 ? 3 : 32};
        struct kern_ctx *ctx = NULL;
        size_t done[4] = {0};
        struct counting counting = {done, 4};
        assert_int_equal(kern_ctx_create(&options, &ctx, NULL), MEMOS_OK);
        if (i % 2) {
            kern_parallel(ctx, 4, count_piece, &counting);
            assert_true(done[0] == 1 && done[3] == 1);
        }
        kern_ctx_destroy(&ctx);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_allocated),
        cmocka_unit_test(test_create),
        cmocka_unit_test(test_create_refuses),
        cmocka_unit_test(test_parallel),
        cmocka_unit_test(test_workers_come),
        cmocka_unit_test(test_short_lives),
    };
    return cmocka_run_group_tests_name("kernels/context", tests, check_setup, check_teardown);
}
