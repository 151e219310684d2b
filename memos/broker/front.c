/* The front thread: receives, decides, hands over, and sends what comes back.
 *
 * One turn is bounded work: what has finished is sent, then up to BATCH messages are taken from
 * each entrance, then it waits for the next thing. Descriptors of ZeroMQ sockets tell of changes
 * only once (they are edge-triggered), so that before every wait each socket is asked whether
 * something is there. */
#include "memos/broker/state.h"
#include "memos/broker/work.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "proto/log.h"

enum {
    BATCH = 256,
    READY_MAX = 32,
    TICK_US = 1000000,
    RETRY_MS = 10,
    POLL_EVERY_US = 1000,
    UNSENT_US_MAX = 30000000,
    QUICK_MESSAGE_BYTES = 4096, /* larger gets name many cubes */
    PREPARED_BYTES = 64 << 10,  /* changes from here on are converted by a reader */
    ROUTING_ID_BYTES = 5,       /* what ROUTER makes itself: a zero and 32 bits */
};

/* Requests gathered in one turn, to be handed over at its end with one lock each. */
struct gathered {
    struct broker_request *first, *last;
    size_t count;
};

struct turn {
    struct broker *broker;
    struct gathered readers, jobs;
    struct broker_reply *ready, **ready_tail; /* answers of this thread's own reads, not sent yet */
    size_t ready_count;
    size_t received;   /* messages in this turn */
    int64_t polled_us; /* when descriptors were last looked at */
    int64_t tick_us;
    bool publish; /* something was committed, or it is time to look */
};

static int64_t now_us(const struct broker *broker)
{
    return broker->clock.mono_us(broker->clock.self);
}

static void gather(struct gathered *gathered, struct broker_request *rq)
{
    rq->next = NULL;
    if (gathered->last) {
        gathered->last->next = rq;
    } else {
        gathered->first = rq;
    }
    gathered->last = rq;
    gathered->count++;
}

static void hand_over(struct broker_pool *pool, struct gathered *gathered)
{
    if (gathered->count > 0) {
        broker_pool_submit(pool, gathered->first, gathered->last, gathered->count);
        *gathered = (struct gathered){0};
    }
}

/* ---- requests' memory ---- */

static struct broker_request *request_take(struct broker *broker)
{
    struct broker_request *rq = broker->spare;
    if (rq) {
        broker->spare = rq->next;
        broker->spare_count--;
        rq->next = NULL;
        return rq;
    }
    return broker_request_create(broker, &rq, NULL) == MEMOS_OK ? rq : NULL;
}

void broker_request_release(struct broker_request *rq)
{
    struct broker *broker = rq->broker;
    if (rq->session) {
        broker->requests_inside--;
        broker->bytes_inside -= rq->message_bytes;
        broker_session_leave(rq);
    }
    bool heavy = rq->arena.used_most > PREPARED_BYTES || rq->work.used_most > PREPARED_BYTES;
    if (heavy || broker->spare_count >= BROKER_SPARE_MAX) {
        broker_request_destroy(&rq);
        return;
    }
    broker_request_reset(rq);
    rq->next = broker->spare;
    broker->spare = rq;
    broker->spare_count++;
}

/* ---- sending ---- */

static void unsent_append(struct broker *broker, struct broker_reply *reply)
{
    reply->since_us = reply->since_us ? reply->since_us : now_us(broker);
    reply->next = NULL;
    *broker->unsent_tail = reply;
    broker->unsent_tail = &reply->next;
}

static bool has_unsent(const struct broker *broker, const struct broker_request *rq)
{
    for (const struct broker_reply *reply = broker->unsent; reply; reply = reply->next) {
        if (reply->request == rq) {
            return true;
        }
    }
    return false;
}

/* The reply went out or will not: what was held for it can go. */
static void reply_over(struct broker_reply *reply, enum memos_status sent)
{
    struct broker_request *rq = reply->request;
    struct broker_metrics *metrics = &rq->broker->metrics;

    metrics->replies_dropped += sent == MEMOS_BUSY;
    metrics->clients_gone += sent == MEMOS_NOT_FOUND;
    if (!reply->last) {
        if (sent != MEMOS_OK) { /* nobody is there to hear the rest */
            atomic_store_explicit(&rq->cancelled, true, memory_order_relaxed);
            broker_work_unheard(rq);
        }
        memos_frames_free(&reply->frames);
        free(reply);
        return;
    }
    broker_metrics_count(metrics, rq->type, reply->status, now_us(rq->broker) - rq->arrived_us);
    broker_request_release(rq);
}

