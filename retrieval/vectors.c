#include "retrieval/vectors.h"

#include "retrieval/vectors_due.h"
#include "retrieval/vectors_table.h"

#include <sodium.h>
#include <stdlib.h>

#define CACHE_BYTES_DEFAULT (UINT64_C(1) << 30)
#define OFFERS_BYTES_DEFAULT (UINT64_C(64) << 20)
#define EXACT_ROWS_DEFAULT 50000u
#define SPANS_BYTES_MAX ((size_t)8 << 20) /* of a doc's text while it is cut */
#define ENCODERS_MAX 256

/* ---- what a doc has ------------------------------------------------------------------------- */

enum memos_status retrieval_vec_active_is(struct retrieval_vectors *vectors,
    struct memcube_txn *txn, const uint8_t fingerprint[32], struct retrieval_vec_encoder *out,
    struct memos_error *err)
{
    enum memos_status status = retrieval_vec_active_get(&vectors->tables, txn, out, NULL, err);
    if (status == MEMOS_OK && memcmp(out->fingerprint, fingerprint, sizeof out->fingerprint) != 0) {
        out->number = 0;
    }
    return status;
}

enum memos_status retrieval_vec_doc_load(struct retrieval_vectors *vectors,
    struct memcube_read *read, uint32_t space, uint32_t doc,
    const struct retrieval_vec_encoder *encoder, const uint8_t *key,
    struct retrieval_vec_codes *out, bool *out_other, struct memos_error *err)
{
    uint8_t doc_key[RETRIEVAL_DOC_KEY_BYTES], room[MEMCUBE_DOC_KEY_BYTES];
    struct retrieval_vec_entry entry = {.encoder = 0};
    struct memos_bytes value;

    enum memos_status status = memcube_get(memcube_read_txn(read), vectors->tables.doc,
        retrieval_doc_key(doc_key, space, doc), &value, err);
    if (status != MEMOS_OK) {
        return status;
    }
    status = retrieval_vec_entry_view(value, &entry, err);
    if (status == MEMOS_OK && entry.encoder != encoder->number) {
        if (out_other) {
            *out_other = true;
        }
        return MEMOS_NOT_FOUND;
    }
    if (status == MEMOS_OK && !key) {
        status = memcube_doc_key(read, space, doc, room, err);
        key = room;
        if (status == MEMOS_FORGOTTEN) {
            return MEMOS_NOT_FOUND;
        }
    }
    if (status == MEMOS_OK) {
        status = retrieval_vec_entry_open(&entry, encoder, key, out, err);
    }
    if (status == MEMOS_CORRUPT) { /* the doc is found by its words; fsck says more */
        (void)atomic_fetch_add_explicit(&vectors->damaged, 1, memory_order_relaxed);
        status = MEMOS_NOT_FOUND;
    }
    return status;
}

enum memos_status retrieval_vectors_get(struct retrieval_vectors *vectors,
    struct memcube_read *read, const struct memcube_space *space, const uint8_t fingerprint[32],
    uint32_t doc, float *out, size_t spans_max, size_t *out_spans, struct memos_error *err)
{
    struct retrieval_vec_codes codes = {.spans = 0};
    struct retrieval_vec_encoder encoder;

    *out_spans = 0;
    enum memos_status status =
        retrieval_vec_active_is(vectors, memcube_read_txn(read), fingerprint, &encoder, err);
    if (status == MEMOS_OK) {
        status = encoder.number == 0 ? MEMOS_NOT_FOUND
                                     : retrieval_vec_doc_load(vectors, read, space->number, doc,
                                           &encoder, NULL, &codes, NULL, err);
    }
    for (size_t i = 0; status == MEMOS_OK && i < codes.spans && i < spans_max; i++) {
        retrieval_code_decode(encoder.codes, codes.codes + i * encoder.code_bytes, codes.scales[i],
            encoder.dims, out + i * encoder.dims);
        ++*out_spans;
    }
    retrieval_vec_codes_finish(&codes);
    return status == MEMOS_NOT_FOUND
               ? memos_fail(err, MEMOS_NOT_FOUND, "doc %u has no vectors of this encoder", doc)
               : status;
}

