#include "paramem/bpe.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define NONE PARAMEM_TOKEN_NONE
#define WORDS 65536u                  /* places for words that were cut */
#define WORDS_BYTES ((size_t)8 << 20) /* all of them together */
#define WORD_BYTES 64                 /* longer ones are not kept */
#define SCAN_MAX 48                   /* symbols up to which all pairs are looked at */

struct paramem_bpe_word {
    uint64_t hash;
    uint16_t size, count;
    uint32_t ids[]; /* then the bytes */
};

/* ---- the table of merges ------------------------------------------------------------------- */

enum memos_status paramem_bpe_init(struct paramem_bpe *bpe, const struct paramem_lexicon *lexicon,
    size_t pairs_max, struct memos_error *err)
{
    unsigned bits = 4;
    while (((size_t)1 << bits) < 2 * pairs_max) {
        bits++;
    }
    *bpe = (struct paramem_bpe){.lexicon = lexicon, .shift = 64 - bits, .unknown = NONE};
    memset(bpe->byte_ids, 0xff, sizeof bpe->byte_ids);
    randombytes_buf(&bpe->factor, sizeof bpe->factor);
    bpe->factor |= 1;
    bpe->pairs = malloc(((size_t)1 << bits) * sizeof *bpe->pairs);
    bpe->words = calloc(WORDS, sizeof *bpe->words);
    if (!bpe->pairs || !bpe->words) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu merges", pairs_max);
    }
    memset(bpe->pairs, 0xff, ((size_t)1 << bits) * sizeof *bpe->pairs);
    return MEMOS_OK;
}

void paramem_bpe_finish(struct paramem_bpe *bpe)
{
    for (size_t i = 0; bpe->words && i < WORDS; i++) {
        free(atomic_load_explicit(&bpe->words[i], memory_order_relaxed));
    }
    free(bpe->words);
    free(bpe->pairs);
    bpe->words = NULL;
    bpe->pairs = NULL;
}

static inline size_t place_of(const struct paramem_bpe *bpe, uint64_t key)
{
    return (size_t)((key * bpe->factor) >> bpe->shift);
}

void paramem_bpe_expect(const struct paramem_bpe *bpe, uint32_t left, uint32_t right)
{
    __builtin_prefetch(&bpe->pairs[place_of(bpe, (uint64_t)left << 32 | right)], 1);
}

static inline struct paramem_pair *pair_at(const struct paramem_bpe *bpe, uint64_t key)
{
    size_t mask = SIZE_MAX >> bpe->shift, place = place_of(bpe, key);
    while (bpe->pairs[place].key != key && bpe->pairs[place].key != UINT64_MAX) {
        place = (place + 1) & mask;
    }
    return &bpe->pairs[place];
}

void paramem_bpe_pair(
    struct paramem_bpe *bpe, uint32_t left, uint32_t right, uint32_t rank, uint32_t made)
{
    uint64_t key = (uint64_t)left << 32 | right;
    struct paramem_pair *pair = pair_at(bpe, key);
    bpe->pairs_count += pair->key != key;
    memos_assert(2 * bpe->pairs_count <= (SIZE_MAX >> bpe->shift) + 1);
    *pair = (struct paramem_pair){key, rank, made};
}

/* The pair's rank (NONE: no merge), which for free places is the same as its 0xff. */
static inline uint32_t rank_of(
    const struct paramem_bpe *bpe, uint32_t left, uint32_t right, uint32_t *out_made)
{
    const struct paramem_pair *pair = pair_at(bpe, (uint64_t)left << 32 | right);
    *out_made = pair->made;
    return pair->rank;
}

/* ---- a list that grows --------------------------------------------------------------------- */

bool paramem_id_list_add(struct paramem_id_list *list, const uint32_t *ids, size_t count)
{
    if (list->capacity - list->count < count) {
        size_t capacity = list->capacity + list->capacity / 2 + count + 64;
        uint32_t *grown = realloc(list->ids, capacity * sizeof *grown);
        if (!grown) {
            return false;
        }
        list->ids = grown;
        list->capacity = capacity;
    }
    for (size_t i = 0; i < count; i++) {
        list->ids[list->count + i] = ids[i];
    }
    list->count += count;
    return true;
}

/* ---- symbols ------------------------------------------------------------------------------- */

/* A symbol in a list by place; id NONE: it was merged into the one before. */
struct symbol {
    uint32_t id, before, after; /* NONE: there is none */
    uint32_t rank, made;        /* of the pair with the one after */
};

struct symbols {
    struct symbol *at;
    size_t count;
};

static void symbol_add(struct symbols *symbols, uint32_t id)
{
    symbols->at[symbols->count++].id = id;
}

/* What is unknown waits for what comes: it may be fused. */
static void unknown_add(const struct paramem_bpe *bpe, struct symbols *symbols, bool *waiting)
{
    if (bpe->unknown == NONE) {
        return;
    }
    if (*waiting && !bpe->fuse) {
        symbol_add(symbols, bpe->unknown);
    }
    *waiting = true;
}

