#include "tools/memosctl/ctl.h"

#include "tools/memosctl/text.h"

#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ARENA_BYTES_MAX ((size_t)256 * 1024 * 1024)
enum { BUSY_TRIES_MAX = 60, BUSY_WAIT_MS = 50 };
#define PROGRESS_AFTER_US 2000000
#define PROGRESS_LINE_US 10000000
#define PROGRESS_TERMINAL_US 200000

enum memos_status ctl_init(struct ctl *ctl, const struct ctl_args *args, struct memos_error *err)
{
    const char *when = ctl_args_value(args, CTL_COLOR);
    bool is_long = args->command && args->command->is_long;
    *ctl = (struct ctl){.args = args, .clock = memos_clock_system()};
    memos_arena_init(&ctl->arena, ARENA_BYTES_MAX);
    ctl->json = ctl_args_has(args, CTL_JSON);
    ctl->quiet = ctl_args_has(args, CTL_QUIET);
    ctl->asks = isatty(STDIN_FILENO) == 1 && isatty(STDERR_FILENO) == 1;
    ctl->began_us = ctl->clock.mono_us(ctl->clock.self);
    enum memos_status status = ctl_paper_init(&ctl->paper, stdout, when ? when : "auto", err);
    if (status == MEMOS_OK) {
        status = ctl_args_duration(args, CTL_TIMEOUT,
            is_long ? CTL_TIMEOUT_LONG_MS : CTL_TIMEOUT_MS, &ctl->timeout_ms, err);
    }
    return status;
}

void ctl_finish(struct ctl *ctl)
{
    ctl_progress_end(ctl);
    memos_client_close(&ctl->client);
    memos_arena_finish(&ctl->arena);
}

const char *ctl_operand(const struct ctl *ctl, size_t i)
{
    return i < ctl->args->operands_count ? ctl->args->operands[i] : NULL;
}

/* ---- requests ---- */

enum memos_status ctl_connect(struct ctl *ctl, struct memos_error *err)
{
    struct memos_client_options options = {
        .address = ctl_args_value(ctl->args, CTL_ADDRESS),
        .server_key = ctl_args_value(ctl->args, CTL_SERVER_KEY),
        .key_file = ctl_args_value(ctl->args, CTL_KEY_FILE),
        .timeout_ms = ctl->timeout_ms,
    };
    return ctl->client ? MEMOS_OK : memos_client_open(&options, &ctl->client, err);
}

/* Keep the broker's advice for after the reply is gone. */
static void keep_hint(struct ctl *ctl, const Memos__Reply *reply)
{
    if (reply->hint[0]) {
        ctl->hint = memos_arena_copy(&ctl->arena, memos_bytes_of(reply->hint));
    }
}

static enum memos_status call_once(struct ctl *ctl, Memos__Request *request,
    const struct memos_bytes *frames, size_t frames_count, int want, struct memos_message **out,
    struct memos_error *err)
{
    struct memos_message *reply = NULL;
    enum memos_status status =
        memos_client_call(ctl->client, request, frames, frames_count, &reply, err);
    if (status != MEMOS_OK && reply) {
        keep_hint(ctl, memos_message_reply(reply));
    } else if (status == MEMOS_OK && want != CTL_ANY_BODY &&
               (int)memos_message_reply(reply)->body_case != want) {
        status =
            memos_fail(err, MEMOS_CORRUPT, "the broker's reply is of another kind (%d, not %d)",
                (int)memos_message_reply(reply)->body_case, want);
    }
    if (status != MEMOS_OK) {
        memos_message_free(&reply);
        return status;
    }
    *out = reply;
    return MEMOS_OK;
}

