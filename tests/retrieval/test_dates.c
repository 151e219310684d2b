/* Dates in text: what people say for days, months and years, as ranges of time.
 *
 * If these failed, "what did she do last May?" would be answered from the wrong year, and a memory
 * that says "yesterday" would be found under the wrong day. */
#include "retrieval/dates.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Wednesday, 2023-08-16, 15:00. */
#define NOW_US (INT64_C(19585) * RETRIEVAL_DAY_US + 15 * RETRIEVAL_HOUR_US)

/* "2023-05-08..2023-05-09" and E (explicit) or R (relative); hours as T06; "-" is open. Several
 * dates are parted by blanks; "" is none. */
struct phrase {
    const char *text, *dates;
};

static const struct phrase phrases[] = {
    /* days */
    {"I met her on 8 May 2023.", "E2023-05-08..2023-05-09"},
    {"May 8th, 2023", "E2023-05-08..2023-05-09"},
    {"May 8 2023", "E2023-05-08..2023-05-09"},
    {"the 8th of May 2023", "E2023-05-08..2023-05-09"},
    {"8th May, 2023", "E2023-05-08..2023-05-09"},
    {"Monday, 8 May 2023", "E2023-05-08..2023-05-09"},
    {"Mon. May 8, 2023", "E2023-05-08..2023-05-09"},
    {"2023-05-08", "E2023-05-08..2023-05-09"},
    {"2023-05-08T13:56:00Z", "E2023-05-08..2023-05-09"},
    {"2023/5/8", "E2023-05-08..2023-05-09"},
    {"5/8/2023", "E2023-05-08..2023-05-09"},
    {"13/8/2023", "E2023-08-13..2023-08-14"},
    {"5/8/23", "E2023-05-08..2023-05-09"},
    {"13-08-2023", "E2023-08-13..2023-08-14"},
    {"8.5.2023", "E2023-05-08..2023-05-09"},
    {"Aug. 3, 2022", "E2022-08-03..2022-08-04"},
    {"29 February 2024", "E2024-02-29..2024-03-01"},
    {"29 February 2023", "E2023-02-01..2023-03-01"},
    {"31 April 2023", "E2023-04-01..2023-05-01"},
    {"the twenty-first of June 2023", "E2023-06-21..2023-06-22"},
    {"the third of June 2023", "E2023-06-03..2023-06-04"},
    {"June the 3rd, 2023", "E2023-06-03..2023-06-04"},
    {"3-5 June 2023", "E2023-06-03..2023-06-06"},
    {"June 3\xE2\x80\x93"
     "5, 2023",
        "E2023-06-03..2023-06-06"},
    {"May 8", "R2023-05-08..2023-05-09"},
    {"the 3rd of June", "R2023-06-03..2023-06-04"},
    {"My flight is on December 1st", "R2023-12-01..2023-12-02"},
    {"we met on 20 March", "R2023-03-20..2023-03-21"},
    {"on 20 january", "R2024-01-20..2024-01-21"},
    {"29 February", "R2024-02-29..2024-03-01"},
    {"on the 3rd", "R2023-08-03..2023-08-04"},
    {"on the 21st", "R2023-07-21..2023-07-22"},
    {"born 4 July 1985 in Ohio", "E1985-07-04..1985-07-05"},
    /* months */
    {"in May 2023", "E2023-05-01..2023-06-01"},
    {"May 2023", "E2023-05-01..2023-06-01"},
    {"May of 2023", "E2023-05-01..2023-06-01"},
    {"2023-05", "E2023-05-01..2023-06-01"},
    {"Sept. 2022", "E2022-09-01..2022-10-01"},
    {"in May", "R2023-05-01..2023-06-01"},
    {"in August", "R2023-08-01..2023-09-01"},
    {"in October", "R2022-10-01..2022-11-01"},
    {"in march", "R2023-03-01..2023-04-01"},
    {"January was cold", "R2023-01-01..2023-02-01"},
    {"last May", "R2023-05-01..2023-06-01"},
    {"last August", "R2022-08-01..2022-09-01"},
    {"last October", "R2022-10-01..2022-11-01"},
    {"next May", "R2024-05-01..2024-06-01"},
    {"next October", "R2023-10-01..2023-11-01"},
    {"this October", "R2023-10-01..2023-11-01"},
    {"early May 2023", "E2023-05-01..2023-05-11T08"},
    {"mid-May 2023", "E2023-05-11T08..2023-05-21T16"},
    {"the end of June 2023", "E2023-06-21..2023-07-01"},
    {"late June", "R2023-06-21..2023-07-01"},
    {"the first week of May 2023", "E2023-05-01..2023-05-08"},
    /* years */
    {"2022", "E2022-01-01..2023-01-01"},
    {"in 2022, I moved", "E2022-01-01..2023-01-01"},
    {"(2022)", "E2022-01-01..2023-01-01"},
    {"the 1990s", "E1990-01-01..2000-01-01"},
    {"back in the 90s", "E1990-01-01..2000-01-01"},
    {"early 2022", "E2022-01-01..2022-05-02T16"},
    {"last year", "R2022-01-01..2023-01-01"},
    {"last year's trip", "R2022-01-01..2023-01-01"},
    {"this year", "R2023-01-01..2024-01-01"},
    {"next year", "R2024-01-01..2025-01-01"},
    {"the year before last", "R2021-01-01..2022-01-01"},
    {"two years ago", "R2021-01-01..2022-01-01"},
    {"ten years ago", "R2013-01-01..2014-01-01"},
    {"a decade ago", "R2011-01-01..2016-01-01"},
    /* seasons and holidays */
    {"last summer", "R2022-06-01..2022-09-01"},
    {"this summer", "R2023-06-01..2023-09-01"},
    {"next summer", "R2024-06-01..2024-09-01"},
    {"in the summer", "R2023-06-01..2023-09-01"},
    {"summer 2022", "E2022-06-01..2022-09-01"},
    {"in the summer of 2022", "E2022-06-01..2022-09-01"},
    {"last winter", "R2022-12-01..2023-03-01"},
    {"winter 2023", "E2022-12-01..2023-03-01"},
    {"last fall", "R2022-09-01..2022-12-01"},
    {"next spring", "R2024-03-01..2024-06-01"},
    {"Christmas", "R2022-12-24..2022-12-27"},
    {"next Christmas", "R2023-12-24..2023-12-27"},
    {"Christmas 2021", "E2021-12-24..2021-12-27"},
    {"on Christmas Eve", "R2022-12-24..2022-12-25"},
    {"New Year's Eve", "R2022-12-31..2023-01-01"},
    {"New Year\xE2\x80\x99s Day 2020", "E2020-01-01..2020-01-02"},
    {"Valentine's Day", "R2023-02-14..2023-02-15"},
    {"Halloween 2022", "E2022-10-31..2022-11-01"},
    {"last Thanksgiving", "R2022-11-24..2022-11-25"},
    {"Easter 2023", "E2023-04-07..2023-04-11"},
    /* days beside the reference */
    {"today", "R2023-08-16..2023-08-17"},
    {"yesterday", "R2023-08-15..2023-08-16"},
    {"tomorrow", "R2023-08-17..2023-08-18"},
    {"yesterday evening", "R2023-08-15T17..2023-08-16"},
    {"this morning", "R2023-08-16..2023-08-16T12"},
    {"this afternoon", "R2023-08-16T12..2023-08-16T18"},
    {"tonight", "R2023-08-16T18..2023-08-17T06"},
    {"last night", "R2023-08-15T18..2023-08-16T06"},
    {"tomorrow morning", "R2023-08-17..2023-08-17T12"},
    {"the day before yesterday", "R2023-08-14..2023-08-15"},
    {"the day after tomorrow", "R2023-08-18..2023-08-19"},
    {"the other day", "R2023-08-09..2023-08-16"},
    {"a week ago", "R2023-08-06..2023-08-13"},
    {"two weeks ago", "R2023-07-30..2023-08-06"},
    {"3 days ago", "R2023-08-13..2023-08-14"},
    {"a few days ago", "R2023-08-10..2023-08-15"},
    {"a couple of days ago", "R2023-08-13..2023-08-16"},
    {"several weeks back", "R2023-06-07..2023-07-27"},
    {"five hours ago", "R2023-08-16T09:30..2023-08-16T10:30"},
    {"a month ago", "R2023-07-01..2023-08-01"},
    {"six months ago", "R2023-02-01..2023-03-01"},
    {"a few months ago", "R2023-02-01..2023-07-01"},
    {"two weekends ago", "R2023-08-05..2023-08-07"},
    {"in three days", "R2023-08-19..2023-08-20"},
    {"in two weeks", "R2023-08-27..2023-09-03"},
    {"two weeks from now", "R2023-08-27..2023-09-03"},
    /* weeks and weekdays */
    {"last week", "R2023-08-07..2023-08-14"},
    {"this week", "R2023-08-14..2023-08-21"},
    {"next week", "R2023-08-21..2023-08-28"},
    {"the week before last", "R2023-07-31..2023-08-07"},
    {"the past week", "R2023-08-09..2023-08-17"},
    {"in the last week", "R2023-08-09..2023-08-17"},
    {"last weekend", "R2023-08-12..2023-08-14"},
    {"this past weekend", "R2023-08-12..2023-08-14"},
    {"this weekend", "R2023-08-19..2023-08-21"},
    {"over the weekend", "R2023-08-12..2023-08-14"},
    {"last Friday", "R2023-08-11..2023-08-12"},
    {"last Wednesday", "R2023-08-09..2023-08-10"},
    {"on Monday", "R2023-08-14..2023-08-15"},
    {"on Wednesday", "R2023-08-09..2023-08-10"},
    {"Friday night", "R2023-08-11T18..2023-08-12T06"},
    {"next Friday", "R2023-08-18..2023-08-19"},
    {"this Friday", "R2023-08-18..2023-08-19"},
    {"this past Tuesday", "R2023-08-15..2023-08-16"},
    /* months beside the reference */
    {"last month", "R2023-07-01..2023-08-01"},
    {"next month", "R2023-09-01..2023-10-01"},
    {"this month", "R2023-08-01..2023-09-01"},
    {"for the last three months", "R2023-05-16..2023-08-17"},
    {"the past two years", "R2021-08-16..2023-08-17"},
    {"the last few days", "R2023-08-10..2023-08-17"},
    {"the next two weeks", "R2023-08-16..2023-08-31"},
    {"at the end of last month", "R2023-07-21T16..2023-08-01"},
    /* two ends, and one */
    {"between May and July 2023", "E2023-05-01..2023-08-01"},
    {"from November to February 2023", "E2022-11-01..2023-03-01"},
    {"from 3 to 5 June 2023", "E2023-06-03..2023-06-06"},
    {"from 2016 to 2018", "E2016-01-01..2019-01-01"},
    {"2016-2018", "E2016-01-01..2019-01-01"},
    {"between last Friday and yesterday", "R2023-08-11..2023-08-16"},
    {"May to July 2022", "E2022-05-01..2022-08-01"},
    {"since 2016", "E2016-01-01..2023-08-17"},
    {"since last month", "R2023-07-01..2023-08-17"},
    {"before May 2023", "E-..2023-05-01"},
    {"until June 2023", "E-..2023-07-01"},
    {"after 3 June 2023", "E2023-06-04..-"},
    /* several */
    {"We met in 2019 and married on 3 June 2021; yesterday was our anniversary.",
        "E2019-01-01..2020-01-01 E2021-06-03..2021-06-04 R2023-08-15..2023-08-16"},
    {"yesterday\xE2\x80\x99s news and today's", "R2023-08-15..2023-08-16 R2023-08-16..2023-08-17"},
    /* none */
    {"", ""},
    {"You may come, but march on; I sat in the sun.", ""},
    {"I may 20 times", ""},
    {"it costs $2022", ""},
    {"2022% of it", ""},
    {"2,022 people", ""},
    {"2022,5 metres and 1999.99 dollars", ""},
    {"version v2022 and x2022", ""},
    {"20220508", ""},
    {"call 555-2022-11", ""},
    {"99/99/2023", ""},
    {"13/13/2023", ""},
    {"the first time, the second day, a new year of work", ""},
    {"the next day we left", ""},
    {"two weeks later", ""},
    {"at 5 pm or 17:30", ""},
    {"last but not least, this is it, next to him", ""},
    {"a few friends and several dogs", ""},
};

