#include "proto/frame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t protocol_frame[MEMOS_PROTOCOL_BYTES] = {
    'M', 'E', 'M', 'O', 'S', MEMOS_PROTOCOL_VERSION
};

struct memos_bytes memos_protocol_frame(void)
{
    return memos_bytes_make(protocol_frame, sizeof protocol_frame);
}

/* zmq_msg_data and zmq_msg_size take messages that are not const, but only read them. */
static struct memos_bytes part_view(const struct memos_frames *frames, size_t index)
{
    if (index >= frames->count) {
        return memos_bytes_make(NULL, 0);
    }
    zmq_msg_t *part = &frames->parts[index];
    return memos_bytes_make(zmq_msg_data(part), zmq_msg_size(part));
}

static size_t head_count(bool with_identity)
{
    return with_identity ? 3 : 2;
}

static void drop_parts_from(struct memos_frames *frames, size_t index)
{
    while (frames->count > index) {
        (void)zmq_msg_close(&frames->parts[--frames->count]);
    }
}

void memos_frames_free(struct memos_frames *frames)
{
    drop_parts_from(frames, 0);
    free(frames->parts);
    *frames = (struct memos_frames){ 0 };
}

/* Make room for one more part. Messages are moved by ZeroMQ's own means, never by copying bytes. */
static bool grow(struct memos_frames *frames)
{
    if (frames->count < frames->capacity) {
        return true;
    }
    size_t capacity = frames->capacity ? frames->capacity * 2 : 4;
    zmq_msg_t *parts = calloc(capacity, sizeof *parts);
    if (!parts) {
        return false;
    }
    for (size_t i = 0; i < frames->count; i++) {
        (void)zmq_msg_init(&parts[i]);
        (void)zmq_msg_move(&parts[i], &frames->parts[i]);
        (void)zmq_msg_close(&frames->parts[i]);
    }
    free(frames->parts);
    frames->parts = parts;
    frames->capacity = capacity;
    return true;
}

static enum memos_status fail_no_memory(struct memos_error *err)
{
    return memos_fail(err, MEMOS_NO_MEMORY, "no memory for the frames of a message");
}

/* ---- receiving ---- */

enum memos_status memos_frames_check(
    const struct memos_bytes *frames, size_t count, bool with_identity, struct memos_error *err)
{
    size_t head = head_count(with_identity);
    if (count < head) {
        return memos_fail(err, MEMOS_INVALID,
            "a message has a protocol frame and an envelope; this one has %zu frames",
            with_identity && count > 0 ? count - 1 : count);
    }
    if (with_identity && (frames[0].size == 0 || frames[0].size > MEMOS_IDENTITY_BYTES_MAX)) {
        return memos_fail(err, MEMOS_INVALID, "the identity frame has %zu bytes", frames[0].size);
    }
    struct memos_bytes protocol = frames[head - 2], envelope = frames[head - 1];
    if (protocol.size != MEMOS_PROTOCOL_BYTES ||
        memcmp(protocol.data, protocol_frame, MEMOS_PROTOCOL_BYTES - 1) != 0) {
        return memos_fail(err, MEMOS_INVALID, "the protocol frame does not say MEMOS");
    }
    unsigned version = ((const uint8_t *)protocol.data)[MEMOS_PROTOCOL_BYTES - 1];
    if (version != MEMOS_PROTOCOL_VERSION) {
        return memos_fail(err, MEMOS_UNSUPPORTED,
            "protocol version %u is not spoken here, only version %d", version,
            MEMOS_PROTOCOL_VERSION);
    }
    if (envelope.size > MEMOS_ENVELOPE_BYTES_MAX) {
        return memos_fail(err, MEMOS_TOO_LARGE, "an envelope of %zu bytes; at most %zu are taken",
            envelope.size, MEMOS_ENVELOPE_BYTES_MAX);
    }
    return MEMOS_OK;
}

/* Receive one part into *part, which is initialised here and, on success, the caller's to close. */
static enum memos_status receive_part(
    void *socket, int flags, bool first, zmq_msg_t *part, struct memos_error *err)
{
    (void)zmq_msg_init(part);
    /* All parts of a message come at once: only the first can be waited for. */
    while (zmq_msg_recv(part, socket, first ? flags : 0) < 0) {
        int why = zmq_errno();
        if (why == EINTR && !first) {
            continue;
        }
        (void)zmq_msg_close(part);
        if (why == EAGAIN || why == EINTR) {
            return memos_fail_foreign(err, MEMOS_BUSY, why, "no message is there");
        } else if (why == ETERM || why == ENOTSOCK) {
            return memos_fail_foreign(err, MEMOS_UNAVAILABLE, why, "the socket is closed");
        }
        return memos_fail_foreign(
            err, MEMOS_IO, why, "receiving a message: %s", zmq_strerror(why));
    }
    return MEMOS_OK;
}

