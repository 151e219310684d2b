/* Events of one space, without gaps. Declared in proto/client.h.
 *
 * A PUB socket forgets what nobody is subscribed to yet, drops what a slow subscriber does not
 * take, and says neither. Sequence numbers say it: what is missing between two events, or
 * before the first, is read from the space's log and given as if it had come as an event. So
 * that nothing stays unnoticed when no further event comes, the broker is asked where the
 * history stands: soon after the beginning, then ever less often, and in time to keep the
 * lease. */
#include "proto/client_internal.h"
#include "proto/clock.h"
#include "proto/envelope.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ASK_FIRST_US 100000
#define LEASE_MS_LEAST 1000
#define EVENT_REFS_MAX 256
#define CATCH_UP_RECORDS 1000
#define ADDRESS_BYTES_MAX 512

struct memos_watch {
    struct memos_client *client;
    struct memos_clock clock;
    void *socket;
    char *space;
    uint8_t token[MEMOS_IDENTITY_BYTES_MAX];
    size_t token_size;
    uint64_t seq;       /* of the last event that was given */
    uint64_t seq_known; /* how far the history goes, as far as we were told */
    int64_t ask_us, ask_gap_us;
    struct memos_message *missed; /* records of the log that are to be given, from missed_next on */
    size_t missed_next;
};

static int64_t now_us(const struct memos_watch *watch)
{
    return watch->clock.mono_us(watch->clock.self);
}

static enum memos_status call(struct memos_watch *watch, Memos__Request *request,
    Memos__Reply__BodyCase expected, struct memos_message **out, struct memos_error *err)
{
    enum memos_status status = memos_client_call(watch->client, request, NULL, 0, out, err);
    if (status == MEMOS_OK && memos_message_reply(*out)->body_case != expected) {
        status = memos_fail(err, MEMOS_CORRUPT, "a reply of another kind than was asked for");
    }
    if (status != MEMOS_OK) {
        memos_message_free(out);
    }
    return status;
}

static enum memos_status subscribe(
    struct memos_watch *watch, const ProtobufCBinaryData *token, struct memos_error *err)
{
    if (token->len == 0 || token->len > sizeof watch->token) {
        return memos_fail(err, MEMOS_CORRUPT, "a watch token of %zu bytes", token->len);
    }
    if (token->len == watch->token_size && memcmp(token->data, watch->token, token->len) == 0) {
        return MEMOS_OK;
    }
    if (zmq_setsockopt(watch->socket, ZMQ_SUBSCRIBE, token->data, token->len) != 0) {
        return memos_fail(err, MEMOS_NO_MEMORY, "cannot subscribe");
    }
    if (watch->token_size > 0) {
        (void)zmq_setsockopt(watch->socket, ZMQ_UNSUBSCRIBE, watch->token, watch->token_size);
    }
    memcpy(watch->token, token->data, token->len);
    watch->token_size = token->len;
    return MEMOS_OK;
}

static void learn_seq(struct memos_watch *watch, uint64_t seq)
{
    watch->seq_known = seq > watch->seq_known ? seq : watch->seq_known;
}

/* Ask for the events, or for their going on, and where the history stands. */
static enum memos_status ask(struct memos_watch *watch, struct memos_error *err)
{
    struct memos_message *reply = NULL;
    Memos__Watch body = MEMOS__WATCH__INIT;
    Memos__Request request = MEMOS__REQUEST__INIT;
    body.space = watch->space;
    request.body_case = MEMOS__REQUEST__BODY_WATCH;
    request.watch = &body;
    enum memos_status status =
        call(watch, &request, MEMOS__REPLY__BODY_WATCH_TOKEN, &reply, err);
    if (status != MEMOS_OK) {
        return status;
    }
    const Memos__WatchToken *token = memos_message_reply(reply)->watch_token;
    int64_t lease_ms = token->lease_ms < LEASE_MS_LEAST ? LEASE_MS_LEAST : token->lease_ms;
    int64_t gap_us = watch->ask_gap_us ? watch->ask_gap_us * 2 : ASK_FIRST_US;
    watch->ask_gap_us = gap_us > lease_ms * 500 ? lease_ms * 500 : gap_us;
    watch->ask_us = now_us(watch) + watch->ask_gap_us;
    learn_seq(watch, token->seq);
    status = subscribe(watch, &token->token, err);
    memos_message_free(&reply);
    return status;
}