static void put_time(char *out, size_t room, int64_t us)
{
    if (us == RETRIEVAL_DATE_BEGIN || us == RETRIEVAL_DATE_END) {
        (void)snprintf(out, room, "-");
        return;
    }
    int64_t day = retrieval_day_of_us(us);
    struct retrieval_civil civil = retrieval_civil_of(day);
    int minutes = (int)((us - day * RETRIEVAL_DAY_US) / 60000000);
    int length = snprintf(out, room, "%04d-%02d-%02d", civil.year, civil.month, civil.day);
    if (minutes % 60 != 0) {
        (void)snprintf(
            out + length, room - (size_t)length, "T%02d:%02d", minutes / 60, minutes % 60);
    } else if (minutes != 0) {
        (void)snprintf(out + length, room - (size_t)length, "T%02d", minutes / 60);
    }
}

static void put_dates(char *out, size_t room, const struct retrieval_date *dates, size_t count)
{
    size_t used = 0;
    out[0] = 0;
    for (size_t i = 0; i < count; i++) {
        char from[32], to[32];
        put_time(from, sizeof from, dates[i].from_us);
        put_time(to, sizeof to, dates[i].to_us);
        int more = snprintf(out + used, room - used, "%s%c%s..%s", i > 0 ? " " : "",
            dates[i].kind == RETRIEVAL_DATE_EXPLICIT ? 'E' : 'R', from, to);
        used += more > 0 ? (size_t)more : 0;
    }
}

