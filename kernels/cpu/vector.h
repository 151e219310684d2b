/* Eight floats at a time: what several files of the cpu backend need. AVX2 and FMA. */
#ifndef KERNELS_CPU_VECTOR_H
#define KERNELS_CPU_VECTOR_H

#include <stddef.h>
#include <stdint.h>

#if defined(__AVX2__) && defined(__FMA__)

#include <immintrin.h>
#include <string.h>

/* Lanes 0..count-1 set, for maskload and maskstore; count <= 8. */
static inline __m256i vector_mask(size_t count)
{
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), lanes);
}

/* The first count <= 8 of p, zeros after them. */
static inline __m256 vector_load_part(const float *p, size_t count)
{
    return _mm256_maskload_ps(p, vector_mask(count));
}

static inline float vector_sum(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static inline int32_t vector_sum_i32(__m256i v)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

static inline float vector_max(__m256 v)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

/* *sum += v, as an instruction: of intrinsics GCC makes copies of each sum and moves between them,
 * which costs tiles of integers a tenth to a fifth of their speed. */
static inline __attribute__((always_inline)) void vector_add_i16(__m256i *sum, __m256i v)
{
    __asm__("vpaddw %1, %0, %0" : "+x"(*sum) : "x"(v));
}

static inline __attribute__((always_inline)) void vector_add_i32(__m256i *sum, __m256i v)
{
    __asm__("vpaddd %1, %0, %0" : "+x"(*sum) : "x"(v));
}

static inline __m256 vector_abs(__m256 v)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0F), v);
}

/* Rounded to bf16, to nearest even, in the upper halves. NaN keeps its upper half, made quiet. */
static inline __m256i vector_round_bf16(__m256 v)
{
    __m256i bits = _mm256_castps_si256(v);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    __m256 nan = _mm256_cmp_ps(v, v, _CMP_UNORD_Q);
    return _mm256_and_si256(_mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(nan)),
        _mm256_set1_epi32((int)0xffff0000));
}

/* The upper halves of eight words. */
static inline __m128i vector_upper_halves(__m256i words)
{
    words = _mm256_srli_epi32(words, 16);
    words = _mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), 0xd8);
    return _mm256_castsi256_si128(words);
}

/* The first count (8 or more: eight) bf16 of p as floats, zeros after them; and back, rounded. */
static inline __m256 vector_load_bf16(const uint16_t *p, size_t count)
{
    uint16_t part[8] = {0};
    if (count < 8) {
        memcpy(part, p, count * sizeof *p);
    }
    __m128i codes = _mm_loadu_si128((const __m128i *)(const void *)(count < 8 ? part : p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(codes), 16));
}

static inline void vector_store_bf16(uint16_t *p, size_t count, __m256 v)
{
    uint16_t part[8];
    __m128i codes = vector_upper_halves(vector_round_bf16(v));
    _mm_storeu_si128((__m128i *)(void *)(count < 8 ? part : p), codes);
    if (count < 8) {
        memcpy(p, part, count * sizeof *p);
    }
}

/* e^x to 2 units in the last place. Below -87.3 it is e^-87.3, which is nothing (1e-38); above 88.7
 * e^88.7. NaN stays NaN.
 *
 * x = n ln 2 + r with |r| <= ln 2 / 2, ln 2 in two parts so that r is exact; e^r by the polynomial
 * of Cephes (Moshier, expf.c); 2^n by adding n to the exponent. */
static inline __m256 vector_exp(__m256 x)
{
    /* min and max give their second operand when one is NaN. */
    x = _mm256_max_ps(_mm256_set1_ps(-87.3F), _mm256_min_ps(_mm256_set1_ps(88.37F), x));
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504F)),
        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375F), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4F), r);
    __m256 p = _mm256_set1_ps(1.9875691500e-4F);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3F));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3F));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2F));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1F));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1F));
    p = _mm256_fmadd_ps(p, _mm256_mul_ps(r, r), _mm256_add_ps(r, _mm256_set1_ps(1.0F)));
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23)));
}

/* x/2 (1 + erf(x / sqrt 2)) to 5e-7. For z = |x| / sqrt 2, 1 - erf(z) = t p(t) e^(-z z) with
 * t = 1 / (1 + 0.3275911 z): Abramowitz and Stegun, 7.1.26 (1964), error 1.5e-7. */
static inline __m256 vector_gelu(__m256 x)
{
    const __m256 one = _mm256_set1_ps(1.0F);
    __m256 size = vector_abs(x);
    __m256 z = _mm256_mul_ps(size, _mm256_set1_ps(0.70710678F));
    __m256 t = _mm256_div_ps(one, _mm256_fmadd_ps(z, _mm256_set1_ps(0.3275911F), one));
    __m256 p = _mm256_set1_ps(1.061405429F);
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(-1.453152027F));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(1.421413741F));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(-0.284496736F));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0.254829592F));
    __m256 rest = _mm256_mul_ps(
        _mm256_mul_ps(p, t), vector_exp(_mm256_mul_ps(_mm256_set1_ps(-0.5F), _mm256_mul_ps(x, x))));
    /* x >= 0: x - |x|/2 rest; x < 0: -|x|/2 rest. */
    __m256 half = _mm256_mul_ps(_mm256_mul_ps(size, _mm256_set1_ps(0.5F)), rest);
    return _mm256_sub_ps(_mm256_max_ps(_mm256_setzero_ps(), x), half);
}

/* x / (1 + e^-x) */
static inline __m256 vector_silu(__m256 x)
{
    __m256 e = vector_exp(_mm256_sub_ps(_mm256_setzero_ps(), x));
    return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0F), e));
}

/* x/2 (1 + tanh u) = x / (1 + e^(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3) */
static inline __m256 vector_gelu_tanh(__m256 x)
{
    __m256 cubic =
        _mm256_fmadd_ps(_mm256_mul_ps(x, x), _mm256_set1_ps(0.044715F), _mm256_set1_ps(1.0F));
    __m256 u = _mm256_mul_ps(_mm256_mul_ps(x, cubic), _mm256_set1_ps(-1.59576912F));
    return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0F), vector_exp(u)));
}

#endif

#endif
