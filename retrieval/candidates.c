/* Which docs are looked at, and what is known of each.
 *
 * In a space of up to ALL_DOCS_MAX docs every doc is. In a larger one: the best by words, the best
 * by meaning, when advice is asked for what surely states something of the user, and the neighbours
 * of all these; what one of the two gave and the other did not is worked out for exactly them. */
#include "retrieval/search_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ALL_DOCS_MAX 4096u
#define EACH_LEAST ((size_t)128)      /* by words, by meaning, and of statements: so many, */
#define EACH_TIMES ((size_t)8)        /* more when many hits are asked for, */
#define EACH_MAX ((size_t)512)        /* but so many at most */
#define STATEMENTS_MAX ((size_t)8192) /* that are compared to find the best of them */
#define SAMPLE_MAX ((size_t)1024)     /* docs, to measure cosines by */

static void docs_add(struct memcube_docs *docs, uint32_t doc)
{
    uint64_t bit = UINT64_C(1) << (doc % 64);
    docs->count += (docs->words[doc / 64] & bit) == 0;
    docs->words[doc / 64] |= bit;
}

static enum memos_status docs_empty(
    struct searching *s, struct memcube_docs *out, struct memos_error *err)
{
    size_t words = s->universe.docs_end / 64 + 1;
    *out = (struct memcube_docs){.docs_end = s->universe.docs_end};
    out->words = searching_take(s, words, sizeof *out->words, err);
    if (!out->words) {
        return MEMOS_NO_MEMORY;
    }
    memset(out->words, 0, words * sizeof *out->words);
    return MEMOS_OK;
}

/* List the docs, or every step-th of them, in order. */
static size_t docs_list(const struct memcube_docs *docs, size_t step, uint32_t *out)
{
    size_t seen = 0, count = 0;
    size_t next = 0; /* which of them is listed next */
    for (uint32_t at = 0; at < docs->docs_end; at += 64) {
        uint64_t bits = docs->words[at / 64];
        const size_t here = (size_t)__builtin_popcountll(bits);
        if (seen + here <= next) { /* with a large step, most words */
            seen += here;
            continue;
        }
        for (; bits != 0; bits &= bits - 1) {
            if (seen++ == next) {
                out[count++] = at + (uint32_t)__builtin_ctzll(bits);
                next += step;
            }
        }
    }
    return count;
}

static size_t each_of(const struct searching *s)
{
    const size_t each = s->query->top_k * EACH_TIMES;
    return each < EACH_LEAST ? EACH_LEAST : each > EACH_MAX ? EACH_MAX : each;
}

static enum memos_status score_cosines(
    struct searching *s, const uint32_t *docs, size_t count, float *out, struct memos_error *err)
{
    if (!s->vectors) {
        for (size_t i = 0; i < count; i++) {
            out[i] = NAN;
        }
        return MEMOS_OK;
    }
    return retrieval_vectors_score(s->retrieval->vectors, s->read, s->space, s->query->fingerprint,
        s->query->vector, docs, count, out, err);
}

/* ---- large spaces -------------------------------------------------------------------------- */

static enum memos_status add_by_words(
    struct searching *s, struct memcube_docs *chosen, struct memos_error *err)
{
    const size_t each = each_of(s);
    struct retrieval_hit *hits = searching_take(s, each, sizeof *hits, err);
    size_t count = 0;
    if (!hits) {
        return MEMOS_NO_MEMORY;
    }
    if (!s->ranking) {
        return MEMOS_OK;
    }
    enum memos_status status =
        retrieval_ranking_best(s->ranking, &s->wanted, each, false, s->arena, hits, &count, err);
    for (size_t i = 0; status == MEMOS_OK && i < count; i++) {
        docs_add(chosen, hits[i].doc);
    }
    if (status == MEMOS_OK && s->wanted.words != s->live.words) {
        status =
            retrieval_ranking_best(s->ranking, &s->live, 1, false, s->arena, hits, &count, err);
    }
    if (status == MEMOS_OK && count > 0) {
        s->fuse.bm25_max = (double)hits[0].score;
    }
    return status;
}

