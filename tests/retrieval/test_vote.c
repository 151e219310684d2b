/* Votes of near examples. If these failed, a correction would not correct: a text would keep its
 * wrong label although an example of the right one lies next to it. */
#include "retrieval/vote.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { VOICES_MAX = 64, LABELS_MAX = 8 };

static const struct retrieval_vote_options vote = {
    .method = RETRIEVAL_METHOD_VOTE, .margin = RETRIEVAL_VOTE_MARGIN};
static const struct retrieval_vote_options weighted = {.method = RETRIEVAL_METHOD_WEIGHTED};
static const struct retrieval_vote_options interpolation = {
    .method = RETRIEVAL_METHOD_INTERPOLATION, .temperature = RETRIEVAL_VOTE_TEMPERATURE};

/* Voices of examples 0, 1, 2 ... */
#define V(label, cosine, time)                                                                     \
    (struct retrieval_voice)                                                                       \
    {                                                                                              \
        0, label, cosine, time                                                                     \
    }

struct result {
    struct retrieval_share shares[VOICES_MAX];
    size_t count, examples;
};

static struct result count_voices(
    const struct retrieval_vote_options *options, struct retrieval_voice *voices, size_t count)
{
    struct result result = {.examples = 99};
    assert_true(count <= VOICES_MAX);
    for (size_t i = 0; i < count; i++) {
        voices[i].example = (uint32_t)i;
    }
    result.count = retrieval_vote(options, voices, count, result.shares, &result.examples);
    return result;
}

#define COUNT(options, ...)                                                                        \
    count_voices(options, (struct retrieval_voice[]){__VA_ARGS__},                                 \
        sizeof((struct retrieval_voice[]){__VA_ARGS__}) / sizeof(struct retrieval_voice))

static void test_nobody_votes(void **state)
{
    (void)state;
    struct retrieval_share out[1];
    size_t examples = 99;
    assert_int_equal(retrieval_vote(&vote, NULL, 0, out, &examples), 0);
    assert_int_equal(examples, 0);
    assert_int_equal(retrieval_vote(&interpolation, NULL, 0, out, &examples), 0);
    assert_int_equal(examples, 0);
    assert_int_equal(retrieval_vote(&weighted, NULL, 0, out, &examples), 0);
    assert_int_equal(examples, 0);
}

static void test_most_voices_within_the_margin_win(void **state)
{
    (void)state;
    struct result r = COUNT(&vote, V(7, 0.90f, 1), V(3, 0.88f, 1), V(3, 0.86f, 1));
    assert_int_equal(r.count, 2);
    assert_int_equal(r.examples, 3);
    assert_int_equal(r.shares[0].label, 3);
    assert_float_equal(r.shares[0].weight, 2.0 / 3, 1e-6);
    assert_float_equal(r.shares[1].weight, 1.0 / 3, 1e-6);
    assert_float_equal(r.shares[0].cosine, 0.88, 1e-6);

    /* one near correction among many far examples of the old label */
    r = COUNT(&vote, V(7, 0.90f, 1), V(3, 0.84f, 1), V(3, 0.83f, 1), V(3, 0.82f, 1));
    assert_int_equal(r.count, 1);
    assert_int_equal(r.examples, 1);
    assert_int_equal(r.shares[0].label, 7);
    assert_float_equal(r.shares[0].weight, 1.0, 0);
}

static void test_ties_go_to_the_nearest_then_to_the_newest(void **state)
{
    (void)state;
    struct result r = COUNT(
        &vote, V(1, 0.90f, 5), V(2, 0.89f, 9), V(2, 0.88f, 9), V(1, 0.87f, 5), V(3, 0.86f, 9));
    assert_int_equal(r.shares[0].label, 1);
    assert_int_equal(r.shares[1].label, 2);
    r = COUNT(&vote, V(1, 0.90f, 5), V(2, 0.90f, 6));
    assert_int_equal(r.shares[0].label, 2); /* said again, and corrected */
    r = COUNT(&vote, V(2, 0.90f, 5), V(1, 0.90f, 5));
    assert_int_equal(r.shares[0].label, 1); /* always the same one */
    r = COUNT(&vote, V(1, 0.90f, 3), V(2, 0.90f, 5), V(1, 0.88f, 7), V(2, 0.88f, 1));
    assert_int_equal(r.shares[0].label, 1); /* its newest counts, not its nearest's time */
}

