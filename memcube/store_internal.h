/* What the files of the store share. Not for use outside memcube/.
 *
 * How a change is made: a call plans (it reads, checks everything that can be refused, and says
 * what versions it wants: struct memcube_step), then it applies, through memcube_changing_*, which
 * writes rows, chain, docs, indexes, staleness and the log record. Planning leaves no trace when it
 * fails. Once applying has begun, only the database can fail, and a failure makes the write
 * broken. */
#ifndef MEMCUBE_STORE_INTERNAL_H
#define MEMCUBE_STORE_INTERNAL_H

#include "memcube/db.h"
#include "memcube/payload.h"
#include "memcube/record.h"
#include "memcube/store.h"
#include "memcube/store_key.h"
#include "memcube/vault.h"

#include <pthread.h>
#include <stdatomic.h>

/* X(field, "name", type): the tables of the store itself; payload.c and indexes have their own. */
#define MEMCUBE_STORE_TABLES(X)                                                                    \
    X(meta, "meta", MAP)                                                                           \
    X(space, "space", MAP)                                                                         \
    X(number, "number", MAP)                                                                       \
    X(log, "log", MAP)                                                                             \
    X(row, "row", MAP)                                                                             \
    X(cube, "cube", MAP)                                                                           \
    X(chain, "chain", MAP)                                                                         \
    X(doc, "doc", MAP)                                                                             \
    X(bits, "bits", MAP)                                                                           \
    X(facet, "facet", SET)                                                                         \
    X(time, "time", MAP)                                                                           \
    X(external, "external", MAP)                                                                   \
    X(edge, "edge", SET)                                                                           \
    X(expiry, "expiry", MAP)                                                                       \
    X(idem, "idem", MAP)                                                                           \
    X(checkpoint, "checkpoint", MAP)                                                               \
    X(behave, "behave", MAP)

struct memcube_tables {
#define X(field, name, type) memcube_table field;
    MEMCUBE_STORE_TABLES(X)
#undef X
};

enum {
    MEMCUBE_FORMAT = 2,
    MEMCUBE_BITS_BYTES = 512, /* of a chunk: 4096 docs */
    MEMCUBE_BITS_DOCS = MEMCUBE_BITS_BYTES * 8,
};

struct memcube_behaviours; /* counters in memory; store_behaviour.c */

struct memcube_store {
    struct memcube_db *db;
    struct memcube_vault *vault;
    struct memcube_payloads *payloads;
    struct memcube_tables tables;
    struct memcube_behaviours *behaviours;
    struct memos_clock clock;
    size_t payload_bytes_max;
    bool read_only;
    struct memcube_index **indexes; /* a copy of the caller's list */
    size_t indexes_count;
    /* One write at a time, until it has destroyed what it forgot. Sync: guards the three below. */
    pthread_mutex_t writing;
    struct memos_id_source ids;
    struct memcube_write *write; /* the one that is going on */
    bool shred_pending;          /* destroying failed: tried again with the next commit */
    /* Sync: counters for stats, any thread. */
    _Atomic uint64_t commits, records, versions_made, payloads_destroyed, map_grown;
};

struct memcube_read {
    struct memcube_store *store;
    struct memcube_txn *txn;
    struct memcube_write *write; /* the write that this snapshot is inside of; NULL: none */
    struct memos_arena arena;
    struct memcube_maps maps;
};

/* ---- spaces (store_space.c) ---------------------------------------------------------------- */

/* A space that a write has touched: kept in memory, written once with the commit. */
struct memcube_space_state {
    struct memcube_space space; /* its name points to name */
    uint64_t secret_slot;
    bool dirty;
    struct memcube_space_state *next;
    char name[MEMCUBE_SPACE_BYTES_MAX + 1];
};

/* The write's state of a space. NOT_FOUND. */
enum memos_status memcube_space_state_find(struct memcube_write *write, struct memos_bytes name,
    struct memcube_space_state **out, struct memos_error *err);
/* NOT_FOUND, with the name. */
enum memos_status memcube_space_missing(struct memos_bytes name, struct memos_error *err);
/* Make it; a first write. */
enum memos_status memcube_space_state_make(struct memcube_write *write, struct memos_bytes name,
    int64_t time_us, const struct memos_id *id, struct memcube_space_state **out,
    struct memos_error *err);
