/* Log softmax at given ids: a block per row, one pass with a running largest and sum, and a merge
 * of the threads' pairs in an order that is always the same. */
#include "kernels/cuda/softmax.cuh"

namespace
{

template <int V>
__global__ void __launch_bounds__(1024)
    logprobs_kernel(const float *logits, const uint32_t *ids, size_t vocab, float *out)
{
    KERN_SHARED(float, scratch, 64);
    const float *row = logits + blockIdx.x * vocab;
    running all = running_of_row<V>(row, vocab, scratch, [](float, uint32_t) {});
    if (threadIdx.x == 0) {
        out[blockIdx.x] = log_softmax(row[ids[blockIdx.x]], all);
    }
}

} // namespace

void kern_cuda_logprobs(struct kern_ctx *ctx, const float *logits, const uint32_t *ids, size_t rows,
    size_t vocab, float *out)
{
    if (rows == 0) {
        return;
    } else if (vocab % 4 == 0 && lies_wide(logits, 16)) {
        KERN_LAUNCH(
            ctx, logprobs_kernel<4>, dim3((unsigned)rows), dim3(1024), 0, logits, ids, vocab, out);
    } else {
        KERN_LAUNCH(
            ctx, logprobs_kernel<1>, dim3((unsigned)rows), dim3(1024), 0, logits, ids, vocab, out);
    }
}
