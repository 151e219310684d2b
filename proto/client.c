#include "proto/client.h"

#include "proto/client_internal.h"
#include "proto/clock.h"
#include "proto/envelope.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_MS_DEFAULT 10000
#define MESSAGE_BYTES_DEFAULT ((uint64_t)1024 * 1024 * 1024)
#define QUEUE_MESSAGES_MAX 1000
#define HEARTBEAT_MS 10000
#define KEPT_MAX 1024      /* replies to asynchronous requests that came while a call waited */
#define CONNECT_MS_FAIR 20 /* a broker that is there has taken the connection by then */
#define LOOK_MS 1000       /* between two looks whether one is there at all */

struct memos_message {
    struct memos_message *next; /* in the client's list of kept replies */
    struct memos_frames frames;
    struct memos_arena arena; /* of reply */
    Memos__Reply *reply;
    bool too_large; /* only the envelope was kept */
};

struct memos_client {
    void *context, *socket;
    char *address;
    char server_key[41]; /* empty: no CURVE */
    struct memos_key_pair keys;
    struct memos_clock clock;
    int64_t timeout_ms;
    uint64_t bytes_max;
    uint64_t last_id; /* calls have odd ids, asynchronous requests even ones */
    bool connected;   /* a request has gone out once */
    memos_client_more_fn *on_more;
    void *on_more_self;
    struct memos_message *kept, **kept_tail;
    size_t kept_count;
    void *monitor; /* tells of the connection; NULL until somebody asks */
    uint64_t losses;
    bool is_lost; /* and was not made again yet */
    size_t parts, parts_last; /* received since nothing was there, and of the last message */
};

/* ---- opening ---- */

static enum memos_status set_int(void *socket, int option, int value, struct memos_error *err)
{
    if (zmq_setsockopt(socket, option, &value, sizeof value) != 0) {
        return memos_fail_foreign(err, MEMOS_INTERNAL, zmq_errno(), "socket option %d: %s", option,
            zmq_strerror(zmq_errno()));
    }
    return MEMOS_OK;
}

static enum memos_status set_limits(
    const struct memos_client *client, int type, void *socket, struct memos_error *err)
{
    const struct {
        int option, value;
    } options[] = {
        { ZMQ_LINGER, 0 },
        { ZMQ_SNDHWM, QUEUE_MESSAGES_MAX },
        { ZMQ_RCVHWM, QUEUE_MESSAGES_MAX },
        /* A request waits here, where its deadline is seen, and not for a broker that comes
         * back. What a broker published before it went is of use. */
        { ZMQ_IMMEDIATE, type == ZMQ_DEALER },
        { ZMQ_RECONNECT_IVL, 20 },
        { ZMQ_RECONNECT_IVL_MAX, 1000 },
        { ZMQ_IPV6, 1 },
        { ZMQ_HEARTBEAT_IVL, memos_address_ipc_path(client->address) ? 0 : HEARTBEAT_MS },
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        enum memos_status status = set_int(socket, options[i].option, options[i].value, err);
        if (status != MEMOS_OK) {
            return status;
        }
    }
    /* ZeroMQ drops the connection over a larger frame; one envelope always fits. */
    uint64_t bytes = client->bytes_max;
    bytes = bytes < MEMOS_ENVELOPE_BYTES_MAX ? MEMOS_ENVELOPE_BYTES_MAX : bytes;
    int64_t frame_max = bytes > INT64_MAX ? -1 : (int64_t)bytes;
    if (zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &frame_max, sizeof frame_max) != 0) {
        return memos_fail(err, MEMOS_INTERNAL, "setting the largest frame");
    }
    return MEMOS_OK;
}

static enum memos_status set_keys(
    const struct memos_client *client, void *socket, struct memos_error *err)
{
    const struct {
        int option;
        const char *key;
    } keys[] = {
        { ZMQ_CURVE_SERVERKEY, client->server_key },
        { ZMQ_CURVE_PUBLICKEY, client->keys.public_key },
        { ZMQ_CURVE_SECRETKEY, client->keys.secret_key },
    };
    for (size_t i = 0; client->server_key[0] && i < 3; i++) {
        if (zmq_setsockopt(socket, keys[i].option, keys[i].key, 41) != 0) {
            return memos_fail_foreign(err, MEMOS_INVALID, zmq_errno(),
                "the broker's key is not a CURVE public key, or this libzmq knows no CURVE");
        }
    }
    return MEMOS_OK;
}