/* What one message may cost, and what it has cost so far. */
struct intake {
    size_t frames_max;
    uint64_t bytes_max, bytes;
    size_t frames;
    enum memos_status status;
};

/* Keep the part, or refuse the message; a refused message keeps no further parts. */
static void take_part(
    struct memos_frames *out, struct intake *in, zmq_msg_t *part, struct memos_error *err)
{
    size_t size = zmq_msg_size(part);
    in->frames++;
    if (in->status == MEMOS_OK && in->frames > head_count(out->with_identity) &&
        in->frames - head_count(out->with_identity) > in->frames_max) {
        in->status = memos_fail(err, MEMOS_TOO_LARGE,
            "a message of more than %zu payload frames", in->frames_max);
    } else if (in->status == MEMOS_OK && size > in->bytes_max - in->bytes) {
        in->status = memos_fail(err, MEMOS_TOO_LARGE, "a message of more than %llu bytes",
            (unsigned long long)in->bytes_max);
    } else if (in->status == MEMOS_OK && !grow(out)) {
        in->status = fail_no_memory(err);
    }
    if (in->status == MEMOS_OK) {
        (void)zmq_msg_init(&out->parts[out->count]);
        (void)zmq_msg_move(&out->parts[out->count], part);
        out->count++;
        in->bytes += size;
    }
    (void)zmq_msg_close(part);
}

/* A refused message keeps what its sender can be answered with. */
static void keep_answerable(struct memos_frames *out, enum memos_status status)
{
    size_t head = head_count(out->with_identity);
    if (status == MEMOS_TOO_LARGE && out->count >= head &&
        memos_frames_envelope(out).size <= MEMOS_ENVELOPE_BYTES_MAX) {
        drop_parts_from(out, head);
        return;
    }
    size_t identity_size = memos_frames_identity(out).size;
    bool keep = identity_size > 0 && identity_size <= MEMOS_IDENTITY_BYTES_MAX;
    drop_parts_from(out, keep ? 1 : 0);
}

enum memos_status memos_frames_receive(void *socket, int flags, bool with_identity,
    size_t frames_max, uint64_t bytes_max, struct memos_frames *out, struct memos_error *err)
{
    *out = (struct memos_frames){ .with_identity = with_identity };
    struct intake in = { .frames_max = frames_max, .bytes_max = bytes_max };
    bool more = true;
    for (bool first = true; more; first = false) {
        zmq_msg_t part;
        enum memos_status status = receive_part(socket, flags, first, &part, err);
        if (status != MEMOS_OK) {
            drop_parts_from(out, 0);
            return status;
        }
        more = zmq_msg_more(&part);
        take_part(out, &in, &part, err);
    }
    out->received = in.frames;
    struct memos_bytes head[3];
    for (size_t i = 0; i < 3; i++) {
        head[i] = part_view(out, i);
    }
    /* A message without a good head is none of ours, however large it was. */
    enum memos_status status = in.status;
    if (status == MEMOS_OK || out->count >= head_count(with_identity)) {
        enum memos_status checked = memos_frames_check(head, out->count, with_identity, err);
        status = checked == MEMOS_OK ? status : checked;
    }
    if (status != MEMOS_OK) {
        keep_answerable(out, status);
    }
    return status;
}

struct memos_bytes memos_frames_identity(const struct memos_frames *frames)
{
    return frames->with_identity ? part_view(frames, 0) : memos_bytes_make(NULL, 0);
}

struct memos_bytes memos_frames_envelope(const struct memos_frames *frames)
{
    return part_view(frames, head_count(frames->with_identity) - 1);
}

size_t memos_frames_payload_count(const struct memos_frames *frames)
{
    size_t head = head_count(frames->with_identity);
    return frames->count > head ? frames->count - head : 0;
}

struct memos_bytes memos_frames_payload(const struct memos_frames *frames, uint32_t number)
{
    if (number == 0 || number > memos_frames_payload_count(frames)) {
        return memos_bytes_make(NULL, 0);
    }
    return part_view(frames, head_count(frames->with_identity) + number - 1);
}

