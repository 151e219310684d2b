/* Import: an archive's records and versions, byte for byte, through the store's own way of making
 * changes, so that every index, flag and count comes out as if it had happened here. */
#include "memcube/archive_format.h"
#include "memcube/store_internal.h"

#include <string.h>

struct import {
    struct memcube_write *write;
    const struct memcube_change *change;
    const struct memcube_archive *archive;
    uint32_t space;                /* number */
    struct memos_arena arena;      /* for one version */
    struct memos_arena log_arena;  /* for one record */
    uint64_t added;
};

/* ---- one version --------------------------------------------------------------------------- */

/* The earlier version whose words this one repeats: the head, or the one that it says it
 * repeats. */
static enum memos_status like_find(struct import *i, struct memcube_step *step,
    struct memcube_version *room, struct memos_error *err)
{
    const struct memcube_version *version = &step->version;
    uint32_t row;
    uint64_t seq;

    if (step->bare || !step->head) {
        return MEMOS_OK;
    }
    if (memcube_content_same(step->head, version) && step->head->doc != 0) {
        step->like = step->head;
        return MEMOS_OK;
    }
    if (version->equals == 0) {
        return MEMOS_OK;
    }
    struct memcube_read *read = &i->write->read;
    enum memos_status status =
        memcube_chain_read(read, i->space, &version->id, version->equals, &row, &seq, err);
    if (status == MEMOS_OK) {
        status =
            memcube_version_load(read, i->space, &step->cube, row, &i->arena, room, err);
    }
    if (status == MEMOS_OK && memcube_content_same(room, version) && room->doc != 0) {
        step->like = room;
    }
    return status;
}

/* Description and payload, as the archive has them. */
static enum memos_status content_read(struct import *i,
    const struct memcube_archive_version *parts, struct memcube_step *step,
    struct memos_error *err)
{
    struct memcube_version *version = &step->version;
    step->description_raw = parts->description;
    enum memos_status status = memcube_description_decode(
        parts->description, &i->arena, &version->description, err);
    if (status == MEMOS_OK) {
        status =
            memcube_archive_payload(i->archive, &version->payload_hash, &step->payload, err);
    }
    if (status == MEMOS_OK && step->payload.size > i->write->store->payload_bytes_max) {
        return memos_fail(err, MEMOS_TOO_LARGE, "a payload of %zu bytes; this store takes %zu",
            step->payload.size, i->write->store->payload_bytes_max);
    }
    return status;
}

