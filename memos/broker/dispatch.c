#include "memos/broker/dispatch.h"

#include "memos/broker/state.h"
#include "memos/broker/work.h"

#include <string.h>

#define SPACE_OF(Message) offsetof(Memos__##Message, space)
#define INDEX(NAME) (MEMOS__REQUEST__BODY_##NAME - BROKER_TYPES_FIRST)

static const struct broker_type types[BROKER_TYPES_COUNT] = {
    [INDEX(HELLO)] = {"hello", BROKER_FRONT, BROKER_RIGHT_NONE, BROKER_NO_SPACE,
        .front = broker_hello},
    [INDEX(PUT)] = {"put", BROKER_WRITE, BROKER_RIGHT_WRITE, SPACE_OF(Put), .write = broker_put},
    [INDEX(UPDATE)] = {"update", BROKER_WRITE, BROKER_RIGHT_WRITE, SPACE_OF(Update),
        .write = broker_update},
    [INDEX(GET)] = {"get", BROKER_QUICK, BROKER_RIGHT_READ, SPACE_OF(Get), .read = broker_get},
    [INDEX(LIST)] = {"list", BROKER_READ, BROKER_RIGHT_READ, SPACE_OF(List), .read = broker_list},
    [INDEX(SEARCH)] = {"search", BROKER_READ, BROKER_RIGHT_READ, SPACE_OF(Search),
        .read = broker_search},
    [INDEX(LOG)] = {"log", BROKER_READ, BROKER_RIGHT_READ, SPACE_OF(Log), .read = broker_log},
    [INDEX(HISTORY)] = {"history", BROKER_READ, BROKER_RIGHT_READ, SPACE_OF(History),
        .read = broker_history},
    [INDEX(MERGE)] = {"merge", BROKER_WRITE, BROKER_RIGHT_WRITE, SPACE_OF(Merge),
        .write = broker_merge},
    [INDEX(TRANSITION)] = {"transition", BROKER_WRITE, BROKER_RIGHT_WRITE, SPACE_OF(Transition),
        .write = broker_transition},
    [INDEX(ROLLBACK)] = {"rollback", BROKER_WRITE, BROKER_RIGHT_WRITE, SPACE_OF(Rollback),
        .write = broker_rollback},
    [INDEX(FORGET)] = {"forget", BROKER_WRITE, BROKER_RIGHT_ADMIN, SPACE_OF(Forget),
        .write = broker_forget},
    [INDEX(VERIFY)] = {"verify", BROKER_LONG, BROKER_RIGHT_READ, SPACE_OF(Verify),
        .job = broker_verify},
    [INDEX(CHECKPOINT)] = {"checkpoint", BROKER_WRITE, BROKER_RIGHT_ADMIN, SPACE_OF(Checkpoint),
        .read = broker_checkpoints, .write = broker_checkpoint},
    [INDEX(EXPORT)] = {"export", BROKER_LONG, BROKER_RIGHT_READ, SPACE_OF(Export),
        .job = broker_export},
    [INDEX(IMPORT)] = {"import", BROKER_LONG, BROKER_RIGHT_WRITE, SPACE_OF(Import),
        .job = broker_import},
    [INDEX(SPACES)] = {"spaces", BROKER_READ, BROKER_RIGHT_NONE, BROKER_NO_SPACE,
        .read = broker_spaces},
    [INDEX(STATS)] = {"stats", BROKER_FRONT, BROKER_RIGHT_ADMIN, BROKER_NO_SPACE, .global = true,
        .front = broker_stats},
    [INDEX(WATCH)] = {"watch", BROKER_FRONT, BROKER_RIGHT_READ, SPACE_OF(Watch),
        .front = broker_watch},
    [INDEX(FEEDBACK)] = {"feedback", BROKER_WRITE, BROKER_RIGHT_WRITE, SPACE_OF(Feedback),
        .write = broker_feedback},
    [INDEX(FSCK)] = {"fsck", BROKER_LONG, BROKER_RIGHT_ADMIN, BROKER_NO_SPACE, .global = true,
        .job = broker_fsck},
    [INDEX(GRANT_SET)] = {"grant_set", BROKER_WRITE, BROKER_RIGHT_ADMIN, BROKER_NO_SPACE,
        .on = BROKER_SYSTEM, .write = broker_grant_set},
    [INDEX(GRANT_LIST)] = {"grant_list", BROKER_FRONT, BROKER_RIGHT_ADMIN, BROKER_NO_SPACE,
        .on = BROKER_SYSTEM, .front = broker_grant_list},
    [INDEX(KEY_SET)] = {"key_set", BROKER_WRITE, BROKER_RIGHT_ADMIN, BROKER_NO_SPACE,
        .on = BROKER_SYSTEM, .write = broker_key_set},
    [INDEX(KEY_LIST)] = {"key_list", BROKER_FRONT, BROKER_RIGHT_ADMIN, BROKER_NO_SPACE,
        .on = BROKER_SYSTEM, .front = broker_key_list},
    [INDEX(CANCEL)] = {"cancel", BROKER_FRONT, BROKER_RIGHT_NONE, BROKER_NO_SPACE,
        .front = broker_cancel},
    [INDEX(SEARCH_MANY)] = {"search_many", BROKER_READ, BROKER_RIGHT_NONE, BROKER_NO_SPACE,
        .read = broker_search_many},
    [INDEX(CLASSIFY)] = {"classify", BROKER_READ, BROKER_RIGHT_READ, SPACE_OF(Classify),
        .read = broker_classify},
    [INDEX(TREE)] = {"tree", BROKER_LONG, BROKER_RIGHT_READ, SPACE_OF(Tree), .job = broker_tree},
    [INDEX(ENCODER_STATUS)] = {"encoder_status", BROKER_FRONT, BROKER_RIGHT_NONE, BROKER_NO_SPACE,
        .front = broker_encoder_status},
    [INDEX(GENERATE)] = {"generate", BROKER_KEPT, BROKER_RIGHT_READ, SPACE_OF(Generate),
        .space_optional = true, .front = broker_work_ask},
    [INDEX(SCORE)] = {"score", BROKER_KEPT, BROKER_RIGHT_READ, SPACE_OF(Score),
        .space_optional = true, .front = broker_work_ask},
    [INDEX(CAPTURE)] = {"capture", BROKER_KEPT, BROKER_RIGHT_WRITE, SPACE_OF(Capture),
        .front = broker_work_ask},
    [INDEX(WORKERS)] = {"workers", BROKER_FRONT, BROKER_RIGHT_NONE, BROKER_NO_SPACE,
        .front = broker_workers_ask},
    [INDEX(WORKER_DRAIN)] = {"worker_drain", BROKER_FRONT, BROKER_RIGHT_ADMIN, BROKER_NO_SPACE,
        .on = BROKER_WORKERS, .front = broker_worker_drain},
    [INDEX(WORKER_ANNOUNCE)] = {"worker_announce", BROKER_KEPT, BROKER_RIGHT_ADMIN, BROKER_NO_SPACE,
        .on = BROKER_WORKERS, .front = broker_worker_announce},
    [INDEX(WORKER_HEARTBEAT)] = {"worker_heartbeat", BROKER_KEPT, BROKER_RIGHT_ADMIN,
        BROKER_NO_SPACE, .on = BROKER_WORKERS, .one_way = true, .front = broker_worker_heartbeat},
    [INDEX(JOB_UPDATE)] = {"job_update", BROKER_KEPT, BROKER_RIGHT_ADMIN, BROKER_NO_SPACE,
        .on = BROKER_WORKERS, .one_way = true, .front = broker_job_update},
    [INDEX(JOB_OVER)] = {"job_over", BROKER_KEPT, BROKER_RIGHT_ADMIN, BROKER_NO_SPACE,
        .on = BROKER_WORKERS, .one_way = true, .front = broker_job_over},
};

