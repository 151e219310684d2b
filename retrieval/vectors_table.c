#include "retrieval/vectors_table.h"

#include <sodium.h>
#include <stdlib.h>

#define KEYS_A_TIME 128u

/* ---- memory -------------------------------------------------------------------------------- */

static enum memos_status no_room(struct memos_error *err)
{
    return memos_fail(err, MEMOS_NO_MEMORY, "no room for a table of vectors in memory");
}

static enum memos_status directory_append(
    struct retrieval_vec_directory *directory, void *item, struct memos_error *err)
{
    if (directory->count == directory->max) {
        const size_t most = directory->max ? directory->max * 2 : 8;
        void **slots = calloc(most, sizeof *slots);
        void **before = atomic_load_explicit(&directory->slots, memory_order_relaxed);
        if (!slots || directory->old_count == sizeof directory->old / sizeof directory->old[0]) {
            free(slots);
            return no_room(err);
        }
        if (before) {
            memcpy(slots, before, directory->count * sizeof *slots);
            directory->old[directory->old_count++] = before; /* somebody may be reading it */
        }
        atomic_store_explicit(&directory->slots, slots, memory_order_release);
        directory->max = most;
    }
    atomic_load_explicit(&directory->slots, memory_order_relaxed)[directory->count++] = item;
    return MEMOS_OK;
}

/* Free the pointers' arrays; the items are the caller's. */
static void directory_finish(struct retrieval_vec_directory *directory)
{
    for (size_t i = 0; i < directory->old_count; i++) {
        free(directory->old[i]);
    }
    free(atomic_load_explicit(&directory->slots, memory_order_relaxed));
    atomic_store_explicit(&directory->slots, NULL, memory_order_relaxed);
    directory->count = directory->max = directory->old_count = 0;
}

static void block_free(struct retrieval_vec_block *block)
{
    if (block) {
        free(block->codes);
        free(block);
    }
}

/* Free what the table holds. Nobody reads it. */
static void content_free(struct retrieval_vectors *vectors, struct retrieval_vec_table *table)
{
    void **blocks = atomic_load_explicit(&table->blocks.slots, memory_order_relaxed);
    void **docs = atomic_load_explicit(&table->docs.slots, memory_order_relaxed);

    for (size_t i = 0; i < table->blocks.count; i++) {
        block_free(blocks[i]);
    }
    for (size_t i = 0; i < table->docs.count; i++) {
        free(docs[i]);
    }
    directory_finish(&table->blocks);
    directory_finish(&table->docs);
    (void)retrieval_vec_ann_drop(vectors, table);
    const uint64_t bytes = atomic_exchange_explicit(&table->bytes, 0, memory_order_relaxed);
    (void)atomic_fetch_sub_explicit(&vectors->bytes, bytes, memory_order_relaxed);
    atomic_store_explicit(&table->rows, 0, memory_order_relaxed);
    atomic_store_explicit(&table->docs_through, 0, memory_order_relaxed);
    atomic_store_explicit(&table->rows_gone, 0, memory_order_relaxed);
    table->epoch++;
    table->begun = false;
    (void)pthread_mutex_lock(&table->ann_lock);
    table->plan = (struct retrieval_vec_ann_plan){.load_tried = false};
    (void)pthread_mutex_unlock(&table->ann_lock);
}

static void table_free(struct retrieval_vectors *vectors, struct retrieval_vec_table *table)
{
    content_free(vectors, table);
    (void)pthread_mutex_destroy(&table->updating);
    (void)pthread_mutex_destroy(&table->ann_lock);
    (void)pthread_rwlock_destroy(&table->scanning);
    free(table);
}

/* Take the least lately used table that nobody uses out of the list; NULL when there is none. */
static struct retrieval_vec_table *least_used(struct retrieval_vectors *vectors)
{
    struct retrieval_vec_table **least = NULL;

