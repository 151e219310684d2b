/* The bare ZeroMQ echo that bench_wire compares the broker with: a ROUTER in a process of its own
 * that answers every request with frames of the sizes that the broker's reply has, and does nothing
 * else. */
#ifndef TESTS_BENCH_ECHO_H
#define TESTS_BENCH_ECHO_H

#include <stddef.h>
#include <sys/types.h>

#define ECHO_FRAMES_MAX 4

/* The sizes of a reply's frames, without the identity. */
struct echo_shape {
    size_t sizes[ECHO_FRAMES_MAX];
    size_t count;
};

/* Fork a process that serves address (bound there) until it is killed. */
pid_t echo_start(const char *address, const struct echo_shape *shape);

/* Kill and reap it. */
void echo_stop(pid_t pid);

#endif
