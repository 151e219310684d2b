/* BM25 over postings: the docs that answer some terms best.
 *
 *   score(d) = sum over terms t of  w(t) idf(t) (k1 + 1) f / (f + k1 (1 - b + b |d| / avg))
 *   idf(t)   = ln(1 + (N - n(t) + 0.5) / (n(t) + 0.5))
 *
 * f: how often d has t; |d|: words in d; N, n(t), avg: docs, docs with t, and mean words of a doc,
 * all counted over `live`; w(t): how often the question has t, a quarter of it when t is light.
 * That is Robertson and Zaragoza (2009), eq. 3.15, with idf kept above 0.
 *
 * MaxScore (Turtle and Flood, 1995, sec. 4): terms whose largest possible scores together cannot
 * lift a doc over the worst of the best top_k so far no longer bring docs in; they are only looked
 * up for docs that others bring in. */
#ifndef RETRIEVAL_RANK_H
#define RETRIEVAL_RANK_H

#include "memcube/store.h"
#include "retrieval/postings.h"
#include "retrieval/search.h"

/* A question's terms, measured: it can be asked for the best docs and for the scores of given ones,
 * any number of times. Views of the transaction; memory of the arena. */
struct retrieval_ranking;

struct retrieval_rank_query {
    uint32_t space;
    const struct retrieval_term *terms; /* of the question, each once */
    size_t terms_count;
    const struct memcube_docs *live;   /* what statistics are counted over */
    const struct memcube_docs *wanted; /* what may be found: nothing else is ever asked for */
    double k1, b;
    size_t top_k;    /* for retrieval_rank */
    bool exhaustive; /* for retrieval_rank: score every doc with a term: what MaxScore is tested
                        against */
};

/* How much work it was; for tests and statistics. */
struct retrieval_rank_work {
    uint64_t postings; /* looked at */
    uint64_t scored;   /* docs scored in full */
};

/* Borrows the query's terms and docs until close. NO_MEMORY, CORRUPT, IO. */
MEMOS_MUST_USE enum memos_status retrieval_ranking_open(const struct retrieval_tables *tables,
    struct memcube_txn *txn, const struct retrieval_rank_query *query, struct memos_arena *arena,
    struct retrieval_ranking **out_ranking, struct memos_error *err);
void retrieval_ranking_close(struct retrieval_ranking **ranking); /* takes NULL */

/* Sum of w(t) idf(t), over all terms, also those that no doc has: the score of a doc of mean length
 * with every term of the question once. */
double retrieval_ranking_ideal(const struct retrieval_ranking *ranking);

/* Add each wanted doc's score to scores. docs: the wanted ones in order, scores: one for each. */
MEMOS_MUST_USE enum memos_status retrieval_ranking_scores(struct retrieval_ranking *ranking,
    const struct memcube_docs *wanted, const uint32_t *docs, float *scores,
    struct memos_error *err);

/* The best of `wanted`, as retrieval_rank. */
MEMOS_MUST_USE enum memos_status retrieval_ranking_best(struct retrieval_ranking *ranking,
    const struct memcube_docs *wanted, size_t top_k, bool exhaustive, struct memos_arena *arena,
    struct retrieval_hit *out, size_t *out_count, struct memos_error *err);

/* The best, sorted by score (largest first), then by doc. `out` has room for top_k. `out_work` may
 * be NULL. Memory comes from arena. NO_MEMORY, CORRUPT, IO. */
MEMOS_MUST_USE enum memos_status retrieval_rank(const struct retrieval_tables *tables,
    struct memcube_txn *txn, const struct retrieval_rank_query *query, struct memos_arena *arena,
    struct retrieval_hit *out, size_t *out_count, struct retrieval_rank_work *out_work,
    struct memos_error *err);

#endif
