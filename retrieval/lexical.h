/* The lexical index: BM25 over stemmed words, kept in the store's own transactions.
 *
 * Words are found by Unicode rules (UAX #29 word boundaries, full case folding), stemmed by
 * Snowball for the cube's language, and hashed with the space's secret before they are stored, so
 * that the files hold no readable word.
 *
 * Sources: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009),
 * eq. 3.15; Turtle and Flood, "Query evaluation: strategies and optimizations" (1995) for
 * MaxScore. */
#ifndef RETRIEVAL_LEXICAL_H
#define RETRIEVAL_LEXICAL_H

#include "memcube/index.h"
#include "retrieval/search.h"

struct retrieval_lexical;

/* k1 = 1.2, b = 0.75 unless set otherwise. */
struct retrieval_lexical_options {
    float k1, b; /* 0: the defaults */
};

MEMOS_MUST_USE enum memos_status retrieval_lexical_create(
    const struct retrieval_lexical_options *options, struct retrieval_lexical **out_lexical,
    struct memos_error *err);
void retrieval_lexical_destroy(struct retrieval_lexical **lexical);

/* The docs that answer the words of the query best, by BM25 alone; hits sorted by score, then by
 * doc; at most query->top_k of them into out. OK with *out_count 0 when nothing matches. */
MEMOS_MUST_USE enum memos_status retrieval_lexical_search(struct retrieval_lexical *lexical,
    struct memcube_read *read, const struct memcube_space *space,
    const struct retrieval_query *query, struct retrieval_hit *out, size_t *out_count,
    struct memos_error *err);

/* What to hand to memcube_store_open. Lives as long as the lexical index. */
struct memcube_index *retrieval_lexical_index(struct retrieval_lexical *lexical);

#endif
