#include "tools/memosctl/registry.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { COPY_BYTES = 1 << 20, NAMES_MAX = 4096, FILES_OPEN = 8 };

/* ---- folders that come and go --------------------------------------------------------------- */

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *at)
{
    (void)info;
    (void)type;
    (void)at;
    return remove(path);
}

static bool remove_tree(const char *path)
{
    return nftw(path, remove_entry, FILES_OPEN, FTW_DEPTH | FTW_PHYS) == 0;
}

/* A folder's lock, or -1 when somebody holds it. */
static int lock_folder(const char *path)
{
    int file = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (file >= 0 && flock(file, LOCK_EX | LOCK_NB) != 0) {
        close(file);
        file = -1;
    }
    return file;
}

/* Remove what was left by somebody who was stopped. */
static void sweep(const char *registry)
{
    char path[PATH_MAX];
    DIR *folder = opendir(registry);
    const struct dirent *entry;
    while (folder && (entry = readdir(folder))) {
        if (strncmp(entry->d_name, ".on-its-way-", 12) != 0 ||
            snprintf(path, sizeof path, "%s/%s", registry, entry->d_name) >= (int)sizeof path) {
            continue;
        }
        int file = lock_folder(path);
        if (file >= 0) {
            (void)remove_tree(path);
            close(file);
        }
    }
    if (folder) {
        closedir(folder);
    }
}

/* A folder and those above it. */
static enum memos_status make_folders(const char *path, struct memos_error *err)
{
    char folder[PATH_MAX];
    if (snprintf(folder, sizeof folder, "%s/", path) >= (int)sizeof folder) {
        return memos_fail(err, MEMOS_INVALID, "the path '%.100s' is too long", path);
    }
    for (char *slash = strchr(folder + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(folder, 0700) != 0 && errno != EEXIST) {
            return memos_fail_errno(err, errno, "cannot make the folder '%.100s'", folder);
        }
        *slash = '/';
    }
    return MEMOS_OK;
}

enum memos_status ctl_registry_begin(
    const struct ctl_registry *registry, struct ctl_registry_folder *out, struct memos_error *err)
{
    out->file = -1;
    enum memos_status status = make_folders(registry->path, err);
    if (status != MEMOS_OK) {
        return status;
    }
    sweep(registry->path);
    if (snprintf(out->path, sizeof out->path, "%s/.on-its-way-XXXXXX", registry->path) >=
        (int)sizeof out->path) {
        return memos_fail(err, MEMOS_INVALID, "the path '%.100s' is too long", registry->path);
    }
    if (!mkdtemp(out->path)) {
        return memos_fail_errno(err, errno, "cannot make a folder in '%.100s'", registry->path);
    }
    out->file = lock_folder(out->path);
    return out->file >= 0 ? MEMOS_OK
                          : memos_fail_errno(err, errno, "cannot lock '%.100s'", out->path);
}

void ctl_registry_abort(struct ctl_registry_folder *folder)
{
    if (folder->file >= 0) {
        (void)remove_tree(folder->path);
        close(folder->file);
        folder->file = -1;
    }
}

static enum memos_status sync_folder(const char *path, struct memos_error *err)
{
    int file = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int failed = file < 0 || fsync(file) != 0 ? errno : 0;
    if (file >= 0) {
        close(file);
    }
    return failed ? memos_fail_errno(err, failed, "cannot sync '%.100s'", path) : MEMOS_OK;
}

static enum memos_status fail_exists(
    const struct ctl_registry *registry, const char *name, struct memos_error *err)
{
    return memos_fail(err, MEMOS_EXISTS, "there is %s %s '%s' already",
        registry->kind[0] == 'e' ? "an" : "a", registry->kind, name);
}

enum memos_status ctl_registry_commit(const struct ctl_registry *registry, const char *name,
    const char *item, struct ctl_registry_folder *folder, struct memos_error *err)
{
    char path[PATH_MAX], from[PATH_MAX + NAME_MAX + 2];
    snprintf(
        from, sizeof from, "%s%s%.*s", folder->path, item ? "/" : "", NAME_MAX, item ? item : "");
    enum memos_status status = registry->place(registry->path, name, path, err);
    if (status == MEMOS_OK) {
        status = sync_folder(folder->path, err);
    }
    if (status != MEMOS_OK) {
        return status;
    } else if (renameat2(AT_FDCWD, from, AT_FDCWD, path, RENAME_NOREPLACE) != 0) {
        return errno == EEXIST ? fail_exists(registry, name, err)
                               : memos_fail_errno(err, errno, "cannot make '%.100s'", path);
    }
    if (item) {
        ctl_registry_abort(folder); /* what it was in */
    } else {
        close(folder->file);
        folder->file = -1;
    }
    return sync_folder(registry->path, err);
}

