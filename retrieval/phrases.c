#include "retrieval/phrases.h"

#include <stdlib.h>
#include <string.h>

#define WORDS_OF_BITS (RETRIEVAL_PHRASE_STATES_MAX / 64)
#define SLOTS 1024 /* for words; a power of two */
#define SPECIALS_MAX 32

struct bits {
    uint64_t words[WORDS_OF_BITS];
};

enum label {
    LABEL_EXACT,
    LABEL_PREFIX,
    LABEL_SUFFIX,
    LABEL_PLAIN,
    LABEL_ANY,
    LABEL_NUMBER,
    LABEL_YEAR,
    LABEL_SHORT,
    LABEL_ORDINAL,
    LABEL_QUESTION,
    LABEL_SIGN,
    LABEL_START,
};

/* A word of patterns, and the states that it leads to. */
struct known {
    char bytes[RETRIEVAL_TOKEN_BYTES_MAX];
    size_t size; /* 0: an empty slot */
    struct bits states;
};

struct special {
    enum label label;
    char bytes[RETRIEVAL_TOKEN_BYTES_MAX];
    size_t size;
    struct bits states;
};

/* What decides most labels: most tokens are asked nothing else. */
enum class { CLASS_STOP, CLASS_QUESTION, CLASS_SIGN, CLASS_WORD, CLASS_WORD_PLAIN, CLASSES };

struct retrieval_phrases {
    size_t states_count, words_count;           /* words of 64 states each */
    struct bits start;                          /* where every walk is before its first token */
    struct bits first;                          /* where a match may begin */
    struct bits last;                           /* states that end some pattern */
    unsigned ends[RETRIEVAL_PHRASE_STATES_MAX]; /* which ones, of these states */
    struct bits follow[RETRIEVAL_PHRASE_STATES_MAX];
    struct special specials[SPECIALS_MAX];
    size_t specials_count;
    struct bits classes[CLASSES]; /* states that any token of a class leads to */
    struct known known[SLOTS];
    size_t known_count;
};

static void bit_set(struct bits *bits, size_t i)
{
    bits->words[i / 64] |= UINT64_C(1) << (i % 64);
}

static void bits_or(struct bits *to, const struct bits *from, size_t words)
{
    for (size_t i = 0; i < words; i++) {
        to->words[i] |= from->words[i];
    }
}

/* ---- making -------------------------------------------------------------------------------- */

/* What a part of a pattern can begin and end with, and whether it can be nothing. */
struct part {
    struct bits first, last;
    bool nullable;
};

struct making {
    struct retrieval_phrases *phrases;
    const char *at;
};

static size_t slot_of(const char *bytes, size_t size)
{
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ (uint8_t)bytes[i]) * 16777619u;
    }
    return hash & (SLOTS - 1);
}

static const struct known *known_find(
    const struct retrieval_phrases *phrases, const char *bytes, size_t size)
{
    size_t slot = slot_of(bytes, size);
    while (phrases->known[slot].size != 0 &&
           (phrases->known[slot].size != size ||
               memcmp(phrases->known[slot].bytes, bytes, size) != 0)) {
        slot = (slot + 1) & (SLOTS - 1);
    }
    return &phrases->known[slot];
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '\'' || c == '-';
}

static enum label label_named(const char *name, size_t size)
{
    static const struct {
        const char *name;
        enum label label;
    } names[] = {{"any", LABEL_ANY}, {"number", LABEL_NUMBER}, {"year", LABEL_YEAR},
        {"short", LABEL_SHORT}, {"ordinal", LABEL_ORDINAL}, {"?", LABEL_QUESTION},
        {"sign", LABEL_SIGN}, {"start", LABEL_START}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strlen(names[i].name) == size && memcmp(names[i].name, name, size) == 0) {
            return names[i].label;
        }
    }
    memos_assert(!"a label of a phrase is not known");
    return LABEL_ANY;
}

/* Read one label; its text is empty where the label says all. */
static enum label read_label(struct making *making, const char **out_text, size_t *out_size)
{
    enum label label = LABEL_EXACT;
    const char *at = making->at;
    if (*at == '_') {
        making->at++;
        *out_size = 0;
        return LABEL_PLAIN;
    }
    if (*at == '<') {
        const char *end = strchr(at, '>');
        memos_assert(end);
        making->at = end + 1;
        *out_size = 0;
        return label_named(at + 1, (size_t)(end - at - 1));
    }
    if (*at == '~') {
        label = LABEL_SUFFIX;
        at++;
    }
    *out_text = at;
    while (is_letter(*at)) {
        at++;
    }
    *out_size = (size_t)(at - *out_text);
    memos_assert(*out_size > 0 && *out_size <= RETRIEVAL_TOKEN_BYTES_MAX);
    if (*at == '~') {
        label = LABEL_PREFIX;
        at++;
    }
    making->at = at;
    return label;
}