static enum memos_status add_by_meaning(
    struct searching *s, struct memcube_docs *chosen, struct memos_error *err)
{
    const size_t each = each_of(s);
    struct retrieval_vector_hit *hits = searching_take(s, each, sizeof *hits, err);
    size_t count = 0;
    if (!hits) {
        return MEMOS_NO_MEMORY;
    }
    if (!s->vectors) {
        return MEMOS_OK;
    }
    enum memos_status status = retrieval_vectors_search(s->retrieval->vectors, s->read, s->space,
        s->query->fingerprint, s->query->vector, &s->wanted, each, hits, &count, &s->missing, err);
    for (size_t i = 0; status == MEMOS_OK && i < count; i++) {
        docs_add(chosen, hits[i].doc);
    }
    return status;
}

struct near {
    uint32_t doc;
    float cosine;
};

static int near_compare(const void *a, const void *b)
{
    const struct near *left = a, *right = b;
    float x = isnan(left->cosine) ? -2.0f : left->cosine;
    float y = isnan(right->cosine) ? -2.0f : right->cosine;
    if (x != y) {
        return x < y ? 1 : -1;
    }
    return (left->doc > right->doc) - (left->doc < right->doc);
}

/* What surely states something lasting of the user, nearest to the question. */
static enum memos_status add_statements(
    struct searching *s, struct memcube_docs *chosen, struct memos_error *err)
{
    uint32_t *docs = searching_take(s, STATEMENTS_MAX, sizeof *docs, err);
    float *cosines = searching_take(s, STATEMENTS_MAX, sizeof *cosines, err);
    struct near *near = searching_take(s, STATEMENTS_MAX, sizeof *near, err);
    size_t count = 0;
    if (!docs || !cosines || !near) {
        return MEMOS_NO_MEMORY;
    }
    for (uint32_t at = s->wanted.docs_end; at > 1 && count < STATEMENTS_MAX; at--) {
        struct retrieval_feature feature;
        if (searching_has(&s->wanted, at - 1) &&
            retrieval_feature_get(&s->features, at - 1, &feature) &&
            (feature.flags & (RETRIEVAL_FEATURE_STRONG | RETRIEVAL_FEATURE_MACHINE)) ==
                RETRIEVAL_FEATURE_STRONG) {
            docs[count++] = at - 1;
        }
    }
    enum memos_status status = score_cosines(s, docs, count, cosines, err);
    if (status != MEMOS_OK) {
        return status;
    }
    for (size_t i = 0; i < count; i++) {
        near[i] = (struct near){docs[i], cosines[i]};
    }
    qsort(near, count, sizeof *near, near_compare);
    for (size_t i = 0; i < count && i < each_of(s); i++) {
        docs_add(chosen, near[i].doc);
    }
    return MEMOS_OK;
}

static enum memos_status add_neighbours(
    struct searching *s, struct memcube_docs *chosen, struct memos_error *err)
{
    uint32_t *docs = searching_take(s, chosen->count + 1, sizeof *docs, err);
    if (!docs) {
        return MEMOS_NO_MEMORY;
    }
    size_t count = docs_list(chosen, 1, docs);
    for (size_t i = 0; i < count; i++) {
        uint32_t beside[2];
        for (int after = 0; after < 2; after++) {
            size_t found = retrieval_features_beside(
                &s->features, docs[i], after != 0, &s->universe, 2, beside);
            while (found > 0) {
                docs_add(chosen, beside[--found]);
            }
        }
    }
    return MEMOS_OK;
}

/* Mean and deviation of cosines, over a sample that is the same for every question. */
static enum memos_status measure_sample(struct searching *s, struct memos_error *err)
{
    size_t step = s->live.count / SAMPLE_MAX + 1;
    uint32_t *docs = searching_take(s, s->live.count / step + 2, sizeof *docs, err);
    float *cosines = searching_take(s, s->live.count / step + 2, sizeof *cosines, err);
    if (!docs || !cosines) {
        return MEMOS_NO_MEMORY;
    }
    size_t count = docs_list(&s->live, step, docs);
    enum memos_status status = score_cosines(s, docs, count, cosines, err);
    if (status == MEMOS_OK) {
        s->fuse.vectors = retrieval_fuse_measure(
                              cosines, count, &s->fuse.cosine_mean, &s->fuse.cosine_deviation) > 1;
    }
    return status;
}

