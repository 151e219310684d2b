#include "retrieval/words.h"

#include <string.h>
#include <utf8proc.h>

/* How much of a long word is looked at before it is folded and cut. Folding can make ASCII of
 * four-byte letters, so it is more than what is kept. */
#define RAW_BYTES_MAX ((size_t)256)

/* Compatibility decomposition makes at most 18 code points of one (U+FDFA), which has 3 bytes. */
#define FOLDED_MAX (RAW_BYTES_MAX / 3 * 18 + 18)

/* What a code point is to the cutting of words. */
enum letter_class {
    CLASS_OTHER, /* parts words */
    CLASS_LETTER,
    CLASS_DIGIT,
    CLASS_EXTEND,     /* belongs to what stands before it: marks, joiners */
    CLASS_CONNECTOR,  /* joins letters and digits: the underscore */
    CLASS_APOSTROPHE, /* joins letters */
    CLASS_MID_LETTER, /* joins letters */
    CLASS_MID_NUMBER, /* joins digits */
    CLASS_SIGN,       /* of a script without blanks */
    CLASS_PICTURE,    /* emoji */
};

static const struct {
    int32_t first, last;
} sign_ranges[] = {
    {0x0E01, 0x0E30}, {0x0E32, 0x0E33}, {0x0E40, 0x0E46},                   /* Thai */
    {0x0E81, 0x0EB0}, {0x0EB2, 0x0EB3}, {0x0EBD, 0x0EC6}, {0x0EDC, 0x0EDF}, /* Lao */
    {0x1000, 0x102A}, {0x103F, 0x103F}, {0x1050, 0x1055},                   /* Burmese */
    {0x1100, 0x11FF},                                                       /* Hangul jamo */
    {0x1780, 0x17B3},                                                       /* Khmer */
    {0x2E80, 0x2FD5}, {0x3005, 0x3007}, {0x3021, 0x3029},     /* Han radicals, numerals */
    {0x3031, 0x3035}, {0x3041, 0x3096}, {0x309D, 0x309F},     /* Hiragana */
    {0x30A1, 0x30FA}, {0x30FC, 0x30FF}, {0x31F0, 0x31FF},     /* Katakana */
    {0x3105, 0x312F}, {0x3131, 0x318E},                       /* Bopomofo, jamo */
    {0x3400, 0x4DBF}, {0x4E00, 0x9FFF}, {0xA960, 0xA97C},     /* Han, jamo */
    {0xAC00, 0xD7FB}, {0xF900, 0xFAD9}, {0xFF66, 0xFF9D},     /* Hangul, Han, half width */
    {0xFFA0, 0xFFDC}, {0x1B000, 0x1B16F}, {0x20000, 0x3FFFD}, /* half width, kana, Han */
};

static bool is_sign(int32_t code)
{
    size_t low = 0, high = sizeof sign_ranges / sizeof sign_ranges[0];
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (code < sign_ranges[middle].first) {
            high = middle;
        } else if (code > sign_ranges[middle].last) {
            low = middle + 1;
        } else {
            return true;
        }
    }
    return false;
}

#define O CLASS_OTHER
#define L CLASS_LETTER
#define D CLASS_DIGIT
#define C CLASS_CONNECTOR
#define A CLASS_APOSTROPHE
#define M CLASS_MID_NUMBER
/* clang-format off */
static const uint8_t ascii_classes[128] = {
    O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O,
    O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O,
    O, O, O, O, O, O, O, A, O, O, O, O, M, O, M, O,
    D, D, D, D, D, D, D, D, D, D, O, O, O, O, O, O,
    O, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L,
    L, L, L, L, L, L, L, L, L, L, L, O, O, O, O, C,
    O, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L,
    L, L, L, L, L, L, L, L, L, L, L, O, O, O, O, O,
};
/* clang-format on */
#undef O
#undef L
#undef D
#undef C
#undef A
#undef M

