#include "memcube/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum memos_status memcube_file_write_at(
    int fd, struct memos_bytes bytes, uint64_t offset, const char *path, struct memos_error *err)
{
    const uint8_t *data = bytes.data;
    for (size_t done = 0; done < bytes.size;) {
        ssize_t size = pwrite(fd, data + done, bytes.size - done, (off_t)(offset + done));
        if (size < 0 && errno != EINTR) {
            return memos_fail_errno(err, errno, "writing %s", path);
        }
        done += size > 0 ? (size_t)size : 0;
    }
    return MEMOS_OK;
}

enum memos_status memcube_file_zero(
    int fd, uint64_t offset, uint64_t size, const char *path, struct memos_error *err)
{
    static const uint8_t zeros[64 * 1024];
    enum memos_status status = MEMOS_OK;
    for (uint64_t done = 0; status == MEMOS_OK && done < size;) {
        size_t piece = size - done < sizeof zeros ? (size_t)(size - done) : sizeof zeros;
        status =
            memcube_file_write_at(fd, memos_bytes_make(zeros, piece), offset + done, path, err);
        done += piece;
    }
    return status;
}

enum memos_status memcube_file_sync(int fd, const char *path, struct memos_error *err)
{
    return fdatasync(fd) == 0 ? MEMOS_OK : memos_fail_errno(err, errno, "syncing %s", path);
}

enum memos_status memcube_file_sync_folder(const char *path, struct memos_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return memos_fail_errno(err, errno, "opening %s", path);
    }
    enum memos_status status =
        fsync(fd) == 0 ? MEMOS_OK : memos_fail_errno(err, errno, "syncing %s", path);
    (void)close(fd);
    return status;
}

enum memos_status memcube_file_destroy(
    const char *path, const char *folder, uint64_t *out_bytes, struct memos_error *err)
{
    struct stat about;
    if (out_bytes) {
        *out_bytes = 0;
    }
    int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return errno == ENOENT ? MEMOS_OK : memos_fail_errno(err, errno, "opening %s", path);
    }
    enum memos_status status = MEMOS_OK;
    if (fstat(fd, &about) != 0) {
        status = memos_fail_errno(err, errno, "looking at %s", path);
    }
    if (status == MEMOS_OK) {
        status = memcube_file_zero(fd, 0, (uint64_t)about.st_size, path, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_file_sync(fd, path, err);
    }
    (void)close(fd);
    if (status == MEMOS_OK && unlink(path) != 0 && errno != ENOENT) {
        status = memos_fail_errno(err, errno, "removing %s", path);
    }
    if (status == MEMOS_OK && out_bytes) {
        *out_bytes = (uint64_t)about.st_size;
    }
    if (status == MEMOS_OK) {
        status = memcube_file_sync_folder(folder, err);
    }
    return status;
}
