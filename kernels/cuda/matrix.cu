/* Weights on their way to the device: laid out as linear.cuh says, some rows at a time in one of
 * two pieces of pinned memory, while the other is copied. The host never holds a second copy of the
 * whole. */
#include "kernels/cuda/linear.cuh"

extern "C" {
#include "kernels/blocks.h"
}

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define STAGING_BYTES ((size_t)16 << 20)

struct cuda_matrix {
    struct kern_matrix head; /* first: freed by its address */
    uint64_t generation;
};

/* A run of rows that is laid out: codes at `to`, scales at `scales` when there are any. */
struct rows {
    struct kern_matrix *matrix;
    struct kern_part part; /* its rows only */
    char *to, *scales;
    float *room; /* (pieces, room_count): a row in float32, then in blocks */
    size_t pieces, room_count;
};

static size_t row_bytes(const struct kern_matrix *w)
{
    return w->dtype == KERN_Q4_0 ? w->k_padded / 2
                                 : w->k_padded * (w->dtype == KERN_F32    ? 4U
                                                     : w->dtype == KERN_BF16 ? 2U
                                                                             : 1U);
}

static size_t scale_bytes(const struct kern_matrix *w)
{
    bool blocks = w->dtype == KERN_Q8_0 || w->dtype == KERN_Q4_0;
    return w->dtype == KERN_I8 ? 4 : blocks ? w->k_padded / 32 * 2 : 0;
}

/* ---- one row ------------------------------------------------------------------------------- */

/* Codes and their scale, as x is quantized. */
static void place_i8(const float *row, size_t k, size_t k_padded, char *to, char *scale)
{
    float most = 0;
    for (size_t i = 0; i < k; i++) {
        most = fabsf(row[i]) > most ? fabsf(row[i]) : most;
    }
    float to_code = most > 0 ? 127.0F / most : 0, back = most / 127.0F;
    memset(to, 0, k_padded);
    for (size_t i = 0; i < k; i++) {
        float code = rintf(row[i] * to_code);
        to[i] = (char)(code > 127 ? 127 : code > -127 ? code : -127);
    }
    memcpy(scale, &back, sizeof back);
}

/* Blocks of GGUF: an f16 scale, then 32 codes, or 16 bytes whose lower halves are the first 16. */
static void place_q8(const char *blocks, size_t k, size_t k_padded, char *to, char *scales)
{
    memset(to, 0, k_padded);
    memset(scales, 0, k_padded / 32 * 2);
    for (size_t i = 0; i < k; i++) {
        to[kern_q8_place(i)] = blocks[i / 32 * 34 + 2 + i % 32];
    }
    for (size_t b = 0; b < k / 32; b++) {
        memcpy(scales + 2 * b, blocks + 34 * b, 2);
    }
}

static void place_q4(const char *blocks, size_t k, size_t k_padded, char *to, char *scales)
{
    memset(to, 0, k_padded / 2);
    memset(scales, 0, k_padded / 32 * 2);
    for (size_t i = 0; i < k; i++) {
        unsigned both = (unsigned char)blocks[i / 32 * 18 + 2 + i % 16];
        unsigned code = (i % 32 < 16 ? both & 15 : both >> 4) ^ 8; /* less 8, in 4 bits */
        size_t place = kern_q4_place(i);
        to[place / 2] = (char)((unsigned char)to[place / 2] | code << (place % 2 * 4));
    }
    for (size_t b = 0; b < k / 32; b++) {
        memcpy(scales + 2 * b, blocks + 18 * b, 2);
    }
}

static void place_row(const struct rows *r, size_t n, float *room)
{
    const struct kern_matrix *w = r->matrix;
    const char *from =
        (const char *)r->part.data + n * kern_dtype_row_bytes(r->part.from, w->k);
    char *to = r->to + n * row_bytes(w), *scales = r->scales + n * scale_bytes(w);
    bool blocks = w->dtype == KERN_Q8_0 || w->dtype == KERN_Q4_0;
    if (w->dtype == r->part.from && !blocks) {
        memcpy(to, from, w->k * kern_dtype_bytes(w->dtype));
        return;
    } else if (w->dtype != r->part.from) {
        kern_to_f32(r->part.from, from, room, w->k);
    }
    if (blocks && w->dtype != r->part.from) {
        kern_blocks_from_f32(w->dtype, room, room + w->k, w->k);
        from = (const char *)(room + w->k);
    }
    if (w->dtype == KERN_Q8_0) {
        place_q8(from, w->k, w->k_padded, to, scales);
    } else if (w->dtype == KERN_Q4_0) {
        place_q4(from, w->k, w->k_padded, to, scales);
    } else if (w->dtype == KERN_I8) {
        place_i8(room, w->k, w->k_padded, to, scales);
    } else {
        kern_from_f32(w->dtype, room, to, w->k);
    }
}