/* Name by number; copied into the read's arena. */
enum memos_status memcube_space_name(struct memcube_read *read, uint32_t number,
    struct memos_bytes *out_name, struct memos_error *err);
enum memos_status memcube_spaces_flush(struct memcube_write *write, struct memos_error *err);
enum memos_status memcube_space_decode(struct memcube_store *store, struct memos_bytes name,
    struct memos_bytes value, struct memcube_space *out, uint64_t *out_slot,
    struct memos_error *err);
void memcube_space_encode(
    const struct memcube_space *space, uint64_t secret_slot, struct memos_buffer *out);

/* ---- cubes, rows, chain (store_read.c) ----------------------------------------------------- */

enum {
    MEMCUBE_CUBE_STALE = 1 << 0,      /* the head is derived from what does not stand */
    MEMCUBE_CUBE_RESTRICTED = 1 << 1, /* some version has or had a list of readers */
};

/* Where a cube stands: the value of table `cube`. */
struct memcube_cube {
    struct memos_id id;
    uint32_t row, number; /* of the head */
    uint32_t doc;         /* the head's content; 0 when forgotten */
    enum memcube_state state;
    unsigned flags;
    uint64_t slot; /* key of the descriptions */
};

/* A version as it lies in table `row`. */
struct memcube_row {
    struct memcube_place place;
    uint32_t doc;
    uint64_t seq;
    struct memos_bytes header, description; /* the latter encrypted */
};

/* NOT_FOUND names the id. */
enum memos_status memcube_cube_read(struct memcube_read *read, uint32_t space,
    const struct memos_id *id, struct memcube_cube *out, struct memos_error *err);
enum memos_status memcube_cube_decode(
    const struct memos_id *id, struct memos_bytes value, struct memcube_cube *out,
    struct memos_error *err);
void memcube_cube_encode(const struct memcube_cube *cube, struct memos_buffer *out);
enum memos_status memcube_cube_write(struct memcube_write *write, uint32_t space,
    const struct memcube_cube *cube, struct memos_error *err);
enum memos_status memcube_row_decode(
    uint32_t row, struct memos_bytes value, struct memcube_row *out, struct memos_error *err);
/* Inside a write the bytes are copied into the arena, since the next change kills views. */
enum memos_status memcube_row_read(struct memcube_read *read, uint32_t space, uint32_t row,
    struct memos_arena *arena, struct memcube_row *out, struct memos_error *err);
/* All descriptions of a cube are encrypted under one key, so each needs a nonce of its own, also
 * those of transactions that never committed: their pages may have reached the disk. The hash that
 * the header has of a description speaks for it and its random salt, so it gives the nonce. */
uint64_t memcube_description_nonce(const struct memcube_hash *description_hash);
/* The description's plain bytes (with their salt), in the arena; FORGOTTEN. `header` is the row's,
 * decoded. */
enum memos_status memcube_row_describe(struct memcube_read *read, const struct memcube_row *row,
    uint64_t slot, const struct memcube_version *header, struct memos_arena *arena,
    struct memos_bytes *out, struct memos_error *err);
/* Header only: no description, and `stale` not filled. */
enum memos_status memcube_header_at_row(struct memcube_read *read, uint32_t space, uint32_t row,
    struct memos_arena *arena, struct memcube_version *out, struct memos_error *err);
/* With its description; a forgotten cube's has none and says so in its state. */
enum memos_status memcube_version_load(struct memcube_read *read, uint32_t space,
    const struct memcube_cube *cube, uint32_t row, struct memos_arena *arena,
    struct memcube_version *out, struct memos_error *err);
/* The cube that has this external id, withdrawn or not. NOT_FOUND. */
enum memos_status memcube_external_cube(struct memcube_read *read,
    const struct memcube_space *space, struct memos_bytes external_id, struct memos_id *out,
    struct memos_error *err);
/* Row and seq of a version by its number. NOT_FOUND. */
enum memos_status memcube_chain_read(struct memcube_read *read, uint32_t space,
    const struct memos_id *id, uint32_t number, uint32_t *out_row, uint64_t *out_seq,
    struct memos_error *err);
