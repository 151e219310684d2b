/* A host model speaks in a worker, and remembers: `generate` by way of the broker. */
#include "tools/memosctl/ask.h"
#include "tools/memosctl/input.h"
#include "tools/memosctl/receipt.h"

#include <stdlib.h>

enum { FRAMES_MAX = 2, WORD_BYTES_MAX = 160 };

/* ---- what is asked -------------------------------------------------------------------------- */

static enum memos_status take_sampling(
    struct ctl *ctl, Memos__Generate *out, struct memos_error *err)
{
    struct paramem_sampling drawn;
    uint32_t own;
    Memos__Sampling *sampling = memos_arena_take(&ctl->arena, 1, sizeof *sampling);
    if (!sampling) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for the request");
    }
    memos__sampling__init(sampling);
    enum memos_status status = ctl_sampling_take(ctl, NULL, &drawn, &own, err);
    sampling->temperature = drawn.temperature;
    sampling->top_p = drawn.top_p;
    sampling->min_p = drawn.min_p;
    sampling->top_k = (uint32_t)drawn.top_k;
    sampling->repetition = drawn.repetition;
    sampling->seed = drawn.seed;
    sampling->own = own;
    out->sampling = sampling;
    return status;
}

enum memos_status ctl_generate_options(
    struct ctl *ctl, Memos__Generate *out, struct memos_error *err)
{
    uint64_t tokens;
    const char **stops = memos_arena_take(&ctl->arena, CTL_STOPS_MAX, sizeof *stops);
    enum memos_status status = stops ? take_sampling(ctl, out, err)
                                     : memos_fail(err, MEMOS_NO_MEMORY, "no memory for --stop");
    if (status == MEMOS_OK) {
        status = ctl_stops_take(ctl, stops, &out->n_stops, err);
        out->stops = (char **)(uintptr_t)stops;
    }
    if (status == MEMOS_OK) {
        status = ctl_args_number(
            ctl->args, CTL_MAX_TOKENS, CTL_TOKENS_USUAL, 1, CTL_TOKENS_MAX, &tokens, err);
        out->max_tokens = (uint32_t)tokens;
        out->fit_tokens = !ctl_args_has(ctl->args, CTL_MAX_TOKENS);
    }
    out->no_thinking = ctl_args_has(ctl->args, CTL_NO_THINKING);
    out->template_ = ctl_field(ctl_args_value(ctl->args, CTL_TEMPLATE));
    out->keep_receipt = ctl_args_has(ctl->args, CTL_KEEP_RECEIPT);
    return status;
}

/* A turn of a conversation, or a text to go on from. */
struct prompt {
    struct memos_buffer system;
    struct memos_bytes frames[FRAMES_MAX];
    size_t frames_count;
    Memos__ChatMessage messages[FRAMES_MAX], *pointers[FRAMES_MAX];
};

static void add_message(
    struct prompt *prompt, Memos__Generate *out, const char *role, struct memos_bytes text)
{
    Memos__ChatMessage *message = &prompt->messages[out->n_messages];
    memos__chat_message__init(message);
    prompt->frames[prompt->frames_count++] = text;
    message->role = ctl_field(role);
    message->frame = (uint32_t)prompt->frames_count;
    prompt->pointers[out->n_messages++] = message;
    out->messages = prompt->pointers;
}

static enum memos_status make_prompt(struct ctl *ctl, const struct ctl_ask_model *model,
    struct memos_bytes text, struct prompt *prompt, Memos__Generate *out, struct memos_error *err)
{
    bool is_chat, is_given = false;
    enum memos_status status = ctl_is_chat(ctl, model->template[0] != '\0', &is_chat, err);
    if (status == MEMOS_OK && text.size == 0) {
        status = memos_fail(err, MEMOS_INVALID, "there is no text to go on from");
    } else if (status == MEMOS_OK && !memos_bytes_utf8(text)) {
        status = memos_fail(err, MEMOS_INVALID, "what the user says is no UTF-8");
    }
    if (status == MEMOS_OK && is_chat) {
        status = ctl_system_read(ctl, &prompt->system, &is_given, err);
        if (is_given) {
            add_message(prompt, out, "system", memos_buffer_view(&prompt->system));
        }
        add_message(prompt, out, "user", text);
    } else {
        prompt->frames[prompt->frames_count++] = text;
        out->prompt_frame = 1;
    }
    return status;
}

