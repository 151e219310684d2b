/* Check of a whole store: every history, then everything that is derived from it; and repair of
 * what is derived.
 *
 * A space is looked at in one snapshot, so that fsck can run beside writers; it pins that snapshot
 * until the space is done. A forget destroys what an older snapshot still names; a finding that may
 * come from that is looked for again in a newer one, and in the end with the writers held off.
 * Repair works the same things out again inside a write, and is done only when the rows and the log
 * agree: the history itself is never changed. */
#include "memcube/fsck_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS_MAX 4
#define OUTRUN_MAX 3 /* snapshots that a forget may outrun */
#define GROWS_MAX 16
#define DOCS_A_WRITE 256

#define BIT(table) (1u << MEMCUBE_FSCK_##table)
#define BROKEN_RECORD (1u << MEMCUBE_FSCK_TABLES_COUNT) /* of the space */
#define BROKEN_ROWS (1u << (MEMCUBE_FSCK_TABLES_COUNT + 1))
#define MENDABLE (BROKEN_ROWS - 1)

struct fsck {
    struct memcube_store *store;
    bool repair;
    memcube_progress_fn *progress;
    memcube_fsck_problem_fn *problem;
    void *self;
    struct memcube_fsck_result result;
};

/* One space at hand. */
struct inspection {
    struct fsck *fsck;
    struct memos_bytes name;
    struct memcube_fsck_space derived;
    struct memcube_fsck_tables tables;
    bool verified;
    bool last;                 /* no other round is needed */
    unsigned broken;           /* in this round */
    unsigned told;             /* in any round before */
    struct memos_error damage; /* of the rows themselves */
    uint64_t seq;              /* of the space when it was seen */
    uint8_t *bad_docs;         /* a bitmap for each index */
    size_t bad_bytes;          /* of one */
    bool docs_bad;
    uint64_t found[MEMCUBE_FSCK_TABLES_COUNT + 2]; /* problems, by bit */
};

__attribute__((format(printf, 3, 4))) static void tell(
    struct fsck *k, uint64_t count, const char *format, ...)
{
    char text[sizeof k->result.first + MEMOS_ERROR_TEXT_BYTES];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (k->result.problems == 0) {
        (void)snprintf(k->result.first, sizeof k->result.first, "%.*s",
            (int)sizeof k->result.first - 1, text);
    }
    k->result.problems += count;
    if (k->problem) {
        k->problem(k->self, text);
    }
}

static int name_width(const struct inspection *i)
{
    return (int)(i->name.size < MEMCUBE_SPACE_BYTES_MAX ? i->name.size : MEMCUBE_SPACE_BYTES_MAX);
}

/* ---- tables -------------------------------------------------------------------------------- */

static enum memos_status inspection_begin(struct inspection *i, struct memcube_read *read,
    enum memos_status (*entry)(void *, enum memcube_fsck_table, struct memos_bytes,
        struct memos_bytes, struct memos_error *),
    struct memos_error *err)
{
    struct memcube_space space;
    enum memos_status status = memcube_space_find(read, i->name, &space, err);
    if (status != MEMOS_OK) {
        return status;
    }
    status = memcube_fsck_space_init(&i->derived, i->fsck->store, read, &space, err);
    i->derived.emit = (struct memcube_fsck_emit){ entry, &i->tables };
    memcube_fsck_tables_init(&i->tables, i->fsck->store);
    i->derived.progress = i->fsck->progress;
    i->derived.progress_self = i->fsck->self;
    i->tables.read = read;
    i->tables.space = space.number;
    return status;
}

static void inspection_end(struct inspection *i)
{
    memcube_fsck_space_finish(&i->derived);
    memcube_fsck_tables_finish(&i->tables);
}

/* Emit what the wanted tables should hold. References need cubes that are right. */
static enum memos_status derive(struct inspection *i, unsigned wanted, struct memos_error *err)
{
    enum memos_status status = memcube_fsck_chain(&i->derived, err);
    if (status == MEMOS_OK && (wanted & ~BIT(CHAIN)) != 0) {
        status = memcube_fsck_derive(&i->derived, err);
    }
    if (status == MEMOS_OK && (wanted & (BIT(REFS) | BROKEN_RECORD)) != 0) {
        status = memcube_fsck_references(&i->derived, err);
    }
    return status;
}

