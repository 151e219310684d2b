#include "retrieval/merge.h"

#include <stdlib.h>

#define STEP_DOCS (RETRIEVAL_TAIL_DOCS / RETRIEVAL_SHARDS)

enum memos_status retrieval_merged_load(const struct retrieval_tables *tables,
    struct memcube_txn *txn, uint32_t space, struct retrieval_merged *out, struct memos_error *err)
{
    uint8_t key[RETRIEVAL_DOC_KEY_BYTES];
    struct memos_bytes value;

    enum memos_status status =
        memcube_get(txn, tables->merged, retrieval_space_key(key, space), &value, err);
    if (status == MEMOS_NOT_FOUND) {
        *out = (struct retrieval_merged){{0}};
        return MEMOS_OK;
    } else if (status != MEMOS_OK) {
        return status;
    }
    struct memos_reader reader = memos_reader_of(value);
    for (size_t i = 0; i < RETRIEVAL_SHARDS; i++) {
        out->through[i] = memos_read_u32(&reader);
    }
    return memos_reader_done(&reader)
               ? MEMOS_OK
               : memos_fail(
                     err, MEMOS_CORRUPT, "lexical index: lex.merged of space %u is broken", space);
}

static enum memos_status merged_save(const struct retrieval_tables *tables, struct memcube_txn *txn,
    uint32_t space, const struct retrieval_merged *merged, struct memos_error *err)
{
    uint8_t key[RETRIEVAL_DOC_KEY_BYTES], value[RETRIEVAL_SHARDS * 4];
    for (size_t i = 0; i < RETRIEVAL_SHARDS; i++) {
        uint32_t through = htole32(merged->through[i]);
        memcpy(value + i * 4, &through, 4);
    }
    return memcube_put(txn, tables->merged, retrieval_space_key(key, space),
        memos_bytes_make(value, sizeof value), err);
}

/* ---- walking through entries --------------------------------------------------------------- */

/* Docs of a space in order, from one on. */
struct walk {
    struct memcube_cursor *cursor;
    uint32_t space;
    enum memcube_move move;
    uint8_t key_bytes[RETRIEVAL_DOC_KEY_BYTES];
    struct memos_bytes key, value;
    uint32_t doc; /* where it stands */
};

static enum memos_status walk_begin(struct walk *walk, const struct retrieval_tables *tables,
    struct memcube_txn *txn, uint32_t space, uint32_t doc, struct memos_error *err)
{
    *walk = (struct walk){.space = space, .move = MEMCUBE_AT_OR_AFTER};
    walk->key = retrieval_doc_key(walk->key_bytes, space, doc);
    return memcube_cursor_open(txn, tables->doc, &walk->cursor, err);
}

/* NOT_FOUND after the space's last doc. */
static enum memos_status walk_next(struct walk *walk, struct memos_error *err)
{
    enum memos_status status =
        memcube_cursor_move(walk->cursor, walk->move, &walk->key, &walk->value, err);
    struct memos_reader reader = memos_reader_of(walk->key);
    walk->move = MEMCUBE_NEXT;
    if (status != MEMOS_OK) {
        return status;
    }
    uint32_t space = memos_read_u32_be(&reader);
    walk->doc = memos_read_u32_be(&reader);
    return space == walk->space && memos_reader_done(&reader) ? MEMOS_OK : MEMOS_NOT_FOUND;
}

/* ---- merging ------------------------------------------------------------------------------- */

struct merge_item {
    uint64_t term;
    struct retrieval_posting posting;
};

static int merge_compare(const void *a, const void *b)
{
    const struct merge_item *left = a, *right = b;
    if (left->term != right->term) {
        return left->term < right->term ? -1 : 1;
    }
    return (left->posting.doc > right->posting.doc) - (left->posting.doc < right->posting.doc);
}

/* Append what an entry has in a shard. */
static enum memos_status merge_collect(
    const struct walk *walk, uint32_t shard, struct memos_buffer *items, struct memos_error *err)
{
    struct retrieval_entry_view entry;
    enum memos_status status = retrieval_entry_view(walk->value, &entry, err);
    if (status != MEMOS_OK) {
        return status;
    }
    size_t at = retrieval_entry_find(&entry, 0, (uint64_t)shard << RETRIEVAL_SHARD_SHIFT);
    for (; at < entry.terms_count; at++) {
        struct merge_item item = {.term = retrieval_entry_term(&entry, at)};
        if (item.term >> RETRIEVAL_SHARD_SHIFT != shard) {
            break;
        }
        item.posting = (struct retrieval_posting){walk->doc, retrieval_entry_count(&entry, at)};
        memos_buffer_bytes(items, &item, sizeof item);
    }
    return items->failed ? memos_fail(err, MEMOS_NO_MEMORY, "no memory to merge postings")
                         : MEMOS_OK;
}

/* Make the postings of docs after `from` through `through` in one shard. */
static enum memos_status merge_shard(const struct retrieval_tables *tables, struct memcube_txn *txn,
    uint32_t space, uint32_t shard, uint32_t from, uint32_t through, struct memos_error *err)
{
    struct memos_buffer buffer = memos_buffer_make(SIZE_MAX);
    struct walk walk;

    enum memos_status status = walk_begin(&walk, tables, txn, space, from + 1, err);
    while (status == MEMOS_OK) {
        status = walk_next(&walk, err);
        if (status == MEMOS_OK && walk.doc > through) {
            break;
        }
        if (status == MEMOS_OK) {
            status = merge_collect(&walk, shard, &buffer, err);
        }
    }
    memcube_cursor_close(&walk.cursor);
    if (status == MEMOS_NOT_FOUND) {
        status = MEMOS_OK;
    }
    struct merge_item *items = (struct merge_item *)(void *)buffer.data;
    size_t items_count = buffer.size / sizeof *items;
    if (items_count > 0) {
        qsort(items, items_count, sizeof *items, merge_compare);
    }
    for (size_t i = 0; i < items_count && status == MEMOS_OK; i++) {
        uint8_t key[RETRIEVAL_TERM_KEY_BYTES], value[RETRIEVAL_POSTING_BYTES];
        status = memcube_put(txn, tables->post, retrieval_term_key(key, space, items[i].term),
            retrieval_posting_write(value, items[i].posting), err);
    }
    memos_buffer_free(&buffer);
    return status;
}

