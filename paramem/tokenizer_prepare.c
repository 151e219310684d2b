/* What follows from a tokenizer's parts: tries, shown texts, where words may be cut, the digest. */
#include "paramem/bytelevel.h"
#include "paramem/text.h"
#include "paramem/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

static const char mark_text[] = "\xE2\x96\x81"; /* U+2581, what SentencePiece writes for a blank */

enum memos_status paramem_tokenizer_new(struct paramem_tokenizer **out, struct memos_error *err)
{
    memos_assert(sodium_init() >= 0);
    struct paramem_tokenizer *made = calloc(1, sizeof *made);
    if (!made) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a tokenizer");
    }
    memos_arena_init(&made->texts, (size_t)1 << 26);
    made->bos = made->eos = made->unk = made->pad = PARAMEM_TOKEN_NONE;
    made->bpe.unknown = PARAMEM_TOKEN_NONE;
    (void)crypto_generichash_init(&made->hash, NULL, 0, sizeof made->digest);
    paramem_tokenizer_hash(made, "bpe 1", memos_bytes_make(NULL, 0)); /* the digest's layout */
    *out = made;
    return MEMOS_OK;
}

void paramem_tokenizer_hash(
    struct paramem_tokenizer *tokenizer, const char *what, struct memos_bytes bytes)
{
    if (*what) {
        uint64_t size = bytes.size;
        (void)crypto_generichash_update(
            &tokenizer->hash, (const unsigned char *)what, strlen(what) + 1);
        (void)crypto_generichash_update(
            &tokenizer->hash, (const unsigned char *)&size, sizeof size);
    }
    if (bytes.size > 0) {
        (void)crypto_generichash_update(&tokenizer->hash, bytes.data, bytes.size);
    }
}

/* ---- splits -------------------------------------------------------------------------------- */

const char paramem_pattern_gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

enum memos_status paramem_tokenizer_split(struct paramem_tokenizer *tokenizer, const char *pattern,
    enum paramem_split_behavior behavior, struct memos_error *err)
{
    if (tokenizer->splits_count == PARAMEM_STEPS_MAX) {
        return memos_fail(err, MEMOS_TOO_LARGE, "more than %d pre-tokenizers", PARAMEM_STEPS_MAX);
    }
    struct paramem_split *split = &tokenizer->splits[tokenizer->splits_count++];
    split->kind = PARAMEM_SPLIT_PATTERN;
    split->behavior = behavior;
    return paramem_pattern_open(memos_bytes_of(pattern), &split->pattern, err);
}

/* ---- added tokens -------------------------------------------------------------------------- */

enum memos_status paramem_tokenizer_add(
    struct paramem_tokenizer *tokenizer, struct paramem_added_token added, struct memos_error *err)
{
    if (tokenizer->added_count == PARAMEM_ADDED_MAX) {
        return memos_fail(err, MEMOS_TOO_LARGE, "more than %d added tokens", PARAMEM_ADDED_MAX);
    } else if ((tokenizer->added_count & (tokenizer->added_count - 1)) == 0) {
        size_t capacity = tokenizer->added_count ? 2 * tokenizer->added_count : 1;
        struct paramem_added_token *grown = realloc(tokenizer->added, capacity * sizeof *grown);
        if (!grown) {
            return memos_fail(err, MEMOS_NO_MEMORY, "no memory for added tokens");
        }
        tokenizer->added = grown;
    }
    void *kept = memos_arena_copy(&tokenizer->texts, added.text);
    if (!kept) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for added tokens");
    }
    added.text.data = kept;
    tokenizer->added[tokenizer->added_count++] = added;
    uint32_t words[2] = {
        added.id, (uint32_t)(added.lstrip | added.rstrip << 1 | added.single_word << 2 |
                             added.normalized << 3 | added.special << 4)};
    paramem_tokenizer_hash(tokenizer, "added", added.text);
    paramem_tokenizer_hash(tokenizer, "", memos_bytes_make(words, sizeof words));
    return paramem_lexicon_name(&tokenizer->lexicon, added.id, added.text,
        PARAMEM_TOKEN_ADDED | (added.special ? PARAMEM_TOKEN_SPECIAL : 0), err);
}