static size_t char_size(uint8_t first)
{
    return first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
}

static bool fallback_add(
    const struct paramem_bpe *bpe, struct symbols *symbols, const uint8_t *at, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (bpe->byte_ids[at[i]] == NONE) {
            return false;
        }
    }
    for (size_t i = 0; i < size; i++) {
        symbol_add(symbols, bpe->byte_ids[at[i]]);
    }
    return true;
}

/* Never more symbols than bytes. A word of characters is well-formed. */
static void symbols_begin(
    const struct paramem_bpe *bpe, struct symbols *symbols, struct memos_bytes word)
{
    const uint8_t *at = word.data, *end = at + word.size;
    bool waiting = false;
    while (at < end) {
        size_t size = bpe->bytes ? 1 : char_size(*at);
        uint32_t id = bpe->bytes
                          ? bpe->byte_ids[*at]
                          : paramem_lexicon_find(bpe->lexicon, memos_bytes_make(at, size), false);
        if (id != NONE) {
            if (waiting) {
                symbol_add(symbols, bpe->unknown);
                waiting = false;
            }
            symbol_add(symbols, id);
        } else if (bpe->bytes || !bpe->fallback || !fallback_add(bpe, symbols, at, size)) {
            unknown_add(bpe, symbols, &waiting);
        }
        at += size;
    }
    if (waiting) {
        symbol_add(symbols, bpe->unknown);
    }
}

static void pair_look(const struct paramem_bpe *bpe, struct symbol *at, uint32_t place)
{
    struct symbol *left = &at[place];
    left->rank = NONE;
    if (left->after != NONE) {
        left->rank = rank_of(bpe, left->id, at[left->after].id, &left->made);
    }
}

static void links_make(const struct paramem_bpe *bpe, struct symbols *symbols)
{
    for (uint32_t i = 0; i < symbols->count; i++) {
        symbols->at[i].before = i == 0 ? NONE : i - 1;
        symbols->at[i].after = i + 1 == symbols->count ? NONE : i + 1;
    }
    for (uint32_t i = 0; i < symbols->count; i++) {
        pair_look(bpe, symbols->at, i);
    }
}

/* The pair at `place` becomes one symbol; looks its new neighbours up. */
static void merge_at(const struct paramem_bpe *bpe, struct symbol *at, uint32_t place)
{
    uint32_t gone = at[place].after, after = at[gone].after;
    at[place].id = at[place].made;
    at[place].after = after;
    at[gone].id = NONE;
    at[gone].rank = NONE;
    if (after != NONE) {
        at[after].before = place;
    }
    pair_look(bpe, at, place);
    if (at[place].before != NONE) {
        pair_look(bpe, at, at[place].before);
    }
}

static void merge_scan(const struct paramem_bpe *bpe, struct symbols *symbols)
{
    for (;;) {
        uint32_t best = NONE, place = 0;
        for (uint32_t i = 0; i != NONE; i = symbols->at[i].after) {
            if (symbols->at[i].rank < best) {
                best = symbols->at[i].rank;
                place = i;
            }
        }
        if (best == NONE) {
            return;
        }
        merge_at(bpe, symbols->at, place);
    }
}

/* ---- a heap of pairs: rank << 32 | place, the lowest first ---------------------------------- */

static void heap_push(uint64_t *heap, size_t *count, uint64_t entry)
{
    size_t i = (*count)++;
    while (i > 0 && heap[(i - 1) / 2] > entry) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = entry;
}

static uint64_t heap_pop(uint64_t *heap, size_t *count)
{
    uint64_t top = heap[0], last = heap[--*count];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < *count; i = child) {
        child += child + 1 < *count && heap[child + 1] < heap[child];
        if (heap[child] >= last) {
            break;
        }
        heap[i] = heap[child];
    }
    heap[i] = last;
    return top;
}

static void heap_offer(const struct symbol *at, uint32_t place, uint64_t *heap, size_t *count)
{
    if (place != NONE && at[place].rank != NONE) {
        heap_push(heap, count, (uint64_t)at[place].rank << 32 | place);
    }
}

/* An entry whose symbol has another pair by now is stale, and passed over. Each merge adds two at
 * most, so 3 * count have room. */
static void merge_heap(const struct paramem_bpe *bpe, struct symbols *symbols, uint64_t *heap)
{
    struct symbol *at = symbols->at;
    size_t count = 0;
    for (uint32_t i = 0; i < symbols->count; i++) {
        heap_offer(at, i, heap, &count);
    }
    while (count > 0) {
        uint64_t top = heap_pop(heap, &count);
        uint32_t place = (uint32_t)top;
        if (at[place].rank != top >> 32) {
            continue;
        }
        merge_at(bpe, at, place);
        heap_offer(at, place, heap, &count);
        heap_offer(at, at[place].before, heap, &count);
    }
}

/* ---- words --------------------------------------------------------------------------------- */

void paramem_bpe_room_finish(struct paramem_bpe_room *room)
{
    free(room->symbols);
    free(room->heap);
    *room = (struct paramem_bpe_room){0};
}

