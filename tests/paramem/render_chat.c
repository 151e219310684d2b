/* Chat templates rendered for a script to compare (tools/golden/fork_chat.py): one JSON object a
 * line in, one out.
 *
 * In: {"template", "conversations": [{"messages", "tools", "prompt", "no_thinking"}], "date"}. Out:
 * {"digest", "name" (null: refused), "error", "texts": [a text, or null where it is refused]}. */
#include "paramem/chat_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *render(const struct paramem_chat *chat, const json_t *line, const json_t *what)
{
    const json_t *tools = json_object_get(what, "tools");
    struct paramem_chat_options options = {
        .tools = json_is_null(tools) ? NULL : tools,
        .generation_prompt = json_is_true(json_object_get(what, "prompt")),
        .no_thinking = json_is_true(json_object_get(what, "no_thinking")),
        .date = json_string_value(json_object_get(line, "date")),
    };
    struct memos_buffer out = memos_buffer_make((size_t)1 << 24);
    enum memos_status status = paramem_chat_render(
        chat, json_object_get(what, "messages"), &options, &out, NULL, NULL, NULL);
    json_t *text = status == MEMOS_OK
                       ? json_stringn(out.data ? (const char *)out.data : "", out.size)
                       : json_null();
    memos_buffer_free(&out);
    return text;
}

static json_t *answer(const json_t *line)
{
    const char *template = json_string_value(json_object_get(line, "template"));
    const json_t *conversations = json_object_get(line, "conversations"), *conversation;
    char digest[PARAMEM_CHAT_DIGEST_BYTES] = "", *system = NULL;
    struct paramem_chat *chat = NULL;
    struct memos_error err = {0};
    json_t *texts = json_array();
    size_t i;
    (void)paramem_chat_digest(memos_bytes_of(template), digest, &system);
    free(system);
    if (paramem_chat_open(NULL, template, "<s>", "</s>", &chat, &err) == MEMOS_OK) {
        json_array_foreach(conversations, i, conversation)
        {
            (void)json_array_append_new(texts, render(chat, line, conversation));
        }
    }
    json_t *out = json_pack("{ss, ss*, ss, so}", "digest", digest, "name",
        chat ? paramem_chat_name(chat) : NULL, "error", err.text, "texts", texts);
    paramem_chat_close(&chat);
    return out;
}

int main(void)
{
    char *text = NULL;
    size_t room = 0;
    while (getline(&text, &room, stdin) > 0) {
        json_t *line = json_loads(text, 0, NULL);
        json_t *out = answer(line);
        (void)json_dumpf(out, stdout, JSON_COMPACT);
        (void)puts("");
        (void)fflush(stdout);
        json_decref(out);
        json_decref(line);
    }
    free(text);
    return EXIT_SUCCESS;
}
