/* The grammar of dates: from tokens to pieces (a day, a month, a year, or a span that is resolved
 * at once), and from pieces to ranges.
 *
 * A parse function looks at the tokens from place `i` on and gives how many it has taken; 0 when
 * what is there is not its. */
#include "retrieval/dates.h"

#include "retrieval/dates_span.h"

#define YEAR_FIRST 1900
#define YEAR_LAST 2099
#define COUNT_MAX 1000
#define PIECE_TOKENS_MAX                                                                           \
    10 /* no piece has more; two of them, with what joins them, are looked at */

struct parsing {
    struct dates_reader *reader;
    struct dates_reference ref;
};

static const struct dates_token *token(const struct parsing *p, size_t i)
{
    return dates_token(p->reader, i);
}

static bool is(const struct parsing *p, size_t i, enum dates_class class)
{
    return token(p, i)->class == class;
}

static bool is_sign(const struct parsing *p, size_t i, char sign)
{
    return is(p, i, DATES_SIGN) && token(p, i)->value == sign;
}

static bool is_number(const struct parsing *p, size_t i, int least, int most)
{
    const struct dates_token *t = token(p, i);
    return t->class == DATES_NUMBER && t->digits <= 4 && t->value >= least && t->value <= most;
}

/* A day or a month: one or two digits. */
static bool is_short(const struct parsing *p, size_t i, int most)
{
    return is_number(p, i, 1, most) && token(p, i)->digits <= 2;
}

/* Four digits that are a year, and not a part of a larger number, an amount of money or a name. */
static bool is_year(const struct parsing *p, size_t i)
{
    const struct dates_token *after = token(p, i + 1);
    if (!is_number(p, i, YEAR_FIRST, YEAR_LAST) || token(p, i)->digits != 4) {
        return false;
    }
    bool parted = after->class == DATES_SIGN && (after->value == '.' || after->value == ',' ||
                                                    after->value == ':' || after->value == '/');
    if (after->glued && after->class != DATES_SIGN) {
        return false;
    }
    if (after->glued && (after->value == '%' || after->value == '$')) {
        return false;
    }
    return !(parted && after->glued && is(p, i + 2, DATES_NUMBER) && token(p, i + 2)->glued);
}

/* ---- years, months and days ---------------------------------------------------------------- */

/* An optional year after a month or a day: "2023", ", 2023", "of 2023". */
static size_t parse_year_after(const struct parsing *p, size_t i, int *out_year)
{
    size_t skip = is_sign(p, i, ',') || is(p, i, DATES_OF) ? 1 : 0;
    *out_year = is_year(p, i + skip) ? token(p, i + skip)->value : 0;
    return *out_year ? skip + 1 : 0;
}

static size_t day_make(int year, int month, int day, struct dates_piece *out, size_t taken)
{
    /* Of a day without year, leap years count. */
    if (month < 1 || month > 12 || day < 1 ||
        day > retrieval_month_days(year ? year : 2000, month)) {
        return 0;
    }
    *out = (struct dates_piece){.form = DATES_FORM_DAY, .year = year, .month = month, .day = day};
    return taken;
}

/* 2023-05-08, 2023/5/8, 2023-05; a T and a time after it are none of ours. */
static size_t parse_iso(const struct parsing *p, size_t i, struct dates_piece *out)
{
    const struct dates_token *sign = token(p, i + 1);
    bool joined = sign->class == DATES_SIGN && sign->glued &&
                  (sign->value == '-' || sign->value == '/') && token(p, i + 2)->glued;
    if (!is_number(p, i, 1000, 2999) || token(p, i)->digits != 4 || !joined ||
        !is_short(p, i + 2, 12)) {
        return 0;
    }
    if (is_sign(p, i + 3, (char)sign->value) && token(p, i + 3)->glued && token(p, i + 4)->glued &&
        is_short(p, i + 4, 31)) {
        return day_make(token(p, i)->value, token(p, i + 2)->value, token(p, i + 4)->value, out, 5);
    }
    if (sign->value != '-' || token(p, i + 2)->digits != 2 ||
        (is_sign(p, i + 3, '-') && token(p, i + 3)->glued)) {
        return 0;
    }
    *out = (struct dates_piece){
        .form = DATES_FORM_MONTH, .year = token(p, i)->value, .month = token(p, i + 2)->value};
    return 3;
}

