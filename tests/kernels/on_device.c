/* A GPU behind the memory of the process: what the tests of the operations see of it.
 *
 * The context is cuda's own, with another table: each operation's tensors are copied to the device
 * before it, each between fences, and what it may write is copied back after it. So one test
 * compares all backends, and the GPU works in its own memory as it does for the engine. */
#include "kernels/ops.h"
#include "tests/kernels/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ARENA_BYTES ((size_t)384 << 20)
#define FENCE_BYTES 256
#define FENCE 0xa5
#define TENSORS_MAX 24

struct tensor {
    char *host;
    size_t bytes;
    char *device;
    bool back;
};

static struct kern_ctx real; /* with cuda's table */
static struct kern_ops table;
static struct kern_device device;
static char *arena;
static size_t used, tensors_count;
static struct tensor tensors[TENSORS_MAX];

/* Where a tensor of the host is on the device for the operation at hand. The same address is the
 * same tensor. */
static void *there(const void *host, size_t bytes, bool back)
{
    if (!host) {
        return NULL;
    }
    for (size_t i = 0; i < tensors_count; i++) {
        if (tensors[i].host == host && tensors[i].bytes >= bytes) {
            tensors[i].back = tensors[i].back || back;
            return tensors[i].device;
        }
    }
    assert_true(tensors_count < TENSORS_MAX);
    assert_true(used + kern_up(bytes, 256) + 2 * FENCE_BYTES <= ARENA_BYTES);
    struct tensor *tensor = &tensors[tensors_count++];
    *tensor = (struct tensor){(char *)(uintptr_t)host, bytes, arena + used + FENCE_BYTES, back};
    kern_fill(&real, arena + used, FENCE, bytes + 2 * FENCE_BYTES);
    kern_upload(&real, tensor->device, host, bytes);
    used += kern_up(bytes, 256) + 2 * FENCE_BYTES;
    return tensor->device;
}

static void *in(const void *host, size_t bytes)
{
    return there(host, bytes, false);
}

static void *out(const void *host, size_t bytes)
{
    return there(host, bytes, true);
}

static void *workspace(size_t bytes)
{
    static char nothing[1]; /* an address of its own; not copied */
    size_t before = tensors_count;
    void *at = there(nothing, 0, false);
    tensors_count = before;
    used += kern_up(bytes, 256);
    assert_true(used <= ARENA_BYTES);
    kern_fill(&real, at, 0xff, bytes);
    return at;
}

/* The operation is done: bring back what it wrote. */
static void finish(void)
{
    check_done(&real);
    for (size_t i = 0; i < tensors_count; i++) {
        struct tensor *t = &tensors[i];
        unsigned char fences[2][FENCE_BYTES];
        assert_int_equal(
            kern_download(&real, fences[0], t->device - FENCE_BYTES, FENCE_BYTES, NULL), MEMOS_OK);
        assert_int_equal(
            kern_download(&real, fences[1], t->device + t->bytes, FENCE_BYTES, NULL), MEMOS_OK);
        for (size_t j = 0; j < FENCE_BYTES; j++) {
            assert_int_equal(fences[0][j], FENCE);
            assert_int_equal(fences[1][j], FENCE);
        }
        if (t->back) {
            assert_int_equal(kern_download(&real, t->host, t->device, t->bytes, NULL), MEMOS_OK);
        }
    }
    used = tensors_count = 0;
}

/* Bytes of `rows` rows of `width` numbers, `stride` apart. */
static size_t strided(size_t rows, size_t stride, size_t width, enum kern_dtype dtype)
{
    return rows == 0 ? 0
                     : ((rows - 1) * stride + width) * kern_dtype_bytes(dtype ? dtype : KERN_F32);
}

static uint32_t largest(const uint32_t *of, size_t count)
{
    uint32_t most = 0;
    for (size_t i = 0; i < count; i++) {
        most = of[i] > most ? of[i] : most;
    }
    return most;
}

/* ---- operations ---------------------------------------------------------------------------- */

static void linear(struct kern_ctx *ctx, const struct kern_linear *a)
{
    struct kern_linear b = *a;
    size_t y = strided(a->t, a->w->n, a->w->n, a->y_dtype);
    if (ctx == &real) { /* from within an operation: it is there already */
        real.ops->linear(ctx, a);
        return;
    }
    b.y = out(a->y, y);
    b.x = in(a->x, strided(a->t, a->w->k, a->w->k, a->x_dtype));
    b.bias = in(a->bias, a->w->n * sizeof(float));
    b.residual = in(a->residual, a->t * a->w->n * sizeof(float));
    b.workspace = workspace(real.ops->linear_workspace_bytes(a->w, a->t));
    real.ops->linear(&real, &b);
    finish();
}

