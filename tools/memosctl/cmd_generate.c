/* A host model speaks: in this process, while somebody reads. */
#include "paramem/chat.h"
#include "paramem/prompt.h"
#include "tools/memosctl/host.h"
#include "tools/memosctl/input.h"
#include "tools/memosctl/text.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS_USUAL = 1024, TOKENS_MAX = 1 << 24, STOPS_MAX = 64 };

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
    const char *given = ctl_args_value(ctl->args, CTL_SYSTEM);
    struct memos_buffer system = memos_buffer_make(0);
    enum memos_status status = MEMOS_OK;
    if (given) {
        status = ctl_payload_read(given, &system, err);
        if (status == MEMOS_OK) {
            status = add_message(messages, "system", memos_buffer_view(&system), err);
        }
        memos_buffer_free(&system);
    }
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
    bool names_one = ctl_args_has(ctl->args, CTL_CHAT) || ctl_args_has(ctl->args, CTL_TEMPLATE) ||
                     ctl_args_has(ctl->args, CTL_SYSTEM);
    bool is_raw = ctl_args_has(ctl->args, CTL_RAW);
    if (is_raw && names_one) {
        return memos_fail(
            err, MEMOS_INVALID, "--raw goes with none of --chat, --template and --system");
    }
    if (!is_raw && (names_one || host->info.chat_template)) {
        return encode_chat(ctl, host, text, out, err);
    }
    return paramem_tokenizer_encode(host->tokenizer, text, PARAMEM_ADD_SPECIAL, out, err);
}

/* ---- how it draws --------------------------------------------------------------------------- */

