/* The one status table, and how errors travel.
 *
 * Everything that can fail returns `enum memos_status` and takes, as its last argument, a
 * `struct memos_error *` that the caller owns (or NULL). The error is written only on failure. The
 * numbers below are fixed for ever: they go over the wire (Reply.status), they are the exit codes
 * of memosctl, and the manual prints them from this table.
 *
 * The world's faults (bytes, disk, peers, memory) get a status; our own mistakes get memos_assert,
 * which stays on in release builds.
 *
 * Threads: every function here is safe on any thread. */
#ifndef PROTO_STATUS_H
#define PROTO_STATUS_H

#include <stddef.h>

#pragma GCC visibility push(default)

/* X(name, number, short text, what to do next) */
#define MEMOS_STATUS_TABLE(X)                                                                      \
    X(OK, 0, "ok", "")                                                                             \
    X(INTERNAL, 1, "internal error", "this is a bug: report it with the broker's log")             \
    X(INVALID, 2, "invalid request", "correct the request and send it again")                      \
    X(NOT_FOUND, 3, "not found", "check the space, the id and the version")                        \
    X(EXISTS, 4, "already exists", "use update, or another id")                                    \
    X(CONFLICT, 5, "conflict", "read the current version and try again")                           \
    X(FROZEN, 6, "frozen", "unfreeze the cube first")                                              \
    X(FORGOTTEN, 7, "forgotten", "the payload was destroyed and cannot come back")                 \
    X(DENIED, 8, "not allowed", "ask an administrator for a grant on the space")                   \
    X(TOO_LARGE, 9, "too large", "send less, or raise the limit in the configuration")             \
    X(BUSY, 10, "overloaded", "wait and send it again")                                            \
    X(DEADLINE, 11, "deadline passed", "send it again with a longer deadline")                     \
    X(CANCELLED, 12, "cancelled", "")                                                              \
    X(NO_SPACE, 13, "no space left", "free some disk space; reads are still served")               \
    X(NO_MEMORY, 14, "out of memory", "free memory, or lower the configured limits")               \
    X(IO, 15, "input or output failed", "look at the disk and the system's log")                   \
    X(CORRUPT, 16, "corrupt data", "run memosctl verify and fsck; restore from an export")         \
    X(UNSUPPORTED, 17, "not supported", "use a version of memos that knows it")                    \
    X(UNAVAILABLE, 18, "unavailable", "start the broker, or check its address")                    \
    X(STALE, 19, "stale", "derive it again from its sources")

enum memos_status {
#define X(name, number, text, hint) MEMOS_##name = number,
    MEMOS_STATUS_TABLE(X)
#undef X
};

#define MEMOS_ERROR_TEXT_BYTES 232

/* What went wrong, in one line with the values. `foreign` is the code of the library below (errno,
 * MDB_*, zmq), 0 when there is none. */
struct memos_error {
    enum memos_status status;
    int foreign;
    char text[MEMOS_ERROR_TEXT_BYTES];
};

/* "NOT_FOUND" for MEMOS_NOT_FOUND; "UNKNOWN" for a number outside the table. Static. */
const char *memos_status_name(enum memos_status status);

/* The short text of a status. Static. */
const char *memos_status_text(enum memos_status status);

/* What the user can do about it; "" when there is nothing to say. Static. */
const char *memos_status_hint(enum memos_status status);

/* Is this number in the table? Replies from the wire are checked with it. */
_Bool memos_status_known(int number);

/* Fill err (may be NULL) and return status, so that `return memos_fail(err, MEMOS_INVALID, ...)`
 * reads as one thought. status must not be MEMOS_OK. The text is cut to fit. */
__attribute__((format(printf, 3, 4))) enum memos_status memos_fail(struct memos_error *err,
    enum memos_status status, const char *format, ...);

/* The same with a foreign code. */
__attribute__((format(printf, 4, 5))) enum memos_status memos_fail_foreign(struct memos_error *err,
    enum memos_status status, int foreign, const char *format, ...);

/* Translate errno: ENOSPC and EDQUOT are NO_SPACE, ENOMEM is NO_MEMORY, ENOENT is NOT_FOUND, EEXIST
 * is EXISTS, EACCES and EPERM are DENIED, the rest IO. `what` says what was tried, and on what. */
__attribute__((format(printf, 3, 4))) enum memos_status memos_fail_errno(struct memos_error *err,
    int errno_value, const char *format, ...);

__attribute__((noreturn)) void memos_assert_failed(
    const char *condition, const char *file, int line);

/* A check on ourselves, never on input. Stays on in release. */
#define memos_assert(condition)                                                                    \
    ((condition) ? (void)0 : memos_assert_failed(#condition, __FILE__, __LINE__))

#define MEMOS_MUST_USE __attribute__((warn_unused_result))

#pragma GCC visibility pop

#endif