static void test_an_example_with_two_labels_is_one_example(void **state)
{
    (void)state;
    const struct retrieval_voice voices[] = {
        {0, 1, 0.90f, 1}, {0, 2, 0.90f, 1}, {1, 2, 0.89f, 1}, {2, 3, 0.50f, 1}};
    struct retrieval_share out[4];
    size_t examples;
    assert_int_equal(retrieval_vote(&vote, voices, 4, out, &examples), 2);
    assert_int_equal(examples, 2);
    assert_int_equal(out[0].label, 2);
    assert_float_equal(out[0].weight, 2.0 / 3, 1e-6);
}

static void test_nearness_weighs_and_two_of_a_label_are_heard(void **state)
{
    (void)state;
    /* weights 0.5, 0.4, 0.35, 0.3, 0: two taught just now beat four of an old label */
    struct result r = COUNT(&weighted, V(1, 0.9f, 1), V(2, 0.8f, 1), V(1, 0.75f, 1), V(2, 0.7f, 1),
        V(2, 0.65f, 1), V(2, 0.62f, 1), V(2, 0.4f, 1));
    assert_int_equal(r.count, 2);
    assert_int_equal(r.examples, 4);
    assert_int_equal(r.shares[0].label, 1);
    assert_float_equal(r.shares[0].weight, 0.85 / 1.55, 1e-5);
    assert_float_equal(r.shares[1].weight, 0.7 / 1.55, 1e-5);
    assert_int_equal(r.shares[1].voices, RETRIEVAL_VOICES_OF_LABEL);

    /* all as near: all alike, so the newest wins; one alone wins, too */
    r = COUNT(&weighted, V(1, 0.5f, 1), V(2, 0.5f, 3), V(3, 0.5f, 2));
    assert_int_equal(r.count, 3);
    assert_int_equal(r.shares[0].label, 2);
    assert_float_equal(r.shares[0].weight, 1.0 / 3, 1e-6);
    r = COUNT(&weighted, V(9, -0.5f, 1));
    assert_int_equal(r.count, 1);
    assert_float_equal(r.shares[0].weight, 1.0, 0);
}

static void test_the_usual_number_of_examples(void **state)
{
    (void)state;
    assert_int_equal(retrieval_vote_top_k(RETRIEVAL_METHOD_WEIGHTED), 20);
    assert_int_equal(retrieval_vote_top_k(RETRIEVAL_METHOD_VOTE), 5);
    assert_int_equal(retrieval_vote_top_k(RETRIEVAL_METHOD_INTERPOLATION), 10);
}

static void test_interpolation_weighs_by_distance(void **state)
{
    (void)state;
    /* d = 2 - 2 cosine: 0.2, 0.4 and 0.4 at temperature 0.1 */
    struct result r = COUNT(&interpolation, V(1, 0.9f, 1), V(2, 0.8f, 1), V(2, 0.8f, 1));
    double one = exp(-2.0), two = 2 * exp(-4.0);
    assert_int_equal(r.count, 2);
    assert_int_equal(r.examples, 3);
    assert_int_equal(r.shares[0].label, 1);
    assert_float_equal(r.shares[0].weight, one / (one + two), 1e-5);
    assert_float_equal(r.shares[1].weight, two / (one + two), 1e-5);

    /* hot, the many win; ice cold, the nearest alone */
    struct retrieval_vote_options options = interpolation;
    options.temperature = 10.0f;
    r = COUNT(&options, V(1, 0.9f, 1), V(2, 0.8f, 1), V(2, 0.8f, 1));
    assert_int_equal(r.shares[0].label, 2);
    options.temperature = 1e-30f;
    r = COUNT(&options, V(1, -0.9f, 1), V(2, -0.91f, 1), V(2, -0.92f, 1));
    assert_int_equal(r.count, 1);
    assert_int_equal(r.shares[0].label, 1);
    assert_float_equal(r.shares[0].weight, 1.0, 0);
}