enum memos_status memos_client_socket(
    struct memos_client *client, int type, void **out_socket, struct memos_error *err)
{
    void *socket = zmq_socket(client->context, type);
    if (!socket) {
        return memos_fail_foreign(err, MEMOS_NO_MEMORY, zmq_errno(), "cannot make a socket: %s",
            zmq_strerror(zmq_errno()));
    }
    enum memos_status status = set_limits(client, type, socket, err);
    if (status == MEMOS_OK) {
        status = set_keys(client, socket, err);
    }
    if (status != MEMOS_OK) {
        (void)zmq_close(socket);
        return status;
    }
    *out_socket = socket;
    return MEMOS_OK;
}

static const char *given_or_env(const char *given, const char *variable)
{
    if (!given) {
        given = getenv(variable);
    }
    return given && given[0] ? given : NULL;
}

static enum memos_status take_address(
    struct memos_client *client, const char *given, struct memos_error *err)
{
    char own[512];
    enum memos_status status;
    const char *address = given_or_env(given, "MEMOS_ADDRESS");
    if (address) {
        status = memos_address_check(address, err);
    } else {
        status = memos_default_address(own, sizeof own, err);
        address = own;
    }
    if (status != MEMOS_OK) {
        return status;
    }
    client->address = strdup(address);
    return client->address ? MEMOS_OK : memos_fail(err, MEMOS_NO_MEMORY, "no memory for a client");
}

/* The keys of an encrypted connection; without the broker's key it is none, and ours is not
 * needed. */
static enum memos_status take_keys(struct memos_client *client,
    const struct memos_client_options *options, struct memos_error *err)
{
    const char *server_key = given_or_env(options->server_key, "MEMOS_SERVER_KEY");
    if (!server_key) {
        return MEMOS_OK;
    }
    uint8_t raw[32];
    if (strlen(server_key) != 40 || !zmq_z85_decode(raw, server_key)) {
        return memos_fail(err, MEMOS_INVALID,
            "'%.48s' is not the public key of a broker (40 characters of Z85)", server_key);
    }
    memcpy(client->server_key, server_key, sizeof client->server_key);
    const char *key_file = given_or_env(options->key_file, "MEMOS_KEY_FILE");
    return key_file ? memos_key_pair_read(key_file, &client->keys, err)
                    : memos_key_pair_new(&client->keys, err);
}

static enum memos_status connect_to(struct memos_client *client, struct memos_error *err)
{
    client->context = zmq_ctx_new();
    if (!client->context) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a client");
    }
    enum memos_status status = memos_client_socket(client, ZMQ_DEALER, &client->socket, err);
    if (status == MEMOS_OK && zmq_connect(client->socket, client->address) != 0) {
        status = memos_fail_foreign(err, MEMOS_INVALID, zmq_errno(), "cannot connect to '%s': %s",
            client->address, zmq_strerror(zmq_errno()));
    }
    return status;
}

enum memos_status memos_client_open(const struct memos_client_options *options,
    struct memos_client **out_client, struct memos_error *err)
{
    if (options->timeout_ms < 0 || options->timeout_ms > UINT32_MAX) {
        return memos_fail(err, MEMOS_INVALID, "a timeout of %lld ms",
            (long long)options->timeout_ms);
    }
    struct memos_client *client = calloc(1, sizeof *client);
    if (!client) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a client");
    }
    client->clock = memos_clock_system();
    client->kept_tail = &client->kept;
    client->timeout_ms = options->timeout_ms ? options->timeout_ms : TIMEOUT_MS_DEFAULT;
    client->bytes_max =
        options->message_bytes_max ? options->message_bytes_max : MESSAGE_BYTES_DEFAULT;
    enum memos_status status = take_address(client, options->address, err);
    if (status == MEMOS_OK) {
        status = take_keys(client, options, err);
    }
    if (status == MEMOS_OK) {
        status = connect_to(client, err);
    }
    if (status != MEMOS_OK) {
        memos_client_close(&client);
        return status;
    }
    *out_client = client;
    return MEMOS_OK;
}

