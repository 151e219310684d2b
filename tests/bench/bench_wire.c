/* How fast the broker answers, beside a bare ZeroMQ echo of the same frames.
 *
 * One client process sends prepared requests on a plain DEALER, so that what differs between the
 * two is only who answers: memosd (its own process, over ipc) or the echo (its own process, over
 * ipc). Rounds alternate; each figure is the median of its rounds. */
#include "tests/bench/bench.h"
#include "tests/bench/echo.h"
#include "tests/bench/programs.h"

#include "proto/frame.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#define SPACE "bench"
#define PAYLOAD_BYTES 1024
#define IN_FLIGHT 128
#define ROUNDS 5

/* What is asked for: one prepared envelope for each cube. */
struct requests {
    struct memos_buffer *envelopes;
    size_t count;
    uint8_t (*ids)[16];
};

struct sizes {
    size_t cubes, pipelined, single, rollbacks;
};

/* ---- what is asked for --------------------------------------------------------------------- */

/* Put cubes of 1 KB in batches, and prepare a request for each. */
static void fill(struct memos_client *client, struct requests *requests, size_t count)
{
    enum { BATCH = 500 };
    static char payloads[BATCH][PAYLOAD_BYTES];
    Memos__Draft drafts[BATCH];
    Memos__Draft *draft_views[BATCH];
    struct memos_bytes frames[BATCH];
    uint64_t state = 1;
    struct bench_words *words = bench_words_make(30000);

    requests->ids = bench_memory(count, sizeof *requests->ids);
    for (size_t done = 0; done < count; done += BATCH) {
        Memos__Put put = MEMOS__PUT__INIT;
        Memos__Request request = MEMOS__REQUEST__INIT;
        for (size_t i = 0; i < BATCH; i++) {
            size_t used =
                bench_words_text(words, &state, PAYLOAD_BYTES, payloads[i], PAYLOAD_BYTES);
            memset(payloads[i] + used, '.', PAYLOAD_BYTES - used);
            frames[i] = memos_bytes_make(payloads[i], PAYLOAD_BYTES);
            drafts[i] = (Memos__Draft)MEMOS__DRAFT__INIT;
            drafts[i].frame = (uint32_t)i + 1;
            draft_views[i] = &drafts[i];
        }
        put.space = (char *)SPACE;
        put.drafts = draft_views;
        put.n_drafts = BATCH;
        request.body_case = MEMOS__REQUEST__BODY_PUT;
        request.put = &put;
        struct memos_message *reply = programs_call(client, &request, frames, BATCH, "put");
        const Memos__Outcome *outcome = memos_message_reply(reply)->outcome;
        for (size_t i = 0; i < BATCH; i++) {
            memcpy(requests->ids[done + i], outcome->refs[i]->id.data, 16);
        }
        memos_message_free(&reply);
    }
    bench_words_free(&words);
}

static void prepare(struct requests *requests, size_t count)
{
    requests->envelopes = bench_memory(count, sizeof *requests->envelopes);
    requests->count = count;
    for (size_t i = 0; i < count; i++) {
        Memos__Get get = MEMOS__GET__INIT;
        Memos__Request request = MEMOS__REQUEST__INIT;
        ProtobufCBinaryData id = {16, requests->ids[i]};
        get.space = (char *)SPACE;
        get.n_ids = 1;
        get.ids = &id;
        request.id = 1000000 + i;
        request.body_case = MEMOS__REQUEST__BODY_GET;
        request.get = &get;
        requests->envelopes[i] = memos_buffer_make(4096);
        void *room =
            memos_buffer_take(&requests->envelopes[i], memos__request__get_packed_size(&request));
        (void)memos__request__pack(&request, room);
    }
}

/* ---- the plain client ---------------------------------------------------------------------- */

static void *dealer_connect(void *context, const char *address)
{
    void *socket = zmq_socket(context, ZMQ_DEALER);
    int linger = 0;
    int timeout_ms = 20000;

    if (!socket || zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger) != 0 ||
        zmq_setsockopt(socket, ZMQ_RCVTIMEO, &timeout_ms, sizeof timeout_ms) != 0 ||
        zmq_connect(socket, address) != 0) {
        bench_fail("%s: %s", address, zmq_strerror(zmq_errno()));
    }
    return socket;
}

