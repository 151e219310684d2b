/* The product, for all levels: what x must become first, how the work is shared out, and what is
 * done with the sums. A tile (rows of x by one or two panels of W) is a level's business; AVX2's
 * are in linear_avx2.c.
 *
 * A piece of work is a block of rows of x by some panels. Panel after panel goes through all rows
 * of the block, so that W is read once a block and the panel stays in the first cache. With few
 * rows (a question) there is one block and the panels are shared out; with many, both are. */
#include "kernels/cpu/codes.h"
#include "kernels/cpu/ops.h"
#include "kernels/ref/ops.h"

#include <math.h>
#include <string.h>

#define BLOCK_ROWS 96             /* of x, at most */
#define BLOCK_BYTES (192 << 10)   /* of x: they and a panel of W lie in half a MiB of cache */
#define PIECES_A_THREAD 4         /* so that a thread that is interrupted does not hold all up */
#define SERIAL_FORM_NUMBERS 16384 /* fewer numbers of x are formed by one thread */

struct linear {
    const struct kern_linear *a;
    const struct kern_tiles *tiles;
    const char *x; /* in the tiles' form */
    size_t x_bytes;
    float *scales;             /* (T) of x, for int8 */
    size_t blocks, block_rows; /* of rows of x */
    size_t chunks, chunk_panels;
};

static size_t form_bytes(enum kern_form form)
{
    switch (form) {
    case KERN_FORM_PLAIN:
        return 0;
    case KERN_FORM_ROUNDED:
        return 4;
    case KERN_FORM_BF16:
    case KERN_FORM_I16:
        return 2;
    case KERN_FORM_U8:
    case KERN_FORM_I8:
        break;
    }
    return 1;
}

static const struct kern_tiles *tiles_of(const struct kern_matrix *w)
{
    if (w->dtype >= KERN_Q8_0) {
        return NULL;
    }
    return w->ops->tiles[w->dtype == KERN_F32 ? 0 : w->dtype == KERN_BF16 ? 1 : 2];
}

/* The workspace: x in its form, then its scales. */
static size_t formed_bytes(const struct kern_matrix *w, const struct kern_tiles *tiles, size_t t)
{
    return kern_up(t * w->k_padded * form_bytes(tiles->form), 64);
}

size_t kern_cpu_linear_workspace_bytes(const struct kern_matrix *w, size_t t)
{
    if (!tiles_of(w)) {
        return kern_ref_linear_workspace_bytes(w, t);
    }
    const struct kern_tiles *tiles = tiles_of(w);
    return formed_bytes(w, tiles, t) + (w->dtype == KERN_I8 ? kern_up(t * sizeof(float), 64) : 0);
}

/* ---- x in the tiles' form ------------------------------------------------------------------ */

static void form_bf16(const float *x, size_t k, size_t k_padded, bool wide, void *out)
{
    for (size_t i = 0; i < k_padded; i += 8) {
        size_t left = i < k ? k - i : 0, room = k_padded - i;
        __m256 v = left >= 8 ? _mm256_loadu_ps(x + i) : vector_load_part(x + i, left);
        __m256i bits = vector_round_bf16(v);
        char part[32];
        if (wide) {
            _mm256_storeu_si256((__m256i *)part, bits);
        } else {
            _mm_storeu_si128((__m128i *)part, vector_upper_halves(bits));
        }
        size_t each = wide ? 4 : 2;
        memcpy((char *)out + i * each, part, (room < 8 ? room : 8) * each);
    }
}

/* The same of x that is bf16 already. */
static void form_from_bf16(const uint16_t *x, size_t k, size_t k_padded, bool wide, void *out)
{
    if (wide) {
        kern_cpu_to_f32(KERN_BF16, x, out, k);
        memset((float *)out + k, 0, (k_padded - k) * sizeof(float));
    } else {
        memcpy(out, x, k * sizeof *x);
        memset((uint16_t *)out + k, 0, (k_padded - k) * sizeof *x);
    }
}

