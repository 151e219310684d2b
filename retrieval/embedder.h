/* One encoder shared by many threads.
 *
 * Jobs wait in three queues: questions, passages, and what has time. One thread encodes what waits,
 * in that order: texts of several jobs together in one piece, a long job in several, so that a
 * question waits for one piece of others at most, whatever else is to be done. A queue that was
 * passed over 16 times has its turn, so that nothing waits for ever. Vectors of texts asked for
 * lately are remembered: the same question again costs nothing.
 *
 * What waits is bounded, in jobs, in texts and in bytes (of texts and vectors): BUSY says that
 * there is no room now, TOO_LARGE that there never will be.
 *
 * An encoder that fails, fails the jobs whose texts were in the piece, with its status; when the
 * texts may be to blame (not UNAVAILABLE, DENIED or CANCELLED), each job of the piece is tried by
 * itself. The embedder goes on.
 *
 * Threads: any, at any time but create's and destroy's. */
#ifndef RETRIEVAL_EMBEDDER_H
#define RETRIEVAL_EMBEDDER_H

#include "proto/clock.h"
#include "retrieval/encoder.h"

struct retrieval_embedder;

struct retrieval_embedder_options {
    struct memos_clock clock; /* deadlines are its mono_us */
    size_t jobs_max;          /* that wait or run; 0: 4096 */
    size_t texts_max;         /* of them; 0: 65536 */
    size_t bytes_max;         /* of their texts and vectors; 0: 256 MiB */
    size_t cache_bytes;       /* of remembered vectors, half for each role; 0: 32 MiB */
    bool forgets;             /* remember nothing */
    size_t piece_texts;       /* encoded at once, at most; 0: 32 */
    size_t piece_bytes;       /* of their texts, unless one alone is longer; 0: 8192, some 2,048
                                 tokens */
};

/* Takes *encoder: it is set to NULL on success and closed by destroy. NO_MEMORY; what starting a
 * thread can be. */
MEMOS_MUST_USE enum memos_status retrieval_embedder_create(struct retrieval_encoder **encoder,
    const struct retrieval_embedder_options *options, struct retrieval_embedder **out_embedder,
    struct memos_error *err);

/* End the jobs that wait, and the one that runs as soon as the encoder can, with CANCELLED; so do
 * all later ones. Returns when the last callback has. For an owner whose other threads still may
 * call. Not from a callback. */
void retrieval_embedder_stop(struct retrieval_embedder *embedder);

/* Stop, and free. Waits until the calls of retrieval_embedder_run have returned; no other call may
 * run. Takes NULL. */
void retrieval_embedder_destroy(struct retrieval_embedder **embedder);

/* What the encoder says of itself; texts live as long as the embedder. */
void retrieval_embedder_describe(
    const struct retrieval_embedder *embedder, struct retrieval_encoder_info *out);

/* A job has ended: status OK and its vectors are there, or err says why not (NULL on OK; a view for
 * the call). Called once, on the embedder's thread, which waits for it: hand over and return. May
 * submit; may not run, stop or destroy. */
typedef void retrieval_embedder_done(
    void *self, enum memos_status status, const struct memos_error *err);

/* The caller keeps texts, their bytes and out until done was called or cancel gave true. */
struct retrieval_embedder_job {
    const struct memos_bytes *texts;
    size_t count; /* 1 or more */
    enum paramem_role role;
    bool has_time;       /* after all that has not */
    int64_t deadline_us; /* DEADLINE for what has not begun then; 0: none */
    float *out;          /* (count, dims); anything after a failure */
    retrieval_embedder_done *done;
    void *self;
};

/* Put a job in its queue. On failure done is not called. It may be called before submit returns.
 * BUSY, TOO_LARGE, NO_MEMORY, CANCELLED (stopped). */
MEMOS_MUST_USE enum memos_status retrieval_embedder_submit(struct retrieval_embedder *embedder,
    const struct retrieval_embedder_job *job, struct memos_error *err);

/* Take a job back, known by its address. True: it is gone, done is not called. False: a piece of it
 * is with the encoder, and done will be called with CANCELLED after it, unless that was the last
 * piece; or done was called, or is about to be. */
bool retrieval_embedder_cancel(
    struct retrieval_embedder *embedder, const struct retrieval_embedder_job *job);

/* Encode and wait: out (count, dims). What is remembered is answered at once, on the caller's
 * thread. As submit, and what the encoder fails with. */
MEMOS_MUST_USE enum memos_status retrieval_embedder_run(struct retrieval_embedder *embedder,
    const struct memos_bytes *texts, size_t count, enum paramem_role role, float *out,
    struct memos_error *err);

/* The same for what has time: all else goes before it. */
MEMOS_MUST_USE enum memos_status retrieval_embedder_run_later(struct retrieval_embedder *embedder,
    const struct memos_bytes *texts, size_t count, enum paramem_role role, float *out,
    struct memos_error *err);

/* out (count, dims) from what is remembered of all the texts; false when one is missing. Never
 * waits. For a caller of submit who wants to spare the way through the queue. */
bool retrieval_embedder_remembered(struct retrieval_embedder *embedder,
    const struct memos_bytes *texts, size_t count, enum paramem_role role, float *out);

struct retrieval_embedder_stats {
    uint64_t jobs;       /* that were taken */
    uint64_t failed;     /* of them ended with another status than OK and CANCELLED */
    uint64_t cancelled;  /* of them were taken back, or ended by stop */
    uint64_t texts;      /* encoded */
    uint64_t text_bytes; /* of them */
    uint64_t pieces;     /* calls of the encoder */
    uint64_t joined;     /* of them with texts of several jobs */
    uint64_t remembered; /* texts that needed no encoding */
    uint64_t refused;    /* BUSY and TOO_LARGE */
    uint64_t busy_us;    /* inside the encoder */
    size_t jobs_now, texts_now, bytes_now; /* waiting or running */
    size_t cache_count, cache_bytes;       /* vectors remembered */
};
void retrieval_embedder_stats(
    struct retrieval_embedder *embedder, struct retrieval_embedder_stats *out);

#endif
