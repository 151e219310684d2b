/* The bytes of a version and of a log record, and their hashes.
 *
 * The encodings are canonical: one value has one encoding, so that a hash speaks for the value. All
 * integers are little-endian; strings are a 32-bit length and the bytes. The first byte is the
 * format's version, 1. Layouts field by field: memcube/README.md.
 *
 * Decoders take outside bytes (archives, a damaged file): they check every length, count and number
 * against memcube/cube.h and answer CORRUPT.
 *
 * Threads: no state. */
#ifndef MEMCUBE_RECORD_H
#define MEMCUBE_RECORD_H

#include "memcube/store.h"

/* BLAKE2b-256. */
struct memcube_hash memcube_hash_of(struct memos_bytes bytes);
bool memcube_hash_equal(const struct memcube_hash *a, const struct memcube_hash *b);

/* Streaming, for what does not lie in one piece. */
struct memcube_hasher {
    _Alignas(64) unsigned char state[384];
};
void memcube_hasher_begin(struct memcube_hasher *hasher);
void memcube_hasher_add(struct memcube_hasher *hasher, struct memos_bytes bytes);
struct memcube_hash memcube_hasher_end(struct memcube_hasher *hasher);

#define MEMCUBE_SALT_BYTES 16

/* Append the header of a version (id .. description_hash). */
void memcube_header_encode(const struct memcube_version *version, struct memos_buffer *out);

/* Read one back; arrays are taken from the arena, views point into bytes. The fields beside the
 * chain and the description are zero. */
MEMOS_MUST_USE enum memos_status memcube_header_decode(struct memos_bytes bytes,
    struct memos_arena *arena, struct memcube_version *out, struct memos_error *err);

/* A random salt goes first, so that the hash of a short description cannot be guessed from. */
void memcube_description_encode(const struct memcube_description *description,
    const uint8_t salt[MEMCUBE_SALT_BYTES], struct memos_buffer *out);
MEMOS_MUST_USE enum memos_status memcube_description_decode(struct memos_bytes bytes,
    struct memos_arena *arena, struct memcube_description *out, struct memos_error *err);

/* A log record without its own hash; the space's id is inside, so that a record cannot be moved to
 * another space. Its hash is memcube_hash_of these bytes. */
void memcube_log_encode(const struct memos_id *space_id, const struct memcube_log_record *record,
    struct memos_buffer *out);
/* hash is filled with the hash of bytes. */
MEMOS_MUST_USE enum memos_status memcube_log_decode(struct memos_bytes bytes,
    struct memos_arena *arena, struct memos_id *out_space_id, struct memcube_log_record *out,
    struct memos_error *err);

/* What a checkpoint's signature is over. */
void memcube_checkpoint_encode(
    const struct memcube_checkpoint *checkpoint, struct memos_buffer *out);

#endif
