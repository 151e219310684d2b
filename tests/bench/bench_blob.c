/* How fast a large payload comes out of the broker: sent over ipc and TCP, beside a bare ZeroMQ
 * transfer of frames of the same sizes; and mapped where it lies, beside reading the file.
 *
 * One client on a plain DEALER asks both; rounds alternate; figures are medians. Nobody looks at
 * the bytes that were sent; those that were mapped are copied out, as read(2) does. */
#include "proto/frame.h"
#include "tests/bench/echo.h"
#include "tests/bench/programs.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#define SPACE "blobs"
#define ROUNDS_MAX 15
#define NAME_BYTES 64
#define SIZES 3

struct blob {
    size_t size;
    uint8_t id[16];
    struct memos_buffer request; /* a Get of it, packed */
};

struct scene {
    struct bench *bench;
    size_t rounds;
    void *context;
    struct memos_client *client;
    uint8_t *room; /* for the largest */
};

static void row_add(struct scene *scene, size_t size, const char *what, double value,
    const char *unit, double limit, const char *limit_name, double bar, bool higher)
{
    static char names[BENCH_ROWS_MAX][NAME_BYTES];
    char *name = names[scene->bench->rows_count];
    (void)snprintf(name, NAME_BYTES, "%zu MiB, %s", size >> 20, what);
    bench_add(scene->bench, (struct bench_row){name, value, unit, limit, limit_name, bar, higher});
}

/* ---- what is asked for --------------------------------------------------------------------- */

static void blob_put(struct scene *scene, struct blob *blob, uint64_t seed)
{
    uint64_t *bytes = bench_memory(blob->size / sizeof *bytes, sizeof *bytes);
    for (size_t i = 0; i < blob->size / sizeof *bytes; i++) {
        bytes[i] = bench_next(&seed);
    }
    struct memos_bytes frame = memos_bytes_make(bytes, blob->size);
    Memos__Request request = MEMOS__REQUEST__INIT;
    Memos__Put put = MEMOS__PUT__INIT;
    Memos__Draft draft = MEMOS__DRAFT__INIT;
    Memos__Draft *drafts[] = {&draft};
    draft.frame = 1;
    draft.codec = (char *)"application/octet-stream";
    put.space = (char *)SPACE;
    put.drafts = drafts;
    put.n_drafts = 1;
    request.body_case = MEMOS__REQUEST__BODY_PUT;
    request.put = &put;
    struct memos_message *reply = programs_call(scene->client, &request, &frame, 1, "put");
    memcpy(blob->id, memos_message_reply(reply)->outcome->refs[0]->id.data, sizeof blob->id);
    memos_message_free(&reply);
    free(bytes);
}

static void get_fill(
    const struct blob *blob, Memos__Request *request, Memos__Get *get, ProtobufCBinaryData *id)
{
    *request = (Memos__Request)MEMOS__REQUEST__INIT;
    *get = (Memos__Get)MEMOS__GET__INIT;
    *id = (ProtobufCBinaryData){sizeof blob->id, (uint8_t *)blob->id};
    get->space = (char *)SPACE;
    get->ids = id;
    get->n_ids = 1;
    get->peek = true;
    request->body_case = MEMOS__REQUEST__BODY_GET;
    request->get = get;
}

static void blob_prepare(struct blob *blob)
{
    Memos__Request request;
    Memos__Get get;
    ProtobufCBinaryData id;
    get_fill(blob, &request, &get, &id);
    request.id = 7;
    blob->request = memos_buffer_make(4096);
    void *room = memos_buffer_take(&blob->request, memos__request__get_packed_size(&request));
    (void)memos__request__pack(&request, room);
}

/* ---- sent ---------------------------------------------------------------------------------- */

static void *dealer_connect(void *context, const char *address)
{
    void *socket = zmq_socket(context, ZMQ_DEALER);
    int linger = 0, timeout_ms = 60000;
    if (!socket || zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger) != 0 ||
        zmq_setsockopt(socket, ZMQ_RCVTIMEO, &timeout_ms, sizeof timeout_ms) != 0 ||
        zmq_connect(socket, address) != 0) {
        bench_fail("%s: %s", address, zmq_strerror(zmq_errno()));
    }
    return socket;
}