    (void)pthread_mutex_lock(&vectors->lock);
    for (struct retrieval_vec_table **at = &vectors->list; *at; at = &(*at)->next) {
        if ((*at)->pins == 0 && (!least || (*at)->used < (*least)->used)) {
            least = at;
        }
    }
    struct retrieval_vec_table *table = least ? *least : NULL;
    if (table) {
        *least = table->next;
    }
    (void)pthread_mutex_unlock(&vectors->lock);
    return table;
}

bool retrieval_vec_bytes_take(struct retrieval_vectors *vectors, uint64_t bytes)
{
    while (atomic_load_explicit(&vectors->bytes, memory_order_relaxed) + bytes >
           vectors->cache_bytes_max) {
        struct retrieval_vec_table *other = least_used(vectors);
        if (!other) {
            return false;
        }
        table_free(vectors, other);
    }
    (void)atomic_fetch_add_explicit(&vectors->bytes, bytes, memory_order_relaxed);
    return true;
}

/* The same for a table; its own approximate index is the last that goes for it. */
static enum memos_status bytes_take(struct retrieval_vectors *vectors,
    struct retrieval_vec_table *table, uint64_t bytes, struct memos_error *err)
{
    const uint64_t own = atomic_load_explicit(&table->bytes, memory_order_relaxed);
    if (own + bytes > vectors->cache_bytes_max) {
        table->refused = true;
        return no_room(err);
    }
    while (!retrieval_vec_bytes_take(vectors, bytes)) {
        if (!retrieval_vec_ann_drop(vectors, table)) {
            return no_room(err);
        }
    }
    (void)atomic_fetch_add_explicit(&table->bytes, bytes, memory_order_relaxed);
    return MEMOS_OK;
}

/* ---- rows ---------------------------------------------------------------------------------- */

static uint8_t *codes_alloc(const struct retrieval_vec_table *table, size_t rows)
{
    /* aligned_alloc wants whole multiples. */
    return aligned_alloc(64, (rows * table->encoder.code_bytes + 63) / 64 * 64);
}

static enum memos_status block_append(
    struct retrieval_vectors *vectors, struct retrieval_vec_table *table, struct memos_error *err)
{
    const size_t rows =
        table->blocks.count == 0 ? RETRIEVAL_VEC_FIRST_ROWS : RETRIEVAL_VEC_BLOCK_ROWS;
    struct retrieval_vec_block *block = NULL;

    enum memos_status status =
        bytes_take(vectors, table, sizeof *block + rows * table->encoder.code_bytes, err);
    if (status != MEMOS_OK) {
        return status;
    }
    block = calloc(1, sizeof *block);
    if (block) {
        block->codes = codes_alloc(table, rows);
        block->rows_max = rows;
    }
    status = block && block->codes ? directory_append(&table->blocks, block, err) : no_room(err);
    if (status != MEMOS_OK) {
        block_free(block);
    }
    return status;
}

/* The first block becomes larger, by copying. */
static enum memos_status block_grow(struct retrieval_vectors *vectors,
    struct retrieval_vec_table *table, struct retrieval_vec_block *block, struct memos_error *err)
{
    const size_t rows = block->rows_max * 4;

    memos_assert(rows <= RETRIEVAL_VEC_BLOCK_ROWS);
    enum memos_status status =
        bytes_take(vectors, table, (rows - block->rows_max) * table->encoder.code_bytes, err);
    if (status != MEMOS_OK) {
        return status;
    }
    uint8_t *codes = codes_alloc(table, rows);
    if (!codes) {
        return no_room(err);
    }
    (void)pthread_rwlock_wrlock(&table->scanning);
    memcpy(codes, block->codes, block->rows_max * table->encoder.code_bytes);
    free(block->codes);
    block->codes = codes;
    block->rows_max = rows;
    (void)pthread_rwlock_unlock(&table->scanning);
    return MEMOS_OK;
}

