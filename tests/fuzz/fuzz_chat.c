/* A template, a NUL, then a conversation as JSON ({"messages", "tools"}): recognised or refused,
 * rendered or refused, and what is marked as the conversation's lies within the text. Without a
 * template that is known, every family renders it. */
#include "paramem/chat.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct paramem_chat *chat, const json_t *json)
{
    const json_t *tools = json_object_get(json, "tools");
    for (int i = 0; i < 4; i++) {
        struct memos_buffer out = memos_buffer_make((size_t)1 << 24);
        struct paramem_span *spans = NULL;
        size_t count = 0, at = 0;
        struct paramem_chat_options options = {.tools = tools,
            .generation_prompt = (i & 1) != 0,
            .no_thinking = (i & 2) != 0,
            .date = "26 Jul 2024"};
        enum memos_status status = paramem_chat_render(
            chat, json_object_get(json, "messages"), &options, &out, &spans, &count, NULL);
        memos_assert(status == MEMOS_OK || (spans == NULL && count == 0));
        for (size_t s = 0; s < count; s++) {
            memos_assert(spans[s].begin >= at && spans[s].begin < spans[s].end);
            at = spans[s].end;
        }
        memos_assert(at <= out.size);
        free(spans);
        memos_buffer_free(&out);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"chatml", "smollm2", "llama2", "llama3", "llama3.1",
        "llama3.2", "mistral-v0", "mistral-v1", "mistral-v3", "mistral-nemo", "mistral-v7",
        "qwen2.5", "qwen3", "qwen3-instruct", "qwen3-thinking"};
    const uint8_t *stop = size > 0 ? memchr(data, 0, size) : NULL;
    size_t template = stop ? (size_t)(stop - data) : 0;
    const char *text = (const char *)data + (stop ? template + 1 : 0);
    json_t *json = json_loadb(size ? text : "", size - (stop ? template + 1 : 0), 0, NULL);
    struct paramem_chat *chat = NULL;
    if (stop &&
        paramem_chat_open(NULL, (const char *)data, "<s>", "</s>", &chat, NULL) == MEMOS_OK) {
        check(chat, json);
        paramem_chat_close(&chat);
    }
    for (size_t i = 0; !stop && i < sizeof names / sizeof names[0]; i++) {
        memos_assert(paramem_chat_open(names[i], NULL, "<s>", "</s>", &chat, NULL) == MEMOS_OK);
        check(chat, json);
        paramem_chat_close(&chat);
    }
    json_decref(json);
    return 0;
}
