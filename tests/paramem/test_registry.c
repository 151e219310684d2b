/* Names of host models.
 *
 * If these failed, a name would reach a file outside the registry, or a model that was moved away
 * would be missed without a word of where it was. */
#include "paramem/registry.h"

#include "tests/memcube/folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void names_stay_inside(void **state)
{
    static const char *const good[] = {"a", "Llama-3.2-1B", "qwen3_0.6b", "7"};
    static const char *const bad[] = {
        "", ".", "..", ".a", "-a", "a/b", "../a", "a b", "a\n", "\xc3\xa4"};
    char path[PATH_MAX], longest[PARAMEM_REGISTRY_NAME_MAX + 2];
    struct memos_error err;
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(paramem_registry_place("/r", good[i], path, &err), MEMOS_OK);
        assert_memory_equal(path, "/r/", 3);
        assert_string_equal(path + 3, good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(paramem_registry_place("/r", bad[i], path, &err), MEMOS_INVALID);
    }
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(paramem_registry_place("/r", longest, path, &err), MEMOS_INVALID);
    longest[sizeof longest - 2] = '\0';
    assert_int_equal(paramem_registry_place("/r", longest, path, &err), MEMOS_OK);
}

static void the_usual_one_is_below_the_data_folder(void **state)
{
    char path[PATH_MAX];
    struct memos_error err;
    (void)state;
    assert_int_equal(setenv("XDG_DATA_HOME", "/data", 1), 0);
    assert_int_equal(paramem_registry(path, &err), MEMOS_OK);
    assert_string_equal(path, "/data/memos/models");
    assert_int_equal(setenv("XDG_DATA_HOME", "relative", 1), 0);
    assert_int_equal(setenv("HOME", "/home/lea", 1), 0);
    assert_int_equal(paramem_registry(path, &err), MEMOS_OK);
    assert_string_equal(path, "/home/lea/.local/share/memos/models");
    assert_int_equal(unsetenv("HOME"), 0);
    assert_int_equal(paramem_registry(path, &err), MEMOS_INVALID);
}

static void links_are_followed(void **state)
{
    char folder[FOLDER_PATH_BYTES], root[PATH_MAX], found[PATH_MAX];
    char model[PATH_MAX + 8], link[PATH_MAX + 8];
    struct memos_error err;
    (void)state;
    folder_make(folder);
    assert_non_null(realpath(folder, root));
    snprintf(link, sizeof link, "%s/name", root);
    snprintf(model, sizeof model, "%s/model", root);
    assert_int_equal(mkdir(model, 0700), 0);
    assert_int_equal(symlink(model, link), 0);
    assert_int_equal(paramem_registry_find(folder, "name", found, &err), MEMOS_OK);
    assert_string_equal(found, model);
    assert_int_equal(paramem_registry_find(NULL, link, found, &err), MEMOS_OK); /* a path */
    assert_string_equal(found, model);

    assert_int_equal(rmdir(model), 0);
    assert_int_equal(paramem_registry_find(folder, "name", found, &err), MEMOS_NOT_FOUND);
    assert_non_null(strstr(err.text, "is not there"));
    assert_non_null(strstr(err.text, model));
    assert_int_equal(paramem_registry_find(folder, "other", found, &err), MEMOS_NOT_FOUND);
    assert_non_null(strstr(err.text, "model add"));
    assert_int_equal(paramem_registry_find(NULL, model, found, &err), MEMOS_NOT_FOUND);
    folder_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_stay_inside),
        cmocka_unit_test(the_usual_one_is_below_the_data_folder),
        cmocka_unit_test(links_are_followed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
