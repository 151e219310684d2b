/* Events: what changes in a space, told to those who may read it.
 *
 * A client asks with Watch and gets a token, 16 random bytes that are the topic on the events'
 * socket. The socket takes a subscription only when it is a token that stands (ZMQ_XPUB_MANUAL);
 * everything else is passed over. The watchers of a space share its token. When one of them loses
 * the right to read the space, the token falls, and those who still may read get a new one when
 * they ask again, which they do before their lease ends; sequence numbers tell them what they
 * missed.
 *
 * What is published is read from the space's log, from where the last publishing ended: so events
 * come in order and without gaps, whoever made the change (a client, an import, the sweep).
 *
 * Cubes with an access list are left out of an event's refs, because all watchers see the same.
 *
 * Threads: the front thread's. */
#ifndef MEMOS_BROKER_EVENTS_H
#define MEMOS_BROKER_EVENTS_H

#include "memos/broker/request.h"

struct broker_events;

MEMOS_MUST_USE enum memos_status broker_events_create(
    struct broker_events **out_events, struct memos_error *err);
void broker_events_destroy(struct broker_events **events);

/* A token for a peer that may read the space. BUSY when too many spaces are watched. */
MEMOS_MUST_USE enum memos_status broker_events_watch(struct broker_events *events,
    struct broker_request *rq, const struct memcube_space *space, size_t spaces_max,
    int64_t lease_ms, uint8_t out_token[16], struct memos_error *err);

/* The grants changed: drop the tokens that somebody holds who may not read any more. */
void broker_events_review(struct broker_events *events, const struct broker_access *access);

/* Drop the tokens whose lease is over. */
void broker_events_expire(struct broker_events *events, int64_t now_us);

/* Take what subscribers sent on a door's socket; bounded work. False when a peer sent what is no
 * subscription: ZeroMQ then no longer knows whose the next ones are (it keeps the senders of
 * subscriptions in a queue of their own), and the socket must be closed before anything else is
 * read from it. */
bool broker_events_subscriptions(struct broker_events *events, void *socket);

/* Something was committed in this space; in some space. */
void broker_events_touch(struct broker_events *events, struct memos_bytes space);
void broker_events_touch_all(struct broker_events *events);

/* Publish what is new in the watched spaces. Bounded work; true when there is more. */
bool broker_events_publish(struct broker *broker, struct broker_reader *reader);

struct broker_events_stats {
    uint64_t spaces, published, dropped, subscriptions, refused;
};
void broker_events_stats(const struct broker_events *events, struct broker_events_stats *out);

#endif
