#include "kernels/ref/ops.h"

#include <math.h>

static double element(enum kern_dtype dtype, const char *row, size_t i)
{
    float value;
    kern_ref_to_f32(dtype, row + i * kern_dtype_bytes(dtype), &value, 1);
    if (dtype == KERN_E4M3 && isnan(value)) {
        return copysign(480, value); /* kern.h: what its NaN counts as */
    }
    return (double)value;
}

void kern_ref_scan(enum kern_dtype dtype, const void *codes, const float *scales,
    const uint32_t *rows_index, size_t count, size_t k, const float *query, float *scores)
{
    for (size_t i = 0; i < count; i++) {
        size_t number = rows_index ? rows_index[i] : i;
        const char *row = (const char *)codes + number * k * kern_dtype_bytes(dtype);
        double sum = 0;
        for (size_t at = 0; at < k; at++) {
            sum += (double)query[at] * element(dtype, row, at);
        }
        scores[i] = (float)(sum * (scales ? (double)scales[number] : 1));
    }
}
