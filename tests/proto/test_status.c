/* If this failed, an error would reach the user under another number than the manual has, or
 * without saying what went wrong. */
#include "proto/status.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* The numbers are on the wire and in scripts for ever. */
static void numbers_do_not_move(void **state)
{
    (void)state;
    static const char *const names[] = { "OK", "INTERNAL", "INVALID", "NOT_FOUND", "EXISTS",
        "CONFLICT", "FROZEN", "FORGOTTEN", "DENIED", "TOO_LARGE", "BUSY", "DEADLINE", "CANCELLED",
        "NO_SPACE", "NO_MEMORY", "IO", "CORRUPT", "UNSUPPORTED", "UNAVAILABLE", "STALE" };
    for (int i = 0; i < 20; i++) {
        assert_true(memos_status_known(i));
        assert_string_equal(memos_status_name((enum memos_status)i), names[i]);
        assert_true(memos_status_text((enum memos_status)i)[0] != 0);
        assert_non_null(memos_status_hint((enum memos_status)i));
    }
    static const int unknown[] = { -1, 20, 255, 1 << 30 };
    for (size_t i = 0; i < 4; i++) {
        assert_false(memos_status_known(unknown[i]));
    }
    assert_string_equal(memos_status_name((enum memos_status)99), "UNKNOWN");
    assert_string_equal(memos_status_text((enum memos_status)99), "unknown status");
    assert_string_equal(memos_status_hint((enum memos_status)99), "");
}

static void errors_say_what_happened(void **state)
{
    (void)state;
    struct memos_error err = { 0 };
    assert_int_equal(memos_fail(&err, MEMOS_CONFLICT, "version %d", 7), MEMOS_CONFLICT);
    assert_int_equal(err.status, MEMOS_CONFLICT);
    assert_int_equal(err.foreign, 0);
    assert_string_equal(err.text, "version 7");
    assert_int_equal(memos_fail(NULL, MEMOS_BUSY, "no one listens"), MEMOS_BUSY);
    assert_int_equal(memos_fail_foreign(&err, MEMOS_IO, -30798, "lmdb"), MEMOS_IO);
    assert_int_equal(err.foreign, -30798);

    char big[1000];
    memset(big, 'x', sizeof big);
    big[999] = 0;
    (void)memos_fail(&err, MEMOS_IO, "%s", big);
    assert_int_equal(strlen(err.text), MEMOS_ERROR_TEXT_BYTES - 1);
    (void)memos_fail_errno(&err, EIO, "%s", big);
    assert_int_equal(strlen(err.text), MEMOS_ERROR_TEXT_BYTES - 1);
}

static void translates_errno(void **state)
{
    (void)state;
    static const struct {
        int number;
        enum memos_status status;
    } cases[] = { { ENOSPC, MEMOS_NO_SPACE }, { EDQUOT, MEMOS_NO_SPACE },
        { ENOMEM, MEMOS_NO_MEMORY }, { ENOENT, MEMOS_NOT_FOUND }, { EEXIST, MEMOS_EXISTS },
        { EACCES, MEMOS_DENIED }, { EPERM, MEMOS_DENIED }, { EIO, MEMOS_IO }, { 0, MEMOS_IO } };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct memos_error err = { 0 };
        assert_int_equal(
            memos_fail_errno(&err, cases[i].number, "opening '%s'", "f"), cases[i].status);
        assert_int_equal(err.foreign, cases[i].number);
        assert_non_null(strstr(err.text, "opening 'f': "));
        assert_non_null(strstr(err.text, strerror(cases[i].number)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_do_not_move),
        cmocka_unit_test(errors_say_what_happened),
        cmocka_unit_test(translates_errno),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
