/* Tiles of AVX-512 with VNNI for weights in blocks: up to eight rows by one panel. vpdpbusd
 * multiplies four codes of W without sign by four of x and adds them up in 32 bits, whatever they
 * are. What is to be subtracted from the codes (128 of Q8_0, 8, 32) is what the sums begin with,
 * times the sum of x's codes.
 *
 * The float32 sums are kept in memory (the first cache), and added to after each block. */
#include "kernels/cpu/ops.h"
#include "kernels/cpu/panels.h"

#include <immintrin.h>
#include <string.h>

#define ROWS 8
#define BLOCK 32
#define AHEAD 2048 /* bytes of W that are asked for early */

#define INLINE static inline __attribute__((always_inline))

/* Four bytes of row r of x at k, in all lanes. */
INLINE __m512i word_of(const struct kern_tile *t, size_t r, size_t k)
{
    int32_t word;
    memcpy(&word, (const char *)t->x + r * t->x_bytes + k, sizeof word);
    return _mm512_set1_epi32(word);
}

INLINE __m512 f16_load(const uint16_t *codes)
{
    return _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)codes));
}

/* Sixteen scales of 8 bits as floats. */
INLINE __m512 u8_load(const uint8_t *codes)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_load_si128((const __m128i *)codes)));
}

INLINE __m512 i8_load(const int8_t *codes)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_load_si128((const __m128i *)codes)));
}

INLINE void ask(const void *w, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += 64) {
        _mm_prefetch((const char *)w + AHEAD + at, _MM_HINT_T0);
    }
}

INLINE void clear(const struct kern_tile *t, const size_t rows)
{
    for (size_t r = 0; r < rows && !t->add; r++) {
        _mm512_store_ps((float *)t->sums + r * KERN_TILE_COLUMNS, _mm512_setzero_ps());
    }
}

/* The sums begin with -offset times the sums of x's codes: those of group `group`, `stride` apart
 * from row to row. */
INLINE void begin(const struct kern_tile *t, int32_t offset, size_t stride, size_t group,
    const size_t rows, __m512i sums[ROWS])
{
#pragma GCC unroll 8
    for (size_t r = 0; r < rows; r++) {
        sums[r] = offset == 0 ? _mm512_setzero_si512()
                              : _mm512_set1_epi32(-offset * t->x_sums[r * stride + group]);
    }
}

/* One step: sums += codes (16 rows of W, 4 of K) * x. */
INLINE void step(
    const struct kern_tile *t, __m512i codes, size_t k, const size_t rows, __m512i sums[ROWS])
{
#pragma GCC unroll 8
    for (size_t r = 0; r < rows; r++) {
        sums[r] = _mm512_dpbusd_epi32(sums[r], codes, word_of(t, r, k));
    }
}

/* The float32 sums of all rows += scales * the scale of x * the int32 sums. */
INLINE void add_scaled(const struct kern_tile *t, size_t block, __m512 scales, const size_t rows,
    const __m512i sums[ROWS])
{
#pragma GCC unroll 8
    for (size_t r = 0; r < rows; r++) {
        float *out = (float *)t->sums + r * KERN_TILE_COLUMNS;
        __m512 scale = _mm512_mul_ps(scales, _mm512_set1_ps(t->x_scales[r * t->x_groups + block]));
        _mm512_store_ps(
            out, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r]), scale, _mm512_load_ps(out)));
    }
}

/* ---- eight bits ---------------------------------------------------------------------------- */

INLINE void tile_q8_0(const struct kern_tile *t, const size_t rows)
{
    const struct panel_q8_0 *w = t->w;
    __m512i sums[ROWS];
    clear(t, rows);
    for (size_t block = 0; block < t->k / BLOCK; block++) {
        size_t b = block % 2;
        w += b == 0 && block > 0;
        ask(w->codes[b], sizeof *w / 2);
        begin(t, 128, t->x_groups, block, rows, sums);
        for (size_t k = 0; k < BLOCK; k += 4) {
            step(t, _mm512_load_si512(w->codes[b] + k * KERN_PANEL), block * BLOCK + k, rows, sums);
        }
        add_scaled(t, block, f16_load(w->d[b]), rows, sums);
    }
}

/* ---- four bits ----------------------------------------------------------------------------- */

INLINE void sum_halves(const struct kern_tile *t, size_t block, const uint8_t *codes,
    const size_t rows, __m512i sums[ROWS])
{
    const __m512i low = _mm512_set1_epi8(15);
    for (size_t line = 0; line < 4; line++) {
        __m512i both = _mm512_load_si512(codes + 64 * line);
        size_t k = block * BLOCK + 8 * line;
        step(t, _mm512_and_si512(both, low), k, rows, sums);
        step(t, _mm512_and_si512(_mm512_srli_epi16(both, 4), low), k + 4, rows, sums);
    }
}

