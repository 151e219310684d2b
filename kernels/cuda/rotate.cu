/* Rotary positions. A thread turns V pairs of a head: V numbers of its first half and their
 * partners in the second. */
#include "kernels/cuda/numbers.cuh"

namespace
{

struct turn {
    const float *cos, *sin;
    float *x;
    const uint32_t *positions;
    size_t t, heads, head_dim, stride, half;
    bool back;
};

template <int V> __global__ void __launch_bounds__(256) rotate_kernel(turn a)
{
    size_t per_head = a.half / V;
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= a.t * a.heads * per_head) {
        return;
    }
    size_t at = i % per_head * V, head = i / per_head % a.heads, t = i / per_head / a.heads;
    size_t angle = a.positions[t] * a.half + at, first = t * a.stride + head * a.head_dim + at;
    numbers<V> cos = load_numbers<KERN_F32, V>(a.cos, angle);
    numbers<V> sin = load_numbers<KERN_F32, V>(a.sin, angle);
    numbers<V> x = load_numbers<KERN_F32, V>(a.x, first);
    numbers<V> y = load_numbers<KERN_F32, V>(a.x, first + a.half);
    numbers<V> factor = {};
    if (a.back) {
        factor = load_numbers<KERN_F32, V>(a.cos, at);
    }
#pragma unroll
    for (int j = 0; j < V; j++) {
        float left = x.at[j], right = y.at[j], by = 1.0F / (factor.at[j] * factor.at[j]);
        float c = a.back ? cos.at[j] * by : cos.at[j], s = a.back ? -sin.at[j] * by : sin.at[j];
        x.at[j] = left * c - right * s;
        y.at[j] = right * c + left * s;
    }
    store_numbers<KERN_F32, V>(a.x, first, x);
    store_numbers<KERN_F32, V>(a.x, first + a.half, y);
}

template <int V> void launch(struct kern_ctx *ctx, const turn &a)
{
    size_t count = a.t * a.heads * (a.half / V);
    KERN_LAUNCH(ctx, rotate_kernel<V>, dim3((unsigned)((count + 255) / 256)), dim3(256), 0, a);
}

} // namespace

void kern_cuda_rotate(struct kern_ctx *ctx, const struct kern_rotate *a)
{
    const struct kern_rope *rope = a->rope;
    size_t half = rope->rotary / 2;
    turn r = {rope->cos, rope->sin, a->x, a->positions, a->t, a->heads, a->head_dim, a->stride,
        half, a->back};
    if (a->t == 0 || a->heads == 0 || half == 0) {
        return;
    } else if (half % 4 == 0 && a->head_dim % 4 == 0 && a->stride % 4 == 0 && lies_wide(a->x, 16) &&
               lies_wide(rope->cos, 16) && lies_wide(rope->sin, 16)) {
        launch<4>(ctx, r);
    } else {
        launch<1>(ctx, r);
    }
}
