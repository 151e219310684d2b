/* RMSNorm. Bound by memory: x is read once (numbers stay in registers between the two passes over a
 * row, up to 16 a thread; what is more is read again, from the cache), y written once. */
#include "kernels/cuda/numbers.cuh"

namespace
{

enum { KEPT = 4 }; /* accesses of a thread that stay in registers */

struct rms {
    const float *x, *gamma;
    void *y;
    size_t units, heads, k, x_stride, y_stride; /* units: rows * heads */
    float eps;
};

template <int V> __device__ float square_sum(numbers<V> of)
{
    float sum = 0;
#pragma unroll
    for (int i = 0; i < V; i++) {
        sum += of.at[i] * of.at[i];
    }
    return sum;
}

template <enum kern_dtype Y, int V>
__device__ void put(void *y, size_t at, size_t i, numbers<V> x, float by, numbers<V> gamma)
{
#pragma unroll
    for (int j = 0; j < V; j++) {
        x.at[j] = x.at[j] * by * gamma.at[j];
    }
    store_numbers<Y, V>(y, at + i * V, x);
}

/* 1 over the root of the mean square, of numbers so large that eps is nothing beside them. */
template <int V, int WIDTH>
__device__ __noinline__ float by_of_large(const float *x, size_t k, float *scratch)
{
    float most = 0, sum = 0;
    for (size_t i = threadIdx.x % WIDTH; i < k; i += WIDTH) {
        most = fmaxf(most, fabsf(x[i]));
    }
    most = WIDTH == 32 ? warp_max(most) : block_max(most, scratch);
    for (size_t i = threadIdx.x % WIDTH; i < k; i += WIDTH) {
        sum += x[i] / most * (x[i] / most);
    }
    sum = WIDTH == 32 ? warp_sum(sum) : block_sum(sum, scratch);
    __syncwarp(); /* others' numbers were read, and y may lie where x does */
    return 1.0F / most / sqrtf(sum / (float)k);
}

/* WIDTH threads share a unit: a warp (8 units a block), or all of a block. */
template <enum kern_dtype Y, int V, int WIDTH>
__global__ void __launch_bounds__(WIDTH == 32 ? 256 : WIDTH) rmsnorm_kernel(rms a)
{
    KERN_SHARED(float, scratch, 32);
    unsigned thread = threadIdx.x % WIDTH;
    size_t unit = (size_t)blockIdx.x * (blockDim.x / WIDTH) + threadIdx.x / WIDTH;
    size_t count = a.k / V;
    constexpr bool EARLY = WIDTH <= 256; /* where there are registers for it */
    numbers<V> kept[KEPT], gamma[KEPT];
    float sum = 0;
#pragma unroll
    for (int j = 0; j < KEPT && EARLY; j++) { /* a weight: no kernel before writes it */
        if (thread + (size_t)j * WIDTH < count) {
            gamma[j] = load_numbers<KERN_F32, V>(a.gamma, (thread + (size_t)j * WIDTH) * V);
        }
    }
    if (unit >= a.units) {
        return; /* a whole warp: WIDTH is 32 */
    }
    const float *x = a.x + unit / a.heads * a.x_stride + unit % a.heads * a.k;
    size_t y_at = unit / a.heads * a.y_stride + unit % a.heads * a.k;
#pragma unroll
    for (int j = 0; j < KEPT; j++) {
        if (thread + (size_t)j * WIDTH < count) {
            kept[j] = load_numbers<KERN_F32, V>(x, (thread + (size_t)j * WIDTH) * V);
            sum += square_sum(kept[j]);
        }
    }
    for (size_t i = thread + (size_t)KEPT * WIDTH; i < count; i += WIDTH) {
        sum += square_sum(load_numbers<KERN_F32, V>(x, i * V));
    }
    sum = WIDTH == 32 ? warp_sum(sum) : block_sum(sum, scratch);
    float by = 1.0F / sqrtf(sum / (float)a.k + a.eps);
    if (isinf(sum)) { /* for all threads of the unit: squares that leave float32 */
        by = by_of_large<V, WIDTH>(x, a.k, scratch);
    }
#pragma unroll
    for (int j = 0; j < KEPT; j++) {
        if (thread + (size_t)j * WIDTH < count) {
            size_t i = thread + (size_t)j * WIDTH;
            put<Y, V>(a.y, y_at, i, kept[j], by,
                EARLY ? gamma[j] : load_numbers<KERN_F32, V>(a.gamma, i * V));
        }
    }
    for (size_t i = thread + (size_t)KEPT * WIDTH; i < count; i += WIDTH) {
        put<Y, V>(a.y, y_at, i, load_numbers<KERN_F32, V>(x, i * V), by,
            load_numbers<KERN_F32, V>(a.gamma, i * V));
    }
}

template <enum kern_dtype Y, int V> void launch(struct kern_ctx *ctx, const rms &a)
{
    size_t count = a.k / V;
    if (count <= 32 * KEPT) {
        KERN_LAUNCH(
            ctx, (rmsnorm_kernel<Y, V, 32>), dim3((unsigned)((a.units + 7) / 8)), dim3(256), 0, a);
    } else if (count <= 256 * KEPT) {
        KERN_LAUNCH(ctx, (rmsnorm_kernel<Y, V, 256>), dim3((unsigned)a.units), dim3(256), 0, a);
    } else {
        KERN_LAUNCH(ctx, (rmsnorm_kernel<Y, V, 1024>), dim3((unsigned)a.units), dim3(1024), 0, a);
    }
}

} // namespace

void kern_cuda_rmsnorm(struct kern_ctx *ctx, const struct kern_rmsnorm *a)
{
    size_t heads = a->heads > 1 ? a->heads : 1;
    rms n = {a->x, a->gamma, a->y, a->rows * heads, heads, a->k, a->x_stride, a->y_stride, a->eps};
    bool half = a->y_dtype == KERN_BF16;
    bool wide = a->k % 4 == 0 && a->x_stride % 4 == 0 && a->y_stride % 4 == 0 &&
                lies_wide(a->x, 16) && lies_wide(a->gamma, 16) && lies_wide(a->y, half ? 8 : 16);
    if (n.units == 0) {
        return;
    } else if (half) {
        wide ? launch<KERN_BF16, 4>(ctx, n) : launch<KERN_BF16, 1>(ctx, n);
    } else {
        wide ? launch<KERN_F32, 4>(ctx, n) : launch<KERN_F32, 1>(ctx, n);
    }
}
