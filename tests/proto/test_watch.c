/* If this failed, somebody who follows a space would miss a change, see one twice, or wait for
 * ever. */
#include "proto/client.h"
#include "tests/proto/fake_broker.h"
#include "tests/proto/temp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char address[300], events[300];
static struct fake_broker *broker;
static struct memos_client *client;

/* The space, as the broker's thread has it. A put adds a record; its reason says what is published.
 * Sync: what the tests set or read is atomic. */
static struct {
    uint64_t seq;            /* of the last record */
    uint64_t lost_until;     /* the log has nothing up to here */
    _Atomic unsigned tokens; /* given so far; each is another when `moving` */
    _Atomic bool moving, no_events, denied;
    _Atomic unsigned log_calls;
} space;

static size_t current_token(char out[20])
{
    (void)snprintf(out, 20, "token-%u", space.moving ? space.tokens : 0);
    return strlen(out);
}

static void publish(struct fake_request *in, uint64_t seq)
{
    char token[20], author[] = "ann", name[] = "s";
    uint8_t packed[200], id[16] = { 9 };
    Memos__Event event = MEMOS__EVENT__INIT;
    Memos__Ref ref = MEMOS__REF__INIT, *refs[] = { &ref };
    ref.id = (ProtobufCBinaryData){ sizeof id, id };
    ref.number = (uint32_t)seq;
    event.space = name;
    event.seq = seq;
    event.author = author;
    event.refs = refs;
    event.n_refs = 1;
    event.refs_total = 1;
    size_t size = memos__event__pack(&event, packed);
    const struct memos_bytes frames[] = { { token, current_token(token) }, memos_protocol_frame(),
        { packed, size } };
    fake_publish(in, frames, 3);
}

static void answer(struct fake_request *in, Memos__Reply *reply)
{
    reply->id = in->request->id;
    fake_reply(in, reply, 0);
}

static void answer_log(struct fake_request *in)
{
    enum { PAGE = 7 }; /* less than was asked for: the client has to come again */
    Memos__Reply reply = MEMOS__REPLY__INIT;
    Memos__LogRecords records = MEMOS__LOG_RECORDS__INIT;
    Memos__LogRecord record[PAGE], *pointers[PAGE];
    Memos__LogEntry entry[PAGE], *entries[PAGE];
    uint8_t id[16] = { 9 };
    char author[] = "ann";
    atomic_fetch_add(&space.log_calls, 1);
    uint64_t seq = in->request->log->from;
    seq = seq <= space.lost_until ? space.lost_until + 1 : seq;
    for (size_t i = 0; i < PAGE && seq <= space.seq; i++, seq++) {
        memos__log_record__init(&record[i]);
        memos__log_entry__init(&entry[i]);
        entry[i].id = (ProtobufCBinaryData){ sizeof id, id };
        entry[i].number = (uint32_t)seq;
        entries[i] = &entry[i];
        record[i].seq = seq;
        record[i].author = author;
        record[i].entries = &entries[i];
        record[i].n_entries = 1;
        record[i].entries_total = 1;
        pointers[i] = &record[i];
        records.n_records = i + 1;
    }
    records.records = pointers;
    records.head_seq = space.seq;
    reply.body_case = MEMOS__REPLY__BODY_LOG_RECORDS;
    reply.log_records = &records;
    answer(in, &reply);
}

static void answer_put(struct fake_request *in)
{
    static const struct memos_bytes garbage[][3] = {
        { { "token-0", 7 }, { "MEMOS\1", 6 }, { "\xff", 1 } },
        { { "token-0", 7 }, { "MEMOS\7", 6 }, { "", 0 } },
        { { "token-0", 7 }, { "", 0 }, { "", 0 } },
    };
    Memos__Reply reply = MEMOS__REPLY__INIT;
    const char *how = in->request->put->reason;
    if (strcmp(how, "garbage") == 0) {
        for (size_t i = 0; i < 3; i++) {
            fake_publish(in, garbage[i], 3);
        }
        fake_publish(in, garbage[0], 1);
        answer(in, &reply);
        return;
    }
    space.seq++;
    if (strcmp(how, "tell") == 0 || strcmp(how, "twice") == 0) {
        publish(in, space.seq);
    }
    if (strcmp(how, "twice") == 0) {
        publish(in, space.seq);
        publish(in, 1);
    } else if (strcmp(how, "lost") == 0) {
        space.lost_until = space.seq;
    }
    answer(in, &reply);
}

