#include "tools/memosctl/json.h"

#include "memcube/cube.h"

#include <stdlib.h>
#include <string.h>

const char *ctl_kind_name(uint32_t kind)
{
    const char *text = kind <= INT32_MAX ? memcube_kind_text((int)kind) : NULL;
    return text ? text : "unknown";
}

const char *ctl_state_name(uint32_t state)
{
    const char *text = state <= INT32_MAX ? memcube_state_text((int)state) : NULL;
    return text ? text : "unknown";
}

const char *ctl_operation_name(uint32_t operation)
{
    const char *text = operation <= INT32_MAX ? memcube_operation_text((int)operation) : NULL;
    return text ? text : "unknown";
}

const char *ctl_sensitivity_name(uint32_t sensitivity)
{
    static const char *const names[] = {"normal", "public", "normal", "confidential", "secret"};
    return sensitivity < sizeof names / sizeof names[0] ? names[sensitivity] : "unknown";
}

void ctl_hex_append(struct memos_buffer *out, struct memos_bytes data)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < data.size; i++) {
        uint8_t byte = ((const uint8_t *)data.data)[i];
        memos_buffer_u8(out, (uint8_t)digits[byte >> 4]);
        memos_buffer_u8(out, (uint8_t)digits[byte & 15]);
    }
}

static int digit_of(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool ctl_hex_parse(const char *text, uint8_t *out, size_t size_max, size_t *out_size)
{
    size_t size = strlen(text);
    if (size % 2 != 0 || size / 2 > size_max) {
        return false;
    }
    for (size_t i = 0; i < size; i += 2) {
        int high = digit_of(text[i]), low = digit_of(text[i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        out[i / 2] = (uint8_t)(high << 4 | low);
    }
    *out_size = size / 2;
    return true;
}

/* ---- parts ---- */

/* Well-formed stretches as they are, U+FFFD for each byte between them. */
static json_t *text_repaired(struct memos_bytes text)
{
    struct memos_buffer repaired = memos_buffer_make(SIZE_MAX);
    const uint8_t *at = text.data;
    size_t left = text.size;
    while (left > 0) {
        size_t size = 1, most = left < 4 ? left : 4;
        while (size < most && !memos_bytes_utf8(memos_bytes_make(at, size))) {
            size++;
        }
        if (memos_bytes_utf8(memos_bytes_make(at, size))) {
            memos_buffer_bytes(&repaired, at, size);
        } else {
            size = 1;
            memos_buffer_bytes(&repaired, "\xef\xbf\xbd", 3);
        }
        at += size;
        left -= size;
    }
    json_t *json =
        repaired.failed ? NULL : json_stringn((const char *)repaired.data, repaired.size);
    memos_buffer_free(&repaired);
    return json;
}

json_t *ctl_json_text(struct memos_bytes text)
{
    if (text.size == 0) {
        return json_string("");
    }
    return memos_bytes_utf8(text) ? json_stringn(text.data, text.size) : text_repaired(text);
}

json_t *ctl_json_string(const char *text)
{
    return ctl_json_text(memos_bytes_of(text));
}

json_t *ctl_json_time(int64_t time_us)
{
    char text[MEMOS_TIME_TEXT_BYTES];
    return time_us == 0 ? json_null() : json_string(memos_time_format(time_us, text));
}

json_t *ctl_json_hex(ProtobufCBinaryData data)
{
    struct memos_buffer text = memos_buffer_make(SIZE_MAX);
    ctl_hex_append(&text, memos_bytes_make(data.data, data.len));
    json_t *json =
        text.failed ? NULL : json_stringn(text.data ? (const char *)text.data : "", text.size);
    memos_buffer_free(&text);
    return json;
}

json_t *ctl_json_id(ProtobufCBinaryData data)
{
    char text[MEMOS_ID_TEXT_BYTES];
    struct memos_id id;
    if (data.len != sizeof id.bytes) {
        return json_null();
    }
    memcpy(id.bytes, data.data, sizeof id.bytes);
    return json_string(memos_id_format(&id, text));
}

json_t *ctl_json_ids(const ProtobufCBinaryData *ids, size_t count)
{
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++) {
        json_array_append_new(array, ctl_json_id(ids[i]));
    }
    return array;
}

json_t *ctl_json_refs(Memos__Ref *const *refs, size_t count)
{
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++) {
        json_array_append_new(array, json_pack("{so,sI}", "id", ctl_json_id(refs[i]->id), "version",
                                         (json_int_t)refs[i]->number));
    }
    return array;
}

static json_t *strings_json(char *const *texts, size_t count)
{
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++) {
        json_array_append_new(array, ctl_json_string(texts[i]));
    }
    return array;
}

