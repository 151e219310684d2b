/* A store with a vector index, and an encoder that is as simple as can be: a text's vector is drawn
 * from a generator that its bytes seed. What cannot be done fails the test. */
#ifndef TESTS_RETRIEVAL_VECTORS_FIXTURE_H
#define TESTS_RETRIEVAL_VECTORS_FIXTURE_H

#include "retrieval/vectors.h"
#include "tests/memcube/store_fixture.h"

enum { VECTORS_DIMS = 32 };

struct vectors_fixture {
    struct fixture f; /* first: its words serve here, too */
    struct retrieval_vectors *vectors;
    struct retrieval_vectors_options options;
    struct memcube_index *indexes[1];
    uint8_t fingerprint[32];
    char folder[FOLDER_PATH_BYTES + 16]; /* for approximate indexes: PATH/vectors */
};

/* A new store whose active encoder has the fingerprint 1 1 1 ...; options->folder is set when
 * with_folder. */
void vectors_make(
    struct vectors_fixture *v, const struct retrieval_vectors_options *options, bool with_folder);
void vectors_drop(struct vectors_fixture *v);
void vectors_close(struct vectors_fixture *v);
void vectors_open(struct vectors_fixture *v);
void vectors_reopen(struct vectors_fixture *v);

/* Make the encoder with the fingerprint n n n ... active. */
void vectors_activate(struct vectors_fixture *v, uint8_t n, size_t dims);

/* The unit vector of a text (dims) by an encoder; nearby: of texts that begin alike ("river 1",
 * "river 2": up to the last space) the vectors are near each other. */
void vectors_encode(
    const uint8_t fingerprint[32], struct memos_bytes text, size_t dims, float *out);
/* Of all spans; the caller frees. */
float *vectors_encode_spans(
    const uint8_t fingerprint[32], const struct retrieval_spans *spans, size_t dims);

/* Offer what a draft's text comes to. */
void vectors_offer(struct vectors_fixture *v, const struct memcube_draft *draft);
/* Put a text, its vectors offered or not. */
struct memcube_ref vectors_put(
    struct vectors_fixture *v, const char *space, const char *text, bool offered);
/* Do what is on the list, count_max docs at most; returns how many were on it. */
uint64_t vectors_fill(struct vectors_fixture *v, size_t count_max);
uint64_t vectors_due_total(struct vectors_fixture *v);

/* The nearest docs to a text. */
struct vectors_found {
    struct retrieval_vector_hit hits[64];
    size_t count;
    uint32_t missing, wanted;
};
struct vectors_found vectors_search(struct vectors_fixture *v, const char *space, const char *text,
    const struct memcube_filter *filter, const struct memcube_as_of *as_of, size_t top_k);
/* In a snapshot of the caller's own. */
struct vectors_found vectors_search_in(struct vectors_fixture *v, struct memcube_read *read,
    const char *space, const char *text, const struct memcube_filter *filter,
    const struct memcube_as_of *as_of, size_t top_k);
bool vectors_among(const struct vectors_found *found, uint32_t doc);

struct retrieval_vectors_stats vectors_stats(struct vectors_fixture *v);

#endif
