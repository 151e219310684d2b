/* Products beside OpenBLAS and oneDNN, the products of a language model beside reading their
 * weights, the forward pass of a small encoder, and scans beside a plain read of the same memory.
 */
#include "kernels/kern.h"
#include "tests/bench/bench.h"
#include "tests/bench/gemm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 2
#define ROUNDS_MAX 41
#define NAME_BYTES 64

static char names[BENCH_ROWS_MAX][NAME_BYTES];

/* The name of the next row, kept. */
static const char *name_of(
    const struct bench *bench, const char *what, size_t t, size_t n, size_t k)
{
    char *name = names[bench->rows_count];
    (void)snprintf(name, NAME_BYTES, "%s t %zu (%zu, %zu)", what, t, n, k);
    return name;
}

static float *random_floats(size_t count, uint64_t *state)
{
    float *out = aligned_alloc(64, (count * sizeof *out + 63) / 64 * 64);
    if (!out) {
        bench_fail("no memory for %zu floats", count);
    }
    for (size_t i = 0; i < count; i++) {
        out[i] = (float)(bench_next(state) >> 40) / (float)(1 << 23) - 1.0F;
    }
    return out;
}

static void *workspace_of(size_t bytes)
{
    void *out = aligned_alloc(256, bytes / 256 * 256 + 256);
    if (!out) {
        bench_fail("no memory for a workspace of %zu bytes", bytes);
    }
    return out;
}

/* ---- products ------------------------------------------------------------------------------ */

static const struct shape {
    size_t n, k;
} shapes[] = {{1152, 384}, {384, 384}, {1536, 384}, {384, 1536}};
static const size_t heights[] = {8, 64, 512, 2048};
static const enum kern_dtype dtypes[] = {KERN_F32, KERN_BF16, KERN_I8};

struct ours {
    struct kern_ctx *ctx;
    struct kern_linear a;
};

static void run_ours(void *self)
{
    struct ours *ours = self;
    kern_linear(ours->ctx, &ours->a);
}

static void run_gemm(void *self)
{
    gemm_run(self);
}

/* Median times of a and b (may be NULL: 0), in turns. Each turn is some milliseconds long, and runs
 * once unmeasured: the threads of the other library spin for a while after its last call. */
static void race(const struct bench *bench, double flop, void (*a)(void *), void *a_self,
    void (*b)(void *), void *b_self, double out[2])
{
    void (*const runs[])(void *) = {a, b};
    void *const selves[] = {a_self, b_self};
    int64_t times[2][ROUNDS_MAX];
    size_t rounds = bench->quick ? 7 : 21, calls = (size_t)(2e8 / flop) + 1;
    for (size_t round = 0; round <= rounds; round++) {
        for (size_t i = 0; i < 2 && selves[i]; i++) {
            int64_t start = 0;
            for (size_t call = 0; call < 2 * calls; call++) {
                start = call == calls ? bench_now_ns() : start;
                runs[i](selves[i]);
            }
            times[i][round > 0 ? round - 1 : 0] = bench_now_ns() - start;
        }
    }
    for (size_t i = 0; i < 2; i++) {
        out[i] = selves[i] ? bench_percentile(times[i], rounds, 50) / (double)calls : 0;
    }
}

static void product_row(struct bench *bench, struct ours *ours, struct gemm *gemm,
    enum kern_dtype dtype, struct shape shape, const char *rival, double bar)
{
    double flop = 2.0 * (double)ours->a.t * (double)shape.n * (double)shape.k, times[2];
    if (!gemm) {
        return;
    }
    race(bench, flop, run_ours, ours, run_gemm, gemm, times);
    bench_add(
        bench, (struct bench_row){
                   .name = name_of(bench, kern_dtype_name(dtype), ours->a.t, shape.n, shape.k),
                   .value = flop / times[0],
                   .unit = "GFLOP/s",
                   .limit = flop / times[1],
                   .limit_name = rival,
                   .bar = bar,
                   .higher_is_better = true,
               });
}

