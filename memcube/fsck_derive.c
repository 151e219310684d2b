/* What should be in the derived tables of a space, worked out from its rows and its log. */
#include "memcube/fsck_internal.h"

#include <stdlib.h>
#include <string.h>

#define SLOTS_TRIED_MAX ((uint64_t)1 << 20)
#define SLOT_MAX (UINT64_MAX / 64) /* a hint less something wraps around */
#define ARENA_BYTES_MAX ((size_t)1 << 30)
#define PROGRESS_EVERY 4096
#define CHAIN_KEY_BYTES (4 + 16 + 4)
#define BITS_TAKEN 255 /* a bitmap of our own: docs that some cube has */

/* One content of the cube at hand. */
struct content {
    struct memcube_doc record;
    uint32_t doc;
    uint32_t row; /* of its last version */
    size_t intervals_max;
};

/* The cube at hand. */
struct cube {
    struct memos_id id;
    struct memcube_cube stored; /* as the table has it; slot 0: it does not */
    uint32_t *rows;             /* of its versions, 1, 2, 3 ... */
    uint32_t count, rows_max;
    struct content *contents;
    size_t contents_count, contents_max;
    struct memcube_ref *refs; /* all that it was ever derived from */
    size_t refs_count, refs_max;
    size_t turn, turn_end; /* its turns */
    struct content *now;   /* the content of the version reached */
    struct memcube_cube head;
    int64_t expires_us;
    bool forgotten;
};

enum memos_status memcube_fsck_space_init(struct memcube_fsck_space *f,
    struct memcube_store *store, struct memcube_read *read, const struct memcube_space *space,
    struct memos_error *err)
{
    (void)err;
    *f = (struct memcube_fsck_space){ .store = store, .read = read, .space = *space };
    memos_arena_init(&f->arena, ARENA_BYTES_MAX);
    memos_arena_init(&f->row_arena, ARENA_BYTES_MAX);
    return MEMOS_OK;
}

void memcube_fsck_space_finish(struct memcube_fsck_space *f)
{
    memos_arena_finish(&f->arena);
    memos_arena_finish(&f->row_arena);
    free(f->turns);
    for (size_t i = 0; i < sizeof f->bits / sizeof f->bits[0]; i++) {
        free(f->bits[i]);
    }
    *f = (struct memcube_fsck_space){ .store = NULL };
}

static enum memos_status damaged_row(uint32_t row, const char *what, struct memos_error *err)
{
    return memos_fail(err, MEMOS_CORRUPT, "row %lu %s", (unsigned long)row, what);
}

static enum memos_status no_memory(struct memos_error *err)
{
    return memos_fail(err, MEMOS_NO_MEMORY, "no memory to work out what a space should hold");
}

/* Room for one more item at the end of an array in the cube's arena. */
static bool grow(struct memos_arena *arena, void **items, size_t count, size_t *max, size_t size)
{
    if (count < *max) {
        return true;
    }
    size_t more = *max ? *max * 2 : 8;
    void *room = memos_arena_take(arena, more, size);
    if (!room) {
        return false;
    }
    if (count > 0) {
        memcpy(room, *items, count * size);
    }
    *items = room;
    *max = more;
    return true;
}

/* Now and then, while rows or cubes go by: does the caller want to go on? */
static enum memos_status may_go_on(
    const struct memcube_fsck_space *f, uint64_t done, uint64_t total, struct memos_error *err)
{
    if (done % PROGRESS_EVERY != 0 || !f->progress ||
        f->progress(f->progress_self, done, total)) {
        return MEMOS_OK;
    }
    return memos_fail(err, MEMOS_CANCELLED, "fsck was cancelled");
}

/* ---- turns of staleness -------------------------------------------------------------------- */

static int turn_compare(const void *a, const void *b)
{
    const struct memcube_fsck_turn *x = a, *y = b;
    int order = memcmp(x->id.bytes, y->id.bytes, sizeof x->id.bytes);
    return order ? order : (x->seq > y->seq) - (x->seq < y->seq);
}