/* Compare sums; add the tables that differ to `broken`. */
static enum memos_status compare(struct inspection *i, unsigned wanted, struct memos_error *err)
{
    for (unsigned table = 0; table < MEMCUBE_FSCK_TABLES_COUNT; table++) {
        struct memcube_fsck_sum sum;
        const struct memcube_fsck_sum *expected = &i->tables.expected[table];
        if ((wanted & 1u << table) == 0) {
            continue;
        }
        enum memos_status status = memcube_fsck_table_sum(&i->tables, table, &sum, err);
        if (status != MEMOS_OK) {
            return status;
        }
        if (sum.count != expected->count || sum.a != expected->a || sum.b != expected->b) {
            i->broken |= 1u << table;
        }
    }
    return MEMOS_OK;
}

/* Say what is wrong with the broken tables, by looking every entry up. */
static enum memos_status diagnose(struct inspection *i, struct memos_error *err)
{
    unsigned wanted = i->broken & ~i->told & (BROKEN_RECORD - 1);
    if (wanted == 0) {
        return MEMOS_OK;
    }
    i->tables.wanted = wanted;
    i->derived.emit.entry = memcube_fsck_emit_find;
    enum memos_status status = derive(i, wanted, err);
    for (unsigned table = 0; status == MEMOS_OK && table < MEMCUBE_FSCK_TABLES_COUNT; table++) {
        struct memcube_fsck_sum sum;
        if ((wanted & 1u << table) == 0) {
            continue;
        }
        status = memcube_fsck_table_sum(&i->tables, table, &sum, err);
        uint64_t absent = i->tables.absent[table], wrong = i->tables.wrong[table];
        uint64_t extra = sum.count + absent - i->tables.expected[table].count;
        uint64_t count = absent + wrong + extra;
        i->found[table] = count ? count : 1;
        tell(i->fsck, i->found[table],
            "space %.*s, table %s: %llu entries are missing, %llu wrong, %llu too many",
            name_width(i), (const char *)i->name.data, memcube_fsck_table_name(table),
            (unsigned long long)absent, (unsigned long long)wrong, (unsigned long long)extra);
    }
    return status;
}

static void compare_record(struct inspection *i)
{
    const struct memcube_fsck_space *d = &i->derived;
    const struct memcube_space *space = &d->space;
    if (space->versions == d->rows && space->docs == d->docs && space->cubes == d->cubes_counted &&
        space->payload_bytes == d->payload_bytes) {
        return;
    }
    i->broken |= BROKEN_RECORD;
    if ((i->told & BROKEN_RECORD) == 0) {
        i->found[MEMCUBE_FSCK_TABLES_COUNT] = 1;
        tell(i->fsck, 1,
            "space %.*s counts %llu versions, %lu docs, %llu cubes and %llu bytes, "
            "but has %lu, %lu, %llu and %llu",
            name_width(i), (const char *)i->name.data, (unsigned long long)space->versions,
            (unsigned long)space->docs, (unsigned long long)space->cubes,
            (unsigned long long)space->payload_bytes, (unsigned long)d->rows,
            (unsigned long)d->docs, (unsigned long long)d->cubes_counted,
            (unsigned long long)d->payload_bytes);
    }
}

/* Find out which tables of the space are broken, in the order in which they rest on each other:
 * the chain, then what is read through it, then the references. */
static enum memos_status tables_check(
    struct inspection *i, struct memcube_read *read, struct memos_error *err)
{
    const unsigned read_through_chain =
        (BROKEN_RECORD - 1) & ~BIT(CHAIN) & ~BIT(REFS);
    i->broken = 0;
    enum memos_status status = inspection_begin(i, read, memcube_fsck_emit_sum, err);
    if (status == MEMOS_OK) {
        status = memcube_fsck_chain(&i->derived, err);
    }
    if (status == MEMOS_OK) {
        status = compare(i, BIT(CHAIN), err);
    }
    if (status == MEMOS_OK && i->broken == 0) {
        status = memcube_fsck_derive(&i->derived, err);
    }
    if (status == MEMOS_OK && i->broken == 0) {
        status = compare(i, read_through_chain, err);
    }
    if (status == MEMOS_OK && (i->broken & (BIT(CHAIN) | BIT(CUBE))) == 0) {
        status = memcube_fsck_references(&i->derived, err);
        if (status == MEMOS_OK) {
            status = compare(i, BIT(REFS), err);
        }
        if (status == MEMOS_OK) {
            compare_record(i);
        }
    }
    if (status == MEMOS_OK) {
        status = diagnose(i, err);
    }
    return status;
}