/* The characters that UAX #29 names one by one; CLASS_OTHER for all others. */
static enum letter_class class_of_named(int32_t code)
{
    switch (code) {
    case 0x2018: /* quotation marks that are typed as apostrophes */
    case 0x2019:
    case 0xFF07:
        return CLASS_APOSTROPHE;
    case 0x00B7: /* Catalan l·l */
    case 0x05F3: /* Hebrew geresh, gershayim */
    case 0x05F4:
    case 0x2027:
        return CLASS_MID_LETTER;
    case 0x066B: /* Arabic decimal and thousands separators */
    case 0x066C:
    case 0xFF0C: /* full width comma, full stop */
    case 0xFF0E:
        return CLASS_MID_NUMBER;
    case 0xFF9E: /* half-width voicing marks: letters by category, marks by use */
    case 0xFF9F:
        return CLASS_EXTEND;
    default:
        return CLASS_OTHER;
    }
}

static bool is_picture(int32_t code)
{
    return code >= 0x2190 &&
           utf8proc_get_property(code)->boundclass == UTF8PROC_BOUNDCLASS_EXTENDED_PICTOGRAPHIC;
}

/* What a code point beyond ASCII is. */
static enum letter_class class_of(int32_t code)
{
    enum letter_class named = class_of_named(code);
    if (named != CLASS_OTHER) {
        return named;
    }
    switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return is_sign(code) ? CLASS_SIGN : CLASS_LETTER;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
        return CLASS_EXTEND;
    case UTF8PROC_CATEGORY_CF: /* joiners and the like; U+200B is a blank without width */
        return code == 0x200B ? CLASS_OTHER : CLASS_EXTEND;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NO:
        return CLASS_DIGIT;
    case UTF8PROC_CATEGORY_NL:
        return is_sign(code) ? CLASS_SIGN : CLASS_LETTER;
    case UTF8PROC_CATEGORY_PC:
        return CLASS_CONNECTOR;
    case UTF8PROC_CATEGORY_SO:
        return is_sign(code) ? CLASS_SIGN : is_picture(code) ? CLASS_PICTURE : CLASS_OTHER;
    default:
        return CLASS_OTHER;
    }
}

static enum letter_class look_beyond_ascii(const uint8_t *at, const uint8_t *end, size_t *size)
{
    utf8proc_int32_t code;
    size_t left = (size_t)(end - at);
    utf8proc_ssize_t taken = utf8proc_iterate(at, left < 4 ? (utf8proc_ssize_t)left : 4, &code);
    if (taken <= 0) {
        *size = 1;
        return CLASS_OTHER;
    }
    *size = (size_t)taken;
    return class_of(code);
}

/* Decode the code point at `at` (< end) and say what it is; *size is how many bytes to step. */
static inline enum letter_class look(const uint8_t *at, const uint8_t *end, size_t *size)
{
    if (*at < 0x80) {
        *size = 1;
        return (enum letter_class)ascii_classes[*at];
    }
    return look_beyond_ascii(at, end, size);
}

/* Step over marks and joiners. */
static const uint8_t *skip_extends(const uint8_t *at, const uint8_t *end)
{
    size_t size;
    while (at < end && look(at, end, &size) == CLASS_EXTEND) {
        at += size;
    }
    return at;
}

/* ---- folding ------------------------------------------------------------------------------- */

/* Accents, and the points of Hebrew and Arabic that everyday writing leaves out. Marks of other
 * scripts are vowels or more, and stay. */
static bool is_accent(int32_t code)
{
    return (code >= 0x0300 && code <= 0x036F) || (code >= 0x1AB0 && code <= 0x1AFF) ||
           (code >= 0x1DC0 && code <= 0x1DFF) || (code >= 0x20D0 && code <= 0x20FF) ||
           (code >= 0xFE20 && code <= 0xFE2F) || (code >= 0x0591 && code <= 0x05C7) ||
           (code >= 0x064B && code <= 0x0652) || code == 0x0640 || code == 0x0670;
}

