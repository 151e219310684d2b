/* Lists by event time, and the version that stands for a doc. */
#include "memcube/store_internal.h"

static enum memos_status doc_gone(uint32_t doc, struct memos_error *err)
{
    return memos_fail(err, MEMOS_NOT_FOUND, "doc %u is no cube's content then", doc);
}

enum memos_status memcube_version_of_doc(struct memcube_read *read,
    const struct memcube_space *space, uint32_t doc, const struct memcube_as_of *as_of,
    struct memcube_version *out, struct memos_error *err)
{
    const bool now = !as_of || (as_of->seq == 0 && as_of->time_us == 0);
    struct memcube_doc record;
    struct memcube_cube cube;
    uint64_t seq = 0;
    uint32_t number = 0;

    enum memos_status status =
        memcube_doc_read(read, space->number, doc, &read->arena, &record, err);
    if (status == MEMOS_OK) {
        status = memcube_cube_read(read, space->number, &record.id, &cube, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    uint32_t row = cube.row;
    if (now && cube.doc != doc) {
        return doc_gone(doc, err);
    }
    if (!now) {
        status = memcube_as_of_seq(read, space, as_of, &seq, err);
        if (status == MEMOS_OK) {
            status = memcube_chain_as_of(read, space->number, &cube, seq, &number, &row, err);
        }
    }
    if (status == MEMOS_OK) {
        status = memcube_version_load(
            read, space->number, &cube, row, &read->arena, out, err);
    }
    return status == MEMOS_OK && out->doc != doc ? doc_gone(doc, err) : status;
}

/* ---- lists --------------------------------------------------------------------------------- */

/* A list while it is made: a walk along table `time`. */
struct listing {
    struct memcube_read *read;
    const struct memcube_space *space;
    const struct memcube_list_query *query;
    struct memcube_docs docs;
    struct memcube_cursor *cursor;
    struct memos_bytes key;
};

static enum memos_status list_step(struct listing *listing, struct memos_error *err)
{
    struct memos_bytes value;
    return memcube_cursor_move(listing->cursor,
        listing->query->oldest_first ? MEMCUBE_NEXT : MEMCUBE_PREVIOUS, &listing->key, &value,
        err);
}

/* Stand on the first entry of the page. The page's cursor is the doc that the page before ended
 * with, so that it goes on behind it whatever was written in between. */
static enum memos_status list_begin(struct listing *listing, struct memos_error *err)
{
    const struct memcube_list_query *query = listing->query;
    struct memcube_read *read = listing->read;
    struct memcube_key start = memcube_key_of(listing->space->number);
    struct memos_bytes value;

    if (query->cursor != 0) {
        struct memcube_doc record;
        const enum memos_status status =
            query->cursor > listing->space->docs
                ? doc_gone(0, NULL)
                : memcube_doc_read(read, listing->space->number, (uint32_t)query->cursor,
                      &read->arena, &record, NULL);
        if (status != MEMOS_OK || record.event_us == 0) {
            return memos_fail(err, MEMOS_CONFLICT, "the list cannot go on there: begin it anew");
        }
        memcube_key_time(&start, record.event_us);
        memcube_key_u32(&start, (uint32_t)query->cursor);
    } else if (!query->oldest_first) {
        memcube_key_u64(&start, UINT64_MAX);
        memcube_key_u32(&start, UINT32_MAX);
    }
    listing->key = memcube_key_view(&start);
    enum memos_status status =
        memcube_cursor_move(listing->cursor, MEMCUBE_AT_OR_AFTER, &listing->key, &value, err);
    if (status == MEMOS_NOT_FOUND && !query->oldest_first) {
        return memcube_cursor_move(listing->cursor, MEMCUBE_LAST, &listing->key, &value, err);
    }
    /* Newest first wants what is before; oldest first wants what is behind a cursor. */
    const bool exact =
        status == MEMOS_OK && memos_bytes_equal(listing->key, memcube_key_view(&start));
    if (status == MEMOS_OK && (!query->oldest_first || (query->cursor != 0 && exact))) {
        status = list_step(listing, err);
    }
    return status;
}

static bool list_doc(const struct listing *listing, uint32_t *out_doc)
{
    struct memos_reader r = memos_reader_of(listing->key);

    (void)memos_read_bytes(&r, 12);
    const uint32_t doc = memos_read_u32_be(&r);
    *out_doc = doc;
    return memos_reader_done(&r) && doc < listing->docs.docs_end &&
           (listing->docs.words[doc / 64] >> (doc % 64) & 1) != 0;
}

static enum memos_status list_fill(struct listing *listing, struct memcube_version *out,
    size_t *out_count, uint64_t *out_next, struct memos_error *err)
{
    const struct memcube_list_query *query = listing->query;
    const struct memcube_key prefix = memcube_key_of(listing->space->number);
    uint32_t last = 0;

    enum memos_status status = list_begin(listing, err);
    while (status == MEMOS_OK && memcube_key_begins(listing->key, &prefix)) {
        uint32_t doc = 0;
        if (list_doc(listing, &doc)) {
            if (*out_count == query->count_max) {
                *out_next = last;
                return MEMOS_OK;
            }
            status = memcube_version_of_doc(listing->read, listing->space, doc, &query->as_of,
                &out[*out_count], err);
            if (status != MEMOS_OK) {
                return status;
            }
            (*out_count)++;
            last = doc;
        }
        status = list_step(listing, err);
    }
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

enum memos_status memcube_list(struct memcube_read *read, const struct memcube_space *space,
    const struct memcube_list_query *query, struct memcube_version *out, size_t *out_count,
    uint64_t *out_next, struct memos_error *err)
{
    struct listing listing = { .read = read, .space = space, .query = query };
    uint64_t next = 0; /* callers may well pass the query's own cursor */

    *out_count = 0;
    enum memos_status status = memcube_docs_select(
        read, space, &query->filter, &query->as_of, &listing.docs, err);
    if (status == MEMOS_OK && query->count_max > 0) {
        status = memcube_cursor_open(
            read->txn, read->store->tables.time, &listing.cursor, err);
        if (status == MEMOS_OK) {
            status = list_fill(&listing, out, out_count, &next, err);
        }
    }
    memcube_cursor_close(&listing.cursor);
    *out_next = next;
    return status;
}
