/* int8 codes of floats, in the same arithmetic as ref's: the largest magnitude is 127. AVX2. */
#ifndef KERNELS_CPU_CODES_H
#define KERNELS_CPU_CODES_H

#include "kernels/cpu/vector.h"

#if defined(__AVX2__) && defined(__FMA__)

/* The largest magnitude of k numbers. NaN counts as nothing. */
static inline float codes_most(const float *x, size_t k)
{
    __m256 most = _mm256_setzero_ps();
    for (size_t i = 0; i < k; i += 8) {
        __m256 v = k - i >= 8 ? _mm256_loadu_ps(x + i) : vector_load_part(x + i, k - i);
        most = _mm256_max_ps(vector_abs(v), most);
    }
    return vector_max(most);
}

/* What numbers are multiplied with to become codes. */
static inline float codes_factor(float most)
{
    return most > 0 ? 127.0F / most : 0;
}

/* Codes of eight numbers, -127..127, 32 bits each. */
static inline __m256i codes_of(__m256 v, __m256 factor)
{
    __m256i code = _mm256_cvtps_epi32(_mm256_mul_ps(v, factor));
    code = _mm256_max_epi32(code, _mm256_set1_epi32(-127));
    return _mm256_min_epi32(code, _mm256_set1_epi32(127));
}

/* Eight codes of 32 bits as 16 bits, in order. */
static inline __m128i codes_words(__m256i codes)
{
    return _mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packs_epi32(codes, codes), 0xd8));
}

/* As bytes, in the lower half. */
static inline __m128i codes_bytes(__m256i codes)
{
    __m128i words = codes_words(codes);
    return _mm_packs_epi16(words, words);
}

#endif

#endif
