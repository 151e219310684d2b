/* Vocabulary and merges out of tokenizer.json, and what follows from a tokenizer's parts. */
#include "paramem/bytelevel.h"
#include "paramem/json_scan.h"
#include "paramem/text.h"
#include "paramem/tokenizer_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- vocabulary ---------------------------------------------------------------------------- */

struct entries {
    struct paramem_entry *at;
    size_t count, capacity;
};

static bool entry_add(struct entries *entries, struct paramem_entry entry)
{
    if (entries->count == entries->capacity) {
        size_t capacity = entries->capacity ? 2 * entries->capacity : 4096;
        struct paramem_entry *grown = realloc(entries->at, capacity * sizeof *grown);
        if (!grown) {
            return false;
        }
        entries->at = grown;
        entries->capacity = capacity;
    }
    entries->at[entries->count++] = entry;
    return true;
}

static enum memos_status vocab_read(
    struct paramem_tokenizer *tokenizer, struct memos_bytes vocab, struct memos_error *err)
{
    struct paramem_scan scan = paramem_scan_of(vocab);
    struct memos_buffer *pool = &tokenizer->lexicon.pool;
    struct entries entries = {0};
    bool memory = true;
    paramem_scan_expect(&scan, '{');
    for (bool more = !paramem_scan_has(&scan, '}'); more && memory && !scan.failed;) {
        struct paramem_entry entry = {.written.at = (uint32_t)pool->size};
        entry.written.size = (uint32_t)paramem_scan_string(&scan, pool);
        paramem_scan_expect(&scan, ':');
        entry.id = paramem_scan_count(&scan, PARAMEM_TOKEN_ID_MAX);
        memory = scan.failed || entry_add(&entries, entry);
        more = paramem_scan_has(&scan, ',');
        if (!more) {
            paramem_scan_expect(&scan, '}');
        }
    }
    enum memos_status status = MEMOS_OK;
    if (!memory) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for a vocabulary");
    } else if (scan.failed || entries.count == 0) {
        status = memos_fail(err, MEMOS_CORRUPT,
            "tokenizer.json: model.vocab: after %zu tokens, no text with an id from 0 to %u",
            entries.count, PARAMEM_TOKEN_ID_MAX);
    } else {
        status = paramem_tokenizer_tokens(tokenizer, entries.at, entries.count, err);
    }
    free(entries.at);
    return status;
}

/* ---- merges -------------------------------------------------------------------------------- */

/* One merge into `texts`: both parts without anything between. Returns the left part's bytes; 0: it
 * is no pair of texts. */
static size_t merge_read(struct paramem_scan *scan, struct memos_buffer *texts)
{
    memos_buffer_reset(texts);
    if (paramem_scan_has(scan, '[')) {
        size_t left = paramem_scan_string(scan, texts);
        paramem_scan_expect(scan, ',');
        size_t right = paramem_scan_string(scan, texts);
        paramem_scan_expect(scan, ']');
        return right > 0 ? left : 0;
    }
    size_t size = paramem_scan_string(scan, texts);
    uint8_t *at = texts->data, *blank = size > 0 ? memchr(at, ' ', size) : NULL;
    size_t left = blank ? (size_t)(blank - at) : 0, right = blank ? size - left - 1 : 0;
    if (left == 0 || right == 0 || memchr(blank + 1, ' ', right)) {
        return 0;
    }
    memmove(blank, blank + 1, right);
    texts->size--;
    return left;
}

struct paramem_merges paramem_merges_of(struct paramem_tokenizer *tokenizer)
{
    return (struct paramem_merges){
        .tokenizer = tokenizer, .keys = memos_buffer_make((size_t)1 << 27)};
}

void paramem_merges_free(struct paramem_merges *merges)
{
    memos_buffer_free(&merges->keys);
}

/* What is written becomes a key. */
static void query_make(
    struct paramem_merges *merges, struct memos_bytes written, struct paramem_lexicon_query *out)
{
    size_t at = merges->keys.size, size = written.size;
    uint8_t *room = memos_buffer_take(&merges->keys, size);
    bool bytes = merges->tokenizer->bytes;
    if (!room) {
        return;
    }
    bool plain = !bytes || !paramem_bytelevel_read(written, room, &size);
    if (plain) {
        size = written.size;
        memcpy(room, written.data, size);
    }
    merges->keys.size = at + size;
    *out = (struct paramem_lexicon_query){
        .key = {(uint32_t)at, (uint32_t)size}, .plain = plain && bytes};
}

enum memos_status paramem_merges_add(struct paramem_merges *merges, struct memos_bytes texts,
    size_t left_size, struct memos_error *err)
{
    const uint8_t *at = texts.data;
    struct paramem_lexicon_query *query = &merges->queries[3 * merges->count];
    query_make(merges, memos_bytes_make(at, left_size), &query[0]);
    query_make(merges, memos_bytes_make(at + left_size, texts.size - left_size), &query[1]);
    if (merges->keys.failed || query[0].plain || query[1].plain) {
        query_make(merges, texts, &query[2]);
    } else { /* one behind the other they are its key, too */
        query[2] = (struct paramem_lexicon_query){
            .key = {query[0].key.at, query[0].key.size + query[1].key.size}};
    }
    if (merges->keys.failed) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for merges");
    }
    merges->count++;
    return merges->count < PARAMEM_MERGES_AT_ONCE ? MEMOS_OK : paramem_merges_flush(merges, err);
}

