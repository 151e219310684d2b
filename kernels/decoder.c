/* The functions of decoder.h: arguments are checked here, once, and the table is called.
 *
 * Arrays that describe a step are looked at only where they are the process's memory. */
#include "kernels/decoder.h"

#include "kernels/ops.h"

/* Can what lies in "device memory" be read here? */
static bool readable(const struct kern_ctx *ctx)
{
    return !ctx->ops->device;
}

static bool aligned(const void *workspace)
{
    return (uintptr_t)workspace % 256 == 0;
}

/* Do two runs of bytes share memory? */
static bool overlap(const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    uintptr_t left = (uintptr_t)a, right = (uintptr_t)b;
    return left < right ? right - left < a_bytes : left - right < b_bytes;
}

static enum kern_dtype or_f32(enum kern_dtype dtype)
{
    return dtype == 0 ? KERN_F32 : dtype;
}

static bool f32_or_bf16(enum kern_dtype dtype)
{
    return dtype == KERN_F32 || dtype == KERN_BF16;
}

/* ---- rows in, rows out --------------------------------------------------------------------- */

void kern_gather(struct kern_ctx *ctx, const struct kern_gather *a)
{
    memos_assert(a->dtype == KERN_F32 || a->dtype == KERN_F16 || a->dtype == KERN_BF16 ||
                 a->dtype >= KERN_Q8_0);
    memos_assert(a->k > 0 && a->k % kern_dtype_block(a->dtype) == 0);
    memos_assert(ctx->ops->gather);
    if (a->t > 0) {
        ctx->ops->gather(ctx, a);
    }
}

void kern_rmsnorm(struct kern_ctx *ctx, const struct kern_rmsnorm *a)
{
    struct kern_rmsnorm full = *a;
    full.y_dtype = or_f32(a->y_dtype);
    full.heads = a->heads > 0 ? a->heads : 1;
    memos_assert(f32_or_bf16(full.y_dtype));
    memos_assert(a->k > 0 && a->x_stride >= full.heads * a->k && a->y_stride >= full.heads * a->k);
    memos_assert(a->x != a->y || (full.y_dtype == KERN_F32 && a->x_stride == a->y_stride));
    memos_assert(ctx->ops->rmsnorm);
    if (a->rows > 0) {
        ctx->ops->rmsnorm(ctx, &full);
    }
}

void kern_silu_mul(struct kern_ctx *ctx, const struct kern_silu_mul *a)
{
    struct kern_silu_mul full = *a;
    full.x_dtype = or_f32(a->x_dtype);
    full.y_dtype = or_f32(a->y_dtype);
    memos_assert(f32_or_bf16(full.x_dtype) && f32_or_bf16(full.y_dtype) && a->inner > 0);
    memos_assert(!overlap(a->gate_up, a->t * 2 * a->inner * kern_dtype_bytes(full.x_dtype), a->y,
        a->t * a->inner * kern_dtype_bytes(full.y_dtype)));
    memos_assert(ctx->ops->silu_mul);
    if (a->t > 0) {
        ctx->ops->silu_mul(ctx, &full);
    }
}

/* ---- rotary positions ---------------------------------------------------------------------- */

static void check_positions(
    const struct kern_ctx *ctx, const struct kern_rope *rope, const uint32_t *positions, size_t t)
{
    for (size_t i = 0; readable(ctx) && i < t; i++) {
        memos_assert(positions[i] < rope->positions_max);
    }
}

static void check_rope(const struct kern_rope *rope, size_t head_dim)
{
    memos_assert(rope->rotary > 0 && rope->rotary % 2 == 0 && rope->rotary <= head_dim);
}

void kern_rotate(struct kern_ctx *ctx, const struct kern_rotate *a)
{
    check_rope(a->rope, a->head_dim);
    memos_assert(a->heads > 0 && a->stride >= a->heads * a->head_dim);
    check_positions(ctx, a->rope, a->positions, a->t);
    memos_assert(ctx->ops->rotate);
    if (a->t > 0) {
        ctx->ops->rotate(ctx, a);
    }
}

