/* Tiles of AVX2: up to six rows by one panel, which is twelve sums, two registers of W and one of
 * x.
 *
 * The heights are compiled one by one, so that the sums are registers. */
#include "kernels/cpu/ops.h"
#include "kernels/cpu/vector.h"

#include <immintrin.h>
#include <string.h>

#define ROWS 6
#define AHEAD 2048 /* bytes of W that are asked for early; a panel is read once from far away */

#define INLINE static inline __attribute__((always_inline))

INLINE void tile_f32(const struct kern_tile *t, const size_t rows)
{
    const float *w = t->w;
    const char *x = t->x;
    float *out = t->sums;
    __m256 sums[ROWS][2];
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++) {
        sums[r][0] = t->add ? _mm256_load_ps(out + r * KERN_TILE_COLUMNS) : _mm256_setzero_ps();
        sums[r][1] = t->add ? _mm256_load_ps(out + r * KERN_TILE_COLUMNS + 8) : _mm256_setzero_ps();
    }
    for (size_t k = 0; k < t->k; k++, w += KERN_PANEL) {
        __m256 left = _mm256_load_ps(w), right = _mm256_load_ps(w + 8);
        _mm_prefetch((const char *)w + AHEAD, _MM_HINT_T0);
#pragma GCC unroll 6
        for (size_t r = 0; r < rows; r++) {
            __m256 v = _mm256_broadcast_ss((const float *)(x + r * t->x_bytes) + k);
            sums[r][0] = _mm256_fmadd_ps(v, left, sums[r][0]);
            sums[r][1] = _mm256_fmadd_ps(v, right, sums[r][1]);
        }
    }
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++) {
        _mm256_store_ps(out + r * KERN_TILE_COLUMNS, sums[r][0]);
        _mm256_store_ps(out + r * KERN_TILE_COLUMNS + 8, sums[r][1]);
    }
}

/* Between zeros, bf16 are float32. Unpacking works in halves of a register, so that the sums are of
 * columns 0-3, 8-11 and 4-7, 12-15 until they are stored. */
INLINE void tile_bf16(const struct kern_tile *t, const size_t rows)
{
    const __m256i zero = _mm256_setzero_si256();
    const char *x = t->x, *w = t->w;
    float *out = t->sums;
    __m256 sums[ROWS][2];
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++) {
        sums[r][0] = sums[r][1] = _mm256_setzero_ps();
        if (t->add) {
            __m256 left = _mm256_load_ps(out + r * KERN_TILE_COLUMNS);
            __m256 right = _mm256_load_ps(out + r * KERN_TILE_COLUMNS + 8);
            sums[r][0] = _mm256_permute2f128_ps(left, right, 0x20);
            sums[r][1] = _mm256_permute2f128_ps(left, right, 0x31);
        }
    }
    for (size_t k = 0; k < t->k; k++, w += 2 * KERN_PANEL) {
        __m256i both = _mm256_load_si256((const __m256i *)w);
        __m256 left = _mm256_castsi256_ps(_mm256_unpacklo_epi16(zero, both));
        __m256 right = _mm256_castsi256_ps(_mm256_unpackhi_epi16(zero, both));
        _mm_prefetch(w + AHEAD, _MM_HINT_T0);
#pragma GCC unroll 6
        for (size_t r = 0; r < rows; r++) {
            __m256 v = _mm256_broadcast_ss((const float *)(x + r * t->x_bytes) + k);
            sums[r][0] = _mm256_fmadd_ps(v, left, sums[r][0]);
            sums[r][1] = _mm256_fmadd_ps(v, right, sums[r][1]);
        }
    }
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++) {
        _mm256_store_ps(
            out + r * KERN_TILE_COLUMNS, _mm256_permute2f128_ps(sums[r][0], sums[r][1], 0x20));
        _mm256_store_ps(
            out + r * KERN_TILE_COLUMNS + 8, _mm256_permute2f128_ps(sums[r][0], sums[r][1], 0x31));
    }
}

/* Codes are widened to 16 bits: vpmaddubsw would be one instruction less, but adds pairs of
 * products in 16 bits, and vpmaddwd takes as many additions as it saves widenings. */
INLINE void tile_i8(const struct kern_tile *t, const size_t rows)
{
    const char *x = t->x, *w = t->w;
    int32_t *out = t->sums;
    __m256i sums[ROWS][2];
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++) {
        const __m256i *from = (const __m256i *)(out + r * KERN_TILE_COLUMNS);
        sums[r][0] = t->add ? _mm256_load_si256(from) : _mm256_setzero_si256();
        sums[r][1] = t->add ? _mm256_load_si256(from + 1) : _mm256_setzero_si256();
    }
    for (size_t k = 0; k < t->k; k += 2, w += 2 * KERN_PANEL) {
        __m256i left = _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)w));
        __m256i right = _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)(w + 16)));
        _mm_prefetch(w + AHEAD, _MM_HINT_T0);
#pragma GCC unroll 6
        for (size_t r = 0; r < rows; r++) {
            int32_t pair;
            memcpy(&pair, x + r * t->x_bytes + 2 * k, sizeof pair);
            __m256i v = _mm256_set1_epi32(pair);
            vector_add_i32(&sums[r][0], _mm256_madd_epi16(v, left));
            vector_add_i32(&sums[r][1], _mm256_madd_epi16(v, right));
        }
    }
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++) {
        _mm256_store_si256((__m256i *)(out + r * KERN_TILE_COLUMNS), sums[r][0]);
        _mm256_store_si256((__m256i *)(out + r * KERN_TILE_COLUMNS + 8), sums[r][1]);
    }
}

/* One function a type, whose heights are compiled apart. */
#define TILES(name)                                                                                \
    static void name##_run(const struct kern_tile *tile)                                           \
    {                                                                                              \
        switch (tile->rows) {                                                                      \
        case 1:                                                                                    \
            name(tile, 1);                                                                         \
            break;                                                                                 \
        case 2:                                                                                    \
            name(tile, 2);                                                                         \
            break;                                                                                 \
        case 3:                                                                                    \
            name(tile, 3);                                                                         \
            break;                                                                                 \
        case 4:                                                                                    \
            name(tile, 4);                                                                         \
            break;                                                                                 \
        case 5:                                                                                    \
            name(tile, 5);                                                                         \
            break;                                                                                 \
        default:                                                                                   \
            name(tile, ROWS);                                                                      \
            break;                                                                                 \
        }                                                                                          \
    }

TILES(tile_f32)
TILES(tile_bf16)
TILES(tile_i8)

const struct kern_tiles kern_cpu_f32_avx2 = {
    .run = tile_f32_run,
    .form = KERN_FORM_PLAIN,
    .layout = {KERN_PANEL, 1, 1},
    .rows_max = ROWS,
    .panels_max = 1,
    .block_rows = 96,
    .block_bytes = 192 << 10,
};
const struct kern_tiles kern_cpu_bf16_avx2 = {
    .run = tile_bf16_run,
    .form = KERN_FORM_ROUNDED,
    .layout = {KERN_PANEL, 1, 1},
    .rows_max = ROWS,
    .panels_max = 1,
    .block_rows = 96,
    .block_bytes = 192 << 10,
};
const struct kern_tiles kern_cpu_i8_avx2 = {
    .run = tile_i8_run,
    .form = KERN_FORM_I16,
    .layout = {KERN_PANEL, 2, 2},
    .rows_max = ROWS,
    .panels_max = 1,
    .block_rows = 96,
    .block_bytes = 192 << 10,
};
