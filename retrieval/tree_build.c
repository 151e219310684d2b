#include "retrieval/tree.h"

#include "retrieval/ann_internal.h"
#include "retrieval/faiss_c.h"
#include "retrieval/tree_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Vectors that are decoded at once where they are told apart for good. */
#define CHUNK 256

uint64_t retrieval_tree_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* 0 .. below - 1; below is far under 2^32, so that the remainder's bias is too small to matter. */
static size_t random_below(uint64_t *state, size_t below)
{
    return (size_t)((retrieval_tree_random(state) >> 32) % below);
}

static double random_share(uint64_t *state)
{
    return (double)(retrieval_tree_random(state) >> 11) * 0x1p-53;
}

/* ---- the state of one building ------------------------------------------------------------- */

/* A node while the tree grows: which examples it has, as a range of `order`. */
struct growing {
    uint32_t begin, end;
    uint32_t first_child, children;
};

struct building {
    struct retrieval_tree_options options; /* with defaults filled in */
    const struct retrieval_tree_source *source;
    size_t dims;
    uint64_t random;

    uint32_t *order; /* numbers of vectors; each node owns a range of it */
    uint32_t *spare; /* as large, to sort with */
    uint8_t *child;  /* of each position of `order` in the node at hand */
    struct growing *nodes;
    float *centroids; /* (nodes_count, dims) */
    size_t nodes_count, nodes_room;

    /* Of one node at a time. */
    float *batch;     /* (step_examples, dims), or CHUNK */
    float *means;     /* (branching, dims) */
    float *nearest;   /* (step_examples): squared distance to the seeds so far */
    int64_t *labels;  /* (step_examples) */
    FaissIndex *flat; /* the means, for FAISS to compare with */
    bool loaded;      /* batch holds the whole node */
};

static void building_free(struct building *b)
{
    free(b->order);
    free(b->spare);
    free(b->child);
    free(b->nodes);
    free(b->centroids);
    free(b->batch);
    free(b->means);
    free(b->nearest);
    free(b->labels);
    if (b->flat) {
        faiss_Index_free(b->flat);
    }
}

static enum memos_status no_memory(const struct building *b, struct memos_error *err)
{
    return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a tree of %llu vectors",
        (unsigned long long)b->source->count);
}

static enum memos_status building_make(struct building *b, struct memos_error *err)
{
    size_t count = (size_t)b->source->count;
    size_t batch = b->options.step_examples > CHUNK ? b->options.step_examples : CHUNK;

    b->order = calloc(count + 1, sizeof *b->order);
    b->spare = calloc(count + 1, sizeof *b->spare);
    b->child = calloc(count + 1, sizeof *b->child);
    b->batch = calloc(batch, b->dims * sizeof *b->batch);
    b->means = calloc(b->options.branching, b->dims * sizeof *b->means);
    b->nearest = calloc(batch, sizeof *b->nearest);
    b->labels = calloc(batch, sizeof *b->labels);
    if (!b->order || !b->spare || !b->child || !b->batch || !b->means || !b->nearest ||
        !b->labels) {
        return no_memory(b, err);
    }
    for (size_t i = 0; i < count; i++) {
        b->order[i] = (uint32_t)i;
    }
    return retrieval_faiss_status(
        faiss_IndexFlat_new_with(&b->flat, (idx_t)b->dims, METRIC_L2), "make an index", err);
}

/* Add a node with its centroid (NULL: zeros). */
static enum memos_status node_add(struct building *b, uint32_t begin, uint32_t end,
    const float *centroid, struct memos_error *err)
{
    if (b->nodes_count == RETRIEVAL_TREE_NODES_MAX) {
        return memos_fail(
            err, MEMOS_TOO_LARGE, "a tree of more than %d nodes", RETRIEVAL_TREE_NODES_MAX);
    }
    if (b->nodes_count == b->nodes_room) {
        size_t room = b->nodes_room > 0 ? 2 * b->nodes_room : 64;
        struct growing *nodes = realloc(b->nodes, room * sizeof *nodes);
        b->nodes = nodes ? nodes : b->nodes;
        float *centroids = realloc(b->centroids, room * b->dims * sizeof *centroids);
        b->centroids = centroids ? centroids : b->centroids;
        if (!nodes || !centroids) {
            return no_memory(b, err);
        }
        b->nodes_room = room;
    }
    float *at = b->centroids + b->nodes_count * b->dims;
    if (centroid) {
        memcpy(at, centroid, b->dims * sizeof *at);
    } else {
        memset(at, 0, b->dims * sizeof *at);
    }
    b->nodes[b->nodes_count++] = (struct growing){.begin = begin, .end = end};
    return MEMOS_OK;
}

