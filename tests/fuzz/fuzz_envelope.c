/* Any bytes as a Request, a Reply or an Event: unpacked in bounded memory, every field visited,
 * packed and unpacked again.
 *
 * Input: one byte that chooses, then the envelope. */
#include "proto/envelope.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t visit_message(ProtobufCMessage *message);

static size_t visit_value(const ProtobufCFieldDescriptor *field, const void *value)
{
    const ProtobufCBinaryData *binary = value;
    size_t sum = 0;
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        return strlen(*(char *const *)value);
    case PROTOBUF_C_TYPE_BYTES:
        for (size_t i = 0; i < binary->len; i++) {
            sum += binary->data[i];
        }
        return sum;
    case PROTOBUF_C_TYPE_MESSAGE: {
        ProtobufCMessage *nested = *(ProtobufCMessage *const *)value;
        return nested ? visit_message(nested) : 0;
    }
    default:
        return *(const uint8_t *)value;
    }
}

static size_t value_size(const ProtobufCFieldDescriptor *field)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    default:
        return 4; /* uint32, float and bool: all that the schema has else */
    }
}

/* Also drops what is not known: protobuf-c takes a long way to write the field number 0, packs it
 * the short way, and then does not take it any more. */
static size_t visit_message(ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *descriptor = message->descriptor;
    const uint8_t *base = (const uint8_t *)message;
    size_t sum = 0;
    message->n_unknown_fields = 0;
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        const uint8_t *member = base + field->offset;
        const uint8_t *quantifier = base + field->quantifier_offset;
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            size_t count;
            const uint8_t *items;
            memcpy(&count, quantifier, sizeof count);
            memcpy(&items, member, sizeof items);
            for (size_t k = 0; k < count; k++) {
                sum += visit_value(field, items + k * value_size(field));
            }
        } else if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0) {
            uint32_t chosen;
            memcpy(&chosen, quantifier, sizeof chosen);
            sum += chosen == field->id ? visit_value(field, member) : 0;
        } else {
            sum += visit_value(field, member);
        }
    }
    return sum;
}

static enum memos_status unpack(unsigned kind, struct memos_bytes bytes, struct memos_arena *arena,
    ProtobufCMessage **out)
{
    struct memos_error err = { 0 };
    Memos__Request *request = NULL;
    Memos__Reply *reply = NULL;
    Memos__Event *event = NULL;
    enum memos_status status;
    if (kind == 0) {
        status = memos_request_unpack(bytes, arena, &request, &err);
        *out = (ProtobufCMessage *)request; /* its first member; may be NULL */
    } else if (kind == 1) {
        status = memos_reply_unpack(bytes, arena, &reply, &err);
        *out = (ProtobufCMessage *)reply;
    } else {
        status = memos_event_unpack(bytes, arena, &event, &err);
        *out = (ProtobufCMessage *)event;
    }
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    unsigned kind = data[0] % 3;
    struct memos_arena arena, again;
    ProtobufCMessage *message = NULL, *back = NULL;
    memos_arena_init(&arena, memos_envelope_memory(size));
    if (unpack(kind, memos_bytes_make(data + 1, size - 1), &arena, &message) == MEMOS_OK) {
        size_t sum = visit_message(message);
        size_t packed_size = protobuf_c_message_get_packed_size(message);
        uint8_t *packed = malloc(packed_size + 1);
        memos_assert(packed);
        memos_assert(protobuf_c_message_pack(message, packed) == packed_size);
        memos_arena_init(&again, SIZE_MAX / 2);
        struct memos_bytes bytes = memos_bytes_make(packed, packed_size);
        memos_assert(unpack(kind, bytes, &again, &back) == MEMOS_OK);
        memos_assert(visit_message(back) == sum);
        memos_arena_finish(&again);
        free(packed);
    }
    memos_assert(arena.used_most <= memos_envelope_memory(size));
    memos_arena_finish(&arena);
    return 0;
}
