/* If this failed, a length inside a message could send a reader past the message's end, and
 * text that is no text would be stored as text. */
#include "proto/bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BYTES(literal) { "" literal, sizeof literal - 1 }

static void compares_like_sorted_keys(void **state)
{
    (void)state;
    static const char *const sorted[] = { "", "a", "aa", "ab", "b", "\xff" };
    for (size_t i = 0; i < 6; i++) {
        for (size_t j = 0; j < 6; j++) {
            int order =
                memos_bytes_compare(memos_bytes_of(sorted[i]), memos_bytes_of(sorted[j]));
            assert_int_equal((order > 0) - (order < 0), (i > j) - (i < j));
            assert_int_equal(
                memos_bytes_equal(memos_bytes_of(sorted[i]), memos_bytes_of(sorted[j])), i == j);
        }
    }
    assert_true(memos_bytes_equal(memos_bytes_of(NULL), memos_bytes_make("x", 0)));
}

static void knows_well_formed_utf8(void **state)
{
    (void)state;
    static const struct {
        struct memos_bytes bytes;
        bool good;
    } cases[] = {
        { BYTES(""), true },
        { BYTES("plain"), true },
        { BYTES("na\xc3\xafve"), true },
        { BYTES("\xe2\x82\xac \xf0\x9f\x98\x80"), true },
        { BYTES("\xef\xbf\xbf"), true },
        { BYTES("\xf4\x8f\xbf\xbf"), true },     /* U+10FFFF */
        { BYTES("\xf4\x90\x80\x80"), false },    /* past it */
        { BYTES("\xed\xa0\x80"), false },        /* a surrogate */
        { BYTES("\xed\x9f\xbf"), true },         /* the last before them */
        { BYTES("\xc0\x80"), false },            /* overlong NUL */
        { BYTES("\xc1\xbf"), false },            /* overlong DEL */
        { BYTES("\xe0\x9f\xbf"), false },        /* overlong */
        { BYTES("\xf0\x8f\xbf\xbf"), false },    /* overlong */
        { BYTES("\x80"), false },                /* a tail alone */
        { BYTES("a\xc3"), false },               /* cut off */
        { BYTES("\xe2\x82"), false },            /* cut off */
        { BYTES("\xe2\x28\xa1"), false },        /* a tail that is none */
        { BYTES("\xff"), false },
        { BYTES("a\0b"), false },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        /* Memory of exactly the size, so that a sanitizer sees a read past the end. */
        uint8_t *copy = malloc(cases[i].bytes.size + !cases[i].bytes.size);
        assert_non_null(copy);
        memcpy(copy, cases[i].bytes.data, cases[i].bytes.size);
        bool good = memos_bytes_utf8(memos_bytes_make(copy, cases[i].bytes.size));
        free(copy);
        if (good != cases[i].good) {
            fail_msg("case %zu", i);
        }
    }
}

static void reads_what_was_written(void **state)
{
    (void)state;
    struct memos_buffer b = memos_buffer_make(1000);
    memos_buffer_u8(&b, 0x12);
    memos_buffer_u16(&b, 0x3456);
    memos_buffer_u32(&b, 0x789abcde);
    memos_buffer_u64(&b, 0x0123456789abcdef);
    memos_buffer_u32_be(&b, 0x789abcde);
    memos_buffer_u64_be(&b, 0x0123456789abcdef);
    memos_buffer_sized(&b, memos_bytes_of("hello"));
    memos_buffer_printf(&b, "%s-%d", "n", 42);
    assert_false(b.failed);
    static const uint8_t head[] = { 0x12, 0x56, 0x34, 0xde, 0xbc, 0x9a, 0x78 };
    assert_memory_equal(b.data, head, sizeof head);

    struct memos_reader r = memos_reader_of(memos_buffer_view(&b));
    assert_int_equal(memos_read_u8(&r), 0x12);
    assert_int_equal(memos_read_u16(&r), 0x3456);
    assert_int_equal(memos_read_u32(&r), 0x789abcde);
    assert_true(memos_read_u64(&r) == 0x0123456789abcdef);
    assert_int_equal(memos_read_u32_be(&r), 0x789abcde);
    assert_true(memos_read_u64_be(&r) == 0x0123456789abcdef);
    assert_true(memos_bytes_equal(memos_read_sized(&r, 5), memos_bytes_of("hello")));
    assert_false(memos_reader_done(&r));
    assert_true(memos_bytes_equal(memos_read_bytes(&r, 4), memos_bytes_of("n-42")));
    assert_true(memos_reader_done(&r));
    memos_buffer_free(&b);
}

static void reads_nothing_past_the_end(void **state)
{
    (void)state;
    static const uint8_t bytes[] = { 1, 2, 3 };
    struct memos_reader r = memos_reader_of(memos_bytes_make(bytes, sizeof bytes));
    assert_int_equal(memos_read_u8(&r), 1);
    assert_int_equal(memos_read_u32(&r), 0);
    assert_true(r.failed);
    assert_int_equal(memos_read_u8(&r), 0); /* a failure stays */
    assert_false(memos_reader_done(&r));

    static const uint8_t lying[] = { 0xff, 0xff, 0xff, 0xff, 'x' };
    r = memos_reader_of(memos_bytes_make(lying, sizeof lying));
    assert_int_equal(memos_read_sized(&r, SIZE_MAX).size, 0);
    assert_true(r.failed);

    static const uint8_t sized[] = { 2, 0, 0, 0, 'a', 'b' };
    r = memos_reader_of(memos_bytes_make(sized, sizeof sized));
    assert_int_equal(memos_read_sized(&r, 1).size, 0);
    assert_true(r.failed); /* it is there, but larger than allowed */

    uint8_t out[4] = { 9, 9, 9, 9 };
    r = memos_reader_of(memos_bytes_make(bytes, sizeof bytes));
    memos_read_into(&r, out, sizeof out);
    assert_memory_equal(out, "\0\0\0\0", 4);
}

static void never_grows_past_its_bound(void **state)
{
    (void)state;
    struct memos_buffer b = memos_buffer_make(100);
    for (int i = 0; i < 100; i++) {
        memos_buffer_u8(&b, (uint8_t)i);
    }
    assert_false(b.failed);
    memos_buffer_u8(&b, 0);
    assert_true(b.failed);
    assert_int_equal(b.size, 100);
    assert_true(b.capacity <= 100);
    assert_null(memos_buffer_take(&b, 0)); /* a failure stays */
    memos_buffer_reset(&b);
    assert_non_null(memos_buffer_take(&b, 100));
    assert_null(memos_buffer_take(&b, SIZE_MAX));
    memos_buffer_free(&b);
    memos_buffer_printf(&b, "%0100d", 1); /* the digits and a NUL: one too many */
    assert_true(b.failed);
    memos_buffer_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compares_like_sorted_keys),
        cmocka_unit_test(knows_well_formed_utf8),
        cmocka_unit_test(reads_what_was_written),
        cmocka_unit_test(reads_nothing_past_the_end),
        cmocka_unit_test(never_grows_past_its_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
