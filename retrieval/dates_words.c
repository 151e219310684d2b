#include "retrieval/dates_words.h"

#include <stdlib.h>
#include <string.h>

#define WORD_BYTES_MAX 14
#define NUMBER_MAX 99999999

struct known {
    char word[WORD_BYTES_MAX];
    uint8_t class;
    uint8_t ambiguous;
    int8_t value;
};

/* Sorted by word, for the search below. "new" begins the holiday only before "year". */
static const struct known known_words[] = {
    {"a", DATES_COUNT, 0, 1},
    {"after", DATES_AFTER, 0, 0},
    {"afternoon", DATES_PART, 0, DATES_AFTERNOON},
    {"ago", DATES_AGO, 0, 0},
    {"an", DATES_COUNT, 0, 1},
    {"and", DATES_AND, 0, 0},
    {"apr", DATES_MONTH, 1, 4},
    {"april", DATES_MONTH, 0, 4},
    {"at", DATES_ON, 0, 0},
    {"aug", DATES_MONTH, 1, 8},
    {"august", DATES_MONTH, 0, 8},
    {"autumn", DATES_SEASON, 0, 9},
    {"back", DATES_AGO, 0, 0},
    {"before", DATES_BEFORE, 0, 0},
    {"beginning", DATES_EARLY, 0, 0},
    {"between", DATES_BETWEEN, 0, 0},
    {"by", DATES_ON, 0, 0},
    {"christmas", DATES_HOLIDAY, 0, DATES_CHRISTMAS},
    {"coming", DATES_NEXT, 0, 0},
    {"couple", DATES_VAGUE, 0, 2},
    {"day", DATES_UNIT, 0, DATES_DAYS},
    {"days", DATES_UNIT, 0, DATES_DAYS},
    {"dec", DATES_MONTH, 1, 12},
    {"decade", DATES_UNIT, 0, DATES_DECADES},
    {"decades", DATES_UNIT, 0, DATES_DECADES},
    {"december", DATES_MONTH, 0, 12},
    {"during", DATES_IN, 0, 0},
    {"early", DATES_EARLY, 0, 0},
    {"easter", DATES_HOLIDAY, 0, DATES_EASTER},
    {"eight", DATES_COUNT, 0, 8},
    {"eighteen", DATES_COUNT, 0, 18},
    {"eighteenth", DATES_ORDINAL, 0, 18},
    {"eighth", DATES_ORDINAL, 0, 8},
    {"eleven", DATES_COUNT, 0, 11},
    {"eleventh", DATES_ORDINAL, 0, 11},
    {"end", DATES_LATE, 0, 0},
    {"eve", DATES_WORD, 0, 1},
    {"evening", DATES_PART, 0, DATES_EVENING},
    {"fall", DATES_SEASON, 1, 9},
    {"feb", DATES_MONTH, 1, 2},
    {"february", DATES_MONTH, 0, 2},
    {"few", DATES_VAGUE, 0, 3},
    {"fifteen", DATES_COUNT, 0, 15},
    {"fifteenth", DATES_ORDINAL, 0, 15},
    {"fifth", DATES_ORDINAL, 0, 5},
    {"first", DATES_ORDINAL, 0, 1},
    {"five", DATES_COUNT, 0, 5},
    {"following", DATES_NEXT, 0, 0},
    {"for", DATES_IN, 0, 1},
    {"four", DATES_COUNT, 0, 4},
    {"fourteen", DATES_COUNT, 0, 14},
    {"fourteenth", DATES_ORDINAL, 0, 14},
    {"fourth", DATES_ORDINAL, 0, 4},
    {"fri", DATES_WEEKDAY, 1, 4},
    {"friday", DATES_WEEKDAY, 0, 4},
    {"fridays", DATES_WEEKDAY, 1, 4},
    {"from", DATES_FROM, 0, 0},
    {"halloween", DATES_HOLIDAY, 0, DATES_HALLOWEEN},
    {"hour", DATES_UNIT, 0, DATES_HOURS},
    {"hours", DATES_UNIT, 0, DATES_HOURS},
    {"in", DATES_IN, 0, 0},
    {"jan", DATES_MONTH, 1, 1},
    {"january", DATES_MONTH, 0, 1},
    {"jul", DATES_MONTH, 1, 7},
    {"july", DATES_MONTH, 0, 7},
    {"jun", DATES_MONTH, 1, 6},
    {"june", DATES_MONTH, 0, 6},
    {"last", DATES_LAST, 0, 0},
    {"late", DATES_LATE, 0, 0},
    {"mar", DATES_MONTH, 1, 3},
    {"march", DATES_MONTH, 1, 3},
    {"may", DATES_MONTH, 1, 5},
    {"mid", DATES_MID, 0, 0},
    {"middle", DATES_MID, 0, 0},
    {"mon", DATES_WEEKDAY, 1, 0},
    {"monday", DATES_WEEKDAY, 0, 0},
    {"mondays", DATES_WEEKDAY, 1, 0},
    {"month", DATES_UNIT, 0, DATES_MONTHS},
    {"months", DATES_UNIT, 0, DATES_MONTHS},
    {"morning", DATES_PART, 0, DATES_MORNING},
    {"nd", DATES_SUFFIX, 0, 0},
    {"new", DATES_WORD, 0, 2},
    {"next", DATES_NEXT, 0, 0},
    {"night", DATES_PART, 0, DATES_NIGHT},
    {"nights", DATES_UNIT, 0, DATES_DAYS},
    {"nine", DATES_COUNT, 0, 9},
    {"nineteen", DATES_COUNT, 0, 19},
    {"nineteenth", DATES_ORDINAL, 0, 19},
    {"ninth", DATES_ORDINAL, 0, 9},
    {"nov", DATES_MONTH, 1, 11},
    {"november", DATES_MONTH, 0, 11},
    {"now", DATES_NOW, 0, 0},
    {"oct", DATES_MONTH, 1, 10},
    {"october", DATES_MONTH, 0, 10},
    {"of", DATES_OF, 0, 0},
    {"on", DATES_ON, 0, 0},
    {"one", DATES_COUNT, 0, 1},
    {"other", DATES_OTHER, 0, 0},
    {"over", DATES_IN, 0, 0},
    {"past", DATES_PAST, 0, 0},
    {"previous", DATES_LAST, 0, 0},
    {"rd", DATES_SUFFIX, 0, 0},
    {"s", DATES_S, 0, 0},
    {"sat", DATES_WEEKDAY, 1, 5},
    {"saturday", DATES_WEEKDAY, 0, 5},
    {"saturdays", DATES_WEEKDAY, 1, 5},
    {"second", DATES_ORDINAL, 1, 2},
    {"sep", DATES_MONTH, 1, 9},
    {"sept", DATES_MONTH, 1, 9},
    {"september", DATES_MONTH, 0, 9},
    {"seven", DATES_COUNT, 0, 7},
    {"seventeen", DATES_COUNT, 0, 17},
    {"seventeenth", DATES_ORDINAL, 0, 17},
    {"seventh", DATES_ORDINAL, 0, 7},
    {"several", DATES_VAGUE, 0, 5},
    {"since", DATES_SINCE, 0, 0},
    {"six", DATES_COUNT, 0, 6},
    {"sixteen", DATES_COUNT, 0, 16},
    {"sixteenth", DATES_ORDINAL, 0, 16},
    {"sixth", DATES_ORDINAL, 0, 6},
    {"spring", DATES_SEASON, 1, 3},
    {"st", DATES_SUFFIX, 0, 0},
    {"start", DATES_EARLY, 0, 0},
    {"summer", DATES_SEASON, 0, 6},
    {"sun", DATES_WEEKDAY, 1, 6},
    {"sunday", DATES_WEEKDAY, 0, 6},
    {"sundays", DATES_WEEKDAY, 1, 6},
    {"ten", DATES_COUNT, 0, 10},
    {"tenth", DATES_ORDINAL, 0, 10},
    {"th", DATES_SUFFIX, 0, 0},
    {"thanksgiving", DATES_HOLIDAY, 0, DATES_THANKSGIVING},
    {"the", DATES_THE, 0, 0},
    {"third", DATES_ORDINAL, 0, 3},
    {"thirteen", DATES_COUNT, 0, 13},
    {"thirteenth", DATES_ORDINAL, 0, 13},
    {"thirtieth", DATES_ORDINAL, 0, 30},
    {"thirty", DATES_COUNT, 0, 30},
    {"this", DATES_THIS, 0, 0},
    {"three", DATES_COUNT, 0, 3},
    {"through", DATES_TO, 0, 0},
    {"thu", DATES_WEEKDAY, 1, 3},
    {"thurs", DATES_WEEKDAY, 1, 3},
    {"thursday", DATES_WEEKDAY, 0, 3},
    {"thursdays", DATES_WEEKDAY, 1, 3},
    {"till", DATES_UNTIL, 0, 0},
    {"to", DATES_TO, 0, 0},
    {"today", DATES_TODAY, 0, 0},
    {"tomorrow", DATES_TODAY, 0, 1},
    {"tonight", DATES_TONIGHT, 0, 0},
    {"tue", DATES_WEEKDAY, 1, 1},
    {"tues", DATES_WEEKDAY, 1, 1},
    {"tuesday", DATES_WEEKDAY, 0, 1},
    {"tuesdays", DATES_WEEKDAY, 1, 1},
    {"twelfth", DATES_ORDINAL, 0, 12},
    {"twelve", DATES_COUNT, 0, 12},
    {"twentieth", DATES_ORDINAL, 0, 20},
    {"twenty", DATES_COUNT, 0, 20},
    {"two", DATES_COUNT, 0, 2},
    {"until", DATES_UNTIL, 0, 0},
    {"upcoming", DATES_NEXT, 0, 0},
    {"valentine", DATES_HOLIDAY, 0, DATES_VALENTINE},
    {"valentines", DATES_HOLIDAY, 0, DATES_VALENTINE},
    {"wed", DATES_WEEKDAY, 1, 2},
    {"wednesday", DATES_WEEKDAY, 0, 2},
    {"wednesdays", DATES_WEEKDAY, 1, 2},
    {"week", DATES_UNIT, 0, DATES_WEEKS},
    {"weekend", DATES_UNIT, 0, DATES_WEEKENDS},
    {"weekends", DATES_UNIT, 1, DATES_WEEKENDS},
    {"weeks", DATES_UNIT, 0, DATES_WEEKS},
    {"winter", DATES_SEASON, 0, 12},
    {"within", DATES_IN, 0, 0},
    {"xmas", DATES_HOLIDAY, 0, DATES_CHRISTMAS},
    {"year", DATES_UNIT, 0, DATES_YEARS},
    {"years", DATES_UNIT, 0, DATES_YEARS},
    {"yesterday", DATES_TODAY, 0, -1},
};

