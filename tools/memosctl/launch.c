#include "tools/memosctl/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { READY_FD = 3, LOG_TAIL_BYTES = 2048, LOOK_MS = 100, LINE_BYTES_MAX = 512 };

extern char **environ;

/* ---- places --------------------------------------------------------------------------------- */

enum memos_status ctl_xdg_path(const char *variable, const char *usual, const char *name,
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

enum memos_status ctl_log_path(const struct ctl *ctl, enum ctl_option option, const char *name,
    char out[PATH_MAX], struct memos_error *err)
{
    const char *given = ctl_args_value(ctl->args, option);
    if (given) {
        return snprintf(out, PATH_MAX, "%s", given) < PATH_MAX
                   ? MEMOS_OK
                   : memos_fail(err, MEMOS_INVALID, "--log-file is too long");
    }
    char beside[PATH_MAX];
    return snprintf(beside, sizeof beside, "memos/%s", name) < (int)sizeof beside
               ? ctl_xdg_path("XDG_STATE_HOME", ".local/state", beside, out, err)
               : memos_fail(err, MEMOS_INVALID, "the log's name is too long");
}

enum memos_status ctl_make_folders(const char *path, struct memos_error *err)
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

void ctl_launch_find(const struct ctl *ctl, enum ctl_option option, struct ctl_launch *launch)
{
    static const char *const places[] = {"", "../memos/"};
    char self[PATH_MAX];
    const char *given = ctl_args_value(ctl->args, option);
    ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);
    while (size > 0 && self[size - 1] != '/') {
        size--;
    }
    for (size_t i = 0; !given && size > 0 && i < sizeof places / sizeof places[0]; i++) {
        int length = snprintf(
            launch->program, PATH_MAX, "%.*s%s%s", (int)size, self, places[i], launch->name);
        if (length < PATH_MAX && access(launch->program, X_OK) == 0) {
            return;
        }
    }
    snprintf(launch->program, PATH_MAX, "%s", given ? given : launch->name);
}

/* ---- starting ------------------------------------------------------------------------------- */

void ctl_launch_init(struct ctl_launch *launch, const char *name, const char *kind)
{
    *launch = (struct ctl_launch){
        .name = name, .kind = kind, .log_file = -1, .ready = {-1, -1}, .arguments = {name}};
    launch->arguments_count = 1;
    ctl_launch_add(launch, "--ready-fd", "3");
}

void ctl_launch_finish(struct ctl_launch *launch)
{
    for (size_t i = 0; i < 2; i++) {
        if (launch->ready[i] >= 0) {
            close(launch->ready[i]);
        }
        launch->ready[i] = -1;
    }
    if (launch->log_file >= 0) {
        close(launch->log_file);
    }
    launch->log_file = -1;
}

void ctl_launch_add(struct ctl_launch *launch, const char *option, const char *value)
{
    const char *words[] = {option, value};
    for (size_t i = 0; i < 2 && value; i++) {
        if (launch->arguments_count < CTL_LAUNCH_ARGUMENTS_MAX) {
            launch->arguments[launch->arguments_count] = words[i];
        }
        launch->arguments_count++;
    }
}

