/* Docs: the contents of a space, and when each of them was the words of its cube's head. */
#include "memcube/store_internal.h"

enum { INTERVAL_BYTES = 26 };

int64_t memcube_expiry_of(enum memcube_state state, const struct memcube_governance *governance)
{
    int64_t ends = INT64_MAX;

    if (state != MEMCUBE_STATE_GENERATED && state != MEMCUBE_STATE_ACTIVATED) {
        return INT64_MAX;
    }
    if (governance->expires_us != 0) {
        ends = governance->expires_us;
    }
    if (governance->valid_to_us != 0 && governance->valid_to_us < ends) {
        ends = governance->valid_to_us;
    }
    if (ends != INT64_MAX && ends < governance->retain_until_us) {
        ends = governance->retain_until_us;
    }
    return ends;
}

enum memos_status memcube_doc_decode(struct memos_bytes value, struct memos_arena *arena,
    struct memcube_doc *out, struct memos_error *err)
{
    struct memos_reader r = memos_reader_of(value);

    *out = (struct memcube_doc){ 0 };
    memos_read_into(&r, out->id.bytes, sizeof out->id.bytes);
    out->first = memos_read_u32(&r);
    out->last = memos_read_u32(&r);
    out->event_us = (int64_t)memos_read_u64(&r);
    out->intervals_count = r.left / INTERVAL_BYTES;
    /* One more than there is, since a change adds at most one. */
    out->intervals =
        memos_arena_take(arena, out->intervals_count + 1, sizeof *out->intervals);
    if (!out->intervals) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a doc");
    }
    for (size_t i = 0; i < out->intervals_count; i++) {
        struct memcube_interval *interval = &out->intervals[i];
        interval->from = memos_read_u64(&r);
        interval->to = memos_read_u64(&r);
        interval->expires_us = (int64_t)memos_read_u64(&r);
        interval->state = memos_read_u8(&r);
        interval->stale = memos_read_u8(&r) != 0;
    }
    if (!memos_reader_done(&r)) {
        return memos_fail(err, MEMOS_CORRUPT, "the record of a doc is damaged");
    }
    return MEMOS_OK;
}

enum memos_status memcube_doc_read(struct memcube_read *read, uint32_t space, uint32_t doc,
    struct memos_arena *arena, struct memcube_doc *out, struct memos_error *err)
{
    const struct memcube_key key = memcube_key_of_u32(space, doc);
    struct memos_bytes value;

    const enum memos_status status =
        memcube_get(read->txn, read->store->tables.doc, memcube_key_view(&key), &value, err);
    if (status != MEMOS_OK) {
        return status == MEMOS_NOT_FOUND
                   ? memos_fail(err, MEMOS_NOT_FOUND, "there is no doc %u", doc)
                   : status;
    }
    return memcube_doc_decode(value, arena, out, err);
}

void memcube_doc_encode(const struct memcube_doc *record, struct memos_buffer *out)
{
    memos_buffer_bytes(out, record->id.bytes, sizeof record->id.bytes);
    memos_buffer_u32(out, record->first);
    memos_buffer_u32(out, record->last);
    memos_buffer_u64(out, (uint64_t)record->event_us);
    for (size_t i = 0; i < record->intervals_count; i++) {
        const struct memcube_interval *interval = &record->intervals[i];
        memos_buffer_u64(out, interval->from);
        memos_buffer_u64(out, interval->to);
        memos_buffer_u64(out, (uint64_t)interval->expires_us);
        memos_buffer_u8(out, interval->state);
        memos_buffer_u8(out, interval->stale);
    }
}

enum memos_status memcube_doc_write(struct memcube_write *write, uint32_t space, uint32_t doc,
    const struct memcube_doc *record, struct memos_error *err)
{
    const struct memcube_key key = memcube_key_of_u32(space, doc);
    struct memos_buffer *value = &write->value;

    memos_buffer_reset(value);
    memcube_doc_encode(record, value);
    if (value->failed) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a doc");
    }
    return memcube_put(write->read.txn, write->store->tables.doc, memcube_key_view(&key),
        memos_buffer_view(value), err);
}

/* End the last interval at seq, if it goes on; one that began with seq never was. */
void memcube_doc_close(struct memcube_doc *doc, uint64_t seq)
{
    if (doc->intervals_count == 0) {
        return;
    }
    struct memcube_interval *last = &doc->intervals[doc->intervals_count - 1];
    if (last->to != UINT64_MAX) {
        return;
    }
    if (last->from == seq) {
        doc->intervals_count--;
    } else {
        last->to = seq;
    }
}

static bool interval_like(const struct memcube_interval *a, const struct memcube_interval *b)
{
    return a->state == b->state && a->stale == b->stale && a->expires_us == b->expires_us;
}

