/* Sentences into vectors: the tokenizer, one question, many turns, beside sentence-transformers.
 *
 *     bench_encoder [--encoder FOLDER] [--turns FILE] [--questions FILE] [--peers FILE] ...
 *
 * Turns and questions are JSON lines with the fields "text" and "question" (LoCoMo's turns.jsonl
 * and qa.jsonl). --peers names a file of JSON lines that say what others did on this machine, just
 * now:
 * {"peer": "sentence-transformers", "one_ms_p50": ..., "bulk_per_s": ...} and
 * {"peer": "tokenizers", "mb_per_s": ...}; without it there is nothing to compare with. */
#include "paramem/encoder.h"
#include "paramem/wordpiece.h"
#include "tests/bench/bench.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TEXTS_MAX 100000
#define LINE_BYTES 65536
#define PATH_BYTES 1024

struct texts {
    struct memos_bytes *items;
    size_t count, bytes;
};

struct rivals {
    double one_ms, bulk_per_s, tokens_mb_per_s; /* 0: not known */
};

struct options {
    const char *encoder, *turns, *questions, *peers;
};

/* ---- what is read -------------------------------------------------------------------------- */

/* Take our options out of argv, so that the common ones are left. Returns the new argc. */
static int options_take(struct options *options, int argc, char **argv)
{
    const struct {
        const char *name, **value;
    } ours[] = {{"--encoder", &options->encoder}, {"--turns", &options->turns},
        {"--questions", &options->questions}, {"--peers", &options->peers}};
    int kept = 1;
    for (int i = 1; i < argc; i++) {
        bool taken = false;
        for (size_t o = 0; o < sizeof ours / sizeof ours[0]; o++) {
            if (!taken && strcmp(argv[i], ours[o].name) == 0 && i + 1 < argc) {
                *ours[o].value = argv[++i];
                taken = true;
            }
        }
        if (!taken) {
            argv[kept++] = argv[i];
        }
    }
    argv[kept] = NULL;
    return kept;
}

static struct texts texts_read(const char *path, const char *field, size_t most)
{
    struct texts texts = {.items = bench_memory(TEXTS_MAX, sizeof *texts.items)};
    char *line = bench_memory(LINE_BYTES, 1);
    FILE *file = fopen(path, "r");
    if (!file) {
        bench_fail("cannot read %s (--turns and --questions say where they are)", path);
    }
    while (texts.count < most && fgets(line, LINE_BYTES, file)) {
        json_t *json = json_loads(line, 0, NULL);
        const char *text = json_string_value(json_object_get(json, field));
        if (text) {
            struct memos_bytes *item = &texts.items[texts.count++];
            item->size = strlen(text);
            item->data = memcpy(bench_memory(item->size + 1, 1), text, item->size);
            texts.bytes += item->size;
        }
        json_decref(json);
    }
    (void)fclose(file);
    free(line);
    if (texts.count == 0) {
        bench_fail("%s has no \"%s\"", path, field);
    }
    return texts;
}

static void texts_free(struct texts *texts)
{
    for (size_t i = 0; i < texts->count; i++) {
        free((void *)(uintptr_t)texts->items[i].data);
    }
    free(texts->items);
}

static struct rivals rivals_read(const char *path)
{
    struct rivals rivals = {0};
    char line[4096];
    FILE *file = path ? fopen(path, "r") : NULL;
    if (path && !file) {
        bench_fail("cannot read %s", path);
    }
    while (file && fgets(line, sizeof line, file)) {
        json_t *json = json_loads(line, 0, NULL);
        const char *peer = json_string_value(json_object_get(json, "peer"));
        if (peer && strcmp(peer, "sentence-transformers") == 0) {
            rivals.one_ms = json_number_value(json_object_get(json, "one_ms_p50"));
            rivals.bulk_per_s = json_number_value(json_object_get(json, "bulk_per_s"));
        } else if (peer && strcmp(peer, "tokenizers") == 0) {
            rivals.tokens_mb_per_s = json_number_value(json_object_get(json, "mb_per_s"));
        }
        json_decref(json);
    }
    if (file) {
        (void)fclose(file);
    }
    return rivals;
}

/* ---- what is measured ---------------------------------------------------------------------- */

static void measure_tokenizer(
    struct bench *bench, const char *folder, const struct texts *texts, const struct rivals *rivals)
{
    enum { IDS_MAX = 65536, ROUNDS = 9 };
    struct memos_error err;
    struct paramem_config config;
    struct paramem_wordpiece *wordpiece = NULL;
    int64_t times[ROUNDS];
    uint32_t *ids = bench_memory(IDS_MAX, sizeof *ids);