/* 5/8/2023, 5-8-2023 (month first, unless it cannot be), 8.5.2023 (day first). */
static size_t parse_slashed(const struct parsing *p, size_t i, struct dates_piece *out)
{
    const struct dates_token *sign = token(p, i + 1), *last = token(p, i + 4);
    bool dots = sign->value == '.';
    if (!is_short(p, i, 31) || sign->class != DATES_SIGN ||
        (sign->value != '/' && sign->value != '-' && !dots) || !is_short(p, i + 2, 31) ||
        !is_sign(p, i + 3, (char)sign->value) || !is_number(p, i + 4, 0, 2999)) {
        return 0;
    }
    for (size_t at = i + 1; at <= i + 4; at++) {
        if (!token(p, at)->glued) {
            return 0;
        }
    }
    int year = last->value;
    if (last->digits == 2 && !dots) {
        year += year < 70 ? 2000 : 1900;
    } else if (last->digits != 4 || year < 1000) {
        return 0;
    }
    int a = token(p, i)->value, b = token(p, i + 2)->value;
    bool day_first = dots || a > 12;
    return day_make(year, day_first ? b : a, day_first ? a : b, out, 5);
}

/* A day of a month: "8", "8th", "third". */
static size_t parse_day_number(const struct parsing *p, size_t i, int *out_day, bool *out_ordinal)
{
    *out_ordinal = false;
    if (is(p, i, DATES_ORDINAL)) {
        *out_day = token(p, i)->value;
        *out_ordinal = true;
        return 1;
    }
    if (is(p, i, DATES_COUNT) && token(p, i)->value >= 20 && is_sign(p, i + 1, '-') &&
        is(p, i + 2, DATES_ORDINAL) && token(p, i + 2)->value < 10) {
        *out_day = token(p, i)->value + token(p, i + 2)->value; /* twenty-first */
        *out_ordinal = true;
        return 3;
    }
    if (!is_short(p, i, 31)) {
        return 0;
    }
    *out_day = token(p, i)->value;
    *out_ordinal = is(p, i + 1, DATES_SUFFIX) && token(p, i + 1)->glued;
    return *out_ordinal ? 2 : 1;
}

/* "8 May 2023", "8th of May", "3-5 May", "third of June". */
static size_t parse_day_month(const struct parsing *p, size_t i, struct dates_piece *out)
{
    int day, last = 0, year;
    bool ordinal, ignored;
    size_t at = parse_day_number(p, i, &day, &ordinal);
    if (at == 0) {
        return 0;
    }
    if (is_sign(p, i + at, '-') || is(p, i + at, DATES_TO)) {
        size_t more = parse_day_number(p, i + at + 1, &last, &ignored);
        at += more ? more + 1 : 0;
    }
    bool of = is(p, i + at, DATES_OF);
    at += of ? 1 : 0;
    const struct dates_token *month = token(p, i + at);
    if (month->class != DATES_MONTH) {
        return 0;
    }
    at++;
    size_t with_year = parse_year_after(p, i + at, &year);
    /* "20 may be enough" */
    if (month->ambiguous && !month->capital && !of && !ordinal && !with_year) {
        return 0;
    }
    size_t taken = day_make(year, month->value, day, out, at + with_year);
    if (taken && last > day) {
        out->days = last - day + 1;
    }
    return taken;
}

