#include "paramem/json_scan.h"

#include "paramem/text.h"

#include <string.h>

#define DEPTH_MAX 64

struct paramem_scan paramem_scan_of(struct memos_bytes bytes)
{
    const char *at = bytes.data ? bytes.data : "";
    return (struct paramem_scan){.at = at, .end = at + bytes.size};
}

static void fail(struct paramem_scan *scan)
{
    scan->failed = true;
    scan->at = scan->end;
}

char paramem_scan_peek(struct paramem_scan *scan)
{
    while (scan->at < scan->end && (uint8_t)*scan->at <= ' ' &&
           (*scan->at == ' ' || *scan->at == '\n' || *scan->at == '\r' || *scan->at == '\t')) {
        scan->at++;
    }
    return scan->at < scan->end ? *scan->at : '\0';
}

bool paramem_scan_has(struct paramem_scan *scan, char c)
{
    bool has = paramem_scan_peek(scan) == c && scan->at < scan->end;
    scan->at += has;
    return has;
}

void paramem_scan_expect(struct paramem_scan *scan, char c)
{
    if (!paramem_scan_has(scan, c)) {
        fail(scan);
    }
}

static uint32_t four_digits(struct paramem_scan *scan)
{
    uint32_t code = 0;
    if (scan->end - scan->at < 4) {
        fail(scan);
        return 0;
    }
    for (int i = 0; i < 4; i++) {
        char c = *scan->at++;
        uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                         : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                                : 16;
        if (digit == 16) {
            fail(scan);
            return 0;
        }
        code = code << 4 | digit;
    }
    return code;
}

/* Behind "\u"; two of them may be one character, and one half is none. */
static uint32_t escaped_code(struct paramem_scan *scan)
{
    uint32_t code = four_digits(scan);
    if (code < 0xD800 || code > 0xDFFF) {
        return code;
    }
    uint32_t low = 0;
    if (code < 0xDC00 && scan->end - scan->at >= 6 && scan->at[0] == '\\' && scan->at[1] == 'u') {
        scan->at += 2;
        low = four_digits(scan);
    }
    if (low < 0xDC00 || low > 0xDFFF) {
        fail(scan);
        return 0;
    }
    return 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
}

static void escape(struct paramem_scan *scan, struct memos_buffer *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char letter = scan->at < scan->end ? *scan->at++ : '\0';
    const char *found = letter ? strchr(from, letter) : NULL;
    if (found) {
        memos_buffer_u8(out, (uint8_t)to[found - from]);
    } else if (letter == 'u') {
        uint32_t code = escaped_code(scan);
        if (!scan->failed) {
            paramem_char_write(code, out);
        }
    } else {
        fail(scan);
    }
}

size_t paramem_scan_string(struct paramem_scan *scan, struct memos_buffer *out)
{
    size_t before = out->size;
    paramem_scan_expect(scan, '"');
    while (!scan->failed) {
        const char *plain = scan->at;
        while (scan->at < scan->end && *scan->at != '"' && *scan->at != '\\' &&
               (uint8_t)*scan->at >= 0x20) {
            scan->at++;
        }
        memos_buffer_bytes(out, plain, (size_t)(scan->at - plain));
        if (scan->at == scan->end || (uint8_t)*scan->at < 0x20) {
            fail(scan);
        } else if (*scan->at++ == '"') {
            break;
        } else {
            escape(scan, out);
        }
    }
    scan->failed = scan->failed || out->failed;
    return scan->failed ? 0 : out->size - before;
}

uint32_t paramem_scan_count(struct paramem_scan *scan, uint32_t max)
{
    uint64_t number = 0;
    char first = paramem_scan_peek(scan);
    size_t digits = 0;
    for (; scan->at < scan->end && *scan->at >= '0' && *scan->at <= '9' && digits < 11; digits++) {
        number = 10 * number + (uint64_t)(*scan->at++ - '0');
    }
    if (digits == 0 || digits > 10 || number > max || (first == '0' && digits > 1)) {
        fail(scan);
        return 0;
    }
    return (uint32_t)number;
}

static void skip_string(struct paramem_scan *scan)
{
    const char *at = scan->at + 1;
    while (at < scan->end && *at != '"') {
        at += 1 + (*at == '\\');
    }
    if (at >= scan->end) {
        fail(scan);
    } else {
        scan->at = at + 1;
    }
}

struct memos_bytes paramem_scan_skip(struct paramem_scan *scan)
{
    size_t depth = 0;
    (void)paramem_scan_peek(scan);
    const char *begin = scan->at;
    size_t commas = 0, values = 0; /* right within it */
    do {
        char c = paramem_scan_peek(scan);
        values += depth == 1 && c != ']' && c != '}';
        if (scan->at == scan->end) {
            fail(scan);
        } else if (c == '"') {
            skip_string(scan);
        } else if (c == '{' || c == '[') {
            scan->at++;
            if (++depth > DEPTH_MAX) {
                fail(scan);
            }
        } else if (c == '}' || c == ']') {
            if (depth == 0) {
                fail(scan);
                break;
            }
            scan->at++;
            depth--;
        } else if (depth > 0 && (c == ',' || c == ':')) {
            commas += depth == 1 && c == ',';
            scan->at++;
        } else {
            const char *word = scan->at;
            while (scan->at < scan->end && !strchr(" \t\r\n,:{}[]\"", *scan->at)) {
                scan->at++;
            }
            if (scan->at == word) {
                fail(scan);
            }
        }
    } while (depth > 0 && !scan->failed);
    scan->items = values > 0 ? commas + 1 : 0;
    return scan->failed ? memos_bytes_make(NULL, 0)
                        : memos_bytes_make(begin, (size_t)(scan->at - begin));
}

bool paramem_scan_enter(struct paramem_scan *scan, const char *key)
{
    struct memos_bytes wanted = memos_bytes_of(key);
    if (!paramem_scan_has(scan, '{')) {
        return false;
    }
    while (!scan->failed && paramem_scan_peek(scan) == '"') {
        struct memos_bytes name = paramem_scan_skip(scan);
        paramem_scan_expect(scan, ':');
        if (!scan->failed && name.size == wanted.size + 2 &&
            memcmp((const char *)name.data + 1, wanted.data, wanted.size) == 0) {
            return true;
        }
        (void)paramem_scan_skip(scan);
        if (!paramem_scan_has(scan, ',')) {
            break;
        }
    }
    return false;
}
