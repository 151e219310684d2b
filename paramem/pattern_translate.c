/* Oniguruma's expressions (Ruby's syntax) in PCRE2's. */
#include "paramem/pattern.h"
#include "paramem/pattern_internal.h"

#include <string.h>

/* White_Space, within a class, and all the rest. */
#define SPACE                                                                                      \
    "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"            \
    "\\x{205f}\\x{3000}"
#define NOT_SPACE                                                                                  \
    "\\x00-\\x08\\x0e-\\x1f\\x21-\\x84\\x86-\\x9f\\xa1-\\x{167f}\\x{1681}-\\x{1fff}"               \
    "\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}"                 \
    "\\x{3001}-\\x{10ffff}"

/* One pass over the expression. The first failure stays. */
struct translation {
    const char *at, *end;
    struct memos_buffer *out;
    enum memos_status status;
    struct memos_error *err;
};

static void put(struct translation *t, const char *text, size_t size)
{
    memos_buffer_bytes(t->out, text, size);
}

static void put_text(struct translation *t, const char *text)
{
    put(t, text, strlen(text));
}

static void refuse(struct translation *t, const char *from, size_t size)
{
    size_t left = (size_t)(t->end - from);
    if (t->status == MEMOS_OK) {
        t->status = memos_fail(t->err, MEMOS_UNSUPPORTED, "\"%.*s\" in a tokenizer's expression",
            (int)(size < left ? size : left), from);
    }
    t->at = t->end;
}

static bool next_is(const struct translation *t, const char *text)
{
    size_t size = strlen(text);
    return (size_t)(t->end - t->at) >= size && memcmp(t->at, text, size) == 0;
}

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* \xHH, \x{H...}, \uHHHH: t->at is behind the letter. */
static void code_point(struct translation *t, const char *from, size_t digits)
{
    bool braces = digits == 2 && next_is(t, "{");
    const char *begin = t->at + braces, *stop = begin;
    size_t most = braces ? 6 : digits;
    while (stop < t->end && (size_t)(stop - begin) < most && is_hex(*stop)) {
        stop++;
    }
    bool whole =
        braces ? stop > begin && stop < t->end && *stop == '}' : (size_t)(stop - begin) == digits;
    /* A single byte of 0x80 and above is no character in Oniguruma. */
    if (!whole || (digits == 2 && !braces && *begin > '7')) {
        refuse(t, from, 8);
        return;
    }
    put_text(t, "\\x{");
    put(t, begin, (size_t)(stop - begin));
    put_text(t, "}");
    t->at = stop + braces;
}

/* General categories have one name in both; scripts need a prefix, since PCRE2 means their
 * extensions by the bare name. */
static const char *property_prefix(const char *name, size_t size)
{
    static const char *const categories[] = {"L", "Lu", "Ll", "Lt", "Lm", "Lo", "M", "Mn", "Mc",
        "Me", "N", "Nd", "Nl", "No", "P", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S", "Sm", "Sc",
        "Sk", "So", "Z", "Zs", "Zl", "Zp"};
    static const char *const scripts[] = {"Han", "Hiragana", "Katakana", "Hangul", "Latin",
        "Cyrillic", "Greek", "Arabic", "Hebrew", "Thai", "Devanagari"};
    for (size_t i = 0; i < sizeof categories / sizeof categories[0]; i++) {
        if (strlen(categories[i]) == size && memcmp(categories[i], name, size) == 0) {
            return "";
        }
    }
    for (size_t i = 0; i < sizeof scripts / sizeof scripts[0]; i++) {
        if (strlen(scripts[i]) == size && memcmp(scripts[i], name, size) == 0) {
            return "sc:";
        }
    }
    return NULL;
}

/* What PCRE2's Unicode lacks of a category ("L" has all that begin with it) or script. */
static void put_newer(struct translation *t, const char *name, size_t size)
{
    for (size_t i = 0; i < paramem_categories_newer_count; i++) {
        const struct paramem_category *newer = &paramem_categories_newer[i];
        bool same = strlen(newer->name) == size || (size == 1 && strlen(newer->name) == 2);
        if (same && memcmp(newer->name, name, size) == 0) {
            memos_buffer_printf(t->out, "\\x{%x}-\\x{%x}", newer->first, newer->last);
        }
    }
}

/* \p{X} and \P{X}: t->at is at the brace. Between brackets \P stays what PCRE2 has, for nothing can
 * be taken away there. */
