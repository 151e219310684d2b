#include "kernels/blocks.h"
#include "kernels/ref/ops.h"

#include <math.h>
#include <string.h>

#define GROUP 32 /* numbers of x that have a scale, for weights in blocks */

/* What of x is kept for one row: codes and scales for codes, else numbers. */
size_t kern_ref_linear_workspace_bytes(const struct kern_matrix *w, size_t t)
{
    (void)t;
    switch (w->dtype) {
    case KERN_F32:
        return 0;
    case KERN_BF16:
        return w->k * sizeof(float);
    case KERN_I8:
        return w->k;
    default:
        return w->k / GROUP * sizeof(float) + w->k;
    }
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

/* Codes of k numbers and the scale that they are to be multiplied with. */
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

/* ---- blocks -------------------------------------------------------------------------------- */

/* What a code stands for, before it is scaled. */
static int32_t value_of(enum kern_dtype dtype, const struct kern_block *block, size_t i)
{
    switch (dtype) {
    case KERN_Q8_0:
        return (int8_t)block->codes[i];
    case KERN_Q4_0:
        return block->codes[i] - 8;
    case KERN_Q6_K:
        return block->codes[i] - 32;
    default:
        return block->codes[i];
    }
}

/* 16 or 32 numbers: the int32 sum, with its scales but x's. */
static double dot_group(enum kern_dtype dtype, const int8_t *x, const struct kern_block *block,
    const float d[2], size_t first)
{
    size_t count = dtype == KERN_Q6_K ? 16 : GROUP;
    int32_t sum = 0, x_sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += x[i] * value_of(dtype, block, first + i);
        x_sum += x[i];
    }
    if (dtype == KERN_Q4_K) {
        return (double)d[0] * block->scales[first / 32] * sum -
               (double)d[1] * block->mins[first / 32] * x_sum;
    }
    return (double)d[0] * (dtype == KERN_Q6_K ? block->scales[first / 16] : 1) * sum;
}

/* x in codes, with a scale for 32. */
static double dot_blocks(
    const struct kern_matrix *w, size_t n, const int8_t *x, const float *scales)
{
    size_t block = kern_dtype_block(w->dtype), bytes = kern_dtype_row_bytes(w->dtype, block);
    size_t group = w->dtype == KERN_Q6_K ? 16 : GROUP;
    const char *row = (const char *)w->data + n * (w->k / block) * bytes;
    double sum = 0;
    for (size_t k = 0; k < w->k; k += block, row += bytes) {
        struct kern_block open;
        float d[2] = {0, 0};
        kern_block_open(w->dtype, row, &open);
        kern_ref_to_f32(KERN_F16, &open.d, &d[0], 1);
        if (w->dtype == KERN_Q4_K) {
            kern_ref_to_f32(KERN_F16, &open.d_min, &d[1], 1);
        }
        for (size_t i = 0; i < block; i += group) {
            sum += dot_group(w->dtype, x + k + i, &open, d, i) * (double)scales[(k + i) / GROUP];
        }
    }
    return sum;
}

/* ---- the product --------------------------------------------------------------------------- */

/* A row of x as the weights want it. */
struct row {
    const float *x;
    int8_t *codes;
    float *scales; /* [0]: of the row, for int8 */
    float scale;
};

static struct row row_of(const struct kern_linear *a, size_t t)
{
    const struct kern_matrix *w = a->w;
    float *rounded = a->workspace;
    struct row row = {.x = (const float *)a->x + t * w->k};
    if (w->dtype == KERN_BF16) {
        if (a->x_dtype == KERN_BF16) {
            kern_ref_to_f32(KERN_BF16, (const uint16_t *)a->x + t * w->k, rounded, w->k);
        } else {
            round_row(row.x, w->k, rounded);
        }
        row.x = rounded;
    } else if (w->dtype == KERN_I8) {
        row.codes = a->workspace;
        row.scale = quantize(row.x, w->k, row.codes);
    } else if (w->dtype != KERN_F32) {
        row.scales = a->workspace;
        row.codes = (int8_t *)(row.scales + w->k / GROUP);
        for (size_t k = 0; k < w->k; k += GROUP) {
            row.scales[k / GROUP] = quantize(row.x + k, GROUP, row.codes + k);
        }
    }
    return row;
}

static double dot(const struct kern_matrix *w, size_t n, const struct row *row)
{
    switch (w->dtype) {
    case KERN_F32:
        return dot_f32(row->x, (const float *)w->data + n * w->k, w->k);
    case KERN_BF16:
        return dot_bf16(row->x, (const uint16_t *)w->data + n * w->k, w->k);
    case KERN_I8:
        return dot_i8(row->codes, (const int8_t *)w->data + n * w->k, w->k) * (double)row->scale *
               (double)w->scales[n];
    default:
        return dot_blocks(w, n, row->codes, row->scales);
    }
}

void kern_ref_linear(struct kern_ctx *ctx, const struct kern_linear *a)
{
    const struct kern_matrix *w = a->w;
    (void)ctx;
    for (size_t t = 0; t < a->t; t++) {
        struct row row = row_of(a, t);
        for (size_t n = 0; n < w->n; n++) {
            size_t at = t * w->n + n;
            double sum = dot(w, n, &row) + (a->bias ? (double)a->bias[n] : 0);
            sum = activate(a->act, sum) + (a->residual ? (double)a->residual[at] : 0);
            float y = (float)sum;
            kern_ref_from_f32(a->y_dtype == KERN_BF16 ? KERN_BF16 : KERN_F32, &y,
                (char *)a->y + at * (a->y_dtype == KERN_BF16 ? 2 : 4), 1);
        }
    }
}
