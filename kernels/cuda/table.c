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
    .device = &kern_cuda_device,
};

const struct kern_ops *kern_cuda_ops(void)
{
    return &table;
}
