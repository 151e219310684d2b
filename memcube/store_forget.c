/* Forgetting: payloads, descriptions and index entries of all versions of cubes, and of everything
 * that was ever derived from them, are destroyed. The chain stays, with a last version that says
 * so.
 *
 * In the transaction: references are dropped, index entries erased, and what must be destroyed is
 * put on the shred list. After the commit: the list is carried out (memcube_write_finish). */
#include "memcube/store_internal.h"

#include <stdlib.h>

/* What the versions of one cube name. */
struct named_payload {
    struct memcube_hash hash;
    uint64_t bytes;
};
struct contents {
    struct named_payload *payloads;
    uint32_t *docs;
    size_t count;
};

/* ---- the plan ------------------------------------------------------------------------------ */

static enum memos_status closure_check(struct memcube_write *write,
    const struct memcube_space *space, const struct memcube_ids *closure, bool force,
    struct memcube_ids *out_live, struct memos_error *err)
{
    const int64_t now = write->store->clock.wall_us(write->store->clock.self);
    char text[MEMOS_ID_TEXT_BYTES];
    enum memos_status status = MEMOS_OK;

    for (size_t i = 0; status == MEMOS_OK && i < closure->count; i++) {
        struct memcube_cube cube;
        struct memcube_version head;
        memos_arena_reset(&write->scratch);
        status =
            memcube_cube_read(&write->read, space->number, &closure->ids[i], &cube, err);
        if (status != MEMOS_OK || cube.state == MEMCUBE_STATE_FORGOTTEN) {
            continue;
        }
        status = memcube_header_at_row(
            &write->read, space->number, cube.row, &write->scratch, &head, err);
        if (status == MEMOS_OK && !force && head.governance.retain_until_us > now) {
            return memos_fail(err, MEMOS_CONFLICT, "cube %s must be kept for a while yet",
                memos_id_format(&cube.id, text));
        }
        if (status == MEMOS_OK) {
            status = memcube_ids_add(
                out_live, &write->read.arena, &closure->ids[i], NULL, NULL, err);
        }
    }
    return status;
}

static enum memos_status closure_find(struct memcube_write *write,
    const struct memcube_space *space, const struct memos_id *ids, size_t ids_count,
    struct memcube_ids *out, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;

    for (size_t i = 0; status == MEMOS_OK && i < ids_count; i++) {
        struct memcube_cube cube;
        status = memcube_cube_read(&write->read, space->number, &ids[i], &cube, err);
        if (status == MEMOS_OK) {
            status = memcube_ids_add(out, &write->read.arena, &ids[i], NULL, NULL, err);
        }
    }
    if (status == MEMOS_OK) {
        status = memcube_edges_close(
            &write->read, space->number, out, &write->read.arena, err);
    }
    return status;
}

/* ---- one cube ------------------------------------------------------------------------------ */

static int payload_compare(const void *a, const void *b)
{
    const struct named_payload *x = a, *y = b;
    return memcmp(x->hash.bytes, y->hash.bytes, sizeof x->hash.bytes);
}

static int doc_compare(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a;
    const uint32_t y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static enum memos_status contents_collect(struct memcube_write *write, uint32_t space,
    const struct memcube_cube *cube, struct memos_arena *arena, struct contents *out,
    struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;

    out->count = cube->number;
    out->payloads = memos_arena_take(arena, out->count, sizeof *out->payloads);
    out->docs = memos_arena_take(arena, out->count, sizeof *out->docs);
    if (!out->payloads || !out->docs) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu versions", out->count);
    }
    for (uint32_t number = 1; status == MEMOS_OK && number <= cube->number; number++) {
        struct memcube_version header;
        uint32_t row = 0;
        uint64_t seq = 0;
        memos_arena_reset(&write->scratch);
        status = memcube_chain_read(&write->read, space, &cube->id, number, &row, &seq, err);
        if (status == MEMOS_OK) {
            status = memcube_header_at_row(
                &write->read, space, row, &write->scratch, &header, err);
        }
        if (status == MEMOS_OK) {
            out->payloads[number - 1] =
                (struct named_payload){ header.payload_hash, header.payload_bytes };
            out->docs[number - 1] = header.doc;
        }
    }
    if (status == MEMOS_OK) {
        qsort(out->payloads, out->count, sizeof *out->payloads, payload_compare);
        qsort(out->docs, out->count, sizeof *out->docs, doc_compare);
    }
    return status;
}

