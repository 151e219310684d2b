/* One file that carries a space, or one cube, with its history, and proves itself.
 *
 * The file has a header, then frames (log record, version with its description, payload), each with
 * its length and hash, then a closing frame with the hash of everything before it. Format: docs in
 * memcube/README.md. A reader needs nothing but the file to check it.
 *
 * Importing a space that is not there makes it with the same id, log and hashes. Where it is there,
 * the shorter history must be the beginning of the longer one: what is missing is appended, the
 * same file twice changes nothing, and a fork is a CONFLICT that names the first record that
 * differs. Importing a cube appends one IMPORT record that lists the cube's versions as they
 * were. */
#ifndef MEMCUBE_ARCHIVE_H
#define MEMCUBE_ARCHIVE_H

#include "memcube/store.h"

/* Bytes go to a sink and come from a source in pieces of any size. */
struct memcube_sink {
    enum memos_status (*write)(void *self, struct memos_bytes bytes, struct memos_error *err);
    void *self;
};

struct memcube_archive_summary {
    struct memos_id space_id;
    bool single_cube;
    uint64_t records, cubes, versions, payloads, bytes;
    uint64_t added;     /* records or versions that an import added; 0: it changed nothing */
    uint64_t seq;       /* the head that it carries */
    struct memcube_hash head;
};

/* Write a space (id NULL) or one cube to the sink. Reads in bounded steps. */
MEMOS_MUST_USE enum memos_status memcube_archive_export(struct memcube_store *store,
    struct memos_bytes space, const struct memos_id *id, const struct memcube_sink *sink,
    struct memcube_archive_summary *out, struct memos_error *err);

/* Check a whole archive in memory (a mapped file) without a store. CORRUPT says where. */
MEMOS_MUST_USE enum memos_status memcube_archive_check(struct memos_bytes archive,
    struct memcube_archive_summary *out, struct memos_error *err);

/* Check, then import into `space`, in this write: all or nothing. */
MEMOS_MUST_USE enum memos_status memcube_archive_import(struct memcube_write *write,
    const struct memcube_change *change, struct memos_bytes archive,
    struct memcube_archive_summary *out, struct memcube_outcome *out_outcome,
    struct memos_error *err);

#endif
