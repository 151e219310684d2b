/* The tables of a space, beside what should be in them. */
#include "memcube/fsck_internal.h"

#include <sodium.h>
#include <string.h>

#define SCRATCH_BYTES_MAX ((size_t)1 << 30)
#define CUBE_KEY_BYTES (4 + 16)

_Static_assert(sizeof((struct memcube_fsck_tables *)0)->keys[0] == crypto_shorthash_KEYBYTES,
    "the sums are made with SipHash");

void memcube_fsck_tables_init(struct memcube_fsck_tables *tables, struct memcube_store *store)
{
    *tables = (struct memcube_fsck_tables){ .store = store };
    randombytes_buf(tables->keys, sizeof tables->keys);
    tables->scratch = memos_buffer_make(SCRATCH_BYTES_MAX);
}

void memcube_fsck_tables_finish(struct memcube_fsck_tables *tables)
{
    memos_buffer_free(&tables->scratch);
}

const char *memcube_fsck_table_name(enum memcube_fsck_table table)
{
    static const char *const names[MEMCUBE_FSCK_TABLES_COUNT] = {
#define X(name, field, text) [MEMCUBE_FSCK_##name] = text,
        MEMCUBE_FSCK_TABLES(X)
#undef X
        [MEMCUBE_FSCK_EXPIRY] = "expiry",
        [MEMCUBE_FSCK_REFS] = "payload.refs",
    };
    return names[table];
}

static memcube_table handle_of(
    const struct memcube_fsck_tables *tables, enum memcube_fsck_table table)
{
    const struct memcube_tables *all = &tables->store->tables;
    struct memcube_payload_tables payload;
    switch (table) {
#define X(name, field, text)                                                                       \
    case MEMCUBE_FSCK_##name:                                                                      \
        return all->field;
        MEMCUBE_FSCK_TABLES(X)
#undef X
    case MEMCUBE_FSCK_EXPIRY:
        return all->expiry;
    case MEMCUBE_FSCK_REFS:
    case MEMCUBE_FSCK_TABLES_COUNT:
        break;
    }
    memcube_payloads_tables(tables->store->payloads, &payload);
    return payload.refs;
}

static bool is_set(enum memcube_fsck_table table)
{
    return table == MEMCUBE_FSCK_FACET || table == MEMCUBE_FSCK_EDGE;
}

/* ---- sums ---------------------------------------------------------------------------------- */

static enum memos_status sum_add(struct memcube_fsck_tables *tables, struct memcube_fsck_sum *sum,
    struct memos_bytes key, struct memos_bytes value, struct memos_error *err)
{
    uint64_t a, b;
    struct memos_buffer *scratch = &tables->scratch;
    memos_buffer_reset(scratch);
    memos_buffer_sized(scratch, key);
    memos_buffer_bytes(scratch, value.data, value.size);
    if (scratch->failed) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to sum up a table");
    }
    (void)crypto_shorthash((uint8_t *)&a, scratch->data, scratch->size, tables->keys[0]);
    (void)crypto_shorthash((uint8_t *)&b, scratch->data, scratch->size, tables->keys[1]);
    sum->count++;
    sum->a += a;
    sum->b += b;
    return MEMOS_OK;
}

enum memos_status memcube_fsck_emit_sum(void *self, enum memcube_fsck_table table,
    struct memos_bytes key, struct memos_bytes value, struct memos_error *err)
{
    struct memcube_fsck_tables *tables = self;
    return sum_add(tables, &tables->expected[table], key, value, err);
}

/* Keys of `expiry` begin with the time; a chunk of a bitmap without bits says nothing. */
static bool belongs(const struct memcube_fsck_tables *tables, enum memcube_fsck_table table,
    struct memos_bytes key, struct memos_bytes value)
{
    static const uint8_t zeros[MEMCUBE_BITS_BYTES];
    if (table == MEMCUBE_FSCK_EXPIRY) {
        struct memos_reader r = memos_reader_of(key);
        (void)memos_read_u64_be(&r);
        return memos_read_u32_be(&r) == tables->space;
    }
    return table != MEMCUBE_FSCK_BITS || value.size != sizeof zeros ||
           memcmp(value.data, zeros, sizeof zeros) != 0;
}

/* Go to the first entry, or on to the next; NOT_FOUND behind the space's last. */
static enum memos_status entry_next(struct memcube_fsck_tables *tables,
    enum memcube_fsck_table table, struct memcube_cursor *cursor, bool first,
    struct memos_bytes *key, struct memos_bytes *value, struct memos_error *err)
{
    const struct memcube_key prefix = memcube_key_of(tables->space);
    enum memos_status status;
    if (!first) {
        status = memcube_cursor_move(cursor, MEMCUBE_NEXT, key, value, err);
    } else if (table == MEMCUBE_FSCK_EXPIRY) {
        status = memcube_cursor_move(cursor, MEMCUBE_FIRST, key, value, err);
    } else {
        *key = memcube_key_view(&prefix);
        status = memcube_cursor_move(cursor, MEMCUBE_AT_OR_AFTER, key, value, err);
    }
    if (status == MEMOS_OK && table != MEMCUBE_FSCK_EXPIRY && !memcube_key_begins(*key, &prefix)) {
        status = MEMOS_NOT_FOUND;
    }
    return status;
}

