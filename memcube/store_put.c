/* Making cubes and updating them. */
#include "memcube/store_internal.h"

#include <stdlib.h>

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
    return status == MEMOS_OK ? memcube_store_draft_check(write, out, err) : status;
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
    memcube_version_take(&step->version, &merged);
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
    return memcube_steps_apply(write, change, MEMCUBE_OP_UPDATE, steps, updates_count, out, err);
}

/* ---- create -------------------------------------------------------------------------------- */

/* A draft whose external id a cube has already is an update of everything that it says. */
static enum memos_status create_again(struct memcube_write *write,
    const struct memcube_space *space, const struct memcube_change *change,
    const struct memcube_draft *draft, const struct memos_id *id, struct memcube_step *step,
    struct memos_error *err)
{
    struct memcube_update update = {
        .id = *id, .fields = (MEMCUBE_FIELD_SUBTYPE << 1) - 1, .draft = *draft };
    char text[MEMOS_ID_TEXT_BYTES];

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

    enum memos_status status = memcube_store_draft_check(write, draft, err);
    if (status != MEMOS_OK) {
        return status;
    }
    if (!space && draft->derived_count > 0) {
        return memos_fail(err, MEMOS_NOT_FOUND, "a new space has nothing to derive from");
    }
    if (space && external_id.size > 0) {
        status = memcube_external_cube(&write->read, space, external_id, &id, err);
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
    memcube_step_create(step, draft, MEMCUBE_OP_CREATE, change);
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
    return memcube_steps_apply(write, change, MEMCUBE_OP_CREATE, steps, drafts_count, out, err);
}