void memos_client_close(struct memos_client **client)
{
    struct memos_client *c = *client;
    if (!c) {
        return;
    }
    while (c->kept) {
        struct memos_message *message = c->kept;
        c->kept = message->next;
        memos_message_free(&message);
    }
    if (c->monitor) {
        (void)zmq_socket_monitor(c->socket, NULL, 0);
        (void)zmq_close(c->monitor);
    }
    if (c->socket) {
        (void)zmq_close(c->socket);
    }
    while (c->context && zmq_ctx_term(c->context) != 0 && zmq_errno() == EINTR) {
    }
    explicit_bzero(&c->keys, sizeof c->keys);
    free(c->address);
    free(c);
    *client = NULL;
}

const char *memos_client_address(const struct memos_client *client)
{
    return client->address;
}

int memos_client_fd(struct memos_client *client)
{
    int file = -1;
    size_t size = sizeof file;
    (void)zmq_getsockopt(client->socket, ZMQ_FD, &file, &size);
    return file;
}

/* False: there is no telling, as when there are no descriptors left. */
static bool watch_connection(struct memos_client *client)
{
    static const char name[] = "inproc://connection";
    if (client->monitor) {
        return true;
    }
    enum { EVENTS = ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED };
    void *monitor = zmq_socket(client->context, ZMQ_PAIR);
    if (monitor && set_int(monitor, ZMQ_RCVHWM, 0, NULL) == MEMOS_OK &&
        zmq_socket_monitor(client->socket, name, EVENTS) == 0 && zmq_connect(monitor, name) == 0) {
        client->monitor = monitor;
        return true;
    }
    (void)zmq_socket_monitor(client->socket, NULL, 0);
    if (monitor) {
        (void)zmq_close(monitor);
    }
    return false;
}

/* Take what there is to hear of the connection: of an event's two parts the first begins with its
 * number, the second is the address. */
uint64_t memos_client_losses(struct memos_client *client)
{
    char part[512];
    uint16_t event;
    int more = 0;
    size_t size = sizeof more;
    while (watch_connection(client) &&
           zmq_recv(client->monitor, part, sizeof part, ZMQ_DONTWAIT) >= 0) {
        (void)zmq_getsockopt(client->monitor, ZMQ_RCVMORE, &more, &size);
        if (more) {
            memcpy(&event, part, sizeof event);
            client->is_lost = event == ZMQ_EVENT_DISCONNECTED;
            client->losses += client->is_lost;
        }
    }
    return client->losses;
}

void memos_client_on_more(struct memos_client *client, memos_client_more_fn *fn, void *self)
{
    client->on_more = fn;
    client->on_more_self = self;
}

/* ---- messages ---- */

void memos_message_free(struct memos_message **message)
{
    if (*message) {
        memos_frames_free(&(*message)->frames);
        memos_arena_finish(&(*message)->arena);
        free(*message);
        *message = NULL;
    }
}

const Memos__Reply *memos_message_reply(const struct memos_message *message)
{
    return message->reply;
}

struct memos_bytes memos_message_frame(const struct memos_message *message, uint32_t number)
{
    return memos_frames_payload(&message->frames, number);
}

size_t memos_message_frames_count(const struct memos_message *message)
{
    return memos_frames_payload_count(&message->frames);
}

/* libzmq aborts the process (4.3.4, fq.cpp: "!_more") when it takes notice in the middle of a
 * message that the connection which that came over is lost. As long as there are messages it looks
 * at every hundredth part that is asked for. Where that may be a part of the next message it is
 * made to look now, and drops what a broker that is gone had sent; what remains is a loss in the
 * microsecond that receiving takes. */
static void look_between_messages(struct memos_client *client)
{
    enum { LOOKS_EVERY = 100, PARTS_FEW = 16 };
    int events;
    size_t size = sizeof events;
    size_t next = client->parts_last > PARTS_FEW ? client->parts_last : PARTS_FEW;
    if (client->parts % LOOKS_EVERY + next >= LOOKS_EVERY) {
        (void)zmq_getsockopt(client->socket, ZMQ_EVENTS, &events, &size);
    }
}

static enum memos_status receive_frames(
    struct memos_client *client, struct memos_frames *out, struct memos_error *err)
{
    look_between_messages(client);
    enum memos_status status = memos_frames_receive(
        client->socket, ZMQ_DONTWAIT, false, MEMOS_FRAMES_MAX, client->bytes_max, out, err);
    client->parts = out->received > 0 ? client->parts + out->received : 0;
    client->parts_last = out->received;
    return status;
}

