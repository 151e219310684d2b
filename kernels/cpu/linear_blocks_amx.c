/* Tiles of AMX for weights in blocks and many rows of x. A tile register of int32 is the sums of 16
 * rows by a panel over one block of 32, which then need their scales; so those of some blocks are
 * stored one after the other and added up by AVX-512, in the order and with the operations of
 * linear_blocks_avx512.c: both give the same numbers to the bit, since sums of codes are exact.
 *
 * Codes of W are widened to signed bytes once for all rows of a call, as are their scales. */
#include "kernels/cpu/ops.h"
#include "kernels/cpu/panels.h"

#include <immintrin.h>

#define ROWS 256
#define BLOCK 32
#define BLOCKS 8 /* that are stored before they are added up: 16 KiB of sums */
#define HALF 16
#define TILE_BYTES 1024 /* of a register of sums */

#define INLINE static inline __attribute__((always_inline))

/* Intel's manual, "Tile configuration": palette 1. */
struct config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

/* Some blocks of a panel, as they are multiplied. */
struct wide {
    _Alignas(64) char codes[BLOCKS][BLOCK * KERN_PANEL];
    _Alignas(64) float scales[BLOCKS][KERN_PANEL], mins[BLOCKS][KERN_PANEL];
};

/* GCC's intrinsics do not say what memory they read: what was stored must be there. */
INLINE void written(const void *memory)
{
    __asm__ volatile("" : : "r"(memory) : "memory");
}

/* Registers: 0 and 1 sums of the upper and the lower 16 rows, 4 and 5 x, 6 W. */
static void configure(size_t rows)
{
    struct config config = {.palette = 1};
    size_t upper = rows < HALF ? rows : HALF, lower = rows - upper;
    for (size_t i = 0; i < 8; i++) {
        config.row_bytes[i] = i == 4 || i == 5 ? BLOCK : 4 * KERN_PANEL;
        config.rows[i] = (uint8_t)(i == 6 ? BLOCK / 4 : upper);
    }
    /* A register without rows would not be valid, and is not used. */
    config.rows[1] = config.rows[5] = (uint8_t)(lower > 0 ? lower : 1);
    written(&config);
    _tile_loadconfig(&config);
}

INLINE __m512 f16_load(const uint16_t *codes)
{
    return _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)codes));
}

INLINE __m512 u8_load(const uint8_t *codes)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_load_si128((const __m128i *)codes)));
}

/* ---- widening ------------------------------------------------------------------------------ */

INLINE void widen_halves(const uint8_t *codes, int8_t offset, char *out)
{
    const __m512i low = _mm512_set1_epi8(15), off = _mm512_set1_epi8(offset);
    for (size_t line = 0; line < 4; line++) {
        __m512i both = _mm512_load_si512(codes + 64 * line);
        __m512i first = _mm512_and_si512(both, low);
        __m512i second = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
        _mm512_store_si512(out + 128 * line, _mm512_sub_epi8(first, off));
        _mm512_store_si512(out + 128 * line + 64, _mm512_sub_epi8(second, off));
    }
}

static void widen_q8_0(const void *panel, size_t block, struct wide *out, size_t at)
{
    const struct panel_q8_0 *w = (const struct panel_q8_0 *)panel + block / 2;
    const __m512i offset = _mm512_set1_epi8((char)0x80);
    for (size_t i = 0; i < sizeof w->codes[0]; i += 64) {
        __m512i codes = _mm512_load_si512(w->codes[block % 2] + i);
        _mm512_store_si512(out->codes[at] + i, _mm512_xor_si512(codes, offset));
    }
    _mm512_store_ps(out->scales[at], f16_load(w->d[block % 2]));
}

static void widen_q4_0(const void *panel, size_t block, struct wide *out, size_t at)
{
    const struct panel_q4_0 *w = (const struct panel_q4_0 *)panel + block / 2;
    widen_halves(w->codes[block % 2], 8, out->codes[at]);
    _mm512_store_ps(out->scales[at], f16_load(w->d[block % 2]));
}

static void widen_q4_k(const void *panel, size_t block, struct wide *out, size_t at)
{
    const struct panel_q4_k *w = (const struct panel_q4_k *)panel + block / 8;
    size_t b = block % 8;
    widen_halves(w->codes[b], 0, out->codes[at]);
    _mm512_store_ps(out->scales[at], _mm512_mul_ps(f16_load(w->d), u8_load(w->scales[b])));
    _mm512_store_ps(out->mins[at], _mm512_mul_ps(f16_load(w->d_min), u8_load(w->mins[b])));
}

/* ---- products ------------------------------------------------------------------------------ */

