/* The functions of kern.h: arguments are checked here, once, and the table is called. */
#include "kernels/kern.h"

#include "kernels/ops.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS_MAX 16 /* that are taken unasked */
#define THREADS_LIMIT 1024

/* ---- number types -------------------------------------------------------------------------- */

static const struct {
    const char *name;
    size_t block, bytes; /* numbers that lie together, and their bytes */
} dtypes[] = {
    [KERN_F32] = {"f32", 1, 4},
    [KERN_F16] = {"f16", 1, 2},
    [KERN_BF16] = {"bf16", 1, 2},
    [KERN_E4M3] = {"e4m3", 1, 1},
    [KERN_E5M2] = {"e5m2", 1, 1},
    [KERN_I8] = {"i8", 1, 1},
    [KERN_Q8_0] = {"q8_0", 32, 34},
    [KERN_Q4_0] = {"q4_0", 32, 18},
    [KERN_Q4_K] = {"q4_k", 256, 144},
    [KERN_Q6_K] = {"q6_k", 256, 210},
};

size_t kern_dtype_bytes(enum kern_dtype dtype)
{
    return dtypes[dtype].block == 1 ? dtypes[dtype].bytes : 0;
}

size_t kern_dtype_block(enum kern_dtype dtype)
{
    return dtypes[dtype].block;
}

size_t kern_dtype_row_bytes(enum kern_dtype dtype, size_t k)
{
    memos_assert(k % dtypes[dtype].block == 0);
    return k / dtypes[dtype].block * dtypes[dtype].bytes;
}

const char *kern_dtype_name(enum kern_dtype dtype)
{
    return dtypes[dtype].name;
}

enum kern_dtype kern_dtype_of(struct memos_bytes name)
{
    for (size_t i = KERN_F32; i <= KERN_Q6_K; i++) {
        if (memos_bytes_equal(name, memos_bytes_of(dtypes[i].name))) {
            return (enum kern_dtype)i;
        }
    }
    return (enum kern_dtype)0;
}

/* ---- the context --------------------------------------------------------------------------- */

static unsigned threads_of(unsigned wanted)
{
    cpu_set_t set;
    if (wanted == 0 && sched_getaffinity(0, sizeof set, &set) == 0) {
        wanted = (unsigned)CPU_COUNT(&set);
        wanted = wanted < THREADS_MAX ? wanted : THREADS_MAX;
    }
    return wanted > 0 ? wanted : 1;
}

static enum memos_status no_such_backend(
    const struct kern_options *options, struct memos_error *err)
{
    if (options->backend && strcmp(options->backend, "cuda") == 0 && !options->level) {
        return memos_fail(err, MEMOS_UNSUPPORTED,
            "this was built without CUDA; configure it where nvcc is (-Dcuda=enabled)");
    }
    return memos_fail(err, MEMOS_UNSUPPORTED,
        "no kernels of backend %s at level %s; backends are ref, cpu and cuda, levels sse2, avx2, "
        "avx512 and amx",
        options->backend ? options->backend : "cpu", options->level ? options->level : "any");
}

static enum memos_status create(
    const struct kern_options *options, struct kern_ctx **out_ctx, struct memos_error *err)
{
    const struct kern_ops *ops = kern_ops_of(options->backend, options->level);
    unsigned threads = threads_of(options->threads);
    if (!ops) {
        return no_such_backend(options, err);
    } else if (threads > THREADS_LIMIT) {
        return memos_fail(
            err, MEMOS_UNSUPPORTED, "%u threads; at most %d compute", threads, THREADS_LIMIT);
    }
    struct kern_ctx *ctx = calloc(1, sizeof *ctx);
    if (!ctx) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for kernels");
    }
    ctx->ops = ops;
    ctx->threads = threads;
    (void)snprintf(ctx->name, sizeof ctx->name, "%s, %u thread%s", ops->name, threads,
        threads == 1 ? "" : "s");
    enum memos_status status = kern_pool_create(threads, &ctx->pool, err);
    if (status == MEMOS_OK && ops->device) {
        status = ops->device->open(ctx, err);
    }
    if (status != MEMOS_OK) {
        kern_ctx_destroy(&ctx);
        return status;
    }
    *out_ctx = ctx;
    return MEMOS_OK;
}

