/* What the store gives, as messages of the schema. */
#include "memos/broker/convert.h"

#include <string.h>

enum { RECORD_ITEMS_MAX = 1000 };

static enum memos_status fail_full(struct memos_error *err)
{
    return memos_fail(err, MEMOS_TOO_LARGE, "the reply needs more memory than one may take");
}

enum memos_status broker_text_make(
    struct memos_arena *arena, struct memos_bytes text, char **out, struct memos_error *err)
{
    if (text.size == 0) {
        *out = (char *)protobuf_c_empty_string;
        return MEMOS_OK;
    }
    char *copy = memos_arena_copy(arena, text);
    if (!copy) {
        return fail_full(err);
    }
    *out = copy;
    return MEMOS_OK;
}

/* protobuf-c's bytes are not const, though it only reads them when it packs. */
static ProtobufCBinaryData binary_view(const void *data, size_t size)
{
    return (ProtobufCBinaryData){.len = size, .data = (uint8_t *)(uintptr_t)data};
}

static enum memos_status binary_make(struct memos_arena *arena, const void *data, size_t size,
    ProtobufCBinaryData *out, struct memos_error *err)
{
    void *copy = memos_arena_copy(arena, memos_bytes_make(data, size));
    *out = binary_view(copy, copy ? size : 0);
    return copy ? MEMOS_OK : fail_full(err);
}

enum memos_status broker_array_make(struct memos_arena *arena, size_t count, size_t item_bytes,
    void ***out_pointers, struct memos_error *err)
{
    void **pointers = memos_arena_take(arena, count, sizeof *pointers);
    char *items = memos_arena_take(arena, count, item_bytes);
    if (!pointers || !items) {
        return fail_full(err);
    }
    for (size_t i = 0; i < count; i++) {
        pointers[i] = items + i * item_bytes;
    }
    *out_pointers = pointers;
    return MEMOS_OK;
}

enum memos_status broker_ids_make(struct memos_arena *arena, const struct memos_id *ids,
    size_t count, ProtobufCBinaryData **out, struct memos_error *err)
{
    struct memos_id *copies = memos_arena_take(arena, count, sizeof *copies);
    *out = memos_arena_take(arena, count, sizeof **out);
    if (!copies || !*out) {
        return fail_full(err);
    }
    for (size_t i = 0; i < count; i++) {
        copies[i] = ids[i];
        (*out)[i] = binary_view(copies[i].bytes, sizeof copies[i].bytes);
    }
    return MEMOS_OK;
}

enum memos_status broker_refs_make(struct memos_arena *arena, const struct memcube_ref *refs,
    size_t count, Memos__Ref ***out, struct memos_error *err)
{
    struct memos_id *ids = memos_arena_take(arena, count, sizeof *ids);
    void **pointers = NULL;
    enum memos_status status = broker_array_make(arena, count, sizeof(Memos__Ref), &pointers, err);
    if (status != MEMOS_OK || !ids) {
        return fail_full(err);
    }
    for (size_t i = 0; i < count; i++) {
        Memos__Ref *ref = pointers[i];
        ids[i] = refs[i].id;
        memos__ref__init(ref);
        ref->id = binary_view(ids[i].bytes, sizeof ids[i].bytes);
        ref->number = refs[i].number;
    }
    *out = (Memos__Ref **)pointers;
    return MEMOS_OK;
}

static enum memos_status texts_make(struct memos_arena *arena, const struct memos_bytes *texts,
    size_t count, char ***out, size_t *out_count, struct memos_error *err)
{
    char **copies = count ? memos_arena_take(arena, count, sizeof *copies) : NULL;
    enum memos_status status = count && !copies ? fail_full(err) : MEMOS_OK;
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        status = broker_text_make(arena, texts[i], &copies[i], err);
    }
    if (status == MEMOS_OK) {
        *out = copies;
        *out_count = count;
    }
    return status;
}

static enum memos_status sources_make(struct memos_arena *arena,
    const struct memcube_description *from, Memos__Cube *out, struct memos_error *err)
{
    void **pointers = NULL;
    enum memos_status status =
        broker_array_make(arena, from->sources_count, sizeof(Memos__Source), &pointers, err);
    for (size_t i = 0; i < from->sources_count && status == MEMOS_OK; i++) {
        Memos__Source *source = pointers[i];
        memos__source__init(source);
        source->offset = from->sources[i].offset;
        source->length = from->sources[i].length;
        status = broker_text_make(arena, from->sources[i].type, &source->type, err);
        if (status == MEMOS_OK) {
            status = broker_text_make(arena, from->sources[i].uri, &source->uri, err);
        }
    }
    if (status == MEMOS_OK) {
        out->sources = (Memos__Source **)pointers;
        out->n_sources = from->sources_count;
    }
    return status;
}

