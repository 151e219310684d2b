/* JSON as Python writes it, which is what models were taught on. */
#include "paramem/chat_internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 64

static void put(struct memos_buffer *out, const char *text)
{
    memos_buffer_bytes(out, text, strlen(text));
}

static void put_string(struct memos_buffer *out, const char *text, size_t size)
{
    static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
    memos_buffer_u8(out, '"');
    for (size_t i = 0; i < size; i++) {
        const char *found = text[i] ? strchr(from, text[i]) : NULL;
        if (found) {
            memos_buffer_u8(out, '\\');
            memos_buffer_u8(out, (uint8_t)to[found - from]);
        } else if ((uint8_t)text[i] < 0x20) {
            memos_buffer_printf(out, "\\u%04x", (unsigned)(uint8_t)text[i]);
        } else {
            memos_buffer_u8(out, (uint8_t)text[i]);
        }
    }
    memos_buffer_u8(out, '"');
}

/* float.__repr__: the fewest digits that read back the same; an exponent below 10^-4 and from 10^16
 * on. */
static void put_real(struct memos_buffer *out, double value)
{
    char digits[40];
    int precision = 0;
    if (!isfinite(value)) {
        put(out, isnan(value) ? "NaN" : value < 0 ? "-Infinity" : "Infinity");
        return;
    }
    do {
        (void)snprintf(digits, sizeof digits, "%.*e", precision, value);
    } while (strtod(digits, NULL) != value && ++precision < 17);
    char *exponent = strchr(digits, 'e');
    int power = (int)strtol(exponent + 1, NULL, 10);
    if (value != 0 && (power < -4 || power >= 16)) {
        *exponent = '\0';
        memos_buffer_printf(out, "%se%s%02d", digits, power < 0 ? "-" : "+", abs(power));
    } else {
        int after = precision > power ? precision - power : 0;
        memos_buffer_printf(out, "%.*f%s", after, value, after == 0 ? ".0" : "");
    }
}

static void put_break(struct memos_buffer *out, size_t indent, size_t depth)
{
    if (indent > 0) {
        memos_buffer_printf(out, "\n%*s", (int)(indent * depth), "");
    }
}

static void write_value(struct memos_buffer *out, const json_t *json, size_t indent, size_t depth);

static void write_object(struct memos_buffer *out, const json_t *json, size_t indent, size_t depth)
{
    const char *key, *between = "";
    size_t size;
    json_t *value;
    put(out, "{");
    json_object_keylen_foreach((json_t *)(uintptr_t)json, key, size, value)
    {
        put(out, between);
        put_break(out, indent, depth + 1);
        put_string(out, key, size);
        put(out, ": ");
        write_value(out, value, indent, depth + 1);
        between = indent > 0 ? "," : ", ";
    }
    if (json_object_size(json) > 0) {
        put_break(out, indent, depth);
    }
    put(out, "}");
}

static void write_array(struct memos_buffer *out, const json_t *json, size_t indent, size_t depth)
{
    const char *between = "";
    const json_t *value;
    size_t i;
    put(out, "[");
    json_array_foreach(json, i, value)
    {
        put(out, between);
        put_break(out, indent, depth + 1);
        write_value(out, value, indent, depth + 1);
        between = indent > 0 ? "," : ", ";
    }
    if (json_array_size(json) > 0) {
        put_break(out, indent, depth);
    }
    put(out, "]");
}

static void write_value(struct memos_buffer *out, const json_t *json, size_t indent, size_t depth)
{
    if (depth > DEPTH_MAX) {
        out->failed = true;
        return;
    }
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        write_object(out, json, indent, depth);
        break;
    case JSON_ARRAY:
        write_array(out, json, indent, depth);
        break;
    case JSON_STRING:
        put_string(out, json_string_value(json), json_string_length(json));
        break;
    case JSON_INTEGER:
        memos_buffer_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(json));
        break;
    case JSON_REAL:
        put_real(out, json_real_value(json));
        break;
    default:
        put(out, json_is_true(json) ? "true" : json_is_false(json) ? "false" : "null");
    }
}

void paramem_json_write(const json_t *json, size_t indent, struct memos_buffer *out)
{
    write_value(out, json, indent, 0);
}