/* ---- the index ----------------------------------------------------------------------------- */

static enum memos_status tables_open(
    struct memcube_db *db, struct retrieval_vec_tables *out, struct memos_error *err)
{
    struct retrieval_vec_tables tables;
    const struct {
        const char *name;
        memcube_table *table;
    } all[] = {
        {"vec.doc", &tables.doc},
        {"vec.encoder", &tables.encoder},
        {"vec.due", &tables.due},
        {"vec.meta", &tables.meta},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        enum memos_status status =
            memcube_db_table(db, all[i].name, MEMCUBE_TABLE_MAP, all[i].table, err);
        if (status != MEMOS_OK) {
            return status;
        }
    }
    *out = tables;
    return MEMOS_OK;
}

/* Offers may come for any encoder that the store knows. */
static enum memos_status encoders_know(
    struct retrieval_vectors *vectors, struct memcube_db *db, struct memos_error *err)
{
    struct retrieval_vec_encoder *encoders = calloc(ENCODERS_MAX, sizeof *encoders);
    struct memcube_txn *txn = NULL;
    size_t count = 0;
    uint32_t last;

    if (!encoders) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a list of encoders");
    }
    enum memos_status status = memcube_txn_read(db, &txn, err);
    if (status == MEMOS_OK) {
        status = retrieval_vec_encoder_list(
            &vectors->tables, txn, encoders, ENCODERS_MAX, &count, &last, err);
    }
    memcube_txn_abort(&txn);
    for (size_t i = 0; status == MEMOS_OK && i < count; i++) {
        status = retrieval_vec_offers_know(
            &vectors->offers, encoders[i].fingerprint, encoders[i].dims, err);
    }
    free(encoders);
    return status;
}

static enum memos_status index_open(void *self, struct memcube_db *db, struct memos_error *err)
{
    struct retrieval_vectors *vectors = self;
    enum memos_status status = tables_open(db, &vectors->tables, err);
    return status == MEMOS_OK ? encoders_know(vectors, db, err) : status;
}

static enum memos_status spans_of(const struct memcube_index_doc *doc, struct memos_arena *arena,
    struct retrieval_spans *out, struct memos_error *err)
{
    return retrieval_spans_make(
        doc->version->kind, &doc->version->description, doc->text, arena, out, err);
}

static enum memos_status index_add(void *self, struct memcube_txn *txn,
    const struct memcube_index_doc *doc, struct memos_error *err)
{
    struct retrieval_vectors *vectors = self;
    const struct retrieval_vec_tables *tables = &vectors->tables;
    struct retrieval_vec_encoder active = {.number = 0};
    struct retrieval_spans spans = {.count = 0};
    struct memos_arena arena;
    float *values = NULL;
    uint8_t hash[16];

    memos_arena_init(&arena, SPANS_BYTES_MAX);
    enum memos_status status = spans_of(doc, &arena, &spans, err);
    if (status == MEMOS_OK && spans.count > 0) {
        status = retrieval_vec_active_get(tables, txn, &active, NULL, err);
    }
    if (status == MEMOS_OK && active.number != 0) {
        values = retrieval_vec_offers_take(&vectors->offers, &active, &spans);
    }
    if (status == MEMOS_OK && values) {
        status = retrieval_vec_entry_put(tables, txn, doc->space, doc->doc, &active, doc->key,
            spans.hash, values, spans.count, err);
        if (status == MEMOS_OK) {
            status = retrieval_vec_count_add(tables, txn, active.number, 1, err);
        }
    } else if (status == MEMOS_OK && spans.count > 0) {
        retrieval_vec_text_hash(doc->key, spans.hash, hash);
        status = retrieval_vec_due_put(tables, txn, doc->space, doc->doc, hash, err);
    }
    free(values);
    memos_arena_finish(&arena);
    return status;
}

