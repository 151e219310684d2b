/* Vocabulary and merges out of tokenizer.json, and what follows from a tokenizer's parts. */
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

static size_t items_count(struct memos_bytes array)
{
    struct paramem_scan scan = paramem_scan_of(array);
    size_t count = 0;
    paramem_scan_expect(&scan, '[');
    while (!scan.failed && paramem_scan_skip(&scan).size > 0) {
        count++;
        if (!paramem_scan_has(&scan, ',')) {
            break;
        }
    }
    return count;
}

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

bool paramem_tokenizer_merge(
    struct paramem_tokenizer *tokenizer, struct memos_bytes texts, size_t left_size, uint32_t rank)
{
    const uint8_t *at = texts.data;
    const struct paramem_lexicon *lexicon = &tokenizer->lexicon;
    bool bytes = tokenizer->bytes;
    uint32_t left = paramem_lexicon_find_written(lexicon, memos_bytes_make(at, left_size), bytes);
    uint32_t right = paramem_lexicon_find_written(
        lexicon, memos_bytes_make(at + left_size, texts.size - left_size), bytes);
    uint32_t made = paramem_lexicon_find_written(lexicon, texts, bytes);
    if (left == PARAMEM_TOKEN_NONE || right == PARAMEM_TOKEN_NONE || made == PARAMEM_TOKEN_NONE) {
        return false;
    }
    uint32_t words[3] = {left, right, made};
    paramem_tokenizer_hash(tokenizer, "", memos_bytes_make(words, sizeof words));
    paramem_bpe_pair(&tokenizer->bpe, left, right, rank, made);
    return true;
}

static bool version_line(const struct memos_buffer *texts)
{
    return texts->size >= 8 && memcmp(texts->data, "#version", 8) == 0;
}

static enum memos_status merges_read(
    struct paramem_tokenizer *tokenizer, struct memos_bytes merges, struct memos_error *err)
{
    struct memos_buffer texts = memos_buffer_make((size_t)1 << 20);
    struct paramem_scan scan = paramem_scan_of(merges);
    enum memos_status status = MEMOS_OK;
    uint32_t rank = 0;
    paramem_scan_expect(&scan, '[');
    bool more = !paramem_scan_has(&scan, ']'), any = more;
    for (; more && status == MEMOS_OK; more = paramem_scan_has(&scan, ',')) {
        size_t left = merge_read(&scan, &texts);
        if (scan.failed || (left == 0 && !version_line(&texts))) {
            status = memos_fail(
                err, MEMOS_CORRUPT, "tokenizer.json: merge %u is no pair of texts", rank);
        } else if (left > 0 && !version_line(&texts)) {
            if (!paramem_tokenizer_merge(tokenizer, memos_buffer_view(&texts), left, rank++)) {
                status = memos_fail(err, MEMOS_CORRUPT,
                    "tokenizer.json: merge %u of \"%.*s\" names what is no token", rank - 1,
                    texts.size < 40 ? (int)texts.size : 40, (const char *)texts.data);
            }
        }
    }
    if (status == MEMOS_OK) {
        if (any) {
            paramem_scan_expect(&scan, ']');
        }
        if (scan.failed) {
            status = memos_fail(err, MEMOS_CORRUPT, "tokenizer.json: merges without an end");
        }
    }
    memos_buffer_free(&texts);
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
    struct memos_bytes vocab, struct memos_bytes merges, struct memos_error *err)
{
    paramem_lexicon_init(&tokenizer->lexicon, PARAMEM_POOL_MAX);
    enum memos_status status = vocab_read(tokenizer, vocab, err);
    if (status == MEMOS_OK) {
        status = paramem_tokenizer_merges(tokenizer, items_count(merges), err);
    }
    return status == MEMOS_OK ? merges_read(tokenizer, merges, err) : status;
}