enum memos_status memcube_fsck_table_sum(struct memcube_fsck_tables *tables,
    enum memcube_fsck_table table, struct memcube_fsck_sum *out, struct memos_error *err)
{
    struct memcube_cursor *cursor = NULL;
    struct memos_bytes key, value;

    *out = (struct memcube_fsck_sum){ 0 };
    enum memos_status status =
        memcube_cursor_open(tables->read->txn, handle_of(tables, table), &cursor, err);
    for (bool first = true; status == MEMOS_OK; first = false) {
        status = entry_next(tables, table, cursor, first, &key, &value, err);
        if (status == MEMOS_OK && belongs(tables, table, key, value)) {
            status = sum_add(tables, out, key, value, err);
        }
    }
    memcube_cursor_close(&cursor);
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

/* ---- finding ------------------------------------------------------------------------------- */

static enum memos_status set_find(struct memcube_fsck_tables *tables,
    enum memcube_fsck_table table, struct memos_bytes key, struct memos_bytes value, bool *out,
    struct memos_error *err)
{
    struct memcube_cursor *cursor = NULL;
    struct memos_bytes found = value;
    enum memos_status status =
        memcube_cursor_open(tables->read->txn, handle_of(tables, table), &cursor, err);
    if (status == MEMOS_OK) {
        status = memcube_cursor_value_at_or_after(cursor, key, &found, err);
    }
    *out = status == MEMOS_OK && memos_bytes_equal(found, value);
    memcube_cursor_close(&cursor);
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

enum memos_status memcube_fsck_emit_find(void *self, enum memcube_fsck_table table,
    struct memos_bytes key, struct memos_bytes value, struct memos_error *err)
{
    struct memcube_fsck_tables *tables = self;
    struct memos_bytes found;
    if ((tables->wanted & 1u << table) == 0) {
        return MEMOS_OK;
    }
    if (is_set(table)) {
        bool there = false;
        enum memos_status status = set_find(tables, table, key, value, &there, err);
        tables->absent[table] += status == MEMOS_OK && !there;
        return status;
    }
    enum memos_status status =
        memcube_get(tables->read->txn, handle_of(tables, table), key, &found, err);
    tables->absent[table] += status == MEMOS_NOT_FOUND;
    tables->wrong[table] += status == MEMOS_OK && !memos_bytes_equal(found, value);
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

/* ---- mending ------------------------------------------------------------------------------- */

enum memos_status memcube_fsck_emit_put(void *self, enum memcube_fsck_table table,
    struct memos_bytes key, struct memos_bytes value, struct memos_error *err)
{
    struct memcube_fsck_tables *tables = self;
    if ((tables->wanted & 1u << table) == 0) {
        return MEMOS_OK;
    }
    return memcube_put(tables->read->txn, handle_of(tables, table), key, value, err);
}

/* Does a cube of this id have a version? */
static enum memos_status cube_has_versions(struct memcube_fsck_tables *tables,
    struct memos_bytes key, bool *out, struct memos_error *err)
{
    struct memos_id id;
    uint32_t row;
    uint64_t seq;
    *out = false;
    if (key.size != CUBE_KEY_BYTES) {
        return MEMOS_OK;
    }
    memcpy(id.bytes, (const uint8_t *)key.data + sizeof(uint32_t), sizeof id.bytes);
    enum memos_status status =
        memcube_chain_read(tables->read, tables->space, &id, 1, &row, &seq, err);
    *out = status == MEMOS_OK;
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

/* The cursor looks anew after each removal: a change ends the lives of views. */
enum memos_status memcube_fsck_table_clear(struct memcube_fsck_tables *tables,
    enum memcube_fsck_table table, struct memos_error *err)
{
    const memcube_table handle = handle_of(tables, table);
    const struct memcube_key prefix = memcube_key_of(tables->space);
    struct memcube_cursor *cursor = NULL;
    struct memos_bytes key, value;

    enum memos_status status = memcube_cursor_open(tables->read->txn, handle, &cursor, err);
    if (status == MEMOS_OK) {
        status = entry_next(tables, table, cursor, true, &key, &value, err);
    }
    while (status == MEMOS_OK) {
        uint8_t copy[512];
        struct memos_bytes gone = memos_bytes_make(copy, key.size);
        bool keep = table == MEMCUBE_FSCK_EXPIRY && !belongs(tables, table, key, value);
        if (table == MEMCUBE_FSCK_CUBE) {
            status = cube_has_versions(tables, key, &keep, err);
        }
        if (status == MEMOS_OK && keep) {
            status = entry_next(tables, table, cursor, false, &key, &value, err);
            continue;
        }
        memos_assert(key.size <= sizeof copy);
        memcpy(copy, key.data, key.size);
        if (status == MEMOS_OK) {
            status = memcube_delete(
                tables->read->txn, handle, gone, memos_bytes_make(NULL, 0), err);
        }
        key = gone;
        if (status == MEMOS_OK) {
            status = memcube_cursor_move(cursor, MEMCUBE_AT_OR_AFTER, &key, &value, err);
        }
        if (status == MEMOS_OK && table != MEMCUBE_FSCK_EXPIRY &&
            !memcube_key_begins(key, &prefix)) {
            status = MEMOS_NOT_FOUND;
        }
    }
    memcube_cursor_close(&cursor);
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}
