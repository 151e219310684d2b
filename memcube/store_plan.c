/* Planning: what every kind of change asks and says before anything is written. */
#include "memcube/store_internal.h"

#include <stdlib.h>

enum {
    PRIORITY_NORMAL = 128,
    SENSITIVITY_NORMAL = 2,
};

#define CODEC_TEXT "text/plain; charset=utf-8"

/* ---- what the calls share ------------------------------------------------------------------ */

static bool attributes_same(
    const struct memcube_description *a, const struct memcube_description *b)
{
    bool same = a->attributes_count == b->attributes_count;
    for (size_t i = 0; same && i < a->attributes_count; i++) {
        same = memos_bytes_equal(a->attributes[i].name, b->attributes[i].name) &&
               memos_bytes_equal(a->attributes[i].value, b->attributes[i].value);
    }
    return same;
}

bool memcube_content_same(const struct memcube_version *a, const struct memcube_version *b)
{
    const struct memcube_description *x = &a->description;
    const struct memcube_description *y = &b->description;

    return memcube_hash_equal(&a->payload_hash, &b->payload_hash) &&
           memos_bytes_equal(x->title, y->title) && memos_bytes_equal(x->speaker, y->speaker) &&
           memos_bytes_equal(x->language, y->language) && x->event_us == y->event_us &&
           attributes_same(x, y);
}

static bool governance_same(
    const struct memcube_governance *a, const struct memcube_governance *b)
{
    return a->valid_from_us == b->valid_from_us && a->valid_to_us == b->valid_to_us &&
           a->expires_us == b->expires_us && a->retain_until_us == b->retain_until_us &&
           a->priority == b->priority && a->sensitivity == b->sensitivity;
}

bool memcube_derived_same(const struct memcube_version *a, const struct memcube_version *b)
{
    bool same = a->derived_count == b->derived_count;
    for (size_t i = 0; same && i < a->derived_count; i++) {
        same = a->derived_from[i].number == b->derived_from[i].number &&
               memos_id_equal(&a->derived_from[i].id, &b->derived_from[i].id);
    }
    return same;
}

/* Descriptions are the same when their canonical bytes under the same salt are. */
enum memos_status memcube_version_same(struct memcube_write *write,
    const struct memcube_version *a, const struct memcube_version *b, bool *out_same,
    struct memos_error *err)
{
    static const uint8_t salt[MEMCUBE_SALT_BYTES] = { 0 };

    *out_same = a->kind == b->kind && a->state == b->state &&
                memcube_hash_equal(&a->payload_hash, &b->payload_hash) &&
                memos_bytes_equal(a->subtype, b->subtype) &&
                memos_bytes_equal(a->model, b->model) &&
                memos_bytes_equal(a->codec, b->codec) &&
                governance_same(&a->governance, &b->governance) && memcube_derived_same(a, b);
    if (!*out_same) {
        return MEMOS_OK;
    }
    memos_buffer_reset(&write->header);
    memos_buffer_reset(&write->description);
    memcube_description_encode(&a->description, salt, &write->header);
    memcube_description_encode(&b->description, salt, &write->description);
    if (write->header.failed || write->description.failed) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to compare descriptions");
    }
    *out_same = memos_bytes_equal(
        memos_buffer_view(&write->header), memos_buffer_view(&write->description));
    return MEMOS_OK;
}

enum memos_status memcube_head_for_change(struct memcube_write *write,
    const struct memcube_space *space, const struct memos_id *id, bool withdrawn_too,
    struct memcube_cube *out_cube, struct memcube_version *out_head, struct memos_error *err)
{
    char text[MEMOS_ID_TEXT_BYTES];

    enum memos_status status =
        memcube_cube_read(&write->read, space->number, id, out_cube, err);
    if (status != MEMOS_OK) {
        return status;
    }
    if (out_cube->state == MEMCUBE_STATE_FORGOTTEN) {
        return memos_fail(
            err, MEMOS_FORGOTTEN, "cube %s was forgotten", memos_id_format(id, text));
    }
    if (out_cube->state == MEMCUBE_STATE_WITHDRAWN && !withdrawn_too) {
        return memos_fail(
            err, MEMOS_NOT_FOUND, "there is no cube %s", memos_id_format(id, text));
    }
    return memcube_version_load(&write->read, space->number, out_cube, out_cube->row,
        &write->read.arena, out_head, err);
}