static uint64_t frames_bytes(const struct memos_frames *frames)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < frames->count; i++) {
        bytes += zmq_msg_size(&frames->parts[i]);
    }
    return bytes;
}

/* Send, or let go. Replies in parts wait for a client that is slow; others are dropped, because
 * nobody may fill this thread's memory. */
void broker_reply_send(struct broker *broker, struct broker_reply *reply)
{
    struct broker_request *rq = reply->request;
    bool in_parts =
        !reply->last ||
        (rq->type && (rq->type->class == BROKER_LONG || rq->type->class == BROKER_KEPT));
    uint64_t bytes = frames_bytes(&reply->frames);

    in_parts = in_parts && !reply->drop;
    if (reply->frames.count == 0) {
        reply_over(reply, MEMOS_NO_MEMORY);
        return;
    }
    if (in_parts && broker->unsent && has_unsent(broker, rq)) {
        unsent_append(broker, reply);
        return;
    }
    enum memos_status sent =
        memos_frames_send(broker->doors[rq->peer.door].router, ZMQ_DONTWAIT, &reply->frames, NULL);
    if (sent == MEMOS_OK) {
        broker->metrics.bytes_out += bytes;
    } else if (sent == MEMOS_BUSY && in_parts) {
        unsent_append(broker, reply);
        return;
    }
    reply_over(reply, sent);
}

bool broker_part_send(struct broker_request *rq, struct memos_frames *frames)
{
    struct broker *broker = rq->broker;
    uint64_t bytes = frames_bytes(frames);
    enum memos_status sent =
        memos_frames_send(broker->doors[rq->peer.door].router, ZMQ_DONTWAIT, frames, NULL);
    memos_frames_free(frames);
    broker->metrics.bytes_out += sent == MEMOS_OK ? bytes : 0;
    broker->metrics.replies_dropped += sent == MEMOS_BUSY;
    broker->metrics.clients_gone += sent == MEMOS_NOT_FOUND;
    return sent == MEMOS_OK;
}

/* Try again what found its client's queue full. */
static void unsent_retry(struct broker *broker)
{
    struct broker_reply *reply = broker->unsent;
    broker->unsent = NULL;
    broker->unsent_tail = &broker->unsent;
    while (reply) {
        struct broker_reply *next = reply->next;
        if (now_us(broker) - reply->since_us > UNSENT_US_MAX) {
            reply_over(reply, MEMOS_BUSY);
        } else {
            broker_reply_send(broker, reply);
        }
        reply = next;
    }
}

/* ---- what has finished ---- */

void broker_reply_push(struct broker *broker, struct broker_reply *reply)
{
    (void)pthread_mutex_lock(&broker->finished_lock);
    bool first = broker->finished == NULL;
    reply->next = NULL;
    *broker->finished_tail = reply;
    broker->finished_tail = &reply->next;
    (void)pthread_mutex_unlock(&broker->finished_lock);
    if (first) {
        (void)eventfd_write(broker->wake_fd, 1);
    }
}

static struct broker_reply *finished_take(struct broker *broker)
{
    (void)pthread_mutex_lock(&broker->finished_lock);
    struct broker_reply *first = broker->finished;
    broker->finished = NULL;
    broker->finished_tail = &broker->finished;
    (void)pthread_mutex_unlock(&broker->finished_lock);
    return first;
}

static bool is_change(const struct broker_request *rq)
{
    return rq->type && (rq->type->class == BROKER_WRITE ||
                           rq->envelope->body_case == MEMOS__REQUEST__BODY_IMPORT);
}

static bool has_forgotten(const struct broker_request *rq)
{
    return rq->envelope->body_case == MEMOS__REQUEST__BODY_FORGET && !rq->envelope->forget->dry_run;
}

/* Send what has finished. What a change says about rights is in force before it is answered, and
 * workers have been told of what is forgotten. */
