/* The store: spaces of cubes, their hash-chained history, and every way to read and change them.
 *
 * What holds, always (fsck checks each):
 *  I1 every change of a space is one log record; seq counts 1, 2, 3 ... without gaps, and record n
 *     carries the hash of record n-1;
 *  I2 a log record names every version it made, with the hash of its header; the header names the
 *     hash of its description and of its payload;
 *  I3 a cube's head is its highest version; versions count 1, 2, 3 ...;
 *  I4 a payload is stored once per space, with as many references as versions that name it;
 *  I5 the indexes hold what the heads and their contents say, no more and no less;
 *  I6 a derived head is stale exactly when a version that it was derived from no longer stands
 *     (memcube/README.md says when that is), at any depth;
 *  I7 what is forgotten cannot be read from any file of the store.
 *
 * Caveats: one process at a time. Times in the log never step back: a record's time is the clock's,
 * or the last record's if the clock is behind it.
 *
 * Threads: the store may be shared. A memcube_read belongs to one thread, a memcube_write too, and
 * there is one write at a time (memcube/writer.h shares it among many). Readers never block.
 *
 * Lifetimes: everything that a read or write returns lives until it ends.
 *
 * Rights are not this layer's: the caller has checked them. The one exception is a cube's access
 * list, which memcube_docs_select and `viewer` apply. */
#ifndef MEMCUBE_STORE_H
#define MEMCUBE_STORE_H

#include "memcube/cube.h"
#include "memcube/index.h"
#include "proto/arena.h"

struct memcube_store;
struct memcube_read;
struct memcube_write;

struct memcube_store_options {
    const char *path;             /* folder; made when missing */
    uint64_t map_bytes;           /* see memcube/db.h; 0: default */
    uint64_t map_bytes_max;
    unsigned readers_max;         /* 0: default */
    size_t inline_bytes_max;      /* larger payloads are blob files. 0: 65536 */
    size_t payload_bytes_max;     /* 0: 1 GiB */
    struct memos_clock clock;
    struct memcube_index *const *indexes;
    size_t indexes_count;
    bool read_only;
    bool sync_off;
};

/* Opens, makes or migrates; finishes what a crash left over (blobs that nothing names, keys to
 * destroy). UNSUPPORTED: written by a newer format. BUSY: another process has it. */
MEMOS_MUST_USE enum memos_status memcube_store_open(const struct memcube_store_options *options,
    struct memcube_store **out_store, struct memos_error *err);

/* All reads and writes must have ended. Takes NULL. */
void memcube_store_close(struct memcube_store **store);

/* ---- reading ------------------------------------------------------------------------------- */

/* A point in a space's history. All zero: now. seq wins over time_us. */
struct memcube_as_of {
    uint64_t seq;
    int64_t time_us;
};

MEMOS_MUST_USE enum memos_status memcube_read_begin(
    struct memcube_store *store, struct memcube_read **out_read, struct memos_error *err);
void memcube_read_end(struct memcube_read **read);

/* Look at what is committed by now; views die, memory is kept. Cheaper than end and begin. */
MEMOS_MUST_USE enum memos_status memcube_read_renew(
    struct memcube_read *read, struct memos_error *err);

/* The snapshot inside a write: sees the write's own changes. Ends with it. */
struct memcube_read *memcube_write_read(struct memcube_write *write);

/* For indexes: the transaction and the memory of a snapshot. */
struct memcube_txn *memcube_read_txn(struct memcube_read *read);
struct memos_arena *memcube_read_arena(struct memcube_read *read);

/* Is this the snapshot inside a write? What it sees may never be committed: nothing of it may be
 * kept after it ends. */
bool memcube_read_inside_write(const struct memcube_read *read);

struct memcube_space {
    uint32_t number;          /* of this store; what keys begin with */
    struct memos_id id;       /* of the space wherever it goes; hashed into its log */
    struct memos_bytes name;
    uint64_t seq;             /* head of its log; 0: nothing yet */
    struct memcube_hash head; /* hash of that record */
    int64_t created_us, changed_us;
    uint64_t cubes;           /* with a head that is neither withdrawn nor forgotten */
    uint64_t versions;        /* rows count from 1 to this */
    uint32_t docs;            /* docs count from 1 to this */
    uint64_t payload_bytes;   /* stored once each */
    uint8_t secret[32];       /* for indexes: see memcube/index.h */
};

