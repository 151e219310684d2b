#include "memos/broker/files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum memos_status broker_folder_make(const char *path, struct memos_error *err)
{
    char partial[PATH_MAX];
    size_t size = strlen(path);
    if (size == 0 || size >= sizeof partial) {
        return memos_fail(err, MEMOS_INVALID, "'%.64s' is no path of a folder", path);
    }
    for (size_t i = 1; i <= size; i++) {
        if (path[i] != '/' && path[i] != '\0') {
            continue;
        }
        memcpy(partial, path, i);
        partial[i] = '\0';
        if (mkdir(partial, 0700) != 0 && errno != EEXIST && errno != EISDIR) {
            return memos_fail_errno(err, errno, "cannot make the folder %s", partial);
        }
    }
    struct stat about;
    if (stat(path, &about) != 0 || !S_ISDIR(about.st_mode)) {
        return memos_fail(err, MEMOS_INVALID, "%s is not a folder", path);
    }
    return MEMOS_OK;
}

enum memos_status broker_folder_check(const char *path, struct memos_error *err)
{
    struct stat about;
    if (lstat(path, &about) != 0) {
        return memos_fail_errno(err, errno, "cannot look at the folder %s", path);
    }
    if (!S_ISDIR(about.st_mode)) {
        return memos_fail(err, MEMOS_DENIED, "%s is not a folder", path);
    }
    if (about.st_uid != geteuid()) {
        return memos_fail(err, MEMOS_DENIED, "the folder %s belongs to somebody else", path);
    }
    if (about.st_mode & (S_IWGRP | S_IWOTH)) {
        return memos_fail(err, MEMOS_DENIED,
            "others may write to the folder %s (mode %o): a socket there is not safe", path,
            (unsigned)about.st_mode & 07777);
    }
    return MEMOS_OK;
}

enum memos_status broker_secret_read(
    const char *path, void *out, size_t size, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    struct stat about;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fstat(fd, &about) != 0) {
        status = memos_fail_errno(err, errno, "cannot open %s", path);
    } else if (about.st_mode & (S_IRWXG | S_IRWXO)) {
        status = memos_fail(err, MEMOS_DENIED, "others may read %s: chmod 600 it", path);
    } else if (about.st_size != (off_t)size || read(fd, out, size) != (ssize_t)size) {
        status = memos_fail(err, MEMOS_CORRUPT, "%s does not have %zu bytes", path, size);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return status;
}

/* Write all, sync, and give it its name unless that is taken. */
static enum memos_status publish(int fd, const char *temporary, const char *path, const void *data,
    size_t size, struct memos_error *err)
{
    if (write(fd, data, size) != (ssize_t)size || fsync(fd) != 0) {
        return memos_fail_errno(err, errno, "cannot write %s", temporary);
    }
    if (link(temporary, path) != 0) {
        return memos_fail_errno(err, errno, "cannot make %s", path);
    }
    return MEMOS_OK;
}

enum memos_status broker_secret_write(
    const char *path, const void *data, size_t size, struct memos_error *err)
{
    char temporary[PATH_MAX];
    int length = snprintf(temporary, sizeof temporary, "%s.new", path);
    if (length < 0 || (size_t)length >= sizeof temporary) {
        return memos_fail(err, MEMOS_INVALID, "the path %.64s... is too long", path);
    }
    (void)unlink(temporary);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return memos_fail_errno(err, errno, "cannot make %s", temporary);
    }
    enum memos_status status = publish(fd, temporary, path, data, size, err);
    (void)close(fd);
    (void)unlink(temporary);
    return status;
}
