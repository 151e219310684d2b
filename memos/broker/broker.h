/* The broker: the store, behind sockets.
 *
 * A library, so that a test can run one in its own process; the program memosd (main.c) is thin.
 * memos/README.md says which threads there are and what each owns.
 *
 * Caveats: raises the process's limit on open files; makes the folders of data_dir and of ipc
 * sockets with mode 0700 and refuses to put a socket into a folder that others can write to or
 * enter. Signals that signal_fd carries must be blocked in every thread.
 *
 * Errors at creation: DENIED (a folder that is open to others), BUSY (another broker has the store
 * or listens at the address), CORRUPT, UNSUPPORTED, IO, NO_MEMORY. */
#ifndef MEMOS_BROKER_BROKER_H
#define MEMOS_BROKER_BROKER_H

#include "memos/broker/config.h"
#include "proto/clock.h"

struct broker;

struct broker_options {
    const struct broker_config *config; /* checked; borrowed until destroy */
    int signal_fd;                      /* signalfd of SIGTERM, SIGINT and SIGHUP; -1: none */
    bool sync_off;                      /* no fsync: for tests only */

    /* At SIGHUP and broker_reload: load the configuration anew into *fresh, which the broker
     * finishes. Keys that do not reload are ignored. NULL: only grants and keys are read again. */
    enum memos_status (*reload)(void *self, struct broker_config *fresh, struct memos_error *err);
    void *self;
};

/* Open the store, start the threads, listen. When it returns OK, clients can connect. */
MEMOS_MUST_USE enum memos_status broker_create(
    const struct broker_options *options, struct broker **out_broker, struct memos_error *err);

/* Serve, on the calling thread, until broker_stop or SIGTERM; then finish what has begun, for at
 * most drain_timeout. */
MEMOS_MUST_USE enum memos_status broker_run(struct broker *broker, struct memos_error *err);

/* Make broker_run return; make it reload. Any thread, and from signal handlers. */
void broker_stop(struct broker *broker);
void broker_reload(struct broker *broker);

/* Close everything. Takes NULL and half-built ones; sets *broker to NULL. */
void broker_destroy(struct broker **broker);

/* The address that listen[index] got ("tcp://127.0.0.1:*" gets a port). NULL past the end. */
const char *broker_address(const struct broker *broker, size_t index);

/* The broker's public key in Z85; NULL without CURVE. */
const char *broker_public_key(const struct broker *broker);

#endif
