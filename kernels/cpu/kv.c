/* The paged cache: a piece is some tokens. */
#include "kernels/kv.h"

#include "kernels/cpu/ops.h"
#include "kernels/cpu/rotate.h"
#include "kernels/cpu/vector.h"
#include "kernels/ref/ops.h"

#include <math.h>
#include <string.h>

#define HEAD_DIM_MAX 256
#define PIECE_NUMBERS 8192

/* ---- codes --------------------------------------------------------------------------------- */

/* The largest magnitude; NaN when one is NaN. d is a multiple of 8. */
static float most_of(const float *x, size_t d)
{
    __m256 most = _mm256_setzero_ps(), nan = _mm256_setzero_ps();
    for (size_t i = 0; i < d; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i);
        nan = _mm256_or_ps(nan, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
        most = _mm256_max_ps(vector_abs(v), most);
    }
    return _mm256_movemask_ps(nan) != 0 ? NAN : vector_max(most);
}

/* Eight numbers of magnitude at most 448 or a rounding more as e4m3, to nearest even. With the
 * exponent e (at least -6) a number is rounded to a multiple of 2^(e - 3) by adding and taking off
 * 1.5 x 2^(e + 20), of which that is the last bit. Then exponent and mantissa of the float32 are
 * the code's; what is below 2^-6 counts 2^-9. */
static inline __m128i encode_e4m3(__m256 v)
{
    const __m256i normal_min = _mm256_set1_epi32((127 - 6) << 23);
    __m256i sign = _mm256_srli_epi32(
        _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32((int)0x80000000)), 24);
    __m256i exponent = _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(0x7f800000));
    exponent = _mm256_max_epi32(exponent, normal_min);
    __m256 unit =
        _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(20 << 23 | 0x400000)));
    __m256 size = _mm256_sub_ps(_mm256_add_ps(vector_abs(v), unit), unit);
    __m256i bits = _mm256_castps_si256(size);
    __m256i normal = _mm256_sub_epi32(_mm256_srli_epi32(bits, 20), _mm256_set1_epi32(120 << 3));
    __m256i small = _mm256_cvtps_epi32(_mm256_mul_ps(size, _mm256_set1_ps(512.0F)));
    __m256i code = _mm256_blendv_epi8(normal, small, _mm256_cmpgt_epi32(normal_min, bits));
    code = _mm256_or_si256(_mm256_min_epi32(code, _mm256_set1_epi32(0x7e)), sign);
    __m128i words =
        _mm_packus_epi32(_mm256_castsi256_si128(code), _mm256_extracti128_si256(code, 1));
    return _mm_packus_epi16(words, words);
}

static void encode(enum kern_dtype dtype, const float *x, size_t d, void *out, float *scale)
{
    if (dtype != KERN_E4M3) {
        kern_cpu_from_f32(dtype, x, out, d);
        return;
    }
    *scale = kern_kv_scale(most_of(x, d));
    if (!(*scale > 0)) {
        memset(out, 0, d);
        return;
    }
    for (size_t i = 0; i < d; i += 8) {
        __m256 v = _mm256_div_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(*scale));
        _mm_storel_epi64((__m128i *)(void *)((uint8_t *)out + i), encode_e4m3(v));
    }
}

static void decode(const struct kern_attention_tiles *tiles, enum kern_dtype dtype,
    const void *codes, const float *scale, size_t d, float *x)
{
    if (dtype == KERN_F32) {
        memcpy(x, codes, d * sizeof *x);
        return;
    }
    tiles->decode(dtype, codes, x, d);
    for (size_t i = 0; dtype == KERN_E4M3 && i < d; i += 8) {
        __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(256.0F));
        _mm256_storeu_ps(x + i, _mm256_mul_ps(v, _mm256_set1_ps(*scale)));
    }
}

/* ---- tokens -------------------------------------------------------------------------------- */

/* What the three operations share; one of write, read and shift is not NULL. */
struct kv {
    const struct kern_kv *kv;
    const struct kern_attention_tiles *tiles;
    const struct kern_kv_write *write;
    const struct kern_kv_read *read;
    const struct kern_kv_shift *shift;
    const uint32_t *slots;
    size_t t, page_bytes, piece_tokens;
};

