/* What the vault and the blobs need of files: whole writes, and names that are durable.
 *
 * Threads: no state. Errors: NO_SPACE, IO and what else errno says, with the path in the text. */
#ifndef MEMCUBE_FILE_H
#define MEMCUBE_FILE_H

#include "proto/bytes.h"

/* Write all of the bytes at an offset of fd, in as many calls as it takes. `path` is for the
 * error's text. */
MEMOS_MUST_USE enum memos_status memcube_file_write_at(
    int fd, struct memos_bytes bytes, uint64_t offset, const char *path, struct memos_error *err);

/* Overwrite size bytes from an offset with zeros. */
MEMOS_MUST_USE enum memos_status memcube_file_zero(
    int fd, uint64_t offset, uint64_t size, const char *path, struct memos_error *err);

/* Make the content durable. */
MEMOS_MUST_USE enum memos_status memcube_file_sync(
    int fd, const char *path, struct memos_error *err);

/* Overwrite a file with zeros, from its beginning on, and remove it from its folder; durable when
 * this returns. OK when it is not there. *out_bytes (may be NULL): how large it was. */
MEMOS_MUST_USE enum memos_status memcube_file_destroy(
    const char *path, const char *folder, uint64_t *out_bytes, struct memos_error *err);

/* Make a folder's names durable: what was created, renamed or removed in it. */
MEMOS_MUST_USE enum memos_status memcube_file_sync_folder(
    const char *path, struct memos_error *err);

#endif
