#include "memos/worker/receipt_json.h"

#include "proto/clock.h"
#include "proto/id.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { ITEMS_MAX = 4096, NOTES_MAX = 256, HEX_BYTES_MAX = 64, JSON_BYTES_MAX = 16 << 20 };

static const char *const used_texts[] = {
    [WORKER_USED_TEXT] = "text",
    [WORKER_USED_KV] = "kv",
    [WORKER_USED_TEXT_IN_KV] = "text-in-kv",
    [WORKER_USED_KV_APART] = "kv-independent",
};

const char *worker_used_as_text(uint32_t used_as)
{
    const size_t count = sizeof used_texts / sizeof used_texts[0];
    return used_as > 0 && used_as < count ? used_texts[used_as] : "?";
}

/* ---- writing --------------------------------------------------------------------------------- */

static json_t *hex_json(ProtobufCBinaryData data)
{
    static const char digits[] = "0123456789abcdef";
    char text[2 * HEX_BYTES_MAX + 1];
    size_t size = 0;
    if (data.len > HEX_BYTES_MAX) {
        return NULL;
    }
    for (size_t i = 0; i < data.len; i++) {
        text[size++] = digits[data.data[i] >> 4];
        text[size++] = digits[data.data[i] & 15];
    }
    return json_stringn(text, size);
}

static json_t *id_json(const Memos__Ref *ref)
{
    struct memos_id id;
    char text[MEMOS_ID_TEXT_BYTES];
    if (!ref || ref->id.len != sizeof id.bytes) {
        return NULL;
    }
    memcpy(id.bytes, ref->id.data, sizeof id.bytes);
    return json_string(memos_id_format(&id, text));
}

static json_t *item_json(const Memos__ReceiptItem *item)
{
    return json_pack("{so,sI,so,ss,sI,sI,sI,sI,sf,ss,sb}", "id", id_json(item->ref), "version",
        item->ref ? (json_int_t)item->ref->number : 0, "payload_hash", hex_json(item->payload_hash),
        "used_as", worker_used_as_text(item->used_as), "first_token", (json_int_t)item->first_token,
        "tokens", (json_int_t)item->tokens, "bytes", (json_int_t)item->bytes, "micros",
        (json_int_t)item->micros, "score", (double)item->score, "mark", item->mark, "approximate",
        item->approximate ? 1 : 0);
}

/* Steals `value`; false when it is NULL. */
static bool add(json_t *array, json_t *value)
{
    return array && value && json_array_append_new(array, value) == 0;
}

static json_t *receipt_json(const Memos__Receipt *receipt)
{
    char time[MEMOS_TIME_TEXT_BYTES];
    json_t *items = json_array(), *notes = json_array();
    bool good = items && notes;
    for (size_t i = 0; i < receipt->n_items && good; i++) {
        good = add(items, item_json(receipt->items[i]));
    }
    for (size_t i = 0; i < receipt->n_notes && good; i++) {
        good = add(notes, json_string(receipt->notes[i]));
    }
    if (!good) {
        json_decref(items);
        json_decref(notes);
        return NULL;
    }
    return json_pack("{so,ss,sI,so,ss,ss,ss,so,so,so,ss,so,so}", "id", hex_json(receipt->id),
        "space", receipt->space, "seq", (json_int_t)receipt->seq, "head", hex_json(receipt->head),
        "time", memos_time_format(receipt->time_us, time), "principal", receipt->principal, "model",
        receipt->model, "fingerprint", hex_json(receipt->fingerprint), "prompt_hash",
        hex_json(receipt->prompt_hash), "answer_hash", hex_json(receipt->answer_hash), "worker",
        receipt->worker, "items", items, "notes", notes);
}

enum memos_status worker_receipt_write(
    const Memos__Receipt *receipt, struct memos_buffer *out, struct memos_error *err)
{
    json_t *json = receipt_json(receipt);
    char *text = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(json);
    if (!text) {
        return memos_fail(err, MEMOS_INVALID, "the receipt cannot be written as JSON");
    }
    memos_buffer_bytes(out, text, strlen(text));
    free(text);
    return out->failed ? memos_fail(err, MEMOS_NO_MEMORY, "no memory for a receipt") : MEMOS_OK;
}

