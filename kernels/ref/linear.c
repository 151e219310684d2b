#include "kernels/ref/ops.h"

#include <math.h>
#include <string.h>

/* x of one row: codes for int8 weights, rounded for bf16. */
size_t kern_ref_linear_workspace_bytes(const struct kern_matrix *w, size_t t)
{
    (void)t;
    return w->dtype == KERN_I8 ? w->k : w->dtype == KERN_BF16 ? w->k * sizeof(float) : 0;
}

static double activate(enum kern_activation act, double x)
{
    switch (act) {
    case KERN_NONE:
        break;
    case KERN_GELU:
        return x / 2 * (1 + erf(x / sqrt(2)));
    case KERN_GELU_TANH:
        return x / 2 * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case KERN_RELU:
        return x > 0 ? x : 0;
    case KERN_SILU:
        return x / (1 + exp(-x));
    }
    return x;
}

/* Codes of a row and the scale that they are to be multiplied with. */
static float quantize(const float *x, size_t k, int8_t *out)
{
    float most = 0;
    for (size_t i = 0; i < k; i++) {
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    }
    float to_code = most > 0 ? 127.0F / most : 0;
    for (size_t i = 0; i < k; i++) {
        float code = rintf(x[i] * to_code);
        out[i] = (int8_t)(code > 127 ? 127 : code > -127 ? code : -127);
    }
    return most / 127.0F;
}

static double dot_f32(const float *x, const float *w, size_t k)
{
    double sum = 0;
    for (size_t i = 0; i < k; i++) {
        sum += (double)x[i] * (double)w[i];
    }
    return sum;
}

static void round_row(const float *x, size_t k, float *out)
{
    for (size_t i = 0; i < k; i++) {
        uint16_t code;
        kern_ref_from_f32(KERN_BF16, &x[i], &code, 1);
        kern_ref_to_f32(KERN_BF16, &code, &out[i], 1);
    }
}

/* A bf16 is the upper half of a float32. */
static double dot_bf16(const float *x, const uint16_t *w, size_t k)
{
    double sum = 0;
    for (size_t i = 0; i < k; i++) {
        uint32_t bits = (uint32_t)w[i] << 16;
        float weight;
        memcpy(&weight, &bits, sizeof weight);
        sum += (double)x[i] * (double)weight;
    }
    return sum;
}

static double dot_i8(const int8_t *x, const int8_t *w, size_t k)
{
    int32_t sum = 0;
    for (size_t i = 0; i < k; i++) {
        sum += x[i] * w[i];
    }
    return sum;
}

void kern_ref_linear(struct kern_ctx *ctx, const struct kern_linear *a)
{
    const struct kern_matrix *w = a->w;
    int8_t *codes = a->workspace;
    float *rounded = a->workspace;
    float scale = 1;
    (void)ctx;
    for (size_t t = 0; t < a->t; t++) {
        const float *x = (const float *)a->x + t * w->k;
        if (w->dtype == KERN_I8) {
            scale = quantize(x, w->k, codes);
        } else if (w->dtype == KERN_BF16) {
            round_row(x, w->k, rounded);
        }
        for (size_t n = 0; n < w->n; n++) {
            size_t row = n * w->k, at = t * w->n + n;
            double sum;
            if (w->dtype == KERN_F32) {
                sum = dot_f32(x, (const float *)w->data + row, w->k);
            } else if (w->dtype == KERN_BF16) {
                sum = dot_bf16(rounded, (const uint16_t *)w->data + row, w->k);
            } else {
                sum = dot_i8(codes, (const int8_t *)w->data + row, w->k) * (double)scale *
                      (double)w->scales[n];
            }
            sum = activate(a->act, sum + (a->bias ? (double)a->bias[n] : 0));
            ((float *)a->y)[at] = (float)(sum + (a->residual ? (double)a->residual[at] : 0));
        }
    }
}
