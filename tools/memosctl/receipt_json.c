/* Receipts as JSON, out and in. What comes in is anybody's. */
#include "tools/memosctl/import_json.h"
#include "tools/memosctl/receipt.h"

#include <string.h>

const char *ctl_used_name(uint32_t used_as)
{
    static const char *const names[] = {
        [CTL_USED_TEXT] = "text",
        [CTL_USED_CAPTURE] = "kv",
        [CTL_USED_IN_CAPTURE] = "text-in-kv",
        [CTL_USED_INDEPENDENT] = "kv-independent",
    };
    return used_as > 0 && used_as < sizeof names / sizeof names[0] ? names[used_as] : "unknown";
}

static uint32_t used_of(const char *name)
{
    uint32_t used = CTL_USED_TEXT;
    while (used <= CTL_USED_INDEPENDENT && strcmp(ctl_used_name(used), name) != 0) {
        used++;
    }
    return used <= CTL_USED_INDEPENDENT ? used : 0;
}

/* ---- out ------------------------------------------------------------------------------------ */

static json_t *item_json(const Memos__ReceiptItem *item)
{
    const ProtobufCBinaryData none = {0};
    return json_pack("{so,sI,so,ss,sI,sI,sI,sI,sf,so,sb}", "id",
        ctl_json_id(item->ref ? item->ref->id : none), "version",
        (json_int_t)(item->ref ? item->ref->number : 0), "payload_hash",
        ctl_json_hex(item->payload_hash), "used_as", ctl_used_name(item->used_as), "first_token",
        (json_int_t)item->first_token, "tokens", (json_int_t)item->tokens, "bytes",
        (json_int_t)item->bytes, "micros", (json_int_t)item->micros, "score", (double)item->score,
        "mark", ctl_json_string(item->mark), "approximate", (int)item->approximate);
}

json_t *ctl_receipt_json(const Memos__Receipt *receipt)
{
    json_t *items = json_array(), *notes = json_array();
    for (size_t i = 0; i < receipt->n_items; i++) {
        (void)json_array_append_new(items, item_json(receipt->items[i]));
    }
    for (size_t i = 0; i < receipt->n_notes; i++) {
        (void)json_array_append_new(notes, ctl_json_string(receipt->notes[i]));
    }
    return json_pack("{so,so,sI,so,so,so,so,so,so,so,so,so,so}", "id", ctl_json_id(receipt->id),
        "space", ctl_json_string(receipt->space), "seq", (json_int_t)receipt->seq, "head",
        ctl_json_hex(receipt->head), "time", ctl_json_time(receipt->time_us), "principal",
        ctl_json_string(receipt->principal), "model", ctl_json_string(receipt->model),
        "fingerprint", ctl_json_hex(receipt->fingerprint), "prompt_hash",
        ctl_json_hex(receipt->prompt_hash), "answer_hash", ctl_json_hex(receipt->answer_hash),
        "worker", ctl_json_string(receipt->worker), "items", items, "notes", notes);
}

/* ---- in ------------------------------------------------------------------------------------- */

/* Fields of one object; the first that is wrong is remembered. */
struct fields {
    const json_t *object;
    struct memos_arena *arena;
    const char *wrong; /* the name of one that is not as it has to be */
};

static char *take_text(struct fields *fields, const char *name)
{
    const json_t *value = json_object_get(fields->object, name);
    char *text = NULL;
    if (json_is_string(value) && strlen(json_string_value(value)) == json_string_length(value)) {
        text = memos_arena_copy(fields->arena, memos_bytes_of(json_string_value(value)));
    }
    fields->wrong = text || fields->wrong ? fields->wrong : name;
    return text ? text : ctl_field("");
}

static uint64_t take_number(struct fields *fields, const char *name, uint64_t max)
{
    const json_t *value = json_object_get(fields->object, name);
    json_int_t number = json_is_integer(value) ? json_integer_value(value) : -1;
    bool is_good = number >= 0 && (uint64_t)number <= max;
    fields->wrong = is_good || fields->wrong ? fields->wrong : name;
    return is_good ? (uint64_t)number : 0;
}

static ProtobufCBinaryData take_hex(struct fields *fields, const char *name)
{
    const char *text = take_text(fields, name);
    size_t size = strlen(text) / 2, got = 0;
    uint8_t *bytes = memos_arena_take(fields->arena, size + 1, 1);
    bool is_good = bytes && (size == 0 ? text[0] == '\0' : ctl_hex_parse(text, bytes, size, &got));
    fields->wrong = is_good || fields->wrong ? fields->wrong : name;
    return (ProtobufCBinaryData){is_good ? size : 0, bytes};
}

static ProtobufCBinaryData take_id(struct fields *fields, const char *name)
{
    struct memos_id *id = memos_arena_take(fields->arena, 1, sizeof *id);
    const char *text = take_text(fields, name);
    bool is_good = id && memos_id_parse(memos_bytes_of(text), id, NULL) == MEMOS_OK;
    fields->wrong = is_good || fields->wrong ? fields->wrong : name;
    return is_good ? ctl_id_field(id) : (ProtobufCBinaryData){0};
}

