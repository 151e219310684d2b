#include "paramem/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum memos_status paramem_path(
    const char *folder, const char *name, char out[PARAMEM_PATH_BYTES], struct memos_error *err)
{
    int size = snprintf(out, PARAMEM_PATH_BYTES, "%s/%s", folder, name);
    if (size < 0 || size >= PARAMEM_PATH_BYTES) {
        return memos_fail(err, MEMOS_TOO_LARGE, "the path of %s is too long", name);
    }
    return MEMOS_OK;
}

/* Open a regular file; its size is what it has now. */
static enum memos_status file_open(
    const char *path, int *out_file, size_t *out_size, struct memos_error *err)
{
    struct stat about;
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file < 0) {
        return memos_fail_errno(err, errno, "cannot open %s", path);
    }
    if (fstat(file, &about) != 0) {
        enum memos_status status = memos_fail_errno(err, errno, "cannot look at %s", path);
        (void)close(file);
        return status;
    }
    if (!S_ISREG(about.st_mode)) {
        (void)close(file);
        return memos_fail(err, MEMOS_INVALID, "%s is not a regular file", path);
    }
    *out_file = file;
    *out_size = (size_t)about.st_size;
    return MEMOS_OK;
}

enum memos_status paramem_map_open(
    const char *path, struct paramem_map *out, struct memos_error *err)
{
    int file;
    size_t size;
    enum memos_status status = file_open(path, &file, &size, err);
    if (status != MEMOS_OK) {
        return status;
    }
    *out = (struct paramem_map){NULL, size};
    if (size > 0) {
        void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, file, 0);
        if (data == MAP_FAILED) {
            status = memos_fail_errno(err, errno, "cannot map %s, %zu bytes", path, size);
            *out = (struct paramem_map){NULL, 0};
        } else {
            out->data = data;
        }
    }
    (void)close(file);
    return status;
}

void paramem_map_close(struct paramem_map *map)
{
    if (map && map->data) {
        (void)munmap((void *)(uintptr_t)map->data, map->size);
        *map = (struct paramem_map){NULL, 0};
    }
}

enum memos_status paramem_file_read(const char *folder, const char *name, size_t size_max,
    struct memos_buffer *out, struct memos_error *err)
{
    char path[PARAMEM_PATH_BYTES];
    int file;
    size_t size, done = 0;

    *out = memos_buffer_make(size_max);
    enum memos_status status = paramem_path(folder, name, path, err);
    if (status == MEMOS_OK) {
        status = file_open(path, &file, &size, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    uint8_t *data = NULL;
    if (size > size_max) {
        status = memos_fail(
            err, MEMOS_TOO_LARGE, "%s has %zu bytes, at most %zu are read", path, size, size_max);
    } else if (size > 0 && !(data = memos_buffer_take(out, size))) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for %s, %zu bytes", path, size);
    }
    while (status == MEMOS_OK && done < size) {
        ssize_t got = read(file, data + done, size - done);
        if (got > 0) {
            done += (size_t)got;
        } else if (got == 0) {
            status = memos_fail(err, MEMOS_CORRUPT, "%s became shorter while it was read", path);
        } else if (errno != EINTR) {
            status = memos_fail_errno(err, errno, "cannot read %s", path);
        }
    }
    (void)close(file);
    return status;
}
