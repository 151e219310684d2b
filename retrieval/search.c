/* From a question to hits. */
#include "retrieval/search.h"

#include "retrieval/lexical_internal.h"
#include "retrieval/search_internal.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void *searching_take(
    struct searching *searching, size_t count, size_t size, struct memos_error *err)
{
    void *memory = memos_arena_take(searching->arena, count, size);
    if (!memory) {
        (void)memos_fail(
            err, MEMOS_NO_MEMORY, "no memory to search %u docs", searching->universe.docs_end);
    }
    return memory;
}

/* Does the filter leave every doc that is searched by default? */
static bool filter_is_plain(const struct memcube_filter *filter)
{
    return filter->kinds == 0 && filter->states == 0 && filter->subtypes_count == 0 &&
           filter->tags_count == 0 && filter->source.size == 0 && filter->speaker.size == 0 &&
           filter->from_us == 0 && filter->to_us == 0 && !filter->include_stale;
}

/* Statistics are of what the viewer finds without a filter: so a filter never changes a score, and
 * no score tells of docs that the viewer may not see. */
static enum memos_status select_docs(struct searching *s, struct memos_error *err)
{
    struct memcube_filter plain = {.viewer = s->query->filter.viewer};
    const struct memcube_as_of *as_of = &s->query->as_of;

    enum memos_status status = memcube_docs_select(s->read, s->space, &plain, as_of, &s->live, err);
    s->wanted = s->universe = s->live;
    if (status != MEMOS_OK || filter_is_plain(&s->query->filter)) {
        return status;
    }
    status = memcube_docs_select(s->read, s->space, &s->query->filter, as_of, &s->wanted, err);
    if (status != MEMOS_OK) {
        return status;
    }
    size_t words = s->live.docs_end / 64 + 1;
    memos_assert(s->wanted.docs_end == s->live.docs_end);
    s->universe.count = 0;
    s->universe.words = searching_take(s, words, sizeof *s->universe.words, err);
    if (!s->universe.words) {
        return MEMOS_NO_MEMORY;
    }
    for (size_t i = 0; i < words && i * 64 < s->live.docs_end; i++) {
        s->universe.words[i] = s->live.words[i] | s->wanted.words[i];
        s->universe.count += (uint32_t)__builtin_popcountll(s->universe.words[i]);
    }
    return MEMOS_OK;
}

/* The question's words, measured. */
static enum memos_status open_words(
    struct searching *s, struct retrieval_terms *terms, struct memos_error *err)
{
    struct retrieval_rank_query rank = {
        .space = s->space->number,
        .live = &s->live,
        .wanted = &s->universe,
        .k1 = s->retrieval->lexical->k1,
        .b = s->retrieval->lexical->b,
    };
    uint32_t length;

    retrieval_terms_begin(terms, s->space->secret, s->query->language, true);
    enum memos_status status = retrieval_terms_add(terms, s->query->text, err);
    if (status != MEMOS_OK) {
        return status;
    }
    rank.terms = retrieval_terms_finish(terms, &rank.terms_count, &length);
    if (rank.terms_count == 0) {
        return MEMOS_OK;
    }
    return retrieval_ranking_open(
        &s->retrieval->lexical->tables, s->txn, &rank, s->arena, &s->ranking, err);
}

/* Whom the question names. */
static enum memos_status find_named(struct searching *s, struct memos_error *err)
{
    uint8_t key[RETRIEVAL_NAME_KEY_BYTES];
    uint32_t *names = searching_take(
        s, (size_t)RETRIEVAL_QUESTION_WORDS_MAX * RETRIEVAL_QUESTION_NAME_MAX, sizeof *names, err);
    if (!names) {
        return MEMOS_NO_MEMORY;
    }
    retrieval_name_key(s->space->secret, key);
    size_t count = retrieval_question_names(s->query->text, key, names);
    s->named = retrieval_features_named(
        s->retrieval->features, s->read, s->space, &s->features, &s->live, names, count);
    return MEMOS_OK;
}

