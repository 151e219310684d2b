/* What the tests of kernels share: all backends of this machine, memory with fences around it, and
 * the comparison that a wrong kernel must fail. */
#ifndef TESTS_KERNELS_CHECK_H
#define TESTS_KERNELS_CHECK_H

#include "kernels/kern.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHECK_CONTEXTS_MAX 8

/* Every backend and level that this processor has, with one thread and with several. ref is [0]. */
struct check {
    struct kern_ctx *contexts[CHECK_CONTEXTS_MAX];
    size_t contexts_count;
    uint64_t state; /* of check_next */
};

/* Reads MEMOS_TEST_SEED, or makes a seed; prints it. */
int check_setup(void **state);
int check_teardown(void **state);

uint64_t check_next(struct check *check);
size_t check_size(struct check *check, size_t least, size_t most);
float check_float(struct check *check); /* about normal, -4..4 */

/* count floats, `shift` bytes after an aligned address, with a fence on both sides. They hold NaN,
 * or check_float's numbers. A fence that was written over fails the test in check_free. */
float *check_poisoned(size_t count, size_t shift);
float *check_filled(struct check *check, size_t count, size_t shift);
void *check_bytes(size_t bytes, size_t shift); /* 0xff */
void check_free(void *memory);

/* Are got's numbers want's? `bound` is of the largest difference, in units of the root mean square
 * of want (at least 0.05: near zero GELU's error counts as such). Says on failure where they differ
 * most. */
bool check_close(const float *want, const float *got, size_t count, double bound);

#endif
