/* Where a token's keys and values lie in a cache of pages (kernels/decoder.h). */
#ifndef KERNELS_CUDA_KV_CUH
#define KERNELS_CUDA_KV_CUH

#include "kernels/cuda/numbers.cuh"

/* A kern_kv as a kernel takes it. */
struct kv_view {
    unsigned char *pages;
    size_t page_bytes;
    unsigned heads, head_dim;
};

static inline struct kv_view kv_view_of(const struct kern_kv *kv)
{
    return {(unsigned char *)kv->pages, kern_kv_page_bytes(kv->dtype, kv->heads, kv->head_dim),
        (unsigned)kv->heads, (unsigned)kv->head_dim};
}

/* What lies in a page: the first number (of a page's numbers of the cache's type) of head `head` at
 * place `place`; values lie heads * 32 * head_dim further. */
static __device__ __forceinline__ size_t kv_at(const kv_view &kv, unsigned head, unsigned place)
{
    return ((size_t)head * KERN_PAGE_TOKENS + place) * kv.head_dim;
}

static __device__ __forceinline__ size_t kv_values(const kv_view &kv)
{
    return (size_t)kv.heads * KERN_PAGE_TOKENS * kv.head_dim;
}

/* E4M3 only: the scales of a page's keys; those of its values lie heads * 32 further. */
static __device__ __forceinline__ float *kv_scales(const kv_view &kv, unsigned char *page)
{
    return (float *)(page + 2 * kv_values(kv));
}

#endif