/* ---- what is said --------------------------------------------------------------------------- */

static struct ctl_answer_piece piece_of(const Memos__TokenLogprob *token)
{
    return (struct ctl_answer_piece){token->id, memos_bytes_of(token->text), token->logprob};
}

void ctl_generate_tokens(struct ctl_answer *answer, const Memos__Tokens *tokens)
{
    struct ctl_answer_piece top[KERN_TOP_MAX];
    size_t each = tokens->n_tokens > 0 ? tokens->n_top / tokens->n_tokens : 0;
    ctl_answer_text(answer, memos_bytes_of(tokens->text));
    for (size_t i = 0; i < tokens->n_tokens && answer->tells_logprobs; i++) {
        struct ctl_answer_piece piece = piece_of(tokens->tokens[i]);
        size_t count = each < KERN_TOP_MAX ? each : KERN_TOP_MAX;
        for (size_t k = 0; k < count; k++) {
            top[k] = piece_of(tokens->top[i * each + k]);
        }
        ctl_answer_token(answer, &piece, top, count);
    }
}

static void on_more(void *self, const struct memos_message *message)
{
    const Memos__Reply *reply = memos_message_reply(message);
    if (reply->body_case == MEMOS__REPLY__BODY_TOKENS) {
        ctl_generate_tokens(self, reply->tokens);
    }
}

static json_t *result_json(const struct ctl_answer *answer, const Memos__Generate *asked,
    const struct ctl_ask_model *model, const Memos__Generated *g)
{
    const Memos__Receipt *receipt = g->receipt;
    uint64_t read_us =
        g->first_us > g->queued_us + g->memory_us ? g->first_us - g->queued_us - g->memory_us : 0;
    json_t *object = json_pack("{so,so,so,sO?,ss,so,sI,sI,sI,sI,sI}", "model",
        ctl_json_string(model->name), "fingerprint", ctl_json_hex(model->fingerprint), "text",
        ctl_json_text(memos_buffer_view(&answer->text)), "tokens",
        answer->tells_logprobs ? answer->tokens : NULL, "finish", ctl_finish_name(g->finish),
        "stop", g->stop_string[0] ? ctl_json_string(g->stop_string) : json_null(), "prompt_tokens",
        (json_int_t)g->prompt_tokens, "cached_tokens", (json_int_t)g->cached_tokens, "cut_tokens",
        (json_int_t)g->cut_tokens, "answer_tokens", (json_int_t)g->tokens, "seed",
        (json_int_t)asked->sampling->seed);
    json_t *more = json_pack("{so,so,sf,sf,sf,sf,sf,so,so}", "space", ctl_json_string(asked->space),
        "worker", ctl_json_string(receipt ? receipt->worker : ""), "queued_seconds",
        (double)g->queued_us / 1e6, "memory_seconds", (double)g->memory_us / 1e6, "first_seconds",
        (double)g->first_us / 1e6, "prompt_per_second",
        ctl_rate(g->prompt_tokens - g->cached_tokens, read_us), "answer_per_second",
        ctl_rate(g->tokens > 0 ? g->tokens - 1 : 0, g->total_us - g->first_us), "receipt",
        receipt ? ctl_receipt_json(receipt) : json_null(), "receipt_ref",
        g->receipt_ref ? json_pack("{so,sI}", "id", ctl_json_id(g->receipt_ref->id), "version",
                             (json_int_t)g->receipt_ref->number)
                       : json_null());
    (void)json_object_update(object, more);
    json_decref(more);
    return object;
}

