/* A text that was read once: how soon the first token comes when its keys and values are there, or
 * are brought, against reading the text again.
 *
 *     bench_fusion [--backend cpu|cuda] [--shape llama1b|qwen06b|llama8b] [--weights TYPE]
 *                  [--capture TYPE] [--threads N] [--longest TOKENS]
 *
 * Weights are random (random_model.h). Through the engine: the prompt is the whole text, of which
 * the last 32 tokens are always read. Captures are made once for each length and given other ids
 * for each round, so that the cache has not seen them. */
#include "paramem/engine.h"
#include "tests/bench/bench.h"
#include "tests/bench/random_model.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define NAME_BYTES 64
#define ROUNDS_MAX 5
#define FILE_TOKENS 8192 /* longer ones are not written to a file */
#define LENGTHS 7

struct options {
    const char *backend, *shape, *weights, *capture, *threads, *longest;
};

struct scene {
    struct bench *bench;
    struct kern_ctx *ctx;
    const struct random_shape *shape;
    struct paramem_model *model;
    struct paramem_engine *engine;
    enum kern_dtype dtype; /* of captures */
    size_t longest, rounds;
    bool on_cuda;
    uint64_t state;
    uint32_t *ids;
    void *pinned, *plain; /* room for the longest capture */
};

/* One length. Times in nanoseconds. */
struct length {
    size_t tokens;
    struct paramem_kv_cube cube; /* in scene->pinned */
    double read;
};

static int options_take(struct options *options, int argc, char **argv)
{
    const struct bench_option ours[] = {{"--backend", &options->backend},
        {"--shape", &options->shape}, {"--weights", &options->weights},
        {"--capture", &options->capture}, {"--threads", &options->threads},
        {"--longest", &options->longest}};
    return bench_options_take(ours, sizeof ours / sizeof ours[0], argc, argv);
}

/* A row that is better when it is lower; told at once too, for a run is long. */
static void row_add(struct scene *scene, size_t tokens, const char *what, double value,
    const char *unit, double limit, const char *limit_name, double bar)
{
    static char names[BENCH_ROWS_MAX][NAME_BYTES];
    struct bench *bench = scene->bench;
    char *name = names[bench->rows_count < BENCH_ROWS_MAX ? bench->rows_count : 0];
    (void)snprintf(name, NAME_BYTES, "%zu tokens: %s", tokens, what);
    bench_say("%s: %.3f %s (%s %.3f, ratio %.4f)", name, value, unit, limit > 0 ? limit_name : "-",
        limit, limit > 0 ? value / limit : 0.0);
    bench_add(bench, (struct bench_row){.name = name,
                         .value = value,
                         .unit = unit,
                         .limit = limit,
                         .limit_name = limit_name,
                         .bar = bar});
}

/* ---- an engine at work --------------------------------------------------------------------- */

struct heard {
    int64_t first_ns;
    size_t cached;
    bool done;
};

static void on_token(void *self, const struct paramem_token *token)
{
    struct heard *heard = self;
    (void)token;
    heard->first_ns = bench_now_ns();
}

static void on_done(void *self, const struct paramem_result *result)
{
    struct heard *heard = self;
    heard->cached = result->cached_tokens;
    heard->done = result->finish == PARAMEM_FINISH_LENGTH;
}

static void ids_anew(struct scene *scene, size_t tokens)
{
    for (size_t i = 0; i < tokens; i++) {
        scene->ids[i] = (uint32_t)(bench_next(&scene->state) % scene->shape->vocab);
    }
}

/* When the first token of an answer to ids came; of `cached` tokens nothing may be computed. */
static int64_t first_token(struct scene *scene, size_t tokens, size_t cached)
{
    struct memos_error err;
    struct heard heard = {0};
    uint64_t id;
    bool more = true;
    struct paramem_request request = {.prompt = scene->ids,
        .prompt_count = tokens,
        .max_tokens = 1,
        .no_model_stops = true,
        .on_token = on_token,
        .on_done = on_done,
        .self = &heard};
    bench_check(paramem_engine_submit(scene->engine, &request, &id, &err), &err, "submit");
    while (more) {
        bench_check(paramem_engine_step(scene->engine, &more, &err), &err, "a step");
    }
    if (!heard.done || heard.cached != cached) {
        bench_fail("%zu of %zu tokens were cached, not %zu", heard.cached, tokens, cached);
    }
    return heard.first_ns;
}

