/* The memory of a sequence: found, fetched, placed in its prompt, and told in its receipt.
 *
 * A job passes through these steps, on two kinds of threads:
 *
 *   worker_memory_prepare  (fetch)   search and named cubes -> texts placed under the budget -> ids
 *                                    of the prompt -> captures that hold its beginning, here or
 *                                    mapped
 *   worker_memory_fuse     (engine)  they are attached, or given to the request
 *   ... the engine answers ...
 *   worker_memory_told     (engine)  what it really took: receipt and cost model learn
 *   worker_receipt_put     (fetch)   the receipt is kept, if it is to be
 *   worker_memory_wanted   (engine)  a capture was asked for, or a hot one is stale: it is read
 *   worker_capture_read              (worker_capture_read) and put (worker_capture_put, fetch)
 *   worker_memory_bring_later (fetch)  one that was too slow to load comes for the next answer
 *
 * Where memory stands in a prompt (prompt.c says it byte for byte): with messages, at the end of
 * the system message (one is made if there is none): a fixed sentence, then each cube as "[n] when,
 * who: text"; with a bare text, before it. Cubes stand in a stable order (named ones as named,
 * found ones oldest first), so that the same cubes give the same beginning, which captures are of.
 *
 * What holds, always:
 *   M1 A version that was withdrawn (updated, rolled back, forgotten, archived, expired) before
 *      the job's snapshot of the space is not used; a capture is used only while the store says
 *      that it is not stale, asked anew whenever the space's history went on (a job's snapshot
 *      says whether it did).
 *   M2 A capture of another model, type of keys or beginning is never used.
 *   M3 Bytes that came from outside are checked (paramem_kv_cube_read and _check) once before use.
 *   M4 Everything is asked with the job's ticket: a job sees what its client may see.
 *   M5 Failing to load a capture costs time, never the answer: its text is read instead.
 *
 * Threads: a worker_memory may be used by all threads; each fetch thread brings its own client.
 *
 * Errors: those of the requests (DENIED, NOT_FOUND ...), TOO_LARGE (named cubes exceed the budget;
 * the prompt the context), INVALID (no messages and no prompt, a template's refusal). */
#ifndef MEMOS_WORKER_MEMORY_H
#define MEMOS_WORKER_MEMORY_H

#include "memcube/cube.h"
#include "memos/worker/host.h"
#include "proto/arena.h"
#include "proto/client.h"

#include <stdatomic.h>

struct worker_memory;

/* The space as the engine knows it (paramem_engine_drop); 0: "". */
uint64_t worker_owner_of(const char *space);

struct worker_memory_options {
    uint64_t cache_bytes; /* of captures held in memory; mapped ones count, too. 0: 1 GiB */
    size_t hot_uses;      /* a capture used so often is made anew when it goes stale; 0: 2 */
    struct memos_clock clock;
};
MEMOS_MUST_USE enum memos_status worker_memory_create(const struct worker_memory_options *options,
    struct worker_memory **out, struct memos_error *err);
void worker_memory_destroy(struct worker_memory **memory); /* takes NULL */

/* How a fetch thread reaches the broker for one job. */
struct worker_fetch {
    struct memos_client *client; /* the thread's own */
    struct memos_bytes ticket;
    bool same_host;                 /* files named by Cube.path may be mapped */
    int64_t deadline_us;            /* on the system's mono clock; 0: none */
    const atomic_bool *cancelled;   /* looked at between requests */
    const char *principal, *worker; /* for receipts; NULL: not said */
};

/* A prompt with its memory, and all that is held for it. */
struct worker_prompt {
    struct memos_arena arena; /* of what is below */
    struct paramem_ids ids;
    size_t memory_tokens;    /* the prompt up to the end of its memory; 0: it has none */
    Memos__Receipt *receipt; /* in arena; complete after worker_memory_told. Its id is no ticket:
                                who has a ticket has rights */
    const struct paramem_placed *placed; /* for the engine's request, after worker_memory_fuse */
    size_t placed_count;
    uint64_t prepare_us, fuse_us;
    struct worker_prompt_private *own; /* captures held, cubes placed, decisions */
};

