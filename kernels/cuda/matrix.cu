/* Weights on their way to the device: laid out as linear.cuh says, some rows at a time in one of
 * two pieces of pinned memory, while the other is copied. The host never holds a second copy of the
 * whole. */
#include "kernels/cuda/linear.cuh"

#include <stdlib.h>
#include <string.h>

#define STAGING_BYTES ((size_t)16 << 20)

struct cuda_matrix {
    struct kern_matrix head; /* first: freed by its address */
    uint64_t generation;
};

/* A run of rows that is laid out. */
struct rows {
    struct kern_matrix *matrix;
    struct kern_part part; /* its rows only */
    size_t first;          /* which row of the matrix is its first */
    char *codes;           /* of the run */
    char *scales;          /* of the matrix, on the host; they are sent at the end */
    float *room;           /* (pieces, 2 K) */
    size_t pieces;
};

static void place_piece(void *self, size_t index)
{
    const struct rows *r = (const struct rows *)self;
    const struct kern_matrix *w = r->matrix;
    for (size_t n = index; n < r->part.n; n += r->pieces) {
        const char *row = (const char *)r->part.data + n * kern_dtype_row_bytes(r->part.from, w->k);
        kern_layout_row(w, r->first + n, r->part.from, row, r->room + index * 2 * w->k,
            r->codes + n * kern_layout_row_bytes(w), r->scales);
    }
}

/* ---- all of them --------------------------------------------------------------------------- */

static enum memos_status staging(struct kern_ctx *ctx, struct memos_error *err)
{
    struct kern_cuda *own = kern_cuda_of(ctx);
    for (size_t i = 0; i < 2; i++) {
        if (!own->staging[i]) {
            enum memos_status status =
                kern_cuda_device.host_alloc(ctx, STAGING_BYTES, &own->staging[i], err);
            if (status != MEMOS_OK) {
                return status;
            }
            own->live--; /* the device's own: it goes with it */
            kern_cuda_check(
                ctx, cudaEventCreateWithFlags(&own->staged[i], cudaEventDisableTiming), "staging");
        }
    }
    return MEMOS_OK;
}

/* One run, through staging[turn]. */
static void send(struct kern_ctx *ctx, struct rows *r, size_t turn)
{
    struct kern_cuda *own = kern_cuda_of(ctx);
    size_t row = kern_layout_row_bytes(r->matrix);
    if (!kern_cuda_usable(ctx)) {
        return;
    }
    kern_cuda_check(ctx, cudaEventSynchronize(own->staged[turn]), "upload of weights");
    r->codes = (char *)own->staging[turn];
    kern_parallel(ctx, r->pieces, place_piece, r);
    kern_upload(ctx, (char *)r->matrix->data + r->first * row, r->codes, r->part.n * row);
    if (kern_cuda_usable(ctx)) {
        kern_cuda_check(ctx, cudaEventRecord(own->staged[turn], own->stream), "upload of weights");
    }
}

/* All rows, then the scales. */
static enum memos_status send_parts(struct kern_ctx *ctx, struct rows *rows,
    const struct kern_part *parts, size_t parts_count, struct memos_error *err)
{
    const struct kern_matrix *w = rows->matrix;
    size_t turn = 0, most = STAGING_BYTES / kern_layout_row_bytes(w);
    for (size_t i = 0; i < parts_count; i++) {
        size_t row = kern_dtype_row_bytes(parts[i].from, w->k);
        for (size_t done = 0; done < parts[i].n; done += rows->part.n) {
            rows->part = parts[i];
            rows->part.data = (const char *)parts[i].data + done * row;
            rows->part.n = parts[i].n - done < most ? parts[i].n - done : most;
            send(ctx, rows, turn);
            rows->first += rows->part.n;
            turn = 1 - turn;
        }
    }
    kern_upload(ctx, w->scales, rows->scales, kern_layout_scales_bytes(w));
    return kern_sync(ctx, err);
}

static enum memos_status fill(struct kern_ctx *ctx, struct kern_matrix *w,
    const struct kern_part *parts, size_t parts_count, struct memos_error *err)
{
    struct rows rows = {};
    if (kern_layout_row_bytes(w) > STAGING_BYTES) {
        return memos_fail(err, MEMOS_UNSUPPORTED,
            "cuda: a row of %zu numbers is too long to be sent to the device", w->k);
    }
    enum memos_status status = staging(ctx, err);
    if (status != MEMOS_OK) {
        return status;
    }
    rows.matrix = w;
    rows.pieces = kern_ctx_threads(ctx);
    rows.room = (float *)calloc(rows.pieces * 2 * w->k, sizeof(float));
    rows.scales = (char *)calloc(kern_layout_scales_bytes(w) + 1, 1);
    if (rows.room && rows.scales) {
        status = send_parts(ctx, &rows, parts, parts_count, err);
    } else {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory to lay out rows of %zu", w->k);
    }
    free(rows.room);
    free(rows.scales);
    return status;
}

extern "C" void kern_cuda_matrix_free(struct kern_matrix *matrix)
{
    struct cuda_matrix *w = (struct cuda_matrix *)matrix;
    if (w->generation == kern_cuda_generation()) {
        (void)cudaFree(matrix->data); /* scales lie behind */
    }
    free(w);
}

extern "C" enum memos_status kern_cuda_matrix_pack(struct kern_ctx *ctx, enum kern_dtype to,
    const struct kern_part *parts, size_t parts_count, size_t k, struct kern_matrix **out,
    struct memos_error *err)
{
    enum kern_dtype dtype = to == KERN_Q4_K || to == KERN_Q6_K ? KERN_BF16 : to;
    struct cuda_matrix *w = (struct cuda_matrix *)calloc(1, sizeof *w);
    if (!w) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a matrix");
    }
    w->generation = kern_cuda_of(ctx)->generation;
    w->head.ops = ctx->ops;
    w->head.dtype = dtype;
    w->head.k = k;
    w->head.k_padded = kern_layout_padded(dtype, k);
    w->head.row_major = dtype == KERN_F32 || dtype == KERN_BF16;
    for (size_t i = 0; i < parts_count; i++) {
        w->head.n += parts[i].n;
    }
    size_t codes = kern_up(w->head.n * kern_layout_row_bytes(&w->head), 256);
    size_t bytes = codes + kern_layout_scales_bytes(&w->head);
    w->head.bytes = sizeof *w + bytes;
    enum memos_status status = kern_alloc(ctx, bytes, &w->head.data, err);
    if (status != MEMOS_OK) {
        free(w);
        return status;
    }
    kern_cuda_of(ctx)->live--; /* known by its generation instead */
    w->head.scales = (float *)((char *)w->head.data + codes);
    status = fill(ctx, &w->head, parts, parts_count, err);
    if (status != MEMOS_OK) {
        kern_cuda_matrix_free(&w->head);
        return status;
    }
    *out = &w->head;
    return MEMOS_OK;
}
