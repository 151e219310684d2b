#include "tests/proto/fake_broker.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

struct fake_broker {
    void *context, *router, *publisher, *stop, *stop_end;
    pthread_t thread;
    fake_handler *handler;
    void *self;
};

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "fake broker: %s: %s\n", #condition, zmq_strerror(zmq_errno())); \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static void serve(struct fake_broker *broker)
{
    struct memos_frames frames;
    struct memos_arena arena;
    struct memos_error err = { 0 };
    Memos__Request *request = NULL;
    CHECK(memos_frames_receive(broker->router, 0, true, 1024, UINT64_MAX, &frames, &err) ==
        MEMOS_OK);
    struct memos_bytes envelope = memos_frames_envelope(&frames);
    memos_arena_init(&arena, memos_envelope_memory(envelope.size));
    CHECK(memos_request_unpack(envelope, &arena, &request, &err) == MEMOS_OK);
    struct fake_request in = { broker, request, &frames, broker->self };
    broker->handler(&in);
    memos_arena_finish(&arena);
    memos_frames_free(&frames);
}

static void *run(void *self)
{
    struct fake_broker *broker = self;
    zmq_pollitem_t items[] = { { .socket = broker->router, .events = ZMQ_POLLIN },
        { .socket = broker->stop, .events = ZMQ_POLLIN } };
    for (;;) {
        CHECK(zmq_poll(items, 2, -1) > 0);
        if (items[1].revents) {
            return NULL;
        }
        serve(broker);
    }
}

static void *open_socket(struct fake_broker *broker, int type, const char *address,
    const char *secret_key)
{
    int zero = 0, one = 1;
    void *socket = zmq_socket(broker->context, type);
    CHECK(socket);
    CHECK(zmq_setsockopt(socket, ZMQ_LINGER, &zero, sizeof zero) == 0);
    CHECK(zmq_setsockopt(socket, ZMQ_SNDHWM, &zero, sizeof zero) == 0); /* never drop a reply */
    if (secret_key) {
        CHECK(zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &one, sizeof one) == 0);
        CHECK(zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, secret_key, 41) == 0);
    }
    CHECK(zmq_bind(socket, address) == 0);
    return socket;
}

struct fake_broker *fake_broker_start(const char *address, const char *events,
    const char *secret_key, fake_handler *handler, void *self)
{
    struct fake_broker *broker = calloc(1, sizeof *broker);
    CHECK(broker);
    broker->context = zmq_ctx_new();
    broker->handler = handler;
    broker->self = self;
    broker->router = open_socket(broker, ZMQ_ROUTER, address, secret_key);
    broker->publisher = events ? open_socket(broker, ZMQ_PUB, events, secret_key) : NULL;
    broker->stop = open_socket(broker, ZMQ_PAIR, "inproc://stop", NULL);
    broker->stop_end = zmq_socket(broker->context, ZMQ_PAIR);
    CHECK(zmq_connect(broker->stop_end, "inproc://stop") == 0);
    CHECK(pthread_create(&broker->thread, NULL, run, broker) == 0);
    return broker;
}

void fake_broker_stop(struct fake_broker **broker)
{
    struct fake_broker *b = *broker;
    if (!b) {
        return;
    }
    CHECK(zmq_send(b->stop_end, "", 0, 0) == 0);
    CHECK(pthread_join(b->thread, NULL) == 0);
    zmq_close(b->stop_end);
    zmq_close(b->stop);
    zmq_close(b->router);
    if (b->publisher) {
        zmq_close(b->publisher);
    }
    zmq_ctx_term(b->context);
    free(b);
    *broker = NULL;
}

void fake_reply(struct fake_request *in, const Memos__Reply *reply, uint32_t first)
{
    struct memos_frames out;
    struct memos_error err = { 0 };
    struct memos_bytes identity = memos_frames_identity(in->frames);
    CHECK(memos_envelope_begin(&out, identity, &reply->base, &err) == MEMOS_OK);
    for (uint32_t i = first; i > 0 && i <= memos_frames_payload_count(in->frames); i++) {
        CHECK(memos_frames_add(&out, memos_frames_payload(in->frames, i), &err) == MEMOS_OK);
    }
    CHECK(memos_frames_send(in->broker->router, 0, &out, &err) == MEMOS_OK);
}

static void send_all(void *socket, const struct memos_bytes *frames, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int more = i + 1 < count ? ZMQ_SNDMORE : 0;
        CHECK(zmq_send(socket, frames[i].data, frames[i].size, more) >= 0);
    }
}

void fake_send_raw(struct fake_request *in, const struct memos_bytes *frames, size_t count)
{
    struct memos_bytes identity = memos_frames_identity(in->frames);
    CHECK(zmq_send(in->broker->router, identity.data, identity.size, ZMQ_SNDMORE) >= 0);
    send_all(in->broker->router, frames, count);
}

void fake_publish(struct fake_request *in, const struct memos_bytes *frames, size_t count)
{
    send_all(in->broker->publisher, frames, count);
}
