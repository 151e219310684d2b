/* Llama's templates, and Mistral's, which began as theirs. */
#include "paramem/chat_internal.h"
#include "proto/clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static const char alternate[] =
    "Conversation roles must alternate user/assistant/user/assistant/...";
static const char alternate_after[] = "After the optional system message, conversation roles must "
                                      "alternate user/assistant/user/assistant/...";

static struct memos_bytes content_of(struct paramem_render *render, const json_t *message)
{
    return paramem_render_text(render, message, "content");
}

/* The system message when the conversation begins with one, else NULL; *out_first is the index of
 * the message behind it. */
static const json_t *system_of(const struct paramem_render *render, size_t *out_first)
{
    const json_t *first = json_array_get(render->messages, 0);
    bool system = paramem_role_is(first, "system");
    *out_first = system;
    return system ? first : NULL;
}

/* ---- Llama 2 ------------------------------------------------------------------------------- */

/* The whole is stripped together, so that what ends the system message is, too. */
static void llama2_user(struct paramem_render *render, const json_t *system, const json_t *message)
{
    struct memos_bytes text = content_of(render, message);
    paramem_render_put(render, render->chat->bos);
    paramem_render_put(render, "[INST] ");
    if (system) {
        paramem_render_put(render, "<<SYS>>\n");
        paramem_render_plain(render, content_of(render, system));
        paramem_render_put(render, "\n<</SYS>>");
        struct memos_bytes right = paramem_strip(text);
        size_t cut = right.size == 0 ? text.size
                                     : (size_t)((const char *)text.data + text.size -
                                                ((const char *)right.data + right.size));
        text.size -= cut;
        paramem_render_put(render, right.size > 0 ? "\n\n" : "");
        paramem_render_plain(render, right.size > 0 ? text : memos_bytes_make("", 0));
    } else {
        paramem_render_plain(render, paramem_strip(text));
    }
    paramem_render_put(render, " [/INST]");
}

void paramem_render_llama2(struct paramem_render *render)
{
    size_t first;
    const json_t *system = system_of(render, &first);
    for (size_t i = first; i < json_array_size(render->messages); i++) {
        const json_t *message = json_array_get(render->messages, i);
        bool user = paramem_role_is(message, "user");
        if (user != ((i - first) % 2 == 0)) {
            paramem_render_fail(render, "%s", alternate);
        }
        if (user) {
            llama2_user(render, i == first ? system : NULL, message);
        } else if (paramem_role_is(message, "assistant")) {
            paramem_render_put(render, " ");
            paramem_render_plain(render, paramem_strip(content_of(render, message)));
            paramem_render_put(render, " ");
            paramem_render_put(render, render->chat->eos);
        }
    }
}

/* ---- Llama 3 ------------------------------------------------------------------------------- */

static void header(struct paramem_render *render, struct memos_bytes role)
{
    paramem_render_put(render, "<|start_header_id|>");
    paramem_render_plain(render, role);
    paramem_render_put(render, "<|end_header_id|>\n\n");
}

static void llama3_turn(struct paramem_render *render, const json_t *message)
{
    header(render, paramem_render_text(render, message, "role"));
    paramem_render_plain(render, paramem_strip(content_of(render, message)));
    paramem_render_put(render, "<|eot_id|>");
}

void paramem_render_llama3(struct paramem_render *render)
{
    const json_t *message;
    size_t i;
    paramem_render_put(render, render->chat->bos);
    json_array_foreach(render->messages, i, message)
    {
        llama3_turn(render, message);
    }
    if (render->options->generation_prompt || render->chat->always_prompt) {
        paramem_render_put(render, "<|start_header_id|>assistant<|end_header_id|>\n\n");
    }
}

