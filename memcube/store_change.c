/* Applying a change: versions into rows, chain, docs and indexes, then one log record. */
#include "memcube/store_internal.h"

#include <sodium.h>
#include <stdlib.h>

enum { KEY_BYTES_MAX = 64 }; /* of an idempotency key */

enum memos_status memcube_change_check(const struct memcube_change *change,
    struct memos_error *err)
{
    if (change->author.size == 0 || change->author.size > MEMCUBE_NAME_BYTES_MAX ||
        !memos_bytes_utf8(change->author)) {
        return memos_fail(err, MEMOS_INVALID, "the author must be 1 to %d bytes of UTF-8",
            MEMCUBE_NAME_BYTES_MAX);
    }
    if (change->reason.size > MEMCUBE_REASON_BYTES_MAX) {
        return memos_fail(err, MEMOS_TOO_LARGE, "the reason has %zu bytes; %d are allowed",
            change->reason.size, MEMCUBE_REASON_BYTES_MAX);
    }
    if (!memos_bytes_utf8(change->reason)) {
        return memos_fail(err, MEMOS_INVALID, "the reason is not UTF-8");
    }
    if (change->idempotency_key.size > KEY_BYTES_MAX) {
        return memos_fail(err, MEMOS_TOO_LARGE,
            "the idempotency key has %zu bytes; %d are allowed", change->idempotency_key.size,
            KEY_BYTES_MAX);
    }
    return memcube_space_check(change->space, err);
}

enum memos_status memcube_change_enter(struct memcube_write *write,
    const struct memcube_change *change, struct memcube_space_state **out_state,
    struct memcube_outcome *out, bool *out_repeated, struct memos_error *err)
{
    *out_state = NULL;
    *out_repeated = false;
    enum memos_status status = memcube_change_check(change, err);
    if (status != MEMOS_OK) {
        return status;
    }
    status = memcube_idem_find(write, change, out, err);
    if (status == MEMOS_OK) {
        *out_repeated = true;
        return MEMOS_OK;
    }
    if (status != MEMOS_NOT_FOUND) {
        return status;
    }
    status = memcube_space_state_find(write, change->space, out_state, err);
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

/* ---- begin --------------------------------------------------------------------------------- */

enum memos_status memcube_changing_begin(struct memcube_changing *changing,
    struct memcube_write *write, const struct memcube_change *change,
    enum memcube_operation operation, size_t entries_max, struct memos_error *err)
{
    struct memcube_store *store = write->store;
    const int64_t now = store->clock.wall_us(store->clock.self);

    *changing = (struct memcube_changing){
        .write = write, .change = change, .operation = operation, .entries_max = entries_max };
    changing->entries =
        memos_arena_take(&write->read.arena, entries_max, sizeof *changing->entries);
    if (!changing->entries) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu versions", entries_max);
    }
    enum memos_status status =
        memcube_space_state_find(write, change->space, &changing->state, NULL);
    if (status == MEMOS_NOT_FOUND) {
        write->broken = true; /* until it is made */
        status = memcube_space_state_make(
            write, change->space, now, NULL, &changing->state, err);
        write->broken = status != MEMOS_OK;
    }
    if (status != MEMOS_OK) {
        return status;
    }
    const int64_t before = changing->state->space.changed_us;
    changing->time_us = now > before ? now : before;
    changing->seq = changing->state->space.seq + 1;
    return MEMOS_OK;
}

/* ---- one version --------------------------------------------------------------------------- */

static enum memos_status step_payload(struct memcube_changing *changing,
    const struct memcube_step *step, struct memcube_place *out_place, struct memos_error *err)
{
    struct memcube_write *write = changing->write;
    struct memcube_space *space = &changing->state->space;
    uint64_t bytes_new = 0;

    if (step->bare) {
        return MEMOS_OK;
    }
    if (step->payload_share) {
        return memcube_payload_share(write->store->payloads, write->read.txn, space->number,
            &step->version.payload_hash, out_place, err);
    }
    const enum memos_status status =
        memcube_payload_add(write->store->payloads, write->read.txn, space->number,
            &step->version.payload_hash, step->payload, out_place, &bytes_new, err);
    space->payload_bytes += bytes_new;
    return status;
}

