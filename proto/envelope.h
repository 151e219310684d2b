/* Envelopes to bytes and back, in bounded memory.
 *
 * protobuf-c allocates a whole struct for a nested message of two bytes, so that an envelope
 * can ask for a hundred times its own size. Here all of it comes out of an arena, whose
 * size_max is the bound, and goes with the arena: nothing is freed one by one, and
 * `..._free_unpacked` is never called.
 *
 * What is unpacked is well-formed and nothing more: numbers, lengths and the text's encoding
 * are for the caller to check (memos_bytes_utf8). A string is cut at its first NUL. Fields that
 * are not known are kept in unknown_fields and ignored; a body that is not known leaves
 * body_case at NOT_SET.
 *
 * Threads: no shared state. */
#ifndef PROTO_ENVELOPE_H
#define PROTO_ENVELOPE_H

#include "proto/arena.h"
#include "proto/frame.h"
#include "proto/memos.pb-c.h"

/* Memory enough for any honest envelope of size bytes: a constant for what is short and many,
 * and 32 times the size for what is long. */
size_t memos_envelope_memory(size_t size);

/* Unpack from bytes into arena. Views until the arena is reset. INVALID: not such a message, or one
 * that needs more memory than the arena may take. NO_MEMORY: the arena got none. */
MEMOS_MUST_USE enum memos_status memos_request_unpack(struct memos_bytes bytes,
    struct memos_arena *arena, Memos__Request **out, struct memos_error *err);
MEMOS_MUST_USE enum memos_status memos_reply_unpack(struct memos_bytes bytes,
    struct memos_arena *arena, Memos__Reply **out, struct memos_error *err);
MEMOS_MUST_USE enum memos_status memos_event_unpack(struct memos_bytes bytes,
    struct memos_arena *arena, Memos__Event **out, struct memos_error *err);

/* Begin a message with this envelope: memos_frames_begin and pack in one. */
MEMOS_MUST_USE enum memos_status memos_envelope_begin(struct memos_frames *frames,
    struct memos_bytes identity, const ProtobufCMessage *envelope, struct memos_error *err);

#endif
