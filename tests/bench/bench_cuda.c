/* What a decoder does beside its products, on a GPU, at the shapes of a model of 8 billion weights:
 * beside the bandwidth of a large copy, or, for attention of a prompt, the rate of a large bf16
 * product, both measured in the same run.
 *
 * Each operation is recorded several times in a graph, over as much memory as does not fit the
 * second cache. Numbers are random. */
#include "kernels/decoder.h"
#include "tests/bench/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS 15
#define WHAT_BYTES 48
#define NAME_BYTES 384 /* whatever a number comes to */
#define CACHE_BYTES ((size_t)160 << 20)

enum { HEADS = 32, KV_HEADS = 8, HEAD_DIM = 128, WIDTH = 4096, INNER = 14336, VOCAB = 128256 };

static char names[BENCH_ROWS_MAX][NAME_BYTES];

struct device {
    struct kern_ctx *ctx;
    double bandwidth, rate; /* bytes, operations a second */
};

static void *allocate(struct kern_ctx *ctx, size_t bytes)
{
    struct memos_error err;
    void *out = NULL;
    bench_check(kern_alloc(ctx, bytes > 0 ? bytes : 1, &out, &err), &err, "device memory");
    return out;
}

static void *upload(struct kern_ctx *ctx, const void *from, size_t bytes)
{
    void *out = allocate(ctx, bytes);
    kern_upload(ctx, out, from, bytes);
    return out;
}

/* count random numbers of -1 .. 1 in device memory. */
static void *random_numbers(struct kern_ctx *ctx, enum kern_dtype dtype, size_t count)
{
    size_t some = count < (1U << 20) ? count : 1U << 20, bytes = kern_dtype_bytes(dtype);
    float *from = bench_memory(some, sizeof *from);
    char *out = allocate(ctx, count * bytes), *converted = bench_memory(some, sizeof *from);
    uint64_t state = count;
    for (size_t i = 0; i < some; i++) {
        from[i] = (float)(bench_next(&state) >> 40) / (float)(1 << 23) - 1.0F;
    }
    kern_from_f32(dtype, from, converted, some);
    for (size_t at = 0; at < count; at += some) {
        size_t n = count - at < some ? count - at : some;
        kern_upload(ctx, out + at * bytes, converted, n * bytes);
    }
    free(from);
    free(converted);
    return out;
}

/* Seconds of one of `calls` runs of run(self, i) that are recorded together: the median. */
static double time_of(
    struct kern_ctx *ctx, size_t calls, void (*run)(void *self, size_t i), void *self)
{
    int64_t times[ROUNDS];
    struct kern_graph *graph = NULL;
    struct memos_error err;
    run(self, 0);
    bench_check(kern_sync(ctx, &err), &err, "the device");
    if (!kern_graph_begin(ctx)) {
        bench_fail("%s does not record", kern_ctx_name(ctx));
    }
    for (size_t i = 0; i < calls; i++) {
        run(self, i);
    }
    bench_check(kern_graph_end(ctx, &graph, &err), &err, "recording");
    for (size_t i = 0; i < ROUNDS + 2; i++) {
        bench_check(kern_sync(ctx, &err), &err, "the device");
        int64_t start = bench_now_ns();
        kern_graph_run(ctx, graph);
        bench_check(kern_sync(ctx, &err), &err, "the device");
        times[i < 2 ? 0 : i - 2] = bench_now_ns() - start;
    }
    kern_graph_free(&graph);
    return bench_percentile(times, ROUNDS, 50) / 1e9 / (double)calls;
}

static void add_bytes(struct bench *bench, const struct device *device, const char *what,
    double bytes, double seconds)
{
    char *name = names[bench->rows_count];
    (void)snprintf(name, NAME_BYTES, "%s %.1f us", what, seconds * 1e6);
    bench_add(bench, (struct bench_row){.name = name,
                         .value = bytes / seconds / 1e9,
                         .unit = "GB/s",
                         .limit = device->bandwidth / 1e9,
                         .limit_name = "copy",
                         .bar = 0.8,
                         .higher_is_better = true});
}

