#include "paramem/text.h"
#include "paramem/unicode.h"
#include "paramem/wordpiece_internal.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* ---- characters ---------------------------------------------------------------------------- */

static uint8_t bits_beyond(uint32_t code)
{
    size_t low = 0, high = paramem_char_ranges_count; /* low begins at or before code */
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (paramem_char_ranges[middle] >> 8 <= code) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return (uint8_t)paramem_char_ranges[low];
}

static inline uint8_t bits_of(const struct paramem_wordpiece *wordpiece, uint32_t code)
{
    return code < 0x10000 ? wordpiece->plane[code] : bits_beyond(code);
}

/* ---- what follows from the switches -------------------------------------------------------- */

enum {
    KIND_WORD, /* part of a word, as ascii_byte */
    KIND_SPACE,
    KIND_PUNCT,
    KIND_DROP,
    KIND_WIDE,  /* not ASCII */
    KIND_ADDED, /* an added token may begin here */
};

static uint8_t kind_of(const struct paramem_wordpiece *wordpiece, uint8_t byte)
{
    uint8_t bits = wordpiece->plane[byte];
    if (byte >= 0x80) {
        return KIND_WIDE;
    } else if (wordpiece->clean && (bits & PARAMEM_CHAR_DROP)) {
        return KIND_DROP;
    } else if (bits & PARAMEM_CHAR_SPACE) {
        return KIND_SPACE;
    }
    return bits & PARAMEM_CHAR_PUNCT ? KIND_PUNCT : KIND_WORD;
}

static int longest_first(const void *a, const void *b)
{
    const struct paramem_added *left = a, *right = b;
    return (left->size < right->size) - (left->size > right->size);
}

enum memos_status paramem_wordpiece_prepare(
    struct paramem_wordpiece *wordpiece, struct memos_error *err)
{
    size_t range = 0;
    for (uint32_t code = 0; code < 0x10000; code++) {
        while (
            range + 1 < paramem_char_ranges_count && paramem_char_ranges[range + 1] >> 8 <= code) {
            range++;
        }
        wordpiece->plane[code] = (uint8_t)paramem_char_ranges[range];
    }
    for (unsigned byte = 0; byte < 256; byte++) {
        wordpiece->ascii_kind[byte] = kind_of(wordpiece, (uint8_t)byte);
        if (byte < 128) {
            bool upper = wordpiece->lowercase && byte >= 'A' && byte <= 'Z';
            wordpiece->ascii_byte[byte] = (uint8_t)(upper ? byte | 0x20 : byte);
        }
    }
    for (size_t i = 0; i < wordpiece->added_count; i++) {
        wordpiece->ascii_kind[(uint8_t)wordpiece->added[i].text[0]] = KIND_ADDED;
    }
    if (wordpiece->added_count > 0) {
        qsort(wordpiece->added, wordpiece->added_count, sizeof *wordpiece->added, longest_first);
    }
    wordpiece->word = malloc(4 * wordpiece->chars_max);
    wordpiece->pieces = malloc(wordpiece->chars_max * sizeof *wordpiece->pieces);
    wordpiece->recent = calloc(PARAMEM_RECENT_COUNT, sizeof *wordpiece->recent);
    if (!wordpiece->word || !wordpiece->pieces || !wordpiece->recent) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a tokenizer");
    }
    return MEMOS_OK;
}

void paramem_wordpiece_close(struct paramem_wordpiece **wordpiece)
{
    struct paramem_wordpiece *old = *wordpiece;
    if (!old) {
        return;
    }
    for (size_t i = 0; i < old->added_count; i++) {
        free(old->added[i].text);
    }
    free(old->added);
    paramem_vocab_finish(&old->vocab);
    free(old->word);
    free(old->pieces);
    free(old->recent);
    free(old->marks);
    free(old);
    *wordpiece = NULL;
}

size_t paramem_wordpiece_ids_end(const struct paramem_wordpiece *wordpiece)
{
    return wordpiece->ids_end;
}

void paramem_wordpiece_digest(const struct paramem_wordpiece *wordpiece, uint8_t out[32])
{
    memcpy(out, wordpiece->digest, sizeof wordpiece->digest);
}

/* ---- a text on its way --------------------------------------------------------------------- */

