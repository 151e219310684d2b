/* Blob files: payloads too large for the database, under the store's folder `blobs`.
 *
 * blobs/xx/HASH-SPACE holds the plain bytes of the payload HASH (64 hex digits, xx the first two)
 * of the space with the number SPACE. Beside it, for moments: HASH-SPACE.new while it is written,
 * and HASH-SPACE.gone while it is being destroyed; both are leftovers when nobody is at work.
 *
 * Threads: making and destroying are for one thread at a time; opening to read, for any.
 *
 * For payload.c alone. */
#ifndef MEMCUBE_BLOB_H
#define MEMCUBE_BLOB_H

#include "memcube/cube.h"

/* "blobs/xx/HASH-SPACE.gone" with its NUL, after the store's path. */
#define MEMCUBE_BLOB_NAME_BYTES (6 + 3 + 64 + 1 + 10 + 5 + 1)

struct memcube_blob {
    uint32_t space;
    struct memcube_hash hash;
};

/* The path below the store's folder: "blobs/xx/HASH-SPACE". Returns out. */
char *memcube_blob_name(const struct memcube_blob *blob, char out[MEMCUBE_BLOB_NAME_BYTES]);

/* How many there are, and how large they are together. */
struct memcube_blob_totals {
    uint64_t count, bytes;
};

/* Write the file, durable under its name when this returns. One that is there with these very bytes
 * is left as it is; *out_made says whether it was not. */
MEMOS_MUST_USE enum memos_status memcube_blob_write(const char *store_path,
    const struct memcube_blob *blob, struct memos_bytes bytes, bool *out_made,
    struct memos_error *err);

/* Map it for reading. NOT_FOUND; CORRUPT when it does not have that size. */
MEMOS_MUST_USE enum memos_status memcube_blob_map(const char *store_path,
    const struct memcube_blob *blob, uint64_t size, void **out_map, struct memos_error *err);

/* Overwrite with zeros and remove, durable when this returns. OK when it is not there. *out_bytes:
 * how large it was; 0 when it was not there. */
MEMOS_MUST_USE enum memos_status memcube_blob_destroy(const char *store_path,
    const struct memcube_blob *blob, uint64_t *out_bytes, struct memos_error *err);

/* Who says whether somebody names a blob. */
struct memcube_blob_names {
    enum memos_status (*named)(
        void *self, const struct memcube_blob *blob, bool *out_named, struct memos_error *err);
    void *self;
};

/* Look at every file: blobs that nobody names, and every leftover, are destroyed. Other files are
 * left alone. *out_kept is what stays. */
MEMOS_MUST_USE enum memos_status memcube_blob_sweep(const char *store_path,
    const struct memcube_blob_names *names, uint64_t *out_removed,
    struct memcube_blob_totals *out_kept, struct memos_error *err);

#endif