static void write_token(const struct kv *kv, size_t t)
{
    const struct kern_kv_write *a = kv->write;
    size_t d = kv->kv->head_dim, bytes = kern_dtype_bytes(a->from);
    float x[HEAD_DIM_MAX];
    for (size_t head = 0; head < kv->kv->heads; head++) {
        size_t at = (t * a->stride + head * d) * bytes;
        struct kern_kv_place place = kern_kv_place(kv->kv, kv->page_bytes, a->slots[t], head);
        kern_cpu_to_f32(a->from, (const char *)a->key + at, x, d);
        if (a->rope) {
            kern_cpu_rotate_head(a->rope, a->positions[t], x);
        }
        encode(kv->kv->dtype, x, d, place.key, place.key_scale);
        kern_cpu_to_f32(a->from, (const char *)a->value + at, x, d);
        encode(kv->kv->dtype, x, d, place.value, place.value_scale);
    }
}

static void read_token(const struct kv *kv, size_t t)
{
    const struct kern_kv_read *a = kv->read;
    size_t d = kv->kv->head_dim, at = t * kv->kv->heads * d;
    if (a->slots[t] == KERN_NO_SLOT) {
        memset(a->key + at, 0, kv->kv->heads * d * sizeof *a->key);
        memset(a->value + at, 0, kv->kv->heads * d * sizeof *a->value);
        return;
    }
    for (size_t head = 0; head < kv->kv->heads; head++, at += d) {
        struct kern_kv_place place = kern_kv_place(kv->kv, kv->page_bytes, a->slots[t], head);
        decode(kv->tiles, kv->kv->dtype, place.key, place.key_scale, d, a->key + at);
        decode(kv->tiles, kv->kv->dtype, place.value, place.value_scale, d, a->value + at);
    }
}

static void shift_token(const struct kv *kv, size_t t)
{
    const struct kern_kv_shift *a = kv->shift;
    size_t d = kv->kv->head_dim;
    float x[HEAD_DIM_MAX];
    for (size_t head = 0; a->shifts[t] != 0 && head < kv->kv->heads; head++) {
        struct kern_kv_place place = kern_kv_place(kv->kv, kv->page_bytes, a->slots[t], head);
        decode(kv->tiles, kv->kv->dtype, place.key, place.key_scale, d, x);
        kern_ref_shift_head(a->rope, a->shifts[t], x);
        encode(kv->kv->dtype, x, d, place.key, place.key_scale);
    }
}

static void kv_piece(void *self, size_t index, unsigned worker)
{
    const struct kv *kv = self;
    size_t t = index * kv->piece_tokens;
    (void)worker;
    for (size_t i = 0; i < kv->piece_tokens && t < kv->t; i++, t++) {
        if (kv->read) {
            read_token(kv, t);
        } else if (kv->slots[t] == KERN_NO_SLOT) {
            continue;
        } else if (kv->write) {
            write_token(kv, t);
        } else {
            shift_token(kv, t);
        }
    }
}

static void run(struct kern_ctx *ctx, struct kv *kv)
{
    kv->tiles = ctx->ops->attention_tiles;
    kv->page_bytes = kern_kv_page_bytes(kv->kv->dtype, kv->kv->heads, kv->kv->head_dim);
    kv->piece_tokens = PIECE_NUMBERS / (2 * kv->kv->heads * kv->kv->head_dim) + 1;
    kern_pool_run(ctx->pool, (kv->t + kv->piece_tokens - 1) / kv->piece_tokens, kv_piece, kv);
}

void kern_cpu_kv_write(struct kern_ctx *ctx, const struct kern_kv_write *a)
{
    struct kv kv = {.kv = a->kv, .write = a, .slots = a->slots, .t = a->t};
    run(ctx, &kv);
}

void kern_cpu_kv_read(struct kern_ctx *ctx, const struct kern_kv_read *a)
{
    struct kv kv = {.kv = a->kv, .read = a, .slots = a->slots, .t = a->t};
    run(ctx, &kv);
}

void kern_cpu_kv_shift(struct kern_ctx *ctx, const struct kern_kv_shift *a)
{
    struct kv kv = {.kv = a->kv, .shift = a, .slots = a->slots, .t = a->t};
    run(ctx, &kv);
}