void memcube_step_repeat(struct memcube_step *step, const struct memcube_cube *cube,
    const struct memcube_version *head, const struct memcube_version *from,
    enum memcube_operation operation, const struct memcube_change *change)
{
    *step = (struct memcube_step){
        .cube = *cube,
        .head = head,
        .like = from,
        .version = *from,
        .payload_share = true,
    };
    step->version.operation = operation;
    step->version.author = change->author;
    step->version.reason = change->reason;
    step->version.equals = 0;
}

static int id_compare(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct memos_id));
}

enum memos_status memcube_ids_distinct(struct memcube_write *write, const struct memos_id *ids,
    size_t count, struct memos_error *err)
{
    struct memos_id *sorted = memos_arena_take(&write->read.arena, count, sizeof *sorted);
    char text[MEMOS_ID_TEXT_BYTES];

    if (!sorted) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu ids", count);
    }
    if (count == 0) {
        return MEMOS_OK;
    }
    memcpy(sorted, ids, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, id_compare);
    for (size_t i = 1; i < count; i++) {
        if (memos_id_equal(&sorted[i - 1], &sorted[i])) {
            return memos_fail(err, MEMOS_INVALID, "cube %s is named twice",
                memos_id_format(&sorted[i], text));
        }
    }
    return MEMOS_OK;
}

/* Write the steps that are to be made; a step without an operation is one that changes nothing. */
enum memos_status memcube_steps_apply(struct memcube_write *write,
    const struct memcube_change *change, enum memcube_operation operation,
    struct memcube_step *steps, size_t steps_count, struct memcube_outcome *out,
    struct memos_error *err)
{
    struct memcube_changing changing;
    struct memcube_ref *refs = memos_arena_take(&write->read.arena, steps_count, sizeof *refs);
    size_t made = 0;

    if (!refs) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for an outcome");
    }
    for (size_t i = 0; i < steps_count; i++) {
        made += steps[i].version.operation != 0;
    }
    enum memos_status status = MEMOS_OK;
    if (made > 0) {
        status = memcube_changing_begin(&changing, write, change, operation, made, err);
    }
    for (size_t i = 0; status == MEMOS_OK && i < steps_count; i++) {
        if (steps[i].version.operation != 0) {
            status = memcube_changing_step(&changing, &steps[i], err);
        }
        refs[i] = (struct memcube_ref){ steps[i].version.id, steps[i].version.number };
    }
    if (status == MEMOS_OK && made > 0) {
        status = memcube_changing_end(&changing, refs, steps_count, out, err);
    } else if (status == MEMOS_OK) {
        status = memcube_changing_none(write, change, refs, steps_count, out, err);
    }
    return status;
}

/* ---- drafts -------------------------------------------------------------------------------- */

enum memos_status memcube_store_draft_check(struct memcube_write *write,
    const struct memcube_draft *draft, struct memos_error *err)
{
    if (draft->payload.size > write->store->payload_bytes_max) {
        return memos_fail(err, MEMOS_TOO_LARGE, "the payload has %zu bytes; %zu are allowed",
            draft->payload.size, write->store->payload_bytes_max);
    }
    return memcube_draft_check(draft, err);
}

static void governance_default(struct memcube_governance *governance)
{
    if (governance->priority == 0) {
        governance->priority = PRIORITY_NORMAL;
    }
    if (governance->sensitivity == 0) {
        governance->sensitivity = SENSITIVITY_NORMAL;
    }
}

static struct memos_bytes codec_default(const struct memcube_draft *draft)
{
    return draft->codec.size == 0 && draft->kind == MEMCUBE_PLAINTEXT
               ? memos_bytes_of(CODEC_TEXT)
               : draft->codec;
}

/* What a draft says, in a version; payload_hash only when the payload is taken. */
void memcube_version_take(struct memcube_version *version, const struct memcube_draft *draft)
{
    version->kind = draft->kind;
    version->subtype = draft->subtype;
    version->model = draft->model;
    version->codec = codec_default(draft);
    version->governance = draft->governance;
    governance_default(&version->governance);
    version->description = draft->description;
    version->derived_from = draft->derived_from;
    version->derived_count = draft->derived_count;
}

void memcube_step_create(struct memcube_step *step, const struct memcube_draft *draft,
    enum memcube_operation operation, const struct memcube_change *change)
{
    *step = (struct memcube_step){ .payload = draft->payload };
    memcube_version_take(&step->version, draft);
    step->version.operation = operation;
    step->version.state = MEMCUBE_STATE_GENERATED;
    step->version.author = change->author;
    step->version.reason = change->reason;
    step->version.payload_hash = memcube_hash_of(draft->payload);
    step->version.payload_bytes = draft->payload.size;
}
