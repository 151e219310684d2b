/* Text and tables on a terminal. If this failed, a memory could take over the terminal of whoever
 * looks at it, or hide what it says. */
#include "tools/memosctl/table.h"
#include "tools/memosctl/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void check_clean(const char *given, size_t size, bool keep_lines, const char *wanted)
{
    struct memos_buffer out = memos_buffer_make(65536);
    ctl_text_clean(&out, memos_bytes_make(given, size), keep_lines);
    memos_buffer_u8(&out, 0);
    assert_string_equal((const char *)out.data, wanted);
    memos_buffer_free(&out);
}

#define CLEAN(given, keep, wanted) check_clean(given, sizeof given - 1, keep, wanted)

static void test_nothing_steers_the_terminal(void **state)
{
    (void)state;
    CLEAN("a\x1b[31mb", false, "a\\x1b[31mb");
    CLEAN("a\x1b]0;title\x07", true, "a\\x1b]0;title\\x07");
    CLEAN("\x7f\x08\x00z", true, "\\x7f\\x08\\x00z");
    CLEAN("\xc2\x9b"
          "31m",
        true, "\\x9b31m"); /* the 8-bit form of the same */
    CLEAN("a\xe2\x80\xae"
          "b",
        true, "a\\u202eb"); /* right to left */
    CLEAN("a\xe2\x81\xa6"
          "b",
        true, "a\\u2066b");
    CLEAN("\xff\xc3", true, "\\xff\\xc3");
    CLEAN("\xed\xa0\x80", true, "\\xed\\xa0\\x80"); /* a surrogate */
    CLEAN("\xe2\x80\xa8", true, "\\u2028");
}

static void test_a_piece_hides_nothing(void **state)
{
    static const char given[] = " a\n\t\x1b\xff gr\xc3\xbc";
    struct memos_buffer out = memos_buffer_make(65536);
    (void)state;
    ctl_text_piece(&out, memos_bytes_make(given, sizeof given - 1));
    memos_buffer_u8(&out, 0);
    assert_string_equal((const char *)out.data, " a\\x0a\\x09\\x1b\\xff gr\xc3\xbc");
    memos_buffer_free(&out);
}

static void test_lines_kept_or_joined(void **state)
{
    (void)state;
    CLEAN("a\n\n  b\tc\r\n", false, "a b c ");
    CLEAN("a\n\tb\r\nc", true, "a\n\tb\nc");
    CLEAN("a\rb", true, "a\\x0db"); /* would overwrite the line */
    CLEAN("gr\xc3\xbc\xc3\x9f \xe4\xbd\xa0\xe5\xa5\xbd", false,
        "gr\xc3\xbc\xc3\x9f \xe4\xbd\xa0\xe5\xa5\xbd");
}

static void check_fit(const char *given, size_t columns, const char *wanted)
{
    struct memos_buffer out = memos_buffer_make(65536);
    size_t used = ctl_text_fit(&out, memos_bytes_of(given), columns);
    memos_buffer_u8(&out, 0);
    assert_string_equal((const char *)out.data, wanted);
    assert_true(used <= columns);
    assert_int_equal(used, ctl_text_width(memos_bytes_of(wanted)));
    memos_buffer_free(&out);
}

static void test_cut_to_columns(void **state)
{
    (void)state;
    check_fit("abc", 3, "abc");
    check_fit("abcd", 3, "ab\xe2\x80\xa6");
    check_fit("abcd", 1, "\xe2\x80\xa6");
    check_fit("abcd", 0, "");
    /* two columns each: no half of one */
    check_fit("\xe4\xbd\xa0\xe5\xa5\xbd\xe5\x90\x97", 6, "\xe4\xbd\xa0\xe5\xa5\xbd\xe5\x90\x97");
    check_fit("\xe4\xbd\xa0\xe5\xa5\xbd\xe5\x90\x97", 4, "\xe4\xbd\xa0\xe2\x80\xa6");
}

static void test_head_cuts_no_character(void **state)
{
    (void)state;
    struct memos_bytes text = memos_bytes_of("a\xc3\xbc\xf0\x9f\x98\x80");
    const size_t wanted[] = {0, 1, 1, 3, 3, 3, 3, 7, 7};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        assert_int_equal(ctl_text_head(text, i).size, wanted[i]);
    }
}

static void test_sizes(void **state)
{
    (void)state;
    char out[16];
    assert_string_equal(ctl_text_size(0, out), "0 B");
    assert_string_equal(ctl_text_size(999, out), "999 B");
    assert_string_equal(ctl_text_size(1500, out), "1.5 KB");
    assert_string_equal(ctl_text_size(123456789, out), "123 MB");
    assert_string_equal(ctl_text_size(UINT64_MAX, out), "18447 PB");
}

static const struct ctl_column columns[] = {
    {"N", true, false}, {"NAME", false, true}, {"NOTE", false, true}};

/* What a table of three columns prints on paper of a width. */
static char *print(size_t width, bool coloured, const char *const cells[], size_t count)
{
    char *text = NULL;
    size_t size = 0;
    struct ctl_paper paper = {open_memstream(&text, &size), width, false, coloured};
    struct ctl_table table = ctl_table_make(columns, 3);
    struct memos_error err;
    for (size_t i = 0; i < count; i++) {
        ctl_table_cell(&table, i % 3 == 0 ? CTL_RED : CTL_PLAIN, memos_bytes_of(cells[i]));
    }
    assert_int_equal(ctl_table_print(&table, &paper, &err), MEMOS_OK);
    ctl_table_free(&table);
    fclose(paper.out);
    return text;
}

static void test_table(void **state)
{
    (void)state;
    static const char *const cells[] = {
        "1", "Ada", "first", "22", "\xe4\xbd\xa0", "a\x1b[2J\nb", "3", "", ""};
    char *text = print(0, false, cells, 9);
    assert_string_equal(text, " N  NAME  NOTE\n"
                              " 1  Ada   first\n"
                              "22  \xe4\xbd\xa0    a\\x1b[2J b\n"
                              " 3        \n");
    free(text);
    text = print(0, true, cells, 3);
    assert_string_equal(text, "\x1b[1mN  NAME  NOTE\x1b[0m\n\x1b[31m1\x1b[0m  Ada   first\n");
    free(text);
    text = print(0, false, cells, 0);
    assert_string_equal(text, "");
    free(text);
}

static void test_table_is_cut(void **state)
{
    (void)state;
    static const char *const cells[] = {
        "1", "a rather long name", "a note that is even longer than that"};
    char *text = print(40, false, cells, 3);
    assert_true(strcspn(text, "\n") <= 40);
    char *second = strchr(text, '\n') + 1;
    second[strcspn(second, "\n")] = '\0';
    assert_int_equal(ctl_text_width(memos_bytes_of(second)), 40);
    assert_non_null(strstr(second, "\xe2\x80\xa6"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_steers_the_terminal),
        cmocka_unit_test(test_a_piece_hides_nothing),
        cmocka_unit_test(test_lines_kept_or_joined),
        cmocka_unit_test(test_cut_to_columns),
        cmocka_unit_test(test_head_cuts_no_character),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_table_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
