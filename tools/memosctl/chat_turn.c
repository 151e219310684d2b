/* One turn of a conversation: the prompt, the answer, and both kept. */
#include "tools/memosctl/chat.h"
#include "tools/memosctl/input.h"
#include "tools/memosctl/receipt.h"

#include <stdlib.h>
#include <string.h>

enum { MESSAGE_BYTES = 8 }; /* of a message besides its text: what a template adds, in tokens */
#define BYTES_PER_TOKEN_FIRST 3.0

/* ---- turns ---------------------------------------------------------------------------------- */

static void free_turns(struct ctl_chat *chat)
{
    for (size_t i = 0; i < chat->turns_count; i++) {
        memos_buffer_free(&chat->turns[i].user);
        memos_buffer_free(&chat->turns[i].answer);
    }
    free(chat->turns);
    chat->turns = NULL;
    chat->turns_count = chat->turns_capacity = chat->turns_first = 0;
}

void ctl_chat_begin(struct ctl_chat *chat)
{
    struct memos_id id = memos_id_next(&chat->ids, &chat->ctl->clock);
    free_turns(chat);
    memos_message_free(&chat->last);
    (void)memos_id_format(&id, chat->session);
    chat->said = 0;
    chat->bytes_per_token =
        chat->bytes_per_token > 0 ? chat->bytes_per_token : BYTES_PER_TOKEN_FIRST;
}

void ctl_chat_free(struct ctl_chat *chat)
{
    free_turns(chat);
    memos_message_free(&chat->last);
    memos_buffer_free(&chat->system);
}

static struct ctl_turn *add_turn(struct ctl_chat *chat, struct memos_bytes text)
{
    if (chat->turns_count == chat->turns_capacity) {
        size_t capacity = chat->turns_capacity > 0 ? 2 * chat->turns_capacity : 16;
        struct ctl_turn *turns = realloc(chat->turns, capacity * sizeof *turns);
        if (!turns) {
            return NULL;
        }
        chat->turns = turns;
        chat->turns_capacity = capacity;
    }
    struct ctl_turn *turn = &chat->turns[chat->turns_count];
    *turn = (struct ctl_turn){.user = memos_buffer_make((size_t)CTL_FILE_BYTES_MAX),
        .answer = memos_buffer_make((size_t)CTL_FILE_BYTES_MAX)};
    memos_buffer_bytes(&turn->user, text.data, text.size);
    if (turn->user.failed) {
        memos_buffer_free(&turn->user);
        return NULL;
    }
    chat->turns_count++;
    return turn;
}

/* The last message stays out of it when it was answered by nothing: two in a row would be against
 * what models were taught. */
static bool is_in_prompt(const struct ctl_chat *chat, size_t i)
{
    const struct ctl_turn *turn = &chat->turns[i];
    return i + 1 == chat->turns_count ||
           (i >= chat->turns_first && !turn->is_gone && turn->answer.size > 0);
}

/* ---- the prompt ----------------------------------------------------------------------------- */

struct prompt {
    struct memos_arena arena;
    struct memos_bytes *frames;
    Memos__ChatMessage *messages, **pointers;
    ProtobufCBinaryData *without;
    size_t count, without_count;
    size_t bytes; /* of all texts, with what a template adds */
};

static void add_message(struct prompt *prompt, const char *role, const struct memos_buffer *text)
{
    Memos__ChatMessage *message = &prompt->messages[prompt->count];
    memos__chat_message__init(message);
    message->role = ctl_field(role);
    prompt->frames[prompt->count] = memos_buffer_view(text);
    prompt->pointers[prompt->count++] = message;
    message->frame = (uint32_t)prompt->count;
    prompt->bytes += text->size + MESSAGE_BYTES;
}

static void add_without(struct prompt *prompt, const struct memos_id *id)
{
    if (!memos_id_is_nil(id)) {
        prompt->without[prompt->without_count++] = ctl_id_field(id);
    }
}

static enum memos_status make_prompt(
    struct ctl_chat *chat, struct prompt *out, struct memos_error *err)
{
    size_t most = 2 * chat->turns_count + 2;
    struct memos_arena *arena = &out->arena;
    out->frames = memos_arena_take(arena, most, sizeof *out->frames);
    out->messages = memos_arena_take(arena, most, sizeof *out->messages);
    out->pointers = memos_arena_take(arena, most, sizeof *out->pointers);
    out->without = memos_arena_take(arena, most, sizeof *out->without);
    out->count = out->without_count = out->bytes = 0;
    if (!out->frames || !out->messages || !out->pointers || !out->without) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for the prompt");
    }
    if (chat->has_system) {
        add_message(out, "system", &chat->system);
    }
    for (size_t i = 0; i < chat->turns_count; i++) {
        const struct ctl_turn *turn = &chat->turns[i];
        bool is_last = i + 1 == chat->turns_count;
        if (!is_in_prompt(chat, i)) {
            continue;
        }
        add_message(out, "user", &turn->user);
        add_without(out, &turn->user_id);
        if (!is_last) {
            add_message(out, "assistant", &turn->answer);
            add_without(out, &turn->answer_id);
        }
    }
    return MEMOS_OK;
}