static void place_piece(void *self, size_t index)
{
    const struct rows *r = (const struct rows *)self;
    for (size_t n = index; n < r->part.n; n += r->pieces) {
        place_row(r, n, r->room + index * r->room_count);
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
            kern_cuda_check(ctx,
                cudaEventCreateWithFlags(&own->staged[i], cudaEventDisableTiming), "staging");
        }
    }
    return MEMOS_OK;
}

/* Rows row .. row + part.n - 1 of the matrix, through staging[turn]. */
static void send(struct kern_ctx *ctx, struct rows *r, size_t row, size_t turn)
{
    struct kern_cuda *own = kern_cuda_of(ctx);
    const struct kern_matrix *w = r->matrix;
    size_t codes = r->part.n * row_bytes(w), scales = r->part.n * scale_bytes(w);
    if (!kern_cuda_usable(ctx)) {
        return;
    }
    kern_cuda_check(ctx, cudaEventSynchronize(own->staged[turn]), "upload of weights");
    r->to = (char *)own->staging[turn];
    r->scales = r->to + codes;
    kern_parallel(ctx, r->pieces, place_piece, r);
    kern_upload(ctx, (char *)w->data + row * row_bytes(w), r->to, codes);
    kern_upload(ctx, (char *)w->scales + row * scale_bytes(w), r->scales, scales);
    if (kern_cuda_usable(ctx)) {
        kern_cuda_check(ctx, cudaEventRecord(own->staged[turn], own->stream), "upload of weights");
    }
}

static enum memos_status send_parts(struct kern_ctx *ctx, struct kern_matrix *w,
    const struct kern_part *parts, size_t parts_count, struct memos_error *err)
{
    struct rows rows = {};
    size_t row = 0, turn = 0;
    size_t unit = row_bytes(w) + scale_bytes(w), most = STAGING_BYTES / unit;
    if (most == 0) {
        return memos_fail(err, MEMOS_UNSUPPORTED,
            "cuda: a row of %zu numbers is too long to be sent to the device", w->k);
    }
    enum memos_status status = staging(ctx, err);
    rows.matrix = w;
    rows.pieces = kern_ctx_threads(ctx);
    rows.room_count = 2 * w->k;
    rows.room = status == MEMOS_OK
                    ? (float *)calloc(rows.pieces * rows.room_count, sizeof(float))
                    : NULL;
    if (status == MEMOS_OK && !rows.room) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory to lay out rows of %zu", w->k);
    }
    for (size_t i = 0; status == MEMOS_OK && i < parts_count; i++) {
        for (size_t done = 0; done < parts[i].n; done += rows.part.n, row += rows.part.n) {
            rows.part = parts[i];
            rows.part.data = (const char *)parts[i].data +
                             done * kern_dtype_row_bytes(parts[i].from, w->k);
            rows.part.n = parts[i].n - done < most ? parts[i].n - done : most;
            send(ctx, &rows, row, turn);
            turn = 1 - turn;
        }
    }
    free(rows.room);
    return status == MEMOS_OK ? kern_sync(ctx, err) : status;
}

static size_t padded(enum kern_dtype dtype, size_t k)
{
    bool blocks = dtype == KERN_Q8_0 || dtype == KERN_Q4_0;
    return dtype == KERN_I8 ? kern_up(k, 64) : blocks ? kern_up(k, 128) : k;
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
    w->head.k_padded = padded(dtype, k);
    w->head.row_major = dtype == KERN_F32 || dtype == KERN_BF16;
    for (size_t i = 0; i < parts_count; i++) {
        w->head.n += parts[i].n;
    }
    size_t codes = kern_up(w->head.n * row_bytes(&w->head), 256);
    size_t bytes = codes + w->head.n * scale_bytes(&w->head);
    w->head.bytes = sizeof *w + bytes;
    enum memos_status status = kern_alloc(ctx, bytes, &w->head.data, err);
    if (status != MEMOS_OK) {
        free(w);
        return status;
    }
    kern_cuda_of(ctx)->live--; /* known by its generation instead */
    w->head.scales = (float *)((char *)w->head.data + codes);
    status = send_parts(ctx, &w->head, parts, parts_count, err);
    if (status != MEMOS_OK) {
        kern_cuda_matrix_free(&w->head);
        return status;
    }
    *out = &w->head;
    return MEMOS_OK;
}
