/* What a decoder does beside its products: attention over the paged cache, norms, gates, sampling;
 * beside a plain read of the same bytes and beside the rate of our float32 product, measured in
 * turns. */
#include "kernels/decoder.h"
#include "tests/bench/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 2
#define ROUNDS_MAX 31
#define NAME_BYTES 64

/* The heads of Llama-3.2-1B. */
enum { HEADS = 32, KV_HEADS = 8, HEAD_DIM = 64 };

static char names[BENCH_ROWS_MAX][NAME_BYTES];

static const char *named(
    const struct bench *bench, const char *what, enum kern_dtype dtype, size_t n)
{
    char *name = names[bench->rows_count];
    (void)snprintf(name, NAME_BYTES, "%s %zu, %s", what, n, kern_dtype_name(dtype));
    return name;
}

static void *memory(size_t bytes)
{
    void *out = aligned_alloc(256, (bytes + 256) / 256 * 256);
    if (!out) {
        bench_fail("no memory for %zu bytes", bytes);
    }
    return out;
}

static float *random_floats(size_t count)
{
    uint64_t state = 1;
    float *out = memory(count * sizeof *out);
    for (size_t i = 0; i < count; i++) {
        out[i] = (float)(bench_next(&state) >> 40) / (float)(1 << 23) - 1.0F;
    }
    return out;
}

/* Median times of a call of a and of b (may be NULL), in turns of some milliseconds. */
static void race(const struct bench *bench, size_t calls, void (*a)(void *), void (*b)(void *),
    void *self, double out[2])
{
    void (*const runs[])(void *) = {a, b};
    int64_t times[2][ROUNDS_MAX];
    size_t rounds = bench->quick ? 5 : ROUNDS_MAX;
    for (size_t round = 0; round < rounds; round++) {
        for (size_t i = 0; i < 2 && runs[i]; i++) {
            runs[i](self);
            int64_t start = bench_now_ns();
            for (size_t call = 0; call < calls; call++) {
                runs[i](self);
            }
            times[i][round] = bench_now_ns() - start;
        }
    }
    for (size_t i = 0; i < 2; i++) {
        out[i] = runs[i] ? bench_percentile(times[i], rounds, 50) / (double)calls : 0;
    }
}

/* ---- attention ----------------------------------------------------------------------------- */

/* Layers that are read one after the other, so that none is found in a cache. */
struct attention {
    struct kern_ctx *ctx;
    struct kern_kv kv;
    struct kern_attention a;
    char *pages;
    size_t layers, layer, layer_bytes;
    uint32_t starts[2], lengths[1];
    uint64_t sums[THREADS];
    struct kern_linear product;
};

static void run_attention(void *self)
{
    struct attention *at = self;
    at->kv.pages = at->pages + at->layer * at->layer_bytes;
    at->layer = (at->layer + 1) % at->layers;
    kern_attention(at->ctx, &at->a);
}

static void read_part(void *self, size_t index)
{
    struct attention *at = self;
    size_t words = at->layer_bytes / 8 / THREADS / 8 * 8;
    const uint64_t *from = (const uint64_t *)(void *)(at->pages + at->layer * at->layer_bytes);
    uint64_t sums[8] = {0};
    for (size_t i = index * words; i < (index + 1) * words; i += 8) {
        for (size_t lane = 0; lane < 8; lane++) {
            sums[lane] += from[i + lane];
        }
    }
    at->sums[index] = sums[0] ^ sums[1] ^ sums[2] ^ sums[3] ^ sums[4] ^ sums[5] ^ sums[6] ^ sums[7];
}

static void run_read(void *self)
{
    struct attention *at = self;
    at->layer = (at->layer + 1) % at->layers;
    kern_parallel(at->ctx, THREADS, read_part, at);
}

static void run_product(void *self)
{
    struct attention *at = self;
    kern_linear(at->ctx, &at->product);
}

/* `length` random tokens in each of the layers. */
static void fill_cache(struct attention *at, size_t length)
{
    float *rows = random_floats(length * KV_HEADS * HEAD_DIM);
    uint32_t *slots = memory(length * sizeof *slots);
    for (size_t i = 0; i < length; i++) {
        slots[i] = (uint32_t)i;
    }
    for (size_t layer = 0; layer < at->layers; layer++) {
        at->kv.pages = at->pages + layer * at->layer_bytes;
        struct kern_kv_write write = {.kv = &at->kv,
            .key = rows,
            .value = rows,
            .slots = slots,
            .t = length,
            .stride = (size_t)KV_HEADS * HEAD_DIM};
        kern_kv_write(at->ctx, &write);
    }
    free(rows);
    free(slots);
}