/* NOT_FOUND when there is no such space. */
MEMOS_MUST_USE enum memos_status memcube_space_find(struct memcube_read *read,
    struct memos_bytes name, struct memcube_space *out, struct memos_error *err);

/* Spaces in the order of their names, from the first name > after, at most count_max. */
MEMOS_MUST_USE enum memos_status memcube_space_list(struct memcube_read *read,
    struct memos_bytes after, struct memcube_space *out, size_t count_max, size_t *out_count,
    struct memos_error *err);

/* The seq that an as_of means in this space (0: before its first record). */
MEMOS_MUST_USE enum memos_status memcube_as_of_seq(struct memcube_read *read,
    const struct memcube_space *space, const struct memcube_as_of *as_of, uint64_t *out_seq,
    struct memos_error *err);

/* One version. number 0: the head as of as_of (NULL: now); a withdrawn head is NOT_FOUND then,
 * unless its number is asked for. A forgotten cube gives its header with state FORGOTTEN and no
 * description. An id that lies in another space is NOT_FOUND like one that exists nowhere. */
MEMOS_MUST_USE enum memos_status memcube_version_get(struct memcube_read *read,
    const struct memcube_space *space, const struct memos_id *id, uint32_t number,
    const struct memcube_as_of *as_of, struct memcube_version *out, struct memos_error *err);

/* The version at a row of the space. */
MEMOS_MUST_USE enum memos_status memcube_version_at_row(struct memcube_read *read,
    const struct memcube_space *space, uint32_t row, struct memcube_version *out,
    struct memos_error *err);

/* A version's payload: small ones are copied into the read's arena, large ones are mapped from
 * their file and unmapped by read_end/renew. FORGOTTEN when it was destroyed; CORRUPT when its hash
 * is wrong (checked only when verify is true: it costs a pass over the bytes). */
MEMOS_MUST_USE enum memos_status memcube_payload_get(struct memcube_read *read,
    const struct memcube_space *space, const struct memcube_version *version, bool verify,
    struct memos_bytes *out, struct memos_error *err);

/* Make a large payload outlive the read: true when bytes, as memcube_payload_get gave them, are
 * mapped; from then on they are the caller's, who unmaps them on whatever thread. A forget that is
 * carried out in the meantime turns them into zeros under him. */
bool memcube_payload_take(struct memcube_read *read, struct memos_bytes bytes);
void memcube_payload_unmap(struct memos_bytes bytes);

/* The path of the file that holds a large payload, so that a process on this host can map it
 * itself; NOT_FOUND for a payload that lies in the database. */
MEMOS_MUST_USE enum memos_status memcube_payload_path(struct memcube_read *read,
    const struct memcube_space *space, const struct memcube_version *version,
    struct memos_bytes *out_path, struct memos_error *err);

/* The cube whose current head carries this external id. */
MEMOS_MUST_USE enum memos_status memcube_external_find(struct memcube_read *read,
    const struct memcube_space *space, struct memos_bytes external_id, struct memos_id *out,
    struct memos_error *err);

/* Ids whose text begins with these hex digits (dashes allowed); CONFLICT when there are several. */
MEMOS_MUST_USE enum memos_status memcube_id_complete(struct memcube_read *read,
    const struct memcube_space *space, struct memos_bytes prefix, struct memos_id *out,
    struct memos_error *err);

/* Which cubes. Empty fields mean "any". Lists are ORs inside, ANDs between, except tags: all of
 * them. */
struct memcube_filter {
    unsigned kinds;                  /* bits 1 << enum memcube_kind; 0: any */
    unsigned states;                 /* bits 1 << enum memcube_state; 0: the searched ones */
    const struct memos_bytes *subtypes;
    size_t subtypes_count;
    const struct memos_bytes *tags;
    size_t tags_count;
    struct memos_bytes source;       /* a source's uri */
    struct memos_bytes speaker;
    int64_t from_us, to_us;          /* event time in [from, to); 0: open */
    bool include_stale;
    struct memos_bytes viewer;       /* principal, for access lists; data NULL: an administrator */
};

