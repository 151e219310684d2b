/* The proof of a history: every record's hash and link, every version's header, description and
 * payload, every checkpoint.
 *
 * The history is cut into ranges that two threads take in turn. Each record carries the hash of the
 * one before, so a range needs only the hash of the record before its first to be joined to its
 * neighbour. Every range is read from a snapshot of its own, so that no snapshot is held for long.
 *
 * Rows lie in the order in which their versions were made, so a cursor finds them without a search;
 * where that is not so, the chain says where they are.
 *
 * A damaged value is a finding, never a failure. One caveat: the engine itself trusts the inner
 * structure of its pages, so damage there can end the process before it is seen here. */
#include "memcube/proof.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RANGE_RECORDS 2048
#define CHECKED_SLOTS 4096

/* What all threads share. Sync: everything below lock. */
struct verify {
    struct memcube_store *store;
    struct memos_bytes name;
    struct memos_id space_id;
    uint32_t number;
    uint64_t seq_from, seq_end; /* the last record */
    struct memcube_hash head;   /* its hash, as the space says */

    pthread_mutex_t lock;
    uint64_t seq_next; /* not yet given to a thread */
    uint64_t done;
    bool stopped;             /* something was found, or failed, or the caller has enough */
    enum memos_status status; /* a failure, not a finding */
    struct memos_error err;
    struct memcube_verify_result result;
};

struct counts {
    uint64_t records, versions, payloads, forgotten;
};

/* A payload that was right a moment ago: many versions share one. */
struct checked {
    struct memcube_hash hash;
    struct memcube_place place;
};

/* What one thread works with. */
struct worker {
    struct verify *verify;
    struct memcube_read *read;
    struct memcube_cursor *log, *row, *cube;
    struct memos_arena record_arena, version_arena;
    struct memcube_maps maps;
    struct counts counts;
    uint32_t row_next;            /* where the next version should lie; 0: not known */
    struct memcube_hash previous; /* of the record before */
    int64_t time_us;
    /* what is being looked at, for the finding */
    uint64_t seq;
    struct memcube_ref ref;
    struct checked *checked;
};

bool memcube_verify_is_finding(enum memos_status status)
{
    return status != MEMOS_OK && status != MEMOS_NO_MEMORY && status != MEMOS_CANCELLED &&
           status != MEMOS_INTERNAL && status != MEMOS_BUSY;
}

static enum memos_status damaged(const char *what, struct memos_error *err)
{
    return memos_fail(err, MEMOS_CORRUPT, "%s", what);
}

/* A lower layer says NOT_FOUND where something must be. */
static enum memos_status missing(
    enum memos_status status, const char *what, struct memos_error *err)
{
    return status == MEMOS_NOT_FOUND ? damaged(what, err) : status;
}

/* ---- one version --------------------------------------------------------------------------- */

static enum memos_status row_at(
    struct worker *w, uint32_t number, struct memcube_row *out, struct memos_error *err)
{
    const struct memcube_key wanted = memcube_key_of_u32(w->verify->number, number);
    struct memos_bytes key = memcube_key_view(&wanted), value;
    enum memos_status status = memcube_cursor_move(w->row, MEMCUBE_AT, &key, &value, err);
    if (status == MEMOS_OK) {
        status = memcube_row_decode(number, value, out, err);
    }
    return missing(status, "its row is missing", err);
}

/* The row of the version that the entry names: the next one, or where the chain says. */
static enum memos_status row_find(struct worker *w, const struct memcube_log_entry *entry,
    struct memcube_row *out, struct memos_error *err)
{
    struct memos_error ignored;
    uint64_t seq;
    if (w->row_next != 0 && row_at(w, w->row_next, out, &ignored) == MEMOS_OK) {
        struct memcube_hash hash = memcube_hash_of(out->header);
        if (memcube_hash_equal(&hash, &entry->version_hash)) {
            w->row_next++;
            return MEMOS_OK;
        }
    }
    enum memos_status status = memcube_chain_read(w->read, w->verify->number, &entry->ref.id,
        entry->ref.number, &w->row_next, &seq, err);
    status = missing(status, "its place in the chain is missing", err);
    if (status == MEMOS_OK) {
        status = row_at(w, w->row_next, out, err);
    }
    if (status != MEMOS_OK) {
        w->row_next = 0;
        return status;
    }
    w->row_next++;
    struct memcube_hash hash = memcube_hash_of(out->header);
    if (!memcube_hash_equal(&hash, &entry->version_hash)) {
        return damaged("its header is not the one that the record names", err);
    }
    return MEMOS_OK;
}

