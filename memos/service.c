#include "memos/service.h"

#include "proto/log.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FD_MAX = 1 << 20 };

static pthread_t reading; /* the thread that reads the signals */

static void pass_on(int signal)
{
    (void)pthread_kill(reading, signal);
}

/* Libraries (OpenBLAS) start threads when they are loaded, which block nothing: a signal that is
 * given to one of those is passed on to this thread, where it waits to be read. */
int service_signals(void)
{
    const struct sigaction passing = {.sa_handler = pass_on, .sa_flags = SA_RESTART};
    sigset_t set;
    reading = pthread_self();
    (void)sigaction(SIGTERM, &passing, NULL);
    (void)sigaction(SIGINT, &passing, NULL);
    (void)sigaction(SIGHUP, &passing, NULL);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGHUP);
    (void)signal(SIGPIPE, SIG_IGN);
    return pthread_sigmask(SIG_BLOCK, &set, NULL) == 0
               ? signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC)
               : -1;
}

bool service_fd_parse(const char *text, int *out_fd)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    *out_fd = (int)value;
    return errno == 0 && *text && !*end && value >= 0 && value < FD_MAX;
}

/* One datagram. */
void service_notify(const char *text)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    size_t size = path ? strlen(path) : 0;
    if (size == 0 || size >= sizeof name.sun_path || (path[0] != '/' && path[0] != '@')) {
        return;
    }
    memcpy(name.sun_path, path, size);
    name.sun_path[0] = path[0] == '@' ? '\0' : path[0]; /* an abstract address */
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size);
        (void)sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&name, length);
        (void)close(fd);
    }
}

void service_ready(int ready_fd)
{
    service_notify("READY=1\nSTATUS=serving\n");
    if (ready_fd >= 0) {
        ssize_t put = write(ready_fd, "ready\n", 6);
        if (put != 6) {
            memos_log(MEMOS_LOG_WARNING, memos_log_event("nobody waited for the ready line"));
        }
        (void)close(ready_fd);
    }
}

int service_fail(const char *program, const struct memos_error *err)
{
    const char *hint = memos_status_hint(err->status);
    (void)fprintf(stderr, "%s: %s%s%s%s\n", program, err->text, hint[0] ? " (" : "", hint,
        hint[0] ? ")" : "");
    return (int)err->status;
}
