/* ChatML and what Qwen made of it: tools in the system message, tool calls and results between
 * tags, thoughts. Each function says what its template says, in the same order. */
#include "paramem/chat_internal.h"

#include <string.h>

static void turn(struct paramem_render *render, const json_t *message)
{
    paramem_render_put(render, "<|im_start|>");
    paramem_render_plain(render, paramem_render_text(render, message, "role"));
    paramem_render_put(render, "\n");
    paramem_render_plain(render, paramem_render_text(render, message, "content"));
    paramem_render_put(render, "<|im_end|>\n");
}

static void system_turn(struct paramem_render *render, const char *system)
{
    paramem_render_put(render, "<|im_start|>system\n");
    paramem_render_put(render, system);
    paramem_render_put(render, "<|im_end|>\n");
}

void paramem_render_chatml(struct paramem_render *render)
{
    const json_t *message;
    size_t i;
    if (render->chat->system && !paramem_role_is(json_array_get(render->messages, 0), "system")) {
        system_turn(render, render->chat->system);
    }
    json_array_foreach(render->messages, i, message)
    {
        turn(render, message);
    }
    if (render->options->generation_prompt) {
        paramem_render_put(render, "<|im_start|>assistant\n");
    }
}

/* ---- tools --------------------------------------------------------------------------------- */

static void tools_put(struct paramem_render *render)
{
    const json_t *tool;
    size_t i;
    paramem_render_put(render,
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        "You are provided with function signatures within <tools></tools> XML tags:\n<tools>");
    json_array_foreach(render->options->tools, i, tool)
    {
        paramem_render_put(render, "\n");
        paramem_render_json(render, tool, 0);
    }
    paramem_render_put(render,
        "\n</tools>\n\nFor each function call, return a json object with function name and "
        "arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n"
        "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n"
        "</tool_call><|im_end|>\n");
}

/* raw: arguments that are a text stand as they are. */
static void call_put(struct paramem_render *render, const json_t *call, bool raw)
{
    const json_t *function = json_object_get(call, "function");
    call = json_is_object(function) ? function : call;
    const json_t *arguments = json_object_get(call, "arguments");
    paramem_render_put(render, "<tool_call>\n{\"name\": \"");
    paramem_render_plain(render, paramem_render_text(render, call, "name"));
    paramem_render_put(render, "\", \"arguments\": ");
    if (raw && json_is_string(arguments)) {
        paramem_render_plain(render, paramem_render_text(render, call, "arguments"));
    } else {
        paramem_render_json(render, arguments, 0);
    }
    paramem_render_put(render, "}\n</tool_call>");
}

static void result_put(struct paramem_render *render, size_t i, struct memos_bytes content)
{
    const json_t *messages = render->messages;
    if (i == 0 || !paramem_role_is(json_array_get(messages, i - 1), "tool")) {
        paramem_render_put(render, "<|im_start|>user");
    }
    paramem_render_put(render, "\n<tool_response>\n");
    paramem_render_plain(render, content);
    paramem_render_put(render, "\n</tool_response>");
    if (!paramem_role_is(json_array_get(messages, i + 1), "tool")) {
        paramem_render_put(render, "<|im_end|>\n");
    }
}

/* ---- Qwen2.5 ------------------------------------------------------------------------------- */

static void qwen25_begin(struct paramem_render *render)
{
    const json_t *first = json_array_get(render->messages, 0);
    bool system = paramem_role_is(first, "system");
    paramem_render_put(render, "<|im_start|>system\n");
    if (system) {
        paramem_render_plain(render, paramem_render_text(render, first, "content"));
    } else {
        paramem_render_put(render, render->chat->system);
    }
    if (paramem_json_true(render->options->tools)) {
        paramem_render_put(render, "\n\n");
        tools_put(render);
    } else {
        paramem_render_put(render, "<|im_end|>\n");
    }
}

static void qwen25_calls(struct paramem_render *render, const json_t *message)
{
    const json_t *calls = json_object_get(message, "tool_calls"), *call;
    size_t i;
    paramem_render_put(render, "<|im_start|>assistant");
    if (paramem_json_true(json_object_get(message, "content"))) {
        paramem_render_put(render, "\n");
        paramem_render_plain(render, paramem_render_text(render, message, "content"));
    }
    json_array_foreach(calls, i, call)
    {
        paramem_render_put(render, "\n");
        call_put(render, call, false);
    }
    paramem_render_put(render, "<|im_end|>\n");
}

void paramem_render_qwen25(struct paramem_render *render)
{
    const json_t *message;
    size_t i;
    qwen25_begin(render);
    json_array_foreach(render->messages, i, message)
    {
        bool calls = paramem_json_true(json_object_get(message, "tool_calls"));
        bool assistant = paramem_role_is(message, "assistant");
        if (paramem_role_is(message, "user") || (paramem_role_is(message, "system") && i > 0) ||
            (assistant && !calls)) {
            turn(render, message);
        } else if (assistant) {
            qwen25_calls(render, message);
        } else if (paramem_role_is(message, "tool")) {
            result_put(render, i, paramem_render_text(render, message, "content"));
        }
    }
    if (render->options->generation_prompt) {
        paramem_render_put(render, "<|im_start|>assistant\n");
    }
}

/* ---- Qwen3 --------------------------------------------------------------------------------- */

