/* CUDA's runtime on this processor (runtime.cuh), and what stands for the files of
 * kernels/cuda that need NVIDIA's own: no cuBLASLt, no profile. */
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#define KERN_CUDA_EMULATED
#include "tests/cuda/runtime.cuh"

#include "kernels/cuda/linear.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define DEVICE_BYTES ((size_t)4 << 30)
#define MULTIPROCESSORS 4 /* few, so that blocks have more than one piece */

using Op = std::function<void()>;

struct emulate_event {
    emulate_stream *stream; /* where it was recorded last; NULL: nowhere yet */
    uint64_t at;            /* behind how many of its operations */
};

struct queued {
    Op run;
    emulate_event wait; /* stream: run this only behind it */
};

struct emulate_graph {
    std::vector<Op> ops;
};

struct emulate_stream {
    std::deque<queued> ops;
    uint64_t done; /* operations that ran and are no longer in ops */
    std::unique_ptr<emulate_graph> recording;
    std::thread::id recorder;
    bool invalid; /* the recording: its thread asked for what cannot be recorded */
};

namespace
{

std::recursive_mutex mutex;
using Lock = std::lock_guard<std::recursive_mutex>;

std::vector<emulate_stream *> streams;
std::map<char *, size_t> pieces, pinned; /* of device and of pinned memory: their bytes */
size_t used;
cudaError_t lost; /* the device answers nothing else any more */
uint64_t random_state;
thread_local const char *named = "";
thread_local cudaError_t last;

uint64_t random_next(void)
{
    if (random_state == 0) {
        const char *seed = getenv("MEMOS_TEST_SEED");
        random_state = seed ? strtoull(seed, nullptr, 10) * 2 + 1 : 1;
    }
    random_state = random_state * 6364136223846793005U + 1442695040888963407U;
    return random_state >> 33;
}

cudaError_t told(cudaError_t error)
{
    last = error == cudaSuccess ? last : error;
    return error;
}

bool is_pinned(const void *at, size_t bytes)
{
    auto next = pinned.upper_bound((char *)at);
    if (next == pinned.begin()) {
        return false;
    }
    --next;
    size_t offset = (size_t)((const char *)at - next->first);
    return offset <= next->second && bytes <= next->second - offset;
}

/* ---- queues -------------------------------------------------------------------------------- */

void run_to(emulate_stream *stream, uint64_t position);

bool is_free(const emulate_event &wait)
{
    return !wait.stream || wait.stream->done >= wait.at;
}

void run_one(emulate_stream *stream)
{
    queued next = std::move(stream->ops.front());
    stream->ops.pop_front();
    if (!is_free(next.wait)) {
        run_to(next.wait.stream, next.wait.at);
    }
    if (lost == cudaSuccess && next.run) {
        next.run();
    }
    if (lost == cudaSuccess && emulate_lost()) {
        lost = cudaErrorIllegalAddress;
    }
    stream->done++;
}

void run_to(emulate_stream *stream, uint64_t position)
{
    while (stream->done < position && !stream->ops.empty()) {
        run_one(stream);
    }
}

void run_all(emulate_stream *stream)
{
    run_to(stream, UINT64_MAX);
}

void run_everything(void)
{
    for (emulate_stream *stream : streams) {
        run_all(stream);
    }
}

/* A GPU does not wait to be waited for: now and then some of what can run does. */
void run_some(void)
{
    if (streams.empty() || random_next() % 4 != 0) {
        return;
    }
    emulate_stream *stream = streams[random_next() % streams.size()];
    for (size_t left = random_next() % 4;
         left > 0 && !stream->ops.empty() && is_free(stream->ops.front().wait); left--) {
        run_one(stream);
    }
}

cudaError_t queue(emulate_stream *stream, Op run)
{
    if (lost != cudaSuccess) {
        return told(lost);
    } else if (stream->recording) {
        stream->recording->ops.push_back(std::move(run));
    } else {
        stream->ops.push_back({std::move(run), {}});
        run_some();
    }
    return cudaSuccess;
}

/* Does a stream of this thread record? Then that is over: what is asked for cannot be recorded. */
bool is_recording(void)
{
    bool recording = false;
    for (emulate_stream *stream : streams) {
        if (stream->recording && stream->recorder == std::this_thread::get_id()) {
            stream->invalid = recording = true;
        }
    }
    return recording;
}

/* A test loses the device by making a file, once for each. */
void lose_if_told(void)
{
    static const char *const path = getenv("MEMOS_EMULATE_LOSE");
    if (path && lost == cudaSuccess && unlink(path) == 0) {
        lost = cudaErrorIllegalAddress;
    }
}

/* After waiting: what the device has to say. */
cudaError_t waited(void)
{
    if (lost == cudaSuccess) {
        emulate_end_if_faulty();
    }
    return told(lost);
}

} // namespace

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned)
{
    Lock lock(mutex);
    if (lost != cudaSuccess) {
        return told(lost);
    }
    *out = new emulate_stream();
    streams.push_back(*out);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    Lock lock(mutex);
    run_everything(); /* others may wait for what is in it */
    for (size_t i = 0; i < streams.size(); i++) {
        if (streams[i] == stream) {
            streams.erase(streams.begin() + (ptrdiff_t)i);
            delete stream;
            return told(lost);
        }
    }
    return told(cudaErrorInvalidResourceHandle);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    Lock lock(mutex);
    if (stream->recording) {
        stream->invalid = true;
        return told(cudaErrorStreamCaptureUnsupported);
    }
    run_all(stream);
    return waited();
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    Lock lock(mutex);
    run_some();
    return lost != cudaSuccess ? told(lost) : stream->ops.empty() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned)
{
    *out = new emulate_event();
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    Lock lock(mutex);
    *event = {stream, stream->done + stream->ops.size()};
    return told(lost);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    Lock lock(mutex);
    if (lost == cudaSuccess) {
        stream->ops.push_back({nullptr, *event});
    }
    return told(lost);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    Lock lock(mutex);
    if (event->stream) {
        run_to(event->stream, event->at);
    }
    return waited();
}