/* Which docs may be found: one bit per doc number, bit d of words[d / 64]; bit 0 is never set.
 * As of now it is made from bitmaps and index lists without touching versions; in the past, from
 * the docs' intervals. What has expired by the clock is left out although no sweep has written it
 * yet. */
struct memcube_docs {
    uint64_t *words;
    uint32_t docs_end;    /* one past the highest doc number of the space */
    uint32_t count;       /* bits set */
};
MEMOS_MUST_USE enum memos_status memcube_docs_select(struct memcube_read *read,
    const struct memcube_space *space, const struct memcube_filter *filter,
    const struct memcube_as_of *as_of, struct memcube_docs *out, struct memos_error *err);

/* May `viewer` (data NULL: an administrator) see this version? Not when a list of readers leaves
 * him out: its own, or the one that the cube's head carries now, so that the past does not show
 * what the present hides. What a get or a history gives must be asked about; selected docs have
 * been. */
MEMOS_MUST_USE enum memos_status memcube_viewer_may(struct memcube_read *read,
    const struct memcube_space *space, const struct memcube_version *version,
    struct memos_bytes viewer, bool *out_may, struct memos_error *err);

/* For indexes: the key of a doc (memcube/index.h). FORGOTTEN when it was destroyed; NOT_FOUND when
 * there is no such doc. */
MEMOS_MUST_USE enum memos_status memcube_doc_key(struct memcube_read *read, uint32_t space,
    uint32_t doc, uint8_t out_key[MEMCUBE_DOC_KEY_BYTES], struct memos_error *err);

/* For indexes, to read a content again: the space with this number (NOT_FOUND), and a version that
 * has this doc, be it found now or not (NOT_FOUND, FORGOTTEN). */
MEMOS_MUST_USE enum memos_status memcube_space_numbered(struct memcube_read *read, uint32_t number,
    struct memcube_space *out, struct memos_error *err);
MEMOS_MUST_USE enum memos_status memcube_doc_version(struct memcube_read *read,
    const struct memcube_space *space, uint32_t doc, struct memcube_version *out,
    struct memos_error *err);

/* For indexes that read many: the docs of a space from `first` on whose keys were not destroyed, in
 * order, at most count_max; 0 after the last. Go on with the last one's number plus one. */
struct memcube_doc_key {
    uint32_t doc;
    struct memos_id cube;
    uint8_t key[MEMCUBE_DOC_KEY_BYTES];
};
MEMOS_MUST_USE enum memos_status memcube_doc_keys(struct memcube_read *read, uint32_t space,
    uint32_t first, struct memcube_doc_key *out, size_t count_max, size_t *out_count,
    struct memos_error *err);

/* The version that stands for a doc as of a point (NULL: now). */
MEMOS_MUST_USE enum memos_status memcube_version_of_doc(struct memcube_read *read,
    const struct memcube_space *space, uint32_t doc, const struct memcube_as_of *as_of,
    struct memcube_version *out, struct memos_error *err);

/* List heads, newest event time first (or oldest). `cursor` is 0 to begin; *out_next is what to
 * pass for the next page, 0 after the last. */
struct memcube_list_query {
    struct memcube_filter filter;
    struct memcube_as_of as_of;
    bool oldest_first;
    uint64_t cursor;
    size_t count_max;
};
MEMOS_MUST_USE enum memos_status memcube_list(struct memcube_read *read,
    const struct memcube_space *space, const struct memcube_list_query *query,
    struct memcube_version *out, size_t *out_count, uint64_t *out_next, struct memos_error *err);

/* ---- history ------------------------------------------------------------------------------- */

struct memcube_log_entry {
    struct memcube_ref ref;           /* a version that the record made */
    struct memcube_hash version_hash; /* of its header */
};

struct memcube_log_record {
    uint64_t seq;
    int64_t time_us;
    enum memcube_operation operation;
    struct memos_bytes author, reason;
    struct memcube_hash previous, hash;
    struct memcube_log_entry *entries;
    size_t entries_count;
    struct memos_id *affected; /* derived cubes that it made stale, or fresh again */
    size_t affected_count;
    uint64_t rollback_to;      /* rollback: the seq that was gone back to (plus one, so that 0 is
                                  "not a rollback") */
};

