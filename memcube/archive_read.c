/* The proof of an archive: one pass over its frames that believes nothing.
 *
 * What is checked, besides every hash: records follow each other without a gap and carry the hash
 * of the one before; each record is followed by exactly the versions that it names; a cube's
 * versions count 1, 2, 3 ...; a payload comes once, right before the first version that names it;
 * a version lacks its description and payload only if its cube is forgotten later in the same
 * archive, and then all versions of that cube do. */
#include "memcube/archive_format.h"

#include <string.h>

/* What the map of cubes keeps for each: the number of the newest version so far, and flags. */
#define CUBE_BARE (UINT64_C(1) << 32)      /* some version came without its content */
#define CUBE_FULL (UINT64_C(1) << 33)      /* some version came with it */
#define CUBE_FORGOTTEN (UINT64_C(1) << 34) /* the newest version says so */

struct check {
    struct memcube_archive *archive;
    size_t at;
    struct memcube_hasher whole; /* of all bytes before at */
    struct memcube_idmap cubes;
    struct memos_arena record_arena, version_arena;
    struct memcube_log_record record; /* the newest */
    size_t entry;                     /* the next of its entries */
    uint64_t seq;                     /* of the newest version, in a cube's archive */
    bool payload_waits;               /* for the version that names it */
    struct memcube_hash payload_hash;
};

static enum memos_status corrupt(size_t offset, const char *what, struct memos_error *err)
{
    return memos_fail(err, MEMOS_CORRUPT, "archive, at byte %zu: %s", offset, what);
}

/* A decoder's complaint, with the place. */
static enum memos_status at_byte(
    size_t offset, enum memos_status status, const struct memos_error *inner,
    struct memos_error *err)
{
    return memos_fail(err, status, "archive, at byte %zu: %s", offset, inner->text);
}

enum memos_status memcube_archive_frame_read(struct memos_bytes archive, size_t *at,
    struct memcube_archive_frame *out, struct memos_error *err)
{
    size_t offset = *at;
    if (offset > archive.size) {
        return corrupt(archive.size, "it ends too early", err);
    }
    struct memos_reader r = memos_reader_of(memos_bytes_make(
        (const uint8_t *)archive.data + offset, archive.size - offset));
    uint8_t type = memos_read_u8(&r);
    uint64_t size = memos_read_u64(&r);
    memos_read_into(&r, out->hash.bytes, sizeof out->hash.bytes);
    if (r.failed || size > r.left) {
        return corrupt(offset, "a frame is longer than what is left", err);
    }
    if (type < MEMCUBE_ARCHIVE_BEGIN || type > MEMCUBE_ARCHIVE_END) {
        return corrupt(offset, "an unknown frame", err);
    }
    out->type = type;
    out->offset = offset;
    out->content = memos_read_bytes(&r, (size_t)size);
    *at = archive.size - r.left;
    return MEMOS_OK;
}

enum memos_status memcube_archive_version_read(const struct memcube_archive_frame *frame,
    struct memcube_archive_version *out, struct memos_error *err)
{
    struct memos_reader r = memos_reader_of(frame->content);
    out->seq = memos_read_u64(&r);
    out->header = memos_read_sized(&r, frame->content.size);
    out->description = memos_read_sized(&r, frame->content.size);
    if (!memos_reader_done(&r)) {
        return corrupt(frame->offset, "a version's parts do not fill its frame", err);
    }
    return MEMOS_OK;
}

enum memos_status memcube_archive_payload(const struct memcube_archive *archive,
    const struct memcube_hash *hash, struct memos_bytes *out, struct memos_error *err)
{
    struct memcube_archive_frame frame;
    const uint64_t *offset = memcube_idmap_find(&archive->payloads, hash->bytes);
    if (!offset) {
        return memos_fail(err, MEMOS_CORRUPT, "archive: it lacks a payload");
    }
    size_t at = (size_t)*offset;
    enum memos_status status = memcube_archive_frame_read(archive->bytes, &at, &frame, err);
    if (status != MEMOS_OK) {
        return status;
    }
    /* The map compares only the beginnings of hashes. */
    if (frame.type != MEMCUBE_ARCHIVE_PAYLOAD || !memcube_hash_equal(&frame.hash, hash)) {
        return corrupt(frame.offset, "two payloads whose hashes begin alike", err);
    }
    *out = frame.content;
    return MEMOS_OK;
}

