/* One request on its way through the broker, and its reply.
 *
 * A request belongs to one thread at a time: the front thread receives it, a pool or the writer
 * runs it, the front thread sends the reply and takes it apart. It is handed over through queues,
 * whose locks order what the threads do to it; only `cancelled` may be touched by the front thread
 * while another one runs it.
 *
 * A handler fills rq->reply (from rq->work) and adds payloads; broker_request_pack makes the
 * message, which copies the payloads, or takes over the mappings of those that are files of their
 * own, so that snapshots can end. */
#ifndef MEMOS_BROKER_REQUEST_H
#define MEMOS_BROKER_REQUEST_H

#include "memcube/writer.h"
#include "memos/broker/access.h"
#include "memos/broker/convert.h"

#include <pthread.h>
#include <stdatomic.h>

struct broker;
struct broker_type;
struct broker_meant;
struct broker_task;

/* Where a client came in. */
enum broker_door { BROKER_DOOR_IPC, BROKER_DOOR_TCP, BROKER_DOORS };

/* A client, while something of it is inside the broker or on its way out. The front thread keeps
 * the table; references are counted, for the replies that ZeroMQ still holds. */
struct broker_session {
    struct broker_session *next; /* in its bucket */
    uint64_t key;                /* door and routing id */
    atomic_uint references;
    atomic_uint_fast64_t leaving; /* bytes of large payloads that ZeroMQ still holds */
    uint64_t leaving_max;
    /* the front thread's: */
    size_t requests;
    struct broker_request *first; /* through session_next */
};

/* A thread's snapshot, and the space that was looked up in it last. */
struct broker_reader {
    struct broker *broker;
    struct memcube_read *read; /* NULL: none */
    bool keep; /* what was committed since need not be seen: the next read may use the same one */
    struct memcube_space space; /* of this snapshot; name.size 0: none */
};

/* Who is asking: what the transport vouches for. */
struct broker_peer {
    enum broker_door door;
    bool curve;                     /* must have a key */
    char key[BROKER_KEY_BYTES + 1]; /* its public key, Z85; empty without */
};

/* Whom a peer is, by this table; empty for a key that is not allowed. */
struct memos_bytes broker_peer_principal(
    const struct broker_peer *peer, const struct broker_access *access);

/* A message to a client, on its way to the front thread. */
struct broker_reply {
    struct broker_reply *next;
    struct broker_request *request;
    struct memos_frames frames;
    enum memos_status status;
    bool last;        /* of its request */
    bool drop;        /* rather dropped than kept for a client that is slow */
    int64_t since_us; /* its client's queue has been full since then; 0: it has not been tried */
};

struct broker_request {
    struct broker_request *next; /* in the queue that it waits in */
    struct broker *broker;
    const struct broker_type *type; /* NULL until it is known */
    struct broker_session *session;
    struct broker_request *session_next, *session_previous;

    struct broker_peer peer;
    uint64_t connection; /* its door and routing id; 0 until it is known */
    struct memos_frames message;
    size_t message_bytes;
    struct memos_arena arena; /* the envelope, and what was converted from it */
    Memos__Request *envelope;
    struct broker_call call;
    bool call_made;

    struct broker_access *access;
    struct memos_bytes principal;
    enum broker_right right;   /* on call.space */
    const char *ticket_space;  /* asked with a ticket, for a job on this space; NULL */
    struct memos_bytes viewer; /* for access lists; data NULL: an administrator of the space */

    int64_t arrived_us, deadline_us; /* monotonic; deadline 0: none */
    atomic_bool cancelled;
    struct broker_reader *reader; /* while it runs as a read */
    bool on_front;                /* runs on the front thread, which must not be kept long */
    bool too_long;                /* it would keep it long: nothing was done, give it to a reader */

    struct broker_task *task;   /* what waits for a worker, or is with one (work.h) */
    struct broker_meant *meant; /* vectors of its texts; NULL: not asked for */

    struct memos_arena work; /* the reply */
    Memos__Reply reply;
    struct memos_bytes *payloads;
    size_t payloads_count, payloads_capacity;
    uint64_t payload_bytes;
    struct broker_reply answer;

