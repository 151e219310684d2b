/* Vectors of hashed n-grams: no model, no file, the same on every machine.
 *
 * Features of a text, each with a weight: its words (words.h; English's light words a tenth),
 * pairs of neighbouring words that are not both light, and the runs of 3 to 5 characters inside a
 * word, the word's beginning and end marked, so that "marries" is near "married" and a slip of the
 * keyboard near what was meant. A feature seen n times counts sqrt(n). Its hash says to which
 * dimension it is added, and with which sign, so that features that meet by chance cancel out in
 * the mean: Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", 2009, arXiv
 * 0902.2206.
 *
 * Sums are integers and only basic operations of IEEE 754 follow, so that order and machine do not
 * matter. Departure: no weights by rarity, since they would change with every text that comes.
 *
 * Whoever changes anything that changes a vector counts SCHEME up. */
#include "retrieval/encoder_internal.h"
#include "retrieval/terms.h"
#include "retrieval/words.h"

#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define SCHEME "memos hashed n-grams 1"

/* Of one text; what comes after is not looked at. */
#define TEXT_BYTES_MAX ((size_t)64 << 10)
#define FEATURES_MAX ((size_t)1 << 16)

#define SLOTS_MIN ((size_t)2048)

/* Weights, in 1/4096. README.md has how they were chosen. */
#define WEIGHT_WORD 4096
#define WEIGHT_LIGHT 410
#define WEIGHT_PAIR 1024
#define WEIGHT_CHARACTERS 2048

enum { CHARACTERS_MIN = 3, CHARACTERS_MAX = 5 };

struct feature {
    uint64_t hash;
    uint32_t weight;
    uint32_t count; /* 0: an empty slot */
};

struct retrieval_ngrams {
    struct feature *slots; /* open addressing; at most half are taken */
    size_t slots_count;    /* a power of two */
    size_t used;
};

/* Fixed: vectors must be the same everywhere and for ever. */
static const uint8_t hash_key[crypto_shorthash_KEYBYTES] = {
    'm', 'e', 'm', 'o', 's', ' ', 'n', '-', 'g', 'r', 'a', 'm', 's', ' ', '1', '.'};

enum memos_status retrieval_ngrams_create(
    struct retrieval_ngrams **out_ngrams, struct memos_error *err)
{
    struct retrieval_ngrams *ngrams = calloc(1, sizeof *ngrams);
    struct feature *slots = calloc(SLOTS_MIN, sizeof *slots);
    if (!ngrams || !slots) {
        free(ngrams);
        free(slots);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for hashed n-grams");
    }
    ngrams->slots = slots;
    ngrams->slots_count = SLOTS_MIN;
    *out_ngrams = ngrams;
    return MEMOS_OK;
}

void retrieval_ngrams_destroy(struct retrieval_ngrams **ngrams)
{
    if (*ngrams) {
        free((*ngrams)->slots);
        free(*ngrams);
        *ngrams = NULL;
    }
}

void retrieval_ngrams_fingerprint(uint8_t out[32])
{
    (void)crypto_generichash(out, 32, (const uint8_t *)SCHEME, sizeof SCHEME - 1, NULL, 0);
}

/* ---- features ------------------------------------------------------------------------------ */

static struct feature *slot_of(struct feature *slots, size_t slots_count, uint64_t hash)
{
    size_t at = (size_t)(hash >> 16) & (slots_count - 1);
    while (slots[at].count != 0 && slots[at].hash != hash) {
        at = (at + 1) & (slots_count - 1);
    }
    return &slots[at];
}

static bool grow(struct retrieval_ngrams *ngrams)
{
    size_t slots_count = ngrams->slots_count * 4;
    struct feature *slots = calloc(slots_count, sizeof *slots);
    if (!slots) {
        return false;
    }
    for (size_t i = 0; i < ngrams->slots_count; i++) {
        if (ngrams->slots[i].count != 0) {
            *slot_of(slots, slots_count, ngrams->slots[i].hash) = ngrams->slots[i];
        }
    }
    free(ngrams->slots);
    ngrams->slots = slots;
    ngrams->slots_count = slots_count;
    return true;
}

/* Count one feature; false without memory. */
static bool count_feature(
    struct retrieval_ngrams *ngrams, const uint8_t *bytes, size_t size, uint32_t weight)
{
    uint8_t digest[crypto_shorthash_BYTES];
    (void)crypto_shorthash(digest, bytes, size, hash_key);
    struct memos_reader reader = memos_reader_of(memos_bytes_make(digest, sizeof digest));
    uint64_t hash = memos_read_u64(&reader);
    struct feature *slot = slot_of(ngrams->slots, ngrams->slots_count, hash);
    if (slot->count != 0) {
        slot->count++;
        return true;
    } else if (ngrams->used == FEATURES_MAX) {
        return true;
    }
    *slot = (struct feature){.hash = hash, .weight = weight, .count = 1};
    ngrams->used++;
    return ngrams->used <= ngrams->slots_count / 2 || grow(ngrams);
}

