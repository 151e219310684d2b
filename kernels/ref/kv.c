/* The paged cache: writing, reading, moving. */
#include "kernels/kv.h"
#include "kernels/ref/ops.h"

#include <math.h>
#include <string.h>

#define HEAD_DIM_MAX 256

/* D numbers in the cache's type; *scale is written for E4M3. */
static void encode(enum kern_dtype dtype, const float *x, size_t d, void *out, float *scale)
{
    if (dtype != KERN_E4M3) {
        kern_ref_from_f32(dtype, x, out, d);
        return;
    }
    float most = 0;
    for (size_t i = 0; i < d; i++) {
        most = isnan(x[i]) || fabsf(x[i]) > most ? fabsf(x[i]) : most; /* a NaN stays */
    }
    *scale = kern_kv_scale(most);
    for (size_t i = 0; i < d; i++) {
        float code = *scale > 0 ? x[i] / *scale : 0;
        kern_ref_from_f32(dtype, &code, (uint8_t *)out + i, 1);
    }
}

static void decode(enum kern_dtype dtype, const void *codes, const float *scale, size_t d, float *x)
{
    kern_ref_to_f32(dtype, codes, x, d);
    for (size_t i = 0; dtype == KERN_E4M3 && i < d; i++) {
        x[i] *= *scale;
    }
}

/* One head of one token. */
struct place {
    void *key, *value;
    float *key_scale, *value_scale;
};

static struct place place_of(const struct kern_kv *kv, uint32_t slot, size_t head)
{
    struct kern_kv_head page = kern_kv_head(
        kv, kern_kv_page_bytes(kv->dtype, kv->heads, kv->head_dim), slot / KERN_PAGE_TOKENS, head);
    size_t token = slot % KERN_PAGE_TOKENS, bytes = kv->head_dim * kern_dtype_bytes(kv->dtype);
    struct place place = {page.keys + token * bytes, page.values + token * bytes, NULL, NULL};
    if (kv->dtype == KERN_E4M3) {
        place.key_scale = page.key_scales + token;
        place.value_scale = page.value_scales + token;
    }
    return place;
}

void kern_ref_kv_write(struct kern_ctx *ctx, const struct kern_kv_write *a)
{
    size_t d = a->kv->head_dim, bytes = kern_dtype_bytes(a->from);
    float x[HEAD_DIM_MAX];
    (void)ctx;
    for (size_t i = 0; i < a->t * a->kv->heads; i++) {
        size_t t = i / a->kv->heads, head = i % a->kv->heads;
        size_t at = (t * a->stride + head * d) * bytes;
        if (a->slots[t] == KERN_NO_SLOT) {
            continue;
        }
        struct place place = place_of(a->kv, a->slots[t], head);
        kern_ref_to_f32(a->from, (const char *)a->key + at, x, d);
        if (a->rope) {
            kern_ref_rotate_head(a->rope, a->positions[t], x);
        }
        encode(a->kv->dtype, x, d, place.key, place.key_scale);
        kern_ref_to_f32(a->from, (const char *)a->value + at, x, d);
        encode(a->kv->dtype, x, d, place.value, place.value_scale);
    }
}

void kern_ref_kv_read(struct kern_ctx *ctx, const struct kern_kv_read *a)
{
    size_t d = a->kv->head_dim;
    (void)ctx;
    for (size_t i = 0; i < a->t * a->kv->heads; i++) {
        size_t t = i / a->kv->heads, head = i % a->kv->heads;
        float *key = a->key + i * d, *value = a->value + i * d;
        if (a->slots[t] == KERN_NO_SLOT) {
            memset(key, 0, d * sizeof *key);
            memset(value, 0, d * sizeof *value);
            continue;
        }
        struct place place = place_of(a->kv, a->slots[t], head);
        decode(a->kv->dtype, place.key, place.key_scale, d, key);
        decode(a->kv->dtype, place.value, place.value_scale, d, value);
    }
}

void kern_ref_kv_shift(struct kern_ctx *ctx, const struct kern_kv_shift *a)
{
    float x[HEAD_DIM_MAX];
    (void)ctx;
    for (size_t i = 0; i < a->t * a->kv->heads; i++) {
        size_t t = i / a->kv->heads, head = i % a->kv->heads;
        if (a->slots[t] == KERN_NO_SLOT || a->shifts[t] == 0) {
            continue;
        }
        struct place place = place_of(a->kv, a->slots[t], head);
        decode(a->kv->dtype, place.key, place.key_scale, a->kv->head_dim, x);
        kern_ref_shift_head(a->rope, a->shifts[t], x);
        encode(a->kv->dtype, x, a->kv->head_dim, place.key, place.key_scale);
    }
}