static void property(struct translation *t, const char *from, bool negated, bool in_class)
{
    const char *name = t->at + 1;
    const char *stop =
        t->at < t->end && *t->at == '{' ? memchr(name, '}', (size_t)(t->end - name)) : NULL;
    const char *prefix = NULL;
    if (stop && *name == '^') {
        negated = !negated;
        name++;
    }
    if (stop) {
        prefix = property_prefix(name, (size_t)(stop - name));
    }
    if (!prefix) {
        refuse(t, from, stop ? (size_t)(stop + 1 - from) : 3);
        return;
    }
    if (!in_class) {
        put_text(t, negated ? "[^" : "[");
    }
    put_text(t, negated && in_class ? "\\P{" : "\\p{");
    put_text(t, prefix);
    put(t, name, (size_t)(stop - name));
    put_text(t, "}");
    if (!in_class || !negated) {
        put_newer(t, name, (size_t)(stop - name));
    }
    if (!in_class) {
        put_text(t, "]");
    }
    t->at = stop + 1;
}

/* After a backslash. in_class: between brackets, where sets lose their own. */
static void escape(struct translation *t, bool in_class)
{
    const char *from = t->at++;
    char letter = t->at < t->end ? *t->at++ : '\0';
    switch (letter) {
    case 's':
        put_text(t, in_class ? SPACE : "[" SPACE "]");
        break;
    case 'S':
        put_text(t, in_class ? NOT_SPACE : "[^" SPACE "]");
        break;
    case 'd':
        put_text(t, "\\p{Nd}");
        break;
    case 'D':
        put_text(t, "\\P{Nd}");
        break;
    case 'p':
    case 'P':
        property(t, from, letter == 'P', in_class);
        break;
    case 'r':
    case 'n':
    case 't':
    case 'f':
        put(t, from, 2);
        break;
    case 'v':
        put_text(t, "\\x0b");
        break;
    case 'x':
        code_point(t, from, 2);
        break;
    case 'u':
        code_point(t, from, 4);
        break;
    default:
        if ((letter >= '!' && letter <= '/') || (letter >= ':' && letter <= '@') ||
            (letter >= '[' && letter <= '`') || (letter >= '{' && letter <= '~') || letter == ' ') {
            put(t, from, 2);
        } else {
            refuse(t, from, 2);
        }
    }
}

static void class(struct translation *t)
{
    const char *from = t->at++;
    put_text(t, "[");
    if (next_is(t, "^")) {
        put_text(t, "^");
        t->at++;
    }
    if (next_is(t, "]")) { /* empty, or a bracket: readings differ */
        refuse(t, from, 3);
        return;
    }
    while (t->at < t->end && *t->at != ']') {
        if (*t->at == '\\') {
            escape(t, true);
        } else if (*t->at == '[' || next_is(t, "&&")) {
            refuse(t, t->at, 2);
        } else {
            put(t, t->at++, 1);
        }
    }
    if (t->at < t->end) {
        put_text(t, "]");
        t->at++;
    } else if (t->status == MEMOS_OK) {
        t->status = memos_fail(t->err, MEMOS_CORRUPT, "a class without end in an expression");
    }
}

/* A parenthesis: groups, alternatives' case, looks around. */
static void group(struct translation *t)
{
    static const char *const known[] = {
        "(?:", "(?i:", "(?-i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (next_is(t, known[i])) {
            put_text(t, known[i]);
            t->at += strlen(known[i]);
            return;
        }
    }
    if (next_is(t, "(?") || next_is(t, "(*")) {
        refuse(t, t->at, 4);
        return;
    }
    put(t, t->at++, 1);
}

/* {n}, {n,}, {n,m}: a plus behind is another repetition in one language, and possessive in the
 * other. */
static void interval(struct translation *t)
{
    const char *from = t->at, *stop = from + 1;
    size_t digits = 0, commas = 0;
    for (; stop < t->end && *stop != '}'; stop++) {
        digits += *stop >= '0' && *stop <= '9' && commas == 0;
        commas += *stop == ',';
        if (*stop != ',' && (*stop < '0' || *stop > '9')) {
            break;
        }
    }
    if (stop == t->end || *stop != '}' || digits == 0 || commas > 1 ||
        (stop + 1 < t->end && stop[1] == '+')) {
        refuse(t, from, (size_t)(stop - from) + 2);
        return;
    }
    put(t, from, (size_t)(stop + 1 - from));
    t->at = stop + 1;
}

enum memos_status paramem_pattern_translate(
    struct memos_bytes text, struct memos_buffer *out, struct memos_error *err)
{
    const char *begin = text.data ? text.data : "";
    struct translation t = {
        .at = begin, .end = begin + text.size, .out = out, .status = MEMOS_OK, .err = err};
    if (text.size > PARAMEM_PATTERN_MAX) {
        return memos_fail(err, MEMOS_TOO_LARGE, "an expression of %zu bytes", text.size);
    }
    while (t.at < t.end) {
        switch (*t.at) {
        case '\\':
            escape(&t, false);
            break;
        case '[':
            class(&t);
            break;
        case '(':
            group(&t);
            break;
        case '{':
            interval(&t);
            break;
        default:
            put(&t, t.at++, 1);
        }
    }
    if (t.status == MEMOS_OK && out->failed) {
        return memos_fail(err, MEMOS_TOO_LARGE, "an expression of %zu bytes", text.size);
    }
    return t.status;
}
