/* Attention by the tiles of the float32 product: keys and values of one head of one sequence are
 * packed as panels, then a few queries at a time are multiplied with the keys, made weights, and
 * multiplied with the values. A piece of work is one head of one sequence. */
#include "kernels/cpu/ops.h"
#include "kernels/cpu/vector.h"

#include <math.h>
#include <string.h>

#define ROWS_MAX 16 /* queries at a time, at most */

/* A worker's share of the workspace, in floats. s: rows of the sequence, d: head_dim. */
struct room {
    size_t keys;    /* panels of kern_up(s, 16) keys, d deep */
    size_t values;  /* panels of kern_up(d, 16) columns, s deep */
    size_t weights; /* (ROWS_MAX, kern_up(s, 16)) */
    size_t total;
};

struct attention {
    const struct kern_encode_attention *a;
    const struct kern_tiles *tiles;
    struct room room;
};

static struct room room_of(size_t longest, size_t head_dim)
{
    struct room room;
    size_t padded = kern_up(longest, KERN_PANEL);
    room.keys = padded * head_dim;
    room.values = kern_up(head_dim, KERN_PANEL) * longest;
    room.weights = ROWS_MAX * padded;
    room.total = kern_up(room.keys, 16) + kern_up(room.values, 16) + room.weights;
    return room;
}

size_t kern_cpu_encode_attention_workspace_bytes(
    const struct kern_ctx *ctx, size_t longest, size_t head_dim)
{
    return ctx->threads * room_of(longest, head_dim).total * sizeof(float);
}

/* Row i of `from` becomes column i % 16 of panel i / 16. */
static void pack_rows(const float *from, size_t stride, size_t rows, size_t depth, float *out)
{
    for (size_t first = 0; first < rows; first += KERN_PANEL, out += depth * KERN_PANEL) {
        size_t count = rows - first < KERN_PANEL ? rows - first : KERN_PANEL;
        if (count < KERN_PANEL) {
            memset(out, 0, depth * KERN_PANEL * sizeof *out);
        }
        for (size_t i = 0; i < count; i++) {
            const float *row = from + (first + i) * stride;
            for (size_t d = 0; d < depth; d++) {
                out[d * KERN_PANEL + i] = row[d];
            }
        }
    }
}

/* Column i of `from` becomes column i % 16 of panel i / 16. */
static void pack_columns(const float *from, size_t stride, size_t rows, size_t columns, float *out)
{
    for (size_t first = 0; first < columns; first += KERN_PANEL) {
        size_t count = columns - first < KERN_PANEL ? columns - first : KERN_PANEL;
        for (size_t row = 0; row < rows; row++, out += KERN_PANEL) {
            const float *at = from + row * stride + first;
            if (count == KERN_PANEL) {
                _mm256_storeu_ps(out, _mm256_loadu_ps(at));
                _mm256_storeu_ps(out + 8, _mm256_loadu_ps(at + 8));
            } else {
                memset(out, 0, KERN_PANEL * sizeof *out);
                memcpy(out, at, count * sizeof *out);
            }
        }
    }
}

/* Weights of one query in place: e^(scale (s - most)) of `count` sums, zeros up to `padded`;
 * returns one over their sum. */
static float soften(float *sums, size_t count, size_t padded, float scale)
{
    __m256 most = _mm256_set1_ps(-INFINITY), total = _mm256_setzero_ps();
    const __m256 factor = _mm256_set1_ps(scale);
    for (size_t i = 0; i < padded; i += 8) {
        size_t left = count > i ? count - i : 0;
        __m256 v = _mm256_mul_ps(_mm256_load_ps(sums + i), factor);
        if (left < 8) {
            __m256 inside = _mm256_castsi256_ps(vector_mask(left));
            v = _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), v, inside);
        }
        _mm256_store_ps(sums + i, v);
        most = _mm256_max_ps(most, v);
    }
    most = _mm256_set1_ps(vector_max(most));
    for (size_t i = 0; i < padded; i += 8) {
        size_t left = count > i ? count - i : 0;
        __m256 v = vector_exp(_mm256_sub_ps(_mm256_load_ps(sums + i), most));
        if (left < 8) {
            v = _mm256_and_ps(v, _mm256_castsi256_ps(vector_mask(left)));
        }
        _mm256_store_ps(sums + i, v);
        total = _mm256_add_ps(total, v);
    }
    return 1.0F / vector_sum(total);
}

