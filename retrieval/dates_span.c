#include "retrieval/dates_span.h"

size_t dates_span_days(struct dates_piece *out, int64_t from_day, int64_t to_day, size_t taken)
{
    *out = (struct dates_piece){.form = DATES_FORM_SPAN,
        .relative = true,
        .from_us = from_day * RETRIEVAL_DAY_US,
        .to_us = to_day * RETRIEVAL_DAY_US};
    return taken;
}

/* The day of a month counted on or back from the reference's; day 1..28 is always there. */
static int64_t month_day(const struct dates_reference *ref, int64_t months, int day)
{
    int64_t month = (int64_t)ref->now.year * 12 + ref->now.month - 1 + months;
    month = month < 12 ? 12 : month; /* the year 1 is early enough */
    int year = (int)(month / 12), of_year = (int)(month % 12) + 1;
    int last = retrieval_month_days(year, of_year);
    return retrieval_days_of(year, of_year, day < last ? day : last);
}

static int64_t monday(const struct dates_reference *ref)
{
    return ref->today - retrieval_weekday_of(ref->today);
}

/* "two weeks ago" (sign -1), "in two weeks" (sign 1). */
size_t dates_span_away(const struct dates_reference *ref, struct dates_amount amount,
    enum dates_unit unit, int sign, struct dates_piece *out, size_t taken)
{
    int64_t near = sign < 0 ? -amount.high : amount.low, far = sign < 0 ? -amount.low : amount.high;
    bool exact = amount.low == amount.high;
    int64_t slack = exact ? 3 : 0;
    switch (unit) {
    case DATES_HOURS:
        dates_span_days(out, 0, 0, taken);
        out->from_us = ref->us + near * RETRIEVAL_HOUR_US - RETRIEVAL_HOUR_US / 2;
        out->to_us = ref->us + far * RETRIEVAL_HOUR_US + RETRIEVAL_HOUR_US / 2;
        return taken;
    case DATES_DAYS:
        return dates_span_days(out, ref->today + near, ref->today + far + 1, taken);
    case DATES_WEEKS:
        return dates_span_days(
            out, ref->today + 7 * near - slack, ref->today + 7 * far + slack + 1, taken);
    case DATES_WEEKENDS:
        return dates_span_days(out, monday(ref) + 5 + 7 * near, monday(ref) + 7 + 7 * far, taken);
    case DATES_MONTHS:
        return dates_span_days(out, month_day(ref, near, 1), month_day(ref, far + 1, 1), taken);
    case DATES_YEARS:
    case DATES_DECADES:
    default:
        break;
    }
    int64_t years = unit == DATES_DECADES ? 10 : 1, wide = unit == DATES_DECADES ? 2 : 0;
    int64_t january = 1 - ref->now.month;
    return dates_span_days(out, month_day(ref, january + 12 * (near * years - wide), 1),
        month_day(ref, january + 12 * (far * years + wide + 1), 1), taken);
}

/* "the last three weeks" (sign -1: up to now), "the next three weeks". */
size_t dates_span_beside(const struct dates_reference *ref, struct dates_amount amount,
    enum dates_unit unit, int sign, struct dates_piece *out, size_t taken)
{
    int64_t high = amount.high * sign, day = ref->today;
    int at = ref->now.day;
    switch (unit) {
    case DATES_HOURS:
        dates_span_days(out, 0, 0, taken);
        out->from_us = ref->us + (sign < 0 ? high * RETRIEVAL_HOUR_US : 0);
        out->to_us = ref->us + (sign < 0 ? 1 : high * RETRIEVAL_HOUR_US);
        return taken;
    case DATES_DAYS:
        day += high;
        break;
    case DATES_WEEKS:
    case DATES_WEEKENDS:
        day += 7 * high;
        break;
    case DATES_MONTHS:
        day = month_day(ref, high, at);
        break;
    case DATES_YEARS:
        day = month_day(ref, 12 * high, at);
        break;
    case DATES_DECADES:
    default:
        day = month_day(ref, 120 * high, at);
        break;
    }
    return sign < 0 ? dates_span_days(out, day, ref->today + 1, taken)
                    : dates_span_days(out, ref->today, day + 1, taken);
}

