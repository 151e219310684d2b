/* How fast vectors are loaded and searched in a real store: exact scans beside reading the same
 * bytes from memory, approximate searches beside the same index asked directly. Then whole
 * searches, by words and meaning together, over talk: the time that the thread uses of a processor.
 *
 * Vectors of 384 dims around random centres, about 60 to each; questions are near to some of them.
 * Stored as e4m3. A search is retrieval_vectors_search over all docs, on one thread; a whole search
 * is retrieval_search with a question's text and vector in a snapshot of its own. */
#include "tests/bench/bench.h"

#include "retrieval/search.h"
#include "retrieval/vectors_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIMS 384
#define TOP_K 10
#define BATCH 500
#define QUERIES 100
#define CANDIDATES (4 * TOP_K + 64) /* as many as vectors_ann.c asks for */
#define VOCABULARY 30000
#define TEXT_BYTES 220 /* some 40 words */
#define SESSION_TURNS 20
#define SESSION_BYTES 24
#define BEGUN_US INT64_C(1735689600000000) /* the first turn is said then, */
#define TURN_US INT64_C(180000000)         /* the next so much later */

static const char *const speakers[] = {"Caroline", "Melanie", "Jon", "Gina", "Maria", "Deborah"};
#define SPEAKERS (sizeof speakers / sizeof *speakers)

struct fixture {
    char path[BENCH_PATH_BYTES], folder[BENCH_PATH_BYTES];
    size_t count;
    struct retrieval_vectors *vectors;
    struct retrieval *retrieval; /* NULL: vectors are the store's only index */
    struct bench_words *words;   /* of its talk */
    struct memcube_store *store;
    uint8_t fingerprint[32];
};

/* The i-th unit vector; noise makes it another one nearby. */
static void vector_make(size_t count, uint64_t i, uint64_t noise, float *out)
{
    uint64_t centre = i % (count / 60 + 1), own = i * 2 + 1 + (noise << 40);
    double squares = 0.0;

    centre = bench_next(&centre);
    for (size_t k = 0; k < DIMS; k++) {
        double x = (double)(bench_next(&centre) >> 11) * 0x1p-53 - 0.5;
        x += 0.8 * ((double)(bench_next(&own) >> 11) * 0x1p-53 - 0.5);
        out[k] = (float)x;
        squares += x * x;
    }
    for (size_t k = 0; k < DIMS; k++) {
        out[k] = (float)((double)out[k] / sqrt(squares));
    }
}

static void fixture_open(struct fixture *f, uint64_t exact_rows_max)
{
    const struct retrieval_vectors_options options = {.folder = f->folder,
        .exact_rows_max = exact_rows_max,
        .cache_bytes_max = UINT64_C(8) << 30};
    struct memcube_index *own[1], *const *indexes = own;
    struct memos_error err;
    size_t indexes_count = 1;

    if (f->words) {
        bench_check(retrieval_create(&options, &f->retrieval, &err), &err, "retrieval");
        indexes = retrieval_indexes(f->retrieval, &indexes_count);
        f->vectors = retrieval_vectors_of(f->retrieval);
    } else {
        bench_check(retrieval_vectors_create(&options, &f->vectors, &err), &err, "vectors");
        own[0] = retrieval_vectors_index(f->vectors);
    }
    const struct memcube_store_options store = {.path = f->path,
        .map_bytes = (uint64_t)16 << 30,
        .clock = memos_clock_system(),
        .indexes = indexes,
        .indexes_count = indexes_count,
        .sync_off = true};
    bench_check(memcube_store_open(&store, &f->store, &err), &err, "open");
}

static void fixture_close(struct fixture *f)
{
    memcube_store_close(&f->store);
    if (f->retrieval) {
        retrieval_destroy(&f->retrieval);
    } else {
        retrieval_vectors_destroy(&f->vectors);
    }
}

