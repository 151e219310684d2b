/* The inner loops of attention for AVX2: codes to floats, queries by keys, weights by values.
 *
 * A product of a query and a key is eight sums, of every eighth number, which are added in the same
 * order wherever the two lie in a tile; a sum of weighted values goes through the keys in order.
 * So tiles may have any height without changing a bit. */
#include "kernels/cpu/ops.h"
#include "kernels/cpu/vector.h"

#define INLINE static inline __attribute__((always_inline))

/* ---- codes --------------------------------------------------------------------------------- */

static void decode_f16(const char *from, float *to, size_t count)
{
    for (size_t i = 0; i < count; i += 8) {
        __m128i codes = _mm_loadu_si128((const __m128i *)(from + 2 * i));
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(codes));
    }
}

static void decode_bf16(const char *from, float *to, size_t count)
{
    for (size_t i = 0; i < count; i += 8) {
        __m128i codes = _mm_loadu_si128((const __m128i *)(from + 2 * i));
        __m256i wide = _mm256_slli_epi32(_mm256_cvtepu16_epi32(codes), 16);
        _mm256_storeu_ps(to + i, _mm256_castsi256_ps(wide));
    }
}

/* The magnitude's bits shifted left by 7 are the float16 of the number over 256 (see scan.c). */
static void decode_e4m3(const char *from, float *to, size_t count)
{
    const __m128i clear = _mm_set1_epi16((short)0xbfff);
    for (size_t i = 0; i < count; i += 8) {
        __m128i codes = _mm_loadl_epi64((const __m128i *)(from + i));
        codes = _mm_srai_epi16(_mm_unpacklo_epi8(_mm_setzero_si128(), codes), 1);
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_and_si128(codes, clear)));
    }
}

static void decode(enum kern_dtype dtype, const char *from, float *to, size_t count)
{
    switch (dtype) {
    case KERN_F16:
        decode_f16(from, to, count);
        break;
    case KERN_BF16:
        decode_bf16(from, to, count);
        break;
    default:
        decode_e4m3(from, to, count);
        break;
    }
}

/* ---- queries by keys ----------------------------------------------------------------------- */

/* The sums of four vectors, each ((0 + 2) + (1 + 3)) + ((4 + 6) + (5 + 7)). */
INLINE __m128 sums_of(__m256 a, __m256 b, __m256 c, __m256 d)
{
    __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    __m256 all = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
    return _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
}

#define QUERIES 3

/* `rows` queries by `count` (a multiple of 4) keys. */
INLINE void dots_tile(
    const float *q, const size_t rows, size_t d, const float *keys, const size_t count, float *out)
{
    __m256 sums[QUERIES][8];
#pragma GCC unroll 3
    for (size_t r = 0; r < rows; r++) {
#pragma GCC unroll 8
        for (size_t j = 0; j < count; j++) {
            sums[r][j] = _mm256_setzero_ps();
        }
    }
    for (size_t i = 0; i < d; i += 8) {
        __m256 v[QUERIES];
#pragma GCC unroll 3
        for (size_t r = 0; r < rows; r++) {
            v[r] = _mm256_loadu_ps(q + r * d + i);
        }
#pragma GCC unroll 8
        for (size_t j = 0; j < count; j++) {
            __m256 key = _mm256_loadu_ps(keys + j * d + i);
#pragma GCC unroll 3
            for (size_t r = 0; r < rows; r++) {
                sums[r][j] = _mm256_fmadd_ps(v[r], key, sums[r][j]);
            }
        }
    }
#pragma GCC unroll 3
    for (size_t r = 0; r < rows; r++) {
#pragma GCC unroll 2
        for (size_t j = 0; j < count; j += 4) {
            _mm_storeu_ps(out + r * KERN_SCORES + j,
                sums_of(sums[r][j], sums[r][j + 1], sums[r][j + 2], sums[r][j + 3]));
        }
    }
}

