#include "memcube/payload.h"

#include "memcube/blob.h"
#include "memcube/record.h"

#include <errno.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CHUNK_BYTES ((size_t)1 << 20)
#define NONCE_BYTES 8u
#define SHRED_AT_ONCE 256u

enum shred_type {
    SHRED_SLOT = 1,
    SHRED_BLOB = 2,
};

struct memcube_payloads {
    struct memcube_payloads_options options;
    char *path;
    memcube_table refs, data, chunks, shred;
    _Atomic uint64_t blobs, blob_bytes; /* files that are there */
    struct memcube_blob *made;          /* files of the write that is open. Sync: its thread */
    size_t made_count, made_max;
};

struct memcube_map {
    struct memcube_map *next;
    void *data;
    size_t size;
};

enum memos_status memcube_payloads_open(const struct memcube_payloads_options *options,
    struct memcube_payloads **out_payloads, struct memos_error *err)
{
    struct memcube_payloads *payloads = calloc(1, sizeof *payloads);
    if (!payloads) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to open the payloads");
    }
    payloads->options = *options;
    /* Absolute: the path of a blob is told to other processes. */
    payloads->path = realpath(options->path, NULL);
    const struct {
        const char *name;
        memcube_table *table;
    } tables[] = {
        {"payload.refs", &payloads->refs},
        {"payload.data", &payloads->data},
        {"payload.chunks", &payloads->chunks},
        {"shred", &payloads->shred},
    };
    enum memos_status status =
        payloads->path ? MEMOS_OK : memos_fail_errno(err, errno, "looking for %s", options->path);
    for (size_t i = 0; status == MEMOS_OK && i < sizeof tables / sizeof tables[0]; i++) {
        status =
            memcube_db_table(options->db, tables[i].name, MEMCUBE_TABLE_MAP, tables[i].table, err);
    }
    if (status == MEMOS_OK) {
        *out_payloads = payloads;
    } else {
        memcube_payloads_close(&payloads);
    }
    return status;
}

void memcube_payloads_close(struct memcube_payloads **payloads)
{
    if (*payloads) {
        free((*payloads)->made);
        free((*payloads)->path);
        free(*payloads);
        *payloads = NULL;
    }
}

/* ---- references ---------------------------------------------------------------------------- */

#define CONTENT_KEY_BYTES (4u + MEMCUBE_HASH_BYTES)

struct content_key {
    uint8_t bytes[CONTENT_KEY_BYTES]; /* space (big-endian), hash */
};

static struct memos_bytes content_key(
    struct content_key *key, uint32_t space, const struct memcube_hash *hash)
{
    for (unsigned i = 0; i < 4; i++) {
        key->bytes[i] = (uint8_t)(space >> (24 - 8 * i));
    }
    memcpy(key->bytes + 4, hash->bytes, MEMCUBE_HASH_BYTES);
    return memos_bytes_make(key->bytes, sizeof key->bytes);
}

struct number_key {
    uint8_t bytes[8]; /* big-endian */
};

static struct memos_bytes number_key(struct number_key *key, uint64_t number)
{
    for (unsigned i = 0; i < 8; i++) {
        key->bytes[i] = (uint8_t)(number >> (56 - 8 * i));
    }
    return memos_bytes_make(key->bytes, sizeof key->bytes);
}

struct refs {
    uint64_t references, slot, size;
};

static enum memos_status refs_get(struct memcube_payloads *payloads, struct memcube_txn *txn,
    uint32_t space, const struct memcube_hash *hash, struct refs *out, struct memos_error *err)
{
    struct content_key key;
    struct memos_bytes value;
    enum memos_status status =
        memcube_get(txn, payloads->refs, content_key(&key, space, hash), &value, err);
    if (status != MEMOS_OK) {
        return status;
    }
    struct memos_reader r = memos_reader_of(value);
    out->references = memos_read_u64(&r);
    out->slot = memos_read_u64(&r);
    out->size = memos_read_u64(&r);
    if (!memos_reader_done(&r) || out->references == 0) {
        return memos_fail(err, MEMOS_CORRUPT, "the references of a payload have a wrong form");
    }
    return MEMOS_OK;
}

