/* What a conversation leaves in its space, and how it is looked at, corrected and forgotten. */
#include "tools/memosctl/chat.h"
#include "tools/memosctl/input.h"
#include "tools/memosctl/receipt.h"
#include "tools/memosctl/text.h"

#include "memcube/cube.h"
#include "memcube/store.h"

#include <string.h>

enum { ATTRIBUTES_MAX = 4, URI_BYTES = 80, WHICH_BYTES_MAX = 64, SHOWN_BYTES = 300 };

const Memos__Receipt *ctl_chat_receipt(const struct ctl_chat *chat)
{
    return chat->last ? memos_message_reply(chat->last)->generated->receipt : NULL;
}

const Memos__ReceiptItem *ctl_chat_item(const struct ctl_chat *chat, size_t i)
{
    const Memos__Receipt *receipt = ctl_chat_receipt(chat);
    for (size_t k = 0; receipt && k < receipt->n_items; k++) {
        const Memos__ReceiptItem *item = receipt->items[k];
        bool is_text = item->used_as != WORKER_USED_KV && item->ref;
        if (is_text && i-- == 0) {
            return item;
        }
    }
    return NULL;
}

enum memos_status ctl_chat_event(
    struct ctl_chat *chat, const char *event, json_t *object, struct memos_error *err)
{
    json_t *whole = json_pack("{ss,ss}", "event", event, "session", chat->session);
    if (object) {
        (void)json_object_update(whole, object);
    }
    json_decref(object);
    return ctl_json_line(whole, err);
}

/* ---- keeping -------------------------------------------------------------------------------- */

/* A draft with all that it points to. */
struct note {
    Memos__Draft draft, *drafts[1];
    Memos__Source source, *sources[1];
    Memos__Attribute attributes[ATTRIBUTES_MAX], *attribute_pointers[ATTRIBUTES_MAX];
    Memos__Ref *refs, **ref_pointers;
    char uri[URI_BYTES];
};

static void add_attribute(struct note *note, const char *name, const char *value)
{
    Memos__Attribute *attribute = &note->attributes[note->draft.n_attributes];
    memos__attribute__init(attribute);
    attribute->name = ctl_field(name);
    attribute->value = ctl_field(value);
    note->attribute_pointers[note->draft.n_attributes++] = attribute;
}

static void make_note(
    struct ctl_chat *chat, const char *subtype, const char *speaker, struct note *out)
{
    *out = (struct note){.draft = MEMOS__DRAFT__INIT, .source = MEMOS__SOURCE__INIT};
    snprintf(out->uri, sizeof out->uri, "chat:%s/%u", chat->session, ++chat->said);
    out->source.type = ctl_field("message");
    out->source.uri = out->uri;
    out->sources[0] = &out->source;
    out->drafts[0] = &out->draft;
    out->draft.sources = out->sources;
    out->draft.n_sources = 1;
    out->draft.attributes = out->attribute_pointers;
    out->draft.subtype = ctl_field(subtype);
    out->draft.speaker = ctl_field(speaker);
    out->draft.event_us = chat->ctl->clock.wall_us(chat->ctl->clock.self);
    out->draft.frame = 1;
    add_attribute(out, "session", chat->session);
}

/* An answer comes from the message that it answers, and from what was remembered for it. */
static enum memos_status derive(struct ctl_chat *chat, const struct ctl_turn *turn,
    struct memos_arena *arena, struct note *note, struct memos_error *err)
{
    size_t most = 1, count = 0;
    while (ctl_chat_item(chat, most - 1) && most < MEMCUBE_DERIVED_MAX) {
        most++;
    }
    note->refs = memos_arena_take(arena, most, sizeof *note->refs);
    note->ref_pointers = memos_arena_take(arena, most, sizeof *note->ref_pointers);
    if (!note->refs || !note->ref_pointers) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for an answer's sources");
    }
    for (size_t i = 0; i < most; i++) {
        const Memos__ReceiptItem *item = i > 0 ? ctl_chat_item(chat, i - 1) : NULL;
        Memos__Ref *ref = &note->refs[count];
        memos__ref__init(ref);
        ref->id = item ? item->ref->id : ctl_id_field(&turn->user_id);
        ref->number = item ? item->ref->number : turn->user_version;
        note->ref_pointers[count] = ref;
        count += item || !memos_id_is_nil(&turn->user_id);
    }
    note->draft.derived_from = note->ref_pointers;
    note->draft.n_derived_from = count;
    note->draft.model =
        (ProtobufCBinaryData){strlen(chat->model.print), (uint8_t *)(uintptr_t)chat->model.print};
    return MEMOS_OK;
}