static enum memos_status payloads_release(struct memcube_changing *changing,
    const struct contents *contents, struct memcube_forgotten *forgotten, struct memos_error *err)
{
    struct memcube_write *write = changing->write;
    struct memcube_space *space = &changing->state->space;
    enum memos_status status = MEMOS_OK;

    for (size_t i = 0, end = 0; status == MEMOS_OK && i < contents->count; i = end) {
        const struct named_payload *payload = &contents->payloads[i];
        bool destroyed = false;
        for (end = i; end < contents->count &&
                      memcube_hash_equal(&payload->hash, &contents->payloads[end].hash);
             end++) {
        }
        status = memcube_payload_release(write->store->payloads, write->read.txn, space->number,
            &payload->hash, (uint32_t)(end - i), &destroyed, err);
        space->payload_bytes -= destroyed ? payload->bytes : 0;
        forgotten->payloads_destroyed += destroyed;
        forgotten->payloads_shared += !destroyed;
    }
    return status;
}

static enum memos_status docs_forget(struct memcube_changing *changing,
    const struct memcube_cube *cube, const struct contents *contents, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;

    for (size_t i = 0; status == MEMOS_OK && i < contents->count; i++) {
        if (contents->docs[i] == 0 || (i > 0 && contents->docs[i] == contents->docs[i - 1])) {
            continue;
        }
        memos_arena_reset(&changing->write->scratch);
        status = memcube_doc_forget(changing, cube, contents->docs[i], err);
    }
    return status;
}

