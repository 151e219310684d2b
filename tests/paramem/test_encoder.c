/* From a folder to vectors, with two tiny encoders.
 *
 * If these failed, searches by meaning would compare wrong vectors, a damaged model would be used
 * as if it were whole, or vectors of different models would be taken for comparable. */
#include "paramem/encoder.h"

#include "tests/memcube/folder.h"
#include "tests/paramem/golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static struct paramem_encoder *open_as(
    const char *name, enum kern_dtype weights, const char *backend)
{
    char path[GOLDEN_PATH_BYTES];
    struct paramem_encoder *encoder = NULL;
    struct memos_error err;
    struct paramem_encoder_options options = {.path = golden_path(name, path),
        .weights = weights,
        .kern = {.backend = backend, .threads = 2}};
    if (paramem_encoder_open(&options, &encoder, &err) != MEMOS_OK) {
        fail_msg("%s: %s", path, err.text);
    }
    return encoder;
}

static void encode_one(struct paramem_encoder *encoder, const struct golden_text *text, float *out)
{
    assert_int_equal(paramem_encoder_encode(encoder, &text->text, 1,
                         text->query ? PARAMEM_QUERY : PARAMEM_PASSAGE, out, NULL),
        MEMOS_OK);
}

/* ---- right vectors ------------------------------------------------------------------------- */

/* Cosine, and in float32 each number too: one folder does not normalise. What is lost by bf16 (8
 * bits of significand) and i8 (steps of 1/127 of a row's largest) is derived in paramem/README.md.
 */
static void check_vectors(const char *name, enum kern_dtype weights, const char *backend,
    double cosine_min, double *worst)
{
    struct golden_texts texts = golden_texts_read(name);
    char folder[64];
    float out[64];
    (void)snprintf(folder, sizeof folder, "%.*s", (int)strcspn(name, "/"), name);
    struct paramem_encoder *encoder = open_as(folder, weights, backend);
    for (size_t i = 0; i < texts.count; i++) {
        const struct golden_text *text = &texts.texts[i];
        encode_one(encoder, text, out);
        double cosine = golden_cosine(out, text->vector, texts.dims);
        *worst = cosine < *worst ? cosine : *worst;
        if (!(cosine >= cosine_min)) {
            fail_msg("%s, %s, text %zu: cosine %.8f", name, kern_dtype_name(weights), i, cosine);
        }
        for (size_t d = 0; d < texts.dims && weights == KERN_F32; d++) {
            assert_true(fabs((double)out[d] - (double)text->vector[d]) < 1e-4);
        }
    }
    paramem_encoder_close(&encoder);
    golden_texts_free(&texts);
}

static void vectors_are_those_of_sentence_transformers(void **state)
{
    (void)state;
    static const char *const goldens[] = {"tiny_mean/golden.bin", "tiny_cls/golden.bin"};
    static const struct {
        enum kern_dtype weights;
        double cosine_min;
    } cases[] = {{KERN_F32, 0.99999}, {KERN_BF16, 0.999}, {KERN_I8, 0.99}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        double worst = 2.0;
        for (size_t g = 0; g < 2; g++) {
            check_vectors(goldens[g], cases[i].weights, NULL, cases[i].cosine_min, &worst);
            check_vectors(goldens[g], cases[i].weights, "ref", cases[i].cosine_min, &worst);
        }
        print_message("%s: worst cosine %.8f\n", kern_dtype_name(cases[i].weights), worst);
    }
}

static void tokens_are_those_of_the_library(void **state)
{
    (void)state;
    struct golden_texts texts = golden_texts_read("tiny_mean/golden.bin");
    struct paramem_encoder *encoder = open_as("tiny_mean", KERN_F32, NULL);
    for (size_t i = 0; i < texts.count; i++) {
        const struct golden_text *text = &texts.texts[i];
        uint32_t ids[64];
        size_t count = 0, counted = 0;
        assert_int_equal(
            paramem_encoder_tokenize(encoder, text->text, ids, 64, &count, NULL), MEMOS_OK);
        assert_int_equal(count, text->ids_count);
        assert_memory_equal(ids, text->ids, count * sizeof *ids);
        assert_int_equal(paramem_encoder_count(encoder, text->text, &counted, NULL), MEMOS_OK);
        assert_true(counted == count || (count == 40 && counted == 41));
    }
    paramem_encoder_close(&encoder);
    golden_texts_free(&texts);
}

