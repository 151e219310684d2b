#include "memos/broker/events.h"

#include "memos/broker/state.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 1024, TOKEN_BYTES = 16, PEERS_MAX = 16, SUBSCRIPTIONS = 256, RECORDS = 64 };

/* One watched space. */
struct topic {
    struct topic *next; /* in its bucket */
    char space[MEMCUBE_SPACE_BYTES_MAX + 1];
    uint8_t token[TOKEN_BYTES];
    int64_t lease_until_us;
    uint64_t published; /* seq */
    bool dirty;         /* there may be something to publish */
    bool many;          /* more watchers than are remembered below */
    size_t peers_count;
    struct broker_peer peers[PEERS_MAX];
};

struct broker_events {
    struct topic *buckets[BUCKETS];
    size_t count;
    struct broker_events_stats stats;
};

static struct topic **bucket_of(struct broker_events *events, struct memos_bytes space)
{
    uint32_t hash = 2166136261u; /* FNV-1a */
    const uint8_t *bytes = space.data;
    for (size_t i = 0; i < space.size; i++) {
        hash = (hash ^ bytes[i]) * 16777619u;
    }
    return &events->buckets[hash % BUCKETS];
}

static struct topic *topic_of(struct broker_events *events, struct memos_bytes space)
{
    struct topic *topic = *bucket_of(events, space);
    while (topic && !memos_bytes_equal(memos_bytes_of(topic->space), space)) {
        topic = topic->next;
    }
    return topic;
}

enum memos_status broker_events_create(struct broker_events **out_events, struct memos_error *err)
{
    *out_events = calloc(1, sizeof **out_events);
    return *out_events ? MEMOS_OK : memos_fail(err, MEMOS_NO_MEMORY, "no memory for events");
}

/* Call `over` for every topic; those for which it says true go. */
static void topics_drop(struct broker_events *events,
    bool (*over)(const struct topic *topic, const void *self), const void *self)
{
    for (size_t i = 0; i < BUCKETS; i++) {
        for (struct topic **at = &events->buckets[i]; *at;) {
            struct topic *topic = *at;
            if (over(topic, self)) {
                *at = topic->next;
                events->count--;
                free(topic);
            } else {
                at = &topic->next;
            }
        }
    }
}

static bool over_always(const struct topic *topic, const void *self)
{
    (void)topic;
    (void)self;
    return true;
}

void broker_events_destroy(struct broker_events **events)
{
    if (*events) {
        topics_drop(*events, over_always, NULL);
        free(*events);
        *events = NULL;
    }
}

static void peer_remember(struct topic *topic, const struct broker_peer *peer)
{
    for (size_t i = 0; i < topic->peers_count; i++) {
        const struct broker_peer *known = &topic->peers[i];
        if (known->door == peer->door && strcmp(known->key, peer->key) == 0) {
            return;
        }
    }
    if (topic->peers_count == PEERS_MAX) {
        topic->many = true;
    } else {
        topic->peers[topic->peers_count++] = *peer;
    }
}

enum memos_status broker_events_watch(struct broker_events *events, struct broker_request *rq,
    const struct memcube_space *space, size_t spaces_max, int64_t lease_ms, uint8_t out_token[16],
    struct memos_error *err)
{
    struct topic *topic = topic_of(events, space->name);
    if (!topic && events->count >= spaces_max) {
        return memos_fail(err, MEMOS_BUSY, "%zu spaces are watched already", events->count);
    }
    if (!topic) {
        topic = calloc(1, sizeof *topic);
        if (!topic) {
            return memos_fail(err, MEMOS_NO_MEMORY, "no memory to watch a space");
        }
        (void)snprintf(topic->space, sizeof topic->space, "%.*s", (int)space->name.size,
            (const char *)space->name.data);
        randombytes_buf(topic->token, sizeof topic->token);
        topic->published = space->seq;
        struct topic **bucket = bucket_of(events, space->name);
        topic->next = *bucket;
        *bucket = topic;
        events->count++;
    }
    peer_remember(topic, &rq->peer);
    topic->lease_until_us = rq->arrived_us + lease_ms * 1000;
    memcpy(out_token, topic->token, TOKEN_BYTES);
    return MEMOS_OK;
}