/* Take what is there. BUSY: nothing. CORRUPT: something that is no reply. */
static enum memos_status receive_now(
    struct memos_client *client, struct memos_message **out, struct memos_error *err)
{
    struct memos_error why = { 0 };
    struct memos_message *message = calloc(1, sizeof *message);
    if (!message) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a reply");
    }
    enum memos_status status = receive_frames(client, &message->frames, &why);
    struct memos_bytes envelope = memos_frames_envelope(&message->frames);
    message->too_large = status == MEMOS_TOO_LARGE && envelope.size > 0;
    if (status == MEMOS_OK || message->too_large) {
        memos_arena_init(&message->arena, memos_envelope_memory(envelope.size));
        status = memos_reply_unpack(envelope, &message->arena, &message->reply, &why);
    }
    if (status == MEMOS_OK) {
        *out = message;
        return MEMOS_OK;
    }
    memos_message_free(&message);
    if (status == MEMOS_INVALID || status == MEMOS_UNSUPPORTED || status == MEMOS_TOO_LARGE) {
        return memos_fail(
            err, MEMOS_CORRUPT, "what %s sent is no reply: %s", client->address, why.text);
    }
    return memos_fail_foreign(err, status, why.foreign, "%s", why.text);
}

static int64_t now_us(const struct memos_client *client)
{
    return client->clock.mono_us(client->clock.self);
}

/* When ms have passed; negative ms never pass. */
static int64_t deadline_of(const struct memos_client *client, int64_t ms)
{
    int64_t us;
    if (ms < 0 || __builtin_mul_overflow(ms, (int64_t)1000, &us) ||
        __builtin_add_overflow(us, now_us(client), &us)) {
        return INT64_MAX;
    }
    return us;
}

/* Wait for one of the items; false past the deadline. */
static bool poll_until(
    struct memos_client *client, zmq_pollitem_t *items, int count, int64_t deadline_us)
{
    for (;;) {
        int64_t left_us = deadline_us == INT64_MAX ? INT64_MAX : deadline_us - now_us(client);
        int64_t left_ms = left_us <= 0 ? 0 : left_us / 1000 + (left_us % 1000 != 0);
        left_ms = left_ms > 60000 ? 60000 : left_ms;
        int ready = zmq_poll(items, count, (long)left_ms);
        if (ready > 0) {
            return true;
        } else if (left_us <= 0 || (ready < 0 && zmq_errno() != EINTR)) {
            return false;
        }
    }
}

/* Wait for a message or, with_losses, for word of the connection. */
static bool poll_readable(struct memos_client *client, bool with_losses, int64_t deadline_us)
{
    zmq_pollitem_t items[] = {
        { .socket = client->socket, .events = ZMQ_POLLIN },
        { .socket = client->monitor, .events = ZMQ_POLLIN },
    };
    return poll_until(client, items, with_losses && client->monitor ? 2 : 1, deadline_us);
}

/* Wait until a request can go out, after a loss by the connection after it: what the socket takes
 * before it knows of the loss itself is lost too. */
static bool poll_writable(struct memos_client *client, int64_t deadline_us)
{
    zmq_pollitem_t socket = { .socket = client->socket, .events = ZMQ_POLLOUT };
    zmq_pollitem_t monitor = { .socket = client->monitor, .events = ZMQ_POLLIN };
    while (client->is_lost) {
        if (!poll_until(client, &monitor, 1, deadline_us)) {
            return false;
        }
        (void)memos_client_losses(client);
    }
    return poll_until(client, &socket, 1, deadline_us);
}

/* The next message, whatever it answers. DEADLINE when none came, or will: the connection is lost,
 * or was more often than `losses` (NULL: who waits looks himself). */
static enum memos_status receive_until(struct memos_client *client, const uint64_t *losses,
    int64_t deadline_us, struct memos_message **out, struct memos_error *err)
{
    for (;;) {
        enum memos_status status = receive_now(client, out, err);
        if (status != MEMOS_BUSY) {
            return status;
        }
        if (losses && (memos_client_losses(client) != *losses || client->is_lost)) {
            return memos_fail(err, MEMOS_DEADLINE,
                "the connection to %s was lost before it answered; it may have been done",
                client->address);
        }
        if (!poll_readable(client, losses != NULL, deadline_us)) {
            return memos_fail(err, MEMOS_DEADLINE, "no reply from %s in time", client->address);
        }
    }
}

