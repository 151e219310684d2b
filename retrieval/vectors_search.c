/* Searching: exact over the rows of a table, or over the candidates of an approximate index and
 * what it does not cover, or over the store itself where there is no room for a table.
 *
 * Whatever names a row, its score is computed from its codes by the same kernel, so the ways differ
 * in what they look at and never in a score. */
#include "retrieval/vectors_table.h"

#include <math.h>
#include <stdlib.h>

#define DENSE_PART 4u   /* of a block wanted: all of it is scanned, else the wanted rows alone */
#define SCORE_LOADS 64u /* docs to score: so many are worth loading the table for */
#define AHEAD 4u        /* docs that are begun to be read while one is scored */
#define SPARSE_PART 32u /* of the rows wanted: else docs are looked up one by one */

/* The best docs so far: a heap with the worst on top, in the caller's array. */
struct best {
    struct retrieval_vector_hit *hits;
    size_t count, max;
};

struct search {
    const struct retrieval_vec_encoder *encoder;
    const float *query;
    const struct memcube_docs *wanted;
    struct best best;
};

/* ---- the best ------------------------------------------------------------------------------ */

static bool is_better(const struct retrieval_vector_hit *a, const struct retrieval_vector_hit *b)
{
    return a->cosine > b->cosine || (a->cosine == b->cosine && a->doc < b->doc);
}

static void sift_down(struct best *best, size_t at)
{
    for (;;) {
        size_t worst = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < best->count; child++) {
            if (is_better(&best->hits[worst], &best->hits[child])) {
                worst = child;
            }
        }
        if (worst == at) {
            return;
        }
        const struct retrieval_vector_hit hit = best->hits[at];
        best->hits[at] = best->hits[worst];
        best->hits[worst] = hit;
        at = worst;
    }
}

