/* GGUF files: what is read out of good ones, and that no bad one is read at all.
 *
 * If these failed, a damaged or hostile file could send a read anywhere in memory, or give a model
 * weights that are not its own. */
#include "paramem/gguf.h"

#include "tests/paramem/golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define F32 0
#define Q8_0 8
#define Q5_K 13

/* A file as it is written: values, then tensors, then data. */
struct writer {
    struct memos_buffer values, tensors;
    uint64_t values_count, tensors_count;
};

static struct writer writer_make(void)
{
    return (struct writer){memos_buffer_make(1 << 20), memos_buffer_make(1 << 20), 0, 0};
}

static void text_put(struct memos_buffer *out, const char *text)
{
    memos_buffer_u64(out, strlen(text));
    memos_buffer_bytes(out, text, strlen(text));
}

/* A value of a raw type; its bytes follow. */
static struct memos_buffer *value_put(struct writer *writer, const char *key, uint32_t raw)
{
    text_put(&writer->values, key);
    memos_buffer_u32(&writer->values, raw);
    writer->values_count++;
    return &writer->values;
}

static void tensor_put(struct writer *writer, const char *name, const uint64_t *dims, uint32_t rank,
    uint32_t type, uint64_t offset)
{
    text_put(&writer->tensors, name);
    memos_buffer_u32(&writer->tensors, rank);
    for (uint32_t i = 0; i < rank; i++) {
        memos_buffer_u64(&writer->tensors, dims[i]);
    }
    memos_buffer_u32(&writer->tensors, type);
    memos_buffer_u64(&writer->tensors, offset);
    writer->tensors_count++;
}

/* The file with so many bytes of data, in memory of exactly its size; frees the writer. */
static struct memos_bytes file_make(struct writer *writer, uint32_t version, size_t data)
{
    struct memos_buffer file = memos_buffer_make(1 << 21);
    memos_buffer_bytes(&file, "GGUF", 4);
    memos_buffer_u32(&file, version);
    memos_buffer_u64(&file, writer->tensors_count);
    memos_buffer_u64(&file, writer->values_count);
    memos_buffer_bytes(&file, writer->values.data, writer->values.size);
    memos_buffer_bytes(&file, writer->tensors.data, writer->tensors.size);
    while (writer->tensors_count > 0 && file.size % 32 != 0) {
        memos_buffer_u8(&file, 0);
    }
    for (size_t i = 0; i < data; i++) {
        memos_buffer_u8(&file, (uint8_t)i);
    }
    uint8_t *exact = malloc(file.size);
    assert_true(exact && !file.failed);
    memcpy(exact, file.data, file.size);
    struct memos_bytes bytes = memos_bytes_make(exact, file.size);
    memos_buffer_free(&file);
    memos_buffer_free(&writer->values);
    memos_buffer_free(&writer->tensors);
    return bytes;
}

/* The whole of it must be answered with this status and a message with this text. */
static void check(
    struct writer writer, uint32_t version, size_t data, enum memos_status wanted, const char *text)
{
    struct memos_bytes file = file_make(&writer, version, data);
    struct paramem_gguf *gguf = NULL;
    struct memos_error err = {.text = ""};
    enum memos_status status = paramem_gguf_parse(file, "f", &gguf, &err);
    if (status != wanted || !strstr(err.text, text)) {
        fail_msg("%s, not %s: %s", memos_status_name(status), memos_status_name(wanted), err.text);
    }
    paramem_gguf_close(&gguf);
    free((void *)(uintptr_t)file.data);
}

static struct writer good_make(void)
{
    static const uint64_t rows[] = {4, 2}, blocks[] = {64, 3}, five[] = {256};
    struct writer w = writer_make();
    memos_buffer_u64(value_put(&w, "z.u64", 10), (uint64_t)1 << 40);
    memos_buffer_u32(value_put(&w, "a.i32", 5), (uint32_t)-7);
    memos_buffer_u32(value_put(&w, "a.f32", 6), 0x3FC00000u);
    memos_buffer_u8(value_put(&w, "a.bool", 7), 1);
    text_put(value_put(&w, "general.architecture", 8), "llama");
    struct memos_buffer *array = value_put(&w, "a.texts", 9);
    memos_buffer_u32(array, 8);
    memos_buffer_u64(array, 3);
    text_put(array, "one");
    text_put(array, "");
    text_put(array, "three");
    array = value_put(&w, "a.numbers", 9);
    memos_buffer_u32(array, 3); /* i16 */
    memos_buffer_u64(array, 2);
    memos_buffer_u16(array, (uint16_t)-2);
    memos_buffer_u16(array, 9);
    tensor_put(&w, "w", rows, 2, F32, 0);
    tensor_put(&w, "five", five, 1, Q5_K, 256);
    tensor_put(&w, "blocks", blocks, 2, Q8_0, 32);
    return w;
}