static bool over_for_somebody(const struct topic *topic, const void *self)
{
    const struct broker_access *access = self;
    struct memos_bytes space = memos_bytes_of(topic->space);
    for (size_t i = 0; i < topic->peers_count; i++) {
        struct memos_bytes principal = broker_peer_principal(&topic->peers[i], access);
        if (broker_access_right(access, principal, space) < BROKER_RIGHT_READ) {
            return true;
        }
    }
    return topic->many;
}

void broker_events_review(struct broker_events *events, const struct broker_access *access)
{
    topics_drop(events, over_for_somebody, access);
}

static bool over_by_time(const struct topic *topic, const void *self)
{
    return topic->lease_until_us < *(const int64_t *)self;
}

void broker_events_expire(struct broker_events *events, int64_t now_us)
{
    topics_drop(events, over_by_time, &now_us);
}

/* ---- subscriptions ---- */

static bool token_stands(const struct broker_events *events, const uint8_t *token)
{
    for (size_t i = 0; i < BUCKETS; i++) {
        for (const struct topic *topic = events->buckets[i]; topic; topic = topic->next) {
            if (sodium_memcmp(topic->token, token, TOKEN_BYTES) == 0) {
                return true;
            }
        }
    }
    return false;
}

/* A message on the events' socket is 1 (subscribe) or 0 (the opposite), then the topic. */
static bool subscription_take(struct broker_events *events, void *socket, zmq_msg_t *message)
{
    const uint8_t *bytes = zmq_msg_data(message);
    size_t size = zmq_msg_size(message);
    if (size == 0 || bytes[0] > 1) {
        return false;
    }
    bool on = bytes[0] == 1, ours = size == 1 + TOKEN_BYTES;
    if (on && (!ours || !token_stands(events, bytes + 1))) {
        events->stats.refused++;
        return true;
    }
    events->stats.subscriptions += on;
    (void)zmq_setsockopt(socket, on ? ZMQ_SUBSCRIBE : ZMQ_UNSUBSCRIBE, bytes + 1, size - 1);
    return true;
}

bool broker_events_subscriptions(struct broker_events *events, void *socket)
{
    bool good = true;
    for (int i = 0; i < SUBSCRIPTIONS && good; i++) {
        zmq_msg_t message;
        (void)zmq_msg_init(&message);
        bool got = zmq_msg_recv(&message, socket, ZMQ_DONTWAIT) >= 0;
        good = !got || subscription_take(events, socket, &message);
        (void)zmq_msg_close(&message);
        if (!got) {
            break;
        }
    }
    return good;
}

/* ---- publishing ---- */

void broker_events_touch(struct broker_events *events, struct memos_bytes space)
{
    struct topic *topic = space.size > 0 ? topic_of(events, space) : NULL;
    if (topic) {
        topic->dirty = true;
    }
}

void broker_events_touch_all(struct broker_events *events)
{
    for (size_t i = 0; i < BUCKETS; i++) {
        for (struct topic *topic = events->buckets[i]; topic; topic = topic->next) {
            topic->dirty = true;
        }
    }
}

/* Watchers share what is published, so that nothing may be in it that one of them may not see: a
 * cube with an access list is one that nobody in general may see. */
static enum memos_status refs_of_all(struct memcube_read *read, const struct memcube_space *space,
    const struct memcube_log_record *record, struct memcube_ref *out, size_t *out_count,
    struct memos_error *err)
{
    const struct memos_bytes anybody = {"", 0};
    struct memcube_version version;
    size_t count = 0;
    for (size_t i = 0; i < record->entries_count && count < BROKER_EVENT_ITEMS_MAX; i++) {
        const struct memcube_ref *ref = &record->entries[i].ref;
        bool may = false;
        enum memos_status status =
            memcube_version_get(read, space, &ref->id, ref->number, NULL, &version, err);
        if (status == MEMOS_OK) {
            status = memcube_viewer_may(read, space, &version, anybody, &may, err);
        }
        if (status != MEMOS_OK) {
            return status;
        }
        if (may) {
            out[count++] = *ref;
        }
    }
    *out_count = count;
    return MEMOS_OK;
}

static enum memos_status affected_of_all(struct memcube_read *read,
    const struct memcube_space *space, const struct memcube_log_record *record,
    struct memos_id *out, size_t *out_count, struct memos_error *err)
{
    const struct memos_bytes anybody = {"", 0};
    struct memcube_version version;
    size_t count = 0;
    for (size_t i = 0; i < record->affected_count && count < BROKER_EVENT_ITEMS_MAX; i++) {
        bool may = false;
        enum memos_status status =
            memcube_version_get(read, space, &record->affected[i], 0, NULL, &version, err);
        if (status == MEMOS_OK) {
            status = memcube_viewer_may(read, space, &version, anybody, &may, err);
        }
        if (status != MEMOS_OK && status != MEMOS_NOT_FOUND) {
            return status;
        }
        if (may) {
            out[count++] = record->affected[i];
        }
    }
    *out_count = count;
    return MEMOS_OK;
}

