/* all-MiniLM-L6-v2 itself, where it is installed: the ids and vectors of sentence-transformers.
 *
 * If these failed, the encoder that people use would be another one than it says. */
#include "paramem/encoder.h"

#include "tests/paramem/golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define DIMS 384

static char folder[GOLDEN_PATH_BYTES];

static struct paramem_encoder *open_as(enum kern_dtype weights)
{
    struct paramem_encoder *encoder = NULL;
    struct memos_error err;
    struct paramem_encoder_options options = {.path = folder, .weights = weights};
    if (paramem_encoder_open(&options, &encoder, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    return encoder;
}

/* Every step'th text; the first, hard ones all. */
static void check_vectors(enum kern_dtype weights, double cosine_min, size_t step)
{
    struct golden_texts texts = golden_texts_read("minilm.bin");
    struct paramem_encoder *encoder = open_as(weights);
    double worst = 2.0, sum = 0.0;
    size_t looked = 0;
    assert_int_equal(texts.dims, DIMS);
    assert_true(texts.count > 150);
    for (size_t i = 0; i < texts.count; i += i < 8 ? 1 : step) {
        float out[DIMS];
        assert_int_equal(
            paramem_encoder_encode(encoder, &texts.texts[i].text, 1, PARAMEM_PASSAGE, out, NULL),
            MEMOS_OK);
        double cosine = golden_cosine(out, texts.texts[i].vector, DIMS);
        worst = cosine < worst ? cosine : worst;
        sum += cosine;
        looked++;
        if (!(cosine >= cosine_min)) {
            fail_msg("%s, text %zu: cosine %.8f", kern_dtype_name(weights), i, cosine);
        }
    }
    print_message("%s: worst cosine %.8f, mean %.8f of %zu\n", kern_dtype_name(weights), worst,
        sum / (double)looked, looked);
    paramem_encoder_close(&encoder);
    golden_texts_free(&texts);
}

static void float32_is_exact(void **state)
{
    (void)state;
    check_vectors(KERN_F32, 0.99999, 1);
}

/* The bounds are derived in paramem/README.md. */
static void smaller_weights_stay_within_their_bounds(void **state)
{
    (void)state;
    check_vectors(KERN_BF16, 0.9999, 4);
    check_vectors(KERN_I8, 0.98, 4);
}

static void tokens_are_those_of_the_library(void **state)
{
    (void)state;
    struct golden_texts texts = golden_texts_read("minilm.bin");
    struct paramem_encoder *encoder = open_as(KERN_F32);
    for (size_t i = 0; i < texts.count; i++) {
        uint32_t ids[600];
        size_t count = 0;
        assert_int_equal(
            paramem_encoder_tokenize(encoder, texts.texts[i].text, ids, 600, &count, NULL),
            MEMOS_OK);
        assert_int_equal(count, texts.texts[i].ids_count);
        assert_memory_equal(ids, texts.texts[i].ids, count * sizeof *ids);
    }
    paramem_encoder_close(&encoder);
    golden_texts_free(&texts);
}

static void it_says_what_it_is(void **state)
{
    (void)state;
    struct paramem_encoder_info info;
    struct paramem_encoder *encoder = open_as(KERN_F32);
    paramem_encoder_describe(encoder, &info);
    assert_string_equal(info.pooling, "mean");
    assert_int_equal(info.dims, DIMS);
    assert_int_equal(info.layers, 6);
    assert_int_equal(info.tokens_max, 256);
    assert_int_equal(info.vocab, 30522);
    assert_true(info.normalized);
    paramem_encoder_close(&encoder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_says_what_it_is),
        cmocka_unit_test(tokens_are_those_of_the_library),
        cmocka_unit_test(float32_is_exact),
        cmocka_unit_test(smaller_weights_stay_within_their_bounds),
    };
    if (!golden_minilm(folder)) {
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