INLINE void tile_q4_0(const struct kern_tile *t, const size_t rows)
{
    const struct panel_q4_0 *w = t->w;
    __m512i sums[ROWS];
    clear(t, rows);
    for (size_t block = 0; block < t->k / BLOCK; block++) {
        size_t b = block % 2;
        w += b == 0 && block > 0;
        ask(w->codes[b], sizeof *w / 2);
        begin(t, 8, t->x_groups, block, rows, sums);
        sum_halves(t, block, w->codes[b], rows, sums);
        add_scaled(t, block, f16_load(w->d[b]), rows, sums);
    }
}

INLINE void tile_q4_k(const struct kern_tile *t, const size_t rows)
{
    const struct panel_q4_k *w = t->w;
    __m512i sums[ROWS];
    clear(t, rows);
    for (size_t block = 0; block < t->k / BLOCK; block++) {
        size_t b = block % 8;
        w += b == 0 && block > 0;
        ask(w->codes[b], sizeof *w / 8);
        begin(t, 0, 0, 0, rows, sums);
        sum_halves(t, block, w->codes[b], rows, sums);
        add_scaled(t, block, _mm512_mul_ps(f16_load(w->d), u8_load(w->scales[b])), rows, sums);
        __m512 min = _mm512_mul_ps(f16_load(w->d_min), u8_load(w->mins[b]));
#pragma GCC unroll 8
        for (size_t r = 0; r < rows; r++) {
            float *out = (float *)t->sums + r * KERN_TILE_COLUMNS;
            size_t at = r * t->x_groups + block;
            __m512 x_sum = _mm512_set1_ps(t->x_scales[at] * (float)t->x_sums[at]);
            _mm512_store_ps(out, _mm512_fnmadd_ps(min, x_sum, _mm512_load_ps(out)));
        }
    }
}

/* ---- six bits ------------------------------------------------------------------------------ */

/* 16 numbers of K: half a block, two lines of low bits and one of high ones. */
INLINE void group_q6_k(
    const struct kern_tile *t, const struct panel_q6_k *w, size_t group, const size_t rows)
{
    const __m512i low = _mm512_set1_epi8(15), high = _mm512_set1_epi8(0x30);
    const struct panel_q6_k_codes *codes = &w->codes[group % 16 / 2];
    size_t half = group % 2, k = group * 16;
    __m512i bits = _mm512_load_si512(codes->high + 64 * half);
    __m512i first = _mm512_load_si512(codes->low + 128 * half);
    __m512i second = _mm512_load_si512(codes->low + 128 * half + 64);
    __m512i steps[4] = {
        _mm512_or_si512(
            _mm512_and_si512(first, low), _mm512_and_si512(_mm512_slli_epi16(bits, 4), high)),
        _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(first, 4), low),
            _mm512_and_si512(_mm512_slli_epi16(bits, 2), high)),
        _mm512_or_si512(_mm512_and_si512(second, low), _mm512_and_si512(bits, high)),
        _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(second, 4), low),
            _mm512_and_si512(_mm512_srli_epi16(bits, 2), high)),
    };
    __m512i sums[ROWS];
    begin(t, 32, 2 * t->x_groups, group, rows, sums);
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        step(t, steps[i], k + 4 * i, rows, sums);
    }
    add_scaled(
        t, group / 2, _mm512_mul_ps(f16_load(w->d), i8_load(w->scales[group % 16])), rows, sums);
}

INLINE void tile_q6_k(const struct kern_tile *t, const size_t rows)
{
    const struct panel_q6_k *w = t->w;
    clear(t, rows);
    for (size_t block = 0; block < t->k / BLOCK; block++) {
        w += block % 8 == 0 && block > 0;
        ask(&w->codes[block % 8], sizeof *w / 8);
        group_q6_k(t, w, 2 * block, rows);
        group_q6_k(t, w, 2 * block + 1, rows);
    }
}

/* ---- the tables ---------------------------------------------------------------------------- */

#define HEIGHT(name, height)                                                                       \
    case height:                                                                                   \
        name(tile, height);                                                                        \
        break;

#define TILES(name, type, k)                                                                       \
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
    }                                                                                              \
    const struct kern_tiles kern_cpu_##type##_avx512 = {                                           \
        .run = name##_run,                                                                         \
        .form = KERN_FORM_I8,                                                                      \
        .layout = {KERN_PANEL, 4, k, sizeof(struct panel_##type)},                                 \
        .rows_max = ROWS,                                                                          \
        .panels_max = 1,                                                                           \
        .block_rows = 96,                                                                          \
        .block_bytes = 192 << 10,                                                                  \
    };

TILES(tile_q8_0, q8_0, 64)
TILES(tile_q4_0, q4_0, 64)
TILES(tile_q4_k, q4_k, 256)
TILES(tile_q6_k, q6_k, 256)