/* Records from seq `from` upwards, or downwards when newest_first, at most count_max. */
MEMOS_MUST_USE enum memos_status memcube_log_read(struct memcube_read *read,
    const struct memcube_space *space, uint64_t from, bool newest_first,
    struct memcube_log_record *out, size_t count_max, size_t *out_count, struct memos_error *err);

/* All versions of a cube from number `from` on, at most count_max. */
MEMOS_MUST_USE enum memos_status memcube_history(struct memcube_read *read,
    const struct memcube_space *space, const struct memos_id *id, uint32_t from,
    struct memcube_version *out, size_t count_max, size_t *out_count, struct memos_error *err);

/* ---- changing ------------------------------------------------------------------------------ */

/* Who and why; the same for every call below. Everything borrowed for the call. */
struct memcube_change {
    struct memos_bytes space;     /* made when missing */
    struct memos_bytes author;    /* 1..256 bytes */
    struct memos_bytes reason;
    struct memos_bytes idempotency_key; /* empty: none. The same author and key within a day gives
                                           the first outcome again and changes nothing */
};

/* What came of it. Arrays live until the write ends. */
struct memcube_outcome {
    uint64_t seq; /* the record; 0: nothing was changed */
    int64_t time_us;
    struct memcube_hash head;
    struct memcube_ref *refs; /* the versions made (or, unchanged, found), in the order asked */
    size_t refs_count;
    struct memos_id *affected;
    size_t affected_count;
    bool repeated; /* the idempotency key was known */
};

/* Begin the one write transaction (waits for the one before). */
MEMOS_MUST_USE enum memos_status memcube_write_begin(
    struct memcube_store *store, struct memcube_write **out_write, struct memos_error *err);

/* Durable with one sync; destroys the keys and blobs of what was forgotten, too. Ends the write,
 * whatever happens; on failure nothing of it is in the store, except when it is the destroying that
 * fails: then all of it is, and forgetting the same cubes again tries that again, as does opening
 * the store. */
MEMOS_MUST_USE enum memos_status memcube_write_commit(
    struct memcube_write **write, struct memos_error *err);
void memcube_write_abort(struct memcube_write **write);

/* After a failed change: can the write go on (the change left no trace), or must it be aborted? */
bool memcube_write_broken(const struct memcube_write *write);

/* Make cubes: one record, all or none. A draft whose external id is already there with the same
 * content is not written again: its ref is the version that stands; with other content it is an
 * update of that cube. */
MEMOS_MUST_USE enum memos_status memcube_create(struct memcube_write *write,
    const struct memcube_change *change, const struct memcube_draft *drafts, size_t drafts_count,
    struct memcube_outcome *out, struct memos_error *err);

/* What of a draft an update sets; the rest stays as in the head. */
enum memcube_field {
    MEMCUBE_FIELD_PAYLOAD = 1 << 0, /* with codec */
    MEMCUBE_FIELD_TITLE = 1 << 1,
    MEMCUBE_FIELD_TAGS = 1 << 2,
    MEMCUBE_FIELD_SOURCES = 1 << 3,
    MEMCUBE_FIELD_LANGUAGE = 1 << 4,
    MEMCUBE_FIELD_SPEAKER = 1 << 5,
    MEMCUBE_FIELD_EVENT_TIME = 1 << 6,
    MEMCUBE_FIELD_VALIDITY = 1 << 7,
    MEMCUBE_FIELD_EXPIRY = 1 << 8,
    MEMCUBE_FIELD_RETENTION = 1 << 9,
    MEMCUBE_FIELD_PRIORITY = 1 << 10,
    MEMCUBE_FIELD_SENSITIVITY = 1 << 11,
    MEMCUBE_FIELD_READERS = 1 << 12,
    MEMCUBE_FIELD_ATTRIBUTES = 1 << 13,
    MEMCUBE_FIELD_DERIVED = 1 << 14, /* with model */
    MEMCUBE_FIELD_SUBTYPE = 1 << 15,
};

