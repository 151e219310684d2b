/* Tiles of AMX: up to 32 rows by two panels, as two by two tile registers of sums (0..3), two of x
 * (4, 5) and two of W (6, 7). A tile register is at most 16 rows of 64 bytes; a step is 64 bytes
 * of K: 32 bf16 or 64 int8. The panels' layout is the one that the instructions ask for: row k of
 * a register of W holds group k of each of the 16 columns.
 *
 * The configuration is set and released at each call, since between two calls the thread belongs to
 * somebody else; it takes as long as one or two steps. */
#include "kernels/cpu/ops.h"

#include <immintrin.h>
#include <string.h>

#define ROWS 32
#define HALF 16
#define STEP 64

/* Intel's manual, "Tile configuration": palette 1. */
struct config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

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
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

static void store(const struct kern_tile *t)
{
    const size_t stride = KERN_TILE_COLUMNS * sizeof(float);
    char *out = t->sums;
    _tile_stored(0, out, stride);
    if (t->panels > 1) {
        _tile_stored(1, out + STEP, stride);
    }
    if (t->rows > HALF) {
        _tile_stored(2, out + HALF * stride, stride);
        if (t->panels > 1) {
            _tile_stored(3, out + HALF * stride + STEP, stride);
        }
    }
    _tile_release();
}

/* The two types differ in the instruction alone, which must name its registers. */
#define RUN(name, multiply, bytes)                                                                 \
    static void name(const struct kern_tile *t)                                                    \
    {                                                                                              \
        const char *x = t->x, *w = t->w;                                                           \
        configure(t->rows);                                                                        \
        for (size_t at = 0; at < t->k * (bytes); at += STEP, w += HALF * STEP) {                   \
            _tile_loadd(4, x + at, t->x_bytes);                                                    \
            _tile_loadd(6, w, STEP);                                                               \
            multiply(0, 4, 6);                                                                     \
            if (t->rows > HALF) {                                                                  \
                _tile_loadd(5, x + HALF * t->x_bytes + at, t->x_bytes);                            \
                multiply(2, 5, 6);                                                                 \
            }                                                                                      \
            if (t->panels > 1) {                                                                   \
                _tile_loadd(7, w + t->panel_bytes, STEP);                                          \
                multiply(1, 4, 7);                                                                 \
                if (t->rows > HALF) {                                                              \
                    multiply(3, 5, 7);                                                             \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
        store(t);                                                                                  \
    }

RUN(run_bf16, _tile_dpbf16ps, 2)
RUN(run_i8, _tile_dpbssd, 1)

const struct kern_tiles kern_cpu_bf16_amx = {
    .run = run_bf16,
    .form = KERN_FORM_BF16,
    .layout = {KERN_PANEL, 2, 32},
    .rows_max = ROWS,
    .panels_max = 2,
};
const struct kern_tiles kern_cpu_i8_amx = {
    .run = run_i8,
    .form = KERN_FORM_I8,
    .layout = {KERN_PANEL, 4, 64},
    .rows_max = ROWS,
    .panels_max = 2,
};