static int known_compare(const void *key, const void *element)
{
    return strcmp(key, ((const struct known *)element)->word);
}

static bool is_letter(uint8_t byte)
{
    uint8_t low = byte | 0x20;
    return (low >= 'a' && low <= 'z') || byte == '_' || byte >= 0x80;
}

static bool is_digit(uint8_t byte)
{
    return byte >= '0' && byte <= '9';
}

/* ’ ‘ – —: what they stand for, and 3 bytes; 0 for all else. */
static char typographic(const uint8_t *at, size_t left)
{
    if (left < 3 || at[0] != 0xE2 || at[1] != 0x80) {
        return 0;
    }
    switch (at[2]) {
    case 0x98:
    case 0x99:
        return '\'';
    case 0x93:
    case 0x94:
        return '-';
    default:
        return 0;
    }
}

/* ---- tokens -------------------------------------------------------------------------------- */

static void read_number(const uint8_t *data, size_t size, struct dates_token *token)
{
    size_t at = token->at;
    int value = 0;
    for (; at < size && is_digit(data[at]); at++) {
        value = value > NUMBER_MAX / 10 - 1 ? NUMBER_MAX : value * 10 + (data[at] - '0');
    }
    token->class = DATES_NUMBER;
    token->value = value;
    token->digits = (unsigned)(at - token->at < 100 ? at - token->at : 100);
    token->end = at;
}

