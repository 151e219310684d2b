/* The multipart framing, as both ends use it: receive and check a message, send one.
 *
 * Outside bytes are checked here first: the number of frames, their sizes, the protocol's name and
 * version. What is inside the envelope is protobuf-c's to parse and the caller's to check. */
#ifndef PROTO_FRAME_H
#define PROTO_FRAME_H

#include "proto/bytes.h"

#include <zmq.h>

#define MEMOS_PROTOCOL_VERSION 1
#define MEMOS_PROTOCOL_BYTES 6
#define MEMOS_ENVELOPE_BYTES_MAX ((size_t)16 * 1024 * 1024)

/* The protocol frame: "MEMOS" and the version. */
struct memos_bytes memos_protocol_frame(void);

/* A multipart message, owned. parts[0] is the identity when with_identity was set, then the
 * protocol frame, then the envelope, then the payload frames. */
struct memos_frames {
    zmq_msg_t *parts;
    size_t count, capacity;
    bool with_identity;
};

/* Receive one whole message (flags: 0 or ZMQ_DONTWAIT). BUSY: nothing there. INVALID, UNSUPPORTED,
 * TOO_LARGE: a message came, was read to its end, and is not one of ours; out then holds what can
 * be answered to (the identity), or nothing. Free with memos_frames_free in every case. */
MEMOS_MUST_USE enum memos_status memos_frames_receive(void *socket, int flags, bool with_identity,
    size_t frames_max, uint64_t bytes_max, struct memos_frames *out, struct memos_error *err);
void memos_frames_free(struct memos_frames *frames);

struct memos_bytes memos_frames_identity(const struct memos_frames *frames);
struct memos_bytes memos_frames_envelope(const struct memos_frames *frames);
struct memos_bytes memos_frames_payload(const struct memos_frames *frames, uint32_t number);
size_t memos_frames_payload_count(const struct memos_frames *frames);

/* The pure check behind receive, for fuzzing and tests: is this sequence of frames a message? */
MEMOS_MUST_USE enum memos_status memos_frames_check(const struct memos_bytes *frames, size_t count,
    bool with_identity, struct memos_error *err);

#endif