static void good_files_are_read_in_place(void **state)
{
    (void)state;
    struct writer writer = good_make();
    struct memos_bytes file = file_make(&writer, 3, 300);
    const uint8_t *data = (const uint8_t *)file.data + file.size - 300;
    struct paramem_gguf *gguf = NULL;
    assert_int_equal(paramem_gguf_parse(file, "f", &gguf, NULL), MEMOS_OK);
    assert_true(paramem_gguf_find(gguf, "z.u64")->count == (uint64_t)1 << 40);
    assert_int_equal(paramem_gguf_find(gguf, "a.i32")->type, PARAMEM_GGUF_INTEGER);
    assert_int_equal(paramem_gguf_find(gguf, "a.i32")->integer, -7);
    assert_true(paramem_gguf_find(gguf, "a.f32")->real == 1.5);
    assert_int_equal(paramem_gguf_find(gguf, "a.bool")->type, PARAMEM_GGUF_BOOL);
    assert_null(paramem_gguf_find(gguf, "a"));
    const struct paramem_gguf_value *texts = paramem_gguf_find(gguf, "a.texts");
    assert_int_equal(texts->items, 3);
    assert_int_equal(texts->item_type, PARAMEM_GGUF_TEXT);
    assert_true(memos_bytes_equal(paramem_gguf_text_at(texts, 2), memos_bytes_of("three")));
    const struct paramem_gguf_value *numbers = paramem_gguf_find(gguf, "a.numbers");
    assert_true(paramem_gguf_real_at(numbers, 0) == -2 && paramem_gguf_real_at(numbers, 1) == 9);
    const struct paramem_gguf_tensor *w = paramem_gguf_tensor_find(gguf, "w");
    assert_true(w->rank == 2 && w->shape[0] == 2 && w->shape[1] == 4 && w->bytes == 32);
    assert_ptr_equal(w->data, data);
    const struct paramem_gguf_tensor *blocks = paramem_gguf_tensor_find(gguf, "blocks");
    assert_true(blocks->dtype == KERN_Q8_0 && blocks->bytes == 6 * 34);
    const struct paramem_gguf_tensor *five = paramem_gguf_tensor_find(gguf, "five");
    assert_int_equal(five->dtype, 0);
    assert_string_equal(paramem_gguf_type_name(five->type_number), "Q5_K");
    assert_null(paramem_gguf_tensor_find(gguf, "v"));
    paramem_gguf_close(&gguf);
    paramem_gguf_close(&gguf);
    free((void *)(uintptr_t)file.data);
    check(good_make(), 2, 300, MEMOS_OK, "");
}

static void bad_values_are_refused(void **state)
{
    (void)state;
    struct writer w;
    check(writer_make(), 1, 0, MEMOS_UNSUPPORTED, "version 1");
    check(writer_make(), 3u << 24, 0, MEMOS_UNSUPPORTED, "big-endian");
    w = writer_make();
    memos_buffer_u32(value_put(&w, "a", 13), 0);
    check(w, 3, 0, MEMOS_CORRUPT, "type 13");
    w = writer_make();
    memos_buffer_u8(value_put(&w, "a", 7), 2);
    check(w, 3, 0, MEMOS_CORRUPT, "a: type 7");
    w = writer_make();
    memos_buffer_u8(value_put(&w, "a", 0), 1);
    memos_buffer_u8(value_put(&w, "a", 0), 1);
    check(w, 3, 0, MEMOS_CORRUPT, "stands twice");
    w = writer_make();
    memos_buffer_u8(value_put(&w, "", 0), 1);
    check(w, 3, 8, MEMOS_CORRUPT, "a key of 0 bytes");
    w = writer_make();
    memos_buffer_u64(value_put(&w, "a", 8), UINT64_MAX);
    check(w, 3, 0, MEMOS_CORRUPT, "end inside");
    w = writer_make();
    memos_buffer_u32(value_put(&w, "a", 9), 9);
    memos_buffer_u64(&w.values, 1);
    check(w, 3, 0, MEMOS_UNSUPPORTED, "items of type 9");
    w = writer_make();
    memos_buffer_u32(value_put(&w, "a", 9), 8);
    memos_buffer_u64(&w.values, UINT64_MAX / 8);
    check(w, 3, 0, MEMOS_CORRUPT, "end inside");
    w = writer_make();
    memos_buffer_u32(value_put(&w, "a", 9), 12);
    memos_buffer_u64(&w.values, 3);
    check(w, 3, 23, MEMOS_CORRUPT, "end inside");
    w = writer_make();
    w.values_count = (uint64_t)1 << 60;
    check(w, 3, 64, MEMOS_CORRUPT, "values of metadata");
    w = writer_make();
    w.tensors_count = (uint64_t)1 << 60;
    check(w, 3, 64, MEMOS_CORRUPT, "tensors");
}

