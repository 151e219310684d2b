/* If this failed, a program could take another request's answer for its own, hang on a broker
 * that is gone, or crash on what a broken one sends. */
#include "proto/client.h"
#include "proto/client_internal.h"
#include "proto/clock.h"
#include "tests/proto/fake_broker.h"
#include "tests/proto/temp.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char address[300];
static struct fake_broker *broker;
static uint64_t late_id; /* Sync: of the broker's thread alone */
static atomic_bool is_silent; /* it has a request that it will not answer */

/* ---- what the broker does with a request: the space's name says it ---- */

static void reply_text(struct fake_request *in, uint64_t id, uint32_t status, const char *text)
{
    char message[100], hint[] = "what to do";
    Memos__Reply reply = MEMOS__REPLY__INIT;
    (void)snprintf(message, sizeof message, "%s", text);
    reply.id = id;
    reply.status = status;
    reply.message = message;
    reply.hint = hint;
    fake_reply(in, &reply, 1);
}

static void reply_more(struct fake_request *in, uint64_t id, int count)
{
    for (int i = 1; i <= count; i++) {
        Memos__Reply reply = MEMOS__REPLY__INIT;
        Memos__Progress progress = MEMOS__PROGRESS__INIT;
        progress.done = (uint64_t)i;
        reply.id = id;
        reply.more = true;
        reply.body_case = MEMOS__REPLY__BODY_PROGRESS;
        reply.progress = &progress;
        fake_reply(in, &reply, 1);
    }
}

static const struct memos_bytes garbage[][3] = {
    { { "", 0 }, { "", 0 }, { "", 0 } },
    { { "MEMOS\2", 6 }, { "", 0 }, { "", 0 } },
    { { "MEMOS\1", 6 }, { "\xff\xff\xff", 3 }, { "", 0 } },
    { { "MEMOS\1", 6 }, { "\x08\x07\x1a\xff\xff\xff\xff\x0f", 8 }, { "", 0 } },
    { { "", 0 }, { "MEMOS\1", 6 }, { "", 0 } },
};
enum { GARBAGE_KINDS = sizeof garbage / sizeof garbage[0] };

enum { FLOOD = 1100 }; /* more than a client keeps */

static void handle(struct fake_request *in)
{
    const Memos__Request *request = in->request;
    const char *what = request->log->space;
    uint64_t id = request->id;
    if (strcmp(what, "silent") == 0) {
        atomic_store(&is_silent, true);
        return;
    } else if (strcmp(what, "many") == 0) {
        reply_more(in, id, 200);
        return;
    } else if (strcmp(what, "late") == 0) {
        late_id = id;
        return;
    } else if (strcmp(what, "after late") == 0) {
        reply_text(in, late_id, MEMOS_OK, "late");
    } else if (strcmp(what, "wrong ids") == 0) {
        static const uint64_t wrong[] = { 1, 0, 1000000, 1000001, UINT64_MAX, UINT64_MAX - 1 };
        for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
            reply_text(in, wrong[i], MEMOS_OK, "another's");
        }
    } else if (strcmp(what, "garbage") == 0) {
        fake_send_raw(in, garbage[request->log->from], 3);
        return;
    } else if (strcmp(what, "one frame") == 0) {
        fake_send_raw(in, garbage[1], 1);
        return;
    } else if (strcmp(what, "unread") == 0) {
        reply_text(in, 0, MEMOS_UNSUPPORTED, "protocol 9");
        return;
    } else if (strcmp(what, "status") == 0) {
        reply_text(in, id, (uint32_t)request->log->from, "the broker's words");
        return;
    } else if (strcmp(what, "bare status") == 0) {
        reply_text(in, id, (uint32_t)request->log->from, "");
        return;
    } else if (strcmp(what, "more") == 0) {
        reply_more(in, id, 3);
    } else if (strcmp(what, "flood") == 0) {
        reply_more(in, late_id, FLOOD);
    } else if (strcmp(what, "deadline") == 0) {
        char text[20];
        (void)snprintf(text, sizeof text, "%u", (unsigned)request->deadline_ms);
        reply_text(in, id, MEMOS_OK, text);
        return;
    }
    reply_text(in, id, MEMOS_OK, what);
}

