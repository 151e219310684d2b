/* Tiles of AVX2 for weights in blocks: up to four rows by one panel. vpmaddubsw multiplies codes of
 * W without sign by those of x; sums of pairs stay in 16 bits as long as they fit, which for codes
 * of four bits is a whole block: 16 * 2 * 15 * 127 < 2^15. Q8_0's do not fit at all and are widened
 * first.
 *
 * The float32 sums are kept in memory (the first cache), and added to after each block. */
#include "kernels/cpu/ops.h"
#include "kernels/cpu/panels.h"
#include "kernels/cpu/vector.h"

#include <immintrin.h>
#include <string.h>

#define ROWS 4
#define BLOCK 32
#define AHEAD 2048 /* bytes of W that are asked for early */

#define INLINE static inline __attribute__((always_inline))

/* Ask for a line of W that is needed soon: one a step, as many at once would have to wait. */
INLINE void ask(const void *line)
{
    _mm_prefetch((const char *)line + AHEAD, _MM_HINT_T0);
}

/* Four bytes of row r of x at k, in all lanes. */
INLINE __m256i word_of(const struct kern_tile *t, size_t r, size_t at)
{
    int32_t word;
    memcpy(&word, (const char *)t->x + r * t->x_bytes + at, sizeof word);
    return _mm256_set1_epi32(word);
}

INLINE __m256 f16_load(const uint16_t *codes)
{
    return _mm256_cvtph_ps(_mm_load_si128((const __m128i *)codes));
}

/* Eight scales of 8 bits as floats. */
INLINE __m256 u8_load(const uint8_t *codes)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)codes)));
}

INLINE __m256 i8_load(const int8_t *codes)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)codes)));
}

INLINE void clear(const struct kern_tile *t, const size_t rows)
{
    for (size_t r = 0; r < rows && !t->add; r++) {
        _mm256_store_ps((float *)t->sums + r * KERN_TILE_COLUMNS, _mm256_setzero_ps());
        _mm256_store_ps((float *)t->sums + r * KERN_TILE_COLUMNS + 8, _mm256_setzero_ps());
    }
}

/* sums (8) of row r, half h, += scales * the scale of x * the int32 sums. */
INLINE void add_scaled(
    const struct kern_tile *t, size_t r, size_t h, size_t block, __m256 scales, __m256i sums)
{
    float *out = (float *)t->sums + r * KERN_TILE_COLUMNS + h * 8;
    __m256 scale = _mm256_mul_ps(scales, _mm256_set1_ps(t->x_scales[r * t->x_groups + block]));
    _mm256_store_ps(out, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), scale, _mm256_load_ps(out)));
}

/* ---- eight bits ---------------------------------------------------------------------------- */

INLINE void block_q8_0(const struct kern_tile *t, size_t block, const uint8_t *codes,
    const uint16_t *d, const size_t rows)
{
    __m256i sums[ROWS][2];
#pragma GCC unroll 4
    for (size_t r = 0; r < rows; r++) {
        sums[r][0] = sums[r][1] = _mm256_setzero_si256();
    }
#pragma GCC unroll 4
    for (size_t k = 0; k < BLOCK; k += 2) {
        const __m128i *w = (const __m128i *)(codes + k * KERN_PANEL);
        __m256i left = _mm256_cvtepi8_epi16(_mm_load_si128(w));
        __m256i right = _mm256_cvtepi8_epi16(_mm_load_si128(w + 1));
        if (k % 4 == 0) {
            ask(w);
        }
#pragma GCC unroll 4
        for (size_t r = 0; r < rows; r++) {
            __m256i v = word_of(t, r, 2 * (block * BLOCK + k));
            vector_add_i32(&sums[r][0], _mm256_madd_epi16(v, left));
            vector_add_i32(&sums[r][1], _mm256_madd_epi16(v, right));
        }
    }
    __m256 left = f16_load(d), right = f16_load(d + 8);
#pragma GCC unroll 4
    for (size_t r = 0; r < rows; r++) {
        add_scaled(t, r, 0, block, left, sums[r][0]);
        add_scaled(t, r, 1, block, right, sums[r][1]);
    }
}

INLINE void tile_q8_0(const struct kern_tile *t, const size_t rows)
{
    const struct panel_q8_0 *w = t->w;
    clear(t, rows);
    for (size_t block = 0; block < t->k / BLOCK; block += 2, w++) {
        ask(w->d);
        block_q8_0(t, block, w->codes[0], w->d[0], rows);
        block_q8_0(t, block + 1, w->codes[1], w->d[1], rows);
    }
}

/* ---- four bits ----------------------------------------------------------------------------- */

