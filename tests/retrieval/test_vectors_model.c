/* The vector index against a plain model of it: thousands of random changes, and after each the
 * same docs with the same cosines, now and in an older snapshot.
 *
 * If this failed, some order of changes, restarts and searches would lose a memory, or keep one
 * that was forgotten. */
#include "retrieval/vectors_internal.h"
#include "tests/retrieval/vectors_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPACES 2
#define CUBES_MAX 40 /* of a space */
#define DOCS_MAX 60
#define TEXT_MAX 2600
#define STEPS_DEFAULT 300

struct doc {
    char *text;
    int encoder; /* whose vectors it has; 0: none */
    bool gone;
};

struct cube {
    struct memos_id id;
    bool gone;
};

struct model {
    struct doc docs[SPACES][DOCS_MAX + 1];
    uint32_t docs_count[SPACES];
    int active;
};

struct run {
    struct vectors_fixture v;
    uint64_t drawn;
    struct model model, before; /* before: when `old` began; shares texts */
    struct memcube_read *old;
    struct cube cubes[SPACES][CUBES_MAX];
    size_t cubes_count[SPACES];
};

static const char *const spaces[SPACES] = {"home", "away"};

static uint64_t draw(struct run *r, uint64_t below)
{
    r->drawn += 0x9e3779b97f4a7c15u;
    uint64_t z = r->drawn;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % below;
}

/* ---- what must be found -------------------------------------------------------------------- */

static float cosine_of(struct run *r, int encoder, const char *text, const float *query)
{
    const struct memcube_description none = {.event_us = 0};
    uint8_t fingerprint[32], codes[VECTORS_DIMS * sizeof(float)];
    float back[VECTORS_DIMS], most = -2.0f;
    struct retrieval_spans spans;
    struct memos_arena arena;

    memset(fingerprint, encoder, sizeof fingerprint);
    memos_arena_init(&arena, (size_t)1 << 20);
    assert_ok(retrieval_spans_make(
        MEMCUBE_PLAINTEXT, &none, text_of(text), &arena, &spans, fixture_error()));
    float *values = vectors_encode_spans(fingerprint, &spans, VECTORS_DIMS);
    for (size_t i = 0; i < spans.count; i++) {
        const float scale = retrieval_code_encode(
            r->v.vectors->codes, values + i * VECTORS_DIMS, VECTORS_DIMS, codes);
        float sum = 0.0f;
        retrieval_code_decode(r->v.vectors->codes, codes, scale, VECTORS_DIMS, back);
        for (size_t k = 0; k < VECTORS_DIMS; k++) {
            sum += back[k] * query[k];
        }
        most = fmaxf(most, sum);
    }
    free(values);
    memos_arena_finish(&arena);
    return most;
}

/* Search in a snapshot that `model` describes; `later` is how things stand by now. */
static void check_space(struct run *r, struct memcube_read *read, const struct model *model,
    const struct model *later, size_t s)
{
    static const struct memcube_filter all;
    uint8_t fingerprint[32];
    float query[VECTORS_DIMS];
    char text[32];
    struct retrieval_vector_hit hits[DOCS_MAX + 4];
    struct memcube_space space;
    struct memcube_docs docs;
    uint32_t missing, expected = 0;
    size_t count = 0;

    if (memcube_space_find(read, text_of(spaces[s]), &space, NULL) != MEMOS_OK) {
        return;
    }
    memset(fingerprint, model->active, sizeof fingerprint);
    (void)snprintf(text, sizeof text, "thing %u", (unsigned)draw(r, 30));
    vectors_encode(fingerprint, text_of(text), VECTORS_DIMS, query);
    assert_ok(memcube_docs_select(read, &space, &all, NULL, &docs, fixture_error()));
    assert_ok(retrieval_vectors_search(r->v.vectors, read, &space, fingerprint, query, &docs,
        sizeof hits / sizeof hits[0], hits, &count, &missing, fixture_error()));
    for (size_t i = 0; i < count; i++) {
        const struct doc *doc = &model->docs[s][hits[i].doc];
        assert_true(hits[i].doc >= 1 && hits[i].doc <= model->docs_count[s]);
        assert_true(retrieval_vec_wanted(&docs, hits[i].doc));
        assert_true(i == 0 || hits[i - 1].cosine >= hits[i].cosine);
        const float cosine = cosine_of(r, model->active, doc->text, query);
        if (fabsf(cosine - hits[i].cosine) > 1e-4f) {
            fail_msg("doc %u of %s has %f, not %f", hits[i].doc, spaces[s], (double)hits[i].cosine,
                (double)cosine);
        }
        for (size_t j = 0; j < i; j++) {
            assert_int_not_equal(hits[i].doc, hits[j].doc);
        }
    }
    for (uint32_t d = 1; d <= model->docs_count[s]; d++) {
        bool found = false;
        for (size_t i = 0; i < count; i++) {
            found |= hits[i].doc == d;
        }
        const bool has = retrieval_vec_wanted(&docs, d) &&
                         model->docs[s][d].encoder == model->active && !later->docs[s][d].gone;
        expected += has;
        if (has && !found) {
            fail_msg("doc %u of %s is not found", d, spaces[s]);
        }
        if (found && !has && model == later) {
            fail_msg("doc %u of %s is found", d, spaces[s]);
        }
    }
    assert_int_equal(missing, docs.count - count);
    assert_true(count >= expected);
}

