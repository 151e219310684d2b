/* Any bytes as a GGUF file: what is read lies inside the file, is told apart, and is found again.
 */
#include "paramem/gguf.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void inside(struct memos_bytes bytes, const uint8_t *data, size_t size)
{
    const uint8_t *at = bytes.data;
    memos_assert(bytes.size == 0 || (at >= data && bytes.size <= size - (size_t)(at - data)));
}

/* The key as a C string; keys hold no NUL. */
static char *text_of(struct memos_bytes bytes)
{
    char *text = malloc(bytes.size + 1);
    memos_assert(text);
    memcpy(text, bytes.data, bytes.size);
    text[bytes.size] = '\0';
    return text;
}

static void value_check(
    const struct paramem_gguf *gguf, const char *key, const uint8_t *data, size_t size)
{
    const struct paramem_gguf_value *value = paramem_gguf_find(gguf, key);
    if (!value) {
        return;
    }
    inside(value->key, data, size);
    inside(value->text, data, size);
    if (value->type == PARAMEM_GGUF_ARRAY) {
        for (size_t i = 0; i < value->items; i++) {
            inside(paramem_gguf_text_at(value, i), data, size);
            (void)paramem_gguf_real_at(value, i);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const keys[] = {"general.architecture", "general.alignment", "a", "b",
        "tokenizer.ggml.tokens", "tokenizer.ggml.scores"};
    struct paramem_gguf *gguf = NULL;
    size_t covered = 0;
    if (paramem_gguf_parse(memos_bytes_make(data, size), "f", &gguf, NULL) != MEMOS_OK) {
        memos_assert(!gguf);
        return 0;
    }
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        value_check(gguf, keys[i], data, size);
    }
    for (size_t i = 0; i < paramem_gguf_tensors(gguf); i++) {
        const struct paramem_gguf_tensor *tensor = paramem_gguf_tensor_at(gguf, i);
        size_t count = 1;
        inside(memos_bytes_make(tensor->data, tensor->bytes), data, size);
        inside(tensor->name, data, size);
        for (size_t d = 0; d < tensor->rank; d++) {
            count *= tensor->shape[d];
        }
        memos_assert(count == tensor->count);
        if (tensor->dtype) {
            memos_assert(tensor->bytes == kern_dtype_row_bytes(tensor->dtype, count));
        }
        char *name = text_of(tensor->name);
        memos_assert(paramem_gguf_tensor_find(gguf, name) == tensor);
        free(name);
        memos_assert(paramem_gguf_type_name(tensor->type_number));
        covered += tensor->bytes;
    }
    memos_assert(covered <= size);
    paramem_gguf_close(&gguf);
    return 0;
}
