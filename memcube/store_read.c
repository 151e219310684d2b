/* Reading: snapshots, cubes, versions, payloads. */
#include "memcube/store_internal.h"

#include <stdlib.h>
#include <sys/mman.h>

enum {
    READ_BYTES_MAX = 512 * 1024 * 1024, /* what one snapshot may hold in memory */
};

enum memos_status memcube_read_begin(
    struct memcube_store *store, struct memcube_read **out_read, struct memos_error *err)
{
    struct memcube_read *read = calloc(1, sizeof *read);
    if (!read) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a snapshot");
    }
    read->store = store;
    memos_arena_init(&read->arena, READ_BYTES_MAX);
    const enum memos_status status = memcube_txn_read(store->db, &read->txn, err);
    if (status != MEMOS_OK) {
        free(read);
        return status;
    }
    *out_read = read;
    return MEMOS_OK;
}

void memcube_read_end(struct memcube_read **read)
{
    if (!*read) {
        return;
    }
    memos_assert(!(*read)->write);
    memcube_maps_release(&(*read)->maps);
    memcube_txn_abort(&(*read)->txn);
    memos_arena_finish(&(*read)->arena);
    free(*read);
    *read = NULL;
}

/* The engine keeps ended transactions to renew them, so that ending and beginning one is cheap. */
enum memos_status memcube_read_renew(struct memcube_read *read, struct memos_error *err)
{
    memos_assert(!read->write);
    memcube_maps_release(&read->maps);
    memos_arena_reset(&read->arena);
    memcube_txn_abort(&read->txn);
    return memcube_txn_read(read->store->db, &read->txn, err);
}

struct memcube_txn *memcube_read_txn(struct memcube_read *read)
{
    return read->txn;
}

struct memos_arena *memcube_read_arena(struct memcube_read *read)
{
    return &read->arena;
}

static enum memos_status id_missing(
    const struct memos_id *id, uint32_t number, struct memos_error *err)
{
    char text[MEMOS_ID_TEXT_BYTES];

    memos_id_format(id, text);
    if (number != 0) {
        return memos_fail(err, MEMOS_NOT_FOUND, "there is no version %u of cube %s", number, text);
    }
    return memos_fail(err, MEMOS_NOT_FOUND, "there is no cube %s", text);
}

static enum memos_status id_damaged(
    const struct memos_id *id, const char *what, struct memos_error *err)
{
    char text[MEMOS_ID_TEXT_BYTES];
    return memos_fail(
        err, MEMOS_CORRUPT, "%s of cube %s is damaged", what, memos_id_format(id, text));
}

/* ---- cubes --------------------------------------------------------------------------------- */

enum memos_status memcube_cube_decode(const struct memos_id *id, struct memos_bytes value,
    struct memcube_cube *out, struct memos_error *err)
{
    struct memos_reader r = memos_reader_of(value);

    *out = (struct memcube_cube){ .id = *id };
    out->row = memos_read_u32(&r);
    out->number = memos_read_u32(&r);
    out->doc = memos_read_u32(&r);
    out->state = memos_read_u8(&r);
    out->flags = memos_read_u8(&r);
    out->slot = memos_read_u64(&r);
    if (!memos_reader_done(&r) || out->number == 0 || !memcube_state_text((int)out->state)) {
        return id_damaged(id, "the record", err);
    }
    return MEMOS_OK;
}

enum memos_status memcube_cube_read(struct memcube_read *read, uint32_t space,
    const struct memos_id *id, struct memcube_cube *out, struct memos_error *err)
{
    const struct memcube_key key = memcube_key_of_id(space, id);
    struct memos_bytes value;

    const enum memos_status status =
        memcube_get(read->txn, read->store->tables.cube, memcube_key_view(&key), &value, err);
    if (status != MEMOS_OK) {
        return status == MEMOS_NOT_FOUND ? id_missing(id, 0, err) : status;
    }
    return memcube_cube_decode(id, value, out, err);
}

void memcube_cube_encode(const struct memcube_cube *cube, struct memos_buffer *out)
{
    memos_buffer_u32(out, cube->row);
    memos_buffer_u32(out, cube->number);
    memos_buffer_u32(out, cube->doc);
    memos_buffer_u8(out, (uint8_t)cube->state);
    memos_buffer_u8(out, (uint8_t)cube->flags);
    memos_buffer_u64(out, cube->slot);
}

