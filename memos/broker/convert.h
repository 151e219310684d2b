/* Between the messages of the schema and the structs of the store.
 *
 * On the way in, everything that a client can size or point with is checked here: counts, ids of 16
 * bytes, payload frames that are there and used once, numbers within their tables, texts within
 * their limits and in UTF-8. What a draft says as a whole is checked by memcube_draft_check. What
 * comes out can be handed to the store.
 *
 * On the way out, texts get the NUL that protobuf-c wants, in the arena of the reply.
 *
 * Lifetimes: what comes in views the message and its arena; what goes out views what it was made
 * of.
 *
 * Threads: no state. */
#ifndef MEMOS_BROKER_CONVERT_H
#define MEMOS_BROKER_CONVERT_H

#include "memcube/archive.h"
#include "proto/client.h"
#include "proto/envelope.h"
#include "retrieval/search.h"
#include "retrieval/vote.h"

enum {
    BROKER_BATCH_MAX = 1000,   /* drafts, changes, ids, results of one request */
    BROKER_SEARCHES_MAX = 256, /* in one SearchMany; texts in one Classify */
    BROKER_TREE_LEVELS_MAX = 8,
    BROKER_EXAMPLES_PRESET = 3,
    BROKER_EXAMPLES_MAX = 20,
    BROKER_COUNT_PRESET = 100, /* of list and log when the client names none */
    BROKER_TOP_K_PRESET = 10,
    BROKER_QUERY_BYTES_MAX = 64 * 1024,
    BROKER_EVENT_ITEMS_MAX = 256,
    BROKER_PRINCIPAL_BYTES_MAX = 64,
    BROKER_KEY_BYTES = 40, /* a public key in Z85 */
};

#define BROKER_RECEIPT_SUBTYPE "receipt" /* of cubes that say what an answer was made of */

/* ---- in -------------------------------------------------------------------------------------- */

struct broker_call_get {
    struct memos_id *ids;
    size_t ids_count;
    struct memos_bytes id_prefix, external_id;
    struct memos_bytes *external_ids; /* one of the four is given */
    size_t external_ids_count;
    uint32_t number;
    struct memcube_as_of as_of;
};

struct broker_call_search {
    struct retrieval_query query;
    struct memos_bytes space;
    bool no_payload, ids_only, explain;
    size_t neighbours;
    enum memos_status status; /* not OK: its space's name is none */
    struct memos_error err;
};

struct broker_call_classify {
    struct memos_bytes *texts;
    size_t count;
    struct memos_bytes tag_prefix;
    struct memcube_filter filter;
    struct memcube_as_of as_of;
    size_t top_k;
    float margin, temperature;
    enum retrieval_method method;
};

struct broker_call_tree {
    uint32_t path[BROKER_TREE_LEVELS_MAX];
    size_t path_count;
    struct memos_bytes text; /* instead of a path; empty: none */
    bool build;
    size_t examples;
};

struct broker_call_import {
    bool begin, commit;
    uint64_t bytes_total, offset;
    uint8_t token[16];
    struct memos_bytes part;
};

/* A request as the store understands it. Which member of the union is set is the envelope's
 * body_case; bodies without a member need nothing but the space. */
struct broker_call {
    struct memos_bytes space;     /* empty when the request is about none */
    struct memcube_change change; /* without the author */
    union {
        struct {
            struct memcube_draft *drafts;
            size_t count;
        } put;
        struct {
            struct memcube_update *updates;
            size_t count;
        } update;
        struct broker_call_get get;
        struct memcube_list_query list;
        struct {
            struct broker_call_search *searches;
            size_t count;
        } search;
        struct broker_call_classify classify;
        struct broker_call_tree tree;
        struct {
            uint64_t from;
            size_t count_max;
        } log;
        struct {
            struct memos_id id;
            uint32_t from;
            size_t count_max;
        } history;
        struct {
            struct memos_id *sources;
            size_t count;
            struct memcube_draft draft;
        } merge;
        struct {
            struct memos_id *ids;
            size_t count;
            enum memcube_state to;
        } transition;
        struct memcube_rollback rollback;
        struct {
            struct memos_id *ids;
            size_t count;
        } forget;
        struct memcube_checkpoint checkpoint; /* when the request has one to check */
        struct {
            struct memos_id id;
            bool single_cube;
        } export;
        struct broker_call_import import;
        struct {
            struct memos_bytes after;
            size_t count_max;
        } spaces;
        struct {
            const char *model; /* as the client calls it */
            unsigned priority; /* 1..255 */
        } work;
        struct {
            struct memos_id id;
            float usefulness;
        } feedback;
        struct {
            struct memos_bytes principal, spaces, rights;
        } grant;
        struct {
            struct memos_bytes public_key, principal;
        } key;
    };
};

