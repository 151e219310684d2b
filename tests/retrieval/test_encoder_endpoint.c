/* Vectors from an endpoint, over a real socket, with all that can go wrong there.
 *
 * If these failed, a broker would hang on an endpoint that does not answer, hammer one that is
 * overloaded, believe nonsense, or give the key away. */
#include "proto/clock.h"
#include "retrieval/encoder.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { DIMS = 4 };

extern char **environ;

static char *const *arguments; /* python, the server's script */
static pid_t server;
static int server_in = -1;
static char port[8];

static int start_server(void **state)
{
    int in[2], out[2];
    posix_spawn_file_actions_t files;
    (void)state;
    if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0 ||
        posix_spawn_file_actions_init(&files) != 0 ||
        posix_spawn_file_actions_adddup2(&files, in[0], 0) != 0 ||
        posix_spawn_file_actions_adddup2(&files, out[1], 1) != 0 ||
        posix_spawn(&server, arguments[0], &files, NULL, arguments, environ) != 0) {
        return -1;
    }
    (void)posix_spawn_file_actions_destroy(&files);
    close(in[0]);
    close(out[1]);
    server_in = in[1];
    for (size_t size = 0; size < sizeof port - 1 && read(out[0], port + size, 1) == 1; size++) {
        if (port[size] == '\n') {
            port[size] = '\0';
            close(out[0]);
            return 0;
        }
    }
    return -1;
}

static int stop_server(void **state)
{
    int how = 0;
    (void)state;
    close(server_in);
    return waitpid(server, &how, 0) == server && how == 0 ? 0 : -1;
}

/* ---- asking --------------------------------------------------------------------------------- */

static struct retrieval_encoder_options options_of(const char *fault)
{
    static char url[96];
    snprintf(url, sizeof url, "http://127.0.0.1:%s/%s", port, fault);
    return (struct retrieval_encoder_options){.source = RETRIEVAL_ENCODER_ENDPOINT,
        .endpoint = {.url = url, .model = "a model", .dims = DIMS, .tries_max = 1}};
}