/* ---- what the tests share ---- */

static struct memos_client *open_client(const struct memos_client_options *given)
{
    struct memos_client_options options = given ? *given : (struct memos_client_options){ 0 };
    struct memos_client *client = NULL;
    struct memos_error err = { 0 };
    options.address = options.address ? options.address : address;
    if (memos_client_open(&options, &client, &err) != MEMOS_OK) {
        fail_msg("open: %s", err.text);
    }
    return client;
}

struct call {
    const char *what;
    uint64_t from;
    uint32_t deadline_ms;
    const struct memos_bytes *frames;
    size_t frames_count;
    /* given back */
    struct memos_message *reply;
    struct memos_error err;
    uint64_t id;
};

static void fill(
    const struct call *call, char space[20], Memos__Log *body, Memos__Request *request)
{
    memos__log__init(body);
    memos__request__init(request);
    (void)snprintf(space, 20, "%s", call->what);
    body->space = space;
    body->from = call->from;
    request->deadline_ms = call->deadline_ms;
    request->body_case = MEMOS__REQUEST__BODY_LOG;
    request->log = body;
}

static enum memos_status do_call(struct memos_client *client, struct call *call)
{
    char space[20];
    Memos__Log body;
    Memos__Request request;
    fill(call, space, &body, &request);
    enum memos_status status = memos_client_call(
        client, &request, call->frames, call->frames_count, &call->reply, &call->err);
    assert_int_equal(request.deadline_ms, call->deadline_ms);
    assert_true(status == MEMOS_OK || call->err.status == status);
    call->id = request.id;
    return status;
}

static enum memos_status do_send(struct memos_client *client, struct call *call)
{
    char space[20];
    Memos__Log body;
    Memos__Request request;
    fill(call, space, &body, &request);
    return memos_client_send(
        client, &request, call->frames, call->frames_count, &call->id, &call->err);
}

static void expect_echo(struct memos_client *client)
{
    struct call call = { .what = "echo" };
    if (do_call(client, &call) != MEMOS_OK) {
        fail_msg("echo: %s", call.err.text);
    }
    assert_string_equal(memos_message_reply(call.reply)->message, "echo");
    assert_true(memos_message_reply(call.reply)->id == call.id);
    memos_message_free(&call.reply);
}

static int start(void **state)
{
    (void)state;
    char path[280];
    static int number;
    char name[20];
    (void)snprintf(name, sizeof name, "%d.sock", number++);
    (void)snprintf(address, sizeof address, "ipc://%s", temp_path(name, path, sizeof path));
    broker = fake_broker_start(address, NULL, NULL, handle, NULL);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    fake_broker_stop(&broker);
    return 0;
}

/* ---- tests ---- */

static void payloads_go_and_come_back(void **state)
{
    (void)state;
    static char large[1 << 20];
    memset(large, 'x', sizeof large);
    struct memos_client *client = open_client(NULL);
    const struct memos_bytes frames[] = { memos_bytes_of("one"), { NULL, 0 },
        { large, sizeof large } };
    struct call call = { .what = "echo", .frames = frames, .frames_count = 3 };
    assert_int_equal(do_call(client, &call), MEMOS_OK);
    assert_int_equal(memos_message_frames_count(call.reply), 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(memos_bytes_equal(memos_message_frame(call.reply, i + 1), frames[i]));
    }
    assert_int_equal(memos_message_frame(call.reply, 0).size, 0);
    assert_int_equal(memos_message_frame(call.reply, 4).size, 0);
    memos_message_free(&call.reply);
    memos_message_free(&call.reply);

    struct memos_bytes *many = calloc(MEMOS_FRAMES_MAX + 1, sizeof *many);
    call = (struct call){ .what = "echo", .frames = many, .frames_count = MEMOS_FRAMES_MAX + 1 };
    assert_int_equal(do_call(client, &call), MEMOS_TOO_LARGE);
    assert_null(call.reply);
    call.frames_count = MEMOS_FRAMES_MAX;
    assert_int_equal(do_call(client, &call), MEMOS_OK);
    memos_message_free(&call.reply);
    free(many);
    memos_client_close(&client);
    assert_null(client);
    memos_client_close(&client);
}