static enum memos_status take_sampling(struct ctl *ctl, const struct paramem_decoder_config *own,
    struct paramem_sampling *out, struct memos_error *err)
{
    const struct ctl_args *args = ctl->args;
    uint64_t top_k;
    *out = (struct paramem_sampling){0};
    enum memos_status status = ctl_args_real(
        args, CTL_HEAT, (float)own->temperature, 0.0f, 100.0f, &out->temperature, err);
    if (status == MEMOS_OK) {
        status = ctl_args_real(args, CTL_TOP_P, (float)own->top_p, 0.0f, 1.0f, &out->top_p, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_args_real(args, CTL_MIN_P, (float)own->min_p, 0.0f, 1.0f, &out->min_p, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_args_real(
            args, CTL_REPETITION, (float)own->repetition, 0.0f, 100.0f, &out->repetition, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_args_number(args, CTL_LIKELIEST, own->top_k, 0, UINT32_MAX, &top_k, err);
    }
    if (status == MEMOS_OK) {
        out->top_k = (size_t)top_k;
        status = ctl_args_number(
            args, CTL_SEED, randombytes_random(), 0, UINT64_MAX / 2, &out->seed, err);
    }
    return status;
}

static enum memos_status take_stops(
    struct ctl *ctl, const char *stops[STOPS_MAX], size_t *out_count, struct memos_error *err)
{
    const char *stop;
    size_t at = 0, count = 0;
    while ((stop = ctl_args_next(ctl->args, CTL_STOP, &at))) {
        if (count == STOPS_MAX || stop[0] == '\0') {
            return memos_fail(
                err, MEMOS_INVALID, "--stop takes a text, and at most %d of them", STOPS_MAX);
        }
        stops[count++] = stop;
    }
    *out_count = count;
    return MEMOS_OK;
}

/* ---- what it says --------------------------------------------------------------------------- */

struct answer {
    struct ctl *ctl;
    const struct ctl_host *host;
    struct memos_buffer text; /* for --json */
    json_t *tokens;           /* for --json and --logprobs */
    bool tells_logprobs, ends_line, is_done;
    struct paramem_result result;
    char stop_string[256];
    struct memos_error err; /* of the result */
};

static json_t *token_json(const struct answer *answer, const struct paramem_token *token)
{
    json_t *top = json_array();
    for (size_t i = 0; i < token->top_count && top; i++) {
        (void)json_array_append_new(top,
            json_pack("{sI,so,sf}", "id", (json_int_t)token->top_ids[i], "piece",
                ctl_json_text(paramem_tokenizer_bytes(answer->host->tokenizer, token->top_ids[i])),
                "logprob", (double)token->top_logprobs[i]));
    }
    return json_pack("{sI,so,sf,so}", "id", (json_int_t)token->id, "piece",
        ctl_json_text(paramem_tokenizer_bytes(answer->host->tokenizer, token->id)), "logprob",
        (double)token->logprob, "top", top);
}

static void print_piece(const struct answer *answer, float logprob, uint32_t id)
{
    struct memos_buffer clean = memos_buffer_make((size_t)1 << 20);
    ctl_text_piece(&clean, paramem_tokenizer_bytes(answer->host->tokenizer, id));
    printf("%8.4f \"%.*s\"", (double)logprob, (int)clean.size,
        clean.data ? (const char *)clean.data : "");
    memos_buffer_free(&clean);
}

static void print_token(const struct answer *answer, const struct paramem_token *token)
{
    print_piece(answer, token->logprob, token->id);
    for (size_t i = 0; i < token->top_count; i++) {
        fputs(i == 0 ? "  |" : " ", stdout);
        print_piece(answer, token->top_logprobs[i], token->top_ids[i]);
    }
    putchar('\n');
}

static void print_text(struct answer *answer, struct memos_bytes text)
{
    struct memos_buffer clean = memos_buffer_make((size_t)1 << 20);
    if (answer->ctl->paper.is_terminal) {
        ctl_text_clean(&clean, text, true);
        text = memos_buffer_view(&clean);
    }
    if (text.size > 0) {
        (void)fwrite(text.data, 1, text.size, stdout); /* main looks at ferror */
        answer->ends_line = ((const char *)text.data)[text.size - 1] == '\n';
    }
    memos_buffer_free(&clean);
}

static void on_token(void *self, const struct paramem_token *token)
{
    struct answer *answer = self;
    if (answer->ctl->json) {
        memos_buffer_bytes(&answer->text, token->text.data, token->text.size);
        if (answer->tells_logprobs) {
            (void)json_array_append_new(answer->tokens, token_json(answer, token));
        }
        return;
    }
    if (answer->tells_logprobs) {
        print_token(answer, token);
    } else {
        print_text(answer, token->text);
    }
    fflush(stdout);
}

static void on_done(void *self, const struct paramem_result *result)
{
    struct answer *answer = self;
    answer->is_done = true;
    answer->result = *result;
    if (result->stop_string) {
        snprintf(answer->stop_string, sizeof answer->stop_string, "%s", result->stop_string);
    }
    answer->result.stop_string = result->stop_string ? answer->stop_string : NULL;
    if (result->err) {
        answer->err = *result->err;
        answer->result.err = &answer->err;
    }
}

static const char *finish_name(enum paramem_finish finish)
{
    static const char *const names[] = {
        [PARAMEM_FINISH_STOP] = "stop",
        [PARAMEM_FINISH_LENGTH] = "length",
        [PARAMEM_FINISH_CONTEXT] = "context",
        [PARAMEM_FINISH_CANCELLED] = "cancelled",
        [PARAMEM_FINISH_DEADLINE] = "deadline",
        [PARAMEM_FINISH_FAILED] = "failed",
    };
    return names[finish];
}

/* Of `count` in some time; 0 when there was none. */
static double rate(size_t count, uint64_t took_us)
{
    return took_us > 0 ? (double)count * 1e6 / (double)took_us : 0.0;
}

static enum memos_status print_result(
    struct answer *answer, const struct paramem_sampling *sampling, struct memos_error *err)
{
    const struct paramem_result *r = &answer->result;
    const struct ctl_host *host = answer->host;
    const char *finish = finish_name(r->finish);
    /* the first token is the end of reading; those after it are what writing takes */
    size_t later = r->tokens > 0 ? r->tokens - 1 : 0;
    double reads = rate(r->prompt_tokens, r->first_us);
    double writes = r->tokens > 0 ? rate(later, r->total_us - r->first_us) : 0.0;
    if (answer->ctl->json) {
        return ctl_json_print(
            json_pack("{so,so,so,ss,sO?,ss,so?,sI,sI,sI,sf,sf,sf,sf}", "model",
                ctl_json_string(host->path), "fingerprint",
                ctl_json_hex((ProtobufCBinaryData){
                    sizeof host->info.fingerprint, (uint8_t *)(uintptr_t)host->info.fingerprint}),
                "text", ctl_json_text(memos_buffer_view(&answer->text)), "backend",
                kern_ctx_name(host->ctx), "tokens", answer->tells_logprobs ? answer->tokens : NULL,
                "finish", finish, "stop", r->stop_string ? ctl_json_string(r->stop_string) : NULL,
                "prompt_tokens", (json_int_t)r->prompt_tokens, "answer_tokens",
                (json_int_t)r->tokens, "seed", (json_int_t)sampling->seed, "load_seconds",
                (double)host->load_us / 1e6, "first_seconds", (double)r->first_us / 1e6,
                "prompt_per_second", reads, "answer_per_second", writes),
            err);
    }
    if (!answer->ends_line && !answer->tells_logprobs) {
        putchar('\n');
        fflush(stdout);
    }
    char seed[32] = "";
    if (sampling->temperature > 0.0f) {
        snprintf(seed, sizeof seed, "; seed %llu", (unsigned long long)sampling->seed);
    }
    ctl_note(answer->ctl, "%zu tokens read (%.1f/s), %zu written (%.1f/s) on %s; end: %s%s",
        r->prompt_tokens, reads, r->tokens, writes, kern_ctx_name(host->ctx), finish, seed);
    return MEMOS_OK;
}

/* ---- the run -------------------------------------------------------------------------------- */

static enum memos_status step_to_end(
    struct ctl_host *host, struct answer *answer, uint64_t id, struct memos_error *err)
{
    bool more = true, is_cancelled = false;
    enum memos_status status = MEMOS_OK;
    while (status == MEMOS_OK && more && !answer->is_done) {
        if (ctl_stopped() && !is_cancelled) {
            paramem_engine_cancel(host->engine, id);
            is_cancelled = true;
        }
        status = paramem_engine_step(host->engine, &more, err);
    }
    return status;
}

static enum memos_status speak(struct ctl *ctl, struct ctl_host *host,
    struct paramem_request *request, struct answer *answer, struct memos_error *err)
{
    uint64_t id;
    request->on_token = on_token;
    request->on_done = on_done;
    request->self = answer;
    enum memos_status status =
        ctl_host_engine(ctl, host, request->prompt_count + request->max_tokens, err);
    if (status == MEMOS_OK) {
        status = paramem_engine_submit(host->engine, request, &id, err);
    }
    if (status == MEMOS_TOO_LARGE) {
        ctl->hint = "give a shorter text, fewer --max-tokens, or more --context";
    }
    if (status == MEMOS_OK) {
        status = step_to_end(host, answer, id, err);
    }
    paramem_engine_destroy(&host->engine); /* what a failed step has left ends here */
    if (answer->is_done) {
        enum memos_status printed = print_result(answer, &request->sampling, err);
        status = status == MEMOS_OK ? printed : status;
    }
    if (status == MEMOS_OK && answer->result.finish == PARAMEM_FINISH_FAILED) {
        *err = answer->err;
        status = answer->result.status;
    } else if (status == MEMOS_OK && answer->result.finish == PARAMEM_FINISH_CANCELLED) {
        status =
            memos_fail(err, MEMOS_CANCELLED, "stopped after %zu tokens", answer->result.tokens);
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
        left < TOKENS_USUAL ? left : TOKENS_USUAL, 1, TOKENS_MAX, &tokens, err);
    *out = (size_t)tokens;
    return status;
}

static enum memos_status generate(
    struct ctl *ctl, struct ctl_host *host, struct memos_bytes text, struct memos_error *err)
{
    const char *stops[STOPS_MAX];
    struct paramem_ids ids = {0};
    struct paramem_request request = {.stops = stops};
    struct answer answer = {.ctl = ctl,
        .host = host,
        .text = memos_buffer_make((size_t)CTL_FILE_BYTES_MAX),
        .tokens = json_array(),
        .tells_logprobs = ctl_args_has(ctl->args, CTL_LOGPROBS)};
    uint64_t top;
    enum memos_status status =
        ctl_args_number(ctl->args, CTL_LOGPROBS, 0, 0, KERN_TOP_MAX, &top, err);
    if (status == MEMOS_OK) {
        request.top = (size_t)top;
        status = take_sampling(ctl, host->info.config, &request.sampling, err);
    }
    if (status == MEMOS_OK) {
        status = take_stops(ctl, stops, &request.stops_count, err);
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
        status = speak(ctl, host, &request, &answer, err);
    }
    free(ids.ids);
    json_decref(answer.tokens);
    memos_buffer_free(&answer.text);
    return status;
}

enum memos_status ctl_run_generate(struct ctl *ctl, struct memos_error *err)
{
    struct ctl_host host = {0};
    struct memos_buffer text = memos_buffer_make(0);
    enum memos_status status = ctl_payload_read(ctl_operand(ctl, 0), &text, err);
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
