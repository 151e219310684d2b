/* One run of memosctl: what was asked, the connection, how results are shown.
 *
 * Memory: whatever a command needs until its end comes from ctl->arena.
 *
 * Threads: one. */
#ifndef TOOLS_MEMOSCTL_CTL_H
#define TOOLS_MEMOSCTL_CTL_H

#include "proto/arena.h"
#include "proto/client.h"
#include "proto/clock.h"
#include "proto/id.h"
#include "tools/memosctl/args.h"
#include "tools/memosctl/commands.h"
#include "tools/memosctl/json.h"
#include "tools/memosctl/lines.h"
#include "tools/memosctl/table.h"

enum { CTL_TIMEOUT_MS = 30000, CTL_TIMEOUT_LONG_MS = 3600000 };
enum { CTL_ANY_BODY = -1 }; /* of ctl_call: whatever is answered */

struct ctl {
    const struct ctl_args *args;
    struct memos_client *client; /* NULL until ctl_connect */
    struct memos_clock clock;
    struct memos_arena arena;
    bool json, quiet;
    struct ctl_paper paper; /* standard output: how wide, in colour or not */
    bool asks;              /* somebody sits at the terminal who can be asked */
    struct ctl_lines lines; /* what they say */
    int64_t timeout_ms;
    const char *hint; /* for an error: better than its status has */
    bool progress_shown;
    int64_t began_us; /* monotonic */
};

/* Make ready for args. INVALID: a global option makes no sense. */
MEMOS_MUST_USE enum memos_status ctl_init(
    struct ctl *ctl, const struct ctl_args *args, struct memos_error *err);
void ctl_finish(struct ctl *ctl);

/* Connect, once; ctl_call does it by itself. */
MEMOS_MUST_USE enum memos_status ctl_connect(struct ctl *ctl, struct memos_error *err);

/* Operand i, NULL past the last. Operand 0 is the space where there is one. */
const char *ctl_operand(const struct ctl *ctl, size_t i);

/* A string for a field of the schema, which are not const although nobody writes to them. */
static inline char *ctl_field(const char *text)
{
    return (char *)(uintptr_t)(text ? text : "");
}

/* A request with this body; the body is borrowed. */
#define CTL_REQUEST(CASE, member, body)                                                            \
    ((Memos__Request){.base = PROTOBUF_C_MESSAGE_INIT(&memos__request__descriptor),                \
        .body_case = MEMOS__REQUEST__BODY_##CASE,                                                  \
        .member = (body)})

/* Send and wait for the last reply, whose body must be `want` (of enum Memos__Reply__BodyCase).
 * *out is set only on OK; free it with memos_message_free. Takes --idempotency-key where the
 * command has it. While the broker is overloaded it is sent again, for some seconds. CORRUPT: a
 * reply of another kind. */
MEMOS_MUST_USE enum memos_status ctl_call(struct ctl *ctl, Memos__Request *request,
    const struct memos_bytes *frames, size_t frames_count, int want, struct memos_message **out,
    struct memos_error *err);

/* The same for a page of cubes: when it would be too large, half as many are asked for, and in the
 * end one without its payload. *count_max and *with_payload are those of the request's body; after
 * it they are as they were. */
MEMOS_MUST_USE enum memos_status ctl_call_page(struct ctl *ctl, Memos__Request *request,
    uint32_t *count_max, protobuf_c_boolean *with_payload, struct memos_message **out,
    struct memos_error *err);

/* The id of a cube from what a person wrote: an id, its beginning, or "ext:" and an external id. */
MEMOS_MUST_USE enum memos_status ctl_id_resolve(struct ctl *ctl, const char *space,
    const char *text, struct memos_id *out, struct memos_error *err);

/* The same for operands from `first` on; out is taken from the arena, in the form of the schema. */
MEMOS_MUST_USE enum memos_status ctl_ids_resolve(struct ctl *ctl, size_t first,
    ProtobufCBinaryData **out, size_t *out_count, struct memos_error *err);

/* 16 bytes of an id from a reply; zeros when they are not 16. */
struct memos_id ctl_id_of(ProtobufCBinaryData data);
static inline ProtobufCBinaryData ctl_id_field(const struct memos_id *id)
{
    return (ProtobufCBinaryData){sizeof id->bytes, (uint8_t *)(uintptr_t)id->bytes};
}

/* Ask on the terminal; true only for a yes. Without one it is a no. */
bool ctl_ask(struct ctl *ctl, const char *question);

/* Progress on standard error once the command has run for two seconds: a line that is overwritten
 * on a terminal, a line every ten seconds elsewhere. total 0: not known. */
void ctl_progress(struct ctl *ctl, const char *what, uint64_t done, uint64_t total);
void ctl_progress_end(struct ctl *ctl);

/* A remark on standard error, unless --quiet. */
__attribute__((format(printf, 2, 3))) void ctl_note(struct ctl *ctl, const char *format, ...);

/* What went wrong, and what to do, on standard error. */
void ctl_error_print(
    const struct ctl *ctl, enum memos_status status, const struct memos_error *err);

/* Print a document (takes the reference) to standard output. NO_MEMORY when it is NULL; IO. */
MEMOS_MUST_USE enum memos_status ctl_json_print(json_t *document, struct memos_error *err);
/* The same on one line. */
MEMOS_MUST_USE enum memos_status ctl_json_line(json_t *document, struct memos_error *err);

/* A document {"NAME": [item, ...], "more": ...} that is printed while it comes in, an item on each
 * line. Zero-initialise; takes the items. */
struct ctl_json_stream {
    const char *name;
    bool is_begun;
};
MEMOS_MUST_USE enum memos_status ctl_json_stream_add(
    struct ctl_json_stream *stream, json_t *item, struct memos_error *err);
MEMOS_MUST_USE enum memos_status ctl_json_stream_end(
    struct ctl_json_stream *stream, bool more, struct memos_error *err);

/* Print what a change came to: as JSON, or as one line that begins with `verb`. */
MEMOS_MUST_USE enum memos_status ctl_outcome_print(
    struct ctl *ctl, const char *verb, const Memos__Outcome *outcome, struct memos_error *err);

#endif
