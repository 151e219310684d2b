#include "memos/worker/conversation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGES_MAX = 4096, TEXT_BYTES_MAX = 1 << 26, TRIES = 1000 };

void worker_conversation_free(struct worker_conversation *conversation)
{
    free(conversation->before.ids);
    free(conversation->behind.ids);
    *conversation = (struct worker_conversation){0};
}

/* Frame `number`, from 1; empty for 0. */
static enum memos_status frame_of(const struct worker_prompt_input *in, uint32_t number,
    struct memos_bytes *out, struct memos_error *err)
{
    *out = memos_bytes_make("", 0);
    if (number == 0) {
        return MEMOS_OK;
    }
    if (number > in->frames_count) {
        return memos_fail(err, MEMOS_INVALID, "frame %u is not there: the request has %zu",
            (unsigned)number, in->frames_count);
    }
    *out = in->frames[number - 1];
    if (!memos_bytes_utf8(*out)) {
        return memos_fail(err, MEMOS_INVALID, "frame %u is no UTF-8", (unsigned)number);
    }
    return MEMOS_OK;
}

const char *worker_prompt_question(const Memos__Generate *generate,
    const struct memos_bytes *frames, size_t frames_count, struct memos_arena *arena)
{
    uint32_t number = generate->prompt_frame;
    for (size_t i = 0; i < generate->n_messages; i++) {
        if (strcmp(generate->messages[i]->role, "user") == 0) {
            number = generate->messages[i]->frame;
        }
    }
    const char *text =
        number > 0 && number <= frames_count ? memos_arena_copy(arena, frames[number - 1]) : NULL;
    return text ? text : "";
}

/* ---- a text as it is ------------------------------------------------------------------------- */

static enum memos_status bare_text(
    const struct worker_prompt_input *in, struct memos_bytes *out, struct memos_error *err)
{
    if (in->generate->prompt_frame == 0) {
        return memos_fail(err, MEMOS_INVALID, "there are neither messages nor a prompt");
    }
    return frame_of(in, in->generate->prompt_frame, out, err);
}

static enum memos_status copy_ids(
    const uint32_t *ids, size_t count, struct paramem_ids *out, struct memos_error *err)
{
    out->ids = malloc((count > 0 ? count : 1) * sizeof *ids);
    if (!out->ids) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for the ids of a prompt");
    }
    if (count > 0) {
        memcpy(out->ids, ids, count * sizeof *ids);
    }
    out->count = count;
    return MEMOS_OK;
}

/* What the tokenizer adds before a text (bos) stands before the memory. */
static enum memos_status bare_encode(const struct worker_prompt_input *in,
    struct memos_arena *arena, struct worker_conversation *out, struct memos_error *err)
{
    const struct paramem_tokenizer *tokenizer = in->host->tokenizer;
    struct paramem_ids with = {0};
    struct memos_bytes text;
    size_t added = 0;
    enum memos_status status = bare_text(in, &text, err);
    char *behind = status == MEMOS_OK ? memos_arena_take(arena, text.size + 2, 1) : NULL;
    if (status == MEMOS_OK && !behind) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for a prompt");
    }
    if (status == MEMOS_OK) {
        memcpy(behind, "\n\n", 2);
        memcpy(behind + 2, text.data, text.size);
        status = paramem_tokenizer_encode(
            tokenizer, memos_bytes_of("a"), PARAMEM_ADD_SPECIAL, &with, err);
    }
    while (status == MEMOS_OK && added < with.count &&
           paramem_tokenizer_special(tokenizer, with.ids[added])) {
        added++;
    }
    if (status == MEMOS_OK) {
        status = copy_ids(with.ids, added, &out->before, err);
    }
    if (status == MEMOS_OK) {
        status = paramem_tokenizer_encode(
            tokenizer, memos_bytes_make(behind, text.size + 2), 0, &out->behind, err);
    }
    free(with.ids);
    return status;
}

/* ---- a conversation -------------------------------------------------------------------------- */

/* A word that stands in no message. */
struct place {
    char word[32];
    size_t size;
};

static bool is_said(const struct worker_prompt_input *in, const struct place *place)
{
    for (size_t i = 0; i < in->frames_count; i++) {
        if (memmem(in->frames[i].data, in->frames[i].size, place->word, place->size)) {
            return true;
        }
    }
    return in->generate->tools_json && strstr(in->generate->tools_json, place->word);
}

static enum memos_status place_find(
    const struct worker_prompt_input *in, struct place *out, struct memos_error *err)
{
    for (int i = 0; i < TRIES; i++) {
        out->size = (size_t)snprintf(out->word, sizeof out->word, "memos-memory-%d-here", i);
        if (!is_said(in, out)) {
            return MEMOS_OK;
        }
    }
    return memos_fail(err, MEMOS_INVALID, "the messages write out every word of a kind");
}