    bench_check(paramem_config_read(folder, &config, &err), &err, "configuration");
    bench_check(paramem_wordpiece_open(folder, &config, &wordpiece, &err), &err, "tokenizer");
    for (size_t round = 0; round < ROUNDS; round++) {
        int64_t begin = bench_now_ns();
        for (size_t i = 0; i < texts->count; i++) {
            size_t count;
            bench_check(paramem_wordpiece_encode(wordpiece, memos_bytes_make(NULL, 0),
                            texts->items[i], ids, IDS_MAX, &count, NULL, &err),
                &err, "tokenize");
        }
        times[round] = bench_now_ns() - begin;
    }
    paramem_wordpiece_close(&wordpiece);
    free(ids);
    bench_add(
        bench, (struct bench_row){.name = "tokenizer, turns",
                   .value = (double)texts->bytes * 1e3 / bench_percentile(times, ROUNDS, 50.0),
                   .unit = "MB/s",
                   .limit = rivals->tokens_mb_per_s,
                   .limit_name = "tokenizers, a batch",
                   .bar = 5.0,
                   .higher_is_better = true});
}

static struct paramem_encoder *encoder_open(
    const char *folder, enum kern_dtype weights, double *out_seconds)
{
    struct paramem_encoder_options options = {.path = folder, .weights = weights};
    struct paramem_encoder *encoder = NULL;
    struct memos_error err;
    int64_t begin = bench_now_ns();
    bench_check(paramem_encoder_open(&options, &encoder, &err), &err, "encoder");
    *out_seconds = (double)(bench_now_ns() - begin) / 1e9;
    return encoder;
}

static void encode(
    struct paramem_encoder *encoder, const struct memos_bytes *texts, size_t count, float *out)
{
    struct memos_error err;
    bench_check(
        paramem_encoder_encode(encoder, texts, count, PARAMEM_PASSAGE, out, &err), &err, "encode");
}

struct names {
    enum kern_dtype weights;
    const char *open, *one, *bulk;
};

static void measure_encoder(struct bench *bench, const char *folder, const struct names *names,
    const struct texts *turns, const struct texts *questions, const struct rivals *rivals)
{
    double open_seconds;
    struct paramem_encoder *encoder = encoder_open(folder, names->weights, &open_seconds);
    struct paramem_encoder_info info;
    paramem_encoder_describe(encoder, &info);
    float *out = bench_memory(turns->count + questions->count, info.dims * sizeof *out);
    int64_t *times = bench_memory(questions->count, sizeof *times);

    bench_say("%s, %s", info.kern, kern_dtype_name(info.weights));
    encode(encoder, questions->items, questions->count < 20 ? questions->count : 20, out);
    for (size_t i = 0; i < questions->count; i++) {
        int64_t begin = bench_now_ns();
        encode(encoder, &questions->items[i], 1, out);
        times[i] = bench_now_ns() - begin;
    }
    int64_t begin = bench_now_ns();
    encode(encoder, turns->items, turns->count, out);
    double seconds = (double)(bench_now_ns() - begin) / 1e9;
    bench_add(bench, (struct bench_row){.name = names->open, .value = open_seconds, .unit = "s"});
    bench_add(bench, (struct bench_row){.name = names->one,
                         .value = bench_percentile(times, questions->count, 50.0) / 1e6,
                         .unit = "ms",
                         .limit = rivals->one_ms,
                         .limit_name = "sentence-transformers",
                         .bar = 1.0});
    bench_add(bench, (struct bench_row){.name = names->bulk,
                         .value = (double)turns->count / seconds,
                         .unit = "turns/s",
                         .limit = rivals->bulk_per_s,
                         .limit_name = "sentence-transformers",
                         .bar = 1.0,
                         .higher_is_better = true});
    paramem_encoder_close(&encoder);
    free(out);
    free(times);
}

static const char *encoder_folder(const struct options *options, char out[PATH_BYTES])
{
    const char *given = options->encoder ? options->encoder : getenv("MEMOS_ENCODER_DIR");
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    if (given) {
        return given;
    }
    (void)snprintf(out, PATH_BYTES, "%s%s/memos/encoders/minilm", data ? data : (home ? home : ""),
        data ? "" : "/.local/share");
    return out;
}

int main(int argc, char **argv)
{
    static const struct names names[] = {
        {KERN_F32, "f32: open", "f32: one question, p50", "f32: turns in bulk"},
        {KERN_BF16, "bf16: open", "bf16: one question, p50", "bf16: turns in bulk"},
        {KERN_I8, "i8: open", "i8: one question, p50", "i8: turns in bulk"}};
    struct options options = {.turns = "../shared/data/locomo/turns.jsonl",
        .questions = "../shared/data/locomo/qa.jsonl"};
    struct bench bench;
    char path[PATH_BYTES];

    argc = options_take(&options, argc, argv);
    bench_begin(&bench, "bench_encoder", argc, argv);
    const char *folder = encoder_folder(&options, path);
    if (access(folder, R_OK) != 0 || access(options.turns, R_OK) != 0) {
        bench_say("skipped: no encoder in %s, or no %s", folder, options.turns);
        return bench_end(&bench);
    }
    struct rivals rivals = rivals_read(options.peers);
    struct texts turns = texts_read(options.turns, "text", bench.quick ? 300 : TEXTS_MAX);
    struct texts questions = texts_read(options.questions, "question", bench.quick ? 30 : 200);
    measure_tokenizer(&bench, folder, &turns, &rivals);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        measure_encoder(&bench, folder, &names[i], &turns, &questions, &rivals);
    }
    texts_free(&turns);
    texts_free(&questions);
    return bench_end(&bench);
}
