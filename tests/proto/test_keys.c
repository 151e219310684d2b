/* If this failed, a secret key could lie open to everybody on the machine, or a key file that works
 * would be refused. */
#include "proto/client.h"
#include "tests/proto/temp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void what_is_written_is_read(void **state)
{
    (void)state;
    char path[300], link[300];
    struct memos_key_pair pair, back;
    struct memos_error err = { 0 };
    struct stat info;
    temp_path("good.key", path, sizeof path);
    temp_path("link.key", link, sizeof link);
    assert_int_equal(memos_key_pair_new(&pair, &err), MEMOS_OK);
    assert_int_equal(memos_key_pair_write(path, &pair, &err), MEMOS_OK);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_int_equal(memos_key_pair_read(path, &back, &err), MEMOS_OK);
    assert_string_equal(back.public_key, pair.public_key);
    assert_string_equal(back.secret_key, pair.secret_key);
    assert_int_equal(symlink(path, link), 0);
    assert_int_equal(memos_key_pair_read(link, &back, &err), MEMOS_OK);

    struct memos_key_pair other;
    assert_int_equal(memos_key_pair_new(&other, &err), MEMOS_OK);
    assert_string_not_equal(other.secret_key, pair.secret_key);
    assert_int_equal(memos_key_pair_write(path, &other, &err), MEMOS_EXISTS);
    assert_int_equal(memos_key_pair_read(path, &back, &err), MEMOS_OK);
    assert_string_equal(back.public_key, pair.public_key); /* not overwritten */
}

static void an_open_file_is_refused(void **state)
{
    (void)state;
    static const unsigned modes[] = { 0640, 0620, 0604, 0602, 0644, 0666, 0610, 0601 };
    char path[300];
    struct memos_key_pair pair, back = { "untouched", "" };
    struct memos_error err = { 0 };
    temp_path("open.key", path, sizeof path);
    assert_int_equal(memos_key_pair_new(&pair, &err), MEMOS_OK);
    assert_int_equal(memos_key_pair_write(path, &pair, &err), MEMOS_OK);
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        assert_int_equal(chmod(path, modes[i]), 0);
        assert_int_equal(memos_key_pair_read(path, &back, &err), MEMOS_DENIED);
        assert_non_null(strstr(err.text, "open to others"));
        assert_string_equal(back.public_key, "untouched");
    }
    assert_int_equal(chmod(path, 0400), 0);
    assert_int_equal(memos_key_pair_read(path, &back, &err), MEMOS_OK);
}

static void hand_written_files_are_read(void **state)
{
    (void)state;
    static const char *const forms[] = {
        "public = %s\nsecret = %s\n",
        "public=%s\nsecret=%s",
        "# comment\n\n  public =\t%s  \r\n\n# more\nsecret = %s\r\n",
        "unknown = line\npublic = %s\nname without value\nsecret = %s\n",
    };
    char path[300], text[500];
    struct memos_key_pair pair, back;
    struct memos_error err = { 0 };
    temp_path("hand.key", path, sizeof path);
    assert_int_equal(memos_key_pair_new(&pair, &err), MEMOS_OK);
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        int size = snprintf(text, sizeof text, forms[i], pair.public_key, pair.secret_key);
#pragma GCC diagnostic pop
        temp_write(path, text, (size_t)size, 0600);
        if (memos_key_pair_read(path, &back, &err) != MEMOS_OK) {
            fail_msg("form %zu: %s", i, err.text);
        }
        assert_string_equal(back.secret_key, pair.secret_key);
    }
}

static void nonsense_is_refused(void **state)
{
    (void)state;
    static char large[5000];
    char path[300], text[500];
    struct memos_key_pair pair, other, back;
    struct memos_error err = { 0 };
    temp_path("bad.key", path, sizeof path);
    assert_int_equal(memos_key_pair_new(&pair, &err), MEMOS_OK);
    assert_int_equal(memos_key_pair_new(&other, &err), MEMOS_OK);
    static const char *const texts[] = { "", "\n\n", "public = \nsecret = \n", "public = short\n",
        "public = 0123456789012345678901234567890123456789\n",
        "secret = 0123456789012345678901234567890123456789"
        "0123456789012345678901234567890123456789\n" };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        temp_write(path, texts[i], strlen(texts[i]), 0600);
        assert_int_equal(memos_key_pair_read(path, &back, &err), MEMOS_INVALID);
    }
    int size = snprintf(
        text, sizeof text, "public = %s\nsecret = %s\n", other.public_key, pair.secret_key);
    temp_write(path, text, (size_t)size, 0600);
    assert_int_equal(memos_key_pair_read(path, &back, &err), MEMOS_INVALID);
    assert_non_null(strstr(err.text, "does not belong"));
    assert_null(strstr(err.text, pair.secret_key));
    temp_write(path, "public\0= x", 10, 0600);
    assert_int_equal(memos_key_pair_read(path, &back, &err), MEMOS_INVALID);
    memset(large, '#', sizeof large);
    temp_write(path, large, sizeof large, 0600);
    assert_int_equal(memos_key_pair_read(path, &back, &err), MEMOS_INVALID);
    temp_path(".", path, sizeof path);
    assert_int_equal(memos_key_pair_read(path, &back, &err), MEMOS_INVALID);
    temp_path("missing.key", path, sizeof path);
    assert_int_equal(memos_key_pair_read(path, &back, &err), MEMOS_NOT_FOUND);
    temp_path("no-folder/a.key", path, sizeof path);
    assert_int_equal(memos_key_pair_write(path, &pair, &err), MEMOS_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(an_open_file_is_refused),
        cmocka_unit_test(hand_written_files_are_read),
        cmocka_unit_test(nonsense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