static enum memos_status connect_to_events(struct memos_watch *watch, struct memos_error *err)
{
    struct memos_message *reply = NULL;
    Memos__Hello body = MEMOS__HELLO__INIT;
    Memos__Request request = MEMOS__REQUEST__INIT;
    request.body_case = MEMOS__REQUEST__BODY_HELLO;
    request.hello = &body;
    enum memos_status status = call(watch, &request, MEMOS__REPLY__BODY_WELCOME, &reply, err);
    if (status != MEMOS_OK) {
        return status;
    }
    char events[ADDRESS_BYTES_MAX];
    const char *bound = memos_message_reply(reply)->welcome->events;
    if (bound[0] == 0) {
        status = memos_fail(
            err, MEMOS_UNSUPPORTED, "the broker gives no events on this connection");
    } else {
        status = memos_address_reachable(watch->client, bound, events, sizeof events, err);
    }
    if (status == MEMOS_OK) {
        status = memos_client_socket(watch->client, ZMQ_SUB, &watch->socket, err);
    }
    if (status == MEMOS_OK && zmq_connect(watch->socket, events) != 0) {
        status = memos_fail_foreign(err, MEMOS_UNAVAILABLE, zmq_errno(),
            "cannot connect to the events at '%s': %s", events, zmq_strerror(zmq_errno()));
    }
    memos_message_free(&reply);
    return status;
}

enum memos_status memos_watch_open(struct memos_client *client, const char *space,
    struct memos_watch **out_watch, struct memos_error *err)
{
    struct memos_watch *watch = calloc(1, sizeof *watch);
    if (watch) {
        watch->client = client;
        watch->clock = memos_clock_system();
        watch->space = strdup(space);
    }
    if (!watch || !watch->space) {
        memos_watch_close(&watch);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a watch");
    }
    enum memos_status status = connect_to_events(watch, err);
    if (status == MEMOS_OK) {
        status = ask(watch, err);
    }
    if (status != MEMOS_OK) {
        memos_watch_close(&watch);
        return status;
    }
    watch->seq = watch->seq_known;
    *out_watch = watch;
    return MEMOS_OK;
}

void memos_watch_close(struct memos_watch **watch)
{
    struct memos_watch *w = *watch;
    if (!w) {
        return;
    }
    if (w->socket) {
        (void)zmq_close(w->socket);
    }
    memos_message_free(&w->missed);
    free(w->space);
    free(w);
    *watch = NULL;
}

/* A copy that memos__event__free_unpacked frees. */
static enum memos_status copy_event(
    const Memos__Event *event, Memos__Event **out, struct memos_error *err)
{
    size_t size = memos__event__get_packed_size(event);
    uint8_t *packed = malloc(size + 1);
    if (!packed) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for an event");
    }
    memos__event__pack(event, packed);
    *out = memos__event__unpack(NULL, size, packed);
    free(packed);
    return *out ? MEMOS_OK : memos_fail(err, MEMOS_NO_MEMORY, "no memory for an event");
}

/* The event that would have told of a record. */
static enum memos_status event_of_record(const struct memos_watch *watch,
    const Memos__LogRecord *record, Memos__Event **out, struct memos_error *err)
{
    Memos__Ref refs[EVENT_REFS_MAX], *pointers[EVENT_REFS_MAX];
    Memos__Event event = MEMOS__EVENT__INIT;
    event.space = watch->space;
    event.seq = record->seq;
    event.time_us = record->time_us;
    event.operation = record->operation;
    event.author = record->author;
    event.refs_total = record->entries_total;
    event.refs = pointers;
    for (size_t i = 0; i < record->n_entries && i < EVENT_REFS_MAX; i++) {
        memos__ref__init(&refs[i]);
        refs[i].id = record->entries[i]->id;
        refs[i].number = record->entries[i]->number;
        pointers[event.n_refs++] = &refs[i];
    }
    event.affected = record->affected;
    event.n_affected =
        record->n_affected < EVENT_REFS_MAX ? record->n_affected : EVENT_REFS_MAX;
    return copy_event(&event, out, err);
}

/* Read what the log has after the last event. CORRUPT when it has nothing although it should: the
 * gap is then given up. */
static enum memos_status catch_up(struct memos_watch *watch, struct memos_error *err)
{
    Memos__Log body = MEMOS__LOG__INIT;
    Memos__Request request = MEMOS__REQUEST__INIT;
    body.space = watch->space;
    body.from = watch->seq + 1;
    body.count_max = CATCH_UP_RECORDS;
    request.body_case = MEMOS__REQUEST__BODY_LOG;
    request.log = &body;
    watch->missed_next = 0;
    enum memos_status status =
        call(watch, &request, MEMOS__REPLY__BODY_LOG_RECORDS, &watch->missed, err);
    if (status != MEMOS_OK) {
        return status;
    }
    const Memos__LogRecords *records = memos_message_reply(watch->missed)->log_records;
    if (records->n_records == 0 || records->records[0]->seq <= watch->seq) {
        watch->seq = watch->seq_known;
        memos_message_free(&watch->missed);
        return memos_fail(err, MEMOS_CORRUPT, "the log lacks records that were announced");
    }
    learn_seq(watch, records->head_seq);
    return MEMOS_OK;
}

