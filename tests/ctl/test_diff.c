/* Differences. If this failed, an administrator would approve a change other than the one shown. */
#include "tools/memosctl/diff.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t seed;

static uint64_t draw(uint64_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

/* The runs, in order, give back both texts; returns how many tokens were removed and added. */
static size_t check(struct memos_bytes a, struct memos_bytes b, bool by_words)
{
    struct ctl_diff diff;
    struct memos_error err = {0};
    size_t edits = 0, at_a = 0, at_b = 0;
    assert_int_equal(ctl_diff_make(a, b, by_words, &diff, &err), MEMOS_OK);
    for (size_t r = 0; r < diff.runs_count; r++) {
        const struct ctl_diff_run *run = &diff.runs[r];
        assert_true(run->count > 0);
        assert_true(r == 0 || diff.runs[r - 1].kind != run->kind);
        for (size_t i = 0; i < run->count; i++) {
            if (run->kind == CTL_DIFF_SAME) {
                assert_true(memos_bytes_equal(diff.a[at_a++], diff.b[at_b++]));
            } else if (run->kind == CTL_DIFF_REMOVED) {
                assert_int_equal(run->a + i, at_a);
                at_a++;
                edits++;
            } else {
                assert_int_equal(run->b + i, at_b);
                at_b++;
                edits++;
            }
        }
    }
    assert_int_equal(at_a, diff.a_count);
    assert_int_equal(at_b, diff.b_count);
    ctl_diff_free(&diff);
    return edits;
}

/* The least number of edits, by the table that everybody can check by hand. */
static size_t least_edits(const char *a, size_t a_size, const char *b, size_t b_size)
{
    static size_t common[65][65];
    for (size_t i = 0; i <= a_size; i++) {
        for (size_t j = 0; j <= b_size; j++) {
            if (i == 0 || j == 0) {
                common[i][j] = 0;
            } else if (a[i - 1] == b[j - 1]) {
                common[i][j] = common[i - 1][j - 1] + 1;
            } else {
                common[i][j] =
                    common[i - 1][j] > common[i][j - 1] ? common[i - 1][j] : common[i][j - 1];
            }
        }
    }
    return a_size + b_size - 2 * common[a_size][b_size];
}

static void test_random_against_the_table(void **state)
{
    (void)state;
    const char *given = getenv("MEMOS_TEST_SEED");
    seed = given ? strtoull(given, NULL, 10) : 88172645463325252u;
    print_message("MEMOS_TEST_SEED=%llu\n", (unsigned long long)seed);
    for (int round = 0; round < 3000; round++) {
        char a[32], b[32], a_lines[64], b_lines[64];
        size_t a_size = draw(33), b_size = draw(33), letters = 1 + draw(4);
        for (size_t i = 0; i < a_size; i++) {
            a[i] = a_lines[2 * i] = (char)('a' + draw(letters));
            a_lines[2 * i + 1] = '\n';
        }
        for (size_t i = 0; i < b_size; i++) {
            b[i] = b_lines[2 * i] = (char)('a' + draw(letters));
            b_lines[2 * i + 1] = '\n';
        }
        size_t edits = check(
            memos_bytes_make(a_lines, 2 * a_size), memos_bytes_make(b_lines, 2 * b_size), false);
        assert_int_equal(edits, least_edits(a, a_size, b, b_size));
    }
}

static void test_ends(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        size_t lines, words;
    } cases[] = {
        {"", "", 0, 0},
        {"", "x", 1, 1},
        {"x", "", 1, 1},
        {"x\n", "x", 2, 1},
        {"a b c", "a c", 2, 2},
        {"one two.", "one three.", 2, 2},
        {"\n\n\n", "\n", 2, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct memos_bytes a = memos_bytes_of(cases[i].a), b = memos_bytes_of(cases[i].b);
        assert_int_equal(check(a, b, false), cases[i].lines);
        assert_int_equal(check(a, b, true), cases[i].words);
    }
}

/* Texts that have nothing in common are told apart in bounded time and memory. */
static void test_far_apart(void **state)
{
    (void)state;
    enum { LINES = 20000 };
    struct memos_buffer a = memos_buffer_make(1 << 20), b = memos_buffer_make(1 << 20);
    for (int i = 0; i < LINES; i++) {
        memos_buffer_printf(&a, "a%d\n", i);
        memos_buffer_printf(&b, "b%d\n", i);
    }
    memos_buffer_printf(&a, "the same end\n");
    memos_buffer_printf(&b, "the same end\n");
    assert_int_equal(check(memos_buffer_view(&a), memos_buffer_view(&b), false), 2 * LINES);
    memos_buffer_free(&a);
    memos_buffer_free(&b);
}

static char *print(const char *a, const char *b, bool by_words, size_t context)
{
    char *text = NULL;
    size_t size = 0;
    struct ctl_diff diff;
    struct ctl_paper paper = {open_memstream(&text, &size), 0, false, false};
    assert_int_equal(
        ctl_diff_make(memos_bytes_of(a), memos_bytes_of(b), by_words, &diff, NULL), MEMOS_OK);
    ctl_diff_print(&diff, by_words, context, &paper);
    ctl_diff_free(&diff);
    fclose(paper.out);
    return text;
}

static void test_printed(void **state)
{
    (void)state;
    char *text = print("1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1\n2\nx\n4\n5\n6\n7\n8\n9\ny\n", false, 1);
    assert_string_equal(text, "@@ -2 +2 @@\n 2\n-3\n+x\n 4\n@@ -9 +9 @@\n 9\n+y\n");
    free(text);
    text = print("same\n", "same\n", false, 3);
    assert_string_equal(text, "");
    free(text);
    text = print("a", "a\n", false, 3);
    assert_string_equal(text, "-a\n\\ no newline at the end\n+a\n");
    free(text);
    text = print("on 14 June\x1b[2J", "on 21 June\x1b[2J", true, 3);
    assert_string_equal(text, "on [-14-]{+21+} June\\x1b[2J\n");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_against_the_table),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_far_apart),
        cmocka_unit_test(test_printed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