/* The canonical bytes of description and header; an import brings its own. */
static enum memos_status step_encode(
    struct memcube_write *write, struct memcube_step *step, struct memos_error *err)
{
    struct memcube_version *version = &step->version;
    uint8_t salt[MEMCUBE_SALT_BYTES];

    memos_buffer_reset(&write->header);
    memos_buffer_reset(&write->description);
    if (step->header_raw.size > 0) {
        memos_buffer_bytes(&write->header, step->header_raw.data, step->header_raw.size);
        memos_buffer_bytes(
            &write->description, step->description_raw.data, step->description_raw.size);
    } else {
        if (!step->bare) {
            randombytes_buf(salt, sizeof salt);
            memcube_description_encode(&version->description, salt, &write->description);
            version->description_hash =
                memcube_hash_of(memos_buffer_view(&write->description));
        }
        memcube_header_encode(version, &write->header);
    }
    if (write->header.failed || write->description.failed) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a version");
    }
    return MEMOS_OK;
}

static enum memos_status row_write(struct memcube_changing *changing,
    const struct memcube_step *step, struct memcube_place place, struct memos_error *err)
{
    struct memcube_write *write = changing->write;
    const struct memcube_version *version = &step->version;
    const struct memcube_key key =
        memcube_key_of_u32(changing->state->space.number, version->row);
    struct memos_buffer *value = &write->value;

    memos_buffer_reset(value);
    memos_buffer_u64(value, place.slot);
    memos_buffer_u32(value, version->doc);
    memos_buffer_u64(value, version->seq);
    memos_buffer_sized(value, memos_buffer_view(&write->header));
    memos_buffer_u32(value, (uint32_t)write->description.size);
    void *room = memos_buffer_take(value, write->description.size);
    if (value->failed) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a row");
    }
    enum memos_status status = MEMOS_OK;
    if (write->description.size > 0) {
        status = memcube_vault_apply(write->store->vault, step->cube.slot,
            memcube_description_nonce(&version->description_hash),
            write->description.data, room, write->description.size, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_put(write->read.txn, write->store->tables.row, memcube_key_view(&key),
            memos_buffer_view(value), err);
    }
    return status;
}

static enum memos_status chain_write(struct memcube_changing *changing,
    const struct memcube_version *version, struct memos_error *err)
{
    struct memcube_write *write = changing->write;
    struct memcube_key key =
        memcube_key_of_id(changing->state->space.number, &version->id);

    memcube_key_u32(&key, version->number);
    memos_buffer_reset(&write->value);
    memos_buffer_u32(&write->value, version->row);
    memos_buffer_u64(&write->value, version->seq);
    if (write->value.failed) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a chain entry");
    }
    return memcube_put(write->read.txn, write->store->tables.chain, memcube_key_view(&key),
        memos_buffer_view(&write->value), err);
}