/* A new state for the label at hand. */
static void make_state(struct making *making, struct part *out)
{
    struct retrieval_phrases *phrases = making->phrases;
    const char *text = "";
    size_t size, i;
    size_t state = phrases->states_count++;
    memos_assert(state < RETRIEVAL_PHRASE_STATES_MAX);
    enum label label = read_label(making, &text, &size);
    if (label == LABEL_EXACT) {
        struct known *known = (struct known *)known_find(phrases, text, size);
        phrases->known_count += known->size == 0;
        memos_assert(phrases->known_count <= SLOTS / 4 * 3);
        memcpy(known->bytes, text, size);
        known->size = size;
        bit_set(&known->states, state);
    } else {
        for (i = 0; i < phrases->specials_count; i++) {
            if (phrases->specials[i].label == label && phrases->specials[i].size == size &&
                memcmp(phrases->specials[i].bytes, text, size) == 0) {
                break;
            }
        }
        memos_assert(i < SPECIALS_MAX);
        phrases->specials_count = i == phrases->specials_count ? i + 1 : phrases->specials_count;
        phrases->specials[i].label = label;
        phrases->specials[i].size = size;
        memcpy(phrases->specials[i].bytes, text, size);
        bit_set(&phrases->specials[i].states, state);
    }
    *out = (struct part){.nullable = false};
    bit_set(&out->first, state);
    bit_set(&out->last, state);
}

/* After any end of `before` may come any beginning of `after`. */
static void link_parts(
    struct retrieval_phrases *phrases, const struct bits *before, const struct bits *after)
{
    for (size_t state = 0; state < phrases->states_count; state++) {
        if (before->words[state / 64] >> (state % 64) & 1) {
            bits_or(&phrases->follow[state], after, WORDS_OF_BITS);
        }
    }
}

static void append(struct making *making, struct part *part, const struct part *next)
{
    link_parts(making->phrases, &part->last, &next->first);
    if (part->nullable) {
        bits_or(&part->first, &next->first, WORDS_OF_BITS);
    }
    if (next->nullable) {
        bits_or(&part->last, &next->last, WORDS_OF_BITS);
    } else {
        part->last = next->last;
    }
    part->nullable = part->nullable && next->nullable;
}

static void make_either(struct making *making, struct part *out);

static void make_atom(struct making *making, struct part *out)
{
    if (*making->at != '(') {
        make_state(making, out);
        return;
    }
    making->at++;
    make_either(making, out);
    memos_assert(*making->at == ')');
    making->at++;
}

static void make_item(struct making *making, struct part *out)
{
    const char *begin = making->at;
    make_atom(making, out);
    if (*making->at == '?') {
        out->nullable = true;
        making->at++;
    } else if (*making->at == '*') {
        link_parts(making->phrases, &out->last, &out->first);
        out->nullable = true;
        making->at++;
    } else if (*making->at == '{') {
        const char *range = making->at;
        int least = range[1] - '0', most = range[3] - '0';
        memos_assert(range[2] == ',' && range[4] == '}' && most >= 1 && most <= 9);
        out->nullable = out->nullable || least == 0;
        for (int i = 1; i < most; i++) {
            struct part again;
            making->at = begin;
            make_atom(making, &again);
            again.nullable = again.nullable || i >= least;
            append(making, out, &again);
        }
        making->at = range + 5;
    }
}

static void skip_blanks(struct making *making)
{
    while (*making->at == ' ') {
        making->at++;
    }
}

static void make_sequence(struct making *making, struct part *out)
{
    *out = (struct part){.nullable = true};
    for (skip_blanks(making); *making->at && *making->at != '|' && *making->at != ')';
         skip_blanks(making)) {
        struct part item;
        make_item(making, &item);
        append(making, out, &item);
    }
}

static void make_either(struct making *making, struct part *out)
{
    make_sequence(making, out);
    while (*making->at == '|') {
        struct part other;
        making->at++;
        make_sequence(making, &other);
        bits_or(&out->first, &other.first, WORDS_OF_BITS);
        bits_or(&out->last, &other.last, WORDS_OF_BITS);
        out->nullable = out->nullable || other.nullable;
    }
}

/* Labels that a token's class decides are not asked again for each token. */
static void sort_by_class(struct retrieval_phrases *phrases)
{
    static const struct {
        enum label label;
        enum class class;
    } pairs[] = {{LABEL_ANY, CLASS_WORD}, {LABEL_ANY, CLASS_WORD_PLAIN},
        {LABEL_PLAIN, CLASS_WORD_PLAIN}, {LABEL_QUESTION, CLASS_QUESTION},
        {LABEL_SIGN, CLASS_SIGN}};
    size_t kept = 0;
    for (size_t i = 0; i < phrases->specials_count; i++) {
        struct special *special = &phrases->specials[i];
        bool by_class = special->label == LABEL_START;
        if (by_class) {
            phrases->start = special->states;
        }
        for (size_t k = 0; k < sizeof pairs / sizeof pairs[0]; k++) {
            if (pairs[k].label == special->label) {
                bits_or(&phrases->classes[pairs[k].class], &special->states, WORDS_OF_BITS);
                by_class = true;
            }
        }
        if (!by_class) {
            phrases->specials[kept++] = *special;
        }
    }
    phrases->specials_count = kept;
}