/* "; memory: 3 cubes, 210 tokens", or nothing. */
static void say_memory(const Memos__Generated *g, char out[WORD_BYTES_MAX])
{
    uint64_t tokens = 0, cubes = 0;
    bool is_approximate = false;
    for (size_t i = 0; g->receipt && i < g->receipt->n_items; i++) {
        const Memos__ReceiptItem *item = g->receipt->items[i];
        bool is_text = item->used_as != WORKER_USED_KV; /* whose texts are told one by one */
        cubes += is_text;
        tokens += is_text ? item->tokens : 0;
        is_approximate = is_approximate || item->approximate;
    }
    out[0] = '\0';
    if (cubes > 0) {
        snprintf(out, WORD_BYTES_MAX, "; memory: %llu cube%s, %llu tokens%s",
            (unsigned long long)cubes, cubes == 1 ? "" : "s", (unsigned long long)tokens,
            is_approximate ? ", some of it approximate" : "");
    }
}

static void note_result(struct ctl *ctl, const Memos__Generate *asked, const Memos__Generated *g)
{
    char memory[WORD_BYTES_MAX], seed[40] = "", cached[48] = "";
    say_memory(g, memory);
    bool draws = asked->sampling->temperature > 0.0f || (asked->sampling->own & CTL_OWN_HEAT);
    if (draws) {
        snprintf(seed, sizeof seed, "; seed %llu", (unsigned long long)asked->sampling->seed);
    }
    if (g->cached_tokens > 0) {
        snprintf(cached, sizeof cached, ", %u of them not computed", g->cached_tokens);
    }
    ctl_note(ctl, "%u tokens read%s, %u written (%.1f/s)%s; end: %s%s", g->prompt_tokens, cached,
        g->tokens, ctl_rate(g->tokens > 0 ? g->tokens - 1 : 0, g->total_us - g->first_us), memory,
        ctl_finish_name(g->finish), seed);
    if (g->cut_tokens > 0) {
        ctl_note(ctl, "%u tokens of the prompt's beginning were left out", g->cut_tokens);
    }
    for (size_t i = 0; g->receipt && i < g->receipt->n_notes; i++) {
        ctl_note(ctl, "memory: %.200s", g->receipt->notes[i]);
    }
}

static void note_kept(struct ctl *ctl, const Memos__Generated *g)
{
    char text[MEMOS_ID_TEXT_BYTES];
    if (g->receipt_ref) {
        struct memos_id id = ctl_id_of(g->receipt_ref->id);
        ctl_note(ctl, "receipt kept as %s", memos_id_format(&id, text));
    }
}

enum memos_status ctl_receipt_write(
    const char *path, const Memos__Receipt *receipt, struct memos_error *err)
{
    struct ctl_file file;
    json_t *json = ctl_receipt_json(receipt);
    char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
    json_decref(json);
    enum memos_status status = text ? ctl_file_create(path, &file, err)
                                    : memos_fail(err, MEMOS_NO_MEMORY, "no memory for the receipt");
    if (status == MEMOS_OK) {
        status = ctl_file_write(&file, memos_bytes_of(text), err);
        if (status == MEMOS_OK) {
            status = ctl_file_write(&file, memos_bytes_of("\n"), err);
        }
        if (status == MEMOS_OK) {
            status = ctl_file_commit(&file, err);
        }
        ctl_file_abort(&file);
    }
    free(text);
    return status;
}

