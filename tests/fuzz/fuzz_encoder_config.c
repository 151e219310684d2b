/* Any bytes as the six configuration files of an encoder, with a NUL between them (two: the file is
 * missing): what is accepted is within bounds. */
#include "paramem/config.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct memos_bytes texts[PARAMEM_CONFIG_FILES] = {{NULL, 0}};
    struct paramem_config c;
    for (size_t i = 0; i < PARAMEM_CONFIG_FILES && size > 0; i++) {
        const uint8_t *stop = memchr(data, 0, size);
        size_t length = stop ? (size_t)(stop - data) : size;
        texts[i] = memos_bytes_make(length > 0 ? data : NULL, length);
        size -= length + (stop != NULL);
        data += length + (stop != NULL);
    }
    if (paramem_config_parse(texts, &c, NULL) != MEMOS_OK) {
        return 0;
    }
    memos_assert(c.layers >= 1 && c.layers <= 1024 && c.hidden >= 1 && c.hidden <= 16384);
    memos_assert(c.heads >= 1 && c.hidden % c.heads == 0);
    memos_assert(c.intermediate >= 1 && c.intermediate <= 65536);
    memos_assert(c.vocab >= 1 && c.vocab <= (size_t)1 << 22 && c.types >= 1);
    memos_assert(c.tokens_max >= 3 && c.tokens_max <= c.positions && c.positions <= 65536);
    memos_assert(c.eps >= 0.0f && c.eps <= 1.0f && c.act != KERN_NONE);
    memos_assert(c.pooling == PARAMEM_POOL_MEAN || c.pooling == PARAMEM_POOL_CLS);
    memos_assert(strlen(c.query_prefix) < sizeof c.query_prefix);
    memos_assert(strlen(c.passage_prefix) < sizeof c.passage_prefix);
    memos_assert(c.cls[0] != '\0' && strlen(c.mask) < sizeof c.mask);
    return 0;
}
