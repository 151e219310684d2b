/* Any bytes as a capture of keys and values: what is read lies inside them, is as large as its
 * shape says, and is the same again. Checksums keep a fuzzer out, so that the same bytes are tried
 * with the right ones too. */
#include "paramem/kv_cube.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void inside(const struct paramem_kv_cube *cube, const uint8_t *data, size_t size)
{
    memos_assert(cube->bytes.data == data && cube->bytes.size == size);
    memos_assert(cube->blocks == (cube->tokens + KERN_PAGE_TOKENS - 1) / KERN_PAGE_TOKENS);
    for (size_t i = 0; i < cube->blocks; i++) {
        struct memos_bytes block = paramem_kv_cube_block(cube, i);
        size_t at = (size_t)((const uint8_t *)block.data - data);
        memos_assert(at <= size && block.size <= size - at);
        memos_assert(i + 1 < cube->blocks || at + block.size == size);
        (void)paramem_kv_cube_key(cube, i);
    }
    for (size_t i = 0; i < cube->tokens; i++) {
        uint32_t id;
        paramem_kv_cube_ids(cube, i, 1, &id);
    }
}

static bool look(const uint8_t *data, size_t size)
{
    struct paramem_kv_cube cube;
    struct memos_error err;
    if (paramem_kv_cube_read(memos_bytes_make(data, size), &cube, &err) != MEMOS_OK) {
        return false;
    }
    inside(&cube, data, size);
    if (paramem_kv_cube_check(&cube, NULL, true, &err) == MEMOS_OK) {
        memos_assert(paramem_kv_cube_check(&cube, NULL, false, &err) == MEMOS_OK);
        return true;
    }
    return false;
}

static size_t number(const uint8_t *data, size_t at)
{
    return data[at] | (size_t)data[at + 1] << 8 | (size_t)data[at + 2] << 16;
}

/* The shape, ids and numbers of data in a capture that is whole: it must be taken. */
static void made_whole(const uint8_t *data, size_t size)
{
    struct paramem_kv_cube_shape shape = {.dtype = (enum kern_dtype)(1 + data[12] % 4),
        .layers = 1 + number(data, 16) % 3,
        .heads = 1 + number(data, 20) % 3,
        .head_dim = 8 * (1 + number(data, 24) % 4),
        .tokens = 1 + number(data, 28) % 100};
    struct paramem_kv_cube cube;
    uint32_t ids[100];
    size_t bytes = (size_t)paramem_kv_cube_bytes(&shape);
    uint8_t *memory = aligned_alloc(256, bytes);
    memos_assert(memory);
    for (size_t i = 0; i < shape.tokens; i++) {
        ids[i] = data[i % size];
    }
    memset(memory, 0, bytes);
    struct paramem_key before;
    memset(before.bytes, data[15], sizeof before.bytes);
    paramem_kv_cube_begin(
        &shape, data + 32, data[14] % 2 == 1 ? &before : NULL, ids, memory, &cube);
    memos_assert(paramem_kv_cube_continues(&cube) == (data[14] % 2 == 1 && data[15] != 0));
    size_t at = (size_t)(cube.data - memory);
    for (size_t i = 0; i < size && at + i < bytes; i++) {
        memory[at + i] = data[i];
    }
    paramem_kv_cube_seal(&cube, memory, NULL);
    memos_assert(paramem_kv_cube_read(cube.bytes, &cube, NULL) == MEMOS_OK);
    memos_assert(paramem_kv_cube_check(&cube, NULL, false, NULL) == MEMOS_OK);
    inside(&cube, memory, bytes);
    memory[data[13] % bytes] ^= 1;
    memos_assert(!look(memory, bytes));
    free(memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    (void)look(data, size);
    if (size >= 64) {
        made_whole(data, size);
    }
    return 0;
}