enum memos_status ctl_call(struct ctl *ctl, Memos__Request *request,
    const struct memos_bytes *frames, size_t frames_count, int want, struct memos_message **out,
    struct memos_error *err)
{
    const char *key = ctl_args_value(ctl->args, CTL_IDEMPOTENCY_KEY);
    enum memos_status status = ctl_connect(ctl, err);
    if (status != MEMOS_OK) {
        return status;
    }
    if (key && want == MEMOS__REPLY__BODY_OUTCOME) {
        request->idempotency_key = (ProtobufCBinaryData){strlen(key), (uint8_t *)(uintptr_t)key};
    }
    for (int tries = 0;; tries++) {
        ctl->hint = NULL;
        status = call_once(ctl, request, frames, frames_count, want, out, err);
        if (status != MEMOS_BUSY || tries == BUSY_TRIES_MAX) {
            return status;
        }
        (void)poll(NULL, 0, BUSY_WAIT_MS); /* nothing has been done yet: it may be sent again */
    }
}

enum memos_status ctl_call_page(struct ctl *ctl, Memos__Request *request, uint32_t *count_max,
    protobuf_c_boolean *with_payload, struct memos_message **out, struct memos_error *err)
{
    const int want = MEMOS__REPLY__BODY_CUBES;
    const uint32_t count_wanted = *count_max;
    const protobuf_c_boolean payload_wanted = *with_payload;
    enum memos_status status = ctl_connect(ctl, err);
    while (status == MEMOS_OK) {
        status = call_once(ctl, request, NULL, 0, want, out, err);
        bool is_too_much = status == MEMOS_TOO_LARGE || status == MEMOS_BUSY;
        if (!is_too_much || (*count_max == 1 && !*with_payload)) {
            break;
        }
        ctl->hint = NULL;
        if (*count_max > 1) {
            *count_max /= 2;
        } else if (status == MEMOS_TOO_LARGE) {
            *with_payload = false;
        } else {
            status = ctl_call(ctl, request, NULL, 0, want, out, err);
            break;
        }
        status = MEMOS_OK;
    }
    *count_max = count_wanted;
    *with_payload = payload_wanted;
    return status;
}

struct memos_id ctl_id_of(ProtobufCBinaryData data)
{
    struct memos_id id = {{0}};
    if (data.len == sizeof id.bytes) {
        memcpy(id.bytes, data.data, sizeof id.bytes);
    }
    return id;
}

static bool is_id_beginning(const char *text)
{
    size_t size = strlen(text);
    return size > 0 && size < MEMOS_ID_TEXT_BYTES &&
           strspn(text, "0123456789abcdefABCDEF-") == size;
}

enum memos_status ctl_id_resolve(struct ctl *ctl, const char *space, const char *text,
    struct memos_id *out, struct memos_error *err)
{
    struct memos_message *reply = NULL;
    Memos__Get get = MEMOS__GET__INIT;
    get.space = ctl_field(space);
    get.no_payload = true;
    get.peek = true;
    if (strncmp(text, "ext:", 4) == 0 && text[4]) {
        get.external_id = ctl_field(text + 4);
    } else if (memos_id_parse(memos_bytes_of(text), out, NULL) == MEMOS_OK) {
        return MEMOS_OK;
    } else if (is_id_beginning(text)) {
        get.id_prefix = ctl_field(text);
    } else {
        ctl->hint = "an id is hexadecimal, a beginning of it is enough; or ext: and your own id";
        return memos_fail(err, MEMOS_INVALID, "'%.60s' is no id of a cube", text);
    }
    Memos__Request request = CTL_REQUEST(GET, get, &get);
    enum memos_status status =
        ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_CUBES, &reply, err);
    if (status != MEMOS_OK) {
        ctl->hint = status == MEMOS_CONFLICT ? "give more of the id" : ctl->hint;
        return status;
    }
    const Memos__Cubes *cubes = memos_message_reply(reply)->cubes;
    if (cubes->n_cubes == 1 && cubes->cubes[0]->id.len == sizeof out->bytes) {
        *out = ctl_id_of(cubes->cubes[0]->id);
    } else {
        status = memos_fail(
            err, MEMOS_CORRUPT, "the broker gave %zu cubes for '%.60s'", cubes->n_cubes, text);
    }
    memos_message_free(&reply);
    return status;
}