/* "May 8, 2023", "May 8th", "June the 3rd", "May 3-5". */
static size_t parse_month_day(const struct parsing *p, size_t i, struct dates_piece *out)
{
    const struct dates_token *month = token(p, i);
    int day, last = 0, year;
    bool ordinal, ignored;
    if (month->class != DATES_MONTH) {
        return 0;
    }
    size_t at = is_sign(p, i + 1, '.') && token(p, i + 1)->glued ? 2 : 1;
    at += is(p, i + at, DATES_THE) ? 1 : 0;
    size_t number = parse_day_number(p, i + at, &day, &ordinal);
    if (number == 0 || (is(p, i + at, DATES_ORDINAL) && token(p, i + at)->ambiguous)) {
        return 0;
    }
    at += number;
    if ((is_sign(p, i + at, '-') && token(p, i + at)->glued) || is(p, i + at, DATES_TO)) {
        size_t more = parse_day_number(p, i + at + 1, &last, &ignored);
        at += more && last > day ? more + 1 : 0;
    }
    size_t with_year = parse_year_after(p, i + at, &year);
    if (month->ambiguous && !month->capital && !ordinal && !with_year) {
        return 0;
    }
    size_t taken = day_make(year, month->value, day, out, at + with_year);
    if (taken && last > day) {
        out->days = last - day + 1;
    }
    return taken;
}

/* "May 2023", "May of 2023"; alone, "may" and "march" only when what stands around says that a date
 * comes. */
static size_t parse_month(const struct parsing *p, size_t i, bool announced, enum dates_side side,
    struct dates_piece *out)
{
    const struct dates_token *month = token(p, i);
    int year;
    if (month->class != DATES_MONTH) {
        return 0;
    }
    size_t dot = is_sign(p, i + 1, '.') && token(p, i + 1)->glued && is_year(p, i + 2) ? 1 : 0;
    size_t with_year = parse_year_after(p, i + 1 + dot, &year);
    bool joined = (is(p, i + 1, DATES_TO) || is_sign(p, i + 1, '-')) && is(p, i + 2, DATES_MONTH);
    if (!with_year && !announced && !joined && month->ambiguous) {
        return 0;
    }
    *out = (struct dates_piece){
        .form = DATES_FORM_MONTH, .year = year, .month = month->value, .side = side};
    return 1 + (with_year ? dot + with_year : 0);
}

/* "2022", "1990s", "the 90s". */
static size_t parse_year(const struct parsing *p, size_t i, struct dates_piece *out)
{
    const struct dates_token *number = token(p, i);
    if (number->class == DATES_NUMBER && is(p, i + 1, DATES_S) && token(p, i + 1)->glued &&
        number->value % 10 == 0) {
        int year = number->value;
        if (number->digits == 2 && year >= 20) {
            year += 1900;
        }
        if (year < YEAR_FIRST || year > YEAR_LAST) {
            return 0;
        }
        dates_span_days(out, retrieval_days_of(year, 1, 1), retrieval_days_of(year + 10, 1, 1), 0);
        out->relative = false;
        return 2;
    }
    bool inside = i > 0 && token(p, i)->glued && is(p, i - 1, DATES_SIGN) &&
                  token(p, i - 1)->value != '(' && token(p, i - 1)->value != '-';
    if (inside || !is_year(p, i)) {
        return 0;
    }
    *out = (struct dates_piece){.form = DATES_FORM_YEAR, .year = number->value};
    return 1;
}

static size_t parse_season(const struct parsing *p, size_t i, bool announced, enum dates_side side,
    struct dates_piece *out)
{
    int year;
    if (!is(p, i, DATES_SEASON)) {
        return 0;
    }
    size_t with_year = parse_year_after(p, i + 1, &year);
    if (with_year) {
        return dates_span_season(year, token(p, i)->value, false, out, 1 + with_year);
    }
    if (!announced || !p->ref.known) {
        return 0;
    }
    dates_span_recurring(&p->ref, dates_season_make, token(p, i)->value, side, out);
    return 1;
}

