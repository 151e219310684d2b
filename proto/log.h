/* The structured log of a process: events with typed fields, as text or as JSON lines.
 *
 *     memos_log(MEMOS_LOG_INFO, memos_log_event("listening"), memos_log_text("address", address),
 *         memos_log_int("connections", count));
 *
 *     2026-05-01T12:30:00.123456Z INFO listening address=ipc:///run/memos/memosd.sock connections=3
 *     {"ts":"2026-05-01T12:30:00.123456Z","level":"info","event":"listening","address":"ipc:///...}
 *
 * One line is one write(2) of at most MEMOS_LOG_LINE_BYTES, so that lines of several threads
 * never mix; fields that do not fit are left out and the line says so (`cut`). A value can
 * break neither format: what is not printable, or not UTF-8, is escaped.
 *
 * Programs log; library code returns statuses instead, so that a failure is told once. Secrets
 * and the contents of memories are never given to the log.
 *
 * Threads: everything here is safe on any thread, except that memos_log_open calls do not
 * overlap. */
#ifndef PROTO_LOG_H
#define PROTO_LOG_H

#include "proto/bytes.h"
#include "proto/clock.h"
#include "proto/id.h"

#define MEMOS_LOG_LINE_BYTES 4096

enum memos_log_level { MEMOS_LOG_DEBUG, MEMOS_LOG_INFO, MEMOS_LOG_WARNING, MEMOS_LOG_ERROR };
enum memos_log_format { MEMOS_LOG_TEXT, MEMOS_LOG_JSON };

struct memos_log_options {
    enum memos_log_level level; /* what lies below is not written */
    enum memos_log_format format;
    const char *path; /* appended to, made with mode 0640; NULL: standard error */
    const struct memos_clock *clock; /* borrowed for good; NULL: the system's */
};

/* Set the log up, or again (a path is opened anew, which is what a rotated log needs). Before the
 * first call, INFO and above go to standard error as text. On failure the log stays as it was. */
MEMOS_MUST_USE enum memos_status memos_log_open(
    const struct memos_log_options *options, struct memos_error *err);

/* "debug", "info", "warning", "error"; "text", "json". INVALID lists them. */
MEMOS_MUST_USE enum memos_status memos_log_level_parse(
    struct memos_bytes text, enum memos_log_level *out, struct memos_error *err);
MEMOS_MUST_USE enum memos_status memos_log_format_parse(
    struct memos_bytes text, enum memos_log_format *out, struct memos_error *err);

/* "info" for MEMOS_LOG_INFO. Static. */
const char *memos_log_level_name(enum memos_log_level level);

/* Would this level be written? For fields that cost something to make. */
bool memos_log_wanted(enum memos_log_level level);

enum memos_log_kind {
    MEMOS_LOG_END,
    MEMOS_LOG_EVENT,
    MEMOS_LOG_BYTES,
    MEMOS_LOG_INT,
    MEMOS_LOG_UINT,
    MEMOS_LOG_REAL,
    MEMOS_LOG_BOOL,
    MEMOS_LOG_ID,
    MEMOS_LOG_FAILURE,
};

/* A key and its value; keys are identifiers of the program's own. Made by the functions below,
 * which borrow what they point to until memos_log returns. */
struct memos_log_field {
    const char *key;
    enum memos_log_kind kind;
    union {
        struct memos_bytes bytes;
        int64_t integer;
        uint64_t natural;
        double real;
        bool truth;
        const struct memos_id *id;
        const struct memos_error *error;
    };
};

/* What happened, in one or a few lower-case words. First in every line. */
static inline struct memos_log_field memos_log_event(const char *name)
{
    return (struct memos_log_field){ name, MEMOS_LOG_EVENT, { .natural = 0 } };
}

static inline struct memos_log_field memos_log_bytes(const char *key, struct memos_bytes value)
{
    return (struct memos_log_field){ key, MEMOS_LOG_BYTES, { .bytes = value } };
}

static inline struct memos_log_field memos_log_text(const char *key, const char *value)
{
    return memos_log_bytes(key, memos_bytes_of(value));
}

static inline struct memos_log_field memos_log_int(const char *key, int64_t value)
{
    return (struct memos_log_field){ key, MEMOS_LOG_INT, { .integer = value } };
}

static inline struct memos_log_field memos_log_uint(const char *key, uint64_t value)
{
    return (struct memos_log_field){ key, MEMOS_LOG_UINT, { .natural = value } };
}

static inline struct memos_log_field memos_log_real(const char *key, double value)
{
    return (struct memos_log_field){ key, MEMOS_LOG_REAL, { .real = value } };
}

static inline struct memos_log_field memos_log_bool(const char *key, bool value)
{
    return (struct memos_log_field){ key, MEMOS_LOG_BOOL, { .truth = value } };
}

static inline struct memos_log_field memos_log_id(const char *key, const struct memos_id *value)
{
    return (struct memos_log_field){ key, MEMOS_LOG_ID, { .id = value } };
}

/* Two fields: `status`, by name, and `error`, the text. */
static inline struct memos_log_field memos_log_error(const struct memos_error *error)
{
    return (struct memos_log_field){ "error", MEMOS_LOG_FAILURE, { .error = error } };
}

/* fields end with MEMOS_LOG_END. */
void memos_log_write(enum memos_log_level level, const struct memos_log_field *fields);

/* memos_log(level, memos_log_event(...), field...): the fields are only made when level is
 * wanted. */
#define memos_log(level, ...)                                                                      \
    (memos_log_wanted(level)                                                                       \
            ? memos_log_write(level,                                                               \
                  (const struct memos_log_field[]){                                                \
                      __VA_ARGS__, { NULL, MEMOS_LOG_END, { .natural = 0 } } })                    \
            : (void)0)

#endif
