/* A host model at work: reading a prompt, writing one token after the other, for one and for many.
 *
 *     bench_inference [--backend cpu|cuda] [--shape llama1b|qwen06b|llama8b] [--weights TYPE,...]
 *                     [--threads N] [--batch N] [--peers FILE]
 *                     [--tokenizer FOLDER --turns FILE] ...
 *
 * Weights are random (random_model.h). Through the engine, as users have it; greedy; keys and
 * values as the engine keeps them unless told. --peers names a file of JSON lines that say what
 * others did on this machine, just now (README.md says which, and what makes them).
 *
 * Reading is bound by products, writing by reading the weights once for each step: both limits are
 * measured in the same run. */
#include "paramem/engine.h"
#include "tests/bench/bench.h"
#include "tests/bench/ceilings.h"
#include "tests/bench/random_model.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NAME_BYTES 64
#define PEERS_MAX 64
#define LINE_BYTES 65536
#define CONTEXT 8192
enum { BATCH_MAX = 64, WARM_STEPS = 4, WEIGHTS_MAX = 8 };

struct options {
    const char *backend, *shape, *weights, *threads, *peers, *tokenizer, *turns, *batch;
};

/* What somebody else did; 0: nothing is said. */
struct peer {
    char name[32], weights[16], shape[16];
    size_t batch, prefill_tokens;
    double prefill, decode; /* tokens a second */
    double mb_per_s;
};

struct peers {
    struct peer items[PEERS_MAX];
    size_t count;
};

struct scene {
    struct bench *bench;
    struct kern_ctx *ctx;
    struct random_shape shape;
    struct peers peers;
    bool on_cuda;
    size_t batch; /* write so many at once only; 0: all that there are */
    double read_rate, rival_rate;
};

/* ---- what is read -------------------------------------------------------------------------- */

/* Take our options out of argv, so that the common ones are left. Returns the new argc. */
static int options_take(struct options *options, int argc, char **argv)
{
    const struct bench_option ours[] = {{"--backend", &options->backend},
        {"--shape", &options->shape}, {"--weights", &options->weights},
        {"--threads", &options->threads}, {"--peers", &options->peers},
        {"--tokenizer", &options->tokenizer}, {"--turns", &options->turns},
        {"--batch", &options->batch}};
    return bench_options_take(ours, sizeof ours / sizeof ours[0], argc, argv);
}

static void text_take(const json_t *line, const char *key, char *out, size_t size)
{
    const char *text = json_string_value(json_object_get(line, key));
    (void)snprintf(out, size, "%s", text ? text : "");
}

/* The type of weights that a peer's line says, or that the name of its file holds. */
static void weights_take(const json_t *line, struct peer *out)
{
    static const char *const names[] = {"bf16", "q8_0", "q4_0", "f32"};
    const char *file = json_string_value(json_object_get(line, "file"));
    text_take(line, "weights", out->weights, sizeof out->weights);
    for (size_t i = 0; file && !out->weights[0] && i < sizeof names / sizeof names[0]; i++) {
        if (strstr(file, names[i])) {
            (void)snprintf(out->weights, sizeof out->weights, "%s", names[i]);
        }
    }
    if (!out->weights[0]) {
        (void)snprintf(out->weights, sizeof out->weights, "bf16");
    }
}

static void peer_take(const json_t *line, struct peer *out)
{
    json_int_t batch = json_integer_value(json_object_get(line, "batch"));
    json_int_t tokens = json_integer_value(json_object_get(line, "prefill_tokens"));
    text_take(line, "peer", out->name, sizeof out->name);
    text_take(line, "shape", out->shape, sizeof out->shape);
    weights_take(line, out);
    out->batch = batch > 0 ? (size_t)batch : 1;
    out->prefill_tokens = tokens > 0 ? (size_t)tokens : 512;
    out->prefill = json_number_value(json_object_get(line, "prefill_tokens_per_s"));
    out->decode = json_number_value(json_object_get(line, "decode_tokens_per_s"));
    out->mb_per_s = json_number_value(json_object_get(line, "mb_per_s"));
}

static void peers_read(const char *path, struct peers *out)
{
    char line[4096];
    FILE *file = path ? fopen(path, "r") : NULL;
    if (path && !file) {
        bench_fail("cannot read %s", path);
    }
    while (file && out->count < PEERS_MAX && fgets(line, sizeof line, file)) {
        json_t *json = json_loads(line, 0, NULL);
        if (json) {
            peer_take(json, &out->items[out->count++]);
        }
        json_decref(json);
    }
    if (file) {
        (void)fclose(file);
    }
}