static void gather(struct kern_ctx *ctx, const struct kern_gather *a)
{
    struct kern_gather b = *a;
    size_t rows = a->t > 0 ? (size_t)largest(a->ids, a->t) + 1 : 0;
    (void)ctx;
    b.y = out(a->y, a->t * a->k * sizeof(float));
    b.table = in(a->table, rows * kern_dtype_row_bytes(a->dtype, a->k));
    b.ids = in(a->ids, a->t * sizeof *a->ids);
    kern_gather(&real, &b);
    finish();
}

static void rmsnorm(struct kern_ctx *ctx, const struct kern_rmsnorm *a)
{
    struct kern_rmsnorm b = *a;
    size_t width = (a->heads > 0 ? a->heads : 1) * a->k;
    (void)ctx;
    b.y = out(a->y, strided(a->rows, a->y_stride, width, a->y_dtype));
    b.x = in(a->x, strided(a->rows, a->x_stride, width, KERN_F32));
    b.gamma = in(a->gamma, a->k * sizeof(float));
    kern_rmsnorm(&real, &b);
    finish();
}

static void silu_mul(struct kern_ctx *ctx, const struct kern_silu_mul *a)
{
    struct kern_silu_mul b = *a;
    (void)ctx;
    b.y = out(a->y, strided(a->t, a->inner, a->inner, a->y_dtype));
    b.gate_up = in(a->gate_up, strided(a->t, 2 * a->inner, 2 * a->inner, a->x_dtype));
    kern_silu_mul(&real, &b);
    finish();
}

static struct kern_rope rope_there(const struct kern_rope *rope)
{
    size_t bytes = rope->positions_max * (rope->rotary / 2) * sizeof(float);
    struct kern_rope there = *rope;
    there.cos = in(rope->cos, bytes);
    there.sin = in(rope->sin, bytes);
    return there;
}

static struct kern_kv kv_there(const struct kern_kv *kv, bool back)
{
    size_t bytes = kv->pages_count * kern_kv_page_bytes(kv->dtype, kv->heads, kv->head_dim);
    struct kern_kv copy = *kv;
    copy.pages = there(kv->pages, bytes, back);
    return copy;
}

static void rotate(struct kern_ctx *ctx, const struct kern_rotate *a)
{
    struct kern_rotate b = *a;
    struct kern_rope rope = rope_there(a->rope);
    (void)ctx;
    b.rope = &rope;
    b.x = out(a->x, strided(a->t, a->stride, a->heads * a->head_dim, KERN_F32));
    b.positions = in(a->positions, a->t * sizeof *a->positions);
    kern_rotate(&real, &b);
    finish();
}

static void kv_write(struct kern_ctx *ctx, const struct kern_kv_write *a)
{
    struct kern_kv_write b = *a;
    struct kern_kv kv = kv_there(a->kv, true);
    struct kern_rope rope;
    size_t width = a->kv->heads * a->kv->head_dim;
    (void)ctx;
    b.kv = &kv;
    if (a->rope) {
        rope = rope_there(a->rope);
        b.rope = &rope;
    }
    b.key = in(a->key, strided(a->t, a->stride, width, a->from));
    b.value = in(a->value, strided(a->t, a->stride, width, a->from));
    b.positions = in(a->positions, a->t * sizeof *a->positions);
    b.slots = in(a->slots, a->t * sizeof *a->slots);
    kern_kv_write(&real, &b);
    finish();
}

static void kv_read(struct kern_ctx *ctx, const struct kern_kv_read *a)
{
    struct kern_kv_read b = *a;
    struct kern_kv kv = kv_there(a->kv, false);
    size_t bytes = a->t * a->kv->heads * a->kv->head_dim * sizeof(float);
    (void)ctx;
    b.kv = &kv;
    b.slots = in(a->slots, a->t * sizeof *a->slots);
    b.key = out(a->key, bytes);
    b.value = out(a->value, bytes);
    kern_kv_read(&real, &b);
    finish();
}

static void kv_shift(struct kern_ctx *ctx, const struct kern_kv_shift *a)
{
    struct kern_kv_shift b = *a;
    struct kern_kv kv = kv_there(a->kv, true);
    struct kern_rope rope = rope_there(a->rope);
    (void)ctx;
    b.kv = &kv;
    b.rope = &rope;
    b.slots = in(a->slots, a->t * sizeof *a->slots);
    b.shifts = in(a->shifts, a->t * sizeof *a->shifts);
    kern_kv_shift(&real, &b);
    finish();
}