static enum memos_status choose_large(
    struct searching *s, struct memcube_docs *chosen, struct memos_error *err)
{
    enum memos_status status = docs_empty(s, chosen, err);
    if (status == MEMOS_OK) {
        status = add_by_words(s, chosen, err);
    }
    if (status == MEMOS_OK) {
        status = add_by_meaning(s, chosen, err);
    }
    if (status == MEMOS_OK && s->question.advice) {
        status = add_statements(s, chosen, err);
    }
    if (status == MEMOS_OK) {
        status = add_neighbours(s, chosen, err);
    }
    return status;
}

/* ---- rows ---------------------------------------------------------------------------------- */

static enum memos_status rows_take(
    struct searching *s, const struct memcube_docs *chosen, struct memos_error *err)
{
    const size_t words = s->universe.docs_end / 64 + 1, count = chosen->count;
    s->chosen = *chosen;
    s->docs = searching_take(s, count + 1, sizeof *s->docs, err);
    s->row_base = searching_take(s, words, sizeof *s->row_base, err);
    s->bm25 = searching_take(s, count + 1, sizeof *s->bm25, err);
    s->cosines = searching_take(s, count + 1, sizeof *s->cosines, err);
    s->known = searching_take(s, count + 1, sizeof *s->known, err);
    s->rows = searching_take(s, count + 1, sizeof *s->rows, err);
    s->relevance = searching_take(s, count + 1, sizeof *s->relevance, err);
    if (!s->docs || !s->row_base || !s->bm25 || !s->cosines || !s->known || !s->rows ||
        !s->relevance) {
        return MEMOS_NO_MEMORY;
    }
    memset(s->bm25, 0, (count + 1) * sizeof *s->bm25);
    s->docs_count = docs_list(chosen, 1, s->docs);
    for (size_t i = 0, before = 0; i < words; i++) {
        s->row_base[i] = (uint32_t)before;
        before += i * 64 < chosen->docs_end ? (size_t)__builtin_popcountll(chosen->words[i]) : 0;
    }
    return MEMOS_OK;
}

/* When every doc is a row, the rows themselves give the measures; those of live docs. */
static enum memos_status measure_rows(struct searching *s, struct memos_error *err)
{
    float *cosines = searching_take(s, s->docs_count + 1, sizeof *cosines, err);
    size_t count = 0;
    if (!cosines) {
        return MEMOS_NO_MEMORY;
    }
    for (size_t i = 0; i < s->docs_count; i++) {
        if (searching_has(&s->live, s->docs[i])) {
            s->fuse.bm25_max = fmax(s->fuse.bm25_max, (double)s->bm25[i]);
            cosines[count++] = s->cosines[i];
        }
        s->missing += s->vectors && isnan(s->cosines[i]) && searching_has(&s->wanted, s->docs[i]);
    }
    s->fuse.vectors =
        retrieval_fuse_measure(cosines, count, &s->fuse.cosine_mean, &s->fuse.cosine_deviation) > 1;
    return MEMOS_OK;
}

/* The i-th of some neighbours, as a row. */
static uint32_t row_at(const struct searching *s, const uint32_t *docs, size_t count, size_t i)
{
    if (i >= count) {
        return RETRIEVAL_FUSE_NOBODY;
    }
    if (!searching_has(&s->chosen, docs[i])) {
        return RETRIEVAL_FUSE_UNKNOWN;
    }
    const uint64_t below = (UINT64_C(1) << (docs[i] % 64)) - 1;
    return s->row_base[docs[i] / 64] +
           (uint32_t)__builtin_popcountll(s->chosen.words[docs[i] / 64] & below);
}