static enum memos_status put(struct ctl_chat *chat, struct note *note, struct memos_bytes text,
    const char *reason, struct memos_id *out_id, uint32_t *out_version, struct memos_error *err)
{
    struct memos_message *reply = NULL;
    Memos__Put put = MEMOS__PUT__INIT;
    Memos__Request request = CTL_REQUEST(PUT, put, &put);
    put.space = ctl_field(chat->space);
    put.reason = ctl_field(reason);
    put.drafts = note->drafts;
    put.n_drafts = 1;
    enum memos_status status =
        ctl_call(chat->ctl, &request, &text, 1, MEMOS__REPLY__BODY_OUTCOME, &reply, err);
    if (status == MEMOS_OK) {
        const Memos__Outcome *outcome = memos_message_reply(reply)->outcome;
        if (outcome->n_refs == 1) {
            *out_id = ctl_id_of(outcome->refs[0]->id);
            *out_version = outcome->refs[0]->number;
        }
    }
    memos_message_free(&reply);
    return status;
}

enum memos_status ctl_chat_keep(struct ctl_chat *chat, struct ctl_turn *turn, bool is_answer,
    const char *finish, struct memos_error *err)
{
    struct note note;
    struct memos_arena arena;
    uint32_t version = 0;
    const struct memos_buffer *text = is_answer ? &turn->answer : &turn->user;
    enum memos_status status = MEMOS_OK;
    memos_arena_init(&arena, (size_t)1 << 20);
    make_note(chat, "message", is_answer ? "assistant" : chat->speaker, &note);
    add_attribute(&note, "role", is_answer ? "assistant" : "user");
    if (is_answer) {
        add_attribute(&note, "model", chat->model.name);
        add_attribute(&note, "finish", finish);
        status = derive(chat, turn, &arena, &note, err);
    }
    if (status == MEMOS_OK) {
        status = put(chat, &note, memos_buffer_view(text), "said in a chat",
            is_answer ? &turn->answer_id : &turn->user_id,
            is_answer ? &version : &turn->user_version, err);
    }
    memos_arena_finish(&arena);
    if (status == MEMOS_OK && !is_answer && chat->ctl->json) {
        status = ctl_chat_event(chat, "user",
            json_pack("{so,so}", "id", ctl_json_id(ctl_id_field(&turn->user_id)), "text",
                ctl_json_text(memos_buffer_view(text))),
            err);
    }
    return status;
}

enum memos_status ctl_chat_remember(
    struct ctl_chat *chat, const char *text, struct memos_error *err)
{
    struct note note;
    struct memos_id id = {{0}};
    uint32_t version = 0;
    char name[MEMOS_ID_TEXT_BYTES];
    make_note(chat, "fact", chat->speaker, &note);
    enum memos_status status =
        put(chat, &note, memos_bytes_of(text), "remembered in a chat", &id, &version, err);
    if (status == MEMOS_OK && chat->ctl->json) {
        status = ctl_chat_event(chat, "remembered",
            json_pack(
                "{so,so}", "id", ctl_json_id(ctl_id_field(&id)), "text", ctl_json_string(text)),
            err);
    } else if (status == MEMOS_OK) {
        printf("remembered: %s\n", memos_id_format(&id, name));
    }
    return status;
}