/* The i-th turn: two people talk in each session, by turns. */
static void turn_make(const struct fixture *f, uint64_t i, char *text, size_t room,
    struct memcube_attribute *session, char *session_name, struct memcube_draft *draft)
{
    const uint64_t number = i / SESSION_TURNS;
    uint64_t state = i + 1;
    const size_t size = bench_words_text(f->words, &state, TEXT_BYTES, text, room);

    (void)snprintf(session_name, SESSION_BYTES, "s%llu", (unsigned long long)number);
    *session = (struct memcube_attribute){memos_bytes_of("session"), memos_bytes_of(session_name)};
    draft->payload = memos_bytes_make(text, size);
    draft->description.speaker = memos_bytes_of(speakers[(number + i % 2) % SPEAKERS]);
    draft->description.event_us = BEGUN_US + (int64_t)i * TURN_US;
    draft->description.attributes = session;
    draft->description.attributes_count = 1;
}

static void put_batch(struct fixture *f, uint64_t first)
{
    const struct memcube_change change = {.space = memos_bytes_of("bench"),
        .author = memos_bytes_of("bench"),
        .reason = memos_bytes_of("")};
    static char texts[BATCH][TEXT_BYTES + 64], sessions[BATCH][SESSION_BYTES];
    static struct memcube_attribute attributes[BATCH];
    static struct memcube_draft drafts[BATCH];
    struct memcube_write *write = NULL;
    struct memcube_outcome outcome;
    struct memos_error err;
    struct memos_arena arena;
    float vector[DIMS];

    memos_arena_init(&arena, (size_t)64 << 20);
    bench_check(memcube_write_begin(f->store, &write, &err), &err, "write");
    for (size_t i = 0; i < BATCH; i++) {
        struct retrieval_spans spans;
        (void)snprintf(texts[i], sizeof texts[i], "text %llu", (unsigned long long)(first + i));
        drafts[i] = (struct memcube_draft){.kind = MEMCUBE_PLAINTEXT,
            .subtype = memos_bytes_of("fact"),
            .payload = memos_bytes_of(texts[i])};
        if (f->words) {
            turn_make(
                f, first + i, texts[i], sizeof texts[i], &attributes[i], sessions[i], &drafts[i]);
        }
        bench_check(retrieval_spans_make(drafts[i].kind, &drafts[i].description, drafts[i].payload,
                        &arena, &spans, &err),
            &err, "spans");
        vector_make(f->count, first + i, 0, vector);
        bench_check(retrieval_vectors_offer(f->vectors, f->fingerprint, &spans, vector, &err), &err,
            "offer");
    }
    bench_check(memcube_create(write, &change, drafts, BATCH, &outcome, &err), &err, "create");
    bench_check(memcube_write_commit(&write, &err), &err, "commit");
    memos_arena_finish(&arena);
}

static void fill(struct fixture *f)
{
    struct memcube_write *write = NULL;
    struct memos_error err;

    bench_check(memcube_write_begin(f->store, &write, &err), &err, "write");
    bench_check(retrieval_vectors_activate(
                    f->vectors, write, f->fingerprint, memos_bytes_of("bench"), DIMS, &err),
        &err, "activate");
    bench_check(memcube_write_commit(&write, &err), &err, "commit");
    for (uint64_t first = 0; first < f->count; first += BATCH) {
        put_batch(f, first);
    }
}

/* Search for the q-th question; returns how long it took. */
static int64_t search(struct fixture *f, uint64_t q, uint32_t out_docs[TOP_K])
{
    static const struct memcube_filter all;
    struct retrieval_vector_hit hits[TOP_K];
    struct memcube_read *read = NULL;
    struct memcube_space space;
    struct memcube_docs docs;
    struct memos_error err;
    float query[DIMS];
    size_t count;
    uint32_t missing;

    vector_make(f->count, q * 7919 % f->count, 1 + q, query);
    bench_check(memcube_read_begin(f->store, &read, &err), &err, "read");
    bench_check(memcube_space_find(read, memos_bytes_of("bench"), &space, &err), &err, "space");
    bench_check(memcube_docs_select(read, &space, &all, NULL, &docs, &err), &err, "select");
    const int64_t begun = bench_now_ns();
    bench_check(retrieval_vectors_search(f->vectors, read, &space, f->fingerprint, query, &docs,
                    TOP_K, hits, &count, &missing, &err),
        &err, "search");
    const int64_t took = bench_now_ns() - begun;
    for (size_t i = 0; i < TOP_K; i++) {
        out_docs[i] = i < count ? hits[i].doc : 0;
    }
    memcube_read_end(&read);
    return took;
}