/* What of the question retrieval_fuse is told. */
static void fuse_begin(struct searching *s)
{
    struct retrieval_fuse_question *fuse = &s->fuse;
    fuse->when = s->question.when;
    fuse->advice = s->question.advice;
    fuse->asking = s->question.asking;
    fuse->without = s->query->without;
    fuse->dates_count = s->question.dates_count;
    for (size_t i = 0; i < fuse->dates_count; i++) {
        fuse->dates[i] = (struct retrieval_fuse_range){
            .from_day = retrieval_day_of_us(s->question.dates[i].from_us),
            .to_day = retrieval_day_of_us(s->question.dates[i].to_us - 1),
        };
    }
}

enum memos_status searching_begin(
    struct searching *s, struct retrieval_terms *terms, struct memos_error *err)
{
    enum memos_status status = select_docs(s, err);
    if (status == MEMOS_OK) {
        status = retrieval_features_load(s->retrieval->features, s->txn, s->space->number,
            s->universe.docs_end, s->arena, &s->features, err);
    }
    if (status == MEMOS_OK) {
        status = find_named(s, err);
    }
    if (status == MEMOS_OK) {
        retrieval_question_read(
            s->retrieval->questions, s->query->text, s->query->now_us, &s->question);
        fuse_begin(s);
        status = open_words(s, terms, err);
    }
    return status;
}

/* ---- how the question was understood ------------------------------------------------------- */

__attribute__((format(printf, 2, 3))) static void note(
    struct retrieval_report *report, const char *format, ...)
{
    va_list args;
    if (report->notes_count == RETRIEVAL_NOTES_MAX) {
        return;
    }
    va_start(args, format);
    (void)vsnprintf(report->notes[report->notes_count++], RETRIEVAL_NOTE_BYTES, format, args);
    va_end(args);
}

static void day_text(char out[16], int64_t us, const char *open)
{
    if (us == RETRIEVAL_DATE_BEGIN || us == RETRIEVAL_DATE_END) {
        (void)snprintf(out, 16, "%s", open);
        return;
    }
    struct retrieval_civil day = retrieval_civil_of(retrieval_day_of_us(us));
    (void)snprintf(out, 16, "%04d-%02d-%02d", day.year, day.month, day.day);
}

static void report_make(const struct searching *s, struct retrieval_report *report)
{
    unsigned without = s->query->without;
    report->missing = s->missing;
    report->vectors = s->vectors;
    if (s->named != 0 && (without >> RETRIEVAL_PART_SPEAKER & 1) == 0) {
        note(report, "one speaker is named");
    }
    if (s->question.when && (without >> RETRIEVAL_PART_DATES & 1) == 0) {
        note(report, "a time is asked for");
    }
    if (s->question.advice && (without >> RETRIEVAL_PART_STATEMENT & 1) == 0) {
        note(report, "advice is asked for");
    }
    for (size_t i = 0; i < s->question.dates_count && (without >> RETRIEVAL_PART_DATES & 1) == 0;
         i++) {
        const struct retrieval_date *date = &s->question.dates[i];
        char from[16], to[16];
        day_text(from, date->from_us, "the beginning");
        day_text(to, date->to_us == RETRIEVAL_DATE_END ? date->to_us : date->to_us - 1, "now");
        note(report, "days: %s to %s", from, to);
    }
}

/* What is no text has no vector and misses none. */
static enum memos_status missing_texts(struct searching *s, struct memos_error *err)
{
    const unsigned text = 1u << MEMCUBE_PLAINTEXT;
    struct memcube_filter filter = s->query->filter;
    struct memcube_docs others;

    filter.kinds = (filter.kinds ? filter.kinds : ~0u) & ~text;
    if (s->missing == 0 || filter.kinds == 0) {
        return MEMOS_OK;
    }
    const enum memos_status status =
        memcube_docs_select(s->read, s->space, &filter, &s->query->as_of, &others, err);
    if (status == MEMOS_OK) {
        s->missing -= others.count < s->missing ? others.count : s->missing;
    }
    return status;
}