/* ---- mending ------------------------------------------------------------------------------- */

static enum memos_status record_mend(
    struct inspection *i, struct memcube_write *write, struct memos_error *err)
{
    struct memcube_space_state *state;
    const struct memcube_fsck_space *d = &i->derived;
    enum memos_status status = memcube_space_state_find(write, i->name, &state, err);
    if (status == MEMOS_OK) {
        state->space.versions = d->rows;
        state->space.docs = d->docs;
        state->space.cubes = d->cubes_counted;
        state->space.payload_bytes = d->payload_bytes;
        state->dirty = true;
    }
    return status;
}

static enum memos_status mend_in(struct inspection *i, struct memcube_write *write,
    unsigned wanted, struct memos_error *err)
{
    enum memos_status status =
        inspection_begin(i, memcube_write_read(write), memcube_fsck_emit_put, err);
    i->tables.wanted = wanted;
    for (unsigned table = 0; status == MEMOS_OK && table < MEMCUBE_FSCK_TABLES_COUNT; table++) {
        if ((wanted & 1u << table) != 0) {
            status = memcube_fsck_table_clear(&i->tables, table, err);
        }
    }
    if (status == MEMOS_OK) {
        status = derive(i, wanted, err);
    }
    if (status == MEMOS_OK && (wanted & BROKEN_RECORD) != 0) {
        status = record_mend(i, write, err);
    }
    inspection_end(i);
    return status;
}

/* Run a repair in a write of its own; a map that is full grows, and it is tried anew. */
static enum memos_status in_write(struct memcube_store *store,
    enum memos_status (*mend)(void *self, struct memcube_write *write, struct memos_error *err),
    void *self, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    for (unsigned n = 0; n < GROWS_MAX; n++) {
        struct memcube_write *write = NULL;
        status = memcube_write_begin(store, &write, err);
        if (status != MEMOS_OK) {
            return status;
        }
        status = mend(self, write, err);
        bool full = status != MEMOS_OK && memcube_txn_map_full(write->read.txn);
        if (status == MEMOS_OK) {
            status = memcube_write_commit(&write, err);
            full = status == MEMOS_NO_SPACE;
        } else {
            memcube_write_abort(&write);
        }
        if (!full) {
            return status;
        }
        enum memos_status grown = memcube_db_grow(store->db, err);
        if (grown != MEMOS_OK) {
            return grown;
        }
    }
    return status;
}

static enum memos_status mend_tables(
    void *self, struct memcube_write *write, struct memos_error *err)
{
    struct inspection *i = self;
    return mend_in(i, write, i->broken & MENDABLE, err);
}

/* ---- indexes ------------------------------------------------------------------------------- */

/* The doc of the version that this one was made from; 0: none. */
static enum memos_status doc_replaced(struct memcube_fsck_space *f,
    const struct memcube_version *version, uint32_t *out_doc, struct memos_error *err)
{
    struct memcube_row row;
    uint32_t row_number;
    uint64_t seq;

    *out_doc = 0;
    if (version->parent == 0) {
        return MEMOS_OK;
    }
    enum memos_status status = memcube_chain_read(
        f->read, f->space.number, &version->id, version->parent, &row_number, &seq, err);
    if (status == MEMOS_OK) {
        status = memcube_row_read(
            f->read, f->space.number, row_number, &f->row_arena, &row, err);
    }
    if (status == MEMOS_OK) {
        *out_doc = row.doc;
    }
    return status;
}

