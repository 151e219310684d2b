/* Any bytes as the answer of an endpoint for one to four texts: what is taken are unit vectors of
 * the dimension that was known, or of one that fits. */
#include "retrieval/encoder_internal.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FLOATS = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    size_t count = 1 + data[0] % 4, known = data[0] / 4 % 8, dims = known;
    float *out = malloc(FLOATS * sizeof *out);
    memos_assert(out);
    enum memos_status status = retrieval_answer_read(
        memos_bytes_make(data + 1, size - 1), count, &dims, out, FLOATS, NULL);
    memos_assert(status == MEMOS_OK || status == MEMOS_CORRUPT);
    if (status == MEMOS_OK) {
        memos_assert(dims > 0 && count * dims <= FLOATS && (known == 0 || dims == known));
        for (size_t i = 0; i < count; i++) {
            double squares = 0.0;
            for (size_t d = 0; d < dims; d++) {
                squares += (double)out[i * dims + d] * (double)out[i * dims + d];
            }
            memos_assert(fabs(squares - 1.0) < 1e-3);
        }
    }
    free(out);
    return 0;
}
