/* Any bytes as a cluster tree: refused, or a tree in which every route ends at a leaf, within the
 * levels, and whose counts add up. */
#include "retrieval/tree.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct retrieval_tree tree;
    uint32_t path[RETRIEVAL_TREE_LEVELS_MAX];

    if (retrieval_tree_open(memos_bytes_make(data, size), &tree, NULL) != MEMOS_OK) {
        return 0;
    }
    float *vector = calloc(tree.dims, sizeof *vector);
    if (!vector) {
        return 0;
    }
    for (uint32_t node = 0; node < tree.nodes_count; node++) {
        retrieval_tree_centroid(&tree, node, vector);
        size_t depth = retrieval_tree_route(&tree, vector, path);
        memos_assert(depth <= tree.levels);
        uint64_t examples = retrieval_tree_node(&tree, 0).examples;
        uint32_t at = 0;
        for (size_t i = 0; i < depth; i++) {
            memos_assert(path[i] > at && path[i] < tree.nodes_count);
            at = path[i];
            memos_assert(retrieval_tree_node(&tree, at).examples <= examples);
            examples = retrieval_tree_node(&tree, at).examples;
        }
        memos_assert(retrieval_tree_node(&tree, at).children == 0);
    }
    free(vector);
    return 0;
}
