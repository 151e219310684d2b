/* Weights into panels: 256 numbers of 16 rows at a time become numbers of the type that they are
 * packed as, and then the rows are interleaved by words of 16 or 32 bits. */
#include "kernels/blocks.h"
#include "kernels/cpu/codes.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/panels.h"
#include "kernels/ref/ops.h"

#include <string.h>

#define CHUNK KERN_BLOCK_MAX

/* 256 numbers of 16 rows; what is not there is zero. */
struct chunk {
    _Alignas(32) char rows[KERN_PANEL][CHUNK * sizeof(float)];
};

/* Eight words of 16 bits of eight rows: word i of all rows to out + i * 32 bytes. */
static void turn_16(const char *rows, size_t at, char *out)
{
    __m128i a[8], b[8];
    for (size_t r = 0; r < 8; r++) {
        a[r] =
            _mm_load_si128((const __m128i *)(rows + r * sizeof(((struct chunk *)0)->rows[0]) + at));
    }
    for (size_t r = 0; r < 4; r++) { /* rows r and r + 4 */
        b[2 * r] = _mm_unpacklo_epi16(a[r], a[r + 4]);
        b[2 * r + 1] = _mm_unpackhi_epi16(a[r], a[r + 4]);
    }
    for (size_t r = 0; r < 2; r++) { /* and r + 2, r + 6 */
        a[4 * r] = _mm_unpacklo_epi16(b[2 * r], b[2 * r + 4]);
        a[4 * r + 1] = _mm_unpackhi_epi16(b[2 * r], b[2 * r + 4]);
        a[4 * r + 2] = _mm_unpacklo_epi16(b[2 * r + 1], b[2 * r + 5]);
        a[4 * r + 3] = _mm_unpackhi_epi16(b[2 * r + 1], b[2 * r + 5]);
    }
    for (size_t i = 0; i < 4; i++) {
        _mm_storeu_si128((__m128i *)(out + 64 * i), _mm_unpacklo_epi16(a[i], a[i + 4]));
        _mm_storeu_si128((__m128i *)(out + 64 * i + 32), _mm_unpackhi_epi16(a[i], a[i + 4]));
    }
}

/* Four words of 32 bits of four rows: word i of all rows to out + i * 64 bytes. */
static void turn_32(const char *rows, size_t at, char *out)
{
    const size_t stride = sizeof(((struct chunk *)0)->rows[0]);
    __m128 a = _mm_load_ps((const float *)(rows + at));
    __m128 b = _mm_load_ps((const float *)(rows + stride + at));
    __m128 c = _mm_load_ps((const float *)(rows + 2 * stride + at));
    __m128 d = _mm_load_ps((const float *)(rows + 3 * stride + at));
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_ps((float *)out, a);
    _mm_storeu_ps((float *)(out + 64), b);
    _mm_storeu_ps((float *)(out + 128), c);
    _mm_storeu_ps((float *)(out + 192), d);
}

/* Interleave the first row_bytes bytes of all rows, by words of 2 or 4 bytes. */
static void interleave(const struct chunk *chunk, size_t row_bytes, size_t word_bytes, char *out)
{
    char part[8 * KERN_PANEL * sizeof(uint32_t)];
    for (size_t at = 0; at < row_bytes; at += 16) { /* of a row */
        size_t left = row_bytes - at, room = KERN_PANEL * (left < 16 ? left : 16);
        char *to = left < 16 ? part : out + KERN_PANEL * at;
        if (word_bytes == 2) {
            turn_16(chunk->rows[0], at, to);
            turn_16(chunk->rows[8], at, to + 16);
        } else {
            for (size_t r = 0; r < KERN_PANEL; r += 4) {
                turn_32(chunk->rows[r], at, to + 4 * r);
            }
        }
        if (left < 16) {
            memcpy(out + KERN_PANEL * at, part, room);
        }
    }
}

/* ---- numbers of the packed type ------------------------------------------------------------ */

