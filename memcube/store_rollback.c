/* Going back: new versions that repeat old ones. Nothing is indexed anew and no payload is written
 * again, so that ten thousand cubes go back in one short transaction.
 *
 * Two passes: the plan names what would be made and is what a dry run shows; it keeps only numbers,
 * so that the memory does not grow with what the cubes hold. Applying reads each version again. */
#include "memcube/store_internal.h"

/* A planned step, by numbers alone. */
struct going_back {
    size_t item;
    uint32_t row; /* of the version gone back to; 0: withdraw */
};

struct rolling {
    struct memcube_write *write;
    const struct memcube_space *space;
    const struct memcube_rollback *rollback;
    uint64_t seq; /* gone back to; not with to_version */
    struct memcube_ids ids;
    struct memcube_rollback_item *items;
    struct going_back *steps;
    size_t items_count, steps_count;
};

/* ---- which cubes, and to when -------------------------------------------------------------- */

static enum memos_status target_check(
    struct rolling *rolling, struct memos_error *err)
{
    const struct memcube_rollback *rollback = rolling->rollback;
    const int said = (rollback->to.seq != 0) + (rollback->to.time_us != 0) +
                     (rollback->to_version != 0) + rollback->to_beginning;

    if (said != 1) {
        return memos_fail(err, MEMOS_INVALID,
            "a rollback goes to one of a record, a time, a version or the beginning");
    }
    if (rollback->to_version != 0 && rollback->ids_count != 1) {
        return memos_fail(err, MEMOS_INVALID, "a rollback to a version is of one cube");
    }
    if (rollback->to.seq > rolling->space->seq) {
        return memos_fail(err, MEMOS_INVALID, "the space has %llu records, not %llu",
            (unsigned long long)rolling->space->seq, (unsigned long long)rollback->to.seq);
    }
    if (rollback->to_version != 0 || rollback->to_beginning) {
        rolling->seq = 0;
        return MEMOS_OK;
    }
    return memcube_as_of_seq(
        &rolling->write->read, rolling->space, &rollback->to, &rolling->seq, err);
}

/* The cubes that any record after the target has changed: nothing else can differ. */
static enum memos_status changed_collect(struct rolling *rolling, struct memos_error *err)
{
    struct memcube_read *read = &rolling->write->read;
    enum memos_status status = MEMOS_OK;

    for (uint64_t seq = rolling->seq + 1; status == MEMOS_OK && seq <= rolling->space->seq;
         seq++) {
        struct memcube_log_record record;
        size_t count = 0;
        status = memcube_log_read(read, rolling->space, seq, false, &record, 1, &count, err);
        for (size_t i = 0; status == MEMOS_OK && count == 1 && i < record.entries_count; i++) {
            status = memcube_ids_add(
                &rolling->ids, &read->arena, &record.entries[i].ref.id, NULL, NULL, err);
        }
    }
    return status;
}

static enum memos_status given_collect(struct rolling *rolling, struct memos_error *err)
{
    const struct memcube_rollback *rollback = rolling->rollback;

    enum memos_status status = memcube_ids_distinct(
        rolling->write, rollback->ids, rollback->ids_count, err);
    for (size_t i = 0; status == MEMOS_OK && i < rollback->ids_count; i++) {
        struct memcube_cube cube;
        status = memcube_cube_read(&rolling->write->read, rolling->space->number,
            &rollback->ids[i], &cube, err);
        if (status == MEMOS_OK) {
            status = memcube_ids_add(&rolling->ids, &rolling->write->read.arena,
                &rollback->ids[i], NULL, NULL, err);
        }
    }
    return status;
}

/* ---- the plan ------------------------------------------------------------------------------ */

/* The version that a cube goes back to; number and row 0 when it was not there yet. */
static enum memos_status target_find(struct rolling *rolling, const struct memcube_cube *cube,
    uint32_t *out_number, uint32_t *out_row, struct memos_error *err)
{
    struct memcube_read *read = &rolling->write->read;
    const uint32_t space = rolling->space->number;
    const uint32_t version = rolling->rollback->to_version;
    uint64_t seq = 0;

    *out_number = 0;
    *out_row = 0;
    if (version != 0) {
        *out_number = version;
        const enum memos_status status =
            memcube_chain_read(read, space, &cube->id, version, out_row, &seq, err);
        rolling->seq = seq;
        return status;
    }
    const enum memos_status status =
        memcube_chain_as_of(read, space, cube, rolling->seq, out_number, out_row, err);
    if (status == MEMOS_NOT_FOUND) {
        *out_number = 0;
        *out_row = 0;
        return MEMOS_OK;
    }
    return status;
}