/* ---- the paged KV cache -------------------------------------------------------------------- */

size_t kern_kv_page_bytes(enum kern_dtype dtype, size_t heads, size_t head_dim)
{
    size_t numbers = 2 * heads * KERN_PAGE_TOKENS * head_dim;
    size_t scales = dtype == KERN_E4M3 ? 2 * heads * KERN_PAGE_TOKENS * sizeof(float) : 0;
    return kern_up(numbers * kern_dtype_bytes(dtype) + scales, 256);
}

static void check_kv(const struct kern_kv *kv)
{
    memos_assert(kv->dtype >= KERN_F32 && kv->dtype <= KERN_E4M3);
    memos_assert(kv->heads > 0 && kv->head_dim > 0);
    memos_assert(kv->head_dim <= 256 && kv->head_dim % 8 == 0);
    memos_assert(kv->pages_count <= UINT32_MAX / KERN_PAGE_TOKENS && aligned(kv->pages));
}

static void check_slots(
    const struct kern_ctx *ctx, const struct kern_kv *kv, const uint32_t *slots, size_t t)
{
    for (size_t i = 0; readable(ctx) && i < t; i++) {
        memos_assert(slots[i] == KERN_NO_SLOT || slots[i] < kv->pages_count * KERN_PAGE_TOKENS);
    }
}

void kern_kv_write(struct kern_ctx *ctx, const struct kern_kv_write *a)
{
    struct kern_kv_write full = *a;
    full.from = or_f32(a->from);
    check_kv(a->kv);
    check_slots(ctx, a->kv, a->slots, a->t);
    memos_assert(full.from == KERN_F32 || full.from == KERN_F16 || full.from == KERN_BF16);
    memos_assert(a->stride >= a->kv->heads * a->kv->head_dim);
    if (a->rope) {
        check_rope(a->rope, a->kv->head_dim);
        check_positions(ctx, a->rope, a->positions, a->t);
    }
    memos_assert(ctx->ops->kv_write);
    if (a->t > 0) {
        ctx->ops->kv_write(ctx, &full);
    }
}

void kern_kv_read(struct kern_ctx *ctx, const struct kern_kv_read *a)
{
    check_kv(a->kv);
    check_slots(ctx, a->kv, a->slots, a->t);
    memos_assert(ctx->ops->kv_read);
    if (a->t > 0) {
        ctx->ops->kv_read(ctx, a);
    }
}

void kern_kv_shift(struct kern_ctx *ctx, const struct kern_kv_shift *a)
{
    check_kv(a->kv);
    check_slots(ctx, a->kv, a->slots, a->t);
    check_rope(a->rope, a->kv->head_dim);
    for (size_t i = 0; readable(ctx) && i < a->t; i++) {
        memos_assert(a->shifts[i] > -(int64_t)a->rope->positions_max &&
                     a->shifts[i] < (int64_t)a->rope->positions_max);
    }
    memos_assert(ctx->ops->kv_shift);
    if (a->t > 0) {
        ctx->ops->kv_shift(ctx, a);
    }
}

size_t kern_attention_workspace_bytes(const struct kern_ctx *ctx, size_t t, size_t sequences,
    size_t heads, size_t kv_heads, size_t head_dim, size_t length_max)
{
    memos_assert(ctx->ops->attention_workspace_bytes);
    return ctx->ops->attention_workspace_bytes(
        ctx, t, sequences, heads, kv_heads, head_dim, length_max);
}

static void check_sequences(const struct kern_ctx *ctx, const struct kern_attention *a)
{
    for (size_t b = 0; readable(ctx) && b < a->sequences; b++) {
        memos_assert(a->starts[b] <= a->starts[b + 1] && a->starts[b + 1] <= a->t);
        size_t rows = a->starts[b + 1] - a->starts[b], length = a->lengths[b];
        memos_assert(rows <= a->rows_max && length <= a->length_max);
        memos_assert(length == 0 || rows <= length);
        memos_assert(length <= a->tables_stride * KERN_PAGE_TOKENS);
        for (size_t i = 0; i * KERN_PAGE_TOKENS < length; i++) {
            memos_assert(a->tables[b * a->tables_stride + i] < a->kv->pages_count);
        }
    }
}

