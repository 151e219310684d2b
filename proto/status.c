#include "proto/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *memos_status_name(enum memos_status status)
{
    switch (status) {
#define X(name, number, text, hint)                                                                \
    case MEMOS_##name:                                                                             \
        return #name;
        MEMOS_STATUS_TABLE(X)
#undef X
    }
    return "UNKNOWN";
}

const char *memos_status_text(enum memos_status status)
{
    switch (status) {
#define X(name, number, text, hint)                                                                \
    case MEMOS_##name:                                                                             \
        return text;
        MEMOS_STATUS_TABLE(X)
#undef X
    }
    return "unknown status";
}

const char *memos_status_hint(enum memos_status status)
{
    switch (status) {
#define X(name, number, text, hint)                                                                \
    case MEMOS_##name:                                                                             \
        return hint;
        MEMOS_STATUS_TABLE(X)
#undef X
    }
    return "";
}

_Bool memos_status_known(int number)
{
    switch (number) {
#define X(name, number, text, hint) case number:
        MEMOS_STATUS_TABLE(X)
#undef X
        return 1;
    default:
        return 0;
    }
}

__attribute__((format(printf, 4, 0))) static enum memos_status fail_va(struct memos_error *err,
    enum memos_status status, int foreign, const char *format, va_list args)
{
    memos_assert(status != MEMOS_OK);
    if (err) {
        err->status = status;
        err->foreign = foreign;
        (void)vsnprintf(err->text, sizeof err->text, format, args);
    }
    return status;
}

enum memos_status memos_fail(
    struct memos_error *err, enum memos_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fail_va(err, status, 0, format, args);
    va_end(args);
    return status;
}

enum memos_status memos_fail_foreign(
    struct memos_error *err, enum memos_status status, int foreign, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fail_va(err, status, foreign, format, args);
    va_end(args);
    return status;
}

static enum memos_status status_of_errno(int errno_value)
{
    switch (errno_value) {
    case ENOSPC:
    case EDQUOT:
        return MEMOS_NO_SPACE;
    case ENOMEM:
        return MEMOS_NO_MEMORY;
    case ENOENT:
        return MEMOS_NOT_FOUND;
    case EEXIST:
        return MEMOS_EXISTS;
    case EACCES:
    case EPERM:
        return MEMOS_DENIED;
    default:
        return MEMOS_IO;
    }
}

enum memos_status memos_fail_errno(
    struct memos_error *err, int errno_value, const char *format, ...)
{
    enum memos_status status = status_of_errno(errno_value);
    va_list args;
    va_start(args, format);
    fail_va(err, status, errno_value, format, args);
    va_end(args);
    if (err) {
        size_t used = strlen(err->text);
        (void)snprintf(err->text + used, sizeof err->text - used, ": %s", strerror(errno_value));
    }
    return status;
}

void memos_assert_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "memos: assertion failed at %s:%d: %s\n", file, line, condition);
    abort();
}
