/* References: how many versions of a space name each payload, counted anew.
 *
 * Payloads are counted in passes, each over those whose hashes fall into one part, so that the
 * memory for counting is bounded however many there are. */
#include "memcube/fsck_internal.h"

#include "memcube/idmap.h"

#include <string.h>

#define PAYLOADS_A_PASS ((size_t)1 << 20)

/* The map's value: the row that named the payload first, and how many did. */
#define ROW_SHIFT 32

static enum memos_status no_cube(uint32_t row, struct memos_error *err)
{
    return memos_fail(
        err, MEMOS_CORRUPT, "row %lu is of a cube that is not there", (unsigned long)row);
}

static uint32_t part_of(const struct memcube_hash *hash, uint32_t parts)
{
    uint32_t number;
    memcpy(&number, hash->bytes + MEMCUBE_IDMAP_KEY_BYTES, sizeof number);
    return le32toh(number) % parts;
}

static enum memos_status row_count(struct memcube_fsck_space *f, uint32_t row_number,
    uint32_t part, uint32_t parts, struct memcube_idmap *counts, struct memos_error *err)
{
    struct memcube_version header;
    struct memcube_cube cube;
    uint64_t *count = NULL;

    memos_arena_reset(&f->row_arena);
    enum memos_status status = memcube_header_at_row(
        f->read, f->space.number, row_number, &f->row_arena, &header, err);
    if (status != MEMOS_OK || part_of(&header.payload_hash, parts) != part) {
        return status;
    }
    status = memcube_cube_read(f->read, f->space.number, &header.id, &cube, err);
    if (status != MEMOS_OK) {
        return status == MEMOS_NOT_FOUND ? no_cube(row_number, err) : status;
    }
    if (cube.state == MEMCUBE_STATE_FORGOTTEN) {
        return MEMOS_OK;
    }
    status = memcube_idmap_add(counts, header.payload_hash.bytes,
        (uint64_t)row_number << ROW_SHIFT, &count, err);
    if (status == MEMOS_OK) {
        (*count)++;
    }
    return status;
}

static enum memos_status payload_emit(
    struct memcube_fsck_space *f, uint64_t counted, struct memos_error *err)
{
    struct memcube_version header;
    struct memcube_row row;
    uint32_t number = (uint32_t)(counted >> ROW_SHIFT);

    memos_arena_reset(&f->row_arena);
    enum memos_status status =
        memcube_row_read(f->read, f->space.number, number, &f->row_arena, &row, err);
    if (status == MEMOS_OK) {
        status = memcube_header_decode(row.header, &f->row_arena, &header, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    struct memcube_key key = memcube_key_of(f->space.number);
    memcube_key_bytes(&key, header.payload_hash.bytes, sizeof header.payload_hash.bytes);
    const uint64_t value[3] = { htole64(counted & UINT32_MAX), htole64(row.place.slot),
        htole64(header.payload_bytes) };
    f->payloads++;
    f->payloads_inline += row.place.slot != 0;
    f->payload_bytes += header.payload_bytes;
    return f->emit.entry(f->emit.self, MEMCUBE_FSCK_REFS, memcube_key_view(&key),
        memos_bytes_make(value, sizeof value), err);
}

enum memos_status memcube_fsck_references(struct memcube_fsck_space *f, struct memos_error *err)
{
    struct memcube_idmap counts;
    struct memcube_idmap_slot slot;
    uint32_t parts = (uint32_t)(f->rows / PAYLOADS_A_PASS) + 1;
    enum memos_status status = MEMOS_OK;

    f->payloads = 0;
    f->payloads_inline = 0;
    f->payload_bytes = 0;
    memcube_idmap_init(&counts, SIZE_MAX);
    for (uint32_t part = 0; status == MEMOS_OK && part < parts; part++) {
        memcube_idmap_clear(&counts);
        for (uint32_t row = 1; status == MEMOS_OK && row <= f->rows; row++) {
            status = row_count(f, row, part, parts, &counts, err);
        }
        for (size_t at = 0; status == MEMOS_OK && memcube_idmap_next(&counts, &at, &slot);) {
            status = payload_emit(f, slot.value, err);
        }
    }
    memcube_idmap_finish(&counts);
    return status;
}
