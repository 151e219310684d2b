#include "tests/proto/temp.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[256];

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info;
    (void)kind;
    (void)where;
    return remove(path);
}

static void remove_folder(void)
{
    (void)nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void give_up(const char *what)
{
    perror(what);
    abort();
}

char *temp_path(const char *name, char *out, size_t size)
{
    if (!folder[0]) {
        const char *base = getenv("TMPDIR");
        snprintf(folder, sizeof folder, "%s/memos-XXXXXX", base && base[0] ? base : "/tmp");
        if (!mkdtemp(folder) || atexit(remove_folder) != 0) {
            give_up(folder);
        }
    }
    snprintf(out, size, "%s/%s", folder, name);
    return out;
}

void temp_write(const char *path, const void *text, size_t size, unsigned mode)
{
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(text, 1, size, file) != size || fclose(file) != 0 ||
        chmod(path, mode) != 0) {
        give_up(path);
    }
}