/* ---- modes --------------------------------------------------------------------------------- */

/* Vectors alone: the cosine is the score. */
static enum memos_status search_vectors(
    struct searching *s, struct retrieval_hit *out, size_t *out_count, struct memos_error *err)
{
    struct retrieval_vector_hit *hits;
    enum memos_status status = select_docs(s, err);
    *out_count = 0;
    if (status != MEMOS_OK || !s->vectors) {
        return status;
    }
    hits = searching_take(s, s->query->top_k, sizeof *hits, err);
    if (!hits) {
        return MEMOS_NO_MEMORY;
    }
    status =
        retrieval_vectors_search(s->retrieval->vectors, s->read, s->space, s->query->fingerprint,
            s->query->vector, &s->wanted, s->query->top_k, hits, out_count, &s->missing, err);
    for (size_t i = 0; status == MEMOS_OK && i < *out_count; i++) {
        out[i] = (struct retrieval_hit){
            .doc = hits[i].doc, .score = hits[i].cosine, .bm25 = NAN, .cosine = hits[i].cosine};
        out[i].parts[RETRIEVAL_PART_VECTORS] = hits[i].cosine;
    }
    return status;
}

static enum memos_status search_hybrid(
    struct searching *s, struct retrieval_hit *out, size_t *out_count, struct memos_error *err)
{
    struct retrieval_terms_pool *pool = &s->retrieval->lexical->pool;
    struct retrieval_terms *terms;

    *out_count = 0;
    enum memos_status status = retrieval_terms_take(pool, &terms, err);
    if (status != MEMOS_OK) {
        return status;
    }
    status = searching_begin(s, terms, err);
    if (status == MEMOS_OK) {
        status = searching_candidates(s, err);
    }
    if (status == MEMOS_OK) {
        status = retrieval_features_view_check(&s->features, err);
    }
    if (status == MEMOS_OK) {
        status = searching_settle(s, out, out_count, err);
    }
    retrieval_ranking_close(&s->ranking);
    retrieval_terms_give(pool, terms);
    return status;
}

enum memos_status retrieval_search(struct retrieval *retrieval, struct memcube_read *read,
    const struct memcube_space *space, const struct retrieval_query *query,
    struct retrieval_hit *out, size_t *out_count, struct retrieval_report *report,
    struct memos_error *err)
{
    struct searching s = {
        .retrieval = retrieval,
        .read = read,
        .txn = memcube_read_txn(read),
        .arena = memcube_read_arena(read),
        .space = space,
        .query = query,
        .vectors = query->vector && query->fingerprint && query->mode != RETRIEVAL_WORDS,
    };
    enum memos_status status;

    if (query->top_k == 0 || query->top_k > RETRIEVAL_TOP_K_MAX) {
        return memos_fail(err, MEMOS_INVALID, "a search gives 1 to %d hits, not %zu",
            RETRIEVAL_TOP_K_MAX, query->top_k);
    }
    if (query->vector && (query->dims == 0 || query->dims > RETRIEVAL_DIMS_MAX)) {
        return memos_fail(err, MEMOS_INVALID, "a vector has 1 to %d numbers, not %zu",
            RETRIEVAL_DIMS_MAX, query->dims);
    }
    if (report) {
        *report = (struct retrieval_report){.missing = 0};
    }
    switch (query->mode) {
    case RETRIEVAL_WORDS:
        return retrieval_lexical_search(
            retrieval->lexical, read, space, query, out, out_count, err);
    case RETRIEVAL_VECTORS:
        status = search_vectors(&s, out, out_count, err);
        break;
    case RETRIEVAL_HYBRID:
        status = search_hybrid(&s, out, out_count, err);
        break;
    default:
        return memos_fail(err, MEMOS_INVALID, "there is no mode %d of search", (int)query->mode);
    }
    if (status == MEMOS_OK && report) {
        status = missing_texts(&s, err);
        report_make(&s, report);
    }
    return status;
}
