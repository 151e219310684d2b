/* Browsing a space by meaning: the cluster tree over its contents, and what lies below a node.
 *
 * A tree (retrieval/tree.h) is made from the vectors of the docs that a space has, and kept by the
 * caller as a cube. What is shown of it is made anew each time from the docs that the viewer may
 * see: how many lead to each child, the words that set them apart from its siblings', and those
 * nearest to its centre.
 *
 * Threads: both run on the caller's snapshot and compute for a while (a second for 100,000 docs):
 * for a thread of its own. */
#ifndef RETRIEVAL_BROWSE_H
#define RETRIEVAL_BROWSE_H

#include "memcube/store.h"
#include "retrieval/tree.h"
#include "retrieval/vectors.h"
#include "retrieval/words.h"

enum {
    RETRIEVAL_BROWSE_WORDS_MAX = 6,
    RETRIEVAL_BROWSE_EXAMPLES_MAX = 20,
    RETRIEVAL_BROWSE_SAMPLE_MAX = 131072, /* docs that a tree is made from; more are sampled */
};

/* false stops with CANCELLED. */
typedef bool retrieval_browse_progress_fn(void *self, uint64_t done, uint64_t total);

struct retrieval_browse {
    struct retrieval_vectors *vectors;
    struct memcube_read *read;
    const struct memcube_space *space;
    const struct memcube_docs *docs; /* that count */
    const uint8_t *fingerprint;      /* 32 bytes: of the encoder in use */
    size_t dims;
    retrieval_browse_progress_fn *progress; /* may be NULL */
    void *progress_self;
};

/* Make a tree of the docs; its payload is appended to out. NOT_FOUND: none of them has a vector.
 * NO_MEMORY (4 bytes times dims for each doc are needed), CANCELLED. */
MEMOS_MUST_USE enum memos_status retrieval_browse_build(
    const struct retrieval_browse *browse, struct memos_buffer *out, struct memos_error *err);

struct retrieval_browse_child {
    uint32_t number; /* among its siblings, from 0 */
    bool leaf;
    uint64_t docs;
    struct retrieval_word words[RETRIEVAL_BROWSE_WORDS_MAX];
    size_t words_count;
    uint32_t examples[RETRIEVAL_BROWSE_EXAMPLES_MAX]; /* docs, nearest to the centre first */
    size_t examples_count;
};

struct retrieval_browse_node {
    uint64_t docs;                           /* below the node */
    struct retrieval_browse_child *children; /* of a leaf: the leaf itself */
    size_t children_count;
};

/* What lies below the node at `path` (child numbers from the root). Memory comes from arena.
 * NOT_FOUND: there is no such node; STALE: another encoder made the tree; CANCELLED. */
MEMOS_MUST_USE enum memos_status retrieval_browse_node(const struct retrieval_browse *browse,
    const struct retrieval_tree *tree, const uint32_t *path, size_t path_count, size_t examples_max,
    struct memos_arena *arena, struct retrieval_browse_node *out, struct memos_error *err);

/* The path of the leaf that a vector (dims) is routed to; returns its length. */
size_t retrieval_browse_path(const struct retrieval_tree *tree, const float *vector,
    uint32_t out_path[RETRIEVAL_TREE_LEVELS_MAX]);

#endif
