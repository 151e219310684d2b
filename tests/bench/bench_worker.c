/* A host model behind a broker: how soon the first token comes when a text's keys and values are
 * brought, against reading the text; what capturing costs; and what broker and ZeroMQ cost a
 * stream of tokens.
 *
 *     bench_worker [--shape llama1b|qwen06b|llama8b|tiny] [--backend cpu|cuda] [--threads N]
 *                  [--capture TYPE] [--longest TOKENS] [--only first|streams]
 *
 * memosd and memos-worker are processes of their own, the model a folder of random weights
 * (random_model.h), whose tokenizer makes a token of each byte. A text is a cube that a prompt
 * names. One worker captures the texts; another one, which has seen none of them, loads them: from
 * the broker's files, sent over ipc, sent over TCP. captures are "auto" always: what is measured is
 * what users get. Every text is used once by each worker, so that no cache helps by accident. */
#include "paramem/engine.h"
#include "tests/bench/programs.h"
#include "tests/bench/random_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define SPACE "bench"
#define NAME_BYTES 64
#define CONTEXT 8192
enum {
    ROUNDS_MAX = 5,
    LENGTHS = 8,
    STREAMS_MAX = 16,
    STREAM_TOKENS = 64,
    STREAM_PROMPT = 48,
    USED_AS_TEXT = 1, /* ReceiptItem.used_as */
    CAPTURES_AUTO = 0,
    CAPTURES_NEVER = 1
};

struct options {
    const char *shape, *backend, *threads, *capture, *longest, *only;
};

/* A text of a length: a cube. */
struct text {
    uint8_t id[16];
};

struct length {
    size_t tokens, rounds;
    struct text captured[ROUNDS_MAX];
    double read_ns; /* to the first token when it is read */
    double capture_bytes;
};

struct scene {
    struct bench *bench;
    const struct options *options;
    const struct random_shape *shape;
    char folder[BENCH_PATH_BYTES];
    char ipc[PROGRAMS_ADDRESS_BYTES], tcp[PROGRAMS_ADDRESS_BYTES];
    struct memos_client *client;
    uint64_t state;
    size_t frame_tokens; /* of a prompt beside the text */
    struct length lengths[LENGTHS];
    size_t lengths_count;
};

/* What an answer was. */
struct answer {
    double first_ns, total_ns;
    uint32_t prompt_tokens, cached_tokens, tokens;
    uint64_t bytes; /* fetched */
    bool loaded;
};

static void row_add(struct scene *scene, const char *name, double value, const char *unit,
    double limit, const char *limit_name, double bar, bool higher)
{
    static char names[BENCH_ROWS_MAX][NAME_BYTES];
    struct bench *bench = scene->bench;
    char *own = names[bench->rows_count < BENCH_ROWS_MAX ? bench->rows_count : 0];
    (void)snprintf(own, NAME_BYTES, "%s", name);
    bench_say("%s: %.4g %s (%s %.4g, ratio %.4f)", own, value, unit, limit > 0 ? limit_name : "-",
        limit, limit > 0 ? value / limit : 0.0);
    bench_add(bench, (struct bench_row){own, value, unit, limit, limit_name, bar, higher});
}

/* ---- programs ------------------------------------------------------------------------------ */

/* kind: "mapped", "ipc" or "tcp": how it gets captures. */
static pid_t worker_start(struct scene *scene, const char *kind)
{
    char log[NAME_BYTES];
    bool over_tcp = strcmp(kind, "tcp") == 0;
    (void)snprintf(log, sizeof log, "worker-%s.log", kind);
    const char *arguments[] = {"--address", over_tcp ? scene->tcp : scene->ipc, "--name", kind,
        "--model", scene->folder, "--backend", scene->options->backend, "--threads",
        scene->options->threads, "--kv-memory", "1G", "--sequences", "16", "--jobs", "32",
        "--map-captures", strcmp(kind, "mapped") == 0 ? "true" : "false", NULL};
    bench_say("a worker, %s", kind);
    return programs_start(scene->bench, "MEMOS_WORKER", "memos-worker", log, arguments);
}

