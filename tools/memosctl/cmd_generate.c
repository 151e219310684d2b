/* A host model speaks, while somebody reads: in this process, or (ask_generate.c) in a worker. */
#include "paramem/chat.h"
#include "paramem/prompt.h"
#include "tools/memosctl/answer.h"
#include "tools/memosctl/ask.h"
#include "tools/memosctl/host.h"
#include "tools/memosctl/input.h"

#include <stdlib.h>

/* ---- what it is asked ----------------------------------------------------------------------- */

/* A token as it is written; "" when there is none. */
static const char *token_text(struct ctl *ctl, const struct ctl_host *host, uint32_t id)
{
    const char *text = memos_arena_copy(&ctl->arena, paramem_tokenizer_bytes(host->tokenizer, id));
    return text ? text : "";
}

static enum memos_status open_chat(struct ctl *ctl, const struct ctl_host *host,
    struct paramem_chat **out, struct memos_error *err)
{
    struct paramem_tokenizer_info info;
    paramem_tokenizer_describe(host->tokenizer, &info);
    enum memos_status status =
        paramem_chat_open(ctl_args_value(ctl->args, CTL_TEMPLATE), host->info.chat_template,
            token_text(ctl, host, info.bos_id), token_text(ctl, host, info.eos_id), out, err);
    if (status == MEMOS_UNSUPPORTED) {
        ctl->hint = "--template names one, or --raw goes on with the text as it is";
    }
    return status;
}

static enum memos_status add_message(
    json_t *messages, const char *role, struct memos_bytes text, struct memos_error *err)
{
    if (!memos_bytes_utf8(text)) {
        return memos_fail(err, MEMOS_INVALID, "what the %s says is no UTF-8", role);
    }
    json_t *message = json_pack("{ss,ss%}", "role", role, "content",
        text.size > 0 ? (const char *)text.data : "", text.size);
    return message && json_array_append_new(messages, message) == 0
               ? MEMOS_OK
               : memos_fail(err, MEMOS_NO_MEMORY, "no memory for the conversation");
}

static enum memos_status make_messages(
    struct ctl *ctl, struct memos_bytes text, json_t *messages, struct memos_error *err)
{
    struct memos_buffer system;
    bool is_given;
    enum memos_status status = ctl_system_read(ctl, &system, &is_given, err);
    if (status == MEMOS_OK && is_given) {
        status = add_message(messages, "system", memos_buffer_view(&system), err);
    }
    memos_buffer_free(&system);
    return status == MEMOS_OK ? add_message(messages, "user", text, err) : status;
}

/* The ids of a conversation of one turn, up to where the model answers. */
static enum memos_status encode_chat(struct ctl *ctl, const struct ctl_host *host,
    struct memos_bytes text, struct paramem_ids *out, struct memos_error *err)
{
    struct paramem_chat_options options = {
        .generation_prompt = true, .no_thinking = ctl_args_has(ctl->args, CTL_NO_THINKING)};
    struct paramem_chat *chat = NULL;
    struct paramem_span *plain = NULL;
    size_t plain_count = 0;
    struct memos_buffer rendered = memos_buffer_make((size_t)CTL_FILE_BYTES_MAX);
    json_t *messages = json_array();
    enum memos_status status = open_chat(ctl, host, &chat, err);
    if (status == MEMOS_OK) {
        status = make_messages(ctl, text, messages, err);
    }
    if (status == MEMOS_OK) {
        status =
            paramem_chat_render(chat, messages, &options, &rendered, &plain, &plain_count, err);
    }
    if (status == MEMOS_OK) {
        status = paramem_prompt_encode(
            host->tokenizer, memos_buffer_view(&rendered), plain, plain_count, out, err);
    }
    json_decref(messages);
    free(plain);
    paramem_chat_close(&chat);
    memos_buffer_free(&rendered);
    return status;
}

static enum memos_status encode(struct ctl *ctl, const struct ctl_host *host,
    struct memos_bytes text, struct paramem_ids *out, struct memos_error *err)
{
    bool is_chat;
    enum memos_status status = ctl_is_chat(ctl, host->info.chat_template != NULL, &is_chat, err);
    if (status != MEMOS_OK) {
        return status;
    }
    return is_chat ? encode_chat(ctl, host, text, out, err)
                   : paramem_tokenizer_encode(host->tokenizer, text, PARAMEM_ADD_SPECIAL, out, err);
}