static json_t *message_json(
    const Memos__ChatMessage *message, struct memos_bytes content, const char *behind)
{
    json_t *out = json_object();
    char *text = malloc(content.size + strlen(behind) + 1);
    bool good = out && text;
    if (good) {
        memcpy(text, content.data, content.size);
        memcpy(text + content.size, behind, strlen(behind) + 1);
        good = json_object_set_new(out, "role", json_string(message ? message->role : "system")) ==
                   0 &&
               json_object_set_new(
                   out, "content", json_stringn(text, content.size + strlen(behind))) == 0;
    }
    if (good && message && message->name && message->name[0]) {
        good = json_object_set_new(out, "name", json_string(message->name)) == 0;
    }
    if (good && message && message->tool_call_id && message->tool_call_id[0]) {
        good = json_object_set_new(out, "tool_call_id", json_string(message->tool_call_id)) == 0;
    }
    if (good && message && message->tool_calls_json && message->tool_calls_json[0]) {
        good = json_object_set_new(out, "tool_calls",
                   json_loads(message->tool_calls_json, JSON_REJECT_DUPLICATES, NULL)) == 0;
    }
    free(text);
    if (!good) {
        json_decref(out);
    }
    return good ? out : NULL;
}

static enum memos_status messages_check(const Memos__Generate *generate, struct memos_error *err)
{
    if (generate->n_messages > MESSAGES_MAX) {
        return memos_fail(err, MEMOS_TOO_LARGE, "%zu messages; at most %d are taken",
            generate->n_messages, MESSAGES_MAX);
    }
    for (size_t i = 0; i < generate->n_messages; i++) {
        const Memos__ChatMessage *message = generate->messages[i];
        if (!memos_bytes_utf8(memos_bytes_of(message->role)) || !message->role[0]) {
            return memos_fail(err, MEMOS_INVALID, "message %zu has no role", i + 1);
        }
    }
    return MEMOS_OK;
}

/* With `place`, a system message that ends in its word: the first, or one that is made. */
static enum memos_status messages_make(const struct worker_prompt_input *in,
    const struct place *place, json_t *out, bool *out_words, struct memos_error *err)
{
    const Memos__Generate *generate = in->generate;
    const bool has_system =
        generate->n_messages > 0 && strcmp(generate->messages[0]->role, "system") == 0;
    enum memos_status status = messages_check(generate, err);
    *out_words = false;
    if (status == MEMOS_OK && place && !has_system) {
        json_t *made = message_json(NULL, memos_bytes_make("", 0), place->word);
        status = json_array_append_new(out, made) == 0
                     ? MEMOS_OK
                     : memos_fail(err, MEMOS_NO_MEMORY, "no memory for the conversation");
    }
    for (size_t i = 0; i < generate->n_messages && status == MEMOS_OK; i++) {
        const bool holds = place && has_system && i == 0;
        struct memos_bytes content;
        status = frame_of(in, generate->messages[i]->frame, &content, err);
        if (status != MEMOS_OK) {
            break;
        }
        *out_words = *out_words || (holds && content.size > 0);
        json_t *made = message_json(generate->messages[i], content, holds ? place->word : "");
        if (!made || json_array_append_new(out, made) != 0) {
            status = memos_fail(err, MEMOS_INVALID, "message %zu cannot be read", i + 1);
        }
    }
    return status;
}

static enum memos_status chat_open(const struct worker_prompt_input *in, struct memos_arena *arena,
    struct paramem_chat **out_own, const struct paramem_chat **out, struct memos_error *err)
{
    const char *name = in->generate->template_;
    struct paramem_tokenizer_info info;
    *out_own = NULL;
    *out = in->host->chat;
    if (!name || !name[0]) {
        return *out ? MEMOS_OK
                    : memos_fail(err, MEMOS_UNSUPPORTED,
                          "model %s has no chat template that is known: name one, or send a prompt",
                          in->host->name);
    }
    paramem_tokenizer_describe(in->host->tokenizer, &info);
    const char *bos =
        memos_arena_copy(arena, paramem_tokenizer_bytes(in->host->tokenizer, info.bos_id));
    const char *eos =
        memos_arena_copy(arena, paramem_tokenizer_bytes(in->host->tokenizer, info.eos_id));
    enum memos_status status =
        paramem_chat_open(name, NULL, bos ? bos : "", eos ? eos : "", out_own, err);
    *out = *out_own;
    return status;
}

struct rendered {
    struct memos_buffer text;
    struct paramem_span *plain;
    size_t plain_count;
    bool has_words;
};

static void rendered_free(struct rendered *rendered)
{
    memos_buffer_free(&rendered->text);
    free(rendered->plain);
}

static enum memos_status render_with(const struct worker_prompt_input *in,
    const struct paramem_chat *chat, const struct place *place, const json_t *tools,
    struct rendered *out, struct memos_error *err)
{
    const struct paramem_chat_options options = {.tools = tools,
        .generation_prompt = !in->no_generation,
        .no_thinking = in->generate->no_thinking};
    json_t *messages = json_array();
    enum memos_status status =
        messages ? messages_make(in, place, messages, &out->has_words, err)
                 : memos_fail(err, MEMOS_NO_MEMORY, "no memory for the conversation");
    if (status == MEMOS_OK) {
        status = paramem_chat_render(
            chat, messages, &options, &out->text, &out->plain, &out->plain_count, err);
    }
    json_decref(messages);
    return status;
}