/* The event of a record, in the snapshot's memory. */
static enum memos_status event_make(struct memcube_read *read, const struct memcube_space *space,
    const struct memcube_log_record *record, Memos__Event *out, struct memos_error *err)
{
    struct memcube_ref refs[BROKER_EVENT_ITEMS_MAX];
    struct memos_id affected[BROKER_EVENT_ITEMS_MAX];
    struct memos_arena *arena = memcube_read_arena(read);

    memos__event__init(out);
    out->seq = record->seq;
    out->time_us = record->time_us;
    out->operation = (uint32_t)record->operation;
    enum memos_status status = refs_of_all(read, space, record, refs, &out->n_refs, err);
    if (status == MEMOS_OK) {
        status = affected_of_all(read, space, record, affected, &out->n_affected, err);
    }
    if (status == MEMOS_OK) {
        status = broker_text_make(arena, space->name, &out->space, err);
    }
    if (status == MEMOS_OK) {
        status = broker_text_make(arena, record->author, &out->author, err);
    }
    if (status == MEMOS_OK) {
        status = broker_refs_make(arena, refs, out->n_refs, &out->refs, err);
    }
    if (status == MEMOS_OK) {
        status = broker_ids_make(arena, affected, out->n_affected, &out->affected, err);
    }
    bool cut = record->entries_count > BROKER_EVENT_ITEMS_MAX;
    out->refs_total = cut ? (uint32_t)record->entries_count : (uint32_t)out->n_refs;
    return status;
}

/* To the subscribers of each entrance. Those that do not keep up miss it. */
static void event_send(struct broker *broker, const struct topic *topic, const Memos__Event *event)
{
    struct memos_bytes token = memos_bytes_make(topic->token, sizeof topic->token);
    for (int door = 0; door < BROKER_DOORS; door++) {
        struct memos_frames frames = {0};
        void *socket = broker->doors[door].events;
        enum memos_status status =
            socket ? memos_envelope_begin(&frames, token, &event->base, NULL) : MEMOS_NOT_FOUND;
        if (status == MEMOS_OK) {
            status = memos_frames_send(socket, ZMQ_DONTWAIT, &frames, NULL);
        }
        if (socket) {
            broker->events->stats.published += status == MEMOS_OK;
            broker->events->stats.dropped += status != MEMOS_OK;
        }
        memos_frames_free(&frames);
    }
}

/* Publish at most RECORDS of a space; clears dirty when that was all. */
static enum memos_status topic_publish(struct broker *broker, struct broker_reader *reader,
    struct topic *topic, struct memos_error *err)
{
    struct memcube_log_record records[RECORDS];
    struct memcube_space space;
    size_t count = 0;

    enum memos_status status = broker_reader_renew(reader, err);
    if (status == MEMOS_OK) {
        status = memcube_space_find(reader->read, memos_bytes_of(topic->space), &space, err);
    }
    if (status == MEMOS_OK && space.seq > topic->published) {
        status = memcube_log_read(
            reader->read, &space, topic->published + 1, false, records, RECORDS, &count, err);
    }
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        Memos__Event event;
        status = event_make(reader->read, &space, &records[i], &event, err);
        if (status == MEMOS_OK) {
            event_send(broker, topic, &event);
            topic->published = records[i].seq;
        }
    }
    topic->dirty = status == MEMOS_OK && count == RECORDS;
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status; /* a space that is not there yet */
}

bool broker_events_publish(struct broker *broker, struct broker_reader *reader)
{
    struct broker_events *events = broker->events;
    bool more = false;
    for (size_t i = 0; events->count > 0 && i < BUCKETS; i++) {
        for (struct topic *topic = events->buckets[i]; topic; topic = topic->next) {
            if (topic->dirty && topic_publish(broker, reader, topic, NULL) != MEMOS_OK) {
                events->stats.dropped++;
            }
            more = more || topic->dirty;
        }
    }
    return more;
}

void broker_events_stats(const struct broker_events *events, struct broker_events_stats *out)
{
    *out = events->stats;
    out->spaces = events->count;
}