/* ---- sending ---- */

/* A new part of size bytes at the end; NULL without memory. */
static zmq_msg_t *add_part(struct memos_frames *frames, size_t size)
{
    if (!grow(frames)) {
        return NULL;
    }
    zmq_msg_t *part = &frames->parts[frames->count];
    if (zmq_msg_init_size(part, size) != 0) {
        return NULL;
    }
    frames->count++;
    return part;
}

static enum memos_status add_copy(
    struct memos_frames *frames, struct memos_bytes bytes, struct memos_error *err)
{
    zmq_msg_t *part = add_part(frames, bytes.size);
    if (!part) {
        return fail_no_memory(err);
    }
    if (bytes.size > 0) {
        memcpy(zmq_msg_data(part), bytes.data, bytes.size);
    }
    return MEMOS_OK;
}

enum memos_status memos_frames_begin(struct memos_frames *frames, struct memos_bytes identity,
    size_t envelope_bytes, uint8_t **out_envelope, struct memos_error *err)
{
    *frames = (struct memos_frames){ .with_identity = identity.data != NULL };
    if (envelope_bytes > MEMOS_ENVELOPE_BYTES_MAX) {
        return memos_fail(err, MEMOS_TOO_LARGE, "an envelope of %zu bytes; at most %zu can be sent",
            envelope_bytes, MEMOS_ENVELOPE_BYTES_MAX);
    }
    if (identity.data) {
        enum memos_status status = add_copy(frames, identity, err);
        if (status != MEMOS_OK) {
            return status;
        }
    }
    enum memos_status status = add_copy(frames, memos_protocol_frame(), err);
    if (status != MEMOS_OK) {
        return status;
    }
    zmq_msg_t *part = add_part(frames, envelope_bytes);
    if (!part) {
        return fail_no_memory(err);
    }
    *out_envelope = zmq_msg_data(part);
    return MEMOS_OK;
}

enum memos_status memos_frames_add(
    struct memos_frames *frames, struct memos_bytes payload, struct memos_error *err)
{
    return add_copy(frames, payload, err);
}

enum memos_status memos_frames_add_lent(struct memos_frames *frames, struct memos_bytes payload,
    zmq_free_fn *release, void *hint, struct memos_error *err)
{
    if (!grow(frames)) {
        return fail_no_memory(err);
    }
    /* ZeroMQ never writes to what it was lent. */
    void *data;
    memcpy(&data, &payload.data, sizeof data);
    if (zmq_msg_init_data(&frames->parts[frames->count], data, payload.size, release, hint) != 0) {
        return fail_no_memory(err);
    }
    frames->count++;
    return MEMOS_OK;
}

enum memos_status memos_frames_add_shared(struct memos_frames *frames,
    const struct memos_frames *from, uint32_t number, struct memos_error *err)
{
    memos_assert(number >= 1 && number <= memos_frames_payload_count(from));
    if (!grow(frames)) {
        return fail_no_memory(err);
    }
    zmq_msg_t *part = &frames->parts[frames->count];
    (void)zmq_msg_init(part);
    if (zmq_msg_copy(part, &from->parts[head_count(from->with_identity) + number - 1]) != 0) {
        (void)zmq_msg_close(part);
        return fail_no_memory(err);
    }
    frames->count++;
    return MEMOS_OK;
}

enum memos_status memos_frames_send(
    void *socket, int flags, struct memos_frames *frames, struct memos_error *err)
{
    for (size_t i = 0; i < frames->count; i++) {
        int more = i + 1 < frames->count ? ZMQ_SNDMORE : 0;
        while (zmq_msg_send(&frames->parts[i], socket, (i == 0 ? flags : 0) | more) < 0) {
            int why = zmq_errno();
            if (why == EINTR && i > 0) {
                continue;
            }
            if (why == EAGAIN || why == EINTR) {
                return memos_fail_foreign(err, MEMOS_BUSY, why, "the socket's queue is full");
            } else if (why == EHOSTUNREACH) {
                return memos_fail_foreign(err, MEMOS_NOT_FOUND, why, "the peer is gone");
            } else if (why == ETERM || why == ENOTSOCK) {
                return memos_fail_foreign(err, MEMOS_UNAVAILABLE, why, "the socket is closed");
            }
            return memos_fail_foreign(
                err, MEMOS_IO, why, "sending a message: %s", zmq_strerror(why));
        }
    }
    memos_frames_free(frames);
    return MEMOS_OK;
}