/* The fastest peer with such weights at such a batch (0: at reading so many tokens); NULL: none.
 * int8 by rows is beside their int8 by groups. */
static const struct peer *peer_best(
    const struct scene *scene, enum kern_dtype dtype, size_t batch, size_t prefill_tokens)
{
    const char *weights = kern_dtype_name(dtype == KERN_I8 ? KERN_Q8_0 : dtype);
    const struct peer *best = NULL;
    for (size_t i = 0; i < scene->peers.count; i++) {
        const struct peer *peer = &scene->peers.items[i];
        double rate = batch > 0 ? peer->decode : peer->prefill;
        double best_rate = !best ? 0 : batch > 0 ? best->decode : best->prefill;
        bool is_same = strcmp(peer->weights, weights) == 0 &&
                       (!peer->shape[0] || strcmp(peer->shape, scene->shape.name) == 0) &&
                       (batch > 0 ? peer->batch == batch : peer->prefill_tokens == prefill_tokens);
        if (is_same && rate > best_rate) {
            best = peer;
        }
    }
    return best;
}

/* ---- rows ---------------------------------------------------------------------------------- */

__attribute__((format(printf, 2, 3))) static const char *name_of(
    const struct bench *bench, const char *format, ...)
{
    static char names[BENCH_ROWS_MAX][NAME_BYTES];
    char *name = names[bench->rows_count < BENCH_ROWS_MAX ? bench->rows_count : 0];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(name, NAME_BYTES, format, args);
    va_end(args);
    return name;
}

static void row_add(struct bench *bench, const char *name, double value, const char *unit,
    double limit, const char *limit_name, double bar)
{
    /* at once, too: a run is long, and something may fail after it */
    bench_say("%s: %.2f %s (%s %.2f)", name, value, unit, limit > 0 ? limit_name : "-", limit);
    bench_add(bench, (struct bench_row){.name = name,
                         .value = value,
                         .unit = unit,
                         .limit = limit,
                         .limit_name = limit_name,
                         .bar = bar,
                         .higher_is_better = true});
}

/* ---- an engine at work --------------------------------------------------------------------- */

struct counter {
    size_t tokens, done, failed;
};

static void on_token(void *self, const struct paramem_token *token)
{
    (void)token;
    ((struct counter *)self)->tokens++;
}

static void on_done(void *self, const struct paramem_result *result)
{
    struct counter *counter = self;
    counter->done++;
    counter->failed += result->finish != PARAMEM_FINISH_LENGTH;
}

static void submit(struct paramem_engine *engine, size_t vocab, size_t prompt, size_t tokens,
    uint64_t *state, struct counter *counter)
{
    struct memos_error err;
    uint64_t id;
    uint32_t *ids = bench_memory(prompt, sizeof *ids);
    for (size_t i = 0; i < prompt; i++) {
        ids[i] = (uint32_t)(bench_next(state) % vocab);
    }
    struct paramem_request request = {.prompt = ids,
        .prompt_count = prompt,
        .max_tokens = tokens,
        .no_model_stops = true,
        .on_token = on_token,
        .on_done = on_done,
        .self = counter};
    bench_check(paramem_engine_submit(engine, &request, &id, &err), &err, "submit");
    free(ids);
}

/* Steps until so many tokens were told; false: nothing is left to do. */
static bool step_until(struct paramem_engine *engine, const struct counter *counter, size_t tokens)
{
    struct memos_error err;
    bool more = true;
    while (more && counter->tokens < tokens) {
        bench_check(paramem_engine_step(engine, &more, &err), &err, "a step");
    }
    return more;
}

/* Tokens a second of reading a prompt. */
static double time_prefill(
    struct paramem_engine *engine, size_t vocab, size_t tokens, size_t rounds)
{
    int64_t times[8];
    uint64_t state = 11;
    for (size_t round = 0; round < rounds; round++) {
        struct counter counter = {0};
        int64_t begin = bench_now_ns();
        submit(engine, vocab, tokens, 1, &state, &counter);
        (void)step_until(engine, &counter, SIZE_MAX);
        times[round] = bench_now_ns() - begin;
        if (counter.failed > 0 || counter.done != 1) {
            bench_fail("reading %zu tokens failed", tokens);
        }
    }
    return (double)tokens * 1e9 / bench_percentile(times, rounds, 0.0);
}

