#include "tests/memcube/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* nftw carries no argument; tests have one thread when they look at files. */
static struct {
    struct memos_bytes needle;
    const char *name_part;
    size_t count;
} walk;

static void must(bool done, const char *what, const char *path)
{
    if (!done) {
        (void)fprintf(stderr, "%s %s: %s\n", what, path, strerror(errno));
        abort();
    }
}

void folder_make(char out_path[FOLDER_PATH_BYTES])
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(out_path, FOLDER_PATH_BYTES, "%s/memos-test-XXXXXX", tmp ? tmp : "/tmp");
    must(mkdtemp(out_path) != NULL, "making", out_path);
}

static int remove_one(const char *path, const struct stat *about, int type, struct FTW *ftw)
{
    (void)about;
    (void)type;
    (void)ftw;
    must(remove(path) == 0, "removing", path);
    return 0;
}

void folder_remove(const char *path)
{
    must(nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0, "walking", path);
}

static int scan_one(const char *path, const struct stat *about, int type, struct FTW *ftw)
{
    (void)ftw;
    if (type != FTW_F || about->st_size == 0) {
        return 0;
    }
    size_t size = (size_t)about->st_size;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    must(fd >= 0, "opening", path);
    const char *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    must(data != MAP_FAILED, "mapping", path);
    const char *at = data;
    const char *end = data + size;
    while ((at = memmem(at, (size_t)(end - at), walk.needle.data, walk.needle.size))) {
        walk.count++;
        at++;
    }
    (void)munmap((void *)data, size);
    (void)close(fd);
    return 0;
}

size_t folder_scan(const char *path, struct memos_bytes needle)
{
    walk.needle = needle;
    walk.count = 0;
    must(nftw(path, scan_one, 16, FTW_PHYS) == 0, "walking", path);
    return walk.count;
}

static int count_one(const char *path, const struct stat *about, int type, struct FTW *ftw)
{
    (void)about;
    walk.count += type == FTW_F && strstr(path + ftw->base, walk.name_part);
    return 0;
}

size_t folder_count(const char *path, const char *name_part)
{
    walk.name_part = name_part;
    walk.count = 0;
    must(nftw(path, count_one, 16, FTW_PHYS) == 0, "walking", path);
    return walk.count;
}