struct memcube_update {
    struct memos_id id;
    uint32_t expected; /* the head must be this version, else CONFLICT; 0: whatever it is */
    unsigned fields;   /* of enum memcube_field */
    struct memcube_draft draft;
    const struct memos_bytes *tags_add, *tags_remove; /* beside FIELD_TAGS */
    size_t tags_add_count, tags_remove_count;
    bool transform; /* the operation is TRANSFORM, not UPDATE */
};
/* FROZEN, FORGOTTEN, NOT_FOUND, CONFLICT. An update that changes nothing makes no version. */
MEMOS_MUST_USE enum memos_status memcube_update(struct memcube_write *write,
    const struct memcube_change *change, const struct memcube_update *updates,
    size_t updates_count, struct memcube_outcome *out, struct memos_error *err);

/* Join cubes: a new one from draft, derived_from the heads of `sources`, which become MERGED. */
MEMOS_MUST_USE enum memos_status memcube_merge(struct memcube_write *write,
    const struct memcube_change *change, const struct memos_id *sources, size_t sources_count,
    const struct memcube_draft *draft, struct memcube_outcome *out, struct memos_error *err);

/* Change the state of cubes (activate, freeze, archive ...; the table in README.md says from where
 * to where). CONFLICT names the states; thawing a frozen cube is a transition to ACTIVATED. */
MEMOS_MUST_USE enum memos_status memcube_transition(struct memcube_write *write,
    const struct memcube_change *change, const struct memos_id *ids, size_t ids_count,
    enum memcube_state to, struct memcube_outcome *out, struct memos_error *err);

/* One line of what a rollback does or would do. */
struct memcube_rollback_item {
    struct memos_id id;
    uint32_t from, to;       /* head now; version gone back to, 0: it did not exist (WITHDRAWN) */
    uint32_t made;           /* the version that the rollback made; 0: a dry run, or skipped */
    enum memos_status status; /* OK; FROZEN, FORGOTTEN: skipped, and why */
};

struct memcube_rollback {
    const struct memos_id *ids; /* these cubes; none: the whole space */
    size_t ids_count;
    struct memcube_as_of to;    /* seq, or time; or for one cube: */
    uint32_t to_version;        /* this version of the one cube in ids */
    bool to_beginning;          /* before the first record: everything is withdrawn */
    bool include_frozen;        /* else a frozen cube that would change is skipped */
    bool dry_run;               /* only say what would be done */
};

/* Appends versions equal to the old ones, in one record, all or none; itself undone by a rollback
 * to the seq before. Items lie in the write's memory. */
MEMOS_MUST_USE enum memos_status memcube_rollback(struct memcube_write *write,
    const struct memcube_change *change, const struct memcube_rollback *rollback,
    struct memcube_outcome *out, struct memcube_rollback_item **out_items, size_t *out_items_count,
    struct memos_error *err);

struct memcube_forgotten {
    struct memos_id *ids; /* the cubes and everything derived from them, at any depth */
    size_t ids_count;
    uint64_t payloads_destroyed;
    uint64_t payloads_shared; /* kept: another cube has the same payload */
};

/* Destroy payloads, descriptions and index entries, of all versions, of cubes and of everything
 * that was derived from them. When the commit returns OK, they cannot be read from any file of the
 * store. CONFLICT while retain_until lies ahead, unless force. */
MEMOS_MUST_USE enum memos_status memcube_forget(struct memcube_write *write,
    const struct memcube_change *change, const struct memos_id *ids, size_t ids_count, bool force,
    bool dry_run, struct memcube_outcome *out, struct memcube_forgotten *out_forgotten,
    struct memos_error *err);

/* Write what time has brought (expiry, validity's end) for at most count_max cubes of any space;
 * one record per space. *out_more: there is more to do. Also drops idempotency keys older than a
 * day. */
MEMOS_MUST_USE enum memos_status memcube_sweep(struct memcube_write *write, size_t count_max,
    size_t *out_count, bool *out_more, struct memos_error *err);

/* ---- behaviour (outside the history) ------------------------------------------------------- */

struct memcube_behaviour {
    uint64_t reads;
    int64_t last_read_us;
    float usefulness; /* exponential mean of feedback in [-1, 1] */
};

/* Count in memory; any thread. Written with the next sweep, or at close. */
void memcube_behaviour_count(struct memcube_store *store, uint32_t space,
    const struct memos_id *id, int64_t now_us);