/* ---- memory -------------------------------------------------------------------------------- */

cudaError_t cudaMemGetInfo(size_t *out_free, size_t *out_total)
{
    Lock lock(mutex);
    *out_free = DEVICE_BYTES - used;
    *out_total = DEVICE_BYTES;
    return told(lost);
}

cudaError_t cudaMalloc(void **out, size_t bytes)
{
    Lock lock(mutex);
    if (lost != cudaSuccess) {
        return told(lost);
    } else if (is_recording()) {
        return told(cudaErrorStreamCaptureUnsupported);
    } else if (bytes > DEVICE_BYTES - used) {
        return told(cudaErrorMemoryAllocation);
    }
    *out = emulate_piece(bytes);
    pieces[(char *)*out] = bytes;
    used += bytes;
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory)
{
    Lock lock(mutex);
    auto piece = pieces.find((char *)memory);
    if (is_recording()) {
        return told(cudaErrorStreamCaptureUnsupported);
    } else if (piece == pieces.end()) {
        return told(cudaErrorInvalidValue);
    }
    run_everything();
    used -= piece->second;
    pieces.erase(piece);
    emulate_piece_free(memory);
    return waited();
}

cudaError_t cudaMallocHost(void **out, size_t bytes)
{
    Lock lock(mutex);
    if (lost != cudaSuccess) {
        return told(lost);
    }
    *out = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (!*out) {
        return told(cudaErrorMemoryAllocation);
    }
    memset(*out, 0xff, bytes);
    pinned[(char *)*out] = bytes;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *memory)
{
    Lock lock(mutex);
    run_everything();
    if (pinned.erase((char *)memory) == 0) {
        return told(cudaErrorInvalidValue);
    }
    free(memory);
    return waited();
}

cudaError_t cudaMemsetAsync(void *memory, int byte, size_t bytes, cudaStream_t stream)
{
    Lock lock(mutex);
    if (lost == cudaSuccess && !emulate_holds(memory, bytes)) {
        return told(cudaErrorInvalidValue);
    }
    return queue(stream, [=]() {
        memset(memory, byte, bytes);
        emulate_from_host(memory, bytes);
    });
}

cudaError_t cudaMemcpyAsync(
    void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream)
{
    return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}