enum memos_status ctl_ids_resolve(struct ctl *ctl, size_t first, ProtobufCBinaryData **out,
    size_t *out_count, struct memos_error *err)
{
    size_t count = ctl->args->operands_count - first;
    struct memos_id *ids = memos_arena_take(&ctl->arena, count, sizeof *ids);
    ProtobufCBinaryData *fields = memos_arena_take(&ctl->arena, count, sizeof *fields);
    if (!ids || !fields) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu ids", count);
    }
    for (size_t i = 0; i < count; i++) {
        enum memos_status status =
            ctl_id_resolve(ctl, ctl_operand(ctl, 0), ctl_operand(ctl, first + i), &ids[i], err);
        if (status != MEMOS_OK) {
            return status;
        }
        fields[i] = ctl_id_field(&ids[i]);
    }
    *out = fields;
    *out_count = count;
    return MEMOS_OK;
}

/* ---- talking to a person ---- */

bool ctl_ask(struct ctl *ctl, const char *question)
{
    if (!ctl->asks) {
        return false;
    }
    ctl_progress_end(ctl);
    fprintf(stderr, "%s [y/N] ", question);
    fflush(stderr);
    struct memos_buffer answer = memos_buffer_make(sizeof ctl->lines.bytes);
    bool is_yes = ctl_line_read(&ctl->lines, &answer) == CTL_LINE && answer.size > 0 &&
                  (answer.data[0] == 'y' || answer.data[0] == 'Y');
    memos_buffer_free(&answer);
    return is_yes;
}

void ctl_progress(struct ctl *ctl, const char *what, uint64_t done, uint64_t total)
{
    static int64_t shown_us;
    int64_t now_us = ctl->clock.mono_us(ctl->clock.self);
    bool is_terminal = isatty(STDERR_FILENO) == 1;
    int64_t pause_us = is_terminal ? PROGRESS_TERMINAL_US : PROGRESS_LINE_US;
    if (ctl->quiet || now_us - ctl->began_us < PROGRESS_AFTER_US ||
        (ctl->progress_shown && now_us - shown_us < pause_us)) {
        return;
    }
    shown_us = now_us;
    ctl->progress_shown = true;
    fprintf(stderr, "%smemosctl: %s %llu", is_terminal ? "\r\x1b[K" : "", what,
        (unsigned long long)done);
    if (total > 0) {
        fprintf(stderr, " of %llu (%.0f%%)", (unsigned long long)total,
            100.0 * (double)done / (double)total);
    }
    fputs(is_terminal ? "" : "\n", stderr);
    fflush(stderr);
}

void ctl_progress_end(struct ctl *ctl)
{
    if (ctl->progress_shown && isatty(STDERR_FILENO) == 1) {
        fputs("\r\x1b[K", stderr);
    }
    ctl->progress_shown = false;
}

void ctl_note(struct ctl *ctl, const char *format, ...)
{
    if (ctl->quiet) {
        return;
    }
    ctl_progress_end(ctl);
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    struct memos_buffer clean = memos_buffer_make(16 * sizeof text);
    ctl_text_clean(&clean, memos_bytes_of(text), false);
    fprintf(stderr, "memosctl: %.*s\n", (int)clean.size, (const char *)clean.data);
    memos_buffer_free(&clean);
}

void ctl_error_print(const struct ctl *ctl, enum memos_status status, const struct memos_error *err)
{
    struct memos_buffer clean = memos_buffer_make(16 * MEMOS_ERROR_TEXT_BYTES);
    /* what a status advises is about cubes, not about files of this machine */
    const char *usual = err->foreign ? "" : memos_status_hint(status);
    const char *hint = ctl->hint && ctl->hint[0] ? ctl->hint : usual;
    ctl_text_clean(
        &clean, memos_bytes_of(err->text[0] ? err->text : memos_status_text(status)), false);
    fprintf(stderr, "memosctl: %.*s\n", (int)clean.size, (const char *)clean.data);
    memos_buffer_reset(&clean);
    ctl_text_clean(&clean, memos_bytes_of(hint), false);
    if (clean.size > 0) {
        fprintf(stderr, "hint: %.*s\n", (int)clean.size, (const char *)clean.data);
    }
    memos_buffer_free(&clean);
}

