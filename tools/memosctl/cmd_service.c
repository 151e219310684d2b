/* Starting and stopping a broker for oneself. */
#include "tools/memosctl/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ARGUMENTS_MAX = 64, READY_FD = 3, STOP_WAIT_MS = 3000, LOG_TAIL_BYTES = 2048 };

extern char **environ;

/* ---- places ---- */

/* $VARIABLE/NAME, or $HOME/USUAL/NAME. INVALID without both. */
static enum memos_status xdg_path(const char *variable, const char *usual, const char *name,
    char out[PATH_MAX], struct memos_error *err)
{
    const char *base = getenv(variable), *home = getenv("HOME");
    int size;
    if (base && base[0] == '/') {
        size = snprintf(out, PATH_MAX, "%s/%s", base, name);
    } else if (home && home[0] == '/') {
        size = snprintf(out, PATH_MAX, "%s/%s/%s", home, usual, name);
    } else {
        return memos_fail(err, MEMOS_INVALID, "neither %s nor HOME says where", variable);
    }
    return size > 0 && size < PATH_MAX ? MEMOS_OK
                                       : memos_fail(err, MEMOS_INVALID, "%s is too long", variable);
}

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
    return xdg_path("XDG_DATA_HOME", ".local/share", "memos", out, err);
}

static enum memos_status log_path_of(
    const struct ctl *ctl, char out[PATH_MAX], struct memos_error *err)
{
    const char *given = ctl_args_value(ctl->args, CTL_LOG_FILE);
    if (given) {
        return snprintf(out, PATH_MAX, "%s", given) < PATH_MAX
                   ? MEMOS_OK
                   : memos_fail(err, MEMOS_INVALID, "--log-file is too long");
    }
    return xdg_path("XDG_STATE_HOME", ".local/state", "memos/memosd.log", out, err);
}

/* The folders above a file. */
static enum memos_status make_folders(const char *path, struct memos_error *err)
{
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    for (char *slash = strchr(folder + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(folder, 0700) != 0 && errno != EEXIST) {
            return memos_fail_errno(err, errno, "cannot make the folder '%.100s'", folder);
        }
        *slash = '/';
    }
    return MEMOS_OK;
}

/* --memosd, or what lies beside this program, or where the build puts it, or whatever PATH has. */
static const char *find_memosd(const struct ctl *ctl, char out[PATH_MAX])
{
    static const char *const places[] = {"memosd", "../memos/memosd"};
    char self[PATH_MAX];
    const char *given = ctl_args_value(ctl->args, CTL_MEMOSD);
    ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);
    if (given) {
        return given;
    }
    while (size > 0 && self[size - 1] != '/') {
        size--;
    }
    for (size_t i = 0; size > 0 && i < sizeof places / sizeof places[0]; i++) {
        int length = snprintf(out, PATH_MAX, "%.*s%s", (int)size, self, places[i]);
        if (length < PATH_MAX && access(out, X_OK) == 0) {
            return out;
        }
    }
    return "memosd";
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

/* Is this process a memosd of ours, and alive? A lock may name one that ended long ago. */
static bool is_our_memosd(pid_t pid)
{
    static const char name[] = "(memosd) ";
    char path[64], text[64] = {0}; /* "123 (memosd) S 1 ..." */
    struct stat info;
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    int file = pid > 1 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) {
        return false;
    }
    bool is_ours = fstat(file, &info) == 0 && info.st_uid == getuid();
    ssize_t size = read(file, text, sizeof text - 1);
    close(file);
    const char *found = size > 0 ? strstr(text, name) : NULL;
    char state = found ? found[sizeof name - 1] : 'X';
    return is_ours && state != 'Z' && state != 'X';
}

/* ---- up ---- */

struct launch {
    const char *arguments[ARGUMENTS_MAX];
    char program[PATH_MAX], data_dir[PATH_MAX], log[PATH_MAX], address[512];
    int log_file, ready[2];
    off_t log_begin;
    pid_t pid;
};

static void make_arguments(const struct ctl *ctl, struct launch *launch)
{
    size_t count = 0, at = 0;
    const char *value;
    const char **arguments = launch->arguments;
    arguments[count++] = "memosd";
    arguments[count++] = "--ready-fd";
    arguments[count++] = "3";
    if ((value = ctl_args_value(ctl->args, CTL_CONFIG))) {
        arguments[count++] = "--config";
        arguments[count++] = value;
    }
    if ((value = ctl_args_value(ctl->args, CTL_DATA_DIR))) {
        arguments[count++] = "--data-dir";
        arguments[count++] = value;
    }
    while (count < ARGUMENTS_MAX - 3 && (value = ctl_args_next(ctl->args, CTL_LISTEN, &at))) {
        arguments[count++] = "--listen";
        arguments[count++] = value;
    }
    if (at > 0 && ctl_args_has(ctl->args, CTL_LISTEN)) {
        return;
    }
    /* where we would look for it is where it has to be */
    if ((value = address_of(ctl))) {
        arguments[count++] = "--listen";
        arguments[count++] = value;
    }
}