/* ---- reading --------------------------------------------------------------------------------- */

/* The first failure stays; after it nothing is read. */
struct reading {
    struct memos_arena *arena;
    struct memos_error *err;
    enum memos_status status;
};

static void refuse(struct reading *r, const char *key, const char *what)
{
    if (r->status == MEMOS_OK) {
        r->status = memos_fail(r->err, MEMOS_INVALID, "a receipt's \"%s\" is %s", key, what);
    }
}

static void *take(struct reading *r, size_t count, size_t size)
{
    void *memory = r->status == MEMOS_OK ? memos_arena_take(r->arena, count + 1, size) : NULL;
    if (!memory && r->status == MEMOS_OK) {
        r->status = memos_fail(r->err, MEMOS_NO_MEMORY, "no memory for a receipt");
    }
    return memory;
}

static char *text_read(struct reading *r, const json_t *object, const char *key, bool is_needed)
{
    const json_t *value = json_object_get(object, key);
    if (value && !json_is_string(value)) {
        refuse(r, key, "no text");
    } else if (!value && is_needed) {
        refuse(r, key, "not there");
    }
    const struct memos_bytes text =
        json_is_string(value)
            ? memos_bytes_make(json_string_value(value), json_string_length(value))
            : memos_bytes_make("", 0);
    if (r->status == MEMOS_OK && text.size > 0 && memchr(text.data, 0, text.size)) {
        refuse(r, key, "a text with a NUL");
    }
    char *out = take(r, text.size, 1);
    if (!out) {
        return (char *)(uintptr_t)protobuf_c_empty_string;
    }
    memcpy(out, text.data, text.size);
    out[text.size] = '\0';
    return out;
}

static uint64_t number_read(
    struct reading *r, const json_t *object, const char *key, uint64_t max, bool is_needed)
{
    const json_t *value = json_object_get(object, key);
    if (!value) {
        if (is_needed) {
            refuse(r, key, "not there");
        }
        return 0;
    }
    const json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < 0 || (uint64_t)number > max) {
        refuse(r, key, "no number in its range");
        return 0;
    }
    return (uint64_t)number;
}