/* The next record that was missed. BUSY: there is none. */
static enum memos_status next_missed(
    struct memos_watch *watch, Memos__Event **out, struct memos_error *err)
{
    while (watch->missed || watch->seq < watch->seq_known) {
        if (!watch->missed) {
            enum memos_status status = catch_up(watch, err);
            if (status != MEMOS_OK) {
                return status;
            }
        }
        const Memos__LogRecords *records = memos_message_reply(watch->missed)->log_records;
        for (; watch->missed_next < records->n_records; watch->missed_next++) {
            const Memos__LogRecord *record = records->records[watch->missed_next];
            if (record->seq > watch->seq) {
                enum memos_status status = event_of_record(watch, record, out, err);
                watch->seq = status == MEMOS_OK ? record->seq : watch->seq;
                return status;
            }
        }
        memos_message_free(&watch->missed);
    }
    return memos_fail(err, MEMOS_BUSY, "nothing was missed");
}

/* The event in a message, if it is the next; of one that lies further ahead, only its number is
 * taken. BUSY: nothing to give. */
static enum memos_status take_event(struct memos_watch *watch, const struct memos_frames *frames,
    Memos__Event **out, struct memos_error *err)
{
    struct memos_bytes envelope = memos_frames_envelope(frames);
    struct memos_arena arena;
    Memos__Event *event = NULL;
    memos_arena_init(&arena, memos_envelope_memory(envelope.size));
    enum memos_status status = memos_event_unpack(envelope, &arena, &event, err);
    if (status == MEMOS_INVALID) {
        status = memos_fail(err, MEMOS_CORRUPT, "what the broker published is no event");
    } else if (status == MEMOS_OK && event->seq == watch->seq + 1) {
        learn_seq(watch, event->seq);
        status = copy_event(event, out, err);
        watch->seq = status == MEMOS_OK ? event->seq : watch->seq;
    } else if (status == MEMOS_OK) {
        learn_seq(watch, event->seq);
        status = memos_fail(err, MEMOS_BUSY, "not the next event");
    }
    memos_arena_finish(&arena);
    return status;
}

/* What was published and is there. BUSY: nothing to give. */
static enum memos_status next_published(
    struct memos_watch *watch, Memos__Event **out, struct memos_error *err)
{
    while (watch->seq == watch->seq_known) {
        struct memos_frames frames;
        enum memos_status status = memos_frames_receive(watch->socket, ZMQ_DONTWAIT, true, 0,
            MEMOS_ENVELOPE_BYTES_MAX, &frames, err);
        bool nothing = status == MEMOS_BUSY;
        if (status == MEMOS_OK) {
            status = take_event(watch, &frames, out, err);
        } else if (status == MEMOS_INVALID || status == MEMOS_TOO_LARGE) {
            status = memos_fail(err, MEMOS_CORRUPT, "what the broker published is no event");
        }
        memos_frames_free(&frames);
        if (nothing || status != MEMOS_BUSY) {
            return status;
        }
    }
    return memos_fail(err, MEMOS_BUSY, "the log has to be read first");
}

/* The next event that is there. BUSY: none. */
static enum memos_status next_now(
    struct memos_watch *watch, Memos__Event **out, struct memos_error *err)
{
    enum memos_status status;
    do {
        if (now_us(watch) >= watch->ask_us) {
            status = ask(watch, err);
            if (status != MEMOS_OK) {
                return status;
            }
        }
        status = next_missed(watch, out, err);
        if (status == MEMOS_BUSY) {
            status = next_published(watch, out, err);
        }
    } while (status == MEMOS_BUSY && watch->seq < watch->seq_known);
    return status;
}

enum memos_status memos_watch_next(struct memos_watch *watch, int64_t timeout_ms,
    Memos__Event **out_event, struct memos_error *err)
{
    int64_t wait_us, deadline_us = INT64_MAX;
    if (timeout_ms >= 0 && !__builtin_mul_overflow(timeout_ms, (int64_t)1000, &wait_us) &&
        __builtin_add_overflow(now_us(watch), wait_us, &deadline_us)) {
        deadline_us = INT64_MAX;
    }
    *out_event = NULL;
    for (;;) {
        enum memos_status status = next_now(watch, out_event, err);
        if (status != MEMOS_BUSY) {
            return status;
        }
        int64_t now = now_us(watch);
        if (now >= deadline_us) {
            return memos_fail(err, MEMOS_DEADLINE, "no event in time");
        }
        int64_t until_us = watch->ask_us < deadline_us ? watch->ask_us : deadline_us;
        zmq_pollitem_t item = { .socket = watch->socket, .events = ZMQ_POLLIN };
        (void)zmq_poll(&item, 1, until_us > now ? (long)((until_us - now) / 1000 + 1) : 0);
    }
}