static struct memos_bytes content_of(const json_t *message)
{
    const json_t *content = json_object_get(message, "content");
    return json_is_string(content)
               ? memos_bytes_make(json_string_value(content), json_string_length(content))
               : memos_bytes_make("", 0);
}

static bool is_result(struct memos_bytes text)
{
    static const char begin[] = "<tool_response>", end[] = "</tool_response>";
    return text.size >= sizeof end - 1 && memcmp(text.data, begin, sizeof begin - 1) == 0 &&
           memcmp((const char *)text.data + text.size - (sizeof end - 1), end, sizeof end - 1) == 0;
}

/* The last thing that the user asked; thoughts before it are left out. */
static size_t last_query(const struct paramem_render *render)
{
    size_t count = json_array_size(render->messages);
    for (size_t i = count; i-- > 0;) {
        const json_t *message = json_array_get(render->messages, i);
        if (paramem_role_is(message, "user") &&
            json_is_string(json_object_get(message, "content")) &&
            !is_result(content_of(message))) {
            return i;
        }
    }
    return count - 1;
}

static const char *find(struct memos_bytes text, const char *what)
{
    return text.size ? memmem(text.data, text.size, what, strlen(what)) : NULL;
}

static struct memos_bytes after_last(struct memos_bytes text, const char *what)
{
    for (const char *at; (at = find(text, what)) != NULL;) {
        const char *end = (const char *)text.data + text.size;
        text = memos_bytes_make(at + strlen(what), (size_t)(end - at) - strlen(what));
    }
    return text;
}

/* What was thought and what was said: thoughts apart, or in the content between their tags. */
static struct memos_bytes thoughts_of(const json_t *message, struct memos_bytes *content)
{
    const json_t *apart = json_object_get(message, "reasoning_content");
    if (json_is_string(apart)) {
        return memos_bytes_make(json_string_value(apart), json_string_length(apart));
    }
    const char *stop = find(*content, "</think>");
    if (!stop) {
        return memos_bytes_make("", 0);
    }
    struct memos_bytes before =
        memos_bytes_make(content->data, (size_t)(stop - (const char *)content->data));
    before = after_last(paramem_strip_lines(before, false, true), "<think>");
    *content = paramem_strip_lines(after_last(*content, "</think>"), true, false);
    return paramem_strip_lines(before, true, false);
}

static void qwen3_answer(struct paramem_render *render, size_t i, size_t query)
{
    const json_t *message = json_array_get(render->messages, i);
    const json_t *calls = json_object_get(message, "tool_calls"), *call;
    struct memos_bytes content = content_of(message);
    struct memos_bytes thoughts = render->chat->form == PARAMEM_FORM_QWEN3_INSTRUCT
                                      ? memos_bytes_make("", 0)
                                      : thoughts_of(message, &content);
    bool last = i + 1 == json_array_size(render->messages);
    size_t index;
    paramem_render_put(render, "<|im_start|>assistant\n");
    if (i > query && (last || thoughts.size > 0) &&
        render->chat->form != PARAMEM_FORM_QWEN3_INSTRUCT) {
        paramem_render_put(render, "<think>\n");
        paramem_render_plain(render, paramem_strip_lines(thoughts, true, true));
        paramem_render_put(render, "\n</think>\n\n");
        paramem_render_plain(render, paramem_strip_lines(content, true, false));
    } else {
        paramem_render_plain(render, content);
    }
    json_array_foreach(calls, index, call)
    {
        if (index > 0 || content.size > 0) {
            paramem_render_put(render, "\n");
        }
        call_put(render, call, true);
    }
    paramem_render_put(render, "<|im_end|>\n");
}

static void qwen3_begin(struct paramem_render *render)
{
    const json_t *first = json_array_get(render->messages, 0);
    bool system = paramem_role_is(first, "system");
    bool tools = paramem_json_true(render->options->tools);
    if (!system && !tools) {
        return;
    }
    paramem_render_put(render, "<|im_start|>system\n");
    if (system) {
        paramem_render_plain(render, paramem_render_text(render, first, "content"));
    }
    if (tools) {
        paramem_render_put(render, system ? "\n\n" : "");
        tools_put(render);
    } else {
        paramem_render_put(render, "<|im_end|>\n");
    }
}

void paramem_render_qwen3(struct paramem_render *render)
{
    const json_t *message;
    size_t i, query = last_query(render);
    qwen3_begin(render);
    json_array_foreach(render->messages, i, message)
    {
        if (paramem_role_is(message, "user") || (paramem_role_is(message, "system") && i > 0)) {
            paramem_render_put(render, "<|im_start|>");
            paramem_render_plain(render, paramem_render_text(render, message, "role"));
            paramem_render_put(render, "\n");
            paramem_render_plain(render, content_of(message));
            paramem_render_put(render, "<|im_end|>\n");
        } else if (paramem_role_is(message, "assistant")) {
            qwen3_answer(render, i, query);
        } else if (paramem_role_is(message, "tool")) {
            result_put(render, i, content_of(message));
        }
    }
    if (render->options->generation_prompt) {
        paramem_render_put(render, "<|im_start|>assistant\n");
        if (render->chat->form == PARAMEM_FORM_QWEN3_THINKING) {
            paramem_render_put(render, "<think>\n");
        } else if (render->chat->form == PARAMEM_FORM_QWEN3 && render->options->no_thinking) {
            paramem_render_put(render, "<think>\n\n</think>\n\n");
        }
    }
}