static enum memos_status index_erase(
    void *self, struct memcube_txn *txn, uint32_t space, uint32_t doc, struct memos_error *err)
{
    struct retrieval_vectors *vectors = self;
    const struct retrieval_vec_tables *tables = &vectors->tables;
    uint8_t key_bytes[RETRIEVAL_DOC_KEY_BYTES];
    const struct memos_bytes key = retrieval_doc_key(key_bytes, space, doc);
    struct retrieval_vec_entry entry = {.encoder = 0};
    struct memos_bytes value;

    enum memos_status status = memcube_get(txn, tables->doc, key, &value, err);
    if (status == MEMOS_OK) {
        const bool whole = retrieval_vec_entry_view(value, &entry, NULL) == MEMOS_OK;
        status = memcube_delete(txn, tables->doc, key, memos_bytes_make(NULL, 0), err);
        if (status == MEMOS_OK && whole) {
            status = retrieval_vec_count_add(tables, txn, entry.encoder, -1, err);
        }
    }
    if (status == MEMOS_OK || status == MEMOS_NOT_FOUND) {
        status = retrieval_vec_due_remove(tables, txn, space, doc, err);
    }
    /* Also without an entry: a repair adds one where a search has seen that there is none. */
    if (status == MEMOS_OK) {
        status = retrieval_vec_change_make(&vectors->changes, tables, txn, space, doc, true, err);
    }
    return status == MEMOS_OK && vectors->files
               ? retrieval_vec_file_erase(vectors->files, space, err)
               : status;
}

/* Is this the entry of that text, in the form that its encoder gives entries? */
static enum memos_status entry_check(struct retrieval_vectors *vectors, struct memcube_txn *txn,
    const struct memcube_index_doc *doc, const struct retrieval_spans *spans,
    struct memos_bytes value, struct memos_error *err)
{
    struct retrieval_vec_codes codes = {.spans = 0};
    struct retrieval_vec_encoder encoder;
    struct retrieval_vec_entry entry;
    uint8_t hash[16];

    enum memos_status status = retrieval_vec_entry_view(value, &entry, err);
    if (status == MEMOS_OK) {
        status = retrieval_vec_encoder_get(&vectors->tables, txn, entry.encoder, &encoder, err);
        if (status == MEMOS_NOT_FOUND) {
            status = memos_fail(err, MEMOS_CORRUPT,
                "vector index: doc %u of space %u is of encoder %u, which is not known", doc->doc,
                doc->space, entry.encoder);
        }
    }
    retrieval_vec_text_hash(doc->key, spans->hash, hash);
    if (status == MEMOS_OK &&
        (entry.spans != spans->count || memcmp(hash, entry.hash, sizeof hash) != 0)) {
        status = memos_fail(err, MEMOS_CORRUPT,
            "vector index: doc %u of space %u does not have the vectors of its text", doc->doc,
            doc->space);
    }
    if (status == MEMOS_OK) {
        status = retrieval_vec_entry_open(&entry, &encoder, doc->key, &codes, err);
    }
    retrieval_vec_codes_finish(&codes);
    return status;
}

static enum memos_status index_check(void *self, struct memcube_txn *txn,
    const struct memcube_index_doc *doc, struct memos_error *err)
{
    struct retrieval_vectors *vectors = self;
    uint8_t key_bytes[RETRIEVAL_DOC_KEY_BYTES];
    const struct memos_bytes key = retrieval_doc_key(key_bytes, doc->space, doc->doc);
    struct memos_bytes value, due;
    struct retrieval_spans spans;
    struct memos_arena arena;

    memos_arena_init(&arena, SPANS_BYTES_MAX);
    enum memos_status status = spans_of(doc, &arena, &spans, err);
    if (status == MEMOS_OK) {
        status = memcube_get(txn, vectors->tables.doc, key, &value, err);
        if (status == MEMOS_OK) {
            status = entry_check(vectors, txn, doc, &spans, value, err);
        } else if (status == MEMOS_NOT_FOUND) {
            status = memcube_get(txn, vectors->tables.due, key, &due, err);
            if (status == MEMOS_NOT_FOUND && spans.count == 0) {
                status = MEMOS_OK;
            } else if (status == MEMOS_NOT_FOUND) {
                status = memos_fail(err, MEMOS_CORRUPT,
                    "vector index: doc %u of space %u has no entry and is not to be done", doc->doc,
                    doc->space);
            }
        }
    }
    memos_arena_finish(&arena);
    return status;
}

/* ---- the whole ----------------------------------------------------------------------------- */