enum memos_status retrieval_phrases_create(const struct retrieval_pattern *patterns, size_t count,
    struct retrieval_phrases **out_phrases, struct memos_error *err)
{
    struct retrieval_phrases *phrases = calloc(1, sizeof *phrases);
    if (!phrases) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for phrases");
    }
    for (size_t i = 0; i < count; i++) {
        struct making making = {.phrases = phrases, .at = patterns[i].text};
        struct part whole;
        make_either(&making, &whole);
        memos_assert(*making.at == 0 && !whole.nullable);
        memos_assert(patterns[i].number < RETRIEVAL_PHRASE_SETS_MAX);
        bits_or(&phrases->first, &whole.first, WORDS_OF_BITS);
        bits_or(&phrases->last, &whole.last, WORDS_OF_BITS);
        for (size_t state = 0; state < phrases->states_count; state++) {
            if (whole.last.words[state / 64] >> (state % 64) & 1) {
                phrases->ends[state] |= 1u << patterns[i].number;
            }
        }
    }
    phrases->words_count = phrases->states_count / 64 + 1;
    sort_by_class(phrases);
    *out_phrases = phrases;
    return MEMOS_OK;
}

void retrieval_phrases_destroy(struct retrieval_phrases **phrases)
{
    free(*phrases);
    *phrases = NULL;
}

/* ---- walking ------------------------------------------------------------------------------- */

/* Do two digits and what is after them read as a day's number: 27, 27th? */
static bool is_ordinal(const struct retrieval_token *token)
{
    if (token->digits < 1 || token->digits > 2) {
        return false;
    }
    const char *rest = token->bytes + token->digits;
    size_t size = token->size - token->digits;
    return size == 0 ||
           (size == 2 && (memcmp(rest, "st", 2) == 0 || memcmp(rest, "nd", 2) == 0 ||
                             memcmp(rest, "rd", 2) == 0 || memcmp(rest, "th", 2) == 0));
}

static bool special_fits(const struct special *special, const struct retrieval_token *token)
{
    bool number = token->digits == token->size;
    switch (special->label) {
    case LABEL_PREFIX:
        return token->size >= special->size &&
               memcmp(token->bytes, special->bytes, special->size) == 0;
    case LABEL_SUFFIX:
        return token->size > special->size && token->size <= RETRIEVAL_TOKEN_BYTES_MAX &&
               memcmp(token->bytes + token->size - special->size, special->bytes, special->size) ==
                   0;
    case LABEL_NUMBER:
        return number;
    case LABEL_YEAR:
        return number && token->size == 4 &&
               (memcmp(token->bytes, "19", 2) == 0 || memcmp(token->bytes, "20", 2) == 0);
    case LABEL_SHORT:
        return number && token->size <= 4;
    case LABEL_ORDINAL:
        return is_ordinal(token);
    default: /* by class */
        return false;
    }
}

static enum class class_of(const struct retrieval_token *token) {
    if (token->word){return token->apostrophe ? CLASS_WORD : CLASS_WORD_PLAIN;}
return token->sign == '?'                         ? CLASS_QUESTION
       : token->sign == '.' || token->sign == '!' ? CLASS_STOP
                                                  : CLASS_SIGN;
}

/* The states that a word leads to. */
static void word_fits(
    const struct retrieval_phrases *phrases, const struct retrieval_token *token, struct bits *fits)
{
    size_t size = token->size;
    if (size <= RETRIEVAL_TOKEN_BYTES_MAX) {
        bits_or(fits, &known_find(phrases, token->bytes, size)->states, phrases->words_count);
        if (token->apostrophe && size > 2 && memcmp(token->bytes + size - 2, "'s", 2) == 0) {
            bits_or(
                fits, &known_find(phrases, token->bytes, size - 2)->states, phrases->words_count);
        }
    }
    for (size_t i = 0; i < phrases->specials_count; i++) {
        if (special_fits(&phrases->specials[i], token)) {
            bits_or(fits, &phrases->specials[i].states, phrases->words_count);
        }
    }
}

void retrieval_phrases_begin(
    const struct retrieval_phrases *phrases, struct retrieval_phrase_walk *walk)
{
    walk->phrases = phrases;
    memcpy(walk->active, phrases->start.words, sizeof walk->active);
}

unsigned retrieval_phrases_step(
    struct retrieval_phrase_walk *walk, const struct retrieval_token *token)
{
    const struct retrieval_phrases *phrases = walk->phrases;
    struct bits fits = phrases->classes[class_of(token)], next = phrases->first;
    size_t words = phrases->words_count;
    unsigned ends = 0;

    if (token->word) {
        word_fits(phrases, token, &fits);
    }
    for (size_t i = 0; i < words; i++) {
        for (uint64_t left = walk->active[i]; left != 0; left &= left - 1) {
            bits_or(&next, &phrases->follow[i * 64 + (size_t)__builtin_ctzll(left)], words);
        }
    }
    for (size_t i = 0; i < words; i++) {
        walk->active[i] = next.words[i] & fits.words[i];
        for (uint64_t left = walk->active[i] & phrases->last.words[i]; left != 0;
             left &= left - 1) {
            ends |= phrases->ends[i * 64 + (size_t)__builtin_ctzll(left)];
        }
    }
    return ends;
}