/* ---- results ---- */

static enum memos_status print_json(json_t *document, size_t flags, struct memos_error *err)
{
    if (!document) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for the JSON of the result");
    }
    int failed = json_dumpf(document, stdout, flags);
    json_decref(document);
    if (failed || fputc('\n', stdout) == EOF) {
        return memos_fail(err, MEMOS_IO, "cannot write to standard output");
    }
    return MEMOS_OK;
}

enum memos_status ctl_json_print(json_t *document, struct memos_error *err)
{
    return print_json(document, JSON_INDENT(2) | JSON_ENCODE_ANY, err);
}

enum memos_status ctl_json_line(json_t *document, struct memos_error *err)
{
    enum memos_status status = print_json(document, JSON_COMPACT | JSON_ENCODE_ANY, err);
    fflush(stdout);
    return status;
}

static enum memos_status print_text(const char *text, struct memos_error *err)
{
    return fputs(text, stdout) < 0 ? memos_fail(err, MEMOS_IO, "cannot write to standard output")
                                   : MEMOS_OK;
}

static enum memos_status stream_begin(struct ctl_json_stream *stream, struct memos_error *err)
{
    if (stream->is_begun) {
        return MEMOS_OK;
    }
    stream->is_begun = true;
    return printf("{\n  \"%s\": [", stream->name) < 0
               ? memos_fail(err, MEMOS_IO, "cannot write to standard output")
               : MEMOS_OK;
}

enum memos_status ctl_json_stream_add(
    struct ctl_json_stream *stream, json_t *item, struct memos_error *err)
{
    const char *before = stream->is_begun ? ",\n    " : "\n    ";
    enum memos_status status = stream_begin(stream, err);
    if (status == MEMOS_OK) {
        status = print_text(before, err);
    }
    if (status == MEMOS_OK && !item) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for the JSON of the result");
    }
    if (status == MEMOS_OK && json_dumpf(item, stdout, JSON_COMPACT) != 0) {
        status = memos_fail(err, MEMOS_IO, "cannot write to standard output");
    }
    json_decref(item);
    return status;
}

enum memos_status ctl_json_stream_end(
    struct ctl_json_stream *stream, bool more, struct memos_error *err)
{
    const char *before = stream->is_begun ? "\n  " : "";
    enum memos_status status = stream_begin(stream, err);
    if (status == MEMOS_OK) {
        status = print_text(before, err);
    }
    return status == MEMOS_OK
               ? print_text(more ? "],\n  \"more\": true\n}\n" : "],\n  \"more\": false\n}\n", err)
               : status;
}

static void print_refs(const Memos__Outcome *outcome)
{
    for (size_t i = 0; i < outcome->n_refs && i < 20; i++) {
        char text[MEMOS_ID_TEXT_BYTES];
        struct memos_id id = ctl_id_of(outcome->refs[i]->id);
        printf("  %s  version %u\n", memos_id_format(&id, text), outcome->refs[i]->number);
    }
    if (outcome->n_refs > 20) {
        printf("  and %zu more\n", outcome->n_refs - 20);
    }
}

enum memos_status ctl_outcome_print(
    struct ctl *ctl, const char *verb, const Memos__Outcome *outcome, struct memos_error *err)
{
    if (ctl->json) {
        return ctl_json_print(ctl_json_outcome(outcome), err);
    }
    if (outcome->seq == 0) {
        puts("nothing changed");
    } else {
        printf("%s%s%s: record %llu%s\n", ctl_style_on(&ctl->paper, CTL_GREEN), verb,
            ctl_style_off(&ctl->paper), (unsigned long long)outcome->seq,
            outcome->repeated_request ? " (was done before with this idempotency key)" : "");
    }
    print_refs(outcome);
    if (outcome->n_affected > 0) {
        printf("  %zu derived cubes became stale, or fresh again\n", outcome->n_affected);
    }
    return MEMOS_OK;
}
