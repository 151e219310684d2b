/* What tree.c and tree_build.c share. */
#ifndef RETRIEVAL_TREE_INTERNAL_H
#define RETRIEVAL_TREE_INTERNAL_H

#include "retrieval/tree.h"

#define RETRIEVAL_TREE_MAGIC "memostre"
#define RETRIEVAL_TREE_VERSION 1

enum {
    RETRIEVAL_TREE_HEADER_BYTES = 64,
    RETRIEVAL_TREE_NODE_BYTES = 16,
    RETRIEVAL_TREE_DIMS_MAX = 65536,
    RETRIEVAL_TREE_NODES_MAX = 1 << 24,
};

/* The nearest of `count` centroids (count, dims; float32 at any address) to a vector: the first of
 * equals. *out_distance (may be NULL): its squared L2 distance. Building and routing both ask
 * here, so that an example is found where it was put. */
uint32_t retrieval_tree_nearest(const float *vector, const uint8_t *centroids, uint32_t count,
    size_t dims, float *out_distance);

/* Move assignments until no cluster has more than `most` of them: the fullest gives half of its
 * own, drawn at random, to the emptiest (or as many as make the two equal, where half would be
 * more than that). most must be at least count / clusters, rounded up. */
void retrieval_tree_balance(
    int64_t *assigned, size_t count, size_t clusters, size_t most, size_t *sizes, uint64_t *random);

/* A number of the sequence of this state (splitmix64). */
uint64_t retrieval_tree_random(uint64_t *state);

#endif
