#include "tools/memosctl/receipt.h"

#include "memcube/cube.h"

#include <string.h>

const char *ctl_receipt_verdict_name(enum ctl_receipt_verdict verdict)
{
    static const char *const names[] = {
        [CTL_RECEIPT_OK] = "ok",
        [CTL_RECEIPT_GONE] = "forgotten",
        [CTL_RECEIPT_WRONG] = "mismatch",
    };
    return names[verdict];
}

static __attribute__((format(printf, 3, 4))) void find(
    struct ctl_receipt_finding *out, enum ctl_receipt_verdict verdict, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(out->text, sizeof out->text, format, args);
    va_end(args);
    out->verdict = verdict;
}

/* ---- what the history says ------------------------------------------------------------------ */

/* One version of a cube without its payload. NOT_FOUND is an answer: *out is NULL then. */
static enum memos_status get_version(struct ctl *ctl, const Memos__Receipt *receipt,
    ProtobufCBinaryData id, uint32_t number, bool then, struct memos_message **out,
    struct memos_error *err)
{
    Memos__Get get = MEMOS__GET__INIT;
    Memos__AsOf as_of = MEMOS__AS_OF__INIT;
    Memos__Request request = CTL_REQUEST(GET, get, &get);
    get.space = receipt->space;
    get.ids = &id;
    get.n_ids = 1;
    get.number = number;
    get.no_payload = true;
    get.peek = true;
    as_of.seq = receipt->seq;
    get.as_of = then ? &as_of : NULL;
    *out = NULL;
    enum memos_status status = ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_CUBES, out, err);
    ctl->hint = status == MEMOS_NOT_FOUND ? NULL : ctl->hint;
    if (status == MEMOS_OK && memos_message_reply(*out)->cubes->n_cubes != 1) {
        memos_message_free(out);
        status = memos_fail(err, MEMOS_CORRUPT, "the broker did not give the one cube asked for");
    }
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

static const Memos__Cube *cube_of(const struct memos_message *reply)
{
    return memos_message_reply(reply)->cubes->cubes[0];
}