/* The highest version that record `seq` or an earlier one made. NOT_FOUND: there was none yet. */
enum memos_status memcube_chain_as_of(struct memcube_read *read, uint32_t space,
    const struct memcube_cube *cube, uint64_t seq, uint32_t *out_number, uint32_t *out_row,
    struct memos_error *err);

/* When a record was written. */
enum memos_status memcube_log_time(struct memcube_read *read, const struct memcube_space *space,
    uint64_t seq, int64_t *out_us, struct memos_error *err);

/* ---- sets of ids (store_ids.c) ------------------------------------------------------------- */

/* Ids in the order in which they were added, each once. Lives in an arena. Zero-initialise. */
struct memcube_ids {
    struct memos_id *ids;
    size_t count, capacity;
    uint32_t *slots; /* index + 1 into ids by hash; 0: free */
    size_t slots_count;
    uint8_t secret[16]; /* so that nobody can choose ids that fall together */
};
/* NO_MEMORY. *out_index is where it lies; *out_added whether it is new. Both may be NULL. */
enum memos_status memcube_ids_add(struct memcube_ids *set, struct memos_arena *arena,
    const struct memos_id *id, size_t *out_index, bool *out_added, struct memos_error *err);
bool memcube_ids_find(const struct memcube_ids *set, const struct memos_id *id, size_t *out_index);

/* ---- bits, facets, docs (store_bits.c, store_facet.c, store_doc.c) ------------------------- */

/* Bitmaps over docs. Below MEMCUBE_BITS_STALE: by the state of the head that the doc belongs to. */
enum memcube_bits {
    MEMCUBE_BITS_STALE = 16,
    MEMCUBE_BITS_READERS = 17, /* docs whose last version has a list of readers */
    MEMCUBE_BITS_KIND = 32,    /* plus enum memcube_kind */
};

/* A chunk of a bitmap that a write has changed. */
struct memcube_bits_page {
    struct memcube_bits_page *next;
    uint32_t space, chunk;
    uint8_t which;
    uint8_t bytes[MEMCUBE_BITS_BYTES];
};
enum { MEMCUBE_BITS_BUCKETS = 256 };

enum memos_status memcube_bits_set(struct memcube_write *write, uint32_t space, uint8_t which,
    uint32_t doc, bool value, struct memos_error *err);
/* words[] |= the bitmap, for docs below docs_end. */
enum memos_status memcube_bits_load(struct memcube_read *read, uint32_t space, uint8_t which,
    uint64_t *words, uint32_t docs_end, struct memos_error *err);
enum memos_status memcube_bits_flush(struct memcube_write *write, struct memos_error *err);

enum memcube_facet {
    MEMCUBE_FACET_TAG = 1,
    MEMCUBE_FACET_SUBTYPE = 2,
    MEMCUBE_FACET_SOURCE = 3,
    MEMCUBE_FACET_SPEAKER = 4,
};

struct memcube_facet_key {
    uint8_t facet;
    uint8_t hash[8]; /* SipHash with the space's secret, so that nobody can read it in the files */
};
struct memcube_facet_key memcube_facet_of(
    const uint8_t secret[32], enum memcube_facet facet, struct memos_bytes value);
/* All of a version, sorted, each once, in the arena. */
enum memos_status memcube_facets_of(const uint8_t secret[32],
    const struct memcube_version *version, struct memos_arena *arena,
    struct memcube_facet_key **out, size_t *out_count, struct memos_error *err);
/* Make a doc's facets those of `after` where they are those of `before` (NULL: none). */
enum memos_status memcube_facets_move(struct memcube_write *write,
    const struct memcube_space *space, uint32_t doc, const struct memcube_version *before,
    const struct memcube_version *after, struct memos_error *err);
/* words[] |= docs under a facet. */
enum memos_status memcube_facet_load(struct memcube_read *read, const struct memcube_space *space,
    enum memcube_facet facet, struct memos_bytes value, uint64_t *words, uint32_t docs_end,
    struct memos_error *err);

