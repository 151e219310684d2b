/* The write transaction: beginning, what it keeps in memory, its commit. */
#include "memcube/store_internal.h"

#include <stdlib.h>

enum {
    WRITE_BYTES_MAX = 1024 * 1024 * 1024, /* what the results of one write may take */
    SCRATCH_BYTES_MAX = 256 * 1024 * 1024,
    VALUE_BYTES_MAX = 1024 * 1024 * 1024, /* a log record of a space's rollback can be large */
};

enum memos_status memcube_write_begin(
    struct memcube_store *store, struct memcube_write **out_write, struct memos_error *err)
{
    if (store->read_only) {
        return memos_fail(err, MEMOS_DENIED, "the store is open for reading only");
    }
    struct memcube_write *write = calloc(1, sizeof *write);
    if (!write) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a write");
    }
    pthread_mutex_lock(&store->writing);
    const enum memos_status status = memcube_txn_write(store->db, &write->read.txn, err);
    if (status != MEMOS_OK) {
        pthread_mutex_unlock(&store->writing);
        free(write);
        return status;
    }
    write->store = store;
    write->read.store = store;
    write->read.write = write;
    memos_arena_init(&write->read.arena, WRITE_BYTES_MAX);
    memos_arena_init(&write->scratch, SCRATCH_BYTES_MAX);
    write->header = memos_buffer_make(VALUE_BYTES_MAX);
    write->description = memos_buffer_make(VALUE_BYTES_MAX);
    write->value = memos_buffer_make(VALUE_BYTES_MAX);
    store->write = write;
    *out_write = write;
    return MEMOS_OK;
}

struct memcube_read *memcube_write_read(struct memcube_write *write)
{
    return &write->read;
}

bool memcube_write_broken(const struct memcube_write *write)
{
    return write->broken || memcube_txn_broken(write->read.txn);
}

static void write_free(struct memcube_write **write, bool committed)
{
    struct memcube_write *ended = *write;

    *write = NULL;
    memcube_payloads_settle(ended->store->payloads, committed);
    ended->store->write = NULL;
    pthread_mutex_unlock(&ended->store->writing);
    memcube_maps_release(&ended->read.maps);
    memos_arena_finish(&ended->read.arena);
    memos_arena_finish(&ended->scratch);
    memos_buffer_free(&ended->header);
    memos_buffer_free(&ended->description);
    memos_buffer_free(&ended->value);
    free(ended);
}

void memcube_write_abort(struct memcube_write **write)
{
    if (!*write) {
        return;
    }
    memcube_txn_abort(&(*write)->read.txn);
    write_free(write, false);
}

/* ---- vault slots --------------------------------------------------------------------------- */

enum memos_status memcube_slot_take(
    struct memcube_write *write, uint64_t *out_slot, struct memos_error *err)
{
    if (write->slot_next == 0) {
        struct memos_bytes value;
        const enum memos_status status = memcube_get(write->read.txn, write->store->tables.meta,
            memos_bytes_of("slot_next"), &value, err);
        if (status != MEMOS_OK) {
            return status;
        }
        struct memos_reader r = memos_reader_of(value);
        const uint64_t next = memos_read_u64(&r);
        if (!memos_reader_done(&r) || next == 0) {
            return memos_fail(err, MEMOS_CORRUPT, "the number of the next key is damaged");
        }
        write->slot_next = next;
    }
    const enum memos_status status =
        memcube_vault_reserve(write->store->vault, write->slot_next, err);
    if (status == MEMOS_OK) {
        *out_slot = write->slot_next++;
        write->slot_dirty = true;
    }
    return status;
}

/* ---- commit -------------------------------------------------------------------------------- */

static enum memos_status meta_flush(struct memcube_write *write, struct memos_error *err)
{
    const memcube_table meta = write->store->tables.meta;
    enum memos_status status = MEMOS_OK;

    if (write->slot_dirty) {
        const uint64_t le = htole64(write->slot_next);
        status = memcube_put(write->read.txn, meta, memos_bytes_of("slot_next"),
            memos_bytes_make(&le, sizeof le), err);
    }
    if (status == MEMOS_OK && write->space_dirty) {
        const uint32_t le = htole32(write->space_next);
        status = memcube_put(write->read.txn, meta, memos_bytes_of("space_next"),
            memos_bytes_make(&le, sizeof le), err);
    }
    return status;
}

static enum memos_status write_flush(struct memcube_write *write, struct memos_error *err)
{
    if (memcube_write_broken(write)) {
        return memos_fail(err, MEMOS_INTERNAL, "a broken write cannot be committed");
    }
    enum memos_status status = memcube_spaces_flush(write, err);
    if (status == MEMOS_OK) {
        status = memcube_bits_flush(write, err);
    }
    if (status == MEMOS_OK) {
        status = meta_flush(write, err);
    }
    return status;
}

static void count(_Atomic uint64_t *counter, uint64_t more)
{
    atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
}

/* Destroy what is on the list. What an earlier commit could not destroy is tried again, but is not
 * this commit's failure. */
static enum memos_status shred(struct memcube_store *store, bool own, struct memos_error *err)
{
    uint64_t destroyed = 0;

    if (!own && !store->shred_pending) {
        return MEMOS_OK;
    }
    const enum memos_status status = memcube_payloads_shred(store->payloads, &destroyed, err);
    store->shred_pending = status != MEMOS_OK;
    count(&store->payloads_destroyed, destroyed);
    return own ? status : MEMOS_OK;
}

enum memos_status memcube_shred_pending(struct memcube_store *store, struct memos_error *err)
{
    pthread_mutex_lock(&store->writing);
    const enum memos_status status = shred(store, store->shred_pending, err);
    pthread_mutex_unlock(&store->writing);
    return status;
}

enum memos_status memcube_write_finish(
    struct memcube_write **write, struct memcube_write_end *out_end, struct memos_error *err)
{
    struct memcube_write *ended = *write;
    struct memcube_store *store = ended->store;

    *out_end = (struct memcube_write_end){ .committed = false };
    enum memos_status status = write_flush(ended, err);
    if (status != MEMOS_OK) {
        out_end->map_full = memcube_txn_map_full(ended->read.txn);
        memcube_write_abort(write);
        return status;
    }
    status = memcube_txn_commit(&ended->read.txn, err);
    if (status == MEMOS_OK) {
        out_end->committed = true;
        count(&store->commits, 1);
        count(&store->records, ended->records);
        count(&store->versions_made, ended->versions);
        status = shred(store, ended->shred, err);
    }
    out_end->map_full = status != MEMOS_OK && memcube_db_map_full(store->db);
    write_free(write, out_end->committed);
    return status;
}

enum memos_status memcube_write_commit(struct memcube_write **write, struct memos_error *err)
{
    struct memcube_write_end end;
    return memcube_write_finish(write, &end, err);
}
