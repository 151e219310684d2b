/* Requests that change the store, on the writer's thread, inside its group's transaction.
 *
 * Each may run more than once (see memcube/writer.h): nothing outside rq->work and rq->reply is
 * touched. */
#include "memos/broker/state.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* A cube of another cube's principal is as good as missing. Only for those who are not
 * administrators; a space that is missing has nothing to hide. */
static enum memos_status sees_all(struct broker_request *rq, struct memcube_write *write,
    const struct memos_id *ids, size_t count, struct memos_error *err)
{
    struct memcube_read *read = memcube_write_read(write);
    struct memcube_space space;
    if (!rq->viewer.data) {
        return MEMOS_OK;
    }
    enum memos_status status = memcube_space_find(read, rq->call.space, &space, err);
    if (status != MEMOS_OK) {
        return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
    }
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        status = broker_request_sees(rq, read, &space, &ids[i], err);
    }
    return status;
}

/* What a draft names: what it is derived from, and the cube that has its external id. */
static enum memos_status sees_named(struct broker_request *rq, struct memcube_write *write,
    const struct memcube_draft *draft, struct memos_error *err)
{
    struct memcube_read *read = memcube_write_read(write);
    struct memcube_space space;
    struct memos_id id;
    if (!rq->viewer.data ||
        (draft->derived_count == 0 && draft->description.external_id.size == 0)) {
        return MEMOS_OK;
    }
    enum memos_status status = memcube_space_find(read, rq->call.space, &space, err);
    if (status != MEMOS_OK) {
        return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
    }
    for (size_t i = 0; i < draft->derived_count && status == MEMOS_OK; i++) {
        status = broker_request_sees(rq, read, &space, &draft->derived_from[i].id, err);
    }
    if (status == MEMOS_OK && draft->description.external_id.size > 0) {
        status = memcube_external_find(read, &space, draft->description.external_id, &id, err);
        if (status == MEMOS_OK) {
            status = broker_request_sees(rq, read, &space, &id, err);
        } else if (status == MEMOS_NOT_FOUND) {
            status = MEMOS_OK;
        }
    }
    return status;
}

/* Making a space is for who may administer it. */
static enum memos_status may_make_space(
    struct broker_request *rq, struct memcube_write *write, struct memos_error *err)
{
    struct memcube_space space;
    if (rq->right == BROKER_RIGHT_ADMIN) {
        return MEMOS_OK;
    }
    enum memos_status status =
        memcube_space_find(memcube_write_read(write), rq->call.space, &space, err);
    return status == MEMOS_NOT_FOUND
               ? broker_request_denied(rq, BROKER_RIGHT_ADMIN, rq->call.space, err)
               : status;
}

/* Derived cubes that the viewer may not see are not his to hear of. */
static enum memos_status affected_filter(struct broker_request *rq, struct memcube_write *write,
    struct memcube_outcome *outcome, struct memos_error *err)
{
    struct memcube_read *read = memcube_write_read(write);
    struct memcube_space space;
    size_t kept = 0;
    if (!rq->viewer.data || outcome->affected_count == 0) {
        return MEMOS_OK;
    }
    enum memos_status status = memcube_space_find(read, rq->call.space, &space, err);
    for (size_t i = 0; i < outcome->affected_count && status == MEMOS_OK; i++) {
        status = broker_request_sees(rq, read, &space, &outcome->affected[i], err);
        if (status == MEMOS_OK) {
            outcome->affected[kept++] = outcome->affected[i];
        }
        status = status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
    }
    outcome->affected_count = kept;
    return status;
}

static enum memos_status outcome_reply(struct broker_request *rq, struct memcube_write *write,
    struct memcube_outcome *outcome, Memos__Outcome **out, struct memos_error *err)
{
    Memos__Outcome *message = memos_arena_take(&rq->work, 1, sizeof *message);
    if (!message) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a reply");
    }
    memos__outcome__init(message);
    enum memos_status status = affected_filter(rq, write, outcome, err);
    if (status == MEMOS_OK) {
        status = broker_outcome_make(&rq->work, rq->call.space, outcome, message, err);
    }
    if (status == MEMOS_OK) {
        rq->reply.body_case = MEMOS__REPLY__BODY_OUTCOME;
        rq->reply.outcome = message;
        if (out) {
            *out = message;
        }
    }
    return status;
}

enum memos_status broker_put(
    struct broker_request *rq, struct memcube_write *write, struct memos_error *err)
{
    struct memcube_outcome outcome = {0};
    enum memos_status status = may_make_space(rq, write, err);
    for (size_t i = 0; i < rq->call.put.count && status == MEMOS_OK; i++) {
        status = sees_named(rq, write, &rq->call.put.drafts[i], err);
    }
    if (status == MEMOS_OK) {
        status = memcube_create(
            write, &rq->call.change, rq->call.put.drafts, rq->call.put.count, &outcome, err);
    }
    return status == MEMOS_OK ? outcome_reply(rq, write, &outcome, NULL, err) : status;
}

