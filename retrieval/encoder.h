/* The encoder as retrieval sees it: a source of vectors, whatever makes them.
 *
 * Three sources: a model folder (paramem/encoder.h), an OpenAI-compatible /v1/embeddings endpoint,
 * and hashed word and character n-grams, which need nothing and are always there.
 *
 * Threads: an encoder belongs to one thread at a time. retrieval_embedder (retrieval/embedder.h)
 * shares one among many.
 *
 * Errors: those of paramem/encoder.h; of an endpoint: UNAVAILABLE (does not answer, or answers
 * late, after the retries), CORRUPT (answers wrongly: another status, count or dimension, no finite
 * numbers), DENIED (does not take the key), INVALID (at open: the URL or the key cannot be one).
 * Of all: CANCELLED (interrupted), NO_MEMORY. */
#ifndef RETRIEVAL_ENCODER_H
#define RETRIEVAL_ENCODER_H

#include "paramem/encoder.h"

#include <stdatomic.h>

enum retrieval_encoder_source {
    RETRIEVAL_ENCODER_NGRAMS = 1,
    RETRIEVAL_ENCODER_FOLDER,
    RETRIEVAL_ENCODER_ENDPOINT,
};

struct retrieval_encoder_options {
    enum retrieval_encoder_source source;
    struct paramem_encoder_options folder;
    struct {
        const char *url;    /* "http://127.0.0.1:8080/v1/embeddings" */
        const char *model;  /* sent as "model" */
        const char *key;    /* bearer token, never logged; NULL: none */
        size_t dims;        /* 0: what the first answer has */
        size_t batch_max;   /* texts in one request; 0: 32 */
        int64_t timeout_ms; /* of one try; 0: 10000 */
        unsigned tries_max; /* 0: 3 */
        /* When it becomes true, opening and encoding end with CANCELLED in a moment. Borrowed for
         * the encoder's life; NULL: none. */
        const atomic_bool *stop;
    } endpoint;
};

struct retrieval_encoder;

/* Copies what options point to. An endpoint whose dims are not given is asked for one vector.
 * "http_proxy" and its kin in the environment hold for an endpoint as for other programs; redirects
 * are not followed. */
MEMOS_MUST_USE enum memos_status retrieval_encoder_open(
    const struct retrieval_encoder_options *options, struct retrieval_encoder **out_encoder,
    struct memos_error *err);
void retrieval_encoder_close(struct retrieval_encoder **encoder); /* takes NULL */

struct retrieval_encoder_info {
    enum retrieval_encoder_source source;
    const char *name; /* for people: "all-MiniLM-L6-v2 (f32, cpu/avx2)", "hashed n-grams" */
    size_t dims;
    size_t tokens_max;       /* 0: no limit */
    uint8_t fingerprint[32]; /* vectors of equal fingerprints may be compared, others never */
    bool semantic;           /* knows meanings; false for n-grams */
};
/* Texts live as long as the encoder. Any thread. */
void retrieval_encoder_describe(
    const struct retrieval_encoder *encoder, struct retrieval_encoder_info *out);

/* Unit vectors, out (count, dims), in the order of the texts. A text without any words may give
 * zeros (n-grams). UTF-8; what is ill-formed is read as U+FFFD, or parts words. What is too long
 * for the source is cut: a folder at tokens_max, n-grams and an endpoint at 64 KiB. After a failure
 * out may hold anything, and the encoder works on. */
MEMOS_MUST_USE enum memos_status retrieval_encoder_encode(struct retrieval_encoder *encoder,
    const struct memos_bytes *texts, size_t count, enum paramem_role role, float *out,
    struct memos_error *err);

/* Let the call that runs now and all later ones end soon with CANCELLED: for an end that must not
 * wait for an endpoint. Sources that compute finish what they are at. Any thread. */
void retrieval_encoder_interrupt(struct retrieval_encoder *encoder);

#endif