/* What retrieval_fuse is told of a row, but the days that its text means. */
static void row_fill(struct searching *s, size_t row)
{
    struct retrieval_fuse_doc *out = &s->rows[row];
    struct retrieval_feature *known = &s->known[row];
    uint32_t doc = s->docs[row], before[2] = {0}, after[2] = {0};
    bool there = retrieval_feature_get(&s->features, doc, known);
    size_t before_count =
        retrieval_features_beside(&s->features, doc, false, &s->universe, 2, before);
    size_t after_count = retrieval_features_beside(&s->features, doc, true, &s->universe, 2, after);

    *out = (struct retrieval_fuse_doc){
        .bm25 = (double)s->bm25[row],
        .cosine = (double)s->cosines[row],
        .user = (known->flags & RETRIEVAL_FEATURE_MACHINE) == 0,
        .named = s->named != 0 && known->speaker == s->named,
        .time = (known->flags & RETRIEVAL_FEATURE_TIME) != 0,
        .ask = (known->flags & RETRIEVAL_FEATURE_ASK) != 0,
        .words = (double)known->words,
        .question = (double)known->asking / UINT16_MAX,
        .statement = known->flags & RETRIEVAL_FEATURE_STRONG ? 1.0
                     : known->flags & RETRIEVAL_FEATURE_WEAK ? 0.25
                                                             : 0.0,
        .event_day = there ? retrieval_day_of_us(known->event_us) : INT64_MIN,
    };
    for (size_t i = 0; i < 2; i++) {
        out->before[i] = row_at(s, before, before_count, i);
        out->after[i] = row_at(s, after, after_count, i);
    }
}

/* The days that texts mean, when the question names days. */
static enum memos_status rows_ranges(struct searching *s, struct memos_error *err)
{
    struct retrieval_fuse_range ranges[RETRIEVAL_FEATURE_RANGES_MAX];
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; i < s->docs_count && status == MEMOS_OK; i++) {
        size_t count = 0;
        if ((s->known[i].flags & RETRIEVAL_FEATURE_DATES) == 0) {
            continue;
        }
        status = retrieval_features_ranges(
            s->retrieval->features, s->txn, s->space, s->docs[i], ranges, &count, err);
        if (status == MEMOS_OK && count > 0) {
            struct retrieval_fuse_range *kept = searching_take(s, count, sizeof *kept, err);
            if (!kept) {
                return MEMOS_NO_MEMORY;
            }
            memcpy(kept, ranges, count * sizeof *kept);
            s->rows[i].ranges = kept;
            s->rows[i].ranges_count = count;
        }
    }
    return status;
}

static enum memos_status rows_make(
    struct searching *s, const struct memcube_docs *chosen, bool all, struct memos_error *err)
{
    enum memos_status status = rows_take(s, chosen, err);
    if (status == MEMOS_OK && s->ranking) {
        status = retrieval_ranking_scores(s->ranking, chosen, s->docs, s->bm25, err);
        s->fuse.ideal = retrieval_ranking_ideal(s->ranking);
    }
    if (status == MEMOS_OK) {
        status = score_cosines(s, s->docs, s->docs_count, s->cosines, err);
    }
    if (status == MEMOS_OK) {
        status = all ? measure_rows(s, err) : measure_sample(s, err);
    }
    for (size_t i = 0; status == MEMOS_OK && i < s->docs_count; i++) {
        double parts[RETRIEVAL_PARTS];
        row_fill(s, i);
        retrieval_fuse_relevance(&s->fuse, &s->rows[i], parts);
        s->relevance[i] = retrieval_fuse_sum(parts);
    }
    if (status == MEMOS_OK && s->question.dates_count > 0) {
        status = rows_ranges(s, err);
    }
    return status;
}

enum memos_status searching_candidates(struct searching *s, struct memos_error *err)
{
    struct memcube_docs chosen = s->universe;
    bool all = s->universe.count <= ALL_DOCS_MAX;
    enum memos_status status = MEMOS_OK;
    if (!all) {
        status = choose_large(s, &chosen, err);
    }
    return status == MEMOS_OK ? rows_make(s, &chosen, all, err) : status;
}