static void a_status_becomes_the_error(void **state)
{
    (void)state;
    struct memos_client *client = open_client(NULL);
    for (int status = MEMOS_INTERNAL; status <= MEMOS_STALE; status++) {
        struct call call = { .what = "status", .from = (uint64_t)status };
        assert_int_equal(do_call(client, &call), status);
        assert_string_equal(call.err.text, "the broker's words");
        assert_non_null(call.reply);
        assert_string_equal(memos_message_reply(call.reply)->hint, "what to do");
        memos_message_free(&call.reply);
        call = (struct call){ .what = "bare status", .from = (uint64_t)status };
        assert_int_equal(do_call(client, &call), status);
        assert_string_equal(call.err.text, memos_status_text((enum memos_status)status));
        memos_message_free(&call.reply);
    }
    static const uint32_t unknown[] = { 20, 1000, UINT32_MAX };
    for (size_t i = 0; i < 3; i++) {
        struct call call = { .what = "status", .from = unknown[i] };
        assert_int_equal(do_call(client, &call), MEMOS_INTERNAL);
        memos_message_free(&call.reply);
    }
    memos_client_close(&client);
}

static void late_and_foreign_replies_answer_nobody(void **state)
{
    (void)state;
    struct memos_client *client = open_client(NULL);
    struct call late = { .what = "late", .deadline_ms = 50 };
    assert_int_equal(do_call(client, &late), MEMOS_DEADLINE);
    assert_null(late.reply);
    struct call after = { .what = "after late" };
    assert_int_equal(do_call(client, &after), MEMOS_OK);
    assert_string_equal(memos_message_reply(after.reply)->message, "after late");
    memos_message_free(&after.reply);
    struct call wrong = { .what = "wrong ids" };
    assert_int_equal(do_call(client, &wrong), MEMOS_OK);
    assert_string_equal(memos_message_reply(wrong.reply)->message, "wrong ids");
    memos_message_free(&wrong.reply);
    struct memos_message *none = NULL;
    struct memos_error err = { 0 };
    assert_int_equal(memos_client_receive(client, 0, &none, &err), MEMOS_DEADLINE);
    assert_null(none);
    memos_client_close(&client);
}

static void garbage_is_refused_and_the_next_call_works(void **state)
{
    (void)state;
    struct memos_client *client = open_client(NULL);
    for (uint64_t kind = 0; kind < GARBAGE_KINDS; kind++) {
        struct call call = { .what = "garbage", .from = kind };
        assert_int_equal(do_call(client, &call), MEMOS_CORRUPT);
        assert_null(call.reply);
        assert_non_null(strstr(call.err.text, "is no reply"));
        expect_echo(client);
    }
    struct call call = { .what = "one frame" };
    assert_int_equal(do_call(client, &call), MEMOS_CORRUPT);
    call = (struct call){ .what = "unread" };
    assert_int_equal(do_call(client, &call), MEMOS_UNSUPPORTED);
    assert_string_equal(call.err.text, "protocol 9");
    memos_message_free(&call.reply);
    expect_echo(client);
    memos_client_close(&client);
}

static void count_more(void *self, const struct memos_message *reply)
{
    uint64_t *done = self;
    assert_int_equal(memos_message_reply(reply)->progress->done, *done + 1);
    assert_true(memos_bytes_equal(memos_message_frame(reply, 1), memos_bytes_of("part")));
    ++*done;
}

