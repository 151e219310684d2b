/* Products on a GPU beside what it can do: with few rows of x the bandwidth of a large copy in the
 * same run, with many the rate of a large product.
 *
 * Shapes are those of a model of 8 billion weights. Each is run from a recorded graph, over as many
 * matrices as do not fit the second cache together. */
#include "kernels/kern.h"
#include "tests/bench/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS 15
#define COPIES_MAX 24
#define LAUNCHES 24 /* of a graph: its own start and end are not the product's */
#define PART_ROWS 1024
#define NAME_BYTES 64
#define CACHE_BYTES ((size_t)160 << 20)

static char names[BENCH_ROWS_MAX][NAME_BYTES];

struct device {
    struct kern_ctx *ctx;
    void *weights; /* PART_ROWS rows of the longest K in any type, in host memory */
    double bandwidth, rate;
};

static void *allocate(struct kern_ctx *ctx, size_t bytes)
{
    struct memos_error err;
    void *out = NULL;
    bench_check(kern_alloc(ctx, bytes, &out, &err), &err, "device memory");
    return out;
}

/* Seconds that the graph takes: the median. */
static double time_graph(struct kern_ctx *ctx, struct kern_graph *graph)
{
    int64_t times[ROUNDS];
    struct memos_error err;
    for (size_t i = 0; i < ROUNDS + 2; i++) {
        bench_check(kern_sync(ctx, &err), &err, "the device");
        int64_t start = bench_now_ns();
        kern_graph_run(ctx, graph);
        bench_check(kern_sync(ctx, &err), &err, "the device");
        times[i < 2 ? 0 : i - 2] = bench_now_ns() - start;
    }
    return bench_percentile(times, ROUNDS, 50) / 1e9;
}

static struct kern_graph *record_end(struct kern_ctx *ctx)
{
    struct kern_graph *graph = NULL;
    struct memos_error err;
    bench_check(kern_graph_end(ctx, &graph, &err), &err, "recording");
    return graph;
}

static void begin(struct kern_ctx *ctx)
{
    if (!kern_graph_begin(ctx)) {
        bench_fail("%s does not record", kern_ctx_name(ctx));
    }
}

/* Random numbers of the type: bf16 of -1 .. 1, or blocks with scales of about 1/64. */
static void make_weights(void *out, enum kern_dtype dtype, size_t count)
{
    uint64_t state = 7;
    unsigned char *bytes = out;
    size_t block = kern_dtype_block(dtype), unit = kern_dtype_row_bytes(dtype, block);
    for (size_t i = 0; i < count / block; i++) {
        if (block == 1) {
            float value = (float)(bench_next(&state) >> 40) / (float)(1 << 23) - 1.0F;
            kern_from_f32(dtype, &value, bytes + i * unit, 1);
            continue;
        }
        for (size_t b = 0; b < unit; b++) {
            bytes[i * unit + b] = (unsigned char)bench_next(&state);
        }
        const uint16_t scale = 0x2400;
        memcpy(bytes + i * unit, &scale, sizeof scale);
    }
}

struct shape {
    size_t n, k;
};

static struct kern_matrix *pack(
    struct device *device, enum kern_dtype to, enum kern_dtype from, struct shape s)
{
    struct kern_part parts[256];
    struct kern_matrix *out = NULL;
    struct memos_error err;
    size_t count = 0;
    for (size_t n = 0; n < s.n; n += PART_ROWS) {
        parts[count].from = from;
        parts[count].data = device->weights;
        parts[count++].n = s.n - n < PART_ROWS ? s.n - n : PART_ROWS;
    }
    bench_check(
        kern_matrix_pack_parts(device->ctx, to, parts, count, s.k, &out, &err), &err, "weights");
    return out;
}

/* ---- ceilings ------------------------------------------------------------------------------ */