/* A worker may change for its client what it makes for it, captures and receipts. */
static enum memos_status ticket_may(struct broker_request *rq, struct memcube_write *write,
    const struct memos_id *id, struct memos_error *err)
{
    struct memcube_read *read = memcube_write_read(write);
    struct memcube_space space;
    struct memcube_version version;
    if (!rq->ticket_space) {
        return MEMOS_OK;
    }
    enum memos_status status = memcube_space_find(read, rq->call.space, &space, err);
    if (status == MEMOS_OK) {
        status = memcube_version_get(read, &space, id, 0, NULL, &version, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    bool may = version.kind == MEMCUBE_ACTIVATION ||
               memos_bytes_equal(version.subtype, memos_bytes_of(BROKER_RECEIPT_SUBTYPE));
    return may ? MEMOS_OK : memos_fail(err, MEMOS_DENIED, "a ticket is for captures and receipts");
}

enum memos_status broker_update(
    struct broker_request *rq, struct memcube_write *write, struct memos_error *err)
{
    const struct memcube_update *updates = rq->call.update.updates;
    struct memcube_outcome outcome = {0};
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; i < rq->call.update.count && status == MEMOS_OK; i++) {
        status = sees_all(rq, write, &updates[i].id, 1, err);
        if (status == MEMOS_OK) {
            status = ticket_may(rq, write, &updates[i].id, err);
        }
        if (status == MEMOS_OK) {
            status = sees_named(rq, write, &updates[i].draft, err);
        }
    }
    if (status == MEMOS_OK) {
        status =
            memcube_update(write, &rq->call.change, updates, rq->call.update.count, &outcome, err);
    }
    return status == MEMOS_OK ? outcome_reply(rq, write, &outcome, NULL, err) : status;
}

enum memos_status broker_merge(
    struct broker_request *rq, struct memcube_write *write, struct memos_error *err)
{
    struct memcube_outcome outcome = {0};
    enum memos_status status =
        sees_all(rq, write, rq->call.merge.sources, rq->call.merge.count, err);
    if (status == MEMOS_OK) {
        status = sees_named(rq, write, &rq->call.merge.draft, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_merge(write, &rq->call.change, rq->call.merge.sources,
            rq->call.merge.count, &rq->call.merge.draft, &outcome, err);
    }
    return status == MEMOS_OK ? outcome_reply(rq, write, &outcome, NULL, err) : status;
}

enum memos_status broker_transition(
    struct broker_request *rq, struct memcube_write *write, struct memos_error *err)
{
    struct memcube_outcome outcome = {0};
    enum memos_status status =
        sees_all(rq, write, rq->call.transition.ids, rq->call.transition.count, err);
    if (status == MEMOS_OK) {
        status = memcube_transition(write, &rq->call.change, rq->call.transition.ids,
            rq->call.transition.count, rq->call.transition.to, &outcome, err);
    }
    return status == MEMOS_OK ? outcome_reply(rq, write, &outcome, NULL, err) : status;
}

enum memos_status broker_rollback(
    struct broker_request *rq, struct memcube_write *write, struct memos_error *err)
{
    struct memcube_outcome outcome = {0};
    struct memcube_rollback_item *items = NULL;
    Memos__Outcome *message = NULL;
    size_t count = 0;

    enum memos_status status =
        sees_all(rq, write, rq->call.rollback.ids, rq->call.rollback.ids_count, err);
    if (status == MEMOS_OK) {
        status = memcube_rollback(
            write, &rq->call.change, &rq->call.rollback, &outcome, &items, &count, err);
    }
    if (status == MEMOS_OK) {
        status = outcome_reply(rq, write, &outcome, &message, err);
    }
    return status == MEMOS_OK ? broker_rollback_items_make(&rq->work, items, count, message, err)
                              : status;
}

enum memos_status broker_forget(
    struct broker_request *rq, struct memcube_write *write, struct memos_error *err)
{
    const Memos__Forget *body = rq->envelope->forget;
    struct memcube_outcome outcome = {0};
    struct memcube_forgotten forgotten = {0};
    Memos__Outcome *message = NULL;

    enum memos_status status = memcube_forget(write, &rq->call.change, rq->call.forget.ids,
        rq->call.forget.count, body->force, body->dry_run, &outcome, &forgotten, err);
    if (status == MEMOS_OK) {
        status = outcome_reply(rq, write, &outcome, &message, err);
    }
    if (status == MEMOS_OK) {
        status = broker_ids_make(
            &rq->work, forgotten.ids, forgotten.ids_count, &message->forgotten, err);
    }
    if (status == MEMOS_OK) {
        message->n_forgotten = forgotten.ids_count;
        message->payloads_destroyed = forgotten.payloads_destroyed;
        message->payloads_shared = forgotten.payloads_shared;
        /* The reply goes out after the commit, and that returns when the bytes are destroyed. */
        message->gone = !body->dry_run;
    }
    return status;
}

enum memos_status broker_checkpoint(
    struct broker_request *rq, struct memcube_write *write, struct memos_error *err)
{
    struct memcube_checkpoint checkpoint;
    Memos__Checkpoints *out = memos_arena_take(&rq->work, 1, sizeof *out);
    void **pointers = NULL;

    enum memos_status status =
        memcube_checkpoint_make(write, rq->call.space, rq->broker->sign_secret, &checkpoint, err);
    if (status == MEMOS_OK) {
        status = broker_array_make(&rq->work, 1, sizeof(Memos__CheckpointInfo), &pointers, err);
    }
    if (status == MEMOS_OK) {
        status = broker_checkpoint_make(&rq->work, &checkpoint, pointers[0], err);
    }
    if (status == MEMOS_OK && !out) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a reply");
    }
    if (status == MEMOS_OK) {
        memos__checkpoints__init(out);
        out->checkpoints = (Memos__CheckpointInfo **)pointers;
        out->n_checkpoints = 1;
        rq->reply.body_case = MEMOS__REPLY__BODY_CHECKPOINTS;
        rq->reply.checkpoints = out;
    }
    return status;
}

enum memos_status broker_feedback(
    struct broker_request *rq, struct memcube_write *write, struct memos_error *err)
{
    struct memcube_outcome nothing = {0};
    enum memos_status status = sees_all(rq, write, &rq->call.feedback.id, 1, err);
    if (status == MEMOS_OK) {
        status = memcube_behaviour_feedback(
            write, rq->call.space, &rq->call.feedback.id, rq->call.feedback.usefulness, err);
    }
    return status == MEMOS_OK ? outcome_reply(rq, write, &nothing, NULL, err) : status;
}

/* ---- grants and keys ---- */

/* One cube of `_system`: made, or changed when its external id is there. Takes `payload`. */
static enum memos_status system_put(struct broker_request *rq, struct memcube_write *write,
    const char *subtype, struct memos_bytes external_id, json_t *payload, struct memos_error *err)
{
    struct memcube_outcome outcome = {0};
    char *text = payload ? json_dumps(payload, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    json_decref(payload);
    if (!text || !external_id.data) {
        free(text);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a %s", subtype);
    }
    const struct memcube_draft draft = {
        .kind = MEMCUBE_PLAINTEXT,
        .subtype = memos_bytes_of(subtype),
        .codec = memos_bytes_of("application/json"),
        .payload = memos_bytes_of(text),
        .description = {.external_id = external_id},
    };
    enum memos_status status = memcube_create(write, &rq->call.change, &draft, 1, &outcome, err);
    free(text);
    return status == MEMOS_OK ? outcome_reply(rq, write, &outcome, NULL, err) : status;
}

static struct memos_bytes joined(struct broker_request *rq, const char *first,
    struct memos_bytes second, struct memos_bytes third)
{
    struct memos_buffer text = memos_buffer_make(MEMCUBE_EXTERNAL_ID_BYTES_MAX);
    memos_buffer_printf(&text, "%s:%.*s", first, (int)second.size, (const char *)second.data);
    if (third.size > 0) {
        memos_buffer_printf(&text, ":%.*s", (int)third.size, (const char *)third.data);
    }
    struct memos_bytes view = memos_buffer_view(&text);
    view.data = text.failed ? NULL : memos_arena_copy(&rq->work, view);
    memos_buffer_free(&text);
    return view;
}

static json_t *json_of(struct memos_bytes text)
{
    return json_stringn(text.size ? text.data : "", text.size);
}

enum memos_status broker_grant_set(
    struct broker_request *rq, struct memcube_write *write, struct memos_error *err)
{
    json_t *payload = json_pack("{s:o, s:o, s:o}", "principal", json_of(rq->call.grant.principal),
        "spaces", json_of(rq->call.grant.spaces), "rights", json_of(rq->call.grant.rights));
    struct memos_bytes name = joined(rq, "grant", rq->call.grant.principal, rq->call.grant.spaces);
    rq->call.change.reason = memos_bytes_of(rq->call.grant.rights.size ? "grant" : "revoke");
    return system_put(rq, write, "grant", name, payload, err);
}

enum memos_status broker_key_set(
    struct broker_request *rq, struct memcube_write *write, struct memos_error *err)
{
    json_t *payload = json_pack("{s:o, s:o}", "public_key", json_of(rq->call.key.public_key),
        "principal", json_of(rq->call.key.principal));
    struct memos_bytes name = joined(rq, "key", rq->call.key.public_key, memos_bytes_make(NULL, 0));
    rq->call.change.reason = memos_bytes_of(rq->call.key.principal.size ? "allow" : "revoke");
    return system_put(rq, write, "key", name, payload, err);
}