static void bench_product(
    struct bench *bench, struct kern_ctx *ctx, enum kern_dtype dtype, struct shape shape, size_t t)
{
    uint64_t state = 1;
    float *x = random_floats(t * shape.k, &state), *w = random_floats(shape.n * shape.k, &state);
    float *y = random_floats(t * shape.n, &state);
    struct kern_matrix *packed = NULL;
    struct memos_error err;
    bench_check(
        kern_matrix_pack(ctx, dtype, KERN_F32, w, shape.n, shape.k, &packed, &err), &err, "pack");
    void *workspace = workspace_of(kern_linear_workspace_bytes(ctx, packed, t));
    struct ours ours = {ctx, {.x = x, .w = packed, .y = y, .t = t, .workspace = workspace}};
    struct gemm *blas = gemm_openblas(x, w, t, shape.n, shape.k);
    struct gemm *dnn = gemm_onednn(dtype, x, w, t, shape.n, shape.k);
    double least = dtype == KERN_F32 && t > 64 ? 0.9 : 1.0;
    product_row(bench, &ours, blas, dtype, shape, "OpenBLAS sgemm", least);
    product_row(bench, &ours, dnn, dtype, shape,
        dtype == KERN_F32    ? "oneDNN f32"
        : dtype == KERN_BF16 ? "oneDNN bf16"
                             : "oneDNN int8",
        least);
    gemm_free(&blas);
    gemm_free(&dnn);
    kern_matrix_free(&packed);
    free(workspace);
    free(x);
    free(w);
    free(y);
}

/* ---- a language model ---------------------------------------------------------------------- */

/* Those of Llama-3.2-1B: gate and up, query key and value. Weights are some copies of one matrix,
 * more than any cache, so that each product finds its own in memory; a decoding step does nothing
 * else. */
static const struct shape model_shapes[] = {{8192, 2048}, {3072, 2048}};
static const size_t model_heights[] = {1, 16, 512};
static const enum kern_dtype model_dtypes[] = {
    KERN_BF16, KERN_I8, KERN_Q8_0, KERN_Q4_0, KERN_Q4_K, KERN_Q6_K};
enum { COPIES_MAX = 64, COPIES_BYTES = 256 << 20, READ_PIECES = 64 };

struct model {
    struct ours ours;
    struct kern_matrix *copies[COPIES_MAX];
    size_t copies_count;
    const char *memory; /* as many bytes as the copies have */
    size_t bytes;
    uint64_t sums[READ_PIECES];
};

static void run_model(void *self)
{
    struct model *m = self;
    for (size_t i = 0; i < m->copies_count; i++) {
        m->ours.a.w = m->copies[i];
        kern_linear(m->ours.ctx, &m->ours.a);
    }
}

static void read_piece(void *self, size_t index)
{
    struct model *m = self;
    size_t words = m->bytes / READ_PIECES / 8;
    const uint64_t *at = (const uint64_t *)(const void *)m->memory + index * words;
    uint64_t sums[8] = {0};
    for (size_t i = 0; i + 8 <= words; i += 8) {
        for (size_t lane = 0; lane < 8; lane++) {
            sums[lane] += at[i + lane];
        }
    }
    m->sums[index] = sums[0] ^ sums[1] ^ sums[2] ^ sums[3] ^ sums[4] ^ sums[5] ^ sums[6] ^ sums[7];
}

static void read_model(void *self)
{
    struct model *m = self;
    kern_parallel(m->ours.ctx, READ_PIECES, read_piece, m);
}