/* ---- looking -------------------------------------------------------------------------------- */

/* The cube of an item as it was used; *reply NULL: it is not to be had any more. */
static enum memos_status get_item(struct ctl_chat *chat, const Memos__ReceiptItem *item,
    struct memos_message **reply, struct memos_error *err)
{
    Memos__Get get = MEMOS__GET__INIT;
    Memos__Request request = CTL_REQUEST(GET, get, &get);
    get.space = ctl_field(chat->space);
    get.ids = &item->ref->id;
    get.n_ids = 1;
    get.number = item->ref->number;
    get.peek = true;
    enum memos_status status =
        ctl_call(chat->ctl, &request, NULL, 0, MEMOS__REPLY__BODY_CUBES, reply, err);
    const Memos__Cubes *cubes = status == MEMOS_OK ? memos_message_reply(*reply)->cubes : NULL;
    /* of a cube that was forgotten older versions keep their headers */
    if (cubes && (cubes->n_cubes != 1 || cubes->cubes[0]->frame == 0)) {
        memos_message_free(reply);
    }
    chat->ctl->hint = NULL;
    return status == MEMOS_FORGOTTEN || status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

static json_t *item_json(
    size_t number, const Memos__ReceiptItem *item, const struct memos_message *reply)
{
    const Memos__Cube *cube = reply ? memos_message_reply(reply)->cubes->cubes[0] : NULL;
    return json_pack("{sI,so,sI,ss,sI,so,so,so,sb}", "number", (json_int_t)number, "id",
        ctl_json_id(item->ref->id), "version", (json_int_t)item->ref->number, "used_as",
        worker_used_as_text(item->used_as), "tokens", (json_int_t)item->tokens, "when",
        cube ? ctl_json_time(cube->event_us ? cube->event_us : cube->time_us) : json_null(),
        "speaker", cube ? ctl_json_string(cube->speaker) : json_null(), "text",
        cube ? ctl_json_text(memos_message_frame(reply, cube->frame)) : json_null(), "forgotten",
        (int)!cube);
}

/* "[2] 2026-05-01  user: My sister is called Lea." and what it is. */
static void print_item(struct ctl *ctl, size_t number, const Memos__ReceiptItem *item,
    const struct memos_message *reply)
{
    const struct ctl_paper *paper = &ctl->paper;
    const Memos__Cube *cube = reply ? memos_message_reply(reply)->cubes->cubes[0] : NULL;
    char time[MEMOS_TIME_TEXT_BYTES], id[MEMOS_ID_TEXT_BYTES];
    struct memos_id name = ctl_id_of(item->ref->id);
    struct memos_buffer words = memos_buffer_make(65536), clean = memos_buffer_make(1 << 20);
    if (cube) {
        struct memos_bytes text = memos_message_frame(reply, cube->frame);
        struct memos_bytes head = ctl_text_head(text, SHOWN_BYTES);
        memos_buffer_printf(&words, "%.100s%s", cube->speaker, cube->speaker[0] ? ": " : "");
        memos_buffer_bytes(&words, head.data, head.size);
        memos_buffer_printf(&words, "%s", head.size < text.size ? " ..." : "");
        memos_time_format(cube->event_us ? cube->event_us : cube->time_us, time);
    } else {
        memos_buffer_printf(&words, "(forgotten since)");
        time[0] = '\0';
    }
    ctl_text_clean(&clean, memos_buffer_view(&words), false);
    fprintf(paper->out, "%s[%zu]%s %.10s  %.*s\n", ctl_style_on(paper, CTL_BOLD), number,
        ctl_style_off(paper), time, (int)clean.size, clean.data ? (const char *)clean.data : "");
    fprintf(paper->out, "    %s%s, version %u; %s, %u tokens%s%s\n", ctl_style_on(paper, CTL_DIM),
        memos_id_format(&name, id), item->ref->number, worker_used_as_text(item->used_as),
        item->tokens, item->approximate ? ", approximate" : "", ctl_style_off(paper));
    memos_buffer_free(&words);
    memos_buffer_free(&clean);
}

enum memos_status ctl_chat_memory(struct ctl_chat *chat, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    const Memos__ReceiptItem *item;
    json_t *items = json_array();
    size_t count = 0;
    for (; status == MEMOS_OK && (item = ctl_chat_item(chat, count)); count++) {
        struct memos_message *reply = NULL;
        status = get_item(chat, item, &reply, err);
        if (status == MEMOS_OK && chat->ctl->json) {
            (void)json_array_append_new(items, item_json(count + 1, item, reply));
        } else if (status == MEMOS_OK) {
            print_item(chat->ctl, count + 1, item, reply);
        }
        memos_message_free(&reply);
    }
    if (status == MEMOS_OK && chat->ctl->json) {
        status = ctl_chat_event(chat, "memory", json_pack("{sO}", "items", items), err);
    } else if (status == MEMOS_OK && count == 0) {
        puts(chat->last ? "the last answer was made without memory"
                        : "nothing has been answered yet");
    }
    json_decref(items);
    return status;
}

/* ---- changing ------------------------------------------------------------------------------- */

/* A number of /memory ("2", "[2]"), or an id. */
static enum memos_status find_which(
    struct ctl_chat *chat, const char *which, struct memos_id *out, struct memos_error *err)
{
    char digits[WHICH_BYTES_MAX];
    uint64_t number = 0;
    size_t skipped = which[0] == '[';
    snprintf(digits, sizeof digits, "%s", which + skipped);
    digits[strcspn(digits, "]")] = '\0';
    const Memos__ReceiptItem *item = NULL;
    if (strlen(digits) < 4 && ctl_number_parse(digits, 999, &number) && number > 0) {
        item = ctl_chat_item(chat, (size_t)number - 1);
        if (!item) {
            chat->ctl->hint = "/memory shows what the last answer was made with";
            return memos_fail(err, MEMOS_NOT_FOUND, "there is no [%s] in it", digits);
        }
        *out = ctl_id_of(item->ref->id);
        return MEMOS_OK;
    }
    enum memos_status status = ctl_id_resolve(chat->ctl, chat->space, which, out, err);
    if (status == MEMOS_INVALID) {
        chat->ctl->hint = "a number of /memory, or an id (its beginning will do)";
    }
    return status;
}

/* What is gone from the space is gone from the prompt. */
static void drop_turns(struct ctl_chat *chat, const struct memos_id *id)
{
    for (size_t i = 0; i < chat->turns_count; i++) {
        struct ctl_turn *turn = &chat->turns[i];
        bool is_user = memos_id_equal(&turn->user_id, id);
        bool is_answer = memos_id_equal(&turn->answer_id, id);
        if (is_user || is_answer) {
            turn->is_gone = true;
            memos_buffer_free(&turn->user);
            memos_buffer_free(&turn->answer);
        }
    }
}

static enum memos_status tell_forgotten(
    struct ctl_chat *chat, const Memos__Outcome *outcome, struct memos_error *err)
{
    size_t others = outcome->n_forgotten > 0 ? outcome->n_forgotten - 1 : 0;
    if (chat->ctl->json) {
        return ctl_chat_event(chat, "forgotten",
            json_pack("{so,sb}", "ids", ctl_json_ids(outcome->forgotten, outcome->n_forgotten),
                "gone", (int)outcome->gone),
            err);
    }
    printf("forgotten: nobody can read it any more");
    if (others > 0) {
        printf(", nor %zu that came of it", others);
    }
    putchar('\n');
    return MEMOS_OK;
}

enum memos_status ctl_chat_forget(struct ctl_chat *chat, const char *which, struct memos_error *err)
{
    struct memos_id id;
    struct memos_message *reply = NULL;
    Memos__Forget body = MEMOS__FORGET__INIT;
    Memos__Request request = CTL_REQUEST(FORGET, forget, &body);
    enum memos_status status = find_which(chat, which, &id, err);
    if (status == MEMOS_OK && chat->ctl->asks &&
        !ctl_ask(chat->ctl, "Destroy it and every answer that came of it, for ever?")) {
        puts("nothing was forgotten");
        return MEMOS_OK;
    }
    if (status == MEMOS_OK) {
        const ProtobufCBinaryData field = ctl_id_field(&id);
        body.space = ctl_field(chat->space);
        body.reason = ctl_field("asked for in a chat");
        body.ids = (ProtobufCBinaryData *)(uintptr_t)&field;
        body.n_ids = 1;
        status = ctl_call(chat->ctl, &request, NULL, 0, MEMOS__REPLY__BODY_OUTCOME, &reply, err);
    }
    if (status == MEMOS_OK) {
        const Memos__Outcome *outcome = memos_message_reply(reply)->outcome;
        drop_turns(chat, &id);
        for (size_t i = 0; i < outcome->n_forgotten; i++) {
            struct memos_id gone = ctl_id_of(outcome->forgotten[i]);
            drop_turns(chat, &gone);
        }
        status = tell_forgotten(chat, outcome, err);
    }
    memos_message_free(&reply);
    return status;
}

/* In the prompt it says what it says now. */
static void replace_text(
    struct ctl_chat *chat, const struct memos_id *id, uint32_t version, struct memos_bytes text)
{
    for (size_t i = 0; i < chat->turns_count; i++) {
        struct ctl_turn *turn = &chat->turns[i];
        bool is_user = memos_id_equal(&turn->user_id, id);
        if (!is_user && !memos_id_equal(&turn->answer_id, id)) {
            continue;
        }
        struct memos_buffer *said = is_user ? &turn->user : &turn->answer;
        memos_buffer_reset(said);
        memos_buffer_bytes(said, text.data, text.size);
        turn->user_version = is_user ? version : turn->user_version;
    }
}

enum memos_status ctl_chat_correct(
    struct ctl_chat *chat, const char *which, const char *text, struct memos_error *err)
{
    struct memos_id id;
    struct memos_bytes frame = memos_bytes_of(text);
    struct memos_message *reply = NULL;
    Memos__Draft draft = MEMOS__DRAFT__INIT;
    Memos__Change change = MEMOS__CHANGE__INIT, *changes[] = {&change};
    Memos__Update update = MEMOS__UPDATE__INIT;
    Memos__Request request = CTL_REQUEST(UPDATE, update, &update);
    enum memos_status status = find_which(chat, which, &id, err);
    if (status == MEMOS_OK) {
        draft.frame = 1;
        change.id = ctl_id_field(&id);
        change.fields = MEMCUBE_FIELD_PAYLOAD;
        change.draft = &draft;
        update.space = ctl_field(chat->space);
        update.reason = ctl_field("corrected in a chat");
        update.changes = changes;
        update.n_changes = 1;
        status = ctl_call(chat->ctl, &request, &frame, 1, MEMOS__REPLY__BODY_OUTCOME, &reply, err);
    }
    if (status == MEMOS_OK) {
        const Memos__Outcome *outcome = memos_message_reply(reply)->outcome;
        uint32_t version = outcome->n_refs == 1 ? outcome->refs[0]->number : 0;
        replace_text(chat, &id, version, frame);
        if (chat->ctl->json) {
            status = ctl_chat_event(chat, "corrected",
                json_pack("{so,sI,sI}", "id", ctl_json_id(ctl_id_field(&id)), "version",
                    (json_int_t)version, "stale", (json_int_t)outcome->n_affected),
                err);
        } else {
            printf("corrected: version %u", version);
            printf(outcome->n_affected > 0 ? "; what came of the old one is not used any more\n"
                                           : "\n");
        }
    }
    memos_message_free(&reply);
    return status;
}
