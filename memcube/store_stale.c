/* Derivation: what came from what, and whether it still stands.
 *
 * Edges go from a source to what was ever derived from it, in any version, and stay for ever. They
 * have no cycles (memcube_derived_check refuses them), so that the flags can be worked out in one
 * pass over the cubes below a change, each after everything that it comes from. */
#include "memcube/store_internal.h"

enum { EDGE_BYTES = 20 }; /* source's number, then the derived cube's id */

bool memcube_state_stands(enum memcube_state state)
{
    return state != MEMCUBE_STATE_EXPIRED && state != MEMCUBE_STATE_WITHDRAWN &&
           state != MEMCUBE_STATE_FORGOTTEN;
}

static bool has_edge(const struct memcube_version *version, const struct memcube_ref *ref)
{
    for (size_t i = 0; version && i < version->derived_count; i++) {
        if (version->derived_from[i].number == ref->number &&
            memos_id_equal(&version->derived_from[i].id, &ref->id)) {
            return true;
        }
    }
    return false;
}

enum memos_status memcube_edges_write(struct memcube_write *write, uint32_t space,
    const struct memcube_version *version, const struct memcube_version *head,
    struct memos_error *err)
{
    for (size_t i = 0; i < version->derived_count; i++) {
        const struct memcube_ref *source = &version->derived_from[i];
        if (has_edge(head, source)) {
            continue;
        }
        const struct memcube_key key = memcube_key_of_id(space, &source->id);
        uint8_t value[EDGE_BYTES];
        const uint32_t number = htobe32(source->number);
        memcpy(value, &number, sizeof number);
        memcpy(value + sizeof number, version->id.bytes, sizeof version->id.bytes);
        const enum memos_status status =
            memcube_put(write->read.txn, write->store->tables.edge, memcube_key_view(&key),
                memos_bytes_make(value, sizeof value), err);
        if (status != MEMOS_OK) {
            return status;
        }
    }
    return MEMOS_OK;
}

/* Call visit for everything derived from a source; once for each of the source's versions that it
 * came from. */