static enum memos_status turns_add(struct memcube_fsck_space *f,
    const struct memcube_log_record *record, struct memos_error *err)
{
    for (size_t i = 0; i < record->affected_count; i++) {
        if (f->turns_count == f->turns_max) {
            size_t more = f->turns_max ? f->turns_max * 2 : 256;
            void *room = realloc(f->turns, more * sizeof *f->turns);
            if (!room) {
                return no_memory(err);
            }
            f->turns = room;
            f->turns_max = more;
        }
        f->turns[f->turns_count++] =
            (struct memcube_fsck_turn){ record->affected[i], record->seq };
    }
    return MEMOS_OK;
}

static enum memos_status turns_load(struct memcube_fsck_space *f, struct memos_error *err)
{
    f->turns_count = 0;
    f->entries = 0;
    for (uint64_t seq = 1; seq <= f->space.seq; seq++) {
        struct memcube_log_record record;
        struct memos_bytes value;
        struct memos_id space_id;
        struct memcube_key key = memcube_key_of_u64(f->space.number, seq);
        memos_arena_reset(&f->row_arena);
        enum memos_status status = memcube_get(
            f->read->txn, f->store->tables.log, memcube_key_view(&key), &value, err);
        if (status == MEMOS_OK) {
            status = memcube_log_decode(value, &f->row_arena, &space_id, &record, err);
        }
        if (status == MEMOS_OK) {
            f->entries += record.entries_count;
            status = turns_add(f, &record, err);
        }
        if (status != MEMOS_OK) {
            return status;
        }
    }
    if (f->turns_count > 0) {
        qsort(f->turns, f->turns_count, sizeof *f->turns, turn_compare);
    }
    return MEMOS_OK;
}

