/* Runs a fuzz target over every file of a folder, so that what once broke a decoder is tried again
 * with every test run, without clang.
 *
 * If it failed, somebody could take the broker down with a message that we have already seen. A
 * folder without seeds is a failure: it would test nothing. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The decoder gets memory of exactly the file's size, so that a sanitizer sees a read past its
 * end. */
static int replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    struct stat about;
    uint8_t *data = NULL;
    int rc = 1;

    if (!file || fstat(fileno(file), &about) != 0) {
        perror(path);
        goto out;
    }
    size_t size = (size_t)about.st_size;
    data = malloc(size ? size : 1);
    if (!data || fread(data, 1, size, file) != size) {
        perror(path);
        goto out;
    }
    (void)LLVMFuzzerTestOneInput(data, size);
    rc = 0;
out:
    free(data);
    if (file) {
        (void)fclose(file);
    }
    return rc;
}

static int is_seed(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

int main(int argc, char **argv)
{
    struct dirent **entries = NULL;
    int failed = 0;

    if (argc != 2) {
        (void)fprintf(stderr, "usage: %s CORPUS_FOLDER\n", argv[0]);
        return 2;
    }
    int count = scandir(argv[1], &entries, is_seed, alphasort);
    if (count <= 0) {
        (void)fprintf(stderr, "%s: no seeds here\n", argv[1]);
        return 1;
    }
    for (int i = 0; i < count; i++) {
        char path[4096];
        (void)snprintf(path, sizeof path, "%s/%s", argv[1], entries[i]->d_name);
        (void)printf("%s\n", entries[i]->d_name);
        (void)fflush(stdout); /* the last name printed is the one that crashed */
        failed += replay_file(path);
        free(entries[i]);
    }
    free(entries);
    (void)printf("%d seeds, %d could not be read\n", count, failed);
    return failed ? 1 : 0;
}