static void handle(struct fake_request *in)
{
    Memos__Reply reply = MEMOS__REPLY__INIT;
    Memos__Welcome welcome = MEMOS__WELCOME__INIT;
    Memos__WatchToken token = MEMOS__WATCH_TOKEN__INIT;
    char text[20], nowhere[] = "";
    switch (in->request->body_case) {
    case MEMOS__REQUEST__BODY_HELLO:
        welcome.events = space.no_events ? nowhere : events;
        reply.body_case = MEMOS__REPLY__BODY_WELCOME;
        reply.welcome = &welcome;
        answer(in, &reply);
        break;
    case MEMOS__REQUEST__BODY_WATCH:
        space.tokens++;
        token.token.len = current_token(text);
        token.token.data = (uint8_t *)text;
        token.lease_ms = 1000;
        token.seq = space.seq;
        reply.body_case = MEMOS__REPLY__BODY_WATCH_TOKEN;
        reply.watch_token = &token;
        reply.status = space.denied ? MEMOS_DENIED : MEMOS_OK;
        answer(in, &reply);
        break;
    case MEMOS__REQUEST__BODY_PUT:
        answer_put(in);
        break;
    default:
        answer_log(in);
    }
}

/* ---- what the tests share ---- */

static int start(void **state)
{
    (void)state;
    static int number;
    char path[280], name[20];
    struct memos_error err = { 0 };
    (void)snprintf(name, sizeof name, "%d.sock", ++number);
    (void)snprintf(address, sizeof address, "ipc://%s", temp_path(name, path, sizeof path));
    (void)snprintf(name, sizeof name, "%d.pub", number);
    (void)snprintf(events, sizeof events, "ipc://%s", temp_path(name, path, sizeof path));
    space.seq = space.lost_until = 0; /* no broker runs yet */
    space.tokens = space.log_calls = 0;
    space.moving = space.no_events = space.denied = false;
    broker = fake_broker_start(address, events, NULL, handle, NULL);
    struct memos_client_options options = { .address = address };
    return memos_client_open(&options, &client, &err) != MEMOS_OK;
}

static int stop(void **state)
{
    (void)state;
    memos_client_close(&client);
    fake_broker_stop(&broker);
    return 0;
}

static void put(const char *how)
{
    char reason[20];
    Memos__Put body = MEMOS__PUT__INIT;
    Memos__Request request = MEMOS__REQUEST__INIT;
    struct memos_message *reply = NULL;
    struct memos_error err = { 0 };
    (void)snprintf(reason, sizeof reason, "%s", how);
    body.reason = reason;
    request.body_case = MEMOS__REQUEST__BODY_PUT;
    request.put = &body;
    assert_int_equal(memos_client_call(client, &request, NULL, 0, &reply, &err), MEMOS_OK);
    memos_message_free(&reply);
}

static struct memos_watch *open_watch(void)
{
    struct memos_watch *watch = NULL;
    struct memos_error err = { 0 };
    if (memos_watch_open(client, "s", &watch, &err) != MEMOS_OK) {
        fail_msg("watch: %s", err.text);
    }
    return watch;
}

static void expect(struct memos_watch *watch, uint64_t seq)
{
    Memos__Event *event = NULL;
    struct memos_error err = { 0 };
    if (memos_watch_next(watch, 10000, &event, &err) != MEMOS_OK) {
        fail_msg("event %u: %s", (unsigned)seq, err.text);
    }
    assert_int_equal(event->seq, seq);
    assert_string_equal(event->space, "s");
    assert_string_equal(event->author, "ann");
    assert_int_equal(event->n_refs, 1);
    assert_int_equal(event->refs_total, 1);
    assert_int_equal(event->refs[0]->number, seq);
    assert_int_equal(event->refs[0]->id.len, 16);
    memos__event__free_unpacked(event, NULL);
}

static void expect_nothing(struct memos_watch *watch, int64_t timeout_ms)
{
    Memos__Event *event = NULL;
    struct memos_error err = { 0 };
    assert_int_equal(memos_watch_next(watch, timeout_ms, &event, &err), MEMOS_DEADLINE);
    assert_null(event);
}

/* Put and take until an event comes by itself: from then on the subscription stands. seq: the
 * first. Returns the last sequence number. */
static uint64_t subscribe(struct memos_watch *watch, uint64_t seq)
{
    for (; seq < 1000; seq++) {
        unsigned before = atomic_load(&space.log_calls);
        put("tell");
        expect(watch, seq);
        if (atomic_load(&space.log_calls) == before) {
            return seq;
        }
    }
    fail_msg("the subscription never stood");
    return 0;
}

/* ---- tests ---- */

static void every_change_comes_once_and_in_order(void **state)
{
    (void)state;
    put("tell"); /* before the watch: not one of its events */
    struct memos_watch *watch = open_watch();
    for (int i = 0; i < 50; i++) {
        put(i % 3 == 0 ? "quiet" : i % 3 == 1 ? "tell" : "twice");
    }
    for (uint64_t seq = 2; seq <= 51; seq++) {
        expect(watch, seq);
    }
    expect_nothing(watch, 0);
    memos_watch_close(&watch);
    assert_null(watch);
    memos_watch_close(&watch);
}