/* Where the next `count` rows go: in one block. */
static enum memos_status rows_take(struct retrieval_vectors *vectors,
    struct retrieval_vec_table *table, size_t count, uint64_t *out_row, struct memos_error *err)
{
    uint64_t row = atomic_load_explicit(&table->rows, memory_order_relaxed);
    const size_t left = RETRIEVAL_VEC_BLOCK_ROWS - row % RETRIEVAL_VEC_BLOCK_ROWS;
    enum memos_status status = MEMOS_OK;

    if (count > left) { /* these stay empty */
        struct retrieval_vec_block *block = retrieval_vec_block_at(table, row);
        const size_t bytes = table->encoder.code_bytes;
        memset(block->codes + (row % RETRIEVAL_VEC_BLOCK_ROWS) * bytes, 0, left * bytes);
        row += left;
    }
    if (row + count > UINT32_MAX) {
        return memos_fail(err, MEMOS_TOO_LARGE, "a table of vectors has no more numbers for rows");
    }
    if (row / RETRIEVAL_VEC_BLOCK_ROWS == table->blocks.count) {
        status = block_append(vectors, table, err);
    }
    if (status == MEMOS_OK) {
        struct retrieval_vec_block *block = retrieval_vec_block_at(table, row);
        while (status == MEMOS_OK && row % RETRIEVAL_VEC_BLOCK_ROWS + count > block->rows_max) {
            status = block_grow(vectors, table, block, err);
        }
    }
    *out_row = row;
    return status;
}

static enum memos_status doc_append(struct retrieval_vectors *vectors,
    struct retrieval_vec_table *table, uint32_t doc, const struct retrieval_vec_codes *codes,
    struct memos_error *err)
{
    const size_t bytes = table->encoder.code_bytes;
    const size_t in = doc % RETRIEVAL_VEC_BLOCK_DOCS;
    void **slots = atomic_load_explicit(&table->docs.slots, memory_order_relaxed);
    struct retrieval_vec_docs *docs = slots[doc / RETRIEVAL_VEC_BLOCK_DOCS];
    uint64_t row = 0;

    if (atomic_load_explicit(&docs->first[in], memory_order_relaxed) != 0) {
        return MEMOS_OK; /* from an update that failed behind it */
    }
    enum memos_status status = rows_take(vectors, table, codes->spans, &row, err);
    if (status != MEMOS_OK) {
        return status;
    }
    struct retrieval_vec_block *block = retrieval_vec_block_at(table, row);
    const size_t at = row % RETRIEVAL_VEC_BLOCK_ROWS;
    memcpy(block->codes + at * bytes, codes->codes, codes->spans * bytes);
    memcpy(block->scales + at, codes->scales, codes->spans * sizeof *codes->scales);
    for (size_t i = 0; i < codes->spans; i++) {
        block->docs[at + i] = doc;
    }
    atomic_store_explicit(&table->rows, row + codes->spans, memory_order_release);
    atomic_store_explicit(&docs->first[in], (uint32_t)row + 1, memory_order_release);
    (void)atomic_fetch_or_explicit(
        &docs->have[in / 64], UINT64_C(1) << (in % 64), memory_order_release);
    return MEMOS_OK;
}

/* Take a doc's rows away, if it has any, and leave nothing of them in memory. */
static void doc_remove(struct retrieval_vec_table *table, uint32_t doc)
{
    const size_t in = doc % RETRIEVAL_VEC_BLOCK_DOCS;
    uint64_t row;

    if (!retrieval_vec_row_of(table, doc, &row)) {
        return;
    }
    struct retrieval_vec_docs *docs = retrieval_vec_docs_at(table, doc);
    struct retrieval_vec_block *block = retrieval_vec_block_at(table, row);
    const size_t at = row % RETRIEVAL_VEC_BLOCK_ROWS;
    (void)pthread_rwlock_wrlock(&table->scanning);
    const size_t spans = retrieval_vec_spans_at(table, row);
    sodium_memzero(
        block->codes + at * table->encoder.code_bytes, spans * table->encoder.code_bytes);
    memset(block->scales + at, 0, spans * sizeof *block->scales);
    memset(block->docs + at, 0, spans * sizeof *block->docs);
    atomic_store_explicit(&docs->first[in], 0, memory_order_release);
    (void)atomic_fetch_and_explicit(
        &docs->have[in / 64], ~(UINT64_C(1) << (in % 64)), memory_order_release);
    (void)pthread_rwlock_unlock(&table->scanning);
    (void)atomic_fetch_add_explicit(&table->rows_gone, spans, memory_order_relaxed);
}

