#include "retrieval/postings.h"

#include "retrieval/merge.h"

#define ENTRY_HEAD_BYTES 4

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

struct memos_bytes retrieval_space_key(uint8_t out[RETRIEVAL_DOC_KEY_BYTES], uint32_t space)
{
    store_be32(out, space);
    return memos_bytes_make(out, 4);
}

struct memos_bytes retrieval_doc_key(
    uint8_t out[RETRIEVAL_DOC_KEY_BYTES], uint32_t space, uint32_t doc_or_chunk)
{
    store_be32(store_be32(out, space), doc_or_chunk);
    return memos_bytes_make(out, RETRIEVAL_DOC_KEY_BYTES);
}

static uint32_t count_kept(uint32_t count)
{
    return count < RETRIEVAL_COUNT_MAX ? count : RETRIEVAL_COUNT_MAX;
}

struct memos_bytes retrieval_posting_write(
    uint8_t out[RETRIEVAL_POSTING_BYTES], struct retrieval_posting posting)
{
    store_le16(store_be32(out, posting.doc), count_kept(posting.count));
    return memos_bytes_make(out, RETRIEVAL_POSTING_BYTES);
}

enum memos_status retrieval_tables_open(
    struct memcube_db *db, struct retrieval_tables *out_tables, struct memos_error *err)
{
    struct retrieval_tables tables;
    const struct {
        const char *name;
        enum memcube_table_type type;
        memcube_table *table;
    } all[] = {
        {"lex.doc", MEMCUBE_TABLE_MAP, &tables.doc},
        {"lex.post", MEMCUBE_TABLE_SET, &tables.post},
        {"lex.merged", MEMCUBE_TABLE_MAP, &tables.merged},
        {"lex.len", MEMCUBE_TABLE_MAP, &tables.len},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        enum memos_status status =
            memcube_db_table(db, all[i].name, all[i].type, all[i].table, err);
        if (status != MEMOS_OK) {
            return status;
        }
    }
    *out_tables = tables;
    return MEMOS_OK;
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

enum memos_status retrieval_entry_view(
    struct memos_bytes value, struct retrieval_entry_view *out, struct memos_error *err)
{
    struct memos_reader reader = memos_reader_of(value);
    out->length = memos_read_u32(&reader);
    out->terms = reader.at;
    out->terms_count = reader.left / RETRIEVAL_ENTRY_TERM_BYTES;
    if (reader.failed || reader.left % RETRIEVAL_ENTRY_TERM_BYTES != 0) {
        return memos_fail(err, MEMOS_CORRUPT, "lexical index: an entry of %zu bytes", value.size);
    }
    return MEMOS_OK;
}

size_t retrieval_entry_find(const struct retrieval_entry_view *entry, size_t from, uint64_t term)
{
    size_t low = from, high = entry->terms_count;
    /* Terms are hashes, evenly spread: look where it should be, and a few places around. */
    const size_t guess = (size_t)(((term >> 32) * (uint64_t)high) >> 32);
    const size_t around = 4;
    if (guess > low + around && retrieval_entry_term(entry, guess - around - 1) < term) {
        low = guess - around;
    }
    if (guess + around < high && guess + around >= low &&
        retrieval_entry_term(entry, guess + around) >= term) {
        high = guess + around;
    }
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (retrieval_entry_term(entry, middle) < term) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static size_t entry_bytes(const struct retrieval_entry *entry)
{
    return ENTRY_HEAD_BYTES + entry->terms_count * RETRIEVAL_ENTRY_TERM_BYTES;
}

static void entry_encode(const struct retrieval_entry *entry, uint8_t *at)
{
    at = store_le16(store_le16(at, entry->length), entry->length >> 16);
    for (size_t i = 0; i < entry->terms_count; i++) {
        at = store_be64(at, entry->terms[i].hash);
        at = store_le16(at, count_kept(entry->terms[i].count));
    }
}

enum memos_status retrieval_entry_add(const struct retrieval_tables *tables,
    struct memcube_txn *txn, const struct retrieval_entry *entry, struct memos_error *err)
{
    uint8_t key[RETRIEVAL_DOC_KEY_BYTES];
    struct retrieval_merged merged;
    void *room;

    enum memos_status status = memcube_put_room(txn, tables->doc,
        retrieval_doc_key(key, entry->space, entry->doc), entry_bytes(entry), &room, err);
    if (status != MEMOS_OK) {
        return status;
    }
    entry_encode(entry, room);
    status = retrieval_merged_load(tables, txn, entry->space, &merged, err);
    for (size_t i = 0; i < entry->terms_count && status == MEMOS_OK; i++) {
        const struct retrieval_term *term = &entry->terms[i];
        /* Only a repair comes after the merge that its doc belonged to. */
        if (entry->doc <= retrieval_merged_through(&merged, term->hash)) {
            uint8_t key_bytes[RETRIEVAL_TERM_KEY_BYTES], value[RETRIEVAL_POSTING_BYTES];
            status = memcube_put(txn, tables->post,
                retrieval_term_key(key_bytes, entry->space, term->hash),
                retrieval_posting_write(value, (struct retrieval_posting){entry->doc, term->count}),
                err);
        }
    }
    if (status == MEMOS_OK) {
        status = length_set(tables, txn, entry->space, entry->doc, length_kept(entry->length), err);
    }
    if (status == MEMOS_OK) {
        status = retrieval_merge_due(tables, txn, entry->space, entry->doc, &merged, err);
    }
    return status;
}

/* Find the posting of a doc among a term's, whatever its count; *out_count 0: there is none. */
static enum memos_status posting_find(struct memcube_cursor *cursor, struct memos_bytes term_key,
    uint32_t doc, uint32_t *out_count, struct memos_error *err)
{
    uint8_t least[RETRIEVAL_POSTING_BYTES];
    struct memos_bytes found = retrieval_posting_write(least, (struct retrieval_posting){doc, 0});

    *out_count = 0;
    enum memos_status status = memcube_cursor_value_at_or_after(cursor, term_key, &found, err);
    if (status == MEMOS_OK && found.size == RETRIEVAL_POSTING_BYTES) {
        struct retrieval_posting posting = retrieval_posting_read(found.data);
        *out_count = posting.doc == doc ? posting.count : 0;
    }
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

/* Remove a doc's posting of one term, if there is one. */
static enum memos_status posting_erase(struct memcube_cursor *cursor, struct memos_bytes term_key,
    uint32_t doc, struct memos_error *err)
{
    uint32_t count;
    enum memos_status status = posting_find(cursor, term_key, doc, &count, err);
    return status == MEMOS_OK && count > 0 ? memcube_cursor_delete(cursor, err) : status;
}

/* Remove a doc's postings of all terms of its space: for an entry that cannot be read. */
static enum memos_status postings_erase_all(
    struct memcube_cursor *cursor, uint32_t space, uint32_t doc, struct memos_error *err)
{
    uint8_t key_bytes[RETRIEVAL_TERM_KEY_BYTES];
    uint64_t term = 0;
    for (;;) {
        struct memos_bytes key = retrieval_term_key(key_bytes, space, term), value;
        enum memos_status status =
            memcube_cursor_move(cursor, MEMCUBE_AT_OR_AFTER, &key, &value, err);
        struct memos_reader reader = memos_reader_of(key);
        if (status != MEMOS_OK || memos_read_u32_be(&reader) != space) {
            return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
        }
        term = memos_read_u64_be(&reader);
        status = posting_erase(cursor, retrieval_term_key(key_bytes, space, term), doc, err);
        if (status != MEMOS_OK || term == UINT64_MAX) {
            return status;
        }
        term++;
    }
}

/* Remove the postings that an entry's bytes name. */
static enum memos_status postings_erase(const struct retrieval_tables *tables,
    struct memcube_txn *txn, uint32_t space, uint32_t doc, struct memos_bytes bytes,
    struct memos_error *err)
{
    struct memcube_cursor *cursor = NULL;
    struct retrieval_entry_view entry;

    enum memos_status status = memcube_cursor_open(txn, tables->post, &cursor, err);
    if (status != MEMOS_OK) {
        return status;
    }
    if (retrieval_entry_view(bytes, &entry, NULL) != MEMOS_OK) {
        status = postings_erase_all(cursor, space, doc, err);
        entry.terms_count = 0;
    }
    for (size_t i = 0; status == MEMOS_OK && i < entry.terms_count; i++) {
        uint8_t key[RETRIEVAL_TERM_KEY_BYTES];
        status = posting_erase(
            cursor, retrieval_term_key(key, space, retrieval_entry_term(&entry, i)), doc, err);
    }
    memcube_cursor_close(&cursor);
    return status;
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

/* Is the posting of each term there if it is merged, and not there if it is not? */
static enum memos_status postings_check(const struct retrieval_tables *tables,
    struct memcube_txn *txn, const struct retrieval_entry *entry, struct memos_error *err)
{
    struct memcube_cursor *cursor = NULL;
    struct retrieval_merged merged;

    enum memos_status status = retrieval_merged_load(tables, txn, entry->space, &merged, err);
    if (status == MEMOS_OK) {
        status = memcube_cursor_open(txn, tables->post, &cursor, err);
    }
    for (size_t i = 0; i < entry->terms_count && status == MEMOS_OK; i++) {
        const struct retrieval_term *term = &entry->terms[i];
        bool due = entry->doc <= retrieval_merged_through(&merged, term->hash);
        uint8_t key[RETRIEVAL_TERM_KEY_BYTES];
        uint32_t count;
        status = posting_find(
            cursor, retrieval_term_key(key, entry->space, term->hash), entry->doc, &count, err);
        if (status == MEMOS_OK && count != (due ? count_kept(term->count) : 0)) {
            status = memos_fail(err, MEMOS_CORRUPT,
                "lexical index: doc %u of space %u has a posting wrong or missing", entry->doc,
                entry->space);
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