static enum memos_status refs_put(struct memcube_payloads *payloads, struct memcube_txn *txn,
    uint32_t space, const struct memcube_hash *hash, const struct refs *refs,
    struct memos_error *err)
{
    struct content_key key;
    void *room = NULL;
    enum memos_status status = memcube_put_room(
        txn, payloads->refs, content_key(&key, space, hash), 3 * sizeof(uint64_t), &room, err);
    if (status != MEMOS_OK) {
        return status;
    }
    const uint64_t fields[3] = {refs->references, refs->slot, refs->size};
    for (unsigned i = 0; i < 24; i++) {
        ((uint8_t *)room)[i] = (uint8_t)(fields[i / 8] >> (8 * (i % 8)));
    }
    return MEMOS_OK;
}

enum memos_status memcube_payload_references(struct memcube_payloads *payloads,
    struct memcube_txn *txn, uint32_t space, const struct memcube_hash *hash, uint64_t *out,
    struct memos_error *err)
{
    struct refs refs = {0};
    enum memos_status status = refs_get(payloads, txn, space, hash, &refs, err);
    if (status == MEMOS_OK || status == MEMOS_NOT_FOUND) {
        *out = refs.references;
        return MEMOS_OK;
    }
    return status;
}

/* ---- adding -------------------------------------------------------------------------------- */

/* The nonce is random although each slot serves one payload: a transaction that does not commit
 * gives its slot number to the next one, and its pages may have reached the disk. */
