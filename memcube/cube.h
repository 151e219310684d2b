/* The MemCube: the unit of memory, and one version of it.
 *
 * A cube is an identity in a space plus a chain of immutable versions. What a version says is in
 * two parts. The *header* (who, when, why, which payload by its hash, derived from what) is kept
 * for ever and is what the space's log vouches for. The *description* (title, tags, sources and
 * everything else that can repeat the payload's words) is vouched for by its hash in the header and
 * is destroyed together with the payload when the cube is forgotten.
 *
 * Sources: MemOS, arXiv 2507.03724, sec. 4.2 (descriptive, governance and behavioural metadata) and
 * sec. 5.2 (states). Departures: memcube/README.md. */
#ifndef MEMCUBE_CUBE_H
#define MEMCUBE_CUBE_H

#include "proto/id.h"

#define MEMCUBE_HASH_BYTES 32 /* BLAKE2b-256 */

struct memcube_hash {
    uint8_t bytes[MEMCUBE_HASH_BYTES];
};

/* X(NAME, number, "text"): numbers are in files and on the wire, for ever. */
#define MEMCUBE_KIND_TABLE(X)                                                                      \
    X(PLAINTEXT, 1, "plaintext")                                                                   \
    X(ACTIVATION, 2, "activation")                                                                 \
    X(PARAMETRIC, 3, "parametric")

/* What made a version, and what a log record says was done. */
#define MEMCUBE_OPERATION_TABLE(X)                                                                 \
    X(CREATE, 1, "create")                                                                         \
    X(UPDATE, 2, "update")                                                                         \
    X(MERGE, 3, "merge")                                                                           \
    X(TRANSFORM, 4, "transform")                                                                   \
    X(ROLLBACK, 5, "rollback")                                                                     \
    X(TRANSITION, 6, "transition")                                                                 \
    X(FORGET, 7, "forget")                                                                         \
    X(IMPORT, 8, "import")                                                                         \
    X(EXPIRE, 9, "expire")

/* X(NAME, number, "text", searched unless the caller names states)
 * WITHDRAWN is where a rollback to before its creation leaves a cube: as if it were not there, but
 * a later rollback brings it back. */
#define MEMCUBE_STATE_TABLE(X)                                                                     \
    X(GENERATED, 1, "generated", true)                                                             \
    X(ACTIVATED, 2, "activated", true)                                                             \
    X(FROZEN, 3, "frozen", true)                                                                   \
    X(MERGED, 4, "merged", false)                                                                  \
    X(ARCHIVED, 5, "archived", false)                                                              \
    X(EXPIRED, 6, "expired", false)                                                                \
    X(WITHDRAWN, 7, "withdrawn", false)                                                            \
    X(FORGOTTEN, 8, "forgotten", false)

enum memcube_kind {
#define X(name, number, text) MEMCUBE_##name = number,
    MEMCUBE_KIND_TABLE(X)
#undef X
};

enum memcube_operation {
#define X(name, number, text) MEMCUBE_OP_##name = number,
    MEMCUBE_OPERATION_TABLE(X)
#undef X
};

enum memcube_state {
#define X(name, number, text, searched) MEMCUBE_STATE_##name = number,
    MEMCUBE_STATE_TABLE(X)
#undef X
};

/* The texts above; NULL for a number outside its table. Static. */
const char *memcube_kind_text(int kind);
const char *memcube_operation_text(int operation);
const char *memcube_state_text(int state);

/* The number of a text; 0 for one outside its table. */
int memcube_kind_of(struct memos_bytes text);
int memcube_state_of(struct memos_bytes text);

/* May a cube go from one state to another on somebody's word (rollback and forget have their own
 * rules)? The table is in memcube/README.md. */
bool memcube_state_may_become(enum memcube_state from, enum memcube_state to);

/* Limits on what one version may carry; every decoder checks them. */
enum {
    MEMCUBE_SPACE_BYTES_MAX = 128,     /* "acme/alice": [a-z0-9A-Z._-] parts joined by '/' */
    MEMCUBE_SUBTYPE_BYTES_MAX = 32,    /* "fact", "event", "kv", "ffn_block" */
    MEMCUBE_NAME_BYTES_MAX = 256,      /* author, codec, language, speaker, a tag, a principal */
    MEMCUBE_TITLE_BYTES_MAX = 1024,
    MEMCUBE_REASON_BYTES_MAX = 1024,
    MEMCUBE_EXTERNAL_ID_BYTES_MAX = 256,
    MEMCUBE_TAGS_MAX = 64,
    MEMCUBE_SOURCES_MAX = 256,
    MEMCUBE_URI_BYTES_MAX = 4096,      /* where a source lies */
    MEMCUBE_DERIVED_MAX = 1024,
    MEMCUBE_READERS_MAX = 64,
    MEMCUBE_ATTRIBUTES_MAX = 64,
    MEMCUBE_ATTRIBUTE_BYTES_MAX = 4096, /* name and value together */
    MEMCUBE_SENSITIVITY_MAX = 4,
};