/* ---- k-means in one node ------------------------------------------------------------------- */

/* Decode the examples order[from .. from + count - 1]. */
static void examples_load(struct building *b, uint32_t from, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        b->source->vectors(b->source->self, b->order[from + i], 1, b->batch + i * b->dims);
    }
}

/* The next examples of a node, in a random order that comes round again. Returns how many. */
static size_t batch_next(struct building *b, const struct growing *node, size_t step)
{
    size_t count = node->end - node->begin, most = b->options.step_examples;
    if (count <= most) {
        if (!b->loaded) {
            examples_load(b, node->begin, count);
            b->loaded = true;
        }
        return count;
    }
    size_t batches = count / most; /* what is left over gets its turn after the next shuffle */
    if (step % batches == 0) {
        for (size_t i = count - 1; i > 0; i--) {
            size_t other = random_below(&b->random, i + 1);
            uint32_t moved = b->order[node->begin + i];
            b->order[node->begin + i] = b->order[node->begin + other];
            b->order[node->begin + other] = moved;
        }
    }
    examples_load(b, node->begin + (uint32_t)(step % batches * most), most);
    return most;
}

/* k-means++: the first centre is any example, each further one is drawn by its squared distance to
 * those before. Returns how many: fewer than `branching` when all examples lie on fewer points. */
static size_t means_seed(struct building *b, size_t count)
{
    size_t means = 0, chosen = random_below(&b->random, count);
    for (;;) {
        float *mean = b->means + means * b->dims;
        memcpy(mean, b->batch + chosen * b->dims, b->dims * sizeof *mean);
        double total = 0.0;
        for (size_t i = 0; i < count; i++) {
            float far;
            (void)retrieval_tree_nearest(
                b->batch + i * b->dims, (const uint8_t *)mean, 1, b->dims, &far);
            b->nearest[i] = means > 0 && b->nearest[i] < far ? b->nearest[i] : far;
            total += (double)b->nearest[i];
        }
        /* Not a number, or nothing apart from what was chosen. */
        if (++means == b->options.branching || !(total > 0.0) || isinf(total)) {
            return means;
        }
        double left = random_share(&b->random) * total;
        chosen = count;
        for (size_t i = 0; i < count; i++) {
            if (b->nearest[i] > 0.0f) {
                chosen = i; /* the last of these, when rounding leaves something over */
                left -= (double)b->nearest[i];
                if (left < 0.0) {
                    break;
                }
            }
        }
    }
}

void retrieval_tree_balance(
    int64_t *assigned, size_t count, size_t clusters, size_t most, size_t *sizes, uint64_t *random)
{
    memset(sizes, 0, clusters * sizeof *sizes);
    for (size_t i = 0; i < count; i++) {
        sizes[assigned[i]]++;
    }
    for (;;) {
        size_t full = 0, empty = 0;
        for (size_t i = 1; i < clusters; i++) {
            full = sizes[i] > sizes[full] ? i : full;
            empty = sizes[i] < sizes[empty] ? i : empty;
        }
        if (sizes[full] <= most) {
            return;
        }
        /* Each round the two come closer to each other, so that this ends. */
        size_t half = sizes[full] / 2, even = (sizes[full] - sizes[empty]) / 2;
        size_t moving = half < even ? half : even, seen = sizes[full];
        memos_assert(moving > 0);
        sizes[full] -= moving;
        sizes[empty] += moving;
        for (size_t i = 0; moving > 0; i++) {
            if ((size_t)assigned[i] == full) {
                /* `moving` of those `seen` that are left, each as likely as the others. */
                if (random_below(random, seen--) < moving) {
                    assigned[i] = (int64_t)empty;
                    moving--;
                }
            }
        }
    }
}

/* The mean of each cluster's examples; one without any stays where it is. */
static void means_update(struct building *b, size_t count, size_t means, const size_t *sizes)
{
    for (size_t i = 0; i < means; i++) {
        if (sizes[i] > 0) {
            memset(b->means + i * b->dims, 0, b->dims * sizeof *b->means);
        }
    }
    for (size_t i = 0; i < count; i++) {
        size_t to = (size_t)b->labels[i];
        float *mean = b->means + to * b->dims;
        float share = 1.0f / (float)sizes[to];
        for (size_t j = 0; j < b->dims; j++) {
            mean[j] += share * b->batch[i * b->dims + j];
        }
    }
}