/* The products of a block of 32, in 16 bits: sums (rows, 2 halves). */
INLINE void sum_halves(const struct kern_tile *t, size_t block, const uint8_t *codes,
    const size_t rows, __m256i sums[ROWS][2])
{
    const __m256i low = _mm256_set1_epi8(15);
#pragma GCC unroll 4
    for (size_t r = 0; r < rows; r++) {
        sums[r][0] = sums[r][1] = _mm256_setzero_si256();
    }
#pragma GCC unroll 1
    for (size_t line = 0; line < 4; line++) {
        __m256i left = _mm256_load_si256((const __m256i *)(codes + 64 * line));
        __m256i right = _mm256_load_si256((const __m256i *)(codes + 64 * line + 32));
        __m256i steps[2][2] = {{_mm256_and_si256(left, low), _mm256_and_si256(right, low)},
            {_mm256_and_si256(_mm256_srli_epi16(left, 4), low),
                _mm256_and_si256(_mm256_srli_epi16(right, 4), low)}};
#pragma GCC unroll 2
        for (size_t s = 0; s < 2; s++) {
#pragma GCC unroll 4
            for (size_t r = 0; r < rows; r++) {
                __m256i v = word_of(t, r, block * BLOCK + 8 * line + 4 * s);
                vector_add_i16(&sums[r][0], _mm256_maddubs_epi16(steps[s][0], v));
                vector_add_i16(&sums[r][1], _mm256_maddubs_epi16(steps[s][1], v));
            }
        }
    }
}

INLINE void block_q4_0(const struct kern_tile *t, size_t block, const uint8_t *codes,
    const uint16_t *d, const size_t rows)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sums[ROWS][2];
    sum_halves(t, block, codes, rows, sums);
    __m256 left = f16_load(d), right = f16_load(d + 8);
#pragma GCC unroll 4
    for (size_t r = 0; r < rows; r++) {
        __m256i offset = _mm256_set1_epi32(8 * t->x_sums[r * t->x_groups + block]);
        add_scaled(
            t, r, 0, block, left, _mm256_sub_epi32(_mm256_madd_epi16(sums[r][0], ones), offset));
        add_scaled(
            t, r, 1, block, right, _mm256_sub_epi32(_mm256_madd_epi16(sums[r][1], ones), offset));
    }
}

INLINE void tile_q4_0(const struct kern_tile *t, const size_t rows)
{
    const struct panel_q4_0 *w = t->w;
    clear(t, rows);
    for (size_t block = 0; block < t->k / BLOCK; block += 2, w++) {
        for (size_t at = 0; at < sizeof *w; at += 64) {
            _mm_prefetch((const char *)w + AHEAD + at, _MM_HINT_T0);
        }
        block_q4_0(t, block, w->codes[0], w->d[0], rows);
        block_q4_0(t, block + 1, w->codes[1], w->d[1], rows);
    }
}

INLINE void tile_q4_k(const struct kern_tile *t, const size_t rows)
{
    const __m256i ones = _mm256_set1_epi16(1);
    const struct panel_q4_k *w = t->w;
    __m256i sums[ROWS][2];
    clear(t, rows);
    for (size_t block = 0; block < t->k / BLOCK; block++) {
        size_t b = block % 8;
        w += b == 0 && block > 0;
        for (size_t at = 0; at < sizeof *w / 8; at += 64) {
            _mm_prefetch((const char *)w->codes[b] + AHEAD + at, _MM_HINT_T0);
        }
        sum_halves(t, block, w->codes[b], rows, sums);
#pragma GCC unroll 2
        for (size_t h = 0; h < 2; h++) {
            __m256 scale = _mm256_mul_ps(f16_load(w->d + 8 * h), u8_load(w->scales[b] + 8 * h));
            __m256 min = _mm256_mul_ps(f16_load(w->d_min + 8 * h), u8_load(w->mins[b] + 8 * h));
#pragma GCC unroll 4
            for (size_t r = 0; r < rows; r++) {
                float *out = (float *)t->sums + r * KERN_TILE_COLUMNS + 8 * h;
                size_t at = r * t->x_groups + block;
                __m256 x_sum = _mm256_set1_ps(t->x_scales[at] * (float)t->x_sums[at]);
                add_scaled(t, r, h, block, scale, _mm256_madd_epi16(sums[r][h], ones));
                _mm256_store_ps(out, _mm256_fnmadd_ps(min, x_sum, _mm256_load_ps(out)));
            }
        }
    }
}

/* ---- six bits ------------------------------------------------------------------------------ */

