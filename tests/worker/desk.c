#include "tests/worker/desk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define OK(call) assert_int_equal(call, MEMOS_OK)

enum { WAIT_MS = 60000 };

void desk_open(struct desk *desk, const char *folder)
{
    int zero = 0;
    *desk = (struct desk){0};
    (void)snprintf(desk->address, sizeof desk->address, "ipc://%s/desk", folder);
    desk->context = zmq_ctx_new();
    desk->router = zmq_socket(desk->context, ZMQ_ROUTER);
    assert_int_equal(zmq_setsockopt(desk->router, ZMQ_LINGER, &zero, sizeof zero), 0);
    assert_int_equal(zmq_bind(desk->router, desk->address), 0);
    memos_arena_init(&desk->arena, (size_t)64 << 20);
    (void)zmq_msg_init(&desk->identity);
}

void desk_close(struct desk *desk)
{
    memos_frames_free(&desk->frames);
    memos_arena_finish(&desk->arena);
    (void)zmq_msg_close(&desk->identity);
    (void)zmq_close(desk->router);
    (void)zmq_ctx_term(desk->context);
}

static void receive(struct desk *desk)
{
    struct memos_error err = {0};
    zmq_pollitem_t item = {.socket = desk->router, .events = ZMQ_POLLIN};
    memos_frames_free(&desk->frames);
    memos_arena_reset(&desk->arena);
    if (zmq_poll(&item, 1, WAIT_MS) != 1) {
        fail_msg("the worker says nothing");
    }
    OK(memos_frames_receive(desk->router, 0, true, 1024, UINT64_MAX, &desk->frames, &err));
    OK(memos_request_unpack(
        memos_frames_envelope(&desk->frames), &desk->arena, &desk->request, &err));
}

const Memos__Request *desk_take(struct desk *desk, Memos__Request__BodyCase body)
{
    do {
        receive(desk);
    } while (desk->request->body_case == MEMOS__REQUEST__BODY_WORKER_HEARTBEAT &&
             body != MEMOS__REQUEST__BODY_WORKER_HEARTBEAT);
    assert_int_equal(desk->request->body_case, body);
    return desk->request;
}

const Memos__Request *desk_any(struct desk *desk)
{
    receive(desk);
    return desk->request;
}

struct memos_bytes desk_frame(const struct desk *desk, uint32_t number)
{
    return memos_frames_payload(&desk->frames, number);
}

void desk_welcome(struct desk *desk)
{
    (void)desk_take(desk, MEMOS__REQUEST__BODY_WORKER_ANNOUNCE);
    desk_welcome_taken(desk);
}

static void keep_identity(struct desk *desk)
{
    struct memos_bytes identity = memos_frames_identity(&desk->frames);
    (void)zmq_msg_close(&desk->identity);
    assert_int_equal(zmq_msg_init_size(&desk->identity, identity.size), 0);
    memcpy(zmq_msg_data(&desk->identity), identity.data, identity.size);
}

void desk_welcome_taken(struct desk *desk)
{
    assert_int_equal(desk->request->body_case, MEMOS__REQUEST__BODY_WORKER_ANNOUNCE);
    desk->announce_id = desk->request->id;
    keep_identity(desk);
    desk_ping(desk, false);
}

static void send_reply(
    struct desk *desk, Memos__Reply *reply, const struct memos_bytes *frames, size_t frames_count)
{
    struct memos_frames out;
    struct memos_error err = {0};
    struct memos_bytes identity =
        memos_bytes_make(zmq_msg_data(&desk->identity), zmq_msg_size(&desk->identity));
    OK(memos_envelope_begin(&out, identity, &reply->base, &err));
    for (size_t i = 0; i < frames_count; i++) {
        OK(memos_frames_add(&out, frames[i], &err));
    }
    OK(memos_frames_send(desk->router, 0, &out, &err));
}

void desk_say(
    struct desk *desk, Memos__Reply *reply, const struct memos_bytes *frames, size_t frames_count)
{
    reply->id = desk->announce_id;
    reply->more = true;
    send_reply(desk, reply, frames, frames_count);
}

