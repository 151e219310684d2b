/* The cluster tree: what it learns, where it routes, and what it makes of foreign bytes.
 *
 * If these failed, a text would be sent to the wrong blocks of memory, the same text to different
 * ones on different days, or a payload from outside would be read past its end. */
#include "retrieval/tree.h"
#include "retrieval/tree_internal.h"
#include "tests/retrieval/planted.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define OK(call) assert_int_equal(call, MEMOS_OK)

#define DIMS 19 /* not a multiple of anything */

static const uint8_t fingerprint[32] = {9, 8, 7};

static uint64_t seed_of_run(void)
{
    const char *given = getenv("MEMOS_TEST_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 10) : 2510;
    print_message("MEMOS_TEST_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

/* A built and opened tree. */
struct grown {
    struct memos_buffer payload;
    struct retrieval_tree tree;
};

static void grow(struct grown *grown, const struct retrieval_tree_options *options,
    const struct retrieval_tree_source *source)
{
    struct memos_error err = {0};
    grown->payload = memos_buffer_make((size_t)64 << 20);
    if (retrieval_tree_build(options, source, fingerprint, &grown->payload, &err) != MEMOS_OK ||
        retrieval_tree_open(memos_buffer_view(&grown->payload), &grown->tree, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
}

static struct retrieval_tree_source source_of(struct planted *planted, uint64_t count)
{
    return (struct retrieval_tree_source){
        .dims = planted->dims, .count = count, .vectors = planted_vectors, .self = planted};
}

/* ---- what it learns ------------------------------------------------------------------------ */

/* Vectors around 16 far centres fall into 16 children, each one centre's. */
static void planted_clusters_are_recovered(void **state)
{
    (void)state;
    enum { COUNT = 2000, CENTRES = 16 };
    struct planted planted;
    struct grown grown;
    size_t owner[CENTRES], agree = 0;
    uint32_t path[RETRIEVAL_TREE_LEVELS_MAX];
    float vector[DIMS];

    planted_make(&planted, seed_of_run(), DIMS, CENTRES, 0.15f);
    struct retrieval_tree_source source = source_of(&planted, COUNT);
    struct retrieval_tree_options options = {.levels = 1, .seed = 5, .threads = 1};
    grow(&grown, &options, &source);
    struct retrieval_tree_node root = retrieval_tree_node(&grown.tree, 0);
    assert_true(root.children >= 12 && root.children <= 16);
    assert_int_equal(root.examples, COUNT);
    for (size_t i = 0; i < CENTRES; i++) {
        assert_int_equal(retrieval_tree_route(&grown.tree, planted.centres + i * DIMS, path), 1);
        owner[i] = path[0];
    }
    for (uint64_t i = 0; i < COUNT; i++) {
        planted_vectors(&planted, COUNT + i, 1, vector); /* it has not seen these */
        assert_int_equal(retrieval_tree_route(&grown.tree, vector, path), 1);
        agree += path[0] == owner[planted_centre(&planted, COUNT + i)];
    }
    print_message("%u children, %zu of %d with their centre\n", root.children, agree, COUNT);
    assert_true(agree > COUNT * 85 / 100); /* k-means may split one centre, and join two */
    memos_buffer_free(&grown.payload);
    planted_free(&planted);
}

static void balancing_holds_the_cap(void **state)
{
    (void)state;
    uint64_t random = seed_of_run();
    int64_t assigned[500], before[500];
    for (size_t round = 0; round < 300; round++) {
        size_t clusters = 2 + planted_random(&random) % 15;
        size_t count = 1 + planted_random(&random) % 500;
        size_t least = (count + clusters - 1) / clusters;
        size_t most = least + planted_random(&random) % (count - least + 1);
        size_t sizes[16], counted[16] = {0}, moved = 0, over = 0;
        uint64_t skew = 1 + planted_random(&random) % clusters;
        for (size_t i = 0; i < count; i++) {
            assigned[i] = (int64_t)(planted_random(&random) % skew);
            before[i] = assigned[i];
            counted[assigned[i]]++;
        }
        for (size_t i = 0; i < clusters; i++) {
            over += counted[i] > most;
            counted[i] = 0;
        }
        retrieval_tree_balance(assigned, count, clusters, most, sizes, &random);
        for (size_t i = 0; i < count; i++) {
            assert_true(assigned[i] >= 0 && (size_t)assigned[i] < clusters);
            counted[assigned[i]]++;
            moved += assigned[i] != before[i];
        }
        for (size_t i = 0; i < clusters; i++) {
            assert_int_equal(counted[i], sizes[i]);
            assert_true(sizes[i] <= most);
        }
        assert_true((moved > 0) == (over > 0));
    }
}

/* Nine of ten vectors in one tight cluster: the cap makes the tree look into it. */
static void lopsided(void *self, uint64_t first, size_t count, float *out)
{
    struct planted *planted = self;
    for (size_t i = 0; i < count; i++, out += planted->dims) {
        planted_vectors(planted, first + i, 1, out);
        for (size_t j = 0; (first + i) % 10 != 0 && j < planted->dims; j++) {
            out[j] = planted->centres[j] + 0.02f * out[j];
        }
    }
}

static uint64_t largest_child(const struct retrieval_tree *tree)
{
    struct retrieval_tree_node root = retrieval_tree_node(tree, 0);
    uint64_t largest = 0;
    for (uint32_t i = 0; i < root.children; i++) {
        uint64_t examples = retrieval_tree_node(tree, root.first_child + i).examples;
        largest = examples > largest ? examples : largest;
    }
    return largest;
}

static void large_clusters_are_divided(void **state)
{
    (void)state;
    struct planted planted;
    struct grown capped, plain;
    planted_make(&planted, seed_of_run(), DIMS, 200, 0.5f);
    struct retrieval_tree_source source = source_of(&planted, 3000);
    source.vectors = lopsided;
    struct retrieval_tree_options options = {.levels = 1, .threads = 1};
    grow(&capped, &options, &source);
    options.share_max = 1.0;
    grow(&plain, &options, &source);
    print_message("largest of 3000: %llu with the cap, %llu without\n",
        (unsigned long long)largest_child(&capped.tree),
        (unsigned long long)largest_child(&plain.tree));
    assert_true(largest_child(&plain.tree) > 3000 / 2);
    assert_true(largest_child(&capped.tree) < 3000 / 4);
    memos_buffer_free(&capped.payload);
    memos_buffer_free(&plain.payload);
    planted_free(&planted);
}

static void equal_seeds_give_equal_trees(void **state)
{
    (void)state;
    struct planted planted;
    struct grown a, b, other;
    planted_make(&planted, seed_of_run(), DIMS, 30, 0.8f);
    struct retrieval_tree_source source = source_of(&planted, 1500);
    /* fewer examples in a step than in the root, so that they are drawn */
    struct retrieval_tree_options options = {.levels = 3, .branching = 4, .step_examples = 400};
    grow(&a, &options, &source);
    grow(&b, &options, &source);
    options.seed = 1;
    grow(&other, &options, &source);
    assert_true(memos_bytes_equal(memos_buffer_view(&a.payload), memos_buffer_view(&b.payload)));
    assert_false(
        memos_bytes_equal(memos_buffer_view(&a.payload), memos_buffer_view(&other.payload)));
    memos_buffer_free(&a.payload);
    memos_buffer_free(&b.payload);
    memos_buffer_free(&other.payload);
    planted_free(&planted);
}

/* No vectors, one, two, and many that are all the same. */
static void little_makes_a_root(void **state)
{
    (void)state;
    struct planted planted;
    uint32_t path[RETRIEVAL_TREE_LEVELS_MAX], leaf;
    planted_make(&planted, seed_of_run(), DIMS, 1, 0.0f);
    for (uint64_t count = 0; count <= 200; count += count < 2 ? 1 : 198) {
        struct grown grown;
        struct retrieval_tree_source source = source_of(&planted, count);
        struct retrieval_tree_options options = {.threads = 1};
        grow(&grown, &options, &source);
        assert_int_equal(grown.tree.nodes_count, 1);
        assert_int_equal(retrieval_tree_node(&grown.tree, 0).examples, count);
        assert_int_equal(retrieval_tree_route(&grown.tree, planted.centres, path), 0);
        retrieval_tree_assign(&grown.tree, planted.centres, 1, &leaf);
        assert_int_equal(leaf, 0);
        memos_buffer_free(&grown.payload);
    }
    planted_free(&planted);
}

static bool stop(void *self, uint64_t done, uint64_t total)
{
    assert_true(done <= total);
    return ++*(int *)self < 3;
}

static void impossible_trees_are_refused(void **state)
{
    (void)state;
    struct planted planted;
    planted_make(&planted, seed_of_run(), DIMS, 30, 0.8f);
    struct retrieval_tree_source source = source_of(&planted, 500);
    static const struct retrieval_tree_options wrong[] = {{.levels = 9}, {.branching = 1},
        {.branching = 257}, {.share_max = 1.5}, {.step_examples = 3}};
    struct memos_buffer out = memos_buffer_make(1 << 20), small = memos_buffer_make(1000);
    struct retrieval_tree_options options = {.threads = 1};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(
            retrieval_tree_build(&wrong[i], &source, fingerprint, &out, NULL), MEMOS_INVALID);
    }
    assert_int_equal(
        retrieval_tree_build(&options, &source, fingerprint, &small, NULL), MEMOS_TOO_LARGE);
    int steps = 0;
    options.progress = stop;
    options.progress_self = &steps;
    assert_int_equal(
        retrieval_tree_build(&options, &source, fingerprint, &out, NULL), MEMOS_CANCELLED);
    assert_int_equal(steps, 3);
    assert_int_equal(out.size, 0);
    memos_buffer_free(&out);
    memos_buffer_free(&small);
    planted_free(&planted);
}

/* ---- where it routes ----------------------------------------------------------------------- */

struct forest {
    struct planted planted;
    struct retrieval_tree_source source;
    struct grown grown;
};

#define FOREST 4000

static int forest_setup(void **state)
{
    struct forest *f = calloc(1, sizeof *f);
    assert_non_null(f);
    planted_make(&f->planted, seed_of_run(), DIMS, 100, 0.6f);
    f->source = source_of(&f->planted, FOREST);
    struct retrieval_tree_options options = {.seed = 3, .threads = 1};
    grow(&f->grown, &options, &f->source);
    *state = f;
    return 0;
}

static int forest_teardown(void **state)
{
    struct forest *f = *state;
    memos_buffer_free(&f->grown.payload);
    planted_free(&f->planted);
    free(f);
    return 0;
}

static double distance_to(const struct retrieval_tree *tree, uint32_t node, const float *vector)
{
    float centroid[DIMS];
    double sum = 0.0;
    retrieval_tree_centroid(tree, node, centroid);
    for (size_t i = 0; i < DIMS; i++) {
        sum +=
            ((double)vector[i] - (double)centroid[i]) * ((double)vector[i] - (double)centroid[i]);
    }
    return sum;
}

/* At each level no sibling is nearer, children of the node before are all there is, and the counts
 * of nodes are those of routed examples. */
static void routes_are_greedy(void **state)
{
    struct forest *f = *state;
    const struct retrieval_tree *tree = &f->grown.tree;
    uint64_t *counts = calloc(tree->nodes_count, sizeof *counts);
    float vector[DIMS];
    size_t deepest = 0;
    assert_non_null(counts);
    assert_int_equal(tree->levels, 4);
    assert_int_equal(tree->branching, 16);
    assert_memory_equal(tree->fingerprint, fingerprint, 32);
    for (uint64_t i = 0; i < FOREST; i++) {
        uint32_t path[RETRIEVAL_TREE_LEVELS_MAX], leaf, at = 0;
        planted_vectors(&f->planted, i, 1, vector);
        size_t depth = retrieval_tree_route(tree, vector, path);
        deepest = depth > deepest ? depth : deepest;
        for (size_t level = 0; level < depth; level++) {
            struct retrieval_tree_node node = retrieval_tree_node(tree, at);
            assert_in_range(path[level], node.first_child, node.first_child + node.children - 1);
            double chosen = distance_to(tree, path[level], vector);
            for (uint32_t child = 0; child < node.children; child++) {
                assert_true(chosen <= distance_to(tree, node.first_child + child, vector) + 1e-5);
            }
            at = path[level];
            counts[at]++;
        }
        assert_int_equal(retrieval_tree_node(tree, at).children, 0);
        retrieval_tree_assign(tree, vector, 1, &leaf);
        assert_int_equal(leaf, at);
    }
    assert_true(deepest >= 2 && deepest <= 4);
    for (uint32_t node = 1; node < tree->nodes_count; node++) {
        assert_int_equal(counts[node], retrieval_tree_node(tree, node).examples);
    }
    free(counts);
}

static void examples_are_the_nearest(void **state)
{
    struct forest *f = *state;
    const struct retrieval_tree *tree = &f->grown.tree;
    enum { EACH = 3 };
    uint64_t *examples = calloc((size_t)tree->nodes_count * EACH, sizeof *examples);
    float vector[DIMS];
    assert_non_null(examples);
    OK(retrieval_tree_examples(tree, &f->source, EACH, examples, NULL));
    for (uint32_t node = 0; node < tree->nodes_count; node++) {
        uint64_t count = node == 0 ? 0 : retrieval_tree_node(tree, node).examples;
        double before = 0.0;
        for (size_t i = 0; i < EACH; i++) {
            uint64_t example = examples[(size_t)node * EACH + i];
            assert_true((example != UINT64_MAX) == (i < count));
            if (i < count) {
                uint32_t path[RETRIEVAL_TREE_LEVELS_MAX];
                bool through = false;
                planted_vectors(&f->planted, example, 1, vector);
                double far = distance_to(tree, node, vector);
                assert_true(far >= before - 1e-5);
                before = far;
                size_t depth = retrieval_tree_route(tree, vector, path);
                for (size_t level = 0; level < depth; level++) {
                    through = through || path[level] == node;
                }
                assert_true(through);
            }
        }
    }
    free(examples);
}

/* ---- foreign bytes ------------------------------------------------------------------------- */

/* Every beginning, every changed byte of header and nodes, and more than there is: refused, or
 * still a tree that can be routed in. */
static void foreign_payloads_are_checked(void **state)
{
    struct forest *f = *state;
    struct memos_bytes whole = memos_buffer_view(&f->grown.payload);
    size_t head = 64 + 16 * (size_t)f->grown.tree.nodes_count, refused = 0;
    struct retrieval_tree tree;
    uint8_t *bytes = malloc(whole.size + 1);
    assert_non_null(bytes);
    for (size_t cut = 0; cut < whole.size; cut += cut < head ? 1 : 97) {
        /* a block of just that size, so that a sanitizer sees a read past it */
        uint8_t *begin = malloc(cut + 1);
        assert_non_null(begin);
        memcpy(begin + 1, whole.data, cut); /* at an odd address */
        assert_int_equal(
            retrieval_tree_open(memos_bytes_make(begin + 1, cut), &tree, NULL), MEMOS_CORRUPT);
        free(begin);
    }
    memcpy(bytes, whole.data, whole.size);
    for (size_t at = 0; at < head; at++) {
        uint32_t path[RETRIEVAL_TREE_LEVELS_MAX];
        bytes[at] ^= 0x11;
        struct memos_bytes view = memos_bytes_make(bytes, whole.size);
        if (retrieval_tree_open(view, &tree, NULL) == MEMOS_OK) {
            /* a fingerprint, or more levels and branches than are there */
            assert_true((at >= 32 && at < 64) || (at >= 16 && at < 24));
            assert_true(retrieval_tree_route(&tree, f->planted.centres, path) <= 4);
        } else {
            refused++;
        }
        bytes[at] ^= 0x11;
    }
    assert_true(refused >= head - 40);
    bytes[whole.size] = 0;
    assert_int_equal(
        retrieval_tree_open(memos_bytes_make(bytes, whole.size + 1), &tree, NULL), MEMOS_CORRUPT);
    bytes[8] = 2;
    assert_int_equal(
        retrieval_tree_open(memos_bytes_make(bytes, whole.size), &tree, NULL), MEMOS_UNSUPPORTED);
    bytes[8] = 1;
    float nothing = NAN;
    memcpy(bytes + whole.size - sizeof nothing, &nothing, sizeof nothing);
    assert_int_equal(
        retrieval_tree_open(memos_bytes_make(bytes, whole.size), &tree, NULL), MEMOS_CORRUPT);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(planted_clusters_are_recovered),
        cmocka_unit_test(balancing_holds_the_cap),
        cmocka_unit_test(large_clusters_are_divided),
        cmocka_unit_test(equal_seeds_give_equal_trees),
        cmocka_unit_test(little_makes_a_root),
        cmocka_unit_test(impossible_trees_are_refused),
        cmocka_unit_test_setup_teardown(routes_are_greedy, forest_setup, forest_teardown),
        cmocka_unit_test_setup_teardown(examples_are_the_nearest, forest_setup, forest_teardown),
        cmocka_unit_test_setup_teardown(
            foreign_payloads_are_checked, forest_setup, forest_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
