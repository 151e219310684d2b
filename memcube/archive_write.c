/* Export: a history read in steps, each from a snapshot of its own, written between them.
 *
 * No snapshot is open while the sink writes, so a slow sink holds up nobody. The end of the history
 * is fixed at the first step. A cube that is forgotten while the export goes on travels as headers
 * only, and the end moves up to the record that forgets it, so that the archive says why; if its
 * content has been written already, the export fails, since what is forgotten must not live on in
 * a file that was begun before. */
#include "memcube/archive_format.h"
#include "memcube/store_internal.h"

#include <string.h>

#define STEP_BYTES ((size_t)1 << 20)
#define STEP_RECORDS 4096
#define PIECE_BYTES ((size_t)1 << 20)

struct export {
    struct memcube_store *store;
    const struct memcube_sink *sink;
    struct memcube_archive_summary summary;
    struct memos_bytes name;
    struct memos_id cube_id; /* nil: the space */
    struct memcube_hasher whole;
    struct memcube_idmap sent;  /* payloads */
    struct memcube_idmap cubes; /* that were counted */

    uint64_t seq_end;      /* the last record to write; a cube's archive: its last version */
    uint64_t seq_seen;     /* records up to here were searched for forgetting */
    uint64_t seq;          /* the record to write, or the version of the one cube */
    size_t entry;          /* in it */
    bool record_written;   /* its own frame */
    bool content_written;  /* a cube's archive: some version with its content */

    /* one step */
    struct memcube_read *read;
    struct memcube_space space;
    struct memos_arena arena;        /* for one version */
    struct memos_arena record_arena; /* for one record */
    struct memcube_maps maps;
    struct memos_buffer out;
    struct memos_buffer version;
    bool payload_ahead;      /* it is written, its version is not yet */
    struct memos_bytes blob; /* a mapped payload, to be written after out */
    struct memcube_hash blob_hash;
};

/* ---- frames -------------------------------------------------------------------------------- */

static void frame_head(struct memos_buffer *out, enum memcube_archive_type type, uint64_t size,
    const struct memcube_hash *hash)
{
    memos_buffer_u8(out, (uint8_t)type);
    memos_buffer_u64(out, size);
    memos_buffer_bytes(out, hash->bytes, sizeof hash->bytes);
}

static void frame(struct export *e, enum memcube_archive_type type, struct memos_bytes content)
{
    struct memcube_hash hash = memcube_hash_of(content);
    frame_head(&e->out, type, content.size, &hash);
    memos_buffer_bytes(&e->out, content.data, content.size);
}

static enum memos_status sink_write(
    struct export *e, struct memos_bytes bytes, struct memos_error *err)
{
    if (bytes.size == 0) {
        return MEMOS_OK;
    }
    memcube_hasher_add(&e->whole, bytes);
    e->summary.bytes += bytes.size;
    return e->sink->write(e->sink->self, bytes, err);
}

static enum memos_status forgotten_meanwhile(struct memos_error *err)
{
    return memos_fail(
        err, MEMOS_CONFLICT, "a cube was forgotten while it was being exported; export again");
}

/* A mapped payload, in pieces. Should it be destroyed under our hands, its hash shows it. */
static enum memos_status blob_write(struct export *e, struct memos_error *err)
{
    struct memcube_hasher hasher;
    const uint8_t *data = e->blob.data;
    if (e->blob.size == 0) {
        return MEMOS_OK;
    }
    memcube_hasher_begin(&hasher);
    for (size_t at = 0; at < e->blob.size;) {
        size_t left = e->blob.size - at;
        struct memos_bytes piece =
            memos_bytes_make(data + at, left < PIECE_BYTES ? left : PIECE_BYTES);
        memcube_hasher_add(&hasher, piece);
        enum memos_status status = sink_write(e, piece, err);
        if (status != MEMOS_OK) {
            return status;
        }
        at += piece.size;
    }
    struct memcube_hash hash = memcube_hasher_end(&hasher);
    return memcube_hash_equal(&hash, &e->blob_hash) ? MEMOS_OK : forgotten_meanwhile(err);
}

/* Write what the step has gathered. */
static enum memos_status step_flush(struct export *e, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    if (e->out.failed) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for a part of the archive");
    }
    if (status == MEMOS_OK) {
        status = sink_write(e, memos_buffer_view(&e->out), err);
    }
    if (status == MEMOS_OK) {
        status = blob_write(e, err);
    }
    memos_buffer_reset(&e->out);
    memcube_maps_release(&e->maps);
    e->blob = memos_bytes_make(NULL, 0);
    return status;
}

/* ---- one version --------------------------------------------------------------------------- */

