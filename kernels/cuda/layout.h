/* How weights and codes lie on the device: what the host lays out and the kernels read.
 *
 * Weights (N, K) are row-major; K is padded with zeros to K' where a way to multiply wants it:
 *     F32, BF16   as they are, K' = K: a table of embeddings can be the same memory
 *     I8          codes (N, K'), K' a multiple of 64; scales (N) float32
 *     Q8_0        codes (N, K'), K' a multiple of 128, in the order of kern_q8_place; scales f16
 *     Q4_0        codes (N, K' / 2 bytes), K' a multiple of 128, see kern_q4_place; scales f16
 * Scales of blocks lie by tiles of 8 rows (N rounded up) and in these by 64 bytes of codes, which
 * have 2 blocks of a row, or 4: (N / 8, K' bytes / 64, 8, 2 or 4).
 * Q4_K and Q6_K become BF16 when they are packed: their numbers rounded.
 *
 * x of integer weights is quantized by the device (quantize.cu) into codes (T, K') in the order of
 * I8 (as they are) or of Q8_0, and scales float32: (T), or (T, K' / 32) for blocks. */
#ifndef KERNELS_CUDA_LAYOUT_H
#define KERNELS_CUDA_LAYOUT_H

#include "kernels/ops.h"

#ifdef __CUDACC__
#define KERN_BOTH static inline __host__ __device__
#else
#define KERN_BOTH static inline
#endif

/* Where number k of a row lies among the codes of Q8_0, and of x for blocks: in each 64, a quarter
 * of a warp's lanes takes 8 numbers of the first block and 8 of the second with one load. */
KERN_BOTH size_t kern_q8_place(size_t k)
{
    return k / 64 * 64 + k % 32 / 8 * 16 + k % 64 / 32 * 8 + k % 8;
}

/* Where number k of a row lies among the codes of Q4_0, counted in halves of bytes, the lower half
 * first: in each 128, a quarter of the lanes takes 8 numbers of each of 4 blocks, of which the
 * first four are the lower halves of 4 bytes and the others the upper. A code is q - 8 in two's
 * complement. */
KERN_BOTH size_t kern_q4_place(size_t k)
{
    return k / 128 * 128 + k % 32 / 8 * 32 + k % 128 / 32 * 8 + k % 4 * 2 + k % 8 / 4;
}

/* K' of a matrix that is to be multiplied as dtype. */
size_t kern_layout_padded(enum kern_dtype dtype, size_t k);
/* Bytes of a row's codes, and of all scales (0: it has none). w: dtype, n, k, k_padded are set. */
size_t kern_layout_row_bytes(const struct kern_matrix *w);
size_t kern_layout_scales_bytes(const struct kern_matrix *w);

/* Lay out row n, which is of type `from` at any address: its codes to `codes`, its scales among
 * `scales`, which are all the matrix's. room: 2 K floats. Threads: any, for different rows. */
void kern_layout_row(const struct kern_matrix *w, size_t n, enum kern_dtype from, const void *row,
    float *room, void *codes, void *scales);

#endif
