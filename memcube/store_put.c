/* Making and updating cubes, merging them, and changing their states. */
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

static bool derived_same(const struct memcube_version *a, const struct memcube_version *b)
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
                governance_same(&a->governance, &b->governance) && derived_same(a, b);
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
static enum memos_status steps_apply(struct memcube_write *write,
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

static enum memos_status draft_check(struct memcube_write *write,
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
static void version_take(struct memcube_version *version, const struct memcube_draft *draft)
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

static void step_create(struct memcube_step *step, const struct memcube_draft *draft,
    enum memcube_operation operation, const struct memcube_change *change)
{
    *step = (struct memcube_step){ .payload = draft->payload };
    version_take(&step->version, draft);
    step->version.operation = operation;
    step->version.state = MEMCUBE_STATE_GENERATED;
    step->version.author = change->author;
    step->version.reason = change->reason;
    step->version.payload_hash = memcube_hash_of(draft->payload);
    step->version.payload_bytes = draft->payload.size;
}

/* ---- update -------------------------------------------------------------------------------- */

static bool tag_among(struct memos_bytes tag, const struct memos_bytes *tags, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (memos_bytes_equal(tag, tags[i])) {
            return true;
        }
    }
    return false;
}

static enum memos_status tags_merge(struct memcube_write *write,
    const struct memcube_update *update, struct memcube_description *description,
    struct memos_error *err)
{
    const size_t most = description->tags_count + update->tags_add_count;
    struct memos_bytes *tags = memos_arena_take(&write->read.arena, most, sizeof *tags);
    size_t count = 0;

    if (!tags) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu tags", most);
    }
    for (size_t i = 0; i < description->tags_count; i++) {
        if (!tag_among(description->tags[i], update->tags_remove, update->tags_remove_count)) {
            tags[count++] = description->tags[i];
        }
    }
    for (size_t i = 0; i < update->tags_add_count; i++) {
        if (!tag_among(update->tags_add[i], tags, count)) {
            tags[count++] = update->tags_add[i];
        }
    }
    description->tags = tags;
    description->tags_count = count;
    return MEMOS_OK;
}

static void description_update(
    struct memcube_description *to, const struct memcube_description *from, unsigned fields)
{
    if (fields & MEMCUBE_FIELD_TITLE) {
        to->title = from->title;
    }
    if (fields & MEMCUBE_FIELD_TAGS) {
        to->tags = from->tags;
        to->tags_count = from->tags_count;
    }
    if (fields & MEMCUBE_FIELD_SOURCES) {
        to->sources = from->sources;
        to->sources_count = from->sources_count;
    }
    if (fields & MEMCUBE_FIELD_LANGUAGE) {
        to->language = from->language;
    }
    if (fields & MEMCUBE_FIELD_SPEAKER) {
        to->speaker = from->speaker;
    }
    if (fields & MEMCUBE_FIELD_EVENT_TIME) {
        to->event_us = from->event_us;
    }
    if (fields & MEMCUBE_FIELD_READERS) {
        to->readers = from->readers;
        to->readers_count = from->readers_count;
    }
    if (fields & MEMCUBE_FIELD_ATTRIBUTES) {
        to->attributes = from->attributes;
        to->attributes_count = from->attributes_count;
    }
}

static void governance_update(
    struct memcube_governance *to, const struct memcube_governance *from, unsigned fields)
{
    if (fields & MEMCUBE_FIELD_VALIDITY) {
        to->valid_from_us = from->valid_from_us;
        to->valid_to_us = from->valid_to_us;
    }
    if (fields & MEMCUBE_FIELD_EXPIRY) {
        to->expires_us = from->expires_us;
    }
    if (fields & MEMCUBE_FIELD_RETENTION) {
        to->retain_until_us = from->retain_until_us;
    }
    if (fields & MEMCUBE_FIELD_PRIORITY) {
        to->priority = from->priority;
    }
    if (fields & MEMCUBE_FIELD_SENSITIVITY) {
        to->sensitivity = from->sensitivity;
    }
}

/* The head as a draft, with what the update sets. The payload is empty unless it is set. */
static enum memos_status draft_update(struct memcube_write *write,
    const struct memcube_version *head, const struct memcube_update *update,
    struct memcube_draft *out, struct memos_error *err)
{
    const unsigned fields = update->fields;
    const struct memcube_draft *draft = &update->draft;

