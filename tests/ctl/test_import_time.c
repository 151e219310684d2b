/* Times as people write them. If this failed, memories would be dated wrongly, or refused. */
#include "proto/clock.h"
#include "tools/memosctl/import.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_understood(void **state)
{
    (void)state;
    static const struct {
        const char *text, *means;
    } cases[] = {
        {"1:56 pm on 8 May, 2023", "2023-05-08T13:56:00Z"},
        {"12:05 am on 1 January, 2024", "2024-01-01T00:05:00Z"},
        {"12:05 PM on 29 February, 2024", "2024-02-29T12:05:00Z"},
        {"2023/05/20 (Sat) 02:21", "2023-05-20T02:21:00Z"},
        {"8 May 2023", "2023-05-08T00:00:00Z"},
        {"May 8th, 2023", "2023-05-08T00:00:00Z"},
        {"Mon, 8 May 2023 13:56:07 GMT", "2023-05-08T13:56:07Z"},
        {"Sept. 3, 2021 at 2 pm", "2021-09-03T14:00:00Z"},
        {"2023-05-08", "2023-05-08T00:00:00Z"},
        {"2023-05-08T13:56:00Z", "2023-05-08T13:56:00Z"},
        {"2023-05-08T13:56:00+02:00", "2023-05-08T11:56:00Z"},
        {"2023-05-08 13:56", "2023-05-08T13:56:00Z"},
        {"2023-05-08 13:56:07.25", "2023-05-08T13:56:07.250000Z"},
        {"1683554160", "2023-05-08T13:56:00Z"},
        {"1683554160.5", "2023-05-08T13:56:00.500000Z"},
        {"1683554160000", "2023-05-08T13:56:00Z"},
        {"1683554160000001", "2023-05-08T13:56:00.000001Z"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[MEMOS_TIME_TEXT_BYTES];
        int64_t time_us = -1;
        struct memos_error err = {0};
        if (ctl_import_time(memos_bytes_of(cases[i].text), &time_us, &err) != MEMOS_OK) {
            fail_msg("'%s': %s", cases[i].text, err.text);
        }
        assert_string_equal(memos_time_format(time_us, text), cases[i].means);
    }
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const cases[] = {"", "yesterday", "8 May", "May 2023", "2023",
        "13:56 pm on 8 May, 2023", "0:10 am on 8 May, 2023", "31 June 2023", "30 February 2024",
        "8 May 2023 8 May 2023", "25:00 on 8 May, 2023", "1:5 pm on 8 May, 2023", "3h", "2d",
        "8 Mai 2023", "2023/05-20", "8;May 2023", "99999999999999999999", "8 May 2023 am pm",
        "1:56 pm on 8 May, 2023 1:56 pm on 8 May, 2023 1:56 pm on 8 May, 2023 1:56 pm on 8 May, "
        "2023 and so on"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t time_us;
        struct memos_error err = {0};
        if (ctl_import_time(memos_bytes_of(cases[i]), &time_us, &err) != MEMOS_INVALID) {
            fail_msg("'%s' was understood", cases[i]);
        }
        assert_true(err.text[0]);
    }
    int64_t time_us;
    assert_int_equal(
        ctl_import_time(memos_bytes_make("8 May 2023\0", 11), &time_us, NULL), MEMOS_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_understood),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