/* ---- requests ---- */

/* Wait until a request can go out. UNAVAILABLE or DENIED as soon as it is known that none will. */
static enum memos_status wait_writable(
    struct memos_client *client, int64_t deadline_us, struct memos_error *err)
{
    int64_t look_us = deadline_of(client, CONNECT_MS_FAIR);
    while (!poll_writable(client, look_us < deadline_us ? look_us : deadline_us)) {
        enum memos_status status = memos_address_probe(client->address, err);
        if (status != MEMOS_OK) {
            return status;
        }
        if (now_us(client) >= deadline_us) {
            return memos_fail(err, MEMOS_UNAVAILABLE, "no broker takes requests at %s%s",
                client->address,
                client->server_key[0] ? ", or it does not know this key (memosctl key allow)" : "");
        }
        look_us = deadline_of(client, LOOK_MS);
    }
    return MEMOS_OK;
}

static enum memos_status build(const Memos__Request *request, const struct memos_bytes *payloads,
    size_t payloads_count, struct memos_frames *out, struct memos_error *err)
{
    *out = (struct memos_frames){ 0 };
    if (payloads_count > MEMOS_FRAMES_MAX) {
        return memos_fail(err, MEMOS_TOO_LARGE, "%zu payload frames; a message has at most %d",
            payloads_count, MEMOS_FRAMES_MAX);
    }
    enum memos_status status =
        memos_envelope_begin(out, memos_bytes_make(NULL, 0), &request->base, err);
    for (size_t i = 0; status == MEMOS_OK && i < payloads_count; i++) {
        status = memos_frames_add(out, payloads[i], err);
    }
    return status;
}

/* Send at once, or wait for the connection until the deadline; 0: only the first request waits. */
static enum memos_status send_request(struct memos_client *client, const Memos__Request *request,
    const struct memos_bytes *payloads, size_t payloads_count, int64_t deadline_us,
    struct memos_error *err)
{
    struct memos_frames frames;
    enum memos_status status = build(request, payloads, payloads_count, &frames, err);
    if (status == MEMOS_OK && client->is_lost) {
        status = memos_fail(err, MEMOS_BUSY, "the connection is being made again");
    } else if (status == MEMOS_OK) {
        status = memos_frames_send(client->socket, ZMQ_DONTWAIT, &frames, err);
    }
    if (status == MEMOS_BUSY && deadline_us == 0 && !client->connected) {
        deadline_us = deadline_of(client, client->timeout_ms);
    }
    while (status == MEMOS_BUSY && deadline_us != 0) {
        status = wait_writable(client, deadline_us, err);
        if (status == MEMOS_OK) {
            status = memos_frames_send(client->socket, ZMQ_DONTWAIT, &frames, err);
        }
    }
    client->connected = client->connected || status == MEMOS_OK;
    memos_frames_free(&frames);
    return status;
}

enum memos_status memos_client_send(struct memos_client *client, Memos__Request *request,
    const struct memos_bytes *frames, size_t frames_count, uint64_t *out_id,
    struct memos_error *err)
{
    if (client->monitor) {
        (void)memos_client_losses(client);
    }
    client->last_id += 2;
    request->id = client->last_id;
    enum memos_status status = send_request(client, request, frames, frames_count, 0, err);
    if (status == MEMOS_OK) {
        *out_id = request->id;
    }
    return status;
}

/* Was it memos_client_send that sent this? */
static bool is_asynchronous(const struct memos_client *client, uint64_t id)
{
    return id != 0 && id % 2 == 0 && id <= client->last_id;
}

static enum memos_status fail_too_large(
    const struct memos_client *client, struct memos_error *err)
{
    return memos_fail(err, MEMOS_TOO_LARGE, "a reply of more than %llu bytes",
        (unsigned long long)client->bytes_max);
}

