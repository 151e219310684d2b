/* Where vectors come from.
 *
 * If these failed, vectors that were stored on one machine would mean nothing on another, a fresh
 * installation would find nothing by its vectors, or vectors of two models would be compared. */
#include "retrieval/encoder.h"
#include "tests/retrieval/fake_paramem.h"

#include <math.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { DIMS = 512 };

static struct retrieval_encoder *open_ngrams(void)
{
    struct retrieval_encoder_options options = {.source = RETRIEVAL_ENCODER_NGRAMS};
    struct retrieval_encoder *encoder = NULL;
    assert_int_equal(retrieval_encoder_open(&options, &encoder, NULL), MEMOS_OK);
    return encoder;
}

static void encode(struct retrieval_encoder *encoder, struct memos_bytes text, float out[DIMS])
{
    assert_int_equal(
        retrieval_encoder_encode(encoder, &text, 1, PARAMEM_PASSAGE, out, NULL), MEMOS_OK);
}

static double dot(const float *a, const float *b)
{
    double sum = 0.0;
    for (size_t i = 0; i < DIMS; i++) {
        sum += (double)a[i] * (double)b[i];
    }
    return sum;
}

static double likeness(struct retrieval_encoder *encoder, const char *a, const char *b)
{
    float left[DIMS], right[DIMS];
    encode(encoder, memos_bytes_of(a), left);
    encode(encoder, memos_bytes_of(b), right);
    return dot(left, right);
}

static void ngrams_know_words_and_their_parts(void **state)
{
    struct retrieval_encoder *encoder = open_ngrams();
    struct retrieval_encoder_info info;
    (void)state;

    retrieval_encoder_describe(encoder, &info);
    assert_int_equal(info.source, RETRIEVAL_ENCODER_NGRAMS);
    assert_int_equal(info.dims, DIMS);
    assert_false(info.semantic);
    assert_string_equal(info.name, "hashed n-grams");
    assert_true(likeness(encoder, "Lea gets married", "LEA GETS, MARRIED!") > 0.9999);
    assert_true(likeness(encoder, "caf\u00E9 au lait", "cafe au lait") > 0.9999);
    double married = likeness(encoder, "when does Lea marry?", "Lea is getting married in June");
    double other = likeness(encoder, "when does Lea marry?", "The car is at the garage in town");
    assert_true(married > 0.3 && other < 0.2);
    /* a slip of the keyboard, another form, another order */
    assert_true(likeness(encoder, "restaurant", "restuarant") > 0.25);
    assert_true(likeness(encoder, "photographer", "photography") > 0.4);
    assert_true(likeness(encoder, "dog bites man", "man bites dog") < 0.99);
    assert_true(likeness(encoder, "the of and to", "the of and to") > 0.9999);
    assert_true(likeness(encoder, "\u6771\u4EAC\u30BF\u30EF\u30FC", "\u6771\u4EAC\u99C5") > 0.2);
    retrieval_encoder_close(&encoder);
    assert_null(encoder);
    retrieval_encoder_close(&encoder);
}

static void any_bytes_have_a_vector(void **state)
{
    struct retrieval_encoder *encoder = open_ngrams();
    size_t size = 300000;
    char *text = malloc(size);
    float out[DIMS], again[DIMS];
    uint32_t seed = 1;
    (void)state;

    encode(encoder, memos_bytes_make("", 0), out);
    assert_true(dot(out, out) == 0.0);
    encode(encoder, memos_bytes_of(" .,;-!"), out);
    assert_true(dot(out, out) == 0.0);
    for (size_t i = 0; i < size; i++) {
        seed = seed * 1664525u + 1013904223u;
        text[i] = (char)(seed >> 24);
    }
    encode(encoder, memos_bytes_make(text, size), out);
    assert_true(fabs(dot(out, out) - 1.0) < 1e-5);
    /* of a long text the beginning counts, and nothing of it stays for the next */
    encode(encoder, memos_bytes_make(text, (size_t)64 << 10), again);
    assert_memory_equal(out, again, sizeof out);
    encode(encoder, memos_bytes_of("one"), out);
    retrieval_encoder_close(&encoder);
    encoder = open_ngrams();
    encode(encoder, memos_bytes_of("one"), again);
    assert_memory_equal(out, again, sizeof out);
    retrieval_encoder_close(&encoder);
    free(text);
}

