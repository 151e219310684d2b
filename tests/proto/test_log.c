/* If this failed, a client could write lines into the log that nobody wrote, or what happened
 * would not be found in it. */
#include "proto/log.h"
#include "tests/proto/temp.h"

#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static int64_t the_time = 1767225600123456;

static void open_log(enum memos_log_format format, const char *path)
{
    static struct memos_clock clock;
    struct memos_error err = { 0 };
    clock = memos_clock_fixed(&the_time);
    struct memos_log_options options = { MEMOS_LOG_INFO, format, path, &clock };
    assert_int_equal(memos_log_open(&options, &err), MEMOS_OK);
}

/* The whole file, static. */
static char *read_log(const char *path)
{
    static char text[1 << 20];
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    assert_int_equal(fclose(file), 0);
    return text;
}

static void text_is_one_line_an_event(void **state)
{
    (void)state;
    char path[300];
    struct memos_id id = { { 0x01, 0x92 } };
    struct memos_error failure = { 0 };
    (void)memos_fail(&failure, MEMOS_IO, "disk \"sda\" is gone");
    open_log(MEMOS_LOG_TEXT, temp_path("text.log", path, sizeof path));
    memos_log(MEMOS_LOG_INFO, memos_log_event("started"));
    memos_log(MEMOS_LOG_WARNING, memos_log_event("request refused"), memos_log_text("type", "put"),
        memos_log_int("left", -3), memos_log_uint("bytes", UINT64_MAX),
        memos_log_real("seconds", 0.25), memos_log_real("rate", NAN), memos_log_bool("again", true),
        memos_log_id("id", &id), memos_log_text("empty", ""), memos_log_text("name", "a b"));
    memos_log(MEMOS_LOG_ERROR, memos_log_event("commit"), memos_log_error(&failure));
    memos_log(MEMOS_LOG_DEBUG, memos_log_event("unseen"));
    assert_string_equal(read_log(path),
        "2026-01-01T00:00:00.123456Z INFO started\n"
        "2026-01-01T00:00:00.123456Z WARNING request refused type=put left=-3 "
        "bytes=18446744073709551615 seconds=0.25 rate=null again=true "
        "id=01920000-0000-0000-0000-000000000000 empty=\"\" name=\"a b\"\n"
        "2026-01-01T00:00:00.123456Z ERROR commit status=IO error=\"disk \\\"sda\\\" is gone\"\n");
}

static const char hostile[] =
    "x\n2026-01-01T00:00:00Z INFO forged\r\t\"=\\\x1b[31m\x7f\x80\xff na\xc3\xafve";

static void no_value_breaks_a_text_line(void **state)
{
    (void)state;
    char path[300];
    open_log(MEMOS_LOG_TEXT, temp_path("hostile.log", path, sizeof path));
    memos_log(MEMOS_LOG_INFO, memos_log_event("e"), memos_log_text("v", hostile),
        memos_log_bytes("nul", memos_bytes_make("a\0b", 3)));
    assert_string_equal(read_log(path),
        "2026-01-01T00:00:00.123456Z INFO e v=\"x\\n2026-01-01T00:00:00Z INFO forged\\r\\t\\\"=\\\\"
        "\\x1b[31m\\x7f\\x80\\xff na\xc3\xafve\" nul=\"a\\x00b\"\n");
}

static void json_lines_are_json(void **state)
{
    (void)state;
    char path[300];
    open_log(MEMOS_LOG_JSON, temp_path("json.log", path, sizeof path));
    memos_log(MEMOS_LOG_INFO, memos_log_event("e \"q\""), memos_log_text("v", hostile),
        memos_log_int("n", INT64_MIN), memos_log_real("inf", INFINITY),
        memos_log_bool("no", false));
    char *text = read_log(path);
    assert_int_equal(strchr(text, '\n') - text, strlen(text) - 1);
    json_error_t why;
    json_t *line = json_loads(text, 0, &why);
    if (!line) {
        fail_msg("%s: %s", why.text, text);
    }
    assert_string_equal(json_string_value(json_object_get(line, "ts")),
        "2026-01-01T00:00:00.123456Z");
    assert_string_equal(json_string_value(json_object_get(line, "level")), "info");
    assert_string_equal(json_string_value(json_object_get(line, "event")), "e \"q\"");
    assert_string_equal(json_string_value(json_object_get(line, "v")),
        "x\n2026-01-01T00:00:00Z INFO forged\r\t\"=\\\x1b[31m\x7f\xef\xbf\xbd\xef\xbf\xbd "
        "na\xc3\xafve");
    assert_true(json_integer_value(json_object_get(line, "n")) == INT64_MIN);
    assert_true(json_is_null(json_object_get(line, "inf")));
    assert_true(json_is_false(json_object_get(line, "no")));
    json_decref(line);
}

