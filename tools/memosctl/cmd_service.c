/* Starting and stopping a broker for oneself. */
#include "tools/memosctl/ctl.h"

#include "tools/memosctl/launch.h"
#include "tools/memosctl/workers.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BROKER_PROGRAM "memosd"
enum { STOP_WAIT_MS = 3000 };

/* ---- places ---- */

static enum memos_status data_dir_of(
    const struct ctl *ctl, char out[PATH_MAX], struct memos_error *err)
{
    const char *given = ctl_args_value(ctl->args, CTL_DATA_DIR);
    given = given ? given : getenv("MEMOS_DATA_DIR");
    if (given && given[0]) {
        return snprintf(out, PATH_MAX, "%s", given) < PATH_MAX
                   ? MEMOS_OK
                   : memos_fail(err, MEMOS_INVALID, "--data-dir is too long");
    }
    return ctl_xdg_path("XDG_DATA_HOME", ".local/share", "memos", out, err);
}

static const char *address_of(const struct ctl *ctl)
{
    const char *address = ctl_args_value(ctl->args, CTL_ADDRESS);
    address = address ? address : getenv("MEMOS_ADDRESS");
    return address && address[0] ? address : NULL;
}

/* ---- is one running? ---- */

/* UNAVAILABLE when nobody answers. Closes the connection: a later one begins anew. */
static enum memos_status ask_version(struct ctl *ctl, char version[64], struct memos_error *err)
{
    Memos__Hello hello = MEMOS__HELLO__INIT;
    Memos__Request request = CTL_REQUEST(HELLO, hello, &hello);
    struct memos_message *reply = NULL;
    enum memos_status status =
        ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_WELCOME, &reply, err);
    if (status == MEMOS_OK) {
        snprintf(version, 64, "%s", memos_message_reply(reply)->welcome->version);
    }
    memos_message_free(&reply);
    memos_client_close(&ctl->client);
    ctl->hint = NULL;
    return status;
}

/* Who listens at an ipc address; 0: nobody, or it cannot be told. */
static pid_t pid_of_listener(const char *address)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    struct ucred peer = {0};
    socklen_t size = sizeof peer;
    const char *path = strncmp(address, "ipc://", 6) == 0 ? address + 6 : NULL;
    if (!path || strlen(path) >= sizeof name.sun_path) {
        return 0;
    }
    memcpy(name.sun_path, path, strlen(path));
    name.sun_path[0] = path[0] == '@' ? '\0' : path[0];
    int file = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path) +
                                   (path[0] == '@' ? 0 : 1));
    bool known = file >= 0 && connect(file, (struct sockaddr *)&name, length) == 0 &&
                 getsockopt(file, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0;
    if (file >= 0) {
        close(file);
    }
    return known ? peer.pid : 0;
}

/* The pid that the store's lock names; 0: none. */
static pid_t pid_of_lock(const char *data_dir)
{
    char path[PATH_MAX], text[24] = {0};
    uint64_t pid = 0;
    if (snprintf(path, sizeof path, "%s/store/memos.lock", data_dir) >= (int)sizeof path) {
        return 0;
    }
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        ssize_t size = read(file, text, sizeof text - 1);
        text[size > 0 ? strcspn(text, "\n") : 0] = '\0';
        close(file);
    }
    return ctl_number_parse(text, INT32_MAX, &pid) ? (pid_t)pid : 0;
}

/* ---- up ---- */

static void make_arguments(const struct ctl *ctl, struct ctl_launch *launch)
{
    size_t at = 0;
    const char *value;
    ctl_launch_add(launch, "--config", ctl_args_value(ctl->args, CTL_CONFIG));
    ctl_launch_add(launch, "--data-dir", ctl_args_value(ctl->args, CTL_DATA_DIR));
    while ((value = ctl_args_next(ctl->args, CTL_LISTEN, &at))) {
        ctl_launch_add(launch, "--listen", value);
    }
    if (!ctl_args_has(ctl->args, CTL_LISTEN)) {
        /* where we would look for it is where it has to be */
        ctl_launch_add(launch, "--listen", address_of(ctl));
    }
}

static enum memos_status start(struct ctl *ctl, struct ctl_launch *launch, struct memos_error *err)
{
    enum memos_status status = ctl_log_path(ctl, CTL_LOG_FILE, "memosd.log", launch->log, err);
    if (status != MEMOS_OK) {
        return status;
    }
    make_arguments(ctl, launch);
    ctl_launch_find(ctl, CTL_MEMOSD, launch);
    return ctl_launch_start(ctl, launch, err);
}

/* The broker that was asked for, or found. */
struct up {
    struct ctl_launch launch;
    char data_dir[PATH_MAX], address[512], version[64];
    bool is_new;
};

