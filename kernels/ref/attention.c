#include "kernels/kv.h"
#include "kernels/ref/ops.h"

#include <math.h>

#define HEAD_DIM_MAX 256

/* The weights of one query. */
size_t kern_ref_attention_workspace_bytes(const struct kern_ctx *ctx, size_t t, size_t sequences,
    size_t heads, size_t kv_heads, size_t head_dim, size_t length_max)
{
    (void)ctx;
    (void)t;
    (void)sequences;
    (void)heads;
    (void)kv_heads;
    (void)head_dim;
    return length_max * sizeof(double);
}

/* Key or value `token` of sequence b. */
static void read(
    const struct kern_attention *a, size_t b, size_t head, size_t token, bool value, float *out)
{
    const struct kern_kv *kv = a->kv;
    size_t place = token % KERN_PAGE_TOKENS, d = kv->head_dim;
    struct kern_kv_head page = kern_kv_head(kv, kern_kv_page_bytes(kv->dtype, kv->heads, d),
        a->tables[b * a->tables_stride + token / KERN_PAGE_TOKENS], head);
    const char *codes = value ? page.values : page.keys;
    const float *scales = value ? page.value_scales : page.key_scales;
    kern_ref_to_f32(kv->dtype, codes + place * d * kern_dtype_bytes(kv->dtype), out, d);
    for (size_t i = 0; scales && i < d; i++) {
        out[i] *= scales[place];
    }
}

/* One query head of one row, over tokens first..end-1. */
static void attend(const struct kern_attention *a, size_t b, size_t row, size_t head, size_t first,
    size_t end, double *out)
{
    size_t d = a->kv->head_dim, kv_head = head / (a->heads / a->kv->heads);
    const float *q = a->query + row * a->query_stride + head * d;
    double *weights = a->workspace, most = -INFINITY, total = 0;
    float numbers[HEAD_DIM_MAX];
    for (size_t i = first; i < end; i++) {
        double sum = 0;
        read(a, b, kv_head, i, false, numbers);
        for (size_t k = 0; k < d; k++) {
            sum += (double)q[k] * (double)numbers[k];
        }
        weights[i - first] = sum * (double)a->scale;
        most = fmax(most, weights[i - first]);
    }
    for (size_t k = 0; k < d; k++) {
        out[k] = 0;
    }
    for (size_t i = first; i < end; i++) {
        double weight = exp(weights[i - first] - most);
        read(a, b, kv_head, i, true, numbers);
        total += weight;
        for (size_t k = 0; k < d; k++) {
            out[k] += weight * (double)numbers[k];
        }
    }
    for (size_t k = 0; k < d; k++) {
        out[k] /= total;
    }
}

void kern_ref_attention(struct kern_ctx *ctx, const struct kern_attention *a)
{
    size_t d = a->kv->head_dim, bytes = kern_dtype_bytes(a->out_dtype);
    double out[HEAD_DIM_MAX];
    (void)ctx;
    for (size_t b = 0; b < a->sequences; b++) {
        for (size_t i = a->starts[b] * a->heads; i < a->starts[b + 1] * a->heads; i++) {
            size_t row = i / a->heads, end = a->lengths[b] - (a->starts[b + 1] - row) + 1;
            size_t first = a->window > 0 && end > a->window ? end - a->window : 0;
            if (a->lengths[b] > 0) {
                attend(a, b, row, i % a->heads, first, end, out);
            }
            for (size_t k = 0; k < d; k++) {
                float number = a->lengths[b] > 0 ? (float)out[k] : 0;
                kern_ref_from_f32(a->out_dtype, &number, (char *)a->out + (i * d + k) * bytes, 1);
            }
        }
    }
}