static void add_rate(struct bench *bench, const struct device *device, const char *what,
    double operations, double seconds)
{
    char *name = names[bench->rows_count];
    (void)snprintf(name, NAME_BYTES, "%s %.1f us", what, seconds * 1e6);
    bench_add(bench, (struct bench_row){.name = name,
                         .value = operations / seconds / 1e12,
                         .unit = "TFLOP/s",
                         .limit = device->rate / 1e12,
                         .limit_name = "the large product",
                         .bar = 0.4,
                         .higher_is_better = true});
}

/* ---- ceilings ------------------------------------------------------------------------------ */

struct copying {
    struct kern_ctx *ctx;
    char *memory;
    size_t bytes;
};

static void run_copy(void *self, size_t i)
{
    struct copying *c = self;
    char *low = c->memory, *high = low + c->bytes;
    kern_copy(c->ctx, i % 2 ? high : low, i % 2 ? low : high, c->bytes);
}

struct product {
    struct kern_ctx *ctx;
    struct kern_linear a;
};

static void run_product(void *self, size_t i)
{
    struct product *p = self;
    (void)i;
    kern_linear(p->ctx, &p->a);
}

static void ceilings(struct bench *bench, struct device *device)
{
    struct kern_ctx *ctx = device->ctx;
    struct copying c = {ctx, random_numbers(ctx, KERN_F32, (size_t)1 << 28), (size_t)1 << 29};
    device->bandwidth = 2.0 * (double)c.bytes / time_of(ctx, 4, run_copy, &c);
    void *memory = c.memory;
    kern_release(ctx, &memory);

    const size_t n = 8192;
    struct kern_matrix *w = NULL;
    struct memos_error err;
    uint64_t state = 1;
    uint16_t *weights = bench_memory(n * n, sizeof *weights);
    for (size_t i = 0; i < n * n; i++) {
        float value = (float)(bench_next(&state) >> 40) / (float)(1 << 23) - 1.0F;
        kern_from_f32(KERN_BF16, &value, &weights[i], 1);
    }
    bench_check(
        kern_matrix_pack(ctx, KERN_BF16, KERN_BF16, weights, n, n, &w, &err), &err, "weights");
    free(weights);
    void *x = random_numbers(ctx, KERN_BF16, n * n), *y = allocate(ctx, n * n * 2);
    void *room = allocate(ctx, kern_linear_workspace_bytes(ctx, w, n));
    struct product p = {ctx, {.x = x,
                                 .w = w,
                                 .y = y,
                                 .t = n,
                                 .x_dtype = KERN_BF16,
                                 .y_dtype = KERN_BF16,
                                 .workspace = room}};
    device->rate = 2.0 * pow((double)n, 3) / time_of(ctx, 2, run_product, &p);
    kern_matrix_free(&w);
    kern_release(ctx, &x);
    kern_release(ctx, &y);
    kern_release(ctx, &room);
    bench_add(bench, (struct bench_row){.name = "copy of 512 MiB, read and written",
                         .value = device->bandwidth / 1e9,
                         .unit = "GB/s",
                         .higher_is_better = true});
    bench_add(bench, (struct bench_row){.name = "bf16 product of 8192 x 8192 x 8192",
                         .value = device->rate / 1e12,
                         .unit = "TFLOP/s",
                         .higher_is_better = true});
}

/* ---- rows ---------------------------------------------------------------------------------- */

/* T rows through the operations between the products. */
struct rows {
    struct kern_ctx *ctx;
    size_t t;
    float *x, *gamma, *cos, *sin;
    void *half, *gate_up, *gated, *table;
    uint32_t *positions, *ids;
    struct kern_rope rope;
};

