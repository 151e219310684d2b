#include "kernels/cpu/scan_rows.h"

void scan_rows(const struct scan_dots *dots, enum kern_dtype dtype, const void *codes,
    const float *scales, const uint32_t *rows_index, size_t count, size_t k, const float *query,
    float *scores)
{
    const size_t row_bytes = k * kern_dtype_bytes(dtype);
    const float unit = dtype == KERN_E4M3 ? 256.0F : 1.0F; /* e4m3 is read as f16: 2^8 too small */
    for (size_t i = 0; i < count; i += SCAN_ROWS) {
        size_t group = count - i < SCAN_ROWS ? count - i : SCAN_ROWS;
        const char *rows[SCAN_ROWS];
        size_t numbers[SCAN_ROWS];
        float out[SCAN_ROWS];
        for (size_t r = 0; r < group; r++) {
            numbers[r] = rows_index ? rows_index[i + r] : i + r;
            rows[r] = (const char *)codes + numbers[r] * row_bytes;
        }
        if (group == SCAN_ROWS) {
            dots->some(rows, k, query, out);
        } else {
            for (size_t r = 0; r < group; r++) {
                dots->one(rows + r, k, query, out + r);
            }
        }
        for (size_t r = 0; r < group; r++) {
            scores[i + r] = out[r] * (scales ? unit * scales[numbers[r]] : unit);
        }
    }
}