/* Tokens a second of `batch` sequences that write together, after a prompt each. */
static double time_decode(
    struct paramem_engine *engine, size_t vocab, size_t batch, size_t prompt, size_t steps)
{
    struct counter counter = {0};
    struct paramem_engine_stats stats;
    uint64_t state = 13 + batch;
    paramem_engine_stats(engine, &stats);
    uint64_t all_read = stats.prompt_tokens + batch * prompt;
    for (size_t i = 0; i < batch; i++) {
        submit(engine, vocab, prompt, steps + 2 * WARM_STEPS + batch, &state, &counter);
    }
    /* all have begun when the last prompt is read; the first have written meanwhile */
    do {
        if (!step_until(engine, &counter, counter.tokens + 1)) {
            bench_fail("a batch of %zu ended too early", batch);
        }
        paramem_engine_stats(engine, &stats);
    } while (stats.prompt_tokens < all_read);
    (void)step_until(engine, &counter, counter.tokens + WARM_STEPS * batch);
    size_t begun = counter.tokens;
    int64_t begin = bench_now_ns();
    (void)step_until(engine, &counter, begun + steps * batch);
    int64_t took = bench_now_ns() - begin;
    size_t told = counter.tokens - begun;
    (void)step_until(engine, &counter, SIZE_MAX);
    if (counter.failed > 0 || told < steps * batch) {
        bench_fail("a batch of %zu failed", batch);
    }
    return (double)told * 1e9 / (double)took;
}

/* ---- what is measured ---------------------------------------------------------------------- */

static struct paramem_engine *engine_open(
    struct paramem_model *model, size_t batch, size_t tokens, size_t step)
{
    struct memos_error err;
    struct paramem_engine *engine = NULL;
    const struct paramem_decoder_config *config = &model->config;
    struct paramem_engine_options options = {
        .model = model, .sequences_max = batch, .tokens_step = step, .no_prefix_cache = true};
    /* twice what bfloat16 takes: float32 where the engine keeps that */
    options.kv_bytes = (tokens / KERN_PAGE_TOKENS + batch + 2) * config->layers *
                       kern_kv_page_bytes(KERN_F32, config->kv_heads, config->head_dim);
    bench_check(paramem_engine_create(&options, &engine, &err), &err, "an engine");
    return engine;
}

static void row_prefill(
    struct scene *scene, enum kern_dtype dtype, size_t tokens, double rate, double product)
{
    struct bench *bench = scene->bench;
    const char *type = kern_dtype_name(dtype);
    const struct peer *peer = peer_best(scene, dtype, 0, tokens);
    double bar = scene->on_cuda || dtype == KERN_BF16 || dtype == KERN_F32 ? 1.0 : 2.0;
    double flop = random_model_flop(&scene->shape, tokens) / (double)tokens;
    row_add(bench, name_of(bench, "%s: read %zu tokens", type, tokens), rate, "tokens/s",
        peer ? peer->prefill : 0, peer ? peer->name : NULL, bar);
    row_add(bench, name_of(bench, "%s: read %zu, its products", type, tokens), rate * flop / 1e9,
        "GFLOP/s", product / 1e9, "one large product alone", 0.75);
}

static void row_decode(
    struct scene *scene, enum kern_dtype dtype, size_t batch, double rate, uint64_t bytes)
{
    struct bench *bench = scene->bench;
    const char *type = kern_dtype_name(dtype);
    const struct peer *peer = peer_best(scene, dtype, batch, 0);
    row_add(bench, name_of(bench, "%s: write, %zu at once", type, batch), rate, "tokens/s",
        peer ? peer->decode : 0, peer ? peer->name : NULL, 1.0);
    if (batch == 1) {
        row_add(bench, name_of(bench, "%s: write, its weights", type), rate * (double)bytes / 1e9,
            "GB/s", scene->read_rate / 1e9, scene->on_cuda ? "copying memory" : "reading memory",
            scene->on_cuda ? 0.85 : 0.9);
    }
}