/* ---- what is asked ------------------------------------------------------------------------- */

/* Letters whose every byte is a token: the tokenizer joins "th" alone. No blank at either end. */
static void letters(struct scene *scene, char *out, size_t count)
{
    static const char known[] = "abcdefgijklmnopqrsuvwxyz aeiou";
    for (size_t i = 0; i < count; i++) {
        bool is_end = i == 0 || i + 1 == count;
        out[i] = known[bench_next(&scene->state) % (is_end ? 23 : sizeof known - 1)];
    }
}

static struct text text_put(struct scene *scene, size_t bytes)
{
    struct text text;
    char *payload = bench_memory(bytes, 1);
    letters(scene, payload, bytes);
    struct memos_bytes frame = memos_bytes_make(payload, bytes);
    Memos__Request request = MEMOS__REQUEST__INIT;
    Memos__Put put = MEMOS__PUT__INIT;
    Memos__Draft draft = MEMOS__DRAFT__INIT;
    Memos__Draft *drafts[] = {&draft};
    draft.frame = 1;
    put.space = (char *)SPACE;
    put.drafts = drafts;
    put.n_drafts = 1;
    request.body_case = MEMOS__REQUEST__BODY_PUT;
    request.put = &put;
    struct memos_message *reply = programs_call(scene->client, &request, &frame, 1, "put");
    memcpy(text.id, memos_message_reply(reply)->outcome->refs[0]->id.data, sizeof text.id);
    memos_message_free(&reply);
    free(payload);
    return text;
}

/* Send a Generate; text: what it remembers, or NULL. Returns the request's id. */
static uint64_t generate_send(struct scene *scene, const struct text *text, uint32_t captures,
    struct memos_bytes prompt, uint32_t max_tokens)
{
    struct memos_error err;
    uint64_t id;
    Memos__Request request = MEMOS__REQUEST__INIT;
    Memos__Generate generate = MEMOS__GENERATE__INIT;
    Memos__Memory memory = MEMOS__MEMORY__INIT;
    Memos__Ref ref = MEMOS__REF__INIT;
    Memos__Ref *refs[] = {&ref};
    if (text) {
        ref.id = (ProtobufCBinaryData){sizeof text->id, (uint8_t *)text->id};
        memory.cubes = refs;
        memory.n_cubes = 1;
        memory.captures = captures;
        memory.budget_tokens = CONTEXT;
        generate.space = (char *)SPACE;
        generate.memory = &memory;
    }
    generate.prompt_frame = 1;
    generate.max_tokens = max_tokens;
    request.deadline_ms = 3600000;
    request.body_case = MEMOS__REQUEST__BODY_GENERATE;
    request.generate = &generate;
    bench_check(
        memos_client_send(scene->client, &request, &prompt, 1, &id, &err), &err, "generate");
    return id;
}

/* The next reply to anything; fails the benchmark unless it is a good one. */
static struct memos_message *receive(struct scene *scene)
{
    struct memos_message *message = NULL;
    struct memos_error err;
    bench_check(memos_client_receive(scene->client, -1, &message, &err), &err, "an answer");
    const Memos__Reply *reply = memos_message_reply(message);
    if (reply->status != 0) {
        bench_fail("generate: %s", reply->message);
    }
    return message;
}

static void answer_fill(struct answer *out, const Memos__Generated *generated)
{
    out->prompt_tokens = generated->prompt_tokens;
    out->cached_tokens = generated->cached_tokens;
    out->tokens = generated->tokens;
    const Memos__Receipt *receipt = generated->receipt;
    for (size_t i = 0; receipt && i < receipt->n_items; i++) {
        out->loaded |= receipt->items[i]->used_as != USED_AS_TEXT;
        out->bytes += receipt->items[i]->bytes;
    }
}