/* ---- what it says --------------------------------------------------------------------------- */

struct said {
    const struct ctl_host *host;
    struct ctl_answer answer;
    bool is_done;
    struct paramem_result result;
    char stop_string[256];
    struct memos_error err; /* of the result */
};

static struct ctl_answer_piece piece_of(const struct said *said, uint32_t id, float logprob)
{
    return (struct ctl_answer_piece){
        id, paramem_tokenizer_bytes(said->host->tokenizer, id), logprob};
}

static void on_token(void *self, const struct paramem_token *token)
{
    struct said *said = self;
    struct ctl_answer_piece top[KERN_TOP_MAX], piece = piece_of(said, token->id, token->logprob);
    for (size_t i = 0; i < token->top_count; i++) {
        top[i] = piece_of(said, token->top_ids[i], token->top_logprobs[i]);
    }
    ctl_answer_text(&said->answer, token->text);
    ctl_answer_token(&said->answer, &piece, top, token->top_count);
}

static void on_done(void *self, const struct paramem_result *result)
{
    struct said *said = self;
    said->is_done = true;
    said->result = *result;
    if (result->stop_string) {
        snprintf(said->stop_string, sizeof said->stop_string, "%s", result->stop_string);
    }
    said->result.stop_string = result->stop_string ? said->stop_string : NULL;
    if (result->err) {
        said->err = *result->err;
        said->result.err = &said->err;
    }
}

static enum memos_status print_result(
    struct said *said, const struct paramem_sampling *sampling, struct memos_error *err)
{
    const struct paramem_result *r = &said->result;
    const struct ctl_host *host = said->host;
    struct ctl *ctl = said->answer.ctl;
    const char *finish = ctl_finish_name(r->finish);
    /* the first token is the end of reading; those after it are what writing takes */
    size_t later = r->tokens > 0 ? r->tokens - 1 : 0;
    double reads = ctl_rate(r->prompt_tokens, r->first_us);
    double writes = r->tokens > 0 ? ctl_rate(later, r->total_us - r->first_us) : 0.0;
    if (ctl->json) {
        return ctl_json_print(
            json_pack("{so,so,so,ss,sO?,ss,so?,sI,sI,sI,sf,sf,sf,sf}", "model",
                ctl_json_string(host->path), "fingerprint",
                ctl_json_hex((ProtobufCBinaryData){
                    sizeof host->info.fingerprint, (uint8_t *)(uintptr_t)host->info.fingerprint}),
                "text", ctl_json_text(memos_buffer_view(&said->answer.text)), "backend",
                kern_ctx_name(host->ctx), "tokens",
                said->answer.tells_logprobs ? said->answer.tokens : NULL, "finish", finish, "stop",
                r->stop_string ? ctl_json_string(r->stop_string) : NULL, "prompt_tokens",
                (json_int_t)r->prompt_tokens, "answer_tokens", (json_int_t)r->tokens, "seed",
                (json_int_t)sampling->seed, "load_seconds", (double)host->load_us / 1e6,
                "first_seconds", (double)r->first_us / 1e6, "prompt_per_second", reads,
                "answer_per_second", writes),
            err);
    }
    ctl_answer_end(&said->answer);
    char seed[32] = "";
    if (sampling->temperature > 0.0f) {
        snprintf(seed, sizeof seed, "; seed %llu", (unsigned long long)sampling->seed);
    }
    ctl_note(ctl, "%zu tokens read (%.1f/s), %zu written (%.1f/s) on %s; end: %s%s",
        r->prompt_tokens, reads, r->tokens, writes, kern_ctx_name(host->ctx), finish, seed);
    return MEMOS_OK;
}

/* ---- the run -------------------------------------------------------------------------------- */

static enum memos_status step_to_end(
    struct ctl_host *host, struct said *said, uint64_t id, struct memos_error *err)
{
    bool more = true, is_cancelled = false;
    enum memos_status status = MEMOS_OK;
    while (status == MEMOS_OK && more && !said->is_done) {
        if (ctl_stopped() && !is_cancelled) {
            paramem_engine_cancel(host->engine, id);
            is_cancelled = true;
        }
        status = paramem_engine_step(host->engine, &more, err);
    }
    return status;
}

