/* Talking with a model that remembers: lines in, answers out. */
#include "tools/memosctl/chat.h"
#include "tools/memosctl/receipt.h"

#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES_MAX = 100 };

/* ---- commands ------------------------------------------------------------------------------- */

/* What begins with a slash. rest: what follows the word, without blanks around it. */
struct order {
    const char *word, *operands, *help;
    enum memos_status (*run)(struct ctl_chat *chat, char *rest, struct memos_error *err);
};

static enum memos_status run_help(struct ctl_chat *chat, char *rest, struct memos_error *err);

static enum memos_status run_memory(struct ctl_chat *chat, char *rest, struct memos_error *err)
{
    (void)rest;
    return ctl_chat_memory(chat, err);
}

static enum memos_status run_forget(struct ctl_chat *chat, char *rest, struct memos_error *err)
{
    return rest[0] ? ctl_chat_forget(chat, rest, err)
                   : memos_fail(err, MEMOS_INVALID, "/forget what? A number of /memory, or an id");
}

static enum memos_status run_correct(struct ctl_chat *chat, char *rest, struct memos_error *err)
{
    char *text = rest + strcspn(rest, " \t");
    if (*text) {
        *text++ = '\0';
        text += strspn(text, " \t");
    }
    return rest[0] && text[0] ? ctl_chat_correct(chat, rest, text, err)
                              : memos_fail(err, MEMOS_INVALID,
                                    "/correct a number of /memory, or an id, and the "
                                    "new text");
}

static enum memos_status run_remember(struct ctl_chat *chat, char *rest, struct memos_error *err)
{
    return rest[0] ? ctl_chat_remember(chat, rest, err)
                   : memos_fail(err, MEMOS_INVALID, "/remember what?");
}

static enum memos_status run_receipt(struct ctl_chat *chat, char *rest, struct memos_error *err)
{
    const Memos__Receipt *receipt = ctl_chat_receipt(chat);
    if (rest[0] && receipt) {
        return ctl_receipt_write(rest, receipt, err);
    } else if (!receipt) {
        return memos_fail(err, MEMOS_NOT_FOUND, "there is no answer with a receipt yet");
    }
    return chat->ctl->json ? ctl_chat_event(chat, "receipt",
                                 json_pack("{so}", "receipt", ctl_receipt_json(receipt)), err)
                           : ctl_receipt_print(chat->ctl, receipt, NULL, err);
}

static enum memos_status tell_session(struct ctl_chat *chat, struct memos_error *err)
{
    return ctl_chat_event(chat, "session",
        json_pack("{so,so,so}", "space", ctl_json_string(chat->space), "model",
            ctl_json_string(chat->model.name), "fingerprint",
            ctl_json_hex(chat->model.fingerprint)),
        err);
}

static enum memos_status run_new(struct ctl_chat *chat, char *rest, struct memos_error *err)
{
    (void)rest;
    ctl_chat_begin(chat);
    if (chat->ctl->json) {
        return tell_session(chat, err);
    }
    puts("a new conversation; what was said before is memory");
    return MEMOS_OK;
}

static const struct order orders[] = {
    {"/memory", "", "what the last answer was made with", run_memory},
    {"/correct", " N|ID TEXT", "it says TEXT from now on", run_correct},
    {"/forget", " N|ID", "destroy it, and the answers that came of it", run_forget},
    {"/remember", " TEXT", "keep a fact, without an answer", run_remember},
    {"/receipt", " [FILE]", "the receipt of the last answer", run_receipt},
    {"/new", "", "begin a new conversation; this one is memory then", run_new},
    {"/help", "", "this", run_help},
    {"/quit", "", "end (so does Ctrl-D)", NULL},
};
enum { ORDERS = sizeof orders / sizeof orders[0] };

static enum memos_status run_help(struct ctl_chat *chat, char *rest, struct memos_error *err)
{
    char left[64];
    (void)chat;
    (void)rest;
    (void)err;
    for (size_t i = 0; i < ORDERS; i++) {
        snprintf(left, sizeof left, "%s%s", orders[i].word, orders[i].operands);
        fprintf(chat->ctl->json ? stderr : stdout, "%-22s %s\n", left, orders[i].help);
    }
    fputs("N is a number of /memory. Ctrl-C stops an answer. A line that ends in \\ goes on.\n",
        chat->ctl->json ? stderr : stdout);
    return MEMOS_OK;
}

/* *out_quit: that was /quit. */
static enum memos_status obey(
    struct ctl_chat *chat, char *line, bool *out_quit, struct memos_error *err)
{
    size_t size = strcspn(line, " \t");
    char *rest = line + size + strspn(line + size, " \t");
    for (size_t i = 0; i < ORDERS; i++) {
        if (strlen(orders[i].word) == size && strncmp(line, orders[i].word, size) == 0) {
            *out_quit = !orders[i].run;
            return orders[i].run ? orders[i].run(chat, rest, err) : MEMOS_OK;
        }
    }
    chat->ctl->hint = "/help lists what there is; a message may begin with a blank";
    return memos_fail(err, MEMOS_INVALID, "there is no %.*s", (int)(size < 40 ? size : 40), line);
}

/* ---- lines ---------------------------------------------------------------------------------- */

/* The next line without its end, as far as a \ at its end lets it go on; false at the end. Ctrl-C
 * drops what was begun. */
