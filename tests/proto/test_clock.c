/* If this failed, a rollback to "yesterday at noon" would go to another moment. */
#include "proto/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define NOW_US 1767225600000000 /* 2026-01-01T00:00:00Z */

static int64_t parse(const char *text)
{
    int64_t us = INT64_MIN;
    struct memos_error err = { 0 };
    if (memos_time_parse(memos_bytes_of(text), NOW_US, &us, &err) != MEMOS_OK) {
        fail_msg("'%s': %s", text, err.text);
    }
    return us;
}

static void reads_every_form(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t us;
    } cases[] = {
        { "1970-01-01", 0 },
        { "1969-12-31T23:59:59.999999Z", -1 },
        { "1970-01-01T00:00:00Z", 0 },
        { "1970-01-01T00:00:00.5Z", 500000 },
        { "1970-01-01T00:00:00.123456789Z", 123456 },
        { "1970-01-01 00:01", 60000000 },
        { "1970-01-01t00:00:01z", 1000000 },
        { "1970-01-01T02:00:00+02:00", 0 },
        { "1970-01-01T02:00:00+0200", 0 },
        { "1969-12-31T18:30:00-05:30", 0 },
        { "2000-02-29", 951782400000000 },
        { "2024-02-29T00:00:00Z", 1709164800000000 },
        { "2100-03-01", 4107542400000000 },
        { "2026-01-01", NOW_US },
        { "1900-01-01", -2208988800000000 },
        { "0001-01-01", -62135596800000000 },
        { "9999-12-31T23:59:59Z", 253402300799000000 },
        { "2016-12-31T23:59:60Z", 1483228800000000 }, /* a leap second is the next one */
        { "@0", 0 },
        { "@1767225600", NOW_US },
        { "0s", NOW_US },
        { "90s", NOW_US - 90000000 },
        { "15m", NOW_US - 900000000 },
        { "3h", NOW_US - 10800000000 },
        { "2d", NOW_US - 172800000000 },
        { "4w", NOW_US - 2419200000000 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (parse(cases[i].text) != cases[i].us) {
            fail_msg("'%s' is %lld, not %lld", cases[i].text, (long long)parse(cases[i].text),
                (long long)cases[i].us);
        }
    }
}

static void refuses_nonsense(void **state)
{
    (void)state;
    static const char *const cases[] = { "", " ", "now", "2026", "2026-13-01", "2026-00-01",
        "2026-01-32", "2026-01-00", "2026-02-29", "1900-02-29", "2100-02-29", "2026-04-31",
        "2026-01-01T", "2026-01-01T24:00", "2026-01-01T12:60", "2026-01-01T12:00:61",
        "2026-01-01T12:00:00.", "2026-01-01T12:00:00Zx", "2026-01-01T12:00:00+", "2026-1-1",
        "2026-01-01T12:00:00+24:00", "2026-01-01T12:00:00+02:60", "2026-01-01X12:00", "@", "@-1",
        "@12x", "@99999999999999999999", "12", "s", "-3h", "3y", "3 h", "3hh",
        "9223372036854775807w", "99999999999999999999s", "+026-01-01" };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t us = 77;
        struct memos_error err = { 0 };
        if (memos_time_parse(memos_bytes_of(cases[i]), NOW_US, &us, &err) != MEMOS_INVALID) {
            fail_msg("'%s' was read as %lld", cases[i], (long long)us);
        }
        assert_int_equal(us, 77);
        assert_non_null(strstr(err.text, "is not a time"));
    }
}

static void every_day_survives_a_round_trip(void **state)
{
    (void)state;
    char text[MEMOS_TIME_TEXT_BYTES], expected[MEMOS_TIME_TEXT_BYTES];
    for (int64_t day = -800000; day < 2900000; day += 97) { /* years -220 to 9909 */
        int64_t us = day * 86400000000 + (day % 2 ? 43200123456 : 0);
        memos_time_format(us, text);
        time_t seconds = (time_t)(day * 86400);
        struct tm utc;
        assert_non_null(gmtime_r(&seconds, &utc));
        strftime(expected, sizeof expected, "%Y-%m-%dT", &utc);
        if (utc.tm_year + 1900 >= 1000) { /* strftime does not pad smaller years everywhere */
            assert_memory_equal(text, expected, strlen(expected));
            assert_true(parse(text) == us);
        }
    }
}

static void formats_what_it_cannot_read(void **state)
{
    (void)state;
    char text[MEMOS_TIME_TEXT_BYTES];
    assert_string_equal(memos_time_format(0, text), "1970-01-01T00:00:00Z");
    assert_string_equal(memos_time_format(-1, text), "1969-12-31T23:59:59.999999Z");
    assert_string_equal(memos_time_format(NOW_US + 1, text), "2026-01-01T00:00:00.000001Z");
    assert_int_equal(memos_time_format(INT64_MAX, text)[0], '@');
    assert_int_equal(memos_time_format(INT64_MIN, text)[0], '@');
}

static void a_test_can_move_the_clock(void **state)
{
    (void)state;
    int64_t now = 5;
    struct memos_clock fixed = memos_clock_fixed(&now);
    assert_int_equal(fixed.wall_us(fixed.self), 5);
    now = 6;
    assert_int_equal(fixed.mono_us(fixed.self), 6);
    struct memos_clock real = memos_clock_system();
    int64_t before = real.mono_us(real.self);
    assert_true(real.mono_us(real.self) >= before);
    assert_true(real.wall_us(real.self) > NOW_US - (int64_t)400 * 86400 * 1000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_every_form),
        cmocka_unit_test(refuses_nonsense),
        cmocka_unit_test(every_day_survives_a_round_trip),
        cmocka_unit_test(formats_what_it_cannot_read),
        cmocka_unit_test(a_test_can_move_the_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
