/* The names are wrapped as they are linked: no header may turn pwrite into pwrite64 here. */
#undef _FILE_OFFSET_BITS
#include "tests/fault/fault_inject.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum {
    CALL_WRITE = 1 << 0,
    CALL_SYNC = 1 << 1,
    CALL_TRUNCATE = 1 << 2,
    CALL_RENAME = 1 << 3,
    CALL_LATE = 1 << 4, /* done, then reported as failed */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

/* Sync: mutex. */
static struct {
    bool active;
    int error;
    unsigned calls_of;
    unsigned long skip, count;
    char path[256];
    unsigned long calls, hits;
    bool environment_read;
    struct timespec file_changed;
    ino_t file_inode;
} plan;

/* ---- plans --------------------------------------------------------------------------------- */

static unsigned calls_named(char *names)
{
    unsigned calls = 0;
    char *rest = names;
    char *name;
    while ((name = strsep(&rest, ","))) {
        if (strcmp(name, "all") == 0) {
            calls |= CALL_WRITE | CALL_SYNC | CALL_TRUNCATE | CALL_RENAME;
        } else if (strcmp(name, "write") == 0) {
            calls |= CALL_WRITE;
        } else if (strcmp(name, "sync") == 0) {
            calls |= CALL_SYNC;
        } else if (strcmp(name, "truncate") == 0) {
            calls |= CALL_TRUNCATE;
        } else if (strcmp(name, "rename") == 0) {
            calls |= CALL_RENAME;
        } else if (strcmp(name, "late") == 0) {
            calls |= CALL_LATE;
        } else {
            return 0;
        }
    }
    return calls;
}

static int plan_set(const char *text)
{
    char error[16], calls[64];
    plan.active = false;
    plan.calls = plan.hits = 0;
    plan.path[0] = 0;
    if (!text || text[strspn(text, " \n")] == 0) {
        return 0;
    }
    if (sscanf(text, "%15s %63s %lu %lu %255s", error, calls, &plan.skip, &plan.count, plan.path) <
        4) {
        return -1;
    }
    plan.error = strcmp(error, "ENOSPC") == 0 ? ENOSPC : strcmp(error, "EIO") == 0 ? EIO : 0;
    plan.calls_of = calls_named(calls);
    plan.active = plan.error != 0 && plan.calls_of != 0;
    return plan.active ? 0 : -1;
}

static void plan_must_be_set(const char *text)
{
    if (plan_set(text) != 0) {
        static const char complaint[] = "fault_inject: this plan is not understood\n";
        (void)!fwrite(complaint, 1, sizeof complaint - 1, stderr);
        abort();
    }
}

/* A program that does not know of us is told by its environment. */
static void plan_refresh(void)
{
    if (!plan.environment_read) {
        plan.environment_read = true;
        const char *text = getenv("MEMOS_FAULT");
        if (text) {
            plan_must_be_set(text);
        }
    }
    const char *path = getenv("MEMOS_FAULT_FILE");
    struct stat about;
    if (!path || stat(path, &about) != 0 ||
        (about.st_ino == plan.file_inode && about.st_mtim.tv_sec == plan.file_changed.tv_sec &&
            about.st_mtim.tv_nsec == plan.file_changed.tv_nsec)) {
        return;
    }
    char line[512] = {0};
    FILE *file = fopen(path, "r");
    if (file) {
        plan.file_inode = about.st_ino;
        plan.file_changed = about.st_mtim;
        (void)!fgets(line, sizeof line, file);
        (void)fclose(file);
        plan_must_be_set(line);
    }
}

static bool path_matches(int fd, const char *path)
{
    char link[64], target[4096];
    if (plan.path[0] == 0) {
        return true;
    }
    if (path) {
        return strstr(path, plan.path) != NULL;
    }
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, target, sizeof target - 1);
    if (size < 0) {
        return false;
    }
    target[size] = 0;
    return strstr(target, plan.path) != NULL;
}