static void finished_send(struct turn *turn)
{
    struct broker *broker = turn->broker;
    struct broker_reply *reply = finished_take(broker);
    bool renew = false;

    for (struct broker_reply *at = reply; at; at = at->next) {
        if (at->last && at->status == MEMOS_OK && is_change(at->request)) {
            turn->publish = true;
            broker_events_touch(broker->events, at->request->call.space);
            if (has_forgotten(at->request)) {
                broker_work_forgot(broker->work, at->request->call.space);
            }
            renew =
                renew || memos_bytes_equal(at->request->call.space, memos_bytes_of(BROKER_SYSTEM));
        }
    }
    if (renew) {
        broker_access_renew(broker);
    }
    while (reply) {
        struct broker_reply *next = reply->next;
        broker_reply_send(broker, reply);
        reply = next;
    }
}

/* ---- receiving ---- */

static void answer_now(
    struct broker_request *rq, enum memos_status status, const struct memos_error *err)
{
    broker_request_pack(rq, status, err);
    broker_reply_send(rq->broker, &rq->answer);
}

static void peer_fill(struct broker_request *rq, enum broker_door door)
{
    size_t count = rq->message.count;
    rq->peer.door = door;
    rq->peer.curve = door == BROKER_DOOR_TCP && rq->broker->keys.public_key[0] != '\0';
    if (rq->peer.curve && count > 0) {
        const char *key = zmq_msg_gets(&rq->message.parts[count - 1], "User-Id");
        (void)snprintf(rq->peer.key, sizeof rq->peer.key, "%s", key ? key : "");
    }
}

/* A routing id that ROUTER made is nobody else's, ever. One that a client chose could be taken by
 * another one, who would then get the replies. */
static enum memos_status connection_find(struct broker_request *rq, struct memos_error *err)
{
    struct memos_bytes identity = memos_frames_identity(&rq->message);
    const uint8_t *bytes = identity.data;
    if (identity.size != ROUTING_ID_BYTES || bytes[0] != 0) {
        return memos_fail(err, MEMOS_INVALID, "a client must not choose its own routing id");
    }
    struct memos_reader reader = memos_reader_of(memos_bytes_make(bytes + 1, 4));
    rq->connection = (uint64_t)rq->peer.door << 32 | memos_read_u32(&reader);
    return MEMOS_OK;
}

/* Is there room for one more? Counts it in when there is. */
static enum memos_status enter(struct broker_request *rq, struct memos_error *err)
{
    struct broker *broker = rq->broker;
    if (broker->draining) {
        return memos_fail(err, MEMOS_UNAVAILABLE, "the broker is going down");
    }
    if (broker->requests_inside >= broker->config.queue_max ||
        broker->bytes_inside > broker->config.queue_bytes_max) {
        return memos_fail(err, MEMOS_BUSY, "%zu requests of %llu bytes are waiting already",
            broker->requests_inside, (unsigned long long)broker->bytes_inside);
    }
    enum memos_status status = broker_session_enter(rq, rq->connection, err);
    if (status == MEMOS_OK) {
        broker->requests_inside++;
        broker->bytes_inside += rq->message_bytes;
    }
    return status;
}

static void run_front(struct broker_request *rq)
{
    struct memos_error err = {0};
    broker_request_begin(rq);
    broker_reader_rest(&rq->broker->reader); /* some begin a snapshot of their own */
    enum memos_status status = broker_request_convert(rq, &err);
    if (status == MEMOS_OK) {
        status = rq->type->front(rq, &err);
    }
    answer_now(rq, status, &err);
}

/* Whoever took it answers it, and lets it go. */
static void run_kept(struct broker_request *rq)
{
    struct memos_error err = {0};
    broker_request_begin(rq);
    enum memos_status status = broker_request_convert(rq, &err);
    if (status == MEMOS_OK) {
        status = rq->type->front(rq, &err);
    }
    if (status != MEMOS_OK) {
        rq->answer.drop = rq->type->one_way;
        answer_now(rq, status, &err);
    }
}

/* Send the answers that were kept back. */
static void ready_send(struct turn *turn)
{
    struct broker_reply *reply = turn->ready;
    turn->ready = NULL;
    turn->ready_tail = &turn->ready;
    turn->ready_count = 0;
    while (reply) {
        struct broker_reply *next = reply->next;
        broker_reply_send(turn->broker, reply);
        reply = next;
    }
}

/* Answers go out together: each that goes alone wakes ZeroMQ's thread, and then the client, for
 * itself, which costs as much as the read. */