/* Ask once; what came. */
static struct echo_shape transfer(void *socket, const struct blob *blob)
{
    struct memos_bytes protocol = memos_protocol_frame();
    struct memos_bytes envelope = memos_buffer_view(&blob->request);
    struct echo_shape shape = {.count = 0};
    if (zmq_send(socket, protocol.data, protocol.size, ZMQ_SNDMORE) < 0 ||
        zmq_send(socket, envelope.data, envelope.size, 0) < 0) {
        bench_fail("send: %s", zmq_strerror(zmq_errno()));
    }
    for (int more = 1; more;) {
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
    if (shape.count != 3 || shape.sizes[2] != blob->size) {
        bench_fail("what came is not a cube of %zu bytes", blob->size);
    }
    return shape;
}

static int64_t transfer_ns(void *socket, const struct blob *blob)
{
    int64_t begin = bench_now_ns();
    (void)transfer(socket, blob);
    return bench_now_ns() - begin;
}

static void measure_sent(struct scene *scene, const struct blob *blob, const char *address,
    const char *bare_address, const char *what)
{
    int64_t sent[ROUNDS_MAX], bare[ROUNDS_MAX];
    void *to_broker = dealer_connect(scene->context, address);
    struct echo_shape shape = transfer(to_broker, blob);
    pid_t echo = echo_start(bare_address, &shape);
    void *to_echo = dealer_connect(scene->context, bare_address);
    (void)transfer(to_echo, blob);
    for (size_t i = 0; i < scene->rounds; i++) {
        bare[i] = transfer_ns(to_echo, blob);
        sent[i] = transfer_ns(to_broker, blob);
    }
    double bytes = (double)blob->size;
    row_add(scene, blob->size, what, bytes / bench_percentile(sent, scene->rounds, 50), "GB/s",
        bytes / bench_percentile(bare, scene->rounds, 50), "bare ROUTER/DEALER transfer", 0.8,
        true);
    (void)zmq_close(to_broker);
    (void)zmq_close(to_echo);
    echo_stop(echo);
}

/* ---- mapped -------------------------------------------------------------------------------- */

/* Ask where it lies; returns the reply, whose text *out_path is. */
static struct memos_message *path_of(
    struct scene *scene, const struct blob *blob, const char **out_path)
{
    Memos__Request request;
    Memos__Get get;
    ProtobufCBinaryData id;
    get_fill(blob, &request, &get, &id);
    get.path = true;
    struct memos_message *reply = programs_call(scene->client, &request, NULL, 0, "its path");
    const Memos__Cubes *cubes = memos_message_reply(reply)->cubes;
    if (cubes->n_cubes != 1 || !cubes->cubes[0]->path[0]) {
        bench_fail("the broker gives no path");
    }
    *out_path = cubes->cubes[0]->path;
    return reply;
}

static int64_t mapped_ns(struct scene *scene, const struct blob *blob)
{
    const char *path;
    int64_t begin = bench_now_ns();
    struct memos_message *reply = path_of(scene, blob, &path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *map = mmap(NULL, blob->size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (fd < 0 || map == MAP_FAILED) {
        bench_fail("%s: cannot be mapped", path);
    }
    memcpy(scene->room, map, blob->size);
    (void)munmap(map, blob->size);
    (void)close(fd);
    int64_t took = bench_now_ns() - begin;
    memos_message_free(&reply);
    return took;
}

static int64_t read_ns(struct scene *scene, const struct blob *blob, const char *path)
{
    int64_t begin = bench_now_ns();
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    for (size_t done = 0; done < blob->size;) {
        ssize_t got = read(fd, scene->room + done, blob->size - done);
        if (got <= 0) {
            bench_fail("%s: cannot be read", path);
        }
        done += (size_t)got;
    }
    (void)close(fd);
    return bench_now_ns() - begin;
}

static void measure_mapped(struct scene *scene, const struct blob *blob)
{
    int64_t mapped[ROUNDS_MAX], plain[ROUNDS_MAX];
    const char *path;
    struct memos_message *reply = path_of(scene, blob, &path);
    (void)read_ns(scene, blob, path);
    (void)mapped_ns(scene, blob);
    for (size_t i = 0; i < scene->rounds; i++) {
        plain[i] = read_ns(scene, blob, path);
        mapped[i] = mapped_ns(scene, blob);
    }
    memos_message_free(&reply);
    row_add(scene, blob->size, "asked for, mapped and copied",
        bench_percentile(mapped, scene->rounds, 50) / 1e6, "ms",
        bench_percentile(plain, scene->rounds, 50) / 1e6, "reading the file", 1.2, false);
}

int main(int argc, char **argv)
{
    static const size_t sizes[SIZES] = {1 << 20, 16 << 20, 128 << 20};
    struct bench bench;
    struct scene scene = {.bench = &bench};
    char ipc[PROGRAMS_ADDRESS_BYTES], tcp[PROGRAMS_ADDRESS_BYTES], bare[PROGRAMS_ADDRESS_BYTES];

    bench_begin(&bench, "bench_blob", argc, argv);
    scene.rounds = bench.quick ? 5 : ROUNDS_MAX;
    programs_ipc(&bench, "broker", ipc);
    programs_tcp(tcp);
    pid_t broker = programs_broker(&bench, ipc, tcp);
    scene.client = programs_connect(ipc);
    programs_let_in_loopback(scene.client);
    scene.context = zmq_ctx_new();
    scene.room = bench_memory(sizes[SIZES - 1], 1);
    memset(scene.room, 1, sizes[SIZES - 1]);
    size_t count = bench.quick ? SIZES - 1 : SIZES;
    for (size_t i = 0; i < count; i++) {
        struct blob blob = {.size = sizes[i]};
        bench_say("%zu bytes", blob.size);
        blob_put(&scene, &blob, i);
        blob_prepare(&blob);
        programs_ipc(&bench, "echo", bare);
        measure_sent(&scene, &blob, ipc, bare, "sent over ipc");
        programs_tcp(bare);
        measure_sent(&scene, &blob, tcp, bare, "sent over TCP, loopback");
        measure_mapped(&scene, &blob);
        memos_buffer_free(&blob.request);
    }
    free(scene.room);
    (void)zmq_ctx_term(scene.context);
    memos_client_close(&scene.client);
    programs_stop(broker);
    return bench_end(&bench);
}
