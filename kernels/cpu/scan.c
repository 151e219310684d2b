/* A query against rows of codes: as fast as memory gives them.
 *
 * Rows go four at a time, so that each piece of the query is loaded once for four rows, and their
 * additions do not wait for each other. A row has two sums, of its even and its odd eights,
 * wherever it lies among the others: what it gives does not depend on them.
 *
 * float8 e4m3 has the exponent's bias 7 where float16 has 15: as bits, its magnitude shifted left
 * by 7 is the float16 of the same value times 2^-8, subnormal numbers included. e5m2 is the upper
 * half of a float16. */
#include "kernels/cpu/ops.h"
#include "kernels/cpu/scan_rows.h"
#include "kernels/cpu/vector.h"

#include <string.h>

#define STEP 32 /* numbers at a time */
#define AHEAD 2048

#define INLINE static inline __attribute__((always_inline))

/* STEP numbers as floats. */
INLINE void decode_halves(__m256i low, __m256i high, __m256 out[4])
{
    out[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(low));
    out[1] = _mm256_cvtph_ps(_mm256_castsi256_si128(high));
    out[2] = _mm256_cvtph_ps(_mm256_extracti128_si256(low, 1));
    out[3] = _mm256_cvtph_ps(_mm256_extracti128_si256(high, 1));
}

INLINE void decode(enum kern_dtype dtype, const char *at, __m256 out[4])
{
    const __m256i zero = _mm256_setzero_si256(), clear = _mm256_set1_epi16((short)0xbfff);
    __m256i codes, low, high;
    switch (dtype) {
    case KERN_E4M3:
    case KERN_E5M2:
        codes = _mm256_loadu_si256((const __m256i *)at);
        low = _mm256_unpacklo_epi8(zero, codes);
        high = _mm256_unpackhi_epi8(zero, codes);
        if (dtype == KERN_E4M3) { /* the sign is doubled by the shift, and its copy cleared */
            low = _mm256_and_si256(_mm256_srai_epi16(low, 1), clear);
            high = _mm256_and_si256(_mm256_srai_epi16(high, 1), clear);
        }
        decode_halves(low, high, out);
        break;
    case KERN_F16:
        for (int i = 0; i < 4; i++) {
            out[i] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(at + (ptrdiff_t)16 * i)));
        }
        break;
    case KERN_BF16:
        for (int i = 0; i < 4; i++) {
            __m128i pair = _mm_loadu_si128((const __m128i *)(at + (ptrdiff_t)16 * i));
            out[i] = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(pair), 16));
        }
        break;
    case KERN_I8:
        for (int i = 0; i < 4; i++) {
            __m128i eight = _mm_loadl_epi64((const __m128i *)(at + (ptrdiff_t)8 * i));
            out[i] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight));
        }
        break;
    default: /* F32 */
        for (int i = 0; i < 4; i++) {
            out[i] = _mm256_loadu_ps((const float *)at + (ptrdiff_t)8 * i);
        }
        break;
    }
}

INLINE void dot_step(enum kern_dtype dtype, const char *const *rows, const size_t count, size_t at,
    const float *query, __m256 sums[SCAN_ROWS][2])
{
#pragma GCC unroll 4
    for (size_t r = 0; r < count; r++) {
        __m256 v[4];
        decode(dtype, rows[r] + at, v);
        sums[r][0] = _mm256_fmadd_ps(v[0], _mm256_loadu_ps(query), sums[r][0]);
        sums[r][1] = _mm256_fmadd_ps(v[1], _mm256_loadu_ps(query + 8), sums[r][1]);
        sums[r][0] = _mm256_fmadd_ps(v[2], _mm256_loadu_ps(query + 16), sums[r][0]);
        sums[r][1] = _mm256_fmadd_ps(v[3], _mm256_loadu_ps(query + 24), sums[r][1]);
    }
}

/* `count` dots; rows are read as far as they go and no further. */
INLINE void dots(enum kern_dtype dtype, const char *const *rows, const size_t count, size_t k,
    const float *query, float *out)
{
    size_t bytes = kern_dtype_bytes(dtype), i = 0;
    __m256 sums[SCAN_ROWS][2];
#pragma GCC unroll 4
    for (size_t r = 0; r < count; r++) {
        sums[r][0] = sums[r][1] = _mm256_setzero_ps();
    }
    for (; i + STEP <= k; i += STEP) {
#pragma GCC unroll 4
        for (size_t r = 0; r < count; r++) {
            _mm_prefetch(rows[r] + i * bytes + AHEAD, _MM_HINT_T0);
        }
        dot_step(dtype, rows, count, i * bytes, query + i, sums);
    }
    if (i < k) {
        char rests[SCAN_ROWS][STEP * sizeof(float)] = {{0}};
        const char *at[SCAN_ROWS];
        float rest[STEP] = {0};
        memcpy(rest, query + i, (k - i) * sizeof *rest);
        for (size_t r = 0; r < count; r++) {
            memcpy(rests[r], rows[r] + i * bytes, (k - i) * bytes);
            at[r] = rests[r];
        }
        dot_step(dtype, at, count, 0, rest, sums);
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < count; r++) {
        out[r] = vector_sum(_mm256_add_ps(sums[r][0], sums[r][1]));
    }
}

SCAN_DOTS_TABLE(dots_of);

void kern_cpu_scan(enum kern_dtype dtype, const void *codes, const float *scales,
    const uint32_t *rows_index, size_t count, size_t k, const float *query, float *scores)
{
    scan_rows(&dots_of[dtype], dtype, codes, scales, rows_index, count, k, query, scores);
}