static void run_rmsnorm(void *self, size_t i)
{
    struct rows *r = self;
    (void)i;
    kern_rmsnorm(r->ctx, &(struct kern_rmsnorm){.x = r->x,
                             .gamma = r->gamma,
                             .y = r->half,
                             .rows = r->t,
                             .heads = 1,
                             .k = WIDTH,
                             .x_stride = WIDTH,
                             .y_stride = WIDTH,
                             .y_dtype = KERN_BF16,
                             .eps = 1e-5F});
}

static void run_silu_mul(void *self, size_t i)
{
    struct rows *r = self;
    (void)i;
    kern_silu_mul(r->ctx, &(struct kern_silu_mul){.gate_up = r->gate_up,
                              .y = r->gated,
                              .t = r->t,
                              .inner = INNER,
                              .x_dtype = KERN_BF16,
                              .y_dtype = KERN_BF16});
}

static void run_rotate(void *self, size_t i)
{
    struct rows *r = self;
    (void)i;
    kern_rotate(r->ctx, &(struct kern_rotate){.rope = &r->rope,
                            .x = r->x,
                            .positions = r->positions,
                            .t = r->t,
                            .heads = HEADS,
                            .head_dim = HEAD_DIM,
                            .stride = WIDTH});
}

static void run_gather(void *self, size_t i)
{
    struct rows *r = self;
    (void)i;
    kern_gather(r->ctx, &(struct kern_gather){.table = r->table,
                            .dtype = KERN_BF16,
                            .ids = r->ids,
                            .y = r->x,
                            .t = r->t,
                            .k = WIDTH});
}

static void rows(struct bench *bench, const struct device *device, size_t t)
{
    struct kern_ctx *ctx = device->ctx;
    uint32_t *numbers = bench_memory(t, sizeof *numbers);
    uint64_t state = 1;
    char name[WHAT_BYTES];
    for (size_t i = 0; i < t; i++) {
        numbers[i] = (uint32_t)(bench_next(&state) % 4096);
    }
    struct rows r = {.ctx = ctx, .t = t};
    r.x = random_numbers(ctx, KERN_F32, t * WIDTH);
    r.gamma = random_numbers(ctx, KERN_F32, WIDTH);
    r.cos = random_numbers(ctx, KERN_F32, 4096 * HEAD_DIM / 2);
    r.sin = random_numbers(ctx, KERN_F32, 4096 * HEAD_DIM / 2);
    r.half = allocate(ctx, t * WIDTH * 2);
    r.gate_up = random_numbers(ctx, KERN_BF16, t * 2 * INNER);
    r.gated = allocate(ctx, t * INNER * 2);
    r.table = random_numbers(ctx, KERN_BF16, (size_t)4096 * WIDTH);
    r.positions = upload(ctx, numbers, t * sizeof *numbers);
    r.ids = upload(ctx, numbers, t * sizeof *numbers);
    r.rope = (struct kern_rope){r.cos, r.sin, HEAD_DIM, 4096};
    double count = (double)t * WIDTH;
    (void)snprintf(name, sizeof name, "rmsnorm t %zu", t);
    add_bytes(bench, device, name, count * 6, time_of(ctx, 8, run_rmsnorm, &r));
    (void)snprintf(name, sizeof name, "silu_mul t %zu", t);
    add_bytes(bench, device, name, (double)t * INNER * 6, time_of(ctx, 8, run_silu_mul, &r));
    (void)snprintf(name, sizeof name, "rotate t %zu", t);
    add_bytes(bench, device, name, count * 8, time_of(ctx, 8, run_rotate, &r));
    (void)snprintf(name, sizeof name, "gather t %zu", t);
    add_bytes(bench, device, name, count * 6, time_of(ctx, 8, run_gather, &r));
    free(numbers);
    void *all[] = {
        r.x, r.gamma, r.cos, r.sin, r.half, r.gate_up, r.gated, r.table, r.positions, r.ids};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        kern_release(ctx, &all[i]);
    }
}

