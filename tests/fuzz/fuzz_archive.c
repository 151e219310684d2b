/* Archives come from outside: whatever the bytes are, the check must end with a status, and must
 * not read a byte beyond them.
 *
 * Every frame carries the hash of its content, which no fuzzer guesses. So the bytes are checked
 * twice: as they are, and with the hashes set right wherever the frames can be walked, so that
 * what lies behind the hashes is reached, too. */
#include "memcube/archive_format.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RECORD_PREVIOUS_AT 34 /* in a log record's bytes: memcube/README.md */
#define END_WHOLE_AT 72       /* in the closing frame */

static void mend_frame(uint8_t *data, const struct memcube_archive_frame *frame, size_t end,
    struct memcube_hash *head)
{
    uint8_t *content = data + frame->offset + MEMCUBE_ARCHIVE_FRAME_BYTES;
    size_t size = frame->content.size;

    if (frame->type == MEMCUBE_ARCHIVE_RECORD && size >= RECORD_PREVIOUS_AT + sizeof *head) {
        memcpy(content + RECORD_PREVIOUS_AT, head, sizeof *head);
        *head = memcube_hash_of(memos_bytes_make(content, size));
    }
    if (frame->type == MEMCUBE_ARCHIVE_END && size == END_WHOLE_AT + sizeof *head) {
        struct memcube_hash whole = memcube_hash_of(memos_bytes_make(data, frame->offset));
        memcpy(content + 8, head, sizeof *head);
        memcpy(content + END_WHOLE_AT, &whole, sizeof whole);
    }
    struct memcube_hash hash = memcube_hash_of(memos_bytes_make(content, end - frame->offset -
                                                                    MEMCUBE_ARCHIVE_FRAME_BYTES));
    memcpy(content - sizeof hash, &hash, sizeof hash);
}

static void check(struct memos_bytes bytes)
{
    struct memcube_archive_summary summary;
    struct memos_error err;
    enum memos_status status = memcube_archive_check(bytes, &summary, &err);
    if (status == MEMOS_OK) {
        memos_assert(summary.bytes == bytes.size);
    } else {
        memos_assert(err.status == status && err.text[0] != '\0');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct memos_error err;
    struct memcube_archive_frame frame;
    struct memcube_hash head = { 0 };

    check(memos_bytes_make(data, size));

    uint8_t *mended = malloc(size ? size : 1);
    if (!mended || size < MEMCUBE_ARCHIVE_START_BYTES) {
        free(mended);
        return 0;
    }
    memcpy(mended, data, size);
    struct memos_bytes bytes = memos_bytes_make(mended, size);
    size_t at = MEMCUBE_ARCHIVE_START_BYTES;
    while (at < size && memcube_archive_frame_read(bytes, &at, &frame, &err) == MEMOS_OK) {
        mend_frame(mended, &frame, at, &head);
    }
    check(bytes);
    free(mended);
    return 0;
}
