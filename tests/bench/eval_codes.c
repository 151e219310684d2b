/* What compact vectors lose, with the product's own codes; tools/eval/vectors drives it.
 *
 *   eval_codes embed FOLDER passage|query < TEXTS > VECTORS
 *   eval_codes rank DOCS QUERIES DIMS TOP_K FOLDER
 *
 * TEXTS: each its length (u32, little endian) and its bytes. VECTORS: float32, one row after the
 * other. `rank` reads unit vectors of documents and queries, codes the documents in every way there
 * is, searches them exhaustively, and writes to FOLDER/NAME.ids the numbers of each query's best
 * documents (u32, TOP_K of them, best first); on standard output a line of JSON for each way. What
 * needs a sample to be fitted to (ranges, PCA) gets at most 20,000 of the documents. */
#include "paramem/encoder.h"
#include "retrieval/pca.h"
#include "retrieval/vector_code.h"
#include "tests/bench/bench.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLE_MAX = 20000, TEXTS_AT_ONCE = 256, TEXT_BYTES_MAX = 1 << 20 };

/* ---- embed --------------------------------------------------------------------------------- */

static bool read_text(struct memos_bytes *out)
{
    uint8_t head[4];
    size_t got = fread(head, 1, sizeof head, stdin);
    if (got == 0) {
        return false;
    }
    size_t size =
        (size_t)head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 | (size_t)head[3] << 24;
    if (got != sizeof head || size > TEXT_BYTES_MAX) {
        bench_fail("a text's length is missing, or more than %d", TEXT_BYTES_MAX);
    }
    char *text = bench_memory(size + 1, 1);
    if (fread(text, 1, size, stdin) != size) {
        bench_fail("a text is cut off");
    }
    *out = memos_bytes_make(text, size);
    return true;
}

static int embed(const char *folder, const char *role)
{
    struct memos_error err = {0};
    struct paramem_encoder *encoder = NULL;
    struct paramem_encoder_info info;
    const struct paramem_encoder_options options = {.path = folder};
    bench_check(paramem_encoder_open(&options, &encoder, &err), &err, "open the encoder");
    paramem_encoder_describe(encoder, &info);
    float *vectors = bench_memory(TEXTS_AT_ONCE * info.dims, sizeof *vectors);
    size_t count;
    do {
        struct memos_bytes texts[TEXTS_AT_ONCE];
        for (count = 0; count < TEXTS_AT_ONCE && read_text(&texts[count]);) {
            count++;
        }
        bench_check(
            paramem_encoder_encode(encoder, texts, count,
                strcmp(role, "query") == 0 ? PARAMEM_QUERY : PARAMEM_PASSAGE, vectors, &err),
            &err, "encode");
        if (fwrite(vectors, info.dims * sizeof *vectors, count, stdout) != count) {
            bench_fail("cannot write the vectors");
        }
        for (size_t i = 0; i < count; i++) {
            free((void *)(uintptr_t)texts[i].data);
        }
    } while (count == TEXTS_AT_ONCE);
    free(vectors);
    paramem_encoder_close(&encoder);
    return fflush(stdout) == 0 ? 0 : 1;
}

/* ---- rank ---------------------------------------------------------------------------------- */

struct vectors {
    float *values;
    size_t count;
};

struct task {
    struct vectors docs, queries;
    size_t dims, top_k;
    const char *folder;
};

/* One way to store vectors of `dims` components (after PCA: fewer). */
struct way {
    const char *name;
    enum kern_dtype dtype;
    enum { SCALED, PLAIN, RANGES } kind; /* by retrieval_code_encode, by a mere cast, by ranges */
    bool reduced;                        /* to half, by PCA */
};

static const struct way ways[] = {
    {"f32", KERN_F32, SCALED, false},
    {"f16", KERN_F16, SCALED, false},
    {"bf16", KERN_BF16, SCALED, false},
    {"e4m3", KERN_E4M3, SCALED, false},
    {"e5m2", KERN_E5M2, SCALED, false},
    {"i8", KERN_I8, SCALED, false},
    {"e4m3-plain", KERN_E4M3, PLAIN, false},
    {"e5m2-plain", KERN_E5M2, PLAIN, false},
    {"i8-ranges", KERN_I8, RANGES, false},
    {"pca-f32", KERN_F32, SCALED, true},
    {"pca-f16", KERN_F16, SCALED, true},
    {"pca-e4m3", KERN_E4M3, SCALED, true},
    {"pca-i8", KERN_I8, SCALED, true},
};

