#include "tools/memosctl/workers.h"

#include "tools/memosctl/input.h"
#include "tools/memosctl/launch.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RECORD_BYTES_MAX = 64 * 1024, WORKERS_MAX = 1024 };

enum memos_status ctl_broker_address(
    const struct ctl *ctl, char *out, size_t size, struct memos_error *err)
{
    const char *given = ctl_args_value(ctl->args, CTL_ADDRESS);
    given = given ? given : getenv("MEMOS_ADDRESS");
    if (!given || !given[0]) {
        return memos_default_address(out, size, err);
    }
    return snprintf(out, size, "%s", given) < (int)size
               ? MEMOS_OK
               : memos_fail(err, MEMOS_INVALID, "the broker's address is too long");
}

/* The folder of the files, whatever broker they are of. */
static enum memos_status folder_of(char out[PATH_MAX], struct memos_error *err)
{
    char socket[512];
    enum memos_status status = memos_default_address(socket, sizeof socket, err);
    if (status != MEMOS_OK) {
        return status;
    }
    const char *path = socket + strlen("ipc://");
    const char *slash = strrchr(path, '/');
    snprintf(out, PATH_MAX, "%.*s/workers", (int)(slash - path), path);
    return MEMOS_OK;
}

enum memos_status ctl_worker_keep(
    struct ctl *ctl, struct ctl_worker *worker, struct memos_error *err)
{
    char folder[PATH_MAX], path[PATH_MAX + 24];
    struct ctl_file file;
    enum memos_status status = folder_of(folder, err);
    if (status != MEMOS_OK) {
        return status;
    }
    snprintf(path, sizeof path, "%s/%ld", folder, (long)worker->pid);
    worker->path = memos_arena_copy(&ctl->arena, memos_bytes_of(path));
    json_t *json = json_pack("{sI,so,so,so}", "pid", (json_int_t)worker->pid, "name",
        ctl_json_string(worker->name), "address", ctl_json_string(worker->address), "log",
        ctl_json_string(worker->log));
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    status = text && worker->path ? ctl_make_folders(path, err)
                                  : memos_fail(err, MEMOS_NO_MEMORY, "no memory for a worker");
    if (status == MEMOS_OK) {
        status = ctl_file_create(worker->path, &file, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_file_write(&file, memos_bytes_of(text), err);
        if (status == MEMOS_OK) {
            status = ctl_file_commit(&file, err);
        }
        ctl_file_abort(&file);
    }
    free(text);
    return status;
}

static const char *keep_text(struct ctl *ctl, const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? memos_arena_copy(&ctl->arena, memos_bytes_of(text)) : NULL;
}

/* One that is no record, or whose process is not there, is not taken. */
static bool read_record(struct ctl *ctl, const char *path, struct ctl_worker *out)
{
    struct memos_buffer text = memos_buffer_make(0);
    json_t *json = NULL;
    if (ctl_file_read(path, RECORD_BYTES_MAX, &text, NULL) == MEMOS_OK) {
        json = json_loadb((const char *)text.data, text.size, 0, NULL);
    }
    memos_buffer_free(&text);
    json_int_t pid = json_integer_value(json_object_get(json, "pid"));
    *out = (struct ctl_worker){.pid = pid > 1 && pid <= INT32_MAX ? (pid_t)pid : 0,
        .name = keep_text(ctl, json, "name"),
        .address = keep_text(ctl, json, "address"),
        .log = keep_text(ctl, json, "log"),
        .path = memos_arena_copy(&ctl->arena, memos_bytes_of(path))};
    json_decref(json);
    return out->name && out->address && out->log && out->path &&
           ctl_process_is(out->pid, CTL_WORKER_PROGRAM);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct ctl_worker *)a)->name, ((const struct ctl_worker *)b)->name);
}

enum memos_status ctl_workers_kept(struct ctl *ctl, const char *address, struct ctl_worker **out,
    size_t *out_count, struct memos_error *err)
{
    char folder[PATH_MAX], path[PATH_MAX + 256];
    uint64_t pid;
    struct ctl_worker *workers = memos_arena_take(&ctl->arena, WORKERS_MAX, sizeof *workers);
    enum memos_status status = workers ? folder_of(folder, err)
                                       : memos_fail(err, MEMOS_NO_MEMORY, "no memory for workers");
    *out = workers;
    *out_count = 0;
    DIR *files = status == MEMOS_OK ? opendir(folder) : NULL;
    if (status == MEMOS_OK && !files && errno != ENOENT) {
        status = memos_fail_errno(err, errno, "cannot look into '%.100s'", folder);
    }
    for (struct dirent *entry; files && (entry = readdir(files)) && *out_count < WORKERS_MAX;) {
        if (!ctl_number_parse(entry->d_name, INT32_MAX, &pid)) {
            continue;
        }
        struct ctl_worker *worker = &workers[*out_count];
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (!read_record(ctl, path, worker)) {
            (void)unlink(path);
        } else {
            *out_count += !address || strcmp(worker->address, address) == 0;
        }
    }
    if (files) {
        (void)closedir(files);
    }
    qsort(workers, *out_count, sizeof *workers, by_name);
    return status;
}

enum memos_status ctl_worker_end(
    const struct ctl_worker *worker, int64_t wait_ms, struct memos_error *err)
{
    enum memos_status status = ctl_process_stop(worker->pid, CTL_WORKER_PROGRAM, wait_ms, err);
    if (status == MEMOS_OK) {
        (void)unlink(worker->path);
    }
    return status;
}
