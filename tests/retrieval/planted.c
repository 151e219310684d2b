#include "tests/retrieval/planted.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

uint64_t planted_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* About normal, variance 1: the sum of four of 16 bits. */
static float normal(uint64_t *state)
{
    uint64_t bits = planted_random(state);
    float sum = 0.0f;
    for (int i = 0; i < 4; i++, bits >>= 16) {
        sum += (float)(bits & 0xffff) / 65536.0f - 0.5f;
    }
    return sum * sqrtf(3.0f);
}

static void unit(float *vector, size_t dims)
{
    float square = 0.0f;
    for (size_t i = 0; i < dims; i++) {
        square += vector[i] * vector[i];
    }
    for (size_t i = 0; i < dims; i++) {
        vector[i] /= sqrtf(square);
    }
}

void planted_make(
    struct planted *planted, uint64_t seed, size_t dims, size_t centres_count, float spread)
{
    uint64_t state = seed;
    *planted = (struct planted){.seed = seed,
        .dims = dims,
        .centres_count = centres_count,
        .spread = spread,
        .centres = calloc(centres_count, dims * sizeof(float))};
    if (!planted->centres) {
        fprintf(stderr, "no memory for vectors\n");
        exit(1);
    }
    for (size_t i = 0; i < centres_count; i++) {
        for (size_t j = 0; j < dims; j++) {
            planted->centres[i * dims + j] = normal(&state);
        }
        unit(planted->centres + i * dims, dims);
    }
}

void planted_free(struct planted *planted)
{
    free(planted->centres);
    planted->centres = NULL;
}

size_t planted_centre(const struct planted *planted, uint64_t index)
{
    uint64_t state = planted->seed ^ (index + 1) * UINT64_C(0xd1342543de82ef95);
    return planted_random(&state) % planted->centres_count;
}

void planted_vectors(void *self, uint64_t first, size_t count, float *out)
{
    const struct planted *planted = self;
    float scale = planted->spread / sqrtf((float)planted->dims);
    for (size_t i = 0; i < count; i++, out += planted->dims) {
        uint64_t state = planted->seed ^ (first + i + 1) * UINT64_C(0xd1342543de82ef95);
        size_t centre = planted_random(&state) % planted->centres_count;
        for (size_t j = 0; j < planted->dims; j++) {
            out[j] = planted->centres[centre * planted->dims + j] + scale * normal(&state);
        }
        unit(out, planted->dims);
    }
}