/* Of memory that is not pinned, CUDA takes what is to be sent at once, and returns from a copy to
 * it when it has been made. */
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_stride, const void *from, size_t from_stride,
    size_t bytes, size_t count, cudaMemcpyKind kind, cudaStream_t stream)
{
    Lock lock(mutex);
    size_t to_bytes = (count - 1) * to_stride + bytes,
           from_bytes = (count - 1) * from_stride + bytes;
    bool up = kind == cudaMemcpyHostToDevice, down = kind == cudaMemcpyDeviceToHost;
    if (lost == cudaSuccess &&
        ((!down && !emulate_holds(to, to_bytes)) || (!up && !emulate_holds(from, from_bytes)))) {
        return told(cudaErrorInvalidValue);
    }
    std::shared_ptr<std::vector<char>> taken;
    if (up && !is_pinned(from, from_bytes)) {
        taken = std::make_shared<std::vector<char>>(
            (const char *)from, (const char *)from + from_bytes);
    }
    cudaError_t error = queue(stream, [=]() {
        const char *source = taken ? taken->data() : (const char *)from;
        for (size_t i = 0; i < count; i++) {
            char *here = (char *)to + i * to_stride;
            memmove(here, source + i * from_stride, bytes);
            if (up) {
                emulate_from_host(here, bytes);
            } else if (!down) {
                emulate_from_device(here, source + i * from_stride, bytes);
            }
        }
    });
    if (error == cudaSuccess && down && !is_pinned(to, to_bytes)) {
        run_all(stream);
        return waited();
    }
    return error;
}

/* ---- recorded operations ------------------------------------------------------------------- */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode)
{
    Lock lock(mutex);
    if (lost != cudaSuccess) {
        return told(lost);
    }
    stream->recording.reset(new emulate_graph());
    stream->recorder = std::this_thread::get_id();
    stream->invalid = false;
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *out)
{
    Lock lock(mutex);
    *out = stream->recording ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out)
{
    Lock lock(mutex);
    *out = stream->recording.release();
    if (stream->invalid) {
        delete *out;
        *out = nullptr;
        return told(cudaErrorStreamCaptureInvalidated);
    }
    return told(lost);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long)
{
    *out = new emulate_graph(*graph);
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t)
{
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream)
{
    Lock lock(mutex);
    for (const Op &op : graph->ops) {
        cudaError_t error = queue(stream, op);
        if (error != cudaSuccess) {
            return error;
        }
    }
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph)
{
    delete graph;
    return cudaSuccess;
}

cudaError_t emulate_queue_grid(const cudaLaunchConfig_t *config, void (*body)(void *),
    const std::shared_ptr<void> &self, size_t self_bytes)
{
    Lock lock(mutex);
    lose_if_told();
    cudaLaunchConfig_t c = *config;
    const char *what = named;
    return queue(c.stream, [=]() {
        emulate_grid(what, c.gridDim, c.blockDim, c.dynamicSmemBytes, body, self.get(), self_bytes);
    });
}

/* ---- the device ---------------------------------------------------------------------------- */

cudaError_t cudaSetDevice(int)
{
    return told(lost);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *out, int)
{
    *out = {"emulated", 9, 0, MULTIPROCESSORS, 1 << 20};
    return told(lost);
}

/* A device that was lost stays so, as after an illegal access on a GPU. */
cudaError_t cudaDeviceReset(void)
{
    Lock lock(mutex);
    run_everything();
    while (!pieces.empty()) {
        emulate_piece_free(pieces.begin()->first);
        pieces.erase(pieces.begin());
    }
    for (auto &piece : pinned) {
        free(piece.first);
    }
    pinned.clear();
    used = 0;
    return told(lost);
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t error = lost != cudaSuccess ? lost : last;
    last = cudaSuccess;
    return error;
}

const char *cudaGetErrorString(cudaError_t error)
{
    static thread_local char text[40];
    (void)snprintf(text, sizeof text, "error %d of the emulator", (int)error);
    return error == cudaErrorIllegalAddress ? "an illegal memory access was encountered" : text;
}

/* ---- what is not emulated -------------------------------------------------------------------- */

void kern_blaslt_open(struct kern_blaslt **out)
{
    *out = nullptr;
}

void kern_blaslt_close(struct kern_blaslt **)
{
}

size_t kern_blaslt_workspace_bytes(void)
{
    return 0;
}

bool kern_blaslt_multiply(struct kern_ctx *, const struct kern_product *, void *)
{
    return false;
}

void kern_profile_open(struct kern_cuda *)
{
}

void kern_profile_begin(struct kern_cuda *, const char *what, unsigned)
{
    named = what;
}

void kern_profile_end(struct kern_cuda *)
{
    named = "";
}

void kern_profile_close(struct kern_cuda *)
{
}