/* The same capture of other ids, as if it had been made of them. */
static void relabel(struct scene *scene, struct length *length, void *memory)
{
    struct paramem_kv_cube_shape shape = {.dtype = length->cube.dtype,
        .layers = length->cube.layers,
        .heads = length->cube.heads,
        .head_dim = length->cube.head_dim,
        .tokens = length->tokens};
    ids_anew(scene, length->tokens);
    paramem_kv_cube_begin(
        &shape, scene->model->info.fingerprint, NULL, scene->ids, memory, &length->cube);
}

static void attach(struct scene *scene, const struct paramem_kv_cube *cube, bool pinned)
{
    struct memos_error err;
    struct paramem_attach what = {.cube = cube, .pinned = pinned};
    struct paramem_attached told;
    bench_check(paramem_engine_attach(scene->engine, &what, &told, &err), &err, "attach");
    if (told.tokens != cube->tokens || told.found != 0) {
        bench_fail(
            "%zu of %zu tokens attached, %zu there before", told.tokens, cube->tokens, told.found);
    }
}

/* ---- what is measured ---------------------------------------------------------------------- */

static void measure_read(struct scene *scene, struct length *length)
{
    int64_t times[ROUNDS_MAX];
    for (size_t i = 0; i < scene->rounds; i++) {
        ids_anew(scene, length->tokens);
        int64_t begin = bench_now_ns();
        times[i] = first_token(scene, length->tokens, 0) - begin;
    }
    length->read = bench_percentile(times, scene->rounds, 0);
    row_add(scene, length->tokens, "first token, text read", length->read / 1e6, "ms", 0, NULL, 0);
}

static void capture(struct scene *scene, struct length *length)
{
    struct memos_error err;
    const struct paramem_capture asked = {
        .ids = scene->ids, .count = length->tokens, .dtype = scene->dtype, .memory = scene->pinned};
    bench_check(
        paramem_engine_capture(scene->engine, &asked, &length->cube, &err), &err, "capture");
}

static void measure_capture(struct scene *scene, struct length *length)
{
    int64_t times[ROUNDS_MAX];
    for (size_t i = 0; i < scene->rounds; i++) {
        ids_anew(scene, length->tokens);
        int64_t begin = bench_now_ns();
        capture(scene, length);
        times[i] = bench_now_ns() - begin;
    }
    row_add(scene, length->tokens, "captured", bench_percentile(times, scene->rounds, 0) / 1e6,
        "ms", length->read / 1e6, "text read", 1.05);
    int64_t begin = bench_now_ns();
    paramem_kv_cube_seal(&length->cube, scene->pinned, scene->ctx);
    row_add(scene, length->tokens, "sealed (checksums)", (double)(bench_now_ns() - begin) / 1e6,
        "ms", 0, NULL, 0);
}

/* The bar for the ratio to reading: a twentieth from 4,096 tokens on, never slower before. */
static double bar_of(const struct length *length)
{
    return length->tokens >= 4096 ? 0.05 : 1.05;
}

static void measure_from_cache(struct scene *scene, struct length *length)
{
    int64_t times[ROUNDS_MAX];
    relabel(scene, length, scene->pinned);
    attach(scene, &length->cube, true);
    for (size_t i = 0; i < scene->rounds; i++) {
        int64_t begin = bench_now_ns();
        times[i] = first_token(scene, length->tokens, length->tokens - KERN_PAGE_TOKENS) - begin;
    }
    row_add(scene, length->tokens, "first token, in the cache",
        bench_percentile(times, scene->rounds, 0) / 1e6, "ms", length->read / 1e6, "text read",
        bar_of(length));
}

/* Nanoseconds of bringing the same bytes and doing nothing with them. */
static double plain_copy(struct scene *scene, const struct length *length)
{
    struct memos_error err;
    int64_t times[ROUNDS_MAX];
    size_t bytes = length->cube.bytes.size;
    void *to = NULL;
    bench_check(kern_alloc(scene->ctx, bytes, &to, &err), &err, "memory");
    kern_fill(scene->ctx, to, 0, bytes);
    bench_check(kern_sync(scene->ctx, &err), &err, "memory");
    for (size_t i = 0; i < scene->rounds; i++) {
        int64_t begin = bench_now_ns();
        kern_upload_beside(scene->ctx, to, scene->pinned, bytes);
        bench_check(kern_sync(scene->ctx, &err), &err, "a copy");
        times[i] = bench_now_ns() - begin;
    }
    kern_release(scene->ctx, &to);
    return bench_percentile(times, scene->rounds, 0);
}

