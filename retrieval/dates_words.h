/* The words that dates are made of: a text cut into tokens, each known by what it can be in a date.
 *
 * Only ASCII words are known; the typographic apostrophe and dashes are read as their ASCII kin. A
 * possessive 's belongs to the word before it and is dropped. */
#ifndef RETRIEVAL_DATES_WORDS_H
#define RETRIEVAL_DATES_WORDS_H

#include "proto/bytes.h"

enum dates_class {
    DATES_END,     /* of the text */
    DATES_WORD,    /* one that no date has */
    DATES_SIGN,    /* value: the character */
    DATES_NUMBER,  /* digits; value, at most 99,999,999 */
    DATES_MONTH,   /* value 1..12 */
    DATES_WEEKDAY, /* value 0..6, Monday first */
    DATES_UNIT,    /* value: enum dates_unit */
    DATES_COUNT,   /* "two": value; "a", "an": 1 */
    DATES_VAGUE,   /* "few", "couple", "several": value is the middle, 3, 2, 5 */
    DATES_ORDINAL, /* "third": value 1..31 */
    DATES_SUFFIX,  /* st, nd, rd, th after a number */
    DATES_SEASON,  /* value: its first month: 3, 6, 9, 12 */
    DATES_PART,    /* of a day: value: enum dates_part */
    DATES_HOLIDAY, /* value: enum dates_holiday */
    DATES_LAST,    /* last, previous */
    DATES_PAST,
    DATES_NEXT, /* next, coming, upcoming, following */
    DATES_THIS,
    DATES_AGO, /* ago, back */
    DATES_BEFORE,
    DATES_AFTER,
    DATES_SINCE,
    DATES_UNTIL, /* until, till */
    DATES_BETWEEN,
    DATES_AND,
    DATES_TO, /* to, through, thru */
    DATES_FROM,
    DATES_NOW,
    DATES_TODAY, /* value: days to add: -1 yesterday, 0, 1 tomorrow */
    DATES_TONIGHT,
    DATES_IN, /* in, during, within, over, for */
    DATES_ON, /* on, by, at */
    DATES_OF,
    DATES_THE,
    DATES_OTHER,
    DATES_EARLY, /* early, beginning, start */
    DATES_MID,   /* mid, middle */
    DATES_LATE,  /* late, end */
    DATES_S,     /* "s" glued to a number: 1990s */
};

enum dates_unit {
    DATES_HOURS,
    DATES_DAYS,
    DATES_WEEKS,
    DATES_WEEKENDS,
    DATES_MONTHS,
    DATES_YEARS,
    DATES_DECADES,
};

enum dates_part { DATES_MORNING, DATES_AFTERNOON, DATES_EVENING, DATES_NIGHT };

enum dates_holiday {
    DATES_CHRISTMAS,
    DATES_CHRISTMAS_EVE,
    DATES_NEW_YEAR,
    DATES_NEW_YEARS_EVE,
    DATES_VALENTINE,
    DATES_HALLOWEEN,
    DATES_THANKSGIVING,
    DATES_EASTER,
    DATES_HOLIDAYS,
};

struct dates_token {
    enum dates_class class;
    int value;
    unsigned digits; /* of a NUMBER */
    bool glued;      /* no blank between it and the token before */
    bool inner;      /* what stands before it, without a blank, makes it a part: v2022, $2022 */
    bool capital;    /* its word begins with a capital */
    bool ambiguous;  /* a word that is often something else: may, march, sat, sun, fall, second */
    size_t at, end;  /* bytes in the text */
};

#define DATES_AHEAD 24 /* tokens that can be looked at from where the reader stands */

struct dates_reader {
    struct memos_bytes text;
    size_t at; /* where the next token is looked for */
    struct dates_token tokens[DATES_AHEAD * 4];
    size_t first, count; /* tokens[first .. count) wait */
};

void dates_reader_init(struct dates_reader *reader, struct memos_bytes text);

/* The token `ahead` places on; END when there is none, and from DATES_AHEAD on. */
const struct dates_token *dates_token(const struct dates_reader *reader, size_t ahead);

/* Step on by `count` (<= DATES_AHEAD) tokens. */
void dates_step(struct dates_reader *reader, size_t count);

#endif