/* The version and the text that a doc was indexed with. *out_skip: it is forgotten. */
static enum memos_status doc_load(struct memcube_fsck_space *f, uint32_t doc,
    struct memcube_version *version, struct memcube_index_doc *out, bool *out_skip,
    struct memcube_maps *maps, struct memos_error *err)
{
    struct memcube_doc record;
    struct memcube_cube cube;
    struct memcube_row row;
    uint8_t *key;
    uint32_t row_number, replaces = 0;
    uint64_t seq;

    memos_arena_reset(&f->row_arena);
    enum memos_status status =
        memcube_doc_read(f->read, f->space.number, doc, &f->row_arena, &record, err);
    if (status == MEMOS_OK) {
        status = memcube_cube_read(f->read, f->space.number, &record.id, &cube, err);
    }
    *out_skip = status == MEMOS_OK && cube.state == MEMCUBE_STATE_FORGOTTEN;
    if (status != MEMOS_OK || *out_skip) {
        return status;
    }
    status = memcube_chain_read(
        f->read, f->space.number, &record.id, record.first, &row_number, &seq, err);
    if (status == MEMOS_OK) {
        status = memcube_version_load(
            f->read, f->space.number, &cube, row_number, &f->row_arena, version, err);
    }
    /* Forgotten since our snapshot began, its key is gone. */
    *out_skip = status == MEMOS_OK && version->state == MEMCUBE_STATE_FORGOTTEN;
    if (status != MEMOS_OK || *out_skip) {
        return status;
    }
    status = memcube_row_read(
        f->read, f->space.number, row_number, &f->row_arena, &row, err);
    if (status == MEMOS_OK) {
        status = doc_replaced(f, version, &replaces, err);
    }
    key = memos_arena_take(&f->row_arena, 1, MEMCUBE_DOC_KEY_BYTES);
    if (status == MEMOS_OK && !key) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for a doc");
    }
    if (status == MEMOS_OK) {
        status = memcube_slot_doc_key(f->store->vault, cube.slot, doc, key, err);
    }
    *out_skip = status == MEMOS_FORGOTTEN; /* just now */
    if (*out_skip) {
        return MEMOS_OK;
    }
    *out = (struct memcube_index_doc){
        .space = f->space.number,
        .doc = doc,
        .replaces = replaces,
        .version = version,
        .text = memos_bytes_make("", 0),
        .secret = f->space.secret,
        .key = key,
    };
    if (status == MEMOS_OK && version->kind == MEMCUBE_PLAINTEXT) {
        status = memcube_payload_read(f->store->payloads, f->read->txn, f->space.number, row.place,
            &version->payload_hash, version->payload_bytes, true, &f->row_arena, maps, &out->text,
            err);
    }
    return status;
}

static void doc_found_bad(
    struct inspection *i, size_t index, uint32_t doc, const struct memos_error *what)
{
    i->bad_docs[index * i->bad_bytes + doc / 8] |= (uint8_t)(1u << (doc % 8));
    i->docs_bad = true;
    tell(i->fsck, 1, "space %.*s, index %s, doc %lu: %s", name_width(i),
        (const char *)i->name.data, i->fsck->store->indexes[index]->name, (unsigned long)doc,
        what->text);
}

static bool doc_is_bad(const struct inspection *i, size_t index, uint32_t doc)
{
    const uint8_t *bits = i->bad_docs + index * i->bad_bytes;
    return (bits[doc / 8] >> (doc % 8) & 1) != 0;
}

/* Ask every index about every doc; what is bad is remembered, to be mended when no snapshot of ours
 * is open any more. */
static enum memos_status indexes_check(struct inspection *i, struct memos_error *err)
{
    struct memcube_fsck_space *f = &i->derived;
    struct memcube_store *store = f->store;
    enum memos_status status = MEMOS_OK;