static enum memos_status cube_find(struct worker *w, const struct memos_id *id,
    struct memcube_cube *out, struct memos_error *err)
{
    const struct memcube_key wanted = memcube_key_of_id(w->verify->number, id);
    struct memos_bytes key = memcube_key_view(&wanted), value;
    enum memos_status status = memcube_cursor_move(w->cube, MEMCUBE_AT, &key, &value, err);
    if (status == MEMOS_OK) {
        status = memcube_cube_decode(id, value, out, err);
    }
    return missing(status, "its cube is missing", err);
}

/* A version without content: does the cube's newest version say that it was forgotten? That
 * version's own header is held against the log when its record comes. */
static enum memos_status check_forgotten(struct worker *w, const struct memcube_cube *cube,
    const struct memcube_version *version, struct memos_error *err)
{
    struct memcube_version head;
    enum memos_status status = memcube_header_at_row(
        w->read, w->verify->number, cube->row, &w->version_arena, &head, err);
    if (status != MEMOS_OK) {
        return missing(status, "the row of its cube's head is missing", err);
    }
    if (!memos_id_equal(&head.id, &cube->id) || head.state != MEMCUBE_STATE_FORGOTTEN) {
        return damaged("its cube counts as forgotten, but no version says so", err);
    }
    if (version->state != MEMCUBE_STATE_FORGOTTEN) {
        w->counts.forgotten++;
    }
    return MEMOS_OK;
}

static enum memos_status check_payload(struct worker *w, const struct memcube_row *row,
    const struct memcube_version *version, struct memos_error *err)
{
    struct memos_bytes bytes;
    uint32_t slot;
    memcpy(&slot, version->payload_hash.bytes, sizeof slot);
    struct checked *checked = &w->checked[slot % CHECKED_SLOTS];
    if (checked->place.slot != row->place.slot ||
        !memcube_hash_equal(&checked->hash, &version->payload_hash)) {
        enum memos_status status = memcube_payload_read(w->verify->store->payloads, w->read->txn,
            w->verify->number, row->place, &version->payload_hash, version->payload_bytes, true,
            &w->version_arena, &w->maps, &bytes, err);
        memcube_maps_release(&w->maps);
        if (status != MEMOS_OK) {
            struct memos_error inner = *err;
            return memos_fail(err, status, "its payload: %s", inner.text);
        }
        *checked = (struct checked){ version->payload_hash, row->place };
    }
    w->counts.payloads++;
    return MEMOS_OK;
}

static enum memos_status check_version(struct worker *w, const struct memcube_log_entry *entry,
    struct memos_error *err)
{
    struct memcube_row row;
    struct memcube_version version;
    struct memcube_cube cube;
    struct memos_bytes description;