/* ---- the cache ----------------------------------------------------------------------------- */

/* A step of B sequences of `length` tokens, `rows` of them new; `copies` of it over other pages. */
struct step {
    struct kern_ctx *ctx;
    size_t sequences, length, rows, copies, table;
    struct kern_kv kv;
    struct kern_attention a;
    struct kern_kv_write write;
    uint32_t *tables; /* (copies, sequences, table) */
};

static void run_attention(void *self, size_t i)
{
    struct step *s = self;
    struct kern_attention a = s->a;
    a.tables = s->tables + i % s->copies * s->sequences * s->table;
    kern_attention(s->ctx, &a);
}

static void run_kv_write(void *self, size_t i)
{
    struct step *s = self;
    (void)i;
    kern_kv_write(s->ctx, &s->write);
}

/* Fill all pages with random numbers. */
static void fill(struct step *s)
{
    size_t t = 8192, width = KV_HEADS * HEAD_DIM;
    uint32_t *slots = bench_memory(t, sizeof *slots);
    void *key = random_numbers(s->ctx, KERN_F32, t * width);
    void *value = random_numbers(s->ctx, KERN_F32, t * width);
    void *device_slots = allocate(s->ctx, t * sizeof *slots);
    for (size_t at = 0; at < s->kv.pages_count * KERN_PAGE_TOKENS; at += t) {
        for (size_t i = 0; i < t; i++) {
            bool real = at + i < s->kv.pages_count * KERN_PAGE_TOKENS;
            slots[i] = real ? (uint32_t)(at + i) : KERN_NO_SLOT;
        }
        kern_upload(s->ctx, device_slots, slots, t * sizeof *slots);
        s->write = (struct kern_kv_write){.kv = &s->kv,
            .key = key,
            .value = value,
            .from = KERN_F32,
            .slots = device_slots,
            .t = t,
            .stride = width};
        kern_kv_write(s->ctx, &s->write);
    }
    bench_check(kern_sync(s->ctx, NULL), NULL, "the cache");
    kern_release(s->ctx, &key);
    kern_release(s->ctx, &value);
    kern_release(s->ctx, &device_slots);
    free(slots);
}

static void make_step(struct step *s, enum kern_dtype dtype)
{
    struct kern_ctx *ctx = s->ctx;
    size_t page = kern_kv_page_bytes(dtype, KV_HEADS, HEAD_DIM), t = s->sequences * s->rows;
    uint64_t state = 3;
    s->table = (s->length + KERN_PAGE_TOKENS - 1) / KERN_PAGE_TOKENS;
    s->copies = 1 + CACHE_BYTES / (s->sequences * s->table * page);
    size_t pages = s->copies * s->sequences * s->table;
    uint32_t *numbers = bench_memory(pages + s->sequences + 1, sizeof *numbers);
    s->kv = (struct kern_kv){allocate(ctx, pages * page), pages, KV_HEADS, HEAD_DIM, dtype};
    fill(s);
    for (size_t i = 0; i < pages; i++) {
        size_t j = bench_next(&state) % (i + 1);
        numbers[i] = numbers[j];
        numbers[j] = (uint32_t)i;
    }
    s->tables = upload(ctx, numbers, pages * sizeof *numbers);
    for (size_t i = 0; i <= s->sequences; i++) {
        numbers[i] = (uint32_t)(i * s->rows);
    }
    void *starts = upload(ctx, numbers, (s->sequences + 1) * sizeof *numbers);
    for (size_t i = 0; i < s->sequences; i++) {
        numbers[i] = (uint32_t)s->length;
    }
    s->a = (struct kern_attention){.query = random_numbers(ctx, KERN_F32, t * WIDTH),
        .kv = &s->kv,
        .starts = starts,
        .lengths = upload(ctx, numbers, s->sequences * sizeof *numbers),
        .t = t,
        .sequences = s->sequences,
        .heads = HEADS,
        .query_stride = WIDTH,
        .tables_stride = s->table,
        .rows_max = s->rows,
        .length_max = s->length,
        .scale = 1 / sqrtf(HEAD_DIM),
        .out = allocate(ctx, t * WIDTH * 2),
        .out_dtype = KERN_BF16,
        .workspace = allocate(ctx, kern_attention_workspace_bytes(ctx, t, s->sequences, HEADS,
                                       KV_HEADS, HEAD_DIM, s->length))};
    free(numbers);
}

