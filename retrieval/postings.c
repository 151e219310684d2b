#include "retrieval/postings.h"

#include <string.h>

#define ENTRY_HEAD_BYTES 4
#define ENTRY_TERM_BYTES 10

static uint8_t *store_be32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        at[i] = (uint8_t)(value >> (24 - 8 * i));
    }
    return at + 4;
}

static uint8_t *store_be64(uint8_t *at, uint64_t value)
{
    return store_be32(store_be32(at, (uint32_t)(value >> 32)), (uint32_t)value);
}

static uint8_t *store_le16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
    return at + 2;
}

struct memos_bytes retrieval_term_key(
    uint8_t out[RETRIEVAL_TERM_KEY_BYTES], uint32_t space, uint64_t term)
{
    store_be64(store_be32(out, space), term);
    return memos_bytes_make(out, RETRIEVAL_TERM_KEY_BYTES);
}

struct memos_bytes retrieval_doc_key(
    uint8_t out[RETRIEVAL_DOC_KEY_BYTES], uint32_t space, uint32_t doc_or_chunk)
{
    store_be32(store_be32(out, space), doc_or_chunk);
    return memos_bytes_make(out, RETRIEVAL_DOC_KEY_BYTES);
}

static struct memos_bytes posting(
    uint8_t out[RETRIEVAL_POSTING_BYTES], uint32_t doc, uint32_t count)
{
    store_le16(store_be32(out, doc), count < RETRIEVAL_COUNT_MAX ? count : RETRIEVAL_COUNT_MAX);
    return memos_bytes_make(out, RETRIEVAL_POSTING_BYTES);
}

enum memos_status retrieval_tables_open(
    struct memcube_db *db, struct retrieval_tables *out_tables, struct memos_error *err)
{
    struct retrieval_tables tables;
    enum memos_status status =
        memcube_db_table(db, "lex.post", MEMCUBE_TABLE_SET, &tables.post, err);
    if (status == MEMOS_OK) {
        status = memcube_db_table(db, "lex.doc", MEMCUBE_TABLE_MAP, &tables.doc, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_db_table(db, "lex.len", MEMCUBE_TABLE_MAP, &tables.len, err);
    }
    if (status == MEMOS_OK) {
        *out_tables = tables;
    }
    return status;
}

/* ---- lengths ------------------------------------------------------------------------------- */

static uint32_t length_kept(uint32_t length)
{
    if (length == 0) {
        return 1; /* an entry without words is an entry still */
    }
    return length < RETRIEVAL_LENGTH_MAX ? length : RETRIEVAL_LENGTH_MAX;
}

/* Set a doc's length; 0: it has no entry any more. */
static enum memos_status length_set(const struct retrieval_tables *tables, struct memcube_txn *txn,
    uint32_t space, uint32_t doc, uint32_t length, struct memos_error *err)
{
    uint8_t key_bytes[RETRIEVAL_DOC_KEY_BYTES], chunk[RETRIEVAL_CHUNK_BYTES] = {0};
    struct memos_bytes key = retrieval_doc_key(key_bytes, space, doc / RETRIEVAL_CHUNK_DOCS);
    struct memos_bytes old;

    enum memos_status status = memcube_get(txn, tables->len, key, &old, err);
    if (status == MEMOS_OK && old.size == sizeof chunk) {
        memcpy(chunk, old.data, sizeof chunk);
    } else if (status != MEMOS_OK && status != MEMOS_NOT_FOUND) {
        return status;
    }
    store_le16(chunk + (doc % RETRIEVAL_CHUNK_DOCS) * 2, length);
    return memcube_put(txn, tables->len, key, memos_bytes_make(chunk, sizeof chunk), err);
}

static enum memos_status length_check(const struct retrieval_tables *tables,
    struct memcube_txn *txn, const struct retrieval_entry *entry, struct memos_error *err)
{
    uint8_t key_bytes[RETRIEVAL_DOC_KEY_BYTES];
    struct memos_bytes key =
        retrieval_doc_key(key_bytes, entry->space, entry->doc / RETRIEVAL_CHUNK_DOCS);
    struct memos_bytes chunk;

    enum memos_status status = memcube_get(txn, tables->len, key, &chunk, err);
    if (status != MEMOS_OK && status != MEMOS_NOT_FOUND) {
        return status;
    }
    uint32_t length = 0;
    if (status == MEMOS_OK && chunk.size == RETRIEVAL_CHUNK_BYTES) {
        const uint8_t *at = (const uint8_t *)chunk.data + (entry->doc % RETRIEVAL_CHUNK_DOCS) * 2;
        length = (uint32_t)at[0] | (uint32_t)at[1] << 8;
    }
    if (length != length_kept(entry->length)) {
        return memos_fail(err, MEMOS_CORRUPT,
            "lexical index: doc %u of space %u has length %u, not %u", entry->doc, entry->space,
            length, length_kept(entry->length));
    }
    return MEMOS_OK;
}

/* ---- entries ------------------------------------------------------------------------------- */

static size_t entry_bytes(const struct retrieval_entry *entry)
{
    return ENTRY_HEAD_BYTES + entry->terms_count * ENTRY_TERM_BYTES;
}

static void entry_encode(const struct retrieval_entry *entry, uint8_t *at)
{
    at = store_le16(store_le16(at, entry->length), entry->length >> 16);
    for (size_t i = 0; i < entry->terms_count; i++) {
        uint32_t count = entry->terms[i].count;
        at = store_be64(at, entry->terms[i].hash);
        at = store_le16(at, count < RETRIEVAL_COUNT_MAX ? count : RETRIEVAL_COUNT_MAX);
    }
}

enum memos_status retrieval_entry_add(const struct retrieval_tables *tables,
    struct memcube_txn *txn, const struct retrieval_entry *entry, struct memos_error *err)
{
    uint8_t key[RETRIEVAL_TERM_KEY_BYTES], value[RETRIEVAL_POSTING_BYTES];
    void *room;