/* Rows as a file of that type has them; int8 is made of bf16. */
static void model_pack(struct model *m, enum kern_dtype dtype, struct shape shape)
{
    enum kern_dtype from = dtype == KERN_I8 ? KERN_BF16 : dtype;
    size_t bytes = shape.n * kern_dtype_row_bytes(from, shape.k);
    uint16_t *rows = bench_memory(bytes / 2, 2);
    uint64_t state = 1;
    struct memos_error err;
    for (size_t i = 0; i < bytes / 2; i++) {
        rows[i] = (uint16_t)(bench_next(&state) & 0xbf3f); /* small in bf16, and finite in f16 */
    }
    for (size_t i = 0; i < COPIES_MAX && (i == 0 || m->bytes < COPIES_BYTES); i++) {
        bench_check(
            kern_matrix_pack(m->ours.ctx, dtype, from, rows, shape.n, shape.k, &m->copies[i], &err),
            &err, "pack");
        m->copies_count = i + 1;
        m->bytes += kern_matrix_bytes(m->copies[i]);
    }
    free(rows);
}

/* Of a decoding step, the bytes of the weights beside a read of as many; of a prompt, GFLOP/s
 * beside OpenBLAS. */
static void model_row(struct bench *bench, struct model *m, enum kern_dtype dtype,
    struct shape shape, struct gemm *blas)
{
    double times[2], flop = 2.0 * (double)(m->ours.a.t * shape.n * shape.k);
    struct bench_row row = {
        .name = name_of(bench, kern_dtype_name(dtype), m->ours.a.t, shape.n, shape.k),
        .higher_is_better = true};
    if (m->ours.a.t == 1) {
        race(bench, 2e8, run_model, m, read_model, m, times);
        row.value = (double)m->bytes / times[0];
        row.limit = (double)m->bytes / times[1];
        row.unit = "GB/s";
        row.limit_name = "reading as much, two threads";
        row.bar = 0.9;
    } else {
        m->ours.a.w = m->copies[0];
        race(bench, flop, run_ours, &m->ours, blas ? run_gemm : NULL, blas, times);
        row.value = flop / times[0];
        row.limit = times[1] > 0 ? flop / times[1] : 0;
        row.unit = "GFLOP/s";
        row.limit_name = "OpenBLAS sgemm";
        row.bar = 1;
    }
    bench_add(bench, row);
}

static void bench_model(
    struct bench *bench, struct kern_ctx *ctx, enum kern_dtype dtype, struct shape shape)
{
    struct model m = {.ours = {.ctx = ctx}};
    uint64_t state = 2;
    size_t most = model_heights[sizeof model_heights / sizeof *model_heights - 1];
    model_pack(&m, dtype, shape);
    float *x = random_floats(most * shape.k, &state), *y = random_floats(most * shape.n, &state);
    float *w = random_floats(shape.n * shape.k, &state);
    void *workspace = workspace_of(kern_linear_workspace_bytes(ctx, m.copies[0], most));
    char *memory = workspace_of(m.bytes);
    memset(memory, 1, m.bytes);
    m.memory = memory;
    for (size_t i = 0; i < sizeof model_heights / sizeof *model_heights; i++) {
        size_t t = model_heights[i];
        struct gemm *blas = t > 1 ? gemm_openblas(x, w, t, shape.n, shape.k) : NULL;
        m.ours.a = (struct kern_linear){.x = x, .y = y, .t = t, .workspace = workspace};
        model_row(bench, &m, dtype, shape, blas);
        gemm_free(&blas);
    }
    for (size_t i = 0; i < m.copies_count; i++) {
        kern_matrix_free(&m.copies[i]);
    }
    free(memory);
    free(workspace);
    free(w);
    free(x);
    free(y);
}

/* ---- an encoder ---------------------------------------------------------------------------- */

/* MiniLM-L6: what a question of some words costs. Weights are random: times do not depend on them,
 * and no two layers share theirs, since 42 MB do not fit the cache that 7 MB fit. */
enum { LAYERS = 6, HEADS = 12, HEAD_DIM = 32, WIDTH = 384, INNER = 1536, TOKENS_MAX = 256 };

struct encoder {
    struct kern_ctx *ctx;
    struct kern_matrix *weights[LAYERS][4];
    float *ones, *x, *qkv, *mixed, *inner;
    void *workspace;
    uint32_t starts[2];
};