/* The last `rows` of `length` tokens. */
static void attention_open(struct attention *at, struct kern_ctx *ctx, enum kern_dtype dtype,
    size_t rows, size_t length, size_t layers)
{
    size_t pages = (length + KERN_PAGE_TOKENS - 1) / KERN_PAGE_TOKENS;
    uint32_t *tables = memory(pages * sizeof *tables);
    for (size_t i = 0; i < pages; i++) {
        tables[i] = (uint32_t)i;
    }
    *at = (struct attention){.ctx = ctx,
        .kv = {NULL, pages, KV_HEADS, HEAD_DIM, dtype},
        .layers = layers,
        .layer_bytes = pages * kern_kv_page_bytes(dtype, KV_HEADS, HEAD_DIM),
        .starts = {0, (uint32_t)rows},
        .lengths = {(uint32_t)length}};
    at->pages = memory(layers * at->layer_bytes);
    fill_cache(at, length);
    at->a = (struct kern_attention){.query = random_floats(rows * HEADS * HEAD_DIM),
        .kv = &at->kv,
        .starts = at->starts,
        .lengths = at->lengths,
        .tables = tables,
        .t = rows,
        .sequences = 1,
        .heads = HEADS,
        .query_stride = (size_t)HEADS * HEAD_DIM,
        .tables_stride = pages,
        .rows_max = rows,
        .length_max = length,
        .scale = 0.125F,
        .out = memory(rows * HEADS * HEAD_DIM * sizeof(float)),
        .workspace = memory(
            kern_attention_workspace_bytes(ctx, rows, 1, HEADS, KV_HEADS, HEAD_DIM, length))};
}

static void attention_close(struct attention *at)
{
    free(at->pages);
    free((void *)(uintptr_t)at->a.query);
    free((void *)(uintptr_t)at->a.tables);
    free(at->a.out);
    free(at->a.workspace);
}

static void bench_decoding(
    struct bench *bench, struct kern_ctx *ctx, enum kern_dtype dtype, size_t length)
{
    struct attention at;
    double times[2];
    attention_open(&at, ctx, dtype, 1, length, ((size_t)128 << 20) / (length * 4096) + 2);
    race(bench, 20, run_attention, run_read, &at, times);
    bench_add(bench, (struct bench_row){
                         .name = named(bench, "attention of one token to", dtype, length),
                         .value = (double)at.layer_bytes / times[0],
                         .unit = "GB/s",
                         .limit = (double)at.layer_bytes / times[1],
                         .limit_name = "a plain read, two threads",
                         .bar = 0.8,
                         .higher_is_better = true,
                     });
    attention_close(&at);
}

static void bench_prompt(struct bench *bench, struct kern_ctx *ctx, enum kern_dtype dtype,
    size_t length, const struct kern_matrix *w)
{
    struct attention at;
    double times[2], pairs = (double)length * ((double)length + 1) / 2;
    double flop = 4 * HEADS * HEAD_DIM * pairs;
    size_t n, k;
    attention_open(&at, ctx, dtype, length, length, 1);
    kern_matrix_shape(w, &n, &k);
    at.product = (struct kern_linear){.x = random_floats(512 * k),
        .w = w,
        .y = memory(512 * n * sizeof(float)),
        .t = 512,
        .act = KERN_NONE,
        .workspace = memory(kern_linear_workspace_bytes(ctx, w, 512))};
    race(bench, 1, run_attention, run_product, &at, times);
    bench_add(bench, (struct bench_row){
                         .name = named(bench, "attention of a prompt of", dtype, length),
                         .value = flop / times[0],
                         .unit = "GFLOP/s",
                         .limit = 2 * 512 * (double)n * (double)k / times[1],
                         .limit_name = "kern_linear, f32",
                         .bar = 0.6,
                         .higher_is_better = true,
                     });
    free((void *)(uintptr_t)at.product.x);
    free(at.product.y);
    free(at.product.workspace);
    attention_close(&at);
}

/* ---- rows ---------------------------------------------------------------------------------- */

struct rows {
    struct kern_ctx *ctx;
    float *x, *y, *gamma;
    size_t t, k;
};

static void run_rmsnorm(void *self)
{
    struct rows *r = self;
    struct kern_rmsnorm a = {.x = r->x,
        .gamma = r->gamma,
        .y = r->y,
        .rows = r->t,
        .k = r->k,
        .x_stride = r->k,
        .y_stride = r->k,
        .eps = 1e-5F};
    kern_rmsnorm(r->ctx, &a);
}

static void run_silu_mul(void *self)
{
    struct rows *r = self;
    struct kern_silu_mul a = {.gate_up = r->x, .y = r->y, .t = r->t, .inner = r->k / 2};
    kern_silu_mul(r->ctx, &a);
}

static void copy_row(void *self, size_t index)
{
    struct rows *r = self;
    memcpy(r->y + index * r->k, r->x + index * r->k, r->k * sizeof *r->y);
}

