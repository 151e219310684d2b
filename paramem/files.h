/* The files of a model's folder: mapped, or read whole under a bound.
 *
 * A map is of the file as it is: whoever shortens it while it is mapped kills the process that
 * reads there (SIGBUS). Model files are installed by renaming, as everybody does; what is parsed
 * (configuration, vocabularies) is read and not mapped.
 *
 * Threads: no shared state. */
#ifndef PARAMEM_FILES_H
#define PARAMEM_FILES_H

#include "proto/bytes.h"

/* Longest path of a file in a folder, with its NUL. */
#define PARAMEM_PATH_BYTES 4096

struct paramem_map {
    const uint8_t *data; /* NULL when size is 0 */
    size_t size;
};

/* folder/name in out. TOO_LARGE when it does not fit. */
MEMOS_MUST_USE enum memos_status paramem_path(
    const char *folder, const char *name, char out[PARAMEM_PATH_BYTES], struct memos_error *err);

/* Map a regular file for reading. NOT_FOUND, DENIED, IO; INVALID when it is no regular file. */
MEMOS_MUST_USE enum memos_status paramem_map_open(
    const char *path, struct paramem_map *out, struct memos_error *err);
void paramem_map_close(struct paramem_map *map); /* takes NULL and a closed one */

/* Read folder/name into out, which it makes (the caller frees it, also after a failure). TOO_LARGE
 * past size_max. */
MEMOS_MUST_USE enum memos_status paramem_file_read(const char *folder, const char *name,
    size_t size_max, struct memos_buffer *out, struct memos_error *err);

#endif
