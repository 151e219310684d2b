/* The command line. If this failed, memosctl would do something else than what was typed. */
#include "tools/memosctl/commands.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static enum memos_status parse(const char *line, struct ctl_args *out, struct memos_error *err)
{
    static char copy[1024];
    char *argv[64];
    int argc = 0;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *at = copy; *at;) {
        argv[argc++] = at;
        at += strcspn(at, " ");
        if (*at) {
            *at++ = '\0';
        }
    }
    return ctl_args_parse(argc, argv, out, err);
}

static void good(const char *line, struct ctl_args *out)
{
    struct memos_error err = {0};
    if (parse(line, out, &err) != MEMOS_OK) {
        fail_msg("'%s': %s", line, err.text);
    }
}

static void bad(const char *line, const char *says)
{
    struct ctl_args args;
    struct memos_error err = {0};
    assert_int_equal(parse(line, &args, &err), MEMOS_INVALID);
    if (!strstr(err.text, says)) {
        fail_msg("'%s' says '%s', not '%s'", line, err.text, says);
    }
}

static void test_operands_and_options(void **state)
{
    (void)state;
    struct ctl_args args;
    size_t at = 0;
    good("put me hello -t a --tag=b --title x --json", &args);
    assert_string_equal(args.command->name, "put");
    assert_int_equal(args.operands_count, 2);
    assert_string_equal(args.operands[1], "hello");
    assert_string_equal(ctl_args_next(&args, CTL_TAG, &at), "a");
    assert_string_equal(ctl_args_next(&args, CTL_TAG, &at), "b");
    assert_null(ctl_args_next(&args, CTL_TAG, &at));
    assert_string_equal(ctl_args_value(&args, CTL_TITLE), "x");
    assert_true(ctl_args_has(&args, CTL_JSON));
    assert_false(ctl_args_has(&args, CTL_QUIET));
}

static void test_options_before_the_command(void **state)
{
    (void)state;
    struct ctl_args args;
    good("--address ipc:///x --json key list", &args);
    assert_string_equal(args.command->name, "key list");
    assert_string_equal(ctl_args_value(&args, CTL_ADDRESS), "ipc:///x");
    assert_int_equal(args.operands_count, 0);
    good("--timeout=5s list me", &args);
    assert_string_equal(args.command->name, "list");
    assert_int_equal(args.operands_count, 1);
}

static void test_what_looks_like_an_option(void **state)
{
    (void)state;
    struct ctl_args args;
    good("feedback me 01 -0.5", &args);
    assert_string_equal(args.operands[2], "-0.5");
    good("put me -", &args);
    assert_string_equal(args.operands[1], "-");
    good("put me -- --title", &args);
    assert_string_equal(args.operands[1], "--title");
    assert_false(ctl_args_has(&args, CTL_TITLE));
}

/* The same word means what the command takes it for. */
static void test_one_name_two_meanings(void **state)
{
    (void)state;
    struct ctl_args args;
    good("list me --tag a --speaker b", &args);
    assert_true(ctl_args_has(&args, CTL_WITH_TAG));
    assert_false(ctl_args_has(&args, CTL_TAG));
    assert_true(ctl_args_has(&args, CTL_BY_SPEAKER));
}

static void test_space_from_outside(void **state)
{
    (void)state;
    struct ctl_args args;
    good("--space me list", &args);
    assert_string_equal(args.operands[0], "me");
    good("get 01ab --space me", &args);
    assert_string_equal(args.operands[0], "me");
    assert_string_equal(args.operands[1], "01ab");
    setenv("MEMOS_SPACE", "usual", 1);
    good("list", &args);
    assert_string_equal(args.operands[0], "usual");
    good("get 01ab", &args);
    assert_string_equal(args.operands[0], "usual");
    good("get me 01ab", &args);
    assert_string_equal(args.operands[0], "me");
    good("list other", &args);
    assert_string_equal(args.operands[0], "other");
    unsetenv("MEMOS_SPACE");
    bad("list", "'list' needs SPACE");
    bad("stats --space me", "takes no space");
}

/* Where a model may remember a space, its text stays the first operand. */
static void test_a_space_that_is_remembered(void **state)
{
    (void)state;
    struct ctl_args args;
    setenv("MEMOS_SPACE", "usual", 1);
    good("--space me generate hello", &args);
    assert_string_equal(ctl_args_value(&args, CTL_MEMORY_OF), "me");
    assert_false(ctl_args_has(&args, CTL_SPACE));
    assert_int_equal(args.operands_count, 1);
    good("score notes.md", &args);
    assert_false(ctl_args_has(&args, CTL_MEMORY_OF));
    good("chat --space me", &args);
    assert_string_equal(args.operands[0], "me");
    good("chat", &args);
    assert_string_equal(args.operands[0], "usual");
    unsetenv("MEMOS_SPACE");
    bad("worker start --space me", "takes no space");
}

