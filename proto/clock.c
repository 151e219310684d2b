#include "proto/clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static int64_t read_clock(clockid_t which)
{
    struct timespec now;
    memos_assert(clock_gettime(which, &now) == 0);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int64_t system_wall_us(void *self)
{
    (void)self;
    return read_clock(CLOCK_REALTIME);
}

static int64_t system_mono_us(void *self)
{
    (void)self;
    return read_clock(CLOCK_MONOTONIC);
}

struct memos_clock memos_clock_system(void)
{
    return (struct memos_clock){ system_wall_us, system_mono_us, NULL };
}

static int64_t fixed_us(void *self)
{
    return *(const int64_t *)self;
}

struct memos_clock memos_clock_fixed(int64_t *now_us)
{
    return (struct memos_clock){ fixed_us, fixed_us, now_us };
}

/* Days since 1970-01-01 of a date in the proleptic Gregorian calendar: years begin in March, so
 * that the leap day is a year's last, and 400 years are one period of 146,097 days. */
static int64_t days_of_date(int64_t year, int64_t month, int64_t day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t year_of_era = year - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

char *memos_time_format(int64_t wall_us, char out[MEMOS_TIME_TEXT_BYTES])
{
    int64_t seconds = wall_us / 1000000, micros = wall_us % 1000000;
    if (micros < 0) {
        micros += 1000000;
        seconds--;
    }
    time_t when = (time_t)seconds;
    struct tm utc;
    if (!gmtime_r(&when, &utc) || utc.tm_year > 9999 - 1900 || utc.tm_year < -1900) {
        (void)snprintf(out, MEMOS_TIME_TEXT_BYTES, "@%lld", (long long)seconds);
        return out;
    }
    size_t size = strftime(out, MEMOS_TIME_TEXT_BYTES, "%Y-%m-%dT%H:%M:%S", &utc);
    if (micros == 0) {
        (void)snprintf(out + size, MEMOS_TIME_TEXT_BYTES - size, "Z");
    } else {
        (void)snprintf(out + size, MEMOS_TIME_TEXT_BYTES - size, ".%06dZ", (int)micros);
    }
    return out;
}

/* count decimal digits at the cursor; -1 when there are none such. */
static int read_digits(struct memos_reader *r, size_t count)
{
    int value = 0;
    struct memos_bytes digits = memos_read_bytes(r, count);
    for (size_t i = 0; i < digits.size; i++) {
        char c = ((const char *)digits.data)[i];
        if (c < '0' || c > '9') {
            r->failed = true;
            return -1;
        }
        value = value * 10 + (c - '0');
    }
    return r->failed ? -1 : value;
}

static bool accept(struct memos_reader *r, char c)
{
    if (r->failed || r->left == 0 || *r->at != (uint8_t)c) {
        return false;
    }
    r->at++;
    r->left--;
    return true;
}

static void expect(struct memos_reader *r, char c)
{
    r->failed = !accept(r, c) || r->failed;
}

static int64_t read_fraction_us(struct memos_reader *r)
{
    int64_t micros = 0, unit = 100000;
    if (!accept(r, '.')) {
        return 0;
    }
    size_t digits = 0;
    while (r->left > 0 && *r->at >= '0' && *r->at <= '9') {
        micros += (*r->at - '0') * unit;
        unit /= 10;
        r->at++;
        r->left--;
        digits++;
    }
    r->failed = r->failed || digits == 0;
    return micros;
}

/* "Z", "+02:00", or nothing (UTC): seconds east of UTC. */
static int64_t read_zone(struct memos_reader *r)
{
    int sign = 1;
    if (r->left == 0 || accept(r, 'Z') || accept(r, 'z')) {
        return 0;
    }
    if (accept(r, '-')) {
        sign = -1;
    } else {
        expect(r, '+');
    }
    int hours = read_digits(r, 2);
    accept(r, ':');
    int minutes = read_digits(r, 2);
    r->failed = r->failed || hours > 23 || minutes > 59;
    return sign * (hours * 3600LL + minutes * 60LL);
}

static int days_in_month(int year, int month)
{
    static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && leap ? 29 : days[month - 1];
}

static bool parse_date(struct memos_bytes text, int64_t *out_us)
{
    struct memos_reader r = memos_reader_of(text);
    int year = read_digits(&r, 4);
    expect(&r, '-');
    int month = read_digits(&r, 2);
    expect(&r, '-');
    int day = read_digits(&r, 2);
    if (r.failed || month < 1 || month > 12 || day < 1 || day > days_in_month(year, month)) {
        return false;
    }
    int hour = 0, minute = 0, second = 0;
    int64_t micros = 0, zone = 0;
    if (accept(&r, 'T') || accept(&r, 't') || accept(&r, ' ')) {
        hour = read_digits(&r, 2);
        expect(&r, ':');
        minute = read_digits(&r, 2);
        if (accept(&r, ':')) {
            second = read_digits(&r, 2);
            micros = read_fraction_us(&r);
        }
        zone = read_zone(&r);
    }
    if (!memos_reader_done(&r) || hour > 23 || minute > 59 || second > 60) {
        return false;
    }
    int64_t seconds = days_of_date(year, month, day) * 86400 + hour * 3600LL + minute * 60LL +
        second;
    *out_us = (seconds - zone) * 1000000 + micros;
    return true;
}

/* Decimal digits and then at most one unit character, which is given back (0: none). */
static bool parse_number(struct memos_bytes text, int64_t *out_value, char *out_unit)
{
    const char *at = text.data;
    int64_t value = 0;
    size_t i = 0;
    for (; i < text.size && at[i] >= '0' && at[i] <= '9'; i++) {
        if (__builtin_mul_overflow(value, (int64_t)10, &value) ||
            __builtin_add_overflow(value, (int64_t)(at[i] - '0'), &value)) {
            return false;
        }
    }
    *out_value = value;
    *out_unit = i < text.size ? at[i] : 0;
    return i > 0 && text.size - i <= 1;
}

static bool parse_age(struct memos_bytes text, int64_t now_us, int64_t *out_us)
{
    static const struct {
        char unit;
        int64_t seconds;
    } units[] = { { 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 }, { 'w', 604800 } };
    int64_t value;
    char unit;
    if (!parse_number(text, &value, &unit)) {
        return false;
    }
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (units[i].unit == unit) {
            return !__builtin_mul_overflow(value, units[i].seconds * 1000000, &value) &&
                !__builtin_sub_overflow(now_us, value, out_us);
        }
    }
    return false;
}

static bool parse_epoch(struct memos_bytes text, int64_t *out_us)
{
    int64_t value;
    char unit;
    if (text.size < 2 || *(const char *)text.data != '@') {
        return false;
    }
    struct memos_bytes digits = memos_bytes_make((const char *)text.data + 1, text.size - 1);
    return parse_number(digits, &value, &unit) && unit == 0 &&
        !__builtin_mul_overflow(value, (int64_t)1000000, out_us);
}

enum memos_status memos_time_parse(
    struct memos_bytes text, int64_t now_us, int64_t *out_us, struct memos_error *err)
{
    int64_t value;
    if (parse_epoch(text, &value) || parse_age(text, now_us, &value) || parse_date(text, &value)) {
        *out_us = value;
        return MEMOS_OK;
    }
    return memos_fail(err, MEMOS_INVALID,
        "'%.*s' is not a time: give 2026-05-01T12:30:00Z, 2026-05-01, @seconds, or an age like "
        "90s, 15m, 3h, 2d, 4w",
        (int)(text.size > 64 ? 64 : text.size), text.data ? (const char *)text.data : "");
}
