#include "tests/retrieval/vectors_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t mix(uint64_t z)
{
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t seed_of(const uint8_t fingerprint[32], const uint8_t *text, size_t size)
{
    uint64_t seed = fingerprint[0];
    for (size_t i = 0; i < size; i++) {
        seed = mix(seed ^ text[i]);
    }
    return seed;
}

void vectors_encode(const uint8_t fingerprint[32], struct memos_bytes text, size_t dims, float *out)
{
    const uint8_t *bytes = text.data;
    size_t stem = text.size;
    double squares = 0.0;

    while (stem > 0 && bytes[stem - 1] != ' ') {
        stem--;
    }
    uint64_t own = seed_of(fingerprint, bytes, text.size);
    uint64_t common = seed_of(fingerprint, bytes, stem ? stem : text.size);
    for (size_t i = 0; i < dims; i++) {
        common = mix(common);
        own = mix(own);
        out[i] = (float)((double)(common >> 11) * 0x1p-53 - 0.5 +
                         0.3 * ((double)(own >> 11) * 0x1p-53 - 0.5));
        squares += (double)out[i] * (double)out[i];
    }
    for (size_t i = 0; i < dims; i++) {
        out[i] = (float)((double)out[i] / sqrt(squares));
    }
}

float *vectors_encode_spans(
    const uint8_t fingerprint[32], const struct retrieval_spans *spans, size_t dims)
{
    float *values = calloc(spans->count * dims + 1, sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < spans->count; i++) {
        vectors_encode(fingerprint, spans->texts[i], dims, values + i * dims);
    }
    return values;
}

void vectors_open(struct vectors_fixture *v)
{
    assert_ok(retrieval_vectors_create(&v->options, &v->vectors, fixture_error()));
    v->indexes[0] = retrieval_vectors_index(v->vectors);
    v->f.options.indexes = v->indexes;
    v->f.options.indexes_count = 1;
    fixture_open(&v->f);
}

void vectors_close(struct vectors_fixture *v)
{
    fixture_close(&v->f);
    retrieval_vectors_destroy(&v->vectors);
}

void vectors_reopen(struct vectors_fixture *v)
{
    vectors_close(v);
    vectors_open(v);
}

void vectors_make(
    struct vectors_fixture *v, const struct retrieval_vectors_options *options, bool with_folder)
{
    *v = (struct vectors_fixture){.vectors = NULL};
    fixture_make(&v->f);
    fixture_close(&v->f);
    (void)snprintf(v->folder, sizeof v->folder, "%s/vectors", v->f.path);
    if (options) {
        v->options = *options;
    }
    v->options.folder = with_folder ? v->folder : NULL;
    vectors_open(v);
    vectors_activate(v, 1, VECTORS_DIMS);
}

void vectors_drop(struct vectors_fixture *v)
{
    vectors_close(v);
    folder_remove(v->f.path);
}

void vectors_activate(struct vectors_fixture *v, uint8_t n, size_t dims)
{
    memset(v->fingerprint, n, sizeof v->fingerprint);
    assert_ok(retrieval_vectors_activate(v->vectors, fixture_write(&v->f), v->fingerprint,
        text_of("an encoder"), dims, fixture_error()));
    fixture_commit(&v->f);
}

void vectors_offer(struct vectors_fixture *v, const struct memcube_draft *draft)
{
    struct retrieval_spans spans;
    struct memos_arena arena;

    memos_arena_init(&arena, (size_t)16 << 20);
    assert_ok(retrieval_spans_make(
        draft->kind, &draft->description, draft->payload, &arena, &spans, fixture_error()));
    float *values = vectors_encode_spans(v->fingerprint, &spans, VECTORS_DIMS);
    assert_ok(retrieval_vectors_offer(v->vectors, v->fingerprint, &spans, values, fixture_error()));
    free(values);
    memos_arena_finish(&arena);
}

struct memcube_ref vectors_put(
    struct vectors_fixture *v, const char *space, const char *text, bool offered)
{
    const struct memcube_draft draft = draft_of(text);
    if (offered) {
        vectors_offer(v, &draft);
    }
    return fixture_put_draft(&v->f, space, &draft);
}

uint64_t vectors_due_total(struct vectors_fixture *v)
{
    struct retrieval_due due[1];
    uint64_t total = 0;
    size_t count = 0;
    assert_ok(retrieval_vectors_due(
        v->vectors, fixture_read(&v->f), due, 1, &count, &total, fixture_error()));
    assert_int_equal(count > 0, total > 0);
    return total;
}

uint64_t vectors_fill(struct vectors_fixture *v, size_t count_max)
{
    struct retrieval_due *due = calloc(count_max, sizeof *due);
    uint64_t total = 0;
    size_t count = 0;

    assert_non_null(due);
    assert_ok(retrieval_vectors_due(
        v->vectors, fixture_read(&v->f), due, count_max, &count, &total, fixture_error()));
    for (size_t i = 0; i < count; i++) {
        struct memcube_write *write = fixture_write(&v->f);
        struct retrieval_spans spans;
        assert_ok(retrieval_due_spans(memcube_write_read(write), &due[i], &spans, fixture_error()));
        float *values = vectors_encode_spans(v->fingerprint, &spans, VECTORS_DIMS);
        assert_ok(retrieval_vectors_fill(
            v->vectors, write, &due[i], v->fingerprint, &spans, values, fixture_error()));
        free(values);
    }
    if (count > 0) {
        fixture_commit(&v->f);
    }
    free(due);
    return total;
}

struct vectors_found vectors_search_in(struct vectors_fixture *v, struct memcube_read *read,
    const char *space, const char *text, const struct memcube_filter *filter,
    const struct memcube_as_of *as_of, size_t top_k)
{
    static const struct memcube_filter all;
    struct vectors_found found = {.count = 0};
    struct memos_error err;
    struct memcube_space at;
    struct memcube_docs docs;
    float query[VECTORS_DIMS];

    assert_true(top_k <= sizeof found.hits / sizeof found.hits[0]);
    enum memos_status status = memcube_space_find(read, text_of(space), &at, &err);
    if (status == MEMOS_OK) {
        status = memcube_docs_select(read, &at, filter ? filter : &all, as_of, &docs, &err);
    }
    if (status == MEMOS_OK) {
        vectors_encode(v->fingerprint, text_of(text), VECTORS_DIMS, query);
        found.wanted = docs.count;
        status = retrieval_vectors_search(v->vectors, read, &at, v->fingerprint, query, &docs,
            top_k, found.hits, &found.count, &found.missing, &err);
    }
    if (status != MEMOS_OK) {
        fail_msg("searching: %s: %s", memos_status_name(status), err.text);
    }
    return found;
}

struct vectors_found vectors_search(struct vectors_fixture *v, const char *space, const char *text,
    const struct memcube_filter *filter, const struct memcube_as_of *as_of, size_t top_k)
{
    return vectors_search_in(v, fixture_read(&v->f), space, text, filter, as_of, top_k);
}

bool vectors_among(const struct vectors_found *found, uint32_t doc)
{
    for (size_t i = 0; i < found->count; i++) {
        if (found->hits[i].doc == doc) {
            return true;
        }
    }
    return false;
}

struct retrieval_vectors_stats vectors_stats(struct vectors_fixture *v)
{
    struct retrieval_vectors_stats stats;
    retrieval_vectors_stats(v->vectors, &stats);
    return stats;
}