/* Codes -127..127 in the tiles' form; returns the scale. The same arithmetic as ref's. */
static float form_codes(const float *x, size_t k, size_t k_padded, enum kern_form form, void *out)
{
    float most = codes_most(x, k);
    __m256 factor = _mm256_set1_ps(codes_factor(most));
    for (size_t i = 0; i < k_padded; i += 8) {
        size_t left = i < k ? k - i : 0, room = k_padded - i < 8 ? k_padded - i : 8;
        __m256 v = left >= 8 ? _mm256_loadu_ps(x + i) : vector_load_part(x + i, left);
        __m128i codes = codes_words(codes_of(v, factor));
        char part[16];
        if (form == KERN_FORM_I16) {
            _mm_storeu_si128((__m128i *)part, codes);
            memcpy((char *)out + 2 * i, part, 2 * room);
            continue;
        }
        codes = _mm_packs_epi16(codes, codes);
        if (form == KERN_FORM_U8) {
            codes = _mm_xor_si128(codes, _mm_set1_epi8((char)0x80)); /* + 128 */
        }
        _mm_storeu_si128((__m128i *)part, codes);
        memcpy((char *)out + i, part, room);
    }
    return most / 127.0F;
}

static void form_row(const struct linear *l, size_t t)
{
    const struct kern_matrix *w = l->a->w;
    const float *x = (const float *)l->a->x + t * w->k;
    void *out = (char *)l->a->workspace + t * l->x_bytes;
    if (l->a->x_dtype == KERN_BF16) {
        form_from_bf16((const uint16_t *)l->a->x + t * w->k, w->k, w->k_padded,
            l->tiles->form == KERN_FORM_ROUNDED, out);
    } else if (w->dtype == KERN_BF16) {
        form_bf16(x, w->k, w->k_padded, l->tiles->form == KERN_FORM_ROUNDED, out);
    } else {
        l->scales[t] = form_codes(x, w->k, w->k_padded, l->tiles->form, out);
    }
}

static void form_piece(void *self, size_t index, unsigned worker)
{
    const struct linear *l = self;
    (void)worker;
    for (size_t t = index * 16; t < l->a->t && t < (index + 1) * 16; t++) {
        form_row(l, t);
    }
}

static void form(struct kern_ctx *ctx, struct linear *l)
{
    const struct kern_linear *a = l->a;
    const struct kern_matrix *w = a->w;
    if (l->tiles->form == KERN_FORM_PLAIN) {
        l->x = (const char *)a->x;
        l->x_bytes = w->k * sizeof(float);
        return;
    }
    l->x = a->workspace;
    l->x_bytes = w->k_padded * form_bytes(l->tiles->form);
    l->scales = (float *)((char *)a->workspace + formed_bytes(w, l->tiles, a->t));
    if (a->t * w->k < SERIAL_FORM_NUMBERS) {
        for (size_t t = 0; t < a->t; t++) {
            form_row(l, t);
        }
        return;
    }
    kern_pool_run(ctx->pool, (a->t + 15) / 16, form_piece, l);
}

/* ---- what is done with the sums ------------------------------------------------------------ */

static inline __attribute__((always_inline)) __m256 activate(enum kern_activation act, __m256 v)
{
    switch (act) {
    case KERN_NONE:
        break;
    case KERN_GELU:
        return vector_gelu(v);
    case KERN_GELU_TANH:
        return vector_gelu_tanh(v);
    case KERN_RELU:
        return _mm256_max_ps(_mm256_setzero_ps(), v);
    case KERN_SILU:
        return vector_silu(v);
    }
    return v;
}

/* Where the sums of some rows of one panel go. */
struct finish {
    const void *sums;             /* KERN_TILE_COLUMNS apart */
    const float *bias, *w_scales; /* (16) of the panel; NULL: none */
    const int32_t *w_sums;
    const float *x_scales;
    const float *residual; /* as y; NULL: none */
    void *y;
    bool y_bf16;
    size_t y_stride, rows, columns;
};

