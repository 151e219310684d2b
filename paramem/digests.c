#include "paramem/digests.h"

#include <sodium.h>
#include <string.h>

#define BLOCK 128 /* bytes that one compression takes */

/* One piece after the other. */
static void digests_alone(const uint8_t *const *pieces, size_t count, size_t size, size_t slice,
    paramem_digests_look *look, void *self, uint8_t *const *out)
{
    crypto_generichash_state states[PARAMEM_DIGESTS_LANES];
    for (size_t i = 0; i < count; i++) {
        (void)crypto_generichash_init(&states[i], NULL, 0, PARAMEM_DIGEST_BYTES);
    }
    for (size_t from = 0; from < size; from += slice) {
        size_t here = size - from < slice ? size - from : slice;
        if (look) {
            look(self, from, here);
        }
        for (size_t i = 0; i < count; i++) {
            (void)crypto_generichash_update(&states[i], pieces[i] + from, here);
        }
    }
    for (size_t i = 0; i < count; i++) {
        (void)crypto_generichash_final(&states[i], out[i], PARAMEM_DIGEST_BYTES);
    }
}

#if defined(__x86_64__)
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))
#define LANES PARAMEM_DIGESTS_LANES

static const uint64_t initial[8] = {UINT64_C(0x6A09E667F3BCC908), UINT64_C(0xBB67AE8584CAA73B),
    UINT64_C(0x3C6EF372FE94F82B), UINT64_C(0xA54FF53A5F1D36F1), UINT64_C(0x510E527FADE682D1),
    UINT64_C(0x9B05688C2B3E6C1F), UINT64_C(0x1F83D9ABFB41BD6B), UINT64_C(0x5BE0CD19137E2179)};

/* The chains of four pieces: word i of all of them is one register. */
struct chains {
    __m256i h[8];
};

/* 128 bytes of four pieces into 16 registers, word i of all pieces in the i-th. */
AVX2 static inline void words_load(const uint8_t *const at[LANES], __m256i m[16])
{
    for (size_t i = 0; i < 16; i += 4) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(at[0] + 8 * i));
        __m256i b = _mm256_loadu_si256((const __m256i *)(at[1] + 8 * i));
        __m256i c = _mm256_loadu_si256((const __m256i *)(at[2] + 8 * i));
        __m256i d = _mm256_loadu_si256((const __m256i *)(at[3] + 8 * i));
        __m256i ab = _mm256_unpacklo_epi64(a, b), ab_odd = _mm256_unpackhi_epi64(a, b);
        __m256i cd = _mm256_unpacklo_epi64(c, d), cd_odd = _mm256_unpackhi_epi64(c, d);
        m[i] = _mm256_permute2x128_si256(ab, cd, 0x20);
        m[i + 1] = _mm256_permute2x128_si256(ab_odd, cd_odd, 0x20);
        m[i + 2] = _mm256_permute2x128_si256(ab, cd, 0x31);
        m[i + 3] = _mm256_permute2x128_si256(ab_odd, cd_odd, 0x31);
    }
}

/* The mixing function G of RFC 7693, 3.1, for four pieces: rotations by 32, 24, 16 and 63. */
#define MIX(a, b, c, d, x, y)                                                                      \
    do {                                                                                           \
        a = _mm256_add_epi64(_mm256_add_epi64(a, b), x);                                           \
        d = _mm256_shuffle_epi32(_mm256_xor_si256(d, a), 0xB1);                                    \
        c = _mm256_add_epi64(c, d);                                                                \
        b = _mm256_shuffle_epi8(_mm256_xor_si256(b, c), by_24);                                    \
        a = _mm256_add_epi64(_mm256_add_epi64(a, b), y);                                           \
        d = _mm256_shuffle_epi8(_mm256_xor_si256(d, a), by_16);                                    \
        c = _mm256_add_epi64(c, d);                                                                \
        b = _mm256_xor_si256(b, c);                                                                \
        b = _mm256_or_si256(_mm256_add_epi64(b, b), _mm256_srli_epi64(b, 63));                     \
    } while (0)

/* A round, with the order in which it takes the words. */
#define ROUND(s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15)                \
    do {                                                                                           \
        MIX(v0, v4, v8, v12, m[s0], m[s1]);                                                        \
        MIX(v1, v5, v9, v13, m[s2], m[s3]);                                                        \
        MIX(v2, v6, v10, v14, m[s4], m[s5]);                                                       \
        MIX(v3, v7, v11, v15, m[s6], m[s7]);                                                       \
        MIX(v0, v5, v10, v15, m[s8], m[s9]);                                                       \
        MIX(v1, v6, v11, v12, m[s10], m[s11]);                                                     \
        MIX(v2, v7, v8, v13, m[s12], m[s13]);                                                      \
        MIX(v3, v4, v9, v14, m[s14], m[s15]);                                                      \
    } while (0)

