/* Files of weights: what is read out of good ones, and that no bad one is read at all.
 *
 * If these failed, a damaged or hostile file could send a read anywhere in memory, or give a model
 * weights that are not its own. */
#include "paramem/safetensors.h"

#include "tests/memcube/folder.h"
#include "tests/paramem/golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A file of this header (padded so that the data are aligned) and so many bytes of data, in memory
 * of exactly its size. */
static struct memos_bytes file_make(const char *header, size_t data)
{
    size_t length = (strlen(header) + 7) / 8 * 8;
    uint8_t *file = malloc(8 + length + data);
    assert_non_null(file);
    for (size_t i = 0; i < 8; i++) {
        file[i] = (uint8_t)(length >> 8 * i);
    }
    memset(file + 8, ' ', length);
    memcpy(file + 8, header, strlen(header));
    for (size_t i = 0; i < data; i++) {
        file[8 + length + i] = (uint8_t)i;
    }
    return memos_bytes_make(file, 8 + length + data);
}

static void file_free(struct memos_bytes file)
{
    free((void *)(uintptr_t)file.data);
}

static void check(const char *header, size_t data, enum memos_status wanted, const char *text)
{
    struct memos_bytes file = file_make(header, data);
    struct paramem_safetensors *read = NULL;
    struct memos_error err = {.text = ""};
    enum memos_status status = paramem_safetensors_parse(file, "f", &read, &err);
    if (status != wanted || !strstr(err.text, text)) {
        fail_msg("%s: %s: %s", header, memos_status_name(status), err.text);
    }
    paramem_safetensors_close(&read);
    file_free(file);
}

#define A_F32 "\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}"
#define ONE(dtype, shape, offsets)                                                                 \
    "{\"a\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void good_files_are_read_in_place(void **state)
{
    (void)state;
    struct memos_bytes file =
        file_make("{\"__metadata__\":{\"format\":\"pt\"},"
                  "\"z\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[24,26]},"
                  "\"e\":{\"dtype\":\"I64\",\"shape\":[5,0],\"data_offsets\":[24,24]}," A_F32 "}",
            26);
    struct paramem_safetensors *read = NULL;
    assert_int_equal(paramem_safetensors_parse(file, "f", &read, NULL), MEMOS_OK);
    assert_int_equal(paramem_safetensors_count(read), 3);
    assert_string_equal(paramem_safetensors_at(read, 0)->name, "a");
    assert_string_equal(paramem_safetensors_at(read, 2)->name, "z");
    const struct paramem_tensor *a = paramem_safetensors_find(read, "a");
    assert_int_equal(a->dtype, PARAMEM_F32);
    assert_int_equal(a->rank, 2);
    assert_int_equal(a->shape[0], 2);
    assert_int_equal(a->shape[1], 3);
    assert_int_equal(a->count, 6);
    assert_int_equal(a->bytes, 24);
    assert_ptr_equal(a->data, (const uint8_t *)file.data + file.size - 26);
    const struct paramem_tensor *z = paramem_safetensors_find(read, "z");
    assert_int_equal(z->rank, 0);
    assert_int_equal(z->count, 1);
    assert_int_equal(*(const uint8_t *)z->data, 24);
    assert_int_equal(paramem_safetensors_find(read, "e")->bytes, 0);
    assert_null(paramem_safetensors_find(read, "b"));
    assert_null(paramem_safetensors_find(read, "__metadata__"));
    paramem_safetensors_close(&read);
    paramem_safetensors_close(&read);
    file_free(file);
    check("{}", 0, MEMOS_OK, "");
}

static void every_dtype_has_its_size(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t bytes;
    } all[] = {{"BOOL", 1}, {"U8", 1}, {"I8", 1}, {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"U16", 2},
        {"I16", 2}, {"F16", 2}, {"BF16", 2}, {"U32", 4}, {"I32", 4}, {"F32", 4}, {"U64", 8},
        {"I64", 8}, {"F64", 8}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        char header[200];
        (void)snprintf(header, sizeof header,
            "{\"a\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[0,%zu]}}", all[i].name,
            3 * all[i].bytes);
        check(header, 3 * all[i].bytes, MEMOS_OK, "");
        check(header, 3 * all[i].bytes + 1, MEMOS_CORRUPT, "belong to no tensor");
        struct memos_bytes file = file_make(header, 3 * all[i].bytes);
        struct paramem_safetensors *read = NULL;
        assert_int_equal(paramem_safetensors_parse(file, "f", &read, NULL), MEMOS_OK);
        enum paramem_dtype dtype = paramem_safetensors_at(read, 0)->dtype;
        assert_string_equal(paramem_dtype_name(dtype), all[i].name);
        assert_int_equal(paramem_dtype_bytes(dtype), all[i].bytes);
        paramem_safetensors_close(&read);
        file_free(file);
    }
}