/* Numbers k .. k + count - 1 of row r as float32: whole blocks, or a part of one. */
static void widen(
    const struct kern_strip *strip, size_t r, size_t k, size_t count, float out[CHUNK])
{
    enum kern_dtype from = strip->from[r];
    size_t block = kern_dtype_block(from), in = k % block;
    const char *at = (const char *)strip->rows[r] + kern_dtype_row_bytes(from, k - in);
    if (in == 0 && count % block == 0) {
        kern_cpu_to_f32(from, at, out, count);
    } else {
        float whole[KERN_BLOCK_MAX];
        kern_cpu_to_f32(from, at, whole, block);
        memcpy(out, whole + in, count * sizeof *out);
    }
}

/* The scale of row r: int8 has one for all of it. */
static float row_most(const struct kern_matrix *w, const struct kern_strip *strip, size_t r)
{
    float most = 0, part[CHUNK];
    for (size_t k = 0; k < w->k; k += CHUNK) {
        size_t count = w->k - k < CHUNK ? w->k - k : CHUNK;
        widen(strip, r, k, count, part);
        float here = codes_most(part, count);
        most = here > most ? here : most;
    }
    return most;
}

/* Codes of count numbers; returns their sum. What is behind them is overwritten up to eight. */
static int32_t fill_codes(const float *from, size_t count, float most, char *out)
{
    const __m256 factor = _mm256_set1_ps(codes_factor(most));
    __m256i sums = _mm256_setzero_si256();
    for (size_t i = 0; i < count; i += 8) {
        size_t left = count - i;
        __m256 v = left >= 8 ? _mm256_loadu_ps(from + i) : vector_load_part(from + i, left);
        __m256i codes = codes_of(v, factor);
        sums = _mm256_add_epi32(sums, codes);
        _mm_storel_epi64((__m128i *)(out + i), codes_bytes(codes));
    }
    int32_t lanes[8], sum = 0;
    _mm256_storeu_si256((__m256i *)lanes, sums);
    for (size_t i = 0; i < 8; i++) {
        sum += lanes[i];
    }
    return sum;
}

static void fill_row(struct kern_matrix *w, const struct kern_strip *strip, size_t r, size_t k,
    size_t count, const float *most, char *out)
{
    float part[CHUNK];
    if (w->dtype == strip->from[r]) { /* f32 or bf16 */
        size_t bytes = kern_dtype_bytes(w->dtype);
        memcpy(out, (const char *)strip->rows[r] + k * bytes, count * bytes);
        return;
    }
    widen(strip, r, k, count, part);
    if (w->dtype == KERN_I8) {
        w->sums[strip->n + r] += fill_codes(part, count, most[r], out);
    } else {
        kern_cpu_from_f32(w->dtype, part, out, count);
    }
}

/* ---- blocks -------------------------------------------------------------------------------- */

/* 32 numbers to codes as kern_blocks_from_f32 makes them. */
static void quantize_q8_0(const float *x, struct kern_block *out)
{
    float d = codes_most(x, 32) / 127.0F;
    const __m256 factor = _mm256_set1_ps(d != 0 ? 1.0F / d : 0);
    /* The largest float below a half: what is cut off after adding it was rounded, halves up. */
    const __m256 half = _mm256_set1_ps(0x1.fffffep-2F), sign = _mm256_set1_ps(-0.0F);
    const __m256 least = _mm256_set1_ps(-128), top = _mm256_set1_ps(127);
    out->d = _cvtss_sh(d, _MM_FROUND_TO_NEAREST_INT);
    for (size_t i = 0; i < 32; i += 8) {
        __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + i), factor);
        v = _mm256_add_ps(v, _mm256_or_ps(half, _mm256_and_ps(v, sign)));
        v = _mm256_min_ps(_mm256_max_ps(v, least), top); /* NaN is the lower end */
        _mm_storel_epi64((__m128i *)(out->codes + i), codes_bytes(_mm256_cvttps_epi32(v)));
    }
}

