/* The requests that there are: what each is called, what right it needs, and where it runs. */
#ifndef MEMOS_BROKER_DISPATCH_H
#define MEMOS_BROKER_DISPATCH_H

#include "memos/broker/request.h"

/* Where a request runs. */
enum broker_class {
    BROKER_FRONT, /* on the front thread: touches only its state */
    BROKER_READ,  /* on a reader, with a snapshot */
    BROKER_QUICK, /* a read that the front thread may run itself when no reader is behind */
    BROKER_WRITE, /* in the writer's next group */
    BROKER_LONG,  /* on a thread for jobs */
    BROKER_KEPT,  /* begun on the front thread, which keeps it until others let it be answered */
};

struct broker_type {
    const char *name; /* "put"; in statistics */
    enum broker_class class;
    enum broker_right needs; /* on its space; a request may need more */
    size_t space_offset;     /* of `char *space` in the body; BROKER_NO_SPACE */
    bool space_optional;     /* an empty space is none, and needs no right */
    bool global;             /* the right is needed on "*" */
    const char *on;          /* the right is needed on this space: `_system`, `_workers` */
    bool one_way;            /* answered only when refused; has no place in any queue */
    /* Of BROKER_KEPT: when it gives OK, the request is its own. */
    enum memos_status (*front)(struct broker_request *rq, struct memos_error *err);
    enum memos_status (*read)(
        struct broker_request *rq, struct memcube_read *read, struct memos_error *err);
    enum memos_status (*write)(
        struct broker_request *rq, struct memcube_write *write, struct memos_error *err);
    enum memos_status (*job)(struct broker_request *rq, struct memos_error *err);
};

#define BROKER_NO_SPACE SIZE_MAX
#define BROKER_TYPES_FIRST MEMOS__REQUEST__BODY_HELLO
#define BROKER_TYPES_COUNT (MEMOS__REQUEST__BODY_JOB_OVER - BROKER_TYPES_FIRST + 1)

/* NULL for a body that is not known. */
const struct broker_type *broker_type_of(const Memos__Request *request);
bool broker_type_one_way(const Memos__Request *request);
const struct broker_type *broker_type_at(size_t index);
size_t broker_type_index(const struct broker_type *type);

/* Find the type, the principal's right on the space, and whether it is enough. Sets rq->type,
 * principal, right, viewer and call.space. UNSUPPORTED, INVALID, DENIED. */
MEMOS_MUST_USE enum memos_status broker_dispatch(
    struct broker_request *rq, struct memos_error *err);

/* The class of this very request (a checkpoint that is made is a write, a listed one a read). */
enum broker_class broker_dispatch_class(const struct broker_request *rq);

/* reads.c */
enum memos_status broker_get(struct broker_request *, struct memcube_read *, struct memos_error *);
enum memos_status broker_list(struct broker_request *, struct memcube_read *, struct memos_error *);
enum memos_status broker_log(struct broker_request *, struct memcube_read *, struct memos_error *);
enum memos_status broker_history(
    struct broker_request *, struct memcube_read *, struct memos_error *);
enum memos_status broker_spaces(
    struct broker_request *, struct memcube_read *, struct memos_error *);
enum memos_status broker_checkpoints(
    struct broker_request *, struct memcube_read *, struct memos_error *);

/* searches.c, classify.c */
enum memos_status broker_search(
    struct broker_request *, struct memcube_read *, struct memos_error *);
enum memos_status broker_search_many(
    struct broker_request *, struct memcube_read *, struct memos_error *);
enum memos_status broker_classify(
    struct broker_request *, struct memcube_read *, struct memos_error *);

/* writes.c */
enum memos_status broker_put(struct broker_request *, struct memcube_write *, struct memos_error *);
enum memos_status broker_update(
    struct broker_request *, struct memcube_write *, struct memos_error *);
enum memos_status broker_merge(
    struct broker_request *, struct memcube_write *, struct memos_error *);
enum memos_status broker_transition(
    struct broker_request *, struct memcube_write *, struct memos_error *);
enum memos_status broker_rollback(
    struct broker_request *, struct memcube_write *, struct memos_error *);
enum memos_status broker_forget(
    struct broker_request *, struct memcube_write *, struct memos_error *);
enum memos_status broker_checkpoint(
    struct broker_request *, struct memcube_write *, struct memos_error *);
enum memos_status broker_feedback(
    struct broker_request *, struct memcube_write *, struct memos_error *);
enum memos_status broker_grant_set(
    struct broker_request *, struct memcube_write *, struct memos_error *);
enum memos_status broker_key_set(
    struct broker_request *, struct memcube_write *, struct memos_error *);

/* jobs.c */
enum memos_status broker_verify(struct broker_request *, struct memos_error *);
enum memos_status broker_fsck(struct broker_request *, struct memos_error *);
enum memos_status broker_export(struct broker_request *, struct memos_error *);
enum memos_status broker_import(struct broker_request *, struct memos_error *);

/* trees.c */
enum memos_status broker_tree(struct broker_request *, struct memos_error *);

/* asks.c */
enum memos_status broker_hello(struct broker_request *, struct memos_error *);
enum memos_status broker_stats(struct broker_request *, struct memos_error *);
enum memos_status broker_watch(struct broker_request *, struct memos_error *);
enum memos_status broker_cancel(struct broker_request *, struct memos_error *);
enum memos_status broker_grant_list(struct broker_request *, struct memos_error *);
enum memos_status broker_key_list(struct broker_request *, struct memos_error *);
enum memos_status broker_encoder_status(struct broker_request *, struct memos_error *);

/* work.c: generate, score, capture */
enum memos_status broker_work_ask(struct broker_request *, struct memos_error *);

/* worker_asks.c */
enum memos_status broker_workers_ask(struct broker_request *, struct memos_error *);
enum memos_status broker_worker_drain(struct broker_request *, struct memos_error *);
enum memos_status broker_worker_announce(struct broker_request *, struct memos_error *);
enum memos_status broker_worker_heartbeat(struct broker_request *, struct memos_error *);
enum memos_status broker_job_update(struct broker_request *, struct memos_error *);
enum memos_status broker_job_over(struct broker_request *, struct memos_error *);

#endif