/* One tensor of this shape in so many bytes of data. */
static void check_tensor(const uint64_t *dims, uint32_t rank, uint32_t type, uint64_t offset,
    size_t data, enum memos_status wanted, const char *text)
{
    struct writer w = writer_make();
    tensor_put(&w, "w", dims, rank, type, offset);
    check(w, 3, data, wanted, text);
}

static void bad_tensors_are_refused(void **state)
{
    (void)state;
    static const uint64_t one[] = {1, 1, 1, 1, 1}, none[] = {4, 0}, most[] = {1u << 31, 1u << 31},
                          over[] = {(uint64_t)1 << 62, 4}, sixty_four[] = {64}, odd[] = {33};
    check_tensor(one, 0, F32, 0, 64, MEMOS_CORRUPT, "no dimension");
    check_tensor(one, 5, F32, 0, 64, MEMOS_CORRUPT, "more than 4");
    check_tensor(none, 2, F32, 0, 64, MEMOS_CORRUPT, "impossible shape");
    check_tensor(over, 2, F32, 0, 64, MEMOS_CORRUPT, "impossible shape");
    check_tensor(most, 2, F32, 0, 64, MEMOS_CORRUPT, "ends outside");
    check_tensor(sixty_four, 1, F32, 0, 255, MEMOS_CORRUPT, "ends outside");
    check_tensor(sixty_four, 1, F32, 0, 256, MEMOS_OK, "");
    check_tensor(sixty_four, 1, F32, 32, 256, MEMOS_CORRUPT, "ends outside");
    check_tensor(sixty_four, 1, F32, 8, 1024, MEMOS_CORRUPT, "not aligned");
    check_tensor(sixty_four, 1, F32, UINT64_MAX - 31, 256, MEMOS_CORRUPT, "outside the file");
    check_tensor(odd, 1, Q8_0, 0, 256, MEMOS_CORRUPT, "no whole blocks");
    check_tensor(one, 1, 200, 0, 256, MEMOS_OK, "");
    check_tensor(one, 1, 200, 512, 256, MEMOS_CORRUPT, "outside the file");
    struct writer w = writer_make();
    tensor_put(&w, "w", sixty_four, 1, F32, 0);
    tensor_put(&w, "v", sixty_four, 1, F32, 224);
    check(w, 3, 1024, MEMOS_CORRUPT, "overlaps");
    w = writer_make();
    tensor_put(&w, "w", sixty_four, 1, F32, 0);
    tensor_put(&w, "w", sixty_four, 1, F32, 256);
    check(w, 3, 1024, MEMOS_CORRUPT, "stands twice");
    static const uint32_t alignments[] = {0, 4, 33, 1u << 21};
    for (size_t i = 0; i < sizeof alignments / sizeof alignments[0]; i++) {
        w = writer_make();
        memos_buffer_u32(value_put(&w, "general.alignment", 4), alignments[i]);
        check(w, 3, 64, MEMOS_CORRUPT, "general.alignment");
    }
}

/* No beginning of a good file is a file. */
static void cut_files_are_refused(void **state)
{
    (void)state;
    struct writer writer = good_make();
    struct memos_bytes file = file_make(&writer, 3, 256);
    for (size_t size = 0; size < file.size; size++) {
        struct paramem_gguf *gguf = NULL;
        void *copy = malloc(size + !size);
        assert_non_null(copy);
        memcpy(copy, file.data, size);
        assert_int_equal(
            paramem_gguf_parse(memos_bytes_make(copy, size), "f", &gguf, NULL), MEMOS_CORRUPT);
        free(copy);
    }
    free((void *)(uintptr_t)file.data);
}

/* Whatever a byte is changed to, what is read lies inside the file. */
static void changed_files_stay_inside(void **state)
{
    (void)state;
    uint64_t random = golden_seed();
    struct writer writer = good_make();
    struct memos_bytes file = file_make(&writer, 3, 300);
    uint8_t *bytes = (uint8_t *)(uintptr_t)file.data;
    size_t good = 0;
    for (size_t i = 0; i < 20000; i++) {
        size_t at = golden_random(&random) % (file.size - 300);
        uint8_t old = bytes[at];
        struct paramem_gguf *gguf = NULL;
        bytes[at] = (uint8_t)golden_random(&random);
        if (paramem_gguf_parse(file, "f", &gguf, NULL) == MEMOS_OK) {
            good++;
            for (size_t t = 0; t < paramem_gguf_tensors(gguf); t++) {
                const struct paramem_gguf_tensor *tensor = paramem_gguf_tensor_at(gguf, t);
                const uint8_t *data = tensor->data;
                assert_true(data >= bytes && tensor->bytes <= file.size - (size_t)(data - bytes));
            }
        }
        paramem_gguf_close(&gguf);
        bytes[at] = old;
    }
    assert_true(good > 0 && good < 20000);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_files_are_read_in_place),
        cmocka_unit_test(bad_values_are_refused),
        cmocka_unit_test(bad_tensors_are_refused),
        cmocka_unit_test(cut_files_are_refused),
        cmocka_unit_test(changed_files_stay_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
