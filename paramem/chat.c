#include "paramem/chat.h"

#include "paramem/chat_internal.h"
#include "paramem/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEMPLATE_MAX ((size_t)1 << 20)
#define SPANS_MAX ((size_t)1 << 20)

/* What a template can be named, and what it then says where models differ. */
struct family {
    const char *name;
    enum paramem_chat_form form;
    const char *system; /* its default system prompt; NULL: none */
};

static const struct family families[] = {
    {"chatml", PARAMEM_FORM_CHATML, NULL},
    {"smollm2", PARAMEM_FORM_CHATML,
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face"},
    {"llama2", PARAMEM_FORM_LLAMA2, NULL},
    {"llama3", PARAMEM_FORM_LLAMA3, NULL},
    {"llama3.1", PARAMEM_FORM_LLAMA31, NULL},
    {"llama3.2", PARAMEM_FORM_LLAMA32, NULL},
    {"mistral-v0", PARAMEM_FORM_MISTRAL0, NULL},
    {"mistral-v1", PARAMEM_FORM_MISTRAL1, NULL},
    {"mistral-v3", PARAMEM_FORM_MISTRAL3, NULL},
    {"mistral-nemo", PARAMEM_FORM_NEMO, NULL},
    {"mistral-v7", PARAMEM_FORM_MISTRAL7, NULL},
    {"qwen2.5", PARAMEM_FORM_QWEN25,
        "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."},
    {"qwen3", PARAMEM_FORM_QWEN3, NULL},
    {"qwen3-instruct", PARAMEM_FORM_QWEN3_INSTRUCT, NULL},
    {"qwen3-thinking", PARAMEM_FORM_QWEN3_THINKING, NULL},
};
#define FAMILIES_COUNT (sizeof families / sizeof families[0])

/* Texts that are out there, by the digest of what they mean (paramem_chat_digest). Two of one
 * family render the same, except that the first of Llama 3's begins an answer unasked.
 * `tools/golden/make_chat.py` says where each was found. */
static const struct {
    const char *digest, *name;
    bool always_prompt;
} all_known[] = {
    {"cde05f4f6f2cbd87a60f001782cc3931", "chatml", false},
    {"bf5d4806bea1b8f123ffedab5d6efc28", "chatml", false},
    {"fd504268f7d25c9b80fdd8797576770a", "llama2", false},
    {"b017fd7a372746f374ad4b0ca60a7426", "llama3.1", false},
    {"f5e2ab653e5774fa653545906e25036d", "llama3.2", false},
    {"56996899431e83c6b605c772c3c45c88", "llama3", true},
    {"e93a9d87245b95aae7db73d390b33a4f", "llama3", false},
    {"9e353827843667513bc9f29031226ae4", "mistral-nemo", false},
    {"7fa7b7d1720250aa4bd3f71462381bdf", "mistral-v0", false},
    {"f4c5c26449e1b631e39d65b19355e4b2", "mistral-v1", false},
    {"d7b641a9b4aed336f343e810767a6221", "mistral-v3", false},
    {"c5cb0397e7ce66003c7d9d7c9735bd34", "mistral-v7", false},
    {"eec224fe05e35f3fda5f688530a122ed", "qwen2.5", false},
    {"df0590b041faf6cd062d17f7fac29d49", "qwen3-instruct", false},
    {"f33aac033c2a9f781fac4ee68fc028dc", "qwen3-thinking", false},
    {"a7686962fd750746401cc09743072492", "qwen3", false},
    {"23b4e4553a64753aed01e7ea3bc614f0", "qwen3", false},
    {"7d0a7f68c96416d30809c553af0582bf", "smollm2", false},
};
#define KNOWN_COUNT (sizeof all_known / sizeof all_known[0])

/* ---- recognise ----------------------------------------------------------------------------- */

static enum memos_status unknown(const char *what, struct memos_error *err)
{
    char names[256] = "";
    size_t used = 0;
    for (size_t i = 0; i < FAMILIES_COUNT; i++) {
        int size =
            snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "", families[i].name);
        used += size > 0 && (size_t)size < sizeof names - used ? (size_t)size : 0;
    }
    return memos_fail(err, MEMOS_UNSUPPORTED, "%s; name one of: %s", what, names);
}

/* NULL: there is none of that name. */
static const struct family *family_set(struct paramem_chat *chat, const char *name)
{
    for (size_t i = 0; i < FAMILIES_COUNT; i++) {
        if (strcmp(families[i].name, name) == 0) {
            chat->name = families[i].name;
            chat->form = families[i].form;
            return &families[i];
        }
    }
    return NULL;
}

/* What the text means is what counts: see chat_template.c. */
static enum memos_status recognise(
    struct paramem_chat *chat, const char *jinja, struct memos_error *err)
{
    char digest[PARAMEM_CHAT_DIGEST_BYTES];
    if (!jinja || strlen(jinja) > TEMPLATE_MAX) {
        return unknown(jinja ? "a chat template that is too large" : "no chat template", err);
    } else if (!paramem_chat_digest(memos_bytes_of(jinja), digest, &chat->system)) {
        return unknown("a chat template that cannot be read", err);
    }
    for (size_t i = 0; i < KNOWN_COUNT; i++) {
        if (strcmp(all_known[i].digest, digest) == 0) {
            memos_assert(family_set(chat, all_known[i].name));
            chat->always_prompt = all_known[i].always_prompt;
            return MEMOS_OK;
        }
    }
    return unknown("a chat template that is not known", err);
}

/* By name: what the family's own template says by default. */
static enum memos_status by_name(
    struct paramem_chat *chat, const char *name, struct memos_error *err)
{
    const struct family *family = family_set(chat, name);
    if (!family) {
        return unknown("no such chat template", err);
    }
    if (family->system) {
        chat->system = strdup(family->system);
        if (!chat->system) {
            return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a chat template");
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
    case PARAMEM_FORM_LLAMA32:
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
    case PARAMEM_FORM_QWEN3_INSTRUCT:
    case PARAMEM_FORM_QWEN3_THINKING:
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