static void free_step(struct step *s)
{
    void *all[] = {s->kv.pages, s->tables, (void *)s->a.query, (void *)s->a.starts,
        (void *)s->a.lengths, s->a.out, s->a.workspace};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        kern_release(s->ctx, &all[i]);
    }
}

static void decode(struct bench *bench, const struct device *device, enum kern_dtype dtype,
    size_t sequences, size_t length)
{
    struct step s = {.ctx = device->ctx, .sequences = sequences, .length = length, .rows = 1};
    char name[WHAT_BYTES];
    make_step(&s, dtype);
    double seconds = time_of(s.ctx, s.copies < 8 ? 8 : s.copies, run_attention, &s);
    double bytes = (double)(sequences * length * 2 * KV_HEADS * HEAD_DIM * kern_dtype_bytes(dtype));
    (void)snprintf(
        name, sizeof name, "decode %s b %zu l %zu", kern_dtype_name(dtype), sequences, length);
    add_bytes(bench, device, name, bytes, seconds);
    free_step(&s);
}

static void prefill(struct bench *bench, const struct device *device, enum kern_dtype dtype,
    size_t new_rows, size_t length)
{
    struct step s = {.ctx = device->ctx, .sequences = 1, .length = length, .rows = new_rows};
    char name[WHAT_BYTES];
    make_step(&s, dtype);
    double seconds = time_of(s.ctx, 4, run_attention, &s);
    double seen = (double)new_rows * ((double)length - ((double)new_rows - 1) / 2);
    (void)snprintf(
        name, sizeof name, "prefill %s t %zu l %zu", kern_dtype_name(dtype), new_rows, length);
    add_rate(bench, device, name, 4.0 * HEAD_DIM * HEADS * seen, seconds);
    free_step(&s);
}

static void cache(struct bench *bench, const struct device *device, enum kern_dtype dtype)
{
    struct kern_ctx *ctx = device->ctx;
    struct step s = {.ctx = ctx, .sequences = 1, .length = 4096, .rows = 1};
    size_t t = 4096, width = KV_HEADS * HEAD_DIM;
    uint32_t *slots = bench_memory(t, sizeof *slots);
    char name[WHAT_BYTES];
    make_step(&s, dtype);
    for (size_t i = 0; i < t; i++) {
        slots[i] = (uint32_t)i;
    }
    void *key = random_numbers(ctx, KERN_F32, 2 * t * width), *cos, *sin;
    void *device_slots = upload(ctx, slots, t * sizeof *slots);
    cos = random_numbers(ctx, KERN_F32, t * HEAD_DIM / 2);
    sin = random_numbers(ctx, KERN_F32, t * HEAD_DIM / 2);
    struct kern_rope rope = {cos, sin, HEAD_DIM, t};
    s.write = (struct kern_kv_write){.kv = &s.kv,
        .rope = &rope,
        .key = key,
        .value = (float *)key + width,
        .from = KERN_F32,
        .positions = device_slots,
        .slots = device_slots,
        .t = t,
        .stride = 2 * width};
    double bytes = (double)(2 * t * width * (4 + kern_dtype_bytes(dtype)));
    (void)snprintf(name, sizeof name, "kv_write %s t %zu", kern_dtype_name(dtype), t);
    add_bytes(bench, device, name, bytes, time_of(ctx, 8, run_kv_write, &s));
    free(slots);
    kern_release(ctx, &key);
    kern_release(ctx, &cos);
    kern_release(ctx, &sin);
    kern_release(ctx, &device_slots);
    free_step(&s);
}

