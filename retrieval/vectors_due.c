/* Which encoder is active, and which docs want its vectors.
 *
 * The list vec.due has docs without an entry. Docs with an entry of another encoder are not put on
 * it: they are found by walking over the entries, from where the last walk found nothing before. */
#include "retrieval/vectors_due.h"

#include <stdlib.h>

#define ENCODERS_MAX 256
#define KEYS_A_TIME 128u
#define SPACES_A_TIME 16u

/* ---- the list ------------------------------------------------------------------------------ */

enum memos_status retrieval_vec_due_put(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, uint32_t space, uint32_t doc, const uint8_t *hash,
    struct memos_error *err)
{
    uint8_t key_bytes[RETRIEVAL_DOC_KEY_BYTES];
    struct memos_bytes key = retrieval_doc_key(key_bytes, space, doc), before;

    enum memos_status status = memcube_get(txn, tables->due, key, &before, err);
    if (status == MEMOS_NOT_FOUND) {
        status = retrieval_vec_count_add(tables, txn, 0, 1, err);
    }
    return status == MEMOS_OK
               ? memcube_put(txn, tables->due, key, memos_bytes_make(hash, hash ? 16 : 0), err)
               : status;
}

enum memos_status retrieval_vec_due_remove(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, uint32_t space, uint32_t doc, struct memos_error *err)
{
    uint8_t key[RETRIEVAL_DOC_KEY_BYTES];

    enum memos_status status = memcube_delete(
        txn, tables->due, retrieval_doc_key(key, space, doc), memos_bytes_make(NULL, 0), err);
    if (status == MEMOS_OK) {
        return retrieval_vec_count_add(tables, txn, 0, -1, err);
    }
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

static bool key_parse(struct memos_bytes key, struct retrieval_due *out)
{
    struct memos_reader r = memos_reader_of(key);
    out->space = memos_read_u32_be(&r);
    out->doc = memos_read_u32_be(&r);
    return memos_reader_done(&r);
}

static enum memos_status list_read(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, struct retrieval_due *out, size_t count_max, size_t *out_count,
    struct memos_error *err)
{
    struct memcube_cursor *cursor = NULL;
    struct memos_bytes key, value;
    size_t count = 0;