/* sums[i] = x . W over block i, of 16 or (lower) 32 rows. */
INLINE void multiply(const struct kern_tile *t, const char *x, const struct wide *w, size_t blocks,
    bool lower, char (*sums)[2 * TILE_BYTES])
{
    for (size_t i = 0; i < blocks; i++) {
        _tile_zero(0);
        _tile_loadd(6, w->codes[i], 4 * KERN_PANEL);
        _tile_loadd(4, x + i * HALF * BLOCK, BLOCK);
        _tile_dpbssd(0, 4, 6);
        if (lower) {
            _tile_zero(1);
            _tile_loadd(5, x + t->x_bytes + i * HALF * BLOCK, BLOCK);
            _tile_dpbssd(1, 5, 6);
            _tile_stored(1, sums[i] + TILE_BYTES, 4 * KERN_PANEL);
        }
        _tile_stored(0, sums[i], 4 * KERN_PANEL);
    }
}

/* Adds the sums of row `row` of the call, scaled, to its float32 sums. */
INLINE void add_up(const struct kern_tile *t, const struct wide *w, size_t row, size_t first,
    const size_t blocks, const bool mins, const char *sums)
{
    float *out = (float *)t->sums + row * KERN_TILE_COLUMNS;
    const float *x_scales = t->x_scales + row * t->x_groups + first;
    const int32_t *x_sums = t->x_sums + row * t->x_groups + first;
    __m512 sum = t->add || first > 0 ? _mm512_load_ps(out) : _mm512_setzero_ps();
#pragma GCC unroll 8
    for (size_t i = 0; i < blocks; i++) {
        __m512 of_block = _mm512_cvtepi32_ps(_mm512_load_si512(sums + i * 2 * TILE_BYTES));
        __m512 scale = _mm512_mul_ps(_mm512_load_ps(w->scales[i]), _mm512_set1_ps(x_scales[i]));
        sum = _mm512_fmadd_ps(of_block, scale, sum);
        if (mins) {
            __m512 x_sum = _mm512_set1_ps(x_scales[i] * (float)x_sums[i]);
            sum = _mm512_fnmadd_ps(_mm512_load_ps(w->mins[i]), x_sum, sum);
        }
    }
    _mm512_store_ps(out, sum);
}

INLINE void rows_of(
    const struct kern_tile *t, const struct wide *w, size_t first, size_t blocks, const bool mins)
{
    _Alignas(64) char sums[BLOCKS][2 * TILE_BYTES];
    for (size_t row = 0; row < t->rows; row += 2 * HALF) {
        size_t rows = t->rows - row < 2 * HALF ? t->rows - row : 2 * HALF;
        const char *x = (const char *)t->x + row / HALF * t->x_bytes + first * HALF * BLOCK;
        if (row == 0 || rows < 2 * HALF) {
            configure(rows);
        }
        multiply(t, x, w, blocks, rows > HALF, sums);
        for (size_t r = 0; r < rows; r++) {
            const char *of_row = sums[0] + r * 4 * KERN_PANEL;
            if (blocks == BLOCKS) {
                add_up(t, w, row + r, first, BLOCKS, mins, of_row);
            } else {
                add_up(t, w, row + r, first, blocks, mins, of_row);
            }
        }
    }
}

INLINE void run(const struct kern_tile *t, const bool mins,
    void (*const widen)(const void *panel, size_t block, struct wide *out, size_t at))
{
    struct wide wide;
    size_t blocks_count = t->k / BLOCK;
    for (size_t first = 0; first < blocks_count; first += BLOCKS) {
        size_t blocks = blocks_count - first < BLOCKS ? blocks_count - first : BLOCKS;
        for (size_t i = 0; i < blocks; i++) {
            widen(t->w, first + i, &wide, i);
        }
        written(&wide);
        rows_of(t, &wide, first, blocks, mins);
    }
    _tile_release();
}

#define TILES(type, pad_k, mins)                                                                   \
    static void run_##type(const struct kern_tile *t)                                              \
    {                                                                                              \
        run(t, mins, widen_##type);                                                                \
    }                                                                                              \
    const struct kern_tiles kern_cpu_##type##_amx = {                                              \
        .run = run_##type,                                                                         \
        .form = KERN_FORM_I8_HALF_TILES,                                                           \
        .layout = {KERN_PANEL, 4, pad_k, sizeof(struct panel_##type)},                             \
        .rows_max = ROWS,                                                                          \
        .panels_max = 1,                                                                           \
        .block_rows = ROWS,                                                                        \
        .block_bytes = 512 << 10,                                                                  \
    };

TILES(q8_0, 64, false)
TILES(q4_0, 64, false)
TILES(q4_k, 256, true)