/* "Christmas", "Christmas Eve 2022", "New Year's Day". */
static size_t parse_holiday(
    const struct parsing *p, size_t i, enum dates_side side, struct dates_piece *out)
{
    const struct dates_token *first = token(p, i);
    int which = first->value, year;
    size_t at = 1;
    bool eve = false;
    if (first->class == DATES_WORD && first->value == 2 && first->capital &&
        is(p, i + 1, DATES_UNIT) && token(p, i + 1)->value == DATES_YEARS) {
        which = DATES_NEW_YEAR;
        at = 2;
    } else if (first->class != DATES_HOLIDAY) {
        return 0;
    }
    eve = is(p, i + at, DATES_WORD) && token(p, i + at)->value == 1;
    if (eve || (is(p, i + at, DATES_UNIT) && token(p, i + at)->value == DATES_DAYS)) {
        at++;
    }
    if (eve && which == DATES_CHRISTMAS) {
        which = DATES_CHRISTMAS_EVE;
    } else if (eve && which == DATES_NEW_YEAR) {
        which = DATES_NEW_YEARS_EVE;
    }
    size_t with_year = parse_year_after(p, i + at, &year);
    if (with_year) {
        dates_holiday_make(year, which, out);
        out->relative = false;
    } else if (p->ref.known) {
        dates_span_recurring(&p->ref, dates_holiday_make, which, side, out);
    } else {
        return 0;
    }
    return at + with_year;
}

/* ---- what the reference resolves ----------------------------------------------------------- */

/* "two", "17", "a", "a few", "a couple of"; not "the". */
static size_t parse_amount(const struct parsing *p, size_t i, struct dates_amount *out)
{
    size_t at = 0;
    if (is(p, i, DATES_COUNT) && token(p, i)->value == 1 && is(p, i + 1, DATES_VAGUE)) {
        at = 1;
    }
    const struct dates_token *t = token(p, i + at);
    if (t->class == DATES_VAGUE) {
        *out = t->value == 2   ? (struct dates_amount){1, 3}
               : t->value == 3 ? (struct dates_amount){2, 6}
                               : (struct dates_amount){3, 10};
        at++;
        return at + (is(p, i + at, DATES_OF) ? 1 : 0);
    }
    if (t->class == DATES_COUNT || is_number(p, i + at, 1, COUNT_MAX)) {
        *out = (struct dates_amount){t->value, t->value};
        return at + 1;
    }
    return 0;
}

/* "two weeks ago", "a few days ago", "two weeks from now"; after "in" (future true): "two weeks".
 */
static size_t parse_away(const struct parsing *p, size_t i, bool future, struct dates_piece *out)
{
    struct dates_amount amount;
    size_t at = p->ref.known ? parse_amount(p, i, &amount) : 0;
    if (at == 0 || !is(p, i + at, DATES_UNIT)) {
        return 0;
    }
    enum dates_unit unit = (enum dates_unit)token(p, i + at)->value;
    at++;
    if (is(p, i + at, DATES_AGO)) {
        return dates_span_away(&p->ref, amount, unit, -1, out, at + 1);
    }
    if (is(p, i + at, DATES_FROM) &&
        (is(p, i + at + 1, DATES_NOW) ||
            (is(p, i + at + 1, DATES_TODAY) && token(p, i + at + 1)->value == 0))) {
        return dates_span_away(&p->ref, amount, unit, 1, out, at + 2);
    }
    return future ? dates_span_away(&p->ref, amount, unit, 1, out, at) : 0;
}

/* What "last", "this" or "next" stands before. */
static size_t parse_sided(
    const struct parsing *p, size_t i, enum dates_side side, struct dates_piece *out)
{
    static const int shifts[] = {0, -1, 0, 1};
    const struct dates_token *t = token(p, i);
    struct dates_amount amount;
    switch (t->class) {
    case DATES_UNIT:
        if (t->value == DATES_DAYS && side != DATES_SIDE_THIS) {
            return 0; /* "the next day": of a story, not of the reference */
        }
        return dates_span_calendar(&p->ref, (enum dates_unit)t->value, shifts[side], out, 1);
    case DATES_WEEKDAY:
        dates_span_weekday(&p->ref, t->value, side, out);
        return 1;
    case DATES_MONTH:
        return parse_month(p, i, true, side, out);
    case DATES_SEASON:
        return parse_season(p, i, true, side, out);
    case DATES_HOLIDAY:
        return parse_holiday(p, i, side, out);
    case DATES_PART:
        if (side == DATES_SIDE_NEXT || (side == DATES_SIDE_LAST && t->value == DATES_MORNING)) {
            return 0;
        }
        dates_span_days(out, p->ref.today - (side == DATES_SIDE_LAST), p->ref.today + 1, 1);
        dates_span_part(out, (enum dates_part)t->value);
        return 1;
    default:
        break;
    }
    size_t at = side == DATES_SIDE_THIS ? 0 : parse_amount(p, i, &amount);
    if (at == 0 || !is(p, i + at, DATES_UNIT)) {
        return 0;
    }
    return dates_span_beside(&p->ref, amount, (enum dates_unit)token(p, i + at)->value,
        side == DATES_SIDE_LAST ? -1 : 1, out, at + 1);
}