/* ---- bringing it up to date ----------------------------------------------------------------- */

/* Room for what is kept by doc, up to this one. */
static enum memos_status docs_reserve(struct retrieval_vectors *vectors,
    struct retrieval_vec_table *table, uint32_t doc, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    while (status == MEMOS_OK && doc / RETRIEVAL_VEC_BLOCK_DOCS >= table->docs.count) {
        struct retrieval_vec_docs *docs = NULL;
        status = bytes_take(vectors, table, sizeof *docs, err);
        if (status == MEMOS_OK) {
            docs = calloc(1, sizeof *docs);
            status = docs ? directory_append(&table->docs, docs, err) : no_room(err);
        }
        if (status != MEMOS_OK) {
            free(docs);
        }
    }
    return status;
}

/* Docs that came since: after docs_through, up to the snapshot's last. */
static enum memos_status docs_load(struct retrieval_vectors *vectors,
    struct retrieval_vec_table *table, struct memcube_read *read, uint32_t last,
    struct retrieval_vec_codes *codes, struct memos_error *err)
{
    struct memcube_doc_key keys[KEYS_A_TIME];
    uint32_t through = atomic_load_explicit(&table->docs_through, memory_order_relaxed);
    enum memos_status status = docs_reserve(vectors, table, last, err);

    while (status == MEMOS_OK && through < last) {
        size_t count = 0;
        status = memcube_doc_keys(read, table->space, through + 1, keys, KEYS_A_TIME, &count, err);
        for (size_t i = 0; status == MEMOS_OK && i < count && keys[i].doc <= last; i++) {
            status = retrieval_vec_doc_load(vectors, read, table->space, keys[i].doc,
                &table->encoder, keys[i].key, codes, NULL, err);
            if (status == MEMOS_OK) {
                status = doc_append(vectors, table, keys[i].doc, codes, err);
            }
            status = status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
        }
        if (status == MEMOS_OK) {
            through =
                count == KEYS_A_TIME && keys[count - 1].doc < last ? keys[count - 1].doc : last;
            atomic_store_explicit(&table->docs_through, through, memory_order_release);
        }
    }
    sodium_memzero(keys, sizeof keys);
    return status;
}

/* Make the rows of a doc what the snapshot says. */
static enum memos_status doc_renew(struct retrieval_vectors *vectors,
    struct retrieval_vec_table *table, struct memcube_read *read, uint32_t doc, uint64_t change,
    struct retrieval_vec_codes *codes, struct memos_error *err)
{
    bool other = false;
    uint64_t row;

    if (doc > atomic_load_explicit(&table->docs_through, memory_order_relaxed)) {
        return MEMOS_OK; /* of a write that was not committed */
    }
    const bool has = retrieval_vec_row_of(table, doc, &row);
    enum memos_status status = retrieval_vec_doc_load(
        vectors, read, table->space, doc, &table->encoder, NULL, codes, &other, err);
    if (status == MEMOS_OK && !has) {
        return doc_append(vectors, table, doc, codes, err);
    }
    if (status == MEMOS_NOT_FOUND && has) {
        if (other) { /* an older snapshot still has this encoder's entry */
            atomic_store_explicit(&table->replaced, change, memory_order_release);
        }
        doc_remove(table, doc);
    }
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

static enum memos_status changes_apply(struct retrieval_vectors *vectors,
    struct retrieval_vec_table *table, struct memcube_read *read, uint64_t change,
    struct retrieval_vec_codes *codes, bool *out_known, struct memos_error *err)
{
    const uint64_t after = atomic_load_explicit(&table->change, memory_order_relaxed);
    enum memos_status status = MEMOS_OK;
    uint32_t *docs = NULL;
    size_t count = 0;