/* ---- the frames one by one ----------------------------------------------------------------- */

static enum memos_status check_begin(struct check *c, const struct memcube_archive_frame *frame,
    struct memos_error *err)
{
    struct memcube_archive *archive = c->archive;
    struct memos_reader r = memos_reader_of(frame->content);
    uint8_t scope = memos_read_u8(&r);
    memos_read_into(&r, archive->summary.space_id.bytes, sizeof archive->summary.space_id.bytes);
    memos_read_into(&r, archive->cube_id.bytes, sizeof archive->cube_id.bytes);
    archive->summary.single_cube = scope == MEMCUBE_ARCHIVE_CUBE;
    if (frame->type != MEMCUBE_ARCHIVE_BEGIN || !memos_reader_done(&r) ||
        (scope != MEMCUBE_ARCHIVE_SPACE && scope != MEMCUBE_ARCHIVE_CUBE) ||
        memos_id_is_nil(&archive->summary.space_id) ||
        memos_id_is_nil(&archive->cube_id) == archive->summary.single_cube) {
        return corrupt(frame->offset, "the first frame does not say what follows", err);
    }
    return MEMOS_OK;
}

/* Nothing may be left open where a record, or the end, begins. */
static enum memos_status check_complete(
    const struct check *c, size_t offset, struct memos_error *err)
{
    if (c->payload_waits) {
        return corrupt(offset, "the payload before is named by no version", err);
    }
    if (c->entry < c->record.entries_count) {
        return memos_fail(err, MEMOS_CORRUPT,
            "archive, at byte %zu: record %llu names %zu versions, but %zu follow it", offset,
            (unsigned long long)c->record.seq, c->record.entries_count, c->entry);
    }
    return MEMOS_OK;
}

static enum memos_status check_record(struct check *c, const struct memcube_archive_frame *frame,
    struct memos_error *err)
{
    struct memcube_archive_summary *summary = &c->archive->summary;
    struct memos_error inner;
    struct memos_id space_id;
    int64_t time_before = c->record.time_us;

    if (summary->single_cube) {
        return corrupt(frame->offset, "a log record in the archive of one cube", err);
    }
    enum memos_status status = check_complete(c, frame->offset, err);
    if (status != MEMOS_OK) {
        return status;
    }
    memos_arena_reset(&c->record_arena);
    c->entry = 0;
    status = memcube_log_decode(frame->content, &c->record_arena, &space_id, &c->record, &inner);
    if (status != MEMOS_OK) {
        c->record = (struct memcube_log_record){ 0 };
        return at_byte(frame->offset, status, &inner, err);
    }
    const char *what = NULL;
    if (!memos_id_equal(&space_id, &summary->space_id)) {
        what = "a log record of another space";
    } else if (c->record.seq != summary->seq + 1) {
        what = "log records that do not follow each other";
    } else if (!memcube_hash_equal(&c->record.previous, &summary->head)) {
        what = "a log record that does not carry the hash of the one before";
    } else if (c->record.time_us < time_before) {
        what = "a log record that is older than the one before";
    }
    if (what) {
        return corrupt(frame->offset, what, err);
    }
    summary->seq = c->record.seq;
    summary->head = c->record.hash;
    summary->records++;
    return MEMOS_OK;
}

