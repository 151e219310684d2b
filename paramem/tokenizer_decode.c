/* Ids into text: all at once, or as they come. */
#include "paramem/text.h"
#include "paramem/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

static const char replacement[] = "\xEF\xBF\xBD";

/* NULL: the id is out of range, or left out. *out_known tells which. */
static const struct paramem_lexicon_token *token_of(
    const struct paramem_tokenizer *tokenizer, uint32_t id, bool skip_special, bool *out_known)
{
    *out_known = id < tokenizer->lexicon.ids_end;
    if (!*out_known) {
        return NULL;
    }
    const struct paramem_lexicon_token *token = &tokenizer->lexicon.tokens[id];
    bool left_out = !token->flags || (skip_special && (token->flags & PARAMEM_TOKEN_SPECIAL));
    return left_out ? NULL : token;
}

static enum memos_status out_of_range(
    const struct paramem_tokenizer *tokenizer, uint32_t id, struct memos_error *err)
{
    return memos_fail(
        err, MEMOS_INVALID, "token %u; the vocabulary has %zu", id, tokenizer->lexicon.ids_end);
}

static enum memos_status too_large(struct memos_error *err)
{
    return memos_fail(err, MEMOS_TOO_LARGE, "a decoded text is too large");
}

static void replacements(size_t count, struct memos_buffer *out)
{
    for (size_t i = 0; i < count; i++) {
        memos_buffer_bytes(out, replacement, sizeof replacement - 1);
    }
}

/* What a token shows; the first one loses its marks where the decoder says so. */
static void token_put(const struct paramem_tokenizer *tokenizer,
    const struct paramem_lexicon_token *token, bool first, struct memos_buffer *out)
{
    struct memos_bytes shown = paramem_lexicon_view(&tokenizer->lexicon, token->shown);
    if (!first || !tokenizer->drop_first || tokenizer->blank.size == 0) {
        memos_buffer_bytes(out, shown.data, shown.size);
        return;
    }
    struct memos_bytes written = paramem_lexicon_view(&tokenizer->lexicon, token->written);
    const uint8_t *at = written.data, *end = at + written.size;
    while (at < end) {
        const uint8_t *mark =
            memmem(at, (size_t)(end - at), tokenizer->blank.data, tokenizer->blank.size);
        memos_buffer_bytes(out, at, (size_t)((mark ? mark : end) - at));
        at = mark ? mark + tokenizer->blank.size : end;
    }
}

/* ---- all at once --------------------------------------------------------------------------- */

/* Byte tokens in a row from `from` on: a text, or one U+FFFD for each when they are none. */
static void run_end(struct memos_buffer *made, size_t from)
{
    struct memos_bytes run = memos_bytes_make(made->data + from, made->size - from);
    if (made->size > from && paramem_text_valid(run) != run.size) {
        made->size = from;
        replacements(run.size, made);
    }
}

static enum memos_status decode_raw(const struct paramem_tokenizer *tokenizer, const uint32_t *ids,
    size_t count, bool skip_special, struct memos_buffer *made, struct memos_error *err)
{
    bool first = true, known = true;
    size_t run = SIZE_MAX; /* where byte tokens begin */
    for (size_t i = 0; i < count; i++) {
        const struct paramem_lexicon_token *token =
            token_of(tokenizer, ids[i], skip_special, &known);
        if (!known) {
            return out_of_range(tokenizer, ids[i], err);
        } else if (!token) {
            continue;
        }
        bool byte = tokenizer->byte_tokens && (token->flags & PARAMEM_TOKEN_BYTE);
        if (byte && run == SIZE_MAX) {
            run = made->size;
        } else if (!byte && run != SIZE_MAX) {
            run_end(made, run);
            run = SIZE_MAX;
        }
        if (tokenizer->decoder == PARAMEM_DECODE_JOINED && !first) {
            memos_buffer_u8(made, ' ');
        }
        token_put(tokenizer, token, first, made);
        first = false;
    }
    if (run != SIZE_MAX) {
        run_end(made, run);
    }
    return made->failed ? too_large(err) : MEMOS_OK;
}

enum memos_status paramem_tokenizer_decode(const struct paramem_tokenizer *tokenizer,
    const uint32_t *ids, size_t count, bool skip_special, struct memos_buffer *out,
    struct memos_error *err)
{
    struct memos_buffer made = memos_buffer_make((size_t)1 << 31);
    enum memos_status status = decode_raw(tokenizer, ids, count, skip_special, &made, err);
    if (status == MEMOS_OK) {
        struct memos_bytes text = memos_buffer_view(&made);
        if (tokenizer->strip_count > 0 && made.size > 0 && made.data[0] == ' ') {
            text = memos_bytes_make(made.data + 1, made.size - 1);
        }
        paramem_text_repair(text, out);
        if (out->failed) {
            status = too_large(err);
        }
    }
    memos_buffer_free(&made);
    return status;
}