static struct answer ask(struct scene *scene, const struct text *text, uint32_t captures)
{
    struct answer out = {0};
    int64_t begin = bench_now_ns();
    (void)generate_send(scene, text, captures, memos_bytes_of("and so"), 1);
    for (bool more = true; more;) {
        struct memos_message *message = receive(scene);
        const Memos__Reply *reply = memos_message_reply(message);
        if (out.first_ns == 0 && reply->body_case == MEMOS__REPLY__BODY_TOKENS) {
            out.first_ns = (double)(bench_now_ns() - begin);
        }
        more = reply->more;
        if (!more) {
            out.total_ns = (double)(bench_now_ns() - begin);
            answer_fill(&out, reply->generated);
        }
        memos_message_free(&message);
    }
    return out;
}

/* Have a text captured; returns the nanoseconds of the model's pass. */
static double capture(
    struct scene *scene, const struct text *text, uint32_t dtype, double *bytes, double *tokens)
{
    Memos__Request request = MEMOS__REQUEST__INIT;
    Memos__Capture what = MEMOS__CAPTURE__INIT;
    ProtobufCBinaryData id = {sizeof text->id, (uint8_t *)text->id};
    what.space = (char *)SPACE;
    what.ids = &id;
    what.n_ids = 1;
    what.dtype = dtype;
    request.deadline_ms = 3600000;
    request.body_case = MEMOS__REQUEST__BODY_CAPTURE;
    request.capture = &what;
    struct memos_message *reply = programs_call(scene->client, &request, NULL, 0, "capture");
    const Memos__Captured *captured = memos_message_reply(reply)->captured;
    if (captured->n_captures != 1 || captured->captures[0]->existed) {
        bench_fail("no capture was made");
    }
    double took = 1e3 * (double)captured->captures[0]->read_us;
    *bytes = (double)captured->captures[0]->bytes;
    *tokens = captured->captures[0]->tokens;
    memos_message_free(&reply);
    return took;
}

static uint32_t dtype_of(const char *name)
{
    static const char *const names[] = {"", "f32", "f16", "bf16", "e4m3"};
    for (uint32_t i = 1; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(name, names[i]) == 0) {
            return i;
        }
    }
    bench_fail("--capture takes f32, f16, bf16 or e4m3");
}

/* ---- reading and capturing ----------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, compare);
    return values[count / 2];
}

/* A text that makes a prompt of so many tokens. */
static struct text text_of(struct scene *scene, size_t tokens)
{
    return text_put(scene, tokens - scene->frame_tokens);
}

/* Read it; but for what all prompts begin with, nothing may be had without computing. */
static struct answer read_anew(struct scene *scene, size_t tokens)
{
    struct text text = text_of(scene, tokens);
    struct answer answer = ask(scene, &text, CAPTURES_NEVER);
    if (answer.prompt_tokens != tokens || answer.cached_tokens > scene->frame_tokens ||
        answer.loaded) {
        bench_fail("the prompt has %u tokens, not %zu, of which %u were cached",
            answer.prompt_tokens, tokens, answer.cached_tokens);
    }
    return answer;
}

/* Captures are read from the first token on, texts behind what all prompts begin with: what is
 * compared is a token of the model's pass. */
static void measure_length(struct scene *scene, struct length *length)
{
    double read[ROUNDS_MAX], token[ROUNDS_MAX], captured[ROUNDS_MAX];
    char name[NAME_BYTES];
    for (size_t i = 0; i < length->rounds; i++) {
        double tokens;
        struct answer answer = read_anew(scene, length->tokens);
        read[i] = answer.first_ns;
        token[i] = read[i] / (answer.prompt_tokens - answer.cached_tokens);
        length->captured[i] = text_of(scene, length->tokens);
        captured[i] = capture(scene, &length->captured[i], dtype_of(scene->options->capture),
            &length->capture_bytes, &tokens);
        captured[i] /= tokens;
    }
    length->read_ns = median(read, length->rounds);
    (void)snprintf(name, sizeof name, "%zu tokens: text read", length->tokens);
    row_add(scene, name, length->read_ns / 1e6, "ms", 0, NULL, 0, false);
    (void)snprintf(name, sizeof name, "%zu tokens: captured, a token", length->tokens);
    row_add(scene, name, median(captured, length->rounds) / 1e6, "ms",
        median(token, length->rounds) / 1e6, "read, a token", 1.05, false);
}