const struct broker_type *broker_type_of(const Memos__Request *request)
{
    unsigned index = (unsigned)request->body_case - (unsigned)BROKER_TYPES_FIRST;
    return index < BROKER_TYPES_COUNT && types[index].name ? &types[index] : NULL;
}

const struct broker_type *broker_type_at(size_t index)
{
    return &types[index];
}

size_t broker_type_index(const struct broker_type *type)
{
    return type ? (size_t)(type - types) : BROKER_TYPES_COUNT;
}

static bool is_system(struct memos_bytes space)
{
    return space.size > 0 && *(const char *)space.data == '_';
}

/* Does it have something written into the space when it is done? */
static bool keeps(const Memos__Request *request)
{
    const Memos__Memory *memory = request->body_case == MEMOS__REQUEST__BODY_SCORE
                                      ? request->score->memory
                                      : request->generate->memory;
    return (memory && memory->capture) ||
           (request->body_case == MEMOS__REQUEST__BODY_GENERATE && request->generate->keep_receipt);
}

/* The right that this very request needs, which may be more than its type's, or less. */
static enum broker_right right_needed(const struct broker_request *rq)
{
    const Memos__Request *request = rq->envelope;
    enum broker_right needs = rq->type->needs;
    switch (request->body_case) {
    case MEMOS__REQUEST__BODY_ROLLBACK:
        needs = request->rollback->n_ids == 0 ? BROKER_RIGHT_ADMIN : needs;
        break;
    case MEMOS__REQUEST__BODY_CHECKPOINT:
        if (request->checkpoint->list || request->checkpoint->check) {
            needs = BROKER_RIGHT_READ;
        }
        break;
    case MEMOS__REQUEST__BODY_TREE:
        /* Making it writes a version; it sees what access lists hide. */
        needs = request->tree->build ? BROKER_RIGHT_ADMIN : needs;
        break;
    case MEMOS__REQUEST__BODY_EXPORT:
        /* A whole space cannot leave out what an access list hides. */
        needs = request->export->id.len == 0 ? BROKER_RIGHT_ADMIN : needs;
        break;
    case MEMOS__REQUEST__BODY_GENERATE:
    case MEMOS__REQUEST__BODY_SCORE:
        needs = rq->call.space.size == 0 ? BROKER_RIGHT_NONE
                : keeps(request)         ? BROKER_RIGHT_WRITE
                                         : needs;
        break;
    default:
        break;
    }
    /* Who may write to `_system` may make grants: that is for administrators, however it is done.
     */
    return needs == BROKER_RIGHT_WRITE && is_system(rq->call.space) ? BROKER_RIGHT_ADMIN : needs;
}

