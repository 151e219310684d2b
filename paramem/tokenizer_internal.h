/* What the files of the tokenizer share. A tokenizer is a line of parts, as tokenizer.json has
 * them:
 *
 *     text -> added tokens cut out -> normalised -> added tokens that are normalised cut out
 *          -> split into words -> byte pair encoding -> what the post-processor puts around */
#ifndef PARAMEM_TOKENIZER_INTERNAL_H
#define PARAMEM_TOKENIZER_INTERNAL_H

#include "paramem/bpe.h"
#include "paramem/pattern.h"
#include "paramem/tokenizer.h"
#include "paramem/vocab.h"
#include "proto/arena.h"

#include <sodium.h>

#define PARAMEM_STEPS_MAX 16      /* normalisers, or splits, one after the other */
#define PARAMEM_ADDED_MAX 65536   /* added tokens */
#define PARAMEM_AROUND_MAX 16     /* tokens put before or after a text */
#define PARAMEM_STEP_TEXT_MAX 256 /* bytes of what a step puts in */
#define PARAMEM_TEXT_MAX ((size_t)1 << 30)
#define PARAMEM_POOL_MAX ((size_t)1 << 28) /* bytes of all tokens' texts */

enum paramem_normal_kind {
    PARAMEM_NORMAL_NFC,
    PARAMEM_NORMAL_NFD,
    PARAMEM_NORMAL_NFKC,
    PARAMEM_NORMAL_NFKD,
    PARAMEM_NORMAL_LOWER,
    PARAMEM_NORMAL_STRIP,
    PARAMEM_NORMAL_PREPEND,
    PARAMEM_NORMAL_REPLACE,
};
struct paramem_normal {
    enum paramem_normal_kind kind;
    struct memos_bytes text, with;   /* text: prepended, or (no pattern) replaced by `with` */
    struct paramem_pattern *pattern; /* replaced by `with` */
    bool left, right;                /* stripped */
};

enum paramem_split_kind {
    PARAMEM_SPLIT_PATTERN,
    PARAMEM_SPLIT_METASPACE,    /* blanks become text; it is put before by scheme */
    PARAMEM_SPLIT_PREFIX_SPACE, /* a blank before what begins without one */
};
enum paramem_split_behavior {
    PARAMEM_SPLIT_ISOLATED,
    PARAMEM_SPLIT_REMOVED,
    PARAMEM_SPLIT_CONTIGUOUS,
    PARAMEM_SPLIT_WITH_PREVIOUS,
    PARAMEM_SPLIT_WITH_NEXT,
};
enum paramem_scheme { PARAMEM_PREPEND_ALWAYS, PARAMEM_PREPEND_FIRST, PARAMEM_PREPEND_NEVER };
struct paramem_split {
    enum paramem_split_kind kind;
    struct paramem_pattern *pattern;
    enum paramem_split_behavior behavior;
    bool invert;
    struct memos_bytes text;
    enum paramem_scheme scheme;
};

/* A token that is cut out of the text. */
struct paramem_added_token {
    struct memos_bytes text; /* as written */
    uint32_t id;
    bool lstrip, rstrip, single_word, normalized, special;
};

/* Those that are cut out at the same time: longest first from the left. */
struct paramem_cuts {
    struct paramem_vocab trie; /* text -> index in added */
    bool first[256];           /* one may begin with this byte */
    bool any;
};

enum paramem_decoder {
    PARAMEM_DECODE_JOINED, /* none: tokens as written, with blanks between them */
    PARAMEM_DECODE_BYTES,  /* byte-level */
    PARAMEM_DECODE_PIECES, /* SentencePiece's */
};

struct paramem_tokenizer {
    struct memos_arena texts; /* what the parts say, kept */
    struct paramem_lexicon lexicon;
    struct paramem_bpe bpe;
    bool bytes; /* byte-level */

    struct paramem_normal normals[PARAMEM_STEPS_MAX];
    size_t normals_count;
    struct paramem_split splits[PARAMEM_STEPS_MAX];
    size_t splits_count;
    struct memos_bytes mark; /* words may be cut before it without changing ids; empty: none */

    struct paramem_added_token *added;
    size_t added_count;
    struct paramem_cuts plain, normal; /* cut before and after normalising */

    uint32_t before[PARAMEM_AROUND_MAX], after[PARAMEM_AROUND_MAX];
    size_t before_count, after_count;

    enum paramem_decoder decoder;
    bool byte_tokens;         /* "<0x41>" decodes to a byte */
    size_t strip_count;       /* blanks cut off the beginning of a decoded text, at most */
    bool drop_first;          /* marks of the first token are dropped */
    struct memos_bytes blank; /* decodes to a blank, or empty */

    uint32_t bos, eos, unk, pad;
    char *chat_template;
    crypto_generichash_state hash; /* of what ids depend on, while it is read */
    uint8_t digest[32];
};