/* The text to look for: normalised where that is wanted. */
static enum memos_status cut_add(struct paramem_tokenizer *tokenizer,
    struct paramem_encoding *encoding, uint32_t index, struct memos_error *err)
{
    struct paramem_added_token *added = &tokenizer->added[index];
    struct paramem_cuts *cuts = added->normalized ? &tokenizer->normal : &tokenizer->plain;
    struct memos_bytes text = added->text;
    if (added->normalized) {
        enum memos_status status = paramem_normalize(encoding, text, &text);
        if (status != MEMOS_OK) {
            return status;
        }
    }
    if (text.size > added->text.size + PARAMEM_STEP_TEXT_MAX) {
        return memos_fail(err, MEMOS_TOO_LARGE, "an added token grows too large");
    }
    if (!memos_bytes_equal(text, added->text) && /* it decodes to that, too */
        !paramem_lexicon_keep(
            &tokenizer->lexicon, text, &tokenizer->lexicon.tokens[added->id].shown)) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for added tokens");
    }
    paramem_vocab_add(&cuts->trie, text, index);
    if (text.size > 0) {
        cuts->first[*(const uint8_t *)text.data] = true;
        cuts->any = true;
    }
    return MEMOS_OK;
}

static enum memos_status cuts_make(struct paramem_tokenizer *tokenizer, struct memos_error *err)
{
    struct paramem_encoding encoding = {.tokenizer = tokenizer, .err = err};
    size_t total = 0;
    for (size_t i = 0; i < tokenizer->added_count; i++) {
        total += tokenizer->added[i].text.size + PARAMEM_STEP_TEXT_MAX;
    }
    if (total > PARAMEM_VOCAB_BYTES_MAX) {
        return memos_fail(err, MEMOS_TOO_LARGE, "added tokens of %zu bytes", total);
    }
    enum memos_status status = paramem_vocab_init(&tokenizer->plain.trie, total, err);
    if (status == MEMOS_OK) {
        status = paramem_vocab_init(&tokenizer->normal.trie, total, err);
    }
    if (status == MEMOS_OK) {
        status = paramem_pattern_room_make(&encoding.pattern_room, err);
    }
    encoding.normal[0] = encoding.normal[1] = memos_buffer_make((size_t)1 << 24);
    for (uint32_t i = 0; i < tokenizer->added_count && status == MEMOS_OK; i++) {
        status = cut_add(tokenizer, &encoding, i, err);
    }
    paramem_pattern_room_free(&encoding.pattern_room);
    memos_buffer_free(&encoding.normal[0]);
    memos_buffer_free(&encoding.normal[1]);
    return status;
}

/* ---- what tokens show ---------------------------------------------------------------------- */

static uint32_t hex_of(uint8_t c)
{
    return c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
           : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
           : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                                  : 16;
}

/* "<0x41>" is 0x41; 256: it is no byte token. */
static uint32_t byte_token(struct memos_bytes written)
{
    const uint8_t *at = written.data;
    if (written.size != 6 || memcmp(at, "<0x", 3) != 0 || at[5] != '>') {
        return 256;
    }
    uint32_t high = hex_of(at[3]), low = hex_of(at[4]);
    return high > 15 || low > 15 ? 256 : high << 4 | low;
}

static void put_blanks(
    const struct paramem_tokenizer *tokenizer, struct memos_bytes written, struct memos_buffer *out)
{
    const uint8_t *at = written.size ? written.data : (const uint8_t *)"";
    const uint8_t *end = at + written.size;
    struct memos_bytes blank = tokenizer->blank;
    while (at < end) {
        const uint8_t *found =
            blank.size ? memmem(at, (size_t)(end - at), blank.data, blank.size) : NULL;
        memos_buffer_bytes(out, at, (size_t)((found ? found : end) - at));
        if (found) {
            memos_buffer_u8(out, ' ');
        }
        at = found ? found + blank.size : end;
    }
}