static enum memos_status show_result(struct ctl_answer *answer, const Memos__Generate *asked,
    const struct ctl_ask_model *model, const Memos__Generated *g, struct memos_error *err)
{
    struct ctl *ctl = answer->ctl;
    const char *path = ctl_args_value(ctl->args, CTL_RECEIPT_TO);
    enum memos_status status = MEMOS_OK;
    if (ctl->json) {
        status = ctl_json_print(result_json(answer, asked, model, g), err);
    } else {
        note_result(ctl, asked, g);
        note_kept(ctl, g);
    }
    if (status == MEMOS_OK && path && !g->receipt) {
        status = memos_fail(err, MEMOS_NOT_FOUND, "the worker gave no receipt");
    } else if (status == MEMOS_OK && path) {
        status = ctl_receipt_write(path, g->receipt, err);
    }
    if (status == MEMOS_OK && g->finish == PARAMEM_FINISH_CANCELLED) {
        status = memos_fail(err, MEMOS_CANCELLED, "stopped after %u tokens", g->tokens);
    } else if (status == MEMOS_OK && g->finish == PARAMEM_FINISH_DEADLINE) {
        status = memos_fail(err, MEMOS_DEADLINE, "out of time after %u tokens", g->tokens);
    }
    return status;
}

static enum memos_status ask(struct ctl *ctl, Memos__Generate *generate,
    const struct ctl_ask_model *model, const struct prompt *prompt, size_t top_max,
    struct memos_error *err)
{
    struct ctl_answer answer;
    struct memos_message *reply = NULL;
    Memos__Request request = CTL_REQUEST(GENERATE, generate, generate);
    ctl_answer_init(&answer, ctl);
    answer.top_max = top_max;
    enum memos_status status = ctl_ask_call(ctl,
        &(struct ctl_ask){.request = &request,
            .frames = prompt->frames,
            .frames_count = prompt->frames_count,
            .want = MEMOS__REPLY__BODY_GENERATED,
            .on_more = on_more,
            .self = &answer},
        &reply, err);
    const Memos__Reply *last = reply ? memos_message_reply(reply) : NULL;
    bool is_told = last && last->body_case == MEMOS__REPLY__BODY_GENERATED;
    if (answer.text.size > 0 || status == MEMOS_OK) {
        ctl_answer_end(&answer);
    }
    if (is_told) { /* also with CANCELLED and DEADLINE: it says how far it came */
        enum memos_status shown = show_result(&answer, generate, model, last->generated, err);
        status = status == MEMOS_OK ? shown : status;
    } else if (status != MEMOS_OK && ctl->json && answer.text.size > 0) {
        status = ctl_json_print(json_pack("{so,so,ss,so}", "model", ctl_json_string(model->name),
                                    "text", ctl_json_text(memos_buffer_view(&answer.text)),
                                    "finish", "failed", "error", ctl_json_string(err->text)),
                     NULL) == MEMOS_OK
                     ? status
                     : MEMOS_IO;
    }
    memos_message_free(&reply);
    ctl_answer_free(&answer);
    return status;
}

enum memos_status ctl_generate_asked(
    struct ctl *ctl, struct memos_bytes text, struct memos_error *err)
{
    Memos__Generate generate = MEMOS__GENERATE__INIT;
    struct ctl_ask_memory memory;
    struct ctl_ask_model model;
    struct prompt prompt = {.system = memos_buffer_make(0)};
    uint64_t top = 0;
    generate.space = ctl_field(ctl_args_value(ctl->args, CTL_MEMORY_OF));
    enum memos_status status =
        ctl_args_number(ctl->args, CTL_LOGPROBS, 0, 0, KERN_TOP_MAX, &top, err);
    if (status == MEMOS_OK) {
        /* without alternatives no texts of tokens would come */
        bool is_asked = ctl_args_has(ctl->args, CTL_LOGPROBS);
        generate.top_logprobs = is_asked && top == 0 ? 1 : (uint32_t)top;
        status = ctl_generate_options(ctl, &generate, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_ask_model(ctl, &model, err);
    }
    if (status == MEMOS_OK) {
        generate.model = ctl_field(model.name);
        status = make_prompt(ctl, &model, text, &prompt, &generate, err);
    }
    if (status == MEMOS_OK && generate.space[0]) {
        status = ctl_ask_memory(ctl, generate.space, &memory, err);
        generate.memory = &memory.memory;
    }
    if (status == MEMOS_OK) {
        status = ask(ctl, &generate, &model, &prompt, (size_t)top, err);
    }
    memos_buffer_free(&prompt.system);
    return status;
}