static void more_replies_go_to_the_callback(void **state)
{
    (void)state;
    uint64_t done = 0;
    struct memos_bytes part = memos_bytes_of("part");
    struct memos_client *client = open_client(NULL);
    struct call call = { .what = "more", .frames = &part, .frames_count = 1 };
    assert_int_equal(do_call(client, &call), MEMOS_OK); /* without one, they are dropped */
    memos_message_free(&call.reply);
    memos_client_on_more(client, count_more, &done);
    assert_int_equal(do_call(client, &call), MEMOS_OK);
    assert_int_equal(done, 3);
    assert_string_equal(memos_message_reply(call.reply)->message, "more");
    memos_message_free(&call.reply);
    memos_client_close(&client);
}

static void the_broker_hears_the_deadline(void **state)
{
    (void)state;
    struct memos_client_options options = { .timeout_ms = 7000 };
    struct memos_client *client = open_client(&options);
    struct call call = { .what = "deadline" };
    assert_int_equal(do_call(client, &call), MEMOS_OK);
    assert_string_equal(memos_message_reply(call.reply)->message, "7000");
    memos_message_free(&call.reply);
    call = (struct call){ .what = "deadline", .deadline_ms = 3000 };
    assert_int_equal(do_call(client, &call), MEMOS_OK);
    assert_string_equal(memos_message_reply(call.reply)->message, "3000");
    memos_message_free(&call.reply);
    call = (struct call){ .what = "silent", .deadline_ms = 20 };
    assert_int_equal(do_call(client, &call), MEMOS_DEADLINE);
    memos_client_close(&client);
}

static void asynchronous_replies_survive_a_call(void **state)
{
    (void)state;
    enum { COUNT = 100 };
    uint64_t ids[COUNT];
    bool seen[COUNT] = { false };
    struct memos_client *client = open_client(NULL);
    struct memos_error err = { 0 };
    for (size_t i = 0; i < COUNT; i++) {
        struct call call = { .what = "echo" };
        assert_int_equal(do_send(client, &call), MEMOS_OK);
        ids[i] = call.id;
        if (i % 10 == 5) {
            expect_echo(client);
        }
    }
    for (size_t i = 0; i < COUNT; i++) {
        struct memos_message *reply = NULL;
        assert_int_equal(memos_client_receive(client, 10000, &reply, &err), MEMOS_OK);
        size_t which = 0;
        while (which < COUNT && ids[which] != memos_message_reply(reply)->id) {
            which++;
        }
        assert_true(which < COUNT && !seen[which]);
        seen[which] = true;
        memos_message_free(&reply);
    }
    memos_client_close(&client);
}

static void a_flood_is_neither_kept_without_end_nor_lost(void **state)
{
    (void)state;
    struct memos_client *client = open_client(NULL);
    struct memos_error err = { 0 };
    struct call late = { .what = "late" }, flood = { .what = "flood" };
    assert_int_equal(do_send(client, &late), MEMOS_OK);
    assert_int_equal(do_call(client, &flood), MEMOS_BUSY);
    assert_int_equal(do_call(client, &flood), MEMOS_BUSY); /* not sent: no second flood comes */
    for (int i = 0; i < FLOOD; i++) {
        struct memos_message *reply = NULL;
        assert_int_equal(memos_client_receive(client, 10000, &reply, &err), MEMOS_OK);
        assert_int_equal(memos_message_reply(reply)->progress->done, i + 1);
        memos_message_free(&reply);
    }
    expect_echo(client);
    assert_int_equal(do_call(client, &flood), MEMOS_BUSY);
    memos_client_close(&client); /* with replies that were never taken */
}

