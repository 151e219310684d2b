/* Opening the sockets: addresses, folders, limits, keys. */
#include "memos/broker/files.h"
#include "memos/broker/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "proto/log.h"

enum {
    ADDRESS_BYTES = 256,
    QUEUE_MESSAGES = 1000, /* per client, in each direction, inside ZeroMQ */
    LINGER_MS = 200,       /* what has been answered when the broker goes still gets out */
    BACKLOG = 4096,
};

static enum memos_status fail_zmq(const char *what, const char *on, struct memos_error *err)
{
    int why = zmq_errno();
    enum memos_status status = why == EADDRINUSE ? MEMOS_BUSY
                               : why == EACCES   ? MEMOS_DENIED
                               : why == ENOMEM   ? MEMOS_NO_MEMORY
                                                 : MEMOS_IO;
    return memos_fail_foreign(err, status, why, "cannot %s %s: %s", what, on, zmq_strerror(why));
}

static enum memos_status set_int(void *socket, int option, int value, struct memos_error *err)
{
    return zmq_setsockopt(socket, option, &value, sizeof value) == 0
               ? MEMOS_OK
               : fail_zmq("set an option of", "a socket", err);
}

static enum memos_status set_all(
    void *socket, const struct broker *broker, enum broker_door door, struct memos_error *err)
{
    const struct broker_config *config = broker->options.config;
    bool tcp = door == BROKER_DOOR_TCP;
    const struct {
        int option, value;
    } options[] = {
        {ZMQ_SNDHWM, QUEUE_MESSAGES},
        {ZMQ_RCVHWM, QUEUE_MESSAGES},
        {ZMQ_LINGER, LINGER_MS},
        {ZMQ_BACKLOG, BACKLOG},
        {ZMQ_HANDSHAKE_IVL, (int)config->handshake_ms},
        {ZMQ_HEARTBEAT_IVL, tcp ? (int)config->heartbeat_ms : 0},
        {ZMQ_HEARTBEAT_TIMEOUT, tcp ? (int)config->heartbeat_ms * 2 : 0},
        {ZMQ_TCP_KEEPALIVE, 1},
    };
    int64_t message_bytes_max = (int64_t)broker->message_bytes_max;
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        enum memos_status status = set_int(socket, options[i].option, options[i].value, err);
        if (status != MEMOS_OK) {
            return status;
        }
    }
    if (zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &message_bytes_max, sizeof message_bytes_max) != 0) {
        return fail_zmq("limit the messages of", "a socket", err);
    }
    if (!tcp || broker->keys.secret_key[0] == '\0') {
        return MEMOS_OK;
    }
    if (zmq_setsockopt(
            socket, ZMQ_CURVE_SECRETKEY, broker->keys.secret_key, BROKER_KEY_BYTES + 1) != 0 ||
        zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, BROKER_ZAP_DOMAIN, strlen(BROKER_ZAP_DOMAIN)) != 0) {
        return fail_zmq("set the keys of", "a socket", err);
    }
    return set_int(socket, ZMQ_CURVE_SERVER, 1, err);
}

/* Open one of the two sockets of an entrance. */
static enum memos_status socket_open(const struct broker *broker, enum broker_door door, int type,
    void **out_socket, int *out_fd, struct memos_error *err)
{
    size_t size = sizeof *out_fd;
    void *socket = zmq_socket(broker->context, type);
    if (!socket) {
        return fail_zmq("open", "a socket", err);
    }
    enum memos_status status = set_all(socket, broker, door, err);
    if (status == MEMOS_OK && type == ZMQ_ROUTER) {
        status = set_int(socket, ZMQ_ROUTER_MANDATORY, 1, err); /* says who is gone or full */
    }
    if (status == MEMOS_OK && type == ZMQ_XPUB) {
        status = set_int(socket, ZMQ_XPUB_MANUAL, 1, err);
    }
    if (status == MEMOS_OK && zmq_getsockopt(socket, ZMQ_FD, out_fd, &size) != 0) {
        status = fail_zmq("ask for the descriptor of", "a socket", err);
    }
    if (status != MEMOS_OK) {
        (void)zmq_close(socket);
        return status;
    }
    *out_socket = socket;
    return MEMOS_OK;
}

/* A socket file that nobody listens at any more may be replaced; another broker's may not. */
static enum memos_status check_unused(const char *path, struct memos_error *err)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return memos_fail_errno(err, errno, "cannot make a socket");
    }
    (void)snprintf(name.sun_path, sizeof name.sun_path, "%s", path);
    bool answered = connect(fd, (struct sockaddr *)&name, sizeof name) == 0;
    (void)close(fd);
    return answered ? memos_fail(err, MEMOS_BUSY, "another program listens at %s", path) : MEMOS_OK;
}

/* The folder of the socket's file: made when missing, and this user's alone to write to. */
static enum memos_status check_place(const char *path, struct memos_error *err)
{
    char folder[ADDRESS_BYTES];
    const char *slash = strrchr(path, '/');
    (void)snprintf(folder, sizeof folder, "%.*s", slash == path ? 1 : (int)(slash - path), path);
    enum memos_status status = broker_folder_make(folder, err);
    if (status == MEMOS_OK) {
        status = broker_folder_check(folder, err);
    }
    return status == MEMOS_OK ? check_unused(path, err) : status;
}

static enum memos_status bind_ipc(void *socket, const char *address, struct memos_error *err)
{
    const char *path = address + strlen("ipc://");
    enum memos_status status = check_place(path, err);
    if (status != MEMOS_OK) {
        return status;
    }
    mode_t before = umask(0177);
    int bound = zmq_bind(socket, address);
    int why = errno;
    (void)umask(before);
    errno = why;
    return bound == 0 ? MEMOS_OK : fail_zmq("listen at", address, err);
}

