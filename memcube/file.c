#include "memcube/file.h"

#include <errno.h>
#include <fcntl.h>
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