/* "last week" (shift -1), "this week", "next week": what the calendar calls so. */
size_t dates_span_calendar(const struct dates_reference *ref, enum dates_unit unit, int shift,
    struct dates_piece *out, size_t taken)
{
    int64_t january = 1 - ref->now.month, decade = january - 12 * (ref->now.year % 10);
    switch (unit) {
    case DATES_DAYS:
        return dates_span_days(out, ref->today + shift, ref->today + shift + 1, taken);
    case DATES_WEEKS:
        return dates_span_days(out, monday(ref) + 7 * shift, monday(ref) + 7 * shift + 7, taken);
    case DATES_WEEKENDS:
        return dates_span_days(
            out, monday(ref) + 7 * shift + 5, monday(ref) + 7 * shift + 7, taken);
    case DATES_MONTHS:
        return dates_span_days(out, month_day(ref, shift, 1), month_day(ref, shift + 1, 1), taken);
    case DATES_YEARS:
        return dates_span_days(out, month_day(ref, january + 12 * shift, 1),
            month_day(ref, january + 12 * (shift + 1), 1), taken);
    case DATES_DECADES:
        return dates_span_days(out, month_day(ref, decade + 120 * shift, 1),
            month_day(ref, decade + 120 * (shift + 1), 1), taken);
    case DATES_HOURS:
    default:
        return 0;
    }
}

/* A weekday: open and last are before today, next is after it, this is in the running week. */
void dates_span_weekday(
    const struct dates_reference *ref, int weekday, enum dates_side side, struct dates_piece *out)
{
    int64_t day = monday(ref) + weekday;
    if (side == DATES_SIDE_NEXT) {
        day += day <= ref->today ? 7 : 0;
    } else if (side != DATES_SIDE_THIS) {
        day -= day >= ref->today ? 7 : 0;
    }
    dates_span_days(out, day, day + 1, 0);
}

/* A part of the day that the span begins with. */
void dates_span_part(struct dates_piece *piece, enum dates_part part)
{
    static const struct {
        int from, to; /* hours */
    } hours[] = {{0, 12}, {12, 18}, {17, 24}, {18, 30}};
    int64_t day = piece->from_us;
    piece->from_us = day + hours[part].from * RETRIEVAL_HOUR_US;
    piece->to_us = day + hours[part].to * RETRIEVAL_HOUR_US;
}

/* A season by its first month, in a year; the winter of a year began in the December before. */
size_t dates_span_season(int year, int month, bool relative, struct dates_piece *out, size_t taken)
{
    int from_year = month == 12 ? year - 1 : year;
    int64_t from = retrieval_days_of(from_year, month, 1);
    int64_t to =
        month == 12 ? retrieval_days_of(year, 3, 1) : retrieval_days_of(year, month + 3, 1);
    dates_span_days(out, from, to, taken);
    out->relative = relative;
    return taken;
}

/* The year of the recurring range (given for a year by `make`) that lies on a side of today: open
 * is the latest that has begun, this is of the running year. */
void dates_span_recurring(const struct dates_reference *ref, dates_recurring_fn *make, int which,
    enum dates_side side, struct dates_piece *out)
{
    int64_t today = ref->today * RETRIEVAL_DAY_US, tomorrow = today + RETRIEVAL_DAY_US;
    if (side == DATES_SIDE_THIS) {
        make(ref->now.year, which, out);
    } else if (side == DATES_SIDE_NEXT) {
        for (int year = ref->now.year; year <= ref->now.year + 1; year++) {
            make(year, which, out);
            if (out->from_us >= tomorrow) {
                break;
            }
        }
    } else {
        for (int year = ref->now.year + 1; year >= ref->now.year - 1; year--) {
            make(year, which, out);
            if (side == DATES_SIDE_LAST ? out->to_us <= today : out->from_us <= today) {
                break;
            }
        }
    }
    out->relative = true;
}

void dates_season_make(int year, int month, struct dates_piece *out)
{
    (void)dates_span_season(year, month, true, out, 0);
}

/* Easter Sunday (the anonymous Gregorian algorithm; Meeus, 1991, ch. 8). */
static int64_t easter(int year)
{
    int a = year % 19, b = year / 100, c = year % 100;
    int d = b / 4, e = b % 4, f = (b + 8) / 25, g = (b - f + 1) / 3;
    int h = (19 * a + b - d - g + 15) % 30, i = c / 4, k = c % 4;
    int l = (32 + 2 * e + 2 * i - h - k) % 7, m = (a + 11 * h + 22 * l) / 451;
    int n = h + l - 7 * m + 114;
    return retrieval_days_of(year, n / 31, n % 31 + 1);
}

