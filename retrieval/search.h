/* Search in a space: which cubes answer these words, best first.
 *
 * Threads: a retrieval_lexical may be shared; a search runs on the caller's snapshot. */
#ifndef RETRIEVAL_SEARCH_H
#define RETRIEVAL_SEARCH_H

#include "memcube/store.h"

enum {
    RETRIEVAL_TOP_K_MAX = 1000,
};

struct retrieval_query {
    struct memos_bytes text;     /* UTF-8; the words */
    struct memos_bytes language; /* of the query, for the stemmer; empty: English rules */
    struct memcube_filter filter;
    struct memcube_as_of as_of;
    size_t top_k; /* 1..RETRIEVAL_TOP_K_MAX */
};

struct retrieval_hit {
    uint32_t doc;
    float score; /* BM25; larger is better */
};

/* Hits sorted by score, then by doc; at most query->top_k of them into out. OK with *out_count 0
 * when nothing matches. */
struct retrieval_lexical;
MEMOS_MUST_USE enum memos_status retrieval_lexical_search(struct retrieval_lexical *lexical,
    struct memcube_read *read, const struct memcube_space *space,
    const struct retrieval_query *query, struct retrieval_hit *out, size_t *out_count,
    struct memos_error *err);

#endif
