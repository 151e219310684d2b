/* If this failed, a broker could run with other limits than its administrator wrote down, or listen
 * to the world without keys. */
#include "memos/broker/config.h"
#include "proto/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- files ---- */

static enum memos_status parse(
    struct broker_config *config, const char *text, struct memos_error *err)
{
    assert_int_equal(broker_config_init(config, NULL), MEMOS_OK);
    return broker_config_parse(config, "memosd.conf", memos_bytes_of(text), err);
}

static void test_a_good_file(void **state)
{
    (void)state;
    struct broker_config config;
    struct memos_error err = {0};
    enum memos_status status = parse(&config,
        "# a comment\n"
        "data_dir = \"/srv/me\\\\mos \\\"x\\\"\"   # another\n"
        "\n"
        "listen = [\"ipc:///run/memos/a.sock\", \"tcp://127.0.0.1:7077\"]\r\n"
        "\tcurve = true\n"
        "inline_bytes = \"32K\"\n"
        "queue_max=7\n"
        "default_deadline = \"5m\"\n"
        "log_level = \"debug\"\n"
        "log_format = \"json\"",
        &err);
    assert_string_equal(err.text, "");
    assert_int_equal(status, MEMOS_OK);
    assert_string_equal(config.data_dir, "/srv/me\\mos \"x\"");
    assert_int_equal(config.listen.count, 2);
    assert_string_equal(config.listen.items[1], "tcp://127.0.0.1:7077");
    assert_true(config.curve);
    assert_int_equal(config.inline_bytes, 32768);
    assert_int_equal(config.queue_max, 7);
    assert_int_equal(config.default_deadline_ms, 300000);
    assert_int_equal(config.log_level, MEMOS_LOG_DEBUG);
    assert_int_equal(config.log_format, MEMOS_LOG_JSON);
    broker_config_finish(&config);
}

static void test_presets_name_the_log_levels_that_the_log_has(void **state)
{
    (void)state;
    struct broker_config config;
    assert_int_equal(broker_config_init(&config, NULL), MEMOS_OK);
    assert_int_equal(config.log_level, MEMOS_LOG_INFO);
    assert_int_equal(config.log_format, MEMOS_LOG_TEXT);
    broker_config_finish(&config);
}

static void test_bad_files_name_their_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"colour = 1", "memosd.conf:1: there is no key 'colour'"},
        {"\n\nqueue_max = \"many\"", "memosd.conf:3: queue_max must be a number"},
        {"queue_max = 0", "from 1 to 1048576"},
        {"queue_max = 99999999999999999999999", "queue_max must be"},
        {"queue_max = 1 2", "more on the line than one value"},
        {"queue_max 1", "expected ="},
        {"queue_max =", "expected a value"},
        {"= 1", "expected the name of a key"},
        {"[broker]", "sections are not known"},
        {"data_dir = /srv", "expected a value"},
        {"data_dir = srv", "data_dir must be a text in double quotes"},
        {"data_dir = \"/srv", "no closing quote"},
        {"data_dir = \"\\q\"", "backslash"},
        {"data_dir = \"\xff\"", "not UTF-8"},
        {"listen = \"ipc:///a\"", "listen must be an array"},
        {"listen = [\"ipc:///a\" \"ipc:///b\"]", "expected , or ]"},
        {"listen = [1]", "an array holds texts"},
        {"listen = [\"ipc:///a\"", "expected , or ]"},
        {"listen = [\"\"]", "listen must be"},
        {"default_deadline = 5", "a time with its unit"},
        {"default_deadline = \"5 s\"", "a time with its unit"},
        {"inline_bytes = \"1G\"", "from 0 to 1048576"},
        {"map_bytes = \"99999999999T\"", "map_bytes must be"},
        {"curve = yes", "true or false"},
        {"log_level = \"loud\"", "\"debug\""},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct broker_config config;
        struct memos_error err = {0};
        enum memos_status status = parse(&config, bad[i].text, &err);
        if (status != MEMOS_INVALID || !strstr(err.text, bad[i].says)) {
            fail_msg("'%s' gave %s: %s", bad[i].text, memos_status_name(status), err.text);
        }
        broker_config_finish(&config);
    }
}

static void test_too_much_is_refused(void **state)
{
    (void)state;
    struct broker_config config;
    char *text = malloc(2 << 20);
    assert_non_null(text);
    memset(text, '\n', 2 << 20);
    assert_int_equal(broker_config_init(&config, NULL), MEMOS_OK);
    assert_int_equal(
        broker_config_parse(&config, "memosd.conf", memos_bytes_make(text, 2 << 20), NULL),
        MEMOS_TOO_LARGE);
    broker_config_finish(&config);
    free(text);
}

/* ---- sources ---- */

