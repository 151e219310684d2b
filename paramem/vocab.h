/* A vocabulary: token -> id, as a trie over bytes in one hash table of edges.
 *
 * An edge (node, byte) -> node is one word of 64 bits; walking a word is one look a byte, and the
 * longest token that a word begins with is found in one walk. 30,000 tokens take 3 MB.
 *
 * Threads: read-only after the last add. */
#ifndef PARAMEM_VOCAB_H
#define PARAMEM_VOCAB_H

#include "proto/bytes.h"

#define PARAMEM_NO_ID UINT32_MAX
#define PARAMEM_VOCAB_BYTES_MAX ((size_t)1 << 26)

struct paramem_vocab {
    uint64_t *edges; /* node << 36 | byte << 28 | child << 1 | a token ends there; 0 is free */
    uint32_t *ids;   /* of nodes; PARAMEM_NO_ID: no token ends here. Node 0 is the root. */
    size_t nodes;
    unsigned shift; /* 64 - log2 of the number of places for edges */
};

/* Room for tokens of bytes_total bytes together, at most PARAMEM_VOCAB_BYTES_MAX. NO_MEMORY. */
MEMOS_MUST_USE enum memos_status paramem_vocab_init(
    struct paramem_vocab *vocab, size_t bytes_total, struct memos_error *err);
void paramem_vocab_finish(struct paramem_vocab *vocab); /* takes a zeroed one */

/* A token that is there gets the new id; an empty one is left out. */
void paramem_vocab_add(struct paramem_vocab *vocab, struct memos_bytes token, uint32_t id);

/* The node that the bytes lead to from `node`; 0 when there is none. */
uint32_t paramem_vocab_walk(
    const struct paramem_vocab *vocab, uint32_t node, struct memos_bytes bytes);

/* The id of a token, or PARAMEM_NO_ID. */
uint32_t paramem_vocab_find(const struct paramem_vocab *vocab, struct memos_bytes token);

/* The longest non-empty beginning of bytes that is a token when it is put after what led to `node`:
 * its length (0: none) and id. */
size_t paramem_vocab_longest(
    const struct paramem_vocab *vocab, uint32_t node, struct memos_bytes bytes, uint32_t *out_id);

#endif