/* x (rows, k) . panels^T; the sums of all panels lie beside each other in out, `stride` apart. */
static void product(const struct kern_tiles *tiles, struct kern_tile tile, size_t panels,
    size_t columns, const float *factors, float *out, size_t stride)
{
    _Alignas(64) float sums[ROWS_MAX * KERN_TILE_COLUMNS];
    const char *w = tile.w;
    tile.sums = sums;
    for (size_t panel = 0; panel < panels; panel += tile.panels) {
        tile.panels = panels - panel < tiles->panels_max ? panels - panel : tiles->panels_max;
        tile.w = w + panel * tile.panel_bytes;
        tiles->run(&tile);
        size_t first = panel * KERN_PANEL;
        size_t count = tile.panels * KERN_PANEL;
        count = count < columns - first ? count : columns - first;
        for (size_t row = 0; row < tile.rows; row++) {
            float *to = out + row * stride + first;
            for (size_t i = 0; i < count; i++) {
                to[i] = sums[row * KERN_TILE_COLUMNS + i] * factors[row];
            }
        }
    }
}

static void attention_piece(void *self, size_t index, unsigned worker)
{
    const struct attention *attention = self;
    const struct kern_encode_attention *a = attention->a;
    const struct kern_tiles *tiles = attention->tiles;
    const struct room *room = &attention->room;
    size_t head = index % a->heads, d = a->head_dim, width = a->heads * d;
    size_t first = a->starts[index / a->heads], s = a->starts[index / a->heads + 1] - first;
    size_t padded = kern_up(s, KERN_PANEL), stride = 3 * width;
    const float *q = a->qkv + first * stride + head * d;
    float *keys = (float *)a->workspace + worker * room->total;
    float *values = keys + kern_up(room->keys, 16), *weights = values + kern_up(room->values, 16);
    size_t rows_max = tiles->rows_max < ROWS_MAX ? tiles->rows_max : ROWS_MAX;
    float ones[ROWS_MAX], parts[ROWS_MAX];

    if (s == 0) {
        return;
    }
    for (size_t i = 0; i < ROWS_MAX; i++) {
        ones[i] = 1;
    }
    pack_rows(q + width, stride, s, d, keys);
    pack_columns(q + 2 * width, stride, s, d, values);
    for (size_t row = 0, rows; row < s; row += rows) {
        size_t tiles_left = (s - row + rows_max - 1) / rows_max;
        rows = (s - row) / tiles_left;
        struct kern_tile scores = {.x = q + row * stride,
            .x_bytes = stride * sizeof(float),
            .w = keys,
            .panel_bytes = d * KERN_PANEL * sizeof(float),
            .k = d,
            .rows = rows};
        product(tiles, scores, padded / KERN_PANEL, padded, ones, weights, padded);
        for (size_t i = 0; i < rows; i++) {
            parts[i] = soften(weights + i * padded, s, padded, a->scale);
        }
        struct kern_tile sums = {.x = weights,
            .x_bytes = padded * sizeof(float),
            .w = values,
            .panel_bytes = s * KERN_PANEL * sizeof(float),
            .k = s,
            .rows = rows};
        product(tiles, sums, kern_up(d, KERN_PANEL) / KERN_PANEL, d, parts,
            a->out + (first + row) * width + head * d, width);
    }
}

void kern_cpu_encode_attention(struct kern_ctx *ctx, const struct kern_encode_attention *a)
{
    struct attention attention = {.a = a, .tiles = ctx->ops->tiles[0]};
    size_t longest = 0;
    for (size_t b = 0; b < a->sequences; b++) {
        size_t rows = a->starts[b + 1] - a->starts[b];
        longest = rows > longest ? rows : longest;
    }
    attention.room = room_of(longest, a->head_dim);
    kern_pool_run(ctx->pool, a->sequences * a->heads, attention_piece, &attention);
}
