/* Attention over the paged cache, on all levels, beside ref's.
 *
 * If these failed, an answer would depend on how its prompt was cut into steps or on who else asks
 * at the same time, or a sequence would read another's keys. */
#include "kernels/cpu/ops.h"
#include "kernels/decoder.h"
#include "kernels/kv.h"
#include "tests/kernels/check.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SEQUENCES_MAX 5
#define BOUND 3e-5      /* float32 sums and weights beside double */
#define BOUND_BF16 0.04 /* of the root mean square: a step of bf16 at four times it */
#define BOUND_CUDA 0.03 /* weights and values are rounded to bf16 before they are multiplied */

static const enum kern_dtype dtypes[] = {KERN_F32, KERN_F16, KERN_BF16, KERN_E4M3};

/* Sequences with their keys in a cache of shuffled pages. */
struct cache {
    struct kern_kv kv;
    size_t sequences, tables_stride;
    uint32_t lengths[SEQUENCES_MAX];
    uint32_t *tables;
    float *queries; /* of all tokens of all sequences: (sum of lengths, H D) */
    size_t heads;
};

struct shape {
    enum kern_dtype dtype;
    size_t kv_heads, group, head_dim, sequences, length_max;
};

static size_t first_of(const struct cache *cache, size_t b)
{
    size_t first = 0;
    for (size_t i = 0; i < b; i++) {
        first += cache->lengths[i];
    }
    return first;
}

/* Pages in a random order; what no token was written to holds ones, which are NaN. */
static void place_pages(struct check *check, struct cache *cache)
{
    size_t stride = cache->tables_stride, count = cache->sequences * stride;
    cache->tables = check_bytes(count * sizeof *cache->tables, 0);
    for (size_t i = 0; i < count; i++) {
        cache->tables[i] = (uint32_t)i;
    }
    for (size_t i = count; i-- > 1;) {
        size_t other = check_size(check, 0, i);
        uint32_t swapped = cache->tables[i];
        cache->tables[i] = cache->tables[other];
        cache->tables[other] = swapped;
    }
    cache->kv.pages_count = count;
    size_t bytes = count * kern_kv_page_bytes(cache->kv.dtype, cache->kv.heads, cache->kv.head_dim);
    cache->kv.pages = check_bytes(bytes, 0);
}

static void write_keys(struct check *check, struct cache *cache, size_t b)
{
    size_t length = cache->lengths[b], width = cache->kv.heads * cache->kv.head_dim;
    float *key = check_filled(check, length * width, 0);
    float *value = check_filled(check, length * width, 0);
    uint32_t *slots = check_bytes(length * sizeof *slots, 0);
    for (size_t i = 0; i < length; i++) {
        uint32_t page = cache->tables[b * cache->tables_stride + i / KERN_PAGE_TOKENS];
        slots[i] = page * KERN_PAGE_TOKENS + (uint32_t)(i % KERN_PAGE_TOKENS);
    }
    struct kern_kv_write write = {
        .kv = &cache->kv, .key = key, .value = value, .slots = slots, .t = length, .stride = width};
    kern_kv_write(check->contexts[0], &write);
    check_free(key);
    check_free(value);
    check_free(slots);
}

static struct cache cache_make(struct check *check, struct shape s)
{
    struct cache cache = {.kv = {.heads = s.kv_heads, .head_dim = s.head_dim, .dtype = s.dtype},
        .sequences = s.sequences,
        .heads = s.kv_heads * s.group,
        .tables_stride = s.length_max / KERN_PAGE_TOKENS + 1};
    for (size_t b = 0; b < s.sequences; b++) {
        cache.lengths[b] = (uint32_t)check_size(check, 1, s.length_max);
    }
    cache.lengths[0] = (uint32_t)s.length_max;
    place_pages(check, &cache);
    for (size_t b = 0; b < s.sequences; b++) {
        write_keys(check, &cache, b);
    }
    size_t total = first_of(&cache, s.sequences);
    cache.queries = check_filled(check, total * cache.heads * s.head_dim, 4);
    return cache;
}

static void cache_free(struct cache *cache)
{
    check_free(cache->kv.pages);
    check_free(cache->tables);
    check_free(cache->queries);
}