/* "last week", "this past Friday", "next May", "past three months"; `rolling`: after "the" or "in
 * the", where "last week" means the seven days up to now. */
static size_t parse_relative(
    const struct parsing *p, size_t i, bool rolling, struct dates_piece *out)
{
    enum dates_class class = token(p, i)->class;
    struct dates_amount one = {1, 1};
    size_t at = 1;
    if (!p->ref.known || (class != DATES_LAST && class != DATES_PAST && class != DATES_NEXT &&
                             class != DATES_THIS)) {
        return 0;
    }
    if (class == DATES_THIS &&
        (is(p, i + 1, DATES_PAST) || is(p, i + 1, DATES_LAST) || is(p, i + 1, DATES_NEXT))) {
        class = token(p, i + 1)->class;
        at = 2;
    }
    rolling = rolling || class == DATES_PAST;
    const struct dates_token *t = token(p, i + at);
    if (rolling && t->class == DATES_UNIT && t->value != DATES_WEEKENDS &&
        (class == DATES_LAST || class == DATES_PAST)) {
        return dates_span_beside(&p->ref, one, (enum dates_unit)t->value, -1, out, at + 1);
    }
    enum dates_side side = class == DATES_NEXT   ? DATES_SIDE_NEXT
                           : class == DATES_THIS ? DATES_SIDE_THIS
                                                 : DATES_SIDE_LAST;
    size_t taken = parse_sided(p, i + at, side, out);
    return taken ? at + taken : 0;
}

/* After "the": "day before yesterday", "week before last", "other day", "weekend", "3rd". */
static size_t parse_the(const struct parsing *p, size_t i, struct dates_piece *out)
{
    const struct dates_token *t = token(p, i);
    int day;
    bool ordinal;
    if (t->class == DATES_UNIT && p->ref.known) {
        const struct dates_token *third = token(p, i + 2);
        bool before = is(p, i + 1, DATES_BEFORE), after = is(p, i + 1, DATES_AFTER);
        if (t->value == DATES_DAYS && third->class == DATES_TODAY &&
            ((before && third->value == -1) || (after && third->value == 1))) {
            int64_t days = before ? -2 : 2;
            return dates_span_days(out, p->ref.today + days, p->ref.today + days + 1, 3);
        }
        if ((before && third->class == DATES_LAST) || (after && third->class == DATES_NEXT)) {
            return dates_span_calendar(&p->ref, (enum dates_unit)t->value, before ? -2 : 2, out, 3);
        }
        if (t->value == DATES_WEEKENDS) {
            return dates_span_calendar(
                &p->ref, DATES_WEEKENDS, retrieval_weekday_of(p->ref.today) >= 5 ? 0 : -1, out, 1);
        }
        return 0;
    }
    if (t->class == DATES_OTHER && is(p, i + 1, DATES_UNIT) && p->ref.known &&
        token(p, i + 1)->value == DATES_DAYS) {
        return dates_span_days(out, p->ref.today - 7, p->ref.today, 2);
    }
    size_t taken = parse_day_number(p, i, &day, &ordinal);
    if (taken && ordinal && !is(p, i, DATES_ORDINAL)) {
        *out = (struct dates_piece){.form = DATES_FORM_DAY, .day = day};
        return taken;
    }
    return 0;
}