static int nearest_first(const void *a, const void *b)
{
    float x = ((const struct retrieval_voice *)a)->cosine;
    float y = ((const struct retrieval_voice *)b)->cosine;
    return x > y ? -1 : x < y;
}

static double weight_by_hand(const struct retrieval_vote_options *options,
    const struct retrieval_voice *voices, size_t count, size_t i)
{
    float last = voices[count - 1].cosine;
    if (options == &weighted) {
        return last == voices[0].cosine ? 1.0 : (double)voices[i].cosine - (double)last;
    }
    if (options == &vote) {
        return voices[i].cosine >= voices[0].cosine - options->margin ? 1.0 : 0.0;
    }
    return exp(-(2.0 - 2.0 * (double)voices[i].cosine) / 0.1);
}

/* Weights sum to 1 and fall; every label is there once; a count by hand gives the same. */
static void test_random_votes(void **state)
{
    (void)state;
    const char *given = getenv("MEMOS_TEST_SEED");
    unsigned short random[3] = {(unsigned short)(given ? strtoul(given, NULL, 10) : 1), 2, 3};
    printf("MEMOS_TEST_SEED=%u\n", random[0]);
    for (int round = 0; round < 2000; round++) {
        struct retrieval_voice voices[VOICES_MAX];
        double wanted[LABELS_MAX] = {0}, total = 0, sum = 0;
        size_t count = 1 + (size_t)(erand48(random) * (VOICES_MAX - 1));
        const struct retrieval_vote_options *options =
            (const struct retrieval_vote_options *[]){&vote, &interpolation, &weighted}[round % 3];
        size_t heard[LABELS_MAX] = {0}, farthest = 0;
        for (size_t i = 0; i < count; i++) {
            voices[i] = V((uint32_t)(erand48(random) * LABELS_MAX),
                (float)(0.8 + floor(erand48(random) * 20) / 100), nrand48(random) % 5);
        }
        qsort(voices, count, sizeof *voices, nearest_first);
        struct result r = count_voices(options, voices, count);
        for (size_t i = 0; i < count; i++) {
            double weight = weight_by_hand(options, voices, count, i);
            heard[voices[i].label] += weight > 0;
            if (options != &weighted || heard[voices[i].label] <= RETRIEVAL_VOICES_OF_LABEL) {
                wanted[voices[i].label] += weight;
                total += weight;
                farthest = weight > 0 ? i + 1 : farthest;
            }
        }
        for (size_t i = 0; i < r.count; i++) {
            assert_float_equal(r.shares[i].weight, wanted[r.shares[i].label] / total, 1e-5);
            assert_true(i == 0 || r.shares[i].weight <= r.shares[i - 1].weight);
            wanted[r.shares[i].label] = 0;
            sum += (double)r.shares[i].weight;
        }
        assert_float_equal(sum, 1.0, 1e-5);
        assert_int_equal(r.examples, farthest);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_votes),
        cmocka_unit_test(test_most_voices_within_the_margin_win),
        cmocka_unit_test(test_ties_go_to_the_nearest_then_to_the_newest),
        cmocka_unit_test(test_an_example_with_two_labels_is_one_example),
        cmocka_unit_test(test_nearness_weighs_and_two_of_a_label_are_heard),
        cmocka_unit_test(test_the_usual_number_of_examples),
        cmocka_unit_test(test_interpolation_weighs_by_distance),
        cmocka_unit_test(test_random_votes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
