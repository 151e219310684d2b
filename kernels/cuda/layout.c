#include "kernels/cuda/layout.h"

#include "kernels/blocks.h"

#include <math.h>
#include <string.h>

size_t kern_layout_padded(enum kern_dtype dtype, size_t k)
{
    bool blocks = dtype == KERN_Q8_0 || dtype == KERN_Q4_0;
    return dtype == KERN_I8 ? kern_up(k, 64) : blocks ? kern_up(k, 128) : k;
}

size_t kern_layout_row_bytes(const struct kern_matrix *w)
{
    return w->dtype == KERN_Q4_0 ? w->k_padded / 2
                                 : w->k_padded * (w->dtype == KERN_F32       ? 4U
                                                     : w->dtype == KERN_BF16 ? 2U
                                                                             : 1U);
}

size_t kern_layout_scales_bytes(const struct kern_matrix *w)
{
    bool blocks = w->dtype == KERN_Q8_0 || w->dtype == KERN_Q4_0;
    return w->dtype == KERN_I8 ? w->n * sizeof(float)
           : blocks            ? kern_up(w->n, 8) * (w->k_padded / 32) * 2
                               : 0;
}

/* ---- one row ------------------------------------------------------------------------------- */

/* Codes and their scale, as x is quantized. */
static void place_i8(const float *row, size_t k, size_t k_padded, char *to, float *scale)
{
    float most = 0;
    for (size_t i = 0; i < k; i++) {
        most = fabsf(row[i]) > most ? fabsf(row[i]) : most;
    }
    float to_code = most > 0 ? 127.0F / most : 0;
    memset(to, 0, k_padded);
    for (size_t i = 0; i < k; i++) {
        float code = rintf(row[i] * to_code);
        to[i] = (char)(code > 127 ? 127 : code > -127 ? code : -127);
    }
    *scale = most / 127.0F;
}

/* Blocks of GGUF: an f16 scale, then 32 codes, or 16 bytes whose lower halves are the first 16. */
static void place_q8(const char *blocks, size_t k, size_t k_padded, char *to)
{
    memset(to, 0, k_padded);
    for (size_t i = 0; i < k; i++) {
        to[kern_q8_place(i)] = blocks[i / 32 * 34 + 2 + i % 32];
    }
}

static void place_q4(const char *blocks, size_t k, size_t k_padded, char *to)
{
    memset(to, 0, k_padded / 2);
    for (size_t i = 0; i < k; i++) {
        unsigned both = (unsigned char)blocks[i / 32 * 18 + 2 + i % 16];
        unsigned code = (i % 32 < 16 ? both & 15 : both >> 4) ^ 8; /* less 8, in 4 bits */
        size_t place = kern_q4_place(i);
        to[place / 2] = (char)((unsigned char)to[place / 2] | code << (place % 2 * 4));
    }
}

/* The scales of row n, in tiles. */
static void place_scales(const struct kern_matrix *w, size_t n, const char *blocks, uint16_t *to)
{
    size_t unit = kern_dtype_row_bytes(w->dtype, 32), together = w->dtype == KERN_Q8_0 ? 2 : 4;
    for (size_t b = 0; b < w->k / 32; b++) {
        size_t chunks = w->k_padded / 32 / together;
        size_t group = (n / 8 * chunks + b / together) * 8 + n % 8;
        memcpy(&to[group * together + b % together], blocks + unit * b, sizeof *to);
    }
}

void kern_layout_row(const struct kern_matrix *w, size_t n, enum kern_dtype from, const void *row,
    float *room, void *codes, void *scales)
{
    bool blocks = w->dtype == KERN_Q8_0 || w->dtype == KERN_Q4_0;
    const char *source = row;
    if (w->dtype == from && !blocks) {
        memcpy(codes, row, w->k * kern_dtype_bytes(from));
        return;
    } else if (w->dtype != from) {
        kern_to_f32(from, row, room, w->k);
    }
    if (w->dtype == KERN_I8) {
        place_i8(room, w->k, w->k_padded, codes, (float *)scales + n);
        return;
    } else if (!blocks) {
        kern_from_f32(w->dtype, room, codes, w->k);
        return;
    }
    if (w->dtype != from) {
        kern_blocks_from_f32(w->dtype, room, room + w->k, w->k);
        source = (const char *)(room + w->k);
    }
    if (w->dtype == KERN_Q8_0) {
        place_q8(source, w->k, w->k_padded, codes);
    } else {
        place_q4(source, w->k, w->k_padded, codes);
    }
    place_scales(w, n, source, scales);
}