    enum memos_status status = memcube_cursor_open(txn, tables->due, &cursor, err);
    if (status == MEMOS_OK) {
        status = memcube_cursor_move(cursor, MEMCUBE_FIRST, &key, &value, err);
    }
    while (status == MEMOS_OK && count < count_max) {
        count += key_parse(key, &out[count]);
        status = memcube_cursor_move(cursor, MEMCUBE_NEXT, &key, &value, err);
    }
    memcube_cursor_close(&cursor);
    *out_count = count;
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

/* Docs with an entry of another encoder than this, from *at on. *at becomes the first of them, or
 * past the last doc. */
static enum memos_status others_read(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, uint32_t encoder, struct retrieval_due *at, struct retrieval_due *out,
    size_t count_max, size_t *out_count, struct memos_error *err)
{
    struct memcube_cursor *cursor = NULL;
    uint8_t key_bytes[RETRIEVAL_DOC_KEY_BYTES];
    struct memos_bytes key = retrieval_doc_key(key_bytes, at->space, at->doc), value;
    struct retrieval_vec_entry entry;
    struct retrieval_due found;
    size_t count = 0;

    enum memos_status status = memcube_cursor_open(txn, tables->doc, &cursor, err);
    if (status == MEMOS_OK) {
        status = memcube_cursor_move(cursor, MEMCUBE_AT_OR_AFTER, &key, &value, err);
    }
    while (status == MEMOS_OK && count < count_max) {
        if (retrieval_vec_entry_view(value, &entry, NULL) == MEMOS_OK && entry.encoder != encoder &&
            key_parse(key, &found)) {
            out[count++] = found;
        }
        status = memcube_cursor_move(cursor, MEMCUBE_NEXT, &key, &value, err);
    }
    memcube_cursor_close(&cursor);
    if (count > 0) {
        *at = out[0];
    } else if (status == MEMOS_NOT_FOUND) {
        *at = (struct retrieval_due){UINT32_MAX, UINT32_MAX};
    }
    *out_count = count;
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

/* How many entries of other encoders there are. */
static enum memos_status others_count(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, uint32_t active, uint64_t *out, struct memos_error *err)
{
    struct retrieval_vec_encoder *encoders = calloc(ENCODERS_MAX, sizeof *encoders);
    size_t count = 0;
    uint32_t last;

    *out = 0;
    if (!encoders) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a list of encoders");
    }
    enum memos_status status =
        retrieval_vec_encoder_list(tables, txn, encoders, ENCODERS_MAX, &count, &last, err);
    for (size_t i = 0; status == MEMOS_OK && i < count; i++) {
        uint64_t entries = 0;
        if (encoders[i].number != active) {
            status = retrieval_vec_count_get(tables, txn, encoders[i].number, &entries, err);
        }
        *out += entries;
    }
    free(encoders);
    return status;
}

enum memos_status retrieval_vectors_due(struct retrieval_vectors *vectors,
    struct memcube_read *read, struct retrieval_due *out, size_t count_max, size_t *out_count,
    uint64_t *out_total, struct memos_error *err)
{
    struct memcube_txn *txn = memcube_read_txn(read);
    struct retrieval_vec_encoder active;
    struct retrieval_due at = {0, 0};
    uint64_t turns, others = 0;
    size_t more = 0;

    *out_count = 0;
    enum memos_status status =
        retrieval_vec_active_get(&vectors->tables, txn, &active, &turns, err);
    if (status == MEMOS_OK) {
        status = retrieval_vec_count_get(&vectors->tables, txn, 0, out_total, err);
    }
    if (status == MEMOS_OK) {
        status = list_read(&vectors->tables, txn, out, count_max, out_count, err);
    }
    if (status == MEMOS_OK && active.number != 0) {
        status = others_count(&vectors->tables, txn, active.number, &others, err);
    }
    if (status != MEMOS_OK || others == 0) {
        return status;
    }
    *out_total += others;
    (void)pthread_mutex_lock(&vectors->lock);
    if (vectors->sweep.turns == turns) {
        at = (struct retrieval_due){vectors->sweep.space, vectors->sweep.doc};
    }
    (void)pthread_mutex_unlock(&vectors->lock);
    status = others_read(&vectors->tables, txn, active.number, &at, out + *out_count,
        count_max - *out_count, &more, err);
    *out_count += more;
    /* What a write sees that is not committed says nothing about later snapshots. */
    if (status == MEMOS_OK && !memcube_read_inside_write(read)) {
        (void)pthread_mutex_lock(&vectors->lock);
        if (vectors->sweep.turns <= turns) {
            vectors->sweep.turns = turns;
            vectors->sweep.space = at.space;
            vectors->sweep.doc = at.doc;
        }
        (void)pthread_mutex_unlock(&vectors->lock);
    }
    return status;
}

enum memos_status retrieval_due_spans(struct memcube_read *read, const struct retrieval_due *due,
    struct retrieval_spans *out, struct memos_error *err)
{
    struct memos_bytes payload = memos_bytes_make("", 0);
    struct memcube_version version;
    struct memcube_space space;

    enum memos_status status = memcube_space_numbered(read, due->space, &space, err);
    if (status == MEMOS_OK) {
        status = memcube_doc_version(read, &space, due->doc, &version, err);
    }
    if (status == MEMOS_OK && version.kind == MEMCUBE_PLAINTEXT) {
        status = memcube_payload_get(read, &space, &version, false, &payload, err);
    }
    return status == MEMOS_OK ? retrieval_spans_make(version.kind, &version.description, payload,
                                    memcube_read_arena(read), out, err)
                              : status;
}

/* ---- filling ------------------------------------------------------------------------------- */

/* What a doc has: an entry (of which encoder), a place on the list, and a hash of its text. */
struct standing {
    uint32_t encoder; /* 0: no entry that can be read */
    bool hash_known;
    uint8_t hash[16];
};

static enum memos_status standing_of(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, const struct retrieval_due *due, struct standing *out,
    struct memos_error *err)
{
    uint8_t key_bytes[RETRIEVAL_DOC_KEY_BYTES];
    const struct memos_bytes key = retrieval_doc_key(key_bytes, due->space, due->doc);
    struct retrieval_vec_entry entry;
    struct memos_bytes value;

