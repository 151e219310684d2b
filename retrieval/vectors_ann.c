/* Approximate indexes over tables: when one is wanted, how it is made, what it names.
 *
 * An index is made from the rows of a table as they lie, so that its labels are row numbers. One
 * that comes from a file was made from another table of the same docs: its labels are then looked
 * up once, and rows that it does not have are scanned exactly, as are those that came after it. */
#include "retrieval/ann_lists.h"
#include "retrieval/vectors_table.h"

#include <stdlib.h>

#define NO_ROW UINT32_MAX
#define REST_PART 4u  /* made anew when so large a part of its rows is not covered */
#define GONE_PART 10u /* or has gone; smaller parts wait until no more go */
#define WIDER 4u      /* candidates for each hit that is wanted, and as many as these */
#define WIDER_LEAST 64u
#define HIDDEN_MAX 1024u /* docs not wanted: of so few, each row's is not looked up */
#define RETRY_PART 4u    /* after a failure, when there are so much (a fourth) more rows */

struct retrieval_vec_ann {
    struct retrieval_ann *ann;
    struct retrieval_ann_lists *lists; /* NULL: it has none */
    unsigned users;                    /* the table among them; under the table's ann_lock */
    uint64_t labels;
    uint32_t *rows;     /* of each label; NO_ROW; NULL: the same numbers */
    uint64_t rest_from; /* rows from here on came later */
    uint32_t *rest;     /* rows before that it does not have */
    size_t rest_count;
    uint64_t gone; /* the table's rows_gone when it was made */
    uint64_t bytes;
};

static void ann_free(struct retrieval_vec_ann *ann)
{
    if (ann) {
        retrieval_ann_free(&ann->ann);
        retrieval_ann_lists_free(&ann->lists);
        free(ann->rows);
        free(ann->rest);
        free(ann);
    }
}

/* ---- holding ------------------------------------------------------------------------------- */

struct retrieval_vec_ann *retrieval_vec_ann_take(struct retrieval_vec_table *table)
{
    (void)pthread_mutex_lock(&table->ann_lock);
    struct retrieval_vec_ann *ann = table->ann;
    if (ann) {
        ann->users++;
    }
    (void)pthread_mutex_unlock(&table->ann_lock);
    return ann;
}

void retrieval_vec_ann_give(struct retrieval_vec_table *table, struct retrieval_vec_ann *ann)
{
    (void)pthread_mutex_lock(&table->ann_lock);
    const bool last = --ann->users == 0;
    (void)pthread_mutex_unlock(&table->ann_lock);
    if (last) {
        ann_free(ann);
    }
}

/* Put another index (NULL: none) in the place of the table's; its bytes are counted already. */
static bool ann_replace(struct retrieval_vectors *vectors, struct retrieval_vec_table *table,
    struct retrieval_vec_ann *ann)
{
    (void)pthread_mutex_lock(&table->ann_lock);
    struct retrieval_vec_ann *before = table->ann;
    table->ann = ann;
    (void)pthread_mutex_unlock(&table->ann_lock);
    if (before) {
        (void)atomic_fetch_sub_explicit(&vectors->bytes, before->bytes, memory_order_relaxed);
        retrieval_vec_ann_give(table, before);
    }
    return before != NULL;
}

bool retrieval_vec_ann_drop(struct retrieval_vectors *vectors, struct retrieval_vec_table *table)
{
    return ann_replace(vectors, table, NULL);
}

uint64_t retrieval_vec_ann_bytes(struct retrieval_vec_table *table)
{
    (void)pthread_mutex_lock(&table->ann_lock);
    const uint64_t bytes = table->ann ? table->ann->bytes : 0;
    (void)pthread_mutex_unlock(&table->ann_lock);
    return bytes;
}

/* ---- searching ----------------------------------------------------------------------------- */

/* A bit for each label whose row's doc is wanted. */
static uint64_t *labels_wanted(const struct retrieval_vec_table *table,
    const struct retrieval_vec_ann *ann, const struct memcube_docs *wanted,
    struct memos_arena *arena)
{
    uint64_t *bits = memos_arena_take(arena, ann->labels / 64 + 1, sizeof *bits);
    if (!bits) {
        return NULL;
    }
    memset(bits, 0, (ann->labels / 64 + 1) * sizeof *bits);
    for (uint64_t label = 0; label < ann->labels; label++) {
        const uint64_t row = ann->rows ? ann->rows[label] : label;
        if (row != NO_ROW) {
            const struct retrieval_vec_block *block = retrieval_vec_block_at(table, row);
            const uint32_t doc = block->docs[row % RETRIEVAL_VEC_BLOCK_ROWS];
            bits[label / 64] |= (uint64_t)retrieval_vec_wanted(wanted, doc) << (label % 64);
        }
    }
    return bits;
}