/* Find means for the examples of a node. *out_means: how many. */
static enum memos_status node_cluster(
    struct building *b, const struct growing *node, size_t *out_means, struct memos_error *err)
{
    size_t sizes[RETRIEVAL_TREE_BRANCHING_MAX];
    size_t means = 0;

    b->loaded = false;
    for (size_t step = 0; step < b->options.steps; step++) {
        size_t count = batch_next(b, node, step);
        if (step == 0) {
            means = means_seed(b, count);
        }
        if (means < 2) {
            break;
        }
        int code = faiss_Index_reset(b->flat);
        if (code == 0) {
            code = faiss_Index_add(b->flat, (idx_t)means, b->means);
        }
        if (code == 0) {
            code = faiss_Index_assign(b->flat, (idx_t)count, b->batch, b->labels, 1);
        }
        if (code != 0) {
            return retrieval_faiss_status(code, "assign examples", err);
        }
        for (size_t i = 0; i < count; i++) {
            /* FAISS finds nothing near what is not a number. */
            b->labels[i] = b->labels[i] < 0 ? 0 : b->labels[i];
        }
        size_t least = (count + means - 1) / means;
        size_t most = (size_t)(b->options.share_max * (double)count);
        retrieval_tree_balance(
            b->labels, count, means, most > least ? most : least, sizes, &b->random);
        means_update(b, count, means, sizes);
    }
    *out_means = means;
    return MEMOS_OK;
}

/* ---- growing ------------------------------------------------------------------------------- */

/* Sort a node's range of `order` by the nearest mean; out_ends[i]: where those of mean i end,
 * counted from the range's beginning. */
static void node_part(struct building *b, const struct growing *node, size_t means,
    uint32_t out_ends[RETRIEVAL_TREE_BRANCHING_MAX])
{
    uint32_t at[RETRIEVAL_TREE_BRANCHING_MAX] = {0};
    uint32_t *order = b->order + node->begin;
    uint32_t count = node->end - node->begin;

    for (uint32_t from = 0; from < count; from += CHUNK) {
        size_t chunk = count - from < CHUNK ? count - from : CHUNK;
        if (!b->loaded) {
            examples_load(b, node->begin + from, chunk);
        }
        for (size_t i = 0; i < chunk; i++) {
            const float *vector = b->batch + (b->loaded ? from + i : i) * b->dims;
            uint32_t nearest = retrieval_tree_nearest(
                vector, (const uint8_t *)b->means, (uint32_t)means, b->dims, NULL);
            b->child[from + i] = (uint8_t)nearest;
            at[nearest]++;
        }
    }
    uint32_t end = 0;
    for (size_t i = 0; i < means; i++) {
        end += at[i];
        out_ends[i] = end;
        at[i] = end - at[i];
    }
    for (uint32_t i = 0; i < count; i++) {
        b->spare[at[b->child[i]]++] = order[i];
    }
    memcpy(order, b->spare, count * sizeof *order);
}

/* Give a node its children, if it has enough examples and they can be told apart. */
static enum memos_status node_split(struct building *b, size_t node, struct memos_error *err)
{
    uint32_t ends[RETRIEVAL_TREE_BRANCHING_MAX];
    struct growing *parent = &b->nodes[node];
    uint32_t begin = parent->begin, children = 0;
    size_t means = 0;

    if (parent->end - begin < b->options.examples_least) {
        return MEMOS_OK;
    }
    enum memos_status status = node_cluster(b, parent, &means, err);
    if (status != MEMOS_OK || means < 2) {
        return status;
    }
    node_part(b, parent, means, ends);
    for (size_t i = 0; i < means; i++) {
        children += ends[i] > (i > 0 ? ends[i - 1] : 0);
    }
    if (children < 2) {
        return MEMOS_OK;
    }
    parent->first_child = (uint32_t)b->nodes_count;
    parent->children = children; /* node_add may move what parent points at */
    for (size_t i = 0; i < means && status == MEMOS_OK; i++) {
        uint32_t from = i > 0 ? ends[i - 1] : 0;
        if (ends[i] > from) {
            status = node_add(b, begin + from, begin + ends[i], b->means + i * b->dims, err);
        }
    }
    return status;
}

