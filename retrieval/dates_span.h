/* Pieces of dates, and the spans of time that a reference makes of them. retrieval/dates.h says
 * what people mean by what they leave open. */
#ifndef RETRIEVAL_DATES_SPAN_H
#define RETRIEVAL_DATES_SPAN_H

#include "retrieval/calendar.h"
#include "retrieval/dates_words.h"

/* The moment that "last week" starts from. */
struct dates_reference {
    bool known;
    int64_t us, today; /* today in days since 1970-01-01 */
    struct retrieval_civil now;
};

enum dates_form { DATES_FORM_SPAN, DATES_FORM_DAY, DATES_FORM_MONTH, DATES_FORM_YEAR };

/* Where something without a year, or a week, lies beside the reference. */
enum dates_side { DATES_SIDE_OPEN, DATES_SIDE_LAST, DATES_SIDE_THIS, DATES_SIDE_NEXT };

enum dates_third { DATES_THIRD_ALL, DATES_THIRD_EARLY, DATES_THIRD_MID, DATES_THIRD_LATE };

struct dates_piece {
    enum dates_form form;
    int year, month, day; /* 0: left open */
    int days;             /* of a day: how many; 0: one */
    enum dates_side side;
    enum dates_third third;
    bool relative;
    int64_t from_us, to_us; /* of a span */
};

struct dates_amount {
    int64_t low, high; /* of "two": 2 and 2; of "a few": 2 and 6 */
};

/* Each makes a span. Those that take `taken` give it back, so that a parser ends with them. */

size_t dates_span_days(struct dates_piece *out, int64_t from_day, int64_t to_day, size_t taken);

/* "two weeks ago" (sign -1), "in two weeks" (sign 1). */
size_t dates_span_away(const struct dates_reference *ref, struct dates_amount amount,
    enum dates_unit unit, int sign, struct dates_piece *out, size_t taken);

/* "the last three weeks" (sign -1: up to now), "the next three weeks". */
size_t dates_span_beside(const struct dates_reference *ref, struct dates_amount amount,
    enum dates_unit unit, int sign, struct dates_piece *out, size_t taken);

/* "last week" (shift -1), "this week", "next week": what the calendar calls so. */
size_t dates_span_calendar(const struct dates_reference *ref, enum dates_unit unit, int shift,
    struct dates_piece *out, size_t taken);

/* A weekday: open and last are before today, next is after it, this is in the running week. */
void dates_span_weekday(
    const struct dates_reference *ref, int weekday, enum dates_side side, struct dates_piece *out);

/* Cut a day to a part of it. */
void dates_span_part(struct dates_piece *piece, enum dates_part part);

/* A season by its first month, in a year; the winter of a year began in the December before. */
size_t dates_span_season(int year, int month, bool relative, struct dates_piece *out, size_t taken);

/* What comes every year, given for a year by a function: the one on a side of today. Open is the
 * latest that has begun, this is of the running year. */
typedef void dates_recurring_fn(int year, int which, struct dates_piece *out);
void dates_season_make(int year, int month, struct dates_piece *out);
void dates_holiday_make(int year, int holiday, struct dates_piece *out);
void dates_span_recurring(const struct dates_reference *ref, dates_recurring_fn *make, int which,
    enum dates_side side, struct dates_piece *out);

/* Make a piece a span. False when it needs a reference that there is not. */
bool dates_resolve(const struct dates_reference *ref, struct dates_piece *piece);

#endif
