/* What a broker is made of. For the files of this folder only.
 *
 * Each member says whose it is. The front thread's members need no lock; what is shared locks
 * itself. */
#ifndef MEMOS_BROKER_STATE_H
#define MEMOS_BROKER_STATE_H

#include "memos/broker/broker.h"
#include "memos/broker/dispatch.h"
#include "memos/broker/events.h"
#include "memos/broker/imports.h"
#include "memos/broker/meaning.h"
#include "memos/broker/metrics.h"
#include "memos/broker/pool.h"
#include "memos/broker/zap.h"
#include "proto/client.h"
#include "retrieval/search.h"

struct broker_work;

enum { BROKER_SESSION_BUCKETS = 4096, BROKER_SPARE_MAX = 512 };

/* A pair of sockets with one way of knowing who is there. Not open: NULL. */
struct broker_entrance {
    void *router, *events;
    char (*events_bound)[256]; /* the addresses that it got, to get them again */
    size_t events_count;
    int router_fd, events_fd;
};

struct broker {
    /* set once, read by all */
    struct broker_options options;
    struct memos_clock clock;
    struct retrieval *retrieval;
    struct broker_meaning *meaning;
    struct memcube_store *store;
    struct memcube_writer *writer;
    struct memos_key_pair keys;               /* CURVE; empty without */
    uint8_t sign_public[32], sign_secret[64]; /* Ed25519, of checkpoints */
    uint64_t message_bytes_max;
    atomic_bool stopping; /* jobs give up */

    /* shared */
    struct broker_pool *readers, *jobs;
    struct broker_imports *imports;
    struct broker_zap *zap;
    pthread_mutex_t finished_lock;
    struct broker_reply *finished, **finished_tail; /* under finished_lock */
    int wake_fd; /* eventfd: finished has something, or a wish below was made */
    atomic_bool stop_wanted, reload_wanted;

    /* the front thread's, once it runs */
    struct broker_config config; /* the keys that reload; texts are in options.config */
    void *context;
    struct broker_entrance doors[BROKER_DOORS];
    char (*addresses)[256];
    size_t addresses_count;
    struct broker_access *access;
    struct broker_events *events;
    struct broker_reader reader; /* never beside another snapshot, never while it waits */
    struct broker_metrics metrics;
    struct broker_work *work;
    struct broker_session *sessions[BROKER_SESSION_BUCKETS];
    size_t requests_inside;
    uint64_t bytes_inside;
    struct broker_request *spare; /* through next */
    size_t spare_count;
    struct broker_reply *unsent, **unsent_tail; /* parts that found their client's queue full */
    bool draining;
};

/* Hand a reply (part) to the front thread. Any thread. */
void broker_reply_push(struct broker *broker, struct broker_reply *reply);

/* front.c, on the front thread: send a reply, or let it go; with the last one goes the request. */
void broker_reply_send(struct broker *broker, struct broker_reply *reply);

/* Send a part of a reply at once; takes frames. False: its client is gone, or does not take what it
 * is sent. */
bool broker_part_send(struct broker_request *rq, struct memos_frames *frames);

/* Take a request apart, answered or not. */
void broker_request_release(struct broker_request *rq);

/* Read the grants and keys again. On the front thread; ends its snapshot. If that fails nobody but
 * the owner has any right, until it succeeds. */
void broker_access_renew(struct broker *broker);

/* Take over the keys that reload, and set the log up. On the front thread. */
MEMOS_MUST_USE enum memos_status broker_config_adopt(
    struct broker *broker, const struct broker_config *fresh, struct memos_error *err);

/* listen.c */
MEMOS_MUST_USE enum memos_status broker_listen(struct broker *broker, struct memos_error *err);
void broker_hang_up(struct broker *broker);

/* Close the events' socket of an entrance, because it is no longer safe to read from; open it
 * again, if it was closed. Subscribers connect again by themselves. */
void broker_events_close(struct broker *broker, enum broker_door door);
void broker_events_reopen(struct broker *broker);

/* session.c: find or make the session of a request; BUSY when the client has too much in here. */
MEMOS_MUST_USE enum memos_status broker_session_enter(
    struct broker_request *rq, uint64_t key, struct memos_error *err);
void broker_session_leave(struct broker_request *rq);
void broker_sessions_free(struct broker *broker);

/* run.c: running a request where its class says, up to the reply. */

/* Begin the snapshot, or look at what is committed by now. */
MEMOS_MUST_USE enum memos_status broker_reader_renew(
    struct broker_reader *reader, struct memos_error *err);
void broker_reader_rest(struct broker_reader *reader);

/* memcube_space_find, remembered as long as the snapshot. */
MEMOS_MUST_USE enum memos_status broker_reader_space(struct broker_reader *reader,
    struct memos_bytes name, struct memcube_space *out, struct memos_error *err);

/* Run a read and pack its reply; does not push it. */
void broker_run_read(struct broker_reader *reader, struct broker_request *rq);

/* Start the pools of threads; hand a change to the writer (reader: see broker_meaning_prepare). */
MEMOS_MUST_USE enum memos_status broker_pools_create(
    struct broker *broker, struct memos_error *err);
void broker_run_write(struct broker_request *rq, struct broker_reader *reader);

#endif