static void check(struct run *r)
{
    const size_t s = draw(r, SPACES);
    check_space(r, fixture_read(&r->v.f), &r->model, &r->model, s);
    if (r->old && draw(r, 2) == 0) {
        check_space(r, r->old, &r->before, &r->model, s);
    }
}

/* ---- steps --------------------------------------------------------------------------------- */

static void end_old(struct run *r)
{
    memcube_read_end(&r->old);
}

static char *text_make(struct run *r)
{
    char *text = calloc(1, TEXT_MAX);
    assert_non_null(text);
    int size = snprintf(text, TEXT_MAX, "thing %u", (unsigned)draw(r, 1000000));
    if (draw(r, 5) == 0) { /* some have several spans */
        while (size < TEXT_MAX - 80) {
            size +=
                snprintf(text + size, 80, ". Then came sentence %u", (unsigned)draw(r, 1000000));
        }
    }
    return text;
}

static void doc_made(struct run *r, size_t s, char *text, bool offered)
{
    struct doc *doc = &r->model.docs[s][++r->model.docs_count[s]];
    *doc = (struct doc){.text = text, .encoder = offered ? r->model.active : 0};
}

static void step_put(struct run *r, size_t s)
{
    const bool offered = draw(r, 3) > 0, abandoned = draw(r, 6) == 0;
    char *text = text_make(r);
    const struct memcube_draft draft = draft_of(text);
    const struct memcube_change change = change_of(spaces[s]);
    struct memcube_outcome outcome;

    if (r->cubes_count[s] == CUBES_MAX || r->model.docs_count[s] == DOCS_MAX) {
        free(text);
        return;
    }
    if (offered) {
        vectors_offer(&r->v, &draft);
    }
    if (abandoned) {
        assert_ok(
            memcube_create(fixture_write(&r->v.f), &change, &draft, 1, &outcome, fixture_error()));
        if (draw(r, 2) == 0) { /* and what it sees is asked for */
            (void)vectors_search(&r->v, spaces[s], "thing 1", NULL, NULL, 5);
        }
        memcube_write_abort(&r->v.f.write);
        free(text);
        return;
    }
    r->cubes[s][r->cubes_count[s]++] =
        (struct cube){.id = fixture_put_draft(&r->v.f, spaces[s], &draft).id};
    doc_made(r, s, text, offered);
}

static struct cube *cube_draw(struct run *r, size_t s)
{
    struct cube *cube = r->cubes_count[s] ? &r->cubes[s][draw(r, r->cubes_count[s])] : NULL;
    return cube && !cube->gone ? cube : NULL;
}

static void step_update(struct run *r, size_t s)
{
    struct cube *cube = cube_draw(r, s);
    const bool offered = draw(r, 2) == 0;
    if (!cube || r->model.docs_count[s] == DOCS_MAX ||
        fixture_get_status(&r->v.f, spaces[s], &cube->id, 0) != MEMOS_OK) {
        return;
    }
    char *text = text_make(r);
    const struct memcube_draft draft = draft_of(text);
    if (offered) {
        vectors_offer(&r->v, &draft);
    }
    (void)fixture_update(&r->v.f, spaces[s], &cube->id, text);
    doc_made(r, s, text, offered);
}

static void step_forget(struct run *r, size_t s)
{
    struct cube *cube = cube_draw(r, s);
    const struct memcube_change change = change_of(spaces[s]);
    struct memcube_outcome outcome;
    struct memcube_forgotten forgotten;
    uint8_t key[MEMCUBE_DOC_KEY_BYTES];

    if (!cube) {
        return;
    }
    assert_ok(memcube_forget(fixture_write(&r->v.f), &change, &cube->id, 1, true, false, &outcome,
        &forgotten, fixture_error()));
    if (draw(r, 4) == 0) {
        memcube_write_abort(&r->v.f.write);
        return;
    }
    fixture_commit(&r->v.f);
    cube->gone = true;
    const uint32_t space = fixture_space(&r->v.f, spaces[s]).number;
    for (uint32_t d = 1; d <= r->model.docs_count[s]; d++) {
        struct doc *doc = &r->model.docs[s][d];
        if (memcube_doc_key(fixture_read(&r->v.f), space, d, key, NULL) == MEMOS_FORGOTTEN) {
            doc->gone = true;
            doc->encoder = 0;
        }
    }
}