static void measure_types(struct scene *scene)
{
    static const char *const types[] = {"f32", "bf16", "e4m3"};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        char name[NAME_BYTES];
        double bytes, tokens;
        struct text text = text_of(scene, 1024);
        (void)capture(scene, &text, dtype_of(types[i]), &bytes, &tokens);
        (void)snprintf(name, sizeof name, "a token of a capture, %s", types[i]);
        row_add(scene, name, bytes / tokens, "bytes", 0, NULL, 0, false);
    }
}

/* What a prompt has beside the text: known from one that is nearly empty. */
static void measure_frame(struct scene *scene)
{
    struct text text = text_put(scene, 8);
    struct answer answer = ask(scene, &text, CAPTURES_NEVER);
    scene->frame_tokens = answer.prompt_tokens - 8;
    bench_say("a prompt has %zu tokens beside the text", scene->frame_tokens);
}

/* ---- loading ------------------------------------------------------------------------------- */

/* Nanoseconds of copying so many bytes in memory, and nothing else. */
static double copy_ns(size_t bytes)
{
    double times[3];
    char *from = bench_memory(bytes, 1), *to = bench_memory(bytes, 1);
    memset(from, 1, bytes);
    memset(to, 2, bytes);
    for (size_t i = 0; i < 3; i++) {
        int64_t begin = bench_now_ns();
        memcpy(to, from, bytes);
        __asm__ volatile("" : : "r"(to) : "memory");
        times[i] = (double)(bench_now_ns() - begin);
    }
    free(from);
    free(to);
    return median(times, 3);
}

static void measure_loading(struct scene *scene, struct length *length, const char *kind)
{
    double first[ROUNDS_MAX], read[ROUNDS_MAX], again[ROUNDS_MAX];
    char name[NAME_BYTES];
    bool is_short = length->tokens <= 512, loaded = false;
    for (size_t i = 0; i < length->rounds; i++) {
        struct answer answer = ask(scene, &length->captured[i], CAPTURES_AUTO);
        loaded |= answer.loaded;
        first[i] = answer.first_ns;
        again[i] = ask(scene, &length->captured[i], CAPTURES_AUTO).first_ns;
        read[i] = is_short ? read_anew(scene, length->tokens).first_ns : length->read_ns;
    }
    double took = median(first, length->rounds);
    (void)snprintf(
        name, sizeof name, "%zu tokens: %s%s", length->tokens, kind, loaded ? "" : ", computed");
    row_add(scene, name, took / 1e6, "ms", median(read, length->rounds) / 1e6, "text read",
        length->tokens >= 4096 ? 0.05 : 1.05, false);
    if (loaded && length->tokens >= 1024) { /* less is lost in what else takes time */
        (void)snprintf(name, sizeof name, "%zu tokens: brought, %s", length->tokens, kind);
        row_add(scene, name, (took - median(again, length->rounds)) / 1e6, "ms",
            copy_ns((size_t)length->capture_bytes) / 1e6, "copying its bytes", 0, false);
    }
}

/* ---- streams ------------------------------------------------------------------------------- */

struct direct {
    struct kern_ctx *ctx;
    struct paramem_model *model;
    struct paramem_engine *engine;
};