struct walk {
    struct paramem_wordpiece *wordpiece;
    struct memos_buffer *words; /* not NULL: words are wanted, not ids */
    uint32_t *ids;
    size_t count, count_max;
    size_t word_size, word_chars; /* what wordpiece->word holds; chars goes on past chars_max */
    size_t marks;
    bool full, no_memory;
};

static void put_ids(struct walk *walk, const uint32_t *ids, size_t count)
{
    size_t room = walk->count_max - walk->count;
    size_t taken = count < room ? count : room;
    memcpy(walk->ids + walk->count, ids, taken * sizeof *ids);
    walk->count += taken;
    walk->full = walk->full || taken < count;
}

/* Cut the word into pieces, the longest first; if some part is in no piece, all is unknown. Returns
 * how many pieces, in wordpiece->pieces. */
static size_t word_cut(const struct paramem_wordpiece *wordpiece, size_t size)
{
    size_t at = 0, pieces = 0;
    uint32_t node = 0;
    while (at < size) {
        struct memos_bytes rest = memos_bytes_make(wordpiece->word + at, size - at);
        size_t found = 0;
        if (at == 0 || node != 0) {
            found =
                paramem_vocab_longest(&wordpiece->vocab, node, rest, &wordpiece->pieces[pieces]);
        }
        if (found == 0) {
            wordpiece->pieces[0] = wordpiece->unk;
            return 1;
        }
        pieces++;
        at += found;
        node = wordpiece->after;
    }
    return pieces;
}

static struct paramem_recent *recent_of(
    const struct paramem_wordpiece *wordpiece, const uint8_t word[PARAMEM_RECENT_BYTES])
{
    uint64_t low, high;
    memcpy(&low, word, sizeof low);
    memcpy(&high, word + sizeof low, sizeof high);
    uint64_t mixed = (low ^ (high * UINT64_C(0xC2B2AE3D27D4EB4F))) * UINT64_C(0x9E3779B97F4A7C15);
    return &wordpiece->recent[mixed >> 32 & (PARAMEM_RECENT_COUNT - 1)];
}

static void put_word(struct walk *walk)
{
    const struct paramem_wordpiece *wordpiece = walk->wordpiece;
    size_t size = walk->word_size;
    uint8_t word[PARAMEM_RECENT_BYTES] = {0};

    if (walk->word_chars > wordpiece->chars_max) {
        put_ids(walk, &wordpiece->unk, 1);
        return;
    }
    if (size > sizeof word) {
        put_ids(walk, wordpiece->pieces, word_cut(wordpiece, size));
        return;
    }
    memcpy(word, wordpiece->word, size);
    struct paramem_recent *recent = recent_of(wordpiece, word);
    if (recent->size != size || memcmp(recent->word, word, sizeof word) != 0) {
        size_t pieces = word_cut(wordpiece, size);
        if (pieces > PARAMEM_RECENT_PIECES) {
            put_ids(walk, wordpiece->pieces, pieces);
            return;
        }
        memcpy(recent->word, word, sizeof word);
        memcpy(recent->ids, wordpiece->pieces, pieces * sizeof *recent->ids);
        recent->size = (uint8_t)size;
        recent->pieces = (uint8_t)pieces;
    }
    put_ids(walk, recent->ids, recent->pieces);
}

static void word_end(struct walk *walk)
{
    if (walk->word_chars == 0) {
        return;
    }
    if (walk->words) {
        memos_buffer_bytes(walk->words, walk->wordpiece->word, walk->word_size);
        memos_buffer_u8(walk->words, '\n');
    } else {
        put_word(walk);
    }
    walk->word_size = 0;
    walk->word_chars = 0;
}

/* `bytes` are one character in UTF-8. */
static void word_add(struct walk *walk, const uint8_t *bytes, size_t size)
{
    if (walk->word_chars < walk->wordpiece->chars_max) {
        memcpy(walk->wordpiece->word + walk->word_size, bytes, size);
        walk->word_size += size;
    }
    walk->word_chars++;
}

