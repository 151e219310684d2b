/* How long each kernel takes: an instrument for who works on them, never on unless
 * MEMOS_CUDA_PROFILE is set.
 *
 * Events stand around every launch, nothing is recorded in graphs, and what kernels would overlap
 * they do not. The table is told on stderr when the context is closed. */
#include "kernels/cuda/profile.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPANS 2048 /* that are not added up yet */
#define LINES 512

struct line {
    const void *kernel; /* NULL: not ours */
    const char *name;
    uint64_t shape, count;
    double milliseconds;
};

struct kern_profile {
    cudaEvent_t events[SPANS][2];
    size_t of[SPANS]; /* lines */
    size_t spans, lines_count;
    struct line lines[LINES];
};

struct kern_profile *kern_profile_open(void)
{
    struct kern_profile *profile = NULL;
    if (getenv("MEMOS_CUDA_PROFILE")) {
        profile = (struct kern_profile *)calloc(1, sizeof *profile);
    }
    for (size_t i = 0; profile && i < 2 * SPANS; i++) {
        (void)cudaEventCreate(&profile->events[i / 2][i % 2]);
    }
    return profile;
}

static void add_up(struct kern_profile *profile)
{
    for (size_t i = 0; i < profile->spans; i++) {
        float took = 0;
        (void)cudaEventSynchronize(profile->events[i][1]);
        (void)cudaEventElapsedTime(&took, profile->events[i][0], profile->events[i][1]);
        profile->lines[profile->of[i]].milliseconds += (double)took;
        profile->lines[profile->of[i]].count++;
    }
    profile->spans = 0;
}

void kern_profile_begin(struct kern_profile *profile, cudaStream_t stream, const void *kernel,
    const char *name, uint64_t shape)
{
    size_t line = 0;
    if (profile->spans == SPANS) {
        add_up(profile);
    }
    while (line < profile->lines_count &&
           (profile->lines[line].kernel != kernel || profile->lines[line].name != name ||
               profile->lines[line].shape != shape)) {
        line++;
    }
    line = line < LINES ? line : LINES - 1; /* all others */
    if (line == profile->lines_count) {
        profile->lines_count++;
        profile->lines[line].kernel = kernel;
        profile->lines[line].name = name;
        profile->lines[line].shape = shape;
    }
    profile->of[profile->spans] = line;
    (void)cudaEventRecord(profile->events[profile->spans][0], stream);
}

void kern_profile_end(struct kern_profile *profile, cudaStream_t stream)
{
    (void)cudaEventRecord(profile->events[profile->spans++][1], stream);
}

static int more_time(const void *a, const void *b)
{
    double left = ((const struct line *)a)->milliseconds;
    double right = ((const struct line *)b)->milliseconds;
    return left < right ? 1 : left > right ? -1 : 0;
}

void kern_profile_close(struct kern_profile **profile)
{
    struct kern_profile *old = *profile;
    if (!old) {
        return;
    }
    add_up(old);
    qsort(old->lines, old->lines_count, sizeof *old->lines, more_time);
    (void)fprintf(stderr, "%10s %8s %9s %10s  kernel\n", "ms", "launches", "us each", "blocks");
    for (size_t i = 0; i < old->lines_count; i++) {
        const struct line *line = &old->lines[i];
        const char *name = line->name;
        if (line->kernel && cudaFuncGetName(&name, line->kernel) != cudaSuccess) {
            name = line->name;
        }
        (void)fprintf(stderr, "%10.2f %8llu %9.2f %10llu  %s\n", line->milliseconds,
            (unsigned long long)line->count, line->milliseconds * 1e3 / (double)line->count,
            (unsigned long long)line->shape, name);
    }
    for (size_t i = 0; i < 2 * SPANS; i++) {
        (void)cudaEventDestroy(old->events[i / 2][i % 2]);
    }
    free(old);
    *profile = NULL;
}
