/* libmemos: talk to memosd from C.
 *
 * One client is one connection (a ZeroMQ DEALER). The calls take and give the protobuf-c messages
 * of the schema (proto/memos.proto, generated as proto/memos.pb-c.h), so that there is one
 * description of every request. Payloads travel beside the envelope as frames.
 *
 *     struct memos_client *client = NULL;
 *     struct memos_client_options options = { .address = NULL };   // the user's own broker
 *     if (memos_client_open(&options, &client, &err) != MEMOS_OK) ...
 *     Memos__Put put = MEMOS__PUT__INIT; ...
 *     struct memos_message *reply = NULL;
 *     memos_client_call(client, &request, frames, frames_count, &reply, &err);
 *
 * Threads: a client belongs to one thread at a time. Open one per thread; they are cheap.
 *
 * Errors: UNAVAILABLE (no broker answers), DEADLINE, and whatever status the broker replies with:
 * the error's text is then the broker's message. */
#ifndef PROTO_CLIENT_H
#define PROTO_CLIENT_H

#include "proto/bytes.h"
#include "proto/memos.pb-c.h"

/* Everything from here on is exported by libmemos. */
#pragma GCC visibility push(default)

#define MEMOS_FRAMES_MAX 1024 /* payload frames in one message */

struct memos_client;

struct memos_client_options {
    const char *address;    /* "ipc:///run/.../memosd.sock", "tcp://host:7077"; NULL:
                               $MEMOS_ADDRESS, else memos_default_address */
    const char *server_key; /* CURVE public key of the broker, Z85; NULL: $MEMOS_SERVER_KEY, else
                               none */
    const char *key_file;   /* the client's own keys (memosctl key new); NULL: $MEMOS_KEY_FILE, else
                               made up. Only read when there is a server key */
    int64_t timeout_ms;     /* for a call. 0: 10,000 */
    uint64_t message_bytes_max; /* replies larger than this are refused. 0: 1 GiB */
};

/* Where a user's own broker listens: $XDG_RUNTIME_DIR/memos/memosd.sock, else
 * /tmp/memos-UID/memosd.sock. Writes an ipc:// address of at most size bytes with its NUL.
 * INVALID: the path is too long for a socket (107 bytes). DENIED: the folder in /tmp belongs to
 * somebody else. */
MEMOS_MUST_USE enum memos_status memos_default_address(
    char *out, size_t size, struct memos_error *err);

/* A received message: the envelope and its payload frames, freed together. */
struct memos_message;
void memos_message_free(struct memos_message **message);
const Memos__Reply *memos_message_reply(const struct memos_message *message);

/* Payload frame `number` (from 1); empty for 0 and for numbers that are not there. Views until
 * free. */
struct memos_bytes memos_message_frame(const struct memos_message *message, uint32_t number);
size_t memos_message_frames_count(const struct memos_message *message);

/* Connect. Does not wait for the broker: the first call does. INVALID: an address or a key that is
 * none; and what memos_default_address and memos_key_pair_read give. */
MEMOS_MUST_USE enum memos_status memos_client_open(const struct memos_client_options *options,
    struct memos_client **out_client, struct memos_error *err);
void memos_client_close(struct memos_client **client);

/* Send a request and wait for its (last) reply; replies with `more` on the way go to
 * memos_client_on_more's function, or are dropped. request->id is set by the client. On a status
 * other than OK *out_reply is still given when a reply came (free it). DEADLINE: also when the
 * connection is lost behind the request; it may have been done. */
MEMOS_MUST_USE enum memos_status memos_client_call(struct memos_client *client,
    Memos__Request *request, const struct memos_bytes *frames, size_t frames_count,
    struct memos_message **out_reply, struct memos_error *err);

typedef void memos_client_more_fn(void *self, const struct memos_message *reply);
void memos_client_on_more(struct memos_client *client, memos_client_more_fn *fn, void *self);

/* Asynchronous: send now, *out_id is the request's id; take replies in whatever order they
 * come. Only before anything was ever sent does it wait, for the connection. BUSY when the
 * socket's queue is full, or while a lost connection is made again. */
MEMOS_MUST_USE enum memos_status memos_client_send(struct memos_client *client,
    Memos__Request *request, const struct memos_bytes *frames, size_t frames_count,
    uint64_t *out_id, struct memos_error *err);

/* The next reply to anything that memos_client_send sent, waiting at most timeout_ms (0: only
 * look; negative: for ever). Replies that came during a call were kept, up to 1024: the call that
 * keeps the last of these ends with BUSY (it may have been done), and so does any call after it,
 * unsent, until one is taken here. OK: a reply was received; its own status is in it. DEADLINE:
 * none came. TOO_LARGE: *out_reply has only the envelope. CORRUPT: what came is no reply. */
MEMOS_MUST_USE enum memos_status memos_client_receive(struct memos_client *client,
    int64_t timeout_ms, struct memos_message **out_reply, struct memos_error *err);

/* A descriptor that becomes readable when memos_client_receive may have something. As ZMQ_FD it
 * tells of changes, and any use of the client may be what takes the news: call receive with
 * timeout 0 until DEADLINE when it is readable, and after every send and call. */
int memos_client_fd(struct memos_client *client);

/* How often the connection has been lost since this was first asked: when that grows while a
 * request is out, no more replies to it come, although the client connects again by itself. */
uint64_t memos_client_losses(struct memos_client *client);

/* Events of one space (Watch), each change once and in order: opens the SUB socket, keeps its
 * lease with calls through client, and reads from the log what the socket missed. Close it
 * before client. */
struct memos_watch;
MEMOS_MUST_USE enum memos_status memos_watch_open(struct memos_client *client, const char *space,
    struct memos_watch **out_watch, struct memos_error *err);
/* The next event; DEADLINE when none came in time. Free with memos__event__free_unpacked(e,
 * NULL). */
MEMOS_MUST_USE enum memos_status memos_watch_next(struct memos_watch *watch, int64_t timeout_ms,
    Memos__Event **out_event, struct memos_error *err);
void memos_watch_close(struct memos_watch **watch);

/* A key pair file as `memosctl key new` writes it (0600; two lines "public = ..", "secret =
 * .."). */
struct memos_key_pair {
    char public_key[41], secret_key[41]; /* Z85 */
};
MEMOS_MUST_USE enum memos_status memos_key_pair_new(
    struct memos_key_pair *out, struct memos_error *err);
MEMOS_MUST_USE enum memos_status memos_key_pair_read(
    const char *path, struct memos_key_pair *out, struct memos_error *err);
MEMOS_MUST_USE enum memos_status memos_key_pair_write(
    const char *path, const struct memos_key_pair *pair, struct memos_error *err);

#pragma GCC visibility pop

#endif
