/* Fewer dims for vectors: centred principal components of a sample.
 *
 * y = P (x - mean), P the kept eigenvectors of the sample's covariance with the largest variance;
 * then y is made a unit vector again, since what stores and searches vectors compares cosines. Half
 * of the dims with float8 codes (vector_code.h) is an eighth of float32.
 *
 * The same map must be applied to documents and questions, and its vectors must never be compared
 * with those of the encoder behind it or of another fit: retrieval_pca_fingerprint names them.
 *
 * Threads: one that is made may be shared. Fitting runs OpenBLAS on as many threads as that is set
 * to.
 *
 * Sources: Huerga-Perez et al., arXiv 2505.00105 (PCA to half of the dims, then float8, loses less
 * than int8 of all dims). */
#ifndef RETRIEVAL_PCA_H
#define RETRIEVAL_PCA_H

#include "proto/bytes.h"

struct retrieval_pca;

/* Fit to a sample (count, dims) of vectors; keep 1..dims components. INVALID: fewer vectors than
 * components plus one, values that are not finite, or dims above 4096. NO_MEMORY; INTERNAL (the
 * eigenvalue solver gave up). */
MEMOS_MUST_USE enum memos_status retrieval_pca_fit(const float *sample, size_t count, size_t dims,
    size_t kept, struct retrieval_pca **out_pca, struct memos_error *err);
void retrieval_pca_free(struct retrieval_pca **pca); /* takes NULL */

size_t retrieval_pca_dims(const struct retrieval_pca *pca);
size_t retrieval_pca_kept(const struct retrieval_pca *pca);
/* The part of the sample's variance that the kept components have, 0..1. */
float retrieval_pca_explained(const struct retrieval_pca *pca);

/* Vectors (count, dims) to unit vectors (count, kept). One that is the mean itself gives zeros. */
void retrieval_pca_apply(
    const struct retrieval_pca *pca, const float *vectors, size_t count, float *out);
/* One vector: without making it a unit vector, and back (what was not kept is lost). */
void retrieval_pca_project(const struct retrieval_pca *pca, const float *vector, float *out);
void retrieval_pca_unproject(const struct retrieval_pca *pca, const float *projected, float *out);

/* What vectors of this map over this encoder are named by. */
void retrieval_pca_fingerprint(
    const struct retrieval_pca *pca, const uint8_t encoder[32], uint8_t out[32]);

/* As bytes, integers and floats little-endian: "memospca", version u32 (1), dims u32, kept u32,
 * explained f32, mean f32 (dims), components f32 (kept, dims), BLAKE2b-256 of all before. Load:
 * CORRUPT, UNSUPPORTED (another version), NO_MEMORY. */
MEMOS_MUST_USE enum memos_status retrieval_pca_save(
    const struct retrieval_pca *pca, struct memos_buffer *out, struct memos_error *err);
MEMOS_MUST_USE enum memos_status retrieval_pca_load(
    struct memos_bytes bytes, struct retrieval_pca **out_pca, struct memos_error *err);

#endif