/* Bind, and write the address that it became. */
static enum memos_status bind_any(void *socket, enum broker_door door, const char *address,
    char out[ADDRESS_BYTES], struct memos_error *err)
{
    size_t size = ADDRESS_BYTES;
    enum memos_status status;
    if (door == BROKER_DOOR_IPC) {
        status = bind_ipc(socket, address, err);
    } else {
        /* Off for IPv4, so that it is told as such to clients that know nothing else. */
        status = set_int(socket, ZMQ_IPV6, strchr(address, '[') != NULL, err);
        if (status == MEMOS_OK && zmq_bind(socket, address) != 0) {
            status = fail_zmq("listen at", address, err);
        }
    }
    if (status == MEMOS_OK && zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, out, &size) != 0) {
        status = fail_zmq("ask for the address of", address, err);
    }
    return status;
}

static enum broker_door door_of(const char *address)
{
    return broker_address_is_ipc(address) ? BROKER_DOOR_IPC : BROKER_DOOR_TCP;
}

static enum memos_status listen_at(
    struct broker *broker, const char *address, struct memos_error *err)
{
    enum broker_door door = door_of(address);
    struct broker_entrance *entrance = &broker->doors[door];
    enum memos_status status = MEMOS_OK;
    if (!entrance->router) {
        status =
            socket_open(broker, door, ZMQ_ROUTER, &entrance->router, &entrance->router_fd, err);
    }
    char *bound = broker->addresses[broker->addresses_count];
    if (status == MEMOS_OK) {
        status = bind_any(entrance->router, door, address, bound, err);
    }
    if (status == MEMOS_OK) {
        broker->addresses_count++;
        memos_log(MEMOS_LOG_INFO, memos_log_event("listening"), memos_log_text("address", bound));
    }
    return status;
}

/* Events at one address more. */
static enum memos_status events_at(
    struct broker *broker, const char *address, struct memos_error *err)
{
    enum broker_door door = door_of(address);
    struct broker_entrance *entrance = &broker->doors[door];
    enum memos_status status = MEMOS_OK;
    if (!entrance->router) {
        return memos_fail(
            err, MEMOS_INVALID, "events at %s, but nothing listens on that transport", address);
    }
    if (!entrance->events) {
        status = socket_open(broker, door, ZMQ_XPUB, &entrance->events, &entrance->events_fd, err);
    }
    if (status == MEMOS_OK) {
        status = bind_any(
            entrance->events, door, address, entrance->events_bound[entrance->events_count], err);
    }
    entrance->events_count += status == MEMOS_OK;
    return status;
}

enum memos_status broker_listen(struct broker *broker, struct memos_error *err)
{
    const struct broker_config *config = broker->options.config;
    enum memos_status status = MEMOS_OK;

    broker->addresses = calloc(config->listen.count, sizeof *broker->addresses);
    for (int door = 0; door < BROKER_DOORS; door++) {
        struct broker_entrance *entrance = &broker->doors[door];
        entrance->events_bound = calloc(config->events.count, sizeof *entrance->events_bound);
        if (!entrance->events_bound || !broker->addresses) {
            return memos_fail(err, MEMOS_NO_MEMORY, "no memory for addresses");
        }
    }
    for (size_t i = 0; i < config->listen.count && status == MEMOS_OK; i++) {
        status = listen_at(broker, config->listen.items[i], err);
    }
    for (size_t i = 0; i < config->events.count && status == MEMOS_OK; i++) {
        status = events_at(broker, config->events.items[i], err);
    }
    return status;
}

void broker_events_close(struct broker *broker, enum broker_door door)
{
    struct broker_entrance *entrance = &broker->doors[door];
    memos_log(MEMOS_LOG_WARNING,
        memos_log_event("a peer broke the events' socket: opening it anew"),
        memos_log_text("transport", door == BROKER_DOOR_IPC ? "ipc" : "tcp"));
    (void)set_int(entrance->events, ZMQ_LINGER, 0, NULL);
    (void)zmq_close(entrance->events);
    entrance->events = NULL;
    broker->metrics.events_closed++;
}

/* The old listener goes in ZeroMQ's own time; until then the address is in use, and the next tick
 * tries again. */
static void reopen(struct broker *broker, enum broker_door door)
{
    struct broker_entrance *entrance = &broker->doors[door];
    void *socket = NULL;
    char bound[ADDRESS_BYTES];
    enum memos_status status =
        socket_open(broker, door, ZMQ_XPUB, &socket, &entrance->events_fd, NULL);
    for (size_t i = 0; i < entrance->events_count && status == MEMOS_OK; i++) {
        status = bind_any(socket, door, entrance->events_bound[i], bound, NULL);
    }
    if (status == MEMOS_OK) {
        entrance->events = socket;
    } else if (socket) {
        (void)zmq_close(socket);
    }
}

void broker_events_reopen(struct broker *broker)
{
    for (int door = 0; door < BROKER_DOORS; door++) {
        if (broker->doors[door].events_count > 0 && !broker->doors[door].events) {
            reopen(broker, (enum broker_door)door);
        }
    }
}

void broker_hang_up(struct broker *broker)
{
    for (int door = 0; door < BROKER_DOORS; door++) {
        struct broker_entrance *entrance = &broker->doors[door];
        void *sockets[] = {entrance->router, entrance->events};
        for (size_t i = 0; i < 2; i++) {
            if (sockets[i]) {
                (void)zmq_close(sockets[i]);
            }
        }
        free(entrance->events_bound);
        *entrance = (struct broker_entrance){0};
    }
    free(broker->addresses);
    broker->addresses = NULL;
    broker->addresses_count = 0;
}