enum memos_status ctl_registry_link(const struct ctl_registry *registry, const char *name,
    const char *target, struct memos_error *err)
{
    char path[PATH_MAX];
    memos_assert(registry->has_others && target[0] == '/');
    enum memos_status status = registry->place(registry->path, name, path, err);
    if (status == MEMOS_OK) {
        status = make_folders(registry->path, err);
    }
    if (status != MEMOS_OK) {
        return status;
    } else if (symlink(target, path) != 0) {
        return errno == EEXIST ? fail_exists(registry, name, err)
                               : memos_fail_errno(err, errno, "cannot make '%.100s'", path);
    }
    return sync_folder(registry->path, err);
}

enum memos_status ctl_registry_free(
    const struct ctl_registry *registry, const char *name, struct memos_error *err)
{
    char path[PATH_MAX];
    struct stat info;
    enum memos_status status = registry->place(registry->path, name, path, err);
    return status == MEMOS_OK && lstat(path, &info) == 0 ? fail_exists(registry, name, err)
                                                         : status;
}

enum memos_status ctl_registry_remove(
    const struct ctl_registry *registry, const char *name, struct memos_error *err)
{
    char path[PATH_MAX];
    struct ctl_registry_folder folder;
    struct stat info;
    enum memos_status status = registry->place(registry->path, name, path, err);
    if (status != MEMOS_OK) {
        return status;
    } else if (lstat(path, &info) != 0) {
        return memos_fail(err, MEMOS_NOT_FOUND, "there is no %s '%s' in %.100s", registry->kind,
            name, registry->path);
    }
    /* out of sight at once, then file by file */
    status = ctl_registry_begin(registry, &folder, err);
    if (status == MEMOS_OK) {
        char away[PATH_MAX + 8];
        snprintf(away, sizeof away, "%s/item", folder.path);
        if (rename(path, away) != 0) {
            status = memos_fail_errno(err, errno, "cannot remove '%.100s'", path);
        }
    }
    ctl_registry_abort(&folder);
    return status;
}

/* ---- copying -------------------------------------------------------------------------------- */

static enum memos_status copy_bytes(
    int from, const char *from_path, int to, const char *path, struct memos_error *err)
{
    char *room = malloc(COPY_BYTES);
    enum memos_status status =
        room ? MEMOS_OK : memos_fail(err, MEMOS_NO_MEMORY, "no memory to copy a file");
    for (ssize_t size = 1; size > 0 && status == MEMOS_OK;) {
        size = read(from, room, COPY_BYTES);
        if (size < 0) {
            status = memos_fail_errno(err, errno, "cannot read '%.100s'", from_path);
        }
        for (ssize_t done = 0, written; done < size && status == MEMOS_OK; done += written) {
            written = write(to, room + done, (size_t)(size - done));
            if (written < 0) {
                status = memos_fail_errno(err, errno, "cannot write '%.100s'", path);
            }
        }
    }
    free(room);
    if (status == MEMOS_OK && fsync(to) != 0) {
        status = memos_fail_errno(err, errno, "cannot write '%.100s'", path);
    }
    return status;
}