static enum memos_status options_take(struct retrieval_vectors *vectors,
    const struct retrieval_vectors_options *options, struct memos_error *err)
{
    static const struct retrieval_vectors_options none;
    const struct retrieval_vectors_options *o = options ? options : &none;

    vectors->codes = o->codes ? o->codes : KERN_E4M3;
    vectors->cache_bytes_max = o->cache_bytes_max ? o->cache_bytes_max : CACHE_BYTES_DEFAULT;
    vectors->exact_rows_max = o->exact_rows_max ? o->exact_rows_max : EXACT_ROWS_DEFAULT;
    vectors->ann_type = o->ann;
    if (vectors->codes < KERN_F32 || vectors->codes > KERN_I8) {
        return memos_fail(err, MEMOS_INVALID, "there are no codes of type %d", (int)o->codes);
    }
    enum memos_status status = retrieval_vec_offers_init(
        &vectors->offers, o->offers_bytes_max ? o->offers_bytes_max : OFFERS_BYTES_DEFAULT, err);
    return status == MEMOS_OK && o->folder
               ? retrieval_vec_files_open(o->folder, &vectors->files, err)
               : status;
}

enum memos_status retrieval_vectors_create(const struct retrieval_vectors_options *options,
    struct retrieval_vectors **out_vectors, struct memos_error *err)
{
    if (sodium_init() < 0) {
        return memos_fail(err, MEMOS_INTERNAL, "libsodium does not start");
    }
    struct retrieval_vectors *vectors = calloc(1, sizeof *vectors);
    if (!vectors) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for the vector index");
    }
    (void)pthread_mutex_init(&vectors->lock, NULL);
    retrieval_vec_changes_init(&vectors->changes);
    enum memos_status status = options_take(vectors, options, err);
    if (status != MEMOS_OK) {
        retrieval_vectors_destroy(&vectors);
        return status;
    }
    vectors->index = (struct memcube_index){
        .name = "vec",
        .self = vectors,
        .open = index_open,
        .add = index_add,
        .erase = index_erase,
        .check = index_check,
    };
    *out_vectors = vectors;
    return MEMOS_OK;
}

void retrieval_vectors_destroy(struct retrieval_vectors **vectors_in)
{
    struct retrieval_vectors *vectors = *vectors_in;
    *vectors_in = NULL;
    if (!vectors) {
        return;
    }
    retrieval_vec_tables_drop(vectors);
    retrieval_vec_files_close(&vectors->files);
    retrieval_vec_changes_finish(&vectors->changes);
    retrieval_vec_offers_finish(&vectors->offers);
    (void)pthread_mutex_destroy(&vectors->lock);
    free(vectors);
}

struct memcube_index *retrieval_vectors_index(struct retrieval_vectors *vectors)
{
    return &vectors->index;
}

static uint64_t counted(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void retrieval_vectors_stats(struct retrieval_vectors *vectors, struct retrieval_vectors_stats *out)
{
    struct retrieval_vec_offers *offers = &vectors->offers;

    *out = (struct retrieval_vectors_stats){
        .ann_built = counted(&vectors->ann_built),
        .ann_loaded = counted(&vectors->ann_loaded),
        .ann_searches = counted(&vectors->ann_searches),
        .loads = counted(&vectors->loads),
        .streamed = counted(&vectors->streamed),
        .damaged = counted(&vectors->damaged),
    };
    (void)pthread_mutex_lock(&vectors->lock);
    for (struct retrieval_vec_table *table = vectors->list; table; table = table->next) {
        const uint64_t ann_bytes = retrieval_vec_ann_bytes(table);
        out->tables++;
        out->table_bytes += counted(&table->bytes);
        out->rows += counted(&table->rows) - counted(&table->rows_gone);
        out->ann_indexes += ann_bytes > 0;
        out->ann_bytes += ann_bytes;
    }
    (void)pthread_mutex_unlock(&vectors->lock);
    (void)pthread_mutex_lock(&offers->lock);
    out->offers = offers->fresh.count;
    out->offers_bytes = offers->fresh.bytes + offers->used.bytes;
    out->offers_dropped = offers->dropped;
    (void)pthread_mutex_unlock(&offers->lock);
}
