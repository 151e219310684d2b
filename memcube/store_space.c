/* Spaces: their records, and the states in which a write keeps them until it commits. */
#include "memcube/store_internal.h"

#include <stdlib.h>

void memcube_space_encode(
    const struct memcube_space *space, uint64_t secret_slot, struct memos_buffer *out)
{
    memos_buffer_u32(out, space->number);
    memos_buffer_bytes(out, space->id.bytes, sizeof space->id.bytes);
    memos_buffer_u64(out, space->seq);
    memos_buffer_bytes(out, space->head.bytes, sizeof space->head.bytes);
    memos_buffer_u64(out, (uint64_t)space->created_us);
    memos_buffer_u64(out, (uint64_t)space->changed_us);
    memos_buffer_u64(out, space->cubes);
    memos_buffer_u64(out, space->versions);
    memos_buffer_u32(out, space->docs);
    memos_buffer_u64(out, space->payload_bytes);
    memos_buffer_u64(out, secret_slot);
}

enum memos_status memcube_space_decode(struct memcube_store *store, struct memos_bytes name,
    struct memos_bytes value, struct memcube_space *out, uint64_t *out_slot,
    struct memos_error *err)
{
    struct memos_reader r = memos_reader_of(value);
    struct memcube_space space = { .name = name };

    space.number = memos_read_u32(&r);
    memos_read_into(&r, space.id.bytes, sizeof space.id.bytes);
    space.seq = memos_read_u64(&r);
    memos_read_into(&r, space.head.bytes, sizeof space.head.bytes);
    space.created_us = (int64_t)memos_read_u64(&r);
    space.changed_us = (int64_t)memos_read_u64(&r);
    space.cubes = memos_read_u64(&r);
    space.versions = memos_read_u64(&r);
    space.docs = memos_read_u32(&r);
    space.payload_bytes = memos_read_u64(&r);
    const uint64_t slot = memos_read_u64(&r);
    if (!memos_reader_done(&r)) {
        return memos_fail(err, MEMOS_CORRUPT, "the record of space %.*s is damaged",
            (int)name.size, (const char *)name.data);
    }
    const enum memos_status status = memcube_vault_key(store->vault, slot, space.secret, err);
    if (status != MEMOS_OK) {
        return status;
    }
    *out = space;
    if (out_slot) {
        *out_slot = slot;
    }
    return MEMOS_OK;
}

enum memos_status memcube_space_missing(struct memos_bytes name, struct memos_error *err)
{
    return memos_fail(err, MEMOS_NOT_FOUND, "there is no space %.*s",
        (int)(name.size < MEMCUBE_SPACE_BYTES_MAX ? name.size : MEMCUBE_SPACE_BYTES_MAX),
        (const char *)name.data);
}

static struct memcube_space_state *state_cached(
    struct memcube_write *write, struct memos_bytes name)
{
    struct memcube_space_state *state = write->spaces;
    while (state && !memos_bytes_equal(state->space.name, name)) {
        state = state->next;
    }
    return state;
}

enum memos_status memcube_space_find(struct memcube_read *read, struct memos_bytes name,
    struct memcube_space *out, struct memos_error *err)
{
    struct memos_bytes value;

    if (name.size == 0 || name.size > MEMCUBE_SPACE_BYTES_MAX) {
        return memcube_space_missing(name, err);
    }
    if (read->write) {
        struct memcube_space_state *state = NULL;
        const enum memos_status status =
            memcube_space_state_find(read->write, name, &state, err);
        if (status == MEMOS_OK) {
            *out = state->space;
        }
        return status;
    }
    const enum memos_status status =
        memcube_get(read->txn, read->store->tables.space, name, &value, err);
    if (status == MEMOS_NOT_FOUND) {
        return memcube_space_missing(name, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    void *copy = memos_arena_copy(&read->arena, name);
    if (!copy) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a space's name");
    }
    return memcube_space_decode(
        read->store, memos_bytes_make(copy, name.size), value, out, NULL, err);
}

/* The list is short and rare, so it reads the table; a write puts what it keeps there first. */
enum memos_status memcube_space_list(struct memcube_read *read, struct memos_bytes after,
    struct memcube_space *out, size_t count_max, size_t *out_count, struct memos_error *err)
{
    struct memcube_cursor *cursor = NULL;
    struct memos_bytes key = after;
    struct memos_bytes value;
    size_t count = 0;