static enum memos_status speak(struct ctl *ctl, struct ctl_host *host,
    struct paramem_request *request, struct said *said, struct memos_error *err)
{
    uint64_t id;
    request->on_token = on_token;
    request->on_done = on_done;
    request->self = said;
    enum memos_status status =
        ctl_host_engine(ctl, host, request->prompt_count + request->max_tokens, err);
    if (status == MEMOS_OK) {
        status = paramem_engine_submit(host->engine, request, &id, err);
    }
    if (status == MEMOS_TOO_LARGE) {
        ctl->hint = "give a shorter text, fewer --max-tokens, or more --context";
    }
    if (status == MEMOS_OK) {
        status = step_to_end(host, said, id, err);
    }
    paramem_engine_destroy(&host->engine); /* what a failed step has left ends here */
    if (said->is_done) {
        enum memos_status printed = print_result(said, &request->sampling, err);
        status = status == MEMOS_OK ? printed : status;
    }
    if (status == MEMOS_OK && said->result.finish == PARAMEM_FINISH_FAILED) {
        *err = said->err;
        status = said->result.status;
    } else if (status == MEMOS_OK && said->result.finish == PARAMEM_FINISH_CANCELLED) {
        status = memos_fail(err, MEMOS_CANCELLED, "stopped after %zu tokens", said->result.tokens);
    }
    return status;
}

/* How much it may write: what is asked, else the usual, or what the context leaves of it. */
static enum memos_status take_length(struct ctl *ctl, const struct ctl_host *host,
    size_t prompt_count, size_t *out, struct memos_error *err)
{
    size_t context = host->info.context_max;
    size_t left = prompt_count < context ? context - prompt_count : 1;
    uint64_t tokens;
    enum memos_status status = ctl_args_number(ctl->args, CTL_MAX_TOKENS,
        left < CTL_TOKENS_USUAL ? left : CTL_TOKENS_USUAL, 1, CTL_TOKENS_MAX, &tokens, err);
    *out = (size_t)tokens;
    return status;
}

static enum memos_status generate(
    struct ctl *ctl, struct ctl_host *host, struct memos_bytes text, struct memos_error *err)
{
    const char *stops[CTL_STOPS_MAX];
    struct paramem_ids ids = {0};
    struct paramem_request request = {.stops = stops};
    struct said said = {.host = host};
    uint64_t top;
    uint32_t own;
    ctl_answer_init(&said.answer, ctl);
    enum memos_status status =
        ctl_args_number(ctl->args, CTL_LOGPROBS, 0, 0, KERN_TOP_MAX, &top, err);
    if (status == MEMOS_OK) {
        said.answer.top_max = request.top = (size_t)top;
        status = ctl_sampling_take(ctl, host->info.config, &request.sampling, &own, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_stops_take(ctl, stops, &request.stops_count, err);
    }
    if (status == MEMOS_OK) {
        status = encode(ctl, host, text, &ids, err);
    }
    if (status == MEMOS_OK && ids.count == 0) {
        status = memos_fail(err, MEMOS_INVALID, "there is no text to go on from");
    }
    if (status == MEMOS_OK) {
        status = take_length(ctl, host, ids.count, &request.max_tokens, err);
    }
    if (status == MEMOS_OK) {
        request.prompt = ids.ids;
        request.prompt_count = ids.count;
        status = speak(ctl, host, &request, &said, err);
    }
    free(ids.ids);
    ctl_answer_free(&said.answer);
    return status;
}

enum memos_status ctl_run_generate(struct ctl *ctl, struct memos_error *err)
{
    struct ctl_host host = {0};
    struct memos_buffer text = memos_buffer_make(0);
    enum memos_status status = ctl_ask_check(ctl, err);
    if (status == MEMOS_OK) {
        status = ctl_payload_read(ctl_operand(ctl, 0), &text, err);
    }
    if (status == MEMOS_OK && ctl_asks_worker(ctl)) {
        status = ctl_generate_asked(ctl, memos_buffer_view(&text), err);
        memos_buffer_free(&text);
        return status;
    }
    if (status == MEMOS_OK) {
        status = ctl_host_open(ctl, 0, &host, err);
    }
    if (status == MEMOS_OK) {
        status = generate(ctl, &host, memos_buffer_view(&text), err);
    }
    if (host.path[0]) {
        ctl_host_advise(ctl, status);
    }
    ctl_host_close(&host);
    memos_buffer_free(&text);
    return status;
}
