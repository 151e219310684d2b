#include "paramem/tokenizer.h"

#include "paramem/files.h"
#include "paramem/text.h"
#include "paramem/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

/* What a folder's files may have, and real ones are below. */
#define JSON_BYTES_MAX ((size_t)1 << 26)
#define CONFIG_BYTES_MAX ((size_t)1 << 22)

/* ---- open, close, describe ----------------------------------------------------------------- */

/* A file that may be missing. */
static enum memos_status read_optional(
    const char *folder, const char *name, struct memos_buffer *out, struct memos_error *err)
{
    enum memos_status status = paramem_file_read(folder, name, CONFIG_BYTES_MAX, out, err);
    if (status == MEMOS_NOT_FOUND) {
        memos_buffer_reset(out);
        return MEMOS_OK;
    }
    return status;
}

enum memos_status paramem_tokenizer_open(
    const char *folder, struct paramem_tokenizer **out, struct memos_error *err)
{
    static const char *const names[] = {
        "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"};
    struct memos_buffer json = memos_buffer_make(0), others[3] = {0};
    enum memos_status status =
        paramem_file_read(folder, "tokenizer.json", JSON_BYTES_MAX, &json, err);
    for (size_t i = 0; i < 3 && status == MEMOS_OK; i++) {
        status = read_optional(folder, names[i], &others[i], err);
    }
    if (status == MEMOS_OK) {
        struct paramem_tokenizer_files files = {memos_buffer_view(&json),
            memos_buffer_view(&others[0]), memos_buffer_view(&others[1]),
            memos_buffer_view(&others[2])};
        status = paramem_tokenizer_parse(&files, out, err);
    }
    memos_buffer_free(&json);
    for (size_t i = 0; i < 3; i++) {
        memos_buffer_free(&others[i]);
    }
    return status;
}

void paramem_tokenizer_close(struct paramem_tokenizer **tokenizer)
{
    struct paramem_tokenizer *old = *tokenizer;
    if (!old) {
        return;
    }
    for (size_t i = 0; i < PARAMEM_STEPS_MAX; i++) {
        paramem_pattern_close(&old->normals[i].pattern);
        paramem_pattern_close(&old->splits[i].pattern);
    }
    paramem_vocab_finish(&old->plain.trie);
    paramem_vocab_finish(&old->normal.trie);
    paramem_bpe_finish(&old->bpe);
    paramem_lexicon_finish(&old->lexicon);
    memos_arena_finish(&old->texts);
    free(old->added);
    free(old->chat_template);
    free(old);
    *tokenizer = NULL;
}

void paramem_tokenizer_describe(
    const struct paramem_tokenizer *tokenizer, struct paramem_tokenizer_info *out)
{
    *out = (struct paramem_tokenizer_info){
        .kind = tokenizer->bytes ? "byte-level BPE" : "SentencePiece BPE",
        .vocab = tokenizer->lexicon.ids_end,
        .bos_id = tokenizer->bos,
        .eos_id = tokenizer->eos,
        .unk_id = tokenizer->unk,
        .pad_id = tokenizer->pad,
        .chat_template = tokenizer->chat_template,
    };
    memcpy(out->digest, tokenizer->digest, sizeof out->digest);
}

struct memos_bytes paramem_tokenizer_bytes(const struct paramem_tokenizer *tokenizer, uint32_t id)
{
    if (id >= tokenizer->lexicon.ids_end || !tokenizer->lexicon.tokens[id].flags) {
        return memos_bytes_make(NULL, 0);
    }
    return paramem_lexicon_view(&tokenizer->lexicon, tokenizer->lexicon.tokens[id].shown);
}

bool paramem_tokenizer_special(const struct paramem_tokenizer *tokenizer, uint32_t id)
{
    return id < tokenizer->lexicon.ids_end &&
           (tokenizer->lexicon.tokens[id].flags & PARAMEM_TOKEN_SPECIAL);
}