/* Codes of steps 2 line and 2 line + 1 of half h. */
INLINE void codes_q6_k(const struct panel_q6_k_codes *w, size_t line, size_t h, __m256i out[2])
{
    const __m256i low = _mm256_set1_epi8(15), high = _mm256_set1_epi8(0x30);
    __m256i codes = _mm256_load_si256((const __m256i *)(w->low + 64 * line + 32 * h));
    __m256i bits = _mm256_load_si256((const __m256i *)(w->high + 64 * (line / 2) + 32 * h));
    __m256i first = line % 2 == 0 ? _mm256_slli_epi16(bits, 4) : bits;
    __m256i second = line % 2 == 0 ? _mm256_slli_epi16(bits, 2) : _mm256_srli_epi16(bits, 2);
    out[0] = _mm256_or_si256(_mm256_and_si256(codes, low), _mm256_and_si256(first, high));
    out[1] = _mm256_or_si256(
        _mm256_and_si256(_mm256_srli_epi16(codes, 4), low), _mm256_and_si256(second, high));
}

/* 16 numbers of K: two lines. 2 * 2 * 63 * 127 < 2^15 is two steps, not four. */
INLINE void group_q6_k(
    const struct kern_tile *t, const struct panel_q6_k *w, size_t group, const size_t rows)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sums[ROWS][2];
#pragma GCC unroll 2
    for (size_t i = 0; i < 2; i++) {
        size_t line = 2 * (group % 2) + i;
        __m256i steps[2][2];
        codes_q6_k(&w->codes[group % 16 / 2], line, 0, steps[0]);
        codes_q6_k(&w->codes[group % 16 / 2], line, 1, steps[1]);
#pragma GCC unroll 4
        for (size_t r = 0; r < rows; r++) {
            __m256i first = word_of(t, r, group * 16 + 8 * i);
            __m256i second = word_of(t, r, group * 16 + 8 * i + 4);
#pragma GCC unroll 2
            for (size_t h = 0; h < 2; h++) {
                __m256i sum = _mm256_madd_epi16(
                    ones, _mm256_add_epi16(_mm256_maddubs_epi16(steps[h][0], first),
                              _mm256_maddubs_epi16(steps[h][1], second)));
                sums[r][h] = i == 0 ? sum : _mm256_add_epi32(sums[r][h], sum);
            }
        }
    }
#pragma GCC unroll 2
    for (size_t h = 0; h < 2; h++) {
        __m256 scale =
            _mm256_mul_ps(f16_load(w->d + 8 * h), i8_load(w->scales[group % 16] + 8 * h));
#pragma GCC unroll 4
        for (size_t r = 0; r < rows; r++) {
            __m256i offset = _mm256_set1_epi32(32 * t->x_sums[2 * r * t->x_groups + group]);
            add_scaled(t, r, h, group / 2, scale, _mm256_sub_epi32(sums[r][h], offset));
        }
    }
}

INLINE void tile_q6_k(const struct kern_tile *t, const size_t rows)
{
    const struct panel_q6_k *w = t->w;
    clear(t, rows);
    for (size_t block = 0; block < t->k / BLOCK; block++) {
        w += block % 8 == 0 && block > 0;
        for (size_t at = 0; at < sizeof *w / 8; at += 64) {
            _mm_prefetch((const char *)&w->codes[block % 8] + AHEAD + at, _MM_HINT_T0);
        }
        group_q6_k(t, w, 2 * block, rows);
        group_q6_k(t, w, 2 * block + 1, rows);
    }
}

/* ---- the tables ---------------------------------------------------------------------------- */

#define TILES(name)                                                                                \
    static void name##_run(const struct kern_tile *tile)                                           \
    {                                                                                              \
        const struct kern_tile t = *tile; /* a copy, which no store to the sums can change */      \
        switch (t.rows) {                                                                          \
        case 1:                                                                                    \
            name(&t, 1);                                                                           \
            break;                                                                                 \
        case 2:                                                                                    \
            name(&t, 2);                                                                           \
            break;                                                                                 \
        case 3:                                                                                    \
            name(&t, 3);                                                                           \
            break;                                                                                 \
        default:                                                                                   \
            name(&t, ROWS);                                                                        \
            break;                                                                                 \
        }                                                                                          \
    }

TILES(tile_q8_0)
TILES(tile_q4_0)
TILES(tile_q4_k)
TILES(tile_q6_k)

#define TABLE(type, k, x_form, step)                                                               \
    const struct kern_tiles kern_cpu_##type##_avx2 = {                                             \
        .run = tile_##type##_run,                                                                  \
        .form = x_form,                                                                            \
        .layout = {KERN_PANEL, step, k, sizeof(struct panel_##type)},                              \
        .rows_max = ROWS,                                                                          \
        .panels_max = 1,                                                                           \
        .block_rows = 96,                                                                          \
        .block_bytes = 192 << 10,                                                                  \
    }

TABLE(q8_0, 64, KERN_FORM_I16, 2);
TABLE(q4_0, 64, KERN_FORM_I8, 4);
TABLE(q4_k, 256, KERN_FORM_I8, 4);
TABLE(q6_k, 256, KERN_FORM_I8, 4);
