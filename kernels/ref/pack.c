#include "kernels/blocks.h"
#include "kernels/ref/ops.h"

#include <math.h>
#include <string.h>

#define CHUNK KERN_BLOCK_MAX

/* Numbers k .. k + count - 1 of a row, where they are float32 afterwards. */
static void widen(enum kern_dtype from, const void *row, size_t k, size_t count, float out[CHUNK])
{
    kern_ref_to_f32(from, (const char *)row + kern_dtype_row_bytes(from, k), out, count);
}

/* Codes of row n and their scale, as x is quantized in linear.c. */
static void pack_i8(struct kern_matrix *w, size_t n, enum kern_dtype from, const void *row)
{
    float most = 0, part[CHUNK];
    int8_t *out = (int8_t *)w->data + n * w->k;
    int32_t sum = 0;
    for (size_t k = 0; k < w->k; k += CHUNK) {
        size_t count = w->k - k < CHUNK ? w->k - k : CHUNK;
        widen(from, row, k, count, part);
        for (size_t i = 0; i < count; i++) {
            most = fabsf(part[i]) > most ? fabsf(part[i]) : most;
        }
    }
    float to_code = most > 0 ? 127.0F / most : 0;
    for (size_t k = 0; k < w->k; k += CHUNK) {
        size_t count = w->k - k < CHUNK ? w->k - k : CHUNK;
        widen(from, row, k, count, part);
        for (size_t i = 0; i < count; i++) {
            float code = rintf(part[i] * to_code);
            out[k + i] = (int8_t)(code > 127 ? 127 : code > -127 ? code : -127);
            sum += out[k + i];
        }
    }
    w->scales[n] = most / 127.0F;
    w->sums[n] = sum;
}

static void pack_row(struct kern_matrix *w, size_t n, enum kern_dtype from, const void *row)
{
    float part[CHUNK];
    char *out = (char *)w->data + n * kern_dtype_row_bytes(w->dtype, w->k);
    if (from == w->dtype) {
        memcpy(out, row, kern_dtype_row_bytes(from, w->k));
        return;
    }
    for (size_t k = 0; k < w->k; k += CHUNK) {
        size_t count = w->k - k < CHUNK ? w->k - k : CHUNK;
        char *to = out + kern_dtype_row_bytes(w->dtype, k);
        widen(from, row, k, count, part);
        if (kern_dtype_block(w->dtype) > 1) {
            kern_blocks_from_f32(w->dtype, part, to, count);
        } else {
            kern_ref_from_f32(w->dtype, part, to, count);
        }
    }
}

void kern_ref_pack(struct kern_matrix *w, const struct kern_strip *strip)
{
    for (size_t i = 0; i < strip->count; i++) {
        if (w->dtype == KERN_I8) {
            pack_i8(w, strip->n + i, strip->from[i], strip->rows[i]);
        } else {
            pack_row(w, strip->n + i, strip->from[i], strip->rows[i]);
        }
    }
}