/* The 16 bytes that stand for an external id in table `external`. */
struct memcube_key memcube_external_key(
    const struct memcube_space *space, struct memos_bytes external_id);

/* From seq `from` up to before seq `to`, a doc was the content of its cube's head. */
struct memcube_interval {
    uint64_t from, to; /* UINT64_MAX: still is */
    int64_t expires_us; /* INT64_MAX: never */
    uint8_t state;
    bool stale;
};

/* The value of table `doc`. A forgotten doc has no intervals and no event time. */
struct memcube_doc {
    struct memos_id id;
    uint32_t first, last; /* versions with this content; facets and time are those of the last */
    int64_t event_us;
    struct memcube_interval *intervals;
    size_t intervals_count;
};
enum memos_status memcube_doc_decode(struct memos_bytes value, struct memos_arena *arena,
    struct memcube_doc *out, struct memos_error *err);
enum memos_status memcube_doc_read(struct memcube_read *read, uint32_t space, uint32_t doc,
    struct memos_arena *arena, struct memcube_doc *out, struct memos_error *err);
void memcube_doc_encode(const struct memcube_doc *record, struct memos_buffer *out);
enum memos_status memcube_doc_write(struct memcube_write *write, uint32_t space, uint32_t doc,
    const struct memcube_doc *record, struct memos_error *err);
/* The doc becomes the head's content with record seq, in the state and with the staleness of `as`
 * (there is room for one interval more); it ceases to be. */
void memcube_doc_open(struct memcube_doc *doc, uint64_t seq, const struct memcube_interval *as);
void memcube_doc_close(struct memcube_doc *doc, uint64_t seq);

/* When does the clock end it? INT64_MAX: never. Only generated and activated cubes expire, and not
 * before their retention ends. */
int64_t memcube_expiry_of(enum memcube_state state, const struct memcube_governance *governance);

/* ---- writing (store_write.c) --------------------------------------------------------------- */

struct memcube_write {
    struct memcube_read read; /* of the same transaction; its arena is the write's */
    struct memcube_store *store;
    struct memcube_space_state *spaces;
    struct memcube_bits_page *bits[MEMCUBE_BITS_BUCKETS];
    uint64_t slot_next;   /* vault slot; 0: not read yet */
    uint32_t space_next;  /* 0: not read yet */
    bool slot_dirty, space_dirty;
    bool broken;
    bool shred;           /* something is on the list of things to destroy */
    struct memos_arena scratch; /* for one step */
    struct memos_buffer header, description, value;
    uint64_t records, versions, destroyed;
};

enum memos_status memcube_slot_take(
    struct memcube_write *write, uint64_t *out_slot, struct memos_error *err);

/* How a write ended. Said here and not asked of the database afterwards, since cleaning up after a
 * write has transactions of its own. */
struct memcube_write_end {
    bool committed; /* all of it is in the store, even when what it forgot is not destroyed yet */
    bool map_full;  /* nothing of it is, or what it forgot is not destroyed, for want of map */
};
enum memos_status memcube_write_finish(
    struct memcube_write **write, struct memcube_write_end *out_end, struct memos_error *err);

/* Destroy what a commit could not. */
enum memos_status memcube_shred_pending(struct memcube_store *store, struct memos_error *err);

/* ---- changing (store_change.c) ------------------------------------------------------------- */

/* One change call while it is applied: one log record. */
struct memcube_changing {
    struct memcube_write *write;
    struct memcube_space_state *state;
    const struct memcube_change *change;
    enum memcube_operation operation;
    uint64_t seq;
    int64_t time_us;
    uint64_t rollback_to;
    struct memcube_log_entry *entries;
    size_t entries_count, entries_max;
    struct memcube_ids touched; /* cubes that may have come to stand otherwise */
    struct memcube_ids affected;
};

/* One version to be made. */
struct memcube_step {
    struct memcube_cube cube;           /* where it stands; number 0: a new cube */
    const struct memcube_version *head; /* its head, decoded; NULL for a new cube */
    const struct memcube_version *like; /* the version whose doc it shares; NULL: new content */
    struct memcube_version version;     /* what to make; id, number, seq, row, doc, time and
                                           description_hash are filled in */
    struct memos_bytes payload;         /* for new content, and for a new payload */
    bool payload_share;                 /* it is in the store under version.payload_hash */
    bool bare;                          /* forget: a header alone, without payload and doc */
    /* Import: the bytes as they were (number, time and author stand in the header). */
    struct memos_bytes header_raw, description_raw;
};