/* Tokens that the messages may be: the context without room for memory and for the answer. */
static size_t room_tokens(const struct ctl_chat *chat)
{
    uint64_t context = chat->model.context, quarter = context / 4;
    uint64_t budget = chat->memory.memory.budget_tokens;
    uint64_t answer = chat->options.max_tokens < quarter ? chat->options.max_tokens : quarter;
    uint64_t taken = (budget > 0 ? budget : quarter) + answer;
    return context > taken ? (size_t)(context - taken) : 0;
}

/* Leave out whole turns from the front until the rest is likely to fit. A message has at most as
 * many frames as one request takes. */
static void cut_front(struct ctl_chat *chat, struct prompt *prompt)
{
    double room = (double)room_tokens(chat) * chat->bytes_per_token;
    size_t bytes = prompt->bytes, first = chat->turns_first, frames = prompt->count;
    while (
        first + 1 < chat->turns_count && ((double)bytes > room || frames > MEMOS_FRAMES_MAX - 2)) {
        const struct ctl_turn *turn = &chat->turns[first];
        bool was_there = is_in_prompt(chat, first++);
        bytes -= was_there ? turn->user.size + turn->answer.size + 2 * MESSAGE_BYTES : 0;
        frames -= was_there ? 2 : 0;
    }
    chat->turns_first = first;
}

/* ---- the answer ----------------------------------------------------------------------------- */

struct listener {
    struct ctl_chat *chat;
    struct ctl_answer answer;
};

static void on_more(void *self, const struct memos_message *message)
{
    struct listener *listener = self;
    const Memos__Reply *reply = memos_message_reply(message);
    if (reply->body_case != MEMOS__REPLY__BODY_TOKENS) {
        return;
    }
    ctl_generate_tokens(&listener->answer, reply->tokens);
    if (listener->chat->ctl->json && reply->tokens->text[0]) {
        (void)!ctl_chat_event(listener->chat, "token",
            json_pack("{so}", "text", ctl_json_string(reply->tokens->text)), NULL);
    }
}

static enum memos_status ask(struct ctl_chat *chat, const struct prompt *prompt,
    struct listener *listener, struct memos_message **out, struct memos_error *err)
{
    Memos__Generate generate = chat->options;
    Memos__Request request = CTL_REQUEST(GENERATE, generate, &generate);
    chat->memory.memory.without = prompt->without;
    chat->memory.memory.n_without = prompt->without_count;
    generate.space = ctl_field(chat->space);
    generate.model = ctl_field(chat->model.name);
    generate.memory = &chat->memory.memory;
    generate.messages = prompt->pointers;
    generate.n_messages = prompt->count;
    return ctl_ask_call(chat->ctl,
        &(struct ctl_ask){.request = &request,
            .frames = prompt->frames,
            .frames_count = prompt->count,
            .want = MEMOS__REPLY__BODY_GENERATED,
            .on_more = on_more,
            .self = listener},
        out, err);
}

/* Ask; when it was too long after all, with half of the turns left out, and again. */
static enum memos_status ask_fitting(struct ctl_chat *chat, struct prompt *prompt,
    struct listener *listener, struct memos_message **out, struct memos_error *err)
{
    size_t first = chat->turns_first;
    enum memos_status status = make_prompt(chat, prompt, err);
    if (status == MEMOS_OK) {
        cut_front(chat, prompt);
        status = make_prompt(chat, prompt, err);
    }
    while (status == MEMOS_OK) {
        status = ask(chat, prompt, listener, out, err);
        size_t last = chat->turns_count - 1;
        if (status != MEMOS_TOO_LARGE || chat->turns_first >= last) {
            break;
        }
        memos_message_free(out);
        chat->turns_first += (last - chat->turns_first + 1) / 2;
        chat->ctl->hint = NULL;
        status = make_prompt(chat, prompt, err);
    }
    if (chat->turns_first > first) {
        ctl_note(chat->ctl, "the first %zu messages are no more in the prompt: memory has them",
            2 * chat->turns_first);
    }
    return status;
}

static void learn_size(
    struct ctl_chat *chat, const struct prompt *prompt, const Memos__Generated *g)
{
    uint64_t memory = 0;
    for (size_t i = 0; ctl_chat_item(chat, i); i++) {
        memory += ctl_chat_item(chat, i)->tokens;
    }
    if (g->prompt_tokens > memory) {
        chat->bytes_per_token = (double)prompt->bytes / (double)(g->prompt_tokens - memory);
    }
}