/* A step: `rows` of each sequence, which end at `ends` (0: not used, but rows it has). */
struct step {
    size_t rows[SEQUENCES_MAX], ends[SEQUENCES_MAX];
    size_t window;
    enum kern_dtype out_dtype;
};

static size_t step_rows(const struct cache *cache, const struct step *step)
{
    size_t rows = 0;
    for (size_t b = 0; b < cache->sequences; b++) {
        rows += step->rows[b];
    }
    return rows;
}

/* The step's queries, one after the other, with numbers between the rows that are not read. */
static float *step_queries(const struct cache *cache, const struct step *step, size_t stride)
{
    size_t width = cache->heads * cache->kv.head_dim;
    float *out = check_poisoned((step_rows(cache, step) + 2) * stride, 0), *at = out;
    for (size_t b = 0; b < cache->sequences; b++) {
        for (size_t i = 0; i < step->rows[b]; i++, at += stride) {
            size_t token = step->ends[b] > 0 ? step->ends[b] - step->rows[b] + i : 0;
            const float *from = cache->queries + (first_of(cache, b) + token) * width;
            memcpy(at, from, width * sizeof *at);
        }
    }
    return out;
}

/* out (rows + 2, H D) of the step as float32; the last two rows are nobody's and must stay. */
static float *run(struct kern_ctx *ctx, const struct cache *cache, const struct step *step)
{
    uint32_t *starts = check_bytes((SEQUENCES_MAX + 1) * sizeof *starts, 0);
    uint32_t *lengths = check_bytes(SEQUENCES_MAX * sizeof *lengths, 0);
    size_t rows = step_rows(cache, step), rows_max = 0, length_max = 1;
    size_t width = cache->heads * cache->kv.head_dim, stride = width + 24;
    enum kern_dtype out_dtype = step->out_dtype ? step->out_dtype : KERN_F32;
    starts[0] = 0;
    for (size_t b = 0; b < cache->sequences; b++) {
        starts[b + 1] = starts[b] + (uint32_t)step->rows[b];
        lengths[b] = (uint32_t)step->ends[b];
        rows_max = step->rows[b] > rows_max ? step->rows[b] : rows_max;
        length_max = lengths[b] > length_max ? lengths[b] : length_max;
    }
    float *query = step_queries(cache, step, stride);
    size_t bytes = kern_attention_workspace_bytes(ctx, rows + 2, cache->sequences, cache->heads,
        cache->kv.heads, cache->kv.head_dim, length_max);
    void *workspace = check_bytes(bytes, 0);
    char *raw = check_bytes((rows + 2) * width * kern_dtype_bytes(out_dtype), 32);
    struct kern_attention a = {.query = query,
        .kv = &cache->kv,
        .starts = starts,
        .lengths = lengths,
        .tables = cache->tables,
        .t = rows + 2,
        .sequences = cache->sequences,
        .heads = cache->heads,
        .query_stride = stride,
        .tables_stride = cache->tables_stride,
        .rows_max = rows_max,
        .length_max = length_max,
        .window = step->window,
        .scale = 1.3F / sqrtf((float)cache->kv.head_dim),
        .out = raw,
        .out_dtype = step->out_dtype,
        .workspace = workspace};
    kern_attention(ctx, &a);
    check_done(ctx);
    for (size_t i = 0; i < 2 * width * kern_dtype_bytes(out_dtype); i++) {
        assert_int_equal((uint8_t)raw[rows * width * kern_dtype_bytes(out_dtype) + i], 0xff);
    }
    float *out = check_poisoned(rows * width, 0);
    kern_to_f32(out_dtype, raw, out, rows * width);
    check_free(raw);
    check_free(workspace);
    check_free(query);
    check_free(starts);
    check_free(lengths);
    return out;
}

static double bound_of(
    const struct kern_ctx *ctx, const struct cache *cache, const struct step *step)
{
    double bound = !ctx->ops->device || cache->kv.dtype == KERN_F32 ? BOUND : BOUND_CUDA;
    return step->out_dtype == KERN_BF16 ? BOUND_BF16 : bound;
}

