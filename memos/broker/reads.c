/* Requests that read a snapshot. */
#include "memos/broker/state.h"

#include <string.h>

enum { QUICK_PAYLOAD_BYTES = 64 << 10 }; /* larger ones are not for the front thread */

static enum memos_status find_space(
    struct broker_request *rq, struct memcube_space *out, struct memos_error *err)
{
    return broker_reader_space(rq->reader, rq->call.space, out, err);
}

void broker_count_read(
    struct broker_request *rq, const struct memcube_space *space, const struct memos_id *id)
{
    struct memos_clock *clock = &rq->broker->clock;
    memcube_behaviour_count(rq->broker->store, space->number, id, clock->wall_us(clock->self));
}

static enum memos_status fail_full(struct memos_error *err)
{
    return memos_fail(err, MEMOS_TOO_LARGE, "the reply needs more memory than one may take");
}

/* ---- one cube into a reply ---- */

/* A payload that lies in a file of its own can be read there by who owns the files. */
static bool may_read_files(const struct broker_request *rq)
{
    return rq->peer.door == BROKER_DOOR_IPC;
}

static enum memos_status add_payload(struct broker_request *rq, struct memcube_read *read,
    const struct memcube_space *space, const struct memcube_version *version,
    const struct broker_wanted *wanted, Memos__Cube *out, struct memos_error *err)
{
    struct memos_bytes bytes;
    enum memos_status status;
    if (wanted->path && may_read_files(rq)) {
        status = memcube_payload_path(read, space, version, &bytes, err);
        if (status != MEMOS_NOT_FOUND) {
            return status == MEMOS_OK ? broker_text_make(&rq->work, bytes, &out->path, err)
                                      : status;
        }
    }
    if (!wanted->payload) {
        return MEMOS_OK;
    }
    if (rq->on_front && version->payload_bytes > QUICK_PAYLOAD_BYTES) {
        rq->too_long = true;
        return memos_fail(err, MEMOS_BUSY, "too long for the front thread");
    }
    status = memcube_payload_get(read, space, version, false, &bytes, err);
    return status == MEMOS_OK ? broker_request_payload(rq, bytes, &out->frame, err) : status;
}

static enum memos_status add_behaviour(struct memcube_read *read, const struct memcube_space *space,
    const struct memcube_version *version, Memos__Cube *out, struct memos_error *err)
{
    struct memcube_behaviour behaviour = {0};
    enum memos_status status =
        memcube_behaviour_get(read, space->number, &version->id, &behaviour, err);
    if (status != MEMOS_OK && status != MEMOS_NOT_FOUND) {
        return status;
    }
    out->reads = behaviour.reads;
    out->last_read_us = behaviour.last_read_us;
    out->usefulness = behaviour.usefulness;
    return MEMOS_OK;
}

enum memos_status broker_cube_fill(struct broker_request *rq, struct memcube_read *read,
    const struct memcube_space *space, const struct memcube_version *version,
    const struct broker_wanted *wanted, Memos__Cube *out, struct memos_error *err)
{
    enum memos_status status = broker_cube_make(&rq->work, version, out, err);
    bool has_payload = version->state != MEMCUBE_STATE_FORGOTTEN;
    if (status == MEMOS_OK && has_payload && (wanted->payload || wanted->path)) {
        status = add_payload(rq, read, space, version, wanted, out, err);
        status = status == MEMOS_FORGOTTEN ? MEMOS_OK : status;
    }
    if (status == MEMOS_OK && wanted->behaviour) {
        status = add_behaviour(read, space, version, out, err);
    }
    return status;
}

static enum memos_status cubes_make(
    struct broker_request *rq, size_t count, Memos__Cubes **out, struct memos_error *err)
{
    void **pointers = NULL;
    Memos__Cubes *cubes = memos_arena_take(&rq->work, 1, sizeof *cubes);
    enum memos_status status =
        broker_array_make(&rq->work, count, sizeof(Memos__Cube), &pointers, err);
    if (!cubes || status != MEMOS_OK) {
        return fail_full(err);
    }
    memos__cubes__init(cubes);
    cubes->cubes = (Memos__Cube **)pointers;
    rq->reply.body_case = MEMOS__REPLY__BODY_CUBES;
    rq->reply.cubes = cubes;
    *out = cubes;
    return MEMOS_OK;
}

/* ---- get ---- */

