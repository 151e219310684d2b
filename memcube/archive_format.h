/* Inside of archives: the frames, and a checked walk over them. Private to memcube/archive_*.c;
 * the layout field by field is in memcube/README.md. */
#ifndef MEMCUBE_ARCHIVE_FORMAT_H
#define MEMCUBE_ARCHIVE_FORMAT_H

#include "memcube/archive.h"
#include "memcube/idmap.h"
#include "memcube/record.h"

#define MEMCUBE_ARCHIVE_MAGIC "memosarc"

enum {
    MEMCUBE_ARCHIVE_MAGIC_BYTES = 8,
    MEMCUBE_ARCHIVE_FORMAT = 1,
    MEMCUBE_ARCHIVE_START_BYTES = MEMCUBE_ARCHIVE_MAGIC_BYTES + 4,
    MEMCUBE_ARCHIVE_FRAME_BYTES = 1 + 8 + MEMCUBE_HASH_BYTES, /* before a frame's content */
};

/* Numbers are in files, for ever. */
enum memcube_archive_type {
    MEMCUBE_ARCHIVE_BEGIN = 1,
    MEMCUBE_ARCHIVE_RECORD = 2,
    MEMCUBE_ARCHIVE_VERSION = 3,
    MEMCUBE_ARCHIVE_PAYLOAD = 4,
    MEMCUBE_ARCHIVE_END = 5,
};

enum memcube_archive_scope {
    MEMCUBE_ARCHIVE_SPACE = 1,
    MEMCUBE_ARCHIVE_CUBE = 2,
};

struct memcube_archive_frame {
    enum memcube_archive_type type;
    size_t offset; /* of the frame in the archive */
    struct memos_bytes content;
    struct memcube_hash hash; /* of the content, as the frame says */
};

/* An archive that was checked as a whole. Views the archive's bytes, which must not change. */
struct memcube_archive {
    struct memos_bytes bytes;
    struct memos_id cube_id;                /* of a single cube; nil: a space */
    struct memcube_archive_summary summary; /* what the closing frame says, and what was counted */
    struct memcube_idmap payloads;          /* beginning of the hash to offset of the frame */
    struct memcube_idmap forgotten;         /* ids of cubes whose last version says so */
};

/* Check everything that can be checked without a store. CORRUPT names the byte; UNSUPPORTED: a
 * newer format. finish takes one that failed, too. */
MEMOS_MUST_USE enum memos_status memcube_archive_open(
    struct memos_bytes bytes, struct memcube_archive *out, struct memos_error *err);
void memcube_archive_finish(struct memcube_archive *archive);

/* The frame at *at, which moves behind it. Checks the bounds, not the hash. CORRUPT. */
MEMOS_MUST_USE enum memos_status memcube_archive_frame_read(struct memos_bytes archive,
    size_t *at, struct memcube_archive_frame *out, struct memos_error *err);

/* One version as it lies in an archive. */
struct memcube_archive_version {
    uint64_t seq;                   /* in the space that it came from */
    struct memos_bytes header;      /* canonical bytes */
    struct memos_bytes description; /* canonical bytes; empty: forgotten, there is no payload */
};
MEMOS_MUST_USE enum memos_status memcube_archive_version_read(
    const struct memcube_archive_frame *frame, struct memcube_archive_version *out,
    struct memos_error *err);

/* The bytes of a payload that the archive carries. CORRUPT: it does not. */
MEMOS_MUST_USE enum memos_status memcube_archive_payload(const struct memcube_archive *archive,
    const struct memcube_hash *hash, struct memos_bytes *out, struct memos_error *err);

#endif