static void test_later_sources_win(void **state)
{
    (void)state;
    struct broker_config config;
    struct memos_error err = {0};
    char path[] = "/tmp/memos-config-XXXXXX";
    int fd = mkstemp(path);
    FILE *file = fdopen(fd, "w");
    assert_non_null(file);
    (void)fputs("queue_max = 1\nclient_queue_max = 1\nwatches_max = 1\n", file);
    assert_int_equal(fclose(file), 0);

    assert_int_equal(setenv("MEMOS_CLIENT_QUEUE_MAX", "2", 1), 0);
    assert_int_equal(setenv("MEMOS_WATCHES_MAX", "2", 1), 0);
    const struct broker_config_flag flags[] = {
        {"watches_max", "3"},
        {"listen", "ipc:///a.sock,ipc:///b.sock"},
    };
    assert_int_equal(broker_config_init(&config, NULL), MEMOS_OK);
    assert_int_equal(broker_config_load(&config, path, flags, 2, &err), MEMOS_OK);
    assert_int_equal(config.queue_max, 1);
    assert_int_equal(config.client_queue_max, 2);
    assert_int_equal(config.watches_max, 3);
    assert_int_equal(config.listen.count, 2);
    assert_string_equal(config.listen.items[1], "ipc:///b.sock");
    broker_config_finish(&config);

    assert_int_equal(setenv("MEMOS_WATCHES_MAX", "none", 1), 0);
    assert_int_equal(broker_config_init(&config, NULL), MEMOS_OK);
    assert_int_equal(broker_config_load(&config, path, NULL, 0, &err), MEMOS_INVALID);
    assert_non_null(strstr(err.text, "MEMOS_WATCHES_MAX"));
    broker_config_finish(&config);
    assert_int_equal(unsetenv("MEMOS_WATCHES_MAX"), 0);
    assert_int_equal(unsetenv("MEMOS_CLIENT_QUEUE_MAX"), 0);

    assert_int_equal(broker_config_init(&config, NULL), MEMOS_OK);
    assert_int_equal(
        broker_config_load(&config, "/does/not/exist", NULL, 0, &err), MEMOS_NOT_FOUND);
    broker_config_finish(&config);
    assert_int_equal(remove(path), 0);
}

static void test_printed_it_reads_the_same(void **state)
{
    (void)state;
    struct broker_config config, again;
    char *first = NULL, *second = NULL;
    size_t first_size, second_size;
    struct memos_error err = {0};
    assert_int_equal(parse(&config,
                         "data_dir = \"/a\\tb\"\nlisten = [\"ipc:///x\", \"tcp://[::1]:1\"]\n"
                         "curve = true\nwatch_lease = \"90s\"\nqueue_bytes_max = \"3G\"",
                         &err),
        MEMOS_OK);
    FILE *out = open_memstream(&first, &first_size);
    broker_config_print(&config, out);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(parse(&again, first, &err), MEMOS_OK);
    out = open_memstream(&second, &second_size);
    broker_config_print(&again, out);
    assert_int_equal(fclose(out), 0);
    assert_string_equal(first, second);
    assert_non_null(strstr(first, "watch_lease = \"90000ms\"\n"));
    free(first);
    free(second);
    broker_config_finish(&config);
    broker_config_finish(&again);
}

/* ---- addresses ---- */

static enum memos_status check(const char *address, bool curve, struct memos_error *err)
{
    static const struct broker_config_place place = {.name = "test"};
    struct broker_config config;
    assert_int_equal(broker_config_init(&config, NULL), MEMOS_OK);
    assert_int_equal(broker_config_set(&config, &place, "data_dir", "/srv", err), MEMOS_OK);
    assert_int_equal(broker_config_set(&config, &place, "listen", address, err), MEMOS_OK);
    assert_int_equal(
        broker_config_set(&config, &place, "curve", curve ? "true" : "false", err), MEMOS_OK);
    enum memos_status status = broker_config_check(&config, err);
    broker_config_finish(&config);
    return status;
}

static void test_the_world_needs_keys(void **state)
{
    (void)state;
    static const char *const open[] = {"tcp://0.0.0.0:7077", "tcp://*:7077", "tcp://10.0.0.1:7077",
        "tcp://eth0:7077", "tcp://[::]:7077", "tcp://1270.0.0.1:7077", "tcp://127.0.0.1.evil:7077",
        "tcp://localhost.evil:7077", "tcp://128.0.0.1:7077"};
    static const char *const near[] = {"tcp://127.0.0.1:7077", "tcp://127.9.9.9:7077",
        "tcp://[::1]:7077", "tcp://localhost:7077", "tcp://127.0.0.1:*", "ipc:///tmp/x/y.sock"};
    struct memos_error err;
    for (size_t i = 0; i < sizeof open / sizeof open[0]; i++) {
        if (check(open[i], false, &err) != MEMOS_DENIED || check(open[i], true, &err) != MEMOS_OK) {
            fail_msg("%s", open[i]);
        }
    }
    for (size_t i = 0; i < sizeof near / sizeof near[0]; i++) {
        if (check(near[i], false, &err) != MEMOS_OK) {
            fail_msg("%s: %s", near[i], err.text);
        }
    }
}

