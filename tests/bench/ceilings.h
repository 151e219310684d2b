/* What bounds a model that runs: reading memory, multiplying, reading a file.
 *
 * All end the process when something fails. */
#ifndef TESTS_BENCH_CEILINGS_H
#define TESTS_BENCH_CEILINGS_H

#include "kernels/kern.h"

/* Bytes a second that all threads of ctx read from memory together (cuda: read and written by a
 * copy from memory to memory). */
double limits_read(struct kern_ctx *ctx);

/* Floating-point operations a second of y (T, N) = x (T, K) . w^T in `dtype`, by our own product.
 */
double limits_product(struct kern_ctx *ctx, enum kern_dtype dtype, size_t t, size_t n, size_t k);

/* The same by the better of the libraries that are installed, in float32 or bfloat16, two threads;
 * 0: there is none. */
double limits_rival(size_t t, size_t n, size_t k);

/* Seconds that reading a whole file takes, again and again into the same room. */
double limits_file(const char *path);

/* Seconds that the system takes to hand out so many bytes of memory, in huge pages where it has
 * them, each page touched once. They are given back; for a moment after that they cost less. */
double limits_fresh_memory(size_t bytes);

/* The most memory that this process had since the last limits_memory_reset, and what it has. */
void limits_memory_reset(void);
uint64_t limits_memory_most(void);
uint64_t limits_memory_now(void);

#endif
