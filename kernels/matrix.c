#include "kernels/ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Sums of K products of codes, of which one side may be offset to 255, must fit 32 bits. */
#define I8_K_MAX 65536

/* What is larger is worth huge pages: a product of few rows reads W once, from far away. */
#define HUGE_BYTES ((size_t)2 << 20)

struct kern_layout kern_ops_layout(const struct kern_ops *ops, enum kern_dtype dtype)
{
    switch (dtype) {
    case KERN_F32:
        return ops->f32;
    case KERN_BF16:
        return ops->bf16;
    case KERN_I8:
        return ops->i8;
    default:
        return (struct kern_layout){0, 0, 0};
    }
}

/* Codes of row n and their scale, as x is quantized in linear.c. */
static void quantize(struct kern_matrix *matrix, size_t n, float *row)
{
    float most = 0;
    int32_t sum = 0;
    for (size_t i = 0; i < matrix->k; i++) {
        most = fabsf(row[i]) > most ? fabsf(row[i]) : most;
    }
    float to_code = most > 0 ? 127.0F / most : 0;
    for (size_t i = 0; i < matrix->k; i++) {
        float code = rintf(row[i] * to_code);
        row[i] = code > 127 ? 127 : code > -127 ? code : -127;
        sum += (int32_t)row[i];
    }
    matrix->scales[n] = most / 127.0F;
    matrix->sums[n] = sum;
}

static void place_row(struct kern_matrix *matrix, size_t n, float *row)
{
    struct kern_layout layout = kern_ops_layout(matrix->ops, matrix->dtype);
    size_t bytes = kern_dtype_bytes(matrix->dtype);
    if (matrix->dtype == KERN_I8) {
        quantize(matrix, n, row);
    }
    for (size_t k = 0; k < matrix->k; k++) {
        size_t at = n / layout.width * layout.width * matrix->k_padded +
                    k / layout.group * layout.width * layout.group +
                    n % layout.width * layout.group + k % layout.group;
        char *to = (char *)matrix->data + at * bytes;
        if (matrix->dtype == KERN_I8) {
            *(int8_t *)to = (int8_t)row[k];
        } else {
            matrix->ops->from_f32(matrix->dtype, &row[k], to, 1);
        }
    }
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
    shape.panel_bytes = layout.width * shape.k_padded * kern_dtype_bytes(to);
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
    memset(memory, 0, shape.bytes);
    shape.data = memory + head;
    if (to == KERN_I8) {
        shape.scales = (float *)(memory + head + kern_up(data, 64));
        shape.sums = (int32_t *)(memory + head + kern_up(data, 64) + kern_up(n * 4, 64));
    }
    struct kern_matrix *matrix = (struct kern_matrix *)memory;
    *matrix = shape;
    return matrix;
}

enum memos_status kern_matrix_pack(struct kern_ctx *ctx, enum kern_dtype to, enum kern_dtype from,
    const void *data, size_t n, size_t k, struct kern_matrix **out, struct memos_error *err)
{
    bool readable = from == KERN_F32 || from == KERN_F16 || from == KERN_BF16;
    memos_assert(n > 0 && k > 0 && n <= UINT32_MAX && k <= UINT32_MAX);
    if (kern_ops_layout(ctx->ops, to).width == 0 || !readable) {
        return memos_fail(err, MEMOS_UNSUPPORTED, "weights of %s cannot be packed as %s",
            kern_dtype_name(from), kern_dtype_name(to));
    }
    if (to == KERN_I8 && k > I8_K_MAX) {
        return memos_fail(
            err, MEMOS_UNSUPPORTED, "int8 rows have at most %d numbers, not %zu", I8_K_MAX, k);
    }
    struct kern_matrix *matrix = matrix_alloc(ctx->ops, to, n, k);
    float *row = matrix ? malloc(k * sizeof *row) : NULL;
    if (!row) {
        free(matrix);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for weights (%zu, %zu)", n, k);
    }
    for (size_t i = 0; i < n; i++) {
        ctx->ops->to_f32(from, (const char *)data + i * k * kern_dtype_bytes(from), row, k);
        place_row(matrix, i, row);
    }
    free(row);
    *out = matrix;
    return MEMOS_OK;
}

void kern_matrix_free(struct kern_matrix **matrix)
{
    free(*matrix);
    *matrix = NULL;
}

enum kern_dtype kern_matrix_dtype(const struct kern_matrix *matrix)
{
    return matrix->dtype;
}

size_t kern_matrix_bytes(const struct kern_matrix *matrix)
{
    return matrix->bytes;
}
