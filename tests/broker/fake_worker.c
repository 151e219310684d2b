#include "tests/broker/fake_worker.h"

#include <sched.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PATIENCE_MS = 5000 };

static char *text_of(const char *text)
{
    return (char *)(uintptr_t)(text ? text : "");
}

struct memos_client *another(struct fixture *fixture)
{
    const struct memos_client_options options = {.address = broker_address(fixture->broker, 0)};
    struct memos_client *client = NULL;
    struct memos_error err;
    if (memos_client_open(&options, &client, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    return client;
}

static uint64_t send_request(
    struct memos_client *client, Memos__Request *request, struct memos_bytes frame)
{
    struct memos_error err = {0};
    uint64_t id = 0;
    struct memos_clock clock = memos_clock_system();
    int64_t until_us = clock.mono_us(clock.self) + PATIENCE_MS * 1000;
    enum memos_status status;
    do { /* its own queue may be full for a moment */
        status = memos_client_send(client, request, &frame, frame.data ? 1 : 0, &id, &err);
    } while (status == MEMOS_BUSY && sched_yield() == 0 && clock.mono_us(clock.self) < until_us);
    if (status != MEMOS_OK) {
        fail_msg("send: %s", err.text);
    }
    return id;
}

void settle(struct memos_client *client)
{
    Memos__Hello body = MEMOS__HELLO__INIT;
    Memos__Request request;
    REQUEST(request, HELLO, hello, body);
    struct answer answer = ask(client, &request, NULL);
    assert_int_equal(answer.status, MEMOS_OK);
    answer_free(&answer);
}

struct memos_message *next_message(struct memos_client *client)
{
    struct memos_message *message = NULL;
    struct memos_error err = {0};
    enum memos_status status = memos_client_receive(client, PATIENCE_MS, &message, &err);
    if (status != MEMOS_OK) {
        fail_msg("nothing came: %s", err.text);
    }
    return message;
}

void expect_silence(struct memos_client *client, int64_t ms)
{
    struct memos_message *message = NULL;
    struct memos_error err;
    enum memos_status status = memos_client_receive(client, ms, &message, &err);
    if (status != MEMOS_DEADLINE) {
        fail_msg("body %d came, status %u %s", (int)memos_message_reply(message)->body_case,
            memos_message_reply(message)->status, memos_message_reply(message)->message);
    }
}

/* ---- workers ---- */

void announcement_fill(struct fake_announcement *out, const struct fake_worker *worker,
    const struct fake_model *models, size_t count, uint32_t jobs_max)
{
    memos__worker_announce__init(&out->body);
    for (size_t i = 0; i < count; i++) {
        memset(out->fingerprints[i], 0x11, sizeof out->fingerprints[i]);
        out->fingerprints[i][0] = models[i].fingerprint;
        memos__worker_model__init(&out->models[i]);
        out->models[i].name = text_of(models[i].name);
        out->models[i].context = 2048;
        out->models[i].fingerprint =
            (ProtobufCBinaryData){.len = sizeof out->fingerprints[i], .data = out->fingerprints[i]};
        out->pointers[i] = &out->models[i];
    }
    out->body.name = text_of("fake/1");
    out->body.models = out->pointers;
    out->body.n_models = count;
    out->body.jobs_max = jobs_max;
    out->body.instance.data = (uint8_t *)(uintptr_t)worker->instance;
    out->body.instance.len = sizeof worker->instance;
}

void worker_begin(struct fixture *fixture, struct fake_worker *worker,
    const struct fake_model *models, size_t count, uint32_t jobs_max)
{
    struct fake_announcement announcement;
    Memos__Request request;
    if (!worker->client) {
        worker->client = another(fixture);
    }
    if (sodium_is_zero(worker->instance, sizeof worker->instance)) {
        randombytes_buf(worker->instance, sizeof worker->instance);
    }
    announcement_fill(&announcement, worker, models, count, jobs_max);
    REQUEST(request, WORKER_ANNOUNCE, worker_announce, announcement.body);
    worker->announced = send_request(worker->client, &request, memos_bytes_make(NULL, 0));
    for (bool taken = false; !taken;) {
        struct memos_message *message = next_message(worker->client);
        const Memos__Reply *reply = memos_message_reply(message);
        taken = reply->id == worker->announced;
        if (taken) {
            assert_int_equal(reply->body_case, MEMOS__REPLY__BODY_WORKER_PING);
            assert_true(reply->more);
        }
        memos_message_free(&message);
    }
}

void worker_plain(struct fixture *fixture, struct fake_worker *worker, uint32_t jobs_max)
{
    const struct fake_model model = {"m", 1};
    worker_begin(fixture, worker, &model, 1, jobs_max);
}

void worker_end(struct fake_worker *worker)
{
    memos_client_close(&worker->client);
}

void worker_heartbeat(struct fake_worker *worker, const char *warm)
{
    Memos__WorkerHeartbeat body = MEMOS__WORKER_HEARTBEAT__INIT;
    Memos__Request request;
    char *spaces[] = {text_of(warm)};
    body.instance = (ProtobufCBinaryData){.len = sizeof worker->instance, .data = worker->instance};
    body.warm = spaces;
    body.n_warm = warm ? 1 : 0;
    REQUEST(request, WORKER_HEARTBEAT, worker_heartbeat, body);
    (void)send_request(worker->client, &request, memos_bytes_make(NULL, 0));
}

static bool is_ping(const struct memos_message *message)
{
    const Memos__Reply *reply = memos_message_reply(message);
    return reply->body_case == MEMOS__REPLY__BODY_WORKER_PING &&
           !reply->worker_ping->announce_again;
}

struct memos_message *worker_next(struct fake_worker *worker)
{
    struct memos_message *message = next_message(worker->client);
    while (is_ping(message)) {
        memos_message_free(&message);
        message = next_message(worker->client);
    }
    return message;
}

void worker_has_nothing(struct fake_worker *worker, int64_t ms)
{
    struct memos_clock clock = memos_clock_system();
    int64_t until_us = clock.mono_us(clock.self) + ms * 1000;
    for (int64_t now_us; (now_us = clock.mono_us(clock.self)) < until_us;) {
        struct memos_message *message = NULL;
        struct memos_error err;
        int64_t left_ms = (until_us - now_us) / 1000 + 1;
        if (memos_client_receive(worker->client, left_ms, &message, &err) == MEMOS_OK &&
            !is_ping(message)) {
            fail_msg("body %d came", (int)memos_message_reply(message)->body_case);
        }
        memos_message_free(&message);
    }
}

/* ---- jobs ---- */

struct fake_job job_take(struct fake_worker *worker)
{
    struct fake_job job = {.message = worker_next(worker)};
    const Memos__Reply *reply = memos_message_reply(job.message);
    assert_int_equal(reply->body_case, MEMOS__REPLY__BODY_JOB);
    assert_int_equal(reply->id, worker->announced);
    assert_true(reply->more);
    job.job = reply->job;
    assert_int_equal(job.job->ticket.len, 16);
    return job;
}

void job_free(struct fake_job *job)
{
    memos_message_free(&job->message);
    job->job = NULL;
}

void job_update(struct fake_worker *worker, const Memos__Job *job, Memos__Reply *reply,
    struct memos_bytes frame)
{
    Memos__JobUpdate body = MEMOS__JOB_UPDATE__INIT;
    Memos__Request request;
    body.ticket = job->ticket;
    body.reply = reply;
    REQUEST(request, JOB_UPDATE, job_update, body);
    (void)send_request(worker->client, &request, frame);
}

void job_token(struct fake_worker *worker, const Memos__Job *job, const char *text)
{
    Memos__TokenLogprob token = MEMOS__TOKEN_LOGPROB__INIT, *tokens[] = {&token};
    Memos__Tokens body = MEMOS__TOKENS__INIT;
    Memos__Reply reply = MEMOS__REPLY__INIT;
    body.text = text_of(text);
    body.tokens = tokens;
    body.n_tokens = 1;
    reply.more = 1;
    reply.body_case = MEMOS__REPLY__BODY_TOKENS;
    reply.tokens = &body;
    job_update(worker, job, &reply, memos_bytes_make(NULL, 0));
}

void job_finish(
    struct fake_worker *worker, const Memos__Job *job, enum memos_status status, const char *text)
{
    Memos__Generated body = MEMOS__GENERATED__INIT;
    Memos__Reply reply = MEMOS__REPLY__INIT;
    reply.status = status;
    if (status == MEMOS_OK) {
        body.frame = 1;
        reply.body_case = MEMOS__REPLY__BODY_GENERATED;
        reply.generated = &body;
    } else {
        reply.message = text_of(text);
    }
    job_update(
        worker, job, &reply, status == MEMOS_OK ? memos_bytes_of(text) : memos_bytes_make(NULL, 0));
}

void job_over(struct fake_worker *worker, const Memos__Job *job)
{
    Memos__JobOver body = MEMOS__JOB_OVER__INIT;
    Memos__Request request;
    body.ticket = job->ticket;
    REQUEST(request, JOB_OVER, job_over, body);
    (void)send_request(worker->client, &request, memos_bytes_make(NULL, 0));
}

/* ---- clients ---- */

uint64_t generate(struct memos_client *client, const struct wish *wish)
{
    Memos__Generate body = MEMOS__GENERATE__INIT;
    Memos__Request request;
    body.space = text_of(wish->space);
    body.model = text_of(wish->model);
    body.priority = wish->priority;
    body.prompt_frame = 1;
    REQUEST(request, GENERATE, generate, body);
    request.deadline_ms = wish->deadline_ms;
    return send_request(
        client, &request, memos_bytes_of(wish->prompt ? wish->prompt : "Say something."));
}

struct answer expect(struct memos_client *client, uint64_t id, enum memos_status status)
{
    struct answer answer = {.message = next_message(client)};
    answer.reply = memos_message_reply(answer.message);
    answer.status = (enum memos_status)answer.reply->status;
    if (answer.status != status) {
        fail_msg("%s: %s, not %s", memos_status_name(answer.status), answer.reply->message,
            memos_status_name(status));
    }
    if (id != 0) {
        assert_int_equal(answer.reply->id, id);
    }
    return answer;
}
