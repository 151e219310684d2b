/* The store: opening, making, migrating, closing. */
#include "memcube/store_internal.h"

#include <sodium.h>
#include <stdlib.h>

enum { INLINE_BYTES_MAX_DEFAULT = 65536 };
#define PAYLOAD_BYTES_MAX_DEFAULT ((size_t)1024 * 1024 * 1024)

/* ---- format -------------------------------------------------------------------------------- */

static enum memos_status meta_put_u64(struct memcube_store *store, struct memcube_txn *txn,
    const char *name, uint64_t value, struct memos_error *err)
{
    const uint64_t le = htole64(value);
    return memcube_put(txn, store->tables.meta, memos_bytes_of(name),
        memos_bytes_make(&le, sizeof le), err);
}

static enum memos_status format_make(
    struct memcube_store *store, struct memcube_txn *txn, struct memos_error *err)
{
    const struct memos_id id = memos_id_next(&store->ids, &store->clock);
    const uint32_t space_next = htole32(1);
    const memcube_table meta = store->tables.meta;

    enum memos_status status = meta_put_u64(store, txn, "slot_next", 1, err);
    if (status == MEMOS_OK) {
        status = memcube_put(txn, meta, memos_bytes_of("space_next"),
            memos_bytes_make(&space_next, sizeof space_next), err);
    }
    if (status == MEMOS_OK) {
        status = memcube_put(txn, meta, memos_bytes_of("id"),
            memos_bytes_make(id.bytes, sizeof id.bytes), err);
    }
    if (status == MEMOS_OK) {
        status = meta_put_u64(store, txn, "format", MEMCUBE_FORMAT, err);
    }
    return status;
}

/* Format 1 had no table from numbers to names of spaces, which the sweep needs. */
static enum memos_status migrate_1_to_2(
    struct memcube_store *store, struct memcube_txn *txn, struct memos_error *err)
{
    struct memcube_cursor *cursor = NULL;
    struct memos_bytes name;
    struct memos_bytes value;

    enum memos_status status = memcube_cursor_open(txn, store->tables.space, &cursor, err);
    if (status == MEMOS_OK) {
        status = memcube_cursor_move(cursor, MEMCUBE_FIRST, &name, &value, err);
    }
    while (status == MEMOS_OK) {
        char copy[MEMCUBE_SPACE_BYTES_MAX];
        struct memos_reader r = memos_reader_of(value);
        const struct memcube_key number = memcube_key_of(memos_read_u32(&r));
        if (r.failed || name.size > sizeof copy) {
            status = memos_fail(err, MEMOS_CORRUPT, "the record of a space is damaged");
            break;
        }
        memcpy(copy, name.data, name.size);
        status = memcube_put(txn, store->tables.number, memcube_key_view(&number),
            memos_bytes_make(copy, name.size), err);
        if (status == MEMOS_OK) {
            status = memcube_cursor_move(cursor, MEMCUBE_NEXT, &name, &value, err);
        }
    }
    memcube_cursor_close(&cursor);
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

/* migrations[n - 1] brings a store from format n to n + 1. */
static enum memos_status (*const migrations[])(struct memcube_store *store,
    struct memcube_txn *txn, struct memos_error *err) = { migrate_1_to_2 };
_Static_assert(sizeof migrations / sizeof migrations[0] == MEMCUBE_FORMAT - 1,
    "every older format has a step to the next");

static enum memos_status format_read(struct memcube_store *store, struct memcube_txn *txn,
    uint64_t *out_format, struct memos_error *err)
{
    struct memos_bytes value;

    *out_format = 0;
    const enum memos_status status =
        memcube_get(txn, store->tables.meta, memos_bytes_of("format"), &value, err);
    if (status != MEMOS_OK) {
        return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
    }
    struct memos_reader r = memos_reader_of(value);
    *out_format = memos_read_u64(&r);
    if (!memos_reader_done(&r) || *out_format == 0) {
        return memos_fail(err, MEMOS_CORRUPT, "the store's format number is damaged");
    }
    if (*out_format > MEMCUBE_FORMAT) {
        return memos_fail(err, MEMOS_UNSUPPORTED,
            "the store has format %llu; this version of memos knows formats 1 to %d",
            (unsigned long long)*out_format, MEMCUBE_FORMAT);
    }
    return MEMOS_OK;
}

/* All steps in one transaction: a crash leaves the old format. */
static enum memos_status format_bring(struct memcube_store *store, struct memos_error *err)
{
    struct memcube_txn *txn = NULL;
    uint64_t format = 0;

