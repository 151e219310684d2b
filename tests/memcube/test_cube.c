/* Checks of names, states and drafts.
 *
 * If these failed, a client could write what no reader accepts any more, or step out of its space
 * with a name. */
#include "memcube/cube.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static enum memos_status check_space(const char *name)
{
    struct memos_error err = {0};
    enum memos_status status = memcube_space_check(memos_bytes_of(name), &err);
    assert_true((status == MEMOS_OK) == (err.text[0] == 0));
    return status;
}

static void spaces_are_plain_paths(void **state)
{
    static const char *const good[] = {"a", "acme/alice", "A-1.x_y/..b", "_system", "a/b/c"};
    static const char *const wrong[] = {
        "", "/", "/a", "a/", "a//b", ".", "..", "a/..", "a/./b", "a b", "a\\b", "\xC3\xA4", "a\n"};
    char longest[MEMCUBE_SPACE_BYTES_MAX + 2];
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(check_space(good[i]), MEMOS_OK);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(check_space(wrong[i]), MEMOS_INVALID);
    }
    memset(longest, 'a', sizeof longest);
    longest[MEMCUBE_SPACE_BYTES_MAX] = 0;
    assert_int_equal(check_space(longest), MEMOS_OK);
    longest[MEMCUBE_SPACE_BYTES_MAX] = 'a';
    longest[MEMCUBE_SPACE_BYTES_MAX + 1] = 0;
    assert_int_equal(check_space(longest), MEMOS_INVALID);
}

static void tables_name_and_number_the_same(void **state)
{
    (void)state;
    assert_string_equal(memcube_kind_text(MEMCUBE_ACTIVATION), "activation");
    assert_string_equal(memcube_operation_text(MEMCUBE_OP_EXPIRE), "expire");
    assert_null(memcube_kind_text(0));
    assert_null(memcube_operation_text(10));
    assert_null(memcube_state_text(9));
    assert_int_equal(memcube_kind_of(memos_bytes_of("parametric")), MEMCUBE_PARAMETRIC);
    assert_int_equal(memcube_kind_of(memos_bytes_of("Parametric")), 0);
    for (int i = 1; memcube_state_text(i); i++) {
        assert_int_equal(memcube_state_of(memos_bytes_of(memcube_state_text(i))), i);
    }
}

static void states_change_as_the_manual_says(void **state)
{
    static const char *const table[] = {
        [MEMCUBE_STATE_GENERATED] = "AFREM",
        [MEMCUBE_STATE_ACTIVATED] = "FREM",
        [MEMCUBE_STATE_FROZEN] = "AR",
        [MEMCUBE_STATE_MERGED] = "AR",
        [MEMCUBE_STATE_ARCHIVED] = "A",
        [MEMCUBE_STATE_EXPIRED] = "AR",
        [MEMCUBE_STATE_WITHDRAWN] = "",
        [MEMCUBE_STATE_FORGOTTEN] = "",
    };
    static const char letter_of[] = " GAFMREWX";
    (void)state;
    for (int from = 1; from <= MEMCUBE_STATE_FORGOTTEN; from++) {
        for (int to = 1; to <= MEMCUBE_STATE_FORGOTTEN; to++) {
            bool expected = strchr(table[from], letter_of[to]) != NULL;
            assert_int_equal(memcube_state_may_become(from, to), expected);
        }
    }
    assert_false(memcube_state_may_become(0, MEMCUBE_STATE_ACTIVATED));
    assert_false(memcube_state_may_become(MEMCUBE_STATE_ACTIVATED, 77));
}

static struct memcube_draft good_draft(void)
{
    return (struct memcube_draft){
        .kind = MEMCUBE_PLAINTEXT,
        .subtype = memos_bytes_of("fact"),
        .payload = memos_bytes_of("Alice likes tea."),
        .description.title = memos_bytes_of("tea"),
    };
}

static void drafts_are_held_to_the_limits(void **state)
{
    static char big[8192];
    struct memos_bytes tags[MEMCUBE_TAGS_MAX + 1];
    struct memcube_source source = {.type = memos_bytes_of("file")};
    struct memcube_attribute attribute = {.name = memos_bytes_of("n")};
    struct memcube_ref nowhere = {.number = 1};
    struct memcube_draft d = good_draft();
    struct memos_error err;
    (void)state;
    memset(big, 'b', sizeof big);
    assert_int_equal(memcube_draft_check(&d, &err), MEMOS_OK);

#define EXPECT(status, word)                                                                       \
    assert_int_equal(memcube_draft_check(&d, &err), status);                                       \
    assert_non_null(strstr(err.text, word));                                                       \
    d = good_draft()

    d.kind = 9;
    EXPECT(MEMOS_INVALID, "kind");
    d.payload = memos_bytes_of("\xFF");
    EXPECT(MEMOS_INVALID, "payload");
    d.description.title = memos_bytes_make(big, MEMCUBE_TITLE_BYTES_MAX + 1);
    EXPECT(MEMOS_TOO_LARGE, "title");
    d.description.speaker = memos_bytes_of("\xC0\x80");
    EXPECT(MEMOS_INVALID, "speaker");
    d.subtype = memos_bytes_make(big, MEMCUBE_SUBTYPE_BYTES_MAX + 1);
    EXPECT(MEMOS_TOO_LARGE, "subtype");
    d.governance.sensitivity = 5;
    EXPECT(MEMOS_INVALID, "sensitivity");
    d.governance.valid_from_us = 2;
    d.governance.valid_to_us = 1;
    EXPECT(MEMOS_INVALID, "valid_to");
    for (size_t i = 0; i < MEMCUBE_TAGS_MAX + 1; i++) {
        tags[i] = memos_bytes_of("t");
    }
    d.description.tags = tags;
    d.description.tags_count = MEMCUBE_TAGS_MAX + 1;
    EXPECT(MEMOS_TOO_LARGE, "tags");
    tags[0] = memos_bytes_of("");
    d.description.tags = tags;
    d.description.tags_count = 1;
    EXPECT(MEMOS_INVALID, "tag");
    source.uri = memos_bytes_make(big, MEMCUBE_URI_BYTES_MAX + 1);
    d.description.sources = &source;
    d.description.sources_count = 1;
    EXPECT(MEMOS_TOO_LARGE, "uri");
    attribute.value = memos_bytes_make(big, MEMCUBE_ATTRIBUTE_BYTES_MAX);
    d.description.attributes = &attribute;
    d.description.attributes_count = 1;
    EXPECT(MEMOS_TOO_LARGE, "attribute");
    d.derived_from = &nowhere;
    d.derived_count = 1;
    EXPECT(MEMOS_INVALID, "derived_from");
#undef EXPECT

    d.codec = memos_bytes_of("application/octet-stream");
    d.payload = memos_bytes_of("\xFF");
    assert_int_equal(memcube_draft_check(&d, &err), MEMOS_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spaces_are_plain_paths),
        cmocka_unit_test(tables_name_and_number_the_same),
        cmocka_unit_test(states_change_as_the_manual_says),
        cmocka_unit_test(drafts_are_held_to_the_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
