/* The letters that byte-level BPE writes bytes with (Radford et al., "Language Models are
 * Unsupervised Multitask Learners", 2019; encoder.py): printable Latin-1 stands for itself, the 68
 * other bytes are U+0100 and up, so that a blank is "Ġ" and a line feed "Ċ".
 *
 * Threads: no state. */
#ifndef PARAMEM_BYTELEVEL_H
#define PARAMEM_BYTELEVEL_H

#include "proto/bytes.h"

/* The code point that stands for a byte. */
uint32_t paramem_bytelevel_letter(uint8_t byte);

/* The bytes that `written` (UTF-8) stands for, in out (room for written.size). False when some
 * letter stands for none; nothing is told then. */
bool paramem_bytelevel_read(struct memos_bytes written, uint8_t *out, size_t *out_size);

#endif