static void measure_from_memory(struct scene *scene, struct length *length, bool pinned)
{
    int64_t brought[ROUNDS_MAX], first[ROUNDS_MAX];
    for (size_t i = 0; i < scene->rounds; i++) {
        if (!pinned) {
            memcpy(scene->plain, scene->pinned, length->cube.bytes.size);
        }
        relabel(scene, length, pinned ? scene->pinned : scene->plain);
        int64_t begin = bench_now_ns();
        attach(scene, &length->cube, pinned);
        brought[i] = bench_now_ns() - begin;
        size_t cached = length->tokens - KERN_PAGE_TOKENS;
        first[i] = first_token(scene, length->tokens, cached) - begin;
    }
    row_add(scene, length->tokens,
        pinned ? "first token, from pinned memory" : "first token, from memory",
        bench_percentile(first, scene->rounds, 0) / 1e6, "ms", length->read / 1e6, "text read",
        bar_of(length));
    row_add(scene, length->tokens,
        pinned ? "attached, from pinned memory" : "attached, from memory",
        bench_percentile(brought, scene->rounds, 0) / 1e6, "ms", plain_copy(scene, length) / 1e6,
        "copying its bytes", scene->on_cuda ? 1.25 : 8.0);
}

/* Write the capture; the file stays in the system's memory. */
static int file_make(struct scene *scene, const struct length *length)
{
    char path[BENCH_PATH_BYTES];
    const uint8_t *at = length->cube.bytes.data;
    bench_path(scene->bench, "capture", path);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    for (size_t left = length->cube.bytes.size; fd >= 0 && left > 0;) {
        ssize_t wrote = write(fd, at, left);
        if (wrote <= 0) {
            bench_fail("cannot write %s", path);
        }
        at += wrote;
        left -= (size_t)wrote;
    }
    if (fd < 0) {
        bench_fail("cannot make %s", path);
    }
    return fd;
}

