/* The product, for all levels: what x must become first, how the work is shared out, and what is
 * done with the sums. A tile (rows of x by one or two panels of W) is a level's business; AVX2's
 * are in linear_avx2.c and linear_blocks_avx2.c.
 *
 * A piece of work is a block of rows of x by some panels. Panel after panel goes through all rows
 * of the block, so that W is read once a block and the panel stays in the first cache. With few
 * rows (a question, a decoding step) there is one block and the panels are shared out; with many,
 * both are.
 *
 * Where a block of rows does not fit the second cache, K is cut, and a span of panels goes through
 * one cut after the other. Sums go on where the last cut left them, so that they are the same to
 * the bit however K is cut and rows are blocked. */
#include "kernels/cpu/codes.h"
#include "kernels/cpu/ops.h"
#include "kernels/ref/ops.h"

#include <math.h>
#include <string.h>

#define BLOCK_ROWS_MAX 512        /* of x */
#define SPAN_PANELS 8             /* that go through the cuts of K together */
#define CUT 256                   /* K is cut at multiples of it */
#define PIECES_A_THREAD 4         /* so that a thread that is interrupted does not hold all up */
#define SERIAL_FORM_NUMBERS 16384 /* fewer numbers of x are formed by one thread */
#define FINISH_ROWS 16            /* that are finished before the next panel */
#define GROUP 32                  /* numbers of x that share a scale, for weights in blocks */
#define TILE_ROWS 16              /* of forms in tiles, and the bytes of a row (half: GROUP) */
#define TILE_BYTES 64

struct linear {
    const struct kern_linear *a;
    const struct kern_tiles *tiles;
    const char *x;  /* in the tiles' form */
    size_t x_bytes; /* from row to row; unused by forms in tiles */
    float *scales;  /* (T, groups) of x, for codes */
    int32_t *sums;  /* of x's codes, for blocks: (T, groups), of Q6_K (T, 2 groups) */
    size_t groups;
    size_t layout_bytes;       /* of `pad` numbers of a panel */
    size_t blocks, block_rows; /* of rows of x */
    size_t cut;                /* numbers of K */
    size_t chunks, chunk_panels;
};

static bool in_blocks(const struct kern_matrix *w)
{
    return kern_dtype_block(w->dtype) > 1;
}

static bool in_tiles(enum kern_form form)
{
    return form == KERN_FORM_BF16_TILES || form == KERN_FORM_I8_TILES ||
           form == KERN_FORM_I8_HALF_TILES;
}

static size_t form_bytes(enum kern_form form)
{
    switch (form) {
    case KERN_FORM_PLAIN:
    case KERN_FORM_ROUNDED:
        return 4;
    case KERN_FORM_BF16:
    case KERN_FORM_BF16_TILES:
    case KERN_FORM_I16:
        return 2;
    case KERN_FORM_U8:
    case KERN_FORM_I8:
    case KERN_FORM_I8_TILES:
    case KERN_FORM_I8_HALF_TILES:
        break;
    }
    return 1;
}

/* For t rows of x. NULL: ref multiplies. */
static const struct kern_tiles *tiles_of(const struct kern_matrix *w, size_t t)
{
    if (in_blocks(w)) {
        size_t i = w->dtype - KERN_Q8_0;
        return t >= TILE_ROWS && w->ops->wide_blocks[i] ? w->ops->wide_blocks[i]
                                                        : w->ops->blocks[i];
    }
    return w->ops->tiles[w->dtype == KERN_F32 ? 0 : w->dtype == KERN_BF16 ? 1 : 2];
}

/* The workspace: x in its form, its scales, its sums. */
static size_t formed_bytes(const struct kern_matrix *w, const struct kern_tiles *tiles, size_t t)
{
    size_t rows = in_tiles(tiles->form) ? kern_up(t, TILE_ROWS) : t;
    return tiles->form == KERN_FORM_PLAIN
               ? 0
               : kern_up(rows * w->k_padded * form_bytes(tiles->form), 64);
}

static size_t groups_of(const struct kern_matrix *w)
{
    return in_blocks(w) ? w->k_padded / GROUP : w->dtype == KERN_I8;
}

static size_t scales_bytes(const struct kern_matrix *w, size_t t)
{
    return kern_up(t * groups_of(w) * sizeof(float), 64);
}