    *out = (struct standing){.encoder = 0};
    enum memos_status status = memcube_get(txn, tables->doc, key, &value, err);
    if (status == MEMOS_OK && retrieval_vec_entry_view(value, &entry, NULL) == MEMOS_OK) {
        out->encoder = entry.encoder;
        out->hash_known = true;
        memcpy(out->hash, entry.hash, sizeof out->hash);
        return MEMOS_OK;
    }
    if (status == MEMOS_OK || status == MEMOS_NOT_FOUND) {
        status = memcube_get(txn, tables->due, key, &value, err);
    }
    if (status == MEMOS_OK && value.size == sizeof out->hash) {
        out->hash_known = true;
        memcpy(out->hash, value.data, sizeof out->hash);
    }
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

static enum memos_status entry_fill(struct retrieval_vectors *vectors, struct memcube_txn *txn,
    const struct retrieval_due *due, const struct retrieval_vec_encoder *active,
    const uint8_t key[MEMCUBE_DOC_KEY_BYTES], const struct standing *before,
    const struct retrieval_spans *spans, const float *values, struct memos_error *err)
{
    const struct retrieval_vec_tables *tables = &vectors->tables;

    enum memos_status status = retrieval_vec_entry_put(
        tables, txn, due->space, due->doc, active, key, spans->hash, values, spans->count, err);
    if (status == MEMOS_OK && before->encoder != 0) {
        status = retrieval_vec_count_add(tables, txn, before->encoder, -1, err);
    }
    if (status == MEMOS_OK) {
        status = retrieval_vec_count_add(tables, txn, active->number, 1, err);
    }
    if (status == MEMOS_OK) {
        status = retrieval_vec_change_make(
            &vectors->changes, tables, txn, due->space, due->doc, false, err);
    }
    return status;
}

enum memos_status retrieval_vectors_fill(struct retrieval_vectors *vectors,
    struct memcube_write *write, const struct retrieval_due *due, const uint8_t fingerprint[32],
    const struct retrieval_spans *spans, const float *values, struct memos_error *err)
{
    struct memcube_read *read = memcube_write_read(write);
    struct memcube_txn *txn = memcube_read_txn(read);
    uint8_t key[MEMCUBE_DOC_KEY_BYTES], hash[16];
    struct retrieval_vec_encoder active;
    struct standing before;

    enum memos_status status = retrieval_vec_active_is(vectors, txn, fingerprint, &active, err);
    if (status != MEMOS_OK || active.number == 0) {
        return status;
    }
    status = memcube_doc_key(read, due->space, due->doc, key, err);
    if (status == MEMOS_FORGOTTEN || status == MEMOS_NOT_FOUND) {
        return MEMOS_OK;
    }
    if (status == MEMOS_OK) {
        status = standing_of(&vectors->tables, txn, due, &before, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    retrieval_vec_text_hash(key, spans->hash, hash);
    if (before.hash_known && memcmp(before.hash, hash, sizeof hash) != 0) {
        return MEMOS_OK;
    }
    if (spans->count > 0 && before.encoder != active.number) {
        if (!retrieval_vec_finite(values, spans->count * active.dims)) {
            return memos_fail(err, MEMOS_INVALID, "a vector with values that are not finite");
        }
        status = entry_fill(vectors, txn, due, &active, key, &before, spans, values, err);
    }
    return status == MEMOS_OK
               ? retrieval_vec_due_remove(&vectors->tables, txn, due->space, due->doc, err)
               : status;
}

/* ---- the active encoder --------------------------------------------------------------------- */

/* Put every doc of a space that has no entry on the list. */
static enum memos_status space_due(const struct retrieval_vec_tables *tables,
    struct memcube_read *read, uint32_t space, struct memos_error *err)
{
    struct memcube_txn *txn = memcube_read_txn(read);
    struct memcube_doc_key keys[KEYS_A_TIME];
    enum memos_status status = MEMOS_OK;
    uint32_t next = 1;
    size_t count = 1;

    while (status == MEMOS_OK && count > 0) {
        status = memcube_doc_keys(read, space, next, keys, KEYS_A_TIME, &count, err);
        for (size_t i = 0; status == MEMOS_OK && i < count; i++) {
            uint8_t key[RETRIEVAL_DOC_KEY_BYTES];
            struct memos_bytes value;
            next = keys[i].doc + 1;
            if (memcube_get(txn, tables->due, retrieval_doc_key(key, space, keys[i].doc), &value,
                    NULL) == MEMOS_NOT_FOUND) {
                status = retrieval_vec_due_put(tables, txn, space, keys[i].doc, NULL, err);
            }
        }
    }
    return status;
}

static enum memos_status all_due(
    const struct retrieval_vec_tables *tables, struct memcube_read *read, struct memos_error *err)
{
    struct memcube_space spaces[SPACES_A_TIME];
    struct memos_bytes after = memos_bytes_make("", 0);
    enum memos_status status = MEMOS_OK;
    size_t count = 1;

    while (status == MEMOS_OK && count > 0) {
        status = memcube_space_list(read, after, spaces, SPACES_A_TIME, &count, err);
        for (size_t i = 0; status == MEMOS_OK && i < count; i++) {
            status = space_due(tables, read, spaces[i].number, err);
            after = spaces[i].name;
        }
    }
    return status;
}

/* The record of this encoder with codes of the type that is wanted; made when it is new. */
static enum memos_status encoder_find(struct retrieval_vectors *vectors, struct memcube_txn *txn,
    const uint8_t fingerprint[32], struct memos_bytes name, size_t dims,
    struct retrieval_vec_encoder *out, bool *out_first, struct memos_error *err)
{
    struct retrieval_vec_encoder *encoders = calloc(ENCODERS_MAX, sizeof *encoders);
    size_t count = 0;
    uint32_t last = 0;

    if (!encoders) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a list of encoders");
    }
    *out = (struct retrieval_vec_encoder){.dims = dims,
        .codes = vectors->codes,
        .code_bytes = retrieval_code_bytes(vectors->codes, dims)};
    memcpy(out->fingerprint, fingerprint, sizeof out->fingerprint);
    enum memos_status status = retrieval_vec_encoder_list(
        &vectors->tables, txn, encoders, ENCODERS_MAX, &count, &last, err);
    for (size_t i = 0; status == MEMOS_OK && i < count; i++) {
        if (memcmp(encoders[i].fingerprint, fingerprint, 32) == 0 &&
            encoders[i].codes == out->codes) {
            out->number = encoders[i].number;
        }
    }
    free(encoders);
    *out_first = last == 0;
    if (status == MEMOS_OK && out->number == 0) {
        if (count == ENCODERS_MAX) {
            return memos_fail(
                err, MEMOS_TOO_LARGE, "a store knows %d encoders at most", ENCODERS_MAX);
        }
        out->number = last + 1;
        status = retrieval_vec_encoder_put(&vectors->tables, txn, out, name, err);
    }
    return status;
}

enum memos_status retrieval_vectors_activate(struct retrieval_vectors *vectors,
    struct memcube_write *write, const uint8_t fingerprint[32], struct memos_bytes name,
    size_t dims, struct memos_error *err)
{
    struct memcube_read *read = memcube_write_read(write);
    struct memcube_txn *txn = memcube_read_txn(read);
    struct retrieval_vec_encoder encoder, active;
    bool first = false;
    uint64_t turns;

    if (dims == 0 || dims > RETRIEVAL_DIMS_MAX) {
        return memos_fail(
            err, MEMOS_INVALID, "an encoder has 1 to %d dims, not %zu", RETRIEVAL_DIMS_MAX, dims);
    }
    enum memos_status status = retrieval_vec_offers_know(&vectors->offers, fingerprint, dims, err);
    if (status == MEMOS_OK) {
        status = retrieval_vec_active_get(&vectors->tables, txn, &active, &turns, err);
    }
    if (status == MEMOS_OK) {
        status = encoder_find(vectors, txn, fingerprint, name, dims, &encoder, &first, err);
    }
    if (status == MEMOS_OK && encoder.number != active.number) {
        status = retrieval_vec_active_put(&vectors->tables, txn, encoder.number, turns + 1, err);
    }
    /* A store from before it had vectors. */
    return status == MEMOS_OK && first ? all_due(&vectors->tables, read, err) : status;
}