void dates_holiday_make(int year, int holiday, struct dates_piece *out)
{
    int64_t day = 0, days = 1;
    switch ((enum dates_holiday)holiday) {
    case DATES_CHRISTMAS:
        day = retrieval_days_of(year, 12, 24);
        days = 3;
        break;
    case DATES_CHRISTMAS_EVE:
        day = retrieval_days_of(year, 12, 24);
        break;
    case DATES_NEW_YEAR:
        day = retrieval_days_of(year, 1, 1);
        break;
    case DATES_NEW_YEARS_EVE:
        day = retrieval_days_of(year, 12, 31);
        break;
    case DATES_VALENTINE:
        day = retrieval_days_of(year, 2, 14);
        break;
    case DATES_HALLOWEEN:
        day = retrieval_days_of(year, 10, 31);
        break;
    case DATES_THANKSGIVING: /* the fourth Thursday of November */
        day = retrieval_days_of(year, 11, 22);
        day += (3 - retrieval_weekday_of(day) + 7) % 7;
        break;
    case DATES_EASTER: /* Friday to Monday */
    default:
        day = easter(year) - 2;
        days = 4;
        break;
    }
    dates_span_days(out, day, day + days, 0);
}

/* ---- from pieces to spans ------------------------------------------------------------------ */

/* The day of a month that is nearest to today. */
static int64_t nearest_day(const struct dates_reference *ref, const struct dates_piece *piece)
{
    int64_t best = 0, best_away = INT64_MAX;
    for (int year = ref->now.year - 4; year <= ref->now.year + 4; year++) {
        if (piece->day > retrieval_month_days(year, piece->month)) {
            continue; /* the 29th of February */
        }
        int64_t day = retrieval_days_of(year, piece->month, piece->day);
        int64_t away = day < ref->today ? ref->today - day : day - ref->today;
        if (away < best_away) {
            best = day;
            best_away = away;
        }
    }
    return best;
}

static bool resolve_day(const struct dates_reference *ref, struct dates_piece *piece)
{
    int64_t day;
    bool relative = piece->year == 0;
    if (relative && !ref->known) {
        return false;
    }
    if (!relative) {
        day = retrieval_days_of(piece->year, piece->month, piece->day);
    } else if (piece->month != 0) {
        day = nearest_day(ref, piece);
    } else { /* "the 3rd": the latest */
        int back = piece->day > ref->now.day ? 1 : 0;
        day = month_day(ref, -back, piece->day);
    }
    dates_span_days(piece, day, day + (piece->days ? piece->days : 1), 0);
    piece->relative = relative;
    return true;
}

static bool resolve_month(const struct dates_reference *ref, struct dates_piece *piece)
{
    int year = piece->year;
    bool relative = year == 0;
    if (relative && !ref->known) {
        return false;
    }
    if (relative) {
        bool later = piece->side == DATES_SIDE_LAST ? piece->month >= ref->now.month
                                                    : piece->month > ref->now.month;
        year = ref->now.year;
        if (piece->side == DATES_SIDE_NEXT) {
            year += later ? 0 : 1;
        } else if (piece->side != DATES_SIDE_THIS) {
            year -= later ? 1 : 0;
        }
    }
    int64_t first = retrieval_days_of(year, piece->month, 1);
    dates_span_days(piece, first, first + retrieval_month_days(year, piece->month), 0);
    piece->relative = relative;
    return true;
}

/* Make a piece a span. False when it needs a reference that there is not. */
bool dates_resolve(const struct dates_reference *ref, struct dates_piece *piece)
{
    enum dates_third third = piece->third;
    switch (piece->form) {
    case DATES_FORM_DAY:
        if (!resolve_day(ref, piece)) {
            return false;
        }
        break;
    case DATES_FORM_MONTH:
        if (!resolve_month(ref, piece)) {
            return false;
        }
        break;
    case DATES_FORM_YEAR:
        dates_span_days(piece, retrieval_days_of(piece->year, 1, 1),
            retrieval_days_of(piece->year + 1, 1, 1), 0);
        piece->relative = false;
        break;
    case DATES_FORM_SPAN:
    default:
        break;
    }
    if (third != DATES_THIRD_ALL) {
        int64_t length = (piece->to_us - piece->from_us) / 3;
        piece->from_us += third == DATES_THIRD_MID    ? length
                          : third == DATES_THIRD_LATE ? 2 * length
                                                      : 0;
        piece->to_us = piece->from_us + length;
    }
    return true;
}