static void measure_weights(struct scene *scene, enum kern_dtype dtype)
{
    static const size_t batches[] = {1, 4, 16, 64};
    struct bench *bench = scene->bench;
    const struct random_shape *shape = &scene->shape;
    size_t prompt = scene->on_cuda ? 512 : 32, steps = scene->on_cuda ? 64 : 16;
    size_t most = scene->on_cuda ? 64 : bench->quick ? 4 : 16;
    size_t reads[] = {bench->quick ? 128 : 512, 4096};
    size_t tokens = most * (prompt + steps + 2 * WARM_STEPS + most) + reads[1];

    bench_say("%s, %s: packing", shape->like, kern_dtype_name(dtype));
    double product = limits_product(
        scene->ctx, dtype, scene->on_cuda ? 4096 : 512, 2 * shape->inner, shape->hidden);
    if (dtype == KERN_BF16 && scene->rival_rate > product) {
        product = scene->rival_rate;
    }
    int64_t begin = bench_now_ns();
    struct paramem_model *model = random_model_make(scene->ctx, shape, dtype, CONTEXT);
    uint64_t bytes = random_model_bytes(model);
    bench_say("%s, %s: %.2f GB, made in %.1f s", shape->like, kern_dtype_name(dtype),
        (double)bytes / 1e9, (double)(bench_now_ns() - begin) / 1e9);
    struct paramem_engine *engine = engine_open(model, most, tokens, scene->on_cuda ? 2048 : 512);
    (void)time_prefill(engine, shape->vocab, 32, 1);
    for (size_t i = 0; i < (scene->on_cuda ? 2 : 1); i++) {
        double rate =
            time_prefill(engine, shape->vocab, reads[i], scene->on_cuda || bench->quick ? 3 : 2);
        row_prefill(scene, dtype, reads[i], rate, product);
    }
    for (size_t i = 0; i < sizeof batches / sizeof batches[0] && batches[i] <= most; i++) {
        if (scene->batch > 0 && batches[i] != scene->batch) {
            continue;
        }
        double rate = time_decode(engine, shape->vocab, batches[i], prompt, steps);
        row_decode(scene, dtype, batches[i], rate, bytes);
    }
    paramem_engine_destroy(&engine);
    random_model_free(&model);
}

/* A folder as people have them: opened beside a plain read of its weights. */
static void measure_load(struct scene *scene)
{
    struct memos_error err;
    struct bench *bench = scene->bench;
    struct paramem_model *model = NULL;
    struct paramem_model_info info;
    char path[BENCH_PATH_BYTES];
    bench_say("writing %s", scene->shape.like);
    random_model_write(&scene->shape, bench->folder);
    bench_path(bench, "model.safetensors", path);
    struct stat about;
    if (stat(path, &about) != 0) {
        bench_fail("%s: no such file", path);
    }
    (void)limits_file(path);
    double read = limits_file(path);
    double fresh = limits_fresh_memory((size_t)about.st_size);
    uint64_t before = limits_memory_now();
    limits_memory_reset();
    struct paramem_model_options options = {
        .path = bench->folder, .ctx = scene->ctx, .context_max = CONTEXT};
    int64_t begin = bench_now_ns();
    bench_check(paramem_model_open(&options, &model, &err), &err, "opening");
    double seconds = (double)(bench_now_ns() - begin) / 1e9;
    double most = (double)(limits_memory_most() - before);
    paramem_model_describe(model, &info);
    bench_add(bench, (struct bench_row){.name = "open a folder, bf16",
                         .value = seconds,
                         .unit = "s",
                         .limit = read,
                         .limit_name = "reading its weights (cached)",
                         .bar = 4.0});
    bench_add(bench,
        (struct bench_row){.name = "as much memory, the first time", .value = fresh, .unit = "s"});
    bench_add(bench, (struct bench_row){.name = "most memory while it opens",
                         .value = most / 1e9,
                         .unit = "GB",
                         .limit = (double)info.weight_bytes / 1e9,
                         .limit_name = "its weights in memory",
                         .bar = scene->on_cuda ? 2.0 : 1.25});
    paramem_model_close(&model);
}