static void ready_keep(struct turn *turn, struct broker_reply *reply)
{
    reply->next = NULL;
    *turn->ready_tail = reply;
    turn->ready_tail = &reply->next;
    if (++turn->ready_count == READY_MAX) {
        ready_send(turn);
    }
}

/* Two hops between threads cost more than a small read does. */
static bool run_quick(struct turn *turn, struct broker_request *rq)
{
    struct broker *broker = turn->broker;
    if (rq->message_bytes > QUICK_MESSAGE_BYTES || broker_pool_waiting(broker->readers) > 0) {
        return false;
    }
    rq->on_front = true;
    broker_run_read(&broker->reader, rq);
    broker->reader.keep = true; /* until something is acknowledged */
    rq->on_front = false;
    if (rq->too_long) {
        rq->too_long = false;
        return false;
    }
    broker->metrics.inline_reads++;
    ready_keep(turn, &rq->answer);
    return true;
}

/* The vector of an updated text is made of what the update leaves as it is, too. */
static bool reads_before_writing(const struct broker_request *rq)
{
    return rq->envelope->body_case == MEMOS__REQUEST__BODY_UPDATE;
}

static void run(struct turn *turn, struct broker_request *rq)
{
    switch (broker_dispatch_class(rq)) {
    case BROKER_FRONT:
        run_front(rq);
        break;
    case BROKER_QUICK:
        if (!run_quick(turn, rq)) {
            gather(&turn->readers, rq);
        }
        break;
    case BROKER_READ:
        gather(&turn->readers, rq);
        break;
    case BROKER_WRITE:
        if (rq->message_bytes > PREPARED_BYTES || reads_before_writing(rq)) {
            gather(&turn->readers, rq);
        } else {
            broker_run_write(rq, NULL);
        }
        break;
    case BROKER_LONG:
        gather(&turn->jobs, rq);
        break;
    case BROKER_KEPT:
        run_kept(rq);
        break;
    }
}

/* Find out what the envelope says, and until when it wants its answer. */
static enum memos_status open_envelope(struct broker_request *rq, struct memos_error *err)
{
    struct memos_bytes envelope = memos_frames_envelope(&rq->message);
    /* as much again for what is converted from it */
    rq->arena.size_max = 2 * memos_envelope_memory(envelope.size);
    return memos_request_unpack(envelope, &rq->arena, &rq->envelope, err);
}

static void set_deadline(struct broker_request *rq, int64_t now)
{
    int64_t ms = rq->envelope->deadline_ms;
    if (ms == 0 && rq->type->class != BROKER_LONG && rq->type->class != BROKER_KEPT) {
        ms = rq->broker->config.default_deadline_ms;
    }
    rq->deadline_us = ms > 0 ? now + ms * 1000 : 0;
}

static void accept_message(struct turn *turn, struct broker_request *rq)
{
    struct memos_error err = {0};
    enum memos_status status = open_envelope(rq, &err);
    if (status == MEMOS_OK) {
        status = connection_find(rq, &err);
    }
    if (status == MEMOS_OK && !broker_type_one_way(rq->envelope)) {
        status = enter(rq, &err);
    }
    if (status == MEMOS_OK) {
        rq->access = broker_access_keep(rq->broker->access);
        status = broker_dispatch(rq, &err);
    }
    if (status != MEMOS_OK) {
        answer_now(rq, status, &err);
        return;
    }
    set_deadline(rq, rq->arrived_us);
    run(turn, rq);
}

/* A message that is none of ours, or too large: say so if we know to whom, and in reply to what. */
static void refuse_message(
    struct broker_request *rq, enum memos_status status, const struct memos_error *err)
{
    rq->broker->metrics.malformed++;
    if (memos_frames_identity(&rq->message).size == 0) {
        broker_request_release(rq);
        return;
    }
    if (status == MEMOS_TOO_LARGE && memos_frames_envelope(&rq->message).size > 0) {
        (void)(open_envelope(rq, NULL) == MEMOS_OK);
    }
    answer_now(rq, status, err);
}

