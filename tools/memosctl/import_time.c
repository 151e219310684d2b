/* Times as people write them. Words and numbers are taken in any order; each part may come once. */
#include "tools/memosctl/import.h"

#include "proto/clock.h"

#include <stdio.h>
#include <string.h>

enum { TIME_BYTES_MAX = 100 };

struct moment {
    int64_t year, month, day, hour, minute, second; /* -1: not there */
    int half;                                       /* -1: none, 0: am, 1: pm */
    bool failed;
};

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static void set(struct moment *m, int64_t *part, int64_t value)
{
    m->failed = m->failed || *part >= 0;
    *part = value;
}

/* At most nine digits; *size counts them. */
static int64_t take_number(const char *text, size_t *size)
{
    int64_t value = 0;
    for (*size = 0; *size < 9 && is_digit(text[*size]); (*size)++) {
        value = value * 10 + (text[*size] - '0');
    }
    return value;
}

static bool starts_with(const char *text, size_t size, const char *word, size_t least)
{
    if (size < least || size > strlen(word)) {
        return false;
    }
    for (size_t i = 0; i < size; i++) {
        if ((text[i] | 0x20) != word[i]) {
            return false;
        }
    }
    return true;
}

/* "may", "Sept.", "monday", "pm", "on", "th". */
static void take_word(struct moment *m, const char *text, size_t size)
{
    static const char *const months[] = {"january", "february", "march", "april", "may", "june",
        "july", "august", "september", "october", "november", "december"};
    static const char *const ignored[] = {
        "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"};
    static const char *const small[] = {
        "on", "at", "of", "the", "st", "nd", "rd", "th", "utc", "gmt", "z", "t"};
    for (int64_t i = 0; i < 12; i++) {
        if (starts_with(text, size, months[i], 3)) {
            set(m, &m->month, i + 1);
            return;
        }
    }
    if (starts_with(text, size, "am", 2) || starts_with(text, size, "pm", 2)) {
        m->failed = m->failed || m->half >= 0;
        m->half = (text[0] | 0x20) == 'p';
        return;
    }
    for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++) {
        if (starts_with(text, size, ignored[i], 3)) {
            return;
        }
    }
    for (size_t i = 0; i < sizeof small / sizeof small[0]; i++) {
        if (starts_with(text, size, small[i], strlen(small[i]))) {
            return;
        }
    }
    m->failed = true;
}

/* "13:56", "13:56:07"; returns the bytes used. */
static size_t take_clock(struct moment *m, const char *text)
{
    size_t size, used;
    set(m, &m->hour, take_number(text, &used));
    used++; /* the colon */
    set(m, &m->minute, take_number(text + used, &size));
    m->failed = m->failed || size != 2;
    used += size;
    if (text[used] == ':') {
        set(m, &m->second, take_number(text + used + 1, &size));
        m->failed = m->failed || size != 2;
        used += size + 1;
        if (text[used] == '.') { /* parts of a second */
            (void)take_number(text + used + 1, &size);
            used += size + 1;
        }
    }
    return used;
}

/* "2023-05-08", "2023/05/20"; returns the bytes used. */
static size_t take_date(struct moment *m, const char *text)
{
    size_t size, used;
    char mark;
    set(m, &m->year, take_number(text, &used));
    mark = text[used];
    set(m, &m->month, take_number(text + used + 1, &size));
    used += size + 1;
    if (text[used] != mark) {
        m->failed = true;
        return used;
    }
    set(m, &m->day, take_number(text + used + 1, &size));
    return used + size + 1;
}

static size_t take_digits(struct moment *m, const char *text)
{
    size_t size;
    int64_t value = take_number(text, &size);
    if (text[size] == ':' && size <= 2) {
        return take_clock(m, text);
    } else if (size == 4 && (text[4] == '-' || text[4] == '/')) {
        return take_date(m, text);
    } else if (size == 4) {
        set(m, &m->year, value);
    } else if (size <= 2 &&
               (starts_with(text + size, 2, "am", 2) || starts_with(text + size, 2, "pm", 2) ||
                   (text[size] == ' ' && (starts_with(text + size + 1, 2, "am", 2) ||
                                             starts_with(text + size + 1, 2, "pm", 2))))) {
        set(m, &m->hour, value); /* "2 pm" */
    } else if (size <= 2) {
        set(m, &m->day, value);
    } else {
        m->failed = true;
    }
    return size;
}

static bool to_24_hours(struct moment *m)
{
    if (m->half < 0) {
        return true;
    }
    if (m->hour < 1 || m->hour > 12) {
        return false;
    }
    m->hour = m->hour % 12 + 12 * m->half;
    return true;
}

/* A day on its own is a moment, too: its beginning. */
static enum memos_status finish(struct moment *m, int64_t *out_us)
{
    char text[40];
    if (m->failed || m->year < 1 || m->month < 1 || m->day < 1 || !to_24_hours(m)) {
        return MEMOS_INVALID;
    }
    snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02dZ", (int)m->year, (int)m->month,
        (int)m->day, m->hour < 0 ? 0 : (int)m->hour, m->minute < 0 ? 0 : (int)m->minute,
        m->second < 0 ? 0 : (int)m->second);
    return memos_time_parse(memos_bytes_of(text), 0, out_us, NULL);
}

/* Seconds, milliseconds or microseconds since 1970: told apart by their size. */
static bool parse_count(const char *text, int64_t *out_us)
{
    int64_t value = 0;
    size_t size = 0;
    for (; is_digit(text[size]); size++) {
        if (size == 17) {
            return false;
        }
        value = value * 10 + (text[size] - '0');
    }
    int64_t fraction_us = 0, unit = 100000;
    if (text[size] == '.' && size < 12) {
        for (size++; is_digit(text[size]); size++, unit /= 10) {
            fraction_us += (text[size] - '0') * unit;
        }
    }
    if (size < 9 || text[size]) {
        return false;
    }
    int64_t scale = value < 100000000000 ? 1000000 : value < 100000000000000 ? 1000 : 1;
    *out_us = value * scale + fraction_us;
    return true;
}

enum memos_status ctl_import_time(struct memos_bytes text, int64_t *out_us, struct memos_error *err)
{
    char copy[TIME_BYTES_MAX + 1];
    struct moment m = {-1, -1, -1, -1, -1, -1, -1, false};
    if (text.size == 0 || text.size > TIME_BYTES_MAX || !memos_bytes_utf8(text)) {
        return memos_fail(err, MEMOS_INVALID, "a time of %zu bytes", text.size);
    }
    memcpy(copy, text.data, text.size);
    copy[text.size] = '\0';
    bool is_age = text.size < 8; /* what memos_time_parse would take as one: "3h" */
    if (parse_count(copy, out_us) ||
        (!is_age && memos_time_parse(text, 0, out_us, NULL) == MEMOS_OK)) {
        return MEMOS_OK;
    }
    for (size_t at = 0; copy[at] && !m.failed;) {
        size_t size = 0;
        if (is_digit(copy[at])) {
            size = take_digits(&m, copy + at);
        } else if (is_letter(copy[at])) {
            while (is_letter(copy[at + size])) {
                size++;
            }
            take_word(&m, copy + at, size);
        } else {
            m.failed = !strchr(" ,.()", copy[at]);
            size = 1;
        }
        at += size;
    }
    if (finish(&m, out_us) != MEMOS_OK) {
        return memos_fail(err, MEMOS_INVALID, "'%.60s' is no time that is understood", copy);
    }
    return MEMOS_OK;
}