/* Many batches, texts of all lengths, more than one call: each has the vector that it has alone. */
static void a_vector_does_not_depend_on_its_neighbours(void **state)
{
    (void)state;
    uint64_t random = golden_seed();
    enum { COUNT = 3000, DIMS = 32 };
    struct golden_texts texts = golden_texts_read("tiny_mean/golden.bin");
    struct memos_bytes *many = calloc(COUNT, sizeof *many);
    float *out = calloc(COUNT * DIMS, sizeof *out);
    size_t *which = calloc(COUNT, sizeof *which);
    struct paramem_encoder *encoder = open_as("tiny_mean", KERN_F32, NULL);
    assert_true(many && out && which);
    for (size_t i = 0; i < COUNT; i++) {
        which[i] = golden_random(&random) % texts.count;
        many[i] = texts.texts[which[i]].text;
    }
    assert_int_equal(
        paramem_encoder_encode(encoder, many, COUNT, PARAMEM_PASSAGE, out, NULL), MEMOS_OK);
    for (size_t i = 0; i < COUNT; i++) {
        assert_true(golden_cosine(out + i * DIMS, texts.texts[which[i]].vector, DIMS) > 0.99999);
    }
    assert_int_equal(
        paramem_encoder_encode(encoder, NULL, 0, PARAMEM_PASSAGE, out, NULL), MEMOS_OK);
    paramem_encoder_close(&encoder);
    free(many);
    free(out);
    free(which);
    golden_texts_free(&texts);
}

static void any_bytes_are_a_text(void **state)
{
    (void)state;
    uint64_t random = golden_seed();
    struct paramem_encoder *encoder = open_as("tiny_mean", KERN_F32, NULL);
    for (size_t i = 0; i < 300; i++) {
        uint8_t bytes[200];
        float out[32], length = 0.0f;
        size_t size = golden_random(&random) % sizeof bytes;
        for (size_t b = 0; b < size; b++) {
            bytes[b] = (uint8_t)golden_random(&random);
        }
        struct memos_bytes text = memos_bytes_make(bytes, size);
        assert_int_equal(
            paramem_encoder_encode(encoder, &text, 1, PARAMEM_PASSAGE, out, NULL), MEMOS_OK);
        for (size_t d = 0; d < 32; d++) {
            length += out[d] * out[d];
        }
        assert_true(fabsf(length - 1.0f) < 1e-4f);
    }
    paramem_encoder_close(&encoder);
}

/* ---- descriptions -------------------------------------------------------------------------- */

static void encoders_describe_themselves(void **state)
{
    (void)state;
    struct paramem_encoder_info info;
    struct paramem_encoder *encoder = open_as("tiny_cls", KERN_BF16, "ref");
    paramem_encoder_describe(encoder, &info);
    assert_string_equal(info.architecture, "BertModel");
    assert_string_equal(info.pooling, "cls");
    assert_non_null(strstr(info.kern, "ref"));
    assert_int_equal(info.weights, KERN_BF16);
    assert_int_equal(info.dims, 32);
    assert_int_equal(info.layers, 2);
    assert_int_equal(info.tokens_max, 64);
    assert_true(info.vocab > 300 && info.weight_bytes > 50000);
    assert_false(info.normalized);
    paramem_encoder_close(&encoder);
    paramem_encoder_close(&encoder);
}

static void fingerprint_of(const struct paramem_encoder_options *options, uint8_t out[32])
{
    struct paramem_encoder *encoder = NULL;
    struct paramem_encoder_info info;
    assert_int_equal(paramem_encoder_open(options, &encoder, NULL), MEMOS_OK);
    paramem_encoder_describe(encoder, &info);
    memcpy(out, info.fingerprint, 32);
    paramem_encoder_close(&encoder);
}

