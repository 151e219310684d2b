/* Keys that can be destroyed.
 *
 * LMDB copies pages on write and leaves old bytes in free pages and in the slack of live ones, so
 * deleting a value does not remove its bytes from the file. Therefore what forget must be able to
 * destroy is stored encrypted, each thing under a key of its own, and the keys lie in a file beside
 * the database that is overwritten in place: destroying a key destroys every copy of what it
 * opened.
 *
 * The file is a header and 32-byte slots of random bytes, made ahead in runs of many (one sync for
 * thousands of slots, so that a commit needs no second sync). Slot numbers count up from 1 and are
 * never used again; which are in use is the store's to know. A destroyed slot is all zeros.
 *
 * Caveats: on a file system that copies on write (btrfs, ZFS) or on flash, the medium may keep an
 * old copy of the slot; the README says so.
 *
 * Threads: may be shared; growing and destroying are for one thread at a time (the store's writer),
 * and run beside readers. */
#ifndef MEMCUBE_VAULT_H
#define MEMCUBE_VAULT_H

#include "proto/bytes.h"

struct memcube_vault;

/* Open the file `vault` in the store's folder, making it when missing (not when read_only:
 * NOT_FOUND). CORRUPT, UNSUPPORTED. */
MEMOS_MUST_USE enum memos_status memcube_vault_open(
    const char *folder, bool read_only, struct memcube_vault **out_vault, struct memos_error *err);
void memcube_vault_close(struct memcube_vault **vault);

/* Make sure that slots 1..slot are there and durable. NO_SPACE, IO. */
MEMOS_MUST_USE enum memos_status memcube_vault_reserve(
    struct memcube_vault *vault, uint64_t slot, struct memos_error *err);

/* Encrypt or decrypt (the same operation, ChaCha20) size bytes with a slot's key. One key may serve
 * several texts when their nonces differ. in == out is fine. FORGOTTEN: the key was destroyed.
 * CORRUPT: there is no such slot. */
MEMOS_MUST_USE enum memos_status memcube_vault_apply(struct memcube_vault *vault, uint64_t slot,
    uint64_t nonce, const void *in, void *out, size_t size, struct memos_error *err);

/* Copy a slot's 32 bytes out (the secrets of spaces live in slots, too). FORGOTTEN, CORRUPT. */
MEMOS_MUST_USE enum memos_status memcube_vault_key(
    struct memcube_vault *vault, uint64_t slot, uint8_t out[32], struct memos_error *err);

/* Overwrite slots with zeros; durable when it returns. */
MEMOS_MUST_USE enum memos_status memcube_vault_destroy(struct memcube_vault *vault,
    const uint64_t *slots, size_t slots_count, struct memos_error *err);

#endif
