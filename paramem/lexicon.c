#include "paramem/lexicon.h"

#include "paramem/bytelevel.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define AT_ONCE 64 /* tokens whose places are fetched together */

static uint64_t fold(uint64_t a, uint64_t b)
{
    __extension__ unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint64_t paramem_hash(uint64_t seed, struct memos_bytes bytes)
{
    const uint64_t odd = UINT64_C(0x9E3779B97F4A7C15);
    const uint8_t *at = bytes.data;
    uint64_t state = seed ^ odd, word;
    size_t left = bytes.size;
    for (; left >= 8; left -= 8, at += 8) {
        memcpy(&word, at, 8);
        state = fold(state ^ word, odd ^ seed);
    }
    word = 0;
    for (size_t i = 0; i < left; i++) {
        word |= (uint64_t)at[i] << (8 * i);
    }
    return fold(state ^ word, odd + bytes.size + seed);
}

void paramem_lexicon_init(struct paramem_lexicon *lexicon, size_t pool_max)
{
    memos_assert(sodium_init() >= 0 && pool_max < UINT32_MAX);
    *lexicon = (struct paramem_lexicon){.pool = memos_buffer_make(pool_max)};
    randombytes_buf(&lexicon->seed, sizeof lexicon->seed);
}

void paramem_lexicon_finish(struct paramem_lexicon *lexicon)
{
    memos_buffer_free(&lexicon->pool);
    free(lexicon->tokens);
    free(lexicon->places);
    *lexicon = (struct paramem_lexicon){0};
}

bool paramem_lexicon_keep(
    struct paramem_lexicon *lexicon, struct memos_bytes bytes, struct paramem_view32 *out)
{
    *out = (struct paramem_view32){(uint32_t)lexicon->pool.size, (uint32_t)bytes.size};
    memos_buffer_bytes(&lexicon->pool, bytes.data, bytes.size);
    return !lexicon->pool.failed;
}

/* Where the key lies, or where it would. A place holds the upper half of the hash, too, so that
 * tokens that only share the place are not looked at. */
static uint64_t *place_of(
    const struct paramem_lexicon *lexicon, struct memos_bytes key, uint32_t plain, uint64_t hash)
{
    size_t mask = SIZE_MAX >> lexicon->shift;
    uint64_t tag = hash << 32;
    size_t place = (size_t)(hash >> lexicon->shift);
    for (; lexicon->places[place] != 0; place = (place + 1) & mask) {
        uint64_t there = lexicon->places[place];
        if ((there ^ tag) >> 32 != 0) {
            continue;
        }
        const struct paramem_lexicon_token *token = &lexicon->tokens[(uint32_t)there - 1];
        if ((token->flags & PARAMEM_TOKEN_PLAIN) == plain &&
            memos_bytes_equal(paramem_lexicon_view(lexicon, token->key), key)) {
            break;
        }
    }
    return &lexicon->places[place];
}

/* Its key, when that is not what is written. */
static bool token_keyed(struct paramem_lexicon *lexicon, struct paramem_lexicon_token *token)
{
    size_t size = token->written.size;
    uint8_t *key = memos_buffer_take(&lexicon->pool, size);
    if (!key) {
        return false;
    }
    struct memos_bytes written = paramem_lexicon_view(lexicon, token->written);
    size_t made = 0;
    if (paramem_bytelevel_read(written, key, &made)) {
        token->key = (struct paramem_view32){(uint32_t)(lexicon->pool.size - size), (uint32_t)made};
    } else {
        token->flags |= PARAMEM_TOKEN_PLAIN;
        made = 0;
    }
    lexicon->pool.size -= size - made;
    return true;
}

static enum memos_status tables_make(
    struct paramem_lexicon *lexicon, size_t count, size_t ids_end, struct memos_error *err)
{
    unsigned bits = 4;
    while (((size_t)1 << bits) < 2 * count) {
        bits++;
    }
    lexicon->shift = 64 - bits;
    lexicon->places = calloc((size_t)1 << bits, sizeof *lexicon->places);
    lexicon->tokens = calloc(ids_end + 1, sizeof *lexicon->tokens);
    if (!lexicon->places || !lexicon->tokens) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a vocabulary of %zu tokens", count);
    }
    lexicon->ids_end = ids_end;
    return MEMOS_OK;
}

/* An entry's token, without its place. */
static enum memos_status token_make(struct paramem_lexicon *lexicon,
    const struct paramem_entry *entry, bool bytes, struct memos_error *err)
{
    struct paramem_lexicon_token *token = &lexicon->tokens[entry->id];
    if (token->flags) {
        return memos_fail(err, MEMOS_CORRUPT, "two tokens have the id %u", entry->id);
    }
    token->written = token->key = entry->written;
    token->flags = PARAMEM_TOKEN_THERE | PARAMEM_TOKEN_OF_MODEL;
    if (bytes && !token_keyed(lexicon, token)) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a vocabulary");
    }
    token->shown = token->key;
    return MEMOS_OK;
}

static enum memos_status token_place(
    struct paramem_lexicon *lexicon, uint32_t id, uint64_t hash, struct memos_error *err)
{
    const struct paramem_lexicon_token *token = &lexicon->tokens[id];
    uint64_t *place = place_of(lexicon, paramem_lexicon_view(lexicon, token->key),
        token->flags & PARAMEM_TOKEN_PLAIN, hash);
    if (*place != 0) {
        return memos_fail(err, MEMOS_CORRUPT, "tokens %u and %u are written in the same way",
            (uint32_t)*place - 1, id);
    }
    *place = hash << 32 | (id + 1);
    return MEMOS_OK;
}