static void long_lines_are_cut_and_say_so(void **state)
{
    (void)state;
    static char large[MEMOS_LOG_LINE_BYTES];
    char path[300];
    memset(large, '"', sizeof large - 1);
    for (int format = MEMOS_LOG_TEXT; format <= MEMOS_LOG_JSON; format++) {
        open_log((enum memos_log_format)format,
            temp_path(format ? "cut.json" : "cut.log", path, sizeof path));
        for (int size = 0; size < 200; size++) { /* the last field ends around the line's end */
            struct memos_bytes most = { large, (size_t)(1900 + size) };
            memos_log(MEMOS_LOG_INFO, memos_log_event("e"), memos_log_bytes("most", most),
                memos_log_text("large", large), memos_log_int("last", 1));
        }
        char *text = read_log(path), *rest = NULL;
        int lines = 0;
        for (char *at = strtok_r(text, "\n", &rest); at; at = strtok_r(NULL, "\n", &rest)) {
            lines++;
            assert_true(strlen(at) + 1 <= MEMOS_LOG_LINE_BYTES);
            assert_null(strstr(at, "large"));
            assert_non_null(strstr(at, format ? "\"cut\":true" : "cut=true"));
            if (format == MEMOS_LOG_JSON) {
                json_t *line = json_loads(at, 0, NULL);
                assert_non_null(line);
                json_decref(line);
            }
        }
        assert_int_equal(lines, 200);
    }
}

enum { THREADS = 4, LINES = 500 };

static void *write_many(void *number)
{
    for (int i = 0; i < LINES; i++) {
        memos_log(MEMOS_LOG_INFO, memos_log_event("turn"),
            memos_log_int("thread", *(const int *)number), memos_log_int("line", i),
            memos_log_text("text", "some words, so that a line is long enough to be torn"));
    }
    return NULL;
}

/* Also while the log is opened again, as after a rotation: nothing is lost or torn. */
static void threads_do_not_mix_lines(void **state)
{
    (void)state;
    char path[300], old[300];
    pthread_t threads[THREADS];
    int numbers[THREADS], next[THREADS] = { 0 }, lines = 0;
    temp_path("threads.log", path, sizeof path);
    temp_path("threads.old", old, sizeof old);
    open_log(MEMOS_LOG_JSON, path);
    for (int i = 0; i < THREADS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, write_many, &numbers[i]), 0);
    }
    assert_int_equal(rename(path, old), 0);
    open_log(MEMOS_LOG_JSON, path);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    for (int file = 0; file < 2; file++) {
        char *rest = NULL, *text = read_log(file ? path : old);
        for (char *at = strtok_r(text, "\n", &rest); at; at = strtok_r(NULL, "\n", &rest)) {
            json_t *line = json_loads(at, 0, NULL);
            assert_non_null(line);
            json_int_t thread = json_integer_value(json_object_get(line, "thread"));
            assert_int_equal(json_integer_value(json_object_get(line, "line")), next[thread]++);
            json_decref(line);
            lines++;
        }
    }
    assert_int_equal(lines, THREADS * LINES);
}

static void names_are_read(void **state)
{
    (void)state;
    struct memos_error err = { 0 };
    enum memos_log_level level;
    enum memos_log_format format;
    for (int i = MEMOS_LOG_DEBUG; i <= MEMOS_LOG_ERROR; i++) {
        const char *name = memos_log_level_name((enum memos_log_level)i);
        assert_int_equal(memos_log_level_parse(memos_bytes_of(name), &level, &err), MEMOS_OK);
        assert_int_equal(level, i);
    }
    assert_int_equal(memos_log_format_parse(memos_bytes_of("json"), &format, &err), MEMOS_OK);
    assert_int_equal(format, MEMOS_LOG_JSON);
    static const char *const wrong[] = { "", "INFO", "infos", "inf", "trace" };
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(
            memos_log_level_parse(memos_bytes_of(wrong[i]), &level, &err), MEMOS_INVALID);
        assert_int_equal(
            memos_log_format_parse(memos_bytes_of(wrong[i]), &format, &err), MEMOS_INVALID);
    }
}

static void a_failed_open_changes_nothing(void **state)
{
    (void)state;
    char path[300], none[300];
    struct memos_error err = { 0 };
    open_log(MEMOS_LOG_TEXT, temp_path("kept.log", path, sizeof path));
    struct memos_log_options options = { .level = MEMOS_LOG_ERROR,
        .path = temp_path("no-folder/x.log", none, sizeof none) };
    assert_int_equal(memos_log_open(&options, &err), MEMOS_NOT_FOUND);
    assert_non_null(strstr(err.text, "no-folder"));
    memos_log(MEMOS_LOG_INFO, memos_log_event("still"));
    assert_non_null(strstr(read_log(path), "INFO still\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_one_line_an_event),
        cmocka_unit_test(no_value_breaks_a_text_line),
        cmocka_unit_test(json_lines_are_json),
        cmocka_unit_test(long_lines_are_cut_and_say_so),
        cmocka_unit_test(threads_do_not_mix_lines),
        cmocka_unit_test(names_are_read),
        cmocka_unit_test(a_failed_open_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
