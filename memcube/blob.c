#include "memcube/blob.h"

#include "memcube/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_BYTES 4096
#define FOLDER_BYTES (6 + 2) /* "blobs/xx" */

/* The three names of a blob. */
struct blob_paths {
    char folder[PATH_BYTES]; /* blobs/xx */
    char file[PATH_BYTES];
    char fresh[PATH_BYTES];
    char gone[PATH_BYTES];
};

static void hex_of(const uint8_t *bytes, size_t size, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < size; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * size] = 0;
}

char *memcube_blob_name(const struct memcube_blob *blob, char out[MEMCUBE_BLOB_NAME_BYTES])
{
    char hex[2 * MEMCUBE_HASH_BYTES + 1];
    hex_of(blob->hash.bytes, sizeof blob->hash.bytes, hex);
    (void)snprintf(
        out, MEMCUBE_BLOB_NAME_BYTES, "blobs/%.2s/%s-%u", hex, hex, (unsigned)blob->space);
    return out;
}

static enum memos_status paths_of(const char *store_path, const struct memcube_blob *blob,
    struct blob_paths *out, struct memos_error *err)
{
    char name[MEMCUBE_BLOB_NAME_BYTES];
    memcube_blob_name(blob, name);
    int size = snprintf(out->gone, sizeof out->gone, "%s/%s.gone", store_path, name);
    if (size < 0 || (size_t)size >= sizeof out->gone) {
        return memos_fail(err, MEMOS_INVALID, "the path of the store is too long");
    }
    (void)snprintf(out->file, sizeof out->file, "%s/%s", store_path, name);
    (void)snprintf(out->fresh, sizeof out->fresh, "%s/%s.new", store_path, name);
    (void)snprintf(out->folder, sizeof out->folder, "%s/%.*s", store_path, FOLDER_BYTES, name);
    return MEMOS_OK;
}

/* ---- writing ------------------------------------------------------------------------------- */

static enum memos_status folder_make(const char *path, const char *parent, struct memos_error *err)
{
    if (mkdir(path, 0700) == 0) {
        return memcube_file_sync_folder(parent, err);
    }
    return errno == EEXIST ? MEMOS_OK : memos_fail_errno(err, errno, "making %s", path);
}

static enum memos_status folders_make(
    const char *store_path, const char *folder, struct memos_error *err)
{
    char blobs[PATH_BYTES];
    (void)snprintf(blobs, sizeof blobs, "%s/blobs", store_path);
    enum memos_status status = folder_make(blobs, store_path, err);
    return status == MEMOS_OK ? folder_make(folder, blobs, err) : status;
}

/* Left by a transaction that did not commit, or waiting to be destroyed: as good as new if it has
 * these bytes. */
static bool is_there(
    const char *store_path, const struct memcube_blob *blob, struct memos_bytes bytes)
{
    void *map = NULL;
    if (memcube_blob_map(store_path, blob, bytes.size, &map, NULL) != MEMOS_OK) {
        return false;
    }
    bool same = memcmp(map, bytes.data, bytes.size) == 0;
    (void)munmap(map, bytes.size);
    return same;
}

static enum memos_status write_fresh(
    const struct blob_paths *paths, struct memos_bytes bytes, struct memos_error *err)
{
    int fd = open(paths->fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        return memos_fail_errno(err, errno, "making %s", paths->fresh);
    }
    enum memos_status status = memcube_file_write_at(fd, bytes, 0, paths->fresh, err);
    if (status == MEMOS_OK) {
        status = memcube_file_sync(fd, paths->fresh, err);
    }
    (void)close(fd);
    if (status == MEMOS_OK && rename(paths->fresh, paths->file) != 0) {
        status = memos_fail_errno(err, errno, "renaming %s", paths->fresh);
    }
    return status;
}

enum memos_status memcube_blob_write(const char *store_path, const struct memcube_blob *blob,
    struct memos_bytes bytes, bool *out_made, struct memos_error *err)
{
    struct blob_paths paths;
    *out_made = false;
    enum memos_status status = paths_of(store_path, blob, &paths, err);
    if (status == MEMOS_OK) {
        status = folders_make(store_path, paths.folder, err);
    }
    if (status == MEMOS_OK && !is_there(store_path, blob, bytes)) {
        status = write_fresh(&paths, bytes, err);
        *out_made = status == MEMOS_OK;
        if (status != MEMOS_OK) {
            (void)unlink(paths.fresh); /* gives the room back on a full disk */
        }
    }
    return status == MEMOS_OK ? memcube_file_sync_folder(paths.folder, err) : status;
}

/* ---- reading ------------------------------------------------------------------------------- */

