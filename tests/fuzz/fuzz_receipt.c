/* Any bytes as a receipt: what is read can be written, and is then the same text for ever. */
#include "memos/worker/receipt_json.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct memos_buffer first = memos_buffer_make((size_t)1 << 24);
    struct memos_buffer second = memos_buffer_make((size_t)1 << 24);
    struct memos_arena arena;
    struct memos_error err;
    Memos__Receipt *receipt = NULL, *again = NULL;
    memos_arena_init(&arena, (size_t)1 << 24);
    if (worker_receipt_read(memos_bytes_make(data, size), &arena, &receipt, &err) == MEMOS_OK) {
        memos_assert(worker_receipt_write(receipt, &first, &err) == MEMOS_OK);
        memos_assert(
            worker_receipt_read(memos_buffer_view(&first), &arena, &again, &err) == MEMOS_OK);
        memos_assert(worker_receipt_write(again, &second, &err) == MEMOS_OK);
        memos_assert(memos_bytes_equal(memos_buffer_view(&first), memos_buffer_view(&second)));
    } else {
        memos_assert(receipt == NULL && err.text[0] != '\0');
    }
    memos_buffer_free(&first);
    memos_buffer_free(&second);
    memos_arena_finish(&arena);
    return 0;
}