/* The cubes that have these external ids; those that nobody has are left out. */
static enum memos_status external_ids(struct broker_request *rq, struct memcube_read *read,
    const struct memcube_space *space, const struct memos_id **out_ids, size_t *out_count,
    struct memos_error *err)
{
    const struct broker_call_get *get = &rq->call.get;
    struct memos_id *ids = memos_arena_take(&rq->work, get->external_ids_count, sizeof *ids);
    size_t count = 0;
    for (size_t i = 0; ids && i < get->external_ids_count; i++) {
        enum memos_status status =
            memcube_external_find(read, space, get->external_ids[i], &ids[count], err);
        if (status != MEMOS_OK && status != MEMOS_NOT_FOUND) {
            return status;
        }
        count += status == MEMOS_OK;
    }
    *out_ids = ids;
    *out_count = count;
    return ids ? MEMOS_OK : fail_full(err);
}

/* The ids that are asked for, however they were named. */
static enum memos_status get_ids(struct broker_request *rq, struct memcube_read *read,
    const struct memcube_space *space, const struct memos_id **out_ids, size_t *out_count,
    struct memos_error *err)
{
    const struct broker_call_get *get = &rq->call.get;
    if (get->ids_count > 0) {
        *out_ids = get->ids;
        *out_count = get->ids_count;
        return MEMOS_OK;
    }
    if (get->external_ids_count > 0) {
        return external_ids(rq, read, space, out_ids, out_count, err);
    }
    struct memos_id *id = memos_arena_take(&rq->work, 1, sizeof *id);
    if (!id) {
        return fail_full(err);
    }
    *out_ids = id;
    *out_count = 1;
    return get->external_id.size > 0 ? memcube_external_find(read, space, get->external_id, id, err)
                                     : memcube_id_complete(read, space, get->id_prefix, id, err);
}

static enum memos_status get_one(struct broker_request *rq, struct memcube_read *read,
    const struct memcube_space *space, const struct memos_id *id,
    const struct broker_wanted *wanted, Memos__Cube *out, struct memos_error *err)
{
    struct memcube_version version;
    enum memos_status status = memcube_version_get(
        read, space, id, rq->call.get.number, &rq->call.get.as_of, &version, err);
    if (status == MEMOS_OK) {
        status = broker_request_sees_version(rq, read, space, &version, err);
    }
    if (status == MEMOS_OK) {
        status = broker_cube_fill(rq, read, space, &version, wanted, out, err);
    }
    if (status == MEMOS_OK && !rq->envelope->get->peek) {
        broker_count_read(rq, space, id);
    }
    return status;
}

enum memos_status broker_get(
    struct broker_request *rq, struct memcube_read *read, struct memos_error *err)
{
    const Memos__Get *body = rq->envelope->get;
    const struct broker_wanted wanted = {!body->no_payload, body->path, body->behaviour};
    const struct memos_id *ids = NULL;
    struct memcube_space space;
    Memos__Cubes *cubes;
    size_t count = 0;

    enum memos_status status = find_space(rq, &space, err);
    if (status == MEMOS_OK) {
        status = get_ids(rq, read, &space, &ids, &count, err);
    }
    if (status == MEMOS_OK) {
        status = cubes_make(rq, count, &cubes, err);
    }
    bool may_lack = rq->call.get.external_ids_count > 0;
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        status = get_one(rq, read, &space, &ids[i], &wanted, cubes->cubes[cubes->n_cubes], err);
        cubes->n_cubes += status == MEMOS_OK;
        status = status == MEMOS_NOT_FOUND && may_lack ? MEMOS_OK : status;
    }
    if (status == MEMOS_OK && !may_lack && count == 1 && wanted.payload &&
        cubes->cubes[0]->state == MEMCUBE_STATE_FORGOTTEN) {
        return memos_fail(err, MEMOS_FORGOTTEN, "the payload was destroyed; the header stays");
    }
    return status;
}

/* ---- list and history ---- */

enum memos_status broker_list(
    struct broker_request *rq, struct memcube_read *read, struct memos_error *err)
{
    struct memcube_list_query *query = &rq->call.list;
    const struct broker_wanted wanted = {.payload = rq->envelope->list->payload};
    struct memcube_version *versions;
    struct memcube_space space;
    Memos__Cubes *cubes;
    uint64_t next = 0;
    size_t count = 0;

    query->filter.viewer = rq->viewer;
    enum memos_status status = find_space(rq, &space, err);
    if (status != MEMOS_OK) {
        return status;
    }
    versions = memos_arena_take(&rq->work, query->count_max, sizeof *versions);
    if (!versions) {
        return fail_full(err);
    }
    status = memcube_list(read, &space, query, versions, &count, &next, err);
    if (status == MEMOS_OK) {
        status = cubes_make(rq, count, &cubes, err);
    }
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        status = broker_cube_fill(rq, read, &space, &versions[i], &wanted, cubes->cubes[i], err);
        cubes->n_cubes = i + 1;
    }
    if (status == MEMOS_OK) {
        cubes->next = next;
    }
    return status;
}