static enum memos_status print_up(struct ctl *ctl, const struct up *up, struct memos_error *err)
{
    const struct ctl_launch *launch = &up->launch;
    pid_t pid = up->is_new ? launch->pid : pid_of_listener(up->address);
    bool dir_known = up->is_new && !ctl_args_has(ctl->args, CTL_CONFIG);
    if (ctl->json) {
        return ctl_json_print(json_pack("{sb,so,sI,so,so,so}", "started", (int)up->is_new,
                                  "address", ctl_json_string(up->address), "pid", (json_int_t)pid,
                                  "version", ctl_json_string(up->version), "data_dir",
                                  dir_known ? ctl_json_string(up->data_dir) : json_null(), "log",
                                  up->is_new ? ctl_json_string(launch->log) : json_null()),
            err);
    }
    printf("%smemosd %s %s%s\n", ctl_style_on(&ctl->paper, CTL_GREEN), up->version,
        up->is_new ? "is running" : "runs already", ctl_style_off(&ctl->paper));
    ctl_paper_fieldf(&ctl->paper, "address", "%s", up->address);
    if (pid > 0) {
        ctl_paper_fieldf(&ctl->paper, "process", "%ld", (long)pid);
    }
    ctl_paper_field(&ctl->paper, "store", memos_bytes_of(dir_known ? up->data_dir : ""));
    ctl_paper_field(&ctl->paper, "log", memos_bytes_of(up->is_new ? launch->log : ""));
    return MEMOS_OK;
}

enum memos_status ctl_run_up(struct ctl *ctl, struct memos_error *err)
{
    struct up up = {.is_new = false};
    const char *address = address_of(ctl), *listen = ctl_args_value(ctl->args, CTL_LISTEN);
    enum memos_status status = data_dir_of(ctl, up.data_dir, err);
    address = address ? address : listen;
    if (status == MEMOS_OK && address) {
        snprintf(up.address, sizeof up.address, "%s", address);
    } else if (status == MEMOS_OK) {
        status = memos_default_address(up.address, sizeof up.address, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    ctl_launch_init(&up.launch, BROKER_PROGRAM, "broker");
    status = ask_version(ctl, up.version, err);
    if (status == MEMOS_UNAVAILABLE || status == MEMOS_NOT_FOUND) {
        up.is_new = true;
        status = start(ctl, &up.launch, err);
        if (status == MEMOS_OK && !listen && !ctl_args_has(ctl->args, CTL_CONFIG)) {
            status = ask_version(ctl, up.version, err);
        }
    }
    if (status == MEMOS_OK) {
        status = print_up(ctl, &up, err);
    }
    ctl_launch_finish(&up.launch);
    return status;
}

/* ---- down ---- */

/* The broker that is meant: of --data-dir by its lock, else the one that listens at the address,
 * else (it may be on its way out) of the lock of the usual folder. */
static enum memos_status find_broker(struct ctl *ctl, pid_t *out, struct memos_error *err)
{
    char path[PATH_MAX], own[512];
    const char *address = address_of(ctl);
    *out = 0;
    enum memos_status status = MEMOS_OK;
    if (!address) {
        status = memos_default_address(own, sizeof own, err);
        address = own;
    }
    if (status == MEMOS_OK && !ctl_args_has(ctl->args, CTL_DATA_DIR)) {
        *out = pid_of_listener(address);
    }
    if (status == MEMOS_OK && *out == 0 &&
        (address == own || ctl_args_has(ctl->args, CTL_DATA_DIR))) {
        status = data_dir_of(ctl, path, err);
        *out = status == MEMOS_OK ? pid_of_lock(path) : 0;
        *out = ctl_process_is(*out, BROKER_PROGRAM) ? *out : 0;
    }
    return status;
}

/* The workers that were started for it, before it goes; *out_count: how many there were. */
static enum memos_status stop_workers(
    struct ctl *ctl, int64_t wait_ms, size_t *out_count, struct memos_error *err)
{
    char address[512];
    struct ctl_worker *workers = NULL;
    *out_count = 0;
    enum memos_status status = ctl_broker_address(ctl, address, sizeof address, err);
    if (status == MEMOS_OK) {
        status = ctl_workers_kept(ctl, address, &workers, out_count, err);
    }
    for (size_t i = 0; i < *out_count && status == MEMOS_OK; i++) {
        status = ctl_worker_end(&workers[i], wait_ms, err);
    }
    return status;
}

enum memos_status ctl_run_down(struct ctl *ctl, struct memos_error *err)
{
    pid_t pid;
    size_t workers = 0;
    int64_t wait_ms = ctl_args_has(ctl->args, CTL_TIMEOUT) ? ctl->timeout_ms : STOP_WAIT_MS;
    enum memos_status status = find_broker(ctl, &pid, err);
    /* of another store than that at the address nobody here knows the workers */
    if (status == MEMOS_OK && !ctl_args_has(ctl->args, CTL_DATA_DIR)) {
        status = stop_workers(ctl, wait_ms, &workers, err);
    }
    if (status == MEMOS_OK && pid > 0) {
        status = ctl_process_stop(pid, BROKER_PROGRAM, wait_ms, err);
    }
    if (status == MEMOS_OK && ctl->json) {
        return ctl_json_print(json_pack("{sb,sI,sI}", "stopped", (int)(pid > 0), "pid",
                                  (json_int_t)pid, "workers", (json_int_t)workers),
            err);
    }
    if (status == MEMOS_OK && workers > 0) {
        printf("stopped %s%zu worker%s\n", pid > 0 ? "the broker and " : "", workers,
            workers == 1 ? "" : "s");
    } else if (status == MEMOS_OK) {
        puts(pid > 0 ? "stopped" : "nothing was running");
    }
    return status;
}
