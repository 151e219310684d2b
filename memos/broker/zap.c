#include "memos/broker/zap.h"

#include "memos/broker/convert.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#define ADDRESS "inproc://zeromq.zap.01"
#define CONTROL "inproc://memosd.zap.control"

enum { FRAMES = 7, FRAME_BYTES_MAX = 256, KEY_RAW_BYTES = 32 };

struct broker_zap {
    void *context;
    void *handler; /* REP, the thread's after it has started */
    void *control; /* PAIR: its other end is the thread's; anything sent means stop */
    void *stopper;
    pthread_t thread;
    bool running;
    pthread_mutex_t lock;
    struct broker_access *access; /* under lock */
};

/* One request of the protocol: version, request id, domain, address, identity, mechanism, key. */
struct question {
    size_t count;
    size_t sizes[FRAMES];
    uint8_t frames[FRAMES][FRAME_BYTES_MAX];
};

/* Read a whole message; what does not fit makes it malformed (count 0), but is read to its end. */
static bool question_receive(void *socket, struct question *out)
{
    int more = 1;
    bool fits = true;
    out->count = 0;
    while (more) {
        zmq_msg_t part;
        (void)zmq_msg_init(&part);
        if (zmq_msg_recv(&part, socket, 0) < 0) {
            (void)zmq_msg_close(&part);
            return false;
        }
        size_t size = zmq_msg_size(&part);
        fits = fits && out->count < FRAMES && size <= FRAME_BYTES_MAX;
        if (fits) {
            memcpy(out->frames[out->count], zmq_msg_data(&part), size);
            out->sizes[out->count++] = size;
        }
        more = zmq_msg_more(&part);
        (void)zmq_msg_close(&part);
    }
    out->count = fits ? out->count : 0;
    return true;
}

static bool frame_is(const struct question *question, size_t index, const char *text)
{
    return question->sizes[index] == strlen(text) &&
           memcmp(question->frames[index], text, question->sizes[index]) == 0;
}

/* Is this a client whose key is allowed? Writes the key's Z85. */
static bool is_allowed(
    struct broker_zap *zap, const struct question *question, char out_key[BROKER_KEY_BYTES + 1])
{
    if (question->count != FRAMES || !frame_is(question, 0, "1.0") ||
        !frame_is(question, 2, BROKER_ZAP_DOMAIN) || !frame_is(question, 5, "CURVE") ||
        question->sizes[6] != KEY_RAW_BYTES ||
        !zmq_z85_encode(out_key, question->frames[6], KEY_RAW_BYTES)) {
        return false;
    }
    (void)pthread_mutex_lock(&zap->lock);
    bool allowed =
        zap->access && broker_access_principal(zap->access, memos_bytes_of(out_key)).size > 0;
    (void)pthread_mutex_unlock(&zap->lock);
    return allowed;
}

static void answer(struct broker_zap *zap, const struct question *question)
{
    char key[BROKER_KEY_BYTES + 1] = "";
    bool allowed = is_allowed(zap, question, key);
    const char *texts[] = {allowed ? "200" : "400", allowed ? "OK" : "this key is not allowed",
        allowed ? key : "", ""};

    (void)zmq_send(zap->handler, "1.0", 3, ZMQ_SNDMORE);
    (void)zmq_send(zap->handler, question->frames[1], question->count > 1 ? question->sizes[1] : 0,
        ZMQ_SNDMORE);
    for (size_t i = 0; i < 4; i++) {
        (void)zmq_send(zap->handler, texts[i], strlen(texts[i]), i < 3 ? ZMQ_SNDMORE : 0);
    }
}

static void *zap_main(void *self)
{
    struct broker_zap *zap = self;
    struct question question;
    for (;;) {
        zmq_pollitem_t items[] = {
            {.socket = zap->handler, .events = ZMQ_POLLIN},
            {.socket = zap->control, .events = ZMQ_POLLIN},
        };
        if (zmq_poll(items, 2, -1) < 0 && zmq_errno() != EINTR) {
            break;
        }
        if (items[1].revents) {
            break;
        }
        if (items[0].revents) {
            if (!question_receive(zap->handler, &question)) {
                break;
            }
            answer(zap, &question);
        }
    }
    return NULL;
}

static void *socket_open(
    void *context, int type, const char *address, bool bind, struct memos_error *err)
{
    int linger = 0;
    void *socket = zmq_socket(context, type);
    if (!socket || zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger) != 0 ||
        (bind ? zmq_bind(socket, address) : zmq_connect(socket, address)) != 0) {
        (void)memos_fail_foreign(
            err, MEMOS_IO, zmq_errno(), "cannot open %s: %s", address, zmq_strerror(zmq_errno()));
        if (socket) {
            (void)zmq_close(socket);
        }
        return NULL;
    }
    return socket;
}

enum memos_status broker_zap_create(
    void *context, struct broker_zap **out_zap, struct memos_error *err)
{
    struct broker_zap *zap = calloc(1, sizeof *zap);
    if (!zap) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to check keys");
    }
    zap->context = context;
    (void)pthread_mutex_init(&zap->lock, NULL);
    zap->handler = socket_open(context, ZMQ_REP, ADDRESS, true, err);
    zap->control = zap->handler ? socket_open(context, ZMQ_PAIR, CONTROL, true, err) : NULL;
    zap->stopper = zap->control ? socket_open(context, ZMQ_PAIR, CONTROL, false, err) : NULL;
    if (!zap->stopper) {
        broker_zap_destroy(&zap);
        return MEMOS_IO;
    }
    int failed = pthread_create(&zap->thread, NULL, zap_main, zap);
    if (failed) {
        broker_zap_destroy(&zap);
        return memos_fail_errno(err, failed, "cannot start the thread that checks keys");
    }
    (void)pthread_setname_np(zap->thread, "memosd-zap");
    zap->running = true;
    *out_zap = zap;
    return MEMOS_OK;
}

void broker_zap_destroy(struct broker_zap **zap)
{
    struct broker_zap *it = *zap;
    *zap = NULL;
    if (!it) {
        return;
    }
    if (it->running) {
        (void)zmq_send(it->stopper, "", 0, 0);
        (void)pthread_join(it->thread, NULL);
    }
    void *sockets[] = {it->stopper, it->control, it->handler};
    for (size_t i = 0; i < 3; i++) {
        if (sockets[i]) {
            (void)zmq_close(sockets[i]);
        }
    }
    broker_access_drop(&it->access);
    (void)pthread_mutex_destroy(&it->lock);
    free(it);
}

void broker_zap_allow(struct broker_zap *zap, struct broker_access *access)
{
    struct broker_access *kept = broker_access_keep(access);
    (void)pthread_mutex_lock(&zap->lock);
    struct broker_access *old = zap->access;
    zap->access = kept;
    (void)pthread_mutex_unlock(&zap->lock);
    broker_access_drop(&old);
}
