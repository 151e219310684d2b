/* Idempotency keys: what the same author's same key gave within the last day.
 *
 * Two entries in table `idem`: "k", author's hash, key's hash, to the outcome; and "t", time, both
 * hashes, to nothing, so that old ones are found without a walk over all. */
#include "memcube/store_internal.h"

enum {
    HASH_BYTES = 16, /* of each: enough that nobody meets another's by accident */
    REF_BYTES = 20,
};
#define DAY_US (INT64_C(24) * 60 * 60 * 1000000)

static void idem_hashes(const struct memcube_change *change, uint8_t out[2 * HASH_BYTES])
{
    const struct memcube_hash author = memcube_hash_of(change->author);
    const struct memcube_hash key = memcube_hash_of(change->idempotency_key);

    memcpy(out, author.bytes, HASH_BYTES);
    memcpy(out + HASH_BYTES, key.bytes, HASH_BYTES);
}

static struct memcube_key idem_key(const uint8_t hashes[2 * HASH_BYTES])
{
    struct memcube_key key = { .size = 0 };
    memcube_key_u8(&key, 'k');
    memcube_key_bytes(&key, hashes, 2 * HASH_BYTES);
    return key;
}

static struct memcube_key idem_time_key(int64_t time_us, const uint8_t hashes[2 * HASH_BYTES])
{
    struct memcube_key key = { .size = 0 };
    memcube_key_u8(&key, 't');
    memcube_key_time(&key, time_us);
    memcube_key_bytes(&key, hashes, 2 * HASH_BYTES);
    return key;
}

static enum memos_status idem_decode(struct memcube_write *write, struct memos_bytes value,
    const struct memcube_change *change, struct memcube_outcome *out, struct memos_error *err)
{
    struct memos_arena *arena = &write->read.arena;
    struct memos_reader r = memos_reader_of(value);
    struct memcube_outcome outcome = { .repeated = true };

    const int64_t kept_us = (int64_t)memos_read_u64(&r);
    const struct memos_bytes space = memos_read_sized(&r, MEMCUBE_SPACE_BYTES_MAX);
    outcome.seq = memos_read_u64(&r);
    outcome.time_us = (int64_t)memos_read_u64(&r);
    memos_read_into(&r, outcome.head.bytes, sizeof outcome.head.bytes);
    outcome.refs_count = memos_read_u32(&r);
    outcome.affected_count = memos_read_u32(&r);
    if (r.failed || r.left / REF_BYTES < outcome.refs_count ||
        r.left != outcome.refs_count * REF_BYTES + outcome.affected_count * 16) {
        return memos_fail(err, MEMOS_CORRUPT, "the record of an idempotency key is damaged");
    }
    if (write->store->clock.wall_us(write->store->clock.self) - kept_us > DAY_US) {
        return MEMOS_NOT_FOUND;
    }
    if (!memos_bytes_equal(space, change->space)) {
        return memos_fail(err, MEMOS_CONFLICT,
            "this idempotency key was used for a change of another space");
    }
    outcome.refs = memos_arena_take(arena, outcome.refs_count, sizeof *outcome.refs);
    outcome.affected = memos_arena_take(arena, outcome.affected_count, sizeof *outcome.affected);
    if (!outcome.refs || !outcome.affected) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for an outcome");
    }
    for (size_t i = 0; i < outcome.refs_count; i++) {
        memos_read_into(&r, outcome.refs[i].id.bytes, sizeof outcome.refs[i].id.bytes);
        outcome.refs[i].number = memos_read_u32(&r);
    }
    for (size_t i = 0; i < outcome.affected_count; i++) {
        memos_read_into(&r, outcome.affected[i].bytes, sizeof outcome.affected[i].bytes);
    }
    *out = outcome;
    return MEMOS_OK;
}

enum memos_status memcube_idem_find(struct memcube_write *write,
    const struct memcube_change *change, struct memcube_outcome *out, struct memos_error *err)
{
    uint8_t hashes[2 * HASH_BYTES];
    struct memos_bytes value;

    if (change->idempotency_key.size == 0) {
        return MEMOS_NOT_FOUND;
    }
    idem_hashes(change, hashes);
    const struct memcube_key key = idem_key(hashes);
    const enum memos_status status = memcube_get(
        write->read.txn, write->store->tables.idem, memcube_key_view(&key), &value, err);
    return status == MEMOS_OK ? idem_decode(write, value, change, out, err) : status;
}

