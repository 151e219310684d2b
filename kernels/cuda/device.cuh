/* What the .cu files share: the device behind a context, its stream, launches, and the one place
 * where errors are kept.
 *
 * Every kernel is queued on the context's one stream, in order. An error stays in the context
 * (`failed`): later launches do nothing, and kern_sync tells it. Nothing here waits.
 *
 * Tests build the same files with plain g++, -DKERN_CUDA_EMULATED and, included before, headers of
 * their own that have the CUDA words (__global__, dim3, threadIdx ...) and CUDA's runtime. */
#ifndef KERNELS_CUDA_DEVICE_CUH
#define KERNELS_CUDA_DEVICE_CUH

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

extern "C" {
#include "kernels/cuda/ops.h"
}

#ifndef KERN_CUDA_EMULATED
#include <cuda_runtime.h>
#endif

struct kern_profile; /* profile.cu's */
struct kern_blaslt;  /* linear.cu's: cuBLASLt, loaded at run time, and its plans */

/* Behind ctx->own. */
struct kern_cuda {
    cudaStream_t stream; /* all operations */
    cudaStream_t copies; /* kern_upload_beside */
    cudaEvent_t copied;
    cudaEvent_t computed; /* what a download beside waits for */
    void *staging[2];     /* matrix.cu's: pinned, what is on its way to the device */
    cudaEvent_t staged[2];
    struct kern_blaslt *blaslt;                /* NULL: the library is not there */
    int multiprocessors, l2_bytes, capability; /* 90 for sm_90 */
    struct kern_profile *profile;              /* NULL: nobody asked for one */
    bool recording;                            /* between kern_graph_begin and _end */
    size_t live;                               /* pieces of memory: none when it is reset */
    uint64_t generation;                       /* of the device: what was made in another is gone */
    cudaError_t failed;                        /* the first error; cudaSuccess: none */
    char failed_at[96];                        /* what was tried */
};

static inline struct kern_cuda *kern_cuda_of(const struct kern_ctx *ctx)
{
    return (struct kern_cuda *)ctx->own;
}

static inline cudaStream_t kern_cuda_stream(const struct kern_ctx *ctx)
{
    return kern_cuda_of(ctx)->stream;
}

static inline bool kern_cuda_failed(const struct kern_ctx *ctx)
{
    return kern_cuda_of(ctx)->failed != cudaSuccess;
}

/* May something be queued? Not after an error, and not on a device that was reset meanwhile. */
bool kern_cuda_usable(struct kern_ctx *ctx);

/* Keep the first error. `what` (static) is what was tried: a kernel's or an operation's name. */
void kern_cuda_check(struct kern_ctx *ctx, cudaError_t error, const char *what);

/* How many multiprocessors: what a grid that should fill the device once needs. */
static inline size_t kern_cuda_width(const struct kern_ctx *ctx)
{
    return (size_t)kern_cuda_of(ctx)->multiprocessors;
}

/* Where the time goes (profile.cu): around each launch; nothing where no profile was asked for. */
void kern_profile_open(struct kern_cuda *own); /* reads the environment */
void kern_profile_begin(struct kern_cuda *own, const char *what, unsigned blocks);
void kern_profile_end(struct kern_cuda *own);
void kern_profile_close(struct kern_cuda *own); /* writes the table */

/* A launch. shared: bytes of dynamic shared memory; what is above 48 KiB is asked for here. */
template <typename... P, typename... A>
void kern_cuda_launch(struct kern_ctx *ctx, const char *what, void (*kernel)(P...), dim3 grid,
    dim3 block, size_t shared, A... args)
{
    struct kern_cuda *own = kern_cuda_of(ctx);
    if (!kern_cuda_usable(ctx)) {
        return;
    }
    if (shared > (48U << 10)) {
        kern_cuda_check(ctx,
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
            what);
    }
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared;
    config.stream = own->stream;
    kern_profile_begin(own, what, grid.x * grid.y * grid.z);
    kern_cuda_check(ctx, cudaLaunchKernelEx(&config, kernel, (P)args...), what);
    kern_profile_end(own);
}

#define KERN_LAUNCH(ctx, kernel, grid, block, shared, ...)                                         \
    kern_cuda_launch(ctx, #kernel, kernel, grid, block, shared, __VA_ARGS__)

#endif