/* The number of the largest magnitude, the first of equals. */
static float most_of(const float *x)
{
    const __m256 most = _mm256_set1_ps(codes_most(x, 32));
    for (size_t i = 0; i < 32; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i);
        int equal = _mm256_movemask_ps(_mm256_cmp_ps(vector_abs(v), most, _CMP_EQ_OQ));
        if (equal != 0) {
            return x[i + (size_t)__builtin_ctz((unsigned)equal)];
        }
    }
    return 0;
}

static void quantize_q4_0(const float *x, struct kern_block *out)
{
    float d = most_of(x) / -8.0F;
    const __m256 factor = _mm256_set1_ps(d != 0 ? 1.0F / d : 0);
    const __m256 zero = _mm256_setzero_ps(), top = _mm256_set1_ps(15);
    out->d = _cvtss_sh(d, _MM_FROUND_TO_NEAREST_INT);
    for (size_t i = 0; i < 32; i += 8) {
        __m256 v = _mm256_fmadd_ps(_mm256_loadu_ps(x + i), factor, _mm256_set1_ps(8.5F));
        v = _mm256_min_ps(_mm256_max_ps(v, zero), top);
        _mm_storel_epi64((__m128i *)(out->codes + i), codes_bytes(_mm256_cvttps_epi32(v)));
    }
}

/* 16 rows of 32 or 256 numbers, opened, and their codes turned into steps of 4 (or 2) of K. */
struct opened {
    struct kern_block blocks[KERN_PANEL];
    struct chunk chunk;
    _Alignas(32) uint8_t steps[CHUNK * KERN_PANEL];
};

static void open_rows(const struct kern_matrix *w, const struct kern_strip *strip, size_t k,
    size_t word_bytes, struct opened *o)
{
    size_t count = kern_dtype_block(w->dtype);
    for (size_t r = 0; r < KERN_PANEL; r++) {
        struct kern_block *block = &o->blocks[r];
        float part[CHUNK];
        if (r >= strip->count || k >= w->k) {
            memset(block, 0, sizeof *block);
        } else if (strip->from[r] == w->dtype) {
            const char *row = strip->rows[r];
            kern_block_open(w->dtype, row + kern_dtype_row_bytes(w->dtype, k), block);
        } else {
            widen(strip, r, k, count, part);
            if (w->dtype == KERN_Q8_0) {
                quantize_q8_0(part, block);
            } else {
                quantize_q4_0(part, block);
            }
        }
        memcpy(o->chunk.rows[r], block->codes, count);
    }
    interleave(&o->chunk, count, word_bytes, (char *)o->steps);
}

static void pack_q8_0(
    const struct kern_layout *layout, const struct opened *o, size_t block, struct panel_q8_0 *out)
{
    for (size_t r = 0; r < KERN_PANEL; r++) {
        out->d[block % 2][r] = o->blocks[r].d;
    }
    for (size_t i = 0; i < sizeof out->codes[0]; i++) {
        out->codes[block % 2][i] = o->steps[i] ^ (layout->group == 4 ? 0x80 : 0);
    }
}

/* 32 numbers: two steps a line. */
static void pack_halves(const uint8_t *steps, uint8_t out[16 * KERN_PANEL])
{
    for (size_t line = 0; line < 4; line++) {
        for (size_t i = 0; i < 64; i++) {
            out[64 * line + i] =
                (uint8_t)((steps[128 * line + i] & 15) | steps[128 * line + 64 + i] << 4);
        }
    }
}

static void pack_q4_0(const struct opened *o, size_t block, struct panel_q4_0 *out)
{
    for (size_t r = 0; r < KERN_PANEL; r++) {
        out->d[block % 2][r] = o->blocks[r].d;
    }
    pack_halves(o->steps, out->codes[block % 2]);
}

