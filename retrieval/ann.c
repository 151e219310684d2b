#include "retrieval/ann.h"

#include "retrieval/ann_internal.h"
#include "retrieval/faiss_c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "FAISS takes a bitmap by its bytes");

/* Vectors that are decoded and added at once: between them one can be told to stop. */
#define CHUNK_BYTES ((size_t)8 << 20)

/* Vectors for each list to train on. FAISS complains below 39. */
#define TRAIN_PER_LIST 40
#define TRAIN_PQ ((size_t)256 * 40)
#define TRAIN_SQ 16384
#define LISTS_LEAST 256 /* vectors */

#define DIMS_MAX 65536
#define COUNT_MAX ((uint64_t)1 << 31)
#define THREADS_MAX 16

/* hnsw: links of a node, candidates while building and while searching. README.md has the figures
 * that they were chosen by. */
#define HNSW_LINKS 32
#define HNSW_BUILD 40
#define HNSW_EFFORT 128

static const char *const type_names[] = {"auto", "flat", "hnsw", "ivf-flat", "ivf-sq8", "ivf-pq"};

const char *retrieval_ann_type_name(enum retrieval_ann_type type)
{
    memos_assert((size_t)type < sizeof type_names / sizeof *type_names);
    return type_names[type];
}

enum retrieval_ann_type retrieval_ann_type_of(struct memos_bytes name, bool *out_known)
{
    *out_known = true;
    for (size_t i = 0; i < sizeof type_names / sizeof *type_names; i++) {
        if (memos_bytes_equal(name, memos_bytes_of(type_names[i]))) {
            return (enum retrieval_ann_type)i;
        }
    }
    *out_known = false;
    return RETRIEVAL_ANN_AUTO;
}

/* ---- FAISS --------------------------------------------------------------------------------- */

enum memos_status retrieval_faiss_status(int code, const char *what, struct memos_error *err)
{
    if (code == 0) {
        return MEMOS_OK;
    }
    const char *text = faiss_get_last_error();
    bool memory = code == STD_EXCEPT && strstr(text, "bad_alloc");
    return memos_fail_foreign(
        err, memory ? MEMOS_NO_MEMORY : MEMOS_INTERNAL, code, "faiss, to %s: %s", what, text);
}

unsigned retrieval_faiss_threads(unsigned threads)
{
    int before = omp_get_max_threads();
    omp_set_num_threads((int)threads);
    return (unsigned)before;
}

unsigned retrieval_faiss_threads_default(unsigned wanted)
{
    long processors = wanted > 0 ? (long)wanted : sysconf(_SC_NPROCESSORS_ONLN);
    return processors < 1 ? 1 : processors > THREADS_MAX ? THREADS_MAX : (unsigned)processors;
}

static bool type_is_ivf(enum retrieval_ann_type type)
{
    return type == RETRIEVAL_ANN_IVF_FLAT || type == RETRIEVAL_ANN_IVF_SQ8 ||
           type == RETRIEVAL_ANN_IVF_PQ;
}

/* ---- what to build ------------------------------------------------------------------------- */

/* What suits so many; lists, and codes above all, cannot be learned of too few. */
static enum retrieval_ann_type type_for(enum retrieval_ann_type type, uint64_t count)
{
    if (count < LISTS_LEAST && type_is_ivf(type)) {
        return RETRIEVAL_ANN_FLAT;
    } else if (count < TRAIN_PQ && type == RETRIEVAL_ANN_IVF_PQ) {
        return RETRIEVAL_ANN_IVF_SQ8;
    } else if (type != RETRIEVAL_ANN_AUTO) {
        return type;
    } else if (count < 20000) {
        return RETRIEVAL_ANN_FLAT;
    }
    return RETRIEVAL_ANN_IVF_SQ8;
}

/* Three to six times sqrt(count), a power of two, with enough vectors to train each on. */
static size_t lists_for(uint64_t count)
{
    size_t lists = 1;
    while (lists < 4096 && (uint64_t)lists * lists < 8 * count &&
           (uint64_t)lists * 2 * TRAIN_PER_LIST <= count) {
        lists *= 2;
    }
    return lists;
}

/* Bytes of a product-quantized vector: the largest divisor of dims that is at most a quarter. */
static size_t pq_bytes(size_t dims)
{
    size_t bytes = dims >= 4 ? dims / 4 : 1;
    while (dims % bytes != 0) {
        bytes--;
    }
    return bytes;
}