/* Is it this call's turn to fail? 0, or the error to fail with; *late: after it was done. */
static int error_of(unsigned call, int fd, const char *path, bool *late)
{
    int error = 0;
    int saved = errno;
    (void)pthread_mutex_lock(&mutex);
    plan_refresh();
    if (plan.active && (plan.calls_of & call) && path_matches(fd, path)) {
        unsigned long turn = plan.calls++;
        bool hit = turn >= plan.skip && (plan.count == 0 || turn - plan.skip < plan.count);
        plan.hits += hit;
        error = hit ? plan.error : 0;
        *late = (plan.calls_of & CALL_LATE) != 0;
    }
    (void)pthread_mutex_unlock(&mutex);
    errno = saved;
    return error;
}

EXPORT int fault_plan(const char *text)
{
    (void)pthread_mutex_lock(&mutex);
    plan.environment_read = true;
    int rc = plan_set(text);
    (void)pthread_mutex_unlock(&mutex);
    return rc;
}

EXPORT unsigned long fault_calls(void)
{
    (void)pthread_mutex_lock(&mutex);
    unsigned long calls = plan.calls;
    (void)pthread_mutex_unlock(&mutex);
    return calls;
}

EXPORT unsigned long fault_hits(void)
{
    (void)pthread_mutex_lock(&mutex);
    unsigned long hits = plan.hits;
    (void)pthread_mutex_unlock(&mutex);
    return hits;
}

/* ---- the calls ----------------------------------------------------------------------------- */

/* POSIX lets dlsym's data pointer carry a function; C wants it copied. */
#define WRAP(result, name, text, call, fd, path, parameters, arguments)                            \
    EXPORT result name parameters;                                                                 \
    result name parameters                                                                         \
    {                                                                                              \
        bool late = false;                                                                         \
        int error = error_of(call, fd, path, &late);                                               \
        result(*next) parameters;                                                                  \
        void *symbol = dlsym(RTLD_NEXT, text);                                                     \
        memcpy(&next, &symbol, sizeof next);                                                       \
        result done = error == 0 || late ? next arguments : -1;                                    \
        if (error != 0) {                                                                          \
            errno = error;                                                                         \
        }                                                                                          \
        return error == 0 ? done : -1;                                                             \
    }

WRAP(ssize_t, write, "write", CALL_WRITE, fd, NULL, (int fd, const void *data, size_t size),
    (fd, data, size))
WRAP(ssize_t, pwrite, "pwrite", CALL_WRITE, fd, NULL,
    (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
WRAP(ssize_t, writev, "writev", CALL_WRITE, fd, NULL,
    (int fd, const struct iovec *pieces, int count), (fd, pieces, count))
WRAP(ssize_t, pwritev, "pwritev", CALL_WRITE, fd, NULL,
    (int fd, const struct iovec *pieces, int count, off_t at), (fd, pieces, count, at))
WRAP(ssize_t, pwrite64, "pwrite64", CALL_WRITE, fd, NULL,
    (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
WRAP(ssize_t, pwritev64, "pwritev64", CALL_WRITE, fd, NULL,
    (int fd, const struct iovec *pieces, int count, off_t at), (fd, pieces, count, at))
WRAP(int, fsync, "fsync", CALL_SYNC, fd, NULL, (int fd), (fd))
WRAP(int, fdatasync, "fdatasync", CALL_SYNC, fd, NULL, (int fd), (fd))
WRAP(int, msync, "msync", CALL_SYNC, -1, "", (void *data, size_t size, int flags),
    (data, size, flags))
WRAP(int, ftruncate, "ftruncate", CALL_TRUNCATE, fd, NULL, (int fd, off_t size), (fd, size))
WRAP(int, ftruncate64, "ftruncate64", CALL_TRUNCATE, fd, NULL, (int fd, off_t size), (fd, size))
WRAP(int, rename, "rename", CALL_RENAME, -1, to, (const char *from, const char *to), (from, to))