static void fingerprints_tell_models_apart(void **state)
{
    (void)state;
    char path[GOLDEN_PATH_BYTES], folder[FOLDER_PATH_BYTES];
    uint8_t first[32], other[32];
    golden_path("tiny_mean", path);
    struct paramem_encoder_options plain = {.path = path, .kern = {.threads = 1}};
    fingerprint_of(&plain, first);

    struct paramem_encoder_options same = plain; /* another precision, backend, folder */
    same.weights = KERN_I8;
    same.kern.backend = "ref";
    folder_make(folder);
    golden_copy("tiny_mean", folder);
    same.path = folder;
    fingerprint_of(&same, other);
    assert_memory_equal(first, other, 32);

    struct paramem_encoder_options changed = plain;
    changed.tokens_max = 20;
    fingerprint_of(&changed, other);
    assert_memory_not_equal(first, other, 32);
    changed = plain;
    changed.query_prefix = "q: ";
    fingerprint_of(&changed, other);
    assert_memory_not_equal(first, other, 32);
    changed = plain;
    changed.passage_prefix = "q: ";
    fingerprint_of(&changed, other);
    assert_memory_not_equal(first, other, 32);

    /* One bit of one weight. */
    struct memos_buffer weights = golden_read("tiny_mean/model.safetensors");
    uint64_t header;
    memcpy(&header, weights.data, 8);
    weights.data[8 + header + 100] ^= 1; /* the pooler, which is not used, lies at the end */
    golden_write(folder, "model.safetensors", memos_buffer_view(&weights));
    memos_buffer_free(&weights);
    changed = plain;
    changed.path = folder;
    fingerprint_of(&changed, other);
    assert_memory_not_equal(first, other, 32);
    folder_remove(folder);
}

static void options_are_checked(void **state)
{
    (void)state;
    char path[GOLDEN_PATH_BYTES], long_prefix[600];
    struct paramem_encoder *encoder = NULL;
    memset(long_prefix, 'x', sizeof long_prefix - 1);
    long_prefix[sizeof long_prefix - 1] = '\0';
    struct paramem_encoder_options options = {
        .path = golden_path("tiny_mean", path), .tokens_max = 65, .kern = {.threads = 1}};
    assert_int_equal(paramem_encoder_open(&options, &encoder, NULL), MEMOS_INVALID);
    options.tokens_max = 2;
    assert_int_equal(paramem_encoder_open(&options, &encoder, NULL), MEMOS_INVALID);
    options.tokens_max = 64;
    options.query_prefix = long_prefix;
    assert_int_equal(paramem_encoder_open(&options, &encoder, NULL), MEMOS_INVALID);
    options.query_prefix = "\xff";
    assert_int_equal(paramem_encoder_open(&options, &encoder, NULL), MEMOS_INVALID);
    options.query_prefix = NULL;
    options.weights = KERN_E4M3;
    assert_int_equal(paramem_encoder_open(&options, &encoder, NULL), MEMOS_UNSUPPORTED);
    assert_null(encoder);
}

/* ---- bad folders --------------------------------------------------------------------------- */

static enum memos_status open_folder(const char *folder, struct memos_error *err)
{
    struct paramem_encoder *encoder = NULL;
    struct paramem_encoder_options options = {
        .path = folder, .kern = {.backend = "ref", .threads = 1}};
    enum memos_status status = paramem_encoder_open(&options, &encoder, err);
    paramem_encoder_close(&encoder);
    return status;
}

static void expect(const char *folder, const char *file, enum memos_status wanted, const char *text)
{
    struct memos_error err = {.text = ""};
    enum memos_status status = open_folder(folder, &err);
    if (status != wanted || !strstr(err.text, text)) {
        fail_msg("%s: %s: %s", file, memos_status_name(status), err.text);
    }
}

static void a_missing_file_is_named(void **state)
{
    (void)state;
    static const char *const files[] = {
        "config.json", "vocab.txt", "model-00001-of-00002.safetensors", "1_Pooling/config.json"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char folder[FOLDER_PATH_BYTES], path[GOLDEN_PATH_BYTES];
        folder_make(folder);
        golden_copy("tiny_cls", folder);
        (void)snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        assert_int_equal(remove(path), 0);
        expect(folder, files[i], MEMOS_NOT_FOUND, files[i]);
        folder_remove(folder);
    }
}

/* Change what stands in a file of tiny_mean, and open the folder. */
static void replaced(
    const char *file, const char *from, const char *to, enum memos_status wanted, const char *text)
{
    char folder[FOLDER_PATH_BYTES], name[128];
    folder_make(folder);
    golden_copy("tiny_mean", folder);
    (void)snprintf(name, sizeof name, "tiny_mean/%s", file);
    struct memos_buffer bytes = golden_read(name), changed = memos_buffer_make((size_t)1 << 20);
    uint8_t *at = memmem(bytes.data, bytes.size, from, strlen(from));
    assert_non_null(at);
    size_t before = (size_t)(at - bytes.data);
    memos_buffer_bytes(&changed, bytes.data, before);
    memos_buffer_bytes(&changed, to, strlen(to));
    memos_buffer_bytes(&changed, at + strlen(from), bytes.size - before - strlen(from));
    golden_write(folder, file, memos_buffer_view(&changed));
    expect(folder, from, wanted, text);
    memos_buffer_free(&bytes);
    memos_buffer_free(&changed);
    folder_remove(folder);
}

