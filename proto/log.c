#include "proto/log.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Sync: memos_log_open writes, everybody reads; each member stands alone, so that a line which is
 * written while the log is set up anew has some of the old and some of the new, and is whole. */
static struct {
    _Atomic int level, format, descriptor;
    _Atomic(const struct memos_clock *) clock;
} the_log = { .level = MEMOS_LOG_INFO, .descriptor = STDERR_FILENO };

static const char *const level_names[] = { "debug", "info", "warning", "error" };
static const char *const format_names[] = { "text", "json" };

/* ---- setting up ---- */

/* Let the_log write to path. A file that is open already keeps its descriptor's number, since
 * another thread may be just about to write to it. */
static enum memos_status open_file(const char *path, struct memos_error *err)
{
    static int file = -1; /* kept for good once there is one */
    int fresh = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
    if (fresh < 0) {
        return memos_fail_errno(err, errno, "cannot open the log file '%s'", path);
    }
    if (file < 0) {
        file = fresh;
    } else {
        int moved = dup3(fresh, file, O_CLOEXEC);
        int why = errno;
        (void)close(fresh);
        if (moved < 0) {
            return memos_fail_errno(err, why, "cannot change to the log file '%s'", path);
        }
    }
    atomic_store(&the_log.descriptor, file);
    return MEMOS_OK;
}

enum memos_status memos_log_open(const struct memos_log_options *options, struct memos_error *err)
{
    if (options->path) {
        enum memos_status status = open_file(options->path, err);
        if (status != MEMOS_OK) {
            return status;
        }
    } else {
        atomic_store(&the_log.descriptor, STDERR_FILENO);
    }
    atomic_store(&the_log.level, (int)options->level);
    atomic_store(&the_log.format, (int)options->format);
    atomic_store(&the_log.clock, options->clock);
    return MEMOS_OK;
}

static int find_name(const char *const *names, size_t count, struct memos_bytes text)
{
    for (size_t i = 0; i < count; i++) {
        if (memos_bytes_equal(text, memos_bytes_of(names[i]))) {
            return (int)i;
        }
    }
    return -1;
}

enum memos_status memos_log_level_parse(
    struct memos_bytes text, enum memos_log_level *out, struct memos_error *err)
{
    int found = find_name(level_names, sizeof level_names / sizeof level_names[0], text);
    if (found < 0) {
        return memos_fail(err, MEMOS_INVALID,
            "a log level is one of debug, info, warning and error");
    }
    *out = (enum memos_log_level)found;
    return MEMOS_OK;
}

enum memos_status memos_log_format_parse(
    struct memos_bytes text, enum memos_log_format *out, struct memos_error *err)
{
    int found = find_name(format_names, sizeof format_names / sizeof format_names[0], text);
    if (found < 0) {
        return memos_fail(err, MEMOS_INVALID, "a log format is one of text and json");
    }
    *out = (enum memos_log_format)found;
    return MEMOS_OK;
}

const char *memos_log_level_name(enum memos_log_level level)
{
    size_t index = (size_t)level;
    return index < sizeof level_names / sizeof level_names[0] ? level_names[index] : "unknown";
}

bool memos_log_wanted(enum memos_log_level level)
{
    return (int)level >= atomic_load_explicit(&the_log.level, memory_order_relaxed);
}

/* ---- a line ---- */

/* A line in the making. Past its end it only remembers that something did not fit. */
struct line {
    char text[MEMOS_LOG_LINE_BYTES];
    size_t size, size_max;
    bool full, json;
};

static void put_bytes(struct line *line, const void *data, size_t size)
{
    if (line->full || size > line->size_max - line->size) {
        line->full = true;
        return;
    }
    memcpy(line->text + line->size, data, size);
    line->size += size;
}

static void put_text(struct line *line, const char *text)
{
    put_bytes(line, text, strlen(text));
}

__attribute__((format(printf, 2, 3))) static void put_format(
    struct line *line, const char *format, ...)
{
    char piece[64];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(piece, sizeof piece, format, args);
    va_end(args);
    put_text(line, piece);
}

/* One character, escaped as either format has it; an ill-formed byte is its value in text and the
 * replacement character in JSON, which has no way to say bytes. */
static void put_escaped(struct line *line, const uint8_t *at, size_t size)
{
    static const char *const shorts[] = { ['\b'] = "\\b", ['\t'] = "\\t", ['\n'] = "\\n",
        ['\f'] = "\\f", ['\r'] = "\\r", ['"'] = "\\\"", ['\\'] = "\\\\" };
    uint8_t c = at[0];
    if (size == 0) {
        put_format(line, line->json ? "\\ufffd" : "\\x%02x", c);
    } else if (c < sizeof shorts / sizeof shorts[0] && shorts[c]) {
        put_text(line, shorts[c]);
    } else if (c < 0x20 || c == 0x7F) {
        put_format(line, line->json ? "\\u%04x" : "\\x%02x", c);
    } else {
        put_bytes(line, at, size);
    }
}