static void the_descriptor_wakes_a_loop(void **state)
{
    (void)state;
    struct memos_client *client = open_client(NULL);
    struct memos_error err = { 0 };
    struct memos_message *reply = NULL;
    struct call call = { .what = "echo" };
    struct pollfd item = { .fd = memos_client_fd(client), .events = POLLIN };
    assert_int_equal(do_send(client, &call), MEMOS_OK);
    while (memos_client_receive(client, 0, &reply, &err) == MEMOS_DEADLINE) {
        assert_int_equal(poll(&item, 1, 10000), 1);
    }
    assert_true(memos_message_reply(reply)->id == call.id);
    memos_message_free(&reply);
    memos_client_close(&client);
}

static void a_large_reply_is_refused(void **state)
{
    (void)state;
    static char large[2000];
    struct memos_client_options options = { .message_bytes_max = 1000 };
    struct memos_client *client = open_client(&options);
    struct memos_bytes frame = { large, sizeof large };
    struct memos_error err = { 0 };
    struct call call = { .what = "echo", .frames = &frame, .frames_count = 1 };
    assert_int_equal(do_call(client, &call), MEMOS_TOO_LARGE);
    assert_true(memos_message_reply(call.reply)->id == call.id);
    assert_int_equal(memos_message_frames_count(call.reply), 0);
    memos_message_free(&call.reply);
    expect_echo(client);
    assert_int_equal(do_send(client, &call), MEMOS_OK);
    assert_int_equal(memos_client_receive(client, 10000, &call.reply, &err), MEMOS_TOO_LARGE);
    assert_true(memos_message_reply(call.reply)->id == call.id);
    memos_message_free(&call.reply);
    memos_client_close(&client);
}

/* A broker that stops and comes back is found again; a request in between says that it is gone. */
static void a_restart_is_survived(void **state)
{
    (void)state;
    struct memos_client *client = open_client(NULL);
    expect_echo(client);
    fake_broker_stop(&broker);
    struct call call = { .what = "echo", .deadline_ms = 200 };
    enum memos_status status = do_call(client, &call);
    assert_true(status == MEMOS_UNAVAILABLE || status == MEMOS_DEADLINE);
    broker = fake_broker_start(address, NULL, NULL, handle, NULL);
    for (int i = 0; i < 50 && status != MEMOS_OK; i++) {
        status = do_call(client, &call);
    }
    assert_int_equal(status, MEMOS_OK);
    memos_message_free(&call.reply);
    memos_client_close(&client);
}

/* Who waits for a long answer learns that it will not come, although the client connects again. */
static void a_lost_connection_is_counted(void **state)
{
    (void)state;
    struct memos_client *client = open_client(NULL);
    struct memos_error err = { 0 };
    struct memos_message *reply = NULL;
    expect_echo(client);
    uint64_t before = memos_client_losses(client);
    expect_echo(client);
    assert_int_equal(memos_client_losses(client), before);
    fake_broker_stop(&broker);
    for (int i = 0; i < 500 && memos_client_losses(client) == before; i++) {
        assert_int_equal(memos_client_receive(client, 20, &reply, &err), MEMOS_DEADLINE);
    }
    assert_int_equal(memos_client_losses(client), before + 1);
    broker = fake_broker_start(address, NULL, NULL, handle, NULL);
    struct call call = { .what = "echo", .deadline_ms = 200 };
    enum memos_status status = MEMOS_UNAVAILABLE;
    for (int i = 0; i < 50 && status != MEMOS_OK; i++) {
        status = do_call(client, &call);
    }
    assert_int_equal(status, MEMOS_OK);
    assert_int_equal(memos_client_losses(client), before + 1);
    memos_message_free(&call.reply);
    memos_client_close(&client);
}

static void *stop_when_silent(void *unused)
{
    (void)unused;
    while (!atomic_load(&is_silent)) {
        (void)poll(NULL, 0, 1);
    }
    fake_broker_stop(&broker);
    return NULL;
}

