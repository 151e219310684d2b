/* The 16-bit floats eight at a time; the 8-bit ones come a vector at a time and stay ref's. */
#include "kernels/cpu/ops.h"
#include "kernels/cpu/vector.h"
#include "kernels/ref/ops.h"

void kern_cpu_from_f32(enum kern_dtype to, const float *from, void *out, size_t count)
{
    size_t i = 0, bytes = kern_dtype_bytes(to);
    if (to == KERN_F16 || to == KERN_BF16) {
        for (; i + 8 <= count; i += 8) {
            __m256 v = _mm256_loadu_ps(from + i);
            __m128i codes = to == KERN_BF16
                                ? vector_upper_halves(vector_round_bf16(v))
                                : _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
            _mm_storeu_si128((__m128i *)((uint16_t *)out + i), codes);
        }
    }
    kern_ref_from_f32(to, from + i, (char *)out + i * bytes, count - i);
}

void kern_cpu_to_f32(enum kern_dtype from, const void *data, float *out, size_t count)
{
    size_t i = 0, bytes = kern_dtype_bytes(from);
    if (from == KERN_F16 || from == KERN_BF16) {
        for (; i + 8 <= count; i += 8) {
            __m128i codes = _mm_loadu_si128((const __m128i *)((const char *)data + i * 2));
            __m256 v = from == KERN_F16 ? _mm256_cvtph_ps(codes)
                                        : _mm256_castsi256_ps(
                                              _mm256_slli_epi32(_mm256_cvtepu16_epi32(codes), 16));
            _mm256_storeu_ps(out + i, v);
        }
    }
    kern_ref_to_f32(from, (const char *)data + i * bytes, out + i, count - i);
}
