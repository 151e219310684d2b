#include "memos/quantity.h"

#include <ctype.h>
#include <string.h>

/* A number at the beginning of text; *rest is what follows. False when there is none. */
static bool number_read(const char *text, uint64_t *out, const char **rest)
{
    uint64_t value = 0;
    const char *at = text;
    for (; isdigit((unsigned char)*at); at++) {
        uint64_t digit = (uint64_t)(*at - '0');
        if (__builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, digit, &value)) {
            return false;
        }
    }
    *out = value;
    *rest = at;
    return at != text;
}

struct unit {
    const char *name;
    uint64_t factor;
};
static const struct unit size_units[] = {
    {"", 1},
    {"K", 1ull << 10},
    {"M", 1ull << 20},
    {"G", 1ull << 30},
    {"T", 1ull << 40},
    {NULL, 0},
};
static const struct unit count_units[] = {{"", 1}, {NULL, 0}};
static const struct unit time_units[] = {
    {"ms", 1},
    {"s", 1000},
    {"m", 60000},
    {"h", 3600000},
    {NULL, 0},
};

static const struct unit *units_of(enum quantity quantity)
{
    return quantity == QUANTITY_BYTES ? size_units
           : quantity == QUANTITY_MS  ? time_units
                                      : count_units;
}

bool quantity_parse(enum quantity quantity, const char *text, uint64_t *out)
{
    const struct unit *units = units_of(quantity);
    const char *rest;
    uint64_t value;
    if (!number_read(text, &value, &rest)) {
        return false;
    }
    for (const struct unit *unit = units; unit->name; unit++) {
        if (strcmp(unit->name, rest) == 0) {
            return !__builtin_mul_overflow(value, unit->factor, out);
        }
    }
    return false;
}
