/* The log: reading it, and finding the record that a point in time means. */
#include "memcube/store_internal.h"

static enum memos_status log_decode(struct memcube_read *read, const struct memcube_space *space,
    uint64_t seq, struct memos_bytes value, struct memcube_log_record *out,
    struct memos_error *err)
{
    struct memos_id space_id;

    if (read->write) {
        value.data = memos_arena_copy(&read->arena, value);
        if (!value.data) {
            return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a log record");
        }
    }
    const enum memos_status status = memcube_log_decode(value, &read->arena, &space_id, out, err);
    if (status != MEMOS_OK) {
        return status;
    }
    if (out->seq != seq || !memos_id_equal(&space_id, &space->id)) {
        return memos_fail(err, MEMOS_CORRUPT,
            "record %llu of space %.*s is another record", (unsigned long long)seq,
            (int)space->name.size, (const char *)space->name.data);
    }
    return MEMOS_OK;
}

enum memos_status memcube_log_time(struct memcube_read *read, const struct memcube_space *space,
    uint64_t seq, int64_t *out_us, struct memos_error *err)
{
    const struct memcube_key key = memcube_key_of_u64(space->number, seq);
    struct memcube_log_record record;
    struct memos_bytes value;

    enum memos_status status =
        memcube_get(read->txn, read->store->tables.log, memcube_key_view(&key), &value, err);
    if (status == MEMOS_NOT_FOUND) {
        return memos_fail(err, MEMOS_CORRUPT, "record %llu of space %.*s is missing",
            (unsigned long long)seq, (int)space->name.size, (const char *)space->name.data);
    }
    if (status == MEMOS_OK) {
        status = log_decode(read, space, seq, value, &record, err);
    }
    if (status == MEMOS_OK) {
        *out_us = record.time_us;
    }
    return status;
}

enum memos_status memcube_as_of_seq(struct memcube_read *read, const struct memcube_space *space,
    const struct memcube_as_of *as_of, uint64_t *out_seq, struct memos_error *err)
{
    if (!as_of || (as_of->seq == 0 && as_of->time_us == 0)) {
        *out_seq = space->seq;
        return MEMOS_OK;
    }
    if (as_of->seq != 0) {
        *out_seq = as_of->seq < space->seq ? as_of->seq : space->seq;
        return MEMOS_OK;
    }
    /* Times never step back along the log: the last record that is not later. */
    uint64_t low = 0;
    uint64_t high = space->seq;
    if (as_of->time_us >= space->changed_us) {
        low = high;
    }
    while (low < high) {
        const uint64_t middle = low + (high - low + 1) / 2;
        int64_t time_us = 0;
        const enum memos_status status = memcube_log_time(read, space, middle, &time_us, err);
        if (status != MEMOS_OK) {
            return status;
        }
        if (time_us <= as_of->time_us) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    *out_seq = low;
    return MEMOS_OK;
}

enum memos_status memcube_log_read(struct memcube_read *read, const struct memcube_space *space,
    uint64_t from, bool newest_first, struct memcube_log_record *out, size_t count_max,
    size_t *out_count, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    uint64_t seq = from;
    size_t count = 0;

    if (newest_first && (from == 0 || from > space->seq)) {
        seq = space->seq;
    } else if (!newest_first && from == 0) {
        seq = 1;
    }
    while (status == MEMOS_OK && count < count_max && seq >= 1 && seq <= space->seq) {
        const struct memcube_key key = memcube_key_of_u64(space->number, seq);
        struct memos_bytes value;
        status =
            memcube_get(read->txn, read->store->tables.log, memcube_key_view(&key), &value, err);
        if (status == MEMOS_NOT_FOUND) {
            status = memos_fail(err, MEMOS_CORRUPT, "record %llu of space %.*s is missing",
                (unsigned long long)seq, (int)space->name.size, (const char *)space->name.data);
        }
        if (status == MEMOS_OK) {
            status = log_decode(read, space, seq, value, &out[count], err);
        }
        if (status == MEMOS_OK) {
            count++;
            seq = newest_first ? seq - 1 : seq + 1;
        }
    }
    *out_count = count;
    return status;
}