enum memos_status memos_client_receive(struct memos_client *client, int64_t timeout_ms,
    struct memos_message **out_reply, struct memos_error *err)
{
    int64_t deadline_us = deadline_of(client, timeout_ms);
    struct memos_message *message = client->kept;
    *out_reply = NULL;
    if (message) {
        client->kept = message->next;
        client->kept_tail = client->kept ? client->kept_tail : &client->kept;
        client->kept_count--;
    }
    while (!message) {
        enum memos_status status = receive_until(client, NULL, deadline_us, &message, err);
        if (status != MEMOS_OK) {
            return status;
        }
        if (message->reply->id % 2 == 1) {
            memos_message_free(&message); /* to a call that did not wait for it */
        }
    }
    *out_reply = message;
    return message->too_large ? fail_too_large(client, err) : MEMOS_OK;
}

/* Put a reply aside for memos_client_receive; takes the message. */
static void keep(struct memos_client *client, struct memos_message **message)
{
    (*message)->next = NULL;
    *client->kept_tail = *message;
    client->kept_tail = &(*message)->next;
    client->kept_count++;
    *message = NULL;
}

static enum memos_status fail_if_many_kept(
    const struct memos_client *client, struct memos_error *err)
{
    return client->kept_count < KEPT_MAX
               ? MEMOS_OK
               : memos_fail(err, MEMOS_BUSY,
                     "%d replies to asynchronous requests wait: receive them before a call",
                     KEPT_MAX);
}

/* What the last reply to a call means. */
static enum memos_status status_of_reply(const struct memos_client *client,
    const struct memos_message *message, struct memos_error *err)
{
    const Memos__Reply *reply = message->reply;
    if (message->too_large) {
        return fail_too_large(client, err);
    }
    if (reply->status == MEMOS_OK) {
        return MEMOS_OK;
    }
    if (reply->status > INT32_MAX || !memos_status_known((int)reply->status)) {
        return memos_fail(err, MEMOS_INTERNAL, "the broker's status %u, unknown here: %s",
            (unsigned)reply->status, reply->message);
    }
    enum memos_status status = (enum memos_status)reply->status;
    return memos_fail(
        err, status, "%s", reply->message[0] ? reply->message : memos_status_text(status));
}

static enum memos_status await_reply(struct memos_client *client, uint64_t id, int64_t wait_ms,
    int64_t deadline_us, struct memos_message **out_reply, struct memos_error *err)
{
    /* One that was made again since the request was sent may have been the one before it. */
    const uint64_t losses = memos_client_losses(client);
    for (;;) {
        struct memos_message *message = NULL;
        enum memos_status status = receive_until(client, &losses, deadline_us, &message, err);
        if (status != MEMOS_OK) {
            return status;
        }
        memos_assert(message);
        const Memos__Reply *reply = message->reply;
        /* A broker that could not read a request does not know its id. */
        bool unread = reply->id == 0 && reply->status != MEMOS_OK;
        if (unread || (reply->id == id && (!reply->more || message->too_large))) {
            *out_reply = message;
            return status_of_reply(client, message, err);
        }
        if (reply->id == id) {
            if (client->on_more) {
                client->on_more(client->on_more_self, message);
            }
            deadline_us = deadline_of(client, wait_ms); /* a sign of life */
        } else if (is_asynchronous(client, reply->id)) {
            keep(client, &message);
            status = fail_if_many_kept(client, err);
            if (status != MEMOS_OK) {
                return status;
            }
        }
        memos_message_free(&message);
    }
}

enum memos_status memos_client_call(struct memos_client *client, Memos__Request *request,
    const struct memos_bytes *frames, size_t frames_count, struct memos_message **out_reply,
    struct memos_error *err)
{
    uint32_t deadline_given_ms = request->deadline_ms;
    int64_t wait_ms = deadline_given_ms ? deadline_given_ms : client->timeout_ms;
    int64_t deadline_us = deadline_of(client, wait_ms);
    *out_reply = NULL;
    enum memos_status status = fail_if_many_kept(client, err);
    if (status != MEMOS_OK) {
        return status;
    }
    (void)memos_client_losses(client); /* from now on they are counted */
    client->last_id += 2;
    request->id = client->last_id + 1;
    request->deadline_ms = (uint32_t)wait_ms;
    status = send_request(client, request, frames, frames_count, deadline_us, err);
    request->deadline_ms = deadline_given_ms;
    if (status == MEMOS_OK) {
        status = await_reply(client, request->id, wait_ms, deadline_us, out_reply, err);
    }
    return status;
}
