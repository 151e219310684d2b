/* If this failed, two memories could get one id, or a list by id would not be a list by time. */
#include "proto/id.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define NOW_US 1767225600000000

static uint64_t stamp_ms(const struct memos_id *id)
{
    uint64_t ms = 0;
    for (int i = 0; i < 6; i++) {
        ms = ms << 8 | id->bytes[i];
    }
    return ms;
}

static void check_shape(const struct memos_id *id)
{
    assert_int_equal(id->bytes[6] >> 4, 7);
    assert_int_equal(id->bytes[8] >> 6, 2);
}

static void increases_within_one_millisecond(void **state)
{
    (void)state;
    int64_t now = NOW_US;
    struct memos_clock clock = memos_clock_fixed(&now);
    struct memos_id_source source = { 0 };
    struct memos_id last = memos_id_next(&source, &clock);
    assert_int_equal(stamp_ms(&last), NOW_US / 1000);
    for (int i = 0; i < 100000; i++) {
        struct memos_id next = memos_id_next(&source, &clock);
        assert_true(memcmp(next.bytes, last.bytes, 16) > 0);
        check_shape(&next);
        last = next;
    }
}

static void increases_when_the_clock_steps_back(void **state)
{
    (void)state;
    int64_t now = NOW_US;
    struct memos_clock clock = memos_clock_fixed(&now);
    struct memos_id_source source = { 0 };
    struct memos_id last = memos_id_next(&source, &clock);
    for (int i = 0; i < 1000; i++) {
        now = NOW_US + (i % 3 - 1) * 3600000000; /* an hour back, on time, an hour ahead */
        struct memos_id next = memos_id_next(&source, &clock);
        assert_true(memcmp(next.bytes, last.bytes, 16) > 0);
        last = next;
    }
    assert_int_equal(stamp_ms(&last), NOW_US / 1000 + 3600000);
}

/* When the counter is full the next millisecond is borrowed. */
static void increases_past_a_full_counter(void **state)
{
    (void)state;
    int64_t now = NOW_US;
    struct memos_clock clock = memos_clock_fixed(&now);
    struct memos_id_source source = { 0 };
    (void)memos_id_next(&source, &clock);
    memset(source.last.bytes + 9, 0xff, 7);
    source.last.bytes[8] = 0xbf;
    struct memos_id full = source.last, next = memos_id_next(&source, &clock);
    assert_true(memcmp(next.bytes, full.bytes, 16) > 0);
    check_shape(&next);
    assert_int_equal(stamp_ms(&next), NOW_US / 1000 + 1);
}

static void two_sources_differ(void **state)
{
    (void)state;
    int64_t now = NOW_US;
    struct memos_clock clock = memos_clock_fixed(&now);
    struct memos_id_source one = { 0 }, other = { 0 };
    struct memos_id a = memos_id_next(&one, &clock), b = memos_id_next(&other, &clock);
    assert_false(memos_id_equal(&a, &b));
}

static void survives_a_round_trip(void **state)
{
    (void)state;
    struct memos_clock clock = memos_clock_system();
    struct memos_id_source source = { 0 };
    char text[MEMOS_ID_TEXT_BYTES], bare[33];
    for (int i = 0; i < 1000; i++) {
        struct memos_id id = memos_id_next(&source, &clock), back;
        memos_id_format(&id, text);
        assert_int_equal(strlen(text), 36);
        assert_int_equal(memos_id_parse(memos_bytes_of(text), &back, NULL), MEMOS_OK);
        assert_true(memos_id_equal(&id, &back));
        size_t n = 0;
        for (const char *c = text; *c; c++) {
            if (*c != '-') {
                bare[n++] = (char)(*c >= 'a' ? *c - 'a' + 'A' : *c);
            }
        }
        bare[n] = 0;
        assert_int_equal(memos_id_parse(memos_bytes_of(bare), &back, NULL), MEMOS_OK);
        assert_true(memos_id_equal(&id, &back));
    }
}

static void refuses_what_is_no_id(void **state)
{
    (void)state;
    static const char *const cases[] = { "", "0", "01923456-789a-7bcd-8ef0-123456789ab",
        "01923456-789a-7bcd-8ef0-123456789abcd", "01923456-789a-7bcd-8ef0-123456789abg",
        "01923456+789a-7bcd-8ef0-123456789abc", "0192345-6789a-7bcd-8ef0-123456789abc",
        "01923456789a7bcd8ef0123456789ab", "01923456789a7bcd8ef0123456789ab/",
        "01923456789a7bcd8ef0123456789ab`", "01923456-789a-7bcd-8ef0123456789abcd" };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct memos_id id = { { 7 } };
        struct memos_error err = { 0 };
        if (memos_id_parse(memos_bytes_of(cases[i]), &id, &err) != MEMOS_INVALID) {
            fail_msg("'%s' was taken", cases[i]);
        }
        assert_int_equal(id.bytes[0], 7);
        assert_non_null(strstr(err.text, cases[i]));
    }
    struct memos_id nil = { { 0 } };
    assert_true(memos_id_is_nil(&nil));
    nil.bytes[15] = 1;
    assert_false(memos_id_is_nil(&nil));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(increases_within_one_millisecond),
        cmocka_unit_test(increases_when_the_clock_steps_back),
        cmocka_unit_test(increases_past_a_full_counter),
        cmocka_unit_test(two_sources_differ),
        cmocka_unit_test(survives_a_round_trip),
        cmocka_unit_test(refuses_what_is_no_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
