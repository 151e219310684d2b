/* The encoder as retrieval sees it: a source of vectors, whatever makes them.
 *
 * Three sources: a model folder (paramem/encoder.h), an OpenAI-compatible /v1/embeddings endpoint,
 * and hashed word and character n-grams, which need nothing and are always there.
 *
 * Threads: an encoder belongs to one thread at a time. retrieval_embedder (retrieval/embedder.h)
 * shares one among many.
 *
 * Errors: those of paramem/encoder.h; of an endpoint: UNAVAILABLE (does not answer, or answers
 * late, after the retries), CORRUPT (answers wrongly, with another count or dimension), DENIED. */
#ifndef RETRIEVAL_ENCODER_H
#define RETRIEVAL_ENCODER_H

#include "paramem/encoder.h"

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
    } endpoint;
};

struct retrieval_encoder;

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
void retrieval_encoder_describe(
    const struct retrieval_encoder *encoder, struct retrieval_encoder_info *out);

/* Unit vectors (count, dims). A text without any words may give zeros (n-grams). */
MEMOS_MUST_USE enum memos_status retrieval_encoder_encode(struct retrieval_encoder *encoder,
    const struct memos_bytes *texts, size_t count, enum paramem_role role, float *out,
    struct memos_error *err);

#endif