/* Mapped, with and without a look at every checksum. */
static void measure_from_file(struct scene *scene, struct length *length, bool checked)
{
    struct memos_error err;
    struct paramem_kv_cube cube;
    size_t size = length->cube.bytes.size;
    relabel(scene, length, scene->pinned);
    paramem_kv_cube_seal(&length->cube, scene->pinned, scene->ctx);
    int fd = file_make(scene, length);
    int64_t begin = bench_now_ns();
    void *map = mmap(NULL, size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (map == MAP_FAILED) {
        bench_fail("cannot map %zu bytes", size);
    }
    bench_check(paramem_kv_cube_read(memos_bytes_make(map, size), &cube, &err), &err, "reading");
    if (checked) {
        bench_check(paramem_kv_cube_check(&cube, scene->ctx, true, &err), &err, "checking");
    }
    attach(scene, &cube, false);
    int64_t first = first_token(scene, length->tokens, length->tokens - KERN_PAGE_TOKENS);
    row_add(scene, length->tokens,
        checked ? "first token, from a file, checked" : "first token, from a file",
        (double)(first - begin) / 1e6, "ms", length->read / 1e6, "text read",
        checked ? 1.05 : bar_of(length));
    (void)munmap(map, size);
    (void)close(fd);
}

static void measure_length(struct scene *scene, size_t tokens)
{
    struct length length = {.tokens = tokens};
    scene->rounds = scene->on_cuda ? 3 : tokens <= 1024 ? 2 : 1; /* a CPU reads 4,096 for minutes */
    measure_read(scene, &length);
    measure_capture(scene, &length);
    measure_from_cache(scene, &length);
    measure_from_memory(scene, &length, true);
    measure_from_memory(scene, &length, false);
    if (tokens <= FILE_TOKENS) {
        measure_from_file(scene, &length, false);
        measure_from_file(scene, &length, true);
    }
}

/* ---- the program --------------------------------------------------------------------------- */

static void scene_open(struct scene *scene, const struct options *options)
{
    struct memos_error err;
    const struct kern_options kern = {.backend = options->backend,
        .level = getenv("MEMOS_BENCH_LEVEL"),
        .threads = (unsigned)strtoul(options->threads, NULL, 10)};
    static struct random_shape shape;
    const struct random_shape *found = random_shape_find(options->shape);
    enum kern_dtype weights = kern_dtype_of(memos_bytes_of(options->weights));
    scene->dtype = kern_dtype_of(memos_bytes_of(options->capture));
    if (!found || !weights || !scene->dtype) {
        bench_fail("--shape llama1b|qwen06b|llama8b, --weights and --capture a type");
    }
    shape = *found;
    shape.layers = scene->bench->quick && shape.layers > 4 ? 4 : shape.layers;
    scene->shape = &shape;
    bench_check(kern_ctx_create(&kern, &scene->ctx, &err), &err, "kernels");
    scene->on_cuda = strncmp(kern_ctx_name(scene->ctx), "cuda", 4) == 0;
    bench_say("%s, %s of %zu layers, %s, captures as %s", kern_ctx_name(scene->ctx), shape.like,
        shape.layers, options->weights, options->capture);
    scene->model = random_model_make(scene->ctx, &shape, weights, scene->longest + 64);
    /* room for a text, and for another while it goes */
    size_t page = kern_kv_page_bytes(KERN_F32, shape.kv_heads, shape.head_dim) * shape.layers;
    struct paramem_engine_options engine = {.model = scene->model,
        .kv_bytes = (scene->longest / KERN_PAGE_TOKENS + 4) * page,
        .sequences_max = 1,
        .tokens_step = scene->on_cuda ? 2048 : 512};
    bench_check(paramem_engine_create(&engine, &scene->engine, &err), &err, "an engine");
    size_t bytes = paramem_engine_capture_bytes(scene->engine, scene->longest, scene->dtype);
    bench_check(kern_host_alloc(scene->ctx, bytes, &scene->pinned, &err), &err, "pinned memory");
    scene->plain = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    scene->ids = bench_memory(scene->longest, sizeof *scene->ids);
    if (!scene->plain) {
        bench_fail("no memory for %zu bytes", bytes);
    }
    memset(scene->plain, 0, bytes);
}

/* Whatever is made or loaded when it is first used. */
static void warm(struct scene *scene)
{
    struct length length = {.tokens = 128};
    ids_anew(scene, length.tokens);
    (void)first_token(scene, length.tokens, 0);
    ids_anew(scene, length.tokens);
    capture(scene, &length);
    for (size_t i = 0; i < 2; i++) {
        relabel(scene, &length, scene->pinned);
        attach(scene, &length.cube, i == 0);
        (void)first_token(scene, length.tokens, length.tokens - KERN_PAGE_TOKENS);
    }
}

static void measure_bytes(struct scene *scene)
{
    static const enum kern_dtype types[] = {KERN_F32, KERN_BF16, KERN_E4M3};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        char what[NAME_BYTES];
        (void)snprintf(what, sizeof what, "a token of them, %s", kern_dtype_name(types[i]));
        size_t bytes = paramem_engine_capture_bytes(scene->engine, 512, types[i]);
        row_add(scene, 512, what, (double)bytes / 512, "bytes", 0, NULL, 0);
    }
}

int main(int argc, char **argv)
{
    static const size_t lengths[LENGTHS] = {512, 1024, 2048, 4096, 8192, 16384, 32768};
    struct options options = {.backend = "cpu", .weights = "bf16", .capture = "bf16"};
    struct bench bench;
    struct scene scene = {.bench = &bench, .state = 3};

    argc = options_take(&options, argc, argv);
    bool is_cuda = strcmp(options.backend, "cuda") == 0;
    options.threads = options.threads ? options.threads : is_cuda ? "0" : "2"; /* 0: all */
    options.shape = options.shape ? options.shape : is_cuda ? "llama8b" : "llama1b";
    bench_begin(&bench, "bench_fusion", argc, argv);
    const char *longest = options.longest ? options.longest
                          : is_cuda       ? "32768"
                          : bench.quick   ? "1024"
                                          : "4096";
    scene.longest = strtoul(longest, NULL, 10);
    if (scene.longest < 512 || scene.longest > lengths[LENGTHS - 1]) {
        bench_fail("--longest takes 512 to %zu", lengths[LENGTHS - 1]);
    }
    scene_open(&scene, &options);
    warm(&scene);
    measure_bytes(&scene);
    for (size_t i = 0; i < LENGTHS && lengths[i] <= scene.longest; i++) {
        measure_length(&scene, lengths[i]);
    }
    paramem_engine_destroy(&scene.engine);
    random_model_free(&scene.model);
    kern_host_release(scene.ctx, &scene.pinned);
    kern_ctx_destroy(&scene.ctx);
    free(scene.plain);
    free(scene.ids);
    return bench_end(&bench);
}