/* What to say under an answer: nothing when it went as it should. */
static void note_end(struct ctl *ctl, const Memos__Generated *g)
{
    if (g->finish == PARAMEM_FINISH_LENGTH || g->finish == PARAMEM_FINISH_CONTEXT) {
        ctl_note(ctl, "cut off: %s (%u tokens)",
            g->finish == PARAMEM_FINISH_LENGTH ? "--max-tokens" : "the context is full", g->tokens);
    } else if (g->finish == PARAMEM_FINISH_CANCELLED) {
        ctl_note(ctl, "stopped after %u tokens; what was said is kept", g->tokens);
    }
}

static enum memos_status tell_answer(
    struct ctl_chat *chat, const struct ctl_turn *turn, const char *finish, struct memos_error *err)
{
    const Memos__Reply *reply = chat->last ? memos_message_reply(chat->last) : NULL;
    const Memos__Generated *g = reply ? reply->generated : NULL;
    const Memos__Receipt *receipt = ctl_chat_receipt(chat);
    return ctl_chat_event(chat, "answer",
        json_pack("{so,so,ss,sI,sI,sI,so}", "id",
            memos_id_is_nil(&turn->answer_id) ? json_null()
                                              : ctl_json_id(ctl_id_field(&turn->answer_id)),
            "text", ctl_json_text(memos_buffer_view(&turn->answer)), "finish", finish,
            "prompt_tokens", (json_int_t)(g ? g->prompt_tokens : 0), "cached_tokens",
            (json_int_t)(g ? g->cached_tokens : 0), "answer_tokens",
            (json_int_t)(g ? g->tokens : 0), "receipt",
            receipt ? ctl_receipt_json(receipt) : json_null()),
        err);
}

/* Take over what the worker said, keep it, and tell it. */
static enum memos_status take_answer(struct ctl_chat *chat, const struct prompt *prompt,
    struct listener *listener, struct memos_message *reply, struct memos_error *err)
{
    struct ctl *ctl = chat->ctl;
    struct ctl_turn *turn = &chat->turns[chat->turns_count - 1];
    const Memos__Reply *last = reply ? memos_message_reply(reply) : NULL;
    bool is_told = last && last->body_case == MEMOS__REPLY__BODY_GENERATED;
    const char *finish = is_told ? ctl_finish_name(last->generated->finish) : "failed";
    struct memos_buffer text = turn->answer;
    turn->answer = listener->answer.text;
    listener->answer.text = text;
    memos_message_free(&chat->last);
    chat->last = is_told ? reply : NULL;
    if (!is_told) {
        memos_message_free(&reply);
    } else {
        learn_size(chat, prompt, last->generated);
    }
    if (turn->answer.size > 0) {
        ctl_answer_end(&listener->answer);
    }
    enum memos_status status =
        turn->answer.size > 0 ? ctl_chat_keep(chat, turn, true, finish, err) : MEMOS_OK;
    if (ctl->json && (is_told || turn->answer.size > 0)) {
        enum memos_status told = tell_answer(chat, turn, finish, err);
        status = status == MEMOS_OK ? told : status;
    } else if (is_told) {
        note_end(ctl, last->generated);
    }
    return status;
}

enum memos_status ctl_chat_say(
    struct ctl_chat *chat, struct memos_bytes text, struct memos_error *err)
{
    struct ctl *ctl = chat->ctl;
    struct prompt prompt = {.count = 0};
    struct listener listener = {.chat = chat};
    struct memos_message *reply = NULL;
    struct memos_error kept_err = {0};
    struct ctl_turn *turn = add_turn(chat, text);
    if (!turn) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a message");
    }
    enum memos_status status = ctl_chat_keep(chat, turn, false, NULL, err);
    if (status != MEMOS_OK) {
        turn->is_gone = true;
        return status;
    }
    ctl_answer_init(&listener.answer, ctl);
    memos_arena_init(&prompt.arena, (size_t)CTL_FILE_BYTES_MAX);
    status = ask_fitting(chat, &prompt, &listener, &reply, err);
    const char *hint = ctl->hint;
    enum memos_status kept = take_answer(chat, &prompt, &listener, reply, &kept_err);
    if (status == MEMOS_CANCELLED) { /* as was wished; it is told beside the answer */
        status = MEMOS_OK;
    }
    if (status == MEMOS_OK && kept != MEMOS_OK) {
        *err = kept_err;
        status = kept;
    } else {
        ctl->hint = hint;
    }
    memos_arena_finish(&prompt.arena);
    ctl_answer_free(&listener.answer);
    return status;
}