static void measure_tokenizer(struct scene *scene, const struct options *options)
{
    struct memos_error err;
    struct paramem_tokenizer *tokenizer = NULL;
    char *line = bench_memory(LINE_BYTES, 1);
    FILE *file = fopen(options->turns, "r");
    size_t bytes = 0;
    int64_t took = 0;
    double limit = 0;
    if (!file) {
        bench_fail("cannot read %s (--turns says where they are)", options->turns);
    }
    bench_check(paramem_tokenizer_open(options->tokenizer, &tokenizer, &err), &err, "tokenizer");
    while (fgets(line, LINE_BYTES, file)) {
        struct paramem_ids ids;
        json_t *json = json_loads(line, 0, NULL);
        const json_t *text = json_object_get(json, "text");
        struct memos_bytes view =
            memos_bytes_make(json_string_value(text), json_string_length(text));
        int64_t begin = bench_now_ns();
        bench_check(paramem_tokenizer_encode(tokenizer, view, 0, &ids, &err), &err, "tokenize");
        took += bench_now_ns() - begin;
        bytes += view.size;
        free(ids.ids);
        json_decref(json);
    }
    for (size_t i = 0; i < scene->peers.count; i++) {
        limit = scene->peers.items[i].mb_per_s > 0 ? scene->peers.items[i].mb_per_s : limit;
    }
    row_add(scene->bench, "tokenizer, turns", (double)bytes * 1e3 / (double)took, "MB/s", limit,
        "tokenizers, a batch", 1.0);
    paramem_tokenizer_close(&tokenizer);
    (void)fclose(file);
    free(line);
}

/* ---- the program --------------------------------------------------------------------------- */

/* "bf16,q4_0" */
static size_t types_take(const char *text, enum kern_dtype out[WEIGHTS_MAX])
{
    size_t count = 0;
    while (*text && count < WEIGHTS_MAX) {
        size_t size = strcspn(text, ",");
        out[count] = kern_dtype_of(memos_bytes_make(text, size));
        if (!out[count++]) {
            bench_fail("there is no type %.*s", (int)size, text);
        }
        text += size + (text[size] == ',');
    }
    return count;
}

static void scene_open(struct scene *scene, const struct options *options)
{
    struct memos_error err;
    const struct random_shape *shape = random_shape_find(options->shape);
    const struct kern_options kern = {.backend = options->backend,
        .level = getenv("MEMOS_BENCH_LEVEL"),
        .threads = (unsigned)strtoul(options->threads, NULL, 10)};
    if (!shape) {
        bench_fail("--shape takes llama1b, qwen06b or llama8b, not %s", options->shape);
    }
    scene->shape = *shape;
    scene->batch = options->batch ? strtoul(options->batch, NULL, 10) : 0;
    if (scene->bench->quick && scene->shape.layers > 4) {
        scene->shape.layers = 4;
    }
    bench_check(kern_ctx_create(&kern, &scene->ctx, &err), &err, "kernels");
    scene->on_cuda = strncmp(kern_ctx_name(scene->ctx), "cuda", 4) == 0;
    bench_say("%s, %s of %zu layers", kern_ctx_name(scene->ctx), shape->like, scene->shape.layers);
    scene->read_rate = limits_read(scene->ctx);
    if (!scene->on_cuda) {
        scene->rival_rate = limits_rival(512, 2 * shape->inner, shape->hidden);
    }
    bench_say("memory %.1f GB/s, libraries' products %.0f GFLOP/s", scene->read_rate / 1e9,
        scene->rival_rate / 1e9);
}

int main(int argc, char **argv)
{
    struct options options = {.backend = "cpu",
        .weights = "bf16,i8,q8_0,q4_0",
        .turns = "../shared/data/locomo/turns.jsonl"};
    struct bench bench;
    struct scene scene = {.bench = &bench};
    enum kern_dtype types[WEIGHTS_MAX];

    argc = options_take(&options, argc, argv);
    bool is_cuda = strcmp(options.backend, "cuda") == 0;
    options.threads = options.threads ? options.threads : is_cuda ? "0" : "2"; /* 0: all */
    options.shape = options.shape ? options.shape : is_cuda ? "llama8b" : "llama1b";
    bench_begin(&bench, "bench_inference", argc, argv);
    size_t types_count = types_take(options.weights, types);
    peers_read(options.peers, &scene.peers);
    scene_open(&scene, &options);
    for (size_t i = 0; i < types_count; i++) {
        measure_weights(&scene, types[i]);
    }
    if (strcmp(scene.shape.name, "llama8b") != 0) {
        measure_load(&scene); /* 16 GB are no file to write for that */
    }
    if (options.tokenizer) {
        measure_tokenizer(&scene, &options);
    }
    kern_ctx_destroy(&scene.ctx);
    return bench_end(&bench);
}
