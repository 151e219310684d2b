/* How weights in blocks lie in panels of 16 rows: bit for bit the codes and scales of the file, in
 * another order, so that a step of K is one line of the cache and what scales it lies beside it.
 *
 * A step is four numbers of K of each of the 16 rows. Four bits: line i of a block of 32 has step
 * 2 i in the low halves and step 2 i + 1 in the high halves of its 64 bytes. Six bits: the low four
 * like that; bits 2 s and 2 s + 1 of a byte of line j of `high` belong to step 4 j + s.
 *
 * Memory: Q8_0 and Q4_0 what they have in the file; Q4_K 1.028, Q6_K 1.010 times that. */
#ifndef KERNELS_CPU_PANELS_H
#define KERNELS_CPU_PANELS_H

#include "kernels/ops.h"

/* 64 numbers of K. AVX2: steps of two numbers, int8. VNNI: steps of four, code + 128. */
struct panel_q8_0 {
    uint16_t d[2][KERN_PANEL];
    uint8_t codes[2][32 * KERN_PANEL];
};

struct panel_q4_0 {
    uint16_t d[2][KERN_PANEL];
    uint8_t codes[2][16 * KERN_PANEL];
};

/* 256 numbers of K. */
struct panel_q4_k {
    uint16_t d[KERN_PANEL], d_min[KERN_PANEL];
    uint8_t scales[8][KERN_PANEL], mins[8][KERN_PANEL];
    uint8_t codes[8][16 * KERN_PANEL];
};

struct panel_q6_k {
    uint16_t d[KERN_PANEL], zero[KERN_PANEL];
    int8_t scales[16][KERN_PANEL];
    struct panel_q6_k_codes {
        uint8_t low[16 * KERN_PANEL], high[8 * KERN_PANEL];
    } codes[8];
};

#endif
