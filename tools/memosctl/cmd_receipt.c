/* Receipts: shown, and held against the history. */
#include "tools/memosctl/input.h"
#include "tools/memosctl/receipt.h"

#include <string.h>

/* ---- where it is ---------------------------------------------------------------------------- */

/* FILE, or SPACE ID of one that was kept. */
static enum memos_status read_receipt(
    struct ctl *ctl, Memos__Receipt **out, struct memos_error *err)
{
    struct memos_message *reply = NULL;
    struct memos_buffer file = memos_buffer_make(0);
    struct memos_bytes text = {0};
    struct memos_id id;
    bool is_kept = ctl->args->operands_count > 1;
    enum memos_status status;
    if (!is_kept) {
        status = ctl_file_read(ctl_operand(ctl, 0), CTL_RECEIPT_BYTES_MAX, &file, err);
        text = memos_buffer_view(&file);
        ctl->hint = status == MEMOS_NOT_FOUND
                        ? "a receipt is in a file, or kept in a space: give SPACE and ID"
                        : NULL;
    } else {
        status = ctl_id_resolve(ctl, ctl_operand(ctl, 0), ctl_operand(ctl, 1), &id, err);
    }
    if (is_kept && status == MEMOS_OK) {
        const ProtobufCBinaryData field = ctl_id_field(&id);
        Memos__Get get = MEMOS__GET__INIT;
        Memos__Request request = CTL_REQUEST(GET, get, &get);
        get.space = ctl_field(ctl_operand(ctl, 0));
        get.ids = (ProtobufCBinaryData *)(uintptr_t)&field;
        get.n_ids = 1;
        get.peek = true;
        status = ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_CUBES, &reply, err);
        if (status == MEMOS_OK && memos_message_reply(reply)->cubes->n_cubes == 1) {
            text = memos_message_frame(reply, memos_message_reply(reply)->cubes->cubes[0]->frame);
        }
    }
    if (status == MEMOS_OK) {
        status = ctl_receipt_parse(text, &ctl->arena, out, err);
        ctl->hint = status == MEMOS_INVALID
                        ? "`generate --receipt FILE` writes one, `--keep-receipt` keeps one"
                        : NULL;
    }
    memos_message_free(&reply);
    memos_buffer_free(&file);
    return status;
}

/* ---- shown ------------------------------------------------------------------------------------
 */

enum memos_status ctl_run_receipt_show(struct ctl *ctl, struct memos_error *err)
{
    Memos__Receipt *receipt = NULL;
    enum memos_status status = read_receipt(ctl, &receipt, err);
    if (status == MEMOS_OK && ctl->json) {
        status = ctl_json_print(ctl_receipt_json(receipt), err);
    } else if (status == MEMOS_OK) {
        status = ctl_receipt_print(ctl, receipt, NULL, err);
    }
    return status;
}

/* ---- verified ------------------------------------------------------------------------------- */

static json_t *finding_json(const struct ctl_receipt_finding *finding)
{
    return json_pack("{ss,so}", "verdict", ctl_receipt_verdict_name(finding->verdict), "why",
        ctl_json_string(finding->text));
}

static json_t *findings_json(const Memos__Receipt *receipt,
    const struct ctl_receipt_finding *record, const struct ctl_receipt_finding *items)
{
    json_t *array = json_array();
    for (size_t i = 0; i < receipt->n_items; i++) {
        const Memos__Ref *ref = receipt->items[i]->ref;
        json_t *object = finding_json(&items[i]);
        (void)json_object_set_new(object, "id", ctl_json_id(ref->id));
        (void)json_object_set_new(object, "version", json_integer((json_int_t)ref->number));
        (void)json_array_append_new(array, object);
    }
    return json_pack("{so,so,so}", "receipt", ctl_receipt_json(receipt), "record",
        finding_json(record), "items", array);
}

/* CORRUPT when something does not match, else FORGOTTEN when something is gone. */
static enum memos_status sum_up(struct ctl *ctl, const Memos__Receipt *receipt,
    const struct ctl_receipt_finding *record, const struct ctl_receipt_finding *items,
    struct memos_error *err)
{
    size_t counts[] = {0, 0, 0};
    for (size_t i = 0; i < receipt->n_items; i++) {
        counts[items[i].verdict]++;
    }
    if (record->verdict == CTL_RECEIPT_WRONG) {
        ctl->hint = "the receipt was changed, or is of another store; memosctl verify proves the "
                    "history itself";
        return memos_fail(err, MEMOS_CORRUPT, "the receipt does not match: %s", record->text);
    } else if (counts[CTL_RECEIPT_WRONG] > 0) {
        ctl->hint = "the receipt was changed, or is of another store; memosctl verify proves the "
                    "history itself";
        return memos_fail(err, MEMOS_CORRUPT, "%zu of %zu cubes do not match the history",
            counts[CTL_RECEIPT_WRONG], receipt->n_items);
    } else if (counts[CTL_RECEIPT_GONE] > 0) {
        ctl->hint = "the history still proves that they were there; their words are gone";
        return memos_fail(err, MEMOS_FORGOTTEN, "%zu of %zu cubes were forgotten since",
            counts[CTL_RECEIPT_GONE], receipt->n_items);
    }
    return MEMOS_OK;
}

enum memos_status ctl_run_receipt_verify(struct ctl *ctl, struct memos_error *err)
{
    Memos__Receipt *receipt = NULL;
    struct ctl_receipt_finding record, *items = NULL;
    enum memos_status status = read_receipt(ctl, &receipt, err);
    if (status == MEMOS_OK) {
        status = ctl_receipt_check(ctl, receipt, &record, &items, err);
        ctl_progress_end(ctl);
    }
    if (status == MEMOS_OK && ctl->json) {
        status = ctl_json_print(findings_json(receipt, &record, items), err);
    } else if (status == MEMOS_OK) {
        status = ctl_receipt_print(ctl, receipt, items, err);
    }
    if (status == MEMOS_OK) {
        status = sum_up(ctl, receipt, &record, items, err);
    }
    if (status == MEMOS_OK && !ctl->json) {
        printf("%sverified%s: %zu cube%s, and record %llu\n", ctl_style_on(&ctl->paper, CTL_GREEN),
            ctl_style_off(&ctl->paper), receipt->n_items, receipt->n_items == 1 ? "" : "s",
            (unsigned long long)receipt->seq);
    }
    return status;
}