/* Room of one encode. */
struct paramem_encoding {
    const struct paramem_tokenizer *tokenizer;
    unsigned flags;
    struct paramem_bpe_room bpe_room;
    struct paramem_pattern_room *pattern_room; /* NULL: no pattern in it */
    struct memos_buffer normal[2];             /* a text on its way through the normalisers */
    struct memos_buffer scratch[PARAMEM_STEPS_MAX];
    struct paramem_id_list ids;
    struct memos_error *err;
};

/* Normalise. *out is text, or a view into encoding->normal. TOO_LARGE, NO_MEMORY. */
MEMOS_MUST_USE enum memos_status paramem_normalize(
    struct paramem_encoding *encoding, struct memos_bytes text, struct memos_bytes *out);

/* Split a normalised text into words and add their ids. at_start: the text begins where the
 * original one does. */
MEMOS_MUST_USE enum memos_status paramem_split_words(
    struct paramem_encoding *encoding, struct memos_bytes text, bool at_start);

/* An empty tokenizer. NO_MEMORY. */
MEMOS_MUST_USE enum memos_status paramem_tokenizer_new(
    struct paramem_tokenizer **out, struct memos_error *err);

/* Something that ids depend on goes into the digest. */
void paramem_tokenizer_hash(
    struct paramem_tokenizer *tokenizer, const char *what, struct memos_bytes bytes);

/* Add an added token; its text is kept. TOO_LARGE, NO_MEMORY. */
MEMOS_MUST_USE enum memos_status paramem_tokenizer_add(
    struct paramem_tokenizer *tokenizer, struct paramem_added_token added, struct memos_error *err);

/* What follows from all parts: tries, shown texts, the mark, the digest. Called once by each
 * loader, last. */
MEMOS_MUST_USE enum memos_status paramem_tokenizer_prepare(
    struct paramem_tokenizer *tokenizer, struct memos_error *err);

/* The texts of a folder's files; all but json may be empty. */
struct paramem_tokenizer_files {
    struct memos_bytes json;    /* tokenizer.json */
    struct memos_bytes config;  /* tokenizer_config.json */
    struct memos_bytes special; /* special_tokens_map.json */
    struct memos_bytes jinja;   /* chat_template.jinja */
};
MEMOS_MUST_USE enum memos_status paramem_tokenizer_parse(
    const struct paramem_tokenizer_files *files, struct paramem_tokenizer **out,
    struct memos_error *err);

/* The model's vocabulary and merges, which are in the texts as JSON. */
MEMOS_MUST_USE enum memos_status paramem_tokenizer_model(struct paramem_tokenizer *tokenizer,
    struct memos_bytes vocab, struct memos_bytes merges, size_t merges_max,
    struct memos_error *err);

/* The same piece by piece: the tokens, whose texts are in the lexicon's pool; room for merges; the
 * merges (below). `bytes` is set. */
MEMOS_MUST_USE enum memos_status paramem_tokenizer_tokens(struct paramem_tokenizer *tokenizer,
    const struct paramem_entry *entries, size_t count, struct memos_error *err);
MEMOS_MUST_USE enum memos_status paramem_tokenizer_merges(
    struct paramem_tokenizer *tokenizer, size_t pairs_max, struct memos_error *err);

/* Merges on their way into the table, some at a time: what they name lies all over the vocabulary,
 * and is fetched from memory for many together. */
#define PARAMEM_MERGES_AT_ONCE 64
struct paramem_merges {
    struct paramem_tokenizer *tokenizer;
    uint32_t rank; /* of the first that waits */
    size_t count;  /* that wait */
    struct memos_buffer keys;
    struct paramem_lexicon_query queries[3 * PARAMEM_MERGES_AT_ONCE]; /* left, right, both */
};
struct paramem_merges paramem_merges_of(struct paramem_tokenizer *tokenizer);
/* The next one, its parts in `texts` without anything between. CORRUPT: one of those that waited
 * names what is no token. NO_MEMORY. */
MEMOS_MUST_USE enum memos_status paramem_merges_add(struct paramem_merges *merges,
    struct memos_bytes texts, size_t left_size, struct memos_error *err);
/* Those that wait go in. */
MEMOS_MUST_USE enum memos_status paramem_merges_flush(
    struct paramem_merges *merges, struct memos_error *err);
void paramem_merges_free(struct paramem_merges *merges);

/* One more split by a pattern. TOO_LARGE, and what a pattern may fail with. */
MEMOS_MUST_USE enum memos_status paramem_tokenizer_split(struct paramem_tokenizer *tokenizer,
    const char *pattern, enum paramem_split_behavior behavior, struct memos_error *err);

/* What the families split by: Oniguruma's expressions. */
extern const char paramem_pattern_gpt2[];
#define PARAMEM_PATTERN_DIGIT "[\\p{N}\\x{11de0}-\\x{11de9}\\x{16ff4}-\\x{16ff6}]"

#endif