static void run_copy(void *self)
{
    struct rows *r = self;
    kern_parallel(r->ctx, r->t, copy_row, r);
}

static void bench_rows(struct bench *bench, struct kern_ctx *ctx)
{
    static const struct {
        const char *name;
        void (*run)(void *self);
        size_t k;
        double moved; /* numbers, for each of x */
    } ops[] = {{"rmsnorm of 512 rows of 2,048", run_rmsnorm, 2048, 2},
        {"silu_mul of 512 rows of 8,192", run_silu_mul, 16384, 1.5}};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        struct rows r = {.ctx = ctx, .t = 512, .k = ops[i].k};
        double times[2], count = (double)(r.t * r.k);
        r.x = random_floats(r.t * r.k);
        r.y = random_floats(r.t * r.k);
        r.gamma = random_floats(r.k);
        race(bench, 10, ops[i].run, run_copy, &r, times);
        bench_add(bench, (struct bench_row){
                             .name = ops[i].name,
                             .value = ops[i].moved * count * sizeof(float) / times[0],
                             .unit = "GB/s",
                             .limit = 2 * count * sizeof(float) / times[1],
                             .limit_name = "a copy, two threads",
                             .bar = 0.7,
                             .higher_is_better = true,
                         });
        free(r.x);
        free(r.y);
        free(r.gamma);
    }
}

/* ---- sampling ------------------------------------------------------------------------------ */

struct sampling {
    struct kern_ctx *ctx;
    struct kern_sample a;
    struct kern_sample_row row;
};

static void run_sample(void *self)
{
    struct sampling *s = self;
    kern_sample(s->ctx, &s->a);
}

static void bench_sample(
    struct bench *bench, struct kern_ctx *ctx, const char *name, struct kern_sample_row row)
{
    enum { VOCAB = 128256 };
    uint32_t id;
    float logprob;
    double times[2];
    struct sampling s = {.ctx = ctx, .row = row};
    float *logits = random_floats(VOCAB);
    for (size_t i = 0; i < VOCAB; i++) { /* near to normal: what a model's logits look like */
        logits[i] = 3 * atanhf(0.999F * logits[i]);
    }
    s.a = (struct kern_sample){.logits = logits,
        .rows = &s.row,
        .rows_count = 1,
        .vocab = VOCAB,
        .out_ids = &id,
        .out_logprobs = &logprob,
        .workspace = memory(kern_sample_workspace_bytes(ctx, 1, VOCAB))};
    race(bench, 5, run_sample, NULL, &s, times);
    bench_add(bench, (struct bench_row){
                         .name = name,
                         .value = times[0] / 1e6,
                         .unit = "ms",
                         .limit = 1,
                         .limit_name = "the target",
                         .bar = 1,
                     });
    free(logits);
    free(s.a.workspace);
}

int main(int argc, char **argv)
{
    static const enum kern_dtype dtypes[] = {KERN_F32, KERN_F16, KERN_BF16, KERN_E4M3};
    const struct kern_options options = {.level = getenv("MEMOS_BENCH_LEVEL"), .threads = THREADS};
    struct kern_ctx *ctx = NULL;
    struct kern_matrix *w = NULL;
    struct memos_error err;
    struct bench bench;

    bench_begin(&bench, "bench_decoder", argc, argv);
    bench_check(kern_ctx_create(&options, &ctx, &err), &err, "kernels");
    bench_say("%s", kern_ctx_name(ctx));
    float *weights = random_floats((size_t)2048 * 2048);
    bench_check(
        kern_matrix_pack(ctx, KERN_F32, KERN_F32, weights, 2048, 2048, &w, &err), &err, "pack");
    for (size_t i = 0; i < 4; i++) {
        bench_decoding(&bench, ctx, dtypes[i], 512);
        bench_decoding(&bench, ctx, dtypes[i], 4096);
    }
    for (size_t i = 0; i < 4; i++) {
        bench_prompt(&bench, ctx, dtypes[i], 512, w);
        bench_prompt(&bench, ctx, dtypes[i], 2048, w);
    }
    bench_rows(&bench, ctx);
    struct kern_sample_row row = {.top_p = 1, .repetition = 1, .draw = 0.7F};
    bench_sample(&bench, ctx, "greedy, 128,256 logits", row);
    row.temperature = 0.8F;
    bench_sample(&bench, ctx, "temperature 0.8", row);
    row.top_k = 50;
    bench_sample(&bench, ctx, "temperature 0.8, top_k 50", row);
    row.top_k = 0;
    row.top_p = 0.95F;
    bench_sample(&bench, ctx, "temperature 0.8, top_p 0.95", row);
    kern_matrix_free(&w);
    free(weights);
    kern_ctx_destroy(&ctx);
    return bench_end(&bench);
}