/* Mark a row whose doc is wanted. */
static bool mark_row(const struct retrieval_vec_table *table, uint64_t row,
    const struct memcube_docs *wanted, uint64_t *marks)
{
    const struct retrieval_vec_block *block = retrieval_vec_block_at(table, row);
    if (!retrieval_vec_wanted(wanted, block->docs[row % RETRIEVAL_VEC_BLOCK_ROWS])) {
        return false;
    }
    marks[row / 64] |= UINT64_C(1) << (row % 64);
    return true;
}

/* Mark the wanted rows of the nearest lists: of fewer wanted, in more lists, until there are some
 * times as many as are asked for. */
static enum memos_status lists_mark(const struct retrieval_vec_table *table,
    const struct retrieval_vec_ann *ann, const float *query, const struct memcube_docs *wanted,
    size_t top_k, struct memos_arena *arena, struct retrieval_vec_candidates *out,
    struct memos_error *err)
{
    const struct retrieval_ann_lists *lists = ann->lists;
    const uint64_t share = ann->labels / (wanted->count ? wanted->count : 1);
    const uint64_t effort = lists->effort * (share > 1 ? share : 1);
    const uint32_t hidden = wanted->docs_end - wanted->count;
    /* A look at each row's doc costs as much as its score, almost: not for a few. The scan drops
     * what is not wanted, too. */
    const bool check = hidden > HIDDEN_MAX;
    const size_t most = top_k * WIDER + WIDER_LEAST + (check ? 0 : hidden);
    const size_t words = ann->rest_from / 64 + 1;
    struct retrieval_ann_walk walk;
    uint64_t seen = 0;
    size_t found = 0;
    uint32_t list;

    enum memos_status status = retrieval_ann_walk_begin(lists, query, arena, &walk, err);
    out->marks = memos_arena_take(arena, words, sizeof *out->marks);
    if (status == MEMOS_OK && !out->marks) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for candidates");
    }
    if (status != MEMOS_OK) {
        return status;
    }
    memset(out->marks, 0, words * sizeof *out->marks);
    while ((seen < effort || found < most) && retrieval_ann_walk_next(&walk, &list)) {
        for (uint32_t i = lists->starts[list]; i < lists->starts[list + 1]; i++) {
            const uint64_t label = lists->labels[i];
            const uint64_t row = label >= ann->labels ? NO_ROW
                                 : ann->rows          ? ann->rows[label]
                                                      : label;
            if (row == NO_ROW) {
                continue;
            } else if (check) {
                found += mark_row(table, row, wanted, out->marks);
            } else {
                out->marks[row / 64] |= UINT64_C(1) << (row % 64);
                found++;
            }
        }
        seen++;
    }
    for (size_t i = 0; i < ann->rest_count; i++) {
        (void)mark_row(table, ann->rest[i], wanted, out->marks);
    }
    return MEMOS_OK;
}

enum memos_status retrieval_vec_ann_search(const struct retrieval_vec_table *table,
    const struct retrieval_vec_ann *ann, const float *query, const struct memcube_docs *wanted,
    size_t top_k, struct memos_arena *arena, struct retrieval_vec_candidates *out,
    struct memos_error *err)
{
    *out = (struct retrieval_vec_candidates){.rest_from = ann->rest_from};
    if (ann->lists) {
        return lists_mark(table, ann, query, wanted, top_k, arena, out, err);
    }
    const size_t most = top_k * WIDER + WIDER_LEAST;
    int64_t *labels = memos_arena_take(arena, most, sizeof *labels);
    float *scores = memos_arena_take(arena, most, sizeof *scores);
    uint64_t *rows = memos_arena_take(arena, most, sizeof *rows);
    uint64_t *bits = labels_wanted(table, ann, wanted, arena);
    size_t found = 0;