/* "26 Jul 2024", where the machine is. */
static void date_put(struct paramem_render *render)
{
    static const char *const months[] = {
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    char text[32] = "26 Jul 2024";
    if (render->options->date) {
        paramem_render_put(render, render->options->date);
        return;
    } else if (render->chat->form == PARAMEM_FORM_LLAMA32) {
        struct memos_clock clock = memos_clock_system();
        time_t now = (time_t)(clock.wall_us(clock.self) / 1000000);
        struct tm local = {0};
        (void)localtime_r(&now, &local);
        (void)snprintf(text, sizeof text, "%02d %s %d", local.tm_mday, months[local.tm_mon % 12],
            local.tm_year + 1900);
    }
    paramem_render_put(render, text);
}

static void llama31_begin(struct paramem_render *render, const json_t *system)
{
    paramem_render_put(render, render->chat->bos);
    paramem_render_put(render, "<|start_header_id|>system<|end_header_id|>\n\n");
    paramem_render_put(render, render->options->tools ? "Environment: ipython\n" : "");
    paramem_render_put(render, "Cutting Knowledge Date: December 2023\nToday Date: ");
    date_put(render);
    paramem_render_put(render, "\n\n");
    if (system) {
        paramem_render_plain(render, paramem_strip(content_of(render, system)));
    }
    paramem_render_put(render, "<|eot_id|>");
}

/* Tools go before what the user says first. */
static void llama31_tools(struct paramem_render *render, const json_t *message)
{
    const json_t *tool;
    size_t i;
    if (!message) {
        paramem_render_fail(render, "Cannot put tools in the first user message when there's no "
                                    "first user message!");
        return;
    }
    paramem_render_put(render,
        "<|start_header_id|>user<|end_header_id|>\n\n"
        "Given the following functions, please respond with a JSON for a function call with its "
        "proper arguments that best answers the given prompt.\n\n"
        "Respond in the format {\"name\": function name, \"parameters\": dictionary of argument "
        "name and its value}.Do not use variables.\n\n");
    json_array_foreach(render->options->tools, i, tool)
    {
        paramem_render_json(render, tool, 4);
        paramem_render_put(render, "\n\n");
    }
    paramem_render_plain(render, paramem_strip(content_of(render, message)));
    paramem_render_put(render, "<|eot_id|>");
}

static void llama31_call(struct paramem_render *render, const json_t *message)
{
    const json_t *calls = json_object_get(message, "tool_calls");
    const json_t *function = json_object_get(json_array_get(calls, 0), "function");
    if (json_array_size(calls) != 1) {
        paramem_render_fail(render, "This model only supports single tool-calls at once!");
    }
    paramem_render_put(render, "<|start_header_id|>assistant<|end_header_id|>\n\n{\"name\": \"");
    paramem_render_plain(render, paramem_render_text(render, function, "name"));
    paramem_render_put(render, "\", \"parameters\": ");
    paramem_render_json(render, json_object_get(function, "arguments"), 0);
    paramem_render_put(render, "}<|eot_id|>");
}

void paramem_render_llama31(struct paramem_render *render)
{
    size_t first;
    const json_t *system = system_of(render, &first);
    llama31_begin(render, system);
    if (render->options->tools) {
        llama31_tools(render, json_array_get(render->messages, first++));
    }
    for (size_t i = first; i < json_array_size(render->messages); i++) {
        const json_t *message = json_array_get(render->messages, i);
        if (json_object_get(message, "tool_calls")) {
            llama31_call(render, message);
        } else if (paramem_role_is(message, "tool") || paramem_role_is(message, "ipython")) {
            /* A text can be iterated over, too, so that it stands between quotes. */
            header(render, memos_bytes_of("ipython"));
            paramem_render_json(render, json_object_get(message, "content"), 0);
            paramem_render_put(render, "<|eot_id|>");
        } else {
            llama3_turn(render, message);
        }
    }
    if (render->options->generation_prompt) {
        paramem_render_put(render, "<|start_header_id|>assistant<|end_header_id|>\n\n");
    }
}

/* ---- Mistral, without tools ---------------------------------------------------------------- */

static void mistral_turn(struct paramem_render *render, const json_t *system, const json_t *message)
{
    bool old = render->chat->form == PARAMEM_FORM_MISTRAL0;
    bool v1 = render->chat->form == PARAMEM_FORM_MISTRAL1;
    if (paramem_role_is(message, "user")) {
        paramem_render_put(render, v1 ? " [INST] " : "[INST] ");
        if (system) {
            paramem_render_plain(render, content_of(render, system));
            paramem_render_put(render, "\n\n");
        }
        paramem_render_plain(render, content_of(render, message));
        paramem_render_put(render, v1 || old ? " [/INST]" : "[/INST]");
    } else if (paramem_role_is(message, "assistant")) {
        paramem_render_put(render, old ? "" : " ");
        paramem_render_plain(render, content_of(render, message));
        paramem_render_put(render, render->chat->eos);
    } else if (paramem_role_is(message, "system") && !old && !v1) {
        paramem_render_put(render, "[SYSTEM_PROMPT] ");
        paramem_render_plain(render, content_of(render, message));
        paramem_render_put(render, "[/SYSTEM_PROMPT]");
    } else {
        paramem_render_fail(render, "%s",
            old  ? "Only user and assistant roles are supported!"
            : v1 ? "Only user and assistant roles are supported, with the exception of an initial "
                   "optional system message!"
                 : "Only user, system and assistant roles are supported!");
    }
}

void paramem_render_mistral(struct paramem_render *render)
{
    size_t first = 0;
    bool v1 = render->chat->form == PARAMEM_FORM_MISTRAL1;
    const json_t *system = v1 ? system_of(render, &first) : NULL;
    paramem_render_put(render, render->chat->bos);
    for (size_t i = first; i < json_array_size(render->messages); i++) {
        const json_t *message = json_array_get(render->messages, i);
        bool user = paramem_role_is(message, "user");
        if (render->chat->form != PARAMEM_FORM_MISTRAL7 && user != ((i - first) % 2 == 0)) {
            paramem_render_fail(render, "%s", v1 ? alternate_after : alternate);
        }
        mistral_turn(render, i == first ? system : NULL, message);
    }
}

/* ---- Mistral, with tools ------------------------------------------------------------------- */

/* "[INST]" with a blank behind it, or without one, as the tokenizer wants it. */
static void tag(struct paramem_render *render, const char *name)
{
    paramem_render_put(render, name);
    paramem_render_put(render, render->chat->form == PARAMEM_FORM_MISTRAL3 ? " " : "");
}

static void tool_put(struct paramem_render *render, const json_t *tool)
{
    const json_t *function = json_object_get(tool, "function");
    const char *key, *between = "";
    json_t *value;
    paramem_render_put(render, "{\"type\": \"function\", \"function\": {");
    json_object_foreach((json_t *)(uintptr_t)function, key, value)
    {
        if (strcmp(key, "return") == 0) {
            continue;
        }
        paramem_render_put(render, between);
        paramem_render_put(render, "\"");
        paramem_render_plain(render, memos_bytes_of(key));
        if (json_is_string(value)) { /* as it is, without escapes */
            paramem_render_put(render, "\": \"");
            paramem_render_plain(
                render, memos_bytes_make(json_string_value(value), json_string_length(value)));
            paramem_render_put(render, "\"");
        } else {
            paramem_render_put(render, "\": ");
            paramem_render_json(render, value, 0);
        }
        between = ", ";
    }
    paramem_render_put(render, "}}");
}

static void tools_put(struct paramem_render *render)
{
    const json_t *tools = render->options->tools, *tool;
    size_t i;
    tag(render, "[AVAILABLE_TOOLS]");
    paramem_render_put(render, "[");
    json_array_foreach(tools, i, tool)
    {
        tool_put(render, tool);
        paramem_render_put(render, i + 1 < json_array_size(tools) ? ", " : "]");
    }
    paramem_render_put(render, "[/AVAILABLE_TOOLS]");
}

/* An identifier of nine characters. */
static struct memos_bytes call_id(
    struct paramem_render *render, const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    struct memos_bytes id = memos_bytes_make(json_string_value(value), json_string_length(value));
    size_t chars = 0;
    for (size_t i = 0; i < id.size; i++) {
        chars += (((const uint8_t *)id.data)[i] & 0xC0) != 0x80;
    }
    if (chars != 9) {
        paramem_render_fail(render, "Tool call IDs should be alphanumeric strings with length 9!");
    }
    return id;
}

static void calls_put(struct paramem_render *render, const json_t *calls)
{
    const json_t *call;
    size_t i;
    tag(render, "[TOOL_CALLS]");
    paramem_render_put(render, "[");
    json_array_foreach(calls, i, call)
    {
        const json_t *function = json_object_get(call, "function");
        paramem_render_json(render, function, 0);
        if (render->status != MEMOS_OK) {
            return;
        }
        render->out->size--; /* the brace, behind the id */
        if (render->spans_count > 0 && !render->out->failed) {
            render->spans[render->spans_count - 1].end = render->out->size;
        }
        paramem_render_put(render, ", \"id\": \"");
        paramem_render_plain(render, call_id(render, call, "id"));
        paramem_render_put(render, i + 1 < json_array_size(calls) ? "\"}, " : "\"}]");
    }
    paramem_render_put(render, json_array_size(calls) > 0 ? render->chat->eos : "");
}

static bool has_calls(const json_t *message)
{
    const json_t *calls = json_object_get(message, "tool_calls");
    return calls && !json_is_null(calls);
}

static bool is_result(const json_t *message)
{
    return paramem_role_is(message, "tool") || paramem_role_is(message, "tool_results");
}

static void alternation_check(struct paramem_render *render, size_t first)
{
    size_t index = 0;
    for (size_t i = first; i < json_array_size(render->messages); i++) {
        const json_t *message = json_array_get(render->messages, i);
        if (is_result(message) || has_calls(message)) {
            continue;
        }
        if (paramem_role_is(message, "user") != (index % 2 == 0)) {
            paramem_render_fail(render, "%s", alternate_after);
        }
        index++;
    }
}

static void result_put(struct paramem_render *render, const json_t *message)
{
    tag(render, "[TOOL_RESULTS]");
    paramem_render_put(render, "{\"content\": ");
    paramem_render_plain(render, content_of(render, message));
    paramem_render_put(render, ", \"call_id\": \"");
    paramem_render_plain(render, call_id(render, message, "tool_call_id"));
    paramem_render_put(render, "\"}[/TOOL_RESULTS]");
}

/* tools: they go before this message. */
static void user_put(
    struct paramem_render *render, const json_t *message, const json_t *system, bool tools)
{
    if (tools) {
        tools_put(render);
    }
    tag(render, "[INST]");
    if (system) {
        paramem_render_plain(render, content_of(render, system));
        paramem_render_put(render, "\n\n");
    }
    paramem_render_plain(render, content_of(render, message));
    paramem_render_put(render, "[/INST]");
}

void paramem_render_mistral_tools(struct paramem_render *render)
{
    bool nemo = render->chat->form == PARAMEM_FORM_NEMO;
    size_t first, count = json_array_size(render->messages);
    const json_t *system = system_of(render, &first), *last_user = NULL;
    alternation_check(render, first);
    for (size_t i = first; i < count; i++) {
        const json_t *message = json_array_get(render->messages, i);
        last_user = paramem_role_is(message, "user") ? message : last_user;
    }
    paramem_render_put(render, render->chat->bos);
    for (size_t i = first; i < count && render->status == MEMOS_OK; i++) {
        const json_t *message = json_array_get(render->messages, i);
        if (paramem_role_is(message, "user")) {
            bool tools = render->options->tools && json_equal(message, last_user);
            user_put(render, message, i + 1 == count ? system : NULL, tools);
        } else if (has_calls(message)) {
            calls_put(render, json_object_get(message, "tool_calls"));
        } else if (paramem_role_is(message, "assistant")) {
            struct memos_bytes content = content_of(render, message);
            paramem_render_put(render, nemo ? "" : " ");
            paramem_render_plain(render, nemo ? content : paramem_strip(content));
            paramem_render_put(render, render->chat->eos);
        } else if (is_result(message)) {
            result_put(render, message);
        } else {
            paramem_render_fail(render, "Only user and assistant roles are supported, with the "
                                        "exception of an initial optional system message!");
        }
    }
}
