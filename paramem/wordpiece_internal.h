/* What the files of the tokenizer share. */
#ifndef PARAMEM_WORDPIECE_INTERNAL_H
#define PARAMEM_WORDPIECE_INTERNAL_H

#include "paramem/vocab.h"
#include "paramem/wordpiece.h"

/* What the library does with a character. */
enum {
    PARAMEM_CHAR_DROP = 1,        /* cleaning drops it (also when it is white space) */
    PARAMEM_CHAR_SPACE = 2,       /* white space */
    PARAMEM_CHAR_PUNCT = 4,       /* a word of its own */
    PARAMEM_CHAR_CJK = 8,         /* gets blanks around it */
    PARAMEM_CHAR_MARK = 16,       /* an accent: dropped with them */
    PARAMEM_CHAR_ORDERED = 32,    /* has a combining class */
    PARAMEM_CHAR_DECOMPOSES = 64, /* has a canonical decomposition */
};
extern const uint32_t paramem_char_ranges[];
extern const size_t paramem_char_ranges_count;

/* A token that is cut out of the text before anything else. */
struct paramem_added {
    char *text;
    size_t size;
    uint32_t id;
};

/* Short words that were cut lately, and their pieces. Language repeats itself: nine words of ten of
 * English are found here, in one line of the cache instead of one for each letter. */
#define PARAMEM_RECENT_COUNT 8192
#define PARAMEM_RECENT_BYTES 16
#define PARAMEM_RECENT_PIECES 3

struct paramem_recent {
    uint8_t word[PARAMEM_RECENT_BYTES]; /* zeros after it */
    uint32_t ids[PARAMEM_RECENT_PIECES];
    uint8_t size, pieces; /* size 0: free */
};

struct paramem_wordpiece {
    struct paramem_vocab vocab;
    struct paramem_added *added; /* longest first */
    size_t added_count;
    uint32_t cls, sep, unk;
    uint32_t after; /* the node behind the prefix of pieces inside a word; 0: there are none */
    size_t ids_end;
    size_t chars_max; /* of a word; a longer one is unknown */
    bool clean, chinese_chars, strip_accents, lowercase;
    uint8_t digest[32];

    uint8_t plane[0x10000];  /* PARAMEM_CHAR_* of the basic plane */
    uint8_t ascii_kind[256]; /* see wordpiece.c */
    uint8_t ascii_byte[128]; /* lower case where that is wanted */

    /* Room that a call works in. */
    uint8_t *word;    /* 4 * chars_max bytes */
    uint32_t *pieces; /* chars_max */
    struct paramem_recent *recent;
    uint64_t *marks; /* that wait to be put in order */
    size_t marks_capacity;
};

/* Tokens to be put into a vocabulary; texts are views. */
struct paramem_token {
    struct memos_bytes text;
    uint32_t id;
};

/* Fill what follows from the switches; the vocabulary is there. NO_MEMORY. */
MEMOS_MUST_USE enum memos_status paramem_wordpiece_prepare(
    struct paramem_wordpiece *wordpiece, struct memos_error *err);

#endif