static void what_is_never_published_is_found_in_the_log(void **state)
{
    (void)state;
    struct memos_watch *watch = open_watch();
    expect_nothing(watch, 0);
    for (int i = 0; i < 20; i++) { /* more than a page of the log */
        put("quiet");
    }
    for (uint64_t seq = 1; seq <= 20; seq++) {
        expect(watch, seq);
    }
    expect_nothing(watch, 0);
    memos_watch_close(&watch);
}

static void a_gap_is_filled_at_once(void **state)
{
    (void)state;
    struct memos_watch *watch = open_watch();
    uint64_t seq = subscribe(watch, 1);
    put("quiet");
    put("quiet");
    put("tell");
    expect(watch, seq + 1);
    expect(watch, seq + 2);
    expect(watch, seq + 3);
    memos_watch_close(&watch);
}

/* Ask until the broker answers: what is sent while a connection breaks is lost. */
static void reach_broker(void)
{
    enum memos_status status = MEMOS_DEADLINE;
    for (int i = 0; i < 100 && status != MEMOS_OK; i++) {
        Memos__Log body = MEMOS__LOG__INIT;
        Memos__Request request = MEMOS__REQUEST__INIT;
        struct memos_message *reply = NULL;
        struct memos_error err = { 0 };
        request.body_case = MEMOS__REQUEST__BODY_LOG;
        request.log = &body;
        request.deadline_ms = 100;
        status = memos_client_call(client, &request, NULL, 0, &reply, &err);
        memos_message_free(&reply);
    }
    assert_int_equal(status, MEMOS_OK);
}

/* A broker that comes back publishes to those who watched before. */
static void a_restart_is_survived(void **state)
{
    (void)state;
    struct memos_watch *watch = open_watch();
    uint64_t seq = subscribe(watch, 1);
    fake_broker_stop(&broker);
    broker = fake_broker_start(address, events, NULL, handle, NULL);
    reach_broker();
    (void)subscribe(watch, seq + 1);
    memos_watch_close(&watch);
}

static void garbage_is_an_error_and_no_more(void **state)
{
    (void)state;
    struct memos_watch *watch = open_watch();
    uint64_t seq = subscribe(watch, 1);
    put("garbage");
    put("tell");
    int errors = 0;
    for (;;) {
        Memos__Event *event = NULL;
        struct memos_error err = { 0 };
        enum memos_status status = memos_watch_next(watch, 10000, &event, &err);
        if (status == MEMOS_OK) {
            assert_int_equal(event->seq, seq + 1);
            memos__event__free_unpacked(event, NULL);
            break;
        }
        assert_true(status == MEMOS_CORRUPT || status == MEMOS_UNSUPPORTED);
        errors++;
    }
    assert_true(errors <= 4);
    put("tell");
    expect(watch, seq + 2);
    memos_watch_close(&watch);
}

static void a_new_token_is_followed(void **state)
{
    (void)state;
    space.moving = true;
    struct memos_watch *watch = open_watch();
    for (uint64_t seq = 1; seq <= 5; seq++) {
        expect_nothing(watch, 150); /* long enough to ask again, at least at the beginning */
        put("tell");
        expect(watch, seq);
    }
    memos_watch_close(&watch);
    assert_true(space.tokens > 2);
}

static void a_log_with_a_hole_does_not_stop_the_watch(void **state)
{
    (void)state;
    Memos__Event *event = NULL;
    struct memos_error err = { 0 };
    struct memos_watch *watch = open_watch();
    put("lost");
    put("lost");
    assert_int_equal(memos_watch_next(watch, 10000, &event, &err), MEMOS_CORRUPT);
    expect_nothing(watch, 0);
    put("quiet");
    expect(watch, 3);
    memos_watch_close(&watch);
}

static void refusals_reach_the_caller(void **state)
{
    (void)state;
    struct memos_watch *watch = NULL;
    struct memos_error err = { 0 };
    space.denied = true;
    assert_int_equal(memos_watch_open(client, "s", &watch, &err), MEMOS_DENIED);
    space.no_events = true;
    assert_int_equal(memos_watch_open(client, "s", &watch, &err), MEMOS_UNSUPPORTED);
    assert_null(watch);
}

int main(void)
{
#define WITH_BROKER(test) cmocka_unit_test_setup_teardown(test, start, stop)
    const struct CMUnitTest tests[] = {
        WITH_BROKER(every_change_comes_once_and_in_order),
        WITH_BROKER(what_is_never_published_is_found_in_the_log),
        WITH_BROKER(a_gap_is_filled_at_once),
        WITH_BROKER(a_restart_is_survived),
        WITH_BROKER(garbage_is_an_error_and_no_more),
        WITH_BROKER(a_new_token_is_followed),
        WITH_BROKER(a_log_with_a_hole_does_not_stop_the_watch),
        WITH_BROKER(refusals_reach_the_caller),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
