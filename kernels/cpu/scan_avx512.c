/* As scan.c, 16 numbers at a time and with a mask for the rest of a row. */
#include "kernels/cpu/ops.h"
#include "kernels/cpu/scan_rows.h"

#include <immintrin.h>

#define LANES 16
#define AHEAD 2048

#define INLINE static inline __attribute__((always_inline))

/* The numbers at `at` that the mask names, as floats; others are zero and not read. */
INLINE __m512 decode(enum kern_dtype dtype, const char *at, __mmask16 mask)
{
    __m256i pairs;
    __m128i bytes;
    switch (dtype) {
    case KERN_E4M3:
        bytes = _mm_maskz_loadu_epi8(mask, at);
        pairs = _mm256_slli_epi16(_mm256_cvtepu8_epi16(bytes), 8);
        pairs = _mm256_and_si256(_mm256_srai_epi16(pairs, 1), _mm256_set1_epi16((short)0xbfff));
        return _mm512_cvtph_ps(pairs);
    case KERN_E5M2:
        bytes = _mm_maskz_loadu_epi8(mask, at);
        return _mm512_cvtph_ps(_mm256_slli_epi16(_mm256_cvtepu8_epi16(bytes), 8));
    case KERN_F16:
        return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, at));
    case KERN_BF16:
        pairs = _mm256_maskz_loadu_epi16(mask, at);
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(pairs), 16));
    case KERN_I8:
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, at)));
    default:
        return _mm512_maskz_loadu_ps(mask, at);
    }
}

INLINE void dots(enum kern_dtype dtype, const char *const *rows, const size_t count, size_t k,
    const float *query, float *out)
{
    size_t bytes = kern_dtype_bytes(dtype);
    __m512 sums[SCAN_ROWS];
#pragma GCC unroll 4
    for (size_t r = 0; r < count; r++) {
        sums[r] = _mm512_setzero_ps();
    }
    for (size_t i = 0; i < k; i += LANES) {
        __mmask16 mask = (__mmask16)(k - i >= LANES ? 0xffff : (1U << (k - i)) - 1);
        __m512 q = _mm512_maskz_loadu_ps(mask, query + i);
#pragma GCC unroll 4
        for (size_t r = 0; r < count; r++) {
            _mm_prefetch(rows[r] + i * bytes + AHEAD, _MM_HINT_T0);
            sums[r] = _mm512_fmadd_ps(decode(dtype, rows[r] + i * bytes, mask), q, sums[r]);
        }
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < count; r++) {
        out[r] = _mm512_reduce_add_ps(sums[r]);
    }
}

SCAN_DOTS_TABLE(dots_of);

void kern_cpu_scan_avx512(enum kern_dtype dtype, const void *codes, const float *scales,
    const uint32_t *rows_index, size_t count, size_t k, const float *query, float *scores)
{
    scan_rows(&dots_of[dtype], dtype, codes, scales, rows_index, count, k, query, scores);
}
