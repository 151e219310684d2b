/* The broker's encoder: vectors for what is written and asked, and for what still lacks them.
 *
 * A change's texts get their vectors before it goes to the writer, so that they are written with
 * the version; a question's, before it goes to a reader. Whatever fails to make a vector holds up
 * nothing: the change is written and the question is answered by its words. Docs that lack a
 * vector (an import, another encoder than before, an endpoint that was down) are filled in by a
 * thread in the background, which also keeps approximate indexes up to date.
 *
 * Threads: prepare and status from any; create and destroy from one. `then` is called on the
 * encoder's thread, or on the caller's when nothing had to wait. */
#ifndef MEMOS_BROKER_MEANING_H
#define MEMOS_BROKER_MEANING_H

#include "memos/broker/config.h"
#include "memos/broker/request.h"
#include "retrieval/embedder.h"
#include "retrieval/vectors.h"

struct broker_meaning;

/* Open the encoder of the configuration, make it the one that is stored and searched, and start
 * the thread. `encoder = "none"`: nothing is encoded. An endpoint that does not answer is tried
 * again and again; until then searches go by words. NOT_FOUND, CORRUPT, UNSUPPORTED ... say what
 * is wrong with the encoder that was asked for. */
MEMOS_MUST_USE enum memos_status broker_meaning_create(
    struct broker *broker, struct broker_meaning **out_meaning, struct memos_error *err);

/* Let what waits for a vector go on without one, and take no more. */
void broker_meaning_stop(struct broker_meaning *meaning);

/* End the background, too: after this, nothing here needs the writer. Takes NULL, like stop. */
void broker_meaning_end(struct broker_meaning *meaning);

/* Nothing may prepare any more. Takes NULL. */
void broker_meaning_destroy(struct broker_meaning **meaning);

/* Have the vectors made that a converted request wants. True: `then` will be called, or has been;
 * the request is not the caller's any more. False: there is nothing to wait for. `reader`: the
 * calling thread's snapshot, to see what an update leaves as it is; NULL: an update's vectors are
 * made in the background. */
bool broker_meaning_prepare(struct broker_request *rq, struct broker_reader *reader,
    void (*then)(struct broker_request *rq));

/* Forget what was prepared for a request; with it, or when its memory is used again. */
void broker_meaning_release(struct broker_request *rq);

/* The vector of question i of a request (search, search_many, classify); NULL without one. */
const float *broker_meaning_vector(const struct broker_request *rq, size_t i);

/* The encoder, for searching: its fingerprint, dims and name. False when there is none. */
bool broker_meaning_describe(
    const struct broker_meaning *meaning, struct retrieval_encoder_info *out);

/* A question's vector, now; blocks. For threads of jobs that hold no snapshot. out: dims. */
MEMOS_MUST_USE enum memos_status broker_meaning_encode(
    struct broker_meaning *meaning, struct memos_bytes text, float *out, struct memos_error *err);

/* Something was written without vectors: look sooner. Any thread. */
void broker_meaning_kick(struct broker_meaning *meaning);

struct broker_meaning_status {
    uint64_t waiting, done;
    double per_second; /* while it had something to do */
    char error[160];   /* why vectors cannot be made now; empty: they can */
    struct retrieval_embedder_stats embedder;
};
void broker_meaning_status(struct broker_meaning *meaning, struct broker_meaning_status *out);

#endif