/* Check space, author, reason and key of a change. */
enum memos_status memcube_change_check(const struct memcube_change *change,
    struct memos_error *err);
/* The first things that every change call does. *out_state NULL: the space is not there yet.
 * *out_repeated: the idempotency key was known, and *out is filled. */
enum memos_status memcube_change_enter(struct memcube_write *write,
    const struct memcube_change *change, struct memcube_space_state **out_state,
    struct memcube_outcome *out, bool *out_repeated, struct memos_error *err);
/* Begin to apply. entries_max: how many steps at most. Makes the space if it is missing. */
enum memos_status memcube_changing_begin(struct memcube_changing *changing,
    struct memcube_write *write, const struct memcube_change *change,
    enum memcube_operation operation, size_t entries_max, struct memos_error *err);
enum memos_status memcube_changing_step(
    struct memcube_changing *changing, struct memcube_step *step, struct memos_error *err);
/* Staleness, the log record, the idempotency key, the outcome (refs: all entries, unless given). */
enum memos_status memcube_changing_end(struct memcube_changing *changing,
    const struct memcube_ref *refs, size_t refs_count, struct memcube_outcome *out,
    struct memos_error *err);
/* Nothing had to be done: the outcome without a record. */
enum memos_status memcube_changing_none(struct memcube_write *write,
    const struct memcube_change *change, const struct memcube_ref *refs, size_t refs_count,
    struct memcube_outcome *out, struct memos_error *err);
/* Import: the record's bytes as they were, instead of a new record. */
enum memos_status memcube_changing_end_raw(
    struct memcube_changing *changing, struct memos_bytes log, struct memos_error *err);

/* ---- planning (store_plan.c) --------------------------------------------------------------- */

/* Have both the same content for an index (memcube/index.h says what that is)? */
bool memcube_content_same(const struct memcube_version *a, const struct memcube_version *b);
/* Do both say the same, in everything that a caller can set, and in state? */
enum memos_status memcube_version_same(struct memcube_write *write,
    const struct memcube_version *a, const struct memcube_version *b, bool *out_same,
    struct memos_error *err);

/* The head of a cube, for a change: NOT_FOUND (withdrawn, too, unless wanted), FORGOTTEN. */
enum memos_status memcube_head_for_change(struct memcube_write *write,
    const struct memcube_space *space, const struct memos_id *id, bool withdrawn_too,
    struct memcube_cube *out_cube, struct memcube_version *out_head, struct memos_error *err);
/* A step that repeats `from` as the next version of the cube, by this author for this reason. */
void memcube_step_repeat(struct memcube_step *step, const struct memcube_cube *cube,
    const struct memcube_version *head, const struct memcube_version *from,
    enum memcube_operation operation, const struct memcube_change *change);
/* A step that makes a cube as the draft says. */
void memcube_step_create(struct memcube_step *step, const struct memcube_draft *draft,
    enum memcube_operation operation, const struct memcube_change *change);
/* What a draft says, with its defaults, in a version; but not its payload. */
void memcube_version_take(struct memcube_version *version, const struct memcube_draft *draft);
/* memcube_draft_check, and the store's own limit. */
enum memos_status memcube_store_draft_check(struct memcube_write *write,
    const struct memcube_draft *draft, struct memos_error *err);
bool memcube_derived_same(const struct memcube_version *a, const struct memcube_version *b);
/* Apply the steps that are to be made, in one record; one without an operation changes nothing. */
enum memos_status memcube_steps_apply(struct memcube_write *write,
    const struct memcube_change *change, enum memcube_operation operation,
    struct memcube_step *steps, size_t steps_count, struct memcube_outcome *out,
    struct memos_error *err);
/* INVALID when an id is named twice. */
enum memos_status memcube_ids_distinct(struct memcube_write *write, const struct memos_id *ids,
    size_t count, struct memos_error *err);