static void take_item(struct fields *fields, Memos__ReceiptItem *out, Memos__Ref *ref)
{
    memos__receipt_item__init(out);
    memos__ref__init(ref);
    out->ref = ref;
    ref->id = take_id(fields, "id");
    ref->number = (uint32_t)take_number(fields, "version", UINT32_MAX);
    out->payload_hash = take_hex(fields, "payload_hash");
    out->used_as = used_of(take_text(fields, "used_as"));
    fields->wrong = out->used_as != 0 || fields->wrong ? fields->wrong : "used_as";
    out->first_token = (uint32_t)take_number(fields, "first_token", UINT32_MAX);
    out->tokens = (uint32_t)take_number(fields, "tokens", UINT32_MAX);
    out->bytes = take_number(fields, "bytes", INT64_MAX);
    out->micros = take_number(fields, "micros", INT64_MAX);
    out->score = (float)json_number_value(json_object_get(fields->object, "score"));
    out->mark = take_text(fields, "mark");
    out->approximate = json_is_true(json_object_get(fields->object, "approximate"));
}

static enum memos_status take_items(
    const json_t *items, struct memos_arena *arena, Memos__Receipt *out, struct memos_error *err)
{
    size_t count = json_array_size(items);
    if (!json_is_array(items) || count > CTL_RECEIPT_ITEMS_MAX) {
        return memos_fail(err, MEMOS_INVALID,
            "this is no receipt: \"items\" is no array of at "
            "most %d",
            CTL_RECEIPT_ITEMS_MAX);
    }
    Memos__ReceiptItem *made = memos_arena_take(arena, count + 1, sizeof *made);
    Memos__Ref *refs = memos_arena_take(arena, count + 1, sizeof *refs);
    out->items = memos_arena_take(arena, count + 1, sizeof *out->items);
    if (!made || !refs || !out->items) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu items", count);
    }
    for (size_t i = 0; i < count; i++) {
        struct fields fields = {.object = json_array_get(items, i), .arena = arena};
        take_item(&fields, &made[i], &refs[i]);
        out->items[out->n_items++] = &made[i];
        if (fields.wrong) {
            return memos_fail(err, MEMOS_INVALID,
                "this is no receipt: item %zu has no \"%s\" as it should be", i + 1, fields.wrong);
        }
    }
    return MEMOS_OK;
}

static enum memos_status take_notes(
    const json_t *notes, struct memos_arena *arena, Memos__Receipt *out, struct memos_error *err)
{
    size_t count = json_array_size(notes);
    out->notes = memos_arena_take(arena, count + 1, sizeof *out->notes);
    for (size_t i = 0; out->notes && i < count; i++) {
        const char *text = json_string_value(json_array_get(notes, i));
        out->notes[i] = memos_arena_copy(arena, memos_bytes_of(text));
        if (!out->notes[i]) {
            out->notes = NULL;
            break;
        }
        out->n_notes = i + 1;
    }
    return out->notes ? MEMOS_OK
                      : memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu notes", count);
}

static enum memos_status take_receipt(
    const json_t *object, struct memos_arena *arena, Memos__Receipt *out, struct memos_error *err)
{
    struct fields fields = {.object = object, .arena = arena};
    memos__receipt__init(out);
    out->id = take_id(&fields, "id");
    out->space = take_text(&fields, "space");
    out->seq = take_number(&fields, "seq", INT64_MAX);
    out->head = take_hex(&fields, "head");
    out->principal = take_text(&fields, "principal");
    out->model = take_text(&fields, "model");
    out->fingerprint = take_hex(&fields, "fingerprint");
    out->prompt_hash = take_hex(&fields, "prompt_hash");
    out->answer_hash = take_hex(&fields, "answer_hash");
    out->worker = take_text(&fields, "worker");
    const char *time = take_text(&fields, "time");
    if (!fields.wrong &&
        memos_time_parse(memos_bytes_of(time), 0, &out->time_us, NULL) != MEMOS_OK) {
        fields.wrong = "time";
    }
    if (fields.wrong) {
        return memos_fail(err, MEMOS_INVALID,
            "this is no receipt: it has no \"%s\" as it should be", fields.wrong);
    }
    enum memos_status status = take_items(json_object_get(object, "items"), arena, out, err);
    return status == MEMOS_OK ? take_notes(json_object_get(object, "notes"), arena, out, err)
                              : status;
}

enum memos_status ctl_receipt_parse(struct memos_bytes text, struct memos_arena *arena,
    Memos__Receipt **out, struct memos_error *err)
{
    json_t *json = NULL;
    enum memos_status status = ctl_import_json_parse(text, &json, err);
    Memos__Receipt *receipt = memos_arena_take(arena, 1, sizeof *receipt);
    if (status == MEMOS_OK && !receipt) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for a receipt");
    }
    if (status == MEMOS_OK) {
        const json_t *inner = json_object_get(json, "receipt");
        status = take_receipt(json_is_object(inner) ? inner : json, arena, receipt, err);
    }
    json_decref(json);
    if (status == MEMOS_OK) {
        *out = receipt;
    }
    return status;
}
