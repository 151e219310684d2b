/* Many searches while somebody writes, forgets, fills in and builds indexes: each finds all that
 * its snapshot has, and nothing that is not what it was. Meant for the thread sanitizer, too.
 *
 * If this failed, a busy store would miss memories at times, or break. */
#include "retrieval/vectors_internal.h"
#include "tests/retrieval/vectors_fixture.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEARCHERS 3
#define STEPS 400
#define DOCS_MAX (STEPS + 1)

static const char *const spaces[] = {"home", "away"};

/* What the writer says of a doc before its write begins. */
struct told {
    _Atomic bool offered; /* it has vectors from the beginning */
    _Atomic bool filled;  /* since a commit that has ended */
    _Atomic bool going;   /* it is being forgotten, or was */
};

struct shared {
    struct vectors_fixture v;
    struct told told[2][DOCS_MAX + 1];
    _Atomic bool done;
    _Atomic unsigned long searches;
};

/* Texts follow from the number of the doc. */
static void text_of_doc(size_t s, uint32_t doc, char out[64])
{
    (void)snprintf(out, 64, "%s%u %u", spaces[s], doc / 7, doc);
}

/* Threads report through this, since cmocka's assertions are for the main one. */
static void must(bool holds, const char *what)
{
    if (!holds) {
        (void)fprintf(stderr, "%s\n", what);
        abort();
    }
}

static void search_once(struct shared *shared, struct memcube_read *read, size_t s, uint32_t about,
    struct retrieval_vector_hit *hits, bool *filled)
{
    static const struct memcube_filter all;
    struct vectors_fixture *v = &shared->v;
    struct memcube_space space;
    struct memcube_docs docs;
    struct memos_error err;
    uint8_t fingerprint[32];
    float query[VECTORS_DIMS], vector[VECTORS_DIMS];
    uint32_t missing;
    size_t count = 0;
    char text[64];

    for (uint32_t d = 0; d <= DOCS_MAX; d++) { /* before the snapshot begins */
        filled[d] = atomic_load(&shared->told[s][d].filled);
    }
    must(memcube_read_renew(read, &err) == MEMOS_OK, "renew");
    if (memcube_space_find(read, text_of(spaces[s]), &space, NULL) != MEMOS_OK) {
        return;
    }
    memset(fingerprint, 1, sizeof fingerprint);
    text_of_doc(s, about, text);
    vectors_encode(fingerprint, text_of(text), VECTORS_DIMS, query);
    must(memcube_docs_select(read, &space, &all, NULL, &docs, &err) == MEMOS_OK, "select");
    must(retrieval_vectors_search(v->vectors, read, &space, fingerprint, query, &docs, DOCS_MAX,
             hits, &count, &missing, &err) == MEMOS_OK,
        "search");
    bool found[DOCS_MAX + 1] = {false};
    for (size_t i = 0; i < count; i++) {
        must(hits[i].doc <= DOCS_MAX && retrieval_vec_wanted(&docs, hits[i].doc), "not wanted");
        must(!found[hits[i].doc], "found twice");
        found[hits[i].doc] = true;
        float sum = 0.0f;
        text_of_doc(s, hits[i].doc, text);
        vectors_encode(fingerprint, text_of(text), VECTORS_DIMS, vector);
        for (size_t k = 0; k < VECTORS_DIMS; k++) {
            sum += vector[k] * query[k];
        }
        must(fabsf(sum - hits[i].cosine) < 0.05f, "another cosine");
    }
    for (uint32_t d = 1; d < docs.docs_end; d++) {
        const struct told *told = &shared->told[s][d];
        must(found[d] || !retrieval_vec_wanted(&docs, d) || atomic_load(&told->going) ||
                 (!atomic_load(&told->offered) && !filled[d]),
            "missed");
    }
    (void)atomic_fetch_add(&shared->searches, 1);
}

struct searcher {
    struct shared *shared;
    pthread_t thread;
    uint64_t drawn;
};

static void *searcher_main(void *self)
{
    struct searcher *searcher = self;
    struct memcube_read *read = NULL;
    struct memos_error err;
    struct retrieval_vector_hit *hits = calloc(DOCS_MAX, sizeof *hits);
    bool *filled = calloc(DOCS_MAX + 1, sizeof *filled);

    must(hits && filled && memcube_read_begin(searcher->shared->v.f.store, &read, &err) == MEMOS_OK,
        "begin");
    while (!atomic_load(&searcher->shared->done)) {
        searcher->drawn = searcher->drawn * 6364136223846793005u + 1442695040888963407u;
        const uint32_t about = (uint32_t)(searcher->drawn >> 40) % DOCS_MAX + 1;
        search_once(searcher->shared, read, (searcher->drawn >> 33) & 1, about, hits, filled);
    }
    memcube_read_end(&read);
    free(hits);
    free(filled);
    return NULL;
}

