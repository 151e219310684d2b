#include "kernels/blocks.h"
#include "kernels/ref/ops.h"

#include <math.h>
#include <string.h>

/* The small floats: sign, exponent, mantissa. With codes of magnitude m, exponent field e = m >>
 * mantissa_bits: e = 0 counts from exponent_min without, e > 0 with the hidden bit. */
struct small {
    size_t bytes;
    int mantissa_bits;
    int exponent_min; /* of the smallest normal number */
    uint32_t sign;
    uint32_t infinity; /* UINT32_MAX: there is none */
    uint32_t nan;      /* and what lies above it */
    uint32_t overflow; /* what is too large becomes */
};

static struct small small_of(enum kern_dtype dtype)
{
    switch (dtype) {
    case KERN_F16:
        return (struct small){2, 10, -14, 0x8000, 0x7c00, 0x7c01, 0x7c00};
    case KERN_BF16:
        return (struct small){2, 7, -126, 0x8000, 0x7f80, 0x7f81, 0x7f80};
    case KERN_E4M3:
        return (struct small){1, 3, -6, 0x80, UINT32_MAX, 0x7f, 0x7e};
    default:
        memos_assert(dtype == KERN_E5M2);
        return (struct small){1, 2, -14, 0x80, 0x7c, 0x7d, 0x7b};
    }
}

static uint32_t encode(const struct small *small, float from)
{
    uint32_t bits, sign;
    memcpy(&bits, &from, sizeof bits);
    sign = bits >> 31 ? small->sign : 0;
    double size = fabs((double)from);
    if (isnan(from)) {
        /* Quiet, with what fits of the payload: what vcvtps2ph does. */
        uint32_t payload = (bits & 0x7fffff) >> (23 - small->mantissa_bits);
        uint32_t quiet = small->infinity == UINT32_MAX
                             ? small->nan
                             : small->infinity | payload | 1U << (small->mantissa_bits - 1);
        return sign | quiet;
    }
    if (isinf(from)) {
        return sign | small->overflow;
    }
    int exponent = size > 0 ? ilogb(size) : small->exponent_min;
    exponent = exponent > small->exponent_min ? exponent : small->exponent_min;
    /* Scaling by a power of two is exact, and rint rounds to even. A mantissa that is rounded up
     * to the next power of two carries into the exponent, as it must. */
    double mantissa = rint(ldexp(size, small->mantissa_bits - exponent));
    uint32_t code =
        ((uint32_t)(exponent - small->exponent_min) << small->mantissa_bits) + (uint32_t)mantissa;
    return sign | (code >= small->nan - (small->infinity != UINT32_MAX) ? small->overflow : code);
}

static float decode(const struct small *small, uint32_t code)
{
    uint32_t size = code & (small->sign - 1);
    uint32_t exponent = size >> small->mantissa_bits;
    uint32_t mantissa = size & ((1U << small->mantissa_bits) - 1);
    float value;
    if (size >= small->nan) {
        value = NAN;
    } else if (size == small->infinity) {
        value = INFINITY;
    } else {
        mantissa += exponent > 0 ? 1U << small->mantissa_bits : 0;
        exponent -= exponent > 0;
        value = (float)ldexp(
            (double)mantissa, (int)exponent + small->exponent_min - small->mantissa_bits);
    }
    return code & small->sign ? -value : value;
}

void kern_ref_from_f32(enum kern_dtype to, const float *from, void *out, size_t count)
{
    if (to == KERN_F32) {
        if (count > 0) {
            memcpy(out, from, count * sizeof *from);
        }
        return;
    }
    struct small small = small_of(to);
    for (size_t i = 0; i < count; i++) {
        uint32_t code = encode(&small, from[i]);
        if (small.bytes == 2) {
            uint16_t code16 = (uint16_t)code;
            memcpy((char *)out + 2 * i, &code16, 2);
        } else {
            ((uint8_t *)out)[i] = (uint8_t)code;
        }
    }
}

void kern_ref_to_f32(enum kern_dtype from, const void *data, float *out, size_t count)
{
    if (from == KERN_F32) {
        if (count > 0) {
            memcpy(out, data, count * sizeof *out);
        }
        return;
    }
    if (kern_dtype_block(from) > 1) {
        kern_blocks_to_f32(from, data, out, count);
        return;
    }
    if (from == KERN_I8) {
        for (size_t i = 0; i < count; i++) {
            out[i] = ((const int8_t *)data)[i];
        }
        return;
    }
    struct small small = small_of(from);
    for (size_t i = 0; i < count; i++) {
        uint16_t code16;
        if (small.bytes == 2) {
            memcpy(&code16, (const char *)data + 2 * i, 2);
        } else {
            code16 = ((const uint8_t *)data)[i];
        }
        out[i] = decode(&small, code16);
    }
}