static void dots(const struct kern_dots *a)
{
    size_t line = 4 * a->ahead_bytes; /* of four keys */
    for (size_t j = 0; j < KERN_PAGE_TOKENS && j < a->count; j += 4) {
        const float *keys = a->keys + j * a->d;
        float *out = a->scores + j;
        size_t row = 0;
        for (size_t i = 0; i < line; i += 64) {
            _mm_prefetch(a->ahead + j * a->ahead_bytes + i, _MM_HINT_T0);
        }
        for (; row + 3 <= a->rows && a->rows - row != 4; row += 3) {
            dots_tile(a->queries + row * a->d, 3, a->d, keys, 4, out + row * KERN_SCORES);
        }
        for (; row + 2 <= a->rows; row += 2) {
            dots_tile(a->queries + row * a->d, 2, a->d, keys, 4, out + row * KERN_SCORES);
        }
        if (row < a->rows) {
            dots_tile(a->queries + row * a->d, 1, a->d, keys, 4, out + row * KERN_SCORES);
        }
    }
}

/* ---- weights by values --------------------------------------------------------------------- */

#define ROWS 6

/* out (rows, 8 wide) += weights (rows, count) . values (count, 8 wide), each `d` apart. */
INLINE void mix_tile(
    const struct kern_mix *a, size_t row, const size_t rows, size_t column, const size_t wide)
{
    const size_t d = a->d, line = a->ahead_line;
    const char *ahead = a->ahead + column / 16 * KERN_PAGE_TOKENS * line;
    float *out = a->out + row * d + column;
    __m256 sums[ROWS][2];
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++) {
#pragma GCC unroll 2
        for (size_t i = 0; i < wide; i++) {
            sums[r][i] = _mm256_loadu_ps(out + r * d + 8 * i);
        }
    }
    for (size_t page = 0; page < a->pages_count; page++) {
        const float *values = a->pages[page] + column;
        const float *weights = a->weights + row * KERN_SCORES + page * KERN_PAGE_TOKENS;
        size_t left = a->count - page * KERN_PAGE_TOKENS;
        const float *end = weights + (left < KERN_PAGE_TOKENS ? left : KERN_PAGE_TOKENS);
        for (const char *soon = ahead; weights < end; weights++, values += d, soon += line) {
            __m256 v[2];
            _mm_prefetch(soon, _MM_HINT_T0);
#pragma GCC unroll 2
            for (size_t i = 0; i < wide; i++) {
                v[i] = _mm256_loadu_ps(values + 8 * i);
            }
#pragma GCC unroll 6
            for (size_t r = 0; r < rows; r++) {
                __m256 weight = _mm256_broadcast_ss(weights + r * KERN_SCORES);
#pragma GCC unroll 2
                for (size_t i = 0; i < wide; i++) {
                    sums[r][i] = _mm256_fmadd_ps(weight, v[i], sums[r][i]);
                }
            }
        }
    }
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++) {
#pragma GCC unroll 2
        for (size_t i = 0; i < wide; i++) {
            _mm256_storeu_ps(out + r * d + 8 * i, sums[r][i]);
        }
    }
}

INLINE void mix_strip(
    const struct kern_mix *a, size_t row, size_t rows, size_t column, const size_t wide)
{
    switch (rows) {
    case 1:
        mix_tile(a, row, 1, column, wide);
        break;
    case 2:
        mix_tile(a, row, 2, column, wide);
        break;
    case 3:
        mix_tile(a, row, 3, column, wide);
        break;
    case 4:
        mix_tile(a, row, 4, column, wide);
        break;
    case 5:
        mix_tile(a, row, 5, column, wide);
        break;
    default:
        mix_tile(a, row, ROWS, column, wide);
        break;
    }
}

/* A strip of values stays in the first cache while all rows pass. */
static void mix(const struct kern_mix *a)
{
    size_t tiles = (a->rows + ROWS - 1) / ROWS;
    for (size_t column = 0; column < a->d; column += 16) {
        for (size_t tile = 0, row = 0, rows; tile < tiles; tile++, row += rows) {
            rows = (a->rows - row) / (tiles - tile); /* of even height */
            if (column + 16 <= a->d) {
                mix_strip(a, row, rows, column, 2);
            } else {
                mix_strip(a, row, rows, column, 1);
            }
        }
    }
}

const struct kern_attention_tiles kern_cpu_attention_avx2 = {decode, dots, mix};
