#include "retrieval/tree.h"

#include "retrieval/tree_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "centroids are used as they lie");

/* Vectors that are decoded at once. */
#define CHUNK 256

/* ---- distances ----------------------------------------------------------------------------- */

/* Four numbers side by side; the compiler has no leave to reorder a plain sum into these. */
typedef float lanes __attribute__((vector_size(16)));

static lanes lanes_load(const void *from)
{
    lanes out;
    memcpy(&out, from, sizeof out);
    return out;
}

static float distance(const float *a, const uint8_t *b, size_t dims)
{
    lanes sums[4] = {{0}, {0}, {0}, {0}};
    size_t i = 0;
    for (; i + 16 <= dims; i += 16) {
        for (size_t j = 0; j < 4; j++) {
            lanes apart = lanes_load(a + i + 4 * j) - lanes_load(b + (i + 4 * j) * sizeof *a);
            sums[j] += apart * apart;
        }
    }
    lanes sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    float total = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    for (; i < dims; i++) {
        float other;
        memcpy(&other, b + i * sizeof other, sizeof other);
        total += (a[i] - other) * (a[i] - other);
    }
    return total;
}

uint32_t retrieval_tree_nearest(
    const float *vector, const uint8_t *centroids, uint32_t count, size_t dims, float *out_distance)
{
    uint32_t best = 0;
    float least = INFINITY;
    for (uint32_t i = 0; i < count; i++) {
        float far = distance(vector, centroids + (size_t)i * dims * sizeof(float), dims);
        if (far < least) {
            least = far;
            best = i;
        }
    }
    if (out_distance) {
        *out_distance = least;
    }
    return best;
}

/* ---- opening ------------------------------------------------------------------------------- */

static uint32_t u32_at(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

struct retrieval_tree_node retrieval_tree_node(const struct retrieval_tree *tree, uint32_t node)
{
    memos_assert(node < tree->nodes_count);
    const uint8_t *at = tree->nodes + (size_t)node * RETRIEVAL_TREE_NODE_BYTES;
    struct retrieval_tree_node out = {.first_child = u32_at(at), .children = u32_at(at + 4)};
    memcpy(&out.examples, at + 8, sizeof out.examples);
    return out;
}

static const uint8_t *centroid_at(const struct retrieval_tree *tree, uint32_t node)
{
    return tree->centroids + (size_t)node * tree->dims * sizeof(float);
}

/* Children are where they must be, every node is reached once, no level is too deep, and examples
 * add up. */
static bool nodes_are_a_tree(const struct retrieval_tree *tree)
{
    uint32_t next = 1;      /* the first child of the next node that has any */
    uint32_t level_end = 1; /* where the level of `i` ends */
    size_t level = 0;
    for (uint32_t i = 0; i < tree->nodes_count; i++) {
        if (i == level_end) {
            level_end = next;
            level++;
        }
        struct retrieval_tree_node node = retrieval_tree_node(tree, i);
        if (i >= next || level > tree->levels) {
            return false;
        } else if (node.children == 0) {
            if (node.first_child != 0) {
                return false;
            }
            continue;
        }
        if (node.children == 1 || node.children > tree->branching || node.first_child != next ||
            node.children > tree->nodes_count - next) {
            return false;
        }
        uint64_t left = node.examples;
        for (uint32_t child = next; child < next + node.children; child++) {
            uint64_t examples = retrieval_tree_node(tree, child).examples;
            if (examples > left) {
                return false;
            }
            left -= examples;
        }
        if (left != 0) {
            return false;
        }
        next += node.children;
    }
    return next == tree->nodes_count;
}

static bool centroids_are_finite(const struct retrieval_tree *tree)
{
    size_t count = (size_t)tree->nodes_count * tree->dims;
    for (size_t i = 0; i < count; i++) {
        /* The exponent is all ones in infinities and NaN. */
        if ((u32_at(tree->centroids + i * sizeof(float)) & 0x7f800000u) == 0x7f800000u) {
            return false;
        }
    }
    return true;
}

enum memos_status retrieval_tree_open(
    struct memos_bytes payload, struct retrieval_tree *out, struct memos_error *err)
{
    struct memos_reader r = memos_reader_of(payload);
    struct retrieval_tree tree = {.dims = 0};

    bool known = memos_bytes_equal(memos_read_bytes(&r, 8), memos_bytes_of(RETRIEVAL_TREE_MAGIC));
    uint32_t version = memos_read_u32(&r);
    if (!known || r.failed) {
        return memos_fail(err, MEMOS_CORRUPT, "not a cluster tree");
    } else if (version != RETRIEVAL_TREE_VERSION) {
        return memos_fail(err, MEMOS_UNSUPPORTED, "a cluster tree of version %u", version);
    }
    tree.dims = memos_read_u32(&r);
    tree.levels = memos_read_u32(&r);
    tree.branching = memos_read_u32(&r);
    tree.nodes_count = memos_read_u32(&r);
    uint32_t reserved = memos_read_u32(&r);
    memos_read_into(&r, tree.fingerprint, sizeof tree.fingerprint);
    if (r.failed || reserved != 0 || tree.dims < 1 || tree.dims > RETRIEVAL_TREE_DIMS_MAX ||
        tree.levels < 1 || tree.levels > RETRIEVAL_TREE_LEVELS_MAX || tree.branching < 2 ||
        tree.branching > RETRIEVAL_TREE_BRANCHING_MAX || tree.nodes_count < 1 ||
        tree.nodes_count > RETRIEVAL_TREE_NODES_MAX) {
        return memos_fail(err, MEMOS_CORRUPT, "cluster tree: the header is broken");
    }
    /* At most 2^24 nodes of 2^18 + 16 bytes: no overflow. */
    tree.nodes = memos_read_bytes(&r, (size_t)tree.nodes_count * RETRIEVAL_TREE_NODE_BYTES).data;
    tree.centroids =
        memos_read_bytes(&r, (size_t)tree.nodes_count * tree.dims * sizeof(float)).data;
    if (!memos_reader_done(&r)) {
        return memos_fail(err, MEMOS_CORRUPT, "cluster tree: %zu bytes are not %u nodes of %zu",
            payload.size, tree.nodes_count, tree.dims);
    } else if (!nodes_are_a_tree(&tree)) {
        return memos_fail(err, MEMOS_CORRUPT, "cluster tree: its nodes are not a tree");
    } else if (!centroids_are_finite(&tree)) {
        return memos_fail(err, MEMOS_CORRUPT, "cluster tree: a centroid is not finite");
    }
    *out = tree;
    return MEMOS_OK;
}

/* ---- asking -------------------------------------------------------------------------------- */

void retrieval_tree_centroid(const struct retrieval_tree *tree, uint32_t node, float *out)
{
    memos_assert(node < tree->nodes_count);
    memcpy(out, centroid_at(tree, node), tree->dims * sizeof *out);
}

size_t retrieval_tree_route(const struct retrieval_tree *tree, const float *vector,
    uint32_t out_path[RETRIEVAL_TREE_LEVELS_MAX])
{
    struct retrieval_tree_node node = retrieval_tree_node(tree, 0);
    size_t depth = 0;
    while (node.children > 0) {
        uint32_t child =
            node.first_child + retrieval_tree_nearest(vector, centroid_at(tree, node.first_child),
                                   node.children, tree->dims, NULL);
        out_path[depth++] = child;
        node = retrieval_tree_node(tree, child);
    }
    return depth;
}

void retrieval_tree_assign(
    const struct retrieval_tree *tree, const float *vectors, size_t count, uint32_t *out_leaves)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t path[RETRIEVAL_TREE_LEVELS_MAX];
        size_t depth = retrieval_tree_route(tree, vectors + i * tree->dims, path);
        out_leaves[i] = depth > 0 ? path[depth - 1] : 0;
    }
}

