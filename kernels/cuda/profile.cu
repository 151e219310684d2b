/* Where a device's time goes: an event on either side of every launch, summed by kernel and grid.
 *
 * For developers: MEMOS_CUDA_PROFILE names a file; the table is written there when the context is
 * closed. Nothing is recorded into graphs meanwhile. */
#include "kernels/cuda/device.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLES_MAX 65536 /* launches; later ones are not timed */

struct sample {
    const char *what;
    unsigned blocks;
    cudaEvent_t begin, end;
};

struct kern_profile {
    const char *path;
    size_t count;
    struct sample samples[SAMPLES_MAX];
};

/* Launches of one kernel in one size. */
struct line {
    const char *what;
    unsigned blocks;
    size_t count;
    double total_ms;
};

void kern_profile_open(struct kern_cuda *own)
{
    const char *path = getenv("MEMOS_CUDA_PROFILE");
    if (path && *path) {
        own->profile = (struct kern_profile *)calloc(1, sizeof *own->profile);
    }
    if (own->profile) {
        own->profile->path = path;
    }
}

void kern_profile_begin(struct kern_cuda *own, const char *what, unsigned blocks)
{
    struct kern_profile *profile = own->profile;
    if (!profile || profile->count == SAMPLES_MAX) {
        return;
    }
    struct sample *sample = &profile->samples[profile->count];
    sample->what = what;
    sample->blocks = blocks;
    if (cudaEventCreate(&sample->begin) == cudaSuccess &&
        cudaEventCreate(&sample->end) == cudaSuccess) {
        (void)cudaEventRecord(sample->begin, own->stream);
    }
}

void kern_profile_end(struct kern_cuda *own)
{
    struct kern_profile *profile = own->profile;
    if (profile && profile->count < SAMPLES_MAX) {
        (void)cudaEventRecord(profile->samples[profile->count++].end, own->stream);
    }
}

static int by_kernel(const void *a, const void *b)
{
    const struct sample *left = (const struct sample *)a, *right = (const struct sample *)b;
    int order = strcmp(left->what, right->what);
    return order != 0 ? order : (left->blocks > right->blocks) - (left->blocks < right->blocks);
}

static int by_total(const void *a, const void *b)
{
    double left = ((const struct line *)a)->total_ms, right = ((const struct line *)b)->total_ms;
    return (left < right) - (left > right);
}

/* The samples' lines, the longest first; how many. */
static size_t sum(struct kern_profile *profile, struct line *lines)
{
    size_t count = 0;
    qsort(profile->samples, profile->count, sizeof *profile->samples, by_kernel);
    for (size_t i = 0; i < profile->count; i++) {
        struct sample *sample = &profile->samples[i];
        float ms = 0;
        (void)cudaEventElapsedTime(&ms, sample->begin, sample->end);
        if (i == 0 || by_kernel(sample, sample - 1) != 0) {
            lines[count++] = {sample->what, sample->blocks, 0, 0};
        }
        lines[count - 1].count++;
        lines[count - 1].total_ms += (double)ms;
        (void)cudaEventDestroy(sample->begin);
        (void)cudaEventDestroy(sample->end);
    }
    qsort(lines, count, sizeof *lines, by_total);
    return count;
}

void kern_profile_close(struct kern_cuda *own)
{
    struct kern_profile *profile = own->profile;
    if (!profile) {
        return;
    }
    (void)cudaStreamSynchronize(own->stream);
    FILE *file = fopen(profile->path, "w");
    struct line *lines = (struct line *)calloc(profile->count + 1, sizeof *lines);
    if (file && lines) {
        size_t count = sum(profile, lines);
        fprintf(file, "%10s %10s %8s %8s  kernel\n", "total ms", "each us", "times", "blocks");
        for (size_t i = 0; i < count; i++) {
            fprintf(file, "%10.3f %10.2f %8zu %8u  %s\n", lines[i].total_ms,
                lines[i].total_ms * 1000 / (double)lines[i].count, lines[i].count, lines[i].blocks,
                lines[i].what);
        }
    }
    if (file) {
        (void)fclose(file);
    }
    free(lines);
    free(profile);
    own->profile = NULL;
}