    struct memcube_writer_job job;
};

/* ---- the front thread's ---------------------------------------------------------------------- */

MEMOS_MUST_USE enum memos_status broker_request_create(
    struct broker *broker, struct broker_request **out_request, struct memos_error *err);

/* Forget everything but the memory. */
void broker_request_reset(struct broker_request *rq);
void broker_request_destroy(struct broker_request **rq);

/* ---- whoever runs it ------------------------------------------------------------------------- */

/* Must it not be run (any more)? CANCELLED, DEADLINE, UNAVAILABLE (the broker is going down), or
 * OK. */
MEMOS_MUST_USE enum memos_status broker_request_check(
    const struct broker_request *rq, struct memos_error *err);

/* Empty the reply, to begin (again). */
void broker_request_begin(struct broker_request *rq);

/* Convert the body, once. */
MEMOS_MUST_USE enum memos_status broker_request_convert(
    struct broker_request *rq, struct memos_error *err);

/* Add a payload frame; *out_frame is its number. The bytes must live until pack. TOO_LARGE. */
MEMOS_MUST_USE enum memos_status broker_request_payload(struct broker_request *rq,
    struct memos_bytes bytes, uint32_t *out_frame, struct memos_error *err);

/* Make the message of rq->reply, its status and error; in rq->answer. Never fails: what cannot be
 * packed becomes an error's reply. */
void broker_request_pack(
    struct broker_request *rq, enum memos_status status, const struct memos_error *error);

/* A reply that is not the last; frames' payloads are those of rq and are dropped from it. Takes a
 * release function for the first payload, see memos_frames_add_lent. */
MEMOS_MUST_USE enum memos_status broker_request_more(struct broker_request *rq,
    zmq_free_fn *release, void *hint, struct broker_reply **out_reply, struct memos_error *err);

/* The one text of DENIED, the same whether the space is there or not. */
enum memos_status broker_request_denied(const struct broker_request *rq, enum broker_right needed,
    struct memos_bytes space, struct memos_error *err);

/* May the viewer see a version (see memcube_viewer_may)? NOT_FOUND when not; the reply says that in
 * the words that a missing cube gets. */
MEMOS_MUST_USE enum memos_status broker_request_sees_version(const struct broker_request *rq,
    struct memcube_read *read, const struct memcube_space *space,
    const struct memcube_version *version, struct memos_error *err);

/* The same for a cube as it is now. A cube that is missing gives OK: the store will say so. */
MEMOS_MUST_USE enum memos_status broker_request_sees(const struct broker_request *rq,
    struct memcube_read *read, const struct memcube_space *space, const struct memos_id *id,
    struct memos_error *err);

/* ---- long requests (jobs.c) ------------------------------------------------------------------ */

struct broker_progress {
    struct broker_request *rq;
    int64_t next_us;
};
struct broker_progress broker_progress_begin(struct broker_request *rq);

/* Tell the client how far it is, now and then (self: a broker_progress); false when nobody wants
 * it any more, and it should end with CANCELLED. */
bool broker_progress_tell(void *self, uint64_t done, uint64_t total);

/* CANCELLED from below means that broker_progress_tell said so: say why. */
enum memos_status broker_progress_stopped(
    struct broker_request *rq, enum memos_status status, struct memos_error *err);

/* ---- cubes in replies (reads.c) -------------------------------------------------------------- */

/* What of a version goes into the reply. */
struct broker_wanted {
    bool payload, path, behaviour;
};

/* The whole of a version. A forgotten one is its header; the payload that is missing is no error
 * here. */
MEMOS_MUST_USE enum memos_status broker_cube_fill(struct broker_request *rq,
    struct memcube_read *read, const struct memcube_space *space,
    const struct memcube_version *version, const struct broker_wanted *wanted, Memos__Cube *out,
    struct memos_error *err);

/* Count a read of a cube. */
void broker_count_read(
    struct broker_request *rq, const struct memcube_space *space, const struct memos_id *id);

void broker_session_drop(struct broker_session **session);

#endif