static void send_request(void *socket, const struct requests *requests, size_t number)
{
    struct memos_bytes protocol = memos_protocol_frame();
    struct memos_bytes envelope = memos_buffer_view(&requests->envelopes[number % requests->count]);

    if (zmq_send(socket, protocol.data, protocol.size, ZMQ_SNDMORE) < 0 ||
        zmq_send(socket, envelope.data, envelope.size, 0) < 0) {
        bench_fail("send: %s", zmq_strerror(zmq_errno()));
    }
}

/* Receive one reply; its shape is what the echo will imitate. */
static struct echo_shape receive_reply(void *socket)
{
    struct echo_shape shape = {.count = 0};
    int more = 1;

    while (more) {
        zmq_msg_t part;
        (void)zmq_msg_init(&part);
        if (zmq_msg_recv(&part, socket, 0) < 0) {
            bench_fail("receive: %s", zmq_strerror(zmq_errno()));
        }
        if (shape.count < ECHO_FRAMES_MAX) {
            shape.sizes[shape.count++] = zmq_msg_size(&part);
        }
        more = zmq_msg_more(&part);
        (void)zmq_msg_close(&part);
    }
    return shape;
}

/* Replies a second with IN_FLIGHT requests always on the way. */
static double pipelined(void *socket, const struct requests *requests, size_t count)
{
    int64_t start_ns = bench_now_ns();

    for (size_t i = 0; i < IN_FLIGHT; i++) {
        send_request(socket, requests, i * 7919);
    }
    for (size_t i = 0; i < count; i++) {
        (void)receive_reply(socket);
        if (i + IN_FLIGHT < count) {
            send_request(socket, requests, (i + IN_FLIGHT) * 7919);
        }
    }
    return (double)count * 1e9 / (double)(bench_now_ns() - start_ns);
}

/* The middle time of one request and its reply, in microseconds. */
static double single(void *socket, const struct requests *requests, size_t count)
{
    int64_t *times = bench_memory(count, sizeof *times);

    for (size_t i = 0; i < count; i++) {
        int64_t start_ns = bench_now_ns();
        send_request(socket, requests, i * 7919);
        (void)receive_reply(socket);
        times[i] = bench_now_ns() - start_ns;
    }
    double p50 = bench_percentile(times, count, 50) / 1000;
    free(times);
    return p50;
}

static int compare_doubles(const void *a, const void *b)
{
    double left = *(const double *)a;
    double right = *(const double *)b;
    return (left > right) - (left < right);
}

static double median(double rounds[ROUNDS])
{
    qsort(rounds, ROUNDS, sizeof *rounds, compare_doubles);
    return rounds[ROUNDS / 2];
}

/* ---- the rows ------------------------------------------------------------------------------ */

static void compare_reads(struct bench *bench, const char *address, const char *echo_address,
    const struct requests *requests, const struct sizes *sizes)
{
    double broker_rate[ROUNDS], echo_rate[ROUNDS], broker_us[ROUNDS], echo_us[ROUNDS];
    void *context = zmq_ctx_new();
    void *to_broker = dealer_connect(context, address);

    send_request(to_broker, requests, 0);
    struct echo_shape shape = receive_reply(to_broker);
    if (shape.count != 3 || shape.sizes[2] != PAYLOAD_BYTES) {
        bench_fail("the broker's reply is not a cube of %d bytes", PAYLOAD_BYTES);
    }
    pid_t echo = echo_start(echo_address, &shape);
    void *to_echo = dealer_connect(context, echo_address);
    (void)pipelined(to_broker, requests, sizes->pipelined / 4);
    (void)pipelined(to_echo, requests, sizes->pipelined / 4);
    for (size_t i = 0; i < ROUNDS; i++) {
        echo_rate[i] = pipelined(to_echo, requests, sizes->pipelined);
        broker_rate[i] = pipelined(to_broker, requests, sizes->pipelined);
        echo_us[i] = single(to_echo, requests, sizes->single);
        broker_us[i] = single(to_broker, requests, sizes->single);
    }
    bench_add(bench, (struct bench_row){"reads of 1 KB, 128 in flight", median(broker_rate),
                         "reads/s", median(echo_rate), "bare ROUTER/DEALER echo", 0.5, true});
    bench_add(bench, (struct bench_row){"single read of 1 KB, p50", median(broker_us), "us",
                         median(echo_us), "bare ROUTER/DEALER echo", 1.5, false});
    (void)zmq_close(to_broker);
    (void)zmq_close(to_echo);
    (void)zmq_ctx_term(context);
    echo_stop(echo);
}

