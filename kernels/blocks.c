#include "kernels/blocks.h"

#include "kernels/ref/ops.h"

#include <math.h>
#include <string.h>

#define SMALL 32 /* numbers of a block of Q8_0 and Q4_0 */

static uint16_t u16_of(const uint8_t *data)
{
    return (uint16_t)(data[0] | data[1] << 8);
}

static float f16_of(uint16_t code)
{
    float out;
    kern_ref_to_f32(KERN_F16, &code, &out, 1);
    return out;
}

static void open_halves(const uint8_t *data, uint8_t *codes, size_t half)
{
    for (size_t i = 0; i < half; i++) {
        codes[i] = data[i] & 15;
        codes[half + i] = data[i] >> 4;
    }
}

/* Scales and minima 0..3 have the low six bits of bytes 0..3 and 4..7; 4..7 have their low four
 * bits in the halves of bytes 8..11, and their high two where the others left them. */
static void open_scales(const uint8_t *data, struct kern_block *out)
{
    for (size_t i = 0; i < 4; i++) {
        out->scales[i] = (int8_t)(data[i] & 63);
        out->mins[i] = data[i + 4] & 63;
        out->scales[i + 4] = (int8_t)((data[i + 8] & 15) | data[i] >> 6 << 4);
        out->mins[i + 4] = (uint8_t)(data[i + 8] >> 4 | data[i + 4] >> 6 << 4);
    }
}

/* Half a block, 128 numbers, at a time: byte i of the 32 with high bits has those of numbers i, i +
 * 32, i + 64 and i + 96. */
static void open_q6_k(const uint8_t *data, struct kern_block *out)
{
    const uint8_t *low = data, *high = data + 128;
    for (size_t at = 0; at < KERN_BLOCK_MAX; at += 128, low += 64, high += 32) {
        for (size_t i = 0; i < 32; i++) {
            uint8_t *codes = out->codes + at + i;
            codes[0] = (uint8_t)((low[i] & 15) | (high[i] & 3) << 4);
            codes[32] = (uint8_t)((low[i + 32] & 15) | (high[i] >> 2 & 3) << 4);
            codes[64] = (uint8_t)(low[i] >> 4 | (high[i] >> 4 & 3) << 4);
            codes[96] = (uint8_t)(low[i + 32] >> 4 | (high[i] >> 6) << 4);
        }
    }
    memcpy(out->scales, data + 192, 16);
    out->d = u16_of(data + 208);
}

void kern_block_open(enum kern_dtype dtype, const void *data, struct kern_block *out)
{
    const uint8_t *bytes = data;
    if (dtype == KERN_Q6_K) {
        open_q6_k(bytes, out);
        return;
    }
    out->d = u16_of(bytes);
    if (dtype == KERN_Q8_0) {
        memcpy(out->codes, bytes + 2, SMALL);
    } else if (dtype == KERN_Q4_0) {
        open_halves(bytes + 2, out->codes, SMALL / 2);
    } else {
        memos_assert(dtype == KERN_Q4_K);
        out->d_min = u16_of(bytes + 2);
        open_scales(bytes + 4, out);
        for (size_t i = 0; i < 4; i++) {
            open_halves(bytes + 16 + 32 * i, out->codes + 64 * i, 32);
        }
    }
}

/* ---- to float32 ---------------------------------------------------------------------------- */

static void widen(enum kern_dtype dtype, const struct kern_block *block, float *out)
{
    float d = f16_of(block->d), d_min = dtype == KERN_Q4_K ? f16_of(block->d_min) : 0;
    for (size_t i = 0; i < kern_dtype_block(dtype); i++) {
        float code = block->codes[i];
        switch (dtype) {
        case KERN_Q8_0:
            out[i] = d * (float)(int8_t)block->codes[i];
            break;
        case KERN_Q4_0:
            out[i] = d * (code - 8);
            break;
        case KERN_Q4_K:
            out[i] = d * (float)block->scales[i / 32] * code - d_min * (float)block->mins[i / 32];
            break;
        default:
            out[i] = d * (float)block->scales[i / 16] * (code - 32);
            break;
        }
    }
}

void kern_blocks_to_f32(enum kern_dtype from, const void *data, float *out, size_t count)
{
    size_t block = kern_dtype_block(from), bytes = kern_dtype_row_bytes(from, block);
    struct kern_block open;
    for (size_t i = 0; i < count / block; i++) {
        kern_block_open(from, (const char *)data + i * bytes, &open);
        widen(from, &open, out + i * block);
    }
}

/* ---- from float32 -------------------------------------------------------------------------- */

/* The number of the largest magnitude, the first of equals. */
static float most_of(const float *x)
{
    float most = 0;
    for (size_t i = 0; i < SMALL; i++) {
        most = fabsf(x[i]) > fabsf(most) ? x[i] : most;
    }
    return most;
}

static void put_scale(float d, uint8_t *out)
{
    uint16_t code;
    kern_ref_from_f32(KERN_F16, &d, &code, 1);
    out[0] = (uint8_t)code;
    out[1] = (uint8_t)(code >> 8);
}

/* NaN is the lower end. */
static float clamp(float value, float least, float most)
{
    return value > least ? value < most ? value : most : least;
}

static void to_q8_0(const float *x, uint8_t *out)
{
    float d = fabsf(most_of(x)) / 127.0F, to_code = d != 0 ? 1.0F / d : 0;
    put_scale(d, out);
    for (size_t i = 0; i < SMALL; i++) {
        out[2 + i] = (uint8_t)(int8_t)clamp(roundf(x[i] * to_code), -128, 127);
    }
}

static void to_q4_0(const float *x, uint8_t *out)
{
    float d = most_of(x) / -8.0F, to_code = d != 0 ? 1.0F / d : 0;
    put_scale(d, out);
    for (size_t i = 0; i < SMALL / 2; i++) {
        uint8_t low = (uint8_t)clamp(fmaf(x[i], to_code, 8.5F), 0, 15);
        uint8_t high = (uint8_t)clamp(fmaf(x[i + SMALL / 2], to_code, 8.5F), 0, 15);
        out[2 + i] = (uint8_t)(low | high << 4);
    }
}

void kern_blocks_from_f32(enum kern_dtype to, const float *from, void *out, size_t count)
{
    size_t bytes = kern_dtype_row_bytes(to, SMALL);
    memos_assert(to == KERN_Q8_0 || to == KERN_Q4_0);
    for (size_t i = 0; i < count / SMALL; i++) {
        uint8_t *block = (uint8_t *)out + i * bytes;
        if (to == KERN_Q8_0) {
            to_q8_0(from + i * SMALL, block);
        } else {
            to_q4_0(from + i * SMALL, block);
        }
    }
}