enum memos_status memcube_cube_write(struct memcube_write *write, uint32_t space,
    const struct memcube_cube *cube, struct memos_error *err)
{
    const struct memcube_key key = memcube_key_of_id(space, &cube->id);

    memos_buffer_reset(&write->value);
    memcube_cube_encode(cube, &write->value);
    if (write->value.failed) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a cube's record");
    }
    return memcube_put(write->read.txn, write->store->tables.cube, memcube_key_view(&key),
        memos_buffer_view(&write->value), err);
}

/* ---- rows ---------------------------------------------------------------------------------- */

enum memos_status memcube_row_decode(
    uint32_t row, struct memos_bytes value, struct memcube_row *out, struct memos_error *err)
{
    struct memos_reader r = memos_reader_of(value);

    out->place.slot = memos_read_u64(&r);
    out->doc = memos_read_u32(&r);
    out->seq = memos_read_u64(&r);
    out->header = memos_read_sized(&r, value.size);
    out->description = memos_read_sized(&r, value.size);
    if (!memos_reader_done(&r)) {
        return memos_fail(err, MEMOS_CORRUPT, "row %u is damaged", row);
    }
    return MEMOS_OK;
}

enum memos_status memcube_row_read(struct memcube_read *read, uint32_t space, uint32_t row,
    struct memos_arena *arena, struct memcube_row *out, struct memos_error *err)
{
    const struct memcube_key key = memcube_key_of_u32(space, row);
    struct memos_bytes value;

    const enum memos_status status =
        memcube_get(read->txn, read->store->tables.row, memcube_key_view(&key), &value, err);
    if (status == MEMOS_NOT_FOUND) {
        return memos_fail(err, MEMOS_NOT_FOUND, "there is no row %u", row);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    if (read->write) {
        value.data = memos_arena_copy(arena, value);
        if (!value.data) {
            return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a version");
        }
    }
    return memcube_row_decode(row, value, out, err);
}

uint64_t memcube_description_nonce(const struct memcube_hash *description_hash)
{
    struct memos_reader r =
        memos_reader_of(memos_bytes_make(description_hash->bytes, MEMCUBE_HASH_BYTES));
    return memos_read_u64(&r);
}

enum memos_status memcube_row_describe(struct memcube_read *read, const struct memcube_row *row,
    uint64_t slot, const struct memcube_version *header, struct memos_arena *arena,
    struct memos_bytes *out, struct memos_error *err)
{
    void *plain = memos_arena_take(arena, row->description.size, 1);
    if (!plain) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a description");
    }
    const enum memos_status status = memcube_vault_apply(read->store->vault, slot,
        memcube_description_nonce(&header->description_hash),
        row->description.data, plain, row->description.size, err);
    if (status == MEMOS_OK) {
        *out = memos_bytes_make(plain, row->description.size);
    }
    return status;
}

static enum memos_status row_header(const struct memcube_row *row, uint32_t number,
    struct memos_arena *arena, struct memcube_version *out, struct memos_error *err)
{
    const enum memos_status status = memcube_header_decode(row->header, arena, out, err);
    if (status == MEMOS_OK) {
        out->seq = row->seq;
        out->row = number;
        out->doc = row->doc;
        out->place = row->place.slot;
    }
    return status;
}

enum memos_status memcube_header_at_row(struct memcube_read *read, uint32_t space, uint32_t row,
    struct memos_arena *arena, struct memcube_version *out, struct memos_error *err)
{
    struct memcube_row stored;

    const enum memos_status status = memcube_row_read(read, space, row, arena, &stored, err);
    return status == MEMOS_OK ? row_header(&stored, row, arena, out, err) : status;
}

/* A reader whose snapshot is older than a forget finds the key destroyed: then the cube is as
 * forgotten as it is for everybody else. */
enum memos_status memcube_version_load(struct memcube_read *read, uint32_t space,
    const struct memcube_cube *cube, uint32_t row, struct memos_arena *arena,
    struct memcube_version *out, struct memos_error *err)
{
    struct memcube_row stored;
    struct memos_bytes plain;
    bool forgotten = cube->state == MEMCUBE_STATE_FORGOTTEN;