static void direct_open(struct scene *scene, struct direct *direct)
{
    struct memos_error err;
    const struct kern_options kern = {.backend = scene->options->backend,
        .threads = (unsigned)strtoul(scene->options->threads, NULL, 10)};
    bench_check(kern_ctx_create(&kern, &direct->ctx, &err), &err, "kernels");
    struct paramem_model_options model = {
        .path = scene->folder, .ctx = direct->ctx, .context_max = CONTEXT};
    bench_check(paramem_model_open(&model, &direct->model, &err), &err, "the model");
    struct paramem_engine_options engine = {
        .model = direct->model, .kv_bytes = (size_t)1 << 30, .sequences_max = 16};
    bench_check(paramem_engine_create(&engine, &direct->engine, &err), &err, "an engine");
}

static void on_token(void *self, const struct paramem_token *token)
{
    (void)token;
    ++*(size_t *)self;
}

static void on_done(void *self, const struct paramem_result *result)
{
    (void)self;
    if (result->finish != PARAMEM_FINISH_LENGTH) {
        bench_fail("an answer ended early");
    }
}

/* Tokens a second of `streams` answers at once, by the engine in this process. */
static double stream_direct(struct scene *scene, struct direct *direct, size_t streams)
{
    struct memos_error err;
    uint32_t prompt[STREAM_PROMPT];
    size_t heard = 0;
    bool more = true;
    int64_t begin = bench_now_ns();
    for (size_t i = 0; i < streams; i++) {
        uint64_t id;
        struct paramem_request request = {.prompt = prompt,
            .prompt_count = STREAM_PROMPT,
            .max_tokens = STREAM_TOKENS,
            .on_token = on_token,
            .on_done = on_done,
            .self = &heard};
        for (size_t j = 0; j < STREAM_PROMPT; j++) {
            prompt[j] = (uint32_t)(bench_next(&scene->state) % 250);
        }
        bench_check(paramem_engine_submit(direct->engine, &request, &id, &err), &err, "submit");
    }
    while (more) {
        bench_check(paramem_engine_step(direct->engine, &more, &err), &err, "a step");
    }
    return (double)heard * 1e9 / (double)(bench_now_ns() - begin);
}

/* The same through broker and worker. */
static double stream_broker(struct scene *scene, size_t streams)
{
    char prompt[STREAM_PROMPT];
    size_t heard = 0, left = streams;
    int64_t begin = bench_now_ns();
    for (size_t i = 0; i < streams; i++) {
        letters(scene, prompt, sizeof prompt);
        (void)generate_send(scene, NULL, 0, memos_bytes_make(prompt, sizeof prompt), STREAM_TOKENS);
    }
    while (left > 0) {
        struct memos_message *message = receive(scene);
        const Memos__Reply *reply = memos_message_reply(message);
        heard += reply->body_case == MEMOS__REPLY__BODY_TOKENS ? reply->tokens->n_tokens : 0;
        left -= !reply->more;
        memos_message_free(&message);
    }
    double took = (double)(bench_now_ns() - begin);
    if (heard != streams * STREAM_TOKENS) {
        bench_fail("%zu tokens came, not %zu", heard, streams * STREAM_TOKENS);
    }
    return (double)heard * 1e9 / took;
}

static void measure_streams(struct scene *scene)
{
    static const size_t counts[] = {1, STREAMS_MAX};
    struct direct direct;
    pid_t worker = worker_start(scene, "mapped");
    direct_open(scene, &direct);
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        double through[ROUNDS_MAX], alone[ROUNDS_MAX];
        char name[NAME_BYTES];
        (void)stream_direct(scene, &direct, counts[c]);
        (void)stream_broker(scene, counts[c]);
        for (size_t i = 0; i < ROUNDS_MAX; i++) {
            alone[i] = stream_direct(scene, &direct, counts[c]);
            through[i] = stream_broker(scene, counts[c]);
            bench_say("batch %zu: %.2f directly, %.2f through the broker", counts[c], alone[i],
                through[i]);
        }
        (void)snprintf(name, sizeof name, "tokens streamed, batch %zu", counts[c]);
        row_add(scene, name, median(through, ROUNDS_MAX), "tokens/s", median(alone, ROUNDS_MAX),
            "the engine in this process", 0.98, true);
    }
    paramem_engine_destroy(&direct.engine);
    paramem_model_close(&direct.model);
    kern_ctx_destroy(&direct.ctx);
    programs_stop(worker);
}

