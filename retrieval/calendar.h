/* The calendar: days since 1970-01-01 to year, month and day (proleptic Gregorian, UTC), and back.
 *
 * Written out rather than asked of the C library, whose functions depend on the process's time zone
 * and may lock. Days are good for years -9999 to 9999; a time outside of them is refused by
 * retrieval_calendar_has.
 *
 * Source: Hinnant, "chrono-Compatible Low-Level Date Algorithms", 2013. */
#ifndef RETRIEVAL_CALENDAR_H
#define RETRIEVAL_CALENDAR_H

#include <stdbool.h>
#include <stdint.h>

#define RETRIEVAL_HOUR_US INT64_C(3600000000)
#define RETRIEVAL_DAY_US INT64_C(86400000000)

struct retrieval_civil {
    int year, month, day; /* month 1..12, day 1..31 */
};

/* Days since 1970-01-01 of a date. day may lie outside of the month: it is counted on. */
int64_t retrieval_days_of(int year, int month, int day);
struct retrieval_civil retrieval_civil_of(int64_t days);

/* 0 Monday .. 6 Sunday. */
int retrieval_weekday_of(int64_t days);

/* 28..31 */
int retrieval_month_days(int year, int month);

/* The day that a time lies in, rounded down. */
int64_t retrieval_day_of_us(int64_t us);

/* Is it a time of the years 1 to 9999? */
bool retrieval_calendar_has(int64_t us);

#endif