/* Another cube here may have the external id that a new cube brings. */
static enum memos_status external_check(struct import *i, const struct memcube_changing *changing,
    const struct memcube_step *step, struct memos_error *err)
{
    struct memos_bytes external_id = step->version.description.external_id;
    struct memos_id other;
    if (step->head || external_id.size == 0) {
        return MEMOS_OK;
    }
    enum memos_status status = memcube_external_find(
        &i->write->read, &changing->state->space, external_id, &other, err);
    if (status == MEMOS_OK && !memos_id_equal(&other, &step->version.id)) {
        char text[MEMOS_ID_TEXT_BYTES];
        return memos_fail(err, MEMOS_CONFLICT, "cube %s has the same external id here",
            memos_id_format(&other, text));
    }
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

/* A version without content: its cube is forgotten, in this record or further on. It counts as that
 * from here, so that nothing looks for content that never came, and what is here of it goes. */
static enum memos_status bare_prepare(
    struct memcube_changing *changing, struct memcube_step *step, struct memos_error *err)
{
    struct memcube_forgotten forgotten = { .ids = NULL };
    enum memos_status status = MEMOS_OK;
    if (step->head && step->cube.state != MEMCUBE_STATE_FORGOTTEN) {
        status = memcube_cube_destroy(changing, &step->cube, step->head, &forgotten, err);
    }
    step->cube.doc = 0;
    step->cube.flags = 0;
    step->cube.slot = 0;
    step->version.state = MEMCUBE_STATE_FORGOTTEN;
    return status;
}

/* Append one version as it was. */
static enum memos_status version_apply(struct import *i, struct memcube_changing *changing,
    const struct memcube_archive_frame *frame, struct memos_error *err)
{
    struct memcube_archive_version parts;
    struct memcube_version head, like;
    struct memcube_step step = { .like = NULL };

    memos_arena_reset(&i->arena);
    enum memos_status status = memcube_archive_version_read(frame, &parts, err);
    if (status == MEMOS_OK) {
        status = memcube_header_decode(parts.header, &i->arena, &step.version, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    step.header_raw = parts.header;
    step.bare = parts.description.size == 0;
    status = memcube_cube_read(&i->write->read, i->space, &step.version.id, &step.cube, NULL);
    if (status == MEMOS_OK) {
        status = memcube_version_load(
            &i->write->read, i->space, &step.cube, step.cube.row, &i->arena, &head, err);
        step.head = &head;
    } else if (status == MEMOS_NOT_FOUND) {
        step.cube = (struct memcube_cube){ .number = 0 };
        status = MEMOS_OK;
    }
    if (status == MEMOS_OK && step.version.number != step.cube.number + 1) {
        return memos_fail(err, MEMOS_CONFLICT, "version %u would follow version %u of its cube",
            step.version.number, step.cube.number);
    }
    if (status == MEMOS_OK && !step.bare) {
        status = content_read(i, &parts, &step, err);
    }
    if (status == MEMOS_OK && !step.bare) {
        status = like_find(i, &step, &like, err);
    }
    if (status == MEMOS_OK && !step.bare) {
        status = external_check(i, changing, &step, err);
    }
    if (status == MEMOS_OK && step.bare) {
        status = bare_prepare(changing, &step, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_changing_step(changing, &step, err);
    }
    return status;
}

/* ---- a space ------------------------------------------------------------------------------- */

static enum memos_status log_get(
    struct import *i, uint64_t seq, struct memos_bytes *out, struct memos_error *err)
{
    struct memcube_key key = memcube_key_of_u64(i->space, seq);
    return memcube_get(
        i->write->read.txn, i->write->store->tables.log, memcube_key_view(&key), out, err);
}

/* A record that is here already must be the very same. */
static enum memos_status record_compare(struct import *i, uint64_t seq,
    const struct memcube_archive_frame *frame, struct memos_error *err)
{
    struct memos_bytes here;
    enum memos_status status = log_get(i, seq, &here, err);
    if (status == MEMOS_OK && !memos_bytes_equal(here, frame->content)) {
        return memos_fail(err, MEMOS_CONFLICT,
            "the histories differ from record %llu on: the archive has another one",
            (unsigned long long)seq);
    }
    return status;
}

/* Every cube whose staleness changed here must have changed there, and the other way round. What is
 * forgotten further on does not count: it went at once here. */
static enum memos_status affected_check(struct import *i, const struct memcube_changing *changing,
    const struct memcube_log_record *record, struct memos_error *err)
{
    const struct memcube_idmap *forgotten = &i->archive->forgotten;
    size_t there = 0, here = 0;
    bool found = true;
    for (size_t n = 0; found && n < record->affected_count; n++) {
        if (!memcube_idmap_find(forgotten, record->affected[n].bytes)) {
            found = memcube_ids_find(&changing->affected, &record->affected[n], NULL);
            there++;
        }
    }
    for (size_t n = 0; n < changing->affected.count; n++) {
        here += !memcube_idmap_find(forgotten, changing->affected.ids[n].bytes);
    }
    if (!found || there != here) {
        return memos_fail(err, MEMOS_CORRUPT,
            "record %llu says that it made other cubes stale than it did",
            (unsigned long long)record->seq);
    }
    return MEMOS_OK;
}

/* Append a record and the versions that follow it at *at. */
static enum memos_status record_apply(struct import *i,
    const struct memcube_archive_frame *record_frame, size_t *at, struct memos_error *err)
{
    struct memcube_log_record record;
    struct memcube_archive_frame frame;
    struct memcube_changing changing;
    struct memos_id space_id;

    memos_arena_reset(&i->log_arena);
    enum memos_status status =
        memcube_log_decode(record_frame->content, &i->log_arena, &space_id, &record, err);
    if (status == MEMOS_OK) {
        status = memcube_changing_begin(&changing, i->write, i->change, record.operation,
            record.entries_count ? record.entries_count : 1, err);
    }
    if (status == MEMOS_OK) {
        changing.time_us = record.time_us;
        changing.rollback_to = record.rollback_to;
    }
    for (size_t n = 0; status == MEMOS_OK && n < record.entries_count;) {
        status = memcube_archive_frame_read(i->archive->bytes, at, &frame, err);
        if (status == MEMOS_OK && frame.type == MEMCUBE_ARCHIVE_VERSION) {
            status = version_apply(i, &changing, &frame, err);
            n++;
        }
    }
    if (status == MEMOS_OK) {
        status = memcube_changing_end_raw(&changing, record_frame->content, err);
    }
    if (status == MEMOS_OK) {
        status = affected_check(i, &changing, &record, err);
    }
    i->added++;
    return status;
}

/* The space: there with this id, or made with it. */
static enum memos_status space_open(
    struct import *i, struct memcube_space_state **out, struct memos_error *err)
{
    const struct memcube_archive_summary *summary = &i->archive->summary;
    const struct memos_clock *clock = &i->write->store->clock;
    enum memos_status status =
        memcube_space_state_find(i->write, i->change->space, out, err);
    if (status == MEMOS_NOT_FOUND) {
        i->write->broken = true; /* until it is made */
        status = memcube_space_state_make(i->write, i->change->space, clock->wall_us(clock->self),
            &summary->space_id, out, err);
        i->write->broken = status != MEMOS_OK;
        if (status == MEMOS_OK) {
            /* Times in its log must not be older than what the space says. */
            (*out)->space.changed_us = INT64_MIN;
        }
    }
    if (status == MEMOS_OK && !memos_id_equal(&(*out)->space.id, &summary->space_id)) {
        return memos_fail(err, MEMOS_CONFLICT,
            "space %.*s is another space than the archive's, not an older or newer state of it",
            (int)i->change->space.size, (const char *)i->change->space.data);
    }
    if (status == MEMOS_OK) {
        i->space = (*out)->space.number;
    }
    return status;
}

static enum memos_status import_space(
    struct import *i, struct memcube_outcome *out, struct memos_error *err)
{
    struct memcube_space_state *state;
    struct memcube_archive_frame frame;
    size_t at = MEMCUBE_ARCHIVE_START_BYTES;
    uint64_t seq = 0;

    enum memos_status status = space_open(i, &state, err);
    uint64_t seq_here = status == MEMOS_OK ? state->space.seq : 0;
    bool ended = false;
    while (status == MEMOS_OK && !ended) {
        status = memcube_archive_frame_read(i->archive->bytes, &at, &frame, err);
        if (status != MEMOS_OK) {
            return status;
        }
        ended = frame.type == MEMCUBE_ARCHIVE_END;
        if (frame.type != MEMCUBE_ARCHIVE_RECORD) {
            continue;
        }
        seq++;
        if (seq <= seq_here) {
            status = record_compare(i, seq, &frame, err);
        } else {
            status = record_apply(i, &frame, &at, err);
            i->write->broken |= status != MEMOS_OK;
        }
    }
    if (status != MEMOS_OK) {
        return status;
    }
    if (state->space.seq == 0) {
        state->space.changed_us = state->space.created_us;
    }
    *out = (struct memcube_outcome){
        .seq = i->added > 0 ? state->space.seq : 0,
        .time_us = state->space.changed_us,
        .head = state->space.head,
    };
    return MEMOS_OK;
}

/* ---- a cube -------------------------------------------------------------------------------- */

/* A version that is here already must have the very same header. */
static enum memos_status version_compare(
    struct import *i, const struct memcube_archive_frame *frame, uint32_t number,
    struct memos_error *err)
{
    struct memcube_archive_version parts;
    struct memcube_row row;
    uint32_t row_number;
    uint64_t seq;
    struct memcube_read *read = &i->write->read;

    memos_arena_reset(&i->arena);
    enum memos_status status = memcube_archive_version_read(frame, &parts, err);
    if (status == MEMOS_OK) {
        status = memcube_chain_read(
            read, i->space, &i->archive->cube_id, number, &row_number, &seq, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_row_read(read, i->space, row_number, &i->arena, &row, err);
    }
    if (status == MEMOS_OK && !memos_bytes_equal(row.header, parts.header)) {
        return memos_fail(err, MEMOS_CONFLICT,
            "the cube's histories differ from version %u on: the archive has another one", number);
    }
    return status;
}

/* Walk the versions: compare those up to number_here, append the others. */
static enum memos_status versions_walk(struct import *i, struct memcube_changing *changing,
    uint32_t number_here, struct memos_error *err)
{
    struct memcube_archive_frame frame;
    size_t at = MEMCUBE_ARCHIVE_START_BYTES;
    uint32_t number = 0;
    enum memos_status status = MEMOS_OK;
    while (status == MEMOS_OK && number < i->archive->summary.versions) {
        status = memcube_archive_frame_read(i->archive->bytes, &at, &frame, err);
        if (status != MEMOS_OK || frame.type != MEMCUBE_ARCHIVE_VERSION) {
            continue;
        }
        number++;
        if (number <= number_here && !changing) {
            status = version_compare(i, &frame, number, err);
        } else if (number > number_here && changing) {
            status = version_apply(i, changing, &frame, err);
            i->added++;
        }
    }
    return status;
}

static enum memos_status import_cube(
    struct import *i, struct memcube_outcome *out, struct memos_error *err)
{
    struct memcube_write *write = i->write;
    struct memcube_space_state *state = NULL;
    struct memcube_cube cube = { .number = 0 };
    struct memcube_changing changing;

    enum memos_status status = memcube_space_state_find(write, i->change->space, &state, err);
    if (status == MEMOS_OK) {
        i->space = state->space.number;
        status = memcube_cube_read(&write->read, i->space, &i->archive->cube_id, &cube, err);
    }
    if (status == MEMOS_NOT_FOUND) {
        cube.number = 0;
        status = MEMOS_OK;
    }
    if (status == MEMOS_OK) {
        status = versions_walk(i, NULL, cube.number, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    uint64_t versions = i->archive->summary.versions;
    if (versions <= cube.number) {
        const struct memcube_ref ref = { i->archive->cube_id, cube.number };
        return memcube_changing_none(write, i->change, &ref, 1, out, err);
    }
    status = memcube_changing_begin(&changing, write, i->change, MEMCUBE_OP_IMPORT,
        (size_t)(versions - cube.number), err);
    if (status == MEMOS_OK) {
        i->space = changing.state->space.number;
        status = versions_walk(i, &changing, cube.number, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_changing_end(&changing, NULL, 0, out, err);
    }
    write->broken |= status != MEMOS_OK;
    return status;
}

/* ---- the whole ----------------------------------------------------------------------------- */

enum memos_status memcube_archive_import(struct memcube_write *write,
    const struct memcube_change *change, struct memos_bytes archive,
    struct memcube_archive_summary *out, struct memcube_outcome *out_outcome,
    struct memos_error *err)
{
    struct memcube_archive checked;
    struct import i = { .write = write, .change = change, .archive = &checked };

    enum memos_status status = memcube_change_check(change, err);
    if (status != MEMOS_OK) {
        return status;
    }
    memos_arena_init(&i.arena, SIZE_MAX);
    memos_arena_init(&i.log_arena, SIZE_MAX);
    status = memcube_archive_open(archive, &checked, err);
    if (status == MEMOS_OK) {
        status = checked.summary.single_cube ? import_cube(&i, out_outcome, err)
                                             : import_space(&i, out_outcome, err);
    }
    if (status == MEMOS_OK) {
        *out = checked.summary;
        out->added = i.added;
    }
    memcube_archive_finish(&checked);
    memos_arena_finish(&i.arena);
    memos_arena_finish(&i.log_arena);
    return status;
}
