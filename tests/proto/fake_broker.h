/* A broker in a thread, that answers as a test wants: also late, wrongly, or not at all. */
#ifndef TESTS_PROTO_FAKE_BROKER_H
#define TESTS_PROTO_FAKE_BROKER_H

#include "proto/envelope.h"

struct fake_broker;

/* One request, on the broker's thread. */
struct fake_request {
    struct fake_broker *broker;
    const Memos__Request *request;
    const struct memos_frames *frames;
    void *self;
};
typedef void fake_handler(struct fake_request *in);

/* Bound to address when it returns. secret_key: CURVE with everybody let in, or NULL. events: the
 * address of a PUB socket, or NULL. */
struct fake_broker *fake_broker_start(const char *address, const char *events,
    const char *secret_key, fake_handler *handler, void *self);
void fake_broker_stop(struct fake_broker **broker);

/* For handlers: answer the sender with this reply and the request's payload frames from the
 * first-th (from 1; 0: none). reply->id is sent as it is. */
void fake_reply(struct fake_request *in, const Memos__Reply *reply, uint32_t first);

/* For handlers: send these frames to the sender, or to the subscribers. */
void fake_send_raw(struct fake_request *in, const struct memos_bytes *frames, size_t count);
void fake_publish(struct fake_request *in, const struct memos_bytes *frames, size_t count);

#endif
