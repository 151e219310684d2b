/* Unit vectors around planted centres: what texts look like to an encoder, without texts.
 *
 * Every vector is made from the seed and its number alone, so that millions need no memory.
 *
 * Threads: read-only after planted_make. */
#ifndef TESTS_RETRIEVAL_PLANTED_H
#define TESTS_RETRIEVAL_PLANTED_H

#include <stddef.h>
#include <stdint.h>

struct planted {
    uint64_t seed;
    size_t dims, centres_count;
    float spread;   /* length of what is added to a centre: 1 is as long as the centre */
    float *centres; /* (centres_count, dims), unit length */
};

/* Ends the program when there is no memory. */
void planted_make(
    struct planted *planted, uint64_t seed, size_t dims, size_t centres_count, float spread);
void planted_free(struct planted *planted);

/* Which centre vector `index` is around. */
size_t planted_centre(const struct planted *planted, uint64_t index);

/* Vectors first .. first + count - 1 into out (count, dims): what retrieval_ann_build and
 * retrieval_tree_build call with a struct planted as self. */
void planted_vectors(void *self, uint64_t first, size_t count, float *out);

/* A number of the sequence of this state (splitmix64). */
uint64_t planted_random(uint64_t *state);

#endif