enum memos_status kern_ctx_create(
    const struct kern_options *options, struct kern_ctx **out_ctx, struct memos_error *err)
{
    if (!options->backend || strcmp(options->backend, "auto") != 0) {
        return create(options, out_ctx, err);
    }
    struct kern_options with = *options;
    with.backend = "cuda";
    if (!options->level && create(&with, out_ctx, NULL) == MEMOS_OK) {
        return MEMOS_OK;
    }
    with.backend = "cpu";
    return create(&with, out_ctx, err);
}

void kern_ctx_destroy(struct kern_ctx **ctx)
{
    if (*ctx) {
        if ((*ctx)->own) {
            (*ctx)->ops->device->close(*ctx);
        }
        kern_pool_destroy(&(*ctx)->pool);
        free(*ctx);
        *ctx = NULL;
    }
}

const char *kern_ctx_name(const struct kern_ctx *ctx)
{
    return ctx->name;
}

unsigned kern_ctx_threads(const struct kern_ctx *ctx)
{
    return ctx->threads;
}

struct call {
    void (*fn)(void *self, size_t index);
    void *self;
};

static void call_piece(void *self, size_t index, unsigned worker)
{
    const struct call *call = self;
    (void)worker;
    call->fn(call->self, index);
}

void kern_parallel(
    struct kern_ctx *ctx, size_t count, void (*fn)(void *self, size_t index), void *self)
{
    struct call call = {fn, self};
    kern_pool_run(ctx->pool, count, call_piece, &call);
}

/* ---- conversion ---------------------------------------------------------------------------- */

void kern_from_f32(enum kern_dtype to, const float *from, void *out, size_t count)
{
    memos_assert(to >= KERN_F32 && to < KERN_I8);
    kern_ops_of(NULL, NULL)->from_f32(to, from, out, count);
}

void kern_to_f32(enum kern_dtype from, const void *data, float *out, size_t count)
{
    memos_assert(from >= KERN_F32 && from <= KERN_Q6_K && count % kern_dtype_block(from) == 0);
    kern_ops_of(NULL, NULL)->to_f32(from, data, out, count);
}

/* ---- linear -------------------------------------------------------------------------------- */

size_t kern_linear_workspace_bytes(
    const struct kern_ctx *ctx, const struct kern_matrix *w, size_t t)
{
    (void)ctx;
    return w->ops->linear_workspace_bytes(w, t);
}

static bool aligned(const void *workspace)
{
    return (uintptr_t)workspace % 64 == 0;
}

/* Do two pieces of memory share bytes? */
static bool overlap(const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    uintptr_t left = (uintptr_t)a, right = (uintptr_t)b;
    return left < right ? right - left < a_bytes : left - right < b_bytes;
}

static size_t row_bytes(enum kern_dtype dtype, size_t k)
{
    memos_assert(dtype == 0 || dtype == KERN_F32 || dtype == KERN_BF16);
    return k * (dtype == KERN_BF16 ? 2 : 4);
}

void kern_linear(struct kern_ctx *ctx, const struct kern_linear *a)
{
    if (a->t == 0) {
        return;
    }
    memos_assert(a->act >= KERN_NONE && a->act <= KERN_SILU);
    memos_assert(a->x_dtype != KERN_BF16 || a->w->dtype == KERN_BF16);
    memos_assert(!overlap(
        a->x, a->t * row_bytes(a->x_dtype, a->w->k), a->y, a->t * row_bytes(a->y_dtype, a->w->n)));
    memos_assert(a->workspace ? (uintptr_t)a->workspace % 256 == 0
                              : a->w->ops->linear_workspace_bytes(a->w, a->t) == 0);
    a->w->ops->linear(ctx, a);
}

/* On a processor whose tiles take x as bf16 it is rounded to that anyway, and half the bytes go
 * through memory; where it must be widened again, float32 is kinder to what is not rounded. */
