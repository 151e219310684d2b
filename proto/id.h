/* 128-bit identifiers that sort by time: UUID version 7 (RFC 9562, 5.7). */
#ifndef PROTO_ID_H
#define PROTO_ID_H

#include "proto/bytes.h"
#include "proto/clock.h"

#pragma GCC visibility push(default)

#define MEMOS_ID_TEXT_BYTES 37

struct memos_id {
    uint8_t bytes[16];
};

/* Makes ids that strictly increase, even within one millisecond and when the wall clock steps back:
 * 48 bits of milliseconds, then a 74-bit random number that is counted up inside a millisecond.
 * Threads: one generator belongs to one thread at a time. Zero-initialise. */
struct memos_id_source {
    uint64_t last_ms;
    struct memos_id last;
};

/* The next id of source. */
struct memos_id memos_id_next(struct memos_id_source *source, const struct memos_clock *clock);

/* "01923456-789a-7bcd-8ef0-123456789abc". Returns out. */
char *memos_id_format(const struct memos_id *id, char out[MEMOS_ID_TEXT_BYTES]);

/* Reads the 36-character form or 32 bare hex digits. INVALID names what was given. */
MEMOS_MUST_USE enum memos_status memos_id_parse(
    struct memos_bytes text, struct memos_id *out, struct memos_error *err);

bool memos_id_equal(const struct memos_id *a, const struct memos_id *b);

/* All zeros: "no id". */
bool memos_id_is_nil(const struct memos_id *id);

#pragma GCC visibility pop

#endif
