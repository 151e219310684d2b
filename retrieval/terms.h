/* Terms: what is stored of words. A text's words are stemmed, hashed with the secret of their
 * space, and counted.
 *
 * The hash is SipHash-2-4 (Aumasson and Bernstein, 2012) with a key made from the secret: without
 * the secret nobody can tell a word from its hash, and two words of one space share one with
 * probability 2^-64.
 *
 * A retrieval_terms keeps its stemmers and tables for the next text, since making a stemmer costs
 * more than using it. Bounds: of one content RETRIEVAL_TERMS_MAX distinct terms are kept and
 * RETRIEVAL_TEXT_BYTES_MAX bytes are read; what comes after is not found by its words.
 *
 * Threads: one retrieval_terms belongs to one thread at a time. */
#ifndef RETRIEVAL_TERMS_H
#define RETRIEVAL_TERMS_H

#include "retrieval/words.h"

#include <pthread.h>

#define RETRIEVAL_TERMS_MAX ((size_t)1 << 16)
#define RETRIEVAL_QUESTION_TERMS_MAX ((size_t)256)
#define RETRIEVAL_TEXT_BYTES_MAX ((size_t)16 << 20)

struct retrieval_term {
    uint64_t hash;
    uint32_t count; /* in the text; never 0 */
    bool light;     /* a question's word that carries grammar, not subject ("what", "did", "the") */
};

struct retrieval_terms;

MEMOS_MUST_USE enum memos_status retrieval_terms_create(
    struct retrieval_terms **out_terms, struct memos_error *err);
void retrieval_terms_destroy(struct retrieval_terms **terms);

/* Begin a content, or a question, in a space. secret: 32 bytes. language: BCP 47. Of a question at
 * most RETRIEVAL_QUESTION_TERMS_MAX terms are kept, and only a question's are marked light. Frees
 * what an uncommonly large text before it needed. */
void retrieval_terms_begin(struct retrieval_terms *terms, const uint8_t *secret,
    struct memos_bytes language, bool question);

/* Count the words of a text in. NO_MEMORY. */
MEMOS_MUST_USE enum memos_status retrieval_terms_add(
    struct retrieval_terms *terms, struct memos_bytes text, struct memos_error *err);

/* The terms, sorted by hash, and how many words there were in all. The array is the terms' own and
 * lives until the next begin; nothing can be added any more. */
const struct retrieval_term *retrieval_terms_finish(
    struct retrieval_terms *terms, size_t *out_count, uint32_t *out_length);

/* Terms that wait for the next text. Threads: may be shared. */
struct retrieval_terms_pool {
    pthread_mutex_t lock; /* Sync: of first, and of what hangs on it */
    struct retrieval_terms *first;
};

MEMOS_MUST_USE enum memos_status retrieval_terms_pool_init(
    struct retrieval_terms_pool *pool, struct memos_error *err);

/* Destroy what waits. Everything that was taken must have been given back. */
void retrieval_terms_pool_finish(struct retrieval_terms_pool *pool);

/* Take one, making it when none waits; it is the caller's until given back. NO_MEMORY. */
MEMOS_MUST_USE enum memos_status retrieval_terms_take(
    struct retrieval_terms_pool *pool, struct retrieval_terms **out_terms, struct memos_error *err);
void retrieval_terms_give(struct retrieval_terms_pool *pool, struct retrieval_terms *terms);

/* Is it one of English's words that carry grammar only? `word` is folded, not stemmed. */
bool retrieval_word_light(const struct retrieval_word *word);

#endif