    if (!labels || !scores || !rows || !bits) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu candidates", most);
    }
    enum memos_status status =
        retrieval_ann_search(ann->ann, query, bits, ann->labels, most, labels, scores, &found, err);
    *out = (struct retrieval_vec_candidates){.rows = rows,
        .rest_from = ann->rest_from,
        .rest = ann->rest,
        .rest_count = ann->rest_count};
    for (size_t i = 0; status == MEMOS_OK && i < found; i++) {
        const uint64_t label = (uint64_t)labels[i];
        if (label < ann->labels && (!ann->rows || ann->rows[label] != NO_ROW)) {
            rows[out->rows_count++] = ann->rows ? ann->rows[label] : label;
        }
    }
    return status;
}

/* ---- what a table wants ---------------------------------------------------------------------- */

enum work {
    WORK_NONE,
    WORK_LOAD,
    WORK_BUILD,
};

static enum work work_of(struct retrieval_vectors *vectors, struct retrieval_vec_table *table)
{
    const uint64_t rows = atomic_load_explicit(&table->rows, memory_order_acquire);
    const uint64_t gone = atomic_load_explicit(&table->rows_gone, memory_order_acquire);
    enum work work = WORK_NONE;

    (void)pthread_mutex_lock(&table->ann_lock);
    struct retrieval_vec_ann_plan *plan = &table->plan;
    const struct retrieval_vec_ann *ann = table->ann;
    if (!vectors->files || rows - gone <= vectors->exact_rows_max || rows < plan->rows_least) {
        work = WORK_NONE;
    } else if (!ann) {
        work = plan->load_tried ? WORK_BUILD : WORK_LOAD;
    } else {
        const uint64_t rest = rows - ann->rest_from + ann->rest_count;
        const uint64_t lost = gone - ann->gone;
        const bool at_rest = gone == plan->gone_seen;
        if (rest * REST_PART > ann->labels || lost * GONE_PART > ann->labels ||
            (lost > 0 && at_rest)) {
            work = WORK_BUILD;
        }
    }
    plan->gone_seen = gone;
    (void)pthread_mutex_unlock(&table->ann_lock);
    return work;
}

/* The first table that wants something done, pinned; NULL. */
static struct retrieval_vec_table *work_find(struct retrieval_vectors *vectors, enum work *out_work)
{
    (void)pthread_mutex_lock(&vectors->lock);
    struct retrieval_vec_table *table = vectors->list;
    *out_work = WORK_NONE;
    while (table && (*out_work = work_of(vectors, table)) == WORK_NONE) {
        table = table->next;
    }
    if (table) {
        table->pins++;
    }
    (void)pthread_mutex_unlock(&vectors->lock);
    return table;
}

/* ---- building -------------------------------------------------------------------------------- */

struct build {
    struct retrieval_vec_table *table;
    uint64_t rows, change, gone, epoch;
    bool outdated; /* the table began anew meanwhile */
};

static void build_begin(struct build *build, struct retrieval_vec_table *table)
{
    (void)pthread_mutex_lock(&table->updating);
    *build = (struct build){.table = table,
        .rows = atomic_load_explicit(&table->rows, memory_order_acquire),
        .change = atomic_load_explicit(&table->change, memory_order_acquire),
        .gone = atomic_load_explicit(&table->rows_gone, memory_order_acquire),
        .epoch = table->epoch};
    (void)pthread_mutex_unlock(&table->updating);
}

/* Decode rows for the builder; zeros for what has gone. */
static void build_vectors(void *self, uint64_t first, size_t count, float *out)
{
    struct build *build = self;
    const struct retrieval_vec_table *table = build->table;
    const struct retrieval_vec_encoder *encoder = &table->encoder;

    memset(out, 0, count * encoder->dims * sizeof *out);
    (void)pthread_rwlock_rdlock(&build->table->scanning);
    build->outdated |= table->epoch != build->epoch;
    for (size_t i = 0; i < count && !build->outdated; i++) {
        const struct retrieval_vec_block *block = retrieval_vec_block_at(table, first + i);
        const size_t at = (first + i) % RETRIEVAL_VEC_BLOCK_ROWS;
        if (block->docs[at] != 0) {
            retrieval_code_decode(encoder->codes, block->codes + at * encoder->code_bytes,
                block->scales[at], encoder->dims, out + i * encoder->dims);
        }
    }
    (void)pthread_rwlock_unlock(&build->table->scanning);
}

