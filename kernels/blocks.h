/* Blocks of quantized weights as GGUF lays them out, bit for bit as ggml defines them
 * (ggml-common.h and ggml-quants.c of ggml-org/llama.cpp; the layout is fixed by the files that
 * people have). All numbers are little-endian; a scale d is an f16.
 *
 *   Q8_0  32 numbers, 34 bytes: d; 32 codes of int8.            x = d code
 *   Q4_0  32 numbers, 18 bytes: d; 16 bytes, code i in the low half of byte i, code i + 16 in the
 *         high half.                                            x = d (code - 8)
 *   Q4_K  256 numbers, 144 bytes: d; d_min; 12 bytes with 8 scales and 8 minima of 6 bits; 128
 *         bytes of codes, 64 numbers in 32 bytes: low halves, then high halves.
 *                                                x = d scale[i / 32] code - d_min min[i / 32]
 *   Q6_K  256 numbers, 210 bytes: 128 bytes with the low four bits of the codes, 64 with the high
 *         two, 16 scales of int8; d.             x = d scale[i / 16] (code - 32)
 *
 * Threads: any. */
#ifndef KERNELS_BLOCKS_H
#define KERNELS_BLOCKS_H

#include "kernels/kern.h"

#define KERN_BLOCK_MAX 256 /* numbers */

/* A block, opened. */
struct kern_block {
    uint16_t d, d_min;             /* f16 */
    int8_t scales[16];             /* Q4_K: 8, 0..63; Q6_K: 16 */
    uint8_t mins[8];               /* Q4_K, 0..63 */
    uint8_t codes[KERN_BLOCK_MAX]; /* as above, before anything is subtracted; Q8_0: int8 */
};

/* Open the block at data (any alignment). */
void kern_block_open(enum kern_dtype dtype, const void *data, struct kern_block *out);

/* count numbers, a multiple of the block. out may not overlap. */
void kern_blocks_to_f32(enum kern_dtype from, const void *data, float *out, size_t count);

/* Quantize to Q8_0 (the largest magnitude over 127, halves away from zero) or Q4_0 (the number of
 * the largest magnitude over -8, so that it is always code 0), as ggml does. Infinity and NaN give
 * some code. */
void kern_blocks_from_f32(enum kern_dtype to, const float *from, void *out, size_t count);

#endif