static enum memos_status attributes_make(struct memos_arena *arena,
    const struct memcube_description *from, Memos__Cube *out, struct memos_error *err)
{
    size_t count = from->attributes_count;
    void **pointers = NULL;
    enum memos_status status =
        broker_array_make(arena, count, sizeof(Memos__Attribute), &pointers, err);
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        Memos__Attribute *attribute = pointers[i];
        memos__attribute__init(attribute);
        status = broker_text_make(arena, from->attributes[i].name, &attribute->name, err);
        if (status == MEMOS_OK) {
            status = broker_text_make(arena, from->attributes[i].value, &attribute->value, err);
        }
    }
    if (status == MEMOS_OK) {
        out->attributes = (Memos__Attribute **)pointers;
        out->n_attributes = count;
    }
    return status;
}

/* The parts of a description that most versions do not have. */
static enum memos_status description_lists_make(struct memos_arena *arena,
    const struct memcube_description *from, Memos__Cube *out, struct memos_error *err)
{
    enum memos_status status =
        texts_make(arena, from->tags, from->tags_count, &out->tags, &out->n_tags, err);
    if (status == MEMOS_OK) {
        status = texts_make(
            arena, from->readers, from->readers_count, &out->readers, &out->n_readers, err);
    }
    if (status == MEMOS_OK && from->sources_count > 0) {
        status = sources_make(arena, from, out, err);
    }
    if (status == MEMOS_OK && from->attributes_count > 0) {
        status = attributes_make(arena, from, out, err);
    }
    return status;
}

static enum memos_status texts_of_cube(struct memos_arena *arena,
    const struct memcube_version *version, Memos__Cube *out, struct memos_error *err)
{
    const struct memcube_description *about = &version->description;
    const struct {
        struct memos_bytes from;
        char **to;
    } texts[] = {
        {version->subtype, &out->subtype},
        {version->author, &out->author},
        {version->reason, &out->reason},
        {version->codec, &out->codec},
        {about->title, &out->title},
        {about->language, &out->language},
        {about->speaker, &out->speaker},
        {about->external_id, &out->external_id},
    };
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0] && status == MEMOS_OK; i++) {
        status = broker_text_make(arena, texts[i].from, texts[i].to, err);
    }
    return status;
}

static void numbers_of_cube(const struct memcube_version *version, Memos__Cube *out)
{
    const struct memcube_governance *governance = &version->governance;
    out->number = version->number;
    out->parent = version->parent;
    out->equals = version->equals;
    out->operation = (uint32_t)version->operation;
    out->kind = (uint32_t)version->kind;
    out->state = (uint32_t)version->state;
    out->stale = version->stale;
    out->time_us = version->time_us;
    out->seq = version->seq;
    out->payload_bytes = version->payload_bytes;
    out->event_us = version->description.event_us;
    out->valid_from_us = governance->valid_from_us;
    out->valid_to_us = governance->valid_to_us;
    out->expires_us = governance->expires_us;
    out->retain_until_us = governance->retain_until_us;
    out->priority = governance->priority;
    out->sensitivity = governance->sensitivity;
}

enum memos_status broker_cube_make(struct memos_arena *arena, const struct memcube_version *version,
    Memos__Cube *out, struct memos_error *err)
{
    memos__cube__init(out);
    numbers_of_cube(version, out);
    enum memos_status status =
        binary_make(arena, version->id.bytes, sizeof version->id.bytes, &out->id, err);
    if (status == MEMOS_OK) {
        status = binary_make(arena, version->payload_hash.bytes, sizeof version->payload_hash.bytes,
            &out->payload_hash, err);
    }
    if (status == MEMOS_OK && version->model.size > 0) {
        status = binary_make(arena, version->model.data, version->model.size, &out->model, err);
    }
    if (status == MEMOS_OK) {
        status = texts_of_cube(arena, version, out, err);
    }
    if (status == MEMOS_OK && version->derived_count > 0) {
        status = broker_refs_make(
            arena, version->derived_from, version->derived_count, &out->derived_from, err);
        out->n_derived_from = status == MEMOS_OK ? version->derived_count : 0;
    }
    if (status == MEMOS_OK) {
        status = description_lists_make(arena, &version->description, out, err);
    }
    return status;
}

enum memos_status broker_outcome_make(struct memos_arena *arena, struct memos_bytes space,
    const struct memcube_outcome *outcome, Memos__Outcome *out, struct memos_error *err)
{
    out->seq = outcome->seq;
    out->time_us = outcome->time_us;
    out->repeated_request = outcome->repeated;
    enum memos_status status = broker_text_make(arena, space, &out->space, err);
    if (status == MEMOS_OK) {
        status =
            binary_make(arena, outcome->head.bytes, sizeof outcome->head.bytes, &out->head, err);
    }
    if (status == MEMOS_OK) {
        status = broker_refs_make(arena, outcome->refs, outcome->refs_count, &out->refs, err);
        out->n_refs = status == MEMOS_OK ? outcome->refs_count : 0;
    }
    if (status == MEMOS_OK) {
        status =
            broker_ids_make(arena, outcome->affected, outcome->affected_count, &out->affected, err);
        out->n_affected = status == MEMOS_OK ? outcome->affected_count : 0;
    }
    return status;
}