static struct vectors read_vectors(const char *path, size_t dims)
{
    FILE *file = fopen(path, "rbe");
    if (!file || fseek(file, 0, SEEK_END) != 0) {
        bench_fail("cannot read '%s': %s", path, strerror(errno));
    }
    long size = ftell(file);
    size_t row = dims * sizeof(float);
    if (size <= 0 || (size_t)size % row != 0) {
        bench_fail("'%s' has no whole number of vectors of %zu dims", path, dims);
    }
    struct vectors vectors = {bench_memory((size_t)size, 1), (size_t)size / row};
    rewind(file);
    if (fread(vectors.values, row, vectors.count, file) != vectors.count) {
        bench_fail("cannot read '%s'", path);
    }
    (void)fclose(file);
    return vectors;
}

/* At most SAMPLE_MAX rows at even distances. */
static struct vectors take_sample(const struct vectors *from, size_t dims)
{
    struct vectors sample = {.count = from->count < SAMPLE_MAX ? from->count : SAMPLE_MAX};
    sample.values = bench_memory(sample.count * dims, sizeof(float));
    for (size_t i = 0; i < sample.count; i++) {
        memcpy(sample.values + i * dims, from->values + i * from->count / sample.count * dims,
            dims * sizeof(float));
    }
    return sample;
}

/* A table of codes, and how a query is turned before it is scanned. */
struct table {
    uint8_t *codes;
    float *scales;  /* NULL: all one */
    float *ranges;  /* NULL: not by ranges */
    double code_ns; /* for one document */
};

static struct table make_table(const struct way *way, const struct vectors *docs, size_t dims)
{
    size_t row = retrieval_code_bytes(way->dtype, dims);
    struct table table = {.codes = bench_memory(docs->count, row)};
    if (way->kind == RANGES) {
        struct vectors sample = take_sample(docs, dims);
        table.ranges = bench_memory(dims, sizeof(float));
        retrieval_ranges_fit(sample.values, sample.count, dims, table.ranges);
        free(sample.values);
    } else if (way->kind == SCALED) {
        table.scales = bench_memory(docs->count, sizeof(float));
    }
    int64_t begun = bench_now_ns();
    for (size_t i = 0; i < docs->count; i++) {
        const float *vector = docs->values + i * dims;
        uint8_t *codes = table.codes + i * row;
        if (way->kind == RANGES) {
            retrieval_ranges_encode(table.ranges, vector, dims, (int8_t *)codes);
        } else if (way->kind == PLAIN) {
            kern_from_f32(way->dtype, vector, codes, dims);
        } else {
            table.scales[i] = retrieval_code_encode(way->dtype, vector, dims, codes);
        }
    }
    table.code_ns = (double)(bench_now_ns() - begun) / (double)docs->count;
    return table;
}

/* The numbers of the top_k largest scores, largest first; of equal ones the smaller number. */
static void best_of(const float *scores, size_t count, size_t top_k, uint32_t *out, float *best)
{
    size_t filled = 0;
    for (size_t i = 0; i < count; i++) {
        if (filled == top_k && !(scores[i] > best[filled - 1])) {
            continue;
        }
        size_t at = filled < top_k ? filled++ : filled - 1;
        for (; at > 0 && scores[i] > best[at - 1]; at--) {
            best[at] = best[at - 1];
            out[at] = out[at - 1];
        }
        best[at] = scores[i];
        out[at] = (uint32_t)i;
    }
    for (; filled < top_k; filled++) {
        out[filled] = UINT32_MAX;
    }
}

