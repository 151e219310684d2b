#include "tests/bench/echo.h"

#include "tests/bench/bench.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

/* Read one request to its end; its first frame is the identity. */
static void receive_request(void *socket, zmq_msg_t *identity)
{
    int more = 1;

    for (int i = 0; more; i++) {
        zmq_msg_t part;
        zmq_msg_t *into = i == 0 ? identity : &part;
        (void)zmq_msg_init(into);
        if (zmq_msg_recv(into, socket, 0) < 0) {
            _exit(1);
        }
        more = zmq_msg_more(into);
        if (i > 0) {
            (void)zmq_msg_close(&part);
        }
    }
}

static void serve(const char *address, const struct echo_shape *shape)
{
    void *context = zmq_ctx_new();
    void *socket = context ? zmq_socket(context, ZMQ_ROUTER) : NULL;
    size_t largest = 0;

    for (size_t i = 0; i < shape->count; i++) {
        largest = shape->sizes[i] > largest ? shape->sizes[i] : largest;
    }
    char *bytes = bench_memory(1, largest);
    if (!socket || zmq_bind(socket, address) != 0) {
        _exit(1);
    }
    for (;;) {
        zmq_msg_t identity;
        receive_request(socket, &identity);
        (void)zmq_msg_send(&identity, socket, ZMQ_SNDMORE);
        for (size_t i = 0; i < shape->count; i++) {
            int flags = i + 1 < shape->count ? ZMQ_SNDMORE : 0;
            if (zmq_send(socket, bytes, shape->sizes[i], flags) < 0) {
                _exit(1);
            }
        }
    }
}

pid_t echo_start(const char *address, const struct echo_shape *shape)
{
    pid_t pid = fork();

    if (pid < 0) {
        bench_fail("fork: %s", strerror(errno));
    }
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve(address, shape);
    }
    return pid;
}

void echo_stop(pid_t pid)
{
    int status;

    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, &status, 0);
}