enum memos_status broker_history(
    struct broker_request *rq, struct memcube_read *read, struct memos_error *err)
{
    const struct broker_wanted wanted = {.payload = rq->envelope->history->payload};
    size_t count_max = rq->call.history.count_max, count = 0;
    struct memcube_version *versions = memos_arena_take(&rq->work, count_max, sizeof *versions);
    struct memcube_space space;
    Memos__Cubes *cubes;

    enum memos_status status = versions ? find_space(rq, &space, err) : fail_full(err);
    if (status == MEMOS_OK) {
        status = memcube_history(read, &space, &rq->call.history.id, rq->call.history.from,
            versions, count_max, &count, err);
    }
    if (status == MEMOS_OK) {
        status = cubes_make(rq, count, &cubes, err);
    }
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        status = broker_request_sees_version(rq, read, &space, &versions[i], err);
        if (status == MEMOS_OK) {
            status =
                broker_cube_fill(rq, read, &space, &versions[i], &wanted, cubes->cubes[i], err);
        }
        cubes->n_cubes = i + 1;
    }
    if (status == MEMOS_OK && count == count_max) {
        cubes->next = (uint64_t)versions[count - 1].number + 1;
    }
    return status;
}

/* ---- log ---- */

/* Leave out of a record what the viewer may not see. */
static enum memos_status record_filter(struct broker_request *rq, struct memcube_read *read,
    const struct memcube_space *space, struct memcube_log_record *record, struct memos_error *err)
{
    size_t entries = 0, affected = 0;
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; i < record->entries_count && status == MEMOS_OK; i++) {
        status = broker_request_sees(rq, read, space, &record->entries[i].ref.id, err);
        if (status == MEMOS_OK) {
            record->entries[entries++] = record->entries[i];
        }
        status = status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
    }
    for (size_t i = 0; i < record->affected_count && status == MEMOS_OK; i++) {
        status = broker_request_sees(rq, read, space, &record->affected[i], err);
        if (status == MEMOS_OK) {
            record->affected[affected++] = record->affected[i];
        }
        status = status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
    }
    record->entries_count = entries;
    record->affected_count = affected;
    return status;
}

static enum memos_status records_fill(struct broker_request *rq, struct memcube_read *read,
    const struct memcube_space *space, struct memcube_log_record *records, size_t count,
    Memos__LogRecords *out, struct memos_error *err)
{
    void **pointers = NULL;
    enum memos_status status =
        broker_array_make(&rq->work, count, sizeof(Memos__LogRecord), &pointers, err);
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        if (rq->viewer.data) {
            status = record_filter(rq, read, space, &records[i], err);
        }
        if (status == MEMOS_OK) {
            status = broker_record_make(&rq->work, &records[i], pointers[i], err);
        }
    }
    if (status == MEMOS_OK) {
        out->records = (Memos__LogRecord **)pointers;
        out->n_records = count;
        out->head_seq = space->seq;
    }
    return status;
}

enum memos_status broker_log(
    struct broker_request *rq, struct memcube_read *read, struct memos_error *err)
{
    size_t count_max = rq->call.log.count_max, count = 0;
    struct memcube_log_record *records = memos_arena_take(&rq->work, count_max, sizeof *records);
    Memos__LogRecords *out = memos_arena_take(&rq->work, 1, sizeof *out);
    struct memcube_space space;

    enum memos_status status = records && out ? find_space(rq, &space, err) : fail_full(err);
    if (status == MEMOS_OK) {
        status = memcube_log_read(read, &space, rq->call.log.from, rq->envelope->log->newest_first,
            records, count_max, &count, err);
    }
    if (status == MEMOS_OK) {
        memos__log_records__init(out);
        status = records_fill(rq, read, &space, records, count, out, err);
    }
    if (status == MEMOS_OK) {
        rq->reply.body_case = MEMOS__REPLY__BODY_LOG_RECORDS;
        rq->reply.log_records = out;
    }
    return status;
}

/* ---- spaces and checkpoints ---- */

