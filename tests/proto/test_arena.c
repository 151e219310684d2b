/* If this failed, a small message could make the broker take any amount of memory, or two parts
 * of a request could share the same bytes. */
#include "proto/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdalign.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void pieces_do_not_overlap(void **state)
{
    (void)state;
    struct memos_arena arena;
    uint8_t *pieces[200];
    memos_arena_init(&arena, 1 << 20);
    for (size_t i = 0; i < 200; i++) {
        pieces[i] = memos_arena_take(&arena, i + 1, 3);
        assert_non_null(pieces[i]);
        assert_int_equal((uintptr_t)pieces[i] % alignof(max_align_t), 0);
        memset(pieces[i], (int)i, (i + 1) * 3);
    }
    for (size_t i = 0; i < 200; i++) {
        for (size_t j = 0; j < (i + 1) * 3; j++) {
            assert_int_equal(pieces[i][j], i);
        }
    }
    memos_arena_finish(&arena);
}

static void stops_at_its_bound(void **state)
{
    (void)state;
    struct memos_arena arena;
    memos_arena_init(&arena, 4096);
    assert_null(memos_arena_take(&arena, 4097, 1));
    assert_null(memos_arena_take(&arena, SIZE_MAX, 1));
    assert_null(memos_arena_take(&arena, SIZE_MAX / 2, 3));
    assert_null(memos_arena_copy(&arena, memos_bytes_make("", SIZE_MAX)));
    size_t taken = 0;
    while (memos_arena_take(&arena, 1, 64)) {
        taken += 64;
    }
    assert_int_equal(taken, 4096);
    assert_int_equal(arena.used_most, 4096);
    assert_null(memos_arena_take(&arena, 1, 1));
    assert_non_null(memos_arena_take(&arena, 0, 8)); /* nothing costs nothing */
    memos_arena_finish(&arena);
}

static void serves_again_after_reset(void **state)
{
    (void)state;
    struct memos_arena arena;
    memos_arena_init(&arena, 1 << 20);
    for (int round = 0; round < 10; round++) {
        size_t taken = 0;
        while (memos_arena_take(&arena, 1, 1000)) {
            taken++;
        }
        assert_true(taken > 1000);
        memos_arena_reset(&arena);
        assert_int_equal(arena.used, 0);
    }
    memos_arena_finish(&arena);
    memos_arena_finish(&arena);
}

static void copies_with_a_nul_behind(void **state)
{
    (void)state;
    struct memos_arena arena;
    memos_arena_init(&arena, 4096);
    assert_string_equal(memos_arena_copy(&arena, memos_bytes_make("hello", 4)), "hell");
    assert_string_equal(memos_arena_copy(&arena, memos_bytes_make(NULL, 0)), "");
    memos_arena_finish(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_do_not_overlap),
        cmocka_unit_test(stops_at_its_bound),
        cmocka_unit_test(serves_again_after_reset),
        cmocka_unit_test(copies_with_a_nul_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