static enum memos_status building_grow(struct building *b, struct memos_error *err)
{
    const struct retrieval_tree_options *o = &b->options;
    uint64_t total = b->source->count * o->levels, done = 0;
    size_t level_begin = 0;

    enum memos_status status = node_add(b, 0, (uint32_t)b->source->count, NULL, err);
    for (size_t level = 0; level < o->levels; level++) {
        size_t level_end = b->nodes_count;
        for (size_t node = level_begin; node < level_end && status == MEMOS_OK; node++) {
            status = node_split(b, node, err);
            done += b->nodes[node].end - b->nodes[node].begin;
            if (status == MEMOS_OK && o->progress && !o->progress(o->progress_self, done, total)) {
                status = memos_fail(err, MEMOS_CANCELLED, "building a tree was stopped");
            }
        }
        level_begin = level_end;
    }
    return status;
}

/* ---- the payload --------------------------------------------------------------------------- */

static enum memos_status payload_write(const struct building *b, const uint8_t fingerprint[32],
    struct memos_buffer *out, struct memos_error *err)
{
    memos_buffer_bytes(out, RETRIEVAL_TREE_MAGIC, 8);
    memos_buffer_u32(out, RETRIEVAL_TREE_VERSION);
    memos_buffer_u32(out, (uint32_t)b->dims);
    memos_buffer_u32(out, (uint32_t)b->options.levels);
    memos_buffer_u32(out, (uint32_t)b->options.branching);
    memos_buffer_u32(out, (uint32_t)b->nodes_count);
    memos_buffer_u32(out, 0);
    memos_buffer_bytes(out, fingerprint, 32);
    for (size_t i = 0; i < b->nodes_count; i++) {
        const struct growing *node = &b->nodes[i];
        memos_buffer_u32(out, node->first_child);
        memos_buffer_u32(out, node->children);
        memos_buffer_u64(out, node->end - node->begin);
    }
    memos_buffer_bytes(out, b->centroids, b->nodes_count * b->dims * sizeof *b->centroids);
    if (out->failed) {
        return memos_fail(err, MEMOS_TOO_LARGE, "a tree of %zu nodes has no room in %zu bytes",
            b->nodes_count, out->size_max);
    }
    return MEMOS_OK;
}

static struct retrieval_tree_options with_defaults(const struct retrieval_tree_options *given)
{
    struct retrieval_tree_options o = *given;
    o.levels = o.levels > 0 ? o.levels : 4;
    o.branching = o.branching > 0 ? o.branching : 16;
    o.steps = o.steps > 0 ? o.steps : 20;
    o.step_examples = o.step_examples > 0 ? o.step_examples : 6400;
    o.examples_least = o.examples_least > 2 * o.branching ? o.examples_least : 2 * o.branching;
    o.share_max = o.share_max > 0.0 ? o.share_max : 1.5 / (double)o.branching;
    o.threads = retrieval_faiss_threads_default(o.threads);
    return o;
}

enum memos_status retrieval_tree_build(const struct retrieval_tree_options *options,
    const struct retrieval_tree_source *source, const uint8_t fingerprint[32],
    struct memos_buffer *out, struct memos_error *err)
{
    struct building b = {.options = with_defaults(options),
        .source = source,
        .dims = source->dims,
        .random = options->seed};

    if (b.dims < 1 || b.dims > RETRIEVAL_TREE_DIMS_MAX ||
        b.options.levels > RETRIEVAL_TREE_LEVELS_MAX || b.options.branching < 2 ||
        b.options.branching > RETRIEVAL_TREE_BRANCHING_MAX || b.options.share_max > 1.0 ||
        b.options.step_examples < b.options.branching) {
        return memos_fail(err, MEMOS_INVALID,
            "a tree of %zu levels of %zu, of vectors of %zu, %zu in a step", b.options.levels,
            b.options.branching, b.dims, b.options.step_examples);
    } else if (source->count >= UINT32_MAX) {
        return memos_fail(
            err, MEMOS_TOO_LARGE, "a tree of %llu vectors", (unsigned long long)source->count);
    }
    enum memos_status status = building_make(&b, err);
    if (status == MEMOS_OK) {
        unsigned before = retrieval_faiss_threads(b.options.threads);
        status = building_grow(&b, err);
        (void)retrieval_faiss_threads(before);
    }
    if (status == MEMOS_OK) {
        status = payload_write(&b, fingerprint, out, err);
    }
    building_free(&b);
    return status;
}