    free(i->bad_docs);
    i->bad_bytes = (size_t)f->docs / 8 + 1;
    i->bad_docs = calloc(store->indexes_count + 1, i->bad_bytes);
    if (!i->bad_docs) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to check the indexes");
    }
    for (uint32_t doc = 1; status == MEMOS_OK && doc <= f->docs; doc++) {
        struct memcube_maps maps = { NULL };
        struct memcube_version version;
        struct memcube_index_doc entry;
        struct memos_error inner;
        bool skip = false;
        status = doc_load(f, doc, &version, &entry, &skip, &maps, &inner);
        for (size_t n = 0; status == MEMOS_OK && !skip && n < store->indexes_count; n++) {
            struct memcube_index *index = store->indexes[n];
            status = index->check ? index->check(index->self, f->read->txn, &entry, &inner)
                                  : MEMOS_OK;
            if (memcube_verify_is_finding(status)) {
                doc_found_bad(i, n, doc, &inner);
                status = MEMOS_OK;
            }
        }
        memcube_maps_release(&maps);
        i->fsck->result.docs++;
        /* A doc that cannot be loaded was found before; what failed was not. */
        status = status == MEMOS_OK || memcube_verify_is_finding(status)
                     ? MEMOS_OK
                     : memos_fail(err, status, "%s", inner.text);
    }
    return status;
}

/* Mend the bad docs of an index from `doc` on, as many as go into one write. */
struct docs_mend {
    struct inspection *inspection;
    size_t index;
    uint32_t doc, doc_next; /* where it began, and where the next write begins */
    uint64_t mended;
};

static enum memos_status doc_mend(struct inspection *i, struct memcube_index *index, uint32_t doc,
    struct memcube_txn *txn, struct memos_error *err)
{
    struct memcube_version version;
    struct memcube_index_doc entry;
    struct memcube_maps maps = { NULL };
    bool skip = false;
    enum memos_status status =
        doc_load(&i->derived, doc, &version, &entry, &skip, &maps, err);
    if (status == MEMOS_OK) {
        status = index->erase(index->self, txn, i->tables.space, doc, err);
    }
    if (status == MEMOS_OK && !skip) {
        status = index->add(index->self, txn, &entry, err);
    }
    memcube_maps_release(&maps);
    return status;
}

static enum memos_status docs_mend_in(
    void *self, struct memcube_write *write, struct memos_error *err)
{
    struct docs_mend *m = self;
    struct inspection *bad = m->inspection;
    struct inspection i = { .fsck = bad->fsck, .name = bad->name };
    struct memcube_index *index = bad->fsck->store->indexes[m->index];

    m->mended = 0;
    m->doc_next = m->doc;
    enum memos_status status = inspection_begin(&i, memcube_write_read(write), NULL, err);
    while (status == MEMOS_OK && m->doc_next / 8 < bad->bad_bytes && m->mended < DOCS_A_WRITE) {
        if (doc_is_bad(bad, m->index, m->doc_next)) {
            status = doc_mend(&i, index, m->doc_next, write->read.txn, err);
            m->mended++;
        }
        m->doc_next++;
    }
    inspection_end(&i);
    return status;
}

static enum memos_status indexes_mend(struct inspection *i, struct memos_error *err)
{
    struct fsck *k = i->fsck;
    enum memos_status status = MEMOS_OK;
    for (size_t n = 0; i->docs_bad && n < k->store->indexes_count; n++) {
        struct docs_mend mend = { .inspection = i, .index = n };
        while (status == MEMOS_OK && mend.doc / 8 < i->bad_bytes) {
            status = in_write(k->store, docs_mend_in, &mend, err);
            k->result.repaired += status == MEMOS_OK ? mend.mended : 0;
            mend.doc = mend.doc_next;
        }
    }
    return status;
}

/* ---- a space ------------------------------------------------------------------------------- */

/* Again after mending: what verify found may have been a cube's record, which was mended. */
static enum memos_status history_check(struct inspection *i, bool again, struct memos_error *err)
{
    struct fsck *k = i->fsck;
    struct memcube_verify_result verified;
    enum memos_status status =
        memcube_verify(k->store, i->name, 0, k->progress, k->self, &verified, err);
    if (status != MEMOS_OK) {
        return status;
    }
    i->verified = verified.intact;
    if (again) {
        k->result.repaired += verified.intact;
        return MEMOS_OK;
    }
    k->result.versions += verified.versions;
    if (!verified.intact) {
        char id[MEMOS_ID_TEXT_BYTES] = "";
        if (verified.bad_ref.number != 0) {
            (void)memos_id_format(&verified.bad_ref.id, id);
        }
        tell(k, 1, "space %.*s, record %llu%s%s: %s", name_width(i), (const char *)i->name.data,
            (unsigned long long)verified.bad_seq, id[0] ? ", cube " : "", id, verified.what);
    }
    return MEMOS_OK;
}