/* The last step: cut at white space and punctuation. */
static void put_split(struct walk *walk, uint32_t code)
{
    uint8_t bits = bits_of(walk->wordpiece, code), utf8[4];
    if (bits & PARAMEM_CHAR_SPACE) {
        word_end(walk);
        return;
    }
    size_t size = (size_t)utf8proc_encode_char((utf8proc_int32_t)code, utf8);
    if (bits & PARAMEM_CHAR_PUNCT) {
        word_end(walk);
        word_add(walk, utf8, size);
        word_end(walk);
    } else {
        word_add(walk, utf8, size);
    }
}

static void put_lower(struct walk *walk, uint32_t code)
{
    uint32_t lower[2] = {code, 0};
    size_t count = walk->wordpiece->lowercase ? paramem_char_lower(code, lower) : 1;
    for (size_t i = 0; i < count; i++) {
        put_split(walk, lower[i]);
    }
}

/* ---- marks in canonical order -------------------------------------------------------------- */

static int compare_marks(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

/* A character ends the run of marks before it. */
static void marks_end(struct walk *walk)
{
    uint64_t *marks = walk->wordpiece->marks;
    size_t count = walk->marks;
    if (count == 0) {
        return;
    }
    walk->marks = 0;
    qsort(marks, count, sizeof *marks, compare_marks);
    for (size_t i = 0; i < count; i++) {
        put_lower(walk, (uint32_t)(marks[i] & 0x1FFFFF));
    }
}

/* A mark: its class, then its place in the run (so that equal classes stay in order), then the
 * character. */
static void marks_add(struct walk *walk, uint32_t code)
{
    struct paramem_wordpiece *wordpiece = walk->wordpiece;
    if (walk->marks == wordpiece->marks_capacity) {
        size_t capacity = wordpiece->marks_capacity ? 2 * wordpiece->marks_capacity : 64;
        uint64_t *grown = realloc(wordpiece->marks, capacity * sizeof *grown);
        if (!grown) {
            walk->no_memory = true;
            return;
        }
        wordpiece->marks = grown;
        wordpiece->marks_capacity = capacity;
    }
    uint64_t class =
        (uint64_t)utf8proc_get_property((utf8proc_int32_t)code)->combining_class & 0xFF;
    wordpiece->marks[walk->marks] = class << 56 | (uint64_t)walk->marks << 21 | code;
    walk->marks++;
}

/* A decomposed character. Accents go here; one without a class still ends a run. */
static void put_ordered(struct walk *walk, uint32_t code)
{
    uint8_t bits = bits_of(walk->wordpiece, code);
    bool mark = (bits & PARAMEM_CHAR_MARK) != 0;
    if (bits & PARAMEM_CHAR_ORDERED) {
        if (!mark) {
            marks_add(walk, code);
        }
        return;
    }
    marks_end(walk);
    if (!mark) {
        put_lower(walk, code);
    }
}

static void put_decomposed(struct walk *walk, uint32_t code)
{
    utf8proc_int32_t parts[32];
    int boundary = 0;
    if (!walk->wordpiece->strip_accents) {
        put_lower(walk, code);
        return;
    }
    if (!(bits_of(walk->wordpiece, code) & PARAMEM_CHAR_DECOMPOSES)) {
        put_ordered(walk, code);
        return;
    }
    utf8proc_ssize_t count = utf8proc_decompose_char((utf8proc_int32_t)code, parts,
        sizeof parts / sizeof parts[0], UTF8PROC_DECOMPOSE, &boundary);
    memos_assert(count > 0 && (size_t)count <= sizeof parts / sizeof parts[0]);
    for (utf8proc_ssize_t i = 0; i < count; i++) {
        put_ordered(walk, (uint32_t)parts[i]);
    }
}

/* The first step for a character of the text. */
static void put_char(struct walk *walk, uint32_t code)
{
    const struct paramem_wordpiece *wordpiece = walk->wordpiece;
    uint8_t bits = bits_of(wordpiece, code);
    if (wordpiece->clean && (bits & PARAMEM_CHAR_DROP)) {
        return;
    }
    if (wordpiece->clean && (bits & PARAMEM_CHAR_SPACE)) {
        code = ' ';
    }
    if (wordpiece->chinese_chars && (bits & PARAMEM_CHAR_CJK)) {
        put_decomposed(walk, ' ');
        put_decomposed(walk, code);
        code = ' ';
    }
    put_decomposed(walk, code);
}

/* ---- the walk ------------------------------------------------------------------------------ */

/* The longest added token that bytes begin with; NULL when there is none. */
static const struct paramem_added *added_at(
    const struct paramem_wordpiece *wordpiece, struct memos_bytes bytes)
{
    for (size_t i = 0; i < wordpiece->added_count; i++) {
        const struct paramem_added *added = &wordpiece->added[i];
        if (added->size <= bytes.size && memcmp(bytes.data, added->text, added->size) == 0) {
            return added;
        }
    }
    return NULL;
}

/* Letters and digits in ASCII from `at` on; returns where they end. */
static const uint8_t *ascii_word(struct walk *walk, const uint8_t *at, const uint8_t *end)
{
    const struct paramem_wordpiece *wordpiece = walk->wordpiece;
    size_t chars_max = wordpiece->chars_max, chars = walk->word_chars;
    uint8_t *word = wordpiece->word + walk->word_size;

    for (; at < end && wordpiece->ascii_kind[*at] == KIND_WORD; at++) {
        if (chars < chars_max) {
            *word++ = wordpiece->ascii_byte[*at];
        }
        chars++;
    }
    walk->word_chars = chars;
    walk->word_size = (size_t)(word - wordpiece->word);
    return at;
}

/* What is no letter of ASCII; returns where the next character begins. */
static const uint8_t *other_char(struct walk *walk, const uint8_t *at, const uint8_t *end)
{
    struct memos_bytes rest = memos_bytes_make(at, (size_t)(end - at));
    uint8_t kind = walk->wordpiece->ascii_kind[*at];
    uint32_t code = *at;

    if (kind == KIND_ADDED) {
        const struct paramem_added *added = added_at(walk->wordpiece, rest);
        if (added) {
            marks_end(walk);
            word_end(walk);
            if (!walk->words) {
                put_ids(walk, &added->id, 1);
            }
            return at + added->size;
        }
        kind = kind_of(walk->wordpiece, *at);
    }
    if (kind == KIND_WIDE) {
        at += paramem_char_read(rest, &code);
        put_char(walk, code);
        return at;
    } else if (kind == KIND_DROP) {
        return at + 1;
    }
    marks_end(walk);
    if (kind == KIND_WORD) { /* where an added token might have begun */
        put_lower(walk, code);
        return at + 1;
    }
    word_end(walk);
    if (kind == KIND_PUNCT) {
        word_add(walk, at, 1);
        word_end(walk);
    }
    return at + 1;
}

static void walk_text(struct walk *walk, struct memos_bytes text)
{
    const uint8_t *at = text.data, *end = at ? at + text.size : at;
    while (at < end && !walk->full && !walk->no_memory) {
        if (walk->wordpiece->ascii_kind[*at] == KIND_WORD) {
            marks_end(walk);
            at = ascii_word(walk, at, end);
        } else {
            at = other_char(walk, at, end);
        }
    }
}

static enum memos_status walk_end(struct walk *walk, struct memos_error *err)
{
    if (!walk->full) {
        marks_end(walk);
        word_end(walk);
    }
    if (walk->no_memory || (walk->words && walk->words->failed)) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to tokenize");
    }
    return MEMOS_OK;
}

enum memos_status paramem_wordpiece_encode(struct paramem_wordpiece *wordpiece,
    struct memos_bytes prefix, struct memos_bytes text, uint32_t *ids, size_t ids_max,
    size_t *out_count, bool *out_cut, struct memos_error *err)
{
    memos_assert(ids_max >= 2);
    struct walk walk = {.wordpiece = wordpiece, .ids = ids, .count = 1, .count_max = ids_max - 1};
    ids[0] = wordpiece->cls;
    walk_text(&walk, prefix);
    walk_text(&walk, text);
    enum memos_status status = walk_end(&walk, err);
    if (status != MEMOS_OK) {
        return status;
    }
    ids[walk.count] = wordpiece->sep;
    *out_count = walk.count + 1;
    if (out_cut) {
        *out_cut = walk.full;
    }
    return MEMOS_OK;
}

enum memos_status paramem_wordpiece_words(struct paramem_wordpiece *wordpiece,
    struct memos_bytes text, struct memos_buffer *out, struct memos_error *err)
{
    struct walk walk = {.wordpiece = wordpiece, .words = out};
    walk_text(&walk, text);
    return walk_end(&walk, err);
}