static struct retrieval_encoder *open_with(struct retrieval_encoder_options options)
{
    struct retrieval_encoder *encoder = NULL;
    struct memos_error err = {0};
    if (retrieval_encoder_open(&options, &encoder, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    return encoder;
}

static void expect_vector(const float *vector, double length, double first)
{
    double norm = sqrt(length * length + first * first + 5.0);
    assert_true(fabs((double)vector[0] - length / norm) < 1e-6);
    assert_true(fabs((double)vector[1] - first / norm) < 1e-6);
    assert_true(fabs((double)vector[3] - 2.0 / norm) < 1e-6);
}

static void expect_fault(
    struct retrieval_encoder_options options, enum memos_status wanted, const char *why)
{
    struct retrieval_encoder *encoder = open_with(options);
    struct memos_bytes texts[2] = {memos_bytes_of("secret text"), memos_bytes_of("b")};
    struct memos_error err = {0};
    float out[2 * DIMS];
    enum memos_status status =
        retrieval_encoder_encode(encoder, texts, 2, PARAMEM_PASSAGE, out, &err);
    if (status != wanted || !strstr(err.text, why)) {
        fail_msg("%s: status %d, '%s'; not %d, '%s'", options.endpoint.url, (int)status, err.text,
            (int)wanted, why);
    }
    assert_null(strstr(err.text, "secret"));
    assert_null(strstr(err.text, "sesame"));
    retrieval_encoder_close(&encoder);
}

/* ---- tests ---------------------------------------------------------------------------------- */

static void right_answers(void **state)
{
    struct retrieval_encoder_options options = options_of("strict");
    struct retrieval_encoder_info info;
    struct memos_bytes texts[8];
    float out[8 * DIMS];
    (void)state;

    options.endpoint.key = "open-sesame";
    options.endpoint.dims = 0;
    options.endpoint.batch_max = 3;
    struct retrieval_encoder *encoder = open_with(options);
    retrieval_encoder_describe(encoder, &info);
    assert_int_equal(info.dims, DIMS);
    assert_true(info.semantic);
    assert_non_null(strstr(info.name, "a model at http://127.0.0.1:"));
    assert_null(strstr(info.name, "sesame"));
    for (size_t i = 0; i < 8; i++) {
        texts[i] = memos_bytes_make("abcdefgh" + i, 8 - i);
    }
    texts[7].size = 0; /* sent as a blank */
    assert_int_equal(
        retrieval_encoder_encode(encoder, texts, 8, PARAMEM_PASSAGE, out, NULL), MEMOS_OK);
    for (size_t i = 0; i < 7; i++) {
        expect_vector(out + i * DIMS, (double)(8 - i), (double)('a' + i));
    }
    expect_vector(out + 7 * DIMS, 1.0, ' ');
    retrieval_encoder_close(&encoder);
}

static void wrong_answers(void **state)
{
    (void)state;
    expect_fault(options_of("count"), MEMOS_CORRUPT, "1 vectors for 2 texts");
    expect_fault(options_of("dims"), MEMOS_CORRUPT, "5 dimensions instead of 4");
    expect_fault(options_of("nan"), MEMOS_CORRUPT, "no JSON");
    expect_fault(options_of("truncated"), MEMOS_CORRUPT, "no JSON");
    expect_fault(options_of("huge"), MEMOS_CORRUPT, "more than 64 MiB");
    expect_fault(options_of("404"), MEMOS_CORRUPT, "HTTP status 404");
    expect_fault(options_of("302"), MEMOS_CORRUPT, "HTTP status 302");
    expect_fault(options_of("401"), MEMOS_DENIED, "HTTP status 401");
    expect_fault(options_of("500"), MEMOS_UNAVAILABLE, "HTTP status 500");
    struct retrieval_encoder_options options = options_of("echo");
    options.endpoint.key = "open-sesame";
    expect_fault(options, MEMOS_CORRUPT, "HTTP status 400");
}

static void no_answers(void **state)
{
    struct retrieval_encoder_options options = options_of("late");
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    char url[64];
    (void)state;

    options.endpoint.timeout_ms = 100;
    options.endpoint.tries_max = 2;
    expect_fault(options, MEMOS_UNAVAILABLE, "does not answer");
    expect_fault(options_of("close"), MEMOS_UNAVAILABLE, "does not answer");
    /* a port that is bound and does not listen refuses */
    int file = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(file, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(file, (struct sockaddr *)&address, &size), 0);
    snprintf(url, sizeof url, "http://127.0.0.1:%d/v1/embeddings", (int)ntohs(address.sin_port));
    options = options_of("");
    options.endpoint.url = url;
    expect_fault(options, MEMOS_UNAVAILABLE, "does not answer");
    /* open asks, when it has to know the dimensions */
    struct retrieval_encoder *encoder = NULL;
    options.endpoint.dims = 0;
    assert_int_equal(retrieval_encoder_open(&options, &encoder, NULL), MEMOS_UNAVAILABLE);
    assert_null(encoder);
    close(file);
}

static void it_tries_again(void **state)
{
    struct retrieval_encoder_options options = options_of("busy2");
    struct memos_bytes text = memos_bytes_of("text");
    float out[DIMS];
    (void)state;

    /* two tries are not enough, and there are no more of them: the next call's is answered */
    options.endpoint.tries_max = 2;
    expect_fault(options, MEMOS_UNAVAILABLE, "HTTP status 429");
    struct retrieval_encoder *encoder = open_with(options);
    assert_int_equal(
        retrieval_encoder_encode(encoder, &text, 1, PARAMEM_QUERY, out, NULL), MEMOS_OK);
    retrieval_encoder_close(&encoder);

    options = options_of("down2");
    options.endpoint.tries_max = 3;
    encoder = open_with(options);
    assert_int_equal(
        retrieval_encoder_encode(encoder, &text, 1, PARAMEM_QUERY, out, NULL), MEMOS_OK);
    expect_vector(out, 4.0, 't');
    retrieval_encoder_close(&encoder);

    struct memos_clock clock = memos_clock_system();
    options = options_of("wait");
    options.endpoint.tries_max = 2;
    encoder = open_with(options);
    int64_t began_us = clock.mono_us(NULL);
    assert_int_equal(
        retrieval_encoder_encode(encoder, &text, 1, PARAMEM_QUERY, out, NULL), MEMOS_OK);
    assert_true(clock.mono_us(NULL) - began_us >= 900000); /* as the endpoint asked for */
    retrieval_encoder_close(&encoder);
}

static void *encode_late(void *self)
{
    struct retrieval_encoder *encoder = self;
    struct memos_bytes text = memos_bytes_of("text");
    float out[DIMS];
    return retrieval_encoder_encode(encoder, &text, 1, PARAMEM_QUERY, out, NULL) == MEMOS_CANCELLED
               ? self
               : NULL;
}

/* The timeout is longer than meson's: only the interrupt can end it. */
static void it_can_be_interrupted(void **state)
{
    struct retrieval_encoder_options options = options_of("late");
    pthread_t thread;
    void *result = NULL;
    (void)state;

    options.endpoint.timeout_ms = 3600000;
    struct retrieval_encoder *encoder = open_with(options);
    assert_int_equal(pthread_create(&thread, NULL, encode_late, encoder), 0);
    retrieval_encoder_interrupt(encoder);
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_ptr_equal(result, encoder);
    retrieval_encoder_close(&encoder);
}

static void *raise_flag(void *flag)
{
    atomic_store((atomic_bool *)flag, true);
    return NULL;
}

/* A service that does not answer must not keep a broker from stopping while it is opened. */
static void opening_can_be_stopped(void **state)
{
    struct retrieval_encoder_options options = options_of("late");
    struct retrieval_encoder *encoder = NULL;
    struct memos_error err = {0};
    atomic_bool stop = false;
    pthread_t thread;
    (void)state;

    options.endpoint.dims = 0;
    options.endpoint.timeout_ms = 3600000;
    options.endpoint.stop = &stop;
    assert_int_equal(pthread_create(&thread, NULL, raise_flag, &stop), 0);
    assert_int_equal(retrieval_encoder_open(&options, &encoder, &err), MEMOS_CANCELLED);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_null(encoder);
}

static void expect_invalid(const char *url, const char *model, const char *key)
{
    struct retrieval_encoder_options options = options_of("good");
    struct retrieval_encoder *encoder = NULL;
    struct memos_error err = {0};
    options.endpoint.url = url;
    options.endpoint.model = model;
    options.endpoint.key = key;
    assert_int_equal(retrieval_encoder_open(&options, &encoder, &err), MEMOS_INVALID);
    assert_null(strstr(err.text, "sesame"));
}

static void what_cannot_be_an_endpoint(void **state)
{
    (void)state;
    expect_invalid("file:///etc/passwd", "m", NULL);
    expect_invalid("ftp://127.0.0.1/", "m", NULL);
    expect_invalid("http://", "m", NULL);
    expect_invalid("127.0.0.1 8080", "m", NULL);
    expect_invalid("http://user:sesame@127.0.0.1/", "m", NULL);
    expect_invalid("http://127.0.0.1/", "", NULL);
    expect_invalid("http://127.0.0.1/", "m", "sesame\r\nX-Other: 1");
}

static void fingerprint(const char *url, const char *model, size_t dims, uint8_t out[32])
{
    struct retrieval_encoder_options options = options_of("good");
    struct retrieval_encoder_info info;
    options.endpoint.url = url;
    options.endpoint.model = model;
    options.endpoint.dims = dims;
    struct retrieval_encoder *encoder = open_with(options);
    retrieval_encoder_describe(encoder, &info);
    memcpy(out, info.fingerprint, 32);
    retrieval_encoder_close(&encoder);
}

static void another_model_is_another_fingerprint(void **state)
{
    uint8_t one[32], same[32], other[32];
    (void)state;
    fingerprint("http://127.0.0.1/v1", "m", 4, one);
    fingerprint("http://127.0.0.1/v1", "m", 4, same);
    assert_memory_equal(one, same, 32);
    fingerprint("http://127.0.0.1/v1", "n", 4, other);
    assert_memory_not_equal(one, other, 32);
    fingerprint("http://127.0.0.1/v1", "m", 5, other);
    assert_memory_not_equal(one, other, 32);
    fingerprint("http://127.0.0.1/v1m", "m", 4, other);
    assert_memory_not_equal(one, other, 32);
}

int main(int argc, char *argv[])
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(right_answers),
        cmocka_unit_test(wrong_answers),
        cmocka_unit_test(no_answers),
        cmocka_unit_test(it_tries_again),
        cmocka_unit_test(it_can_be_interrupted),
        cmocka_unit_test(opening_can_be_stopped),
        cmocka_unit_test(what_cannot_be_an_endpoint),
        cmocka_unit_test(another_model_is_another_fingerprint),
    };
    if (argc != 3) {
        fprintf(stderr, "usage: %s PYTHON SERVER\n", argv[0]);
        return 2;
    }
    arguments = argv + 1;
    (void)setenv("no_proxy", "*", 1); /* whatever the environment says */
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