static void turns_find(const struct memcube_fsck_space *f, struct cube *c)
{
    size_t low = 0, high = f->turns_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (memcmp(f->turns[middle].id.bytes, c->id.bytes, sizeof c->id.bytes) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    c->turn = low;
    c->turn_end = low;
    while (c->turn_end < f->turns_count && memos_id_equal(&f->turns[c->turn_end].id, &c->id)) {
        c->turn_end++;
    }
}

/* ---- the chain ----------------------------------------------------------------------------- */

static enum memos_status chain_emit(struct memcube_fsck_space *f, const struct memos_id *id,
    uint32_t number, uint32_t row, uint64_t seq, struct memos_error *err)
{
    uint8_t bytes[12];
    struct memcube_key key = memcube_key_of_id(f->space.number, id);
    memcube_key_u32(&key, number);
    row = htole32(row);
    seq = htole64(seq);
    memcpy(bytes, &row, sizeof row);
    memcpy(bytes + sizeof row, &seq, sizeof seq);
    return f->emit.entry(f->emit.self, MEMCUBE_FSCK_CHAIN, memcube_key_view(&key),
        memos_bytes_make(bytes, sizeof bytes), err);
}

enum memos_status memcube_fsck_chain(struct memcube_fsck_space *f, struct memos_error *err)
{
    uint64_t seq = 0;
    enum memos_status status = turns_load(f, err);
    f->rows = 0;
    f->docs = 0;
    while (status == MEMOS_OK) {
        struct memcube_row row;
        struct memcube_version header;
        memos_arena_reset(&f->row_arena);
        status = memcube_row_read(
            f->read, f->space.number, f->rows + 1, &f->row_arena, &row, err);
        if (status == MEMOS_NOT_FOUND) {
            return f->rows == f->entries
                       ? MEMOS_OK
                       : damaged_row(f->rows + 1, "is where rows and log cease to agree", err);
        }
        if (status == MEMOS_OK) {
            status = memcube_header_decode(row.header, &f->row_arena, &header, err);
        }
        if (status != MEMOS_OK) {
            return status;
        }
        f->rows++;
        if (row.seq < seq || row.seq > f->space.seq) {
            return damaged_row(f->rows, "belongs to a record out of order", err);
        }
        if (row.doc > f->docs + 1) {
            return damaged_row(f->rows, "has the number of a doc that was not made yet", err);
        }
        seq = row.seq;
        f->docs = row.doc > f->docs ? row.doc : f->docs;
        status = chain_emit(f, &header.id, header.number, f->rows, row.seq, err);
        if (status == MEMOS_OK) {
            status = may_go_on(f, f->rows, f->space.versions, err);
        }
    }
    return status;
}

/* ---- descriptions -------------------------------------------------------------------------- */

/* Does this key open the description? FORGOTTEN: it was destroyed. */
static bool opens(struct memcube_fsck_space *f, const struct memcube_row *row,
    const struct memcube_version *header, uint64_t slot, struct memos_bytes plain,
    enum memos_status *out_status)
{
    *out_status = slot == 0 ? MEMOS_CORRUPT
                            : memcube_vault_apply(f->store->vault, slot,
                                  memcube_description_nonce(&header->description_hash),
                                  row->description.data, (void *)plain.data, plain.size, NULL);
    if (*out_status != MEMOS_OK) {
        return false;
    }
    struct memcube_hash hash = memcube_hash_of(plain);
    return memcube_hash_equal(&hash, &header->description_hash);
}

/* The plain description. If the cube's record lost the key's number, the key is looked for: cubes
 * made one after the other have keys beside each other. */
static enum memos_status describe(struct memcube_fsck_space *f, struct cube *c,
    const struct memcube_row *row, struct memcube_version *version, struct memos_error *err)
{
    char id[MEMOS_ID_TEXT_BYTES];
    enum memos_status status;
    struct memos_bytes plain = memos_bytes_make(
        memos_arena_take(&f->row_arena, row->description.size, 1), row->description.size);
    if (!plain.data) {
        return no_memory(err);
    }
    bool found = opens(f, row, version, c->head.slot, plain, &status);
    if (!found && status == MEMOS_FORGOTTEN) {
        return memos_fail(err, status, "the key of cube %s is destroyed, but it is not forgotten",
            memos_id_format(&c->id, id));
    }
    for (uint64_t n = 1; !found && n <= SLOTS_TRIED_MAX; n++) {
        uint64_t slot = n % 2 ? f->slot_hint + (n + 1) / 2 : f->slot_hint - n / 2;
        found = slot < SLOT_MAX && opens(f, row, version, slot, plain, &status);
        c->head.slot = found ? slot : c->head.slot;
    }
    if (!found) {
        return memos_fail(err, MEMOS_CORRUPT, "the description of cube %s version %lu is lost",
            memos_id_format(&c->id, id), (unsigned long)version->number);
    }
    f->slot_hint = c->head.slot;
    return memcube_description_decode(plain, &f->row_arena, &version->description, err);
}

/* Header and, unless forgotten, description of a row of the cube. */
static enum memos_status version_read(struct memcube_fsck_space *f, struct cube *c, uint32_t row,
    struct memcube_version *out, struct memos_error *err)
{
    struct memcube_row stored;
    memos_arena_reset(&f->row_arena);
    enum memos_status status =
        memcube_row_read(f->read, f->space.number, row, &f->row_arena, &stored, err);
    if (status == MEMOS_OK) {
        status = memcube_header_decode(stored.header, &f->row_arena, out, err);
    }
    if (status == MEMOS_OK && !memos_id_equal(&out->id, &c->id)) {
        status = damaged_row(row, "is of another cube than the chain says", err);
    }
    if (status == MEMOS_OK) {
        out->seq = stored.seq;
        out->row = row;
        out->doc = stored.doc;
        status = c->forgotten ? MEMOS_OK : describe(f, c, &stored, out, err);
    }
    return status;
}

/* ---- bitmaps --------------------------------------------------------------------------------- */

static bool bit_get(const struct memcube_fsck_space *f, unsigned which, uint32_t doc)
{
    return f->bits[which] && (f->bits[which][doc / 8] >> (doc % 8) & 1) != 0;
}

static enum memos_status bit_set(
    struct memcube_fsck_space *f, unsigned which, uint32_t doc, struct memos_error *err)
{
    memos_assert(which < sizeof f->bits / sizeof f->bits[0]);
    if (!f->bits[which]) {
        size_t chunks = (size_t)f->docs / MEMCUBE_BITS_DOCS + 1;
        f->bits[which] = calloc(chunks, MEMCUBE_BITS_BYTES);
        if (!f->bits[which]) {
            return no_memory(err);
        }
    }
    f->bits[which][doc / 8] |= (uint8_t)(1u << (doc % 8));
    return MEMOS_OK;
}

/* ---- docs of the cube ---------------------------------------------------------------------- */

static bool content_room(struct memcube_fsck_space *f, struct content *content)
{
    void *items = content->record.intervals;
    bool done = grow(&f->arena, &items, content->record.intervals_count,
        &content->intervals_max, sizeof *content->record.intervals);
    content->record.intervals = items;
    return done;
}

static struct content *content_find(struct cube *c, uint32_t doc)
{
    for (size_t i = c->contents_count; i > 0; i--) {
        if (c->contents[i - 1].doc == doc) {
            return &c->contents[i - 1];
        }
    }
    return NULL;
}

/* The turns before record seq. */
static enum memos_status turns_apply(
    struct memcube_fsck_space *f, struct cube *c, uint64_t seq, struct memos_error *err)
{
    for (; c->turn < c->turn_end && f->turns[c->turn].seq < seq; c->turn++) {
        c->head.flags ^= MEMCUBE_CUBE_STALE;
        if (!c->now || c->now->record.intervals_count == 0) {
            continue;
        }
        if (!content_room(f, c->now)) {
            return no_memory(err);
        }
        struct memcube_doc *record = &c->now->record;
        struct memcube_interval as = record->intervals[record->intervals_count - 1];
        as.stale = (c->head.flags & MEMCUBE_CUBE_STALE) != 0;
        memcube_doc_open(record, f->turns[c->turn].seq, &as);
    }
    return MEMOS_OK;
}

/* One version more: its doc becomes the head's. */
static enum memos_status content_enter(struct memcube_fsck_space *f, struct cube *c,
    const struct memcube_version *version, struct memos_error *err)
{
    const struct memcube_interval as = {
        .expires_us = memcube_expiry_of(version->state, &version->governance),
        .state = (uint8_t)version->state,
        .stale = (c->head.flags & MEMCUBE_CUBE_STALE) != 0,
    };
    if (c->now && c->now->doc != version->doc) {
        memcube_doc_close(&c->now->record, version->seq);
    }
    c->now = version->doc ? content_find(c, version->doc) : NULL;
    if (version->doc != 0 && !c->now) {
        void *items = c->contents;
        if (!grow(&f->arena, &items, c->contents_count, &c->contents_max, sizeof *c->contents)) {
            return no_memory(err);
        }
        c->contents = items;
        if (bit_get(f, BITS_TAKEN, version->doc)) {
            return damaged_row(version->row, "has the doc of another cube", err);
        }
        enum memos_status status = bit_set(f, BITS_TAKEN, version->doc, err);
        if (status != MEMOS_OK) {
            return status;
        }
        c->now = &c->contents[c->contents_count++];
        *c->now = (struct content){
            .record = { .id = version->id, .first = version->number },
            .doc = version->doc,
        };
    }
    if (!c->now) {
        return MEMOS_OK;
    }
    c->now->record.last = version->number;
    c->now->record.event_us = version->description.event_us;
    c->now->row = version->row;
    if (!c->forgotten) {
        if (!content_room(f, c->now)) {
            return no_memory(err);
        }
        memcube_doc_open(&c->now->record, version->seq, &as);
    }
    return MEMOS_OK;
}

/* ---- emitting ------------------------------------------------------------------------------ */

static enum memos_status emit_key(struct memcube_fsck_space *f, enum memcube_fsck_table table,
    const struct memcube_key *key, struct memos_error *err)
{
    return f->emit.entry(
        f->emit.self, table, memcube_key_view(key), memos_bytes_make("", 0), err);
}

static enum memos_status bits_emit(struct memcube_fsck_space *f, struct memos_error *err)
{
    static const uint8_t zeros[MEMCUBE_BITS_BYTES];
    for (unsigned which = 0; which < BITS_TAKEN; which++) {
        for (uint32_t chunk = 0; f->bits[which] && chunk <= f->docs / MEMCUBE_BITS_DOCS; chunk++) {
            const uint8_t *bytes =
                f->bits[which] + (size_t)chunk * MEMCUBE_BITS_BYTES;
            struct memcube_key key = memcube_key_of(f->space.number);
            if (memcmp(bytes, zeros, sizeof zeros) == 0) {
                continue;
            }
            memcube_key_u8(&key, (uint8_t)which);
            memcube_key_u32(&key, chunk);
            enum memos_status status = f->emit.entry(f->emit.self, MEMCUBE_FSCK_BITS,
                memcube_key_view(&key), memos_bytes_make(bytes, MEMCUBE_BITS_BYTES), err);
            if (status != MEMOS_OK) {
                return status;
            }
        }
    }
    return MEMOS_OK;
}

/* The facets, the event time and the bits of a content, by its last version. */
static enum memos_status content_index(struct memcube_fsck_space *f, struct cube *c,
    const struct content *content, struct memos_error *err)
{
    struct memcube_version version;
    struct memcube_facet_key *facets = NULL;
    size_t facets_count = 0;
    const uint32_t doc_be = htobe32(content->doc);

    enum memos_status status = version_read(f, c, content->row, &version, err);
    if (status == MEMOS_OK) {
        status = memcube_facets_of(
            f->space.secret, &version, &f->row_arena, &facets, &facets_count, err);
    }
    for (size_t i = 0; status == MEMOS_OK && i < facets_count; i++) {
        struct memcube_key key = memcube_key_of(f->space.number);
        memcube_key_u8(&key, facets[i].facet);
        memcube_key_bytes(&key, facets[i].hash, sizeof facets[i].hash);
        status = f->emit.entry(f->emit.self, MEMCUBE_FSCK_FACET, memcube_key_view(&key),
            memos_bytes_make(&doc_be, sizeof doc_be), err);
    }
    if (status == MEMOS_OK) {
        struct memcube_key key = memcube_key_of(f->space.number);
        memcube_key_time(&key, content->record.event_us);
        memcube_key_u32(&key, content->doc);
        status = emit_key(f, MEMCUBE_FSCK_TIME, &key, err);
    }
    if (status == MEMOS_OK) {
        status = bit_set(f, MEMCUBE_BITS_KIND + (unsigned)version.kind, content->doc, err);
    }
    if (status == MEMOS_OK && version.description.readers_count > 0) {
        status = bit_set(f, MEMCUBE_BITS_READERS, content->doc, err);
    }
    return status;
}

static enum memos_status content_emit(struct memcube_fsck_space *f, struct cube *c,
    struct content *content, struct memos_error *err)
{
    struct memcube_key key = memcube_key_of_u32(f->space.number, content->doc);
    struct memos_buffer value = memos_buffer_make(ARENA_BYTES_MAX);
    if (c->forgotten) {
        content->record.event_us = 0;
        content->record.intervals_count = 0;
    }
    memcube_doc_encode(&content->record, &value);
    enum memos_status status =
        value.failed ? no_memory(err)
                     : f->emit.entry(f->emit.self, MEMCUBE_FSCK_DOC, memcube_key_view(&key),
                           memos_buffer_view(&value), err);
    memos_buffer_free(&value);
    if (status == MEMOS_OK && !c->forgotten) {
        status = content_index(f, c, content, err);
    }
    return status;
}

static int ref_compare(const void *a, const void *b)
{
    const struct memcube_ref *x = a, *y = b;
    int order = memcmp(x->id.bytes, y->id.bytes, sizeof x->id.bytes);
    return order ? order : (x->number > y->number) - (x->number < y->number);
}

static enum memos_status edges_emit(
    struct memcube_fsck_space *f, struct cube *c, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    if (c->refs_count > 1) {
        qsort(c->refs, c->refs_count, sizeof *c->refs, ref_compare);
    }
    for (size_t i = 0; status == MEMOS_OK && i < c->refs_count; i++) {
        uint8_t value[20];
        const uint32_t number = htobe32(c->refs[i].number);
        struct memcube_key key = memcube_key_of_id(f->space.number, &c->refs[i].id);
        if (i > 0 && ref_compare(&c->refs[i - 1], &c->refs[i]) == 0) {
            continue;
        }
        memcpy(value, &number, sizeof number);
        memcpy(value + sizeof number, c->id.bytes, sizeof c->id.bytes);
        status = f->emit.entry(f->emit.self, MEMCUBE_FSCK_EDGE, memcube_key_view(&key),
            memos_bytes_make(value, sizeof value), err);
    }
    return status;
}

static enum memos_status external_emit(
    struct memcube_fsck_space *f, struct cube *c, struct memos_error *err)
{
    struct memcube_version first;
    if (c->forgotten) {
        return MEMOS_OK;
    }
    enum memos_status status = version_read(f, c, c->rows[0], &first, err);
    if (status != MEMOS_OK || first.description.external_id.size == 0) {
        return status;
    }
    struct memcube_key key = memcube_external_key(&f->space, first.description.external_id);
    return f->emit.entry(f->emit.self, MEMCUBE_FSCK_EXTERNAL, memcube_key_view(&key),
        memos_bytes_make(c->id.bytes, sizeof c->id.bytes), err);
}

/* The cube's own record, and what its head is listed under. */
static enum memos_status head_emit(
    struct memcube_fsck_space *f, struct cube *c, struct memos_error *err)
{
    struct memcube_key key = memcube_key_of_id(f->space.number, &c->id);
    struct memos_buffer value = memos_buffer_make(64);
    const bool counts =
        c->head.state != MEMCUBE_STATE_WITHDRAWN && c->head.state != MEMCUBE_STATE_FORGOTTEN;

    f->cubes++;
    f->cubes_counted += counts;
    if (c->forgotten) {
        c->head.doc = 0;
        c->head.flags = 0;
        c->head.slot = 0;
    }
    memcube_cube_encode(&c->head, &value);
    enum memos_status status =
        value.failed ? no_memory(err)
                     : f->emit.entry(f->emit.self, MEMCUBE_FSCK_CUBE, memcube_key_view(&key),
                           memos_buffer_view(&value), err);
    memos_buffer_free(&value);
    if (status == MEMOS_OK && c->head.doc != 0) {
        status = bit_set(f, (unsigned)c->head.state, c->head.doc, err);
    }
    if (status == MEMOS_OK && c->head.doc != 0 && (c->head.flags & MEMCUBE_CUBE_STALE) != 0) {
        status = bit_set(f, MEMCUBE_BITS_STALE, c->head.doc, err);
    }
    if (status == MEMOS_OK && c->expires_us != INT64_MAX) {
        struct memcube_key expiry = { .size = 0 };
        memcube_key_time(&expiry, c->expires_us);
        memcube_key_u32(&expiry, f->space.number);
        memcube_key_bytes(&expiry, c->id.bytes, sizeof c->id.bytes);
        status = emit_key(f, MEMCUBE_FSCK_EXPIRY, &expiry, err);
    }
    return status;
}

/* ---- a cube, all cubes --------------------------------------------------------------------- */

static enum memos_status refs_add(struct memcube_fsck_space *f, struct cube *c,
    const struct memcube_version *version, struct memos_error *err)
{
    for (size_t i = 0; i < version->derived_count; i++) {
        void *items = c->refs;
        if (!grow(&f->arena, &items, c->refs_count, &c->refs_max, sizeof *c->refs)) {
            return no_memory(err);
        }
        c->refs = items;
        c->refs[c->refs_count++] = version->derived_from[i];
    }
    return MEMOS_OK;
}

static enum memos_status version_replay(
    struct memcube_fsck_space *f, struct cube *c, uint32_t row, struct memos_error *err)
{
    struct memcube_version version;
    enum memos_status status = version_read(f, c, row, &version, err);
    if (status == MEMOS_OK) {
        status = turns_apply(f, c, version.seq, err);
    }
    if (status == MEMOS_OK) {
        status = content_enter(f, c, &version, err);
    }
    if (status == MEMOS_OK) {
        status = refs_add(f, c, &version, err);
    }
    if (status == MEMOS_OK) {
        c->head.row = version.row;
        c->head.number = version.number;
        c->head.doc = version.doc;
        c->head.state = version.state;
        c->head.flags |= version.description.readers_count > 0 ? MEMCUBE_CUBE_RESTRICTED : 0u;
        c->expires_us = memcube_expiry_of(version.state, &version.governance);
    }
    return status;
}

static enum memos_status cube_derive(
    struct memcube_fsck_space *f, struct cube *c, struct memos_error *err)
{
    struct memcube_version head;
    enum memos_status status = memcube_header_at_row(
        f->read, f->space.number, c->rows[c->count - 1], &f->arena, &head, err);
    if (status != MEMOS_OK) {
        return status;
    }
    c->forgotten = head.state == MEMCUBE_STATE_FORGOTTEN;
    if (memcube_cube_read(f->read, f->space.number, &c->id, &c->stored, NULL) != MEMOS_OK) {
        c->stored = (struct memcube_cube){ .number = 0 };
    }
    c->head = (struct memcube_cube){ .id = c->id, .slot = c->stored.slot };
    turns_find(f, c);
    for (uint32_t i = 0; status == MEMOS_OK && i < c->count; i++) {
        status = version_replay(f, c, c->rows[i], err);
    }
    if (status == MEMOS_OK) {
        status = turns_apply(f, c, UINT64_MAX, err);
    }
    for (size_t i = 0; status == MEMOS_OK && i < c->contents_count; i++) {
        status = content_emit(f, c, &c->contents[i], err);
    }
    if (status == MEMOS_OK) {
        status = edges_emit(f, c, err);
    }
    if (status == MEMOS_OK) {
        status = external_emit(f, c, err);
    }
    return status == MEMOS_OK ? head_emit(f, c, err) : status;
}

/* Gather the rows of the cube that the cursor stands at. */
static enum memos_status cube_gather(struct memcube_fsck_space *f, struct cube *c,
    struct memcube_cursor *cursor, struct memos_bytes key, struct memos_bytes value,
    struct memos_error *err)
{
    struct memcube_key prefix;
    enum memos_status status = MEMOS_OK;
    memos_arena_reset(&f->arena);
    *c = (struct cube){ .expires_us = INT64_MAX };
    memcpy(c->id.bytes, (const uint8_t *)key.data + sizeof(uint32_t), sizeof c->id.bytes);
    prefix = memcube_key_of_id(f->space.number, &c->id);
    while (status == MEMOS_OK && memcube_key_begins(key, &prefix)) {
        struct memos_reader k = memos_reader_of(key), v = memos_reader_of(value);
        void *items = c->rows;
        size_t max = c->rows_max;
        (void)memos_read_bytes(&k, prefix.size);
        if (memos_read_u32_be(&k) != c->count + 1) {
            return memos_fail(err, MEMOS_CORRUPT, "a cube's versions do not count 1, 2, 3");
        }
        if (!grow(&f->arena, &items, c->count, &max, sizeof *c->rows)) {
            return no_memory(err);
        }
        c->rows = items;
        c->rows_max = (uint32_t)max;
        c->rows[c->count++] = memos_read_u32(&v);
        status = memcube_cursor_move(cursor, MEMCUBE_NEXT, &key, &value, err);
    }
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

static enum memos_status cubes_derive(
    struct memcube_fsck_space *f, struct memcube_cursor *cursor, struct memos_error *err)
{
    const struct memcube_key prefix = memcube_key_of(f->space.number);
    struct memcube_key wanted = prefix;
    for (;;) {
        struct cube cube;
        struct memos_bytes key = memcube_key_view(&wanted), value;
        enum memos_status status =
            memcube_cursor_move(cursor, MEMCUBE_AT_OR_AFTER, &key, &value, err);
        if (status == MEMOS_NOT_FOUND ||
            (status == MEMOS_OK && !memcube_key_begins(key, &prefix))) {
            return MEMOS_OK;
        }
        if (status == MEMOS_OK && key.size != CHAIN_KEY_BYTES) {
            status = memos_fail(err, MEMOS_CORRUPT, "a key of the chain has a wrong form");
        }
        if (status == MEMOS_OK) {
            status = cube_gather(f, &cube, cursor, key, value, err);
        }
        if (status == MEMOS_OK) {
            status = cube_derive(f, &cube, err);
        }
        if (status == MEMOS_OK) {
            status = may_go_on(f, f->cubes, f->space.cubes, err);
        }
        if (status != MEMOS_OK) {
            return status;
        }
        /* What was emitted may have been put, which ends the lives of views: look anew. */
        wanted = memcube_key_of_id(f->space.number, &cube.id);
        memcube_key_u32(&wanted, UINT32_MAX);
    }
}

enum memos_status memcube_fsck_derive(struct memcube_fsck_space *f, struct memos_error *err)
{
    struct memcube_cursor *cursor = NULL;

    f->cubes = 0;
    f->cubes_counted = 0;
    for (size_t i = 0; i < sizeof f->bits / sizeof f->bits[0]; i++) {
        free(f->bits[i]);
        f->bits[i] = NULL;
    }
    enum memos_status status =
        memcube_cursor_open(f->read->txn, f->store->tables.chain, &cursor, err);
    if (status == MEMOS_OK) {
        status = cubes_derive(f, cursor, err);
    }
    memcube_cursor_close(&cursor);
    return status == MEMOS_OK ? bits_emit(f, err) : status;
}

/* ---- staleness ----------------------------------------------------------------------------- */

enum memos_status memcube_fsck_stale(struct memcube_fsck_space *f, uint64_t *out_wrong,
    struct memos_id *out_first, struct memos_error *err)
{
    struct memcube_cursor *cursor = NULL;
    struct memcube_key prefix = memcube_key_of(f->space.number);
    struct memos_bytes key = memcube_key_view(&prefix), value;

    *out_wrong = 0;
    enum memos_status status =
        memcube_cursor_open(f->read->txn, f->store->tables.cube, &cursor, err);
    if (status == MEMOS_OK) {
        status = memcube_cursor_move(cursor, MEMCUBE_AT_OR_AFTER, &key, &value, err);
    }
    while (status == MEMOS_OK && memcube_key_begins(key, &prefix)) {
        struct memcube_cube cube;
        struct memcube_version head;
        struct memos_id id;
        bool stale = false;
        memos_arena_reset(&f->row_arena);
        memcpy(id.bytes, (const uint8_t *)key.data + prefix.size, sizeof id.bytes);
        status = memcube_cube_decode(&id, value, &cube, err);
        if (status == MEMOS_OK) {
            status = memcube_header_at_row(
                f->read, f->space.number, cube.row, &f->row_arena, &head, err);
        }
        if (status == MEMOS_OK && cube.state != MEMCUBE_STATE_FORGOTTEN) {
            status = memcube_stale_compute(
                f->read, f->space.number, &head, &f->row_arena, &stale, err);
            if (stale != ((cube.flags & MEMCUBE_CUBE_STALE) != 0) && (*out_wrong)++ == 0) {
                *out_first = id;
            }
        }
        if (status == MEMOS_OK) {
            status = memcube_cursor_move(cursor, MEMCUBE_NEXT, &key, &value, err);
        }
    }
    memcube_cursor_close(&cursor);
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}