/* The docs of the rows that it was made from. */
static enum memos_status build_docs(
    struct build *build, struct retrieval_vec_saved *out, struct memos_error *err)
{
    const struct retrieval_vec_table *table = build->table;

    out->count = build->rows;
    out->docs = malloc(build->rows * sizeof *out->docs + 1);
    if (!out->docs) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to save an index's docs");
    }
    (void)pthread_rwlock_rdlock(&build->table->scanning);
    build->outdated |= table->epoch != build->epoch;
    for (uint64_t row = 0; row < build->rows && !build->outdated; row++) {
        const struct retrieval_vec_block *block = retrieval_vec_block_at(table, row);
        out->docs[row] = block->docs[row % RETRIEVAL_VEC_BLOCK_ROWS];
    }
    (void)pthread_rwlock_unlock(&build->table->scanning);
    return MEMOS_OK;
}

/* Count its bytes and let searches use it, unless the table is another by now. Takes the index,
 * whatever happens. */
static enum memos_status publish(struct retrieval_vectors *vectors, struct build *build,
    struct retrieval_vec_ann *ann, struct memos_error *err)
{
    struct retrieval_vec_table *table = build->table;

    const enum memos_status status = retrieval_ann_lists_make(ann->ann, &ann->lists, err);
    if (status != MEMOS_OK) {
        ann_free(ann);
        return status;
    }
    ann->bytes = retrieval_ann_bytes(ann->ann) + sizeof *ann +
                 (ann->rows ? ann->labels * sizeof *ann->rows : 0) +
                 ann->rest_count * sizeof *ann->rest + (ann->lists ? ann->lists->bytes : 0);
    (void)retrieval_vec_ann_drop(vectors, table); /* else there must be room for two */
    if (!retrieval_vec_bytes_take(vectors, ann->bytes)) {
        ann_free(ann);
        return memos_fail(
            err, MEMOS_NO_MEMORY, "the cache of vectors has no room for an approximate index");
    }
    ann->users = 1;
    (void)pthread_rwlock_rdlock(&table->scanning);
    const bool outdated = table->epoch != build->epoch;
    if (!outdated) {
        (void)ann_replace(vectors, table, ann);
    }
    (void)pthread_rwlock_unlock(&table->scanning);
    if (outdated) {
        (void)atomic_fetch_sub_explicit(&vectors->bytes, ann->bytes, memory_order_relaxed);
        ann_free(ann);
    }
    return MEMOS_OK;
}

static enum memos_status save(
    struct retrieval_vectors *vectors, struct build *build, struct memos_error *err)
{
    struct retrieval_vec_saved docs = {.docs = NULL};
    struct retrieval_vec_ann *ann = retrieval_vec_ann_take(build->table);

    if (!ann) {
        return MEMOS_OK;
    }
    enum memos_status status = build_docs(build, &docs, err);
    if (status == MEMOS_OK && !build->outdated) {
        status =
            retrieval_vec_file_save(vectors, build->table, ann->ann, &docs, build->change, err);
    }
    free(docs.docs);
    retrieval_vec_ann_give(build->table, ann);
    /* Forgotten meanwhile: the next one will be saved. */
    return status == MEMOS_CONFLICT ? MEMOS_OK : status;
}

static enum memos_status build(struct retrieval_vectors *vectors, struct retrieval_vec_table *table,
    retrieval_ann_progress_fn *progress, void *progress_self, struct memos_error *err)
{
    struct retrieval_vec_ann *ann = calloc(1, sizeof *ann);
    struct build from;

    if (!ann) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for an approximate index");
    }
    build_begin(&from, table);
    const struct retrieval_ann_build options = {
        .type = vectors->ann_type,
        .dims = table->encoder.dims,
        .count = from.rows,
        .vectors = build_vectors,
        .self = &from,
        .progress = progress,
        .progress_self = progress_self,
    };
    enum memos_status status = retrieval_ann_build(&options, &ann->ann, err);
    if (status != MEMOS_OK || from.outdated) {
        ann_free(ann);
        return status;
    }
    ann->labels = from.rows;
    ann->rest_from = from.rows;
    ann->gone = from.gone;
    status = publish(vectors, &from, ann, err);
    if (status == MEMOS_OK) {
        (void)atomic_fetch_add_explicit(&vectors->ann_built, 1, memory_order_relaxed);
    }
    return status == MEMOS_OK ? save(vectors, &from, err) : status;
}

