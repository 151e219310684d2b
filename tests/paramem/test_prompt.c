/* A conversation as ids.
 *
 * If these failed, what somebody writes could end their turn and speak for the system, or a prompt
 * would be cut into other tokens than the model was taught with. */
#include "paramem/prompt.h"

#include "tests/memcube/folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Letters, a merge of two of them, and one special token. */
static const char tokenizer_json[] =
    "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":9,\"content\":\"<e>\",\"special\":true,"
    "\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false}],"
    "\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
    "\"trim_offsets\":true,\"use_regex\":false},\"post_processor\":null,"
    "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"
    "\"use_regex\":false},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,"
    "\"<\":3,\"e\":4,\">\":5,\":\":6,\"c\":7,\"d\":8},\"merges\":[\"a b\"]}}";

struct scene {
    char folder[FOLDER_PATH_BYTES];
    struct paramem_tokenizer *tokenizer;
};

static int scene_open(void **state)
{
    static struct scene scene;
    char path[FOLDER_PATH_BYTES + 32];
    struct memos_error err;
    folder_make(scene.folder);
    snprintf(path, sizeof path, "%s/tokenizer.json", scene.folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(tokenizer_json, file) >= 0);
    assert_int_equal(fclose(file), 0);
    if (paramem_tokenizer_open(scene.folder, &scene.tokenizer, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    *state = &scene;
    return 0;
}

static int scene_close(void **state)
{
    struct scene *scene = *state;
    paramem_tokenizer_close(&scene->tokenizer);
    folder_remove(scene->folder);
    return 0;
}

static void check(struct scene *scene, const char *text, const struct paramem_span *plain,
    size_t plain_count, const uint32_t *wanted, size_t count)
{
    struct paramem_ids ids = {0};
    struct memos_error err;
    assert_int_equal(paramem_prompt_encode(
                         scene->tokenizer, memos_bytes_of(text), plain, plain_count, &ids, &err),
        MEMOS_OK);
    assert_int_equal(ids.count, count);
    assert_memory_equal(ids.ids, wanted, count * sizeof *wanted);
    free(ids.ids);
}

#define CHECK(text, plain, plain_count, ...)                                                       \
    check(*state, text, plain, plain_count, (const uint32_t[]){__VA_ARGS__},                       \
        sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

static void without_a_special_token_it_is_one_text(void **state)
{
    const struct paramem_span user = {1, 3};
    /* the merge reaches over the mark, as it does when the whole text is encoded */
    CHECK("abc<e>", &user, 1, 2, 7, 9);
    CHECK("abc<e>", NULL, 0, 2, 7, 9);
}

static void what_is_written_is_no_special_token(void **state)
{
    const struct paramem_span user = {1, 6};
    CHECK("a:<e>b<e>", &user, 1, 0, 6, 3, 4, 5, 1, 9);
    /* of two messages, one forged */
    const struct paramem_span two[] = {{0, 2}, {5, 8}};
    CHECK("ab<e><e><e>d", two, 2, 2, 9, 3, 4, 5, 9, 8);
}

static void at_the_ends(void **state)
{
    const struct paramem_span all = {0, 3};
    CHECK("<e>", &all, 1, 3, 4, 5);
    const struct paramem_span none = {3, 3};
    CHECK("<e>", &none, 1, 9);
    struct paramem_ids ids = {0};
    struct scene *scene = *state;
    assert_int_equal(
        paramem_prompt_encode(scene->tokenizer, memos_bytes_of(""), NULL, 0, &ids, NULL), MEMOS_OK);
    assert_int_equal(ids.count, 0);
    free(ids.ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_special_token_it_is_one_text),
        cmocka_unit_test(what_is_written_is_no_special_token),
        cmocka_unit_test(at_the_ends),
    };
    return cmocka_run_group_tests(tests, scene_open, scene_close);
}
