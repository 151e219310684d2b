/* Receipts as JSON, out and in. What comes in is anybody's. */
#include "tools/memosctl/import_json.h"
#include "tools/memosctl/receipt.h"

#include <stdlib.h>

json_t *ctl_receipt_json(const Memos__Receipt *receipt)
{
    struct memos_buffer text = memos_buffer_make(CTL_RECEIPT_BYTES_MAX);
    json_t *json = NULL;
    if (worker_receipt_write(receipt, &text, NULL) == MEMOS_OK) {
        json = json_loadb((const char *)text.data, text.size, 0, NULL);
    }
    memos_buffer_free(&text);
    return json;
}

enum memos_status ctl_receipt_parse(struct memos_bytes text, struct memos_arena *arena,
    Memos__Receipt **out, struct memos_error *err)
{
    json_t *json = NULL;
    char *inner = NULL;
    enum memos_status status = ctl_import_json_parse(text, &json, err);
    if (status == MEMOS_OK && json_is_object(json_object_get(json, "receipt"))) {
        inner = json_dumps(json_object_get(json, "receipt"), JSON_COMPACT);
        status = inner ? MEMOS_OK : memos_fail(err, MEMOS_NO_MEMORY, "no memory for a receipt");
    }
    if (status == MEMOS_OK) {
        status = worker_receipt_read(inner ? memos_bytes_of(inner) : text, arena, out, err);
    }
    free(inner);
    json_decref(json);
    return status;
}