/* One version of one cube of the same space. */
struct memcube_ref {
    struct memos_id id;
    uint32_t number; /* version, from 1 */
};

/* Where something was learned: a message, a page, a span of a file. */
struct memcube_source {
    struct memos_bytes type;    /* "message", "file", "uri", "tool" */
    struct memos_bytes uri;     /* message id, path or address */
    uint64_t offset, length;    /* bytes within it; length 0: all of it */
};

struct memcube_attribute {
    struct memos_bytes name, value;
};

/* The part of a version that forget destroys. All strings are UTF-8. */
struct memcube_description {
    struct memos_bytes title;
    struct memos_bytes language;    /* BCP 47, "en"; empty: not known */
    struct memos_bytes speaker;     /* who said it */
    struct memos_bytes external_id; /* the sender's own id; unique in the space when not empty */
    int64_t event_us;               /* when it was said or happened; 0: when it was recorded */
    struct memos_bytes *tags;
    size_t tags_count;
    struct memcube_source *sources;
    size_t sources_count;
    struct memcube_attribute *attributes; /* anything else, name to text */
    size_t attributes_count;
    struct memos_bytes *readers; /* access list: when not empty, only these principals and admins */
    size_t readers_count;
};

/* Governance that the header keeps. Times are microseconds of wall clock; 0 is "not set". */
struct memcube_governance {
    int64_t valid_from_us, valid_to_us; /* when the fact holds */
    int64_t expires_us;                 /* time-to-live, as the moment it ends */
    int64_t retain_until_us;            /* forget and expiry are refused before this */
    uint8_t priority;                   /* 1..255; 0 in a draft: normal, which is 128 */
    uint8_t sensitivity;                /* 1 public, 2 normal, 3 confidential, 4 secret; 0 in a
                                           draft: normal */
};

/* One version, decoded. All views and arrays live as long as the snapshot (or arena) that they came
 * from. */
struct memcube_version {
    /* the header */
    struct memos_id id;
    uint32_t number;         /* 1, 2, 3 ... */
    uint32_t parent;         /* the version it was made from; 0 for the first */
    uint32_t equals;         /* rollback: the version that it repeats; 0 otherwise */
    enum memcube_operation operation;
    enum memcube_kind kind;
    enum memcube_state state;
    struct memos_bytes subtype;
    struct memos_bytes author; /* the authenticated principal */
    struct memos_bytes reason;
    struct memos_bytes model; /* fingerprint of the model that it was made by or is bound to */
    int64_t time_us;          /* when it was recorded */
    struct memcube_governance governance;
    struct memcube_ref *derived_from; /* cubes of the same space */
    size_t derived_count;
    struct memcube_hash payload_hash; /* BLAKE2b-256 of the payload's bytes */
    uint64_t payload_bytes;
    struct memos_bytes codec; /* "text/plain; charset=utf-8", "memos/kv1", ... */
    struct memcube_hash description_hash;

    struct memcube_description description; /* empty when forgotten */

    /* beside the chain: where it lies and how it stands now */
    uint64_t seq;  /* the log record that made it */
    uint32_t row;  /* its number among the versions of its space */
    uint32_t doc;  /* its content's number in the indexes of its space */
    uint64_t place; /* of its payload: for memcube_payload_get */
    bool stale;    /* derived from a version that no longer stands (only set for heads) */
};

/* What a caller gives to make a version. Everything is borrowed for the call. */
struct memcube_draft {
    enum memcube_kind kind;
    struct memos_bytes subtype;
    struct memos_bytes model;
    struct memos_bytes codec;
    struct memos_bytes payload;
    struct memcube_governance governance;
    struct memcube_description description;
    struct memcube_ref *derived_from;
    size_t derived_count;
};

/* Is this a well-formed space name: 1..128 bytes, parts of [A-Za-z0-9._-] joined by single slashes,
 * no part "." or ".."; one that begins with '_' belongs to memos itself. INVALID says what is
 * wrong. */
MEMOS_MUST_USE enum memos_status memcube_space_check(
    struct memos_bytes space, struct memos_error *err);

/* Check a description against the limits above, and that every string is UTF-8. INVALID or
 * TOO_LARGE, naming the field. */
MEMOS_MUST_USE enum memos_status memcube_description_check(
    const struct memcube_description *description, struct memos_error *err);

/* Check a draft against the limits above, UTF-8 and the tables. INVALID or TOO_LARGE, naming the
 * field. */
MEMOS_MUST_USE enum memos_status memcube_draft_check(
    const struct memcube_draft *draft, struct memos_error *err);

#endif