/* Convert and check a request. INVALID, TOO_LARGE, UNSUPPORTED (no body, or one that is not known).
 */
MEMOS_MUST_USE enum memos_status broker_call_make(const Memos__Request *request,
    const struct memos_frames *frames, struct memos_arena *arena, struct broker_call *out,
    struct memos_error *err);

/* The same for the requests about models and workers (convert_work.c). */
MEMOS_MUST_USE enum memos_status broker_call_work(const Memos__Request *request,
    const struct memos_frames *frames, struct broker_call *out, struct memos_error *err);

/* Is this a principal's name: 1..64 of [A-Za-z0-9._@+-]? */
bool broker_principal_valid(struct memos_bytes principal);

/* Is this what a grant is on: a space's name, "PREFIX/" and a star, or "*"? */
bool broker_pattern_valid(struct memos_bytes pattern);

/* ---- out ------------------------------------------------------------------------------------- */

/* All of these take from the arena and answer NO_MEMORY when it is full. */

MEMOS_MUST_USE enum memos_status broker_text_make(
    struct memos_arena *arena, struct memos_bytes text, char **out, struct memos_error *err);

/* A version without payload, path and behaviour. */
MEMOS_MUST_USE enum memos_status broker_cube_make(struct memos_arena *arena,
    const struct memcube_version *version, Memos__Cube *out, struct memos_error *err);

/* Everything is copied, so that it outlives the write. */
MEMOS_MUST_USE enum memos_status broker_outcome_make(struct memos_arena *arena,
    struct memos_bytes space, const struct memcube_outcome *outcome, Memos__Outcome *out,
    struct memos_error *err);

MEMOS_MUST_USE enum memos_status broker_rollback_items_make(struct memos_arena *arena,
    const struct memcube_rollback_item *items, size_t count, Memos__Outcome *out,
    struct memos_error *err);

MEMOS_MUST_USE enum memos_status broker_record_make(struct memos_arena *arena,
    const struct memcube_log_record *record, Memos__LogRecord *out, struct memos_error *err);

MEMOS_MUST_USE enum memos_status broker_checkpoint_make(struct memos_arena *arena,
    const struct memcube_checkpoint *checkpoint, Memos__CheckpointInfo *out,
    struct memos_error *err);

MEMOS_MUST_USE enum memos_status broker_summary_make(struct memos_arena *arena,
    const struct memcube_archive_summary *summary, Memos__ArchiveSummary **out,
    struct memos_error *err);

/* Copies of 16 bytes each. */
MEMOS_MUST_USE enum memos_status broker_ids_make(struct memos_arena *arena,
    const struct memos_id *ids, size_t count, ProtobufCBinaryData **out, struct memos_error *err);
MEMOS_MUST_USE enum memos_status broker_refs_make(struct memos_arena *arena,
    const struct memcube_ref *refs, size_t count, Memos__Ref ***out, struct memos_error *err);

/* An array of `count` messages of one type, and an array of pointers to them, as protobuf-c wants a
 * repeated field: *out_items is the first message. The messages are not initialised. */
MEMOS_MUST_USE enum memos_status broker_array_make(struct memos_arena *arena, size_t count,
    size_t item_bytes, void ***out_pointers, struct memos_error *err);

#endif