static void linear(struct encoder *e, const float *x, const struct kern_matrix *w,
    const float *residual, float *y, enum kern_activation act)
{
    struct kern_linear a = {.x = x,
        .w = w,
        .bias = e->ones,
        .residual = residual,
        .y = y,
        .t = e->starts[1],
        .act = act,
        .workspace = e->workspace};
    kern_linear(e->ctx, &a);
}

static void run_encoder(void *self)
{
    struct encoder *e = self;
    size_t t = e->starts[1];
    for (size_t i = 0; i < LAYERS; i++) {
        linear(e, e->x, e->weights[i][0], NULL, e->qkv, KERN_NONE);
        struct kern_encode_attention a = {.qkv = e->qkv,
            .starts = e->starts,
            .sequences = 1,
            .heads = HEADS,
            .head_dim = HEAD_DIM,
            .scale = 0.2F,
            .out = e->mixed,
            .workspace = e->workspace};
        kern_encode_attention(e->ctx, &a);
        linear(e, e->mixed, e->weights[i][1], e->x, e->x, KERN_NONE);
        kern_layernorm(e->ctx, e->x, e->ones, e->ones, 1e-12F, e->x, t, WIDTH);
        linear(e, e->x, e->weights[i][2], NULL, e->inner, KERN_GELU);
        linear(e, e->inner, e->weights[i][3], e->x, e->x, KERN_NONE);
        kern_layernorm(e->ctx, e->x, e->ones, e->ones, 1e-12F, e->x, t, WIDTH);
    }
}

static void encoder_open(struct encoder *e, struct kern_ctx *ctx, enum kern_dtype dtype)
{
    static const struct shape order[4] = {{1152, 384}, {384, 384}, {1536, 384}, {384, 1536}};
    uint64_t state = 1;
    size_t room = kern_encode_attention_workspace_bytes(ctx, TOKENS_MAX, HEAD_DIM);
    float *w = random_floats((size_t)INNER * WIDTH, &state);
    struct memos_error err;
    *e = (struct encoder){.ctx = ctx};
    for (size_t i = 0; i < (size_t)LAYERS * 4; i++) {
        struct kern_matrix **to = &e->weights[i / 4][i % 4];
        bench_check(
            kern_matrix_pack(ctx, dtype, KERN_F32, w, order[i % 4].n, order[i % 4].k, to, &err),
            &err, "pack");
        size_t bytes = kern_linear_workspace_bytes(ctx, *to, TOKENS_MAX);
        room = bytes > room ? bytes : room;
    }
    free(w);
    e->ones = random_floats(INNER, &state);
    e->x = random_floats((size_t)TOKENS_MAX * WIDTH, &state);
    e->qkv = random_floats((size_t)TOKENS_MAX * 3 * WIDTH, &state);
    e->mixed = random_floats((size_t)TOKENS_MAX * WIDTH, &state);
    e->inner = random_floats((size_t)TOKENS_MAX * INNER, &state);
    e->workspace = workspace_of(room);
}

static void encoder_close(struct encoder *e)
{
    for (size_t i = 0; i < (size_t)LAYERS * 4; i++) {
        kern_matrix_free(&e->weights[i / 4][i % 4]);
    }
    free(e->ones);
    free(e->x);
    free(e->qkv);
    free(e->mixed);
    free(e->inner);
    free(e->workspace);
}

static void bench_encoder(struct bench *bench, struct kern_ctx *ctx, enum kern_dtype dtype)
{
    struct encoder e;
    double times[2];
    encoder_open(&e, ctx, dtype);
    for (uint32_t t = 12; t <= TOKENS_MAX; t = t == 12 ? TOKENS_MAX : TOKENS_MAX + 1) {
        e.starts[1] = t;
        race(bench, 2e7, run_encoder, &e, NULL, NULL, times);
        char *name = names[bench->rows_count];
        (void)snprintf(
            name, NAME_BYTES, "encoder of 6 layers, %s, %u tokens", kern_dtype_name(dtype), t);
        bench_add(bench, (struct bench_row){
                             .name = name,
                             .value = times[0] / 1e6,
                             .unit = "ms",
                             .limit = t == 12 ? 2.0 : 0,
                             .limit_name = "the target",
                             .bar = 1.0,
                         });
    }
    encoder_close(&e);
}