static void compare(struct check *check, const struct cache *cache, const struct step *step)
{
    size_t count = step_rows(cache, step) * cache->heads * cache->kv.head_dim;
    float *want = run(check->contexts[0], cache, step);
    for (size_t i = 1; i < check->contexts_count; i++) {
        float *got = run(check->contexts[i], cache, step);
        if (!check_close(want, got, count, bound_of(check->contexts[i], cache, step))) {
            fail_msg("%s: %s, H %zu, G %zu, D %zu, window %zu", kern_ctx_name(check->contexts[i]),
                kern_dtype_name(cache->kv.dtype), cache->heads, cache->kv.heads, cache->kv.head_dim,
                step->window);
        }
        check_free(got);
    }
    check_free(want);
}

static struct shape random_shape(struct check *check, size_t i)
{
    return (struct shape){dtypes[i % 4], check_size(check, 1, 3), check_size(check, 1, 7),
        8 * check_size(check, 1, i % 9 == 0 ? 32 : 12), check_size(check, 1, 3),
        check_size(check, 1, i % 3 == 0 ? 700 : 90)};
}

static void test_random_steps(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < 36; i++) {
        struct cache cache = cache_make(check, random_shape(check, i));
        struct step step = {.window = i % 4 == 1 ? check_size(check, 1, 300) : 0,
            .out_dtype = i % 5 == 0 ? KERN_BF16 : 0};
        for (size_t b = 0; b < cache.sequences; b++) {
            step.ends[b] = check_size(check, 1, cache.lengths[b]);
            step.rows[b] = check_size(check, 0, step.ends[b] < 40 ? step.ends[b] : 40);
        }
        compare(check, &cache, &step);
        cache_free(&cache);
    }
}

/* Whole prompts, as prefill has them. */
static void test_prompts(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < 4; i++) {
        struct cache cache = cache_make(check, (struct shape){dtypes[i], 1, 3, 40, 1, 310});
        struct step step = {.rows = {310}, .ends = {310}, .window = i % 2 == 0 ? 0 : 100};
        compare(check, &cache, &step);
        cache_free(&cache);
    }
}

/* Long, few heads: several threads share a sequence. */
static void test_long_decoding(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < 4; i++) {
        struct cache cache = cache_make(check, (struct shape){dtypes[i], 1, 3, 40, 2, 2100});
        struct step step = {.rows = {1, 1}, .ends = {2100, cache.lengths[1]}};
        compare(check, &cache, &step);
        step.window = 600;
        compare(check, &cache, &step);
        cache_free(&cache);
    }
}

/* A sequence that is not used has rows all the same: they become zeros. */
static void test_unused_sequences(void **state)
{
    struct check *check = *state;
    struct cache cache = cache_make(check, (struct shape){KERN_BF16, 2, 2, 16, 3, 60});
    struct step step = {.rows = {2, 3, 1}, .ends = {0, 0, 1}};
    for (size_t i = 0; i < check->contexts_count; i++) {
        float *out = run(check->contexts[i], &cache, &step);
        for (size_t k = 0; k < (size_t)5 * 4 * 16; k++) {
            assert_true(out[k] == 0);
        }
        assert_false(isnan(out[5 * 4 * 16]));
        check_free(out);
    }
    cache_free(&cache);
}

/* ---- to the bit ---------------------------------------------------------------------------- */

/* The whole of sequence 0 in one step is the same as in cuts of random sizes, and as its rows in a
 * step with other sequences. */
static void test_cuts_change_nothing(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < 12; i++) {
        struct cache cache =
            cache_make(check, (struct shape){dtypes[i % 4], 1 + i % 2, check_size(check, 1, 5),
                                  8 * check_size(check, 1, 9), 3, check_size(check, 1, 600)});
        size_t width = cache.heads * cache.kv.head_dim, length = cache.lengths[0];
        size_t window = i % 3 == 2 ? check_size(check, 1, 290) : 0;
        for (size_t c = 0; c < check->contexts_count; c++) {
            struct step whole = {.rows = {length}, .ends = {length}, .window = window};
            float *want = run(check->contexts[c], &cache, &whole);
            for (size_t done = 0, rows; done < length; done += rows) {
                rows = check_size(check, 1, i % 2 == 0 ? 200 : 9);
                rows = rows < length - done ? rows : length - done;
                struct step step = {.rows = {rows, 1}, .window = window};
                step.ends[0] = done + rows;
                step.ends[1] = check_size(check, 1, cache.lengths[1]);
                size_t short_one = cache.lengths[2] < 40 ? cache.lengths[2] : 40;
                step.rows[2] = step.ends[2] = check_size(check, 1, short_one);
                float *got = run(check->contexts[c], &cache, &step);
                if (!check->contexts[c]->ops->device) {
                    assert_memory_equal(got, want + done * width, rows * width * sizeof *got);
                } else {
                    assert_true(check_close(want + done * width, got, rows * width, BOUND_CUDA));
                }
                check_free(got);
                done = c == 0 ? length - rows : done; /* ref is slow and scalar: once */
            }
            check_free(want);
        }
        cache_free(&cache);
    }
}

