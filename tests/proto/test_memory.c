/* If this failed, a machine that is short of memory would bring a program with libmemos down,
 * instead of giving it an error.
 *
 * Each allocation that proto makes in a scenario fails once. The linker puts the functions
 * below in the place of the allocator's; only this thread's allocations fail. */
#include "proto/client.h"
#include "proto/frame.h"
#include "tests/proto/fake_broker.h"
#include "tests/proto/temp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static _Thread_local long until_failure; /* 0: never */
static _Thread_local bool has_failed;

static bool fails_now(void)
{
    if (until_failure == 0 || --until_failure > 0) {
        return false;
    }
    has_failed = true;
    return true;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *piece, size_t size);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *piece, size_t size);
char *__wrap_strdup(const char *text);

void *__wrap_malloc(size_t size)
{
    return fails_now() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails_now() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *piece, size_t size)
{
    return fails_now() ? NULL : __real_realloc(piece, size);
}

char *__wrap_strdup(const char *text)
{
    return fails_now() ? NULL : __real_strdup(text);
}

/* Run the scenario until no allocation of it fails any more. It gives OK or NO_MEMORY, and
 * nothing that it made stays (a leak is for the sanitizer to see). */
static void fail_each_in_turn(enum memos_status (*scenario)(struct memos_error *err), long least)
{
    for (long n = 1;; n++) {
        struct memos_error err = { 0 };
        has_failed = false;
        until_failure = n;
        enum memos_status status = scenario(&err);
        until_failure = 0;
        if (!has_failed) {
            assert_int_equal(status, MEMOS_OK);
            assert_true(n > least);
            return;
        }
        if (status != MEMOS_NO_MEMORY) {
            fail_msg("allocation %ld: %s (%s)", n, memos_status_name(status), err.text);
        }
        assert_int_equal(err.status, MEMOS_NO_MEMORY);
    }
}

/* ---- the scenarios ---- */

static enum memos_status build_message(struct memos_error *err)
{
    struct memos_frames frames;
    uint8_t *envelope = NULL;
    enum memos_status status =
        memos_frames_begin(&frames, memos_bytes_of("peer"), 10, &envelope, err);
    for (int i = 0; status == MEMOS_OK && i < 10; i++) {
        status = memos_frames_add(&frames, memos_bytes_of("payload"), err);
    }
    memos_frames_free(&frames);
    return status;
}

static void building_a_message(void **state)
{
    (void)state;
    fail_each_in_turn(build_message, 1);
}

static char address[300], events[300];

static void answer(struct fake_request *in)
{
    Memos__Reply reply = MEMOS__REPLY__INIT;
    Memos__Welcome welcome = MEMOS__WELCOME__INIT;
    Memos__WatchToken token = MEMOS__WATCH_TOKEN__INIT;
    Memos__LogRecords records = MEMOS__LOG_RECORDS__INIT;
    Memos__LogRecord record = MEMOS__LOG_RECORD__INIT, *all[] = { &record };
    uint8_t text[] = "token";
    reply.id = in->request->id;
    switch (in->request->body_case) {
    case MEMOS__REQUEST__BODY_HELLO:
        welcome.events = events;
        reply.body_case = MEMOS__REPLY__BODY_WELCOME;
        reply.welcome = &welcome;
        break;
    case MEMOS__REQUEST__BODY_WATCH: /* each asking finds one record more */
        token.token = (ProtobufCBinaryData){ 5, text };
        token.seq = (*(uint64_t *)in->self)++;
        reply.body_case = MEMOS__REPLY__BODY_WATCH_TOKEN;
        reply.watch_token = &token;
        break;
    default:
        record.seq = in->request->log->from;
        records.records = all;
        records.n_records = 1;
        records.head_seq = record.seq;
        reply.body_case = MEMOS__REPLY__BODY_LOG_RECORDS;
        reply.log_records = &records;
    }
    fake_reply(in, &reply, 1);
}

static enum memos_status call_once(struct memos_error *err)
{
    struct memos_client_options options = { .address = address };
    struct memos_client *client = NULL;
    struct memos_message *reply = NULL;
    struct memos_bytes frame = memos_bytes_of("payload");
    Memos__Hello body = MEMOS__HELLO__INIT;
    Memos__Request request = MEMOS__REQUEST__INIT;
    request.body_case = MEMOS__REQUEST__BODY_HELLO;
    request.hello = &body;
    enum memos_status status = memos_client_open(&options, &client, err);
    if (status == MEMOS_OK) {
        status = memos_client_call(client, &request, &frame, 1, &reply, err);
    }
    if (status == MEMOS_OK) {
        assert_true(memos_bytes_equal(memos_message_frame(reply, 1), frame));
    }
    memos_message_free(&reply);
    memos_client_close(&client);
    return status;
}

static enum memos_status watch_once(struct memos_error *err)
{
    struct memos_client_options options = { .address = address };
    struct memos_client *client = NULL;
    struct memos_watch *watch = NULL;
    Memos__Event *event = NULL;
    enum memos_status status = memos_client_open(&options, &client, err);
    if (status == MEMOS_OK) {
        status = memos_watch_open(client, "s", &watch, err);
    }
    if (status == MEMOS_OK) {
        status = memos_watch_next(watch, 10000, &event, err);
    }
    if (event) {
        memos__event__free_unpacked(event, NULL);
    }
    memos_watch_close(&watch);
    memos_client_close(&client);
    return status;
}

static void with_a_broker(enum memos_status (*scenario)(struct memos_error *err), long least)
{
    char path[280];
    uint64_t seq = 1;
    (void)snprintf(address, sizeof address, "ipc://%s", temp_path("b", path, sizeof path));
    (void)snprintf(events, sizeof events, "ipc://%s", temp_path("e", path, sizeof path));
    struct fake_broker *broker = fake_broker_start(address, events, NULL, answer, &seq);
    fail_each_in_turn(scenario, least);
    fake_broker_stop(&broker);
}

static void calling(void **state)
{
    (void)state;
    with_a_broker(call_once, 3);
}

static void watching(void **state)
{
    (void)state;
    with_a_broker(watch_once, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(building_a_message),
        cmocka_unit_test(calling),
        cmocka_unit_test(watching),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
