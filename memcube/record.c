#include "memcube/record.h"

#include <pthread.h>
#include <sodium.h>
#include <string.h>

#define FORMAT_VERSION 1
#define REF_BYTES (16u + 4u)                         /* id, number */
#define ENTRY_BYTES (REF_BYTES + MEMCUBE_HASH_BYTES) /* id, number, hash */

static const char checkpoint_domain[16] = "memos-checkpoint";

/* ---- hashes -------------------------------------------------------------------------------- */

_Static_assert(sizeof(struct memcube_hasher) >= sizeof(crypto_generichash_state) &&
                   _Alignof(struct memcube_hasher) >= _Alignof(crypto_generichash_state),
    "the hasher must hold libsodium's state");

/* libsodium picks its fastest BLAKE2b in sodium_init, and has a slow but right one before. */
static void choose_implementation(void)
{
    int rc = sodium_init();
    memos_assert(rc >= 0);
}

void memcube_hasher_begin(struct memcube_hasher *hasher)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, choose_implementation);
    int rc = crypto_generichash_init((void *)hasher->state, NULL, 0, MEMCUBE_HASH_BYTES);
    memos_assert(rc == 0);
}

void memcube_hasher_add(struct memcube_hasher *hasher, struct memos_bytes bytes)
{
    int rc = crypto_generichash_update((void *)hasher->state, bytes.data, bytes.size);
    memos_assert(rc == 0);
}

struct memcube_hash memcube_hasher_end(struct memcube_hasher *hasher)
{
    struct memcube_hash hash;
    int rc = crypto_generichash_final((void *)hasher->state, hash.bytes, sizeof hash.bytes);
    memos_assert(rc == 0);
    return hash;
}

struct memcube_hash memcube_hash_of(struct memos_bytes bytes)
{
    struct memcube_hasher hasher;
    memcube_hasher_begin(&hasher);
    memcube_hasher_add(&hasher, bytes);
    return memcube_hasher_end(&hasher);
}

