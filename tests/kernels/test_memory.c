/* Memory where a context computes, on every backend of this machine.
 *
 * If these failed, weights or keys would arrive changed, or a machine that is too small would be
 * left without a word of what was missing. */
#include "tests/kernels/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BYTES = 100001 };

static void fill_random(struct check *check, unsigned char *out)
{
    for (size_t i = 0; i < BYTES; i++) {
        out[i] = (unsigned char)check_next(check);
    }
}

/* Bytes make the way there, across and back; what lies beside them stays. */
static void test_copies(void **state)
{
    struct check *check = *state;
    unsigned char *host = malloc(BYTES), *got = calloc(1, BYTES);
    for (size_t i = 0; i < check->contexts_count; i++) {
        struct kern_ctx *ctx = check->contexts[i];
        fill_random(check, host);
        unsigned char *one = check_upload(ctx, host, BYTES);
        unsigned char *two = check_upload(ctx, got, BYTES);
        kern_fill(ctx, two, 7, BYTES);
        kern_copy(ctx, two + 1000, one + 500, BYTES - 1000);
        assert_int_equal(kern_download(ctx, got, two, BYTES, NULL), MEMOS_OK);
        assert_int_equal(got[0], 7);
        assert_int_equal(got[999], 7);
        assert_memory_equal(got + 1000, host + 500, BYTES - 1000);
        check_download(ctx, one, got, BYTES);
        assert_memory_equal(got, host, BYTES);
        check_download(ctx, two, NULL, BYTES);
    }
    free(host);
    free(got);
}

/* What was copied beside is there for what is queued after kern_copies_wait. */
static void test_copies_beside(void **state)
{
    struct check *check = *state;
    unsigned char *host = malloc(BYTES), *got = calloc(1, BYTES);
    for (size_t i = 0; i < check->contexts_count; i++) {
        struct kern_ctx *ctx = check->contexts[i];
        void *pinned = NULL;
        fill_random(check, host);
        assert_int_equal(kern_host_alloc(ctx, BYTES, &pinned, NULL), MEMOS_OK);
        memcpy(pinned, host, BYTES);
        unsigned char *one = check_upload(ctx, got, BYTES), *two = check_upload(ctx, got, BYTES);
        check_done(ctx);
        kern_upload_beside(ctx, one, pinned, BYTES);
        kern_copies_wait(ctx);
        kern_copy(ctx, two, one, BYTES);
        check_download(ctx, two, got, BYTES);
        assert_memory_equal(got, host, BYTES);
        check_download(ctx, one, NULL, BYTES);
        kern_host_release(ctx, &pinned);
        assert_null(pinned);
    }
    free(host);
    free(got);
}

/* Pieces come back to their places when the queue has been waited for; what lies between stays. */
static void test_pieces_beside(void **state)
{
    struct check *check = *state;
    const struct kern_pieces shape = {
        .host_stride = 1000, .device_stride = 700, .bytes = 600, .count = 7};
    unsigned char *host = malloc(BYTES);
    for (size_t i = 0; i < check->contexts_count; i++) {
        struct kern_ctx *ctx = check->contexts[i];
        struct kern_pieces pieces = shape;
        void *pinned = NULL;
        fill_random(check, host);
        assert_int_equal(kern_host_alloc(ctx, BYTES, &pinned, NULL), MEMOS_OK);
        memset(pinned, 9, BYTES);
        unsigned char *one = check_upload(ctx, host, BYTES), *two = check_upload(ctx, host, BYTES);
        kern_fill(ctx, two, 0, BYTES);
        kern_copy(ctx, two, one, BYTES); /* is waited for */
        pieces.host = pinned;
        pieces.device = two;
        kern_download_beside(ctx, &pieces);
        assert_int_equal(kern_sync(ctx, NULL), MEMOS_OK);
        for (size_t at = 0; at < shape.host_stride * shape.count; at++) {
            size_t piece = at / shape.host_stride, byte = at % shape.host_stride;
            unsigned char want = byte < shape.bytes ? host[piece * shape.device_stride + byte] : 9;
            assert_int_equal(((unsigned char *)pinned)[at], want);
        }
        check_download(ctx, one, NULL, BYTES);
        check_download(ctx, two, NULL, BYTES);
        kern_host_release(ctx, &pinned);
    }
    free(host);
}

static void test_amounts(void **state)
{
    struct check *check = *state;
    for (size_t i = 0; i < check->contexts_count; i++) {
        struct kern_ctx *ctx = check->contexts[i];
        struct memos_error err;
        uint64_t available = 0, total = 0;
        void *memory = NULL;
        kern_memory(ctx, &available, &total);
        assert_true(available > 0 && available <= total);
        /* More than any address space: the system may promise more than there is. */
        assert_int_equal(kern_alloc(ctx, (size_t)1 << 50, &memory, &err), MEMOS_NO_MEMORY);
        assert_null(memory);
        assert_non_null(strstr(err.text, "1073741824.0 MiB")); /* what was asked for */
        assert_int_equal(kern_alloc(ctx, SIZE_MAX - 5, &memory, &err), MEMOS_NO_MEMORY);
        assert_int_equal(kern_alloc(ctx, 0, &memory, &err), MEMOS_OK);
        assert_int_equal((uintptr_t)memory % 256, 0);
        kern_release(ctx, &memory);
        kern_release(ctx, &memory);
        kern_host_release(ctx, &memory);
        assert_int_equal(kern_sync(ctx, &err), MEMOS_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_copies_beside),
        cmocka_unit_test(test_pieces_beside),
        cmocka_unit_test(test_amounts),
    };
    return cmocka_run_group_tests_name("kernels/memory", tests, check_setup_all, check_teardown);
}