/* Neighbours that are alike are one interval. */
void memcube_doc_open(struct memcube_doc *doc, uint64_t seq, const struct memcube_interval *as)
{
    struct memcube_interval wanted = *as;
    struct memcube_interval *last = doc->intervals + doc->intervals_count;

    if (doc->intervals_count > 0 && last[-1].to == UINT64_MAX && interval_like(&last[-1], as)) {
        return;
    }
    memcube_doc_close(doc, seq);
    last = doc->intervals + doc->intervals_count;
    if (doc->intervals_count > 0 && last[-1].to == seq && interval_like(&last[-1], &wanted)) {
        last[-1].to = UINT64_MAX;
        return;
    }
    *last = wanted;
    last->from = seq;
    last->to = UINT64_MAX;
    doc->intervals_count++;
}

/* ---- what a change does to docs ------------------------------------------------------------ */

static enum memos_status time_write(struct memcube_write *write, uint32_t space, int64_t event_us,
    uint32_t doc, bool add, struct memos_error *err)
{
    struct memcube_key key = memcube_key_of(space);
    const memcube_table table = write->store->tables.time;

    memcube_key_time(&key, event_us);
    memcube_key_u32(&key, doc);
    if (add) {
        return memcube_put(
            write->read.txn, table, memcube_key_view(&key), memos_bytes_make("", 0), err);
    }
    const enum memos_status status = memcube_delete(
        write->read.txn, table, memcube_key_view(&key), memos_bytes_make(NULL, 0), err);
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

static enum memos_status head_bits(struct memcube_write *write, uint32_t space, uint32_t doc,
    enum memcube_state state, bool stale, bool value, struct memos_error *err)
{
    enum memos_status status =
        memcube_bits_set(write, space, (uint8_t)state, doc, value, err);
    if (status == MEMOS_OK && stale) {
        status = memcube_bits_set(write, space, MEMCUBE_BITS_STALE, doc, value, err);
    }
    return status;
}

enum memos_status memcube_doc_leave(struct memcube_changing *changing,
    const struct memcube_cube *cube, struct memos_error *err)
{
    struct memcube_write *write = changing->write;
    const uint32_t space = changing->state->space.number;
    struct memcube_doc record;

    enum memos_status status =
        memcube_doc_read(&write->read, space, cube->doc, &write->scratch, &record, err);
    if (status == MEMOS_OK) {
        memcube_doc_close(&record, changing->seq);
        status = memcube_doc_write(write, space, cube->doc, &record, err);
    }
    if (status == MEMOS_OK) {
        status = head_bits(write, space, cube->doc, cube->state,
            (cube->flags & MEMCUBE_CUBE_STALE) != 0, false, err);
    }
    return status;
}

/* What the doc's indexes hold now: the version that last had it. */
static enum memos_status doc_before(struct memcube_changing *changing,
    const struct memcube_step *step, const struct memcube_doc *record,
    struct memcube_version *room, const struct memcube_version **out, struct memos_error *err)
{
    struct memcube_write *write = changing->write;
    const uint32_t space = changing->state->space.number;
    uint32_t row = 0;
    uint64_t seq = 0;

    if (step->like && step->like->number == record->last) {
        *out = step->like;
        return MEMOS_OK;
    }
    if (step->head && step->head->number == record->last) {
        *out = step->head;
        return MEMOS_OK;
    }
    enum memos_status status =
        memcube_chain_read(&write->read, space, &record->id, record->last, &row, &seq, err);
    if (status == MEMOS_OK) {
        status = memcube_version_load(
            &write->read, space, &step->cube, row, &write->scratch, room, err);
    }
    *out = room;
    return status;
}

/* Bring everything that is kept by doc from `before` (NULL: nothing yet) to the step's version. */
static enum memos_status doc_reindex(struct memcube_changing *changing,
    const struct memcube_version *before, const struct memcube_version *after, int64_t before_us,
    struct memos_error *err)
{
    struct memcube_write *write = changing->write;
    const struct memcube_space *space = &changing->state->space;
    const int64_t after_us = after->description.event_us;
    const bool readers_before = before && before->description.readers_count > 0;
    const bool readers_after = after->description.readers_count > 0;

    enum memos_status status =
        memcube_facets_move(write, space, after->doc, before, after, err);
    if (status == MEMOS_OK && before && before_us != after_us) {
        status = time_write(write, space->number, before_us, after->doc, false, err);
    }
    if (status == MEMOS_OK && (!before || before_us != after_us)) {
        status = time_write(write, space->number, after_us, after->doc, true, err);
    }
    if (status == MEMOS_OK && readers_before != readers_after) {
        status = memcube_bits_set(
            write, space->number, MEMCUBE_BITS_READERS, after->doc, readers_after, err);
    }
    if (status == MEMOS_OK && !before) {
        status = memcube_bits_set(write, space->number,
            (uint8_t)(MEMCUBE_BITS_KIND + (int)after->kind), after->doc, true, err);
    }
    return status;
}

enum memos_status memcube_doc_enter(struct memcube_changing *changing,
    const struct memcube_step *step, struct memos_error *err)
{
    struct memcube_write *write = changing->write;
    const uint32_t space = changing->state->space.number;
    const struct memcube_version *version = &step->version;
    const struct memcube_interval as = {
        .expires_us = memcube_expiry_of(version->state, &version->governance),
        .state = (uint8_t)version->state,
        .stale = (step->cube.flags & MEMCUBE_CUBE_STALE) != 0,
    };
    struct memcube_doc record = { .id = version->id, .first = version->number };
    struct memcube_interval first;
    struct memcube_version room;
    const struct memcube_version *before = NULL;
    enum memos_status status = MEMOS_OK;

    if (step->like) {
        status = memcube_doc_read(
            &write->read, space, version->doc, &write->scratch, &record, err);
        if (status == MEMOS_OK) {
            status = doc_before(changing, step, &record, &room, &before, err);
        }
    } else {
        record.intervals = &first;
    }
    if (status != MEMOS_OK) {
        return status;
    }
    if (step->cube.doc == version->doc && step->cube.number != 0) {
        status = head_bits(
            write, space, version->doc, step->cube.state, as.stale, false, err);
    }
    if (status == MEMOS_OK) {
        status = head_bits(write, space, version->doc, version->state, as.stale, true, err);
    }
    if (status == MEMOS_OK) {
        status = doc_reindex(changing, before, version, record.event_us, err);
    }
    if (status == MEMOS_OK) {
        record.last = version->number;
        record.event_us = version->description.event_us;
        memcube_doc_open(&record, changing->seq, &as);
        status = memcube_doc_write(write, space, version->doc, &record, err);
    }
    return status;
}

enum memos_status memcube_doc_stale(struct memcube_changing *changing,
    const struct memcube_cube *cube, bool stale, struct memos_error *err)
{
    struct memcube_write *write = changing->write;
    const uint32_t space = changing->state->space.number;
    struct memcube_doc record;

    enum memos_status status =
        memcube_doc_read(&write->read, space, cube->doc, &write->scratch, &record, err);
    if (status == MEMOS_OK && record.intervals_count == 0) {
        return memos_fail(err, MEMOS_CORRUPT, "doc %u of a head has no interval", cube->doc);
    }
    if (status == MEMOS_OK) {
        struct memcube_interval as = record.intervals[record.intervals_count - 1];
        as.stale = stale;
        memcube_doc_open(&record, changing->seq, &as);
        status = memcube_doc_write(write, space, cube->doc, &record, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_bits_set(write, space, MEMCUBE_BITS_STALE, cube->doc, stale, err);
    }
    return status;
}

enum memos_status memcube_doc_forget(struct memcube_changing *changing,
    const struct memcube_cube *cube, uint32_t doc, struct memos_error *err)
{
    struct memcube_write *write = changing->write;
    const struct memcube_space *space = &changing->state->space;
    struct memcube_doc record;
    struct memcube_version last;
    uint32_t row = 0;
    uint64_t seq = 0;

    enum memos_status status =
        memcube_doc_read(&write->read, space->number, doc, &write->scratch, &record, err);
    if (status == MEMOS_OK) {
        status = memcube_chain_read(
            &write->read, space->number, &cube->id, record.last, &row, &seq, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_version_load(
            &write->read, space->number, cube, row, &write->scratch, &last, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_facets_move(write, space, doc, &last, NULL, err);
    }
    if (status == MEMOS_OK) {
        status = time_write(write, space->number, record.event_us, doc, false, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_bits_set(
            write, space->number, (uint8_t)(MEMCUBE_BITS_KIND + (int)last.kind), doc, false, err);
    }
    if (status == MEMOS_OK) {
        status =
            memcube_bits_set(write, space->number, MEMCUBE_BITS_READERS, doc, false, err);
    }
    if (status == MEMOS_OK && doc == cube->doc) {
        status = head_bits(write, space->number, doc, cube->state, true, false, err);
    }
    for (size_t i = 0; status == MEMOS_OK && i < write->store->indexes_count; i++) {
        struct memcube_index *index = write->store->indexes[i];
        status = index->erase(index->self, write->read.txn, space->number, doc, err);
    }
    if (status == MEMOS_OK) {
        record.event_us = 0;
        record.intervals_count = 0;
        status = memcube_doc_write(write, space->number, doc, &record, err);
    }
    return status;
}