static void pack_q4_k(const struct opened *o, struct panel_q4_k *out)
{
    for (size_t r = 0; r < KERN_PANEL; r++) {
        out->d[r] = o->blocks[r].d;
        out->d_min[r] = o->blocks[r].d_min;
        for (size_t i = 0; i < 8; i++) {
            out->scales[i][r] = (uint8_t)o->blocks[r].scales[i];
            out->mins[i][r] = o->blocks[r].mins[i];
        }
    }
    for (size_t i = 0; i < 8; i++) {
        pack_halves(o->steps + i * 32 * KERN_PANEL, out->codes[i]);
    }
}

static void pack_q6_k(const struct opened *o, struct panel_q6_k *out)
{
    memset(out->zero, 0, sizeof out->zero);
    for (size_t r = 0; r < KERN_PANEL; r++) {
        out->d[r] = o->blocks[r].d;
        for (size_t i = 0; i < 16; i++) {
            out->scales[i][r] = o->blocks[r].scales[i];
        }
    }
    for (size_t i = 0; i < 8; i++) {
        const uint8_t *steps = o->steps + i * 32 * KERN_PANEL;
        pack_halves(steps, out->codes[i].low);
        for (size_t at = 0; at < 128; at++) {
            const uint8_t *four = steps + at / 64 * 256 + at % 64;
            out->codes[i].high[at] = (uint8_t)(four[0] >> 4 | four[64] >> 4 << 2 |
                                               four[128] >> 4 << 4 | four[192] >> 4 << 6);
        }
    }
}

static void pack_blocks(
    struct kern_matrix *w, const struct kern_layout *layout, const struct kern_strip *strip)
{
    struct opened o;
    size_t count = kern_dtype_block(w->dtype);
    char *out = (char *)w->data + strip->n / KERN_PANEL * w->panel_bytes;
    for (size_t k = 0; k < w->k_padded; k += count) {
        void *to = out + k / layout->pad * layout->bytes;
        open_rows(w, strip, k, layout->group, &o);
        if (w->dtype == KERN_Q8_0) {
            pack_q8_0(layout, &o, k / count, to);
        } else if (w->dtype == KERN_Q4_0) {
            pack_q4_0(&o, k / count, to);
        } else if (w->dtype == KERN_Q4_K) {
            pack_q4_k(&o, to);
        } else {
            pack_q6_k(&o, to);
        }
    }
}

/* ---- a strip ------------------------------------------------------------------------------- */

static void pack_numbers(
    struct kern_matrix *w, const struct kern_layout *layout, const struct kern_strip *strip)
{
    float most[KERN_PANEL];
    struct chunk chunk;
    for (size_t r = 0; w->dtype == KERN_I8 && r < strip->count; r++) {
        most[r] = row_most(w, strip, r);
        w->scales[strip->n + r] = most[r] / 127.0F;
        w->sums[strip->n + r] = 0;
    }
    size_t bytes = kern_dtype_bytes(w->dtype);
    char *out = (char *)w->data + strip->n / KERN_PANEL * w->panel_bytes;
    for (size_t k = 0; k < w->k_padded; k += CHUNK) {
        size_t padded = w->k_padded - k < CHUNK ? w->k_padded - k : CHUNK;
        size_t left = w->k > k ? w->k - k : 0, count = left < CHUNK ? left : CHUNK;
        if (count < CHUNK || strip->count < KERN_PANEL) {
            memset(&chunk, 0, sizeof chunk);
        }
        for (size_t r = 0; r < strip->count && count > 0; r++) {
            fill_row(w, strip, r, k, count, most, chunk.rows[r]);
        }
        interleave(&chunk, padded * bytes, layout->group * bytes, out + k * KERN_PANEL * bytes);
    }
}

void kern_cpu_pack(struct kern_matrix *w, const struct kern_strip *strip)
{
    const struct kern_layout layout = kern_ops_layout(w->ops, w->dtype);
    if (layout.width == 1) {
        kern_ref_pack(w, strip);
    } else if (kern_dtype_block(w->dtype) > 1) {
        pack_blocks(w, &layout, strip);
    } else {
        pack_numbers(w, &layout, strip);
    }
}