/* After every STEP_DOCS docs it is the next shard's turn. A turn that was missed, since some docs
 * were never added, is taken now. */
enum memos_status retrieval_merge_due(const struct retrieval_tables *tables,
    struct memcube_txn *txn, uint32_t space, uint32_t doc, struct retrieval_merged *merged,
    struct memos_error *err)
{
    bool changed = false;
    enum memos_status status = MEMOS_OK;
    for (uint32_t turn = doc / STEP_DOCS, i = 0; turn > 0 && i < RETRIEVAL_SHARDS; turn--, i++) {
        uint32_t shard = turn % RETRIEVAL_SHARDS, *through = &merged->through[shard];
        if (*through >= turn * STEP_DOCS) {
            break;
        }
        status = merge_shard(tables, txn, space, shard, *through, doc, err);
        if (status != MEMOS_OK) {
            return status;
        }
        *through = doc;
        changed = true;
    }
    return changed ? merged_save(tables, txn, space, merged, err) : MEMOS_OK;
}

/* ---- the tail ------------------------------------------------------------------------------ */

static bool docs_have(const struct memcube_docs *docs, uint32_t doc)
{
    return doc < docs->docs_end && (docs->words[doc / 64] >> (doc % 64) & 1) != 0;
}

/* Room in each tail for every doc that may have no posting. */
static struct retrieval_tail *tails_make(
    size_t terms_count, uint32_t docs_count, struct memos_arena *arena)
{
    struct retrieval_tail *tails = memos_arena_take(arena, terms_count + 1, sizeof *tails);
    uint8_t *room =
        memos_arena_take(arena, terms_count * RETRIEVAL_POSTING_BYTES + 1, docs_count + 1);
    if (!tails || !room) {
        return NULL;
    }
    for (size_t i = 0; i < terms_count; i++) {
        tails[i] = (struct retrieval_tail){
            .postings = room + i * RETRIEVAL_POSTING_BYTES * docs_count,
        };
    }
    return tails;
}

/* Add what one doc has of the terms to their tails. */
static enum memos_status tails_add(const struct walk *walk, const struct retrieval_merged *merged,
    const struct retrieval_term *terms, size_t terms_count, struct retrieval_tail *tails,
    struct memos_error *err)
{
    struct retrieval_entry_view entry;
    enum memos_status status = retrieval_entry_view(walk->value, &entry, err);
    size_t at = 0;
    for (size_t i = 0; status == MEMOS_OK && i < terms_count; i++) {
        if (walk->doc <= retrieval_merged_through(merged, terms[i].hash)) {
            continue;
        }
        at = retrieval_entry_find(&entry, at, terms[i].hash);
        if (at == entry.terms_count) {
            break;
        }
        if (retrieval_entry_term(&entry, at) == terms[i].hash) {
            struct retrieval_posting posting = {walk->doc, retrieval_entry_count(&entry, at)};
            (void)retrieval_posting_write(tails[i].postings + tails[i].postings_bytes, posting);
            tails[i].postings_bytes += RETRIEVAL_POSTING_BYTES;
        }
    }
    return status;
}

enum memos_status retrieval_tails_read(const struct retrieval_tables *tables,
    struct memcube_txn *txn, uint32_t space, const struct retrieval_term *terms, size_t terms_count,
    const struct memcube_docs *live, const struct memcube_docs *wanted, struct memos_arena *arena,
    struct retrieval_tail **out_tails, struct memos_error *err)
{
    uint32_t docs_end = live->docs_end > wanted->docs_end ? live->docs_end : wanted->docs_end;
    uint32_t from = UINT32_MAX;
    struct retrieval_merged merged;
    struct walk walk;

    enum memos_status status = retrieval_merged_load(tables, txn, space, &merged, err);
    if (status != MEMOS_OK) {
        return status;
    }
    for (size_t i = 0; i < terms_count; i++) {
        uint32_t through = retrieval_merged_through(&merged, terms[i].hash);
        from = through < from ? through : from;
    }
    uint32_t docs_count = docs_end > from ? docs_end - from : 0;
    struct retrieval_tail *tails = tails_make(terms_count, docs_count, arena);
    if (!tails) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to search %u new docs for %zu words",
            docs_count, terms_count);
    }
    *out_tails = tails;
    if (docs_count == 0) {
        return MEMOS_OK;
    }
    status = walk_begin(&walk, tables, txn, space, from + 1, err);
    while (status == MEMOS_OK) {
        status = walk_next(&walk, err);
        if (status == MEMOS_OK && walk.doc >= docs_end) {
            break;
        }
        if (status == MEMOS_OK && (docs_have(live, walk.doc) || docs_have(wanted, walk.doc))) {
            status = tails_add(&walk, &merged, terms, terms_count, tails, err);
        }
    }
    memcube_cursor_close(&walk.cursor);
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}
