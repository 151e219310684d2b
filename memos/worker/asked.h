/* What a job asks for: checked, and as the engine takes it.
 *
 * A job comes from the broker, which has it from a client; nothing in it is believed. What passes
 * here has the frames that it names, texts that are UTF-8, ids of 16 bytes, and numbers within the
 * bounds below; what depends on the model (ids of tokens, the context) is the engine's to check.
 *
 * Threads: no state. Errors: INVALID, UNSUPPORTED (a body that is not known), NO_MEMORY. */
#ifndef MEMOS_WORKER_ASKED_H
#define MEMOS_WORKER_ASKED_H

#include "paramem/engine.h"
#include "proto/arena.h"
#include "proto/client.h"

#define WORKER_TICKET_BYTES 16
#define WORKER_CUBES_MAX 1000    /* named in one request */
#define WORKER_BIASES_MAX 300000 /* more than any vocabulary */
#define WORKER_ROLE_BYTES_MAX 64

/* The payload frames of a message; number 1 is the first. */
struct worker_frames {
    struct memos_bytes frames[MEMOS_FRAMES_MAX];
    size_t count;
};
void worker_frames_of(const struct memos_message *message, struct worker_frames *out);
/* Empty for 0, and for what is not there. */
struct memos_bytes worker_frame(const struct worker_frames *frames, uint32_t number);

MEMOS_MUST_USE enum memos_status worker_asked_check(
    const Memos__Job *job, const struct worker_frames *frames, struct memos_error *err);

/* Sampling, stops and bounds of a Generate that was checked; prompt, deadline and callbacks are the
 * caller's. own: the model's, for what is not given. What it points to lies in arena, or in
 * generate. */
MEMOS_MUST_USE enum memos_status worker_asked_request(const Memos__Generate *generate,
    const struct paramem_decoder_config *own, struct memos_arena *arena,
    struct paramem_request *out, struct memos_error *err);

/* Does it want any memory? */
bool worker_asked_memory(const Memos__Memory *memory);

/* The space that a job's memory is in; "": none. */
const char *worker_asked_space(const Memos__Job *job);
/* The model that it names. */
const char *worker_asked_model(const Memos__Job *job);

#endif