/* "first week of May 2023". */
static size_t parse_week_of(const struct parsing *p, size_t i, struct dates_piece *out)
{
    int year;
    if (!is(p, i, DATES_ORDINAL) || token(p, i)->value > 4 || !is(p, i + 1, DATES_UNIT) ||
        token(p, i + 1)->value != DATES_WEEKS || !is(p, i + 2, DATES_OF) ||
        !is(p, i + 3, DATES_MONTH)) {
        return 0;
    }
    size_t with_year = parse_year_after(p, i + 4, &year);
    size_t taken =
        day_make(year, token(p, i + 3)->value, 7 * token(p, i)->value - 6, out, 4 + with_year);
    out->days = 7;
    return taken;
}

/* ---- pieces -------------------------------------------------------------------------------- */

static size_t parse_piece(
    const struct parsing *p, size_t i, bool announced, bool nested, struct dates_piece *out);

/* "early May", "mid-2022", "the end of last month". */
static size_t parse_third(const struct parsing *p, size_t i, struct dates_piece *out)
{
    enum dates_class class = token(p, i)->class;
    size_t at = 1;
    if (class != DATES_EARLY && class != DATES_MID && class != DATES_LATE) {
        return 0;
    }
    while (at < 3 && (is(p, i + at, DATES_OF) || is_sign(p, i + at, '-') ||
                         is(p, i + at, DATES_IN) || is(p, i + at, DATES_THE))) {
        at++;
    }
    size_t taken = parse_piece(p, i + at, true, true, out);
    if (taken == 0 || out->form == DATES_FORM_DAY) {
        return 0;
    }
    out->third = class == DATES_EARLY ? DATES_THIRD_EARLY
                 : class == DATES_MID ? DATES_THIRD_MID
                                      : DATES_THIRD_LATE;
    return at + taken;
}

/* "Friday", "Friday, 5 May", "Friday night". */
static size_t parse_weekday(
    const struct parsing *p, size_t i, bool announced, struct dates_piece *out)
{
    if (!is(p, i, DATES_WEEKDAY)) {
        return 0;
    }
    size_t at = is_sign(p, i + 1, ',') || is_sign(p, i + 1, '.') ? 2 : 1;
    at += is(p, i + at, DATES_THE) ? 1 : 0;
    size_t taken = parse_month_day(p, i + at, out);
    taken = taken ? taken : parse_day_month(p, i + at, out);
    taken = taken ? taken : parse_iso(p, i + at, out);
    if (taken) {
        return at + taken;
    }
    if (!p->ref.known || (token(p, i)->ambiguous && !(announced && token(p, i)->capital))) {
        return 0;
    }
    dates_span_weekday(&p->ref, token(p, i)->value, DATES_SIDE_OPEN, out);
    return 1;
}

static size_t parse_today(const struct parsing *p, size_t i, struct dates_piece *out)
{
    const struct dates_token *t = token(p, i);
    if (!p->ref.known || (t->class != DATES_TODAY && t->class != DATES_TONIGHT)) {
        return 0;
    }
    dates_span_days(out, p->ref.today + t->value, p->ref.today + t->value + 1, 0);
    if (t->class == DATES_TONIGHT) {
        dates_span_part(out, DATES_NIGHT);
    }
    return 1;
}

/* Anything that is one date. */
static size_t parse_bare(
    const struct parsing *p, size_t i, bool announced, bool nested, struct dates_piece *out)
{
    switch (token(p, i)->class) {
    case DATES_NUMBER: {
        if (i == 0 && token(p, 0)->inner) {
            return 0;
        }
        size_t taken = parse_iso(p, i, out);
        taken = taken ? taken : parse_slashed(p, i, out);
        taken = taken ? taken : parse_day_month(p, i, out);
        taken = taken ? taken : parse_away(p, i, false, out);
        return taken ? taken : parse_year(p, i, out);
    }
    case DATES_ORDINAL: {
        size_t taken = parse_week_of(p, i, out);
        return taken ? taken : parse_day_month(p, i, out);
    }
    case DATES_COUNT: {
        size_t taken = parse_away(p, i, false, out);
        return taken ? taken : parse_day_month(p, i, out);
    }
    case DATES_VAGUE:
        return parse_away(p, i, false, out);
    case DATES_MONTH: {
        size_t taken = parse_month_day(p, i, out);
        return taken ? taken : parse_month(p, i, announced, DATES_SIDE_OPEN, out);
    }
    case DATES_WEEKDAY:
        return parse_weekday(p, i, announced, out);
    case DATES_SEASON:
        return parse_season(p, i, announced, DATES_SIDE_OPEN, out);
    case DATES_HOLIDAY:
    case DATES_WORD:
        return parse_holiday(p, i, DATES_SIDE_OPEN, out);
    case DATES_TODAY:
    case DATES_TONIGHT:
        return parse_today(p, i, out);
    case DATES_EARLY:
    case DATES_MID:
    case DATES_LATE:
        return nested ? 0 : parse_third(p, i, out);
    default:
        return parse_relative(p, i, false, out);
    }
}