    enum memos_status status = store->read_only ? memcube_txn_read(store->db, &txn, err)
                                                : memcube_txn_write(store->db, &txn, err);
    if (status == MEMOS_OK) {
        status = format_read(store, txn, &format, err);
    }
    if (status != MEMOS_OK || format == MEMCUBE_FORMAT) {
        memcube_txn_abort(&txn);
        return status;
    }
    if (store->read_only) {
        memcube_txn_abort(&txn);
        return memos_fail(err, MEMOS_UNSUPPORTED,
            format == 0 ? "there is no store there to read"
                        : "the store has an older format: open it once for writing");
    }
    if (format == 0) {
        status = format_make(store, txn, err);
    }
    for (uint64_t at = format; status == MEMOS_OK && at >= 1 && at < MEMCUBE_FORMAT; at++) {
        status = migrations[at - 1](store, txn, err);
    }
    if (status == MEMOS_OK) {
        status = meta_put_u64(store, txn, "format", MEMCUBE_FORMAT, err);
    }
    if (status == MEMOS_OK) {
        return memcube_txn_commit(&txn, err);
    }
    memcube_txn_abort(&txn);
    return status;
}

/* ---- open ---------------------------------------------------------------------------------- */

static enum memos_status tables_open(struct memcube_store *store, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
#define X(field, name, type)                                                                       \
    if (status == MEMOS_OK) {                                                                      \
        status = memcube_db_table(                                                                 \
            store->db, name, MEMCUBE_TABLE_##type, &store->tables.field, err);                     \
    }
    MEMCUBE_STORE_TABLES(X)
#undef X
    return status;
}

static enum memos_status slot_next(
    void *self, struct memcube_txn *txn, uint64_t *out_slot, struct memos_error *err)
{
    struct memcube_store *store = self;

    memos_assert(store->write && store->write->read.txn == txn);
    return memcube_slot_take(store->write, out_slot, err);
}

static enum memos_status indexes_open(struct memcube_store *store,
    const struct memcube_store_options *options, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;

    if (options->indexes_count == 0) {
        return MEMOS_OK;
    }
    store->indexes = calloc(options->indexes_count, sizeof *store->indexes);
    if (!store->indexes) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for the store's indexes");
    }
    for (size_t i = 0; status == MEMOS_OK && i < options->indexes_count; i++) {
        struct memcube_index *index = options->indexes[i];
        store->indexes[store->indexes_count++] = index;
        status = index->open(index->self, store->db, err);
    }
    return status;
}

static enum memos_status parts_open(struct memcube_store *store,
    const struct memcube_store_options *options, struct memos_error *err)
{
    const struct memcube_db_options db_options = {
        .path = options->path,
        .map_bytes = options->map_bytes,
        .map_bytes_max = options->map_bytes_max,
        .readers_max = options->readers_max,
        .read_only = options->read_only,
        .sync_off = options->sync_off,
    };

    enum memos_status status = memcube_db_open(&db_options, &store->db, err);
    if (status == MEMOS_OK) {
        status = tables_open(store, err);
    }
    if (status == MEMOS_OK) {
        status = format_bring(store, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_vault_open(options->path, options->read_only, &store->vault, err);
    }
    if (status == MEMOS_OK) {
        const struct memcube_payloads_options payloads_options = {
            .db = store->db,
            .vault = store->vault,
            .path = options->path,
            .inline_bytes_max = options->inline_bytes_max ? options->inline_bytes_max
                                                          : INLINE_BYTES_MAX_DEFAULT,
            .read_only = options->read_only,
            .slot_next = slot_next,
            .self = store,
        };
        status = memcube_payloads_open(&payloads_options, &store->payloads, err);
    }
    if (status == MEMOS_OK) {
        status = indexes_open(store, options, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_behaviours_create(&store->behaviours, err);
    }
    return status;
}

/* What a crash left: things to destroy, and blob files that nothing names. */
static enum memos_status leftovers_clear(struct memcube_store *store, struct memos_error *err)
{
    uint64_t count = 0;

    if (store->read_only) {
        return MEMOS_OK;
    }
    enum memos_status status = memcube_payloads_shred(store->payloads, &count, err);
    if (status == MEMOS_OK) {
        atomic_fetch_add(&store->payloads_destroyed, count);
        status = memcube_payloads_sweep(store->payloads, &count, err);
    }
    return status;
}

enum memos_status memcube_store_open(const struct memcube_store_options *options,
    struct memcube_store **out_store, struct memos_error *err)
{
    if (sodium_init() < 0) {
        return memos_fail(err, MEMOS_INTERNAL, "libsodium cannot be used");
    }
    if (!options->path || options->path[0] == '\0') {
        return memos_fail(err, MEMOS_INVALID, "a store needs a folder");
    }
    struct memcube_store *store = calloc(1, sizeof *store);
    if (!store) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a store");
    }
    if (pthread_mutex_init(&store->writing, NULL) != 0) {
        free(store);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a lock");
    }
    store->clock = options->clock.wall_us ? options->clock : memos_clock_system();
    store->read_only = options->read_only;
    store->payload_bytes_max =
        options->payload_bytes_max ? options->payload_bytes_max : PAYLOAD_BYTES_MAX_DEFAULT;
    enum memos_status status = parts_open(store, options, err);
    if (status == MEMOS_OK) {
        status = leftovers_clear(store, err);
    }
    if (status != MEMOS_OK) {
        memcube_store_close(&store);
        return status;
    }
    *out_store = store;
    return MEMOS_OK;
}

/* Reads that were counted are worth a try, not an error. */
static void behaviours_save(struct memcube_store *store)
{
    struct memcube_write *write = NULL;

    if (store->read_only || !store->behaviours ||
        memcube_write_begin(store, &write, NULL) != MEMOS_OK) {
        return;
    }
    if (memcube_behaviours_flush(write, NULL) != MEMOS_OK) {
        memcube_write_abort(&write);
        return;
    }
    const enum memos_status status = memcube_write_commit(&write, NULL);
    (void)status;
}

void memcube_store_close(struct memcube_store **store)
{
    struct memcube_store *closed = *store;

    if (!closed) {
        return;
    }
    *store = NULL;
    behaviours_save(closed);
    memcube_behaviours_destroy(&closed->behaviours);
    memcube_payloads_close(&closed->payloads);
    memcube_vault_close(&closed->vault);
    memcube_db_close(&closed->db);
    pthread_mutex_destroy(&closed->writing);
    free(closed->indexes);
    free(closed);
}

/* ---- stats --------------------------------------------------------------------------------- */

static enum memos_status spaces_count(
    struct memcube_store *store, uint64_t *out, struct memos_error *err)
{
    struct memcube_txn *txn = NULL;
    struct memos_bytes value;

    enum memos_status status = memcube_txn_read(store->db, &txn, err);
    if (status != MEMOS_OK) {
        return status;
    }
    status = memcube_get(
        txn, store->tables.meta, memos_bytes_of("space_next"), &value, err);
    if (status == MEMOS_OK) {
        struct memos_reader r = memos_reader_of(value);
        *out = memos_read_u32(&r) - UINT64_C(1); /* spaces are never removed */
    }
    memcube_txn_abort(&txn);
    return status;
}

enum memos_status memcube_store_stats(struct memcube_store *store,
    struct memcube_store_stats *out, struct memos_error *err)
{
    struct memcube_db_stats db;

    *out = (struct memcube_store_stats){ 0 };
    enum memos_status status = memcube_db_stats(store->db, &db, err);
    if (status == MEMOS_OK) {
        status = spaces_count(store, &out->spaces, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    out->map_bytes = db.map_bytes;
    out->file_bytes = db.file_bytes;
    out->used_bytes = db.used_bytes;
    out->last_txn = db.last_txn;
    out->commits = atomic_load(&store->commits);
    out->records = atomic_load(&store->records);
    out->versions_made = atomic_load(&store->versions_made);
    out->payloads_destroyed = atomic_load(&store->payloads_destroyed);
    out->map_grown = atomic_load(&store->map_grown);
    return MEMOS_OK;
}

struct memcube_db *memcube_store_db(struct memcube_store *store)
{
    return store->db;
}

const struct memos_clock *memcube_store_clock(const struct memcube_store *store)
{
    return &store->clock;
}
