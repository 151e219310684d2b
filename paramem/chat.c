#include "paramem/chat.h"

#include "paramem/chat_internal.h"
#include "paramem/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEMPLATE_MAX ((size_t)1 << 20)
#define SPANS_MAX ((size_t)1 << 20)

/* A template is known by what it says when white space and line feeds are taken out, quotes are
 * one kind and message.role is message['role']: all of `has`, nothing of `lacks`; and of what it
 * says as it is, `raw` (blanks matter there). What would change the text and is not known here is
 * among `lacks`. */
struct known {
    const char *name;
    enum paramem_chat_form form;
    const char *has[6], *lacks[8], *raw[3];
};

static const struct known all_known[] = {
    {"qwen3", PARAMEM_FORM_QWEN3,
        {"multi_step_tool", "<tool_response>", "reasoning_content", "Youmaycalloneormorefunctions",
            "loop.index0>ns.last_query_index%}"},
        {"strftime", "documents", "vision", "clear_thinking"}, {"<|im_start|>"}},
    {"qwen2.5", PARAMEM_FORM_QWEN25,
        {"{%-iftools%}", "Youmaycalloneormorefunctions", "<tool_response>",
            "message['role']=='assistant'andnotmessage.tool_calls",
            "'<|im_start|>'+message['role']+''+message['content']+'<|im_end|>'"},
        {"<think>", "multi_step_tool", "reasoning", "strftime", "documents"}, {"<|im_start|>"}},
    {"smollm2", PARAMEM_FORM_CHATML,
        {"'<|im_start|>'+message['role']+''+message['content']+'<|im_end|>",
            "ifloop.firstandmessages[0]['role']!='system'", "ifadd_generation_prompt"},
        {"tools", "<think>", "strftime", "namespace", "reasoning", "trim", "strip", "raise_"},
        {"<|im_start|>system"}},
    {"chatml", PARAMEM_FORM_CHATML,
        {"'<|im_start|>'+message['role']+''+message['content']+'<|im_end|>",
            "ifadd_generation_prompt"},
        {"tools", "<think>", "strftime", "messages[0]", "reasoning", "trim", "strip", "raise_"},
        {"<|im_start|>"}},
    {"llama3.2", PARAMEM_FORM_LLAMA31,
        {"tools_in_user_message", "CuttingKnowledgeDate:December2023", "strftime_now",
            "'<|start_header_id|>'+message['role']+'<|end_header_id|>'",
            "thismodelonlysupportssingle"},
        {"<think>", "documents"}, {"<|eot_id|>"}},
    {"llama3.1", PARAMEM_FORM_LLAMA31,
        {"tools_in_user_message", "CuttingKnowledgeDate:December2023", "26Jul2024",
            "'<|start_header_id|>'+message['role']+'<|end_header_id|>'",
            "thismodelonlysupportssingle"},
        {"strftime", "<think>", "documents"}, {"<|eot_id|>"}},
    {"llama3", PARAMEM_FORM_LLAMA3,
        {"'<|start_header_id|>'+message['role']+'<|end_header_id|>'+message['content']|trim"
         "+'<|eot_id|>'",
            "loop.index0==0", "bos_token+content"},
        {"tools", "strftime", "<think>", "raise_", "messages[0]"}, {"<|start_header_id|>"}},
    {"llama2", PARAMEM_FORM_LLAMA2,
        {"'<<SYS>>'+system_message+'<</SYS>>'+message['content']",
            "bos_token+'[INST]'+content.strip()+'[/INST]'", "''+content.strip()+''+eos_token"},
        {"tools", "strftime", "not'<<SYS>>'in"}, {"[INST] ", " [/INST]"}},
    {"mistral-v7", PARAMEM_FORM_MISTRAL7,
        {"'[SYSTEM_PROMPT]'+message['content']+'[/SYSTEM_PROMPT]'",
            "'[INST]'+message['content']+'[/INST]'", "''+message['content']+eos_token"},
        {"strftime", "tools", "TOOL"}, {"[SYSTEM_PROMPT] ", "[INST] "}},
    {"mistral-v3", PARAMEM_FORM_MISTRAL3,
        {"[AVAILABLE_TOOLS][", "loop.lastandsystem_messageisdefined",
            "message['content']|trim+eos_token", "user_messages[-1]", "callids",
            "'[INST]'+system_message"},
        {"strftime", "SYSTEM_PROMPT"}, {"[AVAILABLE_TOOLS] [", "[INST] ", "[TOOL_CALLS] ["}},
    {"mistral-nemo", PARAMEM_FORM_NEMO,
        {"[AVAILABLE_TOOLS][", "loop.lastandsystem_messageisdefined",
            "{{-message['content']+eos_token", "user_messages[-1]", "callids",
            "'[INST]'+system_message"},
        {"strftime", "SYSTEM_PROMPT"}, {"[AVAILABLE_TOOLS][", "[TOOL_CALLS]["}},
    {"mistral-v1", PARAMEM_FORM_MISTRAL1,
        {"'[INST]'+system_message+''+message['content']+'[/INST]'",
            "loop.firstandsystem_messageisdefined", "''+message['content']+eos_token"},
        {"strftime", "tools", "SYSTEM_PROMPT", "trim"}, {" [INST] ", " [/INST]"}},
    {"mistral-v0", PARAMEM_FORM_MISTRAL0,
        {"'[INST]'+message['content']+'[/INST]'", "{{message['content']+eos_token}}"},
        {"strftime", "tools", "SYSTEM_PROMPT", "system_message", "trim"}, {"[INST] ", " [/INST]"}},
};
#define KNOWN_COUNT (sizeof all_known / sizeof all_known[0])