/* The same, with what may stand before ("in the", "on") and after it ("morning"). */
static size_t parse_piece(
    const struct parsing *p, size_t i, bool announced, bool nested, struct dates_piece *out)
{
    bool in = is(p, i, DATES_IN), before = in || is(p, i, DATES_ON);
    size_t at = before ? 1 : 0;
    bool the = is(p, i + at, DATES_THE);
    at += the ? 1 : 0;
    announced = announced || before || the;
    size_t taken = 0;
    if (in && !the && token(p, i)->value == 0) {
        taken = parse_away(p, i + at, true, out);
    }
    enum dates_class next = token(p, i + at)->class;
    bool relative = next == DATES_LAST || next == DATES_PAST || next == DATES_NEXT;
    if (the) {
        taken = parse_relative(p, i + at, true, out);
        taken = taken || relative ? taken : parse_bare(p, i + at, true, nested, out);
        taken = taken ? taken : parse_the(p, i + at, out);
    }
    if (taken == 0 && !the) {
        taken = parse_bare(p, i + at, announced, nested, out);
    }
    if (taken == 0) {
        return 0;
    }
    at += taken;
    if (is(p, i + at, DATES_PART) && out->form == DATES_FORM_SPAN &&
        out->to_us - out->from_us == RETRIEVAL_DAY_US) {
        dates_span_part(out, (enum dates_part)token(p, i + at)->value);
        at++;
    }
    return at;
}

/* ---- two ends -------------------------------------------------------------------------------- */

/* Give the first of two ends what only the second says: "between May and July 2023". */
static void complete(struct dates_piece *from, const struct dates_piece *to)
{
    if (from->form == DATES_FORM_DAY && from->month == 0 && to->form == DATES_FORM_DAY) {
        from->month = to->month;
        from->year = to->year;
    } else if ((from->form == DATES_FORM_MONTH || from->form == DATES_FORM_DAY) &&
               from->year == 0 && (to->form == DATES_FORM_MONTH || to->form == DATES_FORM_DAY) &&
               to->year != 0) {
        from->year = to->year - (from->month > to->month);
    }
}

static bool join(const struct parsing *p, struct dates_piece *from, struct dates_piece *to,
    struct dates_piece *out)
{
    complete(from, to);
    if (!dates_resolve(&p->ref, from) || !dates_resolve(&p->ref, to) ||
        to->to_us <= from->from_us) {
        return false;
    }
    dates_span_days(out, 0, 0, 0);
    out->from_us = from->from_us;
    out->to_us = to->to_us;
    out->relative = from->relative || to->relative;
    return true;
}