enum memos_status paramem_merges_flush(struct paramem_merges *merges, struct memos_error *err)
{
    struct paramem_tokenizer *tokenizer = merges->tokenizer;
    const struct paramem_lexicon_query *query = merges->queries;
    uint32_t words[3 * PARAMEM_MERGES_AT_ONCE];
    if (merges->count == 0) {
        return MEMOS_OK;
    }
    paramem_lexicon_find_all(
        &tokenizer->lexicon, merges->keys.data, merges->queries, 3 * merges->count);
    for (size_t i = 0; i < 3 * merges->count; i++) {
        words[i] = query[i].id;
        if (words[i] == PARAMEM_TOKEN_NONE) {
            return memos_fail(err, MEMOS_CORRUPT,
                "merge %zu of the tokenizer names what is no token", merges->rank + i / 3);
        }
    }
    for (size_t i = 0; i < merges->count; i++) {
        paramem_bpe_expect(&tokenizer->bpe, words[3 * i], words[3 * i + 1]);
    }
    for (size_t i = 0; i < merges->count; i++) {
        paramem_bpe_pair(&tokenizer->bpe, words[3 * i], words[3 * i + 1],
            merges->rank + (uint32_t)i, words[3 * i + 2]);
    }
    paramem_tokenizer_hash(
        tokenizer, "", memos_bytes_make(words, 3 * merges->count * sizeof *words));
    merges->rank += (uint32_t)merges->count;
    merges->count = 0;
    memos_buffer_reset(&merges->keys);
    return MEMOS_OK;
}

static bool version_line(const struct memos_buffer *texts)
{
    return texts->size >= 8 && memcmp(texts->data, "#version", 8) == 0;
}

static enum memos_status merges_add_all(
    struct paramem_merges *merges, struct paramem_scan *scan, struct memos_error *err)
{
    struct memos_buffer texts = memos_buffer_make((size_t)1 << 20);
    enum memos_status status = MEMOS_OK;
    size_t read = 0;
    do {
        size_t left = merge_read(scan, &texts);
        if (scan->failed || (left == 0 && !version_line(&texts))) {
            status = memos_fail(
                err, MEMOS_CORRUPT, "tokenizer.json: merge %zu is no pair of texts", read);
        } else if (left > 0 && !version_line(&texts)) {
            status = paramem_merges_add(merges, memos_buffer_view(&texts), left, err);
            read++;
        }
    } while (status == MEMOS_OK && paramem_scan_has(scan, ','));
    memos_buffer_free(&texts);
    return status == MEMOS_OK ? paramem_merges_flush(merges, err) : status;
}

static enum memos_status merges_read(
    struct paramem_tokenizer *tokenizer, struct memos_bytes json, struct memos_error *err)
{
    struct paramem_scan scan = paramem_scan_of(json);
    enum memos_status status = MEMOS_OK;
    paramem_scan_expect(&scan, '[');
    if (!paramem_scan_has(&scan, ']')) {
        struct paramem_merges merges = paramem_merges_of(tokenizer);
        status = merges_add_all(&merges, &scan, err);
        paramem_merges_free(&merges);
        paramem_scan_expect(&scan, ']');
    }
    if (status == MEMOS_OK && scan.failed) {
        status = memos_fail(err, MEMOS_CORRUPT, "tokenizer.json: merges without an end");
    }
    return status;
}

/* ---- symbols of bytes ---------------------------------------------------------------------- */

static void byte_ids_find(struct paramem_tokenizer *tokenizer)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint8_t one = (uint8_t)byte;
        char name[8];
        int size = snprintf(name, sizeof name, "<0x%02X>", byte);
        struct memos_bytes key =
            tokenizer->bytes ? memos_bytes_make(&one, 1) : memos_bytes_make(name, (size_t)size);
        tokenizer->bpe.byte_ids[byte] = paramem_lexicon_find(&tokenizer->lexicon, key, false);
    }
}

static void tokens_hash(struct paramem_tokenizer *tokenizer)
{
    for (size_t id = 0; id < tokenizer->lexicon.ids_end; id++) {
        const struct paramem_lexicon_token *token = &tokenizer->lexicon.tokens[id];
        if (token->flags) {
            uint32_t words[2] = {(uint32_t)id, token->written.size};
            paramem_tokenizer_hash(tokenizer, "", memos_bytes_make(words, sizeof words));
            paramem_tokenizer_hash(
                tokenizer, "", paramem_lexicon_view(&tokenizer->lexicon, token->written));
        }
    }
}

enum memos_status paramem_tokenizer_tokens(struct paramem_tokenizer *tokenizer,
    const struct paramem_entry *entries, size_t count, struct memos_error *err)
{
    enum memos_status status =
        paramem_lexicon_build(&tokenizer->lexicon, entries, count, tokenizer->bytes, err);
    if (status == MEMOS_OK) {
        tokens_hash(tokenizer);
    }
    return status;
}

enum memos_status paramem_tokenizer_merges(
    struct paramem_tokenizer *tokenizer, size_t pairs_max, struct memos_error *err)
{
    enum memos_status status =
        paramem_bpe_init(&tokenizer->bpe, &tokenizer->lexicon, pairs_max, err);
    if (status == MEMOS_OK) {
        tokenizer->bpe.bytes = tokenizer->bytes;
        byte_ids_find(tokenizer);
    }
    return status;
}

enum memos_status paramem_tokenizer_model(struct paramem_tokenizer *tokenizer,
    struct memos_bytes vocab, struct memos_bytes merges, size_t merges_max, struct memos_error *err)
{
    paramem_lexicon_init(&tokenizer->lexicon, PARAMEM_POOL_MAX);
    enum memos_status status = vocab_read(tokenizer, vocab, err);
    if (status == MEMOS_OK) {
        status = paramem_tokenizer_merges(tokenizer, merges_max, err);
    }
    return status == MEMOS_OK ? merges_read(tokenizer, merges, err) : status;
}
