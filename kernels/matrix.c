#include "kernels/ops.h"

#include <stdlib.h>
#include <sys/mman.h>

/* Sums of K products of codes, of which one side may be offset to 255, must fit 32 bits. */
#define I8_K_MAX 65536

/* What is larger is worth huge pages: a product of few rows reads W once, from far away. */
#define HUGE_BYTES ((size_t)2 << 20)

#define STRIPS_A_PIECE 4

struct kern_layout kern_ops_layout(const struct kern_ops *ops, enum kern_dtype dtype)
{
    struct kern_layout layout = {0, 0, 0, 0};
    switch (dtype) {
    case KERN_F32:
        layout = ops->f32;
        break;
    case KERN_BF16:
        layout = ops->bf16;
        break;
    case KERN_I8:
        layout = ops->i8;
        break;
    case KERN_Q8_0:
    case KERN_Q4_0:
    case KERN_Q4_K:
    case KERN_Q6_K:
        layout = ops->blocks[dtype - KERN_Q8_0]
                     ? ops->blocks[dtype - KERN_Q8_0]->layout
                     : (struct kern_layout){1, 1, kern_dtype_block(dtype), 0};
        break;
    default:
        return layout;
    }
    if (layout.bytes == 0) {
        layout.bytes = layout.width * kern_dtype_row_bytes(dtype, layout.pad);
    }
    return layout;
}

/* One piece of memory holds the struct, W, the scales and the sums. */
static struct kern_matrix *matrix_alloc(
    const struct kern_ops *ops, enum kern_dtype to, size_t n, size_t k)
{
    struct kern_layout layout = kern_ops_layout(ops, to);
    struct kern_matrix shape = {.ops = ops, .dtype = to, .n = n, .k = k};
    size_t head = kern_up(sizeof shape, 64), data, total,
           tail = to == KERN_I8 ? 2 * kern_up(n * 4, 64) : 0;
    shape.k_padded = kern_up(k, layout.pad);
    shape.panel_bytes = shape.k_padded / layout.pad * layout.bytes;
    shape.row_major = layout.width == 1 && shape.k_padded == k && to != KERN_I8;
    if (__builtin_mul_overflow(kern_up(n, layout.width) / layout.width, shape.panel_bytes, &data) ||
        __builtin_add_overflow(kern_up(data, 64), head + tail + HUGE_BYTES, &total)) {
        return NULL;
    }
    shape.bytes = total - HUGE_BYTES;
    size_t unit = shape.bytes >= HUGE_BYTES / 2 ? HUGE_BYTES : 64;
    char *memory = aligned_alloc(unit, kern_up(shape.bytes, unit));
    if (!memory) {
        return NULL;
    }
    if (unit == HUGE_BYTES) {
        (void)madvise(memory, kern_up(shape.bytes, unit), MADV_HUGEPAGE); /* no is an answer */
    }
    shape.data = memory + head;
    if (to == KERN_I8) {
        shape.scales = (float *)(memory + head + kern_up(data, 64));
        shape.sums = (int32_t *)(memory + head + kern_up(data, 64) + kern_up(n * 4, 64));
    }
    struct kern_matrix *matrix = (struct kern_matrix *)memory;
    *matrix = shape;
    return matrix;
}

/* ---- packing ------------------------------------------------------------------------------- */

struct packing {
    struct kern_matrix *matrix;
    const struct kern_part *parts;
    size_t parts_count;
};

/* Row n of all parts, into strip's next place. */
static void strip_add(struct kern_strip *strip, const struct packing *packing, size_t n)
{
    const struct kern_part *part = packing->parts;
    while (n >= part->n) {
        n -= part->n;
        part++;
    }
    strip->from[strip->count] = part->from;
    strip->rows[strip->count] =
        (const char *)part->data + n * kern_dtype_row_bytes(part->from, packing->matrix->k);
    strip->count++;
}

static void pack_piece(void *self, size_t index, unsigned worker)
{
    const struct packing *packing = self;
    struct kern_matrix *matrix = packing->matrix;
    (void)worker;
    for (size_t i = 0; i < STRIPS_A_PIECE; i++) {
        struct kern_strip strip = {.n = (index * STRIPS_A_PIECE + i) * KERN_PANEL};
        for (size_t n = strip.n; n < matrix->n && n < strip.n + KERN_PANEL; n++) {
            strip_add(&strip, packing, n);
        }
        if (strip.count > 0) {
            matrix->ops->pack(matrix, &strip);
        }
    }
}