static enum memos_status space_fill(struct broker_request *rq, const struct memcube_space *space,
    enum broker_right right, Memos__SpaceInfo *out, struct memos_error *err)
{
    struct memos_bytes id = memos_bytes_make(space->id.bytes, sizeof space->id.bytes);
    struct memos_bytes head = memos_bytes_make(space->head.bytes, sizeof space->head.bytes);
    memos__space_info__init(out);
    out->id = (ProtobufCBinaryData){.len = id.size, .data = memos_arena_copy(&rq->work, id)};
    out->head = (ProtobufCBinaryData){.len = head.size, .data = memos_arena_copy(&rq->work, head)};
    out->seq = space->seq;
    out->created_us = space->created_us;
    out->changed_us = space->changed_us;
    out->cubes = space->cubes;
    out->versions = space->versions;
    out->payload_bytes = space->payload_bytes;
    out->rights = (char *)(uintptr_t)broker_right_text(right);
    if (!out->id.data || !out->head.data) {
        return fail_full(err);
    }
    return broker_text_make(&rq->work, space->name, &out->name, err);
}

/* One page of spaces; those that the principal has no right on are passed over. */
static enum memos_status spaces_page(struct broker_request *rq, struct memcube_read *read,
    struct memcube_space *page, size_t page_count, struct memos_bytes *after, bool *more,
    Memos__SpaceInfos *out, struct memos_error *err)
{
    size_t count = 0, count_max = rq->call.spaces.count_max;
    enum memos_status status = memcube_space_list(read, *after, page, page_count, &count, err);
    *more = count == page_count;
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        enum broker_right right = broker_access_right(rq->access, rq->principal, page[i].name);
        *after = page[i].name;
        if (right < BROKER_RIGHT_READ) {
            continue;
        }
        if (out->n_spaces == count_max) {
            out->more = true;
            *more = false;
            break;
        }
        status = space_fill(rq, &page[i], right, out->spaces[out->n_spaces], err);
        out->n_spaces++;
    }
    return status;
}

enum memos_status broker_spaces(
    struct broker_request *rq, struct memcube_read *read, struct memos_error *err)
{
    enum { PAGE = 256 };
    struct memcube_space *page = memos_arena_take(&rq->work, PAGE, sizeof *page);
    Memos__SpaceInfos *out = memos_arena_take(&rq->work, 1, sizeof *out);
    struct memos_bytes after = rq->call.spaces.after;
    void **pointers = NULL;
    bool more = true;

    enum memos_status status = broker_array_make(
        &rq->work, rq->call.spaces.count_max, sizeof(Memos__SpaceInfo), &pointers, err);
    if (!page || !out || status != MEMOS_OK) {
        return fail_full(err);
    }
    memos__space_infos__init(out);
    out->spaces = (Memos__SpaceInfo **)pointers;
    while (more && status == MEMOS_OK) {
        status = broker_request_check(rq, err);
        if (status == MEMOS_OK) {
            status = spaces_page(rq, read, page, PAGE, &after, &more, out, err);
        }
    }
    if (status == MEMOS_OK) {
        rq->reply.body_case = MEMOS__REPLY__BODY_SPACE_INFOS;
        rq->reply.space_infos = out;
    }
    return status;
}

/* List the checkpoints of a space, or check one. */
enum memos_status broker_checkpoints(
    struct broker_request *rq, struct memcube_read *read, struct memos_error *err)
{
    size_t count = 1, count_max = BROKER_BATCH_MAX;
    struct memcube_checkpoint *found = memos_arena_take(&rq->work, count_max, sizeof *found);
    Memos__Checkpoints *out = memos_arena_take(&rq->work, 1, sizeof *out);
    struct memcube_space space;
    void **pointers = NULL;

    enum memos_status status = found && out ? find_space(rq, &space, err) : fail_full(err);
    if (status == MEMOS_OK && rq->envelope->checkpoint->check) {
        found[0] = rq->call.checkpoint;
        status = memcube_checkpoint_check(read, &space, &found[0], err);
    } else if (status == MEMOS_OK) {
        status = memcube_checkpoint_list(read, &space, found, count_max, &count, err);
    }
    if (status == MEMOS_OK) {
        status = broker_array_make(&rq->work, count, sizeof(Memos__CheckpointInfo), &pointers, err);
    }
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        status = broker_checkpoint_make(&rq->work, &found[i], pointers[i], err);
    }
    if (status == MEMOS_OK) {
        memos__checkpoints__init(out);
        out->checkpoints = (Memos__CheckpointInfo **)pointers;
        out->n_checkpoints = count;
        rq->reply.body_case = MEMOS__REPLY__BODY_CHECKPOINTS;
        rq->reply.checkpoints = out;
    }
    return status;
}