enum memos_status memcube_blob_map(const char *store_path, const struct memcube_blob *blob,
    uint64_t size, void **out_map, struct memos_error *err)
{
    struct blob_paths paths;
    struct stat about;
    enum memos_status status = paths_of(store_path, blob, &paths, err);
    if (status != MEMOS_OK) {
        return status;
    }
    int fd = open(paths.file, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &about) != 0) {
        status = memos_fail_errno(err, errno, "opening %s", paths.file);
        goto out;
    }
    if (!S_ISREG(about.st_mode) || (uint64_t)about.st_size != size || size == 0) {
        status = memos_fail(err, MEMOS_CORRUPT, "%s has %lld bytes, not %llu", paths.file,
            (long long)about.st_size, (unsigned long long)size);
        goto out;
    }
    void *map = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        status = memos_fail_errno(err, errno, "mapping %s", paths.file);
    } else {
        *out_map = map;
    }
out:
    if (fd >= 0) {
        (void)close(fd);
    }
    return status;
}

/* ---- destroying ---------------------------------------------------------------------------- */

enum memos_status memcube_blob_destroy(const char *store_path, const struct memcube_blob *blob,
    uint64_t *out_bytes, struct memos_error *err)
{
    struct blob_paths paths;
    *out_bytes = 0;
    enum memos_status status = paths_of(store_path, blob, &paths, err);
    if (status != MEMOS_OK) {
        return status;
    }
    /* The name goes first, so that a reader who meets zeros can see why. */
    if (rename(paths.file, paths.gone) != 0 && errno != ENOENT) {
        return memos_fail_errno(err, errno, "renaming %s", paths.file);
    }
    return memcube_file_destroy(paths.gone, paths.folder, out_bytes, err);
}

/* ---- sweeping ------------------------------------------------------------------------------ */

static int nibble_of(char digit)
{
    if (digit >= '0' && digit <= '9') {
        return digit - '0';
    }
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

/* What a file's name says: 0 not ours, 1 a blob, 2 a leftover of one. */
static int parse_name(const char *name, struct memcube_blob *out)
{
    for (size_t i = 0; i < MEMCUBE_HASH_BYTES; i++) {
        int high = nibble_of(name[2 * i]);
        int low = high < 0 ? -1 : nibble_of(name[2 * i + 1]);
        if (low < 0) {
            return 0;
        }
        out->hash.bytes[i] = (uint8_t)(high << 4 | low);
    }
    const char *rest = name + (size_t)2 * MEMCUBE_HASH_BYTES;
    if (*rest++ != '-' || *rest < '0' || *rest > '9') {
        return 0;
    }
    char *end = NULL;
    errno = 0;
    unsigned long space = strtoul(rest, &end, 10);
    if (errno != 0 || space > UINT32_MAX) {
        return 0;
    }
    out->space = (uint32_t)space;
    if (*end == 0) {
        return 1;
    }
    return strcmp(end, ".new") == 0 || strcmp(end, ".gone") == 0 ? 2 : 0;
}

struct sweep {
    const struct memcube_blob_names *names;
    uint64_t removed;
    struct memcube_blob_totals kept;
};

static enum memos_status sweep_file(
    const char *folder, const char *name, struct sweep *sweep, struct memos_error *err)
{
    struct memcube_blob blob;
    struct stat about;
    char path[PATH_BYTES];
    bool named = false;
    uint64_t bytes = 0;
    int is = parse_name(name, &blob);
    if (is == 0) {
        return MEMOS_OK;
    }
    int size = snprintf(path, sizeof path, "%s/%s", folder, name);
    if (size < 0 || (size_t)size >= sizeof path) {
        return memos_fail(err, MEMOS_INVALID, "the path of the store is too long");
    }
    enum memos_status status =
        is == 1 ? sweep->names->named(sweep->names->self, &blob, &named, err) : MEMOS_OK;
    if (status == MEMOS_OK && named) {
        sweep->kept.count++;
        sweep->kept.bytes += stat(path, &about) == 0 ? (uint64_t)about.st_size : 0;
    } else if (status == MEMOS_OK) {
        status = memcube_file_destroy(path, folder, &bytes, err);
        sweep->removed++;
    }
    return status;
}

static enum memos_status sweep_folder(
    const char *folder, struct sweep *sweep, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    struct dirent *entry;
    DIR *dir = opendir(folder);
    if (!dir) {
        return errno == ENOENT ? MEMOS_OK : memos_fail_errno(err, errno, "reading %s", folder);
    }
    while (status == MEMOS_OK && (entry = readdir(dir))) {
        status = sweep_file(folder, entry->d_name, sweep, err);
    }
    (void)closedir(dir);
    return status;
}

enum memos_status memcube_blob_sweep(const char *store_path, const struct memcube_blob_names *names,
    uint64_t *out_removed, struct memcube_blob_totals *out_kept, struct memos_error *err)
{
    struct sweep sweep = {.names = names};
    enum memos_status status = MEMOS_OK;
    for (unsigned i = 0; status == MEMOS_OK && i < 256; i++) {
        char folder[PATH_BYTES];
        int size = snprintf(folder, sizeof folder, "%s/blobs/%02x", store_path, i);
        if (size < 0 || (size_t)size >= sizeof folder) {
            return memos_fail(err, MEMOS_INVALID, "the path of the store is too long");
        }
        status = sweep_folder(folder, &sweep, err);
    }
    *out_removed = sweep.removed;
    *out_kept = sweep.kept;
    return status;
}