size_t retrieval_ann_effort(enum retrieval_ann_type type, size_t lists)
{
    if (type == RETRIEVAL_ANN_HNSW) {
        return HNSW_EFFORT;
    } else if (!type_is_ivf(type)) {
        return 0;
    }
    return lists / 16 > 16 ? lists / 16 : lists < 16 ? lists : 16;
}

/* FAISS's name for an index, and how many vectors it wants to see beforehand. */
static size_t recipe(
    enum retrieval_ann_type type, size_t dims, size_t lists, char *out, size_t out_size)
{
    size_t train = lists * TRAIN_PER_LIST;
    switch (type) {
    case RETRIEVAL_ANN_HNSW:
        (void)snprintf(out, out_size, "HNSW%d,Flat", HNSW_LINKS);
        return 0;
    case RETRIEVAL_ANN_IVF_FLAT:
        (void)snprintf(out, out_size, "IVF%zu,Flat", lists);
        return train;
    case RETRIEVAL_ANN_IVF_SQ8:
        (void)snprintf(out, out_size, "IVF%zu,SQ8", lists);
        return train > TRAIN_SQ ? train : TRAIN_SQ;
    case RETRIEVAL_ANN_IVF_PQ:
        (void)snprintf(out, out_size, "IVF%zu,PQ%zux8np", lists, pq_bytes(dims));
        return train > TRAIN_PQ ? train : TRAIN_PQ;
    default:
        (void)snprintf(out, out_size, "Flat");
        return 0;
    }
}

/* ---- building ------------------------------------------------------------------------------ */

static enum memos_status parameter_set(
    FaissIndex *index, const char *name, size_t value, struct memos_error *err)
{
    FaissParameterSpace *space = NULL;
    int code = faiss_ParameterSpace_new(&space);
    if (code == 0) {
        code = faiss_ParameterSpace_set_index_parameter(space, index, name, (double)value);
        faiss_ParameterSpace_free(space);
    }
    return retrieval_faiss_status(code, name, err);
}

enum memos_status retrieval_ann_adopt(struct retrieval_ann *ann, struct memos_error *err)
{
    FaissIndexIVF *ivf = faiss_IndexIVF_cast(ann->index);
    char name[32];
    enum memos_status status = MEMOS_OK;

    if ((size_t)faiss_Index_d(ann->index) != ann->dims ||
        (uint64_t)faiss_Index_ntotal(ann->index) != ann->count ||
        faiss_Index_metric_type(ann->index) != METRIC_INNER_PRODUCT ||
        type_is_ivf(ann->type) != (ivf != NULL)) {
        return memos_fail(err, MEMOS_CORRUPT, "the index is not of the type and size that it says");
    }
    ann->lists = ivf ? faiss_IndexIVF_nlist(ivf) : 0;
    if (ivf) {
        status = parameter_set(ann->index, "nprobe", ann->effort, err);
    } else if (ann->type == RETRIEVAL_ANN_HNSW) {
        status = parameter_set(ann->index, "efSearch", ann->effort, err);
    }
    (void)recipe(ann->type, ann->dims, ann->lists, name, sizeof name);
    if (ann->effort == 0) {
        (void)snprintf(ann->description, sizeof ann->description, "%s", name);
    } else {
        (void)snprintf(ann->description, sizeof ann->description, "%s %s %zu", name,
            ivf ? "nprobe" : "efSearch", ann->effort);
    }
    return status;
}

/* Buffers and counts of one building. */
struct building {
    const struct retrieval_ann_build *build;
    struct retrieval_ann *ann;
    uint64_t steps; /* vectors to train on and to add */
    uint64_t done;
};

static enum memos_status building_step(struct building *b, uint64_t done, struct memos_error *err)
{
    const struct retrieval_ann_build *build = b->build;
    b->done += done;
    if (build->progress && !build->progress(build->progress_self, b->done, b->steps)) {
        return memos_fail(err, MEMOS_CANCELLED, "building an index of %llu vectors was stopped",
            (unsigned long long)build->count);
    }
    return MEMOS_OK;
}