static bool is_same(ProtobufCBinaryData a, ProtobufCBinaryData b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

/* Is there such a version, with this payload? */
static enum memos_status check_version(struct ctl *ctl, const Memos__Receipt *receipt,
    const Memos__ReceiptItem *item, struct ctl_receipt_finding *out, struct memos_error *err)
{
    struct memos_message *reply = NULL;
    enum memos_status status =
        get_version(ctl, receipt, item->ref->id, item->ref->number, false, &reply, err);
    if (status == MEMOS_OK && !reply) {
        find(out, CTL_RECEIPT_WRONG, "the space has no version %u of it", item->ref->number);
    } else if (status == MEMOS_OK && !is_same(cube_of(reply)->payload_hash, item->payload_hash)) {
        find(out, CTL_RECEIPT_WRONG, "version %u has another payload", item->ref->number);
    }
    memos_message_free(&reply);
    return status;
}

/* Did it stand when the space was read? */
static enum memos_status check_standing(struct ctl *ctl, const Memos__Receipt *receipt,
    const Memos__ReceiptItem *item, struct ctl_receipt_finding *out, struct memos_error *err)
{
    struct memos_message *reply = NULL;
    enum memos_status status = get_version(ctl, receipt, item->ref->id, 0, true, &reply, err);
    const Memos__Cube *cube = reply ? cube_of(reply) : NULL;
    unsigned long long seq = receipt->seq;
    if (status == MEMOS_OK && !cube) {
        find(out, CTL_RECEIPT_WRONG, "it did not stand at record %llu", seq);
    } else if (status == MEMOS_OK && cube->number != item->ref->number) {
        find(out, CTL_RECEIPT_WRONG, "at record %llu version %u stood, not %u", seq, cube->number,
            item->ref->number);
    } else if (status == MEMOS_OK && cube->state > MEMCUBE_STATE_FROZEN &&
               cube->state != MEMCUBE_STATE_FORGOTTEN) { /* that is told of all its versions */
        find(out, CTL_RECEIPT_WRONG, "at record %llu it was %s", seq, ctl_state_name(cube->state));
    }
    memos_message_free(&reply);
    return status;
}

/* Has it been forgotten since? Then the history has its hash, and nobody its words. */
static enum memos_status check_gone(struct ctl *ctl, const Memos__Receipt *receipt,
    const Memos__ReceiptItem *item, struct ctl_receipt_finding *out, struct memos_error *err)
{
    struct memos_message *reply = NULL;
    enum memos_status status = get_version(ctl, receipt, item->ref->id, 0, false, &reply, err);
    if (status == MEMOS_OK && reply && cube_of(reply)->state == MEMCUBE_STATE_FORGOTTEN) {
        find(out, CTL_RECEIPT_GONE, "what it said was destroyed afterwards");
    }
    memos_message_free(&reply);
    return status;
}

static enum memos_status check_item(struct ctl *ctl, const Memos__Receipt *receipt,
    const Memos__ReceiptItem *item, struct ctl_receipt_finding *out, struct memos_error *err)
{
    if (!item->ref || item->ref->id.len != 16 || item->ref->number == 0) {
        find(out, CTL_RECEIPT_WRONG, "it names no version of a cube");
        return MEMOS_OK;
    }
    enum memos_status status = check_version(ctl, receipt, item, out, err);
    if (status == MEMOS_OK && out->verdict == CTL_RECEIPT_OK) {
        status = check_standing(ctl, receipt, item, out, err);
    }
    if (status == MEMOS_OK && out->verdict == CTL_RECEIPT_OK) {
        status = check_gone(ctl, receipt, item, out, err);
    }
    return status;
}

static enum memos_status check_record(struct ctl *ctl, const Memos__Receipt *receipt,
    struct ctl_receipt_finding *out, struct memos_error *err)
{
    struct memos_message *reply = NULL;
    Memos__Log body = MEMOS__LOG__INIT;
    Memos__Request request = CTL_REQUEST(LOG, log, &body);
    unsigned long long seq = receipt->seq;
    body.space = receipt->space;
    body.from = receipt->seq;
    body.count_max = 1;
    enum memos_status status =
        ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_LOG_RECORDS, &reply, err);
    if (status == MEMOS_NOT_FOUND) {
        ctl->hint = NULL;
        find(out, CTL_RECEIPT_WRONG, "there is no such space here");
        return MEMOS_OK;
    } else if (status != MEMOS_OK) {
        return status;
    }
    const Memos__LogRecords *records = memos_message_reply(reply)->log_records;
    if (records->n_records == 0 || records->records[0]->seq != receipt->seq) {
        find(out, CTL_RECEIPT_WRONG, "the history has no record %llu", seq);
    } else if (!is_same(records->records[0]->hash, receipt->head)) {
        find(out, CTL_RECEIPT_WRONG, "record %llu of the history has another hash", seq);
    }
    memos_message_free(&reply);
    return MEMOS_OK;
}

enum memos_status ctl_receipt_check(struct ctl *ctl, const Memos__Receipt *receipt,
    struct ctl_receipt_finding *out_record, struct ctl_receipt_finding **out_items,
    struct memos_error *err)
{
    struct ctl_receipt_finding *items =
        memos_arena_take(&ctl->arena, receipt->n_items + 1, sizeof *items);
    *out_record = (struct ctl_receipt_finding){0};
    *out_items = items;
    if (!items) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu findings", receipt->n_items);
    }
    /* a receipt of an answer without memory names no space, and there is nothing to hold it to */
    if (!receipt->space[0]) {
        find(out_record, receipt->n_items > 0 ? CTL_RECEIPT_WRONG : CTL_RECEIPT_OK,
            "it names no space");
    }
    enum memos_status status =
        receipt->space[0] ? check_record(ctl, receipt, out_record, err) : MEMOS_OK;
    for (size_t i = 0; i < receipt->n_items && status == MEMOS_OK; i++) {
        items[i] = (struct ctl_receipt_finding){0};
        status = check_item(ctl, receipt, receipt->items[i], &items[i], err);
        ctl_progress(ctl, "checked", i + 1, receipt->n_items);
    }
    return status;
}
