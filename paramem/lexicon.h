/* The tokens of a model: their texts by id, their ids by text.
 *
 * A token has three texts. `written`: as in the file. `key`: what a piece of text must be to become
 * it, which in byte-level BPE is bytes ("Ġa" is " a"; see paramem/bytelevel.h) and else what is
 * written. `shown`: what it decodes to. They lie in one pool.
 *
 * Threads: read-only after build. */
#ifndef PARAMEM_LEXICON_H
#define PARAMEM_LEXICON_H

#include "proto/bytes.h"

#define PARAMEM_TOKEN_ID_MAX (((uint32_t)1 << 22) - 1)
#define PARAMEM_TOKEN_NONE UINT32_MAX

struct paramem_view32 {
    uint32_t at, size; /* in the pool */
};

enum {
    PARAMEM_TOKEN_THERE = 1,    /* the id is taken */
    PARAMEM_TOKEN_PLAIN = 2,    /* byte-level, but written with other letters: no text becomes it */
    PARAMEM_TOKEN_ADDED = 4,    /* cut out of the text before the model */
    PARAMEM_TOKEN_SPECIAL = 8,  /* left out of a decoded text on wish */
    PARAMEM_TOKEN_BYTE = 16,    /* "<0x41>": decodes to that byte */
    PARAMEM_TOKEN_OF_MODEL = 32 /* is in the model's vocabulary */
};

struct paramem_lexicon_token {
    struct paramem_view32 written, key, shown;
    uint32_t flags;
};

struct paramem_lexicon {
    struct memos_buffer pool;
    struct paramem_lexicon_token *tokens; /* ids_end */
    size_t ids_end;
    uint64_t *places; /* a hash table: half a hash, then id + 1; 0 is free */
    unsigned shift;   /* 64 - log2 of its size */
    uint64_t seed;
};

/* A token that a file names; `written` is in the pool. */
struct paramem_entry {
    struct paramem_view32 written;
    uint32_t id;
};

/* An empty lexicon whose pool takes at most pool_max bytes (below 2^32). */
void paramem_lexicon_init(struct paramem_lexicon *lexicon, size_t pool_max);
void paramem_lexicon_finish(struct paramem_lexicon *lexicon); /* takes a zeroed one */

/* Make the model's tokens. bytes: byte-level. CORRUPT: an id or a text that stands twice, ids with
 * gaps as large as the vocabulary; NO_MEMORY. */
MEMOS_MUST_USE enum memos_status paramem_lexicon_build(struct paramem_lexicon *lexicon,
    const struct paramem_entry *entries, size_t count, bool bytes, struct memos_error *err);

/* Give `id` a text that is no key; the ids grow as is needed. TOO_LARGE, NO_MEMORY. */
MEMOS_MUST_USE enum memos_status paramem_lexicon_name(struct paramem_lexicon *lexicon, uint32_t id,
    struct memos_bytes written, uint32_t flags, struct memos_error *err);

/* The id whose key is that, or PARAMEM_TOKEN_NONE; plain: of those that no text becomes. */
uint32_t paramem_lexicon_find(
    const struct paramem_lexicon *lexicon, struct memos_bytes key, bool plain);
/* The same for many keys at once, which is faster than one by one as far as the table is not in a
 * cache: each step of all of them is asked of memory before the first is waited for. */
struct paramem_lexicon_query {
    struct paramem_view32 key; /* in the bytes at `keys` */
    bool plain;
    uint32_t id;   /* what was found */
    uint64_t hash; /* scratch */
};
void paramem_lexicon_find_all(const struct paramem_lexicon *lexicon, const uint8_t *keys,
    struct paramem_lexicon_query *queries, size_t count);
/* The same as _find of what is written. bytes: as at build. */
uint32_t paramem_lexicon_find_written(
    const struct paramem_lexicon *lexicon, struct memos_bytes written, bool bytes);

static inline struct memos_bytes paramem_lexicon_view(
    const struct paramem_lexicon *lexicon, struct paramem_view32 view)
{
    return memos_bytes_make(lexicon->pool.data + view.at, view.size);
}

/* Copy into the pool. False: past its bound, or no memory. */
bool paramem_lexicon_keep(
    struct paramem_lexicon *lexicon, struct memos_bytes bytes, struct paramem_view32 *out);

/* A hash of bytes: multiply and fold, eight bytes a step. Not for secrets; a random seed keeps
 * files from being made to collide. */
uint64_t paramem_hash(uint64_t seed, struct memos_bytes bytes);

#endif
