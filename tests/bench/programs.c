#include "tests/bench/programs.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { READY_FD = 3, RUNNING_MAX = 8, ARGUMENTS_MAX = 40, LINE_BYTES = 256 };

extern char **environ;

static pid_t running[RUNNING_MAX]; /* 0: none */

/* A benchmark that fails leaves nothing behind. */
static void abandon(void)
{
    for (size_t i = 0; i < RUNNING_MAX; i++) {
        if (running[i] != 0) {
            (void)kill(running[i], SIGKILL);
        }
    }
}

static void remember(pid_t pid)
{
    static bool registered;
    size_t free_at = 0;
    while (free_at < RUNNING_MAX && running[free_at] != 0) {
        free_at++;
    }
    if (free_at == RUNNING_MAX) {
        bench_fail("more programs than %d", RUNNING_MAX);
    }
    running[free_at] = pid;
    if (!registered) {
        registered = true;
        (void)atexit(abandon);
    }
}

static void forget(pid_t pid)
{
    for (size_t i = 0; i < RUNNING_MAX; i++) {
        if (running[i] == pid) {
            running[i] = 0;
        }
    }
}

/* Wait for the line "ready"; the pipe closes unasked when it will not come. */
static void await_ready(int ready_fd, const char *program, const char *log)
{
    char line[LINE_BYTES];
    bool ready = false;
    FILE *told = fdopen(ready_fd, "r");
    while (told && !ready && fgets(line, sizeof line, told)) {
        ready = strcmp(line, "ready\n") == 0;
    }
    if (!ready) {
        bench_fail("%s did not start: %s says why", program, log);
    }
    (void)fclose(told);
}

pid_t programs_start(const struct bench *bench, const char *variable, const char *usual,
    const char *log, const char *const *arguments)
{
    const char *program = getenv(variable);
    const char *argv[ARGUMENTS_MAX + 4] = {program ? program : usual, "--ready-fd", "3"};
    char log_path[BENCH_PATH_BYTES];
    posix_spawn_file_actions_t actions;
    int ready[2];
    pid_t pid;

    for (size_t i = 0; arguments[i]; i++) {
        memos_assert(i < ARGUMENTS_MAX);
        argv[3 + i] = arguments[i];
    }
    bench_path(bench, log, log_path);
    if (pipe2(ready, O_CLOEXEC) != 0) {
        bench_fail("pipe: %s", strerror(errno));
    }
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawn_file_actions_addopen(
        &actions, 2, log_path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    (void)posix_spawn_file_actions_adddup2(&actions, ready[1], READY_FD);
    int error = posix_spawnp(&pid, argv[0], &actions, NULL, (char *const *)argv, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    if (error != 0) {
        bench_fail(
            "%s: %s (%s names it; tools/bench sets that)", argv[0], strerror(error), variable);
    }
    remember(pid);
    (void)close(ready[1]);
    await_ready(ready[0], argv[0], log_path);
    return pid;
}

void programs_stop(pid_t pid)
{
    int status;

    (void)kill(pid, SIGTERM);
    forget(pid);
    if (waitpid(pid, &status, 0) != pid || status != 0) {
        bench_fail("a program ended with status %#x", (unsigned)status);
    }
}

pid_t programs_broker(const struct bench *bench, const char *address, const char *other)
{
    char data[BENCH_PATH_BYTES];
    bench_path(bench, "store", data);
    const char *arguments[] = {
        "--data-dir", data, "--listen", address, other ? "--listen" : NULL, other, NULL};
    return programs_start(bench, "MEMOSD", "memosd", "memosd.log", arguments);
}

void programs_ipc(const struct bench *bench, const char *name, char out[PROGRAMS_ADDRESS_BYTES])
{
    (void)snprintf(out, PROGRAMS_ADDRESS_BYTES, "ipc://%s/%s", bench->folder, name);
}

void programs_tcp(char out[PROGRAMS_ADDRESS_BYTES])
{
    struct sockaddr_in any = {.sin_family = AF_INET};
    socklen_t size = sizeof any;
    any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&any, sizeof any) != 0 ||
        getsockname(fd, (struct sockaddr *)&any, &size) != 0) {
        bench_fail("no port: %s", strerror(errno));
    }
    (void)close(fd);
    (void)snprintf(out, PROGRAMS_ADDRESS_BYTES, "tcp://127.0.0.1:%u", ntohs(any.sin_port));
}

struct memos_client *programs_connect(const char *address)
{
    struct memos_client_options options = {.address = address, .timeout_ms = 3600000};
    struct memos_client *client = NULL;
    struct memos_error err;

    bench_check(memos_client_open(&options, &client, &err), &err, "connect");
    return client;
}

struct memos_message *programs_call(struct memos_client *client, Memos__Request *request,
    const struct memos_bytes *frames, size_t frames_count, const char *what)
{
    struct memos_message *reply = NULL;
    struct memos_error err;

    bench_check(memos_client_call(client, request, frames, frames_count, &reply, &err), &err, what);
    return reply;
}

static void grant(struct memos_client *owner, const char *principal, const char *spaces)
{
    Memos__Request request = MEMOS__REQUEST__INIT;
    Memos__GrantSet body = MEMOS__GRANT_SET__INIT;
    body.principal = (char *)principal;
    body.spaces = (char *)spaces;
    body.rights = (char *)"admin";
    request.body_case = MEMOS__REQUEST__BODY_GRANT_SET;
    request.grant_set = &body;
    struct memos_message *reply = programs_call(owner, &request, NULL, 0, "a grant");
    memos_message_free(&reply);
}

void programs_let_in_loopback(struct memos_client *owner)
{
    grant(owner, "loopback", "*");
    grant(owner, "loopback", "_workers"); /* which "*" does not mean */
}