void kern_attention(struct kern_ctx *ctx, const struct kern_attention *a)
{
    struct kern_attention full = *a;
    full.out_dtype = or_f32(a->out_dtype);
    check_kv(a->kv);
    memos_assert(f32_or_bf16(full.out_dtype));
    memos_assert(a->heads > 0 && a->heads % a->kv->heads == 0);
    memos_assert(a->query_stride >= a->heads * a->kv->head_dim);
    memos_assert(aligned(a->workspace));
    check_sequences(ctx, a);
    memos_assert(ctx->ops->attention);
    if (a->t > 0 && a->sequences > 0) {
        ctx->ops->attention(ctx, &full);
    }
}

/* ---- sampling ------------------------------------------------------------------------------ */

size_t kern_sample_workspace_bytes(const struct kern_ctx *ctx, size_t rows, size_t vocab)
{
    memos_assert(ctx->ops->sample_workspace_bytes);
    return ctx->ops->sample_workspace_bytes(ctx, rows, vocab);
}

static void check_row(const struct kern_sample *a, const struct kern_sample_row *row)
{
    memos_assert(row->temperature >= 0 && row->top_p > 0 && row->top_p <= 1);
    memos_assert(row->min_p >= 0 && row->min_p <= 1 && row->repetition > 0);
    memos_assert(row->draw >= 0 && row->draw < 1);
    for (size_t i = 0; i < row->adjust_count; i++) {
        memos_assert(a->adjusts[row->adjust_start + i].id < a->vocab);
    }
}

void kern_sample(struct kern_ctx *ctx, const struct kern_sample *a)
{
    memos_assert(a->vocab > 0 && a->vocab <= INT32_MAX);
    memos_assert(a->top <= KERN_TOP_MAX && a->top <= a->vocab);
    memos_assert(aligned(a->workspace));
    for (size_t r = 0; readable(ctx) && r < a->rows_count; r++) {
        check_row(a, &a->rows[r]);
    }
    memos_assert(ctx->ops->sample);
    if (a->rows_count > 0) {
        ctx->ops->sample(ctx, a);
    }
}

void kern_logprobs(struct kern_ctx *ctx, const float *logits, const uint32_t *ids, size_t rows,
    size_t vocab, float *out)
{
    memos_assert(vocab > 0);
    for (size_t r = 0; readable(ctx) && r < rows; r++) {
        memos_assert(ids[r] < vocab);
    }
    memos_assert(ctx->ops->logprobs);
    if (rows > 0) {
        ctx->ops->logprobs(ctx, logits, ids, rows, vocab, out);
    }
}

/* ---- side-FFNs ----------------------------------------------------------------------------- */

size_t kern_side_ffn_workspace_bytes(const struct kern_ctx *ctx, const struct kern_side_ffn *a)
{
    memos_assert(ctx->ops->side_ffn_workspace_bytes);
    return ctx->ops->side_ffn_workspace_bytes(ctx, a);
}

void kern_side_ffn(struct kern_ctx *ctx, const struct kern_side_ffn *a)
{
    struct kern_side_ffn full = *a;
    full.h_dtype = or_f32(a->h_dtype);
    memos_assert(f32_or_bf16(full.h_dtype) && aligned(a->workspace));
    for (size_t g = 0; g < a->groups; g++) {
        const struct kern_matrix *in = a->blocks[g].in, *out = a->blocks[g].out;
        memos_assert(in->k == a->k && out->n == a->k && in->n == 2 * out->k);
        memos_assert(a->starts[g] <= a->starts[g + 1]);
        for (size_t i = a->starts[g]; i < a->starts[g + 1]; i++) {
            memos_assert(a->rows[i] < a->t);
        }
    }
    memos_assert(ctx->ops->side_ffn);
    if (a->groups > 0) {
        ctx->ops->side_ffn(ctx, &full);
    }
}
