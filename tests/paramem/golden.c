#include "tests/paramem/golden.h"

#include "tests/memcube/folder.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

char *golden_path(const char *name, char out[GOLDEN_PATH_BYTES])
{
    int size = snprintf(out, GOLDEN_PATH_BYTES, "%s/%s", GOLDEN_FOLDER, name);
    assert_true(size > 0 && size < GOLDEN_PATH_BYTES);
    return out;
}

struct memos_buffer golden_file(const char *path)
{
    struct memos_buffer bytes = memos_buffer_make((size_t)256 << 20);
    FILE *file = fopen(path, "rb");
    struct stat about;
    if (!file || fstat(fileno(file), &about) != 0) {
        fail_msg("cannot read %s", path);
    }
    void *data = memos_buffer_take(&bytes, (size_t)about.st_size);
    assert_true(about.st_size == 0 || data);
    assert_int_equal(fread(data, 1, bytes.size, file), bytes.size);
    (void)fclose(file);
    return bytes;
}

struct memos_buffer golden_read(const char *name)
{
    char path[GOLDEN_PATH_BYTES];
    return golden_file(golden_path(name, path));
}

void golden_write(const char *into, const char *name, struct memos_bytes bytes)
{
    char path[GOLDEN_PATH_BYTES];
    assert_true(snprintf(path, sizeof path, "%s/%s", into, name) < (int)sizeof path);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes.data, 1, bytes.size, file), bytes.size);
    assert_int_equal(fclose(file), 0);
}

void golden_copy(const char *name, const char *into)
{
    char path[GOLDEN_PATH_BYTES], inner[GOLDEN_PATH_BYTES], target[GOLDEN_PATH_BYTES];
    DIR *folder = opendir(golden_path(name, path));
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        struct stat about;
        if (entry->d_name[0] == '.') {
            continue;
        }
        assert_true(snprintf(inner, sizeof inner, "%s/%.200s", name, entry->d_name) > 0);
        assert_int_equal(stat(golden_path(inner, path), &about), 0);
        if (S_ISDIR(about.st_mode)) {
            assert_true(snprintf(target, sizeof target, "%.500s/%.200s", into, entry->d_name) > 0);
            assert_int_equal(mkdir(target, 0700), 0);
            golden_copy(inner, target);
        } else {
            struct memos_buffer bytes = golden_read(inner);
            golden_write(into, entry->d_name, memos_buffer_view(&bytes));
            memos_buffer_free(&bytes);
        }
    }
    (void)closedir(folder);
}

const char *golden_minilm(char out[GOLDEN_PATH_BYTES])
{
    static const char below[] = "memos/encoders/minilm";
    char config[GOLDEN_PATH_BYTES + 16];
    struct stat about;
    const char *given = getenv("MEMOS_ENCODER_DIR");
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");

    if (given) {
        (void)snprintf(out, GOLDEN_PATH_BYTES, "%s", given);
    } else if (data && data[0] != '\0') {
        (void)snprintf(out, GOLDEN_PATH_BYTES, "%s/%s", data, below);
    } else {
        (void)snprintf(out, GOLDEN_PATH_BYTES, "%s/.local/share/%s", home ? home : "", below);
    }
    (void)snprintf(config, sizeof config, "%s/config.json", out);
    if (stat(config, &about) != 0) {
        print_message("skipped: no encoder in %s (MEMOS_ENCODER_DIR says where)\n", out);
        return NULL;
    }
    return out;
}

struct golden_texts golden_texts_read(const char *name)
{
    struct golden_texts all = {.file = golden_read(name)};
    struct memos_reader reader = memos_reader_of(memos_buffer_view(&all.file));
    all.count = memos_read_u32(&reader);
    all.dims = memos_read_u32(&reader);
    assert_in_range(all.count, 1, 10000);
    all.texts = calloc(all.count, sizeof *all.texts);
    assert_non_null(all.texts);
    for (size_t i = 0; i < all.count; i++) {
        struct golden_text *text = &all.texts[i];
        text->query = memos_read_u32(&reader) != 0;
        text->text = memos_read_sized(&reader, SIZE_MAX);
        text->ids_count = memos_read_u32(&reader);
        /* Texts have any length: copies are where numbers may lie. */
        uint32_t *ids = calloc(text->ids_count, sizeof *ids);
        float *vector = calloc(all.dims, sizeof *vector);
        assert_true(ids && vector);
        memos_read_into(&reader, ids, text->ids_count * sizeof *ids);
        memos_read_into(&reader, vector, all.dims * sizeof *vector);
        text->ids = ids;
        text->vector = vector;
    }
    assert_true(memos_reader_done(&reader));
    return all;
}

void golden_texts_free(struct golden_texts *texts)
{
    for (size_t i = 0; i < texts->count; i++) {
        free((void *)(uintptr_t)texts->texts[i].ids);
        free((void *)(uintptr_t)texts->texts[i].vector);
    }
    free(texts->texts);
    memos_buffer_free(&texts->file);
}

double golden_cosine(const float *a, const float *b, size_t dims)
{
    double dot = 0.0, left = 0.0, right = 0.0;
    for (size_t i = 0; i < dims; i++) {
        dot += (double)a[i] * (double)b[i];
        left += (double)a[i] * (double)a[i];
        right += (double)b[i] * (double)b[i];
    }
    return dot / sqrt(left * right);
}

uint32_t golden_fnv(uint32_t state, const void *data, size_t size)
{
    const uint8_t *at = data;
    for (size_t i = 0; i < size; i++) {
        state = (state ^ at[i]) * 0x01000193u;
    }
    return state;
}

uint64_t golden_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

uint64_t golden_seed(void)
{
    const char *given = getenv("MEMOS_TEST_SEED");
    uint64_t seed = 0;
    if (given) {
        seed = strtoull(given, NULL, 10);
    } else {
        randombytes_buf(&seed, sizeof seed);
    }
    print_message("MEMOS_TEST_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}