    *out = (struct memcube_draft){
        .kind = head->kind,
        .subtype = fields & MEMCUBE_FIELD_SUBTYPE ? draft->subtype : head->subtype,
        .model = fields & MEMCUBE_FIELD_DERIVED ? draft->model : head->model,
        .codec = fields & MEMCUBE_FIELD_PAYLOAD ? draft->codec : head->codec,
        .governance = head->governance,
        .description = head->description,
        .derived_from = fields & MEMCUBE_FIELD_DERIVED ? draft->derived_from : head->derived_from,
        .derived_count =
            fields & MEMCUBE_FIELD_DERIVED ? draft->derived_count : head->derived_count,
    };
    if (fields & MEMCUBE_FIELD_PAYLOAD) {
        out->payload = draft->payload;
    }
    governance_update(&out->governance, &draft->governance, fields);
    description_update(&out->description, &draft->description, fields);
    enum memos_status status = MEMOS_OK;
    if (update->tags_add_count > 0 || update->tags_remove_count > 0) {
        status = tags_merge(write, update, &out->description, err);
    }
    return status == MEMOS_OK ? draft_check(write, out, err) : status;
}

/* New words beside an old payload: the indexes want its text. */
static enum memos_status step_text(struct memcube_write *write, const struct memcube_space *space,
    struct memcube_step *step, struct memos_error *err)
{
    if (step->like || !step->payload_share || step->version.kind != MEMCUBE_PLAINTEXT) {
        return MEMOS_OK;
    }
    return memcube_payload_get(&write->read, space, step->head, false, &step->payload, err);
}

static enum memos_status update_allowed(const struct memcube_cube *cube,
    const struct memcube_update *update, struct memos_error *err)
{
    char text[MEMOS_ID_TEXT_BYTES];

    memos_id_format(&cube->id, text);
    if (update->expected != 0 && update->expected != cube->number) {
        return memos_fail(err, MEMOS_CONFLICT, "cube %s is at version %u, not %u", text,
            cube->number, update->expected);
    }
    if (cube->state == MEMCUBE_STATE_FROZEN) {
        return memos_fail(err, MEMOS_FROZEN, "cube %s is frozen", text);
    }
    return MEMOS_OK;
}

/* The step of an update; without an operation when it changes nothing. */
static enum memos_status update_plan(struct memcube_write *write,
    const struct memcube_space *space, const struct memcube_change *change,
    const struct memcube_update *update, bool withdrawn_too, struct memcube_step *step,
    struct memos_error *err)
{
    struct memcube_version *head = memos_arena_take(&write->read.arena, 1, sizeof *head);
    struct memcube_cube cube;
    struct memcube_draft merged;
    bool same = false;

