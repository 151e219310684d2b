/* A conversation with a model that remembers.
 *
 * Every message becomes a cube of the space as soon as it is whole: subtype "message", with who
 * said it, when, and in which conversation (attribute "session"). An answer is derived from the
 * message that it answers and from the memory that it was made with, so that what is corrected
 * makes it stale, and what is forgotten takes it along.
 *
 * The prompt is the conversation's turns; what no longer fits is left out from the front, in whole
 * turns, and is memory from then on. What the prompt has, memory does not bring again.
 *
 * Threads: one. */
#ifndef TOOLS_MEMOSCTL_CHAT_H
#define TOOLS_MEMOSCTL_CHAT_H

#include "tools/memosctl/ask.h"

/* A message and its answer. Texts are on the heap. */
struct ctl_turn {
    struct memos_id user_id, answer_id; /* nil: not kept */
    uint32_t user_version;
    struct memos_buffer user, answer;
    bool is_gone; /* one of both was forgotten: it is in no prompt */
};

struct ctl_chat {
    struct ctl *ctl;
    const char *space, *speaker;
    struct ctl_ask_model model;
    Memos__Generate options; /* of every answer */
    struct ctl_ask_memory memory;
    struct memos_buffer system;
    bool has_system;
    struct memos_id_source ids;
    char session[MEMOS_ID_TEXT_BYTES];
    unsigned said; /* messages of this session */
    struct ctl_turn *turns;
    size_t turns_count, turns_capacity;
    size_t turns_first;         /* those before it are left to memory */
    double bytes_per_token;     /* as seen last */
    struct memos_message *last; /* of the last answer; NULL: there is none */
    enum memos_status failed;   /* the first thing that failed */
};

/* A new conversation: nothing is in its prompt. */
void ctl_chat_begin(struct ctl_chat *chat);
void ctl_chat_free(struct ctl_chat *chat);

/* Say something: it is kept, answered, and the answer is kept. What fails has been told, but for
 * what is returned. */
MEMOS_MUST_USE enum memos_status ctl_chat_say(
    struct ctl_chat *chat, struct memos_bytes text, struct memos_error *err);

/* ---- what is kept (chat_keep.c) ------------------------------------------------------------- */

/* Keep the message or (is_answer) the answer of a turn, which gets its id. finish: how the answer
 * ended, or NULL. */
MEMOS_MUST_USE enum memos_status ctl_chat_keep(struct ctl_chat *chat, struct ctl_turn *turn,
    bool is_answer, const char *finish, struct memos_error *err);

/* /remember TEXT. */
MEMOS_MUST_USE enum memos_status ctl_chat_remember(
    struct ctl_chat *chat, const char *text, struct memos_error *err);

/* /memory: what the last answer was made with. */
MEMOS_MUST_USE enum memos_status ctl_chat_memory(struct ctl_chat *chat, struct memos_error *err);

/* /forget WHICH, /correct WHICH TEXT. which: a number of /memory, or an id. */
MEMOS_MUST_USE enum memos_status ctl_chat_forget(
    struct ctl_chat *chat, const char *which, struct memos_error *err);
MEMOS_MUST_USE enum memos_status ctl_chat_correct(
    struct ctl_chat *chat, const char *which, const char *text, struct memos_error *err);

/* The receipt of the last answer; NULL: there is none. */
const Memos__Receipt *ctl_chat_receipt(const struct ctl_chat *chat);

/* Item i of it that is a text (captures themselves are left out), from 0; NULL past the last. */
const Memos__ReceiptItem *ctl_chat_item(const struct ctl_chat *chat, size_t i);

/* One line of --json; takes the object. */
MEMOS_MUST_USE enum memos_status ctl_chat_event(
    struct ctl_chat *chat, const char *event, json_t *object, struct memos_error *err);

#endif
