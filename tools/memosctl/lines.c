#include "tools/memosctl/lines.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

/* ---- being stopped ---- */

static volatile sig_atomic_t stop_signal; /* the last that came; 0: none */

static void on_stop(int number)
{
    stop_signal = number;
}

void ctl_catch_stops(void)
{
    struct sigaction action = {.sa_handler = on_stop, .sa_flags = (int)SA_RESETHAND};
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
}

bool ctl_stopped(void)
{
    return stop_signal != 0;
}

void ctl_stops_forget(void)
{
    if (stop_signal != SIGTERM) {
        stop_signal = 0;
        ctl_catch_stops();
    }
}

/* ---- lines ---- */

/* Wait until there is something to read, or a stop came. Stops are let in only while it waits: one
 * that came between the look and the wait would be slept through. */
static void wait_readable(void)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    sigset_t stops, before;
    (void)sigemptyset(&stops);
    (void)sigaddset(&stops, SIGINT);
    (void)sigaddset(&stops, SIGTERM);
    (void)pthread_sigmask(SIG_BLOCK, &stops, &before);
    while (!ctl_stopped() && ppoll(&input, 1, NULL, &before) < 0 && errno == EINTR) {
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static enum ctl_line read_more(struct ctl_lines *lines)
{
    ssize_t size;
    do {
        wait_readable();
        if (ctl_stopped()) {
            return stop_signal == SIGTERM ? CTL_LINE_END : CTL_LINE_STOPPED;
        }
        size = read(STDIN_FILENO, lines->bytes, sizeof lines->bytes);
    } while (size < 0 && (errno == EINTR || errno == EAGAIN));
    lines->at = 0;
    lines->size = size > 0 ? (size_t)size : 0;
    return size > 0 ? CTL_LINE : CTL_LINE_END;
}

enum ctl_line ctl_line_read(struct ctl_lines *lines, struct memos_buffer *out)
{
    enum ctl_line status = CTL_LINE;
    const char *end = NULL;
    while (status == CTL_LINE && !end) {
        const char *from = lines->bytes + lines->at;
        size_t left = lines->size - lines->at;
        end = memchr(from, '\n', left);
        size_t size = end ? (size_t)(end - from) : left;
        memos_buffer_bytes(out, from, size);
        lines->at += size + (end != NULL);
        if (!end) {
            status = read_more(lines);
        }
    }
    return status;
}