static void step_rollback(struct run *r, size_t s)
{
    const struct memcube_change change = change_of(spaces[s]);
    struct memcube_space space;
    struct memcube_outcome outcome;
    struct memcube_rollback_item *items = NULL;
    size_t count = 0;

    if (memcube_space_find(fixture_read(&r->v.f), text_of(spaces[s]), &space, NULL) != MEMOS_OK) {
        return;
    }
    const struct memcube_rollback rollback = {.to = {.seq = 1 + draw(r, space.seq)}};
    assert_ok(memcube_rollback(
        fixture_write(&r->v.f), &change, &rollback, &outcome, &items, &count, fixture_error()));
    fixture_commit(&r->v.f);
}

/* Docs on the list are those without vectors of the active encoder, as many as the model says. */
static void step_fill(struct run *r)
{
    struct retrieval_due due[SPACES * DOCS_MAX];
    uint64_t total = 0, expected = 0;
    const size_t most = 1 + draw(r, 12);
    size_t count = 0;

    for (size_t s = 0; s < SPACES; s++) {
        for (uint32_t d = 1; d <= r->model.docs_count[s]; d++) {
            const struct doc *doc = &r->model.docs[s][d];
            expected += !doc->gone && doc->encoder != r->model.active;
        }
    }
    assert_ok(retrieval_vectors_due(
        r->v.vectors, fixture_read(&r->v.f), due, most, &count, &total, fixture_error()));
    assert_int_equal(total, expected);
    assert_int_equal(count, expected < most ? expected : most);
    for (size_t i = 0; i < count; i++) {
        struct memcube_space space;
        assert_ok(
            memcube_space_numbered(fixture_read(&r->v.f), due[i].space, &space, fixture_error()));
        const size_t s = memos_bytes_equal(space.name, text_of(spaces[0])) ? 0 : 1;
        struct doc *doc = &r->model.docs[s][due[i].doc];
        assert_true(!doc->gone && doc->encoder != r->model.active);
        doc->encoder = r->model.active;
    }
    (void)vectors_fill(&r->v, most);
}

static void step_other(struct run *r)
{
    bool worked = false;
    switch (draw(r, 8)) {
    case 0:
        r->model.active = r->model.active % 3 + 1;
        vectors_activate(&r->v, (uint8_t)r->model.active, VECTORS_DIMS);
        break;
    case 1:
        end_old(r);
        vectors_reopen(&r->v);
        break;
    case 2:
    case 3:
        end_old(r);
        assert_ok(memcube_read_begin(r->v.f.store, &r->old, fixture_error()));
        r->before = r->model;
        break;
    default:
        assert_ok(retrieval_vectors_work(r->v.vectors, NULL, NULL, &worked, fixture_error()));
        break;
    }
}

static void step(struct run *r)
{
    const size_t s = draw(r, SPACES);
    switch (draw(r, 16)) {
    case 0:
    case 1:
    case 2:
    case 3:
    case 4:
        step_put(r, s);
        break;
    case 5:
    case 6:
        step_update(r, s);
        break;
    case 7:
        step_forget(r, s);
        break;
    case 8:
        step_rollback(r, s);
        break;
    case 9:
    case 10:
    case 11:
        step_fill(r);
        break;
    default:
        step_other(r);
        break;
    }
    check(r);
}

/* ---- runs ---------------------------------------------------------------------------------- */

static uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

static void run(uint64_t seed, const struct retrieval_vectors_options *options)
{
    struct run *r = calloc(1, sizeof *r);
    struct memcube_fsck_result result;
    assert_non_null(r);
    r->drawn = seed;
    r->model.active = 1;
    vectors_make(&r->v, options, true);
    for (uint64_t i = number_of("MEMOS_TEST_STEPS", STEPS_DEFAULT); i > 0; i--) {
        step(r);
    }
    end_old(r);
    memcube_read_end(&r->v.f.read);
    assert_ok(memcube_fsck(r->v.f.store, false, NULL, NULL, NULL, &result, fixture_error()));
    if (result.problems > 0) {
        fail_msg("fsck: %s", result.first);
    }
    vectors_drop(&r->v);
    for (size_t s = 0; s < SPACES; s++) {
        for (uint32_t d = 1; d <= r->model.docs_count[s]; d++) {
            free(r->model.docs[s][d].text);
        }
    }
    free(r);
}

static void the_index_does_what_the_model_does(void **state)
{
    static const struct retrieval_vectors_options options[] = {
        {.codes = KERN_E4M3}, {.codes = KERN_I8, .exact_rows_max = 8, .ann = RETRIEVAL_ANN_FLAT},
        {.codes = KERN_F32, .cache_bytes_max = 30 * 1024}, /* one table, at times none */
    };
    const uint64_t seed = number_of("MEMOS_TEST_SEED", 20260101);
    (void)state;
    (void)printf("MEMOS_TEST_SEED=%llu\n", (unsigned long long)seed);
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        run(seed + i, &options[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_index_does_what_the_model_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