/* Make the prompt of a Generate (its frames: message and text payloads by number, from 1). */
MEMOS_MUST_USE enum memos_status worker_memory_prepare(struct worker_memory *memory,
    const struct worker_host *host, const struct worker_fetch *fetch,
    const Memos__Generate *generate, const struct memos_bytes *frames, size_t frames_count,
    struct worker_prompt **out, struct memos_error *err);

/* On the engine's thread, before submit. Never fails the job: what cannot be attached is computed.
 */
void worker_memory_fuse(
    struct worker_memory *memory, const struct worker_host *host, struct worker_prompt *prompt);

/* On the engine's thread, after the end. result: the engine's; answer: its ids. */
void worker_memory_told(struct worker_memory *memory, const struct worker_host *host,
    struct worker_prompt *prompt, const struct paramem_result *result, const uint32_t *answer,
    size_t answer_count);

/* What must be read by the engine to keep a capture. */
struct worker_capture {
    struct paramem_capture asked; /* its memory is kern_host_alloc's, once it is read */
    struct paramem_kv_cube cube;
    uint64_t read_us;
    struct worker_capture_private *own; /* sources, where it goes */
};

/* Plan the captures of a Capture job: *out (count) on the heap; free each with
 * worker_capture_free, then the array. Those that exist and hold are in `existing` instead. */
MEMOS_MUST_USE enum memos_status worker_capture_plan(struct worker_memory *memory,
    const struct worker_host *host, const struct worker_fetch *fetch, const Memos__Capture *capture,
    const struct memos_bytes *frames, size_t frames_count, struct worker_capture ***out,
    size_t *out_count, Memos__CaptureMade ***out_existing, size_t *out_existing_count,
    struct memos_arena *arena, struct memos_error *err);
/* The capture that `generate.memory.capture` asked for, or a hot one that is stale; *out NULL:
 * none. */
MEMOS_MUST_USE enum memos_status worker_memory_wanted(struct worker_memory *memory,
    const struct worker_host *host, const struct worker_prompt *prompt, struct worker_capture **out,
    struct memos_error *err);
/* On the engine's thread: read it. */
MEMOS_MUST_USE enum memos_status worker_capture_read(
    const struct worker_host *host, struct worker_capture *capture, struct memos_error *err);
/* On a fetch thread: check that its sources still stand, seal it, put it. *out_made points into the
 * arena. CONFLICT: they do not stand. TOO_LARGE: the broker takes no such message. */
MEMOS_MUST_USE enum memos_status worker_capture_put(struct worker_memory *memory,
    const struct worker_host *host, const struct worker_fetch *fetch,
    struct worker_capture *capture, struct memos_arena *arena, Memos__CaptureMade *out_made,
    struct memos_error *err);
void worker_capture_free(struct worker_capture **capture); /* takes NULL */

/* A capture would have been worth its attaching, and not its loading: is there one? Then bring it,
 * on a fetch thread before the ticket is given back, so that it is here for the next answer. */
bool worker_memory_has_later(const struct worker_prompt *prompt);
void worker_memory_bring_later(struct worker_memory *memory, const struct worker_host *host,
    const struct worker_fetch *fetch, struct worker_prompt *prompt);

/* Put the receipt as a cube of its space, subtype "receipt". */
MEMOS_MUST_USE enum memos_status worker_receipt_put(const struct worker_fetch *fetch,
    const struct worker_prompt *prompt, struct memcube_ref *out_ref, struct memos_error *err);

void worker_prompt_free(struct worker_memory *memory, struct worker_prompt **prompt);

/* Something of the space was destroyed (NULL: of any): no capture of it is kept. What a job holds
 * stays until the job ends. */
void worker_memory_drop(struct worker_memory *memory, const char *space);
/* Do the files that the engine reads while it answers still stand, those of captures apart? If not,
 * what it read may have been zeros: CONFLICT. */
MEMOS_MUST_USE enum memos_status worker_memory_stands(
    const struct worker_prompt *prompt, struct memos_error *err);

/* For heartbeats. */
struct worker_memory_stats {
    uint64_t loaded, bytes_held, bytes_fetched, attached, refused, computed_instead;
};
void worker_memory_stats(struct worker_memory *memory, struct worker_memory_stats *out);
/* The names of spaces whose captures it holds, newest first, one after the other in `out` with a
 * NUL each; how many. */
size_t worker_memory_warm(struct worker_memory *memory, size_t count_max, struct memos_buffer *out);

#endif
