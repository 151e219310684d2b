/* What people write for an encoder.
 *
 * If these failed, a broker would start with another encoder than its configuration names, or would
 * not say what is missing and how to get it. */
#include "retrieval/encoder_spec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sys/stat.h>
#include <unistd.h>

static char registry[] = "/tmp/memos-spec-XXXXXX";

static int make_registry(void **state)
{
    (void)state;
    return mkdtemp(registry) ? 0 : -1;
}

static void path_of(const char *name, char out[PATH_MAX])
{
    snprintf(out, PATH_MAX, "%s/%s", registry, name);
}

static int drop_registry(void **state)
{
    char path[PATH_MAX];
    (void)state;
    path_of("e5", path);
    (void)rmdir(path);
    path_of("minilm", path);
    (void)rmdir(path);
    return rmdir(registry);
}

static struct retrieval_encoder_spec parse(const char *text, const char *weights)
{
    struct retrieval_encoder_spec spec;
    struct memos_error err = {0};
    if (retrieval_encoder_spec_parse(text, weights, registry, &spec, &err) != MEMOS_OK) {
        fail_msg("'%s': %s", text, err.text);
    }
    return spec;
}

static void expect_refused(
    const char *text, const char *weights, enum memos_status status, const char *why)
{
    struct retrieval_encoder_spec spec = {.source = 0};
    struct memos_error err = {0};
    assert_int_equal(retrieval_encoder_spec_parse(text, weights, registry, &spec, &err), status);
    assert_int_equal(spec.source, 0);
    if (!strstr(err.text, why)) {
        fail_msg("'%s' does not say '%s'", err.text, why);
    }
}

static void names_and_folders(void **state)
{
    char path[PATH_MAX];
    struct retrieval_encoder_options options;
    (void)state;

    expect_refused("minilm", NULL, MEMOS_NOT_FOUND, "memosctl encoder add minilm");
    expect_refused("e5", NULL, MEMOS_NOT_FOUND, "memosctl encoder add PATH");
    expect_refused("e5", NULL, MEMOS_NOT_FOUND, "'e5'");
    struct retrieval_encoder_spec spec = parse("auto", NULL);
    assert_int_equal(spec.source, RETRIEVAL_ENCODER_NGRAMS);
    assert_true(spec.fell_back);
    path_of("e5", path);
    assert_int_equal(mkdir(path, 0700), 0);
    spec = parse("e5", "bf16");
    assert_int_equal(spec.source, RETRIEVAL_ENCODER_FOLDER);
    retrieval_encoder_spec_options(&spec, &options);
    assert_string_equal(options.folder.path, path);
    assert_int_equal(options.folder.weights, KERN_BF16);
    assert_true(parse("auto", "").fell_back);
    spec = parse(path, "int8");
    assert_string_equal(spec.path, path);
    assert_int_equal(spec.weights, KERN_I8);
    path_of("minilm", path);
    assert_int_equal(mkdir(path, 0700), 0);
    spec = parse("auto", NULL);
    assert_int_equal(spec.source, RETRIEVAL_ENCODER_FOLDER);
    assert_int_equal(spec.weights, KERN_F32);
    assert_false(spec.fell_back);
    assert_string_equal(spec.path, path);
    spec = parse("ngrams", "f32");
    assert_int_equal(spec.source, RETRIEVAL_ENCODER_NGRAMS);
    assert_false(spec.fell_back);
}

static void endpoints(void **state)
{
    struct retrieval_encoder_options options;
    (void)state;
    struct retrieval_encoder_spec spec = parse("https://host:8443/v1/embeddings#intfloat/e5", NULL);
    assert_int_equal(spec.source, RETRIEVAL_ENCODER_ENDPOINT);
    retrieval_encoder_spec_options(&spec, &options);
    assert_string_equal(options.endpoint.url, "https://host:8443/v1/embeddings");
    assert_string_equal(options.endpoint.model, "intfloat/e5");
    assert_null(options.endpoint.key);
    expect_refused("https://host/v1/embeddings", NULL, MEMOS_INVALID, "'#'");
    expect_refused("https://host/v1/embeddings#", NULL, MEMOS_INVALID, "'#'");
    expect_refused("ftp://host/v1#m", NULL, MEMOS_INVALID, "http");
    expect_refused("file:///etc/passwd#m", NULL, MEMOS_INVALID, "http");
}

static void what_cannot_be(void **state)
{
    char path[PATH_MAX];
    (void)state;
    expect_refused("", NULL, MEMOS_INVALID, "name");
    expect_refused(".hidden", NULL, MEMOS_INVALID, "name");
    expect_refused("..", NULL, MEMOS_INVALID, "name");
    expect_refused("-x", NULL, MEMOS_INVALID, "name");
    expect_refused("a b", NULL, MEMOS_INVALID, "name");
    expect_refused("/nowhere/at/all", NULL, MEMOS_NOT_FOUND, "/nowhere/at/all");
    expect_refused("ngrams", "f64", MEMOS_INVALID, "not 'f64'");
    assert_false(retrieval_encoder_name_good("auto"));
    assert_false(retrieval_encoder_name_good("ngrams"));
    assert_false(retrieval_encoder_name_good("a/b"));
    assert_true(retrieval_encoder_name_good("all-MiniLM-L6-v2"));
    assert_int_equal(retrieval_encoder_name_path("/x", "../y", path, NULL), MEMOS_INVALID);
}

static void where_the_registry_is(void **state)
{
    char path[PATH_MAX];
    (void)state;
    assert_int_equal(setenv("XDG_DATA_HOME", "/data", 1), 0);
    assert_int_equal(retrieval_encoder_registry(path, NULL), MEMOS_OK);
    assert_string_equal(path, "/data/memos/encoders");
    assert_int_equal(setenv("XDG_DATA_HOME", "relative", 1), 0);
    assert_int_equal(setenv("HOME", "/home/nora", 1), 0);
    assert_int_equal(retrieval_encoder_registry(path, NULL), MEMOS_OK);
    assert_string_equal(path, "/home/nora/.local/share/memos/encoders");
    assert_int_equal(unsetenv("HOME"), 0);
    assert_int_equal(retrieval_encoder_registry(path, NULL), MEMOS_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_folders),
        cmocka_unit_test(endpoints),
        cmocka_unit_test(what_cannot_be),
        cmocka_unit_test(where_the_registry_is),
    };
    return cmocka_run_group_tests(tests, make_registry, drop_registry);
}
