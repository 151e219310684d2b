/* How well and how fast the approximate indexes find, beside FAISS called directly, and how long
 * the cluster tree takes to build and to route in.
 *
 * The vectors are planted: of 384 numbers, around centres of two kinds, coarse and fine, so that
 * some neighbours lie in other lists. Recall is that of the ten nearest among forty that are asked
 * for, as a search that ranks exactly afterwards would see it. Building is measured in processors'
 * time. */
#include "retrieval/ann.h"
#include "retrieval/ann_internal.h"
#include "retrieval/faiss_c.h"
#include "retrieval/tree.h"
#include "tests/bench/bench.h"
#include "tests/retrieval/planted.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DIMS 384
#define QUERIES 200
#define TOP 10
#define WIDE (4 * TOP)
#define ROUNDS 3

/* Vectors in memory: what is measured is not how they are made. */
struct vectors {
    float *values; /* (count + QUERIES, DIMS) */
    uint64_t count;
    int64_t *nearest; /* (QUERIES, TOP), exactly */
};

/* Seconds that processors have worked for us: what building costs, whoever else is at work. */
static double work_seconds(void)
{
    struct timespec spec;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spec);
    return (double)spec.tv_sec + (double)spec.tv_nsec / 1e9;
}

static const float *query_of(const struct vectors *v, size_t query)
{
    return v->values + (v->count + query) * DIMS;
}

static void vectors_copy(void *self, uint64_t first, size_t count, float *out)
{
    const struct vectors *v = self;
    memcpy(out, v->values + first * DIMS, count * DIMS * sizeof *out);
}

static void vectors_make(struct vectors *v, uint64_t count)
{
    struct planted coarse, fine;
    size_t all = (size_t)count + QUERIES;
    float *part = bench_memory(DIMS, sizeof *part);
    planted_make(&coarse, 1, DIMS, 100, 0.0f);
    planted_make(&fine, 2, DIMS, (size_t)count / 50, 0.9f);
    *v = (struct vectors){.values = bench_memory(all, DIMS * sizeof(float)), .count = count};
    for (size_t i = 0; i < all; i++) {
        float *value = v->values + i * DIMS, square = 0.0f;
        planted_vectors(&fine, i, 1, value);
        /* each fine centre lies near a coarse one, whose number its own picks */
        planted_vectors(&coarse, planted_centre(&fine, i) % 100, 1, part);
        for (size_t j = 0; j < DIMS; j++) {
            value[j] += 0.7f * part[j];
            square += value[j] * value[j];
        }
        for (size_t j = 0; j < DIMS; j++) {
            value[j] /= __builtin_sqrtf(square);
        }
    }
    free(part);
    planted_free(&coarse);
    planted_free(&fine);
}

static struct retrieval_ann *build(
    struct vectors *v, enum retrieval_ann_type type, double *out_seconds)
{
    struct retrieval_ann *ann = NULL;
    struct memos_error err;
    struct retrieval_ann_build options = {
        .type = type, .dims = DIMS, .count = v->count, .vectors = vectors_copy, .self = v};
    double start = work_seconds();
    bench_check(retrieval_ann_build(&options, &ann, &err), &err, "build");
    *out_seconds = work_seconds() - start;
    return ann;
}

/* The exact neighbours, from a flat index. */
static void vectors_solve(struct vectors *v)
{
    double seconds;
    float scores[TOP];
    struct memos_error err;
    struct retrieval_ann *flat = build(v, RETRIEVAL_ANN_FLAT, &seconds);
    v->nearest = bench_memory(QUERIES * TOP, sizeof *v->nearest);
    for (size_t i = 0; i < QUERIES; i++) {
        size_t count;
        bench_check(retrieval_ann_search(flat, query_of(v, i), NULL, 0, TOP, v->nearest + i * TOP,
                        scores, &count, &err),
            &err, "search");
    }
    retrieval_ann_free(&flat);
}

/* Search for all questions by ours or by FAISS alone; times of each, and hits among the nearest. */
static size_t ask(const struct vectors *v, const struct retrieval_ann *ann, bool direct,
    int64_t times_ns[QUERIES])
{
    int64_t labels[WIDE];
    float scores[WIDE];
    struct memos_error err;
    size_t hits = 0;
    for (size_t i = 0; i < QUERIES; i++) {
        size_t count = WIDE;
        int64_t start_ns = bench_now_ns();
        if (!direct) {
            bench_check(retrieval_ann_search(
                            ann, query_of(v, i), NULL, 0, WIDE, labels, scores, &count, &err),
                &err, "search");
        } else if (faiss_Index_search(ann->index, 1, query_of(v, i), WIDE, scores, labels) != 0) {
            bench_fail("faiss: %s", faiss_get_last_error());
        }
        times_ns[i] = bench_now_ns() - start_ns;
        for (size_t j = 0; j < count; j++) {
            for (size_t k = 0; k < TOP; k++) {
                hits += labels[j] == v->nearest[i * TOP + k];
            }
        }
    }
    return hits;
}