/* ---- sampling ------------------------------------------------------------------------------ */

struct draws {
    struct kern_ctx *ctx;
    struct kern_sample a;
};

static void run_sample(void *self, size_t i)
{
    struct draws *d = self;
    (void)i;
    kern_sample(d->ctx, &d->a);
}

static void run_logprobs(void *self, size_t i)
{
    struct draws *d = self;
    (void)i;
    kern_logprobs(d->ctx, d->a.logits, d->a.out_ids, d->a.rows_count, VOCAB, d->a.out_logprobs);
}

static void sample(struct bench *bench, const struct device *device, size_t rows_count, bool greedy)
{
    struct kern_ctx *ctx = device->ctx;
    struct kern_sample_row *how = bench_memory(rows_count, sizeof *how);
    char name[WHAT_BYTES];
    for (size_t i = 0; i < rows_count; i++) {
        how[i] = (struct kern_sample_row){.temperature = greedy ? 0 : 0.8F,
            .top_p = greedy ? 1 : 0.95F,
            .top_k = greedy ? 0 : 50,
            .repetition = 1,
            .draw = 0.5F};
    }
    struct draws d = {
        ctx, {.logits = random_numbers(ctx, KERN_F32, rows_count * VOCAB),
                 .rows = upload(ctx, how, rows_count * sizeof *how),
                 .rows_count = rows_count,
                 .vocab = VOCAB,
                 .out_ids = allocate(ctx, rows_count * 4),
                 .out_logprobs = allocate(ctx, rows_count * 4),
                 .workspace = allocate(ctx, kern_sample_workspace_bytes(ctx, rows_count, VOCAB))}};
    double bytes = (double)rows_count * VOCAB * 4;
    (void)snprintf(name, sizeof name, "sample%s b %zu", greedy ? " greedy" : "", rows_count);
    add_bytes(bench, device, name, bytes, time_of(ctx, 8, run_sample, &d));
    if (greedy) {
        (void)snprintf(name, sizeof name, "logprobs b %zu", rows_count);
        add_bytes(bench, device, name, bytes, time_of(ctx, 8, run_logprobs, &d));
    }
    free(how);
    void *all[] = {d.a.logits, (void *)d.a.rows, d.a.out_ids, d.a.out_logprobs, d.a.workspace};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        kern_release(ctx, &all[i]);
    }
}

int main(int argc, char **argv)
{
    static const enum kern_dtype types[] = {KERN_BF16, KERN_F16, KERN_E4M3};
    const struct kern_options options = {.backend = "cuda"};
    struct device device = {0};
    struct bench bench;
    struct memos_error err;
    bench_begin(&bench, "cuda", argc, argv);
    bench_check(kern_ctx_create(&options, &device.ctx, &err), &err, "a GPU");
    bench_say("%s", kern_ctx_name(device.ctx));
    ceilings(&bench, &device);
    rows(&bench, &device, 4096);
    rows(&bench, &device, 1);
    for (size_t i = 0; i < 3; i++) {
        cache(&bench, &device, types[i]);
        prefill(&bench, &device, types[i], 4096, 4096);
        prefill(&bench, &device, types[i], 64, 32768);
        decode(&bench, &device, types[i], 1, 1024);
        decode(&bench, &device, types[i], 1, 8192);
        decode(&bench, &device, types[i], 1, 32768);
        decode(&bench, &device, types[i], 16, 2048);
        decode(&bench, &device, types[i], 64, 4096);
    }
    sample(&bench, &device, 1, true);
    sample(&bench, &device, 64, true);
    sample(&bench, &device, 1, false);
    sample(&bench, &device, 64, false);
    kern_ctx_destroy(&device.ctx);
    return bench_end(&bench);
}