    enum memos_status status =
        read->write ? memcube_spaces_flush(read->write, err) : MEMOS_OK;
    if (status == MEMOS_OK) {
        status = memcube_cursor_open(read->txn, read->store->tables.space, &cursor, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_cursor_move(cursor,
            after.size > 0 ? MEMCUBE_AT_OR_AFTER : MEMCUBE_FIRST, &key, &value, err);
    }
    if (status == MEMOS_OK && after.size > 0 && memos_bytes_equal(key, after)) {
        status = memcube_cursor_move(cursor, MEMCUBE_NEXT, &key, &value, err);
    }
    while (status == MEMOS_OK && count < count_max) {
        void *copy = memos_arena_copy(&read->arena, key);
        if (!copy) {
            status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for a space's name");
            break;
        }
        status = memcube_space_decode(read->store, memos_bytes_make(copy, key.size), value,
            &out[count], NULL, err);
        if (status == MEMOS_OK) {
            count++;
            status = memcube_cursor_move(cursor, MEMCUBE_NEXT, &key, &value, err);
        }
    }
    memcube_cursor_close(&cursor);
    *out_count = count;
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

enum memos_status memcube_space_name(struct memcube_read *read, uint32_t number,
    struct memos_bytes *out_name, struct memos_error *err)
{
    const struct memcube_key key = memcube_key_of(number);
    struct memos_bytes name;

    const enum memos_status status = memcube_get(
        read->txn, read->store->tables.number, memcube_key_view(&key), &name, err);
    if (status != MEMOS_OK) {
        return status;
    }
    void *copy = memos_arena_copy(&read->arena, name);
    if (!copy) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a space's name");
    }
    *out_name = memos_bytes_make(copy, name.size);
    return MEMOS_OK;
}

/* ---- states of a write --------------------------------------------------------------------- */

static struct memcube_space_state *state_new(
    struct memcube_write *write, struct memos_bytes name)
{
    struct memcube_space_state *state =
        memos_arena_take(&write->read.arena, 1, sizeof *state);
    if (!state) {
        return NULL;
    }
    memset(state, 0, sizeof *state);
    memcpy(state->name, name.data, name.size);
    state->space.name = memos_bytes_make(state->name, name.size);
    return state;
}

static void state_link(struct memcube_write *write, struct memcube_space_state *state)
{
    state->next = write->spaces;
    write->spaces = state;
}

enum memos_status memcube_space_state_find(struct memcube_write *write, struct memos_bytes name,
    struct memcube_space_state **out, struct memos_error *err)
{
    struct memos_bytes value;

    if (name.size == 0 || name.size > MEMCUBE_SPACE_BYTES_MAX) {
        return memcube_space_missing(name, err);
    }
    *out = state_cached(write, name);
    if (*out) {
        return MEMOS_OK;
    }
    enum memos_status status =
        memcube_get(write->read.txn, write->store->tables.space, name, &value, err);
    if (status != MEMOS_OK) {
        return status == MEMOS_NOT_FOUND ? memcube_space_missing(name, err) : status;
    }
    struct memcube_space_state *state = state_new(write, name);
    if (!state) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a space");
    }
    status = memcube_space_decode(write->store, state->space.name, value, &state->space,
        &state->secret_slot, err);
    if (status == MEMOS_OK) {
        state_link(write, state);
        *out = state;
    }
    return status;
}

static enum memos_status space_number_take(
    struct memcube_write *write, uint32_t *out_number, struct memos_error *err)
{
    if (write->space_next == 0) {
        struct memos_bytes value;
        const enum memos_status status = memcube_get(write->read.txn, write->store->tables.meta,
            memos_bytes_of("space_next"), &value, err);
        if (status != MEMOS_OK) {
            return status;
        }
        struct memos_reader r = memos_reader_of(value);
        write->space_next = memos_read_u32(&r);
        if (!memos_reader_done(&r) || write->space_next == 0) {
            write->space_next = 0;
            return memos_fail(err, MEMOS_CORRUPT, "the number of the next space is damaged");
        }
    }
    if (write->space_next == UINT32_MAX) {
        return memos_fail(err, MEMOS_TOO_LARGE, "the store has all the spaces it can number");
    }
    *out_number = write->space_next++;
    write->space_dirty = true;
    return MEMOS_OK;
}

enum memos_status memcube_space_state_make(struct memcube_write *write, struct memos_bytes name,
    int64_t time_us, const struct memos_id *id, struct memcube_space_state **out,
    struct memos_error *err)
{
    struct memcube_store *store = write->store;
    struct memcube_space_state *state = state_new(write, name);

    if (!state) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a space");
    }
    state->space.id = id ? *id : memos_id_next(&store->ids, &store->clock);
    state->space.created_us = time_us;
    state->space.changed_us = time_us;
    state->dirty = true;
    enum memos_status status = space_number_take(write, &state->space.number, err);
    if (status == MEMOS_OK) {
        status = memcube_slot_take(write, &state->secret_slot, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_vault_key(store->vault, state->secret_slot, state->space.secret, err);
    }
    if (status == MEMOS_OK) {
        const struct memcube_key key = memcube_key_of(state->space.number);
        status = memcube_put(
            write->read.txn, store->tables.number, memcube_key_view(&key), name, err);
    }
    if (status == MEMOS_OK) {
        state_link(write, state);
        *out = state;
    }
    return status;
}

enum memos_status memcube_spaces_flush(struct memcube_write *write, struct memos_error *err)
{
    for (struct memcube_space_state *state = write->spaces; state; state = state->next) {
        if (!state->dirty) {
            continue;
        }
        memos_buffer_reset(&write->value);
        memcube_space_encode(&state->space, state->secret_slot, &write->value);
        if (write->value.failed) {
            return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a space's record");
        }
        const enum memos_status status = memcube_put(write->read.txn,
            write->store->tables.space, state->space.name, memos_buffer_view(&write->value), err);
        if (status != MEMOS_OK) {
            return status;
        }
        state->dirty = false;
    }
    return MEMOS_OK;
}
