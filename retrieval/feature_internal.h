/* What feature.c (the index) and feature_view.c (reading it) share. */
#ifndef RETRIEVAL_FEATURE_INTERNAL_H
#define RETRIEVAL_FEATURE_INTERNAL_H

#include "retrieval/feature.h"

#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>

#define RETRIEVAL_FEATURE_KEY_BYTES 8
#define RETRIEVAL_SESSION_KEY_BYTES 12
#define RETRIEVAL_RANGE_BYTES 8

struct retrieval_features {
    struct memcube_index index;
    const struct retrieval_statements *statements;
    memcube_table doc, session, date;

    pthread_mutex_t lock; /* Sync: guards the speakers */
    struct retrieval_speakers *speakers;
    _Atomic bool repaired;        /* a record was written over: nothing is kept in memory */
    _Atomic uint64_t erased_last; /* the last doc erased, behind its space's 32 bits: one that a
                                     repair makes anew is erased just before */
};

/* Speakers in memory (feature_speakers.c). */
void retrieval_speakers_free(struct retrieval_speakers **all);

/* Keys of feat.doc (by chunk) and feat.date (by doc). */
struct memos_bytes retrieval_feature_key(
    uint8_t out[RETRIEVAL_FEATURE_KEY_BYTES], uint32_t space, uint32_t chunk_or_doc);

struct retrieval_feature retrieval_feature_decode(const uint8_t at[RETRIEVAL_FEATURE_BYTES]);
void retrieval_feature_encode(
    const struct retrieval_feature *feature, uint8_t out[RETRIEVAL_FEATURE_BYTES]);

/* Mask, or unmask, the bytes of a doc's ranges. key: of features of the space. */
void retrieval_feature_mask(
    const uint8_t key[crypto_shorthash_KEYBYTES], uint32_t doc, uint8_t *bytes, size_t size);
void retrieval_feature_secret(const uint8_t *secret, uint8_t out[crypto_shorthash_KEYBYTES]);

#endif
