/* From what is known of each candidate to its score: the arithmetic of the ranking, and nothing
 * else.
 *
 * For candidate i with BM25 b, cosine c and, in its conversation, the docs before and after it:
 *
 *   words      lex = LAMBDA b / max(b_max, KAPPA ideal)
 *   vectors    sem = (c - mean) / max(deviation, DEVIATION_MIN);  0 without a vector
 *   neighbours x = lex + sem, p = max(x, 0), near = min(1, NEAR_WORDS / words); asking times the
 * sum, over the docs n at distance 1 and 2, each way, of A[distance] (near max(p_n, RHO p) + (1 -
 * near) FILL p)  where there is one, A[distance] FILL p  where there is none form       of a turn
 * in a conversation: - asking (QUESTION share + SHORT max(0, 1 - words / 40)) speaker    SPEAKER,
 * when the question names exactly one speaker and he said it dates      WHEN, when a time is asked
 * for and the doc has one; DATE match, when days are named statement  when advice is asked for, of
 * what the user said: ADVICE statement min(1, p / NEAR), less of it when the doc also asks; - ASK
 * when it is a request
 *
 * retrieval/README.md says where the constants come from and what each part is worth. `ideal` makes
 * words say little when even the best match covers little of the question; it does not depend on
 * how many docs there are, as a z-score of BM25 would.
 *
 * Pure functions of their arguments: no store, no memory, any thread. */
#ifndef RETRIEVAL_FUSE_H
#define RETRIEVAL_FUSE_H

#include "retrieval/dates.h"
#include "retrieval/search.h"

#define RETRIEVAL_FUSE_LAMBDA 6.0
#define RETRIEVAL_FUSE_KAPPA 0.8
#define RETRIEVAL_FUSE_DEVIATION_MIN 0.02
#define RETRIEVAL_FUSE_NEAR 0.3        /* weight of a direct neighbour */
#define RETRIEVAL_FUSE_SECOND 0.15     /* and of the one behind it */
#define RETRIEVAL_FUSE_NEAR_WORDS 40.0 /* a longer text speaks for itself */
#define RETRIEVAL_FUSE_RHO 0.3
#define RETRIEVAL_FUSE_FILL 0.8
#define RETRIEVAL_FUSE_SPEAKER 2.0
#define RETRIEVAL_FUSE_QUESTION 1.0
#define RETRIEVAL_FUSE_SHORT 1.0
#define RETRIEVAL_FUSE_SHORT_WORDS 40.0
#define RETRIEVAL_FUSE_WHEN 0.6
#define RETRIEVAL_FUSE_ADVICE 4.0
#define RETRIEVAL_FUSE_ADVICE_MIXED 0.3 /* share of that for what asks as well */
#define RETRIEVAL_FUSE_ADVICE_NEAR 2.0  /* relevance from which on it gains all of that */
#define RETRIEVAL_FUSE_ASK 0.5
#define RETRIEVAL_FUSE_DATE 2.0
#define RETRIEVAL_FUSE_DATE_AFTER 0.5
#define RETRIEVAL_FUSE_DATE_AFTER_DAYS 14
#define RETRIEVAL_FUSE_DATE_WIDE_DAYS 40 /* wider ranges of a doc's own say nothing */

#define RETRIEVAL_FUSE_NOBODY UINT32_MAX        /* there is no neighbour */
#define RETRIEVAL_FUSE_UNKNOWN (UINT32_MAX - 1) /* there is one that was not looked at */

struct retrieval_fuse_range {
    int64_t from_day, to_day; /* days since 1970-01-01, both included */
};

/* One doc: a candidate, or only somebody's neighbour. */
struct retrieval_fuse_doc {
    double bm25, cosine; /* cosine NaN: no vector */
    uint32_t before[2];  /* the nearest and the second, as places in the array; NOBODY, UNKNOWN */
    uint32_t after[2];
    bool user;      /* not said by a machine */
    bool named;     /* said by the one that the question names */
    bool time, ask; /* struct retrieval_traits */
    double words, question, statement;
    int64_t event_day;                         /* days since 1970-01-01; INT64_MIN: not known */
    const struct retrieval_fuse_range *ranges; /* days that its text means */
    size_t ranges_count;
};

struct retrieval_fuse_question {
    double bm25_max, ideal; /* 0 and 0: no words */
    double cosine_mean, cosine_deviation;
    bool vectors; /* there are cosines, of two docs or more */
    bool when, advice;
    double asking; /* how much of it asks, 0..1 */
    struct retrieval_fuse_range dates[8];
    size_t dates_count;
    unsigned without; /* bits 1 << enum retrieval_part */
};

/* Mean and deviation of the cosines that are not NaN, and how many there are. */
size_t retrieval_fuse_measure(
    const float *cosines, size_t count, double *out_mean, double *out_deviation);

/* What the doc is worth by words and vectors alone: parts[WORDS], parts[VECTORS]. */
void retrieval_fuse_relevance(const struct retrieval_fuse_question *question,
    const struct retrieval_fuse_doc *doc, double parts[RETRIEVAL_PARTS]);

/* All parts but RECENCY, PRIORITY and DIVERSITY, which are 0, of docs[at]; `relevance` (one for
 * each of docs) is what retrieval_fuse_relevance gave, summed. */
void retrieval_fuse(const struct retrieval_fuse_question *question,
    const struct retrieval_fuse_doc *docs, const double *relevance, size_t at,
    double parts[RETRIEVAL_PARTS]);

double retrieval_fuse_sum(const double parts[RETRIEVAL_PARTS]);

#endif
