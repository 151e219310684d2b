/* Changing the states of cubes, and merging cubes into one. */
#include "memcube/store_internal.h"

/* The step that brings a cube into another state; without an operation when it is in it. */
static enum memos_status transition_plan(struct memcube_write *write,
    const struct memcube_space *space, const struct memcube_change *change,
    const struct memos_id *id, enum memcube_state to, enum memcube_operation operation,
    struct memcube_step *step, struct memos_error *err)
{
    struct memcube_version *head = memos_arena_take(&write->read.arena, 1, sizeof *head);
    const int64_t now = write->store->clock.wall_us(write->store->clock.self);
    struct memcube_cube cube;
    char text[MEMOS_ID_TEXT_BYTES];

    if (!head) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a version");
    }
    const enum memos_status status =
        memcube_head_for_change(write, space, id, false, &cube, head, err);
    if (status != MEMOS_OK) {
        return status;
    }
    memos_id_format(id, text);
    memcube_step_repeat(step, &cube, head, head, operation, change);
    if (head->state == to) {
        step->version.operation = 0;
        return MEMOS_OK;
    }
    if (!memcube_state_may_become(head->state, to)) {
        return memos_fail(err,
            head->state == MEMCUBE_STATE_FROZEN ? MEMOS_FROZEN : MEMOS_CONFLICT,
            "cube %s is %s and cannot become %s", text, memcube_state_text((int)head->state),
            memcube_state_text((int)to));
    }
    struct memcube_governance *governance = &step->version.governance;
    if (to == MEMCUBE_STATE_EXPIRED && governance->retain_until_us > now) {
        return memos_fail(err, MEMOS_CONFLICT, "cube %s must be kept for a while yet", text);
    }
    /* What is brought back does not die of the same end again; what was only frozen does. */
    const bool revived = to == MEMCUBE_STATE_ACTIVATED &&
                         head->state != MEMCUBE_STATE_GENERATED &&
                         head->state != MEMCUBE_STATE_FROZEN;
    if (revived && governance->expires_us <= now) {
        governance->expires_us = 0;
    }
    if (revived && governance->valid_to_us <= now) {
        governance->valid_to_us = 0;
    }
    step->version.state = to;
    return MEMOS_OK;
}

enum memos_status memcube_transition(struct memcube_write *write,
    const struct memcube_change *change, const struct memos_id *ids, size_t ids_count,
    enum memcube_state to, struct memcube_outcome *out, struct memos_error *err)
{
    struct memcube_space_state *state = NULL;
    bool repeated = false;

    enum memos_status status = memcube_change_enter(write, change, &state, out, &repeated, err);
    if (status != MEMOS_OK || repeated) {
        return status;
    }
    if (!memcube_state_text((int)to)) {
        return memos_fail(err, MEMOS_INVALID, "there is no state %d", (int)to);
    }
    struct memcube_step *steps = memos_arena_take(&write->read.arena, ids_count, sizeof *steps);
    if (!steps) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu cubes", ids_count);
    }
    status = state ? MEMOS_OK : memcube_space_missing(change->space, err);
    if (status == MEMOS_OK) {
        status = memcube_ids_distinct(write, ids, ids_count, err);
    }
    for (size_t i = 0; status == MEMOS_OK && i < ids_count; i++) {
        status = transition_plan(write, &state->space, change, &ids[i], to,
            MEMCUBE_OP_TRANSITION, &steps[i], err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    return memcube_steps_apply(write, change, MEMCUBE_OP_TRANSITION, steps, ids_count, out, err);
}

/* The steps of a merge: the new cube, then its sources. */
static enum memos_status merge_plan(struct memcube_write *write,
    const struct memcube_space *space, const struct memcube_change *change,
    const struct memos_id *sources, size_t sources_count, const struct memcube_draft *draft,
    struct memcube_step *steps, struct memos_error *err)
{
    struct memcube_draft joined = *draft;
    struct memos_id id;

    enum memos_status status = memcube_ids_distinct(write, sources, sources_count, err);
    joined.derived_from =
        memos_arena_take(&write->read.arena, sources_count, sizeof *joined.derived_from);
    joined.derived_count = sources_count;
    if (status == MEMOS_OK && !joined.derived_from) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu sources", sources_count);
    }
    for (size_t i = 0; status == MEMOS_OK && i < sources_count; i++) {
        status = transition_plan(write, space, change, &sources[i], MEMCUBE_STATE_MERGED,
            MEMCUBE_OP_MERGE, &steps[i + 1], err);
        if (status == MEMOS_OK) {
            joined.derived_from[i] = (struct memcube_ref){
                sources[i], steps[i + 1].cube.number };
        }
    }
    if (status == MEMOS_OK) {
        status = memcube_store_draft_check(write, &joined, err);
    }
    if (status == MEMOS_OK && joined.description.external_id.size > 0) {
        status = memcube_external_cube(
            &write->read, space, joined.description.external_id, &id, err);
        if (status == MEMOS_OK) {
            return memos_fail(err, MEMOS_EXISTS, "a cube has this external id already");
        }
        status = status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
    }
    memcube_step_create(&steps[0], &joined, MEMCUBE_OP_MERGE, change);
    return status;
}

enum memos_status memcube_merge(struct memcube_write *write, const struct memcube_change *change,
    const struct memos_id *sources, size_t sources_count, const struct memcube_draft *draft,
    struct memcube_outcome *out, struct memos_error *err)
{
    struct memcube_space_state *state = NULL;
    bool repeated = false;

    enum memos_status status = memcube_change_enter(write, change, &state, out, &repeated, err);
    if (status != MEMOS_OK || repeated) {
        return status;
    }
    if (sources_count < 2 || sources_count > MEMCUBE_DERIVED_MAX) {
        return memos_fail(err, MEMOS_INVALID, "2 to %d cubes can be merged, not %zu",
            MEMCUBE_DERIVED_MAX, sources_count);
    }
    struct memcube_step *steps =
        memos_arena_take(&write->read.arena, sources_count + 1, sizeof *steps);
    if (!steps) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu cubes", sources_count);
    }
    status = state ? MEMOS_OK : memcube_space_missing(change->space, err);
    if (status == MEMOS_OK) {
        status = merge_plan(
            write, &state->space, change, sources, sources_count, draft, steps, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    return memcube_steps_apply(write, change, MEMCUBE_OP_MERGE, steps, sources_count + 1, out, err);
}
