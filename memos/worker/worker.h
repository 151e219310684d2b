/* A worker: host models behind a broker.
 *
 * A library, so that a test can run one in its own process; the program memos-worker (main.c) is
 * thin. memos/worker/README.md says which threads there are and what each owns.
 *
 * Errors of worker_run: DENIED (the broker does not take us as a worker), INVALID (what we
 * announce, or an address or a key), IO (a device failed and the process must begin anew),
 * NO_MEMORY. */
#ifndef MEMOS_WORKER_WORKER_H
#define MEMOS_WORKER_WORKER_H

#include "memos/worker/host.h"
#include "proto/client.h"

#define WORKER_MODELS_MAX 16
#define WORKER_JOBS_MAX 1024

struct worker;

struct worker_options {
    struct memos_client_options client; /* how to reach the broker; texts borrowed until destroy */
    const char *name;                   /* for people; NULL: "host/pid" */
    struct worker_host **hosts;         /* 1 .. WORKER_MODELS_MAX; borrowed until destroy */
    size_t hosts_count;
    size_t jobs_max;              /* that it takes at once; 0: 32 */
    size_t fetch_threads;         /* 0: 2 */
    uint64_t captures_bytes;      /* held in memory; 0: 1 GiB */
    bool maps_nothing;            /* captures are sent even by a broker on this host */
    int64_t drain_timeout_ms;     /* 0: 30,000 */
    int signal_fd;                /* signalfd of SIGTERM, SIGINT and SIGHUP; -1: none */
    void (*on_ready)(void *self); /* the broker has taken it, for the first time; or NULL */
    void *self;
};

/* Start the threads of models and of fetching. */
MEMOS_MUST_USE enum memos_status worker_create(
    const struct worker_options *options, struct worker **out, struct memos_error *err);

/* Announce and serve, on the calling thread, until worker_stop, SIGTERM (drains; a second one
 * stops), the broker's word, or a failure. A broker that is not there is waited for. */
MEMOS_MUST_USE enum memos_status worker_run(struct worker *worker, struct memos_error *err);

/* Take nothing more and let worker_run return when all jobs are over; let it return now. Any
 * thread. Jobs that are stopped are told nothing: the broker sees us go, and passes them on. */
void worker_drain(struct worker *worker);
void worker_stop(struct worker *worker);

/* Takes NULL and half-built ones. The hosts stay. */
void worker_destroy(struct worker **worker);

#endif