enum memos_status broker_rollback_items_make(struct memos_arena *arena,
    const struct memcube_rollback_item *items, size_t count, Memos__Outcome *out,
    struct memos_error *err)
{
    void **pointers = NULL;
    enum memos_status status =
        broker_array_make(arena, count, sizeof(Memos__RollbackItem), &pointers, err);
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        Memos__RollbackItem *item = pointers[i];
        memos__rollback_item__init(item);
        item->from = items[i].from;
        item->to = items[i].to;
        item->made = items[i].made;
        item->status = (uint32_t)items[i].status;
        status = binary_make(arena, items[i].id.bytes, sizeof items[i].id.bytes, &item->id, err);
    }
    if (status == MEMOS_OK) {
        out->rollback = (Memos__RollbackItem **)pointers;
        out->n_rollback = count;
    }
    return status;
}

static enum memos_status entries_make(struct memos_arena *arena,
    const struct memcube_log_record *record, Memos__LogRecord *out, struct memos_error *err)
{
    size_t count = record->entries_count;
    count = count > RECORD_ITEMS_MAX ? RECORD_ITEMS_MAX : count;
    void **pointers = NULL;
    enum memos_status status =
        broker_array_make(arena, count, sizeof(Memos__LogEntry), &pointers, err);
    if (status != MEMOS_OK) {
        return status;
    }
    for (size_t i = 0; i < count; i++) {
        const struct memcube_log_entry *from = &record->entries[i];
        Memos__LogEntry *entry = pointers[i];
        memos__log_entry__init(entry);
        entry->id = binary_view(from->ref.id.bytes, sizeof from->ref.id.bytes);
        entry->number = from->ref.number;
        entry->version_hash =
            binary_view(from->version_hash.bytes, sizeof from->version_hash.bytes);
    }
    out->entries = (Memos__LogEntry **)pointers;
    out->n_entries = count;
    return MEMOS_OK;
}

enum memos_status broker_record_make(struct memos_arena *arena,
    const struct memcube_log_record *record, Memos__LogRecord *out, struct memos_error *err)
{
    size_t affected = record->affected_count;
    affected = affected > RECORD_ITEMS_MAX ? RECORD_ITEMS_MAX : affected;

    memos__log_record__init(out);
    out->seq = record->seq;
    out->time_us = record->time_us;
    out->operation = (uint32_t)record->operation;
    out->rollback_to = record->rollback_to;
    out->entries_total = (uint32_t)record->entries_count;
    out->previous = binary_view(record->previous.bytes, sizeof record->previous.bytes);
    out->hash = binary_view(record->hash.bytes, sizeof record->hash.bytes);
    enum memos_status status = broker_text_make(arena, record->author, &out->author, err);
    if (status == MEMOS_OK) {
        status = broker_text_make(arena, record->reason, &out->reason, err);
    }
    if (status == MEMOS_OK) {
        status = entries_make(arena, record, out, err);
    }
    if (status == MEMOS_OK) {
        status = broker_ids_make(arena, record->affected, affected, &out->affected, err);
        out->n_affected = status == MEMOS_OK ? affected : 0;
    }
    return status;
}

enum memos_status broker_checkpoint_make(struct memos_arena *arena,
    const struct memcube_checkpoint *checkpoint, Memos__CheckpointInfo *out,
    struct memos_error *err)
{
    memos__checkpoint_info__init(out);
    out->seq = checkpoint->seq;
    out->time_us = checkpoint->time_us;
    const struct {
        const void *data;
        size_t size;
        ProtobufCBinaryData *to;
    } parts[] = {
        {checkpoint->space_id.bytes, sizeof checkpoint->space_id.bytes, &out->space_id},
        {checkpoint->head.bytes, sizeof checkpoint->head.bytes, &out->head},
        {checkpoint->public_key, sizeof checkpoint->public_key, &out->public_key},
        {checkpoint->signature, sizeof checkpoint->signature, &out->signature},
    };
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0] && status == MEMOS_OK; i++) {
        status = binary_make(arena, parts[i].data, parts[i].size, parts[i].to, err);
    }
    return status;
}

enum memos_status broker_summary_make(struct memos_arena *arena,
    const struct memcube_archive_summary *summary, Memos__ArchiveSummary **out,
    struct memos_error *err)
{
    Memos__ArchiveSummary *to = memos_arena_take(arena, 1, sizeof *to);
    if (!to) {
        return fail_full(err);
    }
    memos__archive_summary__init(to);
    to->single_cube = summary->single_cube;
    to->records = summary->records;
    to->cubes = summary->cubes;
    to->versions = summary->versions;
    to->payloads = summary->payloads;
    to->bytes = summary->bytes;
    to->added = summary->added;
    to->seq = summary->seq;
    enum memos_status status = binary_make(
        arena, summary->space_id.bytes, sizeof summary->space_id.bytes, &to->space_id, err);
    if (status == MEMOS_OK) {
        status =
            binary_make(arena, summary->head.bytes, sizeof summary->head.bytes, &to->head, err);
    }
    *out = to;
    return status;
}