static void ceilings(struct bench *bench, struct device *device)
{
    size_t bytes = (size_t)1 << 30;
    char *memory = allocate(device->ctx, 2 * bytes);
    void *freed = memory;
    kern_fill(device->ctx, memory, 0x5a, 2 * bytes);
    begin(device->ctx);
    for (int i = 0; i < 4; i++) {
        kern_copy(device->ctx, memory + (i % 2 ? bytes : 0), memory + (i % 2 ? 0 : bytes), bytes);
    }
    struct kern_graph *graph = record_end(device->ctx);
    device->bandwidth = 8.0 * (double)bytes / time_graph(device->ctx, graph);
    kern_graph_free(&graph);
    for (int i = 0; i < ROUNDS; i++) { /* the same unrecorded: the better of both counts */
        struct memos_error err;
        int64_t start = bench_now_ns();
        for (int j = 0; j < 8; j++) {
            kern_copy(
                device->ctx, memory + (j % 2 ? bytes : 0), memory + (j % 2 ? 0 : bytes), bytes);
        }
        bench_check(kern_sync(device->ctx, &err), &err, "the device");
        double rate = 16.0 * (double)bytes / ((double)(bench_now_ns() - start) / 1e9);
        device->bandwidth = rate > device->bandwidth ? rate : device->bandwidth;
    }
    kern_release(device->ctx, &freed);
    bench_add(bench, (struct bench_row){.name = "copy of 1 GiB, read and written",
                         .value = device->bandwidth / 1e9,
                         .unit = "GB/s",
                         .higher_is_better = true});
}

/* ---- products ------------------------------------------------------------------------------ */

/* Seconds of one product. */
static double time_product(
    struct device *device, enum kern_dtype dtype, struct kern_matrix **w, size_t copies, size_t t)
{
    struct kern_ctx *ctx = device->ctx;
    size_t n, k, room = kern_linear_workspace_bytes(ctx, w[0], t);
    kern_matrix_shape(w[0], &n, &k);
    enum kern_dtype x_dtype = dtype == KERN_BF16 ? KERN_BF16 : KERN_F32;
    void *x = allocate(ctx, t * k * 4), *y = allocate(ctx, t * n * 4),
         *workspace = allocate(ctx, room);
    size_t count = t * k, bytes = kern_dtype_bytes(x_dtype);
    float *numbers = bench_memory(count, sizeof *numbers);
    void *converted = bench_memory(count, sizeof *numbers);
    uint64_t state = 3;
    for (size_t i = 0; i < count; i++) {
        numbers[i] = (float)(bench_next(&state) >> 40) / (float)(1 << 23) - 1.0F;
    }
    kern_from_f32(x_dtype, numbers, converted, count);
    kern_upload(ctx, x, converted, count * bytes);
    struct kern_linear a = {
        .x = x, .y = y, .t = t, .x_dtype = x_dtype, .workspace = room > 0 ? workspace : NULL};
    a.w = w[0];
    kern_linear(ctx, &a); /* plans are made outside of the recording */
    begin(ctx);
    for (size_t i = 0; i < LAUNCHES; i++) {
        a.w = w[i % copies];
        kern_linear(ctx, &a);
    }
    struct kern_graph *graph = record_end(ctx);
    double seconds = time_graph(ctx, graph) / LAUNCHES;
    kern_graph_free(&graph);
    free(numbers);
    free(converted);
    kern_release(ctx, &x);
    kern_release(ctx, &y);
    kern_release(ctx, &workspace);
    return seconds;
}

/* Beside what the device can do: read the weights, x and y once, or multiply, whatever takes
 * longer. */
