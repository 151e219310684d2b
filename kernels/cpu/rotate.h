/* The rotation of one head, eight pairs at a time: what rotate.c and kv.c share. AVX2. */
#ifndef KERNELS_CPU_ROTATE_H
#define KERNELS_CPU_ROTATE_H

#include "kernels/decoder.h"

/* x (rotary numbers) to a position. */
void kern_cpu_rotate_head(const struct kern_rope *rope, size_t position, float *x);

#endif
