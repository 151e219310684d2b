#include "kernels/ref/ops.h"

#include <math.h>

/* The weights of one query. */
size_t kern_ref_encode_attention_workspace_bytes(
    const struct kern_ctx *ctx, size_t longest, size_t head_dim)
{
    (void)ctx;
    (void)head_dim;
    return longest * sizeof(double);
}

/* One query row against the rows first..end-1 of its sequence. */
static void attend(const struct kern_encode_attention *a, size_t head, size_t query, size_t first,
    size_t end, double *weights)
{
    size_t width = a->heads * a->head_dim, offset = head * a->head_dim;
    const float *q = a->qkv + query * 3 * width + offset;
    float *out = a->out + query * width + offset;
    double most = -INFINITY, total = 0;
    for (size_t i = first; i < end; i++) {
        const float *key = a->qkv + i * 3 * width + width + offset;
        double sum = 0;
        for (size_t d = 0; d < a->head_dim; d++) {
            sum += (double)q[d] * (double)key[d];
        }
        weights[i - first] = sum * (double)a->scale;
        most = fmax(most, weights[i - first]);
    }
    for (size_t i = 0; i < end - first; i++) {
        weights[i] = exp(weights[i] - most);
        total += weights[i];
    }
    for (size_t d = 0; d < a->head_dim; d++) {
        double sum = 0;
        for (size_t i = first; i < end; i++) {
            sum += weights[i - first] * (double)a->qkv[i * 3 * width + 2 * width + offset + d];
        }
        out[d] = (float)(sum / total);
    }
}

void kern_ref_encode_attention(struct kern_ctx *ctx, const struct kern_encode_attention *a)
{
    (void)ctx;
    for (size_t b = 0; b < a->sequences; b++) {
        for (size_t head = 0; head < a->heads; head++) {
            for (size_t t = a->starts[b]; t < a->starts[b + 1]; t++) {
                attend(a, head, t, a->starts[b], a->starts[b + 1], a->workspace);
            }
        }
    }
}
