/* Tickets: what a worker asks for a job, it asks with the rights of the job's client. */
#include "memos/broker/state.h"
#include "memos/broker/work.h"

#include <string.h>

static enum memos_status fail_denied(struct broker_request *rq, struct memos_error *err)
{
    rq->broker->work->stats.tickets_refused++;
    return memos_fail(err, MEMOS_DENIED, "no job of yours has this ticket");
}

/* What a worker makes for its client: captures and receipts, nothing else. */
static bool draft_allowed(const Memos__Draft *draft)
{
    return draft && (draft->kind == MEMCUBE_ACTIVATION ||
                        strcmp(draft->subtype, BROKER_RECEIPT_SUBTYPE) == 0);
}

static bool drafts_allowed(const Memos__Put *put)
{
    bool allowed = true;
    for (size_t i = 0; i < put->n_drafts; i++) {
        allowed = allowed && draft_allowed(put->drafts[i]);
    }
    return allowed;
}

/* A change must leave a cube what it is; what it is now is looked at by the writer. */
static bool changes_allowed(const Memos__Update *update)
{
    bool allowed = true;
    for (size_t i = 0; i < update->n_changes; i++) {
        allowed = allowed && (update->changes[i]->fields & MEMCUBE_FIELD_SUBTYPE) == 0;
    }
    return allowed;
}

static bool searches_allowed(const Memos__SearchMany *many, const char *space)
{
    bool allowed = true;
    for (size_t i = 0; i < many->n_searches; i++) {
        allowed = allowed && strcmp(many->searches[i]->space, space) == 0;
    }
    return allowed;
}

/* Is it one of the requests that a job needs? That its space is the job's is for the caller. */
static bool body_allowed(const Memos__Request *request, const char *space)
{
    switch (request->body_case) {
    case MEMOS__REQUEST__BODY_HELLO:
    case MEMOS__REQUEST__BODY_GET:
    case MEMOS__REQUEST__BODY_LIST:
    case MEMOS__REQUEST__BODY_SEARCH:
    case MEMOS__REQUEST__BODY_LOG:
    case MEMOS__REQUEST__BODY_HISTORY:
        return true;
    case MEMOS__REQUEST__BODY_SEARCH_MANY:
        return searches_allowed(request->search_many, space);
    case MEMOS__REQUEST__BODY_PUT:
        return drafts_allowed(request->put);
    case MEMOS__REQUEST__BODY_UPDATE:
        return changes_allowed(request->update);
    default:
        return false;
    }
}

enum memos_status broker_ticket_take(struct broker_request *rq, struct memos_error *err)
{
    const struct broker_task *task = broker_task_of(rq->broker->work, rq->envelope->ticket);
    bool is_worker = broker_access_right(rq->access, rq->principal,
                         memos_bytes_of(BROKER_WORKERS)) == BROKER_RIGHT_ADMIN;
    /* Which of a worker's connections asks is not known; whose it is, is. */
    if (!is_worker || !task ||
        !memos_bytes_equal(
            rq->principal, broker_peer_principal(&task->worker->announcement->peer, rq->access))) {
        return fail_denied(rq, err);
    }
    if (task->space[0] == '\0') {
        rq->broker->work->stats.tickets_refused++;
        return memos_fail(err, MEMOS_DENIED, "the job has no space");
    }
    if (!body_allowed(rq->envelope, task->space)) {
        rq->broker->work->stats.tickets_refused++;
        return memos_fail(err, MEMOS_DENIED,
            "a ticket is for reading the job's space, and for writing captures and receipts there");
    }
    rq->principal = broker_peer_principal(&task->peer, rq->access);
    rq->ticket_space = memos_arena_copy(&rq->arena, memos_bytes_of(task->space));
    return rq->ticket_space ? MEMOS_OK
                            : memos_fail(err, MEMOS_NO_MEMORY, "no memory for a request");
}