/* An entry whose day is over may still be there: its time entry goes with it. */
static enum memos_status idem_drop(struct memcube_write *write,
    const uint8_t hashes[2 * HASH_BYTES], struct memos_error *err)
{
    const struct memcube_key key = idem_key(hashes);
    const memcube_table table = write->store->tables.idem;
    struct memos_bytes value;

    enum memos_status status =
        memcube_get(write->read.txn, table, memcube_key_view(&key), &value, err);
    if (status == MEMOS_OK) {
        struct memos_reader r = memos_reader_of(value);
        const struct memcube_key time_key =
            idem_time_key((int64_t)memos_read_u64(&r), hashes);
        status = memcube_delete(write->read.txn, table, memcube_key_view(&time_key),
            memos_bytes_make(NULL, 0), err);
    }
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

enum memos_status memcube_idem_keep(struct memcube_write *write,
    const struct memcube_change *change, const struct memcube_outcome *outcome,
    struct memos_error *err)
{
    const memcube_table table = write->store->tables.idem;
    const int64_t now = write->store->clock.wall_us(write->store->clock.self);
    struct memos_buffer *value = &write->value;
    uint8_t hashes[2 * HASH_BYTES];

    if (change->idempotency_key.size == 0) {
        return MEMOS_OK;
    }
    idem_hashes(change, hashes);
    enum memos_status status = idem_drop(write, hashes, err);
    if (status != MEMOS_OK) {
        return status;
    }
    memos_buffer_reset(value);
    memos_buffer_u64(value, (uint64_t)now);
    memos_buffer_sized(value, change->space);
    memos_buffer_u64(value, outcome->seq);
    memos_buffer_u64(value, (uint64_t)outcome->time_us);
    memos_buffer_bytes(value, outcome->head.bytes, sizeof outcome->head.bytes);
    memos_buffer_u32(value, (uint32_t)outcome->refs_count);
    memos_buffer_u32(value, (uint32_t)outcome->affected_count);
    for (size_t i = 0; i < outcome->refs_count; i++) {
        memos_buffer_bytes(value, outcome->refs[i].id.bytes, sizeof outcome->refs[i].id.bytes);
        memos_buffer_u32(value, outcome->refs[i].number);
    }
    for (size_t i = 0; i < outcome->affected_count; i++) {
        memos_buffer_bytes(value, outcome->affected[i].bytes, sizeof outcome->affected[i].bytes);
    }
    if (value->failed) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for an outcome");
    }
    const struct memcube_key key = idem_key(hashes);
    const struct memcube_key time_key = idem_time_key(now, hashes);
    status = memcube_put(
        write->read.txn, table, memcube_key_view(&key), memos_buffer_view(value), err);
    if (status == MEMOS_OK) {
        status = memcube_put(write->read.txn, table, memcube_key_view(&time_key),
            memos_bytes_make("", 0), err);
    }
    return status;
}

/* One old key, with both its entries; *out_done when there is no more. */
static enum memos_status idem_sweep_one(
    struct memcube_write *write, int64_t now_us, bool *out_done, struct memos_error *err)
{
    const memcube_table table = write->store->tables.idem;
    struct memcube_cursor *cursor = NULL;
    struct memos_bytes key = memos_bytes_make("t", 1);
    struct memos_bytes value;
    struct memcube_key time_key = { .size = 0 };

    enum memos_status status = memcube_cursor_open(write->read.txn, table, &cursor, err);
    if (status == MEMOS_OK) {
        status = memcube_cursor_move(cursor, MEMCUBE_AT_OR_AFTER, &key, &value, err);
    }
    if (status == MEMOS_OK && key.size == 9 + 2 * HASH_BYTES) {
        memcube_key_bytes(&time_key, key.data, key.size);
    }
    memcube_cursor_close(&cursor);
    if (status != MEMOS_OK && status != MEMOS_NOT_FOUND) {
        return status;
    }
    struct memcube_key limit = { .size = 0 };
    memcube_key_u8(&limit, 't');
    memcube_key_time(&limit, now_us - DAY_US);
    if (time_key.size == 0 || memcmp(time_key.bytes, limit.bytes, limit.size) >= 0) {
        *out_done = true;
        return MEMOS_OK;
    }
    status = memcube_delete(write->read.txn, table, memcube_key_view(&time_key),
        memos_bytes_make(NULL, 0), err);
    if (status == MEMOS_OK) {
        const struct memcube_key outcome_key = idem_key(time_key.bytes + 9);
        status = memcube_delete(write->read.txn, table, memcube_key_view(&outcome_key),
            memos_bytes_make(NULL, 0), err);
    }
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

enum memos_status memcube_idem_sweep(struct memcube_write *write, int64_t now_us, size_t count_max,
    bool *out_more, struct memos_error *err)
{
    bool done = false;

    for (size_t i = 0; i < count_max && !done; i++) {
        const enum memos_status status = idem_sweep_one(write, now_us, &done, err);
        if (status != MEMOS_OK) {
            return status;
        }
    }
    *out_more = !done;
    return MEMOS_OK;
}