/* Put the payload into the archive unless it is there; a large one ends the step. */
static enum memos_status payload_gather(struct export *e, const struct memcube_row *row,
    const struct memcube_version *header, struct memos_error *err)
{
    struct memos_bytes bytes;
    uint64_t *sent = NULL;
    if (memcube_idmap_find(&e->sent, header->payload_hash.bytes)) {
        return MEMOS_OK;
    }
    bool blob = row->place.slot == 0 && header->payload_bytes > 0;
    enum memos_status status = memcube_payload_read(e->store->payloads, e->read->txn,
        e->space.number, row->place, &header->payload_hash, header->payload_bytes, !blob,
        &e->arena, &e->maps, &bytes, err);
    if (status != MEMOS_OK) {
        return status;
    }
    frame_head(&e->out, MEMCUBE_ARCHIVE_PAYLOAD, bytes.size, &header->payload_hash);
    if (blob) {
        e->blob = bytes;
        e->blob_hash = header->payload_hash;
    } else {
        memos_buffer_bytes(&e->out, bytes.data, bytes.size);
    }
    e->summary.payloads++;
    return memcube_idmap_add(&e->sent, header->payload_hash.bytes, 1, &sent, err);
}

/* Description and payload of a version that is not forgotten. */
static enum memos_status content_gather(struct export *e, const struct memcube_cube *cube,
    const struct memcube_row *row, const struct memcube_version *header,
    struct memos_bytes *out_description, struct memos_error *err)
{
    enum memos_status status = memcube_row_describe(
        e->read, row, cube->slot, header, &e->arena, out_description, err);
    if (status != MEMOS_OK) {
        return status;
    }
    struct memcube_hash hash = memcube_hash_of(*out_description);
    if (!memcube_hash_equal(&hash, &header->description_hash)) {
        return memos_fail(err, MEMOS_CORRUPT,
            "the description of a version made by record %llu is damaged; verify the space",
            (unsigned long long)row->seq);
    }
    return payload_gather(e, row, header, err);
}

/* Reading failed: because the cube was forgotten after our snapshot, so that its keys are gone? */
static enum memos_status explain(struct export *e, const struct memos_id *id,
    enum memos_status status, struct memos_error *err)
{
    struct memcube_cube cube;
    struct memos_error ignored;
    if (status != MEMOS_FORGOTTEN && status != MEMOS_CORRUPT && status != MEMOS_NOT_FOUND) {
        return status;
    }
    if (memcube_read_renew(e->read, &ignored) == MEMOS_OK &&
        memcube_cube_read(e->read, e->space.number, id, &cube, &ignored) == MEMOS_OK &&
        cube.state == MEMCUBE_STATE_FORGOTTEN) {
        return forgotten_meanwhile(err);
    }
    return status;
}

/* Append one version, and its payload before it. `hash` (may be NULL) is what the log says. On OK
 * with a blob waiting, the version is not appended yet: call again after the step. */