/* The hash of some vectors, made once: whoever changes it changes the scheme's number, too. */
static void ngrams_are_the_same_everywhere(void **state)
{
    static const char *const texts[] = {"When does Lea get married?",
        "My sister Lea is getting married on 14 June in Porto. I still have no dress.",
        "Stra\u00DFe caf\u00E9 \u6771\u4EAC\u90FD \U0001F600 don't 3.14",
        "a a a a b b b the the the the"};
    struct retrieval_encoder *encoder = open_ngrams();
    struct retrieval_encoder_info info;
    crypto_generichash_state hash;
    uint8_t digest[16];
    char hex[65];
    float out[DIMS];
    (void)state;

    (void)crypto_generichash_init(&hash, NULL, 0, sizeof digest);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        encode(encoder, memos_bytes_of(texts[i]), out);
        (void)crypto_generichash_update(&hash, (const uint8_t *)out, sizeof out);
    }
    (void)crypto_generichash_final(&hash, digest, sizeof digest);
    assert_string_equal(
        sodium_bin2hex(hex, sizeof hex, digest, sizeof digest), "c5afc6665d31add9bedeb23c38d9b794");
    retrieval_encoder_describe(encoder, &info);
    assert_string_equal(sodium_bin2hex(hex, sizeof hex, info.fingerprint, 32),
        "644afc6888a2be5d6566e53d2615dc8f808e596d26c6770ba19576ad168d3530");
    retrieval_encoder_close(&encoder);
}

static void a_folder_is_described(void **state)
{
    struct retrieval_encoder *encoder = fake_encoder();
    struct retrieval_encoder_options options = {
        .source = RETRIEVAL_ENCODER_FOLDER, .folder.path = "/models/broken"};
    struct memos_bytes text = memos_bytes_of("text");
    struct retrieval_encoder_info info;
    struct memos_error err = {0};
    float out[FAKE_DIMS], wanted[FAKE_DIMS];
    (void)state;

    retrieval_encoder_describe(encoder, &info);
    assert_string_equal(info.name, "fake (f32, none)");
    assert_int_equal(info.dims, FAKE_DIMS);
    assert_int_equal(info.tokens_max, 256);
    assert_true(info.semantic && info.fingerprint[1] == 2);
    assert_int_equal(
        retrieval_encoder_encode(encoder, &text, 1, PARAMEM_QUERY, out, &err), MEMOS_OK);
    fake_vector(text, PARAMEM_QUERY, wanted);
    assert_memory_equal(out, wanted, sizeof out);
    text = memos_bytes_of("bad");
    assert_int_equal(
        retrieval_encoder_encode(encoder, &text, 1, PARAMEM_QUERY, out, &err), MEMOS_CORRUPT);
    retrieval_encoder_interrupt(encoder);
    text = memos_bytes_of("text");
    assert_int_equal(
        retrieval_encoder_encode(encoder, &text, 1, PARAMEM_QUERY, out, &err), MEMOS_CANCELLED);
    retrieval_encoder_close(&encoder);
    assert_int_equal(retrieval_encoder_open(&options, &encoder, &err), MEMOS_CORRUPT);
    assert_string_equal(err.text, "/models/broken is broken");
    fake_reset();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ngrams_know_words_and_their_parts),
        cmocka_unit_test(any_bytes_have_a_vector),
        cmocka_unit_test(ngrams_are_the_same_everywhere),
        cmocka_unit_test(a_folder_is_described),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
