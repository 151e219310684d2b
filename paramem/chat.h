/* Conversations as the text that a model was taught on: the chat templates of the families,
 * recognised by what their Jinja text says and rendered exactly as transformers'
 * apply_chat_template renders them. No Jinja is run.
 *
 * Known: chatml, llama2, llama3 (3 and 3.1 to 3.3, with tools), mistral (its versions, with tools),
 * qwen2.5 and qwen3 (with tools and thinking), smollm2: the texts that are published, however they
 * are spelled (chat_template.c). Any other, also one with a word changed, is UNSUPPORTED with what
 * can be named instead.
 *
 * Threads: no shared state. */
#ifndef PARAMEM_CHAT_H
#define PARAMEM_CHAT_H

#include "proto/bytes.h"

#include <jansson.h>

struct paramem_chat; /* a template that was recognised */

/* name: a kind's name ("chatml"), which wins; else the model's own Jinja text. bos and eos: the
 * tokens as written, or "". UNSUPPORTED: not known, the message lists the names. */
MEMOS_MUST_USE enum memos_status paramem_chat_open(const char *name, const char *jinja,
    const char *bos, const char *eos, struct paramem_chat **out, struct memos_error *err);
void paramem_chat_close(struct paramem_chat **chat); /* takes NULL */
const char *paramem_chat_name(const struct paramem_chat *chat);

struct paramem_chat_options {
    const json_t *tools;    /* an array as in OpenAI's API, or NULL */
    bool generation_prompt; /* begin the assistant's answer */
    bool no_thinking;       /* qwen3: enable_thinking = False */
    const char *date;       /* llama3.1: date_string; NULL: the template's own */
};

/* messages: an array of {"role", "content", ["tool_calls", "tool_call_id", "name"]}. The text with
 * special tokens written out, appended to out; what the user wrote is inside as it is (escaping is
 * the tokenizer's: encode the segments with PARAMEM_PLAIN_TEXT where out_plain marks them: pairs of
 * begin and end, bytes of out, in the caller-freed array; NULL: not wanted). INVALID: a
 * conversation that the template refuses, with its own words. */
struct paramem_span {
    size_t begin, end;
};
MEMOS_MUST_USE enum memos_status paramem_chat_render(const struct paramem_chat *chat,
    const json_t *messages, const struct paramem_chat_options *options, struct memos_buffer *out,
    struct paramem_span **out_plain, size_t *out_plain_count, struct memos_error *err);

#endif