static bool read_line(struct ctl_chat *chat, struct memos_buffer *out)
{
    enum ctl_line end = CTL_LINE;
    bool goes_on = true;
    memos_buffer_reset(out);
    while (end != CTL_LINE_END && goes_on) {
        if (chat->ctl->asks) {
            fputs(out->size > 0 ? ".. " : "> ", stderr);
        }
        end = ctl_line_read(&chat->ctl->lines, out);
        if (end == CTL_LINE_STOPPED) {
            ctl_stops_forget();
            fputs(out->size > 0 ? "\n" : "\n(Ctrl-D ends)\n", stderr);
            memos_buffer_reset(out);
            continue;
        }
        goes_on = out->size > 0 && out->data[out->size - 1] == '\\';
        if (goes_on) {
            out->data[out->size - 1] = '\n';
        }
    }
    bool has_text = out->size > 0;
    memos_buffer_u8(out, '\0');
    return !out->failed && (has_text || end != CTL_LINE_END);
}

static bool is_blank(const char *text)
{
    return text[strspn(text, " \t\r\n")] == '\0';
}

/* Tell what went wrong, and go on. */
static void tell_error(
    struct ctl_chat *chat, enum memos_status status, const struct memos_error *err)
{
    struct ctl *ctl = chat->ctl;
    chat->failed = chat->failed == MEMOS_OK ? status : chat->failed;
    if (ctl->json) {
        const char *hint = ctl->hint && ctl->hint[0] ? ctl->hint : memos_status_hint(status);
        (void)!ctl_chat_event(chat, "error",
            json_pack("{ss,so,so}", "status", memos_status_name(status), "message",
                ctl_json_string(err->text), "hint", ctl_json_string(hint)),
            NULL);
    } else {
        fflush(stdout);
        ctl_error_print(ctl, status, err);
    }
    ctl->hint = NULL;
}

static void converse(struct ctl_chat *chat)
{
    struct memos_buffer line = memos_buffer_make((size_t)16 << 20);
    bool is_over = false;
    while (!is_over && read_line(chat, &line)) {
        struct memos_error err = {0};
        char *text = (char *)line.data;
        enum memos_status status = MEMOS_OK;
        chat->ctl->hint = NULL;
        if (text[0] == '/') {
            status = obey(chat, text, &is_over, &err);
        } else if (!is_blank(text) && !memos_bytes_utf8(memos_bytes_of(text))) {
            status = memos_fail(&err, MEMOS_INVALID, "what you say is no UTF-8");
        } else if (!is_blank(text)) {
            status = ctl_chat_say(chat, memos_bytes_of(text), &err);
        }
        if (status != MEMOS_OK) {
            tell_error(chat, status, &err);
        }
        ctl_stops_forget();
        fflush(stdout);
    }
    memos_buffer_free(&line);
}

/* ---- the command ---------------------------------------------------------------------------- */

/* A model without a template still has to be told who speaks. */
static void choose_template(struct ctl_chat *chat)
{
    if (!chat->options.template_[0] && !chat->model.template[0]) {
        chat->options.template_ = ctl_field("chatml");
        ctl_note(chat->ctl,
            "%s has no chat template that is known: chatml is used (--template "
            "names another)",
            chat->model.name);
    }
}

static enum memos_status prepare(struct ctl_chat *chat, struct memos_error *err)
{
    struct ctl *ctl = chat->ctl;
    const char *myself = ctl_args_value(ctl->args, CTL_MYSELF);
    chat->space = ctl_operand(ctl, 0);
    chat->speaker = myself ? myself : "user";
    if (!chat->speaker[0] || strlen(chat->speaker) > NAME_BYTES_MAX) {
        return memos_fail(err, MEMOS_INVALID, "--as takes a name of 1 to %d bytes", NAME_BYTES_MAX);
    }
    enum memos_status status = ctl_generate_options(ctl, &chat->options, err);
    if (status == MEMOS_OK) {
        status = ctl_ask_memory(ctl, chat->space, &chat->memory, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_system_read(ctl, &chat->system, &chat->has_system, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_ask_model(ctl, &chat->model, err);
    }
    return status;
}

enum memos_status ctl_run_chat(struct ctl *ctl, struct memos_error *err)
{
    struct ctl_chat chat = {.ctl = ctl, .options = MEMOS__GENERATE__INIT};
    chat.system = memos_buffer_make(0);
    enum memos_status status = prepare(&chat, err);
    if (status == MEMOS_OK) {
        choose_template(&chat);
        ctl_chat_begin(&chat);
        ctl_catch_stops();
        if (ctl->json) {
            status = tell_session(&chat, err);
        } else if (ctl->asks) {
            ctl_note(ctl, "%s remembers in the space '%s'; /help lists what else can be said",
                chat.model.name, chat.space);
        }
    }
    if (status == MEMOS_OK) {
        converse(&chat);
        if (ctl->asks) {
            fputc('\n', stderr);
        }
        /* who pipes a conversation through wants to know whether all of it was answered */
        if (!ctl->asks && chat.failed != MEMOS_OK) {
            status = memos_fail(err, chat.failed, "something in this conversation failed");
            ctl->hint = "the first thing that did is told above";
        }
    }
    ctl_chat_free(&chat);
    return status;
}