static enum memos_status check_payload(struct check *c, const struct memcube_archive_frame *frame,
    struct memos_error *err)
{
    uint64_t *found = NULL;
    size_t keys = c->archive->payloads.count;
    if (c->payload_waits) {
        return corrupt(frame->offset, "the payload before is named by no version", err);
    }
    enum memos_status status = memcube_idmap_add(
        &c->archive->payloads, frame->hash.bytes, frame->offset, &found, err);
    if (status != MEMOS_OK) {
        return status;
    }
    if (c->archive->payloads.count == keys) {
        return corrupt(frame->offset, "a payload that came before", err);
    }
    c->payload_waits = true;
    c->payload_hash = frame->hash;
    c->archive->summary.payloads++;
    return MEMOS_OK;
}

/* Does the version come where it must: in the record that names it, or among its cube's? */
static enum memos_status check_place(struct check *c, const struct memcube_archive_frame *frame,
    const struct memcube_archive_version *parts, const struct memcube_version *version,
    struct memos_error *err)
{
    if (c->archive->summary.single_cube) {
        if (!memos_id_equal(&version->id, &c->archive->cube_id)) {
            return corrupt(frame->offset, "a version of another cube", err);
        }
        if (parts->seq == 0 || parts->seq < c->seq) {
            return corrupt(frame->offset, "a version that is older than the one before", err);
        }
        c->seq = parts->seq;
        return MEMOS_OK;
    }
    if (c->entry >= c->record.entries_count || parts->seq != c->record.seq) {
        return corrupt(frame->offset, "a version that its log record does not name", err);
    }
    const struct memcube_log_entry *entry = &c->record.entries[c->entry++];
    struct memcube_hash hash = memcube_hash_of(parts->header);
    if (!memos_id_equal(&entry->ref.id, &version->id) || entry->ref.number != version->number ||
        !memcube_hash_equal(&entry->version_hash, &hash)) {
        return corrupt(frame->offset, "a version that is not the one in its log record", err);
    }
    return MEMOS_OK;
}

/* Count the version onto its cube. */
static enum memos_status check_chain(struct check *c, const struct memcube_archive_frame *frame,
    const struct memcube_version *version, bool bare, struct memos_error *err)
{
    uint64_t *cube = memcube_idmap_find(&c->cubes, version->id.bytes);
    uint64_t before = cube ? *cube : 0;

    if (version->number != (uint32_t)before + 1 || (before & CUBE_FORGOTTEN) != 0) {
        return corrupt(frame->offset, "a version that does not follow its cube's last", err);
    }
    uint64_t now = (before & ~(uint64_t)UINT32_MAX) | version->number;
    if (version->state == MEMCUBE_STATE_FORGOTTEN) {
        now |= CUBE_FORGOTTEN;
        if (!bare || (before & CUBE_FULL) != 0) {
            return corrupt(frame->offset, "a forgotten cube with its content", err);
        }
    } else {
        now |= bare ? CUBE_BARE : CUBE_FULL;
    }
    if (cube) {
        *cube = now;
        return MEMOS_OK;
    }
    c->archive->summary.cubes++;
    return memcube_idmap_add(&c->cubes, version->id.bytes, now, &cube, err);
}

/* The description and the payload are what the header names. */
static enum memos_status check_content(struct check *c, const struct memcube_archive_frame *frame,
    const struct memcube_archive_version *parts, const struct memcube_version *version,
    struct memos_error *err)
{
    struct memcube_description description;
    struct memos_error inner;
    struct memos_bytes payload;
    struct memcube_hash hash = memcube_hash_of(parts->description);

    if (!memcube_hash_equal(&hash, &version->description_hash)) {
        return corrupt(frame->offset, "a description that is not the one in its header", err);
    }
    enum memos_status status = memcube_description_decode(
        parts->description, &c->version_arena, &description, &inner);
    if (status != MEMOS_OK) {
        return at_byte(frame->offset, status, &inner, err);
    }
    if (c->payload_waits && !memcube_hash_equal(&c->payload_hash, &version->payload_hash)) {
        return corrupt(frame->offset, "the payload before is not this version's", err);
    }
    c->payload_waits = false;
    status = memcube_archive_payload(c->archive, &version->payload_hash, &payload, &inner);
    if (status != MEMOS_OK) {
        return at_byte(frame->offset, status, &inner, err);
    }
    if (payload.size != version->payload_bytes) {
        return corrupt(frame->offset, "a payload of another length than its header says", err);
    }
    return MEMOS_OK;
}

