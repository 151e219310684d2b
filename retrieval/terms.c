#include "retrieval/terms.h"

#include <libstemmer.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS_MIN ((size_t)512)        /* enough for a page of text */
#define SLOTS_KEPT_MAX ((size_t)16384) /* a larger table is not kept for the next text */
#define KNOWN_COUNT ((size_t)2048)     /* a power of two */
#define KNOWN_BYTES 23

/* A short word whose term was worked out lately. */
struct known {
    uint64_t hash;
    uint8_t bytes[KNOWN_BYTES]; /* as folded */
    uint8_t size;               /* 0: empty */
};

struct retrieval_terms {
    struct retrieval_terms *next; /* in a pool */
    const struct retrieval_language *language;
    struct sb_stemmer **stemmers; /* by number of language; NULL: not needed yet */
    uint8_t key[crypto_shorthash_KEYBYTES];
    struct known *known; /* for this key and language; the same few words make up most of texts */
    bool question;
    size_t terms_max, text_left; /* bytes that may still be read */
    uint32_t length;

    /* Open addressing by hash; a slot with count 0 is empty. */
    struct retrieval_term *slots;
    size_t slots_count; /* a power of two */
    size_t used;
};

enum memos_status retrieval_terms_create(
    struct retrieval_terms **out_terms, struct memos_error *err)
{
    struct retrieval_terms *terms = calloc(1, sizeof *terms);
    if (terms) {
        terms->stemmers = calloc(retrieval_language_count(), sizeof *terms->stemmers);
        terms->slots_count = SLOTS_MIN;
        terms->slots = calloc(SLOTS_MIN, sizeof *terms->slots);
        terms->known = calloc(KNOWN_COUNT, sizeof *terms->known);
    }
    if (!terms || !terms->stemmers || !terms->slots || !terms->known) {
        retrieval_terms_destroy(&terms);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to count words in");
    }
    *out_terms = terms;
    return MEMOS_OK;
}

void retrieval_terms_destroy(struct retrieval_terms **terms_in)
{
    struct retrieval_terms *terms = *terms_in;
    *terms_in = NULL;
    if (!terms) {
        return;
    }
    for (size_t i = 0; terms->stemmers && i < retrieval_language_count(); i++) {
        sb_stemmer_delete(terms->stemmers[i]);
    }
    sodium_memzero(terms->key, sizeof terms->key);
    free(terms->stemmers);
    free(terms->slots);
    free(terms->known);
    free(terms);
}

void retrieval_terms_begin(struct retrieval_terms *terms, const uint8_t *secret,
    struct memos_bytes language, bool question)
{
    static const uint8_t purpose[] = "memos lexical terms 1";
    const struct retrieval_language *spoken = retrieval_language_of(language);
    uint8_t key[sizeof terms->key];

    (void)crypto_generichash(key, sizeof key, purpose, sizeof purpose - 1, secret, 32);
    if (terms->language != spoken || sodium_memcmp(terms->key, key, sizeof key) != 0) {
        memset(terms->known, 0, KNOWN_COUNT * sizeof *terms->known);
    }
    memcpy(terms->key, key, sizeof key);
    terms->language = spoken;
    terms->question = question;
    terms->terms_max = question ? RETRIEVAL_QUESTION_TERMS_MAX : RETRIEVAL_TERMS_MAX;
    terms->text_left = RETRIEVAL_TEXT_BYTES_MAX;
    terms->length = 0;
    terms->used = 0;
    if (terms->slots_count > SLOTS_KEPT_MAX) {
        struct retrieval_term *slots = realloc(terms->slots, SLOTS_MIN * sizeof *slots);
        terms->slots = slots ? slots : terms->slots;
        terms->slots_count = SLOTS_MIN;
    }
    memset(terms->slots, 0, terms->slots_count * sizeof *terms->slots);
}

/* The slot of a hash, or the empty one where it belongs. */
static struct retrieval_term *slot_of(
    struct retrieval_term *slots, size_t slots_count, uint64_t hash)
{
    size_t at = hash & (slots_count - 1);
    while (slots[at].count != 0 && slots[at].hash != hash) {
        at = (at + 1) & (slots_count - 1);
    }
    return &slots[at];
}

static bool grow(struct retrieval_terms *terms)
{
    size_t slots_count = terms->slots_count * 4;
    struct retrieval_term *slots = calloc(slots_count, sizeof *slots);
    if (!slots) {
        return false;
    }
    for (size_t i = 0; i < terms->slots_count; i++) {
        if (terms->slots[i].count != 0) {
            *slot_of(slots, slots_count, terms->slots[i].hash) = terms->slots[i];
        }
    }
    free(terms->slots);
    terms->slots = slots;
    terms->slots_count = slots_count;
    return true;
}

/* Count one word; false without memory. */
static bool count(struct retrieval_terms *terms, uint64_t hash, bool light)
{
    struct retrieval_term *slot = slot_of(terms->slots, terms->slots_count, hash);
    terms->length++;
    if (slot->count != 0) {
        slot->count++;
        slot->light &= light;
        return true;
    } else if (terms->used == terms->terms_max) {
        return true;
    }
    *slot = (struct retrieval_term){.hash = hash, .count = 1, .light = light};
    terms->used++;
    return terms->used <= terms->slots_count / 2 || grow(terms);
}