size_t kern_cpu_linear_workspace_bytes(const struct kern_matrix *w, size_t t)
{
    const struct kern_tiles *tiles = tiles_of(w, t);
    if (!tiles) {
        return kern_ref_linear_workspace_bytes(w, t);
    }
    size_t sums = !in_blocks(w) ? 0 : w->dtype == KERN_Q6_K ? 2 : 1;
    return formed_bytes(w, tiles, t) + (1 + sums) * scales_bytes(w, t);
}

/* ---- x in the tiles' form ------------------------------------------------------------------ */

/* From row to row of x in the cut that begins at k, in bytes; of forms in tiles from one 16 rows to
 * the next. */
static size_t cut_bytes(const struct linear *l, size_t k)
{
    size_t left = l->a->w->k_padded - k, count = left < l->cut ? left : l->cut;
    return in_tiles(l->tiles->form) ? count * form_bytes(l->tiles->form) * TILE_ROWS : l->x_bytes;
}

/* Where number k of row t lies, from the start of x. Forms in tiles: KERN_FORM_BF16_TILES. */
static size_t formed_at(const struct linear *l, size_t t, size_t k)
{
    size_t bytes = form_bytes(l->tiles->form);
    if (in_tiles(l->tiles->form)) {
        size_t first = k / l->cut * l->cut;
        size_t row_bytes = l->tiles->form == KERN_FORM_I8_HALF_TILES ? GROUP : TILE_BYTES;
        return first * bytes * kern_up(l->a->t, TILE_ROWS) + t / TILE_ROWS * cut_bytes(l, first) +
               (k - first) * bytes * TILE_ROWS + t % TILE_ROWS * row_bytes;
    }
    return t * l->x_bytes + k * bytes;
}

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

/* Codes -127..127 in the tiles' form. The same arithmetic as ref's. */
static void form_codes(
    const float *x, size_t k, size_t k_padded, enum kern_form form, __m256 factor, void *out)
{
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
}

/* A row, by what lies together: all of it, or a row of each tile. */
static void form_row(const struct linear *l, size_t t)
{
    const struct kern_linear *a = l->a;
    const struct kern_matrix *w = a->w;
    enum kern_form form = l->tiles->form;
    size_t run = in_tiles(form) ? TILE_BYTES / form_bytes(form) : w->k_padded;
    bool wide = form == KERN_FORM_ROUNDED, from_bf16 = l->a->x_dtype == KERN_BF16;
    const float *x = (const float *)l->a->x + t * w->k;
    __m256 factor = _mm256_setzero_ps();
    if (w->dtype == KERN_I8) {
        float most = codes_most(x, w->k);
        factor = _mm256_set1_ps(codes_factor(most));
        l->scales[t] = most / 127.0F;
    }
    for (size_t k = 0; k < w->k_padded; k += run) {
        size_t left = w->k > k ? w->k - k : 0, count = left < run ? left : run;
        char *out = (char *)a->workspace + formed_at(l, t, k);
        if (w->dtype == KERN_I8) {
            form_codes(x + k, count, run, form, factor, out);
        } else if (from_bf16) {
            form_from_bf16((const uint16_t *)l->a->x + t * w->k + k, count, run, wide, out);
        } else {
            form_bf16(x + k, count, run, wide, out);
        }
    }
}

/* 32 numbers of x as codes; the sums of 16 and 16. */
static float form_group(const float *x, enum kern_form form, char *out, int32_t sums[2])
{
    float most = codes_most(x, GROUP);
    const __m256 factor = _mm256_set1_ps(codes_factor(most));
    for (size_t half = 0; half < 2; half++, x += 16) {
        __m256i left = codes_of(_mm256_loadu_ps(x), factor);
        __m256i right = codes_of(_mm256_loadu_ps(x + 8), factor);
        sums[half] = vector_sum_i32(_mm256_add_epi32(left, right));
        if (form == KERN_FORM_I16) {
            _mm_storeu_si128((__m128i *)(out + 32 * half), codes_words(left));
            _mm_storeu_si128((__m128i *)(out + 32 * half + 16), codes_words(right));
        } else {
            _mm_storeu_si128((__m128i *)(out + 16 * half),
                _mm_unpacklo_epi64(codes_bytes(left), codes_bytes(right)));
        }
    }
    return most / 127.0F;
}