static enum memos_status names_forget(struct memcube_changing *changing,
    const struct memcube_cube *cube, const struct memcube_version *head, struct memos_error *err)
{
    struct memcube_write *write = changing->write;
    const struct memcube_space *space = &changing->state->space;
    enum memos_status status = MEMOS_OK;

    if (head->description.external_id.size > 0) {
        const struct memcube_key key =
            memcube_external_key(space, head->description.external_id);
        status = memcube_delete(write->read.txn, write->store->tables.external,
            memcube_key_view(&key), memos_bytes_make(NULL, 0), err);
    }
    if (status == MEMOS_OK || status == MEMOS_NOT_FOUND) {
        status = memcube_behaviour_erase(write, space->number, &cube->id, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_payload_shred_slot(
            write->store->payloads, write->read.txn, cube->slot, err);
    }
    return status;
}

/* The last version: ids, times, author and reason; no payload, no description, no doc. */
static void step_forget(struct memcube_step *step, const struct memcube_cube *cube,
    const struct memcube_version *head, const struct memcube_change *change)
{
    memcube_step_repeat(step, cube, head, head, MEMCUBE_OP_FORGET, change);
    step->bare = true;
    step->like = NULL;
    step->payload_share = false;
    step->cube.doc = 0;
    step->cube.flags = 0;
    step->cube.slot = 0;
    step->version.state = MEMCUBE_STATE_FORGOTTEN;
    step->version.payload_hash = (struct memcube_hash){ .bytes = { 0 } };
    step->version.payload_bytes = 0;
    step->version.codec = memos_bytes_make("", 0);
    step->version.description_hash = (struct memcube_hash){ .bytes = { 0 } };
    step->version.description = (struct memcube_description){ .event_us = 0 };
}

enum memos_status memcube_cube_destroy(struct memcube_changing *changing,
    const struct memcube_cube *cube, const struct memcube_version *head,
    struct memcube_forgotten *forgotten, struct memos_error *err)
{
    struct memcube_write *write = changing->write;
    const uint32_t space = changing->state->space.number;
    struct contents contents = { .count = 0 };
    struct memos_arena arena;

    memos_arena_init(&arena, write->scratch.size_max);
    enum memos_status status = contents_collect(write, space, cube, &arena, &contents, err);
    if (status == MEMOS_OK) {
        status = docs_forget(changing, cube, &contents, err);
    }
    if (status == MEMOS_OK) {
        status = payloads_release(changing, &contents, forgotten, err);
    }
    if (status == MEMOS_OK) {
        status = names_forget(changing, cube, head, err);
    }
    memos_arena_finish(&arena);
    if (status == MEMOS_OK) {
        write->shred = true;
    }
    return status;
}

static enum memos_status forget_one(struct memcube_changing *changing, const struct memos_id *id,
    struct memos_arena *arena, struct memcube_forgotten *forgotten, struct memos_error *err)
{
    struct memcube_write *write = changing->write;
    const uint32_t space = changing->state->space.number;
    struct memcube_cube cube;
    struct memcube_version head;
    struct memcube_step step;

    enum memos_status status = memcube_cube_read(&write->read, space, id, &cube, err);
    if (status == MEMOS_OK) {
        status =
            memcube_version_load(&write->read, space, &cube, cube.row, arena, &head, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_cube_destroy(changing, &cube, &head, forgotten, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    step_forget(&step, &cube, &head, changing->change);
    return memcube_changing_step(changing, &step, err);
}

/* ---- all ----------------------------------------------------------------------------------- */

static enum memos_status forget_all(struct memcube_write *write,
    const struct memcube_change *change, const struct memcube_ids *live,
    struct memcube_outcome *out, struct memcube_forgotten *forgotten, struct memos_error *err)
{
    struct memcube_changing changing;
    struct memos_arena arena;

    enum memos_status status = memcube_changing_begin(
        &changing, write, change, MEMCUBE_OP_FORGET, live->count, err);
    if (status != MEMOS_OK) {
        return status;
    }
    memos_arena_init(&arena, write->scratch.size_max);
    for (size_t i = 0; status == MEMOS_OK && i < live->count; i++) {
        memos_arena_reset(&arena);
        status = forget_one(&changing, &live->ids[i], &arena, forgotten, err);
    }
    memos_arena_finish(&arena);
    if (status == MEMOS_OK) {
        status = memcube_changing_end(&changing, NULL, 0, out, err);
    }
    write->broken |= status != MEMOS_OK;
    return status;
}

enum memos_status memcube_forget(struct memcube_write *write, const struct memcube_change *change,
    const struct memos_id *ids, size_t ids_count, bool force, bool dry_run,
    struct memcube_outcome *out, struct memcube_forgotten *out_forgotten, struct memos_error *err)
{
    struct memcube_space_state *state = NULL;
    struct memcube_ids closure = { .count = 0 };
    struct memcube_ids live = { .count = 0 };
    bool repeated = false;

    *out_forgotten = (struct memcube_forgotten){ .ids = NULL };
    enum memos_status status =
        memcube_change_enter(write, change, &state, out, &repeated, err);
    /* Asked for again, since it could not be destroyed? Then this commit must do it. */
    write->shred = write->shred || (status == MEMOS_OK && write->store->shred_pending);
    if (status != MEMOS_OK || repeated) {
        return status;
    }
    if (!state) {
        return memcube_space_missing(change->space, err);
    }
    status = closure_find(write, &state->space, ids, ids_count, &closure, err);
    if (status == MEMOS_OK) {
        status = closure_check(write, &state->space, &closure, force, &live, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    out_forgotten->ids = live.ids;
    out_forgotten->ids_count = live.count;
    if (dry_run) {
        *out = (struct memcube_outcome){
            .head = state->space.head, .time_us = state->space.changed_us };
        return MEMOS_OK;
    }
    if (live.count == 0) {
        return memcube_changing_none(write, change, NULL, 0, out, err);
    }
    return forget_all(write, change, &live, out, out_forgotten, err);
}