    *out_known = true;
    if (change <= after) {
        return MEMOS_OK;
    }
    retrieval_vec_changes_between(
        &vectors->changes, table->space, after, change, &docs, &count, out_known);
    for (size_t i = 0; status == MEMOS_OK && *out_known && i < count; i++) {
        status = doc_renew(vectors, table, read, docs[i], change, codes, err);
    }
    free(docs);
    if (status == MEMOS_OK && *out_known) {
        atomic_store_explicit(&table->change, change, memory_order_release);
    }
    return status;
}

static void table_clear(struct retrieval_vectors *vectors, struct retrieval_vec_table *table)
{
    (void)pthread_rwlock_wrlock(&table->scanning);
    content_free(vectors, table);
    (void)pthread_rwlock_unlock(&table->scanning);
}

/* Under updating. NO_MEMORY: there is no room for it. */
static enum memos_status table_update(struct retrieval_vectors *vectors,
    struct retrieval_vec_table *table, struct memcube_read *read, uint32_t last, uint64_t change,
    struct memos_error *err)
{
    struct retrieval_vec_codes codes = {.spans = 0};
    enum memos_status status = MEMOS_OK;
    bool known = false;

    if (table->refused) {
        return no_room(err);
    }
    if (table->begun && change < atomic_load_explicit(&table->change, memory_order_relaxed)) {
        return MEMOS_OK; /* an older snapshot, that must not bring docs as they were */
    }
    while (status == MEMOS_OK && !known) {
        if (!table->begun) {
            table->begun = true;
            atomic_store_explicit(&table->change, change, memory_order_relaxed);
            (void)atomic_fetch_add_explicit(&vectors->loads, 1, memory_order_relaxed);
        }
        status = docs_load(vectors, table, read, last, &codes, err);
        if (status == MEMOS_OK) {
            status = changes_apply(vectors, table, read, change, &codes, &known, err);
        }
        if (status == MEMOS_OK && !known) {
            table_clear(vectors, table); /* more changed than is remembered: from the beginning */
        }
    }
    retrieval_vec_codes_finish(&codes);
    if (status == MEMOS_NO_MEMORY) {
        table_clear(vectors, table);
    }
    return status;
}

/* ---- taking and giving ---------------------------------------------------------------------- */

static struct retrieval_vec_table *table_make(
    const struct memcube_space *space, const struct retrieval_vec_encoder *encoder)
{
    struct retrieval_vec_table *table = calloc(1, sizeof *table);
    pthread_rwlockattr_t attributes;

    if (!table) {
        return NULL;
    }
    table->space = space->number;
    table->space_id = space->id;
    table->encoder = *encoder;
    (void)pthread_mutex_init(&table->updating, NULL);
    (void)pthread_mutex_init(&table->ann_lock, NULL);
    /* Many searches must not keep a forget out for ever. No search takes it twice. */
    (void)pthread_rwlockattr_init(&attributes);
    (void)pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    (void)pthread_rwlock_init(&table->scanning, &attributes);
    (void)pthread_rwlockattr_destroy(&attributes);
    return table;
}

/* Find it, or make it when `make`; pin it. */
static struct retrieval_vec_table *table_pin(struct retrieval_vectors *vectors,
    const struct memcube_space *space, const struct retrieval_vec_encoder *encoder, bool make)
{
    (void)pthread_mutex_lock(&vectors->lock);
    struct retrieval_vec_table *table = vectors->list;
    while (table && (table->space != space->number || table->encoder.number != encoder->number)) {
        table = table->next;
    }
    if (!table && make) {
        table = table_make(space, encoder);
        if (table) {
            table->next = vectors->list;
            vectors->list = table;
        }
    }
    if (table) {
        table->pins++;
        table->used = ++vectors->uses;
    }
    (void)pthread_mutex_unlock(&vectors->lock);
    return table;
}

void retrieval_vec_table_unpin(struct retrieval_vectors *vectors, struct retrieval_vec_table *table)
{
    (void)pthread_mutex_lock(&vectors->lock);
    memos_assert(table->pins > 0);
    table->pins--;
    (void)pthread_mutex_unlock(&vectors->lock);
}

void retrieval_vec_table_give(struct retrieval_vectors *vectors, struct retrieval_vec_table *table)
{
    (void)pthread_rwlock_unlock(&table->scanning);
    retrieval_vec_table_unpin(vectors, table);
}

static bool is_current(const struct retrieval_vec_table *table, uint32_t last, uint64_t change)
{
    return atomic_load_explicit(&table->docs_through, memory_order_acquire) >= last &&
           atomic_load_explicit(&table->change, memory_order_acquire) >= change;
}

/* Can the codes of this many docs have room at all? */
static enum memos_status is_too_large(struct retrieval_vectors *vectors, struct memcube_txn *txn,
    const struct memcube_space *space, const struct retrieval_vec_encoder *encoder, bool *out,
    struct memos_error *err)
{
    uint64_t entries;
    enum memos_status status =
        retrieval_vec_count_get(&vectors->tables, txn, encoder->number, &entries, err);
    if (status == MEMOS_OK) {
        entries = entries < space->docs ? entries : space->docs;
        *out = entries * encoder->code_bytes > vectors->cache_bytes_max;
    }
    return status;
}

enum memos_status retrieval_vec_table_take(struct retrieval_vectors *vectors,
    struct memcube_read *read, const struct memcube_space *space,
    const struct retrieval_vec_encoder *encoder, bool load, struct retrieval_vec_table **out_table,
    struct memos_error *err)
{
    struct memcube_txn *txn = memcube_read_txn(read);
    bool too_large = false;
    uint64_t change;

