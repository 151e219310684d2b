/* The multipart framing, as both ends use it: receive and check a message, build and send one.
 *
 * Outside bytes are checked here first: the number of frames, their sizes, the protocol's name
 * and version. What is inside the envelope is for proto/envelope.h to parse and for the caller
 * to check.
 *
 * Events have the same shape: the topic stands where the identity would.
 *
 * Memory: what is received stays in ZeroMQ's own message buffers and is viewed there; what is
 * sent is copied once, or not at all with memos_frames_add_lent.
 *
 * Threads: one message, like the socket it goes through, belongs to one thread at a time. */
#ifndef PROTO_FRAME_H
#define PROTO_FRAME_H

#include "proto/bytes.h"

#include <zmq.h>

#define MEMOS_PROTOCOL_VERSION 1
#define MEMOS_PROTOCOL_BYTES 6
#define MEMOS_IDENTITY_BYTES_MAX 255
#define MEMOS_ENVELOPE_BYTES_MAX ((size_t)16 * 1024 * 1024)

/* The protocol frame: "MEMOS" and the version. */
struct memos_bytes memos_protocol_frame(void);

/* A multipart message, owned. parts[0] is the identity when with_identity was set, then the
 * protocol frame, then the envelope, then the payload frames. Zero-initialised, it is empty. */
struct memos_frames {
    zmq_msg_t *parts;
    size_t count, capacity;
    size_t received; /* parts that came, those included that were not kept */
    bool with_identity;
};

/* Receive one whole message (flags: 0 or ZMQ_DONTWAIT) of at most frames_max payload frames and
 * bytes_max bytes in all its frames. out is overwritten; free it with memos_frames_free in
 * every case. BUSY: nothing there (or a signal came while waiting); UNAVAILABLE: the socket's
 * context ended. INVALID, UNSUPPORTED, TOO_LARGE, NO_MEMORY: a message came, was read to its
 * end, and is not one that we take. out then holds what can be answered: the identity, and with
 * TOO_LARGE the envelope too unless that was the one too large; or nothing. */
MEMOS_MUST_USE enum memos_status memos_frames_receive(void *socket, int flags, bool with_identity,
    size_t frames_max, uint64_t bytes_max, struct memos_frames *out, struct memos_error *err);
void memos_frames_free(struct memos_frames *frames);

/* Views until free; empty for what is not there. Payload frames are counted from 1. */
struct memos_bytes memos_frames_identity(const struct memos_frames *frames);
struct memos_bytes memos_frames_envelope(const struct memos_frames *frames);
struct memos_bytes memos_frames_payload(const struct memos_frames *frames, uint32_t number);
size_t memos_frames_payload_count(const struct memos_frames *frames);

/* Begin a message: the identity (none when identity.data is NULL), the protocol frame, and room
 * for an envelope of envelope_bytes, which *out_envelope points to: pack into it. frames is
 * overwritten; free it in every case. TOO_LARGE, NO_MEMORY. */
MEMOS_MUST_USE enum memos_status memos_frames_begin(struct memos_frames *frames,
    struct memos_bytes identity, size_t envelope_bytes, uint8_t **out_envelope,
    struct memos_error *err);

/* Append a payload frame, copied. Its number is memos_frames_payload_count after. NO_MEMORY. */
MEMOS_MUST_USE enum memos_status memos_frames_add(
    struct memos_frames *frames, struct memos_bytes payload, struct memos_error *err);

/* Append a payload frame without copying it: release(data, hint) is called once, on any thread,
 * when the bytes were sent or dropped. On failure (NO_MEMORY) they are still the caller's. */
MEMOS_MUST_USE enum memos_status memos_frames_add_lent(struct memos_frames *frames,
    struct memos_bytes payload, zmq_free_fn *release, void *hint, struct memos_error *err);

/* Append payload frame `number` of another message without copying it: both then hold its bytes,
 * which stay as long as one of them does. NO_MEMORY. */
MEMOS_MUST_USE enum memos_status memos_frames_add_shared(struct memos_frames *frames,
    const struct memos_frames *from, uint32_t number, struct memos_error *err);

/* Send the whole message (flags: 0 or ZMQ_DONTWAIT); once sent, frames is empty. BUSY: the
 * queue is full (or a signal came while waiting); NOT_FOUND: nobody has that identity (ROUTER
 * with ZMQ_ROUTER_MANDATORY). After these two nothing of it went out and it is still whole, so
 * that it can be sent again. UNAVAILABLE: the socket's context ended. */
MEMOS_MUST_USE enum memos_status memos_frames_send(
    void *socket, int flags, struct memos_frames *frames, struct memos_error *err);

/* The pure check behind receive, for fuzzing and tests: is this sequence of frames a message? */
MEMOS_MUST_USE enum memos_status memos_frames_check(const struct memos_bytes *frames, size_t count,
    bool with_identity, struct memos_error *err);

#endif
