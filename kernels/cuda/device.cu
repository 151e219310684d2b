/* The device behind a context: memory, copies, errors, recorded operations.
 *
 * All contexts of a process share the device's one CUDA context. When that has failed it is reset
 * as a whole (kern_reset): `generation` counts how often, and what was made before is known by its
 * number. */
#include "kernels/cuda/device.cuh"

#include "kernels/cuda/linear.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t generation; /* atomic */

uint64_t kern_cuda_generation(void)
{
    return __atomic_load_n(&generation, __ATOMIC_ACQUIRE);
}

/* ---- errors -------------------------------------------------------------------------------- */

void kern_cuda_check(struct kern_ctx *ctx, cudaError_t error, const char *what)
{
    struct kern_cuda *own = kern_cuda_of(ctx);
    if (error != cudaSuccess && own->failed == cudaSuccess) {
        own->failed = error;
        (void)snprintf(own->failed_at, sizeof own->failed_at, "%s", what);
    }
}

bool kern_cuda_usable(struct kern_ctx *ctx)
{
    struct kern_cuda *own = kern_cuda_of(ctx);
    if (own->generation != kern_cuda_generation()) {
        kern_cuda_check(ctx, cudaErrorContextIsDestroyed, "another context was reset");
    }
    return own->failed == cudaSuccess;
}

/* Here alone CUDA's errors become ours. */
static enum memos_status translate(cudaError_t error, const char *what, struct memos_error *err)
{
    enum memos_status status = MEMOS_IO;
    switch (error) {
    case cudaErrorMemoryAllocation:
        status = MEMOS_NO_MEMORY;
        break;
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInitializationError:
    case cudaErrorStubLibrary:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorSystemNotReady:
    case cudaErrorCompatNotSupportedOnDevice:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
        status = MEMOS_UNSUPPORTED;
        break;
    case cudaErrorInvalidValue:
    case cudaErrorInvalidConfiguration:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorLaunchOutOfResources:
    case cudaErrorInvalidResourceHandle:
    case cudaErrorStreamCaptureUnsupported:
    case cudaErrorStreamCaptureInvalidated:
        status = MEMOS_INTERNAL; /* we asked for what cannot be */
        break;
    default:
        break;
    }
    return memos_fail_foreign(
        err, status, (int)error, "cuda: %s: %s", what, cudaGetErrorString(error));
}

/* Does the device answer everything with an error from now on? */
static bool device_is_lost(struct kern_cuda *own)
{
    (void)cudaGetLastError();
    cudaError_t now = cudaStreamQuery(own->stream);
    return (now != cudaSuccess && now != cudaErrorNotReady) ||
           own->generation != kern_cuda_generation();
}

/* Tell the first error. One that does not last is forgotten with that. */
static enum memos_status tell(struct kern_ctx *ctx, struct memos_error *err)
{
    struct kern_cuda *own = kern_cuda_of(ctx);
    if (own->failed == cudaSuccess) {
        return MEMOS_OK;
    }
    enum memos_status status = translate(own->failed, own->failed_at, err);
    if (device_is_lost(own)) {
        return memos_fail_foreign(err, MEMOS_IO, (int)own->failed,
            "cuda: the device failed: %s: %s", own->failed_at, cudaGetErrorString(own->failed));
    }
    own->failed = cudaSuccess;
    return status;
}

/* ---- open, close, reset -------------------------------------------------------------------- */

namespace
{

__global__ void nothing(void)
{
}

} // namespace

static cudaError_t make_streams(struct kern_cuda *own)
{
    cudaError_t error = cudaStreamCreateWithFlags(&own->stream, cudaStreamNonBlocking);
    if (error == cudaSuccess) {
        error = cudaStreamCreateWithFlags(&own->copies, cudaStreamNonBlocking);
    }
    if (error == cudaSuccess) {
        error = cudaEventCreateWithFlags(&own->copied, cudaEventDisableTiming);
    }
    if (error == cudaSuccess) {
        error = cudaEventCreateWithFlags(&own->computed, cudaEventDisableTiming);
    }
    if (error == cudaSuccess) {
        cudaLaunchConfig_t config = {};
        config.gridDim = dim3(1);
        config.blockDim = dim3(32);
        config.stream = own->stream;
        error = cudaLaunchKernelEx(&config, nothing); /* is there code for this device? */
    }
    return error == cudaSuccess ? cudaStreamSynchronize(own->stream) : error;
}