static void phrases_resolve(void **state)
{
    (void)state;
    size_t bad = 0;
    for (size_t i = 0; i < sizeof phrases / sizeof phrases[0]; i++) {
        struct retrieval_date dates[8];
        char found[512];
        size_t count = retrieval_dates_find(memos_bytes_of(phrases[i].text), NOW_US, dates, 8);
        put_dates(found, sizeof found, dates, count);
        if (strcmp(found, phrases[i].dates) != 0) {
            print_message("\"%s\": %s, not %s\n", phrases[i].text, found, phrases[i].dates);
            bad++;
        }
    }
    assert_int_equal(bad, 0);
    assert_true(sizeof phrases / sizeof phrases[0] >= 120);
}

/* Without a reference, only what is complete in itself. */
static void reference_is_needed(void **state)
{
    (void)state;
    struct retrieval_date dates[8];
    char found[512];
    struct memos_bytes text = memos_bytes_of("yesterday, in May, on 3 June, last week, in 2022, "
                                             "two days ago, on 8 May 2023, this summer, Easter");
    size_t count = retrieval_dates_find(text, 0, dates, 8);
    put_dates(found, sizeof found, dates, count);
    assert_string_equal(found, "E2022-01-01..2023-01-01 E2023-05-08..2023-05-09");
    assert_int_equal(retrieval_dates_find(text, INT64_MAX, dates, 8), 2);
    assert_int_equal(retrieval_dates_find(text, INT64_MIN, dates, 8), 2);
}

