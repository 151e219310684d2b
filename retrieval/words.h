/* Words: a text in, its words out, one after the other, cut and folded so that what a person takes
 * for the same word has the same bytes.
 *
 * Cutting follows UAX #29 (word boundaries), departing where search is better served: a full stop
 * or colon between letters parts words ("end.Next", "example.com"), since texts from people lack
 * blanks more often than they hold names with dots. Scripts written without blanks (Han, kana,
 * Hangul, Thai, Lao, Khmer, Burmese) give each character as a word and each pair of neighbours as
 * another, so that both a single sign and a longer name are found. An emoji is a word.
 *
 * Folding is NFKC with full case folding (Unicode 3.13, D145); accents go too ("café" is found by
 * "cafe"), but in languages whose stemmer reads them only after stemming.
 *
 * Bytes that are not UTF-8, and NULs, part words like blanks. A word longer than
 * RETRIEVAL_WORD_BYTES_MAX is cut there. Memory is this structure's and no more, time is linear in
 * the text.
 *
 * Threads: one retrieval_words belongs to one thread at a time. */
#ifndef RETRIEVAL_WORDS_H
#define RETRIEVAL_WORDS_H

#include "proto/bytes.h"

#define RETRIEVAL_WORD_BYTES_MAX 64

/* What words.c and the stemmer have to know of a language. Static. */
struct retrieval_language {
    const char *tag;       /* BCP 47 primary subtag */
    const char *algorithm; /* Snowball's name */
    bool accents;          /* the stemmer reads accents: keep them until then */
    bool elides;           /* an apostrophe parts words ("l'homme") */
};

/* The language of a BCP 47 tag ("de", "pt-BR"); English for an empty or unknown one. Never NULL;
 * static. */
const struct retrieval_language *retrieval_language_of(struct memos_bytes tag);

/* Languages are numbered 0 .. count - 1 (to keep a stemmer for each). */
size_t retrieval_language_count(void);
size_t retrieval_language_number(const struct retrieval_language *language);

struct retrieval_word {
    uint8_t bytes[RETRIEVAL_WORD_BYTES_MAX]; /* UTF-8 without a closing NUL */
    size_t size;                             /* 1 .. RETRIEVAL_WORD_BYTES_MAX */
    bool stems;                              /* made of letters: a stemmer may shorten it */
};

/* The state of one walk through a text. Fields are words.c's. */
struct retrieval_words {
    const uint8_t *at, *end;
    const struct retrieval_language *language;
    const uint8_t *sign_end;    /* where the last sign of a script without blanks ended */
    struct retrieval_word sign; /* that sign */
    struct retrieval_word pair; /* a pair of signs that is to be given next; size 0: none */
};

/* Begin. text is borrowed until the walk ends. */
void retrieval_words_init(struct retrieval_words *words, struct memos_bytes text,
    const struct retrieval_language *language);

/* The next word; false at the end of the text. */
bool retrieval_words_next(struct retrieval_words *words, struct retrieval_word *out);

/* Take the accents off a stem (a no-op on ASCII). */
void retrieval_word_strip(struct retrieval_word *word);

#endif