/* Shorten a word to its stem. False without memory. */
static bool stem(struct retrieval_terms *terms, struct retrieval_word *word)
{
    struct sb_stemmer **stemmer = &terms->stemmers[retrieval_language_number(terms->language)];
    if (!*stemmer) {
        *stemmer = sb_stemmer_new(terms->language->algorithm, "UTF_8");
    }
    const sb_symbol *text =
        *stemmer ? sb_stemmer_stem(*stemmer, word->bytes, (int)word->size) : NULL;
    if (!text) {
        return false;
    }
    size_t size = (size_t)sb_stemmer_length(*stemmer);
    if (size > 0 && size <= sizeof word->bytes) {
        memcpy(word->bytes, text, size);
        word->size = size;
    }
    return true;
}

/* Where a word would be among the known ones. */
static struct known *known_of(struct retrieval_terms *terms, const struct retrieval_word *word)
{
    uint64_t mix = word->size;
    for (size_t i = 0; i < word->size && i < KNOWN_BYTES; i++) {
        mix = (mix ^ word->bytes[i]) * UINT64_C(0x100000001B3); /* FNV-1a */
    }
    return &terms->known[(mix ^ mix >> 32) & (KNOWN_COUNT - 1)];
}

/* The term of a word: stemmed, stripped, hashed. Changes the word. False without memory. */
static bool term_of(struct retrieval_terms *terms, struct retrieval_word *word, uint64_t *out_hash)
{
    struct known *known = known_of(terms, word);
    if (known->size == word->size && memcmp(known->bytes, word->bytes, word->size) == 0) {
        *out_hash = known->hash;
        return true;
    }
    struct retrieval_word whole = *word;
    if (word->stems && !stem(terms, word)) {
        return false;
    }
    if (terms->language->accents) {
        retrieval_word_strip(word);
    }
    (void)crypto_shorthash((uint8_t *)out_hash, word->bytes, word->size, terms->key);
    if (whole.size <= KNOWN_BYTES) {
        memcpy(known->bytes, whole.bytes, whole.size);
        known->size = (uint8_t)whole.size;
        known->hash = *out_hash;
    }
    return true;
}

enum memos_status retrieval_terms_add(
    struct retrieval_terms *terms, struct memos_bytes text, struct memos_error *err)
{
    bool english = strcmp(terms->language->tag, "en") == 0;
    struct retrieval_words words;
    struct retrieval_word word;

    text.size = text.size < terms->text_left ? text.size : terms->text_left;
    terms->text_left -= text.size;
    retrieval_words_init(&words, text, terms->language);
    while (retrieval_words_next(&words, &word)) {
        bool light = terms->question && english && retrieval_word_light(&word);
        uint64_t hash;
        if (!term_of(terms, &word, &hash) || !count(terms, hash, light)) {
            return memos_fail(err, MEMOS_NO_MEMORY,
                "no memory to count the words of a text of %zu bytes", text.size);
        }
    }
    return MEMOS_OK;
}

static int compare(const void *a, const void *b)
{
    uint64_t left = ((const struct retrieval_term *)a)->hash;
    uint64_t right = ((const struct retrieval_term *)b)->hash;
    return (left > right) - (left < right);
}

const struct retrieval_term *retrieval_terms_finish(
    struct retrieval_terms *terms, size_t *out_count, uint32_t *out_length)
{
    size_t kept = 0;
    for (size_t i = 0; i < terms->slots_count; i++) {
        if (terms->slots[i].count != 0) {
            terms->slots[kept++] = terms->slots[i];
        }
    }
    qsort(terms->slots, kept, sizeof *terms->slots, compare);
    *out_count = kept;
    *out_length = terms->length;
    return terms->slots;
}

/* ---- the pool ------------------------------------------------------------------------------ */

enum memos_status retrieval_terms_pool_init(
    struct retrieval_terms_pool *pool, struct memos_error *err)
{
    int rc = pthread_mutex_init(&pool->lock, NULL);
    pool->first = NULL;
    return rc == 0 ? MEMOS_OK : memos_fail_errno(err, rc, "making a lock");
}

void retrieval_terms_pool_finish(struct retrieval_terms_pool *pool)
{
    while (pool->first) {
        struct retrieval_terms *terms = pool->first;
        pool->first = terms->next;
        retrieval_terms_destroy(&terms);
    }
    (void)pthread_mutex_destroy(&pool->lock);
}

enum memos_status retrieval_terms_take(
    struct retrieval_terms_pool *pool, struct retrieval_terms **out_terms, struct memos_error *err)
{
    (void)pthread_mutex_lock(&pool->lock);
    struct retrieval_terms *terms = pool->first;
    if (terms) {
        pool->first = terms->next;
    }
    (void)pthread_mutex_unlock(&pool->lock);
    if (!terms) {
        return retrieval_terms_create(out_terms, err);
    }
    *out_terms = terms;
    return MEMOS_OK;
}

void retrieval_terms_give(struct retrieval_terms_pool *pool, struct retrieval_terms *terms)
{
    (void)pthread_mutex_lock(&pool->lock);
    terms->next = pool->first;
    pool->first = terms;
    (void)pthread_mutex_unlock(&pool->lock);
}