bool memcube_hash_equal(const struct memcube_hash *a, const struct memcube_hash *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

/* ---- what several records share ------------------------------------------------------------ */

static void put_i64(struct memos_buffer *out, int64_t value)
{
    memos_buffer_u64(out, (uint64_t)value);
}

static int64_t get_i64(struct memos_reader *r)
{
    uint64_t raw = memos_read_u64(r);
    int64_t value;
    memcpy(&value, &raw, sizeof value);
    return value;
}

static void put_list(struct memos_buffer *out, const struct memos_bytes *list, size_t count)
{
    memos_buffer_u32(out, (uint32_t)count);
    for (size_t i = 0; i < count; i++) {
        memos_buffer_sized(out, list[i]);
    }
}

static enum memos_status bad(struct memos_error *err, const char *record, const char *what)
{
    return memos_fail(err, MEMOS_CORRUPT, "%s: %s", record, what);
}

/* Space for an array of outside size: the count must fit into its limit and, at item_bytes_min
 * each, into the bytes that are left. Zero items give NULL. */
static enum memos_status take_array(struct memos_reader *r, struct memos_arena *arena,
    size_t count_max, size_t item_bytes_min, size_t item_size, size_t *out_count, void **out,
    const char *record, struct memos_error *err)
{
    size_t count = memos_read_u32(r);
    *out = NULL;
    *out_count = 0;
    if (count > count_max || count > r->left / item_bytes_min) {
        return memos_fail(
            err, MEMOS_CORRUPT, "%s: a count of %zu does not fit into its bytes", record, count);
    }
    if (count > 0) {
        *out = memos_arena_take(arena, count, item_size);
        if (!*out) {
            return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu items of %s", count, record);
        }
    }
    *out_count = count;
    return MEMOS_OK;
}

static struct memos_bytes get_text(struct memos_reader *r, size_t size_max)
{
    struct memos_bytes text = memos_read_sized(r, size_max);
    if (!memos_bytes_utf8(text)) {
        r->failed = true;
    }
    return text;
}

static enum memos_status get_list(struct memos_reader *r, struct memos_arena *arena,
    size_t count_max, struct memos_bytes **out, size_t *out_count, struct memos_error *err)
{
    void *room = NULL;
    enum memos_status status =
        take_array(r, arena, count_max, 4, sizeof **out, out_count, &room, "description", err);
    if (status != MEMOS_OK) {
        return status;
    }
    *out = room;
    for (size_t i = 0; i < *out_count; i++) {
        (*out)[i] = get_text(r, MEMCUBE_NAME_BYTES_MAX);
    }
    return MEMOS_OK;
}

/* ---- header -------------------------------------------------------------------------------- */

void memcube_header_encode(const struct memcube_version *version, struct memos_buffer *out)
{
    const struct memcube_governance *g = &version->governance;
    memos_buffer_u8(out, FORMAT_VERSION);
    memos_buffer_u8(out, (uint8_t)version->operation);
    memos_buffer_u8(out, (uint8_t)version->kind);
    memos_buffer_u8(out, (uint8_t)version->state);
    memos_buffer_u8(out, g->priority);
    memos_buffer_u8(out, g->sensitivity);
    memos_buffer_bytes(out, version->id.bytes, sizeof version->id.bytes);
    memos_buffer_u32(out, version->number);
    memos_buffer_u32(out, version->parent);
    memos_buffer_u32(out, version->equals);
    put_i64(out, version->time_us);
    put_i64(out, g->valid_from_us);
    put_i64(out, g->valid_to_us);
    put_i64(out, g->expires_us);
    put_i64(out, g->retain_until_us);
    memos_buffer_bytes(out, version->payload_hash.bytes, MEMCUBE_HASH_BYTES);
    memos_buffer_u64(out, version->payload_bytes);
    memos_buffer_bytes(out, version->description_hash.bytes, MEMCUBE_HASH_BYTES);
    memos_buffer_sized(out, version->subtype);
    memos_buffer_sized(out, version->author);
    memos_buffer_sized(out, version->reason);
    memos_buffer_sized(out, version->model);
    memos_buffer_sized(out, version->codec);
    memos_buffer_u32(out, (uint32_t)version->derived_count);
    for (size_t i = 0; i < version->derived_count; i++) {
        memos_buffer_bytes(out, version->derived_from[i].id.bytes, 16);
        memos_buffer_u32(out, version->derived_from[i].number);
    }
}

static enum memos_status check_header(const struct memcube_version *v, struct memos_error *err)
{
    const char *what = NULL;
    if (!memcube_operation_text((int)v->operation)) {
        what = "an unknown operation";
    } else if (!memcube_kind_text((int)v->kind)) {
        what = "an unknown kind";
    } else if (!memcube_state_text((int)v->state)) {
        what = "an unknown state";
    } else if (v->governance.priority == 0 || v->governance.sensitivity == 0 ||
               v->governance.sensitivity > MEMCUBE_SENSITIVITY_MAX) {
        what = "a priority or sensitivity out of range";
    } else if (memos_id_is_nil(&v->id)) {
        what = "no id";
    } else if (v->number == 0 || v->parent >= v->number || v->equals >= v->number) {
        what = "version numbers out of order";
    } else if (v->author.size == 0) {
        what = "no author";
    }
    return what ? bad(err, "header", what) : MEMOS_OK;
}

static enum memos_status get_derived(struct memos_reader *r, struct memos_arena *arena,
    struct memcube_version *out, struct memos_error *err)
{
    void *room = NULL;
    enum memos_status status = take_array(r, arena, MEMCUBE_DERIVED_MAX, REF_BYTES,
        sizeof *out->derived_from, &out->derived_count, &room, "header", err);
    out->derived_from = room;
    for (size_t i = 0; status == MEMOS_OK && i < out->derived_count; i++) {
        struct memcube_ref *ref = &out->derived_from[i];
        memos_read_into(r, ref->id.bytes, sizeof ref->id.bytes);
        ref->number = memos_read_u32(r);
        if (memos_id_is_nil(&ref->id) || ref->number == 0) {
            status = bad(err, "header", "derived from no version");
        }
    }
    return status;
}

enum memos_status memcube_header_decode(struct memos_bytes bytes, struct memos_arena *arena,
    struct memcube_version *out, struct memos_error *err)
{
    struct memos_reader r = memos_reader_of(bytes);
    struct memcube_governance *g = &out->governance;

    *out = (struct memcube_version){0};
    if (memos_read_u8(&r) != FORMAT_VERSION) {
        return bad(err, "header", "not format version 1");
    }
    out->operation = memos_read_u8(&r);
    out->kind = memos_read_u8(&r);
    out->state = memos_read_u8(&r);
    g->priority = memos_read_u8(&r);
    g->sensitivity = memos_read_u8(&r);
    memos_read_into(&r, out->id.bytes, sizeof out->id.bytes);
    out->number = memos_read_u32(&r);
    out->parent = memos_read_u32(&r);
    out->equals = memos_read_u32(&r);
    out->time_us = get_i64(&r);
    g->valid_from_us = get_i64(&r);
    g->valid_to_us = get_i64(&r);
    g->expires_us = get_i64(&r);
    g->retain_until_us = get_i64(&r);
    memos_read_into(&r, out->payload_hash.bytes, MEMCUBE_HASH_BYTES);
    out->payload_bytes = memos_read_u64(&r);
    memos_read_into(&r, out->description_hash.bytes, MEMCUBE_HASH_BYTES);
    out->subtype = get_text(&r, MEMCUBE_SUBTYPE_BYTES_MAX);
    out->author = get_text(&r, MEMCUBE_NAME_BYTES_MAX);
    out->reason = get_text(&r, MEMCUBE_REASON_BYTES_MAX);
    out->model = get_text(&r, MEMCUBE_NAME_BYTES_MAX);
    out->codec = get_text(&r, MEMCUBE_NAME_BYTES_MAX);
    enum memos_status status = get_derived(&r, arena, out, err);
    if (status == MEMOS_OK && !memos_reader_done(&r)) {
        status = bad(err, "header", "its bytes end too early or too late, or are not text");
    }
    return status == MEMOS_OK ? check_header(out, err) : status;
}

/* ---- description --------------------------------------------------------------------------- */

void memcube_description_encode(const struct memcube_description *d,
    const uint8_t salt[MEMCUBE_SALT_BYTES], struct memos_buffer *out)
{
    memos_buffer_u8(out, FORMAT_VERSION);
    memos_buffer_bytes(out, salt, MEMCUBE_SALT_BYTES);
    memos_buffer_sized(out, d->title);
    memos_buffer_sized(out, d->language);
    memos_buffer_sized(out, d->speaker);
    memos_buffer_sized(out, d->external_id);
    put_i64(out, d->event_us);
    put_list(out, d->tags, d->tags_count);
    put_list(out, d->readers, d->readers_count);
    memos_buffer_u32(out, (uint32_t)d->sources_count);
    for (size_t i = 0; i < d->sources_count; i++) {
        memos_buffer_sized(out, d->sources[i].type);
        memos_buffer_sized(out, d->sources[i].uri);
        memos_buffer_u64(out, d->sources[i].offset);
        memos_buffer_u64(out, d->sources[i].length);
    }
    memos_buffer_u32(out, (uint32_t)d->attributes_count);
    for (size_t i = 0; i < d->attributes_count; i++) {
        memos_buffer_sized(out, d->attributes[i].name);
        memos_buffer_sized(out, d->attributes[i].value);
    }
}

static enum memos_status get_sources(struct memos_reader *r, struct memos_arena *arena,
    struct memcube_description *out, struct memos_error *err)
{
    void *room = NULL;
    enum memos_status status = take_array(r, arena, MEMCUBE_SOURCES_MAX, 4 + 4 + 8 + 8,
        sizeof *out->sources, &out->sources_count, &room, "description", err);
    out->sources = room;
    for (size_t i = 0; status == MEMOS_OK && i < out->sources_count; i++) {
        out->sources[i].type = get_text(r, MEMCUBE_NAME_BYTES_MAX);
        out->sources[i].uri = get_text(r, MEMCUBE_URI_BYTES_MAX);
        out->sources[i].offset = memos_read_u64(r);
        out->sources[i].length = memos_read_u64(r);
    }
    return status;
}

static enum memos_status get_attributes(struct memos_reader *r, struct memos_arena *arena,
    struct memcube_description *out, struct memos_error *err)
{
    void *room = NULL;
    enum memos_status status = take_array(r, arena, MEMCUBE_ATTRIBUTES_MAX, 4 + 4,
        sizeof *out->attributes, &out->attributes_count, &room, "description", err);
    out->attributes = room;
    for (size_t i = 0; status == MEMOS_OK && i < out->attributes_count; i++) {
        struct memcube_attribute *a = &out->attributes[i];
        a->name = get_text(r, MEMCUBE_ATTRIBUTE_BYTES_MAX);
        a->value = get_text(r, MEMCUBE_ATTRIBUTE_BYTES_MAX - a->name.size);
    }
    return status;
}

enum memos_status memcube_description_decode(struct memos_bytes bytes, struct memos_arena *arena,
    struct memcube_description *out, struct memos_error *err)
{
    struct memos_reader r = memos_reader_of(bytes);

    *out = (struct memcube_description){0};
    if (memos_read_u8(&r) != FORMAT_VERSION) {
        return bad(err, "description", "not format version 1");
    }
    (void)memos_read_bytes(&r, MEMCUBE_SALT_BYTES);
    out->title = get_text(&r, MEMCUBE_TITLE_BYTES_MAX);
    out->language = get_text(&r, MEMCUBE_NAME_BYTES_MAX);
    out->speaker = get_text(&r, MEMCUBE_NAME_BYTES_MAX);
    out->external_id = get_text(&r, MEMCUBE_EXTERNAL_ID_BYTES_MAX);
    out->event_us = get_i64(&r);
    enum memos_status status =
        get_list(&r, arena, MEMCUBE_TAGS_MAX, &out->tags, &out->tags_count, err);
    if (status == MEMOS_OK) {
        status = get_list(&r, arena, MEMCUBE_READERS_MAX, &out->readers, &out->readers_count, err);
    }
    if (status == MEMOS_OK) {
        status = get_sources(&r, arena, out, err);
    }
    if (status == MEMOS_OK) {
        status = get_attributes(&r, arena, out, err);
    }
    if (status == MEMOS_OK && !memos_reader_done(&r)) {
        status = bad(err, "description", "its bytes end too early or too late, or are not text");
    }
    return status;
}

/* ---- log record ---------------------------------------------------------------------------- */

void memcube_log_encode(const struct memos_id *space_id, const struct memcube_log_record *record,
    struct memos_buffer *out)
{
    memos_buffer_u8(out, FORMAT_VERSION);
    memos_buffer_u8(out, (uint8_t)record->operation);
    memos_buffer_bytes(out, space_id->bytes, sizeof space_id->bytes);
    memos_buffer_u64(out, record->seq);
    put_i64(out, record->time_us);
    memos_buffer_bytes(out, record->previous.bytes, MEMCUBE_HASH_BYTES);
    memos_buffer_u64(out, record->rollback_to);
    memos_buffer_sized(out, record->author);
    memos_buffer_sized(out, record->reason);
    memos_buffer_u32(out, (uint32_t)record->entries_count);
    for (size_t i = 0; i < record->entries_count; i++) {
        memos_buffer_bytes(out, record->entries[i].ref.id.bytes, 16);
        memos_buffer_u32(out, record->entries[i].ref.number);
        memos_buffer_bytes(out, record->entries[i].version_hash.bytes, MEMCUBE_HASH_BYTES);
    }
    memos_buffer_u32(out, (uint32_t)record->affected_count);
    for (size_t i = 0; i < record->affected_count; i++) {
        memos_buffer_bytes(out, record->affected[i].bytes, 16);
    }
}

/* How many entries a record has is bounded by its bytes alone: one record rolls a whole space
 * back. */
static enum memos_status get_entries(struct memos_reader *r, struct memos_arena *arena,
    struct memcube_log_record *out, struct memos_error *err)
{
    void *room = NULL;
    enum memos_status status = take_array(r, arena, UINT32_MAX, ENTRY_BYTES, sizeof *out->entries,
        &out->entries_count, &room, "log record", err);
    out->entries = room;
    for (size_t i = 0; status == MEMOS_OK && i < out->entries_count; i++) {
        struct memcube_log_entry *entry = &out->entries[i];
        memos_read_into(r, entry->ref.id.bytes, sizeof entry->ref.id.bytes);
        entry->ref.number = memos_read_u32(r);
        memos_read_into(r, entry->version_hash.bytes, MEMCUBE_HASH_BYTES);
        if (memos_id_is_nil(&entry->ref.id) || entry->ref.number == 0) {
            status = bad(err, "log record", "an entry names no version");
        }
    }
    if (status != MEMOS_OK) {
        return status;
    }
    status = take_array(r, arena, UINT32_MAX, 16, sizeof *out->affected, &out->affected_count,
        &room, "log record", err);
    out->affected = room;
    for (size_t i = 0; status == MEMOS_OK && i < out->affected_count; i++) {
        memos_read_into(r, out->affected[i].bytes, sizeof out->affected[i].bytes);
    }
    return status;
}

enum memos_status memcube_log_decode(struct memos_bytes bytes, struct memos_arena *arena,
    struct memos_id *out_space_id, struct memcube_log_record *out, struct memos_error *err)
{
    struct memos_reader r = memos_reader_of(bytes);

    *out = (struct memcube_log_record){0};
    if (memos_read_u8(&r) != FORMAT_VERSION) {
        return bad(err, "log record", "not format version 1");
    }
    out->operation = memos_read_u8(&r);
    memos_read_into(&r, out_space_id->bytes, sizeof out_space_id->bytes);
    out->seq = memos_read_u64(&r);
    out->time_us = get_i64(&r);
    memos_read_into(&r, out->previous.bytes, MEMCUBE_HASH_BYTES);
    out->rollback_to = memos_read_u64(&r);
    out->author = get_text(&r, MEMCUBE_NAME_BYTES_MAX);
    out->reason = get_text(&r, MEMCUBE_REASON_BYTES_MAX);
    enum memos_status status = get_entries(&r, arena, out, err);
    if (status != MEMOS_OK) {
        return status;
    }
    if (!memos_reader_done(&r)) {
        return bad(err, "log record", "its bytes end too early or too late, or are not text");
    }
    if (!memcube_operation_text((int)out->operation) || out->seq == 0 || out->author.size == 0) {
        return bad(err, "log record", "an unknown operation, no seq, or no author");
    }
    out->hash = memcube_hash_of(bytes);
    return MEMOS_OK;
}

/* ---- checkpoint ---------------------------------------------------------------------------- */

void memcube_checkpoint_encode(
    const struct memcube_checkpoint *checkpoint, struct memos_buffer *out)
{
    memos_buffer_u8(out, FORMAT_VERSION);
    memos_buffer_bytes(out, checkpoint_domain, sizeof checkpoint_domain);
    memos_buffer_bytes(out, checkpoint->space_id.bytes, sizeof checkpoint->space_id.bytes);
    memos_buffer_u64(out, checkpoint->seq);
    memos_buffer_bytes(out, checkpoint->head.bytes, MEMCUBE_HASH_BYTES);
    put_i64(out, checkpoint->time_us);
    memos_buffer_bytes(out, checkpoint->public_key, sizeof checkpoint->public_key);
}