/* ---- loading --------------------------------------------------------------------------------- */

/* Which row each label has in this table, and which rows have none. Under scanning. */
static bool labels_match(const struct build *build, const struct retrieval_vec_saved *docs,
    struct retrieval_vec_ann *ann)
{
    const struct retrieval_vec_table *table = build->table;
    bool *covered = calloc(build->rows + 1, sizeof *covered);
    size_t rest = 0;

    ann->rows = malloc(docs->count * sizeof *ann->rows + 1);
    ann->rest = malloc(build->rows * sizeof *ann->rest + 1);
    if (!covered || !ann->rows || !ann->rest) {
        free(covered);
        return false;
    }
    for (uint64_t label = 0, span = 0; label < docs->count; label++) {
        const uint32_t doc = docs->docs[label];
        uint64_t row;
        span = label > 0 && docs->docs[label - 1] == doc ? span + 1 : 0;
        ann->rows[label] = NO_ROW;
        if (doc != 0 && retrieval_vec_row_of(table, doc, &row) && row + span < build->rows &&
            span < retrieval_vec_spans_at(table, row)) {
            ann->rows[label] = (uint32_t)(row + span);
            covered[row + span] = true;
        }
    }
    for (uint64_t row = 0; row < build->rows; row++) {
        const struct retrieval_vec_block *block = retrieval_vec_block_at(table, row);
        if (!covered[row] && block->docs[row % RETRIEVAL_VEC_BLOCK_ROWS] != 0) {
            ann->rest[rest++] = (uint32_t)row;
        }
    }
    free(covered);
    ann->rest_count = rest;
    ann->labels = docs->count;
    ann->rest_from = build->rows;
    ann->gone = build->gone;
    return true;
}

static enum memos_status load(
    struct retrieval_vectors *vectors, struct retrieval_vec_table *table, struct memos_error *err)
{
    struct retrieval_vec_ann *ann = calloc(1, sizeof *ann);
    struct retrieval_vec_saved docs;
    struct build from;

    if (!ann) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for an approximate index");
    }
    enum memos_status status = retrieval_vec_file_load(vectors, table, &ann->ann, &docs, err);
    if (status != MEMOS_OK) {
        ann_free(ann);
        return MEMOS_OK; /* missing or of no use: it will be built */
    }
    build_begin(&from, table);
    (void)pthread_rwlock_rdlock(&table->scanning);
    from.outdated = table->epoch != from.epoch;
    const bool matched = !from.outdated && labels_match(&from, &docs, ann);
    (void)pthread_rwlock_unlock(&table->scanning);
    free(docs.docs);
    if (!matched) {
        ann_free(ann);
        return from.outdated ? MEMOS_OK
                             : memos_fail(err, MEMOS_NO_MEMORY, "no memory to load an index");
    }
    status = publish(vectors, &from, ann, err);
    if (status == MEMOS_OK) {
        (void)atomic_fetch_add_explicit(&vectors->ann_loaded, 1, memory_order_relaxed);
    }
    return status;
}

enum memos_status retrieval_vectors_work(struct retrieval_vectors *vectors,
    retrieval_ann_progress_fn *progress, void *progress_self, bool *out_worked,
    struct memos_error *err)
{
    enum work work;
    struct retrieval_vec_table *table = work_find(vectors, &work);
    enum memos_status status = MEMOS_OK;

    *out_worked = table != NULL;
    if (!table) {
        return MEMOS_OK;
    }
    if (work == WORK_LOAD) {
        (void)pthread_mutex_lock(&table->ann_lock);
        table->plan.load_tried = true;
        (void)pthread_mutex_unlock(&table->ann_lock);
        status = load(vectors, table, err);
    } else {
        status = build(vectors, table, progress, progress_self, err);
    }
    if (status != MEMOS_OK && status != MEMOS_CANCELLED && !retrieval_vec_ann_bytes(table)) {
        const uint64_t rows = atomic_load_explicit(&table->rows, memory_order_relaxed);
        (void)pthread_mutex_lock(&table->ann_lock);
        table->plan.rows_least = rows + rows / RETRY_PART;
        (void)pthread_mutex_unlock(&table->ann_lock);
    }
    retrieval_vec_table_unpin(vectors, table);
    return status;
}