/* Seconds to read so many bytes of memory, once. */
static double memory_seconds(size_t bytes)
{
    uint64_t *data = bench_memory(bytes / 8 + 1, 8);
    double best = 1e9;
    volatile uint64_t sink = 0;

    memset(data, 1, bytes);
    for (int round = 0; round < 5; round++) {
        const int64_t begun = bench_now_ns();
        uint64_t sums[4] = {0};
        for (size_t i = 0; i + 4 <= bytes / 8; i += 4) {
            for (size_t k = 0; k < 4; k++) {
                sums[k] += data[i + k];
            }
        }
        sink += sums[0] + sums[1] + sums[2] + sums[3];
        best = fmin(best, (double)(bench_now_ns() - begun) / 1e9);
    }
    free(data);
    return best;
}

static void row_add(struct bench *bench, size_t count, const char *what, struct bench_row row)
{
    char *name = bench_memory(96, 1); /* as long as the table */
    (void)snprintf(name, 96, "%zu vectors: %s", count, what);
    row.name = name;
    bench_add(bench, row);
}

static void time_exact(struct bench *bench, struct fixture *f, uint32_t (*out_docs)[TOP_K])
{
    struct retrieval_vectors_stats stats;
    int64_t times[QUERIES];
    uint32_t docs[TOP_K];

    const double load = (double)search(f, 0, docs) / 1e9;
    for (uint64_t q = 0; q < QUERIES; q++) {
        times[q] = search(f, q, out_docs[q]);
    }
    retrieval_vectors_stats(f->vectors, &stats);
    const double bytes = (double)f->count * DIMS;
    const double p50 = bench_percentile(times, QUERIES, 50) / 1e9;
    row_add(bench, f->count, "memory of the table",
        (struct bench_row){.value = (double)stats.table_bytes / 1e6,
            .unit = "MB",
            .limit = bytes / 1e6,
            .limit_name = "codes alone",
            .bar = 1.3});
    row_add(bench, f->count, "loading the table", (struct bench_row){.value = load, .unit = "s"});
    row_add(bench, f->count, "exact scan",
        (struct bench_row){.value = bytes / p50 / 1e9,
            .unit = "GB/s",
            .limit = bytes / memory_seconds((size_t)bytes) / 1e9,
            .limit_name = "reading memory",
            .bar = 0.25,
            .higher_is_better = true});
    row_add(
        bench, f->count, "exact search, p50", (struct bench_row){.value = p50 * 1e3, .unit = "ms"});
}

static double recall(const uint32_t (*exact)[TOP_K], const uint32_t (*found)[TOP_K])
{
    size_t same = 0;
    for (size_t q = 0; q < QUERIES; q++) {
        for (size_t i = 0; i < TOP_K; i++) {
            for (size_t k = 0; k < TOP_K; k++) {
                same += exact[q][i] == found[q][k];
            }
        }
    }
    return (double)same / (QUERIES * TOP_K);
}

static void build_vectors(void *self, uint64_t first, size_t count, float *out)
{
    const struct fixture *f = self;
    uint8_t codes[DIMS];
    for (size_t i = 0; i < count; i++) { /* as they are stored */
        float *vector = out + i * DIMS;
        vector_make(f->count, first + i, 0, vector);
        const float scale = retrieval_code_encode(KERN_E4M3, vector, DIMS, codes);
        retrieval_code_decode(KERN_E4M3, codes, scale, DIMS, vector);
    }
}