static enum memos_status expiry_write(struct memcube_write *write, uint32_t space,
    const struct memos_id *id, int64_t expires_us, bool add, struct memos_error *err)
{
    struct memcube_key key = { .size = 0 };
    const memcube_table table = write->store->tables.expiry;

    memcube_key_time(&key, expires_us);
    memcube_key_u32(&key, space);
    memcube_key_bytes(&key, id->bytes, sizeof id->bytes);
    if (add) {
        return memcube_put(
            write->read.txn, table, memcube_key_view(&key), memos_bytes_make("", 0), err);
    }
    const enum memos_status status = memcube_delete(
        write->read.txn, table, memcube_key_view(&key), memos_bytes_make(NULL, 0), err);
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

static enum memos_status step_expiry(struct memcube_changing *changing,
    const struct memcube_step *step, struct memos_error *err)
{
    const uint32_t space = changing->state->space.number;
    const struct memcube_version *head = step->head;
    const struct memcube_version *version = &step->version;
    const int64_t before = head ? memcube_expiry_of(head->state, &head->governance) : INT64_MAX;
    const int64_t after = memcube_expiry_of(version->state, &version->governance);
    enum memos_status status = MEMOS_OK;

    if (before == after) {
        return MEMOS_OK;
    }
    if (before != INT64_MAX) {
        status = expiry_write(changing->write, space, &version->id, before, false, err);
    }
    if (status == MEMOS_OK && after != INT64_MAX) {
        status = expiry_write(changing->write, space, &version->id, after, true, err);
    }
    return status;
}

static enum memos_status step_external(struct memcube_changing *changing,
    const struct memcube_step *step, struct memos_error *err)
{
    struct memcube_write *write = changing->write;
    const struct memos_bytes external_id = step->version.description.external_id;

    if (step->head || external_id.size == 0) {
        return MEMOS_OK;
    }
    const struct memcube_key key =
        memcube_external_key(&changing->state->space, external_id);
    return memcube_put(write->read.txn, write->store->tables.external, memcube_key_view(&key),
        memos_bytes_make(step->version.id.bytes, sizeof step->version.id.bytes), err);
}

static enum memos_status step_docs(struct memcube_changing *changing, struct memcube_step *step,
    struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;

    if (step->cube.number != 0 && step->cube.doc != 0 && step->cube.doc != step->version.doc) {
        status = memcube_doc_leave(changing, &step->cube, err);
    }
    if (status == MEMOS_OK && step->version.doc != 0) {
        status = memcube_doc_enter(changing, step, err);
    }
    return status;
}

static enum memos_status step_index(struct memcube_changing *changing,
    const struct memcube_step *step, struct memos_error *err)
{
    struct memcube_write *write = changing->write;
    const struct memcube_space *space = &changing->state->space;
    const bool plain = step->version.kind == MEMCUBE_PLAINTEXT;
    uint8_t key[MEMCUBE_DOC_KEY_BYTES];
    const struct memcube_index_doc doc = {
        .space = space->number,
        .doc = step->version.doc,
        .replaces = step->cube.number != 0 ? step->cube.doc : 0,
        .version = &step->version,
        .text = plain ? step->payload : memos_bytes_make("", 0),
        .secret = space->secret,
        .key = key,
    };

    if (write->store->indexes_count == 0) {
        return MEMOS_OK;
    }
    enum memos_status status = memcube_slot_doc_key(
        write->store->vault, step->cube.slot, step->version.doc, key, err);
    for (size_t i = 0; status == MEMOS_OK && i < write->store->indexes_count; i++) {
        struct memcube_index *index = write->store->indexes[i];
        status = index->add(index->self, write->read.txn, &doc, err);
    }
    sodium_memzero(key, sizeof key);
    return status;
}

static bool counted(enum memcube_state state)
{
    return state != MEMCUBE_STATE_WITHDRAWN && state != MEMCUBE_STATE_FORGOTTEN;
}

/* May this version change what stands: the cube itself, or what was derived from it? */
static bool step_touches(const struct memcube_step *step)
{
    const struct memcube_version *head = step->head;
    const struct memcube_version *version = &step->version;

    if (!head) {
        /* An import may bring the source of what was imported before it. */
        return version->derived_count > 0 || step->header_raw.size > 0;
    }
    return !memcube_hash_equal(&head->payload_hash, &version->payload_hash) ||
           memcube_state_stands(head->state) != memcube_state_stands(version->state) ||
           !memcube_derived_same(head, version);
}

/* Numbers, times and places that the store gives; the cube's record for the step. */
static enum memos_status step_fill(struct memcube_changing *changing, struct memcube_step *step,
    struct memos_error *err)
{
    struct memcube_write *write = changing->write;
    struct memcube_space *space = &changing->state->space;
    struct memcube_version *version = &step->version;

    if (step->cube.number == 0) {
        const enum memos_status status =
            step->bare ? MEMOS_OK : memcube_slot_take(write, &step->cube.slot, err);
        if (status != MEMOS_OK) {
            return status;
        }
        if (memos_id_is_nil(&version->id)) {
            version->id = memos_id_next(&write->store->ids, &write->store->clock);
        }
        step->cube.id = version->id;
    }
    if (step->header_raw.size == 0) {
        version->number = step->cube.number + 1;
        version->parent = step->cube.number;
        version->time_us = changing->time_us;
    }
    if (version->description.event_us == 0 && !step->bare) {
        version->description.event_us = version->time_us;
    }
    if (space->versions >= UINT32_MAX - 1 || space->docs >= UINT32_MAX - 1) {
        return memos_fail(err, MEMOS_TOO_LARGE, "the space has all the versions it can number");
    }
    version->seq = changing->seq;
    version->row = (uint32_t)++space->versions;
    version->doc = step->bare ? 0 : step->like ? step->like->doc : ++space->docs;
    return MEMOS_OK;
}

static void step_count(struct memcube_changing *changing, const struct memcube_step *step)
{
    struct memcube_space *space = &changing->state->space;
    const bool before = step->head && counted(step->cube.state);
    const bool after = counted(step->version.state);

    space->cubes += (uint64_t)after - (uint64_t)before;
    changing->entries[changing->entries_count++] = (struct memcube_log_entry){
        .ref = { .id = step->version.id, .number = step->version.number },
        .version_hash = memcube_hash_of(memos_buffer_view(&changing->write->header)),
    };
    changing->write->versions++;
}

static enum memos_status step_apply(struct memcube_changing *changing, struct memcube_step *step,
    struct memos_error *err)
{
    struct memcube_write *write = changing->write;
    const uint32_t space = changing->state->space.number;
    struct memcube_place place = { 0 };

    enum memos_status status = step_fill(changing, step, err);
    if (status == MEMOS_OK) {
        status = step_payload(changing, step, &place, err);
    }
    if (status == MEMOS_OK) {
        status = step_encode(write, step, err);
    }
    if (status == MEMOS_OK) {
        status = row_write(changing, step, place, err);
    }
    if (status == MEMOS_OK) {
        status = chain_write(changing, &step->version, err);
    }
    if (status == MEMOS_OK) {
        status = step_docs(changing, step, err);
    }
    if (status == MEMOS_OK && !step->like && !step->bare) {
        status = step_index(changing, step, err);
    }
    if (status == MEMOS_OK) {
        status = step_expiry(changing, step, err);
    }
    if (status == MEMOS_OK) {
        status = step_external(changing, step, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_edges_write(write, space, &step->version, step->head, err);
    }
    if (status == MEMOS_OK && step_touches(step)) {
        status = memcube_ids_add(&changing->touched, &write->read.arena, &step->version.id, NULL,
            NULL, err);
    }
    return status;
}

enum memos_status memcube_changing_step(
    struct memcube_changing *changing, struct memcube_step *step, struct memos_error *err)
{
    struct memcube_write *write = changing->write;

    memos_assert(changing->entries_count < changing->entries_max);
    memos_arena_reset(&write->scratch);
    changing->state->dirty = true;
    enum memos_status status = step_apply(changing, step, err);
    if (status == MEMOS_OK) {
        step_count(changing, step);
        struct memcube_cube cube = step->cube;
        cube.row = step->version.row;
        cube.number = step->version.number;
        cube.doc = step->version.doc;
        cube.state = step->version.state;
        if (step->version.description.readers_count > 0) {
            cube.flags |= MEMCUBE_CUBE_RESTRICTED;
        }
        status = memcube_cube_write(write, changing->state->space.number, &cube, err);
    }
    if (status != MEMOS_OK) {
        write->broken = true;
    }
    return status;
}

/* ---- the log record ------------------------------------------------------------------------ */

static enum memos_status log_write(struct memcube_changing *changing, struct memos_bytes bytes,
    struct memos_error *err)
{
    struct memcube_write *write = changing->write;
    struct memcube_space *space = &changing->state->space;
    const struct memcube_key key = memcube_key_of_u64(space->number, changing->seq);

    const enum memos_status status = memcube_put(
        write->read.txn, write->store->tables.log, memcube_key_view(&key), bytes, err);
    if (status == MEMOS_OK) {
        space->seq = changing->seq;
        space->head = memcube_hash_of(bytes);
        space->changed_us = changing->time_us;
        changing->state->dirty = true;
        write->records++;
    }
    return status;
}

static enum memos_status log_append(struct memcube_changing *changing, struct memos_error *err)
{
    struct memcube_write *write = changing->write;
    const struct memcube_log_record record = {
        .seq = changing->seq,
        .time_us = changing->time_us,
        .operation = changing->operation,
        .author = changing->change->author,
        .reason = changing->change->reason,
        .previous = changing->state->space.head,
        .entries = changing->entries,
        .entries_count = changing->entries_count,
        .affected = changing->affected.ids,
        .affected_count = changing->affected.count,
        .rollback_to = changing->rollback_to,
    };

    memos_buffer_reset(&write->value);
    memcube_log_encode(&changing->state->space.id, &record, &write->value);
    if (write->value.failed) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a log record");
    }
    return log_write(changing, memos_buffer_view(&write->value), err);
}

static enum memos_status outcome_fill(struct memcube_changing *changing,
    const struct memcube_ref *refs, size_t refs_count, struct memcube_outcome *out,
    struct memos_error *err)
{
    const size_t count = refs ? refs_count : changing->entries_count;
    struct memcube_ref *copy =
        memos_arena_take(&changing->write->read.arena, count, sizeof *copy);

    if (!copy) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for an outcome");
    }
    for (size_t i = 0; i < count; i++) {
        copy[i] = refs ? refs[i] : changing->entries[i].ref;
    }
    *out = (struct memcube_outcome){
        .seq = changing->seq,
        .time_us = changing->time_us,
        .head = changing->state->space.head,
        .refs = copy,
        .refs_count = count,
        .affected = changing->affected.ids,
        .affected_count = changing->affected.count,
    };
    return MEMOS_OK;
}

