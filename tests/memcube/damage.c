#include "tests/memcube/damage.h"

#include <stdio.h>
#include <string.h>

static void copy_bytes(uint8_t *out, size_t out_max, size_t *out_size, struct memos_bytes bytes)
{
    assert_true(bytes.size <= out_max);
    if (bytes.size > 0) {
        memcpy(out, bytes.data, bytes.size);
    }
    *out_size = bytes.size;
}

bool damage_entry_at(struct fixture *f, memcube_table table, size_t n, struct damage_entry *out)
{
    struct memcube_txn *txn = NULL;
    struct memcube_cursor *cursor = NULL;
    struct memos_bytes key, value;

    assert_ok(memcube_txn_read(f->store->db, &txn, fixture_error()));
    assert_ok(memcube_cursor_open(txn, table, &cursor, fixture_error()));
    enum memos_status status =
        memcube_cursor_move(cursor, MEMCUBE_FIRST, &key, &value, fixture_error());
    for (; status == MEMOS_OK && n > 0; n--) {
        status = memcube_cursor_move(cursor, MEMCUBE_NEXT, &key, &value, fixture_error());
    }
    if (status == MEMOS_OK) {
        copy_bytes(out->key, sizeof out->key, &out->key_size, key);
        copy_bytes(out->value, sizeof out->value, &out->value_size, value);
    }
    memcube_cursor_close(&cursor);
    memcube_txn_abort(&txn);
    assert_true(status == MEMOS_OK || status == MEMOS_NOT_FOUND);
    return status == MEMOS_OK;
}

void damage_put(struct fixture *f, memcube_table table, const struct damage_entry *entry)
{
    struct memcube_txn *txn = NULL;
    memcube_read_end(&f->read);
    assert_ok(memcube_txn_write(f->store->db, &txn, fixture_error()));
    assert_ok(memcube_put(txn, table, memos_bytes_make(entry->key, entry->key_size),
        memos_bytes_make(entry->value, entry->value_size), fixture_error()));
    assert_ok(memcube_txn_commit(&txn, fixture_error()));
}

void damage_remove(
    struct fixture *f, memcube_table table, bool is_set, const struct damage_entry *entry)
{
    struct memcube_txn *txn = NULL;
    struct memos_bytes value =
        is_set ? memos_bytes_make(entry->value, entry->value_size) : memos_bytes_make(NULL, 0);
    memcube_read_end(&f->read);
    assert_ok(memcube_txn_write(f->store->db, &txn, fixture_error()));
    assert_ok(memcube_delete(
        txn, table, memos_bytes_make(entry->key, entry->key_size), value, fixture_error()));
    assert_ok(memcube_txn_commit(&txn, fixture_error()));
}

struct memcube_hash damage_table_hash(struct fixture *f, memcube_table table)
{
    struct memcube_txn *txn = NULL;
    struct memcube_cursor *cursor = NULL;
    struct memos_bytes key, value;
    struct memcube_hasher hasher;
    static const uint8_t zeros[MEMCUBE_BITS_BYTES];

    memcube_hasher_begin(&hasher);
    assert_ok(memcube_txn_read(f->store->db, &txn, fixture_error()));
    assert_ok(memcube_cursor_open(txn, table, &cursor, fixture_error()));
    enum memos_status status =
        memcube_cursor_move(cursor, MEMCUBE_FIRST, &key, &value, fixture_error());
    while (status == MEMOS_OK) {
        const uint64_t sizes[2] = { key.size, value.size };
        if (value.size != sizeof zeros || memcmp(value.data, zeros, sizeof zeros) != 0) {
            memcube_hasher_add(&hasher, memos_bytes_make(sizes, sizeof sizes));
            memcube_hasher_add(&hasher, key);
            memcube_hasher_add(&hasher, value);
        }
        status = memcube_cursor_move(cursor, MEMCUBE_NEXT, &key, &value, fixture_error());
    }
    assert_int_equal(status, MEMOS_NOT_FOUND);
    memcube_cursor_close(&cursor);
    memcube_txn_abort(&txn);
    return memcube_hasher_end(&hasher);
}

void damage_file(const char *path, size_t at)
{
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)at, SEEK_SET), 0);
    int byte = fgetc(file);
    assert_true(byte != EOF);
    assert_int_equal(fseek(file, (long)at, SEEK_SET), 0);
    assert_int_equal(fputc(byte ^ 0x04, file), byte ^ 0x04);
    assert_int_equal(fclose(file), 0);
}