uint32_t paramem_tokenizer_id(const struct paramem_tokenizer *tokenizer, struct memos_bytes token)
{
    for (size_t i = 0; i < tokenizer->added_count; i++) {
        if (memos_bytes_equal(tokenizer->added[i].text, token)) {
            return tokenizer->added[i].id;
        }
    }
    return paramem_lexicon_find_written(&tokenizer->lexicon, token, tokenizer->bytes);
}

/* ---- encode -------------------------------------------------------------------------------- */

static bool char_before(struct memos_bytes text, size_t at, size_t *out_begin, uint32_t *out_code)
{
    const uint8_t *bytes = text.data;
    size_t begin = at;
    if (at == 0) {
        return false;
    }
    do {
        begin--;
    } while (begin > 0 && (bytes[begin] & 0xC0) == 0x80);
    (void)paramem_char_read(memos_bytes_make(bytes + begin, at - begin), out_code);
    *out_begin = begin;
    return true;
}

static bool word_at(struct memos_bytes text, size_t at)
{
    uint32_t code;
    if (at == text.size) {
        return false;
    }
    (void)paramem_char_read(
        memos_bytes_make((const uint8_t *)text.data + at, text.size - at), &code);
    return paramem_char_word(code);
}

static size_t blanks_before(struct memos_bytes text, size_t at, size_t least)
{
    size_t begin;
    uint32_t code;
    while (at > least && char_before(text, at, &begin, &code) && paramem_char_space(code)) {
        at = begin;
    }
    return at > least ? at : least;
}

static size_t blanks_after(struct memos_bytes text, size_t at)
{
    uint32_t code;
    while (at < text.size) {
        size_t size = paramem_char_read(
            memos_bytes_make((const uint8_t *)text.data + at, text.size - at), &code);
        if (!paramem_char_space(code)) {
            break;
        }
        at += size;
    }
    return at;
}

/* Is the token that stands from begin to end to be cut out? */
static bool wanted(const struct paramem_encoding *encoding, const struct paramem_added_token *added,
    struct memos_bytes text, size_t begin, size_t end)
{
    size_t before;
    uint32_t code;
    if ((encoding->flags & PARAMEM_PLAIN_TEXT) && added->special) {
        return false;
    }
    if (added->single_word) {
        bool word_before = char_before(text, begin, &before, &code) && paramem_char_word(code);
        return !word_before && !word_at(text, end);
    }
    return true;
}

static enum memos_status id_put(struct paramem_encoding *encoding, uint32_t id)
{
    if (!paramem_id_list_add(&encoding->ids, &id, 1)) {
        return memos_fail(encoding->err, MEMOS_NO_MEMORY, "no memory for ids");
    }
    return MEMOS_OK;
}

/* What becomes of the text between cuts. */
typedef enum memos_status between(
    struct paramem_encoding *encoding, struct memos_bytes text, bool at_start);

/* Cut added tokens out: the longest one from the left on. */
static enum memos_status cut(struct paramem_encoding *encoding, const struct paramem_cuts *cuts,
    struct memos_bytes text, bool at_start, between *rest)
{
    const uint8_t *bytes = text.data;
    size_t done = 0, at = 0;
    enum memos_status status = MEMOS_OK;
    while (cuts->any && at < text.size && status == MEMOS_OK) {
        uint32_t index = 0;
        size_t size = 0;
        if (cuts->first[bytes[at]]) {
            size = paramem_vocab_longest(
                &cuts->trie, 0, memos_bytes_make(bytes + at, text.size - at), &index);
        }
        if (size == 0) {
            at++;
            continue;
        }
        const struct paramem_added_token *added = &encoding->tokenizer->added[index];
        size_t begin = at, end = at + size;
        at = end;
        if (!wanted(encoding, added, text, begin, end)) {
            continue;
        }
        begin = added->lstrip ? blanks_before(text, begin, done) : begin;
        end = added->rstrip ? blanks_after(text, end) : end;
        if (done < begin) {
            status =
                rest(encoding, memos_bytes_make(bytes + done, begin - done), at_start && done == 0);
        }
        if (status == MEMOS_OK) {
            status = id_put(encoding, added->id);
        }
        done = end;
    }
    if (status == MEMOS_OK && done < text.size) {
        status =
            rest(encoding, memos_bytes_make(bytes + done, text.size - done), at_start && done == 0);
    }
    return status;
}