/* The token's text in `made`. */
static void show(struct paramem_tokenizer *tokenizer, struct paramem_lexicon_token *token,
    struct memos_bytes written, struct memos_buffer *made)
{
    uint32_t byte = tokenizer->byte_tokens ? byte_token(written) : 256;
    memos_buffer_reset(made);
    if (tokenizer->decoder == PARAMEM_DECODE_BYTES) {
        size_t size = 0;
        uint8_t *room = memos_buffer_take(made, written.size);
        bool whole = room && paramem_bytelevel_read(written, room, &size);
        if (room && !whole) {
            memcpy(room, written.data, written.size);
        }
        made->size = room && whole ? size : made->size;
    } else if (tokenizer->decoder == PARAMEM_DECODE_PIECES && byte < 256) {
        token->flags |= PARAMEM_TOKEN_BYTE;
        memos_buffer_u8(made, (uint8_t)byte);
    } else if (tokenizer->decoder == PARAMEM_DECODE_PIECES) {
        put_blanks(tokenizer, written, made);
    } else {
        memos_buffer_bytes(made, written.data, written.size);
    }
}

static enum memos_status shown_make(struct paramem_tokenizer *tokenizer, struct memos_error *err)
{
    struct memos_buffer written = memos_buffer_make((size_t)1 << 26),
                        made = memos_buffer_make((size_t)1 << 26);
    struct paramem_lexicon *lexicon = &tokenizer->lexicon;
    bool kept = true;
    for (size_t id = 0; id < lexicon->ids_end && kept; id++) {
        struct paramem_lexicon_token *token = &lexicon->tokens[id];
        struct memos_bytes shown = paramem_lexicon_view(lexicon, token->shown), text;
        bool added = (token->flags & PARAMEM_TOKEN_ADDED) != 0;
        if (!token->flags ||
            (tokenizer->decoder == PARAMEM_DECODE_BYTES && tokenizer->bytes && !added)) {
            continue; /* its key is what it shows */
        }
        text = added ? shown : paramem_lexicon_view(lexicon, token->written);
        memos_buffer_reset(&written); /* the pool may move */
        memos_buffer_bytes(&written, text.data, text.size);
        show(tokenizer, token, memos_buffer_view(&written), &made);
        if (!memos_bytes_equal(memos_buffer_view(&made), shown)) {
            kept = paramem_lexicon_keep(lexicon, memos_buffer_view(&made), &token->shown);
        }
        kept = kept && !made.failed && !written.failed;
    }
    memos_buffer_free(&written);
    memos_buffer_free(&made);
    return kept ? MEMOS_OK : memos_fail(err, MEMOS_NO_MEMORY, "no memory for a vocabulary");
}

/* ---- where words may be cut ---------------------------------------------------------------- */

static bool mark_inside(struct memos_bytes text)
{
    const uint8_t *at = text.data, *end = at + text.size;
    size_t size = sizeof mark_text - 1;
    while ((size_t)(end - at) >= size && memcmp(at, mark_text, size) == 0) {
        at += size;
    }
    return at < end && memmem(at, (size_t)(end - at), mark_text, size) != NULL;
}

/* Symbols must not depend on neighbours either: no unknown ones that are fused. */
static void mark_find(struct paramem_tokenizer *tokenizer)
{
    const struct paramem_bpe *bpe = &tokenizer->bpe;
    bool good = !tokenizer->bytes && !bpe->whole;
    for (size_t byte = 0; byte < 256 && bpe->unknown != PARAMEM_TOKEN_NONE; byte++) {
        good = good && bpe->fallback && bpe->byte_ids[byte] != PARAMEM_TOKEN_NONE;
    }
    for (size_t i = 0; good && i <= SIZE_MAX >> bpe->shift; i++) {
        const struct paramem_pair *pair = &bpe->pairs[i];
        good = pair->key == UINT64_MAX || !mark_inside(paramem_lexicon_view(&tokenizer->lexicon,
                                              tokenizer->lexicon.tokens[pair->made].key));
    }
    if (good) {
        tokenizer->mark = memos_bytes_of(mark_text);
    }
}

enum memos_status paramem_tokenizer_prepare(
    struct paramem_tokenizer *tokenizer, struct memos_error *err)
{
    enum memos_status status = cuts_make(tokenizer, err);
    if (status == MEMOS_OK) {
        status = shown_make(tokenizer, err);
    }
    if (status == MEMOS_OK) {
        mark_find(tokenizer);
        (void)crypto_generichash_final(
            &tokenizer->hash, tokenizer->digest, sizeof tokenizer->digest);
    }
    return status;
}