static void bad_headers_are_refused(void **state)
{
    (void)state;
    check("[]", 0, MEMOS_CORRUPT, "begin with {");
    check(" {}", 0, MEMOS_CORRUPT, "begin with {");
    check("{\"a\":", 0, MEMOS_CORRUPT, "");
    check("{\"a\":1}", 0, MEMOS_CORRUPT, "an object");
    check("{" A_F32 "," A_F32 "}", 24, MEMOS_CORRUPT, "duplicate");
    check("{\"__metadata__\":{\"a\":1}}", 0, MEMOS_CORRUPT, "__metadata__");
    check("{\"__metadata__\":7}", 0, MEMOS_CORRUPT, "__metadata__");
    check("{\"a\":{\"b\":{\"c\":{\"d\":{}}}}}", 0, MEMOS_TOO_LARGE, "depth");
    check(ONE("F4", "[2]", "[0,1]"), 1, MEMOS_UNSUPPORTED, "\"F4\"");
    check("{\"a\":{\"shape\":[2],\"data_offsets\":[0,1]}}", 1, MEMOS_UNSUPPORTED, "dtype");
    check("{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, MEMOS_CORRUPT, "no shape");
    check("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, MEMOS_CORRUPT, "offsets");
    check(ONE("F32", "{}", "[0,4]"), 4, MEMOS_CORRUPT, "array");
    check(ONE("F32", "[1]", "[0]"), 4, MEMOS_CORRUPT, "offsets");
    check(ONE("F32", "[1]", "[0,4,8]"), 4, MEMOS_CORRUPT, "offsets");
    check(ONE("F32", "[1]", "[0,\"4\"]"), 4, MEMOS_CORRUPT, "offsets");
    check(ONE("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, MEMOS_UNSUPPORTED, "9 dimensions");
}

static void impossible_sizes_are_refused(void **state)
{
    (void)state;
    check(ONE("F32", "[2,3]", "[0,20]"), 20, MEMOS_CORRUPT, "6 elements");
    check(ONE("F32", "[-1]", "[0,4]"), 4, MEMOS_CORRUPT, "shape");
    check(ONE("F32", "[1.0]", "[0,4]"), 4, MEMOS_CORRUPT, "shape");
    check(ONE("F32", "[9223372036854775807,3]", "[0,4]"), 4, MEMOS_CORRUPT, "shape");
    check(ONE("F32", "[4611686018427387904]", "[0,0]"), 0, MEMOS_CORRUPT, "elements");
    check(ONE("F32", "[4294967296,4294967296]", "[0,0]"), 0, MEMOS_CORRUPT, "shape");
    check(ONE("F32", "[99999999999999999999]", "[0,4]"), 4, MEMOS_CORRUPT, "shape");
    check(ONE("F32", "[1]", "[0,4]"), 3, MEMOS_CORRUPT, "offsets");
    check(ONE("F32", "[1]", "[4,0]"), 4, MEMOS_CORRUPT, "offsets");
    check(ONE("F32", "[1]", "[-4,0]"), 4, MEMOS_CORRUPT, "offsets");
    check(ONE("F32", "[1]", "[9223372036854775804,9223372036854775807]"), 4, MEMOS_CORRUPT,
        "offsets");
    check("{" A_F32 ",\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[20,24]}}", 24,
        MEMOS_CORRUPT, "overlaps");
    check("{" A_F32 ",\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[28,32]}}", 32,
        MEMOS_CORRUPT, "hole");
    check("{\"h\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
          "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[1,5]}}",
        5, MEMOS_UNSUPPORTED, "multiple of 4");
}

static void lengths_of_headers_are_checked(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {0, 1, 3, 100000001, UINT32_MAX, UINT64_MAX, UINT64_MAX - 7};
    struct paramem_safetensors *read = NULL;
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        uint8_t bytes[10] = "........{}";
        memcpy(bytes, &lengths[i], 8);
        assert_int_equal(
            paramem_safetensors_parse(memos_bytes_make(bytes, sizeof bytes), "f", &read, NULL),
            MEMOS_CORRUPT);
    }
    assert_null(read);
}

/* No beginning of a good file is a file. */
static void cut_files_are_refused(void **state)
{
    (void)state;
    struct memos_bytes file = file_make("{" A_F32 "}", 24);
    for (size_t size = 0; size < file.size; size++) {
        struct paramem_safetensors *read = NULL;
        void *copy = malloc(size + !size);
        assert_non_null(copy);
        memcpy(copy, file.data, size);
        assert_int_equal(paramem_safetensors_parse(memos_bytes_make(copy, size), "f", &read, NULL),
            MEMOS_CORRUPT);
        free(copy);
    }
    file_free(file);
}

/* Whatever one byte is changed to, what is read lies inside the file. */
static void changed_files_stay_inside(void **state)
{
    (void)state;
    uint64_t random = golden_seed();
    struct memos_bytes file = file_make("{" A_F32 ",\"b\":{\"dtype\":\"U8\",\"shape\":[2,2],"
                                        "\"data_offsets\":[24,28]}}",
        28);
    uint8_t *bytes = (uint8_t *)(uintptr_t)file.data;
    size_t good = 0;
    for (size_t i = 0; i < 20000; i++) {
        size_t at = golden_random(&random) % (file.size - 28);
        uint8_t old = bytes[at];
        struct paramem_safetensors *read = NULL;
        bytes[at] = (uint8_t)golden_random(&random);
        if (paramem_safetensors_parse(file, "f", &read, NULL) == MEMOS_OK) {
            good++;
            for (size_t t = 0; t < paramem_safetensors_count(read); t++) {
                const struct paramem_tensor *tensor = paramem_safetensors_at(read, t);
                const uint8_t *data = tensor->data;
                assert_true(data >= bytes && tensor->bytes <= file.size - (size_t)(data - bytes));
            }
        }
        paramem_safetensors_close(&read);
        bytes[at] = old;
    }
    assert_true(good > 0 && good < 20000);
    file_free(file);
}

/* ---- folders ------------------------------------------------------------------------------- */

static void shards_are_found_through_their_index(void **state)
{
    (void)state;
    char path[GOLDEN_PATH_BYTES];
    struct paramem_tensors *tensors = NULL;
    assert_int_equal(paramem_tensors_open(golden_path("tiny_cls", path), &tensors, NULL), MEMOS_OK);
    assert_non_null(paramem_tensors_find(tensors, "bert.embeddings.word_embeddings.weight"));
    assert_non_null(paramem_tensors_find(tensors, "bert.encoder.layer.1.output.dense.bias"));
    assert_null(paramem_tensors_find(tensors, "bert.encoder.layer.2.output.dense.bias"));
    paramem_tensors_close(&tensors);
    assert_int_equal(
        paramem_tensors_open(golden_path("tiny_mean", path), &tensors, NULL), MEMOS_OK);
    assert_non_null(paramem_tensors_find(tensors, "embeddings.word_embeddings.weight"));
    paramem_tensors_close(&tensors);
    assert_int_equal(
        paramem_tensors_open(golden_path("no-such", path), &tensors, NULL), MEMOS_NOT_FOUND);
}

static void an_index_cannot_leave_its_folder(void **state)
{
    (void)state;
    static const struct {
        const char *index;
        enum memos_status status;
    } cases[] = {
        {"{\"weight_map\":{\"a\":\"one.safetensors\"}}", MEMOS_OK},
        {"{\"weight_map\":{\"b\":\"one.safetensors\"}}", MEMOS_CORRUPT},
        {"{\"weight_map\":{\"a\":\"../one.safetensors\"}}", MEMOS_CORRUPT},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", MEMOS_CORRUPT},
        {"{\"weight_map\":{\"a\":\"\"}}", MEMOS_CORRUPT},
        {"{\"weight_map\":{\"a\":1}}", MEMOS_CORRUPT},
        {"{\"weight_map\":{\"a\":\"two.safetensors\"}}", MEMOS_NOT_FOUND},
        {"{\"weight_map\":[]}", MEMOS_CORRUPT},
        {"{}", MEMOS_CORRUPT},
        {"[]", MEMOS_CORRUPT},
        {"", MEMOS_CORRUPT},
    };
    char folder[FOLDER_PATH_BYTES];
    folder_make(folder);
    struct memos_bytes file = file_make("{" A_F32 "}", 24);
    golden_write(folder, "one.safetensors", file);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct paramem_tensors *tensors = NULL;
        golden_write(folder, "model.safetensors.index.json", memos_bytes_of(cases[i].index));
        enum memos_status status = paramem_tensors_open(folder, &tensors, NULL);
        if (status != cases[i].status) {
            fail_msg("%s: %s", cases[i].index, memos_status_name(status));
        }
        paramem_tensors_close(&tensors);
    }
    file_free(file);
    folder_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_files_are_read_in_place),
        cmocka_unit_test(every_dtype_has_its_size),
        cmocka_unit_test(bad_headers_are_refused),
        cmocka_unit_test(impossible_sizes_are_refused),
        cmocka_unit_test(lengths_of_headers_are_checked),
        cmocka_unit_test(cut_files_are_refused),
        cmocka_unit_test(changed_files_stay_inside),
        cmocka_unit_test(shards_are_found_through_their_index),
        cmocka_unit_test(an_index_cannot_leave_its_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