static enum memos_status check_version(struct check *c, const struct memcube_archive_frame *frame,
    struct memos_error *err)
{
    struct memcube_archive_version parts;
    struct memcube_version version;
    struct memos_error inner;

    enum memos_status status = memcube_archive_version_read(frame, &parts, err);
    if (status != MEMOS_OK) {
        return status;
    }
    memos_arena_reset(&c->version_arena);
    status = memcube_header_decode(parts.header, &c->version_arena, &version, &inner);
    if (status != MEMOS_OK) {
        return at_byte(frame->offset, status, &inner, err);
    }
    bool bare = parts.description.size == 0;
    status = check_place(c, frame, &parts, &version, err);
    if (status == MEMOS_OK) {
        status = check_chain(c, frame, &version, bare, err);
    }
    if (status == MEMOS_OK && bare && c->payload_waits) {
        status = corrupt(frame->offset, "a payload before a version that has none", err);
    }
    if (status == MEMOS_OK && !bare) {
        status = check_content(c, frame, &parts, &version, err);
    }
    c->archive->summary.versions++;
    return status;
}

/* At the end: what came without content must have been forgotten. */
static enum memos_status check_forgotten(struct check *c,
    const struct memcube_archive_frame *frame, struct memos_error *err)
{
    struct memcube_idmap_slot cube;
    uint64_t *added = NULL;
    enum memos_status status = MEMOS_OK;
    for (size_t position = 0;
         status == MEMOS_OK && memcube_idmap_next(&c->cubes, &position, &cube);) {
        if ((cube.value & CUBE_FORGOTTEN) != 0) {
            status = memcube_idmap_add(&c->archive->forgotten, cube.key, 1, &added, err);
        } else if ((cube.value & CUBE_BARE) != 0) {
            status = corrupt(
                frame->offset, "a cube lacks content although it is not forgotten", err);
        }
    }
    return status;
}

/* The closing frame must say what was counted, and the hash of everything before it. */
static enum memos_status check_end(struct check *c, const struct memcube_archive_frame *frame,
    struct memos_error *err)
{
    struct memcube_archive_summary *summary = &c->archive->summary;
    struct memcube_hash head, whole, whole_there;
    struct memos_reader r = memos_reader_of(frame->content);

    enum memos_status status = check_complete(c, frame->offset, err);
    if (status != MEMOS_OK) {
        return status;
    }
    uint64_t seq = memos_read_u64(&r);
    memos_read_into(&r, head.bytes, sizeof head.bytes);
    bool equal = memos_read_u64(&r) == summary->records;
    equal = memos_read_u64(&r) == summary->cubes && equal;
    equal = memos_read_u64(&r) == summary->versions && equal;
    equal = memos_read_u64(&r) == summary->payloads && equal;
    memos_read_into(&r, whole_there.bytes, sizeof whole_there.bytes);
    if (summary->single_cube) {
        summary->seq = seq;
        summary->head = head;
    }
    if (!memos_reader_done(&r) || !equal || seq != summary->seq || seq < c->seq ||
        !memcube_hash_equal(&head, &summary->head)) {
        return corrupt(frame->offset, "the closing frame does not say what came before it", err);
    }
    whole = memcube_hasher_end(&c->whole);
    if (!memcube_hash_equal(&whole, &whole_there)) {
        return corrupt(frame->offset, "the hash of everything before is another", err);
    }
    if (c->at != c->archive->bytes.size) {
        return corrupt(c->at, "bytes after the closing frame", err);
    }
    return check_forgotten(c, frame, err);
}

