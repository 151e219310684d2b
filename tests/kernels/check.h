/* What the tests of kernels share: all backends of this machine, memory with fences around it, and
 * the comparison that a wrong kernel must fail. */
#ifndef TESTS_KERNELS_CHECK_H
#define TESTS_KERNELS_CHECK_H

#include "kernels/kern.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHECK_CONTEXTS_MAX 10

/* Every backend and level that this processor has, with one thread and with several. ref is [0]. */
struct check {
    struct kern_ctx *contexts[CHECK_CONTEXTS_MAX];
    size_t contexts_count;
    struct kern_ctx *cuda; /* the last of them; NULL: not here */
    uint64_t state;        /* of check_next */
};

/* Does a tool watch the GPU (MEMOS_TEST_SANITIZING)? It is slow, and would find planted faults:
 * then the contexts are ref and cuda only. */
bool check_sanitizing(void);

/* Reads MEMOS_TEST_SEED, or makes a seed; prints it. */
int check_setup(void **state);
/* The same with cuda as the last context, where there is a GPU. Tensors are device memory. */
int check_setup_all(void **state);
/* The same, with operations of cuda that take the process's memory as all others do (on_device.c):
 * for tests of what operations compute. */
int check_setup_copying(void **state);
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

/* Destroy the context of cuda again, with nothing of it left. */
void check_drop_cuda(struct check *check);

/* Make cuda's context one whose operations take the process's memory. Its weights are its own. */
void check_on_device(struct kern_ctx *ctx);

/* Wait for ctx; the test fails when an operation did. */
void check_done(struct kern_ctx *ctx);

/* A copy of host's bytes in ctx's device memory, between fences. */
void *check_upload(struct kern_ctx *ctx, const void *host, size_t bytes);
/* Copy it back (host NULL: do not) and release it. */
void check_download(struct kern_ctx *ctx, void *device, void *host, size_t bytes);

/* Are got's numbers want's? `bound` is of the largest difference, in units of the root mean square
 * of want (at least 0.05: near zero GELU's error counts as such). Says on failure where they differ
 * most. */
bool check_close(const float *want, const float *got, size_t count, double bound);

#endif