/* False when there was nothing. */
static bool receive_one(struct turn *turn, enum broker_door door)
{
    struct broker *broker = turn->broker;
    struct memos_error err = {0};
    struct memos_frames message;
    enum memos_status status = memos_frames_receive(broker->doors[door].router, ZMQ_DONTWAIT, true,
        MEMOS_FRAMES_MAX, broker->message_bytes_max, &message, &err);
    if (status == MEMOS_BUSY || status == MEMOS_UNAVAILABLE || status == MEMOS_IO) {
        memos_frames_free(&message);
        return false;
    }
    struct broker_request *rq = request_take(broker);
    if (!rq) {
        memos_frames_free(&message);
        return true;
    }
    rq->message = message;
    rq->message_bytes = (size_t)frames_bytes(&message);
    rq->arrived_us = now_us(broker);
    broker->metrics.bytes_in += rq->message_bytes;
    peer_fill(rq, door);
    if (status == MEMOS_OK) {
        accept_message(turn, rq);
    } else {
        refuse_message(rq, status, &err);
    }
    return true;
}

/* ---- turns ---- */

static bool socket_has(void *socket)
{
    int events = 0;
    size_t size = sizeof events;
    return socket && zmq_getsockopt(socket, ZMQ_EVENTS, &events, &size) == 0 &&
           (events & ZMQ_POLLIN) != 0;
}

/* What time brings: grants that end, imports that nobody goes on with, events of the sweep. */
static void tick(struct turn *turn)
{
    struct broker *broker = turn->broker;
    int64_t until_us = broker_access_until(broker->access);
    if (until_us > 0 && broker->clock.wall_us(broker->clock.self) >= until_us) {
        broker_access_renew(broker);
    }
    broker_imports_expire(broker->imports, now_us(broker));
    broker_events_expire(broker->events, now_us(broker));
    broker_events_touch_all(broker->events);
    broker_events_reopen(broker);
    turn->publish = true;
    turn->tick_us = now_us(broker) + TICK_US;
}

static bool doors_have(const struct broker *broker)
{
    bool has = false;
    for (int door = 0; door < BROKER_DOORS; door++) {
        has =
            has || socket_has(broker->doors[door].router) || socket_has(broker->doors[door].events);
    }
    return has;
}

/* One turn; true when the next should follow without a wait. */
static bool take_turn(struct turn *turn)
{
    struct broker *broker = turn->broker;
    finished_send(turn);
    unsent_retry(broker);
    broker->reader.keep = false; /* what has just been acknowledged must be seen */
    turn->received = 0;
    for (int door = 0; door < BROKER_DOORS; door++) {
        struct broker_entrance *entrance = &broker->doors[door];
        for (int i = 0; entrance->router && i < BATCH; i++) {
            if (!receive_one(turn, (enum broker_door)door)) {
                break;
            }
            turn->received++;
        }
        ready_send(turn);
        if (entrance->events && !broker_events_subscriptions(broker->events, entrance->events)) {
            broker_events_close(broker, (enum broker_door)door);
        }
    }
    hand_over(broker->readers, &turn->readers);
    hand_over(broker->jobs, &turn->jobs);
    if (now_us(broker) >= turn->tick_us) {
        tick(turn);
    }
    if (now_us(broker) >= broker_work_next_us(broker->work)) {
        broker_work_tick(broker->work);
    }
    if (turn->publish) {
        turn->publish = broker_events_publish(broker, &broker->reader);
    }
    if (!broker->reader.keep) {
        broker_reader_rest(&broker->reader);
    }
    return turn->publish || turn->received > 0 || doors_have(broker);
}

static void reload(struct broker *broker)
{
    struct broker_config fresh;
    struct memos_error err = {0};
    enum memos_status status = MEMOS_OK;
    broker_access_renew(broker);
    if (broker->options.reload) {
        status = broker->options.reload(broker->options.self, &fresh, &err);
        if (status == MEMOS_OK) {
            status = broker_config_adopt(broker, &fresh, &err);
        }
        broker_config_finish(&fresh);
    }
    if (status == MEMOS_OK) {
        memos_log(MEMOS_LOG_INFO, memos_log_event("configuration reloaded"));
    } else {
        memos_log(
            MEMOS_LOG_ERROR, memos_log_event("configuration not reloaded"), memos_log_error(&err));
    }
}

static void take_signals(struct broker *broker)
{
    struct signalfd_siginfo info;
    while (read(broker->options.signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGHUP) {
            atomic_store(&broker->reload_wanted, true);
        } else {
            atomic_store(&broker->stop_wanted, true);
        }
    }
}

/* Wait until something is there, at most timeout_ms.
 *
 * While messages come, descriptors are only looked at now and then (for signals), and who sends
 * them gets the processor instead: asking an empty socket again at once makes its other side wake
 * us with a system call for every message. */