static enum memos_status add_inline(struct memcube_payloads *payloads, struct memcube_txn *txn,
    struct memos_bytes bytes, uint64_t *out_slot, struct memos_error *err)
{
    struct number_key key;
    uint8_t nonce[NONCE_BYTES];
    void *room = NULL;
    enum memos_status status =
        payloads->options.slot_next(payloads->options.self, txn, out_slot, err);
    if (status == MEMOS_OK) {
        status = memcube_put_room(
            txn, payloads->data, number_key(&key, *out_slot), NONCE_BYTES + bytes.size, &room, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    randombytes_buf(nonce, sizeof nonce);
    memcpy(room, nonce, sizeof nonce);
    struct memos_reader r = memos_reader_of(memos_bytes_make(nonce, sizeof nonce));
    return memcube_vault_apply(payloads->options.vault, *out_slot, memos_read_u64(&r), bytes.data,
        (uint8_t *)room + NONCE_BYTES, bytes.size, err);
}

static enum memos_status made_note(struct memcube_payloads *payloads,
    const struct memcube_blob *blob, struct memos_error *err)
{
    if (payloads->made_count == payloads->made_max) {
        size_t max = payloads->made_max ? payloads->made_max * 2 : 16;
        struct memcube_blob *made = realloc(payloads->made, max * sizeof *made);
        if (!made) {
            return memos_fail(err, MEMOS_NO_MEMORY, "no memory to note a blob");
        }
        payloads->made = made;
        payloads->made_max = max;
    }
    payloads->made[payloads->made_count++] = *blob;
    return MEMOS_OK;
}

static enum memos_status add_blob(struct memcube_payloads *payloads, struct memcube_txn *txn,
    const struct memcube_blob *blob, struct memos_bytes bytes, struct memos_error *err)
{
    struct content_key key;
    void *room = NULL;
    size_t chunks = (bytes.size - 1) / CHUNK_BYTES + 1;
    bool made = false;
    enum memos_status status = made_note(payloads, blob, err);
    if (status == MEMOS_OK) {
        status = memcube_blob_write(payloads->path, blob, bytes, &made, err);
    }
    if (made) {
        atomic_fetch_add(&payloads->blobs, 1);
        atomic_fetch_add(&payloads->blob_bytes, bytes.size);
    }
    if (status == MEMOS_OK) {
        status = memcube_put_room(txn, payloads->chunks,
            content_key(&key, blob->space, &blob->hash), chunks * MEMCUBE_HASH_BYTES, &room, err);
    }
    for (size_t i = 0; status == MEMOS_OK && i < chunks; i++) {
        size_t at = i * CHUNK_BYTES;
        size_t size = bytes.size - at < CHUNK_BYTES ? bytes.size - at : CHUNK_BYTES;
        struct memcube_hash hash =
            memcube_hash_of(memos_bytes_make((const uint8_t *)bytes.data + at, size));
        memcpy((uint8_t *)room + i * MEMCUBE_HASH_BYTES, hash.bytes, MEMCUBE_HASH_BYTES);
    }
    return status;
}

enum memos_status memcube_payload_add(struct memcube_payloads *payloads, struct memcube_txn *txn,
    uint32_t space, const struct memcube_hash *hash, struct memos_bytes bytes,
    struct memcube_place *out_place, uint64_t *out_bytes_new, struct memos_error *err)
{
    struct refs refs = {0};
    enum memos_status status = refs_get(payloads, txn, space, hash, &refs, err);
    *out_bytes_new = 0;
    if (status == MEMOS_NOT_FOUND) {
        refs = (struct refs){.size = bytes.size};
        if (bytes.size <= payloads->options.inline_bytes_max) {
            status = add_inline(payloads, txn, bytes, &refs.slot, err);
        } else {
            struct memcube_blob blob = {space, *hash};
            status = add_blob(payloads, txn, &blob, bytes, err);
        }
        *out_bytes_new = bytes.size;
    } else if (status == MEMOS_OK && refs.size != bytes.size) {
        status =
            memos_fail(err, MEMOS_CORRUPT, "a payload of %llu bytes has the hash of %zu others",
                (unsigned long long)refs.size, bytes.size);
    }
    if (status == MEMOS_OK) {
        refs.references++;
        out_place->slot = refs.slot;
        status = refs_put(payloads, txn, space, hash, &refs, err);
    }
    return status;
}

enum memos_status memcube_payload_share(struct memcube_payloads *payloads, struct memcube_txn *txn,
    uint32_t space, const struct memcube_hash *hash, struct memcube_place *out_place,
    struct memos_error *err)
{
    struct refs refs = {0};
    enum memos_status status = refs_get(payloads, txn, space, hash, &refs, err);
    if (status == MEMOS_OK) {
        refs.references++;
        out_place->slot = refs.slot;
        status = refs_put(payloads, txn, space, hash, &refs, err);
    }
    return status;
}

/* ---- the shred list ------------------------------------------------------------------------ */

static enum memos_status shred_list(struct memcube_payloads *payloads, struct memcube_txn *txn,
    struct memos_bytes entry, struct memos_error *err)
{
    struct memcube_cursor *cursor = NULL;
    struct memos_bytes key, value;
    struct number_key next;
    uint64_t number = 1;
    enum memos_status status = memcube_cursor_open(txn, payloads->shred, &cursor, err);
    if (status != MEMOS_OK) {
        return status;
    }
    status = memcube_cursor_move(cursor, MEMCUBE_LAST, &key, &value, err);
    if (status == MEMOS_OK) {
        struct memos_reader r = memos_reader_of(key);
        number = memos_read_u64_be(&r) + 1;
    }
    memcube_cursor_close(&cursor);
    if (status != MEMOS_OK && status != MEMOS_NOT_FOUND) {
        return status;
    }
    return memcube_put(txn, payloads->shred, number_key(&next, number), entry, err);
}

enum memos_status memcube_payload_shred_slot(struct memcube_payloads *payloads,
    struct memcube_txn *txn, uint64_t slot, struct memos_error *err)
{
    uint8_t entry[9] = {SHRED_SLOT};
    for (unsigned i = 0; i < 8; i++) {
        entry[1 + i] = (uint8_t)(slot >> (8 * i));
    }
    return shred_list(payloads, txn, memos_bytes_make(entry, sizeof entry), err);
}

static enum memos_status shred_blob(struct memcube_payloads *payloads, struct memcube_txn *txn,
    uint32_t space, const struct memcube_hash *hash, struct memos_error *err)
{
    uint8_t entry[1 + 4 + MEMCUBE_HASH_BYTES] = {SHRED_BLOB};
    for (unsigned i = 0; i < 4; i++) {
        entry[1 + i] = (uint8_t)(space >> (8 * i));
    }
    memcpy(entry + 5, hash->bytes, MEMCUBE_HASH_BYTES);
    return shred_list(payloads, txn, memos_bytes_make(entry, sizeof entry), err);
}

enum memos_status memcube_payload_release(struct memcube_payloads *payloads,
    struct memcube_txn *txn, uint32_t space, const struct memcube_hash *hash, uint32_t references,
    bool *out_destroyed, struct memos_error *err)
{
    struct content_key key;
    struct number_key slot_key;
    struct memos_bytes none = {NULL, 0};
    struct refs refs = {0};
    *out_destroyed = false;
    enum memos_status status = refs_get(payloads, txn, space, hash, &refs, err);
    if (status != MEMOS_OK) {
        return status;
    }
    if (references > refs.references) {
        return memos_fail(err, MEMOS_CORRUPT, "a payload has %llu references, %u were dropped",
            (unsigned long long)refs.references, (unsigned)references);
    }
    refs.references -= references;
    if (refs.references > 0) {
        return refs_put(payloads, txn, space, hash, &refs, err);
    }
    status = memcube_delete(txn, payloads->refs, content_key(&key, space, hash), none, err);
    if (status == MEMOS_OK && refs.slot != 0) {
        status = memcube_delete(txn, payloads->data, number_key(&slot_key, refs.slot), none, err);
        if (status == MEMOS_OK) {
            status = memcube_payload_shred_slot(payloads, txn, refs.slot, err);
        }
    } else if (status == MEMOS_OK) {
        status = memcube_delete(txn, payloads->chunks, content_key(&key, space, hash), none, err);
        if (status == MEMOS_OK) {
            status = shred_blob(payloads, txn, space, hash, err);
        }
    }
    *out_destroyed = status == MEMOS_OK;
    return status;
}

struct shred_entry {
    struct number_key key;
    uint64_t slot;
    enum shred_type type;
    struct memcube_blob blob;
};

static enum memos_status shred_parse(struct memos_bytes key, struct memos_bytes value,
    struct shred_entry *out, struct memos_error *err)
{
    struct memos_reader r = memos_reader_of(key);
    memos_read_into(&r, out->key.bytes, sizeof out->key.bytes);
    bool key_done = memos_reader_done(&r);
    r = memos_reader_of(value);
    out->type = memos_read_u8(&r);
    if (out->type == SHRED_SLOT) {
        out->slot = memos_read_u64(&r);
    } else {
        out->blob.space = memos_read_u32(&r);
        memos_read_into(&r, out->blob.hash.bytes, MEMCUBE_HASH_BYTES);
    }
    if (!key_done || !memos_reader_done(&r) ||
        (out->type != SHRED_SLOT && out->type != SHRED_BLOB)) {
        return memos_fail(err, MEMOS_CORRUPT, "an entry of the shred list has a wrong form");
    }
    return MEMOS_OK;
}

static enum memos_status shred_collect(struct memcube_payloads *payloads, struct memcube_txn *txn,
    struct shred_entry *out, size_t *out_count, struct memos_error *err)
{
    struct memcube_cursor *cursor = NULL;
    struct memos_bytes key, value;
    enum memos_status status = memcube_cursor_open(txn, payloads->shred, &cursor, err);
    *out_count = 0;
    if (status == MEMOS_OK) {
        status = memcube_cursor_move(cursor, MEMCUBE_FIRST, &key, &value, err);
    }
    while (status == MEMOS_OK && *out_count < SHRED_AT_ONCE) {
        status = shred_parse(key, value, &out[*out_count], err);
        if (status == MEMOS_OK) {
            (*out_count)++;
            status = memcube_cursor_move(cursor, MEMCUBE_NEXT, &key, &value, err);
        }
    }
    memcube_cursor_close(&cursor);
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

/* A blob that was put again since keeps its file: the same words are remembered on purpose. */
static enum memos_status shred_one_blob(struct memcube_payloads *payloads, struct memcube_txn *txn,
    const struct memcube_blob *blob, struct memos_error *err)
{
    uint64_t references = 0, bytes = 0;
    enum memos_status status =
        memcube_payload_references(payloads, txn, blob->space, &blob->hash, &references, err);
    if (status == MEMOS_OK && references == 0) {
        status = memcube_blob_destroy(payloads->path, blob, &bytes, err);
    }
    if (bytes > 0) {
        atomic_fetch_sub(&payloads->blobs, 1);
        atomic_fetch_sub(&payloads->blob_bytes, bytes);
    }
    return status;
}

/* Destroy first, strike off the list then: a crash between repeats what does no harm. The write
 * transaction keeps everybody from putting the same payload meanwhile. */
static enum memos_status shred_entries(struct memcube_payloads *payloads, struct memcube_txn *txn,
    const struct shred_entry *entries, size_t count, struct memos_error *err)
{
    uint64_t slots[SHRED_AT_ONCE];
    size_t slots_count = 0;
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; status == MEMOS_OK && i < count; i++) {
        if (entries[i].type == SHRED_SLOT) {
            slots[slots_count++] = entries[i].slot;
        } else {
            status = shred_one_blob(payloads, txn, &entries[i].blob, err);
        }
    }
    if (status == MEMOS_OK && slots_count > 0) {
        status = memcube_vault_destroy(payloads->options.vault, slots, slots_count, err);
    }
    for (size_t i = 0; status == MEMOS_OK && i < count; i++) {
        status = memcube_delete(txn, payloads->shred, memos_bytes_make(entries[i].key.bytes, 8),
            memos_bytes_make(NULL, 0), err);
    }
    return status;
}

static enum memos_status shred_some(
    struct memcube_payloads *payloads, size_t *out_count, struct memos_error *err)
{
    struct shred_entry entries[SHRED_AT_ONCE];
    struct memcube_txn *txn = NULL;
    enum memos_status status = memcube_txn_read(payloads->options.db, &txn, err);
    if (status == MEMOS_OK) {
        status = shred_collect(payloads, txn, entries, out_count, err);
    }
    memcube_txn_abort(&txn);
    if (status != MEMOS_OK || *out_count == 0) {
        return status;
    }
    status = memcube_txn_write(payloads->options.db, &txn, err);
    if (status == MEMOS_OK) {
        status = shred_entries(payloads, txn, entries, *out_count, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_txn_commit(&txn, err);
    }
    memcube_txn_abort(&txn);
    return status;
}

enum memos_status memcube_payloads_shred(
    struct memcube_payloads *payloads, uint64_t *out_count, struct memos_error *err)
{
    enum memos_status status;
    size_t count = 0;
    *out_count = 0;
    do {
        status = shred_some(payloads, &count, err);
        *out_count += status == MEMOS_OK ? count : 0;
    } while (status == MEMOS_OK && count == SHRED_AT_ONCE);
    return status;
}

/* In a write transaction, so that nobody puts the same payload meanwhile. */
static enum memos_status made_destroy(struct memcube_payloads *payloads, struct memos_error *err)
{
    struct memcube_txn *txn = NULL;
    enum memos_status status = memcube_txn_write(payloads->options.db, &txn, err);
    for (size_t i = 0; status == MEMOS_OK && i < payloads->made_count; i++) {
        status = shred_one_blob(payloads, txn, &payloads->made[i], err);
    }
    memcube_txn_abort(&txn);
    return status;
}

void memcube_payloads_settle(struct memcube_payloads *payloads, bool committed)
{
    if (payloads->made_count > 0 && !committed) {
        /* What cannot be destroyed now is swept at the next open. */
        enum memos_status status = made_destroy(payloads, NULL);
        (void)status;
    }
    payloads->made_count = 0;
}

struct sweep_self {
    struct memcube_payloads *payloads;
    struct memcube_txn *txn;
};

static enum memos_status is_named(
    void *self_place, const struct memcube_blob *blob, bool *out_keep, struct memos_error *err)
{
    struct sweep_self *self = self_place;
    struct refs refs = {0};
    enum memos_status status =
        refs_get(self->payloads, self->txn, blob->space, &blob->hash, &refs, err);
    *out_keep = status == MEMOS_OK && refs.slot == 0;
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

enum memos_status memcube_payloads_sweep(
    struct memcube_payloads *payloads, uint64_t *out_removed, struct memos_error *err)
{
    struct sweep_self self = {payloads, NULL};
    const struct memcube_blob_names names = {is_named, &self};
    *out_removed = 0;
    enum memos_status status = memcube_txn_read(payloads->options.db, &self.txn, err);
    struct memcube_blob_totals kept = {0, 0};
    if (status == MEMOS_OK) {
        status = memcube_blob_sweep(payloads->path, &names, out_removed, &kept, err);
    }
    memcube_txn_abort(&self.txn);
    if (status == MEMOS_OK) {
        atomic_store(&payloads->blobs, kept.count);
        atomic_store(&payloads->blob_bytes, kept.bytes);
    }
    return status;
}

void memcube_payloads_blobs(
    const struct memcube_payloads *payloads, uint64_t *out_count, uint64_t *out_bytes)
{
    *out_count = atomic_load(&payloads->blobs);
    *out_bytes = atomic_load(&payloads->blob_bytes);
}

/* ---- strays -------------------------------------------------------------------------------- */

/* No vault has more; a damaged key could say anything. */
#define SLOTS_MAX ((uint64_t)1 << 34)

/* A bit for every vault slot that some reference names. */
struct slots {
    uint8_t *bits;
    uint64_t count;
};

static enum memos_status slots_collect(struct memcube_payloads *payloads, struct memcube_txn *txn,
    struct slots *slots, struct memos_error *err)
{
    struct memcube_cursor *cursor = NULL;
    struct memos_bytes key, value;
    enum memos_status status = memcube_cursor_open(txn, payloads->refs, &cursor, err);
    if (status == MEMOS_OK) {
        status = memcube_cursor_move(cursor, MEMCUBE_FIRST, &key, &value, err);
    }
    while (status == MEMOS_OK) {
        struct memos_reader r = memos_reader_of(value);
        (void)memos_read_u64(&r);
        uint64_t slot = memos_read_u64(&r);
        if (slot < slots->count) {
            slots->bits[slot / 8] |= (uint8_t)(1u << (slot % 8));
        }
        status = memcube_cursor_move(cursor, MEMCUBE_NEXT, &key, &value, err);
    }
    memcube_cursor_close(&cursor);
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

static uint64_t slot_of(struct memos_bytes key)
{
    struct memos_reader r = memos_reader_of(key);
    return memos_read_u64_be(&r);
}

/* Entries of payload.data whose slot nobody names. Their keys stay: if the number is damaged, the
 * key is another's. */
static enum memos_status data_strays(struct memcube_payloads *payloads, struct memcube_txn *txn,
    struct memcube_cursor *cursor, const struct slots *slots, bool remove, uint64_t *out_count,
    struct memos_error *err)
{
    struct memos_bytes key, value;
    enum memos_status status = memcube_cursor_move(cursor, MEMCUBE_FIRST, &key, &value, err);
    while (status == MEMOS_OK) {
        struct number_key gone;
        uint64_t slot = slot_of(key);
        if (slot < slots->count && (slots->bits[slot / 8] >> (slot % 8) & 1) != 0) {
            status = memcube_cursor_move(cursor, MEMCUBE_NEXT, &key, &value, err);
            continue;
        }
        ++*out_count;
        if (!remove) {
            status = memcube_cursor_move(cursor, MEMCUBE_NEXT, &key, &value, err);
            continue;
        }
        key = number_key(&gone, slot);
        status = memcube_delete(txn, payloads->data, key, memos_bytes_make(NULL, 0), err);
        if (status == MEMOS_OK) {
            status = memcube_cursor_move(cursor, MEMCUBE_AT_OR_AFTER, &key, &value, err);
        }
    }
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

struct strays_self {
    struct sweep_self sweep;
    bool remove;
    uint64_t count;
};

/* Asked about every blob file: counts those that nobody names, keeps them unless told otherwise. */
static enum memos_status is_stray(
    void *self_place, const struct memcube_blob *blob, bool *out_keep, struct memos_error *err)
{
    struct strays_self *self = self_place;
    enum memos_status status = is_named(&self->sweep, blob, out_keep, err);
    if (status == MEMOS_OK && !*out_keep) {
        self->count++;
        *out_keep = !self->remove;
    }
    return status;
}

enum memos_status memcube_payloads_strays(struct memcube_payloads *payloads,
    struct memcube_txn *txn, bool remove, uint64_t *out_count, struct memos_error *err)
{
    struct strays_self self = {{payloads, txn}, remove, 0};
    const struct memcube_blob_names names = {is_stray, &self};
    struct memcube_blob_totals kept = {0, 0};
    struct memcube_cursor *cursor = NULL;
    struct memos_bytes key, value;
    struct slots slots = {NULL, 0};
    uint64_t removed = 0;

    *out_count = 0;
    enum memos_status status = memcube_cursor_open(txn, payloads->data, &cursor, err);
    if (status == MEMOS_OK &&
        memcube_cursor_move(cursor, MEMCUBE_LAST, &key, &value, NULL) == MEMOS_OK) {
        slots.count = slot_of(key) < SLOTS_MAX ? slot_of(key) + 1 : SLOTS_MAX;
        slots.bits = calloc(1, (size_t)(slots.count / 8 + 1));
        status = slots.bits ? slots_collect(payloads, txn, &slots, err)
                            : memos_fail(err, MEMOS_NO_MEMORY, "no memory to look for strays");
        if (status == MEMOS_OK) {
            status = data_strays(payloads, txn, cursor, &slots, remove, out_count, err);
        }
    }
    memcube_cursor_close(&cursor);
    free(slots.bits);
    if (status == MEMOS_OK) {
        status = memcube_blob_sweep(payloads->path, &names, &removed, &kept, err);
        *out_count += self.count;
    }
    return status;
}

void memcube_payloads_tables(
    const struct memcube_payloads *payloads, struct memcube_payload_tables *out)
{
    *out = (struct memcube_payload_tables){payloads->refs, payloads->data, payloads->chunks};
}

/* ---- reading ------------------------------------------------------------------------------- */

void memcube_maps_release(struct memcube_maps *maps)
{
    while (maps->first) {
        struct memcube_map *map = maps->first;
        maps->first = map->next;
        (void)munmap(map->data, map->size);
        free(map);
    }
}

bool memcube_maps_take(struct memcube_maps *maps, const void *data)
{
    struct memcube_map **at = &maps->first;
    while (*at && (*at)->data != data) {
        at = &(*at)->next;
    }
    struct memcube_map *map = *at;
    if (map) {
        *at = map->next;
        free(map);
    }
    return map != NULL;
}

static enum memos_status read_inline(struct memcube_payloads *payloads, struct memcube_txn *txn,
    uint64_t slot, uint64_t size, struct memos_arena *arena, struct memos_bytes *out,
    struct memos_error *err)
{
    struct number_key key;
    struct memos_bytes value;
    enum memos_status status =
        memcube_get(txn, payloads->data, number_key(&key, slot), &value, err);
    if (status == MEMOS_NOT_FOUND) {
        return memos_fail(err, MEMOS_FORGOTTEN, "the payload was destroyed");
    }
    if (status != MEMOS_OK) {
        return status;
    }
    struct memos_reader r = memos_reader_of(value);
    uint64_t nonce = memos_read_u64(&r);
    if (r.failed || r.left != size) {
        return memos_fail(err, MEMOS_CORRUPT, "a payload of %llu bytes lies there with %zu",
            (unsigned long long)size, r.left);
    }
    uint8_t *room = memos_arena_take(arena, r.left + 1, 1);
    if (!room) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a payload of %zu bytes", r.left);
    }
    room[r.left] = 0; /* so that text serves as a C string, like memos_arena_copy */
    *out = memos_bytes_make(room, r.left);
    return memcube_vault_apply(payloads->options.vault, slot, nonce, r.at, room, r.left, err);
}

static enum memos_status read_blob(struct memcube_payloads *payloads, struct memcube_txn *txn,
    const struct memcube_blob *blob, uint64_t size, struct memcube_maps *maps,
    struct memos_bytes *out, struct memos_error *err)
{
    uint64_t references = 0;
    struct memcube_map *map = malloc(sizeof *map);
    if (!map) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to map a payload");
    }
    enum memos_status status = memcube_blob_map(payloads->path, blob, size, &map->data, err);
    if (status == MEMOS_OK) {
        map->size = (size_t)size;
        map->next = maps->first;
        maps->first = map;
        *out = memos_bytes_make(map->data, map->size);
        return MEMOS_OK;
    }
    free(map);
    if (status != MEMOS_NOT_FOUND) {
        return status;
    }
    /* Gone: destroyed, or lost? */
    status = memcube_payload_references(payloads, txn, blob->space, &blob->hash, &references, err);
    if (status == MEMOS_OK) {
        status = references == 0
                     ? memos_fail(err, MEMOS_FORGOTTEN, "the payload was destroyed")
                     : memos_fail(err, MEMOS_CORRUPT, "the file of a payload is missing");
    }
    return status;
}

/* The snapshot may be older than a forget that is carried out while it reads. */
static bool is_destroyed(struct memcube_payloads *payloads, const struct memcube_blob *blob)
{
    char name[MEMCUBE_BLOB_NAME_BYTES], path[4096];
    int size = snprintf(path, sizeof path, "%s/%s", payloads->path, memcube_blob_name(blob, name));
    return size > 0 && (size_t)size < sizeof path && access(path, F_OK) != 0 && errno == ENOENT;
}

enum memos_status memcube_payload_read(struct memcube_payloads *payloads, struct memcube_txn *txn,
    uint32_t space, struct memcube_place place, const struct memcube_hash *hash, uint64_t size,
    bool verify, struct memos_arena *arena, struct memcube_maps *maps, struct memos_bytes *out,
    struct memos_error *err)
{
    struct memcube_blob blob = {space, *hash};
    struct memos_bytes bytes = {NULL, 0};
    enum memos_status status =
        place.slot != 0 ? read_inline(payloads, txn, place.slot, size, arena, &bytes, err)
                        : read_blob(payloads, txn, &blob, size, maps, &bytes, err);
    if (status == MEMOS_OK && verify) {
        struct memcube_hash found = memcube_hash_of(bytes);
        if (!memcube_hash_equal(&found, hash)) {
            status = place.slot == 0 && is_destroyed(payloads, &blob)
                         ? memos_fail(err, MEMOS_FORGOTTEN, "the payload was destroyed")
                         : memos_fail(err, MEMOS_CORRUPT, "the payload does not have its hash");
        }
    }
    if (status == MEMOS_OK) {
        *out = bytes;
    }
    return status;
}

enum memos_status memcube_payload_file(struct memcube_payloads *payloads, uint32_t space,
    struct memcube_place place, const struct memcube_hash *hash, struct memos_arena *arena,
    struct memos_bytes *out_path, struct memos_error *err)
{
    struct memcube_blob blob = {space, *hash};
    char name[MEMCUBE_BLOB_NAME_BYTES];
    if (place.slot != 0) {
        return memos_fail(err, MEMOS_NOT_FOUND, "the payload lies in the database");
    }
    if (is_destroyed(payloads, &blob)) {
        return memos_fail(err, MEMOS_FORGOTTEN, "the payload was destroyed");
    }
    size_t size = strlen(payloads->path) + 1 + sizeof name;
    char *path = memos_arena_take(arena, size, 1);
    if (!path) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a path");
    }
    int used = snprintf(path, size, "%s/%s", payloads->path, memcube_blob_name(&blob, name));
    *out_path = memos_bytes_make(path, (size_t)used);
    return MEMOS_OK;
}
