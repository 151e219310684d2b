#include "tools/memosctl/text.h"

#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

#define ELLIPSIS "\xe2\x80\xa6"

/* Marks that a terminal might obey, beside control characters: directions and invisible joints. */
static bool is_unsafe(utf8proc_int32_t c)
{
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
        return true;
    case UTF8PROC_CATEGORY_CF:
        return c != 0x200d && c != 0x00ad; /* emoji and words are joined with it; soft hyphen */
    default:
        return false;
    }
}

static void append_escaped(struct memos_buffer *out, utf8proc_int32_t c)
{
    if (c < 0x100) {
        memos_buffer_printf(out, "\\x%02x", (unsigned)c);
    } else if (c < 0x10000) {
        memos_buffer_printf(out, "\\u%04x", (unsigned)c);
    } else {
        memos_buffer_printf(out, "\\U%08x", (unsigned)c);
    }
}

/* The character at the beginning of text; *out_size its bytes, at least one. Negative: none. */
static utf8proc_int32_t next_character(struct memos_bytes text, size_t *out_size)
{
    utf8proc_int32_t c = -1;
    size_t most = text.size < 4 ? text.size : 4;
    utf8proc_ssize_t size = utf8proc_iterate(text.data, (utf8proc_ssize_t)most, &c);
    *out_size = size > 0 ? (size_t)size : 1;
    return size > 0 ? c : -1;
}

static struct memos_bytes after(struct memos_bytes text, size_t size)
{
    return memos_bytes_make((const uint8_t *)text.data + size, text.size - size);
}

void ctl_text_clean(struct memos_buffer *out, struct memos_bytes text, bool keep_lines)
{
    bool after_blank = true; /* a line does not begin with one */
    while (text.size > 0) {
        size_t size;
        utf8proc_int32_t c = next_character(text, &size);
        bool is_blank = c == ' ' || c == '\n' || c == '\t' || (c == '\r' && !keep_lines);
        if (c == '\r' && keep_lines && text.size > 1 && ((const char *)text.data)[1] == '\n') {
            /* the end of a line, as some write it */
        } else if (is_blank && keep_lines) {
            memos_buffer_u8(out, (uint8_t)c);
        } else if (is_blank) {
            if (!after_blank) {
                memos_buffer_u8(out, ' ');
            }
        } else if (c < 0) {
            append_escaped(out, *(const uint8_t *)text.data);
        } else if (is_unsafe(c)) {
            append_escaped(out, c);
        } else {
            memos_buffer_bytes(out, text.data, size);
        }
        after_blank = is_blank;
        text = after(text, size);
    }
}

void ctl_text_piece(struct memos_buffer *out, struct memos_bytes text)
{
    while (text.size > 0) {
        size_t size;
        utf8proc_int32_t c = next_character(text, &size);
        if (c < 0) {
            append_escaped(out, *(const uint8_t *)text.data);
        } else if (is_unsafe(c)) {
            append_escaped(out, c);
        } else {
            memos_buffer_bytes(out, text.data, size);
        }
        text = after(text, size);
    }
}

static size_t width_of(utf8proc_int32_t c)
{
    int width = c < 0 ? 1 : utf8proc_charwidth(c);
    return width > 0 ? (size_t)width : 0;
}

size_t ctl_text_width(struct memos_bytes text)
{
    size_t columns = 0;
    while (text.size > 0) {
        size_t size;
        columns += width_of(next_character(text, &size));
        text = after(text, size);
    }
    return columns;
}

size_t ctl_text_fit(struct memos_buffer *out, struct memos_bytes text, size_t columns)
{
    if (ctl_text_width(text) <= columns) {
        memos_buffer_bytes(out, text.data, text.size);
        return ctl_text_width(text);
    }
    size_t used = 0, bytes = 0, size;
    while (columns > 0) {
        struct memos_bytes rest = after(text, bytes);
        size_t width = width_of(next_character(rest, &size));
        if (used + width > columns - 1) {
            break;
        }
        used += width;
        bytes += size;
    }
    memos_buffer_bytes(out, text.data, bytes);
    if (columns > 0) {
        memos_buffer_bytes(out, ELLIPSIS, sizeof ELLIPSIS - 1);
        used++;
    }
    return used;
}

struct memos_bytes ctl_text_head(struct memos_bytes text, size_t size)
{
    const uint8_t *data = text.data;
    if (text.size <= size) {
        return text;
    }
    while (size > 0 && (data[size] & 0xc0) == 0x80) {
        size--;
    }
    return memos_bytes_make(data, size);
}

char *ctl_text_size(uint64_t bytes, char out[16])
{
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB", "PB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 999.5 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1000;
        unit++;
    }
    snprintf(out, 16, unit == 0 || value >= 99.95 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return out;
}
