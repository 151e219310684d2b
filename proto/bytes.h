/* Byte views, a bounded cursor to read outside bytes with, and a bounded buffer to write with.
 *
 * A view never owns. A reader and a buffer remember the first failure, so that a decoder reads all
 * its fields and checks once at the end; after a failure every read gives zeros and every append
 * does nothing. Lengths are compared by subtraction, never by adding to an offset.
 *
 * All integers are little-endian, except the `_be` ones, which are made for ordered keys.
 *
 * Threads: no shared state; one object belongs to one thread at a time. */
#ifndef PROTO_BYTES_H
#define PROTO_BYTES_H

#include "proto/status.h"

#include <stdbool.h>
#include <stdint.h>

#pragma GCC visibility push(default)

/* A view of bytes that somebody else keeps. data may be NULL only when size is 0. */
struct memos_bytes {
    const void *data;
    size_t size;
};

/* View a string literal or a NUL-terminated string (NULL gives the empty view). */
struct memos_bytes memos_bytes_of(const char *text);
static inline struct memos_bytes memos_bytes_make(const void *data, size_t size)
{
    return (struct memos_bytes){ data, size };
}

bool memos_bytes_equal(struct memos_bytes a, struct memos_bytes b);

/* <0, 0, >0 like memcmp; of two with a common beginning the shorter comes first. */
int memos_bytes_compare(struct memos_bytes a, struct memos_bytes b);

/* How many bytes the character at the beginning has in UTF-8; 0 when there is none that is
 * well-formed (Unicode, table 3-7), or a NUL. */
size_t memos_bytes_utf8_sequence(struct memos_bytes bytes);

/* Is it well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms) without NUL bytes? */
bool memos_bytes_utf8(struct memos_bytes bytes);

/* A cursor over outside bytes. */
struct memos_reader {
    const uint8_t *at;
    size_t left;
    bool failed;
};

struct memos_reader memos_reader_of(struct memos_bytes bytes);
uint8_t memos_read_u8(struct memos_reader *r);
uint16_t memos_read_u16(struct memos_reader *r);
uint32_t memos_read_u32(struct memos_reader *r);
uint64_t memos_read_u64(struct memos_reader *r);
uint32_t memos_read_u32_be(struct memos_reader *r);
uint64_t memos_read_u64_be(struct memos_reader *r);

/* size bytes as a view into the reader's memory; empty and failed when fewer are left. */
struct memos_bytes memos_read_bytes(struct memos_reader *r, size_t size);

/* A 32-bit length, then as many bytes, at most size_max of them. */
struct memos_bytes memos_read_sized(struct memos_reader *r, size_t size_max);

/* Copy exactly size bytes out; zeros when fewer are left. */
void memos_read_into(struct memos_reader *r, void *out, size_t size);

/* True when nothing failed and nothing is left: what a whole message must end with. */
bool memos_reader_done(const struct memos_reader *r);

/* A growing buffer that never passes size_max. Zero-initialise with memos_buffer_make. */
struct memos_buffer {
    uint8_t *data;
    size_t size;
    size_t capacity;
    size_t size_max;
    bool failed;
};

struct memos_buffer memos_buffer_make(size_t size_max);

/* Free the memory; the buffer is empty and usable again. */
void memos_buffer_free(struct memos_buffer *b);

/* Forget the content, keep the memory, clear a failure. */
void memos_buffer_reset(struct memos_buffer *b);

/* Room for size more bytes at the end; NULL (and failed) past size_max or without memory. The bytes
 * count as written. */
void *memos_buffer_take(struct memos_buffer *b, size_t size);

void memos_buffer_u8(struct memos_buffer *b, uint8_t value);
void memos_buffer_u16(struct memos_buffer *b, uint16_t value);
void memos_buffer_u32(struct memos_buffer *b, uint32_t value);
void memos_buffer_u64(struct memos_buffer *b, uint64_t value);
void memos_buffer_u32_be(struct memos_buffer *b, uint32_t value);
void memos_buffer_u64_be(struct memos_buffer *b, uint64_t value);
void memos_buffer_bytes(struct memos_buffer *b, const void *data, size_t size);

/* A 32-bit length, then the bytes: what memos_read_sized reads. */
void memos_buffer_sized(struct memos_buffer *b, struct memos_bytes bytes);

/* printf at the end, without the closing NUL. */
__attribute__((format(printf, 2, 3))) void memos_buffer_printf(
    struct memos_buffer *b, const char *format, ...);

/* View the content; dies with the next change. */
struct memos_bytes memos_buffer_view(const struct memos_buffer *b);

#pragma GCC visibility pop

#endif