/* Would going back change the cube at all? */
static enum memos_status target_differs(struct rolling *rolling, const struct memcube_cube *cube,
    uint32_t row, bool *out_differs, struct memos_error *err)
{
    struct memcube_write *write = rolling->write;
    const uint32_t space = rolling->space->number;
    struct memcube_version head;
    struct memcube_version target;
    bool same = false;

    *out_differs = cube->state != MEMCUBE_STATE_WITHDRAWN;
    if (row == 0 || row == cube->row) {
        *out_differs = *out_differs && row == 0;
        return MEMOS_OK;
    }
    enum memos_status status = memcube_version_load(
        &write->read, space, cube, cube->row, &write->scratch, &head, err);
    if (status == MEMOS_OK) {
        status = memcube_version_load(
            &write->read, space, cube, row, &write->scratch, &target, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_version_same(write, &head, &target, &same, err);
    }
    *out_differs = !same;
    return status;
}

static enum memos_status plan_one(
    struct rolling *rolling, const struct memos_id *id, struct memos_error *err)
{
    struct memcube_cube cube;
    struct memcube_rollback_item item = { .id = *id, .status = MEMOS_OK };
    uint32_t row = 0;
    bool differs = true;

    memos_arena_reset(&rolling->write->scratch);
    enum memos_status status = memcube_cube_read(
        &rolling->write->read, rolling->space->number, id, &cube, err);
    if (status == MEMOS_OK) {
        status = target_find(rolling, &cube, &item.to, &row, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    item.from = cube.number;
    if (cube.state == MEMCUBE_STATE_FORGOTTEN) {
        if (item.to == cube.number) {
            return MEMOS_OK;
        }
        item.status = MEMOS_FORGOTTEN;
    } else {
        status = target_differs(rolling, &cube, row, &differs, err);
    }
    if (status != MEMOS_OK || !differs) {
        return status;
    }
    if (cube.state == MEMCUBE_STATE_FROZEN && !rolling->rollback->include_frozen) {
        item.status = MEMOS_FROZEN;
    }
    if (item.status == MEMOS_OK) {
        rolling->steps[rolling->steps_count++] =
            (struct going_back){ rolling->items_count, row };
    }
    rolling->items[rolling->items_count++] = item;
    return MEMOS_OK;
}

static enum memos_status plan_all(struct rolling *rolling, struct memos_error *err)
{
    struct memos_arena *arena = &rolling->write->read.arena;

    enum memos_status status = target_check(rolling, err);
    if (status == MEMOS_OK) {
        status = rolling->rollback->ids_count > 0 ? given_collect(rolling, err)
                                                  : changed_collect(rolling, err);
    }
    const size_t count = rolling->ids.count;
    rolling->items = memos_arena_take(arena, count, sizeof *rolling->items);
    rolling->steps = memos_arena_take(arena, count, sizeof *rolling->steps);
    if (status == MEMOS_OK && (!rolling->items || !rolling->steps)) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu cubes", count);
    }
    for (size_t i = 0; status == MEMOS_OK && i < count; i++) {
        status = plan_one(rolling, &rolling->ids.ids[i], err);
    }
    return status;
}

/* ---- applying ------------------------------------------------------------------------------ */

static enum memos_status step_back(struct memcube_changing *changing, struct rolling *rolling,
    const struct going_back *back, struct memos_arena *arena, struct memos_error *err)
{
    struct memcube_write *write = rolling->write;
    struct memcube_rollback_item *item = &rolling->items[back->item];
    const uint32_t space = rolling->space->number;
    struct memcube_cube cube;
    struct memcube_version head;
    struct memcube_version target;
    struct memcube_step step;

    enum memos_status status = memcube_cube_read(&write->read, space, &item->id, &cube, err);
    if (status == MEMOS_OK) {
        status =
            memcube_version_load(&write->read, space, &cube, cube.row, arena, &head, err);
    }
    target = head;
    if (status == MEMOS_OK && back->row != 0) {
        status =
            memcube_version_load(&write->read, space, &cube, back->row, arena, &target, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    memcube_step_repeat(&step, &cube, &head, &target, MEMCUBE_OP_ROLLBACK, changing->change);
    step.version.equals = item->to;
    if (item->to == 0) {
        step.version.state = MEMCUBE_STATE_WITHDRAWN;
    }
    status = memcube_changing_step(changing, &step, err);
    item->made = step.version.number;
    return status;
}

static enum memos_status apply_all(struct rolling *rolling, const struct memcube_change *change,
    struct memcube_outcome *out, struct memos_error *err)
{
    struct memcube_write *write = rolling->write;
    struct memcube_changing changing;
    struct memos_arena arena;

    if (rolling->steps_count == 0) {
        return memcube_changing_none(write, change, NULL, 0, out, err);
    }
    enum memos_status status = memcube_changing_begin(
        &changing, write, change, MEMCUBE_OP_ROLLBACK, rolling->steps_count, err);
    if (status != MEMOS_OK) {
        return status;
    }
    changing.rollback_to = rolling->seq + 1;
    memos_arena_init(&arena, write->scratch.size_max);
    for (size_t i = 0; status == MEMOS_OK && i < rolling->steps_count; i++) {
        memos_arena_reset(&arena);
        status = step_back(&changing, rolling, &rolling->steps[i], &arena, err);
    }
    memos_arena_finish(&arena);
    if (status == MEMOS_OK) {
        status = memcube_changing_end(&changing, NULL, 0, out, err);
    }
    if (status != MEMOS_OK) {
        write->broken = true;
    }
    return status;
}

enum memos_status memcube_rollback(struct memcube_write *write,
    const struct memcube_change *change, const struct memcube_rollback *rollback,
    struct memcube_outcome *out, struct memcube_rollback_item **out_items, size_t *out_items_count,
    struct memos_error *err)
{
    struct memcube_space_state *state = NULL;
    bool repeated = false;

    *out_items = NULL;
    *out_items_count = 0;
    enum memos_status status =
        memcube_change_enter(write, change, &state, out, &repeated, err);
    if (status != MEMOS_OK || repeated) {
        return status;
    }
    if (!state) {
        return memcube_space_missing(change->space, err);
    }
    struct rolling rolling = {
        .write = write, .space = &state->space, .rollback = rollback };
    status = plan_all(&rolling, err);
    if (status == MEMOS_OK && rollback->dry_run) {
        *out = (struct memcube_outcome){
            .head = state->space.head, .time_us = state->space.changed_us };
    } else if (status == MEMOS_OK) {
        status = apply_all(&rolling, change, out, err);
    }
    if (status == MEMOS_OK) {
        *out_items = rolling.items;
        *out_items_count = rolling.items_count;
    }
    return status;
}
