/* Products with many rows of x: NVIDIA's cuBLASLt, opened at run time.
 *
 * What was built with CUDA so starts where the library is not; products then go through skinny.cu,
 * right and slower. Plans (which of the library's kernels, with which tiles) are looked up once for
 * each shape and kept. float32 is multiplied as float32, never in tf32: the first tokens that a CPU
 * and a GPU choose should be the same. */
#include "kernels/cuda/linear.cuh"

#include <cublasLt.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define WORKSPACE_BYTES ((size_t)32 << 20) /* what NVIDIA advises for sm_90 */
#define PLANS 1024                         /* a power of two */
#define PLACES 8                           /* that a plan may have */

#define FUNCTIONS(X)                                                                               \
    X(cublasLtCreate)                                                                              \
    X(cublasLtDestroy)                                                                             \
    X(cublasLtGetVersion)                                                                          \
    X(cublasLtMatmul)                                                                              \
    X(cublasLtMatmulAlgoGetHeuristic)                                                              \
    X(cublasLtMatmulDescCreate)                                                                    \
    X(cublasLtMatmulDescDestroy)                                                                   \
    X(cublasLtMatmulDescSetAttribute)                                                              \
    X(cublasLtMatmulPreferenceCreate)                                                              \
    X(cublasLtMatmulPreferenceDestroy)                                                             \
    X(cublasLtMatmulPreferenceSetAttribute)                                                        \
    X(cublasLtMatrixLayoutCreate)                                                                  \
    X(cublasLtMatrixLayoutDestroy)

/* The library's functions under their names; stays open until the process ends. */
static struct {
#define X(name) decltype(&::name) name;
    FUNCTIONS(X)
#undef X
    bool there;
} lt;

static void load(void)
{
    static const char *const names[] = {
        "libcublasLt.so.13", "/usr/local/cuda/lib64/libcublasLt.so.13", "libcublasLt.so"};
    void *library = NULL;
    for (size_t i = 0; !library && i < sizeof names / sizeof *names; i++) {
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    }
    lt.there = library != NULL;
#define X(name)                                                                                    \
    lt.name = library ? (decltype(&::name))dlsym(library, #name) : NULL;                           \
    lt.there = lt.there && lt.name;
    FUNCTIONS(X)
#undef X
    /* Structs are as in the header that this was compiled with. */
    lt.there = lt.there && lt.cublasLtGetVersion() / 10000 == CUBLAS_VERSION / 10000;
}

/* What a plan is for. Compared as bytes: no gaps. */
struct shape {
    uint64_t n, k, t, ld;
    uint32_t w_dtype, d_dtype;
    uint32_t aligned; /* what all of x, c and d are multiples of, up to 256 */
    uint32_t adds;    /* c is added */
};

struct plan {
    struct shape shape;
    bool found; /* false in a used place: the library knows no way */
    bool used;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t w, x, d;
    cublasLtMatmulAlgo_t algorithm;
};

struct kern_blaslt {
    cublasLtHandle_t handle;
    struct plan plans[PLANS];
};

void kern_blaslt_open(struct kern_blaslt **out)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct kern_blaslt *blaslt = NULL;
    *out = NULL;
    (void)pthread_once(&once, load);
    if (!lt.there || !(blaslt = (struct kern_blaslt *)calloc(1, sizeof *blaslt))) {
        return;
    } else if (lt.cublasLtCreate(&blaslt->handle) != CUBLAS_STATUS_SUCCESS) {
        free(blaslt);
        return;
    }
    *out = blaslt;
}

static void drop(struct plan *plan)
{
    if (plan->product) {
        (void)lt.cublasLtMatmulDescDestroy(plan->product);
    }
    for (cublasLtMatrixLayout_t layout : {plan->w, plan->x, plan->d}) {
        if (layout) {
            (void)lt.cublasLtMatrixLayoutDestroy(layout);
        }
    }
    memset(plan, 0, sizeof *plan);
}

void kern_blaslt_close(struct kern_blaslt **blaslt)
{
    if (*blaslt) {
        for (size_t i = 0; i < PLANS; i++) {
            drop(&(*blaslt)->plans[i]);
        }
        (void)lt.cublasLtDestroy((*blaslt)->handle);
        free(*blaslt);
        *blaslt = NULL;
    }
}

size_t kern_blaslt_workspace_bytes(void)
{
    return WORKSPACE_BYTES;
}