/* ---- scans --------------------------------------------------------------------------------- */

struct scan {
    enum kern_dtype dtype;
    void *codes;
    size_t rows, k;
    const float *query;
    float *scores;
};

static void run_scan(void *self)
{
    struct scan *s = self;
    kern_scan(s->dtype, s->codes, NULL, s->rows, s->k, s->query, s->scores);
}

/* Sum the same bytes, by words. */
static void run_read(void *self)
{
    struct scan *s = self;
    const uint64_t *words = s->codes;
    size_t count = s->rows * s->k * kern_dtype_bytes(s->dtype) / 8;
    uint64_t sums[8] = {0};
    for (size_t i = 0; i + 8 <= count; i += 8) {
        for (size_t lane = 0; lane < 8; lane++) {
            sums[lane] += words[i + lane];
        }
    }
    s->scores[0] =
        (float)(sums[0] ^ sums[1] ^ sums[2] ^ sums[3] ^ sums[4] ^ sums[5] ^ sums[6] ^ sums[7]);
}

static void bench_scan(struct bench *bench, enum kern_dtype dtype)
{
    uint64_t state = 1;
    struct scan s = {.dtype = dtype, .rows = 100000, .k = 384};
    size_t count = s.rows * s.k, bytes = count * kern_dtype_bytes(dtype);
    float *from = random_floats(count, &state);
    double times[2];
    s.query = from;
    s.codes = workspace_of(bytes);
    s.scores = random_floats(s.rows, &state);
    if (dtype == KERN_I8) {
        memcpy(s.codes, from, bytes);
    } else {
        kern_from_f32(dtype, from, s.codes, count);
    }
    race(bench, 1e8, run_scan, &s, run_read, &s, times);
    char *name = names[bench->rows_count];
    (void)snprintf(name, NAME_BYTES, "scan of 100,000 x 384, %s", kern_dtype_name(dtype));
    bench_add(bench, (struct bench_row){
                         .name = name,
                         .value = (double)bytes / times[0],
                         .unit = "GB/s",
                         .limit = (double)bytes / times[1],
                         .limit_name = "a plain read, one thread",
                         .bar = 0.67,
                         .higher_is_better = true,
                     });
    free(from);
    free(s.codes);
    free(s.scores);
}

int main(int argc, char **argv)
{
    static const enum kern_dtype scanned[] = {
        KERN_E4M3, KERN_E5M2, KERN_I8, KERN_F16, KERN_BF16, KERN_F32};
    const struct kern_options options = {.level = getenv("MEMOS_BENCH_LEVEL"), .threads = THREADS};
    struct kern_ctx *ctx = NULL;
    struct memos_error err;
    struct bench bench;

    bench_begin(&bench, "bench_kernels", argc, argv);
    bench_check(kern_ctx_create(&options, &ctx, &err), &err, "kernels");
    bench_say("%s", kern_ctx_name(ctx));
    size_t step = bench.quick ? 2 : 1; /* of shapes and heights */
    for (size_t d = 0; d < 3; d++) {
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s += step) {
            for (size_t t = 0; t < sizeof heights / sizeof *heights; t += step) {
                bench_product(&bench, ctx, dtypes[d], shapes[s], heights[t]);
            }
        }
        bench_encoder(&bench, ctx, dtypes[d]);
    }
    for (size_t d = 0; d < sizeof model_dtypes / sizeof *model_dtypes; d++) {
        for (size_t s = 0; s < 2; s += step) {
            bench_model(&bench, ctx, model_dtypes[d], model_shapes[s]);
        }
    }
    for (size_t i = 0; i < sizeof scanned / sizeof *scanned; i++) {
        bench_scan(&bench, scanned[i]);
    }
    kern_ctx_destroy(&ctx);
    return bench_end(&bench);
}