static enum memos_status check_frames(struct check *c, struct memos_error *err)
{
    struct memos_bytes bytes = c->archive->bytes;
    for (bool first = true;; first = false) {
        struct memcube_archive_frame frame;
        size_t begin = c->at;
        enum memos_status status = memcube_archive_frame_read(bytes, &c->at, &frame, err);
        if (status != MEMOS_OK) {
            return status;
        }
        struct memcube_hash hash = memcube_hash_of(frame.content);
        if (!memcube_hash_equal(&hash, &frame.hash)) {
            return corrupt(begin, "a frame whose bytes are not what they were", err);
        }
        if (first) {
            status = check_begin(c, &frame, err);
        } else if (frame.type == MEMCUBE_ARCHIVE_RECORD) {
            status = check_record(c, &frame, err);
        } else if (frame.type == MEMCUBE_ARCHIVE_VERSION) {
            status = check_version(c, &frame, err);
        } else if (frame.type == MEMCUBE_ARCHIVE_PAYLOAD) {
            status = check_payload(c, &frame, err);
        } else if (frame.type == MEMCUBE_ARCHIVE_END) {
            return check_end(c, &frame, err);
        } else {
            status = corrupt(begin, "a second first frame", err);
        }
        if (status != MEMOS_OK) {
            return status;
        }
        memcube_hasher_add(&c->whole,
            memos_bytes_make((const uint8_t *)bytes.data + begin, c->at - begin));
    }
}

/* ---- the archive as a whole ---------------------------------------------------------------- */

static enum memos_status check_start(struct check *c, struct memos_error *err)
{
    struct memos_reader r = memos_reader_of(c->archive->bytes);
    struct memos_bytes magic = memos_read_bytes(&r, MEMCUBE_ARCHIVE_MAGIC_BYTES);
    uint32_t format = memos_read_u32(&r);

    if (r.failed || !memos_bytes_equal(magic, memos_bytes_of(MEMCUBE_ARCHIVE_MAGIC))) {
        return corrupt(0, "this is not an archive of memos", err);
    }
    if (format != MEMCUBE_ARCHIVE_FORMAT) {
        return memos_fail(err, MEMOS_UNSUPPORTED,
            "an archive of format %lu; this version reads format %d", (unsigned long)format,
            MEMCUBE_ARCHIVE_FORMAT);
    }
    c->at = MEMCUBE_ARCHIVE_START_BYTES;
    memcube_hasher_begin(&c->whole);
    memcube_hasher_add(&c->whole, memos_bytes_make(c->archive->bytes.data, c->at));
    return MEMOS_OK;
}

enum memos_status memcube_archive_open(
    struct memos_bytes bytes, struct memcube_archive *out, struct memos_error *err)
{
    struct check check = { .archive = out };
    /* Decoded, a record or a version takes no more than a few times its bytes. */
    size_t room = bytes.size > (SIZE_MAX >> 4) ? SIZE_MAX : (bytes.size << 3) + 65536;

    *out = (struct memcube_archive){ .bytes = bytes };
    out->summary.bytes = bytes.size;
    memcube_idmap_init(&out->payloads, SIZE_MAX);
    memcube_idmap_init(&out->forgotten, SIZE_MAX);
    memcube_idmap_init(&check.cubes, SIZE_MAX);
    memos_arena_init(&check.record_arena, room);
    memos_arena_init(&check.version_arena, room);
    enum memos_status status = check_start(&check, err);
    if (status == MEMOS_OK) {
        status = check_frames(&check, err);
    }
    memcube_idmap_finish(&check.cubes);
    memos_arena_finish(&check.record_arena);
    memos_arena_finish(&check.version_arena);
    return status;
}

void memcube_archive_finish(struct memcube_archive *archive)
{
    memcube_idmap_finish(&archive->payloads);
    memcube_idmap_finish(&archive->forgotten);
    archive->bytes = memos_bytes_make(NULL, 0);
}

enum memos_status memcube_archive_check(
    struct memos_bytes archive, struct memcube_archive_summary *out, struct memos_error *err)
{
    struct memcube_archive checked;
    enum memos_status status = memcube_archive_open(archive, &checked, err);
    if (status == MEMOS_OK) {
        *out = checked.summary;
    }
    memcube_archive_finish(&checked);
    return status;
}