static enum memos_status render(const struct worker_prompt_input *in, struct memos_arena *arena,
    const struct place *place, struct rendered *out, struct memos_error *err)
{
    const char *tools_json = in->generate->tools_json;
    struct paramem_chat *own = NULL;
    const struct paramem_chat *chat = NULL;
    json_t *tools = NULL;
    *out = (struct rendered){.text = memos_buffer_make(TEXT_BYTES_MAX)};
    enum memos_status status = chat_open(in, arena, &own, &chat, err);
    if (status == MEMOS_OK && tools_json && tools_json[0]) {
        tools = json_loads(tools_json, JSON_REJECT_DUPLICATES, NULL);
        if (!json_is_array(tools)) {
            status = memos_fail(err, MEMOS_INVALID, "tools_json is no JSON array");
        }
    }
    if (status == MEMOS_OK) {
        status = render_with(in, chat, place, tools, out, err);
    }
    json_decref(tools);
    paramem_chat_close(&own);
    return status;
}

/* The ids of [begin, end) of what was rendered. */
static enum memos_status encode_part(const struct worker_prompt_input *in,
    const struct rendered *rendered, size_t begin, size_t end, struct memos_arena *arena,
    struct paramem_ids *out, struct memos_error *err)
{
    struct paramem_span *plain = memos_arena_take(arena, rendered->plain_count + 1, sizeof *plain);
    size_t count = 0;
    if (!plain) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a prompt");
    }
    for (size_t i = 0; i < rendered->plain_count; i++) {
        struct paramem_span span = rendered->plain[i];
        span.begin = span.begin > begin ? span.begin : begin;
        span.end = span.end < end ? span.end : end;
        if (span.begin < span.end) {
            plain[count++] = (struct paramem_span){span.begin - begin, span.end - begin};
        }
    }
    if (begin == end) {
        *out = (struct paramem_ids){0};
        return MEMOS_OK;
    }
    return paramem_prompt_encode(in->host->tokenizer,
        memos_bytes_make(rendered->text.data + begin, end - begin), plain, count, out, err);
}

static enum memos_status chat_encode(const struct worker_prompt_input *in,
    struct memos_arena *arena, struct worker_conversation *out, struct memos_error *err)
{
    struct rendered rendered = {0};
    struct place place;
    enum memos_status status = place_find(in, &place, err);
    if (status == MEMOS_OK) {
        status = render(in, arena, &place, &rendered, err);
    }
    if (status == MEMOS_OK) {
        const uint8_t *begin = rendered.text.data, *end = begin + rendered.text.size;
        const uint8_t *at = memmem(begin, rendered.text.size, place.word, place.size);
        const uint8_t *next = at ? at + place.size : end;
        if (!at || memmem(next, (size_t)(end - next), place.word, place.size)) {
            status = memos_fail(err, MEMOS_INVALID,
                "the template does not show the system message once: memory has no place");
        } else {
            status = encode_part(in, &rendered, 0, (size_t)(at - begin), arena, &out->before, err);
        }
        if (status == MEMOS_OK) {
            status = encode_part(in, &rendered, (size_t)(next - begin), rendered.text.size, arena,
                &out->behind, err);
        }
        out->is_after_words = rendered.has_words;
    }
    rendered_free(&rendered);
    return status;
}

/* ---- both ------------------------------------------------------------------------------------ */

enum memos_status worker_conversation_encode(const struct worker_prompt_input *input,
    struct memos_arena *arena, struct worker_conversation *out, struct memos_error *err)
{
    *out = (struct worker_conversation){0};
    if (input->texts_count == 0) {
        return MEMOS_OK; /* nothing stands between */
    }
    return input->generate->n_messages > 0 ? chat_encode(input, arena, out, err)
                                           : bare_encode(input, arena, out, err);
}

enum memos_status worker_conversation_whole(const struct worker_prompt_input *input,
    struct memos_arena *arena, struct paramem_ids *out, struct memos_error *err)
{
    struct memos_bytes text;
    enum memos_status status;
    *out = (struct paramem_ids){0};
    if (input->generate->n_messages == 0) {
        status = bare_text(input, &text, err);
        return status == MEMOS_OK ? paramem_tokenizer_encode(
                                        input->host->tokenizer, text, PARAMEM_ADD_SPECIAL, out, err)
                                  : status;
    }
    struct rendered rendered = {0};
    status = render(input, arena, NULL, &rendered, err);
    if (status == MEMOS_OK) {
        status = paramem_prompt_encode(input->host->tokenizer, memos_buffer_view(&rendered.text),
            rendered.plain, rendered.plain_count, out, err);
    }
    rendered_free(&rendered);
    return status;
}