static void add(struct bench *bench, struct device *device, enum kern_dtype dtype, struct shape s,
    size_t t, size_t bytes, double seconds)
{
    char *name = names[bench->rows_count];
    double work = 2.0 * (double)t * (double)s.n * (double)s.k;
    double moved = (double)bytes + (double)t * (2.0 * (double)s.k + 4.0 * (double)s.n);
    bool many = work / device->rate > moved / device->bandwidth;
    (void)snprintf(name, NAME_BYTES, "%s t %zu (%zu, %zu) %.1f us", kern_dtype_name(dtype), t, s.n,
        s.k, seconds * 1e6);
    bench_add(bench, (struct bench_row){.name = name,
                         .value = many ? work / seconds / 1e12 : moved / seconds / 1e9,
                         .unit = many ? "TFLOP/s" : "GB/s",
                         .limit = many ? device->rate / 1e12 : device->bandwidth / 1e9,
                         .limit_name = many ? "the large product" : "copy",
                         .bar = many ? 0.6 : 0.9,
                         .higher_is_better = true});
}

static void products(struct bench *bench, struct device *device, enum kern_dtype dtype,
    struct shape s, const size_t *ts, size_t ts_count)
{
    struct kern_matrix *w[COPIES_MAX];
    enum kern_dtype from = dtype == KERN_I8 ? KERN_BF16 : dtype;
    size_t copies = 0;
    make_weights(device->weights, from, PART_ROWS * s.k);
    do {
        w[copies++] = pack(device, dtype, from, s);
    } while (copies < COPIES_MAX && copies * kern_matrix_bytes(w[0]) < CACHE_BYTES);
    for (size_t i = 0; i < ts_count; i++) {
        double seconds = time_product(device, dtype, w, copies, ts[i]);
        add(bench, device, dtype, s, ts[i], kern_matrix_bytes(w[0]), seconds);
    }
    while (copies > 0) {
        kern_matrix_free(&w[--copies]);
    }
}

static void large_product(struct bench *bench, struct device *device)
{
    const struct shape s = {8192, 8192};
    struct kern_matrix *w;
    make_weights(device->weights, KERN_BF16, PART_ROWS * s.k);
    w = pack(device, KERN_BF16, KERN_BF16, s);
    device->rate = 2.0 * 8192 * 8192 * 8192 / time_product(device, KERN_BF16, &w, 1, 8192);
    kern_matrix_free(&w);
    bench_add(bench, (struct bench_row){.name = "bf16 product of 8192 x 8192 x 8192",
                         .value = device->rate / 1e12,
                         .unit = "TFLOP/s",
                         .higher_is_better = true});
}

int main(int argc, char **argv)
{
    static const struct shape shapes[] = {
        {4096, 4096}, {6144, 4096}, {4096, 14336}, {28672, 4096}, {128256, 4096}};
    static const enum kern_dtype codes[] = {KERN_I8, KERN_Q8_0, KERN_Q4_0};
    static const size_t few[] = {1, 4, 8, 16}, many[] = {64, 512, 4096}, some[] = {1, 8, 64, 512};
    const struct kern_options options = {.backend = "cuda"};
    struct device device = {.weights = NULL};
    struct bench bench;
    struct memos_error err;
    bench_begin(&bench, "device", argc, argv);
    bench_check(kern_ctx_create(&options, &device.ctx, &err), &err, "a GPU");
    bench_say("%s", kern_ctx_name(device.ctx));
    device.weights = bench_memory(PART_ROWS * 14336, 4);
    ceilings(&bench, &device);
    large_product(&bench, &device);
    for (size_t i = 0; i < 5 - (bench.quick ? 1U : 0U); i++) {
        products(&bench, &device, KERN_BF16, shapes[i], few, 4);
    }
    for (size_t i = 0; i < 4; i++) {
        products(&bench, &device, KERN_BF16, shapes[i], many, bench.quick ? 1 : 3);
    }
    for (size_t i = 0; i < 3; i++) {
        products(&bench, &device, codes[i], shapes[0], some, 4);
        products(&bench, &device, codes[i], shapes[2], some, 4);
        products(&bench, &device, codes[i], shapes[3], some, 4);
    }
    products(&bench, &device, KERN_F32, shapes[0], some, 4);
    free(device.weights);
    kern_ctx_destroy(&device.ctx);
    return bench_end(&bench);
}
