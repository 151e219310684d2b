/* Normalisers of the tokenizers library. */
#include "paramem/text.h"
#include "paramem/tokenizer_internal.h"
#include "paramem/unicode.h"

#include <string.h>

static void put_view(struct memos_buffer *out, struct memos_bytes view)
{
    memos_buffer_bytes(out, view.data, view.size);
}

static struct memos_bytes strip(const struct paramem_normal *normal, struct memos_bytes text)
{
    const uint8_t *at = text.data, *end = at + text.size;
    uint32_t code;
    while (normal->left && at < end) {
        size_t size = paramem_char_read(memos_bytes_make(at, (size_t)(end - at)), &code);
        if (!paramem_char_space(code)) {
            break;
        }
        at += size;
    }
    while (normal->right && at < end) {
        const uint8_t *last = end - 1;
        while (last > at && (*last & 0xC0) == 0x80) {
            last--;
        }
        (void)paramem_char_read(memos_bytes_make(last, (size_t)(end - last)), &code);
        if (!paramem_char_space(code)) {
            break;
        }
        end = last;
    }
    return memos_bytes_make(at, (size_t)(end - at));
}

static void replace_text(
    const struct paramem_normal *normal, struct memos_bytes text, struct memos_buffer *out)
{
    const uint8_t *at = text.data, *end = at + text.size;
    while (at < end) {
        const uint8_t *found = memmem(at, (size_t)(end - at), normal->text.data, normal->text.size);
        memos_buffer_bytes(out, at, (size_t)((found ? found : end) - at));
        if (found) {
            put_view(out, normal->with);
        }
        at = found ? found + normal->text.size : end;
    }
}

static enum memos_status replace_matches(struct paramem_encoding *encoding,
    const struct paramem_normal *normal, struct memos_bytes text, struct memos_buffer *out)
{
    struct paramem_pattern_walk walk = {
        .pattern = normal->pattern, .room = encoding->pattern_room, .text = text};
    size_t at = 0;
    bool found = true;
    enum memos_status status = MEMOS_OK;
    while (status == MEMOS_OK && found) {
        status = paramem_pattern_next(&walk, &found, encoding->err);
        if (status == MEMOS_OK && found) {
            memos_buffer_bytes(out, (const uint8_t *)text.data + at, walk.begin - at);
            put_view(out, normal->with);
            at = walk.end;
        }
    }
    memos_buffer_bytes(out, (const uint8_t *)text.data + at, text.size - at);
    return status;
}

/* One normaliser; *text becomes a view into `out`, or stays what it is. */
static enum memos_status apply(struct paramem_encoding *encoding,
    const struct paramem_normal *normal, struct memos_bytes *text, struct memos_buffer *out)
{
    enum memos_status status = MEMOS_OK;
    memos_buffer_reset(out);
    switch (normal->kind) {
    case PARAMEM_NORMAL_STRIP:
        *text = strip(normal, *text);
        return MEMOS_OK;
    case PARAMEM_NORMAL_PREPEND:
        put_view(out, normal->text);
        put_view(out, *text);
        break;
    case PARAMEM_NORMAL_REPLACE:
        if (normal->pattern) {
            status = replace_matches(encoding, normal, *text, out);
        } else {
            replace_text(normal, *text, out);
        }
        break;
    case PARAMEM_NORMAL_LOWER:
        paramem_text_lower(*text, out);
        break;
    case PARAMEM_NORMAL_NFC:
    case PARAMEM_NORMAL_NFD:
    case PARAMEM_NORMAL_NFKC:
    case PARAMEM_NORMAL_NFKD:
        if (paramem_text_normal(*text)) {
            return MEMOS_OK;
        }
        status = paramem_text_compose(*text,
            normal->kind == PARAMEM_NORMAL_NFKC || normal->kind == PARAMEM_NORMAL_NFKD,
            normal->kind == PARAMEM_NORMAL_NFC || normal->kind == PARAMEM_NORMAL_NFKC, out,
            encoding->err);
        break;
    }
    if (status == MEMOS_OK && out->failed) {
        status =
            memos_fail(encoding->err, MEMOS_TOO_LARGE, "a text grows too large in its tokenizer");
    }
    *text = memos_buffer_view(out);
    return status;
}

enum memos_status paramem_normalize(
    struct paramem_encoding *encoding, struct memos_bytes text, struct memos_bytes *out)
{
    const struct paramem_tokenizer *tokenizer = encoding->tokenizer;
    size_t turn = 0;
    *out = text;
    for (size_t i = 0; i < tokenizer->normals_count && out->size > 0; i++) {
        const uint8_t *before = out->data;
        enum memos_status status =
            apply(encoding, &tokenizer->normals[i], out, &encoding->normal[turn]);
        if (status != MEMOS_OK) {
            return status;
        }
        if (encoding->normal[turn].data && out->data == encoding->normal[turn].data &&
            out->data != before) {
            turn = 1 - turn;
        }
    }
    return MEMOS_OK;
}