static enum memos_status version_gather(struct export *e, const struct memos_id *id,
    uint32_t number, const struct memcube_hash *hash, struct memos_error *err)
{
    struct memcube_cube cube;
    struct memcube_row row;
    struct memcube_version header;
    struct memos_bytes description = memos_bytes_make(NULL, 0);
    uint32_t space = e->space.number, row_number;
    uint64_t seq, *counted = NULL;

    memos_arena_reset(&e->arena);
    enum memos_status status = memcube_cube_read(e->read, space, id, &cube, err);
    if (status == MEMOS_OK) {
        status = memcube_chain_read(e->read, space, id, number, &row_number, &seq, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_row_read(e->read, space, row_number, &e->arena, &row, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_header_decode(row.header, &e->arena, &header, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    struct memcube_hash found = memcube_hash_of(row.header);
    if (hash && !memcube_hash_equal(&found, hash)) {
        return memos_fail(err, MEMOS_CORRUPT,
            "a version is not the one that record %llu names; verify the space",
            (unsigned long long)seq);
    }
    if (cube.state != MEMCUBE_STATE_FORGOTTEN) {
        status = content_gather(e, &cube, &row, &header, &description, err);
        if (status != MEMOS_OK) {
            return explain(e, id, status, err);
        }
        e->content_written = true;
        if (e->blob.size > 0) {
            e->payload_ahead = true;
            return MEMOS_OK;
        }
    } else if (e->payload_ahead) {
        return forgotten_meanwhile(err);
    }
    e->payload_ahead = false;
    memos_buffer_reset(&e->version);
    memos_buffer_u64(&e->version, row.seq);
    memos_buffer_sized(&e->version, row.header);
    memos_buffer_sized(&e->version, description);
    e->out.failed |= e->version.failed;
    frame(e, MEMCUBE_ARCHIVE_VERSION, memos_buffer_view(&e->version));
    e->summary.versions++;
    status = memcube_idmap_add(&e->cubes, id->bytes, 1, &counted, err);
    e->summary.cubes = e->cubes.count;
    return status;
}

/* ---- a space ------------------------------------------------------------------------------- */

static enum memos_status record_read(struct export *e, uint64_t seq, struct memos_bytes *out_bytes,
    struct memcube_log_record *out, struct memos_error *err)
{
    struct memos_id space_id;
    struct memcube_key key = memcube_key_of_u64(e->space.number, seq);
    enum memos_status status = memcube_get(
        e->read->txn, e->store->tables.log, memcube_key_view(&key), out_bytes, err);
    if (status == MEMOS_OK) {
        memos_arena_reset(&e->record_arena);
        status = memcube_log_decode(*out_bytes, &e->record_arena, &space_id, out, err);
    }
    if (status == MEMOS_OK && (out->seq != seq || !memos_id_equal(&space_id, &e->space.id))) {
        status = memos_fail(err, MEMOS_CORRUPT, "the record at seq %llu is another one",
            (unsigned long long)seq);
    }
    return status;
}

/* Was a version of this cube written with its content? Then it lies before where we are. */
static enum memos_status written_before(
    struct export *e, const struct memos_id *id, bool *out, struct memos_error *err)
{
    uint32_t row;
    uint64_t seq;
    enum memos_status status =
        memcube_chain_read(e->read, e->space.number, id, 1, &row, &seq, err);
    *out = status == MEMOS_OK && (seq < e->seq || (seq == e->seq && e->entry > 0));
    return status;
}

/* What was forgotten since the last step? Records that forget are carried, too. */
static enum memos_status forgetting_seek(struct export *e, struct memos_error *err)
{
    struct memcube_log_record record;
    struct memos_bytes bytes;
    for (uint64_t seq = e->seq_seen + 1; seq <= e->space.seq; seq++) {
        enum memos_status status = record_read(e, seq, &bytes, &record, err);
        if (status != MEMOS_OK) {
            return status;
        }
        if (record.operation != MEMCUBE_OP_FORGET) {
            continue;
        }
        for (size_t i = 0; i < record.entries_count; i++) {
            bool written = false;
            status = written_before(e, &record.entries[i].ref.id, &written, err);
            if (status != MEMOS_OK) {
                return status;
            }
            if (written) {
                return forgotten_meanwhile(err);
            }
        }
        e->seq_end = seq;
    }
    e->seq_seen = e->space.seq;
    return MEMOS_OK;
}

static enum memos_status space_step(struct export *e, struct memos_error *err)
{
    enum memos_status status = forgetting_seek(e, err);
    for (size_t n = 0; status == MEMOS_OK && e->seq <= e->seq_end; n++) {
        struct memcube_log_record record;
        struct memos_bytes bytes;
        if (n == STEP_RECORDS) {
            return MEMOS_OK;
        }
        status = record_read(e, e->seq, &bytes, &record, err);
        if (status != MEMOS_OK) {
            return status;
        }
        if (!e->record_written) {
            frame(e, MEMCUBE_ARCHIVE_RECORD, bytes);
            e->record_written = true;
            e->summary.records++;
            e->summary.seq = record.seq;
            e->summary.head = record.hash;
        }
        while (e->entry < record.entries_count) {
            const struct memcube_log_entry *entry = &record.entries[e->entry];
            if (e->out.size >= STEP_BYTES) {
                return MEMOS_OK;
            }
            status = version_gather(
                e, &entry->ref.id, entry->ref.number, &entry->version_hash, err);
            if (status != MEMOS_OK || e->blob.size > 0) {
                return status;
            }
            e->entry++;
        }
        e->seq++;
        e->entry = 0;
        e->record_written = false;
    }
    return status;
}

/* ---- a cube -------------------------------------------------------------------------------- */

static enum memos_status cube_step(struct export *e, struct memos_error *err)
{
    struct memcube_cube cube;
    enum memos_status status =
        memcube_cube_read(e->read, e->space.number, &e->cube_id, &cube, err);
    if (status != MEMOS_OK) {
        return status;
    }
    bool forgotten = cube.state == MEMCUBE_STATE_FORGOTTEN;
    if (forgotten && e->content_written) {
        return forgotten_meanwhile(err);
    }
    if (e->seq_end == 0 || forgotten) {
        e->seq_end = cube.number;
        e->summary.seq = e->space.seq;
        e->summary.head = e->space.head;
    }
    while (e->seq <= e->seq_end && e->out.size < STEP_BYTES) {
        status = version_gather(e, &e->cube_id, (uint32_t)e->seq, NULL, err);
        if (status != MEMOS_OK || e->blob.size > 0) {
            return status;
        }
        e->seq++;
    }
    return MEMOS_OK;
}

/* ---- the whole ----------------------------------------------------------------------------- */

static enum memos_status begin(struct export *e, struct memos_error *err)
{
    bool single = !memos_id_is_nil(&e->cube_id);
    struct memos_buffer content = memos_buffer_make(64);

    e->summary.space_id = e->space.id;
    e->summary.single_cube = single;
    e->seq = 1;
    e->seq_seen = e->space.seq;
    e->seq_end = single ? 0 : e->space.seq;
    memos_buffer_bytes(&e->out, MEMCUBE_ARCHIVE_MAGIC, MEMCUBE_ARCHIVE_MAGIC_BYTES);
    memos_buffer_u32(&e->out, MEMCUBE_ARCHIVE_FORMAT);
    memos_buffer_u8(&content, single ? MEMCUBE_ARCHIVE_CUBE : MEMCUBE_ARCHIVE_SPACE);
    memos_buffer_bytes(&content, e->space.id.bytes, sizeof e->space.id.bytes);
    memos_buffer_bytes(&content, e->cube_id.bytes, sizeof e->cube_id.bytes);
    e->out.failed |= content.failed;
    frame(e, MEMCUBE_ARCHIVE_BEGIN, memos_buffer_view(&content));
    memos_buffer_free(&content);
    return e->out.failed ? memos_fail(err, MEMOS_NO_MEMORY, "no memory to export") : MEMOS_OK;
}

static enum memos_status end(struct export *e, struct memos_error *err)
{
    struct memcube_hasher whole = e->whole;
    struct memcube_hash hash = memcube_hasher_end(&whole);
    struct memos_buffer content = memos_buffer_make(256);

    memos_buffer_u64(&content, e->summary.seq);
    memos_buffer_bytes(&content, e->summary.head.bytes, sizeof e->summary.head.bytes);
    memos_buffer_u64(&content, e->summary.records);
    memos_buffer_u64(&content, e->summary.cubes);
    memos_buffer_u64(&content, e->summary.versions);
    memos_buffer_u64(&content, e->summary.payloads);
    memos_buffer_bytes(&content, hash.bytes, sizeof hash.bytes);
    e->out.failed |= content.failed;
    frame(e, MEMCUBE_ARCHIVE_END, memos_buffer_view(&content));
    memos_buffer_free(&content);
    return step_flush(e, err);
}

/* One snapshot's worth. *out_more: there is more to do. */
static enum memos_status step(struct export *e, bool first, bool *out_more, struct memos_error *err)
{
    enum memos_status status = memcube_read_begin(e->store, &e->read, err);
    if (status == MEMOS_OK) {
        status = memcube_space_find(e->read, e->name, &e->space, err);
    }
    if (status == MEMOS_OK && first) {
        status = begin(e, err);
    }
    if (status == MEMOS_OK) {
        status = memos_id_is_nil(&e->cube_id) ? space_step(e, err) : cube_step(e, err);
    }
    memcube_read_end(&e->read);
    *out_more = e->seq <= e->seq_end;
    return status;
}

enum memos_status memcube_archive_export(struct memcube_store *store, struct memos_bytes space,
    const struct memos_id *id, const struct memcube_sink *sink,
    struct memcube_archive_summary *out, struct memos_error *err)
{
    struct export e = { .store = store, .sink = sink, .name = space };
    enum memos_status status = MEMOS_OK;

    if (id) {
        e.cube_id = *id;
    }
    memcube_hasher_begin(&e.whole);
    memcube_idmap_init(&e.sent, SIZE_MAX);
    memcube_idmap_init(&e.cubes, SIZE_MAX);
    memos_arena_init(&e.arena, SIZE_MAX);
    memos_arena_init(&e.record_arena, SIZE_MAX);
    e.out = memos_buffer_make(SIZE_MAX);
    e.version = memos_buffer_make(SIZE_MAX);
    bool more = true;
    for (bool first = true; status == MEMOS_OK && more; first = false) {
        status = step(&e, first, &more, err);
        if (status == MEMOS_OK) {
            status = step_flush(&e, err);
        }
    }
    if (status == MEMOS_OK) {
        status = end(&e, err);
    }
    if (status == MEMOS_OK) {
        *out = e.summary;
    }
    memcube_maps_release(&e.maps);
    memcube_idmap_finish(&e.sent);
    memcube_idmap_finish(&e.cubes);
    memos_arena_finish(&e.arena);
    memos_arena_finish(&e.record_arena);
    memos_buffer_free(&e.out);
    memos_buffer_free(&e.version);
    return status;
}
