/* Memory where a context computes, and recorded operations: the device's, or else the process's.
 *
 * On the process's memory all is done on return, nothing is recorded and nothing fails later. */
#include "kernels/ops.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

#define ALIGNMENT 256
#define MIB (1024.0 * 1024.0)

static const struct kern_device *device_of(const struct kern_ctx *ctx)
{
    return ctx->ops->device;
}

static enum memos_status host_alloc(
    struct kern_ctx *ctx, size_t bytes, void **out_memory, struct memos_error *err)
{
    size_t rounded = kern_up(bytes > 0 ? bytes : 1, ALIGNMENT);
    *out_memory = rounded >= bytes ? aligned_alloc(ALIGNMENT, rounded) : NULL;
    if (!*out_memory) {
        uint64_t available, total;
        kern_memory(ctx, &available, &total);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %.1f MiB: %.0f MiB of %.0f are free",
            (double)bytes / MIB, (double)available / MIB, (double)total / MIB);
    }
    return MEMOS_OK;
}

enum memos_status kern_alloc(
    struct kern_ctx *ctx, size_t bytes, void **out_memory, struct memos_error *err)
{
    return device_of(ctx) ? device_of(ctx)->alloc(ctx, bytes, out_memory, err)
                          : host_alloc(ctx, bytes, out_memory, err);
}

void kern_release(struct kern_ctx *ctx, void **memory)
{
    if (*memory && device_of(ctx)) {
        device_of(ctx)->release(ctx, *memory);
    } else {
        free(*memory);
    }
    *memory = NULL;
}

enum memos_status kern_host_alloc(
    struct kern_ctx *ctx, size_t bytes, void **out_memory, struct memos_error *err)
{
    return device_of(ctx) ? device_of(ctx)->host_alloc(ctx, bytes, out_memory, err)
                          : host_alloc(ctx, bytes, out_memory, err);
}

void kern_host_release(struct kern_ctx *ctx, void **memory)
{
    if (*memory && device_of(ctx)) {
        device_of(ctx)->host_release(ctx, *memory);
    } else {
        free(*memory);
    }
    *memory = NULL;
}

void kern_upload(struct kern_ctx *ctx, void *device, const void *host, size_t bytes)
{
    if (device_of(ctx)) {
        device_of(ctx)->upload(ctx, device, host, bytes);
    } else if (bytes > 0) {
        memcpy(device, host, bytes);
    }
}

void kern_fill(struct kern_ctx *ctx, void *device, int byte, size_t bytes)
{
    if (device_of(ctx)) {
        device_of(ctx)->fill(ctx, device, byte, bytes);
    } else if (bytes > 0) {
        memset(device, byte, bytes);
    }
}

void kern_copy(struct kern_ctx *ctx, void *device_to, const void *device_from, size_t bytes)
{
    if (device_of(ctx)) {
        device_of(ctx)->copy(ctx, device_to, device_from, bytes);
    } else if (bytes > 0) {
        memmove(device_to, device_from, bytes);
    }
}

enum memos_status kern_download(
    struct kern_ctx *ctx, void *host, const void *device, size_t bytes, struct memos_error *err)
{
    if (device_of(ctx)) {
        return device_of(ctx)->download(ctx, host, device, bytes, err);
    } else if (bytes > 0) {
        memcpy(host, device, bytes);
    }
    return MEMOS_OK;
}

enum memos_status kern_sync(struct kern_ctx *ctx, struct memos_error *err)
{
    return device_of(ctx) ? device_of(ctx)->sync(ctx, err) : MEMOS_OK;
}

enum memos_status kern_reset(struct kern_ctx *ctx, struct memos_error *err)
{
    return device_of(ctx) ? device_of(ctx)->reset(ctx, err) : MEMOS_OK;
}

/* What the system says could be had without swapping; what is free, where it does not say. */
static void host_memory(uint64_t *out_free, uint64_t *out_total)
{
    struct sysinfo info;
    FILE *file = fopen("/proc/meminfo", "re");
    char line[128];
    uint64_t kib;
    *out_free = *out_total = 0;
    if (sysinfo(&info) == 0) {
        *out_free = (uint64_t)info.freeram * info.mem_unit;
        *out_total = (uint64_t)info.totalram * info.mem_unit;
    }
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "MemAvailable: %" SCNu64 " kB", &kib) == 1) {
            *out_free = kib * 1024;
        }
    }
    if (file) {
        (void)fclose(file);
    }
}

bool kern_memory_is_host(const struct kern_ctx *ctx)
{
    return !ctx->ops->device;
}

void kern_memory(struct kern_ctx *ctx, uint64_t *out_free, uint64_t *out_total)
{
    if (device_of(ctx)) {
        device_of(ctx)->memory(ctx, out_free, out_total);
    } else {
        host_memory(out_free, out_total);
    }
}

/* ---- copies beside ------------------------------------------------------------------------- */

void kern_upload_beside(struct kern_ctx *ctx, void *device, const void *host, size_t bytes)
{
    if (device_of(ctx)) {
        device_of(ctx)->upload_beside(ctx, device, host, bytes);
    } else if (bytes > 0) {
        memcpy(device, host, bytes);
    }
}

void kern_copies_wait(struct kern_ctx *ctx)
{
    if (device_of(ctx)) {
        device_of(ctx)->copies_wait(ctx);
    }
}

void kern_download_beside(struct kern_ctx *ctx, const struct kern_pieces *pieces)
{
    memos_assert(pieces->host_stride >= pieces->bytes && pieces->device_stride >= pieces->bytes);
    if (pieces->bytes == 0 || pieces->count == 0) {
        return;
    }
    if (device_of(ctx)) {
        device_of(ctx)->download_beside(ctx, pieces);
        return;
    }
    for (size_t i = 0; i < pieces->count; i++) {
        memcpy((uint8_t *)pieces->host + i * pieces->host_stride,
            (const uint8_t *)pieces->device + i * pieces->device_stride, pieces->bytes);
    }
}

/* ---- recorded operations ------------------------------------------------------------------- */

bool kern_graph_begin(struct kern_ctx *ctx)
{
    return device_of(ctx) && device_of(ctx)->graph_begin(ctx);
}

enum memos_status kern_graph_end(
    struct kern_ctx *ctx, struct kern_graph **out_graph, struct memos_error *err)
{
    memos_assert(device_of(ctx)); /* or begin said that there is no end */
    return device_of(ctx)->graph_end(ctx, out_graph, err);
}

void kern_graph_run(struct kern_ctx *ctx, struct kern_graph *graph)
{
    memos_assert(device_of(ctx));
    device_of(ctx)->graph_run(ctx, graph);
}

void kern_graph_free(struct kern_graph **graph)
{
    if (*graph) {
        (*graph)->device->graph_free(*graph);
        *graph = NULL;
    }
}
