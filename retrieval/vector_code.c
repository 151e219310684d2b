#include "retrieval/vector_code.h"

#include <math.h>
#include <string.h>

#define PIECE 64 /* values decoded at once */

static float largest_of(const float *vector, size_t dims)
{
    float most = 0.0f;
    for (size_t i = 0; i < dims; i++) {
        most = fmaxf(most, fabsf(vector[i]));
    }
    return most;
}

static double squares_of(const float *values, size_t count)
{
    double sum = 0.0;
    for (size_t i = 0; i < count; i++) {
        sum += (double)values[i] * values[i];
    }
    return sum;
}

/* The scale that gives codes the vector's length. */
static float scale_of(double vector_squares, double codes_squares)
{
    return codes_squares > 0.0 ? (float)sqrt(vector_squares / codes_squares) : 0.0f;
}

static float encode_float8(
    enum kern_dtype dtype, const float *vector, size_t dims, uint8_t *out_codes)
{
    float scaled[PIECE];
    const float top = dtype == KERN_E4M3 ? 448.0f : 57344.0f;
    const float factor = top / largest_of(vector, dims);
    double squares = 0.0;

    for (size_t at = 0; at < dims; at += PIECE) {
        const size_t count = dims - at < PIECE ? dims - at : PIECE;
        for (size_t i = 0; i < count; i++) {
            scaled[i] = vector[at + i] * factor;
        }
        kern_from_f32(dtype, scaled, out_codes + at, count);
        kern_to_f32(dtype, out_codes + at, scaled, count);
        squares += squares_of(scaled, count);
    }
    return scale_of(squares_of(vector, dims), squares);
}

static float encode_int8(const float *vector, size_t dims, int8_t *out_codes)
{
    const float factor = 127.0f / largest_of(vector, dims);
    double squares = 0.0;

    for (size_t i = 0; i < dims; i++) {
        const long code = lrintf(fminf(fmaxf(vector[i] * factor, -127.0f), 127.0f));
        out_codes[i] = (int8_t)code;
        squares += (double)(code * code);
    }
    return scale_of(squares_of(vector, dims), squares);
}

float retrieval_code_encode(
    enum kern_dtype dtype, const float *vector, size_t dims, void *out_codes)
{
    if (!(largest_of(vector, dims) > 1e-30f)) {
        memset(out_codes, 0, retrieval_code_bytes(dtype, dims)); /* 0 in every dtype */
        return 0.0f;
    }
    switch (dtype) {
    case KERN_E4M3:
    case KERN_E5M2:
        return encode_float8(dtype, vector, dims, out_codes);
    case KERN_I8:
        return encode_int8(vector, dims, out_codes);
    default:
        break;
    }
    kern_from_f32(dtype, vector, out_codes, dims);
    return 1.0f;
}

void retrieval_code_decode(
    enum kern_dtype dtype, const void *codes, float scale, size_t dims, float *out)
{
    kern_to_f32(dtype, codes, out, dims);
    for (size_t i = 0; i < dims; i++) {
        out[i] *= scale;
    }
}

/* ---- int8 with a range for each dimension --------------------------------------------------- */

void retrieval_ranges_fit(const float *sample, size_t count, size_t dims, float *out_ranges)
{
    memset(out_ranges, 0, dims * sizeof *out_ranges);
    for (size_t n = 0; n < count; n++) {
        for (size_t i = 0; i < dims; i++) {
            out_ranges[i] = fmaxf(out_ranges[i], fabsf(sample[n * dims + i]));
        }
    }
}

void retrieval_ranges_encode(
    const float *ranges, const float *vector, size_t dims, int8_t *out_codes)
{
    for (size_t i = 0; i < dims; i++) {
        const float step = ranges[i] > 0.0f ? vector[i] / ranges[i] * 127.0f : 0.0f;
        out_codes[i] = (int8_t)lrintf(fminf(fmaxf(step, -127.0f), 127.0f));
    }
}

void retrieval_ranges_query(const float *ranges, const float *query, size_t dims, float *out)
{
    for (size_t i = 0; i < dims; i++) {
        out[i] = query[i] * ranges[i] / 127.0f;
    }
}