/* The key of a doc under its cube's slot (store_index.c). FORGOTTEN. */
enum memos_status memcube_slot_doc_key(struct memcube_vault *vault, uint64_t slot, uint32_t doc,
    uint8_t out_key[MEMCUBE_DOC_KEY_BYTES], struct memos_error *err);

/* What a change does to docs (store_doc.c). The head's content ceases to be the head's: */
enum memos_status memcube_doc_leave(struct memcube_changing *changing,
    const struct memcube_cube *cube, struct memos_error *err);
/* the content of step->version (new without step->like) becomes the head's; */
enum memos_status memcube_doc_enter(struct memcube_changing *changing,
    const struct memcube_step *step, struct memos_error *err);
/* the head's flag changes; */
enum memos_status memcube_doc_stale(struct memcube_changing *changing,
    const struct memcube_cube *cube, bool stale, struct memos_error *err);
/* a content goes from every index, while its description can still be read. */
enum memos_status memcube_doc_forget(struct memcube_changing *changing,
    const struct memcube_cube *cube, uint32_t doc, struct memos_error *err);

/* ---- forgetting (store_forget.c) ----------------------------------------------------------- */

/* Take a cube's content out of the store: docs, references, external id, behaviour; its keys go on
 * the list of what the commit destroys. The version that says so is for the caller to make. Counts
 * onto `forgotten`. */
enum memos_status memcube_cube_destroy(struct memcube_changing *changing,
    const struct memcube_cube *cube, const struct memcube_version *head,
    struct memcube_forgotten *forgotten, struct memos_error *err);

/* ---- idempotency (store_idem.c) ------------------------------------------------------------ */

/* Was this key given within a day? Then *out is the first outcome, and repeated. NOT_FOUND. */
enum memos_status memcube_idem_find(struct memcube_write *write,
    const struct memcube_change *change, struct memcube_outcome *out, struct memos_error *err);
/* Remember an outcome; nothing without a key. */
enum memos_status memcube_idem_keep(struct memcube_write *write,
    const struct memcube_change *change, const struct memcube_outcome *outcome,
    struct memos_error *err);
/* Drop at most count_max old keys. */
enum memos_status memcube_idem_sweep(struct memcube_write *write, int64_t now_us, size_t count_max,
    bool *out_more, struct memos_error *err);

/* ---- derivation (store_stale.c) ------------------------------------------------------------ */

/* Add to `closure` everything that was ever derived from what is in it, at any depth. */
enum memos_status memcube_edges_close(struct memcube_read *read, uint32_t space,
    struct memcube_ids *closure, struct memos_arena *arena, struct memos_error *err);
enum memos_status memcube_edges_write(struct memcube_write *write, uint32_t space,
    const struct memcube_version *version, const struct memcube_version *head,
    struct memos_error *err);
/* Does the head (header suffices) derive from something that does not stand? */
enum memos_status memcube_stale_compute(struct memcube_read *read, uint32_t space,
    const struct memcube_version *head, struct memos_arena *arena, bool *out_stale,
    struct memos_error *err);
/* May `id` be derived from these? Each must be there (FORGOTTEN, NOT_FOUND), and none may come from
 * `id` itself (INVALID). id NULL: a cube that is not made yet. */
enum memos_status memcube_derived_check(struct memcube_write *write, uint32_t space,
    const struct memos_id *id, const struct memcube_ref *refs, size_t refs_count,
    struct memos_error *err);
/* Work the flag out anew for the touched cubes and all that is derived from them. */
enum memos_status memcube_stale_update(
    struct memcube_changing *changing, struct memos_error *err);
/* Does a head in this state let what was derived from it stand? */
bool memcube_state_stands(enum memcube_state state);

/* ---- behaviour (store_behaviour.c) --------------------------------------------------------- */

enum memos_status memcube_behaviours_create(
    struct memcube_behaviours **out, struct memos_error *err);
void memcube_behaviours_destroy(struct memcube_behaviours **behaviours);
enum memos_status memcube_behaviours_flush(struct memcube_write *write, struct memos_error *err);
enum memos_status memcube_behaviour_erase(struct memcube_write *write, uint32_t space,
    const struct memos_id *id, struct memos_error *err);

#endif