static void write_ids(const struct task *task, const struct way *way, const uint32_t *ids)
{
    char path[BENCH_PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s.ids", task->folder, way->name);
    FILE *file = fopen(path, "wbe");
    size_t count = task->queries.count * task->top_k;
    if (!file || fwrite(ids, sizeof *ids, count, file) != count || fclose(file) != 0) {
        bench_fail("cannot write '%s': %s", path, strerror(errno));
    }
}

/* Search all queries in one way; docs and queries have `dims` components by now. */
static void rank_way(const struct task *task, const struct way *way, const struct vectors *docs,
    const struct vectors *queries, size_t dims)
{
    struct table table = make_table(way, docs, dims);
    float *scores = bench_memory(docs->count, sizeof *scores);
    float *best = bench_memory(task->top_k, sizeof *best);
    float *turned = bench_memory(dims, sizeof *turned);
    uint32_t *ids = bench_memory(queries->count * task->top_k, sizeof *ids);
    int64_t *times = bench_memory(queries->count, sizeof *times);
    for (size_t i = 0; i < queries->count; i++) {
        const float *query = queries->values + i * dims;
        if (table.ranges) {
            retrieval_ranges_query(table.ranges, query, dims, turned);
            query = turned;
        }
        int64_t begun = bench_now_ns();
        kern_scan(way->dtype, table.codes, table.scales, docs->count, dims, query, scores);
        times[i] = bench_now_ns() - begun;
        best_of(scores, docs->count, task->top_k, ids + i * task->top_k, best);
    }
    write_ids(task, way, ids);
    printf("{\"codes\": \"%s\", \"dims\": %zu, \"bytes\": %zu, \"scan_ns\": %.2f, "
           "\"code_us\": %.2f}\n",
        way->name, dims,
        retrieval_code_bytes(way->dtype, dims) + (table.scales && way->dtype >= KERN_E4M3 ? 4 : 0),
        bench_percentile(times, queries->count, 50) / (double)docs->count, table.code_ns / 1e3);
    free(table.codes);
    free(table.scales);
    free(table.ranges);
    free(scores);
    free(best);
    free(turned);
    free(ids);
    free(times);
}

/* Documents and queries to `kept` components, fitted to the documents. */
static void reduce(struct vectors *docs, struct vectors *queries, size_t dims, size_t kept)
{
    struct memos_error err = {0};
    struct retrieval_pca *pca = NULL;
    struct vectors sample = take_sample(docs, dims);
    bench_check(retrieval_pca_fit(sample.values, sample.count, dims, kept, &pca, &err), &err,
        "fit the components");
    struct vectors *both[] = {docs, queries};
    for (size_t i = 0; i < 2; i++) {
        float *reduced = bench_memory(both[i]->count * kept, sizeof *reduced);
        retrieval_pca_apply(pca, both[i]->values, both[i]->count, reduced);
        both[i]->values = reduced;
    }
    bench_say("PCA: %zu of %zu components have %.1f%% of the variance", kept, dims,
        100.0 * (double)retrieval_pca_explained(pca));
    retrieval_pca_free(&pca);
    free(sample.values);
}

static int rank(char **argv)
{
    struct task task = {
        .dims = strtoul(argv[2], NULL, 10), .top_k = strtoul(argv[3], NULL, 10), .folder = argv[4]};
    if (task.dims < 1 || task.dims > 4096 || task.top_k < 1 || task.top_k > 10000) {
        bench_fail("DIMS is 1 to 4096, TOP_K 1 to 10000");
    }
    task.docs = read_vectors(argv[0], task.dims);
    task.queries = read_vectors(argv[1], task.dims);
    struct vectors docs = task.docs, queries = task.queries;
    const size_t kept = task.dims / 2;
    reduce(&docs, &queries, task.dims, kept);
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        if (ways[i].reduced) {
            rank_way(&task, &ways[i], &docs, &queries, kept);
        } else {
            rank_way(&task, &ways[i], &task.docs, &task.queries, task.dims);
        }
    }
    free(task.docs.values);
    free(task.queries.values);
    free(docs.values);
    free(queries.values);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "embed") == 0) {
        return embed(argv[2], argv[3]);
    }
    if (argc == 7 && strcmp(argv[1], "rank") == 0) {
        return rank(argv + 2);
    }
    fputs("usage: eval_codes embed FOLDER passage|query < TEXTS > VECTORS\n"
          "       eval_codes rank DOCS QUERIES DIMS TOP_K FOLDER\n",
        stderr);
    return 2;
}
