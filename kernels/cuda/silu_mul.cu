/* The gate of SwiGLU. Bound by memory: 16 bytes of gate and of up a thread. */
#include "kernels/cuda/silu_mul.cuh"

namespace
{

struct gate {
    const void *gate_up;
    void *y;
    size_t t, inner;
    float by;
};

template <enum kern_dtype X, enum kern_dtype Y, int V>
__global__ void __launch_bounds__(256) silu_mul_kernel(gate a)
{
    size_t per_row = a.inner / V;
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= a.t * per_row) {
        return;
    }
    size_t row = i / per_row, at = i % per_row * V;
    numbers<V> g = load_numbers<X, V>(a.gate_up, row * 2 * a.inner + at);
    numbers<V> up = load_numbers<X, V>(a.gate_up, row * 2 * a.inner + a.inner + at);
#pragma unroll
    for (int j = 0; j < V; j++) {
        g.at[j] = g.at[j] / (1.0F + expf(-g.at[j])) * up.at[j] * a.by;
    }
    store_numbers<Y, V>(a.y, row * a.inner + at, g);
}

template <enum kern_dtype X, enum kern_dtype Y, int V>
void launch(struct kern_ctx *ctx, const gate &a)
{
    size_t count = a.t * (a.inner / V);
    KERN_LAUNCH(
        ctx, (silu_mul_kernel<X, Y, V>), dim3((unsigned)((count + 255) / 256)), dim3(256), 0, a);
}

template <int V> void launch_types(struct kern_ctx *ctx, const gate &a, bool x_half, bool y_half)
{
    if (x_half) {
        y_half ? launch<KERN_BF16, KERN_BF16, V>(ctx, a) : launch<KERN_BF16, KERN_F32, V>(ctx, a);
    } else {
        y_half ? launch<KERN_F32, KERN_BF16, V>(ctx, a) : launch<KERN_F32, KERN_F32, V>(ctx, a);
    }
}

} // namespace

void kern_cuda_silu_mul(struct kern_ctx *ctx, const struct kern_silu_mul *a)
{
    kern_cuda_silu_mul_by(ctx, a, 1.0F);
}

void kern_cuda_silu_mul_by(struct kern_ctx *ctx, const struct kern_silu_mul *a, float by)
{
    gate g = {a->gate_up, a->y, a->t, a->inner, by};
    if (a->t == 0 || a->inner == 0) {
        return;
    } else if (a->inner % 8 == 0 && lies_wide(a->gate_up, 16) && lies_wide(a->y, 16)) {
        launch_types<8>(ctx, g, a->x_dtype == KERN_BF16, a->y_dtype == KERN_BF16);
    } else {
        launch_types<1>(ctx, g, a->x_dtype == KERN_BF16, a->y_dtype == KERN_BF16);
    }
}