/* Eight sums of row `row` as floats, bias added. */
static inline __attribute__((always_inline)) __m256 finish_sums(
    const struct finish *f, size_t row, size_t half)
{
    size_t at = row * KERN_TILE_COLUMNS + half * 8;
    __m256 v;
    if (f->w_scales) {
        __m256i sums = _mm256_load_si256((const __m256i *)((const int32_t *)f->sums + at));
        if (f->w_sums) { /* x was offset by 128 */
            __m256i w = _mm256_loadu_si256((const __m256i *)(f->w_sums + half * 8));
            sums = _mm256_sub_epi32(sums, _mm256_slli_epi32(w, 7));
        }
        v = _mm256_mul_ps(
            _mm256_cvtepi32_ps(sums), _mm256_mul_ps(_mm256_loadu_ps(f->w_scales + half * 8),
                                          _mm256_set1_ps(f->x_scales[row])));
    } else {
        v = _mm256_load_ps((const float *)f->sums + at);
    }
    return f->bias ? _mm256_add_ps(v, _mm256_loadu_ps(f->bias + half * 8)) : v;
}

static inline __attribute__((always_inline)) void finish_store(
    const struct finish *f, size_t at, size_t left, __m256 v)
{
    if (f->y_bf16) {
        uint16_t part[8];
        _mm_storeu_si128((__m128i *)part, vector_upper_halves(vector_round_bf16(v)));
        memcpy((uint16_t *)f->y + at, part, 2 * (left < 8 ? left : 8));
    } else if (left >= 8) {
        _mm256_storeu_ps((float *)f->y + at, v);
    } else if (left > 0) {
        _mm256_maskstore_ps((float *)f->y + at, vector_mask(left), v);
    }
}

static inline __attribute__((always_inline)) void finish_as(
    const struct finish *f, enum kern_activation act)
{
    for (size_t row = 0; row < f->rows; row++) {
        for (size_t half = 0; half < 2; half++) {
            size_t at = row * f->y_stride + half * 8;
            size_t left = f->columns > half * 8 ? f->columns - half * 8 : 0;
            __m256 v = activate(act, finish_sums(f, row, half));
            if (left >= 8) {
                if (f->residual) {
                    v = _mm256_add_ps(v, _mm256_loadu_ps(f->residual + at));
                }
            } else if (f->residual) {
                v = _mm256_add_ps(v, vector_load_part(f->residual + at, left));
            }
            finish_store(f, at, left, v);
        }
    }
}

static void finish(const struct finish *f, enum kern_activation act)
{
    switch (act) {
    case KERN_NONE:
        finish_as(f, KERN_NONE);
        break;
    case KERN_GELU:
        finish_as(f, KERN_GELU);
        break;
    case KERN_GELU_TANH:
        finish_as(f, KERN_GELU_TANH);
        break;
    case KERN_RELU:
        finish_as(f, KERN_RELU);
        break;
    case KERN_SILU:
        finish_as(f, KERN_SILU);
        break;
    }
}

/* Finish rows first_row.. of one panel whose sums are there. */
static void finish_panel(
    const struct linear *l, size_t panel, size_t first_row, size_t rows, const void *sums)
{
    const struct kern_linear *a = l->a;
    const struct kern_matrix *w = a->w;
    size_t n = panel * KERN_PANEL, columns = w->n - n < KERN_PANEL ? w->n - n : KERN_PANEL;
    size_t at = first_row * w->n + n;
    _Alignas(32) float bias[KERN_PANEL] = {0}, scales[KERN_PANEL] = {0};
    _Alignas(32) int32_t w_sums[KERN_PANEL] = {0};
    struct finish f = {
        .sums = sums,
        .residual = a->residual ? a->residual + at : NULL,
        .y = (char *)a->y + at * (a->y_dtype == KERN_BF16 ? 2 : 4),
        .y_bf16 = a->y_dtype == KERN_BF16,
        .y_stride = w->n,
        .rows = rows,
        .columns = columns,
    };
    if (a->bias) {
        memcpy(bias, a->bias + n, columns * sizeof *bias);
        f.bias = bias;
    }
    if (w->dtype == KERN_I8) {
        memcpy(scales, w->scales + n, columns * sizeof *scales);
        memcpy(w_sums, w->sums + n, columns * sizeof *w_sums);
        f.w_scales = scales;
        f.w_sums = l->tiles->form == KERN_FORM_U8 ? w_sums : NULL;
        f.x_scales = l->scales + first_row;
    }
    finish(&f, a->act);
}