static void attention(struct kern_ctx *ctx, const struct kern_attention *a)
{
    struct kern_attention b = *a;
    struct kern_kv kv = kv_there(a->kv, false);
    size_t rows = a->starts[a->sequences], width = a->heads * a->kv->head_dim;
    (void)ctx;
    b.kv = &kv;
    b.query = in(a->query, strided(rows, a->query_stride, width, KERN_F32));
    b.starts = in(a->starts, (a->sequences + 1) * sizeof *a->starts);
    b.lengths = in(a->lengths, a->sequences * sizeof *a->lengths);
    b.tables = in(a->tables, a->sequences * a->tables_stride * sizeof *a->tables);
    b.out = out(a->out, strided(a->t, width, width, a->out_dtype));
    b.workspace = workspace(kern_attention_workspace_bytes(
        &real, a->t, a->sequences, a->heads, a->kv->heads, a->kv->head_dim, a->length_max));
    kern_attention(&real, &b);
    finish();
}

static void sample(struct kern_ctx *ctx, const struct kern_sample *a)
{
    struct kern_sample b = *a;
    size_t adjusts = 0, count = a->rows_count;
    (void)ctx;
    for (size_t r = 0; r < count; r++) {
        size_t end = (size_t)a->rows[r].adjust_start + a->rows[r].adjust_count;
        adjusts = a->rows[r].adjust_count > 0 && end > adjusts ? end : adjusts;
    }
    b.logits = out(a->logits, count * a->vocab * sizeof(float));
    b.rows = in(a->rows, count * sizeof *a->rows);
    b.adjusts = in(a->adjusts, adjusts * sizeof *a->adjusts);
    b.out_ids = out(a->out_ids, count * sizeof *a->out_ids);
    b.out_logprobs = out(a->out_logprobs, count * sizeof *a->out_logprobs);
    b.out_top_ids = out(a->out_top_ids, count * a->top * sizeof *a->out_top_ids);
    b.out_top_logprobs = out(a->out_top_logprobs, count * a->top * sizeof *a->out_top_logprobs);
    b.workspace = workspace(kern_sample_workspace_bytes(&real, count, a->vocab));
    kern_sample(&real, &b);
    finish();
}

static void logprobs(struct kern_ctx *ctx, const float *logits, const uint32_t *ids, size_t rows,
    size_t vocab, float *to)
{
    (void)ctx;
    kern_logprobs(&real, in(logits, rows * vocab * sizeof *logits), in(ids, rows * sizeof *ids),
        rows, vocab, out(to, rows * sizeof *to));
    finish();
}

static void side_ffn(struct kern_ctx *ctx, const struct kern_side_ffn *a)
{
    struct kern_side_ffn b = *a;
    (void)ctx;
    b.h = in(a->h, strided(a->t, a->k, a->k, a->h_dtype));
    b.y = out(a->y, a->t * a->k * sizeof(float));
    b.workspace = workspace(kern_side_ffn_workspace_bytes(&real, a));
    kern_side_ffn(&real, &b);
    finish();
}

/* ---- the device ---------------------------------------------------------------------------- */

static enum memos_status matrix_pack(struct kern_ctx *ctx, enum kern_dtype to,
    const struct kern_part *parts, size_t parts_count, size_t k, struct kern_matrix **out_matrix,
    struct memos_error *err)
{
    enum memos_status status =
        real.ops->device->matrix_pack(&real, to, parts, parts_count, k, out_matrix, err);
    if (status == MEMOS_OK) {
        (*out_matrix)->ops = ctx->ops; /* kern_linear goes through it */
    }
    return status;
}

static void close_device(struct kern_ctx *ctx)
{
    void *memory = arena;
    kern_release(&real, &memory);
    real.ops->device->close(&real);
    ctx->own = NULL;
    arena = NULL;
}

void check_on_device(struct kern_ctx *ctx)
{
    void *memory = NULL;
    assert_null(arena); /* one at a time */
    real = *ctx;
    assert_int_equal(kern_alloc(&real, ARENA_BYTES, &memory, NULL), MEMOS_OK);
    arena = memory;
    device = *real.ops->device;
    device.matrix_pack = matrix_pack;
    device.close = close_device;
    table = *real.ops;
    table.device = &device;
    table.linear = linear;
    table.gather = gather;
    table.rmsnorm = rmsnorm;
    table.silu_mul = silu_mul;
    table.rotate = rotate;
    table.kv_write = kv_write;
    table.kv_read = kv_read;
    table.kv_shift = kv_shift;
    table.attention = attention;
    table.sample = sample;
    table.logprobs = logprobs;
    table.side_ffn = side_ffn;
    ctx->ops = &table;
}
