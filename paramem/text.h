/* Characters of texts, as the tokenizers library reads them.
 *
 * Threads: no state. */
#ifndef PARAMEM_TEXT_H
#define PARAMEM_TEXT_H

#include "proto/bytes.h"

#define PARAMEM_REPLACEMENT 0xFFFD

/* The character at the beginning of bytes (not empty), or U+FFFD for each maximal part of one that
 * is ill-formed (Unicode, 3.9). Returns the bytes read. */
size_t paramem_char_read(struct memos_bytes bytes, uint32_t *out_code);

/* The same of well-formed text: the bytes of the character at `at`. */
static inline size_t paramem_char_size(uint8_t first)
{
    return first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
}

/* How many bytes of the beginning are well-formed UTF-8 (NUL counts as a character). */
size_t paramem_text_valid(struct memos_bytes text);

/* Append the text, with U+FFFD for each ill-formed part. */
void paramem_text_repair(struct memos_bytes text, struct memos_buffer *out);

/* Append a character in UTF-8. */
void paramem_char_write(uint32_t code, struct memos_buffer *out);

/* White_Space, as Rust's char::is_whitespace. */
bool paramem_char_space(uint32_t code);
/* A letter, mark, digit or connector, as \w of Rust's regex. */
bool paramem_char_word(uint32_t code);

#endif