static enum memos_status open_log(struct ctl_launch *launch, struct memos_error *err)
{
    enum memos_status status = ctl_make_folders(launch->log, err);
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

static enum memos_status open_pipe(struct ctl_launch *launch, struct memos_error *err)
{
    if (pipe2(launch->ready, O_CLOEXEC) != 0) {
        return memos_fail_errno(err, errno, "cannot make a pipe");
    }
    /* the descriptor that the program is given must not be the one that it is copied from: copying
     * to itself would leave it to be closed */
    if (launch->ready[1] == READY_FD) {
        launch->ready[1] = fcntl(READY_FD, F_DUPFD_CLOEXEC, READY_FD + 1);
        close(READY_FD);
    }
    return launch->ready[1] >= 0 ? MEMOS_OK : memos_fail_errno(err, errno, "cannot make a pipe");
}

static enum memos_status spawn(struct ctl_launch *launch, struct memos_error *err)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none;
    (void)sigemptyset(&none);
    int failed = posix_spawn_file_actions_init(&files);
    failed = failed ? failed : posix_spawnattr_init(&attributes);
    if (failed) {
        return memos_fail_errno(err, failed, "cannot start '%.100s'", launch->program);
    }
    (void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
    (void)posix_spawnattr_setsigmask(&attributes, &none);
    failed = posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    failed = failed ? failed : posix_spawn_file_actions_adddup2(&files, launch->log_file, 1);
    failed = failed ? failed : posix_spawn_file_actions_adddup2(&files, launch->log_file, 2);
    failed = failed ? failed : posix_spawn_file_actions_adddup2(&files, launch->ready[1], READY_FD);
    failed = failed ? failed
                    : posix_spawnp(&launch->pid, launch->program, &files, &attributes,
                          (char *const *)(uintptr_t)launch->arguments, environ);
    (void)posix_spawnattr_destroy(&attributes);
    (void)posix_spawn_file_actions_destroy(&files);
    close(launch->ready[1]);
    launch->ready[1] = -1;
    return failed ? memos_fail_errno(err, failed, "cannot start '%.100s'", launch->program)
                  : MEMOS_OK;
}

/* What it wrote to its log since it was started, the end of it, on standard error. */
static void print_log_tail(const struct ctl_launch *launch)
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

/* ---- waiting -------------------------------------------------------------------------------- */

/* What it has said so far of the line that it is at. */
struct word {
    char text[LINE_BYTES_MAX];
    size_t size;
    bool is_ready, is_over;
};

/* "loading WHAT DONE TOTAL": what may have blanks. */
static void show_loading(struct ctl *ctl, char *line)
{
    uint64_t done, total;
    char what[LINE_BYTES_MAX];
    char *last = strrchr(line, ' ');
    char *middle = last ? memrchr(line, ' ', (size_t)(last - line)) : NULL;
    if (!middle || middle <= line + strlen("loading")) {
        return;
    }
    *last = *middle = '\0';
    if (ctl_number_parse(middle + 1, UINT64_MAX, &done) &&
        ctl_number_parse(last + 1, UINT64_MAX, &total)) {
        snprintf(what, sizeof what, "%.400s, MB", line);
        ctl_progress(ctl, what, done >> 20, total >> 20);
    }
}

static void take_line(struct ctl *ctl, struct word *word)
{
    word->text[word->size] = '\0';
    word->size = 0;
    if (strncmp(word->text, "ready", 5) == 0) {
        word->is_ready = true;
    } else if (strncmp(word->text, "loading ", 8) == 0) {
        show_loading(ctl, word->text);
    }
}

static void take_word(struct ctl *ctl, int file, struct word *word)
{
    char piece[LINE_BYTES_MAX];
    ssize_t size = read(file, piece, sizeof piece);
    word->is_over = size == 0 || (size < 0 && errno != EINTR);
    for (ssize_t i = 0; i < size; i++) {
        if (piece[i] == '\n') {
            take_line(ctl, word);
        } else if (word->size < sizeof word->text - 1) {
            word->text[word->size++] = piece[i];
        }
    }
    if (word->is_over && word->size > 0) {
        take_line(ctl, word);
    }
}

/* It has closed its end without a word. */
static enum memos_status explain_end(
    struct ctl *ctl, struct ctl_launch *launch, struct memos_error *err)
{
    int how = 0;
    print_log_tail(launch);
    (void)waitpid(launch->pid, &how, 0);
    ctl->hint = "its log says why (above)";
    int code = WIFEXITED(how) ? WEXITSTATUS(how) : 0;
    if (code == 127) {
        return memos_fail(err, MEMOS_NOT_FOUND, "the %s's program could not be run", launch->kind);
    }
    return memos_fail(err,
        code > 0 && memos_status_known(code) ? (enum memos_status)code : MEMOS_UNAVAILABLE,
        "the %s did not start (%s %d); its log is %.120s", launch->kind,
        WIFSIGNALED(how) ? "signal" : "exit status", WIFSIGNALED(how) ? WTERMSIG(how) : code,
        launch->log);
}

static enum memos_status give_up(struct ctl_launch *launch, struct memos_error *err)
{
    int how;
    (void)kill(launch->pid, SIGTERM);
    if (!ctl_stopped()) {
        return memos_fail(err, MEMOS_DEADLINE, "the %s was not ready in time; see %.120s",
            launch->kind, launch->log);
    }
    (void)waitpid(launch->pid, &how, 0);
    return memos_fail(err, MEMOS_CANCELLED, "stopped: the %s was ended again", launch->kind);
}

static enum memos_status wait_ready(
    struct ctl *ctl, struct ctl_launch *launch, struct memos_error *err)
{
    struct word word = {.size = 0};
    struct pollfd ready = {.fd = launch->ready[0], .events = POLLIN};
    int64_t deadline_us = ctl->clock.mono_us(ctl->clock.self) + ctl->timeout_ms * 1000;
    while (!word.is_ready && !word.is_over) {
        if (ctl_stopped() || ctl->clock.mono_us(ctl->clock.self) >= deadline_us) {
            ctl_progress_end(ctl);
            return give_up(launch, err);
        }
        if (poll(&ready, 1, LOOK_MS) > 0) {
            take_word(ctl, ready.fd, &word);
        }
    }
    ctl_progress_end(ctl);
    return word.is_ready ? MEMOS_OK : explain_end(ctl, launch, err);
}

enum memos_status ctl_launch_start(
    struct ctl *ctl, struct ctl_launch *launch, struct memos_error *err)
{
    if (launch->arguments_count > CTL_LAUNCH_ARGUMENTS_MAX) {
        return memos_fail(err, MEMOS_INVALID, "more than %d arguments for the %s",
            CTL_LAUNCH_ARGUMENTS_MAX, launch->kind);
    }
    enum memos_status status = open_log(launch, err);
    if (status == MEMOS_OK) {
        status = open_pipe(launch, err);
    }
    if (status == MEMOS_OK) {
        status = spawn(launch, err);
        ctl->hint = status == MEMOS_NOT_FOUND ? "install it, or say where it is (--help)" : NULL;
    }
    return status == MEMOS_OK ? wait_ready(ctl, launch, err) : status;
}

/* ---- processes ------------------------------------------------------------------------------ */

bool ctl_process_is(pid_t pid, const char *name)
{
    char path[64], text[64] = {0}, wanted[32]; /* "123 (memosd) S 1 ..." */
    struct stat info;
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    snprintf(wanted, sizeof wanted, "(%.20s) ", name);
    int file = pid > 1 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) {
        return false;
    }
    bool is_ours = fstat(file, &info) == 0 && info.st_uid == getuid();
    ssize_t size = read(file, text, sizeof text - 1);
    close(file);
    const char *found = size > 0 ? strstr(text, wanted) : NULL;
    char state = found ? found[strlen(wanted)] : 'X';
    return is_ours && state != 'Z' && state != 'X';
}

enum memos_status ctl_process_stop(
    pid_t pid, const char *name, int64_t wait_ms, struct memos_error *err)
{
    int process = pidfd_open(pid, 0);
    if (process < 0 && errno == ESRCH) {
        return MEMOS_OK;
    } else if (process < 0) {
        return memos_fail_errno(err, errno, "cannot reach process %ld", (long)pid);
    }
    enum memos_status status = MEMOS_OK;
    struct pollfd ended = {.fd = process, .events = POLLIN};
    if (!ctl_process_is(pid, name)) {
        status = memos_fail(err, MEMOS_DENIED, "process %ld is not a %s of yours", (long)pid, name);
    } else if (pidfd_send_signal(process, SIGTERM, NULL, 0) != 0 && errno != ESRCH) {
        status = memos_fail_errno(err, errno, "cannot stop process %ld", (long)pid);
    } else if (poll(&ended, 1, (int)(wait_ms > 60000 ? 60000 : wait_ms)) <= 0) {
        status = memos_fail(err, MEMOS_DEADLINE,
            "%s (process %ld) was asked to end, and has not ended in %lld ms", name, (long)pid,
            (long long)wait_ms);
    }
    close(process);
    return status;
}