/* Contexts of the same level with other numbers of threads. */
static void test_threads_change_nothing(void **state)
{
    struct check *check = *state;
    struct cache cache = cache_make(check, (struct shape){KERN_BF16, 1, 3, 72, 1, 1900});
    struct step step = {.rows = {1}, .ends = {1900}};
    for (size_t rows = 1; rows <= 40; rows += 13) {
        step.rows[0] = rows;
        for (size_t i = 2; i < check->contexts_count; i++) {
            struct kern_ctx *one = check->contexts[i - 1], *other = check->contexts[i];
            if (strncmp(kern_ctx_name(one), kern_ctx_name(other), 8) == 0) {
                float *want = run(one, &cache, &step), *got = run(other, &cache, &step);
                assert_memory_equal(want, got, rows * 3 * 72 * sizeof *got);
                check_free(want);
                check_free(got);
            }
        }
    }
    cache_free(&cache);
}

/* ---- the comparison itself ----------------------------------------------------------------- */

static const struct kern_attention_tiles *right;

/* Forgets the last key. */
static void wrong_mix(const struct kern_mix *a)
{
    struct kern_mix less = *a;
    less.count--;
    right->mix(&less);
}

/* Forgets the last eight numbers of queries. */
static void wrong_dots(const struct kern_dots *a)
{
    struct kern_dots less = *a;
    right->dots(&less);
    for (size_t r = 0; r < a->rows; r++) {
        for (size_t j = 0; j < a->count; j++) {
            for (size_t i = a->d - 8; i < a->d; i++) {
                a->scores[r * KERN_SCORES + j] -= a->queries[r * a->d + i] * a->keys[j * a->d + i];
            }
        }
    }
}

static void test_wrong_kernel_is_seen(void **state)
{
    struct check *check = *state;
    struct kern_ctx *ctx = NULL; /* the best that has them: not cuda */
    for (size_t i = 0; i < check->contexts_count; i++) {
        ctx = check->contexts[i]->ops->attention_tiles ? check->contexts[i] : ctx;
    }
    if (!ctx) {
        skip();
    }
    struct kern_ops ops = *ctx->ops;
    right = ops.attention_tiles;
    struct cache cache = cache_make(check, (struct shape){KERN_BF16, 2, 3, 64, 1, 300});
    struct step step = {.rows = {20}, .ends = {300}};
    struct kern_attention_tiles wrong[2] = {*right, *right};
    struct kern_ctx wrong_ctx = *ctx;
    size_t count = (size_t)20 * 6 * 64;
    wrong[0].mix = wrong_mix;
    wrong[1].dots = wrong_dots;
    wrong_ctx.ops = &ops;
    float *want = run(check->contexts[0], &cache, &step);
    for (size_t i = 0; i < 2; i++) {
        ops.attention_tiles = &wrong[i];
        float *bad = run(&wrong_ctx, &cache, &step);
        assert_false(check_close(want, bad, count, BOUND));
        check_free(bad);
    }
    check_free(want);
    cache_free(&cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_steps),
        cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_long_decoding),
        cmocka_unit_test(test_unused_sequences),
        cmocka_unit_test(test_cuts_change_nothing),
        cmocka_unit_test(test_threads_change_nothing),
        cmocka_unit_test(test_wrong_kernel_is_seen),
    };
    return cmocka_run_group_tests_name(
        "kernels/attention", tests, check_setup_copying, check_teardown);
}