static enum memos_status room_for(
    struct paramem_bpe_room *room, size_t count, struct memos_error *err)
{
    if (count > room->symbols_max) {
        free(room->symbols);
        room->symbols_max = count + count / 2 + 64;
        room->symbols = malloc(room->symbols_max * sizeof(struct symbol));
    }
    if (count > SCAN_MAX && 3 * count > room->heap_max) {
        free(room->heap);
        room->heap_max = 3 * (count + count / 2);
        room->heap = malloc(room->heap_max * sizeof *room->heap);
    }
    if (!room->symbols || (count > SCAN_MAX && !room->heap)) {
        paramem_bpe_room_finish(room);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a word of %zu bytes", count);
    }
    return MEMOS_OK;
}

static enum memos_status word_cut(const struct paramem_bpe *bpe, struct memos_bytes word,
    struct paramem_bpe_room *room, struct paramem_id_list *out, struct memos_error *err)
{
    if (word.size >= UINT32_MAX / 4) {
        return memos_fail(err, MEMOS_TOO_LARGE, "a word of %zu bytes", word.size);
    }
    enum memos_status status = room_for(room, word.size, err);
    if (status != MEMOS_OK) {
        return status;
    }
    struct symbols symbols = {.at = room->symbols};
    symbols_begin(bpe, &symbols, word);
    if (symbols.count == 0) {
        return MEMOS_OK;
    }
    links_make(bpe, &symbols);
    if (symbols.count <= SCAN_MAX) {
        merge_scan(bpe, &symbols);
    } else {
        merge_heap(bpe, &symbols, room->heap);
    }
    for (uint32_t i = 0; i != NONE; i = symbols.at[i].after) {
        if (!paramem_id_list_add(out, &symbols.at[i].id, 1)) {
            return memos_fail(err, MEMOS_NO_MEMORY, "no memory for ids");
        }
    }
    return MEMOS_OK;
}

/* Keep a word, unless its place is taken or all room is. Whoever loses the race for the place
 * throws its copy away; what is there never changes until the end. */
static void word_keep(const struct paramem_bpe *bpe, uint64_t hash, struct memos_bytes word,
    const uint32_t *ids, size_t count)
{
    struct paramem_bpe *shared = (struct paramem_bpe *)(uintptr_t)bpe;
    _Atomic(struct paramem_bpe_word *) *place = &bpe->words[hash & (WORDS - 1)];
    size_t bytes = sizeof(struct paramem_bpe_word) + count * sizeof *ids + word.size;
    if (atomic_load_explicit(place, memory_order_relaxed) != NULL ||
        atomic_fetch_add_explicit(&shared->words_bytes, bytes, memory_order_relaxed) >
            WORDS_BYTES) {
        return;
    }
    struct paramem_bpe_word *kept = malloc(bytes), *none = NULL;
    if (!kept) {
        return;
    }
    kept->hash = hash;
    kept->size = (uint16_t)word.size;
    kept->count = (uint16_t)count;
    memcpy(kept->ids, ids, count * sizeof *ids);
    memcpy(kept->ids + count, word.data, word.size);
    if (!atomic_compare_exchange_strong_explicit(
            place, &none, kept, memory_order_release, memory_order_relaxed)) {
        free(kept);
    }
}

enum memos_status paramem_bpe_word(const struct paramem_bpe *bpe, struct memos_bytes word,
    struct paramem_bpe_room *room, struct paramem_id_list *out, struct memos_error *err)
{
    if (word.size == 0) {
        return MEMOS_OK;
    } else if (word.size > WORD_BYTES) {
        uint32_t id = bpe->whole ? paramem_lexicon_find(bpe->lexicon, word, false) : NONE;
        if (id == NONE) {
            return word_cut(bpe, word, room, out, err);
        }
        return paramem_id_list_add(out, &id, 1) ? MEMOS_OK
                                                : memos_fail(err, MEMOS_NO_MEMORY, "no memory");
    }
    uint64_t hash = paramem_hash(bpe->factor, word);
    const struct paramem_bpe_word *known =
        atomic_load_explicit(&bpe->words[hash & (WORDS - 1)], memory_order_acquire);
    if (known && known->hash == hash && known->size == word.size &&
        memcmp(known->ids + known->count, word.data, word.size) == 0) {
        return paramem_id_list_add(out, known->ids, known->count)
                   ? MEMOS_OK
                   : memos_fail(err, MEMOS_NO_MEMORY, "no memory for ids");
    }
    size_t before = out->count;
    uint32_t id = bpe->whole ? paramem_lexicon_find(bpe->lexicon, word, false) : NONE;
    enum memos_status status = MEMOS_OK;
    if (id == NONE) {
        status = word_cut(bpe, word, room, out, err);
    } else if (!paramem_id_list_add(out, &id, 1)) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for ids");
    }
    if (status == MEMOS_OK && out->count > before) {
        word_keep(bpe, hash, word, out->ids + before, out->count - before);
    }
    return status;
}