static int digit_of(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* size: as many bytes, or none. */
static ProtobufCBinaryData hex_read(
    struct reading *r, const json_t *object, const char *key, size_t size)
{
    const char *text = text_read(r, object, key, false);
    const size_t digits = strlen(text);
    ProtobufCBinaryData out = {0};
    if (digits == 0) {
        return out;
    }
    uint8_t *bytes = take(r, size, 1);
    if (digits != 2 * size) {
        refuse(r, key, "of another length");
    }
    for (size_t i = 0; i < size && r->status == MEMOS_OK; i++) {
        const int high = digit_of(text[2 * i]), low = digit_of(text[2 * i + 1]);
        if (high < 0 || low < 0) {
            refuse(r, key, "not hexadecimal");
            break;
        }
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    if (r->status == MEMOS_OK) {
        out = (ProtobufCBinaryData){.len = size, .data = bytes};
    }
    return out;
}

static uint32_t used_read(struct reading *r, const json_t *object)
{
    const char *text = text_read(r, object, "used_as", true);
    for (uint32_t i = 1; i < sizeof used_texts / sizeof used_texts[0]; i++) {
        if (strcmp(text, used_texts[i]) == 0) {
            return i;
        }
    }
    refuse(r, "used_as", "no word that is known");
    return 0;
}

static Memos__Ref *ref_read(struct reading *r, const json_t *object)
{
    const char *text = text_read(r, object, "id", true);
    Memos__Ref *ref = take(r, 1, sizeof *ref);
    struct memos_id *id = take(r, 1, sizeof *id);
    if (!ref || !id) {
        return NULL;
    }
    if (memos_id_parse(memos_bytes_of(text), id, NULL) != MEMOS_OK) {
        refuse(r, "id", "no id");
        return NULL;
    }
    memos__ref__init(ref);
    ref->id = (ProtobufCBinaryData){.len = sizeof id->bytes, .data = id->bytes};
    ref->number = (uint32_t)number_read(r, object, "version", UINT32_MAX, true);
    return ref;
}

static Memos__ReceiptItem *item_read(struct reading *r, const json_t *object)
{
    Memos__ReceiptItem *item = take(r, 1, sizeof *item);
    if (!json_is_object(object)) {
        refuse(r, "items", "no array of objects");
    }
    if (!item || r->status != MEMOS_OK) {
        return NULL;
    }
    memos__receipt_item__init(item);
    item->ref = ref_read(r, object);
    item->payload_hash = hex_read(r, object, "payload_hash", 32);
    item->used_as = used_read(r, object);
    item->first_token = (uint32_t)number_read(r, object, "first_token", UINT32_MAX, false);
    item->tokens = (uint32_t)number_read(r, object, "tokens", UINT32_MAX, false);
    item->bytes = number_read(r, object, "bytes", INT64_MAX, false);
    item->micros = number_read(r, object, "micros", INT64_MAX, false);
    item->score = (float)json_number_value(json_object_get(object, "score"));
    item->mark = text_read(r, object, "mark", false);
    item->approximate = json_is_true(json_object_get(object, "approximate"));
    return item;
}

static const json_t *array_of(
    struct reading *r, const json_t *json, const char *key, size_t max, bool is_needed)
{
    const json_t *array = json_object_get(json, key);
    if ((array || is_needed) && (!json_is_array(array) || json_array_size(array) > max)) {
        refuse(r, key, "no array, or too long");
    }
    return array;
}

static void receipt_read(struct reading *r, const json_t *json, Memos__Receipt *out)
{
    memos__receipt__init(out);
    out->id = hex_read(r, json, "id", 16);
    out->space = text_read(r, json, "space", true);
    out->seq = number_read(r, json, "seq", INT64_MAX, true);
    out->head = hex_read(r, json, "head", 32);
    out->principal = text_read(r, json, "principal", false);
    out->model = text_read(r, json, "model", false);
    out->fingerprint = hex_read(r, json, "fingerprint", 32);
    out->prompt_hash = hex_read(r, json, "prompt_hash", 32);
    out->answer_hash = hex_read(r, json, "answer_hash", 32);
    out->worker = text_read(r, json, "worker", false);
    const char *time = text_read(r, json, "time", false);
    if (time[0] && memos_time_parse(memos_bytes_of(time), 0, &out->time_us, NULL) != MEMOS_OK) {
        refuse(r, "time", "no time");
    }
    const json_t *items = array_of(r, json, "items", ITEMS_MAX, true);
    const json_t *notes = array_of(r, json, "notes", NOTES_MAX, false);
    out->items = take(r, json_array_size(items), sizeof *out->items);
    out->notes = take(r, json_array_size(notes), sizeof *out->notes);
    for (size_t i = 0; i < json_array_size(items) && r->status == MEMOS_OK; i++) {
        out->items[out->n_items++] = item_read(r, json_array_get(items, i));
    }
    for (size_t i = 0; i < json_array_size(notes) && r->status == MEMOS_OK; i++) {
        const json_t *note = json_array_get(notes, i);
        const char *text = json_is_string(note) ? json_string_value(note) : NULL;
        out->notes[out->n_notes++] = text ? memos_arena_copy(r->arena, memos_bytes_of(text)) : NULL;
        if (!out->notes[out->n_notes - 1]) {
            refuse(r, "notes", "no array of texts");
        }
    }
}

enum memos_status worker_receipt_read(struct memos_bytes json, struct memos_arena *arena,
    Memos__Receipt **out, struct memos_error *err)
{
    struct reading r = {.arena = arena, .err = err};
    json_error_t why;
    *out = NULL;
    if (json.size == 0 || json.size > JSON_BYTES_MAX) {
        return memos_fail(err, MEMOS_INVALID, "a receipt of %zu bytes", json.size);
    }
    json_t *root = json_loadb(json.data, json.size, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(root)) {
        json_decref(root);
        return memos_fail(err, MEMOS_INVALID, "a receipt is no JSON object: %s", why.text);
    }
    Memos__Receipt *receipt = take(&r, 1, sizeof *receipt);
    if (receipt) {
        receipt_read(&r, root, receipt);
    }
    json_decref(root);
    if (r.status == MEMOS_OK) {
        *out = receipt;
    }
    return r.status;
}