/* A sample, evenly over all vectors: neighbours in time are about the same thing. */
static enum memos_status building_train(struct building *b, size_t train, struct memos_error *err)
{
    const struct retrieval_ann_build *build = b->build;
    size_t count = (uint64_t)train < build->count ? train : (size_t)build->count;
    if (count == 0) {
        return MEMOS_OK;
    }
    float *sample = calloc(count, build->dims * sizeof *sample);
    if (!sample) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to train on %zu vectors", count);
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t from = (uint64_t)i * build->count / count;
        build->vectors(build->self, from, 1, sample + i * build->dims);
    }
    enum memos_status status = building_step(b, 0, err);
    if (status == MEMOS_OK) {
        int code = faiss_Index_train(b->ann->index, (idx_t)count, sample);
        status = retrieval_faiss_status(code, "train an index", err);
    }
    free(sample);
    return status == MEMOS_OK ? building_step(b, count, err) : status;
}

static enum memos_status building_add(struct building *b, struct memos_error *err)
{
    const struct retrieval_ann_build *build = b->build;
    size_t row_bytes = build->dims * sizeof(float);
    size_t chunk = CHUNK_BYTES / row_bytes > 0 ? CHUNK_BYTES / row_bytes : 1;
    enum memos_status status = MEMOS_OK;
    float *rows = malloc(chunk * row_bytes);

    if (!rows) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to build an index");
    }
    for (uint64_t at = 0; at < build->count && status == MEMOS_OK; at += chunk) {
        size_t count = build->count - at < chunk ? (size_t)(build->count - at) : chunk;
        build->vectors(build->self, at, count, rows);
        int code = faiss_Index_add(b->ann->index, (idx_t)count, rows);
        status = retrieval_faiss_status(code, "add to an index", err);
        if (status == MEMOS_OK) {
            status = building_step(b, count, err);
        }
    }
    free(rows);
    return status;
}

static enum memos_status building_run(struct building *b, struct memos_error *err)
{
    struct retrieval_ann *ann = b->ann;
    size_t lists = type_is_ivf(ann->type) ? lists_for(b->build->count) : 0;
    char name[32];
    size_t train = recipe(ann->type, ann->dims, lists, name, sizeof name);

    b->steps = b->build->count + ((uint64_t)train < b->build->count ? train : b->build->count);
    int code = faiss_index_factory(&ann->index, (int)ann->dims, name, METRIC_INNER_PRODUCT);
    enum memos_status status = retrieval_faiss_status(code, "make an index", err);
    if (status == MEMOS_OK && ann->type == RETRIEVAL_ANN_HNSW) {
        status = parameter_set(ann->index, "efConstruction", HNSW_BUILD, err);
    }
    if (status == MEMOS_OK) {
        status = building_train(b, train, err);
    }
    if (status == MEMOS_OK) {
        status = building_add(b, err);
    }
    if (status == MEMOS_OK) {
        ann->effort = retrieval_ann_effort(ann->type, lists);
        status = retrieval_ann_adopt(ann, err);
    }
    return status;
}

enum memos_status retrieval_ann_build(const struct retrieval_ann_build *build,
    struct retrieval_ann **out_ann, struct memos_error *err)
{
    if (build->dims < 1 || build->dims > DIMS_MAX || build->count > COUNT_MAX) {
        return memos_fail(err, MEMOS_INVALID, "an index of %llu vectors of %zu numbers",
            (unsigned long long)build->count, build->dims);
    }
    struct retrieval_ann *ann = calloc(1, sizeof *ann);
    if (!ann) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for an index");
    }
    ann->type = type_for(build->type, build->count);
    ann->dims = build->dims;
    ann->count = build->count;
    ann->threads = retrieval_faiss_threads_default(build->threads);
    struct building b = {.build = build, .ann = ann};
    unsigned before = retrieval_faiss_threads(ann->threads);
    enum memos_status status = building_run(&b, err);
    (void)retrieval_faiss_threads(before);
    if (status != MEMOS_OK) {
        retrieval_ann_free(&ann);
        return status;
    }
    *out_ann = ann;
    return MEMOS_OK;
}

void retrieval_ann_free(struct retrieval_ann **ann)
{
    if (!*ann) {
        return;
    }
    if ((*ann)->index) {
        faiss_Index_free((*ann)->index);
    }
    free(*ann);
    *ann = NULL;
}