/* p50 of the same kind of index, asked for the same number of candidates. */
static double faiss_p50(struct fixture *f)
{
    const struct retrieval_ann_build build = {
        .dims = DIMS, .count = f->count, .vectors = build_vectors, .self = f};
    struct retrieval_ann *ann = NULL;
    struct memos_error err;
    int64_t times[QUERIES], labels[CANDIDATES];
    float scores[CANDIDATES], query[DIMS];

    bench_check(retrieval_ann_build(&build, &ann, &err), &err, "FAISS");
    for (uint64_t q = 0; q < QUERIES; q++) {
        size_t count;
        vector_make(f->count, q * 7919 % f->count, 1 + q, query);
        const int64_t begun = bench_now_ns();
        bench_check(
            retrieval_ann_search(ann, query, NULL, 0, CANDIDATES, labels, scores, &count, &err),
            &err, "FAISS");
        times[q] = bench_now_ns() - begun;
    }
    retrieval_ann_free(&ann);
    return bench_percentile(times, QUERIES, 50) / 1e6;
}

static void time_approximate(struct bench *bench, struct fixture *f, const uint32_t (*exact)[TOP_K])
{
    static uint32_t found[QUERIES][TOP_K];
    struct retrieval_vectors_stats stats;
    int64_t times[QUERIES];
    struct memos_error err;
    bool worked = true;

    (void)search(f, 0, found[0]);
    const int64_t begun = bench_now_ns();
    while (worked) {
        bench_check(retrieval_vectors_work(f->vectors, NULL, NULL, &worked, &err), &err, "work");
    }
    const double build = (double)(bench_now_ns() - begun) / 1e9;
    for (uint64_t q = 0; q < QUERIES; q++) {
        times[q] = search(f, q, found[q]);
    }
    retrieval_vectors_stats(f->vectors, &stats);
    if (stats.ann_searches < QUERIES) {
        bench_fail("the approximate index was not asked");
    }
    row_add(bench, f->count, "building and saving an index",
        (struct bench_row){.value = build, .unit = "s"});
    row_add(bench, f->count, "recall at 10",
        (struct bench_row){.value = recall(exact, (const uint32_t(*)[TOP_K])found),
            .unit = "",
            .limit = 1,
            .limit_name = "exact search",
            .bar = 0.95,
            .higher_is_better = true});
    row_add(bench, f->count, "approximate search, p50",
        (struct bench_row){.value = bench_percentile(times, QUERIES, 50) / 1e6,
            .unit = "ms",
            .limit = faiss_p50(f),
            .limit_name = "FAISS, the same index",
            .bar = 2});
    row_add(bench, f->count, "approximate search, p95",
        (struct bench_row){.value = bench_percentile(times, QUERIES, 95) / 1e6, .unit = "ms"});
}

static void measure(struct bench *bench, size_t count)
{
    static uint32_t exact[QUERIES][TOP_K];
    struct fixture f = {.count = count, .fingerprint = {7}};
    char name[32];

    (void)snprintf(name, sizeof name, "vectors-%zu", count);
    bench_path(bench, name, f.path);
    (void)snprintf(name, sizeof name, "ann-%zu", count);
    bench_path(bench, name, f.folder);
    bench_say("  %zu vectors", count);
    fixture_open(&f, UINT64_MAX);
    fill(&f);
    time_exact(bench, &f, exact);
    fixture_close(&f);
    fixture_open(&f, count / 2);
    time_approximate(bench, &f, (const uint32_t(*)[TOP_K])exact);
    fixture_close(&f);
}

/* ---- whole searches ------------------------------------------------------------------------ */

