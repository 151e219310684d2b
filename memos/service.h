/* What memosd and memos-worker do alike as services: signals that are read, telling that they are
 * ready, ending with a word.
 *
 * Threads: called by main's thread, before it starts others. */
#ifndef MEMOS_SERVICE_H
#define MEMOS_SERVICE_H

#include "proto/bytes.h"

/* Block SIGTERM, SIGINT and SIGHUP, to be read from the descriptor that this gives, and ignore
 * SIGPIPE. -1: errno says why. */
int service_signals(void);

/* The number of a descriptor. False: it is none. */
bool service_fd_parse(const char *text, int *out_fd);

/* Tell systemd, where it waits for that (sd_notify(3)): "READY=1\n". */
void service_notify(const char *text);

/* The service can be used: to systemd, and as "ready\n" to ready_fd, which is closed (-1: none). */
void service_ready(int ready_fd);

/* Why program ends, with what to do about it, to standard error. Returns the exit status. */
int service_fail(const char *program, const struct memos_error *err);

#endif
