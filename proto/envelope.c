#include "proto/envelope.h"

/* Where protobuf-c gets its memory from, and why it got none: it gives no reason itself. */
struct supply {
    struct memos_arena *arena;
    bool beyond_bound, no_memory;
};

static void *take(void *self, size_t size)
{
    struct supply *supply = self;
    void *piece = memos_arena_take(supply->arena, 1, size);
    if (!piece && size <= supply->arena->size_max - supply->arena->used) {
        supply->no_memory = true;
    } else if (!piece) {
        supply->beyond_bound = true;
    }
    return piece;
}

static void leave(void *self, void *piece)
{
    (void)self;
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

static enum memos_status unpack(const ProtobufCMessageDescriptor *descriptor,
    struct memos_bytes bytes, struct memos_arena *arena, ProtobufCMessage **out,
    struct memos_error *err)
{
    struct supply supply = { .arena = arena };
    ProtobufCAllocator allocator = { take, leave, &supply };
    ProtobufCMessage *message =
        protobuf_c_message_unpack(descriptor, &allocator, bytes.size, bytes.data);
    if (!message && supply.no_memory) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a %s", descriptor->short_name);
    } else if (!message && supply.beyond_bound) {
        return memos_fail(err, MEMOS_INVALID, "a %s of %zu bytes that takes more than %zu to read",
            descriptor->short_name, bytes.size, arena->size_max);
    } else if (!message) {
        return memos_fail(err, MEMOS_INVALID, "%zu bytes that are no well-formed %s", bytes.size,
            descriptor->short_name);
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