static void best_add(struct best *best, uint32_t doc, float cosine)
{
    const struct retrieval_vector_hit hit = {.doc = doc, .cosine = cosine};
    size_t at = best->count;

    if (best->count == best->max) {
        if (best->max > 0 && is_better(&hit, &best->hits[0])) {
            best->hits[0] = hit;
            sift_down(best, 0);
        }
        return;
    }
    best->count++;
    while (at > 0 && is_better(&best->hits[(at - 1) / 2], &hit)) {
        best->hits[at] = best->hits[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    best->hits[at] = hit;
}

/* Best first. */
static void best_sort(struct best *best)
{
    const size_t count = best->count;
    while (best->count > 1) {
        const struct retrieval_vector_hit worst = best->hits[0];
        best->hits[0] = best->hits[--best->count];
        sift_down(best, 0);
        best->hits[best->count] = worst;
    }
    best->count = count;
}

/* ---- rows of a table ----------------------------------------------------------------------- */

/* The rows' scores in order; each doc's best goes among the best. `rows` NULL: 0, 1, 2 ... */
static void docs_add(struct search *search, const struct retrieval_vec_block *block,
    const uint32_t *rows, const float *scores, size_t count)
{
    for (size_t i = 0; i < count;) {
        const uint32_t doc = block->docs[rows ? rows[i] : i];
        float most = scores[i];
        for (i++; i < count && block->docs[rows ? rows[i] : i] == doc; i++) {
            most = fmaxf(most, scores[i]);
        }
        if (retrieval_vec_wanted(search->wanted, doc)) {
            best_add(&search->best, doc, most);
        }
    }
}

static void block_scan(
    struct search *search, const struct retrieval_vec_block *block, size_t from, size_t end)
{
    const struct retrieval_vec_encoder *encoder = search->encoder;
    uint32_t rows[RETRIEVAL_VEC_BLOCK_ROWS];
    float scores[RETRIEVAL_VEC_BLOCK_ROWS];
    size_t count = 0;

    for (size_t i = from; i < end; i++) {
        rows[count] = (uint32_t)i;
        count += retrieval_vec_wanted(search->wanted, block->docs[i]);
    }
    if (count == 0) {
        return;
    }
    if (from == 0 && count * DENSE_PART >= end) {
        kern_scan(
            encoder->codes, block->codes, block->scales, end, encoder->dims, search->query, scores);
        docs_add(search, block, NULL, scores, end);
    } else {
        kern_scan_rows(encoder->codes, block->codes, block->scales, rows, count, encoder->dims,
            search->query, scores);
        docs_add(search, block, rows, scores, count);
    }
}

/* All rows from one on. Begins where a doc begins. */
static void rows_scan(struct search *search, const struct retrieval_vec_table *table, uint64_t from)
{
    const uint64_t end = atomic_load_explicit(&table->rows, memory_order_acquire);
    for (uint64_t row = from; row < end;) {
        const size_t at = row % RETRIEVAL_VEC_BLOCK_ROWS;
        const uint64_t left = end - (row - at);
        const size_t last =
            left < RETRIEVAL_VEC_BLOCK_ROWS ? (size_t)left : RETRIEVAL_VEC_BLOCK_ROWS;
        block_scan(search, retrieval_vec_block_at(table, row), at, last);
        row += last - at;
    }
}

/* The best cosine of a doc whose first row this is. */
static float doc_score(const struct retrieval_vec_table *table, const float *query, uint64_t row)
{
    const struct retrieval_vec_encoder *encoder = &table->encoder;
    const struct retrieval_vec_block *block = retrieval_vec_block_at(table, row);
    const size_t at = row % RETRIEVAL_VEC_BLOCK_ROWS;
    const size_t count = retrieval_vec_spans_at(table, row);
    float scores[RETRIEVAL_SPANS_MAX];
    float most;

    memos_assert(count <= RETRIEVAL_SPANS_MAX);
    kern_scan(encoder->codes, block->codes + at * encoder->code_bytes, block->scales + at, count,
        encoder->dims, query, scores);
    most = scores[0];
    for (size_t i = 1; i < count; i++) {
        most = fmaxf(most, scores[i]);
    }
    return most;
}

/* Docs lie far from each other: begin to read what will be scored soon. */
static void doc_prefetch(const struct retrieval_vec_table *table, uint32_t doc)
{
    const size_t bytes = table->encoder.code_bytes;
    uint64_t row;
    if (retrieval_vec_row_of(table, doc, &row)) {
        const struct retrieval_vec_block *block = retrieval_vec_block_at(table, row);
        const size_t at = row % RETRIEVAL_VEC_BLOCK_ROWS;
        __builtin_prefetch(&block->docs[at]);
        __builtin_prefetch(&block->scales[at]);
        for (size_t i = 0; i < bytes; i += 64) {
            __builtin_prefetch(block->codes + at * bytes + i);
        }
    }
}

/* One doc after the other: few are wanted. */
static void docs_scan(struct search *search, const struct retrieval_vec_table *table)
{
    const struct memcube_docs *wanted = search->wanted;
    const uint32_t words = (wanted->docs_end + 63) / 64;

    for (uint32_t word = 0; word < words; word++) {
        for (uint64_t bits = wanted->words[word]; bits != 0; bits &= bits - 1) {
            const uint32_t doc = word * 64 + (uint32_t)__builtin_ctzll(bits);
            uint64_t row;
            if (retrieval_vec_row_of(table, doc, &row)) {
                best_add(&search->best, doc, doc_score(table, search->query, row));
            }
        }
    }
}

/* Docs of wanted that have no row. */
static uint32_t missing_count(
    const struct retrieval_vec_table *table, const struct memcube_docs *wanted)
{
    const uint32_t words = (wanted->docs_end + 63) / 64;
    uint32_t missing = 0;

    for (uint32_t word = 0; word < words; word++) {
        uint64_t bits = wanted->words[word];
        struct retrieval_vec_docs *docs = bits ? retrieval_vec_docs_at(table, word * 64) : NULL;
        if (docs) {
            bits &= ~atomic_load_explicit(
                &docs->have[word % (RETRIEVAL_VEC_BLOCK_DOCS / 64)], memory_order_acquire);
        }
        missing += (uint32_t)__builtin_popcountll(bits);
    }
    return missing;
}

/* ---- through an approximate index ----------------------------------------------------------- */

static int doc_compare(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* A block's marked rows, in order: with each all rows of its doc, since its score is the best of
 * them. Returns how many. */
static size_t marked_list(const struct retrieval_vec_block *block, const uint64_t *marks,
    size_t end, uint32_t out[RETRIEVAL_VEC_BLOCK_ROWS])
{
    size_t count = 0, next = 0; /* rows before next are listed, or not marked */
    for (size_t word = 0; word * 64 < end; word++) {
        for (uint64_t bits = marks[word]; bits != 0; bits &= bits - 1) {
            const size_t at = word * 64 + (size_t)__builtin_ctzll(bits);
            size_t first = at;
            if (at < next || at >= end) {
                continue;
            }
            while (first > next && block->docs[first - 1] == block->docs[at]) {
                first--;
            }
            for (next = first; next < end && block->docs[next] == block->docs[at]; next++) {
                out[count++] = (uint32_t)next;
            }
        }
    }
    return count;
}

static void marked_scan(struct search *search, const struct retrieval_vec_table *table,
    const uint64_t *marks, uint64_t rows_end)
{
    const struct retrieval_vec_encoder *encoder = search->encoder;
    uint32_t rows[RETRIEVAL_VEC_BLOCK_ROWS];
    float scores[RETRIEVAL_VEC_BLOCK_ROWS];

    for (uint64_t row = 0; row < rows_end; row += RETRIEVAL_VEC_BLOCK_ROWS) {
        const struct retrieval_vec_block *block = retrieval_vec_block_at(table, row);
        const uint64_t left = rows_end - row;
        const size_t end =
            left < RETRIEVAL_VEC_BLOCK_ROWS ? (size_t)left : RETRIEVAL_VEC_BLOCK_ROWS;
        const size_t count = marked_list(block, marks + row / 64, end, rows);
        kern_scan_rows(encoder->codes, block->codes, block->scales, rows, count, encoder->dims,
            search->query, scores);
        docs_add(search, block, rows, scores, count);
    }
}

static enum memos_status candidates_scan(struct search *search,
    const struct retrieval_vec_table *table, const struct retrieval_vec_candidates *candidates,
    struct memos_arena *arena, struct memos_error *err)
{
    const size_t count = candidates->rows_count + candidates->rest_count;
    uint32_t *docs = memos_arena_take(arena, count + 1, sizeof *docs);
    size_t found = 0;

    if (candidates->marks) {
        marked_scan(search, table, candidates->marks, candidates->rest_from);
        rows_scan(search, table, candidates->rest_from);
        return MEMOS_OK;
    }
    if (!docs) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu candidates", count);
    }
    for (size_t i = 0; i < count; i++) {
        const uint64_t row = i < candidates->rows_count
                                 ? candidates->rows[i]
                                 : candidates->rest[i - candidates->rows_count];
        const uint32_t doc =
            retrieval_vec_block_at(table, row)->docs[row % RETRIEVAL_VEC_BLOCK_ROWS];
        docs[found] = doc;
        found += retrieval_vec_wanted(search->wanted, doc);
    }
    qsort(docs, found, sizeof *docs, doc_compare); /* spans of one doc, each named */
    for (size_t i = 0; i < found; i++) {
        uint64_t row;
        if ((i == 0 || docs[i] != docs[i - 1]) && retrieval_vec_row_of(table, docs[i], &row) &&
            row < candidates->rest_from) {
            best_add(&search->best, docs[i], doc_score(table, search->query, row));
        }
    }
    rows_scan(search, table, candidates->rest_from);
    return MEMOS_OK;
}

/* ---- from the store ------------------------------------------------------------------------- */

/* The best cosine of a doc read from its entry. NOT_FOUND. */
static enum memos_status entry_score(struct retrieval_vectors *vectors, struct memcube_read *read,
    uint32_t space, uint32_t doc, const struct retrieval_vec_encoder *encoder, const float *query,
    struct retrieval_vec_codes *codes, float *out, struct memos_error *err)
{
    float scores[RETRIEVAL_SPANS_MAX];

    enum memos_status status =
        retrieval_vec_doc_load(vectors, read, space, doc, encoder, NULL, codes, NULL, err);
    if (status != MEMOS_OK) {
        return status;
    }
    kern_scan(
        encoder->codes, codes->codes, codes->scales, codes->spans, encoder->dims, query, scores);
    *out = scores[0];
    for (size_t i = 1; i < codes->spans; i++) {
        *out = fmaxf(*out, scores[i]);
    }
    return MEMOS_OK;
}

static enum memos_status store_scan(struct search *search, struct retrieval_vectors *vectors,
    struct memcube_read *read, uint32_t space, uint32_t *out_missing, struct memos_error *err)
{
    const struct memcube_docs *wanted = search->wanted;
    struct retrieval_vec_codes codes = {.spans = 0};
    enum memos_status status = MEMOS_OK;

    *out_missing = 0;
    for (uint32_t doc = 1; status == MEMOS_OK && doc < wanted->docs_end; doc++) {
        float cosine;
        if (!retrieval_vec_wanted(wanted, doc)) {
            continue;
        }
        status = entry_score(
            vectors, read, space, doc, search->encoder, search->query, &codes, &cosine, err);
        if (status == MEMOS_OK) {
            best_add(&search->best, doc, cosine);
        } else if (status == MEMOS_NOT_FOUND) {
            ++*out_missing;
            status = MEMOS_OK;
        }
    }
    retrieval_vec_codes_finish(&codes);
    (void)atomic_fetch_add_explicit(&vectors->streamed, 1, memory_order_relaxed);
    return status;
}

/* ---- what is asked ------------------------------------------------------------------------- */

/* Over a table that is held. */
static enum memos_status table_search(struct search *search, struct retrieval_vectors *vectors,
    struct retrieval_vec_table *table, struct memos_arena *arena, struct memos_error *err)
{
    const uint64_t rows = atomic_load_explicit(&table->rows, memory_order_acquire);
    struct retrieval_vec_candidates candidates;
    struct retrieval_vec_ann *ann = NULL;
    enum memos_status status = MEMOS_OK;

    if ((uint64_t)search->wanted->count * SPARSE_PART < rows) {
        docs_scan(search, table);
        return MEMOS_OK;
    }
    /* How many rows the wanted docs have, about: docs have a few each. */
    const uint64_t docs = atomic_load_explicit(&table->docs_through, memory_order_relaxed);
    if (rows * search->wanted->count / (docs ? docs : 1) > vectors->exact_rows_max) {
        ann = retrieval_vec_ann_take(table);
    }
    if (ann) {
        status = retrieval_vec_ann_search(
            table, ann, search->query, search->wanted, search->best.max, arena, &candidates, err);
        retrieval_vec_ann_give(table, ann);
        if (status == MEMOS_OK) {
            (void)atomic_fetch_add_explicit(&vectors->ann_searches, 1, memory_order_relaxed);
            return candidates_scan(search, table, &candidates, arena, err);
        }
    }
    /* Without one, or where it failed: slower, and right. */
    rows_scan(search, table, 0);
    return MEMOS_OK;
}

enum memos_status retrieval_vectors_search(struct retrieval_vectors *vectors,
    struct memcube_read *read, const struct memcube_space *space, const uint8_t fingerprint[32],
    const float *query, const struct memcube_docs *wanted, size_t top_k,
    struct retrieval_vector_hit *out, size_t *out_count, uint32_t *out_missing,
    struct memos_error *err)
{
    struct retrieval_vec_encoder encoder;
    struct retrieval_vec_table *table = NULL;
    struct search search = {
        .encoder = &encoder, .query = query, .wanted = wanted, .best = {.hits = out, .max = top_k}};

    *out_count = 0;
    *out_missing = wanted->count;
    enum memos_status status =
        retrieval_vec_active_is(vectors, memcube_read_txn(read), fingerprint, &encoder, err);
    if (status != MEMOS_OK || encoder.number == 0) {
        return status;
    }
    if (!retrieval_vec_finite(query, encoder.dims)) {
        return memos_fail(err, MEMOS_INVALID, "a query vector with values that are not finite");
    }
    status = retrieval_vec_table_take(vectors, read, space, &encoder, true, &table, err);
    if (status == MEMOS_OK && table) {
        status = table_search(&search, vectors, table, memcube_read_arena(read), err);
        *out_missing = missing_count(table, wanted);
        retrieval_vec_table_give(vectors, table);
    } else if (status == MEMOS_OK) {
        status = store_scan(&search, vectors, read, space->number, out_missing, err);
    }
    if (status == MEMOS_OK) {
        best_sort(&search.best);
        *out_count = search.best.count;
    }
    return status;
}

enum memos_status retrieval_vectors_score(struct retrieval_vectors *vectors,
    struct memcube_read *read, const struct memcube_space *space, const uint8_t fingerprint[32],
    const float *query, const uint32_t *docs, size_t docs_count, float *out_cosines,
    struct memos_error *err)
{
    struct retrieval_vec_encoder encoder;
    struct retrieval_vec_codes codes = {.spans = 0};
    struct retrieval_vec_table *table = NULL;

    for (size_t i = 0; i < docs_count; i++) {
        out_cosines[i] = NAN;
    }
    enum memos_status status =
        retrieval_vec_active_is(vectors, memcube_read_txn(read), fingerprint, &encoder, err);
    if (status != MEMOS_OK || encoder.number == 0) {
        return status;
    }
    status = retrieval_vec_table_take(
        vectors, read, space, &encoder, docs_count >= SCORE_LOADS, &table, err);
    for (size_t i = 0; status == MEMOS_OK && i < docs_count; i++) {
        uint64_t row;
        if (table && i + AHEAD < docs_count) {
            doc_prefetch(table, docs[i + AHEAD]);
        }
        if (!table) {
            status = entry_score(vectors, read, space->number, docs[i], &encoder, query, &codes,
                &out_cosines[i], err);
            status = status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
        } else if (retrieval_vec_row_of(table, docs[i], &row)) {
            out_cosines[i] = doc_score(table, query, row);
        }
    }
    if (table) {
        retrieval_vec_table_give(vectors, table);
    }
    retrieval_vec_codes_finish(&codes);
    return status;
}
