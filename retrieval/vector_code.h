/* Codes of unit vectors: fewer bytes for a vector, one float32 scale beside them.
 *
 * The vector is about scale times the codes. Components of a unit vector of 384 dims are about
 * 0.05, and e4m3 loses bits below 2^-6 (0.0156), so a vector is multiplied before it is rounded: so
 * that its largest component becomes the largest value of the code, which is then exact where it
 * counts most. The scale makes the decoded vector as long as the vector was, so that the cosine
 * with itself is near 1 whatever was rounded. README.md says what other choices lose.
 *
 *   dtype   bytes of 384 dims    scaled by                  scale
 *   F32     1536                 nothing                    1
 *   F16     768                  nothing                    1
 *   BF16    768                  nothing                    1
 *   E4M3    384                  448 / largest component    keeps the length
 *   E5M2    384                  57344 / largest component  keeps the length
 *   I8      384                  127 / largest component    keeps the length
 *
 * A vector of zeros has codes of zeros and scale 0.
 *
 * Threads: no state.
 *
 * Sources: Micikevicius et al., arXiv 2209.05433 (the formats); Huerga-Perez et al., arXiv
 * 2505.00105 (float8 for stored embeddings). */
#ifndef RETRIEVAL_VECTOR_CODE_H
#define RETRIEVAL_VECTOR_CODE_H

#include "kernels/kern.h"

/* Bytes of the codes of one vector. */
static inline size_t retrieval_code_bytes(enum kern_dtype dtype, size_t dims)
{
    return kern_dtype_bytes(dtype) * dims;
}

/* Write the codes of a vector of finite values (dims); returns the scale. */
float retrieval_code_encode(
    enum kern_dtype dtype, const float *vector, size_t dims, void *out_codes);

/* out[i] = scale * codes[i]. */
void retrieval_code_decode(
    enum kern_dtype dtype, const void *codes, float scale, size_t dims, float *out);

/* ---- int8 with a range for each dimension: for evaluation only ------------------------------- */

/* The largest magnitude of each dimension over a sample (count, dims): int8 codes of a dimension
 * then stand for steps of ranges[i] / 127. Better than one range per vector only when dimensions
 * differ much and the sample speaks for what comes. */
void retrieval_ranges_fit(const float *sample, size_t count, size_t dims, float *out_ranges);
void retrieval_ranges_encode(
    const float *ranges, const float *vector, size_t dims, int8_t *out_codes);
/* The query that gives, by kern_scan without scales, the products with the vectors. */
void retrieval_ranges_query(const float *ranges, const float *query, size_t dims, float *out);

#endif
