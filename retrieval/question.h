/* What a question is after, judged by its phrases: a time, advice, days, somebody named.
 *
 * As with statements (statement.h), the lexicons are English.
 *
 * Threads: a lexicon may be shared. */
#ifndef RETRIEVAL_QUESTION_H
#define RETRIEVAL_QUESTION_H

#include "retrieval/dates.h"
#include "retrieval/phrases.h"

#define RETRIEVAL_QUESTION_DATES_MAX 8
#define RETRIEVAL_QUESTION_WORDS_MAX 128 /* that may name somebody */
#define RETRIEVAL_QUESTION_NAME_MAX 3    /* words of a name */

struct retrieval_question {
    bool when;     /* wants a time: "when", "which year", "how long" */
    bool advice;   /* wants a suggestion for the one who asks, not what was said before */
    double asking; /* how much of it asks: twice the share of words in questions and commands, at
                      most 1. What asks nothing seeks its like, not an answer */
    struct retrieval_date dates[RETRIEVAL_QUESTION_DATES_MAX];
    size_t dates_count;
};

struct retrieval_questions;

MEMOS_MUST_USE enum memos_status retrieval_questions_create(
    struct retrieval_questions **out_questions, struct memos_error *err);
void retrieval_questions_destroy(struct retrieval_questions **questions); /* takes NULL */

/* now_us: when it is asked (0: not known). */
void retrieval_question_read(const struct retrieval_questions *questions, struct memos_bytes text,
    int64_t now_us, struct retrieval_question *out);

/* Keyed hashes of every run of up to RETRIEVAL_QUESTION_NAME_MAX words, sorted, each once: the
 * names that a question may say. `out` has room for RETRIEVAL_QUESTION_WORDS_MAX times
 * RETRIEVAL_QUESTION_NAME_MAX. key: retrieval_name_key. */
size_t retrieval_question_names(struct memos_bytes text, const uint8_t *key, uint32_t *out);

/* The key that names of a space are hashed with. secret: 32 bytes. */
#define RETRIEVAL_NAME_KEY_BYTES 16
void retrieval_name_key(const uint8_t *secret, uint8_t out[RETRIEVAL_NAME_KEY_BYTES]);

/* The hash of a name, whatever its letters' case; 0 for none, and for the roles that are no names
 * ("user", "assistant", "system", "tool"). Never 0 otherwise. */
uint32_t retrieval_name_hash(const uint8_t *key, struct memos_bytes name);

/* Is it a role that is not the user's own: "assistant", "system", "tool"? */
bool retrieval_name_is_machine(struct memos_bytes name);

#endif
