/* Digests of several pieces at once, against those of libsodium one by one.
 *
 * If these failed, a model's fingerprint would depend on the processor that made it, and everything
 * that is bound to the model (captures, memories) would be refused on another machine. */
#include "paramem/digests.h"

#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LANES PARAMEM_DIGESTS_LANES
#define SIZE_MOST 5000

/* What the hash says it looks at, in order and without a gap. */
struct looked {
    size_t slice, next;
    bool good;
};

static void look(void *self, size_t from, size_t size)
{
    struct looked *looked = self;
    looked->good = looked->good && from == looked->next && from % looked->slice == 0 && size > 0 &&
                   size <= looked->slice;
    looked->next = from + size;
}

static void check(size_t count, size_t size, size_t slice)
{
    uint8_t *pieces[LANES], digests[LANES + 1][PARAMEM_DIGEST_BYTES], alone[PARAMEM_DIGEST_BYTES];
    const uint8_t *views[LANES];
    uint8_t *out[LANES];
    struct looked looked = {.slice = slice, .good = true};
    memset(digests, 0xA5, sizeof digests);
    for (size_t i = 0; i < count; i++) {
        pieces[i] = malloc(size + (size == 0)); /* to the byte, for the sanitizers */
        assert_non_null(pieces[i]);
        randombytes_buf(pieces[i], size);
        views[i] = pieces[i];
        out[i] = digests[i];
    }
    paramem_digests(views, count, size, slice, look, &looked, out);
    assert_true(looked.good);
    assert_int_equal(looked.next, size);
    for (size_t i = 0; i < count; i++) {
        (void)crypto_generichash(alone, sizeof alone, pieces[i], size, NULL, 0);
        if (memcmp(alone, digests[i], sizeof alone) != 0) {
            fail_msg("piece %zu of %zu, %zu bytes, slices of %zu", i, count, size, slice);
        }
        free(pieces[i]);
    }
    for (size_t i = count; i < LANES + 1; i++) {
        for (size_t byte = 0; byte < PARAMEM_DIGEST_BYTES; byte++) {
            assert_int_equal(digests[i][byte], 0xA5);
        }
    }
}

static void every_size_is_as_libsodium_says(void **state)
{
    (void)state;
    for (size_t size = 0; size <= 600; size++) {
        check(LANES, size, 128);
        check(1 + size % LANES, size, 256);
    }
}

static void slices_do_not_matter(void **state)
{
    (void)state;
    for (size_t slice = 128; slice < SIZE_MOST + 256; slice += 128) {
        check(LANES, SIZE_MOST, slice);
        check(LANES, SIZE_MOST / 128 * 128, slice);
        check(3, SIZE_MOST, slice);
    }
}

static void nobody_has_to_look(void **state)
{
    (void)state;
    static const uint8_t zeros[300];
    const uint8_t *pieces[LANES] = {zeros, zeros, zeros, zeros};
    uint8_t digests[LANES][PARAMEM_DIGEST_BYTES], alone[PARAMEM_DIGEST_BYTES];
    uint8_t *out[LANES] = {digests[0], digests[1], digests[2], digests[3]};
    paramem_digests(pieces, LANES, sizeof zeros, 128, NULL, NULL, out);
    (void)crypto_generichash(alone, sizeof alone, zeros, sizeof zeros, NULL, 0);
    for (size_t i = 0; i < LANES; i++) {
        assert_memory_equal(digests[i], alone, sizeof alone);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_size_is_as_libsodium_says),
        cmocka_unit_test(slices_do_not_matter),
        cmocka_unit_test(nobody_has_to_look),
    };
    if (sodium_init() < 0) {
        return EXIT_FAILURE;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