    if (!head) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a version");
    }
    enum memos_status status = memcube_head_for_change(
        write, space, &update->id, withdrawn_too, &cube, head, err);
    if (status == MEMOS_OK) {
        status = update_allowed(&cube, update, err);
    }
    if (status == MEMOS_OK) {
        status = draft_update(write, head, update, &merged, err);
    }
    if (status == MEMOS_OK && (update->fields & MEMCUBE_FIELD_DERIVED)) {
        status = memcube_derived_check(write, space->number, &update->id, merged.derived_from,
            merged.derived_count, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    memcube_step_repeat(step, &cube, head, head,
        update->transform ? MEMCUBE_OP_TRANSFORM : MEMCUBE_OP_UPDATE, change);
    version_take(&step->version, &merged);
    if (update->fields & MEMCUBE_FIELD_PAYLOAD) {
        step->version.payload_hash = memcube_hash_of(merged.payload);
        step->version.payload_bytes = merged.payload.size;
        step->payload = merged.payload;
        step->payload_share =
            memcube_hash_equal(&head->payload_hash, &step->version.payload_hash);
    }
    status = memcube_version_same(write, head, &step->version, &same, err);
    if (status != MEMOS_OK) {
        return status;
    }
    if (same && head->state != MEMCUBE_STATE_WITHDRAWN) {
        step->version.operation = 0;
        return MEMOS_OK;
    }
    if (head->state == MEMCUBE_STATE_GENERATED || head->state == MEMCUBE_STATE_WITHDRAWN) {
        step->version.state = MEMCUBE_STATE_ACTIVATED;
    }
    if (!memcube_content_same(head, &step->version)) {
        step->like = NULL;
    }
    return step->payload.data ? MEMOS_OK : step_text(write, space, step, err);
}

enum memos_status memcube_update(struct memcube_write *write, const struct memcube_change *change,
    const struct memcube_update *updates, size_t updates_count, struct memcube_outcome *out,
    struct memos_error *err)
{
    struct memcube_space_state *state = NULL;
    struct memos_arena *arena = &write->read.arena;
    bool repeated = false;

    enum memos_status status = memcube_change_enter(write, change, &state, out, &repeated, err);
    if (status != MEMOS_OK || repeated) {
        return status;
    }
    status = state ? MEMOS_OK : memcube_space_missing(change->space, err);
    struct memcube_step *steps = memos_arena_take(arena, updates_count, sizeof *steps);
    struct memos_id *ids = memos_arena_take(arena, updates_count, sizeof *ids);
    if (status == MEMOS_OK && (!steps || !ids)) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu updates", updates_count);
    }
    for (size_t i = 0; status == MEMOS_OK && i < updates_count; i++) {
        ids[i] = updates[i].id;
    }
    if (status == MEMOS_OK) {
        status = memcube_ids_distinct(write, ids, updates_count, err);
    }
    for (size_t i = 0; status == MEMOS_OK && i < updates_count; i++) {
        status = update_plan(
            write, &state->space, change, &updates[i], false, &steps[i], err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    return steps_apply(write, change, MEMCUBE_OP_UPDATE, steps, updates_count, out, err);
}

/* ---- create -------------------------------------------------------------------------------- */

/* The cube that has this external id, withdrawn or not. NOT_FOUND. */
static enum memos_status external_cube(struct memcube_write *write,
    const struct memcube_space *space, struct memos_bytes external_id, struct memos_id *out,
    struct memos_error *err)
{
    const struct memcube_key key = memcube_external_key(space, external_id);
    struct memos_bytes value;

    const enum memos_status status = memcube_get(write->read.txn,
        write->store->tables.external, memcube_key_view(&key), &value, NULL);
    if (status == MEMOS_OK && value.size != sizeof out->bytes) {
        return memos_fail(err, MEMOS_CORRUPT, "the entry of an external id is damaged");
    }
    if (status == MEMOS_OK) {
        memcpy(out->bytes, value.data, sizeof out->bytes);
    }
    return status;
}

/* A draft whose external id a cube has already is an update of everything that it says. */
static enum memos_status create_again(struct memcube_write *write,
    const struct memcube_space *space, const struct memcube_change *change,
    const struct memcube_draft *draft, const struct memos_id *id, struct memcube_step *step,
    struct memos_error *err)
{
    struct memcube_update update = {
        .id = *id, .fields = (MEMCUBE_FIELD_SUBTYPE << 1) - 1, .draft = *draft };
    char text[MEMOS_ID_TEXT_BYTES];

    governance_default(&update.draft.governance);
    update.draft.codec = codec_default(draft);
    if (draft->description.event_us == 0) {
        update.fields &= ~(unsigned)MEMCUBE_FIELD_EVENT_TIME;
    }
    const enum memos_status status =
        update_plan(write, space, change, &update, true, step, err);
    if (status == MEMOS_OK && step->head->kind != draft->kind) {
        return memos_fail(err, MEMOS_CONFLICT, "cube %s with this external id is of kind %s",
            memos_id_format(id, text), memcube_kind_text((int)step->head->kind));
    }
    return status;
}

/* space NULL: it is not there yet. */
static enum memos_status create_plan(struct memcube_write *write,
    const struct memcube_space *space, const struct memcube_change *change,
    const struct memcube_draft *draft, struct memcube_step *step, struct memos_error *err)
{
    const struct memos_bytes external_id = draft->description.external_id;
    struct memos_id id;

    enum memos_status status = draft_check(write, draft, err);
    if (status != MEMOS_OK) {
        return status;
    }
    if (!space && draft->derived_count > 0) {
        return memos_fail(err, MEMOS_NOT_FOUND, "a new space has nothing to derive from");
    }
    if (space && external_id.size > 0) {
        status = external_cube(write, space, external_id, &id, err);
        if (status != MEMOS_NOT_FOUND) {
            return status == MEMOS_OK
                       ? create_again(write, space, change, draft, &id, step, err)
                       : status;
        }
        status = MEMOS_OK;
    }
    if (space) {
        status = memcube_derived_check(
            write, space->number, NULL, draft->derived_from, draft->derived_count, err);
    }
    step_create(step, draft, MEMCUBE_OP_CREATE, change);
    return status;
}

static int bytes_compare(const void *a, const void *b)
{
    const struct memos_bytes *x = a;
    const struct memos_bytes *y = b;
    return memos_bytes_compare(*x, *y);
}

/* Which of two drafts with one external id would stand? Neither: the caller must say. */
static enum memos_status externals_distinct(struct memcube_write *write,
    const struct memcube_draft *drafts, size_t count, struct memos_error *err)
{
    struct memos_bytes *sorted = memos_arena_take(&write->read.arena, count, sizeof *sorted);
    size_t named = 0;

    if (!sorted) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu drafts", count);
    }
    for (size_t i = 0; i < count; i++) {
        if (drafts[i].description.external_id.size > 0) {
            sorted[named++] = drafts[i].description.external_id;
        }
    }
    qsort(sorted, named, sizeof *sorted, bytes_compare);
    for (size_t i = 1; i < named; i++) {
        if (memos_bytes_equal(sorted[i - 1], sorted[i])) {
            return memos_fail(err, MEMOS_INVALID, "two drafts have the external id %.*s",
                (int)(sorted[i].size < 100 ? sorted[i].size : 100),
                (const char *)sorted[i].data);
        }
    }
    return MEMOS_OK;
}

enum memos_status memcube_create(struct memcube_write *write, const struct memcube_change *change,
    const struct memcube_draft *drafts, size_t drafts_count, struct memcube_outcome *out,
    struct memos_error *err)
{
    struct memcube_space_state *state = NULL;
    bool repeated = false;

    enum memos_status status = memcube_change_enter(write, change, &state, out, &repeated, err);
    if (status != MEMOS_OK || repeated) {
        return status;
    }
    if (drafts_count == 0) {
        return memos_fail(err, MEMOS_INVALID, "there is no draft to make a cube from");
    }
    struct memcube_step *steps =
        memos_arena_take(&write->read.arena, drafts_count, sizeof *steps);
    if (!steps) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu drafts", drafts_count);
    }
    status = externals_distinct(write, drafts, drafts_count, err);
    for (size_t i = 0; status == MEMOS_OK && i < drafts_count; i++) {
        status = create_plan(
            write, state ? &state->space : NULL, change, &drafts[i], &steps[i], err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    return steps_apply(write, change, MEMCUBE_OP_CREATE, steps, drafts_count, out, err);
}

/* ---- merge and transition ------------------------------------------------------------------ */

/* The step that brings a cube into another state; without an operation when it is in it. */
static enum memos_status transition_plan(struct memcube_write *write,
    const struct memcube_space *space, const struct memcube_change *change,
    const struct memos_id *id, enum memcube_state to, enum memcube_operation operation,
    struct memcube_step *step, struct memos_error *err)
{
    struct memcube_version *head = memos_arena_take(&write->read.arena, 1, sizeof *head);
    const int64_t now = write->store->clock.wall_us(write->store->clock.self);
    struct memcube_cube cube;
    char text[MEMOS_ID_TEXT_BYTES];

    if (!head) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a version");
    }
    const enum memos_status status =
        memcube_head_for_change(write, space, id, false, &cube, head, err);
    if (status != MEMOS_OK) {
        return status;
    }
    memos_id_format(id, text);
    memcube_step_repeat(step, &cube, head, head, operation, change);
    if (head->state == to) {
        step->version.operation = 0;
        return MEMOS_OK;
    }
    if (!memcube_state_may_become(head->state, to)) {
        return memos_fail(err,
            head->state == MEMCUBE_STATE_FROZEN ? MEMOS_FROZEN : MEMOS_CONFLICT,
            "cube %s is %s and cannot become %s", text, memcube_state_text((int)head->state),
            memcube_state_text((int)to));
    }
    struct memcube_governance *governance = &step->version.governance;
    if (to == MEMCUBE_STATE_EXPIRED && governance->retain_until_us > now) {
        return memos_fail(err, MEMOS_CONFLICT, "cube %s must be kept for a while yet", text);
    }
    /* What is brought back to life does not die of the same end again. */
    if (to == MEMCUBE_STATE_ACTIVATED && governance->expires_us <= now) {
        governance->expires_us = 0;
    }
    if (to == MEMCUBE_STATE_ACTIVATED && governance->valid_to_us <= now) {
        governance->valid_to_us = 0;
    }
    step->version.state = to;
    return MEMOS_OK;
}

enum memos_status memcube_transition(struct memcube_write *write,
    const struct memcube_change *change, const struct memos_id *ids, size_t ids_count,
    enum memcube_state to, struct memcube_outcome *out, struct memos_error *err)
{
    struct memcube_space_state *state = NULL;
    bool repeated = false;

    enum memos_status status = memcube_change_enter(write, change, &state, out, &repeated, err);
    if (status != MEMOS_OK || repeated) {
        return status;
    }
    if (!memcube_state_text((int)to)) {
        return memos_fail(err, MEMOS_INVALID, "there is no state %d", (int)to);
    }
    struct memcube_step *steps = memos_arena_take(&write->read.arena, ids_count, sizeof *steps);
    if (!steps) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu cubes", ids_count);
    }
    status = state ? MEMOS_OK : memcube_space_missing(change->space, err);
    if (status == MEMOS_OK) {
        status = memcube_ids_distinct(write, ids, ids_count, err);
    }
    for (size_t i = 0; status == MEMOS_OK && i < ids_count; i++) {
        status = transition_plan(write, &state->space, change, &ids[i], to,
            MEMCUBE_OP_TRANSITION, &steps[i], err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    return steps_apply(write, change, MEMCUBE_OP_TRANSITION, steps, ids_count, out, err);
}

/* The steps of a merge: the new cube, then its sources. */
static enum memos_status merge_plan(struct memcube_write *write,
    const struct memcube_space *space, const struct memcube_change *change,
    const struct memos_id *sources, size_t sources_count, const struct memcube_draft *draft,
    struct memcube_step *steps, struct memos_error *err)
{
    struct memcube_draft joined = *draft;
    struct memos_id id;

    enum memos_status status = memcube_ids_distinct(write, sources, sources_count, err);
    joined.derived_from =
        memos_arena_take(&write->read.arena, sources_count, sizeof *joined.derived_from);
    joined.derived_count = sources_count;
    if (status == MEMOS_OK && !joined.derived_from) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu sources", sources_count);
    }
    for (size_t i = 0; status == MEMOS_OK && i < sources_count; i++) {
        status = transition_plan(write, space, change, &sources[i], MEMCUBE_STATE_MERGED,
            MEMCUBE_OP_MERGE, &steps[i + 1], err);
        if (status == MEMOS_OK) {
            joined.derived_from[i] = (struct memcube_ref){
                sources[i], steps[i + 1].cube.number };
        }
    }
    if (status == MEMOS_OK) {
        status = draft_check(write, &joined, err);
    }
    if (status == MEMOS_OK && joined.description.external_id.size > 0) {
        status = external_cube(write, space, joined.description.external_id, &id, err);
        if (status == MEMOS_OK) {
            return memos_fail(err, MEMOS_EXISTS, "a cube has this external id already");
        }
        status = status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
    }
    step_create(&steps[0], &joined, MEMCUBE_OP_MERGE, change);
    return status;
}

enum memos_status memcube_merge(struct memcube_write *write, const struct memcube_change *change,
    const struct memos_id *sources, size_t sources_count, const struct memcube_draft *draft,
    struct memcube_outcome *out, struct memos_error *err)
{
    struct memcube_space_state *state = NULL;
    bool repeated = false;

    enum memos_status status = memcube_change_enter(write, change, &state, out, &repeated, err);
    if (status != MEMOS_OK || repeated) {
        return status;
    }
    if (sources_count < 2 || sources_count > MEMCUBE_DERIVED_MAX) {
        return memos_fail(err, MEMOS_INVALID, "2 to %d cubes can be merged, not %zu",
            MEMCUBE_DERIVED_MAX, sources_count);
    }
    struct memcube_step *steps =
        memos_arena_take(&write->read.arena, sources_count + 1, sizeof *steps);
    if (!steps) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu cubes", sources_count);
    }
    status = state ? MEMOS_OK : memcube_space_missing(change->space, err);
    if (status == MEMOS_OK) {
        status = merge_plan(
            write, &state->space, change, sources, sources_count, draft, steps, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    return steps_apply(write, change, MEMCUBE_OP_MERGE, steps, sources_count + 1, out, err);
}