static void put_quoted(struct line *line, struct memos_bytes value)
{
    const uint8_t *at = value.data;
    put_text(line, "\"");
    for (size_t left = value.size; left > 0;) {
        size_t size = memos_bytes_utf8_sequence(memos_bytes_make(at, left));
        size_t step = size ? size : 1;
        put_escaped(line, at, *at == 0 ? 1 : size);
        at += step;
        left -= step;
        if (line->full) {
            return;
        }
    }
    put_text(line, "\"");
}

/* May a value stand without quotes in the text format? */
static bool is_plain(struct memos_bytes value)
{
    const uint8_t *at = value.data;
    for (size_t i = 0; i < value.size; i++) {
        if (at[i] <= ' ' || at[i] >= 0x7F || at[i] == '"' || at[i] == '=' || at[i] == '\\') {
            return false;
        }
    }
    return value.size > 0;
}

static void put_value(struct line *line, struct memos_bytes value)
{
    if (!line->json && is_plain(value)) {
        put_bytes(line, value.data, value.size);
    } else {
        put_quoted(line, value);
    }
}

static void put_key(struct line *line, const char *key)
{
    put_text(line, line->json ? ",\"" : " ");
    put_text(line, key);
    put_text(line, line->json ? "\":" : "=");
}

static void put_real(struct line *line, double value)
{
    if (isfinite(value)) {
        put_format(line, "%.9g", value);
    } else {
        put_text(line, "null");
    }
}

static void put_failure(struct line *line, const char *key, const struct memos_error *error)
{
    put_key(line, "status");
    put_value(line, memos_bytes_of(memos_status_name(error->status)));
    put_key(line, key);
    put_value(line, memos_bytes_of(error->text));
}

static void put_field(struct line *line, const struct memos_log_field *field)
{
    char id[MEMOS_ID_TEXT_BYTES];
    if (field->kind == MEMOS_LOG_FAILURE) {
        put_failure(line, field->key, field->error);
        return;
    }
    put_key(line, field->key);
    switch (field->kind) {
    case MEMOS_LOG_BYTES:
        put_value(line, field->bytes);
        break;
    case MEMOS_LOG_INT:
        put_format(line, "%lld", (long long)field->integer);
        break;
    case MEMOS_LOG_UINT:
        put_format(line, "%llu", (unsigned long long)field->natural);
        break;
    case MEMOS_LOG_REAL:
        put_real(line, field->real);
        break;
    case MEMOS_LOG_BOOL:
        put_text(line, field->truth ? "true" : "false");
        break;
    case MEMOS_LOG_ID:
        put_value(line, memos_bytes_of(memos_id_format(field->id, id)));
        break;
    case MEMOS_LOG_END:
    case MEMOS_LOG_EVENT:
    case MEMOS_LOG_FAILURE:
        memos_assert(!"an event comes first, and once");
    }
}

/* The time, the level and the event: what every line begins with. */
static void put_head(struct line *line, enum memos_log_level level, const char *event)
{
    static const char *const shown[] = { "DEBUG", "INFO", "WARNING", "ERROR" };
    char when[MEMOS_TIME_TEXT_BYTES];
    const struct memos_clock *clock = atomic_load(&the_log.clock);
    struct memos_clock system = memos_clock_system();
    clock = clock ? clock : &system;
    memos_time_format(clock->wall_us(clock->self), when);
    if (line->json) {
        put_text(line, "{\"ts\":\"");
        put_text(line, when);
        put_text(line, "\",\"level\":\"");
        put_text(line, memos_log_level_name(level));
        put_text(line, "\",\"event\":");
        put_quoted(line, memos_bytes_of(event));
    } else {
        put_text(line, when);
        put_text(line, " ");
        put_text(line, shown[level]);
        put_text(line, " ");
        put_text(line, event);
    }
}

void memos_log_write(enum memos_log_level level, const struct memos_log_field *fields)
{
    static const char cut_json[] = ",\"cut\":true}\n", cut_text[] = " cut=true\n";
    struct line line = { .json = atomic_load(&the_log.format) == MEMOS_LOG_JSON };
    line.size_max = sizeof line.text - sizeof cut_json;
    memos_assert(fields[0].kind == MEMOS_LOG_EVENT && memos_log_level_name(level)[0] != 'u');
    put_head(&line, level, fields[0].key);
    bool cut = false;
    for (const struct memos_log_field *field = fields + 1; field->kind != MEMOS_LOG_END; field++) {
        size_t before = line.size;
        put_field(&line, field);
        if (line.full) {
            line.size = before;
            line.full = false;
            cut = true;
        }
    }
    line.size_max = sizeof line.text;
    if (cut) {
        put_text(&line, line.json ? cut_json : cut_text);
    } else {
        put_text(&line, line.json ? "}\n" : "\n");
    }
    ssize_t written;
    do {
        written = write(atomic_load(&the_log.descriptor), line.text, line.size);
    } while (written < 0 && errno == EINTR);
    /* A log that cannot be written has nowhere to say so. */
}