/* The same for weights in blocks. What pads K has scale 0. */
static void form_groups(const struct linear *l, size_t t)
{
    static const float zeros[GROUP];
    const struct kern_matrix *w = l->a->w;
    const float *x = (const float *)l->a->x + t * w->k;
    for (size_t g = 0; g < l->groups; g++) {
        size_t k = g * GROUP, at = t * l->groups + g;
        int32_t sums[2];
        char *out = (char *)l->a->workspace + formed_at(l, t, k);
        l->scales[at] = form_group(k < w->k ? x + k : zeros, l->tiles->form, out, sums);
        if (w->dtype == KERN_Q6_K) {
            memcpy(&l->sums[2 * at], sums, sizeof sums);
        } else {
            l->sums[at] = sums[0] + sums[1];
        }
    }
}

static void form_rows(const struct linear *l, size_t t, size_t end)
{
    for (; t < end; t++) {
        if (in_blocks(l->a->w)) {
            form_groups(l, t);
        } else {
            form_row(l, t);
        }
    }
}

static void form_piece(void *self, size_t index, unsigned worker)
{
    const struct linear *l = self;
    size_t t = index * TILE_ROWS;
    (void)worker;
    form_rows(l, t, l->a->t - t < TILE_ROWS ? l->a->t : t + TILE_ROWS);
}

