/* Tiles of AVX-512: up to eight rows by two panels, which is sixteen sums and two registers of W.
 * int8 needs VNNI, bf16 needs AVX512-BF16: table.c gives them to processors that have those. */
#include "kernels/cpu/ops.h"

#include <immintrin.h>
#include <string.h>

#define ROWS 8

#define INLINE static inline __attribute__((always_inline))

/* Four bytes of row r of x at its 32-bit word k, in all lanes. */
INLINE __m512i word_of(const struct kern_tile *t, size_t r, size_t k)
{
    int32_t word;
    memcpy(&word, (const char *)t->x + r * t->x_bytes + 4 * k, sizeof word);
    return _mm512_set1_epi32(word);
}

INLINE void tile_f32(const struct kern_tile *t, const size_t rows, const size_t panels)
{
    const char *w = t->w;
    float *out = t->sums;
    __m512 sums[ROWS][2];
#pragma GCC unroll 8
    for (size_t r = 0; r < rows; r++) {
        sums[r][0] = sums[r][1] = _mm512_setzero_ps();
        if (t->add) {
            sums[r][0] = _mm512_load_ps(out + r * KERN_TILE_COLUMNS);
            sums[r][1] =
                panels > 1 ? _mm512_load_ps(out + r * KERN_TILE_COLUMNS + KERN_PANEL) : sums[r][1];
        }
    }
    for (size_t k = 0; k < t->k; k++, w += 64) {
        __m512 left = _mm512_load_ps(w);
        __m512 right = panels > 1 ? _mm512_load_ps(w + t->panel_bytes) : left;
#pragma GCC unroll 8
        for (size_t r = 0; r < rows; r++) {
            __m512 v = _mm512_castsi512_ps(word_of(t, r, k));
            sums[r][0] = _mm512_fmadd_ps(v, left, sums[r][0]);
            if (panels > 1) {
                sums[r][1] = _mm512_fmadd_ps(v, right, sums[r][1]);
            }
        }
    }
#pragma GCC unroll 8
    for (size_t r = 0; r < rows; r++) {
        _mm512_store_ps(out + r * KERN_TILE_COLUMNS, sums[r][0]);
        if (panels > 1) {
            _mm512_store_ps(out + r * KERN_TILE_COLUMNS + KERN_PANEL, sums[r][1]);
        }
    }
}

/* A word of x and of W is two bf16. */
INLINE void tile_bf16(const struct kern_tile *t, const size_t rows, const size_t panels)
{
    const char *w = t->w;
    float *out = t->sums;
    __m512 sums[ROWS][2];
#pragma GCC unroll 8
    for (size_t r = 0; r < rows; r++) {
        sums[r][0] = sums[r][1] = _mm512_setzero_ps();
        if (t->add) {
            sums[r][0] = _mm512_load_ps(out + r * KERN_TILE_COLUMNS);
            sums[r][1] =
                panels > 1 ? _mm512_load_ps(out + r * KERN_TILE_COLUMNS + KERN_PANEL) : sums[r][1];
        }
    }
    for (size_t k = 0; k < t->k / 2; k++, w += 64) {
        __m512i left = _mm512_load_si512(w);
        __m512i right = panels > 1 ? _mm512_load_si512(w + t->panel_bytes) : left;
#pragma GCC unroll 8
        for (size_t r = 0; r < rows; r++) {
            __m512i v = word_of(t, r, k);
            sums[r][0] = _mm512_dpbf16_ps(sums[r][0], (__m512bh)v, (__m512bh)left);
            if (panels > 1) {
                sums[r][1] = _mm512_dpbf16_ps(sums[r][1], (__m512bh)v, (__m512bh)right);
            }
        }
    }
#pragma GCC unroll 8
    for (size_t r = 0; r < rows; r++) {
        _mm512_store_ps(out + r * KERN_TILE_COLUMNS, sums[r][0]);
        if (panels > 1) {
            _mm512_store_ps(out + r * KERN_TILE_COLUMNS + KERN_PANEL, sums[r][1]);
        }
    }
}

