#include "proto/arena.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES_MIN ((size_t)16 * 1024)

struct memos_arena_block {
    struct memos_arena_block *next;
    size_t size, used;
    alignas(max_align_t) uint8_t data[];
};

void memos_arena_init(struct memos_arena *arena, size_t size_max)
{
    *arena = (struct memos_arena){ .size_max = size_max };
}

void memos_arena_finish(struct memos_arena *arena)
{
    while (arena->blocks) {
        struct memos_arena_block *block = arena->blocks;
        arena->blocks = block->next;
        free(block);
    }
    arena->used = 0;
}

void memos_arena_reset(struct memos_arena *arena)
{
    struct memos_arena_block *largest = NULL;
    while (arena->blocks) {
        struct memos_arena_block *block = arena->blocks;
        arena->blocks = block->next;
        if (!largest || block->size > largest->size) {
            free(largest);
            largest = block;
        } else {
            free(block);
        }
    }
    if (largest) {
        largest->next = NULL;
        largest->used = 0;
    }
    arena->blocks = largest;
    arena->used = 0;
}

static struct memos_arena_block *block_with_room(struct memos_arena *arena, size_t size)
{
    struct memos_arena_block *block = arena->blocks;
    if (block && size <= block->size - block->used) {
        return block;
    }
    size_t want = block ? block->size * 2 : BLOCK_BYTES_MIN;
    want = want > arena->size_max ? arena->size_max : want;
    want = want < size ? size : want;
    block = malloc(sizeof *block + want);
    if (!block) {
        return NULL;
    }
    block->size = want;
    block->used = 0;
    block->next = arena->blocks;
    arena->blocks = block;
    return block;
}

void *memos_arena_take(struct memos_arena *arena, size_t count, size_t size)
{
    size_t bytes, align = alignof(max_align_t);
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX - align) {
        return NULL;
    }
    bytes = (bytes + align - 1) / align * align;
    if (bytes > arena->size_max - arena->used) {
        return NULL;
    }
    struct memos_arena_block *block = block_with_room(arena, bytes);
    if (!block) {
        return NULL;
    }
    void *piece = block->data + block->used;
    block->used += bytes;
    arena->used += bytes;
    arena->used_most = arena->used > arena->used_most ? arena->used : arena->used_most;
    return piece;
}

void *memos_arena_copy(struct memos_arena *arena, struct memos_bytes bytes)
{
    if (bytes.size == SIZE_MAX) {
        return NULL;
    }
    uint8_t *copy = memos_arena_take(arena, bytes.size + 1, 1);
    if (!copy) {
        return NULL;
    }
    if (bytes.size > 0) {
        memcpy(copy, bytes.data, bytes.size);
    }
    copy[bytes.size] = 0;
    return copy;
}
