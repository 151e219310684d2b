/* Tokens: the ids of a text and the pieces that they stand for, and back. */
#include "tools/memosctl/host.h"
#include "tools/memosctl/input.h"
#include "tools/memosctl/text.h"

#include <stdlib.h>
#include <string.h>

/* ---- there ---------------------------------------------------------------------------------- */

static enum memos_status print_json(const struct paramem_tokenizer *tokenizer,
    const struct paramem_ids *ids, size_t bytes, struct memos_error *err)
{
    json_t *items = json_array();
    for (size_t i = 0; i < ids->count && items; i++) {
        (void)json_array_append_new(
            items, json_pack("{sI,so,sb}", "id", (json_int_t)ids->ids[i], "piece",
                       ctl_json_text(paramem_tokenizer_bytes(tokenizer, ids->ids[i])), "special",
                       (int)paramem_tokenizer_special(tokenizer, ids->ids[i])));
    }
    return ctl_json_print(json_pack("{sI,sI,so}", "count", (json_int_t)ids->count, "bytes",
                              (json_int_t)bytes, "tokens", items),
        err);
}

static void print_ids(const struct paramem_ids *ids)
{
    for (size_t i = 0; i < ids->count; i++) {
        printf("%s%u", i > 0 ? " " : "", ids->ids[i]);
    }
    putchar('\n');
}

/* A piece in quotes, so that its blanks are seen. */
static void print_pieces(
    struct ctl *ctl, const struct paramem_tokenizer *tokenizer, const struct paramem_ids *ids)
{
    struct memos_buffer clean = memos_buffer_make(0);
    for (size_t i = 0; i < ids->count; i++) {
        bool is_special = paramem_tokenizer_special(tokenizer, ids->ids[i]);
        clean = memos_buffer_make((size_t)1 << 20);
        ctl_text_piece(&clean, paramem_tokenizer_bytes(tokenizer, ids->ids[i]));
        printf("%8u  %s\"%.*s\"%s\n", ids->ids[i],
            ctl_style_on(&ctl->paper, is_special ? CTL_YELLOW : CTL_PLAIN), (int)clean.size,
            clean.data ? (const char *)clean.data : "", ctl_style_off(&ctl->paper));
        memos_buffer_free(&clean);
    }
}

static enum memos_status encode(struct ctl *ctl, const struct paramem_tokenizer *tokenizer,
    struct memos_bytes text, struct memos_error *err)
{
    unsigned flags =
        ctl_args_has(ctl->args, CTL_NO_SPECIAL) ? PARAMEM_PLAIN_TEXT : PARAMEM_ADD_SPECIAL;
    struct paramem_ids ids = {0};
    enum memos_status status = paramem_tokenizer_encode(tokenizer, text, flags, &ids, err);
    if (status == MEMOS_OK && ctl->json) {
        status = print_json(tokenizer, &ids, text.size, err);
    } else if (status == MEMOS_OK && ctl_args_has(ctl->args, CTL_IDS)) {
        print_ids(&ids);
    } else if (status == MEMOS_OK) {
        print_pieces(ctl, tokenizer, &ids);
        ctl_note(ctl, "%zu tokens, %.2f bytes each", ids.count,
            ids.count > 0 ? (double)text.size / (double)ids.count : 0.0);
    }
    free(ids.ids);
    return status;
}

/* ---- and back ------------------------------------------------------------------------------- */

/* Numbers between blanks or commas; brackets around them do no harm. */
static enum memos_status read_ids(
    struct ctl *ctl, struct memos_bytes text, struct paramem_ids *out, struct memos_error *err)
{
    char *copy = memos_arena_copy(&ctl->arena, text), *word, *rest = copy;
    uint32_t *ids = memos_arena_take(&ctl->arena, text.size / 2 + 1, sizeof *ids);
    size_t count = 0;
    if (!copy || !ids) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for the ids");
    }
    while ((word = strsep(&rest, " \t\r\n,[]"))) {
        uint64_t id;
        if (word[0] == '\0') {
            continue;
        }
        if (!ctl_number_parse(word, UINT32_MAX, &id)) {
            return memos_fail(err, MEMOS_INVALID, "'%.40s' is no id of a token", word);
        }
        ids[count++] = (uint32_t)id;
    }
    *out = (struct paramem_ids){ids, count};
    return MEMOS_OK;
}

static enum memos_status decode(struct ctl *ctl, const struct paramem_tokenizer *tokenizer,
    struct memos_bytes text, struct memos_error *err)
{
    struct paramem_ids ids = {0};
    struct memos_buffer out = memos_buffer_make((size_t)CTL_FILE_BYTES_MAX);
    enum memos_status status = read_ids(ctl, text, &ids, err);
    if (status == MEMOS_OK) {
        status = paramem_tokenizer_decode(
            tokenizer, ids.ids, ids.count, ctl_args_has(ctl->args, CTL_NO_SPECIAL), &out, err);
    }
    if (status == MEMOS_OK && ctl->json) {
        status = ctl_json_print(json_pack("{sI,so}", "count", (json_int_t)ids.count, "text",
                                    ctl_json_text(memos_buffer_view(&out))),
            err);
    } else if (status == MEMOS_OK && ctl->paper.is_terminal) {
        ctl_paper_text(&ctl->paper, memos_buffer_view(&out), 0);
    } else if (status == MEMOS_OK && out.size > 0 &&
               fwrite(out.data, 1, out.size, stdout) != out.size) {
        status = memos_fail(err, MEMOS_IO, "cannot write to standard output");
    }
    memos_buffer_free(&out);
    return status;
}

enum memos_status ctl_run_tokenize(struct ctl *ctl, struct memos_error *err)
{
    char path[PATH_MAX];
    struct paramem_tokenizer *tokenizer = NULL;
    struct memos_buffer text = memos_buffer_make(0);
    enum memos_status status = ctl_payload_read(ctl_operand(ctl, 0), &text, err);
    if (status == MEMOS_OK) {
        status = ctl_host_path(ctl, path, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_host_tokenizer(path, &tokenizer, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_args_has(ctl->args, CTL_DECODE)
                     ? decode(ctl, tokenizer, memos_buffer_view(&text), err)
                     : encode(ctl, tokenizer, memos_buffer_view(&text), err);
    }
    ctl_host_advise(ctl, status);
    paramem_tokenizer_close(&tokenizer);
    memos_buffer_free(&text);
    return status;
}