static json_t *sources_json(const Memos__Cube *cube)
{
    json_t *array = json_array();
    for (size_t i = 0; i < cube->n_sources; i++) {
        const Memos__Source *source = cube->sources[i];
        json_array_append_new(
            array, json_pack("{so,so,sI,sI}", "type", ctl_json_string(source->type), "uri",
                       ctl_json_string(source->uri), "offset", (json_int_t)source->offset, "length",
                       (json_int_t)source->length));
    }
    return array;
}

static json_t *attributes_json(const Memos__Cube *cube)
{
    json_t *object = json_object();
    for (size_t i = 0; i < cube->n_attributes; i++) {
        const Memos__Attribute *attribute = cube->attributes[i];
        /* refuses a name that is not UTF-8, which the broker takes from nobody */
        (void)json_object_set_new(object, attribute->name, ctl_json_string(attribute->value));
    }
    return object;
}

static json_t *base64_json(struct memos_bytes data)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *from = data.data;
    if (data.size > SIZE_MAX / 2) {
        return NULL;
    }
    size_t size = (data.size + 2) / 3 * 4;
    char *text = malloc(size + 1), *to = text;
    for (size_t i = 0; text && i < data.size; i += 3) {
        size_t left = data.size - i;
        uint32_t bits = (uint32_t)from[i] << 16 | (left > 1 ? (uint32_t)from[i + 1] << 8 : 0) |
                        (left > 2 ? from[i + 2] : 0);
        *to++ = digits[bits >> 18];
        *to++ = digits[bits >> 12 & 63];
        *to++ = left > 1 ? digits[bits >> 6 & 63] : '=';
        *to++ = left > 2 ? digits[bits & 63] : '=';
    }
    json_t *json = text ? json_stringn(text, size) : NULL;
    free(text);
    return json;
}

/* ---- messages ---- */

static void set_texts(json_t *object, const Memos__Cube *cube)
{
    const struct {
        const char *name, *text;
    } texts[] = {
        {"kind", ctl_kind_name(cube->kind)},
        {"subtype", cube->subtype},
        {"state", ctl_state_name(cube->state)},
        {"operation", ctl_operation_name(cube->operation)},
        {"author", cube->author},
        {"reason", cube->reason},
        {"codec", cube->codec},
        {"title", cube->title},
        {"language", cube->language},
        {"speaker", cube->speaker},
        {"external_id", cube->external_id},
        {"sensitivity", ctl_sensitivity_name(cube->sensitivity)},
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        json_object_set_new(object, texts[i].name, ctl_json_string(texts[i].text));
    }
}

static void set_numbers(json_t *object, const Memos__Cube *cube)
{
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"version", cube->number},
        {"parent", cube->parent},
        {"equals", cube->equals},
        {"seq", cube->seq},
        {"payload_bytes", cube->payload_bytes},
        {"priority", cube->priority},
        {"reads", cube->reads},
    };
    const struct {
        const char *name;
        int64_t time_us;
    } times[] = {
        {"time", cube->time_us},
        {"event_time", cube->event_us},
        {"valid_from", cube->valid_from_us},
        {"valid_to", cube->valid_to_us},
        {"expires", cube->expires_us},
        {"retain_until", cube->retain_until_us},
        {"last_read", cube->last_read_us},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        json_object_set_new(object, numbers[i].name, json_integer((json_int_t)numbers[i].value));
    }
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        json_object_set_new(object, times[i].name, ctl_json_time(times[i].time_us));
    }
}

json_t *ctl_json_cube(const Memos__Cube *cube, bool with_payload, struct memos_bytes payload)
{
    json_t *object = json_object();
    json_object_set_new(object, "id", ctl_json_id(cube->id));
    set_numbers(object, cube);
    set_texts(object, cube);
    json_object_set_new(object, "stale", json_boolean(cube->stale));
    json_object_set_new(object, "usefulness", json_real((double)cube->usefulness));
    json_object_set_new(
        object, "model", ctl_json_text(memos_bytes_make(cube->model.data, cube->model.len)));
    json_object_set_new(object, "payload_hash", ctl_json_hex(cube->payload_hash));
    json_object_set_new(
        object, "derived_from", ctl_json_refs(cube->derived_from, cube->n_derived_from));
    json_object_set_new(object, "tags", strings_json(cube->tags, cube->n_tags));
    json_object_set_new(object, "sources", sources_json(cube));
    json_object_set_new(object, "attributes", attributes_json(cube));
    json_object_set_new(object, "readers", strings_json(cube->readers, cube->n_readers));
    if (with_payload && memos_bytes_utf8(payload)) {
        json_object_set_new(object, "text", ctl_json_text(payload));
    } else if (with_payload) {
        json_object_set_new(object, "data", base64_json(payload));
    }
    return object;
}