static void drop_streams(struct kern_cuda *own)
{
    kern_blaslt_close(&own->blaslt);
    if (own->generation == kern_cuda_generation()) {
        for (size_t i = 0; i < 2; i++) {
            if (own->staging[i]) {
                (void)cudaFreeHost(own->staging[i]);
                (void)cudaEventDestroy(own->staged[i]);
            }
        }
        if (own->copied) {
            (void)cudaEventDestroy(own->copied);
        }
        if (own->computed) {
            (void)cudaEventDestroy(own->computed);
        }
        if (own->copies) {
            (void)cudaStreamDestroy(own->copies);
        }
        if (own->stream) {
            (void)cudaStreamDestroy(own->stream);
        }
    }
    own->staging[0] = own->staging[1] = NULL;
    own->copied = own->computed = NULL;
    own->copies = own->stream = NULL;
}

/* Ask the device what it is, and start on it. */
static enum memos_status start(struct kern_ctx *ctx, struct memos_error *err)
{
    struct kern_cuda *own = kern_cuda_of(ctx);
    struct cudaDeviceProp properties;
    cudaError_t error = cudaSetDevice(0);
    own->generation = kern_cuda_generation();
    if (error == cudaSuccess) {
        error = cudaGetDeviceProperties(&properties, 0);
    }
    if (error != cudaSuccess) {
        (void)cudaGetLastError();
        return translate(error, "no GPU that can be used", err);
    }
    own->multiprocessors = properties.multiProcessorCount;
    own->l2_bytes = properties.l2CacheSize;
    own->capability = properties.major * 10 + properties.minor;
    (void)snprintf(
        ctx->name, sizeof ctx->name, "cuda/sm_%d, %.40s", own->capability, properties.name);
    if (own->capability < 80) {
        return memos_fail(err, MEMOS_UNSUPPORTED, "%s: GPUs of 8.0 and later are known", ctx->name);
    }
    error = make_streams(own);
    if (error != cudaSuccess) {
        (void)cudaGetLastError();
        return translate(error, ctx->name, err);
    }
    kern_blaslt_open(&own->blaslt);
    return MEMOS_OK;
}

static void device_close(struct kern_ctx *ctx)
{
    struct kern_cuda *own = kern_cuda_of(ctx);
    if (own) {
        kern_profile_close(own);
        drop_streams(own);
        free(own);
        ctx->own = NULL;
    }
}

static enum memos_status device_open(struct kern_ctx *ctx, struct memos_error *err)
{
    ctx->own = calloc(1, sizeof(struct kern_cuda));
    if (!ctx->own) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a device");
    }
    kern_profile_open(kern_cuda_of(ctx));
    return start(ctx, err);
}

static enum memos_status device_reset(struct kern_ctx *ctx, struct memos_error *err)
{
    struct kern_cuda *own = kern_cuda_of(ctx);
    memos_assert(own->live == 0);
    drop_streams(own);
    if (own->generation == kern_cuda_generation()) { /* no other context did it yet */
        (void)cudaDeviceReset();                     /* may tell the old error once more */
        (void)cudaGetLastError();
        (void)__atomic_add_fetch(&generation, 1, __ATOMIC_ACQ_REL);
    }
    own->recording = false;
    own->failed = cudaSuccess;
    enum memos_status status = start(ctx, err);
    if (status != MEMOS_OK) {
        own->failed = cudaErrorDevicesUnavailable;
        (void)snprintf(own->failed_at, sizeof own->failed_at, "after a reset");
        return memos_fail(
            err, MEMOS_IO, "cuda: the device does not come back to this process: start it again");
    }
    return MEMOS_OK;
}

/* ---- memory -------------------------------------------------------------------------------- */

#define MIB (1024.0 * 1024.0)

static void device_memory(struct kern_ctx *ctx, uint64_t *out_free, uint64_t *out_total)
{
    size_t free_bytes = 0, total = 0;
    (void)ctx;
    if (cudaMemGetInfo(&free_bytes, &total) != cudaSuccess) {
        (void)cudaGetLastError();
    }
    *out_free = free_bytes;
    *out_total = total;
}

/* What an allocation came to. */
static enum memos_status allocated(struct kern_ctx *ctx, cudaError_t error, const char *where,
    size_t bytes, struct memos_error *err)
{
    uint64_t available, total;
    if (error == cudaSuccess) {
        kern_cuda_of(ctx)->live++;
        return MEMOS_OK;
    }
    (void)cudaGetLastError();
    device_memory(ctx, &available, &total);
    if (error != cudaErrorMemoryAllocation && bytes <= total) {
        kern_cuda_check(ctx, error, where);
        return tell(ctx, err);
    }
    return memos_fail_foreign(err, MEMOS_NO_MEMORY, (int)error,
        "no %s for %.1f MiB: of the device's %.0f MiB %.0f are free", where, (double)bytes / MIB,
        (double)total / MIB, (double)available / MIB);
}