void desk_say_last(struct desk *desk, Memos__Reply *reply, uint64_t id)
{
    reply->id = id;
    keep_identity(desk);
    send_reply(desk, reply, NULL, 0);
}

void desk_give(
    struct desk *desk, Memos__Job *job, const struct memos_bytes *frames, size_t frames_count)
{
    Memos__Reply reply = MEMOS__REPLY__INIT;
    reply.body_case = MEMOS__REPLY__BODY_JOB;
    reply.job = job;
    desk_say(desk, &reply, frames, frames_count);
}

void desk_cancel(struct desk *desk, uint8_t ticket[16])
{
    Memos__Reply reply = MEMOS__REPLY__INIT;
    Memos__JobCancel cancel = MEMOS__JOB_CANCEL__INIT;
    cancel.ticket.data = ticket;
    cancel.ticket.len = 16;
    reply.body_case = MEMOS__REPLY__BODY_JOB_CANCEL;
    reply.job_cancel = &cancel;
    desk_say(desk, &reply, NULL, 0);
}

void desk_ping(struct desk *desk, bool announce_again)
{
    Memos__Reply reply = MEMOS__REPLY__INIT;
    Memos__WorkerPing ping = MEMOS__WORKER_PING__INIT;
    ping.announce_again = announce_again;
    reply.body_case = MEMOS__REPLY__BODY_WORKER_PING;
    reply.worker_ping = &ping;
    desk_say(desk, &reply, NULL, 0);
}

void desk_stop(struct desk *desk)
{
    Memos__Reply reply = MEMOS__REPLY__INIT;
    Memos__WorkerStop stop = MEMOS__WORKER_STOP__INIT;
    reply.body_case = MEMOS__REPLY__BODY_WORKER_STOP;
    reply.worker_stop = &stop;
    desk_say(desk, &reply, NULL, 0);
}

static void assert_ticket(const ProtobufCBinaryData *told, const uint8_t ticket[16])
{
    assert_int_equal(told->len, 16);
    assert_memory_equal(told->data, ticket, 16);
}

static void hear(struct desk_heard *heard, const Memos__Tokens *tokens)
{
    heard->updates++;
    for (size_t i = 0; i < tokens->n_tokens; i++) {
        assert_true(heard->count < TINY_HOST_ANSWER_MAX);
        heard->ids[heard->count] = tokens->tokens[i]->id;
        heard->logprobs[heard->count++] = tokens->tokens[i]->logprob;
    }
    memos_buffer_bytes(&heard->text, tokens->text, strlen(tokens->text));
}

const Memos__Reply *desk_last(struct desk *desk, const uint8_t ticket[16], struct desk_heard *heard)
{
    for (;;) {
        const Memos__Request *request = desk_take(desk, MEMOS__REQUEST__BODY_JOB_UPDATE);
        const Memos__Reply *reply = request->job_update->reply;
        assert_ticket(&request->job_update->ticket, ticket);
        if (!reply->more) {
            return reply;
        }
        if (heard) {
            assert_int_equal(reply->body_case, MEMOS__REPLY__BODY_TOKENS);
            hear(heard, reply->tokens);
        }
    }
}

void desk_over(struct desk *desk, const uint8_t ticket[16])
{
    const Memos__Request *request = desk_take(desk, MEMOS__REQUEST__BODY_JOB_OVER);
    assert_ticket(&request->job_over->ticket, ticket);
}

/* ---- a worker -------------------------------------------------------------------------------- */

static void *run(void *self)
{
    struct running *running = self;
    return (void *)(uintptr_t)worker_run(running->worker, &running->err);
}

void running_start(struct running *running, const struct worker_options *options)
{
    *running = (struct running){0};
    if (worker_create(options, &running->worker, &running->err) != MEMOS_OK) {
        fail_msg("%s", running->err.text);
    }
    assert_int_equal(pthread_create(&running->thread, NULL, run, running), 0);
}

enum memos_status running_end(struct running *running)
{
    void *status = NULL;
    assert_int_equal(pthread_join(running->thread, &status), 0);
    worker_destroy(&running->worker);
    return (enum memos_status)(uintptr_t)status;
}
