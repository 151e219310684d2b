#include "paramem/registry.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

enum memos_status paramem_registry(char out[PATH_MAX], struct memos_error *err)
{
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    int size;
    if (data && data[0] == '/') {
        size = snprintf(out, PATH_MAX, "%s/memos/models", data);
    } else if (home && home[0] == '/') {
        size = snprintf(out, PATH_MAX, "%s/.local/share/memos/models", home);
    } else {
        return memos_fail(
            err, MEMOS_INVALID, "neither XDG_DATA_HOME nor HOME says where models are");
    }
    return size < PATH_MAX ? MEMOS_OK
                           : memos_fail(err, MEMOS_INVALID, "the path of the models is too long");
}

static bool name_good(const char *name)
{
    size_t size = strlen(name);
    return size > 0 && size <= PARAMEM_REGISTRY_NAME_MAX && strspn(name, LETTERS) > 0 &&
           strspn(name, LETTERS "-_.") == size;
}

enum memos_status paramem_registry_place(
    const char *registry, const char *name, char out[PATH_MAX], struct memos_error *err)
{
    if (!name_good(name)) {
        return memos_fail(err, MEMOS_INVALID,
            "'%.96s' cannot be a model's name: letters, digits, '-', '_' and '.'; a letter or a "
            "digit first",
            name);
    }
    return snprintf(out, PATH_MAX, "%s/%s", registry, name) < PATH_MAX
               ? MEMOS_OK
               : memos_fail(err, MEMOS_INVALID, "the path of the model '%s' is too long", name);
}

/* A name's link stays when the model that it points to is moved away. */
static enum memos_status fail_missing(
    const char *place, const char *name, const char *registry, struct memos_error *err)
{
    struct stat info;
    if (lstat(place, &info) == 0 && S_ISLNK(info.st_mode)) {
        char target[PATH_MAX];
        ssize_t size = readlink(place, target, sizeof target - 1);
        target[size > 0 ? size : 0] = '\0';
        return memos_fail(err, MEMOS_NOT_FOUND,
            "the model '%s' was at %.100s and is not there: `memosctl model remove` it, or put it "
            "back",
            name, target);
    }
    return memos_fail(err, MEMOS_NOT_FOUND,
        "there is no model '%s' in %.80s: run `memosctl model add PATH`", name, registry);
}

enum memos_status paramem_registry_find(
    const char *registry, const char *text, char out[PATH_MAX], struct memos_error *err)
{
    char usual[PATH_MAX], place[PATH_MAX];
    enum memos_status status = MEMOS_OK;
    if (strchr(text, '/')) {
        return realpath(text, out) ? MEMOS_OK
                                   : memos_fail_errno(err, errno, "no model at '%.140s'", text);
    }
    if (!registry) {
        status = paramem_registry(usual, err);
        registry = usual;
    }
    if (status == MEMOS_OK) {
        status = paramem_registry_place(registry, text, place, err);
    }
    if (status == MEMOS_OK && !realpath(place, out)) {
        status = errno == ENOENT ? fail_missing(place, text, registry, err)
                                 : memos_fail_errno(err, errno, "cannot reach '%.140s'", place);
    }
    return status;
}
