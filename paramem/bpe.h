/* Byte pair encoding: one word into token ids.
 *
 * A word begins as symbols, one a byte (byte-level) or one a character; what is no token becomes
 * byte tokens, or the unknown one, or nothing. Then, as long as two neighbours are in the table of
 * merges, the pair of lowest rank, of these the leftmost, becomes one symbol.
 *
 * Short words look for the lowest rank among all pairs at each step; long ones (whole texts, in
 * SentencePiece's manner) keep a heap of pairs, O(n log n). Words that were cut once are kept, up
 * to a bound, in a table that threads fill and read without locks.
 *
 * Sources: Sennrich et al., arXiv 1508.07909; Kudo and Richardson, arXiv 1808.06226, for the heap.
 *
 * Threads: after the last merge is added it may be shared; each call brings its own room. */
#ifndef PARAMEM_BPE_H
#define PARAMEM_BPE_H

#include "paramem/lexicon.h"

#include <stdatomic.h>

struct paramem_pair {
    uint64_t key; /* left << 32 | right; UINT64_MAX: free */
    uint32_t rank, made;
};

struct paramem_bpe_word; /* one that was cut */

struct paramem_bpe {
    const struct paramem_lexicon *lexicon;
    struct paramem_pair *pairs; /* a hash table */
    size_t pairs_count;
    unsigned shift;
    uint64_t factor;

    bool bytes;             /* symbols are bytes, not characters */
    bool fallback;          /* characters that are no token become byte tokens, if all are there */
    bool fuse;              /* neighbours that are unknown become one */
    bool whole;             /* a word that is a token is that token, whatever merges say */
    uint32_t unknown;       /* PARAMEM_TOKEN_NONE: what is unknown is left out */
    uint32_t byte_ids[256]; /* the token of each byte, or PARAMEM_TOKEN_NONE */

    _Atomic(struct paramem_bpe_word *) *words; /* PARAMEM_BPE_WORDS */
    atomic_size_t words_bytes;
};

/* Room that one encode works in. Zero-initialise. */
struct paramem_bpe_room {
    void *symbols;
    size_t symbols_max;
    uint64_t *heap;
    size_t heap_max;
};

/* Ids that grow. */
struct paramem_id_list {
    uint32_t *ids;
    size_t count, capacity;
};
/* False: no memory. */
bool paramem_id_list_add(struct paramem_id_list *list, const uint32_t *ids, size_t count);

/* Room for pairs_max merges. The lexicon must outlive it. NO_MEMORY. */
MEMOS_MUST_USE enum memos_status paramem_bpe_init(struct paramem_bpe *bpe,
    const struct paramem_lexicon *lexicon, size_t pairs_max, struct memos_error *err);
void paramem_bpe_finish(struct paramem_bpe *bpe); /* takes a zeroed one */

/* Two neighbours become `made`; a pair that is there gets the new rank. */
void paramem_bpe_pair(
    struct paramem_bpe *bpe, uint32_t left, uint32_t right, uint32_t rank, uint32_t made);

/* That pair comes soon: its place is fetched from memory. */
void paramem_bpe_expect(const struct paramem_bpe *bpe, uint32_t left, uint32_t right);

/* Add the ids of a word (UTF-8) to the list. NO_MEMORY. */
MEMOS_MUST_USE enum memos_status paramem_bpe_word(const struct paramem_bpe *bpe,
    struct memos_bytes word, struct paramem_bpe_room *room, struct paramem_id_list *out,
    struct memos_error *err);
void paramem_bpe_room_finish(struct paramem_bpe_room *room);

#endif