static json_t *rollback_json(const Memos__Outcome *outcome)
{
    json_t *array = json_array();
    for (size_t i = 0; i < outcome->n_rollback; i++) {
        const Memos__RollbackItem *item = outcome->rollback[i];
        json_array_append_new(array,
            json_pack("{so,sI,sI,sI,ss}", "id", ctl_json_id(item->id), "from",
                (json_int_t)item->from, "to", (json_int_t)item->to, "made", (json_int_t)item->made,
                "status", memos_status_name((enum memos_status)item->status)));
    }
    return array;
}

json_t *ctl_json_outcome(const Memos__Outcome *outcome)
{
    return json_pack("{so,sI,so,so,so,so,sb,so,so,sI,sI,sb,so}", "space",
        ctl_json_string(outcome->space), "seq", (json_int_t)outcome->seq, "time",
        ctl_json_time(outcome->time_us), "head", ctl_json_hex(outcome->head), "cubes",
        ctl_json_refs(outcome->refs, outcome->n_refs), "affected",
        ctl_json_ids(outcome->affected, outcome->n_affected), "repeated",
        (int)outcome->repeated_request, "rollback", rollback_json(outcome), "forgotten",
        ctl_json_ids(outcome->forgotten, outcome->n_forgotten), "payloads_destroyed",
        (json_int_t)outcome->payloads_destroyed, "payloads_shared",
        (json_int_t)outcome->payloads_shared, "gone", (int)outcome->gone, "archive",
        outcome->archive ? ctl_json_summary(outcome->archive) : json_null());
}

json_t *ctl_json_record(const Memos__LogRecord *record)
{
    json_t *entries = json_array();
    for (size_t i = 0; i < record->n_entries; i++) {
        const Memos__LogEntry *entry = record->entries[i];
        json_array_append_new(
            entries, json_pack("{so,sI,so}", "id", ctl_json_id(entry->id), "version",
                         (json_int_t)entry->number, "hash", ctl_json_hex(entry->version_hash)));
    }
    json_t *back =
        record->rollback_to ? json_integer((json_int_t)record->rollback_to - 1) : json_null();
    return json_pack("{sI,so,ss,so,so,so,so,sI,so,so,so}", "seq", (json_int_t)record->seq, "time",
        ctl_json_time(record->time_us), "operation", ctl_operation_name(record->operation),
        "author", ctl_json_string(record->author), "reason", ctl_json_string(record->reason),
        "previous", ctl_json_hex(record->previous), "hash", ctl_json_hex(record->hash),
        "entries_total", (json_int_t)record->entries_total, "entries", entries, "affected",
        ctl_json_ids(record->affected, record->n_affected), "rollback_to", back);
}

json_t *ctl_json_summary(const Memos__ArchiveSummary *summary)
{
    return json_pack("{so,sb,sI,sI,sI,sI,sI,sI,sI,so}", "space_id", ctl_json_id(summary->space_id),
        "single_cube", (int)summary->single_cube, "records", (json_int_t)summary->records, "cubes",
        (json_int_t)summary->cubes, "versions", (json_int_t)summary->versions, "payloads",
        (json_int_t)summary->payloads, "bytes", (json_int_t)summary->bytes, "added",
        (json_int_t)summary->added, "seq", (json_int_t)summary->seq, "head",
        ctl_json_hex(summary->head));
}

json_t *ctl_json_checkpoint(const Memos__CheckpointInfo *checkpoint)
{
    return json_pack("{so,sI,so,so,sI,so,so}", "space_id", ctl_json_id(checkpoint->space_id), "seq",
        (json_int_t)checkpoint->seq, "head", ctl_json_hex(checkpoint->head), "time",
        ctl_json_time(checkpoint->time_us), "time_us", (json_int_t)checkpoint->time_us,
        "public_key", ctl_json_hex(checkpoint->public_key), "signature",
        ctl_json_hex(checkpoint->signature));
}

json_t *ctl_json_event(const Memos__Event *event)
{
    return json_pack("{so,sI,so,ss,so,so,sI,so}", "space", ctl_json_string(event->space), "seq",
        (json_int_t)event->seq, "time", ctl_json_time(event->time_us), "operation",
        ctl_operation_name(event->operation), "author", ctl_json_string(event->author), "cubes",
        ctl_json_refs(event->refs, event->n_refs), "cubes_total", (json_int_t)event->refs_total,
        "affected", ctl_json_ids(event->affected, event->n_affected));
}