static enum memos_status stale_check(struct inspection *i, struct memos_error *err)
{
    uint64_t wrong = 0;
    struct memos_id first;
    char id[MEMOS_ID_TEXT_BYTES];
    enum memos_status status = memcube_fsck_stale(&i->derived, &wrong, &first, err);
    if (status == MEMOS_OK && wrong > 0) {
        tell(i->fsck, wrong,
            "space %.*s: %llu derived cubes are stale, or not, against their sources; %s is one",
            name_width(i), (const char *)i->name.data, (unsigned long long)wrong,
            memos_id_format(&first, id));
    }
    return status;
}

/* One look at a space: the tables; staleness and indexes, too, when this is the last look. What the
 * rows themselves show damaged goes to i->damage. */
static enum memos_status look(
    struct inspection *i, struct memcube_read *read, struct memos_error *err)
{
    struct fsck *k = i->fsck;
    i->damage.status = MEMOS_OK;
    enum memos_status status = tables_check(i, read, &i->damage);
    if (memcube_verify_is_finding(status)) { /* NOT_FOUND, too: something that must be there */
        i->broken |= BROKEN_ROWS;
        i->seq = i->derived.space.seq;
        inspection_end(i);
        return MEMOS_OK;
    }
    if (status != MEMOS_OK) {
        status = memos_fail(err, status, "%s", i->damage.text);
    }
    unsigned mendable = i->broken & MENDABLE & ~(i->verified ? 0u : BIT(REFS));
    i->last = !k->repair || mendable == 0 || (i->broken & i->told) != 0;
    if (status == MEMOS_OK && i->last && (i->broken & BIT(CHAIN)) == 0) {
        k->result.cubes += i->derived.cubes;
        k->result.payloads += i->derived.payloads;
        k->result.blobs += i->derived.payloads - i->derived.payloads_inline;
        status = (i->broken & BIT(CUBE)) == 0 ? stale_check(i, err) : MEMOS_OK;
        if (status == MEMOS_OK && (i->broken & (BIT(CUBE) | BIT(DOC))) == 0) {
            status = indexes_check(i, err);
        }
    }
    inspection_end(i);
    return status;
}

static enum memos_status look_in_write(
    void *self, struct memcube_write *write, struct memos_error *err)
{
    return look(self, memcube_write_read(write), err);
}

/* Has the space changed since it was looked at? */
static bool moved_on(const struct inspection *i)
{
    struct memcube_read *read = NULL;
    struct memcube_space space;
    struct memos_error ignored;
    bool moved = memcube_read_begin(i->fsck->store, &read, &ignored) == MEMOS_OK &&
                 memcube_space_find(read, i->name, &space, &ignored) == MEMOS_OK &&
                 space.seq != i->seq;
    memcube_read_end(&read);
    return moved;
}

/* Look in a snapshot. Damage that it shows may be a forget that came after it, since keys are
 * destroyed for all snapshots at once: then a newer one is looked at, and in the end the writers
 * are held off. */
static enum memos_status look_surely(struct inspection *i, struct memos_error *err)
{
    struct fsck *k = i->fsck;
    enum memos_status status = MEMOS_OK;

    for (unsigned n = 0; n <= OUTRUN_MAX; n++) {
        struct memcube_read *read = NULL;
        if (n == OUTRUN_MAX) {
            status = in_write(k->store, look_in_write, i, err);
        } else {
            status = memcube_read_begin(k->store, &read, err);
            status = status == MEMOS_OK ? look(i, read, err) : status;
            memcube_read_end(&read);
        }
        if (status != MEMOS_OK || (i->broken & BROKEN_ROWS) == 0) {
            return status;
        }
        if (!moved_on(i)) {
            break;
        }
    }
    i->last = true;
    tell(k, 1, "space %.*s: %s; what is derived from its versions cannot be checked",
        name_width(i), (const char *)i->name.data, i->damage.text);
    return MEMOS_OK;
}

static enum memos_status space_fsck(
    struct fsck *k, struct memos_bytes name, struct memos_error *err)
{
    struct inspection i = { .fsck = k, .name = name };
    unsigned mended = 0;