static enum memos_status normalize_and_cut(
    struct paramem_encoding *encoding, struct memos_bytes text, bool at_start)
{
    struct memos_bytes normal;
    enum memos_status status = paramem_normalize(encoding, text, &normal);
    return status == MEMOS_OK
               ? cut(encoding, &encoding->tokenizer->normal, normal, at_start, paramem_split_words)
               : status;
}

static bool has_pattern(const struct paramem_tokenizer *tokenizer)
{
    bool has = false;
    for (size_t i = 0; i < PARAMEM_STEPS_MAX; i++) {
        has = has || tokenizer->normals[i].pattern || tokenizer->splits[i].pattern;
    }
    return has;
}

static enum memos_status encoding_begin(struct paramem_encoding *encoding, size_t text_size)
{
    size_t room = 16 * text_size + 65536;
    encoding->normal[0] = encoding->normal[1] = memos_buffer_make(room);
    for (size_t i = 0; i < PARAMEM_STEPS_MAX; i++) {
        encoding->scratch[i] = memos_buffer_make(room);
    }
    if (has_pattern(encoding->tokenizer)) {
        return paramem_pattern_room_make(&encoding->pattern_room, encoding->err);
    }
    return MEMOS_OK;
}

static void encoding_finish(struct paramem_encoding *encoding)
{
    paramem_bpe_room_finish(&encoding->bpe_room);
    paramem_pattern_room_free(&encoding->pattern_room);
    memos_buffer_free(&encoding->normal[0]);
    memos_buffer_free(&encoding->normal[1]);
    for (size_t i = 0; i < PARAMEM_STEPS_MAX; i++) {
        memos_buffer_free(&encoding->scratch[i]);
    }
    free(encoding->ids.ids);
}

static enum memos_status encode_all(struct paramem_encoding *encoding, struct memos_bytes text)
{
    const struct paramem_tokenizer *tokenizer = encoding->tokenizer;
    bool around = (encoding->flags & PARAMEM_ADD_SPECIAL) != 0;
    enum memos_status status = encoding_begin(encoding, text.size);
    for (size_t i = 0; status == MEMOS_OK && around && i < tokenizer->before_count; i++) {
        status = id_put(encoding, tokenizer->before[i]);
    }
    if (status == MEMOS_OK) {
        status = cut(encoding, &tokenizer->plain, text, true, normalize_and_cut);
    }
    for (size_t i = 0; status == MEMOS_OK && around && i < tokenizer->after_count; i++) {
        status = id_put(encoding, tokenizer->after[i]);
    }
    return status;
}

enum memos_status paramem_tokenizer_encode(const struct paramem_tokenizer *tokenizer,
    struct memos_bytes text, unsigned flags, struct paramem_ids *out, struct memos_error *err)
{
    struct paramem_encoding encoding = {.tokenizer = tokenizer, .flags = flags, .err = err};
    struct memos_buffer repaired = memos_buffer_make(3 * text.size + 1);
    enum memos_status status = MEMOS_OK;

    if (text.size > PARAMEM_TEXT_MAX) {
        return memos_fail(err, MEMOS_TOO_LARGE, "a text of %zu bytes to tokenize", text.size);
    }
    if (paramem_text_valid(text) != text.size) {
        paramem_text_repair(text, &repaired);
        text = memos_buffer_view(&repaired);
        if (repaired.failed) {
            status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for a text");
        }
    }
    if (status == MEMOS_OK) {
        status = encode_all(&encoding, text);
    }
    if (status == MEMOS_OK) {
        *out = (struct paramem_ids){encoding.ids.ids, encoding.ids.count};
        encoding.ids = (struct paramem_id_list){0};
    }
    encoding_finish(&encoding);
    memos_buffer_free(&repaired);
    return status;
}