    enum memos_status status = memcube_row_read(read, space, row, arena, &stored, err);
    if (status == MEMOS_OK) {
        status = row_header(&stored, row, arena, out, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    if (!memos_id_equal(&out->id, &cube->id)) {
        return id_damaged(&cube->id, "a row", err);
    }
    if (!forgotten) {
        status = memcube_row_describe(read, &stored, cube->slot, out, arena, &plain, err);
        if (status == MEMOS_OK) {
            status = memcube_description_decode(plain, arena, &out->description, err);
        }
        forgotten = status == MEMOS_FORGOTTEN;
    }
    if (forgotten) {
        out->state = MEMCUBE_STATE_FORGOTTEN;
        return MEMOS_OK;
    }
    out->stale = row == cube->row && (cube->flags & MEMCUBE_CUBE_STALE) != 0;
    return status;
}

/* ---- chain --------------------------------------------------------------------------------- */

enum memos_status memcube_chain_read(struct memcube_read *read, uint32_t space,
    const struct memos_id *id, uint32_t number, uint32_t *out_row, uint64_t *out_seq,
    struct memos_error *err)
{
    struct memcube_key key = memcube_key_of_id(space, id);
    struct memos_bytes value;

    memcube_key_u32(&key, number);
    const enum memos_status status =
        memcube_get(read->txn, read->store->tables.chain, memcube_key_view(&key), &value, err);
    if (status != MEMOS_OK) {
        return status == MEMOS_NOT_FOUND ? id_missing(id, number, err) : status;
    }
    struct memos_reader r = memos_reader_of(value);
    *out_row = memos_read_u32(&r);
    *out_seq = memos_read_u64(&r);
    return memos_reader_done(&r) ? MEMOS_OK : id_damaged(id, "the chain", err);
}

enum memos_status memcube_chain_as_of(struct memcube_read *read, uint32_t space,
    const struct memcube_cube *cube, uint64_t seq, uint32_t *out_number, uint32_t *out_row,
    struct memos_error *err)
{
    uint32_t low = 0; /* the highest number known to be old enough */
    uint32_t low_row = 0;
    uint32_t high = cube->number; /* no number above it can be */

    while (low < high) {
        /* The head first: most cubes have not changed since. */
        const uint32_t middle = high == cube->number ? high : low + (high - low + 1) / 2;
        uint32_t row = 0;
        uint64_t made = 0;
        const enum memos_status status =
            memcube_chain_read(read, space, &cube->id, middle, &row, &made, err);
        if (status != MEMOS_OK) {
            return status;
        }
        if (made <= seq) {
            low = middle;
            low_row = row;
        } else {
            high = middle - 1;
        }
    }
    if (low == 0) {
        return id_missing(&cube->id, 0, err);
    }
    *out_number = low;
    *out_row = low_row;
    return MEMOS_OK;
}

/* ---- versions ------------------------------------------------------------------------------ */

static bool as_of_is_now(const struct memcube_as_of *as_of)
{
    return !as_of || (as_of->seq == 0 && as_of->time_us == 0);
}

enum memos_status memcube_version_get(struct memcube_read *read,
    const struct memcube_space *space, const struct memos_id *id, uint32_t number,
    const struct memcube_as_of *as_of, struct memcube_version *out, struct memos_error *err)
{
    struct memcube_cube cube = { 0 };
    uint64_t seq = 0;

    enum memos_status status = memcube_cube_read(read, space->number, id, &cube, err);
    uint32_t row = cube.row;
    if (status == MEMOS_OK && number != 0 && number != cube.number) {
        status = memcube_chain_read(read, space->number, id, number, &row, &seq, err);
    } else if (status == MEMOS_OK && number == 0 && !as_of_is_now(as_of)) {
        status = memcube_as_of_seq(read, space, as_of, &seq, err);
        if (status == MEMOS_OK) {
            uint32_t found = 0;
            status = memcube_chain_as_of(read, space->number, &cube, seq, &found, &row, err);
        }
    }
    if (status == MEMOS_OK) {
        status = memcube_version_load(
            read, space->number, &cube, row, &read->arena, out, err);
    }
    if (status == MEMOS_OK && number == 0 && out->state == MEMCUBE_STATE_WITHDRAWN) {
        return id_missing(id, 0, err);
    }
    return status;
}

enum memos_status memcube_version_at_row(struct memcube_read *read,
    const struct memcube_space *space, uint32_t row, struct memcube_version *out,
    struct memos_error *err)
{
    struct memcube_cube cube;
    struct memcube_version header;

    enum memos_status status =
        memcube_header_at_row(read, space->number, row, &read->arena, &header, err);
    if (status == MEMOS_OK) {
        status = memcube_cube_read(read, space->number, &header.id, &cube, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_version_load(
            read, space->number, &cube, row, &read->arena, out, err);
    }
    return status;
}

enum memos_status memcube_history(struct memcube_read *read, const struct memcube_space *space,
    const struct memos_id *id, uint32_t from, struct memcube_version *out, size_t count_max,
    size_t *out_count, struct memos_error *err)
{
    struct memcube_cube cube;
    size_t count = 0;

    enum memos_status status = memcube_cube_read(read, space->number, id, &cube, err);
    for (uint32_t number = from ? from : 1;
         status == MEMOS_OK && count < count_max && number <= cube.number; number++) {
        uint32_t row = 0;
        uint64_t seq = 0;
        status = memcube_chain_read(read, space->number, id, number, &row, &seq, err);
        if (status == MEMOS_OK) {
            status = memcube_version_load(
                read, space->number, &cube, row, &read->arena, &out[count], err);
        }
        if (status == MEMOS_OK) {
            count++;
        }
    }
    *out_count = count;
    return status;
}

/* ---- payloads ------------------------------------------------------------------------------ */

static enum memos_status forgotten(const struct memos_id *id, struct memos_error *err)
{
    char text[MEMOS_ID_TEXT_BYTES];
    return memos_fail(
        err, MEMOS_FORGOTTEN, "cube %s was forgotten", memos_id_format(id, text));
}

enum memos_status memcube_payload_get(struct memcube_read *read,
    const struct memcube_space *space, const struct memcube_version *version, bool verify,
    struct memos_bytes *out, struct memos_error *err)
{
    const struct memcube_place place = { .slot = version->place };

    if (version->state == MEMCUBE_STATE_FORGOTTEN) {
        return forgotten(&version->id, err);
    }
    return memcube_payload_read(read->store->payloads, read->txn, space->number, place,
        &version->payload_hash, version->payload_bytes, verify, &read->arena, &read->maps, out,
        err);
}

bool memcube_payload_take(struct memcube_read *read, struct memos_bytes bytes)
{
    return memcube_maps_take(&read->maps, bytes.data);
}

void memcube_payload_unmap(struct memos_bytes bytes)
{
    (void)munmap((void *)(uintptr_t)bytes.data, bytes.size);
}

enum memos_status memcube_payload_path(struct memcube_read *read,
    const struct memcube_space *space, const struct memcube_version *version,
    struct memos_bytes *out_path, struct memos_error *err)
{
    const struct memcube_place place = { .slot = version->place };

    if (version->state == MEMCUBE_STATE_FORGOTTEN) {
        return forgotten(&version->id, err);
    }
    return memcube_payload_file(read->store->payloads, space->number, place,
        &version->payload_hash, &read->arena, out_path, err);
}

/* ---- names --------------------------------------------------------------------------------- */

enum memos_status memcube_external_cube(struct memcube_read *read,
    const struct memcube_space *space, struct memos_bytes external_id, struct memos_id *out,
    struct memos_error *err)
{
    const struct memcube_key key = memcube_external_key(space, external_id);
    struct memos_bytes value;

    const enum memos_status status = memcube_get(
        read->txn, read->store->tables.external, memcube_key_view(&key), &value, err);
    if (status == MEMOS_OK && value.size != sizeof out->bytes) {
        return memos_fail(err, MEMOS_CORRUPT, "the entry of an external id is damaged");
    }
    if (status == MEMOS_OK) {
        memcpy(out->bytes, value.data, sizeof out->bytes);
    }
    return status;
}

enum memos_status memcube_external_find(struct memcube_read *read,
    const struct memcube_space *space, struct memos_bytes external_id, struct memos_id *out,
    struct memos_error *err)
{
    struct memcube_cube cube;
    struct memos_id id = { .bytes = { 0 } };

    enum memos_status status = memcube_external_cube(read, space, external_id, &id, err);
    if (status == MEMOS_OK) {
        status = memcube_cube_read(read, space->number, &id, &cube, err);
    }
    if (status == MEMOS_NOT_FOUND ||
        (status == MEMOS_OK && cube.state == MEMCUBE_STATE_WITHDRAWN)) {
        return memos_fail(err, MEMOS_NOT_FOUND, "no cube has this external id");
    }
    if (status == MEMOS_OK) {
        *out = id;
    }
    return status;
}

static int digit_of(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Hex digits to the beginning of an id; -1 for anything else. Dashes are skipped. */
static int prefix_digits(struct memos_bytes prefix, uint8_t digits[32])
{
    const char *text = prefix.data;
    int count = 0;

    for (size_t i = 0; i < prefix.size; i++) {
        if (text[i] == '-') {
            continue;
        }
        const int digit = digit_of(text[i]);
        if (digit < 0 || count == 32) {
            return -1;
        }
        digits[count++] = (uint8_t)digit;
    }
    return count;
}

static bool id_begins(const uint8_t *id, const uint8_t digits[32], int count)
{
    for (int i = 0; i < count; i++) {
        const uint8_t digit = i % 2 == 0 ? id[i / 2] >> 4 : id[i / 2] & 15;
        if (digit != digits[i]) {
            return false;
        }
    }
    return true;
}

/* Look at the keys from the prefix on: one that matches is the answer, unless a second does. */
static enum memos_status id_scan(struct memcube_cursor *cursor, uint32_t space,
    const uint8_t digits[32], int count, struct memos_id *out, struct memos_error *err)
{
    const struct memcube_key prefix = memcube_key_of(space);
    struct memcube_key first = prefix;
    struct memos_bytes value;
    int found = 0;

    for (int i = 0; i < 32; i += 2) {
        const uint8_t high = i < count ? digits[i] : 0;
        const uint8_t low = i + 1 < count ? digits[i + 1] : 0;
        memcube_key_u8(&first, (uint8_t)(high << 4 | low));
    }
    struct memos_bytes key = memcube_key_view(&first);
    enum memos_status status =
        memcube_cursor_move(cursor, MEMCUBE_AT_OR_AFTER, &key, &value, err);
    while (status == MEMOS_OK && memcube_key_begins(key, &prefix) &&
           key.size == prefix.size + sizeof out->bytes) {
        const uint8_t *id = (const uint8_t *)key.data + prefix.size;
        if (!id_begins(id, digits, count)) {
            break;
        }
        if (++found > 1) {
            return memos_fail(err, MEMOS_CONFLICT, "several cubes begin with these digits");
        }
        memcpy(out->bytes, id, sizeof out->bytes);
        status = memcube_cursor_move(cursor, MEMCUBE_NEXT, &key, &value, err);
    }
    if (status != MEMOS_OK && status != MEMOS_NOT_FOUND) {
        return status;
    }
    return found == 1 ? MEMOS_OK
                      : memos_fail(err, MEMOS_NOT_FOUND, "no cube begins with these digits");
}

enum memos_status memcube_id_complete(struct memcube_read *read,
    const struct memcube_space *space, struct memos_bytes prefix, struct memos_id *out,
    struct memos_error *err)
{
    struct memcube_cursor *cursor = NULL;
    uint8_t digits[32] = { 0 };
    struct memos_id id = { .bytes = { 0 } };

    const int count = prefix_digits(prefix, digits);
    if (count < 1) {
        return memos_fail(err, MEMOS_INVALID, "%.*s is not the beginning of an id",
            (int)(prefix.size < 64 ? prefix.size : 64), (const char *)prefix.data);
    }
    enum memos_status status =
        memcube_cursor_open(read->txn, read->store->tables.cube, &cursor, err);
    if (status == MEMOS_OK) {
        status = id_scan(cursor, space->number, digits, count, &id, err);
    }
    memcube_cursor_close(&cursor);
    if (status == MEMOS_OK) {
        *out = id;
    }
    return status;
}
