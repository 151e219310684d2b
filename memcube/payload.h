/* Payloads: stored once per space and content, counted by reference, destroyed for good.
 *
 * Small ones lie encrypted in the database under a vault slot of their own. Larger ones are blob
 * files (blobs/xx/HASH-SPACE), plain so that they can be mapped, hashed by chunks of 1 MiB so that
 * a part can be checked alone; written and synced before the transaction that names them.
 * Destroying overwrites the slot, or the file, before the name goes.
 *
 * Destruction follows the commit: a released payload is put on a list in the transaction
 * (table "shred"), and memcube_payloads_shred carries the list out after the commit and again at
 * open if a crash came between.
 *
 * Two spaces never share a payload: what one space forgets is gone whatever others hold, and no
 * space can learn from timing what another one has. */
#ifndef MEMCUBE_PAYLOAD_H
#define MEMCUBE_PAYLOAD_H

#include "memcube/cube.h"
#include "memcube/db.h"
#include "memcube/vault.h"
#include "proto/arena.h"

struct memcube_payloads;

struct memcube_payloads_options {
    struct memcube_db *db;
    struct memcube_vault *vault;
    const char *path; /* of the store */
    size_t inline_bytes_max;
    bool read_only;
    /* Gives the next unused vault slot, reserved and counted in this transaction. */
    enum memos_status (*slot_next)(
        void *self, struct memcube_txn *txn, uint64_t *out_slot, struct memos_error *err);
    void *self;
};

/* Opens its tables ("payload.refs", "payload.data", "payload.chunks", "shred"). */
MEMOS_MUST_USE enum memos_status memcube_payloads_open(
    const struct memcube_payloads_options *options, struct memcube_payloads **out_payloads,
    struct memos_error *err);
void memcube_payloads_close(struct memcube_payloads **payloads);

/* Where a payload lies; kept in the version's row, outside the chain. */
struct memcube_place {
    uint64_t slot; /* vault slot and key in payload.data; 0: a blob file */
};

/* Add a reference to these bytes, storing them if they are new. `bytes_new`: how many bytes were
 * stored (0 when they were there). A new blob file is synced when this returns; if the transaction
 * does not commit, memcube_payloads_settle destroys it, or after a crash the next open. */
MEMOS_MUST_USE enum memos_status memcube_payload_add(struct memcube_payloads *payloads,
    struct memcube_txn *txn, uint32_t space, const struct memcube_hash *hash,
    struct memos_bytes bytes, struct memcube_place *out_place, uint64_t *out_bytes_new,
    struct memos_error *err);

/* Add a reference to a payload that is already there (rollback, state changes). NOT_FOUND,
 * FORGOTTEN. */
MEMOS_MUST_USE enum memos_status memcube_payload_share(struct memcube_payloads *payloads,
    struct memcube_txn *txn, uint32_t space, const struct memcube_hash *hash,
    struct memcube_place *out_place, struct memos_error *err);

/* Drop `references` references; with the last one the payload goes on the shred list and
 * *out_destroyed is true. */
MEMOS_MUST_USE enum memos_status memcube_payload_release(struct memcube_payloads *payloads,
    struct memcube_txn *txn, uint32_t space, const struct memcube_hash *hash, uint32_t references,
    bool *out_destroyed, struct memos_error *err);

/* Put a vault slot on the shred list (the key of a cube's descriptions). */
MEMOS_MUST_USE enum memos_status memcube_payload_shred_slot(struct memcube_payloads *payloads,
    struct memcube_txn *txn, uint64_t slot, struct memos_error *err);

/* Files mapped for one snapshot. */
struct memcube_maps {
    struct memcube_map *first;
};
void memcube_maps_release(struct memcube_maps *maps);

/* Take the mapping that begins at data out; false when there is none. */
bool memcube_maps_take(struct memcube_maps *maps, const void *data);

/* The bytes: decrypted into the arena, or mapped (and remembered in maps). verify: hash them and
 * answer CORRUPT when they are not what they were. */
MEMOS_MUST_USE enum memos_status memcube_payload_read(struct memcube_payloads *payloads,
    struct memcube_txn *txn, uint32_t space, struct memcube_place place,
    const struct memcube_hash *hash, uint64_t size, bool verify, struct memos_arena *arena,
    struct memcube_maps *maps, struct memos_bytes *out, struct memos_error *err);

/* The blob file's path; NOT_FOUND for an inline payload. */
MEMOS_MUST_USE enum memos_status memcube_payload_file(struct memcube_payloads *payloads,
    uint32_t space, struct memcube_place place, const struct memcube_hash *hash,
    struct memos_arena *arena, struct memos_bytes *out_path, struct memos_error *err);

/* Carry out the shred list in its own small transactions: destroy slots and files, sync, clear the
 * list. After this returned OK nothing on the list can be read from any file. *out_count: how
 * many. */
MEMOS_MUST_USE enum memos_status memcube_payloads_shred(
    struct memcube_payloads *payloads, uint64_t *out_count, struct memos_error *err);

/* After a write transaction has ended, in its thread and before the next one begins: if it did not
 * commit, destroy the blob files that it made and that nothing names. */
void memcube_payloads_settle(struct memcube_payloads *payloads, bool committed);

/* At open: remove blob files that nothing names (a crash came before their commit). */
MEMOS_MUST_USE enum memos_status memcube_payloads_sweep(
    struct memcube_payloads *payloads, uint64_t *out_removed, struct memos_error *err);

/* How many blob files there are, and how large they are together; known after the sweep at open.
 * Any thread. */
void memcube_payloads_blobs(
    const struct memcube_payloads *payloads, uint64_t *out_count, uint64_t *out_bytes);

/* fsck: payloads that lie in the database, and blob files, that no version names any more. Counts
 * them; removes them on demand, and leftovers of files in any case. Only inside a write, so that
 * nobody adds one meanwhile. */
MEMOS_MUST_USE enum memos_status memcube_payloads_strays(struct memcube_payloads *payloads,
    struct memcube_txn *txn, bool remove, uint64_t *out_count, struct memos_error *err);

/* fsck: the tables, which it looks at and mends entry by entry. */
struct memcube_payload_tables {
    memcube_table refs, data, chunks;
};
void memcube_payloads_tables(
    const struct memcube_payloads *payloads, struct memcube_payload_tables *out);

/* fsck: how many references does this payload have? 0 when it is not there. */
MEMOS_MUST_USE enum memos_status memcube_payload_references(struct memcube_payloads *payloads,
    struct memcube_txn *txn, uint32_t space, const struct memcube_hash *hash, uint64_t *out,
    struct memos_error *err);

#endif
