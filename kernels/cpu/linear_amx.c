/* Tiles of AMX: up to 32 rows by two panels, as two by two tile registers of sums (0..3), two of x
 * (4, 5) and two of W (6, 7). A tile register is at most 16 rows of 64 bytes; a step is 64 bytes
 * of K: 32 bf16 or 64 int8. The panels' layout is the one that the instructions ask for: row k of
 * a register of W holds group k of each of the 16 columns. x lies in tiles as well, each in 16
 * lines beside each other: its rows, 4 KB apart when K is 2048, would all want the same places of
 * the first cache.
 *
 * The configuration is set and released at each call, since between two calls the thread belongs to
 * somebody else; a call has as many rows as it can, so that this is nothing. */
#include "kernels/cpu/ops.h"

#include <immintrin.h>
#include <string.h>

#define ROWS 512 /* of a call */
/* Bytes of W that are asked for early where a step is not worth its reading. */
#define AHEAD 4096
#define HALF 16
#define STEP 64

/* Intel's manual, "Tile configuration": palette 1. */
struct config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

/* For a tile of 1..32 rows. */
static void configure(size_t rows)
{
    struct config config = {.palette = 1};
    size_t upper = rows < HALF ? rows : HALF, lower = rows - upper;
    for (size_t i = 0; i < 8; i++) {
        config.row_bytes[i] = STEP;
    }
    config.rows[0] = config.rows[1] = config.rows[4] = (uint8_t)upper;
    /* A register without rows would not be valid, and is not used. */
    config.rows[2] = config.rows[3] = config.rows[5] = (uint8_t)(lower > 0 ? lower : 1);
    config.rows[6] = config.rows[7] = HALF;
    /* GCC's intrinsic names the first eight bytes only: without this it may leave the rest out. */
    __asm__ volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
}

/* A tile: up to 32 rows, one or two panels. */
struct part {
    const char *x, *w;
    char *sums;
    bool lower, right, add, ahead;
    /* Of the lines of both panels that a step of the next call reads, those that a step of this
     * part asks for. */
    const char *next;
    size_t next_lines;
};

#define STRIDE (KERN_TILE_COLUMNS * sizeof(float))

static inline void start(const struct part *p)
{
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    if (!p->add) {
        return;
    }
    _tile_loadd(0, p->sums, STRIDE);
    if (p->right) {
        _tile_loadd(1, p->sums + STEP, STRIDE);
    }
    if (p->lower) {
        _tile_loadd(2, p->sums + HALF * STRIDE, STRIDE);
        if (p->right) {
            _tile_loadd(3, p->sums + HALF * STRIDE + STEP, STRIDE);
        }
    }
}

static inline void store(const struct part *p)
{
    _tile_stored(0, p->sums, STRIDE);
    if (p->right) {
        _tile_stored(1, p->sums + STEP, STRIDE);
    }
    if (p->lower) {
        _tile_stored(2, p->sums + HALF * STRIDE, STRIDE);
        if (p->right) {
            _tile_stored(3, p->sums + HALF * STRIDE + STEP, STRIDE);
        }
    }
}

static inline void ask(const char *w)
{
    for (size_t at = 0; at < HALF * STEP; at += STEP) {
        _mm_prefetch(w + AHEAD + at, _MM_HINT_T0);
    }
}

/* Into the second cache: the first holds the panels at hand. */
static inline void ask_next(const struct part *p, size_t panel_bytes, size_t at)
{
    const char *next = p->next + at * HALF;
    for (size_t i = 0; i < p->next_lines; i++) {
        _mm_prefetch(next + i * STEP, _MM_HINT_T1);
        if (p->right) {
            _mm_prefetch(next + panel_bytes + i * STEP, _MM_HINT_T1);
        }
    }
}

/* The two types differ in the instruction alone, which must name its registers. Sums of a row do
 * not depend on what other rows and panels there are. */
#define RUN(name, multiply, bytes)                                                                 \
    static void name##_part(const struct kern_tile *t, const struct part *p)                       \
    {                                                                                              \
        const char *x = p->x, *w = p->w;                                                           \
        start(p);                                                                                  \
        for (size_t at = 0; at < t->k * (bytes); at += STEP) {                                     \
            if (p->ahead) {                                                                        \
                ask(w);                                                                            \
            } else {                                                                               \
                ask_next(p, t->panel_bytes, at);                                                   \
            }                                                                                      \
            _tile_loadd(4, x, STEP);                                                               \
            _tile_loadd(6, w, STEP);                                                               \
            multiply(0, 4, 6);                                                                     \
            if (p->lower) {                                                                        \
                _tile_loadd(5, x + t->x_bytes, STEP);                                              \
                multiply(2, 5, 6);                                                                 \
            }                                                                                      \
            if (p->right) {                                                                        \
                _tile_loadd(7, w + t->panel_bytes, STEP);                                          \
                multiply(1, 4, 7);                                                                 \
                if (p->lower) {                                                                    \
                    multiply(3, 5, 7);                                                             \
                }                                                                                  \
            }                                                                                      \
            x += HALF * STEP;                                                                      \
            w += HALF * STEP;                                                                      \
        }                                                                                          \
        store(p);                                                                                  \
    }                                                                                              \
    static void name(const struct kern_tile *t)                                                    \
    {                                                                                              \
        size_t parts = (t->rows + 2 * HALF - 1) / (2 * HALF);                                      \
        size_t lines = t->next ? (HALF + parts - 1) / parts : 0;                                   \
        for (size_t row = 0; row < t->rows; row += 2 * HALF) {                                     \
            size_t line = row / (2 * HALF) * lines;                                                \
            size_t rows = t->rows - row < 2 * HALF ? t->rows - row : 2 * HALF;                     \
            const struct part part = {                                                             \
                .x = (const char *)t->x + row / HALF * t->x_bytes,                                 \
                .w = t->w,                                                                         \
                .sums = (char *)t->sums + row * STRIDE,                                            \
                .lower = rows > HALF,                                                              \
                .right = t->panels > 1,                                                            \
                .add = t->add,                                                                     \
                .ahead = t->rows <= HALF,                                                          \
                .next = t->next ? (const char *)t->next + line * STEP : NULL,                      \
                .next_lines = line < HALF ? lines : 0,                                             \
            };                                                                                     \
            if (row == 0 || rows < 2 * HALF) {                                                     \
                configure(rows);                                                                   \
            }                                                                                      \
            name##_part(t, &part);                                                                 \
        }                                                                                          \
        _tile_release();                                                                           \
    }

RUN(run_bf16, _tile_dpbf16ps, 2)
RUN(run_i8, _tile_dpbssd, 1)

const struct kern_tiles kern_cpu_bf16_amx = {
    .run = run_bf16,
    .form = KERN_FORM_BF16_TILES,
    .layout = {KERN_PANEL, 2, 32},
    .rows_max = ROWS,
    .panels_max = 2,
    .block_rows = ROWS,
    .block_bytes = 512 << 10, /* a cut is 512 bf16: two panels of that are 32 KiB */
};
const struct kern_tiles kern_cpu_i8_amx = {
    .run = run_i8,
    .form = KERN_FORM_I8_TILES,
    .layout = {KERN_PANEL, 4, 64},
    .rows_max = ROWS,
    .panels_max = 2,
    .block_rows = ROWS,
    .block_bytes = 512 << 10, /* a cut is 512 bf16: two panels of that are 32 KiB */
};
