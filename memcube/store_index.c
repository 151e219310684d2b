/* What indexes ask of the store: a content again, and the keys under which they may keep what
 * repeats it.
 *
 * A doc's key is made from its cube's slot in the vault, which forget destroys, and so needs no
 * place of its own. */
#include "memcube/store_internal.h"

#include <sodium.h>

#define DOC_KEY_PURPOSE "memos doc key 1"

bool memcube_read_inside_write(const struct memcube_read *read)
{
    return read->write != NULL;
}

enum memos_status memcube_slot_doc_key(struct memcube_vault *vault, uint64_t slot, uint32_t doc,
    uint8_t out_key[MEMCUBE_DOC_KEY_BYTES], struct memos_error *err)
{
    uint8_t slot_key[32];
    uint8_t text[sizeof DOC_KEY_PURPOSE - 1 + sizeof doc];
    const uint32_t le = htole32(doc);

    const enum memos_status status = memcube_vault_key(vault, slot, slot_key, err);
    if (status != MEMOS_OK) {
        return status;
    }
    memcpy(text, DOC_KEY_PURPOSE, sizeof DOC_KEY_PURPOSE - 1);
    memcpy(text + sizeof DOC_KEY_PURPOSE - 1, &le, sizeof le);
    (void)crypto_generichash(
        out_key, MEMCUBE_DOC_KEY_BYTES, text, sizeof text, slot_key, sizeof slot_key);
    sodium_memzero(slot_key, sizeof slot_key);
    return MEMOS_OK;
}

/* From a doc's record to its key. */
static enum memos_status record_key(struct memcube_read *read, uint32_t space, uint32_t doc,
    struct memos_bytes record, struct memcube_doc_key *out, struct memos_error *err)
{
    struct memos_reader r = memos_reader_of(record);
    struct memcube_cube cube;

    out->doc = doc;
    memos_read_into(&r, out->cube.bytes, sizeof out->cube.bytes);
    if (r.failed) {
        return memos_fail(err, MEMOS_CORRUPT, "the record of doc %u is damaged", doc);
    }
    const enum memos_status status = memcube_cube_read(read, space, &out->cube, &cube, err);
    if (status != MEMOS_OK) {
        return status == MEMOS_NOT_FOUND ? memos_fail(err, MEMOS_CORRUPT, "doc %u has no cube", doc)
                                         : status;
    }
    if (cube.state == MEMCUBE_STATE_FORGOTTEN) {
        return memos_fail(err, MEMOS_FORGOTTEN, "doc %u was forgotten", doc);
    }
    return memcube_slot_doc_key(read->store->vault, cube.slot, doc, out->key, err);
}

enum memos_status memcube_doc_key(struct memcube_read *read, uint32_t space, uint32_t doc,
    uint8_t out_key[MEMCUBE_DOC_KEY_BYTES], struct memos_error *err)
{
    const struct memcube_key key = memcube_key_of_u32(space, doc);
    struct memcube_doc_key found;
    struct memos_bytes record;

    enum memos_status status =
        memcube_get(read->txn, read->store->tables.doc, memcube_key_view(&key), &record, err);
    if (status == MEMOS_NOT_FOUND) {
        return memos_fail(err, MEMOS_NOT_FOUND, "there is no doc %u", doc);
    }
    if (status == MEMOS_OK) {
        status = record_key(read, space, doc, record, &found, err);
    }
    if (status == MEMOS_OK) {
        memcpy(out_key, found.key, sizeof found.key);
        sodium_memzero(found.key, sizeof found.key);
    }
    return status;
}

enum memos_status memcube_doc_keys(struct memcube_read *read, uint32_t space, uint32_t first,
    struct memcube_doc_key *out, size_t count_max, size_t *out_count, struct memos_error *err)
{
    const struct memcube_key prefix = memcube_key_of(space);
    const struct memcube_key from = memcube_key_of_u32(space, first);
    struct memcube_cursor *cursor = NULL;
    struct memos_bytes key = memcube_key_view(&from), record;
    size_t count = 0;

    enum memos_status status =
        memcube_cursor_open(read->txn, read->store->tables.doc, &cursor, err);
    if (status == MEMOS_OK) {
        status = memcube_cursor_move(cursor, MEMCUBE_AT_OR_AFTER, &key, &record, err);
    }
    while (status == MEMOS_OK && count < count_max && memcube_key_begins(key, &prefix)) {
        struct memos_reader r = memos_reader_of(key);
        (void)memos_read_bytes(&r, prefix.size);
        const uint32_t doc = memos_read_u32_be(&r);
        status = record_key(read, space, doc, record, &out[count], err);
        count += status == MEMOS_OK;
        if (status == MEMOS_OK || status == MEMOS_FORGOTTEN) {
            status = memcube_cursor_move(cursor, MEMCUBE_NEXT, &key, &record, err);
        }
    }
    memcube_cursor_close(&cursor);
    *out_count = count;
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

enum memos_status memcube_space_numbered(struct memcube_read *read, uint32_t number,
    struct memcube_space *out, struct memos_error *err)
{
    struct memos_bytes name;

    const enum memos_status status = memcube_space_name(read, number, &name, err);
    if (status == MEMOS_NOT_FOUND) {
        return memos_fail(err, MEMOS_NOT_FOUND, "there is no space with the number %u", number);
    }
    return status == MEMOS_OK ? memcube_space_find(read, name, out, err) : status;
}

enum memos_status memcube_doc_version(struct memcube_read *read, const struct memcube_space *space,
    uint32_t doc, struct memcube_version *out, struct memos_error *err)
{
    struct memcube_doc record;
    struct memcube_cube cube;
    uint32_t row = 0;
    uint64_t seq = 0;

    enum memos_status status =
        memcube_doc_read(read, space->number, doc, &read->arena, &record, err);
    if (status == MEMOS_OK) {
        status = memcube_cube_read(read, space->number, &record.id, &cube, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_chain_read(
            read, space->number, &record.id, record.first, &row, &seq, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_version_load(
            read, space->number, &cube, row, &read->arena, out, err);
    }
    if (status == MEMOS_OK && out->state == MEMCUBE_STATE_FORGOTTEN) {
        return memos_fail(err, MEMOS_FORGOTTEN, "doc %u was forgotten", doc);
    }
    return status;
}