static enum memos_status open_log(struct launch *launch, struct memos_error *err)
{
    enum memos_status status = make_folders(launch->log, err);
    if (status != MEMOS_OK) {
        return status;
    }
    launch->log_file = open(launch->log, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (launch->log_file < 0) {
        return memos_fail_errno(err, errno, "cannot open the log '%.100s'", launch->log);
    }
    launch->log_begin = lseek(launch->log_file, 0, SEEK_END);
    return MEMOS_OK;
}

static enum memos_status spawn(struct launch *launch, const char *program, struct memos_error *err)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none;
    (void)sigemptyset(&none);
    int failed = posix_spawn_file_actions_init(&files);
    failed = failed ? failed : posix_spawnattr_init(&attributes);
    if (failed) {
        return memos_fail_errno(err, failed, "cannot start '%.100s'", program);
    }
    (void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
    (void)posix_spawnattr_setsigmask(&attributes, &none);
    failed = posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    failed = failed ? failed : posix_spawn_file_actions_adddup2(&files, launch->log_file, 1);
    failed = failed ? failed : posix_spawn_file_actions_adddup2(&files, launch->log_file, 2);
    failed = failed ? failed : posix_spawn_file_actions_adddup2(&files, launch->ready[1], READY_FD);
    failed = failed ? failed
                    : posix_spawnp(&launch->pid, program, &files, &attributes,
                          (char *const *)(uintptr_t)launch->arguments, environ);
    (void)posix_spawnattr_destroy(&attributes);
    (void)posix_spawn_file_actions_destroy(&files);
    close(launch->ready[1]);
    launch->ready[1] = -1;
    return failed ? memos_fail_errno(err, failed, "cannot start '%.100s'", program) : MEMOS_OK;
}

/* What the broker wrote to its log since it was started, the end of it, on standard error. */
static void print_log_tail(const struct launch *launch)
{
    char text[LOG_TAIL_BYTES];
    off_t end = lseek(launch->log_file, 0, SEEK_END);
    off_t begin =
        end - launch->log_begin > LOG_TAIL_BYTES ? end - LOG_TAIL_BYTES : launch->log_begin;
    ssize_t size = pread(launch->log_file, text, sizeof text, begin);
    struct ctl_paper paper = {.out = stderr};
    if (size > 0) {
        ctl_paper_text(&paper, memos_bytes_make(text, (size_t)size), 2);
    }
}

/* Wait for the word of the broker; its end is the end of waiting, too. */
static enum memos_status wait_ready(struct ctl *ctl, struct launch *launch, struct memos_error *err)
{
    char word[16];
    int64_t deadline_us = ctl->clock.mono_us(ctl->clock.self) + ctl->timeout_ms * 1000;
    struct pollfd ready = {.fd = launch->ready[0], .events = POLLIN};
    for (;;) {
        int64_t left_ms = (deadline_us - ctl->clock.mono_us(ctl->clock.self)) / 1000;
        int count = left_ms > 0 ? poll(&ready, 1, (int)(left_ms > 60000 ? 60000 : left_ms)) : 0;
        if (count < 0 && errno == EINTR) {
            continue;
        } else if (left_ms <= 0) {
            (void)kill(launch->pid, SIGTERM);
            return memos_fail(
                err, MEMOS_DEADLINE, "the broker was not ready in time; see %.120s", launch->log);
        } else if (count > 0) {
            break;
        }
    }
    ssize_t size = read(launch->ready[0], word, sizeof word);
    if (size >= 5 && memcmp(word, "ready", 5) == 0) {
        return MEMOS_OK;
    }
    int how = 0;
    print_log_tail(launch);
    (void)waitpid(launch->pid, &how, 0);
    ctl->hint = "its log says why (above)";
    int code = WIFEXITED(how) ? WEXITSTATUS(how) : 0;
    if (code == 127) {
        return memos_fail(err, MEMOS_NOT_FOUND, "the broker's program could not be run");
    }
    return memos_fail(err,
        code > 0 && memos_status_known(code) ? (enum memos_status)code : MEMOS_UNAVAILABLE,
        "the broker did not start (%s %d); its log is %.120s",
        WIFSIGNALED(how) ? "signal" : "exit status", WIFSIGNALED(how) ? WTERMSIG(how) : code,
        launch->log);
}

static enum memos_status start(struct ctl *ctl, struct launch *launch, struct memos_error *err)
{
    enum memos_status status = log_path_of(ctl, launch->log, err);
    if (status == MEMOS_OK) {
        status = open_log(launch, err);
    }
    if (status == MEMOS_OK && pipe2(launch->ready, O_CLOEXEC) != 0) {
        status = memos_fail_errno(err, errno, "cannot make a pipe");
    }
    /* the descriptor that the broker is given must not be the one that it is copied from: copying
     * to itself would leave it to be closed */
    if (status == MEMOS_OK && launch->ready[1] == READY_FD) {
        launch->ready[1] = fcntl(READY_FD, F_DUPFD_CLOEXEC, READY_FD + 1);
        close(READY_FD);
    }
    if (status == MEMOS_OK) {
        make_arguments(ctl, launch);
        status = spawn(launch, find_memosd(ctl, launch->program), err);
    }
    return status == MEMOS_OK ? wait_ready(ctl, launch, err) : status;
}

static enum memos_status print_up(struct ctl *ctl, const struct launch *launch, bool is_new,
    const char *version, struct memos_error *err)
{
    pid_t pid = is_new ? launch->pid : pid_of_listener(launch->address);
    bool dir_known = is_new && !ctl_args_has(ctl->args, CTL_CONFIG);
    if (ctl->json) {
        return ctl_json_print(json_pack("{sb,so,sI,so,so,so}", "started", (int)is_new, "address",
                                  ctl_json_string(launch->address), "pid", (json_int_t)pid,
                                  "version", ctl_json_string(version), "data_dir",
                                  dir_known ? ctl_json_string(launch->data_dir) : json_null(),
                                  "log", is_new ? ctl_json_string(launch->log) : json_null()),
            err);
    }
    printf("%smemosd %s %s%s\n", ctl_style_on(&ctl->paper, CTL_GREEN), version,
        is_new ? "is running" : "runs already", ctl_style_off(&ctl->paper));
    ctl_paper_fieldf(&ctl->paper, "address", "%s", launch->address);
    if (pid > 0) {
        ctl_paper_fieldf(&ctl->paper, "process", "%ld", (long)pid);
    }
    ctl_paper_field(&ctl->paper, "store", memos_bytes_of(dir_known ? launch->data_dir : ""));
    ctl_paper_field(&ctl->paper, "log", memos_bytes_of(is_new ? launch->log : ""));
    return MEMOS_OK;
}

enum memos_status ctl_run_up(struct ctl *ctl, struct memos_error *err)
{
    char version[64] = "";
    bool is_new = false;
    struct launch launch = {.log_file = -1, .ready = {-1, -1}};
    const char *address = address_of(ctl), *listen = ctl_args_value(ctl->args, CTL_LISTEN);
    enum memos_status status = data_dir_of(ctl, launch.data_dir, err);
    if (status == MEMOS_OK && address) {
        snprintf(launch.address, sizeof launch.address, "%s", address);
    } else if (status == MEMOS_OK && listen) {
        snprintf(launch.address, sizeof launch.address, "%s", listen);
    } else if (status == MEMOS_OK) {
        status = memos_default_address(launch.address, sizeof launch.address, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    status = ask_version(ctl, version, err);
    if (status == MEMOS_UNAVAILABLE || status == MEMOS_NOT_FOUND) {
        is_new = true;
        status = start(ctl, &launch, err);
        if (status == MEMOS_OK && !listen && !ctl_args_has(ctl->args, CTL_CONFIG)) {
            status = ask_version(ctl, version, err);
        }
    }
    if (status == MEMOS_OK) {
        status = print_up(ctl, &launch, is_new, version, err);
    }
    for (size_t i = 0; i < 2; i++) {
        if (launch.ready[i] >= 0) {
            close(launch.ready[i]);
        }
    }
    if (launch.log_file >= 0) {
        close(launch.log_file);
    }
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
        *out = is_our_memosd(*out) ? *out : 0;
    }
    return status;
}

static enum memos_status stop(pid_t pid, int64_t wait_ms, struct memos_error *err)
{
    int process = pidfd_open(pid, 0);
    if (process < 0 && errno == ESRCH) {
        return MEMOS_OK;
    } else if (process < 0) {
        return memos_fail_errno(err, errno, "cannot reach process %ld", (long)pid);
    }
    enum memos_status status = MEMOS_OK;
    struct pollfd ended = {.fd = process, .events = POLLIN};
    if (!is_our_memosd(pid)) {
        status = memos_fail(err, MEMOS_DENIED, "process %ld is not a memosd of yours", (long)pid);
    } else if (pidfd_send_signal(process, SIGTERM, NULL, 0) != 0 && errno != ESRCH) {
        status = memos_fail_errno(err, errno, "cannot stop process %ld", (long)pid);
    } else if (poll(&ended, 1, (int)(wait_ms > 60000 ? 60000 : wait_ms)) <= 0) {
        status = memos_fail(err, MEMOS_DEADLINE,
            "memosd (process %ld) was asked to end, and has not ended in %lld ms", (long)pid,
            (long long)wait_ms);
    }
    close(process);
    return status;
}

enum memos_status ctl_run_down(struct ctl *ctl, struct memos_error *err)
{
    pid_t pid;
    int64_t wait_ms = ctl_args_has(ctl->args, CTL_TIMEOUT) ? ctl->timeout_ms : STOP_WAIT_MS;
    enum memos_status status = find_broker(ctl, &pid, err);
    if (status == MEMOS_OK && pid > 0) {
        status = stop(pid, wait_ms, err);
    }
    if (status == MEMOS_OK && ctl->json) {
        return ctl_json_print(
            json_pack("{sb,sI}", "stopped", (int)(pid > 0), "pid", (json_int_t)pid), err);
    }
    if (status == MEMOS_OK) {
        puts(pid > 0 ? "stopped" : "nothing was running");
    }
    return status;
}