/* Put a vector among the nearest of its node, which are in order. */
static void example_keep(
    uint64_t *vectors, float *distances, size_t each, uint64_t vector, float far)
{
    size_t at = each;
    for (; at > 0 && (vectors[at - 1] == UINT64_MAX || far < distances[at - 1]); at--) {
        if (at < each) {
            vectors[at] = vectors[at - 1];
            distances[at] = distances[at - 1];
        }
    }
    if (at < each) {
        vectors[at] = vector;
        distances[at] = far;
    }
}

enum memos_status retrieval_tree_examples(const struct retrieval_tree *tree,
    const struct retrieval_tree_source *source, size_t each, uint64_t *out_vectors,
    struct memos_error *err)
{
    memos_assert(source->dims == tree->dims);
    float *distances = calloc((size_t)tree->nodes_count, (each + 1) * sizeof *distances);
    float *chunk = calloc(CHUNK, tree->dims * sizeof *chunk);
    if (!distances || !chunk) {
        free(distances);
        free(chunk);
        return memos_fail(
            err, MEMOS_NO_MEMORY, "no memory for examples of %u nodes", tree->nodes_count);
    }
    for (size_t i = 0; i < each * tree->nodes_count; i++) {
        out_vectors[i] = UINT64_MAX;
    }
    for (uint64_t first = 0; first < source->count; first += CHUNK) {
        size_t count = source->count - first < CHUNK ? (size_t)(source->count - first) : CHUNK;
        source->vectors(source->self, first, count, chunk);
        for (size_t i = 0; i < count; i++) {
            const float *vector = chunk + i * tree->dims;
            uint32_t path[RETRIEVAL_TREE_LEVELS_MAX];
            size_t depth = retrieval_tree_route(tree, vector, path);
            for (size_t j = 0; j < depth; j++) {
                size_t at = (size_t)path[j] * each;
                float far = distance(vector, centroid_at(tree, path[j]), tree->dims);
                example_keep(out_vectors + at, distances + at, each, first + i, far);
            }
        }
    }
    free(distances);
    free(chunk);
    return MEMOS_OK;
}
