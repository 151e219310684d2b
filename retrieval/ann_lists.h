/* The lists of an inverted file, laid open: which labels lie in which, and which lists are near a
 * query. Who holds the vectors himself looks at those of the nearest lists with his own kernels,
 * exactly, which takes less time than FAISS takes to estimate them.
 *
 * Threads: read-only once made. */
#ifndef RETRIEVAL_ANN_LISTS_H
#define RETRIEVAL_ANN_LISTS_H

#include "proto/arena.h"
#include "retrieval/ann.h"

struct retrieval_ann_lists {
    size_t count, dims;
    size_t effort;    /* so many lists are visited when everything is wanted */
    uint32_t *starts; /* list i has labels[starts[i]] to labels[starts[i + 1] - 1] */
    uint32_t *labels;
    uint8_t *codes; /* the centroids as float8 (count, dims), */
    float *scales;  /* and a scale for each */
    uint64_t bytes; /* of all of it */
};

/* Needs the index no longer. *out_lists NULL and OK: it has no lists. NO_MEMORY, INTERNAL (what
 * FAISS says). */
MEMOS_MUST_USE enum memos_status retrieval_ann_lists_make(const struct retrieval_ann *ann,
    struct retrieval_ann_lists **out_lists, struct memos_error *err);
void retrieval_ann_lists_free(struct retrieval_ann_lists **lists); /* takes NULL */

/* A walk over the lists, the nearest first. */
struct retrieval_ann_walk {
    struct retrieval_ann_near {
        float score;
        uint32_t list;
    } * near; /* a heap of what is left, the nearest on top */
    size_t left;
};

/* query: dims numbers. Memory comes from arena. NO_MEMORY. */
MEMOS_MUST_USE enum memos_status retrieval_ann_walk_begin(const struct retrieval_ann_lists *lists,
    const float *query, struct memos_arena *arena, struct retrieval_ann_walk *out,
    struct memos_error *err);

/* The next list; false: all were seen. */
bool retrieval_ann_walk_next(struct retrieval_ann_walk *walk, uint32_t *out_list);

#endif