/* Is there a way from one type to the other, for rows of k? */
static bool can_pack(enum kern_dtype to, enum kern_dtype from, size_t k)
{
    bool floats = from == KERN_F32 || from == KERN_F16 || from == KERN_BF16;
    bool blocks = from >= KERN_Q8_0 && from <= KERN_Q6_K;
    if (!(floats || blocks) || k % kern_dtype_block(from) != 0) {
        return false;
    }
    switch (to) {
    case KERN_F32:
    case KERN_BF16:
    case KERN_I8:
        return true;
    case KERN_Q8_0:
    case KERN_Q4_0:
        return k % kern_dtype_block(to) == 0;
    case KERN_Q4_K:
    case KERN_Q6_K:
        return from == to;
    default:
        return false;
    }
}

/* Sum up the rows, and refuse what cannot be packed. */
static enum memos_status check_parts(enum kern_dtype to, const struct kern_part *parts,
    size_t parts_count, size_t k, size_t *out_n, struct memos_error *err)
{
    *out_n = 0;
    for (size_t i = 0; i < parts_count; i++) {
        if (!can_pack(to, parts[i].from, k)) {
            return memos_fail(err, MEMOS_UNSUPPORTED,
                "weights of %s cannot be packed as %s (rows of %zu)",
                kern_dtype_name(parts[i].from), kern_dtype_name(to), k);
        }
        memos_assert(parts[i].n <= UINT32_MAX - *out_n);
        *out_n += parts[i].n;
    }
    memos_assert(*out_n > 0 && k > 0 && k <= UINT32_MAX);
    if (to == KERN_I8 && k > I8_K_MAX) {
        return memos_fail(
            err, MEMOS_UNSUPPORTED, "int8 rows have at most %d numbers, not %zu", I8_K_MAX, k);
    }
    return MEMOS_OK;
}

enum memos_status kern_matrix_pack_parts(struct kern_ctx *ctx, enum kern_dtype to,
    const struct kern_part *parts, size_t parts_count, size_t k, struct kern_matrix **out,
    struct memos_error *err)
{
    size_t n;
    enum memos_status status = check_parts(to, parts, parts_count, k, &n, err);
    if (status != MEMOS_OK) {
        return status;
    }
    if (ctx->ops->device) {
        return ctx->ops->device->matrix_pack(ctx, to, parts, parts_count, k, out, err);
    }
    struct packing packing = {matrix_alloc(ctx->ops, to, n, k), parts, parts_count};
    if (!packing.matrix) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for weights (%zu, %zu) of %s", n, k,
            kern_dtype_name(to));
    }
    size_t strips = (n + KERN_PANEL - 1) / KERN_PANEL;
    kern_pool_run(ctx->pool, (strips + STRIPS_A_PIECE - 1) / STRIPS_A_PIECE, pack_piece, &packing);
    *out = packing.matrix;
    return MEMOS_OK;
}

enum memos_status kern_matrix_pack(struct kern_ctx *ctx, enum kern_dtype to, enum kern_dtype from,
    const void *data, size_t n, size_t k, struct kern_matrix **out, struct memos_error *err)
{
    const struct kern_part part = {from, data, n};
    return kern_matrix_pack_parts(ctx, to, &part, 1, k, out, err);
}

void kern_matrix_free(struct kern_matrix **matrix)
{
    if (*matrix && (*matrix)->ops->device) {
        (*matrix)->ops->device->matrix_free(*matrix);
    } else {
        free(*matrix);
    }
    *matrix = NULL;
}

/* ---- what a matrix is ---------------------------------------------------------------------- */

size_t kern_matrix_bytes(const struct kern_matrix *matrix)
{
    return matrix->bytes;
}

enum kern_dtype kern_matrix_dtype(const struct kern_matrix *matrix)
{
    return matrix->dtype;
}

void kern_matrix_shape(const struct kern_matrix *matrix, size_t *out_n, size_t *out_k)
{
    *out_n = matrix->n;
    *out_k = matrix->k;
}

const void *kern_matrix_rows(const struct kern_matrix *matrix, enum kern_dtype *out_dtype)
{
    *out_dtype = matrix->dtype;
    return matrix->row_major ? matrix->data : NULL;
}
