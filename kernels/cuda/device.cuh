/* What the .cu files share: the device behind a context, its stream, launches, and the one place
 * where errors are kept.
 *
 * Every kernel is queued on the context's one stream, in order. An error stays in the context
 * (`failed`): later launches do nothing, and kern_sync tells it. Nothing here waits.
 *
 * Tests build the same files with plain g++ and -DKERN_CUDA_EMULATED -include the emulator's
 * header, which has the CUDA words (__global__, dim3, threadIdx ...), KERN_LAUNCH and
 * KERN_LAUNCH_CHAINED of its own: a kernel then runs when it is launched. */
#ifndef KERNELS_CUDA_DEVICE_CUH
#define KERNELS_CUDA_DEVICE_CUH

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

extern "C" {
#include "kernels/cuda/ops.h"
}

#ifndef KERN_CUDA_EMULATED

#include <cuda_runtime.h>

struct kern_profile; /* profile.cu's */
struct kern_blaslt;  /* linear.cu's: cuBLASLt, loaded at run time, and its plans */

enum kern_chains { KERN_CHAINS_NONE, KERN_CHAINS_SMALL, KERN_CHAINS_ALL };

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
    enum kern_chains chains; /* which kernels may start before the last has ended */
    bool recording;          /* between kern_graph_begin and _end */
    size_t live;             /* pieces of memory: none when it is reset */
    uint64_t generation;     /* of the device: what was made in another is gone */
    cudaError_t failed;      /* the first error; cudaSuccess: none */
    char failed_at[96];      /* what was tried */
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

/* May the kernel of this name start early? */
static inline bool kern_chains(const struct kern_cuda *own, const char *what)
{
    return own->chains == KERN_CHAINS_ALL ||
           (own->chains == KERN_CHAINS_SMALL && strncmp(what, "(skinny", 7) != 0);
}

/* A launch. shared: bytes of dynamic shared memory; what is above 48 KiB is asked for here.
 * chained: the kernel may start while the one before it in the stream still runs (programmatic
 * dependent launch, sm_90): it must call kern_wait_before before it reads what others wrote, and
 * before it writes anything; every one of its threads that exits must have called it. */
template <typename... P, typename... A>
void kern_cuda_launch(struct kern_ctx *ctx, const char *what, void (*kernel)(P...), dim3 grid,
    dim3 block, size_t shared, bool chained, A... args)
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
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared;
    config.stream = own->stream;
    config.attrs = &attribute;
    config.numAttrs = chained && kern_chains(own, what) && own->capability >= 90 ? 1 : 0;
    kern_profile_begin(own, what, grid.x * grid.y * grid.z);
    kern_cuda_check(ctx, cudaLaunchKernelEx(&config, kernel, (P)args...), what);
    kern_profile_end(own);
}

#define KERN_LAUNCH(ctx, kernel, grid, block, shared, ...)                                         \
    kern_cuda_launch(ctx, #kernel, kernel, grid, block, shared, false, __VA_ARGS__)
#define KERN_LAUNCH_CHAINED(ctx, kernel, grid, block, shared, ...)                                 \
    kern_cuda_launch(ctx, #kernel, kernel, grid, block, shared, true, __VA_ARGS__)

/* In a kernel launched with KERN_LAUNCH_CHAINED: wait for all that the kernels before it wrote. */
static __device__ __forceinline__ void kern_wait_before(void)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* Let the next kernel, if it is a chained one, begin to start: once all blocks said it or ended. */
static __device__ __forceinline__ void kern_start_next(void)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

#endif /* KERN_CUDA_EMULATED */

#endif