    k->result.spaces++;
    enum memos_status status = history_check(&i, false, err);
    for (unsigned round = 0; status == MEMOS_OK && !i.last; round++) {
        status = look_surely(&i, err);
        i.last = i.last || round == ROUNDS_MAX;
        if (status == MEMOS_OK && !i.last) {
            if (!i.verified) {
                i.broken &= ~BIT(REFS);
            }
            status = in_write(k->store, mend_tables, &i, err);
            mended |= i.broken;
            i.told |= i.broken;
            if (status == MEMOS_OK && !i.verified) {
                status = history_check(&i, true, err);
            }
        }
    }
    for (unsigned bit = 0; bit <= MEMCUBE_FSCK_TABLES_COUNT; bit++) {
        if ((mended & ~i.broken & 1u << bit) != 0) {
            k->result.repaired += i.found[bit];
        }
    }
    if (status == MEMOS_OK && k->repair) {
        status = indexes_mend(&i, err);
    }
    free(i.bad_docs);
    return status;
}

/* ---- the store ----------------------------------------------------------------------------- */

/* The name after `after`; NOT_FOUND behind the last. Copied into `out`. */
static enum memos_status name_next(struct memcube_store *store, struct memos_bytes after,
    char out[MEMCUBE_SPACE_BYTES_MAX], struct memos_bytes *out_name, struct memos_error *err)
{
    struct memcube_read *read = NULL;
    struct memcube_cursor *cursor = NULL;
    struct memos_bytes key = after, value;

    enum memos_status status = memcube_read_begin(store, &read, err);
    if (status == MEMOS_OK) {
        status = memcube_cursor_open(read->txn, store->tables.space, &cursor, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_cursor_move(
            cursor, after.size ? MEMCUBE_AT_OR_AFTER : MEMCUBE_FIRST, &key, &value, err);
    }
    if (status == MEMOS_OK && after.size && memos_bytes_equal(key, after)) {
        status = memcube_cursor_move(cursor, MEMCUBE_NEXT, &key, &value, err);
    }
    if (status == MEMOS_OK) {
        size_t size = key.size < MEMCUBE_SPACE_BYTES_MAX ? key.size : MEMCUBE_SPACE_BYTES_MAX;
        memcpy(out, key.data, size);
        *out_name = memos_bytes_make(out, size);
    }
    memcube_cursor_close(&cursor);
    memcube_read_end(&read);
    return status;
}

/* Payloads that nobody names: encrypted ones in the database, and files. */
static enum memos_status strays_check(
    void *self, struct memcube_write *write, struct memos_error *err)
{
    struct fsck *k = self;
    uint64_t strays = 0;
    enum memos_status status = memcube_payloads_strays(
        k->store->payloads, write->read.txn, k->repair, &strays, err);
    if (status == MEMOS_OK && strays > 0) {
        tell(k, strays, "%llu payloads lie there that no version names",
            (unsigned long long)strays);
        k->result.repaired += k->repair ? strays : 0;
    }
    return status;
}

enum memos_status memcube_fsck(struct memcube_store *store, bool repair,
    memcube_progress_fn *progress, memcube_fsck_problem_fn *problem, void *self,
    struct memcube_fsck_result *out, struct memos_error *err)
{
    struct fsck k = { .store = store, .repair = repair, .progress = progress,
        .problem = problem, .self = self };
    char after[MEMCUBE_SPACE_BYTES_MAX];
    struct memos_bytes name = memos_bytes_make(after, 0);
    enum memos_status status = MEMOS_OK;

    if (repair && store->read_only) {
        return memos_fail(err, MEMOS_DENIED, "the store is open for reading only");
    }
    while (status == MEMOS_OK) {
        char next[MEMCUBE_SPACE_BYTES_MAX] = "";
        status = name_next(store, name, next, &name, err);
        if (status == MEMOS_OK) {
            memcpy(after, next, sizeof after);
            name.data = after;
            status = space_fsck(&k, name, err);
        }
    }
    status = status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
    if (status == MEMOS_OK && !store->read_only) {
        status = in_write(store, strays_check, &k, err);
    }
    if (status == MEMOS_OK) {
        *out = k.result;
    }
    return status;
}