static enum memos_status edges_visit(struct memcube_cursor *cursor, uint32_t space,
    const struct memos_id *source,
    enum memos_status (*visit)(
        void *self, const struct memos_id *derived, struct memos_error *err),
    void *self, struct memos_error *err)
{
    const struct memcube_key wanted = memcube_key_of_id(space, source);
    struct memos_bytes key = memcube_key_view(&wanted);
    struct memos_bytes values;

    enum memos_status status = memcube_cursor_move(cursor, MEMCUBE_AT, &key, &values, err);
    for (bool first = true; status == MEMOS_OK; first = false) {
        status = memcube_cursor_values(cursor, first, &values, err);
        for (size_t at = 0; status == MEMOS_OK && values.size - at >= EDGE_BYTES;
             at += EDGE_BYTES) {
            struct memos_id derived;
            memcpy(derived.bytes, (const uint8_t *)values.data + at + sizeof(uint32_t),
                sizeof derived.bytes);
            status = visit(self, &derived, err);
        }
    }
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

/* ---- the closure --------------------------------------------------------------------------- */

struct closing {
    struct memcube_ids *closure;
    struct memos_arena *arena;
};

static enum memos_status close_visit(
    void *self, const struct memos_id *derived, struct memos_error *err)
{
    struct closing *closing = self;
    return memcube_ids_add(closing->closure, closing->arena, derived, NULL, NULL, err);
}

enum memos_status memcube_edges_close(struct memcube_read *read, uint32_t space,
    struct memcube_ids *closure, struct memos_arena *arena, struct memos_error *err)
{
    struct closing closing = { closure, arena };
    struct memcube_cursor *cursor = NULL;

    enum memos_status status =
        memcube_cursor_open(read->txn, read->store->tables.edge, &cursor, err);
    for (size_t i = 0; status == MEMOS_OK && i < closure->count; i++) {
        const struct memos_id source = closure->ids[i];
        status = edges_visit(cursor, space, &source, close_visit, &closing, err);
    }
    memcube_cursor_close(&cursor);
    return status;
}

enum memos_status memcube_derived_check(struct memcube_write *write, uint32_t space,
    const struct memos_id *id, const struct memcube_ref *refs, size_t refs_count,
    struct memos_error *err)
{
    struct memcube_read *read = &write->read;
    struct memcube_ids below = { 0 };
    char text[MEMOS_ID_TEXT_BYTES];
    enum memos_status status = MEMOS_OK;

    if (id && refs_count > 0) {
        status = memcube_ids_add(&below, &read->arena, id, NULL, NULL, err);
        if (status == MEMOS_OK) {
            status = memcube_edges_close(read, space, &below, &read->arena, err);
        }
    }
    for (size_t i = 0; status == MEMOS_OK && i < refs_count; i++) {
        struct memcube_cube cube;
        status = memcube_cube_read(read, space, &refs[i].id, &cube, err);
        if (status != MEMOS_OK) {
            return status;
        }
        memos_id_format(&refs[i].id, text);
        if (cube.state == MEMCUBE_STATE_FORGOTTEN) {
            return memos_fail(err, MEMOS_FORGOTTEN, "source %s was forgotten", text);
        }
        if (refs[i].number == 0 || refs[i].number > cube.number) {
            return memos_fail(err, MEMOS_NOT_FOUND, "there is no version %u of source %s",
                refs[i].number, text);
        }
        if (memcube_ids_find(&below, &refs[i].id, NULL)) {
            return memos_fail(err, MEMOS_INVALID,
                "a cube cannot be derived from %s, which was derived from it", text);
        }
    }
    return status;
}

/* ---- does it stand? ------------------------------------------------------------------------ */

/* Does source@number stand, and is its cube not stale? */
static enum memos_status source_stands(struct memcube_read *read, uint32_t space,
    const struct memcube_ref *source, struct memos_arena *arena, bool *out,
    struct memos_error *err)
{
    struct memcube_cube cube;
    struct memcube_version head;
    struct memcube_version then;
    uint32_t row = 0;
    uint64_t seq = 0;

    *out = false;
    enum memos_status status = memcube_cube_read(read, space, &source->id, &cube, err);
    if (status == MEMOS_NOT_FOUND) {
        return MEMOS_OK; /* an imported cube whose source stayed behind */
    }
    if (status != MEMOS_OK || !memcube_state_stands(cube.state) ||
        (cube.flags & MEMCUBE_CUBE_STALE) != 0) {
        return status;
    }
    if (cube.number == source->number) {
        *out = true;
        return MEMOS_OK;
    }
    status = memcube_chain_read(read, space, &source->id, source->number, &row, &seq, err);
    if (status == MEMOS_NOT_FOUND) {
        return MEMOS_OK;
    }
    if (status == MEMOS_OK) {
        status = memcube_header_at_row(read, space, row, arena, &then, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_header_at_row(read, space, cube.row, arena, &head, err);
    }
    *out = status == MEMOS_OK && memcube_hash_equal(&then.payload_hash, &head.payload_hash);
    return status;
}

enum memos_status memcube_stale_compute(struct memcube_read *read, uint32_t space,
    const struct memcube_version *head, struct memos_arena *arena, bool *out_stale,
    struct memos_error *err)
{
    bool stands = true;

    for (size_t i = 0; stands && i < head->derived_count; i++) {
        const enum memos_status status =
            source_stands(read, space, &head->derived_from[i], arena, &stands, err);
        if (status != MEMOS_OK) {
            return status;
        }
    }
    *out_stale = !stands && head->state != MEMCUBE_STATE_FORGOTTEN;
    return MEMOS_OK;
}

/* ---- working it out anew ------------------------------------------------------------------- */

/* The cubes below a change, in an order in which everything comes after what it is derived from
 * (Kahn, "Topological sorting of large networks", 1962). */
struct sorting {
    const struct memcube_ids *all;
    uint32_t *waiting; /* for how many edges from cubes in `all` */
    size_t *order;
    size_t order_count;
};

static enum memos_status count_visit(
    void *self, const struct memos_id *derived, struct memos_error *err)
{
    struct sorting *sorting = self;
    size_t index = 0;

    (void)err;
    if (memcube_ids_find(sorting->all, derived, &index)) {
        sorting->waiting[index]++;
    }
    return MEMOS_OK;
}

static enum memos_status release_visit(
    void *self, const struct memos_id *derived, struct memos_error *err)
{
    struct sorting *sorting = self;
    size_t index = 0;

    (void)err;
    if (memcube_ids_find(sorting->all, derived, &index) && --sorting->waiting[index] == 0) {
        sorting->order[sorting->order_count++] = index;
    }
    return MEMOS_OK;
}

static enum memos_status edges_sort(struct memcube_read *read, uint32_t space,
    struct sorting *sorting, struct memos_error *err)
{
    const size_t count = sorting->all->count;
    struct memcube_cursor *cursor = NULL;

    sorting->waiting = memos_arena_take(&read->arena, count, sizeof *sorting->waiting);
    sorting->order = memos_arena_take(&read->arena, count, sizeof *sorting->order);
    if (!sorting->waiting || !sorting->order) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu derived cubes", count);
    }
    memset(sorting->waiting, 0, count * sizeof *sorting->waiting);
    enum memos_status status =
        memcube_cursor_open(read->txn, read->store->tables.edge, &cursor, err);
    for (size_t i = 0; status == MEMOS_OK && i < count; i++) {
        status = edges_visit(cursor, space, &sorting->all->ids[i], count_visit, sorting, err);
    }
    for (size_t i = 0; i < count; i++) {
        if (sorting->waiting[i] == 0) {
            sorting->order[sorting->order_count++] = i;
        }
    }
    for (size_t i = 0; status == MEMOS_OK && i < sorting->order_count; i++) {
        status = edges_visit(cursor, space, &sorting->all->ids[sorting->order[i]], release_visit,
            sorting, err);
    }
    memcube_cursor_close(&cursor);
    if (status == MEMOS_OK && sorting->order_count != count) {
        return memos_fail(err, MEMOS_CORRUPT, "cubes are derived from one another in a circle");
    }
    return status;
}

static enum memos_status stale_one(
    struct memcube_changing *changing, const struct memos_id *id, struct memos_error *err)
{
    struct memcube_write *write = changing->write;
    const uint32_t space = changing->state->space.number;
    struct memcube_cube cube;
    struct memcube_version head;
    bool stale = false;

    enum memos_status status = memcube_cube_read(&write->read, space, id, &cube, err);
    if (status != MEMOS_OK || cube.state == MEMCUBE_STATE_FORGOTTEN) {
        return status;
    }
    status = memcube_header_at_row(&write->read, space, cube.row, &write->scratch, &head, err);
    if (status == MEMOS_OK) {
        status = memcube_stale_compute(
            &write->read, space, &head, &write->scratch, &stale, err);
    }
    if (status != MEMOS_OK || stale == ((cube.flags & MEMCUBE_CUBE_STALE) != 0)) {
        return status;
    }
    cube.flags ^= MEMCUBE_CUBE_STALE;
    status = memcube_cube_write(write, space, &cube, err);
    if (status == MEMOS_OK) {
        status = memcube_doc_stale(changing, &cube, stale, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_ids_add(&changing->affected, &write->read.arena, id, NULL, NULL, err);
    }
    return status;
}

enum memos_status memcube_stale_update(
    struct memcube_changing *changing, struct memos_error *err)
{
    struct memcube_write *write = changing->write;
    const uint32_t space = changing->state->space.number;
    struct sorting sorting = { .all = &changing->touched };

    if (changing->touched.count == 0) {
        return MEMOS_OK;
    }
    enum memos_status status = memcube_edges_close(
        &write->read, space, &changing->touched, &write->read.arena, err);
    if (status == MEMOS_OK) {
        status = edges_sort(&write->read, space, &sorting, err);
    }
    for (size_t i = 0; status == MEMOS_OK && i < sorting.order_count; i++) {
        memos_arena_reset(&write->scratch);
        status = stale_one(changing, &sorting.all->ids[sorting.order[i]], err);
    }
    return status;
}