static struct memos_bytes space_of(const struct broker_request *rq)
{
    if (rq->type->on) {
        return memos_bytes_of(rq->type->on);
    }
    if (rq->type->space_offset == BROKER_NO_SPACE) {
        return memos_bytes_make(NULL, 0);
    }
    /* All members of the union are pointers to messages. */
    const char *body = (const char *)rq->envelope->put;
    return memos_bytes_of(*(char *const *)(body + rq->type->space_offset));
}

struct memos_bytes broker_peer_principal(
    const struct broker_peer *peer, const struct broker_access *access)
{
    if (peer->door == BROKER_DOOR_IPC) {
        return memos_bytes_of(BROKER_OWNER);
    }
    return peer->curve ? broker_access_principal(access, memos_bytes_of(peer->key))
                       : memos_bytes_of(BROKER_LOOPBACK);
}

enum memos_status broker_dispatch(struct broker_request *rq, struct memos_error *err)
{
    rq->type = broker_type_of(rq->envelope);
    if (!rq->type) {
        return memos_fail(err, MEMOS_UNSUPPORTED, "the request has no body that is known here");
    }
    rq->principal = broker_peer_principal(&rq->peer, rq->access);
    if (rq->envelope->ticket.len > 0) {
        enum memos_status status = broker_ticket_take(rq, err);
        if (status != MEMOS_OK) {
            return status;
        }
    }
    rq->viewer = rq->principal.size > 0 ? rq->principal : memos_bytes_of("?");
    rq->call.space = space_of(rq);
    bool has_space = rq->type->space_offset != BROKER_NO_SPACE && !rq->type->space_optional;
    if (rq->call.space.size > 0 || has_space) {
        enum memos_status status = memcube_space_check(rq->call.space, err);
        if (status != MEMOS_OK) {
            return status;
        }
        rq->right = broker_access_right(rq->access, rq->principal, rq->call.space);
    }
    if (rq->type->global) {
        rq->call.space = memos_bytes_of("*");
        rq->right = broker_access_right(rq->access, rq->principal, rq->call.space);
    }
    if (rq->right == BROKER_RIGHT_ADMIN) {
        rq->viewer = memos_bytes_make(NULL, 0);
    }
    enum broker_right needed = right_needed(rq);
    if (rq->ticket_space && rq->call.space.size > 0 &&
        !memos_bytes_equal(rq->call.space, memos_bytes_of(rq->ticket_space))) {
        return broker_request_denied(rq, needed, rq->call.space, err);
    }
    return rq->right < needed ? broker_request_denied(rq, needed, rq->call.space, err) : MEMOS_OK;
}

bool broker_type_one_way(const Memos__Request *request)
{
    const struct broker_type *type = broker_type_of(request);
    return type && type->one_way;
}

enum broker_class broker_dispatch_class(const struct broker_request *rq)
{
    const Memos__Request *request = rq->envelope;
    if (request->body_case == MEMOS__REQUEST__BODY_CHECKPOINT &&
        (request->checkpoint->list || request->checkpoint->check)) {
        return BROKER_READ;
    }
    return rq->type->class;
}