/* Nobody waits the whole timeout for a broker that is gone. */
static void a_call_ends_with_its_connection(void **state)
{
    (void)state;
    struct memos_clock clock = memos_clock_system();
    struct memos_client *client = open_client(NULL);
    struct call call = { .what = "silent", .deadline_ms = 60000 };
    pthread_t stopper;
    expect_echo(client);
    atomic_store(&is_silent, false);
    int64_t before_us = clock.mono_us(NULL);
    assert_int_equal(pthread_create(&stopper, NULL, stop_when_silent, NULL), 0);
    assert_int_equal(do_call(client, &call), MEMOS_DEADLINE);
    assert_int_equal(pthread_join(stopper, NULL), 0);
    assert_true(clock.mono_us(NULL) - before_us < 30000000);
    assert_non_null(strstr(call.err.text, "may have been done"));
    assert_null(call.reply);
    /* and the next is not blamed for it */
    broker = fake_broker_start(address, NULL, NULL, handle, NULL);
    expect_echo(client);
    memos_client_close(&client);
}

/* The broker goes, with many replies of `count` payload frames behind the one that was taken. */
static void lose_many(size_t count)
{
    struct memos_bytes frames[12];
    for (size_t i = 0; i < count; i++) {
        frames[i] = memos_bytes_of("part");
    }
    struct memos_client *client = open_client(NULL);
    struct call call = { .what = "many", .frames = frames, .frames_count = count };
    struct memos_error err = { 0 };
    uint64_t before = memos_client_losses(client);
    assert_int_equal(do_send(client, &call), MEMOS_OK);
    enum memos_status status = memos_client_receive(client, 5000, &call.reply, &err);
    assert_int_equal(status, MEMOS_OK);
    fake_broker_stop(&broker);
    for (int i = 0; i < 500 && memos_client_losses(client) == before; i++) {
        (void)poll(NULL, 0, 10);
    }
    assert_int_equal(memos_client_losses(client), before + 1);
    while (status == MEMOS_OK) {
        memos_message_free(&call.reply);
        status = memos_client_receive(client, 0, &call.reply, &err);
    }
    assert_int_equal(status, MEMOS_DEADLINE);
    memos_client_close(&client);
}

/* A program that is slower than the broker learns that it is gone, and is not ended by libzmq at
 * the hundredth part; each count of parts puts that elsewhere in a message. */
static void a_loss_behind_many_replies_is_survived(void **state)
{
    (void)state;
    for (size_t count = 0; count < 12; count++) {
        lose_many(count);
        broker = fake_broker_start(address, NULL, NULL, handle, NULL);
    }
}

static void no_broker_is_said_at_once(void **state)
{
    (void)state;
    struct memos_clock clock = memos_clock_system();
    int64_t before_us = clock.mono_us(NULL);
    struct memos_client_options options = { .timeout_ms = 60000 };
    char path[300];
    (void)snprintf(
        address, sizeof address, "ipc://%s", temp_path("none.sock", path, sizeof path));
    struct memos_client *client = open_client(&options);
    for (int stale = 0; stale < 2; stale++) {
        struct call call = { .what = "echo" };
        assert_int_equal(do_call(client, &call), MEMOS_UNAVAILABLE);
        assert_non_null(strstr(call.err.text, "none.sock"));
        assert_non_null(strstr(call.err.text, "memosctl up"));
        assert_null(call.reply);
        assert_int_equal(do_send(client, &call), MEMOS_UNAVAILABLE);
        temp_write(path, "", 0, 0600); /* then with a file that nobody listens on */
    }
    memos_client_close(&client);
    assert_true(clock.mono_us(NULL) - before_us < 30000000);

    options = (struct memos_client_options){ .address = "tcp://127.0.0.1:1", .timeout_ms = 50 };
    client = open_client(&options);
    struct call call = { .what = "echo" };
    assert_int_equal(do_call(client, &call), MEMOS_UNAVAILABLE);
    assert_non_null(strstr(call.err.text, "tcp://127.0.0.1:1"));
    memos_client_close(&client);
}