/* Tokens of some entries: places are on their way from memory while the next keys are made. */
static enum memos_status tokens_make(struct paramem_lexicon *lexicon,
    const struct paramem_entry *entries, size_t count, bool bytes, struct memos_error *err)
{
    uint64_t hashes[AT_ONCE];
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        status = token_make(lexicon, &entries[i], bytes, err);
        hashes[i] = paramem_hash(
            lexicon->seed, paramem_lexicon_view(lexicon, lexicon->tokens[entries[i].id].key));
        __builtin_prefetch(&lexicon->places[hashes[i] >> lexicon->shift], 1);
    }
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        status = token_place(lexicon, entries[i].id, hashes[i], err);
    }
    return status;
}

enum memos_status paramem_lexicon_build(struct paramem_lexicon *lexicon,
    const struct paramem_entry *entries, size_t count, bool bytes, struct memos_error *err)
{
    size_t ids_end = 0;
    for (size_t i = 0; i < count; i++) {
        ids_end = entries[i].id >= ids_end ? (size_t)entries[i].id + 1 : ids_end;
    }
    if (ids_end > 2 * count + 65536) {
        return memos_fail(err, MEMOS_CORRUPT, "%zu tokens, but ids up to %zu", count, ids_end - 1);
    }
    enum memos_status status = tables_make(lexicon, count, ids_end, err);
    for (size_t i = 0; i < count && status == MEMOS_OK; i += AT_ONCE) {
        status = tokens_make(
            lexicon, entries + i, count - i < AT_ONCE ? count - i : AT_ONCE, bytes, err);
    }
    return status;
}

enum memos_status paramem_lexicon_name(struct paramem_lexicon *lexicon, uint32_t id,
    struct memos_bytes written, uint32_t flags, struct memos_error *err)
{
    if (id > PARAMEM_TOKEN_ID_MAX || id > 2 * lexicon->ids_end + 65536) {
        return memos_fail(err, MEMOS_CORRUPT, "an added token's id is %u; the vocabulary has %zu",
            id, lexicon->ids_end);
    }
    if (id >= lexicon->ids_end) {
        size_t ids_end = (size_t)id + 1;
        struct paramem_lexicon_token *grown =
            realloc(lexicon->tokens, (ids_end + 1) * sizeof *grown);
        if (!grown) {
            return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu tokens", ids_end);
        }
        memset(&grown[lexicon->ids_end], 0, (ids_end + 1 - lexicon->ids_end) * sizeof *grown);
        lexicon->tokens = grown;
        lexicon->ids_end = ids_end;
    }
    struct paramem_lexicon_token *token = &lexicon->tokens[id];
    token->flags |= flags | PARAMEM_TOKEN_THERE;
    if (!paramem_lexicon_keep(lexicon, written, &token->shown)) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a vocabulary");
    }
    if (!(token->flags & PARAMEM_TOKEN_OF_MODEL)) {
        token->written = token->shown;
    }
    return MEMOS_OK;
}

uint32_t paramem_lexicon_find(
    const struct paramem_lexicon *lexicon, struct memos_bytes key, bool plain)
{
    uint32_t found = (uint32_t)*place_of(
        lexicon, key, plain ? PARAMEM_TOKEN_PLAIN : 0, paramem_hash(lexicon->seed, key));
    return found == 0 ? PARAMEM_TOKEN_NONE : found - 1;
}

/* Most keys lie in the first place that their hash names, so that this is what is fetched. */
void paramem_lexicon_find_all(const struct paramem_lexicon *lexicon, const uint8_t *keys,
    struct paramem_lexicon_query *queries, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        queries[i].hash = paramem_hash(
            lexicon->seed, memos_bytes_make(keys + queries[i].key.at, queries[i].key.size));
        __builtin_prefetch(&lexicon->places[queries[i].hash >> lexicon->shift]);
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t there = lexicon->places[queries[i].hash >> lexicon->shift];
        __builtin_prefetch(&lexicon->tokens[there ? (uint32_t)there - 1 : 0]);
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t there = lexicon->places[queries[i].hash >> lexicon->shift];
        const struct paramem_lexicon_token *token =
            &lexicon->tokens[there ? (uint32_t)there - 1 : 0];
        __builtin_prefetch(lexicon->pool.data + token->key.at);
    }
    for (size_t i = 0; i < count; i++) {
        struct memos_bytes key = memos_bytes_make(keys + queries[i].key.at, queries[i].key.size);
        uint32_t found = (uint32_t)*place_of(
            lexicon, key, queries[i].plain ? PARAMEM_TOKEN_PLAIN : 0, queries[i].hash);
        queries[i].id = found == 0 ? PARAMEM_TOKEN_NONE : found - 1;
    }
}

uint32_t paramem_lexicon_find_written(
    const struct paramem_lexicon *lexicon, struct memos_bytes written, bool bytes)
{
    uint8_t room[512], *key = room;
    size_t made = 0;
    if (!bytes) {
        return paramem_lexicon_find(lexicon, written, false);
    }
    if (written.size > sizeof room) {
        key = malloc(written.size);
        if (!key) {
            return PARAMEM_TOKEN_NONE;
        }
    }
    bool plain = !paramem_bytelevel_read(written, key, &made);
    uint32_t found =
        paramem_lexicon_find(lexicon, plain ? written : memos_bytes_make(key, made), plain);
    if (key != room) {
        free(key);
    }
    return found;
}