    *out_table = NULL;
    if (memcube_read_inside_write(read)) {
        return MEMOS_OK; /* what it sees may never be */
    }
    enum memos_status status = retrieval_vec_change_get(&vectors->tables, txn, &change, err);
    if (status == MEMOS_OK && load) {
        status = is_too_large(vectors, txn, space, encoder, &too_large, err);
    }
    if (status != MEMOS_OK || too_large) {
        return status;
    }
    struct retrieval_vec_table *table = table_pin(vectors, space, encoder, load);
    if (!table) {
        return MEMOS_OK;
    }
    if (load && !is_current(table, space->docs, change)) {
        (void)pthread_mutex_lock(&table->updating);
        status = table_update(vectors, table, read, space->docs, change, err);
        (void)pthread_mutex_unlock(&table->updating);
        status = status == MEMOS_NO_MEMORY ? MEMOS_OK : status;
    }
    /* Looked at again, since it may have begun anew before we held it. */
    (void)pthread_rwlock_rdlock(&table->scanning);
    if (status == MEMOS_OK && is_current(table, space->docs, change) &&
        change >= atomic_load_explicit(&table->replaced, memory_order_acquire)) {
        *out_table = table;
    } else {
        retrieval_vec_table_give(vectors, table);
    }
    return status;
}

void retrieval_vec_tables_drop(struct retrieval_vectors *vectors)
{
    while (vectors->list) {
        struct retrieval_vec_table *table = vectors->list;
        memos_assert(table->pins == 0);
        vectors->list = table->next;
        table_free(vectors, table);
    }
}