static void places_are_told(void **state)
{
    (void)state;
    struct retrieval_date dates[2];
    const char *text = "So, on 8 May 2023 we left; two weeks ago we were back.";
    assert_int_equal(retrieval_dates_find(memos_bytes_of(text), NOW_US, dates, 2), 2);
    assert_memory_equal(text + dates[0].at, "on 8 May 2023", dates[0].size);
    assert_int_equal(dates[0].size, strlen("on 8 May 2023"));
    assert_memory_equal(text + dates[1].at, "two weeks ago", dates[1].size);
    assert_int_equal(dates[1].size, strlen("two weeks ago"));
    assert_int_equal(retrieval_dates_find(memos_bytes_of(text), NOW_US, dates, 1), 1);
    assert_int_equal(retrieval_dates_find(memos_bytes_of(text), NOW_US, dates, 0), 0);
}

/* A long run of what looks like dates: each is found, wherever it lies in the window. */
static void long_texts(void **state)
{
    (void)state;
    enum { TIMES = 500 };
    static const char one[] = "on the 3rd of June 2021 he said no ";
    static char text[TIMES * sizeof one];
    static struct retrieval_date dates[TIMES + 1];
    size_t size = 0;
    for (int i = 0; i < TIMES; i++) {
        memcpy(text + size, one, sizeof one - 1);
        size += sizeof one - 1;
    }
    struct memos_bytes bytes = memos_bytes_make(text, size);
    assert_int_equal(retrieval_dates_find(bytes, NOW_US, dates, TIMES + 1), TIMES);
    for (int i = 0; i < TIMES; i++) {
        assert_int_equal(dates[i].at, (size_t)i * (sizeof one - 1));
        assert_int_equal(dates[i].from_us, retrieval_days_of(2021, 6, 3) * RETRIEVAL_DAY_US);
    }
}

static void calendar_goes_round(void **state)
{
    (void)state;
    assert_int_equal(retrieval_days_of(1970, 1, 1), 0);
    assert_int_equal(retrieval_days_of(2000, 3, 1), 11017);
    assert_int_equal(retrieval_weekday_of(retrieval_days_of(2023, 8, 16)), 2);
    assert_int_equal(retrieval_weekday_of(retrieval_days_of(1969, 12, 28)), 6);
    int64_t day = retrieval_days_of(1, 1, 1);
    for (int year = 1; year <= 3000; year++) {
        for (int month = 1; month <= 12; month++) {
            int days = retrieval_month_days(year, month);
            for (int of_month = 1; of_month <= days; of_month++, day++) {
                struct retrieval_civil civil = retrieval_civil_of(day);
                assert_int_equal(retrieval_days_of(year, month, of_month), day);
                assert_true(civil.year == year && civil.month == month && civil.day == of_month);
            }
        }
    }
    assert_int_equal(retrieval_day_of_us(-1), -1);
    assert_int_equal(retrieval_day_of_us(0), 0);
    assert_true(retrieval_calendar_has(0) && !retrieval_calendar_has(INT64_MAX));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(phrases_resolve),
        cmocka_unit_test(reference_is_needed),
        cmocka_unit_test(places_are_told),
        cmocka_unit_test(long_texts),
        cmocka_unit_test(calendar_goes_round),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