static void keys_open_the_door(void **state)
{
    (void)state;
    char path[300];
    struct memos_key_pair server, other, mine;
    struct memos_error err = { 0 };
    assert_int_equal(memos_key_pair_new(&server, &err), MEMOS_OK);
    assert_int_equal(memos_key_pair_new(&other, &err), MEMOS_OK);
    assert_int_equal(memos_key_pair_new(&mine, &err), MEMOS_OK);
    temp_path("client.key", path, sizeof path);
    assert_int_equal(memos_key_pair_write(path, &mine, &err), MEMOS_OK);
    fake_broker_stop(&broker);
    broker = fake_broker_start(address, NULL, server.secret_key, handle, NULL);
    struct memos_client_options options = { .server_key = server.public_key };
    struct memos_client *client = open_client(&options);
    expect_echo(client);
    memos_client_close(&client);
    options.key_file = path;
    client = open_client(&options);
    expect_echo(client);
    memos_client_close(&client);

    /* Another's key, or none: the connection never comes about, and the error says what to look
     * at. */
    options = (struct memos_client_options){ .server_key = other.public_key, .timeout_ms = 100 };
    client = open_client(&options);
    struct call call = { .what = "echo" };
    assert_int_equal(do_call(client, &call), MEMOS_UNAVAILABLE);
    assert_non_null(strstr(call.err.text, "key"));
    memos_client_close(&client);
    options.server_key = NULL;
    client = open_client(&options);
    assert_int_equal(do_call(client, &call), MEMOS_UNAVAILABLE);
    memos_client_close(&client);
}

static void options_are_checked(void **state)
{
    (void)state;
    char path[300];
    static const char *const addresses[] = { "ipc://", "memosd.sock", "http://x", "inproc://x",
        "/run/memosd.sock", "tcp://", "tcp://nohost" };
    struct memos_client *client = NULL;
    struct memos_error err = { 0 };
    for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        struct memos_client_options options = { .address = addresses[i] };
        if (memos_client_open(&options, &client, &err) != MEMOS_INVALID) {
            fail_msg("%s was taken", addresses[i]);
        }
        assert_null(client);
    }
    char longest[6 + 108 + 1] = "ipc://";
    memset(longest + 6, '/', 108); /* one byte more than a socket's path may have */
    struct memos_client_options options = { .address = longest };
    assert_int_equal(memos_client_open(&options, &client, &err), MEMOS_INVALID);
    assert_non_null(strstr(err.text, "at most 107"));
    longest[6 + 107] = 0;
    assert_int_equal(memos_client_open(&options, &client, &err), MEMOS_OK);
    memos_client_close(&client);
    options = (struct memos_client_options){ .address = "ipc:///x", .server_key = "short" };
    assert_int_equal(memos_client_open(&options, &client, &err), MEMOS_INVALID);
    options.server_key = "0123456789012345678901234567890123456789";
    options.key_file = temp_path("missing.key", path, sizeof path);
    assert_int_equal(memos_client_open(&options, &client, &err), MEMOS_NOT_FOUND);
    options = (struct memos_client_options){ .address = "ipc:///x", .timeout_ms = -1 };
    assert_int_equal(memos_client_open(&options, &client, &err), MEMOS_INVALID);
}

