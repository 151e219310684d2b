/* Which functions the cuda backend has. */
#include "kernels/cuda/ops.h"

/* Nothing is left to ref: it reads the process's memory. What has no function here (an encoder's
 * operations) is asserted where it is called. */
static const struct kern_ops table = {
    .name = "cuda",
    .f32 = {1, 1, 1},
    .bf16 = {1, 1, 1},
    .i8 = {1, 1, 1},
    .linear_workspace_bytes = kern_cuda_linear_workspace_bytes,
    .linear = kern_cuda_linear,
    .gather = kern_cuda_gather,
    .rmsnorm = kern_cuda_rmsnorm,
    .silu_mul = kern_cuda_silu_mul,
    .rotate = kern_cuda_rotate,
    .kv_write = kern_cuda_kv_write,
    .kv_read = kern_cuda_kv_read,
    .kv_shift = kern_cuda_kv_shift,
    .attention_workspace_bytes = kern_cuda_attention_workspace_bytes,
    .attention = kern_cuda_attention,
    .sample_workspace_bytes = kern_cuda_sample_workspace_bytes,
    .sample = kern_cuda_sample,
    .logprobs = kern_cuda_logprobs,
    .side_ffn_workspace_bytes = kern_cuda_side_ffn_workspace_bytes,
    .side_ffn = kern_cuda_side_ffn,
    .device = &kern_cuda_device,
};

const struct kern_ops *kern_cuda_ops(void)
{
    return &table;
}
