/* What time brings: cubes whose time-to-live or validity has ended expire, in bounded steps.
 *
 * Table `expiry` is sorted by time, so a sweep looks only at what is due. */
#include "memcube/store_internal.h"

#include <stdlib.h>

#define SWEEP_AUTHOR "memos"

/* An entry of `expiry` that is due. */
struct due {
    int64_t time_us;
    uint32_t space;
    struct memos_id id;
};

static int due_compare(const void *a, const void *b)
{
    const struct due *x = a, *y = b;
    if (x->space != y->space) {
        return x->space < y->space ? -1 : 1;
    }
    return memcmp(x->id.bytes, y->id.bytes, sizeof x->id.bytes);
}

/* The entries up to now, at most count_max, sorted by space. */
static enum memos_status due_collect(struct memcube_write *write, int64_t now_us,
    size_t count_max, struct due *out, size_t *out_count, bool *out_more, struct memos_error *err)
{
    struct memcube_cursor *cursor = NULL;
    struct memos_bytes key, value;
    size_t count = 0;

    *out_more = false;
    enum memos_status status =
        memcube_cursor_open(write->read.txn, write->store->tables.expiry, &cursor, err);
    if (status != MEMOS_OK) {
        return status;
    }
    status = memcube_cursor_move(cursor, MEMCUBE_FIRST, &key, &value, err);
    for (; status == MEMOS_OK;
        status = memcube_cursor_move(cursor, MEMCUBE_NEXT, &key, &value, err)) {
        struct memos_reader r = memos_reader_of(key);
        struct due due = {
            .time_us = (int64_t)(memos_read_u64_be(&r) ^ (UINT64_C(1) << 63)),
            .space = memos_read_u32_be(&r),
        };
        memos_read_into(&r, due.id.bytes, sizeof due.id.bytes);
        if (!memos_reader_done(&r)) {
            status = memos_fail(err, MEMOS_CORRUPT, "an expiry entry is damaged");
            break;
        }
        if (due.time_us > now_us || count == count_max) {
            *out_more = due.time_us <= now_us;
            status = MEMOS_NOT_FOUND;
            break;
        }
        out[count++] = due;
    }
    memcube_cursor_close(&cursor);
    qsort(out, count, sizeof *out, due_compare);
    *out_count = count;
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

/* Is the entry that of the head, so that the head expires by it? Else it was left over. */
static bool due_holds(const struct due *due, const struct memcube_version *head)
{
    return memcube_expiry_of(head->state, &head->governance) == due->time_us;
}

static enum memos_status due_drop(
    struct memcube_write *write, const struct due *due, struct memos_error *err)
{
    struct memcube_key key = { .size = 0 };
    memcube_key_time(&key, due->time_us);
    memcube_key_u32(&key, due->space);
    memcube_key_bytes(&key, due->id.bytes, sizeof due->id.bytes);
    return memcube_delete(write->read.txn, write->store->tables.expiry, memcube_key_view(&key),
        memos_bytes_make(NULL, 0), err);
}

static struct memos_bytes due_reason(const struct due *due, const struct memcube_version *head)
{
    const struct memcube_governance *governance = &head->governance;
    const bool lived = governance->expires_us != 0 && governance->expires_us <= due->time_us;
    const bool held = governance->valid_to_us != 0 && governance->valid_to_us <= due->time_us;

    return memos_bytes_of(lived && held ? "its time-to-live and its validity have ended"
                          : lived       ? "its time-to-live has ended"
                                        : "its validity has ended");
}

static enum memos_status expire_one(struct memcube_changing *changing,
    const struct memcube_space *space, const struct due *due, struct memos_error *err)
{
    struct memcube_write *write = changing->write;
    struct memcube_cube cube;
    struct memcube_version head;
    struct memcube_step step;

    enum memos_status status =
        memcube_head_for_change(write, space, &due->id, true, &cube, &head, err);
    if (status == MEMOS_FORGOTTEN || (status == MEMOS_OK && !due_holds(due, &head))) {
        return due_drop(write, due, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    memcube_step_repeat(&step, &cube, &head, &head, MEMCUBE_OP_EXPIRE, changing->change);
    step.version.state = MEMCUBE_STATE_EXPIRED;
    step.version.reason = due_reason(due, &head);
    return memcube_changing_step(changing, &step, err);
}

/* All that is due in one space: one log record. */
static enum memos_status expire_space(struct memcube_write *write, const struct due *due,
    size_t count, struct memos_error *err)
{
    struct memcube_changing changing;
    struct memcube_outcome outcome;
    struct memcube_change change = {
        .author = memos_bytes_of(SWEEP_AUTHOR),
        .reason = memos_bytes_of("time-to-live or validity has ended"),
    };

    enum memos_status status =
        memcube_space_name(&write->read, due->space, &change.space, err);
    if (status == MEMOS_OK) {
        status = memcube_changing_begin(
            &changing, write, &change, MEMCUBE_OP_EXPIRE, count, err);
    }
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        status = expire_one(&changing, &changing.state->space, &due[i], err);
    }
    if (status == MEMOS_OK && changing.entries_count > 0) {
        status = memcube_changing_end(&changing, NULL, 0, &outcome, err);
    }
    return status;
}

enum memos_status memcube_sweep(struct memcube_write *write, size_t count_max, size_t *out_count,
    bool *out_more, struct memos_error *err)
{
    const int64_t now_us = write->store->clock.wall_us(write->store->clock.self);
    struct due *due = NULL;
    size_t count = 0, end = 0;
    bool more_due = false, more_idem = false;

    *out_count = 0;
    *out_more = false;
    due = memos_arena_take(&write->read.arena, count_max, sizeof *due);
    if (!due) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to sweep %zu cubes with", count_max);
    }
    enum memos_status status =
        due_collect(write, now_us, count_max, due, &count, &more_due, err);
    for (size_t begin = 0; begin < count && status == MEMOS_OK; begin = end) {
        for (end = begin; end < count && due[end].space == due[begin].space; end++) {
        }
        status = expire_space(write, &due[begin], end - begin, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_behaviours_flush(write, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_idem_sweep(write, now_us, count_max, &more_idem, err);
    }
    if (status != MEMOS_OK) {
        write->broken = true; /* some of it may be in the write */
        return status;
    }
    *out_count = count;
    *out_more = more_due || more_idem;
    return MEMOS_OK;
}