static void wait_for_any(struct turn *turn, int timeout_ms)
{
    struct broker *broker = turn->broker;
    struct pollfd fds[2 + 2 * BROKER_DOORS];
    nfds_t count = 0;
    eventfd_t wakes;

    if (timeout_ms == 0 && now_us(broker) - turn->polled_us < POLL_EVERY_US) {
        (void)sched_yield();
        return;
    }
    fds[count++] = (struct pollfd){.fd = broker->wake_fd, .events = POLLIN};
    fds[count++] = (struct pollfd){.fd = broker->options.signal_fd, .events = POLLIN};
    for (int door = 0; door < BROKER_DOORS; door++) {
        if (broker->doors[door].router) {
            fds[count++] = (struct pollfd){.fd = broker->doors[door].router_fd, .events = POLLIN};
            int events = broker->doors[door].events ? broker->doors[door].events_fd : -1;
            fds[count++] = (struct pollfd){.fd = events, .events = POLLIN};
        }
    }
    if (timeout_ms != 0) {
        broker_reader_rest(&broker->reader);
    }
    int ready = poll(fds, count, timeout_ms);
    turn->polled_us = now_us(broker);
    if (ready <= 0) {
        return;
    }
    if (fds[0].revents) {
        (void)eventfd_read(broker->wake_fd, &wakes);
    }
    if (fds[1].revents & POLLIN) {
        take_signals(broker);
    }
}

static int timeout_of(const struct turn *turn, bool again)
{
    if (again) {
        return 0;
    }
    int64_t next_us = broker_work_next_us(turn->broker->work);
    next_us = next_us < turn->tick_us ? next_us : turn->tick_us;
    int64_t left_ms = (next_us - now_us(turn->broker)) / 1000 + 1;
    int timeout = turn->broker->unsent ? RETRY_MS : TICK_US / 1000;
    return left_ms < timeout ? (left_ms > 0 ? (int)left_ms : 0) : timeout;
}

/* Long jobs do not end by themselves in time: tell them that nobody waits. */
static void cancel_jobs(struct broker *broker)
{
    for (size_t i = 0; i < BROKER_SESSION_BUCKETS; i++) {
        for (struct broker_session *session = broker->sessions[i]; session;
             session = session->next) {
            for (struct broker_request *rq = session->first; rq; rq = rq->session_next) {
                if (rq->type && rq->type->class == BROKER_LONG) {
                    atomic_store_explicit(&rq->cancelled, true, memory_order_relaxed);
                }
            }
        }
    }
}

/* Answer what is inside, refuse what comes, for at most drain_timeout. */
static void drain(struct turn *turn)
{
    struct broker *broker = turn->broker;
    int64_t until_us = now_us(broker) + broker->config.drain_ms * 1000;
    broker->draining = true;
    broker_work_stop(broker->work);
    cancel_jobs(broker);
    bool again = take_turn(turn);
    while (broker->requests_inside > 0 && now_us(broker) < until_us) {
        wait_for_any(turn, again ? 0 : RETRY_MS);
        again = take_turn(turn);
    }
    memos_log(MEMOS_LOG_INFO, memos_log_event("drained"),
        memos_log_uint("left", broker->requests_inside));
    atomic_store(&broker->stopping, true);
}

enum memos_status broker_run(struct broker *broker, struct memos_error *err)
{
    struct turn turn = {.broker = broker};
    turn.ready_tail = &turn.ready;
    (void)err;
    while (!atomic_load(&broker->stop_wanted)) {
        bool again = take_turn(&turn);
        wait_for_any(&turn, timeout_of(&turn, again));
        if (atomic_exchange(&broker->reload_wanted, false)) {
            reload(broker);
        }
    }
    memos_log(MEMOS_LOG_INFO, memos_log_event("stopping"),
        memos_log_uint("inside", broker->requests_inside));
    drain(&turn);
    broker_reader_rest(&broker->reader);
    return MEMOS_OK;
}

static void wake(struct broker *broker)
{
    (void)eventfd_write(broker->wake_fd, 1);
}

void broker_stop(struct broker *broker)
{
    atomic_store(&broker->stop_wanted, true);
    wake(broker);
}

void broker_reload(struct broker *broker)
{
    atomic_store(&broker->reload_wanted, true);
    wake(broker);
}
