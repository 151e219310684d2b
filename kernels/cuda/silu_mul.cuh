/* A gate with a factor, for side-FFNs. */
#ifndef KERNELS_CUDA_SILU_MUL_CUH
#define KERNELS_CUDA_SILU_MUL_CUH

#include "kernels/cuda/numbers.cuh"

/* kern_silu_mul, times `by` before it is rounded. */
void kern_cuda_silu_mul_by(struct kern_ctx *ctx, const struct kern_silu_mul *a, float by);

#endif
