#include "retrieval/fuse.h"

#include <math.h>
#include <string.h>

static bool has_part(const struct retrieval_fuse_question *question, enum retrieval_part part)
{
    return (question->without >> part & 1) == 0;
}

size_t retrieval_fuse_measure(
    const float *cosines, size_t count, double *out_mean, double *out_deviation)
{
    double sum = 0.0, squares = 0.0;
    size_t seen = 0;
    for (size_t i = 0; i < count; i++) {
        if (!isnan(cosines[i])) {
            sum += (double)cosines[i];
            seen++;
        }
    }
    double mean = seen > 0 ? sum / (double)seen : 0.0;
    for (size_t i = 0; i < count; i++) {
        if (!isnan(cosines[i])) {
            double away = (double)cosines[i] - mean;
            squares += away * away;
        }
    }
    *out_mean = mean;
    *out_deviation = seen > 0 ? sqrt(squares / (double)seen) : 0.0;
    return seen;
}

void retrieval_fuse_relevance(const struct retrieval_fuse_question *question,
    const struct retrieval_fuse_doc *doc, double parts[RETRIEVAL_PARTS])
{
    memset(parts, 0, RETRIEVAL_PARTS * sizeof *parts);
    if (has_part(question, RETRIEVAL_PART_WORDS)) {
        double whole = fmax(question->bm25_max, RETRIEVAL_FUSE_KAPPA * question->ideal);
        parts[RETRIEVAL_PART_WORDS] = RETRIEVAL_FUSE_LAMBDA * doc->bm25 / fmax(whole, 1e-9);
    }
    if (question->vectors && has_part(question, RETRIEVAL_PART_VECTORS) && !isnan(doc->cosine)) {
        parts[RETRIEVAL_PART_VECTORS] =
            (doc->cosine - question->cosine_mean) /
            fmax(question->cosine_deviation, RETRIEVAL_FUSE_DEVIATION_MIN);
    }
}

/* What the neighbours of a doc add to it. */
static double neighbours(const struct retrieval_fuse_doc *docs, const double *relevance, size_t at)
{
    const struct retrieval_fuse_doc *doc = &docs[at];
    const uint32_t places[4] = {doc->before[0], doc->after[0], doc->before[1], doc->after[1]};
    double own = fmax(relevance[at], 0.0), sum = 0.0;
    double near = fmin(1.0, RETRIEVAL_FUSE_NEAR_WORDS / fmax(doc->words, 1.0));
    for (size_t i = 0; i < 4; i++) {
        double weight = i < 2 ? RETRIEVAL_FUSE_NEAR : RETRIEVAL_FUSE_SECOND;
        double share = RETRIEVAL_FUSE_FILL * own;
        if (places[i] != RETRIEVAL_FUSE_NOBODY) {
            bool known = places[i] != RETRIEVAL_FUSE_UNKNOWN;
            double around = fmax(known ? relevance[places[i]] : 0.0, RETRIEVAL_FUSE_RHO * own);
            share = near * around + (1.0 - near) * share;
        }
        sum += weight * share;
    }
    return sum;
}

/* How well a doc's days meet those that are asked for: 1 when it happened then or speaks of then,
 * less when it was said soon after. */
static double dates_match(
    const struct retrieval_fuse_question *question, const struct retrieval_fuse_doc *doc)
{
    double match = 0.0;
    for (size_t i = 0; i < question->dates_count; i++) {
        const struct retrieval_fuse_range *asked = &question->dates[i];
        if (doc->event_day >= asked->from_day && doc->event_day <= asked->to_day) {
            return 1.0;
        }
        if (doc->event_day > asked->to_day &&
            doc->event_day - asked->to_day <= RETRIEVAL_FUSE_DATE_AFTER_DAYS) {
            match = RETRIEVAL_FUSE_DATE_AFTER;
        }
        for (size_t k = 0; k < doc->ranges_count; k++) {
            const struct retrieval_fuse_range *own = &doc->ranges[k];
            if (own->from_day <= asked->to_day && own->to_day >= asked->from_day &&
                own->to_day - own->from_day <= RETRIEVAL_FUSE_DATE_WIDE_DAYS) {
                return 1.0;
            }
        }
    }
    return match;
}

/* What a doc gains, or loses, when advice is asked for. */
static double statement(const struct retrieval_fuse_doc *doc, double relevance)
{
    bool mixed = doc->ask || doc->question > 0.0;
    double near = fmin(1.0, fmax(relevance, 0.0) / RETRIEVAL_FUSE_ADVICE_NEAR);
    double gain = RETRIEVAL_FUSE_ADVICE * doc->statement * near;
    if (!doc->user) {
        return 0.0;
    }
    return gain * (mixed ? RETRIEVAL_FUSE_ADVICE_MIXED : 1.0) -
           (doc->ask ? RETRIEVAL_FUSE_ASK : 0.0);
}

void retrieval_fuse(const struct retrieval_fuse_question *question,
    const struct retrieval_fuse_doc *docs, const double *relevance, size_t at,
    double parts[RETRIEVAL_PARTS])
{
    const struct retrieval_fuse_doc *doc = &docs[at];
    bool turn = doc->before[0] != RETRIEVAL_FUSE_NOBODY || doc->after[0] != RETRIEVAL_FUSE_NOBODY;

    retrieval_fuse_relevance(question, doc, parts);
    if (has_part(question, RETRIEVAL_PART_NEIGHBOURS)) {
        parts[RETRIEVAL_PART_NEIGHBOURS] = question->asking * neighbours(docs, relevance, at);
    }
    if (turn && has_part(question, RETRIEVAL_PART_FORM)) {
        double lacking = 1.0 - doc->words / RETRIEVAL_FUSE_SHORT_WORDS;
        parts[RETRIEVAL_PART_FORM] =
            -question->asking *
            (RETRIEVAL_FUSE_QUESTION * doc->question + RETRIEVAL_FUSE_SHORT * fmax(lacking, 0.0));
    }
    if (doc->named && has_part(question, RETRIEVAL_PART_SPEAKER)) {
        parts[RETRIEVAL_PART_SPEAKER] = RETRIEVAL_FUSE_SPEAKER;
    }
    if (has_part(question, RETRIEVAL_PART_DATES)) {
        parts[RETRIEVAL_PART_DATES] = (question->when && doc->time ? RETRIEVAL_FUSE_WHEN : 0.0) +
                                      RETRIEVAL_FUSE_DATE * dates_match(question, doc);
    }
    if (question->advice && has_part(question, RETRIEVAL_PART_STATEMENT)) {
        parts[RETRIEVAL_PART_STATEMENT] = statement(doc, relevance[at]);
    }
}

double retrieval_fuse_sum(const double parts[RETRIEVAL_PARTS])
{
    double sum = 0.0;
    for (size_t i = 0; i < RETRIEVAL_PARTS; i++) {
        sum += parts[i];
    }
    return sum;
}