    memos_arena_reset(&w->version_arena);
    enum memos_status status = row_find(w, entry, &row, err);
    if (status == MEMOS_OK) {
        status = memcube_header_decode(row.header, &w->version_arena, &version, err);
    }
    if (status == MEMOS_OK) {
        status = cube_find(w, &entry->ref.id, &cube, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    if (!memos_id_equal(&version.id, &entry->ref.id) || version.number != entry->ref.number) {
        return damaged("the record names it by another id or number than its header", err);
    }
    if (row.seq != w->seq) {
        return damaged("its row belongs to another record", err);
    }
    w->counts.versions++;
    if (cube.state == MEMCUBE_STATE_FORGOTTEN) {
        return check_forgotten(w, &cube, &version, err);
    }
    if (version.state == MEMCUBE_STATE_FORGOTTEN) {
        return damaged("it is forgotten, but its cube does not say so", err);
    }
    status = memcube_row_describe(
        w->read, &row, cube.slot, &version, &w->version_arena, &description, err);
    if (status == MEMOS_FORGOTTEN) {
        return damaged("the key of its description is gone, but nobody forgot it", err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    struct memcube_hash hash = memcube_hash_of(description);
    if (!memcube_hash_equal(&hash, &version.description_hash)) {
        return damaged("its description is not the one that its header names", err);
    }
    return check_payload(w, &row, &version, err);
}

/* ---- one record ---------------------------------------------------------------------------- */

static enum memos_status log_at(
    struct worker *w, uint64_t seq, struct memos_bytes *out, struct memos_error *err)
{
    const struct memcube_key wanted = memcube_key_of_u64(w->verify->number, seq);
    struct memos_bytes key = memcube_key_view(&wanted);
    return missing(memcube_cursor_move(w->log, MEMCUBE_AT, &key, out, err),
        "the record is missing", err);
}

/* Does what comes after record seq vouch for this hash of it? */
static bool vouched_for(struct worker *w, uint64_t seq, const struct memcube_hash *hash)
{
    struct memcube_log_record next;
    struct memos_bytes bytes;
    struct memos_id space_id;
    struct memos_error ignored;
    if (seq == w->verify->seq_end) {
        return memcube_hash_equal(hash, &w->verify->head);
    }
    return log_at(w, seq + 1, &bytes, &ignored) == MEMOS_OK &&
           memcube_log_decode(bytes, &w->record_arena, &space_id, &next, &ignored) == MEMOS_OK &&
           memcube_hash_equal(hash, &next.previous);
}

/* The record does not carry the hash of the one before: which of the two is damaged? If those after
 * it vouch for this one, the one before is. */
static enum memos_status link_broken(
    struct worker *w, const struct memcube_log_record *record, struct memos_error *err)
{
    if (record->seq > 1 && vouched_for(w, record->seq, &record->hash)) {
        w->seq = record->seq - 1;
        return damaged("the record is not the one that the next one carries the hash of", err);
    }
    return damaged("the record does not carry the hash of the one before", err);
}

static enum memos_status check_record(struct worker *w, uint64_t seq, struct memos_error *err)
{
    struct verify *v = w->verify;
    struct memcube_log_record record;
    struct memos_bytes bytes;
    struct memos_id space_id;

    w->seq = seq;
    w->ref = (struct memcube_ref){ .number = 0 };
    memos_arena_reset(&w->record_arena);
    enum memos_status status = log_at(w, seq, &bytes, err);
    if (status == MEMOS_OK) {
        status = memcube_log_decode(bytes, &w->record_arena, &space_id, &record, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    if (record.seq != seq || !memos_id_equal(&space_id, &v->space_id)) {
        return damaged("the record has another number or belongs to another space", err);
    }
    if (!memcube_hash_equal(&record.previous, &w->previous)) {
        return link_broken(w, &record, err);
    }
    for (size_t i = 0; i < record.entries_count; i++) {
        w->ref = record.entries[i].ref;
        status = check_version(w, &record.entries[i], err);
        if (status != MEMOS_OK) {
            return status;
        }
    }
    w->ref = (struct memcube_ref){ .number = 0 };
    if (record.time_us < w->time_us) {
        return damaged("the record is older than the one before", err);
    }
    if (seq == v->seq_end && !memcube_hash_equal(&record.hash, &v->head)) {
        return damaged("the record is not the one that the space carries the hash of", err);
    }
    w->previous = record.hash;
    w->time_us = record.time_us;
    w->counts.records++;
    return MEMOS_OK;
}

/* ---- ranges -------------------------------------------------------------------------------- */

static void snapshot_close(struct worker *w)
{
    memcube_cursor_close(&w->log);
    memcube_cursor_close(&w->row);
    memcube_cursor_close(&w->cube);
}

static enum memos_status snapshot_renew(struct worker *w, struct memos_error *err)
{
    const struct memcube_tables *tables = &w->verify->store->tables;
    snapshot_close(w);
    w->row_next = 0;
    enum memos_status status = w->read ? memcube_read_renew(w->read, err)
                                       : memcube_read_begin(w->verify->store, &w->read, err);
    if (status == MEMOS_OK) {
        status = memcube_cursor_open(w->read->txn, tables->log, &w->log, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_cursor_open(w->read->txn, tables->row, &w->row, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_cursor_open(w->read->txn, tables->cube, &w->cube, err);
    }
    return status;
}

/* Hash and time of the record before the range. If it is missing or unreadable, whoever has the
 * range before finds that; here it is as if it were all zeros. */
static void seam_read(struct worker *w, uint64_t seq)
{
    struct memcube_log_record record;
    struct memos_bytes bytes;
    struct memos_id space_id;
    struct memos_error ignored;

    w->previous = (struct memcube_hash){ { 0 } };
    w->time_us = INT64_MIN;
    if (seq == 0 || log_at(w, seq, &bytes, &ignored) != MEMOS_OK) {
        return;
    }
    memos_arena_reset(&w->record_arena);
    w->previous = memcube_hash_of(bytes);
    if (memcube_log_decode(bytes, &w->record_arena, &space_id, &record, &ignored) == MEMOS_OK) {
        w->time_us = record.time_us;
    }
}

/* A finding may come from a snapshot that is older than a forget: keys and files are destroyed
 * right after the commit. So it counts only when a new snapshot shows it, too. */
static enum memos_status check_range(
    struct worker *w, uint64_t seq, uint64_t seq_end, struct memos_error *err)
{
    enum memos_status status = snapshot_renew(w, err);
    if (status == MEMOS_OK) {
        seam_read(w, seq - 1);
    }
    for (; status == MEMOS_OK && seq <= seq_end; seq++) {
        struct counts before = w->counts;
        status = check_record(w, seq, err);
        if (memcube_verify_is_finding(status)) {
            w->counts = before;
            status = snapshot_renew(w, err);
            if (status == MEMOS_OK) {
                status = check_record(w, seq, err);
            }
        }
    }
    return status;
}

/* Keep the finding if it is the first in the history. */
static void finding_keep(struct verify *v, uint64_t seq, const struct memcube_ref *ref,
    const struct memos_error *err)
{
    struct memcube_verify_result *r = &v->result;
    if (!r->intact && r->bad_seq <= seq) {
        return;
    }
    r->intact = false;
    r->bad_seq = seq;
    r->bad_ref = *ref;
    (void)snprintf(r->what, sizeof r->what, "%.*s", (int)sizeof r->what - 1, err->text);
}

/* The next range; false: there is none, or somebody stopped. */
static bool range_take(struct verify *v, uint64_t *out_from, uint64_t *out_to)
{
    (void)pthread_mutex_lock(&v->lock);
    bool more = !v->stopped && v->seq_next <= v->seq_end;
    if (more) {
        uint64_t left = v->seq_end - v->seq_next;
        *out_from = v->seq_next;
        *out_to = left < RANGE_RECORDS ? v->seq_end : v->seq_next + RANGE_RECORDS - 1;
        v->seq_next = *out_to + 1;
    }
    (void)pthread_mutex_unlock(&v->lock);
    return more;
}

static uint64_t range_end(struct worker *w, uint64_t records, enum memos_status status,
    const struct memos_error *err)
{
    struct verify *v = w->verify;
    (void)pthread_mutex_lock(&v->lock);
    if (memcube_verify_is_finding(status)) {
        finding_keep(v, w->seq, &w->ref, err);
    } else if (status != MEMOS_OK && v->status == MEMOS_OK) {
        v->status = status;
        v->err = *err;
    }
    v->stopped |= status != MEMOS_OK;
    v->done += records;
    uint64_t done = v->done;
    (void)pthread_mutex_unlock(&v->lock);
    return done;
}

static void worker_run(struct worker *w, memcube_progress_fn *progress, void *self)
{
    struct verify *v = w->verify;
    uint64_t total = v->seq_end - v->seq_from + 1, from, to;
    while (range_take(v, &from, &to)) {
        struct memos_error err = { 0 };
        enum memos_status status = check_range(w, from, to, &err);
        uint64_t done = range_end(w, to - from + 1, status, &err);
        if (progress && !progress(self, done, total)) {
            (void)memos_fail(&err, MEMOS_CANCELLED, "verify was cancelled");
            (void)range_end(w, 0, MEMOS_CANCELLED, &err);
        }
    }
}

static enum memos_status worker_init(
    struct worker *w, struct verify *verify, struct memos_error *err)
{
    *w = (struct worker){ .verify = verify };
    memos_arena_init(&w->record_arena, SIZE_MAX);
    memos_arena_init(&w->version_arena, SIZE_MAX);
    w->checked = calloc(CHECKED_SLOTS, sizeof *w->checked);
    return w->checked ? MEMOS_OK : memos_fail(err, MEMOS_NO_MEMORY, "no memory to verify");
}

/* Give the counts in; nobody else runs any more. */
static void worker_finish(struct worker *w)
{
    struct memcube_verify_result *r = &w->verify->result;
    r->records += w->counts.records;
    r->versions += w->counts.versions;
    r->payloads += w->counts.payloads;
    r->forgotten += w->counts.forgotten;
    snapshot_close(w);
    memcube_read_end(&w->read);
    memos_arena_finish(&w->record_arena);
    memos_arena_finish(&w->version_arena);
    free(w->checked);
}

static void *helper_main(void *arg)
{
    worker_run(arg, NULL, NULL);
    return NULL;
}

/* ---- the whole ----------------------------------------------------------------------------- */

/* The calling thread and a helper; alone for a short history, or where there is no thread. */
static enum memos_status walk(struct verify *v, memcube_progress_fn *progress, void *self,
    struct memos_error *err)
{
    struct worker mine, helpers;
    pthread_t thread;
    bool helped = false;

    enum memos_status status = worker_init(&mine, v, err);
    enum memos_status helper = worker_init(&helpers, v, err);
    if (status == MEMOS_OK && helper == MEMOS_OK && v->seq_end - v->seq_from >= RANGE_RECORDS) {
        helped = pthread_create(&thread, NULL, helper_main, &helpers) == 0;
    }
    if (status == MEMOS_OK) {
        worker_run(&mine, progress, self);
    }
    if (helped) {
        (void)pthread_join(thread, NULL);
    }
    worker_finish(&mine);
    worker_finish(&helpers);
    if (status == MEMOS_OK && v->status != MEMOS_OK) {
        status = v->status;
        if (err) {
            *err = v->err;
        }
    }
    return status;
}

/* Nothing may lie behind the head. */
static enum memos_status check_end(
    struct verify *v, struct memcube_read *read, struct memos_error *err)
{
    struct memcube_key wanted = memcube_key_of_u64(v->number, v->seq_end + 1);
    struct memcube_key prefix = memcube_key_of(v->number);
    struct memos_bytes key = memcube_key_view(&wanted), value;
    struct memcube_cursor *cursor = NULL;

    enum memos_status status =
        memcube_cursor_open(read->txn, v->store->tables.log, &cursor, err);
    if (status == MEMOS_OK) {
        status = memcube_cursor_move(cursor, MEMCUBE_AT_OR_AFTER, &key, &value, err);
    }
    bool found = status == MEMOS_OK && memcube_key_begins(key, &prefix);
    memcube_cursor_close(&cursor);
    if (found) {
        struct memos_error what;
        const struct memcube_ref none = { .number = 0 };
        (void)damaged("a record lies behind the head of the space", &what);
        finding_keep(v, v->seq_end + 1, &none, &what);
    }
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

/* Every checkpoint: its signature, and that the history still has that head at that seq. */
static enum memos_status check_checkpoints(
    struct verify *v, struct memcube_read *read, struct memos_error *err)
{
    struct memcube_cursor *cursor = NULL;
    struct memcube_space space;
    struct memcube_key prefix = memcube_key_of(v->number);
    struct memos_bytes key = memcube_key_view(&prefix), value;

    enum memos_status status = memcube_space_find(read, v->name, &space, err);
    if (status == MEMOS_OK) {
        status = memcube_cursor_open(read->txn, v->store->tables.checkpoint, &cursor, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_cursor_move(cursor, MEMCUBE_AT_OR_AFTER, &key, &value, err);
    }
    while (status == MEMOS_OK && memcube_key_begins(key, &prefix)) {
        struct memcube_checkpoint checkpoint;
        struct memos_error what;
        enum memos_status found =
            memcube_checkpoint_decode(&v->space_id, key, value, &checkpoint, &what);
        if (found == MEMOS_OK) {
            found = memcube_checkpoint_check(read, &space, &checkpoint, &what);
        }
        if (memcube_verify_is_finding(found)) {
            const struct memcube_ref none = { .number = 0 };
            uint64_t seq = checkpoint.seq <= space.seq ? checkpoint.seq : space.seq + 1;
            finding_keep(v, seq, &none, &what);
        } else if (found != MEMOS_OK) {
            memcube_cursor_close(&cursor);
            return memos_fail(err, found, "%s", what.text);
        }
        status = memcube_cursor_move(cursor, MEMCUBE_NEXT, &key, &value, err);
    }
    memcube_cursor_close(&cursor);
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

/* How far the history is good, and its hash there. */
static void reached(struct verify *v, struct memcube_read *read)
{
    struct memcube_verify_result *r = &v->result;
    struct memos_bytes bytes;
    r->seq = v->seq_end;
    r->head = v->head;
    if (r->intact) {
        return;
    }
    r->seq = r->bad_seq > 0 ? r->bad_seq - 1 : 0;
    r->head = (struct memcube_hash){ { 0 } };
    struct memcube_key key = memcube_key_of_u64(v->number, r->seq);
    if (r->seq > 0 && memcube_get(read->txn, v->store->tables.log, memcube_key_view(&key), &bytes,
                          NULL) == MEMOS_OK) {
        r->head = memcube_hash_of(bytes);
    }
}

/* What is to be walked; false when the space cannot even be found out about, which is a finding. */
static enum memos_status prepare(struct verify *v, struct memcube_read *read, uint64_t from,
    bool *out_walk, struct memos_error *err)
{
    struct memcube_space space;
    struct memos_error inner;

    *out_walk = false;
    enum memos_status status = memcube_space_find(read, v->name, &space, &inner);
    if (status == MEMOS_CORRUPT || status == MEMOS_FORGOTTEN) {
        v->result.intact = false;
        (void)snprintf(v->result.what, sizeof v->result.what, "%.*s",
            (int)sizeof v->result.what - 1, inner.text);
        return MEMOS_OK;
    }
    if (status != MEMOS_OK) {
        return memos_fail(err, status, "%s", inner.text);
    }
    v->space_id = space.id;
    v->number = space.number;
    v->seq_end = space.seq;
    v->head = space.head;
    v->seq_from = from > 1 ? from : 1;
    v->seq_next = v->seq_from;
    *out_walk = true;
    return check_end(v, read, err);
}

/* No snapshot of ours is open while the threads walk: each has its own, and renews it. */
enum memos_status memcube_verify(struct memcube_store *store, struct memos_bytes space,
    uint64_t from, memcube_progress_fn *progress, void *progress_self,
    struct memcube_verify_result *out, struct memos_error *err)
{
    struct verify v = { .store = store, .name = space, .result.intact = true };
    struct memcube_read *read = NULL;
    bool walks = false;

    (void)pthread_mutex_init(&v.lock, NULL);
    enum memos_status status = memcube_read_begin(store, &read, err);
    if (status == MEMOS_OK) {
        status = prepare(&v, read, from, &walks, err);
    }
    memcube_read_end(&read);
    if (status == MEMOS_OK && walks && v.seq_from <= v.seq_end) {
        status = walk(&v, progress, progress_self, err);
    }
    if (status == MEMOS_OK && walks) {
        status = memcube_read_begin(store, &read, err);
    }
    if (status == MEMOS_OK && walks) {
        status = check_checkpoints(&v, read, err);
    }
    if (status == MEMOS_OK && walks) {
        reached(&v, read);
    }
    if (status == MEMOS_OK) {
        *out = v.result;
    }
    memcube_read_end(&read);
    (void)pthread_mutex_destroy(&v.lock);
    return status;
}
