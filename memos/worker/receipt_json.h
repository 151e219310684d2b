/* A receipt as JSON: what is kept in a space, what memosctl shows, reads and verifies.
 *
 *     {"id", "space", "seq", "head", "time", "principal", "model", "fingerprint", "prompt_hash",
 *      "answer_hash", "worker", "items": [{"id", "version", "payload_hash", "used_as",
 *      "first_token", "tokens", "bytes", "micros", "score", "mark", "approximate"}], "notes": []}
 *
 * Ids of cubes are UUID texts, other bytes hexadecimal, the time is RFC 3339 (proto/clock.h);
 * used_as is "text", "kv", "text-in-kv" or "kv-independent". Keys that are not known are ignored;
 * "space", "seq", "items" must be there.
 *
 * Threads: no state. */
#ifndef MEMOS_WORKER_RECEIPT_JSON_H
#define MEMOS_WORKER_RECEIPT_JSON_H

#include "proto/arena.h"
#include "proto/memos.pb-c.h"

#define WORKER_RECEIPT_SUBTYPE "receipt"

/* Numbers of ReceiptItem.used_as. */
enum worker_used_as {
    WORKER_USED_TEXT = 1,       /* words, read by the model */
    WORKER_USED_KV = 2,         /* a capture of the prompt's beginning */
    WORKER_USED_TEXT_IN_KV = 3, /* words of which some came out of a capture */
    WORKER_USED_KV_APART = 4,   /* a cube's own capture, turned to its place */
};
/* "?" for a number outside the table. Static. */
const char *worker_used_as_text(uint32_t used_as);

/* Append the JSON text. NO_MEMORY; INVALID: texts that are no UTF-8. */
MEMOS_MUST_USE enum memos_status worker_receipt_write(
    const Memos__Receipt *receipt, struct memos_buffer *out, struct memos_error *err);

/* Read it back; everything lies in the arena. INVALID says what is not as above. */
MEMOS_MUST_USE enum memos_status worker_receipt_read(struct memos_bytes json,
    struct memos_arena *arena, Memos__Receipt **out, struct memos_error *err);

#endif
