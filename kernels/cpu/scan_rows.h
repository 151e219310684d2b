/* What the scans of all levels share: which rows are read together, and what becomes of their dots.
 */
#ifndef KERNELS_CPU_SCAN_ROWS_H
#define KERNELS_CPU_SCAN_ROWS_H

#include "kernels/kern.h"

#define SCAN_ROWS 4 /* whose sums are in registers at once */

/* Dots of `rows` with the query: of SCAN_ROWS, and of one. Both give the same for a row. */
struct scan_dots {
    void (*some)(const char *const *rows, size_t k, const float *query, float *out);
    void (*one)(const char *const *rows, size_t k, const float *query, float *out);
};

/* A level's table of these by dtype, from its `dots(dtype, rows, count, k, query, out)`, which is
 * inlined so that each type has a loop of its own. */
#define SCAN_DOTS_OF(type)                                                                         \
    static void some_##type(const char *const *rows, size_t k, const float *query, float *out)     \
    {                                                                                              \
        dots(KERN_##type, rows, SCAN_ROWS, k, query, out);                                         \
    }                                                                                              \
    static void one_##type(const char *const *rows, size_t k, const float *query, float *out)      \
    {                                                                                              \
        dots(KERN_##type, rows, 1, k, query, out);                                                 \
    }

#define SCAN_DOTS_TABLE(name)                                                                      \
    SCAN_DOTS_OF(F32)                                                                              \
    SCAN_DOTS_OF(F16)                                                                              \
    SCAN_DOTS_OF(BF16)                                                                             \
    SCAN_DOTS_OF(E4M3)                                                                             \
    SCAN_DOTS_OF(E5M2)                                                                             \
    SCAN_DOTS_OF(I8)                                                                               \
    static const struct scan_dots name[] = {                                                       \
        [KERN_F32] = {some_F32, one_F32},                                                          \
        [KERN_F16] = {some_F16, one_F16},                                                          \
        [KERN_BF16] = {some_BF16, one_BF16},                                                       \
        [KERN_E4M3] = {some_E4M3, one_E4M3},                                                       \
        [KERN_E5M2] = {some_E5M2, one_E5M2},                                                       \
        [KERN_I8] = {some_I8, one_I8},                                                             \
    }

/* kern_scan, or kern_scan_rows when rows_index is given, with these dots. */
void scan_rows(const struct scan_dots *dots, enum kern_dtype dtype, const void *codes,
    const float *scales, const uint32_t *rows_index, size_t count, size_t k, const float *query,
    float *scores);

#endif