enum kern_dtype kern_between_dtype(const struct kern_ctx *ctx, enum kern_dtype weights)
{
    if (ctx->ops->device) {
        return ctx->ops->device->between_dtype(ctx, weights);
    }
    const struct kern_tiles *tiles = ctx->ops->tiles[1];
    return weights == KERN_BF16 && tiles && tiles->form == KERN_FORM_BF16_TILES ? KERN_BF16
                                                                                : KERN_F32;
}

/* ---- the rest of an encoder ---------------------------------------------------------------- */

void kern_layernorm(struct kern_ctx *ctx, const float *x, const float *gamma, const float *beta,
    float eps, float *y, size_t t, size_t k)
{
    memos_assert(k > 0);
    memos_assert(ctx->ops->layernorm);
    ctx->ops->layernorm(ctx, x, gamma, beta, eps, y, t, k);
}

void kern_embed(struct kern_ctx *ctx, const float *const *tables, const uint32_t *const *ids,
    size_t tables_count, float *y, size_t t, size_t k)
{
    memos_assert(k > 0);
    memos_assert(ctx->ops->embed);
    ctx->ops->embed(ctx, tables, ids, tables_count, y, t, k);
}

size_t kern_encode_attention_workspace_bytes(
    const struct kern_ctx *ctx, size_t longest, size_t head_dim)
{
    memos_assert(ctx->ops->encode_attention_workspace_bytes);
    return ctx->ops->encode_attention_workspace_bytes(ctx, longest, head_dim);
}

/* Rising starts are what every loop over sequences rests on. */
static void check_starts(const uint32_t *starts, size_t sequences)
{
    for (size_t b = 0; b < sequences; b++) {
        memos_assert(starts[b] <= starts[b + 1]);
    }
}

void kern_encode_attention(struct kern_ctx *ctx, const struct kern_encode_attention *a)
{
    memos_assert(a->heads > 0 && a->head_dim > 0);
    if (a->sequences == 0) {
        return;
    }
    check_starts(a->starts, a->sequences);
    memos_assert(aligned(a->workspace));
    ctx->ops->encode_attention(ctx, a);
}

void kern_pool_mean(struct kern_ctx *ctx, const float *x, const uint32_t *starts, size_t sequences,
    float *out, size_t k)
{
    check_starts(starts, sequences);
    memos_assert(ctx->ops->pool_mean);
    ctx->ops->pool_mean(ctx, x, starts, sequences, out, k);
}

void kern_pool_cls(struct kern_ctx *ctx, const float *x, const uint32_t *starts, size_t sequences,
    float *out, size_t k)
{
    (void)ctx;
    check_starts(starts, sequences);
    for (size_t b = 0; b < sequences; b++) {
        if (starts[b] < starts[b + 1]) {
            memcpy(out + b * k, x + starts[b] * k, k * sizeof *out);
        } else {
            memset(out + b * k, 0, k * sizeof *out);
        }
    }
}

void kern_normalize(struct kern_ctx *ctx, float *x, size_t rows, size_t k)
{
    memos_assert(ctx->ops->normalize);
    ctx->ops->normalize(ctx, x, rows, k);
}

/* ---- vectors ------------------------------------------------------------------------------- */

void kern_scan(enum kern_dtype dtype, const void *codes, const float *scales, size_t rows, size_t k,
    const float *query, float *scores)
{
    memos_assert(dtype >= KERN_F32 && dtype <= KERN_I8);
    kern_ops_of(NULL, NULL)->scan(dtype, codes, scales, NULL, rows, k, query, scores);
}

void kern_scan_rows(enum kern_dtype dtype, const void *codes, const float *scales,
    const uint32_t *rows_index, size_t count, size_t k, const float *query, float *scores)
{
    memos_assert(dtype >= KERN_F32 && dtype <= KERN_I8);
    if (count > 0) {
        kern_ops_of(NULL, NULL)->scan(dtype, codes, scales, rows_index, count, k, query, scores);
    }
}
