/* Any bytes as a file of tensors: what is read lies inside the file, in order, and is found again.
 */
#include "paramem/safetensors.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct paramem_safetensors *file = NULL;
    size_t covered = 0;
    if (paramem_safetensors_parse(memos_bytes_make(data, size), "f", &file, NULL) != MEMOS_OK) {
        memos_assert(!file);
        return 0;
    }
    for (size_t i = 0; i < paramem_safetensors_count(file); i++) {
        const struct paramem_tensor *tensor = paramem_safetensors_at(file, i);
        size_t count = 1;
        const uint8_t *at = tensor->data;
        memos_assert(at >= data && tensor->bytes <= size - (size_t)(at - data));
        for (size_t d = 0; d < tensor->rank; d++) {
            count *= tensor->shape[d];
        }
        memos_assert(count == tensor->count);
        memos_assert(tensor->bytes == count * paramem_dtype_bytes(tensor->dtype));
        memos_assert(paramem_safetensors_find(file, tensor->name) == tensor);
        memos_assert(i == 0 || strcmp(tensor[-1].name, tensor->name) < 0);
        covered += tensor->bytes;
    }
    memos_assert(covered <= size - 8);
    paramem_safetensors_close(&file);
    return 0;
}