/* ---- recognise ----------------------------------------------------------------------------- */

/* Replace `from` at text + at, if it stands there. Returns the bytes read. */
static size_t alias(const char *text, struct memos_buffer *out)
{
    static const char *const aliases[][2] = {{"message.role", "message['role']"},
        {"message.content", "message['content']"}, {"messages[0].role", "messages[0]['role']"},
        {"Tool call IDs", "callids"},
        {"This model only supports single", "thismodelonlysupportssingle"}, {"\\n", ""}};
    for (size_t i = 0; i < sizeof aliases / sizeof aliases[0]; i++) {
        size_t size = strlen(aliases[i][0]);
        if (strncmp(text, aliases[i][0], size) == 0) {
            memos_buffer_bytes(out, aliases[i][1], strlen(aliases[i][1]));
            return size;
        }
    }
    return 0;
}

static void squeeze(const char *text, struct memos_buffer *out)
{
    while (*text) {
        size_t read = alias(text, out);
        if (read == 0) {
            if (*text == '"') {
                memos_buffer_u8(out, '\'');
            } else if (!strchr(" \t\r\n", *text)) {
                memos_buffer_u8(out, (uint8_t)*text);
            }
            read = 1;
        }
        text += read;
    }
    memos_buffer_u8(out, '\0');
}

static bool fits(const struct known *known, const char *squeezed, const char *text)
{
    bool good = true;
    for (size_t i = 0; i < 6 && known->has[i]; i++) {
        good = good && strstr(squeezed, known->has[i]);
    }
    for (size_t i = 0; i < 8 && known->lacks[i]; i++) {
        good = good && !strstr(squeezed, known->lacks[i]);
    }
    for (size_t i = 0; i < 3 && known->raw[i]; i++) {
        good = good && strstr(text, known->raw[i]);
    }
    return good;
}

static enum memos_status unknown(const char *what, struct memos_error *err)
{
    char names[160] = "";
    size_t used = 0;
    for (size_t i = 0; i < KNOWN_COUNT; i++) {
        int size =
            snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "", all_known[i].name);
        used += size > 0 && (size_t)size < sizeof names - used ? (size_t)size : 0;
    }
    return memos_fail(err, MEMOS_UNSUPPORTED, "%s; name one of: %s", what, names);
}

/* The default system prompt of a template: what stands between "<|im_start|>system" with its line
 * feed and "<|im_end|>", as plain letters. NULL: none that can be read. */
