/* The product's own programs, run by a benchmark: started, waited for, ended; and addresses for
 * them. What still runs when the benchmark ends, in whatever way, is killed. */
#ifndef TESTS_BENCH_PROGRAMS_H
#define TESTS_BENCH_PROGRAMS_H

#include "proto/client.h"
#include "tests/bench/bench.h"

#include <sys/types.h>

#define PROGRAMS_ADDRESS_BYTES 600

/* Start a program and wait until it says "ready". variable: of the environment, names it ("MEMOSD",
 * tools/bench sets it), else `usual` is looked for; log: its stderr, in the bench's folder, kept
 * when it fails; arguments: those after its name, NULL at the end; --ready-fd is added. */
pid_t programs_start(const struct bench *bench, const char *variable, const char *usual,
    const char *log, const char *const *arguments);

/* SIGTERM; it must end well. */
void programs_stop(pid_t pid);

/* A memosd with its store in the bench's folder, at `address` and, unless NULL, `other`. */
pid_t programs_broker(const struct bench *bench, const char *address, const char *other);

/* "ipc://FOLDER/name", and "tcp://127.0.0.1:PORT" with a port that was free just now. */
void programs_ipc(const struct bench *bench, const char *name, char out[PROGRAMS_ADDRESS_BYTES]);
void programs_tcp(char out[PROGRAMS_ADDRESS_BYTES]);

struct memos_client *programs_connect(const char *address);

/* A request that must go well; free the reply. */
struct memos_message *programs_call(struct memos_client *client, Memos__Request *request,
    const struct memos_bytes *frames, size_t frames_count, const char *what);

/* Whoever comes over TCP without a key may do everything from now on, and be a worker. */
void programs_let_in_loopback(struct memos_client *owner);

#endif