enum memos_status retrieval_ann_add(
    struct retrieval_ann *ann, const float *vectors, size_t count, struct memos_error *err)
{
    if (count > COUNT_MAX - ann->count) {
        return memos_fail(err, MEMOS_TOO_LARGE, "an index of more than %llu vectors",
            (unsigned long long)COUNT_MAX);
    } else if (count == 0) {
        return MEMOS_OK;
    }
    unsigned before = retrieval_faiss_threads(count < 64 ? 1 : ann->threads);
    int code = faiss_Index_add(ann->index, (idx_t)count, vectors);
    (void)retrieval_faiss_threads(before);
    if (code == 0) {
        ann->count += count;
    }
    return retrieval_faiss_status(code, "add to an index", err);
}

/* ---- what there is ------------------------------------------------------------------------- */

uint64_t retrieval_ann_count(const struct retrieval_ann *ann)
{
    return ann->count;
}

const char *retrieval_ann_describe(const struct retrieval_ann *ann)
{
    return ann->description;
}

uint64_t retrieval_ann_bytes(const struct retrieval_ann *ann)
{
    uint64_t row = ann->dims * sizeof(float);
    uint64_t centroids = ann->lists * row;
    switch (ann->type) {
    case RETRIEVAL_ANN_HNSW: /* twice the links in the lowest layer, few above it */
        return ann->count * (row + (2 * HNSW_LINKS + 4) * sizeof(int32_t) + 8);
    case RETRIEVAL_ANN_IVF_FLAT:
        return ann->count * (row + 8) + centroids;
    case RETRIEVAL_ANN_IVF_SQ8:
        return ann->count * (ann->dims + 8) + centroids;
    case RETRIEVAL_ANN_IVF_PQ:
        return ann->count * (pq_bytes(ann->dims) + 8) + centroids + 256 * row;
    default:
        return ann->count * row;
    }
}

/* ---- searching ----------------------------------------------------------------------------- */

struct search {
    const struct retrieval_ann *ann;
    const float *query;
    const uint64_t *wanted; /* NULL: all */
    uint64_t wanted_bits;   /* no more than there are labels */
    uint64_t wanted_count;
    size_t top_k; /* no more than are wanted */
    int64_t *labels;
    float *scores;
    size_t count;
};

static bool search_wants(const struct search *s, int64_t label)
{
    uint64_t bit = (uint64_t)label;
    return label >= 0 && bit < s->wanted_bits &&
           (!s->wanted || (s->wanted[bit / 64] >> (bit % 64) & 1) != 0);
}

static uint64_t wanted_count(const uint64_t *wanted, uint64_t bits)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < bits / 64; i++) {
        count += (uint64_t)__builtin_popcountll(wanted[i]);
    }
    if (bits % 64 != 0) {
        count +=
            (uint64_t)__builtin_popcountll(wanted[bits / 64] & ((UINT64_C(1) << (bits % 64)) - 1));
    }
    return count;
}

/* Keep what is wanted of `count` results in order, best first. */
static void search_take(struct search *s, const int64_t *labels, const float *scores, size_t count)
{
    s->count = 0;
    for (size_t i = 0; i < count && s->count < s->top_k; i++) {
        if (search_wants(s, labels[i])) {
            s->labels[s->count] = labels[i];
            s->scores[s->count] = scores[i];
            s->count++;
        }
    }
}

/* One call of FAISS for `ask` results, `effort` lists wide (ivf). */
static enum memos_status search_once(
    struct search *s, size_t ask, size_t effort, bool select, struct memos_error *err)
{
    const struct retrieval_ann *ann = s->ann;
    FaissIDSelectorBitmap *selector = NULL;
    FaissSearchParameters *params = NULL;
    int64_t *labels = malloc(ask * sizeof *labels);
    float *scores = malloc(ask * sizeof *scores);
    int code = 0;

    if (!labels || !scores) {
        free(labels);
        free(scores);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to search for %zu vectors", ask);
    }
    if (select) {
        code = faiss_IDSelectorBitmap_new(
            &selector, (size_t)(s->wanted_bits + 7) / 8, (const uint8_t *)s->wanted);
    }
    if (code == 0 && ann->lists > 0) {
        code = faiss_SearchParametersIVF_new_with(&params, selector, effort, 0);
    } else if (code == 0 && select) {
        code = faiss_SearchParameters_new(&params, selector);
    }
    if (code == 0) {
        code = faiss_Index_search_with_params(
            ann->index, 1, s->query, (idx_t)ask, params, scores, labels);
    }
    enum memos_status status = retrieval_faiss_status(code, "search an index", err);
    if (status == MEMOS_OK) {
        search_take(s, labels, scores, ask);
    }
    if (params) {
        faiss_SearchParameters_free(params);
    }
    if (selector) {
        faiss_IDSelector_free(selector);
    }
    free(labels);
    free(scores);
    return status;
}