/* "between A and B", "from A to B". */
static size_t parse_between(const struct parsing *p, size_t i, struct dates_piece *out)
{
    struct dates_piece from, to;
    int day;
    bool ordinal, between = is(p, i, DATES_BETWEEN);
    if (!between && !is(p, i, DATES_FROM)) {
        return 0;
    }
    size_t at = parse_piece(p, i + 1, true, false, &from);
    if (at == 0) {
        size_t the = is(p, i + 1, DATES_THE) ? 1 : 0;
        at = parse_day_number(p, i + 1 + the, &day, &ordinal);
        from = (struct dates_piece){.form = DATES_FORM_DAY, .day = day};
        at += at ? the : 0;
    }
    if (at == 0 || at > PIECE_TOKENS_MAX) {
        return 0;
    }
    at++;
    bool joined =
        between ? is(p, i + at, DATES_AND) : is(p, i + at, DATES_TO) || is(p, i + at, DATES_UNTIL);
    size_t second = joined ? parse_piece(p, i + at + 1, true, false, &to) : 0;
    if (second == 0 || (from.form == DATES_FORM_DAY && from.month == 0 &&
                           !(to.form == DATES_FORM_DAY && to.month != 0))) {
        return 0;
    }
    return join(p, &from, &to, out) ? at + 1 + second : 0;
}

/* "since A", "after A", "until A", "before A". */
static size_t parse_open(const struct parsing *p, size_t i, struct dates_piece *out)
{
    enum dates_class class = token(p, i)->class;
    if (class != DATES_SINCE && class != DATES_AFTER && class != DATES_UNTIL &&
        class != DATES_BEFORE) {
        return 0;
    }
    size_t taken = parse_piece(p, i + 1, true, false, out);
    if (taken == 0 || !dates_resolve(&p->ref, out)) {
        return 0;
    }
    int64_t tomorrow = (p->ref.today + 1) * RETRIEVAL_DAY_US;
    if (class == DATES_SINCE) {
        bool past = p->ref.known && out->from_us < tomorrow;
        out->to_us = past ? tomorrow : RETRIEVAL_DATE_END;
    } else if (class == DATES_AFTER) {
        out->from_us = out->to_us;
        out->to_us = RETRIEVAL_DATE_END;
    } else {
        out->to_us = class == DATES_UNTIL ? out->to_us : out->from_us;
        out->from_us = RETRIEVAL_DATE_BEGIN;
    }
    return 1 + taken;
}

/* One date, or two that are joined: "May to July 2023", "2016-2018". */
static size_t parse_range(const struct parsing *p, struct dates_piece *out)
{
    struct dates_piece second;
    size_t taken = parse_between(p, 0, out);
    taken = taken ? taken : parse_open(p, 0, out);
    if (taken) {
        return taken;
    }
    taken = parse_piece(p, 0, false, false, out);
    if (taken == 0) {
        return 0;
    }
    if (out->form != DATES_FORM_SPAN && taken <= PIECE_TOKENS_MAX &&
        (is(p, taken, DATES_TO) || is_sign(p, taken, '-'))) {
        struct dates_piece first = *out, joined;
        size_t more = parse_bare(p, taken + 1, true, false, &second);
        if (more && second.form == first.form && join(p, &first, &second, &joined)) {
            *out = joined;
            return taken + 1 + more;
        }
    }
    return dates_resolve(&p->ref, out) ? taken : 0;
}

size_t retrieval_dates_find(
    struct memos_bytes text, int64_t reference_us, struct retrieval_date *out, size_t out_max)
{
    struct dates_reader reader;
    struct parsing p = {.reader = &reader};
    size_t count = 0;

    p.ref.known = reference_us != 0 && retrieval_calendar_has(reference_us);
    if (p.ref.known) {
        p.ref.us = reference_us;
        p.ref.today = retrieval_day_of_us(reference_us);
        p.ref.now = retrieval_civil_of(p.ref.today);
    }
    dates_reader_init(&reader, text);
    while (count < out_max && !is(&p, 0, DATES_END)) {
        struct dates_piece piece;
        size_t taken = parse_range(&p, &piece);
        if (taken == 0 || piece.from_us >= piece.to_us) {
            dates_step(&reader, 1);
            continue;
        }
        size_t at = token(&p, 0)->at;
        out[count++] = (struct retrieval_date){
            .from_us = piece.from_us,
            .to_us = piece.to_us,
            .kind = piece.relative ? RETRIEVAL_DATE_RELATIVE : RETRIEVAL_DATE_EXPLICIT,
            .at = at,
            .size = token(&p, taken - 1)->end - at,
        };
        dates_step(&reader, taken);
    }
    return count;
}
