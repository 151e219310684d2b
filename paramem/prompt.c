#include "paramem/prompt.h"

#include <stdlib.h>
#include <string.h>

static struct memos_bytes part_of(struct memos_bytes text, size_t begin, size_t end)
{
    memos_assert(begin <= end && end <= text.size);
    return memos_bytes_make(text.size > 0 ? (const char *)text.data + begin : NULL, end - begin);
}

/* Does the tokenizer read a special token in it? */
static enum memos_status holds_special(const struct paramem_tokenizer *tokenizer,
    struct memos_bytes part, bool *out, struct memos_error *err)
{
    struct paramem_ids ids = {0};
    enum memos_status status = paramem_tokenizer_encode(tokenizer, part, 0, &ids, err);
    *out = false;
    for (size_t i = 0; i < ids.count && status == MEMOS_OK && !*out; i++) {
        *out = paramem_tokenizer_special(tokenizer, ids.ids[i]);
    }
    free(ids.ids);
    return status;
}

static enum memos_status append(const struct paramem_tokenizer *tokenizer, struct memos_bytes part,
    unsigned flags, struct paramem_ids *out, struct memos_error *err)
{
    struct paramem_ids ids = {0};
    if (part.size == 0) {
        return MEMOS_OK;
    }
    enum memos_status status = paramem_tokenizer_encode(tokenizer, part, flags, &ids, err);
    if (status == MEMOS_OK && ids.count > 0) {
        uint32_t *grown = realloc(out->ids, (out->count + ids.count) * sizeof *grown);
        if (grown) {
            memcpy(grown + out->count, ids.ids, ids.count * sizeof *grown);
            out->ids = grown;
            out->count += ids.count;
        } else {
            status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for the ids of a prompt");
        }
    }
    free(ids.ids);
    return status;
}

static enum memos_status encode_parts(const struct paramem_tokenizer *tokenizer,
    struct memos_bytes text, const struct paramem_span *plain, size_t plain_count,
    struct paramem_ids *out, struct memos_error *err)
{
    struct paramem_ids ids = {0};
    enum memos_status status = MEMOS_OK;
    size_t at = 0;
    for (size_t i = 0; i < plain_count && status == MEMOS_OK; i++) {
        status = append(tokenizer, part_of(text, at, plain[i].begin), 0, &ids, err);
        if (status == MEMOS_OK) {
            status = append(tokenizer, part_of(text, plain[i].begin, plain[i].end),
                PARAMEM_PLAIN_TEXT, &ids, err);
        }
        at = plain[i].end;
    }
    if (status == MEMOS_OK) {
        status = append(tokenizer, part_of(text, at, text.size), 0, &ids, err);
    }
    if (status == MEMOS_OK) {
        *out = ids;
    } else {
        free(ids.ids);
    }
    return status;
}

enum memos_status paramem_prompt_encode(const struct paramem_tokenizer *tokenizer,
    struct memos_bytes text, const struct paramem_span *plain, size_t plain_count,
    struct paramem_ids *out, struct memos_error *err)
{
    bool is_forged = false;
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; i < plain_count && status == MEMOS_OK && !is_forged; i++) {
        status =
            holds_special(tokenizer, part_of(text, plain[i].begin, plain[i].end), &is_forged, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    return is_forged ? encode_parts(tokenizer, text, plain, plain_count, out, err)
                     : paramem_tokenizer_encode(tokenizer, text, 0, out, err);
}