static void weights_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    /* Replacements keep the header's length. */
    replaced("model.safetensors", "encoder.layer.1.output.dense.bias",
        "encoder.layer.9.output.dense.bias", MEMOS_CORRUPT,
        "encoder.layer.1.output.dense.bias is missing");
    replaced("model.safetensors", "\"shape\":[64,32]", "\"shape\":[32,64]", MEMOS_CORRUPT,
        "dimensions of 32, 64; the configuration says 64, 32");
    replaced("model.safetensors", "\"shape\":[32]", "\"shape\":[ 32]", MEMOS_CORRUPT, "");
    replaced("model.safetensors", "\"F32\"", "\"I32\"", MEMOS_UNSUPPORTED, "dtype I32");
    replaced("config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", MEMOS_CORRUPT,
        "encoder.layer.2");
    replaced(
        "config.json", "\"vocab_size\": ", "\"vocab_size\": 1", MEMOS_CORRUPT, "word_embeddings");
    replaced("config.json", "\"hidden_size\": 32", "\"hidden_size\": 64", MEMOS_CORRUPT, "");
    replaced("config.json", "\"num_attention_heads\": 4", "\"num_attention_heads\": 5",
        MEMOS_CORRUPT, "heads");
    replaced("tokenizer.json", "\"!\": 5", "\"!\": 3000", MEMOS_CORRUPT, "3000");
}

static void numbers_that_are_none_are_refused(void **state)
{
    (void)state;
    static const uint32_t bad[] = {0x7FC00000, 0x7F800000, 0xFF800000, 0x7F800001, 0xFFFFFFFF};
    uint64_t random = golden_seed();
    char folder[FOLDER_PATH_BYTES];
    folder_make(folder);
    golden_copy("tiny_mean", folder);
    struct memos_buffer weights = golden_read("tiny_mean/model.safetensors");
    uint64_t header;
    memcpy(&header, weights.data, 8);
    size_t start = 8 + (size_t)header, floats = (weights.size - start) / 4, refused = 0;
    for (size_t i = 0; i < 60; i++) {
        struct memos_error err = {.text = ""};
        uint8_t *at = weights.data + start + 4 * (golden_random(&random) % floats), old[4];
        memcpy(old, at, 4);
        memcpy(at, &bad[i % 5], 4);
        golden_write(folder, "model.safetensors", memos_buffer_view(&weights));
        enum memos_status status = open_folder(folder, &err);
        memcpy(at, old, 4);
        if (status == MEMOS_OK) {
            continue; /* in the pooler, which is not used */
        }
        assert_int_equal(status, MEMOS_CORRUPT);
        assert_non_null(strstr(err.text, "NaN"));
        refused++;
    }
    assert_true(refused > 45);
    memos_buffer_free(&weights);
    folder_remove(folder);
}

/* Cut after any part of the header, and at a few places of the data. */
static void cut_weights_are_refused(void **state)
{
    (void)state;
    char folder[FOLDER_PATH_BYTES];
    folder_make(folder);
    golden_copy("tiny_mean", folder);
    struct memos_buffer weights = golden_read("tiny_mean/model.safetensors");
    for (size_t size = 0; size < weights.size; size += size < 64 ? 1 : 1709) {
        golden_write(folder, "model.safetensors", memos_bytes_make(weights.data, size));
        assert_int_equal(open_folder(folder, NULL), MEMOS_CORRUPT);
    }
    memos_buffer_free(&weights);
    folder_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_are_those_of_sentence_transformers),
        cmocka_unit_test(tokens_are_those_of_the_library),
        cmocka_unit_test(a_vector_does_not_depend_on_its_neighbours),
        cmocka_unit_test(any_bytes_are_a_text),
        cmocka_unit_test(encoders_describe_themselves),
        cmocka_unit_test(fingerprints_tell_models_apart),
        cmocka_unit_test(options_are_checked),
        cmocka_unit_test(a_missing_file_is_named),
        cmocka_unit_test(weights_that_do_not_fit_are_refused),
        cmocka_unit_test(numbers_that_are_none_are_refused),
        cmocka_unit_test(cut_weights_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