/* flat, ivf: FAISS passes over what is not wanted. Its bitmap ends at a byte's end, hence up to
 * seven more. */
static enum memos_status search_lists(struct search *s, struct memos_error *err)
{
    const struct retrieval_ann *ann = s->ann;
    bool select = s->wanted != NULL;
    size_t ask = s->top_k + (select ? 7 : 0);
    /* Of fewer wanted, as many lie in more lists. */
    uint64_t share = ann->count / s->wanted_count;
    uint64_t effort = ann->effort * (share > 1 ? share : 1);

    for (;;) {
        effort = effort < ann->lists ? effort : ann->lists;
        enum memos_status status = search_once(s, ask, (size_t)effort, select, err);
        if (status != MEMOS_OK || s->count == s->top_k || effort == ann->lists) {
            return status;
        }
        effort *= 4;
    }
}

/* Compare with what is wanted, one by one. */
static enum memos_status search_each(struct search *s, struct memos_error *err)
{
    const struct retrieval_ann *ann = s->ann;
    enum memos_status status = MEMOS_OK;
    float *row = malloc(ann->dims * sizeof *row);

    if (!row) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to search");
    }
    s->count = 0;
    for (uint64_t label = 0; label < s->wanted_bits && status == MEMOS_OK; label++) {
        if (!search_wants(s, (int64_t)label)) {
            continue;
        }
        status = retrieval_faiss_status(
            faiss_Index_reconstruct(ann->index, (idx_t)label, row), "read a vector", err);
        float score = 0.0f;
        for (size_t i = 0; i < ann->dims; i++) {
            score += row[i] * s->query[i];
        }
        /* The best so far in order: of most, none of it moves. */
        size_t at = s->count < s->top_k ? s->count++ : s->top_k;
        for (; at > 0 && score > s->scores[at - 1]; at--) {
            if (at < s->top_k) {
                s->scores[at] = s->scores[at - 1];
                s->labels[at] = s->labels[at - 1];
            }
        }
        if (at < s->top_k) {
            s->scores[at] = score;
            s->labels[at] = (int64_t)label;
        }
    }
    free(row);
    return status;
}

/* hnsw: FAISS 1.7.3 knows no filter here. More are asked for than are needed (it keeps at least as
 * many candidates as are asked for), and where that would be much, each is looked at. */
static enum memos_status search_graph(struct search *s, struct memos_error *err)
{
    const struct retrieval_ann *ann = s->ann;
    uint64_t share = (ann->count + s->wanted_count - 1) / s->wanted_count;
    uint64_t ask = share > 1 ? (s->top_k + 8) * share * 2 : s->top_k;

    for (; ask <= s->wanted_count / 8 || ask <= ann->effort; ask *= 4) {
        bool all = ask >= ann->count;
        enum memos_status status =
            search_once(s, all ? (size_t)ann->count : (size_t)ask, 0, false, err);
        if (status != MEMOS_OK || s->count == s->top_k) {
            return status;
        } else if (all) {
            break; /* not even so: some cannot be reached in the graph */
        }
    }
    return search_each(s, err);
}

enum memos_status retrieval_ann_search(const struct retrieval_ann *ann, const float *query,
    const uint64_t *wanted, uint64_t wanted_bits, size_t top_k, int64_t *out_labels,
    float *out_scores, size_t *out_count, struct memos_error *err)
{
    struct search s = {.ann = ann,
        .query = query,
        .wanted = wanted,
        .wanted_bits = !wanted || wanted_bits > ann->count ? ann->count : wanted_bits,
        .labels = out_labels,
        .scores = out_scores};
    enum memos_status status = MEMOS_OK;

    s.wanted_count = wanted ? wanted_count(wanted, s.wanted_bits) : ann->count;
    s.top_k = top_k < s.wanted_count ? top_k : (size_t)s.wanted_count;
    if (s.top_k > 0) {
        /* One query is one thread's work: a team costs more than it gives. */
        unsigned before = retrieval_faiss_threads(1);
        status = ann->type == RETRIEVAL_ANN_HNSW ? search_graph(&s, err) : search_lists(&s, err);
        (void)retrieval_faiss_threads(before);
    }
    *out_count = status == MEMOS_OK ? s.count : 0;
    return status;
}