static char *default_system(const char *text)
{
    static const char begin[] = "<|im_start|>system";
    for (const char *at = text; (at = strstr(at, begin)) != NULL;) {
        at += sizeof begin - 1;
        size_t feed = strncmp(at, "\\n", 2) == 0 ? 2 : *at == '\n';
        const char *stop = strstr(at, "<|im_end|>");
        if (feed == 0 || !stop) {
            continue;
        }
        at += feed;
        size_t size = (size_t)(stop - at);
        if (size > 0 && strcspn(at, "'\"\\{}") >= size) {
            return strndup(at, size);
        }
    }
    return NULL;
}

/* Is the same prompt said in the other place of Qwen2.5's template, where tools are? */
static bool said_twice(const char *text, const char *system)
{
    size_t size = strlen(system);
    for (const char *at = text; (at = strstr(at, system)) != NULL; at += size) {
        if (at > text && (at[-1] == '\'' || at[-1] == '"') && at[size] == at[-1]) {
            return true;
        }
    }
    return false;
}

/* What a template leaves to choose. */
static enum memos_status choices_read(struct paramem_chat *chat, const struct known *known,
    const char *text, const char *squeezed, struct memos_error *err)
{
    bool needs = known->form == PARAMEM_FORM_QWEN25 || strcmp(known->name, "smollm2") == 0;
    if (needs) {
        chat->system = default_system(text);
        if (!chat->system ||
            (known->form == PARAMEM_FORM_QWEN25 && !said_twice(text, chat->system))) {
            return unknown("a chat template whose default system prompt cannot be read", err);
        }
    }
    chat->always_prompt = !strstr(squeezed, "add_generation_prompt");
    chat->today = strstr(squeezed, "strftime_now") != NULL;
    if (known->form == PARAMEM_FORM_QWEN3) {
        chat->thinks = strstr(squeezed, "'<|im_start|>assistant<think>'") != NULL;
        if (!chat->thinks &&
            !strstr(squeezed, "enable_thinkingisdefinedandenable_thinkingisfalse")) {
            return unknown("a chat template of Qwen3's kind that begins answers differently", err);
        }
    }
    return MEMOS_OK;
}

static enum memos_status recognise(
    struct paramem_chat *chat, const char *jinja, struct memos_error *err)
{
    struct memos_buffer squeezed = memos_buffer_make(2 * TEMPLATE_MAX);
    const struct known *found = NULL;
    if (!jinja || strlen(jinja) > TEMPLATE_MAX) {
        return unknown(jinja ? "a chat template that is too large" : "no chat template", err);
    }
    squeeze(jinja, &squeezed);
    if (squeezed.failed) {
        memos_buffer_free(&squeezed);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a chat template");
    }
    const char *text = (const char *)squeezed.data;
    for (size_t i = 0; i < KNOWN_COUNT && !found; i++) {
        found = fits(&all_known[i], text, jinja) ? &all_known[i] : NULL;
    }
    enum memos_status status = MEMOS_OK;
    if (found) {
        chat->form = found->form;
        chat->name = found->name;
        status = choices_read(chat, found, jinja, text, err);
    } else {
        status = unknown("a chat template that is not known", err);
    }
    memos_buffer_free(&squeezed);
    return status;
}