/* Change one cube, take it back; only the taking back is timed, from request to reply. */
static void time_rollbacks(
    struct bench *bench, struct memos_client *client, const struct requests *requests, size_t count)
{
    int64_t *times = bench_memory(count, sizeof *times);

    for (size_t i = 0; i < count; i++) {
        Memos__Request request = MEMOS__REQUEST__INIT;
        Memos__Update update = MEMOS__UPDATE__INIT;
        Memos__Change change = MEMOS__CHANGE__INIT;
        Memos__Change *changes[] = {&change};
        Memos__Draft draft = MEMOS__DRAFT__INIT;
        char text[64];
        (void)snprintf(text, sizeof text, "a change of mind, number %zu", i);
        struct memos_bytes frame = memos_bytes_of(text);
        ProtobufCBinaryData id = {16, requests->ids[i]};
        draft.frame = 1;
        change.id = id;
        change.fields = 1; /* MEMCUBE_FIELD_PAYLOAD */
        change.draft = &draft;
        update.space = (char *)SPACE;
        update.changes = changes;
        update.n_changes = 1;
        request.body_case = MEMOS__REQUEST__BODY_UPDATE;
        request.update = &update;
        struct memos_message *reply = programs_call(client, &request, &frame, 1, "update");
        memos_message_free(&reply);

        Memos__Rollback rollback = MEMOS__ROLLBACK__INIT;
        rollback.space = (char *)SPACE;
        rollback.ids = &id;
        rollback.n_ids = 1;
        rollback.to_version = 1;
        request = (Memos__Request)MEMOS__REQUEST__INIT;
        request.body_case = MEMOS__REQUEST__BODY_ROLLBACK;
        request.rollback = &rollback;
        int64_t start_ns = bench_now_ns();
        reply = programs_call(client, &request, NULL, 0, "rollback");
        times[i] = bench_now_ns() - start_ns;
        memos_message_free(&reply);
    }
    bench_add(
        bench, (struct bench_row){"rollback of one cube in the broker, p50",
                   bench_percentile(times, count, 50) / 1e6, "ms", 5, "the target", 1, false});
    bench_add(
        bench, (struct bench_row){"rollback of one cube in the broker, p99",
                   bench_percentile(times, count, 99) / 1e6, "ms", 5, "the target", 1, false});
    free(times);
}

int main(int argc, char **argv)
{
    struct bench bench;
    char address[PROGRAMS_ADDRESS_BYTES], echo_address[PROGRAMS_ADDRESS_BYTES];
    struct requests requests = {0};

    bench_begin(&bench, "bench_wire", argc, argv);
    struct sizes sizes = bench.quick ? (struct sizes){2000, 40000, 4000, 100}
                                     : (struct sizes){10000, 300000, 20000, 1000};
    programs_ipc(&bench, "broker", address);
    programs_ipc(&bench, "echo", echo_address);
    pid_t broker = programs_broker(&bench, address, NULL);
    struct memos_client *client = programs_connect(address);
    bench_say("putting %zu cubes", sizes.cubes);
    fill(client, &requests, sizes.cubes);
    prepare(&requests, sizes.cubes);
    bench_say("reading");
    compare_reads(&bench, address, echo_address, &requests, &sizes);
    bench_say("rolling back");
    time_rollbacks(&bench, client, &requests, sizes.rollbacks);
    memos_client_close(&client);
    programs_stop(broker);
    for (size_t i = 0; i < requests.count; i++) {
        memos_buffer_free(&requests.envelopes[i]);
    }
    free(requests.envelopes);
    free(requests.ids);
    return bench_end(&bench);
}