/* Letters that are accented to the eye, yet have no decomposition. NULL for all others. */
static const char *plain_letter(int32_t code)
{
    switch (code) {
    case 0x00E6:
        return "ae";
    case 0x00F8:
        return "o";
    case 0x00F0:
    case 0x0111:
        return "d";
    case 0x00FE:
        return "th";
    case 0x0127:
        return "h";
    case 0x0131:
        return "i";
    case 0x0142:
        return "l";
    case 0x0153:
        return "oe";
    case 0x0167:
        return "t";
    default:
        return NULL;
    }
}

static void word_append(struct retrieval_word *word, const void *bytes, size_t size, bool *full)
{
    *full = *full || size > RETRIEVAL_WORD_BYTES_MAX - word->size;
    if (!*full) {
        memcpy(word->bytes + word->size, bytes, size);
        word->size += size;
    }
}

/* Write code points into a word, as many as fit whole. */
static void word_encode(
    struct retrieval_word *word, const int32_t *codes, size_t codes_count, bool plain)
{
    bool full = false;
    word->size = 0;
    for (size_t i = 0; i < codes_count && !full; i++) {
        const char *letters = plain ? plain_letter(codes[i]) : NULL;
        uint8_t bytes[4];
        if (letters) {
            word_append(word, letters, strlen(letters), &full);
        } else {
            word_append(word, bytes, (size_t)utf8proc_encode_char(codes[i], bytes), &full);
        }
    }
}

/* Drop accents from decomposed code points, in place; how many are left. */
static size_t strip_codes(int32_t *codes, size_t codes_count)
{
    size_t kept = 0;
    for (size_t i = 0; i < codes_count; i++) {
        if (!is_accent(codes[i])) {
            codes[kept++] = codes[i];
        }
    }
    return kept;
}

static void fold_ascii(struct retrieval_word *word, const uint8_t *raw, size_t raw_size)
{
    word->size = raw_size < RETRIEVAL_WORD_BYTES_MAX ? raw_size : RETRIEVAL_WORD_BYTES_MAX;
    for (size_t i = 0; i < word->size; i++) {
        uint8_t byte = raw[i];
        word->bytes[i] = byte >= 'A' && byte <= 'Z' ? byte | 0x20 : byte;
    }
}

static bool is_ascii(const uint8_t *bytes, size_t size)
{
    uint8_t all = 0;
    for (size_t i = 0; i < size; i++) {
        all |= bytes[i];
    }
    return all < 0x80;
}