/* By name: what the family's own template says by default. */
static enum memos_status by_name(
    struct paramem_chat *chat, const char *name, struct memos_error *err)
{
    static const char *const systems[][2] = {
        {"qwen2.5", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."},
        {"smollm2", "You are a helpful AI assistant named SmolLM, trained by Hugging Face"}};
    for (size_t i = 0; i < KNOWN_COUNT; i++) {
        if (strcmp(all_known[i].name, name) == 0) {
            chat->form = all_known[i].form;
            chat->name = all_known[i].name;
        }
    }
    if (!chat->name) {
        return unknown("no such chat template", err);
    }
    chat->today = strcmp(name, "llama3.2") == 0;
    for (size_t i = 0; i < 2; i++) {
        if (strcmp(systems[i][0], name) == 0) {
            chat->system = strdup(systems[i][1]);
            if (!chat->system) {
                return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a chat template");
            }
        }
    }
    return MEMOS_OK;
}

enum memos_status paramem_chat_open(const char *name, const char *jinja, const char *bos,
    const char *eos, struct paramem_chat **out, struct memos_error *err)
{
    struct paramem_chat *chat = calloc(1, sizeof *chat);
    if (chat) {
        chat->bos = strdup(bos ? bos : "");
        chat->eos = strdup(eos ? eos : "");
    }
    if (!chat || !chat->bos || !chat->eos) {
        paramem_chat_close(&chat);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a chat template");
    }
    enum memos_status status = name ? by_name(chat, name, err) : recognise(chat, jinja, err);
    if (status == MEMOS_OK) {
        *out = chat;
    } else {
        paramem_chat_close(&chat);
    }
    return status;
}

void paramem_chat_close(struct paramem_chat **chat)
{
    if (*chat) {
        free((*chat)->system);
        free((*chat)->bos);
        free((*chat)->eos);
        free(*chat);
        *chat = NULL;
    }
}

const char *paramem_chat_name(const struct paramem_chat *chat)
{
    return chat->name;
}

/* ---- render -------------------------------------------------------------------------------- */

void paramem_render_put(struct paramem_render *render, const char *text)
{
    if (render->status == MEMOS_OK) {
        memos_buffer_bytes(render->out, text, strlen(text));
    }
}

static void span_add(struct paramem_render *render, size_t begin)
{
    size_t end = render->out->size;
    if (begin == end || render->status != MEMOS_OK) {
        return;
    }
    if (render->spans_count > 0 && render->spans[render->spans_count - 1].end == begin) {
        render->spans[render->spans_count - 1].end = end;
        return;
    }
    if (render->spans_count == render->spans_max) {
        size_t most = render->spans_max ? 2 * render->spans_max : 16;
        struct paramem_span *grown =
            most > SPANS_MAX ? NULL : realloc(render->spans, most * sizeof *grown);
        if (!grown) {
            render->status = memos_fail(render->err, MEMOS_NO_MEMORY, "no memory for a chat");
            return;
        }
        render->spans = grown;
        render->spans_max = most;
    }
    render->spans[render->spans_count++] = (struct paramem_span){begin, end};
}

void paramem_render_plain(struct paramem_render *render, struct memos_bytes text)
{
    if (render->status == MEMOS_OK) {
        size_t begin = render->out->size;
        memos_buffer_bytes(render->out, text.data, text.size);
        span_add(render, begin);
    }
}

void paramem_render_json(struct paramem_render *render, const json_t *json, size_t indent)
{
    if (render->status == MEMOS_OK && !json) {
        paramem_render_fail(render, "a tool call without arguments");
    } else if (render->status == MEMOS_OK) {
        size_t begin = render->out->size;
        paramem_json_write(json, indent, render->out);
        span_add(render, begin);
    }
}

void paramem_render_fail(struct paramem_render *render, const char *format, ...)
{
    char text[MEMOS_ERROR_TEXT_BYTES];
    va_list arguments;
    if (render->status == MEMOS_OK) {
        va_start(arguments, format);
        (void)vsnprintf(text, sizeof text, format, arguments);
        va_end(arguments);
        render->status = memos_fail(render->err, MEMOS_INVALID, "%s: %s", render->chat->name, text);
    }
}

struct memos_bytes paramem_render_text(
    struct paramem_render *render, const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_string(value)) {
        paramem_render_fail(render, "\"%s\" must be a text", key);
        return memos_bytes_make("", 0);
    }
    return memos_bytes_make(json_string_value(value), json_string_length(value));
}

bool paramem_role_is(const json_t *message, const char *role)
{
    const char *value = json_string_value(json_object_get(message, "role"));
    return value && strcmp(value, role) == 0;
}