/* The next block of all pieces; `until`: bytes with it, last: none comes behind it. */
AVX2 static void compress(
    struct chains *chains, const uint8_t *const at[LANES], uint64_t until, bool last)
{
    const __m256i by_24 = _mm256_setr_epi8(3, 4, 5, 6, 7, 0, 1, 2, 11, 12, 13, 14, 15, 8, 9, 10, 3,
        4, 5, 6, 7, 0, 1, 2, 11, 12, 13, 14, 15, 8, 9, 10);
    const __m256i by_16 = _mm256_setr_epi8(2, 3, 4, 5, 6, 7, 0, 1, 10, 11, 12, 13, 14, 15, 8, 9, 2,
        3, 4, 5, 6, 7, 0, 1, 10, 11, 12, 13, 14, 15, 8, 9);
    __m256i m[16], *h = chains->h;
    words_load(at, m);
    __m256i v0 = h[0], v1 = h[1], v2 = h[2], v3 = h[3], v4 = h[4], v5 = h[5], v6 = h[6], v7 = h[7];
    __m256i v8 = _mm256_set1_epi64x((long long)initial[0]);
    __m256i v9 = _mm256_set1_epi64x((long long)initial[1]);
    __m256i v10 = _mm256_set1_epi64x((long long)initial[2]);
    __m256i v11 = _mm256_set1_epi64x((long long)initial[3]);
    __m256i v12 = _mm256_set1_epi64x((long long)(initial[4] ^ until));
    __m256i v13 = _mm256_set1_epi64x((long long)initial[5]);
    __m256i v14 = _mm256_set1_epi64x((long long)(last ? ~initial[6] : initial[6]));
    __m256i v15 = _mm256_set1_epi64x((long long)initial[7]);
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);
    ROUND(11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4);
    ROUND(7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8);
    ROUND(9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13);
    ROUND(2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9);
    ROUND(12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11);
    ROUND(13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10);
    ROUND(6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5);
    ROUND(10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0);
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);
    h[0] = _mm256_xor_si256(h[0], _mm256_xor_si256(v0, v8));
    h[1] = _mm256_xor_si256(h[1], _mm256_xor_si256(v1, v9));
    h[2] = _mm256_xor_si256(h[2], _mm256_xor_si256(v2, v10));
    h[3] = _mm256_xor_si256(h[3], _mm256_xor_si256(v3, v11));
    h[4] = _mm256_xor_si256(h[4], _mm256_xor_si256(v4, v12));
    h[5] = _mm256_xor_si256(h[5], _mm256_xor_si256(v5, v13));
    h[6] = _mm256_xor_si256(h[6], _mm256_xor_si256(v6, v14));
    h[7] = _mm256_xor_si256(h[7], _mm256_xor_si256(v7, v15));
}

/* Blocks of bytes from .. to - 1; the last block of a piece is not among them. */
AVX2 static void blocks_add(
    struct chains *chains, const uint8_t *const pieces[LANES], size_t from, size_t to)
{
    for (; from < to; from += BLOCK) {
        const uint8_t *const at[LANES] = {
            pieces[0] + from, pieces[1] + from, pieces[2] + from, pieces[3] + from};
        compress(chains, at, from + BLOCK, false);
    }
}

AVX2 static void digests_lanes(const uint8_t *const pieces[LANES], size_t size, size_t slice,
    paramem_digests_look *look, void *self, uint8_t *const *out)
{
    struct chains chains;
    uint8_t last[LANES][BLOCK] = {{0}};
    uint64_t words[8][LANES];
    size_t whole = (size - 1) / BLOCK * BLOCK; /* what is before the last block */

    for (size_t i = 0; i < 8; i++) {
        chains.h[i] = _mm256_set1_epi64x((long long)initial[i]);
    }
    /* The parameters: 32 bytes of digest, no key, a tree of one. */
    chains.h[0] =
        _mm256_xor_si256(chains.h[0], _mm256_set1_epi64x(0x01010000 ^ PARAMEM_DIGEST_BYTES));
    for (size_t from = 0; from < size; from += slice) {
        size_t here = size - from < slice ? size - from : slice;
        if (look) {
            look(self, from, here);
        }
        blocks_add(&chains, pieces, from, from + here < whole ? from + here : whole);
    }
    for (size_t i = 0; i < LANES; i++) {
        memcpy(last[i], pieces[i] + whole, size - whole);
    }
    compress(
        &chains, (const uint8_t *const[LANES]){last[0], last[1], last[2], last[3]}, size, true);
    memcpy(words, chains.h, sizeof words);
    for (size_t i = 0; i < LANES; i++) {
        for (size_t w = 0; w < PARAMEM_DIGEST_BYTES / 8; w++) {
            memcpy(out[i] + 8 * w, &words[w][i], 8);
        }
    }
}
#endif

void paramem_digests(const uint8_t *const *pieces, size_t count, size_t size, size_t slice,
    paramem_digests_look *look, void *self, uint8_t *const *out)
{
    memos_assert(count > 0 && count <= PARAMEM_DIGESTS_LANES && slice > 0 && slice % BLOCK == 0);
#if defined(__x86_64__)
    if (count == PARAMEM_DIGESTS_LANES && size > 0 && __builtin_cpu_supports("avx2")) {
        digests_lanes(pieces, size, slice, look, self, out);
        return;
    }
#endif
    digests_alone(pieces, count, size, slice, look, self, out);
}