static const char *name_of(const char *format, const struct retrieval_ann *ann)
{
    char *name = bench_memory(128, 1);
    (void)snprintf(name, 128, "%llu vectors, %s, %.0f MB: %s",
        (unsigned long long)retrieval_ann_count(ann), retrieval_ann_describe(ann),
        (double)retrieval_ann_bytes(ann) / 1e6, format);
    return name; /* rows keep it until the end */
}

static double least(double a, double b)
{
    return a > 0 && a < b ? a : b;
}

static void time_type(struct bench *bench, struct vectors *v, enum retrieval_ann_type type)
{
    int64_t times_ns[QUERIES];
    double seconds, ours = 0, direct = 0;
    size_t hits = 0;

    struct retrieval_ann *ann = build(v, type, &seconds);
    bench_say("  %s: built in %.1f s of processors' time", retrieval_ann_describe(ann), seconds);
    (void)ask(v, ann, true, times_ns);
    for (size_t round = 0; round < ROUNDS; round++) {
        hits = ask(v, ann, false, times_ns);
        ours = least(ours, bench_percentile(times_ns, QUERIES, 50) / 1e3);
        (void)ask(v, ann, true, times_ns);
        direct = least(direct, bench_percentile(times_ns, QUERIES, 50) / 1e3);
    }
    bench_say("    search %.0f us, FAISS directly %.0f us, %zu of %d found", ours, direct, hits,
        QUERIES * TOP);
    bench_add(bench,
        (struct bench_row){.name = name_of("built", ann), .value = seconds, .unit = "cpu s"});
    bench_add(bench, (struct bench_row){name_of("search, p50", ann), ours, "us", direct,
                         "FAISS directly", 1.2, false});
    bench_add(bench, (struct bench_row){name_of("recall@10 of 40", ann),
                         (double)hits / (QUERIES * TOP), "", 0.95, "the target", 1, true});
    retrieval_ann_free(&ann);
}

static void time_tree(struct bench *bench, struct vectors *v)
{
    static const uint8_t fingerprint[32];
    int64_t times_ns[QUERIES];
    struct memos_error err;
    struct retrieval_tree tree;
    struct memos_buffer payload = memos_buffer_make((size_t)1 << 30);
    struct retrieval_tree_source source = {
        .dims = DIMS, .count = v->count, .vectors = vectors_copy, .self = v};
    struct retrieval_tree_options options = {.levels = 4};

    double start = work_seconds();
    bench_check(retrieval_tree_build(&options, &source, fingerprint, &payload, &err), &err, "tree");
    double seconds = work_seconds() - start;
    bench_say("  tree: built in %.1f s of processors' time", seconds);
    bench_check(retrieval_tree_open(memos_buffer_view(&payload), &tree, &err), &err, "open");
    size_t depth = 0;
    for (size_t i = 0; i < QUERIES; i++) {
        uint32_t path[RETRIEVAL_TREE_LEVELS_MAX];
        int64_t start_ns = bench_now_ns();
        depth += retrieval_tree_route(&tree, query_of(v, i), path);
        times_ns[i] = bench_now_ns() - start_ns;
    }
    char *name = bench_memory(128, 1);
    (void)snprintf(name, 128, "%llu vectors, tree of %u nodes, %.0f MB: built",
        (unsigned long long)v->count, tree.nodes_count, (double)payload.size / 1e6);
    bench_add(bench, (struct bench_row){.name = name, .value = seconds, .unit = "cpu s"});
    name = bench_memory(128, 1);
    (void)snprintf(name, 128, "%llu vectors, tree: route, %.1f levels, p50",
        (unsigned long long)v->count, (double)depth / QUERIES);
    bench_add(bench, (struct bench_row){name, bench_percentile(times_ns, QUERIES, 50) / 1e3, "us",
                         20, "the target", 1, false});
    memos_buffer_free(&payload);
}

int main(int argc, char **argv)
{
    static const struct {
        uint64_t count;
        enum retrieval_ann_type types[5]; /* up to AUTO, which is 0 */
    } runs[] = {
        {10000, {RETRIEVAL_ANN_FLAT, RETRIEVAL_ANN_HNSW, RETRIEVAL_ANN_IVF_SQ8}},
        {100000, {RETRIEVAL_ANN_FLAT, RETRIEVAL_ANN_IVF_SQ8, RETRIEVAL_ANN_IVF_PQ,
                     RETRIEVAL_ANN_IVF_FLAT}},
        {1000000, {RETRIEVAL_ANN_IVF_SQ8, RETRIEVAL_ANN_IVF_PQ}},
    };
    struct bench bench;
    bench_begin(&bench, "bench_ann", argc, argv);
    for (size_t i = 0; i < (bench.quick ? 1 : bench.full ? 3 : 2); i++) {
        struct vectors vectors;
        bench_say("%llu vectors", (unsigned long long)runs[i].count);
        vectors_make(&vectors, runs[i].count);
        vectors_solve(&vectors);
        for (size_t j = 0; j < 5 && runs[i].types[j] != RETRIEVAL_ANN_AUTO; j++) {
            time_type(&bench, &vectors, runs[i].types[j]);
        }
        if (i < 2) {
            time_tree(&bench, &vectors);
        }
        free(vectors.values);
        free(vectors.nearest);
    }
    return bench_end(&bench);
}
