/* Unicode's normal forms and lower case, as the tokenizers library has them: its tables are of
 * Unicode 9 (see wordpiece_ranges.c), so that what came later is left alone.
 *
 * Source: Unicode Standard Annex #15.
 *
 * Threads: no state. */
#ifndef PARAMEM_UNICODE_H
#define PARAMEM_UNICODE_H

#include "proto/bytes.h"

/* Can no normal form change this text (a quick look: no character above U+00BF... that one could
 * be)? */
bool paramem_text_normal(struct memos_bytes text);

/* Append the normal form of a well-formed text: NFD, NFC with `compose`, NFKD and NFKC with
 * `compatible`. NO_MEMORY; out->failed past its bound. */
MEMOS_MUST_USE enum memos_status paramem_text_compose(struct memos_bytes text, bool compatible,
    bool compose, struct memos_buffer *out, struct memos_error *err);

/* Append the text in lower case, as Rust's char::to_lowercase of each character. */
void paramem_text_lower(struct memos_bytes text, struct memos_buffer *out);

/* Lower case of one character: one or two. */
size_t paramem_char_lower(uint32_t code, uint32_t out[2]);

#endif