static void test_mistakes(void **state)
{
    (void)state;
    bad("nothing", "no command 'nothing'");
    bad("key steal", "no command 'key steal'");
    bad("put me", "'put' needs SPACE TEXT|@FILE|-");
    bad("list me you", "'you' is one too many");
    bad("list me --title x", "'list' takes no option --title");
    bad("list me -Z", "'list' takes no option -Z");
    bad("list me --limit", "--limit needs a value (N)");
    bad("list me --json=yes", "--json takes no value");
}

static void test_numbers_and_durations(void **state)
{
    (void)state;
    struct ctl_args args;
    struct memos_error err;
    uint64_t number;
    int64_t ms;
    good("list me -l 7 --timeout 2m", &args);
    assert_int_equal(ctl_args_number(&args, CTL_LIMIT, 1, 0, 10, &number, &err), MEMOS_OK);
    assert_int_equal(number, 7);
    assert_int_equal(ctl_args_number(&args, CTL_LIMIT, 1, 0, 6, &number, &err), MEMOS_INVALID);
    assert_int_equal(ctl_args_number(&args, CTL_TOP_K, 3, 0, 6, &number, &err), MEMOS_OK);
    assert_int_equal(number, 3);
    assert_int_equal(ctl_args_duration(&args, CTL_TIMEOUT, 1, &ms, &err), MEMOS_OK);
    assert_int_equal(ms, 120000);
    static const char *const wrong[] = {"0", "-1s", "5d", "s", "99999999999s", "2000h", "1.5s"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        args.given[1].value = wrong[i];
        assert_int_equal(ctl_args_duration(&args, CTL_TIMEOUT, 1, &ms, &err), MEMOS_INVALID);
    }
    assert_true(ctl_number_parse("18446744073709551615", UINT64_MAX, &number));
    assert_false(ctl_number_parse("18446744073709551616", UINT64_MAX, &number));
    assert_false(ctl_number_parse("", UINT64_MAX, &number));
    assert_false(ctl_number_parse("1 ", UINT64_MAX, &number));
}

static void test_too_many(void **state)
{
    (void)state;
    static char words[CTL_OPERANDS_MAX + 8][4];
    static char *argv[CTL_OPERANDS_MAX + 8];
    static struct ctl_args args;
    struct memos_error err = {0};
    for (size_t i = 0; i < CTL_OPERANDS_MAX + 8; i++) {
        snprintf(words[i], sizeof words[i], "%s", i == 0 ? "get" : "x");
        argv[i] = words[i];
    }
    assert_int_equal(ctl_args_parse(CTL_OPERANDS_MAX + 1, argv, &args, &err), MEMOS_OK);
    assert_int_equal(ctl_args_parse(CTL_OPERANDS_MAX + 2, argv, &args, &err), MEMOS_INVALID);
}

/* No command takes two options of one name or letter, and each has a purpose. */
static void test_the_table(void **state)
{
    (void)state;
    size_t count;
    const struct ctl_command *all = ctl_commands(&count);
    for (size_t c = 0; c < count; c++) {
        assert_non_null(all[c].run);
        assert_true(all[c].operands_min <= all[c].operands_max);
        for (int a = CTL_NONE + 1; a < CTL_OPTIONS_END; a++) {
            for (int b = a + 1; b < CTL_OPTIONS_END; b++) {
                if (!ctl_command_takes(&all[c], (enum ctl_option)a) ||
                    !ctl_command_takes(&all[c], (enum ctl_option)b)) {
                    continue;
                }
                const struct ctl_option_info *x = ctl_option_info((enum ctl_option)a);
                const struct ctl_option_info *y = ctl_option_info((enum ctl_option)b);
                assert_string_not_equal(x->name, y->name);
                assert_true(x->letter == 0 || x->letter != y->letter);
            }
        }
    }
    for (int a = CTL_NONE + 1; a < CTL_OPTIONS_END; a++) {
        bool is_taken = false;
        for (size_t c = 0; c < count; c++) {
            is_taken = is_taken || ctl_command_takes(&all[c], (enum ctl_option)a);
        }
        assert_true(is_taken);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_operands_and_options),
        cmocka_unit_test(test_options_before_the_command),
        cmocka_unit_test(test_what_looks_like_an_option),
        cmocka_unit_test(test_one_name_two_meanings),
        cmocka_unit_test(test_space_from_outside),
        cmocka_unit_test(test_a_space_that_is_remembered),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_numbers_and_durations),
        cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_the_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