static void *worker_main(void *self)
{
    struct shared *shared = self;
    struct memos_error err;
    while (!atomic_load(&shared->done)) {
        bool worked = false;
        const enum memos_status status =
            retrieval_vectors_work(shared->v.vectors, NULL, NULL, &worked, &err);
        must(status == MEMOS_OK || status == MEMOS_NO_MEMORY, "work");
        (void)sched_yield();
    }
    return NULL;
}

/* Do what is on the list; tell of it when it is committed. */
static void fill(struct shared *shared)
{
    struct retrieval_due due[8];
    uint64_t total = 0;
    size_t count = 0;
    const uint32_t home = fixture_space(&shared->v.f, spaces[0]).number;

    assert_ok(retrieval_vectors_due(
        shared->v.vectors, fixture_read(&shared->v.f), due, 8, &count, &total, fixture_error()));
    (void)vectors_fill(&shared->v, 8);
    for (size_t i = 0; i < count; i++) {
        atomic_store(&shared->told[due[i].space != home][due[i].doc].filled, true);
    }
}

/* The fixture's words move the clock, which searchers read. */
static struct memos_id put(
    struct vectors_fixture *v, const char *space, const char *text, bool offered)
{
    const struct memcube_change change = change_of(space);
    const struct memcube_draft draft = draft_of(text);
    struct memcube_outcome outcome;

    if (offered) {
        vectors_offer(v, &draft);
    }
    assert_ok(memcube_create(fixture_write(&v->f), &change, &draft, 1, &outcome, fixture_error()));
    const struct memos_id id = outcome.refs[0].id;
    fixture_commit(&v->f);
    return id;
}

static void write_all(struct shared *shared)
{
    struct memos_id ids[2][DOCS_MAX + 1];
    uint32_t docs[2] = {0, 0};
    struct vectors_fixture *v = &shared->v;

    for (unsigned i = 0; i < STEPS; i++) {
        const size_t s = i % 3 == 2;
        char text[64];
        const uint32_t doc = ++docs[s];
        text_of_doc(s, doc, text);
        const bool offered = i % 4 != 1;
        atomic_store(&shared->told[s][doc].offered, offered);
        ids[s][doc] = put(v, spaces[s], text, offered);
        if (i % 10 == 9) {
            fill(shared);
        }
        if (i % 17 == 16) {
            const uint32_t gone = doc / 2 + 1;
            const struct memcube_change change = change_of(spaces[s]);
            struct memcube_outcome outcome;
            struct memcube_forgotten forgotten;
            atomic_store(&shared->told[s][gone].going, true);
            assert_ok(memcube_forget(fixture_write(&v->f), &change, &ids[s][gone], 1, true, false,
                &outcome, &forgotten, fixture_error()));
            fixture_commit(&v->f);
        }
    }
}

static void run(const struct retrieval_vectors_options *options)
{
    struct shared *shared = calloc(1, sizeof *shared);
    struct searcher searchers[SEARCHERS];
    pthread_t worker;

    assert_non_null(shared);
    vectors_make(&shared->v, options, true);
    for (size_t i = 0; i < SEARCHERS; i++) {
        searchers[i] = (struct searcher){.shared = shared, .drawn = i};
        assert_int_equal(
            pthread_create(&searchers[i].thread, NULL, searcher_main, &searchers[i]), 0);
    }
    assert_int_equal(pthread_create(&worker, NULL, worker_main, shared), 0);
    write_all(shared);
    const unsigned long before = atomic_load(&shared->searches);
    while (atomic_load(&shared->searches) < before + SEARCHERS) {
        (void)sched_yield(); /* each has seen the end */
    }
    atomic_store(&shared->done, true);
    for (size_t i = 0; i < SEARCHERS; i++) {
        assert_int_equal(pthread_join(searchers[i].thread, NULL), 0);
    }
    assert_int_equal(pthread_join(worker, NULL), 0);
    vectors_drop(&shared->v);
    free(shared);
}

static void exact_searches_miss_nothing(void **state)
{
    static const struct retrieval_vectors_options options;
    (void)state;
    run(&options);
}

static void approximate_searches_miss_nothing(void **state)
{
    /* A flat index names all that is asked for, so that what is missed was lost on the way. */
    static const struct retrieval_vectors_options options = {
        .exact_rows_max = 30, .ann = RETRIEVAL_ANN_FLAT};
    (void)state;
    run(&options);
}

static void searches_under_eviction_miss_nothing(void **state)
{
    static const struct retrieval_vectors_options options = {.cache_bytes_max = 40 * 1024};
    (void)state;
    run(&options);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_searches_miss_nothing),
        cmocka_unit_test(approximate_searches_miss_nothing),
        cmocka_unit_test(searches_under_eviction_miss_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