static enum memos_status copy_file(
    const char *from_path, const char *to_path, bool is_needed, struct memos_error *err)
{
    struct stat info;
    int from = open(from_path, O_RDONLY | O_CLOEXEC);
    if (from < 0 && errno == ENOENT && !is_needed) {
        return MEMOS_OK;
    } else if (from < 0) {
        return memos_fail_errno(err, errno, "cannot open '%.140s'", from_path);
    } else if (fstat(from, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(from);
        return memos_fail(err, MEMOS_INVALID, "'%.140s' is no file", from_path);
    }
    int to = open(to_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    enum memos_status status = to >= 0
                                   ? copy_bytes(from, from_path, to, to_path, err)
                                   : memos_fail_errno(err, errno, "cannot make '%.140s'", to_path);
    if (to >= 0 && close(to) != 0 && status == MEMOS_OK) {
        status = memos_fail_errno(err, errno, "cannot write '%.140s'", to_path);
    }
    close(from);
    return status;
}

/* The folder in which a name like "1_Pooling/config.json" lies. */
static enum memos_status make_parent(const char *path, struct memos_error *err)
{
    char parent[PATH_MAX];
    snprintf(parent, sizeof parent, "%s", path);
    *strrchr(parent, '/') = '\0';
    return mkdir(parent, 0700) == 0 || errno == EEXIST
               ? MEMOS_OK
               : memos_fail_errno(err, errno, "cannot make '%.100s'", parent);
}

enum memos_status ctl_registry_copy(const char *from, const struct ctl_registry_file *files,
    size_t files_count, const struct ctl_registry_folder *folder, struct memos_error *err)
{
    char from_path[PATH_MAX], to_path[PATH_MAX];
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; i < files_count && status == MEMOS_OK; i++) {
        const char *name = files[i].name;
        if (snprintf(from_path, sizeof from_path, "%s/%s", from, name) >= (int)sizeof from_path ||
            snprintf(to_path, sizeof to_path, "%s/%s", folder->path, name) >= (int)sizeof to_path) {
            return memos_fail(err, MEMOS_INVALID, "the path '%.100s' is too long", from);
        }
        if (strchr(name, '/') && access(from_path, F_OK) == 0) {
            status = make_parent(to_path, err);
        }
        if (status == MEMOS_OK) {
            status = copy_file(from_path, to_path, files[i].is_needed, err);
        }
    }
    return status;
}

/* ---- looking -------------------------------------------------------------------------------- */

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_item(const struct ctl_registry *registry, DIR *folder, const char *name)
{
    char path[PATH_MAX];
    struct stat info;
    int flags = registry->has_others ? AT_SYMLINK_NOFOLLOW : 0;
    if (registry->place(registry->path, name, path, NULL) != MEMOS_OK ||
        fstatat(dirfd(folder), name, &info, flags) != 0) {
        return false;
    }
    return S_ISDIR(info.st_mode) ||
           (registry->has_others && (S_ISLNK(info.st_mode) || S_ISREG(info.st_mode)));
}

static enum memos_status list_names(const struct ctl_registry *registry, DIR *folder,
    struct memos_arena *arena, char **names, size_t *count, struct memos_error *err)
{
    const struct dirent *entry;
    while (*count < NAMES_MAX && (entry = readdir(folder))) {
        if (!is_item(registry, folder, entry->d_name)) {
            continue;
        }
        char *name = memos_arena_copy(arena, memos_bytes_of(entry->d_name));
        if (!name) {
            return memos_fail(
                err, MEMOS_NO_MEMORY, "no memory for the names of %ss", registry->kind);
        }
        names[(*count)++] = name;
    }
    qsort(names, *count, sizeof *names, compare_names);
    return MEMOS_OK;
}

enum memos_status ctl_registry_list(const struct ctl_registry *registry, struct memos_arena *arena,
    char ***out_names, size_t *out_count, struct memos_error *err)
{
    char **names = memos_arena_take(arena, NAMES_MAX, sizeof *names);
    size_t count = 0;
    if (!names) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for the names of %ss", registry->kind);
    }
    DIR *folder = opendir(registry->path);
    if (!folder && errno != ENOENT) {
        return memos_fail_errno(err, errno, "cannot read the folder '%.100s'", registry->path);
    }
    enum memos_status status = MEMOS_OK;
    if (folder) {
        status = list_names(registry, folder, arena, names, &count, err);
        closedir(folder);
    }
    *out_names = names;
    *out_count = count;
    return status;
}

const char *ctl_registry_name_of(struct memos_arena *arena, const char *path, const char *ending)
{
    size_t end = strlen(path), begin, cut = strlen(ending);
    while (end > 1 && path[end - 1] == '/') {
        end--;
    }
    for (begin = end; begin > 0 && path[begin - 1] != '/'; begin--) {
    }
    if (end - begin > cut && memcmp(path + end - cut, ending, cut) == 0) {
        end -= cut;
    }
    const char *name = memos_arena_copy(arena, memos_bytes_make(path + begin, end - begin));
    return name ? name : "";
}

/* nftw passes nothing on. Sync: of one thread, as memosctl is. */
static uint64_t bytes_found;

static int count_bytes(const char *path, const struct stat *info, int type, struct FTW *at)
{
    (void)path;
    (void)at;
    bytes_found += type == FTW_F ? (uint64_t)info->st_size : 0;
    return 0;
}

uint64_t ctl_registry_bytes(const char *path)
{
    bytes_found = 0;
    (void)nftw(path, count_bytes, FILES_OPEN, FTW_PHYS);
    return bytes_found;
}