enum memos_status memcube_changing_end(struct memcube_changing *changing,
    const struct memcube_ref *refs, size_t refs_count, struct memcube_outcome *out,
    struct memos_error *err)
{
    struct memcube_write *write = changing->write;

    enum memos_status status = memcube_stale_update(changing, err);
    if (status == MEMOS_OK) {
        status = log_append(changing, err);
    }
    if (status == MEMOS_OK) {
        status = outcome_fill(changing, refs, refs_count, out, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_idem_keep(write, changing->change, out, err);
    }
    if (status != MEMOS_OK) {
        write->broken = true;
    }
    return status;
}

enum memos_status memcube_changing_none(struct memcube_write *write,
    const struct memcube_change *change, const struct memcube_ref *refs, size_t refs_count,
    struct memcube_outcome *out, struct memos_error *err)
{
    struct memcube_changing changing = { .write = write };

    enum memos_status status =
        memcube_space_state_find(write, change->space, &changing.state, err);
    if (status == MEMOS_OK) {
        changing.time_us = changing.state->space.changed_us;
        status = outcome_fill(&changing, refs, refs_count, out, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_idem_keep(write, change, out, err);
        write->broken = write->broken || status != MEMOS_OK;
    }
    return status;
}

enum memos_status memcube_changing_end_raw(
    struct memcube_changing *changing, struct memos_bytes log, struct memos_error *err)
{
    enum memos_status status = memcube_stale_update(changing, err);
    if (status == MEMOS_OK) {
        status = log_write(changing, log, err);
    }
    if (status != MEMOS_OK) {
        changing->write->broken = true;
    }
    return status;
}
