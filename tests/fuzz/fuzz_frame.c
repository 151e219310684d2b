/* Any sequence of frames against the check that every message passes first.
 *
 * Input: one byte (odd: with an identity), then frames, each a 16-bit length and as many bytes; the
 * last may be shorter than its length says. */
#include "proto/frame.h"

#include <string.h>

#define FRAMES_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct memos_reader r = memos_reader_of(memos_bytes_make(data, size));
    struct memos_bytes frames[FRAMES_MAX];
    struct memos_error err = { 0 };
    size_t count = 0;
    bool with_identity = memos_read_u8(&r) % 2 == 1;
    while (r.left >= 2 && count < FRAMES_MAX) {
        size_t length = memos_read_u16(&r);
        frames[count++] = memos_read_bytes(&r, length < r.left ? length : r.left);
    }
    enum memos_status status = memos_frames_check(frames, count, with_identity, &err);
    if (status == MEMOS_OK) {
        size_t head = with_identity ? 3 : 2;
        memos_assert(count >= head);
        memos_assert(frames[head - 1].size <= MEMOS_ENVELOPE_BYTES_MAX);
        memos_assert(memos_bytes_equal(frames[head - 2], memos_protocol_frame()));
        memos_assert(!with_identity || frames[0].size > 0);
    } else {
        memos_assert(err.status == status && err.text[0] != 0);
    }
    return 0;
}
