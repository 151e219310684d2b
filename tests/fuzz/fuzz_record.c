/* Headers, descriptions and log records come out of archives and damaged files.
 *
 * Input: one byte that says which (0 header, 1 description, 2 log record), then its bytes. What a
 * decoder accepts must encode to the same bytes again: two encodings of one value would let two
 * histories that say the same have different hashes. */
#include "memcube/record.h"

#define MEMORY_BYTES ((size_t)1 << 20)
#define SALT_AT 1 /* in a description, behind the format's number */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum memos_status decode(unsigned which, struct memos_bytes bytes, struct memos_arena *arena,
    struct memos_buffer *again, struct memos_error *err)
{
    struct memcube_version version;
    struct memcube_description description;
    struct memcube_log_record record;
    struct memos_id space;
    enum memos_status status;

    switch (which) {
    case 0:
        status = memcube_header_decode(bytes, arena, &version, err);
        if (status == MEMOS_OK) {
            memcube_header_encode(&version, again);
        }
        return status;
    case 1:
        status = memcube_description_decode(bytes, arena, &description, err);
        if (status == MEMOS_OK) {
            memos_assert(memcube_description_check(&description, err) != MEMOS_TOO_LARGE);
            memcube_description_encode(&description, (const uint8_t *)bytes.data + SALT_AT, again);
        }
        return status;
    default:
        status = memcube_log_decode(bytes, arena, &space, &record, err);
        if (status == MEMOS_OK) {
            memcube_log_encode(&space, &record, again);
        }
        return status;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct memos_error err = {0};
    struct memos_arena arena;
    struct memos_buffer again = memos_buffer_make(MEMORY_BYTES);

    if (size == 0) {
        return 0;
    }
    memos_arena_init(&arena, MEMORY_BYTES);
    struct memos_bytes bytes = memos_bytes_make(data + 1, size - 1);
    enum memos_status status = decode(data[0] % 3, bytes, &arena, &again, &err);
    if (status == MEMOS_OK) {
        memos_assert(again.failed || memos_bytes_equal(bytes, memos_buffer_view(&again)));
    } else {
        memos_assert(status == MEMOS_CORRUPT || status == MEMOS_NO_MEMORY);
        memos_assert(err.status == status && err.text[0] != 0);
    }
    memos_buffer_free(&again);
    memos_arena_finish(&arena);
    return 0;
}