/* ---- the program --------------------------------------------------------------------------- */

static void measure_first_tokens(struct scene *scene)
{
    static const char *const kinds[] = {"mapped", "ipc", "tcp"};
    pid_t worker = worker_start(scene, "mapped");
    measure_frame(scene);
    (void)read_anew(scene, scene->lengths[0].tokens);
    measure_types(scene);
    for (size_t i = 0; i < scene->lengths_count; i++) {
        measure_length(scene, &scene->lengths[i]);
    }
    programs_stop(worker);
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        worker = worker_start(scene, kinds[k]);
        (void)read_anew(scene, scene->lengths[0].tokens);
        for (size_t i = 0; i < scene->lengths_count; i++) {
            measure_loading(scene, &scene->lengths[i], kinds[k]);
        }
        programs_stop(worker);
    }
}

static void scene_open(struct scene *scene)
{
    static const size_t lengths[LENGTHS] = {256, 384, 512, 1024, 2048, 4096, 6144, 8000};
    static struct random_shape shape;
    const struct random_shape *found = random_shape_find(scene->options->shape);
    size_t longest = strtoul(scene->options->longest, NULL, 10);
    if (!found) {
        bench_fail("--shape llama1b|qwen06b|llama8b|tiny");
    }
    shape = *found;
    shape.layers = scene->bench->quick && shape.layers > 4 ? 4 : shape.layers;
    scene->shape = &shape;
    for (size_t i = 0; i < LENGTHS && lengths[i] <= longest; i++) {
        scene->lengths[i] = (struct length){.tokens = lengths[i],
            .rounds = lengths[i] <= 1024   ? ROUNDS_MAX
                      : lengths[i] <= 2048 ? 3
                                           : 1};
        scene->lengths_count++;
    }
    if (scene->lengths_count == 0) {
        bench_fail("--longest takes %zu or more", lengths[0]);
    }
    bench_path(scene->bench, "random", scene->folder);
    if (mkdir(scene->folder, 0700) != 0) {
        bench_fail("%s cannot be made", scene->folder);
    }
    bench_say("%s of %zu layers as files", shape.like, shape.layers);
    random_model_write(&shape, scene->folder);
    programs_ipc(scene->bench, "broker", scene->ipc);
    programs_tcp(scene->tcp);
}

int main(int argc, char **argv)
{
    struct options options = {
        .shape = "llama1b", .backend = "cpu", .threads = "2", .capture = "bf16", .only = ""};
    const struct bench_option ours[] = {{"--shape", &options.shape},
        {"--backend", &options.backend}, {"--threads", &options.threads},
        {"--capture", &options.capture}, {"--longest", &options.longest},
        {"--only", &options.only}};
    struct bench bench;
    struct scene scene = {.bench = &bench, .options = &options, .state = 3};

    argc = bench_options_take(ours, sizeof ours / sizeof ours[0], argc, argv);
    bench_begin(&bench, "bench_worker", argc, argv);
    options.longest = options.longest ? options.longest : bench.quick ? "1024" : "6144";
    scene_open(&scene);
    pid_t broker = programs_broker(&bench, scene.ipc, scene.tcp);
    scene.client = programs_connect(scene.ipc);
    programs_let_in_loopback(scene.client);
    if (strcmp(options.only, "streams") != 0) {
        measure_first_tokens(&scene);
    }
    if (strcmp(options.only, "first") != 0) {
        measure_streams(&scene);
    }
    memos_client_close(&scene.client);
    programs_stop(broker);
    return bench_end(&bench);
}
