#include "paramem/text.h"

#include <string.h>
#include <utf8proc.h>

size_t paramem_char_read(struct memos_bytes bytes, uint32_t *out_code)
{
    const uint8_t *at = bytes.data;
    if (at[0] < 0x80) {
        *out_code = at[0];
        return 1;
    }
    size_t size = memos_bytes_utf8_sequence(bytes);
    if (size > 1) {
        uint32_t code = at[0] & (0x7Fu >> size);
        for (size_t i = 1; i < size; i++) {
            code = code << 6 | (at[i] & 0x3Fu);
        }
        *out_code = code;
        return size;
    }
    *out_code = PARAMEM_REPLACEMENT;
    /* A part may be three bytes of four, or two of three or four. */
    for (size_t part = bytes.size < 3 ? bytes.size : 3; part > 1; part--) {
        uint8_t whole[4] = {at[0], at[1], part > 2 ? at[2] : 0x80, 0x80};
        size_t full = memos_bytes_utf8_sequence(memos_bytes_make(whole, sizeof whole));
        if (full > part) {
            return part;
        }
    }
    return 1;
}

size_t paramem_text_valid(struct memos_bytes text)
{
    const uint8_t *at = text.data;
    size_t i = 0;
    while (i < text.size) {
        uint64_t eight = 0;
        if (text.size - i >= sizeof eight) {
            memcpy(&eight, at + i, sizeof eight);
            if ((eight & UINT64_C(0x8080808080808080)) == 0) {
                i += sizeof eight;
                continue;
            }
        }
        size_t size =
            at[i] == 0 ? 1 : memos_bytes_utf8_sequence(memos_bytes_make(at + i, text.size - i));
        if (size == 0) {
            break;
        }
        i += size;
    }
    return i;
}

void paramem_char_write(uint32_t code, struct memos_buffer *out)
{
    uint8_t utf8[4];
    size_t size = (size_t)utf8proc_encode_char((utf8proc_int32_t)code, utf8);
    memos_buffer_bytes(out, utf8, size);
}

void paramem_text_repair(struct memos_bytes text, struct memos_buffer *out)
{
    const uint8_t *at = text.data;
    for (size_t left = text.size; left > 0;) {
        uint32_t code;
        size_t good = paramem_text_valid(memos_bytes_make(at, left));
        memos_buffer_bytes(out, at, good);
        at += good;
        left -= good;
        if (left > 0) {
            size_t bad = paramem_char_read(memos_bytes_make(at, left), &code);
            paramem_char_write(PARAMEM_REPLACEMENT, out);
            at += bad;
            left -= bad;
        }
    }
}

bool paramem_char_space(uint32_t code)
{
    return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 ||
           code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
           code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

bool paramem_char_word(uint32_t code)
{
    switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default: /* joiners, and circled letters, which are alphabetic */
        return code == 0x200C || code == 0x200D || (code >= 0x24B6 && code <= 0x24E9) ||
               (code >= 0x1F130 && code <= 0x1F149) || (code >= 0x1F150 && code <= 0x1F169) ||
               (code >= 0x1F170 && code <= 0x1F189);
    }
}