/* ---- as they come -------------------------------------------------------------------------- */

struct paramem_stream paramem_stream_of(
    const struct paramem_tokenizer *tokenizer, bool skip_special)
{
    return (struct paramem_stream){.tokenizer = tokenizer, .skip_special = skip_special};
}

/* How many bytes at the end could be the beginning of a character: 0 to 3. */
static size_t tail_of(struct memos_bytes text)
{
    for (size_t size = 1; size <= 3 && size <= text.size; size++) {
        uint32_t code;
        const uint8_t *at = (const uint8_t *)text.data + (text.size - size);
        if ((*at & 0xC0) == 0x80) {
            continue;
        }
        bool whole = *at < 0x80 || memos_bytes_utf8_sequence(memos_bytes_make(at, size)) > 0;
        /* A maximal part that reaches the end may be completed. */
        bool part = !whole && *at >= 0xC2 && *at <= 0xF4 &&
                    paramem_char_read(memos_bytes_make(at, size), &code) == size;
        return part ? size : 0;
    }
    return 0;
}

/* Held bytes and these, as far as they are whole characters. */
static void stream_bytes(
    struct paramem_stream *stream, struct memos_bytes bytes, struct memos_buffer *room)
{
    memos_buffer_reset(room);
    memos_buffer_bytes(room, stream->held, stream->held_count);
    memos_buffer_bytes(room, bytes.data, bytes.size);
    if (room->failed) {
        return;
    }
    stream->held_count = tail_of(memos_buffer_view(room));
    room->size -= stream->held_count;
    if (stream->held_count > 0) {
        memcpy(stream->held, room->data + room->size, stream->held_count);
    }
}

/* Tell what is whole, without the blank that a text begins with. */
static void stream_tell(
    struct paramem_stream *stream, struct memos_bytes text, struct memos_buffer *out)
{
    const uint8_t *at = text.data;
    if (text.size > 0) {
        bool strip = !stream->begun && stream->tokenizer->strip_count > 0 && *at == ' ';
        paramem_text_repair(memos_bytes_make(at + strip, text.size - strip), out);
        stream->begun = true;
    }
}

/* A token of pieces that is no byte: what is held never becomes whole. */
static void stream_flush(struct paramem_stream *stream, struct memos_buffer *out)
{
    bool pieces = stream->tokenizer->decoder == PARAMEM_DECODE_PIECES;
    if (stream->held_count > 0) {
        replacements(pieces ? stream->held_count : 1, out);
        stream->begun = true;
        stream->held_count = 0;
    }
}

enum memos_status paramem_stream_next(
    struct paramem_stream *stream, uint32_t id, struct memos_buffer *out, struct memos_error *err)
{
    const struct paramem_tokenizer *tokenizer = stream->tokenizer;
    struct memos_buffer shown = memos_buffer_make((size_t)1 << 27),
                        room = memos_buffer_make((size_t)1 << 28);
    bool known;
    const struct paramem_lexicon_token *token =
        token_of(tokenizer, id, stream->skip_special, &known);
    if (!known) {
        return out_of_range(tokenizer, id, err);
    } else if (!token) {
        return MEMOS_OK;
    }
    if (tokenizer->decoder == PARAMEM_DECODE_JOINED && stream->begun) {
        memos_buffer_u8(&shown, ' ');
    }
    token_put(tokenizer, token, !stream->begun && stream->held_count == 0, &shown);
    bool byte = tokenizer->byte_tokens && (token->flags & PARAMEM_TOKEN_BYTE);
    if (tokenizer->decoder == PARAMEM_DECODE_BYTES || byte) {
        stream_bytes(stream, memos_buffer_view(&shown), &room);
        stream_tell(stream, memos_buffer_view(&room), out);
    } else {
        stream_flush(stream, out);
        stream_tell(stream, memos_buffer_view(&shown), out);
        stream->begun = stream->begun || tokenizer->strip_count == 0;
    }
    bool failed = shown.failed || room.failed || out->failed;
    memos_buffer_free(&shown);
    memos_buffer_free(&room);
    return failed ? too_large(err) : MEMOS_OK;
}

enum memos_status paramem_stream_end(
    struct paramem_stream *stream, struct memos_buffer *out, struct memos_error *err)
{
    stream_flush(stream, out);
    return out->failed ? too_large(err) : MEMOS_OK;
}