static cudaDataType_t type_of(uint32_t dtype)
{
    return dtype == KERN_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

/* The library is column-major: row-major W (N, K) is its (K, N), to be transposed. */
static bool describe(struct plan *plan)
{
    const struct shape *s = &plan->shape;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    cudaDataType_t w = type_of(s->w_dtype), d = type_of(s->d_dtype);
    return lt.cublasLtMatmulDescCreate(&plan->product, CUBLAS_COMPUTE_32F, CUDA_R_32F) ==
               CUBLAS_STATUS_SUCCESS &&
           lt.cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_TRANSA,
               &transposed, sizeof transposed) == CUBLAS_STATUS_SUCCESS &&
           lt.cublasLtMatrixLayoutCreate(&plan->w, w, s->k, s->n, (int64_t)s->k) ==
               CUBLAS_STATUS_SUCCESS &&
           lt.cublasLtMatrixLayoutCreate(&plan->x, w, s->k, s->t, (int64_t)s->k) ==
               CUBLAS_STATUS_SUCCESS &&
           lt.cublasLtMatrixLayoutCreate(&plan->d, d, s->n, s->t, (int64_t)s->ld) ==
               CUBLAS_STATUS_SUCCESS;
}

static bool choose(struct kern_blaslt *blaslt, struct plan *plan)
{
    static const cublasLtMatmulPreferenceAttributes_t alignments[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t result;
    size_t workspace = WORKSPACE_BYTES;
    int count = 0;
    if (lt.cublasLtMatmulPreferenceCreate(&preference) != CUBLAS_STATUS_SUCCESS) {
        return false;
    }
    bool set = lt.cublasLtMatmulPreferenceSetAttribute(preference,
                   CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                   sizeof workspace) == CUBLAS_STATUS_SUCCESS;
    for (cublasLtMatmulPreferenceAttributes_t which : alignments) {
        set = set && lt.cublasLtMatmulPreferenceSetAttribute(preference, which,
                         &plan->shape.aligned, sizeof plan->shape.aligned) == CUBLAS_STATUS_SUCCESS;
    }
    bool found = set &&
                 lt.cublasLtMatmulAlgoGetHeuristic(blaslt->handle, plan->product, plan->w, plan->x,
                     plan->d, plan->d, preference, 1, &result, &count) == CUBLAS_STATUS_SUCCESS &&
                 count > 0 && result.state == CUBLAS_STATUS_SUCCESS;
    if (found) {
        plan->algorithm = result.algo;
    }
    (void)lt.cublasLtMatmulPreferenceDestroy(preference);
    return found;
}

/* The plan for a shape, made when it is new; where all its places are taken, the first one's goes.
 */
static struct plan *plan_of(struct kern_blaslt *blaslt, const struct shape *shape)
{
    uint64_t hash = 0;
    const unsigned char *bytes = (const unsigned char *)shape;
    for (size_t i = 0; i < sizeof *shape; i++) {
        hash = (hash ^ bytes[i]) * 0x100000001b3;
    }
    hash ^= hash >> 29;
    struct plan *plan = &blaslt->plans[hash % PLANS];
    for (size_t i = 0; i < PLACES; i++) {
        struct plan *at = &blaslt->plans[(hash + i) % PLANS];
        if (at->used && memcmp(&at->shape, shape, sizeof *shape) == 0) {
            return at;
        } else if (!at->used) {
            plan = at;
            break;
        }
    }
    drop(plan);
    plan->shape = *shape;
    plan->used = true;
    plan->found = describe(plan) && choose(blaslt, plan);
    return plan;
}

bool kern_blaslt_multiply(struct kern_ctx *ctx, const struct kern_product *p, void *workspace)
{
    struct kern_cuda *own = kern_cuda_of(ctx);
    struct kern_blaslt *blaslt = own->blaslt;
    const float one = 1, beta = p->c ? 1 : 0;
    uintptr_t bits = (uintptr_t)p->x | (uintptr_t)p->c | (uintptr_t)p->d | 256;
    struct shape shape = {p->n, p->k, p->t, p->ld, (uint32_t)p->w_dtype, (uint32_t)p->d_dtype,
        (uint32_t)(bits & -bits), p->c ? 1U : 0U};
    struct plan *plan = blaslt ? plan_of(blaslt, &shape) : NULL;
    if (!plan || !plan->found) {
        return false;
    }
    kern_profile_begin(own, "cublasLtMatmul", (unsigned)p->n);
    cublasStatus_t status = lt.cublasLtMatmul(blaslt->handle, plan->product, &one, p->w, plan->w,
        p->x, plan->x, &beta, p->c ? (const void *)p->c : p->d, plan->d, p->d, plan->d,
        &plan->algorithm, workspace, WORKSPACE_BYTES, own->stream);
    kern_profile_end(own);
    if (status != CUBLAS_STATUS_SUCCESS) {
        cudaError_t error = cudaGetLastError();
        kern_cuda_check(ctx, error != cudaSuccess ? error : cudaErrorUnknown, "cublasLtMatmul");
    }
    return true;
}