static void form(struct kern_ctx *ctx, struct linear *l)
{
    const struct kern_linear *a = l->a;
    const struct kern_matrix *w = a->w;
    enum kern_form form = l->tiles->form;
    l->x_bytes = w->k_padded * form_bytes(form);
    if (form == KERN_FORM_PLAIN ||
        (form == KERN_FORM_BF16 && a->x_dtype == KERN_BF16 && w->k == w->k_padded)) {
        l->x = (const char *)a->x;
        return;
    }
    l->x = a->workspace;
    l->groups = groups_of(w);
    l->scales = (float *)((char *)a->workspace + formed_bytes(w, l->tiles, a->t));
    l->sums = (int32_t *)((char *)l->scales + scales_bytes(w, a->t));
    if (a->t * w->k < SERIAL_FORM_NUMBERS) {
        form_rows(l, 0, a->t);
        return;
    }
    kern_pool_run(ctx->pool, (a->t + TILE_ROWS - 1) / TILE_ROWS, form_piece, l);
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

static const char *w_at(const struct linear *l, size_t panel, size_t k)
{
    return (const char *)l->a->w->data + panel * l->a->w->panel_bytes +
           k / l->tiles->layout.pad * l->layout_bytes;
}

/* Rows row .. row + rows - 1 of x by numbers k .. k + count - 1 of one or two panels. */
static void run_tiles(const struct linear *l, size_t row, size_t rows, size_t panel, size_t panels,
    size_t k, size_t count, const void *next, float *sums)
{
    const struct kern_matrix *w = l->a->w;
    size_t group = w->dtype == KERN_Q6_K ? 16 : GROUP;
    /* Tiles of even height: with four rows and eight, eight is two times four. */
    size_t tiles = (rows + l->tiles->rows_max - 1) / l->tiles->rows_max;
    for (size_t i = 0, done = 0; i < tiles; i++) {
        size_t height = (rows - done) / (tiles - i), t = row + done;
        struct kern_tile tile = {
            .x = l->x + formed_at(l, t, k),
            .x_bytes = cut_bytes(l, k),
            .w = w_at(l, panel, k),
            .panel_bytes = w->panel_bytes,
            .k = count,
            .rows = height,
            .panels = panels,
            .sums = sums + done * KERN_TILE_COLUMNS,
            .add = k > 0,
            .next = next,
        };
        if (in_blocks(w)) {
            tile.x_groups = l->groups;
            tile.x_scales = l->scales + t * l->groups + k / GROUP;
            tile.x_sums = l->sums + (t * w->k_padded + k) / group;
        }
        l->tiles->run(&tile);
        done += height;
    }
}

/* The panels of a span, two beside each other in sums. What a call reads of W comes from memory:
 * the call before asks for it. */
static void linear_span(
    const struct linear *l, size_t row, size_t rows, size_t panel, size_t panels, float *sums)
{
    size_t k_padded = l->a->w->k_padded, step = l->tiles->panels_max;
    size_t panels_all = (l->a->w->n + KERN_PANEL - 1) / KERN_PANEL;
    for (size_t k = 0; k < k_padded; k += l->cut) {
        size_t count = k_padded - k < l->cut ? k_padded - k : l->cut;
        bool last = k + count == k_padded;
        for (size_t i = 0; i < panels; i += step) {
            const void *next = i + step < panels             ? w_at(l, panel + i + step, k)
                               : !last                       ? w_at(l, panel, k + count)
                               : panel + panels < panels_all ? w_at(l, panel + panels, 0)
                                                             : NULL;
            run_tiles(l, row, rows, panel + i, panels - i < step ? panels - i : step, k, count,
                next, sums + i / 2 * rows * KERN_TILE_COLUMNS + i % 2 * KERN_PANEL);
        }
    }
    /* By some rows: y is written by more than a line at a time. */
    for (size_t r = 0; r < rows; r += FINISH_ROWS) {
        size_t some = rows - r < FINISH_ROWS ? rows - r : FINISH_ROWS;
        for (size_t i = 0; i < panels; i++) {
            size_t at = (i / 2 * rows + r) * KERN_TILE_COLUMNS + i % 2 * KERN_PANEL;
            finish_panel(l, panel + i, row + r, some, sums + at);
        }
    }
}

static void linear_piece(void *self, size_t index, unsigned worker)
{
    _Alignas(64) float sums[BLOCK_ROWS_MAX * SPAN_PANELS * KERN_PANEL]; /* or int32 */
    const struct linear *l = self;
    const struct kern_matrix *w = l->a->w;
    (void)worker;
    size_t row = index / l->chunks * l->block_rows;
    size_t rows = l->a->t - row < l->block_rows ? l->a->t - row : l->block_rows;
    size_t panels_count = (w->n + KERN_PANEL - 1) / KERN_PANEL;
    size_t panel = index % l->chunks * l->chunk_panels;
    size_t end = panel + l->chunk_panels < panels_count ? panel + l->chunk_panels : panels_count;
    size_t span = l->cut < w->k_padded ? SPAN_PANELS : KERN_TILE_PANELS;
    for (size_t panels; panel < end; panel += panels) {
        panels = end - panel < span ? end - panel : span;
        linear_span(l, row, rows, panel, panels, sums);
    }
}

/* Into blocks of whole tiles, and K into cuts of which a block fits the cache. */
static void divide_rows(struct linear *l)
{
    const struct kern_tiles *tiles = l->tiles;
    size_t unit = in_tiles(tiles->form) ? TILE_ROWS : 1, t = l->a->t;
    size_t most = tiles->block_rows / tiles->rows_max * tiles->rows_max;
    l->blocks = (t + most - 1) / most;
    l->block_rows = kern_up((t + l->blocks - 1) / l->blocks, unit);
    l->blocks = (t + l->block_rows - 1) / l->block_rows;
    l->cut = tiles->block_bytes / (l->block_rows * form_bytes(tiles->form)) / CUT * CUT;
    l->cut = l->cut > CUT ? l->cut : CUT;
}

void kern_cpu_linear(struct kern_ctx *ctx, const struct kern_linear *a)
{
    struct linear l = {.a = a, .tiles = tiles_of(a->w, a->t)};
    size_t panels = (a->w->n + KERN_PANEL - 1) / KERN_PANEL;
    if (!l.tiles) {
        kern_ref_linear(ctx, a);
        return;
    }
    l.layout_bytes = kern_ops_layout(a->w->ops, a->w->dtype).bytes;
    divide_rows(&l);
    form(ctx, &l);
    size_t wanted = ctx->threads == 1 ? 1 : PIECES_A_THREAD * ctx->threads;
    l.chunks = (wanted + l.blocks - 1) / l.blocks;
    l.chunk_panels = kern_up((panels + l.chunks - 1) / l.chunks, KERN_TILE_PANELS);
    l.chunks = (panels + l.chunk_panels - 1) / l.chunk_panels;
    kern_pool_run(ctx->pool, l.blocks * l.chunks, linear_piece, &l);
}
