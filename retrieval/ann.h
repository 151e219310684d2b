/* Approximate nearest neighbours, by FAISS through its C API.
 *
 * An index holds unit vectors under 64-bit labels (the rows of a table in memory, vectors.h) and is
 * searched by inner product. It is built from vectors, added to, saved to one file and loaded from
 * it; the file carries what it was built from and a hash, so that a damaged or foreign file is
 * refused (CORRUPT, CONFLICT) and the index is built anew.
 *
 * Threads: an index may be searched by many threads while nobody changes it.
 *
 * Sources: Malkov and Yashunin, arXiv 1603.09320 (HNSW); Jegou et al., 2011 (IVF, PQ); Douze et
 * al., arXiv 2401.08281 (FAISS). */
#ifndef RETRIEVAL_ANN_H
#define RETRIEVAL_ANN_H

#include "proto/bytes.h"

enum retrieval_ann_type {
    RETRIEVAL_ANN_AUTO, /* by the number of vectors */
    RETRIEVAL_ANN_FLAT,
    RETRIEVAL_ANN_HNSW,
    RETRIEVAL_ANN_IVF_FLAT,
    RETRIEVAL_ANN_IVF_SQ8,
    RETRIEVAL_ANN_IVF_PQ,
};
const char *retrieval_ann_type_name(enum retrieval_ann_type type); /* "hnsw"; static */
enum retrieval_ann_type retrieval_ann_type_of(struct memos_bytes name, bool *out_known);

struct retrieval_ann;

/* Called now and then while building; false stops with CANCELLED. May be NULL. */
typedef bool retrieval_ann_progress_fn(void *self, uint64_t done, uint64_t total);

struct retrieval_ann_build {
    enum retrieval_ann_type type;
    size_t dims;
    uint64_t count; /* vectors: labels are 0 .. count - 1 */
    /* Decode vectors [first, first + count) into out (count, dims). */
    void (*vectors)(void *self, uint64_t first, size_t count, float *out);
    void *self;
    retrieval_ann_progress_fn *progress;
    void *progress_self;
};
MEMOS_MUST_USE enum memos_status retrieval_ann_build(const struct retrieval_ann_build *build,
    struct retrieval_ann **out_ann, struct memos_error *err);
void retrieval_ann_free(struct retrieval_ann **ann); /* takes NULL */

uint64_t retrieval_ann_count(const struct retrieval_ann *ann);
uint64_t retrieval_ann_bytes(const struct retrieval_ann *ann);       /* in memory, about */
const char *retrieval_ann_describe(const struct retrieval_ann *ann); /* "IVF1024,SQ8 nprobe 32" */

/* Add vectors (count, dims) under the next labels. */
MEMOS_MUST_USE enum memos_status retrieval_ann_add(
    struct retrieval_ann *ann, const float *vectors, size_t count, struct memos_error *err);

/* The top_k labels whose bit is set in `wanted` (bit l of wanted[l / 64], labels from wanted_bits
 * on count as not wanted; NULL: all), best first. Fewer when fewer are found. */
MEMOS_MUST_USE enum memos_status retrieval_ann_search(const struct retrieval_ann *ann,
    const float *query, const uint64_t *wanted, uint64_t wanted_bits, size_t top_k,
    int64_t *out_labels, float *out_scores, size_t *out_count, struct memos_error *err);

/* Written whole or not at all (a temporary file, synced and renamed). `tag` (32 bytes) says what it
 * was built from; load refuses another one with CONFLICT. NO_SPACE, IO. */
MEMOS_MUST_USE enum memos_status retrieval_ann_save(const struct retrieval_ann *ann,
    const char *path, const uint8_t tag[32], struct memos_error *err);
MEMOS_MUST_USE enum memos_status retrieval_ann_load(const char *path, const uint8_t tag[32],
    struct retrieval_ann **out_ann, struct memos_error *err);

#endif
