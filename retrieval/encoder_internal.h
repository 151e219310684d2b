/* What the files of the encoder share: the two sources that are made here. */
#ifndef RETRIEVAL_ENCODER_INTERNAL_H
#define RETRIEVAL_ENCODER_INTERNAL_H

#include "retrieval/encoder.h"

#include <stdatomic.h>

/* ---- hashed n-grams: encoder_ngrams.c ------------------------------------------------------- */

#define RETRIEVAL_NGRAMS_DIMS ((size_t)512)

struct retrieval_ngrams;

MEMOS_MUST_USE enum memos_status retrieval_ngrams_create(
    struct retrieval_ngrams **out_ngrams, struct memos_error *err);
void retrieval_ngrams_destroy(struct retrieval_ngrams **ngrams); /* takes NULL */

/* A unit vector, or zeros for a text without words. NO_MEMORY. */
MEMOS_MUST_USE enum memos_status retrieval_ngrams_encode(
    struct retrieval_ngrams *ngrams, struct memos_bytes text, float *out, struct memos_error *err);

/* Changes with everything that would change a vector. */
void retrieval_ngrams_fingerprint(uint8_t out[32]);

/* ---- an endpoint: encoder_endpoint.c -------------------------------------------------------- */

struct retrieval_endpoint;

/* Copies what options->endpoint points to. Asks for one vector when dims is not given. INVALID (the
 * URL, the key), what an answer can be, NO_MEMORY. */
MEMOS_MUST_USE enum memos_status retrieval_endpoint_create(
    const struct retrieval_encoder_options *options, struct retrieval_endpoint **out_endpoint,
    struct memos_error *err);
void retrieval_endpoint_destroy(struct retrieval_endpoint **endpoint); /* takes NULL */

size_t retrieval_endpoint_dims(const struct retrieval_endpoint *endpoint);

/* "model at host": for people, without anything secret. Lives as long as the endpoint. */
const char *retrieval_endpoint_name(const struct retrieval_endpoint *endpoint);
void retrieval_endpoint_fingerprint(const struct retrieval_endpoint *endpoint, uint8_t out[32]);

MEMOS_MUST_USE enum memos_status retrieval_endpoint_encode(struct retrieval_endpoint *endpoint,
    const struct memos_bytes *texts, size_t count, float *out, struct memos_error *err);

/* See retrieval_encoder_interrupt. */
void retrieval_endpoint_interrupt(struct retrieval_endpoint *endpoint);

/* ---- what is said to an endpoint, and what it says: encoder_answer.c ------------------------ */

#define RETRIEVAL_ANSWER_BYTES_MAX ((size_t)64 << 20)
#define RETRIEVAL_DIMS_MAX ((size_t)16384)

/* Append the JSON of a request for some texts. What is ill-formed UTF-8 (or a NUL) is sent as
 * U+FFFD; an empty text as a blank, since endpoints refuse empty ones. */
void retrieval_request_write(
    struct memos_buffer *out, const char *model, const struct memos_bytes *texts, size_t count);

/* Read the vectors out of the JSON of an answer for `count` texts, in the order of its indices,
 * made unit vectors: out (count, *dims). *dims 0: any dimension that fits out_floats; is set.
 * Memory is bounded by count and dims, not by the answer. CORRUPT says what is wrong with it. */
MEMOS_MUST_USE enum memos_status retrieval_answer_read(struct memos_bytes json, size_t count,
    size_t *dims, float *out, size_t out_floats, struct memos_error *err);

#endif