static void test_what_is_no_address(void **state)
{
    (void)state;
    static const char *const bad[] = {"udp://127.0.0.1:1", "ipc://relative", "ipc://@abstract",
        "tcp://127.0.0.1", "tcp://:7077", "tcp://127.0.0.1:0", "tcp://127.0.0.1:65536",
        "tcp://127.0.0.1:70x", "inproc://a", "x", "tcp://", "tcp://127.0.0.1:",
        "ipc:///"
        "a234567890123456789012345678901234567890123456789012345678901234567890123456789012345"
        "6789012345678901234567890"};
    struct memos_error err;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (check(bad[i], true, &err) != MEMOS_INVALID) {
            fail_msg("%s", bad[i]);
        }
    }
}

static void test_events_lie_beside(void **state)
{
    (void)state;
    static const struct broker_config_place place = {.name = "test"};
    struct broker_config config;
    assert_int_equal(broker_config_init(&config, NULL), MEMOS_OK);
    assert_int_equal(broker_config_set(&config, &place, "data_dir", "/srv", NULL), MEMOS_OK);
    assert_int_equal(broker_config_set(&config, &place, "listen",
                         "ipc:///x/a.sock,tcp://127.0.0.1:7077,tcp://127.0.0.1:*", NULL),
        MEMOS_OK);
    assert_int_equal(broker_config_check(&config, NULL), MEMOS_OK);
    assert_int_equal(config.events.count, 3);
    assert_string_equal(config.events.items[0], "ipc:///x/a.sock.events");
    assert_string_equal(config.events.items[1], "tcp://127.0.0.1:7078");
    assert_string_equal(config.events.items[2], "tcp://127.0.0.1:*");
    assert_true(config.reader_threads >= 2 && config.reader_threads <= 16);
    broker_config_finish(&config);
}

/* ---- what is written about it ---- */

static char *read_text(const char *path)
{
    FILE *file = fopen(path, "r");
    char *text = calloc(1, 1 << 18);
    if (!file || !text) {
        fail_msg("cannot read %s", path);
    }
    size_t size = fread(text, 1, (1 << 18) - 1, file);
    assert_true(size > 0 && size < (1 << 18) - 1);
    (void)fclose(file);
    return text;
}

static void test_the_manual_names_every_key(void **state)
{
    (void)state;
    char *manual = read_text(SOURCE "/memos/memosd.8");
    size_t count;
    const struct broker_config_key *keys = broker_config_keys(&count);
    for (size_t i = 0; i < count; i++) {
        char entry[512];
        (void)snprintf(entry, sizeof entry, ".B %s\n%s.", keys[i].name, keys[i].help);
        if (!strstr(manual, entry)) {
            fail_msg("memosd.8 has no entry\n%s", entry);
        }
        (void)snprintf(entry, sizeof entry, "Preset: %s.", keys[i].preset);
        if (keys[i].preset[0] && !strstr(manual, entry)) {
            fail_msg("memosd.8 does not give the preset of %s", keys[i].name);
        }
    }
    free(manual);
}

/* Every key is in the example, after "#", with its preset; taken out, the example must be good. */
static void test_the_example_is_good(void **state)
{
    (void)state;
    char *example = read_text(SOURCE "/memos/memosd.conf");
    struct broker_config config;
    struct memos_error err = {0};
    size_t count;
    const struct broker_config_key *keys = broker_config_keys(&count);

    assert_int_equal(parse(&config, example, &err), MEMOS_OK);
    broker_config_finish(&config);
    for (size_t i = 0; i < count; i++) {
        char line[96];
        (void)snprintf(line, sizeof line, "\n#%s = ", keys[i].name);
        char *at = strstr(example, line);
        if (!at) {
            fail_msg("memosd.conf lacks %s", keys[i].name);
        }
        at[1] = ' ';
    }
    if (parse(&config, example, &err) != MEMOS_OK) {
        fail_msg("memosd.conf: %s", err.text);
    }
    broker_config_finish(&config);
    free(example);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_good_file),
        cmocka_unit_test(test_presets_name_the_log_levels_that_the_log_has),
        cmocka_unit_test(test_bad_files_name_their_line),
        cmocka_unit_test(test_too_much_is_refused),
        cmocka_unit_test(test_later_sources_win),
        cmocka_unit_test(test_printed_it_reads_the_same),
        cmocka_unit_test(test_the_world_needs_keys),
        cmocka_unit_test(test_what_is_no_address),
        cmocka_unit_test(test_events_lie_beside),
        cmocka_unit_test(test_the_manual_names_every_key),
        cmocka_unit_test(test_the_example_is_good),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