MEMOS_MUST_USE enum memos_status memcube_behaviour_get(struct memcube_read *read, uint32_t space,
    const struct memos_id *id, struct memcube_behaviour *out, struct memos_error *err);
MEMOS_MUST_USE enum memos_status memcube_behaviour_feedback(struct memcube_write *write,
    struct memos_bytes space, const struct memos_id *id, float usefulness,
    struct memos_error *err);

/* ---- proof --------------------------------------------------------------------------------- */

struct memcube_verify_result {
    bool intact;
    uint64_t records, versions, payloads; /* checked */
    uint64_t forgotten;                   /* payloads that are gone by a forget record */
    uint64_t seq;                         /* head that was reached, with its hash */
    struct memcube_hash head;
    uint64_t bad_seq;                     /* first bad record; 0: none */
    struct memcube_ref bad_ref;           /* the version in it, number 0 if the record itself */
    char what[160];                       /* what is wrong with it */
};

/* Called now and then; false stops with CANCELLED. May be NULL. */
typedef bool memcube_progress_fn(void *self, uint64_t done, uint64_t total);

/* Walk a space's history from seq `from` (0: the beginning): every record's hash and link, every
 * version's header, description and payload, every checkpoint. Reads in bounded steps, so that it
 * can run beside writers. A broken history is a result, not an error. */
MEMOS_MUST_USE enum memos_status memcube_verify(struct memcube_store *store,
    struct memos_bytes space, uint64_t from, memcube_progress_fn *progress, void *progress_self,
    struct memcube_verify_result *out, struct memos_error *err);

/* A statement that can be kept elsewhere: "space ID had head HASH at SEQ". */
struct memcube_checkpoint {
    struct memos_id space_id;
    uint64_t seq;
    struct memcube_hash head;
    int64_t time_us;
    uint8_t public_key[32];
    uint8_t signature[64]; /* Ed25519 over the canonical bytes of the fields above */
};

/* Sign the head of a space and keep the checkpoint in the store. secret_key: 64 bytes
 * (libsodium). */
MEMOS_MUST_USE enum memos_status memcube_checkpoint_make(struct memcube_write *write,
    struct memos_bytes space, const uint8_t secret_key[64], struct memcube_checkpoint *out,
    struct memos_error *err);
MEMOS_MUST_USE enum memos_status memcube_checkpoint_list(struct memcube_read *read,
    const struct memcube_space *space, struct memcube_checkpoint *out, size_t count_max,
    size_t *out_count, struct memos_error *err);
/* Is the signature right, and does the space still have that head at that seq? CORRUPT,
 * CONFLICT. */
MEMOS_MUST_USE enum memos_status memcube_checkpoint_check(struct memcube_read *read,
    const struct memcube_space *space, const struct memcube_checkpoint *checkpoint,
    struct memos_error *err);

/* One thing that fsck found. */
struct memcube_fsck_result {
    uint64_t spaces, cubes, versions, docs, payloads, blobs; /* looked at */
    uint64_t problems;
    uint64_t repaired;
    char first[160]; /* what the first problem is; "" when there is none */
};
/* Check I1-I6 of every space (verify, then everything that is derived from the log). repair
 * rebuilds what can be rebuilt from the versions (indexes, heads, references), never the
 * history. */
typedef void memcube_fsck_problem_fn(void *self, const char *problem);
MEMOS_MUST_USE enum memos_status memcube_fsck(struct memcube_store *store, bool repair,
    memcube_progress_fn *progress, memcube_fsck_problem_fn *problem, void *self,
    struct memcube_fsck_result *out, struct memos_error *err);

struct memcube_store_stats {
    uint64_t spaces, map_bytes, file_bytes, used_bytes, blob_bytes, blobs;
    uint64_t commits, records, versions_made, payloads_destroyed, map_grown;
    uint64_t last_txn;
};
MEMOS_MUST_USE enum memos_status memcube_store_stats(
    struct memcube_store *store, struct memcube_store_stats *out, struct memos_error *err);

/* For benchmarks (memcube_db_trace) and the indexes' own background work. */
struct memcube_db *memcube_store_db(struct memcube_store *store);
const struct memos_clock *memcube_store_clock(const struct memcube_store *store);

#endif
