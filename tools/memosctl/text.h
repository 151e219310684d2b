/* Text from memories, made safe for a terminal and cut to a width.
 *
 * Nothing of a memory may steer a terminal: control characters, escape sequences, and the marks
 * that turn the direction of writing are shown as what they are (\x1b, \u202e), bytes that are not
 * UTF-8 as \xff. Widths are columns, as utf8proc has them.
 *
 * Threads: no state. */
#ifndef TOOLS_MEMOSCTL_TEXT_H
#define TOOLS_MEMOSCTL_TEXT_H

#include "proto/bytes.h"

/* Append text, made safe. Newlines and tabs stay when keep_lines, else each run of blanks, newlines
 * and tabs is one blank. */
void ctl_text_clean(struct memos_buffer *out, struct memos_bytes text, bool keep_lines);

/* Append text with all of it seen: made safe, and newlines and tabs shown as \x0a and \x09. */
void ctl_text_piece(struct memos_buffer *out, struct memos_bytes text);

/* Columns of clean text. */
size_t ctl_text_width(struct memos_bytes text);

/* Append clean text of one line, cut to at most `columns`; what was cut ends with an ellipsis.
 * Returns the columns used. */
size_t ctl_text_fit(struct memos_buffer *out, struct memos_bytes text, size_t columns);

/* The first `size` bytes of text or fewer, so that no character is cut in two. */
struct memos_bytes ctl_text_head(struct memos_bytes text, size_t size);

/* "1.5 MB", "512 B". Returns out. */
char *ctl_text_size(uint64_t bytes, char out[16]);

#endif
