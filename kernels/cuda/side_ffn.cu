/* Side-FFNs: each group's rows are brought together, go through two products and a gate, and are
 * added to y where they came from. Rows that lie next to each other (a sequence's, mostly) stay
 * where they are: the second product then adds to y itself. tau is in the gate.
 *
 * Which rows a group has is host memory: it goes to the kernels as their argument, so that nothing
 * is copied and a graph can be recorded. */
#include "kernels/cuda/silu_mul.cuh"

namespace
{

enum { ROWS = 900 }; /* of a launch: an argument has at most 4 KiB */

struct some_rows {
    uint32_t rows[ROWS];
};

/* to[i] = from[rows[i]], K numbers, converted. */
template <enum kern_dtype FROM, enum kern_dtype TO>
__global__ void __launch_bounds__(256)
    side_gather_kernel(const void *from, void *to, size_t k, some_rows a)
{
    for (size_t i = threadIdx.x; i < k; i += blockDim.x) {
        store_numbers<TO, 1>(
            to, blockIdx.x * k + i, load_numbers<FROM, 1>(from, a.rows[blockIdx.x] * k + i));
    }
}

/* to[rows[i]] += from[i]. */
__global__ void __launch_bounds__(256)
    side_add_kernel(const float *from, float *to, size_t k, some_rows a)
{
    for (size_t i = threadIdx.x; i < k; i += blockDim.x) {
        to[a.rows[blockIdx.x] * k + i] += from[blockIdx.x * k + i];
    }
}

/* A group's share of the workspace: bytes from its beginning. */
struct room {
    size_t gate_up, gated, out, linear, total;
    enum kern_dtype x_dtype, between;
};

room room_of(const struct kern_ctx *ctx, const struct kern_side_ffn *a, size_t group)
{
    const struct kern_side_block *block = &a->blocks[group];
    size_t rows = a->starts[group + 1] - a->starts[group];
    size_t in = kern_linear_workspace_bytes(ctx, block->in, rows);
    size_t out = kern_linear_workspace_bytes(ctx, block->out, rows);
    room r = {};
    bool half = block->in->dtype == KERN_BF16 && block->out->dtype == KERN_BF16;
    r.x_dtype = half && a->h_dtype == KERN_BF16 ? KERN_BF16 : KERN_F32;
    r.between = half ? KERN_BF16 : KERN_F32;
    size_t bytes = kern_dtype_bytes(r.between);
    r.gate_up = kern_up(rows * a->k * kern_dtype_bytes(r.x_dtype), 256);
    r.gated = r.gate_up + kern_up(rows * block->in->n * bytes, 256);
    r.out = r.gated + kern_up(rows * block->out->k * bytes, 256);
    r.linear = r.out + kern_up(rows * a->k * sizeof(float), 256);
    r.total = r.linear + kern_up(in > out ? in : out, 256);
    return r;
}

bool are_neighbours(const uint32_t *rows, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        if (rows[i] != rows[0] + i) {
            return false;
        }
    }
    return true;
}

bool repeat(const uint32_t *rows, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        if (rows[i] <= rows[i - 1]) {
            return true;
        }
    }
    return false;
}

/* Launch over the rows in pieces that an argument can hold. each: rows in one launch must differ,
 * so rows that do not rise go one by one. */
template <typename F> void in_pieces(const uint32_t *rows, size_t count, bool each, F launch)
{
    size_t most = each ? 1 : (size_t)ROWS;
    for (size_t at = 0; at < count;) {
        some_rows some;
        size_t n = count - at < most ? count - at : most;
        for (size_t i = 0; i < n; i++) {
            some.rows[i] = rows[at + i];
        }
        launch(at, dim3((unsigned)n), some);
        at += n;
    }
}

void gather(struct kern_ctx *ctx, const struct kern_side_ffn *a, const uint32_t *rows, size_t count,
    enum kern_dtype to_dtype, unsigned char *to)
{
    in_pieces(rows, count, false, [&](size_t at, dim3 blocks, const some_rows &some) {
        void *out = to + at * a->k * kern_dtype_bytes(to_dtype);
        if (a->h_dtype == KERN_BF16 && to_dtype == KERN_BF16) {
            KERN_LAUNCH(ctx, (side_gather_kernel<KERN_BF16, KERN_BF16>), blocks, dim3(256), 0, a->h,
                out, a->k, some);
        } else if (a->h_dtype == KERN_BF16) {
            KERN_LAUNCH(ctx, (side_gather_kernel<KERN_BF16, KERN_F32>), blocks, dim3(256), 0, a->h,
                out, a->k, some);
        } else {
            KERN_LAUNCH(ctx, (side_gather_kernel<KERN_F32, KERN_F32>), blocks, dim3(256), 0, a->h,
                out, a->k, some);
        }
    });
}

void run_group(struct kern_ctx *ctx, const struct kern_side_ffn *a, size_t group)
{
    const struct kern_side_block *block = &a->blocks[group];
    const uint32_t *rows = a->rows + a->starts[group];
    size_t count = a->starts[group + 1] - a->starts[group];
    room r = room_of(ctx, a, group);
    unsigned char *memory = (unsigned char *)a->workspace;
    bool together = are_neighbours(rows, count);
    enum kern_dtype h_dtype = a->h_dtype == KERN_BF16 ? KERN_BF16 : KERN_F32;
    const void *x = (const unsigned char *)a->h + rows[0] * a->k * kern_dtype_bytes(h_dtype);
    float *y = a->y + rows[0] * a->k;
    if (!together || r.x_dtype != h_dtype) {
        gather(ctx, a, rows, count, r.x_dtype, memory);
        x = memory;
    }
    struct kern_linear in = {};
    in.x = x;
    in.w = block->in;
    in.y = memory + r.gate_up;
    in.t = count;
    in.act = KERN_NONE;
    in.x_dtype = r.x_dtype;
    in.y_dtype = r.between;
    in.workspace = memory + r.linear;
    kern_linear(ctx, &in);
    struct kern_silu_mul gate = {
        in.y, memory + r.gated, count, block->out->k, r.between, r.between};
    kern_cuda_silu_mul_by(ctx, &gate, block->tau);
    struct kern_linear out = in;
    out.x = gate.y;
    out.w = block->out;
    out.y = together ? y : (float *)(memory + r.out);
    out.residual = together ? y : nullptr;
    out.x_dtype = r.between;
    out.y_dtype = KERN_F32;
    kern_linear(ctx, &out);
    if (!together) {
        const float *from = (const float *)(memory + r.out);
        in_pieces(
            rows, count, repeat(rows, count), [&](size_t at, dim3 blocks, const some_rows &some) {
                KERN_LAUNCH(
                    ctx, side_add_kernel, blocks, dim3(256), 0, from + at * a->k, a->y, a->k, some);
            });
    }
}

} // namespace

size_t kern_cuda_side_ffn_workspace_bytes(const struct kern_ctx *ctx, const struct kern_side_ffn *a)
{
    size_t most = 0;
    for (size_t g = 0; g < a->groups; g++) {
        size_t bytes = room_of(ctx, a, g).total;
        most = bytes > most ? bytes : most;
    }
    return most;
}

void kern_cuda_side_ffn(struct kern_ctx *ctx, const struct kern_side_ffn *a)
{
    for (size_t g = 0; g < a->groups; g++) {
        if (a->starts[g] < a->starts[g + 1]) {
            run_group(ctx, a, g);
        }
    }
}
