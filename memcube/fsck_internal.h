/* What the parts of fsck share. Not for use outside memcube/.
 *
 * The idea: from the rows (the versions, which the log vouches for) and the log alone, every entry
 * that a derived table should have is worked out and emitted, one after the other. To check a
 * table, the entries that should be there and those that are there are summed up under a keyed hash
 * and the sums compared, so that nothing has to be kept in memory or looked up. To say what is
 * wrong, and to mend it, the same entries are emitted again, to be looked up or put. */
#ifndef MEMCUBE_FSCK_INTERNAL_H
#define MEMCUBE_FSCK_INTERNAL_H

#include "memcube/proof.h"

/* X(NAME, field of memcube_tables, "name"): what can be worked out from rows and log. */
#define MEMCUBE_FSCK_TABLES(X)                                                                     \
    X(CHAIN, chain, "chain")                                                                       \
    X(CUBE, cube, "cube")                                                                          \
    X(DOC, doc, "doc")                                                                             \
    X(BITS, bits, "bits")                                                                          \
    X(FACET, facet, "facet")                                                                       \
    X(TIME, time, "time")                                                                          \
    X(EXTERNAL, external, "external")                                                              \
    X(EDGE, edge, "edge")

enum memcube_fsck_table {
#define X(name, field, text) MEMCUBE_FSCK_##name,
    MEMCUBE_FSCK_TABLES(X)
#undef X
    MEMCUBE_FSCK_EXPIRY, /* its keys begin with a time, so it is checked for all spaces at once */
    MEMCUBE_FSCK_REFS,   /* payload.refs */
    MEMCUBE_FSCK_TABLES_COUNT,
};

/* The sum of entries, in any order. */
struct memcube_fsck_sum {
    uint64_t count, a, b;
};

/* Called for every entry that should be there. value.size 0: the key alone. */
struct memcube_fsck_emit {
    enum memos_status (*entry)(void *self, enum memcube_fsck_table table, struct memos_bytes key,
        struct memos_bytes value, struct memos_error *err);
    void *self;
};

/* When a cube became stale, or fresh again, as the log says. */
struct memcube_fsck_turn {
    struct memos_id id;
    uint64_t seq;
};

/* A space while it is worked out. */
struct memcube_fsck_space {
    struct memcube_store *store;
    struct memcube_read *read; /* a snapshot, or that of the repairing write */
    struct memcube_space space;
    struct memcube_fsck_emit emit;
    memcube_progress_fn *progress; /* asked now and then; may be NULL */
    void *progress_self;

    struct memos_arena arena; /* for one cube */
    struct memos_arena row_arena;
    struct memcube_fsck_turn *turns; /* sorted by id, then seq */
    size_t turns_count, turns_max;
    uint8_t *bits[256];              /* by enum memcube_bits, chunk after chunk; NULL: none */
    uint64_t slot_hint;              /* where a lost key is looked for first */

    /* counted on the way */
    uint32_t rows, docs;
    uint64_t entries; /* versions that the log names */
    uint64_t cubes, cubes_counted, payload_bytes, payloads, payloads_inline;
};

enum memos_status memcube_fsck_space_init(struct memcube_fsck_space *f,
    struct memcube_store *store, struct memcube_read *read, const struct memcube_space *space,
    struct memos_error *err);
void memcube_fsck_space_finish(struct memcube_fsck_space *f);

/* Emit the chain's entries from the rows, and check that rows and docs are numbered as they must
 * be. A finding (memcube_verify_is_finding) says that the rows themselves are damaged. */
enum memos_status memcube_fsck_chain(struct memcube_fsck_space *f, struct memos_error *err);

/* Emit everything else, except references; needs a chain that is right. */
enum memos_status memcube_fsck_derive(struct memcube_fsck_space *f, struct memos_error *err);

/* Emit the references of payloads (fsck_payload.c). */
enum memos_status memcube_fsck_references(struct memcube_fsck_space *f, struct memos_error *err);

/* Is every derived head stale exactly when its sources say so? *out_wrong is how many are not,
 * *out_first one of them. Each flag is held against the flags of what it was derived from; since
 * nothing is derived from itself, all are right when each is. Needs cubes that are right. */
enum memos_status memcube_fsck_stale(struct memcube_fsck_space *f, uint64_t *out_wrong,
    struct memos_id *out_first, struct memos_error *err);

/* ---- tables (fsck_table.c) ----------------------------------------------------------------- */

/* The tables of a space while they are compared with what was emitted. */
struct memcube_fsck_tables {
    struct memcube_store *store;
    struct memcube_read *read; /* a snapshot, or that of the repairing write */
    uint32_t space;
    uint8_t keys[2][16]; /* of the sums */
    struct memos_buffer scratch;
    unsigned wanted; /* find and put: only these, bits 1 << table */
    struct memcube_fsck_sum expected[MEMCUBE_FSCK_TABLES_COUNT];
    uint64_t absent[MEMCUBE_FSCK_TABLES_COUNT], wrong[MEMCUBE_FSCK_TABLES_COUNT];
};

void memcube_fsck_tables_init(struct memcube_fsck_tables *tables, struct memcube_store *store);
void memcube_fsck_tables_finish(struct memcube_fsck_tables *tables);

/* "facet" for MEMCUBE_FSCK_FACET. Static. */
const char *memcube_fsck_table_name(enum memcube_fsck_table table);

/* What to emit to, self is the memcube_fsck_tables: sum up what should be there; look each entry
 * up, counting what is absent or wrong; put it. */
enum memos_status memcube_fsck_emit_sum(void *self, enum memcube_fsck_table table,
    struct memos_bytes key, struct memos_bytes value, struct memos_error *err);
enum memos_status memcube_fsck_emit_find(void *self, enum memcube_fsck_table table,
    struct memos_bytes key, struct memos_bytes value, struct memos_error *err);
enum memos_status memcube_fsck_emit_put(void *self, enum memcube_fsck_table table,
    struct memos_bytes key, struct memos_bytes value, struct memos_error *err);

/* Sum up what is there. */
enum memos_status memcube_fsck_table_sum(struct memcube_fsck_tables *tables,
    enum memcube_fsck_table table, struct memcube_fsck_sum *out, struct memos_error *err);

/* Before everything is put anew: remove all entries of the space; of `cube`, whose records hold
 * the numbers of keys, only those of cubes that have no version. */
enum memos_status memcube_fsck_table_clear(struct memcube_fsck_tables *tables,
    enum memcube_fsck_table table, struct memos_error *err);

#endif
