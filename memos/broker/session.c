/* Clients of whom something is inside the broker or on its way out; nobody else costs memory. */
#include "memos/broker/state.h"

#include <stdlib.h>

static size_t bucket_of(uint64_t key)
{
    return (size_t)((key * 0x9E3779B97F4A7C15ull) >> 32) % BROKER_SESSION_BUCKETS;
}

void broker_session_drop(struct broker_session **session)
{
    struct broker_session *it = *session;
    *session = NULL;
    if (it && atomic_fetch_sub_explicit(&it->references, 1, memory_order_acq_rel) == 1) {
        free(it);
    }
}

/* The table's reference is the last one: nothing of this client is anywhere. */
static bool session_over(const struct broker_session *session)
{
    return session->requests == 0 &&
           atomic_load_explicit(&session->references, memory_order_acquire) == 1;
}

/* Find a session, and throw out on the way those of its bucket that are over. */
static struct broker_session *session_find(struct broker *broker, uint64_t key)
{
    struct broker_session **at = &broker->sessions[bucket_of(key)], *found = NULL;
    while (*at) {
        struct broker_session *session = *at;
        if (session->key == key) {
            found = session;
        } else if (session_over(session)) {
            *at = session->next;
            broker_session_drop(&session);
            continue;
        }
        at = &(*at)->next;
    }
    return found;
}

static struct broker_session *session_make(struct broker *broker, uint64_t key)
{
    struct broker_session *session = calloc(1, sizeof *session);
    if (session) {
        struct broker_session **bucket = &broker->sessions[bucket_of(key)];
        atomic_init(&session->references, 1);
        session->key = key;
        session->next = *bucket;
        *bucket = session;
    }
    return session;
}

enum memos_status broker_session_enter(
    struct broker_request *rq, uint64_t key, struct memos_error *err)
{
    struct broker *broker = rq->broker;
    struct broker_session *session = session_find(broker, key);
    session = session ? session : session_make(broker, key);
    if (!session) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a client");
    }
    if (session->requests >= broker->config.client_queue_max) {
        return memos_fail(
            err, MEMOS_BUSY, "%zu requests of this client are waiting already", session->requests);
    }
    session->leaving_max = broker->config.client_reply_bytes_max;
    session->requests++;
    atomic_fetch_add_explicit(&session->references, 1, memory_order_relaxed);
    rq->session = session;
    rq->session_previous = NULL;
    rq->session_next = session->first;
    if (session->first) {
        session->first->session_previous = rq;
    }
    session->first = rq;
    return MEMOS_OK;
}

void broker_session_leave(struct broker_request *rq)
{
    struct broker_session *session = rq->session;
    if (!session) {
        return;
    }
    session->requests--;
    if (rq->session_previous) {
        rq->session_previous->session_next = rq->session_next;
    } else {
        session->first = rq->session_next;
    }
    if (rq->session_next) {
        rq->session_next->session_previous = rq->session_previous;
    }
}

void broker_sessions_free(struct broker *broker)
{
    for (size_t i = 0; i < BROKER_SESSION_BUCKETS; i++) {
        while (broker->sessions[i]) {
            struct broker_session *session = broker->sessions[i];
            broker->sessions[i] = session->next;
            broker_session_drop(&session);
        }
    }
}