static void read_word(const uint8_t *data, size_t size, struct dates_token *token)
{
    char word[WORD_BYTES_MAX] = {0};
    size_t at = token->at, letters = 0;
    while (at < size && is_letter(data[at]) && !typographic(data + at, size - at)) {
        if (letters < WORD_BYTES_MAX) {
            uint8_t byte = data[at];
            word[letters] = (char)(byte >= 'A' && byte <= 'Z' ? byte | 0x20 : byte);
        }
        letters++;
        at++;
    }
    token->class = DATES_WORD;
    token->end = at;
    token->capital = data[token->at] >= 'A' && data[token->at] <= 'Z';
    if (letters < WORD_BYTES_MAX) {
        const struct known *known = bsearch(word, known_words,
            sizeof known_words / sizeof known_words[0], sizeof known_words[0], known_compare);
        if (known) {
            token->class = (enum dates_class)known->class;
            token->value = known->value;
            token->ambiguous = known->ambiguous != 0;
        }
    }
}

/* Step over a possessive: 's, or the lone apostrophe of "weeks'". */
static size_t possessive(const uint8_t *data, size_t size, size_t at)
{
    size_t mark = at < size && data[at] == '\''                            ? 1
                  : at < size && typographic(data + at, size - at) == '\'' ? 3
                                                                           : 0;
    if (mark == 0) {
        return at;
    }
    size_t after = at + mark;
    if (after < size && (data[after] | 0x20) == 's' &&
        (after + 1 == size || (!is_letter(data[after + 1]) && !is_digit(data[after + 1])) ||
            typographic(data + after + 1, size - after - 1))) {
        return after + 1;
    }
    return after < size && is_letter(data[after]) ? at : after;
}

