/* Time that a test can replace.
 *
 * Everything that asks for the time asks a `struct memos_clock` that it was given. */
#ifndef PROTO_CLOCK_H
#define PROTO_CLOCK_H

#include "proto/bytes.h"

#pragma GCC visibility push(default)

struct memos_clock {
    int64_t (*wall_us)(void *self); /* microseconds since 1970-01-01 UTC; may step */
    int64_t (*mono_us)(void *self); /* microseconds since some start; never steps back */
    void *self;
};

/* The system's clocks. Any thread. */
struct memos_clock memos_clock_system(void);

/* A clock that stands still until it is moved: both readings give *now_us. `now_us` is borrowed for
 * the clock's life; Sync: write it only while no other thread reads the clock. */
struct memos_clock memos_clock_fixed(int64_t *now_us);

#define MEMOS_TIME_TEXT_BYTES 32

/* "2026-05-01T12:30:00.123456Z"; a whole second has no fraction. Returns out. */
char *memos_time_format(int64_t wall_us, char out[MEMOS_TIME_TEXT_BYTES]);

/* Read a time: RFC 3339 ("2026-05-01T12:30:00Z", "+02:00", fraction optional, a blank for the T), a
 * date alone (midnight UTC), seconds since the epoch ("@1767225600"), or an age ("90s", "15m",
 * "3h", "2d", "4w" before now_us). INVALID says what was not understood. */
MEMOS_MUST_USE enum memos_status memos_time_parse(
    struct memos_bytes text, int64_t now_us, int64_t *out_us, struct memos_error *err);

#pragma GCC visibility pop

#endif