/* ---- sharing out --------------------------------------------------------------------------- */

static void linear_piece(void *self, size_t index, unsigned worker)
{
    _Alignas(64) float sums[BLOCK_ROWS * KERN_TILE_COLUMNS]; /* or int32 */
    const struct linear *l = self;
    const struct kern_matrix *w = l->a->w;
    (void)worker;
    size_t row = index / l->chunks * l->block_rows;
    size_t rows = l->a->t - row < l->block_rows ? l->a->t - row : l->block_rows;
    size_t panels_count = (w->n + KERN_PANEL - 1) / KERN_PANEL;
    size_t panel = index % l->chunks * l->chunk_panels;
    size_t end = panel + l->chunk_panels < panels_count ? panel + l->chunk_panels : panels_count;
    /* Tiles of even height: with four rows and eight, eight is two times four. */
    size_t tiles = (rows + l->tiles->rows_max - 1) / l->tiles->rows_max;

    for (size_t panels; panel < end; panel += panels) {
        panels = end - panel < l->tiles->panels_max ? end - panel : l->tiles->panels_max;
        for (size_t i = 0, done = 0; i < tiles; i++) {
            size_t height = (rows - done) / (tiles - i);
            const struct kern_tile tile = {
                .x = l->x + (row + done) * l->x_bytes,
                .x_bytes = l->x_bytes,
                .w = (const char *)w->data + panel * w->panel_bytes,
                .panel_bytes = w->panel_bytes,
                .k = w->k_padded,
                .rows = height,
                .panels = panels,
                .sums = sums + done * KERN_TILE_COLUMNS,
            };
            l->tiles->run(&tile);
            done += height;
        }
        for (size_t i = 0; i < panels; i++) {
            finish_panel(l, panel + i, row, rows, sums + i * KERN_PANEL);
        }
    }
}

/* How many rows of x make a block: whole tiles. */
static size_t block_rows_max(const struct linear *l)
{
    size_t height = l->tiles->rows_max, rows = BLOCK_BYTES / l->x_bytes;
    rows = rows < BLOCK_ROWS ? rows : BLOCK_ROWS;
    return rows > height ? rows / height * height : height;
}

void kern_cpu_linear(struct kern_ctx *ctx, const struct kern_linear *a)
{
    struct linear l = {.a = a, .tiles = tiles_of(a->w)};
    size_t panels = (a->w->n + KERN_PANEL - 1) / KERN_PANEL;
    if (!l.tiles) {
        kern_ref_linear(ctx, a);
        return;
    }
    form(ctx, &l);
    size_t rows = block_rows_max(&l);
    l.blocks = (a->t + rows - 1) / rows;
    l.block_rows = (a->t + l.blocks - 1) / l.blocks;
    size_t wanted = ctx->threads == 1 ? 1 : PIECES_A_THREAD * ctx->threads;
    l.chunks = (wanted + l.blocks - 1) / l.blocks;
    l.chunk_panels = kern_up((panels + l.chunks - 1) / l.chunks, l.tiles->panels_max);
    l.chunks = (panels + l.chunk_panels - 1) / l.chunk_panels;
    kern_pool_run(ctx->pool, l.blocks * l.chunks, linear_piece, &l);
}
