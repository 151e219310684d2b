/* A search while it is made: what retrieval.c, search.c, candidates.c and settle.c share. */
#ifndef RETRIEVAL_SEARCH_INTERNAL_H
#define RETRIEVAL_SEARCH_INTERNAL_H

#include "retrieval/feature.h"
#include "retrieval/fuse.h"
#include "retrieval/lexical.h"
#include "retrieval/question.h"
#include "retrieval/rank.h"
#include "retrieval/search.h"
#include "retrieval/terms.h"
#include "retrieval/vectors.h"

struct retrieval {
    struct retrieval_lexical *lexical;
    struct retrieval_vectors *vectors;
    struct retrieval_features *features;
    struct retrieval_statements *statements;
    struct retrieval_questions *questions;
    struct memcube_index *indexes[3];
};

struct searching {
    struct retrieval *retrieval;
    struct memcube_read *read;
    struct memcube_txn *txn;
    struct memos_arena *arena;
    const struct memcube_space *space;
    const struct retrieval_query *query;
    bool vectors; /* the question has one that fits */

    /* Docs: what the viewer finds without a filter, what the filter leaves or adds, and all of
     * these. Statistics are of live, neighbours of universe, hits of wanted. */
    struct memcube_docs live, wanted, universe;

    struct retrieval_question question;
    struct retrieval_features_view features;
    uint32_t named;                    /* the one speaker that the question names; 0: none */
    struct retrieval_ranking *ranking; /* NULL: the question has no words */

    /* Rows: the docs that are looked at, in the order of their numbers. */
    uint32_t *docs;
    size_t docs_count;
    struct memcube_docs chosen;      /* the same docs, and */
    uint32_t *row_base;              /* for each 64 docs, how many of them come before */
    float *bm25;                     /* by row */
    float *cosines;                  /* by row; NaN: no vector */
    struct retrieval_feature *known; /* by row */
    struct retrieval_fuse_doc *rows;
    double *relevance; /* by row */
    struct retrieval_fuse_question fuse;
    uint32_t missing; /* wanted docs without a vector, as far as is known */
};

static inline bool searching_has(const struct memcube_docs *docs, uint32_t doc)
{
    return doc < docs->docs_end && (docs->words[doc / 64] >> (doc % 64) & 1) != 0;
}

/* Memory of the search; NULL has set err. */
void *searching_take(
    struct searching *searching, size_t count, size_t size, struct memos_error *err);

/* Find out what the question is after and which docs may be found. */
MEMOS_MUST_USE enum memos_status searching_begin(
    struct searching *searching, struct retrieval_terms *terms, struct memos_error *err);

/* Make the rows: candidates and their neighbours, with all that retrieval_fuse wants. */
MEMOS_MUST_USE enum memos_status searching_candidates(
    struct searching *searching, struct memos_error *err);

/* Score the rows and give the best, with what is known of their versions weighed in. */
MEMOS_MUST_USE enum memos_status searching_settle(struct searching *searching,
    struct retrieval_hit *out, size_t *out_count, struct memos_error *err);

#endif
