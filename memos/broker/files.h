/* The folders and secret files of a broker.
 *
 * Threads: called while the broker is made. */
#ifndef MEMOS_BROKER_FILES_H
#define MEMOS_BROKER_FILES_H

#include "proto/bytes.h"

/* Make a folder, and those above it that are missing, with mode 0700. IO, DENIED. */
MEMOS_MUST_USE enum memos_status broker_folder_make(const char *path, struct memos_error *err);

/* Is it a folder of this user, in which nobody else can make or replace anything? DENIED. */
MEMOS_MUST_USE enum memos_status broker_folder_check(const char *path, struct memos_error *err);

/* Read exactly size bytes of a secret; NOT_FOUND when the file is missing, DENIED when others may
 * read it, CORRUPT when it has another size. */
MEMOS_MUST_USE enum memos_status broker_secret_read(
    const char *path, void *out, size_t size, struct memos_error *err);

/* Make a file of a secret, 0600, whole or not at all, synced. EXISTS. */
MEMOS_MUST_USE enum memos_status broker_secret_write(
    const char *path, const void *data, size_t size, struct memos_error *err);

#endif