/* "c" and each run of 3 to 5 characters of "<word>". */
static bool count_characters(struct retrieval_ngrams *ngrams, const struct retrieval_word *word)
{
    uint8_t text[1 + 1 + RETRIEVAL_WORD_BYTES_MAX + 1];
    uint8_t begin[RETRIEVAL_WORD_BYTES_MAX + 3]; /* where characters begin, and the last ends */
    uint8_t piece[1 + sizeof text];
    size_t size = 0, characters = 0;

    text[size++] = '<';
    memcpy(text + size, word->bytes, word->size);
    size += word->size;
    text[size++] = '>';
    for (size_t at = 0; at < size; at++) {
        if ((text[at] & 0xC0) != 0x80) {
            begin[characters++] = (uint8_t)at;
        }
    }
    begin[characters] = (uint8_t)size;
    piece[0] = 'c';
    for (size_t length = CHARACTERS_MIN; length <= CHARACTERS_MAX; length++) {
        for (size_t i = 0; i + length <= characters; i++) {
            size_t bytes = (size_t)(begin[i + length] - begin[i]);
            memcpy(piece + 1, text + begin[i], bytes);
            if (!count_feature(ngrams, piece, 1 + bytes, WEIGHT_CHARACTERS)) {
                return false;
            }
        }
    }
    return true;
}

/* Count what the next word brings; before: the one before it, its size 0 for the first. */
static bool count_word(struct retrieval_ngrams *ngrams, const struct retrieval_word *before,
    bool before_light, const struct retrieval_word *word, bool light)
{
    uint8_t text[1 + RETRIEVAL_WORD_BYTES_MAX + 1 + RETRIEVAL_WORD_BYTES_MAX];
    text[0] = 'w';
    memcpy(text + 1, word->bytes, word->size);
    if (!count_feature(ngrams, text, 1 + word->size, light ? WEIGHT_LIGHT : WEIGHT_WORD)) {
        return false;
    }
    if (before->size > 0 && !(before_light && light)) {
        text[0] = 'p';
        memcpy(text + 1, before->bytes, before->size);
        text[1 + before->size] = ' ';
        memcpy(text + 2 + before->size, word->bytes, word->size);
        if (!count_feature(ngrams, text, 2 + before->size + word->size, WEIGHT_PAIR)) {
            return false;
        }
    }
    return light || count_characters(ngrams, word);
}

static bool count_text(struct retrieval_ngrams *ngrams, struct memos_bytes text)
{
    struct retrieval_words words;
    struct retrieval_word two[2] = {{.size = 0}, {.size = 0}};
    bool light[2] = {false, false};
    unsigned now = 0;

    text.size = text.size < TEXT_BYTES_MAX ? text.size : TEXT_BYTES_MAX;
    retrieval_words_init(&words, text, retrieval_language_of(memos_bytes_of("en")));
    for (; retrieval_words_next(&words, &two[now]); now ^= 1) {
        light[now] = retrieval_word_light(&two[now]);
        if (!count_word(ngrams, &two[now ^ 1], light[now ^ 1], &two[now], light[now])) {
            return false;
        }
    }
    return true;
}

/* ---- the vector ---------------------------------------------------------------------------- */

enum memos_status retrieval_ngrams_encode(
    struct retrieval_ngrams *ngrams, struct memos_bytes text, float *out, struct memos_error *err)
{
    int64_t sums[RETRIEVAL_NGRAMS_DIMS] = {0};
    double squares = 0.0;

    bool counted = count_text(ngrams, text);
    for (size_t i = 0; i < ngrams->slots_count; i++) {
        struct feature *feature = &ngrams->slots[i];
        if (feature->count != 0) {
            int64_t part = (int64_t)(sqrt((double)feature->count) * (double)feature->weight);
            sums[feature->hash % RETRIEVAL_NGRAMS_DIMS] += feature->hash >> 63 ? -part : part;
            feature->count = 0;
        }
    }
    ngrams->used = 0;
    if (ngrams->slots_count > SLOTS_MIN * 16) { /* an uncommonly long text needed it */
        struct feature *slots = realloc(ngrams->slots, SLOTS_MIN * sizeof *slots);
        ngrams->slots = slots ? slots : ngrams->slots;
        ngrams->slots_count = SLOTS_MIN;
    }
    if (!counted) {
        return memos_fail(
            err, MEMOS_NO_MEMORY, "no memory for the n-grams of a text of %zu bytes", text.size);
    }
    for (size_t i = 0; i < RETRIEVAL_NGRAMS_DIMS; i++) {
        squares += (double)sums[i] * (double)sums[i];
    }
    double scale = squares > 0.0 ? 1.0 / sqrt(squares) : 0.0;
    for (size_t i = 0; i < RETRIEVAL_NGRAMS_DIMS; i++) {
        out[i] = (float)((double)sums[i] * scale);
    }
    return MEMOS_OK;
}