/* Is what begins at `at` the end of something longer: v2022, $2022, 555-2022? */
static bool is_inner(const uint8_t *data, size_t at)
{
    if (at == 0) {
        return false;
    }
    uint8_t before = data[at - 1];
    if (before == '$' || before == '#' || is_digit(before) ||
        (is_letter(before) && before < 0x80)) {
        return true;
    }
    bool joins = before == '-' || before == '/' || before == '.' || before == ',' || before == ':';
    return joins && at >= 2 && is_digit(data[at - 2]);
}

/* Read the next token; false at the end of the text. */
static bool read_token(struct dates_reader *reader, struct dates_token *out)
{
    const uint8_t *data = reader->text.data;
    size_t size = reader->text.size, at = reader->at;
    while (at < size && (data[at] == ' ' || data[at] == '\t' || data[at] == '\r' ||
                            (data[at] == '\n' && (at + 1 == size || data[at + 1] != '\n')))) {
        at++;
    }
    if (at >= size) {
        reader->at = size;
        return false;
    }
    *out = (struct dates_token){
        .at = at,
        .glued = at == reader->at && at > 0,
        .inner = is_inner(data, at),
    };
    char sign = typographic(data + at, size - at);
    if (is_digit(data[at])) {
        read_number(data, size, out);
        reader->at = out->end;
    } else if (is_letter(data[at]) && !sign) {
        read_word(data, size, out);
        reader->at = possessive(data, size, out->end);
    } else {
        out->class = DATES_SIGN;
        out->value = sign ? sign : (char)data[at];
        out->end = at + (sign ? 3 : 1);
        reader->at = out->end;
    }
    return true;
}

/* Make sure that DATES_AHEAD tokens wait, if the text has them. */
static void fill(struct dates_reader *reader)
{
    if (reader->count - reader->first >= DATES_AHEAD || reader->at >= reader->text.size) {
        return;
    }
    reader->count -= reader->first;
    memmove(
        reader->tokens, reader->tokens + reader->first, reader->count * sizeof reader->tokens[0]);
    reader->first = 0;
    while (reader->count < sizeof reader->tokens / sizeof reader->tokens[0] &&
           read_token(reader, &reader->tokens[reader->count])) {
        reader->count++;
    }
}

void dates_reader_init(struct dates_reader *reader, struct memos_bytes text)
{
    reader->text = text;
    reader->at = 0;
    reader->first = reader->count = 0;
    fill(reader);
}

const struct dates_token *dates_token(const struct dates_reader *reader, size_t ahead)
{
    static const struct dates_token end = {.class = DATES_END};
    return ahead < DATES_AHEAD && reader->first + ahead < reader->count
               ? &reader->tokens[reader->first + ahead]
               : &end;
}

void dates_step(struct dates_reader *reader, size_t count)
{
    size_t left = reader->count - reader->first;
    reader->first += count < left ? count : left;
    fill(reader);
}
