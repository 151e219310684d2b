#include "proto/envelope.h"

static void *take(void *arena, size_t size)
{
    return memos_arena_take(arena, 1, size);
}

static void leave(void *arena, void *piece)
{
    (void)arena;
    (void)piece;
}

size_t memos_envelope_memory(size_t size)
{
    size_t memory;
    if (__builtin_mul_overflow(size, (size_t)32, &memory) ||
        __builtin_add_overflow(memory, (size_t)1024 * 1024, &memory)) {
        return SIZE_MAX;
    }
    return memory;
}

/* protobuf-c gives no reason for a failure: out of the arena's bound looks like ill-formed
 * bytes. */
static enum memos_status unpack(const ProtobufCMessageDescriptor *descriptor,
    struct memos_bytes bytes, struct memos_arena *arena, ProtobufCMessage **out,
    struct memos_error *err)
{
    ProtobufCAllocator allocator = { take, leave, arena };
    ProtobufCMessage *message =
        protobuf_c_message_unpack(descriptor, &allocator, bytes.size, bytes.data);
    if (!message) {
        return memos_fail(err, MEMOS_INVALID, "%zu bytes that are no well-formed %s",
            bytes.size, descriptor->short_name);
    }
    *out = message;
    return MEMOS_OK;
}

enum memos_status memos_request_unpack(struct memos_bytes bytes, struct memos_arena *arena,
    Memos__Request **out, struct memos_error *err)
{
    return unpack(&memos__request__descriptor, bytes, arena, (ProtobufCMessage **)out, err);
}

enum memos_status memos_reply_unpack(struct memos_bytes bytes, struct memos_arena *arena,
    Memos__Reply **out, struct memos_error *err)
{
    return unpack(&memos__reply__descriptor, bytes, arena, (ProtobufCMessage **)out, err);
}

enum memos_status memos_event_unpack(struct memos_bytes bytes, struct memos_arena *arena,
    Memos__Event **out, struct memos_error *err)
{
    return unpack(&memos__event__descriptor, bytes, arena, (ProtobufCMessage **)out, err);
}

enum memos_status memos_envelope_begin(struct memos_frames *frames, struct memos_bytes identity,
    const ProtobufCMessage *envelope, struct memos_error *err)
{
    uint8_t *room = NULL;
    size_t size = protobuf_c_message_get_packed_size(envelope);
    enum memos_status status = memos_frames_begin(frames, identity, size, &room, err);
    if (status == MEMOS_OK) {
        protobuf_c_message_pack(envelope, room);
    }
    return status;
}