bool paramem_json_true(const json_t *json)
{
    if (!json) {
        return false;
    }
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        return json_object_size(json) > 0;
    case JSON_ARRAY:
        return json_array_size(json) > 0;
    case JSON_STRING:
        return json_string_length(json) > 0;
    case JSON_INTEGER:
    case JSON_REAL:
        return json_number_value(json) != 0;
    default:
        return json_is_true(json);
    }
}

static bool python_space(uint32_t code)
{
    return paramem_char_space(code) || (code >= 0x1C && code <= 0x1F);
}

struct memos_bytes paramem_strip(struct memos_bytes text)
{
    const uint8_t *at = text.data, *end = at + text.size;
    uint32_t code;
    while (at < end) {
        size_t size = paramem_char_read(memos_bytes_make(at, (size_t)(end - at)), &code);
        if (!python_space(code)) {
            break;
        }
        at += size;
    }
    while (at < end) {
        const uint8_t *last = end - 1;
        while (last > at && (*last & 0xC0) == 0x80) {
            last--;
        }
        (void)paramem_char_read(memos_bytes_make(last, (size_t)(end - last)), &code);
        if (!python_space(code)) {
            break;
        }
        end = last;
    }
    return memos_bytes_make(at, (size_t)(end - at));
}

struct memos_bytes paramem_strip_lines(struct memos_bytes text, bool left, bool right)
{
    const char *at = text.data, *end = at + text.size;
    while (left && at < end && *at == '\n') {
        at++;
    }
    while (right && at < end && end[-1] == '\n') {
        end--;
    }
    return memos_bytes_make(at, (size_t)(end - at));
}

static void messages_check(struct paramem_render *render)
{
    const json_t *message;
    size_t i;
    if (!json_is_array(render->messages) || json_array_size(render->messages) == 0) {
        paramem_render_fail(render, "no messages");
    }
    json_array_foreach(render->messages, i, message)
    {
        if (!json_is_string(json_object_get(message, "role"))) {
            paramem_render_fail(render, "message %zu has no role", i);
        }
    }
    if (render->options->tools && !json_is_array(render->options->tools)) {
        paramem_render_fail(render, "tools must be an array");
    }
}

static void render_form(struct paramem_render *render)
{
    switch (render->chat->form) {
    case PARAMEM_FORM_CHATML:
        paramem_render_chatml(render);
        break;
    case PARAMEM_FORM_LLAMA2:
        paramem_render_llama2(render);
        break;
    case PARAMEM_FORM_LLAMA3:
        paramem_render_llama3(render);
        break;
    case PARAMEM_FORM_LLAMA31:
        paramem_render_llama31(render);
        break;
    case PARAMEM_FORM_MISTRAL0:
    case PARAMEM_FORM_MISTRAL1:
    case PARAMEM_FORM_MISTRAL7:
        paramem_render_mistral(render);
        break;
    case PARAMEM_FORM_MISTRAL3:
    case PARAMEM_FORM_NEMO:
        paramem_render_mistral_tools(render);
        break;
    case PARAMEM_FORM_QWEN25:
        paramem_render_qwen25(render);
        break;
    case PARAMEM_FORM_QWEN3:
        paramem_render_qwen3(render);
        break;
    }
}

enum memos_status paramem_chat_render(const struct paramem_chat *chat, const json_t *messages,
    const struct paramem_chat_options *options, struct memos_buffer *out,
    struct paramem_span **out_plain, size_t *out_plain_count, struct memos_error *err)
{
    struct paramem_render render = {.chat = chat,
        .messages = messages,
        .options = options,
        .out = out,
        .status = MEMOS_OK,
        .err = err};
    messages_check(&render);
    if (render.status == MEMOS_OK) {
        render_form(&render);
    }
    if (render.status == MEMOS_OK && out->failed) {
        render.status = memos_fail(err, MEMOS_TOO_LARGE, "a conversation that is too large");
    }
    if (render.status == MEMOS_OK && out_plain) {
        *out_plain = render.spans;
        *out_plain_count = render.spans_count;
    } else {
        free(render.spans);
    }
    return render.status;
}
