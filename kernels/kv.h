/* Where a token's keys and values lie in the pages of a cache (kernels/decoder.h). */
#ifndef KERNELS_KV_H
#define KERNELS_KV_H

#include "kernels/decoder.h"

/* One head of one page: keys (32, D), values (32, D), their scales (32) for E4M3, else NULL. */
struct kern_kv_head {
    char *keys, *values;
    float *key_scales, *value_scales;
};

static inline struct kern_kv_head kern_kv_head(
    const struct kern_kv *kv, size_t page_bytes, size_t page, size_t head)
{
    size_t head_bytes = KERN_PAGE_TOKENS * kv->head_dim * kern_dtype_bytes(kv->dtype);
    char *at = (char *)kv->pages + page * page_bytes;
    struct kern_kv_head out = {
        at + head * head_bytes, at + (kv->heads + head) * head_bytes, NULL, NULL};
    if (kv->dtype == KERN_E4M3) {
        float *scales = (float *)(void *)(at + 2 * kv->heads * head_bytes);
        out.key_scales = scales + head * KERN_PAGE_TOKENS;
        out.value_scales = scales + (kv->heads + head) * KERN_PAGE_TOKENS;
    }
    return out;
}

/* The E4M3 scale of numbers of which the largest magnitude is `most` (NaN when one is NaN): NaN
 * when one is not finite, so that all of them are read as NaN; 0, and all codes 0, when they are
 * too small to be divided by. */
static inline float kern_kv_scale(float most)
{
    return !(most <= 3.4028234e38F) ? __builtin_nanf("") : most < 1e-30F ? 0.0F : most / 448.0F;
}

#endif
