#include "paramem/chat.h"

enum memos_status paramem_chat_open(const char *name, const char *jinja, const char *bos,
    const char *eos, struct paramem_chat **out, struct memos_error *err)
{
    (void)name;
    (void)jinja;
    (void)bos;
    (void)eos;
    (void)out;
    return memos_fail(err, MEMOS_UNSUPPORTED, "chat templates");
}

void paramem_chat_close(struct paramem_chat **chat)
{
    *chat = NULL;
}

const char *paramem_chat_name(const struct paramem_chat *chat)
{
    (void)chat;
    return "";
}

enum memos_status paramem_chat_render(const struct paramem_chat *chat, const json_t *messages,
    const struct paramem_chat_options *options, struct memos_buffer *out,
    struct paramem_span **out_plain, size_t *out_plain_count, struct memos_error *err)
{
    (void)chat;
    (void)messages;
    (void)options;
    (void)out;
    (void)out_plain;
    (void)out_plain_count;
    return memos_fail(err, MEMOS_UNSUPPORTED, "chat templates");
}