    enum memos_status status = memcube_put_room(txn, tables->doc,
        retrieval_doc_key(key, entry->space, entry->doc), entry_bytes(entry), &room, err);
    if (status != MEMOS_OK) {
        return status;
    }
    entry_encode(entry, room);
    for (size_t i = 0; i < entry->terms_count && status == MEMOS_OK; i++) {
        status = memcube_put(txn, tables->post,
            retrieval_term_key(key, entry->space, entry->terms[i].hash),
            posting(value, entry->doc, entry->terms[i].count), err);
    }
    if (status == MEMOS_OK) {
        status = length_set(tables, txn, entry->space, entry->doc, length_kept(entry->length), err);
    }
    return status;
}

/* Remove the postings that an entry's bytes name. Those that are not there are no loss. */
static enum memos_status postings_erase(const struct retrieval_tables *tables,
    struct memcube_txn *txn, uint32_t space, uint32_t doc, struct memos_bytes entry,
    struct memos_error *err)
{
    struct memos_reader reader = memos_reader_of(entry);
    uint8_t key[RETRIEVAL_TERM_KEY_BYTES], value[RETRIEVAL_POSTING_BYTES];

    (void)memos_read_u32(&reader);
    while (!reader.failed && reader.left > 0) {
        uint64_t term = memos_read_u64_be(&reader);
        uint32_t count = memos_read_u16(&reader);
        if (reader.failed) {
            return memos_fail(err, MEMOS_CORRUPT,
                "lexical index: the entry of doc %u of space %u is cut off", doc, space);
        }
        enum memos_status status = memcube_delete(txn, tables->post,
            retrieval_term_key(key, space, term), posting(value, doc, count), err);
        if (status != MEMOS_OK && status != MEMOS_NOT_FOUND) {
            return status;
        }
    }
    return MEMOS_OK;
}

enum memos_status retrieval_entry_erase(const struct retrieval_tables *tables,
    struct memcube_txn *txn, uint32_t space, uint32_t doc, struct memos_error *err)
{
    uint8_t key_bytes[RETRIEVAL_DOC_KEY_BYTES];
    struct memos_bytes key = retrieval_doc_key(key_bytes, space, doc), view;
    struct memos_buffer entry = memos_buffer_make(SIZE_MAX);

    enum memos_status status = memcube_get(txn, tables->doc, key, &view, err);
    if (status != MEMOS_OK) {
        return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
    }
    memos_buffer_bytes(&entry, view.data, view.size); /* the view dies with the next change */
    if (entry.failed) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory to erase an entry");
        goto out;
    }
    status = postings_erase(tables, txn, space, doc, memos_buffer_view(&entry), err);
    if (status == MEMOS_OK) {
        status = memcube_delete(txn, tables->doc, key, memos_bytes_make(NULL, 0), err);
    }
    if (status == MEMOS_OK) {
        status = length_set(tables, txn, space, doc, 0, err);
    }
out:
    memos_buffer_free(&entry);
    return status;
}

/* Has every term of the entry its posting? */
static enum memos_status postings_check(const struct retrieval_tables *tables,
    struct memcube_txn *txn, const struct retrieval_entry *entry, struct memos_error *err)
{
    struct memcube_cursor *cursor = NULL;
    uint8_t key[RETRIEVAL_TERM_KEY_BYTES], wanted[RETRIEVAL_POSTING_BYTES];

    enum memos_status status = memcube_cursor_open(txn, tables->post, &cursor, err);
    for (size_t i = 0; i < entry->terms_count && status == MEMOS_OK; i++) {
        struct memos_bytes value = posting(wanted, entry->doc, entry->terms[i].count);
        struct memos_bytes found = value;
        status = memcube_cursor_value_at_or_after(
            cursor, retrieval_term_key(key, entry->space, entry->terms[i].hash), &found, err);
        if (status == MEMOS_NOT_FOUND || (status == MEMOS_OK && !memos_bytes_equal(found, value))) {
            status = memos_fail(err, MEMOS_CORRUPT,
                "lexical index: doc %u of space %u lacks a posting", entry->doc, entry->space);
        }
    }
    memcube_cursor_close(&cursor);
    return status;
}

enum memos_status retrieval_entry_check(const struct retrieval_tables *tables,
    struct memcube_txn *txn, const struct retrieval_entry *entry, struct memos_error *err)
{
    uint8_t key[RETRIEVAL_DOC_KEY_BYTES];
    struct memos_buffer expected = memos_buffer_make(SIZE_MAX);
    struct memos_bytes found;

    enum memos_status status = memcube_get(
        txn, tables->doc, retrieval_doc_key(key, entry->space, entry->doc), &found, err);
    if (status == MEMOS_NOT_FOUND) {
        status = memos_fail(err, MEMOS_CORRUPT, "lexical index: doc %u of space %u has no entry",
            entry->doc, entry->space);
    }
    if (status != MEMOS_OK) {
        goto out;
    }
    uint8_t *room = memos_buffer_take(&expected, entry_bytes(entry));
    if (!room) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory to check an entry");
        goto out;
    }
    entry_encode(entry, room);
    if (!memos_bytes_equal(found, memos_buffer_view(&expected))) {
        status = memos_fail(err, MEMOS_CORRUPT,
            "lexical index: doc %u of space %u does not have the words of its text", entry->doc,
            entry->space);
        goto out;
    }
    status = postings_check(tables, txn, entry, err);
    if (status == MEMOS_OK) {
        status = length_check(tables, txn, entry, err);
    }
out:
    memos_buffer_free(&expected);
    return status;
}