static enum memos_status device_alloc(
    struct kern_ctx *ctx, size_t bytes, void **out_memory, struct memos_error *err)
{
    if (!kern_cuda_usable(ctx)) {
        return tell(ctx, err);
    }
    cudaError_t error = cudaMalloc(out_memory, bytes > 0 ? bytes : 1);
    return allocated(ctx, error, "device memory", bytes, err);
}

static void device_release(struct kern_ctx *ctx, void *memory)
{
    struct kern_cuda *own = kern_cuda_of(ctx);
    memos_assert(own->live > 0);
    own->live--;
    if (own->generation == kern_cuda_generation()) { /* waits for what uses it */
        kern_cuda_check(ctx, cudaFree(memory), "release");
    }
}

static enum memos_status device_host_alloc(
    struct kern_ctx *ctx, size_t bytes, void **out_memory, struct memos_error *err)
{
    if (!kern_cuda_usable(ctx)) {
        return tell(ctx, err);
    }
    cudaError_t error = cudaMallocHost(out_memory, bytes > 0 ? bytes : 1);
    return allocated(ctx, error, "pinned memory", bytes, err);
}

static void device_host_release(struct kern_ctx *ctx, void *memory)
{
    struct kern_cuda *own = kern_cuda_of(ctx);
    memos_assert(own->live > 0);
    own->live--;
    if (own->generation == kern_cuda_generation()) {
        kern_cuda_check(ctx, cudaFreeHost(memory), "release of pinned memory");
    }
}

static void copy(struct kern_ctx *ctx, cudaStream_t stream, void *to, const void *from,
    size_t bytes, enum cudaMemcpyKind kind, const char *what)
{
    if (bytes > 0 && kern_cuda_usable(ctx)) {
        kern_cuda_check(ctx, cudaMemcpyAsync(to, from, bytes, kind, stream), what);
    }
}

static void device_upload(struct kern_ctx *ctx, void *device, const void *host, size_t bytes)
{
    memos_assert(!kern_cuda_of(ctx)->recording);
    copy(ctx, kern_cuda_stream(ctx), device, host, bytes, cudaMemcpyHostToDevice, "upload");
}

static void device_copy(struct kern_ctx *ctx, void *to, const void *from, size_t bytes)
{
    copy(ctx, kern_cuda_stream(ctx), to, from, bytes, cudaMemcpyDeviceToDevice, "copy");
}

static void device_fill(struct kern_ctx *ctx, void *device, int byte, size_t bytes)
{
    if (bytes > 0 && kern_cuda_usable(ctx)) {
        kern_cuda_check(ctx, cudaMemsetAsync(device, byte, bytes, kern_cuda_stream(ctx)), "fill");
    }
}

static enum memos_status device_sync(struct kern_ctx *ctx, struct memos_error *err)
{
    struct kern_cuda *own = kern_cuda_of(ctx);
    memos_assert(!own->recording);
    if (kern_cuda_usable(ctx)) {
        kern_cuda_check(ctx, cudaStreamSynchronize(own->stream), "operations");
        kern_cuda_check(ctx, cudaStreamSynchronize(own->copies), "copies beside");
    }
    return tell(ctx, err);
}

static enum memos_status device_download(
    struct kern_ctx *ctx, void *host, const void *device, size_t bytes, struct memos_error *err)
{
    memos_assert(!kern_cuda_of(ctx)->recording);
    copy(ctx, kern_cuda_stream(ctx), host, device, bytes, cudaMemcpyDeviceToHost, "download");
    if (kern_cuda_usable(ctx)) {
        kern_cuda_check(ctx, cudaStreamSynchronize(kern_cuda_stream(ctx)), "operations");
    }
    return tell(ctx, err);
}

static void device_upload_beside(struct kern_ctx *ctx, void *device, const void *host, size_t bytes)
{
    copy(ctx, kern_cuda_of(ctx)->copies, device, host, bytes, cudaMemcpyHostToDevice,
        "upload beside");
}

static void device_copies_wait(struct kern_ctx *ctx)
{
    struct kern_cuda *own = kern_cuda_of(ctx);
    if (kern_cuda_usable(ctx)) {
        kern_cuda_check(ctx, cudaEventRecord(own->copied, own->copies), "wait for copies");
        kern_cuda_check(ctx, cudaStreamWaitEvent(own->stream, own->copied, 0), "wait for copies");
    }
}

