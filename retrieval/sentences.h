/* A text as words, signs and sentences: what patterns are matched against and questions are counted
 * by.
 *
 * This is not how words are cut for the index (words.h): patterns want contractions whole
 * ("don't"), in the order of the text, with what stands between. A word is a run of letters, digits
 * and underscores with inner apostrophes; hyphens between letters join ("must-see"). A typographic
 * apostrophe is read as '. Letters outside of ASCII are letters, and no pattern knows them.
 *
 * A sentence ends with a run of . ! ? or with a line; one that ends with ? is a question.
 *
 * Threads: one reader belongs to one thread. */
#ifndef RETRIEVAL_SENTENCES_H
#define RETRIEVAL_SENTENCES_H

#include "proto/bytes.h"

#define RETRIEVAL_TOKEN_BYTES_MAX 24 /* longer words are in no pattern */

struct retrieval_token {
    bool word;
    char sign;       /* of one that is no word; '\n' for a line's end */
    bool apostrophe; /* the word has one */
    unsigned digits; /* how many digits it begins with; all of it: it is a number */
    size_t size;     /* of the word, as it stands; bytes has no more than fit */
    char bytes[RETRIEVAL_TOKEN_BYTES_MAX]; /* ASCII letters made small */
};

struct retrieval_sentences {
    struct memos_bytes text;
    size_t at;         /* bytes */
    size_t characters; /* before `at` */

    /* counted so far; a word with hyphens counts as its parts */
    uint32_t words, words_asking; /* in sentences that are questions */
    uint32_t sentence_words;      /* in the running sentence */
    bool sentence_begun;
};

void retrieval_sentences_init(struct retrieval_sentences *sentences, struct memos_bytes text);

/* The next token; false at the end. */
bool retrieval_sentences_next(struct retrieval_sentences *sentences, struct retrieval_token *out);

#endif
