#include "proto/bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct memos_bytes memos_bytes_of(const char *text)
{
    return memos_bytes_make(text, text ? strlen(text) : 0);
}

bool memos_bytes_equal(struct memos_bytes a, struct memos_bytes b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

int memos_bytes_compare(struct memos_bytes a, struct memos_bytes b)
{
    size_t common = a.size < b.size ? a.size : b.size;
    int order = common ? memcmp(a.data, b.data, common) : 0;
    if (order != 0) {
        return order;
    }
    return (a.size > b.size) - (a.size < b.size);
}

size_t memos_bytes_utf8_sequence(struct memos_bytes bytes)
{
    if (bytes.size == 0) {
        return 0;
    }
    const uint8_t *at = bytes.data;
    uint8_t first = at[0], low = 0x80, high = 0xBF;
    size_t size;
    if (first < 0x80) {
        return first != 0;
    } else if (first >= 0xC2 && first <= 0xDF) {
        size = 2;
    } else if (first >= 0xE0 && first <= 0xEF) {
        size = 3;
        low = first == 0xE0 ? 0xA0 : low;
        high = first == 0xED ? 0x9F : high;
    } else if (first >= 0xF0 && first <= 0xF4) {
        size = 4;
        low = first == 0xF0 ? 0x90 : low;
        high = first == 0xF4 ? 0x8F : high;
    } else {
        return 0;
    }
    if (bytes.size < size || at[1] < low || at[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < size; i++) {
        if ((at[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    return size;
}

bool memos_bytes_utf8(struct memos_bytes bytes)
{
    const uint8_t *at = bytes.data;
    for (size_t left = bytes.size; left > 0;) {
        size_t size = memos_bytes_utf8_sequence(memos_bytes_make(at, left));
        if (size == 0) {
            return false;
        }
        at += size;
        left -= size;
    }
    return true;
}

struct memos_reader memos_reader_of(struct memos_bytes bytes)
{
    return (struct memos_reader){ bytes.data, bytes.size, false };
}

struct memos_bytes memos_read_bytes(struct memos_reader *r, size_t size)
{
    if (r->failed || size > r->left) {
        r->failed = true;
        return memos_bytes_make(NULL, 0);
    }
    struct memos_bytes view = memos_bytes_make(r->at, size);
    r->at += size;
    r->left -= size;
    return view;
}

void memos_read_into(struct memos_reader *r, void *out, size_t size)
{
    struct memos_bytes view = memos_read_bytes(r, size);
    if (r->failed) {
        memset(out, 0, size);
    } else if (size > 0) {
        memcpy(out, view.data, size);
    }
}

/* A number is read where it lies; the compiler makes one load of the bytes. Every record and every
 * key goes through here. */
static const uint8_t *read_number(struct memos_reader *r, size_t size)
{
    static const uint8_t zeros[8] = { 0 };
    if (r->failed || size > r->left) {
        r->failed = true;
        return zeros;
    }
    const uint8_t *at = r->at;
    r->at += size;
    r->left -= size;
    return at;
}

static uint32_t little_u32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint32_t big_u32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | (uint32_t)at[3];
}

uint8_t memos_read_u8(struct memos_reader *r)
{
    return read_number(r, 1)[0];
}

uint16_t memos_read_u16(struct memos_reader *r)
{
    const uint8_t *at = read_number(r, 2);
    return (uint16_t)(at[0] | at[1] << 8);
}

uint32_t memos_read_u32(struct memos_reader *r)
{
    return little_u32(read_number(r, 4));
}

uint64_t memos_read_u64(struct memos_reader *r)
{
    const uint8_t *at = read_number(r, 8);
    return (uint64_t)little_u32(at) | (uint64_t)little_u32(at + 4) << 32;
}

uint32_t memos_read_u32_be(struct memos_reader *r)
{
    return big_u32(read_number(r, 4));
}

uint64_t memos_read_u64_be(struct memos_reader *r)
{
    const uint8_t *at = read_number(r, 8);
    return (uint64_t)big_u32(at) << 32 | (uint64_t)big_u32(at + 4);
}

struct memos_bytes memos_read_sized(struct memos_reader *r, size_t size_max)
{
    size_t size = memos_read_u32(r);
    if (size > size_max) {
        r->failed = true;
    }
    return memos_read_bytes(r, size);
}

bool memos_reader_done(const struct memos_reader *r)
{
    return !r->failed && r->left == 0;
}

struct memos_buffer memos_buffer_make(size_t size_max)
{
    return (struct memos_buffer){ .size_max = size_max };
}

void memos_buffer_free(struct memos_buffer *b)
{
    free(b->data);
    *b = memos_buffer_make(b->size_max);
}

void memos_buffer_reset(struct memos_buffer *b)
{
    b->size = 0;
    b->failed = false;
}

static bool buffer_grow(struct memos_buffer *b, size_t size)
{
    if (b->failed || size > b->size_max - b->size) {
        b->failed = true;
        return false;
    }
    size_t need = b->size + size;
    if (need <= b->capacity) {
        return true;
    }
    size_t capacity = b->capacity < 64 ? 64 : b->capacity;
    while (capacity < need) {
        capacity = capacity > b->size_max / 2 ? b->size_max : capacity * 2;
    }
    uint8_t *data = realloc(b->data, capacity);
    if (!data) {
        b->failed = true;
        return false;
    }
    b->data = data;
    b->capacity = capacity;
    return true;
}

void *memos_buffer_take(struct memos_buffer *b, size_t size)
{
    if (!buffer_grow(b, size)) {
        return NULL;
    }
    void *room = b->data + b->size;
    b->size += size;
    return room;
}

void memos_buffer_bytes(struct memos_buffer *b, const void *data, size_t size)
{
    if (size == 0) {
        return;
    }
    void *room = memos_buffer_take(b, size);
    if (room) {
        memcpy(room, data, size);
    }
}

static void append_little(struct memos_buffer *b, uint64_t value, size_t size)
{
    uint8_t raw[8];
    for (size_t i = 0; i < size; i++) {
        raw[i] = (uint8_t)(value >> (8 * i));
    }
    memos_buffer_bytes(b, raw, size);
}

static void append_big(struct memos_buffer *b, uint64_t value, size_t size)
{
    uint8_t raw[8];
    for (size_t i = 0; i < size; i++) {
        raw[i] = (uint8_t)(value >> (8 * (size - 1 - i)));
    }
    memos_buffer_bytes(b, raw, size);
}

void memos_buffer_u8(struct memos_buffer *b, uint8_t value)
{
    append_little(b, value, 1);
}

void memos_buffer_u16(struct memos_buffer *b, uint16_t value)
{
    append_little(b, value, 2);
}

void memos_buffer_u32(struct memos_buffer *b, uint32_t value)
{
    append_little(b, value, 4);
}

void memos_buffer_u64(struct memos_buffer *b, uint64_t value)
{
    append_little(b, value, 8);
}

void memos_buffer_u32_be(struct memos_buffer *b, uint32_t value)
{
    append_big(b, value, 4);
}

void memos_buffer_u64_be(struct memos_buffer *b, uint64_t value)
{
    append_big(b, value, 8);
}

void memos_buffer_sized(struct memos_buffer *b, struct memos_bytes bytes)
{
    if (bytes.size > UINT32_MAX) {
        b->failed = true;
        return;
    }
    memos_buffer_u32(b, (uint32_t)bytes.size);
    memos_buffer_bytes(b, bytes.data, bytes.size);
}

void memos_buffer_printf(struct memos_buffer *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int size = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (size < 0 || !buffer_grow(b, (size_t)size + 1)) {
        b->failed = true;
        return;
    }
    va_start(args, format);
    (void)vsnprintf((char *)b->data + b->size, (size_t)size + 1, format, args);
    va_end(args);
    b->size += (size_t)size;
}

struct memos_bytes memos_buffer_view(const struct memos_buffer *b)
{
    return memos_bytes_make(b->data, b->size);
}
