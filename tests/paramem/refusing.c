#include "tests/paramem/refusing.h"

#include "kernels/kern.h"

#include <stdlib.h>

long refusing_at = -1;
size_t refusing_asked;

static bool refuses(void)
{
    refusing_asked++;
    return refusing_at >= 0 && refusing_at-- == 0;
}

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size)
{
    return refuses() ? NULL : __real_calloc(count, size);
}

#define WRAP(name)                                                                                 \
    enum memos_status __real_##name(                                                               \
        struct kern_ctx *ctx, size_t bytes, void **out_memory, struct memos_error *err);           \
    enum memos_status __wrap_##name(                                                               \
        struct kern_ctx *ctx, size_t bytes, void **out_memory, struct memos_error *err);           \
    enum memos_status __wrap_##name(                                                               \
        struct kern_ctx *ctx, size_t bytes, void **out_memory, struct memos_error *err)            \
    {                                                                                              \
        return refuses() ? memos_fail(err, MEMOS_NO_MEMORY, "no memory: %zu bytes", bytes)         \
                         : __real_##name(ctx, bytes, out_memory, err);                             \
    }
WRAP(kern_alloc)
WRAP(kern_host_alloc)