static void a_broker_on_all_addresses_is_reached_by_the_known_one(void **state)
{
    (void)state;
    static const struct {
        const char *bound, *own, *reachable;
    } cases[] = {
        { "tcp://0.0.0.0:7078", "tcp://127.0.0.1:7077", "tcp://127.0.0.1:7078" },
        { "tcp://*:7078", "tcp://[::1]:7077", "tcp://[::1]:7078" },
        { "tcp://[::]:7078", "tcp://127.0.0.1:7077", "tcp://127.0.0.1:7078" },
        { "tcp://10.0.0.2:7078", "tcp://127.0.0.1:7077", "tcp://10.0.0.2:7078" },
        { "tcp://0.0.0.0:7078", "ipc:///x", "tcp://0.0.0.0:7078" },
        { "ipc:///e", "tcp://127.0.0.1:7077", "ipc:///e" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char out[40];
        struct memos_error err = { 0 };
        struct memos_client_options options = { .address = cases[i].own };
        struct memos_client *client = open_client(&options);
        assert_int_equal(memos_address_reachable(client, cases[i].bound, out, sizeof out, &err),
            MEMOS_OK);
        assert_string_equal(out, cases[i].reachable);
        assert_int_equal(
            memos_address_reachable(client, cases[i].bound, out, 5, &err), MEMOS_INVALID);
        memos_client_close(&client);
    }
}

static void the_own_broker_is_found(void **state)
{
    (void)state;
    char own[200], expected[200], folder[300];
    struct memos_error err = { 0 };
    assert_int_equal(setenv("XDG_RUNTIME_DIR", "/run/user/7", 1), 0);
    assert_int_equal(memos_default_address(own, sizeof own, &err), MEMOS_OK);
    assert_string_equal(own, "ipc:///run/user/7/memos/memosd.sock");
    assert_int_equal(memos_default_address(own, 20, &err), MEMOS_INVALID);
    memset(folder, 'x', sizeof folder);
    folder[0] = '/';
    folder[100] = 0;
    assert_int_equal(setenv("XDG_RUNTIME_DIR", folder, 1), 0);
    assert_int_equal(memos_default_address(own, sizeof own, &err), MEMOS_INVALID);
    assert_non_null(strstr(err.text, "107"));
    assert_int_equal(setenv("XDG_RUNTIME_DIR", "relative", 1), 0);
    assert_int_equal(memos_default_address(own, sizeof own, &err), MEMOS_OK);
    (void)snprintf(
        expected, sizeof expected, "ipc:///tmp/memos-%u/memosd.sock", (unsigned)geteuid());
    assert_string_equal(own, expected);
    assert_int_equal(setenv("MEMOS_ADDRESS", address, 1), 0);
    struct memos_client_options options = { 0 };
    struct memos_client *client = NULL;
    assert_int_equal(memos_client_open(&options, &client, &err), MEMOS_OK);
    expect_echo(client);
    memos_client_close(&client);
    assert_int_equal(unsetenv("MEMOS_ADDRESS"), 0);
}

int main(void)
{
#define WITH_BROKER(test) cmocka_unit_test_setup_teardown(test, start, stop)
    const struct CMUnitTest tests[] = {
        WITH_BROKER(payloads_go_and_come_back),
        WITH_BROKER(a_status_becomes_the_error),
        WITH_BROKER(late_and_foreign_replies_answer_nobody),
        WITH_BROKER(garbage_is_refused_and_the_next_call_works),
        WITH_BROKER(more_replies_go_to_the_callback),
        WITH_BROKER(the_broker_hears_the_deadline),
        WITH_BROKER(asynchronous_replies_survive_a_call),
        WITH_BROKER(a_flood_is_neither_kept_without_end_nor_lost),
        WITH_BROKER(the_descriptor_wakes_a_loop),
        WITH_BROKER(a_large_reply_is_refused),
        WITH_BROKER(a_restart_is_survived),
        WITH_BROKER(a_lost_connection_is_counted),
        WITH_BROKER(a_call_ends_with_its_connection),
        WITH_BROKER(a_loss_behind_many_replies_is_survived),
        cmocka_unit_test(no_broker_is_said_at_once),
        WITH_BROKER(keys_open_the_door),
        cmocka_unit_test(options_are_checked),
        cmocka_unit_test(a_broker_on_all_addresses_is_reached_by_the_known_one),
        WITH_BROKER(the_own_broker_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