/* The copies' queue first waits for what the other one has. */
static void device_download_beside(struct kern_ctx *ctx, const struct kern_pieces *pieces)
{
    struct kern_cuda *own = kern_cuda_of(ctx);
    memos_assert(!own->recording);
    if (!kern_cuda_usable(ctx)) {
        return;
    }
    kern_cuda_check(ctx, cudaEventRecord(own->computed, own->stream), "download beside");
    kern_cuda_check(ctx, cudaStreamWaitEvent(own->copies, own->computed, 0), "download beside");
    if (kern_cuda_usable(ctx)) {
        kern_cuda_check(ctx,
            cudaMemcpy2DAsync(pieces->host, pieces->host_stride, pieces->device,
                pieces->device_stride, pieces->bytes, pieces->count, cudaMemcpyDeviceToHost,
                own->copies),
            "download beside");
    }
}

/* ---- recorded operations ------------------------------------------------------------------- */

struct cuda_graph {
    struct kern_graph head; /* first: freed by its address */
    cudaGraphExec_t exec;
    uint64_t generation;
};

/* After an error what follows records nothing, and graph_end tells. */
static bool device_graph_begin(struct kern_ctx *ctx)
{
    struct kern_cuda *own = kern_cuda_of(ctx);
    memos_assert(!own->recording);
    if (own->profile) {
        return false;
    }
    own->recording = true;
    if (kern_cuda_usable(ctx)) {
        kern_cuda_check(ctx, cudaStreamBeginCapture(own->stream, cudaStreamCaptureModeThreadLocal),
            "recording");
    }
    return true;
}

static enum memos_status device_graph_end(
    struct kern_ctx *ctx, struct kern_graph **out_graph, struct memos_error *err)
{
    struct kern_cuda *own = kern_cuda_of(ctx);
    cudaGraph_t graph = NULL;
    struct cuda_graph *made = (struct cuda_graph *)calloc(1, sizeof *made);
    enum cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
    memos_assert(own->recording);
    own->recording = false;
    (void)cudaStreamIsCapturing(own->stream, &capturing);
    if (capturing != cudaStreamCaptureStatusNone) { /* also after an error: it must end */
        kern_cuda_check(ctx, cudaStreamEndCapture(own->stream, &graph), "recording");
    }
    if (!made) {
        (void)cudaGraphDestroy(graph);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for recorded operations");
    }
    if (kern_cuda_usable(ctx)) {
        kern_cuda_check(ctx, cudaGraphInstantiate(&made->exec, graph, 0), "recorded operations");
    }
    if (kern_cuda_usable(ctx)) {
        kern_cuda_check(ctx, cudaGraphUpload(made->exec, own->stream), "recorded operations");
    }
    if (graph) {
        (void)cudaGraphDestroy(graph);
    }
    enum memos_status status = tell(ctx, err);
    if (status != MEMOS_OK) {
        free(made);
        return status;
    }
    made->head.device = &kern_cuda_device;
    made->generation = own->generation;
    *out_graph = &made->head;
    return MEMOS_OK;
}

static void device_graph_run(struct kern_ctx *ctx, struct kern_graph *graph)
{
    struct cuda_graph *recorded = (struct cuda_graph *)graph;
    if (kern_cuda_usable(ctx)) {
        memos_assert(recorded->generation == kern_cuda_of(ctx)->generation);
        kern_cuda_check(ctx, cudaGraphLaunch(recorded->exec, kern_cuda_stream(ctx)), "a graph");
    }
}

static void device_graph_free(struct kern_graph *graph)
{
    struct cuda_graph *recorded = (struct cuda_graph *)graph;
    if (recorded->generation == kern_cuda_generation()) {
        (void)cudaGraphExecDestroy(recorded->exec);
    }
    free(recorded);
}

extern "C" {

const struct kern_device kern_cuda_device = {
    device_open,
    device_close,
    device_alloc,
    device_release,
    device_host_alloc,
    device_host_release,
    device_upload,
    device_fill,
    device_copy,
    device_download,
    device_sync,
    device_reset,
    device_memory,
    device_upload_beside,
    device_copies_wait,
    device_download_beside,
    device_graph_begin,
    device_graph_end,
    device_graph_run,
    device_graph_free,
    kern_cuda_matrix_pack,
    kern_cuda_matrix_free,
    kern_cuda_between_dtype,
};
}