/* Ask the q-th question; returns what it used of a processor. */
static int64_t ask(struct fixture *f, uint64_t q, enum retrieval_mode mode)
{
    struct retrieval_hit hits[TOP_K];
    struct memcube_read *read = NULL;
    struct memcube_space space;
    struct memos_error err;
    float vector[DIMS];
    char text[512];
    uint64_t state = q + 12345;
    size_t count, used = 0;

    if (q % 2 == 0) { /* every other one names somebody */
        used = (size_t)snprintf(text, sizeof text, "%s and me: ", speakers[q / 2 % SPEAKERS]);
    }
    used += bench_words_question(f->words, &state, text + used, sizeof text - used);
    vector_make(f->count, q * 7919 % f->count, 1 + q, vector);
    const struct retrieval_query query = {.text = memos_bytes_make(text, used),
        .top_k = TOP_K,
        .mode = mode,
        .vector = vector,
        .dims = DIMS,
        .fingerprint = f->fingerprint,
        .now_us = BEGUN_US + (int64_t)f->count * TURN_US};
    const int64_t begun = bench_cpu_ns();
    bench_check(memcube_read_begin(f->store, &read, &err), &err, "read");
    bench_check(memcube_space_find(read, memos_bytes_of("bench"), &space, &err), &err, "space");
    bench_check(retrieval_search(f->retrieval, read, &space, &query, hits, &count, NULL, &err),
        &err, "ask");
    memcube_read_end(&read);
    const int64_t took = bench_cpu_ns() - begun;
    if (count == 0) {
        bench_fail("nothing answers '%s'", text);
    }
    return took;
}

static void time_asking(
    struct bench *bench, struct fixture *f, enum retrieval_mode mode, const char *what)
{
    int64_t times[QUERIES];
    char name[64];

    for (uint64_t q = 0; q < QUERIES; q++) {
        (void)ask(f, q, mode);
    }
    for (uint64_t q = 0; q < QUERIES; q++) {
        times[q] = ask(f, q, mode);
    }
    /* What a search may take, whatever the size of its space. */
    const bool whole = mode == RETRIEVAL_HYBRID;
    (void)snprintf(name, sizeof name, "%s, p50", what);
    row_add(bench, f->count, name,
        (struct bench_row){.value = bench_percentile(times, QUERIES, 50) / 1e6,
            .unit = "ms",
            .limit = whole ? 2 : 0,
            .limit_name = "the target",
            .bar = 1});
    (void)snprintf(name, sizeof name, "%s, p95", what);
    row_add(bench, f->count, name,
        (struct bench_row){.value = bench_percentile(times, QUERIES, 95) / 1e6,
            .unit = "ms",
            .limit = whole ? 10 : 0,
            .limit_name = "the target",
            .bar = 1});
}

static void measure_whole(struct bench *bench, size_t count)
{
    struct fixture f = {.count = count, .fingerprint = {7}, .words = bench_words_make(VOCABULARY)};
    char name[32];

    (void)snprintf(name, sizeof name, "talk-%zu", count);
    bench_path(bench, name, f.path);
    (void)snprintf(name, sizeof name, "talk-ann-%zu", count);
    bench_path(bench, name, f.folder);
    bench_say("  %zu turns", count);
    fixture_open(&f, 0);
    fill(&f);
    (void)ask(&f, 0, RETRIEVAL_HYBRID); /* loads the table */
    for (bool worked = true; worked;) {
        struct memos_error err;
        bench_check(retrieval_vectors_work(f.vectors, NULL, NULL, &worked, &err), &err, "work");
    }
    time_asking(bench, &f, RETRIEVAL_HYBRID, "whole search");
    time_asking(bench, &f, RETRIEVAL_WORDS, "words alone");
    time_asking(bench, &f, RETRIEVAL_VECTORS, "vectors alone");
    fixture_close(&f);
    bench_words_free(&f.words);
}

int main(int argc, char **argv)
{
    struct bench bench;

    bench_begin(&bench, "bench_retrieval", argc, argv);
    measure(&bench, 1000);
    measure(&bench, 10000);
    if (!bench.quick) {
        measure(&bench, 100000);
    }
    if (bench.full) {
        measure(&bench, 1000000);
    }
    measure_whole(&bench, 1000);
    measure_whole(&bench, 10000);
    if (!bench.quick) {
        measure_whole(&bench, 100000);
    }
    return bench_end(&bench);
}
