/* The cluster tree: where in the space of meanings a text lies, as a path from coarse to fine.
 *
 * Hierarchical k-means over the vectors of a space: the root holds all, a node has up to
 * `branching` children, and there are `levels` levels below the root. A vector is routed greedily:
 * at each level to the child whose centroid is nearest (L2), without looking back. Blocks of
 * parametric memory are kept by node, and people browse by it.
 *
 * One payload holds a tree, and is read where it lies (a value, a mapped file, at any address):
 * little-endian,
 *
 *     0  8  "memostre"
 *     8  4  version: 1
 *    12  4  dims: 1..65536
 *    16  4  levels: 1..8
 *    20  4  branching: 2..256
 *    24  4  nodes N, the root among them: 1..16777216
 *    28  4  zero
 *    32 32  fingerprint of the encoder whose vectors these are
 *    64 16N nodes, level by level, the children of each side by side and in the order of parents:
 *             4 its first child (0: a leaf), 4 how many children (0, 2..branching),
 *             8 examples that were routed to it while building (those of its children add up)
 *      4dN  centroids, float32, in the same order
 *
 * Everything is checked when it is opened: a tree that was opened can be routed in. The payload has
 * no hash of its own: memcube has one of every payload.
 *
 * Departures from the paper: examples come round again in a node that has fewer than `steps` times
 * `step_examples` of them (20 x 6,400: the paper has fresh ones always); a step's means are those
 * of its own examples; a node with few examples stays a leaf; a child without any is left out, so
 * that a node may have fewer than `branching`. The cap on a cluster's share holds for what a step
 * learns from. Where an example belongs in the end is where routing takes it, and shares there may
 * be over the cap.
 *
 * Threads: a tree is read-only. Building is one call; FAISS computes in it with `threads`.
 *
 * Sources: Pouransari et al., arXiv 2510.02375 (sec. 2.1, app. B and C); k-means++: Arthur and
 * Vassilvitskii, 2007. */
#ifndef RETRIEVAL_TREE_H
#define RETRIEVAL_TREE_H

#include "proto/bytes.h"

enum {
    RETRIEVAL_TREE_LEVELS_MAX = 8,
    RETRIEVAL_TREE_BRANCHING_MAX = 256,
};

/* ---- building ------------------------------------------------------------------------------ */

struct retrieval_tree_source {
    size_t dims;
    uint64_t count; /* vectors, numbered from 0 */
    /* Decode vectors [first, first + count) into out (count, dims): finite numbers. */
    void (*vectors)(void *self, uint64_t first, size_t count, float *out);
    void *self;
};

struct retrieval_tree_options {
    size_t levels;         /* 0: 4 */
    size_t branching;      /* 0: 16 */
    size_t examples_least; /* of a node that is split; 0, or less than that: 2 * branching */
    size_t steps;          /* of k-means in a node; 0: 20 */
    size_t step_examples;  /* 0: 6400 */
    double share_max;      /* of a step's examples in one cluster; 0: 1.5 / branching */
    uint64_t seed;         /* equal seeds and vectors give equal trees, on one kind of machine */
    unsigned threads;      /* 0: one a processor, at most 16 */
    /* Called after each node with how many of the vectors lie in finished ones, level by level;
     * false stops with CANCELLED. May be NULL. */
    bool (*progress)(void *self, uint64_t done, uint64_t total);
    void *progress_self;
};

/* Append the payload of a tree to out. Without vectors it is a root alone. Memory: 4 bytes a
 * vector, a step's examples, and the centroids. INVALID (sizes out of bounds), TOO_LARGE (out's
 * bound, or 2^32 vectors), CANCELLED, NO_MEMORY, INTERNAL (what FAISS says). */
MEMOS_MUST_USE enum memos_status retrieval_tree_build(const struct retrieval_tree_options *options,
    const struct retrieval_tree_source *source, const uint8_t fingerprint[32],
    struct memos_buffer *out, struct memos_error *err);

/* ---- reading ------------------------------------------------------------------------------- */

/* A view of a payload. */
struct retrieval_tree {
    size_t dims, levels, branching;
    uint32_t nodes_count;
    uint8_t fingerprint[32];
    const uint8_t *nodes, *centroids;
};

/* Check a payload and view it: it must outlive the tree. CORRUPT, UNSUPPORTED (a version). */
MEMOS_MUST_USE enum memos_status retrieval_tree_open(
    struct memos_bytes payload, struct retrieval_tree *out, struct memos_error *err);

struct retrieval_tree_node {
    uint32_t first_child, children; /* children 0: a leaf */
    uint64_t examples;
};
struct retrieval_tree_node retrieval_tree_node(const struct retrieval_tree *tree, uint32_t node);

/* Copy a node's centroid (dims) out. The root's is zeros: nothing is compared with it. */
void retrieval_tree_centroid(const struct retrieval_tree *tree, uint32_t node, float *out);

/* The nodes below the root that a vector (dims) is routed through: out_path[0] is a child of the
 * root, the last one a leaf. Returns how many, at most tree->levels; 0 when the root is a leaf. Of
 * equally near children the first. Allocates nothing. */
size_t retrieval_tree_route(const struct retrieval_tree *tree, const float *vector,
    uint32_t out_path[RETRIEVAL_TREE_LEVELS_MAX]);

/* The leaf of each of the vectors (count, dims). */
void retrieval_tree_assign(
    const struct retrieval_tree *tree, const float *vectors, size_t count, uint32_t *out_leaves);

/* For browsing: of the vectors of a source, the `each` nearest to the centroid of every node that
 * they are routed through, nearest first. out_vectors (nodes_count, each): their numbers,
 * UINT64_MAX where there are fewer; the root's stay empty. A caller shows a node by these
 * vectors' texts. NO_MEMORY. */
MEMOS_MUST_USE enum memos_status retrieval_tree_examples(const struct retrieval_tree *tree,
    const struct retrieval_tree_source *source, size_t each, uint64_t *out_vectors,
    struct memos_error *err);

#endif