/* A word of x is four codes + 128, a word of W four codes; linear.c takes the 128 off again. */
INLINE void tile_i8(const struct kern_tile *t, const size_t rows, const size_t panels)
{
    const char *w = t->w;
    int32_t *out = t->sums;
    __m512i sums[ROWS][2];
#pragma GCC unroll 8
    for (size_t r = 0; r < rows; r++) {
        sums[r][0] = sums[r][1] = _mm512_setzero_si512();
        if (t->add) {
            sums[r][0] = _mm512_load_si512(out + r * KERN_TILE_COLUMNS);
            sums[r][1] = panels > 1 ? _mm512_load_si512(out + r * KERN_TILE_COLUMNS + KERN_PANEL)
                                    : sums[r][1];
        }
    }
    for (size_t k = 0; k < t->k / 4; k++, w += 64) {
        __m512i left = _mm512_load_si512(w);
        __m512i right = panels > 1 ? _mm512_load_si512(w + t->panel_bytes) : left;
#pragma GCC unroll 8
        for (size_t r = 0; r < rows; r++) {
            __m512i v = word_of(t, r, k);
            sums[r][0] = _mm512_dpbusd_epi32(sums[r][0], v, left);
            if (panels > 1) {
                sums[r][1] = _mm512_dpbusd_epi32(sums[r][1], v, right);
            }
        }
    }
#pragma GCC unroll 8
    for (size_t r = 0; r < rows; r++) {
        _mm512_store_si512(out + r * KERN_TILE_COLUMNS, sums[r][0]);
        if (panels > 1) {
            _mm512_store_si512(out + r * KERN_TILE_COLUMNS + KERN_PANEL, sums[r][1]);
        }
    }
}

#define HEIGHT(name, height)                                                                       \
    case height:                                                                                   \
        if (tile->panels > 1) {                                                                    \
            name(tile, height, 2);                                                                 \
        } else {                                                                                   \
            name(tile, height, 1);                                                                 \
        }                                                                                          \
        break;

#define TILES(name)                                                                                \
    static void name##_run(const struct kern_tile *tile)                                           \
    {                                                                                              \
        switch (tile->rows) {                                                                      \
            HEIGHT(name, 1)                                                                        \
            HEIGHT(name, 2)                                                                        \
            HEIGHT(name, 3)                                                                        \
            HEIGHT(name, 4)                                                                        \
            HEIGHT(name, 5)                                                                        \
            HEIGHT(name, 6)                                                                        \
            HEIGHT(name, 7)                                                                        \
            HEIGHT(name, 8)                                                                        \
        default:                                                                                   \
            memos_assert(!"rows");                                                                 \
        }                                                                                          \
    }

TILES(tile_f32)
TILES(tile_bf16)
TILES(tile_i8)

const struct kern_tiles kern_cpu_f32_avx512 = {
    .run = tile_f32_run,
    .form = KERN_FORM_PLAIN,
    .layout = {KERN_PANEL, 1, 1},
    .rows_max = ROWS,
    .panels_max = 2,
    .block_rows = 96,
    .block_bytes = 192 << 10,
};
const struct kern_tiles kern_cpu_bf16_avx512 = {
    .run = tile_bf16_run,
    .form = KERN_FORM_BF16,
    .layout = {KERN_PANEL, 2, 2},
    .rows_max = ROWS,
    .panels_max = 2,
    .block_rows = 96,
    .block_bytes = 192 << 10,
};
const struct kern_tiles kern_cpu_i8_avx512 = {
    .run = tile_i8_run,
    .form = KERN_FORM_U8,
    .layout = {KERN_PANEL, 4, 4},
    .rows_max = ROWS,
    .panels_max = 2,
    .block_rows = 96,
    .block_bytes = 192 << 10,
};