/* Fold raw_size well-formed bytes into word; size 0 when nothing is left of them. */
static void fold(
    struct retrieval_word *word, const uint8_t *raw, size_t raw_size, bool keep_accents)
{
    if (is_ascii(raw, raw_size)) {
        fold_ascii(word, raw, raw_size);
        return;
    }
    int32_t codes[FOLDED_MAX];
    utf8proc_ssize_t count = utf8proc_decompose(raw, (utf8proc_ssize_t)raw_size, codes, FOLDED_MAX,
        UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT | UTF8PROC_CASEFOLD | UTF8PROC_IGNORE);
    word->size = 0;
    if (count <= 0 || (size_t)count > FOLDED_MAX) {
        return;
    }
    for (utf8proc_ssize_t i = 0; i < count; i++) {
        if (codes[i] == 0x2018 || codes[i] == 0x2019 || codes[i] == 0x02BC) {
            codes[i] = '\'';
        }
    }
    if (!keep_accents) {
        count = (utf8proc_ssize_t)strip_codes(codes, (size_t)count);
    }
    count = utf8proc_normalize_utf32(codes, count, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    word_encode(word, codes, count > 0 ? (size_t)count : 0, !keep_accents);
}

void retrieval_word_strip(struct retrieval_word *word)
{
    if (!is_ascii(word->bytes, word->size)) {
        struct retrieval_word raw = *word;
        fold(word, raw.bytes, raw.size, false);
    }
}

/* ---- cutting ------------------------------------------------------------------------------- */

void retrieval_words_init(struct retrieval_words *words, struct memos_bytes text,
    const struct retrieval_language *language)
{
    const uint8_t *at = text.data;
    *words =
        (struct retrieval_words){.at = at, .end = at ? at + text.size : at, .language = language};
}

/* May what stands between two characters of these classes join them? */
static bool joins(const struct retrieval_language *language, enum letter_class before,
    enum letter_class between, enum letter_class after)
{
    switch (between) {
    case CLASS_CONNECTOR:
        return after == CLASS_LETTER || after == CLASS_DIGIT;
    case CLASS_APOSTROPHE:
        return !language->elides && before == CLASS_LETTER && after == CLASS_LETTER;
    case CLASS_MID_LETTER:
        return before == CLASS_LETTER && after == CLASS_LETTER;
    case CLASS_MID_NUMBER:
        return before == CLASS_DIGIT && after == CLASS_DIGIT;
    default:
        return false;
    }
}

/* The word that begins at words->at with a letter or digit: step over it, fold it. */
static void take_word(struct retrieval_words *words, struct retrieval_word *out)
{
    const uint8_t *start = words->at, *at = start, *keep_end = start, *end = words->end;
    enum letter_class last = CLASS_OTHER;
    out->stems = false;
    while (at < end) {
        size_t size, size_after;
        enum letter_class class = look(at, end, &size);
        if (class == CLASS_LETTER || class == CLASS_DIGIT) {
            last = class;
            out->stems |= class == CLASS_LETTER;
        } else if (class != CLASS_EXTEND) {
            const uint8_t *after = skip_extends(at + size, end);
            if (after == end ||
                !joins(words->language, last, class, look(after, end, &size_after))) {
                break;
            }
        }
        at += size;
        if ((size_t)(at - start) <= RAW_BYTES_MAX) {
            keep_end = at;
        }
    }
    words->at = at;
    fold(out, start, (size_t)(keep_end - start), words->language->accents);
}

/* The sign at words->at with its marks. A pair with the sign before it comes next. */
static void take_sign(struct retrieval_words *words, size_t sign_size, struct retrieval_word *out)
{
    const uint8_t *start = words->at, *end = skip_extends(start + sign_size, words->end);
    bool neighbours = words->sign_end == start;
    size_t raw_size = (size_t)(end - start);

    /* A sign has a few marks; with a mountain of them it is taken alone. */
    fold(out, start, raw_size < RAW_BYTES_MAX ? raw_size : sign_size, false);
    out->stems = false;
    words->at = end;
    words->sign_end = end;
    words->pair.size = 0;
    if (neighbours && out->size > 0 && words->sign.size > 0 &&
        out->size <= RETRIEVAL_WORD_BYTES_MAX - words->sign.size) {
        words->pair = words->sign;
        memcpy(words->pair.bytes + words->pair.size, out->bytes, out->size);
        words->pair.size += out->size;
    }
    words->sign = *out;
}

bool retrieval_words_next(struct retrieval_words *words, struct retrieval_word *out)
{
    if (words->pair.size > 0) {
        *out = words->pair;
        words->pair.size = 0;
        return true;
    }
    while (words->at < words->end) {
        size_t size;
        switch (look(words->at, words->end, &size)) {
        case CLASS_LETTER:
        case CLASS_DIGIT:
            take_word(words, out);
            break;
        case CLASS_SIGN:
            take_sign(words, size, out);
            break;
        case CLASS_PICTURE:
            fold(out, words->at, size, false);
            out->stems = false;
            words->at += size;
            break;
        default:
            words->at += size;
            continue;
        }
        if (out->size > 0) {
            return true;
        }
    }
    return false;
}
