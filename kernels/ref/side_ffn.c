#include "kernels/ref/ops.h"

/* A group at a time: its rows of h (g, K), gate and up (g, 2 R), the gated (g, R), what is added
 * (g, K), and what the products need. All float32. */
struct room {
    size_t h, gate_up, gated, out, linear, total;
};

static struct room room_of(const struct kern_ctx *ctx, const struct kern_side_ffn *a, size_t group)
{
    const struct kern_side_block *block = &a->blocks[group];
    size_t rows = a->starts[group + 1] - a->starts[group];
    size_t in = kern_linear_workspace_bytes(ctx, block->in, rows);
    size_t out = kern_linear_workspace_bytes(ctx, block->out, rows);
    struct room room = {0};
    room.gate_up = kern_up(rows * a->k * sizeof(float), 256);
    room.gated = room.gate_up + kern_up(rows * block->in->n * sizeof(float), 256);
    room.out = room.gated + kern_up(rows * block->out->k * sizeof(float), 256);
    room.linear = room.out + kern_up(rows * a->k * sizeof(float), 256);
    room.total = room.linear + kern_up(in > out ? in : out, 256);
    return room;
}

size_t kern_ref_side_ffn_workspace_bytes(const struct kern_ctx *ctx, const struct kern_side_ffn *a)
{
    size_t most = 0;
    for (size_t g = 0; g < a->groups; g++) {
        size_t bytes = room_of(ctx, a, g).total;
        most = bytes > most ? bytes : most;
    }
    return most;
}

static void run_group(struct kern_ctx *ctx, const struct kern_side_ffn *a, size_t group)
{
    const struct kern_side_block *block = &a->blocks[group];
    const uint32_t *rows = a->rows + a->starts[group];
    size_t count = a->starts[group + 1] - a->starts[group], k = a->k;
    struct room room = room_of(ctx, a, group);
    char *memory = a->workspace;
    float *h = (float *)(void *)memory, *out = (float *)(void *)(memory + room.out);
    for (size_t i = 0; i < count; i++) {
        ctx->ops->to_f32(a->h_dtype,
            (const char *)a->h + rows[i] * k * kern_dtype_bytes(a->h_dtype), h + i * k, k);
    }
    struct kern_linear linear = {.x = h,
        .w = block->in,
        .y = memory + room.gate_up,
        .t = count,
        .act = KERN_NONE,
        .workspace = memory + room.linear};
    kern_linear(ctx, &linear);
    struct kern_silu_mul gate = {.gate_up = memory + room.gate_up,
        .y = memory + room.gated,
        .t = count,
        .inner = block->out->k};
    kern_silu_mul(ctx, &gate);
    linear.x = gate.y;
    linear.w = block->out;
    linear.y = out;
    kern_linear(ctx, &linear);
    for (size_t i = 0; i < count; i++) {
        float *y = a->y + rows[i] * k;
        for (size_t j = 0; j < k; j++) {
            y[j] += block->tau * out[i * k + j];
        }
    }
}

void kern_ref_side_ffn(struct kern_ctx *ctx, const struct kern_side_ffn *a)
{
    for (size_t g = 0; g < a->groups; g++) {
        if (a->starts[g] < a->starts[g + 1]) {
            run_group(ctx, a, g);
        }
    }
}
