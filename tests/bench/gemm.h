/* The products of other libraries, for bench_kernels.c: y (T, N) = x (T, K) . w^T with two threads.
 * What was not there at build time, or does not work on this processor, is NULL. */
#ifndef TESTS_BENCH_GEMM_H
#define TESTS_BENCH_GEMM_H

#include "kernels/kern.h"

struct gemm;

/* w (N, K) is laid out as the library likes it; x and y are the library's own, x filled from x. */
struct gemm *gemm_openblas(const float *x, const float *w, size_t t, size_t n, size_t k);
struct gemm *gemm_onednn(
    enum kern_dtype dtype, const float *x, const float *w, size_t t, size_t n, size_t k);
void gemm_run(struct gemm *gemm);
void gemm_free(struct gemm **gemm); /* takes NULL */

#endif
