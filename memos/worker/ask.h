/* Asking the broker for a job: with its ticket, within its deadline, until it is cancelled.
 *
 * Threads: as worker_fetch: the client is the thread's own. */
#ifndef MEMOS_WORKER_ASK_H
#define MEMOS_WORKER_ASK_H

#include "memos/worker/memory.h"

/* Fill in a request: WORKER_REQUEST(request, GET, get, body) with a body of its own type. */
#define WORKER_REQUEST(request, NAME, member, body)                                                \
    do {                                                                                           \
        memos__request__init(&(request));                                                          \
        (request).body_case = MEMOS__REQUEST__BODY_##NAME;                                         \
        (request).member = &(body);                                                                \
    } while (0)

/* Ask and wait. *out_reply is given with OK only, and its body is the one of `body_case`
 * (MEMOS__REPLY__BODY_...), else CORRUPT. CANCELLED and DEADLINE before anything is sent; else the
 * broker's status, and the client's. Free *out_reply. */
MEMOS_MUST_USE enum memos_status worker_ask(const struct worker_fetch *fetch,
    Memos__Request *request, const struct memos_bytes *frames, size_t frames_count, int body_case,
    struct memos_message **out_reply, struct memos_error *err);

/* An id and a hash out of a message; false: of another size. */
bool worker_id_of(ProtobufCBinaryData data, struct memos_id *out);
bool worker_hash_of(ProtobufCBinaryData data, uint8_t out[MEMCUBE_HASH_BYTES]);

/* A moment of a space's history, and the hash that its log has there (zero before the first). */
struct worker_moment {
    uint64_t seq;
    uint8_t head[MEMCUBE_HASH_BYTES];
};

/* The record `seq` (0: the newest). NOT_FOUND: there is no such space. */
MEMOS_MUST_USE enum memos_status worker_moment_ask(const struct worker_fetch *fetch,
    const char *space, uint64_t seq, struct worker_moment *out, struct memos_error *err);

#endif
