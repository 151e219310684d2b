#include "paramem/vocab.h"

#include <stdlib.h>
#include <string.h>

#define CHILD_BITS 28 /* the child's node and the bit whether a token ends there */
#define NODES_MAX ((size_t)1 << (CHILD_BITS - 1))

/* Fibonacci hashing: the high bits of the product with 2^64 / phi. */
static size_t place_of(const struct paramem_vocab *vocab, uint64_t edge)
{
    return (size_t)((edge * UINT64_C(0x9E3779B97F4A7C15)) >> vocab->shift);
}

static uint32_t child_of(uint64_t entry)
{
    return (uint32_t)(entry & (((uint64_t)1 << CHILD_BITS) - 1)) >> 1;
}

static uint64_t edge_of(uint32_t node, uint8_t byte)
{
    return (uint64_t)node << 8 | byte;
}

/* Where the edge lies, or where it would. */
static inline uint64_t *edge_find(const struct paramem_vocab *vocab, uint64_t edge)
{
    size_t mask = SIZE_MAX >> vocab->shift;
    size_t place = place_of(vocab, edge);
    while (vocab->edges[place] != 0 && vocab->edges[place] >> CHILD_BITS != edge) {
        place = (place + 1) & mask;
    }
    return &vocab->edges[place];
}

enum memos_status paramem_vocab_init(
    struct paramem_vocab *vocab, size_t bytes_total, struct memos_error *err)
{
    memos_assert(bytes_total <= PARAMEM_VOCAB_BYTES_MAX);
    unsigned bits = 4;
    while (((size_t)1 << bits) < 2 * (bytes_total + 1)) {
        bits++;
    }
    vocab->shift = 64 - bits;
    vocab->nodes = 1;
    vocab->edges = calloc((size_t)1 << bits, sizeof *vocab->edges);
    vocab->ids = malloc((bytes_total + 1) * sizeof *vocab->ids);
    if (!vocab->edges || !vocab->ids) {
        paramem_vocab_finish(vocab);
        return memos_fail(
            err, MEMOS_NO_MEMORY, "no memory for a vocabulary of %zu bytes", bytes_total);
    }
    memset(vocab->ids, 0xff, (bytes_total + 1) * sizeof *vocab->ids);
    return MEMOS_OK;
}

void paramem_vocab_finish(struct paramem_vocab *vocab)
{
    free(vocab->edges);
    free(vocab->ids);
    *vocab = (struct paramem_vocab){0};
}

void paramem_vocab_add(struct paramem_vocab *vocab, struct memos_bytes token, uint32_t id)
{
    const uint8_t *at = token.data;
    uint64_t *place = NULL;
    uint32_t node = 0;
    for (size_t i = 0; i < token.size; i++) {
        uint64_t edge = edge_of(node, at[i]);
        place = edge_find(vocab, edge);
        if (*place == 0) {
            memos_assert(vocab->nodes < NODES_MAX);
            *place = edge << CHILD_BITS | vocab->nodes++ << 1;
        }
        node = child_of(*place);
    }
    if (place) {
        *place |= 1;
        vocab->ids[node] = id;
    }
}

uint32_t paramem_vocab_walk(
    const struct paramem_vocab *vocab, uint32_t node, struct memos_bytes bytes)
{
    const uint8_t *at = bytes.data;
    for (size_t i = 0; i < bytes.size; i++) {
        node = child_of(*edge_find(vocab, edge_of(node, at[i])));
        if (node == 0) {
            return 0;
        }
    }
    return node;
}

uint32_t paramem_vocab_find(const struct paramem_vocab *vocab, struct memos_bytes token)
{
    uint32_t node = paramem_vocab_walk(vocab, 0, token);
    return node == 0 ? PARAMEM_NO_ID : vocab->ids[node];
}

size_t paramem_vocab_longest(
    const struct paramem_vocab *vocab, uint32_t node, struct memos_bytes bytes, uint32_t *out_id)
{
    const uint8_t *at = bytes.data;
    size_t longest = 0;
    uint32_t last = 0;
    for (size_t i = 0; i < bytes.size; i++) {
        uint64_t entry = *edge_find(vocab, edge_of(node, at[i]));
        node = child_of(entry);
        if (node == 0) {
            break;
        }
        if (entry & 1) {
            last = node;
            longest = i + 1;
        }
    }
    if (longest > 0) {
        *out_id = vocab->ids[last];
    }
    return longest;
}
